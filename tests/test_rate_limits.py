"""Discord's rate limits, on the wire: they are kept before Discord has to say so."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import discord
import pytest
from discord.http import Route

from bot import __main__ as root
from bot.client import AnimaticBot
from bot.jobs.store import Store
from tests.servers.discord import CHANNEL_ID, TOKEN, DiscordServer, Fault


@pytest.fixture
async def server() -> DiscordServer:
    return DiscordServer()


async def test_messages_wait_for_their_turn(server: DiscordServer, monkeypatch: pytest.MonkeyPatch) -> None:
    """Two in a fifth of a second: seven go out, most of them not before they may, none is lost or doubled."""
    async with server:
        server.rate = (2, 0.2)
        monkeypatch.setattr(Route, "BASE", server.api_base)
        async with discord.Client(intents=discord.Intents.none()) as client:
            await client.login(TOKEN)
            channel = client.get_partial_messageable(CHANNEL_ID)
            await channel.send("0")
            await asyncio.gather(*(channel.send(str(number)) for number in range(1, 7)))

        said = sorted(message.data["content"] for message in server.visible)
    assert said == [str(number) for number in range(7)]
    assert server.limited < 4  # discord.py lets a few slip, and repeats them


async def test_a_refusal_for_the_rate_is_waited_out(
    server: DiscordServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A 429 is a delay, not an end."""
    async with server:
        monkeypatch.setattr(Route, "BASE", server.api_base)
        server.faults.append(Fault("POST", "/messages", retry_after=0.05))
        async with discord.Client(intents=discord.Intents.none()) as client:
            await client.login(TOKEN)
            await client.get_partial_messageable(CHANNEL_ID).send("hello")

        assert [message.data["content"] for message in server.visible] == ["hello"]


@pytest.mark.parametrize("database", ["sqlite"], indirect=True)
async def test_a_long_limit_at_the_start_is_tried_again(
    server: DiscordServer, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Longer than our bot waits within a call: it says so in the log, and logs in when it may."""
    async with server:
        monkeypatch.setattr(Route, "BASE", server.api_base)
        server.faults.append(Fault("GET", "/users/@me", retry_after=60))
        async with AnimaticBot(store=store) as bot:
            again = root.log_in_unless(asyncio.Event(), bot, TOKEN, commands=False)
            monkeypatch.setattr(asyncio, "wait_for", no_pause)

            assert await again

            assert bot.user is not None
        assert server.faults == []


async def no_pause(waiting: Coroutine[Any, Any, Any], _seconds: float) -> None:
    waiting.close()
    raise TimeoutError
