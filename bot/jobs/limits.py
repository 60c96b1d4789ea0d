"""May this person start one more job? Pure; knows nobody but the Refusal it raises."""

from dataclasses import dataclass

from bot.errors import Refusal


@dataclass(frozen=True, slots=True, kw_only=True)
class Limits:
    """The greatest number of open jobs, for one member and for the whole bot."""

    per_member: int
    in_all: int

    def admit(self, *, by_member: int, in_all: int) -> None:
        """Raises Refusal when one more would be too many."""
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
