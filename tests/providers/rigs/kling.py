"""Kling's own API: its new standard, and the legacy one with an API key and with an access key."""

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, ClassVar, Self

import aiohttp

from bot.providers.base import ClipRequest
from bot.providers.kling import Kling, KlingApi, KlingLegacy, KlingSettings
from tests.providers.conftest import picture
from tests.providers.contract import USUAL, Case, Rig, Setup, accepted, knob, nothing
from tests.servers.kling import KlingServer

SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
FIRST = ClipRequest(reference="", variant="kling-3.0", prompt="waves", seconds=5, picture=picture())


class _Kling(Rig):
    server: KlingServer
    finds = hears = True
    lacks: ClassVar = {
        Case.CANCELLED: "Kling has no way to cancel a task",
        Case.CLOCK_AHEAD: "an API key is sent as it is: no clock is involved",
        Case.CLOCK_BEHIND: "an API key is sent as it is: no clock is involved",
    }
    knobs: ClassVar = USUAL | {
        Case.BUSY: knob(next_create="1303"),
        Case.BUSY_FOR_A_WHILE: knob(next_create="1302", retry_after="40"),
        Case.MODERATED_AT_ONCE: knob(next_create="1301"),
        Case.NO_CREDIT: knob(next_create="1102"),
        Case.NOT_ALLOWED: knob(next_create="1103"),
        Case.BAD_PICTURE: nothing,
        Case.BAD_PARAMETERS: knob(next_create="1200"),
        Case.WRONG_PATH: knob(next_create="1202"),
        Case.ERROR_500: knob(next_create="5000"),
        Case.ERROR_503: knob(next_create="5001"),
        Case.ERROR_504: knob(next_create="5002"),
        Case.WAITS: knob(next_poll="waits"),
        Case.LATE_404: knob(next_poll="missing"),
        **dict.fromkeys((Case.POLL_500, Case.LOOK_UP_500, Case.MANY_500), knob(next_poll="5000")),
        Case.POLL_503: knob(next_poll="5001"),
        Case.POLL_BUSY: knob(next_poll="1302"),
        Case.POLL_BAD_KEY: knob(next_poll="1002"),
    }
    standard = "new"
    kind: type[KlingApi] = Kling
    variant = "kling-3.0"

    @classmethod
    @asynccontextmanager
    async def open(cls, clip: bytes, http: aiohttp.ClientSession, folder: Path) -> AsyncIterator[Self]:
        async with KlingServer(clip=clip) as server:
            yield cls(server=server, http=http, folder=folder, clip=clip)

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.server.api_key, self.server.secret_key, SECRET, self.bad_key, "signature=")

    def keys(self, setup: Setup) -> dict[str, Any]:
        return {"api_key": setup.key or self.server.api_key}

    def provider(self, setup: Setup) -> KlingApi:
        settings = KlingSettings.model_validate(
            {
                **self.keys(setup),
                "standard": self.standard,
                "webhook_secret": SECRET,
                "base_url": setup.address or self.server.base_url,
                "request_timeout": setup.request_seconds,
                "clip_timeout": setup.clip_seconds,
                "clip_max_bytes": setup.clip_bytes,
            }
        )
        return self.kind(http=self.http, settings=settings, allow_private_addresses=setup.private)

    def request(self, reference: str, case: Case) -> ClipRequest:
        small = case is Case.BAD_PICTURE
        return replace(
            FIRST,
            reference=reference,
            variant=self.variant,
            picture=picture(100, 100) if small else FIRST.picture,
        )

    def callback(self, task: str, case: Case) -> tuple[Mapping[str, str], bytes]:
        at = self.server.now() - (301 if case is Case.TOO_OLD else 0)
        headers, body = self.server.callback(self.server.tasks[task], secrets=[SECRET], at=at)
        return headers, body.replace(b"submitted", b"succeeded") if case is Case.FORGED else body


class New(_Kling):
    name = "kling: new standard"
    batches = True


class Legacy(_Kling):
    name = "kling: legacy, API key"
    standard = "legacy"
    kind = KlingLegacy
    variant = "kling-v3"


class LegacyTokens(Legacy):
    name = "kling: legacy, access key"
    lacks: ClassVar = {Case.CANCELLED: _Kling.lacks[Case.CANCELLED]}
    knobs: ClassVar = _Kling.knobs | {
        Case.CLOCK_AHEAD: knob(clock_ahead=-3600.0),
        Case.CLOCK_BEHIND: knob(clock_ahead=3600.0),
    }
    # The first is refused for the token's times before anything else is looked at.
    expects: ClassVar = dict.fromkeys((Case.CLOCK_AHEAD, Case.CLOCK_BEHIND), accepted().but(creates=2))

    def keys(self, setup: Setup) -> dict[str, Any]:
        return {"access_key": setup.key or self.server.access_key, "secret_key": self.server.secret_key}
