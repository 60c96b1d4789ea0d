"""`animatic run`: the process that serves commands dies between two of its answers, and is started again."""

from collections.abc import Awaitable, Callable

from bot.jobs.machine import OPEN, State
from tests.asking import PICTURE
from tests.matrix import check, killed, on_both
from tests.processes import Site, until, until_async
from tests.servers.discord import GUILD_ID

SIZE = (1280, 853)


async def serve_until_killed(site: Site, row: str, then: Callable[[], Awaitable[None]]) -> None:
    """A process serves commands, and dies at the point, if it has not before it is asked for something."""
    site.shards = {"first": 0}
    serving = await site.start("first", fail_at=row)
    await until(lambda: site.discord.connected.is_set() or serving.returncode is not None)
    await then()
    await killed(serving)
    site.discord.connected.clear()


async def serve_again(site: Site, then: Callable[[], Awaitable[None]]) -> None:
    serving = await site.start("first")
    await until(site.discord.connected.is_set)
    await then()
    assert await site.stop("first", serving) == 0, site.logs()
    assert "Traceback" not in site.logs(), site.logs()


async def nothing() -> None:
    """Nobody asks for anything."""


async def die_syncing(site: Site, row: str) -> None:
    """The commands are there; they are sent once more only where it was not noted that they had been."""
    await serve_until_killed(site, row, nothing)
    await serve_again(site, nothing)
    sent = site.discord.calls["PUT /applications/…/commands"]
    assert sent == (1 if row == "store.committed/Store.remember:2" else 2)
    await serve_again(site, nothing)
    assert site.discord.calls["PUT /applications/…/commands"] == sent
    assert "animate" in {command["name"] for command in site.discord.commands}


async def die_answering(site: Site, row: str) -> None:
    """Before anything was counted: the member asks again. After it was: the clip comes, and nothing else."""

    async def animate() -> None:
        command = site.discord.animate(PICTURE, SIZE, guild=GUILD_ID, channel=site.channel)
        await site.discord.dispatch("INTERACTION_CREATE", command)

    await serve_until_killed(site, row, animate)
    asked = len(await site.animatic.store.open_jobs())
    assert asked == (row == "discord.answered/POST webhooks")

    async def delivered() -> None:
        if not asked:
            await animate()
        await until_async(there)

    async def there() -> bool:
        return len(site.posts()) == 1 and not await site.animatic.store.open_jobs(tuple(OPEN))

    await serve_again(site, delivered)
    [message] = site.messages()
    [job] = await site.animatic.store.by_post(message.id)
    assert job.state is State.DELIVERED
    assert len(site.provider.creates) == 1
    await check(site, job)


async def die_greeting(site: Site, row: str) -> None:
    """A hello is said once, or not at all; the server is known."""

    async def invite() -> None:
        await until(lambda: '"event": "ready"' in site.logs())  # what is told before is no news to discord.py
        await site.discord.invite(GUILD_ID + 1, site.channel)

    await serve_until_killed(site, row, invite)
    said = len(site.messages())
    assert said == (row == "discord.answered/POST messages")

    async def ready() -> None:
        await until(lambda: site.logs().count('"event": "ready"') == 2)

    await serve_again(site, ready)
    assert len(site.messages()) == said
    assert GUILD_ID + 1 in await site.animatic.bot.servers.present()


SERVED = (
    (die_syncing, "discord.answered/PUT commands"),
    (die_syncing, "store.committed/Store.remember"),
    (die_syncing, "store.committed/Store.remember:2"),
    (die_answering, "discord.answered/POST callback"),
    (die_answering, "discord.answered/POST webhooks"),
    (die_greeting, "store.committed/Store.guild_joined"),
    (die_greeting, "discord.answered/POST messages"),
)
ROWS = [one for serving, row in SERVED for one in on_both(serving, row, usual=serving is die_answering)]
