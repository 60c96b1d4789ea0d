"""The built-in sketches: no server, no key, no network; an own folder and a pool stand for them."""

from collections.abc import AsyncIterator, Callable
from concurrent.futures import Executor, Future
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any, ClassVar, Self

import aiohttp

from bot.providers.base import ClipRequest
from bot.providers.sketch import Sketch
from tests.providers.conftest import picture
from tests.providers.contract import Case, Rig, Setup, apart

ON_THIS_MACHINE = "nothing is sent: it is drawn on this machine, for nothing"
HAPPENS = (Case.CLIP, Case.WAITS, Case.FAILED, Case.PROBED, Case.TWICE)


class Pool(Executor):
    """Does its work when told to, in this very thread."""

    def __init__(self) -> None:
        self.waiting: list[tuple[Future[Any], Callable[[], Any]]] = []
        self.taken = 0

    def submit(self, fn: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Future[Any]:
        future: Future[Any] = Future()
        self.taken += 1
        self.waiting.append((future, lambda: fn(*args, **kwargs)))
        return future

    def work(self) -> None:
        for future, job in self.waiting:
            if future.set_running_or_notify_cancel():
                future.set_result(job())
        self.waiting.clear()


class SketchRig(Rig):
    name = "sketch"
    expects: ClassVar = {Case.TWICE: apart(creates=1)}
    server: Pool
    finds = True
    lacks: ClassVar = {case: ON_THIS_MACHINE for case in Case if case not in HAPPENS}

    @classmethod
    @asynccontextmanager
    async def open(cls, clip: bytes, http: aiohttp.ClientSession, folder: Path) -> AsyncIterator[Self]:
        yield cls(server=Pool(), http=http, folder=folder, clip=None)

    def provider(self, setup: Setup) -> Sketch:
        return Sketch(folder=self.folder, pool=self.server)

    def request(self, reference: str, case: Case) -> ClipRequest:
        return ClipRequest(
            reference=reference, variant="sketch", prompt="zoom in", seconds=5, picture=picture(64, 16)
        )

    @property
    def secrets(self) -> tuple[str, ...]:
        return ()

    @property
    def creates(self) -> int:
        return self.server.taken

    @property
    def tasks(self) -> int:
        return self.server.taken

    def arrange(self, case: Case) -> None:
        if case is Case.FAILED:
            for future, _ in self.server.waiting:
                future.set_exception(ValueError("no such picture"))
            self.server.waiting.clear()

    def between_polls(self) -> None:
        self.server.work()
