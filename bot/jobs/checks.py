"""A check of the owner's own, asked before anything is spent: `safety.check` in the config names it."""

import asyncio
import importlib
import inspect
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import structlog

from bot.errors import PrivateRefusal

log = structlog.get_logger(__name__)

FREE = "Nothing was charged."
LONGEST_SENTENCE = 500


@dataclass(frozen=True, slots=True, kw_only=True)
class Proposal:
    """A clip that somebody asks for. The pictures are PNG or JPEG files, made to fit the model.

    `channel_id` may be a thread's. `age_restricted`: whether Discord shows that channel to adults only.
    """

    member_id: int
    channel_id: int
    guild_id: int | None
    age_restricted: bool
    prompt: str
    negative_prompt: str | None = None
    picture: bytes | None = field(default=None, repr=False)
    end_picture: bytes | None = field(default=None, repr=False)


# None lets the clip be made; a sentence says to the person why not.
Check = Callable[[Proposal], Awaitable[str | None]]


async def no_check(_proposal: Proposal) -> str | None:
    """Everything is let through."""
    return None


def load_check(name: str) -> Check:
    """The callable of this name, `package.module:function`. Raises ValueError, whose text says what is wrong."""
    module_name, _, function = name.partition(":")
    try:
        module = importlib.import_module(module_name)
    except Exception as error:
        kind = type(error).__name__
        raise ValueError(f"{module_name} cannot be imported ({kind}). Is it on the PYTHONPATH?") from error
    check = getattr(module, function, None)
    if check is None:
        raise ValueError(f"there is no {function} in {module_name}")
    called = check if inspect.isroutine(check) else type(check).__call__
    if isinstance(check, type) or not inspect.iscoroutinefunction(called):
        raise ValueError(f"{function} must be an `async def`")
    try:
        inspect.signature(check).bind(object())
    except TypeError:
        raise ValueError(f"{function} must take one argument, the proposal") from None
    found: Check = check
    return found


class Checker:
    """Asks the check, for so many seconds. Where it fails, the clip is refused, or `allow_on_failure` let through."""

    def __init__(
        self, check: Check = no_check, *, seconds: float = 10.0, allow_on_failure: bool = False
    ) -> None:
        self._check = check
        self._seconds = seconds
        self._allow_on_failure = allow_on_failure

    async def refuse(self, proposal: Proposal) -> None:
        """Raises Refusal where the check says no, or does not say anything of use."""
        try:
            async with asyncio.timeout(self._seconds):
                sentence = _understood(await self._check(proposal))
        except Exception as error:  # noqa: BLE001 - somebody else's code
            allowed = self._allow_on_failure
            log.warning("check_failed", error=type(error).__name__, where=_where(error), allowed=allowed)
            if not allowed:
                raise PrivateRefusal(
                    "A check that comes before every clip did not answer, so I did not start. Please try again "
                    f"later; if it happens again, tell this bot's owner. {FREE}"
                ) from None
            return
        if sentence is not None:
            raise PrivateRefusal(f"{sentence} {FREE}")


def _understood(sentence: object) -> str | None:
    """The answer on one line of bearable length. Raises TypeError for what is no answer."""
    if sentence is None:
        return None
    words = " ".join(sentence.split()) if isinstance(sentence, str) else ""
    if not words:
        raise TypeError("neither None nor a sentence")
    return words if len(words) <= LONGEST_SENTENCE else f"{words[: LONGEST_SENTENCE - 1]}…"


def _where(error: BaseException) -> str:
    """The line at which it went wrong: a log shows no text of an exception."""
    trace = inspect.getinnerframes(error.__traceback__)[-1] if error.__traceback__ else None
    return f"{trace.filename.rpartition('/')[2]}:{trace.lineno}" if trace else "?"
