"""More options of a clip: the camera's move, a loop, sound. Delivered jobs whose card still stands are found."""

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None


def upgrade() -> None:
    op.add_column("jobs", sa.Column("camera", sa.String(24)))
    op.add_column("jobs", sa.Column("post_channel_id", sa.BigInteger))
    for name in ("loop", "sound"):
        op.add_column("jobs", sa.Column(name, sa.Boolean, nullable=False, server_default=sa.false()))
    left = sa.text("state = 'delivered' AND card_id IS NOT NULL")
    op.create_index("jobs_with_a_card_left", "jobs", ["changed_at"], sqlite_where=left, postgresql_where=left)
