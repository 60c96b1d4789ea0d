"""PostgreSQL goes away and comes back, over and over, under load: nothing is lost, nothing is doubled."""

import asyncio
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest
from sqlalchemy.exc import SQLAlchemyError

from bot.errors import Refusal
from bot.jobs.announcing import Pictures
from bot.jobs.audit import audit
from bot.jobs.desk import Ask, Who
from bot.jobs.machine import OPEN, State
from bot.jobs.store import Store, open_store
from tests.jobs.test_postgresql import Server, server
from tests.jobs.truth import CAN, Channel, Cloud, Process, counted_wrong, start_process, truth_menu
from tests.jobs.world import PICTURE

__all__ = ["server"]  # a fixture

JOBS = 200
OUTAGES = 3
PATIENCE = 120  # seconds of the wall clock; a quiet machine needs a tenth
FASTER = 4  # than the wall clock: of the jobs' time, so that pauses need not be waited for
STALE = timedelta(minutes=1)
QUICK = replace(
    CAN, first_poll=timedelta(0), least_poll_gap=timedelta(seconds=1), typical=timedelta(seconds=2)
)


@pytest.mark.usefixtures("quiet")
async def test_nothing_is_lost_while_the_database_comes_and_goes(server: Server, tmp_path: Path) -> None:
    """Two engines at full speed, members who ask, a server stopped hard: every job ends once."""
    loop = asyncio.get_running_loop()
    began, start = loop.time(), datetime.now(UTC)

    def now() -> datetime:
        return start + timedelta(seconds=(loop.time() - began) * FASTER)

    cloud, channel = Cloud(), Channel(now)
    (folder := tmp_path / "clips").mkdir()
    async with (
        open_store(server.url, database_clock=False) as one,
        open_store(server.url, database_clock=False) as other,
        asyncio.timeout(PATIENCE),
    ):
        processes = [
            start_process(
                store, cloud, channel, folder, worker=f"worker-{number}", now=now,
                monotonic=lambda: now().timestamp(), slots=20, most=10 * JOBS, can=QUICK, stale=STALE,
            )
            for number, store in enumerate((one, other), start=1)
        ]  # fmt: skip
        engines = [asyncio.create_task(process.engine.run()) for process in processes]
        asking = [
            asyncio.create_task(ask(process, JOBS // 2, 100 * n)) for n, process in enumerate(processes)
        ]
        for outage in range(1, OUTAGES + 1):
            await until(lambda part=outage: len(channel.posts) >= part * JOBS // (OUTAGES + 2))
            await asyncio.to_thread(server.stop)
            await asyncio.to_thread(server.start)
        asked = await asyncio.gather(*asking)
        await all_ended(one)
        for process in processes:
            process.engine.stop()
        await asyncio.gather(*engines)

        found = [
            finding
            async for finding in audit(
                one, now=now, deadline=truth_menu().deadline, folder=folder, keep=timedelta(7), one_machine=True
            )
        ]  # fmt: skip
        jobs = [dossier.job async for dossier in one.dossiers() if dossier.job]

    assert [finding for finding in found if not finding.notice] == []
    assert counted_wrong(jobs, cloud, channel, Counter()) == []
    assert len(jobs) >= sum(asked)
    assert sum(asked) >= JOBS


async def ask(process: Process, jobs: int, member: int) -> int:
    """So many that were taken on; a member who is told to try again, or told nothing, does."""
    asked = 0
    while asked < jobs:
        what = Ask(prompt="waves", model=("plain", "finding")[asked % 2], has_picture=True)
        who = Who(id=member + asked % 7, channel_id=10, guild_id=1)
        with suppress(Refusal, SQLAlchemyError, OSError):
            await process.desk.request(who, process.desk.plan(what), Pictures(first=PICTURE))
            asked += 1
        await asyncio.sleep(0)  # the engines have their turn
    return asked


async def all_ended(store: Store) -> None:
    """But for drafts whose member was told nothing: they are called off after a quarter of an hour."""
    while await store.open_jobs(OPEN - {State.DRAFT, State.UNSURE}):  # noqa: ASYNC110 - the engines turn
        await asyncio.sleep(0.05)


async def until(condition: Callable[[], bool]) -> None:
    while not condition():  # noqa: ASYNC110
        await asyncio.sleep(0.01)
