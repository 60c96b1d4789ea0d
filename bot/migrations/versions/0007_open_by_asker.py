"""Whose turn it is, without a look at all that is being made."""

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"
branch_labels = None
depends_on = None


def upgrade() -> None:
    is_open = sa.text("state IN ('draft', 'posting', 'queued', 'rendering', 'submitting', 'unsure')")
    op.create_index(
        "jobs_open_by_asker", "jobs", ["asker_id"], sqlite_where=is_open, postgresql_where=is_open
    )
