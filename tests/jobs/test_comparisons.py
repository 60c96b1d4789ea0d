"""Comparisons in the books, on both databases: both jobs or none, one post, one vote a member, what is forgotten."""

import asyncio
import json
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import update

from bot.errors import Cause, ProviderRejected, ProviderUnsure, Refusal
from bot.jobs.announcing import CannotPost, PostLater
from bot.jobs.archive import Archive
from bot.jobs.budgets import Budget, Scope, Stretch
from bot.jobs.comparing import Comparing
from bot.jobs.comparisons import DRAWN_WITHIN, PROPOSED_FOR, TOGETHER_WITHIN, VOTING, Choice, Comparisons
from bot.jobs.desk import Who
from bot.jobs.machine import Broke, Charge, Job, Ready, State, StillRendering
from bot.jobs.ownership import STALE
from bot.jobs.tables import jobs
from bot.providers.base import Picture, PictureRules
from tests.jobs.world import PICTURE, World, make_menu

ADA = Who(id=2, channel_id=10, guild_id=1)
BOB = Who(id=3, channel_id=10, guild_id=1)
MODERATOR = Who(id=4, channel_id=10, guild_id=1, moderator=True)


def comparing(world: World) -> Comparing:
    return Comparing(desk=world.desk, store=world.store, announcer=world.announcer)


async def the_picture(_rules: PictureRules) -> Picture:
    return PICTURE


async def start(world: World, who: Who = ADA) -> str:
    """Ask and say yes: the comparison's id."""
    door = comparing(world)
    proposed = await door.propose(who, await door.plan(who, "waves", None, None, None))
    await door.start(who, proposed.id, the_picture)
    return proposed.id


async def posted(world: World, who: Who = ADA) -> str:
    comparison_id = await start(world, who)
    await work(world, times=4)
    comparison = await Comparisons(world.store).get(comparison_id)
    assert comparison
    assert comparison.post_id
    return comparison_id


async def work(world: World, seconds: float = 20, times: int = 1) -> None:
    for _ in range(times):
        world.clock.pass_by(seconds=seconds)
        await world.engine.run_due()


async def pair(world: World, comparison_id: str) -> tuple[Job, Job]:
    books = Comparisons(world.store)
    comparison = await books.get(comparison_id)
    assert comparison
    jobs = await books.jobs_of(comparison)
    assert jobs
    return jobs


async def test_both_are_reserved_and_made(world: World) -> None:
    """One comparison, two paid calls, one post that both jobs name; the books agree."""
    comparison_id = await posted(world)

    a, b = await pair(world, comparison_id)
    assert {a.model, b.model} == {"kling", "runway"}
    assert (a.state, b.state) == (State.DELIVERED, State.DELIVERED)
    assert a.post_id == b.post_id
    assert sorted(world.announcer.posts) == sorted([a.id, b.id])
    assert len(world.provider.submits) == 2
    assert await world.audited() == []


async def test_another_two_jobs_with_one_post_are_found(world: World) -> None:
    """The audit lets only those of one comparison share a post."""
    first, second = await posted(world), await posted(world, BOB)
    a, _ = await pair(world, first)
    c, _ = await pair(world, second)
    async with world.store._writes.begin() as connection:
        await connection.execute(update(jobs).where(jobs.c.id == c.id).values(post_id=a.post_id))

    assert {finding.invariant for finding in await world.audited()} == {"I2"}


async def test_a_budget_for_one_clip_is_not_spent_on_it(world: World) -> None:
    """Both or none, in one transaction: nothing is left behind."""
    day = Stretch.DAY

    async def budgets_of(_who: Who) -> list[Budget]:
        return [Budget(scope=Scope.MEMBER, stretch=day, clips=1)]

    world.desk._budgets_of = budgets_of
    door = comparing(world)
    proposed = await door.propose(ADA, await door.plan(ADA, "waves", None, None, None))

    with pytest.raises(Refusal):
        await door.start(ADA, proposed.id, the_picture)

    assert (await world.store.rows())["jobs"] == 0
    assert (await world.store.rows())["ledger"] == 0
    unchanged = await Comparisons(world.store).get(proposed.id)
    assert unchanged == proposed


async def test_started_twice_at_the_same_moment(world: World) -> None:
    """One wins, the other is told so."""
    door = comparing(world)
    proposed = await door.propose(ADA, await door.plan(ADA, "waves", None, None, None))

    answers = await asyncio.gather(
        *(door.start(ADA, proposed.id, the_picture) for _ in range(3)), return_exceptions=True
    )

    assert sum(isinstance(answer, list) for answer in answers) == 1
    assert {str(answer) for answer in answers if isinstance(answer, Refusal)} == {
        "This comparison has been started already."
    }
    assert (await world.store.rows())["jobs"] == 2


async def test_only_for_who_asked(world: World) -> None:
    """And only for an hour; then the words are gone."""
    door = comparing(world)
    proposed = await door.propose(ADA, await door.plan(ADA, "waves", None, None, None))
    with pytest.raises(Refusal, match="I asked only"):
        await door.start(BOB, proposed.id, the_picture)
    world.clock.pass_by(seconds=PROPOSED_FOR.total_seconds() + 1)
    with pytest.raises(Refusal, match="too long ago"):
        await door.start(ADA, proposed.id, the_picture)

    await world.engine.run_due()

    assert (await world.store.rows())["comparisons"] == 0


async def test_one_card_is_not_posted(world: World) -> None:
    """Neither clip is made."""
    world.announcer.on_card.extend([None, CannotPost(Cause.NO_PERMISSION)])
    with pytest.raises(Refusal, match="I could not post in this channel"):
        await start(world)
    await work(world, times=2)

    jobs = await world.store.open_jobs(tuple(State))
    assert [(job.state, job.charge, job.sealed) for job in jobs] == [
        (State.CANCELLED, Charge.NONE, False)
    ] * 2
    assert world.provider.submits == []
    assert await world.audited() == []


@pytest.mark.parametrize("charged", [True, False, None])
async def test_one_of_two_breaks(world: World, charged: bool | None) -> None:
    """The other is posted by itself; nothing is left to vote on."""
    world.provider.on_check.append(Broke(Cause.MODERATION, charged=charged))
    comparison_id = await start(world)
    await work(world, times=4)

    states = {job.state: job for job in await pair(world, comparison_id)}
    assert set(states) == {State.FAILED, State.DELIVERED}
    assert world.announcer.posts == [states[State.DELIVERED].id]
    assert {job.sealed for job in states.values()} == {False}
    with pytest.raises(Refusal, match="do not know this comparison"):
        await comparing(world).vote(BOB, comparison_id, Choice.A)
    assert await world.audited() == []


async def test_both_break(world: World) -> None:
    """The sweep sees that nothing will come of it."""
    world.provider.on_check.extend([Broke(Cause.MODERATION, charged=False)] * 2)
    comparison_id = await start(world)
    await work(world, times=4)

    assert {job.sealed for job in await pair(world, comparison_id)} == {False}
    comparison = await Comparisons(world.store).get(comparison_id)
    assert comparison
    assert comparison.done_at


class SlowSecond:
    """The second paid call's clip is not done before it is `released`."""

    def __init__(self, world: World) -> None:
        self.released = False
        self._check = world.provider.check
        world.provider.check = self.check  # type: ignore[method-assign]

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        return await self._check(task) if self.released or task == "task-1" else StillRendering()


async def test_the_first_waits_for_the_second(world: World) -> None:
    """Its clip is at hand meanwhile; no state is written for it."""
    slow = SlowSecond(world)
    comparison_id = await start(world)
    await work(world, 30, times=6)
    [waiting] = [job for job in await pair(world, comparison_id) if job.state is State.POSTING]
    await work(world, 30, times=6)

    assert world.announcer.posts == []
    assert await world.now(waiting) == waiting
    assert (world.folder / f"{waiting.id}.mp4").exists()
    slow.released = True
    await work(world, 300, times=2)
    assert len(world.announcer.posts) == 2
    assert await world.audited() == []


async def test_a_process_that_slept_before_the_post_leaves_it_to_who_has_the_clips_now(world: World) -> None:
    """Nothing is posted; when the clips come back to it, they are posted together, once."""
    slow = SlowSecond(world)
    comparison_id = await start(world)
    await work(world, 30, times=3)
    for clip in world.folder.iterdir():
        clip.unlink()  # so that the one that posts both has something to wait for

    async def asleep() -> None:
        world.clock.pass_by(minutes=10)
        await world.store.beat("other", world.clock.now())
        assert len(await world.store.rescue("other", stale=STALE, now=world.clock.now())) == 2
        await world.engine._ownership.beat()

    world.provider.on_fetch.extend([None, asleep])
    slow.released = True
    for _ in range(20):
        if world.provider.on_fetch:
            await work(world, 1)
    assert not world.provider.on_fetch
    assert world.announcer.posts == []

    await work(world, 60, times=3)
    assert {job.state for job in await pair(world, comparison_id)} == {State.DELIVERED}
    assert len(world.announcer.posts) == 2
    assert await world.audited() == []


async def test_the_second_takes_too_long(world: World) -> None:
    """Both are posted, each by itself."""
    slow = SlowSecond(world)
    comparison_id = await start(world)
    for _ in range(14):
        await work(world, TOGETHER_WITHIN.total_seconds() / 10)

    assert {job.sealed for job in await pair(world, comparison_id)} == {False}
    assert len(world.announcer.posts) == 1
    slow.released = True
    await work(world, 300, times=2)
    a, b = await pair(world, comparison_id)
    assert sorted(world.announcer.posts) == sorted([a.id, b.id])
    assert a.post_id != b.post_id
    assert await world.audited() == []


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_the_other_clip_cannot_be_fetched(world: World) -> None:
    """By the one that would post both: the clip that is at hand goes its own way, and not after a day."""
    comparison_id = await start(world)
    a, b = await pair(world, comparison_id)
    fetch = world.provider.fetch

    async def only_b(url: str, into: Path) -> None:
        if into.stem == a.id:
            raise ProviderUnsure(Cause.NO_ANSWER)
        await fetch(url, into)

    world.provider.fetch = only_b  # type: ignore[method-assign]
    for _ in range(14):
        await work(world, TOGETHER_WITHIN.total_seconds() / 10)

    a, b = await pair(world, comparison_id)
    assert (a.state, b.state) == (State.POSTING, State.DELIVERED)
    assert world.announcer.posts == [b.id]
    assert await world.audited() == []


async def test_nobody_was_there_for_hours(world: World) -> None:
    """Both clips were ready when the processes went away: they are posted together all the same."""
    comparison_id = await start(world)
    world.announcer.on_post.append(PostLater(Cause.DISCORD_DOWN))
    for _ in range(20):
        if world.announcer.on_post:
            await work(world, 5)
    world.reborn()
    await work(world, 3 * 3600, times=3)

    a, b = await pair(world, comparison_id)
    assert a.post_id == b.post_id
    assert len(world.announcer.posts) == 2
    assert await world.audited() == []


async def test_a_result_that_nobody_shows_is_found(world: World) -> None:
    """By the audit: the sweep should have done it."""
    comparison_id = await posted(world)
    world.clock.pass_by(seconds=VOTING.total_seconds() + 2 * 3600)

    found = [finding for finding in await world.audited() if "no result" in finding.what]

    assert {finding.about for finding in found} == {job.id for job in await pair(world, comparison_id)}
    await work(world, 1)
    assert [finding for finding in await world.audited() if "no result" in finding.what] == []


async def test_discord_refuses_the_post_for_good(world: World) -> None:
    """Too large together, or no place: each goes its own way."""
    world.announcer.on_post.append(CannotPost(Cause.CLIP_TOO_LARGE))
    comparison_id = await start(world)
    await work(world, times=6)

    a, b = await pair(world, comparison_id)
    assert sorted(world.announcer.posts) == sorted([a.id, b.id])
    assert a.post_id != b.post_id
    assert await world.audited() == []


async def test_a_lost_answer_and_a_dead_process(world: World) -> None:
    """Discord took the post, its answer never came, and the process died: the post is found."""
    comparison_id = await start(world)
    world.announcer.on_post.append(PostLater(Cause.DISCORD_DOWN))
    for _ in range(20):
        if world.announcer.on_post:
            await work(world, 5)
    assert not world.announcer.on_post
    assert world.announcer.posts == []
    world.reborn()
    world.announcer.found = 4711
    await work(world, 120, times=3)

    assert [job.post_id for job in await pair(world, comparison_id)] == [4711, 4711]
    assert world.announcer.posts == []
    assert await world.audited() == []


async def sent_without_an_answer(world: World) -> str:
    """A comparison whose post was sent to Discord by a process that died before it was answered."""
    comparison_id = await start(world)
    world.announcer.on_post.append(PostLater(Cause.DISCORD_DOWN))
    for _ in range(20):
        if world.announcer.on_post:
            await work(world, 5)
    assert not world.announcer.on_post
    world.reborn()
    return comparison_id


def clips_are_gone(world: World) -> None:
    """Here, and at the provider."""
    for path in world.folder.iterdir():
        path.unlink()
    world.provider.on_fetch.extend([ProviderRejected(Cause.CLIP_GONE)] * 1000)
    world.provider.on_check.extend([Broke(Cause.CLIP_GONE)] * 1000)


async def test_what_was_posted_is_looked_for_before_the_clips(world: World) -> None:
    """On another machine, when the provider has them no more: neither job fails, nothing is posted twice."""
    comparison_id = await sent_without_an_answer(world)
    world.announcer.found = 4711
    clips_are_gone(world)
    await work(world, 120, times=3)

    jobs = await pair(world, comparison_id)
    assert [(job.state, job.post_id) for job in jobs] == [(State.DELIVERED, 4711)] * 2
    assert world.announcer.posts == []
    assert await world.audited() == []


async def test_the_vote_ends_when_the_post_says(world: World) -> None:
    """Also when the post was found hours after it was sent."""
    comparison_id = await sent_without_an_answer(world)
    begun = await Comparisons(world.store).get(comparison_id)
    assert begun
    assert begun.together_at
    world.announcer.found = 4711
    await work(world, 5 * 3600, times=2)

    comparison = await Comparisons(world.store).get(comparison_id)
    assert comparison
    assert comparison.closes_at == begun.together_at + VOTING


async def test_the_other_clip_is_never_at_hand_again(world: World) -> None:
    """Their post was begun, came to nothing, and one of the clips is on a machine that cannot be asked: no clip
    waits for ever."""
    comparison_id = await sent_without_an_answer(world)
    a, b = await pair(world, comparison_id)
    (world.folder / f"{b.id}.mp4").unlink()
    world.provider.on_fetch.extend([ProviderRejected(Cause.CLIP_GONE)] * 1000)
    world.provider.on_check.extend([Broke(Cause.CLIP_GONE)] * 1000)
    for _ in range(14):
        await work(world, TOGETHER_WITHIN.total_seconds() / 10)

    a, b = await pair(world, comparison_id)
    assert (a.state, b.state) == (State.DELIVERED, State.FAILED)
    assert world.announcer.posts == [a.id]
    assert await world.audited() == []


async def test_once_begun_no_clip_goes_its_own_way(world: World) -> None:
    """Only the one that posts both may give it up."""
    books = Comparisons(world.store)
    comparison_id = await start(world)
    now = world.clock.now()

    assert await books.begin(comparison_id, now)
    assert not await books.spoil(comparison_id, now, begun=False)
    assert await books.spoil(comparison_id, now, begun=True)
    assert not await books.begin(comparison_id, now)
    assert not await books.reveal(comparison_id, now)


async def test_one_vote_a_member(world: World) -> None:
    """The last one counts, also of two at the same moment; none after the result."""
    door, books = comparing(world), Comparisons(world.store)
    comparison_id = await posted(world)

    await asyncio.gather(*(door.vote(BOB, comparison_id, Choice.A) for _ in range(3)))
    await door.vote(BOB, comparison_id, Choice.B)
    await door.vote(ADA, comparison_id, Choice.SAME)

    assert await books.votes(comparison_id) == {Choice.A: 0, Choice.B: 1, Choice.SAME: 1}
    with pytest.raises(Refusal, match="Only <@2> and moderators"):
        await door.reveal(BOB, comparison_id)
    await door.reveal(MODERATOR, comparison_id)
    with pytest.raises(Refusal, match="The vote is over"):
        await door.vote(BOB, comparison_id, Choice.A)
    elsewhere = Who(id=5, channel_id=10, guild_id=9)
    with pytest.raises(Refusal, match="do not know this comparison"):
        await door.vote(elsewhere, comparison_id, Choice.A)
    assert world.announcer.results == [(comparison_id, {Choice.A: 0, Choice.B: 1, Choice.SAME: 1})]


async def test_the_result_is_drawn_again_for_a_day(world: World) -> None:
    """While Discord is away; then no more."""
    comparison_id = await posted(world)
    world.announcer.on_result.extend([False] * 1000)
    await work(world, VOTING.total_seconds() + 60)
    await work(world, 60, times=3)
    assert 2 <= len(world.announcer.results) <= 8
    await work(world, DRAWN_WITHIN.total_seconds())
    await work(world, 60, times=2)
    before = len(world.announcer.results)
    await work(world, 60, times=3)

    assert len(world.announcer.results) == before
    assert {job.sealed for job in await pair(world, comparison_id)} == {False}


async def test_the_leaderboard_counts_votes_by_server(world: World) -> None:
    """Only where the result is shown, whichever label a model had."""
    door = comparing(world)
    for _ in range(3):
        comparison_id = await posted(world)
        a, _b = await pair(world, comparison_id)
        better = Choice.A if a.model == "kling" else Choice.B
        for member in range(10, 14):
            await door.vote(Who(id=member, channel_id=10, guild_id=1), comparison_id, better)
        await door.reveal(ADA, comparison_id)
    hidden = await posted(world)
    await door.vote(BOB, hidden, Choice.A)

    board = await door.leaderboard(1)

    assert [(name, rating.votes, seen) for name, rating, seen in board.rows] == [
        ("kling", 12, 3),
        ("runway", 12, 3),
    ]
    assert (board.votes, board.comparisons) == (12, 3)
    assert (await door.leaderboard(9)).rows == ()


async def test_a_member_is_forgotten(world: World) -> None:
    """Their votes at once, their questions at once, their comparisons' names with their clips; others' votes count."""
    door, books = comparing(world), Comparisons(world.store)
    shown, hidden, others = await posted(world), await posted(world), await posted(world, BOB)
    for comparison_id in (shown, hidden, others):
        await door.vote(ADA, comparison_id, Choice.A)
        await door.vote(BOB, comparison_id, Choice.A)
    await door.reveal(ADA, shown)
    await door.propose(ADA, await door.plan(ADA, "waves", None, None, None))

    await world.desk.forget(ADA, posts=False)
    await work(world, 40, times=3)

    assert await books.votes_of(ADA.id) == []
    assert await books.get(hidden) is None
    kept = await books.get(shown)
    assert kept
    assert (kept.asker_id, kept.post_id) == (0, None)
    assert (await books.votes(others))[Choice.A] == 1
    assert (await door.leaderboard(1)).votes == 1
    assert (await world.store.rows())["comparisons"] == 2
    assert await world.audited() == []


async def test_votes_are_exported(world: World) -> None:
    """With what else is stored."""
    comparison_id = await posted(world)
    await comparing(world).vote(BOB, comparison_id, Choice.SAME)
    archive = Archive(
        store=world.store, menu=make_menu(), now=world.clock.now, slots=lambda _route: 2, keep_days=7
    )

    data = json.loads((await archive.export(BOB, max_bytes=10**6)).data)

    [vote] = data["votes"]
    assert (vote["comparison_id"], vote["choice"]) == (comparison_id, "same")


async def test_a_server_that_was_left(world: World) -> None:
    """Its comparisons and votes go with what it has decided."""
    comparison_id = await posted(world)
    await comparing(world).vote(BOB, comparison_id, Choice.A)
    await world.store.guild_left(1, world.clock.now())
    await world.store.forget_guilds(world.clock.now() + timedelta(days=1))

    rows = await world.store.rows()
    assert (rows["comparisons"], rows["comparison_votes"]) == (0, 0)
    assert [job.sealed for job in await world.store.open_jobs(tuple(State))] == [False, False]
    with pytest.raises(Refusal, match="do not know this comparison"):
        await comparing(world).vote(BOB, comparison_id, Choice.A)


async def test_a_comparison_that_is_not_known_any_more(world: World) -> None:
    """Its clips are posted all the same."""
    await start(world)
    await world.store.guild_left(1, world.clock.now())
    await world.store.forget_guilds(world.clock.now() + timedelta(days=1))
    await work(world, times=4)

    assert len(world.announcer.posts) == 2
    assert await world.audited() == []


async def test_the_clip_of_another_machine(world: World) -> None:
    """The one that posts both fetches the other clip itself, by a fresh link where the old one is dead."""
    comparison_id = await start(world)
    a, b = await pair(world, comparison_id)
    original = world.engine._wait_for_other

    async def elsewhere(pair: Any, clip: Any) -> None:
        await original(pair, clip)
        clip.unlink(missing_ok=True)  # once: the folder is one here, and the other job may be reading from it
        world.engine._wait_for_other = original  # type: ignore[method-assign]

    world.engine._wait_for_other = elsewhere  # type: ignore[method-assign]
    world.provider.on_fetch.extend([None, None, ProviderRejected(Cause.CLIP_GONE)])
    await work(world, times=8)

    assert sorted(world.announcer.posts) == sorted([a.id, b.id])
    assert len(set(world.announcer.posts)) == 2
    assert await world.audited() == []
