"""Is this process still entitled to its jobs? One heartbeat row a worker, and a fence.

A worker that cannot write its heartbeat stops taking and doing work (after half of `stale`) well before
others may take its jobs over (after all of it). The fence is measured on the monotonic clock, so a jump of the wall clock
neither opens nor closes it. Where the given clock decides who is alive (SQLite: one host), a jump of it
puts off rescues until every living worker has had the time to beat again.
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

    `stale`, the same for all workers of a database: without a heartbeat for so long, a worker is gone.
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
        self._beaten: float | None = None
        self._offset: timedelta | None = None
        self._no_rescue_before = float("-inf")

    @property
    def age(self) -> timedelta:
        """Since the last heartbeat that was surely written."""
        if self._beaten is None:
            return timedelta.max
        return timedelta(seconds=self._monotonic() - self._beaten)

    @property
    def may_work(self) -> bool:
        return self.age < self._fence

    @property
    def may_pay(self) -> bool:
        """Right before a paid call: with at least half of the fence left."""
        return self.age < self._fence / 2

    async def beat(self) -> bool:
        """Write the heartbeat when it is due. False: it could not be written."""
        if self.age < self.beat_every:
            return True
        asked = self._monotonic()
        try:
            await self._store.beat(self.worker, self._now())
        except (SQLAlchemyError, OSError) as error:
            log.warning("heartbeat_not_written", error=type(error).__name__, may_work=self.may_work)
            return False
        self._beaten = asked  # not when the answer came: others count from the writing
        return True

    async def rescue(self) -> list[Job]:
        """Take over the jobs of workers that are gone, and those that were handed back."""
        if not self.may_work or self._clock_jumped():
            return []
        return await self._store.rescue(self.worker, stale=self._stale, now=self._now())

    def _clock_jumped(self) -> bool:
        elapsed = timedelta(seconds=self._monotonic())
        offset = timedelta(seconds=self._now().timestamp()) - elapsed
        if self._offset is not None and abs(offset - self._offset) > JUMP:
            log.warning("clock_jumped", by=str(offset - self._offset))
            self._no_rescue_before = self._monotonic() + self._stale.total_seconds()
        self._offset = offset
        return self._monotonic() < self._no_rescue_before
