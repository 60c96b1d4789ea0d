"""Two `animatic run`, each with a shard of its own, on one PostgreSQL: each serves its servers, and they share the work."""

import io
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
from discord.http import Route
from PIL import Image

from bot.jobs.machine import OPEN, State
from tests.processes import Site, open_site, until, until_async
from tests.servers.discord import CHANNEL_ID, DiscordServer

SIZE = (320, 240)
GUILDS = {shard: (214_000_000_000 + shard) << 22 for shard in (0, 1)}
CHANNELS = {shard: CHANNEL_ID + shard for shard in (0, 1)}


@pytest.fixture
async def site(database: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[Site]:
    async with DiscordServer() as discord:
        monkeypatch.setattr(Route, "BASE", discord.api_base)
        async with open_site(tmp_path / "site", database, discord) as opened:
            discord.guilds = [*GUILDS.values()]
            opened.shards = {"zero": 0, "one": 1}
            yield opened


async def animate(site: Site, shard: int, *, member: int) -> None:
    """What Discord sends when a member of a server of that shard types it."""
    file = io.BytesIO()
    Image.new("RGB", SIZE, "teal").save(file, "JPEG")
    command = site.discord.animate(
        file.getvalue(), SIZE, member=member, guild=GUILDS[shard], channel=CHANNELS[shard]
    )
    await site.discord.dispatch("INTERACTION_CREATE", command)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_each_serves_its_servers_and_both_make_the_clips(site: Site) -> None:
    """One is killed while clips of its own server are made: the other brings them, and each member is answered once."""
    store, discord = site.animatic.store, site.discord
    machines = {name: await site.start(name) for name in site.shards}
    await until(lambda: len(discord.identified) == 2 and bool(discord.commands))
    assert sorted(identify["shard"] for identify in discord.identified) == [[0, 2], [1, 2]]
    site.provider.polls_until_done = 10**6
    for member in range(3):
        for shard in (0, 1):
            await animate(site, shard, member=1_000_000 + member)
    await until(lambda: len(discord.acknowledged) == len(discord.follow_ups) == 6)

    async def all_rendering() -> bool:
        return len(await store.open_jobs((State.RENDERING,))) == 6

    await until_async(all_rendering)
    machines["one"].kill()
    await machines["one"].wait()
    site.provider.polls_until_done = 0

    jobs = await store.open_jobs()
    ends = [await site.ended(job, *(set(State) - OPEN)) for job in jobs]
    assert {job.state for job in ends} == {State.DELIVERED}
    machines["one"] = await site.start("one")
    await until(lambda: len(discord.identified) == 3)
    await animate(site, 1, member=1_000_009)

    async def one_more() -> bool:
        return len(discord.posts()) == 7

    await until_async(one_more)
    assert [await site.stop(name, machine) for name, machine in machines.items()] == [0, 0], site.logs()
    assert list(site.folder.glob("*/clips/*")) == []
    assert sorted((post.channel_id, post.id) for post in discord.posts())[:3] == sorted(
        (job.posted_in, job.post_id) for job in ends if job.guild_id == GUILDS[0]
    )
    assert len(discord.follow_ups) == len(site.provider.creates) == 7
    assert "Traceback" not in site.logs(), site.logs()
    await site.check_jobs()
