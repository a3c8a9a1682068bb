"""The Parquet columns of accepted rows, of all other rows, and of chunks, which hold both."""

from collections.abc import Sequence
from typing import Any

import pyarrow as pa

from prompts.record import End, Record, Rejected

_FUNCTION = pa.struct([("name", pa.string()), ("arguments", pa.string())])
_CALLS = pa.list_(pa.struct([("id", pa.string()), ("type", pa.string()), ("function", _FUNCTION)]))
_MESSAGES = pa.list_(
    pa.struct(
        [
            ("role", pa.string()),
            ("content", pa.string()),
            ("tool_calls", _CALLS),
            ("tool_call_id", pa.string()),
            ("name", pa.string()),
        ]
    )
)
_USAGE = pa.struct([("prompt_tokens", pa.int64()), ("completion_tokens", pa.int64())])
_JUDGEMENTS = pa.list_(
    pa.struct([("teacher", pa.string()), ("score", pa.float64()), ("reason", pa.string())])
)
_TEXTS = pa.list_(pa.string())
_TYPES: dict[str, pa.DataType] = {
    "prompt": _MESSAGES,
    "completion": _MESSAGES,
    "raw": _TEXTS,
    "demo_ids": _TEXTS,
    "usage": _USAGE,
    "confidence": pa.float64(),
    "hinted": pa.bool_(),
    "flags": _TEXTS,
    "judgements": _JUDGEMENTS,
}
"""Every other column is text."""


def _schema(names: Sequence[str]) -> pa.Schema:
    return pa.schema([(name, _TYPES.get(name, pa.string())) for name in names])


RECORD_SCHEMA = _schema(list(Record.model_fields))
REJECTED_SCHEMA = _schema(list(Rejected.model_fields))
CHUNK_SCHEMA = _schema(list(dict.fromkeys([*Rejected.model_fields, *Record.model_fields])))


def chunk_table(rows: Sequence[Record | Rejected]) -> pa.Table:
    """Rows of both sorts as one table of `CHUNK_SCHEMA`; columns a row lacks are null."""
    return pa.Table.from_pylist([_values(row) for row in rows], schema=CHUNK_SCHEMA)


def whole(table: pa.Table) -> pa.Table:
    """A chunk's table with all columns of `CHUNK_SCHEMA`: null where an earlier release wrote it
    without."""
    missing = [field for field in CHUNK_SCHEMA if field.name not in table.column_names]
    for field in missing:
        table = table.append_column(field, pa.nulls(len(table), field.type))
    return table


def _values(row: Record | Rejected) -> dict[str, Any]:
    values = row.model_dump(mode="json")
    if isinstance(row, Record):
        values["end"] = End.ACCEPTED.value
    return values
