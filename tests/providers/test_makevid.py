"""The route makevid against a loopback gateway that refuses what the documentation refuses."""

import base64
import socket
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr, ValidationError
from structlog.testing import capture_logs

from bot.errors import Cause, ProviderBusy, ProviderError, ProviderRejected, ProviderUnsure
from bot.jobs.machine import Broke, Ready, StillRendering
from bot.providers.base import ClipRequest
from bot.providers.makevid import Makevid, MakevidSettings
from tests.providers.conftest import picture
from tests.servers.makevid import MakevidServer

KLING_IMAGE = "/api/v1/kling/image2video"
KLING_TEXT = "/api/v1/kling/text2video"
LINK = "https://cdn.invalid/clip.mp4"

FROM_PICTURE = ClipRequest(
    reference="r-1", variant="kling", prompt="camera pull out", seconds=5, picture=picture()
)
FROM_WORDS = ClipRequest(reference="r-1", variant="kling", prompt="a fox runs", seconds=10)
LUMA = ClipRequest(reference="r-1", variant="luma", prompt="waves", seconds=5, picture=picture())
RUNWAY = ClipRequest(reference="r-1", variant="runway", prompt="waves", seconds=10, picture=picture())
SYSTEMS = [
    pytest.param(FROM_PICTURE, id="image2video"),
    pytest.param(FROM_WORDS, id="text2video"),
    pytest.param(LUMA, id="luma"),
    pytest.param(RUNWAY, id="runway"),
]


def adapter(http: aiohttp.ClientSession, server: MakevidServer, **settings: Any) -> Makevid:
    return Makevid(
        http=http,
        settings=MakevidSettings(api_key=SecretStr("test-key"), base_url=server.base_url, **settings),
        allow_private_addresses=True,
    )


@pytest.fixture
def provider(http: aiohttp.ClientSession, makevid: MakevidServer) -> Makevid:
    return adapter(http, makevid)


@asynccontextmanager
async def gateway(http: aiohttp.ClientSession, body: object, **settings: Any) -> AsyncIterator[Makevid]:
    """A provider whose gateway gives this one JSON to everything."""

    async def answer(request: web.Request) -> web.Response:
        await request.read()
        return web.json_response(body)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", answer)
    runner = web.AppRunner(app, access_log=None)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    host, port = runner.addresses[0][:2]
    try:
        yield Makevid(
            http=http,
            settings=MakevidSettings(
                api_key=SecretStr("test-key"), base_url=f"http://{host}:{port}", **settings
            ),
        )
    finally:
        await runner.cleanup()


# What is sent


async def test_kling_from_a_picture_sends_what_is_documented(
    provider: Makevid, makevid: MakevidServer
) -> None:
    """Image to video: text for the duration, a fraction for cfg_scale, bare base64, and nothing more."""
    end = picture(400, 300, kind="JPEG")
    request = replace(
        FROM_PICTURE,
        seconds=10,
        quality="1080p",
        strength=0.8,
        negative_prompt="blur",
        ratio="16:9",
        end_picture=end,
    )

    accepted = await provider.submit(request)

    assert request.picture
    assert makevid.creates[0].body == {
        "image": base64.b64encode(request.picture.data).decode(),
        "image_tail": base64.b64encode(end.data).decode(),
        "prompt": "camera pull out",
        "negative_prompt": "blur",
        "cfg_scale": 0.8,
        "mode": "pro",
        "duration": "10",
    }
    assert accepted.task == "image2video:CmC9rGbtVzEAAAAAADQY-A_1"


async def test_kling_leaves_out_what_was_not_chosen(provider: Makevid, makevid: MakevidServer) -> None:
    """Without words and options a picture and a duration are enough: absent fields are left out, not empty."""
    await provider.submit(replace(FROM_PICTURE, prompt=""))

    assert makevid.creates[0].body.keys() == {"image", "duration"}


async def test_kling_from_words_sends_the_ratio(provider: Makevid, makevid: MakevidServer) -> None:
    """Text to video has its own address, and a ratio."""
    accepted = await provider.submit(replace(FROM_WORDS, ratio="9:16", strength=1, quality="720p"))

    assert makevid.creates[0].path == f"{KLING_TEXT}/create_kling"
    assert makevid.creates[0].body == {
        "prompt": "a fox runs",
        "duration": "10",
        "aspect_ratio": "9:16",
        "cfg_scale": 1.0,
        "mode": "std",
    }
    assert accepted.task.startswith("text2video:")


@pytest.mark.parametrize(
    ("camera", "control"),
    [
        ("zoom in", {"zoom": -5}),
        ("zoom out", {"zoom": 5}),
        ("pan left", {"tilt": -5}),
        ("pan right", {"tilt": 5}),
        ("tilt up", {"pan": 5}),
        ("tilt down", {"pan": -5}),
        ("slide left", {"horizontal": -5}),
        ("crane up", {"vertical": 5}),
        ("roll right", {"roll": 5}),
        ("down and back", "down_back"),
        ("forward and up", "forward_up"),
        ("forward, turning left", "left_turn_forward"),
        ("forward, turning right", "right_turn_forward"),
    ],
)
async def test_the_camera_is_moved_in_klings_words(
    provider: Makevid, makevid: MakevidServer, camera: str, control: dict[str, int] | str
) -> None:
    """Film's pan is Kling's tilt; one of six numbers is not zero, and the ready-made moves have none."""
    await provider.submit(replace(FROM_WORDS, seconds=5, quality="720p", camera=camera))

    sent = makevid.creates[0].body["camera_control"]
    if isinstance(control, str):
        assert sent == {"type": control}
    else:
        still = dict.fromkeys(("horizontal", "vertical", "pan", "tilt", "roll", "zoom"), 0)
        assert sent == {"type": "simple", "config": still | control}


async def test_every_camera_on_offer_is_taken(provider: Makevid, makevid: MakevidServer) -> None:
    """No name is offered that the gateway would refuse; and the command can show all of them."""
    cameras = provider.variants["kling"].cameras
    for camera in cameras:
        await provider.submit(replace(FROM_WORDS, seconds=5, quality="720p", camera=camera))

    bodies = [str(task.body["camera_control"]) for task in makevid.tasks.values()]
    assert len(set(bodies)) == len(cameras) <= 25


@pytest.mark.parametrize(
    "request_", [replace(FROM_PICTURE, camera="zoom in"), replace(FROM_WORDS, camera="somersault")]
)
async def test_a_camera_that_cannot_be_moved_is_not_ignored(
    provider: Makevid, makevid: MakevidServer, request_: ClipRequest
) -> None:
    """A paid clip without the move that was asked for would be paid for nothing."""
    with pytest.raises(ProviderRejected) as caught:
        await provider.submit(request_)

    assert caught.value.cause is Cause.BAD_INPUT
    assert makevid.creates == []


async def test_luma_sends_links(provider: Makevid, makevid: MakevidServer) -> None:
    """Luma takes links; an end picture that is absent is left out, not sent as an empty text."""
    await provider.submit(LUMA)
    await provider.submit(replace(LUMA, picture=None, end_picture=picture(link="https://cdn.invalid/b.png")))

    first, second = (create.body for create in makevid.creates)
    assert first == {
        "user_prompt": "waves",
        "expand_prompt": True,
        "image_url": "https://cdn.invalid/a.png?ex=1",
    }
    assert second == {
        "user_prompt": "waves",
        "expand_prompt": True,
        "image_end_url": "https://cdn.invalid/b.png",
    }


async def test_runway_sends_its_five_fields(provider: Makevid, makevid: MakevidServer) -> None:
    """Runway wants all five fields, the seconds as a number."""
    await provider.submit(RUNWAY)

    assert makevid.creates[0].body == {
        "text_prompt": "waves",
        "init_image": "https://cdn.invalid/a.png?ex=1",
        "seconds": 10,
        "enhance_prompt": True,
        "image_as_end_frame": False,
    }


async def test_prompts_are_rewritten_only_if_the_owner_wants_it(
    http: aiohttp.ClientSession, makevid: MakevidServer
) -> None:
    """One setting turns off the vendors' rewriting of prompts."""
    provider = adapter(http, makevid, rewrite_prompts=False)

    await provider.submit(LUMA)
    await provider.submit(RUNWAY)

    assert makevid.creates[0].body["expand_prompt"] is False
    assert makevid.creates[1].body["enhance_prompt"] is False


@pytest.mark.parametrize("request_", SYSTEMS)
async def test_every_call_carries_the_key(
    provider: Makevid, makevid: MakevidServer, request_: ClipRequest
) -> None:
    """Creates and polls of all four systems carry the bearer header: the server refuses any without."""
    accepted = await provider.submit(request_)

    assert await provider.check(accepted.task) == StillRendering(
        progress=0.4 if request_ is RUNWAY else None, queued=False
    )


async def test_the_largest_picture_goes_through(provider: Makevid, makevid: MakevidServer) -> None:
    """A picture near the limit is 13 MB of base64, and arrives unharmed."""
    big = picture()
    big = replace(big, data=big.data + bytes(9_900_000 - len(big.data)))

    await provider.submit(replace(FROM_PICTURE, picture=big))

    assert len(makevid.tasks) == 1


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(replace(LUMA, picture=picture(link=None)), id="luma picture without link"),
        pytest.param(replace(LUMA, end_picture=picture(link=None)), id="luma end picture without link"),
        pytest.param(replace(RUNWAY, picture=picture(link=None)), id="runway picture without link"),
        pytest.param(replace(RUNWAY, picture=None), id="runway without picture"),
        pytest.param(replace(FROM_WORDS, prompt=""), id="kling without anything"),
        pytest.param(replace(FROM_WORDS, end_picture=picture()), id="kling with an end picture alone"),
        pytest.param(replace(FROM_WORDS, variant="sora"), id="unknown model"),
    ],
)
async def test_what_cannot_work_is_not_sent(
    provider: Makevid, makevid: MakevidServer, request_: ClipRequest
) -> None:
    """A request that the gateway has no way to take is refused before anything is paid."""
    with pytest.raises(ProviderRejected) as caught:
        await provider.submit(request_)

    assert caught.value.cause is Cause.BAD_INPUT
    assert makevid.creates == []


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(replace(FROM_PICTURE, picture=picture(299, 400)), id="too small"),
        pytest.param(replace(FROM_PICTURE, picture=picture(300, 1000)), id="too narrow"),
        pytest.param(replace(FROM_PICTURE, picture=picture(kind="WEBP")), id="webp"),
        pytest.param(replace(FROM_PICTURE, negative_prompt="x" * 201), id="negative prompt"),
        pytest.param(replace(FROM_PICTURE, strength=1.5), id="strength"),
        pytest.param(replace(FROM_PICTURE, quality="ultra"), id="quality"),
        pytest.param(replace(FROM_PICTURE, seconds=7), id="seconds"),
        pytest.param(replace(FROM_WORDS, ratio="4:3"), id="ratio"),
        pytest.param(replace(LUMA, prompt=""), id="luma without words"),
        pytest.param(replace(RUNWAY, seconds=7), id="runway seconds"),
    ],
)
async def test_what_the_documentation_refuses_is_bad_input(
    provider: Makevid, makevid: MakevidServer, request_: ClipRequest
) -> None:
    """The gateway's refusal of a value costs nothing and blames the input."""
    with pytest.raises(ProviderRejected) as caught:
        await provider.submit(request_)

    assert caught.value.cause is Cause.BAD_INPUT
    assert (len(makevid.creates), len(makevid.tasks)) == (1, 0)


# What a create answers

SURELY_NOT = [
    ("400", ProviderRejected, Cause.BAD_INPUT),
    ("413", ProviderRejected, Cause.BAD_INPUT),
    ("422", ProviderRejected, Cause.BAD_INPUT),
    ("401", ProviderRejected, Cause.BAD_KEY),
    ("402", ProviderRejected, Cause.NO_CREDIT),
    ("403", ProviderRejected, Cause.NOT_ALLOWED),
    ("404", ProviderRejected, Cause.BROKEN),
    ("405", ProviderRejected, Cause.BROKEN),
    ("redirect", ProviderRejected, Cause.BROKEN),
    ("429", ProviderBusy, Cause.BUSY),
]
NOBODY_KNOWS = [
    ("303", ProviderUnsure, Cause.NO_ANSWER),
    ("408", ProviderUnsure, Cause.NO_ANSWER),
    ("500", ProviderUnsure, Cause.NO_ANSWER),
    ("502", ProviderUnsure, Cause.NO_ANSWER),
    ("503", ProviderUnsure, Cause.NO_ANSWER),
    ("504", ProviderUnsure, Cause.NO_ANSWER),
    ("reset_before", ProviderUnsure, Cause.NO_ANSWER),
    ("reset_after", ProviderUnsure, Cause.NO_ANSWER),
    ("cut_short", ProviderUnsure, Cause.NO_ANSWER),
    ("never", ProviderUnsure, Cause.NO_ANSWER),
    ("html", ProviderUnsure, Cause.UNREADABLE),
    ("no_id", ProviderUnsure, Cause.UNREADABLE),
    ("huge", ProviderUnsure, Cause.UNREADABLE),
]


@pytest.mark.parametrize("request_", SYSTEMS)
@pytest.mark.parametrize(("fault", "kind", "cause"), SURELY_NOT + NOBODY_KNOWS)
async def test_a_create_that_goes_wrong(
    http: aiohttp.ClientSession,
    makevid: MakevidServer,
    request_: ClipRequest,
    fault: str,
    kind: type[ProviderError],
    cause: Cause,
) -> None:
    """Only a clear refusal is "surely not taken"; and whatever happens, the create goes out once."""
    provider = adapter(http, makevid, request_timeout=1 if fault == "never" else 20)
    makevid.next_create = fault

    with pytest.raises(ProviderError) as caught:
        await provider.submit(request_)

    assert (type(caught.value), caught.value.cause) == (kind, cause)
    assert len(makevid.creates) == 1
    assert "test-key" not in str(caught.value)


@pytest.mark.parametrize("fault", [fault for fault, *_ in NOBODY_KNOWS if fault != "never"])
async def test_a_pooled_connection_that_breaks_is_not_tried_again(
    provider: Makevid, makevid: MakevidServer, fault: str
) -> None:
    """A create on a connection that served before goes out once as well."""
    await provider.submit(FROM_WORDS)
    makevid.next_create = fault

    with pytest.raises(ProviderUnsure):
        await provider.submit(FROM_WORDS)

    assert len(makevid.creates) == 2


@pytest.mark.parametrize(
    ("code", "kind", "cause"),
    [
        (1000, ProviderRejected, Cause.BAD_KEY),
        (1004, ProviderRejected, Cause.BAD_KEY),
        (1100, ProviderRejected, Cause.NOT_ALLOWED),
        (1101, ProviderRejected, Cause.NO_CREDIT),
        (1102, ProviderRejected, Cause.NO_CREDIT),
        (1103, ProviderRejected, Cause.NOT_ALLOWED),
        (1200, ProviderRejected, Cause.BAD_INPUT),
        (1201, ProviderRejected, Cause.BAD_INPUT),
        (1203, ProviderRejected, Cause.BROKEN),
        (1300, ProviderRejected, Cause.MODERATION),
        (1301, ProviderRejected, Cause.MODERATION),
        (1302, ProviderBusy, Cause.BUSY),
        (1303, ProviderBusy, Cause.BUSY),
        (1304, ProviderRejected, Cause.NOT_ALLOWED),
        (5000, ProviderUnsure, Cause.NO_ANSWER),
        (5002, ProviderUnsure, Cause.NO_ANSWER),
        (402, ProviderRejected, Cause.NO_CREDIT),
        (429, ProviderBusy, Cause.BUSY),
        (7777, ProviderUnsure, Cause.UNREADABLE),
    ],
)
async def test_a_code_in_a_200_is_an_error(
    provider: Makevid, makevid: MakevidServer, code: int, kind: type[ProviderError], cause: Cause
) -> None:
    """Kling's codes decide, whatever the HTTP status; a code that nobody knows proves nothing."""
    makevid.next_create = f"code:{code}"

    with pytest.raises(ProviderError) as caught:
        await provider.submit(FROM_PICTURE)

    assert (type(caught.value), caught.value.cause) == (kind, cause)


@pytest.mark.parametrize(
    ("body", "cause"),
    [
        ({"code": 1201, "message": "Failure to pass the risk control system"}, Cause.MODERATION),
        ({"code": 422, "error": {"message": "content policy violation"}}, Cause.MODERATION),
        ({"code": 400, "error": "Advanced moderation failed"}, Cause.MODERATION),
        ({"code": 1201, "message": "Image pixel is invalid"}, Cause.BAD_INPUT),
        ({"code": 1201, "message": "duration is case-sensitive"}, Cause.BAD_INPUT),
    ],
)
async def test_moderation_is_recognised_by_its_words(
    http: aiohttp.ClientSession, body: object, cause: Cause
) -> None:
    """A refusal that says moderation is moderation, so that the person hears what to change."""
    async with gateway(http, body) as provider:
        with pytest.raises(ProviderRejected) as caught:
            await provider.submit(FROM_WORDS)

    assert caught.value.cause is cause


async def test_busy_says_when(provider: Makevid, makevid: MakevidServer) -> None:
    """429 carries the pause that the gateway asks for."""
    makevid.next_create, makevid.retry_after = "429", "42"

    with pytest.raises(ProviderBusy) as caught:
        await provider.submit(FROM_PICTURE)

    assert caught.value.retry_after == timedelta(seconds=42)


async def test_a_gateway_that_is_down_is_busy(http: aiohttp.ClientSession, makevid: MakevidServer) -> None:
    """Without a connection nothing was taken, so the job may wait and try again."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    makevid.base_url = f"http://127.0.0.1:{port}"

    with pytest.raises(ProviderBusy):
        await adapter(http, makevid).submit(FROM_PICTURE)


async def test_the_key_is_not_repeated(provider: Makevid, makevid: MakevidServer) -> None:
    """A gateway that repeats the key in its refusal does not get it into our logs."""
    makevid.next_create = "echo_key"

    with pytest.raises(ProviderRejected) as caught:
        await provider.submit(FROM_PICTURE)

    assert "test-key" not in caught.value.detail
    assert "no account for" in caught.value.detail


@pytest.mark.parametrize("request_", SYSTEMS)
async def test_201_is_accepted(provider: Makevid, makevid: MakevidServer, request_: ClipRequest) -> None:
    """Created is as good as OK."""
    makevid.next_create = "created"

    accepted = await provider.submit(request_)

    assert accepted.task.partition(":")[2] in makevid.tasks


@pytest.mark.parametrize(
    ("request_", "body", "task"),
    [
        (FROM_WORDS, {"task_id": "t1", "status": "queued"}, "text2video:t1"),
        (FROM_WORDS, {"code": "success", "data": {"task_id": "t1"}}, "text2video:t1"),
        (FROM_WORDS, {"code": 200, "data": {"task_id": 812345}}, "text2video:812345"),
        (FROM_WORDS, {"code": 7777, "data": {"task_id": "t1"}}, "text2video:t1"),
        (LUMA, {"id": "l1", "state": "pending"}, "luma:l1"),
        (RUNWAY, {"task": {"id": "r1", "status": "THROTTLED"}}, "runway:r1"),
    ],
)
async def test_other_envelopes_of_an_accepted_job(
    http: aiohttp.ClientSession, request_: ClipRequest, body: object, task: str
) -> None:
    """Wherever a 2xx names the task, the job is accepted: a paid clip is not lost to a new envelope."""
    async with gateway(http, body) as provider:
        assert (await provider.submit(request_)).task == task


# Polling


@pytest.mark.parametrize("request_", SYSTEMS)
async def test_a_clip_from_submit_to_file(
    provider: Makevid, makevid: MakevidServer, request_: ClipRequest, tmp_path: Path, clip: bytes
) -> None:
    """Each of the four systems brings a clip: submitted, rendering, ready, downloaded."""
    task = (await provider.submit(request_)).task
    assert isinstance(await provider.check(task), StillRendering)
    ready = await provider.check(task)
    assert isinstance(ready, Ready)

    await provider.fetch(ready.clip_url, tmp_path / "clip.mp4")

    assert (tmp_path / "clip.mp4").read_bytes() == clip
    assert len(makevid.creates) == 1


@pytest.mark.parametrize("word", ["succeed", "SUCCEED", "succeeded", "Completed", "SUCCESS", "SUCCEEDED"])
@pytest.mark.parametrize("request_", SYSTEMS)
async def test_success_has_many_spellings(
    provider: Makevid, makevid: MakevidServer, request_: ClipRequest, word: str
) -> None:
    """Every vendor spells success differently; all of them count everywhere."""
    makevid.success_word, makevid.polls_until_done = word, 0
    task = (await provider.submit(request_)).task

    assert isinstance(await provider.check(task), Ready)


async def test_an_accepted_question_is_not_a_finished_clip(provider: Makevid) -> None:
    """`message: SUCCEED` of the envelope says nothing about the clip."""
    task = (await provider.submit(FROM_PICTURE)).task

    assert await provider.check(task) == StillRendering(queued=False)


@pytest.mark.parametrize("request_", SYSTEMS)
async def test_success_without_a_link_is_still_rendering(
    provider: Makevid, makevid: MakevidServer, request_: ClipRequest
) -> None:
    """The link may come a poll later than the word."""
    makevid.polls_until_done, makevid.next_poll = 0, "no_link"
    task = (await provider.submit(request_)).task

    assert isinstance(await provider.check(task), StillRendering)
    assert isinstance(await provider.check(task), Ready)


async def test_an_unknown_word_is_still_rendering_and_logged_once(
    provider: Makevid, makevid: MakevidServer
) -> None:
    """A status that nobody documented ends nothing, and is worth one line."""
    task = (await provider.submit(FROM_PICTURE)).task
    with capture_logs() as logs:
        for _ in range(3):
            makevid.next_poll = "unknown_word"
            assert await provider.check(task) == StillRendering()

    assert [line["word"] for line in logs if line["event"] == "makevid_unknown_status"] == ["reticulating"]


async def test_the_owner_can_teach_words(http: aiohttp.ClientSession) -> None:
    """Status words can be added in the settings, whatever their case."""
    body = {"id": "l1", "state": "Ready-To-Go", "video_raw": {"url": LINK}}
    async with gateway(http, body, extra_success_words=("ready-to-go",)) as provider:
        assert await provider.check("luma:l1") == Ready(LINK)
    async with gateway(http, body, extra_failure_words=("READY-TO-GO",)) as provider:
        assert await provider.check("luma:l1") == Broke(Cause.BROKEN)
    async with gateway(http, body, extra_running_words=("ready-to-go",)) as provider:
        assert await provider.check("luma:l1") == StillRendering(queued=False)


@pytest.mark.parametrize("request_", SYSTEMS)
@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("Failure to pass the risk control system", Cause.MODERATION),
        ("Advanced moderation failed", Cause.MODERATION),
        ("SAFETY.INPUT.TEXT", Cause.MODERATION),
        ("Service busy", Cause.BROKEN),
        ("", Cause.BROKEN),
    ],
)
async def test_a_failed_task_says_why(
    provider: Makevid, makevid: MakevidServer, request_: ClipRequest, reason: str, cause: Cause
) -> None:
    """A failure ends the job, as moderation where it says so; whether it was charged nobody says."""
    makevid.fail_with, makevid.polls_until_done = reason, 0
    task = (await provider.submit(request_)).task

    assert await provider.check(task) == Broke(cause, charged=None)


@pytest.mark.parametrize(
    ("task", "body", "outcome"),
    [
        pytest.param(
            "luma:l",
            {
                "state": "completed",
                "video_raw": {"url": LINK},
                "video": {"download_url": "https://b.invalid"},
            },
            Ready(LINK),
            id="luma without watermark first",
        ),
        pytest.param(
            "luma:l",
            {
                "state": "completed",
                "video_raw": None,
                "video": {"url": "https://b.invalid", "download_url": LINK},
            },
            Ready(LINK),
            id="luma download link second",
        ),
        pytest.param(
            "luma:l", {"state": "completed", "video": {"url": LINK}}, Ready(LINK), id="luma watermark last"
        ),
        pytest.param("luma:l", {"state": "pending"}, StillRendering(queued=True), id="luma pending"),
        pytest.param("luma:l", {"state": "dreaming"}, StillRendering(queued=False), id="luma dreaming"),
        pytest.param(
            "runway:r",
            {"task": {"status": "THROTTLED", "progressRatio": None}},
            StillRendering(queued=True),
            id="runway throttled",
        ),
        pytest.param(
            "runway:r",
            {"task": {"status": "RUNNING", "progressRatio": "0.25"}},
            StillRendering(progress=0.25, queued=False),
            id="runway progress is text",
        ),
        pytest.param(
            "runway:r",
            {"task": {"status": "RUNNING", "progressRatio": "NaN"}},
            StillRendering(queued=False),
            id="runway nonsense progress",
        ),
        pytest.param("runway:r", {"task": {"status": "CANCELLED"}}, Broke(Cause.BROKEN), id="cancelled"),
        pytest.param(
            "text2video:k",
            {"task_id": "k", "status": "completed", "url": LINK},
            Ready(LINK),
            id="flat gateway",
        ),
        pytest.param(
            "text2video:k",
            {"task_id": "k", "status": "completed", "metadata": {"url": LINK}},
            Ready(LINK),
            id="flat gateway, metadata",
        ),
        pytest.param(
            "text2video:k",
            {"task_id": "k", "status": "in_progress"},
            StillRendering(queued=False),
            id="flat gateway, running",
        ),
        pytest.param(
            "text2video:k",
            {"code": "success", "data": {"task_id": "k", "status": "IN_PROGRESS", "progress": "30%"}},
            StillRendering(progress=0.3, queued=False),
            id="nested gateway, running",
        ),
        pytest.param(
            "text2video:k",
            {
                "code": "success",
                "data": {
                    "task_id": "k",
                    "status": "SUCCESS",
                    "data": {"code": 0, "data": {"task_result": {"videos": [{"url": LINK}]}}},
                },
            },
            Ready(LINK),
            id="nested gateway, done",
        ),
        pytest.param(
            "image2video:k",
            {"code": 0, "data": {"task_id": "k", "task_status": "succeed", "task_result": {"videos": []}}},
            StillRendering(),
            id="kling without videos",
        ),
        pytest.param(
            "image2video:k",
            {
                "code": 0,
                "data": {"task_status": "succeed", "task_result": {"videos": [{"url": "javascript:1"}]}},
            },
            StillRendering(),
            id="not a link",
        ),
    ],
)
async def test_what_the_envelopes_say(
    http: aiohttp.ClientSession, task: str, body: object, outcome: object
) -> None:
    """Three envelopes of the gateway and two of its relatives, read alike."""
    async with gateway(http, body) as provider:
        assert await provider.check(task) == outcome


@pytest.mark.parametrize("request_", SYSTEMS)
@pytest.mark.parametrize(
    ("fault", "kind", "cause"),
    [
        ("401", ProviderRejected, Cause.BAD_KEY),
        ("404", ProviderRejected, Cause.BROKEN),
        ("429", ProviderBusy, Cause.BUSY),
        ("500", ProviderUnsure, Cause.NO_ANSWER),
        ("503", ProviderUnsure, Cause.NO_ANSWER),
        ("html", ProviderUnsure, Cause.UNREADABLE),
        ("never", ProviderUnsure, Cause.NO_ANSWER),
    ],
)
async def test_a_poll_without_an_answer_is_not_a_failed_clip(
    http: aiohttp.ClientSession,
    makevid: MakevidServer,
    request_: ClipRequest,
    fault: str,
    kind: type[ProviderError],
    cause: Cause,
) -> None:
    """A poll that goes wrong is an error of the question; the next one gets the clip."""
    provider = adapter(http, makevid, request_timeout=0.5 if fault == "never" else 20)
    makevid.polls_until_done = 1
    task = (await provider.submit(request_)).task
    await provider.check(task)
    makevid.next_poll = fault

    with pytest.raises(ProviderError) as caught:
        await provider.check(task)

    assert (type(caught.value), caught.value.cause) == (kind, cause)
    assert isinstance(await provider.check(task), Ready)


async def test_a_dropped_poll_is_asked_again_by_itself(provider: Makevid, makevid: MakevidServer) -> None:
    """Polls are free: a reset of a pooled connection is repeated, and nobody notices."""
    task = (await provider.submit(LUMA)).task
    makevid.next_poll = "reset"

    assert isinstance(await provider.check(task), StillRendering)
    assert len(makevid.creates) == 1


@pytest.mark.parametrize("task", ["sora:1", "luma:", "luma", ""])
async def test_a_task_of_another_route_is_refused(
    provider: Makevid, makevid: MakevidServer, task: str
) -> None:
    """Only tasks that this route named can be asked for."""
    with pytest.raises(ProviderRejected):
        await provider.check(task)

    assert not makevid.calls


# Where Kling's results are


@pytest.mark.parametrize("wrong", ["404", "405", "html"])
@pytest.mark.parametrize(
    ("existing", "asked"),
    [
        (1, {f"{KLING_IMAGE}/get_kling/{{id}}": 2}),
        (2, {f"{KLING_IMAGE}/get_kling/ID": 1, f"{KLING_IMAGE}/{{id}}": 2}),
        (3, {f"{KLING_IMAGE}/get_kling/ID": 1, f"{KLING_IMAGE}/ID": 1, "/api/v1/get_kling/{id}": 2}),
    ],
)
async def test_the_result_path_is_found_once_and_kept(
    provider: Makevid, makevid: MakevidServer, existing: int, asked: dict[str, int], wrong: str
) -> None:
    """Likely paths are tried in order, once each; the one that tells of the task is asked from then on."""
    makevid.result_path, makevid.wrong_paths = existing, wrong
    task = (await provider.submit(FROM_PICTURE)).task
    task_id = task.partition(":")[2]

    outcomes = [await provider.check(task), await provider.check(task)]

    assert [type(outcome) for outcome in outcomes] == [StillRendering, Ready]
    gets = {path.removeprefix("GET "): n for path, n in makevid.calls.items() if path.startswith("GET")}
    assert gets == {path.replace("ID", task_id): n for path, n in asked.items()}


async def test_each_family_finds_its_own_path(provider: Makevid, makevid: MakevidServer) -> None:
    """What is known of clips from pictures says nothing of clips from words."""
    makevid.result_path = 2
    for request in (FROM_PICTURE, FROM_WORDS):
        await provider.check((await provider.submit(request)).task)

    assert makevid.calls[f"GET {KLING_IMAGE}/{{id}}"] == 1
    assert makevid.calls[f"GET {KLING_TEXT}/{{id}}"] == 1


@pytest.mark.parametrize("fault", ["401", "429"])
async def test_a_refusal_ends_the_search(provider: Makevid, makevid: MakevidServer, fault: str) -> None:
    """A bad key or too many calls is no reason to ask at more addresses."""
    task = (await provider.submit(FROM_PICTURE)).task
    makevid.next_poll = fault

    with pytest.raises(ProviderError):
        await provider.check(task)

    assert sum(n for path, n in makevid.calls.items() if path.startswith("GET")) == 1


async def test_a_path_that_no_candidate_knows(
    provider: Makevid, makevid: MakevidServer, http: aiohttp.ClientSession
) -> None:
    """When every candidate is wrong the poll fails, and the owner can set the right path."""
    makevid.result_path = 3
    task = (await provider.submit(FROM_PICTURE)).task
    narrow = adapter(http, makevid, kling_image_result_paths=(f"{KLING_IMAGE}/a/{{id}}", "/b/{id}"))
    with pytest.raises(ProviderRejected) as caught:
        await narrow.check(task)
    assert caught.value.cause is Cause.BROKEN

    taught = adapter(http, makevid, kling_image_result_paths=("/api/v1/get_kling/{id}",))

    assert isinstance(await taught.check(task), StillRendering)


@pytest.mark.parametrize("ids", ["a/b?c=d#e%2F{n}", "../{n}", "ö {n}", "-_~.{n}"])
@pytest.mark.parametrize("request_", SYSTEMS)
async def test_ids_are_opaque(
    provider: Makevid, makevid: MakevidServer, request_: ClipRequest, ids: str
) -> None:
    """Whatever characters an id has, it comes back to the gateway as it was."""
    makevid.ids = ids
    task = (await provider.submit(request_)).task

    assert isinstance(await provider.check(task), StillRendering)


# Fetching


async def test_an_expired_link_is_gone_and_a_poll_gives_a_fresh_one(
    provider: Makevid, makevid: MakevidServer, tmp_path: Path, clip: bytes
) -> None:
    """Links are short-lived: an expired one says CLIP_GONE, shows no signature, and asking again helps."""
    makevid.polls_until_done = 0
    task = (await provider.submit(FROM_PICTURE)).task
    old = await provider.check(task)
    assert isinstance(old, Ready)
    makevid.expire_links()
    with pytest.raises(ProviderRejected) as caught:
        await provider.fetch(old.clip_url, tmp_path / "clip.mp4")
    assert caught.value.cause is Cause.CLIP_GONE
    assert "Signature" not in str(caught.value)

    fresh = await provider.check(task)
    assert isinstance(fresh, Ready)
    await provider.fetch(fresh.clip_url, tmp_path / "clip.mp4")

    assert (tmp_path / "clip.mp4").read_bytes() == clip


async def test_the_largest_clip_is_a_setting(
    http: aiohttp.ClientSession, makevid: MakevidServer, tmp_path: Path
) -> None:
    """A clip larger than the owner allows is not stored."""
    provider = adapter(http, makevid, clip_max_bytes=100)

    with pytest.raises(ProviderRejected) as caught:
        await provider.fetch(f"{makevid.base_url}/clips/1.mp4", tmp_path / "clip.mp4")

    assert caught.value.cause is Cause.CLIP_TOO_LARGE


async def test_clips_come_from_public_addresses_unless_told_otherwise(
    http: aiohttp.ClientSession, makevid: MakevidServer, tmp_path: Path
) -> None:
    """A gateway that names an address in our own network gets nothing fetched."""
    settings = MakevidSettings(api_key=SecretStr("test-key"), base_url=makevid.base_url)
    provider = Makevid(http=http, settings=settings)

    with pytest.raises(ProviderRejected) as caught:
        await provider.fetch(f"{makevid.base_url}/clips/1.mp4", tmp_path / "clip.mp4")

    assert caught.value.cause is Cause.CLIP_UNUSABLE
    assert not makevid.calls


# Capabilities and settings


def test_what_the_models_can_do(provider: Makevid) -> None:
    """Three models; the limits are those of the documentation."""
    kling, luma, runway = (provider.variants[name] for name in ("kling", "luma", "runway"))

    assert (kling.seconds, kling.negative_prompt, kling.strength) == ((5, 10), 200, (0.0, 1.0))
    assert (kling.text_only, kling.end_picture, kling.by_link) == (True, True, False)
    assert (luma.seconds, luma.by_link, luma.prompt_required, luma.text_only) == ((5,), True, True, True)
    assert (runway.seconds, runway.by_link, runway.text_only) == ((5, 10), True, False)


def test_settings_have_the_documented_addresses() -> None:
    """A key is all that has to be set, and it does not show."""
    settings = MakevidSettings(api_key=SecretStr(" k3y "))

    assert settings.base_url == "https://makevid.ai"
    assert settings.api_key.get_secret_value() == "k3y"
    assert "k3y" not in repr(settings)


@pytest.mark.parametrize("name", MakevidSettings.model_fields)
def test_every_setting_is_described(name: str) -> None:
    """Each key says what it is, and all but the key itself have a default."""
    field = MakevidSettings.model_fields[name]

    assert field.description
    assert field.is_required() == (name == "api_key")


@pytest.mark.parametrize(
    "wrong",
    [
        {"api_key": ""},
        {"api_key": "two words"},
        {"api_key": "line\nbreak"},
        {"base_url": "http://makevid.ai"},
        {"base_url": "makevid.ai"},
        {"base_url": "https://"},
        {"base_url": "https://makevid.ai/?x=1"},
        {"base_url": "https://user:pass@makevid.ai"},
        {"luma_create_path": "api/v1"},
        {"luma_create_path": "/api?x=1"},
        {"luma_result_path": "/api/v1/get_luma"},
        {"kling_image_result_paths": ()},
        {"kling_image_result_paths": ("/x",)},
        {"request_timeout": 0},
        {"clip_max_bytes": 0},
        {"basse_url": "https://makevid.ai"},
    ],
)
def test_wrong_settings_are_refused(wrong: dict[str, Any]) -> None:
    """A wrong value is found at start, and the message does not repeat it."""
    with pytest.raises(ValidationError) as caught:
        MakevidSettings(**{"api_key": "k3y-s3cret", **wrong})

    assert "k3y-s3cret" not in str(caught.value)
    assert "line" not in str(caught.value)


@pytest.mark.parametrize("url", ["http://127.0.0.1:8080", "http://localhost/", "http://[::1]:1/gateway/"])
def test_plain_http_is_for_this_machine(url: str) -> None:
    """Without TLS only loopback is allowed, for a proxy or a test; a trailing slash does not matter."""
    assert MakevidSettings(api_key=SecretStr("k"), base_url=url).base_url == url.rstrip("/")


# Trying the key


@pytest.mark.parametrize(
    ("fault", "kind", "cause"),
    [
        ("html", ProviderUnsure, Cause.UNREADABLE),
        ("500", ProviderUnsure, Cause.NO_ANSWER),
        ("401", ProviderRejected, Cause.BAD_KEY),
        ("402", ProviderRejected, Cause.NO_CREDIT),
        ("403", ProviderRejected, Cause.NOT_ALLOWED),
        ("429", ProviderBusy, Cause.BUSY),
        ("code:1002", ProviderRejected, Cause.BAD_KEY),
        ("code:1102", ProviderRejected, Cause.NO_CREDIT),
    ],
)
async def test_a_probe_tells_what_is_wrong(
    provider: Makevid, makevid: MakevidServer, fault: str, kind: type[ProviderError], cause: Cause
) -> None:
    """A gateway that is gone may still answer 200, with somebody's page."""
    makevid.next_poll = fault

    with pytest.raises(ProviderError) as caught:
        await provider.probe()

    assert (type(caught.value), caught.value.cause) == (kind, cause)


@pytest.mark.parametrize("fault", [None, "400", "404"])
async def test_a_good_key_is_told_that_there_is_no_such_clip(
    provider: Makevid, makevid: MakevidServer, fault: str | None
) -> None:
    """Nothing is created for it."""
    makevid.next_poll = fault

    await provider.probe()

    assert makevid.creates == []
    assert makevid.calls == {"GET /api/v1/get_luma/{id}": 1}
