"""Which run a checkpoint belongs to: a digest of all that decides the student's weights."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prompts.files import file_sha256
from prompts.record import Record
from trainer.data import TokenRows
from trainer.loading import read_config, weight_files
from trainer.spec import MiniLLM, StoredKL, TrainSpec, UniversalLogit, WithTeacher

WATCHING = (
    "checkpoint_steps",
    "keep_checkpoints",
    "eval_steps",
    "sample_rows",
    "sample_tokens",
    "report_to",
)
"""Options that look at a run and change nothing of it."""

TOKENIZER = ("tokenizer*", "chat_template*", "vocab.*", "merges.txt")
"""Files of a model directory that turn rows into tokens."""

PLACES: dict[str, Any] = {
    **dict.fromkeys(("name", "dataset", "student", "teacher", "text", "api_key_env"), True),
    "in_flight": True,
    "vllm": {"memory_share", "in_flight"},
}
"""Where things are, and how they are reached."""


def digest_of(
    spec: TrainSpec,
    rows: TokenRows,
    records: Sequence[Record],
    validation: TokenRows,
    ranks: int = 1,
) -> str:
    """Of what decides the weights: paths and what only watches the run stay out of it.

    `records` are those that the rows were made of: a method's teacher may see more of them.
    """
    fields = spec.model_dump(mode="json", exclude=PLACES)
    for name in WATCHING:
        if not (name == "eval_steps" and _chooses(spec)):
            del fields["optimization"][name]
    made = hashlib.sha256(json.dumps([fields, ranks], sort_keys=True).encode())
    for source in (spec.student, spec.teacher if isinstance(spec, WithTeacher) else None):
        made.update(json.dumps(_fingerprint(source), sort_keys=True).encode())
    for path in _files(spec):
        made.update(file_sha256(path).encode())
    for record in records:
        made.update(record.content_hash.encode())
    for row in [*rows.rows, *(validation.rows if _chooses(spec) else ())]:
        made.update(row.prompt_tokens.to_bytes(4, "little") + row.ids.tobytes())
        made.update(repr(row.weight).encode())
    return made.hexdigest()


def _chooses(spec: TrainSpec) -> bool:
    """Whether the validation loss decides which weights are kept, or when the run ends."""
    return spec.optimization.keep == "best" or spec.optimization.patience is not None


def _fingerprint(source: str | None) -> Any:
    """Of a model directory: configuration and weights; of a hub name: the name."""
    if source is None or not Path(source).is_dir():
        return source
    return [read_config(source), [file_sha256(path) for path in weight_files(source)]]


def _files(spec: TrainSpec) -> list[Path]:
    """What a method reads beside models and rows; what isn't there is refused elsewhere."""
    if isinstance(spec, StoredKL) and spec.dataset is not None:
        return sorted(Path(spec.dataset, "signal").glob("*.signal"))
    if isinstance(spec, MiniLLM) and spec.text is not None and Path(spec.text).is_file():
        return [Path(spec.text)]
    if isinstance(spec, UniversalLogit):  # The teacher reads the rows in tokens of its own.
        return sorted(path for name in TOKENIZER for path in Path(spec.teacher).glob(name))
    return []
