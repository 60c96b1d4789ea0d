"""Who may not have clips made, and what was reported. SQL, beside the store's."""

from collections import Counter
from collections.abc import Awaitable, Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from functools import cache
from typing import Any, TypeVar

from sqlalchemy import (
    BindParameter,
    ColumnElement,
    Select,
    bindparam,
    delete,
    func,
    insert,
    or_,
    select,
    update,
)
from sqlalchemy.exc import IntegrityError
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.jobs.machine import IN_LINE, NOBODY, OPEN, Job
from bot.jobs.store import MOST_AT_ONCE, Store, job_of
from bot.jobs.tables import (
    EVERYWHERE,
    IS_OPEN,
    IS_POST_LEFT,
    Utc,
    among,
    blocks,
    guilds,
    jobs,
    reports,
    reviews,
)
from bot.jobs.together import Together

COMMENTS_SHOWN = 5
ATTEMPTS = 3
KEEPS_TRYING = timedelta(days=7)  # to delete a post that was decided to go

T = TypeVar("T")


@dataclass(frozen=True, slots=True, kw_only=True)
class Block:
    """Somebody may not have clips made in a server (`guild_id` None: in all), `until` then or until unblocked."""

    guild_id: int | None
    member_id: int
    reason: str | None
    until: datetime | None
    by: int
    at: datetime


class Verdict(StrEnum):
    """What became of a review."""

    OPEN = "open"
    KEPT = "kept"
    REMOVED = "removed"


@dataclass(frozen=True, slots=True, kw_only=True)
class Review:
    """A clip that was reported. `post_id` and `channel_id` say where its post was then; `shown_in` and `shown_as` name
    the channel and the message in which moderators read of it, where they could be told.

    `reasons` counts the reports by reason, `words` are the latest that reporters wrote. Who reported is not in it.
    """

    job_id: str
    guild_id: int
    state: Verdict
    post_id: int
    channel_id: int
    shown_in: int | None
    shown_as: int | None
    decided_by: int | None
    decided_at: datetime | None
    cleared_at: datetime | None
    reasons: Mapping[str, int]
    words: tuple[str, ...]

    @property
    def reporters(self) -> int:
        return sum(self.reasons.values())


class Moderation:
    """Blocks, reports and reviews. Every method is one transaction."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._blocks = Together(self._blocks_of, most=MOST_AT_ONCE)

    # Blocks

    async def block(self, block: Block) -> None:
        """From now on, instead of any block of this member there before."""

        async def work(connection: AsyncConnection) -> None:
            await _put_block(connection, block)

        await self._writing(work)

    async def unblock(self, guild_id: int | None, member_id: int, now: datetime) -> bool:
        """Whether they were blocked there."""

        async def work(connection: AsyncConnection) -> bool:
            those = _blocked(guild_id, member_id)
            held = (await connection.execute(select(blocks.c.at).where(those, _holds(now)))).first()
            await connection.execute(delete(blocks).where(those))
            return held is not None

        return await self._writing(work)

    async def block_of(self, guild_id: int | None, member_id: int, now: datetime) -> Block | None:
        """What keeps a member from having clips made in a server: the owner's block goes before the moderators'."""
        return await self._blocks.ask((guild_id or EVERYWHERE, member_id, now))

    async def _blocks_of(self, asked: Sequence[tuple[int, int, datetime]]) -> list[Block | None]:
        """For all who ask at the same moment, in one look."""
        places = {EVERYWHERE} | {guild_id for guild_id, _, _ in asked}
        several = {"places": sorted(places), "members": sorted({member_id for _, member_id, _ in asked})}
        async with self._store.reading() as connection:
            rows = (await connection.execute(_those_of(), several)).mappings().all()
        found = {(row["guild_id"], row["member_id"]): _block_of(row) for row in rows}
        return [
            next(
                (
                    block
                    for place in (EVERYWHERE, guild_id)
                    if (block := found.get((place, member_id))) and (block.until is None or block.until > now)
                ),
                None,
            )
            for guild_id, member_id, now in asked
        ]

    async def blocks_in(
        self, guild_id: int | None, now: datetime, *, skip: int, limit: int
    ) -> tuple[list[Block], int]:
        """Those of a server (None: those for all servers), the newest first, and how many there are."""
        those = (blocks.c.guild_id == (guild_id or EVERYWHERE)) & _holds(now)
        page = select(blocks).where(those).order_by(blocks.c.at.desc(), blocks.c.member_id)
        async with self._store.reading() as connection:
            count = (await connection.execute(select(func.count()).where(those))).scalar_one()
            rows = await connection.execute(page.offset(skip).limit(limit))
            return [_block_of(row) for row in rows.mappings()], count

    async def forget_blocks(self, now: datetime) -> None:
        """Delete those that have ended."""

        async def work(connection: AsyncConnection) -> None:
            await connection.execute(delete(blocks).where(blocks.c.until <= now))

        await self._writing(work)

    async def open_of(self, member_id: int, guild_id: int | None) -> list[Job]:
        """A member's jobs in a server (None: in all) that have not ended."""
        query = select(jobs).where(jobs.c.asker_id == member_id, jobs.c.state.in_(OPEN))
        if guild_id is not None:
            query = query.where(jobs.c.guild_id == guild_id)
        async with self._store.reading() as connection:
            return [job_of(row) for row in await connection.execute(query)]

    # Reports

    async def report(self, job: Job, reporter_id: int, reason: str, words: str | None, now: datetime) -> None:
        """Write down what a member says of a posted clip: each once, and nothing where it was decided already."""

        async def work(connection: AsyncConnection) -> None:
            here = reviews.c.job_id == job.id
            state = select(reviews.c.state).where(here).with_for_update()
            found = (await connection.execute(state)).scalar_one_or_none()
            if found is None:
                opened = {"job_id": job.id, "guild_id": job.guild_id, "state": Verdict.OPEN, "opened_at": now}
                place = {"post_id": job.post_id, "channel_id": job.posted_in}
                await connection.execute(insert(reviews).values(**opened, **place))
            elif found != Verdict.OPEN or (await connection.execute(_said(job.id, reporter_id))).first():
                return
            said = {"job_id": job.id, "guild_id": job.guild_id, "reporter_id": reporter_id, "at": now}
            await connection.execute(insert(reports).values(**said, reason=reason, words=words))

        await self._writing(work)

    async def has_reported(self, job_id: str, member_id: int) -> bool:
        async with self._store.reading() as connection:
            return (await connection.execute(_said(job_id, member_id))).first() is not None

    async def reports_since(self, member_id: int, since: datetime) -> int:
        """How many a member has made."""
        query = select(func.count()).where(reports.c.reporter_id == member_id, reports.c.at > since)
        async with self._store.reading() as connection:
            return (await connection.execute(query)).scalar_one()

    async def review(self, job_id: str) -> Review | None:
        """The review of a clip, when it was reported."""
        said = select(reports.c.reason, reports.c.words).where(reports.c.job_id == job_id)
        async with self._store.reading() as connection:
            query = select(reviews).where(reviews.c.job_id == job_id)
            row = (await connection.execute(query)).mappings().first()
            if row is None:
                return None
            all_said = (await connection.execute(said.order_by(reports.c.id.desc()))).all()
        values = {name: value for name, value in row.items() if name != "opened_at"}
        values["state"] = Verdict(values["state"])
        return Review(
            **values,
            reasons=Counter(reason for reason, _ in all_said),
            words=tuple(words for _, words in all_said if words)[:COMMENTS_SHOWN],
        )

    async def shown(self, job_id: str, channel_id: int, message_id: int) -> None:
        """Moderators can read of this review there."""
        values = {"shown_in": channel_id, "shown_as": message_id}
        await self._update(reviews.c.job_id == job_id, **values)

    async def decide(
        self, job_id: str, verdict: Verdict, by: int, now: datetime, block: Block | None = None
    ) -> bool:
        """Whether this decided it, and blocked whom it was to block: of two moderators, the first does."""
        undecided = update(reviews).where(reviews.c.job_id == job_id, reviews.c.state == Verdict.OPEN)
        decided = undecided.values(state=verdict, decided_by=by, decided_at=now)

        async def work(connection: AsyncConnection) -> bool:
            if not (await connection.execute(decided)).rowcount:
                return False
            if block:
                await _put_block(connection, block)
            return True

        return await self._writing(work)

    async def removed(self, job_id: str) -> bool:
        """Whether moderators have taken this clip away; of two in one post, both go."""
        those = (reviews.c.job_id == job_id) | reviews.c.job_id.in_(_in_the_same_post(job_id))
        query = select(reviews.c.job_id).where(those, _REMOVED)
        async with self._store.reading() as connection:
            return (await connection.execute(query)).first() is not None

    async def waiting_after(self, job_id: str) -> list[Job]:
        """Jobs made from this one that can still be called off; of two in one post, from either."""
        from_it = (jobs.c.parent_id == job_id) | jobs.c.parent_id.in_(_in_the_same_post(job_id))
        query = select(jobs).where(IS_OPEN, from_it, jobs.c.state.in_(IN_LINE))
        async with self._store.reading() as connection:
            return [job_of(row) for row in await connection.execute(query)]

    async def to_call_off(self, now: datetime) -> list[Job]:
        """Jobs that wait though their asker is blocked, what they come from was removed, or their server had the bot leave.

        Whoever notes that calls them off. These are left where that process died in between.
        """
        async with self._store.reading() as connection:
            return [job_of(row) for row in await connection.execute(_to_call_off(), {"now": now})]

    async def post_left(self, now: datetime) -> list[tuple[Job, Review]]:
        """Clips that were taken away and whose posts still stand, as far as we know."""
        async with self._store.reading() as connection:
            lately = {"since": now - KEEPS_TRYING}
            ids = (await connection.execute(_post_left(), lately)).scalars().all()
        return await self._with_reviews(ids)

    async def reviewed_lately(self, since: datetime) -> list[tuple[Job, Review]]:
        """Clips that were reported or decided about since then, whose moderators' message may not say so yet."""
        reported = reviews.c.job_id.in_(select(reports.c.job_id).where(reports.c.at > since))
        is_open, is_shown = reviews.c.state == Verdict.OPEN, reviews.c.shown_as.is_not(None)
        untold = (is_open & reported) | (is_shown & (reviews.c.decided_at > since))
        query = select(reviews.c.job_id).where(untold).order_by(reviews.c.opened_at)
        async with self._store.reading() as connection:
            ids = (await connection.execute(query.limit(MOST_AT_ONCE))).scalars().all()
        return await self._with_reviews(ids)

    async def _with_reviews(self, ids: Sequence[str]) -> list[tuple[Job, Review]]:
        found = [(await self._store.get(job_id), await self.review(job_id)) for job_id in ids]
        return [(job, review) for job, review in found if job and review]

    async def cleared(self, job_id: str, now: datetime) -> None:
        """The post of a clip that was taken away is gone."""
        await self._update(reviews.c.job_id == job_id, cleared_at=now)

    async def _update(self, those: ColumnElement[bool], **values: Any) -> None:
        async def work(connection: AsyncConnection) -> None:
            await connection.execute(update(reviews).where(those).values(**values))

        await self._writing(work)

    async def _writing(self, work: Callable[[AsyncConnection], Awaitable[T]]) -> T:
        """As the store's; of two who write the same row at once, the second sees the first's."""
        for _ in range(ATTEMPTS - 1):
            with suppress(IntegrityError):
                return await self._store.writing(work)
        return await self._store.writing(work)


_REMOVED = reviews.c.state == Verdict.REMOVED


@cache
def _those_of() -> Select[Any]:
    """The blocks of the people `members` in the servers `places`."""
    return select(blocks).where(among(blocks.c.guild_id, "places"), among(blocks.c.member_id, "members"))


@cache
def _post_left() -> Select[Any]:
    """The ids of the clips taken away `since` then whose posts still stand, the oldest first."""
    lately = reviews.c.decided_at > bindparam("since", type_=Utc())
    query = select(reviews.c.job_id).where(IS_POST_LEFT, lately)
    return query.order_by(reviews.c.decided_at).limit(MOST_AT_ONCE)


@cache
def _to_call_off() -> Select[Any]:
    """As `Moderation.to_call_off`, at `now`."""
    places = (blocks.c.guild_id == EVERYWHERE) | (blocks.c.guild_id == jobs.c.guild_id)
    holds = _holds(bindparam("now", type_=Utc()))
    blocked = select(blocks.c.at).where(blocks.c.member_id == jobs.c.asker_id, places, holds)
    removed = select(reviews.c.job_id).where(reviews.c.job_id == jobs.c.parent_id, _REMOVED)
    parent, beside = jobs.alias(), jobs.alias()
    beside_removed = (
        select(reviews.c.job_id)
        .join(beside, beside.c.id == reviews.c.job_id)
        .join(parent, parent.c.post_id == beside.c.post_id)
        .where(parent.c.id == jobs.c.parent_id, parent.c.comparison_id.is_not(None), _REMOVED)
    )
    # Asked for before: where the bot is back, that is noted a moment after the first requests may come.
    here = guilds.c.guild_id == jobs.c.guild_id
    left = select(guilds.c.guild_id).where(here, guilds.c.left_at >= jobs.c.created_at)
    any_of = [query.correlate(jobs).exists() for query in (blocked, removed, beside_removed, left)]
    return select(jobs).where(IS_OPEN, jobs.c.state.in_(IN_LINE), or_(*any_of))


def _in_the_same_post(job_id: str) -> Select[tuple[str]]:
    """The ids of the two clips of a comparison that were posted together, this one among them."""
    this, both = jobs.alias(), jobs.alias()
    post = select(this.c.post_id).where(this.c.id == job_id, this.c.comparison_id.is_not(None))
    return select(both.c.id).where(both.c.post_id == post.scalar_subquery())


async def _put_block(connection: AsyncConnection, block: Block) -> None:
    row = {
        "guild_id": block.guild_id or EVERYWHERE,
        "member_id": block.member_id,
        "reason": block.reason,
        "until": block.until,
        "by": block.by,
        "at": block.at,
    }
    those = update(blocks).where(_blocked(block.guild_id, block.member_id))
    if not (await connection.execute(those.values(**row))).rowcount:
        await connection.execute(insert(blocks).values(**row))


def _blocked(guild_id: int | None, member_id: int) -> ColumnElement[bool]:
    return (blocks.c.guild_id == (guild_id or EVERYWHERE)) & (blocks.c.member_id == member_id)


def _holds(now: datetime | BindParameter[datetime]) -> ColumnElement[bool]:
    return blocks.c.until.is_(None) | (blocks.c.until > now)


def _block_of(row: Mapping[Any, Any]) -> Block:
    return Block(**dict(row) | {"guild_id": row["guild_id"] or None})


def _said(job_id: str, reporter_id: int) -> Any:  # Any: a Select of one column
    assert reporter_id != NOBODY
    return select(reports.c.id).where(reports.c.job_id == job_id, reports.c.reporter_id == reporter_id)
