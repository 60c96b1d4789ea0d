"""Two clips that belong together, from the request to the result of their vote."""

from sqlalchemy import update
from sqlalchemy.ext.asyncio import AsyncConnection

from bot import __main__ as root
from bot.jobs.comparisons import Comparison, Comparisons
from bot.jobs.machine import OPEN, Job, State
from bot.jobs.tables import comparisons
from tests.asking import compare
from tests.forked import Forked
from tests.matrix import ROUTES, Row, asking, check_moves, deliver, killed, next_machine
from tests.matrix.lives import much_later
from tests.processes import PRICE_CENTS, Site, until, until_async
from tests.servers.discord import Fault
from tests.servers.kling import KlingServer

# Points that only a comparison comes to, and others where it goes another way than a clip by itself, by what becomes of it:
# never queued; both clips in one post, also where each of two machines has one of them, the provider neither any more, or one
# is found there after a doubt; each in its own, since Discord refuses the one for both; one alone, as the provider refuses the
# other or nobody knows whether it took it; its result shown.
BEGUN, NOTED = "store.committed/Comparisons._change", "store.committed/Comparisons._change:2"
ASKED = {
    "never queued": (
        "store.committed/Store.add_together",
        "discord.answered/POST messages",
        "discord.answered/POST messages:2",
    ),
    "together": ("store.committed/CardPosted:2",),
}
WORKED = {
    "together": (
        "engine.other_fetched",
        BEGUN,
        "announcer.fitted",
        "discord.answered/POST messages",
        NOTED,
        "store.committed/Posted",
        "store.committed/Posted:2",
        "discord.answered/DELETE messages",
    ),
    "two machines": (BEGUN, "discord.answered/POST messages", NOTED, "store.committed/Store.pass_on"),
    "clips gone": ("discord.answered/POST messages",),
    "one found": ("route.answered/call:2",),
    "apart": (
        "store.committed/Comparisons.spoil",
        "discord.answered/POST messages",
        "store.committed/Posted",
    ),
    "one refused": ("store.committed/Comparisons.spoil",),
    "one in doubt": ("route.answered/call:2",),
    "result": (
        "store.committed/Comparisons.reveal",
        "discord.answered/PATCH messages",
        "store.committed/Comparisons._change",
    ),
}
SELDOM = {
    ("together", "announcer.fitted"),
    ("together", "store.committed/Posted:2"),
    ("together", "discord.answered/DELETE messages"),
    *(("two machines", row) for row in WORKED["two machines"]),  # half a minute each, most of it waiting
    ("apart", "discord.answered/POST messages"),
}
IN_ONE_POST = {"together", "two machines", "clips gone", "one found", "result"}
ALONE = {"one refused": State.FAILED, "one in doubt": State.UNSURE}  # what becomes of the other
ONLY_FOUND = "one found"  # the gateway cannot be asked; all other ends are alike on both routes


async def die_in_a_comparison(site: Site, end: str, row: str) -> None:
    """Two creates, and one post with both clips or one each."""
    store = site.animatic.store
    second = "third" if end == "two machines" else next_machine(site)
    if row in ASKED.get(end, ()):
        await asking(site, row, "compare")
        jobs = await store.open_jobs()
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
            await killed(await on_two_machines(site, jobs, row))
        else:
            await killed(await site.start("first", fail_at=row))
    assert len(jobs) == 2
    if end == "clips gone":
        site.provider.expire_links()
        if isinstance(site.provider, KlingServer):
            site.provider.forgets = True
        else:
            site.provider.fail_with = "deleted"

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
        shown = {job.post_id or job.card_id for job in ended}
        await until(lambda: {message.id for message in site.messages()} == shown)
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
    posts = [post.shown for post in site.posts()]
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
        await check_moves(site, job)
        assert job.sealed == (end in IN_ONE_POST - {"result"})
        settled = {State.DELIVERED: {"charge": PRICE_CENTS}, State.UNSURE: {}}
        expected = settled.get(job.state, {"release": PRICE_CENTS})
        assert await store.money(job.id) == {"reserve": PRICE_CENTS, **expected}
        posts = [post for post in site.posts() if f"{job.id}.mp4" in post.shown]
        assert [post.id for post in posts] == ([job.post_id] if job.state is State.DELIVERED else [])
    together = end in IN_ONE_POST
    assert (comparison.post_id is not None) == (comparison.closes_at is not None) == together
    assert (comparison.spoiled_at is not None) == (not together)
    assert (comparison.revealed_at is not None) == (end == "result")


ROWS = [
    Row(
        route,
        die_in_a_comparison,
        (end, row),
        (end, row) not in SELDOM and (route == "kling") == (end == ONLY_FOUND),
    )
    for route in ROUTES
    for ends in (ASKED, WORKED)
    for end, rows in ends.items()
    if route == "kling" or end != ONLY_FOUND
    for row in rows
]
