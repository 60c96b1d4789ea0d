"""May this person start one more job? Pure; what is said when not stands in `sentences`."""

from collections.abc import Collection
from dataclasses import dataclass

from bot.jobs import sentences


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The greatest number of open jobs, for one member and for the whole bot."""

    per_member: int
    in_all: int

    def admit(self, *, by_member: int, in_all: int, wanted: int = 1) -> None:
        """Raises Refusal when one more, or as many as are wanted, would be too many."""
        if wanted > 1 and by_member + wanted > self.per_member:
            raise sentences.member_has_no_room(by_member, wanted, self.per_member)
        if by_member >= self.per_member:
            raise sentences.member_is_full(by_member)
        if in_all >= self.in_all:
            raise sentences.bot_is_full(in_all)


@dataclass(frozen=True, slots=True, kw_only=True)
class RequeueRules:
    """How a clip is asked for again in one server.

    `emoji` is what to react with, as Discord writes it; `roles` who may, empty for everybody; `per_day` how
    often a clip is made again within a day. A reaction to a clip that costs more than
    `confirm_above_cents` is asked back first; None: never.
    """

    emoji: str = "🔁"
    roles: frozenset[int] = frozenset()
    per_day: int = 20
    confirm_above_cents: int | None = None

    def admit_person(self, roles: Collection[int], *, moderator: bool) -> None:
        """Raises Refusal when a person with these roles may not; moderators always may."""
        if self.roles and not moderator and self.roles.isdisjoint(roles):
            raise sentences.takes_only_for(self.roles)

    def admit_take(self, takes: int) -> None:
        """Raises Refusal when the clip was made again so often today that it may not be once more."""
        if not self.per_day:
            raise sentences.no_takes_here()
        if takes >= self.per_day:
            raise sentences.taken_often(takes)
