"""Makes docs/demo.png: the demo in headless Chromium, driven as a newcomer would, until a clip plays.

    python scripts/screenshot.py [docs/demo.png]

Needs the extra `dev` and a Chromium (CHROMIUM names it; else it is looked for).
"""

import asyncio
import sys
import tempfile
from pathlib import Path

from bot import demo
from tests.browser import animate, chromium, clips_shown, open_demo, play

PICTURE = Path(__file__).parent.parent / "tests" / "data" / "harbour.jpg"


async def main(out: Path) -> None:
    with tempfile.TemporaryDirectory() as folder:
        async with demo.open_page(Path(folder), port=0) as page, chromium() as browser:
            tab = await open_demo(browser, page.url)
            await animate(tab, prompt="camera slowly pulls out, evening light", picture=PICTURE)
            await clips_shown(tab, 1)
            await play(tab, 0)
            await tab.screenshot(path=out)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1] if len(sys.argv) > 1 else "docs/demo.png")))
