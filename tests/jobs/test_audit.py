"""The audit finds nothing in a healthy database, and exactly what was broken in another."""

import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from sqlalchemy import delete, insert, select, update
from sqlalchemy.exc import DBAPIError

from bot.errors import Cause, ProviderRejected, ProviderUnsure
from bot.jobs.announcing import CannotPost
from bot.jobs.audit import Finding, audit
from bot.jobs.desk import Who
from bot.jobs.machine import Broke, CardPosted, Job, State, StillRendering
from bot.jobs.store import SchemaDiffers, Store, open_store
from bot.jobs.tables import events, jobs, ledger, workers
from tests.conftest import Clock
from tests.jobs.world import World, make_menu, make_world

MODERATOR = Who(id=99, channel_id=10, moderator=True)
PRICE = 35


@dataclass
class Site:
    """Jobs of every end and of every open state that lasts, by name."""

    world: World
    jobs: dict[str, Job] = field(default_factory=dict)

    async def look(self, **changes: Any) -> list[Finding]:
        arguments: dict[str, Any] = {
            "now": self.world.clock.now,
            "deadline": make_menu().deadline,
            "folder": self.world.folder,
            "keep": timedelta(days=7),
            "one_machine": True,
            **changes,
        }
        return [finding async for finding in audit(self.world.store, **arguments)]

    async def change(self, table: Any, name: str, **values: Any) -> None:
        column = jobs.c.id if table is jobs else table.c.job_id
        await self.run(update(table).where(column == self.jobs[name].id).values(**values))

    async def run(self, statement: Any) -> None:
        async with self.world.store._writes.begin() as connection:
            await connection.execute(statement)

    @asynccontextmanager
    async def put_back(self) -> AsyncIterator[None]:
        """Whatever is done inside to the tables and the clips is undone."""
        tables = (jobs, events, ledger, workers)
        clips = {path: path.read_bytes() for path in self.world.folder.iterdir()}
        async with self.world.store._reads.connect() as connection:
            rows = {
                table: [dict(row) for row in (await connection.execute(select(table))).mappings()]
                for table in tables
            }
        yield
        async with self.world.store._writes.begin() as connection:
            for table in tables:
                await connection.execute(delete(table))
                await connection.execute(insert(table), rows[table])
        for path in set(self.world.folder.iterdir()) - set(clips):
            path.unlink()
        for path, clip in clips.items():
            path.write_bytes(clip)


@pytest.fixture
async def site(store: Store, clock: Clock, tmp_path: Path) -> Site:
    world = make_world(store, clock, tmp_path / "clips", per_member=99)
    provider, announcer, desk = world.provider, world.announcer, world.desk
    site = Site(world)

    async def live(name: str, seconds: int = 40) -> None:
        site.jobs[name] = await world.ask()
        await world.engine.run_due()
        clock.pass_by(seconds=seconds)
        await world.engine.run_due()

    await live("delivered")
    provider.on_submit.append(ProviderRejected(Cause.MODERATION))
    await live("refused")
    provider.on_check.append(Broke(Cause.MODERATION, charged=True))
    await live("charged")
    provider.on_check.append(Broke(Cause.BROKEN))
    await live("perhaps")
    announcer.on_post.append(CannotPost(Cause.NO_PERMISSION))
    announcer.on_private.append(CannotPost(Cause.NO_PERMISSION))
    await live("undeliverable")
    for name in ("let go", "tried again"):
        provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
        await live(name)
    await desk.let_go(MODERATOR, site.jobs["let go"].id)
    await desk.try_again(MODERATOR, site.jobs["tried again"].id)
    await world.engine.run_due()
    clock.pass_by(seconds=40)
    await world.engine.run_due()
    provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    await live("unsure")
    provider.on_check.extend([StillRendering()] * 2)
    for name in ("rendering", "also rendering"):
        await live(name, 0)
    site.jobs["queued"] = await world.ask()
    site.jobs["cancelled"] = await world.ask()
    await desk.cancel(MODERATOR, site.jobs["cancelled"].id)
    site.jobs = {name: await world.now(job) for name, job in site.jobs.items()}
    return site


async def test_a_healthy_database_is_well(site: Site) -> None:
    """Jobs of every end, doubts and money of all kinds; nothing is found, and nothing is found in an empty one."""
    assert {job.state for job in site.jobs.values()} == set(State) - {
        State.DRAFT,
        State.PREPARING,
        State.SUBMITTING,
        State.POSTING,
    }
    assert site.jobs["tried again"].doubted

    assert await site.look() == []


async def test_a_few_at_a_time_are_as_good_as_all(site: Site) -> None:
    """Each job once, with its own history and money, wherever a page ends."""
    whole = [dossier async for dossier in site.world.store.dossiers()]

    for at_once in (1, 2, 12, 13):
        assert [dossier async for dossier in site.world.store.dossiers(at_once=at_once)] == whole
    assert {dossier.job for dossier in whole} == set(site.jobs.values())


Break = Callable[[Site], Any]


def row(name: str, **values: Any) -> Break:
    return lambda site: site.change(jobs, name, **values)


def hours(site: Site, hours: float) -> Any:
    return site.world.clock.now() - timedelta(hours=hours)


def event(name: str, outcome: str, old: str, new: str) -> Break:
    """One more event at the end of a job's history."""
    return lambda site: site.run(
        insert(events).values(
            job_id=site.jobs[name].id,
            at=site.world.clock.now(),
            outcome=outcome,
            from_state=old,
            to_state=new,
        )
    )


def entry(name: str, kind: str, cents: int = PRICE, asker: int = 2) -> Break:
    return lambda site: site.run(
        insert(ledger).values(
            job_id=site.jobs[name].id,
            at=site.world.clock.now(),
            kind=kind,
            cents=cents,
            asker_id=asker,
            model="kling",
        )
    )


def several(*breaks: Break) -> Break:
    async def all_of_them(site: Site) -> None:
        for one in breaks:
            await one(site)

    return all_of_them


async def forget_the_queue(site: Site) -> None:
    await site.change(jobs, "queued", changed_at=hours(site, 3))
    await site.run(update(events).values(at=hours(site, 3)))


async def all_died(site: Site) -> None:
    """Hours ago, with the queue as it was and nothing in hand."""
    await forget_the_queue(site)
    await site.run(update(workers).values(beat_at=hours(site, 3)))


async def leave_a_worker(site: Site) -> None:
    await site.run(insert(workers).values(id="left", beat_at=hours(site, 1)))


def file(name: str, *, age_hours: float) -> Break:
    async def leave(site: Site) -> None:
        job = site.jobs.get(name)
        path = site.world.folder / f"{job.id if job else name}.mp4"
        path.write_bytes(b"clip")
        then = path.stat().st_mtime - age_hours * 3600
        os.utime(path, (then, then))

    return leave


async def lose_the_clip(site: Site) -> None:
    (site.world.folder / f"{site.jobs['undeliverable'].id}.mp4").unlink()
    await site.change(jobs, "undeliverable", changed_at=hours(site, 30))


async def call_the_clip_too_large(site: Site) -> None:
    await lose_the_clip(site)
    await site.change(jobs, "undeliverable", cause=Cause.CLIP_TOO_LARGE)


# What is broken, and what is then found: invariant, job (else as it stands), and words of what is wrong.
BROKEN: dict[str, tuple[Break, list[tuple[str, str, str]]]] = {
    "a second paid call": (
        several(
            event("delivered", "Begun", "delivered", "delivered"),
            row("delivered", attempt=2),
        ),
        [
            ("I1", "delivered", "2 paid calls were begun, 1 were allowed"),
            ("I5", "delivered", "no arrow leads from delivered by Begun"),
        ],
    ),
    "attempts": (row("delivered", attempt=4), [("I1", "delivered", "counts 4 attempts, its history has 1")]),
    "no post": (row("delivered", post_id=None), [("I2", "delivered", "names no post")]),
    "a post too early": (row("rendering", post_id=7), [("I2", "rendering", "is rendering, but names a post")]),
    "one post for two": (
        several(row("delivered", post_id=7), row("tried again", post_id=7)),
        [("I2", "delivered", "post 7 is named by another"), ("I2", "tried again", "post 7 is named by another")],
    ),
    "no reservation": (
        lambda site: site.run(delete(ledger).where(ledger.c.job_id == site.jobs["queued"].id)),
        [("I3", "queued", "the ledger needs reserve 35, it has nothing")],
    ),
    "charged twice": (entry("delivered", "charge"), [("I3", "delivered", "it has charge 35, charge 35, reserve 35")]),
    "never released": (
        lambda site: site.run(
            delete(ledger).where(ledger.c.job_id == site.jobs["refused"].id, ledger.c.kind == "release")
        ),
        [("I3", "refused", "the ledger needs release 35, reserve 35, it has reserve 35")],
    ),
    "another kind": (
        lambda site: site.change(ledger, "let go", kind="reserve"),
        [("I3", "let go", "it has reserve 35, reserve 35")],
    ),
    "another amount": (
        lambda site: site.change(ledger, "queued", cents=34),
        [("I3", "queued", "it has reserve 34")],
    ),
    "a free end": (row("delivered", charge="none"), [("I3", "delivered", "cannot be with charge “none”"), ("I3", "delivered", "the ledger needs release 35")]),
    "a forgotten doubt": (row("tried again", doubted=False), [("I3", "tried again", "was tried again 1 times, but says doubted: False")]),
    "another member's money": (
        lambda site: site.change(ledger, "queued", asker_id=3),
        [("I3", "member 2", "-35 cents more"), ("I3", "member 3", "35 cents more")],
    ),
    "an old draft": (
        lambda site: several(
            row("queued", state="draft", changed_at=hours(site, 2)),
            lambda site: site.run(delete(events).where(events.c.job_id == site.jobs["queued"].id, events.c.to_state == "queued")),
        )(site),
        [("I4", "queued", "is draft for 2.0 h, 15 min are allowed")],
    ),
    "an old doubt": (lambda site: site.change(jobs, "unsure", changed_at=hours(site, 26)), [("I4", "unsure", "is unsure for 26.0 h, 24.0 h are allowed")]),
    "an endless rendering": (
        lambda site: site.change(jobs, "rendering", submitted_at=hours(site, 26)),
        [("I4", "rendering", "is rendering for 26.0 h, 24.2 h are allowed")],
    ),
    "a queue that nobody minds": (forget_the_queue, [("I4", "queued", "queued for 3.0 h: nothing was begun on makevid all the while")]),
    "nobody there": (
        all_died,
        [("I4", "queued", "queued for 3.0 h: no worker is alive")],
    ),
    "an owner long dead": (
        lambda site: several(
            row("rendering", worker="dead", changed_at=hours(site, 0.5)),
            lambda site: site.run(insert(workers).values(id="dead", beat_at=hours(site, 0.5))),
        )(site),
        [("I4", "rendering", "its worker dead was not heard of for 30 min")],
    ),
    "an arrow that is not drawn": (
        lambda site: site.run(
            update(events).where(events.c.job_id == site.jobs["delivered"].id, events.c.outcome == "Ready").values(outcome="Posted")
        ),
        [("I5", "delivered", "no arrow leads from rendering by Posted to posting")],
    ),
    "a gap in the history": (
        lambda site: site.run(
            delete(events).where(events.c.job_id == site.jobs["delivered"].id, events.c.outcome == "Ready")
        ),
        [("I5", "delivered", "its history jumps from rendering to posting")],
    ),
    "no beginning": (
        lambda site: site.run(
            delete(events).where(events.c.job_id == site.jobs["delivered"].id, events.c.outcome == "Requested")
        ),
        [("I5", "delivered", "its history does not begin with the request")],
    ),
    "a move without an event": (
        row("queued", state="cancelled", charge="none"),
        [("I3", "queued", "the ledger needs release 35, reserve 35"), ("I5", "queued", "is cancelled, its history ends in queued")],
    ),
    "a lost row": (
        lambda site: site.run(delete(jobs).where(jobs.c.id == site.jobs["refused"].id)),
        [("I5", "refused", "no row among the jobs")],
    ),
    "a clip left behind": (
        several(file("delivered", age_hours=5), lambda site: site.change(jobs, "delivered", changed_at=hours(site, 5))),
        [("I6", "delivered", "its clip was never cleared away")],
    ),
    "a file of nobody": (file("aaaabbbbccccdddd", age_hours=5), [("I6", "aaaabbbbccccdddd", "a file of no job")]),
    "a kept clip that is gone": (lose_the_clip, [("I6", "undeliverable", "is not kept here")]),
    "signed off with a job in hand": (
        lambda site: site.change(jobs, "rendering", worker="gone", changed_at=hours(site, 0.5)),
        [("I7", "rendering", "is rendering with worker gone, which has signed off")],
    ),
    "a worker's row left behind": (leave_a_worker, [("I7", "worker left", "owns nothing and was not heard of for 1.0 h")]),
}  # fmt: skip


async def test_what_was_broken_is_found_and_nothing_else(site: Site) -> None:
    """One promise after the other is broken behind the store's back: each row says which, where, and how."""
    by_id = {job.id: name for name, job in site.jobs.items()}
    missed: list[Any] = []
    for what, (break_it, expected) in BROKEN.items():
        async with site.put_back():
            await break_it(site)
            found = await site.look()
        told = [(f.invariant, by_id.get(f.about, f.about), f.what) for f in found]
        for row in expected:
            fits = [one for one in told if one[:2] == row[:2] and row[2] in one[2]]
            if len(fits) != 1:
                missed.append((what, row, told))
        if len(told) != len(expected):
            missed.append((what, len(expected), told))
        assert not any(finding.notice for finding in found), what

    assert missed == []
    assert await site.look() == []


@pytest.mark.parametrize(
    ("break_it", "one_machine"), [(lose_the_clip, False), (call_the_clip_too_large, True)]
)
async def test_what_may_be_all_right_is_a_notice(break_it: Break, one_machine: bool, site: Site) -> None:
    """Another machine may keep the clip; one too large was never fetched."""
    await break_it(site)

    (finding,) = await site.look(one_machine=one_machine)

    assert (finding.invariant, finding.notice) == ("I6", True)


async def test_a_busy_route_is_not_a_stuck_one(site: Site) -> None:
    """Jobs wait for hours where there are many; something was begun meanwhile."""
    await site.change(jobs, "queued", changed_at=hours(site, 3))

    assert await site.look() == []


@pytest.fixture
async def reading(database: str, site: Site) -> AsyncIterator[Store]:
    async with open_store(database, database_clock=False, read_only=True) as store:
        yield store


async def test_it_cannot_write(reading: Store, clock: Clock) -> None:
    """Opened for looking, the database refuses all else."""
    assert [dossier async for dossier in reading.dossiers()]

    with pytest.raises(DBAPIError):
        await reading.beat("w", clock.now())


async def test_it_sees_each_job_as_of_one_moment(reading: Store, site: Site, clock: Clock) -> None:
    """A job moves between the reading of its row and that of its history: they agree all the same."""
    dossiers = reading.dossiers(at_once=1)
    async for dossier in dossiers:
        for job in await site.world.store.open_jobs((State.QUEUED,)):
            await site.world.desk.cancel(MODERATOR, job.id)
        assert dossier.job
        assert dossier.history[-1].new == dossier.job.state


@pytest.mark.empty
async def test_another_schema_is_left_alone(database: str, tmp_path: Path) -> None:
    """An empty database is not made into one of ours by looking."""
    if database.startswith("sqlite"):
        with pytest.raises(FileNotFoundError):
            async with open_store(database, read_only=True):
                pass
        (tmp_path / "jobs.db").touch()

    with pytest.raises(SchemaDiffers):
        async with open_store(database, read_only=True):
            pass


async def test_a_card_that_is_posted_while_it_looks_is_no_matter(site: Site, clock: Clock) -> None:
    """A draft becomes queued between two looks; both are well."""
    draft = await site.world.store.add(
        Job(**{name: getattr(site.jobs["queued"], name) for name in FIELDS}, id="zzzz")
    )
    assert await site.look() == []

    await site.world.store.advance(draft, CardPosted(12345), clock.now())

    assert await site.look() == []


FIELDS = (
    "created_at",
    "changed_at",
    "channel_id",
    "asker_id",
    "model",
    "route",
    "variant",
    "prompt",
    "seconds",
)


async def test_the_numbers_of_rows(site: Site) -> None:
    """What the soak watches."""
    async with site.world.store._reads.connect() as connection:
        many = len((await connection.execute(select(jobs.c.id))).all())

    assert (await site.world.store.rows())["jobs"] == many == len(site.jobs)
