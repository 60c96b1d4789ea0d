"""makevid.ai on loopback: refuses what its documentation refuses, answers in the documented shapes.

It knows docs.makevid.ai (api-218115434, -218094513, -216272607, -216272872, -216272883, -216272891)
and nothing of our code. The tests tell it how to misbehave:

    async with MakevidServer(clip=mp4_bytes) as makevid:
        makevid.next_create = "429"        # one create call goes wrong, see CREATE_FAULTS
        makevid.next_poll = "html"         # one poll, see POLL_FAULTS
        makevid.next_clip = "truncated"    # one download, see CLIP_FAULTS
        makevid.result_path = 3            # which of the three likely Kling result paths exists
        ...
        assert len(makevid.creates) == 1   # every create call that arrived, whatever came of it

A task is made at a create, is still running for `polls_until_done` polls, and then done (or failed,
if `fail_with` is set). Nothing here sleeps or looks at a clock.
"""

import asyncio
import base64
import binascii
import io
import json
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import web
from PIL import Image, UnidentifiedImageError

IMAGE, TEXT, LUMA, RUNWAY = "image2video", "text2video", "luma", "runway"

CREATE_PATHS = {
    "/api/v1/kling/image2video/create_kling": IMAGE,
    "/api/v1/kling/text2video/create_kling": TEXT,
    "/api/v1/create_luma": LUMA,
    "/api/v1/create_runway": RUNWAY,
}
# Faults that may be written into `next_create`, besides a bare HTTP status such as "503" and
# "code:<number>" (HTTP 200 with that code in Kling's envelope).
CREATE_FAULTS = {
    "html": "200 with a page of the site",
    "no_id": "200 with JSON that names no task",
    "created": "201 instead of 200; the task is made",
    "reset_before": "the connection is reset before the request is read; no task",
    "reset_after": "the task is made, then the connection is reset",
    "cut_short": "the task is made, and half of the answer arrives",
    "never": "the task is made, and no answer ever comes",
    "redirect": "302 to another path",
    "echo_key": "401 whose text repeats the key that was sent",
    "huge": "200 with a body of many megabytes",
    "moderated": "400 whose text names the moderation",
}
POLL_FAULTS = {
    "html": "200 with a page of the site",
    "reset": "the connection is reset",
    "never": "no answer ever comes",
    "unknown_word": "a status word that is not documented",
    "no_link": "success, but the link is not there yet",
    "waits": "it waits for its turn",
    "cancelled": "somebody cancelled it",
}
CLIP_FAULTS = {
    "html": "200, text/html",
    "huge": "a Content-Length of a terabyte",
    "endless": "more bytes than any cap, without a Content-Length",
    "truncated": "half of the bytes that Content-Length announces",
    "stuck": "half of the bytes, then silence",
    "never": "no answer ever comes",
    "untyped": "the clip as application/octet-stream",
    "empty": "200 without a byte",
    "loop": "a redirect to itself",
    "redirect": "a relative redirect to the same clip",
    "redirect_private": "a redirect to `private_address`",
}

PAGE = "<!doctype html><html><head><title>MakeVid</title></head><body>AI video</body></html>"
CREATED_AT = 1726939154945


@dataclass(frozen=True, kw_only=True)
class Create:
    """One create call that arrived. `body` is None where it was never read, or was no JSON."""

    family: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(kw_only=True)
class Task:
    id: str
    family: str
    body: dict[str, Any]
    polls: int = 0
    signature: int = 1


class Invalid(Exception):
    """What the documentation refuses; `str(invalid)` is the message."""


class MakevidServer:
    """The gateway on 127.0.0.1 and a free port, as an async context manager."""

    def __init__(self, *, clip: bytes, api_key: str = "test-key", polls_until_done: int = 1) -> None:
        self.clip = clip
        self.api_key = api_key
        self.polls_until_done = polls_until_done
        self.base_url = ""

        self.creates: list[Create] = []
        self.arrived = asyncio.Event()  # the first of them
        self.tasks: dict[str, Task] = {}
        self.calls: Counter[str] = Counter()  # "POST /path" and "GET /path/{id}", as often as they arrived

        self.next_create: str | None = None
        self.next_poll: str | None = None
        self.next_clip: str | None = None
        self.retry_after: str | None = None  # sent with every 429
        self.result_path = 1
        self.wrong_paths = "404"  # or "405", or "html": the site's page with 200
        self.fail_with: str | None = None  # tasks fail, with this reason
        self.success_word: str | None = None  # instead of the family's own
        self.private_address = "http://127.0.0.2:9/clip.mp4"
        self.links_expire = False
        self.ids = "CmC9rGbtVzEAAAAAADQY-A_{n}"

        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        app.router.add_get("/clips/{name}", self._serve_clip)
        app.router.add_route("*", "/{path:.*}", self._serve_api)
        self._runner = web.AppRunner(app, access_log=None, shutdown_timeout=5)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        host, port = self._runner.addresses[0][:2]
        self.base_url = f"http://{host}:{port}"
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        assert self._runner is not None
        await self._runner.cleanup()

    def expire_links(self) -> None:
        """From now on links given before are refused; the next poll gives a fresh one."""
        self.links_expire = True
        for task in self.tasks.values():
            task.signature += 1

    # Creating

    async def _serve_api(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST" and request.path in CREATE_PATHS:
            return await self._create(request, CREATE_PATHS[request.path])
        if request.method == "GET" and (found := self._task_at(request)):
            return await self._poll(request, *found)
        self.calls[f"{request.method} {request.path}"] += 1
        return self._wrong_path(request)

    async def _create(self, request: web.Request, family: str) -> web.StreamResponse:
        self.calls[f"POST {request.path}"] += 1
        fault, self.next_create = self.next_create, None
        body: Any = None
        if fault != "reset_before":
            try:
                body = await request.json()
            except ValueError:
                body = None
        self.creates.append(
            Create(family=family, path=request.path, headers=request.headers.copy(), body=body)
        )
        self.arrived.set()
        if fault == "reset_before":
            return self._reset(request)
        if not self._authorised(request):
            return self._refusal(family, 401, 1002, "Authorization is invalid")
        if refused := self._faulty_status(request, family, fault):
            return refused
        try:
            VALIDATORS[family](body)
        except Invalid as invalid:
            return self._refusal(family, 400, 1201, str(invalid))
        match fault:
            case "html":
                return _page()
            case "no_id":
                return web.json_response({"code": 0, "message": "SUCCEED", "request_id": "r"})
            case "redirect":
                return web.Response(status=302, headers={"Location": "/api/v2/create"})
            case "echo_key":
                text = f"no account for {request.headers.get('Authorization')}"
                return web.json_response({"code": 1002, "message": text}, status=401)
            case "huge":
                return web.json_response({"padding": "x" * (8 * 1024 * 1024)})
            case "moderated":
                return self._refusal(family, 400, 1301, "Failure to pass the risk control system")
        number = len(self.tasks) + 1
        task = Task(id=self.ids.format(n=number), family=family, body=body)
        self.tasks[task.id] = task
        match fault:
            case "reset_after":
                return self._reset(request)
            case "cut_short":
                return await self._half_of(
                    request, json.dumps(CREATED[family](task)).encode(), "application/json"
                )
            case "never":
                return await self._silence()
        return web.json_response(CREATED[family](task), status=201 if fault == "created" else 200)

    # Polling

    def _task_at(self, request: web.Request) -> tuple[str, str] | None:
        """The family and id that a result path names, None where the path is not one that exists."""
        prefixes = {
            "/api/v1/get_luma/": LUMA,
            "/api/v1/get_runway/": RUNWAY,
            **{
                1: {f"/api/v1/kling/{family}/get_kling/": family for family in (IMAGE, TEXT)},
                2: {f"/api/v1/kling/{family}/": family for family in (IMAGE, TEXT)},
                3: {"/api/v1/get_kling/": "kling"},
            }[self.result_path],
        }
        for prefix, family in prefixes.items():
            rest = request.path.removeprefix(prefix)  # the decoded path: an id may hold any character
            if rest != request.path and rest and not rest.startswith("get_kling/"):
                self.calls[f"GET {prefix}{{id}}"] += 1
                return family, rest
        return None

    async def _poll(self, request: web.Request, family: str, task_id: str) -> web.StreamResponse:
        fault, self.next_poll = self.next_poll, None
        if not self._authorised(request):
            return self._refusal(family, 401, 1002, "Authorization is invalid")
        if refused := self._faulty_status(request, family, fault):
            return refused
        match fault:
            case "html":
                return _page()
            case "reset":
                return self._reset(request)
            case "never":
                return await self._silence()
        task = self.tasks.get(task_id)
        if task is None or (family != "kling" and task.family != family):
            return self._refusal(family, 404, 1201, "task not found")
        task.polls += 1
        if fault in ODD_WORDS:
            return web.json_response(RESULTS[task.family](task, ODD_WORDS[fault][task.family], None, ""))
        running, done, failed = WORDS[task.family]
        if task.polls <= self.polls_until_done:
            return web.json_response(RESULTS[task.family](task, running, None, ""))
        if self.fail_with is not None:
            return web.json_response(RESULTS[task.family](task, failed, None, self.fail_with))
        link = None if fault == "no_link" else self.link(task)
        return web.json_response(RESULTS[task.family](task, self.success_word or done, link, ""))

    def link(self, task: Task) -> str:
        """The signed link to the clip of a task, as the next poll would give it."""
        number = list(self.tasks).index(task.id) + 1
        return f"{self.base_url}/clips/{number}.mp4?X-Amz-Expires=3600&X-Amz-Signature=secret{task.signature}"

    # Serving clips

    async def _serve_clip(self, request: web.Request) -> web.StreamResponse:
        self.calls["GET /clips/{name}"] += 1
        fault, self.next_clip = self.next_clip, None
        if fault and fault.isdecimal():
            return web.Response(status=int(fault), headers=self._retry_header(fault))
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
            case "never":
                return await self._silence()
            case "untyped":
                return web.Response(body=self.clip, content_type="application/octet-stream")
            case "empty":
                return web.Response(body=b"", content_type="video/mp4")
            case "loop":
                self.next_clip = "loop"
                return web.Response(status=302, headers={"Location": request.path_qs})
            case "redirect":
                return web.Response(
                    status=302, headers={"Location": request.path_qs.replace("/clips/", "./")}
                )
            case "redirect_private":
                return web.Response(status=302, headers={"Location": self.private_address})
        if self.links_expire and not any(
            self.link(task).endswith(request.path_qs) for task in self.tasks.values()
        ):
            return web.Response(status=403, text="Request has expired", content_type="application/xml")
        return web.Response(body=self.clip, content_type="video/mp4")

    # Answering badly

    def _authorised(self, request: web.Request) -> bool:
        return request.headers.get("Authorization") == f"Bearer {self.api_key}"

    def _faulty_status(self, request: web.Request, family: str, fault: str | None) -> web.Response | None:
        """A fault that is a bare status or code; None for every other."""
        if fault and fault.isdecimal():
            status = int(fault)
            body = {
                "code": STATUS_CODES.get(status, -1),
                "message": f"refused with {status}",
                "request_id": "r",
            }
            if family in (LUMA, RUNWAY) or body["code"] == -1:
                return web.json_response(
                    {"error": f"refused with {status}"}, status=status, headers=self._retry_header(fault)
                )
            return web.json_response(body, status=status, headers=self._retry_header(fault))
        if fault and fault.startswith("code:"):
            code = int(fault.removeprefix("code:"))
            return web.json_response({"code": code, "message": f"error {code}", "request_id": "r"})
        return None

    def _retry_header(self, fault: str) -> dict[str, str]:
        return {"Retry-After": self.retry_after} if fault == "429" and self.retry_after else {}

    def _refusal(self, family: str, status: int, code: int, message: str) -> web.Response:
        if family in (LUMA, RUNWAY):
            return web.json_response({"error": message}, status=status)
        return web.json_response({"code": code, "message": message, "request_id": "r"}, status=status)

    def _wrong_path(self, request: web.Request) -> web.Response:
        if self.wrong_paths == "html":
            return _page()
        return web.Response(status=int(self.wrong_paths), text=PAGE, content_type="text/html")

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


# The documented shapes.

STATUS_CODES = {400: 1201, 401: 1002, 403: 1103, 429: 1302, 500: 5000, 503: 5001, 504: 5002}

WORDS = {  # running, done, failed
    IMAGE: ("processing", "succeed", "failed"),
    TEXT: ("processing", "succeed", "failed"),
    LUMA: ("processing", "completed", "failed"),
    RUNWAY: ("RUNNING", "SUCCEEDED", "FAILED"),
}

ODD_WORDS: dict[str | None, dict[str, str]] = {
    "unknown_word": dict.fromkeys(WORDS, "reticulating"),
    "waits": {IMAGE: "submitted", TEXT: "submitted", LUMA: "pending", RUNWAY: "THROTTLED"},
    "cancelled": {IMAGE: "cancelled", TEXT: "cancelled", LUMA: "cancelled", RUNWAY: "CANCELLED"},
}


def _page() -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


def _kling(task: Task, word: str, link: str | None, reason: str) -> dict[str, Any]:
    data: dict[str, Any] = {
        "task_id": task.id,
        "task_status": word,
        "created_at": CREATED_AT,
        "updated_at": CREATED_AT + 1000 * task.polls,
    }
    if task.polls:
        data["task_status_msg"] = reason
    if link:
        data["task_result"] = {"videos": [{"id": "v1", "url": link, "duration": "5.1"}]}
    return {"code": 0, "message": "SUCCEED", "request_id": task.id, "data": data}


def _luma(task: Task, word: str, link: str | None, reason: str) -> dict[str, Any]:
    shape = {"width": 1360, "height": 752}
    marked = "https://watermarked.invalid/clip.mp4"
    return {
        "id": task.id,
        "liked": None,
        "state": word,
        "video": {"url": marked, "download_url": marked, **shape} if link else None,
        "prompt": task.body["user_prompt"],
        "user_id": "u1",
        "batch_id": "",
        "thumbnail": None,
        "video_raw": {"url": link, **shape} if link else None,
        "created_at": "2024-09-18T18:47:39.965000Z",
        "last_frame": None,
        "pipeline_id": "V1",
        "queue_state": None,
        "estimate_wait_seconds": None,
        **({"failure_reason": reason} if reason else {}),
    }


def _runway(task: Task, word: str, link: str | None, reason: str) -> dict[str, Any]:
    return {
        "task": {
            "id": task.id,
            "name": "Gen-3 Alpha Turbo",
            "image": None,
            "createdAt": "2024-09-19T06:50:55.123Z",
            "updatedAt": "2024-09-19T06:51:20.338Z",
            "taskType": "gen3a_turbo",
            "options": {
                "seconds": task.body["seconds"],
                "text_prompt": task.body["text_prompt"],
                "init_image": f"{task.body['init_image'].split('?')[0]}?_jwt=secret",
            },
            "status": word,
            "error": {"reason": "FAILED", "message": reason} if reason else None,
            "progressText": None,
            "progressRatio": "1" if link else "0.4" if task.polls else None,
            "estimatedTimeToStartSeconds": 0,
            "artifacts": [{"id": "a1", "url": link, "previewUrls": []}] if link else [],
            "sharedAsset": None,
        },
        "server_id": "server-7",
    }


RESULTS: dict[str, Callable[[Task, str, str | None, str], dict[str, Any]]] = {
    IMAGE: _kling,
    TEXT: _kling,
    LUMA: _luma,
    RUNWAY: _runway,
}
CREATED: dict[str, Callable[[Task], dict[str, Any]]] = {
    IMAGE: lambda task: _kling(task, "submitted", None, ""),
    TEXT: lambda task: _kling(task, "submitted", None, ""),
    LUMA: lambda task: _luma(task, "processing", None, ""),
    RUNWAY: lambda task: _runway(task, "PENDING", None, ""),
}


# What the documentation refuses. A check gets the value and raises Invalid, or says nothing.


@dataclass(frozen=True)
class Rule:
    """One documented field."""

    check: Callable[[Any], None]
    required: bool = field(default=False, kw_only=True)


def _text(value: Any) -> None:
    if type(value) is not str or not value:
        raise Invalid("must be a string")


def _short_text(value: Any) -> None:
    _text(value)
    if len(value) > 200:
        raise Invalid("must not be longer than 200 characters")


def _true_or_false(value: Any) -> None:
    if type(value) is not bool:
        raise Invalid("must be a boolean")


def _seconds(value: Any) -> None:
    if type(value) is not int or value not in (5, 10):
        raise Invalid("must be the integer 5 or 10")


def _fraction(value: Any) -> None:
    if type(value) not in (int, float) or not 0 <= value <= 1:
        raise Invalid("must be in the range [0, 1]")


def _one_of(*values: str) -> Callable[[Any], None]:
    def check(value: Any) -> None:
        if type(value) is not str or value not in values:
            raise Invalid(f"must be one of {values}")

    return check


def _web_link(value: Any) -> None:
    _text(value)
    if not value.startswith(("http://", "https://")):
        raise Invalid("must be a URL")


def _picture(value: Any) -> None:
    """A URL, or base64 of a jpg or png of at most 10 MB, at least 300 px, between 1:2.5 and 2.5:1."""
    _text(value)
    if value.startswith(("http://", "https://")):
        return
    try:
        data = base64.b64decode(value, validate=True)
    except binascii.Error:
        raise Invalid("File is not in a valid base64 format") from None
    if len(data) > 10 * 1024 * 1024:
        raise Invalid("Image is larger than 10MB")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            image.load()
            width, height = image.size
    except (UnidentifiedImageError, OSError):
        raise Invalid("Image is not a jpg, jpeg or png") from None
    if min(width, height) < 300:
        raise Invalid("Image is smaller than 300px")
    if not 1 / 2.5 <= width / height <= 2.5:
        raise Invalid("Image is not between 1:2.5 and 2.5:1")


def _camera(value: Any) -> None:
    """A type of five; for `simple` six numbers in [-10, 10] of which one is not 0, else no config."""
    if type(value) is not dict or value.keys() - {"type", "config"}:
        raise Invalid("must be an object with a type and a config")
    _one_of(*CAMERA_TYPES)(value.get("type"))
    if value["type"] != "simple":
        if "config" in value:
            raise Invalid("config: only with type simple")
        return
    config = value.get("config")
    if type(config) is not dict or config.keys() - set(CAMERA_AXES):
        raise Invalid(f"config: must be an object of {CAMERA_AXES}")
    if any(type(amount) not in (int, float) or not -10 <= amount <= 10 for amount in config.values()):
        raise Invalid("config: must be numbers in the range [-10, 10]")
    if len([amount for amount in config.values() if amount]) != 1:
        raise Invalid("config: exactly one must not be 0")


CAMERA_TYPES = ("simple", "down_back", "forward_up", "right_turn_forward", "left_turn_forward")
CAMERA_AXES = ("horizontal", "vertical", "pan", "tilt", "roll", "zoom")

KLING_RULES = {
    "negative_prompt": Rule(_short_text),
    "cfg_scale": Rule(_fraction),
    "mode": Rule(_one_of("std", "pro")),
    "duration": Rule(_one_of("5", "10")),
}


def _fields(rules: Mapping[str, Rule]) -> Callable[[Any], None]:
    def validate(body: Any) -> None:
        if not isinstance(body, dict):
            raise Invalid("the body must be a JSON object")
        if unknown := body.keys() - rules.keys():
            raise Invalid(f"unknown fields: {sorted(unknown)}")
        for name, rule in rules.items():
            if name not in body:
                if rule.required:
                    raise Invalid(f"{name} is required")
                continue
            try:
                rule.check(body[name])
            except Invalid as invalid:
                raise Invalid(f"{name}: {invalid}") from None

    return validate


def _text2video(body: Any) -> None:
    _fields(
        {
            "prompt": Rule(_text, required=True),
            **KLING_RULES,
            "aspect_ratio": Rule(_one_of("16:9", "9:16", "1:1")),
            "camera_control": Rule(_camera),
        }
    )(body)
    if "camera_control" in body and (body.get("mode", "std") != "std" or body.get("duration", "5") != "5"):
        raise Invalid("camera_control: only with mode std and 5 s")


VALIDATORS: dict[str, Callable[[Any], None]] = {
    IMAGE: _fields(
        {
            "image": Rule(_picture, required=True),
            "image_tail": Rule(_picture),
            "prompt": Rule(_text),
            **KLING_RULES,
        }
    ),
    TEXT: _text2video,
    LUMA: _fields(
        {
            "user_prompt": Rule(_text, required=True),
            "expand_prompt": Rule(_true_or_false, required=True),
            "image_url": Rule(_web_link),
            "image_end_url": Rule(_web_link),
        }
    ),
    RUNWAY: _fields(
        {
            "text_prompt": Rule(_text, required=True),
            "init_image": Rule(_web_link, required=True),
            "seconds": Rule(_seconds, required=True),
            "enhance_prompt": Rule(_true_or_false, required=True),
            "image_as_end_frame": Rule(_true_or_false, required=True),
        }
    ),
}
