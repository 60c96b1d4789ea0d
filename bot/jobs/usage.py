"""What clips cost and how it went, month by month. SQL that never writes, beside the store's.

Money is what the ledger says, in the month of the reservation that it made or settled: what is given back or charged
later changes that month and no other. Months and days are those of UTC. A member who was forgotten is NOBODY.
"""

import csv
import io
import re
import statistics
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import pairwise
from typing import Any, Self

from sqlalchemy import ColumnElement, Select, case, func, select
from sqlalchemy.ext.asyncio import AsyncConnection

from bot.jobs import sentences
from bot.jobs.ledger import Kind
from bot.jobs.machine import NOBODY, State
from bot.jobs.store import Store
from bot.jobs.tables import jobs, ledger

TOP = 10
MONTHS_BACK = 24  # as many as are offered, besides this one: a list of choices holds 25
ROWS_AT_ONCE = 500
MOST_WAITS = 20_000
HEAD = (
    *("requested_at", "submitted_at", "job", "server", "channel", "member"),
    *("model", "route", "variant", "seconds", "quality", "sound", "state", "cause", "attempts"),
    *("currency", "spent", "unsure", "reserved", "given_back", "provider_task"),
)
NAMED = (
    *("id", "created_at", "submitted_at", "guild_id", "asker_id"),
    *(
        "model",
        "route",
        "variant",
        "seconds",
        "quality",
        "sound",
        "state",
        "cause",
        "attempt",
        "provider_task",
    ),
)
_MONTH = re.compile(r"[0-9]{4}-[0-9]{1,2}")
FORMULA = ("=", "+", "-", "@", "\t", "\r")  # what spreadsheets take for more than text (OWASP, CSV injection)


@dataclass(frozen=True, slots=True, order=True)
class Month:
    year: int
    month: int

    @classmethod
    def of(cls, at: datetime) -> Self:
        at = at.astimezone(UTC)
        return cls(at.year, at.month)

    @classmethod
    def parse(cls, text: str) -> Self:
        """A month written as `2026-11`. Raises Refusal."""
        year, _, month = text.strip().partition("-")
        if _MONTH.fullmatch(text.strip()) and 2000 <= int(year) <= 9998 and 1 <= int(month) <= 12:
            return cls(int(year), int(month))
        raise sentences.not_a_month(text)

    @property
    def began(self) -> datetime:
        return datetime(self.year, self.month, 1, tzinfo=UTC)

    @property
    def ends(self) -> datetime:
        return (self.began + timedelta(days=32)).replace(day=1)

    @property
    def before(self) -> "Month":
        return Month.of(self.began - timedelta(days=1))

    @property
    def days(self) -> int:
        return (self.ends - self.began).days

    @property
    def name(self) -> str:
        return f"{_MONTHS[self.month - 1]} {self.year}"

    def __str__(self) -> str:
        return f"{self.year}-{self.month:02}"


_MONTHS = (  # not strftime's, which are those of a locale
    *("January", "February", "March", "April", "May", "June"),
    *("July", "August", "September", "October", "November", "December"),
)


@dataclass(frozen=True, slots=True, kw_only=True)
class Usage:
    """One month of one server, or of all (`guild_id` None). Money in cents.

    `by_day` has an entry for each day of the month; `by_model` and `top` begin with the dearest. `top` are the ids
    of members, or of servers where it is about all. `spent` was charged, `unsure` may have been, `reserved` is held
    for clips under way. `failed` clips came to nothing; `stuck` ones were made and paid for, and could not be posted.
    `wait` is the median from the request to the post, None without a post.
    """

    month: Month
    guild_id: int | None
    spent: int
    reserved: int
    unsure: int
    by_day: tuple[int, ...]
    by_model: tuple[tuple[str, int, int], ...]
    top: tuple[tuple[int | None, int, int], ...]
    others: int
    delivered: int
    failed: int
    stuck: int
    cancelled: int
    under_way: int
    wait: timedelta | None

    @property
    def clips(self) -> int:
        return self.delivered + self.failed + self.stuck + self.cancelled + self.under_way

    @property
    def success(self) -> float | None:
        """The share of those ended that were posted, 0..1; who cancelled did not want one."""
        ended = self.delivered + self.failed + self.stuck
        return self.delivered / ended if ended else None


@dataclass(frozen=True, slots=True, kw_only=True)
class Sheet:
    """A month as a CSV file, a line for each clip, the oldest first. `whole`: all of them fitted."""

    data: bytes
    clips: int
    whole: bool


class Books:
    """`guild_id` None stands for all servers."""

    def __init__(self, store: Store, *, now: Callable[[], datetime], currency: str) -> None:
        self.currency = currency
        self._store = store
        self._now = now

    def now(self) -> datetime:
        """The time that jobs go by."""
        return self._now()

    def month(self, text: str | None) -> Month:
        """The month that is meant: this one without a word. Raises Refusal."""
        return Month.parse(text) if text else Month.of(self._now())

    async def months(self, guild_id: int | None) -> list[Month]:
        """Those that have numbers, the latest first, two years back."""
        months = [Month.of(self._now())]
        while len(months) <= MONTHS_BACK:
            months.append(months[-1].before)
        found = [
            select(ledger.c.id).where(*_within(month, guild_id)).exists().label(str(month))
            for month in months
        ]
        async with self._store.snapshot() as connection:
            row = tuple((await connection.execute(select(*found))).one())
        return [month for month, there in zip(months, row, strict=True) if there]

    async def usage(self, month: Month, guild_id: int | None) -> Usage:
        """What a month cost, for what and for whom."""
        here = _within(month, guild_id)
        async with self._store.snapshot() as connection:
            sums = select(*(_cents(kind) for kind in Kind)).where(*here)
            money = (await connection.execute(sums)).mappings().one()
            whose = jobs.c.asker_id if guild_id is not None else jobs.c.guild_id
            models = await _by(connection, ledger.c.model, here)
            top = await _by(connection, whose, here)
            counts = await _states(connection, month, guild_id)
            return Usage(
                month=month,
                guild_id=guild_id,
                spent=money[Kind.CHARGE],
                reserved=money[Kind.RESERVE] - money[Kind.CHARGE] - money[Kind.RELEASE] - money[Kind.DOUBT],
                unsure=money[Kind.DOUBT],
                by_day=await _by_day(connection, month, here),
                by_model=tuple(models),
                top=tuple(top[:TOP]),
                others=sum(cents for _, cents, _ in top[TOP:]),
                delivered=counts.pop(State.DELIVERED, 0),
                failed=counts.pop(State.FAILED, 0),
                stuck=counts.pop(State.UNDELIVERABLE, 0),
                cancelled=counts.pop(State.CANCELLED, 0),
                under_way=sum(counts.values()),
                wait=await _wait(connection, month, guild_id),
            )

    async def sheet(self, month: Month, guild_id: int | None, *, max_bytes: int) -> Sheet:
        """As many clips of a month as fit into a file of this size. No prompts are in it."""
        file = bytearray("\ufeff".encode())  # else Excel takes the file for one of another encoding
        file += _line(HEAD)
        clips = 0
        async with self._store.snapshot() as connection, connection.stream(_clips(month, guild_id)) as rows:
            async for row in rows:
                line = _line(self._cells(row))
                if len(file) + len(line) > max_bytes:
                    return Sheet(data=bytes(file), clips=clips, whole=False)
                file += line
                clips += 1
        return Sheet(data=bytes(file), clips=clips, whole=True)

    def _cells(self, row: Any) -> Iterable[object]:
        spent, released, unsure, reserved = row.charge, row.release, row.doubt, row.reserve
        money = (spent, unsure, reserved - spent - released - unsure, released)
        return (
            _time(row.created_at),
            _time(row.submitted_at),
            row.id,
            row.guild_id,
            row.asked_in,
            row.asker_id if row.asker_id != NOBODY else "forgotten",
            row.model,
            row.route,
            row.variant,
            row.seconds,
            row.quality,
            "yes" if row.sound else "no",
            row.state,
            row.cause,
            row.attempt,
            self.currency,
            *(f"{cents // 100}.{cents % 100:02}" for cents in money),
            row.provider_task,
        )


def _within(month: Month, guild_id: int | None) -> Sequence[ColumnElement[bool]]:
    """The ledger's rows of a month."""
    when = (ledger.c.reserved_at >= month.began, ledger.c.reserved_at < month.ends)
    return when if guild_id is None else (*when, ledger.c.guild_id == guild_id)


def _asked_within(month: Month, guild_id: int | None) -> Sequence[ColumnElement[bool]]:
    when = (jobs.c.created_at >= month.began, jobs.c.created_at < month.ends)
    return when if guild_id is None else (*when, jobs.c.guild_id == guild_id)


def _cents(kind: Kind) -> ColumnElement[int]:
    return func.coalesce(func.sum(case((ledger.c.kind == kind, ledger.c.cents), else_=0)), 0).label(
        kind.value
    )


async def _by(
    connection: AsyncConnection, column: ColumnElement[Any], here: Sequence[ColumnElement[bool]]
) -> list[tuple[Any, int, int]]:
    """What was charged, and for how many clips, for each value of a column; the dearest first."""
    paid = func.sum(ledger.c.cents)
    query = (
        select(column, paid, func.count())
        .join(jobs, jobs.c.id == ledger.c.job_id)
        .where(*here, ledger.c.kind == Kind.CHARGE)
        .group_by(column)
        .order_by(paid.desc(), func.count().desc(), column)
    )
    return [(value, int(cents), clips) for value, cents, clips in await connection.execute(query)]


async def _by_day(
    connection: AsyncConnection, month: Month, here: Sequence[ColumnElement[bool]]
) -> tuple[int, ...]:
    # Compared, not converted: neither database's time zone or rounding can move anything to another day.
    days = [month.began + timedelta(days=number) for number in range(month.days + 1)]
    at = ledger.c.reserved_at
    sums = [
        func.coalesce(func.sum(case(((at >= began) & (at < ends), ledger.c.cents), else_=0)), 0)
        for began, ends in pairwise(days)
    ]
    row = (await connection.execute(select(*sums).where(*here, ledger.c.kind == Kind.CHARGE))).one()
    return tuple(int(cents) for cents in row)


async def _states(connection: AsyncConnection, month: Month, guild_id: int | None) -> dict[State, int]:
    """How many clips that were asked for in this month are in each state."""
    query = select(jobs.c.state, func.count()).where(*_asked_within(month, guild_id)).group_by(jobs.c.state)
    return {State(state): count for state, count in await connection.execute(query)}


async def _wait(connection: AsyncConnection, month: Month, guild_id: int | None) -> timedelta | None:
    """The median from request to post; without what a person had posted once more. Of very many, the latest."""
    query = (
        select(jobs.c.created_at, jobs.c.changed_at)
        .where(
            *_asked_within(month, guild_id),
            jobs.c.state == State.DELIVERED,
            jobs.c.redelivered_at.is_(None),
        )
        .order_by(jobs.c.created_at.desc())
        .limit(MOST_WAITS)
    )
    waits = [(changed - asked).total_seconds() for asked, changed in await connection.execute(query)]
    return timedelta(seconds=statistics.median(waits)) if waits else None


def _clips(month: Month, guild_id: int | None) -> Select[Any]:
    """Clips with their money of this month, the oldest first."""
    money = (
        select(ledger.c.job_id, *(_cents(kind) for kind in Kind))
        .where(*_within(month, guild_id))
        .group_by(ledger.c.job_id)
        .subquery()
    )
    named = (jobs.c[name] for name in NAMED)
    asked_in = func.coalesce(jobs.c.card_channel_id, jobs.c.channel_id).label("asked_in")
    return (
        select(*named, asked_in, *(money.c[kind.value] for kind in Kind))
        .join(money, money.c.job_id == jobs.c.id)
        .order_by(jobs.c.created_at, jobs.c.id)
        .execution_options(yield_per=ROWS_AT_ONCE)
    )


def _time(at: datetime | None) -> str:
    return at.strftime("%Y-%m-%dT%H:%M:%SZ") if at else ""


def _line(cells: Iterable[object]) -> bytes:
    """One line of CSV (RFC 4180) in which no spreadsheet finds a formula."""
    line = io.StringIO()
    texts = ["" if cell is None else str(cell) for cell in cells]
    csv.writer(line).writerow([f"'{text}" if text.startswith(FORMULA) else text for text in texts])
    return line.getvalue().encode()
