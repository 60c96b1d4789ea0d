"""What members decide about their pictures and their data. SQL, beside the store's."""

from collections.abc import Awaitable, Callable
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Column, ColumnElement, Integer, Select, bindparam, delete, func, insert, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.jobs.machine import IN_LINE, NOBODY, OPEN, Job
from bot.jobs.store import MOST_AT_ONCE, Store, job_of
from bot.jobs.tables import (
    IS_OPEN,
    blocks,
    comparison_votes,
    comparisons,
    consents,
    jobs,
    ledger,
    members,
    reports,
    reviews,
)

LIMITS_LOOK_BACK = timedelta(days=32)  # limits of a month count the ledger's rows by member
ERASED_AT_ONCE = 20

FORGOTTEN = {
    "asker_id": NOBODY,
    "prompt": "",
    "negative_prompt": None,
    "picture_file": None,
    "end_picture_file": None,
    "interaction_id": None,
    "parent_id": None,
    "card_id": None,
    "post_id": None,
    "post_channel_id": None,
    "card_channel_id": None,
    "picture_by": None,
    "comparison_id": None,
    "sealed": False,
    "reference": None,
    "provider_task": None,
    "clip_url": None,
}
# What stays without a name: reports lose their words too. Who is blocked stays so.
NAMELESS: dict[Column[int], dict[str, None]] = {
    reports.c.reporter_id: {"words": None},
    reviews.c.decided_by: {},
    blocks.c.by: {},
}


class Members:
    """Consent and forgetting. Every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def withholds_pictures(self, member_id: int) -> bool:
        """Whether others may not animate what this member posted."""
        withheld = members.c.pictures_withheld_at.is_not(None)
        query = select(members.c.id).where(members.c.id == member_id, withheld)
        async with self._store.reading() as connection:
            return (await connection.execute(query)).first() is not None

    async def withhold_pictures(self, member_id: int, since: datetime | None) -> None:
        """From now on nobody else may animate this member's pictures; None: everybody may."""
        await self._store.writing(_setting(member_id, pictures_withheld_at=since))

    async def allow(self, guild_id: int, owner_id: int, asker_id: int, until: datetime) -> None:
        """Let this asker use the owner's pictures in a server that wants owners asked."""
        those = _consent(guild_id, owner_id, asker_id)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(consents).where(those))
            await connection.execute(
                insert(consents).values(guild_id=guild_id, owner_id=owner_id, asker_id=asker_id, until=until)
            )

        await self._store.writing(work)

    async def allows(self, guild_id: int, owner_id: int, asker_id: int, now: datetime) -> bool:
        """Whether the owner has lately let this asker use their pictures there."""
        query = select(consents.c.until).where(_consent(guild_id, owner_id, asker_id), consents.c.until > now)
        async with self._store.reading() as connection:
            return (await connection.execute(query)).first() is not None

    async def forget_consents(self, now: datetime) -> None:
        """Delete those that have ended."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(consents).where(consents.c.until <= now))

        await self._store.writing(work)

    async def forget(self, member_id: int, now: datetime, *, posts: bool) -> None:
        """Note that this member's name and words are to be taken off all their jobs made until now.

        Those under way first come to their end. `posts`: their clips are to be deleted from the channels too.
        """
        note = _setting(member_id, forget_before=now, forget_posts=posts)
        withholds = select(members.c.id).where(members.c.pictures_withheld_at.is_not(None))
        # Whose picture others' clips were made from is known on only where it must be, to respect a wish.
        theirs = update(jobs).where(jobs.c.picture_by == member_id, jobs.c.state.not_in(OPEN))

        consent = (consents.c.owner_id == member_id) | (consents.c.asker_id == member_id)

        # What was only asked has words in it; the rest goes with its clips.
        asked = (comparisons.c.asker_id == member_id) & comparisons.c.asked.is_not(None)

        async def work(connection: AsyncConnection) -> None:
            await note(connection)
            await connection.execute(delete(consents).where(consent))
            for column, nameless in NAMELESS.items():
                await connection.execute(
                    update(column.table).where(column == member_id).values(**{column.name: NOBODY} | nameless)
                )
            await connection.execute(
                delete(comparison_votes).where(comparison_votes.c.member_id == member_id)
            )
            await connection.execute(delete(comparisons).where(asked))
            await connection.execute(
                theirs.where(jobs.c.picture_by.not_in(withholds)).values(picture_by=None)
            )

        await self._store.writing(work)

    async def waiting_of(self, member_id: int) -> list[Job]:
        """This member's jobs, in all servers, that can still be cancelled."""
        query = select(jobs).where(IS_OPEN, jobs.c.asker_id == member_id, jobs.c.state.in_(IN_LINE))
        async with self._store.reading() as connection:
            return [job_of(row) for row in await connection.execute(query)]

    async def under_way(self, member_id: int) -> int:
        """How many of this member's jobs have not ended."""
        query = select(func.count()).where(jobs.c.asker_id == member_id, jobs.c.state.in_(OPEN))
        async with self._store.reading() as connection:
            return (await connection.execute(query)).scalar_one()

    async def to_forget(self, *, limit: int = ERASED_AT_ONCE) -> list[tuple[Job, bool]]:
        """Ended jobs that are to be forgotten, and whether their posts are to go too."""
        async with self._store.reading() as connection:
            rows = await connection.execute(_to_forget(), {"most": limit})
            return [(job_of(row), row.forget_posts) for row in rows]

    async def forgotten(self, job: Job) -> None:
        """Take the name and the words off an ended job; what it cost stays, without a name."""
        nameless = update(jobs).where(jobs.c.id == job.id, jobs.c.state.not_in(OPEN))

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(nameless.values(**FORGOTTEN, version=jobs.c.version + 1))
            await _forget_comparison(connection, job)

        await self._store.writing(work)

    async def forget_costs(self, now: datetime) -> None:
        """Take the names of members who asked for it off costs so old that no limit counts them."""
        old = now - LIMITS_LOOK_BACK

        async def work(connection: AsyncConnection) -> None:
            due = select(members.c.id, members.c.forget_before).where(members.c.forget_before.is_not(None))
            for member_id, before in (await connection.execute(due.limit(MOST_AT_ONCE))).all():
                theirs = select(jobs.c.id).where(jobs.c.asker_id == member_id)
                costs = (ledger.c.asker_id == member_id) & ledger.c.job_id.not_in(theirs)
                # All of a job's rows at once: each member's sums stay right.
                young = select(ledger.c.job_id).where(ledger.c.asker_id == member_id, ledger.c.at > old)
                nameless = update(ledger).where(costs, ledger.c.job_id.not_in(young))
                await connection.execute(nameless.values(asker_id=NOBODY))
                left = select(ledger.c.id).where(costs).limit(1)
                waiting = theirs.where(jobs.c.created_at <= before).limit(1)
                if not any([(await connection.execute(query)).first() for query in (left, waiting)]):
                    done = update(members).where(members.c.id == member_id)
                    await connection.execute(done.values(forget_before=None, forget_posts=False))
                    await connection.execute(delete(members).where(_without_wishes(member_id)))

        await self._store.writing(work)


@cache
def _to_forget() -> Select[Any]:
    """As `Members.to_forget`, `most` of them."""
    who = select(members.c.id).where(members.c.forget_before.is_not(None))
    return (
        select(jobs, members.c.forget_posts)
        .join(members, members.c.id == jobs.c.asker_id)
        .where(jobs.c.asker_id.in_(who))  # follows from the next, and makes SQLite begin with these few
        .where(jobs.c.created_at <= members.c.forget_before, jobs.c.state.not_in(OPEN))
        .order_by(jobs.c.created_at)
        .limit(bindparam("most", type_=Integer()))
    )


async def _forget_comparison(connection: AsyncConnection, job: Job) -> None:
    """Of a forgotten clip: what others said of it counts on, without a name, if they know the result; else it goes."""
    this = comparisons.c.id == job.comparison_id
    shown = update(comparisons).where(this, comparisons.c.revealed_at.is_not(None))
    if (await connection.execute(shown.values(asker_id=NOBODY, post_id=None))).rowcount:
        return
    votes = comparison_votes.c.comparison_id == job.comparison_id
    await connection.execute(delete(comparison_votes).where(votes))
    await connection.execute(delete(comparisons).where(this))


def _consent(guild_id: int, owner_id: int, asker_id: int) -> ColumnElement[bool]:
    return (
        (consents.c.guild_id == guild_id)
        & (consents.c.owner_id == owner_id)
        & (consents.c.asker_id == asker_id)
    )


def _setting(member_id: int, **values: object) -> Callable[[AsyncConnection], Awaitable[None]]:
    async def work(connection: AsyncConnection) -> None:
        known = await connection.execute(update(members).where(members.c.id == member_id).values(**values))
        if not known.rowcount:
            await connection.execute(
                insert(members).values(**{"id": member_id, "forget_posts": False} | values)
            )
        await connection.execute(delete(members).where(_without_wishes(member_id)))

    return work


def _without_wishes(member_id: int) -> ColumnElement[bool]:
    withholds, forgets = members.c.pictures_withheld_at, members.c.forget_before
    return (members.c.id == member_id) & withholds.is_(None) & forgets.is_(None)
