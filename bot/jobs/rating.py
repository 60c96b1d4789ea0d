"""How strong models are, from votes between two at a time: Bradley and Terry's model. Pure.

The chance that one is preferred is p / (p + q), with their strengths p and q. Strengths are found by the MM
algorithm (Hunter 2004), the intervals from the inverse of the Fisher information. A vote for neither counts half
for each. As if each model had once won and once lost against one of strength 1, so that a model that always won has a
strength too, and few votes stay near the middle.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

MIDDLE = 1000.0
A_DECADE = 400.0  # points by which one is preferred ten times as often as the other, as in chess
PRIOR_VOTES = 2.0  # half of them won
SURE = 1.959964  # standard deviations to each side: 95 %
MOST_ROUNDS = 10_000
CLOSE_ENOUGH = 1e-10


@dataclass(frozen=True, slots=True)
class Rating:
    """Points, and what they may lie off to each side with 95 % confidence; from so many votes."""

    points: float
    plus_minus: float
    votes: int


def rate(votes: Iterable[tuple[str, str, float, int]]) -> Mapping[str, Rating]:
    """Each model's rating. `votes`: two models, how many the first won (a draw is half), and how many there were."""
    wins: defaultdict[str, float] = defaultdict(float)
    met: defaultdict[str, defaultdict[str, int]] = defaultdict(lambda: defaultdict(int))
    for one, other, won, number in votes:
        if one == other or not number:
            continue
        wins[one] += won
        wins[other] += number - won
        met[one][other] += number
        met[other][one] += number
    names = sorted(met)
    strength = dict.fromkeys(names, 1.0)
    for _ in range(MOST_ROUNDS):
        new = {
            name: (wins[name] + PRIOR_VOTES / 2)
            / (
                PRIOR_VOTES / (strength[name] + 1)
                + sum(number / (strength[name] + strength[other]) for other, number in met[name].items())
            )
            for name in names
        }
        moved = max((abs(math.log(new[name] / strength[name])) for name in names), default=0.0)
        strength = new
        if moved < CLOSE_ENOUGH:
            break
    spread = _variances(names, met, strength)
    point = A_DECADE / math.log(10)
    return {
        name: Rating(
            points=MIDDLE + point * math.log(strength[name]),
            plus_minus=SURE * point * math.sqrt(spread[name]),
            votes=sum(met[name].values()),
        )
        for name in names
    }


def _variances(
    names: list[str], met: Mapping[str, Mapping[str, int]], strength: Mapping[str, float]
) -> dict[str, float]:
    """Of the strengths' logarithms: the diagonal of the inverse of the Fisher information."""
    information = [[0.0] * len(names) for _ in names]
    for row, name in enumerate(names):
        p = strength[name]
        information[row][row] = PRIOR_VOTES * p / (p + 1) ** 2
        for column, other in enumerate(names):
            if number := met[name].get(other):
                q = strength[other]
                known = number * p * q / (p + q) ** 2
                information[row][row] += known
                information[row][column] -= known
    inverse = _inverted(information)
    return {name: inverse[row][row] for row, name in enumerate(names)}


def _inverted(matrix: list[list[float]]) -> list[list[float]]:
    """By Gauss and Jordan, without pivoting: the matrix is symmetric and dominated by its diagonal."""
    size = len(matrix)
    rows = [[*row, *(float(n == m) for m in range(size))] for n, row in enumerate(matrix)]
    for n in range(size):
        pivot = rows[n][n]
        rows[n] = [value / pivot for value in rows[n]]
        for m in range(size):
            if m != n and (factor := rows[m][n]):
                rows[m] = [value - factor * other for value, other in zip(rows[m], rows[n], strict=True)]
    return [row[size:] for row in rows]
