"""Accepted rows of a chunk that fall when the dataset is put together."""

from collections.abc import Mapping
from typing import Any

from prompts.record import End, Message, written

Row = Mapping[str, Any]
"""A row of a chunk's table."""


def fallen(row: Row, end: End, reason: str, detail: str, resembles: str | None = None) -> Row:
    """The row as one that is not accepted, with all that it holds. The chunk has its own answer
    alone: what other samples said is not among its raw texts."""
    turns = [Message.model_validate(turn) for turn in row["completion"]]
    return {
        **row,
        "end": end.value,
        "reason": reason,
        "detail": detail,
        "resembles": resembles,
        "raw": [text for turn in turns for text in written(turn)],
        "rationale": row["reasoning"],
    }
