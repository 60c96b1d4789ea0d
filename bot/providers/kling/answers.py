"""What Kling's answers say: its envelope, its error codes, a task in the shape of either standard.

The one place where Kling's JSON has no type.
"""

import math
import re

from bot.errors import Cause, ProviderBusy, ProviderRejected, ProviderUnsure
from bot.providers.http import Answer, retry_after

MODERATED = re.compile(
    r"moderat|risk control|content[ _-]?(security|polic)|safety|nsfw|inappropriate"
    r"|(sensitive|prohibited|forbidden) (content|word|info|material)|violat\w*.{0,40}(polic|guideline|terms)",
    re.IGNORECASE,
)
_RETIRED = re.compile(r"discontinued|no longer available", re.IGNORECASE)

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
        found = float(value) if isinstance(value, int | float | str) else math.nan
    except ValueError:
        return None
    return found if math.isfinite(found) else None


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
    if cause is Cause.BAD_INPUT and MODERATED.search(words):
        cause = Cause.MODERATION
    elif cause is Cause.BAD_INPUT and _RETIRED.search(words):
        cause = Cause.NOT_ALLOWED
    raise ProviderRejected(cause, detail(answer))


def detail(answer: Answer, lacks: str = "") -> str:
    """For the logs: the status and the beginning of the answer, without secrets."""
    return f"answered {answer.status}{f', {lacks}' if lacks else ''}: {answer.excerpt}"
