"""The owner's money, as entries that follow from a job's moves. Pure; written in the same transactions.

A job's price is reserved when it is requested. At its end the reservation is charged (the clip was
paid), released (surely not), or doubted (nobody can tell). What is reserved and neither is open:
`reserve - charge - release - doubt` is the price for an open job and nothing for an ended one.
"""

from dataclasses import dataclass
from enum import StrEnum

from bot.jobs.machine import Charge, Job, Outcome, TriedAgain


class Kind(StrEnum):
    RESERVE = "reserve"
    CHARGE = "charge"
    RELEASE = "release"
    DOUBT = "doubt"


@dataclass(frozen=True, slots=True)
class Entry:
    kind: Kind
    cents: int


def entries(before: Job | None, after: Job, outcome: Outcome | None = None) -> list[Entry]:
    """What a move writes into the ledger; `before` is None for a new job."""
    price = after.price_cents
    if before is None:
        return [Entry(Kind.RESERVE, price)]
    if isinstance(outcome, TriedAgain):
        # The first attempt may have been charged; the second is reserved on top of it.
        return [Entry(Kind.DOUBT, price), Entry(Kind.RESERVE, price)]
    if _settled(before) or not _settled(after):
        return []
    kind = {Charge.CHARGED: Kind.CHARGE, Charge.NONE: Kind.RELEASE}.get(after.charge, Kind.DOUBT)
    return [Entry(kind, price)]


def _settled(job: Job) -> bool:
    """Charged as soon as the clip is ready; anything else is settled by the job's end."""
    return job.charge is Charge.CHARGED or not job.is_open
