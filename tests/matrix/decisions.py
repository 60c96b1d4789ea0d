"""What members and moderators decide: one transaction each, and what follows from it, by whoever is there then."""

import json
from collections.abc import Awaitable, Callable

import pytest

from bot import __main__ as root
from bot.errors import Refusal
from bot.jobs.comparisons import Choice, Comparisons
from bot.jobs.desk import Who
from bot.jobs.guilds import Guilds, GuildSettings, WhosePictures
from bot.jobs.machine import NOBODY, OPEN, Job, State
from bot.jobs.members import Members
from bot.jobs.moderation import Moderation, Verdict
from tests.asking import DECIDED, animate, asker, compare, member
from tests.matrix import asking, check, deliver, killed, on_both, work_until
from tests.matrix.pairs import check_comparison, comparison_of, end_the_vote
from tests.processes import PRICE_CENTS, Site
from tests.servers.discord import GUILD_ID, OWNER_ID, Fault

# What is done, and where the process that serves it dies.
DECISIONS = (
    ("block", "store.committed/Moderation.block"),
    ("block", "store.committed/Cancelled"),
    ("unblock", "store.committed/Moderation.unblock"),
    ("report", "store.committed/Moderation.report"),
    ("tell", "discord.answered/POST messages"),
    ("tell", "store.committed/Moderation._update"),
    ("keep", "store.committed/Moderation.decide"),
    ("redraw", "discord.answered/PATCH messages"),
    ("remove", "store.committed/Moderation.decide"),
    ("remove", "discord.answered/DELETE messages"),
    ("remove", "store.committed/Moderation._update"),
    ("remove_and_block", "store.committed/Moderation.decide"),
    ("change", "store.committed/Store.change_guild"),
    ("note", "discord.answered/POST messages"),
    ("pause", "store.committed/Store.pause"),
    ("resume", "store.committed/Store.pause"),
    ("join", "store.committed/Store.guild_joined"),
    ("leave", "store.committed/Store.guild_left"),
    ("leave", "store.committed/Cancelled"),
    ("ask_in_vain", "store.committed/Cancelled"),
    ("propose", "store.committed/Comparisons.propose"),
    ("vote", "store.committed/Comparisons.vote"),
    ("reveal", "store.committed/Comparisons.reveal"),
    ("reveal", "discord.answered/PATCH messages"),
    ("reveal", "store.committed/Comparisons._change"),
    ("withhold", "store.committed/_setting"),
    ("ask_owner", "discord.answered/POST messages"),
    ("allow", "store.committed/Members.allow"),
    ("alert", "discord.answered/POST messages:2"),
    ("alert", "store.committed/Store.remember"),
    ("delete", "discord.answered/DELETE messages"),
    ("delete_card", "store.committed/Cancelled"),
    ("forget", "store.committed/Cancelled"),
    ("forget", "store.committed/Members.forget"),
)
# Messages that go because a member wants to be forgotten, or moderators decided so; also where a card stands beside the post.
TAKEN_AWAY = (
    ("forget", "discord.answered/DELETE messages"),
    ("forget", "store.committed/Members.forgotten"),
    ("forget both", "discord.answered/DELETE messages"),
    ("forget both", "discord.answered/DELETE messages:2"),
    ("remove", "discord.answered/DELETE messages"),
    ("remove", "store.committed/Moderation._update"),
    ("remove both", "discord.answered/DELETE messages"),
    ("remove both", "discord.answered/DELETE messages:2"),
)
# Of a route whose key is refused, the owner is told.
FOR_THE_OWNER = (
    "store.committed/Store.remember_first",
    "discord.answered/POST channels",
    "discord.answered/POST messages",
    "store.committed/Store.replace_note",
)
# One of them is the like of another, which `make test` has.
SELDOM = {
    *(
        "unblock",
        "keep",
        "redraw",
        "change",
        "note",
        "resume",
        "join",
        "propose",
        "ask_owner",
        "allow",
        "delete_card",
    ),
    *("forget both", "remove both"),
}
SELDOM_ROWS = {
    ("remove", "discord.answered/DELETE messages"),
    ("remove", "store.committed/Moderation._update"),
    ("reveal", "discord.answered/PATCH messages"),
    ("reveal", "store.committed/Comparisons._change"),
    ("alert", "store.committed/Store.remember"),
    ("forget", "store.committed/Cancelled"),
}


async def work_on(site: Site, *jobs: Job) -> list[Job]:
    """Another process works until these jobs have ended, and their cards tell of it or are gone. The jobs."""
    found: list[Job] = []

    async def told() -> bool:
        found[:] = [await site.animatic.store.get(job.id) or job for job in jobs]
        buttons = "".join(message.shown for message in site.messages())
        return all(
            job.state not in OPEN
            and f"job:{job.id}:cancel" not in buttons
            and not (job.state is State.DELIVERED and job.card_id)
            for job in found
        )

    await work_until(site, told)
    return found


async def check_called_off(site: Site, job: Job) -> None:
    assert job.state is State.CANCELLED
    assert await site.animatic.store.money(job.id) == {"reserve": PRICE_CENTS, "release": PRICE_CENTS}
    assert not any(f"{job.id}.mp4" in post.shown for post in site.posts())


async def ask_in_the_server(site: Site, prompt: str = "waves") -> Job:
    return await animate(site.animatic, site.channel, prompt, guild=GUILD_ID)


async def settings_of(site: Site) -> GuildSettings:
    """As a process has them that has not read them before."""
    usual = site.animatic.bot.servers.usual
    return await Guilds(site.animatic.store, now=root.system_clock, usual=usual).settings(GUILD_ID)


async def let_moderators_read(site: Site, what: str = "review_channel") -> Callable[[], list[str]]:
    """Have a channel for reports, or another of theirs; the messages there."""
    channel_id = site.channel + 500_000
    await site.animatic.bot.servers.change(GUILD_ID, **{what: channel_id})
    return lambda: [message.shown for message in site.discord.visible if message.channel_id == channel_id]


async def reported_with_a_take(site: Site) -> tuple[Job, Job, Callable[[], list[str]]]:
    """A delivered clip that somebody reported, another take of it that waits, and what moderators read."""
    store, told = site.animatic.store, await let_moderators_read(site)
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    [job] = await store.many([job.id])
    take = await site.animatic.desk.again(member(site.channel), job)
    assert await DECIDED["report"](site.animatic, site.channel, job.id)
    assert len(told()) == 1
    return job, take, told


async def die_blocking(site: Site, row: str) -> None:
    """What waits of the blocked member is not made, nor what they ask for later; blocked twice, they are blocked once."""
    waiting, other = await ask_in_the_server(site), await ask_in_the_server(site, "dunes")
    await asking(site, row, "block", waiting.id)
    for job in await work_on(site, waiting, other):
        await check_called_off(site, job)
    with pytest.raises(Refusal, match="may not have clips made here"):
        await ask_in_the_server(site)
    await DECIDED["block"](site.animatic, site.channel, waiting.id)
    _, count = await Moderation(site.animatic.store).blocks_in(GUILD_ID, root.system_clock(), skip=0, limit=9)
    assert count == 1
    assert site.provider.creates == []
    await site.check_jobs()


async def die_unblocking(site: Site, row: str) -> None:
    """Who is unblocked has clips made again."""
    waiting = await ask_in_the_server(site)
    await DECIDED["block"](site.animatic, site.channel, waiting.id)
    await asking(site, row, "unblock", waiting.id)
    job = await ask_in_the_server(site, "dunes")
    first, second = await work_on(site, waiting, job)
    await check_called_off(site, first)
    await check(site, second, doubt=False)


async def die_removing(site: Site, row: str, *, block: bool = False) -> None:
    """The post goes, what waits to be made from the clip is not made, the moderators read of it. Nobody decides once more.
    Where its asker is blocked with it, nothing else of theirs is made."""
    store = site.animatic.store
    job, take, told = await reported_with_a_take(site)
    waiting = [take, await ask_in_the_server(site, "dunes")] if block else [take]
    await asking(site, row, "remove_and_block" if block else "remove", job.id)

    async def cleared() -> bool:
        review = await Moderation(store).review(job.id)
        assert review
        return review.cleared_at is not None and "Reported, and removed" in told()[0]

    await work_until(site, cleared)
    waiting = await work_on(site, *waiting)
    for each in waiting:
        await check_called_off(site, each)
    if block:
        with pytest.raises(Refusal, match="may not have clips made here"):
            await ask_in_the_server(site)
    with pytest.raises(Refusal, match="taken this clip away already"):
        await DECIDED["keep"](site.animatic, site.channel, job.id)
    assert [message.id for message in site.messages()] == [each.card_id for each in waiting]
    assert len(told()) == 1
    assert await store.money(job.id) == {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}
    assert len(site.provider.creates) == 1
    await site.check_jobs()


async def die_removing_and_blocking(site: Site, row: str) -> None:
    await die_removing(site, row, block=True)


async def die_keeping(site: Site, row: str) -> None:
    """The post stays, what waits to be made from the clip is made, the moderators read of it. Nobody decides once more."""
    job, take, told = await reported_with_a_take(site)
    await asking(site, row, "keep", job.id)
    [take] = await work_on(site, take)
    for again in ("remove", "report"):
        with pytest.raises(Refusal, match="kept it"):
            await DECIDED[again](site.animatic, site.channel, job.id)
    assert take.state is State.DELIVERED
    assert [message.id for message in site.messages()] == [job.post_id, take.post_id]
    assert ["Reported, and kept" in message for message in told()] == [True]
    assert len(site.provider.creates) == 2
    await site.check_jobs()


async def die_reporting(site: Site, row: str) -> None:
    """The moderators read of it, once; who reports once more, since nothing was answered, is counted once."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    messages = await let_moderators_read(site)
    await asking(site, row, "report", job.id)
    moderation = Moderation(site.animatic.store)

    async def shown() -> bool:
        review = await moderation.review(job.id)
        return review is not None and review.shown_as is not None

    await work_until(site, shown)
    with pytest.raises(Refusal, match="reported this clip already"):
        await DECIDED["report"](site.animatic, site.channel, job.id)
    review = await moderation.review(job.id)
    assert review
    assert (review.state, review.reporters) == (Verdict.OPEN, 1)
    assert ["A clip was reported" in message for message in messages()] == [True]
    await site.check_jobs()


async def die_telling(site: Site, row: str) -> None:
    """The moderators' message is there, and nothing says so: they read of it once, or once more where Discord has forgotten
    its nonce by then; what is decided is drawn on one of them."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    messages = await let_moderators_read(site)
    await asking(site, row, "tell", job.id)
    assert len(messages()) == 1
    moderation = Moderation(site.animatic.store)

    async def noted() -> bool:
        review = await moderation.review(job.id)
        return review is not None and review.shown_as is not None

    await work_until(site, noted)
    assert len(messages()) == (1 if site.discord.nonce_window or row.startswith("store.") else 2)
    await DECIDED["keep"](site.animatic, site.channel, job.id)
    assert sum("Reported, and kept" in message for message in messages()) <= 1
    assert [message.id for message in site.messages()] == [(await site.ended(job)).post_id]
    await site.check_jobs()


async def die_proposing(site: Site, row: str) -> None:
    """Nobody has said yes: nothing is made. Who asks again is asked again."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    await asking(site, row, "propose", job.id)
    assert await site.animatic.store.open_jobs() == []
    await deliver(site, await compare(site.animatic, site.channel))
    assert len(site.provider.creates) == 3
    await site.check_jobs()


async def die_asking_an_owner(site: Site, row: str) -> None:
    """The owner of the picture can answer all the same, and then it may be used. Nothing is made before."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    await site.animatic.bot.servers.change(GUILD_ID, pictures=WhosePictures.ASK)
    await asking(site, row, "ask_owner", job.id)
    [question] = [message for message in site.messages() if "consent:" in message.shown]
    assert f"<@{asker(site.channel).id}>" in question.data["content"]
    await DECIDED["allow"](site.animatic, site.channel, job.id)
    await DECIDED["ask_owner"](site.animatic, site.channel, job.id)
    assert len(site.provider.creates) == 1
    await site.check_jobs()


async def die_changing_settings(site: Site, row: str) -> None:
    """They hold in every other process, for what is asked from now on."""
    waiting = await ask_in_the_server(site)
    await asking(site, row, "change", waiting.id)
    settings = await settings_of(site)
    assert settings.most_cents == 1
    assert settings.differing_from(site.animatic.bot.servers.usual) == {"most_cents"}
    [job] = await work_on(site, waiting)
    await check(site, job, doubt=False)


async def die_pausing(site: Site, row: str) -> None:
    """What waits is not made, and its card says why."""
    waiting = await ask_in_the_server(site)
    await asking(site, row, "pause", waiting.id)

    async def told() -> bool:
        [card] = site.messages()
        return "paused" in card.shown

    await work_until(site, told)
    with pytest.raises(Refusal, match="have paused new clips"):
        (await settings_of(site)).refuse_paused()
    assert (await site.animatic.store.many([waiting.id]))[0].state is State.QUEUED
    assert site.provider.creates == []
    await site.check_jobs()


async def die_resuming(site: Site, row: str) -> None:
    """What waits is made."""
    waiting = await ask_in_the_server(site)
    await DECIDED["pause"](site.animatic, site.channel, waiting.id)
    await asking(site, row, "resume", waiting.id)
    [job] = await work_on(site, waiting)
    await check(site, job, doubt=False)


async def die_joining(site: Site, row: str) -> None:
    """Without a hello: clips are made in the server all the same, and whoever looks again knows it."""
    job = await ask_in_the_server(site)
    await asking(site, row, "join", job.id)
    assert await site.animatic.bot.servers.present() == [GUILD_ID]
    await deliver(site, [job])
    assert not await site.animatic.bot.servers.joined(GUILD_ID)
    await site.check_jobs()


async def die_asking_in_vain(site: Site, row: str) -> None:
    """Discord takes no card: nothing is made, and nothing of it is counted or reserved any more."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    posting = f"/channels/{site.channel}/messages"
    site.discord.faults.append(Fault("POST", posting, status=403, code=50013))
    await asking(site, row, "ask_in_vain", job.id)
    assert await site.animatic.store.open_jobs() == []
    await deliver(site, [await ask_in_the_server(site, "dunes")])
    assert len(site.provider.creates) == 2
    await site.check_jobs()


async def die_leaving(site: Site, row: str) -> None:
    """What waited in a server that removed the bot is not made, by a worker that has no gateway either. Back again, it is served."""
    servers = site.animatic.bot.servers
    await servers.joined(GUILD_ID)
    waiting = await ask_in_the_server(site)
    await asking(site, row, "leave", waiting.id)
    await check_called_off(site, *await work_on(site, waiting))
    assert await servers.present() == []
    assert site.provider.creates == []
    await servers.joined(GUILD_ID)
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    assert len(site.provider.creates) == 1
    await site.check_jobs()


async def compared(site: Site) -> list[Job]:
    jobs = await compare(site.animatic, site.channel)
    await deliver(site, jobs)
    return jobs


async def show_the_result(site: Site, jobs: list[Job]) -> None:
    async def shown() -> bool:
        return (await comparison_of(site, jobs[0])).done_at is not None

    await work_until(site, shown)
    await check_comparison(site, jobs, "result")
    [post] = site.messages()
    assert "result of your comparison" in post.shown
    await site.check_jobs()


async def die_voting(site: Site, row: str) -> None:
    """Who votes once more, since nothing was answered, is counted once."""
    jobs = await compared(site)
    this, votes = jobs[0].comparison_id or "", Comparisons(site.animatic.store).votes
    await asking(site, row, "vote", jobs[0].id)
    assert await votes(this) == {Choice.A: 1, Choice.B: 0, Choice.SAME: 0}
    await DECIDED["vote"](site.animatic, site.channel, jobs[0].id)
    await end_the_vote(site, jobs[0])
    await show_the_result(site, jobs)
    assert await votes(this) == {Choice.A: 1, Choice.B: 0, Choice.SAME: 0}


async def die_revealing(site: Site, row: str) -> None:
    """Nobody votes any more, and the result is shown by the next process."""
    jobs = await compared(site)
    await asking(site, row, "reveal", jobs[0].id)
    with pytest.raises(Refusal, match="vote is over"):
        await DECIDED["vote"](site.animatic, site.channel, jobs[0].id)
    await show_the_result(site, jobs)


async def die_withholding(site: Site, row: str) -> None:
    """Nobody else makes anything from this member's pictures."""
    job = await ask_in_the_server(site)
    await asking(site, row, "withhold", job.id)
    with pytest.raises(Refusal, match="does not want others"):
        await site.animatic.desk.require_consent(member(site.channel), job.asker_id)
    [job] = await work_on(site, job)  # their own clip is theirs
    await check(site, job, doubt=False)


async def die_allowing(site: Site, row: str) -> None:
    """The one who was allowed may, the other way round nobody was."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    await site.animatic.bot.servers.change(GUILD_ID, pictures=WhosePictures.ASK)
    one, other = asker(site.channel), member(site.channel)
    members, now = Members(site.animatic.store), root.system_clock()
    assert not await members.allows(GUILD_ID, one.id, other.id, now)
    await asking(site, row, "allow", job.id)
    await site.animatic.desk.require_consent(other, one.id)
    assert not await members.allows(GUILD_ID, other.id, one.id, now)
    [take] = await work_on(site, await site.animatic.desk.again(other, await site.animatic.desk.job(job.id)))
    assert take.state is State.DELIVERED
    assert len(site.provider.creates) == 2
    await site.check_jobs()


async def die_alerting(site: Site, row: str) -> None:
    """The clip is made. Moderators read that their budget is half spent: after the crash perhaps once more, and no more."""
    store, messages = site.animatic.store, await let_moderators_read(site, "audit_channel")
    await site.animatic.bot.servers.change(GUILD_ID, server_cents_per_day=10 * PRICE_CENTS)
    jobs = [await ask_in_the_server(site) for _ in range(4)]
    assert messages() == []
    await asking(site, row, "alert", jobs[0].id)
    assert len(messages()) == 1
    jobs = await store.open_jobs()
    jobs += [await ask_in_the_server(site) for _ in range(2)]
    assert len(messages()) == (1 if row.startswith("store.") else 2)
    assert all(each.state is State.DELIVERED for each in await work_on(site, *jobs))
    assert len(site.provider.creates) == len(jobs) == 7
    await site.check_jobs()


async def die_telling_the_owner(site: Site, row: str) -> None:
    """A key was refused: the owner reads it, perhaps twice. What was asked for is refused, and costs nothing."""

    def told() -> int:
        return sum(message.channel_id == OWNER_ID for message in site.discord.visible)

    before = told()
    site.provider.next_create = "echo_key"
    job = await site.ask()
    await killed(await site.start("first", fail_at=row))
    assert told() - before == (row in FOR_THE_OWNER[2:])
    noted, before = row == FOR_THE_OWNER[-1], told()

    async def known() -> bool:
        note = (await site.animatic.store.recall_all("trouble:")).get(f"trouble:{site.route}")
        return note is None or json.loads(note)["told"]

    await work_until(site, known)
    # Discord takes the same for the second time only when it has forgotten the first.
    assert told() - before == (not noted and (row in FOR_THE_OWNER[:2] or not site.discord.nonce_window))
    [job] = await work_on(site, job)
    assert job.state is State.FAILED
    assert await site.animatic.store.money(job.id) == {"reserve": PRICE_CENTS, "release": PRICE_CENTS}
    assert len(site.provider.creates) == 1
    await site.check_jobs()


async def die_deleting(site: Site, row: str) -> None:
    """The post stays away, and another take of the clip, which waits, is made. Who presses once more has the same answer."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    take = await site.animatic.desk.again(member(site.channel), await site.animatic.desk.job(job.id))
    await asking(site, row, "delete", job.id)
    [take] = await work_on(site, take)
    await DECIDED["delete"](site.animatic, site.channel, job.id)
    assert [message.id for message in site.messages()] == [take.post_id]
    [job] = await site.animatic.store.many([job.id])
    assert job.state is State.DELIVERED
    assert await site.animatic.store.money(job.id) == {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}
    assert len(site.provider.creates) == 2
    await site.check_jobs()


async def die_forgetting(site: Site, row: str) -> None:
    """What waits is not made; the messages go, then the name and the words. The money stays."""
    store = site.animatic.store
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    waiting = await ask_in_the_server(site, "dunes")
    await asking(site, row, "forget", job.id)
    if row == "store.committed/Cancelled":  # and nothing else yet: they ask for it again
        await DECIDED["forget"](site.animatic, site.channel, job.id)

    async def forgotten() -> bool:
        return {each.asker_id for each in await store.many([job.id, waiting.id])} == {NOBODY}

    await work_until(site, forgotten)
    assert site.messages() == []
    assert await store.money(job.id) == {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}
    await check_called_off(site, (await store.many([waiting.id]))[0])
    assert len(site.provider.creates) == 1
    await site.check_jobs()


async def die_taking_away(site: Site, why: str, row: str) -> None:
    """A process dies between the end of a message and the note of it; the next one comes to an end with it."""
    store = site.animatic.store
    job = await ask_in_the_server(site)
    why, _, card = why.partition(" ")
    if card:  # it still stands beside its post
        await killed(await site.start("first", fail_at="store.committed/Posted"))
    else:
        await deliver(site, [job])
    [job] = await store.many([job.id])
    assert (job.card_id is not None) == bool(card)
    now = root.system_clock()
    moderation = Moderation(store)
    if why == "forget":
        await site.animatic.desk.forget(Who(id=job.asker_id, channel_id=site.channel), posts=True)
    else:
        await moderation.report(job, 2, "spam", None, now)
        assert await moderation.decide(job.id, Verdict.REMOVED, 99, now)

    await killed(await site.start("first", fail_at=row))

    async def noted() -> bool:
        [found], review = await store.many([job.id]), await moderation.review(job.id)
        done = found.asker_id == NOBODY or (review is not None and review.cleared_at is not None)
        return done and site.messages() == []

    await work_until(site, noted)
    assert await store.money(job.id) == {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}
    assert len(site.provider.creates) == 1
    await site.check_jobs()


async def die_redrawing(site: Site, row: str) -> None:
    """What was decided is drawn on the moderators' message: by whoever is there then, once more."""
    store, messages = site.animatic.store, await let_moderators_read(site)
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    assert await DECIDED["report"](site.animatic, site.channel, job.id)
    await DECIDED["keep"](site.animatic, site.channel, job.id)
    await killed(await site.start("first", fail_at=row))

    async def drawn_again() -> bool:
        [told] = [message for message in site.discord.visible if message.channel_id == site.channel + 500_000]
        return told.edits == 2

    await work_until(site, drawn_again)
    assert ["Reported, and kept" in message for message in messages()] == [True]
    assert await store.money(job.id) == {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}
    await site.check_jobs()


async def die_noting(site: Site, row: str) -> None:
    """A line for the moderators stands there once."""
    messages = await let_moderators_read(site, "audit_channel")
    await asking(site, row, "note", (await ask_in_the_server(site)).id)
    assert len(messages()) == 1
    await deliver(site, await site.animatic.store.open_jobs())
    assert len(messages()) == 1
    await site.check_jobs()


async def die_deleting_a_card(site: Site, row: str) -> None:
    """Who deletes the card of what waits does not get it, nor pay for it."""
    job = await ask_in_the_server(site)
    await asking(site, row, "delete_card", job.id)
    await check_called_off(site, *await work_on(site, job))
    assert site.provider.creates == []
    await site.check_jobs()


# With what is done: what follows from it.
WHAT_FOLLOWS: dict[str, Callable[[Site, str], Awaitable[None]]] = {
    "block": die_blocking,
    "unblock": die_unblocking,
    "report": die_reporting,
    "tell": die_telling,
    "keep": die_keeping,
    "redraw": die_redrawing,
    "remove": die_removing,
    "remove_and_block": die_removing_and_blocking,
    "change": die_changing_settings,
    "note": die_noting,
    "pause": die_pausing,
    "resume": die_resuming,
    "join": die_joining,
    "leave": die_leaving,
    "ask_in_vain": die_asking_in_vain,
    "propose": die_proposing,
    "vote": die_voting,
    "reveal": die_revealing,
    "withhold": die_withholding,
    "ask_owner": die_asking_an_owner,
    "allow": die_allowing,
    "alert": die_alerting,
    "delete": die_deleting,
    "delete_card": die_deleting_a_card,
    "forget": die_forgetting,
}

DECIDED_ROWS = [
    one
    for what, row in DECISIONS
    for one in on_both(WHAT_FOLLOWS[what], row, usual=what not in SELDOM and (what, row) not in SELDOM_ROWS)
]
TAKEN_ROWS = [
    one for why, row in TAKEN_AWAY for one in on_both(die_taking_away, why, row, usual=why not in SELDOM)
]
OWNER_ROWS = [
    one
    for row in FOR_THE_OWNER
    for one in on_both(die_telling_the_owner, row, usual=row in FOR_THE_OWNER[::2])
]
