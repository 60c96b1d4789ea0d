"""How much may be spent, by whom, and in which stretch of time. Pure; what is said stands in `sentences`.

A budget is looked at in the transaction that reserves the price, against what is reserved and not given
back since the stretch began. Days and months are those of UTC.
"""

from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from bot.jobs import sentences

ALERTS = (50, 80, 100)  # per cent of a budget


class Scope(StrEnum):
    """Whose spending is counted: of one member or channel in one server, of one server, or of them all."""

    MEMBER = "member"
    CHANNEL = "channel"
    SERVER = "server"
    ALL = "all"


class Stretch(StrEnum):
    DAY = "day"
    MONTH = "month"

    def began(self, now: datetime) -> datetime:
        midnight = now.replace(hour=0, minute=0, second=0, microsecond=0)
        return midnight if self is Stretch.DAY else midnight.replace(day=1)

    def ends(self, now: datetime) -> datetime:
        began = self.began(now)
        if self is Stretch.DAY:
            return began + timedelta(days=1)
        return (began + timedelta(days=32)).replace(day=1)


@dataclass(frozen=True, slots=True, kw_only=True)
class Budget:
    """At most so many clips, so many cents, or both, in each stretch of time. None: no limit of that kind."""

    scope: Scope
    stretch: Stretch
    clips: int | None = None
    cents: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Spent:
    """What is reserved or charged, and not given back."""

    clips: int = 0
    cents: int = 0

    def more(self, cents: int) -> "Spent":
        return Spent(clips=self.clips + 1, cents=self.cents + cents)

    def share(self, budget: Budget) -> float:
        """Of the budget's nearest limit, in per cent."""
        shares = [
            100 * used / limit if limit else 100.0
            for used, limit in ((self.clips, budget.clips), (self.cents, budget.cents))
            if limit is not None
        ]
        return max(shares, default=0.0)


def admit(budget: Budget, spent: Spent, price_cents: int, *, now: datetime, currency: str) -> None:
    """Raises Refusal when one more clip at this price would go over the budget."""
    after = spent.more(price_cents)
    again = int(budget.stretch.ends(now).timestamp())
    if budget.clips is not None and after.clips > budget.clips:
        raise sentences.no_clips_left(budget.scope, budget.clips, budget.stretch, again)
    if budget.cents is not None and price_cents and after.cents > budget.cents:
        if budget.scope is Scope.ALL:
            raise sentences.bot_has_spent(budget.stretch, again)
        raise sentences.over_budget(
            budget.scope,
            budget.stretch,
            again,
            price=money(price_cents, currency),
            left=money(max(budget.cents - spent.cents, 0), currency),
            budget=money(budget.cents, currency),
        )


def reached(budget: Budget, spent: Spent) -> int | None:
    """The highest mark of ALERTS that has been reached, None for none; nor of a limit of nothing, which is always spent."""
    if 0 in (budget.clips, budget.cents):
        return None
    return max((mark for mark in ALERTS if mark <= spent.share(budget)), default=None)


def strictest(budgets: Iterable[Budget]) -> list[Budget]:
    """One for each scope and stretch: the lowest of each limit."""
    found: dict[tuple[Scope, Stretch], Budget] = {}
    for budget in budgets:
        key = (budget.scope, budget.stretch)
        other = found.get(key, budget)
        found[key] = Budget(
            scope=budget.scope,
            stretch=budget.stretch,
            clips=_least(budget.clips, other.clips),
            cents=_least(budget.cents, other.cents),
        )
    return [budget for budget in found.values() if budget.clips is not None or budget.cents is not None]


def _least(one: int | None, other: int | None) -> int | None:
    known = [limit for limit in (one, other) if limit is not None]
    return min(known, default=None)


def money(cents: int, currency: str) -> str:
    """An amount as members read it: `$0.35`."""
    return f"{currency}{cents / 100:,.2f}"
