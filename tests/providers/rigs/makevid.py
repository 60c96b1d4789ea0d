"""makevid.ai: its four systems."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import aiohttp
from pydantic import SecretStr

from bot.providers.base import ClipRequest
from bot.providers.makevid import Makevid, MakevidSettings
from tests.providers.conftest import picture
from tests.providers.contract import USUAL, Case, Rig, Setup, knob, nothing
from tests.servers.makevid import MakevidServer

FIRST = ClipRequest(reference="", variant="kling", prompt="waves", seconds=5, picture=picture())


class _Makevid(Rig):
    server: MakevidServer
    lacks: ClassVar = {
        Case.CLOCK_AHEAD: "its key is sent as it is: no clock is involved",
        Case.CLOCK_BEHIND: "its key is sent as it is: no clock is involved",
    }
    knobs: ClassVar = USUAL | {
        Case.WAITS: knob(next_poll="waits"),
        Case.CANCELLED: knob(next_poll="cancelled"),
        Case.MODERATED_AT_ONCE: knob(next_create="moderated"),
    }
    unknown_task = "luma:no-such-task"
    first = FIRST

    @classmethod
    @asynccontextmanager
    async def open(cls, clip: bytes, http: aiohttp.ClientSession, folder: Path) -> AsyncIterator[Self]:
        async with MakevidServer(clip=clip) as server:
            yield cls(server=server, http=http, folder=folder, clip=clip)

    def provider(self, setup: Setup) -> Makevid:
        settings = MakevidSettings(
            api_key=SecretStr(setup.key or self.server.api_key),
            base_url=setup.address or self.server.base_url,
            request_timeout=setup.request_seconds,
            clip_timeout=setup.clip_seconds,
            clip_max_bytes=setup.clip_bytes,
        )
        return Makevid(http=self.http, settings=settings, allow_private_addresses=setup.private)

    def request(self, reference: str, case: Case) -> ClipRequest:
        return replace(self.first, reference=reference)


class KlingPictures(_Makevid):
    name = "makevid: Kling, picture"
    knobs: ClassVar = _Makevid.knobs | {
        Case.BAD_PICTURE: nothing,
        Case.NO_CREDIT: knob(next_create="code:1102"),
    }

    def request(self, reference: str, case: Case) -> ClipRequest:
        request = super().request(reference, case)
        return replace(request, picture=picture(100, 100)) if case is Case.BAD_PICTURE else request


class KlingWords(_Makevid):
    name = "makevid: Kling, words"
    first = replace(FIRST, picture=None, ratio="16:9", quality="720p", camera="zoom in")
    lacks: ClassVar = _Makevid.lacks | {Case.BAD_PICTURE: "a clip from words alone has no picture"}


class Luma(_Makevid):
    name = "makevid: Luma"
    first = replace(FIRST, variant="luma")


class Runway(_Makevid):
    name = "makevid: Runway"
    first = replace(FIRST, variant="runway")
