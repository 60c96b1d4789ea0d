"""What the bot says about itself and about a member's data: `/help`, `/privacy`, `/mydata`, `/consent`."""

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Self

import discord
from discord import app_commands, ui

from bot.jobs.archive import Export
from bot.jobs.desk import Desk, Forgetting
from bot.jobs.models import Menu, Model
from bot.ui import answer
from bot.ui.controls import who
from bot.ui.text import as_many_as_fit, escaped, money

COMMANDS = {
    "help": "How to bring a picture to life, and what it costs",
    "privacy": "What is stored about you, what goes where, and how long it is kept",
    "mydata": "Your data: have it as a file, or have it deleted",
    "mydata export": "Get all that is stored about you as a file",
    "mydata delete": "Have your prompts, your history and your waiting clips deleted",
    "consent": "Say whether others may animate pictures that you posted",
}
OPTIONS = {"others": "What others may do; left out, you are told how it is"}
OTHERS = {"may": "Others may animate my pictures", "may not": "Others may not animate my pictures"}

COMMANDS_LIMIT, MODELS_LIMIT = 2200, 1000  # of the 4,000 characters of a message


@dataclass(frozen=True, slots=True, kw_only=True)
class Reader:
    """Who reads the help: what they may do here, and the ids of the commands by name, as far as known."""

    permissions: discord.Permissions
    command_ids: Mapping[str, int]

    def mention(self, command: str) -> str:
        """The command, to be clicked; in bold type where Discord's id for it is not known."""
        known = self.command_ids.get(command.split()[0])
        return f"</{command}:{known}>" if known else f"**/{command}**"


def help_text(tree: app_commands.CommandTree[Any], menu: Menu, emoji: str, reader: Reader) -> ui.LayoutView:
    """What this reader can do, from the live commands, and the models with their prices."""
    commands = [
        f"- {reader.mention(command.qualified_name)} · {command.description}"
        for command in sorted(tree.walk_commands(), key=lambda command: command.qualified_name)
        if isinstance(command, app_commands.Command) and may_use(command, reader.permissions)
    ]
    menus = [
        f"- **{entry.name}** · in the menu *Apps* of a {kind.name}"
        for kind in (discord.AppCommandType.message, discord.AppCommandType.user)
        for entry in tree.get_commands(type=kind)
        if may_use(entry, reader.permissions)
    ]
    models = [_prices(model, menu.currency) for model in menu.models.values()]
    return _layout(
        f"{reader.mention('animate')} with a prompt and a picture makes a short video and posts it here.\n"
        f"React to a clip with {emoji}, or press **Again**, for another take in your name. "
        "A clip can be cancelled until it starts; its asker and moderators can delete the post.",
        "### Commands\n" + as_many_as_fit([*commands, *menus], COMMANDS_LIMIT),
        "### Models\n" + as_many_as_fit(models, MODELS_LIMIT),
        "-# Pictures and prompts are sent to the model's provider: "
        f"{reader.mention('privacy')}. Everything posted is made by AI, or says that it is not.",
    )


def may_use(
    command: app_commands.Command[Any, ..., Any] | app_commands.ContextMenu, permissions: discord.Permissions
) -> bool:
    """Whether somebody with these permissions is shown a command, unless the server has set it otherwise."""
    root = command.root_parent or command if isinstance(command, app_commands.Command) else command
    needed = root.default_permissions
    return needed is None or permissions.administrator or needed <= permissions


def _prices(model: Model, currency: str) -> str:
    quality = next(iter(model.can.qualities), None)
    prices = [
        (seconds, money(model.price_cents(seconds, quality, False), currency, free=model.can.free))
        for seconds in model.can.seconds
    ]
    return f"- {model.label}: " + ", ".join(f"{seconds} s {price or ''}".strip() for seconds, price in prices)


def privacy(menu: Menu, keep_days: int, reader: Reader) -> ui.LayoutView:
    """What the code stores and sends; to be changed with it."""
    return _layout(
        "### What is stored about you\n"
        "In this bot's database, until you have it deleted: your Discord id; of each clip its prompt, options, "
        "price, times and state, the ids of its server, channel and messages, and the provider's name and "
        "address for it; whose picture it was made from; whether others may animate your pictures; for a day, whom you "
        "let use them, or who let you, where a server wants that asked; how you voted on comparisons; what you reported "
        "of clips; and whether, why and until when you are blocked. "
        "**No picture is stored there:** pictures and clips hang on the bot's messages in Discord.",
        "### What goes where\n"
        "The prompt, the options and the pictures of a clip go to the provider of its model, without your name "
        "or id. What happens to them there is for the provider's own terms to say.\n"
        + as_many_as_fit(_providers(menu.models.values()), MODELS_LIMIT)
        + "\nWhoever runs this bot can have requests looked at by a check of their own before that."
        + "\nThe clip and its card are posted in the channel where you asked, or where the server collects clips, "
        "with your name and prompt. What you cost is shown to those who manage the server, by name, and to whoever "
        "runs this bot.",
        "### How long it is kept\n"
        f"- A clip is on this bot's disk only on its way to the channel; one that could not be posted for "
        f"{_days(keep_days)} at most.\n"
        "- The bot's log has ids of clips, servers and members, no prompts and no pictures. How long logs and "
        "backups are kept is up to whoever runs this bot.\n"
        "- A block stays until it ends or is lifted, also when you have your data deleted. What you reported then "
        "loses your id and your words. Messages to moderators about reported clips stay in their channel; they never name who "
        "reported.\n"
        f"- Everything else stays until you use {reader.mention('mydata delete')}.",
        "### What you can do\n"
        f"{reader.mention('mydata export')} gives you all of it as a file. {reader.mention('mydata delete')} "
        f"deletes it. {reader.mention('consent')} keeps others from animating your pictures. **Delete** on a post "
        "takes that clip away. The bot cannot read what is written in the channels.",
    )


def _providers(models: Iterable[Model]) -> list[str]:
    by_route: dict[str, list[Model]] = {}
    for model in models:
        by_route.setdefault(model.route, []).append(model)
    return [
        f"- {', '.join(escaped(model.label) for model in some)}: "
        + (
            f"through `{route}`"
            if some[0].can.by_ai
            else "drawn on this bot's own machine, kept there for a day"
        )
        for route, some in by_route.items()
    ]


def _days(number: int) -> str:
    return "1 day" if number == 1 else f"{number} days"


def consent_is(withheld: bool, reader: Reader) -> str:
    """The answer to `/consent`."""
    if withheld:
        return (
            "Others may **not** animate pictures that you posted; you still may. Clips that exist already stay. "
            f"You can change it with {reader.mention('consent')}."
        )
    return (
        "Others may animate pictures that you posted where they can see them. "
        f"You can forbid it with {reader.mention('consent')}."
    )


def exported(export: Export) -> str:
    """What goes with the file."""
    if not export.jobs and not export.left_out:
        return "No clip of yours is stored. The file has what else there is."
    clips = "1 clip" if export.jobs == 1 else f"{export.jobs:,} clips"
    left = f" {export.left_out:,} older ones did not fit; ask whoever runs this bot for them." * bool(
        export.left_out
    )
    return f"All that is stored about you: {clips}, the newest first, as JSON.{left}"


def confirm(standing: tuple[int, int, int], member_id: int) -> ui.LayoutView:
    """What deleting would mean, before it is done."""
    waiting, under_way, ended = standing
    lines = [
        "### Delete your data?",
        f"- **Waiting: {waiting:,}.** They are cancelled, and nothing is charged for them.",
        f"- **Under way: {under_way:,}.** They are paid for, or about to be: they are finished and posted first.",
        f"- **Ended: {ended:,}.** In all servers they lose your name, their prompts and their links, and the "
        "buttons of their posts stop working. What each one cost stays in the books without you; your id goes "
        "from there after 32 days, when no limit counts on it any more.",
        "- Clips that could not be posted are given up. Cards of clips that failed are deleted.",
        "- Your votes on comparisons are deleted. What others said of yours counts on without your name.",
        "- What you chose with /consent stays, so that it can be kept to. So do blocks.",
        "",
        "Posted clips stay in their channels, unless you have them deleted too. This cannot be undone.",
    ]
    view = _layout("\n".join(lines))
    view.add_item(ui.ActionRow(ForgetButton(member_id, "data"), ForgetButton(member_id, "posts")))
    return view


def _clips(number: int) -> str:
    return "1 clip" if number == 1 else f"{number:,} clips"


def forgetting(done: Forgetting, *, posts: bool) -> ui.LayoutView:
    """What happens now that somebody confirmed."""
    lines = [
        f"Your data is being deleted{', your posts too' if posts else ''}: about a hundred clips a minute."
    ]
    if done.cancelled:
        lines.append(f"{_clips(done.cancelled)} cancelled. Nothing was charged for that.")
    if done.under_way:
        lines.append(f"{_clips(done.under_way)} under way will be posted first, and forgotten then.")
    return _layout("\n".join(lines))


class ForgetButton(
    ui.DynamicItem[ui.Button[Any]], template=r"mydata:(?P<what>data|posts):(?P<member>\d{1,20})"
):
    """Confirms `/mydata delete`."""

    def __init__(self, member_id: int, what: str) -> None:
        label = "Delete my data" if what == "data" else "Delete my data and my posts"
        super().__init__(
            ui.Button(label=label, style=discord.ButtonStyle.danger, custom_id=f"mydata:{what}:{member_id}")
        )
        self.member_id = member_id
        self.posts = what == "posts"

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        return cls(int(match["member"]), match["what"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        try:
            desk: Desk = interaction.client.desk
            desk.require_oneself(who(interaction), self.member_id)
            await interaction.response.defer()
            done = await desk.forget(who(interaction), posts=self.posts)
            await interaction.edit_original_response(view=forgetting(done, posts=self.posts))
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)


def _layout(*texts: str) -> ui.LayoutView:
    view = ui.LayoutView(timeout=None)
    for text in texts:
        view.add_item(ui.TextDisplay(text))
    return view
