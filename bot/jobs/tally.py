"""What counts against the limits and budgets, counted in the transaction that adds a job. SQL, beside the store."""

from collections import Counter
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from functools import cache
from typing import Any

from sqlalchemy import Select, bindparam, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.jobs.budgets import Budget, Scope, Spent
from bot.jobs.ledger import Kind
from bot.jobs.machine import Charge, Job, Lineage
from bot.jobs.tables import IS_COUNTED, IS_OPEN, jobs, ledger

TAKES_WITHIN = timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Load:
    """How many jobs are open, counted in the transaction that would add one more.

    `takes`: how often the same clip was asked for again within a day, without those that cost nothing.
    `spent`: what counts against each of the budgets that were asked about.
    """

    by_asker: int
    in_all: int
    takes: int = 0
    spent: Mapping[Budget, Spent] = field(default_factory=dict)


class Tally:
    """What counts against the limits, read once for all who ask at the same moment; `admit`ted jobs count too."""

    def __init__(self, connection: AsyncConnection) -> None:
        self._connection = connection
        self._by_asker: Counter[int] = Counter()
        self._asked: set[int] = set()
        self._in_all: int | None = None
        self._takes: Counter[str] = Counter()
        self._clips: set[str] = set()
        self._spent: dict[tuple[tuple[tuple[str, int | None], ...], datetime], Spent] = {}

    async def prepare(self, askers: Collection[int]) -> None:
        """Count for all of these people in one query."""
        self._asked.update(askers)
        rows = await self._connection.execute(_by_asker(), {"askers": sorted(askers)})
        self._by_asker.update(dict(rows.all()))
        self._in_all = (await self._connection.execute(_in_all())).scalar_one()

    async def load(self, asker_id: int, *, clip: str | None = None, now: datetime | None = None) -> Load:
        """`clip`: whose takes within a day before `now` are counted as well."""
        if asker_id not in self._asked:
            await self.prepare([asker_id])
        assert self._in_all is not None
        if clip is not None and now is not None and clip not in self._clips:
            takes = select(func.count()).where(
                jobs.c.parent_id == clip,
                jobs.c.lineage == Lineage.AGAIN,
                jobs.c.charge != Charge.NONE,
                jobs.c.created_at > now - TAKES_WITHIN,
            )
            self._clips.add(clip)
            self._takes[clip] += (await self._connection.execute(takes)).scalar_one()
        return Load(
            by_asker=self._by_asker[asker_id], in_all=self._in_all, takes=self._takes[clip] if clip else 0
        )

    async def spent(self, job: Job, budgets: Collection[Budget]) -> dict[Budget, Spent]:
        """What is reserved or charged in each budget's scope since its stretch of time began."""
        found = {}
        for budget in budgets:
            key = (_scope(budget.scope, job), budget.stretch.began(job.created_at))
            if key not in self._spent:
                self._spent[key] = await self._sum(*key)
            found[budget] = self._spent[key]
        return found

    async def _sum(self, scope: tuple[tuple[str, int | None], ...], since: datetime) -> Spent:
        given_back = ledger.c.kind == Kind.RELEASE
        query = select(
            func.coalesce(func.sum(case((given_back, -1), else_=1)), 0),
            func.coalesce(func.sum(case((given_back, -ledger.c.cents), else_=ledger.c.cents)), 0),
        ).where(
            ledger.c.kind.in_((Kind.RESERVE, Kind.RELEASE)),
            ledger.c.reserved_at >= since,
            *(ledger.c[name].is_not_distinct_from(value) for name, value in scope),
        )
        clips, cents = (await self._connection.execute(query)).one()
        return Spent(clips=int(clips), cents=int(cents))

    def admit(self, job: Job) -> None:
        assert self._in_all is not None
        for (scope, since), spent in self._spent.items():
            if since <= job.created_at and all(_of(job, name) == value for name, value in scope):
                self._spent[scope, since] = spent.more(job.price_cents)
        self._by_asker[job.asker_id] += 1
        self._in_all += 1
        if clip := taken(job):
            self._takes[clip] += 1


@cache
def _by_asker() -> Select[Any]:
    """How many open jobs each of the `askers` has."""
    # Not `among`: SQLite would go through all open jobs, for it does not see that these are few.
    theirs = jobs.c.asker_id.in_(bindparam("askers", expanding=True))
    return select(jobs.c.asker_id, func.count()).where(IS_OPEN, IS_COUNTED, theirs).group_by(jobs.c.asker_id)


@cache
def _in_all() -> Select[Any]:
    """How many open jobs there are."""
    return select(func.count()).select_from(jobs).where(IS_OPEN, IS_COUNTED)


def _scope(scope: Scope, job: Job) -> tuple[tuple[str, int | None], ...]:
    """The columns that a scope's rows share with this job's, and their values."""
    names: tuple[str, ...] = {
        Scope.MEMBER: ("guild_id", "asker_id"),
        Scope.CHANNEL: ("guild_id", "channel_id"),
        Scope.SERVER: ("guild_id",),
        Scope.ALL: (),
    }[scope]
    return tuple((name, _of(job, name)) for name in names)


def _of(job: Job, name: str) -> int | None:
    """What the ledger's rows of this job have in a column: a thread's are among its channel's."""
    found: int | None = job.counted_in if name == "channel_id" else getattr(job, name)
    return found


def taken(job: Job) -> str | None:
    """The clip that this job makes again."""
    return job.parent_id if job.lineage is Lineage.AGAIN else None
