"""Reacting with 🔁 to a clip makes another take, in the name of the person who reacted."""

import base64
from datetime import timedelta
from decimal import Decimal

import discord
import pytest
from simcord import MemberActor

from bot.jobs.machine import State
from tests.cogs.conftest import (
    MODELS,
    POST_BUTTONS,
    Town,
    buttons,
    clip_in,
    picture,
    pictures_in,
    said,
    text_of,
)


async def react(town: Town, member: MemberActor, message: discord.Message, emoji: str = "🔁") -> None:
    await member.react(message, emoji)
    await town.work_until_done()


async def test_a_reaction_makes_another_take(town: Town) -> None:
    """In the reactor's name, with the picture of the post and all that was asked for."""
    post = await town.posted(
        town.ada,
        prompt="waves",
        picture=picture(),
        end_picture=picture(500, 500),
        seconds=10,
        quality="1080p",
        negative="blur",
        strength=0.7,
    )
    await react(town, town.bob, post)

    first, second = town.makevid.creates
    assert second.body == first.body
    _, take = town.posts()
    assert f"{town.bob.mention}, here is another take." in text_of(take)
    assert town.ada.mention not in text_of(take)
    assert len(pictures_in(take)) == 2
    assert buttons(take) == POST_BUTTONS


async def test_the_card_of_another_take_names_its_asker(town: Town) -> None:
    """The person who reacted; it pings nobody."""
    post = await town.posted(town.ada)

    await town.bob.react(post, "🔁")

    sent = town.sent("POST", f"/channels/{town.channel.id}/messages")
    assert sent[-1]["allowed_mentions"] == {"parse": [], "users": []}
    assert town.bob.mention in text_of(town.card())
    assert buttons(town.card()) == ["Cancel"]


async def test_the_asker_may_react_too(town: Town) -> None:
    """One's own clip is a clip."""
    post = await town.posted(town.ada)

    await react(town, town.ada, post)

    assert len(town.posts()) == 2


async def test_a_clip_from_words_alone(town: Town) -> None:
    """There is no picture to fetch, and the ratio is kept."""
    post = await town.posted(town.ada, prompt="a fox runs", picture=None, ratio="1:1")

    await react(town, town.bob, post)

    first, second = town.makevid.creates
    assert second.body == first.body
    assert second.body["aspect_ratio"] == "1:1"


async def test_a_take_of_a_take(town: Town) -> None:
    """The second post is as good as the first: it carries its own copy of the picture."""
    post = await town.posted(town.ada)
    await react(town, town.bob, post)
    await town.moderator.delete(post)

    await react(town, town.ada, town.posts()[0])

    assert len(town.posts()) == 2
    image = town.file(pictures_in(town.posts()[0])[0])
    assert [create.body["image"] for create in town.makevid.creates] == [base64.b64encode(image).decode()] * 3


async def test_an_old_post_after_a_restart(town: Town) -> None:
    """The row and the post are all that is needed: nothing is kept in memory."""
    post = await town.posted(town.ada)
    await town.env.advance_time(timedelta(days=40).total_seconds())
    await town.restart()

    await react(town, town.bob, post)

    assert len(town.posts()) == 2
    assert f"{town.bob.mention}, here is another take." in text_of(town.posts()[1])


async def test_a_reaction_in_a_thread(town: Town) -> None:
    """The take comes where the clip stands; there, a permission of threads is asked for."""
    town.env.backend.create_thread(town.channel.id, "waves", owner_id=town.ada.id)
    [thread] = town.channel.threads
    await town.animate(town.ada, picture=picture(), channel=thread)
    await town.work_until_done()
    town.forbid("send_messages")
    await react(town, town.bob, town.posts(thread)[0])
    assert len(town.posts(thread)) == 2

    town.forbid("send_messages_in_threads")
    await react(town, town.moderator, town.posts(thread)[0])

    assert len(await town.jobs()) == 2


async def test_reacting_twice_while_one_is_open(town: Town) -> None:
    """One job; a notice to this person alone, which goes by itself."""
    post = await town.posted(town.ada)
    await town.bob.react(post, "🔁")
    await town.bob.unreact(post, "🔁")

    await town.bob.react(post, "🔁")

    assert len(await town.jobs()) == 2
    assert town.notices() == [
        f"{town.bob.mention} You already have this clip in the queue once. Nothing was charged."
    ]
    sent = town.sent("POST", f"/channels/{town.channel.id}/messages")
    assert sent[-1]["allowed_mentions"] == {"parse": [], "users": [town.bob.id]}
    await town.env.advance_time(21)
    assert town.notices() == []
    await town.work_until_done()
    assert len(town.posts()) == 2


async def test_two_people_react(town: Town) -> None:
    """Once a person: both get their take."""
    post = await town.posted(town.ada)
    await town.bob.react(post, "🔁")

    await react(town, town.moderator, post)

    assert len(town.posts()) == 3
    assert town.notices() == []


async def test_reacting_again_when_the_take_is_done(town: Town) -> None:
    """The limit is on open ones."""
    post = await town.posted(town.ada)
    await react(town, town.bob, post)
    await town.bob.unreact(post, "🔁")

    await react(town, town.bob, post)

    assert len(town.posts()) == 3


async def test_bots_do_not_react(town: Town) -> None:
    """Neither this one, which invites with the same emoji, nor any other."""
    robot = town.guild.add_member(town.env.create_user("robot", bot=True))
    post = await town.posted(town.ada)
    assert [str(reaction.emoji) for reaction in post.reactions] == ["🔁"]

    await react(town, robot, post)

    assert len(await town.jobs()) == 1
    assert town.notices() == []


async def test_other_emoji_mean_nothing(town: Town) -> None:
    """Only the one that is invited with."""
    post = await town.posted(town.ada)

    for emoji in ("👍", "🔂", "🔄"):
        await react(town, town.bob, post, emoji)

    assert len(await town.jobs()) == 1


async def test_other_messages_mean_nothing(town: Town) -> None:
    """A member's message, a card and a notice are no clips."""
    talk = await town.bob.send(town.channel, "nice")
    await react(town, town.ada, talk)
    town.makevid.next_create = "400"
    await town.animate(town.ada, picture=picture())
    await town.work_until_done()

    await react(town, town.bob, town.card())

    assert len(await town.jobs()) == 1
    assert town.notices() == []


async def test_the_pictures_file_is_gone(town: Town) -> None:
    """Discord no longer has it: a notice, and nothing is queued."""
    post = await town.posted(town.ada)
    [media] = pictures_in(post)
    del town.env.backend.cdn._blobs[media.url]

    await react(town, town.bob, post)

    assert town.notices() == [
        f"{town.bob.mention} The picture of that clip is gone, so I cannot make it again. Nothing was charged."
    ]
    assert len(await town.jobs()) == 1


async def test_a_post_that_came_without_its_picture(town: Town) -> None:
    """Its card was deleted while it rendered: the clip stands there, but there is nothing to start from."""
    await town.animate(town.ada, picture=picture())
    await town.work()
    await town.moderator.delete(town.card())
    await town.work_until_done()
    [post] = town.posts()

    await react(town, town.bob, post)

    assert [notice.removeprefix(town.bob.mention) for notice in town.notices()] == [
        " The picture of that clip is gone, so I cannot make it again. Nothing was charged."
    ]
    assert len(town.makevid.creates) == 1


async def test_discord_is_away_for_a_moment(town: Town) -> None:
    """The picture cannot be fetched just now: said so, and nothing is queued."""
    post = await town.posted(town.ada)
    town.env.inject_error("GET", f"*/messages/{post.id}", status=503)

    await react(town, town.bob, post)

    assert "I could not fetch the picture just now. Please try again." in town.notices()[0]
    assert len(await town.jobs()) == 1


async def test_a_permission_was_lost(town: Town) -> None:
    """Named in a notice, as long as one can be posted."""
    post = await town.posted(town.ada)
    town.forbid("attach_files")

    await react(town, town.bob, post)

    [notice] = town.notices()
    assert notice.startswith(f"{town.bob.mention} I cannot deliver a clip in this channel")
    assert "**Attach Files**" in notice
    assert len(await town.jobs()) == 1


@pytest.mark.parametrize("flag", ["send_messages", "view_channel", "read_message_history"])
async def test_nobody_can_be_told(town: Town, flag: str) -> None:
    """The bot may not speak any more: nothing is queued, nothing breaks."""
    post = await town.posted(town.ada)
    town.forbid(flag)

    await react(town, town.bob, post)

    assert len(await town.jobs()) == 1
    assert len(town.makevid.creates) == 1


async def test_the_members_limit_holds(town: Town) -> None:
    """A reaction is a request like any other."""
    post = await town.posted(town.ada)
    for _ in range(3):
        await town.animate(town.bob, picture=picture())

    await town.bob.react(post, "🔁")

    assert "You already have 3 clips in the works" in town.notices()[0]
    assert len(await town.jobs()) == 4


async def test_a_model_that_is_no_longer_there(town: Town) -> None:
    """Taken from the config since: the reaction and the button say which ones there are."""
    post = await town.posted(town.ada)
    await town.restart(models={name: MODELS[name] for name in ("luma", "runway")})

    await react(town, town.bob, post)

    assert town.notices() == [
        f"{town.bob.mention} I do not have the model “kling”. Choose one of: Luma, Runway. Nothing was charged."
    ]
    assert len(await town.jobs()) == 1


async def test_another_emoji_can_be_chosen(town: Town) -> None:
    """In the config: the invitation and the ear change together."""
    await town.restart(animate=town.config.animate.model_copy(update={"requeue_emoji": "🎬"}))
    post = await town.posted(town.ada)
    assert "react with 🎬 for another take" in text_of(post)

    await react(town, town.bob, post, "🔁")
    assert len(town.posts()) == 1
    await react(town, town.bob, post, "🎬")

    assert len(town.posts()) == 2


async def test_a_deleted_post(town: Town) -> None:
    """A reaction that was on its way when the post was deleted: a notice, no job."""
    post = await town.posted(town.ada)
    payload = {
        "user_id": str(town.bob.id),
        "channel_id": str(town.channel.id),
        "message_id": str(post.id),
        "guild_id": str(town.guild.id),
        "emoji": {"id": None, "name": "🔁"},
        "type": 0,
    }
    await town.moderator.delete(post)

    town.env.backend.emit("MESSAGE_REACTION_ADD", payload)
    await town.env.settle()
    await town.work_until_done()

    assert "The picture of that clip is gone" in town.notices()[0]
    assert [job.state for job in await town.jobs()] == [State.DELIVERED]
    assert not any(clip_in(message) for message in town.messages())


# Who may, how often, and what is asked back

DEAR = "Another take costs $0.35. Shall I start it? I forget about it <t:"


async def restart_with(town: Town, **animate: object) -> None:
    await town.restart(animate=town.config.animate.model_copy(update=animate))


def asked_back(town: Town) -> discord.Message:
    [notice] = [message for message in town.messages() if not message.flags.components_v2]
    return notice


async def test_a_dear_take_is_asked_back_first(town: Town) -> None:
    """In a notice that pings the reactor alone; their press starts it, and the notice goes."""
    await restart_with(town, confirm_above=Decimal("0.34"))
    post = await town.posted(town.ada)

    await town.bob.react(post, "🔁")
    assert len(await town.jobs()) == 1
    notice = asked_back(town)
    assert notice.content.startswith(f"{town.bob.mention} {DEAR}")
    sent = town.sent("POST", f"/channels/{town.channel.id}/messages")
    assert sent[-1]["allowed_mentions"] == {"parse": [], "users": [town.bob.id]}
    result = await town.bob.click(notice, label="Start it")
    await town.work_until_done()

    assert said(result).startswith("On its way: Kling, 5 s, $0.35.")
    assert town.notices() == []
    assert f"{town.bob.mention}, here is another take." in text_of(town.posts()[1])


async def test_a_take_at_the_limit_is_not_asked_back(town: Town) -> None:
    """Only what costs more."""
    await restart_with(town, confirm_above=Decimal("0.35"))
    post = await town.posted(town.ada)

    await react(town, town.bob, post)

    assert len(town.posts()) == 2


async def test_only_the_reactor_may_confirm(town: Town) -> None:
    """Neither the clip's asker nor a moderator spends in somebody else's name."""
    await restart_with(town, confirm_above=Decimal(0))
    post = await town.posted(town.ada)
    await town.bob.react(post, "🔁")

    for member in (town.ada, town.moderator):
        result = await member.click(asked_back(town), label="Start it")
        assert said(result) == f"I asked only {town.bob.mention}. React to the clip for a take of your own."

    assert len(await town.jobs()) == 1


async def test_an_unanswered_question_goes(town: Town) -> None:
    """After five minutes; nothing is started, and a new reaction asks anew."""
    await restart_with(town, confirm_above=Decimal(0))
    post = await town.posted(town.ada)
    await town.bob.react(post, "🔁")
    await town.bob.unreact(post, "🔁")
    await town.bob.react(post, "🔁")
    assert len(town.notices()) == 1

    await town.env.advance_time(301)
    assert town.notices() == []
    await town.bob.unreact(post, "🔁")
    await town.bob.react(post, "🔁")

    assert len(town.notices()) == 1
    assert len(await town.jobs()) == 1


async def test_a_question_that_somebody_deleted(town: Town) -> None:
    """The next reaction asks anew, at once."""
    await restart_with(town, confirm_above=Decimal(0))
    post = await town.posted(town.ada)
    await town.bob.react(post, "🔁")
    await town.moderator.delete(asked_back(town))
    await town.bob.unreact(post, "🔁")

    await town.bob.react(post, "🔁")

    assert len(town.notices()) == 1


@pytest.mark.parametrize(("minutes", "started"), [(1, True), (6, False)])
async def test_confirming_after_a_restart(town: Town, minutes: int, started: bool) -> None:
    """The button knows whom it is for and until when; an old one starts nothing, and goes."""
    await restart_with(town, confirm_above=Decimal(0))
    post = await town.posted(town.ada)
    await town.bob.react(post, "🔁")
    notice = asked_back(town)
    await town.restart()
    await town.env.advance_time(minutes * 60)

    result = await town.bob.click(notice, label="Start it")
    await town.work_until_done()

    assert len(town.posts()) == 1 + started
    assert said(result).startswith("On its way" if started else "That was too long ago.")
    assert town.notices() == []


async def test_confirming_what_was_queued_meanwhile(town: Town) -> None:
    """By the button under the post: one open take of a clip, whichever way it is asked for."""
    await restart_with(town, confirm_above=Decimal(0))
    post = await town.posted(town.ada)
    await town.bob.react(post, "🔁")
    await town.bob.click(post, label="Again")

    result = await town.bob.click(asked_back(town), label="Start it")

    assert said(result) == "You already have this clip in the queue once. Nothing was charged."
    assert len(await town.jobs()) == 2


async def test_the_limits_are_told_before_anything_is_asked_back(town: Town) -> None:
    """Nobody is asked whether to start what may not start."""
    await restart_with(town, confirm_above=Decimal(0))
    post = await town.posted(town.ada)
    for _ in range(3):
        await town.animate(town.bob, picture=picture())

    await town.bob.react(post, "🔁")

    assert "You already have 3 clips in the works" in town.notices()[0]


async def test_so_often_a_day(town: Town) -> None:
    """By all people and both ways together; what cost nothing does not count, and the next day is another."""
    await restart_with(town, requeues_per_day=2)
    post = await town.posted(town.ada)
    await town.bob.click(post, label="Again")
    await town.bob.click(town.card(), label="Cancel")
    await react(town, town.bob, post)
    await react(town, town.moderator, post)

    await react(town, town.ada, post)
    refused = await town.ada.click(post, label="Again")

    sentence = (
        "This clip was made again 2 times within a day, which is as often as it may be here. "
        "Please try again tomorrow, or change it with **Remix**. Nothing was charged."
    )
    assert town.notices() == [f"{town.ada.mention} {sentence}"]
    assert said(refused) == sentence
    assert len(town.posts()) == 3
    await town.env.advance_time(timedelta(days=1).total_seconds())
    assert said(await town.ada.click(post, label="Again")).startswith("On its way")


async def test_roles_that_may(town: Town) -> None:
    """As settings of the server say; moderators always may. The button goes by the same rules."""
    post = await town.posted(town.ada)
    role = town.guild.create_role("Regulars")
    regular = town.guild.add_member(town.env.create_user("rita"), roles=[role])

    await town.animatic.bot.servers.change(
        town.guild.id, requeue_emoji="🎬", requeue_roles=frozenset({role.id})
    )
    await town.bob.react(post, "🎬")
    notices = town.notices()
    refused = await town.bob.click(post, label="Again")
    await react(town, regular, post, "🎬")
    await react(town, town.moderator, post, "🎬")

    sentence = f"Here only <@&{role.id}> may have another take of a clip. Nothing was charged."
    assert said(refused) == sentence
    assert notices == [f"{town.bob.mention} {sentence}"]
    assert len(town.posts()) == 3
