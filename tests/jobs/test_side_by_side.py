"""Two things happen to one job side by side, or one of them much later than it should: it is paid once, and goes on."""

import asyncio
from collections.abc import Sequence
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest

from bot.errors import Cause, ProviderBusy, ProviderUnsure
from bot.jobs.announcing import Pictures, Waiting
from bot.jobs.desk import Who
from bot.jobs.machine import Accepted, Cancelled, Job, State, StillRendering
from bot.jobs.ownership import STALE
from bot.jobs.store import Store
from tests.conftest import Clock
from tests.jobs.test_store import a_job
from tests.jobs.world import PATIENCE, FindingProvider, Slow, World, make_world

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)

MEMBER = Who(id=2, channel_id=10, guild_id=1)


async def look_round(world: World, times: int = 3) -> None:
    """The engine begins what is due, whatever is still under way."""
    for _ in range(times):
        world.clock.pass_by(seconds=5)
        async with asyncio.timeout(PATIENCE):
            await world.engine._take()


async def until(world: World, job: Job, state: State) -> Job:
    """Work goes on until the job is there."""
    for _ in range(30):
        await world.engine.run_due()
        found = await world.now(job)
        if found.state is state:
            return found
        world.clock.pass_by(seconds=5)
    raise AssertionError(f"{found.state} after a long time")


def references(world: World) -> list[str]:
    return [request.reference for request in world.provider.submits]


async def test_a_cancel_that_is_too_late_is_no_second_paid_call(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It is asked for while the database is slow; the job is claimed and paid before its turn. The paid answer counts."""
    world.provider.on_check.extend([StillRendering()] * 9)
    other, job = await world.store.add(a_job(world.clock, asker_id=7)), await world.ask()
    moves, slow = world.store._moves, Slow()
    work = moves._work

    async def slowly(some: Sequence[Any]) -> Any:
        await slow()
        return await work(some)

    async def wait_for(waiting: int) -> None:
        async with asyncio.timeout(PATIENCE):
            while len(moves._waiting) < waiting:  # noqa: ASYNC110 - no event tells
                await asyncio.sleep(0)

    monkeypatch.setattr(moves, "_work", slowly)
    calling_off = [asyncio.create_task(world.store.advance(other, Cancelled(), world.clock.now()))]
    await slow.asked()
    calling_off.append(asyncio.create_task(world.desk.cancel(MEMBER, job.id)))
    await wait_for(1)
    await world.engine._take()
    await wait_for(2)
    slow.go_on()
    await asyncio.gather(*calling_off, return_exceptions=True)
    await look_round(world, 6)
    await world.engine.run_due()

    assert references(world) == [f"{job.id}-1"]
    assert (await world.now(job)).provider_task == "task-1"


async def test_a_look_up_that_ends_late_frees_no_job_that_is_being_paid(
    store: Store, clock: Clock, tmp_path: Path
) -> None:
    """The member did not wait for it, and clicked: one click is one more paid call."""
    provider = FindingProvider()
    world = make_world(store, clock, tmp_path / "clips", provider=provider)
    look, pictures = Slow(ProviderUnsure(Cause.NO_ANSWER)), Slow(Pictures())
    provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    provider.on_find.append(look)
    job = await until(world, await world.ask(), State.UNSURE)
    await look_round(world, 1)
    await look.asked()
    begun = set(world.engine._tasks)
    world.announcer.on_pictures.append(pictures)
    await world.desk.try_again(MEMBER, job.id)
    await world.engine._take()
    await pictures.asked()

    look.go_on()
    await asyncio.wait(begun)
    await look_round(world)
    pictures.go_on()
    await world.engine.run_due()

    assert references(world) == [f"{job.id}-1", f"{job.id}-2"]


async def test_a_step_that_ends_late_frees_no_job_that_is_being_paid(world: World) -> None:
    """The route was busy for a quarter of a minute, and Discord took longer to draw that."""
    draw, drawing, pictures = world.announcer.draw, Slow(), Slow(Pictures())

    async def slowly(job: Job, waiting: Waiting) -> None:
        if job.state is State.QUEUED and job.attempt == 1:
            await drawing()
        await draw(job, waiting)

    world.announcer.draw = slowly  # type: ignore[method-assign]
    world.provider.on_submit.append(ProviderBusy(retry_after=timedelta(seconds=15)))
    job = await world.ask()
    await world.engine._take()
    await drawing.asked()
    begun = set(world.engine._tasks)
    world.announcer.on_pictures.append(pictures)
    await look_round(world)
    await pictures.asked()

    drawing.go_on()
    await asyncio.wait(begun)
    await look_round(world)
    pictures.go_on()
    await world.engine.run_due()

    assert references(world) == [f"{job.id}-1", f"{job.id}-2"]


async def test_looking_for_the_cards_of_old_drafts_does_not_hold_up_the_heartbeat(world: World) -> None:
    """Discord may take a minute for it; meanwhile nobody takes this process for dead."""
    world.provider.on_check.extend([StillRendering()] * 9)
    await world.ask()
    await world.engine.run_due()
    long_ago, looking = world.clock.now() - timedelta(hours=1), Slow()
    await world.store.add(a_job(world.clock, created_at=long_ago, changed_at=long_ago))

    async def slowly(job: Job) -> None:
        await looking()

    world.announcer.clear_card = slowly  # type: ignore[method-assign]
    world.clock.pass_by(seconds=10)
    await look_round(world, 8)
    await looking.asked()
    taken = await world.store.rescue("other", stale=STALE, now=world.clock.now())
    looking.go_on()
    await world.engine.run_due()

    assert taken == []


async def test_a_paid_answer_waits_for_the_other_take(world: World) -> None:
    """Its process was taken for dead, and the member asked for the same once more: both clips are made and posted."""
    parent = await until(world, await world.ask(), State.DELIVERED)
    others: list[Job] = []

    async def late() -> Accepted:
        world.clock.pass_by(seconds=40)
        await world.store.rescue("other", stale=STALE, now=world.clock.now())
        others.append(await world.desk.again(MEMBER, parent))
        return Accepted("paid-task")

    world.provider.on_submit.append(late)
    job = await world.desk.again(MEMBER, parent)
    await world.engine.run_due()
    await until(world, others[0], State.DELIVERED)

    assert (await until(world, job, State.DELIVERED)).provider_task == "paid-task"
