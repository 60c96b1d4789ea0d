"""`/queue`, `/history` and `/show`: what is under way and what was made. All answers are private."""

import discord
from discord import app_commands
from discord.ext import commands

from bot.client import AnimaticBot
from bot.jobs.archive import Turn
from bot.ui import lists
from bot.ui.controls import who

CHOICES = 25


class Lists(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot

    @app_commands.command(name="queue", description=lists.COMMANDS["queue"])
    async def queue(self, interaction: discord.Interaction[AnimaticBot]) -> None:
        archive = self.bot.archive
        line = await archive.line(who(interaction))
        view = lists.queue(line, archive.menu, archive.now())
        await interaction.response.send_message(view=view, ephemeral=True)

    @app_commands.command(name="history", description=lists.COMMANDS["history"])
    @app_commands.describe(member=lists.OPTIONS["member"], model=lists.OPTIONS["model"])
    async def history(
        self,
        interaction: discord.Interaction[AnimaticBot],
        member: discord.User | None = None,
        model: str | None = None,
    ) -> None:
        archive = self.bot.archive
        turn = Turn(member_id=member.id if member else None, model=archive.model_named(model))
        past = await archive.past(lists.shelf_of(interaction), turn)
        await interaction.response.send_message(view=lists.history(past, archive.menu), ephemeral=True)

    @history.autocomplete("model")
    async def models(
        self, interaction: discord.Interaction[AnimaticBot], typed: str
    ) -> list[app_commands.Choice[str]]:
        named = [
            model
            for model in self.bot.archive.menu.models.values()
            if typed.casefold() in model.label.casefold()
        ]
        return [app_commands.Choice(name=model.label, value=model.name) for model in named][:CHOICES]

    @app_commands.command(name="show", description=lists.COMMANDS["show"])
    @app_commands.rename(job_id="id")
    @app_commands.describe(job_id=lists.OPTIONS["id"])
    async def show(self, interaction: discord.Interaction[AnimaticBot], job_id: str) -> None:
        archive = self.bot.archive
        shown = await archive.show(lists.shelf_of(interaction), job_id)
        view = lists.show(shown, archive.menu, archive.now(), reader_id=interaction.user.id)
        await interaction.response.send_message(view=view, ephemeral=True)

    @show.autocomplete("job_id")
    async def clips(
        self, interaction: discord.Interaction[AnimaticBot], typed: str
    ) -> list[app_commands.Choice[str]]:
        archive = self.bot.archive
        found = await archive.recent(who(interaction), typed, limit=CHOICES)
        return [
            app_commands.Choice(name=lists.choice(job, archive.menu, archive.now()), value=job.id)
            for job in found
        ]


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Lists(bot))
