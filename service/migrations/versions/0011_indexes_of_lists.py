"""Indexes that give a page of a list as it is: no list grows slower with what has ended."""

from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

NEW = (
    ("ix_jobs_state_kind_id", "jobs", ["state", "kind", "id"]),
    ("ix_jobs_state_id", "jobs", ["state", "id"]),
    ("ix_jobs_kind_id", "jobs", ["kind", "id"]),
    ("ix_jobs_key_state", "jobs", ["key_id", "state"]),
    ("ix_artifacts_kind_id", "artifacts", ["kind", "id"]),
)
OLD = (("ix_jobs_state_kind", "jobs", ["state", "kind"]), ("ix_jobs_key_id", "jobs", ["key_id"]))


def upgrade() -> None:
    for name, table, columns in NEW:
        op.create_index(name, table, columns)
    for name, table, _ in OLD:
        op.drop_index(name, table)


def downgrade() -> None:
    for name, table, columns in OLD:
        op.create_index(name, table, columns)
    for name, table, _ in NEW:
        op.drop_index(name, table)
