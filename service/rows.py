"""Rows of a dataset, filtered and searched in its Parquet files by DuckDB: nothing is loaded whole,
what a user wrote is a bound parameter always, and no file but the dataset's can be read."""

import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Generic, TypeVar

import duckdb
from pydantic import BaseModel, Field

from prompts.dataset import DatasetError, read_manifest
from prompts.record import Frozen, Kind, Record, Rejected
from prompts.split import SplitName
from service.problems import Fault, Problem, bad_input, not_found

MEMORY_LIMIT = "512MB"
THREADS = 2
SEARCH_S = 20.0
"""A search that takes longer is stopped, with advice."""
MOST_ROWS = 1000
BUCKETS = 24
CONFIDENCE_STEPS = 20

T = TypeVar("T", Record, Rejected)

_PROMPT = "[turn.content for turn in prompt]"
_COMPLETION = "[turn.content for turn in completion]"
_SEARCHED = {
    "accepted": f"list_concat({_PROMPT}, {_COMPLETION}, [id, answer, gold])",
    "rejected": f"list_concat({_PROMPT}, raw, [id, answer, gold, detail])",
}
"""Where a search looks."""


class Wanted(Frozen):
    """Which rows: every condition that is given must hold."""

    kind: Kind | None = None
    reason: str | None = None
    """Why a row was rejected or not needed; only rejected rows have one."""
    search: str | None = Field(None, max_length=500)
    """Text in prompt, completions, answers, detail or id; upper and lower case are the same."""
    after: str | None = None
    """Cursor: rows behind this place."""
    limit: int = Field(20, ge=1, le=MOST_ROWS)


class RowPage(BaseModel, Generic[T]):
    """A page of rows, in input order."""

    rows: list[T]
    next: str | None
    """Give it as `cursor` for the next page; null on the last."""


class Length(Frozen):
    """How many completions are so long."""

    low: int
    """Tokens, from."""
    high: int
    """Tokens, up to but without."""
    rows: int


class Confidence(Frozen):
    """How many accepted rows are so sure."""

    low: float
    """Agreement among samples, from."""
    high: float
    """Agreement, up to; without it but for 1."""
    rows: int


def accepted(path: Path, split: SplitName, wanted: Wanted) -> RowPage[Record]:
    """Accepted rows of the dataset at `path`. Raises problems: files gone, bad cursor, too slow."""
    found, more = _page(path, split, "accepted", wanted)
    return RowPage(rows=[Record.model_validate(row) for row in found], next=more)


def rejected(path: Path, wanted: Wanted) -> RowPage[Rejected]:
    """Rows that were not accepted, each with its reason."""
    found, more = _page(path, "rejected", "rejected", wanted)
    return RowPage(rows=[Rejected.model_validate(row) for row in found], next=more)


def one(path: Path, row_id: str) -> Record | Rejected:
    """A row by id, however it ended. Raises a 404 problem."""
    for part in ("train", "validation", "test", "rejected"):
        files = _files(path, part)
        if not files:
            continue
        query = "SELECT * FROM read_parquet($files) WHERE id = $id LIMIT 1"
        rows = _ask(path, query, {"files": files, "id": row_id})
        if rows:
            model = Rejected if part == "rejected" else Record
            return model.model_validate(rows[0])
    raise not_found("row", row_id, [])


def some(path: Path, ids: Sequence[str]) -> dict[str, Record | Rejected]:
    """Id -> row, of those among `ids` that are there, however they ended."""
    found: dict[str, Record | Rejected] = {}
    for part in ("train", "validation", "test", "rejected") if ids else ():
        files = _files(path, part)
        query = "SELECT * FROM read_parquet($files) WHERE list_contains($ids::VARCHAR[], id)"
        model = Rejected if part == "rejected" else Record
        for row in _ask(path, query, {"files": files, "ids": list(ids)}) if files else ():
            found.setdefault(row["id"], model.model_validate(row))
    return found


def lengths(path: Path) -> list[Length]:
    """Accepted completions by their length in tokens, in buckets of equal width."""
    files = _accepted_files(path)
    if not files:
        return []
    tokens = "SELECT usage.completion_tokens AS tokens FROM read_parquet($files)"
    query = f"""
        WITH lengths AS ({tokens}),
             scale AS (SELECT greatest(1, ceil((max(tokens) + 1) / $buckets))::BIGINT AS width
                       FROM lengths)
        SELECT tokens // width AS bucket, any_value(width) AS width, count(*) AS rows
        FROM lengths, scale WHERE tokens IS NOT NULL GROUP BY bucket ORDER BY bucket
    """
    found = _ask(path, query, {"files": files, "buckets": BUCKETS})
    return [
        Length(
            low=row["bucket"] * row["width"],
            high=(row["bucket"] + 1) * row["width"],
            rows=row["rows"],
        )
        for row in found
    ]


def confidences(path: Path) -> list[Confidence]:
    """Accepted rows by their agreement among samples, in buckets of equal width; none where no row
    has any."""
    files = _accepted_files(path)
    if not files:
        return []
    query = """
        SELECT least(floor(confidence * $steps), $steps - 1)::BIGINT AS bucket, count(*) AS rows
        FROM read_parquet($files) WHERE confidence IS NOT NULL GROUP BY bucket ORDER BY bucket
    """
    found = _ask(path, query, {"files": files, "steps": CONFIDENCE_STEPS})
    return [
        Confidence(
            low=row["bucket"] / CONFIDENCE_STEPS,
            high=(row["bucket"] + 1) / CONFIDENCE_STEPS,
            rows=row["rows"],
        )
        for row in found
    ]


def _accepted_files(path: Path) -> list[str]:
    return [file for split in ("train", "validation", "test") for file in _files(path, split)]


def _page(
    path: Path, part: str, sort: str, wanted: Wanted
) -> tuple[list[dict[str, Any]], str | None]:
    files = _files(path, part)
    shard, row = _place(wanted.after)
    conditions, values = _conditions(sort, wanted)
    values |= {"files": files[shard:], "shard": shard, "row": row, "limit": wanted.limit + 1}
    if not values["files"]:
        return [], None
    query = f"""
        SELECT * EXCLUDE (filename),
               list_position($files::VARCHAR[], filename) - 1 + $shard AS _shard,
               file_row_number AS _row
        FROM read_parquet($files, filename = true, file_row_number = true)
        WHERE {" AND ".join(conditions)}
        ORDER BY _shard, _row LIMIT $limit
    """
    found = _ask(path, query, values)
    last = found[wanted.limit - 1] if len(found) > wanted.limit else None
    more = f"{last['_shard']}.{last['_row']}" if last is not None else None
    ours = ("_shard", "_row", "file_row_number")
    rows = [{key: row[key] for key in row if key not in ours} for row in found[: wanted.limit]]
    return rows, more


def _conditions(sort: str, wanted: Wanted) -> tuple[list[str], dict[str, Any]]:
    """SQL without a word of the user's, and the values that belong into it."""
    conditions, values = ["(_shard, _row) > ($shard, $row)"], dict[str, Any]()
    if wanted.kind is not None:
        conditions.append("kind = $kind")
        values["kind"] = wanted.kind.value
    if wanted.reason is not None:
        if sort == "accepted":
            fault = Fault("reason", "only rejected rows have a reason; ask for those")
            raise bad_input([fault], "No such filter")
        conditions.append("reason = $reason")
        values["reason"] = wanted.reason
    if wanted.search:
        text = f"lower(array_to_string({_SEARCHED[sort]}, chr(10)))"
        conditions.append(f"contains({text}, lower($search))")
        values["search"] = wanted.search
    return conditions, values


def _place(cursor: str | None) -> tuple[int, int]:
    """Shard and row behind which a page begins."""
    if cursor is None:
        return 0, -1
    shard, _, row = cursor.partition(".")
    if not (shard.isdecimal() and row.isdecimal() and len(cursor) < 40):
        raise bad_input([Fault("cursor", "not one of this list's cursors")], "No such page")
    return int(shard), int(row)


def _files(path: Path, part: str) -> list[str]:
    """The files of one part, as the manifest lists them."""
    try:
        return [str(path / file.path) for file in read_manifest(path).files if file.part == part]
    except DatasetError as error:
        raise Problem(404, "files-gone", "Its files can't be read", str(error)) from error


def _ask(path: Path, query: str, values: dict[str, Any]) -> list[dict[str, Any]]:
    with _database(path) as database:
        try:
            answer = database.execute(query, values)
            names = [column[0] for column in answer.description or []]
            return [dict(zip(names, row, strict=True)) for row in answer.fetchall()]
        except duckdb.InterruptException as error:
            raise Problem(
                422,
                "too-slow",
                "The search took too long",
                f"It was stopped after {SEARCH_S:.0f} s. Choose a split, a kind or a reason too.",
            ) from error
        except (duckdb.IOException, duckdb.InvalidInputException) as error:
            raise Problem(404, "files-gone", "Its files can't be read", str(error)) from error


@contextmanager
def _database(path: Path) -> Iterator[duckdb.DuckDBPyConnection]:
    """A database in memory that reads the files under `path` and nothing else, for a while."""
    database = duckdb.connect(":memory:")
    timer = threading.Timer(SEARCH_S, database.interrupt)
    try:
        database.execute(f"SET memory_limit = '{MEMORY_LIMIT}'; SET threads = {THREADS}")
        database.execute("SET allowed_directories = $folders", {"folders": [f"{path}/"]})
        database.execute("SET enable_external_access = false; SET lock_configuration = true")
        timer.start()
        yield database
    finally:
        timer.cancel()
        database.close()
