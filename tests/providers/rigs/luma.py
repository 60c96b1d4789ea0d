"""Luma: Dream Machine with a callback address and with a tag instead, and Agents in its two ways to send pictures."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import aiohttp
from pydantic import SecretStr

from bot.errors import Cause
from bot.providers.base import ClipRequest
from bot.providers.luma import Luma, LumaAgents, LumaAgentsSettings, LumaSettings
from tests.providers.conftest import picture
from tests.providers.contract import USUAL, Case, Rig, Setup, broke, knob, nothing
from tests.servers.luma import DreamMachineServer, LumaAgentsServer

CALLBACK_SECRET = "0123456789abcdef"
NO_CLOCK = "its key is sent as it is: no clock is involved"
LACKS = {
    Case.CLOCK_AHEAD: NO_CLOCK,
    Case.CLOCK_BEHIND: NO_CLOCK,
    Case.CANCELLED: "it has no state for that",
}
KNOBS = USUAL | {
    Case.CREATED_201: nothing,  # as always
    Case.WAITS: knob(next_poll="waits"),
    Case.MODERATED_AT_ONCE: knob(next_create="detail:400:Advanced prompt moderation failed"),
}


class _DreamMachine(Rig):
    server: DreamMachineServer
    finds = hears = True
    lacks: ClassVar = LACKS | {
        Case.ABSENT: "it would not refuse a second create, so what is not found may be there",
        Case.TWICE: "it takes no name of ours for a task",
        Case.FORGED: "it signs nothing: the secret is in the address, which is the server's to check",
        Case.TOO_OLD: "its callbacks carry no time",
    }
    knobs: ClassVar = KNOBS
    expects: ClassVar = {
        Case.FAILED: broke(Cause.BROKEN, False),
        Case.MODERATED_LATER: broke(Cause.MODERATION, False),
    }

    @classmethod
    @asynccontextmanager
    async def open(cls, clip: bytes, http: aiohttp.ClientSession, folder: Path) -> AsyncIterator[Self]:
        async with DreamMachineServer(clip=clip) as server:
            yield cls(server=server, http=http, folder=folder, clip=clip)

    @property
    def secrets(self) -> tuple[str, ...]:
        return (*super().secrets, CALLBACK_SECRET, "ex=1")

    def provider(self, setup: Setup) -> Luma:
        settings = LumaSettings(
            api_key=SecretStr(setup.key or self.server.api_key),
            base_url=setup.address or self.server.base_url,
            tag_url="https://animatic.invalid/tags",
            request_timeout=setup.request_seconds,
            clip_timeout=setup.clip_seconds,
            clip_max_bytes=setup.clip_bytes,
        )
        return Luma(http=self.http, settings=settings, allow_private_addresses=setup.private)

    def callback(self, task: str, case: Case) -> tuple[Mapping[str, str], bytes]:
        return self.server.callback(task)


class DreamMachinePictures(_DreamMachine):
    name = "luma: Dream Machine, pictures, callback"
    first = ClipRequest(
        reference="",
        variant="ray-2",
        prompt="waves",
        seconds=9,
        quality="1080p",
        camera="push in",
        picture=picture(),
        end_picture=picture(link="https://cdn.invalid/b.png?ex=1"),
    )

    def request(self, reference: str, case: Case) -> ClipRequest:
        callback = f"https://clips.invalid/callbacks/luma/{reference}/{CALLBACK_SECRET}"
        return replace(self.first, reference=reference, callback=callback if reference else None)


class DreamMachineWords(_DreamMachine):
    name = "luma: Dream Machine, words, tag"
    lacks: ClassVar = _DreamMachine.lacks | {Case.BAD_PICTURE: "a clip from words alone has no picture"}

    def request(self, reference: str, case: Case) -> ClipRequest:
        return ClipRequest(
            reference=reference,
            variant="ray-flash-2",
            prompt="waves",
            seconds=5,
            quality="540p",
            ratio="9:21",
            loop=True,
        )


class _Agents(Rig):
    server: LumaAgentsServer
    lacks: ClassVar = LACKS
    knobs: ClassVar = KNOBS | {
        Case.MODERATED_LATER: knob(
            fail_with="against the rules", fail_code="content_moderated", polls_until_done=0
        ),
        Case.BAD_PICTURE: nothing,
    }
    expects: ClassVar = {
        Case.FAILED: broke(Cause.BROKEN, None),
        Case.MODERATED_LATER: broke(Cause.MODERATION, None),
    }
    seconds: ClassVar[int]

    @classmethod
    @asynccontextmanager
    async def open(cls, clip: bytes, http: aiohttp.ClientSession, folder: Path) -> AsyncIterator[Self]:
        async with LumaAgentsServer(clip=clip) as server:
            yield cls(server=server, http=http, folder=folder, clip=clip)

    def provider(self, setup: Setup) -> LumaAgents:
        settings = LumaAgentsSettings(
            api_key=SecretStr(setup.key or self.server.api_key),
            base_url=setup.address or self.server.base_url,
            request_timeout=setup.request_seconds,
            clip_timeout=setup.clip_seconds,
            clip_max_bytes=setup.clip_bytes,
        )
        return LumaAgents(http=self.http, settings=settings, allow_private_addresses=setup.private)

    def request(self, reference: str, case: Case) -> ClipRequest:
        shown = picture()
        if case is Case.BAD_PICTURE:
            shown = replace(shown, data=shown.data[:-40])
        return ClipRequest(
            reference=reference,
            variant="ray-3.2",
            prompt="waves",
            seconds=self.seconds,
            quality="360p",
            picture=shown,
        )


class AgentsFrames(_Agents):
    name = "luma_agents: 5 s, start frame"
    seconds = 5


class AgentsKeyframes(_Agents):
    name = "luma_agents: 10 s, keyframe"
    seconds = 10
