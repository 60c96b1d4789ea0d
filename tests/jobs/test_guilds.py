"""What servers decide: kept, shared between processes, followed by the desk and by claims, forgotten in time."""

import asyncio
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest
from pydantic import ValidationError

from bot.errors import Cause, ProviderUnsure, Refusal
from bot.jobs.announcing import Pictures
from bot.jobs.budgets import Budget, Scope, Stretch
from bot.jobs.desk import Ask, Who
from bot.jobs.guilds import FRESH, MOST_KEPT, Guilds, GuildSettings, Paused, WhosePictures
from bot.jobs.machine import State
from bot.jobs.store import Store
from tests.conftest import Clock, in_paid_call
from tests.jobs.world import PICTURE, World

GUILD = 1
USUAL = GuildSettings(requeue_emoji="🎬", confirm_above_cents=100)


@pytest.fixture
def guilds(store: Store, clock: Clock) -> Guilds:
    return Guilds(store, now=clock.now, usual=USUAL)


def somebody(**changes: Any) -> Who:
    return replace(Who(id=2, channel_id=10, guild_id=GUILD), **changes)


async def follow(world: World, **settings: Any) -> GuildSettings:
    """Let the desk of this world go by these settings."""
    decided = GuildSettings(**settings)

    async def settings_of(_guild_id: int | None) -> GuildSettings:
        return decided

    world.desk._settings_of = settings_of
    return decided


async def refused(world: World, who: Who, *, parent: Any = None, picture_by: int | None = None) -> str:
    """The sentence of a request that the settings forbid; nothing came of it."""
    before = len(await world.store.open_jobs(tuple(State)))
    plan = world.desk.plan(Ask(prompt="waves", has_picture=True))
    with pytest.raises(Refusal) as refusal:
        await world.desk.request(who, plan, Pictures(first=PICTURE), parent=parent, picture_by=picture_by)
    assert len(await world.store.open_jobs(tuple(State))) == before
    assert str(refusal.value).endswith("Nothing was charged.")
    return str(refusal.value)


# Kept


async def test_a_server_that_decided_nothing_follows_the_config(guilds: Guilds) -> None:
    """So does whatever is outside of servers."""
    assert await guilds.settings(GUILD) == USUAL
    assert await guilds.settings(None) == USUAL


async def test_what_is_decided_is_kept(guilds: Guilds, store: Store, clock: Clock) -> None:
    """Every kind of field, for this server alone, also by a new process."""
    decided: dict[str, Any] = {
        "channels": frozenset({10, 11}),
        "role_clips_per_day": {5: 7},
        "pictures": WhosePictures.ASK,
        "blocked_words": ("one", "two"),
        "most_cents": 0,
        "spoiler": True,
    }

    before, after = await guilds.change(GUILD, **decided)

    assert before == USUAL
    assert after == USUAL.model_copy(update=decided)
    assert await Guilds(store, now=clock.now, usual=USUAL).settings(GUILD) == after
    assert await guilds.settings(GUILD + 1) == USUAL


async def test_what_is_not_decided_goes_on_following_the_config(
    guilds: Guilds, store: Store, clock: Clock
) -> None:
    """The owner changes the config and starts anew; a value put back to the usual one is no decision."""
    await guilds.change(GUILD, spoiler=True, requeue_emoji="🔂")
    await guilds.change(GUILD, requeue_emoji="🎬")

    later = Guilds(store, now=clock.now, usual=GuildSettings(requeue_emoji="🌊"))

    assert await later.settings(GUILD) == GuildSettings(requeue_emoji="🌊", spoiler=True)


@pytest.mark.parametrize(
    "changes",
    [
        {"requeues_per_day": -1},
        {"most_cents": 10**12},
        {"channels": frozenset(range(26))},
        {"requeue_emoji": ""},
        {"role_clips_per_day": {5: -1}},
        {"blocked_words": ("word",) * 201},
        {"pictures": "everybody"},
    ],
)
async def test_values_out_of_bounds(guilds: Guilds, changes: dict[str, Any]) -> None:
    """Nothing is changed."""
    with pytest.raises(ValidationError):
        await guilds.change(GUILD, **changes)

    assert await guilds.settings(GUILD) == USUAL


async def test_two_moderators_at_once(guilds: Guilds, store: Store, clock: Clock) -> None:
    """In two processes: neither change is lost."""
    other = Guilds(store, now=clock.now, usual=USUAL)

    await asyncio.gather(
        *(guilds.change(GUILD, server_cents_per_day=5) for _ in range(3)),
        *(other.change(GUILD, spoiler=True) for _ in range(3)),
    )

    assert (await guilds.settings(GUILD)).server_cents_per_day == 5
    assert (await guilds.settings(GUILD)).spoiler


async def test_another_process_learns_of_a_change(guilds: Guilds, store: Store, clock: Clock) -> None:
    """Within ten seconds; the one that made it knows at once."""
    other = Guilds(store, now=clock.now, usual=USUAL)
    assert not (await other.settings(GUILD)).spoiler

    await guilds.change(GUILD, spoiler=True)
    await guilds.pause(GUILD, True)

    assert (await guilds.settings(GUILD)).spoiler
    assert not (await other.settings(GUILD)).spoiler
    clock.pass_by(seconds=FRESH.total_seconds() + 1)
    assert (await other.settings(GUILD)).spoiler
    assert (await other.settings(GUILD)).paused is Paused.HERE


async def test_the_memory_is_bounded(guilds: Guilds, monkeypatch: pytest.MonkeyPatch) -> None:
    """The longest unread are read again."""
    assert MOST_KEPT <= 10_000
    monkeypatch.setattr("bot.jobs.guilds.MOST_KEPT", 3)

    for guild_id in range(10):
        await guilds.settings(guild_id)

    assert list(guilds._kept) == [7, 8, 9]


async def test_what_another_version_wrote(guilds: Guilds, store: Store) -> None:
    """A field that is gone is left out; what cannot be read at all does not stop the server."""
    await store.change_guild(GUILD, lambda _: '{"spoiler": true, "music": "loud"}')
    await store.change_guild(GUILD + 1, lambda _: '{"spoiler": "very"}')

    assert await guilds.settings(GUILD) == USUAL.model_copy(update={"spoiler": True})
    assert await guilds.settings(GUILD + 1) == USUAL


async def test_leaving_and_coming_back(guilds: Guilds, store: Store, clock: Clock) -> None:
    """What was decided is kept for as long as it is not forgotten, and holds again."""
    assert await guilds.joined(GUILD)
    assert not await guilds.joined(GUILD)
    await guilds.change(GUILD, spoiler=True)
    await guilds.left(GUILD)
    clock.pass_by(days=29)
    assert await store.forget_guilds(clock.at.replace(year=2020)) == 0

    assert await guilds.joined(GUILD)
    assert (await guilds.settings(GUILD)).spoiler
    clock.pass_by(days=400)
    assert await store.forget_guilds(clock.now()) == 0

    await guilds.left(GUILD)
    clock.pass_by(days=1)
    await guilds.left(GUILD)
    assert await store.forget_guilds(clock.at.replace(year=2020)) == 0
    assert await store.forget_guilds(clock.now()) == 1
    assert await Guilds(store, now=clock.now, usual=USUAL).settings(GUILD) == USUAL


# Followed


async def test_channels(world: World) -> None:
    """Named in the refusal; a thread belongs to its channel, and moderators are held to it as well."""
    await follow(world, channels={10, 11})

    assert await refused(world, somebody(channel_id=9, moderator=True)) == (
        "Clips are made only in <#10> or <#11> here. Nothing was charged."
    )
    plan = world.desk.plan(Ask(prompt="waves", has_picture=True))
    for who in (somebody(), somebody(channel_id=99, thread_of=11)):
        await world.desk.request(who, plan, Pictures(first=PICTURE))


async def test_roles(world: World) -> None:
    """Any one of them will do; moderators always may."""
    await follow(world, roles={5, 6})

    assert await refused(world, somebody(roles=frozenset({7}))) == (
        "Only <@&5> or <@&6> may have clips made here. Nothing was charged."
    )
    plan = world.desk.plan(Ask(prompt="waves", has_picture=True))
    for who in (somebody(roles=frozenset({6, 7})), somebody(moderator=True)):
        await world.desk.request(who, plan, Pictures(first=PICTURE))


async def test_a_clip_that_is_too_dear(world: World) -> None:
    """Says what would do: something shorter, another model, or whom to ask. At the limit it is made."""
    ask = Ask(prompt="waves", has_picture=True, seconds=10)
    await follow(world, most_cents=35)
    with pytest.raises(Refusal) as shorter:
        world.desk.plan(ask, await world.desk.settings(GUILD))
    assert str(shorter.value) == (
        "This clip costs $0.70, and one may cost at most $0.35 here. Choose a shorter one, or a lower quality. "
        "Nothing was charged."
    )
    assert world.desk.plan(replace(ask, seconds=5), await world.desk.settings(GUILD)).price_cents == 35

    settings = await follow(world, most_cents=34)
    assert "A moderator can change that with /settings." in await refused(world, somebody())
    assert world.desk.menu_of(settings).models == world.desk.menu.models


async def test_the_servers_own_model_and_length(world: World) -> None:
    """For what a person left open, and where the model has that length."""
    settings = await follow(world, default_model="runway", default_seconds=10)

    plan = world.desk.plan(Ask(prompt="waves", has_picture=True), settings)
    assert (plan.model.name, plan.seconds) == ("runway", 10)
    plan = world.desk.plan(Ask(prompt="waves", has_picture=True, model="kling", seconds=5), settings)
    assert (plan.model.name, plan.seconds) == ("kling", 5)
    odd = GuildSettings(default_model="gone", default_seconds=7)
    plan = world.desk.plan(Ask(prompt="waves", has_picture=True), odd)
    assert (plan.model.name, plan.seconds) == ("kling", 5)


async def test_only_ones_own_pictures(world: World) -> None:
    """By the menu, and by a clip made from another's picture; one's own is one's own."""
    clip = await world.ask(asker=3)
    await follow(world, pictures="own")

    sentence = "Here everybody may use only their own pictures, and this one is from <@3>."
    assert (await refused(world, somebody(), picture_by=3)).startswith(sentence)
    assert (await refused(world, somebody(), parent=clip)).startswith(sentence)
    plan = world.desk.plan(Ask(prompt="waves", has_picture=True))
    await world.desk.request(somebody(id=3), plan, Pictures(first=PICTURE), parent=clip)
    await world.desk.request(somebody(), plan, Pictures(first=PICTURE))
    await world.desk.request(somebody(), world.desk.plan(Ask(prompt="a fox")), Pictures(), parent=clip)


async def test_the_owner_of_a_picture_is_asked(world: World) -> None:
    """Once in an hour for each who wants it; a yes holds for a day, for that one person, in that server."""
    await follow(world, pictures="ask")
    plan = world.desk.plan(Ask(prompt="waves", has_picture=True))
    sentence = "Here the owner of a picture is asked first. I have asked <@3>;"

    assert (await refused(world, somebody(), picture_by=3)).startswith(sentence)
    assert (await refused(world, somebody(), picture_by=3)).startswith(sentence)
    assert world.announcer.asked == [(10, GUILD, 3, 2)]
    world.clock.pass_by(hours=2)
    await refused(world, somebody(), picture_by=3)
    assert len(world.announcer.asked) == 2

    await world.desk.allow_pictures(somebody(id=3), 2)
    await world.desk.request(somebody(), plan, Pictures(first=PICTURE), picture_by=3)
    for other in (somebody(id=4), somebody(guild_id=GUILD + 1)):
        await refused(world, other, picture_by=3)
    await refused(world, somebody(), picture_by=4)
    world.clock.pass_by(hours=25)
    await refused(world, somebody(), picture_by=3)


async def test_an_owner_who_cannot_be_asked(world: World) -> None:
    """Says so, and the next one tries again; who wants no such thing is not even asked."""
    await follow(world, pictures="ask")
    world.announcer.can_ask = False

    assert "I could not ask <@3>" in await refused(world, somebody(), picture_by=3)
    assert "I could not ask <@3>" in await refused(world, somebody(), picture_by=3)
    await world.desk.withhold_pictures(somebody(id=4), True)
    assert "<@4> does not want" in await refused(world, somebody(), picture_by=4)
    assert len(world.announcer.asked) == 2


async def test_a_yes_is_forgotten(world: World) -> None:
    """When it has ended, and when either of the two wants to be forgotten."""
    members, now = world.desk._members, world.clock.now()
    for owner, asker in ((3, 2), (5, 6), (6, 5)):
        await members.allow(GUILD, owner, asker, now + timedelta(days=1))
    await members.forget_consents(now)
    await members.forget(5, now, posts=False)

    assert await members.allows(GUILD, 3, 2, now)
    assert not await members.allows(GUILD, 5, 6, now)
    assert not await members.allows(GUILD, 6, 5, now)
    await members.forget_consents(now + timedelta(days=1))
    assert not await members.allows(GUILD, 3, 2, now)


async def test_limits_of_a_role(world: World) -> None:
    """The most generous of a member's roles replaces the member's own limit, upwards and downwards."""
    settings = GuildSettings(member_clips_per_day=2, role_clips_per_day={5: 1, 6: 4})
    day = Stretch.DAY

    assert settings.budgets([]) == [Budget(scope=Scope.MEMBER, stretch=day, clips=2)]
    assert settings.budgets([5]) == [Budget(scope=Scope.MEMBER, stretch=day, clips=1)]
    assert settings.budgets([5, 6]) == [Budget(scope=Scope.MEMBER, stretch=day, clips=4)]
    assert GuildSettings().budgets([5]) == []


@pytest.mark.parametrize(
    ("limits", "others", "sentence"),
    [
        ({"member_clips_per_day": 1}, {"asker": 3}, "You may have 1 clip a day"),
        ({"member_cents_per_day": 40}, {"asker": 3}, "your budget for this day has $0.05 left of $0.40"),
        ({"channel_clips_per_day": 1}, {"asker": 3, "channel": 11}, "This channel may have 1 clip a day"),
        ({"server_cents_per_day": 40}, None, "this server's budget for this day has $0.05 left"),
        ({"server_cents_per_month": 40}, None, "this server's budget for this month has $0.05 left"),
    ],
)
async def test_limits_of_a_server(
    world: World, limits: dict[str, int], others: dict[str, int] | None, sentence: str
) -> None:
    """Up to the limit, not over it; somebody else, or another channel, still has theirs."""
    await follow(world, **limits)
    await world.ask()

    assert sentence in await refused(world, somebody())
    if others:
        await world.ask(**others)


async def test_the_owners_limits_hold_beside(world: World) -> None:
    """A server cannot be more generous than the owner."""
    await follow(world, member_clips_per_day=5)

    async def budgets_of(_who: Who) -> list[Budget]:
        return [Budget(scope=Scope.MEMBER, stretch=Stretch.DAY, clips=1)]

    world.desk._budgets_of = budgets_of
    await world.ask()

    assert "You may have 1 clip a day" in await refused(world, somebody())


# Paused


@pytest.mark.parametrize("where", [GUILD, None])
async def test_what_waits_when_paused(world: World, where: int | None) -> None:
    """Stays in line and is not paid; what was paid is made and posted; afterwards it goes on."""
    guilds = Guilds(world.store, now=world.clock.now, usual=USUAL)
    world.desk._settings_of = guilds.settings
    paid = await world.ask()
    await in_paid_call(world.store, slots=1, worker="worker-1", now=world.clock.now())
    waits = await world.ask()

    assert await guilds.pause(where, True)
    assert not await guilds.pause(where, True)
    assert await world.store.claim("makevid", slots=9, worker="worker-1", now=world.clock.now()) == []
    assert (await world.now(paid)).state is State.SUBMITTING
    assert (await world.now(waits)).state is State.QUEUED
    assert await world.store.paused([GUILD, None, 7]) == ({GUILD} if where else {GUILD, None, 7})
    whose = "moderators have" if where else "owner has"
    assert whose in await refused(world, somebody())

    assert await guilds.pause(where, False)
    assert not await guilds.pause(where, False)
    claimed = await world.store.claim("makevid", slots=9, worker="worker-1", now=world.clock.now())
    assert [job.id for job in claimed] == [waits.id]


async def test_a_pause_is_one_servers_own(world: World) -> None:
    """Others, and jobs of no server, go on."""
    guilds = Guilds(world.store, now=world.clock.now, usual=USUAL)
    await guilds.pause(GUILD, True)
    plan = world.desk.plan(Ask(prompt="waves", has_picture=True))
    jobs = [
        await world.desk.request(somebody(guild_id=guild_id), plan, Pictures(first=PICTURE))
        for guild_id in (GUILD, GUILD + 1, None)
    ]

    claimed = await world.store.claim("makevid", slots=9, worker="worker-1", now=world.clock.now())

    assert {job.id for job in claimed} == {jobs[1].id, jobs[2].id}


async def test_what_is_in_doubt_is_not_tried_again_while_paused(world: World) -> None:
    """It would be paid when that is just what should not be."""
    world.provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    job = await world.ask()
    await world.engine.run_due()
    await follow(world, paused="here")

    with pytest.raises(Refusal, match="paused"):
        await world.desk.try_again(somebody(), job.id)

    assert (await world.now(job)).state is State.UNSURE
