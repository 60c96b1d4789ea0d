"""Clips that are posted once more, elsewhere; what members have decided about their pictures and their data."""

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"
branch_labels = None
depends_on = None


def upgrade() -> None:
    utc = sa.DateTime(timezone=True)
    op.add_column("jobs", sa.Column("card_channel_id", sa.BigInteger))
    op.add_column("jobs", sa.Column("redelivered_at", utc))
    op.create_table(
        "members",
        sa.Column("id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("pictures_withheld_at", utc),
        sa.Column("forget_before", utc),
        sa.Column("forget_posts", sa.Boolean, nullable=False),
    )
