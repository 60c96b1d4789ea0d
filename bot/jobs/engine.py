"""The only loop: claim, act, advance, save, announce.

It runs beside the gateway client, never inside it. Intent is written before a paid call and the
answer right after it; a call whose fate is unknown is never made again by itself. State changes are
written, waiting is not: polls live in a schedule in memory, rebuilt from the rows at start.
"""

import asyncio
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import datetime, timedelta
from pathlib import Path
from typing import assert_never

import structlog

from bot.errors import Cause, ProviderBusy, ProviderError, ProviderRejected, ProviderUnsure
from bot.jobs import pacing
from bot.jobs.announcing import Announcer, CannotPost, PictureGone, Pictures, PostLater, Waiting
from bot.jobs.machine import (
    Broke,
    Busy,
    Cancelled,
    CouldNotPost,
    GaveUp,
    Job,
    Lost,
    Outcome,
    Posted,
    Ready,
    Refused,
    State,
    StillRendering,
    Stumbled,
)
from bot.jobs.models import Menu
from bot.jobs.pacing import Estimate
from bot.jobs.store import Store
from bot.providers.base import Capabilities, ClipRequest, Provider

log = structlog.get_logger(__name__)

DRAFT_LIFE = timedelta(minutes=15)
UNSURE_LIFE = timedelta(hours=24)
BUSY_PAUSE = timedelta(seconds=15)
MOST_STUMBLES = 40
LONGEST_PAUSE = timedelta(minutes=5)
SWEEP_EVERY = timedelta(minutes=1)
DRAWN_QUEUE = 10
IDLE = 1.0  # seconds between looks at the clock, which may not be the wall's


class Engine:
    """Moves jobs from QUEUED to their end. One per process, as `worker`."""

    def __init__(
        self,
        *,
        store: Store,
        providers: Mapping[str, Provider],
        menu: Menu,
        announcer: Announcer,
        now: Callable[[], datetime],
        worker: str,
        folder: Path,
        slots: Callable[[str], int],
    ) -> None:
        self._store = store
        self._providers = providers
        self._menu = menu
        self._announcer = announcer
        self._now = now
        self._worker = worker
        self._folder = folder
        self._slots = slots
        self._due: dict[str, datetime] = {}
        self._in_hand: set[str] = set()
        self._next_sweep: datetime | None = None
        self._woken = asyncio.Event()
        self._line_moved = False
        self._stopping = False

    def wake(self) -> None:
        """Something may be due: a job was queued, cancelled or asked for again."""
        self._line_moved = True
        self._woken.set()

    def stop(self) -> None:
        """Take no new work; `run` returns when what is in hand is done."""
        self._stopping = True
        self._woken.set()

    async def recover(self) -> None:
        """Take over the open jobs of the last run. A job found in the middle of its paid call is unsure."""
        self._folder.mkdir(parents=True, exist_ok=True)
        for job in await self._store.open_jobs():
            with structlog.contextvars.bound_contextvars(job=job.id):
                if job.state is State.SUBMITTING:
                    await self._settle(job, Lost(Cause.INTERRUPTED))
                elif job.route not in self._providers:
                    log.warning("route_not_configured", route=job.route, state=job.state)
                elif job.state in (State.RENDERING, State.POSTING):
                    self._due[job.id] = job.not_before or self._now()

    async def run(self, *, grace: timedelta = timedelta(seconds=45)) -> None:
        """Recover, then work until `stop`; what is in hand at that time gets `grace` to finish."""
        await self.recover()
        tasks: set[asyncio.Task[None]] = set()
        while not self._stopping:
            self._woken.clear()
            try:
                for job in await self._take():
                    task = asyncio.create_task(self._work(job))
                    tasks.add(task)
                    task.add_done_callback(tasks.discard)
                    task.add_done_callback(lambda _task: self._woken.set())
            except Exception:  # the loop must outlive a database that is away for a while
                log.exception("engine_pass_failed")
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), self._idle_seconds())
        if tasks:
            _, late = await asyncio.wait(tasks, timeout=grace.total_seconds())
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)

    async def run_due(self) -> int:
        """Do all that is due at this moment of the clock, to the end. The number of steps taken."""
        if self._next_sweep is None:
            await self.recover()
        steps = 0
        while taken := await self._take():
            await asyncio.gather(*(self._work(job) for job in taken))
            steps += len(taken)
        return steps

    def _idle_seconds(self) -> float:
        """Until the next known due time by the given clock, at most IDLE."""
        now = self._now()
        waits = [(due - now).total_seconds() for job, due in self._due.items() if job not in self._in_hand]
        return min([IDLE, *(max(wait, 0.02) for wait in waits)])

    async def _take(self) -> list[Job]:
        """The jobs to act on now: newly claimed ones, and owned ones whose time has come."""
        now = self._now()
        if self._next_sweep is None or now >= self._next_sweep:
            self._next_sweep = now + SWEEP_EVERY
            await self._sweep(now)
        taken: list[Job] = []
        for route in self._providers:
            while job := await self._store.claim(
                route, slots=self._slots(route), worker=self._worker, now=now
            ):
                taken.append(job)
        if taken or self._line_moved:
            self._line_moved = False
            await self._draw_queue()
        for job_id, due in list(self._due.items()):
            if due <= now and job_id not in self._in_hand:
                owned = await self._store.get(job_id)
                if owned and owned.state in (State.RENDERING, State.POSTING):
                    taken.append(owned)
                else:
                    del self._due[job_id]
        self._in_hand.update(job.id for job in taken)
        return taken

    async def _sweep(self, now: datetime) -> None:
        """End what nobody will end: drafts that never got a card, doubts that nobody resolved."""
        for job in await self._store.open_jobs((State.DRAFT, State.UNSURE)):
            age = now - job.changed_at
            if job.state is State.DRAFT and age >= DRAFT_LIFE:
                await self._settle(job, Cancelled())
            elif job.state is State.UNSURE and age >= UNSURE_LIFE:
                await self._settle(job, GaveUp())

    async def _work(self, job: Job) -> None:
        """One step of one job. Whatever goes wrong, the job keeps its row and its next due time."""
        with structlog.contextvars.bound_contextvars(job=job.id):
            try:
                if job.state is State.SUBMITTING:
                    await self._submit(job)
                elif job.state is State.RENDERING:
                    await self._poll(job)
                elif job.state is State.POSTING:
                    await self._deliver(job)
            except Exception:  # one job's trouble is not the others'
                log.exception("step_failed", state=job.state)
                self._due[job.id] = self._now() + BUSY_PAUSE
            finally:
                self._in_hand.discard(job.id)

    async def _submit(self, job: Job) -> None:
        model = self._menu.models.get(job.model)
        provider = self._providers[job.route]
        outcome: Outcome
        try:
            pictures = await self._announcer.pictures(job)
        except PictureGone:
            outcome = Refused(Cause.PICTURE_GONE)
        except PostLater as later:
            outcome = self._busy(job, later.retry_after)
        except asyncio.CancelledError:
            await asyncio.shield(self._settle(job, Busy(timedelta(0))))
            raise
        else:
            try:
                outcome = await provider.submit(_request(job, pictures))
            except ProviderBusy as busy:
                outcome = self._busy(job, busy.retry_after or BUSY_PAUSE)
            except ProviderRejected as rejected:
                log.warning("submit_rejected", cause=rejected.cause, detail=rejected.detail)
                outcome = Refused(rejected.cause)
            except ProviderUnsure as unsure:
                log.warning("submit_unsure", cause=unsure.cause, detail=unsure.detail)
                outcome = Lost(unsure.cause)
            except asyncio.CancelledError:
                await asyncio.shield(self._settle(job, Lost(Cause.INTERRUPTED)))
                raise
            except Exception:  # a bug after the first byte: the fate of the call is unknown
                log.exception("submit_failed")
                outcome = Lost(Cause.BROKEN)
        moved = await self._settle(job, outcome)
        if moved and moved.state is State.RENDERING:
            can = model.can if model else Capabilities(seconds=(job.seconds,))
            self._due[job.id] = self._now() + can.first_poll

    def _busy(self, job: Job, pause: timedelta) -> Busy | Refused:
        """Back to the line, a little longer each time, and not for ever."""
        if job.stumbles >= MOST_STUMBLES * 3:
            return Refused(Cause.BUSY)
        return Busy(max(pause, min(BUSY_PAUSE * 2 ** min(job.stumbles, 5), LONGEST_PAUSE)))

    async def _poll(self, job: Job) -> None:
        assert job.provider_task is not None
        assert job.submitted_at is not None
        waited = self._now() - job.submitted_at
        can = self._can(job)
        outcome: StillRendering | Ready | Broke
        try:
            outcome = await self._providers[job.route].check(job.provider_task)
        except ProviderError as error:
            # A poll without an answer is neither an attempt nor a failure of the job.
            log.warning("poll_failed", cause=error.cause, detail=error.detail)
            outcome = StillRendering()
            retry_after = error.retry_after if isinstance(error, ProviderBusy) else None
        else:
            retry_after = None
        if isinstance(outcome, StillRendering):
            pause = pacing.next_poll(
                waited, first=can.first_poll, gap=can.least_poll_gap, deadline=can.deadline
            )
            if pause is None:
                await self._settle(job, GaveUp())
                return
            self._due[job.id] = self._now() + max(pause, retry_after or timedelta(0))
            waiting = await self._waiting(job)
            if waiting.late:
                await self._announcer.draw(job, waiting)
            return
        moved = await self._settle(job, outcome)
        if moved and moved.state is State.POSTING:
            await self._deliver(moved)

    async def _deliver(self, job: Job) -> None:
        assert job.clip_url is not None
        clip = self._folder / f"{job.id}.mp4"
        again = job.stumbles > 0 or clip.exists()
        provider = self._providers[job.route]
        outcome: Outcome
        try:
            post_id = await self._announcer.find_post(job) if again else None
            if post_id is None:
                if not clip.exists():
                    await provider.fetch(job.clip_url, clip)
                post_id = await self._announcer.post(job, clip, await self._pictures_for_post(job))
            outcome = Posted(post_id)
        except ProviderRejected as gone:
            if gone.cause is Cause.CLIP_GONE and job.stumbles < MOST_STUMBLES:
                outcome = await self._fresh_link(job)
            else:
                outcome = Broke(gone.cause)
        except (ProviderBusy, ProviderUnsure) as trouble:
            outcome = self._stumbled(job, trouble.cause, BUSY_PAUSE)
        except PostLater as later:
            outcome = self._stumbled(job, later.cause, later.retry_after)
        except CannotPost as refused:
            outcome = CouldNotPost(refused.cause)
        moved = await self._settle(job, outcome)
        if moved and isinstance(outcome, Ready):
            self._due[job.id] = self._now() + timedelta(seconds=5)
        if moved and moved.state is State.DELIVERED:
            await self._announcer.finish(moved)
            await asyncio.to_thread(clip.unlink, missing_ok=True)

    async def _pictures_for_post(self, job: Job) -> Pictures:
        """The post carries the source picture too; a card that was deleted must not cost the clip."""
        try:
            return await self._announcer.pictures(job)
        except PictureGone:
            return Pictures()

    async def _fresh_link(self, job: Job) -> Outcome:
        assert job.provider_task is not None
        try:
            answer = await self._providers[job.route].check(job.provider_task)
        except ProviderError as error:
            return self._stumbled(job, error.cause, BUSY_PAUSE)
        match answer:
            case Ready(clip_url) if clip_url != job.clip_url:
                return answer
            case Ready() | StillRendering():
                return self._stumbled(job, Cause.CLIP_GONE, BUSY_PAUSE)
            case Broke():
                return Broke(Cause.CLIP_GONE)
            case _:
                assert_never(answer)

    def _stumbled(self, job: Job, cause: Cause, pause: timedelta) -> Stumbled | CouldNotPost:
        if job.stumbles >= MOST_STUMBLES:
            return CouldNotPost(cause)
        return Stumbled(cause, min(max(pause, timedelta(seconds=5)) * 2**job.stumbles, LONGEST_PAUSE))

    async def _settle(self, job: Job, outcome: Outcome) -> Job | None:
        """Write the outcome at once, then tell people. None: someone else moved the job, we stop quietly."""
        moved = await self._store.advance(job, outcome, self._now())
        if moved is None:
            log.info("job_moved_elsewhere", outcome=type(outcome).__name__)
            self._due.pop(job.id, None)
            return None
        log.info("job_moved", outcome=type(outcome).__name__, state=moved.state, cause=moved.cause)
        if moved.state in (State.RENDERING, State.POSTING):
            self._due[job.id] = moved.not_before or self._now()
        else:
            self._due.pop(job.id, None)
        if moved.state not in (State.POSTING, State.DELIVERED):
            await self._announcer.draw(moved, await self._waiting(moved))
        return moved

    async def _waiting(self, job: Job) -> Waiting:
        if job.state is State.QUEUED:
            return Waiting(place=await self._store.place(job))
        if job.state is State.RENDERING and job.submitted_at:
            expected = await self._estimate(job)
            late = self._now() - job.submitted_at > max(expected.late, self._can(job).deadline)
            return Waiting(due=job.submitted_at + expected.middle, late=late)
        return Waiting()

    async def _estimate(self, job: Job) -> Estimate:
        return pacing.estimate(await self._store.durations(job), self._can(job).typical)

    async def _draw_queue(self) -> None:
        """When the line moves, those at its head learn their new place."""
        for job in (await self._store.open_jobs((State.QUEUED,)))[:DRAWN_QUEUE]:
            await self._announcer.draw(job, await self._waiting(job))

    def _can(self, job: Job) -> Capabilities:
        """What the job's model can do, also when it is no longer in the config."""
        model = self._menu.models.get(job.model)
        return model.can if model else Capabilities(seconds=(job.seconds,))


def _request(job: Job, pictures: Pictures) -> ClipRequest:
    assert job.reference is not None
    return ClipRequest(
        reference=job.reference,
        variant=job.variant,
        prompt=job.prompt,
        seconds=job.seconds,
        negative_prompt=job.negative_prompt,
        quality=job.quality,
        ratio=job.ratio,
        strength=job.strength,
        picture=pictures.first,
        end_picture=pictures.last,
    )
