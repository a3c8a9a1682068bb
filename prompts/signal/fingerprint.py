"""What tells two tokenizers, or two chat templates, apart."""

import json
from hashlib import sha256
from pathlib import Path


def tokenizer_sha256(directory: Path) -> str | None:
    """SHA-256 of a model directory's tokenizer.json; None if it has none."""
    file = directory / "tokenizer.json"
    return sha256(file.read_bytes()).hexdigest() if file.is_file() else None


def template_sha256(directory: Path) -> str | None:
    """SHA-256 of the text of a model directory's chat template; None if it has none.

    chat_template.jinja counts before tokenizer_config.json, as in transformers.
    """
    file, config = directory / "chat_template.jinja", directory / "tokenizer_config.json"
    if file.is_file():
        return sha256(file.read_text(encoding="utf-8").encode()).hexdigest()
    if not config.is_file():
        return None
    template = json.loads(config.read_text(encoding="utf-8")).get("chat_template")
    return sha256(template.encode()).hexdigest() if isinstance(template, str) else None


def vocabulary_size(directory: Path) -> int | None:
    """Token ids of the model in a directory, unused ones included; None if it doesn't say."""
    return _count(directory, "vocab_size")


def context_tokens(directory: Path | None) -> int | None:
    """Tokens that the model in a directory was made for; None if it doesn't say."""
    return None if directory is None else _count(directory, "max_position_embeddings")


def _count(directory: Path, name: str) -> int | None:
    file = directory / "config.json"
    if not file.is_file():
        return None
    size = json.loads(file.read_text(encoding="utf-8")).get(name)
    return size if isinstance(size, int) and size > 0 else None
