"""`/compare` and `/leaderboard`: two models, one picture, and which of the clips members like better."""

import asyncio
from io import BytesIO

import discord
from discord import app_commands, ui
from discord.ext import commands

from bot.client import AnimaticBot
from bot.media.picture import refuse_by_size
from bot.ui import answer, catalogue, comparisons
from bot.ui.controls import who
from bot.ui.sources import attached, fetch

PICTURES_AT_ONCE = 4  # requests whose pictures are in memory at the same time
CHOICES = 25


class Compare(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot
        self.reading = asyncio.Semaphore(PICTURES_AT_ONCE)

    @app_commands.command(name="compare", description=comparisons.COMMANDS["compare"])
    @app_commands.describe(**comparisons.OPTIONS)
    @app_commands.guild_only()
    async def compare(
        self,
        interaction: discord.Interaction[AnimaticBot],
        prompt: str,
        picture: discord.Attachment,
        first: str | None = None,
        second: str | None = None,
        seconds: app_commands.Range[int, 1, 60] | None = None,
    ) -> None:
        answer.require_permissions(interaction)
        comparing, asker = self.bot.comparing, who(interaction)
        versus = await comparing.plan(asker, prompt, first, second, seconds)
        refuse_by_size(picture.size, name=catalogue.PICTURE)
        await answer.acknowledge(interaction)
        async with self.reading:
            source = attached(picture)
            made = await fetch(self.bot.http, source, versus.rules(asker), name=catalogue.PICTURE)
            comparison = await comparing.propose(asker, versus)
            label = comparisons.start_label(versus, comparing.menu)
            # Discord keeps the picture until the button is pressed, also over a restart.
            await interaction.followup.send(
                comparisons.question(versus, comparing.menu, comparison),
                file=discord.File(BytesIO(made.data), f"{comparisons.PICTURE_FILE}.{made.extension}"),
                view=ui.View(timeout=None).add_item(comparisons.StartButton(comparison.id, label)),
                ephemeral=True,
            )

    @compare.autocomplete("first")
    @compare.autocomplete("second")
    async def models(
        self, interaction: discord.Interaction[AnimaticBot], typed: str
    ) -> list[app_commands.Choice[str]]:
        named = [
            model
            for model in self.bot.comparing.menu.models.values()
            if typed.casefold() in model.label.casefold()
        ]
        return [app_commands.Choice(name=model.label, value=model.name) for model in named][:CHOICES]

    @app_commands.command(name="leaderboard", description=comparisons.COMMANDS["leaderboard"])
    @app_commands.guild_only()
    async def leaderboard(self, interaction: discord.Interaction[AnimaticBot]) -> None:
        assert interaction.guild_id is not None
        board = await self.bot.comparing.leaderboard(interaction.guild_id)
        view = comparisons.leaderboard(board, self.bot.comparing.menu)
        await interaction.response.send_message(view=view, ephemeral=True)


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Compare(bot))
