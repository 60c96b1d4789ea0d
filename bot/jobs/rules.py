"""What prompts may not say in a server: words and patterns.

Words are looked for as whole words, however they are written: see `levelled`. Patterns are regular expressions
of RE2, which has no backtracking: its time and its memory are bounded, whatever the pattern. Nobody's pattern can
hold up the bot, or end it.
"""

import re
import time
import unicodedata
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import re2  # type: ignore[import-untyped]

PATTERN_MEMORY = 1 << 19  # bytes that one pattern may take, which bounds its time as well
LOOKING_SECONDS = 1.0  # for all patterns of a server, looked at between them
KEPT_PATTERNS, KEPT_WORDS = 20, 200  # servers whose rules are in memory, compiled
_SPACES = re.compile(r"\s+")
# Written without spaces between words, so there are no whole words to look for.
_UNSPACED = re2.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}\p{Thai}\p{Lao}\p{Khmer}\p{Myanmar}]")


class BadPattern(Exception):
    """Not a pattern of RE2, or one that needs too much memory or time."""

    def __init__(self, pattern: str) -> None:
        super().__init__(pattern)
        self.pattern = pattern


@dataclass(frozen=True, slots=True, kw_only=True)
class Broken:
    """A rule that a prompt breaks: which word, as the moderators wrote it; None for a pattern, which is not told."""

    word: str | None = None
    negative: bool = False


def levelled(text: str) -> str:
    """The text with what only looks different made the same.

    NFKC: full-width, mathematical, circled and superscript letters are letters, ligatures are taken apart. Invisible
    characters (zero-width joiners, soft hyphens, variation selectors) are left out, and any blank is one space.
    Not undone: accents, letters of another alphabet that look alike, digits for letters, letters with spaces between.
    """
    whole = unicodedata.normalize("NFKC", text.encode("utf-8", "replace").decode())
    visible = (c for c in whole if unicodedata.category(c) != "Cf" and not "\ufe00" <= c <= "\ufe0f")
    return _SPACES.sub(" ", unicodedata.normalize("NFKC", "".join(visible))).strip()


def compiled(pattern: str) -> Any:
    """The pattern, ready to search, without regard to case. Raises BadPattern."""
    options = re2.Options()
    options.case_sensitive = False
    options.max_mem = PATTERN_MEMORY
    options.log_errors = False
    try:
        return re2.compile(pattern, options)
    except (re2.error, UnicodeEncodeError):
        raise BadPattern(pattern) from None


@lru_cache(KEPT_PATTERNS)
def _patterns(patterns: tuple[str, ...]) -> list[tuple[str, Any]]:
    return [(pattern, compiled(pattern)) for pattern in patterns]


@lru_cache(KEPT_WORDS)
def _words(words: tuple[str, ...]) -> tuple[re.Pattern[str] | None, dict[str, str]]:
    """What finds any of the words, and how the moderators wrote each."""
    written = {levelled(word).casefold(): word for word in reversed(words)}
    written.pop("", None)
    either = "|".join(
        re.escape(word) if _UNSPACED.search(word) else rf"(?<![^\W_]){re.escape(word)}(?![^\W_])"
        for word in sorted(written, key=len, reverse=True)
    )
    return (re.compile(either) if either else None), written


def broken(
    words: Sequence[str],
    patterns: Sequence[str],
    prompt: str,
    negative_prompt: str | None,
    *,
    monotonic: Callable[[], float] = time.monotonic,
) -> Broken | None:
    """The first rule that a prompt or negative prompt breaks. To be run off the event loop.

    Raises BadPattern where a pattern cannot be looked for, or not in time.
    """
    wordfinder, written = _words(tuple(words))
    until = monotonic() + LOOKING_SECONDS
    for text, negative in ((levelled(prompt), False), (levelled(negative_prompt or ""), True)):
        if wordfinder and (found := wordfinder.search(text.casefold())):
            return Broken(word=written[found[0]], negative=negative)
        for pattern, finder in _patterns(tuple(patterns)):
            if monotonic() > until:
                raise BadPattern(pattern)
            if text and finder.search(text):
                return Broken(negative=negative)
    return None
