"""The tables, for SQLAlchemy Core, on SQLite and PostgreSQL alike."""

import json
from collections.abc import Collection, Iterable
from datetime import UTC, datetime
from typing import Any, Self

from sqlalchemy import (
    ARRAY,
    BigInteger,
    Boolean,
    Column,
    ColumnElement,
    DateTime,
    Dialect,
    Float,
    Index,
    Integer,
    MetaData,
    String,
    Table,
    Text,
    TextClause,
    TypeDecorator,
    bindparam,
    false,
    func,
    select,
    text,
)
from sqlalchemy.ext.compiler import compiles
from sqlalchemy.sql.compiler import SQLCompiler
from sqlalchemy.sql.functions import FunctionElement
from sqlalchemy.types import TypeEngine

from bot.jobs.machine import COUNTED, OPEN, State


class Utc(TypeDecorator[datetime]):
    """Aware UTC in, aware UTC out. SQLite forgets zones, so they are put back on reading."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(self, value: datetime | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert value.tzinfo is not None, "naive times have no place in the database"
        return value.astimezone(UTC)

    def process_result_value(self, value: Any | None, dialect: Dialect) -> datetime | None:
        if value is None:
            return None
        assert isinstance(value, datetime)
        return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


class _List(TypeDecorator[Collection[Any]]):
    """Many values in one parameter: an array on PostgreSQL, JSON on SQLite."""

    impl = Text
    cache_ok = True

    def __init__(self, of: TypeEngine[Any]) -> None:
        super().__init__()
        self.of = of

    def load_dialect_impl(self, dialect: Dialect) -> TypeEngine[Any]:
        return dialect.type_descriptor(ARRAY(self.of) if dialect.name == "postgresql" else Text())

    def process_bind_param(self, value: Collection[Any] | None, dialect: Dialect) -> Any:
        assert value is not None
        return list(value) if dialect.name == "postgresql" else json.dumps(list(value))


class among(FunctionElement[bool]):  # noqa: N801 - a function of SQL
    """Whether the column's value is in the list that the parameter `name` brings.

    One statement for lists of any length, prepared once; with IN, each length is a statement of its own.
    """

    inherit_cache = True
    type = Boolean()

    def __init__(self, column: ColumnElement[Any], name: str) -> None:
        super().__init__(column, bindparam(name, type_=_List(column.type)))

    def self_group(
        self, against: Any = None
    ) -> Self:  # else "… = 1" is written on SQLite, for which no index helps
        return self


@compiles(among, "postgresql")
def _among_array(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = (compiler.process(clause, **options) for clause in element.clauses)
    return f"{column} = ANY ({values})"


@compiles(among, "sqlite")
def _among_json(element: among, compiler: SQLCompiler, **options: Any) -> str:
    column, values = element.clauses
    each = func.json_each(values).table_valued("value")
    return compiler.process(column.in_(select(each.c.value)), **options)


metadata = MetaData()


def _any_of(states: Iterable[State]) -> TextClause:
    return text("state IN ({})".format(", ".join(sorted(f"'{state}'" for state in states))))


# A query must say one of these to the letter, or SQLite does not see that the index below is enough.
IS_OPEN, IS_COUNTED = _any_of(OPEN), _any_of(COUNTED)
# A remix or a continuation says something new each time; what only repeats a clip is open once.
IS_OPEN_TAKE = text(
    f"{IS_COUNTED} AND parent_id IS NOT NULL AND (lineage IS NULL OR lineage IN ('again', 'model'))"
)
HAS_CARD, HAS_POST, HAS_PARENT = (
    text(f"{column} IS NOT NULL") for column in ("card_id", "post_id", "parent_id")
)
IS_RENDERED = text("rendered_at IS NOT NULL")
HAS_CARD_LEFT = text("state = 'delivered' AND card_id IS NOT NULL")
ENDED_UNPOSTED = text("state IN ('cancelled', 'failed', 'undeliverable')")

# The columns of `jobs` are the fields of `machine.Job`, by name.
jobs = Table(
    "jobs",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("state", String(16), nullable=False),
    Column("version", Integer, nullable=False),
    Column("created_at", Utc, nullable=False),
    Column("changed_at", Utc, nullable=False),
    Column("interaction_id", BigInteger, unique=True),
    Column("guild_id", BigInteger),
    Column("channel_id", BigInteger, nullable=False),
    Column("asker_id", BigInteger, nullable=False),
    Column("parent_id", String(20)),
    Column("lineage", String(16)),
    Column("picture_by", BigInteger),
    Column("comparison_id", String(20)),
    Column("sealed", Boolean, nullable=False, server_default=false()),
    Column("card_id", BigInteger),
    Column("post_id", BigInteger),
    Column("card_channel_id", BigInteger),
    Column("post_channel_id", BigInteger),
    Column("budget_channel_id", BigInteger),
    Column("upload_limit", BigInteger),
    Column("age_restricted", Boolean, nullable=False),
    Column("model", String(32), nullable=False),
    Column("route", String(32), nullable=False),
    Column("variant", String(64), nullable=False),
    Column("prompt", Text, nullable=False),
    Column("negative_prompt", Text),
    Column("seconds", Integer, nullable=False),
    Column("quality", String(16)),
    Column("ratio", String(16)),
    Column("strength", Float),
    Column("camera", String(24)),
    Column("loop", Boolean, nullable=False),
    Column("sound", Boolean, nullable=False),
    Column("picture_file", String(40)),
    Column("end_picture_file", String(40)),
    Column("price_cents", Integer, nullable=False),
    Column("reserved_at", Utc),
    Column("charge", String(16), nullable=False),
    Column("doubted", Boolean, nullable=False),
    Column("worker", String(40)),
    Column("attempt", Integer, nullable=False),
    Column("recoveries", Integer, nullable=False),
    Column("stumbles", Integer, nullable=False),
    Column("not_before", Utc),
    Column("reference", String(40)),
    Column("provider_task", Text),
    Column("submitted_at", Utc),
    Column("started_at", Utc),
    Column("rendered_at", Utc),
    Column("redelivered_at", Utc),
    Column("clip_url", Text),
    Column("cause", String(32)),
    # Each index is written with each move of a job that it holds: so there are few, and of what is there only.
    Index("jobs_by_card", "card_id", sqlite_where=HAS_CARD, postgresql_where=HAS_CARD),
    Index("jobs_by_post", "post_id", sqlite_where=HAS_POST, postgresql_where=HAS_POST),
    # All that is counted for each request and claim, so that the rows themselves are not read for it.
    Index(
        "jobs_open",
        "state",
        "route",
        "created_at",
        "asker_id",
        "submitted_at",
        "worker",
        sqlite_where=IS_OPEN,
        postgresql_where=IS_OPEN,
    ),
    Index(
        "jobs_by_kind",
        "route",
        "variant",
        "seconds",
        "quality",
        "rendered_at",
        sqlite_where=IS_RENDERED,
        postgresql_where=IS_RENDERED,
    ),
    Index("jobs_with_a_card_left", "changed_at", sqlite_where=HAS_CARD_LEFT, postgresql_where=HAS_CARD_LEFT),
    Index("jobs_ended", "changed_at", sqlite_where=ENDED_UNPOSTED, postgresql_where=ENDED_UNPOSTED),
    Index("jobs_by_asker", "asker_id", "created_at"),
    Index("jobs_open_by_asker", "asker_id", sqlite_where=IS_OPEN, postgresql_where=IS_OPEN),
    Index("jobs_by_guild", "guild_id", "created_at"),
    Index("jobs_by_parent", "parent_id", "created_at", sqlite_where=HAS_PARENT, postgresql_where=HAS_PARENT),
    # One open take per person, clip and model, by constraint: looking first and inserting later can race.
    Index(
        "jobs_one_open_take",
        "parent_id",
        "asker_id",
        "model",
        unique=True,
        sqlite_where=IS_OPEN_TAKE,
        postgresql_where=IS_OPEN_TAKE,
    ),
)

# Every arrow a job has taken, written in the transaction that took it.
events = Table(
    "events",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(20), nullable=False, index=True),
    Column("at", Utc, nullable=False),
    Column("outcome", String(20), nullable=False),
    Column("from_state", String(16)),
    Column("to_state", String(16), nullable=False),
    Column("cause", String(32)),
)

# The owner's money: see `bot.jobs.ledger`. Rows are never changed.
ledger = Table(
    "ledger",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(20), nullable=False, index=True),
    Column("at", Utc, nullable=False, index=True),
    Column("kind", String(8), nullable=False),
    Column("cents", Integer, nullable=False),
    Column("asker_id", BigInteger, nullable=False),
    Column("guild_id", BigInteger),
    Column("channel_id", BigInteger),  # whose budget it counts against
    Column("model", String(32), nullable=False),
    Column("reserved_at", Utc, index=True),  # of the reservation that this row makes or settles
    Index("ledger_by_guild", "guild_id", "reserved_at"),
)

# One row for each living worker process, beaten every few seconds; jobs point at it by name.
workers = Table(
    "workers",
    metadata,
    Column("id", String(40), primary_key=True),
    Column("beat_at", Utc, nullable=False),
)

# What the moderators of a server have decided (see `bot.jobs.guilds`): as JSON, except what claims go by.
IS_PAUSED = text("paused_at IS NOT NULL")
guilds = Table(
    "guilds",
    metadata,
    Column("guild_id", BigInteger, primary_key=True, autoincrement=False),
    Column("settings", Text, nullable=False),
    Column("paused_at", Utc),
    Column("left_at", Utc),
    Index("guilds_paused", "guild_id", sqlite_where=IS_PAUSED, postgresql_where=IS_PAUSED),
)

# What members have decided about their pictures and their data: only those who have.
members = Table(
    "members",
    metadata,
    Column("id", BigInteger, primary_key=True, autoincrement=False),
    Column("pictures_withheld_at", Utc),
    Column("forget_before", Utc),
    Column("forget_posts", Boolean, nullable=False),
)

# Who lets whom use their pictures in a server that wants them asked, and until when.
consents = Table(
    "consents",
    metadata,
    Column("guild_id", BigInteger, primary_key=True, autoincrement=False),
    Column("owner_id", BigInteger, primary_key=True, autoincrement=False),
    Column("asker_id", BigInteger, primary_key=True, autoincrement=False),
    Column("until", Utc, nullable=False),
)

# Who may not have clips made, where (EVERYWHERE: in all servers), why, and until when (NULL: until unblocked).
EVERYWHERE = 0
blocks = Table(
    "blocks",
    metadata,
    Column("guild_id", BigInteger, primary_key=True, autoincrement=False),
    Column("member_id", BigInteger, primary_key=True, autoincrement=False),
    Column("reason", String(200)),
    Column("until", Utc),
    Column("by", BigInteger, nullable=False),
    Column("at", Utc, nullable=False),
)

# What members say about clips, and what the moderators made of it: one review a clip.
HAS_REPORTER = text("reporter_id <> 0")
reports = Table(
    "reports",
    metadata,
    Column("id", Integer, primary_key=True, autoincrement=True),
    Column("job_id", String(20), nullable=False),
    Column("guild_id", BigInteger, nullable=False),
    Column("reporter_id", BigInteger, nullable=False, index=True),
    Column("reason", String(16), nullable=False),
    Column("words", String(500)),
    Column("at", Utc, nullable=False),
    Index(
        "reports_once",
        "job_id",
        "reporter_id",
        unique=True,
        sqlite_where=HAS_REPORTER,
        postgresql_where=HAS_REPORTER,
    ),
)

IS_POST_LEFT = text("state = 'removed' AND cleared_at IS NULL")
reviews = Table(
    "reviews",
    metadata,
    Column("job_id", String(20), primary_key=True),
    Column("guild_id", BigInteger, nullable=False),
    Column("state", String(8), nullable=False),
    Column("opened_at", Utc, nullable=False),
    Column("post_id", BigInteger, nullable=False),
    Column("channel_id", BigInteger, nullable=False),  # of the post
    Column("shown_in", BigInteger),  # the moderators' message: its channel and id
    Column("shown_as", BigInteger),
    Column("decided_by", BigInteger),
    Column("decided_at", Utc),
    Column("cleared_at", Utc),
    Index("reviews_post_left", "decided_at", sqlite_where=IS_POST_LEFT, postgresql_where=IS_POST_LEFT),
)

# Two jobs made from the same words and picture, for members to vote on: see `bot.jobs.comparisons`.
IS_UNFINISHED = text("done_at IS NULL")
comparisons = Table(
    "comparisons",
    metadata,
    Column("id", String(20), primary_key=True),
    Column("guild_id", BigInteger, nullable=False),
    Column("channel_id", BigInteger, nullable=False),
    Column("asker_id", BigInteger, nullable=False, index=True),
    Column("created_at", Utc, nullable=False),
    Column("asked", Text),
    Column("a_id", String(20)),
    Column("b_id", String(20)),
    Column("together_at", Utc),
    Column("post_id", BigInteger),
    Column("closes_at", Utc),
    Column("spoiled_at", Utc),
    Column("revealed_at", Utc),
    Column("done_at", Utc),
    Index("comparisons_by_guild", "guild_id", "revealed_at"),
    Index("comparisons_unfinished", "created_at", sqlite_where=IS_UNFINISHED, postgresql_where=IS_UNFINISHED),
)

# One row for each member who has voted on a comparison; a changed vote is the same row.
comparison_votes = Table(
    "comparison_votes",
    metadata,
    Column("comparison_id", String(20), primary_key=True),
    Column("member_id", BigInteger, primary_key=True, autoincrement=False, index=True),
    Column("choice", String(4), nullable=False),
    Column("voted_at", Utc, nullable=False),
)

# Small facts the bot remembers between runs, such as the hash of the synced command tree.
notes = Table(
    "notes",
    metadata,
    Column("key", String(64), primary_key=True),
    Column("value", Text, nullable=False),
)
