"""Reports and blocks: `/block`, `/unblock`, `/blocked`, and the menu *Report this clip*."""

import asyncio
from weakref import WeakValueDictionary

import discord
from discord import app_commands
from discord.ext import commands

from bot.client import AnimaticBot
from bot.jobs.safety import LONGEST_REASON
from bot.ui import answer, forms, reviews
from bot.ui.catalogue import COMMANDS, OPTIONS, REPORT_MENU
from bot.ui.controls import who

LASTING = [app_commands.Choice(name=label, value=value) for value, (label, _) in reviews.LASTING.items()]


class Safety(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot
        self.menu = app_commands.guild_only(app_commands.ContextMenu(name=REPORT_MENU, callback=self.pick))
        self.telling: WeakValueDictionary[str, asyncio.Lock] = WeakValueDictionary()

    async def cog_load(self) -> None:
        self.bot.tree.add_command(self.menu)

    async def cog_unload(self) -> None:
        self.bot.tree.remove_command(self.menu.name, type=self.menu.type)

    # Blocks

    @app_commands.command(name="block", description=COMMANDS["block"])
    @app_commands.describe(
        member=OPTIONS["blocked_member"],
        reason=OPTIONS["reason"],
        duration=OPTIONS["duration"],
        everywhere=OPTIONS["everywhere"],
    )
    @app_commands.choices(duration=LASTING)
    @app_commands.default_permissions(manage_messages=True)
    async def block(
        self,
        interaction: discord.Interaction[AnimaticBot],
        member: discord.User,
        reason: app_commands.Range[str, 1, LONGEST_REASON] = "",
        duration: str = "unblock",
        everywhere: bool = False,
    ) -> None:
        await self._require(interaction, everywhere)
        moderates = isinstance(member, discord.Member) and member.guild_permissions.manage_messages
        if member.bot or (moderates and not everywhere and member != interaction.user):
            raise reviews.cannot_be_blocked(member.id)
        await answer.acknowledge(interaction)
        lasting = reviews.LASTING[duration][1]
        done = await self.bot.safety.block(
            who(interaction), member.id, reason, lasting, everywhere=everywhere
        )
        await interaction.followup.send(reviews.blocked_answer(done), ephemeral=True)
        if done.block.guild_id:
            await self.bot.note(done.block.guild_id, [reviews.audit_block(interaction.user.id, done)])

    @app_commands.command(name="unblock", description=COMMANDS["unblock"])
    @app_commands.describe(member=OPTIONS["blocked_member"], everywhere=OPTIONS["everywhere"])
    @app_commands.default_permissions(manage_messages=True)
    async def unblock(
        self, interaction: discord.Interaction[AnimaticBot], member: discord.User, everywhere: bool = False
    ) -> None:
        await self._require(interaction, everywhere)
        was = await self.bot.safety.unblock(who(interaction), member.id, everywhere=everywhere)
        await interaction.response.send_message(reviews.unblocked_answer(member.id, was=was), ephemeral=True)
        if was and not everywhere and interaction.guild_id:
            line = reviews.audit_unblock(interaction.user.id, member.id)
            await self.bot.note(interaction.guild_id, [line])

    @app_commands.command(name="blocked", description=COMMANDS["blocked"])
    @app_commands.describe(everywhere=OPTIONS["everywhere"])
    @app_commands.default_permissions(manage_messages=True)
    async def blocked(self, interaction: discord.Interaction[AnimaticBot], everywhere: bool = False) -> None:
        view = await reviews.blocked_page(interaction, everywhere=everywhere)
        await interaction.response.send_message(view=view, ephemeral=True)

    async def _require(self, interaction: discord.Interaction[AnimaticBot], everywhere: bool) -> None:
        """Raises Refusal. A server can let others in on its Integrations page, so it is asked here as well."""
        if everywhere and not await self.bot.is_owner(interaction.user):
            raise reviews.not_the_owner()
        if not everywhere and not interaction.permissions.manage_messages:
            raise reviews.not_a_moderator()

    # Reports

    async def pick(self, interaction: discord.Interaction[AnimaticBot], message: discord.Message) -> None:
        job = await self.bot.desk.reported_by(message.id)
        if job is None:
            raise reviews.not_a_clip()
        await reviews.open_report(interaction, job.id)

    @commands.Cog.listener()
    async def on_interaction(self, interaction: discord.Interaction[AnimaticBot]) -> None:
        """The modals, by their custom_id: discord.py forgets at a restart which ones it sent."""
        custom_id = forms.custom_id_of(interaction) or ""
        try:
            if found := reviews.REPORT_FORM.fullmatch(custom_id):
                await self._report(interaction, found["id"])
            elif found := reviews.BLOCK_FORM.fullmatch(custom_id):
                typed = forms.answers_in(interaction)
                _, lasting = reviews.LASTING.get(typed.get("lasting", ""), reviews.LASTING["unblock"])
                await reviews.decide(interaction, found["id"], block=(typed.get("reason", ""), lasting))
        except Exception as error:  # noqa: BLE001 - every error is somebody's sentence
            await answer.error(interaction, error)

    async def _report(self, interaction: discord.Interaction[AnimaticBot], job_id: str) -> None:
        await answer.acknowledge(interaction)
        typed = forms.answers_in(interaction)
        reason = typed.get("reason", "")
        safety = self.bot.safety
        reason = reason if reason in reviews.REASONS else "other"
        await safety.report(who(interaction), job_id, reason, typed.get("words", ""))
        # One after the other, or two reports at once would make two messages.
        async with self.telling.setdefault(job_id, asyncio.Lock()):
            told = await reviews.tell_moderators(self.bot, await safety.case(job_id))
        await interaction.followup.send(reviews.THANKS if told else reviews.NOBODY_TOLD, ephemeral=True)


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Safety(bot))
