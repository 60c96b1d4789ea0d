"""The route `makevid`: Kling, Luma and Runway through one gateway, documented at docs.makevid.ai.

The gateway has four systems under one key, each with its own fields, envelope and words; all of them
stay in this file. Its documentation dates from 2024 and has gaps (nothing on errors, and the pages on
Kling's results are missing), so paths and status words can be changed in the settings, and answers
are read tolerantly. It offers no way to look a task up by our reference, and none to cancel.
"""

import base64
import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from enum import Enum, StrEnum
from pathlib import Path
from typing import Annotated, NoReturn
from urllib.parse import quote

import aiohttp
import structlog
from pydantic import AfterValidator, Field

from bot.errors import Cause, ProviderBusy, ProviderError, ProviderRejected, ProviderUnsure
from bot.jobs.machine import Accepted, Broke, Ready, StillRendering
from bot.providers.base import Capabilities, ClipRequest, Only, Picture, PictureRules
from bot.providers.http import Answer, call, download, masked, retry_after
from bot.providers.settings import Address, Key, UrlPath, WebRouteSettings

log = structlog.get_logger(__name__)


class Family(StrEnum):
    """The gateway's four systems. A task is asked for where it was made, so its name carries the family."""

    IMAGE = "image2video"
    TEXT = "text2video"
    LUMA = "luma"
    RUNWAY = "runway"


# Settings


def _result_path(value: str) -> str:
    if value.count("{id}") != 1 or not re.fullmatch(r"/[\w\-./~]+", value.replace("{id}", "id"), re.ASCII):
        raise ValueError("must be a path that begins with / and has {id} once")
    return value


ResultPath = Annotated[str, AfterValidator(_result_path)]
ResultPaths = Annotated[tuple[ResultPath, ...], Field(min_length=1)]


class MakevidSettings(WebRouteSettings):
    """[routes.makevid]"""

    api_key: Key = Field(description="The key of your makevid.ai account")
    base_url: Address = Field(default="https://makevid.ai", description="Where the gateway answers")
    kling_image_create_path: UrlPath = Field(
        default="/api/v1/kling/image2video/create_kling", description="Creates a Kling clip from a picture"
    )
    kling_text_create_path: UrlPath = Field(
        default="/api/v1/kling/text2video/create_kling", description="Creates a Kling clip from words alone"
    )
    kling_image_result_paths: ResultPaths = Field(
        default=(
            "/api/v1/kling/image2video/get_kling/{id}",
            "/api/v1/kling/image2video/{id}",
            "/api/v1/get_kling/{id}",
        ),
        description="Where its result may be asked for (undocumented): tried in order, what works is kept",
    )
    kling_text_result_paths: ResultPaths = Field(
        default=(
            "/api/v1/kling/text2video/get_kling/{id}",
            "/api/v1/kling/text2video/{id}",
            "/api/v1/get_kling/{id}",
        ),
        description="The same for clips from words alone",
    )
    luma_create_path: UrlPath = Field(default="/api/v1/create_luma", description="Creates a Luma clip")
    luma_result_path: ResultPath = Field(
        default="/api/v1/get_luma/{id}", description="Where a Luma result is asked for"
    )
    runway_create_path: UrlPath = Field(default="/api/v1/create_runway", description="Creates a Runway clip")
    runway_result_path: ResultPath = Field(
        default="/api/v1/get_runway/{id}", description="Where a Runway result is asked for"
    )
    rewrite_prompts: bool = Field(
        default=True, description="Let Luma and Runway rewrite prompts (expand_prompt, enhance_prompt)"
    )
    extra_success_words: tuple[str, ...] = Field(
        default=(), description="More status words that mean the clip is ready", examples=[["ready"]]
    )
    extra_failure_words: tuple[str, ...] = Field(
        default=(), description="More status words that mean it failed", examples=[["aborted"]]
    )
    extra_running_words: tuple[str, ...] = Field(
        default=(), description="More status words that mean it is being made", examples=[["rendering"]]
    )

    @property
    def usual_models(self) -> dict[str, str]:
        return {"kling": "kling", "luma": "luma", "runway": "runway"}


# The camera's moves by plain names, as Kling's `camera_control` (Kling API reference, "Text to Video"). What
# film calls a pan is Kling's `tilt`, and the other way round; a `zoom` below 0 narrows the view.

_AXES = ("horizontal", "vertical", "pan", "tilt", "roll", "zoom")
_AMOUNT = 5  # of -10 to 10
_SIMPLE_MOVES = {
    "zoom in": ("zoom", -_AMOUNT),
    "zoom out": ("zoom", _AMOUNT),
    "pan left": ("tilt", -_AMOUNT),
    "pan right": ("tilt", _AMOUNT),
    "tilt up": ("pan", _AMOUNT),
    "tilt down": ("pan", -_AMOUNT),
    "slide left": ("horizontal", -_AMOUNT),
    "slide right": ("horizontal", _AMOUNT),
    "crane up": ("vertical", _AMOUNT),
    "crane down": ("vertical", -_AMOUNT),
    "roll left": ("roll", -_AMOUNT),
    "roll right": ("roll", _AMOUNT),
}
_CAMERAS: dict[str, dict[str, object]] = {
    **{
        name: {"type": "simple", "config": dict.fromkeys(_AXES, 0) | {axis: amount}}
        for name, (axis, amount) in _SIMPLE_MOVES.items()
    },
    "down and back": {"type": "down_back"},
    "forward and up": {"type": "forward_up"},
    "forward, turning left": {"type": "left_turn_forward"},
    "forward, turning right": {"type": "right_turn_forward"},
}

# Kling's modes by what they are elsewhere, so that a model reached by several routes has the same choices on each.
_MODES = {"720p": "std", "1080p": "pro"}

# What the models can do. Ratios and sides of Luma's and Runway's pictures are not documented here.

_KLING = Capabilities(
    seconds=(5, 10),
    qualities=tuple(_MODES),
    ratios=("16:9", "9:16", "1:1"),
    prompt_length=2500,
    negative_prompt=200,
    strength=(0.0, 1.0),
    cameras=tuple(_CAMERAS),
    only=(Only(option="camera", seconds=(5,), qualities=("720p",), picture=False),),
    picture=PictureRules(max_bytes=10_000_000, min_side=300, min_ratio=1 / 2.5, max_ratio=2.5),
    end_picture=True,
    text_only=True,
    typical=timedelta(seconds=180),
)
_LUMA = Capabilities(
    seconds=(5,),
    prompt_length=2000,
    prompt_required=True,
    end_picture=True,
    text_only=True,
    by_link=True,
    typical=timedelta(seconds=180),
)
_RUNWAY = Capabilities(
    seconds=(5, 10),
    prompt_length=1000,
    prompt_required=True,
    picture=PictureRules(min_ratio=0.5, max_ratio=2.0),
    by_link=True,
    typical=timedelta(seconds=90),
)


# The gateway's words. Compared without regard to case: it says "succeed", "completed" and "SUCCEEDED".


class _Word(Enum):
    DONE = "done"
    FAILED = "failed"
    QUEUED = "queued"
    RUNNING = "running"


_WORDS = {
    **dict.fromkeys(("succeed", "succeeded", "success", "completed", "complete", "finished"), _Word.DONE),
    **dict.fromkeys(("failed", "failure", "fail", "cancelled", "canceled"), _Word.FAILED),
    **dict.fromkeys(("submitted", "pending", "queued", "throttled", "not_start"), _Word.QUEUED),
    **dict.fromkeys(("processing", "running", "in_progress", "dreaming"), _Word.RUNNING),
}

_MODERATED = re.compile(
    r"moderat|risk control|content[ _-]?(security|polic)|safety|nsfw|inappropriate"
    r"|(sensitive|prohibited|forbidden) (content|word|info|material)|violat\w*.{0,40}(polic|guideline|terms)",
    re.IGNORECASE,
)

_Refusal = Callable[[str, timedelta | None], ProviderError]


def _rejected(cause: Cause) -> _Refusal:
    return lambda detail, _pause: ProviderRejected(cause, detail)


def _unsure(cause: Cause) -> _Refusal:
    return lambda detail, _pause: ProviderUnsure(cause, detail)


def _busy(detail: str, pause: timedelta | None) -> ProviderError:
    return ProviderBusy(detail, retry_after=pause)


# Kling's error codes, which the gateway passes on (Kling API reference, "Error codes"). They go before
# the HTTP status: 429 also means no money (1101, 1102), a blocked account (1100) or the wrong IP (1304).
_CODES: dict[int, _Refusal] = {
    **dict.fromkeys((1000, 1001, 1002, 1003, 1004), _rejected(Cause.BAD_KEY)),
    **dict.fromkeys((1100, 1103, 1304), _rejected(Cause.NOT_ALLOWED)),
    **dict.fromkeys((1101, 1102), _rejected(Cause.NO_CREDIT)),
    **dict.fromkeys((1200, 1201), _rejected(Cause.BAD_INPUT)),
    **dict.fromkeys((1202, 1203), _rejected(Cause.BROKEN)),
    **dict.fromkeys((1300, 1301), _rejected(Cause.MODERATION)),
    **dict.fromkeys((1302, 1303), _busy),
    **dict.fromkeys((5000, 5001, 5002), _unsure(Cause.NO_ANSWER)),
}

# A status that is not here proves nothing about a create (408, 409, 303, every 5xx): it is unsure.
_STATUSES: dict[int, _Refusal] = {
    **dict.fromkeys((400, 413, 422), _rejected(Cause.BAD_INPUT)),
    401: _rejected(Cause.BAD_KEY),
    402: _rejected(Cause.NO_CREDIT),
    403: _rejected(Cause.NOT_ALLOWED),
    **dict.fromkeys((404, 405, 406, 410, 411, 414, 415, 431), _rejected(Cause.BROKEN)),
    **dict.fromkeys((300, 301, 302, 307, 308), _rejected(Cause.BROKEN)),  # the address is wrong
    429: _busy,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class _Order:
    """One create call."""

    family: Family
    path: str
    body: dict[str, object]


@dataclass(frozen=True, slots=True, kw_only=True)
class _View:
    """What an envelope says of a task, whichever it is."""

    word: str
    link: str | None
    reason: str
    progress: float | None


class Makevid:
    """The adapter of makevid.ai. Of the paid calls it makes exactly one per `submit`, never a second."""

    def __init__(
        self, *, http: aiohttp.ClientSession, settings: MakevidSettings, allow_private_addresses: bool = False
    ) -> None:
        self._http = http
        self._settings = settings
        self._allow_private = allow_private_addresses
        self._kling_paths = {
            Family.IMAGE: settings.kling_image_result_paths,
            Family.TEXT: settings.kling_text_result_paths,
        }
        self._words = _WORDS | {
            word.casefold(): meaning
            for words, meaning in (
                (settings.extra_running_words, _Word.RUNNING),
                (settings.extra_failure_words, _Word.FAILED),
                (settings.extra_success_words, _Word.DONE),
            )
            for word in words
        }
        self._unknown_words: set[str] = set()

    @property
    def variants(self) -> dict[str, Capabilities]:
        """The models this route reaches; `kling` makes clips from words alone as well."""
        return {"kling": _KLING, "luma": _LUMA, "runway": _RUNWAY}

    async def submit(self, request: ClipRequest) -> Accepted:
        """Make the one paid call. The task is named `<family>:<the gateway's id>`.

        Raises ProviderRejected or ProviderBusy only where the answer, or the lack of a connection,
        proves that nothing was made; everything else is ProviderUnsure.
        """
        order = self._order(request)
        answer = await self._call("POST", order.path, order.body)
        _raise_for_error(answer)
        task_id = _id_of(order.family, answer.body)
        if task_id is None:
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no task id"))
        if server := _first_text(answer.body, ("server_id",)):  # of no known use, but for asking the gateway
            log.info("makevid_server", server=server[:80])
        return Accepted(f"{order.family}:{task_id}")

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        """Ask how a task does. A success without a link is still rendering: the link comes later."""
        family, task_id = _split(task)
        if family in self._kling_paths:
            answer = await self._kling_result(family, task_id)
        else:
            luma = family is Family.LUMA
            path = self._settings.luma_result_path if luma else self._settings.runway_result_path
            answer = await self._call("GET", _filled(path, task_id))
        view = _VIEWS[family](answer.body) if answer.status < 300 else None
        if view is None or view.word.casefold() not in self._words:
            _raise_for_error(answer)
        if view is None:
            raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no status"))
        return self._outcome(family, view)

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

    async def probe(self) -> None:
        """Ask for a clip that is not there: a good key is told so, a bad one is refused."""
        answer = await self._call("GET", _filled(self._settings.luma_result_path, "probe"))
        try:
            _raise_for_error(answer)
        except ProviderRejected as refused:
            if refused.cause not in (Cause.BAD_INPUT, Cause.BROKEN):  # these speak of the clip, not of us
                raise
        else:
            if answer.body is None:  # a page of whoever has the address now
                raise ProviderUnsure(Cause.UNREADABLE, _detail(answer, "no JSON"))

    async def aclose(self) -> None:
        """Nothing to let go of: the session belongs to whoever made it."""

    # Asking

    async def _call(self, method: str, path: str, body: Mapping[str, object] | None = None) -> Answer:
        # Only some of the pages show the header; one account, one key, so every call carries it.
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

    async def _kling_result(self, family: Family, task_id: str) -> Answer:
        """Ask the path that is known to work, else each candidate once, in order.

        The two pages on it are missing from the documentation. A wrong path may answer 404, 405, or 200
        with a page of the site; right is one that tells of a task.
        """
        candidates = self._kling_paths[family]
        if len(candidates) == 1:
            return await self._call("GET", _filled(candidates[0], task_id))
        answers: list[Answer] = []
        for path in candidates:
            answer = await self._call("GET", _filled(path, task_id))
            if answer.status < 300 and _is_kling_task(answer.body):
                log.info("kling_result_path_found", family=family, path=path)
                self._kling_paths[family] = (path,)
                return answer
            if answer.status in (401, 402, 429):
                return answer
            answers.append(answer)
        return next((answer for answer in answers if answer.status not in (404, 405)), answers[0])

    def _outcome(self, family: Family, view: _View) -> StillRendering | Ready | Broke:
        match self._words.get(view.word.casefold()):
            case _Word.DONE:
                return Ready(view.link) if view.link else StillRendering()
            case _Word.FAILED:
                log.info(
                    "makevid_task_failed", family=family, word=view.word, reason=masked(view.reason)[:500]
                )
                moderated = _MODERATED.search(view.reason)
                return Broke(Cause.MODERATION if moderated else Cause.BROKEN, charged=None)
            case _Word.QUEUED:
                return StillRendering(progress=view.progress, queued=True)
            case _Word.RUNNING:
                return StillRendering(progress=view.progress, queued=False)
            case None:
                if view.word not in self._unknown_words:
                    self._unknown_words.add(view.word)
                    log.warning("makevid_unknown_status", family=family, word=view.word[:80])
                return StillRendering(progress=view.progress)

    # Building the four create calls

    def _order(self, request: ClipRequest) -> _Order:
        match request.variant:
            case "kling" if request.picture:
                return self._kling_from_picture(request, request.picture)
            case "kling":
                return self._kling_from_words(request)
            case "luma":
                return self._luma(request)
            case "runway":
                return self._runway(request)
            case _:
                raise ProviderRejected(Cause.BAD_INPUT, f"no model {request.variant!r} on this route")

    def _kling_from_picture(self, request: ClipRequest, picture: Picture) -> _Order:
        """docs.makevid.ai/api-218115434. The clip has the picture's ratio; there is no field for it."""
        if request.camera:
            raise ProviderRejected(Cause.BAD_INPUT, "the camera is moved only in a clip from words alone")
        body = _kling_options(request)
        body["image"] = _base64(picture)
        if request.end_picture:
            body["image_tail"] = _base64(request.end_picture)
        return _Order(family=Family.IMAGE, path=self._settings.kling_image_create_path, body=body)

    def _kling_from_words(self, request: ClipRequest) -> _Order:
        """docs.makevid.ai/api-218094513"""
        if not request.prompt or request.end_picture:
            raise ProviderRejected(Cause.BAD_INPUT, "a clip without a first picture needs words, and no last")
        body = _kling_options(request)
        if request.ratio:
            body["aspect_ratio"] = request.ratio
        if request.camera:
            if request.camera not in _CAMERAS:
                raise ProviderRejected(Cause.BAD_INPUT, f"no camera {request.camera!r}")
            body["camera_control"] = _CAMERAS[request.camera]
        return _Order(family=Family.TEXT, path=self._settings.kling_text_create_path, body=body)

    def _luma(self, request: ClipRequest) -> _Order:
        """docs.makevid.ai/api-216272607. The page's `image_end_url` has a stray space, which is not sent."""
        body: dict[str, object] = {
            "user_prompt": request.prompt,
            "expand_prompt": self._settings.rewrite_prompts,
        }
        if request.picture:
            body["image_url"] = _link(request.picture)
        if request.end_picture:
            body["image_end_url"] = _link(request.end_picture)
        return _Order(family=Family.LUMA, path=self._settings.luma_create_path, body=body)

    def _runway(self, request: ClipRequest) -> _Order:
        """docs.makevid.ai/api-216272883. All five fields are required."""
        if not request.picture:
            raise ProviderRejected(Cause.BAD_INPUT, "runway needs a picture")
        body: dict[str, object] = {
            "text_prompt": request.prompt,
            "init_image": _link(request.picture),
            "seconds": request.seconds,
            "enhance_prompt": self._settings.rewrite_prompts,
            "image_as_end_frame": False,
        }
        return _Order(family=Family.RUNWAY, path=self._settings.runway_create_path, body=body)


def _kling_options(request: ClipRequest) -> dict[str, object]:
    """What both of Kling's pages share: `duration` is text, and `cfg_scale` a fraction, labelled integer."""
    body: dict[str, object] = {"duration": str(request.seconds)}
    if request.prompt:
        body["prompt"] = request.prompt
    if request.negative_prompt:
        body["negative_prompt"] = request.negative_prompt
    if request.strength is not None:
        body["cfg_scale"] = float(request.strength)
    if request.quality:
        body["mode"] = _MODES.get(request.quality, request.quality)
    return body


def _base64(picture: Picture) -> str:
    """Bare base64: with `data:image/png;base64,` before it, Kling refuses it (1201)."""
    return base64.b64encode(picture.data).decode()


def _link(picture: Picture) -> str:
    if not picture.link:
        raise ProviderRejected(Cause.BAD_INPUT, "this model takes a link to the picture, and there is none")
    return picture.link


# Reading the answers: the one place where the provider's JSON has no type.


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


def _first_text(body: object, *paths: tuple[str | int, ...]) -> str:
    """The first of the paths that leads to a text that is not empty."""
    found = (_at(body, *path) for path in paths)
    return next((text for text in found if isinstance(text, str) and text), "")


def _first_link(body: object, *paths: tuple[str | int, ...]) -> str | None:
    found = (_first_text(body, path) for path in paths)
    return next((link for link in found if re.match("https?://", link, re.IGNORECASE)), None)


def _id_of(family: Family, body: object) -> str | None:
    """The task's id: opaque, also where it looks like a number."""
    paths: dict[Family, tuple[tuple[str, ...], ...]] = {
        Family.IMAGE: (("data", "task_id"), ("task_id",), ("data", "id"), ("id",)),
        Family.TEXT: (("data", "task_id"), ("task_id",), ("data", "id"), ("id",)),
        Family.LUMA: (("id",), ("data", "id")),
        Family.RUNWAY: (("task", "id"), ("data", "task", "id"), ("id",)),
    }
    for path in paths[family]:
        found = _at(body, *path)
        if isinstance(found, str | int) and not isinstance(found, bool) and str(found).strip():
            return str(found)
    return None


_KLING_STATUS = (
    ("data", "task_status"),
    ("data", "status"),
    ("data", "data", "task_status"),
    ("task_status",),
    ("status",),
)
_KLING_VIDEO = ("task_result", "videos", 0, "url")


def _is_kling_task(body: object) -> bool:
    """Whether this tells of a task, and is not the site's page or the error of a path that is wrong."""
    return bool(
        _first_text(body, ("data", "task_id"), ("data", "task_status"))
        or (_id_of(Family.IMAGE, body) and _first_text(body, *_KLING_STATUS))
    )


def _kling_view(body: object) -> _View | None:
    """Kling's own envelope, and those of two common gateways (new-api: flat; ezmodel: nested).

    `message: SUCCEED` only says that the question was understood.
    """
    if not _is_kling_task(body):
        return None
    return _View(
        word=_first_text(body, *_KLING_STATUS),
        link=_first_link(
            body,
            ("data", *_KLING_VIDEO),
            ("data", "data", *_KLING_VIDEO),
            ("data", "data", "data", *_KLING_VIDEO),
            _KLING_VIDEO,
            ("data", "url"),
            ("url",),
            ("metadata", "url"),
        ),
        reason=_first_text(
            body,
            ("data", "task_status_msg"),
            ("data", "data", "task_status_msg"),
            ("data", "fail_reason"),
            ("error", "message"),
            ("error",),
            ("task_status_msg",),
        ),
        progress=_share(_at(body, "data", "progress")),
    )


def _luma_view(body: object) -> _View | None:
    """docs.makevid.ai/api-216272872. `video.url` has a watermark, `video_raw.url` has none."""
    word = _first_text(body, ("state",), ("data", "state"))
    if not word:
        return None
    return _View(
        word=word,
        link=_first_link(
            body,
            ("video_raw", "url"),
            ("video", "download_url"),
            ("video", "url"),
            ("data", "video_raw", "url"),
            ("data", "video", "download_url"),
            ("data", "video", "url"),
        ),
        reason=_first_text(body, ("failure_reason",), ("error", "message"), ("error",), ("message",)),
        progress=None,
    )


def _runway_view(body: object) -> _View | None:
    """docs.makevid.ai/api-216272891. `progressRatio` is a text such as "0.4"."""
    task = _at(body, "task") or _at(body, "data", "task")
    word = _first_text(task, ("status",))
    if not word:
        return None
    return _View(
        word=word,
        link=_first_link(task, ("artifacts", 0, "url")),
        reason=" ".join(
            text
            for path in (("error",), ("error", "reason"), ("error", "message"), ("error", "errorMessage"))
            if (text := _first_text(task, path))
        ),
        progress=_share(_at(task, "progressRatio")),
    )


_VIEWS: dict[Family, Callable[[object], _View | None]] = {
    Family.IMAGE: _kling_view,
    Family.TEXT: _kling_view,
    Family.LUMA: _luma_view,
    Family.RUNWAY: _runway_view,
}


def _share(value: object) -> float | None:
    """0..1 from "0.4", 0.4 or "40%"; None from anything else."""
    if not isinstance(value, str | int | float):
        return None
    text = str(value).strip()
    try:
        share = float(text.removesuffix("%")) / (100 if text.endswith("%") else 1)
    except ValueError:
        return None
    return min(max(share, 0.0), 1.0) if math.isfinite(share) else None


def _split(task: str) -> tuple[Family, str]:
    family, _, task_id = task.partition(":")
    if family not in set(Family) or not task_id:
        raise ProviderRejected(Cause.BROKEN, f"not a task of this route: {task[:80]!r}")
    return Family(family), task_id


def _filled(path: str, task_id: str) -> str:
    return path.replace("{id}", quote(task_id, safe=""))


def _code(body: object) -> int:
    """The envelope's code as a number; 0, which is success, where there is none or it is a word."""
    try:
        return int(str(_at(body, "code")))
    except ValueError:
        return 0


def _raise_for_error(answer: Answer) -> None:
    """Raises what an answer means that refuses: by code, then by HTTP status.

    A 2xx with a code that nobody knows passes: whether it was taken shows in the rest of the answer.
    """
    code = _code(answer.body)
    if code in _CODES:
        _raise(_CODES[code], answer)
    if 200 <= answer.status < 300:
        if code in _STATUSES:  # some gateways answer 200 and put the HTTP status into the body
            _raise(_STATUSES[code], answer)
        return
    _raise(_STATUSES.get(answer.status, _unsure(Cause.NO_ANSWER)), answer)


def _raise(refusal: _Refusal, answer: Answer) -> NoReturn:
    error = refusal(_detail(answer), retry_after(answer.headers))
    words = _first_text(answer.body, ("message",), ("error", "message"), ("error",), ("detail",), ("msg",))
    if isinstance(error, ProviderRejected) and error.cause is Cause.BAD_INPUT and _MODERATED.search(words):
        raise ProviderRejected(Cause.MODERATION, error.detail)
    raise error


def _detail(answer: Answer, lacks: str = "") -> str:
    return f"answered {answer.status}{f', {lacks}' if lacks else ''}: {answer.excerpt}"
