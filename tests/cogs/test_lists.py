"""`/queue`, `/history` and `/show`, as the asker, another member and a moderator, with restarts in between."""

import re

import discord
import pytest
from simcord import InteractionResult, MemberActor
from simcord.backend.models import Overwrite
from simcord.enums import OverwriteType
from sqlalchemy import update

from bot.errors import Cause
from bot.jobs.machine import Charge, Job, State
from bot.jobs.store import new_job_id
from bot.jobs.tables import jobs
from tests.cogs.conftest import Town, buttons, clip_in, parts_of, picture, said, small_clip, text_of


def shown(result: InteractionResult) -> discord.Message:
    """The private list that a command was answered with."""
    assert result.response
    assert result.response.ephemeral
    return result.response.message


async def queue(town: Town, member: MemberActor) -> discord.Message:
    return shown(await town.slash(member, "queue"))


async def history(town: Town, reader: MemberActor, /, **options: object) -> discord.Message:
    return shown(await town.slash(reader, "history", **options))


def live(message: discord.Message) -> list[str]:
    """The buttons that can be pressed."""
    return [part["label"] for part in parts_of(message) if part["type"] == 2 and not part.get("disabled")]


async def hide(town: Town, channel: object, member: MemberActor) -> None:
    """Take a channel from a member's sight."""
    denied = discord.Permissions(view_channel=True).value
    town.env.backend.set_overwrite(channel.id, Overwrite(member.id, OverwriteType.MEMBER, 0, denied))  # type: ignore[attr-defined]
    await town.env.settle()


async def past_jobs(town: Town, number: int, **changes: object) -> list[Job]:
    """Delivered clips of long ago, the oldest first."""
    made = []
    for n in range(number):
        await town.env.advance_time(1)
        now = town.now()
        values: dict[str, object] = {
            "state": State.DELIVERED,
            "guild_id": town.guild.id,
            "channel_id": town.channel.id,
            "asker_id": town.ada.id,
            "post_id": 7000 + n,
            "prompt": f"clip number {n}.",
            "price_cents": 35,
            "charge": Charge.CHARGED,
            "model": "kling",
            "route": "makevid",
            "variant": "kling",
            "seconds": 5,
        }
        job = Job(id=new_job_id(now), created_at=now, changed_at=now, **(values | changes))  # type: ignore[arg-type]
        made.append(await town.animatic.store.add(job))
    return made


# /queue


async def test_an_empty_queue(town: Town) -> None:
    """Nothing of one's own, and nothing in the server."""
    text = text_of(await queue(town, town.ada))

    assert "You have no clip in the works" in text
    assert "Nobody in this server waits" in text


async def test_places_and_times(town: Town) -> None:
    """What runs says when it is due, what waits its place; each with its price and a link to its card."""
    town.makevid.polls_until_done = 1000
    for member in (town.ada, town.bob, town.ada, town.bob):
        await town.animate(member, prompt=f"of {member.name}", picture=picture())
        await town.env.advance_time(1)
    await town.work()

    message = await queue(town, town.ada)

    text = text_of(message)
    assert text.count("“of ada”") == 2 + 2  # mine, and in this channel
    assert "Bringing it to life, ready <t:" in text
    assert "**Waiting to start**" in text
    assert f"https://discord.com/channels/{town.guild.id}/{town.channel.id}/{town.cards()[0].id}" in text
    assert "### This server: 2 waiting, 2 in the making, for 2 members" in text
    assert "- Kling: 2 waiting, 2 in the making" in text
    assert "“of bob”" in text
    assert "number 2 in line" in text
    assert re.search(r"\*\*Waiting to start\*\*\n.*\n.* · ready about <t:\d+:R>\n\[The card\]\(https:", text)
    assert buttons(message) == ["Cancel", "Refresh"]


async def test_cancel_from_the_queue(town: Town) -> None:
    """Also after a restart; the list shows it when asked anew."""
    await town.animate(town.ada, picture=picture())
    town.makevid.next_create = "500"
    message = await queue(town, town.ada)

    await town.restart_quietly()
    result = await town.ada.click(message, label="Cancel")
    refreshed = await town.ada.click(message, label="Refresh")

    assert said(result) == "Cancelled. Nothing was charged."
    assert refreshed.response
    assert "You have no clip in the works" in text_of(refreshed.response.message)
    assert (await town.job()).state is State.CANCELLED


async def test_a_doubt_and_what_to_do_about_it(town: Town) -> None:
    """Letting go at once; paying perhaps twice only when the look-ups had their time."""
    town.makevid.next_create = "500"
    await town.animate(town.ada, picture=picture())
    await town.work()

    young = await queue(town, town.ada)
    await town.env.advance_time(200)
    old = await queue(town, town.ada)
    result = await town.ada.click(old, label="Let it go")

    assert buttons(young) == ["Let it go", "Refresh"]
    assert buttons(old) == ["Try again (may cost twice)", "Let it go", "Refresh"]
    assert said(result) == "I ask no more. It may have been charged."


async def test_prompts_of_other_channels_stay_there(town: Town) -> None:
    """Elsewhere only numbers tell that somebody waits."""
    hidden = town.guild.create_text_channel("backstage")
    await town.animate(town.bob, prompt="a secret", picture=picture(), channel=hidden)

    text = text_of(await queue(town, town.ada))

    assert "1 waiting" in text
    assert "for 1 member" in text
    assert "secret" not in text
    assert town.bob.mention not in text


async def test_other_servers_are_only_a_number(town: Town) -> None:
    """The line is shared, and places would puzzle without it."""
    await past_jobs(town, 3, state=State.QUEUED, guild_id=1, channel_id=2, prompt="far away", post_id=None)

    text = text_of(await queue(town, town.ada))

    assert "shared with other servers, where 3 more wait" in text
    assert "far away" not in text
    assert "no clip in the works" in text


async def test_a_long_queue_has_pages(town: Town) -> None:
    """Five at a time, within Discord's limits also where every prompt is long."""
    long = "*" * 2000
    await past_jobs(town, 12, state=State.QUEUED, prompt=long, post_id=None, card_id=5)
    pages = [await queue(town, town.ada)]
    await town.restart_quietly()
    for _ in range(2):
        turned = await town.ada.click(pages[-1], label="Next")
        assert turned.response
        pages.append(turned.response.message)

    for number, page in enumerate(pages, start=1):
        assert f"page {number} of 3" in text_of(page)
        assert len(parts_of(page)) <= 40
        assert len(text_of(page)) <= 4000
    assert [live(page).count("Cancel") for page in pages] == [5, 5, 2]
    assert [live(page)[live(page).count("Cancel") :] for page in pages] == [
        ["Refresh", "Next"],
        ["Previous", "Refresh", "Next"],
        ["Previous", "Refresh"],
    ]


async def test_a_page_that_is_no_more(town: Town) -> None:
    """The clips of the last page have ended meanwhile: the last page there is."""
    await past_jobs(town, 6, state=State.QUEUED, post_id=None)
    first = await queue(town, town.ada)
    async with town.animatic.store._writes.begin() as connection:
        await connection.execute(
            update(jobs).where(jobs.c.prompt == "clip number 0.").values(state="cancelled")
        )

    result = await town.ada.click(first, label="Next")

    assert result.response
    assert buttons(result.response.message).count("Cancel") == 5


# Post it here


async def undeliverable(town: Town) -> Job:
    """A finished clip that the bot may not post where it was asked for."""
    town.makevid.polls_until_done = 0
    await town.animate(town.ada, prompt="waves", picture=picture())
    await town.work()
    town.forbid("send_messages")
    town.env.inject_error("POST", "/users/@me/channels", status=403, code=50007, times=None)
    await town.work_until_done()
    job = await town.job()
    assert job.state is State.UNDELIVERABLE
    return job


async def test_a_kept_clip_is_posted_where_its_asker_is(town: Town) -> None:
    """One post with the source picture, one payment, and the card is taken away."""
    await undeliverable(town)
    elsewhere = town.guild.create_text_channel("elsewhere")
    message = shown(await town.ada.slash(elsewhere, "queue"))
    assert "Finished, but I cannot post it" in text_of(message)

    await town.restart_quietly()
    result = await town.ada.click(message, label="Post it here")
    await town.work_until_done()
    await town.wait(60)

    assert said(result) == f"I post it in <#{elsewhere.id}> in a moment. It is not charged again."
    [post] = town.posts(elsewhere)
    clip = clip_in(post)
    assert clip
    assert town.file(clip) == small_clip()
    assert f"{town.ada.mention}, here is your clip." in text_of(post)
    assert [part["type"] for part in parts_of(post)].count(11) == 1
    assert town.cards() == []
    assert len(town.makevid.creates) == 1
    job = await town.job()
    assert (job.state, job.charge) == (State.DELIVERED, Charge.CHARGED)
    assert await town.animatic.store.money(job.id) == {"reserve": 35, "charge": 35}
    assert "no clip in the works" in text_of(await queue(town, town.ada))


async def test_another_take_of_a_clip_posted_elsewhere(town: Town) -> None:
    """The post is as good as any: its reaction and its picture work."""
    await undeliverable(town)
    elsewhere = town.guild.create_text_channel("elsewhere")
    await town.ada.click(shown(await town.ada.slash(elsewhere, "queue")), label="Post it here")
    await town.work_until_done()
    [post] = town.posts(elsewhere)

    await town.bob.react(post, "🔁")
    await town.work_until_done()

    first, second = town.makevid.creates
    assert first.body == second.body
    assert len(town.posts(elsewhere)) == 2


async def test_the_permission_is_back(town: Town) -> None:
    """The card itself offers it; a deleted first delivery does not swallow the second."""
    job = await undeliverable(town)
    town.env.backend.delete_overwrite(town.channel.id, town.animatic.bot.user.id)  # type: ignore[union-attr]
    await town.env.settle()

    await town.moderator.click(town.card(), label="Post it here")
    await town.work_until_done()
    await town.wait(60)

    assert len(town.posts()) == 1
    assert town.cards() == []
    card, refused, posted = [str(message["nonce"]) for message in town.sent("POST", "/messages")]
    assert (card, refused) == (f"{job.id}c", f"{job.id}p")
    assert posted.startswith(refused)
    assert posted != refused
    assert len(posted) <= 25


async def test_where_the_bot_may_not_post_either(town: Town) -> None:
    """Refused by name, and the clip is kept."""
    job = await undeliverable(town)
    message = await queue(town, town.ada)

    result = await town.ada.click(message, label="Post it here")

    assert "I am missing **Send Messages**" in said(result)
    assert await town.job() == job


async def test_a_stranger_cannot_have_it_posted(town: Town) -> None:
    """The card stands for all to see; its button is not for all."""
    job = await undeliverable(town)
    town.env.backend.delete_overwrite(town.channel.id, town.animatic.bot.user.id)  # type: ignore[union-attr]
    await town.env.settle()

    result = await town.bob.click(town.card(), label="Post it here")

    assert said(result) == f"Only {town.ada.mention} and moderators can have this clip posted."
    assert await town.job() == job


async def test_a_clip_that_is_gone_is_told_of(town: Town) -> None:
    """For a day, in the list of the person who asked for it."""
    await past_jobs(
        town, 1, state=State.FAILED, cause=Cause.CLIP_GONE, redelivered_at=town.now(), post_id=None
    )

    young = text_of(await queue(town, town.ada))
    await town.env.advance_time(2 * 86400)

    assert "The provider made the clip but no longer has it. It was charged." in young
    assert "clip number" not in text_of(await queue(town, town.ada))


# /history


async def test_history_links_to_the_posts(town: Town) -> None:
    """The newest first, of everybody, without those that failed."""
    first = await town.posted(town.ada, prompt="waves")
    second = await town.posted(town.bob, prompt="dunes")
    await past_jobs(town, 1, state=State.FAILED, prompt="broken", cause=Cause.BROKEN)

    text = text_of(await history(town, town.bob))

    link = f"https://discord.com/channels/{town.guild.id}/{town.channel.id}"
    assert text.index(f"{link}/{second.id}") < text.index(f"{link}/{first.id}")
    assert "“waves”" in text
    assert "$0.35" in text
    assert "broken" not in text


async def test_ones_own_failures_are_there(town: Town) -> None:
    """With what went wrong, and what it cost."""
    await past_jobs(town, 1, state=State.FAILED, cause=Cause.MODERATION, charge=Charge.NONE, post_id=None)

    text = text_of(await history(town, town.ada))

    assert "**Did not work, <t:" in text
    assert "moderation refused it" in text
    assert "Nothing was charged." in text


async def test_history_of_one_member_and_one_model(town: Town) -> None:
    """Filters that also hold on the next page."""
    await past_jobs(town, 8)
    await past_jobs(town, 2, asker_id=town.bob.id, prompt="of bob")
    await past_jobs(town, 2, model="luma", prompt="of luma")

    first = await history(town, town.bob, member=town.ada, model="kling")
    await town.restart_quietly()
    second = await town.bob.click(first, label="Older")
    assert second.response
    older = text_of(second.response.message)
    third = await town.bob.click(second.response.message, label="Newer")
    assert third.response

    assert [f"number {n}." in text_of(first) for n in range(8)] == [False] * 2 + [True] * 6
    assert [f"number {n}." in older for n in range(8)] == [True] * 2 + [False] * 6
    assert text_of(third.response.message) == text_of(first)
    assert (live(first), live(third.response.message)) == (["Older"], ["Older"])
    for text in (text_of(first), older):
        assert f"by {town.ada.mention}" in text
        assert "of bob" not in text
        assert "of luma" not in text


async def test_only_what_the_reader_may_see(town: Town) -> None:
    """A hidden channel's clips are for those who can read it; one's own are always there."""
    hidden = town.guild.create_text_channel("backstage")
    await hide(town, hidden, town.bob)
    await past_jobs(town, 1, channel_id=hidden.id, prompt="a secret")
    [own] = await past_jobs(town, 1, channel_id=hidden.id, prompt="my own", asker_id=town.bob.id)

    assert "a secret" not in text_of(await history(town, town.bob))
    assert "my own" in text_of(await history(town, town.bob))
    assert "a secret" in text_of(await history(town, town.ada))
    await hide(town, hidden, town.ada)
    assert "my own" not in text_of(await history(town, town.ada))
    assert own.id not in text_of(await history(town, town.ada))


async def test_other_servers_are_not_in_the_history(town: Town) -> None:
    """Not even the reader's own clips of there."""
    await past_jobs(town, 1, guild_id=1, channel_id=2)

    assert "No clips to show here" in text_of(await history(town, town.ada))


async def test_a_full_page_stays_within_discords_limits(town: Town) -> None:
    """Long prompts that must be escaped, in every script."""
    await past_jobs(town, 7, prompt="*_" * 1000)
    messages = [await history(town, town.ada)]
    await past_jobs(town, 7, prompt="帆" * 2000)
    messages.append(await history(town, town.ada))
    failed = {"state": State.FAILED, "cause": Cause.BAD_INPUT, "charge": Charge.MAYBE, "post_id": None}
    await past_jobs(town, 7, prompt="*_" * 1000, model="k" * 32, quality="q" * 16, camera="c" * 24, **failed)
    messages.append(await history(town, town.ada))

    for shown_now in messages:
        assert len(text_of(shown_now)) <= 4000
        assert len(text_of(shown_now).encode()) <= 10_000
        assert len(parts_of(shown_now)) <= 40


async def test_an_unknown_model(town: Town) -> None:
    """Refused with those that there are; labels and names are both understood."""
    result = await town.slash(town.ada, "history", model="sora")

    assert "I do not have the model “sora”. Choose one of: Kling, Luma" in town.refusal(result)
    assert "made with Kling" not in text_of(await history(town, town.ada, model="Kling"))


async def test_models_are_offered(town: Town) -> None:
    """From the live menu."""
    offered = await town.ada.autocomplete(town.channel, "history", "model", "lu")

    assert offered == [{"name": "Luma", "value": "luma"}]


# /show


async def test_show_a_clip_and_where_it_came_from(town: Town) -> None:
    """Its state, price, times and post; its parent, and how many came from it."""
    post = await town.posted(town.ada, prompt="waves")
    await town.bob.react(post, "🔁")
    await town.work_until_done()
    parent, take = await town.jobs()

    of_take = text_of(shown(await town.slash(town.moderator, "show", id=take.id)))
    of_parent = text_of(shown(await town.slash(town.moderator, "show", id=parent.id.upper())))

    link = f"https://discord.com/channels/{town.guild.id}/{town.channel.id}"
    assert f"Another take of [a clip]({link}/{post.id}) by {town.ada.mention} (`{parent.id}`)" in of_take
    assert f"[The post]({link}/{take.post_id})" in of_take
    assert "$0.35" in of_take
    assert "It was charged." in of_take
    assert "Made in" in of_take
    assert "1 clip came from it" in of_parent
    assert "Another take" not in of_parent


async def test_a_negative_prompt_is_its_askers(town: Town) -> None:
    """The post does not show it either."""
    [job] = await past_jobs(town, 1, negative_prompt="blur")

    assert "Without: “blur”" in text_of(shown(await town.slash(town.ada, "show", id=job.id)))
    assert "blur" not in text_of(shown(await town.slash(town.bob, "show", id=job.id)))


@pytest.mark.parametrize(
    "changes",
    [
        {"guild_id": 1, "channel_id": 2},
        {"channel_id": 404, "asker_id": 99},
        {"state": State.FAILED, "asker_id": 99},
        {"asker_id": 0},
    ],
    ids=["another server", "a hidden channel", "another's failure", "forgotten"],
)
async def test_what_is_not_to_be_shown(town: Town, changes: dict[str, object]) -> None:
    """Refused in the same words as an id that never was."""
    [job] = await past_jobs(town, 1, **changes)

    refused = town.refusal(await town.slash(town.ada, "show", id=job.id))

    assert refused == town.refusal(await town.slash(town.ada, "show", id="nonsense"))
    assert refused.startswith("I do not know a clip of this id here.")


async def test_show_what_waits(town: Town) -> None:
    """With the buttons of its asker, for nobody else."""
    await town.animate(town.ada, picture=picture())
    job = await town.job()

    mine = shown(await town.slash(town.ada, "show", id=job.id))
    bobs = shown(await town.slash(town.bob, "show", id=job.id))

    assert buttons(mine) == ["Cancel"]
    assert buttons(bobs) == []
    assert "[The card](" in text_of(bobs)


async def test_ones_recent_clips_are_offered(town: Town) -> None:
    """Found by their words; nobody else's, and none of other servers."""
    await past_jobs(town, 1, prompt="Waves roll in")
    await past_jobs(town, 30, prompt="dunes " * 100)
    await past_jobs(town, 1, prompt="waves of bob", asker_id=town.bob.id)
    await past_jobs(town, 1, prompt="waves elsewhere", guild_id=1)

    found = await town.ada.autocomplete(town.channel, "show", "id", "wAVES")
    everything = await town.ada.autocomplete(town.channel, "show", "id", "")

    assert [choice["name"] for choice in found] == ["Waves roll in · Kling · 32 s ago"]
    assert len(everything) == 25
    assert all(len(choice["name"]) <= 100 for choice in everything)
