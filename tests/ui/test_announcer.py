"""Bringing the clip into the channel, when Discord does not take it at once or not at all."""

import io
from datetime import datetime, timedelta
from pathlib import Path

import av
import pytest
from simcord import BackendError
from sqlalchemy import update

from bot.errors import Cause
from bot.jobs.machine import Charge, Job, Outcome, Posted, State
from bot.jobs.tables import jobs
from bot.media import clip as clips
from bot.ui import announcer
from tests.cogs import conftest
from tests.cogs.conftest import Town, clip_in, large_clip, picture, pictures_in, small_clip, text_of

town = conftest.town


async def rendering(town: Town) -> Job:
    """A job that the gateway has taken, and will have finished by the first poll."""
    town.makevid.polls_until_done = 0
    await town.animate(town.ada, picture=picture())
    await town.work()
    job = await town.job()
    assert job.state is State.RENDERING
    return job


def kept(town: Town, job: Job) -> Path:
    return town.config.data.folder / "clips" / f"{job.id}.mp4"


def posting(town: Town) -> str:
    return f"/channels/{town.channel.id}/messages"


# A post that fits


async def test_a_clip_that_fits_is_posted_as_it_is(town: Town) -> None:
    """Not a byte is changed, and the file on the disk is gone afterwards."""
    town.makevid.clip = large_clip()

    post = await town.posted(town.ada)

    clip = clip_in(post)
    assert clip
    assert town.file(clip) == large_clip()
    assert not kept(town, await town.job()).exists()


async def test_what_discord_takes_for_too_large_is_made_smaller(town: Town) -> None:
    """413 with 40005: the same clip at half the size, re-encoded, in one post."""
    town.makevid.clip = large_clip()
    await rendering(town)
    town.env.inject_error("POST", posting(town), status=413, code=40005)

    await town.work_until_done()

    [post] = town.posts()
    clip = clip_in(post)
    assert clip
    data = town.file(clip)
    assert len(data) < 5 * 2**20 < len(large_clip())
    with av.open(io.BytesIO(data)) as container:
        assert container.streams.video[0].codec_context.name == "h264"
        assert container.duration == pytest.approx(2 * av.time_base, rel=0.1)
    assert list(kept(town, await town.job()).parent.iterdir()) == []
    assert len(town.makevid.creates) == 1


async def test_a_server_with_a_low_limit(town: Town) -> None:
    """What Discord said last for this server counts, and the first attempt fits already."""
    town.makevid.clip = large_clip()
    await town.animate(town.ada, picture=picture())
    async with town.animatic.store._writes.begin() as connection:
        await connection.execute(update(jobs).values(upload_limit=2 * 2**20))

    await town.work_until_done()

    [post] = town.posts()

    clip = clip_in(post)
    assert clip
    assert len(town.file(clip)) < 2 * 2**20
    assert len(town.sent("POST", posting(town))) == 2


@pytest.mark.parametrize(("status", "code"), [(413, 40005), (413, 0), (400, 40005), (400, 50045)])
async def test_a_clip_that_is_never_small_enough(town: Town, status: int, code: int) -> None:
    """Discord refuses every size, by its status or by either code: an honest end, and the clip is kept."""
    job = await rendering(town)
    town.env.inject_error("POST", posting(town), status=status, code=code, times=None)

    await town.work_until_done()

    assert (await town.job()).state is State.UNDELIVERABLE
    shown = text_of(town.card())
    assert shown.startswith("### Finished, but I cannot post it")
    assert "The clip is too large for this server, even made smaller." in shown
    assert "The clip was paid for and is kept." in shown
    assert kept(town, job).read_bytes() == small_clip()


async def test_a_clip_in_another_format_is_packed_anew(town: Town, tmp_path: Path) -> None:
    """An index at the end would not play at once in every client."""
    source = tmp_path / "slow.mp4"
    source.write_bytes(small_clip())
    slow = tmp_path / "index-last.mp4"
    with av.open(source) as old, av.open(slow, "w") as new:
        copy = new.add_stream_from_template(old.streams.video[0])
        for packet in old.demux(video=0):
            if packet.dts is not None:
                packet.stream = copy
                new.mux(packet)
    assert not (await clips.probe(slow)).fast_start
    town.makevid.clip = slow.read_bytes()

    post = await town.posted(town.ada)

    clip = clip_in(post)
    assert clip
    slow.write_bytes(town.file(clip))
    assert (await clips.probe(slow)).plays_everywhere


# Discord stumbles


@pytest.mark.parametrize("times", [1, 4])
async def test_discord_fails_and_then_takes_it(town: Town, times: int) -> None:
    """5xx: the same clip again later, until it is posted, once."""
    await rendering(town)
    town.env.inject_error("POST", posting(town), status=503, times=times)

    await town.work_until_done()

    assert len(town.posts()) == 1
    assert town.cards() == []
    assert len(town.makevid.creates) == 1
    assert town.makevid.calls["GET /clips/{name}"] == 1


async def test_discord_took_it_and_said_no(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """The message stands there although the answer was a 500: it is found, and not posted twice."""
    await rendering(town)
    send = town.env.backend.commit_message

    def take_and_fail(*args: object, **more: object) -> object:
        monkeypatch.undo()
        send(*args, **more)  # type: ignore[arg-type]
        raise BackendError(500, 0, "Internal Server Error")

    monkeypatch.setattr(town.env.backend, "commit_message", take_and_fail)
    await town.work_until_done()

    [post] = town.posts()
    assert (await town.job()).post_id == post.id
    assert [str(reaction.emoji) for reaction in post.reactions] == ["🔁"]


@pytest.mark.parametrize("clocks_apart", [0.0, 30.0])
async def test_a_crash_between_the_post_and_the_note_of_it(
    town: Town, monkeypatch: pytest.MonkeyPatch, clocks_apart: float
) -> None:
    """The next run finds the post in the channel, also when our clock is ahead of Discord's."""
    if clocks_apart:
        await ahead_of_discord(town, clocks_apart)
    await rendering(town)
    await crash_after_the_post(town, monkeypatch)
    assert len(town.posts()) == 1
    assert (await town.job()).state is State.POSTING

    await town.restart()
    await town.work_until_done()

    assert len(town.posts()) == 1
    assert (await town.job()).state is State.DELIVERED
    assert town.cards() == []


async def test_no_second_post_while_the_channel_cannot_be_read(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The post may stand there already: it is looked for until Discord answers."""
    await rendering(town)
    await crash_after_the_post(town, monkeypatch)
    town.env.inject_error("GET", posting(town), status=503, times=2)

    await town.restart()
    await town.work_until_done()

    assert len(town.posts()) == 1
    assert (await town.job()).state is State.DELIVERED


async def crash_after_the_post(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """Discord has the post, and the process ends before that is written down."""
    advance = town.animatic.store.advance

    async def crash(job: Job, outcome: Outcome, now: datetime, **how: bool) -> Job | None:
        if isinstance(outcome, Posted):
            raise OSError("the power went")
        return await advance(job, outcome, now, **how)

    monkeypatch.setattr(town.animatic.store, "advance", crash)
    await town.wait(10)


async def ahead_of_discord(town: Town, seconds: float) -> None:
    """From now on the bot's clock is so much ahead of the one that Discord gives ids by."""
    now = town.now
    town.now = lambda: now() + timedelta(seconds=seconds)
    await town.restart()


@pytest.mark.parametrize("path", ["*/reactions/*", "*/channels/*/messages/*"])
async def test_what_fails_after_the_post_does_not_undo_it(town: Town, path: str) -> None:
    """The reaction or the card's end: a blemish, and the clip is delivered."""
    await rendering(town)
    town.env.inject_error(
        "PUT" if "reactions" in path else "DELETE", path, status=403, code=50013, times=None
    )

    await town.work_until_done()

    assert (await town.job()).state is State.DELIVERED
    assert len(town.posts()) == 1


@pytest.mark.parametrize(
    ("method", "path"), [("PUT", "*/reactions/*"), ("DELETE", "*/channels/*/messages/*")]
)
async def test_a_rate_limit_is_no_final_answer(town: Town, method: str, path: str) -> None:
    """What discord.py did not wait out is done a little later: no card stays beside its post."""
    await rendering(town)
    town.env.inject_error(method, path, status=429)

    await town.work_until_done()
    assert (await town.job()).card_id
    await town.wait(120)

    assert (await town.job()).card_id is None
    [post] = town.posts()
    assert [reaction.emoji for reaction in post.reactions] == [
        "\N{CLOCKWISE RIGHTWARDS AND LEFTWARDS OPEN CIRCLE ARROWS}"
    ]


async def test_a_card_that_cannot_be_drawn_does_not_stop_the_job(town: Town) -> None:
    """Discord fails every edit: the clip comes all the same."""
    await town.animate(town.ada, picture=picture())
    town.env.inject_error("PATCH", "*/messages/*", status=503, times=None)

    await town.work_until_done()

    assert len(town.posts()) == 1


async def test_the_picture_out_of_reach_at_the_submit(town: Town) -> None:
    """Discord does not answer: nothing is sent yet, and later it is, once."""
    await town.animate(town.ada, picture=picture())
    town.env.inject_error("GET", f"*/messages/{town.card().id}", status=503)

    await town.work()
    assert town.makevid.creates == []
    await town.work_until_done()

    assert len(town.makevid.creates) == 1
    assert len(pictures_in(town.posts()[0])) == 1


async def test_what_cards_show_is_remembered_of_so_many_alone(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Other processes end jobs without a word to this one: what it knows of them must not pile up."""
    monkeypatch.setattr(announcer, "MOST_DRAWN", 2)

    for _ in range(3):
        await town.animate(town.ada, picture=picture())

    drawn = town.animatic.bot.desk._announcer._drawn  # type: ignore[attr-defined]  # of the one in Discord
    assert len(drawn) == 2


# Discord will not have it


def closed(town: Town) -> None:
    """The asker takes no direct messages from the bot."""
    town.env.inject_error("POST", "/users/@me/channels", status=403, code=50007, times=None)


async def test_what_the_channel_does_not_take_goes_to_its_asker(town: Town) -> None:
    """In a direct message that says why, once; nothing is charged twice, and nothing is left on the disk."""
    job = await rendering(town)
    town.forbid("send_messages")

    await town.work_until_done()

    ended = await town.job()
    assert (ended.state, ended.charge) == (State.DELIVERED, Charge.CHARGED)
    assert ended.post_channel_id not in (None, town.channel.id)
    message = await town.animatic.bot.get_partial_messageable(ended.posted_in).fetch_message(
        ended.post_id or 0
    )
    clip = clip_in(message)
    assert clip
    assert town.file(clip) == small_clip()
    assert f"not in <#{town.channel.id}>: I am no longer allowed to post files here." in text_of(message)
    assert not kept(town, job).exists()
    assert len(town.makevid.creates) == 1


async def test_a_direct_message_is_not_sent_twice(town: Town) -> None:
    """The process died after it was sent: it is found there."""
    job = await rendering(town)
    town.forbid("send_messages")
    await town.work_until_done()
    first = await town.job()

    channel_id, post_id = await town.animatic.engine._announcer.post_privately(
        job, kept(town, job), Cause.NO_PERMISSION, lambda: True
    )

    assert (channel_id, post_id) == (first.post_channel_id, first.post_id)


async def test_a_direct_message_waits_out_a_rate_limit(town: Town) -> None:
    """Too many direct messages were opened just now: the clip comes later, and is not put away."""
    await rendering(town)
    town.forbid("send_messages")
    town.env.inject_error("POST", "/users/@me/channels", status=429)

    await town.work_until_done()

    ended = await town.job()
    assert (ended.state, ended.post_channel_id is None) == (State.DELIVERED, False)


async def test_the_channel_is_gone(town: Town) -> None:
    """Nobody can be told there; the books say it, and the clip is kept."""
    job = await rendering(town)
    closed(town)
    town.env.backend.delete_channel(town.channel.id)
    await town.env.settle()

    await town.work_until_done()

    ended = await town.job()
    assert (ended.state, ended.cause, ended.charge) == (
        State.UNDELIVERABLE,
        Cause.CHANNEL_GONE,
        Charge.CHARGED,
    )
    assert kept(town, job).read_bytes() == small_clip()


async def test_the_channel_is_gone_before_the_submit(town: Town) -> None:
    """Then nothing is paid."""
    await town.animate(town.ada, picture=picture())
    town.env.backend.delete_channel(town.channel.id)
    await town.env.settle()

    await town.work_until_done()

    ended = await town.job()
    assert ended.charge is Charge.NONE
    assert town.makevid.creates == []


async def test_a_permission_was_lost(town: Town) -> None:
    """The card, whose edit needs none, tells what happened and what it cost."""
    job = await rendering(town)
    closed(town)
    town.forbid("send_messages")

    await town.work_until_done()

    ended = await town.job()
    assert (ended.state, ended.cause) == (State.UNDELIVERABLE, Cause.NO_PERMISSION)
    shown = text_of(town.card())
    assert shown.startswith("### Finished, but I cannot post it")
    assert "I am no longer allowed to post files here. The clip was paid for and is kept." in shown
    assert kept(town, job).read_bytes() == small_clip()
