"""`/usage`: what a server's clips cost, for its moderators; what all cost, for the bot's owner. Answers are private."""

import discord
from discord import app_commands
from discord.ext import commands

from bot.client import AnimaticBot
from bot.errors import Refusal
from bot.media.charts import NoChart
from bot.ui import answer
from bot.ui import usage as pages


class Usage(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot

    @app_commands.command(name="usage", description=pages.COMMANDS["usage"])
    @app_commands.describe(**pages.OPTIONS)
    @app_commands.default_permissions(manage_guild=True)
    async def usage(
        self,
        interaction: discord.Interaction[AnimaticBot],
        month: str | None = None,
        everywhere: bool = False,
    ) -> None:
        guild_id = await pages.require_reader(interaction, everywhere=everywhere)
        books, menu = self.bot.books, self.bot.desk.menu
        wanted = books.month(month)
        await answer.acknowledge(interaction)
        found = await books.usage(wanted, guild_id)
        if not found.clips and not any((found.spent, found.reserved, found.unsure)):
            await interaction.followup.send(pages.nothing(wanted, everywhere=everywhere), ephemeral=True)
            return
        place = pages.place_of(interaction.guild if guild_id else None, everywhere=everywhere)
        names = await pages.names_of(self.bot, guild_id, [one for one, _, _ in found.top])
        try:
            png = await self.bot.charts.draw(pages.chart_of(found, books, menu, place, names))
        except NoChart:
            view = pages.page(found, books.currency, menu, place, names, picture=None)
            await interaction.followup.send(view=view, ephemeral=True)
            return
        file = pages.picture_file(png, wanted)
        view = pages.page(found, books.currency, menu, place, names, picture=file.filename)
        await interaction.followup.send(view=view, file=file, ephemeral=True)

    @usage.autocomplete("month")
    async def months(
        self, interaction: discord.Interaction[AnimaticBot], typed: str
    ) -> list[app_commands.Choice[str]]:
        everywhere = bool(interaction.namespace.everywhere)
        try:
            guild_id = await pages.require_reader(interaction, everywhere=everywhere)
        except Refusal:  # the command itself says why
            return []
        return pages.months_to_choose(await self.bot.books.months(guild_id), typed)


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Usage(bot))
