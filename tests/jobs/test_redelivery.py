"""A clip that could not be posted is posted where its asker wants it: once, and not paid again."""

import pytest

from bot.errors import Cause, ProviderBusy, ProviderRejected, Refusal
from bot.jobs.announcing import CannotPost, PostLater
from bot.jobs.desk import Who
from bot.jobs.machine import Broke, Charge, Job, Ready, State
from tests.jobs.world import World

ADA = Who(id=2, channel_id=55, guild_id=1)
PAID = {"reserve": 35, "charge": 35}


async def undeliverable(world: World) -> Job:
    """A clip that was paid and made, and that Discord would not take."""
    for door in (world.announcer.on_post, world.announcer.on_private):
        door.append(CannotPost(Cause.NO_PERMISSION))
    job = await world.ask()
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    job = await world.now(job)
    assert job.state is State.UNDELIVERABLE
    return job


async def work(world: World, seconds: float = 10) -> None:
    world.clock.pass_by(seconds=seconds)
    await world.engine.run_due()


async def test_posted_where_the_asker_is(world: World) -> None:
    """From the file that was kept: nothing is fetched, and nothing is paid again."""
    job = await undeliverable(world)

    await world.desk.redeliver(ADA, job.id)
    await work(world)

    done = await world.now(job)
    assert (done.state, done.channel_id, done.card_channel_id) == (State.DELIVERED, 55, 10)
    assert world.announcer.posts == [job.id]
    assert (len(world.provider.submits), len(world.provider.fetches)) == (1, 1)
    assert await world.store.money(job.id) == PAID
    assert not (world.folder / f"{job.id}.mp4").exists()
    assert await world.audited() == []


async def test_weeks_later_it_is_fetched_again(world: World) -> None:
    """The file was cleared away, or lies on another machine; an expired link is asked for anew."""
    job = await undeliverable(world)
    (world.folder / f"{job.id}.mp4").unlink()
    world.provider.on_fetch.append(ProviderRejected(Cause.CLIP_GONE))
    world.provider.on_check.append(Ready("https://cdn.example/fresh.mp4"))

    world.clock.pass_by(days=20)
    await world.desk.redeliver(ADA, job.id)
    for _ in range(4):
        await work(world)

    assert (await world.now(job)).state is State.DELIVERED
    assert world.provider.fetches[-1] == "https://cdn.example/fresh.mp4"
    assert world.announcer.posts == [job.id]
    assert await world.store.money(job.id) == PAID


async def test_a_clip_that_is_truly_gone(world: World) -> None:
    """The provider has it no longer: an honest end, and a sentence for whoever asks again."""
    job = await undeliverable(world)
    (world.folder / f"{job.id}.mp4").unlink()
    world.provider.on_fetch.append(ProviderRejected(Cause.CLIP_GONE))
    world.provider.on_check.append(Broke(Cause.CLIP_GONE))

    await world.desk.redeliver(ADA, job.id)
    await work(world)

    ended = await world.now(job)
    assert (ended.state, ended.cause, ended.charge) == (State.FAILED, Cause.CLIP_GONE, Charge.CHARGED)
    assert await world.store.money(job.id) == PAID
    with pytest.raises(Refusal, match="nothing left to post"):
        await world.desk.redeliver(ADA, job.id)


async def test_the_next_refusal_of_discord_keeps_it_again(world: World) -> None:
    """Then it can be asked for once more; weeks after the clip was made, posting still has its patience."""
    job = await undeliverable(world)
    world.clock.pass_by(days=20)
    world.announcer.on_post.extend([PostLater(Cause.DISCORD_DOWN), CannotPost(Cause.NO_PERMISSION)])
    world.announcer.on_private.append(CannotPost(Cause.NO_PERMISSION))

    await world.desk.redeliver(ADA, job.id)
    await work(world)
    stumbled = await world.now(job)
    await work(world)
    kept = await world.now(job)
    await world.desk.redeliver(ADA, job.id)
    await work(world)

    assert stumbled.state is State.POSTING
    assert kept.state is State.UNDELIVERABLE
    assert (await world.now(job)).state is State.DELIVERED
    assert world.announcer.posts == [job.id]


async def test_two_presses_post_once(world: World) -> None:
    """The second finds it under way, or done."""
    job = await undeliverable(world)

    await world.desk.redeliver(ADA, job.id)
    again = await world.desk.redeliver(ADA, job.id)
    await work(world)

    assert again.state is State.POSTING
    assert world.announcer.posts == [job.id]
    with pytest.raises(Refusal, match="nothing to post"):
        await world.desk.redeliver(ADA, job.id)


async def test_a_post_whose_answer_was_lost_is_found_before_the_second(world: World) -> None:
    """It stands in the channel after all: written down, and not posted elsewhere."""
    job = await undeliverable(world)
    world.announcer.found = 2077

    found = await world.desk.redeliver(ADA, job.id)
    await work(world)

    assert (found.state, found.post_id, found.channel_id) == (State.DELIVERED, 2077, 10)
    assert world.announcer.posts == []
    assert world.announcer.finished == [job.id]  # the card is taken away
    assert await world.store.money(job.id) == PAID


@pytest.mark.parametrize("found", [None, 2077])
async def test_a_process_that_dies_while_it_posts_once_more(world: World, found: int | None) -> None:
    """Whoever takes the job over looks in the channel first: one post, whether the dead one made it or not."""
    job = await undeliverable(world)
    await world.desk.redeliver(ADA, job.id)
    await world.store.rescue("worker-dead", stale=world.engine._ownership.sweep_every, now=world.clock.now())
    taken = await world.now(job)
    assert taken.worker == "worker-dead"

    world.announcer.found = found
    world.reborn()
    await work(world, 60)
    await work(world, 60)

    done = await world.now(job)
    assert done.state is State.DELIVERED
    assert world.announcer.posts == ([] if found else [job.id])
    assert await world.store.money(job.id) == PAID


async def test_only_its_people_and_only_in_its_server(world: World) -> None:
    """A stranger, another server, and a clip that was posted already are refused."""
    job = await undeliverable(world)

    for who, why in [
        (Who(id=3, channel_id=55, guild_id=1), "Only <@2> and moderators"),
        (Who(id=2, channel_id=55, guild_id=9), "another server"),
    ]:
        with pytest.raises(Refusal, match=why):
            await world.desk.redeliver(who, job.id)
    await world.desk.redeliver(Who(id=3, channel_id=55, guild_id=1, moderator=True), job.id)
    await work(world)

    assert world.announcer.posts == [job.id]


async def test_discord_is_silent_when_we_look(world: World) -> None:
    """Nothing moves: posting unseen might be the second time."""
    job = await undeliverable(world)
    world.announcer.on_find.append(PostLater(Cause.DISCORD_DOWN))

    with pytest.raises(Refusal, match="try again"):
        await world.desk.redeliver(ADA, job.id)

    assert await world.now(job) == job


async def test_a_second_take_is_in_the_queue(world: World) -> None:
    """The constraint for one open take holds: said in words."""
    parent = await world.ask()
    await world.engine.run_due()
    await work(world)
    for door in (world.announcer.on_post, world.announcer.on_private):
        door.append(CannotPost(Cause.NO_PERMISSION))
    job = await world.desk.again(ADA, await world.now(parent))
    await world.engine.run_due()
    await work(world)
    assert (await world.now(job)).state is State.UNDELIVERABLE
    await world.desk.again(ADA, await world.now(parent))

    with pytest.raises(Refusal, match="another take"):
        await world.desk.redeliver(ADA, job.id)


async def test_a_route_that_is_gone_does_not_hold_the_job_for_ever(world: World) -> None:
    """The owner took the route out of the config: asked for a day, then kept again."""
    job = await undeliverable(world)
    (world.folder / f"{job.id}.mp4").unlink()
    world.engine._providers = {}  # type: ignore[assignment]  # as after a restart with another config

    await world.desk.redeliver(ADA, job.id)
    await work(world)
    assert (await world.now(job)).state is State.POSTING
    await work(world, 25 * 3600)

    assert (await world.now(job)).state is State.UNDELIVERABLE


async def test_a_busy_provider_is_asked_again(world: World) -> None:
    """For the clip, not for a new one."""
    job = await undeliverable(world)
    (world.folder / f"{job.id}.mp4").unlink()
    world.provider.on_fetch.append(ProviderBusy())

    await world.desk.redeliver(ADA, job.id)
    await work(world)
    await work(world, 60)

    assert (await world.now(job)).state is State.DELIVERED
    assert len(world.provider.submits) == 1
