"""What is asked at the same moment is done in one go, and everybody gets an answer of their own."""

import asyncio
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from sqlalchemy import select

from bot.errors import Cause, Refusal
from bot.jobs.machine import Cancelled, CardPosted, Charge, Job, Posted, Ready, Refused, State, TriedAgain
from bot.jobs.store import AlreadyThere, Load, Store
from bot.jobs.tables import events
from bot.jobs.together import Together
from tests.conftest import Clock


class Work:
    """Doubles numbers, one batch at a time; holds each until it is let go."""

    def __init__(self) -> None:
        self.batches: list[list[int]] = []
        self.go = asyncio.Semaphore(0)

    async def __call__(self, items: Sequence[int]) -> list[int | Exception]:
        self.batches.append(list(items))
        await self.go.acquire()
        if 13 in items:
            raise ConnectionError
        return [ValueError(item) if item < 0 else item * 2 for item in items]


async def test_what_waits_goes_together_in_order_and_within_bounds() -> None:
    """While one batch is under way the next gathers; an answer comes only after its batch."""
    work = Work()
    together = Together(work, most=3)
    asked = [asyncio.create_task(together.ask(n)) for n in range(5)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    assert work.batches == [[0, 1, 2]]
    assert not any(task.done() for task in asked)
    for _ in range(2):
        work.go.release()

    assert await asyncio.gather(*asked) == [0, 2, 4, 6, 8]
    assert work.batches == [[0, 1, 2], [3, 4]]


async def test_one_that_fails_fails_alone_and_a_failed_batch_fails_for_all() -> None:
    """An exception among the answers is one caller's; one that is raised is everybody's. Then it goes on."""
    work = Work()
    together = Together(work, most=3)
    for _ in range(3):
        work.go.release()

    answers: Any = await asyncio.gather(*map(together.ask, (1, -1, 2, 13, 3)), return_exceptions=True)

    assert answers[0::2][:2] == [2, 4]
    assert isinstance(answers[1], ValueError)
    assert all(isinstance(answer, ConnectionError) for answer in answers[3:])
    assert await together.ask(4) == 8


async def test_whoever_is_cancelled_before_their_turn_asked_nothing() -> None:
    """The others are not held up."""
    work = Work()
    together = Together(work, most=1)
    asked = [asyncio.create_task(together.ask(n)) for n in range(3)]
    await asyncio.sleep(0)
    asked[1].cancel()
    for _ in range(2):
        work.go.release()

    await asyncio.gather(*asked, return_exceptions=True)

    assert work.batches == [[0], [2]]


async def test_closing_leaves_nobody_waiting() -> None:
    """Who is under way, and who waits, is cancelled."""
    together = Together(Work(), most=1)
    asked = [asyncio.create_task(together.ask(n)) for n in range(2)]
    await asyncio.sleep(0)
    await together.close()

    done = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(answer, asyncio.CancelledError) for answer in done)


# In the store


def a_job(clock: Clock, number: int, **changes: Any) -> Job:
    base = Job(
        id=f"job-{number:03}",
        created_at=clock.now(),
        changed_at=clock.now(),
        channel_id=1,
        asker_id=number % 2,
        model="kling",
        route="makevid",
        variant="kling",
        prompt="waves",
        seconds=5,
        price_cents=35,
    )
    return replace(base, **changes)


async def test_a_rush_of_requests_is_admitted_one_by_one(store: Store, clock: Clock) -> None:
    """Each sees the load with those before it in the same rush; nobody slips past a limit."""
    seen: list[Load] = []

    def admit(load: Load) -> None:
        seen.append(load)
        if load.by_asker >= 2:
            raise Refusal("two at most")

    answers = await asyncio.gather(
        *(store.add(a_job(clock, n), admit) for n in range(10)), return_exceptions=True
    )

    assert [isinstance(answer, Job) for answer in answers] == [True] * 4 + [False] * 6
    assert all(isinstance(answer, Refusal) for answer in answers[4:])
    assert seen[:5] == [Load(0, 0), Load(0, 1), Load(1, 2), Load(1, 3), Load(2, 4)]
    assert len(await store.open_jobs()) == 4


async def test_one_that_is_there_already_does_not_hold_up_the_rush(store: Store, clock: Clock) -> None:
    """The same interaction twice, among others: a constraint decides, and only for the second."""
    jobs = [a_job(clock, n, interaction_id=min(n, 3)) for n in range(6)]

    answers = await asyncio.gather(*map(store.add, jobs), return_exceptions=True)

    assert [isinstance(answer, Job) for answer in answers] == [True, True, True, True, False, False]
    assert all(isinstance(answer, AlreadyThere) for answer in answers[4:])
    assert {job.id for job in await store.open_jobs()} == {job.id for job in jobs[:4]}


async def test_moves_of_the_same_moment_are_guarded_each(store: Store, clock: Clock) -> None:
    """Two of the same job: the first wins and the second is told; other jobs' moves are all there."""
    jobs = [await store.add(a_job(clock, n)) for n in range(3)]
    twice = [(jobs[0], CardPosted(10)), (jobs[0], CardPosted(11)), (jobs[1], CardPosted(12))]

    answers = await asyncio.gather(*(store.advance(job, outcome, clock.now()) for job, outcome in twice))

    assert [answer and answer.card_id for answer in answers] == [10, None, 12]
    for job, card in zip(jobs, (10, 12, None), strict=True):
        found = await store.get(job.id)
        assert found
        assert found.card_id == card
    assert await store.history(jobs[0].id) == [(None, State.DRAFT), (State.DRAFT, State.QUEUED)]


async def test_moves_of_many_kinds_keep_their_values_apart(store: Store, clock: Clock) -> None:
    """Each row gets what its own move says, its event and its money."""
    rendering = a_job(clock, 1, state=State.RENDERING, provider_task="one", submitted_at=clock.now())
    posting = a_job(clock, 2, state=State.POSTING, clip_url="https://cdn.example/2", charge=Charge.CHARGED)
    draft = a_job(clock, 3)
    for job in (rendering, posting, draft):
        await store.add(job)

    moved = await asyncio.gather(
        store.advance(rendering, Ready("https://cdn.example/1"), clock.now()),
        store.advance(posting, Posted(77), clock.now()),
        store.advance(draft, CardPosted(5), clock.now()),
    )

    assert [await store.get(job.id) for job in (rendering, posting, draft)] == list(moved)
    assert await store.money(rendering.id) == {"reserve": 35, "charge": 35}
    assert [(await store.history(job.id))[-1][1] for job in (rendering, posting, draft)] == [
        State.POSTING,
        State.DELIVERED,
        State.QUEUED,
    ]


async def test_each_move_leaves_the_event_that_is_its_own(store: Store, clock: Clock) -> None:
    """Of moves along the same arrow, too: when it was, and why. One that somebody else was before leaves none."""
    requested = clock.now()
    refused = [
        await store.add(a_job(clock, n, state=State.PREPARING, cause=cause))
        for n, cause in ((1, None), (2, Cause.BUSY), (3, None))
    ]
    cancelled = await store.add(a_job(clock, 4))
    last = await store.advance(refused[2], Cancelled(), clock.now())
    clock.pass_by(seconds=5)
    later = clock.now()

    await asyncio.gather(
        store.advance(refused[0], Refused(Cause.BAD_INPUT), later),
        store.advance(refused[1], Refused(Cause.MODERATION), requested),  # no later than it was made
        store.advance(refused[2], Refused(Cause.BAD_INPUT), later),
        store.advance(cancelled, Cancelled(), later),
    )

    assert last
    columns = (events.c[name] for name in ("job_id", "at", "outcome", "from_state", "to_state", "cause"))
    async with store.reading() as connection:
        rows = await connection.execute(select(*columns).where(events.c.from_state.is_not(None)))
    assert sorted(map(tuple, rows)) == [
        ("job-001", later, "Refused", "preparing", "failed", "bad_input"),
        ("job-002", requested, "Refused", "preparing", "failed", "moderation"),
        ("job-003", requested, "Cancelled", "preparing", "cancelled", None),
        ("job-004", later, "Cancelled", "draft", "cancelled", None),
    ]


async def test_a_member_with_the_clip_in_the_queue_twice_does_not_stop_others(
    store: Store, clock: Clock
) -> None:
    """A move that breaks a constraint is told so; those beside it are made."""
    waiting = await store.add(a_job(clock, 2, parent_id="parent"))
    unsure = await store.add(a_job(clock, 4, parent_id="parent", state=State.UNSURE, charge=Charge.MAYBE))

    again, queued = await asyncio.gather(
        store.advance(unsure, TriedAgain(), clock.now()),
        store.advance(waiting, CardPosted(5), clock.now()),
        return_exceptions=True,
    )

    assert isinstance(again, AlreadyThere)
    assert isinstance(queued, Job)
    assert await store.get(unsure.id) == unsure


@pytest.mark.parametrize("number", [1, 30])
async def test_places_asked_at_the_same_moment_are_those_asked_alone(
    store: Store, clock: Clock, number: int
) -> None:
    """One look for all."""
    jobs = []
    for n in range(number):
        clock.pass_by(seconds=1)
        job = await store.add(a_job(clock, n, created_at=clock.now()))
        jobs.append(await store.advance(job, CardPosted(n), clock.now()))
    queued = [job for job in jobs if job]

    together = await asyncio.gather(*map(store.place, queued))

    assert together == [await store.place(job) for job in queued]
    assert sorted(together) == list(range(1, number + 1))


async def test_who_asks_surely_is_cancelled_afterwards() -> None:
    """Also before its turn: it is done all the same."""
    work = Work()
    together = Together(work, most=1)
    first, second, asked = [
        asyncio.create_task(together.ask(n, surely=surely))
        for n, surely in ((1, True), (2, True), (3, False))
    ]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in (first, second, asked):
        task.cancel()
    await asyncio.sleep(0)
    assert [task.done() for task in (first, second, asked)] == [False, False, True]

    for _ in range(2):
        work.go.release()
    await asyncio.wait({first, second})

    assert first.cancelled()
    assert second.cancelled()
    assert work.batches == [[1], [2]]


async def test_who_is_cancelled_twice_waits_no_longer() -> None:
    """A process that is told to end at once does not wait for a database that is away; what was asked is done if it can be."""
    work = Work()
    together = Together(work, most=1)
    under_way, waiting = [asyncio.create_task(together.ask(n, surely=True)) for n in (1, 2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for _ in range(2):
        under_way.cancel()
        waiting.cancel()
        await asyncio.sleep(0)
    await asyncio.sleep(0)

    assert under_way.cancelled()
    assert waiting.cancelled()

    for _ in range(3):
        work.go.release()
    assert await together.ask(3) == 6
    assert work.batches == [[1], [2], [3]]


@pytest.mark.parametrize("cancelled", [False, True])
async def test_closing_leaves_nobody_waiting_who_asks_surely(cancelled: bool) -> None:
    """And nothing that would be done later, when its asker has long been told otherwise."""
    work = Work()
    together = Together(work, most=1)
    asked = [asyncio.create_task(together.ask(n, surely=True)) for n in range(2)]
    await asyncio.sleep(0)
    await asyncio.sleep(0)
    for task in asked:
        if cancelled:
            task.cancel()
    await together.close()

    done = await asyncio.gather(*asked, return_exceptions=True)

    assert all(isinstance(answer, asyncio.CancelledError) for answer in done)
    work.go.release()
    assert await together.ask(7) == 14
    assert work.batches == [[0], [7]]


async def test_who_is_cancelled_while_it_fails_is_cancelled() -> None:
    work = Work()
    together = Together(work, most=1)
    asked = asyncio.create_task(together.ask(-1, surely=True))
    await asyncio.sleep(0)
    asked.cancel()
    work.go.release()

    await asyncio.wait({asked})

    assert asked.cancelled()
