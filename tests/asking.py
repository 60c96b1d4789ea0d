"""Asks for a clip as `/animate` does, for two as `/compare`, or does what a click does, in a process that may die.

For the kill matrix: `python -m tests.asking CONFIG CHANNEL [compare | cancel JOB | try_again JOB | …]`.
"""

import asyncio
import sys
from pathlib import Path

from bot import __main__ as root
from bot.config import load
from bot.jobs.announcing import Pictures
from bot.jobs.desk import Ask, Who
from bot.jobs.machine import Job
from bot.media.picture import normalise
from bot.providers.base import Picture, PictureRules
from tests.servers.discord import GUILD_ID

PICTURE = (Path(__file__).parent / "data" / "harbour.jpg").read_bytes()


async def animate(
    animatic: root.Animatic, channel: int, prompt: str = "waves", *, guild: int | None = None
) -> Job:
    """What `/animate` does with the desk."""
    picture = await normalise(PICTURE, animatic.menu.models["kling"].can.picture)
    plan = animatic.desk.plan(Ask(prompt=prompt, has_picture=True))
    who = Who(id=1, channel_id=channel, guild_id=guild)
    return await animatic.desk.request(who, plan, Pictures(first=picture))


async def compare(animatic: root.Animatic, channel: int) -> list[Job]:
    """What `/compare` does, from the question to the press of its button."""
    comparing, who = animatic.bot.comparing, Who(id=1, channel_id=channel, guild_id=GUILD_ID)

    async def fetch(rules: PictureRules) -> Picture:
        return await normalise(PICTURE, rules)

    proposed = await comparing.propose(who, await comparing.plan(who, "waves", None, None, None))
    return await comparing.start(who, proposed.id, fetch)


async def cancel(animatic: root.Animatic, channel: int, job_id: str) -> Job:
    return await animatic.desk.cancel(Who(id=1, channel_id=channel), job_id)


async def try_again(animatic: root.Animatic, channel: int, job_id: str) -> Job:
    return await animatic.desk.try_again(Who(id=1, channel_id=channel), job_id)


async def let_go(animatic: root.Animatic, channel: int, job_id: str) -> Job:
    return await animatic.desk.let_go(Who(id=1, channel_id=channel), job_id)


async def redeliver(animatic: root.Animatic, channel: int, job_id: str) -> Job:
    return await animatic.desk.redeliver(Who(id=1, channel_id=channel), job_id)


ASKED = {"animate": animate, "compare": compare}
CLICKED = {"cancel": cancel, "try_again": try_again, "let_go": let_go, "redeliver": redeliver}


async def main(config_path: Path, channel: int, what: str = "animate", *more: str) -> None:
    config = load(config_path)
    root.use_api_base(config)
    async with root.build(config) as animatic, animatic.bot:
        animatic.bot.serves_commands = False
        await root.log_in(animatic.bot, root.required_token(config))
        await {**ASKED, **CLICKED}[what](animatic, channel, *more)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
