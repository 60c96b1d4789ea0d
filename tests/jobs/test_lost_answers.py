"""A commit whose answer was lost on the way: nobody knows whether it was written, and the work goes on all the same.

Each life of a job is lived once for every commit in it. That commit either is written and its answer lost, or is not written.
What people click and are told has its own tests, and so has a database that is away for one statement.
"""

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy.util import await_only

from bot.errors import Cause, ProviderUnsure, Refusal
from bot.jobs.budgets import Budget, Scope, Stretch
from bot.jobs.desk import Who
from bot.jobs.machine import Accepted, Job, State
from bot.jobs.ownership import STALE
from bot.jobs.store import Store, open_store
from tests.conftest import Clock, in_paid_call
from tests.jobs.world import FindingProvider, World, make_engine, make_world

MEMBER = Who(id=2, channel_id=10, guild_id=1)
LONGEST_LIFE = 60  # commits, or statements

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # of two that do not differ here

Life = Callable[[World], Awaitable[Job]]


@contextmanager
def losing(
    store: Store, number: int, *, written: bool, then: Callable[[], Awaitable[object]] | None = None
) -> Iterator[list[int]]:
    """The answer to this commit of the store is lost; `then` is what others do before anybody hears of that. Gives the
    numbers of the commits that came by."""
    dialect: Any = store._writes.sync_engine.dialect
    commit, seen = dialect.do_commit, list[int]()

    def lossy(connection: Any) -> None:
        seen.append(len(seen) + 1)
        lost = seen[-1] == number
        if written or not lost:
            commit(connection)
        if lost:
            if then:
                await_only(then())
            raise dialect.loaded_dbapi.OperationalError("the answer was lost")

    dialect.do_commit = lossy
    try:
        yield seen
    finally:
        del dialect.do_commit


@contextmanager
def flickering(store: Store, number: int) -> Iterator[list[int]]:
    """The database is away for this statement. Gives the numbers of the statements that came by."""
    dialect: Any = store._writes.sync_engine.dialect
    execute, seen = dialect.do_execute, list[int]()

    def refused(*arguments: Any, **options: Any) -> None:
        seen.append(len(seen) + 1)
        if seen[-1] == number:
            raise dialect.loaded_dbapi.OperationalError("the database is away")
        execute(*arguments, **options)

    dialect.do_execute = refused
    try:
        yield seen
    finally:
        del dialect.do_execute


async def until(world: World, job: Job, *states: State) -> Job:
    """Work goes on until the job is there."""
    for _ in range(40):
        await world.engine.run_due()
        found = await world.now(job)
        if found.state in states:
            return found
        world.clock.pass_by(seconds=10)
    raise AssertionError(f"{found.state} after a long time")


async def handed_over(world: World) -> Job:
    job = await until(world, await world.ask(), State.RENDERING)
    await world.engine.hand_back()
    world.reborn()
    return await until(world, job, State.DELIVERED)


async def looked_up(world: World) -> Job:
    world.provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    assert isinstance(world.provider, FindingProvider)
    world.provider.on_find.append(Accepted("task-1"))
    return await until(world, await world.ask(), State.DELIVERED)


async def called_off(world: World) -> Job:
    job = await world.ask()
    await world.desk.cancel(MEMBER, job.id)
    return await until(world, job, State.CANCELLED)


async def in_doubt(world: World) -> Job:
    world.provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    return await until(world, await world.ask(), State.UNSURE)


@pytest.fixture
def world(store: Store, clock: Clock, tmp_path: Path) -> World:
    return make_world(store, clock, tmp_path / "clips", provider=FindingProvider())


@pytest.fixture
def plain(store: Store, clock: Clock, tmp_path: Path) -> World:
    """With a route that cannot be asked what it took."""
    return make_world(store, clock, tmp_path / "clips")


@pytest.mark.parametrize(
    ("life", "written"), [(handed_over, True), (handed_over, False), (looked_up, True), (called_off, True)]
)
async def test_no_commit_without_an_answer_loses_or_doubles_anything(
    world: World, life: Life, quiet: None, *, written: bool
) -> None:
    """Paid once at most, posted once where it was made, the books in order; at worst the member is told that nothing began."""
    provider, announcer = world.provider, world.announcer
    for number in range(1, LONGEST_LIFE):
        world.reborn()
        with losing(world.store, number, written=written) as seen:
            try:
                job = await life(world)
            except Refusal:
                continue

        made = job.state is State.DELIVERED
        paid = [request for request in provider.submits if request.reference.startswith(job.id)]
        assert len(paid) == announcer.posts.count(job.id) == made, f"commit {number}"
        assert await world.store.money(job.id) == {"reserve": 35, "charge" if made else "release": 35}
        if len(seen) < number:  # all commits had their turn
            assert await world.audited() == []
            return
    raise AssertionError("a life without an end")


@on_sqlite
async def test_a_request_does_not_count_against_itself(store: Store, clock: Clock, tmp_path: Path) -> None:
    """A member may have one clip at a time: the one that was written, unknown to the bot, is the one asked for."""
    world = make_world(store, clock, tmp_path / "clips", per_member=1)

    with losing(store, 1, written=True):
        job = await world.ask()

    assert job.state is State.QUEUED
    assert (await store.load(job.asker_id)).by_asker == 1


@on_sqlite
async def test_a_click_counts(world: World) -> None:
    """Who tries again is not told that there is nothing to try again: the job is in the line."""
    job = await in_doubt(world)

    with losing(world.store, 1, written=True):
        moved = await world.desk.try_again(MEMBER, job.id)

    assert moved.state is State.QUEUED
    assert await world.now(job) == moved


@on_sqlite
async def test_a_click_does_not_count_against_its_own_budget(world: World) -> None:
    """The last clip of the budget was reserved by this very click."""

    async def budgets_of(_who: Who) -> Sequence[Budget]:
        return [Budget(scope=Scope.ALL, stretch=Stretch.DAY, clips=2)]

    job = await in_doubt(world)
    world.desk._budgets_of = budgets_of

    with losing(world.store, 1, written=True):
        moved = await world.desk.try_again(MEMBER, job.id)

    assert moved.state is State.QUEUED


@on_sqlite
async def test_a_click_is_one_paid_call(world: World, database: str, clock: Clock) -> None:
    """Another process carries it out, in doubt once more, before anybody hears of the click: that is a new question."""
    job = await in_doubt(world)
    world.provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))

    async with open_store(database, database_clock=False) as elsewhere:
        engine = make_engine(
            elsewhere, world.provider, world.announcer, clock, world.folder, worker="elsewhere"
        )
        with (
            losing(world.store, 1, written=True, then=engine.run_due),
            pytest.raises(Refusal, match="nothing to try again"),
        ):
            await world.desk.try_again(MEMBER, job.id)
        await engine.run_due()

    assert [request.reference for request in world.provider.submits] == [f"{job.id}-1", f"{job.id}-2"]


@on_sqlite
async def test_a_doubt_is_told(plain: World, quiet: None) -> None:
    """A process died in its paid call. Whichever answer is lost to the next one, the card asks the member what to do."""
    for number in range(1, LONGEST_LIFE):
        job = await plain.ask()
        await in_paid_call(plain.store, slots=1, worker="the dead one", now=plain.clock.now())
        plain.reborn()
        with losing(plain.store, number, written=True) as seen:
            for _ in range(3):
                await plain.engine.run_due()
                plain.clock.pass_by(seconds=10)

        assert plain.announcer.cards[job.id][0].state is State.UNSURE, f"commit {number}"
        await plain.desk.let_go(MEMBER, job.id)
        if len(seen) < number:  # all commits had their turn
            return
    raise AssertionError("a life without an end")


@on_sqlite
async def test_a_late_answer_outlives_a_database_that_flickers(plain: World, quiet: None) -> None:
    """Others took the process for dead, then the paid answer came. Whichever statement is refused, its clip is posted."""

    async def answered_late(number: int) -> tuple[Job, list[int]]:
        statements: list[list[int]] = []
        with ExitStack() as flicker:

            async def late() -> Accepted:
                plain.clock.pass_by(seconds=40)
                await plain.store.rescue("other", stale=STALE, now=plain.clock.now())
                statements.append(flicker.enter_context(flickering(plain.store, number)))
                return Accepted(f"task {number}")

            plain.provider.on_submit.append(late)
            job = await plain.ask()
            await plain.engine._take()
            while plain.engine._tasks:
                await asyncio.wait(plain.engine._tasks)
        [seen] = statements
        return await until(plain, job, State.DELIVERED), seen

    for number in range(1, LONGEST_LIFE):
        plain.reborn()

        job, seen = await answered_late(number)

        assert job.provider_task == f"task {number}"
        if len(seen) < number:  # all statements had their turn
            return
    raise AssertionError("a life without an end")
