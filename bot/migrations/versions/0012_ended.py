"""Jobs that ended without a post: each process looks for them when it starts, or another one has died."""

import sqlalchemy as sa
from alembic import op

revision = "0012"
down_revision = "0011"
branch_labels = None
depends_on = None


def upgrade() -> None:
    where = sa.text("state IN ('cancelled', 'failed', 'undeliverable')")
    op.create_index("jobs_ended", "jobs", ["changed_at"], sqlite_where=where, postgresql_where=where)
