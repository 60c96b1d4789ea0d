"""May this person start one more job? Pure; knows nobody but the Refusal it raises."""

from collections.abc import Collection
from dataclasses import dataclass

from bot.errors import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The greatest number of open jobs, for one member and for the whole bot."""

    per_member: int
    in_all: int

    def admit(self, *, by_member: int, in_all: int, wanted: int = 1) -> None:
        """Raises Refusal when one more, or as many as are wanted, would be too many."""
        if wanted > 1 and by_member + wanted > self.per_member:
            raise Refusal(
                f"This takes {wanted} clips at once. You have {by_member} in the works, and one member may have "
                f"{self.per_member} here. Nothing was charged."
            )
        if by_member >= self.per_member:
            clips = "clip" if by_member == 1 else "clips"
            raise Refusal(
                f"You already have {by_member} {clips} in the works, which is as many as one member may have "
                "here. Wait for one, or cancel one that still waits. Nothing was charged."
            )
        if in_all >= self.in_all:
            raise Refusal(
                f"{in_all} clips are waiting already, which is as many as I take on. "
                "Please try again in a few minutes. Nothing was charged."
            )


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
            allowed = " or ".join(f"<@&{role}>" for role in sorted(self.roles))
            raise Refusal(f"Here only {allowed} may have another take of a clip. Nothing was charged.")

    def admit_take(self, takes: int) -> None:
        """Raises Refusal when the clip was made again so often today that it may not be once more."""
        if not self.per_day:
            raise Refusal(
                "Clips are not made again here. Change this one with **Remix**. Nothing was charged."
            )
        if takes >= self.per_day:
            often = "once" if takes == 1 else f"{takes} times"
            raise Refusal(
                f"This clip was made again {often} within a day, which is as often as it may be here. "
                "Please try again tomorrow, or change it with **Remix**. Nothing was charged."
            )
