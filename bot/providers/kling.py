"""The route `kling`: Kling's own API, documented at kling.ai/document-api.

Kling has two standards side by side. Here are the settings, what both share, and the new one: the model is
in the path, and tasks are asked for twenty at a time. `kling_legacy.py` has the older one. Under both our
reference is Kling's `external_task_id`, which it takes once in an account: a task can be looked up by it,
and a second create under it is refused.
"""

import base64
import binascii
import hashlib
import hmac
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from ipaddress import ip_address
from pathlib import Path
from typing import Annotated, Literal, Self
from urllib.parse import quote, urlsplit

import aiohttp
import structlog
from pydantic import AfterValidator, BaseModel, ConfigDict, Field, SecretStr, model_validator

from bot.errors import Cause, ProviderBusy, ProviderError, ProviderRejected, ProviderUnsure
from bot.jobs.machine import Absent, Accepted, Broke, Ready, StillRendering
from bot.providers.base import Balance, Capabilities, ClipRequest, Only, Picture, PictureRules
from bot.providers.http import Answer, call, download, masked, retry_after

log = structlog.get_logger(__name__)

FRESH = 60.0  # seconds in which a new task may not be known yet
MOST_IDS = 20  # in one query; 21 are refused
MOST_UNKNOWN_WORDS = 20
CALLBACK_TOLERANCE = 300.0  # seconds between a callback's time and ours
PACKS_SINCE = timedelta(days=365)

# Settings


def _key(value: SecretStr | None) -> SecretStr | None:
    if value is None:
        return None
    text = value.get_secret_value().strip()
    if not text or not text.isascii() or not text.isprintable() or " " in text:
        raise ValueError("must be the key alone: printable ASCII without spaces")
    return SecretStr(text)


def _base(value: str) -> str:
    try:
        parts = urlsplit(value)
        secure = parts.scheme == "https" or (parts.scheme == "http" and _is_loopback(parts.hostname or ""))
        good = secure and parts.hostname and parts.port != 0
    except ValueError:
        good = False
    if not good or parts.username or parts.query or parts.fragment:
        raise ValueError("must be an https address (http only on this machine)")
    return value.rstrip("/")


def _is_loopback(host: str) -> bool:
    try:
        return ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _webhook_secret(value: SecretStr | None) -> SecretStr | None:
    if value is not None:
        try:
            good = bool(_webhook_key(value))
        except (binascii.Error, ValueError):
            good = False
        if not good:
            raise ValueError("must be as Kling's console shows it: whsec_ and base64")
    return value


def _webhook_key(secret: SecretStr) -> bytes:
    return base64.b64decode(secret.get_secret_value().strip().removeprefix("whsec_"), validate=True)


Key = Annotated[SecretStr | None, AfterValidator(_key)]


class KlingSettings(BaseModel):
    """[routes.kling]"""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    api_key: Key = Field(default=None, description="The API key of your Kling account, from its console")
    standard: Literal["new", "legacy"] = Field(
        default="new", description='Which of Kling\'s two APIs is used; "legacy" for the older models'
    )
    access_key: Key = Field(
        default=None, description="For legacy without an API key: the access key of your account"
    )
    secret_key: Key = Field(default=None, description="The secret key that belongs to the access key")
    webhook_secret: Annotated[SecretStr | None, AfterValidator(_webhook_secret)] = Field(
        default=None,
        description="The secret that Kling signs callbacks with, where its console has one; unset: not checked",
    )
    base_url: Annotated[str, AfterValidator(_base)] = Field(
        default="https://api-singapore.klingai.com",
        description="Where Kling answers; in mainland China https://api-beijing.klingai.com",
    )
    request_timeout: float = Field(
        default=60, gt=0, le=600, description="Seconds until a request without an answer is given up"
    )
    clip_max_bytes: int = Field(
        default=200 * 1024 * 1024, gt=0, description="The largest clip that is downloaded, in bytes"
    )
    clip_timeout: float = Field(
        default=300, gt=0, le=3600, description="Seconds until a download is given up"
    )

    @model_validator(mode="after")
    def _has_its_keys(self) -> Self:
        if bool(self.access_key) != bool(self.secret_key):
            raise ValueError("access_key and secret_key are set together or not at all")
        if not self.api_key and self.standard == "new":
            raise ValueError(
                'api_key is missing; access_key and secret_key serve only standard = "legacy"'
                if self.access_key
                else "api_key is missing: the API key of your Kling account, from its console"
            )
        if not self.api_key and not self.access_key:
            raise ValueError("api_key is missing (or access_key and secret_key)")
        return self


# What the models can do. A clip from a picture has the picture's shape.

UP_TO_15 = (5, *range(3, 5), *range(6, 16))

THREE = Capabilities(
    seconds=UP_TO_15,
    qualities=("720p", "1080p", "4k"),
    ratios=("16:9", "9:16", "1:1"),
    prompt_length=2500,
    sound=True,
    picture=PictureRules(max_bytes=50_000_000, min_side=300, min_ratio=1 / 2.5, max_ratio=2.5),
    end_picture=True,
    text_only=True,
    typical=timedelta(seconds=135),
    deadline=timedelta(minutes=30),
)
# Its clips always have sound, asked for or not.
THREE_TURBO = replace(
    THREE,
    qualities=("720p", "1080p"),
    end_picture=False,
    typical=timedelta(seconds=45),
    deadline=timedelta(minutes=15),
)
TWO_SIX = replace(
    THREE,
    seconds=(5, 10),
    qualities=("720p", "1080p"),
    only=(Only(option="sound", qualities=("1080p",)), Only(option="end_picture", qualities=("1080p",))),
    typical=timedelta(seconds=180),
)
TWO_FIVE_TURBO = replace(TWO_SIX, sound=False, only=(Only(option="end_picture", qualities=("1080p",)),))


# Kling's words. Compared without regard to case, both spellings of success under both standards.

_RUNNING = {"submitted": True, "processing": False}  # whether the task still waits
_DONE = frozenset({"succeed", "succeeded"})

_MODERATED = re.compile(
    r"moderat|risk control|content[ _-]?(security|polic)|safety|nsfw|inappropriate"
    r"|(sensitive|prohibited|forbidden) (content|word|info|material)|violat\w*.{0,40}(polic|guideline|terms)",
    re.IGNORECASE,
)
_TAKEN = re.compile(r"already exist|duplicat", re.IGNORECASE)
_RETIRED = re.compile(r"discontinued|no longer available", re.IGNORECASE)
_NOT_VIDEO = re.compile(r"image|audio|try", re.IGNORECASE)

# Kling's error codes; they go before the HTTP status: 429 also means no money (1101, 1102), a blocked
# account (1100) or an address that is not on the account's list (1304).
INVALID = 1201
_CODES: dict[int, Cause] = {
    **dict.fromkeys((1000, 1001, 1002, 1003, 1004, 1100, 1304), Cause.BAD_KEY),
    **dict.fromkeys((1101, 1102), Cause.NO_CREDIT),
    **dict.fromkeys((1103, 1203), Cause.NOT_ALLOWED),
    **dict.fromkeys((1200, INVALID), Cause.BAD_INPUT),
    1202: Cause.BROKEN,
    **dict.fromkeys((1300, 1301), Cause.MODERATION),
    **dict.fromkeys((1302, 1303), Cause.BUSY),
    **dict.fromkeys((5000, 5001, 5002), Cause.NO_ANSWER),
}

# For an answer without a code, as from a proxy in between. A status that is not here proves nothing about a
# create (408, 409, 303, every 5xx): it is unsure.
_STATUSES: dict[int, Cause] = {
    **dict.fromkeys((400, 413, 422), Cause.BAD_INPUT),
    401: Cause.BAD_KEY,
    402: Cause.NO_CREDIT,
    403: Cause.NOT_ALLOWED,
    **dict.fromkeys((404, 405, 406, 410, 411, 414, 415, 431), Cause.BROKEN),
    **dict.fromkeys((300, 301, 302, 307, 308), Cause.BROKEN),
    429: Cause.BUSY,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Order:
    """One create call."""

    path: str
    body: dict[str, object]


class KlingApi(ABC):
    """What both standards share. Of the paid calls it makes one per `submit`, never a second that may be taken.

    `clock` gives the Unix time in seconds.
    """

    def __init__(
        self,
        *,
        http: aiohttp.ClientSession,
        settings: KlingSettings,
        allow_private_addresses: bool = False,
        clock: Callable[[], float] = time.time,
    ) -> None:
        self._http = http
        self._settings = settings
        self._allow_private = allow_private_addresses
        self._clock = clock
        self._fresh: dict[str, float] = {}
        self._unknown_words: set[str] = set()

    @property
    @abstractmethod
    def variants(self) -> dict[str, Capabilities]:
        """The models this route reaches, by Kling's names."""

    @abstractmethod
    def _order(self, request: ClipRequest) -> Order: ...

    @abstractmethod
    async def _look(self, task: str) -> object:
        """What Kling tells of a task, None where it knows none."""

    @abstractmethod
    async def find(self, reference: str) -> Accepted | Absent:
        """The task under our reference. Kling refuses a second create under it, so Absent is safe."""

    async def submit(self, request: ClipRequest) -> Accepted:
        """Make the one paid call; where an earlier attempt of ours is there already, go on with that.

        Raises ProviderRejected or ProviderBusy only where the answer, or the lack of a connection,
        proves that nothing was made; everything else is ProviderUnsure.
        """
        if request.variant not in self.variants:
            raise ProviderRejected(Cause.BAD_INPUT, f"no model {request.variant!r} on this route")
        if not request.picture and (not request.prompt or request.end_picture):
            raise ProviderRejected(Cause.BAD_INPUT, "a clip without a first picture needs words, and no last")
        order = self._order(request)
        answer = await self._call("POST", order.path, order.body)
        if code_of(answer.body) == INVALID:
            return await self._adopt(request.reference, answer)
        raise_for_error(answer)
        task = task_id(at(answer.body, "data"))
        if task is None:
            raise ProviderUnsure(Cause.UNREADABLE, detail(answer, "no task id"))
        now = self._clock()
        self._fresh = {known: then for known, then in self._fresh.items() if now - then < FRESH}
        self._fresh[task] = now
        return Accepted(task)

    async def _adopt(self, reference: str, refusal: Answer) -> Accepted:
        """1201 stands for a second create under one reference, and for every other wrong value."""
        try:
            found = await self.find(reference)
        except ProviderError as error:
            raise ProviderUnsure(Cause.NO_ANSWER, f"{detail(refusal)}; look-up: {error.detail}") from error
        if isinstance(found, Accepted):
            log.info("kling_task_adopted", task=found.task)
            return found
        if _TAKEN.search(message_of(refusal.body)):
            raise ProviderUnsure(Cause.UNREADABLE, detail(refusal, "and the look-up finds nothing"))
        raise_for_error(refusal)
        raise AssertionError("1201 is an error")

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        """Ask how a task does. A success without a link, or a task too fresh to be known, is still rendering."""
        found = await self._look(task)
        if found is None:
            if self._clock() - self._fresh.get(task, 0) < FRESH:
                return StillRendering()
            raise ProviderRejected(Cause.BROKEN, f"task {task[:80]!r} is not known")
        outcome = self._outcome(found)
        if outcome is None:
            raise ProviderUnsure(Cause.UNREADABLE, f"no status of task {task[:80]!r}")
        return outcome

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

    async def probe(self) -> Balance | None:
        """The units left in the packs for video, as of up to 12 hours ago; None for an account without packs.

        Kling wants it asked at most once a second.
        """
        now = self._clock()
        since = now - PACKS_SINCE.total_seconds()
        query = f"start_time={int(since * 1000)}&end_time={int(now * 1000)}"
        answer = await self._call("GET", f"/account/costs?{query}")
        raise_for_error(answer)
        data = at(answer.body, "data")
        raise_for_error(replace(answer, body=data))  # wrapped twice
        packs = at(data, "resource_pack_subscribe_infos")
        if not isinstance(packs, list):
            raise ProviderUnsure(Cause.UNREADABLE, detail(answer, "no resource packs"))
        for_video = [pack for pack in packs if not _NOT_VIDEO.search(text_at(pack, ("resource_pack_name",)))]
        left = [
            number(at(pack, "remaining_quantity")) or 0.0
            for pack in for_video
            if at(pack, "status") == "online"
        ]
        return Balance(amount=sum(left), unit="units") if for_video else None

    def hear(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """The task that a callback speaks of; None where it is not genuine, too old, or names none.

        Only with a webhook secret is it signed; without, its secret address is all there is.
        """
        if self._settings.webhook_secret and not self._is_genuine(headers, body):
            return None
        try:
            return task_id(json.loads(body))
        except (ValueError, RecursionError):
            return None

    async def aclose(self) -> None:  # noqa: B027  # nothing to do is the default
        """Nothing to let go of: the session belongs to whoever made it."""

    def _is_genuine(self, headers: Mapping[str, str], body: bytes) -> bool:
        """Standard Webhooks; while a secret is being changed, the old and the new one both sign."""
        assert self._settings.webhook_secret
        named = {name.lower(): value for name, value in headers.items()}
        message, sent, given = (named.get(f"webhook-{part}", "") for part in ("id", "timestamp", "signature"))
        if not message or not re.fullmatch(r"[0-9]{1,15}", sent):
            return False
        if abs(self._clock() - int(sent)) > CALLBACK_TOLERANCE:
            return False
        signed = f"{message}.{sent}.".encode("utf-8", "surrogateescape") + body
        digest = hmac.new(_webhook_key(self._settings.webhook_secret), signed, hashlib.sha256).digest()
        expected = b"v1," + base64.b64encode(digest)
        return any(
            hmac.compare_digest(expected, signature.encode("utf-8", "surrogateescape"))
            for signature in given.split(" ")
        )

    # Asking

    def _token(self) -> str:
        assert self._settings.api_key
        return self._settings.api_key.get_secret_value()

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        return await call(
            self._http,
            method,
            self._settings.base_url + path,
            json=body,
            headers={"Authorization": f"Bearer {self._token()}", "Accept": "application/json"},
            time_limit=timedelta(seconds=self._settings.request_timeout),
        )

    def _outcome(self, task: object) -> StillRendering | Ready | Broke | None:
        """What a task's object says, in the shape of either standard; None where it has no status."""
        word = text_at(task, ("status",), ("task_status",))
        match word.casefold():
            case "":
                return None
            case done if done in _DONE:
                link = clip_link(task)
                return Ready(link) if link else StillRendering()
            case running if running in _RUNNING:
                return StillRendering(queued=_RUNNING[running])
            case "failed":
                reason = text_at(task, ("message",), ("task_status_msg",))
                log.info("kling_task_failed", reason=masked(reason)[:500])
                moderated = _MODERATED.search(reason)
                return Broke(Cause.MODERATION if moderated else Cause.BROKEN, charged=charged(task))
            case _:
                if word not in self._unknown_words and len(self._unknown_words) < MOST_UNKNOWN_WORDS:
                    self._unknown_words.add(word)
                    log.warning("kling_unknown_status", word=word[:80])
                return StillRendering()


class Kling(KlingApi):
    """The adapter of Kling's new standard."""

    @property
    def variants(self) -> dict[str, Capabilities]:
        """The models this route reaches, by Kling's names; all make clips from words alone as well."""
        return {
            "kling-3.0": THREE,
            "kling-3.0-turbo": THREE_TURBO,
            "kling-2.6": TWO_SIX,
            "kling-2.5-turbo": TWO_FIVE_TURBO,
        }

    @property
    def most_checks(self) -> int:
        """How many tasks `check_many` takes at once."""
        return MOST_IDS

    async def check_many(self, tasks: Sequence[str]) -> dict[str, StillRendering | Ready | Broke]:
        """As `check`, by task; those that Kling leaves out are left out here: absent is not failed."""
        outcomes: dict[str, StillRendering | Ready | Broke] = {}
        for found in await self._tasks("task_ids", tasks):
            task, outcome = task_id(found), self._outcome(found)
            if task is not None and outcome is not None:
                outcomes[task] = outcome
        return outcomes

    async def find(self, reference: str) -> Accepted | Absent:
        """The task under our reference. Kling refuses a second create under it, so Absent is safe."""
        found = await self._tasks("external_task_ids", [reference])
        if not found:
            return Absent()
        task = task_id(next((task for task in found if at(task, "external_id") == reference), None))
        if task is None:
            raise ProviderUnsure(Cause.UNREADABLE, f"no task under {reference!r} in the answer")
        return Accepted(task)

    async def _look(self, task: str) -> object:
        found = await self._tasks("task_ids", [task])
        return next((each for each in found if task_id(each) == task), None)

    async def _tasks(self, key: str, ids: Sequence[str]) -> list[object]:
        answer = await self._call("GET", f"/tasks?{key}={','.join(quote(each, safe='') for each in ids)}")
        raise_for_error(answer)
        data = at(answer.body, "data")
        if not isinstance(data, list):
            raise ProviderUnsure(Cause.UNREADABLE, detail(answer, "no tasks"))
        return data

    def _order(self, request: ClipRequest) -> Order:
        """Text to Video and Image to Video of each model: contents or words, `settings`, `options`."""
        settings: dict[str, object] = {"duration": request.seconds}
        if request.quality:
            settings["resolution"] = request.quality
        if request.variant == "kling-3.0":
            settings["multi_shot"] = False  # else Kling may cut one clip into several shots
        if request.sound and request.variant != "kling-3.0-turbo":
            settings["audio"] = "native"
        options: dict[str, object] = {"external_task_id": request.reference}
        if request.callback:
            options["callback_url"] = request.callback
        rest = {"settings": settings, "options": options}
        if not request.picture:
            if request.ratio:
                settings["aspect_ratio"] = request.ratio
            return Order(path=f"/text-to-video/{request.variant}", body={"prompt": request.prompt, **rest})
        contents = [{"type": "prompt", "text": request.prompt}] if request.prompt else []
        contents.append({"type": "first_frame", "url": in_base64(request.picture)})
        if request.end_picture:
            contents.append({"type": "last_frame", "url": in_base64(request.end_picture)})
        return Order(path=f"/image-to-video/{request.variant}", body={"contents": contents, **rest})


def in_base64(picture: Picture) -> str:
    """Bare base64: with `data:image/png;base64,` before it, Kling refuses it (1201)."""
    return base64.b64encode(picture.data).decode()


# Reading the answers: the one place where Kling's JSON has no type.


def at(body: object, *path: str | int) -> object:
    """What stands at a path of keys and places, None where the path ends early."""
    for step in path:
        if isinstance(step, str) and isinstance(body, dict):
            body = body.get(step)
        elif isinstance(step, int) and isinstance(body, list) and len(body) > step:
            body = body[step]
        else:
            return None
    return body


def text_at(body: object, *paths: tuple[str | int, ...]) -> str:
    """The first of the paths that leads to a text that is not empty."""
    found = (at(body, *path) for path in paths)
    return next((text for text in found if isinstance(text, str) and text), "")


def number(value: object) -> float | None:
    """A number, also one written as text."""
    try:
        return float(value) if isinstance(value, int | float | str) else None
    except ValueError:
        return None


def task_id(task: object) -> str | None:
    """The id in a task's object, of either standard: opaque, also where it looks like a number."""
    for key in ("id", "task_id"):
        found = at(task, key)
        if isinstance(found, str | int) and not isinstance(found, bool) and str(found).strip():
            return str(found)
    return None


def clip_link(task: object) -> str | None:
    """The clip without a watermark."""
    outputs, videos = at(task, "outputs"), at(task, "task_result", "videos")
    clips = [each for each in outputs if at(each, "type") == "video"] if isinstance(outputs, list) else []
    clips += videos if isinstance(videos, list) else []
    links = (text_at(clip, ("url",)) for clip in clips)
    return next((link for link in links if re.match("https?://", link, re.IGNORECASE)), None)


def charged(task: object) -> bool | None:
    """Whether a task says that it cost something; None where it says nothing.

    What a failed task costs is not documented, and units are taken when a task ends.
    """
    billing = at(task, "billing")
    amounts = [at(each, "amount") for each in billing] if isinstance(billing, list) else []
    amounts += [at(task, "final_unit_deduction"), at(task, "final_balance_deduction", "quota")]
    told = [amount for each in amounts if (amount := number(each)) is not None]
    return any(amount > 0 for amount in told) if told else None


def code_of(body: object) -> int:
    """The envelope's code; 0, which is success, where there is none."""
    try:
        return int(str(at(body, "code")))
    except ValueError:
        return 0


def message_of(body: object) -> str:
    return text_at(body, ("message",), ("msg",))


def raise_for_error(answer: Answer) -> None:
    """Raises what an answer means that refuses: by code, then by HTTP status.

    A 2xx with a code that nobody knows passes: whether it was taken shows in the rest of the answer.
    `message: SUCCEED` only says that the question was understood.
    """
    code = code_of(answer.body)
    if code not in _CODES and 200 <= answer.status < 300:
        return
    cause = _CODES.get(code) or _STATUSES.get(answer.status, Cause.NO_ANSWER)
    if cause is Cause.BUSY:
        raise ProviderBusy(detail(answer), retry_after=retry_after(answer.headers))
    if cause is Cause.NO_ANSWER:
        raise ProviderUnsure(cause, detail(answer))
    words = message_of(answer.body)
    if cause is Cause.BAD_INPUT and _MODERATED.search(words):
        cause = Cause.MODERATION
    elif cause is Cause.BAD_INPUT and _RETIRED.search(words):
        cause = Cause.NOT_ALLOWED
    raise ProviderRejected(cause, detail(answer))


def detail(answer: Answer, lacks: str = "") -> str:
    """For the logs: the status and the beginning of the answer, without secrets."""
    return f"answered {answer.status}{f', {lacks}' if lacks else ''}: {answer.excerpt}"
