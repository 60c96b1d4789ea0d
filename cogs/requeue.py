"""Reacting to a clip queues it again, in the name of the person who reacted.

Raw events and the job's row are all it needs, so it works on any old post and after any restart.
"""

import asyncio

import discord
import structlog
from discord.ext import commands

from bot.client import AnimaticBot
from bot.errors import Refusal
from bot.jobs.desk import Who
from bot.ui import answer

log = structlog.get_logger(__name__)

NOTICE_SECONDS = 20.0


class Requeue(commands.Cog):
    def __init__(self, bot: AnimaticBot) -> None:
        self.bot = bot
        self._told: dict[tuple[int, int], None] = {}

    @commands.Cog.listener()
    async def on_raw_reaction_add(self, payload: discord.RawReactionActionEvent) -> None:
        if str(payload.emoji) != self.bot.requeue_emoji or payload.guild_id is None:
            return
        if self.bot.user is None or payload.user_id == self.bot.user.id:
            return
        if payload.member is not None and payload.member.bot:
            return
        job = await self.bot.desk.job_of_post(payload.message_id)
        if job is None:
            return
        who = Who(id=payload.user_id, channel_id=payload.channel_id, guild_id=payload.guild_id)
        try:
            self._require_permissions(payload)
            await self.bot.desk.requeue(who, job)
        except Refusal as refusal:
            await self._tell(payload, str(refusal))

    def _require_permissions(self, payload: discord.RawReactionActionEvent) -> None:
        guild = self.bot.get_guild(payload.guild_id or 0)
        channel = guild.get_channel_or_thread(payload.channel_id) if guild else None
        if guild is None or channel is None:
            return  # not in the cache: Discord itself answers when the card is posted
        thread = isinstance(channel, discord.Thread)
        answer.refuse_missing(answer.missing_permissions(channel.permissions_for(guild.me), thread=thread))

    async def _tell(self, payload: discord.RawReactionActionEvent, sentence: str) -> None:
        """A reaction has no private answer: a short notice to this person alone, gone after a moment.

        One at a time for each person and clip, however often they react.
        """
        if (payload.user_id, payload.message_id) in self._told:
            return
        self._told[payload.user_id, payload.message_id] = None
        asyncio.get_running_loop().call_later(
            NOTICE_SECONDS, self._told.pop, (payload.user_id, payload.message_id), None
        )
        channel = self.bot.get_partial_messageable(payload.channel_id, guild_id=payload.guild_id)
        try:
            await channel.send(
                f"<@{payload.user_id}> {sentence}",
                delete_after=NOTICE_SECONDS,
                allowed_mentions=discord.AllowedMentions(users=[discord.Object(payload.user_id)]),
            )
        except discord.HTTPException as error:
            log.info("notice_not_sent", status=error.status, code=error.code)


async def setup(bot: AnimaticBot) -> None:
    await bot.add_cog(Requeue(bot))
