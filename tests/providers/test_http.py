"""One HTTP call: whether it can have arrived, and what may be downloaded from where."""

import asyncio
import ipaddress
import socket
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta
from pathlib import Path

import aiohttp
import pytest
from aiohttp import web
from aiohttp.abc import AbstractResolver, ResolveResult

from bot import __version__
from bot.errors import Cause, ProviderBusy, ProviderError, ProviderRejected, ProviderUnsure
from bot.providers.http import (
    Answer,
    PrivateAddress,
    PublicOnly,
    call,
    download,
    is_public,
    masked,
    open_http,
    retry_after,
    without_query,
)
from tests.servers.makevid import MakevidServer

SOON = timedelta(seconds=20)
AT_ONCE = timedelta(milliseconds=200)
CAP = 10 * 1024 * 1024
KEY = "sk-very-secret"
HEADERS = {"Authorization": f"Bearer {KEY}"}


class Names(AbstractResolver):
    """A resolver with a script: each look-up takes the next line; an empty one fails, None never ends."""

    def __init__(self, *lines: list[str] | None) -> None:
        self._lines = list(lines)

    async def resolve(
        self, host: str, port: int = 0, family: socket.AddressFamily = socket.AF_INET
    ) -> list[ResolveResult]:
        line = self._lines.pop(0)
        if line is None:
            await asyncio.Event().wait()
        if not line:
            raise OSError("no such name")
        return [
            ResolveResult(hostname=host, host=address, port=port, family=family, proto=0, flags=0)
            for address in line
        ]

    async def close(self) -> None:
        pass


@asynccontextmanager
async def answering(make: Callable[[web.Request], web.Response]) -> AsyncIterator[str]:
    """The address of a server that gives this answer to everything."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return make(request)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield f"http://{host}:{port}"
    finally:
        await runner.cleanup()


def closed_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port: int = free.getsockname()[1]
    return port


def all_said_by(error: BaseException | None) -> str:
    """All that a log of this error and of what caused it could say."""
    texts = []
    while error is not None:
        texts += [str(error), repr(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return " ".join(texts)


# The session


async def test_session_says_who_it_is_and_keeps_no_cookies() -> None:
    """The one session names the bot and its version, sets no cookies and ignores proxy variables."""
    async with open_http() as session:
        assert session.headers["User-Agent"] == f"Animatic/{__version__}"
        assert isinstance(session.cookie_jar, aiohttp.DummyCookieJar)
        assert not session.trust_env


# One call


async def test_answer_has_status_headers_and_json(http: aiohttp.ClientSession) -> None:
    """An answer carries the status, the headers and the decoded body."""
    async with answering(lambda _: web.json_response({"a": [1]}, status=201, headers={"X-Y": "z"})) as url:
        answer = await call(http, "POST", url, json={"b": 2}, time_limit=SOON)

    assert (answer.status, answer.headers["x-y"], answer.body) == (201, "z", {"a": [1]})


@pytest.mark.parametrize("text", ["<html>no</html>", "", "{", "[" * 100_000, '{"n": ' + "9" * 5000 + "}"])
async def test_what_is_not_json_has_no_body(http: aiohttp.ClientSession, text: str) -> None:
    """A page, an empty, broken or absurd body is an answer without JSON, not an error."""
    async with answering(lambda _: web.Response(text=text)) as url:
        answer = await call(http, "GET", url, time_limit=SOON)

    assert answer.body is None
    assert len(answer.excerpt) <= 500


async def test_an_answer_is_read_up_to_a_cap(http: aiohttp.ClientSession) -> None:
    """Of a huge answer only the beginning is read: the status counts, the body does not."""
    async with answering(lambda _: web.Response(text='"' + "x" * (4 * 1024 * 1024) + '"')) as url:
        answer = await call(http, "GET", url, time_limit=SOON)

    assert (answer.status, answer.body, len(answer.excerpt)) == (200, None, 500)


async def test_a_large_body_is_sent_whole(http: aiohttp.ClientSession, makevid: MakevidServer) -> None:
    """A picture of several megabytes goes out whole, and without a warning about blocking."""
    text = "x" * (12 * 1024 * 1024)
    await call(http, "POST", f"{makevid.base_url}/api/v1/create_luma", json=[text], time_limit=SOON)

    assert makevid.creates[0].body == [text]


async def test_redirects_are_not_followed(http: aiohttp.ClientSession) -> None:
    """A redirect is an answer: a paid POST never turns into a GET somewhere else."""
    async with answering(lambda _: web.Response(status=302, headers={"Location": "/elsewhere"})) as url:
        answer = await call(http, "POST", url, json={}, time_limit=SOON)

    assert answer.status == 302


async def test_excerpt_hides_links_and_the_key(http: aiohttp.ClientSession) -> None:
    """What a server repeats of the key or of signed links does not reach the excerpt."""
    text = f'{{"error": "bad key {KEY}", "at": "https:\\/\\/cdn.example\\/a.png?sig=abc&x=1"}}'
    async with answering(lambda _: web.Response(status=401, text=text)) as url:
        answer = await call(http, "GET", url, headers=HEADERS, time_limit=SOON)

    assert KEY not in answer.excerpt
    assert "sig=abc" not in answer.excerpt
    assert "bad key" in answer.excerpt


def test_answer_does_not_show_its_body() -> None:
    """The body and the headers of an answer stay out of its repr."""
    answer = Answer(status=200, headers={"Set-Cookie": "s3cret"}, body={"url": "s3cret"}, excerpt="")

    assert "s3cret" not in repr(answer)


async def test_refused_connection_was_surely_not_sent(http: aiohttp.ClientSession) -> None:
    """Where nobody listens, nothing was taken: busy, worth asking again in half a minute."""
    with pytest.raises(ProviderBusy) as caught:
        await call(http, "POST", f"http://127.0.0.1:{closed_port()}/x", json={}, time_limit=SOON)

    assert caught.value.retry_after == timedelta(seconds=30)


async def test_unknown_name_was_surely_not_sent() -> None:
    """A name that does not resolve means that nothing was sent."""
    connector = aiohttp.TCPConnector(resolver=Names([]))
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(ProviderBusy):
            await call(session, "POST", "http://gateway.example/x", json={}, time_limit=SOON)


async def test_silence_before_the_connection_was_surely_not_sent() -> None:
    """A time-out while still connecting means that nothing was sent."""
    connector = aiohttp.TCPConnector(resolver=Names(None))
    async with aiohttp.ClientSession(connector=connector) as session:
        with pytest.raises(ProviderBusy):
            await call(session, "POST", "http://gateway.example/x", json={}, time_limit=AT_ONCE)


async def test_failed_handshake_was_surely_not_sent(
    http: aiohttp.ClientSession, makevid: MakevidServer
) -> None:
    """Without TLS there is no request."""
    with pytest.raises(ProviderBusy):
        await call(http, "POST", makevid.base_url.replace("http", "https") + "/x", json={}, time_limit=SOON)

    assert not makevid.calls


@pytest.mark.parametrize("fault", ["reset_before", "reset_after", "cut_short", "never"])
async def test_lost_after_sending_is_unsure_and_sent_once(
    http: aiohttp.ClientSession, makevid: MakevidServer, fault: str
) -> None:
    """A connection lost after the request left says nothing of its fate, and nothing repeats it."""
    url = f"{makevid.base_url}/api/v1/create_luma"
    body = {"user_prompt": "waves", "expand_prompt": True}
    headers = {"Authorization": f"Bearer {makevid.api_key}"}
    await call(http, "POST", url, json=body, headers=headers, time_limit=SOON)  # leaves a pooled connection
    makevid.next_create = fault

    limit = timedelta(seconds=1) if fault == "never" else SOON
    with pytest.raises(ProviderUnsure) as caught:
        await call(http, "POST", url, json=body, headers=headers, time_limit=limit)

    assert caught.value.cause is Cause.NO_ANSWER
    assert len(makevid.creates) == 2


async def test_what_is_not_http_is_unsure(http: aiohttp.ClientSession) -> None:
    """An answer that is not HTTP is an answer lost; the error does not show the key."""

    async def babble(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        writer.write(b"SSH-2.0-OpenSSH\r\n\r\n")
        writer.close()

    server = await asyncio.start_server(babble, "127.0.0.1", 0)
    async with server:
        port = server.sockets[0].getsockname()[1]
        with pytest.raises(ProviderUnsure) as caught:
            await call(http, "GET", f"http://127.0.0.1:{port}/x", headers=HEADERS, time_limit=SOON)

    assert KEY not in str(caught.value) + str(caught.value.__cause__)


# Retry-After

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        ("7", 7),
        ("1.5", 1.5),
        ("0", 1),
        ("-3", 1),
        ("86400", 600),
        ("inf", 600),
        ("Mon, 01 Jun 2026 12:00:30 GMT", 30),
        ("Mon, 01 Jun 2026 11:00:00 GMT", 1),
        ("Tue, 02 Jun 2026 12:00:00 GMT", 600),
        ("Mon, 01 Jun 2026 12:00:30 -0000", 30),
        ("soon", None),
        ("nan", None),
        ("", None),
    ],
)
def test_retry_after(value: str, seconds: float | None) -> None:
    """Retry-After is seconds or a date, kept between a second and ten minutes; nonsense is none."""
    expected = None if seconds is None else timedelta(seconds=seconds)

    assert retry_after({"Retry-After": value}, NOW) == expected


def test_no_retry_after() -> None:
    """Without the header nobody says how long."""
    assert retry_after({}) is None


# What may be shown, what is public


@pytest.mark.parametrize(
    ("url", "without"),
    [
        ("https://cdn.example/a.mp4?sig=abc", "https://cdn.example/a.mp4"),
        ("https://cdn.example/a.mp4#frag?x", "https://cdn.example/a.mp4"),
        ("https://user:pass@cdn.example/a.mp4", "https://cdn.example/a.mp4"),
        ("not a link?x", "not a link"),
    ],
)
def test_without_query(url: str, without: str) -> None:
    """What signs an address is cut off."""
    assert without_query(url) == without


def test_masked() -> None:
    """A text loses the queries of its links and the secrets it is told."""
    text = "see https://a.example/x?s=1, http://u:p@b.example/ and key123"

    assert masked(text, ("key123",)) == "see https://a.example/x?… http://b.example/ and …"


@pytest.mark.parametrize(
    ("address", "public"),
    [
        ("93.184.215.14", True),
        ("2606:2800:220:1::1", True),
        ("127.0.0.1", False),
        ("10.1.2.3", False),
        ("172.16.0.1", False),
        ("192.168.1.1", False),
        ("169.254.169.254", False),
        ("100.64.0.1", False),
        ("0.0.0.1", False),
        ("224.0.0.1", False),
        ("255.255.255.255", False),
        ("::1", False),
        ("fe80::1%eth0", False),
        ("fd00::1", False),
        ("::ffff:127.0.0.1", False),
        ("::ffff:93.184.215.14", True),
        ("64:ff9b::7f00:1", False),
        ("64:ff9b::5db8:d70e", True),
        ("2002:7f00:1::", False),
    ],
)
def test_public_addresses(address: str, public: bool) -> None:
    """Only addresses that mean the same host to everyone are public, however they are wrapped."""
    assert is_public(ipaddress.ip_address(address)) is public


async def test_a_name_is_judged_each_time_it_is_resolved() -> None:
    """A name that was public a moment ago and is private now is refused: DNS rebinding gets nowhere."""
    resolver = PublicOnly(Names(["93.184.215.14"], ["127.0.0.1"]))
    await resolver.resolve("rebind.example", 443)

    with pytest.raises(PrivateAddress):
        await resolver.resolve("rebind.example", 443)


async def test_one_private_address_among_several_is_enough() -> None:
    """A name with a public and a private address is refused, whichever would be tried first."""
    with pytest.raises(PrivateAddress):
        await PublicOnly(Names(["93.184.215.14", "10.0.0.1"])).resolve("mixed.example", 443)


# Downloads


def names_in(folder: Path) -> list[str]:
    return [path.name for path in folder.iterdir()]


async def fetched(
    session: aiohttp.ClientSession,
    makevid: MakevidServer,
    into: Path,
    *,
    limit: timedelta = SOON,
    cap: int = CAP,
) -> None:
    url = f"{makevid.base_url}/clips/1.mp4?X-Amz-Signature=s3cret%2F"
    await download(session, url, into, max_bytes=cap, time_limit=limit, allow_private=True)


async def failed(
    session: aiohttp.ClientSession, makevid: MakevidServer, folder: Path, **options: object
) -> ProviderError:
    """The error of a download that leaves no file behind and shows no signature."""
    with pytest.raises(ProviderError) as caught:
        await fetched(session, makevid, folder / "clip.mp4", **options)  # type: ignore[arg-type]
    assert names_in(folder) == []
    assert "s3cret" not in all_said_by(caught.value)
    return caught.value


@pytest.mark.parametrize("fault", [None, "untyped", "redirect"])
async def test_a_clip_is_written_whole(
    http: aiohttp.ClientSession, makevid: MakevidServer, tmp_path: Path, clip: bytes, fault: str | None
) -> None:
    """A clip arrives whole, also untyped or after a redirect, and nothing else is left in the folder."""
    makevid.next_clip = fault

    await fetched(http, makevid, tmp_path / "clip.mp4")

    assert (tmp_path / "clip.mp4").read_bytes() == clip
    assert names_in(tmp_path) == ["clip.mp4"]


@pytest.mark.parametrize(
    ("fault", "kind", "cause"),
    [
        ("401", ProviderRejected, Cause.CLIP_GONE),
        ("403", ProviderRejected, Cause.CLIP_GONE),
        ("404", ProviderRejected, Cause.CLIP_GONE),
        ("410", ProviderRejected, Cause.CLIP_GONE),
        ("429", ProviderBusy, Cause.BUSY),
        ("500", ProviderUnsure, Cause.NO_ANSWER),
        ("503", ProviderUnsure, Cause.NO_ANSWER),
        ("204", ProviderRejected, Cause.CLIP_UNUSABLE),
        ("html", ProviderRejected, Cause.CLIP_UNUSABLE),
        ("loop", ProviderRejected, Cause.CLIP_UNUSABLE),
        ("huge", ProviderRejected, Cause.CLIP_TOO_LARGE),
        ("endless", ProviderRejected, Cause.CLIP_TOO_LARGE),
        ("truncated", ProviderUnsure, Cause.NO_ANSWER),
        ("empty", ProviderUnsure, Cause.UNREADABLE),
    ],
)
async def test_a_clip_that_cannot_be_had(
    http: aiohttp.ClientSession,
    makevid: MakevidServer,
    tmp_path: Path,
    fault: str,
    kind: type[ProviderError],
    cause: Cause,
) -> None:
    """Each way a download goes wrong has its meaning, and none leaves a file."""
    makevid.next_clip = fault

    error = await failed(http, makevid, tmp_path)

    assert (type(error), error.cause) == (kind, cause)


@pytest.mark.parametrize("fault", ["never", "stuck"])
async def test_a_silent_download_ends_by_its_time_limit(
    http: aiohttp.ClientSession, makevid: MakevidServer, tmp_path: Path, fault: str
) -> None:
    """A server that falls silent is given up, and the clip may be asked for again."""
    makevid.next_clip = fault

    error = await failed(http, makevid, tmp_path, limit=timedelta(milliseconds=500))

    assert (type(error), error.cause) == (ProviderUnsure, Cause.NO_ANSWER)


async def test_busy_downloads_say_when(
    http: aiohttp.ClientSession, makevid: MakevidServer, tmp_path: Path
) -> None:
    """429 carries the pause that the server asks for."""
    makevid.next_clip, makevid.retry_after = "429", "17"

    error = await failed(http, makevid, tmp_path)

    assert isinstance(error, ProviderBusy)
    assert error.retry_after == timedelta(seconds=17)


async def test_a_clip_of_exactly_the_cap_is_taken(
    http: aiohttp.ClientSession, makevid: MakevidServer, tmp_path: Path, clip: bytes
) -> None:
    """The cap is the largest size that is taken."""
    await fetched(http, makevid, tmp_path / "clip.mp4", cap=len(clip))

    with pytest.raises(ProviderRejected) as caught:
        await fetched(http, makevid, tmp_path / "more.mp4", cap=len(clip) - 1)
    assert caught.value.cause is Cause.CLIP_TOO_LARGE


async def test_a_folder_that_cannot_be_written_is_not_the_clips_fault(
    http: aiohttp.ClientSession, makevid: MakevidServer, tmp_path: Path
) -> None:
    """Trouble with the disk keeps the job: the clip still waits at the provider."""
    with pytest.raises(ProviderUnsure):
        await fetched(http, makevid, tmp_path / "absent" / "clip.mp4")


async def test_an_older_file_stays_until_the_new_one_is_whole(
    http: aiohttp.ClientSession, makevid: MakevidServer, tmp_path: Path, clip: bytes
) -> None:
    """A download that fails leaves what was there; one that works takes its place."""
    into = tmp_path / "clip.mp4"
    into.write_bytes(b"older")
    makevid.next_clip = "truncated"
    with pytest.raises(ProviderUnsure):
        await fetched(http, makevid, into)
    assert into.read_bytes() == b"older"

    await fetched(http, makevid, into)

    assert into.read_bytes() == clip


async def test_pictures_are_downloaded_as_pictures(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Asked for an image, an image is taken and a video is not."""
    async with answering(lambda _: web.Response(body=b"png", content_type="image/png")) as url:
        await download(http, url, tmp_path / "a", max_bytes=CAP, allow_private=True, media="image")
        with pytest.raises(ProviderRejected):
            await download(http, url, tmp_path / "b", max_bytes=CAP, allow_private=True)

    assert (tmp_path / "a").read_bytes() == b"png"


@pytest.mark.parametrize(
    "url",
    [
        "http://cdn.example/a.mp4",
        "https://127.0.0.1/a.mp4",
        "https://[::1]/a.mp4",
        "https://[::ffff:10.0.0.1]/a.mp4",
        "https://10.0.0.1/a.mp4",
        "https://169.254.169.254/latest/meta-data",
        "https://2130706433/a.mp4",
        "https://127.1/a.mp4",
        "https://0x7f.1/a.mp4",
        "https://localhost/a.mp4",
        "file:///etc/passwd",
        "ftp://cdn.example/a.mp4",
        "https:///a.mp4",
        "https://[bad/a.mp4",
        "clip.mp4",
        "",
    ],
)
async def test_only_public_https_addresses_are_asked(
    http: aiohttp.ClientSession, tmp_path: Path, url: str
) -> None:
    """Links into private networks, by number or by name, plain http and other schemes are refused."""
    with pytest.raises(ProviderRejected) as caught:
        await download(http, url, tmp_path / "clip.mp4", max_bytes=CAP)

    assert caught.value.cause is Cause.CLIP_UNUSABLE


@pytest.mark.usefixtures("loopback_is_the_internet")
async def test_a_public_clip_is_fetched_with_every_check_on(
    http: aiohttp.ClientSession, makevid: MakevidServer, tmp_path: Path, clip: bytes
) -> None:
    """With private addresses forbidden, a public clip behind a redirect arrives."""
    makevid.next_clip = "redirect"

    await download(http, f"{makevid.base_url}/clips/1.mp4", tmp_path / "clip.mp4", max_bytes=CAP)

    assert (tmp_path / "clip.mp4").read_bytes() == clip


@pytest.mark.usefixtures("loopback_is_the_internet")
@pytest.mark.parametrize(
    "target",
    ["http://127.0.0.2:{port}/clips/1.mp4", "http://10.0.0.1/clip.mp4", "file:///etc/passwd", "http://["],
)
async def test_a_redirect_to_a_private_address_is_not_followed(
    http: aiohttp.ClientSession, makevid: MakevidServer, tmp_path: Path, target: str
) -> None:
    """Every hop is checked like the first."""
    port = makevid.base_url.rsplit(":", 1)[1]
    makevid.next_clip, makevid.private_address = "redirect_private", target.format(port=port)

    with pytest.raises(ProviderRejected) as caught:
        await download(http, f"{makevid.base_url}/clips/1.mp4", tmp_path / "clip.mp4", max_bytes=CAP)

    assert caught.value.cause is Cause.CLIP_UNUSABLE
    assert makevid.calls["GET /clips/{name}"] == 1


async def test_a_signed_link_is_asked_for_as_it_stands(http: aiohttp.ClientSession, tmp_path: Path) -> None:
    """Quoting a link anew would break its signature."""
    asked: list[str] = []
    signed = "/a%2Fb/%7Ec.mp4?Policy=a%2Bb%2fc%3D&Signature=x~y%20z"

    def note(request: web.Request) -> web.Response:
        asked.append(request.raw_path)
        return web.Response(body=b"x", content_type="video/mp4")

    async with answering(note) as base:
        await download(http, base + signed, tmp_path / "clip.mp4", max_bytes=CAP, allow_private=True)

    assert asked == [signed]
