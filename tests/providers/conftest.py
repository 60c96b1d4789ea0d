"""What the tests of all routes share: a tiny clip, pictures, the bot's one session, and the contract's table."""

import io
import ipaddress
import os
import re
from collections.abc import AsyncIterator

import aiohttp
import av
import pytest
from PIL import Image

from bot.providers import http as http_module
from bot.providers.base import Picture
from bot.providers.http import is_public, open_http
from tests.servers.makevid import MakevidServer


@pytest.fixture(scope="session")
def clip() -> bytes:
    """A real mp4: ten frames of 64×64, H.264."""
    file = io.BytesIO()
    with av.open(file, "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=10)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        for shade in range(0, 250, 25):
            frame = av.VideoFrame.from_image(Image.new("RGB", (64, 64), (shade, 80, 160)))
            container.mux(stream.encode(frame))
        container.mux(stream.encode())
    return file.getvalue()


@pytest.fixture
async def http() -> AsyncIterator[aiohttp.ClientSession]:
    async with open_http() as session:
        yield session


@pytest.fixture
async def makevid(clip: bytes) -> AsyncIterator[MakevidServer]:
    async with MakevidServer(clip=clip) as server:
        yield server


@pytest.fixture
def loopback_is_the_internet(monkeypatch: pytest.MonkeyPatch) -> None:
    """127.0.0.1 and plain http stand for the public internet; all other addresses stay what they are."""
    home = ipaddress.ip_address("127.0.0.1")
    monkeypatch.setattr(http_module, "PUBLIC_SCHEMES", frozenset({"http", "https"}))
    monkeypatch.setattr(http_module, "is_public", lambda address: address == home or is_public(address))


def picture(
    width: int = 320,
    height: int = 320,
    *,
    kind: str = "PNG",
    link: str | None = "https://cdn.invalid/a.png?ex=1",
) -> Picture:
    """A normalised picture, with a signed link to it."""
    file = io.BytesIO()
    Image.new("RGB", (width, height), (200, 120, 40)).save(file, kind)
    return Picture(
        data=file.getvalue(),
        media_type=f"image/{kind.lower()}",
        width=width,
        height=height,
        link=link,
    )


def heavy(last: int = 0) -> Picture:
    """A picture that is too large for Runway's data URIs: noise does not compress."""
    width, height = 1200, 1100 - last
    file = io.BytesIO()
    Image.frombytes("RGB", (width, height), os.urandom(width * height * 3)).save(
        file, "PNG", compress_level=1
    )
    return Picture(data=file.getvalue(), media_type="image/png", width=width, height=height)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """The table of the contract: cases down, rigs across; ✓ kept, ✗ broken, – cannot happen, with the reason."""
    from tests.providers.contract import Case, all_rigs

    went: dict[tuple[str, str], bool] = {}
    for outcome in ("passed", "failed", "error"):
        for report in terminalreporter.getreports(outcome):
            if found := re.search(r"test_contract\.py::\w+\[(.+)-([A-Z0-9_]+)\]$", report.nodeid):
                went[found.groups()] = went.get(found.groups(), True) and outcome == "passed"  # type: ignore[index]
    rigs = [rig for rig in all_rigs() if any(name == rig.name for name, _ in went)]
    if not rigs:
        return
    notes: dict[str, str] = {}
    terminalreporter.section("the contract: what every route does in every case")
    for number, rig in enumerate(rigs, 1):
        terminalreporter.write_line(f"{number:>4}  {rig.name}")
    widest = max(map(len, Case))
    terminalreporter.write_line(" " * widest + "".join(f"{number:>4}" for number in range(1, len(rigs) + 1)))
    for case in Case:
        cells = []
        for rig in rigs:
            if reason := rig.reason_lacking(case):
                cells.append("–" + notes.setdefault(reason, f"{len(notes) + 1}"))
            else:
                cells.append({True: "✓", False: "✗", None: "·"}[went.get((rig.name, case.name))])
        terminalreporter.write_line(case.ljust(widest) + "".join(f"{cell:>4}" for cell in cells))
    for reason, note in notes.items():
        terminalreporter.write_line(f"–{note}  {reason}")
