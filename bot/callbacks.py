"""Where providers may tell us that a clip has moved. A callback is a hint to ask now, and is believed in nothing.

Each job has an address of its own with a secret in it, so a stranger cannot even make us ask. A replay or a
forgery that got past that would cost one poll, and never more than the model's least gap allows.
"""

import hashlib
import hmac
import secrets
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager

import structlog
from aiohttp import web

from bot.jobs.store import Store
from bot.providers.base import HearsCallbacks, Provider

log = structlog.get_logger(__name__)

LARGEST_CALLBACK = 64 * 1024
NOTE = "callback-secret"


class Callbacks:
    """The addresses that providers are given, and what answers there. `hint(job_id)` asks for a job now."""

    def __init__(
        self,
        *,
        public_url: str,
        secret: str,
        providers: Mapping[str, Provider],
        hint: Callable[[str], None],
    ) -> None:
        self._public_url = public_url.rstrip("/")
        self._secret = secret.encode()
        self._providers = providers
        self._hint = hint

    def address(self, route: str, reference: str) -> str | None:
        """For one paid call; None where the route does not call back."""
        if not isinstance(self._providers.get(route), HearsCallbacks):
            return None
        return f"{self._public_url}/callbacks/{route}/{reference}/{self._mark(route, reference)}"

    @asynccontextmanager
    async def serve(self, host: str, port: int) -> AsyncIterator[int]:
        """Listen until the end of the block; the port, also where 0 was asked for. Raises OSError."""
        app = web.Application(client_max_size=LARGEST_CALLBACK)
        app.router.add_post("/callbacks/{route}/{reference}/{mark}", self._hear)
        runner = web.AppRunner(app, access_log=None, shutdown_timeout=2)
        await runner.setup()
        try:
            await web.TCPSite(runner, host, port).start()
            yield runner.addresses[0][1]
        finally:
            await runner.cleanup()

    async def _hear(self, request: web.Request) -> web.Response:
        route, reference = request.match_info["route"], request.match_info["reference"]
        provider = self._providers.get(route)
        genuine = hmac.compare_digest(
            request.match_info["mark"].encode(), self._mark(route, reference).encode()
        )
        if not genuine or not isinstance(provider, HearsCallbacks):
            return web.Response(status=404)
        body = await request.read()
        if provider.hear(request.headers, body) is None:
            log.info("callback_not_believed", route=route)
            return web.Response(status=400)
        self._hint(reference.rpartition("-")[0])
        return web.Response(status=204)

    def _mark(self, route: str, reference: str) -> str:
        return hmac.new(self._secret, f"{route}/{reference}".encode(), hashlib.sha256).hexdigest()[:40]


async def shared_secret(store: Store) -> str:
    """The secret in all addresses: made once, and the same for all processes on one database."""
    await store.remember_first(NOTE, secrets.token_urlsafe(32))
    found = await store.recall(NOTE)
    assert found
    return found
