"""Limits of keys, and whose jobs and schedules are whose."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None

LIMITS = ("requests_per_minute", "jobs_at_once", "tokens_per_day")


def upgrade() -> None:
    for name in LIMITS:
        op.add_column("api_keys", sa.Column(name, sa.BigInteger(), nullable=True))
    full = sa.Column("bucket_full_at", sa.DateTime(timezone=True), nullable=True)
    op.add_column("api_keys", full)
    op.add_column("api_keys", sa.Column("chat_day", sa.String(length=10), nullable=True))
    tokens = sa.Column("chat_tokens", sa.BigInteger(), nullable=False, server_default="0")
    op.add_column("api_keys", tokens)
    op.add_column("schedules", sa.Column("key_id", sa.String(length=40), nullable=True))
    op.add_column("jobs", sa.Column("key_id", sa.String(length=40), nullable=True))
    op.create_index("ix_jobs_key_id", "jobs", ["key_id"])


def downgrade() -> None:
    op.drop_index("ix_jobs_key_id", "jobs")
    op.drop_column("jobs", "key_id")
    op.drop_column("schedules", "key_id")
    for name in ("chat_tokens", "chat_day", "bucket_full_at", *LIMITS):
        op.drop_column("api_keys", name)
