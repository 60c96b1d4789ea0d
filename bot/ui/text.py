"""Other people's words, made safe to show inside ours."""

import re
import unicodedata
from collections.abc import Sequence

_BLANKS = re.compile(r"\s+")
_MARKUP = re.compile(r"[\\`*_~|<\[@:]")


def quoted(prompt: str, *, limit: int = 600) -> str:
    """A prompt on one line, in quotation marks: it cannot ping, format, link or break the layout.

    At most `limit` characters of the prompt: a message of Components V2 holds 4,000 characters of text,
    and about 10,000 UTF-8 bytes (discord-api-docs #8554).
    """
    words = plain(prompt)
    return f"“{escaped(words[:limit])}{'…' if len(words) > limit else ''}”"


def plain(prompt: str) -> str:
    """A prompt on one line, without control characters: for alt texts, which show no formatting."""
    visible = (
        c for c in prompt if unicodedata.category(c) not in ("Cc", "Cf", "Cs", "Co") or c in "\n\t\u200d"
    )
    return _BLANKS.sub(" ", "".join(visible)).strip()


def escaped(text: str) -> str:
    """One line of text in which Discord's markdown, mentions, links and timestamps are only characters.

    What counts only at the start of a line (headings, lists, quotes) is left as it is.
    """
    return _MARKUP.sub(lambda found: "\\" + found[0], text)


def as_many_as_fit(lines: Sequence[str], limit: int) -> str:
    """The lines, within so many characters; of what is left out, how many there are."""
    kept = list(lines)
    while kept and sum(len(line) + 1 for line in kept) + 16 * (len(kept) < len(lines)) > limit:
        kept.pop()
    left_out = len(lines) - len(kept)
    return "\n".join([*kept, f"- and {left_out} more"] if left_out else kept)


def money(cents: int, currency: str, *, free: bool) -> str | None:
    """A price as members read it: `$0.35`, or `free`; None where the owner has not said what it costs."""
    if cents:
        return f"{currency}{cents / 100:,.2f}"
    return "free" if free else None


def elapsed(seconds: float) -> str:
    """A duration as members read it: `42 s`, `3 min 5 s`, `2 h 10 min`."""
    minutes, rest = divmod(round(seconds), 60)
    if not minutes:
        return f"{rest} s"
    hours, minutes = divmod(minutes, 60)
    return f"{hours} h {minutes} min" if hours else f"{minutes} min {rest} s"
