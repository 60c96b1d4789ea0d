"""A scripted provider and an announcer that writes down what it was told, for the engine and the desk."""

import asyncio
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from bot.errors import Cause
from bot.jobs.announcing import Ours, Pictures, PostLater, Waiting
from bot.jobs.audit import Finding, audit
from bot.jobs.comparisons import Choice, Comparison
from bot.jobs.desk import Ask, Desk, Who
from bot.jobs.engine import Engine
from bot.jobs.health import Health, Trouble
from bot.jobs.limits import Limits
from bot.jobs.machine import Absent, Accepted, Broke, Job, Ready, StillRendering
from bot.jobs.models import Menu, Model
from bot.jobs.moderation import Review, Verdict
from bot.jobs.ownership import STALE
from bot.jobs.store import Store
from bot.providers.base import Balance, Capabilities, ClipRequest, Picture, PictureRules
from tests.conftest import Clock

PATIENCE = 10  # seconds of the wall clock; nothing here takes as long
PICTURE = Picture(data=b"picture", media_type="image/png", width=640, height=480)

KLING = Capabilities(
    seconds=(5, 10),
    qualities=("std", "pro"),
    ratios=("16:9", "1:1"),
    negative_prompt=200,
    strength=(0.0, 1.0),
    end_picture=True,
    text_only=True,
)
RUNWAY = Capabilities(seconds=(5, 10), prompt_required=True)


class ScriptedProvider:
    """Answers each call with the next scripted answer, raising those that are exceptions."""

    def __init__(self) -> None:
        self.variants = {"kling": KLING, "runway": RUNWAY}
        self.submits: list[ClipRequest] = []
        self.checks: list[str] = []
        self.fetches: list[str] = []
        self.on_submit: deque[Any] = deque()
        self.on_check: deque[Any] = deque()
        self.on_fetch: deque[Any] = deque()
        self.on_probe: deque[Any] = deque()
        self.probes = 0

    async def submit(self, request: ClipRequest) -> Accepted:
        self.submits.append(request)
        answer = await _next(self.on_submit, Accepted(f"task-{len(self.submits)}"))
        assert isinstance(answer, Accepted)
        return answer

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        self.checks.append(task)
        answer = await _next(self.on_check, Ready("https://cdn.example/clip.mp4"))
        assert isinstance(answer, StillRendering | Ready | Broke)
        return answer

    async def fetch(self, clip_url: str, into: Path) -> None:
        self.fetches.append(clip_url)
        await _next(self.on_fetch, None)
        into.write_bytes(b"clip")

    async def probe(self) -> Balance | None:
        self.probes += 1
        answer = await _next(self.on_probe, None)
        assert isinstance(answer, Balance | None)
        return answer

    async def aclose(self) -> None:
        pass


class UploadingProvider(ScriptedProvider):
    """One that wants to have pictures before the paid call."""

    def __init__(self) -> None:
        super().__init__()
        self.uploads: list[str] = []
        self.on_upload: deque[Any] = deque()

    async def upload(self, request: ClipRequest) -> ClipRequest:
        self.uploads.append(request.reference)
        await _next(self.on_upload, None)
        assert request.picture
        return replace(request, picture=replace(request.picture, uploaded="its name there"))


class FindingProvider(ScriptedProvider):
    """One that can be asked by our reference, and for two tasks at once."""

    most_checks = 2

    def __init__(self) -> None:
        super().__init__()
        self.finds: list[str] = []
        self.batches: list[list[str]] = []
        self.on_find: deque[Any] = deque()

    async def find(self, reference: str) -> Accepted | Absent:
        self.finds.append(reference)
        answer = await _next(self.on_find, Absent())
        assert isinstance(answer, Accepted | Absent)
        return answer

    async def check_many(self, tasks: Sequence[str]) -> dict[str, StillRendering | Ready | Broke]:
        self.batches.append(list(tasks))
        answers = await _next(self.on_check, {task: Ready(f"https://cdn.example/{task}") for task in tasks})
        assert isinstance(answers, dict)
        return answers


async def _next(script: deque[Any], usual: Any) -> Any:
    answer = script.popleft() if script else usual
    if isinstance(answer, BaseException):
        raise answer
    if callable(answer):
        return await answer()
    return answer


class Slow:
    """What is asked for, and gets this answer when it may."""

    def __init__(self, answer: Any = None) -> None:
        self._answer = answer
        self._asked, self._go_on = asyncio.Event(), asyncio.Event()

    async def __call__(self) -> Any:
        self._asked.set()
        await self._go_on.wait()
        if isinstance(self._answer, Exception):
            raise self._answer
        return self._answer

    async def asked(self) -> None:
        async with asyncio.timeout(PATIENCE):
            await self._asked.wait()

    def go_on(self) -> None:
        self._go_on.set()


def require(ours: Ours) -> None:
    if not ours():
        raise PostLater(Cause.INTERRUPTED)


@dataclass
class NotingAnnouncer:
    """Keeps what people would see: the last drawing of each job's card, and the posts."""

    cards: dict[str, tuple[Job, Waiting]] = field(default_factory=dict)
    posts: list[str] = field(default_factory=list)
    private: list[str] = field(default_factory=list)
    finished: list[str] = field(default_factory=list)
    cleared: list[str] = field(default_factory=list)
    asked: list[tuple[int, int, int, int]] = field(default_factory=list)
    can_ask: bool = True
    takes_results: bool = True
    erased: list[tuple[str, bool]] = field(default_factory=list)
    taken_down: list[tuple[str, int | None]] = field(default_factory=list)
    told_moderators: list[tuple[str, Verdict, int]] = field(default_factory=list)
    on_take_down: deque[Any] = field(default_factory=deque)
    told: list[tuple[str, Cause]] = field(default_factory=list)
    found: int | None = None
    on_find: deque[Any] = field(default_factory=deque)
    on_card: deque[Any] = field(default_factory=deque)
    on_pictures: deque[Any] = field(default_factory=deque)
    on_last_frame: deque[Any] = field(default_factory=deque)
    on_post: deque[Any] = field(default_factory=deque)
    rules: list[PictureRules | None] = field(default_factory=list)
    on_private: deque[Any] = field(default_factory=deque)
    on_finish: deque[Any] = field(default_factory=deque)
    results: list[tuple[str, dict[Choice, int]]] = field(default_factory=list)
    on_result: deque[Any] = field(default_factory=deque)
    on_erase: deque[Any] = field(default_factory=deque)
    on_tell_owner: deque[Any] = field(default_factory=deque)

    async def post_card(self, job: Job, pictures: Pictures, waiting: Waiting) -> int:
        await _next(self.on_card, None)
        self.cards[job.id] = (job, waiting)
        return 1000 + len(self.cards)

    async def draw(self, job: Job, waiting: Waiting) -> None:
        self.cards[job.id] = (job, waiting)

    async def last_frame(self, job: Job, rules: PictureRules) -> Picture:
        answer = await _next(self.on_last_frame, PICTURE)
        assert isinstance(answer, Picture)
        return answer

    async def tell_owner(self, route: str, trouble: Trouble) -> bool:
        answer = await _next(self.on_tell_owner, True)
        assert isinstance(answer, bool)
        if answer:
            self.told.append((route, trouble.cause))
        return answer

    async def pictures(self, job: Job, rules: PictureRules | None = None) -> Pictures:
        self.rules.append(rules)
        answer = await _next(self.on_pictures, Pictures(first=PICTURE if job.picture_file else None))
        assert isinstance(answer, Pictures)
        return answer

    async def ask_owner(
        self, channel_id: int, guild_id: int, owner_id: int, asker_id: int, until: datetime
    ) -> bool:
        self.asked.append((channel_id, guild_id, owner_id, asker_id))
        return self.can_ask

    def may_post(self, guild_id: int, channel_id: int, *, asked_in: int) -> bool:
        return self.takes_results

    async def find_post(self, job: Job) -> int | None:
        await _next(self.on_find, None)
        return self.found

    async def post(self, job: Job, clip: Path, pictures: Pictures, ours: Ours) -> int:
        await _next(self.on_post, None)
        require(ours)
        assert clip.read_bytes() == b"clip"
        self.posts.append(job.id)
        return 2000 + len(self.posts)

    async def post_together(
        self,
        comparison_id: str,
        clips: tuple[tuple[Job, Path], tuple[Job, Path]],
        pictures: Pictures,
        closes_at: datetime,
        ours: Ours,
    ) -> int:
        await _next(self.on_post, None)
        require(ours)
        assert all(clip.read_bytes() == b"clip" for _, clip in clips)
        self.posts += [job.id for job, _ in clips]
        return 4000 + len(self.posts)

    async def show_result(
        self, comparison: Comparison, jobs: tuple[Job, Job], votes: Mapping[Choice, int]
    ) -> bool:
        self.results.append((comparison.id, dict(votes)))
        answer = await _next(self.on_result, True)
        assert isinstance(answer, bool)
        return answer

    async def post_privately(self, job: Job, clip: Path, cause: Cause, ours: Ours) -> tuple[int, int]:
        await _next(self.on_private, None)
        require(ours)
        self.private.append(job.id)
        return 77, 3000 + len(self.private)

    async def finish(self, job: Job) -> bool:
        self.finished.append(job.id)
        answer = await _next(self.on_finish, True)
        assert isinstance(answer, bool)
        return answer

    async def erase(self, job: Job, *, post: bool) -> bool:
        self.erased.append((job.id, post))
        answer = await _next(self.on_erase, True)
        assert isinstance(answer, bool)
        return answer

    async def tell_moderators(self, job: Job, review: Review) -> None:
        self.told_moderators.append((job.id, review.state, review.reporters))

    async def take_down(self, job: Job) -> bool:
        self.taken_down.append((job.id, job.post_id))
        answer = await _next(self.on_take_down, True)
        assert isinstance(answer, bool)
        return answer

    async def clear_card(self, job: Job) -> None:
        self.cleared.append(job.id)


@dataclass
class World:
    store: Store
    provider: ScriptedProvider
    announcer: NotingAnnouncer
    engine: Engine
    desk: Desk
    clock: Clock
    folder: Path
    deaths: int = 0
    vendor: ScriptedProvider = field(default_factory=ScriptedProvider)

    async def ask(self, *, asker: int = 2, channel: int = 10, **changes: Any) -> Job:
        """A member asks for a clip of a picture."""
        ask = Ask(**{"prompt": "waves", "has_picture": True, **changes})
        pictures = Pictures(first=PICTURE if ask.has_picture else None)
        return await self.desk.request(
            Who(id=asker, channel_id=channel, guild_id=1), self.desk.plan(ask), pictures
        )

    async def now(self, job: Job) -> Job:
        """The job as the database has it."""
        found = await self.store.get(job.id)
        assert found
        return found

    async def audited(self) -> list[Finding]:
        """What is wrong in the books, of one machine that keeps kept clips for a week."""
        look = audit(
            self.store,
            now=self.clock.now,
            deadline=lambda _job: timedelta(minutes=15),
            folder=self.folder,
            keep=timedelta(days=7),
            one_machine=True,
        )
        return [finding async for finding in look]

    def reborn(self) -> Engine:
        """The engine of a new process on the same database; the old one died without a word."""
        self.deaths += 1
        self.engine = make_engine(
            self.store,
            self.provider,
            self.announcer,
            self.clock,
            self.folder,
            worker=f"worker-{self.deaths + 1}",
        )
        return self.engine


def make_menu() -> Menu:
    models = {
        name: Model(
            name=name,
            label=name.capitalize(),
            route="makevid",
            variant=name,
            can=can,
            price_cents=lambda seconds, quality, sound: (
                seconds * ((14 if quality == "pro" else 7) + 7 * sound)
            ),
        )
        for name, can in {"kling": KLING, "runway": RUNWAY}.items()
    }
    return Menu(models=models, default="kling")


def make_engine(
    store: Store,
    provider: ScriptedProvider,
    announcer: NotingAnnouncer,
    clock: Clock,
    folder: Path,
    slots: int = 2,
    worker: str = "worker-1",
    monotonic: Callable[[], float] | None = None,
    stale: timedelta = STALE,
) -> Engine:
    return Engine(
        store=store,
        providers={"makevid": provider},
        menu=make_menu(),
        announcer=announcer,
        now=clock.now,
        worker=worker,
        folder=folder,
        slots=lambda _route: slots,
        health=Health(store, now=clock.now),
        stale=stale,
        monotonic=monotonic or (lambda: clock.at.timestamp()),
    )


def make_world(
    store: Store,
    clock: Clock,
    folder: Path,
    *,
    per_member: int = 9,
    provider: ScriptedProvider | None = None,
) -> World:
    provider, announcer = provider or ScriptedProvider(), NotingAnnouncer()
    engine = make_engine(store, provider, announcer, clock, folder)
    desk = Desk(
        store=store,
        menu=make_menu(),
        limits=Limits(per_member=per_member, in_all=20),
        health=engine._health,
        announcer=announcer,
        wake=engine.wake,
        now=clock.now,
    )
    return World(store, provider, announcer, engine, desk, clock, folder)
