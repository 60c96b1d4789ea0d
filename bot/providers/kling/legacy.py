"""Kling's legacy standard, /v1/videos: for accounts without an API key, and for its older models.

The model is a field, a task is asked for under the family that made it, one at a time. Calls carry an API
key, or a token made from an access key and a secret key.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from email.utils import parsedate_to_datetime
from urllib.parse import quote

import aiohttp
import jwt

from bot.errors import Cause, ProviderUnsure
from bot.jobs.machine import Absent, Accepted
from bot.providers.base import Capabilities, ClipRequest
from bot.providers.http import Answer
from bot.providers.kling.answers import (
    INVALID,
    at,
    code_of,
    detail,
    message_of,
    raise_for_error,
    task_id,
)
from bot.providers.kling.api import THREE, TWO_FIVE_TURBO, TWO_SIX, KlingApi, Order, in_base64
from bot.providers.kling.settings import KlingSettings

TOKEN_LIFE = 1800  # seconds
RENEW_BEFORE = 300  # seconds
SLACK, MORE_SLACK = 5, 60  # seconds that a token is valid before it is made
NOT_YET_VALID, EXPIRED = 1003, 1004
NOT_THERE = 1203

IMAGE, TEXT = "image2video", "text2video"
MOST_FAMILIES = 1000
MODES = {"720p": "std", "1080p": "pro", "4k": "4k"}

# cfg_scale and camera_control are of models before v2, which Kling has switched off or is about to.
_PICTURE = replace(THREE.picture, max_bytes=10_000_000)
V3 = replace(THREE, negative_prompt=2500, picture=_PICTURE)
V2_6 = replace(TWO_SIX, negative_prompt=2500, picture=_PICTURE)
V2_5_TURBO = replace(TWO_FIVE_TURBO, negative_prompt=2500, picture=_PICTURE)


class KlingLegacy(KlingApi):
    """The adapter of Kling's legacy standard. A quality is sent as Kling's `mode`: std, pro or 4k."""

    def __init__(
        self,
        *,
        http: aiohttp.ClientSession,
        settings: KlingSettings,
        allow_private_addresses: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        super().__init__(
            http=http, settings=settings, allow_private_addresses=allow_private_addresses, clock=clock
        )
        self._families: dict[str, str] = {}
        self._tokens: Tokens | None = None
        if settings.access_key and settings.secret_key and not settings.api_key:
            self._tokens = Tokens(
                settings.access_key.get_secret_value(), settings.secret_key.get_secret_value(), clock
            )

    @property
    def variants(self) -> dict[str, Capabilities]:
        """The models this route reaches, by Kling's names; all make clips from words alone as well."""
        return {"kling-v3": V3, "kling-v2-6": V2_6, "kling-v2-5-turbo": V2_5_TURBO}

    async def find(self, reference: str) -> Accepted | Absent:
        """The task under our reference. Kling refuses a second create under it, so Absent is safe."""
        found = await self._look(reference)
        if found is None:
            return Absent()
        task = task_id(found)
        if task is None or at(found, "task_info", "external_task_id") != reference:
            raise ProviderUnsure(Cause.UNREADABLE, f"no task under {reference!r} in the answer")
        return Accepted(task)

    async def _look(self, task: str) -> object:
        """By Kling's id or ours. Only the family that made it knows it, and callbacks do not name that."""
        known = self._families.get(task)
        for family in (known,) if known else (IMAGE, TEXT):
            answer = await self._call("GET", f"/v1/videos/{family}/{quote(task, safe='')}")
            if _is_missing(answer):
                continue
            raise_for_error(answer)
            data = at(answer.body, "data")
            if not isinstance(data, dict):
                raise ProviderUnsure(Cause.UNREADABLE, detail(answer, "no task"))
            self._families[task] = family
            if len(self._families) > MOST_FAMILIES:
                del self._families[next(iter(self._families))]
            return data
        return None

    def _token(self) -> str:
        return self._tokens.current() if self._tokens else super()._token()

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        """One call; a second one where Kling refused the token's times, before it looked at anything else."""
        answer = await super()._call(method, path, body)
        if self._tokens and code_of(answer.body) in (NOT_YET_VALID, EXPIRED):
            self._tokens.follow(answer.headers)
            answer = await super()._call(method, path, body)
        return answer

    def _order(self, request: ClipRequest) -> Order:
        """Text to Video and Image to Video. `duration` is text here."""
        body: dict[str, object] = {
            "model_name": request.variant,  # without it, or as `model`, Kling takes its oldest
            "duration": str(request.seconds),
            "external_task_id": request.reference,
        }
        if request.prompt:
            body["prompt"] = request.prompt
        if request.negative_prompt:
            body["negative_prompt"] = request.negative_prompt
        if request.quality:
            body["mode"] = MODES.get(request.quality, request.quality)
        if request.sound:
            body["sound"] = "on"
        if request.callback:
            body["callback_url"] = request.callback
        if not request.picture:
            if request.ratio:
                body["aspect_ratio"] = request.ratio
            return Order(path=f"/v1/videos/{TEXT}", body=body)
        body["image"] = in_base64(request.picture)
        if request.end_picture:
            body["image_tail"] = in_base64(request.end_picture)
        return Order(path=f"/v1/videos/{IMAGE}", body=body)


class Tokens:
    """Bearer tokens (JWT, HS256) of one account. A token is used until five minutes before its end."""

    def __init__(self, access_key: str, secret_key: str, clock: Callable[[], float]) -> None:
        self._access_key = access_key
        self._secret_key = secret_key
        self._clock = clock
        self._slack = SLACK
        self._ahead = 0.0  # seconds that Kling's clock is before ours
        self._token, self._ends = "", 0.0

    def current(self) -> str:
        now = self._clock() + self._ahead
        if now >= self._ends - RENEW_BEFORE:
            self._ends = now + TOKEN_LIFE
            claims = {"iss": self._access_key, "exp": int(self._ends), "nbf": int(now) - self._slack}
            self._token = jwt.encode(claims, self._secret_key, algorithm="HS256")
        return self._token

    def follow(self, headers: Mapping[str, str]) -> None:
        """The last token was refused as too early or too late: from now on go by Kling's clock."""
        self._slack = MORE_SLACK
        self._token, self._ends = "", 0.0
        try:
            self._ahead = parsedate_to_datetime(headers.get("Date", "")).timestamp() - self._clock()
        except ValueError:
            self._ahead = 0.0


def _is_missing(answer: Answer) -> bool:
    """Kling says 1201 for an unknown task, as for every wrong value; only its words tell them apart."""
    code = code_of(answer.body)
    return code == NOT_THERE or (code == INVALID and "not found" in message_of(answer.body).lower())
