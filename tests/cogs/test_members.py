"""`/mydata` and `/consent`, as a member and as others see it, with restarts in between."""

import json
from typing import Any

import discord
import pytest
from simcord import InteractionResult, assert_error

from bot.errors import Refusal
from bot.jobs.desk import Who
from bot.jobs.machine import Job, State
from bot.ui.catalogue import ANIMATE_MENU
from tests.cogs.conftest import Town, picture, said, text_of
from tests.cogs.test_lists import past_jobs, shown
from tests.cogs.test_menu import submit


def file_of(town: Town, result: InteractionResult) -> dict[str, Any]:
    """The export that came with a private answer."""
    [answer] = result.followups or [result.response]
    assert answer
    assert answer.ephemeral
    [attachment] = answer.attachments
    assert attachment.filename == "animatic-my-data.json"
    data = town.env.backend.cdn.get(attachment.url)
    assert data
    return json.loads(data)


async def confirm(town: Town, label: str) -> InteractionResult:
    """Ask for deletion and confirm it; a restart comes between."""
    asked = shown(await town.slash(town.ada, "mydata delete"))
    await town.restart(work=False)
    result = await town.ada.click(asked, label=label)
    await town.work_until_done()
    await town.wait(30)
    await town.wait(30)
    return result


NOT_ALLOWED = "{} does not want others to animate their pictures. Nothing was charged."


# /mydata export


async def test_export(town: Town) -> None:
    """All of one's own clips with what they cost, from all servers, and nobody else's; only the member sees it."""
    await town.posted(town.ada, prompt="waves", negative="blur")
    await past_jobs(town, 1, guild_id=1, prompt="far away")
    await past_jobs(town, 1, asker_id=town.bob.id, prompt="of bob")

    result = await town.slash(town.ada, "mydata export")
    data = file_of(town, result)

    assert [clip["prompt"] for clip in data["clips"]] == ["far away", "waves"]
    clip = data["clips"][1]
    assert (clip["negative_prompt"], clip["asker_id"]) == ("blur", str(town.ada.id))
    assert [(cost["kind"], cost["cents"]) for cost in clip["costs"]] == [("reserve", 35), ("charge", 35)]
    assert not {"worker", "clip_url", "provider_task"} & clip.keys()
    assert said(result) == "All that is stored about you: 2 clips, the newest first, as JSON."


async def test_export_of_nothing(town: Town) -> None:
    """An honest file."""
    result = await town.slash(town.bob, "mydata export")

    assert file_of(town, result)["clips"] == []
    assert said(result).startswith("No clip of yours is stored.")


async def test_export_is_asked_for_once_a_minute(town: Town) -> None:
    """It reads all of one's rows."""
    await town.slash(town.ada, "mydata export")

    result = await town.slash(town.ada, "mydata export")

    assert_error(town.env, discord.app_commands.CommandOnCooldown)
    assert said(result).startswith("Please wait")
    file_of(town, await town.slash(town.bob, "mydata export"))


async def test_a_large_export_is_cut_honestly(town: Town) -> None:
    """The newest first, as many as fit, and how many did not."""
    await past_jobs(town, 5, prompt="x" * 1000)
    asker = who_of(town, town.ada.id)

    export = await town.animatic.bot.archive.export(asker, max_bytes=4000)

    assert len(export.data) <= 4000
    assert (export.jobs, export.left_out) == (2, 3)
    assert len(json.loads(export.data)["clips"]) == 2


def who_of(town: Town, member_id: int) -> Who:
    return Who(id=member_id, channel_id=town.channel.id, guild_id=town.guild.id)


# /mydata delete


async def test_nothing_is_deleted_before_it_is_confirmed(town: Town) -> None:
    """The question says what would happen."""
    await town.posted(town.ada)
    await town.animate(town.ada, picture=picture())

    text = text_of(shown(await town.slash(town.ada, "mydata delete")))

    assert "**Waiting: 1.**" in text
    assert "**Under way: 0.**" in text
    assert "**Ended: 1.**" in text
    assert [job.asker_id for job in await town.jobs()] == [town.ada.id] * 2


async def test_delete_my_data(town: Town) -> None:
    """Names, words and links go; the post stays, without its controls; the costs stay, and balance."""
    post = await town.posted(town.ada, prompt="waves", negative="blur")
    other = await town.posted(town.bob, prompt="dunes")

    result = await confirm(town, "Delete my data")

    mine, bobs = await town.jobs()
    assert "Your data is being deleted" in text_of(shown(result))
    assert (mine.asker_id, mine.prompt, mine.negative_prompt, mine.post_id) == (0, "", None, None)
    assert (bobs.asker_id, bobs.prompt, bobs.post_id) == (town.bob.id, "dunes", other.id)
    assert [message.id for message in town.posts()] == [post.id, other.id]
    assert await town.animatic.store.money(mine.id) == {"reserve": 35, "charge": 35}
    assert "No clips to show" in text_of(shown(await town.slash(town.ada, "history", member=town.ada)))
    pressed = await town.bob.click(post, label="Again")
    assert said(pressed) == "I do not know this clip any more."
    await town.bob.react(post, "🔁")
    assert len(await town.jobs()) == 2


async def test_delete_my_posts_too(town: Town) -> None:
    """The bot's messages with one's clips are gone from the channel; others' are not."""
    await town.posted(town.ada)
    other = await town.posted(town.bob)

    await confirm(town, "Delete my data and my posts")

    assert [message.id for message in town.posts()] == [other.id]


async def test_waiting_clips_are_cancelled_and_their_cards_go(town: Town) -> None:
    """Nothing is paid, the reservation is given back, and the prompt does not stay in the channel."""
    await town.animate(town.ada, prompt="waves", picture=picture())

    result = await confirm(town, "Delete my data")

    job = await town.job()
    assert "1 clip cancelled. Nothing was charged for that." in text_of(shown(result))
    assert (job.state, job.prompt, job.asker_id) == (State.CANCELLED, "", 0)
    assert await town.animatic.store.money(job.id) == {"reserve": 35, "release": 35}
    assert town.makevid.creates == []
    assert town.cards() == []


async def test_a_paid_clip_is_delivered_first(town: Town) -> None:
    """It is never lost; when it is posted, it is forgotten."""
    town.makevid.polls_until_done = 0
    await town.animate(town.ada, prompt="waves", picture=picture())
    await town.work()
    assert (await town.job()).state is State.RENDERING

    result = await confirm(town, "Delete my data")

    job: Job = await town.job()
    assert "1 clip under way will be posted first" in text_of(shown(result))
    [post] = town.posts()
    assert f"{town.ada.mention}, here is your clip." in text_of(post)
    assert (job.state, job.asker_id, job.prompt) == (State.DELIVERED, 0, "")
    assert await town.animatic.store.money(job.id) == {"reserve": 35, "charge": 35}


async def test_new_clips_after_that_are_kept(town: Town) -> None:
    """It is not for ever: somebody who goes on has a history again."""
    await town.posted(town.ada, prompt="old")
    await confirm(town, "Delete my data")
    await town.posted(town.ada, prompt="new")
    await town.wait(60)

    old, new = await town.jobs()
    assert (old.prompt, new.prompt, new.asker_id) == ("", "new", town.ada.id)


async def test_only_oneself_can_confirm(town: Town) -> None:
    """Discord shows the question to nobody else; the button would refuse all the same."""
    desk = town.animatic.bot.desk

    with pytest.raises(Refusal, match="can decide this"):
        desk.require_oneself(who_of(town, town.bob.id), town.ada.id)


# /consent


async def test_consent(town: Town) -> None:
    """Allowed unless forbidden; it outlives restarts and deletion, and can be changed."""
    asked = said(await town.slash(town.ada, "consent"))
    await town.slash(town.ada, "consent", others="may not")
    await confirm(town, "Delete my data")
    forbidden = said(await town.slash(town.ada, "consent"))
    allowed = said(await town.slash(town.ada, "consent", others="may"))

    assert asked.startswith("Others may animate pictures that you posted")
    assert forbidden.startswith("Others may **not** animate pictures that you posted")
    assert allowed == asked


async def test_consent_is_asked_by_the_desk(town: Town) -> None:
    """Others are refused by name, moderators too; one's own pictures are one's own."""
    await town.slash(town.ada, "consent", others="may not")
    desk = town.animatic.bot.desk

    for member in (town.bob, town.moderator):
        with pytest.raises(Refusal, match=f"{town.ada.mention} does not want others to animate"):
            await desk.require_consent(who_of(town, member.id), town.ada.id)
    await desk.require_consent(who_of(town, town.ada.id), town.ada.id)
    await desk.require_consent(who_of(town, town.ada.id), town.bob.id)


async def test_a_withheld_picture_on_the_menu(town: Town) -> None:
    """Refused before the form is shown; its author may, and others' pictures are not concerned."""
    await town.slash(town.ada, "consent", others="may not")
    message = await town.ada.send(town.channel, attachments=[("mine.png", picture())])
    other = await town.bob.send(town.channel, attachments=[("bobs.png", picture())])

    refused = await town.bob.context_menu(town.channel, ANIMATE_MENU, message)
    own = await town.ada.context_menu(town.channel, ANIMATE_MENU, message)
    bobs = await town.ada.context_menu(town.channel, ANIMATE_MENU, other)

    assert town.refusal(refused) == NOT_ALLOWED.format(town.ada.mention)
    assert refused.modal is None
    assert own.modal
    assert bobs.modal
    assert await town.jobs() == []


@pytest.mark.parametrize("label", ["Again", "Remix", "Other model", "Continue"])
async def test_a_withheld_picture_on_a_post(town: Town, label: str) -> None:
    """The author of the picture has said no, also for clips that are there already; they themselves may."""
    post = await town.posted(town.ada)
    await town.slash(town.ada, "consent", others="may not")
    await town.restart(work=False)

    pressed = await town.bob.click(post, label=label)
    own = await town.ada.click(post, label=label)

    assert pressed.modal is None
    assert said(pressed) == NOT_ALLOWED.format(town.ada.mention)
    assert own.modal or not said(own).endswith("Nothing was charged.")


async def test_a_picture_that_is_withheld_while_somebody_writes(town: Town) -> None:
    """The form was open already: refused when it is sent, and nothing is made."""
    post = await town.posted(town.ada)
    opened = await town.bob.click(post, label="Remix")
    await town.slash(town.ada, "consent", others="may not")

    result = await submit(town, town.bob, opened, prompt="storm")

    assert "does not want others to animate their pictures" in said(result)
    assert len(await town.jobs()) == 1


async def test_a_withheld_picture_and_a_reaction(town: Town) -> None:
    """Said in the channel for a moment; nothing is made."""
    post = await town.posted(town.ada)
    await town.slash(town.ada, "consent", others="may not")

    await town.bob.react(post, "🔁")

    [notice] = town.notices()
    assert NOT_ALLOWED.format(town.ada.mention) in notice
    assert len(await town.jobs()) == 1


async def test_whose_picture_it_was_is_forgotten_too(town: Town) -> None:
    """In clips that others made from it; only where the wish stands, it is known on, to keep to it."""
    post = await town.posted(town.ada)
    await town.bob.click(post, label="Again")
    await town.work_until_done()
    _, bobs = await town.jobs()
    assert bobs.picture_by == town.ada.id

    await confirm(town, "Delete my data")

    _, bobs = await town.jobs()
    assert (bobs.picture_by, bobs.asker_id, bobs.prompt) == (None, town.bob.id, "waves")
