"""Two clips of the same words and picture, posted in one message and voted on. SQL, beside the store's.

A comparison is two jobs that are paid and made like any other. When both clips are there, the job labelled A posts
both in one message, and B is delivered by it. Before that message is sent, `begin` notes that it may be there,
so that none of the two goes its own way meanwhile; after it, `posted` notes that it is. Where the two do not
come together, the comparison is spoiled: each clip is posted by itself, and its model told.

    proposed ──start──► making ──begin──► posting ──posted──► voted on ──reveal──► result ──► done
                           └───────spoil─────┴──────────────────────────────────────────────► done
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, fields
from datetime import datetime, timedelta
from enum import Enum, StrEnum, auto
from functools import cache
from typing import Any

from sqlalchemy import ColumnElement, Select, bindparam, case, delete, func, insert, or_, select, update
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.jobs.budgets import Budget
from bot.jobs.machine import OPEN, Job, State
from bot.jobs.store import Store, job_of
from bot.jobs.tables import IS_UNFINISHED, Utc, comparison_votes, comparisons, jobs
from bot.jobs.tally import Load

PROPOSED_FOR = timedelta(hours=1)  # an unanswered question, with its prompt, is kept
TOGETHER_WITHIN = timedelta(minutes=45)  # the first clip waits so long for the second
VOTING = timedelta(hours=24)
DRAWN_WITHIN = timedelta(days=1)  # so long the result is tried to be drawn
MOST_AT_ONCE = 20
MOST_EXPORTED = 5000


class Choice(StrEnum):
    """What a member says: which clip is better, or neither."""

    A = "a"
    B = "b"
    SAME = "same"


@dataclass(frozen=True, slots=True, kw_only=True)
class Comparison:
    """One row of `comparisons`. `asked` is the request as JSON until it is started; then `a_id` and `b_id` are its
    jobs, in the order of their labels."""

    id: str
    guild_id: int
    channel_id: int
    asker_id: int
    created_at: datetime
    asked: str | None = None
    a_id: str | None = None
    b_id: str | None = None
    together_at: datetime | None = None
    post_id: int | None = None
    closes_at: datetime | None = None
    spoiled_at: datetime | None = None
    revealed_at: datetime | None = None
    done_at: datetime | None = None


class Step(Enum):
    """What a job with a finished clip does about the clip that it is compared with."""

    JOIN = auto()  # both are posted
    WAIT = auto()
    POST_BOTH = auto()
    ALONE = auto()


@dataclass(frozen=True, slots=True, kw_only=True)
class Pair:
    """A job whose clip is ready, its comparison, and the other job of it; None where that is not known any more."""

    job: Job
    comparison: Comparison
    other: Job | None

    @property
    def posts(self) -> bool:
        """Whether this job is the one that posts both clips."""
        return self.job.id == self.comparison.a_id

    @property
    def other_gone(self) -> bool:
        """The other clip will not come, or goes its own way."""
        other = self.other
        return other is None or other.state not in OPEN or other.redelivered_at is not None

    def step(self, now: datetime) -> Step:
        comparison, job = self.comparison, self.job
        if comparison.post_id is not None:
            return Step.JOIN
        if comparison.spoiled_at or job.redelivered_at or self.other_gone:
            return Step.ALONE
        assert self.other is not None
        if self.other.state is State.POSTING:  # also long after, when all processes were away meanwhile
            if self.posts:
                return Step.POST_BOTH
            # It stumbles over its own clip for that long: this one is at hand, and goes its way unless their post was begun.
            stuck = self.late(now) and self.other.stumbles and comparison.together_at is None
            return Step.ALONE if stuck else Step.WAIT
        return Step.ALONE if self.late(now) else Step.WAIT

    def late(self, now: datetime) -> bool:
        """The other clip has been waited for long enough, since this one or, last, both were at hand."""
        since = self.comparison.together_at or self.job.postable_since
        return since is not None and now - since > TOGETHER_WITHIN


@dataclass(frozen=True, slots=True, kw_only=True)
class Duel:
    """How members of a server voted between two models: `wins` of the first and of the second, and neither."""

    models: tuple[str, str]
    comparisons: int
    wins: tuple[int, int]
    same: int


class Comparisons:
    """Every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def propose(self, comparison: Comparison) -> None:
        """Keep a request until its asker has seen the prices and said yes."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(insert(comparisons).values(**_row(comparison)))

        await self._store.writing(work)

    async def start(
        self,
        comparison: Comparison,
        a: Job,
        b: Job,
        admit: Callable[[Job, Load], None],
        budgets: Collection[Budget],
    ) -> None:
        """Write both jobs, or neither. Raises AlreadyThere when it was started before, or is not known any more."""
        mine = (comparisons.c.id == comparison.id) & comparisons.c.asked.is_not(None)

        async def first(connection: AsyncConnection) -> bool:
            started = update(comparisons).where(mine).values(asked=None, a_id=a.id, b_id=b.id)
            return bool((await connection.execute(started)).rowcount)

        await self._store.add_together([a, b], admit, budgets, first)

    async def get(self, comparison_id: str) -> Comparison | None:
        async with self._store.reading() as connection:
            return await _find(connection, comparison_id)

    async def pair(self, job: Job) -> Pair | None:
        """The job with the other one of its comparison; None when it is in none that is known."""
        async with self._store.reading() as connection:
            comparison = await _find(connection, job.comparison_id or "")
            if comparison is None:
                return None
            other_id = comparison.b_id if job.id == comparison.a_id else comparison.a_id
            row = (await connection.execute(select(jobs).where(jobs.c.id == other_id))).first()
            return Pair(job=job, comparison=comparison, other=job_of(row) if row else None)

    async def begin(self, comparison_id: str, now: datetime) -> bool:
        """Both clips are about to be posted in one message. False: they are not to be any more."""
        return await self._change(comparison_id, comparisons.c.spoiled_at.is_(None), together_at=now)

    async def posted(self, comparison_id: str, post_id: int, closes_at: datetime) -> bool:
        """Both clips are in this message. The first to say so is believed."""
        return await self._change(
            comparison_id, comparisons.c.post_id.is_(None), post_id=post_id, closes_at=closes_at
        )

    async def spoil(self, comparison_id: str, now: datetime, *, begun: bool) -> bool:
        """The two clips go their own ways, and their models are no secret. False: they are posted together.

        Without `begun`, not once their post was begun either.
        """
        allowed: ColumnElement[bool] = comparisons.c.post_id.is_(None)
        if not begun:
            allowed &= comparisons.c.together_at.is_(None)

        async def work(connection: AsyncConnection) -> bool:
            return await _spoil(connection, comparison_id, allowed, now)

        return await self._store.writing(work)

    async def spoil_ended(self, now: datetime) -> None:
        """Spoil those whose jobs have both ended without a post."""
        async with self._store.reading() as connection:
            found = (await connection.execute(_ended())).scalars().all()
        for comparison_id in found:
            await self.spoil(comparison_id, now, begun=True)

    async def forget_proposed(self, now: datetime) -> None:
        """Delete what was asked and never started."""
        old = comparisons.c.asked.is_not(None) & (comparisons.c.created_at <= now - PROPOSED_FOR)

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(comparisons).where(IS_UNFINISHED, old))

        await self._store.writing(work)

    async def vote(self, comparison_id: str, member_id: int, choice: Choice, now: datetime) -> bool:
        """Note a member's vote, or change it. False: the result is shown already, or there is no such post."""
        mine = (comparison_votes.c.comparison_id == comparison_id) & (
            comparison_votes.c.member_id == member_id
        )
        voted_on = select(comparisons.c.id).where(
            comparisons.c.id == comparison_id,
            comparisons.c.post_id.is_not(None),
            comparisons.c.revealed_at.is_(None),
        )

        async def work(connection: AsyncConnection) -> bool:
            # The row is held: a vote is there before the result, or not at all; of two presses one comes after.
            if (await connection.execute(voted_on.with_for_update())).first() is None:
                return False
            values = {"choice": choice, "voted_at": now}
            if not (await connection.execute(update(comparison_votes).where(mine).values(**values))).rowcount:
                row = {"comparison_id": comparison_id, "member_id": member_id} | values
                await connection.execute(insert(comparison_votes).values(**row))
            return True

        return await self._store.writing(work)

    async def votes(self, comparison_id: str) -> Mapping[Choice, int]:
        """How many members said what."""
        query = (
            select(comparison_votes.c.choice, func.count())
            .where(comparison_votes.c.comparison_id == comparison_id)
            .group_by(comparison_votes.c.choice)
        )
        async with self._store.reading() as connection:
            found = {Choice(choice): count for choice, count in await connection.execute(query)}
        return {choice: found.get(choice, 0) for choice in Choice}

    async def reveal(self, comparison_id: str, now: datetime) -> bool:
        """No more votes; the models are no secret any more. False: so it was already, or there is no post."""
        hidden = comparisons.c.post_id.is_not(None) & comparisons.c.revealed_at.is_(None)

        async def work(connection: AsyncConnection) -> bool:
            this = update(comparisons).where(comparisons.c.id == comparison_id, hidden)
            if not (await connection.execute(this.values(revealed_at=now))).rowcount:
                return False
            await _unseal(connection, comparison_id)
            return True

        return await self._store.writing(work)

    async def due(self, now: datetime) -> list[Comparison]:
        """Posted ones whose result is to be shown, or is not drawn yet."""
        async with self._store.reading() as connection:
            rows = await connection.execute(_due(), {"now": now})
            return [Comparison(**row) for row in rows.mappings()]

    async def done(self, comparison_id: str, now: datetime) -> None:
        """Nothing is left to do about it."""
        await self._change(comparison_id, comparisons.c.done_at.is_(None), done_at=now)

    async def jobs_of(self, comparison: Comparison) -> tuple[Job, Job] | None:
        """Its jobs in the order of their labels."""
        found = {
            job.id: job for job in await self._store.many([comparison.a_id or "", comparison.b_id or ""])
        }
        if comparison.a_id not in found or comparison.b_id not in found:
            return None
        return found[comparison.a_id], found[comparison.b_id]

    async def duels(self, guild_id: int) -> list[Duel]:
        """The votes of a server's comparisons whose result is shown, by the models compared."""
        a, b = jobs.alias(), jobs.alias()
        counts = (
            func.coalesce(func.sum(case((comparison_votes.c.choice == choice, 1), else_=0)), 0)
            for choice in Choice
        )
        query = (
            select(a.c.model, b.c.model, func.count(comparisons.c.id.distinct()), *counts)
            .select_from(comparisons)
            .join(a, a.c.id == comparisons.c.a_id)
            .join(b, b.c.id == comparisons.c.b_id)
            .join(comparison_votes, comparison_votes.c.comparison_id == comparisons.c.id)
            .where(comparisons.c.guild_id == guild_id, comparisons.c.revealed_at.is_not(None))
            .group_by(a.c.model, b.c.model)
            .order_by(a.c.model, b.c.model)
        )
        async with self._store.reading() as connection:
            return [
                Duel(models=(first, second), comparisons=number, wins=(int(one), int(two)), same=int(same))
                for first, second, number, one, two, same in await connection.execute(query)
            ]

    async def votes_of(self, member_id: int) -> list[dict[str, object]]:
        """What a member voted, the newest first; at most MOST_EXPORTED."""
        query = select(
            comparison_votes.c.comparison_id, comparison_votes.c.choice, comparison_votes.c.voted_at
        ).where(comparison_votes.c.member_id == member_id)
        async with self._store.reading() as connection:
            rows = await connection.execute(
                query.order_by(comparison_votes.c.voted_at.desc()).limit(MOST_EXPORTED)
            )
            return [dict(row) for row in rows.mappings()]

    async def _change(self, comparison_id: str, condition: ColumnElement[bool], **values: object) -> bool:
        this = update(comparisons).where(comparisons.c.id == comparison_id, condition)

        async def work(connection: AsyncConnection) -> bool:
            return bool((await connection.execute(this.values(**values))).rowcount)

        return await self._store.writing(work)


@cache
def _ended() -> Select[Any]:
    """The ids of those whose jobs have both ended without a post."""
    open_jobs = select(jobs.c.id).where(
        or_(jobs.c.id == comparisons.c.a_id, jobs.c.id == comparisons.c.b_id), jobs.c.state.in_(OPEN)
    )
    ended = select(comparisons.c.id).where(
        IS_UNFINISHED,
        comparisons.c.a_id.is_not(None),
        comparisons.c.post_id.is_(None),
        ~open_jobs.correlate(comparisons).exists(),
    )
    return ended.limit(MOST_AT_ONCE)


@cache
def _due() -> Select[Any]:
    """Posted ones whose result is to be shown `now`, or is not drawn yet."""
    closed = comparisons.c.closes_at <= bindparam("now", type_=Utc())
    query = select(comparisons).where(
        IS_UNFINISHED,
        comparisons.c.post_id.is_not(None),
        or_(comparisons.c.revealed_at.is_not(None), closed),
    )
    return query.order_by(comparisons.c.created_at).limit(MOST_AT_ONCE)


async def _find(connection: AsyncConnection, comparison_id: str) -> Comparison | None:
    query = select(comparisons).where(comparisons.c.id == comparison_id)
    row = (await connection.execute(query)).mappings().first()
    return Comparison(**row) if row else None


async def _spoil(
    connection: AsyncConnection, comparison_id: str, allowed: ColumnElement[bool], now: datetime
) -> bool:
    this = update(comparisons).where(comparisons.c.id == comparison_id, allowed)
    if not (await connection.execute(this.values(spoiled_at=now, done_at=now))).rowcount:
        return False
    await _unseal(connection, comparison_id)
    return True


async def _unseal(connection: AsyncConnection, comparison_id: str) -> None:
    """Not a move of the jobs: whoever works on them meanwhile is not held up, and writes other columns."""
    ids = select(comparisons.c.a_id, comparisons.c.b_id).where(comparisons.c.id == comparison_id)
    both = tuple((await connection.execute(ids)).one())
    await connection.execute(update(jobs).where(jobs.c.id.in_(both)).values(sealed=False))


def _row(comparison: Comparison) -> dict[str, object]:
    return {field.name: getattr(comparison, field.name) for field in fields(comparison)}
