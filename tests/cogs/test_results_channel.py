"""The channel for results: clips are asked for in one channel and posted in another."""

import discord
import pytest
from simcord import ChannelHandle
from simcord.backend.models import Overwrite
from simcord.enums import OverwriteType

from bot.jobs.desk import Who
from bot.jobs.machine import Charge, State
from tests.cogs.conftest import Town, clip_in, picture, said, text_of
from tests.cogs.test_compare import labelled, start
from tests.cogs.test_safety import report, team_of
from tests.cogs.test_settings import choose


@pytest.fixture
async def results(town: Town) -> ChannelHandle:
    """A channel for results, chosen in the panel."""
    channel = town.guild.create_text_channel("cinema")
    await choose(town, "who", "results_channel", [channel])
    return channel


def restrict(town: Town, *channels: ChannelHandle) -> None:
    """Mark channels as age-restricted. The simulated Discord has no such thing: the client is told."""
    for one in channels:
        channel = town.animatic.bot.get_channel(one.id)
        assert isinstance(channel, discord.TextChannel)
        channel.nsfw = True


async def test_a_clip_goes_there(town: Town, results: ChannelHandle) -> None:
    """The card stands where it was asked for, and says where the clip comes; the asker is pinged there."""
    answer = said(await town.animate(town.ada, picture=picture()))
    card = town.card()

    assert f"The clip is posted in <#{results.id}>." in answer
    assert f"The clip is posted in <#{results.id}>." in text_of(card)
    assert town.messages(results) == []
    await town.work_until_done()

    [post] = town.posts(results)
    assert text_of(post).startswith(f"{town.ada.mention}, here is your clip.")
    assert [reaction.emoji for reaction in post.reactions] == ["🔁"]
    assert town.messages() == []
    job = await town.job()
    assert (job.state, job.channel_id, job.asked_in) == (State.DELIVERED, results.id, town.channel.id)


async def test_another_take_of_what_stands_there(town: Town, results: ChannelHandle) -> None:
    """By reaction and by button, for everybody, even where clips are only to be asked for elsewhere."""
    await choose(town, "who", "channels", [town.channel])
    await town.animate(town.ada, picture=picture())
    await town.work_until_done()
    [post] = town.posts(results)

    await town.bob.react(post, "🔁")
    await town.work_until_done()
    await town.moderator.click(post, label="Again")
    await town.work_until_done()

    assert len(town.posts(results)) == 3
    assert town.posts() == []
    assert len(town.messages(results)) == 3


async def test_from_a_thread(town: Town, results: ChannelHandle) -> None:
    """The same; and a thread of that channel keeps its clips."""
    for parent in (town.channel, results):
        town.env.backend.create_thread(parent.id, "waves", owner_id=town.ada.id)
    [thread], [inside] = town.channel.threads, results.threads

    await town.animate(town.ada, picture=picture(), channel=thread)
    await town.animate(town.bob, picture=picture(), channel=inside)
    assert len(town.cards(thread)) == 1
    await town.work_until_done()

    assert (len(town.posts(results)), len(town.posts(thread)), len(town.posts(inside))) == (1, 0, 1)
    assert town.cards(thread) == []


@pytest.mark.parametrize("again", [False, True], ids=["asked", "restarted"])
async def test_a_channel_that_is_gone_by_then(town: Town, results: ChannelHandle, again: bool) -> None:
    """The clip is posted where it was asked for, once, and with its card gone."""
    await town.animate(town.ada, picture=picture())
    town.env.backend.delete_channel(results.id)
    await town.env.settle()
    if again:
        await town.restart()
    await town.work_until_done()

    [post] = town.posts()
    assert f"{town.ada.mention}, here is your clip." in text_of(post)
    assert town.cards() == []
    assert (await town.job()).channel_id == town.channel.id
    assert len(town.makevid.creates) == 1
    await town.bob.react(post, "🔁")
    await town.work_until_done()
    assert len(town.posts()) == 2


async def test_a_channel_that_forbids_it_by_then(town: Town, results: ChannelHandle) -> None:
    """The same; and what is asked for afterwards does not try."""
    await town.animate(town.ada, picture=picture())
    town.forbid("send_messages", channel=results)
    await town.env.settle()
    await town.work_until_done()
    answer = said(await town.animate(town.ada, picture=picture()))
    await town.work_until_done()

    assert len(town.posts()) == 2
    assert str(results.id) not in answer


async def test_when_neither_takes_it(town: Town, results: ChannelHandle) -> None:
    """It goes to its asker, who paid no less for it."""
    await town.animate(town.ada, picture=picture())
    town.forbid("send_messages", channel=results)
    town.forbid("send_messages")
    await town.env.settle()
    await town.work_until_done()

    [clip] = [message for message in town.ada.user.dm_channel.history() if clip_in(message)]
    assert f"not in <#{town.channel.id}>" in text_of(clip)
    assert (await town.job()).charge is Charge.CHARGED


async def test_age_restricted_clips_stay_among_themselves(town: Town, results: ChannelHandle) -> None:
    """From a restricted channel nothing is posted in one that is not; the other way about it may be."""
    late = town.guild.create_text_channel("late")
    restrict(town, late)
    town.env.backend.create_thread(late.id, "waves", owner_id=town.ada.id)
    [thread] = late.threads

    await town.animate(town.ada, picture=picture(), channel=late)
    await town.animate(town.bob, picture=picture(), channel=thread)
    await town.work_until_done()
    assert (len(town.posts(late)), len(town.posts(thread)), len(town.posts(results))) == (1, 1, 0)

    restrict(town, results)
    await town.animate(town.ada, picture=picture(), channel=late)
    await town.animate(town.bob, picture=picture())
    await town.work_until_done()
    assert len(town.posts(results)) == 2


@pytest.mark.parametrize("flag", ["view_channel", "send_messages", "attach_files", "read_message_history"])
async def test_a_channel_where_the_bot_may_not_post(town: Town, flag: str) -> None:
    """Refused by name when it is chosen."""
    channel = town.guild.create_text_channel("cinema")
    user = town.animatic.bot.user
    assert user
    denied = discord.Permissions(**{flag: True}).value
    town.env.backend.set_overwrite(channel.id, Overwrite(user.id, OverwriteType.MEMBER, 0, denied))
    await town.env.settle()

    answer = said(await choose(town, "who", "results_channel", [channel]))

    assert f"I cannot write in <#{channel.id}>: I am missing **{flag.replace('_', ' ').title()}**" in answer
    assert (await town.animatic.bot.servers.settings(town.guild.id)).results_channel is None


async def test_the_panel_says_it(town: Town, results: ChannelHandle) -> None:
    """And taking it back is one choice, written down."""
    log = town.guild.create_text_channel("log")
    await choose(town, "team", "audit_channel", [log])
    await choose(town, "who", "results_channel", [])
    await town.animate(town.ada, picture=picture())
    await town.work_until_done()

    assert len(town.posts()) == 1
    assert [message.content for message in town.messages(log)][-1] == (
        f"{town.manager.mention} changed **Channel for results** from <#{results.id}> to where they were asked for."
    )


async def test_the_queue_shows_cards_where_they_stand(town: Town, results: ChannelHandle) -> None:
    """Not where the clips will be."""
    await town.animate(town.ada, picture=picture(), prompt="a lighthouse")
    archive = town.animatic.bot.archive
    here, there = [
        await archive.line(Who(id=town.bob.id, guild_id=town.guild.id, channel_id=channel.id))
        for channel in (town.channel, results)
    ]

    assert (len(here.cards), len(there.cards)) == (1, 0)


# Channels' budgets


async def test_threads_count_with_their_channel(town: Town) -> None:
    """Opening a thread gives nobody more clips."""
    await town.animatic.bot.servers.change(town.guild.id, channel_clips_per_day=2)
    town.env.backend.create_thread(town.channel.id, "waves", owner_id=town.ada.id)
    [thread] = town.channel.threads
    for channel in (thread, town.channel):
        await town.animate(town.ada, picture=picture(), channel=channel)
        await town.work_until_done()

    for channel in (thread, town.channel):
        refused = town.refusal(await town.animate(town.bob, picture=picture(), channel=channel))
        assert refused.startswith("This channel may have 2 clips a day")
    assert len(await town.jobs()) == 2


async def test_a_thread_gives_back_to_its_channel(town: Town) -> None:
    """What is cancelled in the thread may be asked for in the channel."""
    await town.animatic.bot.servers.change(town.guild.id, channel_clips_per_day=1)
    town.env.backend.create_thread(town.channel.id, "waves", owner_id=town.ada.id)
    [thread] = town.channel.threads
    await town.animate(town.ada, picture=picture(), channel=thread)
    await town.ada.click(town.cards(thread)[0], label="Cancel")

    await town.animate(town.bob, picture=picture())

    assert {job.state for job in await town.jobs()} == {State.CANCELLED, State.QUEUED}


async def test_results_count_where_they_were_asked_for(town: Town, results: ChannelHandle) -> None:
    """Else all channels would share the budget of the one for results."""
    await town.animatic.bot.servers.change(town.guild.id, channel_clips_per_day=1)
    other = town.guild.create_text_channel("other")

    for channel in (town.channel, other):
        await town.animate(town.ada, picture=picture(), channel=channel)
        await town.work_until_done()
    refused = town.refusal(await town.animate(town.bob, picture=picture()))

    assert refused.startswith("This channel may have 1 clip a day")
    assert len(town.posts(results)) == 2


async def test_a_clip_is_taken_away_from_there(town: Town, results: ChannelHandle) -> None:
    """Reported where it stands, decided in the moderators' channel."""
    team = await team_of(town)
    await town.animate(town.ada, picture=picture())
    await town.work_until_done()
    [post] = town.posts(results)
    await report(town, town.bob, post)

    await town.moderator.click(team.review(), label="Remove")

    assert town.posts(results) == []


async def test_a_comparison_goes_there(town: Town, results: ChannelHandle) -> None:
    """Both clips in one post, as anywhere."""
    await start(town)
    await town.work_until_done()

    [post] = town.posts(results)
    assert town.posts() == []
    assert {job.post_id for job in await labelled(town)} == {post.id}
