"""Runway's own API on loopback: refuses what its documentation refuses, answers in the documented shapes.

It knows docs.dev.runwayml.com (version 2024-11-06) and the types of Runway's SDK 5.24, and nothing of our
code. How it misbehaves: see `loopback.py`, and POLL_FAULTS. A task is running for `polls_until_done` polls,
and then done, or failed if `fail_with` is set.
"""

import base64
import binascii
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from aiohttp import web
from PIL import Image, UnidentifiedImageError

from tests.servers.loopback import LoopbackServer

VERSION = "2024-11-06"
POLL_FAULTS = {
    "unknown_word": "a status word that is not documented",
    "no_link": "success, but no output yet",
    "throttled": "held back: the account has as many tasks at a time as it may",
    "cancelled": "somebody cancelled it",
}
MADE_AT = "2026-07-10T12:00:00.000Z"


@dataclass(kw_only=True)
class Task:
    id: str
    body: dict[str, Any]
    cost: int
    polls: int = 0
    signature: int = 1


@dataclass(kw_only=True)
class Upload:
    fields: list[str]
    media_type: str
    data: bytes


class Invalid(Exception):
    """What the documentation refuses; `str(invalid)` is the message."""


class RunwayServer(LoopbackServer):
    def __init__(self, *, clip: bytes, api_key: str = "key_" + "0a" * 64, polls_until_done: int = 1) -> None:
        super().__init__(clip=clip)
        self.api_key = api_key
        self.polls_until_done = polls_until_done
        self.tasks: dict[str, Task] = {}
        self.uploads: dict[str, Upload] = {}  # by runway:// URI
        self.credits = 100_000
        self.fail_with: str | None = None  # tasks fail, with this failureCode; "" for none
        self.failures_cost: bool | None = True  # None: a failed task tells no cost
        self.upload_address: str | None = None  # instead of this server's own
        self.links_expire = False

    def add_routes(self, app: web.Application) -> None:
        app.router.add_post("/v1/image_to_video", self._create)
        app.router.add_post("/v1/text_to_video", self._create)
        app.router.add_get("/v1/tasks/{id}", self._poll)
        app.router.add_get("/v1/organization", self._organization)
        app.router.add_post("/v1/uploads", self._start_upload)
        app.router.add_post("/bucket/{name}", self._store_upload)
        app.router.add_get("/clips/{name}", self._serve_clip)

    def error(self, status: int, text: str) -> web.Response:
        return web.json_response({"error": text}, status=status)

    def expire_links(self) -> None:
        """From now on links given before are refused; the next poll gives a fresh one."""
        self.links_expire = True
        for task in self.tasks.values():
            task.signature += 1

    def link(self, task: Task) -> str:
        """The signed link to the clip of a task, as the next poll would give it."""
        return f"{self.base_url}/clips/{task.id}.mp4?_jwt=Signature=secret{task.signature}"

    async def _create(self, request: web.Request) -> web.StreamResponse:
        fault = await self.arrived(request)
        if fault == "reset_before":
            bad = await self.misbehave(request, fault)
            assert bad
            return bad
        if refused := self._refused(request):
            return refused
        if fault == "no_credit":
            return self.error(400, "You do not have enough credits to run this task.")
        if bad := await self.misbehave(request, fault):
            return bad
        body = self.creates[-1].body
        try:
            self._validate(request.path, body)
        except Invalid as invalid:
            return self.error(400, str(invalid))
        cost = body.get("duration", 5) * 12
        task = Task(id=f"0b0e3f52-0000-4000-8000-{len(self.tasks):012}", body=body, cost=cost)
        self.tasks[task.id] = task
        return await self.answer(request, fault, {"id": task.id, "estimatedCost": {"credits": cost}})

    async def _poll(self, request: web.Request) -> web.StreamResponse:
        fault, self.next_poll = self.next_poll, None
        if refused := self._refused(request):
            return refused
        if fault == "never":
            return await self.silence()
        if bad := await self.misbehave(request, fault):
            return bad
        task = self.tasks.get(request.match_info["id"])
        if task is None:
            return self.error(404, "Task not found")
        task.polls += 1
        return web.json_response({"id": task.id, "createdAt": MADE_AT, **self._state(task, fault)})

    def _state(self, task: Task, fault: str | None) -> dict[str, Any]:
        estimated = {"estimatedCost": {"credits": task.cost}}
        cost = {"cost": {"credits": task.cost}}
        match fault:
            case "unknown_word":
                return {"status": "RETICULATING", **estimated}
            case "throttled":
                return {"status": "THROTTLED", **estimated}
            case "cancelled":
                return {"status": "CANCELLED", "cost": {"credits": 0}}
            case "no_link":
                return {"status": "SUCCEEDED", "output": [], **cost}
        if task.polls <= self.polls_until_done:
            return {"status": "RUNNING", "progress": 0.42, **estimated}
        if self.fail_with is not None:
            told = {} if self.failures_cost is None else {"cost": {"credits": task.cost * self.failures_cost}}
            code = {"failureCode": self.fail_with} if self.fail_with else {}
            return {"status": "FAILED", "failure": "An unexpected error occurred.", **code, **told}
        return {"status": "SUCCEEDED", "output": [self.link(task)], **cost}

    async def _organization(self, request: web.Request) -> web.StreamResponse:
        if refused := self._refused(request):
            return refused
        model = {"maxConcurrentGenerations": 1, "maxDailyGenerations": 50}
        return web.json_response(
            {
                "creditBalance": self.credits,
                "tier": {"maxMonthlyCreditSpend": 10_000, "models": {"gen4.5": model}},
                "usage": {"models": {"gen4.5": {"dailyGenerations": len(self.tasks)}}},
            }
        )

    async def _start_upload(self, request: web.Request) -> web.StreamResponse:
        self.calls["POST /v1/uploads"] += 1
        if refused := self._refused(request):
            return refused
        body = await request.json()
        if body.keys() != {"filename", "type"} or body["type"] != "ephemeral":
            return self.error(400, "type: must be ephemeral")
        number = self.calls["POST /v1/uploads"]
        return web.json_response(
            {
                "uploadUrl": self.upload_address or f"{self.base_url}/bucket/{number}?Signature=secret",
                "fields": {"key": f"uploads/{number}", "policy": "abc=="},
                "runwayUri": f"runway://upload-{number}",
            }
        )

    async def _store_upload(self, request: web.Request) -> web.StreamResponse:
        self.calls["POST /bucket"] += 1
        if bad := await self.upload_arrived(request):
            return bad
        uri = f"runway://upload-{request.match_info['name']}"
        names: list[str] = []
        async for part in await request.multipart():
            names.append(part.name)
            if part.name == "file":
                data = await part.read()
                if (
                    not 512 <= len(data) <= 200_000_000
                    or uri in self.uploads
                    or request.content_length is None
                ):
                    return web.Response(status=400)
                self.uploads[uri] = Upload(
                    fields=names[:-1], media_type=part.headers["Content-Type"], data=bytes(data)
                )
        return web.Response(status=204)

    async def _serve_clip(self, request: web.Request) -> web.StreamResponse:
        known = {self.link(task) for task in self.tasks.values()}
        expired = self.links_expire and f"{self.base_url}{request.path_qs}" not in known
        gone = web.Response(status=403, text="expired") if expired else None
        return await self.serve_clip(request, self.clip, "video/mp4", gone=gone)

    def _refused(self, request: web.Request) -> web.Response | None:
        """All three headers are required on every call."""
        if request.headers.get("Authorization") != f"Bearer {self.api_key}":
            return self.error(401, "Your API key is invalid")
        if request.headers.get("X-Runway-Version") != VERSION:
            return self.error(400, "X-Runway-Version is missing or not supported")
        if request.content_type != "application/json":
            return self.error(400, "Content-Type must be application/json")
        return None

    # What the documentation refuses

    def _validate(self, path: str, body: Any) -> None:
        if not isinstance(body, dict):
            raise Invalid("the body must be a JSON object")
        from_words = path == "/v1/text_to_video"
        model = MODELS.get(str(body.get("model")))
        if model is None or (from_words and not model.from_words):
            raise Invalid("model: not one of this endpoint")
        fields = {"model", "promptText", "duration", "seed", "contentModeration", *model.extras}
        required = {"promptText"} if from_words or model.needs_prompt else set()
        ratios = model.from_words if from_words else model.from_picture
        if ratios:
            fields.add("ratio")
            required.add("ratio")
        if not from_words:
            fields.add("promptImage")
            required.add("promptImage")
        if missing := required - body.keys():
            raise Invalid(f"{sorted(missing)}: required")
        if unknown := body.keys() - fields:
            raise Invalid(f"{sorted(unknown)}: unrecognized keys")
        checks: Mapping[str, Callable[[Any], bool]] = {
            "ratio": lambda value: value in ratios,
            "duration": lambda value: type(value) is int and value in model.seconds,
            "promptText": lambda value: (
                isinstance(value, str) and 0 < len(value.encode("utf-16-le")) <= 2 * model.prompt_length
            ),
            "negativePrompt": lambda value: isinstance(value, str) and bool(value),
            "audio": lambda value: type(value) is bool,
            "cfgScale": lambda value: type(value) in (int, float) and 0 <= value <= 1,
        }
        for name, value in body.items():
            if name in checks and not checks[name](value):
                raise Invalid(f"{name}: invalid value")
        if not from_words:
            self._validate_pictures(body["promptImage"], last=model.last)

    def _validate_pictures(self, value: Any, *, last: bool) -> None:
        if isinstance(value, str):
            value = [{"uri": value, "position": "first"}]
        if not isinstance(value, list) or not all(isinstance(each, dict) for each in value):
            raise Invalid("promptImage: invalid")
        positions = [each.get("position") for each in value]
        if positions not in ([["first"], ["first", "last"]] if last else [["first"]]):
            raise Invalid(f"promptImage: {positions}")
        for each in value:
            self._validate_picture(each["uri"])

    def _validate_picture(self, uri: str) -> None:
        if uri.startswith("runway://"):
            if uri not in self.uploads:
                raise Invalid("Unknown upload")
            kind, data = self.uploads[uri].media_type, self.uploads[uri].data
        elif uri.startswith("data:"):
            if len(uri) > 5_000_000:
                raise Invalid("Data URI is too large")
            head, comma, text = uri.partition(",")
            try:
                data = base64.b64decode(text, validate=True)
            except binascii.Error:
                raise Invalid("Invalid data URI") from None
            kind = head.removeprefix("data:").removesuffix(";base64")
            if not comma or not head.endswith(";base64"):
                raise Invalid("Invalid data URI")
        else:
            raise Invalid("Only HTTPS URLs are allowed")
        try:
            with Image.open(io.BytesIO(data), formats=("JPEG", "PNG", "WEBP")) as image:
                image.load()
                found, ratio = f"image/{(image.format or '').lower()}", image.width / image.height
        except (UnidentifiedImageError, OSError):
            raise Invalid("Failed to decode the asset") from None
        if found != kind:
            raise Invalid(f"The asset is {found}, not {kind}")
        if not 0.39 <= ratio <= 2.51:
            raise Invalid("Invalid asset aspect ratio")


@dataclass(frozen=True, kw_only=True)
class Model:
    """What the SDK's types say of one model."""

    from_picture: tuple[str, ...] = ()  # empty: no ratio
    from_words: tuple[str, ...] = ()  # empty: none
    seconds: tuple[int, ...]
    needs_prompt: bool = False
    prompt_length: int = 1000
    last: bool = True
    extras: frozenset[str] = frozenset()


SIX = ("1280:720", "720:1280", "1104:832", "960:960", "832:1104", "1584:672")
FOUR = ("1280:720", "720:1280", "1080:1920", "1920:1080")
VEO = Model(
    from_picture=FOUR,
    from_words=FOUR,
    seconds=(4, 6, 8),
    extras=frozenset({"audio", "negativePrompt"}),
)


def _kling(*ratios: str) -> Model:
    return Model(
        from_picture=ratios,
        from_words=ratios,
        seconds=tuple(range(3, 16)),
        prompt_length=2500,
        extras=frozenset({"audio", "cfgScale", "providerSettings"}),
    )


MODELS = {
    "gen4.5": Model(
        from_picture=SIX,
        from_words=("1280:720", "720:1280"),
        seconds=tuple(range(2, 11)),
        needs_prompt=True,
        last=False,
        extras=frozenset({"outputFormat"}),
    ),
    "gen4_turbo": Model(from_picture=SIX, seconds=tuple(range(2, 11)), last=False),
    "veo3.1": VEO,
    "veo3.1_fast": VEO,
    "kling2.5_turbo_pro": Model(
        from_words=("1920:1080", "1440:1440", "1080:1920", "1280:720", "720:720", "720:1280"),
        seconds=(5, 10),
        needs_prompt=True,
        prompt_length=2500,
        extras=frozenset({"cfgScale"}),
    ),
    "kling3.0_standard": _kling("1280:720", "720:1280", "960:960"),
    "kling3.0_pro": _kling("1920:1080", "1080:1920", "1440:1440"),
    "kling3.0_4k": _kling("3840:2160", "2160:3840", "2880:2880"),
}
