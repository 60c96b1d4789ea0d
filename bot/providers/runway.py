"""The route `runway`: Runway's own API, documented at docs.dev.runwayml.com, with the models it has of others.

It offers no way to look a task up by our reference, and calls nobody back. A task above the number that the
account may have at a time is taken all the same, and waits as THROTTLED.
"""

import base64
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from urllib.parse import quote

import aiohttp
import structlog
from pydantic import Field

from bot.errors import Cause, ProviderBusy, ProviderRejected, ProviderUnsure
from bot.jobs.machine import Accepted, Broke, Ready, StillRendering
from bot.providers.base import Balance, Capabilities, ClipRequest, Picture, PictureRules, Price
from bot.providers.http import AFTER_NO_CONNECTION, Answer, File, call, download, masked, retry_after, upload
from bot.providers.settings import Address, Key, WebRouteSettings

log = structlog.get_logger(__name__)

VERSION = "2024-11-06"
LONGEST_DATA_URI = 5_000_000  # characters; above that a picture is uploaded first
AFTER_TOO_MANY = timedelta(minutes=5)  # 429 is the quota of a day, or a limit that is not told
MOST_UNKNOWN_WORDS = 20


class RunwaySettings(WebRouteSettings):
    """[routes.runway]"""

    api_key: Key = Field(description="The key of your organisation, from dev.runwayml.com")
    base_url: Address = Field(default="https://api.dev.runwayml.com", description="Where Runway answers")

    @property
    def usual_models(self) -> Mapping[str, str]:
        return {"runway": "gen4.5", "runway-turbo": "gen4_turbo"}


# What the models can do, with the price list of 2026-07-10. Runway crops the picture to the clip's shape, where the model has a choice of them.


_Pixels = Mapping[tuple[str | None, str], str]


@dataclass(frozen=True, slots=True, kw_only=True)
class _Model:
    """One model: what it can do, and Runway's `ratio`, which is in pixels, by quality and plain ratio.

    `from_picture` is empty where the clip has the picture's own shape and the field is refused.
    """

    can: Capabilities
    from_picture: _Pixels
    from_words: _Pixels


_SIX: _Pixels = {
    (None, "16:9"): "1280:720",
    (None, "9:16"): "720:1280",
    (None, "4:3"): "1104:832",
    (None, "3:4"): "832:1104",
    (None, "1:1"): "960:960",
    (None, "21:9"): "1584:672",
}
_TWO: _Pixels = {(None, "16:9"): "1280:720", (None, "9:16"): "720:1280"}
_FOUR: _Pixels = {
    ("720p", "16:9"): "1280:720",
    ("720p", "9:16"): "720:1280",
    ("1080p", "16:9"): "1920:1080",
    ("1080p", "9:16"): "1080:1920",
}

_GEN_4_5 = Capabilities(
    label="Gen-4.5",
    seconds=(5, 2, 3, 4, 6, 7, 8, 9, 10),
    ratios=("16:9", "9:16"),
    prompt_length=1000,
    prompt_required=True,
    shapes=tuple(plain for _, plain in _SIX),
    credit="[Powered by Runway](https://runwayml.com)",
    picture=PictureRules(max_bytes=25_000_000, min_ratio=0.5, max_ratio=2.0),
    text_only=True,
    typical=timedelta(seconds=120),
    deadline=timedelta(minutes=15),
    least_poll_gap=timedelta(seconds=5),
    prices=(Price(a_second=Decimal("0.12")),),
)
_GEN_4_TURBO = replace(
    _GEN_4_5,
    label="Gen-4 Turbo",
    ratios=(),
    prompt_required=False,
    text_only=False,
    typical=timedelta(seconds=60),
    prices=(Price(a_second=Decimal("0.05")),),
)
_VEO = replace(
    _GEN_4_5,
    label="Veo 3.1",
    seconds=(8, 4, 6),
    qualities=("720p", "1080p"),
    shapes=("16:9", "9:16"),
    prompt_required=False,
    negative_prompt=1000,
    end_picture=True,
    sound=True,
    prices=(Price(a_second=Decimal("0.40"), sound=True), Price(a_second=Decimal("0.20"))),
)
_VEO_FAST = replace(
    _VEO,
    label="Veo 3.1 Fast",
    prices=(Price(a_second=Decimal("0.15"), sound=True), Price(a_second=Decimal("0.10"))),
)
_KLING = replace(
    _GEN_4_5,
    seconds=(5, 3, 4, *range(6, 16)),
    ratios=("16:9", "9:16", "1:1"),
    prompt_length=2500,
    prompt_required=False,
    strength=(0.0, 1.0),
    shapes=("16:9", "9:16", "1:1"),
    picture=PictureRules(max_bytes=25_000_000, min_side=300, min_ratio=1 / 2.5, max_ratio=2.5),
    end_picture=True,
    sound=True,
    typical=timedelta(seconds=135),
    deadline=timedelta(minutes=30),
    prices=(),
)
_KLING_2_5 = replace(
    _KLING,
    label="Kling 2.5 Turbo Pro",
    seconds=(5, 10),
    prompt_required=True,
    shapes=(),
    sound=False,
    typical=timedelta(seconds=180),
)


def _kling(label: str, across: int, down: int, square: int) -> _Model:
    pixels: _Pixels = {
        (None, "16:9"): f"{across}:{down}",
        (None, "9:16"): f"{down}:{across}",
        (None, "1:1"): f"{square}:{square}",
    }
    return _Model(can=replace(_KLING, label=label), from_picture=pixels, from_words=pixels)


_MODELS = {
    "gen4.5": _Model(can=_GEN_4_5, from_picture=_SIX, from_words=_TWO),
    "gen4_turbo": _Model(can=_GEN_4_TURBO, from_picture=_SIX, from_words={}),
    "veo3.1": _Model(can=_VEO, from_picture=_FOUR, from_words=_FOUR),
    "veo3.1_fast": _Model(can=_VEO_FAST, from_picture=_FOUR, from_words=_FOUR),
    "kling2.5_turbo_pro": replace(_kling("", 1920, 1080, 1440), can=_KLING_2_5, from_picture={}),
    "kling3.0_standard": _kling("Kling 3.0 Standard", 1280, 720, 960),
    "kling3.0_pro": _kling("Kling 3.0 Pro", 1920, 1080, 1440),
    "kling3.0_4k": _kling("Kling 3.0 4K", 3840, 2160, 2880),
}


# Runway's words

_RUNNING = {"pending": True, "throttled": True, "running": False}  # whether the task still waits

# A status that is not here proves nothing about a create (408, 409, 303, every 5xx): it is unsure.
_STATUSES: dict[int, Cause] = {
    **dict.fromkeys((400, 413, 422), Cause.BAD_INPUT),
    401: Cause.BAD_KEY,
    402: Cause.NO_CREDIT,
    403: Cause.NOT_ALLOWED,
    **dict.fromkeys((404, 405, 406, 410, 411, 414, 415, 431), Cause.BROKEN),
    **dict.fromkeys((300, 301, 302, 307, 308), Cause.BROKEN),
    429: Cause.BUSY,
}
_NO_CREDIT = re.compile(r"enough credits", re.IGNORECASE)
_MODERATED = ("SAFETY.", "INPUT_PREPROCESSING.SAFETY.")
_BAD_ASSET = "ASSET.INVALID"


class Runway:
    """The adapter of Runway. Of the paid calls it makes exactly one per `submit`, never a second."""

    def __init__(
        self, *, http: aiohttp.ClientSession, settings: RunwaySettings, allow_private_addresses: bool = False
    ) -> None:
        self._http = http
        self._settings = settings
        self._allow_private = allow_private_addresses
        self._unknown_words: set[str] = set()

    @property
    def variants(self) -> dict[str, Capabilities]:
        """The models this route reaches, by Runway's names."""
        return {name: model.can for name, model in _MODELS.items()}

    async def upload(self, request: ClipRequest) -> ClipRequest:
        """Upload the pictures that are too large to send along. Runway lets go of one that nobody uses by itself."""
        _options(request)  # what will be refused is not uploaded
        return replace(
            request,
            picture=await self._uploaded(request.picture),
            end_picture=await self._uploaded(request.end_picture),
        )

    async def submit(self, request: ClipRequest) -> Accepted:
        """Make the one paid call.

        Raises ProviderRejected or ProviderBusy only where the answer, or the lack of a connection,
        proves that nothing was made; everything else is ProviderUnsure.
        """
        body = _options(request)
        if request.picture:
            body["promptImage"] = _pictures(request.picture, request.end_picture)
        path = "/v1/image_to_video" if request.picture else "/v1/text_to_video"
        answer = await self._call("POST", path, body)
        _raise_for_error(answer)
        task = _at(answer.body, "id")
        if not isinstance(task, str) or not task:
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no task id"))
        return Accepted(task)

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        """Ask how a task does. A success without a link is still rendering. Each success has a fresh link."""
        answer = await self._call("GET", f"/v1/tasks/{quote(task, safe='')}")
        _raise_for_error(answer)
        word = _at(answer.body, "status")
        if not isinstance(word, str) or not word:
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no status"))
        match word.casefold():
            case "succeeded":
                link = _at(answer.body, "output", 0)
                usable = isinstance(link, str) and re.match("https?://", link, re.IGNORECASE)
                return Ready(str(link)) if usable else StillRendering()
            case "failed":
                return self._failure(answer.body)
            case "cancelled":
                return Broke(Cause.BROKEN, charged=_charged(answer.body))
            case running if running in _RUNNING:
                share = _number(_at(answer.body, "progress"))
                return StillRendering(
                    progress=None if share is None else min(max(share, 0.0), 1.0), queued=_RUNNING[running]
                )
            case _:
                if word not in self._unknown_words and len(self._unknown_words) < MOST_UNKNOWN_WORDS:
                    self._unknown_words.add(word)
                    log.warning("runway_unknown_status", word=word[:80])
                return StillRendering()

    async def fetch(self, clip_url: str, into: Path) -> None:
        """Write the clip to `into`, whole or not at all; see `bot.providers.http.download`."""
        await download(
            self._http,
            clip_url,
            into,
            max_bytes=self._settings.clip_max_bytes,
            time_limit=timedelta(seconds=self._settings.clip_timeout),
            allow_private=self._allow_private,
        )

    async def probe(self) -> Balance:
        """The credits that are left."""
        answer = await self._call("GET", "/v1/organization")
        _raise_for_error(answer)
        left = _number(_at(answer.body, "creditBalance"))
        if left is None:
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no balance"))
        return Balance(amount=left, unit="credits")

    async def aclose(self) -> None:
        """Nothing to let go of: the session belongs to whoever made it."""

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        return await call(
            self._http,
            method,
            self._settings.base_url + path,
            json=body,
            headers={
                "Authorization": f"Bearer {self._settings.api_key.get_secret_value()}",
                "X-Runway-Version": VERSION,
                "Content-Type": "application/json",
                "Accept": "application/json",
            },
            time_limit=timedelta(seconds=self._settings.request_timeout),
        )

    async def _uploaded(self, picture: Picture | None) -> Picture | None:
        """The picture by Runway's name for it, unless it goes along."""
        if picture is None or _goes_along(picture):
            return picture
        name = f"picture.{picture.extension}"
        answer = await self._call("POST", "/v1/uploads", {"filename": name, "type": "ephemeral"})
        _raise_for_error(answer)
        address, fields, uri = (_at(answer.body, key) for key in ("uploadUrl", "fields", "runwayUri"))
        if not (isinstance(address, str) and isinstance(fields, dict) and isinstance(uri, str)):
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no upload"))
        form = {str(name): str(value) for name, value in fields.items()}
        file = File(key="file", name=name, data=picture.data, media_type=picture.media_type)
        limit = timedelta(seconds=self._settings.request_timeout)
        try:
            stored = await upload(
                self._http, address, form, file, time_limit=limit, allow_private=self._allow_private
            )
        except ProviderUnsure as error:
            raise _not_stored(error.detail) from error
        if stored.status >= 300:  # the form is used up: the next attempt asks for a new one
            raise _not_stored(_detail(stored))
        return replace(picture, uploaded=uri)

    def _failure(self, task: object) -> Broke:
        """Refusals by moderation are charged in full, and a task says what it cost."""
        code, words = _at(task, "failureCode"), _at(task, "failure")
        code = code if isinstance(code, str) else ""
        log.info("runway_task_failed", code=code[:80], reason=masked(str(words))[:500])
        charged = _charged(task)
        if code.startswith(_MODERATED):
            return Broke(Cause.MODERATION, charged=True if charged is None else charged)
        return Broke(Cause.BAD_INPUT if code.startswith(_BAD_ASSET) else Cause.BROKEN, charged=charged)


def _not_stored(detail: str) -> ProviderBusy:
    """Another server holds the pictures: what is wrong there says nothing against the route."""
    return ProviderBusy(f"upload: {detail}", retry_after=AFTER_NO_CONNECTION)


def _options(request: ClipRequest) -> dict[str, object]:
    """All fields but the pictures. A field that a model does not know is refused, so none is sent in vain."""
    model = _MODELS.get(request.variant)
    if model is None:
        raise ProviderRejected(Cause.BAD_INPUT, f"no model {request.variant!r} on this route")
    can = model.can
    if request.picture is None and (not can.text_only or request.end_picture):
        raise ProviderRejected(Cause.BAD_INPUT, "this clip needs a picture to start from")
    body: dict[str, object] = {"model": request.variant, "duration": request.seconds}
    pixels = model.from_picture if request.picture else model.from_words
    if pixels:
        quality = request.quality or next(iter(can.qualities), None)
        ratio = pixels.get((quality, request.ratio or "16:9"))
        if ratio is None:
            raise ProviderRejected(Cause.BAD_INPUT, f"no ratio {request.ratio} at quality {request.quality}")
        body["ratio"] = ratio
    if request.prompt:
        body["promptText"] = request.prompt
    if request.negative_prompt and can.negative_prompt:
        body["negativePrompt"] = request.negative_prompt
    if request.strength is not None and can.strength:
        body["cfgScale"] = float(request.strength)
    if can.sound:
        body["audio"] = request.sound  # its default is not documented, and it doubles the price
    return body


def _pictures(first: Picture, last: Picture | None) -> object:
    """What `promptImage` holds."""
    if last is None:
        return _uri(first)
    return [{"uri": _uri(first), "position": "first"}, {"uri": _uri(last), "position": "last"}]


def _uri(picture: Picture) -> str:
    if picture.uploaded:
        return picture.uploaded
    if not _goes_along(picture):
        raise ProviderRejected(Cause.BROKEN, "a picture is too large to send along, and was not uploaded")
    return _data_uri_start(picture) + base64.b64encode(picture.data).decode()


def _goes_along(picture: Picture) -> bool:
    return len(_data_uri_start(picture)) + 4 * math.ceil(len(picture.data) / 3) <= LONGEST_DATA_URI


def _data_uri_start(picture: Picture) -> str:
    return f"data:{picture.media_type};base64,"


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


def _charged(task: object) -> bool | None:
    """Whether a task that ended cost something; None where it does not say."""
    cost = _number(_at(task, "cost", "credits"))
    return None if cost is None else cost > 0


def _number(value: object) -> float | None:
    if isinstance(value, bool) or not isinstance(value, int | float) or not math.isfinite(value):
        return None
    return float(value)


def _raise_for_error(answer: Answer) -> None:
    """Raises what an answer means that refuses."""
    if 200 <= answer.status < 300:
        return
    cause = _STATUSES.get(answer.status, Cause.NO_ANSWER)
    if 400 <= answer.status < 500 and _NO_CREDIT.search(answer.excerpt):
        cause = Cause.NO_CREDIT
    if cause is Cause.BUSY:
        raise ProviderBusy(_detail(answer), retry_after=retry_after(answer.headers) or AFTER_TOO_MANY)
    if cause is Cause.NO_ANSWER:
        raise ProviderUnsure(cause, _detail(answer))
    raise ProviderRejected(cause, _detail(answer))


def _detail(answer: Answer, lacks: str = "") -> str:
    """For the logs: the status and the beginning of the answer, without secrets."""
    return f"answered {answer.status}{f', {lacks}' if lacks else ''}: {answer.excerpt}"
