"""Makes docs/settings.png and docs/usage.png, the pictures of docs/moderators.md.

    python -m scripts.moderator_pictures [docs]

The panel is that of the demo in headless Chromium; the other picture is drawn from a month that is made up.
Needs the extra `dev` and a Chromium (CHROMIUM names it; else it is looked for).
"""

import asyncio
import random
import sys
import tempfile
from datetime import UTC, datetime, timedelta
from pathlib import Path

import discord

from bot import demo
from bot.errors import Cause
from bot.jobs.machine import Accepted, Begun, Broke, CardPosted, Job, Outcome, Posted, Ready
from bot.jobs.models import Menu
from bot.jobs.store import new_job_id, open_store
from bot.jobs.usage import Books, Month
from bot.media.charts import Charts
from bot.ui import settings as panels
from bot.ui import usage
from tests.browser import chromium

WIDTH, HEIGHT = 860, 1500  # of the page: both messages are whole on it
NOW = datetime(2026, 11, 23, 21, 40, tzinfo=UTC)
SERVER = 1
MODELS = {"kling": 70, "luma": 60, "runway": 50, "sketch": 0}  # cents of ten seconds
MEMBERS = [
    "Mia",
    "Noor",
    "Tomasz",
    "山田太郎",
    "Ines",
    "Дмитрий",
    "fernweh",
    "Aoife",
    "Luca",
    "Ravi",
    "Sol",
    "Wren",
]


async def picture_settings(folder: Path, out: Path) -> None:
    """The panel of /settings on two of its pages, as somebody who manages the server sees it."""
    async with demo.world(folder) as here:
        guild = here.channel.guild
        assert guild
        managers = guild.create_role("Managers", permissions=discord.Permissions(manage_guild=True))
        ines = guild.add_member(here.env.create_user("ines", global_name="Ines"), roles=[managers])
        cinema, log = guild.create_text_channel("cinema"), guild.create_text_channel("team-log")
        await here.animatic.bot.servers.change(
            guild.id,
            channels=frozenset({here.channel.id}),
            results_channel=cinema.id,
            audit_channel=log.id,
            member_clips_per_day=5,
            member_cents_per_day=250,
            role_clips_per_day={managers.id: 20},
            server_cents_per_day=2000,
            server_cents_per_month=30000,
        )
        await ines.slash(here.channel, "settings")
        second = await ines.slash(here.channel, "settings")
        assert second.response
        await ines.select(second.response.message, ["limits"], custom_id=panels.PAGE)
        async with (
            here.env.preview(here.channel, viewers=[ines], layout="channel", port=0) as page,
            chromium() as browser,
        ):
            tab = await browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, device_scale_factor=1.5)
            await tab.goto(page.url)
            await tab.get_by_text("Clips a day by role").wait_for()
            messages = tab.locator(".channel-message")
            first, last = await messages.nth(0).bounding_box(), await messages.nth(1).bounding_box()
            assert first
            assert last
            bottom = last["y"] + last["height"]
            clip = {"x": first["x"], "y": first["y"], "width": first["width"], "height": bottom - first["y"]}
            await tab.screenshot(path=out, clip=clip)


async def picture_usage(folder: Path, out: Path) -> None:
    """A month of a server that pays for most of its clips."""
    url = f"sqlite+aiosqlite:///{(folder / 'month.db').as_posix()}"
    async with open_store(url) as store:
        dice = random.Random(11)  # noqa: S311 - the same picture every time
        for number in range(260):
            job, outcomes = _clip(dice, number)
            moved: Job | None = await store.add(job)
            wait = timedelta(seconds=dice.lognormvariate(4.6, 0.4))
            for outcome in outcomes:
                assert moved
                moved = await store.advance(moved, outcome, job.created_at + wait)
        books = Books(store, now=lambda: NOW, currency="$")
        found = await books.usage(Month.of(NOW), SERVER)
    names: dict[int | None, str] = dict(enumerate(MEMBERS, start=100))
    chart = usage.chart_of(found, books, Menu(models={}, default="kling"), "Harbour Film Club", names)
    png = await Charts(folder).draw(chart)
    await asyncio.to_thread(out.write_bytes, png)


def _clip(dice: random.Random, number: int) -> tuple[Job, list[Outcome]]:
    """One clip of the month: the weekends are busier, and some members more than others."""
    days = [NOW - timedelta(days=ago, hours=dice.randrange(12)) for ago in range(NOW.day - 1)]
    at = dice.choices(days, [3 if day.weekday() > 4 else 1 for day in days])[0]
    at -= timedelta(seconds=dice.randrange(3600))
    name = dice.choices(list(MODELS), [9, 5, 4, 3])[0]
    seconds = dice.choice([5, 5, 10])
    job = Job(
        id=new_job_id(at),
        created_at=at,
        changed_at=at,
        reserved_at=at,
        guild_id=SERVER,
        channel_id=2,
        asker_id=100 + min(int(dice.expovariate(0.3)), len(MEMBERS) - 1),
        model=name,
        route="makevid",
        variant=name,
        prompt="",
        seconds=seconds,
        price_cents=MODELS[name] * seconds // 10,
    )
    begun: list[Outcome] = [CardPosted(number), Begun(f"{job.id}-1", "worker"), Accepted("task")]
    if dice.random() < 0.05:
        return job, [*begun, Broke(Cause.MODERATION, charged=False)]
    return job, [*begun, Ready("https://cdn.example/clip.mp4"), Posted(number)]


async def main(docs: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        await picture_settings(Path(folder), docs / "settings.png")
        await picture_usage(Path(folder), docs / "usage.png")


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs")))
