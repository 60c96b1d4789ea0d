"""The rows of the kill matrix: what goes on when a process dies at a fail point, and what must be true in the end.

A row names a point as the environment does: `store.committed/Posted`, `discord.answered/PATCH messages:2`. `make matrix` runs
all of them on both routes and both databases, `make test` those of which another is not the like, mostly each on one database.
"""

import asyncio
import os
import re
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

from bot.failpoints import KILLED
from bot.jobs.machine import Job, State
from tests.forked import Forked
from tests.processes import PRICE_CENTS, Site, until_async

EVERY_ROW = "ANIMATIC_EVERY_ROW" in os.environ
ROUTES = ("kling", "makevid")  # first those that take long: Kling is asked for a while whether it has a job


@dataclass(frozen=True)
class Row:
    """What goes on on a route, and in it where a process dies: the last of `where`. `usual`: `make test` has it too."""

    route: str
    goes_on: Callable[..., Awaitable[None]]
    where: tuple[str, ...]
    usual: bool = True

    @property
    def name(self) -> str:
        return " ".join([self.route, self.goes_on.__name__, *self.where])

    @property
    def point(self) -> str:
        """Without the number of times that it is passed before."""
        return re.sub(r":\d+$", "", self.where[-1])


def on_both(goes_on: Callable[..., Awaitable[None]], *where: str, usual: bool = True) -> list[Row]:
    """Where both routes go the same way."""
    return [Row(route, goes_on, where, usual and route == "makevid") for route in ROUTES]


MAY_MOVE = {
    (None, State.DRAFT),
    (State.DRAFT, State.QUEUED),
    (State.DRAFT, State.CANCELLED),
    (State.QUEUED, State.QUEUED),
    (State.QUEUED, State.PREPARING),
    (State.PREPARING, State.QUEUED),
    (State.PREPARING, State.SUBMITTING),
    (State.SUBMITTING, State.QUEUED),
    (State.SUBMITTING, State.RENDERING),
    (State.SUBMITTING, State.UNSURE),
    (State.SUBMITTING, State.FAILED),
    (State.UNSURE, State.RENDERING),
    (State.UNSURE, State.QUEUED),
    (State.RENDERING, State.RENDERING),
    (State.RENDERING, State.POSTING),
    (State.RENDERING, State.FAILED),
    (State.POSTING, State.POSTING),
    (State.POSTING, State.DELIVERED),
    (State.POSTING, State.FAILED),
    (State.POSTING, State.UNDELIVERABLE),
}


def next_machine(site: Site) -> str:
    """On SQLite the same machine goes on; on PostgreSQL another, which has none of the files."""
    return "first" if "sqlite" in site.database else "second"


async def killed(process: Forked) -> None:
    assert await asyncio.wait_for(process.wait(), 60) == KILLED, "did not come to the point"


async def asking(site: Site, row: str, *what: str) -> None:
    """A process that serves a command or a click dies at that point."""
    program = ("tests.asking", str(site.config("desk")), str(site.channel), *what)
    await killed(await site.start("desk", fail_at=row, program=program))


async def work_until(site: Site, done: Callable[[], Awaitable[bool]]) -> None:
    """Another process works until that is so, and stops."""
    second = next_machine(site)
    working = await site.start(second)
    await until_async(done)
    assert await site.stop(second, working) == 0, site.logs()
    assert "Traceback" not in site.logs(), site.logs()


async def deliver(site: Site, jobs: list[Job]) -> None:
    working = await site.start("first")
    for job in jobs:
        await site.ended(job, State.DELIVERED)
    assert await site.stop("first", working) == 0, site.logs()


async def check_moves(site: Site, job: Job) -> None:
    moves = await site.animatic.store.history(job.id)
    assert set(moves) <= MAY_MOVE
    assert [old for old, _ in moves] == [None, *(new for _, new in moves[:-1])]
    assert moves[-1][1] is job.state


async def check(site: Site, job: Job, *, doubt: bool = False, queued: bool = True) -> None:
    """What must be true at the end of a row, however its processes fared: delivered once, or what is said here."""
    money = await site.animatic.store.money(job.id)
    if not queued:
        assert job.state is State.CANCELLED
        assert money == {"reserve": PRICE_CENTS, "release": PRICE_CENTS}
        assert len(site.provider.tasks) == 0
    elif doubt:
        assert job.state is State.UNSURE
        assert money == {"reserve": PRICE_CENTS}
        assert len(site.provider.tasks) <= 1
        assert site.posts() == []
    else:
        assert job.state is State.DELIVERED
        assert money == {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}
        assert len(site.provider.tasks) == 1
        posts = [post for post in site.discord.posts() if f"{job.id}.mp4" in post.shown]
        assert [(post.id, post.channel_id) for post in posts] == [(job.post_id, job.posted_in)]
    await site.check_jobs()
    await check_moves(site, job)
