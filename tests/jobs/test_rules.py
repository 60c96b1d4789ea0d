"""What prompts may not say: words in any dress, patterns that cannot hold up anything."""

from itertools import count

import pytest

from bot.errors import Refusal
from bot.jobs.guilds import LONGEST_PATTERN, refuse_bad_pattern
from bot.jobs.rules import LOOKING_SECONDS, BadPattern, Broken, broken, levelled


def found(words: list[str], prompt: str, *, patterns: list[str] | None = None) -> str | None:
    """The word that is found, "" for a pattern, None for nothing."""
    rule = broken(words, patterns or [], prompt, None)
    return None if rule is None else rule.word or ""


@pytest.mark.parametrize(
    "prompt",
    [
        "gore",
        "GORE!",
        "some (gore), please",
        "big_gore_scene",
        "ｇｏｒｅ",  # full-width
        "𝓰𝓸𝓻𝓮",  # mathematical
        "ⓖⓞⓡⓔ",  # circled
        "go\u200bre",  # zero-width space
        "g\u00ado\u00adr\u00ade",  # soft hyphens
        "gor\u2060e\ufe0f",  # word joiner, variation selector
    ],
)
def test_a_word_in_any_dress(prompt: str) -> None:
    """Case, compatibility letters, invisible characters and punctuation hide nothing."""
    assert found(["blood", "gore"], prompt) == "gore"


@pytest.mark.parametrize(
    "prompt", ["gorey", "category", "Goretex", "gorges", "7gore", "göre", "g o r e", "g0re", "gоre", ""]
)
def test_what_is_not_that_word(prompt: str) -> None:
    """Whole words only. Accents, lookalikes of another alphabet, digits and spaced letters are for patterns."""
    assert found(["gore"], prompt) is None


@pytest.mark.parametrize(
    ("word", "prompt"),
    [
        ("Ice Pick", "an ice \n  PICK falls"),
        ("ﬁre", "FIRE"),
        ("STRASSE", "die straße"),
        ("c++", "in c++, please"),
        ("血", "流血的海"),  # written without spaces: found inside
        ("ナイフ", "ﾅｲﾌを持つ"),  # half-width kana
        ("é", "e\u0301"),  # the same letter in two parts
    ],
)
def test_words_of_many_kinds(word: str, prompt: str) -> None:
    """Said as the moderators wrote them."""
    assert found([word], prompt) == word


def test_the_longest_word_is_named() -> None:
    """Of two that begin alike."""
    assert found(["ice", "ice pick"], "an ice pick") == "ice pick"


def test_the_negative_prompt_counts() -> None:
    """And it is said where it was."""
    assert broken(["gore"], [], "waves", "gore") == Broken(word="gore", negative=True)
    assert broken(["gore"], [], "gore", "gore") == Broken(word="gore")


def test_a_word_of_nothing_but_invisible_characters() -> None:
    """Forbids nothing, rather than everything."""
    assert found(["\u200b"], "waves") is None


def test_patterns() -> None:
    """Regular expressions, without regard to case, in the levelled text; which one is not told."""
    assert found([], "a N1ude", patterns=[r"\bn.?ud"]) == ""
    assert found([], "ｎｕｄ", patterns=[r"\bn.?ud"]) == ""
    assert found([], "waves", patterns=[r"\bn.?ud"]) is None
    assert found([], "море", patterns=[r"^\p{Cyrillic}+$"]) == ""
    assert broken([], ["blur"], "waves", "blurred") == Broken(negative=True)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("(a|aa)+$", "a" * 6000 + "b"),
        ("(x+x+)+y", "x" * 6000),
        ("(.*)*(.*)*(.*)*z", "x" * 6000),
        ("^(([a-z])+.)+[A-Z]([a-z])+$", "a" * 6000 + "!"),
    ],
)
def test_a_pattern_that_backtracks_for_ever(pattern: str, text: str) -> None:
    """Would take longer than the universe has; here it is answered."""
    assert len(pattern) <= LONGEST_PATTERN
    assert broken([], [pattern], text, None) in (None, Broken())


@pytest.mark.parametrize(
    "pattern",
    ["(gore", "*", r"(a)\1", "(?=a)b", "(((a{999}){999}){999}){999}", "a{1001}", r"[\p{L}\d]{999}", "\ud800"],
)
def test_a_pattern_that_is_none(pattern: str) -> None:
    """Not RE2's, or so large that it would take the memory: refused when it is set, and never looked for."""
    with pytest.raises(Refusal, match="not a pattern that I understand"):
        refuse_bad_pattern(pattern)
    with pytest.raises(BadPattern):
        broken([], [pattern], "waves", None)


def test_patterns_that_take_too_long_together() -> None:
    """The clock is looked at between them."""
    ticks = count(0, LOOKING_SECONDS)

    with pytest.raises(BadPattern) as bad:
        broken([], ["x", "y", "z"], "waves", None, monotonic=lambda: next(ticks) * 0.9)

    assert bad.value.pattern == "y"


def test_any_text_can_be_looked_through() -> None:
    """Also what is no text at all."""
    assert levelled("\ud800 \x00 a\u2028b") == "? \x00 a b"
    assert found(["gore"], "\ud800gore", patterns=["x"]) == "gore"
