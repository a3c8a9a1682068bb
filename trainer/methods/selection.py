"""Which of a dataset's rows a method can learn from."""

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

from prompts.record import Kind, Record
from trainer.data import TokenRows
from trainer.errors import BadInput
from trainer.spec import StepByStep


def select_all(spec: Any, records: Sequence[Record]) -> list[Record]:
    """Every complete row; BadInput where there are none."""
    rows = complete(records)
    if not rows:
        raise BadInput(
            "the dataset has no row to train on",
            f"Its train split has {len(records)} rows, none with a complete answer. Look at the "
            "reasons of its rejected rows.",
        )
    return rows


def select_rationales(spec: Any, records: Sequence[Record]) -> list[Record]:
    """Complete chain-of-thought rows; BadInput where there are none."""
    rows = [row for row in complete(records) if row.kind is Kind.COT and row.reasoning]
    if not rows:
        raise BadInput(
            f"{spec.method} needs chain-of-thought rows",
            f"The train split has {_counted(records)}, and none of kind cot with a rationale. "
            "Build a cot dataset, or use sequence_level.",
        )
    return rows


def select_two_tasks(spec: StepByStep, records: Sequence[Record]) -> list[Record]:
    """Complete chain-of-thought rows with what the tasks that have a share ask for: a rationale,
    an answer parsed apart. BadInput where there are none."""
    if spec.label_share < 1:
        rows = select_rationales(spec, records)
    else:
        rows = [row for row in complete(records) if row.kind is Kind.COT]
    if spec.label_share > 0:
        rows = [row for row in rows if row.answer is not None]
    if not rows:
        raise BadInput(
            f"{spec.method} needs the answers apart from the rationales",
            f"None of {_counted(records)} has an answer of its own. Build the dataset with an "
            "answer_pattern that finds them, or use rationale_then_answer.",
        )
    return rows


def select_demonstrated(spec: Any, records: Sequence[Record]) -> list[Record]:
    """Complete rows whose prompts hold demonstrations; BadInput where there are none."""
    rows = [row for row in complete(records) if row.kind is Kind.ICL and row.demo_ids]
    if not rows:
        raise BadInput(
            f"{spec.method} needs in-context rows",
            f"The train split has {_counted(records)}, and none of kind icl with demonstrations. "
            "Build an icl dataset, or use kd.",
        )
    return rows


def complete(records: Sequence[Record]) -> list[Record]:
    """A completion that met its token limit teaches to stop in the middle."""
    return [row for row in records if row.finish_reason != "length"]


def count_left(rows: TokenRows, records: Sequence[Record], chosen: Sequence[Record]) -> TokenRows:
    """The rows with how many of the records were not chosen, by why."""
    cut = len(records) - len(complete(records))
    return replace(rows, cut=cut, unsuited=len(records) - cut - len(chosen))


def check_confidence(records: Sequence[Record]) -> None:
    """BadInput where rows are to be weighed and don't say how much."""
    lacking = sum(row.confidence is None for row in records)
    if lacking:
        raise BadInput(
            "weight_by confidence: rows carry none",
            f"{lacking} of {len(records)} rows have no confidence, which several samples a row "
            "give (sampling.n of a cot build). Build with them, or set weight_by to none.",
        )


def _counted(records: Sequence[Record]) -> str:
    kinds = sorted({row.kind.value for row in records})
    return f"{len(records)} rows of kind {', '.join(kinds) or 'none'}"
