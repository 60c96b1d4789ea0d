"""A job, drawn: the card while it waits, the post when it is done. Pure, from the job alone.

Every sentence about a job's state stands here, and nowhere else.
"""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

import discord
from discord import ui

from bot.errors import Cause
from bot.jobs.announcing import Waiting
from bot.jobs.budgets import Budget, Scope
from bot.jobs.health import Trouble
from bot.jobs.machine import Job, Lineage, State
from bot.jobs.models import Menu
from bot.ui.answer import MONEY, price
from bot.ui.controls import JobButton
from bot.ui.reviews import ReportButton
from bot.ui.text import elapsed, money, plain, quoted

WORKING = discord.Colour.blurple()
DONE = discord.Colour.green()
STOPPED = discord.Colour.light_grey()
TROUBLE = discord.Colour.red()
ALT_LIMIT = 300  # Discord takes 1024, but counts alt texts towards a message's bytes

WHY = {
    Cause.MODERATION: "The provider's moderation refused it. Try other words or another picture.",
    Cause.BAD_INPUT: "The provider did not accept this picture or these settings. Try another picture.",
    Cause.NO_CREDIT: "The provider says the account has no credit left. The owner of this bot can mend that.",
    Cause.BAD_KEY: "The provider did not accept this bot's key. The owner of this bot can mend that.",
    Cause.NOT_ALLOWED: "The provider does not allow this model for this bot's account. Try another model.",
    Cause.BUSY: "The provider was too busy for too long. Please try again later.",
    Cause.BROKEN: "The provider could not make this clip. Please try again.",
    Cause.NO_ANSWER: "The provider did not answer.",
    Cause.UNREADABLE: "The provider's answer made no sense.",
    Cause.INTERRUPTED: "I was stopped while handing the job over.",
    Cause.PICTURE_GONE: "The picture was gone before I could send it. Please start again with the picture.",
    Cause.OVERDUE: "The provider never finished it.",
    Cause.POISON: "Something about it stopped me again and again, so I gave it up.",
    Cause.CLIP_GONE: "The provider made the clip but no longer has it.",
    Cause.CLIP_UNUSABLE: "What the provider delivered is not a video that I can post.",
    Cause.CLIP_TOO_LARGE: "The clip is too large for this server, even made smaller.",
    Cause.CHANNEL_GONE: "The channel or thread for it is gone.",
    Cause.NO_PERMISSION: "I am no longer allowed to post files here.",
    Cause.POST_DELETED: "Somebody deleted the post.",
    Cause.BLOCKED_BY_DISCORD: "This server's AutoMod stopped the post.",
    Cause.DISCORD_DOWN: "Discord did not take the post.",
}


DONE_WORDS = {
    None: "here is your clip",
    Lineage.AGAIN: "here is another take",
    Lineage.REMIX: "here is your remix",
    Lineage.MODEL: "here it is by another model",
    Lineage.CONTINUE: "here is how it goes on",
}

NOT_COMPARED = "The two clips of this comparison did not come together, so there is nothing to vote on."
NOT_FETCHED = {Cause.NO_ANSWER, Cause.CLIP_GONE, Cause.CLIP_UNUSABLE, Cause.BROKEN}


OWNER = {
    Cause.BAD_KEY: "refuses my key. Put a good one into the config (`routes.{route}`) and start me again",
    Cause.NO_CREDIT: "says that the account has no credit left. Top it up at the provider",
}


def route_in_trouble(route: str, trouble: Trouble) -> str:
    """What the owner reads, once, when a route needs them or is down."""
    what = OWNER.get(trouble.cause, "is not answering").format(route=route)
    return (
        f"The route **{route}** {what}. Until it works I submit nothing there: clips wait, or go another way "
        "where their model has a `fallback`. Members who ask are told. I look again by myself, without spending."
    )


def budget_spent(budget: Budget, mark: int, currency: str, now: datetime) -> str:
    """What those who mind a budget read at one of its marks."""
    whose = "this bot" if budget.scope is Scope.ALL else "this server"
    limit = money(budget.cents, currency, free=False) if budget.cents is not None else f"{budget.clips} clips"
    again = discord.utils.format_dt(budget.stretch.ends(now), "R")
    if mark >= 100:
        return f"The {budget.stretch}'s budget of {whose}, {limit}, is used up. New requests are refused; it starts anew {again}."
    return f"{mark} % of the {budget.stretch}'s budget of {whose}, {limit}, are used. It starts anew {again}."


def card(job: Job, menu: Menu, waiting: Waiting) -> ui.LayoutView:
    """The message that a job owns while it waits, or after it ended without a clip."""
    title, colour = _title(job, waiting)
    box: ui.Container[ui.LayoutView] = ui.Container(accent_colour=colour)
    text = f"### {title}\n{quoted(job.prompt)}" if job.prompt else f"### {title}"
    picture_section(box, f"{text}\n-# {_facts(job, menu)}", job.picture_file, "The picture to animate", job)
    if job.end_picture_file:
        picture_section(box, "-# It ends on this picture.", job.end_picture_file, "The end picture", job)
    if detail := _detail(job, menu, waiting):
        box.add_item(ui.TextDisplay(detail))
    if job.is_open and job.asked_in != job.channel_id:
        box.add_item(ui.TextDisplay(f"-# The clip is posted in <#{job.channel_id}>."))
    if job.state in (State.QUEUED, State.PREPARING):
        box.add_item(ui.ActionRow(JobButton(job.id, "cancel")))
    elif job.state is State.UNDELIVERABLE:
        box.add_item(ui.ActionRow(JobButton(job.id, "post")))
    elif job.state is State.UNSURE:
        buttons = [JobButton(job.id, "drop")]
        if not waiting.looking:
            buttons.insert(0, JobButton(job.id, "retry"))
        box.add_item(ui.ActionRow(*buttons))
    return layout([box])


def post(
    job: Job,
    menu: Menu,
    clip_file: str,
    *,
    seconds_taken: float,
    emoji: str,
    pictures: bool = True,
    spoiler: bool = False,
) -> ui.LayoutView:
    """The message that carries the finished clip, hidden until it is clicked when it is a `spoiler`.

    It mentions the asker, and nobody else.

    `pictures` is False when the source pictures could not be fetched again to go with it.
    """
    if not pictures:
        job = replace(job, picture_file=None, end_picture_file=None)
    box: ui.Container[ui.LayoutView] = ui.Container(accent_colour=DONE)
    facts = f"-# {_facts(job, menu)} · took {elapsed(seconds_taken)}"
    text = f"{quoted(job.prompt)}\n{facts}" if job.prompt else facts
    picture_section(box, text, job.picture_file, "The source picture", job)
    if job.end_picture_file:
        picture_section(box, "-# It ends on this picture.", job.end_picture_file, "The end picture", job)
    by_ai = menu.by_ai(job.model)
    alt = "A video made by AI" if by_ai else "A video made from the picture"
    clip = discord.MediaGalleryItem(
        f"attachment://{clip_file}", description=alt_text(alt, job), spoiler=spoiler
    )
    box.add_item(ui.MediaGallery(clip))
    others = ("model",) if len(menu.models) > 1 else ()
    verbs = ("again", "remix", *others, "continue", "delete")
    box.add_item(ui.ActionRow(*(JobButton(job.id, verb) for verb in verbs)))
    made = "Made by AI" if by_ai else "Drawn by this bot, without AI"
    credit = menu.credit(job.model)
    made = f"{made} · {credit}" if credit else made
    if job.comparison_id:
        box.add_item(ui.TextDisplay(NOT_COMPARED))
    words = ui.TextDisplay[ui.LayoutView](f"-# {made} · react with {emoji} for another take")
    box.add_item(ui.Section(words, accessory=ReportButton(job.id)))
    return layout([ui.TextDisplay(f"<@{job.asker_id}>, {DONE_WORDS[job.lineage]}."), box])


def private_post(job: Job, menu: Menu, clip_file: str, cause: Cause) -> ui.LayoutView:
    """The clip in a direct message to its asker, because the channel does not take it."""
    box: ui.Container[ui.LayoutView] = ui.Container(accent_colour=DONE)
    facts = f"-# {_facts(job, menu)}"
    box.add_item(ui.TextDisplay(f"{quoted(job.prompt)}\n{facts}" if job.prompt else facts))
    by_ai = menu.by_ai(job.model)
    alt = "A video made by AI" if by_ai else "A video made from the picture"
    box.add_item(
        ui.MediaGallery(discord.MediaGalleryItem(f"attachment://{clip_file}", description=alt_text(alt, job)))
    )
    made = "Made by AI" if by_ai else "Drawn by this bot, without AI"
    credit = menu.credit(job.model)
    box.add_item(ui.TextDisplay(f"-# {made} · {credit}" if credit else f"-# {made}"))
    return layout(
        [ui.TextDisplay(f"Your clip is done, but not in <#{job.channel_id}>: {_inside(WHY[cause])}"), box]
    )


def _inside(sentence: str) -> str:
    """A sentence as it stands after a colon."""
    return sentence[0].lower() + sentence[1:] if not sentence.startswith("I ") else sentence


def summary(job: Job, menu: Menu, waiting: Waiting, *, title: str | None = None, words: int = 80) -> str:
    """A job in a few lines, for lists: its state (or another title), so many characters of its prompt, its facts."""
    lines = [f"**{title or _title(job, waiting)[0]}**"]
    if job.prompt:
        lines.append(quoted(job.prompt, limit=words))
    lines.append(f"-# {_facts(job, menu)}")
    if detail := _detail(job, menu, waiting):
        lines.append(detail)
    return "\n".join(lines)


def _title(job: Job, waiting: Waiting) -> tuple[str, discord.Colour]:
    match job.state:
        case State.QUEUED if waiting.paused:
            return "Waiting: new clips are paused", STOPPED
        case State.DRAFT | State.QUEUED:
            place = f", number {waiting.place} in line" if waiting.place and waiting.place > 1 else ""
            return f"Waiting to start{place}", WORKING
        case State.PREPARING | State.SUBMITTING:
            return "Starting", WORKING
        case State.RENDERING if waiting.late:
            return "Taking longer than usual; I keep asking", WORKING
        case State.RENDERING:
            due = f", ready {discord.utils.format_dt(waiting.due, 'R')}" if waiting.due else ""
            return f"Bringing it to life{due}", WORKING
        case State.POSTING | State.DELIVERED:
            return "Done", DONE
        case State.UNSURE:
            return (
                "I do not know yet whether this was taken"
                if waiting.looking
                else "I do not know whether this was taken",
                TROUBLE,
            )
        case State.CANCELLED:
            return "Cancelled", STOPPED
        case State.FAILED:
            return "This did not work", TROUBLE
        case State.UNDELIVERABLE:
            return "Finished, but I cannot post it", TROUBLE


def _detail(job: Job, menu: Menu, waiting: Waiting) -> str | None:
    why = f"{WHY[job.cause]} " if job.cause else ""
    match job.state:
        case State.UNSURE if waiting.looking:
            return f"{why}I am asking the provider whether it took the job. There is nothing for you to do."
        case State.UNSURE:
            return f"{why}This may have been charged; I will not pay twice by myself."
        case State.FAILED | State.CANCELLED:
            return f"{why}{MONEY[job.owed]}"
        case State.UNDELIVERABLE:
            model = menu.models.get(job.model)
            free = model is not None and model.can.free
            facts = [] if free else ["was paid for"]
            facts += [] if job.cause in NOT_FETCHED else ["is kept"]
            clip = f"The clip {' and '.join(facts)}. " if facts else ""
            return f"{why}{clip}When I may post here again, press the button; or use /queue elsewhere."
        case State.QUEUED if job.cause is Cause.BUSY:
            return "The provider is busy; I try again by myself. Nothing is charged until it starts."
        case _:
            return None


def _facts(job: Job, menu: Menu) -> str:
    if job.sealed:
        return f"<@{job.asker_id}> · one of two clips to compare · {job.seconds} s"
    parts = [f"<@{job.asker_id}>", menu.label(job.model), f"{job.seconds} s"]
    parts += [part for part in (job.quality, job.ratio, job.camera, *_extras(job), price(job, menu)) if part]
    return " · ".join(parts)


def _extras(job: Job) -> list[str]:
    return [word for word, wanted in (("loop", job.loop), ("with sound", job.sound)) if wanted]


def picture_section(
    box: ui.Container[ui.LayoutView], text: str, picture: str | None, alt: str, job: Job
) -> None:
    if picture is None:
        box.add_item(ui.TextDisplay(text))
    else:
        thumbnail: ui.Thumbnail[ui.LayoutView] = ui.Thumbnail(
            f"attachment://{picture}", description=alt_text(alt, job)
        )
        box.add_item(ui.Section(text, accessory=thumbnail))


def alt_text(what: str, job: Job) -> str:
    words = plain(job.prompt)
    return f"{what}: {words}"[:ALT_LIMIT] if words else what


def layout(items: Sequence[ui.Item[ui.LayoutView]]) -> ui.LayoutView:
    view = ui.LayoutView(timeout=None)
    for item in items:
        view.add_item(item)
    return view
