"""The only SQL. Every move of a job is one guarded update together with its event and its money.

Works alike on SQLite (WAL, one file) and PostgreSQL. Knows tables, the machine and the ledger; knows no
Discord, provider or policy: the caller's `admit` decides who may start a job. Times are given, except that
PostgreSQL's own clock decides which workers are alive.
"""

import asyncio
import base64
import secrets
import sys
import time
import zlib
from collections import defaultdict
from collections.abc import (
    AsyncIterator,
    Awaitable,
    Callable,
    Collection,
    Iterable,
    Mapping,
    Sequence,
)
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import cache, lru_cache
from itertools import compress
from operator import is_not
from typing import Any, TypeVar

import stamina
import structlog
from alembic import command
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import (
    CTE,
    BigInteger,
    BindParameter,
    ColumnElement,
    Connection,
    Integer,
    Row,
    Select,
    Subquery,
    Table,
    Text,
    Update,
    and_,
    bindparam,
    case,
    delete,
    func,
    insert,
    literal,
    or_,
    select,
    union,
    update,
)
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.engine import make_url
from sqlalchemy.exc import DBAPIError, IntegrityError, InterfaceError, OperationalError
from sqlalchemy.exc import TimeoutError as PoolTimeoutError
from sqlalchemy.ext.asyncio import AsyncConnection, AsyncEngine, create_async_engine

from bot.errors import Cause
from bot.failpoints import reach
from bot.jobs import machine
from bot.jobs.budgets import Budget
from bot.jobs.ledger import Entry, Kind, entries
from bot.jobs.machine import (
    CANCELLABLE,
    NOBODY,
    OPEN,
    REQUESTED,
    Begun,
    Charge,
    Claimed,
    Job,
    Lineage,
    Lost,
    Outcome,
    Rescued,
    State,
    TriedAgain,
)
from bot.jobs.postgresql import by_column, given_rows
from bot.jobs.sqlite import sqlite_engine
from bot.jobs.tables import (
    ENDED_UNPOSTED,
    HAS_CARD_LEFT,
    IS_OPEN,
    IS_PAUSED,
    Utc,
    among,
    blocks,
    comparison_votes,
    comparisons,
    events,
    guilds,
    jobs,
    ledger,
    metadata,
    notes,
    reports,
    reviews,
    workers,
)
from bot.jobs.tally import Load, Tally, taken
from bot.jobs.together import Together

log = structlog.get_logger(__name__)

ACCEPT_SECONDS = 2.0  # Discord gives three for the first answer
HOLDS_SLOT = timedelta(hours=1)
RUNNING = (State.PREPARING, State.SUBMITTING, State.RENDERING)
OWNED = (*RUNNING, State.POSTING)
MOST_AT_ONCE = 200
MOST_RESCUED = 500
MOST_IN_LIST = 500
CONNECTIONS = 10  # kept, so that a rush does not open and close one for each of its requests
MOST_IDLE_MS = 5000  # within a transaction, on PostgreSQL: a third of the fence, so that who waits for a lock stays alive
CHANNEL = "animatic"
ADMISSION_LOCK = 1
GUILDS_LOCK = 2
PAUSED = "paused"  # the note that says that nothing new is started anywhere
_PAUSED_EVERYWHERE = select(notes.c.key).where(notes.c.key == PAUSED)

T = TypeVar("T")
R = TypeVar("R")
Move = tuple[Job, Job, Outcome]
Request = tuple[Job, Callable[["Load"], None], Collection[Budget]]
WRITTEN = {  # columns of which the database gives no value by itself
    table: tuple(column.name for column in table.c if column.autoincrement is not True)
    for table in (jobs, events, ledger)
}
# The very strings that code asks for fields by: others would be found more slowly.
IN_ROWS = tuple(sys.intern(str(column.name)) for column in jobs.c)


def new_job_id(now: datetime) -> str:
    """A new id of 16 characters from a-z and 2-7, ordered by time.

    Short enough to be a Discord nonce (25 characters) and safe in a custom_id and a file name.
    """
    milliseconds = int(now.timestamp() * 1000)
    return base64.b32encode(milliseconds.to_bytes(6, "big") + secrets.token_bytes(4)).decode().lower()


class AlreadyThere(Exception):
    """A constraint held: this interaction has its job, or this person has that clip in the queue."""


class SchemaDiffers(Exception):
    """The database was made, or brought up to date, by another version of Animatic."""


@dataclass(frozen=True, slots=True)
class Event:
    """One arrow of a job's history, in the words of the database."""

    outcome: str
    old: str | None
    new: str


@dataclass(frozen=True, slots=True)
class Dossier:
    """All that the database has of one job at one moment. `job` is None where its row is missing."""

    job_id: str
    job: Job | None
    history: list[Event]
    money: list[Entry]


class Store:
    """Jobs in a database. Every method is one transaction, repeated whole when the database is away."""

    def __init__(self, engine: AsyncEngine, *, database_clock: bool = True) -> None:
        self._postgresql = engine.dialect.name == "postgresql"
        self._writes = _writing(engine)
        self._reads, self._snapshots = (
            (engine, engine.execution_options(isolation_level="REPEATABLE READ"))
            if self._postgresql
            else (
                engine.execution_options(animatic_begins=None),
                engine.execution_options(animatic_begins="BEGIN"),
            )
        )
        self._database_clock = database_clock and self._postgresql
        self._one_writer = asyncio.Lock()
        self._in_rush: set[str] = set()  # routes whose last claim took several
        self._adds = Together(self._add_all, most=MOST_AT_ONCE)
        self._moves = Together(self._move_all, most=MOST_AT_ONCE)
        self._gone = Together(self._cards_gone, most=MOST_AT_ONCE)
        self._places = Together(self._places_of, most=MOST_IN_LIST)

    async def close(self) -> None:
        """Give up what is under way."""
        for together in (self._adds, self._moves, self._gone, self._places):
            await together.close()

    async def add(
        self,
        job: Job,
        admit: Callable[[Load], None] = lambda _load: None,
        budgets: Collection[Budget] = (),
    ) -> Job:
        """Write a new job, unless `admit` raises on seeing the load. Raises AlreadyThere.

        Counted and written as one: of two who ask for the last of a budget, one gets it.
        """

        try:
            return await self._adds.ask((job, admit, budgets))
        except IntegrityError as error:
            if await self.get(job.id) == job:
                return job  # our own commit, whose answer was lost on the way
            raise AlreadyThere(job.id) from error

    async def add_together(
        self,
        new: Sequence[Job],
        admit: Callable[[Job, Load], None],
        budgets: Collection[Budget],
        first: Callable[[AsyncConnection], Awaitable[bool]],
    ) -> None:
        """Write new jobs and what `first` does, all or nothing: unless `admit` raises, asked for each with those before
        it counted, or `first` says that it is done already. Raises AlreadyThere."""

        async def work(connection: AsyncConnection) -> None:
            await self._lock(connection, ADMISSION_LOCK)
            if not await first(connection):
                raise AlreadyThere(new[0].id)
            tally = Tally(connection)
            for job in new:
                load = await tally.load(job.asker_id)
                admit(job, replace(load, spent=await tally.spent(job, budgets)))
                tally.admit(job)
            await _record(connection, new)

        try:
            await self._write(work, seconds=ACCEPT_SECONDS)
        except (AlreadyThere, IntegrityError) as error:
            if await self.get(new[0].id) != new[0]:  # else our own commit, whose answer was lost on the way
                raise AlreadyThere(new[0].id) from error

    async def load(self, asker_id: int, *, clip: str | None = None, now: datetime | None = None) -> Load:
        """How many jobs count against the limits; with `now`, also the takes of `clip`."""
        async with self._reads.connect() as connection:
            tally = Tally(connection)
            return await tally.load(asker_id, clip=clip, now=now)

    async def advance(self, job: Job, outcome: Outcome, now: datetime, *, surely: bool = False) -> Job | None:
        """Move the job along one arrow. None: someone else moved it first, and nothing was written.

        A database that is away is asked until it answers: the outcome in hand may be a paid answer. `surely`: it is written
        even when the caller is cancelled meanwhile, who is cancelled only then.
        Raises AlreadyThere when the person has queued the same clip once more meanwhile.
        """
        moved = machine.advance(job, outcome, now)
        if moved is job:
            return job
        try:
            saved = await self._moves.ask((job, moved, outcome), surely=surely)
        except IntegrityError as error:
            raise AlreadyThere(job.id) from error
        if saved is None and await self.look(job.id) == moved:
            return moved  # our own commit, whose answer was lost on the way
        return saved

    async def reserve_again(
        self,
        job: Job,
        outcome: TriedAgain,
        now: datetime,
        admit: Callable[[Load], None],
        budgets: Collection[Budget],
    ) -> Job | None:
        """As `advance`, for a move that reserves the price once more, unless `admit` raises. Raises AlreadyThere."""
        moved = machine.advance(job, outcome, now)

        async def work(connection: AsyncConnection) -> Job | None:
            await self._lock(connection, ADMISSION_LOCK)
            seen = await connection.execute(_as_they_are(), {"ids": [job.id]})
            if (job.id, job.state, job.version) not in [tuple(row) for row in seen]:
                return None  # perhaps by a commit of ours: what it reserved must not speak against it
            tally = Tally(connection)
            load = await tally.load(job.asker_id)
            admit(replace(load, spent=await tally.spent(job.but(created_at=now), budgets)))
            [saved] = await self._save(connection, [(job, moved, outcome)])
            return saved

        try:
            saved = await self._write(work, seconds=ACCEPT_SECONDS)
        except IntegrityError as error:
            raise AlreadyThere(job.id) from error
        if saved is None and await self.get(job.id) == moved:
            return moved  # our own commit, whose answer was lost on the way
        return saved

    async def get(self, job_id: str) -> Job | None:
        async with self._reads.connect() as connection:
            row = (await connection.execute(_that(), {"job_id": job_id})).one_or_none()
            return job_of(row) if row else None

    async def look(self, job_id: str) -> Job | None:
        """As `get`, but a database that is away is asked until it answers: a paid answer may depend on it."""
        return await _again_and_again(lambda: self.get(job_id))

    async def many(self, job_ids: Collection[str]) -> list[Job]:
        """The jobs of these ids, as far as they are there."""
        found: list[Job] = []
        async with self._reads.connect() as connection:
            for start in range(0, len(ids := sorted(job_ids)), MOST_IN_LIST):
                some = {"ids": ids[start : start + MOST_IN_LIST]}
                found += [job_of(row) for row in await connection.execute(_those(), some)]
        return found

    async def changed(self, seen: Collection[Job]) -> dict[str, Job | None]:
        """Those of these jobs that are not as they were seen: as they are now, by id; None for one that is not there."""
        was = {job.id: (job.version, job.sealed) for job in seen}
        async with self._reads.connect() as connection:
            same = set[str]()
            for start in range(0, len(ids := sorted(was)), MOST_IN_LIST):
                some = {"ids": ids[start : start + MOST_IN_LIST]}
                for job_id, version, sealed in await connection.execute(_as_looked_at(), some):
                    if was[job_id] == (version, sealed):
                        same.add(job_id)
        if not (differing := was.keys() - same):
            return {}
        now = {job.id: job for job in await self.many(differing)}
        return {job_id: now.get(job_id) for job_id in differing}

    async def by_interaction(self, interaction_id: int) -> Job | None:
        return await self._one(jobs.c.interaction_id == interaction_id)

    async def by_card(self, message_id: int) -> Job | None:
        return await self._one(jobs.c.card_id == message_id)

    async def by_post(self, message_id: int) -> list[Job]:
        """The job whose clip this message carries; both, of a comparison."""
        query = select(jobs).where(jobs.c.post_id == message_id).order_by(jobs.c.id)
        async with self._reads.connect() as connection:
            return [job_of(row) for row in await connection.execute(query)]

    async def claim(
        self, route: str, *, slots: int, worker: str, now: datetime, most: int = MOST_AT_ONCE
    ) -> list[Job]:
        """Take waiting jobs for the free slots of a route.

        Slots are counted in the database, across all processes; a job long overdue holds none. What is paused
        stays in line. The member with the fewest running jobs goes first, then the oldest job.
        """

        async def work(connection: AsyncConnection) -> list[Job]:
            await self._lock(connection, zlib.crc32(route.encode()))
            wanted = {"route": route, "now": now, "slots": slots, "most": most}
            wanted["held_since"] = now - HOLDS_SLOT
            moves: list[Move] = []
            for row in await connection.execute(_next_in_line(), wanted):
                job = job_of(row)
                if job.state is not State.QUEUED or job.route != route:
                    continue
                claimed = Claimed(worker)
                moves.append((job, machine.advance(job, claimed, now), claimed))
            return [job for job in await self._save(connection, moves) if job]

        # Mostly nobody waits, or no slot is free: then no lock is taken. Where there were several, there may be more.
        if route not in self._in_rush:
            async with self._reads.connect() as connection:
                look = {"route": route, "slots": slots, "held_since": now - HOLDS_SLOT}
                if not (await connection.execute(_may_begin(), look)).first():
                    return []
        claimed = await self._write(work, seconds=ACCEPT_SECONDS)
        (self._in_rush.add if len(claimed) > 1 else self._in_rush.discard)(route)
        return claimed

    async def beat(self, worker: str, now: datetime) -> None:
        """Say that this worker lives. One row, however many jobs it owns."""
        at = func.now() if self._database_clock else now

        async def work(connection: AsyncConnection) -> None:
            beats = _beats(self._database_clock)
            if not (await connection.execute(beats, {"worker": worker, "now": now})).rowcount:
                await connection.execute(insert(workers).values(id=worker, beat_at=at))

        async with self._turn(), self._writes.begin() as connection:
            await work(connection)
        _committed(work)

    async def rescue(self, worker: str, *, stale: timedelta, now: datetime) -> list[Job]:
        """Take over jobs that were handed back, or whose worker has not beaten for `stale`.

        Safe to ask for twice and from anywhere; at most MOST_RESCUED at a time. One found in its paid call becomes UNSURE; it is
        returned too.
        """

        async def work(connection: AsyncConnection) -> list[Job]:
            clock = await self._clock(connection, now)
            orphans = select(jobs).where(_is_orphan(worker, clock - stale)).order_by(jobs.c.created_at)
            moves: list[Move] = []
            some = orphans.limit(MOST_RESCUED).with_for_update(skip_locked=True)
            for row in await connection.execute(some):
                job = job_of(row)
                outcome = Lost(Cause.INTERRUPTED) if job.state is State.SUBMITTING else Rescued(worker)
                moves.append((job, machine.advance(job, outcome, now), outcome))
            return [job for job in await self._save(connection, moves) if job]

        # Mostly everybody is well: then nobody waits for this.
        async with self._reads.connect() as connection:
            clock = await self._clock(connection, now)
            orphan = await connection.execute(_an_orphan(), {"worker": worker, "since": clock - stale})
            if not orphan.first():
                return []
        return await self._write(work, seconds=ACCEPT_SECONDS)

    async def bury(self, *, stale: timedelta, now: datetime) -> datetime | None:
        """Clear away the rows of workers that own nothing and have not beaten for twice `stale`.

        When the first of them was last heard of; None where there was none. Of several who ask, one is told of each,
        unless that one's commit had to be tried again.
        """
        heard: list[datetime] = []  # also by a try whose commit was not answered

        async def work(connection: AsyncConnection) -> None:
            clock = await self._clock(connection, now)
            dead = delete(workers).where(_is_forgotten(clock - stale * 2)).returning(workers.c.beat_at)
            heard.extend((await connection.execute(dead)).scalars())

        async with self._reads.connect() as connection:
            clock = await self._clock(connection, now)
            dead_since = {"since": clock - stale * 2}
            if not (await connection.execute(_a_forgotten_worker(), dead_since)).first():
                return None
        await self._write(work, seconds=ACCEPT_SECONDS)
        return min(heard, default=None)

    async def _clock(self, connection: AsyncConnection, now: datetime) -> datetime:
        """What decides who is alive."""
        if not self._database_clock:
            return now
        time: datetime = (await connection.execute(select(func.now()))).scalar_one()
        return time

    async def release(self, worker: str) -> None:
        """Hand back all that this worker owns, and sign off: others may go on at once, no attempt is spent."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(
                update(jobs)
                .where(IS_OPEN, jobs.c.worker == worker, jobs.c.state.in_((State.RENDERING, State.POSTING)))
                .values(worker=None, version=jobs.c.version + 1)
            )
            await connection.execute(delete(workers).where(workers.c.id == worker))
            await self._notify(connection)

        await self._write(work, seconds=ACCEPT_SECONDS)

    async def open_jobs(self, states: Collection[State] = OPEN) -> list[Job]:
        """All jobs in these states, oldest first."""
        async with self._reads.connect() as connection:
            return [job_of(row) for row in await connection.execute(_in_states(frozenset(states)))]

    async def owned(self, worker: str) -> set[str]:
        """The ids of the jobs that render or are posted under this worker."""
        async with self._reads.connect() as connection:
            return set((await connection.execute(_owned(), {"worker": worker})).scalars())

    async def ended_lately(self, since: datetime) -> list[Job]:
        """Jobs that ended without a post since then, whose cards may not say so yet; some of them, the latest first."""
        query = select(jobs).where(ENDED_UNPOSTED, jobs.c.changed_at > since, jobs.c.asker_id != NOBODY)
        async with self._reads.connect() as connection:
            rows = await connection.execute(query.order_by(jobs.c.changed_at.desc()).limit(MOST_AT_ONCE))
            return [job_of(row) for row in rows]

    async def with_a_card_left(self, since: datetime) -> list[Job]:
        """Delivered jobs whose card was not taken away, oldest first, a few at a time."""
        async with self._reads.connect() as connection:
            return [job_of(row) for row in await connection.execute(_card_left(), {"since": since})]

    async def card_gone(self, job_id: str) -> None:
        """A delivered job has no card any more."""
        await self._gone.ask(job_id)

    async def line(self, route: str, *, limit: int) -> list[tuple[Job, int]]:
        """The jobs that wait for a route, first to start first, with their place (1 is next)."""
        async with self._reads.connect() as connection:
            rows = await connection.execute(_first_in_line(), {"route": route, "most": limit})
            return [(job_of(row), place) for place, row in enumerate(rows, start=1)]

    async def place(self, job: Job) -> int:
        """The job's place in its route's line, 1 for the next to start; a draft's as if it waited."""
        return await self._places.ask(job)

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

    async def recall_all(self, prefix: str) -> dict[str, str]:
        """The notes whose keys begin so."""
        async with self._reads.connect() as connection:
            return {row.key: row.value for row in await connection.execute(_noted_under(prefix))}

    async def remember_first(self, key: str, value: str) -> bool:
        """Write a note unless there is one already. Whether it was written."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(insert(notes).values(key=key, value=value))

        try:
            await self._write(work, seconds=ACCEPT_SECONDS)
        except IntegrityError:
            return False
        return True

    async def forget(self, key: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(notes).where(notes.c.key == key))

        await self._write(work, seconds=ACCEPT_SECONDS)

    async def replace_note(self, key: str, old: str, new: str) -> bool:
        """Write a note anew where it still says what it said. Whether it was written."""

        async def work(connection: AsyncConnection) -> bool:
            as_read = update(notes).where(notes.c.key == key, notes.c.value == old)
            return bool((await connection.execute(as_read.values(value=new))).rowcount)

        return await self._write(work, seconds=ACCEPT_SECONDS)

    async def remember(self, key: str, value: str) -> None:
        async def work(connection: AsyncConnection) -> None:
            await self._note(connection, key, value)

        await self._write(work, seconds=ACCEPT_SECONDS)

    async def _note(self, connection: AsyncConnection, key: str, value: str) -> None:
        """Write a note, or write it anew: also where another process has just written it for the first time."""
        new = (postgresql.insert if self._postgresql else sqlite.insert)(notes).values(key=key, value=value)
        await connection.execute(
            new.on_conflict_do_update(index_elements=[notes.c.key], set_={"value": value})
        )

    async def guild(self, guild_id: int | None) -> tuple[str, bool, bool]:
        """What a server has decided, as JSON; whether it is paused; whether all servers are."""
        async with self._reads.connect() as connection:
            row = (await connection.execute(_decided(), {"guild_id": guild_id})).one_or_none()
            everywhere = (await connection.execute(_PAUSED_EVERYWHERE)).first() is not None
        return (row.settings, row.paused_at is not None, everywhere) if row else ("{}", False, everywhere)

    async def change_guild(self, guild_id: int, decide: Callable[[str], str]) -> None:
        """Make what a server has decided, as JSON, into what it decides now: of two at once, one comes after."""

        async def work(connection: AsyncConnection) -> None:
            await self._open_guild(connection, guild_id)
            here = guilds.c.guild_id == guild_id
            row = select(guilds.c.settings).where(here).with_for_update()
            decided = (await connection.execute(row)).scalar_one()
            await connection.execute(update(guilds).where(here).values(settings=decide(decided)))

        await self._write(work, seconds=ACCEPT_SECONDS)

    async def pause(self, guild_id: int | None, since: datetime | None) -> bool:
        """From now on `claim` takes none of a server's jobs (None: none at all); without `since`, it takes
        them again. Whether that is a change."""

        async def work(connection: AsyncConnection) -> bool:
            if guild_id is None:
                changed = await connection.execute(delete(notes).where(notes.c.key == PAUSED))
                was = bool(changed.rowcount)
                if since:
                    await self._note(connection, PAUSED, since.isoformat())
            else:
                await self._open_guild(connection, guild_id)
                here = guilds.c.guild_id == guild_id
                row = select(guilds.c.paused_at).where(here).with_for_update()
                was = (await connection.execute(row)).scalar_one() is not None
                await connection.execute(update(guilds).where(here).values(paused_at=since))
            await self._notify(connection)
            return was is not bool(since)

        return await self._write(work, seconds=ACCEPT_SECONDS)

    async def paused(self, guild_ids: Collection[int | None]) -> set[int | None]:
        """Those of these servers in which nothing new is started."""
        some = [one for one in guild_ids if one is not None]
        async with self._reads.connect() as connection:
            if (await connection.execute(_PAUSED_EVERYWHERE)).first():
                return set(guild_ids)
            return set((await connection.execute(_paused_among(), {"guild_ids": some})).scalars())

    async def guild_joined(self, guild_id: int) -> bool:
        """The bot is in this server. Whether it was not before, or had left."""

        async def work(connection: AsyncConnection) -> bool:
            new = await self._open_guild(connection, guild_id)
            back = update(guilds).where(guilds.c.guild_id == guild_id, guilds.c.left_at.is_not(None))
            return new or bool((await connection.execute(back.values(left_at=None))).rowcount)

        return await self._write(work, seconds=ACCEPT_SECONDS)

    async def guild_left(self, guild_id: int, now: datetime) -> None:
        async def work(connection: AsyncConnection) -> None:
            await self._open_guild(connection, guild_id)
            gone = update(guilds).where(guilds.c.guild_id == guild_id, guilds.c.left_at.is_(None))
            await connection.execute(gone.values(left_at=now))

        await self._write(work, seconds=ACCEPT_SECONDS)

    async def guilds_present(self) -> list[int]:
        """The servers that have a row and were not left, and those with jobs that can still be called off."""
        known = select(guilds.c.guild_id).where(guilds.c.left_at.is_(None))
        waiting = select(jobs.c.guild_id).where(IS_OPEN, jobs.c.state.in_(CANCELLABLE))
        both = known.union(waiting.where(jobs.c.guild_id.is_not(None))).subquery()
        async with self._reads.connect() as connection:
            return list(
                (await connection.execute(select(both.c.guild_id).order_by(both.c.guild_id))).scalars()
            )

    async def guilds_left(self) -> set[int]:
        """The servers that the bot has left, as far as it was noticed."""
        left = select(guilds.c.guild_id).where(guilds.c.left_at.is_not(None))
        async with self._reads.connect() as connection:
            return set((await connection.execute(left)).scalars())

    async def forget_guilds(self, left_before: datetime) -> int:
        """Delete what servers have decided, reported and compared that the bot left so long ago. Their number."""
        long_gone = guilds.c.left_at < left_before
        left = select(guilds.c.guild_id).where(long_gone)
        theirs = select(comparisons.c.id).where(comparisons.c.guild_id.in_(left))
        compared = [
            select(one).where(comparisons.c.guild_id.in_(left))
            for one in (comparisons.c.a_id, comparisons.c.b_id)
        ]

        async def work(connection: AsyncConnection) -> int:
            if not (await connection.execute(left.limit(1))).first():
                return 0
            sealed = update(jobs).where(jobs.c.sealed, jobs.c.id.in_(union(*compared)))
            await connection.execute(sealed.values(sealed=False))
            votes = comparison_votes.c.comparison_id.in_(theirs)
            await connection.execute(delete(comparison_votes).where(votes))
            for table in (comparisons, blocks, reports, reviews):
                await connection.execute(delete(table).where(table.c.guild_id.in_(left)))
            gone = await connection.execute(delete(guilds).where(long_gone))
            return gone.rowcount

        return await self._write(work, seconds=ACCEPT_SECONDS)

    async def _open_guild(self, connection: AsyncConnection, guild_id: int) -> bool:
        """Make sure that a server has its row. Whether it is new."""
        await self._lock(connection, GUILDS_LOCK)
        known = select(guilds.c.guild_id).where(guilds.c.guild_id == guild_id)
        if (await connection.execute(known)).first():
            return False
        await connection.execute(insert(guilds).values(guild_id=guild_id, settings="{}"))
        return True

    async def waiting_in(self, guild_id: int) -> list[Job]:
        """A server's jobs that can still be called off."""
        states = jobs.c.state.in_(CANCELLABLE)
        async with self._reads.connect() as connection:
            rows = await connection.execute(select(jobs).where(IS_OPEN, jobs.c.guild_id == guild_id, states))
            return [job_of(row) for row in rows]

    async def money(self, job_id: str) -> Mapping[str, int]:
        """What the ledger says of a job: cents by kind."""
        query = select(ledger.c.kind, func.sum(ledger.c.cents)).where(ledger.c.job_id == job_id)
        async with self._reads.connect() as connection:
            rows = await connection.execute(query.group_by(ledger.c.kind))
            return {kind: int(cents) for kind, cents in rows}

    async def dossiers(self, *, at_once: int = MOST_IN_LIST) -> AsyncIterator[Dossier]:
        """Every job with all that belongs to it, by id; a few at a time, each few as of one moment.

        What has no row of its own in `jobs` any more is among them.
        """
        after: str | None = None
        while True:
            async with self._snapshots.connect() as connection:
                query = select(jobs).order_by(jobs.c.id).limit(at_once)
                if after is not None:
                    query = query.where(jobs.c.id > after)
                found = [job_of(row) for row in await connection.execute(query)]
                last = found[-1].id if len(found) == at_once else None
                dossiers = {job.id: Dossier(job.id, job, [], []) for job in found}
                for row in await connection.execute(_between(events, after, last)):
                    belonging = dossiers.setdefault(row.job_id, Dossier(row.job_id, None, [], []))
                    belonging.history.append(Event(row.outcome, row.from_state, row.to_state))
                for row in await connection.execute(_between(ledger, after, last)):
                    belonging = dossiers.setdefault(row.job_id, Dossier(row.job_id, None, [], []))
                    belonging.money.append(Entry(Kind(row.kind), row.cents))
            for dossier in dossiers.values():
                yield dossier
            if last is None:
                return
            after = last

    async def shared_posts(self) -> list[tuple[str, int]]:
        """Jobs that name the same message as their post, not being compared in it: each job's id, and the message."""
        several = (
            select(jobs.c.post_id)
            .where(jobs.c.post_id.is_not(None))
            .group_by(jobs.c.post_id)
            .having(func.count(func.coalesce(jobs.c.comparison_id, jobs.c.id).distinct()) > 1)
        )
        query = select(jobs.c.id, jobs.c.post_id).where(jobs.c.post_id.in_(several)).order_by(jobs.c.id)
        async with self._reads.connect() as connection:
            return [(job_id, post_id) for job_id, post_id in await connection.execute(query)]

    async def reserved_beyond(self) -> dict[int, int]:
        """Members for whom the ledger holds more, or less (negative), in reserve than their open jobs cost; cents."""
        cents = case((ledger.c.kind == Kind.RESERVE, ledger.c.cents), else_=-ledger.c.cents)
        held = select(ledger.c.asker_id, cents.label("cents"))
        needed = select(jobs.c.asker_id, -jobs.c.price_cents).where(IS_OPEN, jobs.c.charge != Charge.CHARGED)
        both = held.union_all(needed).subquery()
        beyond = func.sum(both.c.cents)
        query = (
            select(both.c.asker_id, beyond)
            .group_by(both.c.asker_id)
            .having(beyond != 0)
            .order_by(both.c.asker_id)
        )
        async with self._reads.connect() as connection:
            return {asker: int(cents) for asker, cents in await connection.execute(query)}

    async def last_begun(self, route: str) -> datetime | None:
        """When a paid call to this route was last made ready."""
        begun = (events.c.outcome == Begun.__name__) & (jobs.c.route == route)
        query = (
            select(func.max(events.c.at, type_=Utc())).join(jobs, jobs.c.id == events.c.job_id).where(begun)
        )
        async with self._reads.connect() as connection:
            at: datetime | None = (await connection.execute(query)).scalar_one_or_none()
            return at

    async def heard_of(self, now: datetime) -> dict[str, timedelta]:
        """How long ago each worker was last heard of, by the clock that decides who is alive."""
        async with self._reads.connect() as connection:
            clock = (
                (await connection.execute(select(func.now()))).scalar_one() if self._database_clock else now
            )
            rows = await connection.execute(select(workers.c.id, workers.c.beat_at))
            return {worker: clock - beat_at for worker, beat_at in rows}

    async def rows(self) -> dict[str, int]:
        """How many rows each table has."""
        async with self._reads.connect() as connection:
            return {
                table.name: (await connection.execute(select(func.count()).select_from(table))).scalar_one()
                for table in metadata.sorted_tables
            }

    @asynccontextmanager
    async def listening(self, wake: Callable[[str], None]) -> AsyncIterator[None]:
        """Call `wake` when a process queues or hands back a job, or passes on that one has moved, with that
        job's id (PostgreSQL; elsewhere nothing).

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

    async def _listen(self, wake: Callable[[str], None]) -> None:
        ended = asyncio.Event()
        while True:
            ended.clear()
            try:
                async with self._reads.connect() as connection:
                    driver: Any = (await connection.get_raw_connection()).driver_connection
                    driver.add_termination_listener(lambda *_: ended.set())
                    await driver.add_listener(CHANNEL, lambda *told: wake(str(told[-1])))
                    wake("")
                    await ended.wait()
                    await connection.invalidate()
            except Exception as error:  # noqa: BLE001 - whatever it was, also of the driver's own: it listens again
                log.warning("listening_failed", error=type(error).__name__)
            await asyncio.sleep(1)

    def reading(self) -> AsyncConnection:
        """A connection for the queries beside this module; to be entered, for reading only."""
        return self._reads.connect()

    def snapshot(self) -> AsyncConnection:
        """As `reading`, for queries that must agree with each other, or whose rows are streamed."""
        return self._snapshots.connect()

    async def writing(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """Run `work` as one transaction, as this module's own: perhaps more than once."""
        return await self._write(work, seconds=ACCEPT_SECONDS)

    async def _one(self, condition: Any) -> Job | None:  # Any: SQLAlchemy's == is typed as bool or element
        async with self._reads.connect() as connection:
            row = (await connection.execute(select(jobs).where(condition))).one_or_none()
            return job_of(row) if row else None

    async def _write(
        self, work: Callable[[AsyncConnection], Awaitable[T]], *, seconds: float | None = None
    ) -> T:
        """One transaction, whole again on serialisation and connection errors: for so long, or for ever."""

        async def once() -> T:
            async with self._turn(), self._writes.begin() as connection:
                answer = await work(connection)
            _committed(work)
            return answer

        return await _again_and_again(once, seconds=seconds)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """SQLite has one writer: this process's own take turns here, in order, and not by luck at its lock."""
        if self._postgresql:
            yield
            return
        async with self._one_writer:
            yield

    async def _lock(self, connection: AsyncConnection, key: int) -> None:
        """Count and write as one: on SQLite BEGIN IMMEDIATE does it."""
        if self._postgresql:
            await connection.execute(_LOCK, {"key": key})

    async def pass_on(self, job_id: str) -> None:
        """Tell the process that owns a job that it has moved; see `listening`."""
        await self._write(lambda connection: self._notify(connection, job_id), seconds=ACCEPT_SECONDS)

    async def _notify(self, connection: AsyncConnection, job_id: str = "") -> None:
        if self._postgresql:
            await connection.execute(_NOTIFY, {"job_id": job_id})

    async def _add_all(self, asked: Sequence[Request]) -> list[Job | Exception]:
        """The requests that came at the same moment, in one transaction; each is admitted or refused alone."""

        tried = False

        async def work(connection: AsyncConnection) -> list[Job | Exception]:
            nonlocal tried
            await self._lock(connection, ADMISSION_LOCK)
            there: set[str] = set()
            if tried:  # what was committed, its answer lost, must not be refused for its own weight
                ids = {"ids": [job.id for job, _, _ in asked]}
                there = {row.id for row in await connection.execute(_as_they_are(), ids)}
            tried = True
            tally = Tally(connection)
            await tally.prepare({job.asker_id for job, _, _ in asked})
            answers: list[Job | Exception] = []
            for job, admit, budgets in asked:
                if job.id in there:
                    answers.append(job)
                    continue
                load = await tally.load(job.asker_id, clip=taken(job), now=job.created_at)
                load = replace(load, spent=await tally.spent(job, budgets))
                try:
                    admit(load)
                except Exception as refusal:  # noqa: BLE001 - it is raised to its asker
                    answers.append(refusal)
                else:
                    answers.append(job)
                    tally.admit(job)
            if new := [job for job in answers if isinstance(job, Job) and job.id not in there]:
                await _record(connection, new)
            return answers

        try:
            return await self._write(work, seconds=ACCEPT_SECONDS)
        except Exception as error:  # noqa: BLE001 - it is raised to whose it is
            return await _one_by_one(self._add_all, asked, error)

    async def _move_all(self, moves: Sequence[Move]) -> list[Job | Exception | None]:
        """The moves that came at the same moment, in one transaction. None: someone else moved that job first."""

        async def work(connection: AsyncConnection) -> list[Job | Exception | None]:
            return [*await self._save(connection, moves)]

        try:
            saved = await self._write(work)
        except Exception as error:  # noqa: BLE001 - it is raised to whose it is
            return await _one_by_one(self._move_all, moves, error)
        for (_, _, outcome), answer in zip(moves, saved, strict=True):
            if answer is not None:
                reach("store.committed", type(outcome).__name__)
        return saved

    async def _save(self, connection: AsyncConnection, moves: Sequence[Move]) -> list[Job | None]:
        """Write moves, each with its event and its money. The jobs as they are now; None for one that someone else
        moved first: nothing of it was written."""
        asked: dict[str, Move] = {}
        together: defaultdict[tuple[Any, ...], list[dict[str, Any]]] = defaultdict(list)
        for job, moved, outcome in moves:
            # Of two at the same moment, the one that has seen more, for the other is stale; of two alike, the first.
            if job.id not in asked or asked[job.id][0].version < job.version:
                asked[job.id] = job, moved, outcome
        for job_id in sorted(asked):
            job, moved, outcome = asked[job_id]
            # Most fields are the very same object: `moved` is a copy of the job, its fields in the same order.
            was, now = vars(job), vars(moved)
            replaced = compress(was, map(is_not, was.values(), now.values()))
            changed = {name: now[name] for name in replaced if now[name] != was[name]}
            guard = {"b_id": job.id, "b_state": job.state, "b_version": job.version}
            together[tuple(changed), job.state, moved.state, type(outcome)].append(changed | guard)
        change = self._change_at_once if self._postgresql else self._change
        saved: set[str] = set()
        for (columns, *_), rows in together.items():
            saved.update(await change(connection, columns, rows, [asked[row["b_id"]] for row in rows]))
        for job_id in saved:
            reach("store.uncommitted", type(asked[job_id][2]).__name__)
        if any(asked[job_id][1].state is State.QUEUED for job_id in saved):
            await self._notify(connection)
        return [moved if job.id in saved and asked[job.id][1] is moved else None for job, moved, _ in moves]

    async def _change(
        self,
        connection: AsyncConnection,
        columns: tuple[str, ...],
        rows: Sequence[dict[str, Any]],
        moves: Sequence[Move],
    ) -> Collection[str]:
        """Write these columns of the rows that are as they were seen, with the events and the money of their moves, all
        along the same arrow. Their ids."""
        # An update of many does not tell which there were; but nobody else writes before this is over.
        seen = await connection.execute(_as_they_are(), {"ids": [row["b_id"] for row in rows]})
        as_seen = {tuple(row) for row in seen}
        rows = [row for row in rows if (row["b_id"], row["b_state"], row["b_version"]) in as_seen]
        saved = {row["b_id"] for row in rows}
        if rows:
            await connection.execute(_guarded(columns), rows)
            written = [move for move in moves if move[0].id in saved]
            await connection.execute(insert(events), _happened(written))
            if money := _money(written):
                await connection.execute(insert(ledger), money)
        return saved

    async def _change_at_once(
        self,
        connection: AsyncConnection,
        columns: tuple[str, ...],
        rows: Sequence[dict[str, Any]],
        moves: Sequence[Move],
    ) -> Collection[str]:
        """As `_change`, in one statement of PostgreSQL."""
        # Mostly in the order of ids, so that two processes hardly ever wait for each other; if so, one does it again.
        job, moved, outcome = moves[0]
        own = tuple(name for name in columns if name not in ALIKE)
        parameters: dict[str, Any] = by_column((*GUARD, *own), rows)
        parameters |= {"from_state": job.state, "to_state": moved.state, "outcome": type(outcome).__name__}
        if money := _money(moves):
            parameters |= by_column(WRITTEN[ledger], money, prefix=ledger.name)
        statement = _guarded_rows(own, pays=bool(money))
        return set((await connection.execute(statement, parameters)).scalars())

    async def _cards_gone(self, job_ids: Sequence[str]) -> list[None]:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(_without_card(), {"ids": sorted(job_ids)})

        await self._write(work, seconds=ACCEPT_SECONDS)
        return [None] * len(job_ids)

    async def _places_of(self, asked: Sequence[Job]) -> list[int | Exception]:
        """Where these jobs stand, each in its route's line: those that came at the same moment, in one look."""
        places: dict[str, int] = {}
        async with self._reads.connect() as connection:
            for route in {job.route for job in asked}:
                ids = sorted({job.id for job in asked if job.route == route})
                rows = await connection.execute(_places(), {"route": route, "also": ids})
                places |= dict(rows.all())
        return [places.get(job.id, 1) for job in asked]


# What is asked all the time is put together once.


@cache
def _that() -> Select[Any]:
    """The job `job_id`."""
    return select(jobs).where(jobs.c.id == bindparam("job_id"))


@cache
def _those() -> Select[Any]:
    """The jobs `ids`."""
    return select(jobs).where(among(jobs.c.id, "ids"))


@cache
def _as_they_are() -> Select[Any]:
    """Ids, states and versions of the jobs `ids`."""
    return select(jobs.c.id, jobs.c.state, jobs.c.version).where(among(jobs.c.id, "ids"))


@cache
def _as_looked_at() -> Select[Any]:
    """What tells whether the jobs `ids` have changed: every move counts up the version, unsealing alone does not."""
    return select(jobs.c.id, jobs.c.version, jobs.c.sealed).where(among(jobs.c.id, "ids"))


@cache
def _without_card() -> Update:
    """The update that takes the cards off the jobs `ids`, all of them delivered, which is for good."""
    # Said as HAS_CARD_LEFT, PostgreSQL would go through all that had one lately.
    return update(jobs).where(among(jobs.c.id, "ids")).values(card_id=None)


GUARD = {"b_id": jobs.c.id, "b_state": jobs.c.state, "b_version": jobs.c.version}
ALIKE = ("state", "version")  # what moves along the same arrow change alike


@cache
def _guarded_rows(changing: tuple[str, ...], *, pays: bool) -> Select[Any]:
    """The update of these columns, and of those that are ALIKE, in the rows that are as they were seen, with the events of
    `outcome` and, where it `pays`, the given rows of the ledger: one statement that returns their ids (PostgreSQL)."""
    from_state, to_state = (bindparam(name, type_=jobs.c.state.type) for name in ("from_state", "to_state"))
    # With the states among them, though they are all `from_state`: of that alone, PostgreSQL would go through all in it.
    given = given_rows(GUARD | {name: jobs.c[name] for name in changing})
    moved = (
        update(jobs)
        .where(*(column == given.c[name] for name, column in GUARD.items()))
        .values(
            {name: given.c[name] for name in changing} | {"state": to_state, "version": jobs.c.version + 1}
        )
        .returning(jobs.c.id, jobs.c.changed_at, jobs.c.state, jobs.c.cause)
        .cte("moved")
    )
    outcome = bindparam("outcome", type_=events.c.outcome.type)
    event = {
        "job_id": moved.c.id,
        "at": moved.c.changed_at,
        "outcome": outcome,
        "from_state": from_state,
        "to_state": moved.c.state,
        "cause": moved.c.cause,
    }
    happened = insert(events).from_select(list(event), select(*event.values())).cte("new_events")
    ids = select(moved.c.id)
    query = ids.add_cte(happened)
    return query.add_cte(_new_rows(ledger, of=ids)) if pays else query


@cache
def _new(*tables: Table) -> Select[Any]:
    """The rows given for these tables are written, in one statement (PostgreSQL)."""
    return select(literal(True)).add_cte(*(_new_rows(table) for table in tables))


def _new_rows(table: Table, *, of: Select[Any] | None = None) -> CTE:
    """What writes the rows given for a table, `of` these jobs."""
    names = WRITTEN[table]
    given = given_rows({name: table.c[name] for name in names}, prefix=table.name)
    rows = select(*given.c)
    if of is not None:
        rows = rows.where(given.c.job_id.in_(of))
    return insert(table).from_select(names, rows).cte(f"new_{table.name}")


@cache
def _guarded(changing: tuple[str, ...]) -> Update:
    """The update of these columns in one row that is as it was seen; by name, for many rows."""
    return (
        update(jobs)
        .where(*(column == bindparam(name) for name, column in GUARD.items()))
        .values({name: bindparam(name) for name in changing})
    )


_LOCK = select(func.pg_advisory_xact_lock(bindparam("key", type_=BigInteger())))
_NOTIFY = select(func.pg_notify(CHANNEL, bindparam("job_id", type_=Text())))
_ROUTE = bindparam("route", type_=jobs.c.route.type)


def _free() -> ColumnElement[int]:
    """How many of the `slots` of `route` nobody holds."""
    held = _holds_a_slot(bindparam("held_since", type_=Utc()))
    busy = select(func.count()).where(IS_OPEN, jobs.c.route == _ROUTE, held)
    return bindparam("slots", type_=Integer()) - busy.scalar_subquery()


@cache
def _first_in_line() -> Select[Any]:
    """The jobs that wait for `route`, the next one first, `most` of them."""
    line = _line(_ROUTE)
    first = select(jobs).join(line, line.c.id == jobs.c.id)
    return first.order_by(line.c.turn, line.c.created_at, line.c.id).limit(bindparam("most", type_=Integer()))


@cache
def _places() -> Select[Any]:
    """Of the jobs `also`, which wait for `route` or soon will: their ids and places."""
    line = _line(_ROUTE, also="also")
    order = (line.c.turn, line.c.created_at, line.c.id)
    ranked = select(line.c.id, func.row_number().over(order_by=order).label("place")).subquery()
    return select(ranked.c.id, ranked.c.place).where(among(ranked.c.id, "also"))


@cache
def _in_states(states: frozenset[State]) -> Select[Any]:
    """All jobs in these states, oldest first."""
    query = select(jobs).where(jobs.c.state.in_(sorted(states)))
    if OPEN.issuperset(states):
        query = query.where(IS_OPEN)  # the index holds no others
    return query.order_by(jobs.c.created_at, jobs.c.id)


@cache
def _owned() -> Select[Any]:
    """The ids of the jobs that render or are posted under `worker`."""
    states = jobs.c.state.in_((State.RENDERING, State.POSTING))
    return select(jobs.c.id).where(IS_OPEN, jobs.c.worker == bindparam("worker"), states)


@cache
def _card_left() -> Select[Any]:
    """Jobs delivered `since` then that have a card, oldest first."""
    lately = jobs.c.changed_at > bindparam("since", type_=Utc())
    return select(jobs).where(HAS_CARD_LEFT, lately).order_by(jobs.c.changed_at).limit(MOST_AT_ONCE)


@cache
def _beats(database_clock: bool) -> Update:
    """`worker` lives at this moment: at `now`, unless the database has the clock that counts."""
    at = func.now() if database_clock else bindparam("now", type_=Utc())
    return update(workers).where(workers.c.id == bindparam("worker")).values(beat_at=at)


@cache
def _an_orphan() -> Select[Any]:
    """Whether there is any that `worker` may take over, when all are dead that have not beaten `since`."""
    since = bindparam("since", type_=Utc())
    return select(jobs.c.id).where(_is_orphan(bindparam("worker"), since)).limit(1)


@cache
def _a_forgotten_worker() -> Select[Any]:
    return select(workers.c.id).where(_is_forgotten(bindparam("since", type_=Utc()))).limit(1)


@lru_cache(maxsize=32)
def _noted_under(prefix: str) -> Select[Any]:
    return select(notes.c.key, notes.c.value).where(notes.c.key.startswith(prefix, autoescape=True))


@cache
def _decided() -> Select[Any]:
    """What the server `guild_id` has decided, and since when it is paused."""
    return select(guilds.c.settings, guilds.c.paused_at).where(guilds.c.guild_id == bindparam("guild_id"))


@cache
def _paused_among() -> Select[Any]:
    """Those of the servers `guild_ids` that are paused."""
    some = guilds.c.guild_id.in_(bindparam("guild_ids", expanding=True))
    return select(guilds.c.guild_id).where(IS_PAUSED, some)


@cache
def _may_begin() -> Select[Any]:
    """Whether anybody waits for `route`, and one of its `slots` is free."""
    waiting = select(jobs.c.id).where(IS_OPEN, jobs.c.state == State.QUEUED, jobs.c.route == _ROUTE)
    return waiting.where(_free() > 0).limit(1)


@cache
def _next_in_line() -> Select[Any]:
    """The waiting jobs for the free `slots` of `route` at `now`, `most` at a time.

    They may have been called off before their rows were locked: what they are then is what is returned.
    """
    most = bindparam("most", type_=Integer())
    free = select(_free().label("slots")).cte("free").prefix_with("MATERIALIZED")
    line = _line(_ROUTE, bindparam("now", type_=Utc()))
    first = (
        select(line.c.id)
        .order_by(line.c.turn, line.c.created_at, line.c.id)
        .limit(
            select(case((free.c.slots <= 0, 0), (free.c.slots > most, most), else_=free.c.slots))
            .select_from(free)
            .scalar_subquery()
        )
        .cte("first")
        .prefix_with("MATERIALIZED")  # else PostgreSQL may go through it once for each that waits
    )
    waiting = select(jobs).join(first, first.c.id == jobs.c.id).order_by(jobs.c.created_at)
    return waiting.with_for_update(skip_locked=True, of=jobs)


async def _one_by_one(
    work: Callable[[Sequence[T]], Awaitable[list[R]]], items: Sequence[T], error: Exception
) -> list[R | Exception]:
    """One of them broke a constraint, or cannot be written, and the transaction with it: each alone says which.

    Raises the error where it is nobody's own: the database was away.
    """
    if _may_pass(error):
        raise error
    if len(items) == 1:
        return [error]
    return [answer for item in items for answer in await work([item])]


def _between(table: Table, after: str | None, last: str | None) -> Select[Any]:
    """What belongs to the jobs after this one, up to and with that one, in the order it was written."""
    query = select(table).order_by(table.c.job_id, table.c.id)
    if after is not None:
        query = query.where(table.c.job_id > after)
    return query if last is None else query.where(table.c.job_id <= last)


def _happened(moves: Iterable[tuple[Job | None, Job, Outcome | None]]) -> list[dict[str, Any]]:
    """The events of moves."""
    return [
        {
            "job_id": after.id,
            "at": after.changed_at,
            "outcome": type(outcome).__name__ if outcome else REQUESTED,
            "from_state": before.state if before else None,
            "to_state": after.state,
            "cause": after.cause,
        }
        for before, after, outcome in moves
    ]


def _money(moves: Iterable[tuple[Job | None, Job, Outcome | None]]) -> list[dict[str, Any]]:
    """What moves write into the ledger, if anything."""
    return [
        {
            "job_id": after.id,
            "at": after.changed_at,
            "kind": entry.kind,
            "cents": entry.cents,
            "asker_id": after.asker_id,
            "guild_id": after.guild_id,
            "channel_id": after.counted_in,
            "model": after.model,
            # What settles an earlier reservation belongs to its month, not to that of the one made with it.
            "reserved_at": of.reserved_at or of.created_at,
        }
        for before, after, outcome in moves
        for entry in entries(before, after, outcome)
        for of in (after if before is None or entry.kind is Kind.RESERVE else before,)
    ]


async def _record(connection: AsyncConnection, new: Sequence[Job]) -> None:
    """Write new jobs, each with its first event and its reservation."""
    moves = [(None, job, None) for job in new]
    rows = {jobs: [vars(job) for job in new], events: _happened(moves), ledger: _money(moves)}
    if connection.dialect.name == "postgresql":
        parameters: dict[str, list[Any]] = {}
        for table, some in rows.items():
            parameters |= by_column(WRITTEN[table], some, prefix=table.name)
        await connection.execute(_new(*rows), parameters)
    else:
        for table, some in rows.items():
            await connection.execute(insert(table), some)


def _is_orphan(
    worker: str | BindParameter[str], since: datetime | BindParameter[datetime]
) -> ColumnElement[bool]:
    """Open jobs that were handed back, or whose worker, not this one, has not beaten since then."""
    alive = select(workers.c.id).where(workers.c.beat_at > since)
    gone = jobs.c.worker.not_in(alive) & (jobs.c.worker != worker)
    return and_(IS_OPEN, jobs.c.state.in_(OWNED), or_(jobs.c.worker.is_(None), gone))


def _is_forgotten(since: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    """Workers that own nothing, and have not beaten since then. Whose a doubt or a waiting job once was says nothing."""
    owners = select(jobs.c.worker).where(IS_OPEN, jobs.c.state.in_(OWNED), jobs.c.worker.is_not(None))
    return and_(workers.c.beat_at <= since, workers.c.id.not_in(owners))


def _holds_a_slot(since: BindParameter[datetime]) -> ColumnElement[bool]:
    return or_(
        jobs.c.state.in_((State.PREPARING, State.SUBMITTING)),
        (jobs.c.state == State.RENDERING) & (jobs.c.submitted_at > since),
    )


def _line(
    route: BindParameter[str],
    now: BindParameter[datetime] | None = None,
    *,
    also: str | None = None,
) -> Subquery:
    """Who waits for a route and whose turn it is: a member's first waiting job counts after those running.

    With `now`, without the jobs that were told to wait longer or are paused; `also` some that will wait soon.
    """
    waits: tuple[Any, ...] = (IS_OPEN, jobs.c.state == State.QUEUED, jobs.c.route == route)
    if also is not None:  # by two indexes: with OR, SQLite would go through all open jobs
        waits = (
            jobs.c.id.in_(
                select(jobs.c.id).where(*waits).union(select(jobs.c.id).where(among(jobs.c.id, also)))
            ),
        )
    # Of the thousands that may be running only those of people who wait are counted, by jobs_open_by_asker.
    asking = select(jobs.c.asker_id).where(*waits).distinct().subquery()
    running = (
        select(asking.c.asker_id, func.count().label("running"))
        .join(jobs, jobs.c.asker_id == asking.c.asker_id)
        .where(IS_OPEN, jobs.c.route == route, jobs.c.state.in_(RUNNING))
        .group_by(asking.c.asker_id)
        .cte("running")
        .prefix_with("MATERIALIZED")  # whatever the planner believes of a table that grew a minute ago
    )
    own = func.row_number().over(partition_by=jobs.c.asker_id, order_by=(jobs.c.created_at, jobs.c.id))
    turn = (func.coalesce(running.c.running, 0) + own).label("turn")
    query: Select[Any] = (
        select(jobs.c.id, jobs.c.created_at, turn)
        .outerjoin(running, running.c.asker_id == jobs.c.asker_id)
        .where(*waits)
    )
    if now is not None:
        here = select(guilds.c.guild_id).where(IS_PAUSED, guilds.c.guild_id == jobs.c.guild_id)
        query = query.where(
            or_(jobs.c.not_before.is_(None), jobs.c.not_before <= now),
            ~here.correlate(jobs).exists(),
            ~_PAUSED_EVERYWHERE.exists(),
        )
    return query.subquery()


# PostgreSQL: serialization failure, deadlock; a standby that does not write yet; a lock that was not to be had
AGAIN = {"40001", "40P01", "25006", "55P03"}
AWAY = ("08", "53", "57")  # classes: no connection, no resources (disk, memory, connections), shut down


def _committed(work: Callable[..., object]) -> None:
    """A fail point behind every transaction there is, by the name of the function that wrote it."""
    reach("store.committed", getattr(work, "__qualname__", "").partition(".<locals>")[0])


async def _again_and_again(ask: Callable[[], Awaitable[T]], *, seconds: float | None = None) -> T:
    """Ask once more while what is wrong may pass: for so long, or for ever."""
    began = time.monotonic()
    try:
        return await ask()  # mostly
    except Exception as error:
        left = None if seconds is None else seconds - (time.monotonic() - began)
        if not _may_pass(error) or (left is not None and left <= 0):
            raise
    answers: list[T] = []
    async for attempt in stamina.retry_context(
        on=_may_pass, attempts=None, timeout=left, wait_initial=0.02, wait_max=2.0, wait_jitter=0.1
    ):
        with attempt:
            answers.append(await ask())
    return answers[0]


def _may_pass(error: Exception) -> bool:
    """The database was away, or asks for the transaction again."""
    if isinstance(error, DBAPIError):
        code = getattr(error.orig, "sqlstate", None) or getattr(error.orig, "pgcode", None)
        closing = isinstance(error.orig, AsyncAdapt_asyncpg_dbapi.InternalClientError)
        known = closing or isinstance(error, OperationalError | InterfaceError)
        return known or error.connection_invalidated or code in AGAIN or str(code)[:2] in AWAY
    return isinstance(error, OSError | PoolTimeoutError)


def job_of(row: Row[Any]) -> Job:
    """A row that begins with those of `jobs`, as the machine knows it."""
    values = dict(zip(IN_ROWS, row, strict=False))  # many thousand at a start: much faster than by mappings
    values["state"] = State(values["state"])
    values["charge"] = Charge(values["charge"])
    values["lineage"] = Lineage(values["lineage"]) if values["lineage"] else None
    values["cause"] = Cause(values["cause"]) if values["cause"] else None
    return Job.made(values)


@asynccontextmanager
async def open_store(
    url: str, *, database_clock: bool = True, read_only: bool = False
) -> AsyncIterator[Store]:
    """Open the database named by a SQLAlchemy URL, bring its schema up to date, and close it at the end.

    `database_clock` False lets the given times decide on PostgreSQL too who is alive: for virtual time.
    `read_only`: nothing is made or written. Raises SchemaDiffers, or FileNotFoundError on SQLite.

    The folder of an SQLite file is made when it is missing.
    """
    options: dict[str, Any] = {
        "pool_size": CONNECTIONS,
        "max_overflow": 0,
        "hide_parameters": True,
        "pool_use_lifo": True,
    }
    if make_url(url).get_backend_name() == "sqlite":
        engine = sqlite_engine(url, read_only=read_only, **options)
    else:
        # A process that falls asleep in a transaction must not keep its locks from all others.
        limits = {"server_settings": {"idle_in_transaction_session_timeout": str(MOST_IDLE_MS)}}
        # Each statement for itself, unless a transaction is asked for: half the round trips, for the ping as well.
        engine = create_async_engine(
            url, pool_pre_ping=True, isolation_level="AUTOCOMMIT", connect_args=limits, **options
        )
        if read_only:
            engine = engine.execution_options(postgresql_readonly=True)
    try:
        if read_only:
            store = Store(engine, database_clock=database_clock)
            async with store.reading() as connection:
                await connection.run_sync(_require_head)
            yield store
            return
        async with _writing(engine).begin() as connection:
            if engine.dialect.name == "postgresql":  # two processes may start at once
                await connection.execute(select(func.pg_advisory_xact_lock(ADMISSION_LOCK)))
            await connection.run_sync(_migrate)
        reach("store.migrated")
        store = Store(engine, database_clock=database_clock)
        try:
            yield store
        finally:
            await store.close()
    finally:
        await engine.dispose()


def _writing(engine: AsyncEngine) -> AsyncEngine:
    """For transactions; on SQLite, all are made for writing unless they say otherwise."""
    on_postgresql = engine.dialect.name == "postgresql"
    return engine.execution_options(isolation_level="READ COMMITTED") if on_postgresql else engine


def _migrate(connection: Connection) -> None:
    if _revision(connection) != _head():
        config = _alembic()
        config.attributes["connection"] = connection
        command.upgrade(config, "head")


def _require_head(connection: Connection) -> None:
    if (theirs := _revision(connection)) != _head():
        raise SchemaDiffers(theirs)


def _revision(connection: Connection) -> str | None:
    """Of the schema that the database has."""
    return MigrationContext.configure(connection).get_current_revision()


@cache
def _head() -> str | None:
    """Of the newest schema that this program knows. Every migration is read for it."""
    return ScriptDirectory.from_config(_alembic()).get_current_head()


def _alembic() -> AlembicConfig:
    config = AlembicConfig()
    config.set_main_option("script_location", "bot:migrations")
    return config
