"""The route kling, under both standards, against a loopback API that refuses what Kling's pages refuse."""

import base64
import json
import socket
from collections.abc import AsyncIterator
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import jwt
import pytest
from pydantic import SecretStr, ValidationError
from structlog.testing import capture_logs

from bot.errors import Cause, ProviderBusy, ProviderError, ProviderRejected, ProviderUnsure
from bot.jobs.machine import Absent, Accepted, Broke, Ready, StillRendering
from bot.jobs.models import listed_cents
from bot.providers.base import Balance, ChecksMany, ClipRequest, FindsByReference, HearsCallbacks
from bot.providers.kling import Kling, KlingApi, KlingLegacy, KlingSettings, open_kling
from tests.providers.conftest import picture
from tests.servers.kling import ERRORS, FIRST_ID, KlingServer, pack, signed

NOW = 1781080794.0
SECRET = "whsec_dGVzdHNlY3JldHRlc3RzZWNyZXR0ZXN0c2VjcmV0MTI="
FIRST = str(FIRST_ID)

FROM_PICTURE = ClipRequest(
    reference="job-1", variant="kling-3.0", prompt="camera pull out", seconds=5, picture=picture()
)
FROM_WORDS = ClipRequest(reference="job-1", variant="kling-3.0", prompt="a fox runs", seconds=10)
LEGACY_PICTURE = replace(FROM_PICTURE, variant="kling-v3")
LEGACY_WORDS = replace(FROM_WORDS, variant="kling-v3")
KINDS = [
    pytest.param(FROM_PICTURE, id="new-picture"),
    pytest.param(FROM_WORDS, id="new-words"),
    pytest.param(LEGACY_PICTURE, id="legacy-picture"),
    pytest.param(LEGACY_WORDS, id="legacy-words"),
]
STANDARDS = [pytest.param(FROM_PICTURE, id="new"), pytest.param(LEGACY_PICTURE, id="legacy")]


class Clock:
    def __init__(self) -> None:
        self.at = NOW

    def __call__(self) -> float:
        return self.at


@pytest.fixture
def clock() -> Clock:  # type: ignore[override]  # in seconds, as the adapter takes it
    return Clock()


@pytest.fixture
async def kling(clip: bytes, clock: Clock) -> AsyncIterator[KlingServer]:
    async with KlingServer(clip=clip, now=clock) as server:
        yield server


def adapter(
    http: aiohttp.ClientSession,
    server: KlingServer,
    request: ClipRequest = FROM_PICTURE,
    *,
    keys: str = "api",
    **settings: Any,
) -> KlingApi:
    """The adapter of the standard that has the request's model."""
    standard = "new" if request.variant[6].isdigit() else "legacy"
    given = {
        "api": {"api_key": server.api_key},
        "jwt": {"access_key": server.access_key, "secret_key": server.secret_key},
    }[keys]
    made = KlingSettings.model_validate(
        {"standard": standard, "base_url": server.base_url, **given, **settings}
    )
    kind = Kling if standard == "new" else KlingLegacy
    return kind(http=http, settings=made, allow_private_addresses=True, clock=server.now)


# What is sent


async def test_a_clip_from_pictures_under_the_new_standard(
    http: aiohttp.ClientSession, kling: KlingServer
) -> None:
    """The model is in the path; contents, settings and options; numbers are numbers, and one shot is asked for."""
    end = picture(400, 300, kind="JPEG")
    request = replace(
        FROM_PICTURE,
        seconds=7,
        quality="4k",
        ratio="16:9",
        sound=True,
        end_picture=end,
        callback="https://bot.example/cb/s3cret",
    )

    accepted = await adapter(http, kling).submit(request)

    assert request.picture
    assert accepted == Accepted(FIRST)
    assert kling.creates[0].path == "/image-to-video/kling-3.0"
    assert kling.creates[0].body == {
        "contents": [
            {"type": "prompt", "text": "camera pull out"},
            {"type": "first_frame", "url": base64.b64encode(request.picture.data).decode()},
            {"type": "last_frame", "url": base64.b64encode(end.data).decode()},
        ],
        "settings": {"duration": 7, "resolution": "4k", "multi_shot": False, "audio": "native"},
        "options": {"external_task_id": "job-1", "callback_url": "https://bot.example/cb/s3cret"},
    }


async def test_a_clip_from_words_under_the_new_standard(
    http: aiohttp.ClientSession, kling: KlingServer
) -> None:
    """Words alone have their own address, and a ratio."""
    await adapter(http, kling).submit(replace(FROM_WORDS, ratio="9:16", variant="kling-2.6"))

    assert kling.creates[0].path == "/text-to-video/kling-2.6"
    assert kling.creates[0].body == {
        "prompt": "a fox runs",
        "settings": {"duration": 10, "aspect_ratio": "9:16"},
        "options": {"external_task_id": "job-1"},
    }


async def test_a_clip_from_pictures_under_the_legacy_standard(
    http: aiohttp.ClientSession, kling: KlingServer
) -> None:
    """The model is a field, the duration text, and a resolution is Kling's mode."""
    end = picture(400, 300, kind="JPEG")
    request = replace(
        LEGACY_PICTURE,
        variant="kling-v2-6",
        seconds=10,
        quality="1080p",
        negative_prompt="blur",
        sound=True,
        end_picture=end,
        callback="https://bot.example/cb/s3cret",
    )

    accepted = await adapter(http, kling, request).submit(request)

    assert request.picture
    assert accepted == Accepted(FIRST)
    assert kling.creates[0].path == "/v1/videos/image2video"
    assert kling.creates[0].body == {
        "model_name": "kling-v2-6",
        "prompt": "camera pull out",
        "negative_prompt": "blur",
        "image": base64.b64encode(request.picture.data).decode(),
        "image_tail": base64.b64encode(end.data).decode(),
        "mode": "pro",
        "duration": "10",
        "sound": "on",
        "external_task_id": "job-1",
        "callback_url": "https://bot.example/cb/s3cret",
    }


async def test_a_clip_from_words_under_the_legacy_standard(
    http: aiohttp.ClientSession, kling: KlingServer
) -> None:
    """What was not chosen is left out."""
    await adapter(http, kling, LEGACY_WORDS).submit(replace(LEGACY_WORDS, ratio="1:1", quality="4k"))

    assert kling.creates[0].path == "/v1/videos/text2video"
    assert kling.creates[0].body == {
        "model_name": "kling-v3",
        "prompt": "a fox runs",
        "mode": "4k",
        "duration": "10",
        "aspect_ratio": "1:1",
        "external_task_id": "job-1",
    }


async def test_turbo_has_no_field_for_the_sound_that_it_always_has(
    http: aiohttp.ClientSession, kling: KlingServer
) -> None:
    """Asking 3.0 Turbo for sound is no mistake, and sends nothing that Kling would refuse."""
    await adapter(http, kling).submit(replace(FROM_PICTURE, variant="kling-3.0-turbo", sound=True))

    assert kling.creates[0].body["settings"] == {"duration": 5}


@pytest.mark.parametrize("request_", STANDARDS)
async def test_a_picture_needs_no_words(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest
) -> None:
    """An empty prompt is left out, not sent as an empty text."""
    await adapter(http, kling, request_).submit(replace(request_, prompt=""))

    assert len(kling.tasks) == 1


@pytest.mark.parametrize("standard", [Kling, KlingLegacy])
async def test_all_that_a_model_offers_is_taken(
    http: aiohttp.ClientSession, kling: KlingServer, standard: type[KlingApi]
) -> None:
    """Every length, resolution and ratio of every model, with and without sound and end picture, where it has them."""
    settings = KlingSettings.model_validate({"api_key": "test-key", "base_url": kling.base_url})
    provider = standard(http=http, settings=settings, clock=kling.now)
    number = 0
    for variant, can in provider.variants.items():
        plain = ClipRequest(reference="", variant=variant, prompt="x" * can.prompt_length, seconds=5)
        asked = [replace(plain, seconds=seconds, quality=can.qualities[0]) for seconds in can.seconds]
        asked += [replace(plain, ratio=ratio) for ratio in can.ratios]
        asked += [replace(plain, quality=quality, picture=picture()) for quality in can.qualities]
        options: dict[str, Any] = {"sound": can.sound, "end_picture": can.end_picture and picture(750, 300)}
        for option, value in options.items():
            only = next((only.qualities for only in can.only if only.option == option), can.qualities)
            for quality in only if value else ():
                asked.append(replace(plain, quality=quality, picture=picture(), **{option: value}))
        if can.negative_prompt:
            asked.append(replace(plain, negative_prompt="x" * can.negative_prompt))
        for request in asked:
            number += 1
            await provider.submit(replace(request, reference=f"job-{number}"))

    assert len(kling.tasks) == number > 40


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(replace(FROM_WORDS, prompt=""), id="nothing"),
        pytest.param(replace(FROM_WORDS, end_picture=picture()), id="an end picture alone"),
        pytest.param(replace(LEGACY_WORDS, end_picture=picture()), id="an end picture alone, legacy"),
        pytest.param(replace(FROM_WORDS, variant="kling-9"), id="unknown model"),
    ],
)
async def test_what_cannot_work_is_not_sent(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest
) -> None:
    """A request that Kling has no way to take is refused before anything is paid."""
    with pytest.raises(ProviderRejected) as caught:
        await adapter(http, kling, request_).submit(request_)

    assert caught.value.cause is Cause.BAD_INPUT
    assert not kling.calls


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(replace(FROM_PICTURE, picture=picture(299, 400)), id="too small"),
        pytest.param(replace(FROM_PICTURE, picture=picture(300, 1000)), id="too narrow"),
        pytest.param(replace(FROM_PICTURE, picture=picture(kind="WEBP")), id="webp"),
        pytest.param(replace(FROM_PICTURE, prompt="x" * 3073), id="prompt"),
        pytest.param(replace(FROM_PICTURE, seconds=16), id="seconds"),
        pytest.param(replace(FROM_WORDS, ratio="4:3"), id="ratio"),
        pytest.param(replace(FROM_PICTURE, quality="8k"), id="quality"),
        pytest.param(
            replace(FROM_PICTURE, variant="kling-3.0-turbo", end_picture=picture()), id="turbo with an end"
        ),
        pytest.param(replace(FROM_PICTURE, variant="kling-2.6", sound=True), id="sound in 720p"),
        pytest.param(replace(LEGACY_PICTURE, picture=picture(299, 400)), id="too small, legacy"),
        pytest.param(replace(LEGACY_PICTURE, quality="8k"), id="quality, legacy"),
        pytest.param(replace(LEGACY_PICTURE, variant="kling-v2-6", sound=True), id="sound in std, legacy"),
    ],
)
async def test_what_the_documentation_refuses_is_bad_input(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest
) -> None:
    """Kling's refusal of a value costs nothing and blames the input, after one free look-up."""
    with pytest.raises(ProviderRejected) as caught:
        await adapter(http, kling, request_).submit(request_)

    assert caught.value.cause is Cause.BAD_INPUT
    assert (len(kling.creates), len(kling.tasks)) == (1, 0)


# What a create answers

CAUSES = {
    **dict.fromkeys((1000, 1001, 1002, 1003, 1004, 1100, 1304), (ProviderRejected, Cause.BAD_KEY)),
    **dict.fromkeys((1101, 1102), (ProviderRejected, Cause.NO_CREDIT)),
    **dict.fromkeys((1103, 1203), (ProviderRejected, Cause.NOT_ALLOWED)),
    **dict.fromkeys((1200, 1201), (ProviderRejected, Cause.BAD_INPUT)),
    1202: (ProviderRejected, Cause.BROKEN),
    **dict.fromkeys((1300, 1301), (ProviderRejected, Cause.MODERATION)),
    **dict.fromkeys((1302, 1303), (ProviderBusy, Cause.BUSY)),
    **dict.fromkeys((5000, 5001, 5002), (ProviderUnsure, Cause.NO_ANSWER)),
}


@pytest.mark.parametrize("request_", STANDARDS)
@pytest.mark.parametrize("fault", ["{}", "code:{}"], ids=["its status", "status 200"])
@pytest.mark.parametrize("code", ERRORS)
async def test_every_documented_error_of_a_create(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest, code: int, fault: str
) -> None:
    """The code decides, whatever the HTTP status: 429 is no money as well; and a create goes out once."""
    kling.next_create = fault.format(code)

    with pytest.raises(ProviderError) as caught:
        await adapter(http, kling, request_).submit(request_)

    assert (type(caught.value), caught.value.cause) == CAUSES[code]
    assert (len(kling.creates), len(kling.tasks)) == (1, 0)
    assert "test-key" not in str(caught.value)


SURELY_NOT = [
    ("413", ProviderRejected, Cause.BAD_INPUT),
    ("401", ProviderRejected, Cause.BAD_KEY),
    ("402", ProviderRejected, Cause.NO_CREDIT),
    ("403", ProviderRejected, Cause.NOT_ALLOWED),
    ("404", ProviderRejected, Cause.BROKEN),
    ("redirect", ProviderRejected, Cause.BROKEN),
    ("429", ProviderBusy, Cause.BUSY),
]
NOBODY_KNOWS = [
    ("408", ProviderUnsure, Cause.NO_ANSWER),
    ("502", ProviderUnsure, Cause.NO_ANSWER),
    ("503", ProviderUnsure, Cause.NO_ANSWER),
    ("504", ProviderUnsure, Cause.NO_ANSWER),
    ("lost:5002", ProviderUnsure, Cause.NO_ANSWER),
    ("reset_before", ProviderUnsure, Cause.NO_ANSWER),
    ("reset_after", ProviderUnsure, Cause.NO_ANSWER),
    ("cut_short", ProviderUnsure, Cause.NO_ANSWER),
    ("never", ProviderUnsure, Cause.NO_ANSWER),
    ("html", ProviderUnsure, Cause.UNREADABLE),
    ("no_id", ProviderUnsure, Cause.UNREADABLE),
    ("huge", ProviderUnsure, Cause.UNREADABLE),
    ("code:7777", ProviderUnsure, Cause.UNREADABLE),
]
MADE_ALL_THE_SAME = ("lost:5002", "reset_after", "cut_short", "never")


@pytest.mark.parametrize("request_", STANDARDS)
@pytest.mark.parametrize(("fault", "kind", "cause"), SURELY_NOT + NOBODY_KNOWS)
async def test_a_create_that_goes_wrong(
    http: aiohttp.ClientSession,
    kling: KlingServer,
    request_: ClipRequest,
    fault: str,
    kind: type[ProviderError],
    cause: Cause,
) -> None:
    """Only a clear refusal is "surely not taken"; and whatever happens, the create goes out once."""
    provider = adapter(http, kling, request_, request_timeout=1 if fault == "never" else 20)
    kling.next_create = fault

    with pytest.raises(ProviderError) as caught:
        await provider.submit(request_)

    assert (type(caught.value), caught.value.cause) == (kind, cause)
    assert len(kling.creates) == 1


@pytest.mark.parametrize("request_", KINDS)
@pytest.mark.parametrize("fault", [fault for fault, *_ in NOBODY_KNOWS if fault != "never"])
async def test_a_lost_answer_is_found_by_our_reference(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest, fault: str
) -> None:
    """After an unknown outcome the look-up tells, for nothing, whether Kling has the task; then it goes on."""
    provider = adapter(http, kling, request_)
    kling.next_create = fault
    with pytest.raises(ProviderUnsure):
        await provider.submit(request_)

    found = await provider.find("job-1")

    assert found == (Accepted(FIRST) if fault in MADE_ALL_THE_SAME else Absent())
    assert isinstance(found, Absent) or await provider.check(FIRST) == StillRendering(queued=False)


@pytest.mark.parametrize("request_", KINDS)
async def test_a_second_create_under_one_reference_is_adopted(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest
) -> None:
    """Kling refuses the second as a duplicate: it is the clip of our earlier attempt, and is not paid again."""
    kling.next_create = "reset_after"
    with pytest.raises(ProviderUnsure):
        await adapter(http, kling, request_).submit(request_)

    accepted = await adapter(http, kling, request_).submit(request_)

    assert accepted == Accepted(FIRST)
    assert (len(kling.creates), len(kling.tasks)) == (2, 1)


@pytest.mark.parametrize("request_", STANDARDS)
@pytest.mark.parametrize("trouble", ["5000", "missing", "html"])
async def test_a_duplicate_that_cannot_be_looked_up_is_unsure(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest, trouble: str
) -> None:
    """That Kling has taken the reference is known, and not lost because the look-up failed."""
    provider = adapter(http, kling, request_)
    await provider.submit(request_)
    kling.next_poll = trouble
    if trouble == "missing":
        kling.tasks[FIRST].unseen = 5

    with pytest.raises(ProviderUnsure):
        await provider.submit(request_)


@pytest.mark.parametrize(
    ("message", "cause"),
    [
        ("Failure to pass the risk control system", Cause.MODERATION),
        ("The model 'kling-3.0' has been discontinued and is no longer available.", Cause.NOT_ALLOWED),
        ("Image pixel is invalid", Cause.BAD_INPUT),
    ],
)
async def test_the_words_of_1201_tell_whose_mistake_it_is(
    http: aiohttp.ClientSession,
    kling: KlingServer,
    monkeypatch: pytest.MonkeyPatch,
    message: str,
    cause: Cause,
) -> None:
    """One code stands for many things; the person hears what to change."""
    monkeypatch.setitem(ERRORS, 1201, (400, message))
    kling.next_create = "1201"

    with pytest.raises(ProviderRejected) as caught:
        await adapter(http, kling).submit(FROM_PICTURE)

    assert caught.value.cause is cause


async def test_too_many_at_a_time_is_busy(http: aiohttp.ClientSession, kling: KlingServer) -> None:
    """The pack's limit of parallel tasks is a reason to wait; a place is free when a task has ended."""
    kling.slots, kling.polls_until_done = 1, 0
    provider = adapter(http, kling)
    await provider.submit(FROM_PICTURE)
    with pytest.raises(ProviderBusy):
        await provider.submit(replace(FROM_PICTURE, reference="job-2"))
    await provider.check(FIRST)

    assert await provider.submit(replace(FROM_PICTURE, reference="job-2")) == Accepted(str(FIRST_ID + 1))


async def test_busy_says_when(http: aiohttp.ClientSession, kling: KlingServer) -> None:
    """429 carries the pause that is asked for, where one is."""
    kling.next_create, kling.retry_after = "1302", "42"

    with pytest.raises(ProviderBusy) as caught:
        await adapter(http, kling).submit(FROM_PICTURE)

    assert caught.value.retry_after == timedelta(seconds=42)


async def test_without_a_connection_nothing_was_taken(
    http: aiohttp.ClientSession, kling: KlingServer
) -> None:
    """The job may wait and try again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    provider = adapter(http, kling, base_url=f"http://127.0.0.1:{port}")

    with pytest.raises(ProviderBusy):
        await provider.submit(FROM_PICTURE)


@pytest.mark.parametrize("request_", STANDARDS)
async def test_the_key_is_not_repeated(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest
) -> None:
    """An answer that repeats the key does not get it into our logs."""
    kling.next_create = "echo_key"

    with pytest.raises(ProviderRejected) as caught:
        await adapter(http, kling, request_).submit(request_)

    assert "test-key" not in caught.value.detail
    assert "no account for" in caught.value.detail


# Tokens from an access key and a secret key


@pytest.mark.parametrize("request_", [LEGACY_PICTURE, LEGACY_WORDS])
async def test_a_clip_without_an_api_key(
    http: aiohttp.ClientSession, kling: KlingServer, tmp_path: Path, clip: bytes, request_: ClipRequest
) -> None:
    """Access key and secret key serve the whole of the legacy standard."""
    provider = adapter(http, kling, request_, keys="jwt")
    kling.polls_until_done = 0
    accepted = await provider.submit(request_)
    assert await provider.find("job-1") == accepted
    ready = await provider.check(accepted.task)
    assert isinstance(ready, Ready)
    await provider.fetch(ready.clip_url, tmp_path / "clip.mp4")

    assert (tmp_path / "clip.mp4").read_bytes() == clip
    assert await provider.probe() == Balance(amount=87.5, unit="units")
    assert kling.secret_key not in "".join(kling.tokens)


async def test_a_token_is_as_documented(http: aiohttp.ClientSession, kling: KlingServer) -> None:
    """HS256, half an hour, valid from five seconds ago; whole numbers."""
    await adapter(http, kling, LEGACY_PICTURE, keys="jwt").submit(LEGACY_PICTURE)

    assert jwt.get_unverified_header(kling.tokens[0]) == {"alg": "HS256", "typ": "JWT"}
    assert jwt.decode(kling.tokens[0], options={"verify_signature": False}) == {
        "iss": kling.access_key,
        "exp": int(NOW) + 1800,
        "nbf": int(NOW) - 5,
    }


async def test_a_token_is_renewed_before_it_ends(
    http: aiohttp.ClientSession, kling: KlingServer, clock: Clock
) -> None:
    """One token serves for 25 minutes; a call near its end carries a new one, and is never refused."""
    provider = adapter(http, kling, LEGACY_PICTURE, keys="jwt")
    await provider.submit(LEGACY_PICTURE)
    clock.at += 1499
    await provider.check(FIRST)
    clock.at += 2
    await provider.check(FIRST)

    first, second, third = kling.tokens
    assert first == second != third


@pytest.mark.parametrize("tells_date", [True, False])
@pytest.mark.parametrize("ahead", [-50, -20_000, 20_000])
async def test_a_clock_that_is_wrong(
    http: aiohttp.ClientSession, kling: KlingServer, ahead: float, tells_date: bool
) -> None:
    """A token refused for its times is made once more, by Kling's clock; the refused create was surely not taken."""
    kling.clock_ahead, kling.tells_date = ahead, tells_date
    provider = adapter(http, kling, LEGACY_PICTURE, keys="jwt")
    if not tells_date and abs(ahead) > 60:  # nothing tells by how much it is wrong
        with pytest.raises(ProviderRejected) as caught:
            await provider.submit(LEGACY_PICTURE)
        assert (caught.value.cause, len(kling.creates), len(kling.tasks)) == (Cause.BAD_KEY, 2, 0)
        return

    accepted = await provider.submit(LEGACY_PICTURE)
    assert await provider.check(accepted.task) == StillRendering(queued=False)

    assert (len(kling.creates), len(kling.tasks)) == (2, 1)
    assert len(kling.tokens) == 3  # the poll was right at once


@pytest.mark.parametrize("code", ["1000", "1002", "1003", "1004"])
async def test_a_bad_secret_key_is_told_and_not_tried_for_ever(
    http: aiohttp.ClientSession, kling: KlingServer, code: str
) -> None:
    """At most one more try, and then the owner hears of it."""
    provider = adapter(http, kling, LEGACY_PICTURE, keys="jwt", secret_key="s" * 32)

    with pytest.raises(ProviderRejected) as caught:
        await provider.submit(LEGACY_PICTURE)

    assert caught.value.cause is Cause.BAD_KEY
    assert len(kling.creates) == 1


async def test_the_new_standard_refuses_tokens(http: aiohttp.ClientSession, kling: KlingServer) -> None:
    """A token in the place of an API key is a bad key."""
    token = jwt.encode(
        {"iss": kling.access_key, "exp": int(NOW) + 1800, "nbf": int(NOW) - 5}, kling.secret_key
    )

    with pytest.raises(ProviderRejected) as caught:
        await adapter(http, kling, api_key=token).submit(FROM_PICTURE)

    assert caught.value.cause is Cause.BAD_KEY


# Polling


@pytest.mark.parametrize("request_", KINDS)
async def test_a_clip_is_made_and_fetched(
    http: aiohttp.ClientSession, kling: KlingServer, tmp_path: Path, clip: bytes, request_: ClipRequest
) -> None:
    """Accepted, rendering, ready, on the disk."""
    provider = adapter(http, kling, request_)
    task = (await provider.submit(request_)).task
    assert await provider.check(task) == StillRendering(queued=False)
    ready = await provider.check(task)
    assert ready == Ready(kling.link(kling.tasks[task]))
    await provider.fetch(ready.clip_url, tmp_path / "clip.mp4")

    assert (tmp_path / "clip.mp4").read_bytes() == clip


@pytest.mark.parametrize("request_", KINDS)
async def test_another_process_goes_on(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest
) -> None:
    """A task's name is all that is needed to ask for it, after a restart as well."""
    task = (await adapter(http, kling, request_).submit(request_)).task

    assert await adapter(http, kling, request_).check(task) == StillRendering(queued=False)


async def test_a_task_made_under_the_legacy_standard_is_known_to_the_new_one(
    http: aiohttp.ClientSession, kling: KlingServer
) -> None:
    """Changing the standard in the config loses no clip."""
    kling.polls_until_done = 0
    task = (await adapter(http, kling, LEGACY_WORDS).submit(LEGACY_WORDS)).task

    assert isinstance(await adapter(http, kling).check(task), Ready)


async def test_the_family_of_a_legacy_task_is_looked_for_once(
    http: aiohttp.ClientSession, kling: KlingServer
) -> None:
    """A clip from words is asked for among those from pictures first, once."""
    provider = adapter(http, kling, LEGACY_WORDS)
    task = (await provider.submit(LEGACY_WORDS)).task
    for _ in range(3):
        await provider.check(task)

    assert kling.calls["GET /v1/videos/image2video/{id}"] == 1
    assert kling.calls["GET /v1/videos/text2video/{id}"] == 3


@pytest.mark.parametrize("request_", KINDS)
async def test_a_fresh_task_may_not_be_known_yet(
    http: aiohttp.ClientSession, kling: KlingServer, clock: Clock, request_: ClipRequest
) -> None:
    """For a minute after the submit "not known" is still rendering; later it is an error of the question."""
    kling.hidden_for = 2
    provider = adapter(http, kling, request_)
    task = (await provider.submit(request_)).task

    assert await provider.check(task) == StillRendering()
    clock.at += 61
    with pytest.raises(ProviderRejected) as caught:
        await provider.check(task)
    assert caught.value.cause is Cause.BROKEN
    assert await provider.check(task) == StillRendering(queued=False)


@pytest.mark.parametrize("request_", STANDARDS)
async def test_an_unknown_word_is_rendering_and_told_once(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest
) -> None:
    """A status that the documentation does not have ends nothing."""
    provider = adapter(http, kling, request_)
    task = (await provider.submit(request_)).task
    with capture_logs() as logs:
        for _ in range(2):
            kling.next_poll = "unknown_word"
            assert await provider.check(task) == StillRendering()

    assert [line["word"] for line in logs if line["event"] == "kling_unknown_status"] == ["reticulating"]


@pytest.mark.parametrize("request_", STANDARDS)
async def test_success_without_a_link_is_still_rendering(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest
) -> None:
    """The link comes later."""
    kling.polls_until_done = 0
    provider = adapter(http, kling, request_)
    task = (await provider.submit(request_)).task
    kling.next_poll = "no_link"

    assert await provider.check(task) == StillRendering()
    assert isinstance(await provider.check(task), Ready)


@pytest.mark.parametrize("request_", STANDARDS)
@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("Failure to pass the risk control system", Cause.MODERATION),
        ("Trigger the platform's content security policy", Cause.MODERATION),
        ("Service busy", Cause.BROKEN),
        ("", Cause.BROKEN),
    ],
)
@pytest.mark.parametrize(("units", "charge"), [(None, None), ("0", False), ("2.4", True)])
async def test_a_failed_task_says_why_and_what_it_cost(
    http: aiohttp.ClientSession,
    kling: KlingServer,
    request_: ClipRequest,
    reason: str,
    cause: Cause,
    units: str | None,
    charge: bool | None,
) -> None:
    """Moderation strikes after acceptance as well. Whether it was charged is told only where Kling tells it."""
    kling.fail_with, kling.charges_failures, kling.polls_until_done = reason, units, 0
    provider = adapter(http, kling, request_)
    task = (await provider.submit(request_)).task

    assert await provider.check(task) == Broke(cause, charged=charge)


@pytest.mark.parametrize("request_", STANDARDS)
@pytest.mark.parametrize(
    ("fault", "kind", "cause"),
    [
        ("1002", ProviderRejected, Cause.BAD_KEY),
        ("1302", ProviderBusy, Cause.BUSY),
        ("404", ProviderRejected, Cause.BROKEN),
        ("5000", ProviderUnsure, Cause.NO_ANSWER),
        ("5002", ProviderUnsure, Cause.NO_ANSWER),
        ("502", ProviderUnsure, Cause.NO_ANSWER),
        ("html", ProviderUnsure, Cause.UNREADABLE),
        ("never", ProviderUnsure, Cause.NO_ANSWER),
    ],
)
async def test_a_question_without_an_answer_is_not_a_failed_clip(
    http: aiohttp.ClientSession,
    kling: KlingServer,
    request_: ClipRequest,
    fault: str,
    kind: type[ProviderError],
    cause: Cause,
) -> None:
    """What goes wrong with a poll or a look-up is an error of the question; the next one gets the clip."""
    provider = adapter(http, kling, request_, request_timeout=0.5 if fault == "never" else 20)
    task = (await provider.submit(request_)).task
    await provider.check(task)
    for question in (provider.check(task), provider.find("job-1")):
        kling.next_poll = fault
        with pytest.raises(ProviderError) as caught:
            await question
        assert (type(caught.value), caught.value.cause) == (kind, cause)

    assert isinstance(await provider.check(task), Ready)


async def test_many_are_asked_at_once(http: aiohttp.ClientSession, kling: KlingServer) -> None:
    """Twenty tasks, one question; those that the answer leaves out are left out, which is not failed."""
    provider = adapter(http, kling)
    assert isinstance(provider, Kling)
    tasks = [
        (await provider.submit(replace(FROM_PICTURE, reference=f"job-{n}"))).task
        for n in range(provider.most_checks)
    ]
    kling.tasks[tasks[3]].unseen = 1
    kling.tasks[tasks[4]].polls = 1
    before = kling.calls["GET /tasks"]

    outcomes = await provider.check_many(tasks)

    assert kling.calls["GET /tasks"] == before + 1
    assert outcomes.keys() == set(tasks) - {tasks[3]}
    assert outcomes[tasks[4]] == Ready(kling.link(kling.tasks[tasks[4]]))
    assert outcomes[tasks[5]] == StillRendering(queued=False)
    assert await provider.check_many(["1"]) == {}


async def test_a_question_for_many_that_fails_fails_for_all(
    http: aiohttp.ClientSession, kling: KlingServer
) -> None:
    """No clip is lost for a poll."""
    provider = adapter(http, kling)
    assert isinstance(provider, Kling)
    kling.next_poll = "5000"

    with pytest.raises(ProviderUnsure):
        await provider.check_many(["1", "2"])


@pytest.mark.parametrize("request_", STANDARDS)
async def test_the_task_of_another_reference_is_not_ours(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest
) -> None:
    """An answer that speaks of another reference proves neither that ours is there nor that it is not."""
    provider = adapter(http, kling, request_)
    await provider.submit(request_)
    kling.next_poll = "stranger"

    with pytest.raises(ProviderUnsure):
        await provider.find("job-1")


@pytest.mark.parametrize(
    ("code", "cause"), [("1201", Cause.BAD_INPUT), ("1203", None), ("1202", Cause.BROKEN)]
)
async def test_only_not_found_is_absent_under_the_legacy_standard(
    http: aiohttp.ClientSession, kling: KlingServer, code: str, cause: Cause | None
) -> None:
    """1201 means many things; that there is no such task is told by its words alone, or by 1203."""
    provider = adapter(http, kling, LEGACY_PICTURE)
    kling.next_poll = code
    if cause is None:
        assert await provider.find("job-1") == Absent()
        return

    with pytest.raises(ProviderRejected) as caught:
        await provider.find("job-1")

    assert caught.value.cause is cause


async def test_little_is_kept_in_memory(
    http: aiohttp.ClientSession, kling: KlingServer, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is remembered of tasks is bounded, and forgetting it loses nothing."""
    monkeypatch.setattr("bot.providers.kling.legacy.MOST_FAMILIES", 2)
    provider = adapter(http, kling, LEGACY_WORDS)
    assert isinstance(provider, KlingLegacy)
    tasks = []
    for n in range(4):
        clock.at += 61
        tasks.append((await provider.submit(replace(LEGACY_WORDS, reference=f"job-{n}"))).task)
        await provider.check(tasks[-1])

    assert len(provider._families) == 2
    assert len(provider._fresh) == 1
    assert isinstance(await provider.check(tasks[0]), Ready)


# Fetching


@pytest.mark.parametrize("request_", STANDARDS)
async def test_an_expired_link_is_gone_and_a_poll_gives_a_fresh_one(
    http: aiohttp.ClientSession, kling: KlingServer, tmp_path: Path, clip: bytes, request_: ClipRequest
) -> None:
    """An expired link says CLIP_GONE, shows no signature, and asking again helps."""
    kling.polls_until_done = 0
    provider = adapter(http, kling, request_)
    task = (await provider.submit(request_)).task
    old = await provider.check(task)
    assert isinstance(old, Ready)
    kling.expire_links()
    with pytest.raises(ProviderRejected) as caught:
        await provider.fetch(old.clip_url, tmp_path / "clip.mp4")
    assert caught.value.cause is Cause.CLIP_GONE
    assert "secret" not in str(caught.value)

    fresh = await provider.check(task)
    assert isinstance(fresh, Ready)
    await provider.fetch(fresh.clip_url, tmp_path / "clip.mp4")

    assert (tmp_path / "clip.mp4").read_bytes() == clip


# The balance


@pytest.mark.parametrize("request_", STANDARDS)
async def test_the_balance_is_what_the_packs_for_video_have_left(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest
) -> None:
    """Packs in effect count; those for pictures, used up or to come do not."""
    kling.packs += [
        pack("Video Generation - 10,000 entries", 200, 12.5),
        pack("Video Generation", 200, 5, status="expired"),
        pack("Video Generation", 200, 50, status="toBeOnline"),
        pack("Trial-Image-100Units", 100, 99),
    ]

    assert await adapter(http, kling, request_).probe() == Balance(amount=100.0, unit="units")
    assert kling.creates == []


async def test_an_account_without_packs_pays_as_it_goes(
    http: aiohttp.ClientSession, kling: KlingServer
) -> None:
    """Kling does not tell what such an account has left."""
    kling.packs = []

    assert await adapter(http, kling).probe() is None


@pytest.mark.parametrize("request_", STANDARDS)
@pytest.mark.parametrize(
    ("fault", "cause"),
    [("1000", Cause.BAD_KEY), ("1101", Cause.NO_CREDIT), ("1302", Cause.BUSY), ("html", Cause.UNREADABLE)],
)
async def test_a_probe_tells_what_a_submit_would(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest, fault: str, cause: Cause
) -> None:
    """The owner hears of a bad key or an empty account before anybody spends."""
    kling.next_poll = fault

    with pytest.raises(ProviderError) as caught:
        await adapter(http, kling, request_).probe()

    assert caught.value.cause is cause


async def test_the_inner_code_of_the_balance_counts(http: aiohttp.ClientSession, kling: KlingServer) -> None:
    """The answer is wrapped twice, and each wrapping has a code."""
    kling.packs_code = 1101

    with pytest.raises(ProviderRejected) as caught:
        await adapter(http, kling).probe()

    assert caught.value.cause is Cause.NO_CREDIT


# Callbacks


def hearing(kling: KlingServer, http: aiohttp.ClientSession, **settings: Any) -> KlingApi:
    return adapter(http, kling, webhook_secret=SECRET, **settings)


async def test_the_vendors_own_example_is_genuine(http: aiohttp.ClientSession, kling: KlingServer) -> None:
    """The test vector of the page on callbacks; header names in any case."""
    body = (
        b'{"id":"1234567890","status":"succeeded","message":"",'
        b'"create_time":1781080778802,"update_time":1781080794151}'
    )
    headers = {
        "Webhook-Id": "9876543210",
        "WEBHOOK-TIMESTAMP": "1781080794",
        "webhook-signature": "v1,UsKlJP00XoQyOn410NM9xv34sP+Gl0jnOO9Lcpr7NJ4=",
    }

    assert hearing(kling, http).hear(headers, body) == "1234567890"


@pytest.mark.parametrize("request_", KINDS)
async def test_a_callback_names_the_task_as_the_submit_did(
    http: aiohttp.ClientSession, kling: KlingServer, request_: ClipRequest
) -> None:
    """Under both standards, signed or not, and in a process that did not submit it."""
    task = (await adapter(http, kling, request_).submit(request_)).task
    signed_, unsigned = (kling.callback(kling.tasks[task], secrets=secrets) for secrets in ([SECRET], []))

    assert adapter(http, kling, request_, webhook_secret=SECRET).hear(*signed_) == task
    assert adapter(http, kling, request_).hear(*unsigned) == task
    assert adapter(http, kling, request_).hear(*signed_) == task


async def test_while_a_secret_is_changed_both_sign(http: aiohttp.ClientSession, kling: KlingServer) -> None:
    """For seven days there are two signatures, and one that is ours is enough."""
    task = (await adapter(http, kling).submit(FROM_PICTURE)).task
    other = "whsec_" + base64.b64encode(b"another").decode()

    assert hearing(kling, http).hear(*kling.callback(kling.tasks[task], secrets=[other, SECRET])) == task
    assert hearing(kling, http).hear(*kling.callback(kling.tasks[task], secrets=[other])) is None


BODY = b'{"id":"1"}'
GOOD = signed(BODY, secrets=[SECRET], at=int(NOW))


@pytest.mark.parametrize(
    ("headers", "body"),
    [
        pytest.param({}, BODY, id="unsigned"),
        pytest.param(GOOD, b'{"id":"2"}', id="another body"),
        pytest.param(GOOD | {"webhook-id": "msg_2"}, BODY, id="another id"),
        pytest.param(GOOD | {"webhook-timestamp": str(int(NOW) + 1)}, BODY, id="another time"),
        pytest.param(GOOD | {"webhook-timestamp": "9" * 5000}, BODY, id="absurd time"),
        pytest.param(GOOD | {"webhook-timestamp": "²"}, BODY, id="no number"),
        pytest.param(GOOD | {"webhook-signature": "v1,"}, BODY, id="empty signature"),
        pytest.param(GOOD | {"webhook-signature": "v2" + GOOD["webhook-signature"][2:]}, BODY, id="v2"),
        pytest.param(GOOD | {"webhook-signature": "v1,\udce9é"}, BODY, id="odd bytes"),
        pytest.param(signed(BODY, secrets=[SECRET], at=int(NOW) - 301), BODY, id="too old"),
        pytest.param(signed(BODY, secrets=[SECRET], at=int(NOW) + 302), BODY, id="too new"),
    ],
)
async def test_a_forged_or_replayed_callback_is_not_heard(
    http: aiohttp.ClientSession, kling: KlingServer, headers: dict[str, str], body: bytes
) -> None:
    """With a secret, only what Kling signed in the last five minutes counts."""
    assert hearing(kling, http).hear(GOOD, BODY) == "1"
    assert hearing(kling, http).hear(headers, body) is None


@pytest.mark.parametrize(
    "body",
    [b"", b"\xff", b"null", b"[]", b'{"id":""}', b'{"id":true}', b'{"id":{}}', b"{}", b"[" * 100_000],
)
async def test_a_callback_that_names_nothing(
    http: aiohttp.ClientSession, kling: KlingServer, body: bytes
) -> None:
    """Whatever arrives at the public address raises nothing."""
    assert adapter(http, kling).hear({}, body) is None
    assert hearing(kling, http).hear(signed(body, secrets=[SECRET], at=int(NOW)), body) is None


# Capabilities and settings


def test_what_each_standard_offers() -> None:
    """The engine asks many at once only where Kling answers so; both find by reference and call back."""
    assert issubclass(Kling, FindsByReference)
    assert issubclass(KlingLegacy, FindsByReference)
    assert issubclass(Kling, HearsCallbacks)
    assert issubclass(KlingLegacy, HearsCallbacks)
    assert hasattr(Kling, "check_many")
    assert not hasattr(KlingLegacy, "check_many")


async def test_what_the_models_can_do(http: aiohttp.ClientSession, kling: KlingServer) -> None:
    """The limits are those of the documentation; no setting of the models before 2 is offered."""
    new, legacy = adapter(http, kling).variants, adapter(http, kling, LEGACY_PICTURE).variants

    assert isinstance(adapter(http, kling), ChecksMany)
    assert list(new) == ["kling-3.0", "kling-3.0-turbo", "kling-2.6", "kling-2.5-turbo"]
    assert list(legacy) == ["kling-v3", "kling-v2-6", "kling-v2-5-turbo"]
    assert new["kling-3.0"].seconds == (5, 3, 4, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15)
    assert [can.negative_prompt for can in new.values()] == [0, 0, 0, 0]
    assert [can.end_picture for can in new.values()] == [True, False, True, True]
    assert [can.sound for can in new.values()] == [True, True, True, False]
    assert {can.negative_prompt for can in legacy.values()} == {2500}
    assert {can.picture.max_bytes for can in new.values()} == {50_000_000}
    assert {can.picture.max_bytes for can in legacy.values()} == {10_000_000}
    for can in (*new.values(), *legacy.values()):
        assert (can.picture.min_side, can.picture.min_ratio, can.picture.max_ratio) == (300, 0.4, 2.5)
        assert (can.strength, can.cameras, can.by_link) == (None, (), False)


@pytest.mark.parametrize("standard", ["new", "legacy"])
async def test_what_is_offered_by_default_is_there(http: aiohttp.ClientSession, standard: str) -> None:
    """Each standard's usual models are all that it reaches, and its adapter is the right one."""
    settings = KlingSettings.model_validate({"api_key": "k", "standard": standard})
    provider = open_kling(http=http, settings=settings)

    assert isinstance(provider, Kling if standard == "new" else KlingLegacy)
    assert list(settings.usual_models.values()) == list(provider.variants)


def test_settings_have_the_documented_address() -> None:
    """A key is all that has to be set, and it does not show."""
    settings = KlingSettings.model_validate({"api_key": " k3y "})

    assert settings.base_url == "https://api-singapore.klingai.com"
    assert settings.standard == "new"
    assert settings.api_key
    assert settings.api_key.get_secret_value() == "k3y"
    assert "k3y" not in repr(settings)


@pytest.mark.parametrize("name", KlingSettings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    """Each key says what it is."""
    assert KlingSettings.model_fields[name].description


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": None},
        {"api_key": None, "access_key": "a", "secret_key": "k3y-s3cret"},
        {"api_key": None, "standard": "legacy"},
        {"api_key": None, "standard": "legacy", "access_key": "a"},
        {"secret_key": "k3y-s3cret"},
        {"api_key": ""},
        {"api_key": "two words"},
        {"webhook_secret": "whsec_"},
        {"webhook_secret": "whsec_k3y-s3cret"},
        {"base_url": "http://api-singapore.klingai.com"},
        {"base_url": "https://user:pass@api-singapore.klingai.com"},
        {"standard": "newer"},
        {"request_timeout": 0},
        {"clip_max_bytes": 0},
        {"basse_url": "https://api-singapore.klingai.com"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    """A wrong value is found at start, and the message does not repeat it."""
    with pytest.raises(ValidationError) as caught:
        KlingSettings.model_validate({"api_key": "k3y-s3cret", **wrong})

    assert "k3y-s3cret" not in str(caught.value)
    assert "k3y-s3cret" not in json.dumps([str(error["msg"]) for error in caught.value.errors()])


# What it costs


@pytest.mark.parametrize(
    ("variant", "quality", "sound", "cents"),
    [
        ("kling-3.0", "720p", False, 42),
        ("kling-3.0", "720p", True, 63),
        ("kling-3.0", "1080p", True, 84),
        ("kling-3.0", "4k", False, 210),
        ("kling-3.0", "4k", True, 210),
        ("kling-3.0-turbo", "720p", True, 56),
        ("kling-2.6", "1080p", True, 70),
        ("kling-2.5-turbo", "720p", False, 21),
    ],
)
def test_the_price_list_is_klings(
    http: aiohttp.ClientSession, variant: str, quality: str, sound: bool, cents: int
) -> None:
    """Five seconds, by the price page of September 2026."""
    variants = Kling(http=http, settings=KlingSettings(api_key=SecretStr("k"))).variants

    assert listed_cents(variants[variant], 5, quality, sound) == cents
