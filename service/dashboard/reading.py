"""A dataset as its pages show it: its head, and rows as a reader wants them."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from prompts.dataset import read_manifest
from prompts.record import Record, Rejected
from service import artifacts, verdicts
from service.site import Site
from service.store import light
from service.tables import PendingVerdict
from service.views import ArtifactView


def head(site: Site, reference: str) -> tuple[dict[str, Any], Path]:
    """What stands above every page of a dataset, and where its files lie. Raises a 404 problem."""
    dataset = artifacts.show(site, "dataset", reference)
    _, path = artifacts.directory(site, "dataset", dataset.id, light)
    with site.sessions.reading() as session:
        tally = verdicts.tally(session, dataset.id)
    return {
        "dataset": dataset,
        "counts": _counts(dataset),
        "tally": tally,
        "reviewable": read_manifest(path).signal is None,
    }, path


def shown(row: Record | Rejected) -> dict[str, Any]:
    """A row as a reader wants it: question, reasoning, what came out, the verdict."""
    common = {
        "id": row.id,
        "prompt": row.prompt,
        "reasoning": row.reasoning,
        "answer": row.answer,
        "gold": row.gold,
        "usage": row.usage,
        "finish": row.finish_reason,
        "seed": row.seed,
        "teacher": row.teacher,
    }
    if isinstance(row, Record):
        verdict = {"accepted": True, "reason": None, "detail": ""}
        said = {"said": row.completion, "taken": ()}
        return common | said | verdict | {"confidence": row.confidence}
    verdict = {"accepted": False, "reason": row.reason.replace("_", " "), "detail": row.detail}
    own = {turn.content.strip() for turn in row.completion}
    raw = [{"content": text} for text in row.raw if text.strip() not in own]
    return common | {"said": raw, "taken": row.completion} | verdict | {"confidence": None}


def verdicts_on(
    site: Site, dataset_id: str, rows: Sequence[Record | Rejected]
) -> dict[str, PendingVerdict]:
    """Row id -> what a person said of it and no version has yet."""
    with site.sessions.reading() as session:
        return verdicts.on_rows(session, dataset_id, [row.id for row in rows])


def _counts(dataset: ArtifactView) -> dict[str, int]:
    summary = dataset.summary
    rejected = int(summary.get("rejected") or 0) + int(summary.get("not_needed") or 0)
    splits = {name: int(count) for name, count in (summary.get("splits") or {}).items()}
    return splits | {"rejected": rejected}
