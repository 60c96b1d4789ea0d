"""The composition root: builds everything, in order; nothing else builds.

`python -m bot` is the `animatic` command.
"""

import asyncio
import gc
import io
import math
import os
import secrets
import signal
import socket
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Callable, Sequence
from concurrent.futures import Executor
from contextlib import AsyncExitStack, asynccontextmanager, suppress
from dataclasses import dataclass, replace
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

import aiohttp
import discord
import structlog
from discord.http import Route
from sqlalchemy.exc import SQLAlchemyError

from bot.callbacks import Callbacks, shared_secret
from bot.client import AnimaticBot
from bot.config import Config, ConfigError
from bot.failpoints import reach
from bot.jobs.archive import Archive
from bot.jobs.budgets import Budget, Scope
from bot.jobs.checks import Checker, load_check, no_check
from bot.jobs.comparing import Comparing
from bot.jobs.desk import Alert, BudgetsOf, Desk, PatternAlert, Who
from bot.jobs.engine import Engine
from bot.jobs.guilds import Guilds, GuildSettings, SettingsOf
from bot.jobs.health import Health
from bot.jobs.limits import Limits
from bot.jobs.models import Menu, Model, Way, common, listed_cents, titled
from bot.jobs.safety import Safety
from bot.jobs.store import Store, open_store
from bot.jobs.usage import Books
from bot.media.charts import Charts
from bot.media.encoders import Encoders
from bot.providers.base import Provider
from bot.providers.comfyui import ComfyUI
from bot.providers.http import open_http
from bot.providers.kling import open_kling
from bot.providers.luma import Luma, LumaAgents
from bot.providers.makevid import Makevid
from bot.providers.runway import Runway
from bot.providers.sketch import Sketch
from bot.ui import reviews
from bot.ui.announcer import DiscordAnnouncer

log = structlog.get_logger(__name__)

ALIVE_EVERY = 15.0  # seconds; the container's health check wants the file younger than a minute
LONGEST_BACKOFF = 60.0
TOLD_AGAIN_AFTER = timedelta(minutes=1)  # where Discord did not take it

# Gateway close codes after which connecting again is of no use (topics/opcodes-and-status-codes).
FATAL_CLOSES = {
    4004: "Discord does not accept the token any more. Copy it anew from the developer portal, page Bot",
    4010: "shard_ids and shard_count do not fit together",
    4011: "the bot is in so many servers that it needs more shards: raise discord.shard_count",
    4012: "this version of the gateway is gone: update Animatic",
    4013: "Discord refuses the intents: update Animatic",
    4014: "Discord refuses the intents: update Animatic",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Animatic:
    """The parts of a running bot."""

    store: Store
    providers: dict[str, Provider]
    menu: Menu
    bot: AnimaticBot
    callbacks: Callbacks | None
    engine: Engine
    desk: Desk


def system_clock() -> datetime:
    return datetime.now(UTC)


@asynccontextmanager
async def build(
    config: Config,
    *,
    now: Callable[[], datetime] = system_clock,
    monotonic: Callable[[], float] = time.monotonic,
) -> AsyncIterator[Animatic]:
    """Put the bot together and take it apart again. Nothing runs yet and nobody is logged in.

    Raises ConfigError when a model asks a route for what it does not have.
    """
    async with AsyncExitStack() as stack:
        store = await stack.enter_async_context(open_store(config.store.url.get_secret_value()))
        pool = await stack.enter_async_context(open_encoders())
        providers = await stack.enter_async_context(open_providers(config, pool))
        menu = build_menu(config, providers)
        bot = AnimaticBot(
            store=store,
            shard_ids=config.discord.shard_ids,
            shard_count=config.discord.shard_count,
        )
        bot.servers = Guilds(store, now=now, usual=usual_settings(config))
        announcer = DiscordAnnouncer(
            bot=bot, store=store, menu=menu, pool=pool, now=now, settings=bot.servers.settings
        )
        health = Health(store, now=now)
        engine = Engine(
            store=store,
            providers=providers,
            menu=menu,
            announcer=announcer,
            health=health,
            now=now,
            monotonic=monotonic,
            worker=worker_name(),
            folder=config.data.folder / "clips",
            slots=config.slots_of,
            keep=timedelta(days=config.data.keep_days),
            forget_servers_after=timedelta(days=config.data.forget_servers_after_days),
            stale=timedelta(seconds=config.engine.stale_after),
        )
        bot.servers.paused_or_resumed = engine.wake
        limits = Limits(per_member=config.animate.active_per_member, in_all=config.animate.active_total)
        bot.desk = Desk(
            store=store,
            menu=menu,
            limits=limits,
            health=health,
            announcer=announcer,
            wake=engine.wake,
            now=now,
            budgets=owner_budgets(config),
            alert=alerts(store, announcer, now, bot.servers.settings),
            settings=bot.servers.settings,
            checker=build_checker(config),
            pattern_alert=pattern_alert(bot),
        )
        bot.safety = Safety(store=store, desk=bot.desk, announcer=announcer, now=now)
        bot.comparing = Comparing(desk=bot.desk, store=store, announcer=announcer)
        bot.archive = Archive(
            store=store,
            menu=menu,
            now=now,
            slots=config.slots_of,
            keep_days=config.data.keep_days,
        )
        bot.books = Books(store, now=now, currency=config.money.currency)
        bot.charts = Charts(config.data.folder / "charts")
        callbacks = None
        if config.callbacks.public_url:
            callbacks = Callbacks(
                public_url=config.callbacks.public_url,
                secret=await shared_secret(store),
                providers=providers,
                hint=engine.hint,
            )
            engine.callback = callbacks.address
        yield Animatic(
            store=store,
            providers=providers,
            menu=menu,
            bot=bot,
            callbacks=callbacks,
            engine=engine,
            desk=bot.desk,
        )


def usual_settings(config: Config) -> GuildSettings:
    """What holds in servers that have not decided otherwise."""
    animate = config.animate
    return GuildSettings(
        requeue_emoji=animate.requeue_emoji,
        requeues_per_day=animate.requeues_per_day,
        confirm_above_cents=math.floor(animate.confirm_above * 100),
    )


def owner_budgets(config: Config) -> BudgetsOf:
    """The budgets of the config, the same for everybody."""
    limited_by = config.limits.budgets()

    async def budgets_of(_who: Who) -> Sequence[Budget]:
        return limited_by

    return budgets_of


def alerts(
    store: Store, announcer: DiscordAnnouncer, now: Callable[[], datetime], settings: SettingsOf
) -> Alert:
    """Tells the owner, or a server's moderators, once in a stretch of time that a budget is spent to a mark; where several
    processes come to it at once, or one dies in between, perhaps once more. Nobody is told of a mark below one that they
    were told of. Where Discord or the database is away, a later request tells.
    """
    telling: set[str] = set()
    not_before: dict[str, datetime] = {}

    async def alert(guild_id: int | None, budget: Budget, mark: int) -> None:
        whose = f":{guild_id}" if budget.scope is Scope.SERVER else ""
        kind = f"alert{whose}:{budget.scope}:{budget.stretch}:"
        if kind in telling or (kind in not_before and now() < not_before[kind]):
            return
        telling.add(kind)
        not_before.pop(kind, None)
        try:
            began = budget.stretch.began(now()).isoformat()
            told = await store.recall_all(kind)
            if any(at == began and int(key.removeprefix(kind)) >= mark for key, at in told.items()):
                return
            if await tell(guild_id, budget, mark):
                await store.remember(f"{kind}{mark}", began)
            else:
                not_before[kind] = now() + TOLD_AGAIN_AFTER
        except (SQLAlchemyError, OSError) as error:  # whose request this is has its clip in line
            log.warning("budget_not_told_of", budget=kind, error=type(error).__name__)
        finally:
            telling.discard(kind)

    async def tell(guild_id: int | None, budget: Budget, mark: int) -> bool:
        if budget.scope is Scope.ALL:
            return await announcer.tell_owner_of_budget(budget, mark)
        channel_id = (await settings(guild_id)).audit_channel if guild_id else None
        if guild_id is None or channel_id is None:
            return True  # there is nobody to tell
        return await announcer.tell_server_of_budget(channel_id, guild_id, budget, mark)

    return alert


def build_checker(config: Config) -> Checker:
    """The owner's own check. Raises ConfigError where it cannot be asked."""
    safety = config.safety
    try:
        check = load_check(safety.check) if safety.check else no_check
    except ValueError as error:
        raise ConfigError([f'safety.check = "{safety.check}": {error}']) from None
    return Checker(check, seconds=safety.check_seconds, allow_on_failure=safety.check_failed == "allow")


def pattern_alert(bot: AnimaticBot) -> PatternAlert:
    """Tells a server's moderators of a blocked pattern that cannot be looked for."""

    async def alert(guild_id: int, pattern: str) -> None:
        settings = await bot.servers.settings(guild_id)
        channels = [settings.audit_channel or settings.review_channel]
        await bot.write_down(guild_id, [reviews.bad_pattern(pattern)], *channels)

    return alert


def worker_name() -> str:
    """Of this process, for its row among the workers; at most 40 characters, never used twice."""
    return f"{socket.gethostname()[:16]}-{os.getpid()}-{secrets.token_hex(4)}"


@asynccontextmanager
async def open_encoders() -> AsyncIterator[Executor]:
    """The worker processes; leaving waits for what runs there without holding up the event loop."""
    pool = Encoders()
    try:
        yield pool
    finally:
        await asyncio.to_thread(pool.shutdown, cancel_futures=True)


@dataclass(frozen=True, slots=True, kw_only=True)
class Parts:
    """What adapters are made of, besides their settings. `private`: they may ask private addresses for clips."""

    http: aiohttp.ClientSession
    pool: Executor
    folder: Path
    private: bool


# One line a route; its settings are those of the same name in RoutesSettings.
ADAPTERS: dict[str, Callable[[Any, Parts], Provider]] = {
    "makevid": lambda settings, parts: Makevid(
        http=parts.http, settings=settings, allow_private_addresses=parts.private
    ),
    "kling": lambda settings, parts: open_kling(
        http=parts.http, settings=settings, allow_private_addresses=parts.private
    ),
    "luma": lambda settings, parts: Luma(
        http=parts.http, settings=settings, allow_private_addresses=parts.private
    ),
    "luma_agents": lambda settings, parts: LumaAgents(
        http=parts.http, settings=settings, allow_private_addresses=parts.private
    ),
    "runway": lambda settings, parts: Runway(
        http=parts.http, settings=settings, allow_private_addresses=parts.private
    ),
    "comfyui": lambda settings, parts: ComfyUI(http=parts.http, settings=settings, pool=parts.pool),
    "sketch": lambda _, parts: Sketch(folder=parts.folder / "sketch", pool=parts.pool),
}


@asynccontextmanager
async def open_providers(config: Config, pool: Executor) -> AsyncIterator[dict[str, Provider]]:
    """The adapters of all configured routes, by route."""
    async with open_http() as http:
        parts = Parts(
            http=http,
            pool=pool,
            folder=config.data.folder,
            private=config.network.allow_private_addresses,
        )
        routes = config.routes.configured
        providers = {name: ADAPTERS[name](settings, parts) for name, settings in routes.items()}
        try:
            yield providers
        finally:
            for provider in providers.values():
                await provider.aclose()


def build_menu(config: Config, providers: dict[str, Provider]) -> Menu:
    """The configured models with what their routes say they can do. Raises ConfigError."""
    models: dict[str, Model] = {}
    mistakes: list[str] = []
    for name, settings in config.models.items():
        variants = providers[settings.route].variants
        variant = settings.variant or name
        if variant not in variants:
            known = ", ".join(variants)
            mistakes.append(f"models.{name}.variant = {variant!r}: {settings.route} has {known}")
            continue
        can, fallback = variants[variant], None
        if settings.fallback:
            fallback = Way(route=settings.fallback, variant=settings.fallback_variant or name)
            try:
                can = common(can, providers[fallback.route].variants[fallback.variant])
            except KeyError:
                mistakes.append(f"models.{name}.fallback: there is no {fallback.variant} on {fallback.route}")
            except ValueError as error:
                mistakes.append(f"models.{name}.fallback: {error}")
        if isinstance(settings.price, dict) and (strange := sorted(set(settings.price) - set(can.qualities))):
            mistakes.append(
                f"models.{name}.price: there is no quality {', '.join(strange)}; "
                f"it has {', '.join(can.qualities) or 'no choice of quality, and one price'}"
            )
        if first := config.routes.configured[settings.route].first_poll_seconds:
            can = replace(can, first_poll=timedelta(seconds=first))
        listed = settings.price is None and can.prices and config.money.currency == "$"
        models[name] = Model(
            name=name,
            label=settings.label or can.label or titled(name),
            route=settings.route,
            variant=variant,
            can=can,
            price_cents=partial(listed_cents, can) if listed else settings.price_cents,
            fallback=fallback,
        )
    if mistakes:
        raise ConfigError(mistakes)
    # Where two entries are the same model, the owner's names tell them apart.
    labels = Counter(model.label for model in models.values())
    for name, model in models.items():
        if config.models[name].label is None and labels[model.label] > 1:
            models[name] = replace(model, label=titled(name))
    default = config.animate.default_model or next(iter(models))
    return Menu(models=models, default=default, currency=config.money.currency)


async def run(config: Config, *, gateway: bool = True) -> None:
    """Serve Discord until SIGINT or SIGTERM; a second signal ends at once.

    The engine runs beside the gateway client: it goes on delivering over REST while the gateway is away.
    Without `gateway` it is all there is: a worker that logs in over REST and makes and posts clips.
    """
    token = required_token(config)
    use_api_base(config)
    async with AsyncExitStack() as stack:
        animatic = await stack.enter_async_context(build(config))
        if animatic.callbacks and gateway:
            await stack.enter_async_context(
                animatic.callbacks.serve(config.callbacks.host, config.callbacks.port)
            )
        settle_in()
        stopping = asyncio.Event()
        stop_on_signals(stopping)
        async with animatic.bot:
            parts: list[asyncio.Task[Any]] = [asyncio.create_task(stopping.wait(), name="stopped")]
            if await log_in_unless(stopping, animatic.bot, token, commands=gateway):
                parts.append(asyncio.create_task(animatic.engine.run(), name="engine"))
                if gateway:
                    parts.append(asyncio.create_task(stay_connected(animatic.bot), name="gateway"))
            alive = asyncio.create_task(
                keep_alive_file(config.data.folder / "alive", animatic.engine), name="alive"
            )
            try:
                await asyncio.wait(parts, return_when=asyncio.FIRST_COMPLETED)
            finally:
                # Also when cancelled, as Ctrl+C does on Windows: what is in hand is finished first.
                log.info("stopping")
                animatic.engine.stop()
                engines = [part for part in parts if part.get_name() == "engine"]
                await asyncio.gather(*engines, return_exceptions=True)
                for task in (*parts, alive):
                    task.cancel()
                outcomes = await asyncio.gather(*parts, return_exceptions=True)
    for outcome in outcomes:
        if isinstance(outcome, Exception):
            raise outcome


def settle_in() -> None:
    """What is there by now stays: the collector is not to look through it again, in pauses that members notice."""
    gc.collect()
    gc.freeze()


async def log_in_unless(stopping: asyncio.Event, bot: AnimaticBot, token: str, *, commands: bool) -> bool:
    """Log in over REST, again and again while Discord cannot be reached. False: told to stop meanwhile."""
    backoff = 1.0
    bot.serves_commands = commands
    while not stopping.is_set():
        try:
            await log_in(bot, token)
        except (aiohttp.ClientError, OSError, discord.HTTPException, discord.RateLimited) as error:
            await bot.http.close()
            bot.http.connector = discord.utils.MISSING  # the next log-in makes a session of its own
            log.warning("discord_unreachable", error=type(error).__name__, again_in_seconds=backoff)
            with suppress(TimeoutError):
                await asyncio.wait_for(stopping.wait(), backoff)
            backoff = min(backoff * 2, LONGEST_BACKOFF)
        else:
            return True
    return False


async def who_am_i(config: Config) -> tuple[int, str]:
    """The application's id and the bot's name, asked of Discord. Raises ConfigError without a good token."""
    use_api_base(config)
    client = discord.Client(intents=discord.Intents.none())
    try:
        await log_in(client, required_token(config))
        assert client.application_id is not None
        return client.application_id, str(client.user)
    finally:
        await client.close()


def required_token(config: Config) -> str:
    if config.discord.token is None:
        raise ConfigError(["discord.token is missing: the bot's token, from Discord's developer portal"])
    return config.discord.token.get_secret_value()


def invite_link(application_id: int, permissions: discord.Permissions) -> str:
    return discord.utils.oauth_url(
        application_id, permissions=permissions, scopes=("bot", "applications.commands")
    )


def use_api_base(config: Config) -> None:
    """Send discord.py's REST calls through the configured proxy; the gateway address is asked there too."""
    if config.discord.api_base:
        Route.BASE = config.discord.api_base.rstrip("/")


async def log_in(bot: discord.Client, token: str) -> None:
    """Log in over REST. Raises ConfigError when Discord does not know the token."""
    try:
        await bot.login(token)
    except discord.LoginFailure:
        raise ConfigError(
            ["discord.token: Discord does not accept it. Copy it anew from the developer portal, page Bot"]
        ) from None


async def stay_connected(bot: AnimaticBot) -> None:
    """Keep a gateway connection. discord.py gives up when the very first one fails, so it is asked again.

    Raises ConfigError when Discord says that trying again is of no use.
    """
    backoff = 1.0
    while not bot.is_closed():
        began = time.monotonic()
        try:
            await bot.connect(reconnect=True)
        except discord.PrivilegedIntentsRequired:
            raise ConfigError(["discord: this application may not use the intents it asked for"]) from None
        except discord.ConnectionClosed as error:
            if error.code in FATAL_CLOSES:
                raise ConfigError([f"discord: {FATAL_CLOSES[error.code]}"]) from None
            log.warning("gateway_closed", code=error.code)
        except (
            discord.DiscordException,
            aiohttp.ClientError,
            OSError,
            AttributeError,
            TimeoutError,
        ) as error:
            log.warning("gateway_unreachable", error=type(error).__name__)
        if time.monotonic() - began > LONGEST_BACKOFF:
            backoff = 1.0
        await asyncio.sleep(backoff)
        backoff = min(backoff * 2, LONGEST_BACKOFF)


def stop_on_signals(stopping: asyncio.Event) -> None:
    def stop() -> None:
        if stopping.is_set():
            os._exit(1)
        stopping.set()

    if sys.platform == "win32":
        return  # asyncio hears no signals there: Ctrl+C cancels what runs, as Python does
    for number in (signal.SIGINT, signal.SIGTERM):
        asyncio.get_running_loop().add_signal_handler(number, stop)


async def keep_alive_file(path: Path, engine: Engine) -> None:
    """Touch a file while the event loop turns and the database takes our heartbeat: what the container's health check
    looks at."""
    while True:
        if not engine.lapsed:
            with suppress(OSError):  # a full or read-only disk shows as an old file
                await asyncio.to_thread(path.parent.mkdir, parents=True, exist_ok=True)
                await asyncio.to_thread(path.touch)
                reach("alive.touched")
        await asyncio.sleep(ALIVE_EVERY)


def main() -> None:
    discord.VoiceClient.warn_nacl = False  # no voice here: nothing for a newcomer to install
    discord.VoiceClient.warn_dave = False
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")  # a console that knows no 🔁 must not end the program
    from bot.cli import app

    app()


if __name__ == "__main__":
    main()
