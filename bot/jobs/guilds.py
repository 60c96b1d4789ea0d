"""What a server's moderators have decided, and where it is kept.

`GuildSettings` is pure; `Guilds` reads and writes it through the store. Only what differs from the owner's
config is stored, so a change of the config reaches every server that has not decided for itself.
"""

from collections.abc import Awaitable, Callable, Collection, Mapping
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Annotated, Any, Self

import structlog
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from bot.errors import Refusal
from bot.jobs.budgets import Budget, Scope, Stretch
from bot.jobs.limits import RequeueRules
from bot.jobs.rules import BadPattern, compiled
from bot.jobs.store import Store

log = structlog.get_logger(__name__)

FREE = "Nothing was charged."
FRESH = timedelta(seconds=10)  # how long a process goes by what it has read
MOST_KEPT = 1000  # servers whose settings are in memory
MOST_CHOSEN = 25  # channels or roles of one setting: as many as Discord's selects hold
MOST_WORDS = 200
LONGEST_WORD = 100
MOST_PATTERNS = 25
LONGEST_PATTERN = 200
MOST_CLIPS = 1_000_000
MOST_CENTS = 100_000_000

Ids = Annotated[frozenset[int], Field(max_length=MOST_CHOSEN)]
Clips = Annotated[int, Field(ge=0, le=MOST_CLIPS)] | None
Cents = Annotated[int, Field(ge=0, le=MOST_CENTS)] | None


class WhosePictures(StrEnum):
    """Whose pictures may be used by the menu, for another take and for a remix."""

    OWN = "own"
    ASK = "ask"
    ANYONE = "anyone"


class Paused(StrEnum):
    """Who has stopped new clips: this server's moderators, or the bot's owner for all servers."""

    HERE = "here"
    EVERYWHERE = "everywhere"


class GuildSettings(BaseModel):
    """What holds in one server. Ids are Discord's; money is in cents of the owner's currency.

    Of `channels`, `roles` and `requeue_roles`, none means all; moderators are in every role. Clips are posted in
    `results_channel`, which is one of `channels` where these are chosen, else where they were asked for. A clip dearer
    than `most_cents` is not made. A reaction to a clip that costs more than `confirm_above_cents` is asked
    back first. Limits that are None do not limit. A member with roles of `role_clips_per_day` may have the most
    generous of these instead of `member_clips_per_day`.
    """

    model_config = ConfigDict(frozen=True, extra="ignore")

    channels: Ids = frozenset()
    results_channel: int | None = None
    roles: Ids = frozenset()

    default_model: str | None = None
    default_seconds: int | None = None
    most_cents: Cents = None

    requeue_emoji: Annotated[str, Field(min_length=1, max_length=64)] = "🔁"
    requeue_roles: Ids = frozenset()
    requeues_per_day: Annotated[int, Field(ge=0, le=MOST_CLIPS)] = 20
    confirm_above_cents: Cents = None

    pictures: WhosePictures = WhosePictures.ANYONE
    spoiler: bool = False

    audit_channel: int | None = None
    review_channel: int | None = None

    member_clips_per_day: Clips = None
    member_cents_per_day: Cents = None
    role_clips_per_day: Annotated[
        Mapping[int, Annotated[int, Field(ge=0, le=MOST_CLIPS)]], Field(max_length=MOST_CHOSEN)
    ] = Field(default_factory=dict)
    channel_clips_per_day: Clips = None
    server_cents_per_day: Cents = None
    server_cents_per_month: Cents = None

    blocked_words: Annotated[tuple[str, ...], Field(max_length=MOST_WORDS)] = ()
    blocked_patterns: Annotated[tuple[str, ...], Field(max_length=MOST_PATTERNS)] = ()

    paused: Paused | None = None

    def differing_from(self, usual: Self) -> set[str]:
        """The names of the fields that were decided here, without the pause, which is kept apart."""
        names = set(type(self).model_fields) - {"paused"}
        return {name for name in names if getattr(self, name) != getattr(usual, name)}

    @property
    def requeues(self) -> RequeueRules:
        return RequeueRules(
            emoji=self.requeue_emoji,
            roles=self.requeue_roles,
            per_day=self.requeues_per_day,
            confirm_above_cents=self.confirm_above_cents,
        )

    def budgets(self, roles: Collection[int]) -> list[Budget]:
        """What this server's moderators let a member with these roles spend, and all members together."""
        by_role = [clips for role, clips in self.role_clips_per_day.items() if role in roles]
        member_clips = max(by_role, default=self.member_clips_per_day)
        day, month = Stretch.DAY, Stretch.MONTH
        budgets = [
            Budget(scope=Scope.MEMBER, stretch=day, clips=member_clips, cents=self.member_cents_per_day),
            Budget(scope=Scope.CHANNEL, stretch=day, clips=self.channel_clips_per_day),
            Budget(scope=Scope.SERVER, stretch=day, cents=self.server_cents_per_day),
            Budget(scope=Scope.SERVER, stretch=month, cents=self.server_cents_per_month),
        ]
        return [budget for budget in budgets if budget.clips is not None or budget.cents is not None]

    def refuse_paused(self) -> None:
        """Raises Refusal while nothing new is started."""
        if self.paused is Paused.HERE:
            raise Refusal(
                "This server's moderators have paused new clips. What is being made is finished, and what "
                f"waits starts when they resume. Please try again later. {FREE}"
            )
        if self.paused is Paused.EVERYWHERE:
            raise Refusal(
                "This bot's owner has paused new clips. What is being made is finished, and what waits starts "
                f"when they resume. Please try again later. {FREE}"
            )

    def admit_channel(self, channels: Collection[int | None]) -> None:
        """Raises Refusal where no clips may be: see `admit`."""
        if self.channels and (self.channels | {self.results_channel}).isdisjoint(
            {one for one in channels if one is not None}
        ):
            raise Refusal(f"Clips are made only in {_either(self.channels, '<#{}>')} here. {FREE}")

    def admit(self, *, channels: Collection[int | None], roles: Collection[int], moderator: bool) -> None:
        """Raises Refusal when a person with these roles may not have a clip made here and now.

        `channels` is where they ask: a channel, or a thread and the channel that it is in.
        """
        self.refuse_paused()
        self.admit_channel(channels)
        if self.roles and not moderator and self.roles.isdisjoint(roles):
            raise Refusal(f"Only {_either(self.roles, '<@&{}>')} may have clips made here. {FREE}")


def _either(ids: Collection[int], mention: str) -> str:
    return " or ".join(mention.format(one) for one in sorted(ids))


def refuse_bad_pattern(pattern: str) -> None:
    """Raises Refusal where this is no regular expression of RE2's, or too large a one."""
    try:
        compiled(pattern)
    except BadPattern:
        raise Refusal(
            f"`{pattern.replace('`', ' ')}` is not a pattern that I understand. Patterns are those of RE2: "
            "without look-around and back-references, and not too large."
        ) from None


# Asked with a server's id, None outside of servers.
SettingsOf = Callable[[int | None], Awaitable[GuildSettings]]


async def usual_settings(_guild_id: int | None) -> GuildSettings:
    """The same everywhere: what is built in."""
    return GuildSettings()


class Guilds:
    """The settings of all servers, as the database has them or had them at most FRESH ago.

    What this process changes, it sees at once. `usual` holds where a server has not decided.
    """

    def __init__(self, store: Store, *, now: Callable[[], datetime], usual: GuildSettings) -> None:
        self._store = store
        self._now = now
        self.usual = usual
        self.paused_or_resumed: Callable[[], None] = lambda: None
        self._kept: dict[int | None, tuple[datetime, GuildSettings]] = {}

    async def settings(self, guild_id: int | None) -> GuildSettings:
        """What holds in this server; what is usual outside of servers."""
        now = self._now()
        kept = self._kept.get(guild_id)
        if kept and now - FRESH <= kept[0] <= now:
            return kept[1]
        decided, paused_here, paused_everywhere = await self._store.guild(guild_id)
        paused = Paused.EVERYWHERE if paused_everywhere else Paused.HERE if paused_here else None
        settings = self._read(guild_id, decided).model_copy(update={"paused": paused})
        self._kept.pop(guild_id, None)
        self._kept[guild_id] = (now, settings)
        while len(self._kept) > MOST_KEPT:
            del self._kept[next(iter(self._kept))]
        return settings

    async def change(self, guild_id: int, **changes: Any) -> tuple[GuildSettings, GuildSettings]:
        """Decide these fields for a server: its settings before and after.

        A field that becomes what is usual follows the config again. Raises ValidationError for a value out
        of bounds; nothing was changed then.
        """
        usual = self.usual
        seen: list[tuple[GuildSettings, GuildSettings]] = []

        def decide(decided: str) -> str:
            before = self._read(guild_id, decided)
            after = GuildSettings.model_validate(before.model_dump() | changes)
            seen.append((before, after))
            return after.model_dump_json(include=after.differing_from(usual))

        await self._store.change_guild(guild_id, decide)
        self._kept.pop(guild_id, None)
        return seen[-1]

    async def pause(self, guild_id: int | None, paused: bool) -> bool:
        """Start nothing new in a server (None: in all) from now on, or start again. Whether that is a change."""
        changed = await self._store.pause(guild_id, self._now() if paused else None)
        if guild_id is None:
            self._kept.clear()
        self._kept.pop(guild_id, None)
        self.paused_or_resumed()
        return changed

    async def joined(self, guild_id: int) -> bool:
        """The bot is in this server. Whether it was not before; what was decided then holds again."""
        self._kept.pop(guild_id, None)
        return await self._store.guild_joined(guild_id)

    async def present(self) -> list[int]:
        """The servers that the bot is in, as far as it has noticed; those with clips that wait, at least."""
        return await self._store.guilds_present()

    async def gone(self) -> set[int]:
        """The servers that the bot has left, as far as it has noticed."""
        return await self._store.guilds_left()

    async def left(self, guild_id: int) -> None:
        """The bot is no longer in this server: what was decided is kept for a while."""
        self._kept.pop(guild_id, None)
        await self._store.guild_left(guild_id, self._now())

    def _read(self, guild_id: int | None, decided: str) -> GuildSettings:
        try:
            found = GuildSettings.model_validate_json(decided)
        except ValidationError as error:  # of another version: better the usual than nobody served
            log.warning("settings_unreadable", guild=guild_id, mistakes=error.error_count())
            return self.usual
        return self.usual.model_copy(
            update={name: getattr(found, name) for name in found.model_fields_set - {"paused"}}
        )
