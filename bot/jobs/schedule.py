"""When each job in hand is due next: one schedule in memory, rebuilt from the rows when jobs are taken over.

Waiting is not written. What is known of a job's stage, and what past clips of its kind teach, decides when
it is asked for again; `bot.jobs.pacing` has the rule.
"""

import asyncio
from collections import defaultdict
from collections.abc import Callable, Collection
from datetime import datetime, timedelta
from heapq import heappop, heappush

from bot.jobs import pacing
from bot.jobs.announcing import Waiting
from bot.jobs.machine import Job, State, StillRendering
from bot.jobs.pacing import Pace
from bot.jobs.store import Store
from bot.providers.base import Capabilities

LEARN_EVERY = timedelta(seconds=10)  # hundreds of clips a second teach no more than one does
LOOK_EVERY, MANY = timedelta(seconds=1), 100

Kind = tuple[str, str, int, str | None]


class Schedule:
    """Due times of the jobs that this process owns. `can(job)` is what the job's model can do."""

    def __init__(
        self, *, store: Store, can: Callable[[Job], Capabilities], now: Callable[[], datetime]
    ) -> None:
        self.due: dict[str, datetime] = {}
        self.jobs: dict[str, Job] = {}  # as they were last seen
        self._heap: list[tuple[datetime, str]] = []  # what is not as in `due` is of the past
        self._store = store
        self._can = can
        self._now = now
        self._paces: dict[Kind, tuple[Pace, datetime]] = {}
        self._outdated: set[Kind] = set()
        self._doubts: dict[Kind, tuple[bool, datetime]] = {}
        self._learning = asyncio.Lock()
        self._not_before: dict[str, datetime] = {}
        self._queued: set[str] = set()
        self._started: dict[str, datetime] = {}
        self._running: defaultdict[Kind, dict[str, datetime]] = defaultdict(dict)

    def follow(self, job: Job) -> None:
        """The job has moved: due again when its row says, or no more."""
        if job.state in (State.RENDERING, State.POSTING):
            self.jobs[job.id] = job
            self._set(job.id, job.not_before or self._now())
        else:
            self.drop(job.id)
        if job.state is State.RENDERING:
            self._running[_kind(job)].setdefault(job.id, job.submitted_at or self._now())
        else:
            self._running[_kind(job)].pop(job.id, None)

    def drop(self, job_id: str) -> None:
        """Somebody else goes on with the job, or nobody has to."""
        self.due.pop(job_id, None)
        self.jobs.pop(job_id, None)
        self._not_before.pop(job_id, None)
        self._started.pop(job_id, None)
        self._queued.discard(job_id)
        for running in self._running.values():
            running.pop(job_id, None)

    def soon(self, job_id: str, pause: timedelta) -> None:
        """Due after the pause, if it is followed."""
        if job_id in self.jobs:
            self._set(job_id, self._now() + pause)

    def shift(self, jump: timedelta) -> None:
        """The clock was set by so much."""
        for times in (self.due, self._not_before, self._started, *self._running.values()):
            for job_id in times:
                times[job_id] += jump
        self._heap = sorted((at, job_id) for job_id, at in self.due.items())

    def is_due(self, job_id: str, at: datetime) -> bool:
        due = self.due.get(job_id)
        return due is not None and due <= at

    def due_by(self, at: datetime) -> set[str]:
        """Those that are due then."""
        found, heap, places = set[str](), self._tidy(), [0]
        while places:  # below what is due later there is nothing that is due
            if (place := places.pop()) < len(heap) and heap[place][0] <= at:
                due, job_id = heap[place]
                if self.due.get(job_id) == due:
                    found.add(job_id)
                places += (2 * place + 1, 2 * place + 2)
        return found

    def next_due(self, besides: Collection[str]) -> datetime | None:
        """When the first of the others is due."""
        first, heap, places = None, self._tidy(), [0]
        while places:
            if (place := places.pop()) < len(heap) and (first is None or heap[place][0] < first):
                due, job_id = heap[place]
                if self.due.get(job_id) == due and job_id not in besides:
                    first = due
                else:
                    places += (2 * place + 1, 2 * place + 2)
        return first

    def _set(self, job_id: str, at: datetime) -> None:
        if self.due.get(job_id) != at:
            self.due[job_id] = at
            heappush(self._heap, (at, job_id))

    def _tidy(self) -> list[tuple[datetime, str]]:
        """The heap, without what is of the past at its front: below a place nothing is due sooner, so of tens of thousands
        only few are looked at."""
        heap = self._heap
        while heap and self.due.get(heap[0][1]) != heap[0][0]:
            heappop(heap)
        return heap

    def hurry(self, job_id: str) -> bool:
        """Somebody says that the job has moved: ask as soon as may be. False: it is not in our hand."""
        if job_id not in self.due:
            return False
        self._set(job_id, min(self.due[job_id], self._not_before.get(job_id, self._now())))
        return True

    def started(self, job: Job) -> datetime | None:
        """When rendering was first seen to have begun, where the route tells."""
        return self._started.get(job.id)

    def learn(self, job: Job) -> None:
        """A clip of this kind was seen to be done: its pace is read anew when it is next asked for, now and then."""
        self._outdated.add(_kind(job))

    async def submitted(self, job: Job) -> None:
        """When a job that was just accepted is first asked for."""
        can = self._can(job)
        pace = await self._pace(job)
        first = pace.next_poll(timedelta(0), least_gap=can.least_poll_gap, deadline=can.deadline)
        assert first is not None
        self.soon(job.id, min(can.first_poll, first))
        self._not_before[job.id] = self._now()

    async def seen(self, job: Job, seen: StillRendering, retry_after: timedelta | None = None) -> bool:
        """When a job that is not done is asked for again. False: stop asking."""
        self._note_stage(job, seen)
        pause = await self._pause(job, seen)
        if pause is None:
            return False
        self.soon(job.id, max(pause, retry_after or timedelta(0)))
        self._not_before[job.id] = self._now() + max(
            self._can(job).least_poll_gap, retry_after or timedelta(0)
        )
        return True

    async def waiting(self, job: Job) -> Waiting:
        """What the card of a rendering job tells: when the clip may be expected, and whether it is late."""
        assert job.submitted_at is not None
        pace = await self._pace(job)
        began = self._started.get(job.id, job.submitted_at)
        late = self._now() - began > max(pace.late, self._can(job).deadline)
        return Waiting(due=began + pace.middle, late=late)

    def _note_stage(self, job: Job, seen: StillRendering) -> None:
        """Where the route tells the stages apart, a clip's time is counted from when its rendering began."""
        assert job.submitted_at is not None
        if seen.queued:
            self._queued.add(job.id)
        elif seen.queued is False and job.id not in self._started:
            self._started[job.id] = self._now() if job.id in self._queued else job.submitted_at
            self._queued.discard(job.id)
        began = None if job.id in self._queued else self._started.get(job.id, job.submitted_at)
        if began is None:
            self._running[_kind(job)].pop(job.id, None)
        else:
            self._running[_kind(job)][job.id] = began

    async def _pause(self, job: Job, seen: StillRendering) -> timedelta | None:
        """Until the next poll; None to stop asking."""
        assert job.submitted_at is not None
        can = self._can(job)
        if seen.queued:
            waited = self._now() - job.submitted_at
            return pacing.queued_poll(
                waited, typical=can.typical, least_gap=can.least_poll_gap, deadline=can.deadline
            )
        waited = self._now() - self._started.get(job.id, job.submitted_at)
        pace = await self._pace(job)
        if self._in_doubt(_kind(job), pace):  # an incident: what was learned no longer holds
            pace = Pace.prior(can.typical)
        return pace.next_poll(waited, least_gap=can.least_poll_gap, deadline=can.deadline)

    def _in_doubt(self, kind: Kind, pace: Pace) -> bool:
        """Whether so many jobs of this kind are late; of hundreds counted only once a LOOK_EVERY."""
        now, running, known = self._now(), self._running[kind], self._doubts.get(kind)
        if known is None or len(running) < MANY or not timedelta(0) <= now - known[1] < LOOK_EVERY:
            known = pacing.in_doubt([now - began for began in running.values()], pace.late), now
            self._doubts[kind] = known
        return known[0]

    async def _pace(self, job: Job) -> Pace:
        """What past clips of this kind teach; read once, and again after new clips, at most every LEARN_EVERY."""
        kind = _kind(job)
        if self._is_outdated(kind):
            async with self._learning:
                if self._is_outdated(kind):  # still, after whoever was first
                    self._outdated.discard(kind)
                    past = await self._store.durations(job)
                    self._paces[kind] = Pace.learn(past, typical=self._can(job).typical), self._now()
        return self._paces[kind][0]

    def _is_outdated(self, kind: Kind) -> bool:
        if kind not in self._paces:
            return True
        _, read_at = self._paces[kind]
        return kind in self._outdated and self._now() - read_at >= LEARN_EVERY


def _kind(job: Job) -> Kind:
    """What decides how long a clip takes."""
    return job.route, job.variant, job.seconds, job.quality
