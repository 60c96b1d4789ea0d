"""What the desk and the engine need from whoever talks to people; `bot.ui.announcer` is the one in Discord."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from pathlib import Path
from typing import Protocol

from bot.errors import Cause
from bot.jobs.comparisons import Choice, Comparison
from bot.jobs.health import Trouble
from bot.jobs.machine import Job
from bot.jobs.moderation import Review
from bot.providers.base import Picture, PictureRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Waiting:
    """What a card tells about a job that waits: place in line (1 is next), when the clip is due, lateness.

    `looking`: the route is being asked whether it took an unsure job, so nobody has to decide yet.
    `paused`: nothing new is started in its server.
    """

    place: int | None = None
    due: datetime | None = None
    late: bool = False
    looking: bool = False
    paused: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Pictures:
    """The pictures of a job; both None for a job made from text alone."""

    first: Picture | None = None
    last: Picture | None = None


class PictureGone(Exception):
    """The message that held the picture, or the picture itself, is no longer there."""


class CannotPost(Exception):
    """Discord will not take the message, now or later."""

    def __init__(self, cause: Cause) -> None:
        super().__init__(cause)
        self.cause = cause


Ours = Callable[[], bool]
"""Whether a job is still this process's to post: asked right before the message is sent; where not, PostLater is raised."""


class PostLater(Exception):
    """Discord did not take the message now; the same again later may do."""

    def __init__(self, cause: Cause, retry_after: timedelta = timedelta(seconds=10)) -> None:
        super().__init__(cause)
        self.cause = cause
        self.retry_after = retry_after


class Announcer(Protocol):
    async def post_card(self, job: Job, pictures: Pictures, waiting: Waiting) -> int:
        """Post the job's card with its pictures; the message id. Raises CannotPost or PostLater."""
        ...

    async def draw(self, job: Job, waiting: Waiting) -> None:
        """Make the card show the job as it is; nothing is sent when nothing changed. Never raises."""
        ...

    async def pictures(self, job: Job, rules: PictureRules | None = None) -> Pictures:
        """Fetch the job's pictures again, from its post or its card, with fresh links.

        With `rules`, made to fit them anew; this raises Refusal where it cannot be.
        Raises PictureGone, or PostLater when Discord does not answer.
        """
        ...

    async def last_frame(self, job: Job, rules: PictureRules) -> Picture:
        """The picture that the job's posted clip ends on, made to fit the rules. Raises as `pictures` does."""
        ...

    async def tell_owner(self, route: str, trouble: Trouble) -> bool:
        """Tell the bot's owner, by direct message, that a route needs them or is down. Whether Discord has answered for
        good. Never raises."""
        ...

    async def ask_owner(
        self, channel_id: int, guild_id: int, owner_id: int, asker_id: int, until: datetime
    ) -> bool:
        """Ask in the channel whether the asker may use the owner's pictures. Whether it could be. Never raises."""
        ...

    def may_post(self, guild_id: int, channel_id: int, *, asked_in: int) -> bool:
        """Whether a clip that is asked for in one channel may be posted in that other one: it is there, takes clips,
        and is age-restricted where the first is. What is not known is a no. No I/O."""
        ...

    async def find_post(self, job: Job) -> int | None:
        """Look in the channel for a post of this job that was made but not written down.

        Raises PostLater when Discord does not answer: posting unseen might be the second time.
        """
        ...

    async def post(self, job: Job, clip: Path, pictures: Pictures, ours: Ours) -> int:
        """Post the clip, made to fit the server's upload limit. Raises CannotPost or PostLater."""
        ...

    async def post_together(
        self,
        comparison_id: str,
        clips: tuple[tuple[Job, Path], tuple[Job, Path]],
        pictures: Pictures,
        closes_at: datetime,
        ours: Ours,
    ) -> int:
        """Post both clips of a comparison in one message, in the order of their labels; the message id.

        Members vote on it until `closes_at`. Raises CannotPost or PostLater.
        """
        ...

    async def show_result(
        self, comparison: Comparison, jobs: tuple[Job, Job], votes: Mapping[Choice, int]
    ) -> bool:
        """Draw the models' names and the votes into the post. Whether nothing is left to do. Never raises."""
        ...

    async def post_privately(self, job: Job, clip: Path, cause: Cause, ours: Ours) -> tuple[int, int]:
        """Send the clip to its asker, because `cause` keeps it out of the channel; the channel and message id.

        One sent before is found, not doubled. Raises CannotPost or PostLater.
        """
        ...

    async def finish(self, job: Job) -> bool:
        """After the post: take the card away and invite requeues. Whether nothing is left to do. Never raises."""
        ...

    async def erase(self, job: Job, *, post: bool) -> bool:
        """Delete the card of a job that has ended, and its post when asked to. Whether nothing is left to do.

        Never raises.
        """
        ...

    async def take_down(self, job: Job) -> bool:
        """Delete a posted clip, and its card where that still stands. Whether the post is gone. Never raises."""
        ...

    async def tell_moderators(self, job: Job, review: Review) -> None:
        """Bring the moderators' message about a reported clip up to date, or write it. Never raises."""
        ...

    async def clear_card(self, job: Job) -> None:
        """Look in the channel for the card of a draft that was called off, and show on it that it was.

        Never raises.
        """
        ...
