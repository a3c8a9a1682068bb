"""Pauses, goals and gates of builds; what chunks spent; limits and prices of teachers."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

SPENT = ("requests", "prompt_tokens", "completion_tokens", "teacher_seconds")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("goal", sa.Integer(), nullable=True))
    op.add_column("jobs", sa.Column("smoke", sa.String(length=16), nullable=True))
    op.add_column("jobs", sa.Column("paused_at", sa.DateTime(timezone=True), nullable=True))
    op.add_column("jobs", sa.Column("paused_s", sa.Float(), nullable=False, server_default="0"))
    for name, kind in (
        ("requests", sa.Integer()),
        ("prompt_tokens", sa.BigInteger()),
        ("completion_tokens", sa.BigInteger()),
        ("teacher_seconds", sa.Float()),
        ("price", sa.Float()),
    ):
        op.add_column("chunks", sa.Column(name, kind, nullable=False, server_default="0"))
    _move_spent()
    with op.batch_alter_table("chunks") as chunks:
        chunks.drop_column("spent")
    op.add_column("teachers", sa.Column("max_in_flight", sa.Integer(), nullable=True))
    op.add_column("teachers", sa.Column("gpus", sa.Integer(), nullable=True))
    op.add_column("teachers", sa.Column("price_prompt", sa.Float(), nullable=True))
    op.add_column("teachers", sa.Column("price_completion", sa.Float(), nullable=True))
    op.create_table(
        "job_teachers",
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("teacher", sa.String(length=200), nullable=False),
        sa.Column("identity", sa.JSON(), nullable=False),
        sa.ForeignKeyConstraint(["job_id"], ["jobs.id"]),
        sa.PrimaryKeyConstraint("job_id", "teacher"),
    )
    op.create_table(
        "grants",
        sa.Column("teacher", sa.String(length=200), nullable=False),
        sa.Column("owner", sa.String(length=200), nullable=False),
        sa.Column("job_id", sa.String(length=40), nullable=False),
        sa.Column("wanted", sa.Integer(), nullable=False),
        sa.Column("granted", sa.Integer(), nullable=False),
        sa.PrimaryKeyConstraint("teacher", "owner"),
    )


def _move_spent() -> None:
    """Chunks of builds under way keep their figures."""
    names = ("job_id", "number", *SPENT)
    columns: list[sa.ColumnClause[object]] = [sa.column(name) for name in names]
    chunks = sa.table("chunks", sa.column("spent", sa.JSON()), *columns)
    found = op.get_bind().execute(sa.select(chunks.c.job_id, chunks.c.number, chunks.c.spent)).all()
    for job_id, number, spent in found:
        values = {name: (spent or {}).get(name, 0) for name in SPENT}
        mine = (chunks.c.job_id == job_id) & (chunks.c.number == number)
        op.execute(sa.update(chunks).where(mine).values(**values))
