"""Reports and blocks: `/block`, `/unblock`, `/blocked`, and the menu *Report this clip*."""

import asyncio
from weakref import WeakValueDictionary

import aiohttp
import discord
import structlog
from discord import app_commands
from discord.ext import commands

from bot.client import AnimaticBot
from bot.jobs.safety import LONGEST_REASON, Case
from bot.ui import answer, forms, reviews
from bot.ui.catalogue import COMMANDS, OPTIONS, REPORT_MENU
from bot.ui.controls import who

log = structlog.get_logger(__name__)

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
        await interaction.response.defer(ephemeral=True, thinking=True)
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
        job = await self.bot.desk.job_of_post(message.id)
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
        await interaction.response.defer(ephemeral=True, thinking=True)
        typed = forms.answers_in(interaction)
        reason = typed.get("reason", "")
        safety = self.bot.safety
        reason = reason if reason in reviews.REASONS else "other"
        await safety.report(who(interaction), job_id, reason, typed.get("words", ""))
        # One after the other, or two reports at once would make two messages.
        async with self.telling.setdefault(job_id, asyncio.Lock()):
            told = await self._tell_moderators(await safety.case(job_id))
        await interaction.followup.send(reviews.THANKS if told else reviews.NOBODY_TOLD, ephemeral=True)

    async def _tell_moderators(self, case: Case) -> bool:
        """Bring the moderators' message about a clip up to date, or write it. Whether there is one."""
        job, review = case.job, case.review
        if review.shown_in and review.shown_as:
            channel = self.bot.get_partial_messageable(review.shown_in, guild_id=review.guild_id)
            message = channel.get_partial_message(review.shown_as)
            try:
                await message.edit(
                    view=reviews.review(job, review), allowed_mentions=discord.AllowedMentions.none()
                )
            except (discord.NotFound, discord.Forbidden):
                log.info("review_gone", job=job.id)
            except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
                log.info("review_not_redrawn", job=job.id, error=type(error).__name__)
                return True  # it stands there all the same
            else:
                return True
        settings = await self.bot.servers.settings(review.guild_id)
        for channel_id in dict.fromkeys((settings.review_channel, settings.audit_channel)):
            if channel_id is None:
                continue
            fallback = settings.review_channel not in (None, channel_id)
            channel = self.bot.get_partial_messageable(channel_id, guild_id=review.guild_id)
            try:
                shown = await channel.send(
                    view=reviews.review(job, review, fallback=fallback),
                    nonce=f"{job.id}r{review.reporters % 1000}",
                    allowed_mentions=discord.AllowedMentions.none(),
                )
            except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
                log.warning("review_not_shown", guild=review.guild_id, error=type(error).__name__)
            else:
                await self.bot.safety.shown(case, channel_id, shown.id)
                return True
        return False


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Safety(bot))
