"""The client: what it asks Discord for, when it sends its commands, and that a restart loses nothing."""

from typing import Any

import discord
import pytest
from simcord import SetupError

from bot.client import PERMISSIONS
from bot.jobs.machine import State
from bot.ui import answer
from tests.cogs import conftest
from tests.cogs.conftest import MODELS, Town, buttons, picture, text_of
from tests.conftest import in_paid_call

town = conftest.town


def syncs(town: Town) -> int:
    return len(town.sent("PUT", "/commands"))


# Commands


async def test_commands_are_sent_when_they_changed(town: Town) -> None:
    """The first start sends them; a start with the same ones does not; one with other models does."""
    assert syncs(town) == 1

    await town.restart()
    assert syncs(town) == 1
    await town.restart(models={"luma": MODELS["luma"]})
    assert syncs(town) == 2
    await town.restart()

    assert syncs(town) == 2
    [model] = [option for option in options_of(commands(town)["animate"]) if option["name"] == "model"]
    assert [choice["value"] for choice in model["choices"]] == ["luma"]


async def test_commands_that_could_not_be_sent_are_sent_next_time(town: Town) -> None:
    """They count as sent when Discord has taken them, not before."""
    bot = town.animatic.bot
    await town.animatic.store.remember(f"commands:{bot.application_id}", "those of an older version")
    town.env.inject_error("PUT", "*/commands", status=503)
    with pytest.raises(discord.HTTPException):
        await bot._sync_when_changed()

    await town.restart()

    assert syncs(town) == 3


async def test_members_are_offered_what_there_is(town: Town) -> None:
    """In servers only."""
    assert sorted(town.ada.available_commands(town.channel)) == [
        "animate",
        "compare",
        "consent",
        "help",
        "history",
        "leaderboard",
        "mydata delete",
        "mydata export",
        "privacy",
        "queue",
        "show",
    ]

    assert town.ada.user.available_commands() == ()
    with pytest.raises(SetupError, match="not visible"):
        await town.ada.user.slash("animate", prompt="waves")


async def test_choices_come_from_the_models(town: Town) -> None:
    """All that any of them can do, each once."""
    offered = {
        option["name"]: [choice["value"] for choice in option.get("choices", [])]
        for option in options_of(commands(town)["animate"])
    }

    assert offered["model"] == ["kling", "luma", "runway", "sketch"]
    assert offered["seconds"] == [5, 10]
    assert offered["quality"] == ["720p", "1080p"]
    assert offered["ratio"][:3] == ["16:9", "9:16", "1:1"]
    assert offered["prompt"] == offered["picture"] == []


def commands(town: Town) -> dict[str, dict[str, Any]]:
    tree = town.animatic.bot.tree
    return {command.name: command.to_dict(tree) for command in tree.get_commands()}  # type: ignore[union-attr]


def options_of(command: dict[str, Any]) -> list[dict[str, Any]]:
    options: list[dict[str, Any]] = command.get("options", [])
    return options


# Components


async def test_every_component_is_within_discords_limits(town: Town) -> None:
    """Of a card, an unsure card and a post, drawn with the longest prompt there can be."""
    town.makevid.next_create = "500"
    await town.animate(town.ada, prompt="*" * 2500, picture=picture(), end_picture=picture(500, 500))
    drawn = [town.card()]
    await town.work()
    drawn.append(town.card())
    await town.ada.click(town.card(), label="Try again (may cost twice)")
    await town.work_until_done()
    drawn += town.posts()

    assert len(drawn) == 3
    for message in drawn:
        parts = conftest.parts_of(message)
        assert len(parts) <= 40
        assert len(text_of(message)) <= 4000
        for part in parts:
            assert len(part.get("label") or "") <= 80
            assert len(part.get("custom_id") or "") <= 100
            assert len(part.get("description") or "") <= 1024


# What it asks for


async def test_no_privileged_intents(town: Town) -> None:
    """No list of members, no presences, no words of messages."""
    intents = town.animatic.bot.intents

    assert intents == discord.Intents(guilds=True, guild_messages=True, guild_reactions=True)


def test_the_invite_asks_for_what_is_needed() -> None:
    """All that is checked before a job, and Add Reactions; nothing that moderates."""
    for flag in (*answer.NEEDED, "send_messages_in_threads", "add_reactions"):
        assert getattr(PERMISSIONS, flag)
    assert not PERMISSIONS.administrator
    assert not PERMISSIONS.manage_messages


# A restart in every open state


async def test_a_restart_while_it_waits(town: Town) -> None:
    """Queued: it is started by the next run."""
    await town.animate(town.ada, picture=picture())

    await town.restart()
    await town.work_until_done()

    assert len(town.posts()) == len(town.makevid.creates) == 1


async def test_a_restart_while_it_renders(town: Town) -> None:
    """Taken by the gateway: it is asked for again, and not made again."""
    await town.animate(town.ada, picture=picture())
    await town.work()
    assert (await town.job()).state is State.RENDERING

    await town.restart()
    await town.work_until_done()

    assert len(town.posts()) == len(town.makevid.creates) == 1


@pytest.mark.parametrize("trouble", ["download", "discord"])
async def test_a_restart_while_it_is_posted(town: Town, trouble: str) -> None:
    """The clip is made but not there yet, or there and not posted: it is posted once."""
    town.makevid.polls_until_done = 0
    await town.animate(town.ada, picture=picture())
    await town.work()
    if trouble == "download":
        town.makevid.next_clip = "503"
    else:
        town.env.inject_error("POST", f"/channels/{town.channel.id}/messages", status=503)
    await town.wait(10)
    assert (await town.job()).state is State.POSTING

    await town.restart()
    await town.work_until_done()

    assert len(town.posts()) == len(town.makevid.creates) == 1
    assert town.cards() == []


async def test_a_crash_during_the_paid_call(town: Town) -> None:
    """The intent is written and no answer is: the card says that nobody knows, and nothing is paid twice."""
    await town.animate(town.ada, picture=picture())
    claimed = await in_paid_call(town.animatic.store, slots=2, worker="gone", now=town.env.now())
    assert claimed

    await town.restart()
    await town.wait(3600)

    assert "I was stopped while handing the job over." in text_of(town.card())
    assert "I will not pay twice by myself." in text_of(town.card())
    assert buttons(town.card()) == ["Try again (may cost twice)", "Let it go"]
    assert town.makevid.creates == []


async def test_a_restart_while_nobody_knows(town: Town) -> None:
    """An unsure job stays one: a new process knows no more than the old one."""
    town.makevid.next_create = "reset_after"
    await town.animate(town.ada, picture=picture())
    await town.work()

    await town.restart()
    await town.wait(3600)

    assert buttons(town.card()) == ["Try again (may cost twice)", "Let it go"]
    assert len(town.makevid.creates) == 1
    assert town.posts() == []


async def test_many_restarts(town: Town) -> None:
    """One after every step: still one create and one post for each of two clips."""
    for member in (town.ada, town.bob):
        await town.animate(member, picture=picture())

    for _ in range(6):
        await town.restart()
        await town.env.advance_time(10)

    assert len(town.posts()) == len(town.makevid.creates) == 2
    assert {job.state for job in await town.jobs()} == {State.DELIVERED}
