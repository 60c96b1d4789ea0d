"""How far `bot.jobs.pacing` is from the best polling there can be: `python -m tests.bench.polling`.

A job takes T seconds. The first poll at or after T sees the clip: the lag is that poll's time less T.
The limit is the least lag any schedule reaches with as many polls when the distribution of T is known
exactly: a dynamic program over seconds (the inspection problem of Barlow, Hunter and Proschan, 1963).
The last column is polls x mean lag over that of the limit with as many polls; 1.00 cannot be beaten
blind, only with a hint such as "queued" or "rendering". Needs numpy; everything is seeded.
"""

from collections.abc import Callable, Sequence
from datetime import timedelta
from functools import partial

import numpy as np
from numpy.random import Generator, default_rng
from numpy.typing import NDArray

from bot.jobs.pacing import Pace, queued_poll
from tests.bench.report import Table, options, show

Times = NDArray[np.float64]
Score = tuple[float, float, float, float]  # polls per job; lag: mean, p95, p99

HORIZON = 3600  # seconds; whatever is left there counts as finished
LEAST_GAP = 2.0
TYPICAL = timedelta(seconds=100)
JOBS = 100_000  # judged on
HISTORIES = 60  # averaged over, for each number of past jobs
LEARNED = (0, 5, 20, 100, 500)
AIMS = {100: "≤ 1.20"}
STAGE_AIMS = {100: "≤ 0.60"}
SECONDS = np.arange(HORIZON + 1, dtype=float)


def lognormal(middle: float, late: float, rng: Generator, jobs: int) -> Times:
    return middle * np.exp(rng.normal(0, np.log(late / middle) / 1.6448536, jobs))


def stages(rng: Generator, jobs: int) -> tuple[Times, Times]:
    """65 % start at once, 35 % wait in a queue first."""
    wait = np.where(rng.random(jobs) < 0.65, rng.uniform(0, 4, jobs), 20 + rng.gamma(4, 40, jobs))
    return wait, lognormal(70, 105, rng, jobs)


def staged(rng: Generator, jobs: int) -> Times:
    wait, render = stages(rng, jobs)
    return wait + render


def heavy(rng: Generator, jobs: int) -> Times:
    body, tail = lognormal(90, 200, rng, jobs), 120 * (1 + rng.pareto(1.3, jobs))
    return np.where(rng.random(jobs) < 0.88, body, tail)


KINDS: dict[str, Callable[[Generator, int], Times]] = {
    "lognormal p50 90 p95 240": partial(lognormal, 90, 240),
    "narrow p50 100 p95 135": partial(lognormal, 100, 135),
    "queue, then render": staged,
    "heavy tail (12 % Pareto 1.3)": heavy,
}


class Limit:
    """Polls and lag of the best schedules for a distribution that is known exactly."""

    def __init__(self, durations: Times, judged: Times) -> None:
        counts = np.bincount(np.ceil(np.clip(durations, 1e-6, HORIZON)).astype(int), minlength=HORIZON + 1)
        kernel = np.exp(-0.5 * (np.arange(-6, 7) / 2.0) ** 2)
        mass = np.convolve(counts / counts.sum(), kernel / kernel.sum(), "same")
        mass[0] = 0
        mass /= mass.sum()
        points = sorted(score(best(mass, price), judged)[:2] for price in np.geomspace(0.002, 8, 20))
        self.polls, self.lag = np.array(points).T

    def ratio(self, polls: float, lag: float) -> float:
        return float(lag / np.exp(np.interp(np.log(polls), np.log(self.polls), np.log(self.lag))))


def best(mass: Times, price: float, longest_gap: int = 240) -> list[float]:
    """The schedule of least E[lag] + price * E[polls] on whole seconds.

    cost[s] is what is still to come after a poll at s saw no clip, times the chance of that.
    """
    done, moment = np.cumsum(mass), np.cumsum(mass * (SECONDS - 0.5))
    cost, after = np.zeros(HORIZON + 1), np.full(HORIZON + 1, HORIZON)
    for s in range(HORIZON - 1, -1, -1):
        least = min(s + int(LEAST_GAP), HORIZON)
        most = HORIZON if s == 0 else min(s + longest_gap, HORIZON)
        there = slice(least, most + 1)
        lag = SECONDS[there] * (done[there] - done[s]) - (moment[there] - moment[s])
        total = price * (1 - done[s]) + lag + cost[there]
        choice = int(np.argmin(total))
        cost[s], after[s] = total[choice], least + choice
    times, s = [], 0
    while s < HORIZON:
        s = int(after[s])
        times.append(float(s))
    return times


def score(schedule: Sequence[float] | Times, durations: Times) -> Score:
    took, polls = np.minimum(durations, HORIZON), np.asarray(schedule)
    seen = np.minimum(np.searchsorted(polls, took), len(polls) - 1)
    return summary(seen + 1.0, np.maximum(polls[seen] - took, 0))


def summary(polls: Times, lag: Times) -> Score:
    return (
        float(polls.mean()),
        float(lag.mean()),
        float(np.quantile(lag, 0.95)),
        float(np.quantile(lag, 0.99)),
    )


def backoff(first: float = 2.0, factor: float = 1.5, cap: float = 30.0) -> list[float]:
    times, at, gap = [], 0.0, first
    while at < HORIZON:
        at += gap
        times.append(at)
        gap = min(cap, gap * factor)
    return times


def fixed(gap: float) -> Times:
    return np.arange(gap, HORIZON + gap, gap)


COMMON: dict[str, Sequence[float] | Times] = {
    "fixed 5 s": fixed(5),
    "fixed 10 s": fixed(10),
    "backoff 2 s x1.5 cap 30": backoff(),
}


def spans(seconds: Times) -> list[timedelta]:
    return [timedelta(seconds=each) for each in seconds.tolist()]


def schedule(pace: Pace) -> list[float]:
    """When a job is polled, as the engine asks: each time from the wait so far."""
    times, waited = [], timedelta(0)
    least_gap, deadline = timedelta(seconds=LEAST_GAP), timedelta(seconds=HORIZON)
    while waited < deadline:
        pause = pace.next_poll(waited, least_gap=least_gap, deadline=deadline)
        assert pause is not None
        waited += pause
        times.append(waited.total_seconds())
    return times


def mean(scores: Sequence[Score]) -> Score:
    polls, lag, p95, p99 = np.mean(scores, axis=0).tolist()
    return polls, lag, p95, p99


def row(table: Table, name: str, result: Score, limit: Limit, aim: str = "") -> None:
    polls, lag, p95, p99 = result
    table.add(
        name, f"{polls:.1f}", f"{lag:.2f}", f"{p95:.1f}", f"{p99:.1f}", f"{limit.ratio(polls, lag):.2f}", aim
    )


def table_of(title: str, conditions: str = "") -> Table:
    return Table(title, ("", "polls", "mean lag, s", "p95", "p99", "÷ limit", "aim"), conditions)


def learned(kind: Callable[[Generator, int], Times], jobs: int, judged: Times) -> Score:
    rng = default_rng(1_000 + jobs)
    paces = [Pace.learn(spans(kind(rng, jobs)), typical=TYPICAL) for _ in range(HISTORIES if jobs else 1)]
    return mean([score(schedule(pace), judged) for pace in paces])


def queue_times() -> Times:
    """When a job is polled while its provider calls it queued."""
    times, waited = [], timedelta(0)
    while waited < timedelta(seconds=HORIZON):
        pause = queued_poll(
            waited,
            typical=TYPICAL,
            least_gap=timedelta(seconds=LEAST_GAP),
            deadline=timedelta(seconds=HORIZON),
        )
        assert pause is not None
        waited += pause
        times.append(waited.total_seconds())
    return np.array(times)


def stage_known(jobs: int, wait: Times, render: Times) -> Score:
    """Queue pace until a poll sees it rendering; from then the pace of what was seen of renders before."""
    queue = queue_times()

    def first_seen(wait: Times) -> tuple[NDArray[np.intp], Times]:
        index = np.minimum(np.searchsorted(queue, wait), len(queue) - 1)
        return index, queue[index]

    rng, scores = default_rng(2_000 + jobs), []
    index, seen = first_seen(wait)
    rest = np.minimum(wait + render, HORIZON) - seen
    for _ in range(HISTORIES if jobs else 1):
        past_wait, past_render = stages(rng, jobs)
        past = past_wait + past_render - first_seen(past_wait)[1]
        pace = Pace.learn(spans(past[past > 0]), typical=TYPICAL)
        times = np.array(schedule(pace))
        poll = np.minimum(np.searchsorted(times, rest), len(times) - 1)
        over = rest <= 0  # the poll that would have seen it rendering saw the clip
        polls = np.where(over, index + 1.0, index + 1.0 + poll + 1.0)
        scores.append(summary(polls, np.where(over, -rest, np.maximum(times[poll] - rest, 0))))
    return mean(scores)


def drift(past: Times, judged: Times) -> Table:
    """Every job suddenly takes so many times as long: at once, ten jobs later, and treated as an incident."""
    table = Table(
        "Polling when every job suddenly takes longer or shorter", ("", "polls", "mean lag, s", "p95", "p99")
    )
    for factor in (0.3, 0.6, 1.5, 3.0, 6.0):
        for name, times in (
            ("fixed 10 s", fixed(10)),
            ("ours at once", schedule(Pace.learn(spans(past), typical=TYPICAL))),
            (
                "ours ten jobs later",
                schedule(Pace.learn(spans(np.append(judged[:10] * factor, past)), typical=TYPICAL)),
            ),
            ("ours in doubt: the prior", schedule(Pace.prior(TYPICAL))),
        ):
            table.add(f"× {factor}, {name}", *(f"{value:.1f}" for value in score(times, judged * factor)))
    return table


def own_eyes(kind: Callable[[Generator, int], Times], jobs: int, judged: Times, seed: int) -> Score:
    """Learning job after job, but a duration is only known by the poll that saw the clip."""
    rng, past, times = default_rng(seed), list[float](), np.empty(0)
    for number in range(jobs):
        if number % 10 == 0:
            times = np.array(schedule(Pace.learn(spans(np.array(past[:200])), typical=TYPICAL)))
        took = min(float(kind(rng, 1)[0]), HORIZON)
        past.insert(0, float(times[min(int(np.searchsorted(times, took)), len(times) - 1)]))
    return score(times, judged)


def measure(*, details: bool = False) -> list[Table]:
    """The tables against the limit; with `details` also what learning and a drifting provider do to them."""
    judged = {name: kind(default_rng(1), JOBS) for name, kind in KINDS.items()}
    limits = {name: Limit(kind(default_rng(2), 3 * JOBS), judged[name]) for name, kind in KINDS.items()}
    tables = []
    for name, kind in KINDS.items():
        table = table_of(f"Polling, {name}", f"from submit to clip; typical {TYPICAL.total_seconds():.0f} s")
        for usual, times in COMMON.items():
            row(table, usual, score(times, judged[name]), limits[name])
        for jobs in LEARNED:
            row(
                table,
                f"ours after {jobs} jobs",
                learned(kind, jobs, judged[name]),
                limits[name],
                AIMS.get(jobs, ""),
            )
        tables.append(table)

    name = "queue, then render"
    table = table_of(
        f"Polling, {name}, stage known", "polls tell queued from rendering; the limit is the blind one's"
    )
    wait, render = stages(default_rng(1), JOBS)
    for jobs in LEARNED:
        aim = STAGE_AIMS.get(jobs, "")
        row(table, f"ours after {jobs} jobs", stage_known(jobs, wait, render), limits[name], aim)
    tables.append(table)
    if not details:
        return tables

    for name, kind in KINDS.items():
        table = table_of(f"Polling, {name}, learned from what its own polls saw")
        for jobs in (100, 500):
            seen = [own_eyes(kind, jobs, judged[name], seed) for seed in range(10)]
            row(table, f"ours after {jobs} jobs", mean(seen), limits[name])
        tables.append(table)
    name = "narrow p50 100 p95 135"
    tables.append(drift(KINDS[name](default_rng(4), 100), judged[name]))
    return tables


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--details", action="store_true", help="also learning by its own polls, and drift")
    asked = parser.parse_args()
    show(measure(details=asked.details), markdown=asked.markdown)


if __name__ == "__main__":
    main()
