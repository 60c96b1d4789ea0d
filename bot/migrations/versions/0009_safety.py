"""Who may not have clips made, what members report, and what moderators make of it."""

import sqlalchemy as sa
from alembic import op

revision = "0009"
down_revision = "0008"
branch_labels = None
depends_on = None


def upgrade() -> None:
    utc = sa.DateTime(timezone=True)
    op.add_column("jobs", sa.Column("age_restricted", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "blocks",
        sa.Column("guild_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("member_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("reason", sa.String(200)),
        sa.Column("until", utc),
        sa.Column("by", sa.BigInteger, nullable=False),
        sa.Column("at", utc, nullable=False),
    )
    op.create_table(
        "reports",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(20), nullable=False),
        sa.Column("guild_id", sa.BigInteger, nullable=False),
        sa.Column("reporter_id", sa.BigInteger, nullable=False, index=True),
        sa.Column("reason", sa.String(16), nullable=False),
        sa.Column("words", sa.String(500)),
        sa.Column("at", utc, nullable=False),
    )
    named = sa.text("reporter_id <> 0")
    op.create_index(
        "reports_once",
        "reports",
        ["job_id", "reporter_id"],
        unique=True,
        sqlite_where=named,
        postgresql_where=named,
    )
    op.create_table(
        "reviews",
        sa.Column("job_id", sa.String(20), primary_key=True),
        sa.Column("guild_id", sa.BigInteger, nullable=False),
        sa.Column("state", sa.String(8), nullable=False),
        sa.Column("opened_at", utc, nullable=False),
        sa.Column("post_id", sa.BigInteger, nullable=False),
        sa.Column("channel_id", sa.BigInteger, nullable=False),
        sa.Column("shown_in", sa.BigInteger),
        sa.Column("shown_as", sa.BigInteger),
        sa.Column("decided_by", sa.BigInteger),
        sa.Column("decided_at", utc),
        sa.Column("cleared_at", utc),
    )
    left = sa.text("state = 'removed' AND cleared_at IS NULL")
    op.create_index("reviews_post_left", "reviews", ["decided_at"], sqlite_where=left, postgresql_where=left)
