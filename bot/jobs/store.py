"""The only SQL. Every move of a job is one guarded update together with its event.

Works alike on SQLite (WAL, one file) and PostgreSQL. Knows tables and the machine; knows no Discord,
provider, clock or policy: times are given, and the caller's `admit` decides who may start a job.
"""

import base64
import secrets
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import stamina
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import Connection, RowMapping, event, func, insert, or_, select, update
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bot.errors import Cause
from bot.jobs import machine
from bot.jobs.machine import OPEN, Begun, Charge, Job, Outcome, State
from bot.jobs.tables import IS_OPEN, events, jobs, notes

BUSY_TIMEOUT = timedelta(seconds=5)
RUNNING = (State.SUBMITTING, State.RENDERING)


def new_job_id(now: datetime) -> str:
    """A new id of 16 characters from a-z and 2-7, ordered by time.

    Short enough to be a Discord nonce (25 characters) and safe in a custom_id and a file name.
    """
    milliseconds = int(now.timestamp() * 1000)
    return base64.b32encode(milliseconds.to_bytes(6, "big") + secrets.token_bytes(4)).decode().lower()


class AlreadyThere(Exception):
    """A constraint held: this interaction has its job, or this person has that clip in the queue."""


@dataclass(frozen=True, slots=True)
class Load:
    """How many jobs are open, counted in the transaction that would add one more."""

    by_asker: int
    in_all: int


class Store:
    """Jobs in a database. Every method is one transaction."""

    def __init__(self, engine: AsyncEngine) -> None:
        self._writes = engine
        self._reads = engine.execution_options(animatic_reads=True)

    async def add(self, job: Job, admit: Callable[[Load], None] = lambda _load: None) -> Job:
        """Write a new job, unless `admit` raises on seeing the load. Raises AlreadyThere."""
        async with self._writes.begin() as connection:
            count = select(func.count()).select_from(jobs).where(IS_OPEN)
            by_asker = (await connection.execute(count.where(jobs.c.asker_id == job.asker_id))).scalar_one()
            in_all = (await connection.execute(count)).scalar_one()
            admit(Load(by_asker=by_asker, in_all=in_all))
            try:
                await connection.execute(insert(jobs).values(asdict(job)))
            except IntegrityError as error:
                raise AlreadyThere(job.id) from error
            await _write_event(connection, job, "Requested", None)
        return job

    async def advance(self, job: Job, outcome: Outcome, now: datetime) -> Job | None:
        """Move the job along one arrow. None: someone else moved it first, and nothing was written.

        A database that is away is asked again for a minute: the outcome in hand may be a paid answer.
        """
        moved = machine.advance(job, outcome, now)
        if moved is job:
            return job
        async for attempt in stamina.retry_context(
            on=OperationalError, attempts=None, timeout=60, wait_max=5
        ):
            with attempt:
                async with self._writes.begin() as connection:
                    saved = await _save(connection, job, moved, outcome)
        if saved is None and await self.get(job.id) == moved:
            return moved  # our own commit, whose answer was lost on the way
        return saved

    async def get(self, job_id: str) -> Job | None:
        return await self._one(jobs.c.id == job_id)

    async def by_interaction(self, interaction_id: int) -> Job | None:
        return await self._one(jobs.c.interaction_id == interaction_id)

    async def by_card(self, message_id: int) -> Job | None:
        return await self._one(jobs.c.card_id == message_id)

    async def by_post(self, message_id: int) -> Job | None:
        return await self._one(jobs.c.post_id == message_id)

    async def claim(self, route: str, *, slots: int, worker: str, now: datetime) -> Job | None:
        """Take the oldest waiting job of a route that has a free slot, writing the intent to submit it."""
        async with self._writes.begin() as connection:
            running = select(func.count()).where(jobs.c.route == route, jobs.c.state.in_(RUNNING))
            if (await connection.execute(running)).scalar_one() >= slots:
                return None
            waiting = (
                select(jobs)
                .where(
                    jobs.c.route == route,
                    jobs.c.state == State.QUEUED,
                    or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now),
                )
                .order_by(jobs.c.created_at, jobs.c.id)
                .limit(1)
                .with_for_update(skip_locked=True)
            )
            row = (await connection.execute(waiting)).mappings().one_or_none()
            if row is None:
                return None
            job = _job(row)
            begun = Begun(reference=f"{job.id}-{job.attempt + 1}", worker=worker)
            return await _save(connection, job, machine.advance(job, begun, now), begun)

    async def open_jobs(self, states: Collection[State] = OPEN) -> list[Job]:
        """All jobs in these states, oldest first."""
        query = select(jobs).where(jobs.c.state.in_(states)).order_by(jobs.c.created_at, jobs.c.id)
        async with self._reads.connect() as connection:
            return [_job(row) for row in (await connection.execute(query)).mappings()]

    async def next_start(self, routes: Sequence[str]) -> datetime | None:
        """When the first job that was told to wait may be tried again."""
        query = select(func.min(jobs.c.not_before)).where(
            jobs.c.state == State.QUEUED, jobs.c.route.in_(routes)
        )
        async with self._reads.connect() as connection:
            value: datetime | None = (await connection.execute(query)).scalar_one()
            return value

    async def place(self, job: Job) -> int:
        """The job's place in its route's line, 1 for the next to start."""
        query = select(func.count()).where(
            jobs.c.route == job.route,
            jobs.c.state == State.QUEUED,
            or_(
                jobs.c.created_at < job.created_at,
                (jobs.c.created_at == job.created_at) & (jobs.c.id < job.id),
            ),
        )
        async with self._reads.connect() as connection:
            ahead: int = (await connection.execute(query)).scalar_one()
            return ahead + 1

    async def durations(self, job: Job, *, limit: int = 50) -> list[timedelta]:
        """From submit to clip, for the latest jobs of the same route, model, length and quality."""
        query = (
            select(jobs.c.submitted_at, jobs.c.rendered_at)
            .where(
                jobs.c.route == job.route,
                jobs.c.variant == job.variant,
                jobs.c.seconds == job.seconds,
                jobs.c.quality.is_not_distinct_from(job.quality),
                jobs.c.rendered_at.is_not(None),
                jobs.c.submitted_at.is_not(None),
            )
            .order_by(jobs.c.rendered_at.desc())
            .limit(limit)
        )
        async with self._reads.connect() as connection:
            return [rendered - submitted for submitted, rendered in await connection.execute(query)]

    async def last_upload_limit(self, guild_id: int | None) -> int | None:
        """The upload limit in bytes that Discord last named for this server, or None."""
        query = (
            select(jobs.c.upload_limit)
            .where(jobs.c.guild_id == guild_id, jobs.c.upload_limit.is_not(None))
            .order_by(jobs.c.created_at.desc())
            .limit(1)
        )
        async with self._reads.connect() as connection:
            value: int | None = (await connection.execute(query)).scalar_one_or_none()
            return value

    async def history(self, job_id: str) -> list[tuple[State | None, State]]:
        """The arrows the job has taken, oldest first."""
        query = select(events.c.from_state, events.c.to_state).where(events.c.job_id == job_id)
        async with self._reads.connect() as connection:
            rows = await connection.execute(query.order_by(events.c.id))
            return [(State(old) if old else None, State(new)) for old, new in rows]

    async def recall(self, key: str) -> str | None:
        query = select(notes.c.value).where(notes.c.key == key)
        async with self._reads.connect() as connection:
            value: str | None = (await connection.execute(query)).scalar_one_or_none()
            return value

    async def remember(self, key: str, value: str) -> None:
        async with self._writes.begin() as connection:
            changed = await connection.execute(update(notes).where(notes.c.key == key).values(value=value))
            if not changed.rowcount:
                await connection.execute(insert(notes).values(key=key, value=value))

    async def _one(self, condition: Any) -> Job | None:  # Any: SQLAlchemy's == is typed as bool or element
        async with self._reads.connect() as connection:
            row = (await connection.execute(select(jobs).where(condition))).mappings().one_or_none()
            return _job(row) if row else None


async def _save(connection: AsyncConnection, job: Job, moved: Job, outcome: Outcome) -> Job | None:
    guarded = update(jobs).where(
        jobs.c.id == job.id, jobs.c.state == job.state, jobs.c.version == job.version
    )
    values = {f.name: getattr(moved, f.name) for f in fields(Job) if f.name not in ("id", "created_at")}
    if not (await connection.execute(guarded.values(values))).rowcount:
        return None
    await _write_event(connection, moved, type(outcome).__name__, job.state)
    return moved


async def _write_event(connection: AsyncConnection, job: Job, outcome: str, before: State | None) -> None:
    await connection.execute(
        insert(events).values(
            job_id=job.id,
            at=job.changed_at,
            outcome=outcome,
            from_state=before,
            to_state=job.state,
            cause=job.cause,
        )
    )


def _job(row: RowMapping) -> Job:
    values = dict(row)
    values["state"] = State(values["state"])
    values["charge"] = Charge(values["charge"])
    values["cause"] = Cause(values["cause"]) if values["cause"] else None
    return Job(**values)


@asynccontextmanager
async def open_store(url: str) -> AsyncIterator[Store]:
    """Open the database named by a SQLAlchemy URL, bring its schema up to date, and close it at the end.

    The folder of an SQLite file is made when it is missing.
    """
    engine = create_async_engine(url, pool_pre_ping=True)
    if engine.dialect.name == "sqlite":
        if engine.url.database and engine.url.database != ":memory:":
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        _prepare_sqlite(engine)
    try:
        async with engine.begin() as connection:
            await connection.run_sync(_migrate)
        yield Store(engine)
    finally:
        await engine.dispose()


def _prepare_sqlite(engine: AsyncEngine) -> None:
    """WAL, no lost commit at a power cut, and BEGIN IMMEDIATE for all that writes (reliability, point 41)."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:  # Any: the driver's own connection
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT // timedelta(milliseconds=1)}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        reads = connection.get_execution_options().get("animatic_reads")
        connection.exec_driver_sql("BEGIN" if reads else "BEGIN IMMEDIATE")


def _migrate(connection: Connection) -> None:
    config = AlembicConfig()
    config.set_main_option("script_location", "bot:migrations")
    config.attributes["connection"] = connection
    command.upgrade(config, "head")
