"""Pictures that a route wants to have before the paid call: nothing that happens then is a doubt."""

import asyncio
from datetime import timedelta
from pathlib import Path

import pytest

from bot.errors import Cause, ProviderUnsure
from bot.jobs.announcing import Pictures
from bot.jobs.desk import Who
from bot.jobs.machine import Job, State
from bot.jobs.store import Store
from tests.conftest import Clock
from tests.jobs.world import PICTURE, Slow, UploadingProvider, World, make_world

pytestmark = pytest.mark.parametrize("database", ["sqlite"], indirect=True)


@pytest.fixture
def uploading() -> UploadingProvider:
    return UploadingProvider()


@pytest.fixture
def world(store: Store, clock: Clock, tmp_path: Path, uploading: UploadingProvider) -> World:
    return make_world(store, clock, tmp_path / "clips", provider=uploading)


async def back_in_line(world: World, job: Job) -> Job:
    """The job, of which nothing was begun."""
    found = await world.now(job)
    assert (found.state, found.attempt, found.reference) == (State.QUEUED, 0, None)
    assert world.provider.submits == []
    return found


async def test_pictures_are_uploaded_before_the_intent_to_pay(
    world: World, uploading: UploadingProvider
) -> None:
    """A process that dies meanwhile leaves a job that waits; what is paid for carries the route's name for the picture."""
    job = await world.ask()
    seen: list[Job] = []

    async def look() -> None:
        seen.append(await world.now(job))

    uploading.on_upload.append(look)
    await world.engine.run_due()

    assert [(each.state, each.attempt, each.reference) for each in seen] == [(State.PREPARING, 0, None)]
    assert (await world.now(job)).state is State.RENDERING
    [request] = uploading.submits
    assert uploading.uploads == [request.reference] == [f"{job.id}-1"]
    assert request.picture
    assert request.picture.uploaded == "its name there"


@pytest.mark.parametrize("trouble", [ProviderUnsure(Cause.NO_ANSWER), RuntimeError("a bug")])
async def test_an_upload_that_fails_is_tried_again(
    world: World, uploading: UploadingProvider, trouble: Exception
) -> None:
    """No doubt and no attempt: the job waits a little, and the next upload has the same name."""
    uploading.on_upload.append(trouble)
    job = await world.ask()

    await world.engine.run_due()
    waiting = await back_in_line(world, job)
    assert waiting.not_before
    assert waiting.not_before > world.clock.now()
    world.clock.pass_by(minutes=1)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.RENDERING
    assert uploading.uploads == [f"{job.id}-1"] * 2


async def test_uploads_lost_in_a_row_are_the_route_s_trouble(
    world: World, uploading: UploadingProvider
) -> None:
    """As lost answers to any other call."""
    uploading.on_upload.extend([ProviderUnsure(Cause.NO_ANSWER)] * 3)
    await world.ask()

    for _ in range(3):
        await world.engine.run_due()
        world.clock.pass_by(minutes=2)

    assert world.announcer.told == [("makevid", Cause.NO_ANSWER)]


async def test_a_job_called_off_during_the_upload_is_not_paid(
    world: World, uploading: UploadingProvider
) -> None:
    """It can be until the intent to pay is written."""
    job = await world.ask()

    async def call_off() -> None:
        await world.desk.cancel(Who(id=2, channel_id=10), job.id)

    uploading.on_upload.append(call_off)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.CANCELLED
    assert uploading.submits == []


async def test_a_stop_before_the_upload_begins_none(world: World, uploading: UploadingProvider) -> None:
    """Told to stop while the picture is fetched: nothing is begun that it would have to wait for."""

    async def stopped() -> Pictures:
        world.engine.stop()
        return Pictures(first=PICTURE)

    world.announcer.on_pictures.append(stopped)
    job = await world.ask()

    await world.engine.run()

    await back_in_line(world, job)
    assert uploading.uploads == []


async def test_a_stop_during_the_upload_pays_nothing(world: World, uploading: UploadingProvider) -> None:
    """The upload is finished within the grace, the job is in the line again, and no attempt is spent."""
    slow = Slow()
    uploading.on_upload.append(slow)
    job = await world.ask()
    running = asyncio.create_task(world.engine.run())
    await slow.asked()

    world.engine.stop()
    slow.go_on()
    await running

    assert (await back_in_line(world, job)).not_before is None


async def test_an_upload_cut_off_by_the_stop_leaves_no_doubt(
    world: World, uploading: UploadingProvider
) -> None:
    """The grace is over: nothing was paid, so nobody has to decide."""
    slow = Slow()
    uploading.on_upload.append(slow)
    job = await world.ask()
    running = asyncio.create_task(world.engine.run(grace=timedelta(0)))
    await slow.asked()

    world.engine.stop()
    await running

    assert (await back_in_line(world, job)).not_before is None
