"""Complete jobs per second, beside two queues for PostgreSQL: `python -m tests.bench.throughput`.

Ours goes from the request at the desk to the post: six arrows, each a commit with its event and, where
money is concerned, its ledger row, through the real desk, store and engine; only the provider and Discord
are free and instantaneous. The others do nothing in a job: deferred one by one, run, marked as done. All ask with as many callers at once, from one
process, and work in processes of their own, on the same server. What runs once, such as migrations and imports,
is over before, and so are the first jobs of all; then the clock runs from a request until all are done. Clips lie in memory.
"""
# ruff: noqa: T201 - a benchmark prints its tables

import argparse
import asyncio
import os
import signal
import sys
import tempfile
import time
from asyncio.subprocess import PIPE, Process
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from contextlib import asynccontextmanager, suppress
from pathlib import Path
from typing import Any

import asyncpg
from sqlalchemy import func, select

from bot.__main__ import settle_in
from bot.jobs.machine import State
from bot.jobs.store import open_store
from bot.jobs.tables import events, jobs, ledger
from tests.bench import databases, free
from tests.bench.report import Table, machine, options, quiet, show

ROOT = Path(__file__).parents[2]
JOBS, WORKERS, ROUNDS = 2_000, (1, 2, 4), 3
WARM = 500  # jobs that go before the clock runs
CALLERS = 100  # who ask at the same time
IN_HAND = 1_000  # jobs that a worker may have in hand, ours and theirs; DBOS has no limit
SETTLES = 1.0  # seconds that every worker gets before the first request: none says when it listens
LOOK = 0.05  # seconds between looks whether all is done
QUEUE = "bench"


@asynccontextmanager
async def processes(kind: str, address: str, workers: int) -> AsyncIterator[None]:
    """So many worker processes of one kind, all of them at work before this goes on."""
    started: list[Process] = []
    try:
        for number in range(workers):
            arguments = ["-m", "tests.bench.throughput", "--work", kind, address, str(number), str(workers)]
            started.append(
                await asyncio.create_subprocess_exec(sys.executable, *arguments, stdout=PIPE, cwd=ROOT)
            )
        for process in started:
            assert process.stdout is not None
            line = await asyncio.wait_for(process.stdout.readline(), 60)
            if line.strip() != b"ready":
                raise RuntimeError(f"a {kind} worker did not start")
        yield
    finally:
        for process in started:
            with suppress(ProcessLookupError):
                process.send_signal(signal.SIGTERM)
        for process in started:
            try:
                await asyncio.wait_for(process.wait(), 15)
            except TimeoutError:
                process.kill()
                await process.wait()


async def race(
    ask: Callable[[int], Awaitable[object]], done: Callable[[], Awaitable[int]], number: int
) -> tuple[float, float]:
    """Ask so often, CALLERS at a time, and wait until all is done; requests and complete jobs per second.

    WARM jobs go before whose time does not count: most statements are compiled and most connections open then.
    """

    async def go(numbers: range) -> tuple[float, float]:
        waiting = iter(numbers)

        async def caller() -> None:
            for n in waiting:
                await ask(n)

        began = time.perf_counter()
        await asyncio.gather(*(caller() for _ in range(CALLERS)))
        asked = time.perf_counter() - began
        while await done() < numbers.stop - 1:  # noqa: ASYNC110 - other processes do it
            await asyncio.sleep(LOOK)
        return asked, time.perf_counter() - began

    await go(range(1, WARM + 1))
    asked, took = await go(range(WARM + 1, WARM + number + 1))
    return number / asked, number / took


# Ours


async def ours(address: str, workers: int, number: int) -> tuple[float, float]:
    """`workers` 0: the engine runs in the desk's process, as `animatic run` does."""
    async with open_store(address) as store:
        done_query = select(func.count()).select_from(jobs).where(jobs.c.state == State.DELIVERED)

        async def done() -> int:
            async with store._reads.connect() as connection:
                return int((await connection.execute(done_query)).scalar_one())

        if workers:
            desk = free.make_desk(store)
            async with processes("ours", address, workers):
                result = await race(lambda n: free.request(desk, n), done, number)
        else:
            with free.clips() as folder:
                engine = free.make_engine(store, folder, worker="bench", slots=IN_HAND)
                desk = free.make_desk(store, engine.wake)
                running = asyncio.create_task(engine.run())
                result = await race(lambda n: free.request(desk, n), done, number)
                engine.stop()
                await running
        async with store._reads.connect() as connection:
            moves = (await connection.execute(select(func.count()).select_from(events))).scalar_one()
            money = (await connection.execute(select(func.count()).select_from(ledger))).scalar_one()
        if (moves, money) != ((WARM + number) * 7, (WARM + number) * 2):
            raise RuntimeError(f"{moves} events and {money} ledger rows for {WARM + number} jobs")
        return result


async def work_ours(address: str, name: str, workers: int) -> None:
    async with open_store(address) as store:
        with free.clips() as folder:
            engine = free.make_engine(store, folder, worker=name, slots=IN_HAND * workers)
            asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, engine.stop)
            running = asyncio.create_task(engine.run())
            await asyncio.sleep(SETTLES)
            settle_in()
            print("ready", flush=True)
            await running


# procrastinate: its documentation's way for asyncio, one connection pool a process, LISTEN/NOTIFY on


def procrastinate_app(address: str) -> Any:
    import procrastinate

    app = procrastinate.App(
        connector=procrastinate.PsycopgConnector(conninfo=address, min_size=4, max_size=20)
    )

    @app.task(name="nothing", queue=QUEUE)
    async def nothing(n: int) -> None:
        pass

    return app


async def procrastinate(address: str, workers: int, number: int) -> tuple[float, float]:
    app = procrastinate_app(address)
    async with app.open_async():
        await app.schema_manager.apply_schema_async()
        connection = await asyncpg.connect(address)

        async def done() -> int:
            return int(
                await connection.fetchval(
                    "SELECT count(*) FROM procrastinate_jobs WHERE status = 'succeeded'"
                )
            )

        try:
            async with processes("procrastinate", address, workers):
                task = app.tasks["nothing"]
                return await race(lambda n: task.defer_async(n=n), done, number)
        finally:
            await connection.close()


async def work_procrastinate(address: str, name: str, workers: int) -> None:
    app = procrastinate_app(address)
    async with app.open_async():
        worker = asyncio.create_task(
            app.run_worker_async(
                queues=[QUEUE], concurrency=IN_HAND, name=name, install_signal_handlers=False
            )
        )
        asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, worker.cancel)
        await asyncio.sleep(SETTLES)
        print("ready", flush=True)
        with suppress(asyncio.CancelledError):
            await worker


# DBOS: a queue without limits, asked as often as helps; the workflow is a coroutine


DBOS_POLL = 0.05  # seconds; its default of 1 would decide the figure


def dbos_config(address: str, name: str) -> Any:
    return {
        "name": QUEUE,
        "system_database_url": address.replace("postgresql://", "postgresql+psycopg://"),
        "executor_id": name,
        "application_version": "1",
        "log_level": "WARNING",
    }


async def dbos(address: str, workers: int, number: int) -> tuple[float, float]:
    from dbos import DBOSClient

    async with processes("dbos", address, workers):
        client = DBOSClient(system_database_url=dbos_config(address, "")["system_database_url"])
        connection = await asyncpg.connect(address)

        async def done() -> int:
            return int(
                await connection.fetchval(
                    "SELECT count(*) FROM dbos.workflow_status WHERE status = 'SUCCESS'"
                )
            )

        try:
            how: Any = {"workflow_name": "nothing", "queue_name": QUEUE, "app_version": "1"}
            return await race(lambda n: client.enqueue_async(how, n), done, number)
        finally:
            await connection.close()
            client.destroy()


async def work_dbos(address: str, name: str, workers: int) -> None:
    from dbos import DBOS

    DBOS(config=dbos_config(address, name))

    @DBOS.workflow(name="nothing")
    async def nothing(n: int) -> None:
        pass

    DBOS.launch()
    await DBOS.register_queue_async(QUEUE, polling_interval_sec=DBOS_POLL)
    stopped = asyncio.Event()
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, stopped.set)
    await asyncio.sleep(SETTLES)
    print("ready", flush=True)
    await stopped.wait()
    os._exit(0)  # its threads would go on for a while


Rates = tuple[float, float]  # requests and complete jobs per second
Run = Callable[[str, int, int], Awaitable[Rates]]

WORK: dict[str, Callable[[str, str, int], Coroutine[Any, Any, None]]] = {
    "ours": work_ours,
    "procrastinate": work_procrastinate,
    "dbos": work_dbos,
}


async def measure(server: str, *, number: int, workers: tuple[int, ...], rounds: int) -> list[Table]:
    quiet()
    settle_in()  # whoever is asked
    table = Table(
        "Complete jobs per second",
        ("", "workers", "requests/s", "jobs/s", "ours ÷ it", "aim"),
        f"{number:,} jobs after {WARM} that do not count, medians of {rounds} rounds, {CALLERS} callers at once in one process, {IN_HAND:,} jobs in hand a worker, "
        f"DBOS asking every {DBOS_POLL * 1000:.0f} ms; PostgreSQL {await databases.version_of(server)}, synchronous commit",
    )

    def pg(run: Run, *, store: bool = False) -> Run:
        async def on_a_new_database(_address: str, n: int, jobs: int) -> Rates:
            address = await databases.new_database(server)
            return await run(databases.for_store(address) if store else address, n, jobs)

        return on_a_new_database

    with tempfile.TemporaryDirectory() as folder:

        async def lite(_address: str, n: int, jobs: int) -> Rates:
            return await ours(databases.sqlite_file(Path(folder)), n, jobs)

        ways: list[tuple[str, Run]] = [
            ("Animatic, SQLite", lite),
            ("Animatic, PostgreSQL", pg(ours, store=True)),
            ("procrastinate, no-op jobs", pg(procrastinate)),
            ("DBOS, no-op jobs", pg(dbos)),
        ]
        cases = [(name, n, run) for name, run in ways for n in workers]
        found: dict[tuple[str, int], list[Rates]] = {(name, n): [] for name, n, _ in cases}
        found |= {(ways[0][0], 0): []}
        for _ in range(rounds):  # in turns: what loads the machine loads all of them
            found[ways[0][0], 0].append(await lite("", 0, number))
            for name, n, run in sorted(cases, key=lambda case: case[1]):
                found[name, n].append(await run("", n, number))
    middle = {case: sorted(rates, key=lambda rate: rate[1])[len(rates) // 2] for case, rates in found.items()}
    table.add(
        ways[0][0], "none: in the desk's process", *(f"{rate:,.0f}" for rate in middle[ways[0][0], 0]), "", ""
    )
    for name, n, _ in cases:
        asked, complete = middle[name, n]
        other = name in (ways[2][0], ways[3][0])
        ratio = f"{middle[ways[1][0], n][1] / complete:.2f}" if other else ""
        table.add(name, n, f"{asked:,.0f}", f"{complete:,.0f}", ratio, "≥ 2" if other else "")
    return [table]


def main() -> None:
    parser = options(__doc__)
    parser.add_argument("--jobs", type=int, default=JOBS)
    parser.add_argument("--workers", type=int, nargs="+", default=WORKERS)
    parser.add_argument("--rounds", type=int, default=ROUNDS)
    parser.add_argument("--work", nargs=4, help=argparse.SUPPRESS)
    asked = parser.parse_args()
    if asked.work:
        kind, address, number, workers = asked.work
        quiet()
        asyncio.run(WORK[kind](address, f"{kind}-{number}", int(workers)))
        return
    print(machine())
    with databases.postgresql() as server:
        tables = asyncio.run(
            measure(server, number=asked.jobs, workers=tuple(asked.workers), rounds=asked.rounds)
        )
    show(tables, markdown=asked.markdown)


if __name__ == "__main__":
    main()
