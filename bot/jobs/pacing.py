"""When to ask the provider next, and when a clip may be expected. Pure; knows nobody."""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from statistics import median, quantiles

ENOUGH = 5
OVERDUE_GAP = timedelta(minutes=5)
KEEP_ASKING = timedelta(hours=24)


@dataclass(frozen=True, slots=True)
class Estimate:
    """From submit to clip: the middle case, and the time past which a clip is late."""

    middle: timedelta
    late: timedelta


def estimate(past: Sequence[timedelta], typical: timedelta) -> Estimate:
    """Learned from past jobs of the same kind; the planning value until there are enough of them."""
    if len(past) < ENOUGH:
        return Estimate(middle=typical, late=typical * 3)
    seconds = [duration.total_seconds() for duration in past]
    late = quantiles(seconds, n=20)[-1]
    return Estimate(middle=timedelta(seconds=median(seconds)), late=timedelta(seconds=late))


def next_poll(
    waited: timedelta, *, first: timedelta, gap: timedelta, deadline: timedelta
) -> timedelta | None:
    """How long from now until the next poll of a job submitted `waited` ago; None: stop asking.

    The first poll after `first`, then every `gap` for two minutes, twice that until ten, six times
    that until the deadline, and slowly for a day after it: a late clip was paid for as well.
    """
    if waited >= deadline + KEEP_ASKING:
        return None
    if waited >= deadline:
        return OVERDUE_GAP
    if waited < first:
        return first - waited
    if waited < timedelta(minutes=2):
        return gap
    return gap * (2 if waited < timedelta(minutes=10) else 6)
