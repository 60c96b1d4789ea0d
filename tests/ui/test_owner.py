"""What the bot's owner is told by direct message, on the wire."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from discord.http import Route

from bot import __main__ as root
from bot.config import Config, DataSettings, StoreSettings
from bot.errors import Cause
from bot.jobs.health import Trouble
from tests.servers.discord import OWNER_ID, TOKEN, DiscordServer, Fault

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
