"""What can go wrong, sorted by who can act on it: the person, or the engine.

A `Refusal` carries the sentence the person reads. A `ProviderError` says what is known about the
paid call; the engine turns it into an outcome of the job.
"""

from datetime import timedelta
from enum import StrEnum


class Refusal(Exception):
    """The person can fix it. `str(refusal)` is the sentence they read; it costs nothing."""


class PrivateRefusal(Refusal):
    """One that only this person may read, such as why they are blocked."""


class Cause(StrEnum):
    """Why a job stopped or stalled; each has one sentence in `bot.ui.cards`."""

    MODERATION = "moderation"
    BAD_INPUT = "bad_input"
    NO_CREDIT = "no_credit"
    BAD_KEY = "bad_key"
    NOT_ALLOWED = "not_allowed"
    BUSY = "busy"
    BROKEN = "broken"
    NO_ANSWER = "no_answer"
    UNREADABLE = "unreadable"
    INTERRUPTED = "interrupted"
    PICTURE_GONE = "picture_gone"
    OVERDUE = "overdue"
    POISON = "poison"
    CLIP_GONE = "clip_gone"
    CLIP_UNUSABLE = "clip_unusable"
    CLIP_TOO_LARGE = "clip_too_large"
    CHANNEL_GONE = "channel_gone"
    NO_PERMISSION = "no_permission"
    POST_DELETED = "post_deleted"
    BLOCKED_BY_DISCORD = "blocked_by_discord"
    DISCORD_DOWN = "discord_down"


class ProviderError(Exception):
    """A call to a provider did not give what was asked. `detail` is for logs, never for members."""

    def __init__(self, cause: Cause, detail: str = "") -> None:
        super().__init__(f"{cause}: {detail}" if detail else str(cause))
        self.cause = cause
        self.detail = detail


class ProviderBusy(ProviderError):
    """Surely not accepted, and worth asking again after `retry_after` (None: the route does not say).

    `away`: nobody was there to refuse it.
    """

    def __init__(self, detail: str = "", *, retry_after: timedelta | None = None, away: bool = False) -> None:
        super().__init__(Cause.BUSY, detail)
        self.retry_after = retry_after
        self.away = away


class ProviderRejected(ProviderError):
    """Surely not accepted, and asking again the same way would not help. Nothing was charged."""


class ProviderUnsure(ProviderError):
    """The answer was lost or unreadable: a submitted job may have been taken, and may be charged."""
