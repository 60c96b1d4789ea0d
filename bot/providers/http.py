"""One HTTP call made so that we know afterwards what it did: time-outs, size caps, our errors.

It knows addresses and aiohttp, and nothing of any vendor's words, of jobs or of money. It repeats
nothing: a POST goes out once (aiohttp itself repeats only idempotent methods), and whether it can
have arrived is told apart by the error.
"""

import asyncio
import io
import ipaddress
import json as json_text
import math
import os
import re
import secrets
import socket
from collections.abc import AsyncIterator, Iterator, Mapping
from contextlib import asynccontextmanager, contextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import BinaryIO, Literal

import aiohttp
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from bot import __version__
from bot.errors import Cause, ProviderBusy, ProviderRejected, ProviderUnsure
from bot.failpoints import reach

USER_AGENT = f"Animatic/{__version__}"
LARGEST_ANSWER = 2 * 1024 * 1024
EXCERPT = 500
CONNECT_SECONDS = 15.0
IDLE_SECONDS = 30.0
# Shorter than what servers commonly keep (Node: 5 s), so that a paid POST does not meet a connection
# that is just being closed, and end as "nobody knows".
KEEPALIVE_SECONDS = 4.0
AFTER_NO_CONNECTION = timedelta(seconds=30)
LEAST_RETRY_AFTER = timedelta(seconds=1)
GREATEST_RETRY_AFTER = timedelta(minutes=10)
MOST_REDIRECTS = 5
DOWNLOAD_TIME = timedelta(minutes=5)

PUBLIC_SCHEMES = frozenset({"https"})
ALL_SCHEMES = frozenset({"https", "http"})
UNTYPED = frozenset({"application/octet-stream", "binary/octet-stream", "application/mp4"})
REDIRECTS = frozenset({301, 302, 303, 307, 308})
NAT64 = ipaddress.ip_network("64:ff9b::/96")

_LINK_WITH_QUERY = re.compile(r"(https?:[^\s\"'<>?]*)\?[^\s\"'<>]*")
_USER_IN_LINK = re.compile(r"(?<=//)[^/@\s\"'<>]*@")


@asynccontextmanager
async def open_http(*, trust_env: bool = False) -> AsyncIterator[aiohttp.ClientSession]:
    """The one session that all routes share. It keeps no cookies; `trust_env` obeys proxy variables."""
    connector = aiohttp.TCPConnector(limit=100, limit_per_host=20, keepalive_timeout=KEEPALIVE_SECONDS)
    async with aiohttp.ClientSession(
        connector=connector,
        cookie_jar=aiohttp.DummyCookieJar(),
        headers={"User-Agent": USER_AGENT},
        trust_env=trust_env,
    ) as session:
        yield session


@dataclass(frozen=True, slots=True, kw_only=True)
class Answer:
    """What came back. `body` is the JSON, None where it was none or larger than was asked for.

    `excerpt` is the beginning of the text for the logs, without the queries of links in it.
    """

    status: int
    headers: Mapping[str, str] = field(repr=False)
    body: object = field(repr=False)
    excerpt: str


async def call(
    session: aiohttp.ClientSession,
    method: str,
    url: str,
    *,
    time_limit: timedelta,
    json: object = None,
    headers: Mapping[str, str] | None = None,
    largest: int = LARGEST_ANSWER,
) -> Answer:
    """One request; redirects are answers like any other. `url` is sent exactly as it stands.

    Raises ProviderBusy when no connection was made, so that surely nothing was sent;
    ProviderRejected(BROKEN) when none ever can be (certificate, address); ProviderUnsure(NO_ANSWER)
    when the connection was lost or silent afterwards: the request may have been taken.
    """
    asked = f"{method} {without_query(url)}"
    sent = dict(headers or {})
    body: io.BytesIO | None = None
    if json is not None:
        # A stream, because aiohttp sends bytes in one go and a picture in base64 would stall the loop.
        body = await asyncio.to_thread(lambda: io.BytesIO(json_text.dumps(json).encode()))
        sent["Content-Type"] = "application/json"
    # Connecting, with the wait for a free place in the pool, has a limit of its own below the whole:
    # when the whole runs out, aiohttp does not tell whether the request had left.
    whole_time = time_limit.total_seconds()
    limits = aiohttp.ClientTimeout(total=whole_time, connect=min(CONNECT_SECONDS, whole_time / 2))
    with _told_apart(asked):
        async with session.request(
            method, _parsed(url), data=body, headers=sent, timeout=limits, allow_redirects=False
        ) as response:
            if method != "GET":
                reach("route.answered", "call")
            return await _answer(response, sent, largest)


@dataclass(frozen=True, slots=True, kw_only=True)
class File:
    """A file for a form: the form's key for it, its own name, and what it is."""

    key: str
    name: str
    data: bytes = field(repr=False)
    media_type: str


async def upload(
    session: aiohttp.ClientSession,
    url: str,
    fields: Mapping[str, str],
    file: File,
    *,
    time_limit: timedelta,
    allow_private: bool = False,
) -> Answer:
    """One POST of a form, its fields before the file. Raises as `call`.

    Only https and public addresses are asked, unless `allow_private`: ProviderRejected(BROKEN).
    """
    form = aiohttp.FormData(dict(fields))
    form.add_field(file.key, io.BytesIO(file.data), filename=file.name, content_type=file.media_type)
    whole_time = time_limit.total_seconds()
    limits = aiohttp.ClientTimeout(total=whole_time, connect=min(CONNECT_SECONDS, whole_time / 2))
    try:
        address = _address(url)
        _check_address(address, allow_private=allow_private)
    except ProviderRejected as rejected:
        raise ProviderRejected(Cause.BROKEN, rejected.detail) from None
    with _told_apart(f"POST {without_query(url)}"):
        async with (
            _reaching(session, allow_private=allow_private) as allowed,
            allowed.post(address, data=form, timeout=limits, allow_redirects=False) as response,
        ):
            reach("route.answered", "upload")
            return await _answer(response, {}, LARGEST_ANSWER)


@contextmanager
def _told_apart(asked: str) -> Iterator[None]:
    """Whether a request that went wrong can have arrived."""
    try:
        yield
    except aiohttp.ClientConnectorCertificateError as error:
        raise ProviderRejected(Cause.BROKEN, f"{asked}: the server's certificate is not valid") from error
    except (aiohttp.ClientConnectorError, aiohttp.ConnectionTimeoutError) as error:
        if isinstance(error, aiohttp.ClientConnectorError) and isinstance(error.os_error, PrivateAddress):
            raise ProviderRejected(Cause.BROKEN, f"{asked}: {error.os_error}") from None
        raise ProviderBusy(
            f"{asked}: not connected ({type(error).__name__})", retry_after=AFTER_NO_CONNECTION, away=True
        ) from error
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError) as error:
        raise ProviderRejected(Cause.BROKEN, f"{asked}: not an address") from error
    except (aiohttp.ClientError, OSError) as error:  # TimeoutError is an OSError
        raise ProviderUnsure(Cause.NO_ANSWER, f"{asked}: {type(error).__name__}") from error


async def _answer(response: aiohttp.ClientResponse, sent: Mapping[str, str], largest: int) -> Answer:
    raw, whole = await _read(response, largest)
    body: object = None
    if whole:  # off the loop where it would hold it up; else at once: nobody waits between answer and commit
        body = _json(raw) if len(raw) <= LARGEST_ANSWER else await asyncio.to_thread(_json, raw)
    return Answer(
        status=response.status,
        headers=response.headers,
        body=body,
        excerpt=_excerpt(raw, sent),
    )


async def download(
    session: aiohttp.ClientSession,
    url: str,
    into: Path,
    *,
    max_bytes: int,
    time_limit: timedelta = DOWNLOAD_TIME,
    allow_private: bool = False,
    media: Literal["video", "image"] = "video",
    redirects: int = MOST_REDIRECTS,
) -> None:
    """Write what `url` holds to `into`, whole or not at all. So many redirects are followed, each one checked.

    Only https and public addresses are asked, unless `allow_private`; a name is judged by the
    addresses it has at the moment of connecting. Raises ProviderRejected with CLIP_GONE (the link is
    refused; a fresh one may work), CLIP_TOO_LARGE or CLIP_UNUSABLE (wrong type, private address);
    ProviderBusy on 429; ProviderUnsure when it may work later.
    """
    shown = without_query(url)
    part = into.with_name(f".{into.name}.{secrets.token_hex(4)}.part")
    limits = aiohttp.ClientTimeout(total=None, sock_connect=CONNECT_SECONDS, sock_read=IDLE_SECONDS)
    # aiohttp's own messages carry the whole link, signature included: none is chained from here.
    try:
        async with (
            asyncio.timeout(time_limit.total_seconds()),
            _reaching(session, allow_private=allow_private) as allowed,
            _get(allowed, url, limits, redirects, allow_private=allow_private) as response,
        ):
            _check_download(response, shown, max_bytes=max_bytes, media=media)
            await _save(response, part, shown, max_bytes=max_bytes)
            reach("http.saved")
            part.replace(into)
    except aiohttp.ClientConnectorError as error:
        if isinstance(error.os_error, PrivateAddress):
            raise ProviderRejected(Cause.CLIP_UNUSABLE, f"{shown}: {error.os_error}") from None
        raise ProviderUnsure(Cause.NO_ANSWER, f"{shown}: {type(error).__name__}") from None
    except (aiohttp.InvalidURL, aiohttp.NonHttpUrlClientError):
        raise ProviderRejected(Cause.CLIP_UNUSABLE, f"{shown}: not an address") from None
    except (aiohttp.ClientError, TimeoutError) as error:
        raise ProviderUnsure(Cause.NO_ANSWER, f"{shown}: {type(error).__name__}") from None
    except OSError as error:  # the disk: the clip still waits at the provider
        raise ProviderUnsure(Cause.BROKEN, f"cannot write the clip: {error.strerror}") from None
    finally:
        _discard(part)


def retry_after(headers: Mapping[str, str], now: datetime | None = None) -> timedelta | None:
    """The header Retry-After, as seconds or as a date (RFC 9110, 10.2.3), between 1 s and 10 min.

    None where there is none that can be read.
    """
    value = headers.get("Retry-After", "").strip()
    try:
        seconds = float(value)
    except ValueError:
        try:
            then = parsedate_to_datetime(value)
        except ValueError:
            return None
        if then.tzinfo is None:
            then = then.replace(tzinfo=UTC)
        seconds = (then - (now or datetime.now(UTC))).total_seconds()
    if math.isnan(seconds):
        return None
    least, greatest = LEAST_RETRY_AFTER.total_seconds(), GREATEST_RETRY_AFTER.total_seconds()
    return timedelta(seconds=min(max(seconds, least), greatest))


def without_query(url: str) -> str:
    """The address without what signs it: for logs."""
    return _USER_IN_LINK.sub("", re.split(r"[?#]", url, maxsplit=1)[0])


def masked(text: str, hide: tuple[str, ...] = ()) -> str:
    """The text without the queries of links in it, and without the secrets to `hide`."""
    text = _USER_IN_LINK.sub("", _LINK_WITH_QUERY.sub(r"\1?…", text))
    for secret in hide:
        text = text.replace(secret, "…")
    return text


class PrivateAddress(OSError):
    """A name or address leads somewhere that is not the public internet."""


class PublicOnly(AbstractResolver):
    """Resolves names, and refuses those with an address that is not public.

    aiohttp connects to exactly what this returns, so a name cannot change between check and use.
    """

    def __init__(self, inner: AbstractResolver) -> None:
        self._inner = inner

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        found = await self._inner.resolve(host, port, family)
        for result in found:
            if not is_public(ipaddress.ip_address(result["host"])):
                raise PrivateAddress(f"{host} has a private address")
        return found

    async def close(self) -> None:
        await self._inner.close()


def is_public(address: ipaddress.IPv4Address | ipaddress.IPv6Address) -> bool:
    """Whether anyone on the internet would reach the same host under this address."""
    if isinstance(address, ipaddress.IPv6Address):
        inner = address.ipv4_mapped or address.sixtofour
        if inner is None and address in NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFFFFFF)
        if inner is not None:
            return is_public(inner)
    return address.is_global and not address.is_multicast


def _parsed(url: str) -> URL:
    """The address as it stands: quoting it anew would break the signatures of signed links."""
    return URL(url, encoded=url.isascii() and url.isprintable() and " " not in url)


async def _read(response: aiohttp.ClientResponse, largest: int) -> tuple[bytes, bool]:
    """The body, and whether it is all there is."""
    raw = bytearray()
    async for chunk in response.content.iter_any():
        raw += chunk
        if len(raw) > largest:
            response.close()
            return bytes(raw), False
    return bytes(raw), True


def _json(raw: bytes) -> object:
    try:
        return json_text.loads(raw)
    except (ValueError, RecursionError):
        return None


def _excerpt(raw: bytes, sent: Mapping[str, str]) -> str:
    """The beginning on one line. Some servers repeat the key that they refuse, so it is masked."""
    text = " ".join(raw[: EXCERPT * 8].decode("utf-8", "replace").split())
    token = sent.get("Authorization", "").split(" ")[-1]
    return masked(text, (token,) if token else ())[:EXCERPT]


@asynccontextmanager
async def _reaching(
    session: aiohttp.ClientSession, *, allow_private: bool
) -> AsyncIterator[aiohttp.ClientSession]:
    """A session that reaches only what it may. Its own, because a pooled connection skips the resolver."""
    if allow_private:
        yield session
        return
    connector = aiohttp.TCPConnector(
        resolver=PublicOnly(aiohttp.ThreadedResolver()), use_dns_cache=False, force_close=True
    )
    async with aiohttp.ClientSession(
        connector=connector, cookie_jar=aiohttp.DummyCookieJar(), headers=session.headers
    ) as guarded:
        yield guarded


@asynccontextmanager
async def _get(
    session: aiohttp.ClientSession,
    link: str,
    limits: aiohttp.ClientTimeout,
    redirects: int,
    *,
    allow_private: bool,
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The first answer that is not a redirect."""
    url = _address(link)
    for _ in range(redirects + 1):
        _check_address(url, allow_private=allow_private)
        async with session.get(
            url, headers={"Accept-Encoding": "identity"}, timeout=limits, allow_redirects=False
        ) as response:
            if response.status not in REDIRECTS:
                yield response
                return
            location = response.headers.get("Location", "")
        url = url.join(_address(location))
    raise ProviderRejected(Cause.CLIP_UNUSABLE, f"{without_query(link)}: too many redirects")


def _address(link: str) -> URL:
    try:
        return _parsed(link)
    except ValueError:
        raise ProviderRejected(Cause.CLIP_UNUSABLE, f"{without_query(link)}: not an address") from None


def _check_address(url: URL, *, allow_private: bool) -> None:
    """What the resolver is not asked about: the scheme, and addresses written as numbers."""
    host = url.host or ""
    shown = f"{url.scheme}://{host}"
    if not host or url.scheme not in (ALL_SCHEMES if allow_private else PUBLIC_SCHEMES):
        raise ProviderRejected(Cause.CLIP_UNUSABLE, f"{shown}: not an https address")
    if allow_private:
        return
    try:
        public = is_public(ipaddress.ip_address(host))
    except ValueError:
        # 2130706433 and 127.1 are no names, but operating systems read them as addresses
        public = not (":" in host or host.replace(".", "").isdigit())
    if not public:
        raise ProviderRejected(Cause.CLIP_UNUSABLE, f"{shown}: a private address")


def _check_download(response: aiohttp.ClientResponse, shown: str, *, max_bytes: int, media: str) -> None:
    status = response.status
    answered = f"{shown} answered {status}"
    if status == 429:
        raise ProviderBusy(answered, retry_after=retry_after(response.headers))
    if status >= 500 or status in (408, 425):
        raise ProviderUnsure(Cause.NO_ANSWER, answered)
    if status >= 400:  # S3 says 403 or 400 for expired signatures
        raise ProviderRejected(Cause.CLIP_GONE, answered)
    if status != 200:
        raise ProviderRejected(Cause.CLIP_UNUSABLE, answered)
    kind = response.content_type.lower()
    if not kind.startswith(f"{media}/") and kind not in UNTYPED:
        raise ProviderRejected(Cause.CLIP_UNUSABLE, f"{shown} is {kind}")
    if response.content_length is not None and response.content_length > max_bytes:
        raise ProviderRejected(
            Cause.CLIP_TOO_LARGE, f"{shown} has {response.content_length} bytes, more than {max_bytes}"
        )


async def _save(response: aiohttp.ClientResponse, part: Path, shown: str, *, max_bytes: int) -> None:
    """Stream the body into `part` and onto the disk. A body cut short is an aiohttp.ClientPayloadError."""
    size = 0
    with await asyncio.to_thread(part.open, "xb") as file:
        async for chunk in response.content.iter_chunked(256 * 1024):
            size += len(chunk)
            if size > max_bytes:
                raise ProviderRejected(Cause.CLIP_TOO_LARGE, f"{shown} has more than {max_bytes} bytes")
            await asyncio.to_thread(file.write, chunk)
        await asyncio.to_thread(_flush, file)
    if size == 0:
        raise ProviderUnsure(Cause.UNREADABLE, f"{shown} is empty")


def _flush(file: BinaryIO) -> None:
    file.flush()
    os.fsync(file.fileno())


def _discard(part: Path) -> None:
    with suppress(OSError):
        part.unlink()
