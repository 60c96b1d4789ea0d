"""What the bot's owner is told by direct message, on the wire."""

from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path

import pytest
from discord.http import Route

from bot import __main__ as root
from bot.config import Config, DataSettings, StoreSettings
from bot.errors import Cause
from bot.jobs.budgets import Budget, Scope, Spent, Stretch, reached
from bot.jobs.health import Trouble
from tests.conftest import Clock
from tests.providers.test_http import closed_port
from tests.servers.discord import CHANNEL_ID, GUILD_ID, OWNER_ID, TOKEN, DiscordServer, Fault

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.fixture
async def discord(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DiscordServer]:
    async with DiscordServer() as server:
        monkeypatch.setattr(Route, "BASE", server.api_base)
        yield server


@pytest.fixture
async def animatic(discord: DiscordServer, clock: Clock, tmp_path: Path) -> AsyncIterator[root.Animatic]:
    """Logged in, and nothing of it runs."""
    config = Config(
        store=StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"),
        data=DataSettings(folder=tmp_path),
    )
    async with root.build(config, now=clock.now) as built, built.bot:
        built.bot.serves_commands = False
        await root.log_in(built.bot, TOKEN)
        yield built


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause.BAD_KEY, "refuses my key"),
        (Cause.NO_CREDIT, "no credit left"),
        (Cause.NO_ANSWER, "is not answering"),
    ],
)
async def test_a_route_in_trouble(
    cause: Cause, words: str, discord: DiscordServer, animatic: root.Animatic
) -> None:
    """Which route, and what to do about it. A Discord that does not take it is no trouble of its own."""
    trouble = Trouble(cause=cause, since=NOW, until=NOW)
    await animatic.engine._announcer.tell_owner("makevid", trouble)
    discord.faults.append(Fault("POST", "/messages", status=403, code=50007))
    await animatic.engine._announcer.tell_owner("makevid", trouble)

    [message] = discord.visible
    assert message.channel_id == OWNER_ID
    assert "makevid" in message.data["content"]
    assert words in message.data["content"]


async def test_a_budget_that_is_spent(discord: DiscordServer, animatic: root.Animatic) -> None:
    """Half of it, all of it: once each in its stretch of time, and nothing of less after more."""
    month = Budget(scope=Scope.ALL, stretch=Stretch.MONTH, cents=3000)
    alert = animatic.desk._alert
    for mark in (50, 50, 100, 80, 100):
        await alert(None, month, mark)

    told = [message.data["content"] for message in discord.visible if message.channel_id == OWNER_ID]
    assert ["50" in text for text in told] == [True, False]


async def test_a_budget_that_is_spent_while_discord_is_away(
    discord: DiscordServer, animatic: root.Animatic, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose request it was has no error; a later one tells, not the very next."""
    month = Budget(scope=Scope.ALL, stretch=Stretch.MONTH, clips=10)
    alert, told = animatic.desk._alert, []
    for base in (f"http://127.0.0.1:{closed_port()}", *[discord.api_base] * 3):
        monkeypatch.setattr(Route, "BASE", base)
        await alert(None, month, 50)
        told.append(len(discord.visible))
        clock.pass_by(seconds=30)

    assert told == [0, 0, 1, 1]


def test_a_budget_of_nothing_is_no_news() -> None:
    """It is spent from the start: only what is free is made."""
    assert reached(Budget(scope=Scope.SERVER, stretch=Stretch.DAY, cents=0), Spent(clips=1)) is None


async def test_moderators_without_a_channel_are_not_written_to_again(
    discord: DiscordServer, animatic: root.Animatic, clock: Clock
) -> None:
    """Discord does not let the bot write there: one refusal, not one a minute."""
    day = Budget(scope=Scope.SERVER, stretch=Stretch.DAY, cents=100)
    await animatic.bot.servers.change(GUILD_ID, audit_channel=CHANNEL_ID)
    discord.faults.append(Fault("POST", "/messages", status=403, code=50013))
    for _ in range(3):
        await animatic.desk._alert(GUILD_ID, day, 50)
        clock.pass_by(minutes=5)
    assert discord.visible == []
    await animatic.desk._alert(GUILD_ID, day, 80)

    [message] = discord.visible
    assert message.channel_id == CHANNEL_ID
