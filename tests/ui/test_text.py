"""Other people's words in our messages."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.ui.text import as_many_as_fit, elapsed, escaped, money, plain, quoted


@pytest.mark.parametrize(
    ("prompt", "shown"),
    [
        ("waves", "“waves”"),
        ("**loud** _soft_ ~~gone~~", r"“\*\*loud\*\* \_soft\_ \~\~gone\~\~”"),
        ("hi @everyone <@123> <#4>", r"“hi \@everyone \<\@123> \<#4>”"),
        ("[free](https://evil.example)", r"“\[free](https\://evil.example)”"),
        ("||hidden|| `code`", r"“\|\|hidden\|\| \`code\`”"),
        (r"back\slash", r"“back\\slash”"),
        ("# big\n\n> quote\n- list", "“# big > quote - list”"),
        ("left\u202eright\u0000\u200b", "“leftright”"),
        ("👩\u200d🚀 flies", "“👩\u200d🚀 flies”"),
    ],
)
def test_a_prompt_is_shown_as_characters(prompt: str, shown: str) -> None:
    """No ping, no formatting, no link, no line of its own."""
    assert quoted(prompt) == shown


def test_a_long_prompt_is_cut() -> None:
    """Cut before escaping, so that no escape is left half."""
    assert quoted("*" * 700) == "“" + r"\*" * 600 + "…”"


@given(st.text(max_size=3000))
def test_no_prompt_breaks_the_layout(prompt: str) -> None:
    """One line, bounded, and every markup character is escaped."""
    shown = quoted(prompt)

    assert "\n" not in shown
    assert len(shown) <= 2 * 600 + 3
    rest = shown.replace("\\\\", "")
    assert all(rest[at - 1] == "\\" for at, c in enumerate(rest) if c in "`*_~|<[@:")


def test_an_alt_text_shows_no_escapes() -> None:
    """Screen readers read what stands there."""
    assert plain("a *b*\nc") == "a *b* c"


def test_escaping_leaves_ordinary_text_alone() -> None:
    """Numbers, umlauts and punctuation need nothing."""
    assert escaped("Über 3.5 Wellen, oder?") == "Über 3.5 Wellen, oder?"


@pytest.mark.parametrize(
    ("cents", "free", "shown"),
    [(0, True, "free"), (0, False, None), (35, False, "$0.35"), (123456, False, "$1,234.56")],
)
def test_prices(cents: int, free: bool, shown: str | None) -> None:
    """As people write money; where the owner has not said what a model costs, nothing is promised."""
    assert money(cents, "$", free=free) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.4, "0 s"), (42, "42 s"), (185, "3 min 5 s"), (7800, "2 h 10 min")]
)
def test_durations(seconds: float, shown: str) -> None:
    """As people say them."""
    assert elapsed(seconds) == shown


@given(st.lists(st.text(min_size=1, max_size=50), max_size=30), st.integers(40, 400))
def test_as_many_lines_as_fit(lines: list[str], limit: int) -> None:
    """Never more than the limit, and the number of those left out is told."""
    shown = as_many_as_fit(lines, limit)

    assert len(shown) <= limit
    if sum(len(line) + 1 for line in lines) <= limit:
        assert shown == "\n".join(lines)
    else:
        assert shown.endswith(" more")
