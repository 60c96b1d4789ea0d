"""Do the promises hold? Looks through a live database, reading only, and says what is wrong, row by row.

- I1: no more paid calls than one, one for each that was surely not taken, and one for each person's click.
- I2: a delivered job has its post, no other job has one, and no two have the same but those of one comparison.
- I3: every job's money adds up, and every member's.
- I4: no open job is forgotten: none waits long past what its state allows, none belongs to a worker that is gone.
- I5: every history follows the machine's arrows, from the request to the state the row is in.
- I6: the clips on this machine are those that somebody will ask for again.
- I7: no worker has stopped and left something behind.
"""

import asyncio
import time
from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from datetime import datetime, timedelta
from itertools import pairwise
from pathlib import Path

from bot.errors import Cause
from bot.jobs.comparisons import VOTING
from bot.jobs.engine import DRAFT_LIFE, GRACE, OLD_FILE, POSTING_LIFE, UNSURE_LIFE
from bot.jobs.ledger import Kind
from bot.jobs.machine import (
    ARROWS,
    NOBODY,
    REQUESTED,
    Absent,
    Begun,
    Busy,
    Charge,
    Job,
    State,
    TriedAgain,
)
from bot.jobs.ownership import STALE
from bot.jobs.pacing import KEEP_ASKING
from bot.jobs.store import HOLDS_SLOT, OWNED, Dossier, Store

SLACK = timedelta(hours=1)  # for workers that were away for a while
GONE = STALE * 20  # by then a dead worker's jobs were taken over, if anybody is there to do it
_OLD_CLIP = OLD_FILE * 2 + SLACK  # swept once an hour

_DRAWN = {(old, outcome.__name__, new) for old, outcome, new in ARROWS}
_ALLOWS_ANOTHER = {Busy.__name__, Absent.__name__, TriedAgain.__name__}
_CHARGES = {
    State.DRAFT: {Charge.RESERVED},
    State.QUEUED: {Charge.RESERVED},
    State.PREPARING: {Charge.RESERVED},
    State.SUBMITTING: {Charge.RESERVED},
    State.UNSURE: {Charge.MAYBE},
    State.RENDERING: {Charge.RESERVED, Charge.MAYBE},
    State.POSTING: {Charge.CHARGED},
    State.DELIVERED: {Charge.CHARGED},
    State.FAILED: {Charge.NONE, Charge.CHARGED, Charge.MAYBE},
    State.CANCELLED: {Charge.NONE},
    State.UNDELIVERABLE: {Charge.CHARGED},
}
# After these the clip may never have been downloaded, so there may be none to keep.
_PERHAPS_NEVER_FETCHED = {
    Cause.CLIP_TOO_LARGE,
    Cause.NO_ANSWER,
    Cause.BUSY,
    Cause.BROKEN,
    Cause.UNREADABLE,
    Cause.POISON,
    Cause.DISCORD_DOWN,
}


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that is wrong: the invariant, the job (or worker, member, file), and what, in plain words.

    A `notice` may be all right, and is for somebody to look at.
    """

    invariant: str
    about: str
    what: str
    notice: bool = False


async def audit(
    store: Store,
    *,
    now: Callable[[], datetime],
    deadline: Callable[[Job], timedelta],
    folder: Path,
    keep: timedelta,
    one_machine: bool,
) -> AsyncIterator[Finding]:
    """Whatever breaks an invariant, as it is found; nothing is written, memory does not grow with the jobs.

    `deadline(job)`: the longest its model may render. `folder` holds this machine's clips; with `one_machine`
    it holds all there are. `keep`: how long a clip that could not be posted is kept.
    """
    files = await asyncio.to_thread(_clips, folder)
    heard_of = await store.heard_of(now())
    owners: set[str] = set()
    waits: defaultdict[str, list[Job]] = defaultdict(list)
    unbalanced: Counter[int] = Counter()
    async for dossier in store.dossiers():
        job = dossier.job
        age_of_file = files.pop(dossier.job_id, None)
        if job is None:
            yield Finding("I5", dossier.job_id, "has a history or money, but no row among the jobs")
            continue
        if job.is_open and job.worker:
            owners.add(job.worker)
        unbalanced[job.asker_id] += _beyond(dossier, job)
        if job.state is State.QUEUED and now() - _waits_since(job) > HOLDS_SLOT + SLACK:
            waits[job.route].append(job)
        for finding in (
            *_paid_calls(dossier, job),
            *_post(job),
            *_money(dossier, job),
            *_overdue(job, now(), deadline(job)),
            *_sealed(job, now()),
            *_owner(job, now(), heard_of),
            *_history(dossier, job),
            *_clip(job, now(), age_of_file, keep, one_machine),
        ):
            yield finding

    for job_id, post_id in await store.shared_posts():
        yield Finding("I2", job_id, f"its post {post_id} is named by another job too")
    for asker, cents in (await store.reserved_beyond()).items():
        if cents != unbalanced[asker]:
            yield Finding(
                "I3", f"member {asker}", f"the ledger reserves {cents} cents more than the open jobs cost"
            )
    alive = any(age < GONE for age in heard_of.values())
    for route, jobs in waits.items():
        begun = await store.last_begun(route)
        if begun is None or now() - begun > HOLDS_SLOT + SLACK:
            why = f"nothing was begun on {route} all the while" if alive else "no worker is alive"
            for job in jobs:
                yield Finding("I4", job.id, f"queued for {_hours(now() - _waits_since(job))}: {why}")
    for worker, age in heard_of.items():
        if age > GONE and worker not in owners and alive:
            yield Finding("I7", f"worker {worker}", f"owns nothing and was not heard of for {_hours(age)}")
    for name, age in files.items():
        if age > _OLD_CLIP:
            yield Finding("I6", name, "a file of no job lies among the clips")


def _paid_calls(dossier: Dossier, job: Job) -> Iterator[Finding]:
    seen = Counter(event.outcome for event in dossier.history)
    begun, allowed = seen[Begun.__name__], 1 + sum(seen[outcome] for outcome in _ALLOWS_ANOTHER)
    if begun > allowed:
        yield Finding("I1", job.id, f"{begun} paid calls were begun, {allowed} were allowed")
    if job.attempt != begun:
        yield Finding("I1", job.id, f"counts {job.attempt} attempts, its history has {begun}")


def _post(job: Job) -> Iterator[Finding]:
    if job.state is State.DELIVERED and job.post_id is None and job.asker_id != NOBODY:
        yield Finding("I2", job.id, "is delivered, but names no post")
    if job.state is not State.DELIVERED and job.post_id is not None:
        yield Finding("I2", job.id, f"is {job.state}, but names a post")


def _money(dossier: Dossier, job: Job) -> Iterator[Finding]:
    clicks = sum(event.outcome == TriedAgain.__name__ for event in dossier.history)
    if job.charge not in _CHARGES[job.state]:
        yield Finding("I3", job.id, f"is {job.state}, which cannot be with charge “{job.charge}”")
    if job.doubted != bool(clicks):
        yield Finding("I3", job.id, f"was tried again {clicks} times, but says doubted: {job.doubted}")
    settled = not job.is_open
    kinds = Counter(
        {
            Kind.RESERVE: 1 + clicks,
            Kind.DOUBT: clicks + (settled and job.charge in (Charge.MAYBE, Charge.RESERVED)),
            Kind.CHARGE: int(job.charge is Charge.CHARGED),
            Kind.RELEASE: int(settled and job.charge is Charge.NONE),
        }
    )
    needed = Counter({(kind, job.price_cents): times for kind, times in kinds.items() if times})
    there = Counter((entry.kind, entry.cents) for entry in dossier.money)
    if there != needed:
        yield Finding(
            "I3",
            job.id,
            f"is {job.state} with charge “{job.charge}”: the ledger needs {_entries(needed)}, it has {_entries(there)}",
        )


def _beyond(dossier: Dossier, job: Job) -> int:
    """What the ledger holds in reserve for this job beyond what it should."""
    held = sum(entry.cents if entry.kind is Kind.RESERVE else -entry.cents for entry in dossier.money)
    return held - (job.price_cents if job.is_open and job.charge is not Charge.CHARGED else 0)


def _entries(entries: Counter[tuple[Kind, int]]) -> str:
    return ", ".join(f"{kind} {cents}" for kind, cents in sorted(entries.elements())) or "nothing"


def _overdue(job: Job, now: datetime, deadline: timedelta) -> Iterator[Finding]:
    began, longest = {
        State.DRAFT: (job.changed_at, DRAFT_LIFE),
        State.PREPARING: (job.changed_at, GRACE),
        State.SUBMITTING: (job.changed_at, GRACE),
        State.UNSURE: (job.changed_at, UNSURE_LIFE),
        State.RENDERING: (job.submitted_at, deadline + KEEP_ASKING),
        State.POSTING: (job.postable_since, POSTING_LIFE),
    }.get(job.state, (None, SLACK))
    if began is not None and now - began > longest + SLACK:
        yield Finding(
            "I4", job.id, f"is {job.state} for {_hours(now - began)}, {_hours(longest)} are allowed"
        )


def _sealed(job: Job, now: datetime) -> Iterator[Finding]:
    if job.sealed and job.state is State.DELIVERED and now - job.changed_at > VOTING + SLACK:
        yield Finding("I4", job.id, "its comparison has no result since its vote should have ended")


def _waits_since(job: Job) -> datetime:
    return max(job.changed_at, job.not_before or job.changed_at)


def _owner(job: Job, now: datetime, heard_of: dict[str, timedelta]) -> Iterator[Finding]:
    if job.state not in OWNED or job.worker is None or now - job.changed_at <= GONE:
        return
    age = heard_of.get(job.worker)
    if age is None:
        yield Finding("I7", job.id, f"is {job.state} with worker {job.worker}, which has signed off")
    elif age > GONE:
        yield Finding(
            "I4", job.id, f"is {job.state}, its worker {job.worker} was not heard of for {_hours(age)}"
        )


def _history(dossier: Dossier, job: Job) -> Iterator[Finding]:
    history = dossier.history
    if not history or (history[0].outcome, history[0].old, history[0].new) != (REQUESTED, None, State.DRAFT):
        yield Finding("I5", job.id, "its history does not begin with the request")
    for event in history[1:]:
        if (event.old, event.outcome, event.new) not in _DRAWN:
            yield Finding("I5", job.id, f"no arrow leads from {event.old} by {event.outcome} to {event.new}")
    for before, event in pairwise(history):
        if before.new != event.old:
            yield Finding("I5", job.id, f"its history jumps from {before.new} to {event.old}")
    if history and history[-1].new != job.state:
        yield Finding("I5", job.id, f"is {job.state}, its history ends in {history[-1].new}")


def _clip(
    job: Job, now: datetime, age_of_file: timedelta | None, keep: timedelta, one_machine: bool
) -> Iterator[Finding]:
    ended = now - job.changed_at
    kept_for = _OLD_CLIP + (keep if job.state is State.UNDELIVERABLE else timedelta(0))
    if age_of_file is not None and age_of_file > _OLD_CLIP and not job.is_open and ended > kept_for:
        yield Finding("I6", job.id, f"is {job.state}, but its clip was never cleared away")
    wanted = job.state is State.UNDELIVERABLE and job.asker_id != NOBODY
    if age_of_file is None and wanted and SLACK < ended < keep:
        yield Finding(
            "I6",
            job.id,
            "its clip could not be posted, and is not kept here",
            notice=not one_machine or job.cause in _PERHAPS_NEVER_FETCHED,
        )


def _clips(folder: Path) -> dict[str, timedelta]:
    """How old the files of each job are, or of nobody."""
    found: dict[str, timedelta] = {}
    if folder.is_dir():
        for path in folder.iterdir():
            name = path.stem.lstrip(".").split(".")[0]
            age = timedelta(seconds=max(0.0, time.time() - path.stat().st_mtime))
            found[name] = max(found.get(name, age), age)
    return found


def _hours(duration: timedelta) -> str:
    hours = duration / timedelta(hours=1)
    return f"{hours:.1f} h" if hours >= 1 else f"{duration // timedelta(minutes=1)} min"
