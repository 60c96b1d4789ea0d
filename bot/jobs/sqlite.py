"""How an SQLite file is opened: one writer at a time, no lost commit at a power cut, few trips to its thread.

aiosqlite gives each connection a thread. SQLAlchemy goes there four times for a statement: for a cursor, for the statement,
for its rows, to close. Here it goes once, as long as there are few rows. A transaction begins with its first statement, in
the same trip, and nothing is rolled back where none was begun.
"""

import sqlite3
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from datetime import timedelta
from functools import partial
from pathlib import Path
from typing import Any, Self

import aiosqlite
from sqlalchemy import Connection, event
from sqlalchemy.ext.asyncio import AsyncEngine, create_async_engine

BUSY_TIMEOUT = timedelta(seconds=5)
AHEAD = 500  # rows that come along with the answer; the others are fetched when they are asked for


def sqlite_engine(url: str, *, read_only: bool, **options: Any) -> AsyncEngine:
    """The file's folder is made when it is missing. Raises FileNotFoundError for one that is not there, `read_only`."""
    engine = create_async_engine(url, connect_args={"async_creator_fn": _connect}, **options)
    _find_file(engine.url.database, read_only=read_only)
    _prepare(engine, read_only=read_only)
    return engine


def _find_file(database: str | None, *, read_only: bool) -> None:
    if not database or database == ":memory:":
        return
    if read_only:
        Path(database).stat()
    else:
        Path(database).parent.mkdir(parents=True, exist_ok=True)


def _prepare(engine: AsyncEngine, *, read_only: bool) -> None:
    """WAL, synchronous commits, and BEGIN IMMEDIATE for all that writes."""

    @event.listens_for(engine.sync_engine, "connect")
    def on_connect(connection: Any, _record: Any) -> None:  # Any: the driver's own connection
        connection.isolation_level = None
        cursor = connection.cursor()
        cursor.execute("PRAGMA journal_mode = WAL")
        cursor.execute("PRAGMA synchronous = FULL")
        cursor.execute("PRAGMA foreign_keys = ON")
        cursor.execute(f"PRAGMA query_only = {'ON' if read_only else 'OFF'}")
        cursor.execute(f"PRAGMA busy_timeout = {BUSY_TIMEOUT // timedelta(milliseconds=1)}")
        cursor.close()

    @event.listens_for(engine.sync_engine, "begin")
    def on_begin(connection: Connection) -> None:
        begins = connection.get_execution_options().get("animatic_begins", "BEGIN IMMEDIATE")
        connection.connection.driver_connection.begin(begins)  # type: ignore[union-attr]  # it is open


class _Cursor(aiosqlite.Cursor):
    """Runs a statement, brings its first rows, and is closed if these were all: in one trip."""

    def __init__(self, connection: aiosqlite.Connection) -> None:
        self._open: sqlite3.Cursor | None = None  # while rows are left behind
        self._ahead: deque[Any] = deque()
        super().__init__(connection, None)  # type: ignore[arg-type]  # there is none before the first statement

    async def execute(self, sql: str, parameters: Iterable[Any] | None = None) -> Self:
        return await self._go(sqlite3.Cursor.execute, sql, parameters or ())

    async def executemany(self, sql: str, parameters: Iterable[Iterable[Any]]) -> Self:
        return await self._go(sqlite3.Cursor.executemany, sql, parameters)

    async def _go(self, how: Any, sql: str, parameters: Any) -> Self:  # Any: as sqlite3.Cursor has it
        assert isinstance(self._conn, _Connection)
        await self._execute(self._run, self._conn.begins_with(), how, sql, parameters)  # type: ignore[no-untyped-call]
        return self

    def _run(self, begins: str | None, how: Any, sql: str, parameters: Any) -> None:
        """In the connection's thread."""
        self._cursor = cursor = self._conn._conn.cursor()  # noqa: SLF001
        try:
            if begins:
                self._begin(cursor, begins)
            how(cursor, sql, parameters)
            if cursor.description:
                self._ahead.extend(cursor.fetchmany(AHEAD))
        except BaseException:
            cursor.close()
            raise
        if len(self._ahead) == AHEAD:
            self._open = cursor
        else:
            cursor.close()

    def _begin(self, cursor: sqlite3.Cursor, begins: str) -> None:
        try:
            cursor.execute(begins)
        except BaseException:  # whatever comes next in this transaction is not to stand for itself
            assert isinstance(self._conn, _Connection)
            self._conn.begin(begins)
            raise

    async def fetchmany(self, size: int | None = None) -> list[Any]:
        wanted = self.arraysize if size is None else size
        rows = [self._ahead.popleft() for _ in range(min(wanted, len(self._ahead)))]
        if self._open and len(rows) < wanted:
            rows += await super().fetchmany(wanted - len(rows))
        return rows

    async def fetchone(self) -> Any:
        return next(iter(await self.fetchmany(1)), None)

    async def fetchall(self) -> list[Any]:
        rows = [*self._ahead, *(await super().fetchall() if self._open else ())]
        self._ahead.clear()
        return rows

    async def close(self) -> None:
        self._ahead.clear()
        if self._open:
            self._open = None
            await super().close()


class _Connection(aiosqlite.Connection):
    _begins: str | None = None  # with the next statement
    _begun = False  # perhaps

    def begin(self, how: str | None) -> None:
        """A transaction begins with the next statement; None: each statement stands for itself."""
        self._begins = how

    def begins_with(self) -> str | None:
        """What a statement begins with that runs now."""
        begins, self._begins = self._begins, None
        self._begun = self._begun or begins is not None
        return begins

    async def commit(self) -> None:
        await self._end(super().commit)

    async def rollback(self) -> None:
        await self._end(super().rollback)

    async def _end(self, how: Callable[[], Awaitable[None]]) -> None:
        self._begins = None
        if self._begun:  # also where its first statement is still under way: this comes after it
            await how()
            self._begun = False

    def cursor(self) -> _Cursor:  # type: ignore[override]  # SQLAlchemy enters it, and that is all it does with it
        return _Cursor(self)


def _connect(database: str, **options: Any) -> _Connection:
    """As `aiosqlite.connect`, in a thread that does not keep the process alive, as SQLAlchemy would have it."""
    connection = _Connection(partial(sqlite3.connect, database, **options), iter_chunk_size=64)
    connection._thread.daemon = True  # noqa: SLF001
    return connection
