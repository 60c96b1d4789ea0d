"""Reports and blocks: what members report, what moderators decide of it, who is blocked.

All that is needed to understand a press or a submitted modal stands in its custom_id, so they work after any restart.
"""

import re
from collections.abc import Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any, Self

import aiohttp
import discord
import structlog
from discord import ui

from bot.errors import Refusal
from bot.jobs.machine import NOBODY, Job
from bot.jobs.moderation import Block, Review, Verdict
from bot.jobs.safety import BLOCKS_PAGE, LONGEST_REASON, LONGEST_WORDS, MODERATOR, Blocking, Case
from bot.ui import answer
from bot.ui.controls import who
from bot.ui.text import escaped, plain, quoted

if TYPE_CHECKING:
    from bot.client import AnimaticBot

log = structlog.get_logger(__name__)

OPEN, KEPT, GONE = discord.Colour.orange(), discord.Colour.green(), discord.Colour.red()
REASONS = {
    "sexual": "Sexual, where it does not belong",
    "violent": "Violent or frightening",
    "hateful": "Hateful or harassing",
    "person": "Shows somebody who would not want it",
    "other": "Something else",
}
LASTING = {
    "hour": ("For an hour", timedelta(hours=1)),
    "day": ("For a day", timedelta(days=1)),
    "week": ("For a week", timedelta(days=7)),
    "month": ("For 30 days", timedelta(days=30)),
    "unblock": ("Until somebody unblocks them", None),
}
VERBS = {
    "keep": ("Keep", discord.ButtonStyle.secondary),
    "remove": ("Remove", discord.ButtonStyle.danger),
    "block": ("Remove and block", discord.ButtonStyle.danger),
}
REPORT_FORM = re.compile(r"report:(?P<id>[a-z0-9]{1,20}):form")
BLOCK_FORM = re.compile(r"review:(?P<id>[a-z0-9]{1,20}):form")
THANKS = "Thank you. The moderators will look; they do not read who reported it."
NOBODY_TOLD = (
    "Thank you; I have written it down. I could not tell the moderators: they have no channel for reports in which "
    "I may write. Please tell one of them yourself."
)


# What members do


class ReportButton(ui.DynamicItem[ui.Button[Any]], template=r"report:(?P<id>[a-z0-9]{1,20})"):
    """Under every post: opens the modal in which it is reported."""

    def __init__(self, job_id: str) -> None:
        super().__init__(ui.Button(label="Report", emoji="🚩", custom_id=f"report:{job_id}"))
        self.job_id = job_id

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        return cls(match["id"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        try:
            await open_report(interaction, self.job_id)
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)


async def open_report(interaction: "discord.Interaction[AnimaticBot]", job_id: str) -> None:
    """Show the modal for a report. Raises Refusal."""
    job = await interaction.client.safety.reportable(who(interaction), job_id)
    await interaction.response.send_modal(report_form(job.id))


def report_form(job_id: str) -> ui.Modal:
    modal = ui.Modal(title="Report this clip", custom_id=f"report:{job_id}:form", timeout=900)
    modal.add_item(_select("What is wrong with it", "reason", list(REASONS.items())))
    modal.add_item(
        _words("More about it", "words", "The moderators read this, but not who wrote it.", LONGEST_WORDS)
    )
    modal.stop()
    return modal


def not_a_clip() -> Refusal:
    return Refusal("This is not a clip of mine. To report something else, write to a moderator.")


# What moderators read and do


def layout(job: Job, found: Review, *, fallback: bool = False) -> ui.LayoutView:
    """The moderators' message about a reported clip. `fallback`: it did not reach the channel for reports."""
    titles = {
        Verdict.OPEN: ("A clip was reported", OPEN),
        Verdict.KEPT: ("Reported, and kept", KEPT),
        Verdict.REMOVED: ("Reported, and removed", GONE),
    }
    title, colour = titles[found.state]
    box: ui.Container[ui.LayoutView] = ui.Container(accent_colour=colour)
    asker = f"<@{job.asker_id}>" if job.asker_id != NOBODY else "somebody whose data was deleted"
    lines = [f"### {title}", f"Asked for by {asker} in <#{found.channel_id}>: {post_link(found)}"]
    if job.prompt:
        lines.insert(1, quoted(job.prompt))
    if job.negative_prompt:
        lines.insert(-1, f"Without: {quoted(job.negative_prompt, limit=200)}")
    box.add_item(ui.TextDisplay("\n".join(lines)))
    people = "1 member" if found.reporters == 1 else f"{found.reporters} members"
    said = [f"**Reported by {people}**"]
    said += [
        f"- {REASONS.get(reason, REASONS['other'])}: {number}"
        for reason, number in sorted(found.reasons.items())
    ]
    said += [f"- {quoted(words, limit=200)}" for words in found.words]
    box.add_item(ui.TextDisplay("\n".join(said)))
    if found.state is Verdict.OPEN:
        box.add_item(ui.ActionRow(*(ReviewButton(job.id, verb) for verb in VERBS)))
        box.add_item(ui.TextDisplay("-# Kept once, it stays: further reports are answered with that."))
    else:
        assert found.decided_at is not None
        verb = "Kept" if found.state is Verdict.KEPT else "Removed"
        by = f"<@{found.decided_by}>" if found.decided_by else "a moderator"
        box.add_item(ui.TextDisplay(f"{verb} by {by}, {discord.utils.format_dt(found.decided_at, 'f')}."))
    if fallback:
        box.add_item(
            ui.TextDisplay("-# I cannot write in the channel for reports: /settings, *Moderators' channels*.")
        )
    view = ui.LayoutView(timeout=None)
    view.add_item(box)
    return view


async def tell_moderators(bot: "AnimaticBot", case: Case) -> bool:
    """Bring the moderators' message about a clip up to date, or write it. Whether there is one."""
    job, review = case.job, case.review
    if review.shown_in and review.shown_as:
        channel = bot.get_partial_messageable(review.shown_in, guild_id=review.guild_id)
        message = channel.get_partial_message(review.shown_as)
        try:
            await message.edit(view=layout(job, review), allowed_mentions=discord.AllowedMentions.none())
        except (discord.NotFound, discord.Forbidden):
            log.info("review_gone", job=job.id)
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            log.info("review_not_redrawn", job=job.id, error=type(error).__name__)
            return True  # it stands there all the same
        else:
            return True
    settings = await bot.servers.settings(review.guild_id)
    for channel_id in dict.fromkeys((settings.review_channel, settings.audit_channel)):
        if channel_id is None:
            continue
        fallback = settings.review_channel not in (None, channel_id)
        channel = bot.get_partial_messageable(channel_id, guild_id=review.guild_id)
        try:
            shown = await channel.send(
                view=layout(job, review, fallback=fallback),
                nonce=f"{job.id}r{review.reporters % 1000}",
                allowed_mentions=discord.AllowedMentions.none(),
            )
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            log.warning("review_not_shown", guild=review.guild_id, error=type(error).__name__)
        else:
            await bot.safety.shown(case, channel_id, shown.id)
            return True
    return False


def post_link(found: Review) -> str:
    return f"https://discord.com/channels/{found.guild_id}/{found.channel_id}/{found.post_id}"


class ReviewButton(
    ui.DynamicItem[ui.Button[Any]], template=r"review:(?P<id>[a-z0-9]{1,20}):(?P<verb>keep|remove|block)"
):
    """With it a moderator decides about a reported clip."""

    def __init__(self, job_id: str, verb: str) -> None:
        label, style = VERBS[verb]
        super().__init__(ui.Button(label=label, style=style, custom_id=f"review:{job_id}:{verb}"))
        self.job_id, self.verb = job_id, verb

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        return cls(match["id"], match["verb"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        try:
            safety = interaction.client.safety
            if self.verb == "block":
                await safety.blamed(who(interaction), self.job_id)
                await interaction.response.send_modal(block_form(self.job_id))
            else:
                await decide(interaction, self.job_id, keep=self.verb == "keep")
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)


def block_form(job_id: str) -> ui.Modal:
    modal = ui.Modal(title="Remove the clip and block", custom_id=f"review:{job_id}:form", timeout=900)
    modal.add_item(_select("How long", "lasting", [(value, label) for value, (label, _) in LASTING.items()]))
    modal.add_item(_words("Why", "reason", "They read this when they ask for a clip.", LONGEST_REASON))
    modal.stop()
    return modal


async def decide(
    interaction: "discord.Interaction[AnimaticBot]",
    job_id: str,
    *,
    keep: bool = False,
    block: tuple[str, timedelta | None] | None = None,
) -> None:
    """Do what a moderator decided, show it on their message, and write it down. `block`: why and how long."""
    safety, moderator = interaction.client.safety, who(interaction)
    await safety.undecided(moderator, job_id)
    await interaction.response.defer()
    decided = await (
        safety.keep(moderator, job_id) if keep else safety.remove(moderator, job_id, block=block)
    )
    await interaction.edit_original_response(view=layout(decided.job, decided.review))
    lines = [audit_decision(moderator.id, decided)]
    if not decided.gone:
        await interaction.followup.send(NOT_GONE, ephemeral=True)
    if decided.blocking:
        lines.append(audit_block(moderator.id, decided.blocking))
        await interaction.followup.send(blocked_answer(decided.blocking), ephemeral=True)
    await interaction.client.note(decided.review.guild_id, lines)


NOT_GONE = (
    "It is not made again, but I could not delete the post yet. I keep trying; you can delete it yourself."
)


# Blocks


class BlockedButton(
    ui.DynamicItem[ui.Button[Any]],
    template=r"blocked:(?P<where>here|everywhere):(?P<label>[A-Za-z]+):(?P<page>-?\d{1,6})",
):
    """Shows a page of `/blocked`, in place."""

    def __init__(self, page: int, label: str, *, everywhere: bool = False, disabled: bool = False) -> None:
        where = "everywhere" if everywhere else "here"
        super().__init__(
            ui.Button(label=label, disabled=disabled, custom_id=f"blocked:{where}:{label}:{page}")
        )
        self.page, self.everywhere = page, everywhere

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        return cls(int(match["page"]), match["label"], everywhere=match["where"] == "everywhere")

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        try:
            view = await blocked_page(interaction, self.page, everywhere=self.everywhere)
            await interaction.response.edit_message(view=view)
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)


async def blocked_page(
    interaction: "discord.Interaction[AnimaticBot]", page: int = 0, *, everywhere: bool = False
) -> ui.LayoutView:
    """Who is blocked, for who may know. Raises Refusal."""
    if everywhere and not await interaction.client.is_owner(interaction.user):
        raise not_the_owner()
    found, page, count = await interaction.client.safety.blocked(
        who(interaction), page, everywhere=everywhere
    )
    return blocked_list(found, page, count, everywhere=everywhere)


def blocked_list(found: Sequence[Block], page: int, count: int, *, everywhere: bool) -> ui.LayoutView:
    """One page of who is blocked."""
    where = "in all servers" if everywhere else "in this server"
    title = f"### {count} blocked {where}" if count else f"### Nobody is blocked {where}"
    lines = [title, *(_blocked_line(block) for block in found)]
    view = ui.LayoutView(timeout=None)
    view.add_item(ui.TextDisplay("\n".join(lines)))
    if count > BLOCKS_PAGE:
        last = (count - 1) // BLOCKS_PAGE
        newer = BlockedButton(page - 1, "Newer", everywhere=everywhere, disabled=page <= 0)
        older = BlockedButton(page + 1, "Older", everywhere=everywhere, disabled=page >= last)
        view.add_item(ui.ActionRow(newer, older))
    return view


def _blocked_line(block: Block) -> str:
    by = f" by <@{block.by}>" if block.by else ""
    since = discord.utils.format_dt(block.at, "d")
    return f"- <@{block.member_id}> since {since}{by}, {_until(block)}{_reason(block, limit=100)}"


def _until(block: Block) -> str:
    return f"until {discord.utils.format_dt(block.until, 'f')}" if block.until else "until unblocked"


def _reason(block: Block, *, limit: int = LONGEST_REASON) -> str:
    return f": {quoted(block.reason, limit=limit)}" if block.reason else ""


def blocked_answer(done: Blocking) -> str:
    """What the moderator reads who blocked somebody."""
    block = done.block
    where = "here" if block.guild_id else "in all servers"
    lines = [
        f"<@{block.member_id}> may not have clips made {where}, {_until(block)}. They read why when they ask."
    ]
    if done.cancelled:
        lines.append(f"{_clips(done.cancelled)} that waited: called off, and nothing was charged.")
    if done.under_way:
        lines.append(
            f"{_clips(done.under_way)} under way: paid for, or about to be, so they come to their end."
        )
    return "\n".join(lines)


def unblocked_answer(member_id: int, *, was: bool) -> str:
    return f"<@{member_id}> may have clips made again." if was else f"<@{member_id}> was not blocked."


def not_the_owner() -> Refusal:
    return Refusal("Only this bot's owner can do this for all servers. Leave `everywhere` out.")


def not_a_moderator() -> Refusal:
    return Refusal(MODERATOR)


def cannot_be_blocked(member_id: int) -> Refusal:
    return Refusal(f"<@{member_id}> moderates here, or is a bot, so I do not block them.")


# Written down


def audit_block(user_id: int, done: Blocking) -> str:
    called_off = f" {_clips(done.cancelled)} called off." if done.cancelled else ""
    return f"<@{user_id}> blocked <@{done.block.member_id}>, {_until(done.block)}{_reason(done.block)}.{called_off}"


def audit_unblock(user_id: int, member_id: int) -> str:
    return f"<@{user_id}> unblocked <@{member_id}>."


def audit_decision(user_id: int, decided: Case) -> str:
    job, found = decided.job, decided.review
    people = "1 member" if found.reporters == 1 else f"{found.reporters} members"
    asker = f" of <@{job.asker_id}>" if job.asker_id != NOBODY else ""
    about = f"the clip `{job.id}`{asker}, reported by {people}: {post_link(found)}"
    if found.state is Verdict.KEPT:
        return f"<@{user_id}> kept {about}"
    called_off = f" {_clips(decided.cancelled)} made from it called off." if decided.cancelled else ""
    return f"<@{user_id}> removed {about}{called_off}"


def bad_pattern(pattern: str) -> str:
    """What moderators read, once, of a pattern that cannot be looked for."""
    return (
        f"I cannot look for the blocked pattern “{escaped(plain(pattern))}”, or it takes too long. Until it is "
        "changed with /settings, I refuse the prompts that I cannot look through."
    )


def _clips(number: int) -> str:
    return "1 clip" if number == 1 else f"{number:,} clips"


def _select(text: str, custom_id: str, options: Sequence[tuple[str, str]]) -> ui.Label[Any]:
    shown = [discord.SelectOption(label=label, value=value) for value, label in options]
    select: ui.Select[Any] = ui.Select(custom_id=custom_id, options=shown, required=True)
    return ui.Label(text=text, component=select)


def _words(text: str, custom_id: str, hint: str, longest: int) -> ui.Label[Any]:
    field: ui.TextInput[Any] = ui.TextInput(
        style=discord.TextStyle.paragraph, custom_id=custom_id, max_length=longest, required=False
    )
    return ui.Label(text=text, description=hint, component=field)
