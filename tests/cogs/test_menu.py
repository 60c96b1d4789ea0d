"""*Animate this picture*, in the menu of a message: anybody's pictures, without any privileged intent."""

import base64
import io
from typing import Any

import discord
import pytest
from PIL import Image
from simcord import ChannelHandle, InteractionResult, MemberActor

from bot.errors import Cause, ProviderRejected
from bot.jobs.machine import Job
from tests.cogs.conftest import (
    MODELS,
    Town,
    answer_to,
    chosen,
    fields,
    parts_of,
    picture,
    pictures_in,
    said,
    text_of,
)

MENU = "Animate this picture"


async def pick(
    town: Town, member: MemberActor, message: discord.Message, channel: ChannelHandle | None = None
) -> InteractionResult:
    return await member.context_menu(channel or town.channel, MENU, message)


async def send(town: Town, member: MemberActor, *files: tuple[str, bytes]) -> discord.Message:
    return await member.send(town.channel, "look", attachments=files or [("holiday.png", picture())])


def answers(opened: InteractionResult, **changes: str) -> dict[str, Any]:
    """What a person sends who changes only this in a modal: all else is sent as it was shown."""
    shown = {name: chosen(field) for name, field in fields(opened).items()}
    answered = shown | {name: [value] for name, value in changes.items()}
    return {name: value[0] if name == "prompt" else value for name, value in answered.items()}


async def submit(
    town: Town, member: MemberActor, opened: InteractionResult, **changes: str
) -> InteractionResult:
    return await member.submit_modal(opened, answers(opened, **changes))


async def only_job(town: Town) -> Job:
    return await town.job()


async def test_somebody_elses_picture_becomes_a_clip(town: Town) -> None:
    """Bob animates what Ada sent: the clip is Bob's, and the row knows whose picture it is."""
    message = await send(town, town.ada)

    opened = await pick(town, town.bob, message)
    result = await submit(town, town.bob, opened, prompt="waves")
    await town.work_until_done()

    assert said(result) == "On its way: Kling, 5 s, $0.35. The card in the channel tells more."
    [post] = town.posts()
    assert f"{town.bob.mention}, here is your clip." in text_of(post)
    assert (await only_job(town)).picture_by == town.ada.id
    [create] = town.makevid.creates
    assert create.body["prompt"] == "waves"
    image = town.file(pictures_in(post)[0])
    assert create.body["image"] == base64.b64encode(image).decode()


async def test_the_form_begins_with_the_defaults(town: Town) -> None:
    """Prompt, model with prices, seconds and quality; what no model can do with a picture is not asked."""
    opened = await pick(town, town.bob, await send(town, town.ada))

    shown = fields(opened)
    assert opened.modal
    assert opened.modal["title"] == MENU
    assert list(shown) == ["prompt", "model", "seconds", "quality", "ratio"][: len(shown)]
    assert chosen(shown["model"]) == ["kling"]
    assert chosen(shown["seconds"]) == ["5"]
    assert chosen(shown["quality"]) == ["720p"]
    described = {option["label"]: option["description"] for option in shown["model"]["options"]}
    assert described["Kling"] == "5 s · 720p · $0.35"
    assert described["Sketch"].endswith("free")


async def test_another_model_with_what_it_can_do(town: Town) -> None:
    """The quality that was preselected for Kling gives way; the card says what it costs."""
    opened = await pick(town, town.bob, await send(town, town.ada))

    result = await submit(town, town.bob, opened, prompt="waves", model="luma")

    assert said(result).startswith("On its way: Luma, 5 s, $0.30.")
    job = await only_job(town)
    assert (job.model, job.quality) == ("luma", None)


async def test_what_a_person_chose_does_not_give_way(town: Town) -> None:
    """Refused in words, which cost nothing; the prompt is given back."""
    opened = await pick(town, town.bob, await send(town, town.ada))

    result = await submit(town, town.bob, opened, prompt="great ```waves", model="luma", quality="1080p")

    assert said(result) == (
        "Luma has no choice of quality. Leave `quality` out. "
        "Or choose another `model`: Kling can do this. Nothing was charged.\n"
        "Your prompt, to copy:\n```\ngreat '''waves\n```"
    )
    assert await town.nothing_came_of_it()


async def test_one_of_several_pictures(town: Town) -> None:
    """The first question is which; the fifth is left to the model."""
    wide, tall = picture(800, 400), picture(400, 800)
    message = await send(town, town.ada, ("wide.png", wide), ("notes.txt", b"text"), ("tall.png", tall))

    opened = await pick(town, town.bob, message)

    shown = fields(opened)
    assert opened.modal
    assert len(opened.modal["components"]) <= 5
    assert next(iter(shown)) == "picture"
    assert [option["label"] for option in shown["picture"]["options"]] == ["1. wide.png", "2. tall.png"]
    assert chosen(shown["picture"]) == ["0"]
    await submit(town, town.bob, opened, picture="1")
    with Image.open(io.BytesIO(town.file(pictures_in(town.card())[0]))) as image:
        assert image.height > image.width


async def test_a_forwarded_picture(town: Town) -> None:
    """It stands in the snapshot; the one who forwarded it is taken for its owner."""
    elsewhere = town.guild.create_text_channel("elsewhere")
    source = await town.ada.send(elsewhere, attachments=[("holiday.png", picture())])
    message = await town.moderator.forward(source, town.channel)

    opened = await pick(town, town.bob, message)
    await submit(town, town.bob, opened)
    await town.work_until_done()

    assert len(town.posts()) == 1
    assert (await only_job(town)).picture_by == town.moderator.id


async def test_a_picture_in_an_embed(town: Town) -> None:
    """Discord's own copy of it is fetched, never the address that somebody else wrote."""
    copy = f"https://cdn.simcord.invalid/copies/{'x' * 300}/cat.png"
    town.env.backend.cdn._blobs[copy] = picture()
    embed = {
        "type": "rich",
        "title": "cat",
        "image": {"url": "https://example.com/cat.png", "proxy_url": copy, "width": 640, "height": 480},
        "thumbnail": {"url": "http://127.0.0.1/secret.png"},
    }
    hook = town.guild.create_webhook(town.channel, name="news")
    message = await hook.send("cat", embed=discord.Embed.from_dict(embed))
    town.env.backend.get_message(town.channel.id, message.id).embeds = [embed]

    opened = await pick(town, town.bob, message)
    await submit(town, town.bob, opened)
    await town.work_until_done()

    assert len(town.posts()) == 1
    assert "picture" not in fields(opened)


COPY = "https://cdn.simcord.invalid/copies"


def arrange(town: Town, message: discord.Message, **parts: list[dict[str, Any]]) -> None:
    """Make a message what another app would have sent; Discord's copies of its pictures can be fetched."""
    stored = town.env.backend.get_message(town.channel.id, message.id)
    for name, value in parts.items():
        setattr(stored, name, value)


async def test_pictures_in_components(town: Town) -> None:
    """Of another app's message: galleries, thumbnails, files; neither clips nor addresses that Discord did not copy."""
    message = await town.moderator.send(town.channel, "x", attachments=[("own.png", picture())])
    own = town.env.backend.get_message(town.channel.id, message.id).attachments[0]
    town.env.backend.cdn._blobs[f"{COPY}/2/sea"] = picture(800, 400)

    def media(url: str, **facts: Any) -> dict[str, Any]:
        return {"url": url, "content_type": "image/png", **facts}

    gallery = [
        media("https://example.com/sea.png", proxy_url=f"{COPY}/2/sea", width=800, height=400),
        media("https://example.com/clip.mp4", proxy_url=f"{COPY}/3/clip", content_type="video/mp4"),
        media("http://127.0.0.1/secret.png"),
    ]
    section = {
        "type": 9,
        "components": [{"type": 10, "content": "words"}],
        "accessory": {"type": 11, "media": media(own["url"], attachment_id=own["id"], width=64, height=48)},
    }
    container = {
        "type": 17,
        "components": [section, {"type": 12, "items": [{"media": item} for item in gallery]}],
    }
    file = {"type": 13, "file": media("https://example.com/b.png", proxy_url=f"{COPY}/4/b")}
    arrange(town, message, components=[container, file], attachments=[])

    opened = await pick(town, town.bob, message)
    await submit(town, town.bob, opened, picture="1")

    options = fields(opened)["picture"]["options"]
    assert [(option["label"], option.get("description")) for option in options] == [
        ("1. own.png", "64 × 48"),
        ("2. sea.png", "800 × 400"),
        ("3. b.png", None),
    ]
    with Image.open(io.BytesIO(town.file(pictures_in(town.card())[0]))) as image:
        assert image.width > image.height


async def test_a_huge_copy_is_asked_for_smaller(town: Town) -> None:
    """Nobody says how many bytes it has, but Discord serves every size."""
    link = f"{COPY}/huge.png?width=4096&height=2048"
    town.env.backend.cdn._blobs[link] = picture(1024, 512)
    message = await town.ada.send(town.channel, "look")
    image = {"url": "https://example.com/huge.png", "proxy_url": f"{COPY}/huge.png"}
    arrange(town, message, embeds=[{"type": "image", "thumbnail": image | {"width": 40960, "height": 20480}}])

    result = await submit(town, town.bob, await pick(town, town.bob, message))

    assert said(result).startswith("On its way")


async def test_the_same_file_twice_is_one_picture(town: Town) -> None:
    """An app's embed shows a file of the same message, by Discord's other host."""
    message = await send(town, town.ada)
    file = town.env.backend.get_message(town.channel.id, message.id).attachments[0]
    other = file["url"].replace("cdn.", "media.")
    arrange(town, message, embeds=[{"type": "rich", "image": {"url": file["url"], "proxy_url": other}}])

    opened = await pick(town, town.bob, message)

    assert "picture" not in fields(opened)


async def test_a_model_out_of_reach_is_not_offered(town: Town) -> None:
    """Its route is in trouble: neither in the form nor among the other models."""
    post = await town.posted(town.ada)
    await town.animatic.desk._health.failed("makevid", ProviderRejected(Cause.BAD_KEY))

    opened = await pick(town, town.bob, post)
    others = await town.bob.click(post, label="Other model")

    assert [option["value"] for option in fields(opened)["model"]["options"]] == ["sketch"]
    [select] = [part for part in parts_of(answer_to(others)) if part["type"] == 3]
    assert [option["value"] for option in select["options"]] == ["sketch"]
    assert said(await submit(town, town.bob, opened, prompt="waves")).startswith("On its way: Sketch")


async def test_the_source_picture_of_a_post(town: Town) -> None:
    """A V2 message lists no attachments; the clip is no picture; the owner is who posted the picture first."""
    post = await town.posted(town.ada)

    opened = await pick(town, town.bob, post)
    await submit(town, town.bob, opened)
    await town.work_until_done()

    assert "picture" not in fields(opened)
    assert len(town.posts()) == 2
    assert [job.picture_by for job in await town.jobs()] == [None, town.ada.id]


@pytest.mark.parametrize("files", [(), (("notes.txt", b"text"), ("clip.mp4", b"clip"))])
async def test_a_message_without_pictures(town: Town, files: tuple[tuple[str, bytes], ...]) -> None:
    """Said privately, at once."""
    message = await town.ada.send(town.channel, "hello", attachments=files)

    result = await pick(town, town.bob, message)

    assert (
        town.refusal(result)
        == "There is no picture in this message that I could animate. Nothing was charged."
    )


async def test_a_permission_is_missing(town: Town) -> None:
    """Named before anybody types a prompt."""
    message = await send(town, town.ada)
    town.forbid("attach_files")

    result = await pick(town, town.bob, message)

    assert "**Attach Files**" in town.refusal(result)
    assert result.modal is None


async def test_the_members_limit_holds(town: Town) -> None:
    """Before the form, and once more after it."""
    message = await send(town, town.ada)
    opened = await pick(town, town.bob, message)
    for _ in range(3):
        await town.animate(town.bob, picture=picture())

    result = await submit(town, town.bob, opened, prompt="waves")

    assert "You already have 3 clips in the works" in said(result)
    assert said(result).endswith("```\nwaves\n```")
    assert "You already have 3 clips" in town.refusal(await pick(town, town.bob, message))


async def test_a_large_picture(town: Town) -> None:
    """Refused by what Discord says of its size, before it is fetched."""
    message = await send(town, town.ada)
    town.env.backend.get_message(town.channel.id, message.id).attachments[0]["size"] = 26 * 2**20

    result = await submit(town, town.bob, await pick(town, town.bob, message))

    assert "26 MB, and 25 MB is the most I can take" in said(result)
    assert await town.nothing_came_of_it()


async def test_a_picture_that_was_deleted_meanwhile(town: Town) -> None:
    """Between the menu and the answer."""
    opened = await pick(town, town.bob, await send(town, town.ada))
    town.env.backend.cdn._blobs.clear()

    result = await submit(town, town.bob, opened)

    assert said(result).startswith("The picture could not be fetched from Discord.")
    assert await town.nothing_came_of_it()


async def test_a_restart_while_somebody_writes(town: Town) -> None:
    """Which picture it was is forgotten, and said so; the words are given back."""
    opened = await pick(town, town.bob, await send(town, town.ada))
    await town.restart()

    result = await submit(town, town.bob, opened, prompt="waves")

    assert said(result).startswith("I was restarted while you wrote")
    assert said(result).endswith("```\nwaves\n```")
    assert await town.nothing_came_of_it()


async def test_the_menu_works_after_a_restart(town: Town) -> None:
    """On a message of the last run."""
    message = await send(town, town.ada)
    await town.restart()

    await submit(town, town.bob, await pick(town, town.bob, message))
    await town.work_until_done()

    assert len(town.posts()) == 1


async def test_one_model_alone_asks_little(town: Town) -> None:
    """With the sketch only there is nothing to choose but the words and the length; the price is told."""
    await town.restart(models={"sketch": MODELS["sketch"]})
    opened = await pick(town, town.bob, await send(town, town.ada))

    assert [option["description"] for option in fields(opened)["model"]["options"]] == ["5 s · free"]
    assert set(fields(opened)) <= {"prompt", "model", "seconds"}


def test_no_privileged_intent(town: Town) -> None:
    """A context menu brings the message with it."""
    intents = town.animatic.bot.intents

    assert not intents.message_content
    assert not intents.members
    assert not intents.presences
