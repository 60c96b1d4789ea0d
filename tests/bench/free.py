"""A provider and an announcer that cost nothing and answer at once, so that what is left is ours."""

import itertools
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

from bot.errors import Cause
from bot.jobs.announcing import Ours, Pictures, Waiting
from bot.jobs.comparisons import Choice, Comparison
from bot.jobs.desk import Ask, Desk, Who
from bot.jobs.engine import Engine
from bot.jobs.health import Health, Trouble
from bot.jobs.limits import Limits
from bot.jobs.machine import Accepted, Broke, Job, Ready, StillRendering
from bot.jobs.models import Menu, Model
from bot.jobs.moderation import Review
from bot.jobs.store import Store
from bot.providers.base import Capabilities, ClipRequest, Picture, PictureRules

PICTURE = Picture(data=b"picture", media_type="image/png", width=640, height=480)
AT_ONCE = Capabilities(seconds=(5,), first_poll=timedelta(0), least_poll_gap=timedelta(0))
ASK = Ask(prompt="camera slowly pulls out", has_picture=True)
UNLIMITED = Limits(per_member=1_000_000, in_all=1_000_000)
MEMBERS = 50


MEMORY = Path("/dev/shm")  # noqa: S108 - folders made in it are private; Linux keeps it in memory


def now() -> datetime:
    return datetime.now(UTC)


@contextmanager
def clips() -> Iterator[Path]:
    """A folder for clips, in memory where the machine has such a place: the files of a free provider cost nothing."""
    with tempfile.TemporaryDirectory(dir=MEMORY if MEMORY.is_dir() else None) as folder:
        yield Path(folder)


class FreeProvider:
    """Takes everything; a clip is there as soon as `ready` says so."""

    def __init__(
        self, can: Capabilities = AT_ONCE, ready: Callable[[str], bool] = lambda _task: True
    ) -> None:
        self.variants = {"free": can}
        self.checks = 0
        self._ready = ready

    async def submit(self, request: ClipRequest) -> Accepted:
        return Accepted(f"task-{request.reference}")

    async def check(self, task: str) -> StillRendering | Ready | Broke:
        self.checks += 1
        return Ready(f"https://cdn.example/{task}.mp4") if self._ready(task) else StillRendering()

    async def fetch(self, clip_url: str, into: Path) -> None:
        into.write_bytes(b"clip")

    async def probe(self) -> None:
        pass

    async def aclose(self) -> None:
        pass


class SilentAnnouncer:
    """Knows a message id for everything, and tells nobody."""

    def __init__(self) -> None:
        self._ids = itertools.count(1)

    async def post_card(self, job: Job, pictures: Pictures, waiting: Waiting) -> int:
        return next(self._ids)

    async def draw(self, job: Job, waiting: Waiting) -> None:
        pass

    async def pictures(self, job: Job, rules: PictureRules | None = None) -> Pictures:
        return Pictures(first=PICTURE)

    async def last_frame(self, job: Job, rules: PictureRules) -> Picture:
        return PICTURE

    async def tell_owner(self, route: str, trouble: Trouble) -> bool:
        return True

    async def ask_owner(
        self, channel_id: int, guild_id: int, owner_id: int, asker_id: int, until: datetime
    ) -> bool:
        return False

    def may_post(self, guild_id: int, channel_id: int, *, asked_in: int) -> bool:
        return True

    async def find_post(self, job: Job) -> int | None:
        return None

    async def post(self, job: Job, clip: Path, pictures: Pictures, ours: Ours) -> int:
        return next(self._ids)

    async def post_together(
        self,
        comparison_id: str,
        clips: tuple[tuple[Job, Path], tuple[Job, Path]],
        pictures: Pictures,
        closes_at: datetime,
        ours: Ours,
    ) -> int:
        return next(self._ids)

    async def show_result(
        self, comparison: Comparison, jobs: tuple[Job, Job], votes: Mapping[Choice, int]
    ) -> bool:
        return True

    async def post_privately(self, job: Job, clip: Path, cause: Cause, ours: Ours) -> tuple[int, int]:
        return 1, next(self._ids)

    async def finish(self, job: Job) -> bool:
        return True

    async def erase(self, job: Job, *, post: bool) -> bool:
        return True

    async def tell_moderators(self, job: Job, review: Review) -> None:
        pass

    async def take_down(self, job: Job) -> bool:
        return True

    async def clear_card(self, job: Job) -> None:
        pass


def menu(can: Capabilities = AT_ONCE) -> Menu:
    model = Model(name="free", label="Free", route="free", variant="free", can=can, price_cents=lambda *_: 35)
    return Menu(models={"free": model}, default="free")


def make_engine(
    store: Store, folder: Path, *, worker: str, slots: int, provider: FreeProvider | None = None
) -> Engine:
    provider = provider or FreeProvider()
    return Engine(
        store=store,
        providers={"free": provider},
        menu=menu(provider.variants["free"]),
        announcer=SilentAnnouncer(),
        now=now,
        worker=worker,
        folder=folder,
        slots=lambda _route: slots,
        health=Health(store, now=now),
    )


def make_desk(store: Store, wake: Callable[[], None] = lambda: None, can: Capabilities = AT_ONCE) -> Desk:
    return Desk(
        store=store,
        menu=menu(can),
        limits=UNLIMITED,
        health=Health(store, now=now),
        announcer=SilentAnnouncer(),
        wake=wake,
        now=now,
    )


async def request(desk: Desk, number: int) -> Job:
    """One of MEMBERS members asks for a clip, as by an interaction of their own."""
    who = Who(id=number % MEMBERS, channel_id=1, guild_id=1, interaction_id=number)
    return await desk.request(who, desk.plan(ASK), Pictures(first=PICTURE))
