"""The Discord client: holds what cogs need, loads them, decides nothing."""

import hashlib
import json
from collections.abc import Sequence

import aiohttp
import discord
import structlog
from discord import app_commands
from discord.ext import commands
from discord.gateway import DiscordWebSocket
from yarl import URL

from bot.failpoints import reach
from bot.jobs.archive import Archive
from bot.jobs.comparing import Comparing
from bot.jobs.desk import Desk
from bot.jobs.guilds import Guilds
from bot.jobs.safety import Safety
from bot.jobs.store import Store
from bot.jobs.usage import Books
from bot.media.charts import Charts
from bot.ui import answer
from bot.ui.comparisons import StartButton, VersusButton
from bot.ui.controls import ConsentButton, JobButton, ModelSelect, on_form
from bot.ui.guide import ForgetButton, Reader
from bot.ui.lists import HistoryButton, QueueButton
from bot.ui.reviews import BlockedButton, ReportButton, ReviewButton
from bot.ui.usage import SheetButton

log = structlog.get_logger(__name__)

COGS = (
    "cogs.animate",
    "cogs.requeue",
    "cogs.compare",
    "cogs.lists",
    "cogs.members",
    "cogs.settings",
    "cogs.usage",
    "cogs.joining",
    "cogs.safety",
    "cogs.about",
)

# What an invite asks for, and nothing more. Add Reactions is for the 🔁 under a post.
PERMISSIONS = discord.Permissions(
    view_channel=True,
    send_messages=True,
    send_messages_in_threads=True,
    attach_files=True,
    read_message_history=True,
    add_reactions=True,
)


def change(method: str, path: str) -> str:
    """A request to Discord by its method and the last plain word of its path: `POST messages`, `PUT reactions`, …"""
    words = [part for part in path.split("/") if part.isascii() and part.isalpha()]
    return f"{method} {words[-1]}"


def watched() -> aiohttp.TraceConfig:
    """A fail point behind every request that has changed something at Discord."""

    async def answered(_session: object, _context: object, request: aiohttp.TraceRequestEndParams) -> None:
        if request.method != "GET" and request.response.ok:
            reach("discord.answered", change(request.method, request.url.path))

    trace = aiohttp.TraceConfig()
    trace.on_request_end.append(answered)
    return trace


class Tree(app_commands.CommandTree["AnimaticBot"]):
    """Every command's errors end in `bot.ui.answer`, like those of buttons and modals."""

    async def on_error(
        self, interaction: discord.Interaction["AnimaticBot"], error: app_commands.AppCommandError
    ) -> None:
        await answer.error(interaction, error)


class AnimaticBot(commands.AutoShardedBot):
    """No privileged intents: messages are watched only for deleted cards, reactions for requeues."""

    desk: Desk
    servers: Guilds
    archive: Archive
    books: Books
    charts: Charts
    safety: Safety
    comparing: Comparing
    serves_commands = True

    def __init__(
        self,
        *,
        store: Store,
        shard_ids: tuple[int, ...] | None = None,
        shard_count: int | None = None,
    ) -> None:
        super().__init__(
            command_prefix=commands.when_mentioned,
            help_command=None,
            tree_cls=Tree,
            intents=discord.Intents(guilds=True, guild_messages=True, guild_reactions=True),
            allowed_mentions=discord.AllowedMentions.none(),
            allowed_installs=app_commands.AppInstallationType(guild=True, user=False),
            allowed_contexts=app_commands.AppCommandContext(guild=True, dm_channel=False),
            max_messages=None,
            max_ratelimit_timeout=30.0,  # what takes longer is tried later, after a look: a nonce is kept for minutes only
            shard_ids=shard_ids,  # type: ignore[arg-type]  # any sequence will do, None for all
            shard_count=shard_count,
            http_trace=watched(),
        )
        self._store = store
        self.command_ids: dict[str, int] = {}

    async def setup_hook(self) -> None:
        self.add_dynamic_items(
            JobButton,
            ModelSelect,
            ConsentButton,
            HistoryButton,
            QueueButton,
            ForgetButton,
            StartButton,
            VersusButton,
            SheetButton,
        )
        self.add_dynamic_items(ReportButton, ReviewButton, BlockedButton)
        if not self.serves_commands:
            return
        for cog in COGS:
            await self.load_extension(cog)
        await self._sync_when_changed()

    async def write_down(self, guild_id: int, lines: Sequence[str], *channel_ids: int | None) -> bool:
        """Write lines into channels of a server's moderators; they ping nobody. Whether Discord has answered for good. Never
        raises."""
        answered = True
        for channel_id in dict.fromkeys(one for one in channel_ids if one is not None):
            channel = self.get_partial_messageable(channel_id, guild_id=guild_id)
            try:
                for line in lines:
                    await channel.send(line, allowed_mentions=discord.AllowedMentions.none())
            except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
                log.info("not_written_down", guild=guild_id, error=type(error).__name__)
                answered = answered and isinstance(error, discord.NotFound | discord.Forbidden)
        return answered

    async def was_removed_from(self, guild_id: int) -> bool:
        """Whether Discord itself says, asked now, that the bot is not in this server."""
        try:
            await self.fetch_guild(guild_id, with_counts=False)
        except (discord.NotFound, discord.Forbidden):
            return True
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            log.info("server_not_asked", guild=guild_id, error=type(error).__name__)
        return False

    async def note(self, guild_id: int, lines: Sequence[str]) -> None:
        """Write down, in a server's audit channel, what somebody did. Never raises."""
        settings = await self.servers.settings(guild_id)
        await self.write_down(guild_id, lines, settings.audit_channel)

    def reader(self, interaction: discord.Interaction["AnimaticBot"]) -> Reader:
        """Somebody to whom commands are named."""
        return Reader(permissions=interaction.permissions, command_ids=self.command_ids)

    async def launch_shards(self) -> None:
        """Ask Discord, or the configured proxy, for the gateway's address also when the shards are given.

        discord.py asks only when it needs the shard count, and else dials a fixed address.
        """
        if self.shard_count is not None:
            _, gateway, _ = await self.http.get_bot_gateway()
            DiscordWebSocket.DEFAULT_GATEWAY = URL(gateway)
        await super().launch_shards()

    async def on_message(self, message: discord.Message, /) -> None:
        """There are no commands in messages: somebody who mentions the bot is only talking."""

    async def on_interaction(self, interaction: discord.Interaction["AnimaticBot"]) -> None:
        """Modals are answered by their custom_id: discord.py forgets at a restart which ones it sent."""
        await on_form(interaction)

    async def on_ready(self) -> None:
        log.info("ready", user=str(self.user), servers=len(self.guilds))

    async def _sync_when_changed(self) -> None:
        """Send the commands to Discord only when they differ from what was sent last.

        Creating commands is limited to 200 a day and server; a restart loop would use them up.
        """
        payload = [command.to_dict(self.tree) for command in self.tree.get_commands()]
        digest = hashlib.sha256(json.dumps(payload, sort_keys=True).encode()).hexdigest()
        key = f"commands:{self.application_id}"
        names = f"command_ids:{self.application_id}"
        if await self._store.recall(key) == digest:
            known = await self._store.recall(names)
            self.command_ids = json.loads(known) if known else {}
            return
        synced = await self.tree.sync()
        self.command_ids = {
            command.name: command.id
            for command in synced
            if command.type is discord.AppCommandType.chat_input
        }
        await self._store.remember(names, json.dumps(self.command_ids))
        await self._store.remember(key, digest)
        log.info("commands_synced", commands=len(payload))
