"""Draws a month's figures as one picture, for a phone, in Discord's dark colours.

`Charts` does it in a process of its own, so that the bot never loads the plotting library: that process runs this
module, reads a `Chart` as JSON and writes a PNG. Needs the extra `charts`.
"""

import asyncio
import importlib.util
import io
import json
import os
import sys
import unicodedata
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import structlog

log = structlog.get_logger(__name__)

WIDTH, HEIGHT, DOTS = 1200, 1500, 150  # pixels, and how many to an inch
SECONDS = 30.0  # that drawing may take, the loading of the library included
MOST_WAITING = 8  # pictures in line; each is somebody who waits
LONGEST = 200  # characters of a text that are looked at
BARS_FROM, BARS_LONG = 0.37, 0.34  # where bars begin in their panel, and how long the longest is
BACKGROUND, PANEL, TEXT, MUTED, GRID = "#1e1f22", "#2b2d31", "#f2f3f5", "#b5bac1", "#3f4147"
BLURPLE, GREEN, YELLOW = "#7983f5", "#3ba55d", "#f0b232"
FAMILIES = ("DejaVu Sans", "Noto Sans CJK JP", "Noto Sans CJK SC", "Noto Sans CJK KR", "Noto Sans")


class NoChart(Exception):
    """The plotting library is not installed, or it did not draw in time."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Bar:
    """One row of bars: a name, what stands behind the bar, and how long it is beside the others."""

    name: str
    value: str
    size: float


@dataclass(frozen=True, slots=True, kw_only=True)
class Bars:
    title: str
    rows: tuple[Bar, ...]
    numbered: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Chart:
    """What is drawn, from top to bottom; parts of the subtitle that no font has are left out. `days` are amounts of
    `currency`, one for each day of a month."""

    title: str
    subtitle: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    days_title: str
    days: tuple[float, ...]
    currency: str
    bars: tuple[Bars, Bars]


class Charts:
    """Draws one picture at a time. `folder` is where the plotting library keeps what it found out about fonts."""

    def __init__(self, folder: Path, *, seconds: float = SECONDS) -> None:
        self._folder = folder
        self._seconds = seconds
        self._turn = asyncio.Lock()
        self._waiting = 0

    async def draw(self, chart: Chart) -> bytes:
        """A PNG of WIDTH × HEIGHT. Raises NoChart."""
        if not installed() or self._waiting >= MOST_WAITING:
            raise NoChart
        self._waiting += 1
        try:
            async with self._turn:
                return await self._draw(json.dumps(asdict(chart)).encode())
        finally:
            self._waiting -= 1

    async def _draw(self, chart: bytes) -> bytes:
        paths = os.pathsep.join(path for path in sys.path if path)
        process = await asyncio.create_subprocess_exec(
            sys.executable,
            "-m",
            "bot.media.charts",
            stdin=asyncio.subprocess.PIPE,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
            env=_environment() | {"MPLCONFIGDIR": str(self._folder.absolute()), "PYTHONPATH": paths},
        )
        try:
            async with asyncio.timeout(self._seconds):
                png, _ = await process.communicate(chart)
        except TimeoutError:
            log.warning("chart_too_slow", seconds=self._seconds)
            raise NoChart from None
        finally:
            if process.returncode is None:
                with suppress(ProcessLookupError):
                    process.kill()
                await process.wait()
        if process.returncode or not png.startswith(b"\x89PNG"):
            log.warning("chart_not_drawn", code=process.returncode)
            raise NoChart
        return png


def installed() -> bool:
    """Whether the plotting library is there; it is not loaded."""
    return importlib.util.find_spec("matplotlib") is not None


def _environment() -> dict[str, str]:
    """What a program needs of ours to run: not the keys and tokens."""
    kept = ("PATH", "HOME", "SYSTEMROOT", "TEMP", "TMP", "TMPDIR", "LANG", "LD_LIBRARY_PATH")
    return {name: value for name, value in os.environ.items() if name.upper() in kept}


# In the process of its own


def render(chart: Chart) -> bytes:
    """The picture. Loads the plotting library."""
    import matplotlib
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    fonts = _Fonts()
    style: dict[Any, Any] = {
        "font.family": fonts.names,
        "font.size": 13,
        "text.color": TEXT,
        "text.parse_math": False,  # a $ is a dollar
        "axes.facecolor": PANEL,
        "axes.edgecolor": GRID,
        "xtick.color": MUTED,
        "ytick.color": MUTED,
    }
    with matplotlib.rc_context(style):
        figure = Figure(figsize=(WIDTH / DOTS, HEIGHT / DOTS), dpi=DOTS, facecolor=BACKGROUND)
        canvas = FigureCanvasAgg(figure)
        title = figure.text(
            0.05, 0.957, fonts.drawable(chart.title), fontsize=21, fontweight="bold", va="center"
        )
        parts = " · ".join(part for part in map(fonts.drawable, chart.subtitle) if part)
        below = figure.text(0.05, 0.925, parts, fontsize=13, color=MUTED, va="center")
        _cut(title, 0.9)
        _cut(below, 0.9)
        _draw_figures(figure, chart.figures)
        _draw_days(figure, chart)
        first, second = chart.bars
        # Each panel gets the room that its rows need.
        rows = max(len(first.rows), 1) + max(len(second.rows), 1)
        room, between = 0.455, 0.055
        share = max(len(first.rows), 1) / rows
        height = min(max(share * (room - between), 0.075), room - between - 0.075)
        _draw_bars(figure, first, fonts, top=0.475, height=height, colour=GREEN)
        top = 0.475 - height - between
        _draw_bars(figure, second, fonts, top=top, height=room - between - height, colour=YELLOW)
        file = io.BytesIO()
        canvas.print_png(file)  # type: ignore[no-untyped-call]  # matplotlib's gap
    return file.getvalue()


def _draw_figures(figure: Any, figures: Sequence[tuple[str, str]]) -> None:
    """The four or so numbers to be seen first."""
    gap, left = 0.02, 0.05
    width = (0.9 - gap * (len(figures) - 1)) / max(len(figures), 1)
    for number, (name, value) in enumerate(figures):
        axes = figure.add_axes((left + number * (width + gap), 0.81, width, 0.085))
        axes.set_xticks([])
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        shown = axes.text(0.5, 0.6, value, fontsize=20, fontweight="bold", ha="center", va="center")
        _shrink(shown, width - 0.02)
        axes.text(0.5, 0.2, name, fontsize=11.5, color=MUTED, ha="center", va="center")


def _draw_days(figure: Any, chart: Chart) -> None:
    axes = figure.add_axes((0.05, 0.545, 0.9, 0.21))
    _panel(axes, chart.days_title)
    days = range(1, len(chart.days) + 1)
    axes.bar(days, chart.days, color=BLURPLE, width=0.72, zorder=2)
    axes.set_xlim(0, len(chart.days) + 1)
    highest = max(chart.days, default=0.0)
    axes.set_ylim(0, highest * 1.25 or 1)
    axes.set_xticks(
        [1, 5, 10, 15, 20, 25, len(chart.days)],
        [f"{day}" for day in (1, 5, 10, 15, 20, 25)] + [f"{len(chart.days)}"],
    )
    axes.set_yticks([])
    axes.tick_params(length=0, labelsize=12)
    if not highest:
        axes.text(0.5, 0.5, "Nothing was charged", transform=axes.transAxes, ha="center", color=MUTED)
        return
    dearest = chart.days.index(highest)
    axes.annotate(
        f"{chart.currency}{highest:,.2f}",
        (dearest + 1, highest),
        xytext=(0, 5),
        textcoords="offset points",
        ha="center" if 2 < dearest < len(chart.days) - 3 else "left" if dearest <= 2 else "right",
        fontsize=12.5,
        fontweight="bold",
    )


def _draw_bars(figure: Any, bars: Bars, fonts: "_Fonts", *, top: float, height: float, colour: str) -> None:
    axes = figure.add_axes((0.05, top - height, 0.9, height))
    _panel(axes, bars.title)
    axes.set_xticks([])
    axes.set_yticks([])
    if not bars.rows:
        axes.text(0.5, 0.5, "Nobody, so far", transform=axes.transAxes, ha="center", va="center", color=MUTED)
        return
    # In the panel's own measure: names on the left, bars in the middle, what they stand for on the right.
    axes.set_xlim(0, 1)
    axes.set_ylim(len(bars.rows) - 0.4, -0.6)
    longest = max((row.size for row in bars.rows), default=0.0) or 1.0
    size = 12.5 if len(bars.rows) <= 8 else 11.5
    for place, row in enumerate(bars.rows):
        number = f"{place + 1}. " if bars.numbered else ""
        name = fonts.drawable(row.name) or "(name below the picture)"
        shown = axes.text(0.02, place, number + name, fontsize=size, va="center")
        _cut(shown, 0.9 * (BARS_FROM - 0.04))
        long = BARS_LONG * max(row.size, 0) / longest + 0.004
        axes.barh(place, long, left=BARS_FROM, height=0.56, color=colour, zorder=2)
        value = axes.text(0.98, place, row.value, fontsize=size, ha="right", va="center", color=TEXT)
        _shrink(value, 0.9 * (0.96 - BARS_FROM - BARS_LONG))


def _panel(axes: Any, title: str) -> None:
    axes.set_title(title, loc="left", fontsize=13.5, fontweight="bold", color=TEXT, pad=7)
    axes.spines[:].set_visible(False)


def _width(shown: Any) -> float:
    """Of a text, as a share of the picture's."""
    return float(shown.get_window_extent().width / WIDTH)


def _cut(shown: Any, room: float) -> None:
    """Leave out the end of a text that is too wide."""
    text = shown.get_text()[:LONGEST]
    shown.set_text(text)
    while (width := _width(shown)) > room and text:
        text = text[: min(len(text) - 1, int(len(text) * room / width))].rstrip()
        shown.set_text(f"{text}…")


def _shrink(shown: Any, room: float) -> None:
    """Write a text smaller that is too wide: no figure of an amount may be missing."""
    if (width := _width(shown)) > room:
        shown.set_fontsize(shown.get_fontsize() * room / width * 0.98)


class _Fonts:
    """The fonts that are there, and what they can draw from left to right without joining letters."""

    def __init__(self) -> None:
        from matplotlib import font_manager

        there = set(font_manager.get_font_names())
        self.names = [name for name in FAMILIES if name in there]
        self._drawn: set[int] = set()
        for name in self.names:
            self._drawn |= set(font_manager.get_font(font_manager.findfont(name)).get_charmap())

    def drawable(self, text: str) -> str:
        """What of a text can be drawn; nothing of one that would be unreadable without the rest."""
        letters = [one for one in unicodedata.normalize("NFC", text) if unicodedata.category(one)[0] != "C"]
        shown = [one for one in letters if self._can(one)]
        if sum(map(str.isalnum, shown)) < max(1, sum(map(str.isalnum, letters)) * 2 / 3):
            return ""
        return " ".join("".join(shown).split())

    def _can(self, letter: str) -> bool:
        joined = unicodedata.bidirectional(letter) in ("R", "AL", "NSM", "AN")
        return ord(letter) in self._drawn and not joined


def _main() -> None:
    chart = json.load(sys.stdin)
    bars = tuple(
        Bars(**{**some, "rows": tuple(Bar(**row) for row in some["rows"])}) for some in chart.pop("bars")
    )
    sys.stdout.buffer.write(render(Chart(**chart, bars=bars)))  # type: ignore[arg-type]  # two of them


if __name__ == "__main__":
    _main()
