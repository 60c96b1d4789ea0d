"""Luma's two routes against loopback servers that refuse what the documentation refuses.

What every route owes the engine is in the contract; here is what only Luma has.
"""

import base64
import itertools
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from pydantic import SecretStr, ValidationError

from bot.errors import Cause, ProviderBusy, ProviderRejected, ProviderUnsure, Refusal
from bot.jobs.desk import Ask, check
from bot.jobs.machine import Accepted, Broke, Ready, StillRendering
from bot.jobs.models import Menu, Model, listed_cents
from bot.providers.base import Balance, ClipRequest
from bot.providers.luma import MOST_PAGES, PAGE, Luma, LumaAgents, LumaAgentsSettings, LumaSettings
from tests.providers.conftest import picture
from tests.servers.luma import DreamMachineServer, LumaAgentsServer

END = picture(400, 300, kind="JPEG", link="https://cdn.invalid/b.jpg?ex=2")
RAY_2 = ClipRequest(reference="01job-1", variant="ray-2", prompt="waves", seconds=5, picture=picture())
WORDS = ClipRequest(reference="01job-1", variant="ray-2", prompt="a fox runs", seconds=9)
RAY_3 = replace(RAY_2, variant="ray-3.2")
CALLBACK = "https://clips.invalid/callbacks/luma/01job-1/0123456789abcdef"


@pytest.fixture
async def dream_machine(clip: bytes) -> AsyncIterator[DreamMachineServer]:
    async with DreamMachineServer(clip=clip) as server:
        yield server


@pytest.fixture
async def agents_server(clip: bytes) -> AsyncIterator[LumaAgentsServer]:
    async with LumaAgentsServer(clip=clip) as server:
        yield server


def luma_at(http: aiohttp.ClientSession, server: DreamMachineServer, **settings: Any) -> Luma:
    return Luma(
        http=http,
        settings=LumaSettings(api_key=SecretStr(server.api_key), base_url=server.base_url, **settings),
        allow_private_addresses=True,
    )


@pytest.fixture
def luma(http: aiohttp.ClientSession, dream_machine: DreamMachineServer) -> Luma:
    return luma_at(http, dream_machine)


@pytest.fixture
def agents(http: aiohttp.ClientSession, agents_server: LumaAgentsServer) -> LumaAgents:
    return LumaAgents(
        http=http,
        settings=LumaAgentsSettings(
            api_key=SecretStr(agents_server.api_key), base_url=agents_server.base_url
        ),
        allow_private_addresses=True,
    )


def base64_of(shown: Any) -> dict[str, str]:
    return {"data": base64.b64encode(shown.data).decode(), "media_type": shown.media_type}


async def failed(server: Any, provider: Luma | LumaAgents, request: ClipRequest) -> Broke:
    server.polls_until_done = 0
    accepted = await provider.submit(request)
    outcome = await provider.check(accepted.task)
    assert isinstance(outcome, Broke)
    return outcome


# Dream Machine: what is sent


async def test_dream_machine_gets_links_as_keyframes(luma: Luma, dream_machine: DreamMachineServer) -> None:
    """The first picture is frame0 and the last is frame1, by the card's signed links; no bytes go out."""
    request = replace(RAY_2, quality="1080p", camera="slide left", end_picture=END, callback=CALLBACK)

    accepted = await luma.submit(request)

    assert dream_machine.creates[0].body == {
        "model": "ray-2",
        "duration": "5s",
        "prompt": "waves",
        "aspect_ratio": "1:1",
        "resolution": "1080p",
        "concepts": [{"key": "truck_left"}],
        "keyframes": {
            "frame0": {"type": "image", "url": "https://cdn.invalid/a.png?ex=1"},
            "frame1": {"type": "image", "url": "https://cdn.invalid/b.jpg?ex=2"},
        },
        "callback_url": CALLBACK,
    }
    assert list(dream_machine.tasks) == [accepted.task]


async def test_dream_machine_leaves_out_what_was_not_chosen(
    luma: Luma, dream_machine: DreamMachineServer
) -> None:
    """A picture needs no words, and words need no picture."""
    await luma.submit(replace(RAY_2, prompt=""))
    await luma.submit(replace(WORDS, loop=True, ratio="9:21"))

    first, second = (create.body for create in dream_machine.creates)
    assert first.keys() == {"model", "duration", "aspect_ratio", "keyframes"}
    assert second == {
        "model": "ray-2",
        "duration": "9s",
        "prompt": "a fox runs",
        "aspect_ratio": "9:21",
        "loop": True,
    }


@pytest.mark.parametrize(
    ("width", "height", "ratio"), [(1920, 1080, "16:9"), (900, 2000, "9:21"), (700, 900, "3:4"), (0, 0, None)]
)
async def test_the_nearest_shape_goes_with_a_picture(
    luma: Luma, dream_machine: DreamMachineServer, width: int, height: int, ratio: str | None
) -> None:
    """Else 16:9 would be meant, which a portrait must not become where the field counts."""
    await luma.submit(replace(RAY_2, picture=replace(picture(), width=width, height=height)))

    assert dream_machine.creates[0].body.get("aspect_ratio") == ratio


async def test_all_that_dream_machine_is_offered_with_is_taken(
    luma: Luma, dream_machine: DreamMachineServer
) -> None:
    """Every value that members may choose is one that the documentation knows."""
    for variant, can in luma.variants.items():
        choices = itertools.zip_longest(can.seconds, can.qualities, can.ratios, can.cameras)
        for seconds, quality, ratio, camera in choices:
            await luma.submit(
                replace(
                    WORDS,
                    variant=variant,
                    seconds=seconds or can.seconds[0],
                    quality=quality,
                    ratio=ratio,
                    camera=camera,
                    loop=can.loop,
                )
            )
        await luma.submit(replace(WORDS, variant=variant, prompt="x" * can.prompt_length))

    assert {task.body["model"] for task in dream_machine.tasks.values()} == {"ray-2", "ray-flash-2"}
    keys = [
        task.body["concepts"][0]["key"] for task in dream_machine.tasks.values() if "concepts" in task.body
    ]
    assert len(set(keys)) == len(luma.variants["ray-2"].cameras) <= 25


async def test_the_create_path_can_be_changed(
    http: aiohttp.ClientSession, dream_machine: DreamMachineServer
) -> None:
    """SDK and documentation do not agree on it: a wrong one is found at once, and costs nothing."""
    with pytest.raises(ProviderRejected) as caught:
        await luma_at(http, dream_machine, create_path="/generations").submit(RAY_2)

    assert caught.value.cause is Cause.BROKEN
    assert dream_machine.calls == {"POST /dream-machine/v1/generations": 1}


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(replace(RAY_2, picture=picture(link=None)), id="picture without link"),
        pytest.param(replace(RAY_2, end_picture=picture(link=None)), id="end picture without link"),
        pytest.param(replace(WORDS, prompt=""), id="nothing to start from"),
        pytest.param(replace(WORDS, camera="somersault"), id="unknown camera"),
        pytest.param(RAY_3, id="model of the other API"),
    ],
)
async def test_what_dream_machine_cannot_be_told_is_not_sent(
    luma: Luma, dream_machine: DreamMachineServer, request_: ClipRequest
) -> None:
    """A request that there is no way to say is refused before anything is paid."""
    with pytest.raises(ProviderRejected) as caught:
        await luma.submit(request_)

    assert caught.value.cause is Cause.BAD_INPUT
    assert dream_machine.creates == []


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(replace(WORDS, prompt="hi"), id="prompt too short"),
        pytest.param(replace(WORDS, prompt="x" * 5001), id="prompt too long"),
        pytest.param(replace(RAY_2, loop=True, end_picture=END), id="loop with an end"),
        pytest.param(replace(WORDS, seconds=10), id="seconds"),
        pytest.param(replace(WORDS, quality="360p"), id="quality"),
        pytest.param(replace(WORDS, ratio="2:1"), id="ratio"),
    ],
)
async def test_what_dream_machine_refuses_is_bad_input(
    luma: Luma, dream_machine: DreamMachineServer, request_: ClipRequest
) -> None:
    """A documented refusal costs nothing and blames the input."""
    with pytest.raises(ProviderRejected) as caught:
        await luma.submit(request_)

    assert caught.value.cause is Cause.BAD_INPUT
    assert (len(dream_machine.creates), len(dream_machine.tasks)) == (1, 0)


# Both: what an answer means


@pytest.mark.parametrize(
    ("status", "words", "cause"),
    [
        (400, "Advanced prompt moderation failed", Cause.MODERATION),
        (400, "Contains blacklisted words", Cause.MODERATION),
        (422, "The input violates the content policy", Cause.MODERATION),
        (400, "Insufficient credits", Cause.NO_CREDIT),
        (403, "Not enough funds", Cause.NO_CREDIT),
        (402, "Insufficient balance", Cause.NO_CREDIT),
        (400, "Invalid API key is provided", Cause.BAD_KEY),
        (403, "Not authenticated", Cause.BAD_KEY),
        (403, "Access denied", Cause.NOT_ALLOWED),
        (400, "Prompt is too short", Cause.BAD_INPUT),
        (413, "Image exceeds 50 MB", Cause.BAD_INPUT),
        (404, "Not Found", Cause.BROKEN),
    ],
)
async def test_a_refusal_is_understood_by_status_and_words(
    luma: Luma, dream_machine: DreamMachineServer, status: int, words: str, cause: Cause
) -> None:
    """Dream Machine documents the sentences and not the statuses, so both count."""
    dream_machine.next_create = f"detail:{status}:{words}"

    with pytest.raises(ProviderRejected) as caught:
        await luma.submit(RAY_2)

    assert caught.value.cause is cause


@pytest.mark.parametrize("words", ["Rate limit exceeded", "Too many concurrent jobs"])
async def test_both_limits_of_agents_are_busy(
    agents: LumaAgents, agents_server: LumaAgentsServer, words: str
) -> None:
    """Too many a minute and too many at once are one thing: later."""
    agents_server.next_create, agents_server.retry_after = f"detail:429:{words}", "7"

    with pytest.raises(ProviderBusy) as caught:
        await agents.submit(RAY_3)

    assert caught.value.retry_after is not None
    assert caught.value.retry_after.total_seconds() == 7


@pytest.mark.parametrize("status", ["408", "409", "500", "502", "503"])
async def test_what_does_not_prove_a_refusal_is_unsure(
    agents: LumaAgents, agents_server: LumaAgentsServer, status: str
) -> None:
    """Luma advises to retry 502 and 503; its own SDK also retries 408 and 409, and may pay twice."""
    agents_server.next_create = status

    with pytest.raises(ProviderUnsure):
        await agents.submit(RAY_3)

    assert len(agents_server.creates) == 1


async def test_a_list_of_mistakes_is_read_without_what_the_member_wrote(
    luma: Luma, dream_machine: DreamMachineServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Validation errors repeat the input: a prompt about moderation is not thereby moderated."""
    mistakes = [{"loc": ["prompt"], "msg": "String too short", "input": "moderation"}, "odd", {"msg": 3}]
    monkeypatch.setattr(
        dream_machine, "_error", lambda status, _: dream_machine._answer({"detail": mistakes}, status=status)
    )
    dream_machine.next_create = "422"

    with pytest.raises(ProviderRejected) as caught:
        await luma.submit(RAY_2)

    assert caught.value.cause is Cause.BAD_INPUT


async def test_what_luma_repeats_of_the_request_stays_out_of_the_logs(
    luma: Luma, dream_machine: DreamMachineServer
) -> None:
    """The callback's secret is in its path, and the answer carries it back."""
    dream_machine.next_create = "no_id"

    with pytest.raises(ProviderUnsure) as caught:
        await luma.submit(replace(RAY_2, callback=CALLBACK))

    assert "https://clips.invalid/…" in caught.value.detail
    assert "0123456789abcdef" not in caught.value.detail
    assert "a.png" not in caught.value.detail


@pytest.mark.parametrize(
    ("word", "outcome"),
    [
        ("queued", StillRendering(queued=True)),
        ("dreaming", StillRendering(queued=False)),
        ("processing", StillRendering(queued=False)),
        ("QUEUED", StillRendering(queued=True)),
        ("reticulating", StillRendering()),
    ],
)
async def test_the_words_of_both_apis(
    luma: Luma, dream_machine: DreamMachineServer, word: str, outcome: StillRendering
) -> None:
    """One says dreaming where the other says processing."""
    accepted = await luma.submit(RAY_2)
    dream_machine.running_word = word

    assert await luma.check(accepted.task) == outcome


async def test_a_task_of_any_name_is_asked_for(luma: Luma, dream_machine: DreamMachineServer) -> None:
    """Ids are opaque: one with a slash in it asks no other path."""
    accepted = await luma.submit(RAY_2)
    task = dream_machine.tasks[accepted.task]
    dream_machine.tasks["../credits?a#b"] = task

    assert await luma.check("../credits?a#b") == StillRendering(queued=False)


async def test_a_state_that_is_missing_ends_nothing(luma: Luma, dream_machine: DreamMachineServer) -> None:
    """All fields may be missing, say Luma's own types."""
    accepted = await luma.submit(RAY_2)
    dream_machine.running_word = ""

    with pytest.raises(ProviderUnsure) as caught:
        await luma.check(accepted.task)

    assert caught.value.cause is Cause.UNREADABLE


# Dream Machine: after acceptance


@pytest.mark.parametrize(
    ("reason", "cause"),
    [
        ("Contains blacklisted words", Cause.MODERATION),
        ("Frame moderation failed", Cause.MODERATION),
        ("Advanced prompt moderation failed", Cause.MODERATION),
        ("Failed to read user input frames", Cause.BAD_INPUT),
        ("Prompt processing failed", Cause.BROKEN),
        ("Job error", Cause.BROKEN),
        ("", Cause.BROKEN),
    ],
)
async def test_why_dream_machine_failed(
    luma: Luma, dream_machine: DreamMachineServer, reason: str, cause: Cause
) -> None:
    """Whatever the reason, the credits come back in full."""
    dream_machine.fail_with = reason

    assert await failed(dream_machine, luma, RAY_2) == Broke(cause, charged=False)


# Dream Machine: looking a lost answer up


async def test_the_callback_goes_before_the_tag(
    http: aiohttp.ClientSession, dream_machine: DreamMachineServer
) -> None:
    """One address for a clip; without either none is sent."""
    tagged = luma_at(http, dream_machine, tag_url="https://animatic.invalid/")
    await tagged.submit(replace(RAY_2, callback=CALLBACK))
    await tagged.submit(RAY_2)
    await luma_at(http, dream_machine).submit(RAY_2)

    sent = [create.body.get("callback_url") for create in dream_machine.creates]
    assert sent == [CALLBACK, "https://animatic.invalid/01job-1", None]


def generation(number: int) -> dict[str, Any]:
    return {"id": f"other-{number}", "state": "completed", "request": {"prompt": "x", "callback_url": None}}


async def test_a_clip_is_found_behind_many_others(luma: Luma, dream_machine: DreamMachineServer) -> None:
    """The account may be busy with other things; an answer may hold fewer than were asked for."""
    accepted = await luma.submit(replace(RAY_2, callback=CALLBACK))
    dream_machine.others = [generation(number) for number in range(PAGE + 1)]
    dream_machine.most_listed = 20

    assert await luma.find("01job-1") == Accepted(accepted.task)
    assert dream_machine.calls["GET /generations"] == 3


async def test_a_list_that_does_not_say_more_is_read_on_while_it_is_full(
    luma: Luma, dream_machine: DreamMachineServer
) -> None:
    """`has_more` may be missing, like every field."""
    accepted = await luma.submit(replace(RAY_2, callback=CALLBACK))
    dream_machine.others = [generation(number) for number in range(PAGE)]
    dream_machine.tells_more = False

    assert await luma.find("01job-1") == Accepted(accepted.task)


@pytest.mark.parametrize("reference", ["01job-11", "01job", "1", "0123456789abcdeff", "luma-1"])
async def test_only_the_whole_reference_is_found(
    luma: Luma, dream_machine: DreamMachineServer, reference: str
) -> None:
    """Attempt 11 is not attempt 1: a clip taken for another's would be delivered to the wrong person."""
    await luma.submit(replace(RAY_2, callback=CALLBACK))

    with pytest.raises(ProviderUnsure):
        await luma.find(reference)


async def test_looking_up_ends(luma: Luma, dream_machine: DreamMachineServer) -> None:
    """An account of any size is read only so far; and nothing found is no proof of absence."""
    dream_machine.others = [generation(number) for number in range(PAGE * (MOST_PAGES + 5))]

    with pytest.raises(ProviderUnsure):
        await luma.find("01job-1")

    assert dream_machine.calls["GET /generations"] == MOST_PAGES


@pytest.mark.parametrize(
    "answer",
    [
        {},
        [],
        {"generations": None},
        {"generations": []},
        {"generations": [None, "x", {"id": 5}, {"request": None}], "has_more": "yes"},
        {"generations": [{"id": None, "request": {"callback_url": CALLBACK}}]},
        {"generations": [{"id": "a", "request": {"callback_url": "https://[broken/01job-1"}}]},
    ],
)
async def test_an_odd_list_is_no_answer(luma: Luma, dream_machine: DreamMachineServer, answer: Any) -> None:
    """What cannot be read finds nothing, and breaks nothing."""
    dream_machine.list_is = answer

    with pytest.raises(ProviderUnsure):
        await luma.find("01job-1")


# Dream Machine: callbacks and balance


@pytest.mark.parametrize(
    "body",
    [b"", b"null", b"[]", b'"id"', b'{"id": 7}', b'{"id": ""}', b'{"state": "completed"}', b"[" * 50_000],
)
async def test_a_callback_that_names_no_task_says_nothing(luma: Luma, body: bytes) -> None:
    """Whatever arrives at the address, it is only read for an id."""
    assert luma.hear({}, body) is None


@pytest.mark.parametrize(
    ("cents", "left"), [(12345.6, Balance(amount=123.46, unit="$")), (7, Balance(amount=0.07, unit="$"))]
)
async def test_the_balance_is_in_cents(
    luma: Luma, dream_machine: DreamMachineServer, cents: float, left: Balance
) -> None:
    """`credit_balance: 500` is five dollars."""
    dream_machine.credit_balance = cents

    assert await luma.probe() == left
    assert dream_machine.creates == []


@pytest.mark.parametrize("balance", [0, -3.5])
async def test_an_empty_account_is_said_to_be_empty(
    luma: Luma, dream_machine: DreamMachineServer, balance: float
) -> None:
    """The next create would be refused for it."""
    dream_machine.credit_balance = balance

    with pytest.raises(ProviderRejected) as caught:
        await luma.probe()

    assert caught.value.cause is Cause.NO_CREDIT


@pytest.mark.parametrize("balance", [None, "12", True])
async def test_a_balance_that_is_no_number_is_no_answer(
    luma: Luma, dream_machine: DreamMachineServer, balance: object
) -> None:
    """Neither empty nor full."""
    dream_machine.credit_balance = balance

    with pytest.raises(ProviderUnsure) as caught:
        await luma.probe()

    assert caught.value.cause is Cause.UNREADABLE


# Agents


async def test_agents_gets_bytes_with_their_type(agents: LumaAgents, agents_server: LumaAgentsServer) -> None:
    """At 5 s the pictures are start_frame and end_frame; base64 without a prefix."""
    await agents.submit(replace(RAY_3, quality="540p", end_picture=END))

    assert RAY_3.picture
    assert agents_server.creates[0].body == {
        "model": "ray-3.2",
        "type": "video",
        "prompt": "waves",
        "aspect_ratio": "1:1",
        "video": {
            "duration": "5s",
            "resolution": "540p",
            "start_frame": base64_of(RAY_3.picture),
            "end_frame": base64_of(END),
        },
    }


@pytest.mark.parametrize(("end", "places"), [(None, [0]), (END, [0, 240])])
async def test_at_10_s_pictures_are_keyframes(
    agents: LumaAgents, agents_server: LumaAgentsServer, end: Any, places: list[int]
) -> None:
    """start_frame and end_frame are refused there; the ends of the grid say the same."""
    await agents.submit(replace(RAY_3, seconds=10, end_picture=end))

    pictures = [shown for shown in (RAY_3.picture, end) if shown]
    assert agents_server.creates[0].body["video"] == {
        "duration": "10s",
        "keyframes": [base64_of(shown) for shown in pictures],
        "keyframe_indexes": places,
    }


async def test_agents_from_words(agents: LumaAgents, agents_server: LumaAgentsServer) -> None:
    """Words alone, with a shape."""
    await agents.submit(replace(WORDS, variant="ray-3.2", seconds=5, ratio="21:9", loop=True))

    assert agents_server.creates[0].body == {
        "model": "ray-3.2",
        "type": "video",
        "prompt": "a fox runs",
        "aspect_ratio": "21:9",
        "video": {"duration": "5s", "loop": True},
    }


async def test_all_that_agents_is_offered_with_is_taken(
    agents: LumaAgents, agents_server: LumaAgentsServer
) -> None:
    """Every length with every quality, from words and from a picture; and every shape."""
    can = agents.variants["ray-3.2"]
    for seconds, quality, first in itertools.product(can.seconds, can.qualities, (None, picture())):
        await agents.submit(replace(RAY_3, seconds=seconds, quality=quality, picture=first))
    for ratio in can.ratios:
        await agents.submit(replace(WORDS, variant="ray-3.2", seconds=10, ratio=ratio))
    await agents.submit(replace(RAY_3, prompt="x" * can.prompt_length, loop=True))

    assert len(agents_server.tasks) == len(agents_server.creates) == 16 + 6 + 1


async def test_a_very_tall_picture_gets_the_tallest_shape_there_is(
    agents: LumaAgents, agents_server: LumaAgentsServer
) -> None:
    """Agents has no 9:21."""
    await agents.submit(replace(RAY_3, picture=picture(90, 210)))

    assert agents_server.creates[0].body["aspect_ratio"] == "9:16"


@pytest.mark.parametrize("request_", [replace(RAY_3, prompt=""), RAY_2])
async def test_what_agents_cannot_be_told_is_not_sent(
    agents: LumaAgents, agents_server: LumaAgentsServer, request_: ClipRequest
) -> None:
    """Words are required there, and the model of the other API is not known."""
    with pytest.raises(ProviderRejected) as caught:
        await agents.submit(request_)

    assert caught.value.cause is Cause.BAD_INPUT
    assert agents_server.creates == []


@pytest.mark.parametrize(
    "request_",
    [
        pytest.param(replace(RAY_3, loop=True, end_picture=END), id="loop with an end"),
        pytest.param(replace(RAY_3, loop=True, seconds=10), id="loop at 10 s"),
        pytest.param(replace(RAY_3, quality="4k"), id="quality"),
        pytest.param(replace(RAY_3, picture=replace(picture(), media_type="image/jpeg")), id="wrong type"),
    ],
)
async def test_what_agents_refuses_is_bad_input(
    agents: LumaAgents, agents_server: LumaAgentsServer, request_: ClipRequest
) -> None:
    """400 and 422 cost nothing and blame the input."""
    with pytest.raises(ProviderRejected) as caught:
        await agents.submit(request_)

    assert caught.value.cause is Cause.BAD_INPUT
    assert agents_server.tasks == {}


@pytest.mark.parametrize(
    ("code", "reason", "cause"),
    [
        ("content_moderated", "no", Cause.MODERATION),
        ("budget_exhausted", "no", Cause.NO_CREDIT),
        ("image_too_large", "no", Cause.BAD_INPUT),
        ("unsupported_format", "no", Cause.BAD_INPUT),
        ("corrupt_input", "no", Cause.BAD_INPUT),
        ("invalid_request", "no", Cause.BAD_INPUT),
        ("generation_failed", "moderation was passed", Cause.BROKEN),
        ("output_not_found", "no", Cause.BROKEN),
        ("rate_limited", "no", Cause.BROKEN),
        ("quite_new", "no", Cause.BROKEN),
        (None, "moderation", Cause.MODERATION),
    ],
)
async def test_why_agents_failed(
    agents: LumaAgents, agents_server: LumaAgentsServer, code: str | None, reason: str, cause: Cause
) -> None:
    """The code decides. Whether it was charged is nowhere said, so nobody claims to know."""
    agents_server.fail_with, agents_server.fail_code = reason, code

    assert await failed(agents_server, agents, RAY_3) == Broke(cause, charged=None)


async def test_every_look_gives_a_fresh_link(
    agents: LumaAgents, agents_server: LumaAgentsServer, tmp_path: Path
) -> None:
    """A link is good for an hour; asking again is how to get another."""
    agents_server.polls_until_done = 0
    accepted = await agents.submit(RAY_3)
    first = await agents.check(accepted.task)
    second = await agents.check(accepted.task)

    assert isinstance(first, Ready)
    assert isinstance(second, Ready)
    assert first.clip_url != second.clip_url
    await agents.fetch(second.clip_url, tmp_path / "clip.mp4")
    assert (tmp_path / "clip.mp4").read_bytes() == agents_server.clip


@pytest.mark.parametrize(
    ("output", "link"),
    [
        ([{"type": "exr", "url": "https://a.invalid/1"}, {"type": "video", "url": "https://a.invalid/2"}], 2),
        ([{"type": "image", "url": "https://a.invalid/1"}], None),
        ([{"type": "video", "url": "file:///etc/passwd"}], None),
        ([{"type": "video"}], None),
        ({"type": "video"}, None),
        ([None, "x"], None),
        ("odd", None),
    ],
)
async def test_only_a_video_with_a_link_is_a_clip(
    agents: LumaAgents, agents_server: LumaAgentsServer, output: Any, link: int | None
) -> None:
    """Success without one is not over: the link comes later."""
    agents_server.polls_until_done, agents_server.output = 0, output
    accepted = await agents.submit(RAY_3)

    expected = Ready(f"https://a.invalid/{link}") if link else StillRendering()
    assert await agents.check(accepted.task) == expected


@pytest.mark.parametrize("fault", [None, "400", "422"])
async def test_a_good_key_is_told_by_a_task_that_is_not_there(
    agents: LumaAgents, agents_server: LumaAgentsServer, fault: str | None
) -> None:
    """Agents has no balance to ask for; the question costs nothing."""
    agents_server.next_poll = fault

    assert await agents.probe() is None  # type: ignore[func-returns-value]
    assert agents_server.calls == {"GET /generations/{id}": 1}
    assert agents_server.creates == []


@pytest.mark.parametrize(
    ("fault", "cause"),
    [
        ("402", Cause.NO_CREDIT),
        ("403", Cause.NOT_ALLOWED),
        ("detail:400:Invalid API key is provided", Cause.BAD_KEY),
        ("405", Cause.BROKEN),
    ],
)
async def test_a_probe_is_refused_as_a_create_would_be(
    agents: LumaAgents, agents_server: LumaAgentsServer, fault: str, cause: Cause
) -> None:
    """The owner reads what to mend."""
    agents_server.next_poll = fault

    with pytest.raises(ProviderRejected) as caught:
        await agents.probe()

    assert caught.value.cause is cause


@pytest.mark.parametrize("at", ["luma", "agents"])
async def test_a_probe_is_not_taken_in_by_a_page(
    luma: Luma,
    agents: LumaAgents,
    dream_machine: DreamMachineServer,
    agents_server: LumaAgentsServer,
    at: str,
) -> None:
    """Somebody else may have the address by now, and answer 200 to everything."""
    dream_machine.next_poll = agents_server.next_poll = "html"

    with pytest.raises(ProviderUnsure) as caught:
        await {"luma": luma, "agents": agents}[at].probe()

    assert caught.value.cause is Cause.UNREADABLE


# What members are offered


@pytest.mark.parametrize(
    ("ask", "refusal"),
    [
        ({"loop": True, "has_end_picture": True}, "loop"),
        ({"ratio": "16:9"}, "shape of your picture"),
        ({"negative_prompt": "blur"}, "negative"),
        ({"sound": True}, "sound"),
    ],
)
@pytest.mark.parametrize("variant", ["ray-2", "ray-3.2"])
async def test_what_luma_cannot_do_is_refused_before_anything_is_queued(
    luma: Luma, agents: LumaAgents, variant: str, ask: dict[str, Any], refusal: str
) -> None:
    """The member reads it at once, with what to leave out."""
    with pytest.raises(Refusal, match=refusal):
        check(Ask(prompt="waves", has_picture=True, **ask), menu(luma, agents, variant))


async def test_a_loop_of_10_s_is_refused_at_once(luma: Luma, agents: LumaAgents) -> None:
    """Agents loops only 5 s; Dream Machine loops 9 s as well."""
    with pytest.raises(Refusal, match="5 seconds"):
        check(Ask(prompt="waves", loop=True, seconds=10), menu(luma, agents, "ray-3.2"))

    assert check(Ask(prompt="waves", loop=True, seconds=9), menu(luma, agents, "ray-2")).loop


@pytest.mark.parametrize(
    ("variant", "seconds", "quality", "cents"),
    [("ray-2", 9, "1080p", 287), ("ray-3.2", 5, "360p", 6), ("ray-3.2", 10, "720p", 90)],
)
def test_a_clip_costs_what_luma_lists(
    luma: Luma, agents: LumaAgents, variant: str, seconds: int, quality: str, cents: int
) -> None:
    """At Agents 10 s cost more than twice 5 s; and nothing on offer looks free because a line is missing."""
    can = {**luma.variants, **agents.variants}[variant]

    assert listed_cents(can, seconds, quality, False) == cents
    for chosen in itertools.product(can.seconds, can.qualities):
        assert listed_cents(can, *chosen, False) > 0


def menu(luma: Luma, agents: LumaAgents, variant: str) -> Menu:
    can = {**luma.variants, **agents.variants}[variant]
    model = Model(name="m", label="Ray", route="r", variant=variant, can=can, price_cents=lambda *_: 0)
    return Menu(models={"m": model}, default="m")


# Settings


@pytest.mark.parametrize(
    "settings",
    [
        {"base_url": "http://api.lumalabs.ai"},
        {"tag_url": "animatic.invalid"},
        {"tag_url": "https://me:secret@animatic.invalid"},
        {"create_path": "generations"},
        {"api_key": SecretStr("two keys")},
    ],
)
def test_settings_that_cannot_work_are_refused(settings: dict[str, Any]) -> None:
    """A mistake is found at start, and repeats no secret."""
    with pytest.raises(ValidationError) as caught:
        LumaSettings(**{"api_key": SecretStr("luma-key"), **settings})

    assert "secret" not in str(caught.value)
