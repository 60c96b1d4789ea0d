"""A ComfyUI server: one that takes our name for a task, and an older one that names tasks itself."""

from collections.abc import AsyncIterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar, Self

import aiohttp

from bot.errors import Cause
from bot.providers.base import ClipRequest
from bot.providers.comfyui import ComfyUI, ComfyUISettings
from tests.providers.conftest import picture
from tests.providers.contract import USUAL, Case, Rig, Setup, apart, broke, knob, nothing
from tests.servers.comfyui import ComfyUIServer

EXAMPLE = Path(__file__).parents[3] / "docs" / "comfyui-workflow.json"
NO_KEY = "ComfyUI has no accounts and no keys"
ITS_OWN = "the clip is asked only where the server itself is"


class Current(Rig):
    server: ComfyUIServer
    name = "comfyui"
    uploads = finds = True
    lacks: ClassVar = {
        Case.MODERATED_AT_ONCE: "a model of one's own moderates nothing",
        Case.MODERATED_LATER: "a model of one's own moderates nothing",
        Case.NO_CREDIT: "a clip costs nothing",
        Case.KEY_REPEATED: NO_KEY,
        Case.PROBED_BAD_KEY: NO_KEY,
        Case.CLOCK_AHEAD: NO_KEY,
        Case.CLOCK_BEHIND: NO_KEY,
        Case.LINK_EXPIRED: "its files have no links that expire",
        Case.CLIP_PRIVATE: ITS_OWN,
    }
    knobs: ClassVar = USUAL | {
        Case.BAD_PICTURE: nothing,
        Case.BAD_KEY: knob(next_create="401"),
        Case.UPLOAD_BAD_KEY: knob(next_upload="401"),
        Case.WAITS: knob(next_poll="waits"),
        Case.CANCELLED: knob(next_poll="cancelled"),
        Case.FAILED: knob(fail_with="CUDA out of memory", polls_until_done=0),
    }
    expects: ClassVar = {
        Case.NO_LINK: broke(Cause.BROKEN, False),
        Case.CANCELLED: broke(Cause.BROKEN, False),
        Case.FAILED: broke(Cause.BROKEN, False),
        Case.TWICE: apart(creates=1),
    }

    @classmethod
    @asynccontextmanager
    async def open(cls, clip: bytes, http: aiohttp.ClientSession, folder: Path) -> AsyncIterator[Self]:
        async with ComfyUIServer(clip=clip) as server:
            yield cls(server=server, http=http, folder=folder, clip=clip)

    def provider(self, setup: Setup) -> ComfyUI:
        settings = ComfyUISettings.model_validate(
            {
                "base_url": setup.address or self.server.base_url,
                "workflows": {"wan": {"file": EXAMPLE}},
                "request_timeout": setup.request_seconds,
                "clip_timeout": setup.clip_seconds,
                "clip_max_bytes": setup.clip_bytes,
            }
        )
        return ComfyUI(http=self.http, settings=settings, pool=ThreadPoolExecutor(max_workers=1))

    def request(self, reference: str, case: Case) -> ClipRequest:
        request = ClipRequest(
            reference=reference, variant="wan", prompt="waves", seconds=5, picture=picture()
        )
        if case is Case.BAD_PICTURE:
            assert request.picture
            return replace(request, picture=replace(request.picture, data=b"no picture"))
        return request

    @property
    def secrets(self) -> tuple[str, ...]:
        return ()

    @property
    def tasks(self) -> int:
        return self.server.made


class Older(Current):
    name = "comfyui: older server"

    def provider(self, setup: Setup) -> ComfyUI:
        self.server.old = True
        return super().provider(setup)
