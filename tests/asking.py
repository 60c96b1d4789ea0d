"""Asks for a clip as `/animate` does, for two as `/compare`, or does what a click or a command does, in a process that
may die.

For the kill matrix: `python -m tests.asking CONFIG CHANNEL [compare | cancel JOB | block JOB | …]`.
"""

import asyncio
import sys
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path

from bot import __main__ as root
from bot.config import load
from bot.jobs.announcing import Pictures
from bot.jobs.comparisons import Choice
from bot.jobs.desk import Ask, Who
from bot.jobs.machine import Job
from bot.media.picture import normalise
from bot.providers.base import Picture, PictureRules
from bot.ui import reviews
from tests.servers.discord import GUILD_ID

PICTURE = (Path(__file__).parent / "data" / "harbour.jpg").read_bytes()


async def animate(
    animatic: root.Animatic,
    channel: int,
    prompt: str = "waves",
    *,
    guild: int | None = None,
    attached: bytes = PICTURE,
) -> Job:
    """What `/animate` does with the desk."""
    picture = await normalise(attached, animatic.menu.models["kling"].can.picture)
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


# What members and moderators decide, each about a clip. The asker is 1.


def asker(channel: int) -> Who:
    return Who(id=1, channel_id=channel, guild_id=GUILD_ID)


def member(channel: int) -> Who:
    return replace(asker(channel), id=2)


def moderator(channel: int) -> Who:
    return replace(asker(channel), id=99, moderator=True)


async def block(animatic: root.Animatic, channel: int, job_id: str) -> None:
    job = await animatic.desk.job(job_id)
    await animatic.bot.safety.block(moderator(channel), job.asker_id, "spam", None)


async def unblock(animatic: root.Animatic, channel: int, job_id: str) -> None:
    job = await animatic.desk.job(job_id)
    await animatic.bot.safety.unblock(moderator(channel), job.asker_id)


async def report(animatic: root.Animatic, channel: int, job_id: str) -> bool:
    """Whether the moderators can read of it."""
    safety = animatic.bot.safety
    await safety.report(member(channel), job_id, "other", "look")
    return await reviews.tell_moderators(animatic.bot, await safety.case(job_id))


async def keep(animatic: root.Animatic, channel: int, job_id: str) -> None:
    await animatic.bot.safety.keep(moderator(channel), job_id)


async def remove(animatic: root.Animatic, channel: int, job_id: str) -> None:
    await animatic.bot.safety.remove(moderator(channel), job_id)


async def remove_and_block(animatic: root.Animatic, channel: int, job_id: str) -> None:
    await animatic.bot.safety.remove(moderator(channel), job_id, block=("spam", None))


async def change(animatic: root.Animatic, _channel: int, _job_id: str) -> None:
    await animatic.bot.servers.change(GUILD_ID, most_cents=1)


async def note(animatic: root.Animatic, _channel: int, _job_id: str) -> None:
    await animatic.bot.note(GUILD_ID, ["Somebody has changed the settings."])


async def pause(animatic: root.Animatic, _channel: int, _job_id: str) -> None:
    await animatic.bot.servers.pause(GUILD_ID, True)


async def resume(animatic: root.Animatic, _channel: int, _job_id: str) -> None:
    await animatic.bot.servers.pause(GUILD_ID, False)


async def join(animatic: root.Animatic, _channel: int, _job_id: str) -> None:
    await animatic.bot.servers.joined(GUILD_ID)


async def leave(animatic: root.Animatic, _channel: int, _job_id: str) -> None:
    await animatic.bot.servers.left(GUILD_ID)
    await animatic.desk.leave(GUILD_ID)


async def vote(animatic: root.Animatic, channel: int, job_id: str) -> None:
    job = await animatic.desk.job(job_id)
    await animatic.bot.comparing.vote(member(channel), job.comparison_id or "", Choice.A)


async def reveal(animatic: root.Animatic, channel: int, job_id: str) -> None:
    job = await animatic.desk.job(job_id)
    await animatic.bot.comparing.reveal(asker(channel), job.comparison_id or "")


async def withhold(animatic: root.Animatic, channel: int, _job_id: str) -> None:
    await animatic.desk.withhold_pictures(asker(channel), True)


async def propose(animatic: root.Animatic, channel: int, _job_id: str) -> None:
    comparing, who = animatic.bot.comparing, asker(channel)
    await comparing.propose(who, await comparing.plan(who, "waves", None, None, None))


async def ask_owner(animatic: root.Animatic, channel: int, _job_id: str) -> None:
    await animatic.desk.require_consent(member(channel), asker(channel).id)


async def allow(animatic: root.Animatic, channel: int, _job_id: str) -> None:
    await animatic.desk.allow_pictures(asker(channel), member(channel).id)


async def ask(animatic: root.Animatic, channel: int, _job_id: str) -> None:
    await animate(animatic, channel, guild=GUILD_ID)


async def delete(animatic: root.Animatic, channel: int, job_id: str) -> None:
    desk, who = animatic.desk, asker(channel)
    job = await desk.job(job_id)
    await desk.delete_post(who, job_id, job.post_id or 0)


async def delete_card(animatic: root.Animatic, channel: int, job_id: str) -> None:
    """As the gateway tells of it, when the message is gone."""
    job = await animatic.desk.job(job_id)
    assert job.card_id
    await animatic.bot.http.delete_message(channel, job.card_id)
    await animatic.desk.card_deleted(job.card_id)


async def forget(animatic: root.Animatic, channel: int, _job_id: str) -> None:
    await animatic.desk.forget(asker(channel), posts=True)


Doing = Callable[[root.Animatic, int, str], Awaitable[object]]

ASKED = {"animate": animate, "compare": compare}
DECIDED: dict[str, Doing] = {
    "block": block,
    "unblock": unblock,
    "report": report,
    "tell": report,
    "keep": keep,
    "remove": remove,
    "remove_and_block": remove_and_block,
    "change": change,
    "note": note,
    "pause": pause,
    "resume": resume,
    "join": join,
    "leave": leave,
    "propose": propose,
    "vote": vote,
    "reveal": reveal,
    "withhold": withhold,
    "ask_owner": ask_owner,
    "allow": allow,
    "alert": ask,
    "ask_in_vain": ask,
    "delete": delete,
    "delete_card": delete_card,
    "forget": forget,
}
CLICKED = {"cancel": cancel, "try_again": try_again, "let_go": let_go, "redeliver": redeliver}


async def main(config_path: Path, channel: int, what: str = "animate", *more: str) -> None:
    config = load(config_path)
    root.use_api_base(config)
    async with root.build(config) as animatic, animatic.bot:
        animatic.bot.serves_commands = False
        await root.log_in(animatic.bot, root.required_token(config))
        await {**ASKED, **CLICKED, **DECIDED}[what](animatic, channel, *more)


if __name__ == "__main__":
    asyncio.run(main(Path(sys.argv[1]), int(sys.argv[2]), *sys.argv[3:]))
