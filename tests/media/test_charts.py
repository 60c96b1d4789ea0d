"""The picture of a month: it can be drawn from whatever a month holds, off the loop, and is bounded."""

import asyncio
import io
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import pytest
from PIL import Image, ImageColor

from bot.media import charts
from bot.media.charts import BACKGROUND, HEIGHT, WIDTH, Bar, Bars, Chart, Charts, NoChart, render

EDGE = 30  # pixels on the left and right in which nothing is drawn


def bars(*names: str, numbered: bool = False) -> Bars:
    rows = [Bar(name=name, value="$1,234.50 · 1,234 clips", size=10.0 - n) for n, name in enumerate(names)]
    return Bars(title="Top members", rows=tuple(rows), numbered=numbered)


def chart(
    days: tuple[float, ...] = (0.0, 1.5) * 15, first: Bars | None = None, second: Bars | None = None
) -> Chart:
    return Chart(
        title="Usage in November 2026",
        subtitle=("Harbour Film Club", "UTC"),
        figures=(
            ("spent", "$12.30"),
            ("clips posted", "42"),
            ("success", "93 %"),
            ("median wait", "1 min 5 s"),
        ),
        days_title="Spent by day",
        days=days,
        currency="$",
        bars=(first or bars("Kling"), second or bars("Mia", "Noor", numbered=True)),
    )


def checked(png: bytes) -> Image.Image:
    """A PNG of the promised size that shows something, with nothing cut off at its sides."""
    assert len(png) < 1_000_000
    picture = Image.open(io.BytesIO(png))
    assert (picture.format, picture.size) == ("PNG", (WIDTH, HEIGHT))
    picture = picture.convert("RGB")
    assert picture.getcolors(20) is None  # more than these
    for side in ((0, 0, EDGE, HEIGHT), (WIDTH - EDGE, 0, WIDTH, HEIGHT), (0, HEIGHT - 10, WIDTH, HEIGHT)):
        assert picture.crop(side).getcolors() == [
            ((side[2] - side[0]) * (side[3] - side[1]), ImageColor.getrgb(BACKGROUND))
        ]
    return picture


@pytest.mark.parametrize("days", [28, 29, 30, 31])
@pytest.mark.parametrize("spent", [(), (1,), (28,), range(1, 29)], ids=["none", "first", "last", "every"])
def test_every_month(days: int, spent: list[int]) -> None:
    """Nothing, one day at either end, or every day."""
    amounts = tuple(12345.67 * (day in spent) for day in range(1, days + 1))

    checked(render(chart(amounts)))


@pytest.mark.parametrize(("models", "members"), [(0, 0), (1, 0), (0, 1), (1, 10), (7, 1), (7, 10)])
def test_as_many_rows_as_there_may_be(models: int, members: int) -> None:
    first = bars(*(f"Model {n}" for n in range(models)))
    second = bars(*(f"Member {n}" for n in range(members)), numbered=True)

    checked(render(chart(first=first, second=second)))


# The suite takes every warning for an error, and matplotlib warns of each glyph that no font has.
@pytest.mark.parametrize(
    "name",
    [
        "W" * 400,
        "many words " * 40,
        "山田太郎",
        "김철수",
        "🦊✨👩‍👩‍👧‍👦",
        "محمد علي",
        "שלום",
        "हिन्दी",
        "Z̸̢̛a̷l̵g̴o̶",
        "$x^2$ {\\frac",
        "𝕱𝖆𝖓𝖈𝖞",
        "\u202eevil\u0000\n",
        "",
        " ",
        "\ud800",
    ],
)
def test_whatever_people_call_themselves(name: str) -> None:
    """No boxes in place of letters, no formulas, and nothing runs over the edge."""
    odd = replace(chart(second=bars(name, numbered=True)), subtitle=(name, "UTC"), title=name)

    checked(render(odd))


def test_amounts_beyond_all_measure() -> None:
    row = Bar(name="Model", value="Currency99,999,999.99 · 1,000,000 clips", size=1)
    huge = chart((99_999_999.99,) * 31, first=Bars(title="By model", rows=(row,)))

    checked(render(replace(huge, currency="Currency", figures=(("spent", "Currency99,999,999.99"),) * 4)))


# In a process of its own


async def test_it_is_drawn_elsewhere(tmp_path: Path) -> None:
    """The same picture, and the loop goes on meanwhile."""
    ticks = 0

    async def tick() -> None:
        nonlocal ticks
        while True:
            ticks += 1
            await asyncio.sleep(0)

    ticking = asyncio.create_task(tick())
    png = await Charts(tmp_path / "charts").draw(chart())
    ticking.cancel()

    assert checked(png).tobytes() == checked(render(chart())).tobytes()
    assert ticks > 100


def test_the_bot_never_loads_the_library() -> None:
    """It would cost every start a second, and every process its memory."""
    program = "import bot.__main__, cogs.usage, sys; sys.exit('matplotlib' in sys.modules)"

    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0  # noqa: S603 - our own


async def test_one_that_takes_too_long(tmp_path: Path) -> None:
    """It is stopped, and the next one is drawn."""
    slow = Charts(tmp_path / "charts", seconds=0.01)

    with pytest.raises(NoChart):
        await slow.draw(chart())
    slow._seconds = 60

    checked(await slow.draw(chart()))


async def test_one_that_dies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The member is answered all the same."""
    monkeypatch.setattr(charts, "asdict", lambda _chart: {"not": "a chart"})

    with pytest.raises(NoChart):
        await Charts(tmp_path / "charts").draw(chart())


async def test_a_line_that_is_too_long(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One at a time; a few wait, and the others are told at once."""
    drawing, go_on = 0, asyncio.Event()
    most = 0

    async def draw(_self: Charts, _chart: bytes) -> bytes:
        nonlocal drawing, most
        drawing += 1
        most = max(most, drawing)
        await go_on.wait()
        drawing -= 1
        return b""

    monkeypatch.setattr(Charts, "_draw", draw)
    line = Charts(tmp_path)
    waiting = [asyncio.create_task(line.draw(chart())) for _ in range(charts.MOST_WAITING)]
    await asyncio.sleep(0)

    with pytest.raises(NoChart):
        await line.draw(chart())
    go_on.set()
    await asyncio.gather(*waiting)

    assert most == 1
    assert await line.draw(chart()) == b""


async def test_without_the_library(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(charts, "installed", lambda: False)

    with pytest.raises(NoChart):
        await Charts(tmp_path).draw(chart())


def test_it_is_told_no_secrets(monkeypatch: pytest.MonkeyPatch) -> None:
    """Keys in the environment stay with the bot."""
    monkeypatch.setenv("ANIMATIC_DISCORD__TOKEN", "secret")

    assert "secret" not in charts._environment().values()
    assert "PATH" in charts._environment()
