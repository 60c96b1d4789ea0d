"""The only loop: claim, act, advance, save, announce.

It runs beside the gateway client, never inside it. Intent is written before a paid call and the
answer right after it; a call whose fate is unknown is never made again by itself. State changes are
written, waiting is not: polls live in a schedule in memory, rebuilt from the rows when jobs are taken
over. A worker that cannot write its heartbeat takes and does nothing until it can.
"""

import asyncio
import shutil
import time
from collections import Counter, defaultdict
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import suppress
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any, TypeVar, assert_never

import structlog
from sqlalchemy.exc import SQLAlchemyError

from bot.errors import Cause, ProviderBusy, ProviderError, ProviderRejected, ProviderUnsure
from bot.failpoints import reach
from bot.jobs.announcing import Announcer, CannotPost, Ours, PictureGone, Pictures, PostLater, Waiting
from bot.jobs.comparisons import DRAWN_WITHIN, VOTING, Comparison, Comparisons, Pair, Step
from bot.jobs.health import FOR_THE_OWNER, Health, Trouble
from bot.jobs.machine import (
    NOBODY,
    Absent,
    Accepted,
    Begun,
    Broke,
    Busy,
    Cancelled,
    CouldNotPost,
    Found,
    GaveUp,
    Job,
    Lost,
    Outcome,
    Posted,
    Ready,
    Refused,
    Rerouted,
    SentBack,
    State,
    StillRendering,
    Stumbled,
)
from bot.jobs.members import Members
from bot.jobs.models import Menu, Way
from bot.jobs.moderation import Moderation
from bot.jobs.ownership import JUMP, STALE, Ownership
from bot.jobs.schedule import Schedule
from bot.jobs.store import MOST_AT_ONCE, MOST_RESCUED, RUNNING, AlreadyThere, Store
from bot.jobs.together import Together
from bot.providers.base import Capabilities, ChecksMany, ClipRequest, FindsByReference, Provider, Uploads

log = structlog.get_logger(__name__)

T = TypeVar("T")

DRAFT_LIFE = timedelta(minutes=15)
UNSURE_LIFE = timedelta(hours=24)
BUSY_PAUSE = timedelta(seconds=15)
MOST_PAUSES = 120  # at the provider's door: about ten hours
MOST_LINKS = 6
POSTING_LIFE = timedelta(hours=24)
GRACE = timedelta(seconds=75)  # longer than any paid call may take
LONGEST_PAUSE = timedelta(minutes=5)
OLD_FILE = timedelta(hours=1)
FINISHED_WITHIN = timedelta(days=1)
TOLD_WITHIN = timedelta(minutes=15)  # before a start or a death: what ended then may not have been told
LEAST_FREE = 200 * 1024 * 1024  # bytes of the disk, about the largest clip: with less, nothing new is begun
DRAWN_QUEUE = 10
MOST_RESUMED = 50  # jobs of one rescue that are asked for in the same second
ALIGNED = timedelta(seconds=2)  # polls so near to each other go out together, where a route takes many
OTHER_CLIP_PAUSE = timedelta(seconds=15)  # between looks whether the clip to compare with is there
FIRST_LOOK = timedelta(seconds=5)
PATIENT_LOOKS = 5  # for so many look-ups the card says that we are asking; then a person may decide
OUT_OF_THE_CHANNEL = frozenset({Cause.CHANNEL_GONE, Cause.NO_PERMISSION, Cause.BLOCKED_BY_DISCORD})
MOST_HINTS = 100  # being passed on at a time
MOST_ATTEMPTS = 5  # of a paid call that the route never knew of
LINE_EVERY = timedelta(seconds=1)  # Discord takes about one edit a second in a channel
MENDED_EVERY = 1.0  # seconds of telling of those taken over, until it is looked whether they have moved on
GATHER = 0.005
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
        health: Health,
        keep: timedelta = timedelta(days=7),
        forget_servers_after: timedelta = timedelta(days=30),
        stale: timedelta = STALE,
        monotonic: Callable[[], float] = time.monotonic,
    ) -> None:
        self._store = store
        self._providers = providers
        self._menu = menu
        self._announcer = announcer
        self._now = now
        self._ownership = Ownership(store, worker, now=now, monotonic=monotonic, stale=stale)
        self._folder = folder
        self._slots = slots
        self._health = health
        self._keep = keep
        self._forget_servers_after = forget_servers_after
        self._schedule = Schedule(store=store, can=self._can, now=now)
        self._batching = {route for route, provider in providers.items() if isinstance(provider, ChecksMany)}
        self._uploading = {route: one for route, one in providers.items() if isinstance(one, Uploads)}
        self._members = Members(store)
        self._moderation = Moderation(store)
        self._comparisons = Comparisons(store)
        self._forgetting = False
        self._looks: dict[str, tuple[int, datetime]] = {}
        self._in_hand: Counter[str] = Counter()  # how many tasks work on each
        self._paying: set[str] = set()  # references
        self._late: dict[str, tuple[str, Accepted]] = {}  # answers that cannot be written yet, and to what
        self._renewed: Counter[str] = Counter()  # links that were asked for anew
        self._told: set[str] = set()  # whose doubt was told
        self._just_ready: dict[str, int] = {}  # in which term a clip came that nobody has tried to post yet
        self._unlinks = Together[Path, None](_unlink, most=MOST_AT_ONCE)
        self._tasks: set[asyncio.Task[None]] = set()
        self._next_sweep: datetime | None = None
        # At a start, whatever the last process did not say; after it, when another was last heard of that died.
        self._untold_since: datetime | None = datetime.max.replace(tzinfo=UTC)
        self._monotonic = monotonic
        self._clocks: tuple[float, datetime] | None = None
        self._woken = asyncio.Event()
        self._next_look = datetime.max.replace(tzinfo=UTC)
        # Routes where cards may tell an old place in line: at a start, whatever the last process did not draw.
        self._line_moved = set(providers)
        self._line_drawn: dict[str, datetime] = {}
        self._files_swept: datetime | None = None
        self._has_room = True
        self._stopping = False
        self._passing_on: set[str] = set()
        self.callback: Callable[[str, str], str | None] = lambda _route, _reference: None

    def wake(self) -> None:
        """Something may be due: a job was queued, cancelled or asked for again."""
        self._line_moved.update(self._providers)
        self._woken.set()

    def hint(self, job_id: str) -> None:
        """A provider says that this job has moved: ask for it now, or tell the process that owns it."""
        if self._schedule.hurry(job_id):
            self._woken.set()
        elif job_id not in self._passing_on and len(self._passing_on) < MOST_HINTS:
            self._passing_on.add(job_id)
            self._start(self._pass_on(job_id))

    async def _pass_on(self, job_id: str) -> None:
        try:
            await self._store.pass_on(job_id)
        finally:
            self._passing_on.discard(job_id)

    def _heard(self, job_id: str) -> None:
        """Another process has something to tell; see `Store.listening`."""
        if not job_id:
            self.wake()
        elif self._schedule.hurry(job_id):
            self._woken.set()

    def stop(self) -> None:
        """Take no new work; `run` returns when what is in hand is done."""
        self._stopping = True
        self._woken.set()

    async def recover(self) -> int:
        """Take over what dead or stopped workers left: the number of jobs, MOST_RESCUED when there may be more.

        A job found in its paid call is unsure; one found before it waits again.
        """
        rescued = await self._ownership.rescue()
        for number, job in enumerate(rescued):
            with structlog.contextvars.bound_contextvars(job=job.id):
                log.info("job_taken_over", state=job.state, recoveries=job.recoveries)
                if job.state in (State.RENDERING, State.POSTING):
                    if job.route not in self._providers:
                        log.warning("route_not_configured", route=job.route)
                    self._schedule.follow(job)
                    if number >= MOST_RESUMED and not job.not_before:  # not all in one burst
                        self._schedule.soon(job.id, timedelta(seconds=number // MOST_RESUMED))
                elif job.state is State.UNSURE:
                    self._doubt(job, timedelta(0))
        if rescued:
            self._start(self._tell_all(rescued))  # beside the loop: Discord may take minutes for hundreds
        return len(rescued)

    async def _tell_all(self, rescued: Sequence[Job]) -> None:
        told, began = list[Job](), self._monotonic()
        for job in rescued:
            if self._stopping:
                break
            try:
                await self._tell(job)
            except Exception:  # one job's trouble is not the others'
                log.exception("telling_failed", job=job.id)
            told.append(job)
            if self._monotonic() - began > MENDED_EVERY:  # not after each: there may be thousands
                await self._mend(told)
                told, began = [], self._monotonic()
        await self._mend(told)

    async def _tell_for_the_dead(self, since: datetime) -> None:
        """Say what ended or was decided since then: whoever was to say it may have died before."""
        self._start(self._tell_all(await self._store.ended_lately(since)))
        for job, review in await self._moderation.reviewed_lately(since):
            self._start(self._announcer.tell_moderators(job, review))

    async def run(self, *, grace: timedelta = GRACE) -> None:
        """Work until `stop`; what is in hand at that time gets `grace`, the rest is handed back at once."""
        async with self._store.listening(self._heard):
            await self._loop()
        beating = asyncio.create_task(self._keep_beating())  # nobody is to take us for dead meanwhile
        try:
            until = time.monotonic() + grace.total_seconds()
            while self._tasks and (left := until - time.monotonic()) > 0:
                await asyncio.wait(self._tasks, timeout=left)
            late = list(self._tasks)
            for task in late:
                task.cancel()
            await asyncio.gather(*late, return_exceptions=True)
            await self._unlinks.close()
        finally:
            beating.cancel()
            await asyncio.gather(beating, return_exceptions=True)
        reach("engine.stopped")
        await self.hand_back()

    async def _keep_beating(self) -> None:
        while True:
            await self._ownership.beat()
            await asyncio.sleep(min(IDLE, self._ownership.beat_every.total_seconds() / 2))

    async def hand_back(self) -> None:
        """Give up all that this worker owns, so that others may go on at once."""
        with suppress(SQLAlchemyError, OSError):  # others will do so, less kindly
            for job in await self._store.open_jobs((State.PREPARING, State.SUBMITTING)):
                if outcome := self._left(job):
                    await self._store.advance(job, outcome, self._now())
        await self._store.release(self._ownership.worker)

    def _left(self, job: Job) -> Lost | Busy | None:
        """What becomes of a claimed job that nobody works on: a commit's answer was lost, or it was left by a bug."""
        if job.worker != self._ownership.worker or job.id in self._in_hand:
            return None
        paying = job.state is State.SUBMITTING and job.reference in self._paying
        return Lost(Cause.BROKEN) if paying else Busy(timedelta(0))

    async def _loop(self) -> None:
        while not self._stopping:
            self._woken.clear()
            began = time.monotonic()
            try:
                await self._take()
            except Exception:  # the loop must outlive a database that is away for a while
                log.exception("engine_pass_failed")
            ended = time.monotonic()
            rested = ended + (ended - began) / 2
            idle = self._idle_seconds()
            self._next_look = self._now() + timedelta(seconds=idle)
            with suppress(TimeoutError):
                await asyncio.wait_for(self._woken.wait(), idle)
            if not self._stopping:
                # What comes in a rush is taken together, and others have a third of the time.
                await asyncio.sleep(max(GATHER, rested - time.monotonic()))

    async def run_due(self) -> int:
        """Do all that is due at this moment of the clock, to the end. The number of steps taken."""
        steps = 0
        while taken := await self._take():
            steps += taken
            while self._tasks:
                await asyncio.wait(self._tasks)
        while self._tasks:
            await asyncio.wait(self._tasks)
        return steps

    def _idle_seconds(self) -> float:
        """Until the next known due time by the given clock, at most IDLE."""
        now = self._now()
        longest = min(IDLE, self._ownership.beat_every.total_seconds() / 2)
        due = self._schedule.next_due(besides=self._in_hand)
        return longest if due is None else min(longest, max(0.02, (due - now).total_seconds()))

    async def _take(self) -> int:
        """Start on the jobs whose time has come: newly claimed ones, and owned ones. Their number."""
        now = self._now()
        self._mind_the_clock(now)
        await self._ownership.beat()
        if not self._ownership.may_work:
            return 0
        if self._next_sweep is None or now >= self._next_sweep:
            taken_over = await self.recover()
            if last_heard := await self._ownership.bury():
                self._untold_since = min(self._untold_since or last_heard, last_heard)
            for job in await self._moderation.to_call_off(now):  # before any is claimed
                await self._settle(job, Cancelled(), beside=True)
            if taken_over == MOST_RESCUED:
                self._woken.set()  # there may be more: with a heartbeat and everybody's turn in between
            else:
                self._next_sweep = now + self._ownership.sweep_every
                if self._untold_since:
                    await self._tell_for_the_dead(min(self._untold_since, now) - TOLD_WITHIN)
                    self._untold_since = None
                await self._sweep(now)
                await self._mend_routes()
                # That may have taken a while, and what is claimed now is to be paid.
                await self._ownership.beat()
        self._mind_the_disk()
        taken = 0
        for route in self._providers:
            if self._stopping:
                break
            if self._health.trouble(route):
                await self._reroute(route)
                continue
            if not self._has_room:
                continue
            slots, worker = self._slots(route), self._ownership.worker
            claimed = await self._store.claim(route, slots=slots, worker=worker, now=now)
            for job in claimed:
                self._start(self._work(job), job.id)
            if claimed:
                self._line_moved.add(route)
            self._draw_if_moved(route, now)
            taken += len(claimed)
        return taken + await self._take_due(now) + await self._take_doubts(now)

    @property
    def lapsed(self) -> bool:
        """Whether the database has not taken the heartbeat for so long that this worker does nothing any more."""
        return self._ownership.lapsed

    def _mind_the_disk(self) -> None:
        """Whether it has room for one more clip. Its owner is told in the log when that changes."""
        folder = self._folder.absolute()
        free = shutil.disk_usage(next(one for one in (folder, *folder.parents) if one.is_dir())).free
        had_room, self._has_room = self._has_room, free >= LEAST_FREE
        if had_room and not self._has_room:
            log.error("disk_nearly_full", free_bytes=free)
        elif self._has_room and not had_room:
            log.info("disk_has_room", free_bytes=free)

    def _mind_the_clock(self, now: datetime) -> None:
        """Where the clock was set, what is planned moves along."""
        seconds, clocks = self._monotonic(), self._clocks
        self._clocks = seconds, now
        if clocks is None:
            return
        jump = now - clocks[1] - timedelta(seconds=seconds - clocks[0])
        if jump < -JUMP:  # a jump ahead, or a machine that slept, only makes due what was not yet
            self._schedule.shift(jump)
            self._looks = {job_id: (looks, at + jump) for job_id, (looks, at) in self._looks.items()}
            self._next_sweep = self._files_swept = None

    async def _take_due(self, now: datetime) -> int:
        """Start on owned jobs whose time has come. A route that tells of many at once is asked once for all
        that are due, or nearly so."""
        if self._stopping:
            return 0
        due = self._schedule.due_by(now) - self._in_hand.keys()
        if not due:
            return 0
        asked = due
        if self._batching:
            asked = self._schedule.due_by(now + ALIGNED) - self._in_hand.keys()
        # Others may have taken some while this process slept, or could not write its heartbeat.
        known = self._schedule.jobs
        for job_id, job in (await self._store.changed([known[job_id] for job_id in asked])).items():
            if job and job.worker == self._ownership.worker and job.state in (State.RENDERING, State.POSTING):
                known[job_id] = job
            else:
                self._schedule.drop(job_id)
                self._just_ready.pop(job_id, None)
        together: defaultdict[str, list[Job]] = defaultdict(list)
        for job in [known[job_id] for job_id in asked if job_id in known]:
            if job.state is State.RENDERING and job.route in self._batching:
                together[job.route].append(job)
            elif job.id in due:
                self._start(self._work(job), job.id)
        for route, jobs in together.items():
            if due.isdisjoint(job.id for job in jobs):
                continue
            provider = self._providers[route]
            assert isinstance(provider, ChecksMany)
            for some in _batched(jobs, provider.most_checks):
                self._start(self._poll_many(provider, some), *(job.id for job in some))
        return len(due)

    async def _take_doubts(self, now: datetime) -> int:
        """Look unsure jobs up, where their route can."""
        taken = 0
        for job_id, (_, at) in list(self._looks.items()):
            if at <= now and job_id not in self._in_hand and not self._stopping:
                self._start(self._look_up(job_id), job_id)
                taken += 1
        return taken

    def _start(self, work: Coroutine[Any, Any, None], *job_ids: str) -> None:
        for job_id in job_ids:
            self._in_hand[job_id] += 1
        task = asyncio.create_task(work)
        self._tasks.add(task)

        def done(task: asyncio.Task[None]) -> None:
            self._tasks.discard(task)
            for job_id in job_ids:  # another task may have begun on it meanwhile
                self._in_hand[job_id] -= 1
                if not self._in_hand[job_id]:
                    del self._in_hand[job_id]
            if any(self._schedule.is_due(job_id, self._next_look) for job_id in job_ids):
                self._woken.set()
            if not task.cancelled() and (error := task.exception()):
                log.error("task_failed", exc_info=error)

        task.add_done_callback(done)

    async def _sweep(self, now: datetime) -> None:
        """End what nobody will end: forgotten drafts and claims, doubts that nobody resolved, old files, cards
        that still stand beside their post."""
        if self._files_swept is None or now - self._files_swept >= OLD_FILE:
            self._files_swept = now
            await self._sweep_files()
            await self._store.forget_guilds(now - self._forget_servers_after)
            await self._members.forget_costs(now)
            await self._members.forget_consents(now)
            await self._moderation.forget_blocks(now)
            await self._comparisons.forget_proposed(now)
            self._start(self._leave_old_routes())  # beside the loop, as `_tell_all`
        doubted: set[str] = set()
        late = set(self._late)
        unfinished = (State.DRAFT, State.PREPARING, State.SUBMITTING, State.UNSURE)
        for job in await self._store.open_jobs(unfinished):
            age = now - job.changed_at
            if job.state in (State.PREPARING, State.SUBMITTING):
                if left := self._left(job):
                    await self._settle(job, left, beside=True)
            elif job.state is State.DRAFT and age >= DRAFT_LIFE:
                await self._settle(job, Cancelled(), beside=True)
            elif job.id in self._late and self._late[job.id][0] == job.reference:
                late.remove(job.id)
                with suppress(AlreadyThere):  # still
                    await self._settle(job, self._late[job.id][1], beside=True)
            elif job.state is State.UNSURE and age >= UNSURE_LIFE:
                await self._settle(job, GaveUp(), beside=True)
            elif job.state is State.UNSURE:
                doubted.add(job.id)
                self._doubt(job, timedelta(0))
                if job.id not in self._told and job.id not in self._in_hand:
                    # Who wrote this may have died, or had no answer to its commit.
                    self._start(self._tell(job))
        self._told = doubted
        for job_id in late:  # somebody decided otherwise
            self._late.pop(job_id, None)

        # Those taken over by a commit whose answer was lost.
        owned = await self._store.owned(self._ownership.worker)
        for job in await self._store.many(owned - self._in_hand.keys() - self._schedule.due.keys()):
            self._schedule.follow(job)

        for job in await self._store.with_a_card_left(now - FINISHED_WITHIN):
            if job.id not in self._in_hand and now - job.changed_at >= self._ownership.sweep_every:
                self._start(self._finish(job), job.id)

        for job, review in await self._moderation.post_left(now):
            if job.id not in self._in_hand:
                self._start(self._take_down(job.but(post_id=review.post_id)), job.id)
        await self._comparisons.spoil_ended(now)
        for comparison in await self._comparisons.due(now):
            if comparison.id not in self._in_hand:
                self._start(self._show_result(comparison), comparison.id)

        if not self._forgetting and (forgotten := await self._members.to_forget()):
            self._forgetting = True
            self._start(self._forget(forgotten))

    async def _forget(self, some: Sequence[tuple[Job, bool]]) -> None:
        """Take the messages of jobs away, and then the member's name and words off their rows."""
        try:
            for job, post in some:
                late = self._now() - job.changed_at > FINISHED_WITHIN
                if await self._announcer.erase(job, post=post) or late:
                    await self._members.forgotten(job)
        finally:
            self._forgetting = False

    async def _take_down(self, job: Job) -> None:
        """Once more, the post of a clip that moderators took away."""
        if await self._announcer.take_down(job):
            await self._moderation.cleared(job.id, self._now())

    async def _show_result(self, comparison: Comparison) -> None:
        """Close the vote when it is time, and draw the result: again and again while Discord is away, for a day."""
        now = self._now()
        await self._comparisons.reveal(comparison.id, now)
        late = comparison.revealed_at is not None and now - comparison.revealed_at > DRAWN_WITHIN
        found = await self._comparisons.jobs_of(comparison)
        votes = await self._comparisons.votes(comparison.id)
        if late or found is None or await self._announcer.show_result(comparison, found, votes):
            await self._comparisons.done(comparison.id, now)

    async def _sweep_files(self) -> None:
        """Clear away clips and left-overs that no job will ask for again. Bounded by what lies there."""
        for path in await asyncio.to_thread(self._old_files):
            job = await self._store.get(path.stem.lstrip(".").split(".")[0])
            kept = job is not None and (
                job.state is State.POSTING
                or (
                    job.state is State.UNDELIVERABLE
                    and job.asker_id != NOBODY
                    and self._now() - job.changed_at < self._keep
                )
            )
            if not kept or path.suffix != ".mp4" or path.stem.startswith("."):
                await asyncio.to_thread(path.unlink, missing_ok=True)
                reach("engine.file_cleared")
                log.info("file_cleared_away", file=path.name)

    def _old_files(self) -> list[Path]:
        """Files that nobody has written to for an hour: none of a download or an encoding under way."""
        if not self._folder.is_dir():
            return []
        before = time.time() - OLD_FILE.total_seconds()
        return [path for path in self._folder.iterdir() if path.is_file() and path.stat().st_mtime < before]

    async def _work(self, job: Job) -> None:
        """One step of one job. Whatever goes wrong, the job keeps its row and a next time."""
        term = self._ownership.term
        structlog.contextvars.bind_contextvars(job=job.id)  # of this task alone
        try:
            if job.state is State.PREPARING:
                await self._submit(job, term)
            elif job.state is State.RENDERING:
                await self._poll(job)
            else:
                again = self._just_ready.pop(job.id, None) != term
                await self._deliver(job, term, again=again)
        except Exception:  # one job's trouble is not the others'
            log.exception("step_failed", state=job.state)
            self._schedule.soon(job.id, BUSY_PAUSE)

    async def _submit(self, job: Job, term: int) -> None:
        """Fetch the pictures, upload them where the route wants that, write the intent to pay, and pay."""
        pictures = await self._pictures(job)
        if not isinstance(pictures, Pictures):
            await self._settle(job, pictures)
            return
        reference = job.reference or f"{job.id}-{job.attempt + 1}"
        request = _request(job, reference, pictures, self.callback(job.route, reference))
        provider = self._uploading.get(job.route)
        if provider and self._may_pay(term):
            uploaded = await self._uploaded(job, provider, request)
            if uploaded is None:
                return
            request = uploaded
        if not self._may_pay(term):
            await self._settle(job, Busy(timedelta(0)))
            return
        begun = await self._store.advance(job, Begun(reference), self._now(), surely=True)
        if begun is None:
            log.info("job_moved_elsewhere", outcome=Begun.__name__)
        elif self._may_pay(term):
            await self._pay_and_settle(begun, request)
        else:
            await self._settle(begun, Busy(timedelta(0)))

    def _may_pay(self, term: int) -> bool:
        """Not while stopping, nor when held up so long that others may believe this process dead."""
        return not self._stopping and self._ownership.may_pay(term)

    async def _pay_and_settle(self, job: Job, request: ClipRequest) -> None:
        outcome, error = await self._pay(job, request)
        moved = await self._settle(job, outcome)
        if moved or not isinstance(outcome, Accepted):
            self._paying.discard(request.reference)
        if error:
            await self._failed(job.route, error)
        elif isinstance(outcome, Accepted):
            await self._health.answered(job.route)
        if moved and moved.state is State.RENDERING:
            await self._schedule.submitted(moved)

    async def _pictures(self, job: Job) -> Pictures | Busy | Refused:
        """The pictures of a job, fitted to its model. Whatever goes wrong here, nothing was sent."""
        try:
            pictures = await self._announcer.pictures(job)
        except PictureGone:
            return Refused(Cause.PICTURE_GONE)
        except PostLater as later:
            return self._busy(job, later.retry_after)
        except asyncio.CancelledError:
            await self._settle(job, Busy(timedelta(0)))
            raise
        except Exception:  # nothing was sent, so the job may go back to the line
            log.exception("pictures_failed")
            return self._busy(job, BUSY_PAUSE)
        reach("engine.pictures")
        return pictures

    async def _uploaded(self, job: Job, provider: Uploads, request: ClipRequest) -> ClipRequest | None:
        """The request with its pictures at the route. None: they are not, nothing was made, and the job has moved."""
        try:
            return await provider.upload(request)
        except ProviderError as error:
            if not isinstance(error, ProviderBusy):
                log.warning("upload_failed", cause=error.cause, detail=error.detail)
            await self._settle(job, self._not_taken(job, error))
            await self._failed(job.route, error)
            return None
        except asyncio.CancelledError:
            await self._settle(job, Busy(timedelta(0)))
            raise
        except Exception:  # nothing was made, so the job may go back to the line
            log.exception("upload_broke")
            await self._settle(job, self._busy(job, BUSY_PAUSE))
            return None

    async def _pay(self, job: Job, request: ClipRequest) -> tuple[Outcome, ProviderError | None]:
        """The one paid call. From here on, what is not surely refused may have been taken."""
        self._paying.add(request.reference)
        try:
            reach("engine.paying")
            accepted = await self._providers[job.route].submit(request)
        except ProviderBusy as busy:
            return self._not_taken(job, busy), busy
        except ProviderRejected as rejected:
            log.warning("submit_rejected", cause=rejected.cause, detail=rejected.detail)
            return self._not_taken(job, rejected), rejected
        except ProviderUnsure as unsure:
            log.warning("submit_unsure", cause=unsure.cause, detail=unsure.detail)
            return Lost(unsure.cause), unsure
        except asyncio.CancelledError:
            await self._settle(job, Lost(Cause.INTERRUPTED))
            raise
        except Exception:  # a bug after the first byte: the fate of the call is unknown
            log.exception("submit_failed")
            return Lost(Cause.BROKEN), None
        log.info("submit_accepted", task=accepted.task)
        return accepted, None

    def _not_taken(self, job: Job, error: ProviderError) -> Busy | Refused:
        """What becomes of a job of which surely nothing was made."""
        if not isinstance(error, ProviderRejected):
            pause = error.retry_after if isinstance(error, ProviderBusy) else None
            return self._busy(job, pause or BUSY_PAUSE)
        if error.cause in FOR_THE_OWNER and self._other_way(job):
            return Busy(timedelta(0))  # back to the line, and from there the other way
        return Refused(error.cause)

    async def _failed(self, route: str, error: ProviderError) -> None:
        """A call to a route went wrong: when that opens its circuit, the owner is told."""
        if route in self._providers and (trouble := await self._health.failed(route, error)):
            self._tell_owner(route, trouble)

    def _tell_owner(self, route: str, trouble: Trouble) -> None:
        """Beside the loop, and not twice at the same time."""

        async def tell() -> None:
            if await self._announcer.tell_owner(route, trouble):
                await self._health.told(route, trouble)

        if (telling := f"tell of {route}") not in self._in_hand:
            self._start(tell(), telling)

    async def _mend_routes(self) -> None:
        """Ask routes in trouble something free, now and then. Their owner is told, should whoever noted it have died."""
        await self._health.refresh()
        for route, trouble in self._health.untold(self._ownership.sweep_every * 3).items():
            if route in self._providers:
                self._tell_owner(route, trouble)
        for route, trouble in self._health.due().items():
            probing = f"probe {route}"
            if route in self._providers and probing not in self._in_hand:
                self._start(self._probe(route, trouble), probing)

    async def _probe(self, route: str, trouble: Trouble) -> None:
        failed: ProviderError | None = None
        try:
            balance = await self._providers[route].probe()
            if trouble.cause is Cause.NO_CREDIT and balance and balance.amount <= 0:
                failed = ProviderRejected(Cause.NO_CREDIT)
        except ProviderError as error:
            failed = error
        await self._health.tried(route, failed)

    async def _reroute(self, route: str) -> None:
        """Send what waits for a route in trouble the other way, where its model has one."""
        for job, _ in await self._store.line(route, limit=DRAWN_QUEUE):
            if way := self._other_way(job):
                await self._settle(job, Rerouted(way.route, way.variant), beside=True)

    async def _leave_old_routes(self) -> None:
        """Send what waits for a route that was taken out of the config the way its model goes now."""
        for job in await self._store.open_jobs((State.QUEUED,)):
            if self._stopping:
                break
            if job.route in self._providers:
                continue
            if way := self._other_way(job):
                await self._settle(job, Rerouted(way.route, way.variant))
                self._woken.set()
            else:
                log.warning("route_not_configured", job=job.id, route=job.route)

    def _other_way(self, job: Job) -> Way | None:
        model = self._menu.models.get(job.model)
        for way in model.ways if model and not job.tied else ():
            if (
                way.route != job.route
                and way.route in self._providers
                and not self._health.trouble(way.route)
            ):
                return way
        return None

    def _busy(self, job: Job, pause: timedelta) -> Busy | Refused:
        """Back to the line, a little longer each time, and not for ever."""
        if job.stumbles >= MOST_PAUSES:
            return Refused(Cause.BUSY)
        return Busy(max(pause, min(BUSY_PAUSE * 2 ** min(job.stumbles, 5), LONGEST_PAUSE)))

    async def _poll(self, job: Job) -> None:
        assert job.provider_task is not None
        outcome: StillRendering | Ready | Broke | ProviderError
        try:
            outcome = await self._route(job).check(job.provider_task)
            reach("engine.checked")
        except ProviderError as error:
            outcome = error
        await self._polled(job, outcome)

    async def _poll_many(self, provider: ChecksMany, jobs: Sequence[Job]) -> None:
        answers: Mapping[str, StillRendering | Ready | Broke] = {}
        silence: StillRendering = StillRendering()
        retry_after = None
        try:
            answers = await provider.check_many([job.provider_task or "" for job in jobs])
            reach("engine.checked_many")
        except ProviderError as error:
            retry_after = await self._not_answered(jobs[0].route, error)  # once, however many were asked for
        except Exception:
            log.exception("batch_failed")
        else:
            await self._health.answered(jobs[0].route)
        # Side by side: Discord may take a while for each card.
        await asyncio.gather(
            *(
                self._seen_among(job, answers.get(job.provider_task or "", silence), retry_after)
                for job in jobs
            )
        )

    async def _seen_among(
        self, job: Job, outcome: StillRendering | Ready | Broke, retry_after: timedelta | None
    ) -> None:
        """As `_seen`. What is ready is due at once, as a step of its own: no clip waits for the others' downloads."""
        term = self._ownership.term
        structlog.contextvars.bind_contextvars(job=job.id)  # of this task alone
        try:
            moved = await self._seen(job, outcome, retry_after)
            if moved and moved.state is State.POSTING:
                self._just_ready[job.id] = term
        except Exception:  # one job's trouble is not the others'
            log.exception("step_failed", state=job.state)
            self._schedule.soon(job.id, BUSY_PAUSE)

    async def _polled(self, job: Job, outcome: StillRendering | Ready | Broke | ProviderError) -> None:
        """What an answer, or its absence, means for the job."""
        retry_after = None
        if isinstance(outcome, ProviderError):
            retry_after = await self._not_answered(job.route, outcome)
            outcome = StillRendering()
        else:
            await self._health.answered(job.route)
        term = self._ownership.term
        moved = await self._seen(job, outcome, retry_after)
        if moved and moved.state is State.POSTING:
            await self._deliver(moved, term, again=False)

    async def _not_answered(self, route: str, error: ProviderError) -> timedelta | None:
        """A poll without an answer is neither an attempt nor a failure of the job. When to ask again at the earliest."""
        log.warning("poll_failed", cause=error.cause, detail=error.detail)
        await self._failed(route, error)
        return error.retry_after if isinstance(error, ProviderBusy) else None

    async def _seen(
        self, job: Job, outcome: StillRendering | Ready | Broke, retry_after: timedelta | None
    ) -> Job | None:
        """Note what a poll saw; the job, where it moved."""
        if isinstance(outcome, StillRendering):
            began = self._schedule.started(job)
            if not await self._schedule.seen(job, outcome, retry_after):
                return await self._settle(job, GaveUp())
            waiting = await self._schedule.waiting(job)
            if waiting.late or self._schedule.started(job) != began:
                await self._announcer.draw(job, waiting)
            return None
        if isinstance(outcome, Ready):
            outcome = Ready(outcome.clip_url, self._schedule.started(job))
            self._schedule.learn(job)
        return await self._settle(job, outcome)

    async def _look_up(self, job_id: str) -> None:
        """Was the paid call of an unsure job taken? Asked soon, then ever more seldom, until somebody knows."""
        looks, _ = self._looks[job_id]
        self._looks[job_id] = (looks + 1, self._now() + min(FIRST_LOOK * 2 ** min(looks, 10), LONGEST_PAUSE))
        job = await self._store.get(job_id)
        if job is None or job.state is not State.UNSURE or job.reference is None:
            del self._looks[job_id]
            return
        structlog.contextvars.bind_contextvars(job=job.id)  # of this task alone
        provider = self._providers.get(job.route)
        if not isinstance(provider, FindsByReference):  # it went another way meanwhile
            del self._looks[job_id]
            return
        try:
            found = await provider.find(job.reference)
            reach("engine.looked_up")
        except ProviderError as error:
            log.warning("look_up_failed", cause=error.cause, detail=error.detail)
            await self._tell(job)
            return
        outcome: Outcome
        if isinstance(found, Accepted):
            outcome = Found(found.task, self._ownership.worker)
        elif job.attempt < MOST_ATTEMPTS:
            outcome = Absent(BUSY_PAUSE * 2 ** (job.attempt - 1))
        else:
            outcome = Refused(job.cause or Cause.NO_ANSWER)
        try:
            await self._settle(job, outcome)
        except AlreadyThere:  # the member has queued the clip once more meanwhile
            if isinstance(outcome, Absent):  # one of them is enough
                await self._settle(job, Refused(job.cause or Cause.NO_ANSWER))
            # What is there is paid: it stays in doubt until the other take has ended, and is looked up again.

    async def _deliver(self, job: Job, term: int, *, again: bool) -> None:
        """Download and post a job that was ours in that term. `again`: somebody, here or elsewhere, may have posted it
        already."""
        assert job.clip_url is not None
        if not self._folder.is_dir():
            await asyncio.to_thread(self._folder.mkdir, parents=True, exist_ok=True)
        clip = self._clip_of(job)
        ours = partial(self._ownership.holds, term)
        outcome: Outcome
        try:
            place = await self._compared(job, clip, ours) if job.comparison_id else job
            if isinstance(place, Job):
                job = place
                place = await self._post(job, clip, ours, again=again)
            if place is None:
                return
            outcome = Posted(place)
        except ProviderRejected as gone:
            # The clip is paid: a dead link, or one odd answer, is asked for anew before it is given up.
            # Counted apart from other trouble: while a disk is full or Discord away, a link may die.
            if self._renewed[job.id] < MOST_LINKS:
                self._renewed[job.id] += 1
                outcome = await self._fresh_link(job, gone.cause)
            elif gone.cause is Cause.CLIP_TOO_LARGE:
                outcome = CouldNotPost(gone.cause)
            else:
                outcome = Broke(gone.cause)
        except (ProviderBusy, ProviderUnsure) as trouble:
            outcome = self._stumbled(job, trouble.cause, BUSY_PAUSE)
        except PostLater as later:
            outcome = self._stumbled(job, later.cause, later.retry_after)
        except CannotPost as refused:
            if refused.cause in OUT_OF_THE_CHANNEL and job.cause is not refused.cause:
                # Noted before the message is sent: it may be there though its answer is lost.
                noted = await self._settle(job, Stumbled(refused.cause, timedelta(0)))
                if noted is None:
                    return
                job = noted
            outcome = await self._deliver_elsewhere(job, clip, refused.cause, ours)
        except Exception:  # a full disk, a dead encoder: it may pass, and is not tried at full speed
            log.exception("delivery_failed")
            outcome = self._stumbled(job, Cause.BROKEN, BUSY_PAUSE)
        moved = await self._settle(job, outcome)
        if moved and isinstance(outcome, Ready):
            self._schedule.soon(job.id, timedelta(seconds=5))
        if moved and moved.state is State.DELIVERED:
            await self._finish(moved)
            await self._unlinks.ask(clip)
            reach("engine.cleared")

    async def _post(self, job: Job, clip: Path, ours: Ours, *, again: bool) -> int:
        if again and job.cause in OUT_OF_THE_CHANNEL:  # refused before: it may be with its asker already
            await self._fetch(job, clip)
            raise CannotPost(job.cause)
        post_id = await self._announcer.find_post(job) if again else None
        reach("engine.found")
        if post_id is None:
            await self._fetch(job, clip)
            reach("engine.fetched")
            post_id = await self._announcer.post(job, clip, await self._pictures_for_post(job), ours)
        return post_id

    async def _fetch(self, job: Job, clip: Path) -> None:
        if not clip.exists():  # noqa: ASYNC240 - quicker than a thread
            assert job.clip_url is not None
            if not self._has_room:
                raise ProviderUnsure(Cause.BROKEN, "the disk is nearly full")
            await self._route(job).fetch(job.clip_url, clip)

    async def _compared(self, job: Job, clip: Path, ours: Ours) -> Job | int | None:
        """What a finished clip of a comparison does: the message that has both; the job, to be posted by itself; or
        None, to wait for the other one."""
        pair = await self._comparisons.pair(job)
        if pair is None:
            return job.but(sealed=False)
        match pair.step(self._now()):
            case Step.JOIN:
                return pair.comparison.post_id
            case Step.POST_BOTH:
                return await self._post_both(pair, clip, ours)
            case Step.WAIT:
                await self._wait_for_other(pair, clip)
                return None
            case Step.ALONE:
                return await self._part(pair)

    async def _wait_for_other(self, pair: Pair, clip: Path) -> None:
        """Have the clip at hand, and look again later. Where the other one is to post both, it is told."""
        if pair.comparison.together_at is None:  # else it may be posted already, and its link be dead
            await self._fetch(pair.job, clip)
        self._schedule.soon(pair.job.id, OTHER_CLIP_PAUSE)
        other = pair.other
        if (
            other
            and not pair.posts
            and other.state is State.POSTING
            and (other.not_before or self._now()) <= self._now()
        ):
            self.hint(other.id)

    async def _post_both(self, pair: Pair, clip: Path, ours: Ours) -> int | None:
        """Post this job's clip and the other one in one message; that message. None: not now.

        Raises what `post` raises, except CannotPost: then each clip goes its own way.
        """
        job, other, comparison = pair.job, pair.other, pair.comparison
        assert other is not None
        if comparison.together_at and (post_id := await self._announcer.find_post(job)):
            return await self._posted_both(comparison, other, post_id, comparison.together_at)
        await self._fetch(job, clip)
        if not await self._fetch_other(other):
            if pair.late(self._now()):
                await self._part(pair)
            self._schedule.soon(job.id, OTHER_CLIP_PAUSE)
            return None
        reach("engine.other_fetched")
        began = self._now()
        if not await self._comparisons.begin(comparison.id, began):
            self._schedule.soon(job.id, timedelta(0))
            return None
        clips = ((job, clip), (other, self._clip_of(other)))
        pictures = await self._pictures_for_post(job)
        try:
            post_id = await self._announcer.post_together(
                comparison.id, clips, pictures, began + VOTING, ours
            )
        except CannotPost as refused:
            log.warning("comparison_not_posted", comparison=comparison.id, cause=refused.cause)
            await self._part(pair)
            self._schedule.soon(job.id, timedelta(0))
            self.hint(other.id)
            return None
        return await self._posted_both(comparison, other, post_id, began)

    async def _posted_both(self, comparison: Comparison, other: Job, post_id: int, began: datetime) -> int:
        """Note the message that has both clips, and that its vote ends when it says."""
        await self._comparisons.posted(comparison.id, post_id, began + VOTING)
        self.hint(other.id)
        return post_id

    async def _fetch_other(self, other: Job) -> bool:
        """Have the clip of another job at hand, whoever works on that job. Whether it is; nothing of it is written."""
        path, provider = self._clip_of(other), self._providers.get(other.route)
        if path.exists():
            return True
        if provider is None or other.clip_url is None or other.provider_task is None:
            return False
        try:
            try:
                await provider.fetch(other.clip_url, path)
            except ProviderRejected:
                answer = await provider.check(other.provider_task)
                if not isinstance(answer, Ready):
                    return False
                await provider.fetch(answer.clip_url, path)
        except ProviderError as error:
            log.info("other_clip_not_fetched", other=other.id, cause=error.cause)
            return False
        return True

    async def _part(self, pair: Pair) -> Job | None:
        """The two clips go their own ways: the job, its model no secret. None: they are being posted together."""
        alone = pair.job.but(sealed=False)
        if pair.comparison.spoiled_at:
            return alone
        begun = pair.posts or pair.other_gone
        if not await self._comparisons.spoil(pair.comparison.id, self._now(), begun=begun):
            self._schedule.soon(pair.job.id, timedelta(seconds=5))
            return None
        log.info("comparison_spoiled", comparison=pair.comparison.id)
        if pair.other is not None:
            await self._tell(pair.other.but(sealed=False))
        return alone

    def _clip_of(self, job: Job) -> Path:
        return self._folder / f"{job.id}.mp4"

    async def _deliver_elsewhere(self, job: Job, clip: Path, cause: Cause, ours: Ours) -> Outcome:
        """The last steps of the ladder: from the channel for results back to where it was asked for; to the asker,
        where the channel does not take it; else the clip is kept."""
        if cause not in OUT_OF_THE_CHANNEL:
            return CouldNotPost(cause)
        if job.asked_in != job.channel_id and job.redelivered_at is None:
            return SentBack()
        try:
            channel_id, post_id = await self._announcer.post_privately(job, clip, cause, ours)
        except CannotPost:
            return CouldNotPost(cause)
        except PostLater as later:  # the cause stays: it may be there, and is looked for there first
            return self._stumbled(job, cause, later.retry_after)
        except Exception:
            log.exception("private_delivery_failed")
            return self._stumbled(job, cause, BUSY_PAUSE)
        return Posted(post_id, channel_id)

    async def _finish(self, job: Job) -> None:
        if await self._announcer.finish(job):
            await self._store.card_gone(job.id)

    async def _pictures_for_post(self, job: Job) -> Pictures:
        """The post carries the source picture too; a card that was deleted must not cost the clip."""
        try:
            return await self._announcer.pictures(job)
        except PictureGone:
            return Pictures()

    async def _fresh_link(self, job: Job, cause: Cause) -> Outcome:
        assert job.provider_task is not None
        try:
            answer = await self._route(job).check(job.provider_task)
        except ProviderError as error:
            return self._stumbled(job, error.cause, BUSY_PAUSE)
        match answer:
            case Ready(clip_url) if clip_url != job.clip_url:
                return answer
            case Ready() | StillRendering():
                return self._stumbled(job, cause, BUSY_PAUSE)
            case Broke():
                return Broke(cause)
            case _:
                assert_never(answer)

    def _route(self, job: Job) -> Provider:
        """Raises ProviderUnsure when the route was taken out of the config meanwhile: it may come back."""
        provider = self._providers.get(job.route)
        if provider is None:
            raise ProviderUnsure(Cause.NO_ANSWER, "route not configured")
        return provider

    def _stumbled(self, job: Job, cause: Cause, pause: timedelta) -> Stumbled | CouldNotPost:
        """Again later, a little longer each time, for a day."""
        if job.postable_since and self._now() - job.postable_since > POSTING_LIFE:
            return CouldNotPost(cause)
        pause = max(pause, timedelta(seconds=5)) * 2 ** min(job.stumbles, 6)
        return Stumbled(cause, min(pause, LONGEST_PAUSE))

    async def _settle(self, job: Job, outcome: Outcome, *, beside: bool = False) -> Job | None:
        """Write the outcome at once, then tell people: `beside` the loop, which Discord must not hold up.

        None: someone else moved the job, we stop quietly.
        """
        moved = await self._store.advance(job, outcome, self._now(), surely=True)
        if moved is None or moved.state is not State.POSTING:
            self._renewed.pop(job.id, None)
        if moved is None and isinstance(outcome, Accepted):
            moved = await self._adopt(job, outcome)
        if moved is None:
            # Perhaps by another task of this process: what is no more ours is dropped when it is next due.
            log.info("job_moved_elsewhere", outcome=type(outcome).__name__)
            return None
        log.info("job_moved", outcome=type(outcome).__name__, state=moved.state, cause=moved.cause)
        self._schedule.follow(moved)
        if job.state in RUNNING and moved.state not in RUNNING:
            self._woken.set()  # a slot is free
        if moved.state is State.UNSURE:
            self._doubt(moved, FIRST_LOOK)
        else:
            self._looks.pop(job.id, None)
            self._late.pop(job.id, None)
        if beside:
            self._start(self._tell(moved))
        else:
            await self._tell(moved)
        return moved

    async def _adopt(self, job: Job, accepted: Accepted) -> Job | None:
        """Others took this process for dead and the job for unsure; the answer did come: no doubt is left."""
        found = await self._store.look(job.id)
        if found and found.state in (State.SUBMITTING, State.UNSURE) and found.reference == job.reference:
            assert found.reference is not None
            try:
                return await self._store.advance(found, accepted, self._now())
            except AlreadyThere:
                # The member has queued the clip once more: it is written when that has ended, see `_sweep`.
                log.warning("answer_waits_for_other_take", task=accepted.task)
                self._late[job.id] = found.reference, accepted
                return None
        if found and found.provider_task == accepted.task:
            return None  # another worker looked it up, and goes on with it
        log.error("paid_task_without_a_job", task=accepted.task)
        return None

    def _doubt(self, job: Job, pause: timedelta) -> None:
        """Look the job up after the pause, where its route can be asked."""
        if isinstance(self._providers.get(job.route), FindsByReference):
            self._looks.setdefault(job.id, (0, self._now() + pause))

    async def _tell(self, job: Job) -> None:
        if (
            job.card_id is None and job.state is State.CANCELLED
        ):  # a draft: its card may be there all the same
            await self._announcer.clear_card(job)
        elif job.state not in (State.POSTING, State.DELIVERED):
            await self._announcer.draw(job, await self._waiting(job))

    async def _waiting(self, job: Job) -> Waiting:
        if job.state is State.QUEUED:
            paused = bool(await self._store.paused([job.guild_id]))
            return Waiting(place=await self._store.place(job), paused=paused)
        if job.state is State.RENDERING:
            return await self._schedule.waiting(job)
        if job.state is State.UNSURE:
            looks, _ = self._looks.get(job.id, (PATIENT_LOOKS, None))
            return Waiting(looking=looks < PATIENT_LOOKS)
        return Waiting()

    def _draw_if_moved(self, route: str, now: datetime) -> None:
        """When the line moves, those at its head learn their new place: one drawing at a time, once a LINE_EVERY."""
        drawing, drawn = f"line {route}", self._line_drawn.get(route)
        just_now = drawn is not None and timedelta(0) <= now - drawn < LINE_EVERY
        if route in self._line_moved and not just_now and drawing not in self._in_hand:
            self._line_moved.discard(route)
            self._line_drawn[route] = now
            self._start(self._draw_line(route), drawing)

    async def _draw_line(self, route: str) -> None:
        line = await self._store.line(route, limit=DRAWN_QUEUE)
        paused = await self._store.paused({job.guild_id for job, _ in line})
        for job, place in line:
            if not self._stopping:
                await self._announcer.draw(job, Waiting(place=place, paused=job.guild_id in paused))
        await self._mend([job for job, _ in line])

    async def _mend(self, told: Sequence[Job]) -> None:
        """Of those that have moved since they were read, the newest is told once more: it may have been told before."""
        for job in (await self._store.changed(told)).values():
            if job:
                await self._tell(job)

    def _can(self, job: Job) -> Capabilities:
        """What the job's model can do, also when it is no longer in the config."""
        model = self._menu.models.get(job.model)
        return model.can if model else Capabilities(seconds=(job.seconds,))


def _batched(jobs: Sequence[Job], most: int) -> Iterator[Sequence[Job]]:
    """As itertools.batched, which Python 3.11 lacks."""
    for start in range(0, len(jobs), most):
        yield jobs[start : start + most]


async def _unlink(clips: Sequence[Path]) -> list[OSError | None]:
    def unlink(clip: Path) -> OSError | None:
        try:
            clip.unlink(missing_ok=True)
        except OSError as error:
            return error
        return None

    return await asyncio.to_thread(lambda: [unlink(clip) for clip in clips])


def _request(job: Job, reference: str, pictures: Pictures, callback: str | None = None) -> ClipRequest:
    return ClipRequest(
        reference=reference,
        variant=job.variant,
        prompt=job.prompt,
        seconds=job.seconds,
        negative_prompt=job.negative_prompt,
        quality=job.quality,
        ratio=job.ratio,
        strength=job.strength,
        camera=job.camera,
        loop=job.loop,
        sound=job.sound,
        picture=pictures.first,
        end_picture=pictures.last,
        callback=callback,
    )
