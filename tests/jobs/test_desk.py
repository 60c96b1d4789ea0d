"""The desk: what is refused before anything is queued, and who may do what."""

import asyncio
from dataclasses import replace
from typing import Any

import pytest

from bot.errors import Cause, ProviderRejected, ProviderUnsure, Refusal
from bot.jobs.announcing import CannotPost, PictureGone, Pictures, PostLater
from bot.jobs.desk import ROOM, Ask, Who, adapted, asked, check, possible
from bot.jobs.machine import Cancelled, Charge, Job, Lineage, State, advance
from bot.jobs.models import Menu, Model
from bot.jobs.store import Store
from bot.providers.base import Capabilities, Only
from tests.conftest import Clock
from tests.jobs.world import PICTURE, World, make_world

MEMBER = Who(id=2, channel_id=10, guild_id=1)
STRANGER = Who(id=3, channel_id=10, guild_id=1)
MODERATOR = Who(id=99, channel_id=10, guild_id=1, moderator=True)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (Ask(prompt="x" * 6000, has_picture=True), "6,000 characters; Kling takes at most 2,500"),
        (Ask(prompt="  "), "Write a prompt"),
        (Ask(prompt=" ", model="runway", has_picture=True), "Write a prompt"),
        (Ask(prompt="waves", model="runway"), "Runway needs a picture"),
        (Ask(prompt="waves", has_end_picture=True), "An end picture needs a first picture"),
        (
            Ask(prompt="waves", model="runway", has_picture=True, has_end_picture=True),
            "cannot end on a given picture",
        ),
        (
            Ask(prompt="waves", negative_prompt="x" * 300, has_picture=True),
            "300 characters; Kling takes at most 200",
        ),
        (
            Ask(prompt="waves", model="runway", negative_prompt="blur", has_picture=True),
            "has no negative prompt",
        ),
        (Ask(prompt="waves", strength=1.5, has_picture=True), "from 0 to 1"),
        (Ask(prompt="waves", model="runway", strength=0.5, has_picture=True), "has no strength"),
        (Ask(prompt="waves", seconds=7, has_picture=True), "cannot do seconds 7; it can do 5, 10"),
        (Ask(prompt="waves", model="runway", quality="pro", has_picture=True), "has no choice of quality"),
        (Ask(prompt="waves", ratio="16:9", has_picture=True), "takes the shape of your picture"),
        (Ask(prompt="waves", ratio="4:3"), "it can do 16:9, 1:1"),
        (Ask(prompt="waves", model="sora"), "Choose one of: Kling, Runway"),
    ],
)
def test_what_a_model_cannot_do_is_refused_in_words(world: World, ask: Ask, sentence: str) -> None:
    """The answer says what to change, and that it cost nothing."""
    with pytest.raises(Refusal) as refusal:
        world.desk.plan(ask)

    assert sentence in str(refusal.value)
    assert str(refusal.value).endswith("Nothing was charged.")


def a_menu(**models: Capabilities) -> Menu:
    return Menu(
        models={
            name: Model(
                name=name,
                label=name.capitalize(),
                route="route",
                variant=name,
                can=can,
                price_cents=lambda seconds, _quality, sound: seconds * (20 if sound else 10),
            )
            for name, can in models.items()
        },
        default=next(iter(models)),
    )


FULL = a_menu(
    kling=Capabilities(
        seconds=(5, 10),
        qualities=("std", "pro"),
        ratios=("16:9", "1:1"),
        negative_prompt=200,
        cameras=("zoom in", "pan left"),
        strength=(0.0, 1.0),
        end_picture=True,
        text_only=True,
        only=(
            Only(option="camera", seconds=(5,), qualities=("std",), picture=False),
            Only(option="end_picture", qualities=("pro",)),
            Only(option="strength", end_picture=False),
        ),
    ),
    luma=Capabilities(
        seconds=(5, 9, 10),
        qualities=("540p", "720p", "1080p"),
        ratios=("16:9",),
        loop=True,
        end_picture=True,
        text_only=True,
        only=(
            Only(option="loop", end_picture=False, seconds=(5, 9)),
            Only(option="seconds", value=10, picture=True, end_picture=False),
        ),
    ),
    veo=Capabilities(seconds=(4, 8), sound=True, shapes=("16:9", "9:16"), prompt_length=10),
)


@pytest.mark.parametrize(
    ("ask", "sentence"),
    [
        (
            Ask(prompt="waves", camera="pan left", model="luma"),
            "Luma has no choice of camera. Leave `camera` out. Or choose another `model`: Kling can do this.",
        ),
        (
            Ask(prompt="waves", camera="somersault"),
            "Kling cannot do camera somersault; it can do zoom in, pan left.",
        ),
        (
            Ask(prompt="waves", camera="zoom in", has_picture=True),
            "Kling has `camera` only with no picture.",
        ),
        (
            Ask(prompt="waves", camera="zoom in", seconds=10, quality="pro", has_picture=True),
            "Kling has `camera` only with 5 seconds, quality std and no picture.",
        ),
        (
            Ask(prompt="waves", loop=True),
            "Kling cannot loop. Leave `loop` out. Or choose another `model`: Luma can do this.",
        ),
        (
            Ask(prompt="waves", loop=True, model="luma", has_picture=True, has_end_picture=True),
            "Luma has `loop` only with no end picture.",
        ),
        (
            Ask(prompt="waves", loop=True, model="luma", seconds=10, has_picture=True),
            "Luma has `loop` only with 5 or 9 seconds.",
        ),
        (
            Ask(prompt="waves", model="luma", seconds=10),
            "Luma has seconds 10 only with a picture. Or choose another `model`: Kling can do this.",
        ),
        (
            Ask(prompt="waves", has_picture=True, sound=True),
            "Kling has no sound. Leave `sound` out. Or choose another `model`: Veo can do this.",
        ),
        (
            Ask(prompt="waves", has_picture=True, has_end_picture=True),
            "Kling has `end_picture` only with quality pro. Or choose another `model`: Luma can do this.",
        ),
        (
            Ask(prompt="waves", has_picture=True, has_end_picture=True, quality="pro", strength=0.0),
            "Kling has `strength` only with no end picture.",
        ),
        (
            Ask(prompt="waves", has_picture=True, ratio="9:16"),
            "The clip takes the shape of your picture. Leave `ratio` out. "
            "Or choose another `model`: Veo can do this.",
        ),
        (
            Ask(prompt="waves", model="veo", has_picture=True, ratio="1:1"),
            "Veo cannot do ratio 1:1; it can do 16:9, 9:16.",
        ),
        (
            Ask(prompt="waves", model="veo"),
            "Veo needs a picture to start from. Attach one as `picture`. "
            "Or choose another `model`: Kling and Luma can do this.",
        ),
        (
            Ask(prompt="🌊" * 6, model="veo", has_picture=True),
            "Your prompt has 12 characters; Veo takes at most 10. Please shorten it. "
            "Or choose another `model`: Kling and Luma can do this.",
        ),
    ],
)
def test_a_refusal_says_what_can_be_had_instead(ask: Ask, sentence: str) -> None:
    """What the model can do, what an option goes with, and which other model can do all that was asked."""
    with pytest.raises(Refusal) as refusal:
        check(ask, FULL)

    assert str(refusal.value) == f"{sentence} Nothing was charged."


@pytest.mark.parametrize(
    "ask",
    [
        Ask(prompt="waves", camera="zoom in"),
        Ask(prompt="waves", camera="zoom in", seconds=5, quality="std"),
        Ask(prompt="waves", has_picture=True, has_end_picture=True, quality="pro"),
        Ask(prompt="waves", model="luma", loop=True, has_picture=True),
        Ask(prompt="waves", model="luma", seconds=10, has_picture=True),
        Ask(prompt="waves", model="veo", sound=True, ratio="9:16", has_picture=True),
    ],
)
def test_what_goes_together_is_planned_as_asked(ask: Ask) -> None:
    """Conditions refuse nothing that fulfils them."""
    plan = check(ask, FULL)

    assert (plan.camera, plan.loop, plan.sound, plan.ratio) == (
        ask.camera,
        ask.loop,
        ask.sound,
        ask.ratio if ask.has_picture else "16:9",
    )


def test_sound_is_in_the_price() -> None:
    """It is known before anything is queued."""
    quiet, loud = (
        check(Ask(prompt="x", model="veo", has_picture=True, sound=on), FULL) for on in (False, True)
    )

    assert (quiet.price_cents, loud.price_cents) == (40, 80)


def test_a_model_out_of_reach_is_not_recommended() -> None:
    """Nobody is sent to a route that is down."""
    with pytest.raises(Refusal) as refusal:
        check(Ask(prompt="waves", loop=True), FULL, reachable=lambda model: model.name != "luma")

    assert str(refusal.value) == "Kling cannot loop. Leave `loop` out. Nothing was charged."


@pytest.mark.parametrize(
    ("size", "shape"), [((1920, 1080), "16:9"), ((800, 600), "16:9"), ((100, 101), "9:16"), ((9, 16), "9:16")]
)
async def test_a_clip_has_the_shape_nearest_to_its_picture(
    world: World, size: tuple[int, int], shape: str
) -> None:
    """Where a model makes only some shapes, the job says which one it will be."""
    world.desk.menu = FULL
    plan = world.desk.plan(Ask(prompt="waves", model="veo", has_picture=True))
    width, height = size

    job = await world.desk.request(MEMBER, plan, Pictures(first=replace(PICTURE, width=width, height=height)))

    assert job.ratio == shape


def test_prompt_and_picture_alone_are_enough(world: World) -> None:
    """Everything else has the model's default, and the price is known before anything is queued."""
    plan = world.desk.plan(Ask(prompt=" waves ", has_picture=True))

    assert (plan.model.name, plan.prompt, plan.seconds, plan.quality, plan.ratio) == (
        "kling",
        "waves",
        5,
        "std",
        None,
    )
    assert plan.price_cents == 35


def test_a_clip_from_text_alone_has_a_ratio(world: World) -> None:
    """Where the model has a choice, its first is the default."""
    assert world.desk.plan(Ask(prompt="waves")).ratio == "16:9"


async def test_a_request_is_queued_with_its_card(world: World) -> None:
    """The row knows its card, and the card says the place in line."""
    job = await world.ask()

    assert (job.state, job.card_id, job.price_cents) == (State.QUEUED, 1001, 35)
    assert world.announcer.cards[job.id][1].place == 1


async def test_the_same_interaction_twice_is_one_job(world: World) -> None:
    """Discord may deliver it twice; the member gets one clip."""
    plan = world.desk.plan(Ask(prompt="waves", has_picture=True))
    who = Who(id=2, channel_id=10, interaction_id=77)

    first = await world.desk.request(who, plan, Pictures(first=PICTURE))
    second = await world.desk.request(who, plan, Pictures(first=PICTURE))

    assert first.id == second.id
    assert len(await world.store.open_jobs()) == 1


@pytest.mark.parametrize("problem", [CannotPost(Cause.NO_PERMISSION), PostLater(Cause.DISCORD_DOWN)])
async def test_without_a_card_there_is_no_job(world: World, problem: Exception) -> None:
    """The member reads why, and nothing is left in the queue."""
    world.announcer.on_card.extend([problem] * 2)

    with pytest.raises(Refusal, match=r"could not post.* Nothing was charged"):
        await world.ask()

    assert await world.store.open_jobs() == []


async def test_a_card_whose_answer_was_lost_is_asked_for_again(world: World) -> None:
    """With the same nonce: Discord gives the first message, and the member gets a clip."""
    world.announcer.on_card.append(PostLater(Cause.DISCORD_DOWN))

    job = await world.ask()

    assert job.state is State.QUEUED


async def test_a_bug_while_posting_the_card_leaves_no_job(world: World) -> None:
    """The place in the queue is free again at once."""
    world.announcer.on_card.append(RuntimeError("a bug"))

    with pytest.raises(RuntimeError):
        await world.ask()

    assert await world.store.open_jobs() == []


async def test_an_unsure_job_may_be_let_go(world: World) -> None:
    """It locks nobody out while it waits, and its end does not claim to know what it cost."""
    world.provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    job = await world.ask()
    await world.engine.run_due()
    assert (await world.store.load(2)).by_asker == 0

    with pytest.raises(Refusal, match="Only <@2>"):
        await world.desk.let_go(STRANGER, job.id)
    ended = await world.desk.let_go(MEMBER, job.id)

    assert (ended.state, ended.cause, ended.owed) == (State.FAILED, Cause.NO_ANSWER, Charge.MAYBE)
    assert await world.store.money(job.id) == {"reserve": 35, "doubt": 35}


async def test_a_second_try_does_not_forget_what_the_first_may_have_cost(world: World) -> None:
    """Tried again and then surely refused: the first attempt may still have been charged."""
    world.provider.on_submit.extend([ProviderUnsure(Cause.NO_ANSWER), ProviderRejected(Cause.NO_CREDIT)])
    job = await world.ask()
    await world.engine.run_due()

    await world.desk.try_again(MEMBER, job.id)
    await world.engine.run_due()

    failed = await world.now(job)
    assert (failed.state, failed.owed) == (State.FAILED, Charge.MAYBE)
    assert await world.store.money(job.id) == {"reserve": 70, "doubt": 35, "release": 35}


async def test_a_member_has_so_many_clips_at_once(store: Store, clock: Clock, tmp_path: object) -> None:
    """The limit counts open jobs of one member; another member is not concerned."""
    from pathlib import Path

    world = make_world(store, clock, Path(str(tmp_path)), per_member=2)
    first = await world.ask()
    await world.ask()

    with pytest.raises(Refusal, match="already have 2 clips"):
        await world.ask()
    await world.ask(asker=3)
    await world.desk.cancel(MEMBER, first.id)
    await world.ask()


async def test_the_whole_bot_has_a_limit_too(world: World) -> None:
    """Twenty here: the twenty-first is told to come back."""
    for asker in range(20):
        await world.ask(asker=asker)

    with pytest.raises(Refusal, match="20 clips are waiting"):
        await world.ask(asker=100)


@pytest.mark.parametrize("who", [MEMBER, MODERATOR])
async def test_the_asker_and_moderators_may_cancel(world: World, who: Who) -> None:
    """Until it starts; then nothing is submitted."""
    job = await world.ask()

    await world.desk.cancel(who, job.id)
    await world.engine.run_due()

    assert (await world.now(job)).state is State.CANCELLED
    assert world.announcer.cards[job.id][0].state is State.CANCELLED
    assert world.provider.submits == []


async def test_others_may_not_cancel(world: World) -> None:
    """A stranger is told whose clip it is."""
    job = await world.ask()

    with pytest.raises(Refusal, match="Only <@2> and moderators"):
        await world.desk.cancel(STRANGER, job.id)


async def test_a_started_job_cannot_be_cancelled(world: World) -> None:
    """Money is under way."""
    job = await world.ask()
    await world.engine.run_due()

    with pytest.raises(Refusal, match="being made already"):
        await world.desk.cancel(MEMBER, job.id)


async def test_cancelling_twice_is_harmless(world: World) -> None:
    """A second press finds what it wanted."""
    job = await world.ask()

    await world.desk.cancel(MEMBER, job.id)
    await world.desk.cancel(MEMBER, job.id)

    assert (await world.now(job)).state is State.CANCELLED


async def test_deleting_the_card_cancels_a_waiting_job(world: World) -> None:
    """Before the submit it is a wish; afterwards the clip is paid and comes."""
    waiting = await world.ask()
    assert waiting.card_id
    await world.desk.card_deleted(waiting.card_id)
    assert (await world.now(waiting)).state is State.CANCELLED

    started = await world.ask()
    await world.engine.run_due()
    assert started.card_id
    await world.desk.card_deleted(started.card_id)

    assert (await world.now(started)).state is State.RENDERING


async def delivered(world: World) -> Job:
    job = await world.ask(seconds=10, quality="pro")
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    done = await world.now(job)
    assert done.state is State.DELIVERED
    return done


async def test_a_requeue_is_the_same_clip_in_another_name(world: World) -> None:
    """All options are taken over; the reactor is the asker, and the parent is known."""
    parent = await delivered(world)

    child = await world.desk.again(STRANGER, parent)

    assert (child.asker_id, child.parent_id) == (3, parent.id)
    assert (child.prompt, child.seconds, child.quality) == (parent.prompt, 10, "pro")


async def test_one_open_requeue_per_person_and_clip(world: World) -> None:
    """Two reactions at once of one person give one clip."""
    parent = await delivered(world)

    results = await asyncio.gather(
        world.desk.again(STRANGER, parent),
        world.desk.again(STRANGER, parent),
        return_exceptions=True,
    )

    assert sorted(type(result).__name__ for result in results) == ["Job", "Refusal"]


@pytest.mark.parametrize(
    ("problem", "sentence"),
    [(PictureGone(), "is gone"), (PostLater(Cause.DISCORD_DOWN), "Please try again")],
)
async def test_a_requeue_needs_the_picture(world: World, problem: Exception, sentence: str) -> None:
    """The picture lives on the post: without it there is nothing to queue."""
    parent = await delivered(world)
    world.announcer.on_pictures.append(problem)

    with pytest.raises(Refusal, match=sentence):
        await world.desk.again(STRANGER, parent)


async def test_a_take_keeps_the_picture_and_a_new_model_refits_it(world: World) -> None:
    """For the same model it fits already; another has rules of its own, and the server a limit."""
    parent = await delivered(world)
    world.announcer.rules.clear()

    await world.desk.again(STRANGER, parent)
    await world.desk.by_model(replace(STRANGER, upload_limit=2**20), parent, "runway")

    first, second = world.announcer.rules
    assert first is None
    assert second
    assert second.max_bytes == 2**20 - ROOM


async def test_each_way_from_a_clip_has_its_name(world: World) -> None:
    """And whose picture it is stays known over generations."""
    parent = await delivered(world)
    ask = replace(asked(parent), prompt="storm")

    jobs = [
        await world.desk.again(STRANGER, parent),
        await world.desk.remix(STRANGER, parent, ask),
        await world.desk.by_model(STRANGER, parent, "runway"),
        await world.desk.go_on(STRANGER, parent, ask),
    ]
    grandchild = await world.desk.remix(MODERATOR, jobs[1], ask)
    own = await world.desk.remix(MEMBER, grandchild, ask)

    assert {job.lineage for job in jobs} == set(Lineage)
    assert {job.parent_id for job in jobs} == {parent.id}
    assert {job.picture_by for job in [*jobs, grandchild]} == {MEMBER.id}
    assert own.picture_by is None


async def test_the_owner_of_a_picture(world: World) -> None:
    """Of the bot's own messages, the member behind the clip; of others, their author."""
    parent = await delivered(world)
    waiting = await world.ask()
    assert parent.post_id
    assert waiting.card_id

    for message_id in (parent.post_id, waiting.card_id):
        assert await world.desk.picture_owner(message_id, 1000) == MEMBER.id
    assert await world.desk.picture_owner(77, 1000) == 1000


@pytest.mark.parametrize(
    ("changes", "left"),
    [
        ({"model": "runway", "seconds": 10, "quality": "pro"}, {"seconds": 10, "quality": None}),
        (
            {"model": "runway", "negative_prompt": "blur", "strength": 0.5},
            {"negative_prompt": None, "strength": None},
        ),
        (
            {"model": "kling", "seconds": 7, "ratio": "1:1", "has_picture": True},
            {"seconds": None, "ratio": None},
        ),
        (
            {"model": "kling", "seconds": 7, "ratio": "1:1", "has_picture": False},
            {"seconds": None, "ratio": "1:1"},
        ),
        (
            {"model": "kling", "loop": True, "sound": True, "camera": "pan"},
            {"loop": False, "sound": False, "camera": None},
        ),
    ],
)
def test_what_a_model_does_not_have_is_left_to_it(
    world: World, changes: dict[str, object], left: dict[str, object]
) -> None:
    """Unless a person chose it just now: then they read why it cannot be."""
    ask = replace(Ask(prompt="waves", has_picture=True), **changes)  # type: ignore[arg-type]

    kept = adapted(ask, world.desk.menu)
    insisted = adapted(ask, world.desk.menu, chosen=left)

    assert {name: getattr(kept, name) for name in left} == left
    assert insisted == ask
    world.desk.plan(kept)


def test_an_option_that_goes_only_with_others_is_left_out(world: World) -> None:
    """A remix by a model that has sound only at ten seconds loses the sound, not the clip."""
    kling = world.desk.menu.models["kling"]
    can = replace(kling.can, sound=True, only=(Only(option="sound", seconds=(10,)),))
    menu = replace(world.desk.menu, models={"kling": replace(kling, can=can)})
    ask = Ask(prompt="waves", has_picture=True, seconds=5, sound=True)

    assert adapted(ask, menu).sound is False
    assert adapted(replace(ask, seconds=10), menu).sound is True
    assert adapted(ask, menu, chosen={"sound"}).sound is True


def test_a_model_that_works_from_words_alone(world: World) -> None:
    """It is not offered for a picture, and says so when it is named."""
    kling = world.desk.menu.models["kling"]
    menu = replace(
        world.desk.menu, models={"kling": replace(kling, can=replace(kling.can, takes_picture=False))}
    )
    ask = Ask(prompt="waves", has_picture=True)

    assert possible(ask, menu) == []
    with pytest.raises(Refusal, match="works from words alone"):
        check(ask, menu)


async def test_an_unknown_job_is_said_to_be_unknown(world: World) -> None:
    """A button of a bot with another database."""
    with pytest.raises(Refusal, match="do not know this clip"):
        await world.desk.cancel(MEMBER, "nothing")


async def test_there_is_nothing_to_try_again_on_a_healthy_job(world: World) -> None:
    """The button of an old card pays nothing twice."""
    job = await world.ask()

    with pytest.raises(Refusal, match="nothing to try again"):
        await world.desk.try_again(MEMBER, job.id)


@pytest.mark.parametrize("meanwhile", ["claimed", "called off"])
async def test_the_answer_to_the_last_step_is_lost(
    world: World, monkeypatch: pytest.MonkeyPatch, meanwhile: str
) -> None:
    """The database went away right after it had queued the job, and came back when the job was further: one clip."""
    write, writes = world.store._write, 0

    async def forgetful(work: Any, *, seconds: float | None = None) -> Any:
        nonlocal writes
        writes += 1
        if writes != 2:  # the first is the draft, the second its place in line
            return await write(work, seconds=seconds)
        await write(work, seconds=seconds)
        if meanwhile == "claimed":
            await world.store.claim("makevid", slots=1, worker="other", now=world.clock.now())
        else:
            [job] = await world.store.open_jobs()
            move = (job, advance(job, Cancelled(), world.clock.now()), Cancelled())
            await write(lambda connection: world.store._save(connection, [move]))
        return await write(work, seconds=seconds)

    monkeypatch.setattr(world.store, "_write", forgetful)
    if meanwhile == "claimed":
        job = await world.ask()
        assert (job.state, job.card_id) == (State.PREPARING, 1001)
    else:
        with pytest.raises(Refusal, match=r"took too long.*Nothing was charged"):
            await world.ask()

    assert (await world.store.rows())["jobs"] == 1
    assert await world.audited() == []
