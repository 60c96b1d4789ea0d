"""Blocks, reports and what moderators decide, on both databases: who is kept out, what is called off, what stays."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.errors import PrivateRefusal, Refusal
from bot.jobs.announcing import Pictures
from bot.jobs.archive import Archive, Turn
from bot.jobs.browsing import Shelf
from bot.jobs.checks import Checker, Proposal
from bot.jobs.desk import Ask, Who
from bot.jobs.guilds import GuildSettings
from bot.jobs.machine import Charge, Job, State, StillRendering
from bot.jobs.members import Members
from bot.jobs.moderation import Block, Moderation, Verdict
from bot.jobs.safety import BLOCKS_PAGE, REPORTS_A_DAY, Case, Safety
from bot.jobs.store import Store
from bot.jobs.tables import jobs
from tests.conftest import Clock, in_paid_call
from tests.jobs.world import PICTURE, World, make_menu

GUILD = 1
ADA = Who(id=2, channel_id=10, guild_id=GUILD)
BOB = replace(ADA, id=3)
CLEO = replace(ADA, id=4)
NOOR = replace(ADA, id=9, moderator=True)
OWNER = replace(ADA, id=1)
ELSEWHERE = 77


@pytest.fixture
def safety(world: World) -> Safety:
    return Safety(store=world.store, desk=world.desk, announcer=world.announcer, now=world.clock.now)


@pytest.fixture
def moderation(world: World) -> Moderation:
    return Moderation(world.store)


async def delivered(world: World, **changes: Any) -> Job:
    job = await world.ask(**changes)
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    job = await world.now(job)
    assert job.state is State.DELIVERED
    return job


async def ask(world: World, who: Who, **changes: Any) -> Job:
    wanted = Ask(**{"prompt": "waves", "has_picture": True} | changes)
    pictures = Pictures(first=PICTURE if wanted.has_picture else None)
    return await world.desk.request(who, world.desk.plan(wanted), pictures)


def follow(world: World, **settings: Any) -> None:
    async def settings_of(_guild_id: int | None) -> GuildSettings:
        return GuildSettings(**settings)

    world.desk._settings_of = settings_of


# Blocks


async def test_a_blocked_member_gets_nothing_by_any_way(world: World, safety: Safety) -> None:
    """Told privately: until when, why, whom to ask, that it cost nothing; and no moderator's name."""
    parent = await delivered(world, asker=BOB.id)
    await safety.block(NOOR, ADA.id, "  three times\n blood ", timedelta(days=1))
    desk, at = world.desk, int((world.clock.now() + timedelta(days=1)).timestamp())

    for way in (
        lambda: desk.admit(ADA),
        lambda: ask(world, ADA),
        lambda: desk.again(ADA, parent),
        lambda: desk.again(ADA, parent, confirmed=False),
        lambda: desk.remix(ADA, parent, Ask(prompt="storm", has_picture=True)),
        lambda: desk.by_model(ADA, parent, "runway"),
        lambda: desk.go_on(ADA, parent, Ask(prompt="on", has_picture=True)),
    ):
        with pytest.raises(PrivateRefusal) as refusal:
            await way()
        assert str(refusal.value) == (
            f"You may not have clips made here until <t:{at}:f>. The reason given: “three times blood”. If you "
            "think that this is wrong, ask this server's moderators. Nothing was charged."
        )
    assert await ask(world, BOB)
    assert await ask(world, replace(ADA, guild_id=ELSEWHERE))


async def test_a_doubt_and_a_kept_clip_of_a_blocked_member(world: World, safety: Safety) -> None:
    """Neither paying once more nor posting once more; giving up a doubt still goes."""
    job = await world.ask(asker=ADA.id)
    [claimed] = await in_paid_call(world.store, slots=1, worker="gone", now=world.clock.now())
    world.clock.pass_by(minutes=5)
    await world.store.rescue("w", stale=timedelta(seconds=30), now=world.clock.now())
    assert (await world.now(claimed)).state is State.UNSURE
    await safety.block(NOOR, ADA.id, "", None)

    with pytest.raises(PrivateRefusal, match=r"You may not have clips made here\. No reason was given"):
        await world.desk.try_again(ADA, job.id)
    assert (await world.desk.let_go(ADA, job.id)).state is State.FAILED

    with pytest.raises(PrivateRefusal):
        await world.desk.redeliver(ADA, job.id)


async def test_blocking_calls_off_what_waits(world: World, safety: Safety) -> None:
    """Given back; what is paid comes to its end, and other people's and servers' clips are left alone."""
    running = await world.ask(asker=ADA.id)
    world.provider.on_check.append(StillRendering())
    await world.engine.run_due()
    waiting = await world.ask(asker=ADA.id, prompt="dunes")
    theirs = await world.ask(asker=BOB.id)
    abroad = await ask(world, replace(ADA, guild_id=ELSEWHERE), prompt="abroad")

    done = await safety.block(NOOR, ADA.id, "", None)

    assert (done.cancelled, done.under_way) == (1, 1)
    off = await world.now(waiting)
    assert (off.state, off.charge) == (State.CANCELLED, Charge.NONE)
    assert await world.store.money(off.id) == {"reserve": 35, "release": 35}
    assert world.announcer.cards[off.id][0].state is State.CANCELLED
    assert (await world.now(theirs)).state is State.QUEUED
    assert (await world.now(abroad)).state is State.QUEUED
    for _ in range(3):
        world.clock.pass_by(seconds=60)
        await world.engine.run_due()
    assert (await world.now(running)).state is State.DELIVERED
    assert await world.audited() == []


async def test_a_block_for_all_servers(world: World, safety: Safety) -> None:
    """The owner's: whom to ask is another one, and it goes before the moderators' block."""
    abroad = await ask(world, replace(ADA, guild_id=ELSEWHERE))

    done = await safety.block(OWNER, ADA.id, "", None, everywhere=True)
    await safety.block(NOOR, ADA.id, "here too", None)

    assert done.cancelled == 1
    assert (await world.now(abroad)).state is State.CANCELLED
    for guild_id in (GUILD, ELSEWHERE, None):
        with pytest.raises(PrivateRefusal, match=r"by me\. .* ask this bot's owner"):
            await world.desk.admit(replace(ADA, guild_id=guild_id))
    assert await safety.unblock(OWNER, ADA.id, everywhere=True)
    await world.desk.admit(replace(ADA, guild_id=ELSEWHERE))
    with pytest.raises(PrivateRefusal, match="here too"):
        await world.desk.admit(ADA)


async def test_a_block_ends_by_itself(world: World, safety: Safety, moderation: Moderation) -> None:
    """To the second; the sweep then forgets it."""
    await safety.block(NOOR, ADA.id, "", timedelta(hours=1))
    await safety.block(NOOR, BOB.id, "", None)
    world.clock.pass_by(seconds=3599)
    with pytest.raises(PrivateRefusal):
        await world.desk.admit(ADA)

    world.clock.pass_by(seconds=1)
    await world.desk.admit(ADA)
    assert (await safety.blocked(NOOR))[2] == 1
    assert not await safety.unblock(NOOR, ADA.id)

    await safety.block(NOOR, ADA.id, "", timedelta(seconds=1))
    world.clock.pass_by(days=1)
    await world.engine.run_due()
    assert (await world.store.rows())["blocks"] == 1


async def test_blocking_again_and_unblocking(world: World, safety: Safety) -> None:
    """The last word counts; two moderators at once do no harm."""
    await safety.block(NOOR, ADA.id, "first", None)
    await asyncio.gather(*(safety.block(NOOR, ADA.id, "second", timedelta(days=1)) for _ in range(4)))

    [block], page, count = await safety.blocked(NOOR)
    assert (block.reason, page, count) == ("second", 0, 1)
    assert block.until == world.clock.now() + timedelta(days=1)
    assert await safety.unblock(NOOR, ADA.id)
    assert not await safety.unblock(NOOR, ADA.id)
    await world.desk.admit(ADA)


async def test_pages_of_blocks(safety: Safety, world: World) -> None:
    """The newest first; a page past the end is the last one; other servers' are not in it."""
    for member in range(100, 100 + 2 * BLOCKS_PAGE + 1):
        world.clock.pass_by(seconds=1)
        await safety.block(NOOR, member, "", None)
    await safety.block(replace(NOOR, guild_id=ELSEWHERE), 500, "", None)

    first, _, count = await safety.blocked(NOOR)
    last, page, _ = await safety.blocked(NOOR, 99)

    assert [block.member_id for block in first[:2]] == [120, 119]
    assert ([block.member_id for block in last], page, count) == ([100], 2, 21)
    assert await safety.blocked(OWNER, everywhere=True) == ([], 0, 0)


async def test_only_moderators(world: World, safety: Safety) -> None:
    """And nobody themselves."""
    job = await delivered(world)
    await safety.report(BOB, job.id, "other", "")
    for way in (
        safety.block(BOB, ADA.id, "", None),
        safety.unblock(BOB, ADA.id),
        safety.blocked(BOB),
        safety.keep(BOB, job.id),
        safety.remove(BOB, job.id),
        safety.blamed(BOB, job.id),
    ):
        with pytest.raises(Refusal, match="Manage Messages"):
            await way
    with pytest.raises(Refusal, match="cannot block yourself"):
        await safety.block(NOOR, NOOR.id, "", None)
    assert (await safety.case(job.id)).review.state is Verdict.OPEN


async def test_a_block_that_comes_while_a_request_is_under_way(world: World, safety: Safety) -> None:
    """The card is being posted when the block is decided: the request is called off, and its asker told why."""

    async def meanwhile() -> None:
        await safety.block(NOOR, ADA.id, "now", None)

    world.announcer.on_card.append(meanwhile)
    with pytest.raises(PrivateRefusal, match="“now”"):
        await world.ask(asker=ADA.id)

    [job] = await world.store.open_jobs(tuple(State))
    assert (job.state, job.charge) == (State.CANCELLED, Charge.NONE)
    assert await world.audited() == []


# Reports


async def test_a_report_is_counted_once_a_member(world: World, safety: Safety) -> None:
    """Who reported is not in what moderators read; the latest words are."""
    job = await delivered(world)

    await safety.report(BOB, job.id, "violent", "  blood\n everywhere ")
    await safety.report(BOB, job.id, "sexual", "again")
    await safety.report(CLEO, job.id, "violent", "")

    review = (await safety.case(job.id)).review
    assert (review.reporters, dict(review.reasons), review.words) == (
        2,
        {"violent": 2},
        ("blood everywhere",),
    )
    assert (review.state, review.post_id, review.channel_id) == (Verdict.OPEN, job.post_id, job.channel_id)
    await safety.shown(Case(job=job, review=review), 50, 51)
    with pytest.raises(Refusal, match="reported this clip already"):
        await safety.reportable(BOB, job.id)


async def test_two_reports_at_once(world: World, safety: Safety) -> None:
    """One review, both counted."""
    job = await delivered(world)

    await asyncio.gather(*(safety.report(who, job.id, "other", "") for who in (BOB, CLEO, BOB, CLEO)))

    assert (await safety.case(job.id)).review.reporters == 2
    assert (await world.store.rows())["reviews"] == 1


async def test_what_cannot_be_reported(world: World, safety: Safety) -> None:
    """One's own clip, one not posted, one of another server, too many in a day."""
    job = await delivered(world)
    waiting = await world.ask(prompt="dunes")

    for who, job_id, sentence in (
        (ADA, job.id, "This clip is yours: \\*\\*Delete\\*\\*"),
        (BOB, waiting.id, "do not know this clip"),
        (BOB, "nothing", "do not know this clip"),
        (replace(BOB, guild_id=ELSEWHERE), job.id, "do not know this clip"),
    ):
        with pytest.raises(Refusal, match=sentence):
            await safety.report(who, job_id, "other", "")
    for number in range(REPORTS_A_DAY):
        clip = replace(job, id=f"clip{number}")
        await Moderation(world.store).report(clip, BOB.id, "other", None, world.clock.now())
    with pytest.raises(Refusal, match=f"reported {REPORTS_A_DAY} clips within a day"):
        await safety.report(BOB, job.id, "other", "")
    world.clock.pass_by(days=1)
    await safety.report(BOB, job.id, "other", "")


async def test_kept(world: World, safety: Safety) -> None:
    """It stays: further reports are answered with that, and may be made again as ever."""
    job = await delivered(world)
    await safety.report(BOB, job.id, "other", "")

    case = await safety.keep(NOOR, job.id)

    assert (case.review.state, case.review.decided_by) == (Verdict.KEPT, NOOR.id)
    with pytest.raises(Refusal, match="looked at this clip already, and kept it"):
        await safety.report(CLEO, job.id, "other", "")
    assert (await safety.case(job.id)).review.reporters == 1
    assert world.announcer.taken_down == []
    await world.desk.again(BOB, job)


async def test_removed(world: World, safety: Safety) -> None:
    """The post goes, what waits to be made from it is called off, nothing more comes from it. The costs stay."""
    job = await delivered(world)
    take = await world.desk.again(CLEO, job)
    await safety.report(BOB, job.id, "other", "")

    case = await safety.remove(NOOR, job.id)

    assert (case.review.state, case.gone, case.cancelled) == (Verdict.REMOVED, True, 1)
    assert world.announcer.taken_down == [(job.id, job.post_id)]
    off = await world.now(take)
    assert (off.state, off.charge) == (State.CANCELLED, Charge.NONE)
    assert await world.store.money(job.id) == {"reserve": 35, "charge": 35}
    remix = Ask(prompt="storm", has_picture=True)
    for way in (
        world.desk.again(ADA, job),
        world.desk.remix(ADA, job, remix),
        world.desk.by_model(ADA, job, "runway"),
        world.desk.go_on(ADA, job, remix),
        world.desk.request(ADA, world.desk.plan(remix), Pictures(first=PICTURE), parent=job),
    ):
        with pytest.raises(Refusal, match="moderators have taken this clip away"):
            await way
    with pytest.raises(Refusal, match="taken this clip away already"):
        await safety.report(CLEO, job.id, "other", "")
    assert await world.audited() == []


async def test_a_take_that_is_asked_for_while_the_clip_is_removed(world: World, safety: Safety) -> None:
    """Its card is being posted at that moment: called off, and said."""
    job = await delivered(world)
    await safety.report(BOB, job.id, "other", "")

    async def meanwhile() -> None:
        await safety.remove(NOOR, job.id)

    world.announcer.on_card.append(meanwhile)
    with pytest.raises(Refusal, match="moderators have taken this clip away"):
        await world.desk.again(CLEO, job)

    assert [one.state for one in await world.store.open_jobs(tuple(State))] == [
        State.DELIVERED,
        State.CANCELLED,
    ]


async def test_blocked_by_a_process_that_died(
    world: World, safety: Safety, moderation: Moderation, clock: Clock
) -> None:
    """The next one calls off what waits before it claims; nothing else, and nothing of a block that has ended."""
    later = clock.now() + timedelta(hours=1)
    block = Block(guild_id=GUILD, member_id=ADA.id, reason=None, until=None, by=NOOR.id, at=clock.now())
    waiting = await ask(world, ADA)
    everywhere = await ask(world, BOB)
    kept = [
        await ask(world, replace(ADA, guild_id=ELSEWHERE), prompt="abroad"),
        await ask(world, CLEO),
    ]
    await moderation.block(block)
    await moderation.block(replace(block, guild_id=None, member_id=BOB.id, until=later))
    await moderation.block(replace(block, member_id=CLEO.id, until=clock.now()))

    assert {job.id for job in await moderation.to_call_off(clock.now())} == {waiting.id, everywhere.id}
    assert [job.id for job in await moderation.to_call_off(later)] == [waiting.id]
    await world.engine.run_due()

    for job in (waiting, everywhere):
        off = await world.now(job)
        assert (off.state, off.charge) == (State.CANCELLED, Charge.NONE)
        assert await world.store.money(job.id) == {"reserve": 35, "release": 35}
        assert world.announcer.cards[job.id][0].state is State.CANCELLED
    assert {(await world.now(job)).state for job in kept} == {State.RENDERING}
    assert len(world.provider.submits) == len(kept)
    assert await moderation.to_call_off(clock.now()) == []
    assert await world.audited() == []


async def test_removed_by_a_process_that_died(world: World, safety: Safety, moderation: Moderation) -> None:
    """The next one calls off what waits to be made from the clip, and takes its post away."""
    job, other = await delivered(world), await delivered(world, prompt="dunes")
    take, theirs = await world.desk.again(CLEO, job), await world.desk.again(CLEO, other)
    for reported in (job, other):
        await safety.report(BOB, reported.id, "other", "")
    await moderation.decide(job.id, Verdict.REMOVED, NOOR.id, world.clock.now())
    await moderation.decide(other.id, Verdict.KEPT, NOOR.id, world.clock.now())

    assert [each.id for each in await moderation.to_call_off(world.clock.now())] == [take.id]
    world.clock.pass_by(seconds=60)
    await world.engine.run_due()

    off = await world.now(take)
    assert (off.state, off.charge) == (State.CANCELLED, Charge.NONE)
    assert (await world.now(theirs)).state is State.RENDERING
    assert world.announcer.taken_down == [(job.id, job.post_id)]
    assert await world.audited() == []


async def test_moderators_read_what_a_process_did_not_tell_them(
    world: World, safety: Safety, moderation: Moderation
) -> None:
    """The next one tells of what was reported or decided in its last minutes: at its start, when it finds the other dead, and
    no more."""
    old, reported, kept, unseen = [
        await delivered(world, prompt=prompt) for prompt in ("waves", "dunes", "fog", "rain")
    ]
    await safety.report(BOB, old.id, "other", "")
    world.clock.pass_by(seconds=3600)
    await world.engine.run_due()
    for job in (reported, kept, unseen):
        await safety.report(BOB, job.id, "other", "")
    await moderation.shown(kept.id, 5, 6)
    for job in (kept, unseen):  # of the last, nobody could be told before
        await safety.keep(NOOR, job.id)

    await world.reborn().run_due()

    untold = [(reported.id, Verdict.OPEN, 1), (kept.id, Verdict.KEPT, 1)]
    assert world.announcer.told_moderators == untold
    for _ in range(3):
        world.clock.pass_by(seconds=60)
        await world.engine.run_due()
    assert world.announcer.told_moderators == untold * 2


@pytest.mark.parametrize("died", [False, True])
async def test_a_comparison_removed(world: World, safety: Safety, moderation: Moderation, died: bool) -> None:
    """Both clips stand in one post: what waits to be made from the other one is called off too."""
    a, b = [await delivered(world, prompt=prompt) for prompt in ("waves", "dunes")]
    shared = update(jobs).where(jobs.c.id.in_((a.id, b.id)))

    async def in_one_post(connection: AsyncConnection) -> None:
        await connection.execute(shared.values(comparison_id="c", post_id=a.post_id))

    await world.store.writing(in_one_post)
    await safety.report(BOB, a.id, "other", "")
    take = await world.desk.again(CLEO, await world.now(b))

    if died:
        await moderation.decide(a.id, Verdict.REMOVED, NOOR.id, world.clock.now())
        assert [each.id for each in await moderation.to_call_off(world.clock.now())] == [take.id]
        world.clock.pass_by(seconds=60)
        await world.engine.run_due()
    else:
        assert (await safety.remove(NOOR, a.id)).cancelled == 1

    assert (await world.now(take)).state is State.CANCELLED


async def test_two_moderators(world: World, safety: Safety) -> None:
    """The first decides; the other is told who did."""
    job = await delivered(world)
    await safety.report(BOB, job.id, "other", "")

    answers = await asyncio.gather(
        safety.keep(NOOR, job.id), safety.remove(replace(NOOR, id=8), job.id), return_exceptions=True
    )

    [refusal] = [answer for answer in answers if isinstance(answer, Refusal)]
    [case] = [answer for answer in answers if isinstance(answer, Case)]
    assert f"decided by <@{case.review.decided_by}>" in str(refusal)
    assert (await safety.case(job.id)).review.state is case.review.state


async def test_removed_with_its_asker(world: World, safety: Safety, moderation: Moderation) -> None:
    """Decided as one: the clip goes, and nothing more is made for whoever asked for it, for so long."""
    job = await delivered(world)
    take, other = await world.desk.again(CLEO, job), await ask(world, ADA)
    await safety.report(BOB, job.id, "other", "")

    case = await safety.remove(NOOR, job.id, block=("  spam ", timedelta(days=1)))

    until = world.clock.now() + timedelta(days=1)
    block = await moderation.block_of(GUILD, ADA.id, world.clock.now())
    assert block
    assert (block.reason, block.until, block.by) == ("spam", until, NOOR.id)
    assert case.blocking
    assert (case.blocking.block, case.blocking.cancelled, case.cancelled) == (block, 1, 1)
    assert [(await world.now(each)).state for each in (take, other)] == [State.CANCELLED] * 2
    assert await moderation.block_of(GUILD, ADA.id, until) is None
    assert await moderation.block_of(ELSEWHERE, ADA.id, world.clock.now()) is None


@pytest.mark.parametrize("moderators", [False, True])
async def test_removed_with_nobody(
    world: World, safety: Safety, moderation: Moderation, moderators: bool
) -> None:
    """Of whose clip is not known any more, or is the moderator's own, nobody is blocked."""
    job = await delivered(world, asker=NOOR.id if moderators else ADA.id)
    await safety.report(BOB, job.id, "other", "")
    if not moderators:
        await world.desk.forget(ADA, posts=False)
        await world.engine.run_due()
        world.clock.pass_by(seconds=60)
        await world.engine.run_due()

    case = await safety.remove(NOOR, job.id, block=("spam", None))

    assert (case.review.state, case.blocking) == (Verdict.REMOVED, None)
    assert await moderation.blocks_in(GUILD, world.clock.now(), skip=0, limit=9) == ([], 0)


async def test_who_was_too_late_blocks_nobody(world: World, moderation: Moderation, safety: Safety) -> None:
    job = await delivered(world)
    await safety.report(BOB, job.id, "other", "")
    now = world.clock.now()
    block = Block(guild_id=GUILD, member_id=ADA.id, reason=None, until=None, by=NOOR.id, at=now)
    assert await moderation.decide(job.id, Verdict.KEPT, 8, now)

    assert not await moderation.decide(job.id, Verdict.REMOVED, NOOR.id, now, block)

    assert await moderation.block_of(GUILD, ADA.id, now) is None


async def test_another_servers_moderator(world: World, safety: Safety) -> None:
    """Knows nothing of it."""
    job = await delivered(world)
    await safety.report(BOB, job.id, "other", "")

    with pytest.raises(Refusal, match="do not know this clip"):
        await safety.keep(replace(NOOR, guild_id=ELSEWHERE), job.id)


async def test_a_post_that_could_not_be_deleted(world: World, safety: Safety) -> None:
    """Is tried again by the engine, also by that of the next process, until it is gone, and then no more."""
    job = await delivered(world)
    await safety.report(BOB, job.id, "other", "")
    world.announcer.on_take_down.extend([False, False])

    assert not (await safety.remove(NOOR, job.id)).gone
    for _ in range(4):
        world.clock.pass_by(minutes=2)
        await world.reborn().run_due()

    assert world.announcer.taken_down == [(job.id, job.post_id)] * 3
    assert (await safety.case(job.id)).review.cleared_at


async def test_a_post_that_can_never_be_deleted(world: World, safety: Safety) -> None:
    """Is given up after a week."""
    job = await delivered(world)
    await safety.report(BOB, job.id, "other", "")
    world.announcer.on_take_down.extend([False] * 9)
    await safety.remove(NOOR, job.id)

    world.clock.pass_by(days=8)
    await world.engine.run_due()

    assert len(world.announcer.taken_down) == 1


async def test_a_removed_clip_is_not_listed(world: World, safety: Safety) -> None:
    """For others; its asker still finds what it cost."""
    job = await delivered(world)
    archive = Archive(
        store=world.store, menu=make_menu(), now=world.clock.now, slots=lambda _route: 2, keep_days=7
    )
    shelves = {who.id: Shelf(guild_id=GUILD, reader_id=who.id, channels={10}) for who in (ADA, BOB)}
    assert len((await archive.past(shelves[BOB.id], Turn())).jobs) == 1
    await safety.report(BOB, job.id, "other", "")
    await safety.remove(NOOR, job.id)

    assert (await archive.past(shelves[BOB.id], Turn())).jobs == ()
    with pytest.raises(Refusal, match="do not know a clip of this id"):
        await archive.show(shelves[BOB.id], job.id)
    assert len((await archive.past(shelves[ADA.id], Turn())).jobs) == 1
    assert (await archive.show(shelves[ADA.id], job.id)).job.id == job.id


# Forgetting


async def test_forgetting_a_member(world: World, safety: Safety, moderation: Moderation) -> None:
    """Their reports lose name and words and still count; their block stays; so does the review of their clip."""
    job, own = await delivered(world), await delivered(world, asker=BOB.id, prompt="dunes")
    for who in (BOB, CLEO):
        await safety.report(who, job.id, "other", "my words")
    await safety.report(CLEO, own.id, "other", "")
    await safety.block(NOOR, BOB.id, "blood", None)
    export = await exported(world, BOB)
    assert "my words" in export
    assert "blood" in export

    for who in (BOB, CLEO, NOOR):
        await world.desk.forget(who, posts=False)
    for _ in range(2):
        world.clock.pass_by(seconds=60)
        await world.engine.run_due()

    review = (await safety.case(job.id)).review
    assert (review.reporters, review.words) == (2, ())
    assert "my words" not in await exported(world, BOB)
    assert [block.by for block in (await safety.blocked(NOOR))[0]] == [0]
    with pytest.raises(PrivateRefusal, match="blood"):
        await world.desk.admit(BOB)
    case = await safety.case(own.id)
    assert (case.job.asker_id, case.job.post_id, case.review.post_id) == (0, None, own.post_id)
    with pytest.raises(Refusal, match="had their data deleted"):
        await safety.blamed(NOOR, own.id)
    assert (await safety.remove(NOOR, own.id)).gone
    assert world.announcer.taken_down == [(own.id, own.post_id)]


async def exported(world: World, who: Who) -> str:
    archive = Archive(
        store=world.store, menu=make_menu(), now=world.clock.now, slots=lambda _route: 2, keep_days=7
    )
    return (await archive.export(who, max_bytes=2**20)).data.decode()


async def test_a_moderator_who_decided_is_forgotten(world: World, safety: Safety) -> None:
    """The decision stays."""
    job = await delivered(world)
    await safety.report(BOB, job.id, "other", "")
    await safety.keep(NOOR, job.id)

    await Members(world.store).forget(NOOR.id, world.clock.now(), posts=False)

    review = (await safety.case(job.id)).review
    assert (review.state, review.decided_by) == (Verdict.KEPT, 0)


async def test_forgetting_a_server(store: Store, clock: Clock, world: World, safety: Safety) -> None:
    """With its settings go its blocks, reports and reviews, and nobody else's."""
    job = await delivered(world)
    await safety.report(BOB, job.id, "other", "")
    abroad = replace(NOOR, guild_id=ELSEWHERE)
    for who in (NOOR, abroad):
        await safety.block(who, ADA.id, "", None)
    await safety.block(OWNER, CLEO.id, "", None, everywhere=True)
    await store.guild_left(GUILD, clock.now())
    clock.pass_by(days=1)

    assert await store.forget_guilds(clock.now()) == 1

    rows = await store.rows()
    assert (rows["blocks"], rows["reports"], rows["reviews"]) == (2, 0, 0)
    assert (await safety.blocked(abroad))[2] == 1


async def test_a_block_of_everybody_is_nobodys(moderation: Moderation, clock: Clock) -> None:
    """Outside of servers only the owner's blocks count."""
    await moderation.block(Block(guild_id=GUILD, member_id=2, reason=None, until=None, by=9, at=clock.now()))

    assert await moderation.block_of(None, 2, clock.now()) is None
    assert await moderation.block_of(GUILD, 3, clock.now()) is None


# Rules of the server, and the owner's check


async def test_rules_hold_for_every_way_in(world: World) -> None:
    """Also for a clip that was made before there was the rule, and for what should not be in it."""
    parent = await delivered(world, prompt="Gore and waves")
    waves = await delivered(world)
    follow(world, blocked_words=("gore",), blocked_patterns=(r"bl.?od",))
    word = "A rule of this server forbids “gore” in a prompt. Please say it otherwise. Nothing was charged."
    negative = word.replace("a prompt", "a negative prompt")
    pattern = "A rule of this server forbids something in this prompt. Please say it otherwise. Nothing was charged."

    for way, sentence in (
        (ask(world, ADA, prompt="ＧＯＲＥ"), word),
        (ask(world, ADA, prompt="bl0od"), pattern),
        (ask(world, ADA, negative_prompt="gore"), negative),
        (world.desk.again(BOB, parent), word),
        (world.desk.by_model(BOB, parent, "runway"), word),
        (world.desk.remix(BOB, waves, Ask(prompt="gore", has_picture=True)), word),
        (world.desk.go_on(BOB, waves, Ask(prompt="gore", has_picture=True)), word),
    ):
        with pytest.raises(PrivateRefusal) as refusal:
            await way
        assert str(refusal.value) == sentence
    assert len(await world.store.open_jobs(tuple(State))) == 2
    assert await world.desk.remix(BOB, parent, Ask(prompt="calm", has_picture=True))


async def test_a_doubt_whose_prompt_is_blocked_by_now(world: World) -> None:
    """Is not paid once more."""
    job = await world.ask(prompt="gore")
    await in_paid_call(world.store, slots=1, worker="gone", now=world.clock.now())
    world.clock.pass_by(minutes=5)
    await world.store.rescue("w", stale=timedelta(seconds=30), now=world.clock.now())
    follow(world, blocked_words=("gore",))

    with pytest.raises(PrivateRefusal, match="“gore”"):
        await world.desk.try_again(ADA, job.id)


async def test_a_pattern_that_cannot_be_looked_for(world: World) -> None:
    """Written by another version, say: prompts are refused, and the moderators told, once."""
    told: list[tuple[int, str]] = []

    async def alert(guild_id: int, pattern: str) -> None:
        told.append((guild_id, pattern))

    world.desk._pattern_alert = alert
    follow(world, blocked_patterns=("(?=a)b",))

    for _ in range(3):
        with pytest.raises(PrivateRefusal, match="I could not look through your prompt"):
            await ask(world, ADA)

    assert told == [(GUILD, "(?=a)b")]
    assert await world.store.open_jobs(tuple(State)) == []


async def test_the_owners_check_is_told_everything(world: World) -> None:
    """Who, where, the words and the pictures; its no is the refusal, and nothing is reserved."""
    seen: list[Proposal] = []

    async def check(proposal: Proposal) -> str | None:
        seen.append(proposal)
        return "No storms." if "storm" in proposal.prompt else None

    world.desk._checker = Checker(check)
    parent = await ask(world, replace(ADA, age_restricted=True), negative_prompt="blur")
    with pytest.raises(PrivateRefusal, match=r"^No storms\. Nothing was charged\.$"):
        await world.desk.remix(
            replace(BOB, age_restricted=True), parent, Ask(prompt="storm", has_picture=True)
        )

    assert seen[0] == Proposal(
        member_id=ADA.id,
        channel_id=10,
        guild_id=GUILD,
        age_restricted=True,
        prompt="waves",
        negative_prompt="blur",
        picture=b"picture",
    )
    assert [job.id for job in await world.store.open_jobs(tuple(State))] == [parent.id]


# Age-restricted channels


async def test_what_is_made_in_an_age_restricted_channel_stays_in_such(world: World) -> None:
    """Another take, a remix, another model, what goes on, and a clip that is posted once more."""
    grown = replace(BOB, age_restricted=True)
    parent = await ask(world, replace(ADA, age_restricted=True))
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    parent = await world.now(parent)
    remix = Ask(prompt="storm", has_picture=True)

    for way in (
        world.desk.again(BOB, parent),
        world.desk.remix(BOB, parent, remix),
        world.desk.by_model(BOB, parent, "runway"),
        world.desk.go_on(BOB, parent, remix),
        world.desk.require_consent_for(BOB, parent),
    ):
        with pytest.raises(Refusal, match="made in an age-restricted channel"):
            await way
    with pytest.raises(Refusal, match=r"I post it only in such\. The clip is kept\."):
        await world.desk.redeliver(ADA, parent.id)
    assert (await world.desk.again(grown, parent)).age_restricted
    other = await delivered(world, asker=CLEO.id)
    assert (await world.desk.again(grown, other)).age_restricted
