"""What servers on loopback share: start and stop, and the ways of answering badly.

    async with SomeServer(clip=mp4_bytes) as server:
        server.next_create = "429"        # one create call goes wrong, see FAULTS
        server.next_poll = "html"         # one poll
        server.next_clip = "truncated"    # one download, see CLIP_FAULTS
        server.next_upload = "500"        # one upload of a picture, where there are any
        await server.uploading.wait()     # until one has come
        assert len(server.creates) == 1   # every create call that arrived, whatever came of it

Nothing here sleeps or looks at a clock.
"""

import asyncio
import json
from abc import ABC, abstractmethod
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Self

from aiohttp import web

# Besides a bare HTTP status such as "503". Those of the second list make the task before they go wrong.
FAULTS = {
    "html": "200 with a web page",
    "no_id": "200 with JSON that says nothing",
    "reset": "the connection is reset",
    "redirect": "302 to another path",
    "echo_key": "401 whose text repeats the key that was sent",
    "huge": "200 with a body of many megabytes",
}
FAULTS_AFTER = {
    "created": "201 instead of 200",
    "reset_after": "the connection is reset",
    "cut_short": "half of the answer arrives",
    "never": "no answer ever comes",
}
CLIP_FAULTS = {
    "html": "200, text/html",
    "huge": "a Content-Length of a terabyte",
    "endless": "more bytes than any cap, without a Content-Length",
    "truncated": "half of the bytes that Content-Length announces",
    "stuck": "half of the bytes, then silence",
    "redirect_private": "a redirect to `private_address`",
}


@dataclass(frozen=True, kw_only=True)
class Create:
    """One create call that arrived. `body` is None where it was never read, or was no JSON."""

    path: str
    headers: Mapping[str, str]
    body: Any


class LoopbackServer(ABC):
    """A server on 127.0.0.1 and a free port, as an async context manager."""

    def __init__(self, *, clip: bytes) -> None:
        self.clip = clip
        self.base_url = ""
        self.creates: list[Create] = []
        self.calls: Counter[str] = Counter()  # "POST /path", as often as they arrived
        self.next_create: str | None = None
        self.next_poll: str | None = None
        self.next_clip: str | None = None
        self.next_upload: str | None = None
        self.uploading = asyncio.Event()
        self.retry_after: str | None = None  # sent with every 429
        self.private_address = "http://127.0.0.2:9/clip.mp4"
        self._closing = asyncio.Event()
        self._runner: web.AppRunner | None = None

    @abstractmethod
    def add_routes(self, app: web.Application) -> None: ...

    @abstractmethod
    def error(self, status: int, text: str) -> web.Response:
        """An error in the documented shape."""

    async def __aenter__(self) -> Self:
        app = web.Application(client_max_size=64 * 1024 * 1024)
        self.add_routes(app)
        self._runner = web.AppRunner(
            app, access_log=None, shutdown_timeout=5, lingering_time=0
        )  # for no rest of a body
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

    async def arrived(self, request: web.Request) -> str | None:
        """Notes a create call, and takes its fault. The body of one that is reset at once is not read."""
        fault, self.next_create = self.next_create, None
        body: Any = None
        if fault != "reset_before":
            try:
                body = await request.json()
            except ValueError:
                body = None
        self.creates.append(Create(path=request.path, headers=request.headers.copy(), body=body))
        return fault

    async def misbehave(self, request: web.Request, fault: str | None) -> web.StreamResponse | None:
        """The bad answer of a fault that comes before anything is done; None for every other."""
        if fault and fault.isdecimal():
            bad = self.error(int(fault), f"refused with {fault}")
            if fault == "429" and self.retry_after:
                bad.headers["Retry-After"] = self.retry_after
            return bad
        match fault:
            case "html":
                return page()
            case "no_id":
                return web.json_response({"hello": "world"})
            case "redirect":
                return web.Response(status=302, headers={"Location": "/elsewhere"})
            case "reset" | "reset_before":
                return reset(request)
            case "echo_key":
                return self.error(401, f"no account for {request.headers.get('Authorization')}")
            case "huge":
                return web.json_response({"padding": "x" * (8 * 1024 * 1024)})
        return None

    async def upload_arrived(self, request: web.Request) -> web.StreamResponse | None:
        """The bad answer to the upload of a picture, as `next_upload` wants it; None for a good one."""
        fault, self.next_upload = self.next_upload, None
        self.uploading.set()
        return await self.silence() if fault == "never" else await self.misbehave(request, fault)

    async def answer(self, request: web.Request, fault: str | None, body: object) -> web.StreamResponse:
        """The answer to what was done, as the fault wants it."""
        match fault:
            case "reset_after":
                return reset(request)
            case "cut_short":
                return await self.half_of(request, json.dumps(body).encode(), "application/json")
            case "never":
                return await self.silence()
        return web.json_response(body, status=201 if fault == "created" else 200)

    async def serve_clip(
        self, request: web.Request, clip: bytes, content_type: str, *, gone: web.Response | None = None
    ) -> web.StreamResponse:
        """The clip, as `next_clip` wants it; `gone` for a link that is good no more."""
        fault, self.next_clip = self.next_clip, None
        if fault and fault.isdecimal():
            return web.Response(status=int(fault))
        match fault:
            case "html":
                return page()
            case "huge":
                return await self.half_of(request, clip, content_type, announced=2**40)
            case "truncated":
                return await self.half_of(request, clip, content_type)
            case "endless":
                return await self._endless(request, content_type)
            case "stuck":
                return await self.half_of(request, clip, content_type, then_silence=True)
            case "redirect_private":
                return web.Response(status=302, headers={"Location": self.private_address})
        return gone or web.Response(body=clip, content_type=content_type)

    async def silence(self) -> web.Response:
        await self._closing.wait()
        return web.Response(status=503)

    async def half_of(
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

    async def _endless(self, request: web.Request, content_type: str) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": content_type})
        response.enable_chunked_encoding()
        await response.prepare(request)
        try:
            while not self._closing.is_set():
                await response.write(b"\0" * 65536)
        except ConnectionError:
            pass  # the client has had enough, which is the point
        return response


def page() -> web.Response:
    return web.Response(text="<!doctype html><title>Hello</title>", content_type="text/html")


def reset(request: web.Request) -> web.Response:
    assert request.transport is not None
    request.transport.abort()
    return web.Response()
