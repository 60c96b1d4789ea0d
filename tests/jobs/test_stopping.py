"""What a stop finishes, what it leaves to others, and what it never begins."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import timedelta
from typing import Any

import pytest

from bot.jobs.announcing import Pictures
from bot.jobs.machine import Accepted, Job, State, StillRendering
from bot.jobs.ownership import STALE
from tests.jobs.world import PICTURE, World

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


async def take(world: World) -> None:
    """One look round of the engine, and all that it began."""
    await world.engine._take()
    while world.engine._tasks:
        await asyncio.wait(world.engine._tasks)


async def due_for_a_poll(world: World) -> Job:
    job = await world.ask()
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    return job


class Slow:
    """An answer that is waited for, once, until it is let go."""

    def __init__(self) -> None:
        self.began, self.go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> None:
        self.began.set()
        await self.go_on.wait()


async def test_a_stop_before_the_paid_call_pays_nothing(world: World) -> None:
    """Told to stop while the picture is fetched: the job goes back to the line, for whoever works on."""

    async def stopped() -> Pictures:
        world.engine.stop()
        return Pictures(first=PICTURE)

    world.announcer.on_pictures.append(stopped)
    job = await world.ask()

    await take(world)

    back = await world.now(job)
    assert (back.state, back.not_before, back.stumbles) == (State.QUEUED, None, 0)
    assert world.provider.submits == []


async def test_a_stopping_engine_claims_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """Told to stop in the middle of a look round: what waits is left to others, and no attempt is begun."""
    beat = world.store.beat

    async def stopped(*arguments: Any) -> None:
        await beat(*arguments)
        world.engine.stop()

    monkeypatch.setattr(world.store, "beat", stopped)
    job = await world.ask()

    await take(world)

    assert (await world.now(job)).attempt == 0


async def test_a_stopping_engine_asks_for_nothing(world: World) -> None:
    """No poll and no upload is begun that the stop would have to wait for."""
    await due_for_a_poll(world)

    world.engine.stop()
    await take(world)

    assert world.provider.checks == []


async def test_a_clean_stop_hands_back_at_once(world: World) -> None:
    """Another worker goes on without waiting for a stale heartbeat, and no recovery is spent."""
    world.provider.on_check.extend([StillRendering()] * 9)
    job = await world.ask()
    await world.engine.run_due()

    world.engine.stop()
    await world.engine.run()
    [taken] = await world.store.rescue("other", stale=STALE, now=world.clock.now())

    assert (taken.id, taken.worker, taken.recoveries, taken.attempt) == (job.id, "other", 0, 1)
    assert await world.store.heard_of(world.clock.now()) == {}


async def test_a_commit_is_finished_though_its_task_is_cancelled(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The grace is over while the paid answer is being written down: it is written all the same."""
    save, slow = world.store._save, Slow()

    async def slowly(connection: Any, moves: Any) -> list[Job | None]:
        if any(isinstance(outcome, Accepted) for _, _, outcome in moves):
            await slow()
        return await save(connection, moves)

    monkeypatch.setattr(world.store, "_save", slowly)
    job = await world.ask()
    running = asyncio.create_task(world.engine.run(grace=timedelta(0)))
    await slow.began.wait()
    world.engine.stop()
    while not any(task.cancelling() for task in world.engine._tasks):  # noqa: ASYNC110 - no event tells
        await asyncio.sleep(0)
    slow.go_on.set()
    await running

    assert (await world.now(job)).provider_task == "task-1"


async def test_a_stop_while_the_picture_is_fetched_leaves_no_doubt(world: World) -> None:
    """The grace is over before anything was sent: the job is in the line again, and nobody has to decide."""
    slow = Slow()
    world.announcer.on_pictures.append(slow)
    job = await world.ask()
    running = asyncio.create_task(world.engine.run(grace=timedelta(0)))
    await slow.began.wait()

    world.engine.stop()
    await running

    assert (await world.now(job)).state is State.QUEUED
    assert world.provider.submits == []


async def test_an_upload_cut_off_by_the_stop_is_posted_once_by_the_next(world: World) -> None:
    """Its job is free at once; whoever takes it over looks in the channel first."""
    slow = Slow()
    job = await due_for_a_poll(world)
    world.announcer.on_post.append(slow)
    running = asyncio.create_task(world.engine.run(grace=timedelta(0)))
    await slow.began.wait()
    world.engine.stop()
    await running
    cut = await world.now(job)

    world.announcer.found = 4711
    await world.reborn().run_due()

    done = await world.now(job)
    assert (cut.state, cut.worker, cut.stumbles) == (State.POSTING, None, 0)
    assert (done.state, done.post_id, done.recoveries) == (State.DELIVERED, 4711, 0)
    assert world.announcer.posts == []


async def test_an_upload_has_its_grace(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """A stop waits for a post that is under way, and writes it down."""
    listening, looked_last = world.store.listening, asyncio.Event()

    @asynccontextmanager
    async def noting(heard: Callable[[str], None]) -> AsyncIterator[None]:
        async with listening(heard):
            yield
        looked_last.set()

    monkeypatch.setattr(world.store, "listening", noting)
    slow = Slow()
    job = await due_for_a_poll(world)
    world.announcer.on_post.append(slow)
    running = asyncio.create_task(world.engine.run())
    await slow.began.wait()

    world.engine.stop()
    await looked_last.wait()
    slow.go_on.set()
    await running

    assert (await world.now(job)).state is State.DELIVERED
