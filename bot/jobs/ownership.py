"""Is this process still entitled to its jobs? One heartbeat row a worker, and a fence.

A worker that cannot write its heartbeat stops taking and doing work (after half of `stale`) well before
others may take its jobs over (after all of it). The fence is measured on two clocks: a monotonic one may stand still while
its machine sleeps, the wall clock may be set back. Where the given clock decides who is alive (SQLite: one host), a jump
of it puts off rescues until every living worker has had the time to beat again.

A process that slept writes its heartbeat again before its tasks have come far; so what costs money, or makes a message,
asks whether the heartbeat has lapsed since the step began (`term`), and not only whether it is fresh.
"""

import time
from collections.abc import Callable
from datetime import datetime, timedelta

import structlog
from sqlalchemy.exc import SQLAlchemyError

from bot.jobs.machine import Job
from bot.jobs.store import Store

log = structlog.get_logger(__name__)

STALE = timedelta(seconds=30)
JUMP = timedelta(seconds=5)


class Ownership:
    """The heartbeat of one worker. `monotonic` counts seconds and never jumps.

    `stale`, the same for all workers of a database: without a heartbeat for so long, a worker is gone. `term` counts up each
    time that the heartbeat comes back after it had lapsed.
    """

    def __init__(
        self,
        store: Store,
        worker: str,
        *,
        now: Callable[[], datetime],
        monotonic: Callable[[], float] = time.monotonic,
        stale: timedelta = STALE,
    ) -> None:
        self.worker = worker
        self.beat_every = stale / 6
        self.sweep_every = stale / 3
        self._fence = stale / 2
        self._stale = stale
        self._store = store
        self._now = now
        self._monotonic = monotonic
        self._beaten: tuple[float, datetime] | None = None
        self.term = 0
        self._offset: timedelta | None = None
        self._no_rescue_before = float("-inf")

    @property
    def age(self) -> timedelta:
        """Since the last heartbeat that was surely written, by the clock that says more."""
        if self._beaten is None:
            return timedelta.max
        seconds, at = self._beaten
        return max(timedelta(seconds=self._monotonic() - seconds), self._now() - at)

    @property
    def may_work(self) -> bool:
        return self.age < self._fence

    @property
    def lapsed(self) -> bool:
        """It had a heartbeat, and has none any more."""
        return self._beaten is not None and not self.may_work

    def holds(self, term: int) -> bool:
        """Whether what was this worker's in that term still is: since then the heartbeat has not lapsed."""
        return self.may_work and self.term == term

    def may_pay(self, term: int) -> bool:
        """Right before a paid call: with at least half of the fence left."""
        return self.term == term and self.age < self._fence / 2

    async def beat(self) -> bool:
        """Write the heartbeat when it is due. False: it could not be written."""
        if self.age < self.beat_every:
            return True
        asked = self._monotonic(), self._now()
        try:
            await self._store.beat(self.worker, asked[1])
        except (SQLAlchemyError, OSError) as error:
            log.warning("heartbeat_not_written", error=type(error).__name__, may_work=self.may_work)
            return False
        if not self.may_work:  # so long after the last one that others may have acted
            self.term += 1
        self._beaten = asked  # not when the answer came: others count from the writing
        return True

    async def rescue(self) -> list[Job]:
        """Take over the jobs of workers that are gone, and those that were handed back."""
        if self._clock_jumped() or not self.may_work:
            return []
        return await self._store.rescue(self.worker, stale=self._stale, now=self._now())

    async def bury(self) -> datetime | None:
        """Forget workers that are gone and own nothing any more. When the first of them was last heard of."""
        if not self.may_work or self._monotonic() < self._no_rescue_before:
            return None
        return await self._store.bury(stale=self._stale, now=self._now())

    def _clock_jumped(self) -> bool:
        elapsed = timedelta(seconds=self._monotonic())
        offset = timedelta(seconds=self._now().timestamp()) - elapsed
        if self._offset is not None and abs(offset - self._offset) > JUMP:
            log.warning("clock_jumped", by=str(offset - self._offset))
            self._no_rescue_before = self._monotonic() + self._stale.total_seconds()
        self._offset = offset
        return self._monotonic() < self._no_rescue_before
