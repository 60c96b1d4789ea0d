"""`/compare` and `/leaderboard`: the question, the post with both clips, its result, and what is said privately.

Which clip is which model's is told nowhere before the result: the labels were drawn by lot, and what is
written about both names them in an order of its own.
"""

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime
from typing import TYPE_CHECKING, Any, Self

import discord
from discord import ui

from bot.jobs.comparing import Leaderboard, Versus
from bot.jobs.comparisons import PROPOSED_FOR, Choice, Comparison
from bot.jobs.machine import Job
from bot.jobs.models import Menu
from bot.providers.base import Picture, PictureRules
from bot.ui import answer, catalogue
from bot.ui.cards import DONE, alt_text, layout, picture_section
from bot.ui.controls import JobButton, who
from bot.ui.reviews import ReportButton
from bot.ui.sources import attached, fetch
from bot.ui.text import escaped, money, quoted

if TYPE_CHECKING:
    from bot.client import AnimaticBot

COMMANDS = {
    "compare": "Have two models make the same clip, and let members vote on which is better",
    "leaderboard": "Which models members here like better",
}
OPTIONS = {
    "prompt": "What should happen in both clips",
    "picture": "The picture that both clips start from",
    "first": "One of the two models; this server's usual one when left out",
    "second": "The other model; the next that can do the same when left out",
    "seconds": "How long both clips are",
}
LABELS = {
    "a": ("A is better", discord.ButtonStyle.primary),
    "b": ("B is better", discord.ButtonStyle.primary),
    "same": ("No difference", discord.ButtonStyle.secondary),
    "show": ("Show the result", discord.ButtonStyle.secondary),
}
CHOSEN = {Choice.A: "A is better", Choice.B: "B is better", Choice.SAME: "no difference"}
BAR = 12  # characters
TEXT_LIMIT = 3800
FEW_VOTES = 20
PICTURE_FILE = "picture"


def question(versus: Versus, menu: Menu, comparison: Comparison) -> str:
    """Both models and their prices, before anything is spent."""
    expires = discord.utils.format_dt(comparison.created_at + PROPOSED_FOR, "R")
    lines = [
        f"- {escaped(plan.model.label)}, {plan.seconds} s: "
        f"{money(plan.price_cents, menu.currency, free=plan.model.can.free) or 'price not known'}"
        for plan in versus.plans
    ]
    return "\n".join(
        [
            f"Compare two models on {quoted(versus.plans[0].prompt, limit=300)}:",
            *lines,
            f"**Together: {_sum(versus, menu)}.** Nothing is spent before you press the button. I forget about "
            f"it {expires}.",
        ]
    )


def _sum(versus: Versus, menu: Menu) -> str:
    free = all(plan.model.can.free for plan in versus.plans)
    return money(versus.cents, menu.currency, free=free) or "price not known"


def start_label(versus: Versus, menu: Menu) -> str:
    """Of the button that starts it."""
    cost = money(versus.cents, menu.currency, free=False)
    return f"Compare (costs {cost})" if cost and len(cost) <= 16 else "Compare"


def receipt(jobs: Sequence[Job], menu: Menu) -> str:
    """The private answer to the press."""
    names = " and ".join(sorted(escaped(menu.label(job.model)) for job in jobs))
    cost = money(sum(job.price_cents for job in jobs), menu.currency, free=False)
    return (
        f"On its way: {names}{f', {cost} together' if cost else ''}. When both clips are there, they are "
        "posted as A and B; which is which is told with the result. What fails is not compared, and the "
        "other clip is posted all the same."
    )


def vote_noted(choice: Choice, comparison: Comparison) -> str:
    closes = discord.utils.format_dt(comparison.closes_at, "R") if comparison.closes_at else "later"
    return (
        f"Your vote: {CHOSEN[choice]}. You can change it until the result is shown, {closes} at the latest."
    )


SHOWN = "The vote is over. The result appears in the post."


def post(
    comparison_id: str,
    jobs: tuple[Job, Job],
    menu: Menu,
    clip_files: tuple[str, str],
    *,
    closes_at: datetime,
    pictures: bool,
    spoiler: bool,
) -> ui.LayoutView:
    """The message with both clips, to be voted on. It mentions the asker, and nobody else."""
    closes = discord.utils.format_dt(closes_at, "R")
    box = _clips(jobs, menu, clip_files, ("### A", "### B"), pictures=pictures, spoiler=spoiler)
    box.add_item(ui.ActionRow(*(VersusButton(comparison_id, verb) for verb in ("a", "b", "same"))))
    box.add_item(ui.ActionRow(VersusButton(comparison_id, "show"), JobButton(jobs[0].id, "delete")))
    words = (
        f"-# Vote for the clip that you like better. The votes and the models' names are shown {closes}, "
        f"or when <@{jobs[0].asker_id}> or a moderator ends the vote. {_made(jobs, menu)}"
    )
    box.add_item(_reportable(words, jobs))
    return layout([ui.TextDisplay(f"<@{jobs[0].asker_id}>, here are two clips to compare."), box])


def result(
    jobs: tuple[Job, Job],
    menu: Menu,
    clip_files: tuple[str, str],
    votes: Mapping[Choice, int],
    *,
    pictures: bool,
    spoiler: bool,
) -> ui.LayoutView:
    """The same message when the vote is over: with the names, and what members said."""
    titles = tuple(
        f"### {label}: {escaped(menu.label(job.model))}{_cost(job, menu)}"
        for label, job in zip("AB", jobs, strict=True)
    )
    box = _clips(jobs, menu, clip_files, (titles[0], titles[1]), pictures=pictures, spoiler=spoiler)
    most = max(votes.values(), default=0)
    names = {
        Choice.A: f"A, {escaped(menu.label(jobs[0].model))}",
        Choice.B: f"B, {escaped(menu.label(jobs[1].model))}",
        Choice.SAME: "No difference",
    }
    lines = [f"`{_bar(votes[choice], most)}` {votes[choice]} · {names[choice]}" for choice in Choice]
    box.add_item(ui.TextDisplay("\n".join([f"### {_verdict(votes, jobs, menu)}", *lines])))
    box.add_item(ui.ActionRow(JobButton(jobs[0].id, "delete")))
    box.add_item(_reportable(f"-# {_made(jobs, menu)}", jobs))
    return layout([ui.TextDisplay(f"<@{jobs[0].asker_id}>, here is the result of your comparison."), box])


def _reportable(words: str, jobs: tuple[Job, Job]) -> ui.Section[Any]:
    """The last line, with *Report*: for both clips, under the id of the older one (`Desk.reported_by`)."""
    return ui.Section(words, accessory=ReportButton(min(job.id for job in jobs)))


def _clips(
    jobs: tuple[Job, Job],
    menu: Menu,
    clip_files: tuple[str, str],
    titles: tuple[str, str],
    *,
    pictures: bool,
    spoiler: bool,
) -> ui.Container[ui.LayoutView]:
    host = jobs[0] if pictures else replace(jobs[0], picture_file=None)
    box: ui.Container[ui.LayoutView] = ui.Container(accent_colour=DONE)
    facts = f"-# <@{host.asker_id}> · {host.seconds} s · two models, the same words and picture"
    text = f"{quoted(host.prompt)}\n{facts}" if host.prompt else facts
    picture_section(box, text, host.picture_file, "The source picture", host)
    for label, title, name in zip("AB", titles, clip_files, strict=True):
        box.add_item(ui.TextDisplay(title))
        clip = discord.MediaGalleryItem(
            f"attachment://{name}", description=alt_text(f"Clip {label}", host), spoiler=spoiler
        )
        box.add_item(ui.MediaGallery(clip))
    return box


def _cost(job: Job, menu: Menu) -> str:
    cost = answer.price(job, menu)
    return f" · {cost}" if cost else ""


def _made(jobs: tuple[Job, Job], menu: Menu) -> str:
    """What has to stand under the clips, in an order that does not tell which is whose."""
    by_ai = [menu.by_ai(job.model) for job in jobs]
    made = "Made by AI" if all(by_ai) else "One of them is made by AI" if any(by_ai) else "Made without AI"
    owed = sorted({credit for job in jobs if (credit := menu.credit(job.model))})
    return " · ".join([made, *owed])


def _bar(votes: int, most: int) -> str:
    full = round(BAR * votes / most) if most else 0
    return "█" * full + "░" * (BAR - full)


def _verdict(votes: Mapping[Choice, int], jobs: tuple[Job, Job], menu: Menu) -> str:
    a, b = votes[Choice.A], votes[Choice.B]
    if not sum(votes.values()):
        return "Nobody voted"
    if a == b:
        return "No winner"
    winner = jobs[0] if a > b else jobs[1]
    return f"{'A' if a > b else 'B'} wins: {escaped(menu.label(winner.model))}"


def leaderboard(board: Leaderboard, menu: Menu) -> ui.LayoutView:
    """The models by what members of this server said."""
    if not board.votes:
        return layout(
            [ui.TextDisplay("### No votes yet\nStart a comparison with /compare; members vote on its clips.")]
        )
    lines = [
        f"{place}. **{escaped(menu.label(name))}** · {rating.points:,.0f} ± {rating.plus_minus:,.0f}\n"
        f"-# {_number(seen, 'comparison')}, {_number(rating.votes, 'vote')}"
        for place, (name, rating, seen) in enumerate(board.rows, start=1)
    ]
    while sum(map(len, lines)) > TEXT_LIMIT - 800:
        lines.pop()
    total = f"{_number(board.votes, 'vote')} in {_number(board.comparisons, 'comparison')}"
    few = ""
    if board.votes < FEW_VOTES:
        few = f"\n**Only {total} so far: too few to say which model is better.**"
    return layout(
        [
            ui.TextDisplay(f"### Models as members here see them{few}"),
            ui.TextDisplay("\n".join(lines)),
            ui.TextDisplay(
                f"-# {total}. One opinion is one member's vote, and only comparisons whose result is shown count. "
                "A model 400 points ahead is preferred ten times out of eleven. The true value lies within ± with 95 % "
                "confidence, if votes are independent; where these ranges overlap, the order may be chance."
            ),
        ]
    )


def _number(count: int, what: str) -> str:
    return f"1 {what}" if count == 1 else f"{count:,} {what}s"


class StartButton(ui.DynamicItem[ui.Button[Any]], template=r"compare:(?P<id>[a-z0-9]{1,20}):start"):
    """Starts a comparison whose prices were shown; the picture hangs on the message that the button is on."""

    def __init__(self, comparison_id: str, label: str = "Compare") -> None:
        custom_id = f"compare:{comparison_id}:start"
        super().__init__(ui.Button(label=label, custom_id=custom_id, style=discord.ButtonStyle.primary))
        self.comparison_id = comparison_id

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        return cls(match["id"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        try:
            await self._start(interaction)
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)

    async def _start(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        answer.require_permissions(interaction)
        await interaction.response.defer()
        bot, message = interaction.client, interaction.message
        assert message is not None

        async def picture(rules: PictureRules) -> Picture:
            return await fetch(bot.http, attached(message.attachments[0]), rules, name=catalogue.PICTURE)

        jobs = await bot.comparing.start(who(interaction), self.comparison_id, picture)
        await interaction.edit_original_response(content=receipt(jobs, bot.comparing.menu), view=None)


class VersusButton(
    ui.DynamicItem[ui.Button[Any]], template=r"versus:(?P<id>[a-z0-9]{1,20}):(?P<verb>a|b|same|show)"
):
    """Votes on a comparison, or ends the vote."""

    def __init__(self, comparison_id: str, verb: str) -> None:
        label, style = LABELS[verb]
        super().__init__(ui.Button(label=label, style=style, custom_id=f"versus:{comparison_id}:{verb}"))
        self.comparison_id, self.verb = comparison_id, verb

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        return cls(match["id"], match["verb"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        try:
            await self._press(interaction)
        except Exception as error:  # noqa: BLE001 - as above
            await answer.error(interaction, error)

    async def _press(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        comparing = interaction.client.comparing
        await answer.acknowledge(interaction)
        if self.verb == "show":
            await comparing.reveal(who(interaction), self.comparison_id)
            text = SHOWN
        else:
            choice = Choice(self.verb)
            text = vote_noted(choice, await comparing.vote(who(interaction), self.comparison_id, choice))
        await interaction.followup.send(text, ephemeral=True)
