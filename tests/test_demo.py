"""The demo: a newcomer's first minute, in a real browser and without one."""

import asyncio
from io import StringIO
from pathlib import Path

import pytest
from PIL import Image, ImageOps
from rich.console import Console

from bot import demo
from bot.errors import Cause
from bot.jobs.machine import Lineage, State
from bot.media import clip as clips
from tests.browser import animate, chromium, clips_shown, find_chromium, open_demo, play, press_reaction

HARBOUR = Path(__file__).parent / "data" / "harbour.jpg"
NO_CHROMIUM = "no Chromium here; install one, or name it in $CHROMIUM"


@pytest.fixture
def panorama(tmp_path: Path) -> Path:
    """A small, low picture. Its clips have few pixels: each is encoded here, once more for the page, and shown."""
    path = tmp_path / "panorama.jpg"
    with Image.open(HARBOUR) as harbour:
        ImageOps.fit(harbour, (480, 120)).save(path)
    return path


async def test_once_saves_two_clips_that_play(tmp_path: Path, panorama: Path) -> None:
    """One member animates, then reacts: clip.mp4 and clip-2.mp4, and a summary of what happened."""
    said = StringIO()
    out = tmp_path / "clip.mp4"

    code = await demo.once(panorama, "camera pull out", out, Console(file=said, width=200))

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


async def test_the_page_begins_with_a_past(tmp_path: Path) -> None:
    """Real clips of several members, one derived from another, and one that waits to be posted elsewhere."""
    async with asyncio.timeout(120), demo.open_page(tmp_path, port=0) as opened:
        here = opened.world
        assert not opened.history.done()
        await opened.history

        jobs = await here.animatic.store.open_jobs(tuple(State))
        kept, first, lake, remix, take = jobs
        assert [job.asker_id for job in jobs] == [
            member.id for member in (here.member, here.tess, here.ivo, here.ivo, here.member)
        ]
        assert [(job.lineage, job.parent_id) for job in (lake, remix, take)] == [
            (None, None),
            (Lineage.REMIX, first.id),
            (Lineage.AGAIN, first.id),
        ]
        assert {job.state for job in (first, lake, remix, take)} == {State.DELIVERED}
        assert (kept.state, kept.cause) == (State.UNDELIVERABLE, Cause.NO_PERMISSION)
        texts = [message.content for message in here.channel.history(viewer=here.member)]
        assert demo.WELCOME in texts

        answer = (await demo.act(lambda: here.member.slash(here.channel, "queue"))).response
        assert answer is not None
        await demo.act(lambda: here.member.click(answer.message, label="Post it here"))
        posted = await here.animatic.store.get(kept.id)
        assert posted is not None
        assert posted.state in (State.POSTING, State.DELIVERED)


async def test_the_page_ends_in_the_middle_of_its_past(tmp_path: Path) -> None:
    """Nothing is left running, and nothing is raised."""
    async with demo.open_page(tmp_path, port=0) as opened, asyncio.timeout(60):
        while not await opened.world.animatic.store.open_jobs():  # noqa: ASYNC110 - rows tell nobody
            await asyncio.sleep(0)

    assert opened.history.cancelled()


@pytest.mark.skipif(find_chromium() is None, reason=NO_CHROMIUM)
async def test_a_newcomer_uses_the_page(tmp_path: Path, panorama: Path) -> None:
    """Choose /animate, attach, send; the clip plays; the reaction makes another take."""
    prompt = "camera slowly pulls out"
    async with (
        asyncio.timeout(240),
        demo.open_page(tmp_path, port=0, past=False) as opened,
        chromium() as browser,
    ):
        tab = await open_demo(browser, opened.page.url)
        await animate(tab, prompt=prompt, picture=panorama)
        await clips_shown(tab, prompt, 1)
        assert await play(tab, prompt, 0) > 0

        await press_reaction(tab, prompt, 0)
        await clips_shown(tab, prompt, 2)

        assert await play(tab, prompt, 1) > 0
        assert "here is another take" in await tab.locator("#channel-message-list").inner_text()
