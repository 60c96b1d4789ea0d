"""What comes from a post: a remix, another model's clip, what happens next; by anybody, after any restart."""

import base64
import io
from datetime import timedelta

import pytest
from PIL import Image
from simcord import InteractionResult, MemberActor

from bot.jobs.machine import Lineage
from tests.cogs.conftest import (
    MODELS,
    POST_BUTTONS,
    Town,
    answer_to,
    buttons,
    chosen,
    clip_in,
    fields,
    parts_of,
    picture,
    pictures_in,
    red_clip,
    said,
    text_of,
)
from tests.cogs.test_menu import submit

PEOPLE = ["asker", "moderator", "stranger"]


def person(town: Town, name: str) -> MemberActor:
    return {"asker": town.ada, "moderator": town.moderator, "stranger": town.bob}[name]


# Remix


@pytest.mark.parametrize("who", PEOPLE)
async def test_remix(town: Town, who: str) -> None:
    """Everything is filled in; other words make another clip from the same picture, in the presser's name."""
    post = await town.posted(town.ada, prompt="waves", seconds=10, quality="1080p", negative="blur")
    member = person(town, who)

    opened = await member.click(post, label="Remix")
    shown = fields(opened)
    assert opened.modal
    assert opened.modal["title"] == "Remix"
    filled = {name: chosen(field) for name, field in shown.items() if name != "ratio"}
    assert filled == {"prompt": ["waves"], "model": ["kling"], "seconds": ["10"], "quality": ["1080p"]}
    result = await submit(town, member, opened, prompt="storm", seconds="5")
    await town.work_until_done()

    assert said(result).startswith("On its way: Kling, 5 s")
    _, remix = town.posts()
    assert f"{member.mention}, here is your remix." in text_of(remix)
    first, second = town.makevid.creates
    assert second.body["prompt"] == "storm"
    assert second.body["image"] == first.body["image"]
    assert second.body["negative_prompt"] == "blur"
    parent, child = await town.jobs()
    assert (child.parent_id, child.lineage) == (parent.id, Lineage.REMIX)
    assert child.picture_by == (None if member is town.ada else town.ada.id)


async def test_a_remix_by_another_model(town: Town) -> None:
    """What that model does not have gives way: quality and negative prompt are Kling's."""
    post = await town.posted(town.ada, quality="1080p", negative="blur", strength=0.7)

    result = await submit(town, town.bob, await town.bob.click(post, label="Remix"), model="runway")
    await town.work_until_done()

    assert said(result).startswith("On its way: Runway, 5 s, $0.25.")
    _, child = await town.jobs()
    assert (child.model, child.quality, child.negative_prompt, child.strength) == ("runway", None, None, None)
    assert len(town.posts()) == 2


async def test_remixes_may_run_beside_each_other(town: Town) -> None:
    """One open take of a clip, but as many remixes as a member may have clips."""
    post = await town.posted(town.ada)
    await town.bob.click(post, label="Again")

    for prompt in ("storm", "calm"):
        opened = await town.bob.click(post, label="Remix")
        assert said(await submit(town, town.bob, opened, prompt=prompt)).startswith("On its way")
    await town.work_until_done()

    assert len(town.posts()) == 4


async def test_a_remix_is_refused_with_the_words_given_back(town: Town) -> None:
    """Discord forgets what was typed."""
    post = await town.posted(town.ada)
    opened = await town.bob.click(post, label="Remix")

    result = await submit(town, town.bob, opened, prompt="storm", model="luma", quality="1080p")

    assert said(result).startswith("Luma has no choice of quality.")
    assert said(result).endswith("```\nstorm\n```")
    assert len(await town.jobs()) == 1


@pytest.mark.usefixtures("clips_of_a_real_size")
@pytest.mark.parametrize("label", ["Remix", "Continue"])
async def test_a_form_survives_a_restart(town: Town, label: str) -> None:
    """Opened before it, sent after it: all that is needed stands in the form."""
    post = await town.posted(town.ada)
    await town.env.advance_time(timedelta(days=40).total_seconds())
    opened = await town.bob.click(post, label=label)
    await town.restart()

    result = await submit(town, town.bob, opened, prompt="storm")
    await town.work_until_done()

    assert said(result).startswith("On its way")
    assert len(town.posts()) == 2


@pytest.mark.parametrize("label", ["Remix", "Other model", "Continue"])
async def test_a_permission_is_missing(town: Town, label: str) -> None:
    """Named privately at the press."""
    post = await town.posted(town.ada)
    town.forbid("attach_files")

    result = await town.bob.click(post, label=label)

    assert "**Attach Files**" in said(result)
    assert result.modal is None


async def test_a_permission_was_lost_while_somebody_wrote(town: Town) -> None:
    """Looked at again when the form comes."""
    post = await town.posted(town.ada)
    opened = await town.bob.click(post, label="Remix")
    town.forbid("attach_files")

    result = await submit(town, town.bob, opened, prompt="storm")

    assert "**Attach Files**" in said(result)
    assert said(result).endswith("```\nstorm\n```")
    assert len(await town.jobs()) == 1


async def test_a_remix_when_the_post_is_gone(town: Town) -> None:
    """Deleted while somebody wrote."""
    post = await town.posted(town.ada)
    await town.env.settle()
    opened = await town.bob.click(post, label="Remix")
    town.env.backend.cdn._blobs.clear()

    result = await submit(town, town.bob, opened, prompt="storm")

    assert said(result).startswith("The picture of that clip is gone, so I cannot make it again.")
    assert len(await town.jobs()) == 1


async def test_a_remix_of_a_clip_from_words_alone(town: Town) -> None:
    """Here the ratio is a question, and only models that need no picture are offered."""
    post = await town.posted(town.ada, prompt="a fox runs", picture=None, ratio="1:1")

    opened = await town.bob.click(post, label="Remix")
    shown = fields(opened)
    await submit(town, town.bob, opened, prompt="a fox sleeps", ratio="16:9")
    await town.work_until_done()

    assert chosen(shown["ratio"]) == ["1:1"]
    assert "runway" not in [option["value"] for option in shown["model"]["options"]]
    assert town.makevid.creates[1].body["aspect_ratio"] == "16:9"


async def test_a_remix_when_its_model_is_gone(town: Town) -> None:
    """The form begins with one that is there."""
    post = await town.posted(town.ada)
    await town.restart(models={name: MODELS[name] for name in ("luma", "runway")})

    opened = await town.bob.click(post, label="Remix")
    result = await submit(town, town.bob, opened)

    assert chosen(fields(opened)["model"]) == ["luma"]
    assert said(result).startswith("On its way: Luma")


# Other model


@pytest.mark.parametrize("who", PEOPLE)
async def test_other_model(town: Town, who: str) -> None:
    """A private menu with prices; the same clip by another model."""
    post = await town.posted(town.ada, prompt="waves")
    member = person(town, who)

    shown = await member.click(post, label="Other model")
    assert said(shown) == "The same clip by another model than Kling: which one?"
    [select] = [part for part in parts_of(answer_to(shown)) if part["type"] == 3]
    assert [(option["label"], option["description"]) for option in select["options"]][:2] == [
        ("Luma", "5 s · $0.30"),
        ("Runway", "5 s · $0.25"),
    ]
    await member.select(answer_to(shown), ["runway"])
    await town.work_until_done()

    assert answer_to(shown).content.startswith("On its way: Runway, 5 s, $0.25.")
    assert answer_to(shown).components == []
    assert f"{member.mention}, here it is by another model." in text_of(town.posts()[1])
    parent, child = await town.jobs()
    assert (child.parent_id, child.lineage, child.model) == (parent.id, Lineage.MODEL, "runway")


async def test_only_models_that_can_do_it_are_offered(town: Town) -> None:
    """An end picture is Kling's and Luma's."""
    post = await town.posted(town.ada, end_picture=picture(500, 500))

    shown = await town.bob.click(post, label="Other model")

    [select] = [part for part in parts_of(answer_to(shown)) if part["type"] == 3]
    assert "runway" not in [option["value"] for option in select["options"]]


async def test_no_other_model_can_do_it(town: Town) -> None:
    """Said privately."""
    post = await town.posted(town.ada, end_picture=picture(500, 500))
    await town.restart(models={name: MODELS[name] for name in ("kling", "runway")})

    result = await town.bob.click(post, label="Other model")

    assert said(result) == "No other model here can do this; there is only Kling. Nothing was charged."


async def test_the_same_model_chosen_twice_is_paid_once(town: Town) -> None:
    """A press that came twice; another model may run beside it."""
    post = await town.posted(town.ada)
    first = answer_to(await town.bob.click(post, label="Other model"))
    second = answer_to(await town.bob.click(post, label="Other model"))
    third = answer_to(await town.bob.click(post, label="Other model"))
    await town.bob.select(first, ["runway"])

    refused = await town.bob.select(second, ["runway"])
    await town.bob.select(third, ["luma"])
    await town.work_until_done()

    assert [answer.content for answer in refused.followups] == [
        "You already have this clip in the queue once. Nothing was charged."
    ]
    assert len(town.posts()) == 3


async def test_other_model_after_restarts(town: Town) -> None:
    """Before the press, and between the menu and the choice."""
    post = await town.posted(town.ada)
    await town.restart()
    shown = await town.bob.click(post, label="Other model")
    await town.restart()

    await town.bob.select(answer_to(shown), ["luma"])
    await town.work_until_done()

    assert len(town.posts()) == 2


async def test_a_model_that_went_while_the_menu_was_open(town: Town) -> None:
    """Refused, naming those that are there; the menu stays for another choice."""
    post = await town.posted(town.ada)
    shown = await town.bob.click(post, label="Other model")
    await town.restart(models={name: MODELS[name] for name in ("kling", "luma")})

    result = await town.bob.select(answer_to(shown), ["runway"])

    assert result.followups[0].content.startswith("I do not have the model “runway”.")
    assert len(await town.jobs()) == 1


# Continue


@pytest.fixture
def clips_of_a_real_size(town: Town) -> None:
    """Ten frames that grow redder, from 0 to 225: large enough to go on from."""
    town.makevid.clip = red_clip()


async def continued(town: Town, member: MemberActor, post: object, **changes: str) -> InteractionResult:
    opened = await member.click(post, label="Continue")  # type: ignore[arg-type]
    assert chosen(fields(opened)["prompt"]) == [""]
    return await submit(town, member, opened, **changes)


@pytest.mark.usefixtures("clips_of_a_real_size")
@pytest.mark.parametrize("who", PEOPLE)
async def test_continue(town: Town, who: str) -> None:
    """The next clip begins with the last frame of this one."""
    post = await town.posted(town.ada, prompt="waves")
    member = person(town, who)

    result = await continued(town, member, post, prompt="a boat comes")
    await town.work_until_done()

    assert said(result).startswith("On its way: Kling")
    _, more = town.posts()
    assert f"{member.mention}, here is how it goes on." in text_of(more)
    parent, child = await town.jobs()
    assert (child.parent_id, child.lineage) == (parent.id, Lineage.CONTINUE)
    create = town.makevid.creates[1]
    assert create.body["prompt"] == "a boat comes"
    with Image.open(io.BytesIO(base64.b64decode(create.body["image"]))) as frame:
        assert frame.convert("RGB").getpixel((frame.width // 2, frame.height // 2))[0] > 200
    assert town.file(pictures_in(more)[0]) == base64.b64decode(create.body["image"])


@pytest.mark.usefixtures("clips_of_a_real_size")
async def test_continue_a_clip_from_words_alone(town: Town) -> None:
    """It has a picture now, whose shape the clip takes."""
    post = await town.posted(town.ada, prompt="a fox runs", picture=None, ratio="1:1")

    await continued(town, town.bob, post)
    await town.work_until_done()

    _, child = await town.jobs()
    assert child.ratio is None
    assert child.picture_file
    assert len(town.posts()) == 2


@pytest.mark.usefixtures("clips_of_a_real_size")
async def test_continue_with_an_end_picture(town: Town) -> None:
    """Where the clip ended, the next one begins; the end picture is not asked for again."""
    post = await town.posted(town.ada, end_picture=picture(500, 500))

    await continued(town, town.bob, post, model="runway", prompt="on")
    await town.work_until_done()

    _, child = await town.jobs()
    assert child.end_picture_file is None
    assert len(town.posts()) == 2


async def test_continue_when_the_clip_is_gone(town: Town) -> None:
    """Its file is no longer there, or is no clip any more."""
    post = await town.posted(town.ada)
    clip = clip_in(post)
    assert clip
    town.env.backend.cdn._blobs[clip.url] = b"no clip"

    damaged = await continued(town, town.bob, post)
    del town.env.backend.cdn._blobs[clip.url]
    gone = await continued(town, town.bob, post)

    for result in (damaged, gone):
        assert said(result) == "The clip is gone, so I cannot go on from it. Nothing was charged."
    assert len(await town.jobs()) == 1


async def test_discord_is_away_for_a_moment(town: Town) -> None:
    """Said so; nothing is queued."""
    post = await town.posted(town.ada)
    town.env.inject_error("GET", f"*/messages/{post.id}", status=503)

    result = await continued(town, town.bob, post)

    assert "I could not fetch the picture just now. Please try again." in said(result)
    assert len(await town.jobs()) == 1


# All of them


@pytest.mark.usefixtures("clips_of_a_real_size")
async def test_everything_works_on_what_came_from_a_post(town: Town) -> None:
    """A remix has the same buttons, and is as good a parent as its own."""
    post = await town.posted(town.ada)
    await submit(town, town.bob, await town.bob.click(post, label="Remix"), prompt="storm")
    await town.work_until_done()
    await town.moderator.delete(post)
    [remix] = town.posts()
    assert buttons(remix) == POST_BUTTONS

    await continued(town, town.ada, remix, prompt="on")
    await town.work_until_done()

    assert len(town.posts()) == 2
    assert [job.picture_by for job in await town.jobs()] == [None, town.ada.id, None]
