"""Refusals of limits, budgets and lists, as members read them. The rules that raise them stand elsewhere.

Each says what to do now, and that it cost nothing where something might have.
"""

from collections.abc import Collection, Sequence

from bot.errors import Refusal

FREE = "Nothing was charged."


# Limits


def member_has_no_room(clips: int, wanted: int, most: int) -> Refusal:
    return Refusal(
        f"This takes {wanted} clips at once. You have {clips} in the works, and one member may have {most} here. {FREE}"
    )


def member_is_full(clips: int) -> Refusal:
    return Refusal(
        f"You already have {_counted(clips)} in the works, which is as many as one member may have "
        f"here. Wait for one, or cancel one that still waits. {FREE}"
    )


def bot_is_full(clips: int) -> Refusal:
    return Refusal(
        f"{clips} clips are waiting already, which is as many as I take on. "
        f"Please try again in a few minutes. {FREE}"
    )


def takes_only_for(roles: Collection[int]) -> Refusal:
    allowed = " or ".join(f"<@&{role}>" for role in sorted(roles))
    return Refusal(f"Here only {allowed} may have another take of a clip. {FREE}")


def no_takes_here() -> Refusal:
    return Refusal(f"Clips are not made again here. Change this one with **Remix**. {FREE}")


def taken_often(takes: int) -> Refusal:
    often = "once" if takes == 1 else f"{takes} times"
    return Refusal(
        f"This clip was made again {often} within a day, which is as often as it may be here. "
        f"Please try again tomorrow, or change it with **Remix**. {FREE}"
    )


# Budgets. `whose` is a scope, `stretch` a day or a month, `again` the Unix time when it starts anew.

_WHOSE = {"member": "You", "channel": "This channel", "server": "This server", "all": "This bot"}
_LEFT = {"member": "your", "channel": "this channel's", "server": "this server's"}


def no_clips_left(whose: str, clips: int, stretch: str, again: int) -> Refusal:
    return Refusal(
        f"{_WHOSE[whose]} may have {_counted(clips)} a {stretch}, and that many were made "
        f"or are under way. There is room again <t:{again}:R>. {FREE}"
    )


def bot_has_spent(stretch: str, again: int) -> Refusal:
    """What one server spends is not the others' business."""
    return Refusal(f"This bot's budget for this {stretch} is used up. It starts anew <t:{again}:R>. {FREE}")


def over_budget(whose: str, stretch: str, again: int, *, price: str, left: str, budget: str) -> Refusal:
    return Refusal(
        f"This clip costs {price}, and {_LEFT[whose]} budget for this {stretch} has {left} left of {budget}. "
        f"It starts anew <t:{again}:R>. {FREE}"
    )


# Lists


def not_a_month(said: str) -> Refusal:
    return Refusal(f"“{said[:20]}” is not a month that I can read. Write it like 2026-11, or choose one.")


def unknown_clip() -> Refusal:
    return Refusal("I do not know a clip of this id here. /history lists those that you can see.")


def unknown_model(typed: str, labels: Sequence[str]) -> Refusal:
    return Refusal(f"I do not have the model “{typed[:32]}”. Choose one of: {', '.join(labels)}.")


def _counted(clips: int) -> str:
    return f"{clips} clip" if clips == 1 else f"{clips} clips"
