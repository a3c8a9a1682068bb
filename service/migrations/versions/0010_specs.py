"""Stored specs: fields that were renamed or went. A build's `target` is `target_rows`, its
`sampling.logprobs` went (`signal` took its place), and a factorization's `whitening` is `scaling`."""

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None

AT_ONCE = 500
TABLES = tuple(
    sa.table(name, sa.column("id", sa.String), sa.column("spec", sa.JSON))
    for name in ("jobs", "schedules")
)


def upgrade() -> None:
    for table in TABLES:
        after = ""
        while found := _page(table, after):
            after = found[-1][0]
            for id, spec in found:
                if (new := renewed(spec)) != spec:
                    changed = sa.update(table).where(table.c.id == id)
                    op.get_bind().execute(changed.values(spec=new))


def downgrade() -> None:
    """Nothing: older code refuses these fields only where they say something new."""


def renewed(spec: dict[str, Any]) -> dict[str, Any]:
    """A job's spec as today's code reads it."""
    found = dict(spec)
    if isinstance(spec.get("build"), dict):
        found["build"] = _build(spec["build"])
    compress = spec.get("compress")
    if isinstance(compress, dict):
        stages = [_stage(stage) for stage in compress.get("stages") or ()]
        found["compress"] = compress | {"stages": stages}
    return found


def _build(build: dict[str, Any]) -> dict[str, Any]:
    found = dict(build)
    target = found.pop("target", None)
    if target is not None:
        found.setdefault("target_rows", target)
    if isinstance(build.get("sampling"), dict):
        found["sampling"] = {k: v for k, v in build["sampling"].items() if k != "logprobs"}
    return found


def _stage(stage: dict[str, Any]) -> dict[str, Any]:
    if stage.get("kind") != "svd" or "whitening" not in stage:
        return stage
    found = {name: value for name, value in stage.items() if name != "whitening"}
    return {"scaling": "whitening" if stage["whitening"] else "none"} | found


def _page(table: Any, after: str) -> list[tuple[str, dict[str, Any]]]:
    query = sa.select(table.c.id, table.c.spec).where(table.c.id > after).order_by(table.c.id)
    return [(id, spec) for id, spec in op.get_bind().execute(query.limit(AT_ONCE))]
