"""The life of a job, as a pure function: a job and an outcome go in, the next job comes out.

No clock, no loop, no I/O, no Discord. Every arrow there is:

    DRAFT ──CardPosted─► QUEUED ──Claimed─► PREPARING ──Begun─► SUBMITTING ──Accepted─► RENDERING
    RENDERING ──Ready─► POSTING ──Posted─► DELIVERED

    DRAFT, QUEUED, PREPARING ──Cancelled──────────────────► CANCELLED
    PREPARING, SUBMITTING ──Busy (surely not taken)───────► QUEUED
    PREPARING, SUBMITTING ──Refused───────────────────────► FAILED
    PREPARING ──Rescued (its worker is gone)──────────────► QUEUED: nothing was paid
    PREPARING ──Rescued (once too often)──────────────────► FAILED
    SUBMITTING ──Lost─────────────────────────────────────► UNSURE
    UNSURE ──Accepted (the answer came after all)─────────► RENDERING
    UNSURE ──Found (looked up by our reference)───────────► RENDERING
    UNSURE ──Absent (looked up, surely not there)─────────► QUEUED
    UNSURE ──Refused (absent again and again)─────────────► FAILED
    UNSURE ──TriedAgain (a person's click)────────────────► QUEUED
    UNSURE, RENDERING ──GaveUp────────────────────────────► FAILED
    RENDERING, POSTING ──Broke────────────────────────────► FAILED
    POSTING ──Ready (a fresh link), Stumbled──────────────► POSTING
    POSTING ──SentBack (not to the channel for results)───► POSTING, in the channel where it was asked for
    POSTING ──CouldNotPost (the clip is kept)─────────────► UNDELIVERABLE
    UNDELIVERABLE ──Redelivered (a person's click)────────► POSTING, in the channel where they clicked
    UNDELIVERABLE ──Posted (it was there after all)───────► DELIVERED
    RENDERING, POSTING ──Rescued (its worker is gone)─────► the same state, under a new worker
    RENDERING, POSTING ──Rescued (once too often)─────────► FAILED, UNDELIVERABLE
    QUEUED ──Rerouted (its route is down)─────────────────► QUEUED, on the model's other route

SUBMITTING and POSTING cannot be cancelled: money or a message may be under way. Outcomes that
change nothing but the timing (StillRendering, Stumbled) keep the state; the engine does not write
the former at all. `ARROWS` is the same drawing as data, for those who check what was written.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Self, assert_never

from bot.errors import Cause


class State(StrEnum):
    DRAFT = "draft"
    QUEUED = "queued"
    PREPARING = "preparing"
    SUBMITTING = "submitting"
    UNSURE = "unsure"
    RENDERING = "rendering"
    POSTING = "posting"
    DELIVERED = "delivered"
    FAILED = "failed"
    CANCELLED = "cancelled"
    UNDELIVERABLE = "undeliverable"


OPEN = frozenset(State) - {State.DELIVERED, State.FAILED, State.CANCELLED, State.UNDELIVERABLE}
MOST_RECOVERIES = 8  # a job that outlived so many workers is what kills them
COUNTED = OPEN - {State.UNSURE}  # what limits count: a doubt must not lock anybody out
NOBODY = 0  # whose job it is after its asker's data was deleted
CANCELLABLE = frozenset({State.DRAFT, State.QUEUED, State.PREPARING})
# What a decision calls off. Not drafts: who asks looks for decisions once their draft is in line.
IN_LINE = CANCELLABLE - {State.DRAFT}


class Charge(StrEnum):
    """What the owner owes for a job, as far as we know."""

    NONE = "none"
    RESERVED = "reserved"
    CHARGED = "charged"
    MAYBE = "maybe"


class Lineage(StrEnum):
    """How a job came from another one: the same again, changed by a person, by another model, or going on."""

    AGAIN = "again"
    REMIX = "remix"
    MODEL = "model"
    CONTINUE = "continue"


# Without slots: with them, a copy of so many fields takes twenty times as long.
@dataclass(frozen=True, kw_only=True)
class Job:
    """One paid clip, from the command to the post; exactly one row of the table `jobs`.

    Times are aware UTC. `price_cents` counts hundredths of the owner's currency, and counts against the budgets of the day and month
    of `reserved_at` (unset: of the request). `doubted` says
    that an attempt before this one may have been charged. `reference` is our
    own name for the current attempt, `provider_task` the route's. The pictures hang on the card
    (`card_id`) while the job waits and on the post (`post_id`) afterwards, under the names
    `picture_file` and `end_picture_file`; no row holds them. `channel_id` is where the post goes: where the
    clip was asked for, unless the server has a channel for results or a person had it posted elsewhere later
    (`redelivered_at`); then the card stands in `card_channel_id`. `budget_channel_id` is the channel whose
    clips a day it counts among, when that is not `channel_id`: a thread counts with the channel it is in.
    `post_channel_id` is where the post is, when that is no such channel. `picture_by` posted the first
    picture, where that was not the asker. `lineage` says how the job came from `parent_id`. `age_restricted`: it was
    asked for where Discord shows things to adults only. While the job is `sealed`, nobody is told its model: it is one
    of the two of `comparison_id`, whose result is not shown yet.
    """

    id: str
    state: State = State.DRAFT
    version: int = 0
    created_at: datetime
    changed_at: datetime

    interaction_id: int | None = None
    guild_id: int | None = None
    channel_id: int
    asker_id: int
    parent_id: str | None = None
    lineage: Lineage | None = None
    picture_by: int | None = None
    comparison_id: str | None = None
    sealed: bool = False
    card_id: int | None = None
    post_id: int | None = None
    card_channel_id: int | None = None
    post_channel_id: int | None = None
    budget_channel_id: int | None = None
    upload_limit: int | None = None
    age_restricted: bool = False

    model: str
    route: str
    variant: str
    prompt: str
    negative_prompt: str | None = None
    seconds: int
    quality: str | None = None
    ratio: str | None = None
    strength: float | None = None
    camera: str | None = None
    loop: bool = False
    sound: bool = False
    picture_file: str | None = None
    end_picture_file: str | None = None

    price_cents: int = 0
    reserved_at: datetime | None = None
    charge: Charge = Charge.RESERVED
    doubted: bool = False
    worker: str | None = None
    attempt: int = 0
    recoveries: int = 0
    stumbles: int = 0
    not_before: datetime | None = None
    reference: str | None = None
    provider_task: str | None = None
    submitted_at: datetime | None = None
    started_at: datetime | None = None
    rendered_at: datetime | None = None
    redelivered_at: datetime | None = None
    clip_url: str | None = None
    cause: Cause | None = None

    @classmethod
    def made(cls, fields: Mapping[str, Any]) -> Self:
        """A job of all its fields, by name: nothing is checked, and no field is left to its default."""
        job = object.__new__(cls)
        job.__dict__.update(fields)
        return job

    def but(self, **changes: object) -> Self:
        """A copy with these fields changed: as dataclasses.replace, which takes twenty times as long for so many."""
        return self.made({**vars(self), **changes})

    @property
    def owed(self) -> Charge:
        """What to tell people: an earlier attempt that may have been charged is not forgotten."""
        return Charge.MAYBE if self.doubted and self.charge is Charge.NONE else self.charge

    @property
    def postable_since(self) -> datetime | None:
        """When posting was first tried; for a clip that is posted once more on request, this time."""
        return self.redelivered_at or self.rendered_at

    @property
    def posted_in(self) -> int:
        """The channel of the post."""
        return self.post_channel_id or self.channel_id

    @property
    def asked_in(self) -> int:
        """The channel of the card."""
        return self.card_channel_id or self.channel_id

    @property
    def counted_in(self) -> int:
        """The channel whose budget this job counts against."""
        return self.budget_channel_id or self.channel_id

    @property
    def tied(self) -> bool:
        """An attempt before the next, or the present, one bears the same reference and may still turn up: only
        its route refuses to take that twice, so the job stays there."""
        own = f"{self.id}-{self.attempt}" if self.state is State.SUBMITTING else None
        return self.reference not in (None, own)

    @property
    def is_open(self) -> bool:
        return self.state in OPEN


# Outcomes. A provider returns Accepted, StillRendering, Ready or Broke; the engine makes the others.


@dataclass(frozen=True, slots=True)
class CardPosted:
    card_id: int


@dataclass(frozen=True, slots=True)
class Cancelled:
    """Called off before anything was paid: by a person, or because a draft never got its card."""


@dataclass(frozen=True, slots=True)
class Claimed:
    """It is the job's turn, and this worker fetches, and uploads, what its paid call needs. Nothing is paid yet."""

    worker: str


@dataclass(frozen=True, slots=True)
class Begun:
    """The intent to pay, written before the paid call."""

    reference: str


@dataclass(frozen=True, slots=True)
class Accepted:
    """The provider has the job under its own id."""

    task: str


@dataclass(frozen=True, slots=True)
class Busy:
    """Surely not accepted; try again later. Nothing was charged."""

    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class Refused:
    """Surely not accepted, for good. Nothing was charged."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Lost:
    """The answer to the paid call never came, or we stopped before it was written down."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Found:
    """The route looked our reference up and has the job under its own id; this worker goes on with it."""

    task: str
    worker: str


@dataclass(frozen=True, slots=True)
class Absent:
    """The route looked our reference up and has nothing: the paid call was never taken."""

    retry_after: timedelta = timedelta(0)


@dataclass(frozen=True, slots=True)
class Rerouted:
    """Nothing was sent yet, and the route is down: the same model is reached another way."""

    route: str
    variant: str


@dataclass(frozen=True, slots=True)
class TriedAgain:
    """A person read that it may cost twice, and asked for it all the same."""


@dataclass(frozen=True, slots=True)
class StillRendering:
    """Not done. `progress` is 0..1 and `queued` True or False where the route tells, else None."""

    progress: float | None = None
    queued: bool | None = None


@dataclass(frozen=True, slots=True)
class Ready:
    """The clip waits at `clip_url`, which may be short-lived; `check` gives a fresh one.

    `started_at`, filled in by the engine: when rendering was first seen to have begun, where the route tells.
    """

    clip_url: str
    started_at: datetime | None = None


@dataclass(frozen=True, slots=True)
class Broke:
    """The provider, or the clip it gave, ended the job. `charged` None: nobody says."""

    cause: Cause
    charged: bool | None = None


@dataclass(frozen=True, slots=True)
class GaveUp:
    """We stopped asking: a day past the deadline, or a person or a day's silence let an unsure job go."""


@dataclass(frozen=True, slots=True)
class Rescued:
    """The worker that owned the job is gone; this one goes on. Interrupted is not failed: no attempt is spent."""

    worker: str


@dataclass(frozen=True, slots=True)
class Posted:
    """`channel_id`: where, when not in the channel of the request."""

    post_id: int
    channel_id: int | None = None


@dataclass(frozen=True, slots=True)
class Stumbled:
    """Posting failed in a way that may pass: same job, same nonce, later."""

    cause: Cause
    retry_after: timedelta


@dataclass(frozen=True, slots=True)
class SentBack:
    """The server's channel for results does not take the post: it goes to where the clip was asked for."""


@dataclass(frozen=True, slots=True)
class CouldNotPost:
    """Discord will not take it: the clip is paid and kept, the job ends."""

    cause: Cause


@dataclass(frozen=True, slots=True)
class Redelivered:
    """A person asked for a clip that could not be posted to be posted in this channel. Nothing is paid again."""

    channel_id: int


Outcome = (
    CardPosted
    | Cancelled
    | Claimed
    | Begun
    | Accepted
    | Busy
    | Refused
    | Lost
    | Found
    | Absent
    | Rerouted
    | TriedAgain
    | StillRendering
    | Ready
    | Broke
    | GaveUp
    | Rescued
    | Posted
    | Stumbled
    | SentBack
    | CouldNotPost
    | Redelivered
)


ARROWS: frozenset[tuple[State, type[Outcome], State]] = frozenset(
    {
        (State.DRAFT, CardPosted, State.QUEUED),
        (State.DRAFT, Cancelled, State.CANCELLED),
        (State.QUEUED, Cancelled, State.CANCELLED),
        (State.QUEUED, Claimed, State.PREPARING),
        (State.QUEUED, Rerouted, State.QUEUED),
        (State.PREPARING, Begun, State.SUBMITTING),
        (State.PREPARING, Cancelled, State.CANCELLED),
        (State.PREPARING, Busy, State.QUEUED),
        (State.PREPARING, Refused, State.FAILED),
        (State.PREPARING, Rescued, State.QUEUED),
        (State.PREPARING, Rescued, State.FAILED),
        (State.SUBMITTING, Accepted, State.RENDERING),
        (State.SUBMITTING, Busy, State.QUEUED),
        (State.SUBMITTING, Refused, State.FAILED),
        (State.SUBMITTING, Lost, State.UNSURE),
        (State.UNSURE, Accepted, State.RENDERING),
        (State.UNSURE, Found, State.RENDERING),
        (State.UNSURE, Absent, State.QUEUED),
        (State.UNSURE, Refused, State.FAILED),
        (State.UNSURE, TriedAgain, State.QUEUED),
        (State.UNSURE, GaveUp, State.FAILED),
        (State.RENDERING, StillRendering, State.RENDERING),
        (State.RENDERING, Ready, State.POSTING),
        (State.RENDERING, Broke, State.FAILED),
        (State.RENDERING, GaveUp, State.FAILED),
        (State.RENDERING, Rescued, State.RENDERING),
        (State.RENDERING, Rescued, State.FAILED),
        (State.POSTING, Ready, State.POSTING),
        (State.POSTING, Broke, State.FAILED),
        (State.POSTING, Rescued, State.POSTING),
        (State.POSTING, Rescued, State.UNDELIVERABLE),
        (State.POSTING, Posted, State.DELIVERED),
        (State.POSTING, Stumbled, State.POSTING),
        (State.POSTING, SentBack, State.POSTING),
        (State.POSTING, CouldNotPost, State.UNDELIVERABLE),
        (State.UNDELIVERABLE, Redelivered, State.POSTING),
        (State.UNDELIVERABLE, Posted, State.DELIVERED),
    }
)
REQUESTED = "Requested"  # what the history of every job begins with, in place of an outcome


class IllegalArrow(Exception):
    """No arrow leaves this state with this outcome: a bug, or a stale writer that must not win."""


def advance(job: Job, outcome: Outcome, now: datetime) -> Job:
    """The job after `outcome`, one version on. Raises IllegalArrow where no arrow is drawn above."""

    def to(state: State, **changes: object) -> Job:
        return job.but(state=state, version=job.version + 1, changed_at=now, **changes)

    match outcome, job.state:
        case CardPosted(card_id), State.DRAFT:
            return to(State.QUEUED, card_id=card_id)
        case Cancelled(), State.DRAFT | State.QUEUED | State.PREPARING:
            return to(State.CANCELLED, charge=Charge.NONE)
        case Claimed(worker), State.QUEUED:
            return to(State.PREPARING, worker=worker, not_before=None, cause=None)
        case Begun(reference), State.PREPARING:
            return to(State.SUBMITTING, reference=reference, attempt=job.attempt + 1, submitted_at=now)
        case Accepted(task), State.SUBMITTING | State.UNSURE:
            return to(State.RENDERING, provider_task=task, stumbles=0, cause=None)
        case Busy(retry_after), State.PREPARING | State.SUBMITTING:
            busy = retry_after > timedelta(0)  # else we were only interrupted, before anything was sent
            return to(
                State.QUEUED,
                not_before=now + retry_after if busy else None,
                stumbles=job.stumbles + busy,
                reference=job.reference if job.tied else None,
                submitted_at=None,
                cause=Cause.BUSY if busy else None,
            )
        case Refused(cause), State.PREPARING | State.SUBMITTING | State.UNSURE:
            return to(State.FAILED, cause=cause, charge=Charge.NONE)
        case Lost(cause), State.SUBMITTING:
            return to(State.UNSURE, cause=cause, charge=Charge.MAYBE)
        case Found(task, worker), State.UNSURE:
            return to(State.RENDERING, provider_task=task, worker=worker, stumbles=0, cause=None)
        case Absent(retry_after), State.UNSURE:
            return to(
                State.QUEUED,
                submitted_at=None,
                cause=None,
                charge=Charge.RESERVED,
                not_before=now + retry_after if retry_after else None,
            )
        case TriedAgain(), State.UNSURE:
            # A new reference: the attempt of the old one may be there.
            return to(
                State.QUEUED,
                submitted_at=None,
                reference=None,
                cause=None,
                charge=Charge.RESERVED,
                reserved_at=now,
                doubted=True,
            )
        case Rerouted(route, variant), State.QUEUED if not job.tied:
            return to(State.QUEUED, route=route, variant=variant, reference=None, not_before=None, stumbles=0)
        case StillRendering(), State.RENDERING:
            return job
        case Ready(clip_url, started_at), State.RENDERING:
            return to(
                State.POSTING,
                clip_url=clip_url,
                started_at=started_at,
                rendered_at=now,
                charge=Charge.CHARGED,
            )
        case Ready(clip_url), State.POSTING:
            return to(State.POSTING, clip_url=clip_url, stumbles=job.stumbles + 1)
        case Broke(cause, charged), State.RENDERING:
            charge = {True: Charge.CHARGED, False: Charge.NONE, None: Charge.MAYBE}[charged]
            return to(State.FAILED, cause=cause, charge=charge)
        case Broke(cause, _), State.POSTING:
            return to(State.FAILED, cause=cause, charge=Charge.CHARGED)
        case GaveUp(), State.RENDERING:
            return to(State.FAILED, cause=Cause.OVERDUE, charge=Charge.MAYBE)
        case GaveUp(), State.UNSURE:
            return to(State.FAILED, charge=Charge.MAYBE)
        case Rescued(worker), State.RENDERING | State.POSTING if job.recoveries < MOST_RECOVERIES:
            return to(job.state, worker=worker, recoveries=job.recoveries + (job.worker is not None))
        case Rescued(), State.PREPARING if job.recoveries < MOST_RECOVERIES:
            return to(State.QUEUED, worker=None, recoveries=job.recoveries + 1)
        case Rescued(), State.PREPARING:
            return to(State.FAILED, cause=Cause.POISON, charge=Charge.NONE)
        case Rescued(), State.RENDERING:
            return to(State.FAILED, cause=Cause.POISON, charge=Charge.MAYBE)
        case Rescued(), State.POSTING:
            return to(State.UNDELIVERABLE, cause=Cause.POISON)
        case Posted(post_id, channel_id), State.POSTING | State.UNDELIVERABLE:
            return to(State.DELIVERED, post_id=post_id, post_channel_id=channel_id, cause=None)
        case Stumbled(cause, retry_after), State.POSTING:
            return to(
                State.POSTING,
                cause=cause,
                not_before=now + retry_after,
                stumbles=job.stumbles + 1,
            )
        case SentBack(), State.POSTING:
            return to(State.POSTING, channel_id=job.asked_in, card_channel_id=None, cause=None)
        case CouldNotPost(cause), State.POSTING:
            return to(State.UNDELIVERABLE, cause=cause)
        case Redelivered(channel_id), State.UNDELIVERABLE:
            # Under no worker: whoever sweeps next takes it, and looks for the post before posting.
            return to(
                State.POSTING,
                channel_id=channel_id,
                card_channel_id=job.asked_in,
                redelivered_at=now,
                worker=None,
                recoveries=0,
                stumbles=0,
                not_before=None,
                cause=None,
            )
        case (
            (
                CardPosted()
                | Cancelled()
                | Claimed()
                | Begun()
                | Accepted()
                | Busy()
                | Refused()
                | Lost()
                | Found()
                | Absent()
                | Rerouted()
                | TriedAgain()
                | StillRendering()
                | Ready()
                | Broke()
                | GaveUp()
                | Rescued()
                | Posted()
                | Stumbled()
                | SentBack()
                | CouldNotPost()
                | Redelivered()
            ),
            _,
        ):
            raise IllegalArrow(f"{job.state} has no arrow for {type(outcome).__name__}")
        case _:
            assert_never(outcome)
