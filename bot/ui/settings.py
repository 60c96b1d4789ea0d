"""The panel of /settings: its pages, its modals, what was chosen and typed in them, and the audit's lines.

All that is needed to understand a press stands in its custom_id, so a panel works after any restart.
"""

import re
import unicodedata
from collections.abc import Collection, Iterable, Mapping, Sequence
from decimal import Decimal, InvalidOperation
from typing import Any

import discord
from discord import ui

from bot.errors import Refusal
from bot.jobs.guilds import (
    LONGEST_PATTERN,
    LONGEST_WORD,
    MOST_CENTS,
    MOST_CHOSEN,
    MOST_CLIPS,
    MOST_PATTERNS,
    MOST_WORDS,
    GuildSettings,
    Paused,
    WhosePictures,
    refuse_bad_pattern,
)
from bot.jobs.models import Menu
from bot.ui.guide import Reader
from bot.ui.text import escaped, money, plain

PREFIX = "settings:"
PAGE = f"{PREFIX}page"
ROLE = f"{PREFIX}role"
UNCHANGED = "Nothing was changed."
NONE = "-"  # the value of "no choice of our own"
TYPED = 4000
NUMBER = 12  # characters of a number or an amount
SAID = 300  # characters of a value in an audit line
EMOJI = re.compile(r"<a?:\w{2,32}:\d{15,20}>")
MODERATOR = "Only those who may **Manage Server** can do this."

PAGES = {
    "who": ("Who and where", "Channels and roles"),
    "models": ("Models", "Which model and length by default, and how dear a clip may be"),
    "takes": ("Another take", "The emoji, who may use it, how often, and when it asks back"),
    "posts": ("Pictures and posts", "Whose pictures may be used, and whether clips are hidden"),
    "limits": ("Limits", "Of a member, a role, a channel and this server, in clips and money"),
    "words": ("Words", "What prompts may not say"),
    "team": ("Moderators' channels", "Where changes are written down, and where reports go"),
}

FIELDS = {
    "channels": "Channels for clips",
    "results_channel": "Channel for results",
    "roles": "Roles that may have clips made",
    "default_model": "Model by default",
    "default_seconds": "Length by default",
    "most_cents": "The dearest clip",
    "requeue_emoji": "Emoji for another take",
    "requeue_roles": "Roles that may have another take",
    "requeues_per_day": "Takes of one clip a day",
    "confirm_above_cents": "Ask back above",
    "pictures": "Whose pictures may be used",
    "spoiler": "Clips as spoilers",
    "audit_channel": "Channel for changes",
    "review_channel": "Channel for reports",
    "member_clips_per_day": "Clips of a member a day",
    "member_cents_per_day": "Money of a member a day",
    "role_clips_per_day": "Clips a day by role",
    "channel_clips_per_day": "Clips of a channel a day",
    "server_cents_per_day": "Money of this server a day",
    "server_cents_per_month": "Money of this server a month",
    "blocked_words": "Blocked words",
    "blocked_patterns": "Blocked patterns",
}

# Which fields a modal asks for, and the page that it is opened from. A modal holds five.
FORMS = {
    "price": ("models", ("most_cents",)),
    "takes": ("takes", ("requeue_emoji", "requeues_per_day", "confirm_above_cents")),
    "limits": (
        "limits",
        (
            "member_clips_per_day",
            "member_cents_per_day",
            "channel_clips_per_day",
            "server_cents_per_day",
            "server_cents_per_month",
        ),
    ),
    "words": ("words", ("blocked_words", "blocked_patterns")),
}
OPENERS = {
    "price": "Change the dearest clip",
    "takes": "Change emoji and numbers",
    "limits": "Change limits",
    "words": "Change words",
}
HINTS = {
    "most_cents": "What one clip may cost at most, for example {currency}0.50. Empty: no limit.",
    "requeue_emoji": "One emoji: from the keyboard, or one of this server's as <:name:number>.",
    "requeues_per_day": "How often one clip may be made again within a day. 0: never. Empty: as usual.",
    "confirm_above_cents": "A reaction to a clip dearer than this is asked back first. Empty: never.",
    "member_clips_per_day": "A whole number. Empty: no limit. Roles can have a number of their own.",
    "member_cents_per_day": "An amount, for example {currency}2.50. Empty: no limit.",
    "channel_clips_per_day": "In each channel. Empty: no limit.",
    "server_cents_per_day": "All members together. Empty: no limit.",
    "server_cents_per_month": "All members together. Empty: no limit.",
    "blocked_words": "One on each line. Empty: none.",
    "blocked_patterns": "Regular expressions of RE2, one on each line. Empty: none.",
}
WHOSE = {
    WhosePictures.ANYONE: "Anyone's",
    WhosePictures.ASK: "Anyone's who allows it when asked",
    WhosePictures.OWN: "Only one's own",
}
CHANNELS = [
    discord.ChannelType.text,
    discord.ChannelType.news,
    discord.ChannelType.forum,
    discord.ChannelType.voice,
    discord.ChannelType.stage_voice,
]
PAGE_OF = {
    "channels": "who",
    "results_channel": "who",
    "roles": "who",
    "default_model": "models",
    "default_seconds": "models",
    "requeue_roles": "takes",
    "pictures": "posts",
    "spoiler": "posts",
    "audit_channel": "team",
    "review_channel": "team",
}


# Drawn


def panel(settings: GuildSettings, menu: Menu, page: str, *, known: Collection[int]) -> ui.LayoutView:
    """One page of the panel. `known`: the ids of the channels and roles that there are."""
    view = ui.LayoutView(timeout=None)
    heading = "## Settings of this server"
    if settings.paused:
        who = "moderators" if settings.paused is Paused.HERE else "owner of this bot"
        heading += f"\nNew clips are paused by the {who}."
    view.add_item(ui.TextDisplay(heading))
    pages = [
        discord.SelectOption(label=label, description=what, value=name, default=name == page)
        for name, (label, what) in PAGES.items()
    ]
    view.add_item(_row(ui.Select(custom_id=PAGE, options=pages)))
    box: ui.Container[Any] = ui.Container(accent_colour=discord.Colour.blurple())
    for item in _PAGES[page](settings, menu, known):
        box.add_item(item)
    view.add_item(box)
    # What is pressed is answered by its custom_id: discord.py need not keep the panel in memory.
    view.stop()
    return view


def _who(settings: GuildSettings, _menu: Menu, known: Collection[int]) -> Iterable[ui.Item[Any]]:
    yield ui.TextDisplay("**Channels for clips**\n-# None chosen: all. A channel's threads count with it.")
    yield _channels("channels", settings.channels, known, MOST_CHOSEN, CHANNELS, "All channels")
    yield ui.TextDisplay(
        f"**{FIELDS['results_channel']}**\n-# Finished clips are posted there, and may be asked for there too. None "
        "chosen: they stay where they were asked for, as do those of an age-restricted channel unless this one is "
        "age-restricted too."
    )
    chosen = [settings.results_channel] if settings.results_channel else []
    yield _channels("results_channel", chosen, known, 1, CHANNELS[:2], "Where they were asked for")
    yield ui.TextDisplay(
        "**Roles that may have clips made**\n-# None chosen: everybody. Moderators always may."
    )
    yield _roles("roles", settings.roles, known, "Everybody")


def _models(settings: GuildSettings, menu: Menu, _known: Collection[int]) -> Iterable[ui.Item[Any]]:
    yield ui.TextDisplay("**When a member names no model or length**")
    names = sorted(menu.models, key=lambda name: name != settings.default_model)[: MOST_CHOSEN - 1]
    models = [(NONE, f"As the bot's owner has it: {menu.label(menu.default)}"[:100])]
    models += [(name, menu.label(name)) for name in menu.models if name in names]
    yield _choice("default_model", models, settings.default_model or NONE)
    lengths = sorted({seconds for model in menu.models.values() for seconds in model.can.seconds})
    seconds = [(NONE, "As the model does by itself"), *((str(one), f"{one} seconds") for one in lengths)]
    yield _choice("default_seconds", seconds[:MOST_CHOSEN], str(settings.default_seconds or NONE))
    yield ui.TextDisplay(
        f"{_lines(settings, menu, ('most_cents',))}\n-# What costs more is switched off in this server."
    )
    yield _opener("price")


def _takes(settings: GuildSettings, menu: Menu, known: Collection[int]) -> Iterable[ui.Item[Any]]:
    yield ui.TextDisplay(
        "**Roles that may have another take**\n-# None chosen: everybody who may have clips made."
    )
    yield _roles("requeue_roles", settings.requeue_roles, known, "Everybody")
    yield ui.TextDisplay(_lines(settings, menu, FORMS["takes"][1]))
    yield _opener("takes")


def _posts(settings: GuildSettings, _menu: Menu, _known: Collection[int]) -> Iterable[ui.Item[Any]]:
    yield ui.TextDisplay(
        "**Whose pictures may be used**\n-# By the menu on a message, another take, and a remix of a clip."
    )
    yield _choice("pictures", [(one.value, label) for one, label in WHOSE.items()], settings.pictures.value)
    yield ui.TextDisplay("**Clips as spoilers**\n-# Hidden until they are clicked.")
    yield _choice("spoiler", [("no", "No"), ("yes", "Yes")], "yes" if settings.spoiler else "no")


def _limits(settings: GuildSettings, menu: Menu, _known: Collection[int]) -> Iterable[ui.Item[Any]]:
    yield ui.TextDisplay(
        f"{_lines(settings, menu, FORMS['limits'][1])}\n"
        "-# Days and months are those of UTC. What fails is given back. The limits of the bot's owner hold as well."
    )
    yield _opener("limits")
    yield ui.TextDisplay(
        f"**{FIELDS['role_clips_per_day']}**\n{said('role_clips_per_day', settings.role_clips_per_day, menu)}\n"
        "-# Instead of the number for members; the highest of a member's roles counts."
    )
    yield _row(ui.RoleSelect(custom_id=ROLE, placeholder="A role to set a number for", max_values=1))


def _words(settings: GuildSettings, _menu: Menu, _known: Collection[int]) -> Iterable[ui.Item[Any]]:
    yield ui.TextDisplay(
        f"**Words**: {len(settings.blocked_words)} blocked\n**Patterns**: {len(settings.blocked_patterns)} blocked\n"
        "-# A prompt that has one of them is refused before anything is spent."
    )
    yield _opener("words")


def _team(settings: GuildSettings, _menu: Menu, known: Collection[int]) -> Iterable[ui.Item[Any]]:
    text = CHANNELS[:2]
    yield ui.TextDisplay("**Channel for changes**\n-# Who changed what, and when a budget is nearly spent.")
    chosen = [settings.audit_channel] if settings.audit_channel else []
    yield _channels("audit_channel", chosen, known, 1, text, "None")
    yield ui.TextDisplay("**Channel for reports**\n-# What members report goes there.")
    chosen = [settings.review_channel] if settings.review_channel else []
    yield _channels("review_channel", chosen, known, 1, text, "None")


_PAGES = {
    "who": _who,
    "models": _models,
    "takes": _takes,
    "posts": _posts,
    "limits": _limits,
    "words": _words,
    "team": _team,
}


def _row(item: ui.Item[Any]) -> ui.ActionRow[Any]:
    return ui.ActionRow(item)


def _channels(
    field: str,
    chosen: Collection[int],
    known: Collection[int],
    most: int,
    types: list[discord.ChannelType],
    none: str,
) -> ui.ActionRow[Any]:
    kind = discord.SelectDefaultValueType.channel
    return _row(
        ui.ChannelSelect(
            custom_id=f"{PREFIX}set:{field}",
            channel_types=types,
            placeholder=none,
            min_values=0,
            max_values=most,
            default_values=[
                discord.SelectDefaultValue(id=one, type=kind) for one in sorted(chosen) if one in known
            ],
        )
    )


def _roles(field: str, chosen: Collection[int], known: Collection[int], none: str) -> ui.ActionRow[Any]:
    kind = discord.SelectDefaultValueType.role
    return _row(
        ui.RoleSelect(
            custom_id=f"{PREFIX}set:{field}",
            placeholder=none,
            min_values=0,
            max_values=MOST_CHOSEN,
            default_values=[
                discord.SelectDefaultValue(id=one, type=kind) for one in sorted(chosen) if one in known
            ],
        )
    )


def _choice(field: str, options: Sequence[tuple[str, str]], chosen: str) -> ui.ActionRow[Any]:
    shown = [
        discord.SelectOption(label=label, value=value, default=value == chosen) for value, label in options
    ]
    return _row(ui.Select(custom_id=f"{PREFIX}set:{field}", options=shown))


def _opener(form: str) -> ui.ActionRow[Any]:
    return _row(ui.Button(label=OPENERS[form], custom_id=f"{PREFIX}ask:{form}"))


def _lines(settings: GuildSettings, menu: Menu, fields: Iterable[str]) -> str:
    return "\n".join(
        f"**{FIELDS[field]}**: {said(field, getattr(settings, field), menu)}" for field in fields
    )


# Typed


def form(name: str, settings: GuildSettings, menu: Menu) -> ui.Modal:
    """The modal in which numbers, money and words are typed, filled with what holds."""
    modal = ui.Modal(title=OPENERS[name], custom_id=f"{PREFIX}form:{name}", timeout=900)
    for field in FORMS[name][1]:
        words = name == "words"
        modal.add_item(
            _question(
                FIELDS[field],
                HINTS[field].format(currency=menu.currency),
                field,
                _as_typed(
                    getattr(settings, field),
                    money=field.endswith(("_cents", "_day", "_month")) and "cents" in field,
                ),
                long=words,
            )
        )
    modal.stop()
    return modal


def role_form(role_id: int, role_name: str, settings: GuildSettings) -> ui.Modal:
    """The modal for the number of clips of a role."""
    modal = ui.Modal(title="Clips a day of a role", custom_id=f"{PREFIX}form:role.{role_id}", timeout=900)
    number = settings.role_clips_per_day.get(role_id)
    label = plain(role_name)[:45] or "Role"
    hint = "A whole number. Empty: as for everybody."
    modal.add_item(_question(label, hint, "clips", "" if number is None else str(number)))
    modal.stop()
    return modal


def _question(text: str, hint: str, custom_id: str, value: str, *, long: bool = False) -> ui.Label[Any]:
    longest = TYPED if long else 64 if custom_id == "requeue_emoji" else NUMBER
    style = discord.TextStyle.paragraph if long else discord.TextStyle.short
    field: ui.TextInput[Any] = ui.TextInput(
        style=style, custom_id=custom_id, default=value[:longest] or None, max_length=longest, required=False
    )
    return ui.Label(text=text, description=hint, component=field)


def _as_typed(value: Any, *, money: bool) -> str:
    if value is None:
        return ""
    if isinstance(value, tuple):
        return "\n".join(value)
    return f"{value / 100:.2f}" if money else str(value)


def typed(name: str, answers: Mapping[str, str], menu: Menu, usual: GuildSettings) -> dict[str, Any]:
    """What a submitted modal decides, by field. Raises Refusal."""
    changes: dict[str, Any] = {}
    for field in FORMS[name][1]:
        text = answers.get(field, "").strip()
        if field == "requeue_emoji":
            changes[field] = _emoji(text) if text else usual.requeue_emoji
        elif field == "blocked_words":
            changes[field] = _listed(text, "words", MOST_WORDS, LONGEST_WORD)
        elif field == "blocked_patterns":
            changes[field] = _listed(text, "patterns", MOST_PATTERNS, LONGEST_PATTERN)
        elif "cents" in field:
            changes[field] = _cents(text, menu.currency)
        else:
            changes[field] = _number(text)
    for pattern in changes.get("blocked_patterns", ()):
        try:
            refuse_bad_pattern(pattern)
        except Refusal as refusal:
            raise Refusal(f"{refusal} {UNCHANGED}") from None
    if changes.get("requeues_per_day", 0) is None:
        changes["requeues_per_day"] = usual.requeues_per_day
    return changes


def typed_for_role(role_id: int, answers: Mapping[str, str], settings: GuildSettings) -> dict[str, Any]:
    """What the modal of a role decides. Raises Refusal."""
    numbers = dict(settings.role_clips_per_day)
    number = _number(answers.get("clips", "").strip())
    numbers.pop(role_id, None)
    if number is not None:
        numbers[role_id] = number
    if len(numbers) > MOST_CHOSEN:
        raise Refusal(f"At most {MOST_CHOSEN} roles can have a number of their own. {UNCHANGED}")
    return {"role_clips_per_day": numbers}


def chosen(field: str, values: Sequence[str]) -> dict[str, Any]:
    """What a select of the panel decides. Raises Refusal for one that is not ours."""
    match field:
        case "channels" | "roles" | "requeue_roles":
            return {field: frozenset(map(int, values))}
        case "audit_channel" | "review_channel" | "results_channel":
            return {field: int(values[0]) if values else None}
        case "default_model":
            return {field: None if values[0] == NONE else values[0]}
        case "default_seconds":
            return {field: None if values[0] == NONE else int(values[0])}
        case "pictures":
            return {field: WhosePictures(values[0])}
        case "spoiler":
            return {field: values[0] == "yes"}
        case _:
            raise Refusal("This menu is from a newer version of me.")


def _number(text: str) -> int | None:
    if not text:
        return None
    digits = text.replace(" ", "").replace("'", "")
    if not (digits.isascii() and digits.isdecimal()) or int(digits) > MOST_CLIPS:
        raise Refusal(
            f"“{escaped(plain(text))}” is not a number that I can use. Write a whole number from 0 to "
            f"{MOST_CLIPS:,}, or leave it empty for no limit. {UNCHANGED}"
        )
    return int(digits)


def _cents(text: str, currency: str) -> int | None:
    """An amount as people type it: `2.50`, `2,50` or `$2.5`."""
    if not text:
        return None
    bare = text.replace(currency, "").replace(" ", "").replace("\u00a0", "")
    if "," in bare and "." not in bare and len(bare.rsplit(",", 1)[1]) <= 2:
        bare = bare.replace(",", ".")
    try:
        cents = Decimal(bare) * 100 if re.fullmatch(r"[0-9]+(\.[0-9]{1,2})?", bare) else Decimal(-1)
    except InvalidOperation:
        cents = Decimal(-1)
    if not 0 <= cents <= MOST_CENTS:
        raise Refusal(
            f"“{escaped(plain(text))}” is not an amount that I can use. Write it like {currency}2.50, up to "
            f"{currency}{MOST_CENTS // 100:,}, or leave it empty for no limit. {UNCHANGED}"
        )
    return int(cents)


def _emoji(text: str) -> str:
    """One emoji as Discord writes it. Raises Refusal for other text; Discord itself knows all emoji."""
    odd = ("L", "Cc", "Z")
    words = any(unicodedata.category(c).startswith(odd) for c in text)
    if EMOJI.fullmatch(text) or (not words and any(ord(c) > 0x2000 for c in text) and len(text) <= 16):
        return text
    raise Refusal(
        f"“{escaped(plain(text))}” is not an emoji that I can react with. Write one from the keyboard, or one "
        f"of this server's as \\<:name:number>. {UNCHANGED}"
    )


def _listed(text: str, what: str, most: int, longest: int) -> tuple[str, ...]:
    """The lines of a text, each once, however it is written."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if word := line.strip():
            found.setdefault(word.casefold() if what == "words" else word, word)
    if len(found) > most:
        raise Refusal(f"These are {len(found)} {what}; I can look for {most}. {UNCHANGED}")
    if long := [word for word in found.values() if len(word) > longest]:
        raise Refusal(
            f"One line has {len(long[0])} characters; {what} may have {longest}. Write one on each line. {UNCHANGED}"
        )
    return tuple(found.values())


# Said


def said(field: str, value: Any, menu: Menu) -> str:
    """The value of a setting, in words."""
    if field == "role_clips_per_day":
        return ", ".join(f"<@&{role}> {clips}" for role, clips in sorted(value.items())) or "none"
    if field in ("channels", "roles", "requeue_roles"):
        mention = "<#{}>" if field == "channels" else "<@&{}>"
        return ", ".join(mention.format(one) for one in sorted(value)) or "all"
    if field in ("blocked_words", "blocked_patterns"):
        return ", ".join(f"“{escaped(plain(word))}”" for word in value) or "none"
    if field == "pictures":
        return WHOSE[value].lower()
    if field == "spoiler":
        return "yes" if value else "no"
    if value is None:
        return {
            "default_model": "as the bot's owner has it",
            "default_seconds": "as the model does by itself",
            "confirm_above_cents": "never",
            "audit_channel": "none",
            "review_channel": "none",
            "results_channel": "where they were asked for",
        }.get(field, "no limit")
    if field.endswith("_channel"):
        return f"<#{value}>"
    if field == "default_model":
        return escaped(menu.label(value))
    if field == "default_seconds":
        return f"{value} seconds"
    if "cents" in field:
        return money(value, menu.currency, free=False) or f"{menu.currency}0.00"
    return str(value)


def audit_lines(user_id: int, before: GuildSettings, after: GuildSettings, menu: Menu) -> list[str]:
    """Who changed what, from what, to what: a line for each field."""
    lines = []
    for field, label in FIELDS.items():
        old, new = getattr(before, field), getattr(after, field)
        if old != new:
            lines.append(
                f"<@{user_id}> changed **{label}** from {_cut(said(field, old, menu))} to "
                f"{_cut(said(field, new, menu))}."
            )
    return lines


def _cut(text: str) -> str:
    return text if len(text) <= SAID else f"{text[:SAID].rsplit(', ', 1)[0]}, …"


def audit_pause(user_id: int, paused: bool) -> str:
    done = "paused new clips" if paused else "resumed new clips"
    return f"<@{user_id}> {done} in this server."


def pause_answer(*, paused: bool, everywhere: bool, changed: bool) -> str:
    where = "in all servers" if everywhere else "in this server"
    if not changed:
        return f"New clips are {'paused' if paused else 'not paused'} {where} already."
    if paused:
        return (
            f"Paused {where}: new requests are refused, what waits stays in line, and what is being made is "
            "finished and posted. /resume goes on."
        )
    return f"Resumed {where}: what waits starts now."


def not_the_owner() -> Refusal:
    return Refusal("Only this bot's owner can pause and resume all servers. Leave `everywhere` out.")


def not_a_moderator() -> Refusal:
    return Refusal(MODERATOR)


def cannot_write(channel_id: int, missing: Sequence[str]) -> Refusal:
    names = ", ".join(f"**{name}**" for name in missing)
    return Refusal(f"I cannot write in <#{channel_id}>: I am missing {names} there. {UNCHANGED}")


def hello(reader: Reader, missing: Sequence[str]) -> str:
    """What the bot says when it joins a server, and what it is not allowed to do."""
    lines = [
        f"Hello! {reader.mention('animate')} brings a picture to life as a short video, and right-clicking a message does too.",
        f"Moderators: {reader.mention('settings')} says where and for whom, and what it may cost.",
    ]
    if missing:
        names = ", ".join(f"**{name}**" for name in missing)
        lines.append(f"In this channel I am still missing {names}.")
    return "\n".join(lines)
