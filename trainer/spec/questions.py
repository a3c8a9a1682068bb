"""The questions of an evaluation file. Free of torch: whoever takes a job looks at them first."""

import json
from collections import defaultdict
from pathlib import Path
from typing import Annotated, Literal

from pydantic import ValidationError

from prompts.record import Frozen, Message
from prompts.verify import GoldError, gold_answer
from trainer.errors import BadInput
from trainer.spec.base import AtLeast


class BadQuestions(BadInput):
    """A file that isn't one of evaluation rows."""


class EvalRow(Frozen):
    """One question of an evaluation file."""

    id: str
    skill: str
    prompt: Annotated[tuple[Message, ...], AtLeast(1)]
    answer: str
    """What is right; never blank: a model that says nothing would be."""
    kind: str | None = None
    """What it asks for (icl, cot, if), for readers."""
    check: Literal["numeric", "exact", "exact_last_line"]
    """numeric: the number after the last 'answer is' or '####', else the last line, equals; exact:
    the whole answer, white space around it aside; exact_last_line: its last line."""


def read_rows(path: Path, limit_per_skill: int | None = None) -> list[EvalRow]:
    """The first `limit_per_skill` rows of each skill. BadQuestions names the line that is wrong."""
    kept: list[EvalRow] = []
    count: dict[str, int] = defaultdict(int)
    for number, line in enumerate(_lines(path), start=1):
        if not line.strip():
            continue
        row = _row(path, number, line)
        count[row.skill] += 1
        if limit_per_skill is None or count[row.skill] <= limit_per_skill:
            kept.append(row)
    if not kept:
        raise BadQuestions(
            f"{path} holds no evaluation rows", "One JSON object per line is needed."
        )
    return kept


def _lines(path: Path) -> list[str]:
    try:
        return path.read_text("utf-8").split("\n")  # other breaks may stand within a JSON string
    except FileNotFoundError as error:
        raise BadQuestions(f"there is no evaluation file at {path}", "Check the path.") from error
    except (OSError, UnicodeDecodeError) as error:
        raise BadQuestions(f"{path} can't be read as UTF-8 text", str(error)) from error


def _row(path: Path, number: int, line: str) -> EvalRow:
    try:
        row = EvalRow.model_validate(json.loads(line))
        if not row.answer.strip():
            raise GoldError("answer: it is empty, so nothing can be compared with it")
        if row.check == "numeric":
            gold_answer(row.answer)
        return row
    except ValidationError as error:
        problem = "; ".join(
            f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors()[:3]
        )
    except GoldError as error:
        problem = str(error)
    except ValueError as error:
        problem = f"not JSON ({error})"
    raise BadQuestions(
        f"{path} line {number} is not an evaluation row",
        f"{problem}. Each line is an object with id, skill, prompt, answer and check.",
    )
