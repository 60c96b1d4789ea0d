"""A provider and a channel that know what really happened, and processes that may die at any call.

For tests that let chance decide: what was taken, charged and posted is counted here, not asked of the store.
"""

import asyncio
import inspect
from collections import Counter, deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy.exc import SQLAlchemyError

from bot.errors import Cause, ProviderBusy, ProviderRejected, ProviderUnsure
from bot.jobs.announcing import CannotPost, Ours, PictureGone, Pictures, PostLater, Waiting
from bot.jobs.desk import Desk
from bot.jobs.engine import Engine
from bot.jobs.health import Health, Trouble
from bot.jobs.limits import Limits
from bot.jobs.machine import Absent, Accepted, Broke, Job, Ready, StillRendering
from bot.jobs.models import Menu, Model, Way
from bot.jobs.moderation import Review
from bot.jobs.ownership import STALE
from bot.jobs.store import Store
from bot.providers.base import Capabilities, ClipRequest, PictureRules
from tests.jobs.world import PICTURE, require

NONCE_WINDOW = timedelta(seconds=1)  # far shorter than Discord's: whoever comes later has to look
CAN = Capabilities(seconds=(5,), text_only=True, deadline=timedelta(minutes=15))


class Dead(BaseException):
    """The process is gone: nothing it was about to do happens. No handler of ours may swallow it."""


class Bug(Exception):
    """What no adapter should raise."""


@dataclass
class Life:
    """Of one process. With `fuse` it dies at so many calls from now: before what it called for, or right after."""

    fuse: int | None = None
    after: bool = False
    dead: bool = False

    def burn(self) -> None:
        if self.fuse is not None and not self.dead:
            self.fuse -= 1
            self.dead = self.fuse <= 0 and not self.after
        self.breathe()

    def end(self) -> None:
        if self.fuse is not None and self.fuse <= 0:
            self.dead = True
        self.breathe()

    def breathe(self) -> None:
        if self.dead:
            raise Dead


class Mortal:
    """Anything with coroutine methods, as one process sees it."""

    def __init__(self, inner: Any, life: Life) -> None:
        self._inner, self._life = inner, life

    def __getattr__(self, name: str) -> Any:
        found, life = getattr(self._inner, name), self._life
        if not inspect.iscoroutinefunction(found):
            return found

        async def call(*arguments: Any, **named: Any) -> Any:
            life.burn()
            try:
                return await found(*arguments, **named)
            finally:
                life.end()

        return call


@dataclass
class Cloud:
    """The provider. Each list of words says how the next calls go; an empty one: well.

    submit: busy, rejected, no credit, lost, taken (and the answer lost), held (taken; the answer comes when
    `let_go` is called), broken. check: queued, rendering, silent, busy, broke, broke free, broke paid.
    fetch: gone, silent. find: silent, slow (it is there, but not known yet).
    """

    tasks: dict[str, str] = field(default_factory=dict)
    by_reference: dict[str, str] = field(default_factory=dict)
    on_submit: deque[str] = field(default_factory=deque)
    on_check: deque[str] = field(default_factory=deque)
    on_fetch: deque[str] = field(default_factory=deque)
    on_find: deque[str] = field(default_factory=deque)
    holding: dict["asyncio.Task[Any]", asyncio.Event] = field(default_factory=dict)
    held: asyncio.Event = field(default_factory=asyncio.Event)

    def create(self, reference: str, *, once: bool) -> str:
        """A paid task. `once`: a second create under the same reference is the first again."""
        if once and reference in self.by_reference:
            return self.by_reference[reference]
        task = f"task-{len(self.tasks) + 1}"
        self.tasks[task] = reference
        if once:
            self.by_reference[reference] = task
        return task

    async def submit(self, request: ClipRequest, *, once: bool) -> Accepted:
        how = _next(self.on_submit)
        match how:
            case "busy":
                raise ProviderBusy(retry_after=timedelta(seconds=20))
            case "rejected":
                raise ProviderRejected(Cause.MODERATION)
            case "no credit":
                raise ProviderRejected(Cause.NO_CREDIT)
            case "lost":
                raise ProviderUnsure(Cause.NO_ANSWER)
        task = self.create(request.reference, once=once)
        if how == "taken":
            raise ProviderUnsure(Cause.NO_ANSWER)
        if how == "broken":
            raise Bug("after the first byte")
        if how == "held":
            await self._hold()
        return Accepted(task)

    async def _hold(self) -> None:
        current, answered = asyncio.current_task(), asyncio.Event()
        assert current
        self.holding[current] = answered
        self.held.set()
        try:
            await answered.wait()
        finally:
            del self.holding[current]

    def let_go(self) -> None:
        for answered in self.holding.values():
            answered.set()

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        assert task in self.tasks, "asked for a task that was never made"
        match _next(self.on_check):
            case "queued":
                return StillRendering(queued=True)
            case "rendering":
                return StillRendering(progress=0.5)
            case "silent":
                raise ProviderUnsure(Cause.NO_ANSWER)
            case "busy":
                raise ProviderBusy(retry_after=timedelta(seconds=30))
            case "broke":
                return Broke(Cause.BROKEN)
            case "broke free":
                return Broke(Cause.MODERATION, charged=False)
            case "broke paid":
                return Broke(Cause.MODERATION, charged=True)
        return Ready(f"https://cdn.example/{task}.mp4")

    async def fetch(self, into: Path) -> None:
        match _next(self.on_fetch):
            case "gone":
                raise ProviderRejected(Cause.CLIP_GONE)
            case "silent":
                raise ProviderUnsure(Cause.NO_ANSWER)
        into.write_bytes(b"clip")

    async def find(self, reference: str) -> Accepted | Absent:
        how = _next(self.on_find)
        if how == "silent":
            raise ProviderUnsure(Cause.NO_ANSWER)
        task = self.by_reference.get(reference)
        return Accepted(task) if task and how != "slow" else Absent()


class PlainRoute:
    """A route to the cloud, as one process uses it; there is no asking by reference."""

    once = False
    variants = {"plain": CAN}  # noqa: RUF012 - as the protocol has it

    def __init__(self, cloud: Cloud, life: Life) -> None:
        self._cloud = Mortal(cloud, life)

    async def submit(self, request: ClipRequest) -> Accepted:
        accepted = await self._cloud.submit(request, once=self.once)
        assert isinstance(accepted, Accepted)
        return accepted

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        answer = await self._cloud.check(task)
        assert isinstance(answer, StillRendering | Ready | Broke)
        return answer

    async def fetch(self, clip_url: str, into: Path) -> None:
        await self._cloud.fetch(into)

    async def probe(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class FindingRoute(PlainRoute):
    """One that is asked by our reference, and takes a second create under it for the first."""

    once = True

    async def find(self, reference: str) -> Accepted | Absent:
        found = await self._cloud.find(reference)
        assert isinstance(found, Accepted | Absent)
        return found


CANNOT = {
    "cannot": Cause.NO_PERMISSION,
    "gone": Cause.CHANNEL_GONE,
    "too large": Cause.CLIP_TOO_LARGE,
}


@dataclass
class Channel:
    """Where cards and posts stand. The words of `on_post`: later, cannot, gone, too large, lost (posted, the answer lost);
    of `on_look` and `on_pictures`: later; of `on_card`: later, cannot, lost."""

    now: Callable[[], datetime]
    cards: dict[int, str] = field(default_factory=dict)
    posts: dict[int, str] = field(default_factory=dict)
    posts_of: dict[str, int] = field(default_factory=dict)
    deleted: set[str] = field(default_factory=set)  # jobs whose card somebody deleted
    posts_deleted: dict[int, str] = field(default_factory=dict)
    nonces: dict[str, tuple[int, datetime]] = field(default_factory=dict)
    on_card: deque[str] = field(default_factory=deque)
    on_post: deque[str] = field(default_factory=deque)
    on_look: deque[str] = field(default_factory=deque)
    on_pictures: deque[str] = field(default_factory=deque)
    messages: int = 1000

    def _send(self, nonce: str, shelf: dict[int, str], job: Job) -> int:
        """The same nonce within the window gives the same message, as Discord has it."""
        while self.nonces and self.now() - next(iter(self.nonces.values()))[1] > NONCE_WINDOW:
            del self.nonces[next(iter(self.nonces))]
        message, at = self.nonces.get(nonce, (0, None))
        if message in self.posts_deleted:
            raise CannotPost(Cause.POST_DELETED)
        if at is None or self.now() - at > NONCE_WINDOW:
            self.nonces.pop(nonce, None)
            self.messages += 1
            message = self.messages
            self.nonces[nonce] = (message, self.now())
            shelf[message] = job.id
            if shelf is self.posts:
                self.posts_of[job.id] = message
        return message

    async def post_card(self, job: Job, pictures: Pictures, waiting: Waiting) -> int:
        return self._post(_next(self.on_card), f"{job.id}c", self.cards, job)

    async def post(self, job: Job, clip: Path, pictures: Pictures, ours: Ours) -> int:
        assert clip.read_bytes() == b"clip"
        require(ours)
        return self._post(_next(self.on_post), f"{job.id}p{job.redelivered_at}", self.posts, job)

    def _post(self, how: str | None, nonce: str, shelf: dict[int, str], job: Job) -> int:
        if how == "later":
            raise PostLater(Cause.DISCORD_DOWN)
        if how in CANNOT:
            raise CannotPost(CANNOT[how])
        message = self._send(nonce, shelf, job)
        if how == "lost":
            raise PostLater(Cause.DISCORD_DOWN)
        return message

    def delete_post(self, message: int) -> None:
        """As a moderator does."""
        job_id = self.posts_deleted[message] = self.posts.pop(message)
        del self.posts_of[job_id]

    async def find_post(self, job: Job) -> int | None:
        if _next(self.on_look) == "later":
            raise PostLater(Cause.DISCORD_DOWN)
        return self.posts_of.get(job.id)

    async def post_privately(self, job: Job, clip: Path, cause: Cause, ours: Ours) -> tuple[int, int]:
        """A direct message; some people take none, and the others see one of each clip."""
        if job.asker_id % 2:
            raise CannotPost(cause)
        assert clip.read_bytes() == b"clip"
        found = self.posts_of.get(job.id)
        require(ours)
        return 77, found or self._post(_next(self.on_post), f"{job.id}d", self.posts, job)

    async def pictures(self, job: Job, rules: PictureRules | None = None) -> Pictures:
        if _next(self.on_pictures) == "later":
            raise PostLater(Cause.DISCORD_DOWN)
        if job.picture_file and job.id in self.deleted:
            raise PictureGone
        return Pictures(first=PICTURE if job.picture_file else None)

    async def draw(self, job: Job, waiting: Waiting) -> None:
        pass

    async def finish(self, job: Job) -> bool:
        if job.card_id:
            self.cards.pop(job.card_id, None)
        return True

    async def erase(self, job: Job, *, post: bool) -> bool:
        return True

    async def tell_moderators(self, job: Job, review: Review) -> None:
        pass

    async def take_down(self, job: Job) -> bool:
        return True

    async def clear_card(self, job: Job) -> None:
        pass

    async def tell_owner(self, route: str, trouble: Trouble) -> bool:
        return True


def _next(words: deque[str]) -> str | None:
    return words.popleft() if words else None


def truth_menu(can: Capabilities = CAN) -> Menu:
    """Two models: one can be asked by reference and goes the plain way while that is down."""
    ways = {"finding": Way(route="plain", variant="plain"), "plain": None}
    models = {
        route: Model(
            name=route,
            label=route.capitalize(),
            route=route,
            variant="plain",
            can=can,
            price_cents=lambda seconds, _quality, _sound: seconds * 7,
            fallback=fallback,
        )
        for route, fallback in ways.items()
    }
    return Menu(models=models, default="plain")


@dataclass
class Process:
    """A bot: an engine and a desk that see the world through one life."""

    life: Life
    engine: Engine
    desk: Desk
    cloud: Cloud

    async def live(self, rounds: int = 10) -> bool:
        """Do all that is due now, but for calls whose answer is held back. False: it died of it.

        As the engine's own loop, it outlives a database that is locked or away: then there is a next time.
        """
        with suppress(Dead, SQLAlchemyError, OSError):
            for _ in range(rounds):
                taken = await self.engine._take()
                await self.settle()
                if not taken:
                    break
        await self.settle()
        return not self.life.dead

    async def settle(self) -> None:
        """Until every task has ended or waits for an answer that is held back."""
        while busy := self.engine._tasks - set(self.cloud.holding):
            self.cloud.held.clear()
            held = asyncio.create_task(self.cloud.held.wait())
            await asyncio.wait({*busy, held}, return_when=asyncio.FIRST_COMPLETED)
            held.cancel()


def start_process(
    store: Store,
    cloud: Cloud,
    channel: Channel,
    folder: Path,
    *,
    worker: str,
    now: Callable[[], datetime],
    monotonic: Callable[[], float],
    slots: int = 3,
    most: int = 1000,
    can: Capabilities = CAN,
    stale: timedelta = STALE,
) -> Process:
    life = Life()
    mortal: Any = Mortal(store, life)
    announcer: Any = Mortal(channel, life)
    health = Health(mortal, now=now)
    engine = Engine(
        store=mortal,
        providers={"finding": FindingRoute(cloud, life), "plain": PlainRoute(cloud, life)},
        menu=truth_menu(can),
        announcer=announcer,
        now=now,
        worker=worker,
        folder=folder,
        slots=lambda _route: slots,
        health=health,
        stale=stale,
        monotonic=monotonic,
    )
    desk = Desk(
        store=mortal,
        menu=truth_menu(can),
        limits=Limits(per_member=most, in_all=most),
        health=health,
        announcer=announcer,
        wake=engine.wake,
        now=now,
    )
    return Process(life, engine, desk, cloud)


def counted_wrong(
    jobs: Iterable[Job], cloud: Cloud, channel: Channel, clicks: Counter[str]
) -> list[tuple[str, str]]:
    """What the world says against the rows: paid calls beyond those allowed, posts too many or missing."""
    every = Counter(reference.rpartition("-")[0] for reference in cloud.tasks.values())
    wrong = [
        (job_id, f"{creates} creates, {clicks[job_id]} clicks")
        for job_id, creates in every.items()
        if creates > 1 + clicks[job_id]
    ]
    posts = Counter(channel.posts.values())
    wrong += [(job_id, f"{many} posts") for job_id, many in posts.items() if many > 1]
    seen = {**channel.posts, **channel.posts_deleted}.values()
    wrong += [(job.id, "delivered, not posted") for job in jobs if job.post_id and job.id not in seen]
    return wrong
