"""Which run a checkpoint belongs to: a digest of all that decides the student's weights."""

import hashlib
import json
from pathlib import Path
from typing import Any

from prompts.files import file_sha256
from trainer.data import TokenRows
from trainer.loading import read_config, weight_files
from trainer.spec import MiniLLM, StoredKL, TrainSpec, WithTeacher

WATCHING = (
    "checkpoint_steps",
    "keep_checkpoints",
    "eval_steps",
    "sample_rows",
    "sample_tokens",
    "report_to",
)
"""Options that look at a run and change nothing of it."""


PLACES: dict[str, Any] = {
    **dict.fromkeys(("name", "dataset", "student", "teacher", "text", "api_key_env"), True),
    "in_flight": True,
    "vllm": {"memory_share", "in_flight"},
}
"""Where things are, and how they are reached."""


def digest_of(spec: TrainSpec, rows: TokenRows) -> str:
    """Of what decides the weights: paths and what only watches the run stay out of it."""
    fields = spec.model_dump(mode="json", exclude=PLACES)
    for name in WATCHING:
        del fields["optimization"][name]
    made = hashlib.sha256(json.dumps(fields, sort_keys=True).encode())
    for source in (spec.student, spec.teacher if isinstance(spec, WithTeacher) else None):
        made.update(json.dumps(_fingerprint(source), sort_keys=True).encode())
    for path in _files(spec):
        made.update(file_sha256(path).encode())
    for row in rows.rows:
        made.update(row.prompt_tokens.to_bytes(4, "little") + row.ids.tobytes())
        made.update(repr(row.weight).encode())
    return made.hexdigest()


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
    return []
