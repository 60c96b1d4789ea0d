"""The `animatic` command. Each command reads the config, builds what it needs and says how it went."""

import asyncio
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta
from pathlib import Path
from typing import Annotated, NoReturn

import aiohttp
import stamina
import typer
from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn
from rich.table import Table
from rich.text import Text
from sqlalchemy.exc import SQLAlchemyError

from bot import __main__ as root
from bot import logs
from bot.client import PERMISSIONS
from bot.config import Config, ConfigError, load
from bot.errors import Cause, ProviderBusy, ProviderError, Refusal
from bot.jobs.audit import audit
from bot.jobs.desk import Ask, check, shape
from bot.jobs.machine import Broke, Job, Ready, State
from bot.jobs.models import Model
from bot.jobs.store import SchemaDiffers, open_store
from bot.media import clip as clips
from bot.media.picture import normalise
from bot.providers.base import ClipRequest, Picture, Provider, Uploads
from bot.providers.http import download, open_http
from bot.ui.cards import WHY
from bot.ui.text import money

app = typer.Typer(
    help="Animatic brings pictures to life in Discord.",
    no_args_is_help=True,
    add_completion=False,
    pretty_exceptions_enable=False,
)
jobs = typer.Typer(help="Look at the jobs in the database, while the bot runs or not.", no_args_is_help=True)
app.add_typer(jobs, name="jobs")
console = Console(highlight=False)
errors = Console(stderr=True, highlight=False)

ConfigPath = Annotated[
    Path | None,
    typer.Option("--config", help="The config file; else $ANIMATIC_CONFIG, else config.toml here."),
]


def _load(path: Path | None) -> Config:
    """The config, with logging set up as it says; mistakes are printed and end the program with 2."""
    try:
        config = load(path)
    except ConfigError as error:
        _stop(error)
    logs.configure(config.logging.level, config.logging.format, secrets=config.secrets())
    return config


def _stop(problem: object, code: int = 2) -> NoReturn:
    errors.print(str(problem), markup=False, soft_wrap=True)
    raise typer.Exit(code)


@contextmanager
def _in_words() -> Iterator[None]:
    """What the owner can mend ends the program with a sentence, not with a traceback."""
    try:
        yield
    except ConfigError as error:
        _stop(error)
    except SQLAlchemyError as error:
        _stop(
            f"The database (store.url) cannot be used: {type(error).__name__}. Is it running, and may I write there?"
        )
    except (OSError, aiohttp.ClientError) as error:
        reason = error.strerror if isinstance(error, OSError) else None
        _stop(f"Something outside cannot be reached or written: {reason or type(error).__name__}.", 1)


@app.command()
def run(config: ConfigPath = None) -> None:
    """Serve Discord: answer commands, make clips, post them."""
    settings = _load(config)
    with _in_words():
        asyncio.run(root.run(settings))


@app.command()
def worker(config: ConfigPath = None) -> None:
    """Make and post clips without answering commands: one more machine beside `animatic run`."""
    settings = _load(config)
    with _in_words():
        asyncio.run(root.run(settings, gateway=False))


@app.command()
def demo(
    port: Annotated[int, typer.Option(help="The port of the page; 0 takes a free one.")] = 8770,
    all_routes: Annotated[
        bool,
        typer.Option("--all-routes", help="With every provider, played on this machine: all models to try."),
    ] = False,
    once: Annotated[
        bool, typer.Option("--once", help="No browser: one member animates, then reacts.")
    ] = False,
    picture: Annotated[Path | None, typer.Option(exists=True, dir_okay=False, help="With --once.")] = None,
    prompt: Annotated[str, typer.Option(help="With --once.")] = "camera slowly pulls out",
    out: Annotated[Path, typer.Option(help="With --once: where the clips go.")] = Path("clip.mp4"),
) -> None:
    """Try the bot in a simulated Discord in your browser: no account, no key, no cost."""
    if importlib.util.find_spec("simcord") is None:
        _stop("The demo needs one more package. Install it with: pip install 'animatic[demo]'")
    from bot import demo as demo_world

    if not once:
        try:
            asyncio.run(demo_world.serve(port, console, all_routes=all_routes))
        except Refusal as refusal:
            _stop(refusal, 1)
        return
    if picture is None:
        _stop("--once needs --picture FILE")
    _check_folder(out)
    raise typer.Exit(asyncio.run(demo_world.once(picture, prompt, out, console)))


def _check_folder(out: Path) -> None:
    """Before anything is paid or drawn: is there a place for the clip?"""
    if not out.absolute().parent.is_dir():
        _stop(f"There is no folder {out.absolute().parent} for the clip.", 1)


@app.command()
def render(
    picture: Annotated[str, typer.Argument(help="A picture file, an https address, or - for text alone.")],
    prompt: Annotated[str, typer.Argument(help="What should happen in the clip.")],
    model: Annotated[str | None, typer.Option(help="One of the configured models.")] = None,
    seconds: Annotated[int | None, typer.Option(help="How long the clip is.")] = None,
    quality: Annotated[str | None, typer.Option(help="How fine it is, where the model has a choice.")] = None,
    out: Annotated[Path, typer.Option(help="Where the clip goes.")] = Path("clip.mp4"),
    config: ConfigPath = None,
) -> None:
    """Make one clip without Discord: the way to try a key. It costs what the provider takes."""
    settings = _load(config)
    _check_folder(out)
    with _in_words():
        try:
            facts = asyncio.run(_render(settings, picture, prompt, model, seconds, quality, out))
        except Refusal as refusal:
            _stop(refusal, 1)
        except ProviderError as error:
            _stop(f"{WHY[error.cause]} ({error.cause})", 1)
    console.print(f"{out}: {facts.width}×{facts.height}, {facts.seconds:.1f} s, {facts.codec}")


async def _render(
    config: Config,
    source: str,
    prompt: str,
    name: str | None,
    seconds: int | None,
    quality: str | None,
    out: Path,
) -> clips.ClipFacts:
    async with root.open_encoders() as pool, root.open_providers(config, pool) as providers:
        menu = root.build_menu(config, providers)
        ask = Ask(prompt=prompt, model=name, seconds=seconds, quality=quality, has_picture=source != "-")
        plan = check(ask, menu)
        model = plan.model
        first = await _picture(config, source, model)
        request = ClipRequest(
            reference=root.system_clock().strftime("render-%Y%m%d%H%M%S%f"),
            variant=model.variant,
            prompt=plan.prompt,
            seconds=plan.seconds,
            quality=plan.quality,
            ratio=shape(plan, first),
            picture=first,
        )
        await _make(providers[model.route], model, request, out)
        return await clips.probe(out)


async def _picture(config: Config, source: str, model: Model) -> Picture | None:
    if source == "-":
        return None
    if source.startswith(("https://", "http://")):
        await asyncio.to_thread(config.data.folder.mkdir, parents=True, exist_ok=True)
        path = config.data.folder / "render-picture"
        async with open_http() as http:
            await download(
                http,
                source,
                path,
                max_bytes=25 * 1024 * 1024,
                allow_private=config.network.allow_private_addresses,
                media="image",
            )
        data = await asyncio.to_thread(path.read_bytes)
        path.unlink()
        found = await normalise(data, model.can.picture)
        return Picture(
            data=found.data, media_type=found.media_type, width=found.width, height=found.height, link=source
        )
    if model.can.by_link:
        raise Refusal(f"{model.label} on this route wants the https address of a picture, not a file.")
    try:
        data = await asyncio.to_thread(Path(source).read_bytes)
    except OSError:
        raise Refusal(f"There is no picture at {source}.") from None
    return await normalise(data, model.can.picture)


async def _make(provider: Provider, model: Model, request: ClipRequest, out: Path) -> None:
    """Submit once, then ask until the clip is there, showing how it goes."""
    columns = (TextColumn("{task.description}"), BarColumn(), TimeElapsedColumn())
    with Progress(*columns, console=errors, transient=True) as progress:
        bar = progress.add_task(f"{model.label}: submitting", total=None)
        if isinstance(provider, Uploads):
            request = await provider.upload(request)
        task = (await provider.submit(request)).task
        errors.print(f"The provider's task is {task}", markup=False)
        pause = model.can.first_poll
        started = root.system_clock()
        while True:
            await asyncio.sleep(pause.total_seconds())
            pause = model.can.least_poll_gap
            if root.system_clock() - started > model.can.deadline:
                raise Refusal(f"It is not ready after {model.can.deadline}. The provider's task is {task}.")
            try:
                answer = await provider.check(task)
            except ProviderBusy as busy:
                pause = busy.retry_after or pause
                continue
            except ProviderError as error:
                progress.update(bar, description=f"{model.label}: no answer ({error.cause}), asking again")
                continue
            if isinstance(answer, Ready):
                break
            if isinstance(answer, Broke):
                raise Refusal(WHY[answer.cause])
            share = answer.progress
            progress.update(
                bar,
                description=f"{model.label}: {'waiting' if answer.queued else 'rendering'}",
                total=None if share is None else 1.0,
                completed=share or 0.0,
            )
        progress.update(bar, description=f"{model.label}: downloading")
        async for attempt in stamina.retry_context(on=ProviderError, attempts=4):
            with attempt:
                await provider.fetch(answer.clip_url, out)


@app.command()
def invite(
    application_id: Annotated[
        int | None,
        typer.Argument(help="The application's id; asked of Discord with the token when left out."),
    ] = None,
    config: ConfigPath = None,
) -> None:
    """Print the link that invites the bot to a server, with the least permissions it needs."""
    if application_id is None:
        application_id = _application(_load(config))[0]
    console.print(root.invite_link(application_id, PERMISSIONS), soft_wrap=True)


@app.command()
def doctor(config: ConfigPath = None) -> None:
    """Check the config, the database, every route's key and the token, without spending anything."""
    settings = _load(config)
    with _in_words():
        models, routes = asyncio.run(_check_parts(settings))
    console.print("config    fine")
    console.print("database  fine, schema up to date")
    console.print(f"models    {models}")
    if settings.safety.check:
        console.print(f"check     {settings.safety.check} can be asked", markup=False, soft_wrap=True)
    for route, found in routes.items():
        console.print(f"route     {route}: {found}", markup=False, soft_wrap=True)
    application_id, name = _application(settings)
    console.print(f"discord   logged in as {name}")
    console.print(f"invite    {root.invite_link(application_id, PERMISSIONS)}", soft_wrap=True)
    if any(isinstance(found, _Mend) for found in routes.values()):
        raise typer.Exit(1)


class _Mend(str):
    """What is wrong with a route, and who mends it how."""


MENDS = {
    Cause.BAD_KEY: "refuses the key. Put a good one into routes.{route} in the config",
    Cause.NO_CREDIT: "says that nothing is left on the account. Top it up at the provider",
    Cause.NOT_ALLOWED: "does not allow this account to use its API. Ask the provider",
    Cause.BUSY: "is not there, or too busy. Is routes.{route}.base_url right, and the network up?",
}


async def _check_parts(config: Config) -> tuple[str, dict[str, str]]:
    """The models in words, and what each route answers to a free question."""
    async with root.build(config) as animatic:
        models = ", ".join(f"{model.name} (on {model.route})" for model in animatic.menu.models.values())
        routes = animatic.providers
        answers = await asyncio.gather(*(_probe(route, provider) for route, provider in routes.items()))
        return models, dict(zip(routes, answers, strict=True))


async def _probe(route: str, provider: Provider) -> str:
    try:
        balance = await provider.probe()
    except ProviderError as error:
        mend = MENDS.get(error.cause, "does not answer sensibly ({cause}). Look at its status page")
        return _Mend(mend.format(route=route, cause=error.cause))
    if balance is None:
        return "fine"
    left = f"{balance.amount:g} {balance.unit} left"
    return f"fine, {left}" if balance.amount > 0 else _Mend(f"{left}. Top the account up at the provider")


@jobs.command("check")
def check_jobs(config: ConfigPath = None) -> None:
    """Check that no clip is lost or paid twice, reading only: what is wrong, row by row. Ends with 1 if anything is."""
    settings = _load(config)
    with _looking():
        wrong = asyncio.run(_check_jobs(settings))
    raise typer.Exit(1 if wrong else 0)


async def _check_jobs(config: Config) -> int:
    """How many things are wrong, after saying each."""
    url = config.store.url.get_secret_value()
    async with open_store(url, read_only=True) as store:
        async with root.open_encoders() as pool, root.open_providers(config, pool) as providers:
            menu = root.build_menu(config, providers)
        wrong = 0
        async for finding in audit(
            store,
            now=root.system_clock,
            deadline=menu.deadline,
            folder=config.data.folder / "clips",
            keep=timedelta(days=config.data.keep_days),
            one_machine=url.startswith("sqlite"),
        ):
            wrong += not finding.notice
            kind = f"{finding.invariant} (a notice)" if finding.notice else finding.invariant
            console.print(f"{kind}  {finding.about}  {finding.what}", markup=False, soft_wrap=True)
        many = (await store.rows())["jobs"]
    console.print(f"{many:,} jobs: {f'{wrong} things are wrong' if wrong else 'all is well'}")
    return wrong


@jobs.command("unsure")
def unsure_jobs(config: ConfigPath = None) -> None:
    """List the jobs of which nobody knows whether the provider took them: may be paid, not yet delivered."""
    settings = _load(config)
    with _looking():
        found = asyncio.run(_unsure(settings))
    if not found:
        console.print("No job is unsure.")
        return
    table = Table(
        "since (UTC)", "member", "server", "channel", "model", "route", "price", "our reference", "card"
    )
    for job in found:
        price = money(job.price_cents, settings.money.currency, free=False) or "unknown"
        card = f"https://discord.com/channels/{job.guild_id or '@me'}/{job.channel_id}/{job.card_id}"
        values = (f"{job.changed_at:%Y-%m-%d %H:%M}", job.asker_id, job.guild_id or "–", job.channel_id)
        named = (job.model, job.route, price, job.reference or "–", card)
        table.add_row(*(Text(str(value)) for value in (*values, *named)))
    for column in table.columns:
        column.overflow = "fold"
    console.print(table)


async def _unsure(config: Config) -> list[Job]:
    async with open_store(config.store.url.get_secret_value(), read_only=True) as store:
        return await store.open_jobs((State.UNSURE,))


@contextmanager
def _looking() -> Iterator[None]:
    """Ends the program with 2 when the database cannot be looked at: 1 says that something in it is wrong."""
    with _in_words():
        try:
            yield
        except SchemaDiffers:
            _stop("The database (store.url) is of another version of Animatic, or empty: start the bot once.")
        except OSError as error:
            _stop(f"The database (store.url) cannot be reached: {error.strerror or type(error).__name__}.")


def _application(config: Config) -> tuple[int, str]:
    with _in_words():
        return asyncio.run(root.who_am_i(config))
    raise AssertionError("unreachable")


if __name__ == "__main__":
    sys.exit(app())
