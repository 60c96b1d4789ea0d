"""What our store costs over plain statements: `python -m tests.bench.claims`.

One cycle takes k waiting jobs (transaction 1) and puts the same k back into the line (transaction 2), among
so many that are waiting. Every move is a guarded update with its event, whoever makes it:

- ours: `Store.claim` (slots counted, members in turn) and k moves asked for at once;
- plain SQLAlchemy Core, in turn: the same question (who is next, in which slots), executemany updates, executemany
  events, in the same tables; no machine, no objects, nothing gathered, nothing tried again;
- plain SQLAlchemy Core, oldest first: the k rows that an index has at its front, without slots and turns;
- the raw driver: the statements of the latter through sqlite3 (in this thread), aiosqlite, or asyncpg.
"""

import asyncio
import sqlite3
import tempfile
import time
from collections.abc import Awaitable, Callable, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiosqlite
import asyncpg
from sqlalchemy import Executable, bindparam, insert, select, update
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.jobs.machine import Busy, Job, State
from bot.jobs.store import HOLDS_SLOT, Store, _next_in_line, new_job_id, open_store
from bot.jobs.tables import IS_OPEN, events, jobs
from tests.bench import databases, free
from tests.bench.report import Table, quiet, show
from tests.bench.report import options as common

BATCHES = (1, 20, 100)
WAITING = 1_000
SECONDS, ROUNDS = 0.7, 3
AIM_AT, AIM = 20, 0.8
WORKER = "bench"

Cycle = Callable[[int], Awaitable[None]]


async def fill(store: Store, waiting: int) -> None:
    began = free.now() - timedelta(hours=1)
    rows = [
        Job(
            id=new_job_id(began + timedelta(milliseconds=n)),
            state=State.QUEUED,
            created_at=began + timedelta(milliseconds=n),
            changed_at=began,
            channel_id=1,
            asker_id=n % free.MEMBERS,
            model="free",
            route="free",
            variant="free",
            prompt="camera slowly pulls out",
            seconds=5,
            price_cents=35,
        )
        for n in range(waiting)
    ]
    async with store._writes.begin() as connection:
        await connection.execute(insert(jobs), [vars(job) for job in rows])


def ours(store: Store) -> Cycle:
    async def cycle(k: int) -> None:
        now = free.now()
        taken = await store.claim("free", slots=k, worker=WORKER, now=now, most=k)
        back = await asyncio.gather(*(store.advance(job, Busy(timedelta(0)), now) for job in taken))
        assert len(taken) == k
        assert all(back)

    return cycle


def event(job_id: str, at: Any, outcome: str, before: str, after: str) -> dict[str, Any]:
    return {"job_id": job_id, "at": at, "outcome": outcome, "from_state": before, "to_state": after}


def oldest_first(k: int) -> Executable:
    mine = select(jobs).where(IS_OPEN, jobs.c.state == State.QUEUED, jobs.c.route == "free")
    return mine.order_by(jobs.c.created_at).limit(k).with_for_update(skip_locked=True)


def in_turn(k: int) -> Executable:
    now = free.now()
    return _next_in_line().params(route="free", now=now, slots=k, most=k, held_since=now - HOLDS_SLOT)


def plain_core(engine: AsyncEngine, waiting: Callable[[int], Executable]) -> Cycle:
    guarded = update(jobs).where(jobs.c.id == bindparam("b_id"), jobs.c.version == bindparam("b_version"))
    claim = guarded.values(
        state="preparing", version=bindparam("v"), changed_at=bindparam("at"), worker=WORKER, not_before=None
    )
    put_back = guarded.values(
        state="queued",
        version=bindparam("v"),
        changed_at=bindparam("at"),
        worker=None,
        not_before=bindparam("at"),
    )

    async def cycle(k: int) -> None:
        now = free.now()
        async with engine.begin() as connection:
            found = [(row.id, row.version) for row in (await connection.execute(waiting(k))).all()]
            rows = [{"b_id": i, "b_version": v, "v": v + 1, "at": now} for i, v in found]
            await connection.execute(claim, rows)
            await connection.execute(
                insert(events), [event(i, now, "Claimed", "queued", "preparing") for i, *_ in found]
            )
        async with engine.begin() as connection:
            rows = [{"b_id": i, "b_version": v + 1, "v": v + 2, "at": now} for i, v, *_ in found]
            await connection.execute(put_back, rows)
            await connection.execute(
                insert(events), [event(i, now, "Busy", "preparing", "queued") for i, *_ in found]
            )

    return cycle


SELECT = "SELECT id, version, jobs.* FROM jobs WHERE {open} AND state = 'queued' AND route = 'free' ORDER BY created_at LIMIT "
UPDATE = (
    "UPDATE jobs SET state = {}, version = {}, changed_at = {}, worker = {} WHERE id = {} AND version = {}"
)
EVENT = "INSERT INTO events (job_id, at, outcome, from_state, to_state) VALUES ({}, {}, {}, {}, {})"

Rows = Sequence[tuple[Any, ...]]  # id, version, and the whole row


def claimed(found: Rows, at: Any) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    return (
        [("preparing", v + 1, at, WORKER, i, v) for i, v, *_ in found],
        [(i, at, "Claimed", "queued", "preparing") for i, *_ in found],
    )


def returned(found: Rows, at: Any) -> tuple[list[tuple[Any, ...]], list[tuple[Any, ...]]]:
    return (
        [("queued", v + 2, at, None, i, v + 1) for i, v, *_ in found],
        [(i, at, "Busy", "preparing", "queued") for i, *_ in found],
    )


def marks(statement: str, style: Callable[[int], str]) -> str:
    return statement.format(*(style(n) for n in range(1, statement.count("{}") + 1)))


def asyncpg_driver(pool: Any) -> Cycle:
    select_some = SELECT.format(open=IS_OPEN) + "$1 FOR UPDATE SKIP LOCKED"
    change, note = marks(UPDATE, "${}".format), marks(EVENT, "${}".format)

    async def cycle(k: int) -> None:
        now = datetime.now(UTC)
        async with pool.acquire() as connection, connection.transaction():
            found = [tuple(row) for row in await connection.fetch(select_some, k)]
            moves, notes = claimed(found, now)
            await connection.executemany(change, moves)
            await connection.executemany(note, notes)
        async with pool.acquire() as connection, connection.transaction():
            moves, notes = returned(found, now)
            await connection.executemany(change, moves)
            await connection.executemany(note, notes)

    return cycle


def _question(_n: int) -> str:
    return "?"


LITE = (SELECT.format(open=IS_OPEN) + "?", marks(UPDATE, _question), marks(EVENT, _question))
PRAGMAS = ("PRAGMA journal_mode = WAL", "PRAGMA synchronous = FULL", "PRAGMA busy_timeout = 5000")


def sqlite_driver(connection: sqlite3.Connection) -> Cycle:
    some, change, note = LITE

    async def cycle(k: int) -> None:
        now = free.now().replace(tzinfo=None).isoformat(" ")
        connection.execute("BEGIN IMMEDIATE")
        found = connection.execute(some, (k,)).fetchall()
        moves, notes = claimed(found, now)
        connection.executemany(change, moves)
        connection.executemany(note, notes)
        connection.execute("COMMIT")
        connection.execute("BEGIN IMMEDIATE")
        moves, notes = returned(found, now)
        connection.executemany(change, moves)
        connection.executemany(note, notes)
        connection.execute("COMMIT")

    return cycle


def aiosqlite_driver(connection: aiosqlite.Connection) -> Cycle:
    some, change, note = LITE

    async def cycle(k: int) -> None:
        now = free.now().replace(tzinfo=None).isoformat(" ")
        await connection.execute("BEGIN IMMEDIATE")
        found: Any = await connection.execute_fetchall(some, (k,))
        moves, notes = claimed(found, now)
        await connection.executemany(change, moves)
        await connection.executemany(note, notes)
        await connection.execute("COMMIT")
        await connection.execute("BEGIN IMMEDIATE")
        moves, notes = returned(found, now)
        await connection.executemany(change, moves)
        await connection.executemany(note, notes)
        await connection.execute("COMMIT")

    return cycle


async def rate(cycle: Cycle, k: int, seconds: float) -> float:
    """Jobs per second, taken and put back."""
    await cycle(k)
    cycles, began = 0, time.perf_counter()
    while time.perf_counter() - began < seconds:
        await cycle(k)
        cycles += 1
    return cycles * k / (time.perf_counter() - began)


async def compare(ways: dict[str, Cycle], seconds: float, rounds: int) -> dict[str, dict[int, float]]:
    """The median of some rounds, in which the ways take turns: what loads the machine loads all of them."""
    found: dict[str, dict[int, list[float]]] = {way: {k: [] for k in BATCHES} for way in ways}
    for _ in range(rounds):
        for k in BATCHES:
            for way, cycle in ways.items():
                found[way][k].append(await rate(cycle, k, seconds))
    return {way: {k: sorted(rates)[len(rates) // 2] for k, rates in by.items()} for way, by in found.items()}


async def measure(server: str, *, seconds: float, rounds: int, waiting: int) -> list[Table]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        async with open_store(f"sqlite+aiosqlite:///{path}") as store:
            await fill(store, waiting)
            raw = sqlite3.connect(path, isolation_level=None)
            async with aiosqlite.connect(path, isolation_level=None) as connection:
                for pragma in PRAGMAS:
                    raw.execute(pragma)
                    await connection.execute(pragma)
                ways = {
                    "ours": ours(store),
                    "in turn": plain_core(store._writes, in_turn),
                    "oldest first": plain_core(store._writes, oldest_first),
                    "aiosqlite": aiosqlite_driver(connection),
                    "sqlite3": sqlite_driver(raw),
                }
                sqlite = await compare(ways, seconds, rounds)
                raw.close()
    address = await databases.new_database(server)
    async with (
        open_store(databases.for_store(address)) as store,
        asyncpg.create_pool(address, min_size=1, max_size=2) as pool,
    ):
        await fill(store, waiting)
        ways = {
            "ours": ours(store),
            "in turn": plain_core(store._writes, in_turn),
            "oldest first": plain_core(store._writes, oldest_first),
            "asyncpg": asyncpg_driver(pool),
        }
        postgresql = await compare(ways, seconds, rounds)
    table = Table(
        "Jobs taken and put back per second",
        (
            "",
            "batch",
            "ours",
            "Core, in turn",
            "Core, oldest first",
            "async driver",
            "sqlite3",
            "ours ÷ Core, in turn",
            "÷ oldest first",
            "÷ driver",
            "aim",
        ),
        f"{waiting:,} jobs wait; medians of {rounds} rounds of {seconds:g} s; one process, one batch at a time",
    )
    for name, found, driver in (("SQLite", sqlite, "aiosqlite"), ("PostgreSQL", postgresql, "asyncpg")):
        for k in BATCHES:
            mine, core, front, fast = (found[way][k] for way in ("ours", "in turn", "oldest first", driver))
            direct = f"{found['sqlite3'][k]:,.0f}" if "sqlite3" in found else ""
            table.add(
                name,
                k,
                f"{mine:,.0f}",
                f"{core:,.0f}",
                f"{front:,.0f}",
                f"{fast:,.0f}",
                direct,
                f"{mine / core:.2f}",
                f"{mine / front:.2f}",
                f"{mine / fast:.2f}",
                f"≥ {AIM}" if k == AIM_AT else "",
            )
    return [table]


def main() -> None:
    parser = common(__doc__)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="of each round")
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--waiting", type=int, default=WAITING)
    asked = parser.parse_args()
    quiet()
    with databases.postgresql() as server:
        tables = asyncio.run(
            measure(server, seconds=asked.seconds, rounds=asked.rounds, waiting=asked.waiting)
        )
    show(tables, markdown=asked.markdown)


if __name__ == "__main__":
    main()
