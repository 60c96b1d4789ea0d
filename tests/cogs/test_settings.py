"""/settings, /pause and /resume, as members, moderators and the owner use them."""

from typing import Any

import discord
import pytest
from simcord import InteractionResult, MemberActor, RoleHandle

from bot.jobs.guilds import GuildSettings, WhosePictures
from bot.jobs.machine import State
from bot.ui import settings as panels
from bot.ui.controls import ALLOW
from tests.cogs.conftest import (
    Town,
    answer_to,
    chosen,
    clip_in,
    fields,
    parts_of,
    picture,
    said,
    text_of,
)


async def opened(town: Town, page: str = "who", *, by: MemberActor | None = None) -> discord.Message:
    """The panel on this page."""
    by = by or town.manager
    message = answer_to(await by.slash(town.channel, "settings"))
    if page != "who":
        message = panel_in(await by.select(message, [page], custom_id=panels.PAGE))
    return message


def panel_in(result: InteractionResult) -> discord.Message:
    """The panel as it is after a press."""
    assert result.response
    assert result.response.ephemeral
    return result.response.message


async def choose(town: Town, page: str, field: str, values: list[Any]) -> InteractionResult:
    return await town.manager.select(
        await opened(town, page), values, custom_id=f"{panels.PREFIX}set:{field}"
    )


async def fill(town: Town, name: str, **typed: str) -> InteractionResult:
    """Open a modal of the panel and submit it."""
    message = await opened(town, panels.FORMS[name][0])
    shown = await town.manager.click(message, label=panels.OPENERS[name])
    before = {field: chosen(part)[0] for field, part in fields(shown).items()}
    return await town.manager.submit_modal(shown, before | typed)


async def settings(town: Town) -> GuildSettings:
    return await town.animatic.bot.servers.settings(town.guild.id)


async def audited(town: Town) -> list[str]:
    return [message.content for message in town.messages() if not message.flags.components_v2]


# Who may


async def test_the_panel_is_private(town: Town) -> None:
    """Only the person who asked for it sees it, and it says how things are."""
    message = await opened(town)

    assert "Settings of this server" in text_of(message)
    assert town.messages() == []


@pytest.mark.parametrize("command", ["settings", "pause", "resume"])
async def test_commands_are_for_those_who_manage_the_server(town: Town, command: str) -> None:
    """Discord does not offer them to others, not even to a moderator who only manages messages."""
    for person in (town.ada, town.moderator):
        assert command not in person.available_commands(town.channel)
    assert command in town.manager.available_commands(town.channel)


@pytest.mark.parametrize("command", ["settings", "pause", "resume"])
async def test_where_discord_was_told_to_let_others_in(town: Town, command: str) -> None:
    """A server can open a command to everybody on its Integrations page; the bot looks for itself."""
    command_id = town.animatic.bot.command_ids[command]
    town.guild.set_command_permissions(command_id, {town.guild.default_role: True})

    assert town.refusal(await town.ada.slash(town.channel, command)) == panels.MODERATOR

    assert await settings(town) == town.animatic.bot.servers.usual


async def test_a_panel_of_somebody_who_may_no_longer(town: Town) -> None:
    """Its controls ask again at each press."""
    message = await opened(town)
    town.env.backend.remove_member_role(town.guild.id, town.manager.id, town.guild.roles["Managers"].id)

    refused = await town.manager.select(message, [town.channel], custom_id=f"{panels.PREFIX}set:channels")

    assert said(refused) == panels.MODERATOR
    assert await settings(town) == town.animatic.bot.servers.usual


# Chosen


async def test_every_page(town: Town) -> None:
    """From one to the next in the same message."""
    message = await opened(town)

    for page, (label, _) in panels.PAGES.items():
        message = panel_in(await town.manager.select(message, [page], custom_id=panels.PAGE))
        [select] = [part for part in parts_of(message) if part.get("custom_id") == panels.PAGE]
        assert chosen(select) == [page]
        assert label in [option["label"] for option in select["options"]]


async def test_everything_that_is_chosen(town: Town) -> None:
    """Kept, and shown as chosen."""
    role = town.guild.create_role("Regulars")
    await choose(town, "who", "channels", [town.channel])
    await choose(town, "who", "roles", [role])
    await choose(town, "models", "default_model", ["luma"])
    await choose(town, "models", "default_seconds", ["5"])
    await choose(town, "takes", "requeue_roles", [role])
    await choose(town, "posts", "pictures", ["own"])
    await choose(town, "posts", "spoiler", ["yes"])
    await choose(town, "team", "review_channel", [town.channel])

    assert await settings(town) == town.animatic.bot.servers.usual.model_copy(
        update={
            "channels": frozenset({town.channel.id}),
            "roles": frozenset({role.id}),
            "default_model": "luma",
            "default_seconds": 5,
            "requeue_roles": frozenset({role.id}),
            "pictures": WhosePictures.OWN,
            "spoiler": True,
            "review_channel": town.channel.id,
        }
    )
    [select] = [
        part for part in parts_of(await opened(town)) if part.get("custom_id", "").endswith("channels")
    ]
    assert select["default_values"] == [{"id": town.channel.id, "type": "channel"}]


async def test_choices_taken_back(town: Town) -> None:
    """An empty choice means all, none, or as the owner has it."""
    await choose(town, "who", "channels", [town.channel])
    await choose(town, "models", "default_model", ["luma"])
    await choose(town, "team", "audit_channel", [town.channel])

    await choose(town, "who", "channels", [])
    await choose(town, "models", "default_model", ["-"])
    await choose(town, "team", "audit_channel", [])

    assert await settings(town) == town.animatic.bot.servers.usual


async def test_a_channel_in_which_the_bot_cannot_write(town: Town) -> None:
    """Is not taken for changes: nobody would ever read one."""
    town.forbid("send_messages")

    result = await choose(town, "team", "audit_channel", [town.channel])

    assert said(result) == (
        f"I cannot write in <#{town.channel.id}>: I am missing **Send Messages** there. Nothing was changed."
    )
    assert (await settings(town)).audit_channel is None


async def test_a_channel_that_is_gone(town: Town) -> None:
    """Is no longer shown as chosen, and the panel still opens."""
    await town.animatic.bot.servers.change(town.guild.id, channels=frozenset({1}), roles=frozenset({2}))

    message = await opened(town)

    assert all(not part.get("default_values") for part in parts_of(message))


# Typed


async def test_everything_that_is_typed(town: Town) -> None:
    """In the owner's currency, as people write amounts; shown when the modal is opened again."""
    await fill(town, "price", most_cents="0,5")
    await fill(town, "takes", requeue_emoji="🎬", requeues_per_day="3", confirm_above_cents="")
    await fill(
        town,
        "limits",
        member_clips_per_day="5",
        member_cents_per_day="$2.50",
        channel_clips_per_day="10",
        server_cents_per_day="20",
        server_cents_per_month="100.5",
    )
    await fill(town, "words", blocked_words="blood\nBlood\n\n gore ", blocked_patterns=r"\bn.?ud")

    found = await settings(town)
    assert found == town.animatic.bot.servers.usual.model_copy(
        update={
            "most_cents": 50,
            "requeue_emoji": "🎬",
            "requeues_per_day": 3,
            "confirm_above_cents": None,
            "member_clips_per_day": 5,
            "member_cents_per_day": 250,
            "channel_clips_per_day": 10,
            "server_cents_per_day": 2000,
            "server_cents_per_month": 10050,
            "blocked_words": ("blood", "gore"),
            "blocked_patterns": (r"\bn.?ud",),
        }
    )
    await fill(town, "limits")
    assert await settings(town) == found


async def test_what_is_left_empty(town: Town) -> None:
    """No limit, no words, and the emoji as usual."""
    await fill(town, "takes", requeue_emoji="🎬", requeues_per_day="0")
    await fill(town, "limits", member_clips_per_day="5", server_cents_per_month="1")
    await fill(town, "words", blocked_words="gore")

    await fill(town, "takes", requeue_emoji="", requeues_per_day="", confirm_above_cents="1")
    await fill(town, "limits", member_clips_per_day="", server_cents_per_month=" ")
    await fill(town, "words", blocked_words="")

    assert await settings(town) == town.animatic.bot.servers.usual


@pytest.mark.parametrize(
    ("name", "typed", "sentence"),
    [
        ("price", {"most_cents": "cheap"}, "“cheap” is not an amount that I can use. Write it like $2.50"),
        ("price", {"most_cents": "-1"}, "is not an amount"),
        ("price", {"most_cents": "0.001"}, "is not an amount"),
        ("price", {"most_cents": "99999999999"}, "is not an amount"),
        ("limits", {"member_clips_per_day": "1.5"}, "“1.5” is not a number that I can use"),
        ("limits", {"member_clips_per_day": "٣"}, "is not a number"),
        ("limits", {"member_clips_per_day": "2000000"}, "is not a number"),
        ("takes", {"requeue_emoji": "again"}, "“again” is not an emoji"),
        ("takes", {"requeue_emoji": "🔁 🔁"}, "is not an emoji"),
        ("words", {"blocked_patterns": "(gore"}, "`(gore` is not a pattern that I understand."),
        (
            "words",
            {"blocked_words": "\n".join(map(str, range(201)))},
            "These are 201 words; I can look for 200.",
        ),
        ("words", {"blocked_words": "x" * 101}, "One line has 101 characters; words may have 100."),
    ],
)
async def test_what_cannot_be_meant(town: Town, name: str, typed: dict[str, str], sentence: str) -> None:
    """Refused in words, privately; nothing of the modal is kept."""
    result = await fill(town, name, **typed)

    assert sentence in said(result)
    assert said(result).endswith("Nothing was changed.")
    assert await settings(town) == town.animatic.bot.servers.usual


@pytest.mark.parametrize(
    "emoji", ["🔁", "❤️", "👩‍🚀", "🇩🇪", "1️⃣", "<:wave:123456789012345678>", "<a:w_1:123456789012345678>"]
)
async def test_emoji_of_all_kinds(town: Town, emoji: str) -> None:
    """Joined, flags, keycaps, and a server's own."""
    await fill(town, "takes", requeue_emoji=emoji)

    assert (await settings(town)).requeue_emoji == emoji


async def test_the_number_of_a_role(town: Town) -> None:
    """Set, changed, and taken away."""
    role = town.guild.create_role("Regulars")

    async def set_role(clips: str) -> None:
        message = await opened(town, "limits")
        shown = await town.manager.select(message, [role], custom_id=panels.ROLE)
        await town.manager.submit_modal(shown, {"clips": clips})

    await set_role("7")
    assert (await settings(town)).role_clips_per_day == {role.id: 7}
    assert f"<@&{role.id}> 7" in text_of(await opened(town, "limits"))
    await set_role("0")
    assert (await settings(town)).role_clips_per_day == {role.id: 0}
    await set_role("")
    assert (await settings(town)).role_clips_per_day == {}


async def test_a_panel_outlives_a_restart(town: Town) -> None:
    """Its selects, its buttons, and a modal that was open meanwhile."""
    message = await opened(town, "limits")
    shown = await town.manager.click(message, label=panels.OPENERS["limits"])

    await town.restart()
    result = await town.manager.submit_modal(shown, {"member_clips_per_day": "4"})
    await town.manager.select(panel_in(result), ["who"], custom_id=panels.PAGE)

    assert (await settings(town)).member_clips_per_day == 4


# Written down


async def test_every_change_is_written_down(town: Town) -> None:
    """Who, what, from, to, and nobody is pinged; also that nothing is written down any more."""
    await choose(town, "team", "audit_channel", [town.channel])
    await choose(town, "posts", "spoiler", ["yes"])
    await choose(town, "posts", "spoiler", ["yes"])
    await fill(town, "limits", member_clips_per_day="5", server_cents_per_day="20")
    await choose(town, "team", "audit_channel", [])
    await choose(town, "posts", "spoiler", ["no"])

    mara = f"<@{town.manager.id}> changed"
    assert await audited(town) == [
        f"{mara} **Channel for changes** from none to <#{town.channel.id}>.",
        f"{mara} **Clips as spoilers** from no to yes.",
        f"{mara} **Clips of a member a day** from no limit to 5.",
        f"{mara} **Money of this server a day** from no limit to $20.00.",
        f"{mara} **Channel for changes** from <#{town.channel.id}> to none.",
    ]
    sent = town.sent("POST", f"/channels/{town.channel.id}/messages")
    assert all(message["allowed_mentions"] == {"parse": []} for message in sent)


async def test_an_audit_channel_that_was_closed(town: Town) -> None:
    """The change is made all the same."""
    await choose(town, "team", "audit_channel", [town.channel])
    town.forbid("send_messages")

    await choose(town, "posts", "spoiler", ["yes"])

    assert (await settings(town)).spoiler


# Followed


async def test_channels_for_clips(town: Town) -> None:
    """By the command, the menu, the buttons and the reaction alike; threads go with their channel."""
    post = await town.posted(town.ada)
    talk = await town.bob.send(town.channel, "look", attachments=[("cat.png", picture())])
    other = town.guild.create_text_channel("cinema")
    await choose(town, "who", "channels", [other])
    sentence = f"Clips are made only in <#{other.id}> here. Nothing was charged."

    assert town.refusal(await town.animate(town.bob, picture=picture())) == sentence
    assert town.refusal(await town.bob.context_menu(town.channel, "Animate this picture", talk)) == sentence
    for label in ("Again", "Remix", "Other model", "Continue"):
        assert said(await town.bob.click(post, label=label)) == sentence
    await town.bob.react(post, "🔁")
    assert town.notices() == [f"{town.bob.mention} {sentence}"]
    assert len(await town.jobs()) == 1

    await town.animate(town.ada, picture=picture(), channel=other)
    assert len(await town.jobs()) == 2


async def test_roles_that_may(town: Town) -> None:
    """Others are told which; moderators always may."""
    role: RoleHandle = town.guild.create_role("Regulars")
    regular = town.guild.add_member(town.env.create_user("rita"), roles=[role])
    await choose(town, "who", "roles", [role])

    assert town.refusal(await town.animate(town.ada, picture=picture())) == (
        f"Only <@&{role.id}> may have clips made here. Nothing was charged."
    )
    for person in (regular, town.moderator):
        await town.animate(person, picture=picture())
    assert len(await town.jobs()) == 2


async def test_the_default_model_and_the_dearest_clip(town: Town) -> None:
    """The command and the form begin with the server's own; what is too dear is not offered."""
    await choose(town, "models", "default_model", ["luma"])
    await fill(town, "price", most_cents="0.30")
    talk = await town.bob.send(town.channel, "look", attachments=[("cat.png", picture())])

    form = fields(await town.bob.context_menu(town.channel, "Animate this picture", talk))
    await town.animate(town.ada, picture=picture())
    refused = town.refusal(await town.animate(town.ada, picture=picture(), model="kling"))

    assert chosen(form["model"]) == ["luma"]
    assert "kling" not in [option["value"] for option in form["model"]["options"]]
    assert (await town.job()).model == "luma"
    assert refused == (
        "This clip costs $0.35, and one may cost at most $0.30 here. "
        "Choose another `model`: Luma, Runway and Sketch can do with less. Nothing was charged."
    )


async def test_clips_as_spoilers(town: Town) -> None:
    """The clip is hidden until it is clicked, and can be made again."""
    await choose(town, "posts", "spoiler", ["yes"])
    post = await town.posted(town.ada)

    [gallery] = [part for part in parts_of(post) if part["type"] == 12]
    assert gallery["items"][0]["spoiler"] is True
    assert clip_in(post)
    await town.bob.click(post, label="Again")
    await town.work_until_done()
    assert len(town.posts()) == 2


async def test_only_ones_own_pictures(town: Town) -> None:
    """By the menu, the buttons and the reaction; one's own are one's own."""
    post = await town.posted(town.ada)
    talk = await town.ada.send(town.channel, "look", attachments=[("cat.png", picture())])
    await choose(town, "posts", "pictures", ["own"])

    sentence = f"Here everybody may use only their own pictures, and this one is from {town.ada.mention}."
    assert town.refusal(await town.bob.context_menu(town.channel, "Animate this picture", talk)).startswith(
        sentence
    )
    for label in ("Again", "Remix", "Other model", "Continue"):
        assert said(await town.bob.click(post, label=label)).startswith(sentence)
    await town.bob.react(post, "🔁")
    assert town.notices()[0].startswith(f"{town.bob.mention} {sentence}")
    assert len(await town.jobs()) == 1
    await town.ada.click(post, label="Again")
    assert len(await town.jobs()) == 2


async def test_owners_of_pictures_are_asked(town: Town) -> None:
    """In the channel, with a button that only they can press; then the one who asked can start once more."""
    post = await town.posted(town.ada)
    await choose(town, "posts", "pictures", ["ask"])
    asked = "Here the owner of a picture is asked first."

    assert said(await town.bob.click(post, label="Again")).startswith(asked)
    assert said(await town.bob.click(post, label="Remix")).startswith(asked)
    [notice] = [message for message in town.messages() if "May they use your pictures" in message.content]
    assert notice.content.startswith(f"{town.ada.mention} {town.bob.mention} would like")
    assert town.sent("POST", f"/channels/{town.channel.id}/messages")[-1]["allowed_mentions"] == {
        "parse": [],
        "users": [town.ada.id],
    }
    assert said(await town.bob.click(notice, label=ALLOW)) == f"I asked only <@{town.ada.id}>."
    assert len(await town.jobs()) == 1

    await town.restart()
    await town.ada.click(notice, label=ALLOW)
    assert [line for line in town.notices() if "use" in line] == [
        f"{town.bob.mention} {town.ada.mention} lets you use their pictures here for a day. Please start once more."
    ]
    assert said(await town.bob.click(post, label="Again")).startswith("On its way")
    assert said(await town.moderator.click(post, label="Again")).startswith(asked)
    await town.work_until_done()
    assert len(town.posts()) == 2


async def test_a_question_that_nobody_answered(town: Town) -> None:
    """It goes by itself."""
    post = await town.posted(town.ada)
    await choose(town, "posts", "pictures", ["ask"])
    await town.bob.react(post, "🔁")
    [notice] = [message for message in town.messages() if "May they use your pictures" in message.content]

    await town.env.advance_time(3700)

    assert notice.id not in [message.id for message in town.messages()]
    assert len(await town.jobs()) == 1


async def test_a_yes_that_came_too_late(town: Town) -> None:
    """A restart has forgotten to take the question away: its button still knows when it ended."""
    post = await town.posted(town.ada)
    await choose(town, "posts", "pictures", ["ask"])
    await town.bob.react(post, "🔁")
    [notice] = [message for message in town.messages() if "May they use your pictures" in message.content]
    await town.restart()
    await town.env.advance_time(3700)

    assert said(await town.ada.click(notice, label=ALLOW)) == "That was too long ago. They can ask once more."
    assert not await town.animatic.desk._members.allows(
        town.guild.id, town.ada.id, town.bob.id, town.env.now()
    )


async def test_a_members_limit(town: Town) -> None:
    """At the limit no, for somebody else yes, and what failed is given back."""
    await fill(town, "limits", member_clips_per_day="1")
    town.makevid.next_create = "400"
    await town.animate(town.ada, picture=picture())
    await town.work_until_done()
    await town.animate(town.ada, picture=picture())

    assert "You may have 1 clip a day" in town.refusal(await town.animate(town.ada, picture=picture()))
    await town.animate(town.bob, picture=picture())
    assert len(await town.jobs()) == 3


async def test_a_servers_budget_is_told_of(town: Town) -> None:
    """In the channel of the moderators, at half, at most, and when it is used up; each once."""
    await choose(town, "team", "audit_channel", [town.channel])
    await fill(town, "limits", server_cents_per_day="0.70")
    before = len(town.notices())

    await town.animate(town.ada, picture=picture())
    await town.animate(town.bob, picture=picture())
    town.refusal(await town.animate(town.bob, picture=picture()))

    half, full = town.notices()[before:]
    assert half.startswith("50 % of the day's budget of this server, $0.70, are used.")
    assert full.startswith("The day's budget of this server, $0.70, is used up.")
    assert len(await town.jobs()) == 2


# Paused


async def test_pause_in_mid_flight(town: Town) -> None:
    """What is paid is finished and posted, what waits stays in line and says so, nothing new is taken."""
    await choose(town, "team", "audit_channel", [town.channel])
    for person in (town.ada, town.bob, town.moderator):  # two at a time are made
        await town.animate(person, picture=picture())
    await town.work()
    assert len(town.makevid.creates) == 2

    paused = said(await town.manager.slash(town.channel, "pause"))
    refused = town.refusal(await town.animate(town.ada, picture=picture()))
    for _ in range(20):
        await town.wait(15)

    assert paused.startswith("Paused in this server")
    assert refused.startswith("This server's moderators have paused new clips.")
    assert len(town.posts()) == 2
    assert len(town.makevid.creates) == 2
    assert "new clips are paused" in text_of(town.card())
    assert "New clips are paused" in text_of(await opened(town))
    await town.bob.react(town.posts()[0], "🔁")
    assert "paused" in town.notices()[-1]

    assert said(await town.manager.slash(town.channel, "resume")).startswith("Resumed")
    await town.work_until_done()
    assert len(town.posts()) == 3
    assert [line for line in await audited(town) if "new clips in" in line] == [
        f"<@{town.manager.id}> paused new clips in this server.",
        f"<@{town.manager.id}> resumed new clips in this server.",
    ]


async def test_what_waits_can_be_cancelled_while_paused(town: Town) -> None:
    """And nothing was charged for it."""
    await town.animate(town.ada, picture=picture())
    await town.manager.slash(town.channel, "pause")
    await town.work()

    assert said(await town.ada.click(town.card(), label="Cancel")) == "Cancelled. Nothing was charged."
    assert (await town.job()).state is State.CANCELLED
    assert not town.makevid.creates


async def test_a_pause_outlives_a_restart(town: Town) -> None:
    """It is in the database."""
    await town.animate(town.ada, picture=picture())
    await town.manager.slash(town.channel, "pause")

    await town.restart()
    await town.wait(60)

    assert not town.makevid.creates
    assert said(await town.manager.slash(town.channel, "pause")).endswith("already.")


async def test_everything_is_paused_by_the_owner_alone(town: Town) -> None:
    """In all servers, whoever manages them; only the owner can."""
    refused = town.refusal(await town.manager.slash(town.channel, "pause", everywhere=True))
    await town.animate(town.ada, picture=picture())

    town.animatic.bot.owner_id = town.manager.id
    answer = said(await town.manager.slash(town.channel, "pause", everywhere=True))
    await town.wait(60)

    assert refused == str(panels.not_the_owner())
    assert answer.startswith("Paused in all servers")
    assert not town.makevid.creates
    assert town.refusal(await town.animate(town.bob, picture=picture())).startswith(
        "This bot's owner has paused"
    )
    await town.manager.slash(town.channel, "resume")
    assert town.refusal(await town.animate(town.bob, picture=picture())).startswith(
        "This bot's owner has paused"
    )
    await town.manager.slash(town.channel, "resume", everywhere=True)
    await town.work_until_done()
    assert len(town.posts()) == 1
