"""Jobs whose pictures are being fetched, before the intent to pay; and fewer rows in the indexes that every move writes."""

import sqlalchemy as sa
from alembic import op

revision = "0011"
down_revision = "0010"
branch_labels = None
depends_on = None

IS_COUNTED = "state IN ('draft', 'posting', 'preparing', 'queued', 'rendering', 'submitting')"


def upgrade() -> None:
    for index in (
        "ix_jobs_card_id",
        "ix_jobs_post_id",
        "jobs_by_parent",
        "jobs_by_worker",
        "jobs_open",
        "jobs_open_by_asker",
        "jobs_one_open_take",
    ):
        op.drop_index(index, "jobs")
    has_card, has_post, has_parent = (
        sa.text(f"{column} IS NOT NULL") for column in ("card_id", "post_id", "parent_id")
    )
    is_open = sa.text(
        "state IN ('draft', 'posting', 'preparing', 'queued', 'rendering', 'submitting', 'unsure')"
    )
    is_open_take = sa.text(
        f"{IS_COUNTED} AND parent_id IS NOT NULL AND (lineage IS NULL OR lineage IN ('again', 'model'))"
    )
    _index("jobs_by_card", ["card_id"], has_card)
    _index("jobs_by_post", ["post_id"], has_post)
    _index("jobs_by_parent", ["parent_id", "created_at"], has_parent)
    _index("jobs_open", ["state", "route", "created_at", "asker_id", "submitted_at", "worker"], is_open)
    _index("jobs_open_by_asker", ["asker_id"], is_open)
    _index("jobs_one_open_take", ["parent_id", "asker_id", "model"], is_open_take, unique=True)


def _index(name: str, columns: list[str], where: sa.TextClause, *, unique: bool = False) -> None:
    op.create_index(name, "jobs", columns, unique=unique, sqlite_where=where, postgresql_where=where)
