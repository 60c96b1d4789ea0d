"""The built-in route: no account, no bill, no network. What it draws is in `sketch_render`.

Every request is a small file in `folder` until its clip lies beside it, so a task outlives the
process: a `check` that finds a request and nobody drawing it starts it again, which costs nothing.
"""

import asyncio
import json
import os
import re
import shutil
import time
from concurrent.futures import BrokenExecutor, Executor, Future, wait
from contextlib import suppress
from datetime import timedelta
from pathlib import Path

from pydantic import Field

from bot.errors import Cause, ProviderBusy, ProviderRejected
from bot.failpoints import reach
from bot.jobs.machine import Absent, Accepted, Broke, Ready, StillRendering
from bot.providers.base import Capabilities, ClipRequest, Picture, PictureRules
from bot.providers.settings import RouteSettings
from bot.providers.sketch_render import RATIOS, Order, render

_SCHEME = "sketch:"
_TASK = re.compile(r"[A-Za-z0-9_-]{1,64}")
_KEPT = timedelta(days=1)
_KEPT_UNFINISHED = timedelta(days=3)  # longer than a late clip is waited for
_SWEPT_AT_ONCE = 500
_REMEMBERED = 200
_CLOSING_SECONDS = 5.0


class SketchSettings(RouteSettings):
    """[routes.sketch]"""

    enabled: bool = Field(
        default=True, description="Offer the built-in sketch model: free, drawn on this machine"
    )
    slots: int = Field(default=2, ge=1, description="How many sketches are drawn at the same time")

    @property
    def usual_models(self) -> dict[str, str]:
        return {"sketch": "sketch"}


class Sketch:
    """Draws clips in `pool` and keeps them in `folder` for a day. Both belong to the caller."""

    def __init__(self, *, folder: Path, pool: Executor) -> None:
        self._folder = folder
        self._pool = pool
        self._running: dict[str, Future[None]] = {}
        self._variants = {
            "sketch": Capabilities(
                seconds=(5, 10),
                ratios=RATIOS,
                picture=PictureRules(min_side=16, max_side=2048, min_ratio=1 / 10, max_ratio=10.0),
                end_picture=True,
                text_only=True,
                free=True,
                by_ai=False,
                typical=timedelta(seconds=6),
                deadline=timedelta(minutes=5),
                first_poll=timedelta(seconds=1),
                least_poll_gap=timedelta(seconds=0.5),
            )
        }

    @property
    def variants(self) -> dict[str, Capabilities]:
        return self._variants

    async def submit(self, request: ClipRequest) -> Accepted:
        """Keep the request and begin. The task is the request's reference; asking twice draws once."""
        task = request.reference
        if not _TASK.fullmatch(task):
            raise ProviderRejected(Cause.BAD_INPUT, f"a reference that is no file name: {task!r}")
        try:
            await asyncio.to_thread(self._keep, request)
        except OSError as error:
            raise ProviderRejected(Cause.BROKEN, f"cannot write to {self._folder}: {error}") from error
        reach("sketch.kept")
        try:
            await self._begin(task)
        except BrokenExecutor as error:
            raise ProviderRejected(Cause.BROKEN, "the drawing processes died") from error
        except RuntimeError as error:  # the pool is closed: this process is about to end
            raise ProviderBusy("shutting down") from error
        return Accepted(task)

    async def find(self, reference: str) -> Accepted | Absent:
        """Whether the request was kept before the process died that was asked to draw it. Absent, too, where that was on
        another machine: drawn once more, it costs nothing."""
        kept = bool(_TASK.fullmatch(reference)) and await asyncio.to_thread(self._is_kept, reference)
        return Accepted(reference) if kept else Absent()

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        if not _TASK.fullmatch(task):
            return Broke(Cause.CLIP_GONE, charged=False)
        running = self._running.get(task)
        if running is not None and not running.done():
            progress = await asyncio.to_thread(self._progress, task)
            return StillRendering(progress=progress, queued=not running.running())
        self._running.pop(task, None)
        if await asyncio.to_thread(self._file(task, "mp4").exists):
            return Ready(clip_url=_SCHEME + task)
        if running is not None and not running.cancelled() and running.exception() is not None:
            return Broke(Cause.BROKEN, charged=False)
        if not await asyncio.to_thread(self._file(task, "json").exists):
            return Broke(Cause.CLIP_GONE, charged=False)
        try:
            await self._begin(task)
        except (BrokenExecutor, OSError, ValueError, LookupError, TypeError):
            return Broke(Cause.BROKEN, charged=False)
        except RuntimeError:
            pass  # the pool is closed; the next process draws it
        return StillRendering()

    async def fetch(self, clip_url: str, into: Path) -> None:
        task = clip_url.removeprefix(_SCHEME)
        if not clip_url.startswith(_SCHEME) or not _TASK.fullmatch(task):
            raise ProviderRejected(Cause.CLIP_GONE, "not a sketch")
        try:
            await asyncio.to_thread(_copy, self._file(task, "mp4"), into)
        except FileNotFoundError as error:
            raise ProviderRejected(Cause.CLIP_GONE, f"no clip of {task}") from error
        except OSError as error:
            raise ProviderBusy(f"cannot copy the clip: {error}") from error

    async def probe(self) -> None:
        """Nothing can be asked: it is drawn on this machine."""

    async def aclose(self) -> None:
        """Call off what waits, and stop what is being drawn at its next frames; both begin again later."""
        unfinished = {task: future for task, future in self._running.items() if not future.done()}
        for task, future in unfinished.items():
            if not future.cancel():
                self._file(task, "stop").touch()
        drawing = [future for future in unfinished.values() if not future.done()]
        await asyncio.to_thread(wait, drawing, _CLOSING_SECONDS)
        self._running.clear()

    async def _begin(self, task: str) -> None:
        order = await asyncio.to_thread(self._order, task)
        if order is None or (task in self._running and not self._running[task].done()):
            return
        if len(self._running) > _REMEMBERED:
            self._running = {other: future for other, future in self._running.items() if not future.done()}
        order.stop.unlink(missing_ok=True)
        self._running[task] = self._pool.submit(render, order)

    # Files; all of a task's are named after it

    def _file(self, task: str, kind: str) -> Path:
        return self._folder / f"{task}.{kind}"

    def _keep(self, request: ClipRequest) -> None:
        """Write the pictures, then the request that names them: with it, the task exists."""
        self._folder.mkdir(parents=True, exist_ok=True)
        self._sweep()
        task = request.reference
        words = {
            "prompt": request.prompt,
            "seconds": request.seconds,
            "ratio": request.ratio,
            "picture": self._keep_picture(task, "picture", request.picture),
            "end_picture": self._keep_picture(task, "end", request.end_picture),
        }
        _write(self._file(task, "json"), json.dumps(words).encode())

    def _is_kept(self, task: str) -> bool:
        """As a request, or as the clip that came of it."""
        return any(self._file(task, kind).exists() for kind in ("json", "mp4"))

    def _keep_picture(self, task: str, kind: str, picture: Picture | None) -> bool:
        if picture is not None:
            _write(self._file(task, kind), picture.data)
        return picture is not None

    def _order(self, task: str) -> Order | None:
        """What is to be drawn; None where it already is."""
        if self._file(task, "mp4").exists():
            return None
        words = json.loads(self._file(task, "json").read_bytes())
        return Order(
            prompt=words["prompt"],
            seconds=words["seconds"],
            ratio=words["ratio"],
            picture=self._file(task, "picture") if words["picture"] else None,
            end_picture=self._file(task, "end") if words["end_picture"] else None,
            clip=self._file(task, "mp4"),
            progress=self._file(task, "progress"),
            stop=self._file(task, "stop"),
        )

    def _progress(self, task: str) -> float | None:
        try:
            return min(1.0, max(0.0, float(self._file(task, "progress").read_text())))
        except (OSError, ValueError):
            return None  # not begun, or caught in the middle of a write

    def _sweep(self) -> None:
        """Drop the files of clips that are a day old, and of requests that nobody came back for."""
        now = time.time()
        with os.scandir(self._folder) as entries:
            for _, entry in zip(range(_SWEPT_AT_ONCE), entries, strict=False):
                path = Path(entry.path)
                task = path.name.partition(".")[0]
                if not entry.is_file(follow_symlinks=False) or task in self._running:
                    continue
                kept = _KEPT if self._file(task, "mp4").exists() else _KEPT_UNFINISHED
                with suppress(FileNotFoundError):  # another request has just given it its name
                    if now - entry.stat(follow_symlinks=False).st_mtime > kept.total_seconds():
                        path.unlink()


def _write(path: Path, data: bytes) -> None:
    part = path.with_name(f"{path.name}.{os.getpid()}.part")
    try:
        with part.open("wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        part.replace(path)
    finally:
        part.unlink(missing_ok=True)


def _copy(source: Path, into: Path) -> None:
    part = into.with_name(f"{into.name}.{os.getpid()}.part")
    try:
        shutil.copyfile(source, part)
        part.replace(into)
    finally:
        part.unlink(missing_ok=True)
