"""Models and tokenizers from a directory or a hub name, refused in words where they can't be."""

import contextlib
import importlib.util
import json
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import try_to_load_from_cache
from huggingface_hub.errors import HFValidationError, StrictDataclassError
from safetensors import SafetensorError
from transformers import (
    AutoConfig,
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
)

from trainer.answering import make_savable
from trainer.errors import BadInput

NO_LIMIT = 2**31
"""Tokens, of a model that doesn't say how many it holds."""
WEIGHTS = "*.safetensors"
PICKLES = ("*.bin", "*.pt", "*.pth", "*.ckpt", "*.pkl")
"""Loading such a file may run what is in it."""
UNREADABLE = (
    OSError,
    ValueError,
    LookupError,
    ImportError,
    TypeError,
    AttributeError,
    ArithmeticError,
    AssertionError,
    StrictDataclassError,
)
"""What transformers raises of files that hold no model: whatever an odd value meets first."""


def load_model(source: str | Path, dtype: torch.dtype | None = None) -> PreTrainedModel:
    """A causal language model in eval mode; dtype None keeps the one it was saved in.

    Factorized models load where `retort_lowrank` is installed, compressed-tensors ones where
    that package is. No code that comes with a model is run, and no pickle is opened. Raises
    BadInput for a directory that isn't a model, doesn't load, or lacks weights that its
    configuration asks for: the library would draw them at random.
    """
    _register_lowrank()
    _check_pickles(source)
    _check_directory(source, ("config.json",), (WEIGHTS,))
    try:
        # With its loading info it is a pair, which its annotation leaves out.
        found: Any = AutoModelForCausalLM.from_pretrained(
            str(source),
            dtype=dtype or "auto",
            config=_grouped(source, _config(source)),
            use_safetensors=True,
            trust_remote_code=False,
            output_loading_info=True,
        )
    except (*UNREADABLE, RuntimeError, SafetensorError) as error:
        raise BadInput(f"{source} can't be loaded as a language model", _first(error)) from error
    model, told = found
    if missing := sorted(told["missing_keys"]):
        raise BadInput(
            f"{source} lacks {len(missing)} weights of its configuration",
            f"The first are {', '.join(missing[:3])}. Copy the directory again, all files of it, "
            "or mend its config.json.",
        )
    loaded: PreTrainedModel = model.eval()
    make_savable(loaded)
    return loaded


def check_weights(source: str | Path, model: PreTrainedModel) -> None:
    """BadInput for weights that are no numbers: nothing can be made from them."""
    for name, weight in model.named_parameters():
        if not torch.isfinite(weight).all():
            raise BadInput(
                f"{source} has weights that are not finite",
                f"The first are in {name}. Start from a model that answers.",
            )


def make_model(source: str | Path, seed: int) -> PreTrainedModel:
    """A model of a directory's or hub name's configuration in fp32, its weights random by `seed`;
    weights that lie there are left alone. Raises BadInput for a configuration of no language
    model."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return _configured(source, torch.device("cpu"))


def outline(source: str | Path) -> PreTrainedModel:
    """Shapes and settings of a directory's or hub name's model, none of its weights, which stand
    on the meta device. Raises BadInput as `make_model` does."""
    return _configured(source, torch.device("meta"))


def _configured(source: str | Path, device: torch.device) -> PreTrainedModel:
    _register_lowrank()
    _check_directory(source, ("config.json",))
    try:
        with device:
            made = AutoModelForCausalLM.from_config(
                _grouped(source, _config(source)), dtype=torch.float32, trust_remote_code=False
            )
    except (*UNREADABLE, RuntimeError) as error:
        raise BadInput(f"{source} configures no language model", _first(error)) from error
    model: PreTrainedModel = made.eval()
    # Not all keep one: the configuration has told what it knows.
    with contextlib.suppress(*UNREADABLE):
        model.generation_config = GenerationConfig.from_pretrained(str(source))
    make_savable(model)
    return model


def load_tokenizer(source: str | Path) -> PreTrainedTokenizerBase:
    """The tokenizer beside a model. Raises BadInput where there is none."""
    _register_lowrank()
    _check_directory(source, ("config.json",), ("tokenizer.json", "tokenizer.model", "vocab.*"))
    try:
        tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(
            str(source), trust_remote_code=False
        )
    except UNREADABLE as error:
        raise BadInput(f"{source} has no {_unread(source)} that loads", _first(error)) from error
    return tokenizer


def tokenizer_file(tokenizer: PreTrainedTokenizerBase) -> Path | None:
    """The tokenizer.json that it was loaded from, of a directory or of a hub name's cache; None
    where there is none."""
    source = tokenizer.name_or_path
    if Path(source).is_dir():
        found = Path(source, "tokenizer.json")
        return found if found.is_file() else None
    try:
        cached = try_to_load_from_cache(source, "tokenizer.json")
    except HFValidationError:
        return None
    return Path(cached) if isinstance(cached, str) else None


def read_config(source: str | Path) -> dict[str, Any]:
    """A model directory's config.json; empty for a hub name."""
    path = Path(source) / "config.json"
    if not path.is_file():
        return {}
    try:
        config: Any = json.loads(path.read_text("utf-8"))
    except ValueError as error:
        raise BadInput(f"{path} is not JSON", f"{error}. Save the model again.") from error
    if not isinstance(config, dict):
        raise BadInput(f"{path} is no JSON object", "Save the model again.")
    return config


_STORED = {
    "bfloat16": torch.bfloat16,
    "float16": torch.float16,
    "float64": torch.float64,
}


def stored_dtype(source: str | Path) -> torch.dtype:
    """The dtype that a model directory's weights are in, as its configuration says; else fp32."""
    config = read_config(source)
    named = str(config.get("dtype") or config.get("torch_dtype"))
    return _STORED.get(named, torch.float32)


def positions(source: str | Path) -> int | None:
    """How many tokens a directory's or hub name's model holds; None where it doesn't say, or where
    loading it will say more."""
    try:
        return _held(_config(source))
    except UNREADABLE:
        return None


def held_tokens(model: PreTrainedModel) -> int | None:
    """How many tokens a model holds; None where it doesn't say."""
    return _held(model.config)


def weight_files(source: str | Path) -> list[Path]:
    """A model directory's weight files, sorted."""
    return sorted(Path(source).glob(WEIGHTS))


def end_ids(model: PreTrainedModel, tokenizer: PreTrainedTokenizerBase) -> frozenset[int]:
    """Tokens that end an answer: the tokenizer's eos and those that generation stops at."""
    found: set[int] = set()
    generation = model.generation_config
    for given in (tokenizer.eos_token_id, generation.eos_token_id if generation else None):
        if isinstance(given, int):
            found.add(given)
        elif given is not None:
            found.update(int(one) for one in given)
    return frozenset(found)


def _unread(source: str | Path) -> str:
    """What of a directory stands in the way of its tokenizer: transformers looks at both."""
    try:
        if Path(source).is_dir():
            _config(source)
    except UNREADABLE:
        return "configuration"
    return "tokenizer"


def _config(source: str | Path) -> PreTrainedConfig:
    """Compressed-tensors weights are unpacked at loading, activations still rounded as in the
    engine. Left packed, they would be unpacked by the whole model's first forward pass, and a
    pass through its body alone before that would fail. Attention scores that are capped softly
    (Gemma 2) take eager attention: PyTorch's own kernel leaves the cap out."""
    config: PreTrainedConfig = AutoConfig.from_pretrained(str(source), trust_remote_code=False)
    quantization = config.to_dict().get("quantization_config") or {}
    if quantization.get("quant_method") == "compressed-tensors":
        config.quantization_config = {**quantization, "dequantize": True}
    if config.get_text_config().to_dict().get("attn_logit_softcapping") is not None:
        config._attn_implementation = "eager"
    return config


def _grouped(source: str | Path, config: PreTrainedConfig) -> PreTrainedConfig:
    """Refuse heads that their groups can't share: transformers would fail in its first pass."""
    values = config.get_text_config().to_dict()
    heads, groups = values.get("num_attention_heads"), values.get("num_key_value_heads")
    if isinstance(heads, int) and isinstance(groups, int) and (groups < 1 or heads % groups):
        raise BadInput(
            f"{source} has {heads} attention heads in {groups} groups",
            "Each group shares a key and a value, so num_key_value_heads must divide "
            "num_attention_heads. Mend its config.json.",
        )
    return config


def _held(config: PreTrainedConfig) -> int | None:
    inner = config.get_text_config()
    name = inner.attribute_map.get("max_position_embeddings", "max_position_embeddings")
    found = inner.to_dict().get(name)  # GPT-2's is n_positions
    return found if found is None else int(found)


def _register_lowrank() -> None:
    """Importing the package registers its model types with transformers' Auto classes."""
    if importlib.util.find_spec("retort_lowrank") is not None:
        importlib.import_module("retort_lowrank")


def _check_pickles(source: str | Path) -> None:
    path = Path(source)
    if not path.is_dir() or weight_files(source):
        return
    pickles = sorted(one.name for pattern in PICKLES for one in path.glob(pattern))
    if pickles:
        raise BadInput(
            f"{source} keeps its weights in pickle files",
            f"Opening {', '.join(pickles[:4])} may run whatever is in them. Convert them where you "
            "trust them, with save_pretrained, and give the directory with safetensors.",
        )


def _check_directory(source: str | Path, *alternatives: tuple[str, ...]) -> None:
    path = Path(source)
    if not path.exists():
        if path.is_absolute() or str(source).startswith((".", "~")) or str(source).count("/") > 1:
            raise BadInput(f"there is no model at {source}", "Check the path.")
        return  # a hub name: the hub, or its cache, decides
    if not path.is_dir():
        raise BadInput(f"{source} is not a model directory", "It is a file. Name its directory.")
    for patterns in alternatives:
        if not any(any(path.glob(pattern)) for pattern in patterns):
            held = ", ".join(sorted(entry.name for entry in path.iterdir())[:8]) or "nothing"
            raise BadInput(
                f"{source} is not a model directory",
                f"It lacks {' or '.join(patterns)} and holds {held}. Give a directory that "
                "transformers' save_pretrained wrote, with its tokenizer.",
            )


def _first(error: BaseException) -> str:
    if "trust_remote_code" in str(error):
        return (
            "It needs code that comes with it, which is never run (trust_remote_code is off). Take "
            "an architecture that transformers itself has."
        )
    return str(error).strip().split("\n\n")[0][:600] or type(error).__name__
