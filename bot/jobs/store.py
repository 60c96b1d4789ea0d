"""The only SQL. Every move of a job is one guarded update together with its event and its money.

Works alike on SQLite (WAL, one file) and PostgreSQL. Knows tables, the machine and the ledger; knows no
Discord, provider or policy: the caller's `admit` decides who may start a job. Times are given, except that
PostgreSQL's own clock decides which workers are alive.
"""

import asyncio
import base64
import secrets
import zlib
from collections.abc import AsyncIterator, Awaitable, Callable, Collection, Mapping
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass, fields
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any, TypeVar

import stamina
import structlog
from alembic import command
from alembic.config import Config as AlembicConfig
from sqlalchemy import (
    ColumnElement,
    Connection,
    Select,
    Subquery,
    delete,
    event,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bot.errors import Cause
from bot.failpoints import reach
from bot.jobs import machine
from bot.jobs.ledger import entries
from bot.jobs.machine import OPEN, Begun, Charge, Job, Lost, Outcome, Rescued, State
from bot.jobs.tables import HAS_CARD_LEFT, IS_COUNTED, IS_OPEN, Utc, events, jobs, ledger, notes, workers

log = structlog.get_logger(__name__)

BUSY_TIMEOUT = timedelta(seconds=5)
ACCEPT_SECONDS = 2.0  # Discord gives three for the first answer
HOLDS_SLOT = timedelta(hours=1)
RUNNING = (State.SUBMITTING, State.RENDERING)
OWNED = (State.SUBMITTING, State.RENDERING, State.POSTING)
MOST_AT_ONCE = 100
MOST_IN_LIST = 500
CHANNEL = "animatic"
ADMISSION_LOCK = 1

T = TypeVar("T")


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
    """Jobs in a database. Every method is one transaction, repeated whole when the database is away."""

    def __init__(self, engine: AsyncEngine, *, database_clock: bool = True) -> None:
        self._writes = engine
        self._reads = engine.execution_options(animatic_reads=True)
        self._postgresql = engine.dialect.name == "postgresql"
        self._database_clock = database_clock and self._postgresql

    async def add(self, job: Job, admit: Callable[[Load], None] = lambda _load: None) -> Job:
        """Write a new job, unless `admit` raises on seeing the load. Raises AlreadyThere."""

        async def work(connection: AsyncConnection) -> Job:
            await self._lock(connection, ADMISSION_LOCK)
            admit(await _load(connection, job.asker_id))
            await connection.execute(insert(jobs).values(asdict(job)))
            await _record(connection, None, job, None)
            return job

        try:
            return await self._write(work, seconds=ACCEPT_SECONDS)
        except IntegrityError as error:
            if await self.get(job.id) == job:
                return job  # our own commit, whose answer was lost on the way
            raise AlreadyThere(job.id) from error

    async def load(self, asker_id: int) -> Load:
        """How many jobs count against the limits now."""
        async with self._reads.connect() as connection:
            return await _load(connection, asker_id)

    async def advance(self, job: Job, outcome: Outcome, now: datetime) -> Job | None:
        """Move the job along one arrow. None: someone else moved it first, and nothing was written.

        A database that is away is asked until it answers: the outcome in hand may be a paid answer.
        Raises AlreadyThere when the person has queued the same clip once more meanwhile.
        """
        moved = machine.advance(job, outcome, now)
        if moved is job:
            return job
        try:
            saved = await self._write(lambda connection: self._save(connection, job, moved, outcome))
        except IntegrityError as error:
            raise AlreadyThere(job.id) from error
        if saved is None and await self.get(job.id) == moved:
            return moved  # our own commit, whose answer was lost on the way
        return saved

    async def get(self, job_id: str) -> Job | None:
        return await self._one(jobs.c.id == job_id)

    async def many(self, job_ids: Collection[str]) -> list[Job]:
        """The jobs of these ids, as far as they are there."""
        found: list[Job] = []
        async with self._reads.connect() as connection:
            for start in range(0, len(ids := sorted(job_ids)), MOST_IN_LIST):
                some = select(jobs).where(jobs.c.id.in_(ids[start : start + MOST_IN_LIST]))
                found += [job_of(row) for row in (await connection.execute(some)).mappings()]
        return found

    async def by_interaction(self, interaction_id: int) -> Job | None:
        return await self._one(jobs.c.interaction_id == interaction_id)

    async def by_card(self, message_id: int) -> Job | None:
        return await self._one(jobs.c.card_id == message_id)

    async def by_post(self, message_id: int) -> Job | None:
        return await self._one(jobs.c.post_id == message_id)

    async def claim(
        self, route: str, *, slots: int, worker: str, now: datetime, most: int = MOST_AT_ONCE
    ) -> list[Job]:
        """Take waiting jobs for the free slots of a route, writing the intent to submit each.

        Slots are counted in the database, across all processes; a job long overdue holds none. The member with the fewest running
        jobs goes first, then the oldest job.
        """

        async def work(connection: AsyncConnection) -> list[Job]:
            await self._lock(connection, zlib.crc32(route.encode()))
            running = select(func.count()).where(jobs.c.route == route, _holds_a_slot(now))
            free = min(slots - (await connection.execute(running)).scalar_one(), most)
            if free <= 0:
                return []
            line = _line(route, now)
            first = select(line.c.id).order_by(line.c.turn, line.c.created_at, line.c.id).limit(free)
            waiting = select(jobs).where(jobs.c.id.in_(first)).with_for_update(skip_locked=True)
            claimed = []
            for row in (await connection.execute(waiting.order_by(jobs.c.created_at))).mappings().all():
                job = job_of(row)
                begun = Begun(reference=job.reference or f"{job.id}-{job.attempt + 1}", worker=worker)
                saved = await self._save(connection, job, machine.advance(job, begun, now), begun)
                assert saved is not None, "the row is locked"
                claimed.append(saved)
            return claimed

        return await self._write(work, seconds=ACCEPT_SECONDS)

    async def beat(self, worker: str, now: datetime) -> None:
        """Say that this worker lives. One row, however many jobs it owns."""
        at = func.now() if self._database_clock else now

        async def work(connection: AsyncConnection) -> None:
            known = update(workers).where(workers.c.id == worker).values(beat_at=at)
            if not (await connection.execute(known)).rowcount:
                await connection.execute(insert(workers).values(id=worker, beat_at=at))

        async with self._writes.begin() as connection:
            await work(connection)

    async def rescue(self, worker: str, *, stale: timedelta, now: datetime) -> list[Job]:
        """Take over jobs that were handed back, or whose worker has not beaten for `stale`.

        Safe to ask for twice and from anywhere. One found in its paid call becomes UNSURE; it is
        returned too. Rows of workers long dead are cleared away.
        """

        async def work(connection: AsyncConnection) -> list[Job]:
            clock = (
                (await connection.execute(select(func.now()))).scalar_one() if self._database_clock else now
            )
            alive = select(workers.c.id).where(workers.c.beat_at > clock - stale)
            orphans = (
                select(jobs)
                .where(
                    jobs.c.state.in_(OWNED),
                    or_(jobs.c.worker.is_(None), jobs.c.worker.not_in(alive) & (jobs.c.worker != worker)),
                )
                .order_by(jobs.c.created_at)
                .limit(MOST_AT_ONCE)
                .with_for_update(skip_locked=True)
            )
            rescued = []
            for row in (await connection.execute(orphans)).mappings().all():
                job = job_of(row)
                outcome = Lost(Cause.INTERRUPTED) if job.state is State.SUBMITTING else Rescued(worker)
                saved = await self._save(connection, job, machine.advance(job, outcome, now), outcome)
                assert saved is not None, "the row is locked"
                rescued.append(saved)
            owners = select(jobs.c.worker).where(IS_OPEN, jobs.c.worker.is_not(None))
            await connection.execute(
                delete(workers).where(workers.c.beat_at <= clock - stale * 2, workers.c.id.not_in(owners))
            )
            return rescued

        return await self._write(work, seconds=ACCEPT_SECONDS)

    async def release(self, worker: str) -> None:
        """Hand back all that this worker owns, and sign off: others may go on at once, no attempt is spent."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(
                update(jobs)
                .where(jobs.c.worker == worker, jobs.c.state.in_((State.RENDERING, State.POSTING)))
                .values(worker=None, version=jobs.c.version + 1)
            )
            await connection.execute(delete(workers).where(workers.c.id == worker))
            await self._notify(connection)

        await self._write(work, seconds=ACCEPT_SECONDS)

    async def open_jobs(self, states: Collection[State] = OPEN) -> list[Job]:
        """All jobs in these states, oldest first."""
        query = select(jobs).where(jobs.c.state.in_(states)).order_by(jobs.c.created_at, jobs.c.id)
        async with self._reads.connect() as connection:
            return [job_of(row) for row in (await connection.execute(query)).mappings()]

    async def with_a_card_left(self, since: datetime) -> list[Job]:
        """Delivered jobs whose card was not taken away, oldest first, a few at a time."""
        query = select(jobs).where(HAS_CARD_LEFT, jobs.c.changed_at > since)
        async with self._reads.connect() as connection:
            rows = await connection.execute(query.order_by(jobs.c.changed_at).limit(MOST_AT_ONCE))
            return [job_of(row) for row in rows.mappings()]

    async def card_gone(self, job_id: str) -> None:
        """A delivered job has no card any more."""
        without = update(jobs).where(jobs.c.id == job_id, HAS_CARD_LEFT).values(card_id=None)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(without)

        await self._write(work, seconds=ACCEPT_SECONDS)

    async def line(self, route: str, *, limit: int) -> list[tuple[Job, int]]:
        """The jobs that wait for a route, first to start first, with their place (1 is next)."""
        line = _line(route)
        query = (
            select(jobs)
            .join(line, line.c.id == jobs.c.id)
            .order_by(line.c.turn, line.c.created_at, line.c.id)
            .limit(limit)
        )
        async with self._reads.connect() as connection:
            rows = (await connection.execute(query)).mappings().all()
            return [(job_of(row), place) for place, row in enumerate(rows, start=1)]

    async def place(self, job: Job) -> int:
        """The job's place in its route's line, 1 for the next to start; a draft's as if it waited."""
        line = _line(job.route, also=job.id)
        order = (line.c.turn, line.c.created_at, line.c.id)
        ranked = select(line.c.id, func.row_number().over(order_by=order).label("place")).subquery()
        async with self._reads.connect() as connection:
            found = await connection.execute(select(ranked.c.place).where(ranked.c.id == job.id))
            return found.scalar_one_or_none() or 1

    async def durations(self, job: Job, *, limit: int = 200) -> list[timedelta]:
        """From submit (or the start of rendering, where it was seen) to clip: the latest jobs of the same
        route, model, length and quality, newest first."""
        query = (
            select(func.coalesce(jobs.c.started_at, jobs.c.submitted_at, type_=Utc()), jobs.c.rendered_at)
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
        async def work(connection: AsyncConnection) -> None:
            changed = await connection.execute(update(notes).where(notes.c.key == key).values(value=value))
            if not changed.rowcount:
                await connection.execute(insert(notes).values(key=key, value=value))

        await self._write(work, seconds=ACCEPT_SECONDS)

    async def money(self, job_id: str) -> Mapping[str, int]:
        """What the ledger says of a job: cents by kind."""
        query = select(ledger.c.kind, func.sum(ledger.c.cents)).where(ledger.c.job_id == job_id)
        async with self._reads.connect() as connection:
            rows = await connection.execute(query.group_by(ledger.c.kind))
            return {kind: int(cents) for kind, cents in rows}

    @asynccontextmanager
    async def listening(self, wake: Callable[[], None]) -> AsyncIterator[None]:
        """Call `wake` when another process queues or hands back a job (PostgreSQL; elsewhere nothing).

        Only a hint: whoever listens looks by itself from time to time as well.
        """
        if not self._postgresql:
            yield
            return
        task = asyncio.create_task(self._listen(wake), name="listen")
        try:
            yield
        finally:
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)

    async def _listen(self, wake: Callable[[], None]) -> None:
        ended = asyncio.Event()
        while True:
            ended.clear()
            try:
                async with self._reads.connect() as connection:
                    driver: Any = (await connection.get_raw_connection()).driver_connection
                    driver.add_termination_listener(lambda *_: ended.set())
                    await driver.add_listener(CHANNEL, lambda *_: wake())
                    wake()
                    await ended.wait()
                    await connection.invalidate()
            except (DBAPIError, OSError) as error:
                log.warning("listening_failed", error=type(error).__name__)
            await asyncio.sleep(1)

    def reading(self) -> AsyncConnection:
        """A connection for the queries beside this module; to be entered, for reading only."""
        return self._reads.connect()

    async def writing(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` as one transaction, as this module's own: perhaps more than once."""
        return await self._write(work, seconds=ACCEPT_SECONDS)

    async def _one(self, condition: Any) -> Job | None:  # Any: SQLAlchemy's == is typed as bool or element
        async with self._reads.connect() as connection:
            row = (await connection.execute(select(jobs).where(condition))).mappings().one_or_none()
            return job_of(row) if row else None

    async def _write(
        self, work: Callable[[AsyncConnection], Awaitable[T]], *, seconds: float | None = None
    ) -> T:
        """One transaction, whole again on serialisation and connection errors: for so long, or for ever."""
        result: list[T] = []
        async for attempt in stamina.retry_context(
            on=_may_pass, attempts=None, timeout=seconds, wait_initial=0.02, wait_max=2.0
        ):
            with attempt:
                async with self._writes.begin() as connection:
                    result = [await work(connection)]
        return result[0]

    async def _lock(self, connection: AsyncConnection, key: int) -> None:
        """Count and write as one: on SQLite BEGIN IMMEDIATE does it."""
        if self._postgresql:
            await connection.execute(select(func.pg_advisory_xact_lock(key)))

    async def _notify(self, connection: AsyncConnection) -> None:
        if self._postgresql:
            await connection.execute(select(func.pg_notify(CHANNEL, "")))

    async def _save(self, connection: AsyncConnection, job: Job, moved: Job, outcome: Outcome) -> Job | None:
        guarded = update(jobs).where(
            jobs.c.id == job.id, jobs.c.state == job.state, jobs.c.version == job.version
        )
        values = {f.name: getattr(moved, f.name) for f in fields(Job) if f.name not in ("id", "created_at")}
        if not (await connection.execute(guarded.values(values))).rowcount:
            return None
        await _record(connection, job, moved, outcome)
        reach("store.uncommitted")
        if moved.state is State.QUEUED:
            await self._notify(connection)
        return moved


async def _load(connection: AsyncConnection, asker_id: int) -> Load:
    count = select(func.count()).select_from(jobs).where(IS_COUNTED)
    by_asker = (await connection.execute(count.where(jobs.c.asker_id == asker_id))).scalar_one()
    return Load(by_asker=by_asker, in_all=(await connection.execute(count)).scalar_one())


async def _record(
    connection: AsyncConnection, before: Job | None, after: Job, outcome: Outcome | None
) -> None:
    """What a move leaves behind: its event, and its money."""
    await connection.execute(
        insert(events).values(
            job_id=after.id,
            at=after.changed_at,
            outcome=type(outcome).__name__ if outcome else "Requested",
            from_state=before.state if before else None,
            to_state=after.state,
            cause=after.cause,
        )
    )
    rows = [
        {
            "job_id": after.id,
            "at": after.changed_at,
            "kind": entry.kind,
            "cents": entry.cents,
            "asker_id": after.asker_id,
            "guild_id": after.guild_id,
            "model": after.model,
        }
        for entry in entries(before, after, outcome)
    ]
    if rows:
        await connection.execute(insert(ledger), rows)


def _holds_a_slot(now: datetime) -> ColumnElement[bool]:
    return or_(
        jobs.c.state == State.SUBMITTING,
        (jobs.c.state == State.RENDERING) & (jobs.c.submitted_at > now - HOLDS_SLOT),
    )


def _line(route: str, now: datetime | None = None, *, also: str | None = None) -> Subquery:
    """Who waits for a route and whose turn it is: a member's first waiting job counts after those running.

    With `now`, without the jobs that were told to wait longer; `also` one that will wait soon.
    """
    running = (
        select(jobs.c.asker_id, func.count().label("running"))
        .where(jobs.c.route == route, jobs.c.state.in_(RUNNING))
        .group_by(jobs.c.asker_id)
        .subquery()
    )
    own = func.row_number().over(partition_by=jobs.c.asker_id, order_by=(jobs.c.created_at, jobs.c.id))
    turn = (func.coalesce(running.c.running, 0) + own).label("turn")
    query: Select[Any] = (
        select(jobs.c.id, jobs.c.created_at, turn)
        .outerjoin(running, running.c.asker_id == jobs.c.asker_id)
        .where(jobs.c.route == route, or_(jobs.c.state == State.QUEUED, jobs.c.id == also))
    )
    if now is not None:
        query = query.where(or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now))
    return query.subquery()


SERIALISATION = {"40001", "40P01"}  # PostgreSQL: serialization failure, deadlock


def _may_pass(error: Exception) -> bool:
    """The database was away, or asks for the transaction again."""
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        known = isinstance(error, OperationalError | InterfaceError)
        return known or error.connection_invalidated or code in SERIALISATION or str(code)[:2] in ("08", "57")
    return isinstance(error, OSError)


def job_of(row: Mapping[Any, Any]) -> Job:
    """A row of `jobs`, as the machine knows it."""
    values = dict(row)
    values["state"] = State(values["state"])
    values["charge"] = Charge(values["charge"])
    values["cause"] = Cause(values["cause"]) if values["cause"] else None
    return Job(**values)


@asynccontextmanager
async def open_store(url: str, *, database_clock: bool = True) -> AsyncIterator[Store]:
    """Open the database named by a SQLAlchemy URL, bring its schema up to date, and close it at the end.

    `database_clock` False lets the given times decide on PostgreSQL too who is alive: for virtual time.

    The folder of an SQLite file is made when it is missing.
    """
    engine = create_async_engine(url, pool_pre_ping=True, hide_parameters=True)
    if engine.dialect.name == "sqlite":
        if engine.url.database and engine.url.database != ":memory:":
            Path(engine.url.database).parent.mkdir(parents=True, exist_ok=True)
        _prepare_sqlite(engine)
    try:
        async with engine.begin() as connection:
            if engine.dialect.name == "postgresql":  # two processes may start at once
                await connection.execute(select(func.pg_advisory_xact_lock(ADMISSION_LOCK)))
            await connection.run_sync(_migrate)
        yield Store(engine, database_clock=database_clock)
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
