"""`/help` and `/privacy`: what the bot does, and what it does with one's data. Private, from the live tree and menu."""

import discord
from discord import app_commands
from discord.ext import commands

from bot.client import AnimaticBot
from bot.ui import guide


class About(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot

    @app_commands.command(name="help", description=guide.COMMANDS["help"])
    async def help(self, interaction: discord.Interaction[AnimaticBot]) -> None:
        desk = self.bot.desk
        settings = await desk.settings(interaction.guild_id)
        view = guide.help_text(self.bot.tree, desk.menu, settings.requeue_emoji, self.bot.reader(interaction))
        await interaction.response.send_message(view=view, ephemeral=True)

    @app_commands.command(name="privacy", description=guide.COMMANDS["privacy"])
    async def privacy(self, interaction: discord.Interaction[AnimaticBot]) -> None:
        archive = self.bot.archive
        view = guide.privacy(archive.menu, archive.keep_days, self.bot.reader(interaction))
        await interaction.response.send_message(view=view, ephemeral=True)


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(About(bot))
