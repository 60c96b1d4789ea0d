"""What Discord refuses for good is not asked for again: ten thousand refusals in ten minutes are a ban."""

import pytest

from bot.errors import Cause
from bot.jobs.announcing import Waiting
from bot.jobs.machine import Charge, State
from tests.cogs import conftest
from tests.cogs.conftest import Town, picture, text_of
from tests.ui.test_announcer import closed, kept, posting, rendering

town = conftest.town


@pytest.mark.parametrize(
    ("status", "code", "cause"),
    [
        (403, 50013, Cause.NO_PERMISSION),
        (403, 50001, Cause.NO_PERMISSION),
        (404, 10003, Cause.CHANNEL_GONE),
        (404, 10004, Cause.CHANNEL_GONE),
        (404, 10008, Cause.POST_DELETED),
        (400, 50083, Cause.CHANNEL_GONE),
        (400, 200000, Cause.BLOCKED_BY_DISCORD),
        (400, 200001, Cause.BLOCKED_BY_DISCORD),
    ],
)
async def test_what_no_repeat_can_mend(town: Town, status: int, code: int, cause: Cause) -> None:
    """Discord's own codes for it: one attempt, and the card says which it was."""
    await rendering(town)
    closed(town)
    before = len(town.sent("POST", posting(town)))
    town.env.inject_error("POST", posting(town), status=status, code=code, times=None)

    await town.work_until_done()

    ended = await town.job()
    assert (ended.state, ended.cause, ended.charge) == (State.UNDELIVERABLE, cause, Charge.CHARGED)
    assert len(town.sent("POST", posting(town))) == before + 1
    assert "The clip was paid for and is kept." in text_of(town.card())


@pytest.mark.parametrize(("status", "code"), [(401, 0), (403, 20009), (404, 0)])
async def test_what_discord_counts_is_not_repeated(town: Town, status: int, code: int) -> None:
    """401, 403 and 404 are an end, whatever their code."""
    await rendering(town)
    closed(town)
    before = len(town.sent("POST", posting(town)))
    town.env.inject_error("POST", posting(town), status=status, code=code, times=None)

    for seconds in (10, 600, 600):
        await town.wait(seconds)

    assert len(town.sent("POST", posting(town))) == before + 1
    assert (await town.job()).state is State.UNDELIVERABLE


@pytest.mark.parametrize(("status", "code"), [(403, 50007), (403, 50278), (404, 10013)])
async def test_a_direct_message_that_is_refused_is_not_sent_again(town: Town, status: int, code: int) -> None:
    """Discord opens the conversation and then says that they take none: one attempt, and the clip is kept."""
    job = await rendering(town)
    town.env.inject_error("POST", "/channels/*/messages", status=403, code=50013)
    town.env.inject_error("POST", "/channels/*/messages", status=status, code=code, times=None)
    before = len(messages(town))

    for seconds in (10, 600, 600):
        await town.wait(seconds)

    ended = await town.job()
    assert (ended.state, ended.cause) == (State.UNDELIVERABLE, Cause.NO_PERMISSION)
    assert len(messages(town)) == before + 2  # to the channel, and to the asker
    assert kept(town, job).exists()


@pytest.mark.parametrize(("status", "code"), [(403, 50001), (404, 10008)])
async def test_a_card_that_is_refused_is_not_drawn_for_every_move_of_the_line(
    town: Town, status: int, code: int
) -> None:
    """Once in each state of its job, however often its place changes."""
    await town.animate(town.ada, picture=picture())
    job = await town.job()
    town.env.inject_error("PATCH", "*/messages/*", status=status, code=code, times=None)
    announcer = town.animatic.engine._announcer

    for place in range(9, 1, -1):
        await announcer.draw(job, Waiting(place=place))

    assert len(edits(town)) == 1


def messages(town: Town) -> list[str]:
    """Where messages were sent to."""
    return [
        request.path
        for request in town.env.http_requests
        if request.method == "POST" and request.path.endswith("/messages")
    ]


def edits(town: Town) -> list[str]:
    return [request.path for request in town.env.http_requests if request.method == "PATCH"]
