"""Bringing the clip into the channel, against a Discord on loopback that honours nonces and has its limits."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

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
from bot.jobs.desk import Who
from bot.jobs.machine import Job, State
from bot.providers.makevid import MakevidSettings
from bot.ui import announcer
from tests import asking
from tests.cogs.conftest import small_clip
from tests.conftest import Clock, new_sqlite
from tests.servers import discord as servers
from tests.servers.discord import CHANNEL_ID, TOKEN, DiscordServer, Fault, Message
from tests.servers.makevid import MakevidServer

PATIENCE = 30  # seconds of the wall clock; nothing here takes as long
MESSAGES = f"/channels/{CHANNEL_ID}/messages"


class Site:
    """A bot without a gateway, its Discord, and the provider, whose clips are ready at the first poll."""

    def __init__(
        self, animatic: root.Animatic, discord: DiscordServer, makevid: MakevidServer, clock: Clock
    ) -> None:
        self.animatic, self.discord, self.makevid, self.clock = animatic, discord, makevid, clock

    async def rendering(self) -> Job:
        job = await asking.animate(self.animatic, CHANNEL_ID)
        await self.animatic.engine.run_due()
        return job

    async def later(self, job: Job, *, seconds: float = 15, times: int = 4) -> Job:
        """The job after a while."""
        for _ in range(times):
            self.clock.pass_by(seconds=seconds)
            await self.animatic.engine.run_due()
        found = await self.animatic.store.get(job.id)
        assert found
        return found


@asynccontextmanager
async def open_site(folder: Path, patch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    clock = Clock(datetime.now(UTC))
    async with MakevidServer(clip=small_clip()) as makevid, DiscordServer() as discord:
        makevid.polls_until_done = 0
        patch.setattr(Route, "BASE", discord.api_base)
        config = Config(
            discord=DiscordSettings(token=SecretStr(TOKEN)),
            store=StoreSettings(url=SecretStr(new_sqlite(folder / "jobs.db"))),
            data=DataSettings(folder=folder),
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
            yield Site(animatic, discord, makevid, clock)


@pytest.fixture
async def site(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    async with open_site(tmp_path, monkeypatch) as opened:
        yield opened


async def test_the_nonce_of_a_deleted_post_does_not_swallow_the_next(site: Site) -> None:
    """The first post was deleted while its answer was lost: Discord refuses that nonce, and takes the next."""
    job = await site.rendering()

    def delete_at_once(message: Message) -> None:
        message.deleted = True

    site.discord.on_message = delete_at_once
    site.discord.faults.append(Fault("POST", MESSAGES, status=0, after=True))
    kept = await site.later(job)
    assert (kept.state, kept.cause) == (State.UNDELIVERABLE, Cause.POST_DELETED)

    site.discord.on_message = lambda _message: None
    await site.animatic.desk.redeliver(Who(id=1, channel_id=CHANNEL_ID), job.id)
    done = await site.later(job, times=3)

    [post] = site.discord.posts()
    assert (done.state, done.post_id) == (State.DELIVERED, post.id)
    assert [message.id for message in site.discord.visible] == [post.id]  # the card is gone
    assert len(site.makevid.creates) == 1


@pytest.mark.parametrize(("window", "posts"), [(120.0, 1), (0.0, 2)], ids=["within", "later"])
async def test_a_lost_answer_where_the_channel_cannot_be_read(site: Site, window: float, posts: int) -> None:
    """Within Discord's window the same nonce gives the same message; later rather a second copy than none."""
    site.discord.nonce_window = window
    job = await site.rendering()
    site.discord.faults.append(Fault("POST", MESSAGES, status=0, after=True))
    site.discord.faults += [Fault("GET", MESSAGES, status=403, code=50001)] * 20

    done = await site.later(job)

    assert done.state is State.DELIVERED
    assert len(site.discord.posts()) == posts
    assert site.discord.posts()[-1].id == done.post_id
    assert len(site.makevid.creates) == 1


@pytest.mark.parametrize(
    ("before", "after"), [(120, 120), (300, 20), (20, 300)], ids=["around it", "before it", "after it"]
)
async def test_a_post_is_found_in_a_busy_channel(
    site: Site, monkeypatch: pytest.MonkeyPatch, before: int, after: int
) -> None:
    """More than a page was said between the clip and its post, or since: it is not posted twice."""
    monkeypatch.setattr(announcer, "POSTS_BACK", 200)
    site.discord.nonce_window = 0
    job = await site.rendering()
    site.discord.faults.append(Fault("POST", MESSAGES, status=0, after=True))

    def talk(messages: int) -> None:
        for _ in range(messages):
            site.discord.say("so much to say")

    def talk_on(_post: Message) -> None:
        site.discord.on_message = lambda _message: None
        talk(after)

    talk(before)
    site.discord.on_message = talk_on

    done = await site.later(job)

    assert done.state is State.DELIVERED
    assert [post.id for post in site.discord.posts()] == [done.post_id]


async def test_a_picture_that_is_too_large_by_now_does_not_cost_the_clip(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The server was boosted when the picture came, and is not any more: the clip is posted without it."""
    job = await site.rendering()
    monkeypatch.setattr(servers, "UPLOAD_LIMIT", len(small_clip()))

    done = await site.later(job)

    [post] = site.discord.posts()
    assert (done.state, done.post_id) == (State.DELIVERED, post.id)
    assert len(post.data["_files"]) == 1


# Rate limits


async def test_a_repeat_does_not_come_when_the_nonce_is_forgotten(
    site: Site, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Discord took the post and said that it failed; the repeat is to wait for minutes: it is looked for first."""
    job = await site.rendering()
    site.discord.faults.append(Fault("POST", MESSAGES, status=502, after=True))
    site.discord.faults.append(Fault("POST", MESSAGES, retry_after=300))
    sleep = asyncio.sleep

    async def at_once(seconds: float, *more: Any) -> Any:
        if seconds >= 300:
            site.discord.nonce_window = -1
        return await sleep(0, *more)

    monkeypatch.setattr(asyncio, "sleep", at_once)

    done = await site.later(job, seconds=400, times=2)

    [post] = site.discord.posts()
    assert (done.state, done.post_id) == (State.DELIVERED, post.id)


async def test_a_read_given_up_during_a_global_rate_limit_does_not_silence_the_bot(site: Site) -> None:
    """When the limit is over, other calls go out."""
    job = await site.rendering()
    site.discord.faults.append(Fault("GET", MESSAGES, retry_after=0.1, for_all=True))
    gate = site.animatic.bot.http._global_over
    reading = asyncio.create_task(site.animatic.engine._announcer.pictures(job))
    async with asyncio.timeout(PATIENCE):
        while gate.is_set():  # noqa: ASYNC110 - no event tells when it is shut
            await asyncio.sleep(0)
    reading.cancel()
    await asyncio.wait({reading})

    async with asyncio.timeout(PATIENCE):
        await site.animatic.bot.get_partial_messageable(CHANNEL_ID).send("hello")

    assert site.discord.visible[-1].data["content"] == "hello"
