"""The life of a job: every arrow, and what no sequence of outcomes may reach."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.errors import Cause
from bot.jobs.machine import (
    ARROWS,
    MOST_RECOVERIES,
    OPEN,
    Absent,
    Accepted,
    Begun,
    Broke,
    Busy,
    Cancelled,
    CardPosted,
    Charge,
    Claimed,
    CouldNotPost,
    Found,
    GaveUp,
    IllegalArrow,
    Job,
    Lost,
    Outcome,
    Posted,
    Ready,
    Redelivered,
    Refused,
    Rerouted,
    Rescued,
    SentBack,
    State,
    StillRendering,
    Stumbled,
    TriedAgain,
    advance,
)

NOW = datetime(2026, 6, 1, 12, tzinfo=UTC)
LATER = NOW + timedelta(minutes=1)

EVERY_OUTCOME: list[Outcome] = [
    CardPosted(7),
    Cancelled(),
    Claimed("worker"),
    Begun("ref-1"),
    Accepted("task"),
    Busy(timedelta(seconds=30)),
    Refused(Cause.BAD_INPUT),
    Lost(Cause.NO_ANSWER),
    Found("task", "worker-2"),
    Absent(),
    Rerouted("luma", "ray-2"),
    TriedAgain(),
    StillRendering(),
    Ready("https://cdn.example/clip.mp4"),
    Broke(Cause.BROKEN, charged=False),
    GaveUp(),
    Rescued("worker-2"),
    Posted(9),
    Stumbled(Cause.DISCORD_DOWN, timedelta(seconds=5)),
    SentBack(),
    CouldNotPost(Cause.NO_PERMISSION),
    Redelivered(11),
]


def a_job(state: State = State.DRAFT) -> Job:
    return Job(
        id="abc",
        state=state,
        created_at=NOW,
        changed_at=NOW,
        channel_id=1,
        asker_id=2,
        model="kling",
        route="makevid",
        variant="kling",
        prompt="waves",
        seconds=5,
        price_cents=35,
    )


@pytest.mark.parametrize("state", State)
@pytest.mark.parametrize("outcome", EVERY_OUTCOME, ids=lambda outcome: type(outcome).__name__)
def test_every_state_answers_every_outcome_as_drawn(state: State, outcome: Outcome) -> None:
    """An arrow leads where the table says; all other pairs are refused, never guessed."""
    goals = {goal for start, kind, goal in ARROWS if start is state and kind is type(outcome)}
    if not goals:
        with pytest.raises(IllegalArrow):
            advance(a_job(state), outcome, LATER)
        return
    fresh, worn = a_job(state), replace(a_job(state), recoveries=MOST_RECOVERIES)

    moved = [advance(job, outcome, LATER) for job in (fresh, worn)]

    assert {job.state for job in moved} == goals
    # The store compares the fields of the two side by side.
    assert all(list(vars(job)) == list(vars(fresh)) for job in moved)


def test_each_move_is_one_version_on() -> None:
    """The version counts moves: it is what a stale writer is recognised by."""
    moved = advance(a_job(), CardPosted(7), LATER)

    assert (moved.version, moved.changed_at) == (1, LATER)


def test_still_rendering_changes_nothing() -> None:
    """Waiting is not written: the very same job comes back."""
    job = a_job(State.RENDERING)

    assert advance(job, StillRendering(progress=0.5), LATER) is job


@pytest.mark.parametrize(
    ("state", "outcome", "charge"),
    [
        (State.SUBMITTING, Refused(Cause.MODERATION), Charge.NONE),
        (State.SUBMITTING, Lost(Cause.NO_ANSWER), Charge.MAYBE),
        (State.QUEUED, Cancelled(), Charge.NONE),
        (State.PREPARING, Cancelled(), Charge.NONE),
        (State.PREPARING, Refused(Cause.PICTURE_GONE), Charge.NONE),
        (State.PREPARING, Busy(timedelta(seconds=30)), Charge.RESERVED),
        (State.RENDERING, Ready("u"), Charge.CHARGED),
        (State.RENDERING, Broke(Cause.BROKEN, charged=False), Charge.NONE),
        (State.RENDERING, Broke(Cause.MODERATION, charged=True), Charge.CHARGED),
        (State.RENDERING, Broke(Cause.BROKEN), Charge.MAYBE),
        (State.RENDERING, GaveUp(), Charge.MAYBE),
        (State.POSTING, Broke(Cause.CLIP_GONE), Charge.CHARGED),
    ],
)
def test_each_end_says_what_it_cost(state: State, outcome: Outcome, charge: Charge) -> None:
    """Failed and not charged, failed and charged, or nobody knows: three honest ends."""
    assert advance(a_job(state), outcome, LATER).charge is charge


@pytest.mark.parametrize(
    ("state", "end"), [(State.RENDERING, State.FAILED), (State.POSTING, State.UNDELIVERABLE)]
)
def test_a_poison_job_ends(state: State, end: State) -> None:
    """A job that outlived eight workers is what kills them."""
    job = replace(a_job(state), worker="worker-0")
    for recovery in range(8):
        job = advance(job, Rescued(f"worker-{recovery}"), LATER)
    assert (job.state, job.recoveries) == (state, 8)

    assert advance(job, Rescued("worker-9"), LATER).state is end


def test_a_picture_that_kills_its_workers_ends_the_job() -> None:
    """Each that died over it put the job back in line; nothing was ever sent."""
    job = a_job(State.QUEUED)
    for recovery in range(8):
        job = advance(advance(job, Claimed(f"worker-{recovery}"), LATER), Rescued("other"), LATER)
    assert (job.state, job.worker, job.recoveries, job.attempt) == (State.QUEUED, None, 8, 0)

    ended = advance(advance(job, Claimed("worker-9"), LATER), Rescued("other"), LATER)

    assert (ended.state, ended.cause, ended.charge) == (State.FAILED, Cause.POISON, Charge.NONE)


def test_a_busy_provider_is_not_an_attempt_lost() -> None:
    """Surely not taken: the job waits its pause and is submitted under a new reference."""
    busy = advance(a_job(State.SUBMITTING), Busy(timedelta(seconds=30)), NOW)

    assert busy.not_before == NOW + timedelta(seconds=30)
    assert busy.charge is Charge.RESERVED


@given(st.lists(st.sampled_from(EVERY_OUTCOME), max_size=60))
def test_no_sequence_of_outcomes_pays_twice_by_itself(outcomes: list[Outcome]) -> None:
    """A second submit needs proof that the first was not taken, or a person's click."""
    job = a_job()
    submits, allowed = 0, 1
    for outcome in outcomes:
        try:
            job = advance(job, outcome, LATER)
        except IllegalArrow:
            continue
        submits += isinstance(outcome, Begun)
        allowed += isinstance(outcome, Busy | Absent | TriedAgain)

    assert submits <= allowed
    assert job.attempt == submits


@given(st.lists(st.sampled_from(EVERY_OUTCOME), max_size=60))
def test_an_open_job_always_has_a_way_to_an_end(outcomes: list[Outcome]) -> None:
    """From wherever a sequence leads, some arrows lead on to an ended state."""
    job = a_job()
    for outcome in outcomes:
        try:
            job = advance(job, outcome, LATER)
        except IllegalArrow:
            continue

    assert job.state not in OPEN or _reaches_an_end(job.state)


def test_an_ended_job_stays_ended() -> None:
    """Nothing moves a job that is over: a late answer cannot post or charge again. Only a clip that is kept can
    still be posted."""
    for state in set(State) - OPEN - {State.UNDELIVERABLE}:
        for outcome in EVERY_OUTCOME:
            with pytest.raises(IllegalArrow):
                advance(a_job(state), outcome, LATER)


def test_a_clip_is_posted_once_more_elsewhere() -> None:
    """As if it was just made: all patience anew, under no worker; the card stays where it stood."""
    kept = replace(
        a_job(State.UNDELIVERABLE),
        charge=Charge.CHARGED,
        card_id=7,
        rendered_at=NOW,
        worker="worker",
        recoveries=8,
        stumbles=5,
        cause=Cause.NO_PERMISSION,
    )

    moved = advance(kept, Redelivered(11), LATER)
    again = advance(advance(moved, CouldNotPost(Cause.NO_PERMISSION), LATER), Redelivered(12), LATER)

    assert (moved.channel_id, moved.card_channel_id, moved.postable_since) == (11, 1, LATER)
    assert (moved.worker, moved.recoveries, moved.stumbles, moved.cause) == (None, 0, 0, None)
    assert (moved.charge, moved.rendered_at) == (Charge.CHARGED, NOW)
    assert (again.channel_id, again.card_channel_id) == (12, 1)


def test_an_open_charge_is_settled_at_every_end() -> None:
    """No ended job keeps a reservation."""
    for state, outcome_type, goal in ARROWS:
        if goal in OPEN:
            continue
        outcome = next(outcome for outcome in EVERY_OUTCOME if type(outcome) is outcome_type)
        paid = state in (State.POSTING, State.UNDELIVERABLE)
        worn = MOST_RECOVERIES if outcome_type is Rescued else 0
        before = replace(a_job(state), charge=Charge.CHARGED if paid else Charge.RESERVED, recoveries=worn)

        assert advance(before, outcome, LATER).charge is not Charge.RESERVED


def _reaches_an_end(state: State) -> bool:
    seen, frontier = set(), {state}
    while frontier:
        seen |= frontier
        frontier = {goal for start, _, goal in ARROWS if start in frontier} - seen
    return bool(seen - OPEN)
