"""The checks that look at a whole dataset, made ready from a build's spec."""

from collections.abc import Iterator
from pathlib import Path

from sqlalchemy.orm import Session

from prompts.dataset import read_rows
from prompts.dataset.likeness import Judge, Row, Verdict, contamination, near_duplicates, novelty
from prompts.instructions import TaskPool, task_of
from prompts.record import Reason, Record
from prompts.spec import BuildSpec
from prompts.split import SPLITS
from service.evaluation import evaluation_set
from service.store import Store, light
from service.tables import Artifact


def judges_of(
    store: Store, session: Session, spec: BuildSpec, pool: TaskPool | None = None
) -> tuple[Judge, ...]:
    """Contamination, near-duplicates, novelty: the order of their costs. Before them the rule of
    self-instruct, for later rounds were shown what it let pass; `pool` is the first round's.

    Reads the evaluation set and the datasets that rows are compared with.
    """
    judges = [pool_judge(pool)] if pool is not None else []
    if spec.decontaminate is not None:
        held = session.get_one(Artifact, spec.decontaminate)
        judges.append(contamination(evaluation_set(store, session, held)))
    if spec.near_duplicates is not None:
        names = spec.near_duplicates.against
        found = [session.get_one(Artifact, name) for name in names]
        store.let_go(session)
        datasets = [(each.id, store.path(each, light)) for each in found]
        judges.append(near_duplicates(spec.near_duplicates, _records(datasets)))
    if spec.novelty is not None:
        judges.append(novelty(spec.novelty))
    return tuple(judges)


def _records(datasets: list[tuple[str, Path]]) -> Iterator[tuple[str, Record]]:
    for name, path in datasets:
        for split in SPLITS:
            yield from ((name, record) for record in read_rows(path, split))


def pool_judge(pool: TaskPool) -> Judge:
    """Rejects tasks that are no news beside those before them, by the rule of the pool itself.

    `pool` is that of the first round; it grows with what passes.
    """

    def judge(row: Row) -> Verdict | None:
        found = pool.add(row["id"], task_of(row))
        if found is None:
            return None
        detail = f"ROUGE-L {found.score:.3f} with task {found.row!r}"
        return Verdict(Reason.NOT_NOVEL, detail, found.row)

    return judge
