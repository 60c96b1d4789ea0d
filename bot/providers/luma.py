"""The routes `luma` and `luma_agents`: Luma's own two APIs, with a key each.

`luma` is Dream Machine v1 (docs.lumalabs.ai, OpenAPI of 2025-06, SDK lumaai 1.21): ray-2 and ray-flash-2,
pictures by link only. `luma_agents` is Agents v1 (docs.agents.lumalabs.ai, SDK luma_agents 0.5): ray-3.2,
pictures as bytes. Neither takes a name of ours for a task, so a second create is a second clip. Dream Machine
repeats a task's callback address in its list, and there our reference is found again; Agents has no list.
"""

import base64
import json
import re
from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path
from typing import ClassVar
from urllib.parse import quote, urlsplit

import aiohttp
import structlog
from pydantic import Field

from bot.errors import Cause, ProviderBusy, ProviderRejected, ProviderUnsure
from bot.jobs.machine import Accepted, Broke, Ready, StillRendering
from bot.providers.base import Balance, Capabilities, ClipRequest, Only, Picture, Price, nearest_ratio
from bot.providers.http import Answer, call, download, masked, retry_after
from bot.providers.settings import Address, Key, UrlPath, WebRouteSettings

log = structlog.get_logger(__name__)

PAGE = 50  # generations in one answer of the list; so many with long prompts stay far below what `call` reads
MOST_PAGES = 10
NOBODY = "00000000-0000-0000-0000-000000000000"


class LumaSettings(WebRouteSettings):
    """[routes.luma]"""

    api_key: Key = Field(description="A key of Luma's Dream Machine API; it begins with luma-")
    base_url: Address = Field(
        default="https://api.lumalabs.ai/dream-machine/v1", description="Where the API answers"
    )
    create_path: UrlPath = Field(
        default="/generations/video",
        description="Creates a clip; some pages of the documentation say /generations",
    )
    tag_url: Address | None = Field(
        default=None,
        description="Without [callbacks]: below it each clip gets an address that Luma may call in vain, so that "
        "a clip whose answer was lost can be found; unset: none is sent",
        examples=["https://animatic.invalid"],
    )

    @property
    def usual_models(self) -> dict[str, str]:
        return {"ray-2": "ray-2", "ray-flash-2": "ray-flash-2"}


class LumaAgentsSettings(WebRouteSettings):
    """[routes.luma_agents]"""

    api_key: Key = Field(description="A key of Luma's Agents API; it begins with luma-api-")
    base_url: Address = Field(default="https://agents.lumalabs.ai/v1", description="Where the API answers")

    @property
    def usual_models(self) -> dict[str, str]:
        return {"ray-3-2": "ray-3.2"}


# What the models can do. Both APIs take a ratio beside a picture, but clients report that the clip then has the
# picture's own shape; so none is offered there, and the nearest is sent in case it counts after all. Limits for
# pictures are not published, but for the 50 MB of Agents.

# Keys of `concepts`, by the plain names that other routes have too. Luma's own word for a slide is truck.
_CONCEPTS = {
    "zoom in": "zoom_in",
    "zoom out": "zoom_out",
    "pan left": "pan_left",
    "pan right": "pan_right",
    "tilt up": "tilt_up",
    "tilt down": "tilt_down",
    "slide left": "truck_left",
    "slide right": "truck_right",
    "crane up": "crane_up",
    "crane down": "crane_down",
    "roll left": "roll_left",
    "roll right": "roll_right",
    "orbit left": "orbit_left",
    "orbit right": "orbit_right",
    "push in": "push_in",
    "pull out": "pull_out",
    "static": "static",
}


def _prices(table: Mapping[int, Mapping[str, str]]) -> tuple[Price, ...]:
    return tuple(
        Price(a_clip=Decimal(dollars), seconds=seconds, quality=quality)
        for seconds, by_quality in table.items()
        for quality, dollars in by_quality.items()
    )


_RAY_2 = Capabilities(
    label="Ray 2",
    seconds=(5, 9),
    qualities=("720p", "540p", "1080p", "4k"),
    ratios=("16:9", "9:16", "1:1", "4:3", "3:4", "21:9", "9:21"),
    prompt_length=5000,
    cameras=tuple(_CONCEPTS),
    loop=True,
    only=(Only(option="loop", end_picture=False),),
    end_picture=True,
    text_only=True,
    by_link=True,
    prices=_prices(  # Luma's prices as a partner passed them on in 2025; its own list for this API was not found
        {
            5: {"540p": "0.40", "720p": "0.71", "1080p": "1.59", "4k": "6.37"},
            9: {"540p": "0.72", "720p": "1.27", "1080p": "2.87", "4k": "11.47"},
        }
    ),
    typical=timedelta(seconds=110),
)
_RAY_FLASH_2 = replace(
    _RAY_2, label="Ray Flash 2", prices=()
)  # only a reseller's prices, with a margin, were found
_RAY_3_2 = Capabilities(
    label="Ray 3.2",
    seconds=(5, 10),
    qualities=("720p", "360p", "540p", "1080p"),
    ratios=("16:9", "9:16", "1:1", "4:3", "3:4", "21:9"),
    prompt_length=6000,
    prompt_required=True,
    loop=True,
    only=(Only(option="loop", seconds=(5,), end_picture=False),),
    end_picture=True,
    text_only=True,
    prices=_prices(  # Luma's list of 2026-07-10, SDR: 10 s cost more than twice 5 s
        {
            5: {"360p": "0.06", "540p": "0.15", "720p": "0.30", "1080p": "1.20"},
            10: {"360p": "0.18", "540p": "0.45", "720p": "0.90", "1080p": "3.60"},
        }
    ),
    typical=timedelta(seconds=110),
)
_LAST_FRAME_OF_10 = 240  # on Agents' grid of 24 a second


# Luma's words.

_RUNNING = {"queued": True, "dreaming": False, "processing": False}  # whether it waits in line

_FAILURE_CODES = {
    "content_moderated": Cause.MODERATION,
    "budget_exhausted": Cause.NO_CREDIT,
    **dict.fromkeys(
        ("image_too_large", "unsupported_format", "corrupt_input", "invalid_request"), Cause.BAD_INPUT
    ),
    **dict.fromkeys(("generation_failed", "output_not_found", "rate_limited"), Cause.BROKEN),
}

_MODERATED = re.compile(r"moderat|blacklist|content[ _-]?polic|inappropriate|nsfw", re.IGNORECASE)
_NO_CREDIT = re.compile(r"(insufficient|not enough|out of|no) (credit|fund|balance)", re.IGNORECASE)
_BAD_KEY = re.compile(r"api key|authenticat", re.IGNORECASE)
_BAD_FRAMES = re.compile(r"user input frame", re.IGNORECASE)
_LINK_PATH = re.compile(r"(https?://[^/\s\"'\\]+)/[^\s\"'\\]*", re.IGNORECASE)

# A status that is not here proves nothing about a create (408, 409, every 5xx): it is unsure.
_REFUSALS = {
    **dict.fromkeys((400, 413, 422), Cause.BAD_INPUT),
    401: Cause.BAD_KEY,
    402: Cause.NO_CREDIT,
    403: Cause.NOT_ALLOWED,
    **dict.fromkeys((404, 405, 406, 410, 411, 414, 415, 431), Cause.BROKEN),
    **dict.fromkeys((300, 301, 302, 307, 308), Cause.BROKEN),  # the address is wrong
}


class _Luma(ABC):
    """What both APIs share: the key, the envelope of a task, and most words."""

    models: ClassVar[Mapping[str, Capabilities]]
    create_path: str

    def __init__(
        self,
        *,
        http: aiohttp.ClientSession,
        settings: LumaSettings | LumaAgentsSettings,
        allow_private_addresses: bool = False,
    ) -> None:
        self._http = http
        self._settings = settings
        self._allow_private = allow_private_addresses
        self._unknown_words: set[str] = set()

    @property
    def variants(self) -> dict[str, Capabilities]:
        return dict(self.models)

    @abstractmethod
    def _order(self, request: ClipRequest) -> dict[str, object]:
        """The body of the create call. Raises ProviderRejected(BAD_INPUT) for what it has no way to say."""

    @abstractmethod
    def _link(self, generation: object) -> str:
        """The clip's address in the envelope of a task that is done; empty where there is none."""

    @abstractmethod
    def _broke(self, generation: object) -> Broke:
        """Why a task failed, and whether it was charged."""

    async def submit(self, request: ClipRequest) -> Accepted:
        """Make the one paid call.

        Raises ProviderRejected or ProviderBusy only where the answer, or the lack of a connection,
        proves that nothing was made; everything else is ProviderUnsure.
        """
        if request.variant not in self.models:
            raise ProviderRejected(Cause.BAD_INPUT, f"no model {request.variant!r} on this route")
        answer = await self._call("POST", self.create_path, self._order(request))
        _raise_for_error(answer)
        task = _text_at(answer.body, "id")
        if not task:
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no id"))
        return Accepted(task)

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        """Ask how a task does. A success without a link is still rendering: the link comes later."""
        answer = await self._call("GET", f"/generations/{quote(task, safe='')}")
        _raise_for_error(answer)
        word = _text_at(answer.body, "state")
        if not word:
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no state"))
        match word.casefold():
            case "completed":
                link = self._link(answer.body)
                return Ready(link) if re.match("https?://", link, re.IGNORECASE) else StillRendering()
            case "failed":
                reason = f"{_text_at(answer.body, 'failure_code')} {_text_at(answer.body, 'failure_reason')}"
                log.info("luma_task_failed", reason=masked(reason.strip())[:500])
                return self._broke(answer.body)
            case running if running in _RUNNING:
                return StillRendering(queued=_RUNNING[running])
            case unknown:
                if unknown not in self._unknown_words:
                    self._unknown_words.add(unknown)
                    log.warning("luma_unknown_status", word=unknown[:80])
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

    async def aclose(self) -> None:  # noqa: B027  # nothing to do is right for both
        """Nothing to let go of: the session belongs to whoever made it."""

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        return await call(
            self._http,
            method,
            self._settings.base_url + path,
            json=body,
            headers={
                "Authorization": f"Bearer {self._settings.api_key.get_secret_value()}",
                "Accept": "application/json",
            },
            time_limit=timedelta(seconds=self._settings.request_timeout),
        )


class Luma(_Luma):
    """Dream Machine v1. It takes back all credits of a task that failed (FAQ, "What if my generation fails")."""

    models: ClassVar = {"ray-2": _RAY_2, "ray-flash-2": _RAY_FLASH_2}

    def __init__(
        self, *, http: aiohttp.ClientSession, settings: LumaSettings, allow_private_addresses: bool = False
    ) -> None:
        super().__init__(http=http, settings=settings, allow_private_addresses=allow_private_addresses)
        self.create_path = settings.create_path
        self._tag_url = settings.tag_url

    async def find(self, reference: str) -> Accepted:
        """The task whose callback address carries the reference, among the account's latest.

        Raises ProviderUnsure where none does: the task may be there without, and a second create would not
        be refused, so this route never says that a task is absent.
        """
        offset = 0
        for _ in range(MOST_PAGES):
            answer = await self._call("GET", f"/generations?limit={PAGE}&offset={offset}")
            _raise_for_error(answer)
            page = _at(answer.body, "generations")
            if not isinstance(page, list):
                raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no list"))
            for generation in page:
                task = _text_at(generation, "id")
                if task and reference in _segments(_text_at(generation, "request", "callback_url")):
                    return Accepted(task)
            more = _at(answer.body, "has_more")
            if not page or more is False or (more is not True and len(page) < PAGE):
                break
            offset += len(page)
        raise ProviderUnsure(Cause.NO_ANSWER, "none of the latest generations carries the reference")

    def hear(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """The task that a callback names. Luma signs nothing: the secret is in the address it was given."""
        try:
            return _text_at(json.loads(body), "id") or None
        except (ValueError, RecursionError):
            return None

    async def probe(self) -> Balance:
        """Ask for the balance, which Luma gives in cents."""
        answer = await self._call("GET", "/credits")
        _raise_for_error(answer)
        cents = _at(answer.body, "credit_balance")
        if not isinstance(cents, int | float) or isinstance(cents, bool):
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no balance"))
        if cents <= 0:
            raise ProviderRejected(Cause.NO_CREDIT, "the balance is used up")
        return Balance(amount=round(cents / 100, 2), unit="$")

    def _order(self, request: ClipRequest) -> dict[str, object]:
        """VideoCreateParams of the SDK. Fields that were not chosen are left out."""
        if not request.prompt and not request.picture:
            raise ProviderRejected(Cause.BAD_INPUT, "a clip without a picture needs words")
        body: dict[str, object] = {"model": request.variant, "duration": f"{request.seconds}s"}
        if request.prompt:
            body["prompt"] = request.prompt
        if ratio := _ratio(request, _RAY_2):
            body["aspect_ratio"] = ratio
        if request.quality:
            body["resolution"] = request.quality
        if request.loop:
            body["loop"] = True
        if request.camera:
            if request.camera not in _CONCEPTS:
                raise ProviderRejected(Cause.BAD_INPUT, f"no camera {request.camera!r}")
            body["concepts"] = [{"key": _CONCEPTS[request.camera]}]
        frames = {"frame0": request.picture, "frame1": request.end_picture}
        if keyframes := {
            name: {"type": "image", "url": _public(picture)} for name, picture in frames.items() if picture
        }:
            body["keyframes"] = keyframes
        if request.callback:
            body["callback_url"] = request.callback
        elif self._tag_url:
            body["callback_url"] = f"{self._tag_url}/{request.reference}"
        return body

    def _link(self, generation: object) -> str:
        return _text_at(generation, "assets", "video")

    def _broke(self, generation: object) -> Broke:
        """`failure_reason` is free text."""
        reason = _text_at(generation, "failure_reason")
        if _MODERATED.search(reason):
            return Broke(Cause.MODERATION, charged=False)
        return Broke(Cause.BAD_INPUT if _BAD_FRAMES.search(reason) else Cause.BROKEN, charged=False)


class LumaAgents(_Luma):
    """Agents v1. Its pages do not say whether a task that failed is charged. It has neither list nor callback."""

    models: ClassVar = {"ray-3.2": _RAY_3_2}
    create_path = "/generations"

    async def probe(self) -> None:
        """Ask for a task that is not there: a good key is told so. The API has no balance."""
        answer = await self._call("GET", f"/generations/{NOBODY}")
        try:
            _raise_for_error(answer)
        except ProviderRejected as refused:
            if answer.status not in (400, 404, 422) or refused.cause not in (Cause.BAD_INPUT, Cause.BROKEN):
                raise
        if not isinstance(answer.body, dict):  # a page of whoever has the address now
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no JSON"))

    def _order(self, request: ClipRequest) -> dict[str, object]:
        """GenerationCreateParams of the SDK.

        `start_frame` and `end_frame` are for 5 s; at 10 s the same pictures are keyframes on the first and
        the last place of the grid.
        """
        if not request.prompt:
            raise ProviderRejected(Cause.BAD_INPUT, "this model needs words")
        video: dict[str, object] = {"duration": f"{request.seconds}s"}
        if request.quality:
            video["resolution"] = request.quality
        if request.loop:
            video["loop"] = True
        frames = (("start_frame", 0, request.picture), ("end_frame", _LAST_FRAME_OF_10, request.end_picture))
        given = [(name, place, _in_base64(picture)) for name, place, picture in frames if picture]
        if given and request.seconds == 10:
            video["keyframes"] = [image for _, _, image in given]
            video["keyframe_indexes"] = [place for _, place, _ in given]
        else:
            video |= {name: image for name, _, image in given}
        body: dict[str, object] = {
            "model": request.variant,
            "type": "video",
            "prompt": request.prompt,
            "video": video,
        }
        if ratio := _ratio(request, _RAY_3_2):
            body["aspect_ratio"] = ratio
        return body

    def _link(self, generation: object) -> str:
        outputs = _at(generation, "output")
        videos = (
            [each for each in outputs if _at(each, "type") == "video"] if isinstance(outputs, list) else []
        )
        return _text_at(videos[0], "url") if videos else ""

    def _broke(self, generation: object) -> Broke:
        cause = _FAILURE_CODES.get(_text_at(generation, "failure_code"))
        if cause is None and _MODERATED.search(_text_at(generation, "failure_reason")):
            cause = Cause.MODERATION
        return Broke(cause or Cause.BROKEN, charged=None)


# Building


def _ratio(request: ClipRequest, can: Capabilities) -> str | None:
    first = request.picture or request.end_picture
    if request.ratio or not first or not first.width or not first.height:
        return request.ratio
    return nearest_ratio(first.width, first.height, can.ratios)


def _public(picture: Picture) -> str:
    if not picture.link:
        raise ProviderRejected(Cause.BAD_INPUT, "this model takes a link to the picture, and there is none")
    return picture.link


def _in_base64(picture: Picture) -> dict[str, str]:
    """Without `data:` before it; the type stands beside it."""
    return {"data": base64.b64encode(picture.data).decode(), "media_type": picture.media_type}


# Reading the answers: the one place where the provider's JSON has no type. Every field may be missing.


def _at(body: object, *path: str) -> object:
    for key in path:
        body = body.get(key) if isinstance(body, dict) else None
    return body


def _text_at(body: object, *path: str) -> str:
    found = _at(body, *path)
    return found if isinstance(found, str) else ""


def _segments(url: str) -> list[str]:
    try:
        return urlsplit(url).path.split("/")
    except ValueError:
        return []


def _words(body: object) -> str:
    """The sentence in `detail`; or those in its list, without the input that stands beside them."""
    detail = _at(body, "detail")
    if isinstance(detail, list):
        return " ".join(_text_at(each, "msg") for each in detail)
    return detail if isinstance(detail, str) else ""


def _raise_for_error(answer: Answer) -> None:
    """Raises what an answer means that is no 2xx."""
    if 200 <= answer.status < 300:
        return
    if answer.status == 429:  # too many a minute, or at the same time
        raise ProviderBusy(_detail(answer), retry_after=retry_after(answer.headers))
    cause = _REFUSALS.get(answer.status)
    if cause is None:
        raise ProviderUnsure(Cause.NO_ANSWER, _detail(answer))
    if cause in (Cause.BAD_INPUT, Cause.NOT_ALLOWED):  # which status Dream Machine gives is not documented
        words = _words(answer.body)
        for pattern, meaning in (
            (_NO_CREDIT, Cause.NO_CREDIT),
            (_MODERATED, Cause.MODERATION),
            (_BAD_KEY, Cause.BAD_KEY),
        ):
            if pattern.search(words):
                cause = meaning
                break
    raise ProviderRejected(cause, _detail(answer))


def _detail(answer: Answer, lacks: str = "") -> str:
    """For the logs. Luma repeats the request, and the callback address in it has its secret in the path."""
    text = _LINK_PATH.sub(r"\1/…", answer.excerpt)
    return f"answered {answer.status}{f', {lacks}' if lacks else ''}: {text}"
