"""Makes the pictures of docs/: the demo in headless Chromium, used as members would, on a phone's width.

    python -m scripts.screenshots [name ...]      of demo, post, card, remix, queue, comparison; all without a name
    python -m scripts.screenshots --all-routes    no pictures: a clip by each of three routes, played in the page

Needs the extra `dev` and a Chromium (CHROMIUM names it; else it is looked for). `SHOTS` says of each picture how
wide the window is, and whether it wants the dear models of all routes or the free sketch: a picture more is
one function and one line there.
"""

import asyncio
import sys
import tempfile
from collections.abc import Awaitable, Callable
from pathlib import Path

from playwright.async_api import Locator, Page

from bot import demo
from tests.browser import (
    add_option,
    animate,
    begin,
    chromium,
    clips_shown,
    compare,
    open_demo,
    play,
    posts_of,
)

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "tests" / "data" / "harbour.jpg"
PHONE, TALL, DESK = (480, 1250), (480, 1700), (1280, 960)  # pixels; as tall as the longest answer
TRIED = ("Kling 3.0", "Ray 3.2", "Gen-4.5")
SEED = "the beam sweeps over the sea"


def say(line: str) -> None:
    sys.stdout.write(line + "\n")


async def main(names: list[str]) -> None:
    for all_routes in (False, True):
        wanted = [name for name in names or SHOTS if SHOTS[name][1] is all_routes]
        if wanted:
            await take_pictures(wanted, all_routes=all_routes)


async def take_pictures(names: list[str], *, all_routes: bool) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with (
            demo.open_page(Path(folder), port=0, all_routes=all_routes) as opened,
            chromium() as browser,
        ):
            await opened.history
            for name in names:
                (width, height), _, take = SHOTS[name]
                tab = await open_demo(browser, opened.page.url, width=width, height=height)
                out = ROOT / "docs" / f"{name}.png"
                await take(tab, out)
                await tab.close()
                say(str(out))


async def overview(tab: Page, out: Path) -> None:
    prompt = "camera slowly pulls out, evening light"
    await animate(tab, prompt=prompt, picture=PICTURE)
    await clips_shown(tab, prompt, 1)
    await play(tab, prompt, 0)
    await posts_of(tab, prompt).first.evaluate("post => post.scrollIntoView({block: 'end'})")
    await tab.mouse.move(0, 0)
    await tab.screenshot(path=out)


async def post(tab: Page, out: Path) -> None:
    await clips_shown(tab, SEED, 1)
    await play(tab, SEED, 0)
    await crop(posts_of(tab, SEED).first, out)


async def card(tab: Page, out: Path) -> None:
    prompt = "gulls circle over the boats"
    await animate(tab, prompt=prompt, picture=PICTURE, model="Ray 3.2")
    waiting = tab.locator(".channel-message").filter(has_text=prompt).filter(has_text="Bringing it to life")
    await waiting.last.wait_for()
    await crop(waiting.last, out)


async def remix(tab: Page, out: Path) -> None:
    await posts_of(tab, SEED).first.get_by_role("button", name="Remix").click()
    modal = tab.locator(".modal-dialog")
    await modal.wait_for()
    await crop(modal, out)


async def queue(tab: Page, out: Path) -> None:
    await animate(tab, prompt="the tide comes in", picture=PICTURE, model="Kling 3.0")
    await tab.get_by_text("On its way").last.wait_for()
    await begin(tab, "queue")
    await tab.keyboard.press("Enter")
    answer = tab.locator(".channel-message").filter(has_text="Post it here").last
    await answer.wait_for()
    await crop(answer, out)


async def comparison(tab: Page, out: Path) -> None:
    prompt = "boats rock on the waves"
    await compare(tab, prompt=prompt, picture=PICTURE, first="kling-3", second="ray-3-2")
    both = posts_of(tab, prompt).last
    await both.get_by_role("button", name="B is better").click(timeout=60_000)
    await tab.get_by_text("Your vote").last.wait_for()
    for video in (both.locator("video").first, both.locator("video").last):
        await video.evaluate(
            "async v => { while (v.readyState < 2) await new Promise(loaded => setTimeout(loaded, 100)); }"
        )
    await crop(both, out)


async def crop(what: Locator, out: Path) -> None:
    """The picture of one part of the page, once its own pictures are there and nothing points at it."""
    await what.scroll_into_view_if_needed()
    await what.page.mouse.move(0, 0)
    await what.evaluate(
        """async part => {
            const missing = () => [...part.querySelectorAll('img')].some(image => !image.naturalWidth);
            for (let tries = 0; tries < 60 && missing(); tries++)
                await new Promise(loaded => setTimeout(loaded, 50));
        }"""
    )
    await what.screenshot(path=out)


SHOTS: dict[str, tuple[tuple[int, int], bool, Callable[[Page, Path], Awaitable[None]]]] = {
    "demo": (DESK, False, overview),
    "post": (PHONE, False, post),
    "card": (PHONE, True, card),
    "remix": (PHONE, True, remix),
    "queue": (PHONE, True, queue),
    "comparison": (TALL, True, comparison),
}


async def all_routes() -> None:
    """Every model stands in the page's list; a clip by each of three routes is made there, and plays."""
    with tempfile.TemporaryDirectory() as folder:
        async with (
            demo.open_page(Path(folder), port=0, all_routes=True) as opened,
            chromium() as browser,
        ):
            tab = await open_demo(browser, opened.page.url)
            await begin(tab, "animate")
            await add_option(tab, "model")
            offered = await tab.locator(".command-popup").get_by_role("option").all_inner_texts()
            await tab.close()
            tab = await open_demo(browser, opened.page.url)
            models = [model.label for model in opened.world.animatic.menu.models.values()]
            if offered != models:
                raise SystemExit(f"offered {offered}, configured {models}")
            say(f"models: {', '.join(offered)}")
            for label in TRIED:
                prompt = f"a clip by {label}"
                await animate(tab, prompt=prompt, picture=PICTURE, model=label)
                await clips_shown(tab, prompt, 1)
                say(f"{label}: plays, {await play(tab, prompt, 0):.2f} s")


if __name__ == "__main__":
    given = sys.argv[1:]
    asyncio.run(all_routes() if given == ["--all-routes"] else main(given))
