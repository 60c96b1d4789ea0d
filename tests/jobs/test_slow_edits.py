"""Discord takes its time over an edit: work goes on beside it, and no card is left with what was true before."""

import asyncio
from collections.abc import Collection
from pathlib import Path

import pytest

from bot.errors import Cause, ProviderUnsure
from bot.jobs.announcing import Waiting
from bot.jobs.machine import Broke, Job, State
from bot.jobs.store import Store
from tests.conftest import Clock
from tests.jobs.world import World, make_engine, make_world

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

PATIENCE = 30  # seconds of the wall clock; nothing here takes as long


class SlowDrawing:
    """The next drawing of a card does not come to its end before it may."""

    def __init__(self, world: World) -> None:
        self.began, self.go_on = asyncio.Event(), asyncio.Event()
        self._draw = world.announcer.draw
        world.announcer.draw = self.draw  # type: ignore[method-assign]

    async def draw(self, job: Job, waiting: Waiting) -> None:
        if not self.began.is_set():
            self.began.set()
            await self.go_on.wait()
        await self._draw(job, waiting)


async def until(world: World, state: State, *jobs: Job) -> None:
    """Let what was begun go on, and nothing else, until these jobs are there."""
    async with asyncio.timeout(PATIENCE):
        while {(await world.now(job)).state for job in jobs} != {state}:
            pass


async def test_drawing_the_end_of_an_old_doubt_does_not_hold_up_the_loop(world: World) -> None:
    """Nobody resolved it for a day; while its card is drawn, heartbeats, claims and polls go on."""
    world.provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    await world.ask()
    await world.engine.run_due()
    world.clock.pass_by(hours=24, minutes=1)
    waiting = await world.ask(asker=3)
    slow = SlowDrawing(world)

    async with asyncio.timeout(PATIENCE):
        await world.engine._take()
    await until(world, State.RENDERING, waiting)

    assert slow.began.is_set()
    slow.go_on.set()
    await world.engine.run_due()


async def test_what_is_told_after_a_rescue_is_not_older_than_the_job(world: World) -> None:
    """A job ends while it is still being told that it was taken over: its card keeps the end."""
    job = await world.ask()
    await world.engine.run_due()
    engine = world.reborn()
    world.clock.pass_by(minutes=1)
    slow = SlowDrawing(world)

    async def broken() -> Broke:
        await slow.began.wait()
        return Broke(Cause.MODERATION, charged=False)

    world.provider.on_check.append(broken)
    await engine._take()
    await until(world, State.FAILED, job)

    slow.go_on.set()
    await engine.run_due()

    assert world.announcer.cards[job.id][0].state is State.FAILED


async def test_a_place_in_line_is_not_drawn_over_a_job_that_began(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    """Those at the head of the line were claimed while the line was being drawn."""
    world = make_world(store, clock, tmp_path / "clips")
    engine = make_engine(store, world.provider, world.announcer, clock, tmp_path / "clips", slots=0)
    jobs = [await world.ask(asker=asker) for asker in (2, 3)]
    slow = SlowDrawing(world)
    engine.wake()
    await engine._take()
    await slow.began.wait()
    engine._slots = lambda _route: 2
    await engine._take()
    await until(world, State.RENDERING, *jobs)

    slow.go_on.set()
    await engine.run_due()

    assert [world.announcer.cards[job.id][0].state for job in jobs] == [State.RENDERING] * 2


@pytest.fixture
def looks(store: Store, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """At how many jobs at a time it is looked whether they have changed."""
    changed, numbers = store.changed, list[int]()

    async def counted(seen: Collection[Job]) -> dict[str, Job | None]:
        numbers.append(len(seen))
        return await changed(seen)

    monkeypatch.setattr(store, "changed", counted)
    return numbers


async def test_what_is_taken_over_is_not_looked_at_one_by_one(
    store: Store, clock: Clock, tmp_path: Path, looks: list[int]
) -> None:
    """A process that dies with thousands of clips in the making: the next one has more to do than to read its rows again."""
    world = make_world(store, clock, tmp_path / "clips")
    engine = make_engine(store, world.provider, world.announcer, clock, tmp_path / "clips", slots=20)
    jobs = [await world.ask(asker=asker) for asker in range(1, 21)]
    await engine.run_due()
    world.clock.pass_by(minutes=1)
    reborn = world.reborn()
    rescued = await reborn._ownership.beat() and await reborn._ownership.rescue()
    assert rescued
    looks.clear()
    await reborn._tell_all(rescued)

    assert sum(looks) == len(rescued) == len(jobs)
    assert len(looks) <= 2
    assert all(world.announcer.cards[job.id][0].worker == "worker-2" for job in jobs)


async def test_what_is_told_slowly_is_looked_at_in_between(
    store: Store, clock: Clock, tmp_path: Path, looks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discord may take minutes for hundreds of cards: a clip that is done meanwhile does not wait for the last of them."""
    world = make_world(store, clock, tmp_path / "clips")
    engine = make_engine(store, world.provider, world.announcer, clock, tmp_path / "clips", slots=20)
    for asker in range(1, 10):
        await world.ask(asker=asker)
    await engine.run_due()
    clock.pass_by(minutes=1)
    reborn = world.reborn()
    draw = world.announcer.draw

    async def slowly(job: Job, waiting: Waiting) -> None:
        clock.pass_by(seconds=0.6)
        await draw(job, waiting)

    monkeypatch.setattr(world.announcer, "draw", slowly)
    rescued = await reborn._ownership.beat() and await reborn._ownership.rescue()
    assert rescued
    looks.clear()
    await reborn._tell_all(rescued)

    assert looks == [2, 2, 2, 2, 1]
