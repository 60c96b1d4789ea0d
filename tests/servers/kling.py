"""Kling's own API on loopback, both of its standards: refuses what its documentation refuses.

It knows kling.ai/document-api (image-to-video and text-to-video of 3.0, 3.0 Turbo, 2.6 and 2.5 Turbo; the
legacy /v1/videos; authentication, error codes, concurrency rules, callbacks, account usage), and nothing of
our code. The tests tell it how to misbehave:

    async with KlingServer(clip=mp4_bytes) as kling:
        kling.next_create = "code:1303"    # one create call goes wrong, see CREATE_FAULTS
        kling.next_poll = "5000"           # one query, see POLL_FAULTS
        kling.next_clip = "truncated"      # one download, see CLIP_FAULTS
        kling.clock_ahead = -3600          # its clock, seconds before ours
        kling.slots = 1                    # more tasks at a time are refused with 1303
        kling.hidden_for = 1               # queries that do not know a new task yet
        kling.silent = True                # queries by the caller's id are answered with 5001
        kling.forgets = True               # no task is known any more
        ...
        assert len(kling.creates) == 1     # every create call that arrived, whatever came of it
        headers, body = kling.callback(task, secrets=["whsec_…"])

A task is made at a create, is still being made for `polls_until_done` queries by its id (those by the
caller's id move nothing), and then done, or failed if `fail_with` is set. Nothing here sleeps.
"""

import asyncio
import base64
import binascii
import hashlib
import hmac
import io
import json
import time
from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from email.utils import formatdate
from types import TracebackType
from typing import Any, Self

import jwt
from aiohttp import web
from PIL import Image, UnidentifiedImageError

NEW, LEGACY = "new", "legacy"
TEXT, IMAGE = "text", "image"
NEW_FAMILIES = {"text-to-video": TEXT, "image-to-video": IMAGE}
LEGACY_FAMILIES = {"text2video": TEXT, "image2video": IMAGE}

# HTTP status and words of every documented code.
ERRORS = {
    1000: (401, "Authentication failed"),
    1001: (401, "Authorization is empty"),
    1002: (401, "Authorization is invalid"),
    1003: (401, "Authorization is not yet valid"),
    1004: (401, "Authorization has expired"),
    1100: (429, "Abnormal account status"),
    1101: (429, "Account in arrears"),
    1102: (429, "Account balance not enough"),
    1103: (403, "Unauthorized access to requested resource"),
    1200: (400, "Invalid request parameters"),
    1201: (400, "Invalid parameters"),
    1202: (404, "The requested method is invalid"),
    1203: (404, "The requested resource does not exist"),
    1300: (400, "Request blocked by platform policy"),
    1301: (400, "Failure to pass the risk control system"),
    1302: (429, "Too many requests"),
    1303: (429, "parallel task over resource pack limit"),
    1304: (429, "Trigger the platform's IP whitelist policy"),
    5000: (500, "Server internal error"),
    5001: (503, "Server temporarily unavailable"),
    5002: (504, "Server internal timeout"),
}
# Faults for `next_create`, besides a documented code such as "1303", the same with the status 200
# ("code:1303"), and a bare HTTP status such as "503", as a proxy before the API gives it.
CREATE_FAULTS = {
    "html": "200 with a page of the site",
    "no_id": "200 with JSON that names no task",
    "reset_before": "the connection is reset before the request is read; no task",
    "reset_after": "the task is made, then the connection is reset",
    "lost:5002": "the task is made, and a documented code is answered",
    "cut_short": "the task is made, and half of the answer arrives",
    "never": "the task is made, and no answer ever comes",
    "redirect": "302 to another path",
    "echo_key": "401 whose text repeats the key that was sent",
    "huge": "200 with a body of many megabytes",
    "created": "201 instead of 200; the task is made",
}
POLL_FAULTS = {
    "html": "200 with a page of the site",
    "reset": "the connection is reset",
    "never": "no answer ever comes",
    "unknown_word": "a status word that is not documented",
    "waits": "the task waits for its turn",
    "no_link": "success, but the link is not there yet",
    "missing": "the task is not known (any more)",
    "stranger": "the task that is told of has another external id",
}
CLIP_FAULTS = {
    "html": "200, text/html",
    "huge": "a Content-Length of a terabyte",
    "endless": "more bytes than any cap, without a Content-Length",
    "truncated": "half of the bytes that Content-Length announces",
    "stuck": "half of the bytes, then silence",
    "untyped": "the clip as application/octet-stream",
    "redirect_private": "a redirect to `private_address`",
}

PAGE = "<!doctype html><html><head><title>Kling AI</title></head><body>502 Bad Gateway</body></html>"
CREATED_AT = 1781080778802
FIRST_ID = 893605946402811985
MOST_IDS = 20


@dataclass(frozen=True, kw_only=True)
class Create:
    """One create call that arrived. `body` is None where it was never read, or was no JSON."""

    standard: str
    path: str
    headers: Mapping[str, str]
    body: Any


@dataclass(kw_only=True)
class Task:
    id: str
    standard: str
    family: str
    model: str
    external_id: str | None
    callback_url: str | None
    body: dict[str, Any]
    polls: int = 0
    unseen: int = 0
    signature: int = 1
    word: str = "submitted"
    reason: str = ""
    link: str | None = None

    @property
    def over(self) -> bool:
        return self.word in ("succeeded", "failed")


class Invalid(Exception):
    """What the documentation refuses; `str(invalid)` is the message."""


class Refused(Exception):
    """An answer with one of the documented codes."""

    def __init__(self, code: int, message: str | None = None) -> None:
        super().__init__(code)
        self.code = code
        self.message = message or ERRORS[code][1]


class KlingServer:
    """The API on 127.0.0.1 and a free port, as an async context manager."""

    def __init__(
        self,
        *,
        clip: bytes,
        api_key: str = "test-key",
        access_key: str = "access-key-of-thirty-two-letters",
        secret_key: str = "secret-key-of-thirty-two-letters",  # noqa: S107  # made up
        polls_until_done: int = 1,
        now: Callable[[], float] = time.time,
    ) -> None:
        self.clip = clip
        self.api_key = api_key
        self.access_key = access_key
        self.secret_key = secret_key
        self.polls_until_done = polls_until_done
        self.base_url = ""

        self.creates: list[Create] = []
        self.tasks: dict[str, Task] = {}
        self.calls: Counter[str] = Counter()  # "POST /path" and "GET /path/{id}", as often as they arrived
        self.tokens: list[str] = []  # the bearer of every call

        self.next_create: str | None = None
        self.next_poll: str | None = None
        self.next_clip: str | None = None
        self.retry_after: str | None = None  # sent with every 429
        self.now = now
        self.clock_ahead = 0.0
        self.tells_date = True  # else the header Date is that of our clock, as of a proxy in between
        self.slots: int | None = None
        self.hidden_for = 0
        self.silent = False
        self.forgets = False
        self.fail_with: str | None = None  # tasks fail, with this reason
        self.charges_failures: str | None = None  # the units that a failed task says it cost
        self.packs: list[dict[str, Any]] = [pack("Trial-Video-100Units-5Con-1Months", 100.0, 87.5)]
        self.packs_code = 0  # inside the envelope's `data`, which has a code of its own
        self.private_address = "http://127.0.0.2:9/clip.mp4"
        self.links_expire = False

        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=160 * 1024 * 1024, middlewares=[self._refusing])
        app.router.add_get("/clips/{name}", self._serve_clip)
        app.router.add_post("/{product:text-to-video|image-to-video}/{model}", self._create_new)
        app.router.add_post("/v1/videos/{family:text2video|image2video}", self._create_legacy)
        app.router.add_get("/tasks", self._query_new)
        app.router.add_get("/v1/videos/{family:text2video|image2video}/{id}", self._query_legacy)
        app.router.add_get("/account/costs", self._costs)
        app.router.add_route("*", "/{path:.*}", self._no_such_path)
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
        """From now on links given before are refused; the next query gives a fresh one."""
        self.links_expire = True
        for task in self.tasks.values():
            task.signature += 1

    def callback(
        self, task: Task, *, secrets: Sequence[str] = (), at: float | None = None, message: str = "msg_1"
    ) -> tuple[dict[str, str], bytes]:
        """What is posted to `callback_url` when the task moves: the headers and the raw body."""
        shape = self._new_shape(task) if task.standard == NEW else self._legacy_shape(task)
        body = json.dumps(shape).encode()
        return signed(body, secrets=secrets, at=int(self.now() if at is None else at), message=message), body

    # Who asks

    @web.middleware
    async def _refusing(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        try:
            return await handler(request)
        except Refused as refused:
            return self._refusal(refused)

    def _authorise(self, request: web.Request, *, keys_only: bool) -> None:
        kind, _, token = request.headers.get("Authorization", "").partition(" ")
        self.tokens.append(token)
        if not token:
            raise Refused(1001)
        if kind != "Bearer":
            raise Refused(1002)
        if token == self.api_key:
            return
        try:
            claims = jwt.decode(
                token,
                self.secret_key,
                algorithms=["HS256"],
                options={"verify_exp": False, "verify_nbf": False, "require": ["iss", "exp", "nbf"]},
            )
        except jwt.InvalidTokenError:
            raise Refused(1002) from None
        if keys_only:
            raise Refused(1002, "Authentication error. The current API does not support AK/SK")
        now = self.now() + self.clock_ahead
        if (
            claims["iss"] != self.access_key
            or type(claims["exp"]) is not int
            or type(claims["nbf"]) is not int
        ):
            raise Refused(1000)
        if claims["nbf"] > now:
            raise Refused(1003)
        if claims["exp"] <= now:
            raise Refused(1004)

    # Creating

    async def _create_new(self, request: web.Request) -> web.StreamResponse:
        family, model = NEW_FAMILIES[request.match_info["product"]], request.match_info["model"]
        return await self._create(request, NEW, family, model)

    async def _create_legacy(self, request: web.Request) -> web.StreamResponse:
        return await self._create(request, LEGACY, LEGACY_FAMILIES[request.match_info["family"]], None)

    async def _create(
        self, request: web.Request, standard: str, family: str, model: str | None
    ) -> web.StreamResponse:
        self.calls[f"POST {request.path}"] += 1
        fault, self.next_create = self.next_create, None
        body: Any = None
        if fault != "reset_before":
            try:
                body = await request.json()
            except ValueError:
                body = None
        self.creates.append(
            Create(standard=standard, path=request.path, headers=request.headers.copy(), body=body)
        )
        if fault == "reset_before":
            return self._reset(request)
        self._authorise(request, keys_only=standard == NEW)
        if refused := self._faulty(fault):
            return refused
        model, external_id, callback_url = self._checked(standard, family, model, body)
        match fault:
            case "html":
                return _page()
            case "no_id":
                return self._answer({"code": 0, "message": "SUCCEED", "request_id": "r"})
            case "redirect":
                return web.Response(status=302, headers={"Location": "/v2/create"})
            case "echo_key":
                text = f"no account for {request.headers.get('Authorization')}"
                return self._answer({"code": 1002, "message": text, "request_id": "r"}, 401)
            case "huge":
                return self._answer({"padding": "x" * (8 * 1024 * 1024)})
        task = Task(
            id=str(FIRST_ID + len(self.tasks)),
            standard=standard,
            family=family,
            model=model,
            external_id=external_id,
            callback_url=callback_url,
            body=body,
            unseen=self.hidden_for,
        )
        self.tasks[task.id] = task
        answer = self._envelope(self._new_shape(task) if standard == NEW else self._legacy_shape(task))
        match fault:
            case "reset_after":
                return self._reset(request)
            case "lost:5002":
                return self._refusal(Refused(5002))
            case "cut_short":
                return await self._half_of(request, json.dumps(answer).encode(), "application/json")
            case "never":
                return await self._silence()
        return self._answer(answer, 201 if fault == "created" else 200)

    def _checked(
        self, standard: str, family: str, model: str | None, body: Any
    ) -> tuple[str, str | None, str | None]:
        """The model, the caller's own id and its callback address, where nothing is to be refused."""
        try:
            if standard == NEW:
                assert model is not None
                options = check_new(family, model, body)
            else:
                model = check_legacy(family, body)
                options = body
        except Invalid as invalid:
            raise Refused(1201, str(invalid)) from None
        external_id = options.get("external_task_id") or None
        if external_id and any(task.external_id == external_id for task in self.tasks.values()):
            raise Refused(1201, f"external_task_id already exists: {external_id}")
        if self.slots is not None and sum(not task.over for task in self.tasks.values()) >= self.slots:
            raise Refused(1303)
        return model, external_id, options.get("callback_url")

    # Asking

    async def _query_new(self, request: web.Request) -> web.StreamResponse:
        self.calls["GET /tasks"] += 1
        fault, self.next_poll = self.next_poll, None
        self._authorise(request, keys_only=True)
        if refused := self._faulty(fault):
            return refused
        by_id, by_external = request.query.get("task_ids"), request.query.get("external_task_ids")
        if bool(by_id) == bool(by_external):
            raise Refused(1200, "either task_ids or external_task_ids")
        asked = (by_id or by_external or "").split(",")
        if len(asked) > MOST_IDS:
            raise Refused(1201, f"task_ids: at most {MOST_IDS}")
        if by_external and self.silent:
            raise Refused(5001)
        if odd := await self._odd_poll(request, fault):
            return odd
        found = [
            task
            for task in self.tasks.values()
            if (task.id if by_id else task.external_id) in asked and fault != "missing" and self._seen(task)
        ]
        if by_id:
            for task in found:
                self._move(task, fault)
        shapes = [self._new_shape(task) for task in found]
        if fault == "stranger":
            shapes = [shape | {"external_id": "other"} for shape in shapes]
        return self._answer(self._envelope(shapes))

    async def _query_legacy(self, request: web.Request) -> web.StreamResponse:
        family, asked = request.match_info["family"], request.match_info["id"]
        self.calls[f"GET /v1/videos/{family}/{{id}}"] += 1
        fault, self.next_poll = self.next_poll, None
        self._authorise(request, keys_only=False)
        if refused := self._faulty(fault):
            return refused
        if self.silent and asked not in self.tasks:
            raise Refused(5001)
        if odd := await self._odd_poll(request, fault):
            return odd
        task = next(
            (task for task in self.tasks.values() if asked in (task.id, task.external_id)),
            None,
        )
        known = task and task.standard == LEGACY and task.family == LEGACY_FAMILIES[family]
        if task is None or not known or fault == "missing" or not self._seen(task):
            raise Refused(1201, f"Task not found by id/external id: {asked}")
        if asked == task.id:
            self._move(task, fault)
        shape = self._legacy_shape(task)
        if fault == "stranger":
            shape["task_info"] = {"external_task_id": "other"}
        return self._answer(self._envelope(shape))

    def _seen(self, task: Task) -> bool:
        task.unseen -= 1
        return task.unseen < 0 and not self.forgets

    def _move(self, task: Task, fault: str | None) -> None:
        task.polls += 1
        task.link = None
        if fault == "unknown_word":
            task.word = "reticulating"
        elif fault == "waits":
            task.word = "submitted"
        elif task.polls <= self.polls_until_done:
            task.word = "processing"
        elif self.fail_with is not None:
            task.word, task.reason = "failed", self.fail_with
        else:
            task.word = "succeeded"
            task.link = None if fault == "no_link" else self.link(task)

    async def _costs(self, request: web.Request) -> web.StreamResponse:
        self.calls["GET /account/costs"] += 1
        fault, self.next_poll = self.next_poll, None
        self._authorise(request, keys_only=False)
        if refused := self._faulty(fault):
            return refused
        start, end = (int(request.query.get(name, "0")) for name in ("start_time", "end_time"))
        if not 10**12 < start < end:
            raise Refused(1200, "start_time and end_time are required, in milliseconds")
        if odd := await self._odd_poll(request, fault):
            return odd
        inner = {"code": self.packs_code, "msg": "SUCCEED", "resource_pack_subscribe_infos": self.packs}
        return self._answer(self._envelope(inner))

    async def _no_such_path(self, request: web.Request) -> web.StreamResponse:
        self.calls[f"{request.method} {request.path}"] += 1
        return self._refusal(Refused(1202))

    async def _odd_poll(self, request: web.Request, fault: str | None) -> web.StreamResponse | None:
        match fault:
            case "html":
                return _page()
            case "reset":
                return self._reset(request)
            case "never":
                return await self._silence()
        return None

    # The documented shapes

    def _envelope(self, data: Any) -> dict[str, Any]:
        return {"code": 0, "message": "SUCCEED", "request_id": "CmC9rGbtVzEAAAAAADQY-A", "data": data}

    def _new_shape(self, task: Task) -> dict[str, Any]:
        shape: dict[str, Any] = {
            "id": task.id,
            "status": task.word,
            "create_time": CREATED_AT,
            "update_time": CREATED_AT + 1000 * task.polls,
            "external_id": task.external_id or "",
        }
        if task.polls:
            shape["message"] = task.reason
        if task.link:
            clip = {"type": "video", "id": "v1", "url": task.link, "watermark_url": "", "duration": "5.1"}
            shape["outputs"] = [{"type": "audio", "mp3_url": "https://audio.invalid/a.mp3"}, clip]
        units = "2.4" if task.link else self.charges_failures if task.word == "failed" else None
        if units is not None:
            shape["billing"] = [{"charge_type": "unit", "amount": units, "package_type": "video"}]
        return shape

    def _legacy_shape(self, task: Task) -> dict[str, Any]:
        shape: dict[str, Any] = {
            "task_id": task.id,
            "task_status": "succeed" if task.word == "succeeded" else task.word,
            "task_info": {"external_task_id": task.external_id} if task.external_id else {},
            "created_at": CREATED_AT,
            "updated_at": CREATED_AT + 1000 * task.polls,
        }
        if task.polls:
            shape["task_status_msg"] = task.reason
        if task.link:
            shape["task_result"] = {"videos": [{"id": "v1", "url": task.link, "duration": "5.1"}]}
            shape["final_unit_deduction"] = "2.4"
        elif task.word == "failed" and self.charges_failures is not None:
            shape["final_unit_deduction"] = self.charges_failures
        return shape

    def link(self, task: Task) -> str:
        """The signed link to the clip of a task, as the next query would give it."""
        number = list(self.tasks).index(task.id) + 1
        return f"{self.base_url}/clips/{number}.mp4?x-kcdn-expire=1&signature=secret{task.signature}"

    # Serving clips

    async def _serve_clip(self, request: web.Request) -> web.StreamResponse:
        self.calls["GET /clips/{name}"] += 1
        fault, self.next_clip = self.next_clip, None
        if fault and fault.isdecimal():
            return web.Response(status=int(fault))
        match fault:
            case "html":
                return _page()
            case "huge":
                return await self._half_of(request, self.clip, "video/mp4", announced=2**40)
            case "endless":
                return await self._endless(request)
            case "truncated":
                return await self._half_of(request, self.clip, "video/mp4")
            case "stuck":
                return await self._half_of(request, self.clip, "video/mp4", then_silence=True)
            case "untyped":
                return web.Response(body=self.clip, content_type="application/octet-stream")
            case "redirect_private":
                return web.Response(status=302, headers={"Location": self.private_address})
        if self.links_expire and not any(
            self.link(task).endswith(request.path_qs) for task in self.tasks.values()
        ):
            return web.Response(status=403, text="Request has expired", content_type="application/xml")
        return web.Response(body=self.clip, content_type="video/mp4")

    # Answering badly

    def _faulty(self, fault: str | None) -> web.Response | None:
        """A fault that is a code or a status; None for every other."""
        if fault and fault.startswith("code:"):
            code = int(fault.removeprefix("code:"))
            words = ERRORS.get(code, (0, f"error {code}"))[1]
            return self._answer({"code": code, "message": words, "request_id": "r"})
        if not fault or not fault.isdecimal():
            return None
        number = int(fault)
        if number in ERRORS:
            return self._refusal(Refused(number))
        return web.Response(status=number, text=PAGE, content_type="text/html", headers=self._again(number))

    def _refusal(self, refused: Refused) -> web.Response:
        status = ERRORS[refused.code][0]
        body = {"code": refused.code, "message": refused.message, "request_id": "r"}
        return self._answer(body, status, self._again(status))

    def _answer(self, body: Any, status: int = 200, headers: Mapping[str, str] | None = None) -> web.Response:
        date = {"Date": formatdate(self.now() + (self.clock_ahead if self.tells_date else 0), usegmt=True)}
        return web.json_response(body, status=status, headers={**date, **(headers or {})})

    def _again(self, status: int) -> dict[str, str]:
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


def _page() -> web.Response:
    return web.Response(text=PAGE, content_type="text/html")


def pack(name: str, total: float, left: float, status: str = "online") -> dict[str, Any]:
    """One resource pack as `GET /account/costs` lists it."""
    return {
        "resource_pack_name": name,
        "resource_pack_id": "509f3fd3d4ab4a3f9eec5db27aa44f27",
        "resource_pack_type": "decreasing_total",
        "total_quantity": total,
        "remaining_quantity": left,
        "purchase_time": 1726124664368,
        "effective_time": 1726124664368,
        "invalid_time": 1827366400000,
        "status": status,
    }


def signed(body: bytes, *, secrets: Sequence[str], at: int, message: str = "msg_1") -> dict[str, str]:
    """The headers of a callback; with secrets those of Standard Webhooks, one signature for each."""
    headers = {"Content-Type": "application/json"}
    if not secrets:
        return headers
    signatures = []
    for secret in secrets:
        key = base64.b64decode(secret.removeprefix("whsec_"))
        digest = hmac.new(key, f"{message}.{at}.".encode() + body, hashlib.sha256).digest()
        signatures.append(f"v1,{base64.b64encode(digest).decode()}")
    return headers | {
        "webhook-id": message,
        "webhook-timestamp": str(at),
        "webhook-signature": " ".join(signatures),
    }


# What the documentation refuses of a create. Raises Invalid.

RATIOS = ("16:9", "9:16", "1:1")
LONG = tuple(range(3, 16))


@dataclass(frozen=True, kw_only=True)
class Model:
    """What the pages say of one model of the new standard."""

    resolutions: tuple[str, ...]
    seconds: tuple[int, ...]
    audio: bool
    multi_shot: bool = False
    last_frame: bool = True
    only_1080p: bool = False  # with both frames, or with native audio
    prompt: Mapping[str, int]


NEW_MODELS = {
    "kling-3.0-turbo": Model(
        resolutions=("720p", "1080p"),
        seconds=LONG,
        audio=False,
        last_frame=False,
        prompt={TEXT: 3072, IMAGE: 2500},
    ),
    "kling-3.0": Model(
        resolutions=("720p", "1080p", "4k"),
        seconds=LONG,
        audio=True,
        multi_shot=True,
        prompt={TEXT: 3072, IMAGE: 3072},
    ),
    "kling-2.6": Model(
        resolutions=("720p", "1080p"),
        seconds=(5, 10),
        audio=True,
        only_1080p=True,
        prompt={TEXT: 2500, IMAGE: 2500},
    ),
    "kling-2.5-turbo": Model(
        resolutions=("720p", "1080p"),
        seconds=(5, 10),
        audio=False,
        only_1080p=True,
        prompt={TEXT: 2500, IMAGE: 2500},
    ),
}


def check_new(family: str, name: str, body: Any) -> dict[str, Any]:
    """The object `options` of a create under the new standard."""
    model = NEW_MODELS.get(name)
    if model is None:
        raise Refused(1203, f"The model '{name}' does not exist")
    whole = "prompt" if family == TEXT else "contents"
    fields(body, {whole, "settings", "options"}, required={whole})
    settings, options = body.get("settings", {}), body.get("options", {})
    allowed = {"resolution", "duration"}
    allowed |= {"aspect_ratio"} if family == TEXT else set()
    allowed |= ({"audio"} if model.audio else set()) | ({"multi_shot"} if model.multi_shot else set())
    fields(settings, allowed)
    fields(options, {"external_task_id", "callback_url", "watermark_info"})
    resolution = settings.get("resolution", "720p")
    one_of("resolution", resolution, model.resolutions)
    one_of("duration", settings.get("duration", 5), model.seconds)
    one_of("aspect_ratio", settings.get("aspect_ratio", "16:9"), RATIOS)
    one_of("audio", settings.get("audio", "off"), ("native", "off"))
    if type(settings.get("multi_shot", True)) is not bool:
        raise Invalid("multi_shot: must be a boolean")
    if family == TEXT:
        text("prompt", body["prompt"], model.prompt[TEXT])
        frames: set[str] = set()
    else:
        frames = check_contents(body["contents"], model)
    if model.only_1080p and resolution != "1080p":
        if "last_frame" in frames:
            raise Invalid("First + last frame only supports 1080p resolution")
        if settings.get("audio") == "native":
            raise Invalid("audio native only supports 1080p resolution")
    check_options(options)
    return dict(options)


def check_contents(contents: Any, model: Model) -> set[str]:
    if type(contents) is not list:
        raise Invalid("contents: must be an array")
    kinds = []
    for item in contents:
        kind = item.get("type") if type(item) is dict else None
        kinds.append(kind)
        if kind == "prompt":
            fields(item, {"type", "text"}, required={"text"})
            text("prompt", item["text"], model.prompt[IMAGE])
        elif kind == "first_frame" or (kind == "last_frame" and model.last_frame):
            fields(item, {"type", "url"}, required={"url"})
            picture(item["url"], most_bytes=50 * 1024 * 1024)
        else:
            raise Invalid(f"contents.type: {kind} is not supported")
    if len(set(kinds)) < len(kinds):
        raise Invalid("contents: each type once")
    if "first_frame" not in kinds:
        raise Invalid("contents: first_frame is required")
    return set(kinds)


@dataclass(frozen=True, kw_only=True)
class LegacyModel:
    """What the legacy pages say of one model."""

    modes: tuple[str, ...]
    seconds: tuple[str, ...]
    sound: tuple[str, ...] = ()  # the modes in which it can have sound
    tail: tuple[str, ...] = ()  # the modes in which it can have a last frame
    multi_shot: bool = False


LEGACY_MODELS = {
    "kling-v2-5-turbo": LegacyModel(modes=("std", "pro"), seconds=("5", "10"), tail=("pro",)),
    "kling-v2-6": LegacyModel(modes=("std", "pro"), seconds=("5", "10"), sound=("pro",), tail=("pro",)),
    "kling-v3": LegacyModel(
        modes=("std", "pro", "4k"),
        seconds=tuple(map(str, LONG)),
        sound=("std", "pro", "4k"),
        tail=("std", "pro", "4k"),
        multi_shot=True,
    ),
}


def check_legacy(family: str, body: Any) -> str:
    """The model's name of a create under /v1/videos. cfg_scale and camera_control are for v1 alone."""
    known = {
        "model_name",
        "prompt",
        "negative_prompt",
        "mode",
        "sound",
        "duration",
        "multi_shot",
        "external_task_id",
        "callback_url",
        "watermark_info",
    }
    fields(body, known | ({"aspect_ratio"} if family == TEXT else {"image", "image_tail"}))
    name = body.get("model_name", "kling-v1")
    model = LEGACY_MODELS.get(name)
    if model is None:
        raise Invalid(f"The model '{name}' has been discontinued and is no longer available.")
    mode = body.get("mode", "std")
    one_of("mode", mode, model.modes)
    one_of("duration", body.get("duration", "5"), model.seconds)
    one_of("aspect_ratio", body.get("aspect_ratio", "16:9"), RATIOS)
    one_of("sound", body.get("sound", "off"), ("on", "off"))
    if body.get("sound") == "on" and mode not in model.sound:
        raise Invalid(f"{name} is not supported with sound in mode {mode}")
    if "multi_shot" in body and not (model.multi_shot and type(body["multi_shot"]) is bool):
        raise Invalid("multi_shot: not supported")
    for field, required in (("prompt", family == TEXT), ("negative_prompt", False)):
        if required or field in body:
            text(field, body.get(field), 2500)
    if family == IMAGE and not (body.get("image") or body.get("image_tail")):
        raise Invalid("image and image_tail are both empty")
    for field in ("image", "image_tail"):
        if field in body:
            picture(body[field], most_bytes=10 * 1024 * 1024)
    if "image_tail" in body and mode not in model.tail:
        raise Invalid(f"{name} is not supported with image tail in mode {mode}")
    check_options(body)
    return str(name)


def check_options(options: Mapping[str, Any]) -> None:
    for name in ("external_task_id", "callback_url"):
        if name in options and type(options[name]) is not str:
            raise Invalid(f"{name}: must be a string")
    if not options.get("callback_url", "https://").startswith(("http://", "https://")):
        raise Invalid("callback_url: must be a URL")


def fields(value: Any, allowed: set[str], *, required: set[str] = frozenset()) -> None:  # type: ignore[assignment]
    if type(value) is not dict:
        raise Invalid("must be a JSON object")
    if unknown := value.keys() - allowed:
        raise Invalid(f"unknown fields: {sorted(unknown)}")
    if missing := required - value.keys():
        raise Invalid(f"missing fields: {sorted(missing)}")


def one_of(name: str, value: Any, allowed: tuple[Any, ...]) -> None:
    if type(value) is not type(allowed[0]) or value not in allowed:
        raise Invalid(f"{name}: must be one of {allowed}")


def text(name: str, value: Any, most: int) -> None:
    if type(value) is not str or not value:
        raise Invalid(f"{name}: must be a string")
    if len(value) > most:
        raise Invalid(f"{name}: must not be longer than {most} characters")


def picture(value: Any, *, most_bytes: int) -> None:
    """A URL, or bare base64 of a jpg or png, at least 300 px, between 1:2.5 and 2.5:1."""
    text("image", value, 2**30)
    if value.startswith(("http://", "https://")):
        return
    try:
        data = base64.b64decode(value, validate=True)
    except binascii.Error:
        raise Invalid("File is not in a valid base64 format") from None
    if len(data) > most_bytes:
        raise Invalid("Image is too large")
    try:
        with Image.open(io.BytesIO(data), formats=("JPEG", "PNG")) as image:
            image.load()
            width, height = image.size
    except (UnidentifiedImageError, OSError):
        raise Invalid("Image is not a jpg, jpeg or png") from None
    if min(width, height) < 300:
        raise Invalid("Image pixel is invalid: smaller than 300px")
    if not 1 / 2.5 <= width / height <= 2.5:
        raise Invalid("Image aspect ratio is not between 1:2.5 and 2.5:1")
