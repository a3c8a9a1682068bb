"""Evaluation sets: uploaded files of which nothing may be shown, asked or kept."""

from pathlib import Path

from sqlalchemy.orm import Session

from prompts.overlap import EvaluationSet, evaluation_texts
from prompts.seeds import scan_seeds
from prompts.tables import file_lines
from service.store import Store
from service.tables import Artifact
from trainer.spec import BadQuestions, read_rows


def evaluation_set(store: Store, session: Session, file: Artifact) -> EvaluationSet:
    """An uploaded evaluation set. Raises SeedError and ValueError for rows that are none."""
    store.let_go(session)
    lines = file_lines(store.path(file), file.name)
    return EvaluationSet(file.name, evaluation_texts(row for _, row in scan_seeds(lines)))


def question_fault(path: Path) -> str | None:
    """Why no model could be measured on a file; None if one can."""
    try:
        read_rows(path)
    except BadQuestions as error:
        return str(error).replace(str(path), path.name)
    return None
