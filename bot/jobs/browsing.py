"""What people read about jobs: their own, a server's, a past page, everything. SQL that never writes."""

from collections.abc import Collection, Sequence
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import ColumnElement, Select, and_, func, or_, select, tuple_

from bot.jobs.machine import NOBODY, OPEN, Job, State
from bot.jobs.store import Store, job_of
from bot.jobs.tables import IS_OPEN, blocks, jobs, ledger, members, reports, reviews

WAITING = (State.DRAFT, State.QUEUED)
WORKING = (State.PREPARING, State.SUBMITTING, State.RENDERING, State.POSTING)
MINE = (State.DELIVERED, State.FAILED, State.UNDELIVERABLE)  # what a person's own history shows
MOST_CHANNELS = 2000
_REMOVED = select(reviews.c.job_id).where(reviews.c.state == "removed")


@dataclass(frozen=True, slots=True, kw_only=True)
class Crowd:
    """How many clips a server has waiting and in the making, by model, and for how many members.

    `elsewhere` counts the clips of other servers that wait in the same line.
    """

    by_model: tuple[tuple[str, int, int], ...]
    members: int
    elsewhere: int

    @property
    def waiting(self) -> int:
        return sum(waiting for _, waiting, _ in self.by_model)

    @property
    def working(self) -> int:
        return sum(working for _, _, working in self.by_model)


@dataclass(frozen=True, slots=True, kw_only=True)
class Shelf:
    """Which clips of a server a person may see listed: their own, and those posted in these channels."""

    guild_id: int | None
    reader_id: int
    channels: Collection[int]

    def holds(self, job: Job) -> bool:
        if job.guild_id != self.guild_id or job.asker_id == NOBODY:
            return False
        posted = job.state is State.DELIVERED and job.post_channel_id is None
        public = job.channel_id in self.channels and (job.is_open or posted)
        return public or job.asker_id == self.reader_id


class Browsing:
    def __init__(self, store: Store) -> None:
        self._store = store

    async def unfinished(
        self, asker_id: int, guild_id: int | None, *, failed_since: datetime, skip: int, limit: int
    ) -> tuple[list[Job], int]:
        """What a person has open in a server, the newest first, and how many; clips that could not be posted too,
        and those posted once more after `failed_since` of which nothing came."""
        lost = (jobs.c.state == State.FAILED) & (jobs.c.redelivered_at > failed_since)
        theirs = and_(
            jobs.c.asker_id == asker_id,
            jobs.c.guild_id == guild_id,
            or_(jobs.c.state.in_((*OPEN, State.UNDELIVERABLE)), lost),
        )
        page = select(jobs).where(theirs).order_by(jobs.c.created_at.desc(), jobs.c.id)
        async with self._store.reading() as connection:
            count = (await connection.execute(select(func.count()).where(theirs))).scalar_one()
            rows = await connection.execute(page.offset(skip).limit(limit))
            return [job_of(row) for row in rows], count

    async def crowd(self, guild_id: int | None) -> Crowd:
        """Who waits in a server, in numbers alone."""
        here = (jobs.c.guild_id == guild_id) & jobs.c.state.in_((*WAITING, *WORKING))
        waits, works = (
            func.count().filter(jobs.c.state.in_(states)).label(name)
            for name, states in (("waits", WAITING), ("works", WORKING))
        )
        by_model = select(jobs.c.model, waits, works).where(IS_OPEN, here).group_by(jobs.c.model)
        people = select(func.count(jobs.c.asker_id.distinct())).where(IS_OPEN, here)
        others = select(func.count()).where(
            IS_OPEN, jobs.c.state.in_(WAITING), or_(jobs.c.guild_id.is_(None), jobs.c.guild_id != guild_id)
        )
        async with self._store.reading() as connection:
            rows = await connection.execute(by_model.order_by(waits.desc(), works.desc(), jobs.c.model))
            return Crowd(
                by_model=tuple((model, waiting, working) for model, waiting, working in rows),
                members=(await connection.execute(people)).scalar_one(),
                elsewhere=(await connection.execute(others)).scalar_one(),
            )

    async def cards_in(self, channel_id: int, *, limit: int) -> list[Job]:
        """The jobs whose cards stand in a channel for all to see, oldest first."""
        standing = and_(
            IS_OPEN,  # the index is of these rows alone
            func.coalesce(jobs.c.card_channel_id, jobs.c.channel_id) == channel_id,
            jobs.c.card_id.is_not(None),
            jobs.c.state.in_((State.QUEUED, State.PREPARING, State.SUBMITTING, State.RENDERING)),
        )
        return await self._list(select(jobs).where(standing).order_by(jobs.c.created_at).limit(limit))

    async def past(
        self,
        shelf: Shelf,
        *,
        asker_id: int | None = None,
        model: str | None = None,
        before: Job | None = None,
        after: Job | None = None,
        limit: int,
    ) -> list[Job]:
        """Clips of a server that a person may see, the newest first: those before one, or next after one."""
        age = tuple_(jobs.c.created_at, jobs.c.id)
        query = select(jobs).where(*self._on(shelf))
        if asker_id is not None:
            query = query.where(jobs.c.asker_id == asker_id)
        if model is not None:
            query = query.where(jobs.c.model == model, jobs.c.sealed.is_(False))
        if before is not None:
            query = query.where(age < tuple_(before.created_at, before.id))
        if after is not None:
            query = query.where(age > tuple_(after.created_at, after.id))
            found = await self._list(query.order_by(jobs.c.created_at, jobs.c.id).limit(limit))
            return found[::-1]
        return await self._list(query.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit))

    @staticmethod
    def _on(shelf: Shelf) -> Sequence[ColumnElement[bool]]:
        seen = sorted(shelf.channels)[:MOST_CHANNELS]
        return (
            jobs.c.guild_id == shelf.guild_id,
            jobs.c.asker_id != NOBODY,
            or_(
                and_(
                    jobs.c.state == State.DELIVERED,
                    jobs.c.channel_id.in_(seen),
                    jobs.c.post_channel_id.is_(None),  # else it went to its asker alone
                    jobs.c.id.not_in(_REMOVED),
                ),
                (jobs.c.asker_id == shelf.reader_id) & jobs.c.state.in_(MINE),
            ),
        )

    async def recent(self, asker_id: int, guild_id: int | None, *, limit: int) -> list[Job]:
        """A person's latest jobs in a server, the newest first."""
        theirs = select(jobs).where(jobs.c.asker_id == asker_id, jobs.c.guild_id == guild_id)
        return await self._list(theirs.order_by(jobs.c.created_at.desc()).limit(limit))

    async def takes(self, job: Job) -> int:
        """How many posted clips came from this one."""
        query = select(func.count()).where(jobs.c.parent_id == job.id, jobs.c.state == State.DELIVERED)
        async with self._store.reading() as connection:
            return (await connection.execute(query)).scalar_one()

    async def everything_of(
        self, asker_id: int, *, before: Job | None = None, limit: int
    ) -> list[tuple[Job, list[dict[str, object]]]]:
        """A person's jobs in all servers, the newest first, each with its rows of the ledger."""
        theirs = select(jobs).where(jobs.c.asker_id == asker_id)
        if before is not None:
            earlier = tuple_(jobs.c.created_at, jobs.c.id) < tuple_(before.created_at, before.id)
            theirs = theirs.where(earlier)
        page = await self._list(theirs.order_by(jobs.c.created_at.desc(), jobs.c.id.desc()).limit(limit))
        costs = select(ledger.c.job_id, ledger.c.at, ledger.c.kind, ledger.c.cents)
        entries: dict[str, list[dict[str, object]]] = {job.id: [] for job in page}
        async with self._store.reading() as connection:
            rows = await connection.execute(costs.where(ledger.c.job_id.in_(entries)).order_by(ledger.c.id))
            for job_id, at, kind, cents in rows:
                entries[job_id].append({"at": at, "kind": kind, "cents": cents})
        return [(job, entries[job.id]) for job in page]

    async def standing_of(self, asker_id: int) -> tuple[int, int, int]:
        """Of a person's jobs: how many wait, are under way, and have ended."""
        counts = (
            func.count().filter(condition)
            for condition in (
                jobs.c.state.in_(WAITING),
                jobs.c.state.in_(OPEN) & jobs.c.state.not_in(WAITING),
                jobs.c.state.not_in(OPEN),
            )
        )
        async with self._store.reading() as connection:
            row = (await connection.execute(select(*counts).where(jobs.c.asker_id == asker_id))).one()
            return row[0], row[1], row[2]

    async def wishes_of(self, member_id: int) -> dict[str, object]:
        """What the bot has noted about a member besides jobs."""
        query = select(members.c.pictures_withheld_at, members.c.forget_before)
        held = select(blocks.c.guild_id, blocks.c.reason, blocks.c.until, blocks.c.at)
        said = select(reports.c.job_id, reports.c.reason, reports.c.words, reports.c.at)
        lists = {
            "blocks": held.where(blocks.c.member_id == member_id),
            "reports": said.where(reports.c.reporter_id == member_id)
            .order_by(reports.c.id.desc())
            .limit(500),
        }
        async with self._store.reading() as connection:
            row = (await connection.execute(query.where(members.c.id == member_id))).mappings().first()
            noted: dict[str, object] = dict(row) if row else {}
            for name, listed in lists.items():
                rows = [dict(one) for one in (await connection.execute(listed)).mappings()]
                if rows:
                    noted[name] = [
                        {k: str(v) if k.endswith("_id") else v for k, v in one.items()} for one in rows
                    ]
            return noted

    async def _list(self, query: Select[tuple[object, ...]]) -> list[Job]:
        async with self._store.reading() as connection:
            return [job_of(row) for row in await connection.execute(query)]
