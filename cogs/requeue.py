"""Reacting to a clip queues it again, in the name of the person who reacted.

Raw events and the job's row are all it needs, so it works on any old post and after any restart.
"""

import asyncio

import discord
import structlog
from discord import ui
from discord.ext import commands

from bot.client import AnimaticBot
from bot.errors import PrivateRefusal, Refusal
from bot.jobs.desk import Dear, Who
from bot.ui import answer
from bot.ui.controls import JobButton, is_age_restricted, thread_of

log = structlog.get_logger(__name__)

NOTICE_SECONDS = 20.0
CONFIRM_SECONDS = 300.0


class Requeue(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot
        # Who was told something about which clip, and in which message, as long as that stands.
        self._told: dict[tuple[int, int], int | None] = {}

    @commands.Cog.listener()
    async def on_raw_reaction_add(self, payload: discord.RawReactionActionEvent) -> None:
        me = self.bot.user
        if me is None or payload.guild_id is None or payload.user_id == me.id:
            return
        if payload.member is not None and payload.member.bot:
            return
        if payload.message_author_id not in (None, me.id):
            return
        settings = await self.bot.desk.settings(payload.guild_id)
        if str(payload.emoji) != settings.requeue_emoji:
            return
        job = await self.bot.desk.job_of_post(payload.message_id)
        if job is None:
            return
        try:
            self._require_permissions(payload)
            await self.bot.desk.again(self._who(payload), job, confirmed=False)
        except PrivateRefusal:
            await self._tell(payload, answer.why_is_private(payload.user_id), NOTICE_SECONDS)
        except Refusal as refusal:
            await self._tell(payload, f"<@{payload.user_id}> {refusal}", NOTICE_SECONDS)
        except Dear as dear:
            expires = int(self.bot.desk.now().timestamp() + CONFIRM_SECONDS)
            sentence = answer.asked_back(payload.user_id, dear.price_cents, self.bot.desk.menu, expires)
            button = JobButton(job.id, "sure", payload.user_id, expires)
            await self._tell(payload, sentence, CONFIRM_SECONDS, button)

    @commands.Cog.listener()
    async def on_raw_message_delete(self, payload: discord.RawMessageDeleteEvent) -> None:
        for key, notice in list(self._told.items()):
            if notice == payload.message_id:
                self._told.pop(key, None)

    def _who(self, payload: discord.RawReactionActionEvent) -> Who:
        channel, member = self._channel(payload), payload.member
        return Who(
            id=payload.user_id,
            channel_id=payload.channel_id,
            thread_of=thread_of(channel),
            guild_id=payload.guild_id,
            moderator=bool(channel and member and channel.permissions_for(member).manage_messages),
            roles=frozenset(role.id for role in member.roles) if member else frozenset(),
            age_restricted=is_age_restricted(channel),
        )

    def _channel(
        self, payload: discord.RawReactionActionEvent
    ) -> discord.abc.GuildChannel | discord.Thread | None:
        guild = self.bot.get_guild(payload.guild_id or 0)
        return guild.get_channel_or_thread(payload.channel_id) if guild else None

    def _require_permissions(self, payload: discord.RawReactionActionEvent) -> None:
        channel = self._channel(payload)
        if channel is None:
            return  # not in the cache: Discord itself answers when the card is posted
        missing = answer.missing_permissions(
            channel.permissions_for(channel.guild.me), thread=isinstance(channel, discord.Thread)
        )
        answer.refuse_missing(missing)

    async def _tell(
        self,
        payload: discord.RawReactionActionEvent,
        sentence: str,
        seconds: float,
        button: JobButton | None = None,
    ) -> None:
        """A reaction has no private answer: a short notice to this person alone, gone after a while.

        One at a time for each person and clip, however often they react.
        """
        key = (payload.user_id, payload.message_id)
        if key in self._told:
            return
        self._told[key] = None
        asyncio.get_running_loop().call_later(seconds, self._told.pop, key, None)
        channel = self.bot.get_partial_messageable(payload.channel_id, guild_id=payload.guild_id)
        try:
            notice = await channel.send(
                sentence,
                view=ui.View(timeout=None).add_item(button) if button else discord.utils.MISSING,
                delete_after=seconds,
                allowed_mentions=discord.AllowedMentions(users=[discord.Object(payload.user_id)]),
            )
        except discord.DiscordException as error:
            log.info("notice_not_sent", error=type(error).__name__)
        else:
            if key in self._told:
                self._told[key] = notice.id


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Requeue(bot))
