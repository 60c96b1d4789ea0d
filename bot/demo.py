"""The bot in a simulated Discord in your browser: no account, no key, no cost.

The bot, its database, its engine and the built-in `sketch` route are the real ones; only Discord is
played, by simcord. It has a clock of its own, which is the clock the bot gets; a ticker moves it along
with the wall clock and refreshes the page when something happened.

While the page is open already, two more members ask for a few clips, so that there is a past to look at.
"""

import asyncio
import importlib
import tempfile
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, TypeVar

import discord
import simcord
import structlog
from pydantic import SecretStr
from rich.console import Console
from simcord import ChannelHandle, Env, InteractionResult, MemberActor, SetupError
from simcord.backend.models import Overwrite
from simcord.components import walk_components
from simcord.enums import OverwriteType

from bot import __main__ as root
from bot import demo_pictures, logs
from bot.config import (
    Config,
    DataSettings,
    DiscordSettings,
    ModelSettings,
    NetworkSettings,
    RoutesSettings,
    StoreSettings,
)
from bot.errors import Refusal
from bot.jobs.machine import OPEN, Job, State
from bot.media import clip as clips
from bot.ui.announcer import file_name, media_of

TICK_SECONDS = 0.5
ONCE_TIMEOUT = 180.0  # seconds of the wall clock for both clips of `--once`
BRIEF = 0.05
PAST_SECONDS = 300.0  # of the wall clock for the clips that a page begins with
WELCOME = (
    "Welcome! Type `/animate`, write what should happen, then choose **picture** under *more* and attach one. "
    "When the clip is there, press 🔁 under it for another take."
)

log = structlog.get_logger(__name__)

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class World:
    """A simulated server, the bot in it, and people. The page shows `channel` as the member or the moderator."""

    env: Env
    animatic: root.Animatic
    channel: ChannelHandle
    quiet: ChannelHandle
    member: MemberActor
    moderator: MemberActor
    ivo: MemberActor
    tess: MemberActor


@dataclass(frozen=True, slots=True, kw_only=True)
class Demo:
    """An open page. `history` ends when the past is made; it never raises."""

    world: World
    page: simcord.Preview
    history: asyncio.Task[None]


@asynccontextmanager
async def pretended_routes(folder: Path) -> AsyncIterator[tuple[RoutesSettings, dict[str, ModelSettings]]]:
    """Every provider there is, played on this machine. Raises Refusal outside of the source tree."""
    try:
        everything = importlib.import_module("tests.servers.everything")
    except ImportError:
        raise Refusal(
            "The providers are played by servers that lie in the source tree: use --all-routes there, as in "
            "make demo ARGS=--all-routes"
        ) from None
    async with everything.all_routes(folder) as sections:
        routes = RoutesSettings.model_validate(sections)
        models: dict[str, ModelSettings] = {}
        for route, settings in routes.configured.items():
            for name, variant in settings.usual_models.items():
                free = name if name not in models else f"{route}-{name}"
                models[free] = ModelSettings(route=route, variant=variant)
        yield routes, models


@asynccontextmanager
async def world(folder: Path, *, all_routes: bool = False) -> AsyncIterator[World]:
    """Start the bot in a new simulated server that keeps its files in `folder`.

    `all_routes`: with every provider played on loopback, else with sketches alone.
    """
    url = SecretStr(f"sqlite+aiosqlite:///{(folder / 'demo.db').as_posix()}")
    # Made without validation, and so without the environment: the demo touches no real database or key.
    routes, models = RoutesSettings(), {"sketch": ModelSettings(route="sketch")}
    clock: list[Env] = []

    def now() -> datetime:
        return clock[0].now()

    async with AsyncExitStack() as stack:
        if all_routes:
            routes, models = await stack.enter_async_context(pretended_routes(folder))
        config = Config.model_construct(
            discord=DiscordSettings(shard_count=1),
            store=StoreSettings(url=url),
            data=DataSettings(folder=folder),
            network=NetworkSettings(allow_private_addresses=all_routes),
            routes=routes,
            models=models,
        )
        animatic = await stack.enter_async_context(root.build(config, now=now))
        running = simcord.run(animatic.bot, check_errors=False, settle_timeout=60.0)
        env = await stack.enter_async_context(running)
        clock.append(env)
        await env.advance_time((root.system_clock() - env.now()).total_seconds())
        guild = env.create_guild("Harbour Film Club")
        channel = guild.create_text_channel("clips")
        quiet = guild.create_text_channel("quiet-corner")
        moderators = guild.create_role("Moderators", permissions=discord.Permissions(manage_messages=True))
        member = guild.add_member(env.create_user("mia", global_name="Mia"))
        moderator = guild.add_member(env.create_user("noor", global_name="Noor"), roles=[moderators])
        ivo = guild.add_member(env.create_user("ivo", global_name="Ivo"))
        tess = guild.add_member(env.create_user("tess", global_name="Tess"))
        assert animatic.bot.user is not None
        await animatic.bot.user.edit(username="Animatic")
        engine = asyncio.create_task(animatic.engine.run(), name="engine")
        try:
            yield World(
                env=env,
                animatic=animatic,
                channel=channel,
                quiet=quiet,
                member=member,
                moderator=moderator,
                ivo=ivo,
                tess=tess,
            )
        finally:
            animatic.engine.stop()
            await engine


@asynccontextmanager
async def open_page(
    folder: Path, *, port: int, all_routes: bool = False, past: bool = True
) -> AsyncIterator[Demo]:
    """The channel of a new world as a page of this machine, kept up to date; 0 takes a free port.

    It is there at once; the clips of the past, if one is wanted, come one by one.
    """
    async with world(folder, all_routes=all_routes) as here:
        await here.moderator.send(here.channel, WELCOME)
        viewers = [here.member, here.moderator]
        async with here.env.preview(here.channel, viewers=viewers, layout="channel", port=port) as page:
            turn = asyncio.Lock()
            _take_turns(page, turn)
            ticker = asyncio.create_task(_keep_time(here.env, turn, page))
            history = asyncio.create_task(_have_a_past(here, turn) if past else asyncio.sleep(0))
            try:
                yield Demo(world=here, page=page, history=history)
            finally:
                ticker.cancel()
                history.cancel()
                await asyncio.gather(ticker, history, return_exceptions=True)


async def serve(port: int, console: Console, *, all_routes: bool = False) -> None:
    """Show the channel on a page of this machine until Ctrl+C, or until the page ends the session."""
    logs.configure("INFO", "auto")
    try:
        await _serve(port, console, all_routes)
    except SetupError as error:
        raise Refusal(f"The page cannot be opened: {error}. Try another --port.") from error


async def _serve(port: int, console: Console, all_routes: bool) -> None:
    with tempfile.TemporaryDirectory(prefix="animatic-demo-", ignore_cleanup_errors=True) as folder:
        async with open_page(Path(folder), port=port, all_routes=all_routes) as demo:
            console.print("\n[bold]Animatic demo[/bold]: open this page in a browser\n")
            console.print(f"  {demo.page.url}\n", soft_wrap=True)
            console.print("Type /animate, add a picture, send. Ctrl+C ends the demo.\n")
            stopping = asyncio.Event()
            root.stop_on_signals(stopping)
            ends = [asyncio.create_task(demo.page.wait_closed()), asyncio.create_task(stopping.wait())]
            await asyncio.wait(ends, return_when=asyncio.FIRST_COMPLETED)
            for end in ends:
                end.cancel()


async def once(picture: Path, prompt: str, out: Path, console: Console) -> int:
    """One member uses /animate, then reacts to the clip. Both clips are saved; 0 only if both play."""
    logs.configure("WARNING", "auto")
    with tempfile.TemporaryDirectory(prefix="animatic-demo-", ignore_cleanup_errors=True) as folder:
        async with world(Path(folder)) as here:
            ticker = asyncio.create_task(_keep_time(here.env, asyncio.Lock()))
            try:
                async with asyncio.timeout(ONCE_TIMEOUT):
                    return await _once(here, picture, prompt, out, console)
            except (Refusal, TimeoutError) as problem:
                console.print(f"It did not work: {problem or 'no clip in time'}")
                return 1
            finally:
                ticker.cancel()
                await asyncio.gather(ticker, return_exceptions=True)


async def _once(here: World, picture: Path, prompt: str, out: Path, console: Console) -> int:
    data = await asyncio.to_thread(picture.read_bytes)
    result = await act(
        lambda: here.member.slash(here.channel, "animate", prompt=prompt, picture=(picture.name, data))
    )
    answer = result.followups[-1].content if result.followups else result.response and result.response.content
    console.print(f"Mia: /animate prompt: {prompt} picture: {picture.name}")
    console.print(f"Animatic (only to Mia): {answer}", markup=False)
    if not await here.animatic.store.open_jobs():
        raise Refusal("the request was refused")
    first = await _delivered(here, count=1)
    console.print(f"Animatic posts {out.name} and invites with 🔁")
    bot = here.animatic.bot
    channel = bot.get_partial_messageable(here.channel.id, guild_id=here.member.guild.id)
    assert first[0].post_id is not None
    post = await channel.fetch_message(first[0].post_id)
    await act(lambda: here.member.react(post, bot.servers.usual.requeue_emoji))
    console.print("Mia reacts with 🔁")
    both = await _delivered(here, count=2)
    second_out = out.with_name(f"{out.stem}-2{out.suffix}")
    console.print(f"Animatic posts {second_out.name}\n")
    for job, path in zip(both, (out, second_out), strict=True):
        assert job.post_id is not None
        message = await channel.fetch_message(job.post_id)
        clip = next(item for item in media_of(message) if file_name(item).endswith(".mp4"))
        await asyncio.to_thread(path.write_bytes, await bot.http.get_from_cdn(clip.url))
        facts = await clips.probe(path)
        if not facts.plays_everywhere:
            raise Refusal(f"{path} would not play in every client")
        console.print(
            f"{path}: {facts.width}×{facts.height}, {facts.seconds:.1f} s, {facts.codec} {facts.pixel_format}, "
            f"{facts.size / 1024:.0f} KiB, plays"
        )
    requests = here.env.http_requests
    posted = sum(entry.method == "POST" and entry.path.endswith("/messages") for entry in requests)
    console.print(
        f"{len(requests)} requests to Discord, {posted} messages posted, {len(both)} clips delivered"
    )
    return 0


# The past


async def _have_a_past(here: World, turn: asyncio.Lock) -> None:
    """Some clips, each asked for by somebody and made by the bot: a moment ago, by the simulated clock.

    Ivo's and Tess's, a remix, another take of Mia's; and one of hers that could not be posted.
    """
    try:
        async with asyncio.timeout(PAST_SECONDS):
            await _make_a_past(_Past(here, turn))
    except Exception:  # without a past, the page is still a page
        log.warning("demo_history_not_made", exc_info=True)


async def _make_a_past(past: "_Past") -> None:
    here = past.here
    other = [*here.animatic.menu.models][:2][-1]
    scenes = [demo_pictures.harbour, demo_pictures.lighthouse, demo_pictures.mountains]
    harbour, lighthouse, mountains = [await asyncio.to_thread(scene) for scene in scenes]
    kept = await past.animate(here.member, "slowly closer to the boats", harbour, here.quiet, closing=True)
    first = await past.posted(await past.animate(here.tess, "the beam sweeps over the sea", lighthouse))
    others = [
        await past.animate(here.ivo, "camera glides over the lake", mountains, model=other),
        await past.remix(here.ivo, first, "camera pulls out from the lamp"),
        await past.another_take(here.member, first),
    ]
    for job in (*others, kept):
        await past.ended(job)


@dataclass(frozen=True, slots=True)
class _Past:
    """What people do for the past, each in turn with the ticker and the page."""

    here: World
    turn: asyncio.Lock

    async def animate(
        self,
        member: MemberActor,
        prompt: str,
        picture: bytes,
        channel: ChannelHandle | None = None,
        *,
        model: str | None = None,
        closing: bool = False,
    ) -> Job:
        """Use /animate. `closing`: right after it the bot may no longer write there, nor to the member."""
        where = channel or self.here.channel
        options = {"prompt": prompt, "picture": ("picture.png", picture)} | (
            {"model": model} if model else {}
        )
        async with self._turn():
            await act(lambda: member.slash(where, "animate", **options))
            if closing:
                self._close(where)
        return await self.latest(member, where)

    def _close(self, channel: ChannelHandle) -> None:
        backend, me = self.here.env.backend, self.here.animatic.bot.user
        assert me is not None
        denied = discord.Permissions(send_messages=True).value
        backend.set_overwrite(channel.id, Overwrite(me.id, OverwriteType.MEMBER, 0, denied))
        self.here.env.inject_error("POST", "/users/@me/channels", status=403, code=50007)

    async def remix(self, member: MemberActor, post: discord.Message, prompt: str) -> Job:
        """Press *Remix* and change nothing but the prompt."""
        async with self._turn():
            opened = await act(lambda: member.click(post, label="Remix"))
            await act(lambda: member.submit_modal(opened, {**_filled_in(opened), "prompt": prompt}))
        return await self.latest(member, self.here.channel)

    async def another_take(self, member: MemberActor, post: discord.Message) -> Job:
        """React to a clip."""
        emoji = self.here.animatic.bot.servers.usual.requeue_emoji
        async with self._turn():
            await act(lambda: member.react(post, emoji))
        return await self.latest(member, self.here.channel)

    @asynccontextmanager
    async def _turn(self) -> AsyncIterator[None]:
        """Each act at a moment of its own: what is asked for later is also listed as later."""
        async with self.turn:
            await act(lambda: self.here.env.advance_time(BRIEF))
            yield

    async def latest(self, member: MemberActor, channel: ChannelHandle) -> Job:
        """What this member asked for last in a channel. Raises Refusal."""
        jobs = await self.here.animatic.store.open_jobs(tuple(State))
        theirs = [job for job in jobs if (job.asker_id, job.channel_id) == (member.id, channel.id)]
        if not theirs:
            raise Refusal("the request was refused")
        return theirs[-1]

    async def posted(self, job: Job) -> discord.Message:
        """Wait for the job's post. Raises Refusal where there is none."""
        job = await self.ended(job)
        if job.post_id is None:
            raise Refusal(f"a job ended as {job.state}: {job.cause}")
        bot = self.here.animatic.bot
        channel = bot.get_partial_messageable(job.channel_id, guild_id=job.guild_id)
        return await channel.fetch_message(job.post_id)

    async def ended(self, job: Job) -> Job:
        while job.state in OPEN:
            await asyncio.sleep(BRIEF)
            job = await self.here.animatic.store.get(job.id) or job
        return job


def _filled_in(opened: InteractionResult) -> dict[str, list[str]]:
    """What is chosen in the selects of a modal as it opens, by custom_id."""
    assert opened.modal is not None
    fields = [part for part in walk_components(opened.modal["components"]) if "custom_id" in part]
    chosen = {
        field["custom_id"]: [option["value"] for option in field.get("options", ()) if option.get("default")]
        for field in fields
    }
    return {name: values for name, values in chosen.items() if values}


async def _delivered(here: World, *, count: int) -> list[Job]:
    """Wait until so many jobs are delivered and their cards are gone; oldest first."""
    while True:
        jobs = await here.animatic.store.open_jobs((State.DELIVERED, State.FAILED, State.UNDELIVERABLE))
        broken = [job for job in jobs if job.state is not State.DELIVERED]
        if broken:
            raise Refusal(f"a job ended as {broken[0].state}: {broken[0].cause}")
        if len(jobs) >= count:
            return jobs
        await asyncio.sleep(TICK_SECONDS)


async def act(action: Callable[[], Awaitable[T]]) -> T:
    """Do something as a member; the ticker may hold the simulated world for a moment."""
    while True:
        try:
            return await action()
        except SetupError as busy:
            if "overlaps" not in str(busy):
                raise
            await asyncio.sleep(BRIEF)


def _take_turns(page: simcord.Preview, turn: asyncio.Lock) -> None:
    """Let what people do on the page wait for the ticker: simcord fails one of two operations at once."""
    act = page._action  # noqa: SLF001 - simcord 3 has no public place to wait

    async def act_in_turn(context_id: Any, body: Any) -> Any:
        async with turn:
            return await act(context_id, body)

    page._action = act_in_turn  # type: ignore[method-assign]  # noqa: SLF001


async def _keep_time(env: Env, turn: asyncio.Lock, page: simcord.Preview | None = None) -> None:
    """Move the simulated clock with the wall clock; show on the page what changed.

    The page refuses what was begun before a refresh, so it is refreshed only when the bot did something.
    """
    last = time.monotonic()
    seen = len(env.http_requests)
    while True:
        await asyncio.sleep(TICK_SECONDS)
        # Members' actions hold the world for a moment (SetupError): then the next tick moves it further.
        with suppress(SetupError, TimeoutError):
            async with turn:
                tick = time.monotonic()
                await env.advance_time(tick - last)
                last = tick
                if page is not None and len(env.http_requests) != seen:
                    await page.refresh()
                    seen = len(env.http_requests)
