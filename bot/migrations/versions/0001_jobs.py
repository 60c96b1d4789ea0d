"""The first schema: jobs, their events, the ledger, workers and notes."""

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None
branch_labels = None
depends_on = None

IS_OPEN = sa.text("state IN ('draft', 'posting', 'queued', 'rendering', 'submitting', 'unsure')")
IS_COUNTED = sa.text("state IN ('draft', 'posting', 'queued', 'rendering', 'submitting')")


def upgrade() -> None:
    utc = sa.DateTime(timezone=True)
    op.create_table(
        "jobs",
        sa.Column("id", sa.String(20), primary_key=True),
        sa.Column("state", sa.String(16), nullable=False),
        sa.Column("version", sa.Integer, nullable=False),
        sa.Column("created_at", utc, nullable=False),
        sa.Column("changed_at", utc, nullable=False),
        sa.Column("interaction_id", sa.BigInteger, unique=True),
        sa.Column("guild_id", sa.BigInteger),
        sa.Column("channel_id", sa.BigInteger, nullable=False),
        sa.Column("asker_id", sa.BigInteger, nullable=False),
        sa.Column("parent_id", sa.String(20)),
        sa.Column("card_id", sa.BigInteger),
        sa.Column("post_id", sa.BigInteger),
        sa.Column("upload_limit", sa.BigInteger),
        sa.Column("model", sa.String(32), nullable=False),
        sa.Column("route", sa.String(32), nullable=False),
        sa.Column("variant", sa.String(64), nullable=False),
        sa.Column("prompt", sa.Text, nullable=False),
        sa.Column("negative_prompt", sa.Text),
        sa.Column("seconds", sa.Integer, nullable=False),
        sa.Column("quality", sa.String(16)),
        sa.Column("ratio", sa.String(16)),
        sa.Column("strength", sa.Float),
        sa.Column("picture_file", sa.String(40)),
        sa.Column("end_picture_file", sa.String(40)),
        sa.Column("price_cents", sa.Integer, nullable=False),
        sa.Column("charge", sa.String(16), nullable=False),
        sa.Column("doubted", sa.Boolean, nullable=False),
        sa.Column("worker", sa.String(40)),
        sa.Column("attempt", sa.Integer, nullable=False),
        sa.Column("recoveries", sa.Integer, nullable=False),
        sa.Column("stumbles", sa.Integer, nullable=False),
        sa.Column("not_before", utc),
        sa.Column("reference", sa.String(40)),
        sa.Column("provider_task", sa.Text),
        sa.Column("submitted_at", utc),
        sa.Column("started_at", utc),
        sa.Column("rendered_at", utc),
        sa.Column("clip_url", sa.Text),
        sa.Column("cause", sa.String(32)),
    )
    op.create_index("ix_jobs_card_id", "jobs", ["card_id"])
    op.create_index("ix_jobs_post_id", "jobs", ["post_id"])
    op.create_index(
        "jobs_open",
        "jobs",
        ["state", "route", "created_at"],
        sqlite_where=IS_OPEN,
        postgresql_where=IS_OPEN,
    )
    op.create_index("jobs_by_worker", "jobs", ["worker"], sqlite_where=IS_OPEN, postgresql_where=IS_OPEN)
    op.create_index("jobs_by_asker", "jobs", ["asker_id", "created_at"])
    op.create_index("jobs_by_guild", "jobs", ["guild_id", "created_at"])
    op.create_index(
        "jobs_one_open_requeue",
        "jobs",
        ["parent_id", "asker_id"],
        unique=True,
        sqlite_where=IS_COUNTED,
        postgresql_where=IS_COUNTED,
    )
    op.create_table(
        "events",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(20), nullable=False),
        sa.Column("at", utc, nullable=False),
        sa.Column("outcome", sa.String(20), nullable=False),
        sa.Column("from_state", sa.String(16)),
        sa.Column("to_state", sa.String(16), nullable=False),
        sa.Column("cause", sa.String(32)),
    )
    op.create_index("ix_events_job_id", "events", ["job_id"])
    op.create_table(
        "ledger",
        sa.Column("id", sa.Integer, primary_key=True, autoincrement=True),
        sa.Column("job_id", sa.String(20), nullable=False),
        sa.Column("at", utc, nullable=False),
        sa.Column("kind", sa.String(8), nullable=False),
        sa.Column("cents", sa.Integer, nullable=False),
        sa.Column("asker_id", sa.BigInteger, nullable=False),
        sa.Column("guild_id", sa.BigInteger),
        sa.Column("model", sa.String(32), nullable=False),
    )
    op.create_index("ix_ledger_job_id", "ledger", ["job_id"])
    op.create_index("ix_ledger_at", "ledger", ["at"])
    op.create_table(
        "workers",
        sa.Column("id", sa.String(40), primary_key=True),
        sa.Column("beat_at", utc, nullable=False),
    )
    op.create_table(
        "notes",
        sa.Column("key", sa.String(64), primary_key=True),
        sa.Column("value", sa.Text, nullable=False),
    )
