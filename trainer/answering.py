"""How a model is set to answer, by its generation_config.json."""

from transformers import GenerationConfig, PreTrainedModel

SPECIAL_IDS = ("bos_token_id", "eos_token_id", "pad_token_id")


def make_savable(model: PreTrainedModel) -> None:
    """transformers loads settings that contradict each other, and refuses to save them once a
    student is trained. Many chat models have a temperature without do_sample: it is asked for
    then, which is what engines make of them, and how Llama 2's were mended. Of others only the
    special tokens stay."""
    config = model.generation_config
    if config is None or _savable(config):
        return
    config.do_sample = True
    if not _savable(config):
        held = config.to_dict()
        model.generation_config = GenerationConfig(**{name: held.get(name) for name in SPECIAL_IDS})


def _savable(config: GenerationConfig) -> bool:
    try:
        config.validate(strict=True)
    except (ValueError, TypeError, AttributeError):  # as odd as the values are
        return False
    return True
