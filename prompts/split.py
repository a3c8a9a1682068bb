"""Which rows are trained on, chosen by and reported on: a hash of the input decides."""

import json
from collections.abc import Mapping
from hashlib import sha256
from typing import Any, Literal

from prompts.spec import Split
from prompts.template import Template

SplitName = Literal["train", "validation", "test"]
SPLITS: tuple[SplitName, ...] = ("train", "validation", "test")


def split_of(key: str, split: Split) -> SplitName:
    """The split of the row with this input key; the same in every version of a dataset.

    Test lies at the hash range's lower end and validation at its upper end, so a larger share
    takes rows from train alone: a row once in test stays in test.
    """
    place = int.from_bytes(sha256(key.encode()).digest()[:8], "big") / 2**64
    if place < split.test:
        return "test"
    if place >= 1 - split.validation:
        return "validation"
    return "train"


def input_key(template: Template, seed: Mapping[str, Any]) -> str:
    """What two seeds with the same input share: the template's fields as canonical JSON.

    Without the id and without demonstrations: neither a new name for a question nor other
    examples before it may carry it from test into train.
    """
    values = {name: seed.get(name) for name in template.fields}
    for name in template.optional:
        if values[name] == "":
            values[name] = None
    return json.dumps(values, sort_keys=True, ensure_ascii=False, separators=(",", ":"))
