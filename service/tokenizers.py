"""Compares two models' vocabularies from their tokenizer files, without loading a model."""

import json
from pathlib import Path
from typing import Any

SPECIAL = ("bos_token", "eos_token", "unk_token")
"""Not the padding token: what it stands for is masked."""
SHOWN = 5


def difference(student: Path, teacher: Path) -> str | None:
    """Why a KL between the two can't be computed: what differs between their token-to-id maps or
    special tokens. None if they agree, or if either's tokenizer.json is not at hand (a hub name):
    then the trainer finds out before it trains."""
    ours, theirs = _vocabulary(student), _vocabulary(teacher)
    if ours is None or theirs is None:
        return None
    if ours != theirs:
        return (
            f"student and teacher have different vocabularies ({len(ours)} and {len(theirs)} "
            f"tokens): {_examples(ours, theirs)}. KL compares token by token; use a student with "
            "the teacher's tokenizer. A training may use the method sequence_level instead."
        )
    for name, (here, there) in _special_pairs(student, teacher).items():
        if here != there:
            return f"student and teacher have different {name}s: {here!r} and {there!r}"
    return None


def _vocabulary(directory: Path) -> dict[str, int] | None:
    file = directory / "tokenizer.json"
    if not file.is_file():
        return None
    content = json.loads(file.read_text(encoding="utf-8"))
    listed = content.get("model", {}).get("vocab", {})
    if isinstance(listed, list):  # Unigram: [token, score] in the order of ids
        vocabulary = {token: index for index, (token, _) in enumerate(listed)}
    else:
        vocabulary = dict(listed)
    return vocabulary | {added["content"]: added["id"] for added in content.get("added_tokens", [])}


def _examples(ours: dict[str, int], theirs: dict[str, int]) -> str:
    said = []
    for noun, these, those in (("student", ours, theirs), ("teacher", theirs, ours)):
        alone = sorted(these.keys() - those.keys(), key=these.__getitem__)
        if alone:
            names = ", ".join(map(repr, alone[:SHOWN]))
            said.append(f"{len(alone)} only in the {noun} ({names}{', …' * (len(alone) > SHOWN)})")
    moved = [token for token in ours if theirs.get(token, ours[token]) != ours[token]]
    if moved:
        token = moved[0]
        said.append(f"{len(moved)} with other ids ({token!r}: {ours[token]} and {theirs[token]})")
    return "; ".join(said)


def _special_pairs(student: Path, teacher: Path) -> dict[str, tuple[Any, Any]]:
    ours, theirs = _special(student), _special(teacher)
    return {name: (ours[name], theirs[name]) for name in ours.keys() & theirs.keys()}


def _special(directory: Path) -> dict[str, str | None]:
    file = directory / "tokenizer_config.json"
    if not file.is_file():
        return {}
    content = json.loads(file.read_text(encoding="utf-8"))
    found = {name: content.get(name) for name in SPECIAL}
    return {
        name: value["content"] if isinstance(value, dict) else value
        for name, value in found.items()
    }
