"""Which day and month a price counts in, and in which channel: for budgets. Indexes for what is asked often."""

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"
branch_labels = None
depends_on = None


def upgrade() -> None:
    utc = sa.DateTime(timezone=True)
    op.add_column("jobs", sa.Column("reserved_at", utc))
    op.add_column("ledger", sa.Column("channel_id", sa.BigInteger))
    op.add_column("ledger", sa.Column("reserved_at", utc))
    op.create_index("ix_ledger_reserved_at", "ledger", ["reserved_at"])
    op.create_index("ledger_by_guild", "ledger", ["guild_id", "reserved_at"])
    is_open = sa.text("state IN ('draft', 'posting', 'queued', 'rendering', 'submitting', 'unsure')")
    op.drop_index("jobs_open", "jobs")
    op.create_index(
        "jobs_open",
        "jobs",
        ["state", "route", "created_at", "asker_id", "submitted_at"],
        sqlite_where=is_open,
        postgresql_where=is_open,
    )
    rendered = sa.text("rendered_at IS NOT NULL")
    op.create_index(
        "jobs_by_kind",
        "jobs",
        ["route", "variant", "seconds", "quality", "rendered_at"],
        sqlite_where=rendered,
        postgresql_where=rendered,
    )
    # What was reserved before counts in the day of its own row.
    op.execute("UPDATE ledger SET reserved_at = at")
