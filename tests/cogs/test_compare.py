"""`/compare` and `/leaderboard`, as the asker, another member and a moderator, with restarts in between."""

import discord
import pytest
from simcord import InteractionResult, MemberActor

from bot.errors import Refusal
from bot.jobs.comparisons import TOGETHER_WITHIN, Choice
from bot.jobs.machine import Charge, Job, State, StillRendering
from bot.providers.base import Picture
from bot.ui import comparisons
from bot.ui.catalogue import REPORT_MENU
from tests.cogs.conftest import (
    MODELS,
    Town,
    answer_to,
    buttons,
    parts_of,
    picture,
    pictures_in,
    said,
    small_clip,
    text_of,
)
from tests.cogs.test_lists import history, queue, shown
from tests.cogs.test_members import who_of
from tests.cogs.test_safety import report, team_of

NAMES = ("Kling", "Luma", "Runway", "Sketch", "kling", "luma", "runway", "$")


async def ask(town: Town, member: MemberActor | None = None, **options: object) -> InteractionResult:
    given = {"prompt": "waves", "picture": ("holiday.png", picture())} | options
    return await town.slash(member or town.ada, "compare", **given)


async def start(town: Town, member: MemberActor | None = None, **options: object) -> InteractionResult:
    """Ask, and press the button."""
    member = member or town.ada
    question = answer_to(await ask(town, member, **options))
    return await member.click(question, label=buttons(question)[0])


async def compared(town: Town, **options: object) -> discord.Message:
    """The post with both clips."""
    await start(town, **options)
    await town.work_until_done()
    [post] = town.posts()
    return post


def clips_in(message: discord.Message) -> list[str]:
    urls = [
        item["media"]["url"] for part in parts_of(message) if part["type"] == 12 for item in part["items"]
    ]
    return [url.split("/")[-1].split("?")[0] for url in urls]


def tells(message: discord.Message) -> list[str]:
    """What in a message gives a model away."""
    everything = str([component.to_dict() for component in message.components])
    return [name for name in NAMES if name in everything]


def shown_post(town: Town) -> discord.Message:
    [post] = town.posts()
    return post


async def labelled(town: Town) -> tuple[Job, Job]:
    """The jobs of the only comparison, in the order of their labels."""
    jobs = await town.jobs()
    comparison = await town.animatic.bot.comparing._comparisons.get(jobs[0].comparison_id or "")
    assert comparison
    by_id = {job.id: job for job in jobs}
    return by_id[comparison.a_id or ""], by_id[comparison.b_id or ""]


async def sound_books(town: Town) -> bool:
    return (
        await town.animatic.store.shared_posts() == [] and await town.animatic.store.reserved_beyond() == {}
    )


async def test_prices_come_first(town: Town) -> None:
    """Both models, both prices and the sum, privately; nothing is queued or paid before the press."""
    result = await ask(town)

    question = answer_to(result)
    assert "- Kling, 5 s: $0.35\n- Luma, 5 s: $0.30\n**Together: $0.65.** Nothing is spent" in said(result)
    assert buttons(question) == ["Compare (costs $0.65)"]
    await town.work_until_done()
    assert await town.nothing_came_of_it()


@pytest.mark.parametrize("restart", [False, True])
async def test_one_post_with_both_clips(town: Town, restart: bool) -> None:
    """Two clips of the same picture, paid once each, in one post that does not tell which is whose."""
    question = answer_to(await ask(town, seconds=5))
    if restart:
        await town.restart()
    await town.ada.click(question, label="Compare (costs $0.65)")
    cards = town.cards()
    assert len(cards) == 2
    assert [tells(card) for card in cards] == [[], []]
    sources = [town.file(pictures_in(card)[0]) for card in cards]
    if restart:
        await town.work()
        await town.restart()
    await town.work_until_done()

    post = shown_post(town)
    a, b = await labelled(town)
    assert clips_in(post) == [f"animatic-{a.id}.mp4", f"animatic-{b.id}.mp4"]
    assert tells(post) == []
    assert {a.model, b.model} == {"kling", "luma"}
    assert (a.post_id, b.post_id) == (post.id, post.id)
    assert (a.state, b.state) == (State.DELIVERED, State.DELIVERED)
    assert buttons(post) == [
        "A is better", "B is better", "No difference", "Show the result", "Delete", "Report"
    ]  # fmt: skip
    assert len(pictures_in(post)) == 1
    assert town.cards() == []
    assert len(town.makevid.creates) == 2
    assert sources[0] == sources[1]
    assert (a.prompt, a.seconds) == (b.prompt, b.seconds) == ("waves", 5)
    assert await sound_books(town)


async def test_pressed_twice_is_made_once(town: Town) -> None:
    """The button goes with the first press; a second that was under way is told so."""
    question = answer_to(await ask(town))
    await town.ada.click(question, label="Compare (costs $0.65)")
    job = (await town.jobs())[0]

    async def unfetched(_rules: object) -> Picture:
        raise AssertionError("no picture is needed")

    with pytest.raises(Refusal, match="This comparison has been started already"):
        await town.animatic.bot.comparing.start(who_of(town, town.ada.id), job.comparison_id or "", unfetched)
    await town.work_until_done()
    assert len(town.makevid.creates) == 2


async def test_an_old_question(town: Town) -> None:
    """The prompt is kept for an hour."""
    question = answer_to(await ask(town))
    await town.env.advance_time(3700)

    result = await town.ada.click(question, label="Compare (costs $0.65)")

    assert said(result) == "That was too long ago. Please use /compare once more. Nothing was charged."
    await town.work()
    await town.work()
    assert (await town.animatic.store.rows())["comparisons"] == 0
    assert await town.nothing_came_of_it()


@pytest.mark.parametrize(
    ("options", "sentence"),
    [
        ({"first": "kling", "second": "Kling"}, "These are the same model. Choose two different ones"),
        ({"first": "kling", "second": "vidu"}, "I do not have the model “vidu”."),
        ({"seconds": 7}, "There is no second model here"),
        ({"first": "kling", "second": "luma", "seconds": 7}, "Kling cannot do seconds 7; it can do 5, 10."),
        ({"prompt": "x" * 3000}, "There is no second model here"),
    ],
)
async def test_refused(town: Town, options: dict[str, object], sentence: str) -> None:
    """Before anything is shown to anybody."""
    assert town.refusal(await ask(town, **options)).startswith(sentence)
    assert await town.nothing_came_of_it()


async def test_both_or_none(town: Town) -> None:
    """A member with room for one clip gets none of the two."""
    question = answer_to(await ask(town))
    most = town.config.animate.active_per_member
    for _ in range(most - 1):
        await town.animate(town.ada, picture=picture())
    before = len(await town.jobs())

    pressed = await town.ada.click(question, label="Compare (costs $0.65)")
    asked = await ask(town)

    assert said(pressed) == (
        f"This takes 2 clips at once. You have {most - 1} in the works, and one member may have {most} here. "
        "Nothing was charged."
    )
    assert town.refusal(asked) == said(pressed)
    assert len(await town.jobs()) == before


async def test_paused(town: Town) -> None:
    """As everything that costs."""
    question = answer_to(await ask(town))
    await town.animatic.bot.servers.pause(town.guild.id, True)

    result = await town.ada.click(question, label="Compare (costs $0.65)")

    assert said(result).startswith("This server's moderators have paused new clips.")
    assert await town.nothing_came_of_it()


async def test_one_of_two_fails(town: Town) -> None:
    """The other is posted as any clip, with its name and why there is nothing to vote on; the failed one is given back."""
    await start(town)
    jobs = await town.jobs()
    card = next(card for card in town.cards() if card.id == jobs[0].card_id)
    cancelled = await town.ada.click(card, label="Cancel")
    await town.work_until_done()

    assert said(cancelled) == "Cancelled. Nothing was charged."
    post = shown_post(town)
    assert clips_in(post) == [f"animatic-{jobs[1].id}.mp4"]
    assert "The two clips of this comparison did not come together" in text_of(post)
    assert jobs[1].model.capitalize() in text_of(post)
    assert "Again" in buttons(post)
    first, second = await town.jobs()
    assert (first.state, first.charge) == (State.CANCELLED, Charge.NONE)
    assert (second.state, second.sealed) == (State.DELIVERED, False)
    assert len(town.makevid.creates) == 1
    assert await sound_books(town)


async def test_the_other_clip_takes_too_long(town: Town) -> None:
    """The first one is not held back for ever; both are posted, each by itself."""
    await start(town)
    jobs = await town.jobs()
    slow = jobs[1]
    await town.work()
    await town.env.advance_time(15)
    original = town.animatic.engine._providers["makevid"].check
    task = next(job.provider_task for job in await town.jobs() if job.id == slow.id)

    async def check(asked: str) -> object:
        return StillRendering() if asked == task and not done else await original(asked)

    done = False
    town.animatic.engine._providers["makevid"].check = check  # type: ignore[method-assign,assignment]
    for _ in range(int(TOGETHER_WITHIN.total_seconds() // 300) + 3):
        await town.wait(300)

    assert clips_in(shown_post(town)) == [f"animatic-{jobs[0].id}.mp4"]
    done = True
    await town.work_until_done()
    assert [len(clips_in(post)) for post in town.posts()] == [1, 1]
    assert [job.state for job in await town.jobs()] == [State.DELIVERED] * 2
    assert await sound_books(town)


async def test_discord_takes_no_posts_for_a_while(town: Town) -> None:
    """The same post later, once; a restart comes between."""
    await start(town)
    await town.work()
    town.env.inject_error("POST", f"/channels/{town.channel.id}/messages", status=503, times=3)
    await town.wait(60)
    await town.restart()
    await town.work_until_done()

    assert len(clips_in(shown_post(town))) == 2
    assert await sound_books(town)


async def test_a_crash_between_the_post_and_its_commit(town: Town, monkeypatch: pytest.MonkeyPatch) -> None:
    """The next process finds the post: no second one, and both jobs name it."""
    await start(town)
    await town.work()

    async def died(*_args: object) -> bool:
        raise OSError("the process died here")

    monkeypatch.setattr("bot.jobs.comparisons.Comparisons.posted", died)
    await town.wait(30)
    await town.wait(30)
    assert len(town.posts()) == 1
    assert {job.state for job in await town.jobs()} == {State.POSTING}
    monkeypatch.undo()
    await town.env.advance_time(600)  # long past the nonce's window
    await town.restart()
    await town.work_until_done()

    post = shown_post(town)
    assert {job.post_id for job in await town.jobs()} == {post.id}
    assert len(clips_in(post)) == 2


async def test_the_post_is_deleted_before_it_is_written_down(
    town: Town, monkeypatch: pytest.MonkeyPatch
) -> None:
    """By a moderator, while the bot was dead: no clip is lost, both are posted again."""
    await start(town)
    await town.work()

    async def died(*_args: object) -> bool:
        raise OSError("the process died here")

    monkeypatch.setattr("bot.jobs.comparisons.Comparisons.posted", died)
    await town.wait(30)
    await town.wait(30)
    [post] = town.posts()
    monkeypatch.undo()
    await town.env.advance_time(600)
    await town.moderator.delete(post)
    await town.restart()
    await town.work_until_done()

    posted = [name for message in town.posts() for name in clips_in(message)]
    assert sorted(posted) == sorted(f"animatic-{job.id}.mp4" for job in await town.jobs())


async def test_the_channel_is_closed(town: Town) -> None:
    """Both clips go to the asker, each by itself."""
    await start(town)
    await town.work()
    town.forbid("send_messages", "attach_files")
    await town.work_until_done()

    jobs = await town.jobs()
    assert {job.state for job in jobs} <= {State.DELIVERED, State.UNDELIVERABLE}
    assert {job.sealed for job in jobs} == {False}
    assert len({job.post_id for job in jobs}) == 2


async def test_votes_are_secret_and_may_be_changed(town: Town) -> None:
    """Until the result is shown; by whoever can see the post."""
    post = await compared(town)
    before = text_of(post)

    first = await town.ada.click(post, label="A is better")
    changed = await town.ada.click(post, label="B is better")
    await town.bob.click(post, label="B is better")
    await town.restart()
    await town.moderator.click(shown_post(town), label="No difference")

    assert said(first).startswith("Your vote: A is better. You can change it until the result is shown, <t:")
    assert said(changed).startswith("Your vote: B is better.")
    assert text_of(shown_post(town)) == before
    a, _ = await labelled(town)
    votes = await town.animatic.bot.comparing._comparisons.votes(a.comparison_id or "")
    assert votes == {Choice.A: 0, Choice.B: 2, Choice.SAME: 1}


@pytest.mark.parametrize("who", ["ada", "moderator"])
async def test_the_result(town: Town, who: str) -> None:
    """Shown by the asker or a moderator: names, votes, and no more votes."""
    post = await compared(town)
    await town.bob.click(post, label="B is better")
    stranger = await town.bob.click(post, label="Show the result")

    result = await getattr(town, who).click(post, label="Show the result")

    assert said(stranger) == f"Only {town.ada.mention} and moderators can end the vote."
    assert said(result) == comparisons.SHOWN
    shown_now = shown_post(town)
    a, b = await labelled(town)
    text = text_of(shown_now)
    assert f"### A: {a.model.capitalize()} · $0.3" in text
    assert f"### B: {b.model.capitalize()} · $0.3" in text
    assert f"### B wins: {b.model.capitalize()}" in text
    assert f"`████████████` 1 · B, {b.model.capitalize()}" in text
    assert "`░░░░░░░░░░░░` 0 · No difference" in text
    assert clips_in(shown_now) == clips_in(post)
    assert len(pictures_in(shown_now)) == 1
    assert buttons(shown_now) == ["Delete", "Report"]
    assert (a.sealed, b.sealed) == (False, False)
    with pytest.raises(Refusal, match="The vote is over"):  # a press that was under way
        await town.animatic.bot.comparing.vote(who_of(town, town.bob.id), a.comparison_id or "", Choice.A)


async def test_the_result_shows_itself_after_a_day(town: Town) -> None:
    """Also when the bot was away at that time, and when Discord does not take it at first."""
    post = await compared(town)
    await town.bob.click(post, label="A is better")
    await town.wait(23 * 3600)
    assert "Show the result" in buttons(shown_post(town))
    await town.env.advance_time(2 * 3600)
    town.env.inject_error("PATCH", f"/channels/{town.channel.id}/messages/{post.id}", status=503, times=1)
    await town.restart()
    assert "Show the result" in buttons(shown_post(town))
    assert said(await town.bob.click(post, label="B is better")) == "The vote is over: the result is shown."
    await town.wait(60)

    a, _ = await labelled(town)
    assert f"### A wins: {a.model.capitalize()}" in text_of(shown_post(town))


async def test_a_deleted_post_has_no_result(town: Town) -> None:
    """Nothing is tried for ever; what was voted counts."""
    post = await compared(town)
    await town.bob.click(post, label="A is better")
    await town.delete(town.moderator, post)
    assert town.posts() == []
    await town.wait(25 * 3600)
    await town.wait(60)

    assert await town.animatic.bot.comparing._comparisons.due(town.now()) == []
    assert "2 comparisons" not in text_of(shown(await town.slash(town.bob, "leaderboard")))


async def test_nothing_tells_the_models_before_the_result(town: Town) -> None:
    """/queue, /history and /show; a reaction does not make one of them again."""
    town.makevid.polls_until_done = 3
    await start(town)
    await town.work()
    a, b = await labelled(town)
    assert "to compare" in text_of(await queue(town, town.bob))
    mine = text_of(await queue(town, town.ada)).split("### This server")[0]
    assert not [name for name in NAMES if name in mine]
    await town.work_until_done()

    for reader in (town.bob, town.ada):
        listed = await history(town, reader)
        assert not tells(listed)
        assert "No clips" in text_of(await history(town, reader, model=a.model))
        for job in (a, b):
            assert not tells(shown(await town.slash(reader, "show", id=job.id)))
    await town.bob.react(shown_post(town), "🔁")
    await town.work()
    assert len(await town.jobs()) == 2


async def test_the_leaderboard(town: Town) -> None:
    """Of this server's comparisons whose result is shown."""
    empty = text_of(shown(await town.slash(town.bob, "leaderboard")))
    post = await compared(town)
    a, b = await labelled(town)
    await town.bob.click(post, label="A is better")
    await town.moderator.click(post, label="A is better")
    await town.ada.click(post, label="No difference")
    hidden = text_of(shown(await town.slash(town.bob, "leaderboard")))
    await town.ada.click(post, label="Show the result")

    board = text_of(shown(await town.slash(town.bob, "leaderboard")))

    assert empty == hidden
    assert "No votes yet" in empty
    assert "Only 3 votes in 1 comparison so far: too few to say" in board
    assert f"1. **{a.model.capitalize()}** · 1," in board
    assert f"2. **{b.model.capitalize()}** · " in board
    assert "-# 1 comparison, 3 votes" in board
    assert "One opinion is one member's vote" in board


async def test_sketch_can_be_compared(town: Town) -> None:
    """A model on another route, and what stands under the clips does not say which it is."""
    assert MODELS["sketch"]
    await start(town, first="kling", second="sketch", picture=("small.png", picture(480, 300)))
    await town.draw_until_done()

    post = shown_post(town)
    assert len(clips_in(post)) == 2
    assert tells(post) == []
    assert "One of them is made by AI" in text_of(post)
    assert small_clip()


async def test_rules_and_blocks_hold_for_comparisons(town: Town) -> None:
    """Refused at the press at the latest, in private, for nothing."""
    question = answer_to(await ask(town, prompt="gore"))
    await town.animatic.bot.servers.change(town.guild.id, blocked_words=("Gore",))

    assert "A rule of this server forbids “Gore”" in said(
        await town.ada.click(question, label=buttons(question)[0])
    )

    await town.moderator.slash(town.channel, "block", member=town.ada, reason="enough")
    refused = town.refusal(await ask(town))
    assert "enough" in refused
    assert await town.jobs() == []


@pytest.mark.parametrize("by_menu", [False, True])
async def test_a_reported_comparison_is_taken_away_whole(town: Town, by_menu: bool) -> None:
    """One report, whichever way; what is removed is hidden and not made again, both clips of it."""
    team = await team_of(town)
    post = await compared(town)
    if by_menu:
        opened = await town.bob.context_menu(town.channel, REPORT_MENU, post)
        await town.bob.submit_modal(opened, {"reason": ["violent"], "words": ""})
    else:
        await report(town, town.bob, post)

    await town.moderator.click(team.review(), label="Remove")

    assert town.posts() == []
    for job in await labelled(town):
        assert job.state is State.DELIVERED
        with pytest.raises(Refusal, match="moderators have taken this clip away"):
            await town.animatic.desk.again(who_of(town, town.bob.id), job)
    assert await sound_books(town)
