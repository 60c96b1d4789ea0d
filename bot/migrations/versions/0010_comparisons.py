"""Comparisons of two models, and the votes on them."""

import sqlalchemy as sa
from alembic import op

revision = "0010"
down_revision = "0009"
branch_labels = None
depends_on = None


def upgrade() -> None:
    utc = sa.DateTime(timezone=True)
    op.add_column("jobs", sa.Column("comparison_id", sa.String(20)))
    op.add_column("jobs", sa.Column("sealed", sa.Boolean, nullable=False, server_default=sa.false()))
    op.create_table(
        "comparisons",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("guild_id", sa.BigInteger, nullable=False),
        sa.Column("channel_id", sa.BigInteger, nullable=False),
        sa.Column("asker_id", sa.BigInteger, nullable=False),
        sa.Column("created_at", utc, nullable=False),
        sa.Column("asked", sa.Text),
        sa.Column("a_id", sa.String(20)),
        sa.Column("b_id", sa.String(20)),
        sa.Column("together_at", utc),
        sa.Column("post_id", sa.BigInteger),
        sa.Column("closes_at", utc),
        sa.Column("spoiled_at", utc),
        sa.Column("revealed_at", utc),
        sa.Column("done_at", utc),
    )
    unfinished = sa.text("done_at IS NULL")
    op.create_index("ix_comparisons_asker_id", "comparisons", ["asker_id"])
    op.create_index("comparisons_by_guild", "comparisons", ["guild_id", "revealed_at"])
    op.create_index(
        "comparisons_unfinished",
        "comparisons",
        ["created_at"],
        sqlite_where=unfinished,
        postgresql_where=unfinished,
    )
    op.create_table(
        "comparison_votes",
        sa.Column("comparison_id", sa.String(20), primary_key=True),
        sa.Column("member_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("choice", sa.String(4), nullable=False),
        sa.Column("voted_at", utc, nullable=False),
    )
    op.create_index("ix_comparison_votes_member_id", "comparison_votes", ["member_id"])
