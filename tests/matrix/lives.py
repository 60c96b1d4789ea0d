"""One clip, from the request to its end: a process dies, or sleeps, at each point of it, and others go on."""

import io
import os
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from datetime import timedelta

from PIL import Image
from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from bot import __main__ as root
from bot.config import load
from bot.errors import Cause
from bot.failpoints import HALTED
from bot.jobs.health import Trouble
from bot.jobs.machine import OPEN, Job, State
from bot.jobs.tables import jobs
from tests.asking import CLICKED, animate
from tests.matrix import ROUTES, Row, asking, check, check_moves, killed, next_machine, on_both
from tests.processes import PRICE_CENTS, Site, until
from tests.servers.discord import TOKEN, Fault
from tests.servers.kling import KlingServer
from tests.servers.makevid import MakevidServer

# Who serves `/animate`.
ASKED = ("store.committed/Store._add_all", "discord.answered/POST messages", "store.committed/CardPosted")
NEVER_QUEUED = ASKED[:2]
# A worker, from its start to its stop.
WORKED = (
    "alive.touched",
    "store.committed/Store.beat",
    "store.committed/Store.forget_guilds",
    "store.committed/Members.forget_costs",
    "store.committed/Members.forget_consents",
    "store.committed/Moderation.forget_blocks",
    "store.committed/Comparisons.forget_proposed",
    "store.uncommitted/Claimed",
    "store.committed/Store.claim",
    "engine.pictures",
    "store.uncommitted/Begun",
    "store.committed/Begun",
    "engine.paying",
    "route.answered/call",
    "store.uncommitted/Accepted",
    "store.committed/Accepted",
    "discord.answered/PATCH messages",
    "engine.checked",
    "engine.checked_many",
    "store.uncommitted/Ready",
    "store.committed/Ready",
    "http.saved",
    "engine.fetched",
    "announcer.fitted",
    "discord.answered/POST messages",
    "store.uncommitted/Posted",
    "store.committed/Posted",
    "discord.answered/PUT reactions",
    "discord.answered/DELETE messages",
    "store.committed/Store._cards_gone",
    "engine.cleared",
    "engine.stopped",
    "store.committed/Store.release",
)
# Points that are reached only by whoever takes over from a worker that died earlier, and where that was.
AFTER = {
    "store.committed/Store.rescue": "engine.checked",
    "store.committed/Store.bury": "engine.checked",
    "engine.found": "discord.answered/POST messages",
    "engine.looked_up": "route.answered/call",
    "store.committed/Found": "route.answered/call",
}
# The gateway cannot be asked by our reference; Kling can, and for many tasks at once.
ONLY_ON = {
    "engine.checked": "makevid",
    "engine.looked_up": "kling",
    "engine.checked_many": "kling",
    "store.committed/Found": "kling",
}
AT_STOP = {"engine.stopped", "store.committed/Store.release"}
# Between the intent to pay and the commit of the answer nobody can tell, where the route (makevid) has no look-up.
IN_DOUBT = {"store.committed/Begun", "engine.paying", "route.answered/call", "store.uncommitted/Accepted"}
SKETCHED = ("sketch.kept", "engine.paying", "store.uncommitted/Accepted")
# Beside those and those of one route, where the two go apart.
ROUTES_DIFFER = {"store.committed/Store.rescue", "store.committed/Accepted"}
# Before anything is done for a clip; or one is the like of another, which `make test` has.
SELDOM = {
    *WORKED[:7],
    "store.committed/Begun",
    "store.committed/Store._cards_gone",
    "store.committed/Store.release",
    "store.committed/Store.bury",
    "store.committed/Found",
}


async def die_asking(site: Site, row: str) -> None:
    """Who asked has one clip, or a card that says that it was not begun; nothing is counted or reserved then."""
    await asking(site, row)
    [job] = await site.animatic.store.open_jobs()
    await recover(site, job, queued=row not in NEVER_QUEUED)
    if row in NEVER_QUEUED:
        cards = [message.shown for message in site.messages()]
        assert ["Cancelled" in card and "custom_id" not in card for card in cards] == [True] * (
            row != ASKED[0]
        )


async def die_working(site: Site, row: str) -> None:
    """One create, one post, balanced money; and a doubt only where nobody can tell."""
    job = await site.ask()
    second = next_machine(site)
    if row in AFTER:
        await killed(await site.start("first", fail_at=earlier(site, row)))
    if row in AT_STOP:
        site.provider.polls_until_done = 1
    dying = await site.start(second if row in AFTER else "first", fail_at=row)
    if row in AT_STOP:
        await site.ended(job, State.RENDERING)
        await site.stop("first", dying)
    await killed(dying)
    site.provider.polls_until_done = 0
    await recover(site, job, doubt=row in IN_DOUBT and site.route == "makevid")
    if row == SKETCHED[0] and second == "first":
        # What was asked for there is found, and not asked for again.
        assert (State.UNSURE, State.RENDERING) in await site.animatic.store.history(job.id)


def earlier(site: Site, row: str) -> str:
    many = site.route == "kling" and AFTER[row] == "engine.checked"
    return "engine.checked_many" if many else AFTER[row]


async def recover(site: Site, job: Job, *, doubt: bool = False, queued: bool = True) -> None:
    """Another process takes over; then what is left is looked at."""
    second = next_machine(site)
    recovering = await site.start(second)
    if not queued:
        assert await site.stop(second, recovering) == 0
        await much_later(site)
    # A doubt is an end only where nobody can be asked.
    job = await site.ended(job, *(set(State) - OPEN if site.route in ("kling", "sketch") else ()))
    if job.state is State.DELIVERED:  # the card goes too, however the process died
        await until(lambda: [message.id for message in site.messages()] == [job.post_id])
    if queued:
        assert await site.stop(second, recovering) == 0, site.logs()

    assert all(process.returncode is not None for process in site.processes)
    assert "Traceback" not in site.logs(), site.logs()
    await check(site, job, doubt=doubt, queued=queued)
    assert len(site.provider.creates) <= 1


async def sleep_and_wake(site: Site, what: str, row: str) -> None:
    """A process stands still at the point, another one takes over; then the first goes on as if nothing were."""
    job = await site.ask()
    await LIVES[what].arrange(site, job)
    if row in AFTER:
        await killed(await site.start("before", fail_at=earlier(site, row)))
    sleeping = await site.start("first", halt_at=row)
    await until(lambda: HALTED in site.logs())
    other = await site.start("second")
    sure = set(State) - OPEN
    doubted = site.route == "makevid" and row in IN_DOUBT
    await site.ended(job, *({State.UNSURE} if doubted else sure))
    await site.wake(sleeping)

    unpaid = doubted and row == "store.committed/Begun"  # and it does not pay any more: the doubt stays
    job = await site.ended(job, *({State.UNSURE} if unpaid else sure))
    assert [await site.stop("first", sleeping), await site.stop("second", other)] == [0, 0], site.logs()
    [job] = await site.animatic.store.many([job.id])
    assert len(site.provider.tasks) == (not unpaid)
    await check(site, job, doubt=unpaid)


async def much_later(site: Site) -> None:
    """Drafts that never got a card are called off after a quarter of an hour, a clip waits no longer for one that it
    is compared with."""
    at, site.stale = root.system_clock() + timedelta(minutes=50), 600  # nothing beats while it is at work
    async with root.build(load(site.config("parent")), now=lambda: at) as later:
        async with later.bot:
            later.bot.serves_commands = False
            await root.log_in(later.bot, TOKEN)
            await later.engine.run_due()
        await later.engine.hand_back()


# What else may become of a clip


async def refused(site: Site, _job: Job) -> None:
    site.provider.next_create = "1301" if site.route == "kling" else "moderated"


async def busy(site: Site, _job: Job) -> None:
    site.provider.next_create = "1302" if site.route == "kling" else "429"


async def lost(site: Site, _job: Job) -> None:
    site.provider.next_create = "reset_after"


async def not_taken(site: Site, _job: Job) -> None:
    site.provider.next_create = "reset_before"


async def broken(site: Site, _job: Job) -> None:
    site.provider.fail_with = "the clip could not be made"


async def link_gone(site: Site, _job: Job) -> None:
    site.provider.expire_links()


async def nothing(_site: Site, _job: Job) -> None:
    """All goes well."""


async def gone(site: Site, _job: Job) -> None:
    """It was made, and the provider has lost it before anybody could fetch it."""
    site.provider.expire_links()
    site.provider.fail_with = "deleted"


async def left_over(site: Site, _job: Job) -> None:
    """A download of another clip that came to nothing two hours ago."""
    (folder := site.folder / "first" / "clips").mkdir(parents=True)
    (part := folder / ".another.mp4.part").write_bytes(b"half")
    long_ago = root.system_clock().timestamp() - 7200
    os.utime(part, (long_ago, long_ago))


async def closed(site: Site, _job: Job) -> None:
    """The channel takes no posts; the asker does."""
    posting = f"/channels/{site.channel}/messages"
    site.discord.faults += [Fault("POST", posting, status=403, code=50013) for _ in range(2)]


async def closed_everywhere(site: Site, _job: Job) -> None:
    """Neither does its asker: once, for all rows that do this at the same time."""
    posting, private = f"/channels/{site.channel}/messages", "/users/@me/channels"
    site.discord.faults.append(Fault("POST", posting, status=403, code=50013))
    site.discord.faults.append(Fault("POST", private, status=403, code=50007))


async def results_channel_closed(site: Site, job: Job) -> None:
    """It was to be posted in another channel than where its card stands."""
    results = site.channel + 700_000
    there = {"channel_id": results, "card_channel_id": site.channel, "budget_channel_id": site.channel}

    async def work(connection: AsyncConnection) -> None:
        await connection.execute(update(jobs).where(jobs.c.id == job.id).values(**there))

    await site.animatic.store.writing(work)
    posting = f"/channels/{results}/messages"
    site.discord.faults += [Fault("POST", posting, status=403, code=50013) for _ in range(2)]


async def in_trouble(site: Site, cause: Cause, *, minutes: int = -1) -> None:
    """Its route is not asked since a while, and may be tried again after so many minutes; negative: now."""
    now = root.system_clock()
    since, until = now - timedelta(hours=1), now + timedelta(minutes=minutes)
    trouble = Trouble(cause=cause, since=since, until=until, told=True)
    await site.animatic.store.remember(f"trouble:{site.route}", trouble.to_json())


async def down(site: Site, _job: Job) -> None:
    await in_trouble(site, Cause.NO_ANSWER)


CHARGED = {"reserve": PRICE_CENTS, "charge": PRICE_CENTS}
GIVEN_BACK = {"reserve": PRICE_CENTS, "release": PRICE_CENTS}
RESERVED = {"reserve": PRICE_CENTS}
NOBODY_KNOWS = {"reserve": PRICE_CENTS, "doubt": PRICE_CENTS}  # these routes do not say what a failure costs


@dataclass(frozen=True, kw_only=True)
class Life:
    """What goes wrong with a clip, at which points a process dies then, and what becomes of it.

    `before`: where another one died earlier. `creates`: how often the route was asked; it took one of them, or none.
    """

    rows: tuple[str, ...]
    arrange: Callable[[Site, Job], Awaitable[None]]
    end: State = State.DELIVERED
    money: Mapping[str, int] = field(default_factory=lambda: CHARGED)
    creates: int = 1
    before: str = ""
    routes: tuple[str, ...] = ROUTES
    often: bool = False  # also in `make test`


LIVES = {
    "well": Life(rows=(), arrange=nothing),
    "taken over": Life(
        rows=("store.committed/Store.rescue",), arrange=nothing, before="store.committed/Store.claim"
    ),
    "taken over, paid": Life(
        rows=("store.committed/Store.rescue",),
        arrange=nothing,
        before="route.answered/call",
        end=State.UNSURE,
        money=RESERVED,
        routes=("makevid",),
    ),
    "gone": Life(
        rows=("store.committed/Broke",), arrange=gone, before="store.committed/Ready", end=State.FAILED
    ),
    "refused": Life(
        rows=("store.committed/Refused", "discord.answered/PATCH messages"),
        arrange=refused,
        end=State.FAILED,
        money=GIVEN_BACK,
        often=True,
    ),
    "broken": Life(rows=("store.committed/Broke",), arrange=broken, end=State.FAILED, money=NOBODY_KNOWS),
    "busy": Life(rows=("store.committed/Busy",), arrange=busy, creates=2),
    "lost": Life(
        rows=("store.committed/Lost",), arrange=lost, end=State.UNSURE, money=RESERVED, routes=("makevid",)
    ),
    "found": Life(rows=("store.committed/Lost", "store.committed/Found"), arrange=lost, routes=("kling",)),
    "not taken": Life(rows=("store.committed/Absent",), arrange=not_taken, creates=2, routes=("kling",)),
    "link gone": Life(rows=("store.committed/Ready",), arrange=link_gone, before="store.committed/Ready"),
    "sent back": Life(
        rows=("store.committed/Stumbled", "store.committed/SentBack"), arrange=results_channel_closed
    ),
    "private": Life(
        rows=("discord.answered/POST channels", "discord.answered/POST messages"),
        arrange=closed,
        often=True,
    ),
    "kept": Life(rows=("store.committed/CouldNotPost",), arrange=closed_everywhere, end=State.UNDELIVERABLE),
    "left over": Life(rows=("engine.file_cleared",), arrange=left_over),
    "down": Life(rows=("store.committed/Store.forget",), arrange=down),
}


async def die_in_a_life(site: Site, what: str, row: str) -> None:
    """Once made, at most, and once posted, or not at all; its money says so, and so does its card."""
    life, second = LIVES[what], next_machine(site)
    job = await site.ask()
    if life.before:
        await killed(await site.start("first", fail_at=life.before))
    await life.arrange(site, job)
    await killed(await site.start(second if life.before else "first", fail_at=row))

    recovering = await site.start(second)
    job = await site.ended(job, life.end)
    if job.state is State.DELIVERED:
        shown = [job.post_id] if job.posted_in == site.channel else []
        await until(lambda: [message.id for message in site.messages()] == shown)
    else:
        await until(lambda: f"job:{job.id}:cancel" not in site.messages()[0].shown)
    assert await site.stop(second, recovering) == 0, site.logs()
    assert "Traceback" not in site.logs(), site.logs()

    assert list(site.folder.glob("*/clips/.*")) == []  # no half of a download
    posts = [post.id for post in site.discord.posts() if f"{job.id}.mp4" in post.shown]
    assert posts == ([job.post_id] if job.state is State.DELIVERED else [])
    assert await site.animatic.store.money(job.id) == life.money
    assert len(site.provider.creates) == life.creates
    assert len(site.provider.tasks) == (what != "refused")
    await site.check_jobs()
    await check_moves(site, job)


PROBED = ("store.committed/Store.replace_note",)
REROUTED = ("store.committed/Rerouted",)


async def die_probing(site: Site, row: str) -> None:
    """A route is asked something free, in vain: it is left alone for longer. When it is well again, the clip is made."""
    job = await site.ask()
    key, site.provider.api_key = site.provider.api_key, "another"
    await in_trouble(site, Cause.BAD_KEY)
    await killed(await site.start("first", fail_at=row))
    assert site.provider.creates == []
    site.provider.api_key = key
    await in_trouble(site, Cause.BAD_KEY)
    await recover(site, job)


async def die_rerouting(site: Site, row: str) -> None:
    """What waits for a route in trouble goes the other way of its model, and is made there, once."""
    another = MakevidServer if site.route == "kling" else KlingServer
    async with another(clip=site.provider.clip, polls_until_done=0) as other:
        site.fallback = other
        job = await site.ask()
        await in_trouble(site, Cause.BAD_KEY, minutes=10)
        await killed(await site.start("first", fail_at=row))
        second = next_machine(site)
        recovering = await site.start(second)
        job = await site.ended(job, *(set(State) - OPEN))
        await until(lambda: [message.id for message in site.messages()] == [job.post_id])
        assert await site.stop(second, recovering) == 0, site.logs()
        assert "Traceback" not in site.logs(), site.logs()
        assert (site.provider.creates, len(other.creates)) == ([], 1)
        assert (job.state, await site.animatic.store.money(job.id)) == (State.DELIVERED, CHARGED)
        await site.check_jobs()
        await check_moves(site, job)


# Runway wants a large picture uploaded before the paid call: an address is asked for, and the picture goes there.
UPLOADED = ("route.answered/call", "route.answered/upload")


async def die_uploading(site: Site, row: str) -> None:
    """What is free leaves no doubt."""
    noise = Image.effect_noise((2400, 2400), 100).convert("RGB")
    noise.save(file := io.BytesIO(), "JPEG", quality=95)
    job = await animate(site.animatic, site.channel, attached=file.getvalue())
    await killed(await site.start("first", fail_at=row))
    assert site.provider.creates == []
    await recover(site, job)


# What people do with a clip by a click. Where it was not committed, they click again.
CLICKS = {
    "cancel": ("store.uncommitted/Cancelled", "store.committed/Cancelled"),
    "try_again": ("store.uncommitted/TriedAgain", "store.committed/Store.reserve_again"),
    "let_go": ("store.uncommitted/GaveUp", "store.committed/GaveUp"),
    "redeliver": ("store.uncommitted/Redelivered", "store.committed/Redelivered"),
}


async def die_at_a_click(site: Site, click: str, row: str) -> None:
    """Done wholly, or not at all: then the member clicks again."""
    store, second = site.animatic.store, next_machine(site)
    job = await site.ask()
    if click == "redeliver":  # neither the channel nor its asker takes the clip
        await closed_everywhere(site, job)
        working = await site.start("first")
        job = await site.ended(job, State.UNDELIVERABLE)
        assert await site.stop("first", working) == 0
    elif click != "cancel":
        if isinstance(site.provider, KlingServer):
            site.provider.silent = True  # else it would tell of the task, and leave no doubt
        await killed(await site.start("first", fail_at="route.answered/call"))
        working = await site.start(second)
        job = await site.ended(job, State.UNSURE)
        assert await site.stop(second, working) == 0

    await asking(site, row, click, job.id)
    if row.startswith("store.uncommitted/"):
        assert await store.get(job.id) == job
        await CLICKED[click](site.animatic, site.channel, job.id)
    if isinstance(site.provider, KlingServer):
        site.provider.silent = False

    recovering = await site.start(second)
    ended = await site.ended(job, *(set(State) - OPEN))
    shown = ended.post_id or ended.card_id
    await until(lambda: [message.id for message in site.messages()] == [shown])
    if ended.state is not State.DELIVERED:  # the card tells of it, whoever draws it
        await until(lambda: "custom_id" not in site.messages()[0].shown)
    assert await site.stop(second, recovering) == 0, site.logs()

    assert "Traceback" not in site.logs(), site.logs()
    state, money, creates = {
        "cancel": (State.CANCELLED, GIVEN_BACK, 0),
        "try_again": (
            State.DELIVERED,
            {"reserve": 2 * PRICE_CENTS, "doubt": PRICE_CENTS, "charge": PRICE_CENTS},
            2,
        ),
        "let_go": (State.FAILED, {"reserve": PRICE_CENTS, "doubt": PRICE_CENTS}, 1),
        "redeliver": (State.DELIVERED, CHARGED, 1),
    }[click]
    assert ended.state is state
    assert await store.money(job.id) == money
    assert len(site.provider.creates) == creates
    assert len(site.provider.tasks) == creates
    assert len(site.posts()) == (state is State.DELIVERED)
    await site.check_jobs()


ROWS = [
    *(
        Row(
            route,
            die_working,
            (row,),
            row not in SELDOM and (route == "makevid" or row in IN_DOUBT | ROUTES_DIFFER | ONLY_ON.keys()),
        )
        for route in ROUTES
        for row in (*WORKED, *AFTER)
        if ONLY_ON.get(row, route) == route
    ),
    *(one for row in ASKED for one in on_both(die_asking, row)),
    *(
        Row(route, die_in_a_life, (what, row), life.often and route == "makevid")
        for what, life in LIVES.items()
        if what != "kept"
        for route in life.routes
        for row in life.rows
    ),
    *(Row("runway", die_uploading, (row,), row == UPLOADED[-1]) for row in UPLOADED),
    # ComfyUI can be asked by our reference, wants every picture uploaded, and tells of one task at a time.
    *(Row("comfyui", die_working, (row,), usual=False) for row in (UPLOADED[-1], "engine.checked")),
    # What sketch was asked for lies in files of its machine; on another one it is asked once more.
    *(Row("sketch", die_working, (row,), row == SKETCHED[0]) for row in SKETCHED),
    *(one for row in PROBED for one in on_both(die_probing, row, usual=False)),
    *(one for row in REROUTED for one in on_both(die_rerouting, row, usual=False)),
]
CLICK_ROWS = [
    *(
        one
        for click, rows in CLICKS.items()
        for row in rows
        for one in on_both(
            die_at_a_click, click, row, usual=row.startswith("store.committed/") or click == "try_again"
        )
    ),
    *(one for row in LIVES["kept"].rows for one in on_both(die_in_a_life, "kept", row, usual=False)),
]
# A process that sleeps until others have taken its job over. Inside of a transaction only on PostgreSQL: SQLite has one writer.
ASLEEP = {"engine.pictures", "engine.paying", "announcer.fitted", "store.uncommitted/Accepted"}
SLEEPING_ROWS = [
    *(
        Row(one.route, sleep_and_wake, ("well", *one.where), one.route == "makevid" and one.point in ASLEEP)
        for one in ROWS
        if one.goes_on is die_working and one.point not in AT_STOP and one.point not in WORKED[:7]
    ),
    *on_both(sleep_and_wake, "private", "discord.answered/POST messages", usual=False),
]
