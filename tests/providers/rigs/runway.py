"""Runway's own API: a clip from a picture in the request, from one that is uploaded first, and from words."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import aiohttp
from pydantic import SecretStr

from bot.errors import Cause
from bot.providers.base import ClipRequest
from bot.providers.runway import Runway, RunwaySettings
from tests.providers.conftest import heavy, picture
from tests.providers.contract import UPLOAD, USUAL, Case, Rig, Setup, broke, knob, nothing
from tests.servers.runway import RunwayServer


class RunwayPictures(Rig):
    server: RunwayServer
    name = "runway: picture"
    uploads = True
    lacks: ClassVar = {
        Case.MODERATED_AT_ONCE: "Runway moderates tasks that it has taken",
        Case.CLOCK_AHEAD: "its key is sent as it is: no clock is involved",
        Case.CLOCK_BEHIND: "its key is sent as it is: no clock is involved",
    }
    knobs: ClassVar = USUAL | {
        Case.NO_CREDIT: knob(next_create="no_credit"),
        Case.BAD_PICTURE: nothing,
        Case.WAITS: knob(next_poll="throttled"),
        Case.CANCELLED: knob(next_poll="cancelled"),
        Case.FAILED: knob(fail_with="INTERNAL.BAD_OUTPUT.CODE01", failures_cost=False, polls_until_done=0),
        Case.MODERATED_LATER: knob(fail_with="SAFETY.INPUT.TEXT", polls_until_done=0),
    }
    expects: ClassVar = {
        Case.MODERATED_LATER: broke(Cause.MODERATION, True),
        Case.FAILED: broke(Cause.BROKEN, False),
        Case.CANCELLED: broke(Cause.BROKEN, False),
    }
    first: ClassVar = ClipRequest(
        reference="", variant="gen4.5", prompt="waves", seconds=5, ratio="1:1", picture=picture()
    )

    @classmethod
    @asynccontextmanager
    async def open(cls, clip: bytes, http: aiohttp.ClientSession, folder: Path) -> AsyncIterator[Self]:
        async with RunwayServer(clip=clip) as server:
            yield cls(server=server, http=http, folder=folder, clip=clip)

    def provider(self, setup: Setup) -> Runway:
        settings = RunwaySettings(
            api_key=SecretStr(setup.key or self.server.api_key),
            base_url=setup.address or self.server.base_url,
            request_timeout=setup.request_seconds,
            clip_timeout=setup.clip_seconds,
            clip_max_bytes=setup.clip_bytes,
        )
        return Runway(http=self.http, settings=settings, allow_private_addresses=setup.private)

    def request(self, reference: str, case: Case) -> ClipRequest:
        request = replace(self.first, reference=reference)
        if case in UPLOAD:
            return replace(request, picture=heavy())
        return replace(request, picture=picture(600, 100)) if case is Case.BAD_PICTURE else request


class RunwayWords(RunwayPictures):
    name = "runway: words"
    lacks: ClassVar = RunwayPictures.lacks | dict.fromkeys(
        (Case.BAD_PICTURE, *UPLOAD), "a clip from words alone has no picture"
    )
    first: ClassVar = replace(RunwayPictures.first, picture=None, ratio="9:16")
