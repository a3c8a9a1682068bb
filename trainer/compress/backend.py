"""Which of vLLM's models runs a directory: named in its config.json where vLLM's own can't."""

import json
from pathlib import Path
from typing import Any

from trainer.compress.engines import DERIVES_HEAD_SIZE, TAKES_ONE_KIND_OF_LAYER
from trainer.loading import read_config

BACKEND = "TransformersForCausalLM"
"""vLLM's name for running a model as transformers does. transformers itself goes by the model's
type and doesn't read it."""


def name_backend(model_dir: Path) -> None:
    """Have vLLM run a model as transformers does whose head size its own would get wrong, or whose
    sliding windows it would refuse."""
    config = read_config(model_dir)
    if not _is_odd_in_size(config) and not _mixes_layers(config):
        return
    path = model_dir / "config.json"
    written = path.with_name(".config.json.writing")
    text = json.dumps({**config, "architectures": [BACKEND]}, indent=2, ensure_ascii=False)
    written.write_text(text + "\n", "utf-8")
    written.replace(path)


def _is_odd_in_size(config: dict[str, Any]) -> bool:
    if config.get("model_type") not in DERIVES_HEAD_SIZE:
        return False
    heads, size = config["num_attention_heads"], config.get("head_dim")
    return size is not None and heads * size != config["hidden_size"]


def _mixes_layers(config: dict[str, Any]) -> bool:
    if config.get("model_type") not in TAKES_ONE_KIND_OF_LAYER:
        return False
    return len(set(config.get("layer_types") or ())) > 1
