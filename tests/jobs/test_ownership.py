"""The heartbeat and the fence: a worker that may be thought dead does no work, and takes nothing."""

from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.exc import OperationalError

from bot.errors import Cause
from bot.jobs.announcing import Pictures
from bot.jobs.machine import (
    Accepted,
    Begun,
    Busy,
    Cancelled,
    Job,
    Lost,
    Outcome,
    Posted,
    Ready,
    Refused,
    State,
)
from bot.jobs.ownership import STALE, Ownership
from bot.jobs.store import Store
from tests.conftest import Clock, in_paid_call
from tests.jobs.test_store import queued
from tests.jobs.world import FindingProvider, ScriptedProvider, World, make_engine, make_world

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # of two that do not differ here


class Wall:
    """A monotonic clock of its own, as a process has, beside the wall clock."""

    def __init__(self) -> None:
        self.seconds = 1000.0

    def __call__(self) -> float:
        return self.seconds


async def test_without_a_heartbeat_there_is_no_work(store: Store, clock: Clock) -> None:
    """Never beaten: never entitled."""
    own = Ownership(store, "w1", now=clock.now, monotonic=Wall())

    assert not own.may_work
    await own.beat()
    assert own.may_work


async def test_a_heartbeat_that_cannot_be_written_fences(
    store: Store, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Half of the fence: nothing is paid any more. The whole: nothing is done any more."""
    wall = Wall()
    own = Ownership(store, "w1", now=clock.now, monotonic=wall)
    await own.beat()

    async def away(*_: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("the database is away"))

    monkeypatch.setattr(store, "beat", away)
    wall.seconds += 8
    assert not await own.beat()
    assert own.may_work
    assert not own.may_pay(own.term)
    wall.seconds += 8
    assert not await own.beat()
    assert not own.may_work


async def test_a_machine_that_sleeps_is_fenced(store: Store, clock: Clock) -> None:
    """A monotonic clock may stand still meanwhile; what was this worker's before may be another's after, however fresh the
    heartbeat is by then."""
    own = Ownership(store, "w1", now=clock.now, monotonic=Wall())
    await own.beat()
    before = own.term
    assert own.holds(before)
    assert own.may_pay(before)

    clock.pass_by(minutes=10)
    assert not own.may_work
    assert not own.holds(before)
    await own.beat()

    assert own.may_work
    assert not own.holds(before)
    assert not own.may_pay(before)
    assert own.may_pay(own.term)


async def test_a_heartbeat_that_comes_in_time_changes_nothing(store: Store, clock: Clock) -> None:
    """One term, however long."""
    wall = Wall()
    own = Ownership(store, "w1", now=clock.now, monotonic=wall)
    await own.beat()
    before = own.term

    for _ in range(10):
        wall.seconds += 14
        clock.pass_by(seconds=14)
        await own.beat()

    assert own.may_pay(before)


async def test_a_jump_of_the_clock_puts_rescues_off(store: Store, clock: Clock) -> None:
    """The wall clock leaps an hour: the other worker is alive, and only seems stale, until it beats again."""
    wall = Wall()
    await queued(store, clock)
    await store.beat("alive", clock.now())
    await in_paid_call(store, slots=1, worker="alive", now=clock.now())
    own = Ownership(store, "w2", now=clock.now, monotonic=wall)
    await own.beat()
    await own.rescue()

    clock.pass_by(hours=1)
    wall.seconds += 1
    await own.beat()
    assert await own.rescue() == []
    await store.beat("alive", clock.now())
    wall.seconds += 31
    clock.pass_by(seconds=31)
    await store.beat("alive", clock.now())
    await own.beat()

    assert await own.rescue() == []


async def test_the_dead_are_found_after_the_jump(store: Store, clock: Clock) -> None:
    """Putting off is not giving up."""
    wall = Wall()
    await queued(store, clock)
    await store.beat("dead", clock.now())
    await in_paid_call(store, slots=1, worker="dead", now=clock.now())
    own = Ownership(store, "w2", now=clock.now, monotonic=wall)
    await own.beat()
    await own.rescue()
    clock.pass_by(hours=1)
    await own.beat()
    assert await own.rescue() == []

    wall.seconds += 31
    clock.pass_by(seconds=31)
    await own.beat()
    [job] = await own.rescue()

    assert job.state is State.UNSURE


async def test_a_fenced_engine_takes_nothing(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    """The heartbeat fails: queued jobs wait, running ones are not polled; it goes on when it can beat again."""

    async def away(*_: Any) -> None:
        raise OperationalError("UPDATE", {}, Exception("the database is away"))

    running = await world.ask()
    await world.engine.run_due()
    with monkeypatch.context() as patch:
        patch.setattr(world.store, "beat", away)
        world.clock.pass_by(seconds=20)
        waiting = await world.ask(asker=3)
        assert await world.engine.run_due() == 0
        assert world.provider.checks == []

    await world.engine.run_due()

    assert (await world.now(running)).state is State.DELIVERED
    assert (await world.now(waiting)).state is State.RENDERING


async def test_a_process_held_up_before_the_paid_call_does_not_pay(world: World) -> None:
    """Frozen between the claim and the call: it gives the job back instead."""

    async def frozen() -> Any:
        world.clock.pass_by(seconds=10)
        return Pictures()

    world.announcer.on_pictures.append(frozen)
    job = await world.ask()

    await world.engine._take()
    while world.engine._tasks:
        await next(iter(world.engine._tasks))

    back = await world.now(job)
    assert (back.state, back.stumbles, back.cause) == (State.QUEUED, 0, None)
    assert world.provider.submits == []


async def test_a_process_that_slept_over_the_picture_does_not_pay(world: World) -> None:
    """Long enough for others to put its job back in line; that its heartbeat is fresh again makes it no more its own. Whoever
    takes it next pays, once."""

    async def asleep() -> Pictures:
        world.clock.pass_by(minutes=10)
        await world.store.rescue("other", stale=STALE, now=world.clock.now())
        await world.engine._ownership.beat()
        assert (await world.now(job)).state is State.QUEUED
        return Pictures()

    world.announcer.on_pictures.append(asleep)
    job = await world.ask()

    await world.engine.run_due()

    made = await world.now(job)
    assert (made.state, made.attempt) == (State.RENDERING, 1)
    assert len(world.provider.submits) == 1


async def test_a_process_that_slept_before_the_paid_call_does_not_pay(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It had written that it would: others made a doubt of the job meanwhile."""
    advance = world.store.advance

    async def asleep(job: Job, outcome: Outcome, now: datetime, **how: bool) -> Job | None:
        moved = await advance(job, outcome, now, **how)
        if isinstance(outcome, Begun):
            world.clock.pass_by(minutes=10)
            await world.store.rescue("other", stale=STALE, now=world.clock.now())
            await world.engine._ownership.beat()
        return moved

    monkeypatch.setattr(world.store, "advance", asleep)
    job = await world.ask()

    await world.engine.run_due()

    assert (await world.now(job)).state is State.UNSURE
    assert world.provider.submits == []


@pytest.mark.parametrize("taken", [True, False], ids=["taken over", "left"])
async def test_a_process_that_slept_before_the_post_looks_again(world: World, *, taken: bool) -> None:
    """Where another took the job and posted, there is no second post; where nobody did, there is one."""
    job = await world.ask()
    await world.engine.run_due()

    async def asleep() -> None:
        world.clock.pass_by(minutes=10)
        if taken:
            [other] = await world.store.rescue("other", stale=STALE, now=world.clock.now())
            await world.store.advance(other, Posted(4711), world.clock.now())
        await world.engine._ownership.beat()

    world.provider.on_fetch.append(asleep)
    for seconds in (60, 10):
        world.clock.pass_by(seconds=seconds)
        await world.engine.run_due()

    found = await world.now(job)
    assert (found.state, found.post_id) == (State.DELIVERED, 4711 if taken else 2001)
    assert world.announcer.posts == ([] if taken else [job.id])


async def test_a_slow_answer_still_counts(world: World) -> None:
    """Others took this process for dead; then its paid call was answered: no doubt is left, and no second call."""

    async def slow() -> Any:
        world.clock.pass_by(seconds=40)
        await world.store.rescue("other", stale=STALE, now=world.clock.now())
        assert (await world.now(job)).state is State.UNSURE
        return Accepted("paid-task")

    world.provider.on_submit.append(slow)
    job = await world.ask()

    await world.engine.run_due()

    assert (await world.now(job)).provider_task == "paid-task"
    assert len(world.provider.submits) == 1


@on_sqlite
async def test_a_clock_set_back_does_not_stop_the_polls(store: Store, clock: Clock, tmp_path: Path) -> None:
    """By an hour: the clip is seen to be ready within minutes, not after the hour."""
    world, wall = make_world(store, clock, tmp_path / "clips"), Wall()
    engine = make_engine(store, world.provider, world.announcer, clock, tmp_path / "clips", monotonic=wall)
    job = await world.ask()
    await engine.run_due()

    clock.pass_by(hours=-1)
    for _ in range(10):
        clock.pass_by(seconds=10)
        wall.seconds += 10
        await engine.run_due()

    assert (await world.now(job)).state is State.DELIVERED


@pytest.mark.parametrize("provider", [ScriptedProvider, FindingProvider], ids=["one by one", "together"])
@pytest.mark.parametrize("state", [State.RENDERING, State.POSTING])
async def test_what_others_took_over_is_left_to_them(
    store: Store, clock: Clock, tmp_path: Path, provider: type[ScriptedProvider], state: State
) -> None:
    """Asleep for so long that its job is another's now, a process neither asks for it nor posts it beside the new owner."""
    world = make_world(store, clock, tmp_path / "clips", provider=provider())
    job = await world.ask()
    await world.engine.run_due()
    clock.pass_by(minutes=5)
    await store.beat("other", clock.now())
    [taken] = await store.rescue("other", stale=STALE, now=clock.now())
    if state is State.POSTING:
        await store.advance(taken, Ready("https://cdn.example/clip.mp4"), clock.now())
    owned = await world.now(job)

    await world.engine.run_due()
    clock.pass_by(seconds=20)
    await world.engine.run_due()

    assert await world.now(job) == owned
    assert (owned.state, owned.worker) == (state, "other")
    assert (world.provider.checks, world.announcer.posts) == ([], [])


def test_the_times_are_what_the_documentation_says(store: Store, clock: Clock) -> None:
    """docs/scaling.md names them; a worker is fenced well before others may act."""
    own = Ownership(store, "w1", now=clock.now)

    assert [own.beat_every, own._fence, own._stale] == [timedelta(seconds=seconds) for seconds in (5, 15, 30)]


async def a_refusal_that_nobody_told_of(world: World) -> Job:
    """A job that ended under a process that died before its card said so; the card as it was is forgotten here."""
    store, now = world.store, world.clock.now
    await store.beat("dead", now())
    for outcome in (
        Lost(Cause.NO_ANSWER),
        Busy(timedelta(days=1)),
    ):  # jobs that were once its own say nothing
        await world.ask()
        [begun] = await in_paid_call(store, slots=1, worker="dead", now=now())
        assert await store.advance(begun, outcome, now())
    job = await world.ask()
    [begun] = await in_paid_call(store, slots=1, worker="dead", now=now())
    assert await store.advance(begun, Refused(Cause.MODERATION), now())
    world.announcer.cards.clear()
    return job


async def test_who_lives_says_what_the_dead_did_not(world: World) -> None:
    """A process whose own start is long over draws the cards of what ended under one that died, once; of a draft that was
    called off, one that may be there."""
    await world.engine.run_due()
    job = await a_refusal_that_nobody_told_of(world)
    draft = await world.store.add(job.but(id="draft", card_id=None, state=State.DRAFT, version=0))
    assert await world.store.advance(draft, Cancelled(), world.clock.now())

    for _ in range(6):
        await world.engine.run_due()
        world.clock.pass_by(seconds=20)

    assert world.announcer.cards[job.id][0].state is State.FAILED
    assert world.announcer.cleared == ["draft"]
    world.announcer.cards.clear()
    for _ in range(6):
        await world.engine.run_due()
        world.clock.pass_by(seconds=20)
    assert world.announcer.cards == {}
    assert world.announcer.cleared == ["draft"]


async def test_a_night_without_any_process(world: World) -> None:
    """The one that starts in the morning says what the one that died in the evening did not."""
    job = await a_refusal_that_nobody_told_of(world)
    world.clock.pass_by(hours=9)

    await world.reborn().run_due()

    assert world.announcer.cards[job.id][0].state is State.FAILED
