"""Joining a server: a hello, once. Leaving it: what is not paid is called off, what was decided is kept a while."""

import discord
import structlog
from discord.ext import commands

from bot.client import AnimaticBot
from bot.ui import answer, settings
from bot.ui.guide import Reader

log = structlog.get_logger(__name__)


class Joining(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot

    @commands.Cog.listener()
    async def on_guild_join(self, guild: discord.Guild) -> None:
        if not await self.bot.servers.joined(guild.id):
            return
        log.info("server_joined", guild=guild.id)
        channel = _writable(guild)
        if channel is None:
            return
        missing = answer.missing_permissions(channel.permissions_for(guild.me), invited=True)
        try:
            await channel.send(
                settings.hello(
                    Reader(permissions=guild.me.guild_permissions, command_ids=self.bot.command_ids), missing
                )
            )
        except discord.DiscordException as error:
            log.info("hello_not_said", guild=guild.id, error=type(error).__name__)

    @commands.Cog.listener()
    async def on_guild_remove(self, guild: discord.Guild) -> None:
        await self._left(guild.id)

    @commands.Cog.listener()
    async def on_ready(self) -> None:
        """Notice servers that removed the bot, or had it back, while it was away.

        Those that Discord only cannot reach stand among the client's, as unavailable. Who is not among them is
        asked for once more: an incomplete list must not end anybody's clips.
        """
        for guild_id in await self.bot.servers.gone():  # else what was decided there would be deleted one day
            if guild := self.bot.get_guild(guild_id):
                await self.on_guild_join(guild)
        for guild_id in await self.bot.servers.present():
            if (
                self._is_ours(guild_id)
                and self.bot.get_guild(guild_id) is None
                and await self.bot.was_removed_from(guild_id)
            ):
                await self._left(guild_id)

    def _is_ours(self, guild_id: int) -> bool:
        """Whether the server is on a shard of this process (topics/gateway, sharding)."""
        return (guild_id >> 22) % (self.bot.shard_count or 1) in self.bot.shards

    async def _left(self, guild_id: int) -> None:
        await self.bot.servers.left(guild_id)
        cancelled = await self.bot.desk.leave(guild_id)
        log.info("server_left", guild=guild_id, cancelled=cancelled)


def _writable(guild: discord.Guild) -> discord.TextChannel | None:
    """The channel for system messages where the bot may write, else the first one where it may."""
    for channel in (guild.system_channel, *guild.text_channels):
        if channel is not None:
            permissions = channel.permissions_for(guild.me)
            if permissions.view_channel and permissions.send_messages:
                return channel
    return None


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Joining(bot))
