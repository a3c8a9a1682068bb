"""Verdicts on rows that wait to become a version."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.create_table(
        "pending_verdicts",
        sa.Column("dataset_id", sa.String(length=40), nullable=False),
        sa.Column("row_id", sa.String(length=600), nullable=False),
        sa.Column("accept", sa.Boolean(), nullable=False),
        sa.Column("note", sa.Text(), nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.ForeignKeyConstraint(["dataset_id"], ["artifacts.id"], ondelete="CASCADE"),
        sa.PrimaryKeyConstraint("dataset_id", "row_id"),
    )


def downgrade() -> None:
    op.drop_table("pending_verdicts")
