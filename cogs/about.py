"""`/help`: what the bot does, which models there are and what they cost. Private, from the live menu."""

import discord
from discord import app_commands
from discord.ext import commands

from bot.client import AnimaticBot
from bot.jobs.models import Model
from bot.ui.text import money

LIST_LIMIT = 1400  # of the 2,000 characters that a message may have


class About(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot

    @app_commands.command(name="help", description="How to bring a picture to life, and what it costs")
    async def help(self, interaction: discord.Interaction[AnimaticBot]) -> None:
        menu = self.bot.desk.menu
        models = _as_many_as_fit([self._line(model, menu.currency) for model in menu.models.values()])
        await interaction.response.send_message(
            "**/animate** with a prompt and a picture makes a short video and posts it here.\n"
            f"React to a clip with {self.bot.requeue_emoji}, or press **Again**, for another take in your name. "
            "A clip can be cancelled until it starts; its asker and moderators can delete the post.\n\n"
            f"**Models**\n{models}\n\n"
            "Pictures and prompts are sent to the model's provider. Everything posted is made by AI.",
            ephemeral=True,
        )

    @staticmethod
    def _line(model: Model, currency: str) -> str:
        quality = next(iter(model.can.qualities), None)
        prices = [
            (seconds, money(model.price_cents(seconds, quality, False), currency, free=model.can.free))
            for seconds in model.can.seconds
        ]
        return f"- {model.label}: " + ", ".join(
            f"{seconds} s {price or ''}".strip() for seconds, price in prices
        )


def _as_many_as_fit(lines: list[str]) -> str:
    """The lines, and how many are left out where a message would become too long for Discord."""
    kept = list(lines)
    while len("\n".join(kept)) > LIST_LIMIT:
        kept.pop()
    left_out = len(lines) - len(kept)
    return "\n".join([*kept, f"- and {left_out} more"] if left_out else kept)


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(About(bot))
