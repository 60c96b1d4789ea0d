"""What both of Kling's standards share: the paid call and what came of it, polls, look-ups, callbacks."""

import base64
import hashlib
import hmac
import json
import re
import time
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from decimal import Decimal
from pathlib import Path

import aiohttp
import structlog

from bot.errors import Cause, ProviderError, ProviderRejected, ProviderUnsure
from bot.jobs.machine import Absent, Accepted, Broke, Ready, StillRendering
from bot.providers.base import Balance, Capabilities, ClipRequest, Only, Picture, PictureRules, Price
from bot.providers.http import Answer, call, download, masked
from bot.providers.kling.answers import (
    INVALID,
    MODERATED,
    at,
    charged,
    clip_link,
    code_of,
    detail,
    message_of,
    number,
    raise_for_error,
    task_id,
    text_at,
)
from bot.providers.kling.settings import KlingSettings, webhook_key

log = structlog.get_logger(__name__)

FRESH = 60.0  # seconds in which a new task may not be known yet
MOST_UNKNOWN_WORDS = 20
CALLBACK_TOLERANCE = 300.0  # seconds between a callback's time and ours
PACKS_SINCE = timedelta(days=365)

# What the models can do, under either standard. A clip from a picture has the picture's shape.

UP_TO_15 = (5, *range(3, 5), *range(6, 16))


def _prices(silent: Mapping[str, str], with_sound: Mapping[str, str] | None = None) -> tuple[Price, ...]:
    """Of Kling's price list (kling.ai, 2026-09-20): dollars a second by quality, as a unit of $0.14 has them."""
    return (
        *(
            Price(quality=each, a_second=Decimal(rate), sound=True)
            for each, rate in (with_sound or {}).items()
        ),
        *(Price(quality=each, a_second=Decimal(rate)) for each, rate in silent.items()),
    )


THREE = Capabilities(
    label="Kling 3.0",
    seconds=UP_TO_15,
    qualities=("720p", "1080p", "4k"),
    ratios=("16:9", "9:16", "1:1"),
    prompt_length=2500,
    sound=True,
    picture=PictureRules(max_bytes=50_000_000, min_side=300, min_ratio=1 / 2.5, max_ratio=2.5),
    end_picture=True,
    text_only=True,
    prices=_prices({"720p": "0.084", "1080p": "0.112", "4k": "0.42"}, {"720p": "0.126", "1080p": "0.168"}),
    typical=timedelta(seconds=135),
    deadline=timedelta(minutes=30),
)
# Its clips always have sound, asked for or not.
THREE_TURBO = replace(
    THREE,
    label="Kling 3.0 Turbo",
    qualities=("720p", "1080p"),
    end_picture=False,
    prices=_prices({"720p": "0.112", "1080p": "0.14"}),
    typical=timedelta(seconds=45),
    deadline=timedelta(minutes=15),
)
TWO_SIX = replace(
    THREE,
    label="Kling 2.6",
    seconds=(5, 10),
    qualities=("720p", "1080p"),
    only=(Only(option="sound", qualities=("1080p",)), Only(option="end_picture", qualities=("1080p",))),
    prices=_prices({"720p": "0.042", "1080p": "0.07"}, {"1080p": "0.14"}),
    typical=timedelta(seconds=180),
)
TWO_FIVE_TURBO = replace(
    TWO_SIX,
    label="Kling 2.5 Turbo",
    sound=False,
    only=(Only(option="end_picture", qualities=("1080p",)),),
)


# Kling's words. Compared without regard to case, both spellings of success under both standards.

_RUNNING = {"submitted": True, "processing": False}  # whether the task still waits
_DONE = frozenset({"succeed", "succeeded"})

_TAKEN = re.compile(r"already exist|duplicat", re.IGNORECASE)
_NOT_VIDEO = re.compile(r"image|audio|try", re.IGNORECASE)


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
        digest = hmac.new(webhook_key(self._settings.webhook_secret), signed, hashlib.sha256).digest()
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
                moderated = MODERATED.search(reason)
                return Broke(Cause.MODERATION if moderated else Cause.BROKEN, charged=charged(task))
            case _:
                if word not in self._unknown_words and len(self._unknown_words) < MOST_UNKNOWN_WORDS:
                    self._unknown_words.add(word)
                    log.warning("kling_unknown_status", word=word[:80])
                return StillRendering()


def in_base64(picture: Picture) -> str:
    """Bare base64: with `data:image/png;base64,` before it, Kling refuses it (1201)."""
    return base64.b64encode(picture.data).decode()
