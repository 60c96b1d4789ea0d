"""Whatever happens, in whatever order: the promises hold after every step, and all jobs come to an end.

Hypothesis makes up histories of two processes on one database, in virtual time: people who ask, cancel and
click, a provider and a Discord that answer in every way, crashes at any call, jumps of the clock, stops.
"""

import asyncio
import os
import sys
import tempfile
from collections import Counter
from collections.abc import Coroutine, Iterator
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any, ClassVar, TypeVar

import pytest
import structlog
from hypothesis import HealthCheck, Phase, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
    run_state_machine_as_test,
)
from sqlalchemy import delete

from bot.errors import Refusal
from bot.jobs.announcing import Pictures
from bot.jobs.audit import audit
from bot.jobs.desk import Ask, Who
from bot.jobs.machine import OPEN, Job, State
from bot.jobs.store import Store, open_store
from bot.jobs.tables import metadata
from tests.conftest import Clock, log_plainly
from tests.jobs.truth import Bug, Channel, Cloud, Dead, Process, counted_wrong, start_process, truth_menu
from tests.jobs.world import PICTURE

T = TypeVar("T")

# `ANIMATIC_MODEL_EXAMPLES=2000 pytest tests/jobs/test_model.py` looks further, elsewhere each time.
DEEP = os.environ.get("ANIMATIC_MODEL_EXAMPLES")
EXAMPLES, STEPS = int(DEEP or 12), 30
MODELS = st.sampled_from(["plain", "finding"])
MODERATOR = Who(id=99, channel_id=10, moderator=True)
FUSES = st.none() | st.none() | st.tuples(st.integers(1, 30), st.booleans())


class Lives(RuleBasedStateMachine):
    """`runner` and `store` are those of one database; each example begins with empty tables."""

    runner: ClassVar[asyncio.Runner]
    store: ClassVar[Store]
    mistakes: ClassVar[list[Any]]

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        return self.runner.run(work)

    @initialize(models=st.lists(MODELS, min_size=1, max_size=4))
    def begin(self, models: list[str]) -> None:
        self.run(empty(self.store))
        self.mistakes.clear()
        self.clock, self.jumped = Clock(), 0.0
        self.cloud, self.channel = Cloud(), Channel(self.clock.now)
        self.stack = ExitStack()
        self.folder = Path(self.stack.enter_context(tempfile.TemporaryDirectory()))
        self.clicks: Counter[str] = Counter()
        self.born = 0
        self.buried: list[Process] = []
        self.processes = [self.start(), self.start()]
        self.overslept = False
        for member, model in enumerate(models):
            self.survive(0, self.ask(0, member, model, picture=True), None)

    def start(self) -> Process:
        self.born += 1
        return start_process(
            self.store,
            self.cloud,
            self.channel,
            self.folder,
            worker=f"worker-{self.born}",
            now=self.clock.now,
            monotonic=lambda: self.clock.at.timestamp() - self.jumped,
        )

    def jobs(self, *states: State) -> list[Job]:
        return self.run(self.store.open_jobs(states or State))

    def pick(self, data: Any, *states: State) -> Job | None:
        found = self.jobs(*states)
        return data.draw(st.sampled_from(found)) if found else None

    def survive(self, which: int, work: Coroutine[Any, Any, Any], fuse: tuple[int, bool] | None) -> None:
        """Something a process does, of which it may die at once."""
        process = self.processes[which]
        if fuse:
            process.life.fuse, process.life.after = fuse
        with suppress(Dead, Refusal):
            self.run(work)
        if process.life.dead:
            self.bury(which)
        process.life.fuse = None

    def bury(self, which: int) -> None:
        process = self.processes[which]
        process.life.dead = True
        self.run(process.settle())
        self.buried.append(process)
        self.processes[which] = self.start()

    async def ask(self, which: int, member: int, model: str, *, picture: bool) -> None:
        desk = self.processes[which].desk
        self.clock.pass_by(milliseconds=1)
        plan = desk.plan(Ask(prompt="waves", model=model, has_picture=picture))
        pictures = Pictures(first=PICTURE if picture else None)
        await desk.request(Who(id=member, channel_id=10, guild_id=1), plan, pictures)

    @rule(which=st.integers(0, 1), model=MODELS, picture=st.booleans())
    def somebody_asks(self, which: int, model: str, picture: bool) -> None:
        self.survive(which, self.ask(which, 1, model, picture=picture), None)

    @rule(which=st.integers(0, 1), model=MODELS, fuse=st.tuples(st.integers(1, 8), st.booleans()))
    def somebody_asks_a_dying_process(self, which: int, model: str, fuse: tuple[int, bool]) -> None:
        self.survive(which, self.ask(which, 2, model, picture=True), fuse)

    @rule(which=st.integers(0, 1), member=st.integers(1, 2), data=st.data())
    def somebody_requeues(self, which: int, member: int, data: Any) -> None:
        self.clock.pass_by(milliseconds=1)
        if parent := self.pick(data, State.DELIVERED):
            who = Who(id=member, channel_id=10, guild_id=1)
            self.survive(which, self.processes[which].desk.again(who, parent), None)

    @rule(which=st.integers(0, 1), data=st.data(), what=st.sampled_from(["cancel", "let_go", "card_deleted"]))
    def somebody_calls_off(self, which: int, data: Any, what: str) -> None:
        if not (job := self.pick(data, *OPEN)):
            return
        desk = self.processes[which].desk
        if what != "card_deleted":
            self.survive(which, getattr(desk, what)(MODERATOR, job.id), None)
        elif job.card_id:
            self.channel.cards.pop(job.card_id, None)
            self.channel.deleted.add(job.id)
            self.survive(which, desk.card_deleted(job.card_id), None)

    @rule(which=st.integers(0, 1), data=st.data(), fuse=FUSES)
    def somebody_tries_again(self, which: int, data: Any, fuse: tuple[int, bool] | None) -> None:
        if job := self.pick(data, State.UNSURE):
            self.clicks[job.id] += 1
            self.survive(which, self.processes[which].desk.try_again(MODERATOR, job.id), fuse)

    @rule(which=st.integers(0, 1), data=st.data(), fuse=FUSES)
    def somebody_has_a_kept_clip_posted(self, which: int, data: Any, fuse: tuple[int, bool] | None) -> None:
        if job := self.pick(data, State.UNDELIVERABLE):
            who = Who(id=job.asker_id, channel_id=10, guild_id=1)
            self.survive(which, self.processes[which].desk.redeliver(who, job.id), fuse)

    @rule(data=st.data())
    def somebody_deletes_a_post(self, data: Any) -> None:
        if self.channel.posts:
            self.channel.delete_post(data.draw(st.sampled_from(sorted(self.channel.posts))))

    @rule(which=st.integers(0, 1), fuse=FUSES)
    def a_process_works(self, which: int, fuse: tuple[int, bool] | None) -> None:
        self.survive(which, self.processes[which].live(), fuse)

    @rule(fuse=FUSES)
    def both_work(self, fuse: tuple[int, bool] | None) -> None:
        """At the same time, on the same rows."""
        one, other = self.processes
        if fuse:
            one.life.fuse, one.life.after = fuse

        async def both() -> None:
            await asyncio.gather(one.live(), other.live())

        self.run(both())
        if one.life.dead:
            self.bury(0)
        one.life.fuse = None

    @rule(which=st.integers(0, 1))
    def a_process_dies(self, which: int) -> None:
        self.bury(which)

    @rule(which=st.integers(0, 1))
    def a_process_stops_cleanly(self, which: int) -> None:
        process = self.processes[which]
        process.engine.stop()
        self.cloud.let_go()
        self.run(process.settle())
        self.run(process.engine.hand_back())
        self.processes[which] = self.start()

    @rule(seconds=st.sampled_from([1, 5, 10, 16, 31]))
    def time_passes(self, seconds: int) -> None:
        self.clock.pass_by(seconds=seconds)

    @rule(minutes=st.sampled_from([3, 20, 120, 25 * 60]))
    def all_freeze(self, minutes: int) -> None:
        """As a suspended machine does: time went by, and nobody did anything."""
        self.clock.pass_by(minutes=minutes)
        self.overslept = True

    @rule(minutes=st.sampled_from([-60, -1, 1, 60]))
    def the_clock_jumps(self, minutes: int) -> None:
        self.clock.pass_by(minutes=minutes)
        self.jumped += minutes * 60
        self.overslept = True

    @rule(
        answers=st.lists(
            st.sampled_from(["busy", "rejected", "no credit", "lost", "taken", "held", "broken"]), max_size=3
        )
    )
    def the_provider_takes_no_job_as_it_should(self, answers: list[str]) -> None:
        self.cloud.on_submit.extend(answers)

    @rule(
        answers=st.lists(
            st.sampled_from(["queued", "rendering", "silent", "busy", "broke", "broke free", "broke paid"]),
            max_size=3,
        )
    )
    def the_provider_renders_in_its_way(self, answers: list[str]) -> None:
        self.cloud.on_check.extend(answers)

    @rule(
        links=st.lists(st.sampled_from(["gone", "silent"]), max_size=2),
        looks=st.lists(st.sampled_from(["silent", "slow"]), max_size=2),
    )
    def the_provider_does_not_find(self, links: list[str], looks: list[str]) -> None:
        self.cloud.on_fetch.extend(links)
        self.cloud.on_find.extend(looks)

    @rule(
        posts=st.lists(st.sampled_from(["later", "cannot", "gone", "too large", "lost"]), max_size=2),
        cards=st.lists(st.sampled_from(["later", "cannot", "lost"]), max_size=2),
        looks=st.integers(0, 2),
    )
    def discord_is_unwell(self, posts: list[str], cards: list[str], looks: int) -> None:
        self.channel.on_post.extend(posts)
        self.channel.on_card.extend(cards)
        self.channel.on_look.extend(["later"] * looks)
        self.channel.on_pictures.extend(["later"] * looks)

    @precondition(lambda self: self.cloud.holding)
    @rule()
    def late_answers_come(self) -> None:
        self.cloud.let_go()
        for process in (*self.processes, *self.buried):
            self.run(process.settle())

    @rule()
    def a_calm_minute(self) -> None:
        """Both work as they should; whoever overslept catches up."""
        for _ in range(2):
            self.clock.pass_by(seconds=15)
            self.live_well()
        self.overslept = False

    def live_well(self) -> None:
        async def both() -> None:
            for process in self.processes:
                await process.engine._ownership.beat()
            for process in self.processes:
                await process.live()

        self.run(both())

    @invariant()
    def the_promises_hold(self) -> None:
        assert self.run(self.found()) == []
        assert counted_wrong(self.jobs(), self.cloud, self.channel, self.clicks) == []
        assert self.mistakes == []

    async def found(self) -> list[Any]:
        """What the audit finds; while everybody slept, jobs may be overdue."""
        look = audit(
            self.store,
            now=self.clock.now,
            deadline=truth_menu().deadline,
            folder=self.folder,
            keep=KEEP,
            one_machine=True,
        )
        return [
            f async for f in look if not f.notice and not (self.overslept and f.invariant in ("I4", "I7"))
        ]

    def teardown(self) -> None:
        """From here on all goes well: every job comes to its end, or waits for a person to decide."""
        if not hasattr(self, "stack"):
            return
        with self.stack:
            self.cloud.let_go()
            for process in self.buried:
                self.run(process.settle())
            for words in (
                self.cloud.on_submit,
                self.cloud.on_check,
                self.cloud.on_fetch,
                self.cloud.on_find,
                self.channel.on_card,
                self.channel.on_post,
                self.channel.on_look,
                self.channel.on_pictures,
            ):
                words.clear()
            for minutes in PATIENCE:
                if not self.jobs(*OPEN - {State.UNSURE}):
                    break
                self.clock.pass_by(minutes=minutes)
                self.live_well()
            assert self.jobs(*OPEN - {State.UNSURE}) == []
            self.clock.pass_by(minutes=1)
            self.live_well()
            self.overslept = False
            self.the_promises_hold()


PATIENCE = [0.2] * 10 + [1] * 10 + [5] * 20 + [35] * 10
KEEP = truth_menu().models["plain"].can.deadline * 10000


async def empty(store: Store) -> None:
    async with store._writes.begin() as connection:
        for table in metadata.sorted_tables:
            await connection.execute(delete(table))


@pytest.fixture
def mistakes() -> Iterator[list[Any]]:
    """What the code under test catches and only logs: bugs, all but a process's own death."""
    found: list[Any] = []

    def note(_logger: Any, _method: str, told: Any) -> Any:
        error = told.get("exc_info")
        if error:
            error = error if isinstance(error, BaseException) else sys.exc_info()[1]
            if not isinstance(error, Dead | Bug):
                found.append((told["event"], repr(error)))
        raise structlog.DropEvent

    structlog.configure(processors=[note])
    yield found
    log_plainly()


def test_whatever_happens_the_promises_hold(database: str, mistakes: list[Any]) -> None:
    """Nothing lost, nothing paid or posted twice, and the money adds up."""
    with asyncio.Runner() as runner:
        opening = open_store(database, database_clock=False)
        store = runner.run(opening.__aenter__())
        here = type("Here", (Lives,), {"runner": runner, "store": store, "mistakes": mistakes})
        profile = settings(
            max_examples=EXAMPLES,
            stateful_step_count=STEPS,
            derandomize=not DEEP,
            phases=list(Phase) if DEEP else [Phase.generate],  # a failure is made small when asked for
            database=None,
            deadline=None,
            print_blob=True,
            suppress_health_check=list(HealthCheck),
        )
        try:
            run_state_machine_as_test(here, settings=profile)  # type: ignore[no-untyped-call]
        finally:
            runner.run(opening.__aexit__(None, None, None))
