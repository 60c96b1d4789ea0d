"""Asks for one clip as `/animate` does, in a process of its own that may die: for the kill matrix.

`python -m tests.asking CONFIG CHANNEL`
"""

import asyncio
import sys
from pathlib import Path

from bot import __main__ as root
from bot.config import load
from bot.jobs.announcing import Pictures
from bot.jobs.desk import Ask, Who
from bot.media.picture import normalise

DATA = Path(__file__).parent / "data"


async def ask(config_path: Path, channel: int) -> None:
    config = load(config_path)
    root.use_api_base(config)
    async with root.build(config) as animatic, animatic.bot:
        animatic.bot.serves_commands = False
        await root.log_in(animatic.bot, root.required_token(config))
        picture = await normalise(
            (DATA / "harbour.jpg").read_bytes(), animatic.menu.models["kling"].can.picture
        )
        plan = animatic.desk.plan(Ask(prompt="waves", has_picture=True))
        await animatic.desk.request(Who(id=1, channel_id=channel), plan, Pictures(first=picture))


if __name__ == "__main__":
    asyncio.run(ask(Path(sys.argv[1]), int(sys.argv[2])))
