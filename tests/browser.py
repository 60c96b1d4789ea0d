"""A headless Chromium that uses the demo's page as a newcomer would."""

import os
import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

from playwright.async_api import Browser, Locator, Page, async_playwright
from playwright.async_api import TimeoutError as PlaywrightTimeoutError

NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")
RENDERED = 90_000  # milliseconds that a clip may take to be drawn, posted and shown


def find_chromium() -> str | None:
    """The browser on this machine: $CHROMIUM, or the first known name on the path."""
    named = os.environ.get("CHROMIUM")
    return named or next((found for name in NAMES if (found := shutil.which(name))), None)


@asynccontextmanager
async def chromium() -> AsyncIterator[Browser]:
    # --no-sandbox: in a container the browser runs as root; it only ever sees the demo's own page.
    quiet = ["--no-sandbox", "--disable-gpu", "--disable-background-networking", "--disable-sync"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(
            executable_path=find_chromium(), args=[*quiet, "--disable-component-update"]
        )
        try:
            yield browser
        finally:
            await browser.close()


async def open_demo(browser: Browser, url: str, *, width: int = 1280, height: int = 960) -> Page:
    tab = await browser.new_page(viewport={"width": 1280, "height": 960})
    tab.set_default_timeout(15_000)
    await tab.goto(url)
    await tab.locator("#channel-composer-input").wait_for()
    if (width, height) != (
        1280,
        960,
    ):  # the page fits itself to a window that changes, not to one it opens in
        await tab.set_viewport_size({"width": width, "height": height})
        await tab.get_by_text("Updating viewport").wait_for(state="hidden")
    return tab


async def begin(tab: Page, command: str) -> None:
    """Choose a slash command in the composer."""
    composer = tab.locator("#channel-composer-input")
    await composer.fill(f"/{command}")
    await tab.locator(".command-popup").get_by_role("option").first.wait_for()
    await composer.press("Enter")


async def add_option(tab: Page, name: str) -> None:
    """Choose one more option of the command in the composer, from the list under *more*."""
    await tab.locator(".command-ghost").click()
    await tab.locator(".command-popup").get_by_role("option").filter(has_text=name).first.click()


async def animate(tab: Page, *, prompt: str, picture: Path, model: str | None = None) -> None:
    """Choose /animate, write the prompt, attach the picture, choose a model by its label, send."""
    await begin(tab, "animate")
    await tab.locator("input[data-option=prompt]").fill(prompt)
    await add_option(tab, "picture")
    await tab.locator("input[type=file][data-option=picture]").set_input_files(picture)
    if model:
        await choose(tab, "model", model)
    await tab.locator("#send-message").click()


async def compare(tab: Page, *, prompt: str, picture: Path, first: str, second: str) -> None:
    """Choose /compare, fill it in with two models by their names, send, and press what costs."""
    await begin(tab, "compare")
    await tab.locator("input[data-option=prompt]").fill(prompt)
    await tab.locator("input[type=file][data-option=picture]").set_input_files(picture)
    for option, model in (("first", first), ("second", second)):
        await add_option(tab, option)
        await tab.locator(f"input[data-option={option}]").fill(model)
    await tab.locator("#send-message").click()
    await tab.get_by_role("button", name="Compare").last.click()


async def choose(tab: Page, option: str, value: str) -> None:
    """Add an option of the command in the composer, and choose its value from the list."""
    await add_option(tab, option)
    options = tab.locator(".command-popup").get_by_role("option")
    await options.get_by_text(value, exact=True).click()


def posts_of(tab: Page, prompt: str) -> Locator:
    """The messages with a clip of this prompt, oldest first."""
    posts = tab.locator(".channel-message").filter(has=tab.locator("video"))
    return posts.filter(has_text=prompt)


async def clips_shown(tab: Page, prompt: str, count: int) -> None:
    """Wait until so many clips of this prompt stand in the channel, loaded far enough to play."""
    for number in range(count):
        video = posts_of(tab, prompt).nth(number).locator("video")
        await video.wait_for(timeout=RENDERED)
        await video.evaluate(
            """async video => {
                while (!(video.readyState >= 1 && video.duration > 2))
                    await new Promise(loaded => setTimeout(loaded, 100));
            }"""
        )


async def play(tab: Page, prompt: str, number: int) -> float:
    """Play a clip for a moment; the position in seconds that it reached."""
    video = posts_of(tab, prompt).nth(number).locator("video")
    position: float = await video.evaluate(
        """async video => {
            video.muted = true;
            await video.play();
            await new Promise(moved => video.addEventListener('timeupdate', moved, {once: true}));
            video.pause();
            return video.currentTime;
        }"""
    )
    return position


async def press_reaction(tab: Page, prompt: str, number: int) -> None:
    """Press the 🔁 under the message that holds a clip."""
    message = posts_of(tab, prompt).nth(number)
    chip = message.locator(".reaction-chip")
    pressed = message.locator(".reaction-chip[aria-pressed=true]")
    for _ in range(10):  # the page turns away what was pressed in the very moment of a refresh
        await chip.click()
        try:
            await pressed.wait_for(timeout=3_000)
        except PlaywrightTimeoutError:
            continue
        return
    raise AssertionError("the reaction was never taken")
