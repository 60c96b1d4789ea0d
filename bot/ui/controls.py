"""The buttons on cards and posts. A press means: load the job, ask the desk, answer privately.

A custom_id is `job:<id>:<verb>`, so every button works after any restart and on any age of message.
"""

import re
from typing import TYPE_CHECKING, Any, Self

import discord
from discord import ui

from bot.errors import Refusal
from bot.jobs.desk import Who
from bot.ui import answer

if TYPE_CHECKING:
    from bot.client import AnimaticBot

LABELS = {
    "cancel": ("Cancel", None, discord.ButtonStyle.secondary),
    "again": ("Again", "🔁", discord.ButtonStyle.primary),
    "delete": ("Delete", "🗑️", discord.ButtonStyle.secondary),
    "retry": ("Try again (may cost twice)", None, discord.ButtonStyle.danger),
    "drop": ("Let it go", None, discord.ButtonStyle.secondary),
    "post": ("Post it here", None, discord.ButtonStyle.primary),
}


class JobButton(ui.DynamicItem[ui.Button[Any]], template=r"job:(?P<id>[a-z0-9]{1,20}):(?P<verb>[a-z]+)"):
    """One of the buttons above, for one job."""

    def __init__(self, job_id: str, verb: str) -> None:
        label, emoji, style = LABELS.get(verb, (verb, None, discord.ButtonStyle.secondary))
        super().__init__(ui.Button(label=label, emoji=emoji, style=style, custom_id=f"job:{job_id}:{verb}"))
        self.job_id = job_id
        self.verb = verb

    @classmethod
    async def from_custom_id(
        cls, interaction: discord.Interaction[Any], item: ui.Item[Any], match: re.Match[str]
    ) -> Self:
        # An unknown verb is refused by the callback: what is raised here, discord.py only logs.
        return cls(match["id"], match["verb"])

    async def callback(self, interaction: discord.Interaction[Any]) -> None:
        # discord.py only logs what a DynamicItem's callback raises, so this door answers for itself.
        try:
            await getattr(self, f"_{self.verb}" if self.verb in LABELS else "_unknown")(interaction)
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)

    async def _cancel(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        await interaction.response.defer(ephemeral=True, thinking=True)
        job = await interaction.client.desk.cancel(who(interaction), self.job_id)
        await interaction.followup.send(f"Cancelled. {answer.MONEY[job.owed]}", ephemeral=True)

    async def _again(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        answer.require_permissions(interaction)
        await interaction.response.defer(ephemeral=True, thinking=True)
        desk = interaction.client.desk
        job = await desk.requeue(who(interaction), await desk.job(self.job_id))
        await interaction.followup.send(answer.receipt(job, desk.menu), ephemeral=True)

    async def _retry(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        await interaction.response.defer(ephemeral=True, thinking=True)
        await interaction.client.desk.try_again(who(interaction), self.job_id)
        await interaction.followup.send("Trying again.", ephemeral=True)

    async def _drop(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        await interaction.response.defer(ephemeral=True, thinking=True)
        job = await interaction.client.desk.let_go(who(interaction), self.job_id)
        await interaction.followup.send(f"I ask no more. {answer.MONEY[job.owed]}", ephemeral=True)

    async def _post(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        answer.require_permissions(interaction)
        await interaction.response.defer(ephemeral=True, thinking=True)
        job = await interaction.client.desk.redeliver(who(interaction), self.job_id)
        await interaction.followup.send(answer.redelivery(job), ephemeral=True)

    async def _delete(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        await interaction.response.defer(ephemeral=True, thinking=True)
        job = await interaction.client.desk.may_delete(who(interaction), self.job_id)
        assert interaction.message is not None
        await interaction.message.delete()
        paid = " The clip was paid for, so it still counts." if job.price_cents else ""
        await interaction.followup.send(f"Deleted.{paid}", ephemeral=True)

    async def _unknown(self, interaction: "discord.Interaction[AnimaticBot]") -> None:
        raise Refusal("This button is from a newer version of me.")


def who(interaction: discord.Interaction[Any]) -> Who:
    """The person behind an interaction, as the desk wants to know them."""
    assert interaction.channel_id is not None
    return Who(
        id=interaction.user.id,
        channel_id=interaction.channel_id,
        guild_id=interaction.guild_id,
        moderator=interaction.permissions.manage_messages,
        interaction_id=interaction.id,
        upload_limit=interaction.filesize_limit,
    )
