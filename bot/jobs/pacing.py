"""When to ask the provider next, and when a clip may be expected. Pure; knows nobody.

Finish times are uncertain and every poll costs something, so the least lag for the polls spent comes
from gaps of sqrt(2 * price / hazard): often when a clip is likely now, seldom when it is not
(the inspection problem of Barlow, Hunter and Proschan, 1963; in this dense form Keller, 1974).
The hazard is learned from past jobs and mixed for ever with a broad prior: a provider that turns
slower or faster overnight is still asked at a sensible pace.
"""

from array import array
from bisect import bisect_left
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from itertools import accumulate, pairwise
from math import ceil, erf, exp, inf, log, sqrt
from typing import Self

KEEP_ASKING = timedelta(hours=24)
OVERDUE_GAP = timedelta(minutes=5)
# What one poll may cost, in seconds of lag: 9 to 13 polls for a clip that takes one to three minutes.
DEFAULT_PRICE = 0.3

ENOUGH = 5  # past jobs, before a person is told anything but the planning value
HALF_LIFE = 50  # jobs until a duration counts half: providers change
# A broad prior, one clip in twenty taking over three times the typical, worth so many jobs. Were it worth 8,
# a narrow kind would cost 7 % more after 100 jobs, for little: the early look and the longest gap guard too.
PRIOR_SPREAD, PRIOR_JOBS = log(3) / 1.645, 1.5
FIRST_SPREAD, FIRST_JOBS = 0.35, 3.0  # what a kind's own spread is taken for at first, and how firmly
SHORTEST, LONGEST = 0.5, 2 * 86_400.0  # seconds; durations outside are taken for these
STEP = 0.02  # of the table, in logarithms of the age
LONGEST_GAP = 30.0  # seconds, while clips are still to be expected
GROWTH = 1 / 20  # of the gap, for each second waited after that
QUEUED_FIRST, QUEUED_GAP = timedelta(seconds=10), timedelta(seconds=30)


@dataclass(frozen=True, slots=True, eq=False)
class Pace:
    """How long the clips of one kind take: route, model, length and quality. Some 4 KB."""

    middle: timedelta
    """Half of the clips are there by now."""
    late: timedelta
    """Nineteen in twenty are there by now; a job that has waited longer may be called late."""

    _glance: float  # the one early look: refusals come early, and so do clips of a provider grown quick
    _begin: float  # hardly a clip comes before
    _end: float  # hardly a clip comes after
    _origin: float  # logarithm of the age at which the table begins
    _due: Sequence[float]  # polls due by the age exp(_origin + i * STEP), were the price 1

    @classmethod
    def prior(cls, typical: timedelta) -> Self:
        """Nothing is known but a planning value; also the pace during an incident."""
        return cls.learn((), typical=typical)

    @classmethod
    def learn(cls, past: Sequence[timedelta], *, typical: timedelta) -> Self:
        """From the durations of past jobs of the same kind, the newest first, by the poll that saw the clip.

        They and the waits asked about later count from the same moment: the submit or, where polls tell
        (see `queued_poll`), the first poll that saw the job rendering.
        """
        points = [log(_within(duration)) for duration in past]
        weights = [0.5 ** (i / HALF_LIFE) for i in range(len(past))]
        jobs = sum(weights) ** 2 / (sum(weight**2 for weight in weights) or 1)  # equal ones, that is
        share = jobs / (jobs + PRIOR_JOBS)
        # The prior moves along: a planning value off by half must not cost polls for ever.
        mean = sum(w * point for w, point in zip(weights, points, strict=True)) / (sum(weights) or 1)
        centre = share * mean + (1 - share) * log(_within(typical))
        origin = min([centre - 4 * PRIOR_SPREAD, *points]) - 1
        cells = ceil((max([centre + 4 * PRIOR_SPREAD, *points]) + 1 - origin) / STEP)

        below = [_normal((origin + i * STEP - centre) / PRIOR_SPREAD) for i in range(cells + 1)]
        believed = [(b - a) / (below[-1] - below[0]) for a, b in pairwise(below)]
        learned = _density([(point - origin) / STEP for point in points], weights, jobs, cells)
        mixed = [share * new + (1 - share) * old for new, old in zip(learned, believed, strict=True)]

        def age(mass: list[float], part: float) -> float:
            return exp(origin + STEP * _quantile(mass, part))

        told = len(past) >= ENOUGH
        return cls(
            middle=timedelta(seconds=age(learned, 0.5)) if told else typical,
            late=timedelta(seconds=age(learned, 0.95)) if told else 3 * typical,
            _glance=min(age(believed, 0.05), LONGEST_GAP),
            _begin=age(mixed, 0.05),
            _end=age(mixed, 0.99),
            _origin=origin,
            _due=_polls_due(mixed, origin),
        )

    def next_poll(
        self, waited: timedelta, *, least_gap: timedelta, deadline: timedelta, price: float = DEFAULT_PRICE
    ) -> timedelta | None:
        """How long from now until the next poll of a job that has waited so long; None: stop asking.

        `price`, above zero, is what one poll may cost in seconds of lag: raise it to poll less.
        Of two jobs the one that has waited longer is polled at the higher age, whenever one asks. Past the deadline it goes on slowly for a day, as a late clip was paid for as well.
        """
        if waited >= deadline:
            return _overdue(waited, least_gap, deadline)
        age = max(waited.total_seconds(), 0.0)
        if age < self._end:
            gap = self._next(age, price) - age
        else:
            gap = self._next(self._end, price) - self._end + (age - self._end) * GROWTH
        return max(min(timedelta(seconds=gap), OVERDUE_GAP), least_gap)

    def _next(self, age: float, price: float) -> float:
        """The age at which one more poll is due, within the guard rails."""
        cap = age + LONGEST_GAP
        if age < self._begin:
            cap = max(cap, min(3 * age, self._begin))
        if age < self._glance / 2:  # a poll in its second half was that look
            cap = min(cap, self._glance)
        return min(self._age(self._polls(age) + sqrt(price)), cap)

    def _polls(self, age: float) -> float:
        cell = int((log(age) - self._origin) / STEP) if age > 0 else -1
        if cell < 0:
            return 0.0
        if cell >= len(self._due) - 1:
            return inf
        start, end = self._edges(cell)
        return self._due[cell] + (self._due[cell + 1] - self._due[cell]) * (age - start) / (end - start)

    def _age(self, polls: float) -> float:
        """The other way round."""
        cell = bisect_left(self._due, polls) - 1
        if cell >= len(self._due) - 1:
            return inf
        start, end = self._edges(cell)
        return start + (end - start) * (polls - self._due[cell]) / (self._due[cell + 1] - self._due[cell])

    def _edges(self, cell: int) -> tuple[float, float]:
        return exp(self._origin + STEP * cell), exp(self._origin + STEP * (cell + 1))


def queued_poll(
    waited: timedelta, *, typical: timedelta, least_gap: timedelta, deadline: timedelta
) -> timedelta | None:
    """The same for a job its provider still calls queued: one early look, then a steady pace.

    How long a queue is cannot be learned; when rendering began need not be known closely.
    """
    if waited >= deadline:
        return _overdue(waited, least_gap, deadline)
    first = min(typical / 7, QUEUED_FIRST)
    gap = first - waited if waited < first else min(typical / 2, QUEUED_GAP)
    return max(gap, least_gap)


def in_doubt(waits: Sequence[timedelta], late: timedelta) -> bool:
    """Whether so many running jobs are late that what was learned no longer holds: use the prior."""
    return len(waits) >= 3 and 2 * sum(waited > late for waited in waits) > len(waits)


def _overdue(waited: timedelta, least_gap: timedelta, deadline: timedelta) -> timedelta | None:
    return None if waited >= deadline + KEEP_ASKING else max(OVERDUE_GAP, least_gap)


def _within(duration: timedelta) -> float:
    return min(max(duration.total_seconds(), SHORTEST), LONGEST)


def _normal(x: float) -> float:
    return 0.5 * (1 + erf(x / sqrt(2)))


def _quantile(mass: Sequence[float], part: float) -> float:
    """Where, in cells, this part of the mass lies below."""
    total = list(accumulate(mass))
    cell = bisect_left(total, part * total[-1])
    return cell + 1 - (total[cell] - part * total[-1]) / mass[cell]


def _density(points: Sequence[float], weights: Sequence[float], jobs: float, cells: int) -> list[float]:
    """A kernel estimate over the cells, from points measured in cells and worth so many equal jobs.

    Bandwidth after Silverman, from the middle half of the points so that a few stuck jobs do not widen it.
    """
    mass = [0.0] * cells
    if not points:
        return mass
    bins, total = [0.0] * cells, sum(weights)
    for point, weight in zip(points, weights, strict=True):
        bins[int(point)] += weight / total
    middle_half = STEP * (_quantile(bins, 0.75) - _quantile(bins, 0.25)) / 1.34
    spread = sqrt((FIRST_JOBS * FIRST_SPREAD**2 + jobs * middle_half**2) / (FIRST_JOBS + jobs))
    width = max(0.7 * spread * jobs**-0.2, 2 * STEP) / STEP

    reach = ceil(3 * width)
    kernel = [exp(-0.5 * (i / width) ** 2) for i in range(-reach, reach + 1)]
    for cell, weight in enumerate(bins):
        if weight:
            for i in range(max(cell - reach, 0), min(cell + reach + 1, cells)):
                mass[i] += weight * kernel[i - cell + reach]
    whole = sum(mass)
    return [part / whole for part in mass]


def _polls_due(mass: Sequence[float], origin: float) -> Sequence[float]:
    """The integral of sqrt(hazard / 2) up to each edge of the cells."""
    due, left = [0.0], 1.0
    for cell, part in enumerate(mass):
        still = max(left - part, 1e-12)
        seconds = exp(origin + STEP * (cell + 1)) - exp(origin + STEP * cell)
        due.append(due[-1] + sqrt(log(left / still) * seconds / 2))
        left = still
    return array("d", due)
