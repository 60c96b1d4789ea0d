"""The route `comfyui`: models on the owner's own GPU, through the API of a ComfyUI server (docs.comfy.org).

What a model is stands in a workflow file, see `comfyui_workflow`. A clip costs nothing. The task is named by
us: a UUID made from our reference goes along as `prompt_id`. Servers older than the middle of 2025 ignore that and
name the task themselves; there the same UUID, sent as `client_id`, is what a lost task is found by.

ComfyUI keeps its line and its history in memory: when it is restarted, the tasks in it are gone.
"""

import asyncio
import json
import math
import re
import secrets
from collections.abc import Mapping, Sequence
from concurrent.futures import BrokenExecutor, Executor
from dataclasses import dataclass, replace
from datetime import timedelta
from pathlib import Path
from typing import Annotated, Self
from urllib.parse import quote, urlencode, urlsplit
from uuid import UUID, uuid5

import aiohttp
import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, PrivateAttr, model_validator

from bot.errors import Cause, ProviderBusy, ProviderRejected, ProviderUnsure
from bot.jobs.machine import Absent, Accepted, Broke, Ready, StillRendering
from bot.media.animation import to_clip
from bot.media.clip import NotAClip
from bot.providers.base import Capabilities, ClipRequest, Picture, PictureRules
from bot.providers.comfyui_workflow import Workflow, read_workflow
from bot.providers.http import AFTER_NO_CONNECTION, Answer, File, call, download, masked, retry_after, upload
from bot.providers.settings import WebRouteSettings

log = structlog.get_logger(__name__)

OURS = UUID("5b1b1f7e-6f0c-4a53-9d0a-2f4c1f3a9e10")
FOLDER = "animatic"  # in ComfyUI's own folders for input and output
SCHEME = "comfyui:"
SIDES_MULTIPLE_OF = 32
LAST_TASKS = 20  # among which an old server's is looked for
LARGEST_ANSWER = (
    32 * 1024 * 1024
)  # line and history repeat whole workflows, of others with all that the editor adds
AFTER_FULL = timedelta(seconds=30)
MOST_LISTENERS = 20
LISTENING = timedelta(hours=1)
MOST_STEPPED = 1000  # nodes in one message
MOST_UNKNOWN_WORDS = 20

VIDEOS = frozenset({".mp4", ".m4v", ".mov", ".webm", ".mkv", ".avi"})
ANIMATIONS = frozenset({".webp", ".gif"})


# Settings


def _address(value: str) -> str:
    try:
        parts = urlsplit(value)
        good = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username or parts.query or parts.fragment:
        raise ValueError("must be an http or https address")
    return value.rstrip("/")


def _name(value: str) -> str:
    if not re.fullmatch(r"[a-z0-9_-]{1,32}", value):
        raise ValueError("a workflow's name must be 1 to 32 of a-z, 0-9, - and _, for example wan")
    return value


class WorkflowSettings(BaseModel):
    """[routes.comfyui.workflows.<name>]"""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    file: Path = Field(
        description="The workflow, exported from ComfyUI in API format, with placeholders: see docs/comfyui.md",
        examples=["wan.json"],
    )
    seconds: tuple[Annotated[int, Field(ge=1, le=120)], ...] = Field(
        default=(5,),
        min_length=1,
        max_length=25,
        description="How long its clips can be; the first is the usual",
    )
    frames_per_second: float = Field(
        default=16, ge=1, le=120, description="What {{fps}} is, and {{frames}} for a second"
    )
    width: int = Field(
        default=832, ge=64, le=4096, description="What {{width}} is, for a clip as wide as this is to height"
    )
    height: int = Field(
        default=480, ge=64, le=4096, description="And {{height}}; clips of other shapes have as many pixels"
    )
    minutes: float = Field(
        default=5,
        gt=0,
        le=240,
        description="About how long your GPU takes for one; learned anew from every clip",
    )

    _workflow: Workflow = PrivateAttr()

    @model_validator(mode="after")
    def _read(self) -> Self:
        try:
            workflow = read_workflow(self.file)
        except ValueError as error:
            raise ValueError(f"file = {json.dumps(str(self.file))} {error}") from None
        if len(self.seconds) > 1 and not workflow.names & {"seconds", "frames"}:
            raise ValueError("seconds offers a choice, but the file has neither {{frames}} nor {{seconds}}")
        self._workflow = workflow
        return self

    @property
    def workflow(self) -> Workflow:
        return self._workflow

    @property
    def can(self) -> Capabilities:
        """What the placeholders say that it can do."""
        names = self.workflow.names
        from_picture = "picture" in names
        return Capabilities(
            seconds=self.seconds,
            ratios=("16:9", "9:16", "1:1") if not from_picture and {"width", "height"} <= names else (),
            prompt_length=4000,
            negative_prompt=2000 if "negative" in names else 0,
            picture=PictureRules(max_bytes=20_000_000, min_side=64, min_ratio=0.25, max_ratio=4.0),
            takes_picture=from_picture,
            end_picture="end_picture" in names,
            text_only=not from_picture,
            typical=timedelta(minutes=self.minutes),
            deadline=max(timedelta(minutes=15), timedelta(minutes=6 * self.minutes)),
            first_poll=timedelta(seconds=5),
            least_poll_gap=timedelta(seconds=2),
            free=True,
        )


class ComfyUISettings(WebRouteSettings):
    """[routes.comfyui]"""

    slots: int = Field(
        default=2,
        ge=1,
        description="How many clips at the same time; more than one only waits in ComfyUI's line",
    )
    base_url: Annotated[str, AfterValidator(_address)] = Field(
        default="http://127.0.0.1:8188",
        description="Where your ComfyUI answers; this route may ask a private address, and only this one",
    )
    longest_line: int = Field(
        default=10,
        ge=1,
        description="With so many waiting in ComfyUI's line, whoever sent them, ours wait here",
    )
    workflows: dict[Annotated[str, AfterValidator(_name)], WorkflowSettings] = Field(
        min_length=1, description="The models: one workflow each"
    )

    @property
    def usual_models(self) -> Mapping[str, str]:
        return {name: name for name in self.workflows}


# ComfyUI's words

# A status that is not here proves nothing about a create (408, 409, 303, every 5xx): it is looked up.
_STATUSES: dict[int, Cause] = {
    **dict.fromkeys((400, 413, 422), Cause.BAD_INPUT),
    401: Cause.BAD_KEY,  # 401, 403 and 429 are of a proxy before it
    403: Cause.NOT_ALLOWED,
    **dict.fromkeys((402, 404, 405, 406, 410, 411, 414, 415, 431), Cause.BROKEN),
    **dict.fromkeys((300, 301, 302, 307, 308), Cause.BROKEN),
    429: Cause.BUSY,
}
_SAMPLER = re.compile(r"sampler(?!.*select)", re.IGNORECASE)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Item:
    """A task in ComfyUI's line or history: [number, id, nodes, extra_data, outputs]."""

    id: str
    client: str
    samplers: int

    @classmethod
    def read(cls, value: object) -> Self | None:
        task, nodes, client = _at(value, 1), _at(value, 2), _at(value, 3, "client_id")
        if not isinstance(task, str):
            return None
        kinds = [_at(node, "class_type") for node in nodes.values()] if isinstance(nodes, dict) else []
        samplers = sum(isinstance(kind, str) and bool(_SAMPLER.search(kind)) for kind in kinds)
        return cls(id=task, client=client if isinstance(client, str) else task, samplers=samplers)


@dataclass(frozen=True, slots=True, kw_only=True)
class _Line:
    running: Sequence[_Item]
    waiting: Sequence[_Item]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Listener:
    """What is heard of one running task: the share done of each node that works in steps."""

    hearing: asyncio.Task[None]
    shares: Mapping[str, float]


class ComfyUI:
    """The adapter of one ComfyUI server. `pool` turns animated pictures into clips; it belongs to the caller."""

    def __init__(self, *, http: aiohttp.ClientSession, settings: ComfyUISettings, pool: Executor) -> None:
        self._http = http
        self._settings = settings
        self._pool = pool
        self._listeners: dict[str, _Listener] = {}
        self._hushed: set[asyncio.Task[None]] = set()
        self._unknown_words: set[str] = set()

    @property
    def variants(self) -> dict[str, Capabilities]:
        """The workflows, by the owner's names."""
        return {name: settings.can for name, settings in self._settings.workflows.items()}

    async def upload(self, request: ClipRequest) -> ClipRequest:
        """Upload the pictures, where the workflow asks for them; a task that is there has its own.

        Raises ProviderBusy where ComfyUI's line is long.
        """
        name, picture, end = _task_name(request.reference), request.picture, request.end_picture
        if picture is None or not self._workflow(request).can.takes_picture or await self._known(name):
            return request
        return replace(
            request,
            picture=await self._uploaded(picture, name),
            end_picture=end and await self._uploaded(end, f"{name}-end"),
        )

    async def submit(self, request: ClipRequest) -> Accepted:
        """Queue the workflow; what is there under the same reference is gone on with.

        Raises ProviderBusy where ComfyUI's line is long, and for all that goes wrong before it is queued.
        """
        settings = self._workflow(request)
        name, picture = _task_name(request.reference), request.picture
        # Else its pictures would be uploaded by now.
        was_there = picture and settings.can.takes_picture and not picture.uploaded
        try:
            known = await (self._found(name) if was_there else self._known(name))
        except ProviderUnsure as error:
            raise ProviderBusy(f"not queued: {error.detail}", retry_after=AFTER_NO_CONNECTION) from error
        if known:
            return Accepted(known)
        values = _values(request, settings, name)
        body = {"prompt": settings.workflow.filled(values), "prompt_id": name, "client_id": name}
        answer = await self._call("POST", "/prompt", body)
        _raise_for_error(answer)
        task = _at(answer.body, "prompt_id")
        if not isinstance(task, str) or not task:
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no prompt_id"))
        return Accepted(task)

    async def find(self, reference: str) -> Accepted | Absent:
        """The task under our reference. A `submit` under one that is there makes nothing new."""
        known = await self._found(_task_name(reference))
        return Accepted(known) if known else Absent()

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        """Ask how a task does. One that is neither in the line nor in the history is gone for good."""
        line = await self._line()
        for item in line.running:
            if item.id == task:
                self._listen(item)
                return StillRendering(progress=self._progress(item), queued=False)
        if any(item.id == task for item in line.waiting):
            return StillRendering(queued=True)
        # A task moves from the line to the history in one step, so it was not overlooked between the two.
        entry = await self._entry(task)
        self._hush(task)
        if entry is None:
            log.warning("comfyui_task_gone", task=task)
            return Broke(Cause.BROKEN, charged=False)
        return self._outcome(task, entry)

    async def fetch(self, clip_url: str, into: Path) -> None:
        """Write the clip to `into`, whole or not at all; animated WebP and GIF become mp4."""
        path = clip_url.removeprefix(SCHEME)
        if path == clip_url or not path.startswith("/view?"):
            raise ProviderRejected(Cause.CLIP_GONE, "not a clip of this route")
        if not path.endswith("&animation"):
            await self._download(path, into)
            return
        animation = into.with_name(f".{into.stem}.{secrets.token_hex(4)}.animation")
        try:
            await self._download(path.removesuffix("&animation"), animation, animated=True)
            await asyncio.get_running_loop().run_in_executor(self._pool, to_clip, animation, into)
        except NotAClip as error:
            raise ProviderRejected(Cause.CLIP_UNUSABLE, str(error)) from error
        except (BrokenExecutor, OSError, RuntimeError) as error:  # the clip still waits at ComfyUI
            raise ProviderUnsure(Cause.BROKEN, f"cannot convert the clip: {type(error).__name__}") from error
        finally:
            await asyncio.to_thread(animation.unlink, missing_ok=True)

    async def probe(self) -> None:
        """Is it there, and is it ComfyUI?"""
        answer = await self._call("GET", "/system_stats")
        _raise_for_error(answer)
        if not isinstance(_at(answer.body, "system"), dict):
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "not ComfyUI"))

    async def aclose(self) -> None:
        """Stop listening for progress; the server goes on rendering."""
        for task in list(self._listeners):
            self._hush(task)
        await asyncio.gather(*self._hushed, return_exceptions=True)

    # Asking

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        return await call(
            self._http,
            method,
            self._settings.base_url + path,
            json=body,
            headers={"Accept": "application/json"},
            time_limit=timedelta(seconds=self._settings.request_timeout),
            largest=LARGEST_ANSWER,
        )

    async def _line(self) -> _Line:
        answer = await self._call("GET", "/queue")
        _raise_for_error(answer)
        running, waiting = (_at(answer.body, key) for key in ("queue_running", "queue_pending"))
        if not isinstance(running, list) or not isinstance(waiting, list):
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no queue"))
        return _Line(
            running=[item for each in running if (item := _Item.read(each))],
            waiting=[item for each in waiting if (item := _Item.read(each))],
        )

    async def _entry(self, task: str) -> object | None:
        """What the history has of a task, None where it has nothing."""
        return (await self._history(f"/history/{quote(task, safe='')}")).get(task)

    async def _history(self, path: str) -> Mapping[str, object]:
        answer = await self._call("GET", path)
        _raise_for_error(answer)
        if not isinstance(answer.body, dict):
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no history"))
        return answer.body

    async def _known(self, name: str) -> str | None:
        """The task that we named so, None where there is none. Raises ProviderBusy where no other may come."""
        line = await self._line()
        known = _named(name, line) or await self._finished(name)
        if known is None and len(line.waiting) >= self._settings.longest_line:
            raise ProviderBusy(f"{len(line.waiting)} wait in its line", retry_after=AFTER_FULL)
        return known

    async def _found(self, name: str) -> str | None:
        """The same, also of an older server, which has it under another name when it is done."""
        if known := _named(name, await self._line()) or await self._finished(name):
            return known
        recent = await self._history(f"/history?max_items={LAST_TASKS}")
        ours = (task for task, entry in recent.items() if _at(entry, "prompt", 3, "client_id") == name)
        return next(ours, None)

    async def _finished(self, name: str) -> str | None:
        return None if await self._entry(name) is None else name

    def _workflow(self, request: ClipRequest) -> WorkflowSettings:
        settings = self._settings.workflows.get(request.variant)
        if settings is None:
            raise ProviderRejected(Cause.BAD_INPUT, f"no workflow {request.variant!r} on this route")
        return settings

    async def _uploaded(self, picture: Picture, name: str) -> Picture:
        """The picture with what LoadImage calls it. One that is there under the same name is replaced."""
        answer = await upload(
            self._http,
            f"{self._settings.base_url}/upload/image",
            {"type": "input", "subfolder": FOLDER, "overwrite": "true"},
            File(
                key="image",
                name=f"{name}.{picture.extension}",
                data=picture.data,
                media_type=picture.media_type,
            ),
            time_limit=timedelta(seconds=self._settings.request_timeout),
            allow_private=True,
        )
        _raise_for_error(answer)
        stored, folder = _at(answer.body, "name"), _at(answer.body, "subfolder")
        if not isinstance(stored, str) or not stored:
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no picture"))
        return replace(picture, uploaded=f"{folder}/{stored}" if folder else stored)

    async def _download(self, path: str, into: Path, *, animated: bool = False) -> None:
        """The server's own address alone may be a private one: no redirect is followed."""
        await download(
            self._http,
            self._settings.base_url + path,
            into,
            max_bytes=self._settings.clip_max_bytes,
            time_limit=timedelta(seconds=self._settings.clip_timeout),
            allow_private=True,
            media="image" if animated else "video",
            redirects=0,
        )

    def _outcome(self, task: str, entry: object) -> StillRendering | Ready | Broke:
        """What a finished task's history says. Old servers tell no status."""
        word = _at(entry, "status", "status_str")
        if word == "error":
            log.warning("comfyui_task_failed", task=task, reason=_reason(entry))
            return Broke(Cause.BROKEN, charged=False)
        if word not in (None, "success"):
            if str(word) not in self._unknown_words and len(self._unknown_words) < MOST_UNKNOWN_WORDS:
                self._unknown_words.add(str(word))
                log.warning("comfyui_unknown_status", word=str(word)[:80])
            return StillRendering()
        found = _clip_in(_at(entry, "outputs"), _task_file(entry, task))
        if found is None:
            log.warning("comfyui_no_clip", task=task, hint="does the workflow save a video?")
            return Broke(Cause.BROKEN, charged=False)
        return Ready(SCHEME + found)

    # Listening for progress

    def _listen(self, item: _Item) -> None:
        """Hear of a running task's steps from now on. Where that does not work there is no progress, only polls."""
        if item.id in self._listeners:
            return
        if len(self._listeners) >= MOST_LISTENERS:  # nobody asks for the oldest any more
            self._hush(next(iter(self._listeners)))
        shares: dict[str, float] = {}
        hearing = asyncio.create_task(self._hear(item, shares))
        self._listeners[item.id] = _Listener(hearing=hearing, shares=shares)

    def _hush(self, task: str) -> None:
        if listener := self._listeners.pop(task, None):
            listener.hearing.cancel()
            self._hushed.add(listener.hearing)
            listener.hearing.add_done_callback(self._hushed.discard)

    async def _hear(self, item: _Item, shares: dict[str, float]) -> None:
        address = f"{self._settings.base_url.replace('http', 'ws', 1)}/ws?clientId={quote(item.client)}"
        try:
            async with (
                asyncio.timeout(LISTENING.total_seconds()),
                self._http.ws_connect(address, heartbeat=30) as socket,
            ):
                async for message in socket:
                    if message.type is aiohttp.WSMsgType.TEXT:
                        shares.update(_steps(message.data, item.id))
        except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
            log.info("comfyui_not_listening", task=item.id, error=type(error).__name__)

    def _progress(self, item: _Item) -> float | None:
        """The share of the steps, where all samplers have equally much to do."""
        listener = self._listeners.get(item.id)
        if listener is None or not listener.shares:
            return None
        return sum(listener.shares.values()) / max(len(listener.shares), item.samplers)


def _task_name(reference: str) -> str:
    """Our name for a task; ComfyUI takes only UUIDs."""
    return str(uuid5(OURS, reference))


def _named(name: str, line: _Line) -> str | None:
    """The server's id of the task in its line that we named so."""
    return next((item.id for item in (*line.running, *line.waiting) if name in (item.id, item.client)), None)


def _values(request: ClipRequest, settings: WorkflowSettings, name: str) -> dict[str, str | int | float]:
    """What the placeholders become."""
    rate = settings.frames_per_second
    width, height = _size(request, settings)
    values: dict[str, str | int | float] = {
        "prompt": request.prompt,
        "negative": request.negative_prompt or "",
        "seconds": request.seconds,
        "frames": round(request.seconds * rate) + 1,
        "fps": int(rate) if rate == int(rate) else rate,
        "width": width,
        "height": height,
        "seed": UUID(name).int % 2**32,
        "file": f"{FOLDER}/{name}",
    }
    if "picture" in settings.workflow.names:
        if request.picture is None:
            raise ProviderRejected(Cause.BAD_INPUT, "this workflow needs a picture")
        values["picture"] = _stored(request.picture)
        values["end_picture"] = _stored(request.end_picture or request.picture)
    return values


def _stored(picture: Picture) -> str:
    """What LoadImage calls the picture."""
    if picture.uploaded is None:  # the task was there when it was the picture's turn, and is gone
        raise ProviderBusy("not queued: its picture was not uploaded")
    return picture.uploaded


def _size(request: ClipRequest, settings: WorkflowSettings) -> tuple[int, int]:
    """Width and height with as many pixels as the settings', of the picture's or the chosen shape."""
    shape = settings.width / settings.height
    if request.picture and request.picture.height:
        shape = request.picture.width / request.picture.height
    elif request.ratio and request.ratio != "16:9":  # which is what the settings' own size stands for
        across, down = request.ratio.split(":")
        shape = float(across) / float(down)
    pixels = settings.width * settings.height
    step = SIDES_MULTIPLE_OF
    width, height = (
        max(step, round(side / step) * step)
        for side in (math.sqrt(pixels * shape), math.sqrt(pixels / shape))
    )
    return width, height


def _task_file(entry: object, task: str) -> str:
    """How the file's name begins, where the workflow gives {{file}} to the node that saves the clip."""
    client = _at(entry, "prompt", 3, "client_id")
    return client if isinstance(client, str) else task


def _clip_in(outputs: object, file: str) -> str | None:
    """Where /view has the clip: of several files the one that we named, then a kept one, a video, the last.

    Nodes list what they saved under `images`, `gifs` or `videos`, whatever it is.
    """
    best: tuple[tuple[bool, bool, bool], str] | None = None
    for node in outputs.values() if isinstance(outputs, dict) else ():
        for files in node.values() if isinstance(node, dict) else ():
            for each in files if isinstance(files, list) else ():
                name, folder, kind = (_at(each, key) for key in ("filename", "subfolder", "type"))
                ending = Path(name).suffix.lower() if isinstance(name, str) else ""
                if ending not in VIDEOS | ANIMATIONS:
                    continue
                rank = (str(name).startswith(file), kind != "temp", ending in VIDEOS)
                query = urlencode({"filename": name, "subfolder": folder or "", "type": kind or "output"})
                if best is None or rank >= best[0]:
                    best = rank, f"/view?{query}{'&animation' if ending in ANIMATIONS else ''}"
    return best[1] if best else None


def _reason(entry: object) -> str:
    """For the logs: which node failed, and why; or that somebody stopped it."""
    messages = _at(entry, "status", "messages")
    for message in messages if isinstance(messages, list) else ():
        data = _at(message, 1)
        if _at(message, 0) == "execution_error":
            words = [_at(data, key) for key in ("node_type", "exception_type", "exception_message")]
            return masked(": ".join(str(word).strip() for word in words if word))[:500]
        if _at(message, 0) == "execution_interrupted":
            return "interrupted"
    return "not told"


def _steps(text: str, task: str) -> dict[str, float]:
    """What a message says of a task's steps: `progress` of the node at work, or `progress_state` of all."""
    try:
        message = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    data = _at(message, "data")
    if _at(data, "prompt_id") not in (None, task):
        return {}
    nodes: object = None
    match _at(message, "type"):
        case "progress":
            nodes = {str(_at(data, "node")): data}
        case "progress_state":
            nodes = _at(data, "nodes")
    shares: dict[str, float] = {}
    for node, state in list(nodes.items())[:MOST_STEPPED] if isinstance(nodes, dict) else ():
        value, most = _number(_at(state, "value")), _number(_at(state, "max"))
        if value is not None and most is not None and most > 1:
            shares[str(node)[:80]] = min(max(value / most, 0.0), 1.0)
    return shares


def _at(body: object, *path: str | int) -> object:
    """What stands at a path of keys and places, None where the path ends early."""
    for step in path:
        if isinstance(step, str) and isinstance(body, dict):
            body = body.get(step)
        elif isinstance(step, int) and isinstance(body, list) and len(body) > step:
            body = body[step]
        else:
            return None
    return body


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _raise_for_error(answer: Answer) -> None:
    """Raises what an answer means that refuses. A workflow that ComfyUI finds at fault is a 400."""
    if 200 <= answer.status < 300:
        return
    cause = _STATUSES.get(answer.status, Cause.NO_ANSWER)
    if cause is Cause.BUSY:
        raise ProviderBusy(_detail(answer), retry_after=retry_after(answer.headers))
    if cause is Cause.NO_ANSWER:
        raise ProviderUnsure(cause, _detail(answer))
    raise ProviderRejected(cause, _detail(answer))


def _detail(answer: Answer, lacks: str = "") -> str:
    """For the logs: the status and the beginning of the answer."""
    return f"answered {answer.status}{f', {lacks}' if lacks else ''}: {answer.excerpt}"
