"""Low-rank adapters: put into a student before training, folded into its weights after."""

from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.tuners_utils import BaseTunerLayer
from transformers import PreTrainedModel

from trainer.errors import BadInput
from trainer.spec import Lora


def add_lora(model: PreTrainedModel, lora: Lora) -> None:
    """Freeze all weights and add adapters (arXiv:2106.09685); BadInput where none fits."""
    everything = lora.layers == ("all",)
    config = LoraConfig(
        r=lora.rank,
        lora_alpha=lora.alpha,
        lora_dropout=lora.dropout,
        target_modules="all-linear" if everything else list(lora.layers),
        task_type="CAUSAL_LM",
    )
    try:
        inject_adapter_in_model(config, model)
    except ValueError as error:
        raise BadInput(
            "lora.layers fit no layer of the student",
            f"{', '.join(lora.layers)}: {error}. Use 'all', or names that end its linears' own.",
        ) from error
    for name, parameter in model.named_parameters():
        parameter.requires_grad_("lora_" in name)


def merge_lora(model: PreTrainedModel) -> None:
    """W + (alpha / rank) B A in place of each adapted linear: a plain model again."""
    for name, module in list(model.named_modules()):
        if isinstance(module, BaseTunerLayer):
            module.merge()
            owner, _, attribute = name.rpartition(".")
            setattr(model.get_submodule(owner), attribute, module.get_base_layer())
