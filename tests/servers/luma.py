"""Luma's two APIs on loopback: they refuse what the documentation refuses, and answer in its shapes.

They know docs.lumalabs.ai with the types of lumaai 1.21 (Dream Machine v1), docs.agents.lumalabs.ai with
those of luma_agents 0.5 (Agents v1), and nothing of our code. The tests tell them how to misbehave:

    async with DreamMachineServer(clip=mp4_bytes) as luma:
        luma.next_create = "429"        # one create call goes wrong, see CREATE_FAULTS
        luma.next_poll = "html"         # one question goes wrong (task, list, balance), see POLL_FAULTS
        luma.next_clip = "truncated"    # one download, see CLIP_FAULTS
        ...
        assert len(luma.creates) == 1   # every create call that arrived, whatever came of it

A task is made at a create, is still running for `polls_until_done` polls, and then done (or failed, if
`fail_with` is set). Nothing here sleeps or looks at a clock.
"""

import asyncio
import base64
import binascii
import io
import json
import uuid
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from PIL import Image, UnidentifiedImageError

# Besides a bare HTTP status such as "503", and "detail:<status>:<words>".
CREATE_FAULTS = {
    "html": "200 with a web page",
    "no_id": "201 with JSON that names no task, but repeats the request",
    "reset_before": "the connection is reset before the request is read; no task",
    "reset_after": "the task is made, then the connection is reset",
    "cut_short": "the task is made, and half of the answer arrives",
    "never": "the task is made, and no answer ever comes",
    "redirect": "302 to another path",
    "echo_key": "401 whose text repeats the key that was sent",
    "huge": "201 with a body of many megabytes",
}
POLL_FAULTS = {
    "html": "200 with a web page",
    "reset": "the connection is reset",
    "never": "no answer ever comes",
    "unknown_word": "a state that is not documented",
    "waits": "the task is still `queued`",
    "no_link": "`completed`, but the link is not there yet",
}
CLIP_FAULTS = {
    "html": "200, text/html",
    "huge": "a Content-Length of a terabyte",
    "endless": "more bytes than any cap, without a Content-Length",
    "truncated": "half of the bytes that Content-Length announces",
    "stuck": "half of the bytes, then silence",
    "redirect_private": "a redirect to `private_address`",
}

PAGE = "<!doctype html><html><head><title>Luma</title></head><body>Dream</body></html>"


@dataclass(frozen=True, kw_only=True)
class Create:
    """One create call that arrived. `body` is None where it was never read, or was no JSON."""

    headers: Mapping[str, str]
    body: Any


@dataclass(kw_only=True)
class Task:
    id: str
    body: dict[str, Any]
    polls: int = 0
    word: str = "queued"
    links: list[str] = field(default_factory=list)  # those that are good


class Refused(Exception):
    """What the documentation refuses, with the sentence for `detail`."""

    def __init__(self, status: int, detail: str) -> None:
        super().__init__(detail)
        self.status = status


class _LumaServer(ABC):
    """On 127.0.0.1 and a free port, as an async context manager."""

    prefix: str
    create_path: str
    running_word: str

    def __init__(self, *, clip: bytes, api_key: str = "luma-test-key", polls_until_done: int = 1) -> None:
        self.clip = clip
        self.api_key = api_key
        self.polls_until_done = polls_until_done
        self.base_url = ""

        self.creates: list[Create] = []
        self.tasks: dict[str, Task] = {}
        self.calls: Counter[str] = Counter()  # "GET /generations/{id}", as often as they arrived

        self.next_create: str | None = None
        self.next_poll: str | None = None
        self.next_clip: str | None = None
        self.retry_after: str | None = None  # sent with every 429
        self.fail_with: str | None = None  # tasks fail, with this reason
        self.private_address = "http://127.0.0.2:9/clip.mp4"

        self._origin = ""
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=128 * 1024 * 1024)
        app.router.add_post(self.prefix + self.create_path, self._create)
        app.router.add_get(self.prefix + "/generations/{id}", self._ask)
        app.router.add_get("/clips/{name}", self._serve_clip)
        self._add_routes(app)
        app.router.add_route("*", "/{path:.*}", self._wrong_path)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        await self._runner.setup()
        await web.TCPSite(self._runner, "127.0.0.1", 0).start()
        host, port = self._runner.addresses[0][:2]
        self._origin = f"http://{host}:{port}"
        self.base_url = self._origin + self.prefix
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        assert self._runner is not None
        await self._runner.cleanup()

    def _add_routes(self, app: web.Application) -> None:  # noqa: B027  # none is the default
        """What this API has besides creating and asking."""

    @abstractmethod
    def _validate(self, body: Any) -> None:
        """Raises Refused."""

    @abstractmethod
    def shape(self, task: Task, *, link: str | None = None) -> dict[str, Any]:
        """A task as the API tells of it."""

    def expire_links(self) -> None:
        """Links given before are refused from now on; the next poll gives a fresh one."""
        for task in self.tasks.values():
            task.links.clear()

    # Creating and asking

    async def _create(self, request: web.Request) -> web.StreamResponse:
        fault, self.next_create = self.next_create, None
        body: Any = None
        if fault != "reset_before":
            try:
                body = await request.json()
            except ValueError:
                body = None
        self.creates.append(Create(headers=request.headers.copy(), body=body))
        if fault == "reset_before":
            return self._reset(request)
        if refused := self._refuse(request, fault):
            return refused
        try:
            self._validate(body)
        except Refused as refusal:
            return self._error(refusal.status, str(refusal))
        match fault:
            case "no_id":
                return web.json_response({"state": "queued", "request": body}, status=201)
            case "redirect":
                return web.Response(status=302, headers={"Location": "/v2/generations"})
            case "echo_key":
                return self._error(401, f"no account for {request.headers.get('Authorization')}")
            case "huge":
                return web.json_response({"padding": "x" * (8 * 1024 * 1024)}, status=201)
        task = Task(id=str(uuid.uuid4()), body=body)
        self.tasks[task.id] = task
        match fault:
            case "reset_after":
                return self._reset(request)
            case "cut_short":
                return await self._half_of(request, json.dumps(self.shape(task)).encode(), "application/json")
            case "never":
                return await self._silence()
        return self._answer(self.shape(task), status=201)

    async def _ask(self, request: web.Request) -> web.StreamResponse:
        self.calls["GET /generations/{id}"] += 1
        fault, self.next_poll = self.next_poll, None
        if (odd := await self._odd(request, fault)) is not None:
            return odd
        task = self.tasks.get(request.match_info["id"])
        if task is None:
            return self._error(404, "Generation not found")
        if fault == "waits":
            return self._answer(self.shape(task))
        task.polls += 1
        link = None
        if fault == "unknown_word":
            task.word = "reticulating"
        elif task.polls <= self.polls_until_done:
            task.word = self.running_word
        elif self.fail_with is not None:
            task.word = "failed"
        else:
            task.word = "completed"
            link = None if fault == "no_link" else self._link(task)
        return self._answer(self.shape(task, link=link))

    def _link(self, task: Task) -> str:
        """A good link: the one there is, until it has expired."""
        if not task.links:
            self._sign(task)
        return task.links[-1]

    def _sign(self, task: Task) -> None:
        signature = f"X-Amz-Expires=3600&X-Amz-Signature={uuid.uuid4().hex}"
        task.links.append(f"{self._origin}/clips/{task.id}.mp4?{signature}")

    # Serving clips

    async def _serve_clip(self, request: web.Request) -> web.StreamResponse:
        self.calls["GET /clips/{name}"] += 1
        fault, self.next_clip = self.next_clip, None
        if fault and fault.isdecimal():
            return web.Response(status=int(fault), headers=self._retry_header(int(fault)))
        match fault:
            case "html":
                return _page()
            case "huge":
                return await self._half_of(request, self.clip, "video/mp4", announced=2**40)
            case "truncated":
                return await self._half_of(request, self.clip, "video/mp4")
            case "endless":
                return await self._endless(request)
            case "stuck":
                return await self._half_of(request, self.clip, "video/mp4", then_silence=True)
            case "redirect_private":
                return web.Response(status=302, headers={"Location": self.private_address})
        if not any(link == self._origin + request.path_qs for t in self.tasks.values() for link in t.links):
            return web.Response(status=403, text="Request has expired", content_type="application/xml")
        return web.Response(body=self.clip, content_type="video/mp4")

    # Answering badly

    async def _odd(self, request: web.Request, fault: str | None) -> web.StreamResponse | None:
        """A refusal or a fault that any question may meet; None where it is answered properly."""
        if refused := self._refuse(request, fault):
            return refused
        match fault:
            case "reset":
                return self._reset(request)
            case "never":
                return await self._silence()
        return None

    def _refuse(self, request: web.Request, fault: str | None) -> web.Response | None:
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return self._error(401, "Invalid API key is provided")
        if fault == "html":
            return _page()
        if fault and fault.isdecimal():
            return self._error(int(fault), f"refused with {fault}")
        if fault and fault.startswith("detail:"):
            _, status, words = fault.split(":", 2)
            return self._error(int(status), words)
        return None

    async def _wrong_path(self, request: web.Request) -> web.Response:
        self.calls[f"{request.method} {request.path}"] += 1
        return self._error(404, "Not Found")

    def _error(self, status: int, detail: str) -> web.Response:
        return self._answer({"detail": detail}, status=status, headers=self._retry_header(status))

    def _answer(
        self, body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        return web.json_response(body, status=status, headers=headers)

    def _retry_header(self, status: int) -> dict[str, str]:
        return {"Retry-After": self.retry_after} if status == 429 and self.retry_after else {}

    def _reset(self, request: web.Request) -> web.Response:
        assert request.transport is not None
        request.transport.abort()
        return web.Response()

    async def _silence(self) -> web.Response:
        await self._closing.wait()
        return web.Response(status=503)

    async def _half_of(
        self,
        request: web.Request,
        body: bytes,
        content_type: str,
        *,
        announced: int | None = None,
        then_silence: bool = False,
    ) -> web.StreamResponse:
        response = web.StreamResponse(
            headers={"Content-Type": content_type, "Content-Length": str(announced or len(body))}
        )
        await response.prepare(request)
        await response.write(body[: len(body) // 2])
        if then_silence:
            await self._closing.wait()
        if request.transport is not None:
            request.transport.close()
        return response

    async def _endless(self, request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "video/mp4"})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            while not self._closing.is_set():
                await response.write(b"\0" * 65536)
        except ConnectionError:
            pass  # the client has had enough, which is the point
        return response


class DreamMachineServer(_LumaServer):
    """Dream Machine v1. `others` are generations of the same account that are not ours, newer than all tasks."""

    prefix = "/dream-machine/v1"
    create_path = "/generations/video"
    running_word = "dreaming"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.credit_balance: Any = 12345.5  # US cents
        self.others: list[dict[str, Any]] = []
        self.most_listed = 100
        self.tells_more = True  # whether the list says has_more
        self.list_is: Any = None  # instead of the list's whole answer

    def _add_routes(self, app: web.Application) -> None:
        app.router.add_get(self.prefix + "/generations", self._list)
        app.router.add_get(self.prefix + "/credits", self._credits)

    def callback(self, task_id: str) -> tuple[Mapping[str, str], bytes]:
        """The headers and body of the POST to `callback_url`: the generation, unsigned."""
        body = json.dumps(self.shape(self.tasks[task_id])).encode()
        return {"Content-Type": "application/json", "User-Agent": "luma"}, body

    async def _list(self, request: web.Request) -> web.StreamResponse:
        """The latest first."""
        self.calls["GET /generations"] += 1
        fault, self.next_poll = self.next_poll, None
        if (odd := await self._odd(request, fault)) is not None:
            return odd
        if self.list_is is not None:
            return self._answer(self.list_is)
        try:
            limit, offset = (
                int(request.query.get(name, usual)) for name, usual in (("limit", 100), ("offset", 0))
            )
        except ValueError:
            return self._error(400, "limit and offset must be integers")
        if limit < 1 or offset < 0:
            return self._error(400, "limit and offset must not be negative")
        limit = min(limit, self.most_listed)
        every = [*self.others, *(self.shape(task) for task in reversed(self.tasks.values()))]
        page = every[offset : offset + limit]
        more = {"has_more": offset + len(page) < len(every)} if self.tells_more else {}
        return self._answer(
            {"generations": page, "count": len(page), "limit": limit, "offset": offset, **more}
        )

    async def _credits(self, request: web.Request) -> web.StreamResponse:
        self.calls["GET /credits"] += 1
        fault, self.next_poll = self.next_poll, None
        if (odd := await self._odd(request, fault)) is not None:
            return odd
        return self._answer({"credit_balance": self.credit_balance})

    def shape(self, task: Task, *, link: str | None = None) -> dict[str, Any]:
        return {
            "id": task.id,
            "generation_type": "video",
            "state": task.word,
            "failure_reason": self.fail_with if task.word == "failed" else None,
            "created_at": "2025-06-24T09:12:33.123Z",
            "model": task.body["model"],
            "assets": {"video": link, "image": "https://cdn.invalid/still.jpg", "progress_video": None}
            if task.word == "completed"
            else None,
            "request": {"generation_type": "video", "loop": False, "aspect_ratio": "16:9", **task.body},
        }

    def _validate(self, body: Any) -> None:
        _object(body, "the body", DREAM_MACHINE_FIELDS)
        _one_of(body, "model", ("ray-2", "ray-flash-2"), required=True)
        _one_of(body, "generation_type", ("video",))
        _one_of(body, "aspect_ratio", ("1:1", "16:9", "9:16", "4:3", "3:4", "21:9", "9:21"))
        _one_of(body, "duration", ("5s", "9s"))
        _one_of(body, "resolution", ("540p", "720p", "1080p", "4k"))
        _is_bool(body, "loop")
        frames: Mapping[str, Any] = {}
        if "keyframes" in body:
            frames = body["keyframes"]
            _object(frames, "keyframes", {"frame0", "frame1"})
            if not frames:
                raise Refused(400, "No keyframes given")
            for name, frame in frames.items():
                _keyframe(name, frame)
        prompt = body.get("prompt")
        if prompt is None and not any(frame["type"] == "image" for frame in frames.values()):
            raise Refused(400, "Prompt is required")
        if prompt is not None and type(prompt) is not str:
            raise Refused(400, "prompt must be a string")
        if prompt is not None and len(prompt) < 3:
            raise Refused(400, "Prompt is too short, minimum length is 3 characters")
        if prompt is not None and len(prompt) > 5000:
            raise Refused(400, "Prompt is too long, maximum length is 5000 characters")
        if body.get("loop") and "frame1" in frames:
            raise Refused(400, "Loop is not supported for end frame or two keyframes")
        for concept in body.get("concepts", []):
            _object(concept, "concepts", {"key"})
            if concept.get("key") not in CONCEPTS:
                raise Refused(400, f"no concept {concept.get('key')!r}")
        if "callback_url" in body and not _is_web_link(body["callback_url"]):
            raise Refused(400, "callback_url must be a URL")


class LumaAgentsServer(_LumaServer):
    """Agents v1. Every look at a finished task signs its link anew. `fail_code` goes with `fail_with`."""

    prefix = "/v1"
    create_path = "/generations"
    running_word = "processing"

    def __init__(self, **settings: Any) -> None:
        super().__init__(**{"api_key": "luma-api-test-key", **settings})
        self.fail_code: str | None = "generation_failed"
        self.output: Any = None  # instead of a finished task's own

    def _link(self, task: Task) -> str:
        self._sign(task)
        return task.links[-1]

    def _answer(
        self, body: Any, *, status: int = 200, headers: Mapping[str, str] | None = None
    ) -> web.Response:
        usual = {"X-API-Version": "2026-04-01", "X-Request-Id": uuid.uuid4().hex}
        return super()._answer(body, status=status, headers={**usual, **(headers or {})})

    def shape(self, task: Task, *, link: str | None = None) -> dict[str, Any]:
        failed = task.word == "failed"
        output = [{"type": "video", "url": link}] if link else []
        return {
            "id": task.id,
            "type": "video",
            "model": "ray-3.2",
            "state": task.word,
            "created_at": "2026-07-10T09:12:33.123Z",
            "output": self.output if self.output is not None and link else output,
            "failure_code": self.fail_code if failed else None,
            "failure_reason": self.fail_with if failed else None,
        }

    def _validate(self, body: Any) -> None:
        _object(body, "the body", {"prompt", "model", "type", "aspect_ratio", "user_id", "video"})
        prompt = body.get("prompt")
        if type(prompt) is not str or not 1 <= len(prompt) <= 6000:
            raise Refused(400, "prompt must have 1 to 6000 characters")
        _one_of(body, "model", ("ray-3.2",), required=True)
        _one_of(body, "type", ("video",), required=True)
        _one_of(body, "aspect_ratio", ("9:16", "3:4", "1:1", "4:3", "16:9", "21:9"))
        video = body.get("video", {})
        _object(video, "video", VIDEO_FIELDS)
        _one_of(video, "resolution", ("360p", "540p", "720p", "1080p"))
        _one_of(video, "duration", ("5s", "10s"))
        _is_bool(video, "loop")
        ten, loop = video.get("duration") == "10s", bool(video.get("loop"))
        framed = video.keys() & {"start_frame", "end_frame"}
        if loop and (ten or "end_frame" in video):
            raise Refused(422, "loop is not supported with 10s, hdr or end_frame")
        if framed and ten:
            raise Refused(422, "start_frame and end_frame are not supported with 10s")
        for name in framed:
            _image(video[name])
        if video.keys() & {"keyframes", "keyframe_indexes"}:
            if framed or loop:
                raise Refused(422, "keyframes exclude start_frame, end_frame and loop")
            self._validate_keyframes(video, 240 if ten else 120)

    def _validate_keyframes(self, video: Mapping[str, Any], last: int) -> None:
        images, places = video.get("keyframes"), video.get("keyframe_indexes")
        if type(images) is not list or type(places) is not list or not 1 <= len(images) <= 64:
            raise Refused(400, "keyframes needs 1 to 64 images, and keyframe_indexes beside them")
        if len(images) != len(places) or len(set(places)) != len(places):
            raise Refused(400, "keyframe_indexes must be unique, and as many as keyframes")
        if not all(type(place) is int and 0 <= place <= last for place in places):
            raise Refused(400, f"keyframe_indexes must be in 0..{last}")
        for image in images:
            _image(image)


# What the documentation refuses.

DREAM_MACHINE_FIELDS = {
    "model",
    "prompt",
    "aspect_ratio",
    "duration",
    "resolution",
    "loop",
    "keyframes",
    "concepts",
    "callback_url",
    "generation_type",
}
VIDEO_FIELDS = {
    "resolution",
    "duration",
    "loop",
    "hdr",
    "exr_export",
    "start_frame",
    "end_frame",
    "keyframes",
    "keyframe_indexes",
}
# As Luma's page at Replicate lists them.
# fmt: off
CONCEPTS = {
    "truck_left", "truck_right", "pan_left", "pan_right", "pedestal_up", "pedestal_down", "tilt_up",
    "tilt_down", "roll_left", "roll_right", "zoom_in", "zoom_out", "push_in", "pull_out", "dolly_zoom",
    "orbit_left", "orbit_right", "crane_up", "crane_down", "aerial", "aerial_drone", "low_angle",
    "high_angle", "eye_level", "ground_level", "over_the_shoulder", "pov", "selfie", "handheld", "static",
    "bolt_cam", "overhead", "elevator_doors", "tiny_planet",
}
# fmt: on
LARGEST_IMAGE = 50 * 1024 * 1024


def _object(value: Any, name: str, fields: set[str]) -> None:
    if type(value) is not dict:
        raise Refused(400, f"{name} must be an object")
    if unknown := value.keys() - fields:
        raise Refused(400, f"{name}: unknown fields {sorted(unknown)}")


def _one_of(body: Mapping[str, Any], name: str, values: tuple[str, ...], *, required: bool = False) -> None:
    if name not in body:
        if required:
            raise Refused(400, f"{name} is required")
    elif body[name] not in values:
        raise Refused(400, f"{name} must be one of {values}")


def _is_bool(body: Mapping[str, Any], name: str) -> None:
    if name in body and type(body[name]) is not bool:
        raise Refused(400, f"{name} must be a boolean")


def _is_web_link(value: Any) -> bool:
    return type(value) is str and value.startswith(("https://", "http://"))


def _keyframe(name: str, frame: Any) -> None:
    """A link, or a generation: neither bytes nor `data:`."""
    _object(frame, name, {"type", "url", "id"})
    match frame:
        case {"type": "image", "url": url, **rest} if not rest and _is_web_link(url):
            return
        case {"type": "generation", "id": str(), **rest} if not rest:
            return
    raise Refused(400, f"{name} must be an image with a public URL, or a generation")


def _image(reference: Any) -> None:
    """Exactly one of four sources; bytes with their type beside them, without `data:` before them."""
    _object(reference, "an image", {"url", "data", "media_type", "file_id", "generation_id"})
    if len(reference.keys() - {"media_type"}) != 1:
        raise Refused(400, "an image is exactly one of url, data, file_id and generation_id")
    if "data" not in reference:
        return
    kinds = {"image/jpeg": "JPEG", "image/png": "PNG", "image/webp": "WEBP"}
    if reference.get("media_type") not in kinds:
        raise Refused(422, "data needs a media_type of an image")
    try:
        data = base64.b64decode(reference["data"], validate=True)
    except (binascii.Error, ValueError):
        raise Refused(422, "data is not valid base64") from None
    if len(data) > LARGEST_IMAGE:
        raise Refused(413, "Image exceeds 50 MB")
    try:
        with Image.open(io.BytesIO(data), formats=(kinds[reference["media_type"]],)) as image:
            image.load()
    except (UnidentifiedImageError, OSError):
        raise Refused(422, "The image could not be decoded as its media_type") from None


def _page() -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")
