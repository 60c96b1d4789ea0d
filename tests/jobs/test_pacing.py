"""When to ask next, and what to promise."""

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.jobs.pacing import KEEP_ASKING, estimate, next_poll

FIRST, GAP, DEADLINE = timedelta(seconds=10), timedelta(seconds=5), timedelta(minutes=15)


@pytest.mark.parametrize(
    ("waited", "pause"),
    [(0, 10), (4, 6), (10, 5), (119, 5), (120, 10), (599, 10), (600, 30), (899, 30), (900, 300), (9000, 300)],
)
def test_the_pauses_grow_with_the_wait(waited: int, pause: int) -> None:
    """First poll after 10 s, then 5, 10 and 30 s apart, and slowly past the deadline."""
    given_pause = next_poll(timedelta(seconds=waited), first=FIRST, gap=GAP, deadline=DEADLINE)

    assert given_pause == timedelta(seconds=pause)


@given(st.floats(min_value=0, max_value=200_000))
def test_it_never_stops_early_and_never_asks_for_ever(waited: float) -> None:
    """A day past the deadline is the end; until then there is always a next poll, never at once."""
    pause = next_poll(timedelta(seconds=waited), first=FIRST, gap=GAP, deadline=DEADLINE)

    if timedelta(seconds=waited) >= DEADLINE + KEEP_ASKING:
        assert pause is None
    else:
        assert pause
        assert pause > timedelta(0)


def test_a_few_clips_teach_nothing_yet() -> None:
    """Until there are five, the planning value is used."""
    guess = estimate([timedelta(seconds=1)] * 4, timedelta(minutes=3))

    assert guess.middle == timedelta(minutes=3)


def test_the_estimate_follows_the_past() -> None:
    """The middle is the median, and late is later than nearly all."""
    past = [timedelta(seconds=seconds) for seconds in range(60, 160)]

    guess = estimate(past, timedelta(minutes=9))

    assert guess.middle == timedelta(seconds=109.5)
    assert timedelta(seconds=150) < guess.late < timedelta(seconds=160)
