"""Worker processes that die, or sleep, at the worst moments: nothing is lost, nothing is paid twice.

Real `animatic worker` processes work on one database, against a Discord and a gateway on loopback that
count. Each row of the matrix ends one of them at a fail point, and lets others recover; or it halts one there until others
have taken its job over, and wakes it.
"""

import ast
import asyncio
import itertools
import json
import os
import re
import secrets
from collections import Counter
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AsyncExitStack, asynccontextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path

import asyncpg
import pytest
from discord.http import Route
from sqlalchemy import update
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncConnection

from bot import __main__ as root
from bot.config import load
from bot.errors import Refusal
from bot.failpoints import FAIL_POINTS, HALTED, KILLED
from bot.jobs.comparisons import Choice, Comparison, Comparisons
from bot.jobs.desk import Who
from bot.jobs.guilds import Guilds, GuildSettings, WhosePictures
from bot.jobs.machine import NOBODY, OPEN, Job, State
from bot.jobs.members import Members
from bot.jobs.moderation import Moderation, Verdict
from bot.jobs.tables import comparisons
from tests.asking import CLICKED, DECIDED, animate, asker, compare, member
from tests.conftest import new_sqlite
from tests.forked import ROOT, Forked
from tests.processes import PRICE_CENTS, Site, open_site, until, until_async
from tests.servers.discord import GUILD_ID, OWNER_ID, TOKEN, DiscordServer, Fault
from tests.servers.kling import KlingServer
from tests.servers.makevid import MakevidServer

AT_ONCE = 10
MANY_JOBS = int(os.environ.get("ANIMATIC_KILLED_JOBS", "30"))
LEAST_KILLS = 6
COMPARISONS = 8

# Points that a worker passes with each move of a job: the moves that are meant.
PASSES = {
    "store.uncommitted": ("Claimed", "Begun", "Accepted", "Ready", "Posted"),
    "engine.settled": ("Accepted", "Ready", "Posted"),
}
# Points that are reached only by whoever takes over from a worker that died earlier.
AFTER = {
    "makevid": {"engine.rescued": "engine.checked", "engine.found": "engine.posted"},
    "kling": {
        "engine.rescued": "engine.checked_many",
        "engine.found": "engine.posted",
        "engine.looked_up": "engine.answered",
    },
}
# Points that only one of the two routes comes to: the gateway cannot be asked by our reference; Kling can, and for many at once.
ONLY_ON = {
    "makevid.answered": "makevid",
    "engine.checked": "makevid",
    "engine.looked_up": "kling",
    "engine.checked_many": "kling",
}
AT_STOP = {"engine.stopped", "engine.released"}
# Between the intent to pay and the commit of the answer nobody can tell, where the route (makevid) has no look-up.
IN_DOUBT = {
    "engine.paying",
    "makevid.answered",
    "engine.answered",
    "store.uncommitted/Accepted",
}
# Beside those, where the two routes go apart. All other rows are alike on both, and run on the second only when asked for.
ROUTES_DIFFER = {"engine.looked_up", "engine.checked_many", "engine.rescued", "engine.settled/Accepted"}
EVERY_ROW = "ANIMATIC_EVERY_ROW" in os.environ
PRIVATELY = {"engine.posted_privately"}  # the channel takes no posts; the asker does
NEVER_QUEUED = {"desk.drafted", "desk.card_posted"}
# What people do by a click. Where it was not committed, they click again.
CLICKS = {
    "cancel": ("store.uncommitted/Cancelled", "desk.cancelled"),
    "try_again": ("store.uncommitted/TriedAgain", "desk.tried_again"),
    "let_go": ("store.uncommitted/GaveUp", "desk.let_go"),
    "redeliver": ("store.uncommitted/Redelivered", "desk.redelivered"),
}
CLICK_ROWS = [
    (click, row)
    for click, rows in CLICKS.items()
    for row in rows
    if EVERY_ROW or row.startswith("desk.") or click == "try_again"
]
CLICK_ROUTES = ("makevid", "kling") if EVERY_ROW else ("makevid",)
# Messages that go because a member wants to be forgotten, or moderators decided so.
TAKEN_AWAY = (
    ("forget", "engine.erased"),
    ("forget", "engine.forgotten"),
    ("remove", "engine.taken_down"),
    ("remove", "engine.take_down_noted"),
)
# What members and moderators decide: one transaction each, and what follows from it, by whoever is there then.
DECISIONS = {
    "block": "safety.blocked",
    "block_one_by_one": "desk.called_off",
    "unblock": "safety.unblocked",
    "report": "safety.reported",
    "tell": "reviews.sent",
    "tell_and_note": "reviews.noted",
    "keep": "safety.decided",
    "remove": "safety.decided",
    "remove_and_block": "safety.decided",
    "change": "guilds.changed",
    "pause": "guilds.paused",
    "resume": "guilds.paused",
    "join": "guilds.joined",
    "leave": "guilds.left",
    "left": "desk.left",
    "ask_in_vain": "desk.dropped",
    "propose": "comparing.proposed",
    "vote": "comparing.voted",
    "reveal": "comparing.revealed",
    "withhold": "desk.withheld",
    "ask_owner": "desk.owner_asked",
    "allow": "desk.allowed",
    "alert": "alerts.told",
    "delete": "desk.post_deleted",
    "forget": "desk.to_be_forgotten",
}
# Of a route whose key is refused, the owner is told.
FOR_THE_OWNER = ("health.noted", "engine.owner_told")
ONLY_CLICKED = {
    *FOR_THE_OWNER,
    *(row for _, row in TAKEN_AWAY),
    *DECISIONS.values(),
    *(row for _, row in CLICK_ROWS if row.startswith("desk.")),
}
# Points that only a comparison comes to, and others where it goes another way than a clip by itself, by what becomes of it:
# never queued; both clips in one post, also where each of two machines has one of them, the provider neither any more, or one
# is found there after a doubt; each in its own, since Discord refuses the one for both; one alone, as the provider refuses the
# other or nobody knows whether it took it; its result shown.
COMPARED = {
    "never queued": ("desk.pair_drafted", "desk.card_posted:1", "desk.card_posted:2"),
    "together": (
        "desk.queued",
        "engine.other_fetched",
        "engine.pair_begun",
        "announcer.fitted",
        "engine.pair_posted",
        "engine.pair_noted",
        "engine.settled/Posted",
        "engine.settled/Posted:2",
        "announcer.card_deleted:1",
    ),
    "two machines": ("engine.pair_begun", "engine.pair_posted", "engine.pair_noted"),
    "clips gone": ("engine.pair_posted",),
    "one found": ("engine.answered:2",),
    "apart": ("engine.parted", "engine.posted:1", "engine.settled/Posted"),
    "one refused": ("engine.parted",),
    "one in doubt": ("engine.answered:2",),
    "result": ("engine.revealed", "engine.result_drawn", "engine.result_noted"),
}
ONLY_COMPARED = {
    "desk.pair_drafted",
    "engine.other_fetched",
    "engine.pair_begun",
    "engine.pair_posted",
    "engine.pair_noted",
    "engine.parted",
    "engine.revealed",
    "engine.result_drawn",
    "engine.result_noted",
}
SELDOM = {
    ("together", "announcer.fitted"),
    ("together", "engine.settled/Posted:2"),
    ("together", "announcer.card_deleted:1"),
    *(("two machines", row) for row in COMPARED["two machines"]),  # half a minute each, most of it waiting
    ("apart", "engine.posted:1"),
}
IN_ONE_POST = {"together", "two machines", "clips gone", "one found", "result"}
ALONE = {"one refused": State.FAILED, "one in doubt": State.UNSURE}  # what becomes of the other
ONLY_FOUND = "one found"  # the gateway cannot be asked; all other ends are alike on both routes
COMPARED_ROWS = [
    (route, end, row)
    for route in ("kling", "makevid")
    for end, rows in COMPARED.items()
    if (route == "kling") == (end == ONLY_FOUND) or (EVERY_ROW and end != ONLY_FOUND)
    for row in rows
    if EVERY_ROW or (end, row) not in SELDOM
]
ROWS = [
    (route, row)
    for route in (
        "kling",
        "makevid",
    )  # first those that take long: Kling is asked for a while whether it has the job
    for point in FAIL_POINTS
    if point not in ONLY_COMPARED | ONLY_CLICKED
    if ONLY_ON.get(point, route) == route
    for row in ([f"{point}/{move}" for move in PASSES[point]] if point in PASSES else [point])
    if EVERY_ROW or route == "makevid" or row in IN_DOUBT | ROUTES_DIFFER
]
# A process that sleeps until others have taken its job over. Inside of a transaction only on PostgreSQL: SQLite has one writer.
SLEEPING_ROWS = [
    (route, row)
    for route, row in ROWS
    if not row.startswith("desk.") and row not in AT_STOP
    if EVERY_ROW
    or (route, row)
    in {
        ("makevid", "engine.pictures"),
        ("makevid", "engine.paying"),
        ("makevid", "announcer.fitted"),
        ("makevid", "store.uncommitted/Accepted"),
    }
]

MAY_MOVE = {
    (None, State.DRAFT),
    (State.DRAFT, State.QUEUED),
    (State.DRAFT, State.CANCELLED),
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
    (State.POSTING, State.POSTING),
    (State.POSTING, State.DELIVERED),
}


def test_every_fail_point_is_in_the_matrix() -> None:
    """The names in the source are those in the list, each once, and each is in a row."""
    reached = [
        call.args[0].value
        for path in sorted((ROOT / "bot").rglob("*.py"))
        for call in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        if isinstance(call, ast.Call)
        and isinstance(call.func, ast.Name)
        and call.func.id == "reach"
        and isinstance(call.args[0], ast.Constant)
    ]

    assert sorted(reached) == sorted(FAIL_POINTS)
    rows = [*ROWS, *COMPARED_ROWS, *CLICK_ROWS, *TAKEN_AWAY, *DECISIONS.items()]
    assert {re.split("[/:]", row)[0] for *_, row in rows} | {*FOR_THE_OWNER} == set(FAIL_POINTS)
    assert DECISIONS.keys() == DECIDED.keys() == WHAT_FOLLOWS.keys()


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


async def die_and_recover(site: Site, row: str) -> None:
    """One row: a process dies at the point, another one takes over; then what is left is looked at."""
    # On SQLite the same machine goes on; on PostgreSQL another, which has none of the files.
    second = "first" if "sqlite" in site.database else "second"
    if row.startswith("desk."):
        program = ("tests.asking", str(site.config("desk")), str(site.channel))
        asking = await site.start("desk", fail_at=row, program=program)
        assert await asyncio.wait_for(asking.wait(), 60) == KILLED
        (job,) = await site.animatic.store.open_jobs()
    else:
        job = await site.ask()
        if row in PRIVATELY:
            posting = f"/channels/{site.channel}/messages"
            site.discord.faults += [Fault("POST", posting, status=403, code=50013) for _ in range(2)]
        after = AFTER[site.route]
        if row in after:
            before = await site.start("first", fail_at=after[row])
            assert await asyncio.wait_for(before.wait(), 60) == KILLED
        if row in AT_STOP:
            site.provider.polls_until_done = 1
        dying = await site.start(second if row in after else "first", fail_at=row)
        if row in AT_STOP:
            await site.ended(job, State.RENDERING)
            await site.stop("first", dying)
        assert await asyncio.wait_for(dying.wait(), 60) == KILLED, "did not come to the point"
        site.provider.polls_until_done = 0

    recovering = await site.start(second)
    if row in NEVER_QUEUED:
        assert await site.stop(second, recovering) == 0
        await much_later(site)
    # A doubt is an end only where nobody can be asked.
    job = await site.ended(job, *(set(State) - OPEN if site.route == "kling" else ()))
    if job.state is State.DELIVERED:  # the card goes too, however the process died
        shown = [] if row in PRIVATELY else [job.post_id]
        await until(lambda: [message.id for message in site.messages()] == shown)
    if row not in NEVER_QUEUED:
        assert await site.stop(second, recovering) == 0, site.logs()

    assert all(process.returncode is not None for process in site.processes)
    assert "Traceback" not in site.logs(), site.logs()
    await check(site, job, doubt=row in IN_DOUBT and site.route == "makevid", queued=row not in NEVER_QUEUED)
    assert len(site.provider.creates) <= 1
    if row in NEVER_QUEUED:
        cards = [json.dumps(message.data["components"]) for message in site.messages()]
        assert ["Cancelled" in card and "custom_id" not in card for card in cards] == (
            [True] if row == "desk.card_posted" else []
        )


async def sleep_and_wake(site: Site, row: str) -> None:
    """One row: a process stands still at the point, another one takes over; then the first goes on as if nothing were."""
    after = AFTER[site.route]
    job = await site.ask()
    if row in PRIVATELY:
        posting = f"/channels/{site.channel}/messages"
        site.discord.faults += [Fault("POST", posting, status=403, code=50013) for _ in range(2)]
    if row in after:
        before = await site.start("before", fail_at=after[row])
        assert await asyncio.wait_for(before.wait(), 60) == KILLED
    sleeping = await site.start("first", halt_at=row)
    await until(lambda: HALTED in site.logs())
    other = await site.start("second")
    sure = set(State) - OPEN
    doubted = site.route == "makevid" and row in IN_DOUBT
    await site.ended(job, *({State.UNSURE} if doubted else sure))
    await site.wake(sleeping)

    job = await site.ended(job, *sure)
    assert [await site.stop("first", sleeping), await site.stop("second", other)] == [0, 0], site.logs()
    [job] = await site.animatic.store.many([job.id])
    assert len(site.provider.tasks) == 1
    await check(site, job, doubt=False)


async def die_at_a_click(site: Site, click: str, row: str) -> None:
    """One row: the process that serves a click dies; where it had not written it, the member clicks again."""
    store, second = site.animatic.store, "first" if "sqlite" in site.database else "second"
    job = await site.ask()
    if click == "redeliver":  # neither the channel nor its asker takes the clip
        posting, private = f"/channels/{site.channel}/messages", "/users/@me/channels"
        site.discord.faults.append(Fault("POST", posting, status=403, code=50013))
        site.discord.faults.append(Fault("POST", private, status=403, code=50007))
        working = await site.start("first")
        job = await site.ended(job, State.UNDELIVERABLE)
        assert await site.stop("first", working) == 0
    elif click != "cancel":
        if isinstance(site.provider, KlingServer):
            site.provider.silent = True  # else it would tell of the task, and leave no doubt
        dying = await site.start("first", fail_at="engine.answered")
        assert await asyncio.wait_for(dying.wait(), 60) == KILLED
        working = await site.start(second)
        job = await site.ended(job, State.UNSURE)
        assert await site.stop(second, working) == 0

    program = ("tests.asking", str(site.config("desk")), str(site.channel), click, job.id)
    clicking = await site.start("desk", fail_at=row, program=program)
    assert await asyncio.wait_for(clicking.wait(), 60) == KILLED, "did not come to the point"
    if row.startswith("store."):
        assert await store.get(job.id) == job
        await CLICKED[click](site.animatic, site.channel, job.id)
    if isinstance(site.provider, KlingServer):
        site.provider.silent = False

    recovering = await site.start(second)
    ended = await site.ended(job, *(set(State) - OPEN))
    shown = ended.post_id or ended.card_id
    await until(lambda: [message.id for message in site.messages()] == [shown])
    if ended.state is not State.DELIVERED:  # the card tells of it, whoever draws it
        await until(lambda: "custom_id" not in json.dumps(site.messages()[0].data["components"]))
    assert await site.stop(second, recovering) == 0, site.logs()

    assert "Traceback" not in site.logs(), site.logs()
    reserved = {"reserve": PRICE_CENTS, "release": PRICE_CENTS}
    state, money, creates = {
        "cancel": (State.CANCELLED, reserved, 0),
        "try_again": (
            State.DELIVERED,
            {"reserve": 2 * PRICE_CENTS, "doubt": PRICE_CENTS, "charge": PRICE_CENTS},
            2,
        ),
        "let_go": (State.FAILED, {"reserve": PRICE_CENTS, "doubt": PRICE_CENTS}, 1),
        "redeliver": (State.DELIVERED, {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}, 1),
    }[click]
    assert ended.state is state
    assert await store.money(job.id) == money
    assert len(site.provider.creates) == creates
    assert len(site.provider.tasks) == creates
    assert len(site.posts()) == (state is State.DELIVERED)
    await site.check_jobs()


async def die_taking_away(site: Site, why: str, row: str) -> None:
    """One row: a process dies between the end of a post and the note of it; the next one comes to an end with it."""
    store, second = site.animatic.store, "first" if "sqlite" in site.database else "second"
    job = await animate(site.animatic, site.channel, guild=GUILD_ID)
    await deliver(site, [job])
    [job] = await store.many([job.id])
    now = root.system_clock()
    moderation = Moderation(store)
    if why == "forget":
        await site.animatic.desk.forget(Who(id=job.asker_id, channel_id=site.channel), posts=True)
    else:
        await moderation.report(job, 2, "spam", None, now)
        assert await moderation.decide(job.id, Verdict.REMOVED, 99, now)

    dying = await site.start("first", fail_at=row)
    assert await asyncio.wait_for(dying.wait(), 60) == KILLED, "did not come to the point"
    recovering = await site.start(second)

    async def noted() -> bool:
        [found], review = await store.many([job.id]), await moderation.review(job.id)
        return found.asker_id == NOBODY or (review is not None and review.cleared_at is not None)

    await until_async(noted)
    assert await site.stop(second, recovering) == 0, site.logs()
    assert "Traceback" not in site.logs(), site.logs()
    assert site.messages() == []
    assert await store.money(job.id) == {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}
    assert len(site.provider.creates) == 1
    await site.check_jobs()


async def die_deciding(site: Site, what: str, job: Job) -> None:
    program = ("tests.asking", str(site.config("desk")), str(site.channel), what, job.id)
    deciding = await site.start("desk", fail_at=DECISIONS[what], program=program)
    assert await asyncio.wait_for(deciding.wait(), 60) == KILLED, "did not come to the point"


async def work_until(site: Site, done: Callable[[], Awaitable[bool]]) -> None:
    """Another process works until that is so, and stops."""
    second = "first" if "sqlite" in site.database else "second"
    working = await site.start(second)
    await until_async(done)
    assert await site.stop(second, working) == 0, site.logs()
    assert "Traceback" not in site.logs(), site.logs()


async def work_on(site: Site, *jobs: Job) -> list[Job]:
    """Another process works until these jobs have ended, and their cards tell of it or are gone. The jobs."""
    found: list[Job] = []

    async def told() -> bool:
        found[:] = [await site.animatic.store.get(job.id) or job for job in jobs]
        buttons = json.dumps([message.data["components"] for message in site.messages()])
        return all(
            job.state not in OPEN
            and f"job:{job.id}:cancel" not in buttons
            and not (job.state is State.DELIVERED and job.card_id)
            for job in found
        )

    await work_until(site, told)
    return found


async def check_called_off(site: Site, job: Job) -> None:
    assert job.state is State.CANCELLED
    assert await site.animatic.store.money(job.id) == {"reserve": PRICE_CENTS, "release": PRICE_CENTS}
    assert f"{job.id}.mp4" not in json.dumps([post.data["components"] for post in site.posts()])


async def ask_in_the_server(site: Site, prompt: str = "waves") -> Job:
    return await animate(site.animatic, site.channel, prompt, guild=GUILD_ID)


async def settings_of(site: Site) -> GuildSettings:
    """As a process has them that has not read them before."""
    usual = site.animatic.bot.servers.usual
    return await Guilds(site.animatic.store, now=root.system_clock, usual=usual).settings(GUILD_ID)


async def let_moderators_read(site: Site, what: str = "review_channel") -> Callable[[], list[str]]:
    """Have a channel for reports, or another of theirs; the messages there."""
    channel_id = site.channel + 500_000
    await site.animatic.bot.servers.change(GUILD_ID, **{what: channel_id})
    return lambda: [
        json.dumps(message.data["components"])
        for message in site.discord.visible
        if message.channel_id == channel_id
    ]


async def reported_with_a_take(site: Site) -> tuple[Job, Job, Callable[[], list[str]]]:
    """A delivered clip that somebody reported, another take of it that waits, and what moderators read."""
    store, told = site.animatic.store, await let_moderators_read(site)
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    [job] = await store.many([job.id])
    take = await site.animatic.desk.again(member(site.channel), job)
    assert await DECIDED["report"](site.animatic, site.channel, job.id)
    assert len(told()) == 1
    return job, take, told


async def die_blocking(site: Site, what: str) -> None:
    """What waits of the blocked member is not made, nor what they ask for later; blocked twice, they are blocked once."""
    waiting, other = await ask_in_the_server(site), await ask_in_the_server(site, "dunes")
    await die_deciding(site, what, waiting)
    for job in await work_on(site, waiting, other):
        await check_called_off(site, job)
    with pytest.raises(Refusal, match="may not have clips made here"):
        await ask_in_the_server(site)
    await DECIDED["block"](site.animatic, site.channel, waiting.id)
    _, count = await Moderation(site.animatic.store).blocks_in(GUILD_ID, root.system_clock(), skip=0, limit=9)
    assert count == 1
    assert site.provider.creates == []
    await site.check_jobs()


async def die_unblocking(site: Site) -> None:
    """Who is unblocked has clips made again."""
    waiting = await ask_in_the_server(site)
    await DECIDED["block"](site.animatic, site.channel, waiting.id)
    await die_deciding(site, "unblock", waiting)
    job = await ask_in_the_server(site, "dunes")
    first, second = await work_on(site, waiting, job)
    await check_called_off(site, first)
    await check(site, second, doubt=False)


async def die_removing(site: Site, *, block: bool = False) -> None:
    """The post goes, what waits to be made from the clip is not made, the moderators read of it. Nobody decides once more.
    Where its asker is blocked with it, nothing else of theirs is made."""
    store = site.animatic.store
    job, take, told = await reported_with_a_take(site)
    waiting = [take, await ask_in_the_server(site, "dunes")] if block else [take]
    await die_deciding(site, "remove_and_block" if block else "remove", job)

    async def cleared() -> bool:
        review = await Moderation(store).review(job.id)
        assert review
        return review.cleared_at is not None and "Reported, and removed" in told()[0]

    await work_until(site, cleared)
    waiting = await work_on(site, *waiting)
    for each in waiting:
        await check_called_off(site, each)
    if block:
        with pytest.raises(Refusal, match="may not have clips made here"):
            await ask_in_the_server(site)
    with pytest.raises(Refusal, match="taken this clip away already"):
        await DECIDED["keep"](site.animatic, site.channel, job.id)
    assert [message.id for message in site.messages()] == [each.card_id for each in waiting]
    assert len(told()) == 1
    assert await store.money(job.id) == {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}
    assert len(site.provider.creates) == 1
    await site.check_jobs()


async def die_keeping(site: Site) -> None:
    """The post stays, what waits to be made from the clip is made, the moderators read of it. Nobody decides once more."""
    job, take, told = await reported_with_a_take(site)
    await die_deciding(site, "keep", job)
    [take] = await work_on(site, take)
    for again in ("remove", "report"):
        with pytest.raises(Refusal, match="kept it"):
            await DECIDED[again](site.animatic, site.channel, job.id)
    assert take.state is State.DELIVERED
    assert [message.id for message in site.messages()] == [job.post_id, take.post_id]
    assert ["Reported, and kept" in message for message in told()] == [True]
    assert len(site.provider.creates) == 2
    await site.check_jobs()


async def die_reporting(site: Site) -> None:
    """The moderators read of it, once; who reports once more, since nothing was answered, is counted once."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    messages = await let_moderators_read(site)
    await die_deciding(site, "report", job)
    moderation = Moderation(site.animatic.store)

    async def shown() -> bool:
        review = await moderation.review(job.id)
        return review is not None and review.shown_as is not None

    await work_until(site, shown)
    with pytest.raises(Refusal, match="reported this clip already"):
        await DECIDED["report"](site.animatic, site.channel, job.id)
    review = await moderation.review(job.id)
    assert review
    assert (review.state, review.reporters) == (Verdict.OPEN, 1)
    assert ["A clip was reported" in message for message in messages()] == [True]
    await site.check_jobs()


async def die_telling(site: Site, what: str) -> None:
    """The moderators' message is there, and nothing says so: they read of it once, or once more where Discord has forgotten
    its nonce by then; what is decided is drawn on one of them."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    messages = await let_moderators_read(site)
    await die_deciding(site, what, job)
    assert len(messages()) == 1
    moderation = Moderation(site.animatic.store)

    async def noted() -> bool:
        review = await moderation.review(job.id)
        return review is not None and review.shown_as is not None

    await work_until(site, noted)
    assert len(messages()) == (1 if site.discord.nonce_window or what == "tell_and_note" else 2)
    await DECIDED["keep"](site.animatic, site.channel, job.id)
    assert sum("Reported, and kept" in message for message in messages()) <= 1
    assert [message.id for message in site.messages()] == [(await site.ended(job)).post_id]
    await site.check_jobs()


async def die_proposing(site: Site) -> None:
    """Nobody has said yes: nothing is made. Who asks again is asked again."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    await die_deciding(site, "propose", job)
    assert await site.animatic.store.open_jobs() == []
    await deliver(site, await compare(site.animatic, site.channel))
    assert len(site.provider.creates) == 3
    await site.check_jobs()


async def die_asking_an_owner(site: Site) -> None:
    """The owner of the picture can answer all the same, and then it may be used. Nothing is made before."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    await site.animatic.bot.servers.change(GUILD_ID, pictures=WhosePictures.ASK)
    await die_deciding(site, "ask_owner", job)
    [question] = [
        message for message in site.messages() if "consent:" in json.dumps(message.data["components"])
    ]
    assert f"<@{asker(site.channel).id}>" in question.data["content"]
    await DECIDED["allow"](site.animatic, site.channel, job.id)
    await DECIDED["ask_owner"](site.animatic, site.channel, job.id)
    assert len(site.provider.creates) == 1
    await site.check_jobs()


async def die_changing_settings(site: Site) -> None:
    """They hold in every other process, for what is asked from now on."""
    waiting = await ask_in_the_server(site)
    await die_deciding(site, "change", waiting)
    settings = await settings_of(site)
    assert settings.most_cents == 1
    assert settings.differing_from(site.animatic.bot.servers.usual) == {"most_cents"}
    [job] = await work_on(site, waiting)
    await check(site, job, doubt=False)


async def die_pausing(site: Site) -> None:
    """What waits is not made, and its card says why."""
    waiting = await ask_in_the_server(site)
    await die_deciding(site, "pause", waiting)

    async def told() -> bool:
        [card] = site.messages()
        return "paused" in json.dumps(card.data["components"])

    await work_until(site, told)
    with pytest.raises(Refusal, match="have paused new clips"):
        (await settings_of(site)).refuse_paused()
    assert (await site.animatic.store.many([waiting.id]))[0].state is State.QUEUED
    assert site.provider.creates == []
    await site.check_jobs()


async def die_resuming(site: Site) -> None:
    """What waits is made."""
    waiting = await ask_in_the_server(site)
    await DECIDED["pause"](site.animatic, site.channel, waiting.id)
    await die_deciding(site, "resume", waiting)
    [job] = await work_on(site, waiting)
    await check(site, job, doubt=False)


async def die_joining(site: Site) -> None:
    """Without a hello: clips are made in the server all the same, and whoever looks again knows it."""
    await die_deciding(site, "join", await ask_in_the_server(site))
    assert await site.animatic.bot.servers.present() == [GUILD_ID]
    [job] = await site.animatic.store.open_jobs()
    await deliver(site, [job])
    assert not await site.animatic.bot.servers.joined(GUILD_ID)
    await site.check_jobs()


async def die_asking_in_vain(site: Site) -> None:
    """Discord takes no card: nothing is made, and nothing of it is counted or reserved any more."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    posting = f"/channels/{site.channel}/messages"
    site.discord.faults.append(Fault("POST", posting, status=403, code=50013))
    await die_deciding(site, "ask_in_vain", job)
    assert await site.animatic.store.open_jobs() == []
    await deliver(site, [await ask_in_the_server(site, "dunes")])
    assert len(site.provider.creates) == 2
    await site.check_jobs()


async def die_leaving(site: Site, what: str) -> None:
    """What waited in a server that removed the bot is not made, by a worker that has no gateway either. Back again, it is served."""
    servers = site.animatic.bot.servers
    await servers.joined(GUILD_ID)
    waiting = await ask_in_the_server(site)
    await die_deciding(site, what, waiting)
    await check_called_off(site, *await work_on(site, waiting))
    assert await servers.present() == []
    assert site.provider.creates == []
    await servers.joined(GUILD_ID)
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    assert len(site.provider.creates) == 1
    await site.check_jobs()


async def compared(site: Site) -> list[Job]:
    jobs = await compare(site.animatic, site.channel)
    await deliver(site, jobs)
    return jobs


async def show_the_result(site: Site, jobs: list[Job]) -> None:
    async def shown() -> bool:
        return (await comparison_of(site, jobs[0])).done_at is not None

    await work_until(site, shown)
    await check_comparison(site, jobs, "result")
    [post] = site.messages()
    assert "result of your comparison" in json.dumps(post.data)
    await site.check_jobs()


async def die_voting(site: Site) -> None:
    """Who votes once more, since nothing was answered, is counted once."""
    jobs = await compared(site)
    this, votes = jobs[0].comparison_id or "", Comparisons(site.animatic.store).votes
    await die_deciding(site, "vote", jobs[0])
    assert await votes(this) == {Choice.A: 1, Choice.B: 0, Choice.SAME: 0}
    await DECIDED["vote"](site.animatic, site.channel, jobs[0].id)
    await end_the_vote(site, jobs[0])
    await show_the_result(site, jobs)
    assert await votes(this) == {Choice.A: 1, Choice.B: 0, Choice.SAME: 0}


async def die_revealing(site: Site) -> None:
    """Nobody votes any more, and the result is shown by the next process."""
    jobs = await compared(site)
    await die_deciding(site, "reveal", jobs[0])
    with pytest.raises(Refusal, match="vote is over"):
        await DECIDED["vote"](site.animatic, site.channel, jobs[0].id)
    await show_the_result(site, jobs)


async def die_withholding(site: Site) -> None:
    """Nobody else makes anything from this member's pictures."""
    job = await ask_in_the_server(site)
    await die_deciding(site, "withhold", job)
    with pytest.raises(Refusal, match="does not want others"):
        await site.animatic.desk.require_consent(member(site.channel), job.asker_id)
    [job] = await work_on(site, job)  # their own clip is theirs
    await check(site, job, doubt=False)


async def die_allowing(site: Site) -> None:
    """The one who was allowed may, the other way round nobody was."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    await site.animatic.bot.servers.change(GUILD_ID, pictures=WhosePictures.ASK)
    one, other = asker(site.channel), member(site.channel)
    members, now = Members(site.animatic.store), root.system_clock()
    assert not await members.allows(GUILD_ID, one.id, other.id, now)
    await die_deciding(site, "allow", job)
    await site.animatic.desk.require_consent(other, one.id)
    assert not await members.allows(GUILD_ID, other.id, one.id, now)
    [take] = await work_on(site, await site.animatic.desk.again(other, await site.animatic.desk.job(job.id)))
    assert take.state is State.DELIVERED
    assert len(site.provider.creates) == 2
    await site.check_jobs()


async def die_alerting(site: Site) -> None:
    """The clip is made. Moderators read that their budget is half spent: after the crash perhaps once more, and no more."""
    store, messages = site.animatic.store, await let_moderators_read(site, "audit_channel")
    await site.animatic.bot.servers.change(GUILD_ID, server_cents_per_day=10 * PRICE_CENTS)
    jobs = [await ask_in_the_server(site) for _ in range(4)]
    assert messages() == []
    await die_deciding(site, "alert", jobs[0])
    assert len(messages()) == 1
    jobs = await store.open_jobs()
    jobs += [await ask_in_the_server(site) for _ in range(2)]
    assert len(messages()) == 2
    assert all(each.state is State.DELIVERED for each in await work_on(site, *jobs))
    assert len(site.provider.creates) == len(jobs) == 7
    await site.check_jobs()


async def die_telling_the_owner(site: Site, row: str) -> None:
    """A key was refused: the owner reads it, perhaps twice. What was asked for is refused, and costs nothing."""

    def told() -> int:
        return sum(message.channel_id == OWNER_ID for message in site.discord.visible)

    before = told()
    site.provider.next_create = "echo_key"
    job = await site.ask()
    dying = await site.start("first", fail_at=row)
    assert await asyncio.wait_for(dying.wait(), 60) == KILLED, "did not come to the point"
    assert told() - before == (row == "engine.owner_told")
    before = told()

    async def known() -> bool:
        note = (await site.animatic.store.recall_all("trouble:")).get(f"trouble:{site.route}")
        return note is None or json.loads(note)["told"]

    await work_until(site, known)
    # Discord takes the same for the second time only when it has forgotten the first.
    assert told() - before == (row == "health.noted" or not site.discord.nonce_window)
    [job] = await work_on(site, job)
    assert job.state is State.FAILED
    assert await site.animatic.store.money(job.id) == {"reserve": PRICE_CENTS, "release": PRICE_CENTS}
    assert len(site.provider.creates) == 1
    await site.check_jobs()


async def die_deleting(site: Site) -> None:
    """The post stays away, and another take of the clip, which waits, is made. Who presses once more has the same answer."""
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    take = await site.animatic.desk.again(member(site.channel), await site.animatic.desk.job(job.id))
    await die_deciding(site, "delete", job)
    [take] = await work_on(site, take)
    await DECIDED["delete"](site.animatic, site.channel, job.id)
    assert [message.id for message in site.messages()] == [take.post_id]
    [job] = await site.animatic.store.many([job.id])
    assert job.state is State.DELIVERED
    assert await site.animatic.store.money(job.id) == {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}
    assert len(site.provider.creates) == 2
    await site.check_jobs()


async def die_forgetting(site: Site) -> None:
    """What waits is not made; the messages go, then the name and the words. The money stays."""
    store = site.animatic.store
    job = await ask_in_the_server(site)
    await deliver(site, [job])
    waiting = await ask_in_the_server(site, "dunes")
    await die_deciding(site, "forget", job)

    async def forgotten() -> bool:
        return {each.asker_id for each in await store.many([job.id, waiting.id])} == {NOBODY}

    await work_until(site, forgotten)
    assert site.messages() == []
    assert await store.money(job.id) == {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}
    await check_called_off(site, (await store.many([waiting.id]))[0])
    assert len(site.provider.creates) == 1
    await site.check_jobs()


WHAT_FOLLOWS = {
    "block": partial(die_blocking, what="block"),
    "block_one_by_one": partial(die_blocking, what="block_one_by_one"),
    "unblock": die_unblocking,
    "report": die_reporting,
    "tell": partial(die_telling, what="tell"),
    "tell_and_note": partial(die_telling, what="tell_and_note"),
    "keep": die_keeping,
    "remove": die_removing,
    "remove_and_block": partial(die_removing, block=True),
    "change": die_changing_settings,
    "pause": die_pausing,
    "resume": die_resuming,
    "join": die_joining,
    "leave": partial(die_leaving, what="leave"),
    "left": partial(die_leaving, what="left"),
    "ask_in_vain": die_asking_in_vain,
    "propose": die_proposing,
    "vote": die_voting,
    "reveal": die_revealing,
    "withhold": die_withholding,
    "ask_owner": die_asking_an_owner,
    "allow": die_allowing,
    "alert": die_alerting,
    "delete": die_deleting,
    "forget": die_forgetting,
}


async def die_in_a_comparison(site: Site, end: str, row: str) -> None:
    """As `die_and_recover`, of two clips that belong together."""
    store, second = site.animatic.store, "first" if "sqlite" in site.database else "second"
    if row.startswith("desk."):
        program = ("tests.asking", str(site.config("desk")), str(site.channel), "compare")
        dying = await site.start("desk", fail_at=row, program=program)
    else:
        jobs = await compare(site.animatic, site.channel)
        if end == "apart":
            posting = f"/channels/{site.channel}/messages"
            site.discord.faults.append(Fault("POST", posting, status=403, code=50013))
        if end == "one refused":
            site.provider.next_create = "moderated" if site.route == "makevid" else "1301"
        if end in ("one in doubt", "one found"):
            site.slots = 1  # the first is made before the second is paid
        if isinstance(site.provider, KlingServer):
            site.provider.silent = end == "one in doubt"
        if end == "result":
            await deliver(site, jobs)
            await end_the_vote(site, jobs[0])
        if end == "two machines":
            dying = await on_two_machines(site, jobs, row)
        else:
            dying = await site.start("first", fail_at=row)
    assert await asyncio.wait_for(dying.wait(), 60) == KILLED, "did not come to the point"
    if row.startswith("desk."):
        jobs = await store.open_jobs()
    assert len(jobs) == 2
    if end == "clips gone":
        site.provider.expire_links()
        if isinstance(site.provider, MakevidServer):
            site.provider.fail_with = "deleted"
        else:
            site.provider.forgets = True

    recovering = await site.start(second)
    if end == "one in doubt":
        in_doubt = [await site.ended(job, State.UNSURE, State.POSTING) for job in jobs]
        assert {job.state for job in in_doubt} == {State.UNSURE, State.POSTING}
    if end in ("never queued", "one in doubt"):
        assert await site.stop(second, recovering) == 0
        await much_later(site)
    else:
        ends = set(State) - OPEN if site.route == "kling" else ()  # there a doubt is none
        ended = [await site.ended(job, *ends) for job in jobs]
        shown = sorted({job.post_id or job.card_id for job in ended})
        await until(lambda: sorted(message.id for message in site.messages()) == shown)
        if end in ("apart", "one refused", "result"):

            async def settled() -> bool:
                return (await comparison_of(site, jobs[0])).done_at is not None

            await until_async(settled)
        assert await site.stop(second, recovering) == 0, site.logs()

    assert "Traceback" not in site.logs(), site.logs()
    await check_comparison(site, jobs, end)
    if end != "never queued":  # no card stands beside its post
        last = {job.post_id or job.card_id for job in await store.many([job.id for job in jobs])}
        assert {message.id for message in site.messages()} == last
    posts = [json.dumps(post.data) for post in site.posts()]
    assert len(posts) == {"never queued": 0, "apart": 2}.get(end, 1)
    assert sum("result of your comparison" in post for post in posts) == (end == "result")
    assert len(site.provider.creates) == (0 if end == "never queued" else 2)
    await site.check_jobs()


async def on_two_machines(site: Site, jobs: list[Job], row: str) -> Forked:
    """Each has one of the clips, and is to die at the same point: the one of them that did, where the other may yet."""
    site.provider.polls_until_done = 10**6
    machines = []
    for number, name in enumerate(("first", "other"), start=1):
        site.slots = number
        machines.append(await site.start(name, fail_at=row))

        async def taken(number: int = number) -> bool:
            return len(await site.animatic.store.open_jobs((State.RENDERING,))) == number

        await until_async(taken)
    assert len({job.worker for job in await site.animatic.store.open_jobs((State.RENDERING,))}) == len(jobs)
    site.provider.polls_until_done = 0
    await until(lambda: any(machine.returncode is not None for machine in machines))
    return next(machine for machine in machines if machine.returncode is not None)


async def deliver(site: Site, jobs: list[Job]) -> None:
    working = await site.start("first")
    for job in jobs:
        await site.ended(job, State.DELIVERED)
    assert await site.stop("first", working) == 0, site.logs()


async def comparison_of(site: Site, job: Job) -> Comparison:
    found = await Comparisons(site.animatic.store).get(job.comparison_id or "")
    assert found
    return found


async def end_the_vote(site: Site, job: Job) -> None:
    """A day later, as far as the row knows."""

    async def work(connection: AsyncConnection) -> None:
        mine = comparisons.c.id == job.comparison_id
        await connection.execute(update(comparisons).where(mine).values(closes_at=root.system_clock()))

    await site.animatic.store.writing(work)


async def check_comparison(site: Site, jobs: list[Job], end: str) -> None:
    """One post with both clips, or one each, the money of both, and what the comparison's row says of it."""
    store = site.animatic.store
    comparison = await comparison_of(site, jobs[0])
    assert {job.id for job in jobs} == {comparison.a_id, comparison.b_id}
    found = await store.many([job.id for job in jobs])
    other = ALONE.get(end, State.DELIVERED)
    states = {State.CANCELLED} if end == "never queued" else {State.DELIVERED, other}
    assert {job.state for job in found} == states
    for job in found:
        moves = await store.history(job.id)
        assert set(moves) <= MAY_MOVE
        assert [old for old, _ in moves] == [None, *(new for _, new in moves[:-1])]
        assert job.sealed == (end in IN_ONE_POST - {"result"})
        settled = {State.DELIVERED: {"charge": PRICE_CENTS}, State.UNSURE: {}}
        expected = settled.get(job.state, {"release": PRICE_CENTS})
        assert await store.money(job.id) == {"reserve": PRICE_CENTS, **expected}
        posts = [post for post in site.posts() if f"{job.id}.mp4" in json.dumps(post.data["components"])]
        assert [post.id for post in posts] == ([job.post_id] if job.state is State.DELIVERED else [])
    together = end in IN_ONE_POST
    assert (comparison.post_id is not None) == (comparison.closes_at is not None) == together
    assert (comparison.spoiled_at is not None) == (not together)
    assert (comparison.revealed_at is not None) == (end == "result")


async def much_later(site: Site) -> None:
    """Drafts that never got a card are called off after a quarter of an hour, a clip waits no longer for one that it
    is compared with."""
    at = root.system_clock() + timedelta(minutes=50)
    async with root.build(load(site.config("parent")), now=lambda: at) as later:
        async with later.bot:
            later.bot.serves_commands = False
            await root.log_in(later.bot, TOKEN)
            await later.engine.run_due()
        await later.engine.hand_back()


async def check(site: Site, job: Job, *, doubt: bool, queued: bool = True) -> None:
    """What must be true at the end of every row, however its processes fared."""
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
        posts = [post for post in site.discord.posts() if job.id in json.dumps(post.data["components"])]
        assert [(post.id, post.channel_id) for post in posts] == [(job.post_id, job.posted_in)]
    await site.check_jobs()
    moves = await site.animatic.store.history(job.id)
    assert set(moves) <= MAY_MOVE
    assert [old for old, _ in moves] == [None, *(new for _, new in moves[:-1])]
    assert moves[-1][1] is job.state


async def test_a_process_may_die_anywhere(database: str, discord: DiscordServer, tmp_path: Path) -> None:
    """One create, one post, balanced money, for every fail point; and a doubt only where nobody can tell.

    `make matrix` runs every row on both routes.
    """
    await live_through_all(
        database,
        discord,
        tmp_path,
        {f"{route} {row}": (route, partial(die_and_recover, row=row)) for route, row in ROWS},
    )


async def test_a_process_may_sleep_anywhere(database: str, discord: DiscordServer, tmp_path: Path) -> None:
    """One create, one post, balanced money also where a process goes on with what others took over meanwhile."""
    rows = {
        f"{route} {row}, asleep": (route, partial(sleep_and_wake, row=row))
        for route, row in SLEEPING_ROWS
        if not (row.startswith("store.") and "sqlite" in database)
    }
    await live_through_all(database, discord, tmp_path, rows)


async def test_a_process_may_die_anywhere_in_a_comparison(
    database: str, discord: DiscordServer, tmp_path: Path
) -> None:
    """Two creates, and one post with both clips or one each, for every fail point of a comparison."""
    rows = {
        f"{route} {end}, {row}": (route, partial(die_in_a_comparison, end=end, row=row))
        for route, end, row in COMPARED_ROWS
    }
    await live_through_all(database, discord, tmp_path, rows)


async def test_a_process_may_die_at_a_click(database: str, discord: DiscordServer, tmp_path: Path) -> None:
    """Cancel, *Try again*, *Let it go*, /queue's posting, forgetting, taking away: done wholly or not at all."""
    rows = {
        f"{route} {click}, {row}": (route, partial(die_at_a_click, click=click, row=row))
        for route in CLICK_ROUTES
        for click, row in CLICK_ROWS
    }
    for route in CLICK_ROUTES:
        for why, row in TAKEN_AWAY:
            rows[f"{route} {why}, {row}"] = (route, partial(die_taking_away, why=why, row=row))
    await live_through_all(database, discord, tmp_path, rows)


async def test_a_process_may_die_at_a_decision(database: str, discord: DiscordServer, tmp_path: Path) -> None:
    """What was decided holds, once, and what follows from it is done by the next process before anything is paid."""
    rows = {
        f"{route} {what}, {DECISIONS[what]}": (route, then)
        for route in CLICK_ROUTES
        for what, then in WHAT_FOLLOWS.items()
    }
    await live_through_all(database, discord, tmp_path, rows)


async def test_a_process_may_die_before_the_owner_knows(
    database: str, discord: DiscordServer, tmp_path: Path
) -> None:
    """The next one tells of a route in trouble. One row after the other: the owner of all is the same, and so is the text."""
    for route, row in itertools.product(CLICK_ROUTES, FOR_THE_OWNER):
        discord.messages.clear()
        (folder := tmp_path / f"{route} {row}").mkdir()
        rows = {f"{route} {row}": (route, partial(die_telling_the_owner, row=row))}
        await live_through_all(database, discord, folder, rows)


async def live_through_all(
    database: str,
    discord: DiscordServer,
    folder: Path,
    rows: Mapping[str, tuple[str, Callable[..., Awaitable[None]]]],
) -> None:
    """Rows by name, each with its route: on databases of their own, some at once; all failures are told at the end."""
    fresh = databases(database, folder)
    if database.startswith("postgresql"):
        discord.nonce_window = 0  # the next machine comes so late that only a look at the channel helps
    turns, making = asyncio.Semaphore(AT_ONCE), asyncio.Lock()

    async def live_through(
        number: int, name: str, route: str, row: Callable[..., Awaitable[None]]
    ) -> str | None:
        async with turns:
            try:
                channel = 900000000000100000 + number
                async with AsyncExitStack() as stack:
                    async with making:  # one at a time: else the server takes us for asleep in a transaction
                        here = open_site(
                            folder / f"row-{number}", await anext(fresh), discord, channel, route=route
                        )
                        site = await stack.enter_async_context(here)
                    await row(site)
            except (Exception, pytest.fail.Exception) as error:  # noqa: BLE001 - all rows are told of at the end
                return f"{name}: {type(error).__name__} {error}"
        return None

    outcomes = await asyncio.gather(
        *(live_through(number, name, *row) for number, (name, row) in enumerate(rows.items()))
    )

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
        pairs = [await compare(site.animatic, site.channel) for _ in range(4)]

        async def ask_for_more() -> bool:
            pairs.append(await compare(site.animatic, site.channel))
            return len(pairs) < COMPARISONS

        async with killed_over_and_over(site, ask_for_more, seconds=2):
            for job in (job for pair in pairs for job in pair):
                await site.ended(job, *(set(State) - OPEN))

        for pair in pairs:
            await check_comparison(site, pair, "together")
        assert len(site.provider.creates) == len(pairs) * 2
        assert len(site.posts()) == len(pairs)
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
