"""`/mydata` and `/consent`: what members decide about their data and their pictures. All answers are private."""

import asyncio
from io import BytesIO

import discord
from discord import app_commands
from discord.ext import commands

from bot.client import AnimaticBot
from bot.ui import answer, guide
from bot.ui.controls import who

ROOM = 64 * 1024  # what a request to Discord needs besides the file, in bytes
LARGEST = 8 * 1024 * 1024
BETWEEN_EXPORTS = 60.0  # seconds
EXPORTS_AT_ONCE = 2  # whose files are in memory at the same time


class Members(commands.Cog):
    mydata = app_commands.Group(name="mydata", description=guide.COMMANDS["mydata"])

    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot
        self.exporting = asyncio.Semaphore(EXPORTS_AT_ONCE)

    @mydata.command(name="export", description=guide.COMMANDS["mydata export"])
    @app_commands.checks.cooldown(1, BETWEEN_EXPORTS)
    async def export(self, interaction: discord.Interaction[AnimaticBot]) -> None:
        await answer.acknowledge(interaction)
        room = min(interaction.filesize_limit - ROOM, LARGEST)
        async with self.exporting:
            export = await self.bot.archive.export(who(interaction), max_bytes=room)
            file = discord.File(BytesIO(export.data), "animatic-my-data.json")
            await interaction.followup.send(guide.exported(export), file=file, ephemeral=True)

    @mydata.command(name="delete", description=guide.COMMANDS["mydata delete"])
    async def delete(self, interaction: discord.Interaction[AnimaticBot]) -> None:
        standing = await self.bot.archive.standing(who(interaction))
        view = guide.confirm(standing, interaction.user.id)
        await interaction.response.send_message(view=view, ephemeral=True)

    @app_commands.command(name="consent", description=guide.COMMANDS["consent"])
    @app_commands.describe(others=guide.OPTIONS["others"])
    @app_commands.choices(
        others=[app_commands.Choice(name=name, value=value) for value, name in guide.OTHERS.items()]
    )
    async def consent(self, interaction: discord.Interaction[AnimaticBot], others: str | None = None) -> None:
        asker = who(interaction)
        if others is not None:
            await self.bot.desk.withhold_pictures(asker, others == "may not")
        withheld = await self.bot.desk.withholds_pictures(asker)
        await interaction.response.send_message(
            guide.consent_is(withheld, self.bot.reader(interaction)), ephemeral=True
        )


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Members(bot))
