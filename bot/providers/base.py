"""What every route offers the engine, and what each model can do, as data.

A provider builds one request, makes one call and maps the answer to an outcome of
`bot.jobs.machine` through a small table. It never sleeps, retries, or knows Discord or the database.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import timedelta
from decimal import Decimal
from math import log
from pathlib import Path
from typing import Protocol, runtime_checkable

from bot.jobs.machine import Absent, Accepted, Broke, Ready, StillRendering


@dataclass(frozen=True, slots=True, kw_only=True)
class PictureRules:
    """What a model takes as a picture. Ratios are width ÷ height; sides in pixels."""

    media_types: frozenset[str] = frozenset({"image/jpeg", "image/png"})
    max_bytes: int = 10 * 1024 * 1024
    min_side: int = 1
    max_side: int = 4096
    min_ratio: float = 1 / 10
    max_ratio: float = 10.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Only:
    """An option, or one value of it, that a model has only together with others.

    `option` is a field of `ClipRequest`. Empty and None set no condition; `picture` says whether the clip
    must, or must not, start from a picture.
    """

    option: str
    value: str | int | None = None
    seconds: tuple[int, ...] = ()
    qualities: tuple[str, ...] = ()
    picture: bool | None = None
    end_picture: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Price:
    """One line of the vendor's public price list, in US dollars: for `a_second`, or for `a_clip` as a whole.

    None fits every value; of several lines the first that fits counts.
    """

    a_second: Decimal = Decimal(0)
    a_clip: Decimal = Decimal(0)
    seconds: int | None = None
    quality: str | None = None
    sound: bool | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What one model on one route can do; the command's choices and every check come from here.

    The first of `seconds`, `qualities` and `ratios` is the default; an empty tuple means that the
    model has no such option. `negative_prompt` is its greatest length in characters, 0 for none.
    `strength` is the range of "how closely to follow the prompt", None for no such option.
    `cameras` are moves of the camera by plain names; `loop`: the clip can end as it began; `sound`: it can have sound.
    `only` lists what goes only together with something else.
    `shapes`: with a picture, the clip has the one of these ratios that is nearest to it; empty: the picture's own.
    `credit` is a line that the vendor wants under every clip.
    `by_link`: the route wants a public link to the picture, not its bytes.
    `prices`: what the vendor takes, for owners who did not say what they pay; empty where nothing is known.
    `free`: nobody pays for a clip; `by_ai`: the post says that AI made it.
    `label` is what the vendor calls the model; None: there is no such name, or it is our own.
    `typical` is a planning value for the time from submit to clip, until enough clips are measured.
    """

    seconds: tuple[int, ...]
    qualities: tuple[str, ...] = ()
    ratios: tuple[str, ...] = ()
    prompt_length: int = 2500
    prompt_required: bool = False
    negative_prompt: int = 0
    strength: tuple[float, float] | None = None
    cameras: tuple[str, ...] = ()
    loop: bool = False
    sound: bool = False
    only: tuple[Only, ...] = ()
    shapes: tuple[str, ...] = ()
    credit: str | None = None
    label: str | None = None
    picture: PictureRules = field(default_factory=PictureRules)
    takes_picture: bool = True
    end_picture: bool = False
    text_only: bool = False
    by_link: bool = False
    typical: timedelta = timedelta(minutes=3)
    deadline: timedelta = timedelta(minutes=15)
    first_poll: timedelta = timedelta(seconds=10)
    least_poll_gap: timedelta = timedelta(seconds=5)
    prices: tuple[Price, ...] = ()
    free: bool = False
    by_ai: bool = True


def nearest_ratio(width: int, height: int, ratios: Sequence[str]) -> str:
    """The one of `ratios`, each "width:height", whose shape is nearest to this picture's."""

    def apart(ratio: str) -> float:
        across, down = ratio.split(":")
        return abs(log(width / height) - log(float(across) / float(down)))

    return min(ratios, key=apart)


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A normalised picture: upright, without alpha, within the model's rules.

    `notes` say in whole sentences what was changed, for the person who sent it.
    `link` is a fresh public address of the same bytes, where there is one; `uploaded` what the route calls
    them, where they were uploaded to it.
    """

    data: bytes = field(repr=False)
    media_type: str
    width: int
    height: int
    notes: tuple[str, ...] = ()
    link: str | None = field(default=None, repr=False)
    uploaded: str | None = field(default=None, repr=False)

    @property
    def extension(self) -> str:
        return "png" if self.media_type == "image/png" else "jpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRequest:
    """One clip to make. `reference` is our own name for this attempt; `variant` the route's name for the model.

    The reference never names two paid calls of which both may have been taken. `callback` is a public
    address, with a secret in it, that the route may tell of the task's progress; None where there is none.
    """

    reference: str
    variant: str
    prompt: str
    seconds: int
    negative_prompt: str | None = None
    quality: str | None = None
    ratio: str | None = None
    strength: float | None = None
    camera: str | None = None
    loop: bool = False
    sound: bool = False
    picture: Picture | None = None
    end_picture: Picture | None = None
    callback: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Balance:
    """What is left on the account: of the route's own `unit`, such as "$" or "credits"."""

    amount: float
    unit: str


class Provider(Protocol):
    """The adapter of one route.

    All methods raise only ProviderBusy, ProviderRejected or ProviderUnsure from `bot.errors`.
    For `check` and `fetch` these mean only that the question got no answer, never that the job ended.
    """

    @property
    def variants(self) -> dict[str, Capabilities]:
        """The models this route reaches, by the route's name for each."""
        ...

    async def submit(self, request: ClipRequest) -> Accepted:
        """Make the one paid call, exactly once. A route that `Uploads` gets what its `upload` returned."""
        ...

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        """Ask how a task does; free and repeatable. `task` is what `Accepted` carried."""
        ...

    async def fetch(self, clip_url: str, into: Path) -> None:
        """Write the clip of a `Ready` to `into`, streamed and capped, whole or not at all.

        Raises ProviderRejected(CLIP_GONE) where the link has expired: `check` gives a fresh one.
        """
        ...

    async def probe(self) -> Balance | None:
        """Ask something free: is the route there, is the key good, and what is left, where it tells.

        Raises ProviderError as a submit would: BAD_KEY and NO_CREDIT for the owner to mend.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what the provider holds; running local work is stopped."""
        ...


@runtime_checkable
class Uploads(Protocol):
    """A route that may want pictures uploaded to it before the paid call."""

    async def upload(self, request: ClipRequest) -> ClipRequest:
        """The request with its pictures at the route, where that wants them there first. Free and repeatable.

        Raises ProviderError, and then nothing was made: ProviderUnsure too.
        """
        ...


@runtime_checkable
class FindsByReference(Protocol):
    """A route that can be asked for a job under our own reference, after the answer to the paid call was lost."""

    async def find(self, reference: str) -> Accepted | Absent:
        """Free and repeatable. Absent only from a route that refuses, or takes as the same, a second create
        under the same reference: it may be slow to know the first. Raises ProviderError while nobody can tell.
        """
        ...


@runtime_checkable
class ChecksMany(Protocol):
    """A route that tells of many tasks in one answer."""

    @property
    def most_checks(self) -> int:
        """How many tasks it takes at once."""
        ...

    async def check_many(self, tasks: Sequence[str]) -> Mapping[str, StillRendering | Ready | Broke]:
        """As `check`, by task; one that the answer leaves out is left out here. Raises ProviderError for all."""
        ...


@runtime_checkable
class HearsCallbacks(Protocol):
    """A route that may call us when a task has moved."""

    def hear(self, headers: Mapping[str, str], body: bytes) -> str | None:
        """The task that a callback speaks of; None where it is not genuine, too old, or names none.

        Only a hint to check that task now: nothing else in it is believed.
        """
        ...
