"""How a job came from another one, and whose picture it is; only repeats are open once per person and clip."""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

IS_COUNTED = "state IN ('draft', 'posting', 'queued', 'rendering', 'submitting')"
IS_OPEN_TAKE = sa.text(f"{IS_COUNTED} AND (lineage IS NULL OR lineage IN ('again', 'model'))")


def upgrade() -> None:
    op.add_column("jobs", sa.Column("lineage", sa.String(16)))
    op.add_column("jobs", sa.Column("picture_by", sa.BigInteger))
    jobs = sa.table("jobs", sa.column("lineage", sa.String), sa.column("parent_id", sa.String))
    # Until now every job with a parent was the same clip again.
    op.execute(jobs.update().where(jobs.c.parent_id.is_not(None)).values(lineage="again"))
    op.drop_index("jobs_one_open_requeue", table_name="jobs")
    op.create_index(
        "jobs_one_open_take",
        "jobs",
        ["parent_id", "asker_id", "model"],
        unique=True,
        sqlite_where=IS_OPEN_TAKE,
        postgresql_where=IS_OPEN_TAKE,
    )
    op.create_index("jobs_by_parent", "jobs", ["parent_id", "created_at"])
