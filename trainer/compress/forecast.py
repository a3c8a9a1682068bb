"""What a chain is expected to make, said before anything runs: sizes, and which engine loads it."""

import contextlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field, replace

from transformers import PreTrainedModel

from trainer.compress.anatomy import find_anatomy
from trainer.compress.engines import engines
from trainer.compress.expected import Expected, Linear, describe
from trainer.compress.folding import check_ratio
from trainer.compress.layout import find_layers, pick_linears
from trainer.compress.masks import check_layers
from trainer.compress.points import lay_out
from trainer.compress.ranks import check_budget, check_step, highest_rank, rank_for
from trainer.compress.schemes import SCHEMES
from trainer.compress.svd import check_type, ratio_for_bytes
from trainer.compress.width import check_sizes, resized
from trainer.errors import BadInput
from trainer.spec import (
    CompressSpec,
    DepthPrune,
    Evaluate,
    HealAlone,
    MagnitudePrune,
    QuantizeFinetune,
    QuantizePtq,
    QuantizeTrain,
    SparseGptPrune,
    StageSpec,
    SvdFactorize,
    TensorFactorize,
    WandaPrune,
    WidthPrune,
)


@dataclass(frozen=True)
class Forecast:
    """What one stage should leave, in words."""

    expected: Expected
    notes: tuple[str, ...] = field(default=())

    def tell(self, index: int, kind: str) -> str:
        """A line of the plan."""
        size = f"{self.expected.parameters:,} parameters, {self.expected.weight_bytes / 1e6:.2f} MB"
        if self.expected.unknown:
            size = f"at most {size} (the data decide)"
        return f"stages[{index}] {kind}: {size}; {'; '.join(self.notes)}"


def forecast(
    spec: CompressSpec, model: PreTrainedModel, wheel: str | None = None
) -> list[Forecast]:
    """What each stage, and each point of a sweep, should make, in order, and whether the vLLM of
    that wheel loads it. Raises BadInput, with the field's path, for what a stage won't be able to
    do."""
    start = describe(model)
    found: list[Forecast] = []
    for point in lay_out(spec):
        source = start if point.before is None else found[point.before].expected
        made = _after(point.stage, source, model, f"stages[{point.asked}]")
        found.append(Forecast(made, (*engines(made, wheel), *_filled(source, made))))
    return found


def _filled(source: Expected, made: Expected) -> tuple[str, ...]:
    """Where a mask's zeros go lost, since factors are dense."""
    names = [name for name, linear in made.linears.items() if not linear.masked]
    lost = [name for name in names if source.linears[name].masked]
    if not lost:
        return ()
    where = "all linears" if len(lost) == len(made.linears) else ", ".join(lost)
    return (f"the zeros that a mask left are filled in {where}",)


def _after(stage: StageSpec, source: Expected, model: PreTrainedModel, path: str) -> Expected:
    if isinstance(stage, DepthPrune):
        return _after_depth(stage, source, path)
    if isinstance(stage, WidthPrune):
        return _after_width(stage, source, model, path)
    if isinstance(stage, SvdFactorize):
        return _after_svd(stage, source, model, path)
    if isinstance(stage, QuantizePtq | QuantizeTrain | QuantizeFinetune):
        return _after_quantization(stage, source, model, path)
    if isinstance(stage, HealAlone | Evaluate):
        return source
    if isinstance(stage, TensorFactorize):
        return _after_tensor(stage, source, model, path)
    return _after_mask(stage, source, path)


def _after_depth(stage: DepthPrune, source: Expected, path: str) -> Expected:
    left = source.layers - stage.layers
    if left < 1:
        raise BadInput(
            f"{path}.layers: depth would leave {left} layers",
            f"The model has {source.layers} there. At least one must stay: ask for fewer.",
        )
    kinds = source.layer_kinds if left > 1 else frozenset()
    return _with_open_ranks(replace(source, layers=left, layer_kinds=kinds))


def _with_open_ranks(made: Expected) -> Expected:
    """The data decide which layers go, and so which ranks stay: the highest, at most."""
    known = {name: linear for name, linear in made.linears.items() if linear.ranks}
    if not known:
        return made
    highest = [sorted(one.ranks)[-made.layers :] for one in known.values()]
    budget = sum(sum(ranks) * one.cost for ranks, one in zip(highest, known.values(), strict=True))
    opened = {name: replace(linear, ranks=()) for name, linear in known.items()}
    return replace(made, linears={**made.linears, **opened}, budget=budget)


def _after_mask(
    stage: MagnitudePrune | WandaPrune | SparseGptPrune, source: Expected, path: str
) -> Expected:
    check_layers(stage.layer_sparsities, source.layers, path)
    if stage.pattern != "unstructured":
        group = int(stage.pattern[-1])
        for name, linear in source.linears.items():
            for inputs, said in _inputs(name, linear):
                if inputs % group:
                    raise BadInput(
                        f"{path}.pattern: {stage.pattern} doesn't fit {said}",
                        f"{inputs} is no multiple of {group}. Use pattern: unstructured.",
                    )
    return _with_mask(source, True, tuple(source.linears))


def _with_mask(source: Expected, masked: bool, names: Sequence[str]) -> Expected:
    changed = {name: replace(source.linears[name], masked=masked) for name in names}
    return replace(source, linears={**source.linears, **changed})


def _after_width(
    stage: WidthPrune, source: Expected, model: PreTrainedModel, path: str
) -> Expected:
    was = source.anatomy or find_anatomy(model)
    check_sizes(stage, was, model.config, path)
    now = resized(stage, was)
    attention, block = now.attention, now.feed_forward
    queries, keys = (count * attention.head_size for count in (attention.heads, attention.groups))
    outputs = dict.fromkeys(was.writers(), now.hidden) | dict.fromkeys(was.readers(), block.width)
    outputs |= {attention.query: queries, attention.key: keys, attention.value: keys}
    inputs = dict.fromkeys(was.readers(), now.hidden)
    inputs |= {attention.output: queries, block.down: block.width}
    linears = {
        name: replace(linear, m=outputs[name], n=inputs[name])
        for name, linear in source.linears.items()
    }
    lost = was.hidden - now.hidden
    vocabulary = (source.outside - was.hidden) // was.hidden
    return replace(
        source,
        linears=linears,
        anatomy=now,
        other_per_layer=source.other_per_layer - len(was.norms) * lost,
        outside=source.outside - (vocabulary + 1) * lost,
    )


def _after_svd(
    stage: SvdFactorize, source: Expected, model: PreTrainedModel, path: str
) -> Expected:
    with _at(path):
        check_type(model)
    targets = pick_linears(find_layers(model).layers[0], stage.targets)
    ratio = stage.parameter_ratio
    if stage.max_bytes is not None:
        shapes = {
            f"{index}.{name}": (source.linears[name].m, source.linears[name].n)
            for index in range(source.layers)
            for name in targets
        }
        ratio = ratio_for_bytes(source.parameters, source.item_bytes, shapes, stage.max_bytes)
    if stage.ranks == "by_loss":
        return _after_search(stage, source, list(targets), ratio, path)
    linears = dict(source.linears)
    for name in targets:
        one = linears[name]
        rank = rank_for(f"{path}: {name}", (one.m, one.n), ratio, stage.rank_multiple)
        linears[name] = replace(one, rank=rank, masked=False)
    return replace(source, linears=linears)


def _after_search(
    stage: SvdFactorize, source: Expected, targets: Sequence[str], ratio: float, path: str
) -> Expected:
    """The data choose the ranks: all of a budget may be spent, or what the highest ranks take."""
    step, linears = stage.rank_multiple, dict(source.linears)
    for name in targets:
        one = linears[name]
        with _at(path):
            check_step(name, (one.m, one.n), step)
        linears[name] = replace(
            one, rank=highest_rank((one.m, one.n), step), step=step, masked=False
        )
    budget = None
    if stage.max_relative_error is None and stage.max_loss_increase is None:
        whole = source.layers * sum(linears[name].m * linears[name].n for name in targets)
        budget = int(ratio * whole)
        lowest = source.layers * step * sum(linears[name].cost for name in targets)
        with _at(path):
            check_budget(lowest, source.layers * len(targets), budget)
    return replace(source, linears=linears, budget=budget)


def _after_tensor(
    stage: TensorFactorize, source: Expected, model: PreTrainedModel, path: str
) -> Expected:
    anatomy = source.anatomy or find_anatomy(model)
    with _at(path):
        check_ratio(stage, anatomy)
    return _with_mask(source, False, anatomy.attention.linears)


@contextlib.contextmanager
def _at(path: str) -> Iterator[None]:
    """Put the field's path before what is refused."""
    try:
        yield
    except BadInput as error:
        raise BadInput(f"{path}: {error.title}", error.detail) from error


def _after_quantization(
    stage: QuantizePtq | QuantizeTrain | QuantizeFinetune,
    source: Expected,
    model: PreTrainedModel,
    path: str,
) -> Expected:
    if stage.kind == "ptq" and stage.algorithm in ("smoothquant", "awq"):
        find_anatomy(model)
    if SCHEMES[stage.scheme].grouped:
        for name, linear in source.linears.items():
            for inputs, said in _inputs(name, linear):
                if inputs % stage.group_size:
                    raise BadInput(
                        f"{path}.group_size: {stage.group_size} doesn't divide {said}",
                        "Choose one that divides the inputs of every linear; ranks of factors "
                        "are inputs too (svd's rank_multiple).",
                    )
    if stage.kind == "qaf":
        _check_adapters(stage, source, path)
    zeros = stage.kind == "qaf" and stage.method == "qa_lora"
    return replace(source, scheme=stage.scheme, group_size=stage.group_size, zero_points=zeros)


def _inputs(name: str, linear: Linear) -> list[tuple[int, str]]:
    """Inputs of each matrix that will be stored, and what they are; of ranks that the data decide,
    what all of them are multiples of."""
    if linear.step is None:
        return [(inputs, f"the {inputs} inputs of {name}") for _, inputs in linear.matrices]
    ranks = (
        f"all ranks that {name} {'has' if linear.ranks else 'may get'}, multiples of {linear.step}"
    )
    return [(linear.n, f"the {linear.n} inputs of {name}"), (linear.step, ranks)]


def _check_adapters(stage: QuantizeFinetune, source: Expected, path: str) -> None:
    if stage.method == "peqa":
        return
    if source.sparse:
        raise BadInput(
            f"{path}.method: {stage.method} would fill the zeros that a mask left",
            "Merged adapters change every weight. Use method: peqa, or kind: qat, which keep them.",
        )
    for name, linear in source.linears.items():
        if stage.rank >= linear.least:
            raise BadInput(
                f"{path}.rank: {stage.rank} is no less than the {linear.least} of {name}",
                "Its adapters would have more numbers than it has itself. Take a smaller rank.",
            )


def tell(spec: CompressSpec, found: Sequence[Forecast]) -> str:
    """The plan as a person reads it, a line for each model to be made."""
    points = zip(lay_out(spec), found, strict=True)
    return "\n".join(each.tell(point.asked, point.label) for point, each in points)
