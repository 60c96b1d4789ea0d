"""`/settings`, `/pause` and `/resume`: what moderators decide for their server, and the owner for all."""

from typing import Any

import discord
import structlog
from discord import app_commands
from discord.ext import commands

from bot.client import AnimaticBot
from bot.jobs.guilds import GuildSettings
from bot.ui import answer, forms
from bot.ui import settings as panels
from bot.ui.catalogue import COMMANDS, OPTIONS

log = structlog.get_logger(__name__)

WRITING = {"view_channel": "View Channel", "send_messages": "Send Messages"}


def moderated(interaction: discord.Interaction[AnimaticBot]) -> int:
    """The id of the server, for those who may manage it. Raises Refusal."""
    if interaction.guild_id is None or not interaction.permissions.manage_guild:
        raise panels.not_a_moderator()
    return interaction.guild_id


class Settings(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot

    @app_commands.command(name="settings", description=COMMANDS["settings"])
    @app_commands.default_permissions(manage_guild=True)
    async def settings(self, interaction: discord.Interaction[AnimaticBot]) -> None:
        settings = await self.bot.servers.settings(moderated(interaction))
        view = self._panel(interaction, settings, next(iter(panels.PAGES)))
        await interaction.response.send_message(view=view, ephemeral=True)

    @app_commands.command(name="pause", description=COMMANDS["pause"])
    @app_commands.describe(everywhere=OPTIONS["everywhere"])
    @app_commands.default_permissions(manage_guild=True)
    async def pause(self, interaction: discord.Interaction[AnimaticBot], everywhere: bool = False) -> None:
        await self._pause(interaction, everywhere, paused=True)

    @app_commands.command(name="resume", description=COMMANDS["resume"])
    @app_commands.describe(everywhere=OPTIONS["everywhere"])
    @app_commands.default_permissions(manage_guild=True)
    async def resume(self, interaction: discord.Interaction[AnimaticBot], everywhere: bool = False) -> None:
        await self._pause(interaction, everywhere, paused=False)

    async def _pause(
        self, interaction: discord.Interaction[AnimaticBot], everywhere: bool, *, paused: bool
    ) -> None:
        if everywhere and not await self.bot.is_owner(interaction.user):
            raise panels.not_the_owner()
        guild_id = None if everywhere else moderated(interaction)
        changed = await self.bot.servers.pause(guild_id, paused)
        log.info("paused" if paused else "resumed", guild=guild_id, by=interaction.user.id, changed=changed)
        said = panels.pause_answer(paused=paused, everywhere=everywhere, changed=changed)
        await interaction.response.send_message(said, ephemeral=True)
        if guild_id and changed:
            settings = await self.bot.servers.settings(guild_id)
            line = panels.audit_pause(interaction.user.id, paused)
            await self.bot.write_down(guild_id, [line], settings.audit_channel)

    @commands.Cog.listener()
    async def on_interaction(self, interaction: discord.Interaction[AnimaticBot]) -> None:
        """Every press on a panel, by its custom_id: it works after any restart."""
        data: Any = interaction.data or {}
        custom_id = str(data.get("custom_id", ""))
        if not custom_id.startswith(panels.PREFIX):
            return
        try:
            guild_id = moderated(interaction)
            await self._pressed(interaction, guild_id, custom_id.removeprefix(panels.PREFIX), data)
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)

    async def _pressed(
        self, interaction: discord.Interaction[AnimaticBot], guild_id: int, press: str, data: Any
    ) -> None:
        settings, menu = await self.bot.servers.settings(guild_id), self.bot.desk.menu
        verb, _, name = press.partition(":")
        values: list[str] = data.get("values") or []
        if verb == "page" and values and values[0] in panels.PAGES:
            view = self._panel(interaction, settings, values[0])
            await interaction.response.edit_message(view=view)
        elif verb == "ask" and name in panels.FORMS:
            await interaction.response.send_modal(panels.form(name, settings, menu))
        elif verb == "role" and values:
            role_id = int(values[0])
            role = interaction.guild.get_role(role_id) if interaction.guild else None
            await interaction.response.send_modal(
                panels.role_form(role_id, role.name if role else "", settings)
            )
        elif verb == "form" and name.startswith("role."):
            role_id = int(name.removeprefix("role."))
            changes = panels.typed_for_role(role_id, forms.answers_in(interaction), settings)
            await self._change(interaction, guild_id, "limits", changes)
        elif verb == "form" and name in panels.FORMS:
            changes = panels.typed(name, forms.answers_in(interaction), menu, self.bot.servers.usual)
            await self._change(interaction, guild_id, panels.FORMS[name][0], changes)
        elif verb == "set" and name in panels.PAGE_OF:
            changes = panels.chosen(name, values)
            self._require_writing(interaction, changes)
            await self._change(interaction, guild_id, panels.PAGE_OF[name], changes)
        else:
            raise answer.newer_button()

    async def _change(
        self,
        interaction: discord.Interaction[AnimaticBot],
        guild_id: int,
        page: str,
        changes: dict[str, Any],
    ) -> None:
        before, after = await self.bot.servers.change(guild_id, **changes)
        await interaction.response.edit_message(view=self._panel(interaction, after, page))
        lines = panels.audit_lines(interaction.user.id, before, after, self.bot.desk.menu)
        await self.bot.write_down(guild_id, lines, before.audit_channel, after.audit_channel)

    def _panel(
        self, interaction: discord.Interaction[AnimaticBot], settings: GuildSettings, page: str
    ) -> discord.ui.LayoutView:
        guild = interaction.guild
        known = {one.id for one in (*guild.channels, *guild.roles)} if guild else set()
        return panels.panel(settings, self.bot.desk.menu, page, known=known)

    def _require_writing(
        self, interaction: discord.Interaction[AnimaticBot], changes: dict[str, Any]
    ) -> None:
        """Refuse, by name, a channel in which nothing could be written down."""
        for field in ("audit_channel", "review_channel", "results_channel"):
            channel_id = changes.get(field)
            channel = interaction.guild.get_channel(channel_id) if channel_id and interaction.guild else None
            if channel is not None:
                permissions = channel.permissions_for(channel.guild.me)
                missing = [name for flag, name in WRITING.items() if not getattr(permissions, flag)]
                if field == "results_channel":
                    missing = answer.missing_permissions(permissions, invited=True)
                if missing:
                    raise panels.cannot_write(channel.id, missing)


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Settings(bot))
