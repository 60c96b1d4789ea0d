"""The demo: a newcomer's first minute, in a real browser and without one."""

import asyncio
from io import StringIO
from pathlib import Path

import pytest
from rich.console import Console

from bot import demo
from bot.media import clip as clips
from tests.browser import animate, chromium, clips_shown, find_chromium, open_demo, play, press_reaction

HARBOUR = Path(__file__).parent / "data" / "harbour.jpg"


async def test_once_saves_two_clips_that_play(tmp_path: Path) -> None:
    """One member animates, then reacts: clip.mp4 and clip-2.mp4, and a summary of what happened."""
    said = StringIO()
    out = tmp_path / "clip.mp4"

    code = await demo.once(HARBOUR, "camera pull out", out, Console(file=said, width=200))

    assert code == 0
    for path in (out, tmp_path / "clip-2.mp4"):
        facts = await clips.probe(path)
        assert (facts.codec, facts.pixel_format, facts.fast_start) == ("h264", "yuv420p", True)
        assert facts.seconds == pytest.approx(5, abs=0.1)
    assert "2 clips delivered" in said.getvalue()


async def test_once_says_why_when_it_does_not_work(tmp_path: Path) -> None:
    """A file that is no picture: the refusal is shown, nothing is saved, and the code is not 0."""
    said = StringIO()
    text = tmp_path / "notes.png"
    text.write_text("not a picture")

    code = await demo.once(text, "camera pull out", tmp_path / "clip.mp4", Console(file=said, width=200))

    assert code == 1
    assert "Nothing was charged." in said.getvalue()
    assert not (tmp_path / "clip.mp4").exists()


@pytest.mark.skipif(find_chromium() is None, reason="no Chromium here; install one, or name it in $CHROMIUM")
async def test_a_newcomer_uses_the_page(tmp_path: Path) -> None:
    """Choose /animate, attach, send; the clip plays in the channel; the reaction makes another take."""
    async with demo.open_page(tmp_path, port=0) as page, chromium() as browser, asyncio.timeout(240):
        tab = await open_demo(browser, page.url)
        await animate(tab, prompt="camera slowly pulls out", picture=HARBOUR)
        await clips_shown(tab, 1)
        assert await play(tab, 0) > 0

        await press_reaction(tab, 0)
        await clips_shown(tab, 2)

        assert await play(tab, 1) > 0
        assert "here is another take" in await tab.locator("#channel-message-list").inner_text()
