"""Worker processes that die, or sleep, at the worst moments: nothing is lost, nothing is paid twice.

Real `animatic` processes work on one database, against a Discord and providers on loopback that
count. Each row of the matrix (tests/matrix) ends one of them at a fail point, and lets others recover; or it halts one there
until others have taken its job over, and wakes it.
"""

import ast
import asyncio
import os
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from functools import cache
from pathlib import Path

import asyncpg
import pytest
from discord.http import Route
from sqlalchemy.engine import make_url

from bot.client import change
from bot.failpoints import FAIL_POINTS
from bot.jobs import machine
from bot.jobs.machine import OPEN, State
from tests.asking import DECIDED, compare
from tests.conftest import new_sqlite
from tests.forked import ROOT
from tests.matrix import EVERY_ROW, Row, decisions, gateway, lives, pairs
from tests.processes import PRICE_CENTS, Site, open_site
from tests.servers.discord import DiscordServer

AT_ONCE = 10
MANY_JOBS = int(os.environ.get("ANIMATIC_KILLED_JOBS", "30"))
LEAST_KILLS = 6
COMPARISONS = 8

ALL = [
    *lives.ROWS,
    *lives.CLICK_ROWS,
    *pairs.ROWS,
    *decisions.DECIDED_ROWS,
    *decisions.TAKEN_ROWS,
    *decisions.OWNER_ROWS,
    *gateway.ROWS,
]
AT_A_START = "store.migrated"  # its row is a test of its own


def moves_of(point: str) -> set[str]:
    return {row.point.removeprefix(f"{point}/") for row in ALL if row.point.startswith(f"{point}/")}


@cache
def sources() -> list[tuple[str, ast.Module]]:
    return [
        (path.relative_to(ROOT).as_posix(), ast.parse(path.read_text(encoding="utf-8")))
        for path in sorted((ROOT / "bot").rglob("*.py"))
    ]


def calls(tree: ast.AST, *names: str) -> Iterator[ast.Call]:
    """Of these functions and methods."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call):
            name = getattr(node.func, "id", getattr(node.func, "attr", None))
            if name in names:
                yield node


def test_every_fail_point_is_in_the_matrix() -> None:
    """The names in the source are those in the list, and each is in a row."""
    reached = {
        call.args[0].value
        for _, tree in sources()
        for call in calls(tree, "reach")
        if isinstance(call.args[0], ast.Constant)
    }

    assert reached == set(FAIL_POINTS)
    assert {row.point.partition("/")[0] for row in ALL} | {AT_A_START} == set(FAIL_POINTS)
    assert {what for what, _ in decisions.DECISIONS} == decisions.WHAT_FOLLOWS.keys() == {*DECIDED, "redraw"}


def test_every_commit_is_in_the_matrix() -> None:
    """Behind whatever writes a process has died."""
    writers = {name for _, tree in sources() for name in transactions(tree)}
    moves = {outcome.__name__ for outcome in machine.Outcome.__args__}
    in_others = {"Claimed", "Rescued", "TriedAgain"}  # Store.claim, .rescue and .reserve_again
    never_written = {"StillRendering"}

    by_outcome = {"Store._move_all"}
    assert moves_of("store.committed") == (writers - by_outcome) | (moves - in_others - never_written)


def transactions(tree: ast.Module) -> Iterator[str]:
    """The functions that hold the `work` of a transaction, by the name that the fail point has."""

    def look(node: ast.AST, names: tuple[str, ...]) -> Iterator[str]:
        for child in ast.iter_child_nodes(node):
            if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                if child.name == "work":
                    yield ".".join(names)
                else:
                    yield from look(child, (*names, child.name))
            elif isinstance(child, ast.Lambda) and [one.arg for one in child.args.args] == ["connection"]:
                yield ".".join(names)
            else:
                yield from look(child, names)

    yield from look(tree, ())


def test_nothing_goes_past_the_fail_points() -> None:
    """The store has one way to write, what it writes has a name to go by, reading writes nothing; routes are asked by one module."""
    for name, tree in sources():
        if name.startswith("bot/jobs/"):
            works = {ast.unparse(call.args[0]) for call in calls(tree, "writing", "_write", "_writing")}
            known = ("work", "lambda connection: ", "_setting(", "engine")
            assert [work for work in works if not work.startswith(known)] == [], name
        begun = [call for call in calls(tree, "begin") if not call.args]
        assert len(begun) == (3 if name == "bot/jobs/store.py" else 0), name  # beat, _write and open_store
        for reading in (node for node in ast.walk(tree) if isinstance(node, ast.AsyncWith)):
            if any(list(calls(item, "reading", "snapshot", "connect")) for item in reading.items):
                assert not list(calls(reading, "insert", "update", "delete")), f"{name}:{reading.lineno}"
        if name.startswith("bot/providers/") and name != "bot/providers/http.py":
            assert not list(calls(tree, "request", "post", "put", "patch")), name


async def test_every_change_at_discord_is_in_the_matrix() -> None:
    """Whatever a process may change there, one has died behind it; no test with commands asks for anything else."""
    assert moves_of("discord.answered") == {change(*one) for one in DiscordServer().changing}


@pytest.fixture
async def discord(monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[DiscordServer]:
    """One for all rows; each has its channel. This process asks it too."""
    async with DiscordServer() as server:
        monkeypatch.setattr(Route, "BASE", server.api_base)
        yield server


async def databases(kind: str, folder: Path) -> AsyncIterator[str]:
    """Addresses of databases without jobs, of the kind of this one."""
    url, number = make_url(kind), 0
    while True:
        number += 1
        if url.drivername.startswith("sqlite"):
            yield new_sqlite(folder / f"{number}.db")
            continue
        name = f"{url.database}_{secrets.token_hex(4)}"
        connection = await asyncpg.connect(
            url.set(drivername="postgresql").render_as_string(hide_password=False)
        )
        await connection.execute(f"CREATE DATABASE {name} TEMPLATE {url.database}")
        await connection.close()
        yield url.set(database=name).render_as_string(hide_password=False)


@pytest.mark.parametrize(
    "rows",
    [
        pytest.param(lives.ROWS, id="in the life of a clip"),
        pytest.param(pairs.ROWS, id="in a comparison"),
        pytest.param([*lives.CLICK_ROWS, *decisions.TAKEN_ROWS], id="at a click"),
        pytest.param(decisions.DECIDED_ROWS, id="at a decision"),
    ],
)
async def test_a_process_may_die_anywhere(
    database: str, discord: DiscordServer, tmp_path: Path, rows: Sequence[Row]
) -> None:
    """One create, one post, balanced money; a doubt only where nobody can tell; what was clicked or decided is done wholly or
    not at all, and what follows from it is done by the next process before anything is paid.

    `make matrix` runs every row, on both routes.
    """
    await live_through_all(database, discord, tmp_path, chosen(rows, database))


async def test_a_process_may_sleep_anywhere(database: str, discord: DiscordServer, tmp_path: Path) -> None:
    """The same where a process goes on with what others took over meanwhile."""
    rows = [
        row
        for row in lives.SLEEPING_ROWS
        if not (row.point.startswith("store.uncommitted/") and "sqlite" in database)
    ]
    await live_through_all(database, discord, tmp_path, chosen(rows, database, on_both=True))


async def test_a_process_may_die_before_the_owner_knows(
    database: str, discord: DiscordServer, tmp_path: Path
) -> None:
    """The next one tells of a route in trouble. One row after the other: the owner of all is the same, and so is the text."""
    for number, row in enumerate(chosen(decisions.OWNER_ROWS, database)):
        discord.messages.clear()
        (folder := tmp_path / str(number)).mkdir()
        await live_through_all(database, discord, folder, [row])


async def test_a_process_may_die_serving_commands(
    database: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    """One row after the other, each with a Discord of its own: whose gateway it is, all commands and clicks go to."""
    for number, row in enumerate(chosen(gateway.ROWS, database)):
        async with DiscordServer() as discord:
            monkeypatch.setattr(Route, "BASE", discord.api_base)
            (folder := tmp_path / str(number)).mkdir()
            await live_through_all(database, discord, folder, [row])


@pytest.mark.empty
async def test_a_process_may_die_in_its_first_start(
    database: str, discord: DiscordServer, tmp_path: Path
) -> None:
    """The tables are there, or the next process makes them."""
    async with open_site(tmp_path / "site", database, discord, first_dies_at=AT_A_START) as site:
        job = await site.ask()
        await lives.recover(site, job)


def chosen(rows: Sequence[Row], database: str, *, on_both: bool = False) -> Sequence[Row]:
    """`make matrix` runs every row on both databases, `make test` the usual ones, every other on PostgreSQL, or all `on_both`.

    With ANIMATIC_ROWS in the environment, a regular expression, only those whose names it is found in.
    """
    if not EVERY_ROW:
        rows = [row for row in rows if row.usual]
        if not on_both:
            rows = rows[database.startswith("postgresql") :: 2]
    return [row for row in rows if re.search(os.environ.get("ANIMATIC_ROWS", ""), row.name)]


async def live_through_all(database: str, discord: DiscordServer, folder: Path, rows: Sequence[Row]) -> None:
    """On databases of their own, some at once; all failures are told at the end."""
    fresh = databases(database, folder)
    if database.startswith("postgresql"):
        discord.nonce_window = 0  # the next machine comes so late that only a look at the channel helps
    turns, making = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    async def live_through(number: int, row: Row) -> str | None:
        async with turns:
            try:
                channel = 900000000000100000 + number
                async with AsyncExitStack() as stack:
                    async with making:  # one at a time: else the server takes us for asleep in a transaction
                        here = open_site(
                            folder / f"row-{number}", await anext(fresh), discord, channel, route=row.route
                        )
                        site = await stack.enter_async_context(here)
                    await row.goes_on(site, *row.where)
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - all rows are told of at the end
                return f"{row.name}: {type(error).__name__} {error}"
        return None

    outcomes = await asyncio.gather(*(live_through(number, row) for number, row in enumerate(rows)))

    failures = [outcome for outcome in outcomes if outcome]
    assert not failures, "\n".join(failures)


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_workers_killed_over_and_over_deliver_all_jobs_once(
    database: str, discord: DiscordServer, tmp_path: Path
) -> None:
    """Two on one PostgreSQL; one of them is killed every few seconds, and started again.

    With ANIMATIC_KILLED_JOBS=1000 in the environment, as many.
    """
    async with open_site(tmp_path / "site", database, discord) as site:
        jobs = [await site.ask(f"clip {number}") for number in range(15)]

        async def ask_for_more() -> bool:
            waiting = len(await site.animatic.store.open_jobs((State.QUEUED,)))
            more = min(MANY_JOBS - len(jobs), max(3, 40 - waiting))
            jobs.extend([await site.ask(f"clip {number}") for number in range(len(jobs), len(jobs) + more)])
            return len(jobs) < MANY_JOBS

        seconds = 2 if MANY_JOBS < 100 else 5
        async with killed_over_and_over(site, ask_for_more, seconds=seconds) as kills:
            ends = [await site.ended(job) for job in jobs]

        states = Counter(job.state for job in ends)
        assert set(states) <= {State.DELIVERED, State.UNSURE}, states
        assert states[State.UNSURE] <= kills * site.slots, (
            states
        )  # each in its paid call when its process was killed
        creates = Counter(create.body["prompt"] for create in site.provider.creates)
        assert max(creates.values()) == 1
        delivered = [job for job in ends if job.state is State.DELIVERED]
        assert {job.prompt for job in delivered} <= set(creates)
        assert sorted(post.id for post in site.posts()) == sorted(job.post_id or 0 for job in delivered)
        for job in ends:
            settled = {"charge": PRICE_CENTS} if job.state is State.DELIVERED else {}
            assert await site.animatic.store.money(job.id) == {"reserve": PRICE_CENTS, **settled}
        await site.check_jobs()
        print(f"{len(jobs)} jobs, {kills} kills: {dict(states)}")  # noqa: T201 - with -s


@pytest.mark.parametrize("database", ["postgresql"], indirect=True)
async def test_workers_killed_over_and_over_post_each_comparison_once(
    database: str, discord: DiscordServer, tmp_path: Path
) -> None:
    """Also where each of the two workers has one of the two clips: on a route that can be asked, so that all doubts end."""
    async with open_site(tmp_path / "site", database, discord, route="kling", slots=1) as site:
        both = [await compare(site.animatic, site.channel) for _ in range(4)]

        async def ask_for_more() -> bool:
            both.append(await compare(site.animatic, site.channel))
            return len(both) < COMPARISONS

        async with killed_over_and_over(site, ask_for_more, seconds=2):
            for job in (job for jobs in both for job in jobs):
                await site.ended(job, *(set(State) - OPEN))

        for jobs in both:
            await pairs.check_comparison(site, jobs, "together")
        assert len(site.provider.creates) == len(both) * 2
        assert len(site.posts()) == len(both)
        await site.check_jobs()


@asynccontextmanager
async def killed_over_and_over(
    site: Site, ask_for_more: Callable[[], Awaitable[bool]], *, seconds: float
) -> AsyncIterator[int]:
    """Two workers, one of them killed so often, as long as more is asked for; then both go on. How many were killed."""
    machines, kills, more = ("one", "two"), 0, True
    workers = {machine: await site.start(machine) for machine in machines}
    while kills < LEAST_KILLS or more:
        await asyncio.sleep(seconds)
        machine = machines[kills % 2]
        workers[machine].kill()
        await workers[machine].wait()
        kills += 1
        workers[machine] = await site.start(machine)
        more = more and await ask_for_more()
    yield kills
    codes = [await site.stop(machine, worker) for machine, worker in workers.items()]
    assert codes == [0, 0], site.logs()
