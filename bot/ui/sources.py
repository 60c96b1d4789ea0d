"""Pictures that stand in messages: where they are found, and how one is fetched.

Only links that Discord itself serves are followed: its files, and its copies of what a link shows.
"""

import asyncio
from collections.abc import Awaitable, Iterable, Iterator
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, TypeVar
from urllib.parse import urlsplit

import aiohttp
import discord
from discord.http import HTTPClient

from bot.errors import Refusal
from bot.jobs.desk import FREE
from bot.media.picture import normalise, refuse_by_size
from bot.providers.base import Picture, PictureRules

T = TypeVar("T")

MOST_PICTURES = 25  # as many as a select holds
LARGEST_SIDE = 4096  # pixels; of what Discord copied from elsewhere, it also serves smaller versions
READ_SECONDS = 30.0
ENDINGS = {".png", ".jpg", ".jpeg", ".webp", ".gif", ".heic", ".heif", ".avif", ".bmp"}


@dataclass(frozen=True, slots=True, kw_only=True)
class Source:
    """A picture on Discord's servers: its link, what people may call it, and its size where Discord tells.

    `size` counts bytes, `width` and `height` pixels.
    """

    url: str
    name: str
    size: int | None = None
    width: int | None = None
    height: int | None = None


def attached(attachment: discord.Attachment) -> Source:
    return Source(
        url=attachment.url,
        name=attachment.filename,
        size=attachment.size,
        width=attachment.width,
        height=attachment.height,
    )


def pictures_of(message: discord.Message) -> list[Source]:
    """The pictures that a message shows, in its order, each once: files, embeds, components, what it forwards."""
    found: dict[str, Source] = {}
    parts: list[discord.Message | discord.MessageSnapshot] = [message, *message.message_snapshots]
    for part in parts:
        for source in (*_files(part), *_embedded(part.embeds), *_in_components(part.components)):
            # Discord serves the same file under two hosts.
            found.setdefault(urlsplit(source.url).path, source)
    return list(found.values())[:MOST_PICTURES]


def forwarded_from(message: discord.Message) -> int | None:
    """The channel that a message was forwarded from; None for what was not forwarded."""
    return message.reference.channel_id if message.message_snapshots and message.reference else None


def _files(part: discord.Message | discord.MessageSnapshot) -> Iterator[Source]:
    for attachment in part.attachments:
        if _is_picture(attachment.content_type, attachment.filename):
            yield attached(attachment)


def _embedded(embeds: Iterable[discord.Embed]) -> Iterator[Source]:
    for embed in embeds:
        for media in (embed.image, embed.thumbnail):
            if media.proxy_url:  # Discord's own copy
                name = PurePosixPath(urlsplit(media.url or "").path).name
                yield _copied(media.proxy_url, name or "picture", media.width, media.height)


def _in_components(components: Iterable[Any]) -> Iterator[Source]:
    for media in media_in(components):
        name = PurePosixPath(urlsplit(media.url).path).name
        if not _is_picture(media.content_type, name):
            continue
        if media.attachment_id is not None:
            yield Source(url=media.url, name=name, width=media.width, height=media.height)
        elif media.proxy_url:
            yield _copied(media.proxy_url, name, media.width, media.height)


def media_in(components: Iterable[Any]) -> Iterator[discord.UnfurledMediaItem]:
    """All media of Components V2, nested ones included. A V2 message lists no attachments (discord-api-docs #8277)."""
    for part in components:
        match part:
            case discord.ThumbnailComponent() | discord.FileComponent():
                yield part.media
            case discord.MediaGalleryComponent():
                yield from (item.media for item in part.items)
            case discord.SectionComponent():
                yield from media_in([*part.children, part.accessory])
            case discord.Container():
                yield from media_in(part.children)
            case _:
                pass


def _is_picture(content_type: str | None, name: str) -> bool:
    if content_type and content_type != "application/octet-stream":
        return content_type.startswith("image/")
    return PurePosixPath(name).suffix.lower() in ENDINGS


def _copied(url: str, name: str, width: int | None, height: int | None) -> Source:
    """Discord's copy of a picture, in a smaller version where it is huge: nobody tells its size in bytes."""
    if width and height and max(width, height) > LARGEST_SIDE:
        scale = LARGEST_SIDE / max(width, height)
        width, height = max(1, round(width * scale)), max(1, round(height * scale))
        url = f"{url}{'&' if '?' in url else '?'}width={width}&height={height}"
    return Source(url=url, name=name, width=width, height=height)


async def fetch(http: HTTPClient, source: Source, rules: PictureRules, *, name: str) -> Picture:
    """The picture, made to fit the rules. Raises Refusal, whose sentences begin with `name`."""
    if source.size is not None:
        refuse_by_size(source.size, name=name)
    try:
        async with asyncio.timeout(READ_SECONDS):
            data = await http.get_from_cdn(source.url)
    except (discord.DiscordException, aiohttp.ClientError, OSError):
        raise Refusal(
            f"{name} could not be fetched from Discord. Please try again, or attach it anew. {FREE}"
        ) from None
    return await normalise(data, rules, name=name)


async def uncancelled(call: Awaitable[T]) -> T:
    """The answer of a call to Discord. Whoever waits may give up; the call itself goes on: cancelled while it sleeps through
    a global rate limit, discord.py would never let any other call go again."""
    return await asyncio.shield(asyncio.ensure_future(call))
