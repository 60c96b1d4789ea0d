"""Cards and posts, drawn from a job alone."""

from collections.abc import Iterator
from dataclasses import replace
from datetime import timedelta
from typing import Any

import discord
import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import Cause
from bot.jobs.announcing import Waiting
from bot.jobs.machine import Charge, Job, Lineage, State
from bot.ui import cards
from tests.jobs.test_machine import NOW, a_job
from tests.jobs.world import make_menu

MENU = make_menu()


def parts(view: discord.ui.LayoutView) -> Iterator[dict[str, Any]]:
    """Every component of a message, nested ones included."""
    pending = list(view.to_components())
    while pending:
        part = pending.pop(0)
        yield part
        pending[:0] = part.get("components", []) + ([part["accessory"]] if "accessory" in part else [])


def texts(view: discord.ui.LayoutView) -> str:
    return "\n".join(part["content"] for part in parts(view) if part["type"] == 10)


def labels(view: discord.ui.LayoutView) -> list[str]:
    return [part["label"] for part in parts(view) if part["type"] == 2]


def a_post(job: Job) -> discord.ui.LayoutView:
    return cards.post(job, MENU, "animatic-abc.mp4", seconds_taken=92, emoji="🔁")


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("cause", [None, *Cause])
def test_every_state_has_a_card(state: State, cause: Cause | None) -> None:
    """With every cause: a title, who asked, and no raw word of ours."""
    job = replace(a_job(state), cause=cause, picture_file="picture.png")

    shown = texts(cards.card(job, MENU, Waiting()))

    assert shown.startswith("### ")
    assert "<@2> · Kling · 5 s · $0.35" in shown
    assert "None" not in shown


@pytest.mark.parametrize(
    ("free", "cause", "said"),
    [
        (False, Cause.NO_PERMISSION, "The clip was paid for and is kept. When"),
        (False, Cause.CLIP_GONE, "The clip was paid for. When"),
        (True, Cause.NO_PERMISSION, "here. The clip is kept. When"),
        (True, Cause.CLIP_GONE, "no longer has it. When"),
    ],
)
def test_what_cannot_be_posted_was_paid_for_unless_it_is_free(free: bool, cause: Cause, said: str) -> None:
    """And it is kept, unless it never came."""
    kling = MENU.models["kling"]
    menu = replace(MENU, models={"kling": replace(kling, can=replace(kling.can, free=free))})
    job = replace(a_job(State.UNDELIVERABLE), cause=cause)

    assert said in texts(cards.card(job, menu, Waiting()))


@pytest.mark.parametrize(
    ("state", "buttons"),
    [
        (State.QUEUED, ["Cancel"]),
        (State.PREPARING, ["Cancel"]),
        (State.SUBMITTING, []),
        (State.RENDERING, []),
        (State.UNSURE, ["Try again (may cost twice)", "Let it go"]),
        (State.FAILED, []),
        (State.CANCELLED, []),
        (State.UNDELIVERABLE, ["Post it here"]),
    ],
)
def test_a_card_offers_what_can_be_done(state: State, buttons: list[str]) -> None:
    """Cancel until it starts; try again only when nobody knows."""
    assert labels(cards.card(a_job(state), MENU, Waiting())) == buttons


@pytest.mark.parametrize(
    ("charge", "sentence"),
    [
        (Charge.NONE, "Nothing was charged."),
        (Charge.CHARGED, "It was charged."),
        (Charge.MAYBE, "It may have been charged."),
    ],
)
def test_a_failure_says_what_it_cost(charge: Charge, sentence: str) -> None:
    """Three honest ends."""
    job = replace(a_job(State.FAILED), cause=Cause.BROKEN, charge=charge)

    assert sentence in texts(cards.card(job, MENU, Waiting()))


def test_a_card_counts_down_by_itself() -> None:
    """The time is a relative timestamp, which moves in the client with no edit."""
    due = NOW + timedelta(minutes=2)

    shown = texts(cards.card(a_job(State.RENDERING), MENU, Waiting(due=due)))

    assert f"ready <t:{int(due.timestamp())}:R>" in shown


def test_a_late_job_says_so() -> None:
    """Still running is not failed."""
    shown = texts(cards.card(a_job(State.RENDERING), MENU, Waiting(due=NOW, late=True)))

    assert "Taking longer than usual" in shown


def test_a_card_says_the_place_in_line() -> None:
    """Only to those who are not next."""
    job = a_job(State.QUEUED)

    assert "number 3 in line" in texts(cards.card(job, MENU, Waiting(place=3)))
    assert "in line" not in texts(cards.card(job, MENU, Waiting(place=1)))


def test_a_post_plays_in_place_and_says_where_it_came_from() -> None:
    """The clip, its source picture, the prompt, the model, the time it took, and that it is AI-made."""
    view = a_post(replace(a_job(State.POSTING), picture_file="picture.png"))

    gallery = next(part for part in parts(view) if part["type"] == 12)
    thumbnail = next(part for part in parts(view) if part["type"] == 11)
    assert gallery["items"][0]["media"]["url"] == "attachment://animatic-abc.mp4"
    assert gallery["items"][0]["description"] == "A video made by AI: waves"
    assert thumbnail["media"]["url"] == "attachment://picture.png"
    assert thumbnail["description"] == "The source picture: waves"
    shown = texts(view)
    assert "<@2>, here is your clip." in shown
    assert "“waves”" in shown
    assert "took 1 min 32 s" in shown
    assert "Made by AI" in shown
    assert labels(view) == ["Again", "Remix", "Other model", "Continue", "Delete", "Report"]


def test_buttons_carry_their_job() -> None:
    """`job:<id>:<verb>` is all a press needs."""
    ids = [part["custom_id"] for part in parts(a_post(a_job(State.POSTING))) if part["type"] == 2]

    verbs = ("again", "remix", "model", "continue", "delete")
    assert ids == [*(f"job:abc:{verb}" for verb in verbs), "report:abc"]


def test_with_one_model_there_is_no_other() -> None:
    """A button that can only refuse is not shown."""
    menu = replace(MENU, models={"kling": MENU.models["kling"]})
    view = cards.post(a_job(State.POSTING), menu, "a.mp4", seconds_taken=92, emoji="🔁")

    assert labels(view) == ["Again", "Remix", "Continue", "Delete", "Report"]


@pytest.mark.parametrize("lineage", Lineage)
def test_a_post_says_how_it_came_to_be(lineage: Lineage) -> None:
    """Another take, a remix, another model, what comes next."""
    first = a_post(a_job(State.POSTING))
    derived = a_post(replace(a_job(State.POSTING), parent_id="def", lineage=lineage))

    assert texts(first).splitlines()[0] != texts(derived).splitlines()[0]
    assert texts(derived).startswith("<@2>, here ")


@given(st.text(max_size=6000), st.booleans())
def test_no_prompt_goes_past_discords_limits(prompt: str, end: bool) -> None:
    """40 components, 4,000 characters of text, about 10,000 bytes, alt texts of 1,024."""
    job = replace(
        a_job(State.FAILED),
        prompt=prompt,
        cause=Cause.MODERATION,
        picture_file="picture.png",
        end_picture_file="end-picture.jpg" if end else None,
    )

    for view in (cards.card(job, MENU, Waiting()), a_post(job)):
        everything = list(parts(view))
        assert len(everything) <= 40
        shown = texts(view)
        alts = [part.get("description") or "" for part in everything]
        alts += [item["description"] for part in everything for item in part.get("items", [])]
        assert len(shown) <= 4000
        assert len((shown + "".join(alts)).encode()) <= 10_000
        assert all(len(alt) <= 1024 for alt in alts)
