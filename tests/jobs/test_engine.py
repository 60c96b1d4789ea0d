"""The engine: a job from the line to its end, and what it does when things go wrong."""

import asyncio
import os
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from bot.errors import Cause, ProviderBusy, ProviderRejected, ProviderUnsure
from bot.jobs.announcing import CannotPost, PictureGone, Pictures, PostLater, Waiting
from bot.jobs.desk import Who
from bot.jobs.machine import Accepted, Broke, Charge, Job, Outcome, Ready, State, StillRendering
from bot.jobs.ownership import STALE
from bot.jobs.store import Store
from tests.conftest import Clock, in_paid_call
from tests.jobs.world import Slow, World, make_engine, make_world

on_sqlite = pytest.mark.parametrize("database", ["sqlite"], indirect=True)  # of two that do not differ here

MODERATOR = Who(id=99, channel_id=10, moderator=True)


async def test_a_clip_is_made_and_posted(world: World) -> None:
    """From the line to the post: one submit, one post, the card taken away, the file cleared."""
    job = await world.ask()

    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()

    done = await world.now(job)
    assert done.state is State.DELIVERED
    assert done.post_id == 2001
    assert done.charge is Charge.CHARGED
    assert [request.reference for request in world.provider.submits] == [f"{job.id}-1"]
    assert world.announcer.posts == world.announcer.finished == [job.id]
    assert list(world.folder.iterdir()) == []


async def test_the_request_carries_what_was_asked(world: World) -> None:
    """Every option reaches the provider, with the picture fetched from Discord."""
    await world.ask(seconds=10, quality="pro", negative_prompt="blur", strength=0.8)

    await world.engine.run_due()

    request = world.provider.submits[0]
    assert (request.seconds, request.quality, request.negative_prompt, request.strength) == (
        10,
        "pro",
        "blur",
        0.8,
    )
    assert request.picture
    assert request.picture.data == b"picture"


async def test_it_asks_again_while_the_clip_renders(world: World) -> None:
    """The first poll comes after a while, the next at a learned pace; nothing is written meanwhile."""
    world.provider.on_check.extend([StillRendering(), StillRendering(progress=0.5)])
    job = await world.ask()
    await world.engine.run_due()
    rendering = await world.now(job)

    await world.engine.run_due()
    assert world.provider.checks == []
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    world.clock.pass_by(seconds=4)
    await world.engine.run_due()
    assert len(world.provider.checks) == 1
    world.clock.pass_by(seconds=30)
    await world.engine.run_due()

    assert len(world.provider.checks) == 2
    assert await world.now(job) == rendering


async def test_what_past_clips_took_is_promised_for_the_next(world: World) -> None:
    """Where the route tells queued from rendering, a clip's time counts from when its rendering began."""
    for _ in range(6):
        world.provider.on_check.extend([StillRendering(queued=True), StillRendering(queued=False)])
        job = await world.ask()
        await world.engine.run_due()
        while (await world.now(job)).state is not State.DELIVERED:
            world.clock.pass_by(seconds=1)
            await world.engine.run_due()

    job = await world.ask()
    await world.engine.run_due()

    due = world.announcer.cards[job.id][1].due
    assert due
    rendered = await world.store.durations(job)
    assert max(rendered) < timedelta(minutes=1)
    slack = timedelta(seconds=2)
    assert min(rendered) - slack <= due - world.clock.now() <= max(rendered) + slack


async def test_the_card_says_when_the_clip_is_due(world: World) -> None:
    """A learned or planned time, once it renders."""
    job = await world.ask()

    await world.engine.run_due()

    drawn, waiting = world.announcer.cards[job.id]
    assert drawn.state is State.RENDERING
    assert waiting.due == world.clock.now() + timedelta(minutes=3)


async def test_a_busy_provider_is_asked_later(world: World) -> None:
    """Surely not taken: back to the line, no charge, and a second submit when the pause is over."""
    world.provider.on_submit.append(ProviderBusy(retry_after=timedelta(seconds=40)))
    job = await world.ask()

    await world.engine.run_due()
    assert (await world.now(job)).state is State.QUEUED
    world.clock.pass_by(seconds=39)
    await world.engine.run_due()
    assert len(world.provider.submits) == 1
    world.clock.pass_by(seconds=1)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.RENDERING
    assert [request.reference for request in world.provider.submits] == [f"{job.id}-1", f"{job.id}-2"]


async def test_a_refused_job_fails_without_a_charge(world: World) -> None:
    """The card gets the cause; it is not tried again."""
    world.provider.on_submit.append(ProviderRejected(Cause.MODERATION))
    job = await world.ask()

    await world.engine.run_due()
    world.clock.pass_by(hours=1)
    await world.engine.run_due()

    failed = await world.now(job)
    assert (failed.state, failed.cause, failed.charge) == (State.FAILED, Cause.MODERATION, Charge.NONE)
    assert len(world.provider.submits) == 1
    assert world.announcer.cards[job.id][0] == failed


@pytest.mark.parametrize(
    "lost", [ProviderUnsure(Cause.NO_ANSWER), RuntimeError("a bug after the request went out")]
)
async def test_a_lost_answer_is_never_a_second_submit(world: World, lost: Exception) -> None:
    """Nobody knows whether it was taken: the job waits for a person, however long it takes."""
    world.provider.on_submit.append(lost)
    job = await world.ask()

    await world.engine.run_due()
    world.clock.pass_by(hours=5)
    await world.engine.run_due()

    unsure = await world.now(job)
    assert (unsure.state, unsure.charge) == (State.UNSURE, Charge.MAYBE)
    assert len(world.provider.submits) == 1


@on_sqlite
@pytest.mark.usefixtures("quiet")
async def test_a_paid_answer_that_cannot_be_written_is_never_paid_again(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its commit fails for a reason that does not pass: a doubt for a person, not a second call."""
    advance = world.store.advance

    async def fail(job: Job, outcome: Outcome, now: datetime, **how: bool) -> Job | None:
        if isinstance(outcome, Accepted):
            raise TypeError("a bug")
        return await advance(job, outcome, now, **how)

    monkeypatch.setattr(world.store, "advance", fail)
    job = await world.ask()

    for _ in range(4):
        await world.engine.run_due()
        world.clock.pass_by(seconds=10)

    found = await world.now(job)
    assert (found.state, found.charge) == (State.UNSURE, Charge.MAYBE)
    assert len(world.provider.submits) == 1


async def test_a_click_submits_an_unsure_job_again(world: World) -> None:
    """The asker, or a moderator, takes the risk; then, and only then, it is submitted once more."""
    world.provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    job = await world.ask()
    await world.engine.run_due()

    await world.desk.try_again(MODERATOR, job.id)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.RENDERING
    assert len(world.provider.submits) == 2


async def test_an_unsure_job_ends_after_a_day(world: World) -> None:
    """Nobody clicked: the reservation is not kept for ever, and the end says that nobody knows."""
    world.provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    job = await world.ask()
    await world.engine.run_due()

    world.clock.pass_by(hours=25)
    await world.engine.run_due()

    ended = await world.now(job)
    assert (ended.state, ended.charge) == (State.FAILED, Charge.MAYBE)


async def test_a_job_found_before_its_paid_call_is_made(world: World) -> None:
    """The process died while it fetched the picture: nothing was sent, so there is no doubt, and nobody notices."""
    job = await world.ask()
    await world.store.claim("makevid", slots=1, worker="the dead one", now=world.clock.now())

    await world.reborn().run_due()

    made = await world.now(job)
    assert (made.state, made.attempt) == (State.RENDERING, 1)
    assert [request.reference for request in world.provider.submits] == [f"{job.id}-1"]


async def test_a_claim_called_off_is_not_paid(world: World) -> None:
    """The member cancels while the picture is being fetched."""

    async def called_off() -> Pictures:
        await world.desk.cancel(Who(id=2, channel_id=10), job.id)
        return Pictures()

    world.announcer.on_pictures.append(called_off)
    job = await world.ask()

    await world.engine.run_due()

    assert (await world.now(job)).state is State.CANCELLED
    assert world.provider.submits == []


async def test_a_job_found_in_its_paid_call_becomes_unsure(world: World) -> None:
    """The process died between intent and answer: the next one does not submit again."""
    job = await world.ask()
    await in_paid_call(world.store, slots=1, worker="the dead one", now=world.clock.now())

    await world.reborn().run_due()

    found = await world.now(job)
    assert (found.state, found.cause) == (State.UNSURE, Cause.INTERRUPTED)
    assert world.provider.submits == []


@on_sqlite
async def test_a_doubt_is_told_by_the_next_process(world: World) -> None:
    """Who found it died right after writing it down: the card has to ask the member all the same."""
    job = await world.ask()
    await in_paid_call(world.store, slots=1, worker="the dead one", now=world.clock.now())
    await world.store.rescue("died right after", stale=STALE, now=world.clock.now())

    await world.reborn().run_due()

    assert world.announcer.cards[job.id][0].state is State.UNSURE


@on_sqlite
async def test_an_end_is_told_by_the_next_process(world: World) -> None:
    """The process died between writing it down and drawing it: the card does not go on rendering."""
    job = await world.ask()
    await world.engine.run_due()
    ending = Broke(Cause.MODERATION, charged=False)
    ended = await world.store.advance(await world.now(job), ending, world.clock.now())

    await world.reborn().run_due()

    assert world.announcer.cards[job.id][0] == ended


async def test_a_rendering_job_is_taken_up_after_a_restart(world: World) -> None:
    """The provider's id is in the row: the new process asks for it and posts, without a new submit."""
    job = await world.ask()
    await world.engine.run_due()

    world.clock.pass_by(minutes=5)
    await world.reborn().run_due()

    assert (await world.now(job)).state is State.DELIVERED
    assert len(world.provider.submits) == 1


async def test_a_post_that_was_made_but_not_written_down_is_found(world: World) -> None:
    """The process died after posting: the next one looks in the channel and posts no second copy."""
    job = await world.ask()
    world.announcer.on_post.append(PostLater(Cause.DISCORD_DOWN))
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    world.announcer.found = 4711

    world.clock.pass_by(minutes=10)
    await world.reborn().run_due()

    assert (await world.now(job)).post_id == 4711
    assert world.announcer.posts == []


async def test_a_poll_without_an_answer_is_no_failure(world: World) -> None:
    """Trouble while asking costs nothing: the next poll finds the clip."""
    world.provider.on_check.extend(
        [ProviderUnsure(Cause.NO_ANSWER), ProviderBusy(), ProviderRejected(Cause.BROKEN, "404")]
    )
    job = await world.ask()
    await world.engine.run_due()

    for _ in range(4):
        world.clock.pass_by(seconds=40)
        await world.engine.run_due()

    assert (await world.now(job)).state is State.DELIVERED


async def told_to_wait(world: World) -> Job:
    """A rendering job whose provider, asked once, wants to be left alone for five minutes."""
    job = await world.ask()
    await world.engine.run_due()
    world.provider.on_check.append(ProviderBusy(retry_after=timedelta(minutes=5)))
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    assert len(world.provider.checks) == 1
    return job


@on_sqlite
@pytest.mark.parametrize("hinted", [False, True])
async def test_a_provider_that_says_when_is_asked_then(world: World, *, hinted: bool) -> None:
    """Not before, also when somebody says that the job has moved."""
    job = await told_to_wait(world)

    if hinted:
        world.engine.hint(job.id)
    world.clock.pass_by(seconds=299)
    await world.engine.run_due()
    assert len(world.provider.checks) == 1
    world.clock.pass_by(seconds=1)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.DELIVERED


@on_sqlite
async def test_what_was_promised_is_promised_anew_when_rendering_begins(world: World) -> None:
    """From the provider's own queue it comes later than the submit let hope: the card says so as soon as it is known."""
    world.provider.on_check.extend([StillRendering(queued=True), StillRendering(queued=False)])
    job = await world.ask()
    await world.engine.run_due()
    submitted = world.clock.now()

    while len(world.provider.checks) < 2:
        assert world.announcer.cards[job.id][1].due == submitted + timedelta(minutes=3)
        world.clock.pass_by(seconds=5)
        await world.engine.run_due()

    assert world.announcer.cards[job.id][1].due == world.clock.now() + timedelta(minutes=3)


async def test_a_late_clip_is_still_posted(world: World) -> None:
    """Past the deadline the card says so, it is asked slowly, and what was paid for arrives."""
    world.provider.on_check.extend([StillRendering()] * 2)
    job = await world.ask()
    await world.engine.run_due()

    world.clock.pass_by(minutes=20)
    await world.engine.run_due()
    assert world.announcer.cards[job.id][1].late
    world.clock.pass_by(minutes=5)
    await world.engine.run_due()
    world.clock.pass_by(minutes=5)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.DELIVERED


async def test_a_clip_that_never_comes_ends_after_a_day(world: World) -> None:
    """A bounded wait, and an honest end: it may have been charged."""
    job = await world.ask()
    world.provider.on_check.extend([StillRendering()] * 1000)
    await world.engine.run_due()

    for _ in range(30):
        world.clock.pass_by(hours=1)
        await world.engine.run_due()

    ended = await world.now(job)
    assert (ended.state, ended.cause, ended.charge) == (State.FAILED, Cause.OVERDUE, Charge.MAYBE)


@pytest.mark.parametrize(
    ("charged", "charge"), [(True, Charge.CHARGED), (False, Charge.NONE), (None, Charge.MAYBE)]
)
async def test_a_failure_says_what_it_cost(world: World, charged: bool | None, charge: Charge) -> None:
    """The provider knows, or nobody does."""
    world.provider.on_check.append(Broke(Cause.MODERATION, charged=charged))
    job = await world.ask()
    await world.engine.run_due()

    world.clock.pass_by(seconds=10)
    await world.engine.run_due()

    failed = await world.now(job)
    assert (failed.state, failed.cause, failed.charge) == (State.FAILED, Cause.MODERATION, charge)


async def test_an_expired_link_is_asked_for_anew(world: World) -> None:
    """The clip is paid: a dead link is renewed, not given up."""
    world.provider.on_check.extend([Ready("https://old"), Ready("https://new")])
    world.provider.on_fetch.append(ProviderRejected(Cause.CLIP_GONE))
    job = await world.ask()
    await world.engine.run_due()

    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    world.clock.pass_by(seconds=5)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.DELIVERED
    assert world.provider.fetches == ["https://old", "https://new"]


NO_DISK = ProviderUnsure(Cause.BROKEN, "no space left on the device")


@on_sqlite
async def test_a_link_that_died_while_the_disk_was_full_is_asked_for_anew(world: World) -> None:
    """Trouble of another kind, however often, does not use up the fresh links of a paid clip."""
    world.provider.on_check.extend([Ready("https://old"), Ready("https://new")])
    world.provider.on_fetch.extend([NO_DISK] * 7 + [ProviderRejected(Cause.CLIP_GONE)])
    job = await world.ask()
    await world.engine.run_due()

    for _ in range(10):
        world.clock.pass_by(minutes=5)
        await world.engine.run_due()

    assert (await world.now(job)).state is State.DELIVERED
    assert world.provider.fetches[-2:] == ["https://old", "https://new"]


@on_sqlite
async def test_a_link_that_died_while_discord_was_away_is_asked_for_anew(world: World) -> None:
    """Another host, which has not the file, goes on with the job."""
    world.announcer.on_post.extend([PostLater(Cause.DISCORD_DOWN)] * 7)
    world.provider.on_check.extend([Ready("https://old"), Ready("https://new")])
    job = await world.ask()
    await world.engine.run_due()
    while world.announcer.on_post:
        world.clock.pass_by(minutes=5)
        await world.engine.run_due()
    (world.folder / f"{job.id}.mp4").unlink()
    world.provider.on_fetch.append(ProviderRejected(Cause.CLIP_GONE))

    world.reborn()
    for _ in range(3):
        world.clock.pass_by(minutes=5)
        await world.engine.run_due()

    assert (await world.now(job)).state is State.DELIVERED


async def test_a_clip_that_is_gone_is_said_to_be_gone(world: World) -> None:
    """The provider dropped it: failed, and charged."""
    world.provider.on_check.extend([Ready("https://old"), Broke(Cause.BROKEN)])
    world.provider.on_fetch.append(ProviderRejected(Cause.CLIP_GONE))
    job = await world.ask()
    await world.engine.run_due()

    world.clock.pass_by(seconds=10)
    await world.engine.run_due()

    failed = await world.now(job)
    assert (failed.state, failed.cause, failed.charge) == (
        State.FAILED,
        Cause.CLIP_GONE,
        Charge.CHARGED,
    )


@on_sqlite
async def test_a_clip_whose_links_never_work_is_given_up(world: World) -> None:
    """Each new link was dead as well: after six of them, no more is asked for."""
    world.provider.on_check.extend(Ready(f"https://link-{number}") for number in range(99))
    world.provider.on_fetch.extend([ProviderRejected(Cause.CLIP_GONE)] * 99)
    job = await world.ask()

    for _ in range(9):
        await world.engine.run_due()
        world.clock.pass_by(minutes=1)

    failed = await world.now(job)
    assert (failed.state, failed.cause, failed.charge) == (State.FAILED, Cause.CLIP_GONE, Charge.CHARGED)
    assert world.provider.fetches == [f"https://link-{number}" for number in range(7)]


async def test_a_post_that_discord_refuses_for_now_is_tried_again(world: World) -> None:
    """The clip is downloaded once and kept until its post is written down."""
    world.announcer.on_post.extend([PostLater(Cause.DISCORD_DOWN)] * 2)
    job = await world.ask()
    await world.engine.run_due()

    for _ in range(4):
        world.clock.pass_by(seconds=30)
        await world.engine.run_due()

    assert (await world.now(job)).state is State.DELIVERED
    assert len(world.provider.fetches) == 1
    assert len(world.announcer.posts) == 1


async def test_a_clip_that_cannot_be_posted_is_kept(world: World) -> None:
    """No retry storm on a lost permission and closed direct messages; the paid clip stays on disk."""
    world.announcer.on_post.append(CannotPost(Cause.NO_PERMISSION))
    world.announcer.on_private.append(CannotPost(Cause.NO_PERMISSION))
    job = await world.ask()
    await world.engine.run_due()

    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    world.clock.pass_by(hours=1)
    await world.engine.run_due()

    ended = await world.now(job)
    assert (ended.state, ended.cause) == (State.UNDELIVERABLE, Cause.NO_PERMISSION)
    assert (world.folder / f"{job.id}.mp4").exists()


async def test_a_clip_that_the_channel_does_not_take_goes_to_its_asker(world: World) -> None:
    """At once, and again later while Discord does not answer."""
    world.announcer.on_post.extend([CannotPost(Cause.CHANNEL_GONE)] * 2)
    world.announcer.on_private.append(PostLater(Cause.DISCORD_DOWN))
    job = await world.ask()
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    assert (await world.now(job)).state is State.POSTING

    world.clock.pass_by(minutes=1)
    await world.engine.run_due()

    done = await world.now(job)
    assert (done.state, done.post_id, done.post_channel_id) == (State.DELIVERED, 3001, 77)
    assert world.announcer.posts == []


@on_sqlite
async def test_what_may_be_with_its_asker_is_not_posted_in_the_channel_too(world: World) -> None:
    """The answer to the direct message was lost; the channel would take posts again, and that makes no second one."""
    world.announcer.on_post.append(CannotPost(Cause.NO_PERMISSION))
    world.announcer.on_private.append(PostLater(Cause.DISCORD_DOWN))
    job = await world.ask()
    await world.engine.run_due()

    for _ in range(3):
        world.clock.pass_by(minutes=1)
        await world.engine.run_due()

    done = await world.now(job)
    assert (done.state, done.post_channel_id) == (State.DELIVERED, 77)
    assert world.announcer.posts == []


async def test_a_post_that_somebody_deleted_is_not_sent_again(world: World) -> None:
    """It was seen, and somebody did not want it."""
    world.announcer.on_post.append(CannotPost(Cause.POST_DELETED))
    job = await world.ask()
    await world.engine.run_due()

    world.clock.pass_by(seconds=10)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.UNDELIVERABLE
    assert world.announcer.private == []


async def test_a_picture_that_is_gone_costs_nothing(world: World) -> None:
    """The card was deleted before the submit: nothing is sent to the provider."""
    world.announcer.on_pictures.append(PictureGone())
    job = await world.ask()

    await world.engine.run_due()

    failed = await world.now(job)
    assert (failed.state, failed.cause, failed.charge) == (
        State.FAILED,
        Cause.PICTURE_GONE,
        Charge.NONE,
    )
    assert world.provider.submits == []


async def test_a_picture_out_of_reach_is_fetched_later(world: World) -> None:
    """Discord is away for a moment: nothing was sent, so the job goes back to the line."""
    world.announcer.on_pictures.append(PostLater(Cause.DISCORD_DOWN))
    job = await world.ask()

    await world.engine.run_due()
    assert (await world.now(job)).state is State.QUEUED
    world.clock.pass_by(minutes=1)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.RENDERING
    assert len(world.provider.submits) == 1


async def test_a_post_without_its_picture_is_still_a_post(world: World) -> None:
    """Somebody deleted the card while it rendered: the clip arrives all the same."""
    job = await world.ask()
    await world.engine.run_due()
    world.announcer.on_pictures.append(PictureGone())

    world.clock.pass_by(seconds=10)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.DELIVERED


async def test_only_as_many_jobs_run_as_the_route_has_slots(world: World) -> None:
    """The third waits until one of two is done, and its card says its place."""
    world.provider.on_check.extend([StillRendering(), Ready("https://x")])
    for _ in range(2):
        await world.ask()
        world.clock.pass_by(seconds=1)
    third = await world.ask()

    await world.engine.run_due()
    assert len(world.provider.submits) == 2
    assert world.announcer.cards[third.id][1].place == 1
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()

    assert len(world.provider.submits) == 3


async def test_a_free_slot_is_filled_while_clips_are_being_posted(world: World) -> None:
    """Nobody waits at the provider's door for somebody else's upload, nor for the loop's next look."""
    engine, posting, posted = world.engine, asyncio.Event(), asyncio.Event()

    async def slow() -> None:
        posting.set()
        await posted.wait()

    world.announcer.on_post.extend([slow, slow])
    jobs = [await world.ask() for _ in range(3)]
    await engine._take()
    await asyncio.gather(*engine._tasks)
    world.clock.pass_by(seconds=10)
    engine._woken.clear()
    await engine._take()
    await asyncio.wait_for(posting.wait(), 30)

    assert engine._woken.is_set()
    await engine._take()
    while len(world.provider.submits) < len(jobs):
        await asyncio.wait(engine._tasks, return_when=asyncio.FIRST_COMPLETED)
    assert not posted.is_set()
    posted.set()
    await world.engine.run_due()


async def test_the_line_is_drawn_once_a_second(world: World) -> None:
    """Discord takes few edits: who stands at the head of a line learns the last place, not each."""
    drawn: list[int | None] = []
    draw = world.announcer.draw

    async def noting(job: Job, waiting: Waiting) -> None:
        if job.state is State.QUEUED:
            drawn.append(waiting.place)
        await draw(job, waiting)

    world.announcer.draw = noting  # type: ignore[method-assign]
    world.provider.on_check.extend([StillRendering()] * 9)
    for _ in range(3):
        await world.ask()
        world.clock.pass_by(seconds=0.1)
    await world.engine.run_due()
    assert drawn == [1]
    last = await world.ask()
    await world.engine.run_due()
    assert drawn == [1]

    world.clock.pass_by(seconds=1)
    await world.engine.run_due()

    assert drawn == [1, 1, 2]
    assert world.announcer.cards[last.id][1].place == 2


async def test_a_draft_without_a_card_is_dropped(world: World) -> None:
    """The process died before the card was posted: nothing was paid, and the place is freed."""
    from tests.jobs.test_store import a_job

    draft = await world.store.add(a_job(world.clock))

    await world.engine.run_due()
    assert (await world.now(draft)).state is State.DRAFT
    world.clock.pass_by(minutes=16)
    await world.engine.run_due()

    assert (await world.now(draft)).state is State.CANCELLED


async def test_the_trouble_of_one_job_is_not_that_of_others(world: World) -> None:
    """A bug in one step is logged, and the step is tried again; the other job is delivered."""
    world.provider.on_check.append(RuntimeError("a bug"))
    first, second = await world.ask(), await world.ask()
    await world.engine.run_due()

    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    states = sorted([(await world.now(first)).state, (await world.now(second)).state])
    assert states == [State.DELIVERED, State.RENDERING]
    world.clock.pass_by(seconds=30)
    await world.engine.run_due()

    assert (await world.now(first)).state is (await world.now(second)).state is State.DELIVERED


async def test_stopping_lets_the_paid_call_finish(world: World) -> None:
    """A stop during the paid call waits for its answer and writes it down."""
    answer = Slow(Accepted("slow-task"))
    world.provider.on_submit.append(answer)
    job = await world.ask()
    running = asyncio.create_task(world.engine.run())
    await answer.asked()

    world.engine.stop()
    answer.go_on()
    await running

    assert (await world.now(job)).provider_task == "slow-task"


@on_sqlite
async def test_a_process_that_stops_is_not_taken_for_dead(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is in hand has its grace, longer than a heartbeat is fresh: no doubt arises from it."""
    monkeypatch.setattr("bot.jobs.engine.IDLE", 0.001)
    answer = Slow(Accepted("slow-task"))
    world.provider.on_submit.append(answer)
    job = await world.ask()
    running = asyncio.create_task(world.engine.run())
    await answer.asked()

    world.engine.stop()
    for _ in range(8):
        world.clock.pass_by(seconds=5)
        async with asyncio.timeout(10):
            while any((await world.store.heard_of(world.clock.now())).values()):
                pass
    taken = await world.store.rescue("other", stale=STALE, now=world.clock.now())
    answer.go_on()
    await running

    assert taken == []
    assert [state for _, state in await world.store.history(job.id)] == [
        State.DRAFT,
        State.QUEUED,
        State.PREPARING,
        State.SUBMITTING,
        State.RENDERING,
    ]


async def test_a_call_cut_off_by_the_stop_is_unsure(world: World) -> None:
    """The grace is over: nobody will ever know the answer, and the row says so."""
    entered = asyncio.Event()

    async def never() -> object:
        entered.set()
        return await asyncio.Event().wait()

    world.provider.on_submit.append(never)
    job = await world.ask()
    running = asyncio.create_task(world.engine.run(grace=timedelta(0)))
    await entered.wait()

    world.engine.stop()
    await running

    cut = await world.now(job)
    assert (cut.state, cut.cause) == (State.UNSURE, Cause.INTERRUPTED)


async def test_files_that_nobody_asks_for_again_are_cleared_away(world: World) -> None:
    """Left-overs of a killed process go; a clip that waits to be posted, or is kept for a while, stays."""
    posting, undeliverable = await world.ask(), await world.ask()
    world.announcer.on_post.extend([PostLater(Cause.DISCORD_DOWN), CannotPost(Cause.CLIP_TOO_LARGE)])
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    if (await world.now(posting)).state is State.UNDELIVERABLE:  # they are delivered side by side
        posting, undeliverable = undeliverable, posting
    assert (await world.now(posting)).state is State.POSTING
    assert (await world.now(undeliverable)).state is State.UNDELIVERABLE
    strangers = [world.folder / name for name in (f".{posting.id}.part", "nobody.mp4", "nobody.fitted.mp4")]
    for path in strangers:
        path.write_bytes(b"left over")
    for path in world.folder.iterdir():
        os.utime(path, (0, 0))

    world.announcer.on_post.extend([PostLater(Cause.DISCORD_DOWN)] * 9)
    world.clock.pass_by(hours=2)
    await world.engine.run_due()
    assert sorted(path.name for path in world.folder.iterdir()) == sorted(
        [f"{posting.id}.mp4", f"{undeliverable.id}.mp4"]
    )
    world.clock.pass_by(days=8)
    await world.engine.run_due()

    assert not (world.folder / f"{undeliverable.id}.mp4").exists()


async def test_a_claim_whose_commit_was_not_answered_goes_back_to_the_line(world: World) -> None:
    """The row says that this worker submits it, but no task ever began: nothing was sent."""
    job = await world.ask()
    await world.store.claim("makevid", slots=9, worker="worker-1", now=world.clock.now())

    await world.engine.run_due()

    assert (await world.now(job)).state is State.RENDERING
    assert len(world.provider.submits) == 1


async def test_a_card_that_still_stands_is_taken_away_later(world: World) -> None:
    """Whether the process died after the post was written down, or Discord did not answer: it is tried again."""
    world.announcer.on_finish.extend([False, True])
    job = await world.ask()
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    assert (await world.now(job)).card_id

    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()

    done = await world.now(job)
    assert (done.state, done.card_id) == (State.DELIVERED, None)
    assert world.announcer.finished == [job.id] * 2


async def test_a_forgotten_draft_is_called_off_with_the_card_it_may_have(world: World) -> None:
    """The process died between the card and its note in the row."""
    draft = await world.store.add(
        Job(
            id="draft",
            created_at=world.clock.now(),
            changed_at=world.clock.now(),
            channel_id=10,
            asker_id=2,
            model="kling",
            route="makevid",
            variant="kling",
            prompt="waves",
            seconds=5,
        )
    )

    world.clock.pass_by(minutes=15)
    await world.engine.run_due()

    assert (await world.now(draft)).state is State.CANCELLED
    assert world.announcer.cleared == ["draft"]


async def test_a_bug_after_the_end_holds_nobody_up(world: World) -> None:
    """The clip is delivered, though its card stands until the sweep; the others go on."""
    world.announcer.on_finish.append(RuntimeError())
    job = await world.ask()
    for _ in range(3):
        await world.engine.run_due()
        world.clock.pass_by(seconds=10)
    other = await world.ask(asker=3)
    for _ in range(6):
        await world.engine.run_due()
        world.clock.pass_by(seconds=20)

    assert {(await world.now(each)).state for each in (job, other)} == {State.DELIVERED}
    assert (await world.now(job)).card_id is None


async def test_a_bug_before_the_intent_holds_nobody_up(store: Store, clock: Clock, tmp_path: Path) -> None:
    """The claimed job goes back to the line with the next sweep, however late; the others are made meanwhile."""
    world = make_world(store, clock, tmp_path / "clips")
    provider, board = world.provider, world.announcer
    engine = make_engine(store, provider, board, clock, tmp_path / "clips", stale=timedelta(minutes=10))

    def broken(_route: str, _reference: str) -> str | None:
        raise RuntimeError

    usual, engine.callback = engine.callback, broken
    job = await world.ask()
    await engine.run_due()
    engine.callback = usual
    other = await world.ask(asker=3)

    for _ in range(4):
        clock.pass_by(seconds=20)
        await engine.run_due()
    assert (await world.now(job)).state is State.PREPARING
    assert (await world.now(other)).state is State.DELIVERED

    for _ in range(12):
        clock.pass_by(seconds=20)
        await engine.run_due()
    assert (await world.now(job)).state is State.DELIVERED
    assert len(provider.submits) == 2
