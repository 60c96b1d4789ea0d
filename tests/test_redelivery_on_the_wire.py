"""Posting a kept clip once more, against a Discord on loopback that honours nonces as the real one does."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
from discord.http import Route
from pydantic import SecretStr

from bot import __main__ as root
from bot.config import (
    Config,
    DataSettings,
    DiscordSettings,
    ModelSettings,
    NetworkSettings,
    RoutesSettings,
    StoreSettings,
)
from bot.errors import Cause
from bot.jobs.announcing import Pictures
from bot.jobs.desk import Ask, Who
from bot.jobs.machine import State
from bot.providers.makevid import MakevidSettings
from tests.cogs.conftest import small_clip
from tests.conftest import Clock
from tests.servers.discord import CHANNEL_ID, GUILD_ID, TOKEN, DiscordServer, Fault, Message
from tests.servers.makevid import MakevidServer

ADA = Who(id=1, channel_id=CHANNEL_ID, guild_id=GUILD_ID)


async def test_the_nonce_of_a_deleted_post_does_not_swallow_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The first post was deleted while its answer was lost: Discord refuses that nonce, and takes the next."""
    clock = Clock(datetime.now(UTC))
    async with MakevidServer(clip=small_clip()) as makevid, DiscordServer() as server:
        makevid.polls_until_done = 0
        monkeypatch.setattr(Route, "BASE", server.api_base)
        config = Config(
            discord=DiscordSettings(token=SecretStr(TOKEN)),
            store=StoreSettings(url=SecretStr(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}")),
            data=DataSettings(folder=tmp_path),
            network=NetworkSettings(allow_private_addresses=True),
            routes=RoutesSettings(
                makevid=MakevidSettings(api_key=SecretStr(makevid.api_key), base_url=makevid.base_url)
            ),
            models={"kling": ModelSettings(route="makevid")},
        )
        build = root.build(config, now=clock.now, monotonic=lambda: clock.now().timestamp())
        async with build as animatic, animatic.bot:
            animatic.bot.serves_commands = False
            await root.log_in(animatic.bot, TOKEN)
            plan = animatic.desk.plan(Ask(prompt="waves"))
            job = await animatic.desk.request(ADA, plan, Pictures())
            await animatic.engine.run_due()

            def delete_at_once(message: Message) -> None:
                message.deleted = True

            server.on_message = delete_at_once
            server.faults.append(Fault("POST", "/messages", status=0, after=True))
            for _ in range(4):
                clock.pass_by(seconds=15)
                await animatic.engine.run_due()
            kept = await animatic.store.get(job.id)
            assert kept
            assert (kept.state, kept.cause) == (State.UNDELIVERABLE, Cause.POST_DELETED)

            server.on_message = lambda _message: None
            await animatic.desk.redeliver(ADA, job.id)
            for _ in range(3):
                clock.pass_by(seconds=15)
                await animatic.engine.run_due()
            done = await animatic.store.get(job.id)

        [post] = server.posts()
        assert done
        assert (done.state, done.post_id) == (State.DELIVERED, post.id)
        assert [message.id for message in server.visible] == [post.id]  # the card is gone
        assert len(makevid.creates) == 1
