"""Finds a job's message, redraws its card, posts its clip. The engine's and the desk's hand in Discord.

Everything goes out as an ordinary message of the bot, never by an interaction's token: tokens die
after 15 minutes, and follow-ups can double. Sends carry a nonce made from the job, so that a repeat
within Discord's window (a few minutes) gives the first message and no second one.
"""

import asyncio
import hashlib
import tempfile
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from concurrent.futures import Executor
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime, timedelta
from functools import partial
from http import HTTPStatus
from io import BytesIO
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import discord
import structlog

from bot.errors import Cause
from bot.failpoints import reach
from bot.jobs.announcing import CannotPost, Ours, PictureGone, Pictures, PostLater, Waiting
from bot.jobs.budgets import Budget
from bot.jobs.comparisons import Choice, Comparison
from bot.jobs.desk import DEFAULT_UPLOAD_LIMIT
from bot.jobs.guilds import SettingsOf
from bot.jobs.health import Trouble
from bot.jobs.machine import Job, State
from bot.jobs.models import Menu
from bot.jobs.moderation import Review
from bot.jobs.safety import Case
from bot.media import clip as clips
from bot.media.picture import normalise
from bot.providers.base import Picture, PictureRules
from bot.ui import answer, cards, comparisons, reviews
from bot.ui.controls import ConsentButton
from bot.ui.sources import media_in, uncancelled

if TYPE_CHECKING:
    from bot.client import AnimaticBot
    from bot.jobs.store import Store

log = structlog.get_logger(__name__)

LONGEST_NONCE = 25  # characters (resources/message, Create Message)
T = TypeVar("T")

LEAST_UPLOAD_LIMIT = 1024 * 1024
REQUEST_ROOM = 64 * 1024  # for the rest of the multipart body
LOOK_BACK = 100
POSTS_BACK = 1000  # messages between which a post is looked for, from either end
MOST_DRAWN = 5000
CLIPS_AT_ONCE = 2  # clips that are in memory to find their last frame
READ_SECONDS = 60.0  # for a picture or a clip of Discord's
# Ten thousand answers of these in ten minutes are a ban: never asked again, whatever their code (topics/rate-limits).
COUNTED = {HTTPStatus.UNAUTHORIZED, HTTPStatus.FORBIDDEN, HTTPStatus.NOT_FOUND}
CLOCKS_APART = timedelta(minutes=2)  # message ids tell Discord's time, jobs tell ours

# Discord's error codes that no repeat can mend, each with the end it means.
PERMANENT = {
    10003: Cause.CHANNEL_GONE,
    10004: Cause.CHANNEL_GONE,
    10008: Cause.POST_DELETED,  # the answer to a nonce whose first message was deleted
    50001: Cause.NO_PERMISSION,
    50007: Cause.NO_PERMISSION,  # they have blocked the bot
    50278: Cause.NO_PERMISSION,  # they take no direct messages
    50013: Cause.NO_PERMISSION,
    50083: Cause.CHANNEL_GONE,
    200000: Cause.BLOCKED_BY_DISCORD,
    200001: Cause.BLOCKED_BY_DISCORD,
}
TOO_LARGE = {40005, 50045}


class TooLarge(Exception):
    """Discord took the request for too large; smaller may do."""


class DiscordAnnouncer:
    """`bot.jobs.announcing.Announcer` on a real or simulated Discord."""

    def __init__(
        self,
        *,
        bot: "AnimaticBot",
        store: "Store",
        menu: Menu,
        pool: Executor,
        now: Callable[[], datetime],
        settings: SettingsOf,
    ) -> None:
        self._bot = bot
        self._store = store
        self._menu = menu
        self._pool = pool
        self._now = now
        self._settings_of = settings
        self._clips = asyncio.Semaphore(CLIPS_AT_ONCE)
        self._drawn: dict[str, Any] = {}
        self._undrawable: dict[str, State] = {}  # cards that Discord did not let us draw in this state

    async def post_card(self, job: Job, pictures: Pictures, waiting: Waiting) -> int:
        view = cards.card(job, self._menu, waiting)
        try:
            message = await self._send(
                job, view, _picture_files(job, pictures), f"{job.id}c", channel_id=job.asked_in
            )
        except TooLarge:
            raise CannotPost(Cause.BAD_INPUT) from None
        _keep(self._drawn, job.id, _components(view))
        return message.id

    async def draw(self, job: Job, waiting: Waiting) -> None:
        if job.card_id is None:
            return
        view = cards.card(job, self._menu, waiting)
        components = _components(view)
        if self._drawn.get(job.id) == components or self._undrawable.get(job.id) is job.state:
            return
        try:
            await (
                self._card_channel(job)
                .get_partial_message(job.card_id)
                .edit(view=view, allowed_mentions=discord.AllowedMentions.none())
            )
        except Exception as error:  # noqa: BLE001 - a card that cannot be drawn must not stop the job
            log.info("card_not_drawn", job=job.id, state=job.state, error=type(error).__name__)
            if isinstance(error, discord.HTTPException) and _is_final(error):
                _keep(
                    self._undrawable, job.id, job.state
                )  # the line may move many times: asked once in each state
        else:
            _keep(self._drawn, job.id, components)
        if not job.is_open:
            self._drawn.pop(job.id, None)
            self._undrawable.pop(job.id, None)

    async def pictures(self, job: Job, rules: PictureRules | None = None) -> Pictures:
        if job.picture_file is None:
            return Pictures()
        media = await self._media(job)
        async with self._reading(job):
            first = await self._read(media.get(job.picture_file))
            last = await self._read(media.get(job.end_picture_file)) if job.end_picture_file else None
        if rules is not None:
            first = await normalise(first.data, rules)
            last = await normalise(last.data, rules, name="The end picture") if last else None
        return Pictures(first=first, last=last)

    async def last_frame(self, job: Job, rules: PictureRules) -> Picture:
        clip = (await self._media(job)).get(_clip_file(job))
        if clip is None:
            raise PictureGone
        with tempfile.TemporaryDirectory(prefix="animatic-") as folder:
            path = Path(folder) / "clip.mp4"
            async with self._clips, self._reading(job):
                await asyncio.to_thread(path.write_bytes, await self._bot.http.get_from_cdn(clip.url))
            try:
                frame = await clips.last_frame(path, pool=self._pool)
            except clips.NotAClip:
                raise PictureGone from None
        return await normalise(frame, rules, name="The last frame")

    async def _media(self, job: Job) -> dict[str, discord.UnfurledMediaItem]:
        """What the job's post, or its card, carries, by file name."""
        message_id = job.post_id or job.card_id
        if message_id is None:
            raise PictureGone
        async with self._reading(job):
            channel = self._channel(job, job.posted_in) if job.post_id else self._card_channel(job)
            message = await uncancelled(channel.fetch_message(message_id))
        return {file_name(item): item for item in media_of(message)}

    @asynccontextmanager
    async def _reading(self, job: Job) -> AsyncIterator[None]:
        """What Discord answers to a read, in the words of `bot.jobs.announcing`."""
        try:
            async with asyncio.timeout(READ_SECONDS):
                yield
        except (discord.NotFound, discord.Forbidden):
            raise PictureGone from None
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            log.info("not_read", job=job.id, error=type(error).__name__)
            raise PostLater(Cause.DISCORD_DOWN) from error

    async def tell_owner(self, route: str, trouble: Trouble) -> bool:
        return await self._write_to_owner(cards.route_in_trouble(route, trouble))

    async def tell_owner_of_budget(self, budget: Budget, mark: int) -> bool:
        """That so many per cent of what the whole bot may spend are spent. Whether Discord has answered for good. Never raises."""
        return await self._write_to_owner(cards.budget_spent(budget, mark, self._menu.currency, self._now()))

    async def tell_server_of_budget(self, channel_id: int, guild_id: int, budget: Budget, mark: int) -> bool:
        """The same of what one server may spend, in the channel of its moderators."""
        text = cards.budget_spent(budget, mark, self._menu.currency, self._now())
        return await self._bot.write_down(guild_id, [text], channel_id)

    async def _write_to_owner(self, text: str) -> bool:
        """Whether Discord has answered for good. Of several processes that write the same, Discord takes one."""
        try:
            about = await self._bot.application_info()
            owner = about.team.owner_id if about.team else about.owner.id
            assert owner is not None
            channel = await self._bot.create_dm(discord.Object(owner))
            await channel.send(text, nonce=hashlib.sha256(text.encode()).hexdigest()[:LONGEST_NONCE])
        except discord.HTTPException as error:
            log.warning("owner_not_told", error=type(error).__name__, status=error.status)
            return _is_final(error)
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            log.warning("owner_not_told", error=type(error).__name__)
            return False
        return True

    async def ask_owner(
        self, channel_id: int, guild_id: int, owner_id: int, asker_id: int, until: datetime
    ) -> bool:
        expires = int(until.timestamp())
        channel = self._bot.get_partial_messageable(channel_id, guild_id=guild_id)
        view = discord.ui.View(timeout=None).add_item(ConsentButton(owner_id, asker_id, expires))
        try:
            await channel.send(
                answer.asked_owner(owner_id, asker_id, expires),
                view=view,
                delete_after=(until - self._now()).total_seconds(),
                allowed_mentions=discord.AllowedMentions(users=[discord.Object(owner_id)]),
            )
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            log.info("owner_not_asked", error=type(error).__name__)
            return False
        return True

    def may_post(self, guild_id: int, channel_id: int, *, asked_in: int) -> bool:
        guild = self._bot.get_guild(guild_id)
        channel = guild.get_channel(channel_id) if guild else None
        if guild is None or not isinstance(channel, discord.TextChannel):
            return False
        asked = guild.get_channel(asked_in)
        missing = answer.missing_permissions(channel.permissions_for(guild.me))
        return not missing and (channel.is_nsfw() or (asked is not None and not asked.is_nsfw()))

    async def find_post(self, job: Job) -> int | None:
        assert job.postable_since is not None
        since = job.postable_since - CLOCKS_APART
        try:
            for oldest_first in (True, False):
                async for message in self._channel(job).history(
                    limit=POSTS_BACK, after=since, oldest_first=oldest_first
                ):
                    if any(file_name(item) == _clip_file(job) for item in media_of(message)):
                        return message.id
        except (discord.NotFound, discord.Forbidden):
            return None  # the post itself will say what is wrong
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            raise PostLater(Cause.DISCORD_DOWN) from error
        return None

    async def post(self, job: Job, clip: Path, pictures: Pictures, ours: Ours) -> int:
        taken = (self._now() - job.created_at).total_seconds()
        settings = await self._settings_of(job.guild_id)
        view = partial(
            cards.post,
            job,
            self._menu,
            _clip_file(job),
            seconds_taken=taken,
            emoji=settings.requeue_emoji,
            spoiler=settings.spoiler,
            pictures=pictures.first is not None,
        )
        files = partial(_picture_files, job, pictures)
        clips_by_name = {_clip_file(job): clip}
        limit = await self._upload_limit(job)
        try:
            return await self._upload(job, clips_by_name, view, files, limit, post_nonce(job), ours)
        except CannotPost as refused:
            if refused.cause is not Cause.CLIP_TOO_LARGE or pictures.first is None:
                raise
        # Perhaps it is the picture, from when the server was boosted: better the clip alone than none.
        return await self.post(job, clip, Pictures(), ours)

    async def post_together(
        self,
        comparison_id: str,
        clips: tuple[tuple[Job, Path], tuple[Job, Path]],
        pictures: Pictures,
        closes_at: datetime,
        ours: Ours,
    ) -> int:
        (a, _), (b, _) = clips
        view = partial(
            comparisons.post,
            comparison_id,
            (a, b),
            self._menu,
            (_clip_file(a), _clip_file(b)),
            closes_at=closes_at,
            pictures=pictures.first is not None,
            spoiler=(await self._settings_of(a.guild_id)).spoiler,
        )
        originals = {_clip_file(job): clip for job, clip in clips}
        files = partial(_picture_files, a, pictures)
        limit = await self._upload_limit(a)
        return await self._upload(a, originals, view, files, limit, post_nonce(a, "v"), ours)

    async def show_result(
        self, comparison: Comparison, jobs: tuple[Job, Job], votes: Mapping[Choice, int]
    ) -> bool:
        a, b = jobs
        assert comparison.post_id is not None
        channel = self._channel(a)
        try:
            message = await channel.fetch_message(comparison.post_id)
            there = {file_name(item) for item in media_of(message)}
        except (discord.NotFound, discord.Forbidden) as error:
            log.info("result_not_shown", comparison=comparison.id, status=error.status)
            return True
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            log.info("result_not_shown", comparison=comparison.id, error=type(error).__name__)
            return False
        view = comparisons.result(
            jobs,
            self._menu,
            (_clip_file(a), _clip_file(b)),
            votes,
            pictures=a.picture_file in there,
            spoiler=(await self._settings_of(a.guild_id)).spoiler,
        )
        edit = channel.get_partial_message(comparison.post_id).edit(
            view=view, allowed_mentions=discord.AllowedMentions.none()
        )
        return await self._try("result_not_shown", edit)

    async def post_privately(self, job: Job, clip: Path, cause: Cause, ours: Ours) -> tuple[int, int]:
        try:
            channel = await self._bot.create_dm(discord.Object(job.asker_id))
            async for message in channel.history(limit=LOOK_BACK):
                if any(file_name(item) == _clip_file(job) for item in media_of(message)):
                    return channel.id, message.id
        except discord.HTTPException as error:
            if _is_final(error):
                raise CannotPost(cause) from error
            raise PostLater(Cause.DISCORD_DOWN) from error
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            raise PostLater(Cause.DISCORD_DOWN) from error
        view = partial(cards.private_post, job, self._menu, _clip_file(job), cause)
        limit = DEFAULT_UPLOAD_LIMIT - REQUEST_ROOM
        return channel.id, await self._upload(
            job, {_clip_file(job): clip}, view, list, limit, post_nonce(job, "d"), ours, channel.id
        )

    async def _upload(
        self,
        job: Job,
        originals: Mapping[str, Path],
        view: Callable[[], discord.ui.LayoutView],
        pictures: Callable[[], list[discord.File]],
        limit: int,
        nonce: str,
        ours: Ours,
        channel_id: int | None = None,
    ) -> int:
        """The clips, by file name, in one message, made smaller until Discord takes each of them."""
        while True:
            fitted: dict[str, Path] = {}
            try:
                for name, clip in originals.items():
                    try:
                        fitted[name] = await clips.fit(clip, limit, pool=self._pool)
                    except clips.CannotFit:
                        raise CannotPost(Cause.CLIP_TOO_LARGE) from None
                    except clips.NotAClip:
                        raise CannotPost(Cause.CLIP_UNUSABLE) from None
                reach("announcer.fitted")
                try:
                    files = [discord.File(path, name) for name, path in fitted.items()] + pictures()
                    if not ours():  # this process slept: another may have posted meanwhile
                        raise PostLater(Cause.INTERRUPTED)
                    message = await self._send(job, view(), files, nonce, ping=True, channel_id=channel_id)
                except TooLarge:
                    sizes = [(await asyncio.to_thread(path.stat)).st_size for path in fitted.values()]
                    limit = min(limit, max(sizes)) // 2
                    if limit < LEAST_UPLOAD_LIMIT:
                        raise CannotPost(Cause.CLIP_TOO_LARGE) from None
                else:
                    return message.id
            finally:
                for name, path in fitted.items():
                    if path != originals[name]:
                        await asyncio.to_thread(path.unlink, missing_ok=True)

    async def finish(self, job: Job) -> bool:
        channel = self._channel(job)
        self._drawn.pop(job.id, None)
        done = True
        if job.post_id and not job.post_channel_id and not job.sealed:
            emoji = (await self._settings_of(job.guild_id)).requeue_emoji
            done &= await self._try(
                "reaction_not_added", channel.get_partial_message(job.post_id).add_reaction(emoji)
            )
        if job.card_id:
            done &= await self._try(
                "card_not_deleted", self._card_channel(job).get_partial_message(job.card_id).delete()
            )
        return done

    async def erase(self, job: Job, *, post: bool) -> bool:
        done = True
        if job.card_id:
            card = self._card_channel(job).get_partial_message(job.card_id)
            done &= await self._try("card_not_deleted", card.delete())
        if job.post_id and post:
            posted = self._channel(job, job.posted_in).get_partial_message(job.post_id)
            done &= await self._try("post_not_deleted", posted.delete())
        return done

    async def take_down(self, job: Job) -> bool:
        if job.card_id:
            card = self._card_channel(job).get_partial_message(job.card_id)
            await self._try("card_not_deleted", card.delete())
        if job.post_id is None:
            return True
        try:
            await self._channel(job, job.posted_in).get_partial_message(job.post_id).delete()
        except discord.NotFound:
            return True
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            log.warning("post_not_taken_down", job=job.id, error=type(error).__name__)
            return False
        return True

    async def tell_moderators(self, job: Job, review: Review) -> None:
        await reviews.tell_moderators(self._bot, Case(job=job, review=review))

    async def clear_card(self, job: Job) -> None:
        ours = f"job:{job.id}:"
        try:
            after = job.created_at - CLOCKS_APART
            history = self._card_channel(job).history(limit=LOOK_BACK, after=after, oldest_first=True)
            async for message in history:
                if any(ours in (custom_id or "") for custom_id in _custom_ids(message)):
                    await self.draw(replace(job, card_id=message.id), Waiting())
                    return
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            log.info("card_not_found", job=job.id, error=type(error).__name__)

    async def _try(self, event: str, call: Any) -> bool:  # Any: a coroutine of discord.py
        """Whether Discord has answered for good, be it with a no."""
        try:
            await call
        except discord.HTTPException as error:
            log.info(event, error=type(error).__name__, status=error.status)
            return _is_final(error)
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            log.info(event, error=type(error).__name__)
            return False
        return True

    async def _send(
        self,
        job: Job,
        view: discord.ui.LayoutView,
        files: list[discord.File],
        nonce: str,
        *,
        ping: bool = False,
        channel_id: int | None = None,
    ) -> discord.Message:
        """One message; a post pings the asker, and nothing else pings. Raises CannotPost, PostLater or TooLarge."""
        pings = [discord.Object(job.asker_id)] if ping else []
        try:
            return await self._channel(job, channel_id).send(
                view=view,
                files=files,
                nonce=nonce,
                allowed_mentions=discord.AllowedMentions(
                    everyone=False, roles=False, replied_user=False, users=pings
                ),
            )
        except discord.HTTPException as error:
            if error.code in TOO_LARGE or error.status == 413:
                raise TooLarge from error
            if error.code in PERMANENT:
                raise CannotPost(PERMANENT[error.code]) from error
            log.warning("message_not_sent", job=job.id, status=error.status, code=error.code)
            if error.status in COUNTED:
                raise CannotPost(Cause.NO_PERMISSION) from error
            raise PostLater(Cause.DISCORD_DOWN) from error
        except discord.RateLimited as error:
            raise PostLater(Cause.DISCORD_DOWN, timedelta(seconds=error.retry_after)) from error
        except (discord.DiscordException, aiohttp.ClientError, OSError) as error:
            raise PostLater(Cause.DISCORD_DOWN) from error

    async def _upload_limit(self, job: Job) -> int:
        """What Discord last said for this server, else what its boost level gives, in bytes.

        A wrong guess is answered by a 413, and the clip is made smaller.
        """
        guild = self._bot.get_guild(job.guild_id) if job.guild_id else None
        seen = await self._store.last_upload_limit(job.guild_id)
        return (seen or (guild.filesize_limit if guild else DEFAULT_UPLOAD_LIMIT)) - REQUEST_ROOM

    async def _read(self, media: discord.UnfurledMediaItem | None) -> Picture:
        if media is None:
            raise PictureGone
        # Not media.read(): discord.py 2.7 gives a fetched message's components no connection to read with.
        return Picture(
            data=await self._bot.http.get_from_cdn(media.url),
            media_type="image/png" if file_name(media).endswith(".png") else "image/jpeg",
            width=media.width or 0,
            height=media.height or 0,
            link=media.url,
        )

    def _channel(self, job: Job, channel_id: int | None = None) -> discord.PartialMessageable:
        """The channel of the request, or that other one."""
        elsewhere = channel_id not in (None, job.channel_id, job.asked_in)
        return self._bot.get_partial_messageable(
            channel_id or job.channel_id, guild_id=None if elsewhere else job.guild_id
        )

    def _card_channel(self, job: Job) -> discord.PartialMessageable:
        return self._bot.get_partial_messageable(job.asked_in, guild_id=job.guild_id)


def _keep(known: dict[str, T], job_id: str, value: T) -> None:
    """Know this of a job; of MOST_DRAWN at most, for nobody says here which of them others have ended."""
    known[job_id] = value
    while len(known) > MOST_DRAWN:
        del known[next(iter(known))]


def _is_final(error: discord.HTTPException) -> bool:
    """A no that stays one. discord.py waits out a rate limit a few times; what is left of it passes too."""
    return error.status < 500 and error.status != HTTPStatus.TOO_MANY_REQUESTS


def post_nonce(job: Job, kind: str = "p") -> str:
    """What a repeat of the post goes by, at most 25 characters. Each request to post it once more has its own:
    else Discord would answer with the message of the first delivery, or say that it was deleted."""
    once_more = f"{int(job.redelivered_at.timestamp()):x}" if job.redelivered_at else ""
    return f"{job.id}{kind}{once_more}"


def _components(view: discord.ui.LayoutView) -> list[dict[str, Any]]:
    components: list[dict[str, Any]] = view.to_components()  # type: ignore[no-untyped-call]  # discord.py's gap
    return components


def _clip_file(job: Job) -> str:
    return f"animatic-{job.id}.mp4"


def file_name(media: discord.UnfurledMediaItem) -> str:
    """The file name of a picture or clip in a message."""
    return PurePosixPath(urlsplit(media.url).path).name


def media_of(message: discord.Message) -> Iterator[discord.UnfurledMediaItem]:
    """The pictures and clips in a message of the bot."""
    return media_in(message.components)


def _custom_ids(message: discord.Message) -> Iterator[str | None]:
    """Of the buttons in a message of the bot."""
    pending: list[Any] = list(message.components)
    while pending:
        part = pending.pop(0)
        pending[:0] = getattr(part, "children", [])
        yield getattr(part, "custom_id", None)


def _picture_files(job: Job, pictures: Pictures) -> list[discord.File]:
    named = ((pictures.first, job.picture_file), (pictures.last, job.end_picture_file))
    return [discord.File(BytesIO(picture.data), name) for picture, name in named if picture and name]
