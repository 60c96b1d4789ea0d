"""A commit whose answer was lost on the way: nobody knows whether it was written, and the work goes on all the same.

Each life of a job is lived once for every commit in it. That commit either is written and its answer lost, or is not written.
"""

from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from bot.errors import Cause, ProviderUnsure, Refusal
from bot.jobs.desk import Who
from bot.jobs.machine import Accepted, Job, State
from bot.jobs.store import Store
from tests.conftest import Clock
from tests.jobs.world import FindingProvider, World, make_world

MEMBER = Who(id=2, channel_id=10, guild_id=1)
LONGEST_LIFE = 60  # commits

Life = Callable[[World], Awaitable[Job]]


@contextmanager
def losing(store: Store, number: int, *, written: bool) -> Iterator[list[int]]:
    """The answer to this commit of the store is lost. Gives the numbers of the commits that came by."""
    dialect: Any = store._writes.sync_engine.dialect
    commit, seen = dialect.do_commit, list[int]()

    def lossy(connection: Any) -> None:
        seen.append(len(seen) + 1)
        lost = seen[-1] == number
        if written or not lost:
            commit(connection)
        if lost:
            raise dialect.loaded_dbapi.OperationalError("the answer was lost")

    dialect.do_commit = lossy
    try:
        yield seen
    finally:
        del dialect.do_commit


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


@pytest.fixture
def world(store: Store, clock: Clock, tmp_path: Path) -> World:
    return make_world(store, clock, tmp_path / "clips", provider=FindingProvider())


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
