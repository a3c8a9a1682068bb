"""Checks that need the whole dataset: each accepted row against the rows before it."""

import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass

import pyarrow as pa

from prompts.dataset.fallen import Row as Row
from prompts.dataset.fallen import fallen
from prompts.dataset.schema import CHUNK_SCHEMA
from prompts.likeness import NearIndex, RougeIndex
from prompts.overlap import EvaluationSet
from prompts.record import End, Reason, Record
from prompts.spec.likeness import NearDuplicates, Novelty, Part


@dataclass(frozen=True)
class Verdict:
    """Why a row is rejected."""

    reason: Reason
    detail: str
    resembles: str
    """Id of the row that it is like."""


Judge = Callable[[Row], Verdict | None]
"""State: the rows that it let pass."""


def contamination(known: EvaluationSet) -> Judge:
    """Rejects rows whose seed, messages or completion hold something of an evaluation set."""

    def judge(row: Row) -> Verdict | None:
        found = known.find_in(_all_texts(row)) or known.find_row(json.loads(row["seed"]))
        if found is None:
            return None
        detail = f"{found.how} overlap with {known.name} row {found.row!r}: {found.words!r}"
        return Verdict(Reason.CONTAMINATED, detail, found.row)

    return judge


def near_duplicates(spec: NearDuplicates, earlier: Iterable[tuple[str, Record]] = ()) -> Judge:
    """Rejects rows like an earlier one. `earlier`: rows of other datasets, with their names."""
    index = NearIndex(spec.jaccard, spec.permutations, spec.shingle_words)
    for dataset, record in earlier:
        index.add(f"{dataset}/{record.id}", part_of(record.model_dump(mode="json"), spec.of))

    def judge(row: Row) -> Verdict | None:
        found = index.find_or_add(row["id"], part_of(row, spec.of))
        if found is None:
            return None
        detail = f"estimated Jaccard similarity {found.score:.3f} with row {found.row!r}"
        return Verdict(Reason.NEAR_DUPLICATE, detail, found.row)

    return judge


def novelty(spec: Novelty) -> Judge:
    """Rejects rows whose ROUGE-L with an earlier one reaches the limit."""
    index = RougeIndex()

    def judge(row: Row) -> Verdict | None:
        text = part_of(row, spec.of)
        found = index.likest(text, spec.rouge_l)
        if found is None:
            index.add(row["id"], text)
            return None
        detail = f"ROUGE-L {found.score:.3f} with row {found.row!r}"
        return Verdict(Reason.NOT_NOVEL, detail, found.row)

    return judge


def judged(table: pa.Table, judges: Iterable[Judge]) -> pa.Table:
    """The table with accepted rows rejected that a judge finds fault with, the first one's words.

    Judges are asked in the order given; a row that one rejects is not shown to the next.
    """
    judges = tuple(judges)
    if not judges:
        return table
    rows = table.to_pylist()
    faults = [_first_fault(row, judges) for row in rows]
    if not any(faults):
        return table
    changed = [
        _rejected(row, fault) if fault else row for row, fault in zip(rows, faults, strict=True)
    ]
    return pa.Table.from_pylist(changed, schema=CHUNK_SCHEMA)


def part_of(row: Row, part: Part) -> str:
    """The text of a row that is compared."""
    asked = [turn["content"] for turn in row["prompt"] if turn["role"] == "user"][-1:]
    answered = [turn["content"] for turn in row["completion"] or ()]
    texts = {"prompt": asked, "completion": answered, "both": asked + answered}
    return "\n".join(text or "" for text in texts[part])


def _first_fault(row: Row, judges: tuple[Judge, ...]) -> Verdict | None:
    if row["end"] != End.ACCEPTED:
        return None
    return next((fault for judge in judges if (fault := judge(row)) is not None), None)


def _rejected(row: Row, fault: Verdict) -> Row:
    return fallen(row, End.REJECTED, fault.reason.value, fault.detail, fault.resembles)


def _all_texts(row: Row) -> list[str]:
    turns = [*row["prompt"], *(row["completion"] or ())]
    return [turn["content"] or "" for turn in turns if turn["role"] != "system"]
