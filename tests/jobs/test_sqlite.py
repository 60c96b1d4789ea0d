"""SQLite through aiosqlite: one trip to its thread for a statement, and rows that do not all come at once."""

import asyncio
import sqlite3
from collections.abc import AsyncIterator, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import aiosqlite
import pytest
from sqlalchemy import event, select, text
from sqlalchemy.exc import IntegrityError, OperationalError
from sqlalchemy.ext.asyncio import AsyncEngine

from bot.jobs import sqlite, store
from bot.jobs.desk import Who
from bot.jobs.machine import State
from bot.jobs.sqlite import AHEAD, sqlite_engine
from bot.jobs.store import open_store
from bot.jobs.tables import jobs
from tests.conftest import new_sqlite
from tests.jobs.world import World

MANY = AHEAD * 3 + 1
NOW = datetime(2026, 6, 1, tzinfo=UTC)
NUMBERS = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < {}) SELECT i FROM n"


@pytest.fixture
async def engine(tmp_path: Path) -> AsyncIterator[AsyncEngine]:
    engine = sqlite_engine(f"sqlite+aiosqlite:///{tmp_path / 'new' / 'some.db'}", read_only=False)
    async with engine.begin() as connection:
        await connection.execute(text("CREATE TABLE things (id INTEGER PRIMARY KEY, name TEXT UNIQUE)"))
    yield engine
    await engine.dispose()


@pytest.fixture
def trips(monkeypatch: pytest.MonkeyPatch) -> list[Any]:
    """What is done in the threads of connections, from now on."""
    made: list[Any] = []
    execute = aiosqlite.Connection._execute

    async def noting(self: aiosqlite.Connection, what: Callable[..., Any], *given: Any, **named: Any) -> Any:
        made.append(what)
        return await execute(self, what, *given, **named)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(aiosqlite.Connection, "_execute", noting)
    return made


@pytest.mark.parametrize("rows", [0, 1, AHEAD - 1])
async def test_a_statement_is_one_trip(engine: AsyncEngine, trips: list[Any], rows: int) -> None:
    """Cursor, statement, rows and close: all of it at once, where there are few rows."""
    async with engine.connect() as connection:
        await connection.execute(text("SELECT 1"))
        trips.clear()

        found = (await connection.execute(text(f"{NUMBERS.format(max(rows, 1))} LIMIT {rows}"))).all()

        assert len(found) == rows
        assert len(trips) == 1
        await connection.execute(
            text("INSERT INTO things (name) VALUES (:name)"), [{"name": n} for n in "abc"]
        )
        assert len(trips) == 2


async def test_a_transaction_begins_with_its_first_statement(engine: AsyncEngine, trips: list[Any]) -> None:
    """And ends in one more trip; what reads needs neither; where nothing was asked, there was no transaction."""
    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO things (name) VALUES ('a')"))
    assert len(trips) == 2

    async with engine.execution_options(animatic_begins=None).connect() as connection:
        assert (await connection.execute(text("SELECT name FROM things"))).scalars().all() == ["a"]
    async with engine.begin():
        pass
    assert len(trips) == 3


async def test_whoever_is_cancelled_while_beginning_holds_nobody_up(
    engine: AsyncEngine, trips: list[Any]
) -> None:
    """What the thread was at is rolled back, though nobody waits for its answer."""

    async def write_much() -> None:
        async with engine.begin() as connection:
            await connection.execute(text(f"INSERT INTO things (id) {NUMBERS.format(300_000)}"))

    writing = asyncio.create_task(write_much())
    while not trips:  # noqa: ASYNC110 - a few turns of the loop
        await asyncio.sleep(0)
    writing.cancel()
    with pytest.raises(asyncio.CancelledError):
        await writing

    async with engine.begin() as connection:
        await connection.execute(text("INSERT INTO things (name) VALUES ('a')"))
    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM things"))).scalar_one() == 1


async def test_what_could_not_begin_is_no_half_transaction(
    engine: AsyncEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file was locked when it was to begin, and is free when the next statement comes: that one begins it."""
    monkeypatch.setattr(sqlite, "BUSY_TIMEOUT", timedelta(0))
    insert = text("INSERT INTO things (name) VALUES ('a')")
    async with engine.connect() as first, engine.connect() as second:
        await first.execute(insert)
        with pytest.raises(OperationalError):
            await second.execute(insert)
        await first.rollback()

        await second.execute(insert)
        await second.rollback()

    async with engine.connect() as connection:
        assert (await connection.execute(text("SELECT count(*) FROM things"))).scalar_one() == 0


async def test_all_rows_come(engine: AsyncEngine) -> None:
    """Also those that did not come along with the first."""
    async with engine.connect() as connection:
        for number in (AHEAD, AHEAD + 1, MANY):
            found = (await connection.execute(text(NUMBERS.format(number)))).scalars().all()
            assert found == list(range(1, number + 1))


async def test_streamed_rows_are_fetched_as_they_are_read(engine: AsyncEngine) -> None:
    """Never all of them in memory; and a statement that is left half-way leaves nothing behind."""
    async with engine.connect() as connection:
        seen = []
        async with connection.stream(text(NUMBERS.format(10**9)), execution_options={"yield_per": 7}) as rows:
            async for (number,) in rows:
                seen.append(number)
                if number == MANY:
                    break
        assert seen == list(range(1, MANY + 1))
        assert (await connection.execute(text("SELECT count(*) FROM things"))).scalar_one() == 0


async def test_one_row_at_a_time(tmp_path: Path) -> None:
    """As the driver's own cursor does it."""
    async with sqlite._connect(str(tmp_path / "some.db")) as connection:
        cursor = connection.cursor()
        await cursor.execute(NUMBERS.format(AHEAD + 2))
        one = [await cursor.fetchone() for _ in range(AHEAD + 1)]
        rest = [
            await cursor.fetchone(),
            await cursor.fetchone(),
            await cursor.fetchmany(2),
            await cursor.fetchall(),
        ]
        await cursor.close()

    assert one == [(n,) for n in range(1, AHEAD + 2)]
    assert rest == [(AHEAD + 2,), None, [], []]


async def test_a_failed_statement_is_told_and_the_next_one_works(engine: AsyncEngine) -> None:
    """In SQLAlchemy's words, with the count of rows of those that succeed."""
    async with engine.begin() as connection:
        insert = text("INSERT INTO things (name) VALUES (:name)")
        await connection.execute(insert, {"name": "a"})
        with pytest.raises(IntegrityError) as raised:
            await connection.execute(insert, {"name": "a"})
        assert isinstance(raised.value.orig, sqlite3.IntegrityError)

        assert (await connection.execute(text("UPDATE things SET name = 'b'"))).rowcount == 1


async def test_a_file_that_is_not_there_is_not_made_for_reading(tmp_path: Path) -> None:
    """Whoever mistypes the path of a database is not told that all is well in an empty one."""
    with pytest.raises(FileNotFoundError):
        sqlite_engine(f"sqlite+aiosqlite:///{tmp_path / 'none.db'}", read_only=True)

    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    "statement", [store._those(), store._as_they_are(), store._without_card(), store._places()]
)
async def test_a_list_of_ids_is_looked_up_by_index(tmp_path: Path, statement: Any) -> None:
    """Never by going through all jobs: a list is a query of its own to SQLite, and only as it is does an index help."""
    some = ["a", "b"]

    planned = await plan_of(tmp_path, statement, {"ids": some, "also": some, "route": "makevid"})

    assert any(step.startswith("SEARCH jobs") for step in planned)
    assert [step for step in planned if step.startswith("SCAN jobs")] == []


@pytest.mark.parametrize(
    "statement", [store._next_in_line(), store._may_begin(), select(jobs).where(store._is_orphan("w", NOW))]
)
async def test_what_is_asked_all_the_time_looks_at_open_jobs_alone(tmp_path: Path, statement: Any) -> None:
    """The claim and the look for orphans go by an index of what is open, however many jobs have ended."""
    given = {"route": "makevid", "now": NOW, "slots": 2, "most": 5, "held_since": NOW}

    planned = await plan_of(tmp_path, statement, given)

    assert any(step.startswith("SEARCH jobs USING") and "jobs_open" in step for step in planned)
    assert [step for step in planned if step.startswith("SCAN jobs")] == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_what_has_ended_slows_nothing_down(world: World) -> None:
    """A year of clips lies in the database: no request, claim, sweep or start of a process goes through all of them."""
    through_all: dict[str, str] = {}

    def plan(_connection: Any, cursor: Any, sql: str, values: Any, _context: Any, many: bool) -> None:
        if not sql.startswith("BEGIN"):
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", values[0] if many else values)
            steps = [row[-1] for row in cursor.fetchall()]
            through_all.update((step, sql) for step in steps if step in SCANS)

    for engine in (world.store._writes, world.store._reads):
        event.listen(engine.sync_engine, "before_cursor_execute", plan)

    clips = [await world.ask(asker=number) for number in range(3)]
    for _ in range(3):
        await world.engine.run_due()
        world.clock.pass_by(hours=1)
    who = Who(id=1, channel_id=10, guild_id=1)
    clips += [await world.desk.again(who, clips[0]), await world.ask(asker=1)]
    await world.desk.cancel(who, clips[-1].id)
    for _ in range(2):
        await world.reborn().run_due()
        world.clock.pass_by(minutes=5)

    assert {(await world.now(clip)).state for clip in clips} == {State.DELIVERED, State.CANCELLED}
    assert through_all == {}


SCANS = ("SCAN jobs", "SCAN events", "SCAN ledger")


async def plan_of(folder: Path, statement: Any, given: dict[str, Any]) -> list[str]:
    """The steps by which SQLite answers a query with the given values."""
    planned: list[str] = []
    async with open_store(new_sqlite(folder / "jobs.db")) as opened, opened.reading() as connection:

        def plan(_connection: Any, cursor: Any, sql: str, values: Any, _context: Any, _many: bool) -> None:
            cursor.execute(f"EXPLAIN QUERY PLAN {sql}", values)
            planned.extend(row[-1] for row in cursor.fetchall())

        event.listen(connection.sync_connection, "before_cursor_execute", plan)
        await connection.execute(statement, given)
    return planned
