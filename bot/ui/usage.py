"""What `/usage` shows: a picture of a month with its figures in words, and the button for the file."""

import asyncio
import re
from collections.abc import Iterable, Mapping, Sequence
from io import BytesIO
from typing import TYPE_CHECKING, Any, Self

import discord
from discord import app_commands, ui

from bot.errors import Refusal
from bot.jobs.machine import NOBODY
from bot.jobs.models import Menu
from bot.jobs.usage import Books, Month, Sheet, Usage
from bot.media.charts import Bar, Bars, Chart
from bot.ui import answer
from bot.ui.settings import not_a_moderator
from bot.ui.sources import uncancelled
from bot.ui.text import elapsed, escaped, plain
from bot.ui.text import money as amount

if TYPE_CHECKING:
    from bot.client import AnimaticBot

COMMANDS = {"usage": "What clips cost here in a month, for what and for whom; as a picture, and as a file"}
OPTIONS = {
    "month": "Which month, such as 2026-11; this one when left out",
    "everywhere": "All servers together; only for this bot's owner",
}
MOST_MODELS = 6  # bars; the rest is one more
ALT_LIMIT = 1000  # Discord takes 1,024
ROOM = 64 * 1024  # what a request to Discord needs besides the file, in bytes
LARGEST = 8 * 1024 * 1024
NAMES_SECONDS = 8.0
ALL = "all"
LEFT, FORGOTTEN, OUTSIDE = "a member who left", "forgotten members", "outside of servers"
SERVER_LEFT = "a server I am not in"
WITHOUT_PICTURE = "-# I could not draw a picture of it just now."


# Who may


async def require_reader(
    interaction: "discord.Interaction[AnimaticBot]", *, everywhere: bool, guild_id: int | None = None
) -> int | None:
    """The server whose numbers this person may see here, None for all servers. Raises Refusal.

    `guild_id`: the one that is asked about, when it is not simply this one.
    """
    if everywhere:
        if not await interaction.client.is_owner(interaction.user):
            raise Refusal("Only this bot's owner can see all servers. Leave `everywhere` out.")
        return None
    here = interaction.guild_id
    if here is None or not interaction.permissions.manage_guild or guild_id not in (None, here):
        raise not_a_moderator()
    return here


# Drawn


async def names_of(
    bot: "AnimaticBot", guild_id: int | None, ids: Iterable[int | None]
) -> dict[int | None, str]:
    """How the members of a server are called there; without a server, how servers are."""
    guild = bot.get_guild(guild_id) if guild_id else None
    if guild_id is None:
        found = {one: bot.get_guild(one) if one else None for one in ids}
        return {
            one: server.name if server else SERVER_LEFT if one else OUTSIDE for one, server in found.items()
        }

    async def name_of(member_id: int | None) -> str:
        if not member_id:
            return FORGOTTEN
        if guild is None:
            return f"member {member_id}"
        try:  # without the privileged intent hardly anybody is in the cache
            member = guild.get_member(member_id)
            if member is None:
                member = await uncancelled(guild.fetch_member(member_id))
        except discord.NotFound:
            return LEFT
        except discord.DiscordException:
            return f"member {member_id}"
        return member.display_name

    wanted = list(ids)
    try:
        async with asyncio.timeout(NAMES_SECONDS):
            return dict(zip(wanted, await asyncio.gather(*map(name_of, wanted)), strict=True))
    except TimeoutError:  # Discord is slow: the list under the picture has the mentions
        return {one: f"member {one}" if one else FORGOTTEN for one in wanted}


def place_of(guild: discord.Guild | None, *, everywhere: bool) -> str:
    """What the month is about."""
    return "All servers" if everywhere else guild.name if guild else "This server"


def chart_of(usage: Usage, books: Books, menu: Menu, place: str, names: Mapping[int | None, str]) -> Chart:
    """What the picture shows."""
    now, month = books.now(), usage.month
    until = f"until {now.day} {month.name.split()[0]}, UTC" if month == Month.of(now) else "UTC"
    models = [(menu.label(model), cents, clips) for model, cents, clips in usage.by_model]
    if rest := models[MOST_MODELS:]:
        models[MOST_MODELS:] = [("others", sum(one[1] for one in rest), sum(one[2] for one in rest))]
    people = [(names[one], cents, clips) for one, cents, clips in usage.top]
    whose = "Top members" if usage.guild_id else "Top servers"
    return Chart(
        title=f"Usage in {month.name}",
        subtitle=(plain(place), until),
        figures=tuple(_figures(usage, books.currency)),
        days_title="Spent by day",
        days=tuple(cents / 100 for cents in usage.by_day),
        currency=books.currency,
        bars=(
            Bars(title="By model", rows=_bars(models, usage, books.currency)),
            Bars(title=whose, rows=_bars(people, usage, books.currency), numbered=True),
        ),
    )


def _figures(usage: Usage, currency: str) -> Iterable[tuple[str, str]]:
    yield "spent", _money(usage.spent, currency)
    yield "clips posted", f"{usage.delivered:,}"
    yield "success", _success(usage)
    yield "median wait", _wait(usage)


def _success(usage: Usage) -> str:
    # Rounded down: 100 % is said only of a month without a failure.
    return "–" if usage.success is None else f"{int(usage.success * 100)} %"


def _wait(usage: Usage) -> str:
    return "–" if usage.wait is None else elapsed(usage.wait.total_seconds())


def _bars(rows: Sequence[tuple[str, int, int]], usage: Usage, currency: str) -> tuple[Bar, ...]:
    """By money; by clips in a month that was free."""
    return tuple(
        Bar(
            name=plain(name),
            value=f"{_money(cents, currency)} · {_clips(clips)}",
            size=cents if usage.spent else clips,
        )
        for name, cents, clips in rows
    )


def _clips(number: int) -> str:
    return "1 clip" if number == 1 else f"{number:,} clips"


def _money(cents: int, currency: str) -> str:
    return amount(cents, currency, free=False) or f"{currency}0.00"


# Said


def page(
    usage: Usage,
    currency: str,
    menu: Menu,
    place: str,
    names: Mapping[int | None, str],
    *,
    picture: str | None,
) -> ui.LayoutView:
    """The answer: the picture of this file name (None: there is none), and what it cannot say or show."""
    view = ui.LayoutView(timeout=None)
    box: ui.Container[Any] = ui.Container(accent_colour=discord.Colour.blurple())
    facts = "\n".join(_facts(usage, currency))
    box.add_item(ui.TextDisplay(f"### Usage in {usage.month.name}\n{facts}"))
    if picture:
        alt = alt_text(usage, currency, menu, place, names)
        box.add_item(ui.MediaGallery(discord.MediaGalleryItem(f"attachment://{picture}", description=alt)))
    else:
        models = escaped(_models(usage, currency, menu)) or "Nothing was charged."
        box.add_item(ui.TextDisplay(f"{models}\n{WITHOUT_PICTURE}"))
    if usage.top:
        box.add_item(ui.TextDisplay(_listed(usage, currency, names)))
    box.add_item(ui.ActionRow(SheetButton(usage.guild_id, usage.month)))
    view.add_item(box)
    return view


def _facts(usage: Usage, currency: str) -> Iterable[str]:
    """The figures in words; of what is nothing, nothing is said."""
    money = [f"**{_money(usage.spent, currency)}** spent"]
    if usage.reserved:
        money.append(f"{_money(usage.reserved, currency)} reserved for clips under way")
    if usage.unsure:
        money.append(f"{_money(usage.unsure, currency)} may have been charged")
    yield " · ".join(money)
    counted = (
        ("posted", usage.delivered),
        ("made but not posted", usage.stuck),
        ("failed", usage.failed),
        ("cancelled", usage.cancelled),
        ("under way", usage.under_way),
    )
    yield f"{_clips(usage.clips)}: " + ", ".join(f"{number:,} {what}" for what, number in counted if number)
    if usage.wait is not None:
        yield f"-# Success {_success(usage)} · median wait {_wait(usage)}, from the request to the post"


def _models(usage: Usage, currency: str, menu: Menu) -> str:
    rows = usage.by_model[:MOST_MODELS]
    return ", ".join(f"{menu.label(model)} {_money(cents, currency)}" for model, cents, _ in rows)


def _listed(usage: Usage, currency: str, names: Mapping[int | None, str]) -> str:
    """Whom the numbers in the picture stand for: Discord draws every name."""

    def said(one: int | None) -> str:
        return (
            f"<@{one}>" if usage.guild_id and one not in (None, NOBODY) else escaped(plain(names[one])[:60])
        )

    rows = [
        f"{place}. {said(one)} {_money(cents, currency)}"
        for place, (one, cents, _) in enumerate(usage.top, start=1)
    ]
    if usage.others:
        rows.append(f"others {_money(usage.others, currency)}")
    return "-# " + " · ".join(rows)


def alt_text(usage: Usage, currency: str, menu: Menu, place: str, names: Mapping[int | None, str]) -> str:
    """The picture in words, for those who cannot see it."""
    parts = [
        f"Usage of {plain(place)} in {usage.month.name}: {_money(usage.spent, currency)} spent, "
        f"{usage.delivered:,} clips posted, success {_success(usage)}, median wait {_wait(usage)}."
    ]
    if any(usage.by_day):
        most = max(usage.by_day)
        day, month = usage.by_day.index(most) + 1, usage.month.name.split()[0]
        parts.append(f"Most on one day: {_money(most, currency)} on {day} {month}.")
    if usage.by_model:
        parts.append(f"By model: {_models(usage, currency, menu)}.")
    if usage.top:
        top = ", ".join(f"{plain(names[one])} {_money(cents, currency)}" for one, cents, _ in usage.top)
        parts.append(f"{'Top members' if usage.guild_id else 'Top servers'}: {top}.")
    text = " ".join(parts)
    return text if len(text) <= ALT_LIMIT else f"{text[: ALT_LIMIT - 1]}…"


def nothing(month: Month, *, everywhere: bool) -> str:
    where = "anywhere" if everywhere else "in this server"
    return f"No clip was asked for {where} in {month.name}."


def months_to_choose(months: Iterable[Month], typed: str) -> list[app_commands.Choice[str]]:
    """Those whose name, or number, has what was typed in it."""
    words = typed.casefold().strip()
    found = [month for month in months if words in month.name.casefold() or words in str(month)]
    return [app_commands.Choice(name=month.name, value=str(month)) for month in found][:25]


def file_name(month: Month, ending: str) -> str:
    return f"usage-{month}.{ending}"


def with_sheet(sheet: Sheet, month: Month) -> str:
    """What goes with the file."""
    if not sheet.whole:
        return f"The first {sheet.clips:,} clips of {month.name}; more do not fit into a file here."
    return (
        f"{_clips(sheet.clips)} of {month.name}, without prompts. `spent` adds up to what the picture says; "
        "`provider_task` is the clip's name on the provider's bill."
    )


class SheetButton(
    ui.DynamicItem[ui.Button[Any]],
    template=r"usage:(?P<guild>all|[0-9]{1,20}):(?P<month>[0-9]{4}-[0-9]{2})",
):
    """Gives a month as a CSV file to those who may see it when they press."""

    at_once = asyncio.Semaphore(2)  # files that are in memory

    def __init__(self, guild_id: int | None, month: Month) -> None:
        custom_id = f"usage:{guild_id or ALL}:{month}"
        super().__init__(ui.Button(label="Get it as CSV", custom_id=custom_id))
        self.guild_id, self.month = guild_id, month

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        guild_id = None if match["guild"] == ALL else int(match["guild"])
        year, _, month = match["month"].partition("-")
        return cls(guild_id, Month(int(year), int(month)))

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        try:
            await self._give(interaction)
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)

    async def _give(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        everywhere = self.guild_id is None
        guild_id = await require_reader(interaction, everywhere=everywhere, guild_id=self.guild_id)
        await answer.acknowledge(interaction)
        books = interaction.client.books
        room = min(interaction.filesize_limit - ROOM, LARGEST)
        async with self.at_once:
            sheet = await books.sheet(self.month, guild_id, max_bytes=room)
            file = discord.File(BytesIO(sheet.data), file_name(self.month, "csv"))
            await interaction.followup.send(with_sheet(sheet, self.month), file=file, ephemeral=True)


def picture_file(png: bytes, month: Month) -> discord.File:
    return discord.File(BytesIO(png), file_name(month, "png"))
