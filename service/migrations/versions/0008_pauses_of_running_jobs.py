"""A running job that is to pause once its checkpoint is written."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    no = sa.false()
    wish: sa.Column[bool] = sa.Column(
        "pause_requested", sa.Boolean(), nullable=False, server_default=no
    )
    op.add_column("jobs", wish)


def downgrade() -> None:
    op.drop_column("jobs", "pause_requested")
