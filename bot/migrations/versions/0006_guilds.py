"""What the moderators of servers have decided."""

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"
branch_labels = None
depends_on = None


def upgrade() -> None:
    utc = sa.DateTime(timezone=True)
    op.create_table(
        "guilds",
        sa.Column("guild_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("settings", sa.Text, nullable=False),
        sa.Column("paused_at", utc),
        sa.Column("left_at", utc),
    )
    op.create_table(
        "consents",
        sa.Column("guild_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("owner_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("asker_id", sa.BigInteger, primary_key=True, autoincrement=False),
        sa.Column("until", utc, nullable=False),
    )
    paused = sa.text("paused_at IS NOT NULL")
    op.create_index("guilds_paused", "guilds", ["guild_id"], sqlite_where=paused, postgresql_where=paused)
