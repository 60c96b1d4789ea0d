"""How strong models are, from votes: known strengths are found again, and nothing depends on an order."""

import math
import random
from itertools import combinations

import pytest

from bot.jobs.rating import MIDDLE, rate

STRENGTHS = {"a": 4.0, "b": 2.0, "c": 1.0, "d": 0.5}


def votes_of(number: int, seed: int = 0) -> list[tuple[str, str, float, int]]:
    """So many votes for each two of these, as their strengths have it."""
    source = random.Random(seed)  # noqa: S311 - chance, the same every time
    votes = []
    for one, other in combinations(STRENGTHS, 2):
        chance = STRENGTHS[one] / (STRENGTHS[one] + STRENGTHS[other])
        votes.append((one, other, float(sum(source.random() < chance for _ in range(number))), number))
    return votes


def test_known_strengths_are_found_again() -> None:
    """The differences, in points, from many votes: 400 points are a factor of ten."""
    found = rate(votes_of(4000))

    for one, other in combinations(STRENGTHS, 2):
        true = 400 * math.log10(STRENGTHS[one] / STRENGTHS[other])
        assert found[one].points - found[other].points == pytest.approx(true, abs=15)
    assert sorted(found, key=lambda name: -found[name].points) == ["a", "b", "c", "d"]
    assert {rating.votes for rating in found.values()} == {12000}


def test_the_differences_lie_in_the_intervals() -> None:
    """Nearly always, over two hundred draws: for a difference both intervals together are wide enough."""
    inside = 0
    for seed in range(200):
        found = rate(votes_of(40, seed))
        off = found["a"].points - found["d"].points - 400 * math.log10(8)
        inside += abs(off) <= found["a"].plus_minus + found["d"].plus_minus
    assert inside >= 190


def test_more_votes_make_the_interval_smaller() -> None:
    """Where the votes say something about both, as between neighbours."""
    few, many = (
        rate([("a", "b", number / 2, number), ("b", "c", number / 2, number)]) for number in (4, 400)
    )

    assert all(many[name].plus_minus < few[name].plus_minus for name in "abc")


def test_no_order_matters() -> None:
    """Neither of the votes, nor of the two in a vote, nor whether they come one by one."""
    votes = votes_of(50)
    turned = [(other, one, number - won, number) for one, other, won, number in reversed(votes)]
    single = [
        (one, other, 1.0 if n < won else 0.0, 1) for one, other, won, number in votes for n in range(number)
    ]

    for others in (turned, single):
        found = rate(others)
        for name, rating in rate(votes).items():
            assert found[name].points == pytest.approx(rating.points, abs=1e-4)
            assert found[name].plus_minus == pytest.approx(rating.plus_minus, abs=1e-4)
            assert found[name].votes == rating.votes


def test_always_won_is_not_endless() -> None:
    """One vote says little: a rating not far from the middle, with a wide interval."""
    found = rate([("a", "b", 1.0, 1)])

    assert MIDDLE < found["a"].points < MIDDLE + 200
    assert found["b"].points == pytest.approx(2 * MIDDLE - found["a"].points)
    assert found["a"].plus_minus > 300


def test_draws() -> None:
    """Neither is better: both in the middle."""
    found = rate([("a", "b", 10.0, 20)])

    assert found["a"].points == pytest.approx(MIDDLE)
    assert found["b"].points == pytest.approx(MIDDLE)


def test_no_votes() -> None:
    """Nobody is rated, and a model against itself says nothing."""
    assert rate([]) == {}
    assert rate([("a", "a", 3.0, 5), ("a", "b", 0.0, 0)]) == {}
