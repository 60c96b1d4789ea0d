"""What a person is told privately: receipts, refusals, and what can go wrong.

Used alike by the command tree, buttons, modals and menus. Never shows the text of an exception.
"""

import secrets
from typing import Any

import discord
import structlog
from discord import app_commands

from bot.errors import Refusal
from bot.jobs.desk import FREE
from bot.jobs.machine import Charge, Job
from bot.jobs.models import Menu
from bot.ui.text import money

log = structlog.get_logger(__name__)

# What making and posting a clip needs in a channel. The names are those of Discord's settings page.
NEEDED = {
    "view_channel": "View Channel",
    "send_messages": "Send Messages",
    "attach_files": "Attach Files",
    "read_message_history": "Read Message History",
}
MONEY = {
    Charge.NONE: "Nothing was charged.",
    Charge.RESERVED: "Nothing is charged until it starts.",
    Charge.CHARGED: "It was charged.",
    Charge.MAYBE: "It may have been charged.",
}
ACKNOWLEDGED = 40060
EXPIRED = {10062, 10015, 50027}  # unknown interaction, unknown webhook, invalid webhook token


def missing_permissions(
    permissions: discord.Permissions, *, thread: bool = False, invited: bool = False
) -> list[str]:
    """The names of what the bot lacks in a channel, empty when it can work there.

    `invited`: also what it was invited with and can do without.
    """
    needed = NEEDED | ({"add_reactions": "Add Reactions"} if invited else {})
    if thread:
        del needed["send_messages"]
        needed["send_messages_in_threads"] = "Send Messages in Threads"
    return [name for flag, name in needed.items() if not getattr(permissions, flag)]


def require_permissions(interaction: discord.Interaction[Any]) -> None:
    """Refuse, by name, before anything is queued, when the bot could not deliver in this channel."""
    in_thread = isinstance(interaction.channel, discord.Thread)
    refuse_missing(missing_permissions(interaction.app_permissions, thread=in_thread))


def refuse_missing(missing: list[str]) -> None:
    """Raises a Refusal that names what is missing, if anything is."""
    if missing:
        names = ", ".join(f"**{name}**" for name in missing)
        raise Refusal(
            f"I cannot deliver a clip in this channel: I am missing {names}. "
            f"Please ask a moderator to allow it for me here. {FREE}"
        )


def price(job: Job, menu: Menu) -> str | None:
    """What a job costs, as members read it; None where the owner has not said."""
    model = menu.models.get(job.model)
    return money(job.price_cents, menu.currency, free=model is not None and model.can.free)


def receipt(job: Job, menu: Menu, notes: tuple[str, ...] = ()) -> str:
    """The private answer to an accepted request."""
    facts = [menu.label(job.model), f"{job.seconds} s", price(job, menu)]
    lines = [f"On its way: {', '.join(fact for fact in facts if fact)}. The card in the channel tells more."]
    if job.asked_in != job.channel_id:
        lines.append(f"The clip is posted in <#{job.channel_id}>.")
    return "\n".join([*lines, *(f"-# {note}" for note in notes)])


def link(job: Job) -> str | None:
    """The address of a job's post, or of its card while it has none."""
    place = job.guild_id or "@me"
    if job.post_id and job.post_channel_id:
        return f"https://discord.com/channels/@me/{job.post_channel_id}/{job.post_id}"
    if job.post_id:
        return f"https://discord.com/channels/{place}/{job.channel_id}/{job.post_id}"
    if job.card_id:
        return f"https://discord.com/channels/{place}/{job.asked_in}/{job.card_id}"
    return None


def redelivery(job: Job) -> str:
    """The private answer to *Post it here*."""
    if job.post_id:
        return f"It was posted after all: {link(job)}"
    return f"I post it in <#{job.channel_id}> in a moment. It is not charged again."


TRYING_AGAIN = "Trying again."


def cancelled(job: Job) -> str:
    return f"Cancelled. {MONEY[job.owed]}"


def let_go(job: Job) -> str:
    return f"I ask no more. {MONEY[job.owed]}"


def audit_press(user_id: int, job: Job, done: str) -> str:
    """What is written down when a moderator does something with a clip that is not theirs."""
    return f"<@{user_id}> {done} the clip `{job.id}` of <@{job.asker_id}>."


def asked_to_delete() -> str:
    return "Delete this post for everybody? It cannot be brought back."


def deleted(job: Job) -> str:
    paid = " The clip was paid for, so it still counts." if job.price_cents else ""
    return f"Deleted.{paid}"


def other_models(job: Job, menu: Menu) -> str:
    return f"The same clip by another model than {menu.label(job.model)}: which one?"


def no_other_model(job: Job, menu: Menu) -> Refusal:
    return Refusal(f"No other model here can do this; there is only {menu.label(job.model)}. {FREE}")


def nothing_to_animate() -> Refusal:
    return Refusal(f"There is no picture in this message that I could animate. {FREE}")


def menu_forgotten() -> Refusal:
    return Refusal(
        "I was restarted while you wrote, and do not know any more which picture you meant. "
        f"Please choose it once more. {FREE}"
    )


def asked_back(user_id: int, cents: int, menu: Menu, expires: int) -> str:
    """Asks somebody who reacted whether they mean it; for all to read."""
    return (
        f"<@{user_id}> Another take costs {money(cents, menu.currency, free=False)}. "
        f"Shall I start it? I forget about it <t:{expires}:R>."
    )


def asked_owner(owner_id: int, asker_id: int, expires: int) -> str:
    """Asks the owner of a picture; for all to read."""
    return (
        f"<@{owner_id}> <@{asker_id}> would like to make a clip with a picture of yours. May they use your "
        f"pictures here for a day? Without an answer they may not; I forget about it <t:{expires}:R>."
    )


def owner_allows(owner_id: int, asker_id: int) -> str:
    return f"<@{asker_id}> <@{owner_id}> lets you use their pictures here for a day. Please start once more."


def why_is_private(user_id: int) -> str:
    """The answer to a reaction where the reason is for this person alone."""
    return f"<@{user_id}> I cannot make another take of this for you. Press **Again** under it to read why. {FREE}"


def stays_age_restricted() -> Refusal:
    return Refusal(f"This was forwarded from an age-restricted channel, and pictures stay in such. {FREE}")


def not_yours_to_allow(owner_id: int) -> Refusal:
    return Refusal(f"I asked only <@{owner_id}>.")


def allowed_too_late() -> Refusal:
    return Refusal("That was too long ago. They can ask once more.")


def not_yours_to_confirm(user_id: int) -> Refusal:
    return Refusal(f"I asked only <@{user_id}>. React to the clip for a take of your own.")


def confirmed_too_late() -> Refusal:
    return Refusal(f"That was too long ago. React to the clip once more. {FREE}")


def newer_button() -> Refusal:
    return Refusal("This button is from a newer version of me.")


async def acknowledge(interaction: discord.Interaction[Any]) -> None:
    """Say that the answer, a private one, takes a while. Where Discord has heard that already, as its answer was lost and
    discord.py repeated it, all is well."""
    try:
        await interaction.response.defer(ephemeral=True, thinking=True)
    except discord.HTTPException as problem:
        if problem.code != ACKNOWLEDGED:
            raise


async def error(interaction: discord.Interaction[Any], problem: BaseException) -> None:
    """Tell the person what went wrong, only to them. An interaction that expired is only logged."""
    if isinstance(problem, app_commands.CommandInvokeError | app_commands.TransformerError):
        problem = problem.__cause__ or problem
    if isinstance(problem, discord.HTTPException) and problem.code in EXPIRED:
        log.warning("interaction_expired", code=problem.code)
        return
    sentence = _sentence(problem)
    try:
        if not interaction.response.is_done():
            try:
                await interaction.response.send_message(sentence, ephemeral=True)
            except discord.HTTPException as unsaid:
                if unsaid.code != ACKNOWLEDGED:
                    raise
            else:
                return
        await interaction.followup.send(sentence, ephemeral=True)
    except discord.HTTPException as unsaid:
        log.warning("answer_not_sent", status=unsaid.status, code=unsaid.code)


def _sentence(problem: BaseException) -> str:
    match problem:
        case Refusal():
            return str(problem)
        case app_commands.CommandOnCooldown():
            return f"Please wait {problem.retry_after:.0f} s. Nothing was charged."
        case app_commands.CheckFailure():
            return "You may not use this here. Nothing was charged."
        case discord.NotFound():
            return "That message is gone."
        case discord.RateLimited():
            return "Discord lets me do no more for the moment. Please try again in a few minutes."
        case discord.Forbidden():
            return "Discord does not let me do that here. Please ask a moderator to check my permissions."
        case _:
            reference = secrets.token_hex(3)
            log.error("unexpected_error", reference=reference, exc_info=problem)
            return (
                f"Something went wrong on my side. If it happens again, tell the owner this: `{reference}`."
            )
