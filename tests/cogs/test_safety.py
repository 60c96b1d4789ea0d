"""Reports, blocks, rules and age-restricted channels, as members, moderators and the owner meet them."""

from typing import Any

import discord
import pytest
from simcord import ChannelHandle, InteractionResult, MemberActor

from bot.jobs.checks import Checker
from bot.jobs.machine import Charge, State
from bot.ui import reviews
from bot.ui.catalogue import REPORT_MENU
from bot.ui.controls import LABELS
from tests.cogs.conftest import (
    Town,
    answer_to,
    buttons,
    fields,
    parts_of,
    picture,
    said,
    text_of,
)
from tests.cogs.test_lists import undeliverable
from tests.cogs.test_menu import MENU, submit

ALL = [label for label, _ in reviews.VERBS.values()]


class Team:
    """The moderators' channels of the town, which members cannot see."""

    def __init__(self, town: Town) -> None:
        self.town = town
        self.reports = town.guild.create_text_channel("reports")
        self.audit = town.guild.create_text_channel("audit")

    def reviews(self, channel: ChannelHandle | None = None) -> list[discord.Message]:
        messages = self.town.messages(channel or self.reports)
        return [message for message in messages if message.flags.components_v2]

    def review(self) -> discord.Message:
        [message] = self.reviews()
        return message

    def written(self) -> list[str]:
        return [one.content for one in self.town.messages(self.audit) if not one.flags.components_v2]


async def team_of(town: Town) -> Team:
    team = Team(town)
    await town.env.settle()
    await town.animatic.bot.servers.change(
        town.guild.id, review_channel=team.reports.id, audit_channel=team.audit.id
    )
    return team


async def report(
    town: Town, member: MemberActor, post: discord.Message, *, reason: str = "violent", words: str = ""
) -> InteractionResult:
    """Press *Report* and send the modal."""
    opened = await member.click(post, label="Report")
    return await member.submit_modal(opened, {"reason": [reason], "words": words})


async def block_in_modal(
    town: Town, team: Team, *, lasting: str = "week", reason: str = "no blood"
) -> InteractionResult:
    opened = await town.moderator.click(team.review(), label="Remove and block")
    return await town.moderator.submit_modal(opened, {"lasting": [lasting], "reason": reason})


def private(result: InteractionResult) -> list[str]:
    """All that one person was told."""
    answers = [*result.followups, *([result.response] if result.response else [])]
    return [one.content for one in answers if one.ephemeral]


async def jobs_of(town: Town, member: MemberActor) -> list[State]:
    return [job.state for job in await town.jobs() if job.asker_id == member.id]


# Reports


async def test_from_press_to_removal_with_a_restart_between(town: Town) -> None:
    """Bob reports, the process ends, a moderator of the next one removes: the post goes, the line in the audit stays."""
    team = await team_of(town)
    post = await town.posted(town.ada, prompt="a @everyone [fight]")
    opened = await town.bob.click(post, label="Report")
    await town.restart()
    told = await town.bob.submit_modal(opened, {"reason": ["violent"], "words": "it is\nbloody"})

    assert said(told) == reviews.THANKS
    message = team.review()
    text = text_of(message)
    assert "### A clip was reported\n“a \\@everyone \\[fight]”" in text
    assert f"Asked for by {town.ada.mention} in <#{town.channel.id}>: {post.jump_url}" in text
    assert "**Reported by 1 member**\n- Violent or frightening: 1\n- “it is bloody”" in text
    assert str(town.bob.id) not in text
    assert buttons(message) == ALL
    assert town.sent("POST", "/messages")[-1]["allowed_mentions"] == {"parse": []}

    await town.restart()
    await town.moderator.click(message, label="Remove")

    assert town.posts() == []
    assert "### Reported, and removed" in text_of(team.review())
    assert f"Removed by {town.moderator.mention}, <t:" in text_of(team.review())
    assert buttons(team.review()) == []
    job = await town.job()
    assert (job.state, job.charge, job.price_cents) == (State.DELIVERED, Charge.CHARGED, 35)
    assert team.written() == [
        f"{town.moderator.mention} removed the clip `{job.id}` of {town.ada.mention}, reported by 1 member: {post.jump_url}"
    ]


async def test_the_menu_reports_as_the_button_does(town: Town) -> None:
    """For posts that are older than the button, and for what is no clip of the bot's."""
    team = await team_of(town)
    post = await town.posted(town.ada)
    opened = await town.bob.context_menu(town.channel, REPORT_MENU, post)
    assert list(fields(opened)) == ["reason", "words"]
    await town.bob.submit_modal(opened, {"reason": ["sexual"], "words": ""})
    assert "Sexual, where it does not belong: 1" in text_of(team.review())

    other = await town.ada.send(town.channel, "look")
    refused = await town.bob.context_menu(town.channel, REPORT_MENU, other)

    assert town.refusal(refused).startswith("This is not a clip of mine.")


async def test_more_reports_are_counted_in_the_same_message(town: Town) -> None:
    """One review a clip; each member once."""
    team = await team_of(town)
    post = await town.posted(town.ada)
    await report(town, town.bob, post)
    await report(town, town.moderator, post, reason="other", words="hm")

    text = text_of(team.review())
    assert "Reported by 2 members" in text
    assert "- Something else: 1\n- Violent or frightening: 1\n- “hm”" in text
    again = await town.bob.click(post, label="Report")
    assert said(again) == "You have reported this clip already. The moderators will look."
    own = await town.ada.click(post, label="Report")
    assert said(own) == "This clip is yours: **Delete** takes it away."


async def test_a_kept_clip_stays_kept(town: Town) -> None:
    """The next to report it is told so."""
    team = await team_of(town)
    post = await town.posted(town.ada)
    opened = await town.moderator.click(post, label="Report")
    await report(town, town.bob, post)

    await town.moderator.click(team.review(), label="Keep")

    assert "Kept by" in text_of(team.review())
    late = await town.moderator.submit_modal(opened, {"reason": ["other"], "words": ""})
    assert said(late) == "The moderators have looked at this clip already, and kept it."
    assert len(town.posts()) == 1
    assert [line.split(" the clip")[0] for line in team.written()] == [f"{town.moderator.mention} kept"]


async def test_remove_and_block(town: Town) -> None:
    """The asker's waiting clips are called off, they are kept out with the reason, and both are written down."""
    team = await team_of(town)
    post = await town.posted(town.ada)
    await report(town, town.bob, post)
    await town.animate(town.ada, picture=picture())

    done = await block_in_modal(town, team)

    assert town.posts() == []
    assert await jobs_of(town, town.ada) == [State.DELIVERED, State.CANCELLED]
    [told] = private(done)
    assert told.startswith(f"{town.ada.mention} may not have clips made here, until <t:")
    assert told.endswith("1 clip that waited: called off, and nothing was charged.")
    removed, blocked = team.written()
    assert removed.startswith(f"{town.moderator.mention} removed the clip")
    assert blocked.startswith(f"{town.moderator.mention} blocked {town.ada.mention}, until <t:")
    assert blocked.endswith(": “no blood”. 1 clip called off.")
    refused = town.refusal(await town.animate(town.ada, picture=picture()))
    assert "The reason given: “no blood”" in refused
    assert str(town.moderator.id) not in refused


async def test_a_post_that_is_gone_already(town: Town) -> None:
    """Removed all the same."""
    team = await team_of(town)
    post = await town.posted(town.ada)
    await report(town, town.bob, post)
    await town.delete(town.moderator, post)

    result = await town.moderator.click(team.review(), label="Remove")

    assert private(result) == []
    assert "### Reported, and removed" in text_of(team.review())
    assert team.written()[0] == (
        f"{town.moderator.mention} deleted the post of the clip `{(await town.job()).id}` of {town.ada.mention}."
    )


async def test_a_post_that_discord_does_not_delete_now(town: Town) -> None:
    """The moderator is told, and the engine goes on trying."""
    team = await team_of(town)
    post = await town.posted(town.ada)
    await report(town, town.bob, post)
    town.env.inject_error("DELETE", f"*/messages/{post.id}", status=403)

    result = await town.moderator.click(team.review(), label="Remove")
    assert private(result) == [reviews.NOT_GONE]
    assert len(town.posts()) == 1
    await town.wait(120)

    assert town.posts() == []


async def test_a_removed_clip_is_not_made_again(town: Town) -> None:
    """What waits to be made from it is called off, and given back; a press that was on its way is refused."""
    team = await team_of(town)
    post = await town.posted(town.ada)
    remix = await town.bob.click(post, label="Remix")
    await town.bob.click(post, label="Again")
    await report(town, town.bob, post)
    town.env.inject_error("DELETE", f"*/messages/{post.id}", status=500, times=None)

    await town.moderator.click(team.review(), label="Remove")

    assert await jobs_of(town, town.bob) == [State.CANCELLED]
    assert team.written()[-1].endswith(" 1 clip made from it called off.")
    assert "moderators have taken this clip away" in said(await submit(town, town.bob, remix, prompt="calm"))
    assert len(town.makevid.creates) == 1


async def test_only_moderators_decide(town: Town) -> None:
    """Should somebody else see the message, or press a button of it."""
    team = await team_of(town)
    post = await town.posted(town.ada)
    await report(town, town.bob, post)

    for label in ALL:
        refused = await town.bob.click(team.review(), label=label)
        assert said(refused) == "Only those who may **Manage Messages** can do this."
    assert len(town.posts()) == 1


async def test_what_was_decided_already(town: Town) -> None:
    """A modal that was open meanwhile is told who was faster, and blocks nobody."""
    team = await team_of(town)
    post = await town.posted(town.ada)
    await report(town, town.bob, post)
    opened = await town.moderator.click(team.review(), label="Remove and block")
    await town.moderator.click(team.review(), label="Keep")

    late = await town.moderator.submit_modal(opened, {"lasting": ["day"], "reason": ""})

    assert private(late) == [
        f"The moderators have looked at this clip already, and kept it. It was decided by {town.moderator.mention}."
    ]
    assert len(town.posts()) == 1
    await town.animate(town.ada, picture=picture())
    assert len(town.cards()) == 1


async def test_without_a_channel_for_reports(town: Town) -> None:
    """The audit channel takes it; without any, the reporter is told plainly, and may come again."""
    post = await town.posted(town.ada)
    assert said(await report(town, town.bob, post)) == reviews.NOBODY_TOLD
    team = Team(town)
    await town.env.settle()
    await town.animatic.bot.servers.change(town.guild.id, audit_channel=team.audit.id)

    assert said(await report(town, town.bob, post)) == reviews.THANKS

    [message] = team.reviews(team.audit)
    assert "Reported by 1 member" in text_of(message)


async def test_a_channel_for_reports_in_which_the_bot_may_not_write(town: Town) -> None:
    """The audit channel takes it, and says what is wrong."""
    team = await team_of(town)
    post = await town.posted(town.ada)
    town.forbid("send_messages", channel=team.reports)

    assert said(await report(town, town.bob, post)) == reviews.THANKS

    [message] = team.reviews(team.audit)
    assert "I cannot write in the channel for reports" in text_of(message)
    town.forbid("send_messages", channel=team.audit)
    other = await town.posted(town.ada, prompt="dunes")
    assert said(await report(town, town.bob, other)) == reviews.NOBODY_TOLD


async def test_a_review_that_somebody_deleted(town: Town) -> None:
    """The next report writes it anew."""
    team = await team_of(town)
    post = await town.posted(town.ada)
    await report(town, town.bob, post)
    await town.moderator.delete(team.review())

    await report(town, town.moderator, post)

    assert "Reported by 2 members" in text_of(team.review())


# Blocks


async def test_block_unblock_and_the_list(town: Town) -> None:
    """By command; each written down with who, whom, until when and why."""
    team = await team_of(town)
    blocked = await town.moderator.slash(
        town.channel, "block", member=town.ada, reason="three times blood", duration="week"
    )

    assert said(blocked).startswith(f"{town.ada.mention} may not have clips made here, until <t:")
    listed = answer_to(await town.moderator.slash(town.channel, "blocked"))
    assert "### 1 blocked in this server" in text_of(listed)
    assert f"- {town.ada.mention} since <t:" in text_of(listed)
    assert "“three times blood”" in text_of(listed)
    town.refusal(await town.animate(town.ada, picture=picture()))
    free = await town.moderator.slash(town.channel, "unblock", member=town.ada)
    assert said(free) == f"{town.ada.mention} may have clips made again."
    assert said(await town.moderator.slash(town.channel, "unblock", member=town.ada)) == (
        f"{town.ada.mention} was not blocked."
    )
    await town.animate(town.ada, picture=picture())
    assert len(await town.jobs()) == 1
    first, second = team.written()
    assert first.startswith(f"{town.moderator.mention} blocked {town.ada.mention}, until <t:")
    assert second == f"{town.moderator.mention} unblocked {town.ada.mention}."


async def test_a_blocked_members_reaction(town: Town) -> None:
    """Starts nothing; the reason is not shown to all, but on *Again*. The same for a modal and a menu."""
    post = await town.posted(town.bob)
    await town.moderator.slash(town.channel, "block", member=town.ada, reason="blood")

    await town.ada.react(post, "🔁")

    assert town.notices() == [
        f"{town.ada.mention} I cannot make another take of this for you. Press **Again** under it to read why. "
        "Nothing was charged."
    ]
    for press in ("Again", "Remix", "Other model", "Continue"):
        assert "The reason given: “blood”" in said(await town.ada.click(post, label=press))
    message = await town.bob.send(town.channel, "look", attachments=[("holiday.png", picture())])
    assert "blood" in town.refusal(await town.ada.context_menu(town.channel, MENU, message))
    assert len(await town.jobs()) == 1
    opened = await town.ada.click(post, label="Report")
    assert opened.modal, "who is blocked may still report"


async def test_blocking_in_mid_flight(town: Town) -> None:
    """What waits is called off on its card; what is being made is posted."""
    town.makevid.polls_until_done = 2
    await town.animate(town.ada, picture=picture())
    await town.work()
    await town.animate(town.ada, picture=picture(), prompt="dunes")

    told = said(await town.moderator.slash(town.channel, "block", member=town.ada))
    await town.work_until_done()

    assert "1 clip that waited: called off, and nothing was charged." in told
    assert "1 clip under way: paid for, or about to be, so they come to their end." in told
    assert sorted(await jobs_of(town, town.ada)) == [State.CANCELLED, State.DELIVERED]
    assert text_of(town.card()).startswith("### Cancelled")


async def test_whom_moderators_cannot_block(town: Town) -> None:
    """Themselves, each other, and bots."""
    other = town.guild.add_member(town.env.create_user("max"), roles=[town.guild.roles["Moderators"]])
    await town.env.settle()

    refused = await town.moderator.slash(town.channel, "block", member=town.moderator)
    assert town.refusal(refused) == "You cannot block yourself."
    refused = await town.moderator.slash(town.channel, "block", member=other)
    assert town.refusal(refused).startswith(f"{other.mention} moderates here")


@pytest.mark.parametrize("command", ["block", "unblock", "blocked"])
async def test_commands_are_for_moderators(town: Town, command: str) -> None:
    """Not offered to others, and refused where the server opened them to all."""
    assert command not in town.ada.available_commands(town.channel)
    assert command in town.moderator.available_commands(town.channel)
    command_id = town.animatic.bot.command_ids[command]
    town.guild.set_command_permissions(command_id, {town.guild.default_role: True})
    options = {} if command == "blocked" else {"member": town.bob}

    refused = town.refusal(await town.ada.slash(town.channel, command, **options))

    assert refused == "Only those who may **Manage Messages** can do this."
    refused = town.refusal(await town.moderator.slash(town.channel, command, everywhere=True, **options))
    assert refused == "Only this bot's owner can do this for all servers. Leave `everywhere` out."


async def test_the_owner_blocks_in_all_servers(town: Town) -> None:
    """And lets in again. No server's audit channel is told."""
    team = await team_of(town)
    owner = town.manager
    town.animatic.bot.owner_id = owner.id
    for name in ("block", "unblock", "blocked"):
        command_id = town.animatic.bot.command_ids[name]
        town.guild.set_command_permissions(command_id, {town.guild.default_role: True})

    await owner.slash(town.channel, "block", member=town.ada, reason="bill", everywhere=True)

    assert "by me. The reason given: “bill”" in town.refusal(await town.animate(town.ada, picture=picture()))
    listed = await owner.slash(town.channel, "blocked", everywhere=True)
    assert "### 1 blocked in all servers" in text_of(answer_to(listed))
    await owner.slash(town.channel, "unblock", member=town.ada, everywhere=True)
    await town.animate(town.ada, picture=picture())
    assert len(town.cards()) == 1
    assert team.written() == []


async def test_the_pages_of_the_list(town: Town) -> None:
    """Turned in place, also after a restart."""
    for number in range(21):
        user = town.guild.add_member(town.env.create_user(f"member{number}"))
        await town.env.settle()
        await town.moderator.slash(town.channel, "block", member=user)
        await town.env.advance_time(1)
    first = answer_to(await town.moderator.slash(town.channel, "blocked"))
    assert "### 21 blocked" in text_of(first)

    await town.restart_quietly()
    turned = await town.moderator.click(first, label="Older")
    assert turned.response
    turned = await town.moderator.click(turned.response.message, label="Older")

    assert turned.response
    text = text_of(turned.response.message)
    assert text.count("since") == 1
    older = [part for part in parts_of(turned.response.message) if part.get("label") == "Older"]
    assert older[0]["disabled"]


# Rules


async def test_a_word_that_this_server_forbids(town: Town) -> None:
    """Refused in private by the command, the modal (with what was typed, to copy), the button and the reaction."""
    post = await town.posted(town.ada, prompt="gore and waves")
    await town.animatic.bot.servers.change(town.guild.id, blocked_words=("Gore",))
    sentence = (
        "A rule of this server forbids “Gore” in a prompt. Please say it otherwise. Nothing was charged."
    )

    assert town.refusal(await town.animate(town.ada, prompt="some GORE", picture=picture())) == sentence
    assert said(await town.bob.click(post, label="Again")) == sentence
    opened = await town.bob.click(post, label="Remix")
    typed = said(await submit(town, town.bob, opened, prompt="ｇｏｒｅ"))
    assert typed == f"{sentence}\nYour prompt, to copy:\n```\nｇｏｒｅ\n```"
    await town.bob.react(post, "🔁")
    assert len(town.notices()) == 1
    assert "Gore" not in town.notices()[0]
    assert len(await town.jobs()) == 1


async def test_a_pattern_that_cannot_be_looked_for_is_told_once(town: Town) -> None:
    """In the audit channel, where it can be mended."""
    team = await team_of(town)
    settings = await town.animatic.bot.servers.settings(town.guild.id)
    broken = settings.model_copy(update={"blocked_patterns": ("(?=a)b",)})
    await town.animatic.store.change_guild(
        town.guild.id,
        lambda _: broken.model_dump_json(include=broken.differing_from(town.animatic.bot.servers.usual)),
    )
    town.animatic.bot.servers._kept.clear()

    for _ in range(2):
        refused = town.refusal(await town.animate(town.ada, picture=picture()))
        assert refused.startswith("I could not look through your prompt for what this server blocks")

    [line] = team.written()
    assert line.startswith("I cannot look for the blocked pattern “(?=a)b”")


async def test_a_check_of_the_owners_own(town: Town) -> None:
    """Its sentence is the refusal."""

    async def check(proposal: Any) -> str | None:
        assert proposal.picture.startswith((b"\x89PNG", b"\xff\xd8"))
        return None if "waves" in proposal.prompt else "Only waves here."

    town.animatic.desk._checker = Checker(check)

    refused = town.refusal(await town.animate(town.ada, prompt="dunes", picture=picture()))
    await town.animate(town.ada, prompt="waves", picture=picture())

    assert refused == "Only waves here. Nothing was charged."
    assert len(await town.jobs()) == 1


# Moderators are written down


async def test_what_a_moderator_does_with_others_clips_is_written_down(town: Town) -> None:
    """And nothing of what people do with their own."""
    team = await team_of(town)
    await town.animate(town.ada, picture=picture())
    job = (await town.jobs())[0]
    await town.moderator.click(town.card(), label="Cancel")
    await town.animate(town.bob, picture=picture())
    await town.bob.click(town.cards()[-1], label="Cancel")

    assert team.written() == [
        f"{town.moderator.mention} cancelled the clip `{job.id}` of {town.ada.mention}."
    ]


# Age-restricted channels


def restrict(town: Town, channel: ChannelHandle, restricted: bool = True) -> None:
    """As a moderator does in the channel's settings."""
    known = town.animatic.bot.get_channel(channel.id)
    assert isinstance(known, discord.TextChannel)
    known.nsfw = restricted


async def test_a_clip_of_an_age_restricted_channel_stays_there(town: Town) -> None:
    """By every button and the reaction, once the channel is no such any more; where it is one, all goes."""
    restrict(town, town.channel)
    post = await town.posted(town.ada)
    assert (await town.job()).age_restricted
    await town.bob.click(post, label="Again")
    assert [job.age_restricted for job in await town.jobs()] == [True, True]

    restrict(town, town.channel, restricted=False)

    for press in ("Again", "Remix", "Other model", "Continue"):
        refused = said(await town.ada.click(post, label=press))
        assert refused.startswith("This clip was made in an age-restricted channel")
    await town.ada.react(post, "🔁")
    assert "age-restricted channel" in town.notices()[0]
    assert len(await town.jobs()) == 2


async def test_a_thread_counts_as_its_channel(town: Town) -> None:
    """Both for what is made in it and for what may be made there."""
    town.env.backend.create_thread(town.channel.id, "waves", owner_id=town.ada.id)
    [thread] = town.channel.threads
    await town.env.settle()
    restrict(town, town.channel)

    await town.animate(town.ada, picture=picture(), channel=thread)
    await town.work_until_done()
    [post] = town.posts(thread)
    await town.bob.react(post, "🔁")

    assert [job.age_restricted for job in await town.jobs()] == [True, True]


async def test_a_picture_forwarded_from_an_age_restricted_channel(town: Town) -> None:
    """Is not animated where it was forwarded to, unless that is such a channel too."""
    grown = town.guild.create_text_channel("grown-ups")
    await town.env.settle()
    restrict(town, grown)
    message = await town.bob.send(grown, "look", attachments=[("holiday.png", picture())])
    forwarded = await town.bob.forward(message, town.channel)

    refused = await town.ada.context_menu(town.channel, MENU, forwarded)
    assert town.refusal(refused).startswith("This was forwarded from an age-restricted channel")

    restrict(town, town.channel)
    opened = await town.ada.context_menu(town.channel, MENU, forwarded)
    await submit(town, town.ada, opened, prompt="waves")
    assert (await town.job()).age_restricted


async def test_a_kept_clip_of_an_age_restricted_channel(town: Town) -> None:
    """Is posted once more only in such."""
    restrict(town, town.channel)
    await undeliverable(town)
    elsewhere = town.guild.create_text_channel("everybody")
    await town.env.settle()
    message = answer_to(await town.ada.slash(elsewhere, "queue"))

    refused = await town.ada.click(message, label="Post it here")
    assert said(refused) == (
        "This clip was asked for in an age-restricted channel, so I post it only in such. The clip is kept."
    )
    restrict(town, elsewhere)
    await town.ada.click(message, label="Post it here")
    await town.work_until_done()

    assert len(town.posts(elsewhere)) == 1


def test_the_buttons_of_a_post_do_not_collide() -> None:
    """A report is no verb of the other buttons: each custom_id is understood by one kind alone."""
    report = reviews.ReportButton("a" * 20)

    assert "report" not in LABELS
    assert report.template.fullmatch(report.custom_id)
    assert not reviews.REPORT_FORM.fullmatch(report.custom_id)
