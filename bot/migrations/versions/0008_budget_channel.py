"""The channel whose budget a job counts against: a thread's is that of the channel it is in."""

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("budget_channel_id", sa.BigInteger))
