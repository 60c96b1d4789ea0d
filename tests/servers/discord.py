"""A small Discord on loopback: the REST calls and the gateway handshake that a bot process makes.

For whole processes (`animatic run`, `worker`, `invite`, `doctor`), which simcord, living inside the
test's process, cannot reach. It refuses what Discord refuses, keeps messages, serves their files, honours
nonces within `nonce_window` seconds, tells and keeps a rate limit for each channel and method, and can be told to misbehave:

    discord.faults.append(Fault("POST", "/messages", status=500))   # the next matching call, once
    Fault(..., status=0)            # the connection is dropped before anything is done
    Fault(..., status=0, after=True)  # … after it was done: the answer is lost
    Fault(..., retry_after=1.5, for_all=True)  # the global rate limit
"""

import asyncio
import json
import re
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from types import TracebackType
from typing import Any, Self

from aiohttp import BodyPartReader, WSMsgType, web

BOT_ID = 900000000000000001
GUILD_ID = 900000000000000002
CHANNEL_ID = 900000000000000003
OWNER_ID = 900000000000000004
TOKEN = "a-bot-token"
V2 = 1 << 15
UPLOAD_LIMIT = 10 * 1024 * 1024


@dataclass
class Fault:
    """One misbehaviour, for the next call whose method is `method` and whose path contains `path`."""

    method: str
    path: str
    status: int = 500
    code: int = 0
    after: bool = False
    retry_after: float | None = None
    for_all: bool = False


@dataclass
class Message:
    id: int
    channel_id: int
    data: dict[str, Any]
    nonce: str | None
    at: float
    reactions: list[str] = field(default_factory=list)
    deleted: bool = False
    edits: int = 0

    @property
    def shown(self) -> str:
        """What it says and carries, as JSON."""
        return json.dumps([self.data["content"], self.data["components"]])


class DiscordServer:
    """`async with DiscordServer() as discord:`; `discord.api_base` is what goes into the config."""

    def __init__(self, *, token: str = TOKEN, nonce_window: float = 120.0) -> None:
        self.token = token
        self.nonce_window = nonce_window
        self.rate = (50, 1.0)  # calls of one kind to one channel, in so many seconds
        self.limited = 0  # calls that were refused for it
        self.calls: Counter[str] = Counter()
        self.faults: list[Fault] = []
        self.messages: dict[int, Message] = {}
        self.files: dict[str, bytes] = {}
        self.commands: list[dict[str, Any]] = []
        self.guilds = [GUILD_ID]  # the servers that the bot is in
        self.identified: list[dict[str, Any]] = []
        self.connected = asyncio.Event()
        self.on_message: Callable[[Message], None] = lambda _message: None
        self.acknowledged: dict[int, float] = {}  # interaction id: time.perf_counter() at its first answer
        self.follow_ups: list[dict[str, Any]] = []
        self._ids = _snowflakes()
        self._windows: dict[str, tuple[float, int]] = {}
        self._sequence = 0
        self._sockets: dict[
            web.WebSocketResponse, tuple[int, int]
        ] = {}  # each with its shard, and of how many
        self._runner: web.AppRunner | None = None
        self._port = 0

    @property
    def origin(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    @property
    def api_base(self) -> str:
        return f"{self.origin}/api/v10"

    @property
    def changing(self) -> list[tuple[str, str]]:
        """Methods and paths of the calls that change something."""
        return [(route.method, route.path) for route in self._routes() if route.method != "GET"]

    @property
    def visible(self) -> list[Message]:
        """The messages that people see, oldest first."""
        return [message for message in self.messages.values() if not message.deleted]

    def posts(self) -> list[Message]:
        """The visible messages that carry a clip."""
        return [message for message in self.visible if ".mp4" in json.dumps(message.data["components"])]

    async def __aenter__(self) -> Self:
        app = web.Application(middlewares=[self._misbehave], client_max_size=30 * 1024 * 1024)
        app.add_routes(self._routes())
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        assert site._server is not None
        self._port = site._server.sockets[0].getsockname()[1]  # type: ignore[attr-defined]
        return self

    def _routes(self) -> list[web.RouteDef]:
        base = "/api/v10"
        return [
            web.get(f"{base}/users/@me", self._me),
            web.get(f"{base}/oauth2/applications/@me", self._application),
            web.get(f"{base}/applications/@me", self._application),
            web.put(f"{base}/applications/{{id}}/commands", self._put_commands),
            web.get(f"{base}/gateway/bot", self._gateway_address),
            web.post(f"{base}/users/@me/channels", self._open_dm),
            web.post(f"{base}/channels/{{channel}}/messages", self._create),
            web.get(f"{base}/channels/{{channel}}/messages", self._history),
            web.get(f"{base}/channels/{{channel}}/messages/{{message}}", self._get),
            web.patch(f"{base}/channels/{{channel}}/messages/{{message}}", self._edit),
            web.delete(f"{base}/channels/{{channel}}/messages/{{message}}", self._delete),
            web.put(f"{base}/channels/{{channel}}/messages/{{message}}/reactions/{{emoji}}/@me", self._react),
            web.post(f"{base}/interactions/{{id}}/{{token}}/callback", self._callback),
            web.post(f"{base}/webhooks/{{id}}/{{token}}", self._follow_up),
            web.get("/attachments/{id}/{name}", self._file),
            web.get("/gateway/", self._gateway),
        ]

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        for socket in list(self._sockets):
            await socket.close()
        assert self._runner is not None
        await self._runner.cleanup()

    @web.middleware
    async def _misbehave(self, request: web.Request, handler: Any) -> web.StreamResponse:
        route = re.sub(r"\d{6,}", "…", request.path.removeprefix("/api/v10"))
        self.calls[f"{request.method} {route}"] += 1
        by_token = request.path.startswith(("/api/v10/interactions/", "/api/v10/webhooks/"))
        if (
            not by_token
            and request.path.startswith("/api/")
            and request.headers.get("Authorization") != f"Bot {self.token}"
        ):
            return _refusal(401, 0, "401: Unauthorized")
        fault = next((f for f in self.faults if f.method == request.method and f.path in request.path), None)
        if fault is None:
            limits, over = self._count(request)
            if over:
                self.limited += 1
                return self._too_many(float(limits["X-RateLimit-Reset-After"]), limits)
            answer: web.StreamResponse = await handler(request)
            if not answer.prepared:
                answer.headers.update(limits)
            return answer
        self.faults.remove(fault)
        if fault.after:
            await handler(request)
        if fault.status == 0:
            assert request.transport is not None
            request.transport.abort()
            raise asyncio.CancelledError
        if fault.retry_after is not None:
            return self._too_many(fault.retry_after, {}, for_all=fault.for_all)
        return _refusal(fault.status, fault.code, "injected by the test")

    def _count(self, request: web.Request) -> tuple[dict[str, str], bool]:
        """The rate-limit headers of this call (topics/rate-limits), and whether it is one too many."""
        if "channel" not in request.match_info:
            return {}, False
        bucket = f"{request.method} {request.match_info['channel']}"
        most, window = self.rate
        now = time.monotonic()
        began, used = self._windows.get(bucket, (now, 0))
        if now - began >= window * 0.9:  # two clocks: not refused for being a little early
            began, used = now, 0
        self._windows[bucket] = (began, used + 1)
        left = began + window - now
        headers = {
            "X-RateLimit-Limit": str(most),
            "X-RateLimit-Remaining": str(max(most - used - 1, 0)),
            "X-RateLimit-Reset": str(time.time() + left),
            "X-RateLimit-Reset-After": f"{left:.3f}",
            "X-RateLimit-Bucket": request.method.lower(),
        }
        return headers, used >= most

    def _too_many(self, seconds: float, headers: dict[str, str], *, for_all: bool = False) -> web.Response:
        body = {"message": "You are being rate limited.", "retry_after": seconds, "global": for_all}
        scope = {"X-RateLimit-Global": "true"} if for_all else {}
        return _json(body, status=429, headers={"Retry-After": str(seconds), **scope, **headers})

    async def _me(self, _request: web.Request) -> web.Response:
        return _json(_user())

    async def _application(self, _request: web.Request) -> web.Response:
        application = {
            "id": str(BOT_ID),
            "name": "Animatic",
            "icon": None,
            "description": "",
            "bot_public": True,
            "bot_require_code_grant": False,
            "verify_key": "",
            "flags": 0,
            "owner": {**_user(), "id": str(OWNER_ID), "username": "owner", "bot": False},
            "team": None,
        }
        return _json(application)

    async def _open_dm(self, request: web.Request) -> web.Response:
        """A direct message channel with one person; here it has that person's id."""
        recipient = str((await request.json())["recipient_id"])
        return _json({"id": recipient, "type": 1, "recipients": [{**_user(), "id": recipient, "bot": False}]})

    async def _put_commands(self, request: web.Request) -> web.Response:
        self.commands = await request.json()
        # What is not sent comes back with its default: a menu's description is empty.
        extra = {
            "application_id": str(BOT_ID),
            "version": "1",
            "default_member_permissions": None,
            "description": "",
        }
        return _json([{"id": str(next(self._ids)), **extra, **command} for command in self.commands])

    async def _gateway_address(self, _request: web.Request) -> web.Response:
        limit = {"total": 1000, "remaining": 999, "reset_after": 0, "max_concurrency": 1}
        return _json(
            {"url": f"ws://127.0.0.1:{self._port}/gateway/", "shards": 1, "session_start_limit": limit}
        )

    async def _gateway(self, request: web.Request) -> web.WebSocketResponse:
        socket = web.WebSocketResponse()
        await socket.prepare(request)
        await socket.send_json({"op": 10, "d": {"heartbeat_interval": 41250}, "s": None, "t": None})
        async for frame in socket:
            if frame.type is not WSMsgType.TEXT:
                break
            event = frame.json()
            if event["op"] == 1:
                await socket.send_json({"op": 11, "d": None, "s": None, "t": None})
            elif event["op"] == 2:
                self.identified.append(event["d"])
                shard, count = event["d"].get("shard", [0, 1])
                self._sockets[socket] = shard, count
                here = [_guild(each) for each in self.guilds if (each >> 22) % count == shard]
                ready = {
                    "v": 10,
                    "user": _user(),
                    "guilds": [{"id": guild["id"], "unavailable": True} for guild in here],
                    "session_id": "session",
                    "resume_gateway_url": f"ws://127.0.0.1:{self._port}/gateway/",
                    "application": {"id": str(BOT_ID), "flags": 0},
                    "shard": [shard, count],
                }
                await self._send(socket, "READY", ready)
                for guild in here:
                    await self._send(socket, "GUILD_CREATE", guild)
                self.connected.set()
        self._sockets.pop(socket, None)
        return socket

    async def dispatch(self, event: str, data: dict[str, Any]) -> None:
        """Send an event to the gateway connections of its server's shard (topics/gateway#sharding)."""
        for socket, (shard, count) in list(self._sockets.items()):
            if (int(data.get("guild_id", 0)) >> 22) % count == shard:
                await self._send(socket, event, data)

    async def invite(self, guild_id: int, channel_id: int) -> None:
        """Somebody adds the bot to a server that has a channel where it may write."""
        self.guilds.append(guild_id)
        guild = _guild(guild_id)
        del guild["unavailable"]  # said only of servers that it was in before
        guild["roles"][0]["permissions"] = str((1 << 50) - 1)
        guild["channels"] = [{"id": str(channel_id), "type": 0, "name": "general", "position": 0}]
        guild["members"] = [
            {"user": _user(), "roles": [], "joined_at": None, "deaf": False, "mute": False, "flags": 0}
        ]
        await self.dispatch("GUILD_CREATE", {**guild, "guild_id": str(guild_id)})

    async def _send(self, socket: web.WebSocketResponse, event: str, data: dict[str, Any]) -> None:
        self._sequence += 1
        await socket.send_json({"op": 0, "t": event, "s": self._sequence, "d": data})

    def animate(
        self,
        picture: bytes,
        size: tuple[int, int],
        *,
        member: int = 1_000_000,
        guild: int = GUILD_ID,
        channel: int = CHANNEL_ID,
    ) -> dict[str, Any]:
        """INTERACTION_CREATE as Discord sends it for `/animate` in a server, with a JPEG attached."""
        everything = str((1 << 50) - 1)
        [command] = [each for each in self.commands if each["name"] == "animate"]
        attached = self._store("picture.jpg", picture)
        attached |= {"width": size[0], "height": size[1], "content_type": "image/jpeg", "ephemeral": True}
        interaction_id = str(next(self._ids))
        return {
            "id": interaction_id,
            "application_id": str(BOT_ID),
            "type": 2,
            "token": f"token-{interaction_id}",
            "version": 1,
            "guild_id": str(guild),
            "channel_id": str(channel),
            "channel": {
                "id": str(channel),
                "guild_id": str(guild),
                "type": 0,
                "name": f"channel-{channel}",
                "position": 0,
                "permissions": everything,
            },
            "member": {
                "user": {**_user(), "id": str(member), "username": f"member-{member}", "bot": False},
                "roles": [],
                "joined_at": "2026-01-01T00:00:00+00:00",
                "deaf": False,
                "mute": False,
                "flags": 0,
                "permissions": everything,
            },
            "app_permissions": everything,
            "locale": "en-GB",
            "guild_locale": "en-GB",
            "entitlements": [],
            "authorizing_integration_owners": {"0": str(guild)},
            "context": 0,
            "attachment_size_limit": UPLOAD_LIMIT,
            "data": {
                "id": command.get("id", "1"),
                "name": "animate",
                "type": 1,
                "options": [
                    {"name": "prompt", "type": 3, "value": "camera slowly pulls out"},
                    {"name": "picture", "type": 11, "value": attached["id"]},
                ],
                "resolved": {"attachments": {attached["id"]: attached}},
            },
        }

    async def _callback(self, request: web.Request) -> web.Response:
        interaction_id = int(request.match_info["id"])
        if interaction_id in self.acknowledged:
            return _refusal(400, 40060, "Interaction has already been acknowledged.")
        self.acknowledged[interaction_id] = time.perf_counter()
        return _json({"interaction": {"id": str(interaction_id), "type": 2}})

    async def _follow_up(self, request: web.Request) -> web.Response:
        body, _ = await _read_body(request)
        self.follow_ups.append(body)
        data = _plain_message(next(self._ids), CHANNEL_ID, body.get("content") or "")
        return _json({**data, "flags": body.get("flags", 0)})

    async def _create(self, request: web.Request) -> web.Response:
        body, files = await _read_body(request)
        nonce = str(body["nonce"]) if body.get("nonce") is not None else None
        if nonce is not None and len(nonce) > 25:
            return _refusal(400, 50035, "nonce: Must be 25 or fewer in length.")
        if body.get("enforce_nonce") and (first := self._by_nonce(nonce)):
            if first.deleted:
                return _refusal(404, 10008, "Unknown Message")
            return _json(first.data)
        if any(len(content) > UPLOAD_LIMIT for _, content in files.values()):
            return _refusal(413, 40005, "Request entity too large")
        message_id = next(self._ids)
        stored = {name: self._store(name, content) for name, content in files.values()}
        components = _resolved(body.get("components") or [], stored)
        if isinstance(components, str):
            return _refusal(400, 50035, components)
        channel = int(request.match_info["channel"])
        data = {
            **_plain_message(message_id, channel, body.get("content") or ""),
            "components": components,
            "attachments": [] if body.get("flags", 0) & V2 else list(stored.values()),
            "flags": body.get("flags", 0),
            "nonce": nonce,
        }
        message = Message(message_id, channel, data, nonce, time.monotonic())
        message.data["_files"] = stored
        self.messages[message_id] = message
        self.on_message(message)
        return _json(data)

    def say(self, text: str, channel: int = CHANNEL_ID) -> None:
        """Somebody else writes in a channel."""
        message_id = next(self._ids)
        data = {**_plain_message(message_id, channel, text), "author": {**_user(), "id": "1", "bot": False}}
        self.messages[message_id] = Message(message_id, channel, data, None, time.monotonic())

    async def _get(self, request: web.Request) -> web.Response:
        message = self._find(request)
        return _json(message.data) if message else _unknown()

    async def _history(self, request: web.Request) -> web.Response:
        """The newest first; with `after`, those that come next after it (resources/message#get-channel-messages)."""
        after, before = int(request.query.get("after", 0)), int(request.query.get("before", 1 << 63))
        here = [
            message
            for message in sorted(self.visible, key=lambda message: message.id)
            if message.channel_id == int(request.match_info["channel"]) and after < message.id < before
        ]
        limit = int(request.query.get("limit", 50))
        page = here[:limit] if "after" in request.query else here[-limit:]
        return _json([message.data for message in reversed(page)])

    async def _edit(self, request: web.Request) -> web.Response:
        message = self._find(request)
        body, _ = await _read_body(request)
        if message is None:
            return _unknown()
        if "components" in body:
            components = _resolved(body["components"], message.data["_files"])
            if isinstance(components, str):
                return _refusal(400, 50035, components)
            message.data["components"] = components
        message.edits += 1
        return _json(message.data)

    async def _delete(self, request: web.Request) -> web.Response:
        message = self._find(request)
        if message is None:
            return _unknown()
        message.deleted = True
        return web.Response(status=204)

    async def _react(self, request: web.Request) -> web.Response:
        message = self._find(request)
        if message is None:
            return _unknown()
        message.reactions.append(request.match_info["emoji"])
        return web.Response(status=204)

    async def _file(self, request: web.Request) -> web.Response:
        content = self.files.get(request.path)
        return web.Response(body=content) if content is not None else web.Response(status=404)

    def _find(self, request: web.Request) -> Message | None:
        message = self.messages.get(int(request.match_info["message"]))
        return message if message and not message.deleted else None

    def _by_nonce(self, nonce: str | None) -> Message | None:
        now = time.monotonic()
        return next(
            (
                message
                for message in self.messages.values()
                if message.nonce == nonce and now - message.at <= self.nonce_window
            ),
            None,
        )

    def _store(self, name: str, content: bytes) -> dict[str, Any]:
        attachment_id = next(self._ids)
        path = f"/attachments/{attachment_id}/{name}"
        self.files[path] = content
        url = f"{self.origin}{path}"
        return {
            "id": str(attachment_id),
            "filename": name,
            "size": len(content),
            "url": url,
            "proxy_url": url,
        }


def _snowflakes() -> Iterator[int]:
    """Ids as Discord makes them: they tell the time, and grow."""
    latest = 0
    while True:
        latest = max(latest + 1, int((time.time() - 1420070400) * 1000) << 22)
        yield latest


async def _read_body(request: web.Request) -> tuple[dict[str, Any], dict[str, tuple[str, bytes]]]:
    """The JSON of a call and its files by form field, as (name, content)."""
    if not request.content_type.startswith("multipart/"):
        return await request.json(), {}
    body: dict[str, Any] = {}
    files: dict[str, tuple[str, bytes]] = {}
    async for part in await request.multipart():
        assert isinstance(part, BodyPartReader)
        assert part.name
        if part.name == "payload_json":
            body = await part.json() or {}
        else:
            files[part.name] = (part.filename or part.name, bytes(await part.read()))
    return body, files


def _resolved(components: list[Any], stored: dict[str, dict[str, Any]]) -> list[Any] | str:
    """The components with `attachment://name` turned into addresses, or what is wrong with them."""
    text = json.dumps(components)
    for name in set(re.findall(r'"attachment://([^"]+)"', text)):
        if name not in stored:
            return f"components: the referenced attachment was not found: {name}"
        text = text.replace(f'"attachment://{name}"', json.dumps(stored[name]["url"]))
    resolved: list[Any] = json.loads(text)
    return resolved


def _plain_message(message_id: int, channel: int, text: str) -> dict[str, Any]:
    return {
        "id": str(message_id),
        "channel_id": str(channel),
        "author": _user(),
        "content": text,
        "components": [],
        "attachments": [],
        "embeds": [],
        "mentions": [],
        "mention_roles": [],
        "mention_everyone": False,
        "pinned": False,
        "tts": False,
        "type": 0,
        "flags": 0,
        "timestamp": "2026-01-01T00:00:00+00:00",
        "edited_timestamp": None,
    }


def _guild(guild_id: int) -> dict[str, Any]:
    """What GUILD_CREATE says of a server without channels."""
    everyone = {"id": str(guild_id), "name": "@everyone", "permissions": "0", "position": 0, "color": 0}
    return {
        "id": str(guild_id),
        "name": f"server-{guild_id}",
        "owner_id": str(OWNER_ID),
        "member_count": 2,
        "roles": [{**everyone, "hoist": False, "managed": False, "mentionable": False, "flags": 0}],
        "emojis": [],
        "channels": [],
        "threads": [],
        "members": [],
        "features": [],
        "unavailable": False,
    }


def _user() -> dict[str, Any]:
    return {
        "id": str(BOT_ID),
        "username": "Animatic",
        "discriminator": "0",
        "global_name": None,
        "avatar": None,
        "bot": True,
        "verified": True,
        "mfa_enabled": False,
        "flags": 0,
    }


def _json(data: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    """As Discord sends it: without a charset, which discord.py looks for to the letter."""
    exact = {"Content-Type": "application/json", "Via": "1.1 google"}
    return web.Response(body=json.dumps(data).encode(), status=status, headers={**exact, **(headers or {})})


def _refusal(status: int, code: int, message: str) -> web.Response:
    return _json({"code": code, "message": message}, status=status)


def _unknown() -> web.Response:
    return _refusal(404, 10008, "Unknown Message")
