"""What the bot's owner is told by direct message, on the wire."""

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


@pytest.mark.parametrize(
    ("cause", "words"),
    [
        (Cause.BAD_KEY, "refuses my key"),
        (Cause.NO_CREDIT, "no credit left"),
        (Cause.NO_ANSWER, "is not answering"),
    ],
)
async def test_a_route_in_trouble(
    cause: Cause, words: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which route, and what to do about it. A Discord that does not take it is no trouble of its own."""
    config = Config(
        store=StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"),
        data=DataSettings(folder=tmp_path),
    )
    trouble = Trouble(cause=cause, since=NOW, until=NOW)
    async with DiscordServer() as discord, root.build(config) as animatic:
        monkeypatch.setattr(Route, "BASE", discord.api_base)
        animatic.bot.serves_commands = False
        async with animatic.bot:
            await root.log_in(animatic.bot, TOKEN)
            await animatic.engine._announcer.tell_owner("makevid", trouble)
            discord.faults.append(Fault("POST", "/messages", status=403, code=50007))
            await animatic.engine._announcer.tell_owner("makevid", trouble)

        [message] = discord.visible
    assert message.channel_id == OWNER_ID
    assert "makevid" in message.data["content"]
    assert words in message.data["content"]


async def test_a_budget_that_is_spent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half of it, all of it: once each in its stretch of time, and nothing of less after more."""
    config = Config(
        store=StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"),
        data=DataSettings(folder=tmp_path),
    )
    month = Budget(scope=Scope.ALL, stretch=Stretch.MONTH, cents=3000)
    async with DiscordServer() as discord, root.build(config) as animatic:
        monkeypatch.setattr(Route, "BASE", discord.api_base)
        animatic.bot.serves_commands = False
        async with animatic.bot:
            await root.log_in(animatic.bot, TOKEN)
            alert = animatic.desk._alert
            for mark in (50, 50, 100, 80, 100):
                await alert(None, month, mark)

        told = [message.data["content"] for message in discord.visible if message.channel_id == OWNER_ID]
    assert ["50" in text for text in told] == [True, False]


async def test_a_budget_that_is_spent_while_discord_is_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whose request it was has no error; a later one tells, not the very next."""
    config = Config(
        store=StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"),
        data=DataSettings(folder=tmp_path),
    )
    clock = Clock()
    month = Budget(scope=Scope.ALL, stretch=Stretch.MONTH, clips=10)
    async with DiscordServer() as discord, root.build(config, now=clock.now) as animatic:
        monkeypatch.setattr(Route, "BASE", discord.api_base)
        animatic.bot.serves_commands = False
        async with animatic.bot:
            await root.log_in(animatic.bot, TOKEN)
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
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discord does not let the bot write there: one refusal, not one a minute."""
    config = Config(
        store=StoreSettings(url=f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}"),
        data=DataSettings(folder=tmp_path),
    )
    clock = Clock()
    day = Budget(scope=Scope.SERVER, stretch=Stretch.DAY, cents=100)
    async with DiscordServer() as discord, root.build(config, now=clock.now) as animatic:
        monkeypatch.setattr(Route, "BASE", discord.api_base)
        animatic.bot.serves_commands = False
        async with animatic.bot:
            await root.log_in(animatic.bot, TOKEN)
            await animatic.bot.servers.change(GUILD_ID, audit_channel=CHANNEL_ID)
            discord.faults.append(Fault("POST", "/messages", status=403, code=50013))
            for _ in range(3):
                await animatic.desk._alert(GUILD_ID, day, 50)
                clock.pass_by(minutes=5)
            assert discord.visible == []
            await animatic.desk._alert(GUILD_ID, day, 80)

        [message] = discord.visible
    assert message.channel_id == CHANNEL_ID
