"""The buttons on cards and posts, pressed by the asker, a moderator and a stranger."""

from datetime import timedelta

import discord
import pytest
from simcord import MemberActor
from structlog.testing import capture_logs

from bot.jobs.machine import State
from tests.cogs import conftest
from tests.cogs.conftest import ERASE, POST_BUTTONS, Town, answer_to, buttons, picture, said, text_of
from tests.conftest import in_paid_call

town = conftest.town

RETRY = "Try again (may cost twice)"


def person(town: Town, name: str) -> MemberActor:
    return {"asker": town.ada, "moderator": town.moderator, "stranger": town.bob}[name]


async def an_unsure_card(town: Town) -> discord.Message:
    town.makevid.next_create = "500"
    await town.animate(town.ada, picture=picture())
    await town.work()
    return town.card()


# Cancel


@pytest.mark.parametrize("who", ["asker", "moderator"])
async def test_cancel(town: Town, who: str) -> None:
    """Nothing is sent, the card says so, and its button is gone."""
    await town.animate(town.ada, picture=picture())

    result = await person(town, who).click(town.card(), label="Cancel")
    await town.work_until_done()

    assert said(result) == "Cancelled. Nothing was charged."
    assert text_of(town.card()).startswith("### Cancelled")
    assert "Nothing was charged." in text_of(town.card())
    assert buttons(town.card()) == []
    assert town.makevid.creates == []


async def test_a_stranger_cannot_cancel(town: Town) -> None:
    """Refused privately, naming who can; the clip is made."""
    await town.animate(town.ada, picture=picture())

    result = await town.bob.click(town.card(), label="Cancel")
    await town.work_until_done()

    assert said(result) == f"Only {town.ada.mention} and moderators can cancel this clip."
    assert len(town.posts()) == 1


async def test_cancel_after_the_start(town: Town) -> None:
    """The card was not redrawn yet when the paid call began: too late, and the clip comes."""
    await town.animate(town.ada, picture=picture())
    store, now = town.animatic.store, town.env.now()
    claimed = await in_paid_call(store, slots=2, worker="another", now=now)
    assert claimed

    result = await town.ada.click(town.card(), label="Cancel")

    assert said(result) == "This clip is being made already, so it cannot be cancelled any more."
    assert (await town.job()).state is State.SUBMITTING


async def test_cancel_twice(town: Town) -> None:
    """A second press that was on its way finds what it wanted."""
    await town.animate(town.ada, picture=picture())
    town.env.inject_error("PATCH", f"*/messages/{town.card().id}", status=500)

    await town.ada.click(town.card(), label="Cancel")
    result = await town.moderator.click(town.card(), label="Cancel")

    assert said(result) == "Cancelled. Nothing was charged."


async def test_cancel_moves_the_line_up(town: Town) -> None:
    """Who waits behind reads their new place a second later."""
    town.makevid.polls_until_done = 1000
    for member in (town.ada, town.ada, town.bob, town.bob):
        await town.animate(member, picture=picture())
        await town.env.advance_time(1)
    await town.work()
    assert "### Waiting to start, number 2 in line" in text_of(town.cards()[3])

    await town.ada.click(town.cards()[1], label="Cancel")
    await town.env.advance_time(1)
    await town.work()

    assert text_of(town.cards()[3]).startswith("### Waiting to start\n")


# Again


@pytest.mark.parametrize("who", ["asker", "moderator", "stranger"])
async def test_again(town: Town, who: str) -> None:
    """Anybody may have another take, in their own name and with a private receipt."""
    post = await town.posted(town.ada)

    result = await person(town, who).click(post, label="Again")
    await town.work_until_done()

    assert said(result) == "On its way: Kling, 5 s, $0.35. The card in the channel tells more."
    assert f"{person(town, who).mention}, here is another take." in text_of(town.posts()[1])
    first, second = town.makevid.creates
    assert first.body == second.body


async def test_again_twice_while_one_is_open(town: Town) -> None:
    """Once a person and clip."""
    post = await town.posted(town.ada)
    await town.bob.click(post, label="Again")

    result = await town.bob.click(post, label="Again")
    await town.work_until_done()

    assert said(result) == "You already have this clip in the queue once. Nothing was charged."
    assert len(town.posts()) == 2


async def test_again_without_a_permission(town: Town) -> None:
    """Named privately before anything is queued."""
    post = await town.posted(town.ada)
    town.forbid("attach_files")

    result = await town.bob.click(post, label="Again")

    assert "**Attach Files**" in said(result)
    assert len(await town.jobs()) == 1


async def test_again_when_the_picture_is_gone(town: Town) -> None:
    """Said privately."""
    post = await town.posted(town.ada)
    town.env.backend.cdn._blobs.clear()

    result = await town.bob.click(post, label="Again")

    assert said(result) == "The picture of that clip is gone, so I cannot make it again. Nothing was charged."
    assert len(await town.jobs()) == 1


# Delete


@pytest.mark.parametrize("who", ["asker", "moderator"])
async def test_delete(town: Town, who: str) -> None:
    """Asked once more, privately; then the post goes. The clip was paid for all the same."""
    post = await town.posted(town.ada)

    asked = await person(town, who).click(post, label="Delete")
    assert said(asked) == "Delete this post for everybody? It cannot be brought back."
    assert len(town.posts()) == 1
    await person(town, who).click(answer_to(asked), label=ERASE)

    shown = answer_to(asked)
    assert shown.content == "Deleted. The clip was paid for, so it still counts."
    assert shown.components == []
    assert town.posts() == []


async def test_a_stranger_cannot_delete(town: Town) -> None:
    """Refused privately at the first press; the post stays."""
    post = await town.posted(town.ada)

    result = await town.bob.click(post, label="Delete")

    assert said(result) == f"Only {town.ada.mention} and moderators can delete this clip."
    assert buttons(answer_to(result)) == []
    assert len(town.posts()) == 1


async def test_the_post_of_a_take_belongs_to_its_asker(town: Town) -> None:
    """Bob's take of Ada's clip is Bob's."""
    post = await town.posted(town.ada)
    await town.bob.click(post, label="Again")
    await town.work_until_done()
    take = town.posts()[1]

    refused = await town.ada.click(take, label="Delete")
    await town.delete(town.bob, take)

    assert said(refused) == f"Only {town.bob.mention} and moderators can delete this clip."
    assert len(town.posts()) == 1


async def test_delete_after_a_restart_in_between(town: Town) -> None:
    """Between the question and the answer."""
    post = await town.posted(town.ada)
    asked = await town.ada.click(post, label="Delete")
    await town.restart()

    await town.ada.click(answer_to(asked), label=ERASE)

    assert town.posts() == []


async def test_delete_by_somebody_who_is_no_moderator_any_more(town: Town) -> None:
    """Rights are looked at again when it is confirmed."""
    post = await town.posted(town.ada)
    asked = await town.moderator.click(post, label="Delete")
    town.env.backend.get_guild(town.guild.id).members[town.moderator.id].role_ids.clear()

    result = await town.moderator.click(answer_to(asked), label=ERASE)

    assert result.followups[0].content == f"Only {town.ada.mention} and moderators can delete this clip."
    assert len(town.posts()) == 1


async def test_delete_what_is_deleted(town: Town) -> None:
    """Somebody was faster."""
    post = await town.posted(town.ada)
    asked = await town.ada.click(post, label="Delete")
    await town.moderator.delete(post)

    await town.ada.click(answer_to(asked), label=ERASE)

    assert answer_to(asked).content == "Deleted. The clip was paid for, so it still counts."


async def test_delete_where_discord_does_not_let_it(town: Town) -> None:
    """It stays, and they read that; pressed once more, it goes."""
    post = await town.posted(town.ada)
    asked = await town.ada.click(post, label="Delete")
    town.env.inject_error("DELETE", f"*/messages/{post.id}", status=403, code=50013)

    result = await town.ada.click(answer_to(asked), label=ERASE)

    refused = result.followups[0].content
    assert (
        refused
        == "I could not delete the post. Please try again in a while, or ask a moderator to delete it and to check my "
        "permissions here."
    )
    assert len(town.posts()) == 1
    await town.ada.click(answer_to(asked), label=ERASE)
    assert town.posts() == []


# Try again


@pytest.mark.parametrize("who", ["asker", "moderator"])
async def test_try_again(town: Town, who: str) -> None:
    """Having read that it may cost twice, a person asks for a second paid call, and gets one clip."""
    card = await an_unsure_card(town)
    assert "I will not pay twice by myself." in text_of(card)

    result = await person(town, who).click(card, label=RETRY)
    await town.work_until_done()

    assert said(result) == "Trying again."
    assert len(town.makevid.creates) == 2
    assert len(town.posts()) == 1
    assert town.cards() == []


async def test_a_stranger_cannot_try_again(town: Town) -> None:
    """It is not their money, and not their clip."""
    card = await an_unsure_card(town)

    result = await town.bob.click(card, label=RETRY)
    await town.wait(60)

    assert said(result) == f"Only {town.ada.mention} and moderators can try this clip again."
    assert len(town.makevid.creates) == 1


async def test_try_again_twice(town: Town) -> None:
    """The second press, which was on its way, pays for nothing."""
    card = await an_unsure_card(town)
    town.env.inject_error("PATCH", f"*/messages/{card.id}", status=500, times=None)

    await town.ada.click(card, label=RETRY)
    result = await town.ada.click(card, label=RETRY)
    await town.work_until_done()

    assert said(result) == "There is nothing to try again here any more."
    assert len(town.makevid.creates) == 2


# After restarts, and when something is wrong


async def test_buttons_work_after_a_restart(town: Town) -> None:
    """On messages of any age: all that is needed stands in the custom_id."""
    post = await town.posted(town.ada)
    unsure = await an_unsure_card(town)
    await town.animate(town.bob, picture=picture())
    waiting = next(card for card in town.cards() if card.id != unsure.id)
    await town.restart()
    await town.env.advance_time(timedelta(hours=3).total_seconds())

    assert said(await town.ada.click(unsure, label=RETRY)) == "Trying again."
    assert said(await town.bob.click(post, label="Again")).startswith("On its way")
    await town.work_until_done()
    assert len(town.posts()) == 4
    await town.delete(town.ada, post)
    assert len(town.posts()) == 3
    assert waiting.id not in [message.id for message in town.messages()]


async def test_cancel_after_a_restart(town: Town) -> None:
    """A job of the last run is called off like any other."""
    town.makevid.polls_until_done = 1000
    for _ in range(3):
        await town.animate(town.ada, picture=picture())
        await town.env.advance_time(1)
    await town.work()
    await town.restart()

    result = await town.ada.click(town.cards()[2], label="Cancel")

    assert said(result) == "Cancelled. Nothing was charged."
    assert text_of(town.cards()[2]).startswith("### Cancelled")


async def test_a_clip_that_is_not_known(town: Town) -> None:
    """The database is a new one: the button says so, and does nothing."""
    post = await town.posted(town.ada)
    job = await town.job()
    url = town.config.store.url.get_secret_value().replace("jobs.db", "new.db")
    await town.restart(store=town.config.store.model_copy(update={"url": type(town.config.store.url)(url)}))
    assert job not in await town.jobs()

    for label in POST_BUTTONS:
        assert said(await town.ada.click(post, label=label)) == "I do not know this clip any more."

    assert len(town.posts()) == 1


async def test_a_button_of_a_newer_version(town: Town) -> None:
    """After a downgrade: a press is answered, and nothing breaks."""
    post = await town.posted(town.ada)
    stored = town.env.backend.get_message(town.channel.id, post.id)
    for part in conftest.walk_components(stored.components):
        if part.get("label") == "Again":
            part["custom_id"] = part["custom_id"].replace(":again", ":dance")

    result = await town.ada.click(post, label="Again")

    assert said(result) == "This button is from a newer version of me."


async def test_an_unexpected_error_shows_a_reference_only(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A press is always answered: one fixed sentence, the rest in the log."""

    async def broken(*_args: object) -> None:
        raise RuntimeError("password=hunter2")

    await town.animate(town.ada, picture=picture())
    monkeypatch.setattr(town.animatic.desk, "cancel", broken)
    with capture_logs() as logs:
        result = await town.ada.click(town.card(), label="Cancel")

    [line] = [line for line in logs if line["event"] == "unexpected_error"]
    assert f"`{line['reference']}`" in said(result)
    assert "hunter2" not in said(result)


async def test_an_expired_press_is_only_logged(town: Town) -> None:
    """Nobody can be told, and nothing is done: the person presses again."""
    await town.animate(town.ada, picture=picture())
    town.env.inject_error("POST", "/interactions/*/callback", status=404, code=10062)

    with capture_logs() as logs:
        await town.ada.click(town.card(), label="Cancel")

    assert [line["event"] for line in logs if line["log_level"] != "info"] == ["interaction_expired"]
    assert (await town.job()).state is State.QUEUED
