"""Real `animatic` processes on one database, against a Discord and a provider on loopback that count."""

import asyncio
import os
import signal
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

from bot import __main__ as root
from bot import cli
from bot.config import load
from bot.failpoints import KILLED
from bot.jobs.machine import OPEN, Job, State
from tests.asking import animate
from tests.cogs.conftest import small_clip
from tests.forked import ROOT, Forked, environment
from tests.servers.comfyui import ComfyUIServer
from tests.servers.discord import CHANNEL_ID, TOKEN, DiscordServer, Message
from tests.servers.kling import KlingServer
from tests.servers.makevid import MakevidServer
from tests.servers.runway import RunwayServer

STALE_SECONDS = 3
PRICE_CENTS = 35
KEY = "test-key"
WORKFLOW = ROOT / "docs" / "comfyui-workflow.json"
PROVIDERS: dict[str, Callable[..., Any]] = {
    "makevid": MakevidServer,
    "kling": KlingServer,
    "runway": RunwayServer,
    "comfyui": lambda *, clip, api_key, polls_until_done: ComfyUIServer(
        clip=clip, polls_until_done=polls_until_done
    ),
}
VARIANTS = {"makevid": "kling", "kling": "kling-2.6", "runway": "gen4_turbo"}
VARIANTS |= {"comfyui": "wan", "sketch": "sketch"}
OTHERS = VARIANTS | {"makevid": "luma", "kling": "kling-3.0", "runway": "gen4.5"}


@dataclass
class Sketches:
    """What the built-in route was asked for, on all machines: it draws in the processes themselves."""

    folder: Path
    polls_until_done = 0

    @property
    def tasks(self) -> list[str]:
        return sorted({path.stem for path in self.folder.glob("*/sketch/*.json")})

    creates = tasks


@dataclass
class Site:
    """A database, a gateway and a channel of its own, the processes that work there, and what is to be seen.

    A machine that has one of `shards` answers commands too; the others only work.
    """

    folder: Path
    database: str
    discord: DiscordServer
    route: str
    provider: MakevidServer | KlingServer | RunwayServer | ComfyUIServer | Sketches
    channel: int
    animatic: root.Animatic
    processes: list[Forked]
    slots: int = 10
    stale: int = STALE_SECONDS
    shards: Mapping[str, int] = field(default_factory=dict)
    fallback: MakevidServer | KlingServer | None = None  # the model's other way

    def config(self, machine: str) -> Path:
        """Of one machine: all is shared but the folder of clips, and the shard."""
        path, shard = self.folder / f"{machine}.toml", self.shards.get(machine)
        shards = "" if shard is None else f"shard_ids = [{shard}]\nshard_count = {len(self.shards)}"
        access, fallback, its_route = "", "", ""
        if not isinstance(self.provider, Sketches):  # which are asked for nowhere
            workflow, key = f'workflows.wan.file = "{WORKFLOW.as_posix()}"', f'api_key = "{KEY}"'
            access = f'base_url = "{self.provider.base_url}"\n'
            access += workflow if self.route == "comfyui" else key
        if self.fallback:
            other = "kling" if self.route == "makevid" else "makevid"
            fallback = f'fallback = "{other}"\nfallback_variant = "{VARIANTS[other]}"'
            its_route = (
                f'[routes.{other}]\napi_key = "{KEY}"\nbase_url = "{self.fallback.base_url}"\n'
                "first_poll_seconds = 0.2"
            )
        path.write_text(
            f"""
            [discord]
            token = "{TOKEN}"
            api_base = "{self.discord.api_base}"
            {shards}
            [store]
            url = "{self.database}"
            [data]
            folder = "{(self.folder / machine).as_posix()}"
            [network]
            allow_private_addresses = true
            [engine]
            stale_after = {self.stale}
            [animate]
            active_per_member = 1000
            active_total = 1000
            [routes.{self.route}]
            slots = {self.slots}
            {access}
            first_poll_seconds = 0.2
            [models.kling]
            route = "{self.route}"
            variant = "{VARIANTS[self.route]}"
            price = 0.07
            {fallback}
            [models.other]
            route = "{self.route}"
            variant = "{OTHERS[self.route]}"
            price = 0.07
            {its_route}
            """
        )
        return path

    async def ask(self, prompt: str = "waves") -> Job:
        return await animate(self.animatic, self.channel, prompt)

    async def start(
        self, machine: str, *, fail_at: str = "", halt_at: str = "", program: tuple[str, ...] = ()
    ) -> Forked:
        """`animatic` on that machine, or another program of ours."""
        config, command = self.config(machine), "run" if machine in self.shards else "worker"
        (self.folder / machine / "alive").unlink(missing_ok=True)
        point = {"ANIMATIC_HALT_AT": halt_at} if halt_at else {"ANIMATIC_FAIL_AT": fail_at}
        process = Forked(
            program or ("bot", command, "--config", str(config)),
            log=self.folder / f"{machine}-{len(self.processes)}.log",
            environment=environment(**point),
        )
        self.processes.append(process)
        return process

    async def wake(self, process: Forked) -> None:
        """Let it go on from there, until it has written its heartbeat again, as the other one does."""
        process.send_signal(signal.SIGCONT)

        async def both_live() -> bool:
            heard = await self.animatic.store.heard_of(root.system_clock())
            return sum(ago < timedelta(seconds=STALE_SECONDS / 2) for ago in heard.values()) == 2

        await until_async(both_live)

    async def stop(self, machine: str, process: Forked) -> int:
        """SIGTERM, as soon as the process listens to it; its exit code."""
        await until(lambda: (self.folder / machine / "alive").exists() or process.returncode is not None)
        if process.returncode is None:
            process.send_signal(signal.SIGTERM)
        return await asyncio.wait_for(process.wait(), 60)

    async def check_jobs(self) -> None:
        """`animatic jobs check` finds nothing wrong; in `make test`, what it does, without a process of its own."""
        if "ANIMATIC_EVERY_ROW" not in os.environ:
            assert await cli._check_jobs(load(self.config("first"))) == 0
            return
        log, out = self.folder / "check.err", self.folder / "check.out"
        command = ("bot", "jobs", "check", "--config", str(self.config("first")))
        process = Forked(command, log=log, out=out, environment=environment())
        code = await asyncio.wait_for(process.wait(), 60)
        assert code == 0, out.read_text() + log.read_text()

    async def ended(self, job: Job, *states: State) -> Job:
        """The job, once it has come to an end or into doubt."""
        found = job

        async def look() -> bool:
            nonlocal found
            found = await self.animatic.store.get(job.id) or found
            return found.state in states if states else found.state not in OPEN - {State.UNSURE}

        await until_async(look)
        return found

    def messages(self) -> list[Message]:
        return [message for message in self.discord.visible if message.channel_id == self.channel]

    def posts(self) -> list[Message]:
        return [post for post in self.discord.posts() if post.channel_id == self.channel]

    def logs(self) -> str:
        return "\n".join(path.read_text() for path in sorted(self.folder.glob("*.log")))


async def until(condition: Callable[[], bool], seconds: float = 60) -> None:
    async def look() -> bool:
        return condition()

    await until_async(look, seconds)


async def until_async(condition: Callable[[], Awaitable[bool]], seconds: float = 60) -> None:
    async with asyncio.timeout(seconds):
        while not await condition():  # noqa: ASYNC110 - what happens is in other processes
            await asyncio.sleep(0.1)


@asynccontextmanager
async def open_site(
    folder: Path,
    database: str,
    discord: DiscordServer,
    channel: int = CHANNEL_ID,
    *,
    route: str = "makevid",
    slots: int = 10,
    first_dies_at: str = "",
) -> AsyncIterator[Site]:
    """`first_dies_at`: where a process ends that opens the database before anybody else."""
    folder.mkdir()
    clip = small_clip()
    async with AsyncExitStack() as stack:
        if route == "sketch":
            provider = Sketches(folder)
        else:
            server = PROVIDERS[route](clip=clip, api_key=KEY, polls_until_done=0)
            provider = await stack.enter_async_context(server)
        site = Site(folder, database, discord, route, provider, channel, None, [], slots)  # type: ignore[arg-type]
        if first_dies_at:
            assert await (await site.start("first", fail_at=first_dies_at)).wait() == KILLED
        site.animatic = await stack.enter_async_context(root.build(load(site.config("parent"))))
        await stack.enter_async_context(site.animatic.bot)
        site.animatic.bot.serves_commands = False
        await root.log_in(site.animatic.bot, TOKEN)
        try:
            yield site
        finally:
            for process in site.processes:
                if process.returncode is None:
                    process.kill()
                    await process.wait()
