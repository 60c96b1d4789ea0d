"""A disk that is nearly full: nothing more is paid for, and what was paid waits."""

import pytest
from structlog.testing import capture_logs

from bot.jobs import engine
from bot.jobs.machine import State
from tests.jobs.world import World

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


async def test_without_room_for_a_clip_nothing_is_begun(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The line waits, and goes on when there is room again."""
    job = await world.ask()
    with monkeypatch.context() as full:
        full.setattr(engine, "LEAST_FREE", 1 << 62)
        await world.engine.run_due()
        waiting = await world.now(job)
    assert (waiting.state, waiting.attempt) == (State.QUEUED, 0)
    assert world.provider.submits == []

    await world.engine.run_due()

    assert (await world.now(job)).state is State.RENDERING


async def test_without_room_a_clip_that_is_ready_waits(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is not downloaded, and not given up; it is posted when there is room again."""
    job = await world.ask()
    await world.engine.run_due()
    with monkeypatch.context() as full:
        full.setattr(engine, "LEAST_FREE", 1 << 62)
        for _ in range(10):
            world.clock.pass_by(minutes=5)
            await world.engine.run_due()
    assert (await world.now(job)).state is State.POSTING
    assert world.provider.fetches == []

    world.clock.pass_by(minutes=5)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.DELIVERED


async def test_the_owner_reads_once_that_the_disk_is_full(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And once that it is not any more."""
    with capture_logs() as logs:
        for least in (1 << 62, 1 << 62, 0, 0):
            monkeypatch.setattr(engine, "LEAST_FREE", least)
            await world.engine.run_due()

    told = [(line["event"], line["log_level"]) for line in logs if "disk" in line["event"]]
    assert told == [("disk_nearly_full", "error"), ("disk_has_room", "info")]
