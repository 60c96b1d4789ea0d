"""Runway's own API: what it is sent, against a server that refuses what the documentation refuses."""

import itertools
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import aiohttp
import pytest
from aiohttp import web
from pydantic import SecretStr

from bot.errors import Cause, ProviderBusy, ProviderRejected, ProviderUnsure
from bot.jobs.machine import Broke, StillRendering
from bot.providers.base import Balance, Capabilities, ClipRequest
from bot.providers.runway import Runway, RunwaySettings
from tests.providers.conftest import heavy, picture
from tests.providers.contract import paid
from tests.servers.runway import RunwayServer

FIRST = ClipRequest(
    reference="r-1", variant="gen4.5", prompt="waves", seconds=5, ratio="16:9", picture=picture()
)


@pytest.fixture
async def server(clip: bytes) -> AsyncIterator[RunwayServer]:
    async with RunwayServer(clip=clip) as server:
        yield server


@pytest.fixture
def runway(server: RunwayServer, http: aiohttp.ClientSession) -> Runway:
    settings = RunwaySettings(api_key=SecretStr(server.api_key), base_url=server.base_url)
    return Runway(http=http, settings=settings, allow_private_addresses=True)


def offered() -> Iterator[Any]:
    """Every model, from a picture, two or none, in every quality and shape, at its shortest and longest."""
    settings = RunwaySettings(api_key=SecretStr("key"))
    models = Runway(http=None, settings=settings).variants  # type: ignore[arg-type]  # nothing is asked
    for name, can in models.items():
        for pictures in range(0 if can.text_only else 1, 3 if can.end_picture else 2):
            shapes: tuple[str | None, ...] = (can.shapes if pictures else can.ratios) or (None,)
            for quality, shape in itertools.product(can.qualities or (None,), shapes):
                wish = ClipRequest(
                    reference="r-1",
                    variant=name,
                    prompt="waves",
                    seconds=max(can.seconds) if pictures else min(can.seconds),
                    quality=quality,
                    ratio=shape,
                    negative_prompt="people" if can.negative_prompt else None,
                    strength=0.7 if can.strength else None,
                    sound=can.sound,
                    picture=picture() if pictures else None,
                    end_picture=picture(kind="JPEG") if pictures == 2 else None,
                )
                yield pytest.param(wish, can, id=f"{name}-{pictures}-{quality}-{shape}")


@pytest.mark.parametrize(("wish", "can"), list(offered()))
async def test_everything_that_is_offered_is_taken(
    runway: Runway, server: RunwayServer, wish: ClipRequest, can: Capabilities
) -> None:
    """The documented fields, types and values of each model, and no others."""
    await paid(runway, wish)

    body = server.creates[0].body
    assert server.creates[0].path == ("/v1/image_to_video" if wish.picture else "/v1/text_to_video")
    assert body["model"] == wish.variant
    assert body["duration"] == wish.seconds
    if wish.ratio:
        wanted, made = (
            float.__truediv__(*map(float, ratio.split(":"))) for ratio in (wish.ratio, body["ratio"])
        )
        assert made == pytest.approx(wanted, rel=0.02)
    else:
        assert "ratio" not in body
    assert body.get("audio") == (True if can.sound else None)


async def test_without_words_none_are_sent(runway: Runway, server: RunwayServer) -> None:
    """An empty promptText is refused; gen4_turbo does without."""
    await paid(runway, replace(FIRST, variant="gen4_turbo", prompt=""))

    assert "promptText" not in server.creates[0].body


async def test_silence_is_asked_for(runway: Runway, server: RunwayServer) -> None:
    """Sound costs up to twice as much, and what happens without the field is not documented."""
    await paid(runway, replace(FIRST, variant="veo3.1", seconds=8, quality="1080p"))

    assert server.creates[0].body["audio"] is False
    assert server.creates[0].body["ratio"] == "1920:1080"


@pytest.mark.parametrize(("length", "taken"), [(500, True), (501, False)])
async def test_an_emoji_counts_twice(runway: Runway, server: RunwayServer, length: int, taken: bool) -> None:
    """The limit of 1000 is one of UTF-16 units."""
    wish = replace(FIRST, prompt="🌊" * length)
    if taken:
        await paid(runway, wish)
    else:
        with pytest.raises(ProviderRejected) as caught:
            await paid(runway, wish)
        assert caught.value.cause is Cause.BAD_INPUT


@pytest.mark.parametrize(
    "wish",
    [
        replace(FIRST, variant="gen3a_turbo"),
        replace(FIRST, variant="gen4_turbo", picture=None),
        replace(FIRST, picture=None, ratio="21:9"),
        replace(FIRST, ratio="1:2"),
        replace(FIRST, variant="veo3.1", picture=None, end_picture=picture()),
    ],
    ids=["model", "words", "ratio of words", "ratio", "last alone"],
)
async def test_what_no_model_can_do_is_not_sent(
    runway: Runway, server: RunwayServer, wish: ClipRequest
) -> None:
    """Whatever came through the checks before: nothing is paid for it."""
    for asked in (runway.upload, runway.submit):
        with pytest.raises(ProviderRejected) as caught:
            await asked(wish)
        assert caught.value.cause is Cause.BAD_INPUT

    assert (server.creates, server.calls) == ([], {})


# Pictures


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
async def test_a_small_picture_goes_along(runway: Runway, server: RunwayServer, kind: str) -> None:
    """With the prefix and the right type, without which Runway refuses it."""
    await paid(runway, replace(FIRST, picture=picture(kind=kind)))

    uri = server.creates[0].body["promptImage"]
    assert uri.startswith(f"data:image/{kind.lower()};base64,")
    assert server.uploads == {}


async def test_large_pictures_are_uploaded_first(runway: Runway, server: RunwayServer) -> None:
    """Above 5 MB of text; the form's fields come before the file."""
    first, last = heavy(), heavy(last=2)
    await paid(
        runway, replace(FIRST, variant="veo3.1", seconds=8, quality="720p", picture=first, end_picture=last)
    )

    assert server.creates[0].body["promptImage"] == [
        {"uri": "runway://upload-1", "position": "first"},
        {"uri": "runway://upload-2", "position": "last"},
    ]
    assert [each.data for each in server.uploads.values()] == [first.data, last.data]
    assert {tuple(each.fields) for each in server.uploads.values()} == {("key", "policy")}


async def test_a_picture_that_was_not_uploaded_is_not_sent(runway: Runway, server: RunwayServer) -> None:
    """Runway would refuse it: nothing is asked."""
    with pytest.raises(ProviderRejected) as caught:
        await runway.submit(replace(FIRST, picture=heavy()))

    assert caught.value.cause is Cause.BROKEN
    assert server.creates == []


@pytest.mark.parametrize("status", ["400", "403", "500", "503"])
async def test_an_upload_that_fails_costs_nothing(runway: Runway, server: RunwayServer, status: str) -> None:
    """It comes before the paid call, and says nothing against the route; the next attempt asks for a new form."""
    server.next_upload = status
    wish = replace(FIRST, picture=heavy())
    with pytest.raises(ProviderBusy) as failed:
        await runway.upload(wish)
    assert not failed.value.away
    assert server.creates == []

    await paid(runway, wish)

    assert server.creates[0].body["promptImage"] == "runway://upload-2"


@pytest.mark.parametrize(
    "address",
    ["http://127.0.0.1:9/bucket", "https://10.0.0.1/bucket", "https://localhost:9/bucket", "file:///etc"],
)
async def test_uploads_only_to_the_internet(
    server: RunwayServer, http: aiohttp.ClientSession, address: str
) -> None:
    """A vendor's answer cannot make the bot send to its owner's own network."""
    server.upload_address = address
    settings = RunwaySettings(api_key=SecretStr(server.api_key), base_url=server.base_url)

    with pytest.raises(ProviderRejected) as caught:
        await Runway(http=http, settings=settings).upload(replace(FIRST, picture=heavy()))

    assert caught.value.cause is Cause.BROKEN
    assert server.creates == []


# Answers


@pytest.mark.parametrize("status", ["400", "402", "403", "429"])
async def test_no_credit_is_told_by_its_words(
    runway: Runway, server: RunwayServer, status: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The status of an account without credits is not documented, its words are."""
    text = "You do not have enough credits to run this task."
    monkeypatch.setattr(server, "error", lambda code, _: web.json_response({"error": text}, status=code))
    server.next_create = status

    with pytest.raises(ProviderRejected) as caught:
        await paid(runway, FIRST)

    assert caught.value.cause is Cause.NO_CREDIT


async def test_too_many_in_a_day_wait_for_minutes(runway: Runway, server: RunwayServer) -> None:
    """429 comes without a time, and a quota of a day does not pass in seconds."""
    server.next_create = "429"

    with pytest.raises(ProviderBusy) as caught:
        await paid(runway, FIRST)

    assert caught.value.retry_after == timedelta(minutes=5)


async def test_throttled_is_waiting_and_running_has_progress(runway: Runway, server: RunwayServer) -> None:
    """A task above the account's number is held back, not failed."""
    task = (await paid(runway, FIRST)).task

    server.next_poll = "throttled"
    assert await runway.check(task) == StillRendering(queued=True)
    server.tasks[task].polls = 0
    assert await runway.check(task) == StillRendering(progress=0.42, queued=False)


@pytest.mark.parametrize(
    ("code", "cost", "cause", "charged"),
    [
        ("SAFETY.INPUT.TEXT", True, Cause.MODERATION, True),
        ("SAFETY.OUTPUT.IMAGE", None, Cause.MODERATION, True),
        ("INPUT_PREPROCESSING.SAFETY.TEXT", None, Cause.MODERATION, True),
        ("SAFETY.INPUT.TEXT", False, Cause.MODERATION, False),
        ("ASSET.INVALID", False, Cause.BAD_INPUT, False),
        ("INTERNAL.BAD_OUTPUT.CODE01", False, Cause.BROKEN, False),
        ("INTERNAL.BAD_OUTPUT.CODE01", None, Cause.BROKEN, None),
        ("INPUT_PREPROCESSING.INTERNAL", True, Cause.BROKEN, True),
        ("THIRD_PARTY.UNAVAILABLE", False, Cause.BROKEN, False),
        ("SOMETHING.NEW", None, Cause.BROKEN, None),
        ("", None, Cause.BROKEN, None),
    ],
)
async def test_why_a_task_failed_and_what_it_cost(
    runway: Runway, server: RunwayServer, code: str, cost: bool | None, cause: Cause, charged: bool | None
) -> None:
    """Moderation is charged in full unless the task says otherwise; of the rest only the task tells."""
    server.fail_with, server.failures_cost, server.polls_until_done = code, cost, 0
    task = (await paid(runway, FIRST)).task

    assert await runway.check(task) == Broke(cause, charged=charged)


async def test_a_deleted_task_is_no_outcome(runway: Runway, server: RunwayServer) -> None:
    """404 is also what a task may answer that is not known yet."""
    task = (await paid(runway, FIRST)).task
    server.tasks.clear()

    with pytest.raises(ProviderRejected) as caught:
        await runway.check(task)

    assert caught.value.cause is Cause.BROKEN


async def test_the_probe_tells_the_credits(runway: Runway, server: RunwayServer) -> None:
    """As `animatic doctor` shows them."""
    server.credits = 1234

    assert await runway.probe() == Balance(amount=1234, unit="credits")


async def test_a_task_s_name_stays_in_its_place(runway: Runway) -> None:
    """What stands in the database cannot ask for another path."""
    with pytest.raises((ProviderRejected, ProviderUnsure)):
        await runway.check("../organization?")


def test_what_runway_s_terms_and_pace_want(runway: Runway) -> None:
    """Its name with a link under every clip; no poll sooner than after 5 seconds."""
    for can in runway.variants.values():
        assert can.credit == "[Powered by Runway](https://runwayml.com)"
        assert can.least_poll_gap >= timedelta(seconds=5)
