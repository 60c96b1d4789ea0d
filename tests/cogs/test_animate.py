"""`/animate`, as members use it: from the command to the clip, and every sentence on the way."""

import base64
import io
import struct
import zlib
from typing import Any

import discord
import pytest
from PIL import Image
from simcord import BackendError, ChannelHandle, assert_error
from simcord.backend.models import Interaction
from structlog.testing import capture_logs

from bot.config import AnimateSettings
from bot.errors import Cause
from bot.jobs.machine import Charge, State
from bot.jobs.models import Menu, Model
from bot.media import clip as clips
from bot.providers.base import Capabilities
from bot.ui import answer
from cogs.animate import animate_command
from tests.cogs.conftest import (
    POST_BUTTONS,
    Town,
    buttons,
    clip_in,
    parts_of,
    picture,
    pictures_in,
    said,
    small_clip,
    text_of,
)
from tests.servers.makevid import IMAGE, LUMA, RUNWAY, TEXT

# From the command to the clip


async def test_a_picture_becomes_a_clip(town: Town) -> None:
    """The card goes, and the post has the gateway's clip, its picture, a mention and its buttons."""
    await town.animate(town.ada, prompt="waves roll in", picture=picture())

    await town.work_until_done()

    [post] = town.posts()
    assert town.cards() == []
    assert f"{town.ada.mention}, here is your clip." in text_of(post)
    assert "“waves roll in”" in text_of(post)
    assert "Kling · 5 s · 720p · $0.35" in text_of(post)
    assert buttons(post) == POST_BUTTONS
    assert [str(reaction.emoji) for reaction in post.reactions] == ["🔁"]
    clip = clip_in(post)
    assert clip
    assert town.file(clip) == small_clip()
    assert len(pictures_in(post)) == 1
    assert len(town.makevid.creates) == 1


async def test_the_receipt_is_private_and_the_card_is_not(town: Town) -> None:
    """The asker reads what it costs; everybody else sees the card alone."""
    result = await town.animate(town.ada, picture=picture())

    assert said(result) == "On its way: Kling, 5 s, $0.35. The card in the channel tells more."
    [seen] = town.channel.history(viewer=town.bob)
    assert text_of(seen).startswith("### Waiting to start")
    assert buttons(seen) == ["Cancel"]


async def test_the_card_carries_the_picture(town: Town) -> None:
    """In full size, with an alt text: Discord keeps it for the submit."""
    await town.animate(town.ada, prompt="waves\nroll *in*", picture=picture(640, 480))

    card = town.card()

    [media] = pictures_in(card)
    with Image.open(io.BytesIO(town.file(media))) as image:
        assert image.size == (640, 480)
    [alt] = [part["description"] for part in parts_of(card) if part.get("description")]
    assert alt == "The picture to animate: waves roll *in*"


async def test_a_prompt_cannot_ping_or_format(town: Town) -> None:
    """It is shown as it was written, on one line; the card pings nobody, the post its asker alone."""
    prompt = f"# @everyone **now**\n{town.bob.mention} [free](https://x.invalid) ||boo||"
    await town.posted(town.ada, prompt=prompt)

    sent = town.sent("POST", f"/channels/{town.channel.id}/messages")

    pings = [message["allowed_mentions"] for message in sent]
    assert pings == [{"parse": [], "users": []}, {"parse": [], "users": [town.ada.id]}]  # card, then post
    [post] = town.posts()
    assert "\\@everyone \\*\\*now\\*\\*" in text_of(post)
    assert town.bob.mention not in text_of(post)
    assert "[free](" not in text_of(post).replace("\\[free", "")


async def test_every_option_reaches_kling(town: Town) -> None:
    """Exactly the documented fields of api-218115434, the pictures as bare base64 of what the card shows."""
    await town.animate(
        town.ada,
        prompt="waves",
        picture=picture(640, 480),
        end_picture=picture(500, 500),
        model="kling",
        seconds=10,
        quality="1080p",
        negative="blur",
        strength=0.7,
    )
    first, last = (base64.b64encode(town.file(media)).decode() for media in pictures_in(town.card()))

    await town.work_until_done()

    [create] = town.makevid.creates
    assert create.family == IMAGE
    assert create.body == {
        "image": first,
        "image_tail": last,
        "prompt": "waves",
        "negative_prompt": "blur",
        "cfg_scale": 0.7,
        "mode": "pro",
        "duration": "10",
    }
    [post] = town.posts()
    assert len(pictures_in(post)) == 2
    assert "Kling · 10 s · 1080p · $0.70" in text_of(post)


async def test_a_clip_from_words_alone(town: Town) -> None:
    """Kling's other system, with the ratio that was chosen; the card and the post have no picture."""
    await town.animate(town.ada, prompt="a fox runs", ratio="9:16")
    assert pictures_in(town.card()) == []

    await town.work_until_done()

    [create] = town.makevid.creates
    assert create.family == TEXT
    assert create.body == {"prompt": "a fox runs", "mode": "std", "duration": "5", "aspect_ratio": "9:16"}
    [post] = town.posts()
    assert pictures_in(post) == []


async def test_the_camera_moves(town: Town) -> None:
    """A plain word on the command, Kling's numbers at the gateway, and the word on card and post."""
    await town.animate(town.ada, prompt="a fox runs", camera="pan left")
    assert "Kling · 5 s · 720p · 16:9 · pan left" in text_of(town.card())

    await town.work_until_done()

    [create] = town.makevid.creates
    assert create.family == TEXT
    assert create.body["camera_control"]["type"] == "simple"
    assert {axis for axis, amount in create.body["camera_control"]["config"].items() if amount} == {"tilt"}
    [post] = town.posts()
    assert "pan left" in text_of(post)


def a_model(name: str, can: Capabilities) -> Model:
    return Model(
        name=name, label=name.capitalize(), route=name, variant=name, can=can, price_cents=lambda *_: 0
    )


def options_of(*models: Model) -> dict[str, list[str]]:
    """The command's options, each with the names of its choices."""
    menu = Menu(models={model.name: model for model in models}, default=models[0].name)
    command = animate_command(menu, None)
    return {option.name: [choice.name for choice in option.choices] for option in command.parameters}


def test_the_command_offers_what_some_model_can_do() -> None:
    """Every option comes from the models: each value once, in order, and nothing that none of them has."""
    plain = a_model("plain", Capabilities(seconds=(5, 10)))
    able = a_model(
        "able",
        Capabilities(
            seconds=(4, 5),
            qualities=("720p", "1080p"),
            ratios=("16:9",),
            shapes=("16:9", "9:16"),
            cameras=("zoom in", "crane up"),
            loop=True,
            sound=True,
            end_picture=True,
            negative_prompt=200,
            strength=(0.0, 1.0),
        ),
    )

    assert options_of(plain) == {
        "prompt": [],
        "picture": [],
        "model": ["Plain"],
        "seconds": ["5 seconds", "10 seconds"],
    }
    assert options_of(plain, able) == {
        "prompt": [],
        "picture": [],
        "model": ["Plain", "Able"],
        "seconds": ["4 seconds", "5 seconds", "10 seconds"],
        "quality": ["720p", "1080p"],
        "end_picture": [],
        "negative": [],
        "strength": [],
        "ratio": ["16:9", "9:16"],
        "camera": ["zoom in", "crane up"],
        "loop": [],
        "sound": [],
    }


async def test_luma_gets_links(town: Town) -> None:
    """Links to the very pictures on the card, first and last."""
    await town.animate(
        town.ada, prompt="waves", model="luma", picture=picture(), end_picture=picture(500, 500)
    )
    first, last = pictures_in(town.card())

    await town.work_until_done()

    [create] = town.makevid.creates
    assert create.family == LUMA
    assert create.body == {
        "user_prompt": "waves",
        "expand_prompt": True,
        "image_url": first.url,
        "image_end_url": last.url,
    }
    assert len(town.posts()) == 1


async def test_runway_gets_a_link(town: Town) -> None:
    """All five documented fields."""
    await town.animate(town.ada, prompt="waves", model="runway", seconds=10, picture=picture())
    [media] = pictures_in(town.card())

    await town.work_until_done()

    [create] = town.makevid.creates
    assert create.family == RUNWAY
    assert create.body == {
        "text_prompt": "waves",
        "init_image": media.url,
        "seconds": 10,
        "enhance_prompt": True,
        "image_as_end_frame": False,
    }
    assert len(town.posts()) == 1


async def test_sketch_really_draws(town: Town, tmp_path: Any) -> None:
    """The built-in route: free, no gateway, a real H.264 clip of five seconds."""
    result = await town.animate(town.ada, prompt="camera pull out", model="sketch", picture=picture(320, 80))
    assert "Sketch, 5 s, free" in said(result)

    await town.draw_until_done()

    [post] = town.posts()
    media = clip_in(post)
    assert media
    path = tmp_path / "seen.mp4"
    path.write_bytes(town.file(media))
    facts = await clips.probe(path)
    assert facts.plays_everywhere
    assert facts.seconds == pytest.approx(5, abs=0.1)
    assert town.makevid.creates == []


async def test_a_clip_in_a_thread(town: Town) -> None:
    """A thread is a channel of its own."""
    thread = a_thread(town)
    await town.animate(town.ada, picture=picture(), channel=thread)
    await town.work_until_done()

    assert len(town.posts(thread)) == 1
    assert town.posts() == town.cards() == []


async def test_the_card_tells_what_happens(town: Town) -> None:
    """Waiting with a button; then being made, with a time that counts down and without a button."""
    town.makevid.polls_until_done = 100
    await town.animate(town.ada, picture=picture())

    await town.work()

    due = int(town.env.now().timestamp()) + 180
    assert f"### Bringing it to life, ready <t:{due}:R>" in text_of(town.card())
    assert buttons(town.card()) == []


async def test_waiting_edits_nothing(town: Town) -> None:
    """Discord's clients count down by themselves: polls leave the card alone."""
    town.makevid.polls_until_done = 100
    await town.animate(town.ada, picture=picture())
    await town.work()
    edits = len(town.sent("PATCH", f"/messages/{town.card().id}"))

    for _ in range(5):
        await town.wait(15)

    assert len(town.sent("PATCH", f"/messages/{town.card().id}")) == edits


# What cannot be made: a private sentence, and nothing came of it


def a_bomb() -> bytes:
    """A whole PNG of 20,000 × 20,000 pixels in some 50 kB."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", 20_000, 20_000, 1, 0, 0, 0, 0)
    rows = zlib.compress(bytes(20_000 * (1 + 20_000 // 8)), 1)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", rows) + chunk(b"IEND", b"")


BAD = {
    "a text file": (
        {"picture": b"dear diary"},
        "The picture cannot be read: whatever its name says, the file is not a PNG",
    ),
    "100x100": ({"picture": picture(100, 100)}, "this model needs at least 300 × 300 pixels"),
    "1:5": ({"picture": picture(200, 1000)}, "The picture is 1:5 (width to height), and this model takes"),
    "a bomb": ({"picture": a_bomb()}, "The picture is more than 50 megapixels. Scale it down"),
    "cut off": (
        {"picture": picture(640, 480, "JPEG")[:2000]},
        "cannot be read to its end: the file seems to be cut off",
    ),
    "an empty file": ({"picture": b""}, "The picture is an empty file"),
    "a bad end": (
        {"picture": picture(), "end_picture": b"dear diary"},
        "The end picture cannot be read",
    ),
    "only an end": ({"end_picture": picture()}, "An end picture needs a first picture"),
    "6,000 characters": (
        {"prompt": "x" * 6000, "picture": picture()},
        "Your prompt has 6,000 characters; Kling takes at most 2,500",
    ),
    "no words, no picture": ({"prompt": " "}, "Write a prompt that says what should happen"),
    "no words for luma": (
        {"prompt": " ", "model": "luma", "picture": picture()},
        "Write a prompt that says what should happen",
    ),
    "negative of 300": (
        {"negative": "x" * 300, "picture": picture()},
        "Your negative prompt has 300 characters; Kling takes at most 200",
    ),
    "luma's negative": (
        {"negative": "blur", "model": "luma", "picture": picture()},
        "Luma has no negative prompt. Leave `negative` out",
    ),
    "luma's strength": (
        {"strength": 0.5, "model": "luma", "picture": picture()},
        "Luma has no strength setting. Leave `strength` out",
    ),
    "luma's seconds": (
        {"seconds": 10, "model": "luma", "picture": picture()},
        "Luma cannot do seconds 10; it can do 5",
    ),
    "luma's quality": (
        {"quality": "1080p", "model": "luma", "picture": picture()},
        "Luma has no choice of quality",
    ),
    "runway from words": ({"model": "runway"}, "Runway needs a picture to start from"),
    "runway's end": (
        {"model": "runway", "picture": picture(), "end_picture": picture()},
        "Runway cannot end on a given picture",
    ),
    "a ratio and a picture": (
        {"ratio": "1:1", "picture": picture()},
        "The clip takes the shape of your picture. Leave `ratio` out",
    ),
    "a camera and a picture": (
        {"camera": "zoom in", "picture": picture()},
        "Kling has `camera` only with no picture",
    ),
    "a camera for long": (
        {"camera": "zoom in", "seconds": 10, "quality": "1080p"},
        "Kling has `camera` only with 5 seconds and quality 720p",
    ),
    "luma's camera": (
        {"camera": "zoom in", "model": "luma"},
        "Luma has no choice of camera. Leave `camera` out. Or choose another `model`: Kling can do this",
    ),
}


@pytest.mark.parametrize(("options", "sentence"), BAD.values(), ids=BAD)
async def test_what_cannot_be_made_is_said_privately(
    town: Town, options: dict[str, Any], sentence: str
) -> None:
    """What is wrong and what to do about it; nothing is queued, paid or shown."""
    result = await town.animate(town.ada, **options)
    await town.work_until_done()

    refusal = town.refusal(result)
    assert sentence in refusal
    assert refusal.endswith("Nothing was charged.")
    assert await town.nothing_came_of_it()


async def test_a_large_file_is_refused_before_it_is_fetched(town: Town) -> None:
    """30 MB: Discord has declared its size."""
    fetched: list[str] = []
    read = town.env.backend.cdn.get
    town.env.backend.cdn.get = lambda url: fetched.append(url) or read(url)  # type: ignore[method-assign,func-returns-value]

    result = await town.animate(town.ada, picture=bytes(30 * 1024 * 1024))

    assert "The picture is 30 MB, and 25 MB is the most I can take" in town.refusal(result)
    assert fetched == []
    assert await town.nothing_came_of_it()


async def test_a_small_picture_is_enlarged_and_said_so(town: Town) -> None:
    """200×200 is enough for Kling's 300, with a note in the receipt."""
    result = await town.animate(town.ada, picture=picture(200, 200))
    [media] = pictures_in(town.card())

    await town.work_until_done()

    assert "enlarged from 200 × 200 pixels; a larger original gives a sharper clip" in said(result)
    with Image.open(io.BytesIO(town.file(media))) as image:
        assert image.size == (300, 300)
    assert len(town.posts()) == 1


async def test_a_picture_needs_no_words(town: Town) -> None:
    """Kling takes a picture alone: `prompt` is left out of the call, and the card has no empty quotes."""
    await town.animate(town.ada, prompt=" ", picture=picture())
    assert "“”" not in text_of(town.card())

    await town.work_until_done()

    assert "prompt" not in town.makevid.creates[0].body
    assert len(town.posts()) == 1


async def test_a_members_limit(town: Town) -> None:
    """The fourth is refused, for this member alone; an ended one makes room."""
    for _ in range(3):
        await town.animate(town.ada, picture=picture())

    fourth = await town.animate(town.ada, picture=picture())
    await town.animate(town.bob, picture=picture())

    assert "You already have 3 clips in the works" in town.refusal(fourth)
    assert len(town.cards()) == 4
    await town.ada.click(town.cards()[0], label="Cancel")
    await town.animate(town.ada, picture=picture())
    assert len(town.cards()) == 5


async def test_the_limit_of_all(town: Town) -> None:
    """A full house is said as it is."""
    await town.restart(animate=AnimateSettings(active_total=2))
    for member in (town.ada, town.moderator):
        await town.animate(member, picture=picture())

    result = await town.animate(town.bob, picture=picture())

    assert "2 clips are waiting already" in town.refusal(result)


# Permissions


def a_thread(town: Town) -> ChannelHandle:
    town.env.backend.create_thread(town.channel.id, "waves", owner_id=town.ada.id)
    [thread] = town.channel.threads
    return thread


@pytest.mark.parametrize("flag", answer.NEEDED)
async def test_a_missing_permission_is_named_before_anything_is_queued(town: Town, flag: str) -> None:
    """By the name that stands on Discord's settings page, and only to the asker."""
    town.forbid(flag)

    result = await town.animate(town.ada, picture=picture())
    await town.work_until_done()

    refusal = town.refusal(result)
    assert "I cannot deliver a clip in this channel" in refusal
    assert f"**{answer.NEEDED[flag]}**" in refusal
    assert await town.nothing_came_of_it()


@pytest.mark.parametrize(
    ("flag", "name"),
    [
        ("view_channel", "View Channel"),
        ("send_messages_in_threads", "Send Messages in Threads"),
        ("attach_files", "Attach Files"),
        ("read_message_history", "Read Message History"),
    ],
)
async def test_a_permission_missing_in_a_thread(town: Town, flag: str, name: str) -> None:
    """A thread inherits its channel's permissions, and has one of its own for sending."""
    thread = a_thread(town)
    town.forbid(flag)

    result = await town.animate(town.ada, picture=picture(), channel=thread)

    assert f"**{name}**" in town.refusal(result)
    assert await town.jobs() == []


async def test_sending_in_the_channel_is_not_needed_in_its_thread(town: Town) -> None:
    """Discord asks for Send Messages in Threads there, and so do we."""
    thread = a_thread(town)
    town.forbid("send_messages")

    await town.animate(town.ada, picture=picture(), channel=thread)
    await town.work_until_done()

    assert len(town.posts(thread)) == 1


@pytest.mark.parametrize(("status", "code"), [(403, 50013), (403, 200000), (500, 0), (413, 40005)])
async def test_a_card_that_discord_does_not_take(town: Town, status: int, code: int) -> None:
    """No card, no clip: the asker is told, and the place in the queue is free again."""
    town.env.inject_error("POST", f"/channels/{town.channel.id}/messages", status=status, code=code, times=2)

    result = await town.animate(town.ada, picture=picture())
    await town.work_until_done()

    assert "I could not post" in town.refusal(result)
    assert (await town.job()).state is State.CANCELLED
    assert town.makevid.creates == []


# What the gateway says

WRONG = {
    "401": ("The provider did not accept this bot's key", State.FAILED, "Nothing was charged."),
    "402": ("the account has no credit left", State.FAILED, "Nothing was charged."),
    "403": ("does not allow this model", State.FAILED, "Nothing was charged."),
    "400": ("did not accept this picture or these settings", State.FAILED, "Nothing was charged."),
    "code:1301": ("The provider's moderation refused it", State.FAILED, "Nothing was charged."),
    "code:1102": ("the account has no credit left", State.FAILED, "Nothing was charged."),
    "echo_key": ("The provider did not accept this bot's key", State.FAILED, "Nothing was charged."),
    "500": ("The provider did not answer", State.UNSURE, "This may have been charged"),
    "html": ("The provider's answer made no sense", State.UNSURE, "This may have been charged"),
    "no_id": ("The provider's answer made no sense", State.UNSURE, "This may have been charged"),
    "never": ("The provider did not answer", State.UNSURE, "This may have been charged"),
    "reset_before": ("The provider did not answer", State.UNSURE, "This may have been charged"),
    "reset_after": ("The provider did not answer", State.UNSURE, "This may have been charged"),
    "cut_short": ("", State.UNSURE, "This may have been charged"),
}


@pytest.mark.parametrize(("fault", "expected"), WRONG.items(), ids=WRONG)
async def test_a_create_that_goes_wrong(town: Town, fault: str, expected: tuple[str, State, str]) -> None:
    """The card says why and what it cost, in our words; the paid call is made once, whatever time passes."""
    sentence, state, cost = expected
    if fault == "never":
        await town.restart(request_timeout=0.3)
    town.makevid.next_create = fault
    await town.animate(town.ada, picture=picture())

    await town.work()
    for _ in range(3):
        await town.wait(1800)

    shown = text_of(town.card())
    assert sentence in shown
    assert cost in shown
    assert "test-key" not in shown
    assert (await town.job()).state is state
    assert buttons(town.card()) == (
        ["Try again (may cost twice)", "Let it go"] if state is State.UNSURE else []
    )
    assert len(town.makevid.creates) == 1
    assert town.posts() == []


async def test_a_busy_gateway(town: Town) -> None:
    """429 proves that nothing was taken: back to the line, and asked again at the time that was named."""
    town.makevid.next_create, town.makevid.retry_after = "429", "40"
    await town.animate(town.ada, picture=picture())

    await town.work()
    assert "The provider is busy; I try again by myself." in text_of(town.card())
    assert "Nothing is charged until it starts." in text_of(town.card())
    assert buttons(town.card()) == ["Cancel"]
    await town.wait(39)
    assert len(town.makevid.creates) == 1
    await town.work_until_done()

    assert len(town.makevid.tasks) == 1
    assert len(town.posts()) == 1


async def test_an_unsure_job_ends_after_a_day(town: Town) -> None:
    """Nobody pressed the button: the card says that nobody knows, and stops asking."""
    town.makevid.next_create = "500"
    await town.animate(town.ada, picture=picture())
    await town.work()

    await town.wait(25 * 3600)

    assert "It may have been charged." in text_of(town.card())
    assert buttons(town.card()) == []
    assert len(town.makevid.creates) == 1


async def test_a_clip_that_fails_at_the_gateway(town: Town) -> None:
    """The gateway does not say whether it charges for failures, so neither do we."""
    town.makevid.fail_with = "risk control: sensitive content"
    await town.animate(town.ada, picture=picture())

    await town.work_until_done()

    assert "The provider's moderation refused it." in text_of(town.card())
    assert "It may have been charged." in text_of(town.card())
    assert "risk control" not in text_of(town.card())


@pytest.mark.parametrize("fault", ["503", "html", "reset", "429", "unknown_word", "no_link"])
async def test_a_poll_that_goes_wrong_costs_nothing(town: Town, fault: str) -> None:
    """It is only a question: the clip comes all the same."""
    town.makevid.next_poll = fault
    await town.posted(town.ada)

    assert len(town.makevid.creates) == 1


@pytest.mark.parametrize("fault", ["503", "truncated", "429", "untyped", "redirect", "403", "empty"])
async def test_a_download_that_goes_wrong_is_done_again(town: Town, fault: str) -> None:
    """The clip is paid for: it is fetched until it is there."""
    town.makevid.next_clip = fault
    await town.posted(town.ada)

    assert len(town.makevid.creates) == 1


async def test_one_odd_answer_is_not_the_end_of_a_paid_clip(town: Town) -> None:
    """The gateway serves a page once: the clip is asked for again and posted."""
    town.makevid.next_clip = "html"
    await town.animate(town.ada, picture=picture())

    await town.work_until_done()

    assert len(town.posts()) == 1


async def test_a_clip_that_is_none(town: Town) -> None:
    """The gateway goes on serving a page: an honest end, with what it cost."""
    await town.animate(town.ada, picture=picture())
    for _ in range(20):
        town.makevid.next_clip = "html"
        await town.env.advance_time(120)
        await town.work()

    assert "is not a video that I can post" in text_of(town.card())
    assert "It was charged." in text_of(town.card())
    assert len(town.makevid.creates) == 1


async def test_a_late_clip_is_still_posted(town: Town) -> None:
    """Past every deadline the card says so, and the clip is posted when it comes."""
    town.makevid.polls_until_done = 10_000
    await town.animate(town.ada, picture=picture())
    await town.work()
    for _ in range(3):
        await town.wait(600)
    assert "Taking longer than usual; I keep asking" in text_of(town.card())

    town.makevid.polls_until_done = 0
    await town.wait(600)

    assert len(town.posts()) == 1


# The card is deleted


async def test_deleting_the_card_calls_a_waiting_job_off(town: Town) -> None:
    """A moderator deletes the card before anything was paid: nothing is."""
    await town.animate(town.ada, picture=picture())

    await town.moderator.delete(town.card())
    await town.work_until_done()

    job = await town.job()
    assert (job.state, job.charge) == (State.CANCELLED, Charge.NONE)
    assert town.makevid.creates == []


async def test_deleting_many_messages_calls_waiting_jobs_off(town: Town) -> None:
    """A purge is one event for all of them."""
    for member in (town.ada, town.bob):
        await town.animate(member, picture=picture())

    town.env.backend.bulk_delete_messages(town.channel.id, [card.id for card in town.cards()])
    await town.env.settle()
    await town.work_until_done()

    assert [job.state for job in await town.jobs()] == [State.CANCELLED] * 2
    assert town.makevid.creates == []


async def test_deleting_the_card_later_does_not_cost_the_clip(town: Town) -> None:
    """It is paid for: the post comes, without its source picture."""
    await town.animate(town.ada, picture=picture())
    await town.work()

    await town.moderator.delete(town.card())
    await town.work_until_done()

    [post] = town.posts()
    assert pictures_in(post) == []
    assert len(town.makevid.creates) == 1


async def test_a_card_that_vanished_unseen(town: Town) -> None:
    """Deleted while the gateway was away, so no event came: found out before the paid call."""
    await town.animate(town.ada, picture=picture())
    del town.env.backend.messages[town.channel.id][town.card().id]

    await town.work_until_done()

    job = await town.job()
    assert (job.state, job.cause, job.charge) == (State.FAILED, Cause.PICTURE_GONE, Charge.NONE)
    assert town.makevid.creates == []


# What nobody expected


async def test_an_unexpected_error_shows_a_reference_only(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One fixed sentence; the exception's text stays in the log, under the same reference."""

    def broken(*_args: object) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(town.animatic.desk, "plan", broken)
    with capture_logs() as logs:
        result = await town.animate(town.ada, picture=picture())

    assert_error(town.env, RuntimeError)
    [line] = [line for line in logs if line["event"] == "unexpected_error"]
    assert said(result) == (
        f"Something went wrong on my side. If it happens again, tell the owner this: `{line['reference']}`."
    )
    assert line["log_level"] == "error"
    assert await town.nothing_came_of_it()


async def test_an_unexpected_error_after_the_deferral_is_private_too(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The answer replaces “thinking…”, which must not stand there for ever."""

    async def broken(*_args: object, **_more: object) -> None:
        raise RuntimeError("password=hunter2")

    monkeypatch.setattr(town.animatic.desk, "request", broken)
    result = await town.animate(town.ada, picture=picture())

    assert_error(town.env, RuntimeError)
    assert said(result).startswith("Something went wrong on my side.")
    assert "hunter2" not in said(result)


async def test_an_expired_interaction_is_only_logged(town: Town) -> None:
    """Discord took three seconds too long: nobody can be told, and nothing was queued."""
    town.env.inject_error("POST", "/interactions/*/callback", status=404, code=10062)

    with capture_logs() as logs:
        result = await town.animate(town.ada, picture=picture())

    assert_error(town.env, discord.NotFound, code=10062)
    assert [line["log_level"] for line in logs if line["event"] == "interaction_expired"] == ["warning"]
    assert "unexpected_error" not in [line["event"] for line in logs]
    assert not result.acknowledged
    assert await town.nothing_came_of_it()


async def test_a_deferral_whose_answer_was_lost_counts(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """discord.py repeats it, and Discord says that it knows already: the clip is queued, and the asker reads so."""
    defer = Interaction.defer

    def take_and_say_so(self: Interaction, *args: Any, **more: Any) -> None:
        defer(self, *args, **more)
        raise BackendError(400, 40060, "Interaction has already been acknowledged")

    monkeypatch.setattr(Interaction, "defer", take_and_say_so)

    result = await town.animate(town.ada, picture=picture())

    assert said(result).startswith("On its way: Kling")
    assert (await town.job()).state is State.QUEUED
