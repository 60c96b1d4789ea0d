"""Prints docs/commands.md from the live command tree: run it when a command, option or description changes.

python -m scripts.commands > docs/commands.md
"""

import asyncio
import sys
import tempfile
from pathlib import Path
from typing import Any

import discord
from discord import app_commands
from pydantic import SecretStr

from bot import __main__ as root
from bot.client import COGS, AnimaticBot
from bot.config import Config, DataSettings, ModelSettings, RoutesSettings, StoreSettings
from bot.providers.makevid import MakevidSettings

HEAD = """# Commands

Made by `scripts/commands.py` from the commands themselves. Choices come from the configured models; here, from
these: {models}.
"""
ANYBODY = "everybody"


def page(bot: AnimaticBot) -> str:
    """The page for a bot whose cogs are loaded."""
    parts = [HEAD.format(models=", ".join(model.label for model in bot.desk.menu.models.values()))]
    commands = [command for command in bot.tree.walk_commands() if isinstance(command, app_commands.Command)]
    for command in sorted(commands, key=lambda command: command.qualified_name):
        parts.append(f"## /{command.qualified_name}\n\n{command.description}.\n\n{_who(command)}\n")
        if command.parameters:
            rows = ["| option | | what it is |", "|---|---|---|", *map(_option, command.parameters)]
            parts.append("\n".join(rows) + "\n")
    for kind in (discord.AppCommandType.message, discord.AppCommandType.user):
        menus = sorted(bot.tree.get_commands(type=kind), key=lambda menu: menu.name)
        parts += [
            f"## {menu.name}\n\nIn the menu *Apps* of a {kind.name}.\n\n{_who(menu)}\n" for menu in menus
        ]
    return "\n".join(parts)


def _who(command: app_commands.Command[Any, ..., Any] | app_commands.ContextMenu) -> str:
    top = command.root_parent or command if isinstance(command, app_commands.Command) else command
    needed = top.default_permissions
    names = [name.replace("_", " ").title() for name, wanted in needed or () if wanted]
    return f"For {' and '.join(f'**{name}**' for name in names) if names else ANYBODY}, unless the server says otherwise."


def _option(option: app_commands.Parameter) -> str:
    what = [option.description]
    if option.choices:
        what.append("one of " + ", ".join(f"`{choice.name}`" for choice in option.choices))
    if option.autocomplete:
        what.append("offered while you type")
    if option.min_value is not None or option.max_value is not None:
        what.append(f"from {option.min_value} to {option.max_value}")
    need = "required" if option.required else "may be left out"
    return f"| `{option.display_name}` | {need} | {'; '.join(what)} |"


async def live_page() -> str:
    """The page for a bot with all of one gateway's models, put together as it is at a start."""
    with tempfile.TemporaryDirectory() as folder:
        config = Config(
            store=StoreSettings(url=SecretStr(f"sqlite+aiosqlite:///{folder}/jobs.db")),
            data=DataSettings(folder=Path(folder)),
            routes=RoutesSettings(makevid=MakevidSettings(api_key=SecretStr("none"))),
            models={
                **{name: ModelSettings(route="makevid") for name in ("kling", "luma", "runway")},
                "sketch": ModelSettings(route="sketch"),
            },
        )
        async with root.build(config) as animatic, animatic.bot:
            for cog in COGS:
                await animatic.bot.load_extension(cog)
            return page(animatic.bot)


if __name__ == "__main__":
    sys.stdout.write(asyncio.run(live_page()))
