"""Low-rank adapters: put into a student before training, folded into its weights after."""

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from torch import nn
from transformers import PreTrainedModel
from transformers.pytorch_utils import Conv1D

from trainer.errors import BadInput
from trainer.events import Emit
from trainer.spec import Lora

DEFAULT = Lora().layers


def add_lora(model: PreTrainedModel, lora: Lora, emit: Emit) -> None:
    """Freeze all weights and add adapters (arXiv:2106.09685). BadInput where a name fits nothing,
    or no linear of the body; a warning where the default fits in part."""
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules=_targets(model, lora.layers, emit),
        task_type="CAUSAL_LM",
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise BadInput("lora.layers fit no layer of the student", str(error)) from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def merge_lora(model: PreTrainedModel) -> None:
    """W + (alpha / rank) B A in place of each adapted linear: a plain model again."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, module.get_base_layer())


def _targets(model: PreTrainedModel, layers: tuple[str, ...], emit: Emit) -> str | list[str]:
    """As peft takes them."""
    if layers == ("all",):
        return "all-linear"
    linears = _linears(model)
    found = [layer for layer in layers if _fits(model, layer, linears)]
    missing = ", ".join(layer for layer in layers if layer not in found)
    if missing and (layers != DEFAULT or not found):
        raise BadInput(f"lora.layers: the student has no {missing}", _advice(linears))
    if missing:
        some = f"lora adapts {', '.join(found)} alone: the student has no {missing}"
        emit("warning", {"detail": f"{some}. {_advice(linears)}"})
    return found


def _fits(model: PreTrainedModel, layer: str, linears: set[str]) -> bool:
    """Whether a name ends that of any linear; BadInput where it ends another module's. Embeddings
    may share their weight with the head: merged into them, an adapter would change both."""
    named = {name for name, _ in model.named_modules() if f".{name}".endswith(f".{layer}")}
    if not named <= linears:
        raise BadInput(f"lora.layers: {layer} is no linear of the body", _advice(linears))
    return bool(named)


def _linears(model: PreTrainedModel) -> set[str]:
    """Names of the body's: all but the head."""
    head = model.get_output_embeddings()
    modules = model.named_modules()
    return {n for n, m in modules if isinstance(m, nn.Linear | Conv1D) and m is not head}


def _advice(linears: set[str]) -> str:
    names = sorted({name.rpartition(".")[2] for name in linears})
    return f"Its linears are {', '.join(names[:20])}: name some in lora.layers, or 'all'."
