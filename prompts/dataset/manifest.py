"""The manifest: written last, and the only list of a dataset's files that readers believe."""

import json
from pathlib import Path
from typing import Literal

from pydantic import Field, ValidationError

from prompts.dataset.files import DatasetError
from prompts.record import Frozen

MANIFEST = "manifest.json"
FORMAT = "retort-dataset"
VERSION = 1


class Counts(Frozen):
    """How many rows ended how; the three ends add up to the seeds."""

    seeds: int
    accepted: int
    rejected: int
    not_needed: int


class ShardFile(Frozen):
    """One Parquet file."""

    path: str
    """Relative to the dataset."""
    part: Literal["train", "validation", "test", "rejected"]
    rows: int
    bytes: int
    sha256: str


class SignalPart(Frozen):
    """One file of the teacher signal."""

    path: str
    """Relative to the dataset."""
    rows: int
    tokens: int
    bytes: int
    sha256: str


class SignalSummary(Frozen):
    """The teacher signal beside the rows; its files' headers say more."""

    kind: Literal["top_k", "sampled"]
    width: int
    """Entries a token."""
    temperature: float
    teacher: str
    rows: int
    """Of the accepted rows, those that have a signal."""
    tokens: int
    files: tuple[SignalPart, ...]


class Diff(Frozen):
    """What an incremental build made of the version that it began from; accepted rows."""

    base: str
    """Id of that version."""
    kept: int
    added: int


class Manifest(Frozen):
    """What a dataset holds."""

    format: Literal["retort-dataset"] = "retort-dataset"
    version: Literal[1] = 1
    name: str
    kinds: tuple[str, ...]
    counts: Counts
    splits: dict[str, int]
    """Accepted rows per split."""
    reasons: dict[str, int]
    """Rows that were not accepted, per reason."""
    flags: dict[str, int] = Field(default_factory=dict)
    """Accepted rows per flag: what checks found and didn't reject."""
    empty: bool
    """No row was accepted: there is nothing to train on."""
    teachers: tuple[str, ...]
    teacher_revisions: tuple[str, ...]
    totals: dict[str, float]
    """prompt_tokens and completion_tokens of all rows, and what the maker adds (GPU seconds)."""
    files: tuple[ShardFile, ...]
    signal: SignalSummary | None = None
    """None: no signal was asked for, or no row was accepted."""
    diff: Diff | None = None
    """None: it was built anew."""


def read_manifest(path: Path) -> Manifest:
    """The manifest of the dataset at `path`.

    Raises DatasetError if that is no dataset, an unfinished one, or one of another version.
    """
    try:
        content = json.loads((path / MANIFEST).read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise DatasetError(f"{path} is no dataset: it has no {MANIFEST}") from None
    except ValueError as error:
        raise DatasetError(f"{path / MANIFEST} is no JSON: {error}") from None
    _check_format(path, content)
    try:
        return Manifest.model_validate(content)
    except ValidationError as error:
        raise DatasetError(
            f"{path / MANIFEST} is not a version {VERSION} manifest: {error}"
        ) from None


def _check_format(path: Path, content: object) -> None:
    if not isinstance(content, dict) or content.get("format") != FORMAT:
        raise DatasetError(f"{path} is no dataset: its {MANIFEST} is of another kind")
    if content.get("version") != VERSION:
        found = content.get("version")
        raise DatasetError(
            f"{path} has format version {found!r}, this release reads {VERSION}:"
            " read it with the release that wrote it"
        )
