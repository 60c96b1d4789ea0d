"""What happens when the bot is added to a server, and when it is removed."""

from datetime import timedelta

import discord
import pytest
from simcord import ChannelHandle, GuildHandle
from simcord.backend import serializers

from bot.jobs.machine import Charge, State
from tests.cogs.conftest import Town, clip_in, picture


async def joined(
    town: Town, *channels: str, overwrites: dict[str, dict[str, bool]] | None = None
) -> GuildHandle:
    """The bot is added to a new server with these channels."""
    guild = town.env.create_guild("Lighthouse")
    for name in channels:
        denied = discord.PermissionOverwrite(**(overwrites or {}).get(name, {}))
        guild.create_text_channel(name, overwrites={guild.default_role: denied})
    # To one that the bot has just joined, Discord does not say whether it was unavailable before.
    payload = dict(serializers.guild_create_payload(town.env.backend, town.env.backend.get_guild(guild.id)))
    del payload["unavailable"]
    town.env.backend.emit("GUILD_CREATE", payload)
    await town.env.settle()
    return guild


def said_in(town: Town, channel: ChannelHandle) -> list[str]:
    bot = town.animatic.bot.user
    assert bot
    return [message.content for message in channel.history() if message.author.id == bot.id]


async def test_a_hello(town: Town) -> None:
    """Once, with commands that can be clicked."""
    guild = await joined(town, "general", "clips")
    ids = town.animatic.bot.command_ids

    [hello] = said_in(town, guild.channels["general"])
    assert f"</animate:{ids['animate']}>" in hello
    assert f"</settings:{ids['settings']}>" in hello
    assert "missing" not in hello
    assert said_in(town, guild.channels["clips"]) == []


async def test_a_hello_where_the_bot_may_write(town: Town) -> None:
    """And what it lacks there."""
    guild = await joined(
        town,
        "rules",
        "general",
        overwrites={
            "rules": {"send_messages": False},
            "general": {"attach_files": False, "add_reactions": False},
        },
    )

    assert said_in(town, guild.channels["rules"]) == []
    [hello] = said_in(town, guild.channels["general"])
    assert "In this channel I am still missing **Attach Files**, **Add Reactions**." in hello


async def test_a_server_without_a_place_for_a_hello(town: Town) -> None:
    """Nothing is said, and nothing fails."""
    guild = await joined(town, "rules", overwrites={"rules": {"view_channel": False}})

    assert not town.sent("POST", f"/channels/{guild.channels['rules'].id}/messages")


async def test_no_second_hello_after_a_restart(town: Town) -> None:
    """Discord tells of all servers anew when the bot connects."""
    guild = await joined(town, "general")

    await town.restart()

    assert len(said_in(town, guild.channels["general"])) == 1


async def test_removal_ends_open_jobs(town: Town) -> None:
    """What is not paid is called off and given back; what is paid is made, and goes to its asker."""
    for person in (town.ada, town.bob, town.moderator):
        await town.animate(person, picture=picture())
    await town.work()

    town.env.backend.remove_guild(town.guild.id)
    await town.env.settle()
    waiting = [job for job in await town.jobs() if job.state is State.CANCELLED]
    await town.work_until_done()

    [cancelled] = waiting
    assert cancelled.charge is Charge.NONE
    assert len(town.makevid.creates) == 2
    for person in (town.ada, town.bob, town.moderator):
        clips = [message for message in person.user.dm_channel.history() if clip_in(message)]
        assert len(clips) == (person.id != cancelled.asker_id)
    assert {job.state for job in await town.jobs()} == {State.CANCELLED, State.DELIVERED}


@pytest.mark.parametrize(("days", "kept"), [(29, True), (31, False)])
async def test_settings_of_a_server_that_was_left(town: Town, days: int, kept: bool) -> None:
    """They are kept for a month, should the bot come back, and are then deleted."""
    servers = town.animatic.bot.servers
    await servers.change(town.guild.id, spoiler=True)
    town.env.backend.remove_guild(town.guild.id)
    await town.env.settle()

    await town.wait(timedelta(days=days).total_seconds())
    await servers.joined(town.guild.id)

    assert (await servers.settings(town.guild.id)).spoiler is kept


def removed_unnoticed(town: Town) -> None:
    """The bot is removed from the server while nobody is connected to be told."""
    backend = town.env.backend
    emit, backend.emit = backend.emit, lambda *_args, **_more: None  # type: ignore[method-assign]
    backend.remove_guild(town.guild.id)
    backend.emit = emit  # type: ignore[method-assign]


async def test_removal_while_the_bot_was_away(town: Town) -> None:
    """Noticed at the next start: open jobs end, and what was decided is kept for a month from then."""
    servers = town.animatic.bot.servers
    await servers.change(town.guild.id, spoiler=True)
    await town.animate(town.ada, picture=picture())
    removed_unnoticed(town)

    await town.restart_quietly()

    servers = town.animatic.bot.servers
    assert (await town.job()).state is State.CANCELLED
    assert await servers.present() == []
    await town.wait(timedelta(days=31).total_seconds())
    await servers.joined(town.guild.id)
    assert not (await servers.settings(town.guild.id)).spoiler


async def test_a_server_that_took_the_bot_back_while_it_was_away(town: Town) -> None:
    """What was decided there holds again, and is not deleted a month after the bot was removed."""
    servers = town.animatic.bot.servers
    await servers.change(town.guild.id, spoiler=True)
    await servers.left(town.guild.id)

    await town.restart_quietly()

    servers = town.animatic.bot.servers
    assert await servers.present() == [town.guild.id]
    await town.wait(timedelta(days=31).total_seconds())
    assert (await servers.settings(town.guild.id)).spoiler


async def test_a_server_that_never_decided_anything(town: Town) -> None:
    """Its waiting jobs are enough to know it by."""
    await town.animate(town.ada, picture=picture())
    removed_unnoticed(town)

    await town.restart_quietly()

    assert (await town.job()).state is State.CANCELLED


async def test_a_server_that_discord_cannot_reach(town: Town) -> None:
    """It stands in the list as unavailable: nothing is ended. Nor where it is missing, and Discord still knows it."""
    await town.animatic.bot.servers.change(town.guild.id, spoiler=True)
    await town.animate(town.ada, picture=picture())
    bot, cog = town.animatic.bot, town.animatic.bot.get_cog("Joining")
    guild = bot.get_guild(town.guild.id)
    assert guild
    assert cog

    guild.unavailable = True
    await cog.on_ready()  # type: ignore[attr-defined]
    bot._connection._guilds.pop(guild.id)
    await cog.on_ready()  # type: ignore[attr-defined]

    assert (await town.job()).state is State.QUEUED
    assert await bot.servers.present() == [guild.id]


async def test_servers_of_other_shards(town: Town) -> None:
    """Another process has them."""
    other = ((town.guild.id >> 22) + 1) << 22
    await town.animatic.bot.servers.joined(other)
    town.animatic.bot.shard_count = 2**20

    cog = town.animatic.bot.get_cog("Joining")
    assert cog
    await cog.on_ready()  # type: ignore[attr-defined]

    assert other in await town.animatic.bot.servers.present()
