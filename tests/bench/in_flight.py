"""Thousands of clips in the making at once, on one process: `python -m tests.bench.in_flight`.

A process dies with so many jobs RENDERING, evenly spread over the time that their model takes, and a new one
resumes them: real engine, schedule, store and event loop, in real time. The provider and Discord are free and
answer at once; a clip is there after about 100 s (half of them by then, nineteen in twenty by 135 s), which 200
past jobs have taught. So every second a hundredth of the jobs is found done, posted and written, while
members ask for new clips.
"""

import argparse
import asyncio
import json
import math
import random
import resource
import sys
import tempfile
import time
from asyncio.subprocess import PIPE
from contextlib import suppress
from dataclasses import replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from sqlalchemy import insert

from bot.__main__ import settle_in
from bot.jobs.machine import Charge, Job, State
from bot.jobs.store import Store, new_job_id, open_store
from bot.jobs.tables import events, jobs, ledger
from bot.providers.base import Capabilities
from tests.bench import databases, free
from tests.bench.report import Table, quantile, quiet, show
from tests.bench.report import options as common

ROOT = Path(__file__).parents[2]
MIDDLE, LATE = 100.0, 135.0  # seconds: a narrow kind, one model and length
PAST = 200
SQLITE, POSTGRESQL = (10_000, 50_000), (10_000, 50_000)
SECONDS = 20.0
PATIENCE = 180  # seconds until a restart has failed
ASKS_PER_SECOND = 20
CAN = Capabilities(
    seconds=(5,),
    typical=timedelta(seconds=100),
    first_poll=timedelta(seconds=10),
    least_poll_gap=timedelta(seconds=5),
)


def takes(rng: random.Random) -> float:
    return MIDDLE * math.exp(rng.gauss(0, math.log(LATE / MIDDLE) / 1.6448536))


class TimedProvider(free.FreeProvider):
    """A clip is there when its time has come; how much later each was seen is kept."""

    def __init__(self) -> None:
        super().__init__(CAN, self._is_ready)
        self.due: dict[str, float] = {}
        self.lags: list[float] = []
        self._rng = random.Random(2)  # noqa: S311 - the same every time

    def _is_ready(self, task: str) -> bool:
        _, _, known = task.partition("@")
        due = float(known) if known else self.due.setdefault(task, time.time() + takes(self._rng))
        if late := time.time() >= due:
            self.lags.append(time.time() - due)
        return late


async def fill(store: Store, number: int) -> None:
    """The rows a dead process left, and those of past clips of the same kind."""
    rng, now = random.Random(1), free.now()  # noqa: S311 - the same every time
    rows: list[Job] = []
    for n in range(number + PAST):
        took, waited = takes(rng), rng.uniform(0, MIDDLE)
        while waited >= took:
            took, waited = takes(rng), rng.uniform(0, MIDDLE)
        submitted = now - timedelta(seconds=waited)
        rows.append(a_job(n, submitted))
        if n < number:
            rows[-1] = replace(rows[-1], provider_task=f"task-{n}@{submitted.timestamp() + took:.3f}")
        else:
            began = submitted - timedelta(hours=1)
            rows[-1] = replace(
                rows[-1],
                state=State.DELIVERED,
                charge=Charge.CHARGED,
                submitted_at=began,
                rendered_at=began + timedelta(seconds=took),
            )
    async with store._writes.begin() as connection:
        for start in range(0, len(rows), 1000):
            some = rows[start : start + 1000]
            await connection.execute(insert(jobs), [vars(job) for job in some])
            await connection.execute(
                insert(events),
                [
                    {"job_id": j.id, "at": j.changed_at, "outcome": "Accepted", "to_state": j.state}
                    for j in some
                ],
            )
            await connection.execute(
                insert(ledger),
                [
                    {
                        "job_id": j.id,
                        "at": j.changed_at,
                        "kind": "reserve",
                        "cents": 35,
                        "asker_id": j.asker_id,
                        "model": "free",
                    }
                    for j in some
                ],
            )


def a_job(n: int, submitted: datetime) -> Job:
    return Job(
        id=new_job_id(submitted),
        state=State.RENDERING,
        version=3,
        created_at=submitted,
        changed_at=submitted,
        channel_id=1,
        asker_id=n % 5000,
        card_id=n,
        model="free",
        route="free",
        variant="free",
        prompt="camera slowly pulls out",
        seconds=5,
        picture_file="picture.png",
        price_cents=35,
        attempt=1,
        reference=f"reference-{n}",
        provider_task=f"task-{n}",
        submitted_at=submitted,
    )


def resident() -> int:
    """Bytes of memory this process holds now, or held at most where the system does not tell."""
    with suppress(OSError):
        return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024


async def one(address: str, number: int, seconds: float) -> dict[str, Any]:
    """What one process did with so many jobs, watched for so long."""
    provider = TimedProvider()
    with free.clips() as folder:
        async with open_store(address) as store:
            settle_in()
            before = resident()
            engine = free.make_engine(store, folder, worker="second", slots=number, provider=provider)
            desk = free.make_desk(store, engine.wake, CAN)
            began = time.perf_counter()
            running = asyncio.create_task(engine.run())
            while len(engine._schedule.due) + len(provider.lags) < number:
                await asyncio.sleep(0.05)
                if running.done():
                    await running
                if time.perf_counter() - began > PATIENCE:
                    raise RuntimeError(
                        f"{len(engine._schedule.due)} of {number} jobs resumed in {PATIENCE} s"
                    )
            resumed = time.perf_counter() - began
            await asyncio.sleep(2)
            checks, cpu, watched, lags = (
                provider.checks,
                time.process_time(),
                time.perf_counter(),
                len(provider.lags),
            )
            accepts: list[float] = []
            asking = [asyncio.create_task(ask(desk, n, accepts, seconds)) for n in range(ASKS_PER_SECOND)]
            await asyncio.gather(*asking)
            wall = time.perf_counter() - watched
            result = {
                "resumed": resumed,
                "bytes": (resident() - before) / number,
                "polls": (provider.checks - checks) / wall,
                "done": (len(provider.lags) - lags) / wall,
                "lag": sum(provider.lags[lags:]) / max(len(provider.lags) - lags, 1),
                "cpu": (time.process_time() - cpu) / wall,
                "p50": quantile(accepts, 0.5),
                "p99": quantile(accepts, 0.99),
                "accepts": len(accepts),
            }
            engine.stop()
            await running
            return result


async def ask(desk: Any, number: int, accepts: list[float], seconds: float) -> None:
    """One of the members who ask all the time, once a second each, at a moment of their own."""
    began = time.perf_counter()
    await asyncio.sleep(number / ASKS_PER_SECOND)
    turn = 0
    while time.perf_counter() - began < seconds:
        asked = time.perf_counter()
        await free.request(desk, 1_000_000 + number * 1000 + turn)
        accepts.append(time.perf_counter() - asked)
        turn += 1
        await asyncio.sleep(max(0.0, began + turn + number / ASKS_PER_SECOND - time.perf_counter()))


async def in_a_process(address: str, number: int, seconds: float) -> dict[str, Any]:
    arguments = ["-m", "tests.bench.in_flight", "--one", address, str(number), "--seconds", str(seconds)]
    process = await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=PIPE, cwd=ROOT)
    out, _ = await process.communicate()
    if process.returncode:
        raise RuntimeError(f"{number} jobs in flight ended with {process.returncode}")
    answer: dict[str, Any] = json.loads(out)
    return answer


async def measure(
    server: str, *, sqlite: tuple[int, ...], postgresql: tuple[int, ...], seconds: float
) -> list[Table]:
    table = Table(
        "Jobs in flight on one process",
        (
            "",
            "in flight",
            "resumed in",
            "memory a job",
            "polls/s",
            "clips/s",
            "mean lag",
            "CPU share",
            "accept p50",
            "accept p99",
            "aim",
        ),
        f"a model of {MIDDLE:.0f} s whose pace was learned from {PAST} clips, {ASKS_PER_SECOND} new requests a second, "
        f"watched for {seconds:.0f} s; CPU share: of one core, without the database server's",
    )
    with tempfile.TemporaryDirectory() as folder:
        cases = [("SQLite", number, databases.sqlite_file(Path(folder))) for number in sqlite]
        cases += [
            ("PostgreSQL", number, databases.for_store(await databases.new_database(server)))
            for number in postgresql
        ]
        for name, number, address in cases:
            async with open_store(address) as store:
                await fill(store, number)
            try:
                found = await in_a_process(address, number, seconds)
            except RuntimeError:
                table.add(name, f"{number:,}", "failed", *[""] * 8)
                continue
            table.add(
                name,
                f"{number:,}",
                f"{found['resumed']:.1f} s",
                f"{found['bytes'] / 1024:.1f} KB",
                f"{found['polls']:,.0f}",
                f"{found['done']:,.0f}",
                f"{found['lag']:.1f} s",
                f"{found['cpu']:.0%}",
                f"{found['p50'] * 1000:.0f} ms",
                f"{found['p99'] * 1000:.0f} ms",
                "≤ 50 ms" if number <= 10_000 else "",
            )
    return [table]


def main() -> None:
    parser = common(__doc__)
    parser.add_argument("--sqlite", type=int, nargs="*", default=SQLITE, help="jobs in flight")
    parser.add_argument("--postgresql", type=int, nargs="*", default=POSTGRESQL, help="jobs in flight")
    parser.add_argument("--seconds", type=float, default=SECONDS)
    parser.add_argument("--one", nargs=2, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    quiet()
    if asked.one:
        address, number = asked.one
        json.dump(asyncio.run(one(address, int(number), asked.seconds)), sys.stdout)
        return
    with databases.postgresql() as server:
        tables = asyncio.run(
            measure(
                server,
                sqlite=tuple(asked.sqlite),
                postgresql=tuple(asked.postgresql),
                seconds=asked.seconds,
            )
        )
    show(tables, markdown=asked.markdown)


if __name__ == "__main__":
    main()
