"""What every route offers the engine, and what each model can do, as data.

A provider builds one request, makes one call and maps the answer to an outcome of
`bot.jobs.machine` through a small table. It never sleeps, retries, or knows Discord or the database.
"""

from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Protocol

from bot.jobs.machine import Accepted, Broke, Ready, StillRendering


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
class Capabilities:
    """What one model on one route can do; the command's choices and every check come from here.

    The first of `seconds`, `qualities` and `ratios` is the default; an empty tuple means that the
    model has no such option. `negative_prompt` is its greatest length in characters, 0 for none.
    `strength` is the range of "how closely to follow the prompt", None for no such option.
    `by_link`: the route wants a public link to the picture, not its bytes.
    `free`: nobody pays for a clip; `by_ai`: the post says that AI made it.
    `typical` is a planning value for the time from submit to clip, until enough clips are measured.
    """

    seconds: tuple[int, ...]
    qualities: tuple[str, ...] = ()
    ratios: tuple[str, ...] = ()
    prompt_length: int = 2500
    prompt_required: bool = False
    negative_prompt: int = 0
    strength: tuple[float, float] | None = None
    picture: PictureRules = field(default_factory=PictureRules)
    takes_picture: bool = True
    end_picture: bool = False
    text_only: bool = False
    by_link: bool = False
    typical: timedelta = timedelta(minutes=3)
    deadline: timedelta = timedelta(minutes=15)
    first_poll: timedelta = timedelta(seconds=10)
    least_poll_gap: timedelta = timedelta(seconds=5)
    free: bool = False
    by_ai: bool = True


@dataclass(frozen=True, slots=True, kw_only=True)
class Picture:
    """A normalised picture: upright, without alpha, within the model's rules.

    `notes` say in whole sentences what was changed, for the person who sent it.
    `link` is a fresh public address of the same bytes, where there is one.
    """

    data: bytes = field(repr=False)
    media_type: str
    width: int
    height: int
    notes: tuple[str, ...] = ()
    link: str | None = field(default=None, repr=False)

    @property
    def extension(self) -> str:
        return "png" if self.media_type == "image/png" else "jpg"


@dataclass(frozen=True, slots=True, kw_only=True)
class ClipRequest:
    """One clip to make. `reference` is our own name for this attempt; `variant` the route's name for the model."""

    reference: str
    variant: str
    prompt: str
    seconds: int
    negative_prompt: str | None = None
    quality: str | None = None
    ratio: str | None = None
    strength: float | None = None
    picture: Picture | None = None
    end_picture: Picture | None = None


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
        """Make the one paid call, exactly once."""
        ...

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        """Ask how a task does; free and repeatable. `task` is what `Accepted` carried."""
        ...

    async def fetch(self, clip_url: str, into: Path) -> None:
        """Write the clip of a `Ready` to `into`, streamed and capped, whole or not at all.

        Raises ProviderRejected(CLIP_GONE) where the link has expired: `check` gives a fresh one.
        """
        ...

    async def aclose(self) -> None:
        """Let go of what the provider holds; running local work is stopped."""
        ...
