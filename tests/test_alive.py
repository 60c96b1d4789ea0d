"""The file by which a container's health check sees that the bot works."""

import asyncio
import os
from pathlib import Path

import pytest

from bot.__main__ import keep_alive_file
from bot.jobs.engine import Engine
from bot.jobs.store import Store
from tests.conftest import Clock
from tests.jobs.world import make_world

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


class RestingError(Exception):
    """Raised where it would rest."""


async def one_round(path: Path, engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    async def rest(_seconds: float) -> None:
        raise RestingError

    with monkeypatch.context() as patch:
        patch.setattr(asyncio, "sleep", rest)
        with pytest.raises(RestingError):
            await keep_alive_file(path, engine)


async def test_the_file_is_touched_only_while_the_heartbeat_reaches_the_database(
    store: Store, clock: Clock, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also before the first one, for that takes a moment, and no more when the last one is old: the file grows old as well."""
    engine, path = make_world(store, clock, tmp_path / "clips").engine, tmp_path / "data" / "alive"
    await one_round(path, engine, monkeypatch)
    assert path.exists()

    await engine.run_due()
    await one_round(path, engine, monkeypatch)
    os.utime(path, (0, 0))
    await one_round(path, engine, monkeypatch)
    assert path.stat().st_mtime > 0

    os.utime(path, (0, 0))
    clock.pass_by(minutes=1)
    await one_round(path, engine, monkeypatch)

    assert path.stat().st_mtime == 0
