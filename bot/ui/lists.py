"""`/queue`, `/history` and `/show`: lists of jobs for one reader, drawn and turned.

A page button carries the whole page in its custom_id, so it works after any restart.
"""

import re
from collections.abc import Sequence
from datetime import datetime, timedelta
from typing import Any, Self

import discord
from discord import ui

from bot.jobs.announcing import Waiting
from bot.jobs.archive import Archive, Line, Past, Shown, Turn, Way
from bot.jobs.browsing import Crowd, Shelf
from bot.jobs.machine import Job, Lineage, State
from bot.jobs.models import Menu
from bot.ui import answer, cards
from bot.ui.controls import JobButton, who
from bot.ui.text import as_many_as_fit, elapsed, escaped, plain, quoted

COMMANDS = {
    "queue": "Your clips under way, and how long the line is",
    "history": "The clips made here, with links to them",
    "show": "One clip: how it does, where it came from, what it cost",
}
OPTIONS = {
    "member": "Whose clips; everybody's when left out",
    "model": "Made by which model; any when left out",
    "id": "The clip: choose one of yours, or an id from /history",
}
ONE_OF_TWO = "to compare"  # instead of a model that is not told yet
TEXT_LIMIT = 3800  # of the 4,000 characters that a message of Components V2 holds
MINE_LIMIT = 2600  # of these, for one's own clips
CHOICE_LIMIT = 100
MODELS_SHOWN = 8
LOOKED_UP_BY = timedelta(minutes=3)  # until then the engine may still be asking the route by itself

# How a clip came from another one; the rest of the sentence names that clip.
LINEAGE = {
    Lineage.AGAIN: "Another take of",
    Lineage.REMIX: "Remix of",
    Lineage.CONTINUE: "Goes on from",
    Lineage.MODEL: "By another model, from",
}


def queue(line: Line, menu: Menu, now: datetime) -> ui.LayoutView:
    """Your own clips with what you can do about each, then what the server waits for."""
    box: ui.Container[ui.LayoutView] = ui.Container(accent_colour=cards.WORKING)
    title = "### Your clips"
    if line.pages > 1:
        title += f" · page {line.page + 1} of {line.pages}"
    box.add_item(ui.TextDisplay(title if line.mine else "### You have no clip in the works"))
    texts = [_mine(job, menu, waiting) for job, waiting in line.mine]
    if sum(map(len, texts)) > MINE_LIMIT:
        texts = [_mine(job, menu, waiting, words=20) for job, waiting in line.mine]
    for number, (text, (job, _)) in enumerate(zip(texts, line.mine, strict=True)):
        if number:
            box.add_item(ui.Separator(visible=False))
        box.add_item(ui.TextDisplay(text))
        if verbs := _verbs(job, now):
            box.add_item(ui.ActionRow(*(JobButton(job.id, verb) for verb in verbs)))
    box.add_item(ui.Separator())
    others = [*_crowd(line.crowd, menu), *_cards(line.cards, menu)]
    box.add_item(ui.TextDisplay(as_many_as_fit(others, TEXT_LIMIT - sum(map(len, texts)))))
    buttons: list[ui.Item[Any]] = [QueueButton(line.page, "Refresh")]
    if line.pages > 1:
        buttons.insert(0, QueueButton(line.page - 1, "Previous", disabled=line.page == 0))
        buttons.append(QueueButton(line.page + 1, "Next", disabled=line.page + 1 >= line.pages))
    return _layout(box, ui.ActionRow(*buttons))


def _mine(job: Job, menu: Menu, waiting: Waiting, *, words: int = 80) -> str:
    text = cards.summary(job, menu, waiting, words=words)
    if job.state is State.QUEUED and waiting.due:
        text += f" · ready about {discord.utils.format_dt(waiting.due, 'R')}"
    address = answer.link(job)
    return f"{text}\n[{'The post' if job.post_id else 'The card'}]({address})" if address else text


def _verbs(job: Job, now: datetime) -> list[str]:
    """What a person may do about their own unfinished clip."""
    match job.state:
        case State.QUEUED | State.PREPARING:
            return ["cancel"]
        case State.UNSURE if now - job.changed_at < LOOKED_UP_BY:
            return ["drop"]
        case State.UNSURE:
            return ["retry", "drop"]
        case State.UNDELIVERABLE:
            return ["post"]
        case _:
            return []


def _crowd(crowd: Crowd, menu: Menu) -> list[str]:
    if not crowd.by_model:
        lines = ["### Nobody in this server waits for a clip"]
    else:
        people = "1 member" if crowd.members == 1 else f"{crowd.members} members"
        lines = [f"### This server: {_busy(crowd.waiting, crowd.working)}, for {people}"]
    for model, waiting, working in crowd.by_model[:MODELS_SHOWN]:
        lines.append(f"- {escaped(menu.label(model))}: {_busy(waiting, working)}")
    if crowd.elsewhere:
        lines.append(f"-# The line is shared with other servers, where {crowd.elsewhere} more wait.")
    return lines


def _busy(waiting: int, working: int) -> str:
    counts = {"waiting": waiting, "in the making": working}
    return ", ".join(f"{count} {what}" for what, count in counts.items() if count)


def _cards(jobs: Sequence[tuple[Job, Waiting]], menu: Menu) -> list[str]:
    """Of clips whose card everybody here can see. Other channels' prompts are not for this reader."""
    lines = ["**In this channel**"] if jobs else []
    for job, waiting in jobs:
        place = f"number {waiting.place} in line" if waiting.place else "in the making"
        prompt = quoted(job.prompt, limit=60) if job.prompt else "no prompt"
        lines.append(f"- {prompt} · <@{job.asker_id}> · {_model(job, menu)} · {place}")
    return lines


def _model(job: Job, menu: Menu) -> str:
    return ONE_OF_TWO if job.sealed else escaped(menu.label(job.model))


def history(past: Past, menu: Menu) -> ui.LayoutView:
    """Past clips with links to their posts."""
    box: ui.Container[ui.LayoutView] = ui.Container(accent_colour=cards.DONE)
    about = [f"by <@{past.turn.member_id}>"] if past.turn.member_id else []
    about += [f"made with {escaped(menu.label(past.turn.model))}"] if past.turn.model else []
    box.add_item(
        ui.TextDisplay(" ".join(["### Clips", *about]) if past.jobs else "### No clips to show here")
    )
    room = TEXT_LIMIT - 200
    shown: list[Job] = []
    for job in past.jobs:
        when = discord.utils.format_dt(job.changed_at, "R")
        title = when if job.state is State.DELIVERED else f"{_ended(job)} {when}"
        text = cards.summary(job, menu, Waiting(), title=title)
        if job.post_id:
            text += f"\n[The post]({answer.link(job)})"
        text += f"\n-# `/show {job.id}`"
        room -= len(text)
        if room < 0:
            break
        box.add_item(ui.TextDisplay(text))
        shown.append(job)
    older = past.older or len(shown) < len(past.jobs)
    if not (past.newer or older):
        return _layout(box)
    first, last = shown[0].id, shown[-1].id
    return _layout(
        box,
        ui.ActionRow(
            HistoryButton(_turned(past.turn, Way.NEWER, first), disabled=not past.newer),
            HistoryButton(_turned(past.turn, Way.OLDER, last), disabled=not older),
        ),
    )


def _turned(turn: Turn, way: Way, beside: str) -> Turn:
    return Turn(member_id=turn.member_id, model=turn.model, way=way, beside=beside)


def _ended(job: Job) -> str:
    return "Not posted," if job.state is State.UNDELIVERABLE else "Did not work,"


def show(shown: Shown, menu: Menu, now: datetime, *, reader_id: int) -> ui.LayoutView:
    """One clip: its state, where it came from, what came from it, its times and its message."""
    job = shown.job
    box: ui.Container[ui.LayoutView] = ui.Container(
        accent_colour=cards.WORKING if job.is_open else cards.DONE
    )
    box.add_item(ui.TextDisplay(cards.summary(job, menu, shown.waiting, words=600)))
    lines = [came_from(job, shown.parent)] if job.parent_id else []
    if shown.takes:
        lines.append(f"{shown.takes} {'clip' if shown.takes == 1 else 'clips'} came from it")
    lines.append(f"Asked for {discord.utils.format_dt(job.created_at, 'f')}")
    if job.submitted_at and job.rendered_at:
        took = elapsed((job.rendered_at - job.submitted_at).total_seconds())
        lines.append(f"Made in {took}, ready {discord.utils.format_dt(job.rendered_at, 'f')}")
    if job.negative_prompt and job.asker_id == reader_id:  # the post does not show it
        lines.append(f"Without: {quoted(job.negative_prompt, limit=200)}")
    if job.price_cents and job.state is State.DELIVERED:
        lines.append(answer.MONEY[job.owed])
    if address := answer.link(job):
        lines.append(f"[{'The post' if job.post_id else 'The card'}]({address})")
    box.add_item(ui.TextDisplay("\n".join([*(f"- {line}" for line in lines), f"-# `{job.id}`"])))
    if job.asker_id == reader_id and (verbs := _verbs(job, now)):
        box.add_item(ui.ActionRow(*(JobButton(job.id, verb) for verb in verbs)))
    return _layout(box)


def came_from(job: Job, parent: Job | None) -> str:
    """Which clip this one was made from, as far as the reader may know."""
    words = LINEAGE[job.lineage or Lineage.AGAIN]
    if parent is None:
        return f"{words} a clip that is gone, or that you cannot see"
    address = answer.link(parent)
    which = f"[a clip]({address})" if address else "a clip"
    return f"{words} {which} by <@{parent.asker_id}> (`{parent.id}`)"


def choice(job: Job, menu: Menu, now: datetime) -> str:
    """A clip in one line, for a list to choose from."""
    ago = elapsed((now - job.created_at).total_seconds())
    model = ONE_OF_TWO if job.sealed else menu.label(job.model)[:24]
    facts = f" · {model} · {ago} ago"
    words = plain(job.prompt) or job.id
    room = CHOICE_LIMIT - len(facts)
    return (words if len(words) <= room else f"{words[: room - 1]}…") + facts


def shelf_of(interaction: discord.Interaction[Any]) -> Shelf:
    """Which clips this reader may see: those of channels that they can read here, as far as we know them."""
    assert interaction.channel_id is not None
    channels = {interaction.channel_id}
    guild, reader = interaction.guild, interaction.user
    if guild is not None and isinstance(reader, discord.Member):
        for channel in (*guild.channels, *guild.threads):
            if isinstance(channel, discord.Thread) and channel.is_private():
                continue  # who is in it is not told to us; the one they are in is there already
            try:
                may = channel.permissions_for(reader)
            except discord.ClientException:  # a thread whose channel is not known
                continue
            if may.view_channel and may.read_message_history:
                channels.add(channel.id)
    return Shelf(guild_id=interaction.guild_id, reader_id=reader.id, channels=channels)


class QueueButton(ui.DynamicItem[ui.Button[Any]], template=r"queue:(?P<label>[A-Za-z]+):(?P<page>-?\d{1,6})"):
    """Shows a page of `/queue` as it is now, in place."""

    def __init__(self, page: int, label: str, *, disabled: bool = False) -> None:
        super().__init__(ui.Button(label=label, disabled=disabled, custom_id=f"queue:{label}:{page}"))
        self.page = page

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        return cls(int(match["page"]), match["label"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        try:
            archive: Archive = interaction.client.archive
            line = await archive.line(who(interaction), self.page)
            await interaction.response.edit_message(view=queue(line, archive.menu, archive.now()))
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)


class HistoryButton(
    ui.DynamicItem[ui.Button[Any]],
    template=r"history:(?P<member>\d{1,20}):(?P<model>[a-z0-9_-]{1,32}|\*):(?P<way>older|newer):(?P<id>[a-z0-9]{1,20})",
):
    """Shows the clips before or after one, in place; what the reader may see is looked up anew."""

    def __init__(self, turn: Turn, *, disabled: bool = False) -> None:
        label = "Older" if turn.way is Way.OLDER else "Newer"
        custom_id = f"history:{turn.member_id or 0}:{turn.model or '*'}:{turn.way}:{turn.beside}"
        super().__init__(ui.Button(label=label, disabled=disabled, custom_id=custom_id))
        self.turn = turn

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        model = None if match["model"] == "*" else match["model"]
        return cls(
            Turn(
                member_id=int(match["member"]) or None, model=model, way=Way(match["way"]), beside=match["id"]
            )
        )

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        try:
            archive: Archive = interaction.client.archive
            past = await archive.past(shelf_of(interaction), self.turn)
            await interaction.response.edit_message(view=history(past, archive.menu))
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)


def _layout(*items: ui.Item[Any]) -> ui.LayoutView:
    view = ui.LayoutView(timeout=None)
    for item in items:
        view.add_item(item)
    return view
