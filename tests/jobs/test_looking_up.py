"""A route that can be asked by our own reference, and for many tasks at once."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import pytest

from bot.errors import Cause, ProviderBusy, ProviderUnsure
from bot.jobs.announcing import Pictures
from bot.jobs.desk import Who
from bot.jobs.engine import _request
from bot.jobs.machine import Accepted, Broke, Charge, State, StillRendering
from bot.jobs.pacing import Pace
from bot.jobs.schedule import Schedule
from bot.jobs.store import Store
from tests.conftest import Clock, in_paid_call
from tests.jobs.world import KLING, FindingProvider, World, make_engine, make_world

PATIENCE = 30  # seconds of the wall clock; nothing here takes as long

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # of two that do not differ here


@pytest.fixture
def finding() -> FindingProvider:
    return FindingProvider()


@pytest.fixture
def world(store: Store, clock: Clock, tmp_path: Path, finding: FindingProvider) -> World:
    return make_world(store, clock, tmp_path / "clips", provider=finding)


async def test_a_lost_answer_is_looked_up_and_the_job_goes_on(world: World, finding: FindingProvider) -> None:
    """Found under our reference: no doubt, no second create, and nobody is asked to decide."""
    finding.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    finding.on_find.append(Accepted("task-77"))
    job = await world.ask()

    await world.engine.run_due()
    unsure, waiting = world.announcer.cards[job.id]
    assert (unsure.state, waiting.looking) == (State.UNSURE, True)
    world.clock.pass_by(seconds=5)
    await world.engine.run_due()

    found = await world.now(job)
    assert (found.state, found.provider_task) == (State.DELIVERED, "task-77")
    assert finding.finds == [f"{job.id}-1"]
    assert len(finding.submits) == 1
    assert await world.store.money(job.id) == {"reserve": 35, "charge": 35}


async def test_what_was_surely_not_taken_is_submitted_under_the_same_reference(
    world: World, finding: FindingProvider
) -> None:
    """So a route that is slow to know the first create refuses the second."""
    finding.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    job = await world.ask()

    await world.engine.run_due()
    world.clock.pass_by(seconds=5)
    await world.engine.run_due()
    assert (await world.now(job)).state is State.QUEUED
    world.clock.pass_by(seconds=15)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.RENDERING
    assert [request.reference for request in finding.submits] == [f"{job.id}-1"] * 2


async def test_a_route_that_never_takes_it_is_left_in_the_end(world: World, finding: FindingProvider) -> None:
    """Five lost answers, each surely not taken: failed, and not charged."""
    finding.on_submit.extend([ProviderUnsure(Cause.NO_ANSWER)] * 5)
    job = await world.ask()

    for _ in range(40):
        await world.engine.run_due()
        world.clock.pass_by(seconds=15)

    ended = await world.now(job)
    assert (ended.state, ended.cause, ended.charge) == (State.FAILED, Cause.NO_ANSWER, Charge.NONE)
    assert len(finding.submits) == 5
    assert await world.store.money(job.id) == {"reserve": 35, "release": 35}


async def test_while_nobody_can_tell_it_is_asked_ever_more_seldom(
    world: World, finding: FindingProvider
) -> None:
    """Some minutes long the card says that we ask; then a person may decide. After a day it is let go."""
    finding.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    finding.on_find.extend([ProviderUnsure(Cause.NO_ANSWER)] * 1000)
    job = await world.ask()

    await world.engine.run_due()
    looking = []
    for _ in range(60):
        world.clock.pass_by(seconds=10)
        await world.engine.run_due()
        looking.append(world.announcer.cards[job.id][1].looking)

    assert looking[0]
    assert not looking[-1]
    assert 5 <= len(finding.finds) <= 10
    world.clock.pass_by(hours=24)
    await world.engine.run_due()
    assert (await world.now(job)).state is State.FAILED


async def test_who_cannot_be_asked_is_asked_for_a_whole_day(world: World, finding: FindingProvider) -> None:
    """Every five minutes in the end, and the clip that turns up after a night is posted."""
    finding.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    finding.on_find.extend([ProviderUnsure(Cause.NO_ANSWER)] * 200)
    finding.on_find.append(Accepted("task-77"))
    job = await world.ask()

    for _ in range(210):
        await world.engine.run_due()
        world.clock.pass_by(minutes=5)

    assert len(finding.finds) == 201
    assert (await world.now(job)).state is State.DELIVERED


async def test_what_is_found_waits_until_the_same_clip_is_not_open_twice(
    world: World, finding: FindingProvider
) -> None:
    """The member asked once more while nobody knew: both are paid then, and both are posted, one after the other."""
    parent = await world.ask()
    for _ in range(2):
        await world.engine.run_due()
        world.clock.pass_by(seconds=20)
    finding.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    finding.on_find.extend([ProviderUnsure(Cause.NO_ANSWER), *[Accepted("task-77")] * 20])
    finding.on_check.extend([{}] * 5)
    who = Who(id=3, channel_id=10, guild_id=1)
    doubted = await world.desk.again(who, await world.now(parent))
    await world.engine.run_due()
    assert (await world.now(doubted)).state is State.UNSURE
    other = await world.desk.again(who, await world.now(parent))

    for _ in range(30):
        await world.engine.run_due()
        world.clock.pass_by(seconds=20)
        states = {(await world.now(job)).state for job in (doubted, other)}
        assert State.FAILED not in states

    assert states == {State.DELIVERED}
    assert await world.store.money(doubted.id) == {"reserve": 35, "charge": 35}


async def test_what_a_dead_worker_left_in_its_paid_call_is_looked_up(
    world: World, finding: FindingProvider
) -> None:
    """Another worker takes the job over, asks, and goes on with it."""

    finding.on_find.append(Accepted("task-1"))
    job = await world.ask()
    (claimed,) = await in_paid_call(world.store, slots=2, worker="dead", now=world.clock.now())
    assert claimed.reference
    await finding.submit(_request(claimed, claimed.reference, Pictures()))

    world.clock.pass_by(seconds=31)
    survivor = world.reborn()
    await survivor.run_due()
    found = await world.now(job)
    assert (found.state, found.worker) == (State.DELIVERED, "worker-2")
    assert len(finding.submits) == 1


async def test_after_a_person_tried_again_the_old_reference_is_not_used(
    world: World, finding: FindingProvider
) -> None:
    """The first attempt may have been taken after all: a new one has a name of its own."""
    finding.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    finding.on_find.append(ProviderUnsure(Cause.NO_ANSWER))
    job = await world.ask()
    await world.engine.run_due()

    await world.desk.try_again(Who(id=2, channel_id=10), job.id)
    await world.engine.run_due()

    assert [request.reference for request in finding.submits] == [f"{job.id}-1", f"{job.id}-2"]


async def test_many_are_asked_for_in_one_call(world: World, finding: FindingProvider) -> None:
    """Two at a time here; one that is not due quite yet comes along."""
    jobs = [await world.ask(asker=1), await world.ask(asker=2)]
    await world.engine.run_due()

    world.clock.pass_by(seconds=10)
    await world.engine.run_due()

    assert finding.batches == [["task-1", "task-2"]] or finding.batches == [["task-2", "task-1"]]
    assert finding.checks == []
    assert {(await world.now(job)).state for job in jobs} == {State.DELIVERED}


async def test_each_of_many_gets_its_own_answer(world: World, finding: FindingProvider) -> None:
    """One is broken, one is not mentioned: it is still rendering, and asked for again."""
    jobs = [await world.ask(asker=1), await world.ask(asker=2)]
    await world.engine.run_due()
    by_task = {(await world.now(job)).provider_task: job for job in jobs}
    finding.on_check.append({"task-1": Broke(Cause.MODERATION, charged=False)})

    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    assert (await world.now(by_task["task-1"])).state is State.FAILED
    assert (await world.now(by_task["task-2"])).state is State.RENDERING
    world.clock.pass_by(seconds=40)
    await world.engine.run_due()

    assert (await world.now(by_task["task-2"])).state is State.DELIVERED


async def test_no_answer_for_many_changes_nothing(world: World, finding: FindingProvider) -> None:
    """All are asked for again, not before the route wants it."""
    job = await world.ask()
    await world.engine.run_due()
    finding.on_check.append(ProviderBusy(retry_after=timedelta(seconds=50)))

    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    world.clock.pass_by(seconds=49)
    await world.engine.run_due()
    assert len(finding.batches) == 1
    world.clock.pass_by(seconds=1)
    await world.engine.run_due()

    assert len(finding.batches) == 2
    assert (await world.now(job)).state is State.DELIVERED


@on_sqlite
async def test_a_slow_clip_does_not_hold_up_those_that_came_with_it(
    world: World, finding: FindingProvider
) -> None:
    """Two are ready in one answer: one is posted while the other is still being downloaded."""
    go_on = asyncio.Event()
    finding.on_fetch.append(go_on.wait)
    jobs = [await world.ask(asker=asker) for asker in (1, 2)]
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)

    async with asyncio.timeout(PATIENCE):
        while State.DELIVERED not in {(await world.now(job)).state for job in jobs}:
            await world.engine._take()

    assert len(world.announcer.posts) == 1
    go_on.set()
    await world.engine.run_due()
    assert {(await world.now(job)).state for job in jobs} == {State.DELIVERED}


@on_sqlite
async def test_one_lost_answer_for_many_is_one_failure(
    store: Store, clock: Clock, tmp_path: Path, finding: FindingProvider
) -> None:
    """However many were asked for in that call, the route is not taken for one that has failed so often in a row."""
    finding.most_checks = 20
    world = make_world(store, clock, tmp_path / "clips", provider=finding)
    engine = make_engine(store, finding, world.announcer, clock, tmp_path / "clips", slots=5)
    for asker in range(5):
        await world.ask(asker=asker)
    await engine.run_due()
    finding.on_check.append(ProviderUnsure(Cause.NO_ANSWER))

    clock.pass_by(seconds=10)
    await engine.run_due()

    assert [len(batch) for batch in finding.batches] == [5]
    assert world.announcer.told == []
    assert engine._health.trouble("makevid") is None


async def test_when_most_running_jobs_are_late_what_was_learned_is_set_aside(
    world: World, finding: FindingProvider
) -> None:
    """An incident: the provider has become slow, and is asked at the pace of one that nothing is known of."""
    for _ in range(8):  # clips of this kind take ten seconds
        await world.ask()
        await world.engine.run_due()
        world.clock.pass_by(seconds=10)
        await world.engine.run_due()
    schedule = Schedule(store=world.store, can=lambda _job: KLING, now=world.clock.now)
    jobs = [
        replace(await world.ask(asker=asker), state=State.RENDERING, submitted_at=world.clock.now())
        for asker in (1, 2, 3)
    ]
    for job in jobs[:2]:
        schedule.follow(job)
    world.clock.pass_by(seconds=60)

    async def pause() -> timedelta:
        assert await schedule.seen(jobs[0], StillRendering())
        return schedule.due[jobs[0].id] - world.clock.now()

    learned = await pause()
    schedule.follow(jobs[2])
    world.clock.pass_by(seconds=1)
    at_once = await pause()

    unknown = Pace.prior(KLING.typical).next_poll(
        timedelta(seconds=61), least_gap=KLING.least_poll_gap, deadline=KLING.deadline
    )
    assert at_once == unknown != learned
