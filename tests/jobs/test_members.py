"""Forgetting and consent, on both databases: what goes, what stays, and when."""

import os
from datetime import timedelta

import pytest
from sqlalchemy import func, select

from bot.errors import Cause, Refusal
from bot.jobs.announcing import CannotPost
from bot.jobs.archive import Archive
from bot.jobs.desk import Who
from bot.jobs.machine import Charge, Job, State, StillRendering
from bot.jobs.members import Members
from bot.jobs.tables import ledger, members
from tests.jobs.world import World, make_menu

ADA = Who(id=2, channel_id=10, guild_id=1)


async def delivered(world: World, **changes: object) -> Job:
    job = await world.ask(**changes)  # type: ignore[arg-type]
    await world.engine.run_due()
    await work(world)
    job = await world.now(job)
    assert job.state is State.DELIVERED
    return job


async def work(world: World, seconds: float = 10) -> None:
    world.clock.pass_by(seconds=seconds)
    await world.engine.run_due()


async def costs_by_member(world: World) -> dict[int, int]:
    """What is charged in the books, by member."""
    query = select(ledger.c.asker_id, func.sum(ledger.c.cents)).where(ledger.c.kind == "charge")
    async with world.store.reading() as connection:
        return {
            asker: int(cents) for asker, cents in await connection.execute(query.group_by(ledger.c.asker_id))
        }


async def noted(world: World) -> int:
    async with world.store.reading() as connection:
        return (await connection.execute(select(func.count()).select_from(members))).scalar_one()


async def test_forgetting_takes_words_and_names_and_keeps_the_costs(world: World) -> None:
    """The row has nothing left to tell about anybody; its money is as it was."""
    job = await delivered(world, prompt="waves", negative_prompt="blur")
    other = await delivered(world, asker=3, prompt="dunes")

    await world.desk.forget(ADA, posts=False)
    await work(world)

    gone = await world.now(job)
    assert (gone.asker_id, gone.prompt, gone.negative_prompt, gone.picture_file) == (0, "", None, None)
    assert (gone.card_id, gone.post_id, gone.clip_url, gone.reference, gone.provider_task) == (None,) * 5
    assert (gone.state, gone.charge, gone.price_cents) == (State.DELIVERED, Charge.CHARGED, 35)
    assert await world.store.money(job.id) == {"reserve": 35, "charge": 35}
    assert await world.now(other) == other
    assert world.announcer.erased == [(job.id, False)]
    assert await world.audited() == []
    with pytest.raises(Refusal, match="do not know this clip"):
        await world.desk.job(job.id)


async def test_limits_that_look_back_are_not_escaped_by_it(world: World) -> None:
    """A member's spending stays theirs until no limit of a month counts it; then nobody's. The total stays."""
    await delivered(world)
    await delivered(world, asker=3)

    await world.desk.forget(ADA, posts=False)
    await work(world)
    assert await costs_by_member(world) == {2: 35, 3: 35}
    await work(world, 31 * 86400)
    assert await costs_by_member(world) == {2: 35, 3: 35}
    await work(world, 2 * 86400)

    assert await costs_by_member(world) == {0: 35, 3: 35}
    assert await noted(world) == 0
    assert [finding for finding in await world.audited() if finding.invariant == "I3"] == []


async def test_a_later_clip_keeps_its_name(world: World) -> None:
    """Only what was there when the member asked is forgotten, however old the rest becomes."""
    await delivered(world)
    await world.desk.forget(ADA, posts=False)
    world.clock.pass_by(seconds=1)
    later = await delivered(world)

    await work(world, 60 * 86400)
    await work(world, 3600)

    assert (await world.now(later)).asker_id == 2
    assert await costs_by_member(world) == {0: 35, 2: 35}


async def test_what_is_under_way_ends_first(world: World) -> None:
    """A paid clip is posted in its asker's name; a doubt is kept until somebody knows."""
    world.provider.on_check.extend([StillRendering()] * 3)
    rendering = await world.ask()
    await world.engine.run_due()
    queued = await world.ask()

    done = await world.desk.forget(ADA, posts=False)
    assert (done.cancelled, done.under_way) == (1, 1)
    await work(world)
    assert (await world.now(rendering)).asker_id == 2
    for _ in range(6):
        await work(world, 30)

    assert world.announcer.posts == [rendering.id]
    assert (await world.now(rendering)).asker_id == 0
    assert (await world.now(queued)).state is State.CANCELLED
    assert await world.store.money(queued.id) == {"reserve": 35, "release": 35}
    assert await world.store.money(rendering.id) == {"reserve": 35, "charge": 35}
    assert len(world.provider.submits) == 1


async def test_a_clip_that_could_not_be_posted_is_given_up(world: World) -> None:
    """With its file: nobody can ask for it any more."""
    for door in (world.announcer.on_post, world.announcer.on_private):
        door.append(CannotPost(Cause.NO_PERMISSION))
    job = await world.ask()
    await world.engine.run_due()
    await work(world)
    os.utime(world.folder / f"{job.id}.mp4", (0, 0))  # files are aged by the disk's own clock

    await world.desk.forget(ADA, posts=False)
    await work(world)
    await work(world, 2 * 86400)

    assert not (world.folder / f"{job.id}.mp4").exists()
    assert await world.store.money(job.id) == {"reserve": 35, "charge": 35}


async def test_discord_is_away_when_messages_are_to_go(world: World) -> None:
    """The row waits for its messages, for a day; a process that dies meanwhile leaves it to the next."""
    job = await delivered(world)
    world.announcer.on_erase.extend([False, False])

    await world.desk.forget(ADA, posts=True)
    await work(world)
    assert (await world.now(job)).asker_id == 2
    world.reborn()
    await work(world)
    assert (await world.now(job)).asker_id == 2
    await work(world)

    assert (await world.now(job)).asker_id == 0
    assert world.announcer.erased == [(job.id, True)] * 3


async def test_messages_that_can_never_be_deleted(world: World) -> None:
    """After a day the row does not wait for them any longer."""
    job = await delivered(world)
    world.announcer.on_erase.extend([False] * 50)

    await world.desk.forget(ADA, posts=True)
    await work(world)
    await work(world, 25 * 3600)

    assert (await world.now(job)).asker_id == 0


async def test_many_clips_are_forgotten_a_few_at_a_time(world: World) -> None:
    """So many as Discord takes; the sweep goes on by itself."""
    for n in range(25):
        job = await world.ask(prompt=f"number {n}")
        await world.desk.cancel(ADA, job.id)

    await world.desk.forget(ADA, posts=False)
    await work(world)
    first = len(world.announcer.erased)
    await work(world)

    assert (first, len(world.announcer.erased)) == (20, 25)
    assert await Members(world.store).to_forget() == []


async def test_consent_is_a_row_only_where_there_is_a_wish(world: World) -> None:
    """Whoever allows again leaves nothing behind."""
    await world.desk.withhold_pictures(ADA, True)
    await world.desk.withhold_pictures(ADA, True)
    assert (await world.desk.withholds_pictures(ADA), await noted(world)) == (True, 1)

    await world.desk.withhold_pictures(ADA, False)
    await world.desk.withhold_pictures(ADA, False)

    assert (await world.desk.withholds_pictures(ADA), await noted(world)) == (False, 0)


async def test_a_wish_outlives_forgetting(world: World) -> None:
    """Else it could not be kept to."""
    await world.desk.withhold_pictures(ADA, True)
    await delivered(world)
    await world.desk.forget(ADA, posts=False)
    await work(world)
    await work(world, 33 * 86400)
    await work(world, 3600)

    assert await world.desk.withholds_pictures(ADA)
    assert await costs_by_member(world) == {0: 35}


async def test_the_archive_reads_alike_on_both_databases(world: World) -> None:
    """Line, past, one clip and the export: the same rows in the same order."""
    archive = Archive(
        store=world.store, menu=make_menu(), now=world.clock.now, slots=lambda _route: 2, keep_days=7
    )
    done = [await delivered(world, prompt=f"number {n}") for n in range(3)]
    world.provider.on_check.extend([StillRendering()] * 9)
    running = await world.ask(prompt="running")
    await world.engine.run_due()
    waiting = []
    for n in range(2):
        world.clock.pass_by(seconds=1)
        waiting.append(await world.ask(asker=3, prompt=f"waiting {n}"))

    line = await archive.line(ADA)
    export = await archive.export(ADA, max_bytes=10**6)
    standing = await archive.standing(ADA)

    [(mine, told)] = line.mine
    assert mine.id == running.id
    assert mine.submitted_at
    assert told.due
    assert told.due - mine.submitted_at > timedelta(seconds=1)
    assert line.crowd.by_model == (("kling", 2, 1),)
    assert (line.crowd.members, line.crowd.elsewhere) == (2, 0)
    assert [job.id for job, _ in line.cards] == [running.id, *(job.id for job in waiting)]
    assert [told.place for _, told in line.cards] == [None, 1, 2]
    assert (export.jobs, export.left_out, standing) == (4, 0, (0, 1, 3))
    assert [job.id for job in await archive.recent(ADA, "NUMBER", limit=2)] == [done[2].id, done[1].id]
