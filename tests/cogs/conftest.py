"""The whole bot in a simulated Discord, with a real database and a real gateway on loopback.

    async def test_…(town: Town) -> None:
        await town.animate(town.ada, prompt="waves", picture=PICTURE)   # as a member
        await town.work_until_done()                                    # what the engine does meanwhile
        [post] = town.posts()                                           # what is in the channel

Modules outside this folder take the fixture with `town = conftest.town`.
"""

import asyncio
import io
import random
import tempfile
from collections.abc import AsyncIterator, Iterator
from contextlib import AsyncExitStack, asynccontextmanager
from decimal import Decimal
from functools import cache
from pathlib import Path
from typing import Any

import av
import discord
import pytest
from PIL import Image
from pydantic import SecretStr
from simcord import ChannelHandle, Env, InteractionResult, MemberActor, assert_error
from simcord.backend.models import Overwrite
from simcord.components import walk_components
from simcord.enums import OverwriteType

from bot import __main__ as root
from bot.client import change
from bot.config import (
    Config,
    DataSettings,
    DiscordSettings,
    ModelSettings,
    NetworkSettings,
    RoutesSettings,
    StoreSettings,
)
from bot.errors import Refusal
from bot.jobs.machine import OPEN, Job, State
from bot.providers.makevid import MakevidSettings
from bot.ui.announcer import file_name, media_of
from tests.conftest import new_sqlite
from tests.servers.discord import DiscordServer
from tests.servers.makevid import MakevidServer

ERASE = "Delete for everybody"
POST_BUTTONS = ["Again", "Remix", "Other model", "Continue", "Delete", "Report"]
SETTLE_SECONDS = 10.0  # less than a notice stands: what sleeps longer is left to the simulated clock
STEP_SECONDS = 15.0
MOST_STEPS = 60
MODELS = {
    "kling": ModelSettings(route="makevid", price=Decimal("0.07")),
    "luma": ModelSettings(route="makevid", price=Decimal("0.06")),
    "runway": ModelSettings(route="makevid", price=Decimal("0.05")),
    "sketch": ModelSettings(route="sketch"),
}


@cache
def picture(width: int = 640, height: int = 480, kind: str = "PNG") -> bytes:
    """A picture file with something in it."""
    file = io.BytesIO()
    Image.linear_gradient("L").resize((width, height)).convert("RGB").save(file, kind)
    return file.getvalue()


@cache
def small_clip() -> bytes:
    """A real mp4: ten frames of 64×64, H.264."""
    frames = (Image.new("RGB", (64, 64), (shade, 80, 160)) for shade in range(0, 250, 25))
    return _mp4(frames, (64, 64), {})


@cache
def red_clip() -> bytes:
    """A real mp4 of 480×320 whose ten frames grow redder."""
    frames = (Image.new("RGB", (480, 320), (shade, 80, 160)) for shade in range(0, 250, 25))
    return _mp4(frames, (480, 320), {})


@cache
def large_clip() -> bytes:
    """A real mp4 of more than 5 MB, and less than Discord's 10: noise, hardly compressed."""
    source = random.Random(0)  # noqa: S311 - noise, the same every time
    size = (640, 480)
    frames = (Image.frombytes("RGB", size, source.randbytes(640 * 480 * 3)) for _ in range(20))
    data = _mp4(frames, size, {"preset": "ultrafast", "crf": "10"})
    assert 5.5 < len(data) / 2**20 < 9.5
    return data


def _mp4(frames: Iterator[Image.Image], size: tuple[int, int], options: dict[str, str]) -> bytes:
    # In a file: the index can be moved to the front only there. It spares the bot the repacking.
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "clip.mp4"
        _write_mp4(path, frames, size, options)
        return path.read_bytes()


def _write_mp4(
    path: Path, frames: Iterator[Image.Image], size: tuple[int, int], options: dict[str, str]
) -> None:
    with av.open(path, "w", format="mp4", options={"movflags": "+faststart"}) as container:
        stream = container.add_stream("libx264", rate=10, options=options)
        stream.width, stream.height = size
        stream.pix_fmt = "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_image(frame)))
        container.mux(stream.encode())


class Town:
    """A simulated server with one channel, the bot in it, and people: a member, another, a moderator, and one who
    manages the server."""

    def __init__(self, env: Env, animatic: root.Animatic, config: Config, makevid: MakevidServer) -> None:
        self.env = env
        self.animatic = animatic
        self.config = config
        self.makevid = makevid
        self.now = env.now
        self.guild = env.create_guild("Harbour Film Club")
        self.channel = self.guild.create_text_channel("clips")
        moderators = self.guild.create_role(
            "Moderators", permissions=discord.Permissions(manage_messages=True)
        )
        self.ada = self.guild.add_member(env.create_user("ada"))
        self.bob = self.guild.add_member(env.create_user("bob"))
        self.moderator = self.guild.add_member(env.create_user("noor"), roles=[moderators])
        managers = self.guild.create_role("Managers", permissions=discord.Permissions(manage_guild=True))
        self.manager = self.guild.add_member(env.create_user("mara"), roles=[managers])
        self.running = AsyncExitStack()

    # What people do

    async def animate(
        self,
        member: MemberActor,
        *,
        prompt: str = "waves",
        channel: ChannelHandle | None = None,
        **options: Any,
    ) -> InteractionResult:
        """Use /animate. Pictures are given as bytes, or as a file name and bytes."""
        options = {name: value for name, value in options.items() if value is not None}
        for name in ("picture", "end_picture"):
            if isinstance(options.get(name), bytes):
                options[name] = ("holiday.png", options[name])
        return await member.slash(channel or self.channel, "animate", prompt=prompt, **options)

    async def posted(self, member: MemberActor, **options: Any) -> discord.Message:
        """Let a member ask for a clip, and wait for its post."""
        before = len(self.posts())
        options = {"picture": picture()} | options
        await self.animate(member, **options)
        await self.work_until_done()
        assert len(self.posts()) == before + 1
        return self.posts()[-1]

    async def slash(self, actor: MemberActor, command: str, /, **options: Any) -> InteractionResult:
        """Use a command in the channel."""
        return await actor.slash(self.channel, command, **options)

    async def delete(self, member: MemberActor, post: discord.Message) -> InteractionResult:
        """Press *Delete*, and confirm it."""
        return await member.click(answer_to(await member.click(post, label="Delete")), label=ERASE)

    # What happens meanwhile

    async def work(self) -> None:
        """Let the engine do all that is due now."""
        with self.env.time_context():
            await self.animatic.engine.run_due()
        await self.env.settle()

    async def wait(self, seconds: float) -> None:
        """Time passes, and the engine works at its end."""
        await self.env.advance_time(seconds)
        await self.work()

    async def work_until_done(self) -> None:
        """Work and let time pass until every job has ended, or waits for a person."""
        for _ in range(MOST_STEPS):
            await self.work()
            if not await self.animatic.store.open_jobs(OPEN - {State.UNSURE}):
                return
            await self.env.advance_time(STEP_SECONDS)
        raise AssertionError("a job did not come to its end")

    async def draw_until_done(self) -> None:
        """The same for the route sketch, which really draws: it takes the wall's time as well."""
        for _ in range(300):
            await self.work()
            if not await self.animatic.store.open_jobs():
                return
            await asyncio.sleep(0.1)
            await self.env.advance_time(1)
        raise AssertionError("the sketch was not drawn in time")

    async def restart_quietly(self) -> None:
        """The same, and the new engine has done nothing yet."""
        await self.restart(work=False)

    async def restart(
        self, *, request_timeout: float | None = None, work: bool = True, **changes: Any
    ) -> None:
        """The process ends and a new one begins: same database, same Discord, perhaps another config."""
        if request_timeout is not None:
            makevid = self.config.routes.makevid
            assert makevid
            settings = makevid.model_copy(update={"request_timeout": request_timeout})
            changes["routes"] = self.config.routes.model_copy(update={"makevid": settings})
        self.config = self.config.model_copy(update=changes)
        await self.animatic.engine.hand_back()
        await self.running.aclose()
        self.animatic = await self.running.enter_async_context(
            root.build(self.config, now=self.now, monotonic=lambda: self.now().timestamp())
        )
        await self.env.restart_bot(self.animatic.bot)
        if work:
            await self.work()

    def forbid(self, *names: str, channel: ChannelHandle | None = None) -> None:
        """Take these permissions from the bot in a channel."""
        denied = discord.Permissions(**dict.fromkeys(names, True)).value
        user = self.animatic.bot.user
        assert user
        target = (channel or self.channel).id
        self.env.backend.set_overwrite(target, Overwrite(user.id, OverwriteType.MEMBER, 0, denied))

    # What people see

    def messages(self, channel: ChannelHandle | None = None) -> list[discord.Message]:
        """What the bot has standing in the channel for everybody."""
        bot = self.animatic.bot.user
        assert bot
        history = (channel or self.channel).history(viewer=self.moderator)
        return [message for message in history if message.author.id == bot.id and not message.flags.ephemeral]

    def posts(self, channel: ChannelHandle | None = None) -> list[discord.Message]:
        return [message for message in self.messages(channel) if clip_in(message)]

    def cards(self, channel: ChannelHandle | None = None) -> list[discord.Message]:
        return [
            message
            for message in self.messages(channel)
            if message.flags.components_v2 and not clip_in(message)
        ]

    def card(self) -> discord.Message:
        """The only card in the channel, as it is now."""
        [card] = self.cards()
        return card

    def notices(self) -> list[str]:
        """The bot's plain messages in the channel."""
        return [message.content for message in self.messages() if not message.flags.components_v2]

    def file(self, media: discord.UnfurledMediaItem) -> bytes:
        data = self.env.backend.cdn.get(media.url)
        assert data is not None
        return data

    # What stands in the books

    async def jobs(self) -> list[Job]:
        """All jobs there ever were, oldest first."""
        return await self.animatic.store.open_jobs(tuple(State))

    async def job(self) -> Job:
        [job] = await self.jobs()
        return job

    def refusal(self, result: InteractionResult) -> str:
        """The private sentence with which a command was refused."""
        assert_error(self.env, Refusal)
        return said(result)

    async def nothing_came_of_it(self) -> bool:
        """Nothing queued, nothing paid, nothing shown to anybody else."""
        return not await self.jobs() and not self.makevid.creates and not self.messages()

    def sent(self, method: str, ending: str) -> list[Any]:
        """The JSON of the bot's requests to Discord whose path ends like this."""
        return [
            entry.json
            for entry in self.env.http_requests
            if entry.method == method and entry.path.endswith(ending)
        ]


def said(result: InteractionResult) -> str:
    """The answer to a command or press, which nobody else saw."""
    answers = [*result.followups, *([result.response] if result.response else [])]
    assert answers, "no answer"
    assert all(answer.ephemeral for answer in answers)
    return answers[0].content


def answer_to(result: InteractionResult) -> discord.Message:
    """The message, seen by one person only, that answers a press, with its buttons and menus."""
    [shown] = [*result.followups, *([result.response] if result.response else [])]
    assert shown.ephemeral
    return shown.message


def fields(result: InteractionResult) -> dict[str, Any]:
    """The fields of the modal that a press opened, by custom_id."""
    assert result.modal
    return {
        part["custom_id"]: part for part in walk_components(result.modal["components"]) if "custom_id" in part
    }


def chosen(field: dict[str, Any]) -> list[str]:
    """What is preselected in a select, or stands in a text input."""
    if field["type"] == 4:
        return [field.get("value") or ""]
    return [option["value"] for option in field["options"] if option.get("default")]


def parts_of(message: discord.Message) -> list[dict[str, Any]]:
    """Every component of a message, nested ones included."""
    return list(walk_components([component.to_dict() for component in message.components]))


def text_of(message: discord.Message) -> str:
    return "\n".join(part["content"] for part in parts_of(message) if part["type"] == 10)


def buttons(message: discord.Message) -> list[str]:
    return [part["label"] for part in parts_of(message) if part["type"] == 2]


def pictures_in(message: discord.Message) -> list[discord.UnfurledMediaItem]:
    return [media for media in media_of(message) if not file_name(media).endswith(".mp4")]


def clip_in(message: discord.Message) -> discord.UnfurledMediaItem | None:
    return next((media for media in media_of(message) if file_name(media).endswith(".mp4")), None)


@asynccontextmanager
async def open_town(folder: Path) -> AsyncIterator[Town]:
    clock: list[Env] = []
    async with MakevidServer(clip=small_clip()) as makevid, AsyncExitStack() as running:
        config = Config(
            discord=DiscordSettings(shard_count=1),
            store=StoreSettings(url=SecretStr(new_sqlite(folder / "jobs.db"))),
            data=DataSettings(folder=folder),
            network=NetworkSettings(allow_private_addresses=True),
            routes=RoutesSettings(
                makevid=MakevidSettings(
                    api_key=SecretStr(makevid.api_key), base_url=makevid.base_url, request_timeout=10, slots=2
                )
            ),
            models=MODELS,
        )
        animatic = await running.enter_async_context(
            root.build(config, now=lambda: clock[0].now(), monotonic=lambda: clock[0].now().timestamp())
        )
        env = Env(animatic.bot, settle_timeout=SETTLE_SECONDS)
        clock.append(env)
        await env.start()
        town = Town(env, animatic, config, makevid)
        town.running = running
        try:
            yield town
        finally:
            await env.shutdown()
    # Behind each of these a process has died, see tests/test_kill_matrix.py.
    asked = {change(one.method, one.path) for one in env.http_requests if one.method != "GET"}
    assert asked <= {change(*one) for one in DiscordServer().changing}
    env._raise_errors_since(env._errors_acknowledged)


@pytest.fixture
async def town(tmp_path: Path) -> AsyncIterator[Town]:
    async with open_town(tmp_path) as opened:
        yield opened
