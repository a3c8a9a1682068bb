"""A stage's settings in words: those that say what it did. Free of torch."""

from typing import Any, get_args

from trainer.spec.compress import Stage, StageSpec

MAIN = {
    "magnitude": ("sparsity",),
    "wanda": ("sparsity",),
    "sparsegpt": ("sparsity",),
    "depth": ("layers",),
    "svd": ("parameter_ratio",),
    "tensor": ("form", "parameter_ratio"),
    "ptq": ("scheme", "algorithm"),
    "qat": ("scheme",),
    "qaf": ("method", "scheme"),
}
"""Fields that are told whatever they hold, by kind; others where they are not the default."""
REPLACED = {
    "sparsity": ("layer_sparsities",),
    "parameter_ratio": ("max_bytes", "max_relative_error", "max_loss_increase"),
}
"""Fields that are not read where another has a value."""
COMMON = {*Stage.model_fields, "kind", "sweep", "training"}
KINDS: dict[str, type[Stage]] = {
    get_args(one.model_fields["kind"].annotation)[0]: one
    for one in get_args(get_args(StageSpec)[0])
}


def settings(spec: dict[str, Any]) -> str:
    """Of a stored spec: 'scheme W8A8, algorithm gptq'; empty where there is nothing to say."""
    told = {name: value for name, value in spec.items() if _is_told(spec, name, value)}
    if spec.get("scheme") == "W4A16" and "group_size" in spec:
        told["group_size"] = spec["group_size"]
    return ", ".join(f"{name} {_words(value)}" for name, value in told.items())


def _is_told(spec: dict[str, Any], name: str, value: Any) -> bool:
    if value is None or name in COMMON:
        return False
    if any(spec.get(other) is not None for other in REPLACED.get(name, ())):
        return False
    known = KINDS.get(spec["kind"], Stage).model_fields.get(name)
    usual = known.get_default() if known is not None else None
    return name in MAIN.get(spec["kind"], ()) or value not in (usual, _as_stored(usual))


def _as_stored(value: Any) -> Any:
    """JSON has no tuples."""
    return list(value) if isinstance(value, tuple) else value


def _words(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
