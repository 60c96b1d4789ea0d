"""When to ask next, and what to promise."""

from collections.abc import Sequence
from datetime import timedelta
from itertools import pairwise
from statistics import NormalDist, mean

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bot.jobs.pacing import DEFAULT_PRICE, KEEP_ASKING, OVERDUE_GAP, Pace, in_doubt, queued_poll

GAP, DEADLINE = timedelta(seconds=2), timedelta(minutes=15)
TYPICAL = timedelta(minutes=2)
MICROSECOND = timedelta(microseconds=1)

spans = st.timedeltas(timedelta(0), timedelta(hours=3))
typicals = st.timedeltas(timedelta(seconds=1), timedelta(hours=1))
least_gaps = st.timedeltas(timedelta(milliseconds=100), timedelta(minutes=10))
deadlines = st.timedeltas(timedelta(seconds=30), timedelta(hours=2))
prices = st.floats(min_value=0.01, max_value=100)
paces = st.builds(Pace.learn, st.lists(spans, max_size=30), typical=typicals)


def seconds(*values: float) -> list[timedelta]:
    return [timedelta(seconds=value) for value in values]


def alike(middle: float, jobs: int, spread: float = 0.18) -> list[timedelta]:
    """Durations of one kind of clip: the quantiles of a lognormal, in an order that tells nothing."""
    normal = NormalDist(0, spread)
    values = [middle * 2.718281828 ** normal.inv_cdf((i * 37 % jobs + 0.5) / jobs) for i in range(jobs)]
    return seconds(*values)


def polls(pace: Pace, until: timedelta = DEADLINE, *, price: float = DEFAULT_PRICE) -> list[timedelta]:
    """The ages at which a job is polled, each asked for at the poll before it."""
    times, waited = [], timedelta(0)
    while waited < until:
        pause = pace.next_poll(waited, least_gap=GAP, deadline=DEADLINE, price=price)
        assert pause is not None
        waited += pause
        times.append(waited)
    return times


def gaps(times: Sequence[timedelta]) -> list[timedelta]:
    return [later - earlier for earlier, later in pairwise(times)]


def seen(pace: Pace, took: timedelta) -> tuple[int, timedelta]:
    """How many polls a job that took so long cost, and how long its clip lay unseen."""
    times = polls(pace, took)
    return len(times), times[-1] - took


@pytest.mark.parametrize("jobs", [0, 1, 4])
def test_a_few_clips_teach_people_nothing_yet(jobs: int) -> None:
    """Until there are five, the planning value is what they are told, and thrice that is late."""
    pace = Pace.learn(seconds(*[1] * jobs), typical=TYPICAL)

    assert pace.middle == TYPICAL
    assert pace.late == TYPICAL * 3


def test_what_is_told_follows_the_past() -> None:
    """The middle is the median, and late is later than nearly all, whatever was planned with."""
    pace = Pace.learn(alike(100, 50), typical=timedelta(minutes=9))

    assert pace.middle.total_seconds() == pytest.approx(100, rel=0.03)
    assert pace.late.total_seconds() == pytest.approx(135, rel=0.1)


def test_recent_jobs_count_more() -> None:
    """After fifty jobs at a new speed, the new speed is what is expected, though the old ones were as many."""
    pace = Pace.learn(alike(60, 50) + alike(180, 50), typical=TYPICAL)

    assert pace.middle < timedelta(seconds=90)


def test_a_stuck_job_does_not_spoil_what_was_learned() -> None:
    """One clip that took a day moves neither the middle nor the late mark by much."""
    usual, odd = alike(100, 50), timedelta(days=1)
    pace, spoiled = Pace.learn(usual, typical=TYPICAL), Pace.learn([odd, *usual], typical=TYPICAL)

    assert spoiled.middle < pace.middle * 1.1
    assert spoiled.late < pace.late * 1.3


@given(st.lists(st.timedeltas(timedelta(seconds=1), timedelta(hours=3)), min_size=5, max_size=40), typicals)
def test_the_middle_stays_within_the_past(past: list[timedelta], typical: timedelta) -> None:
    """No smoothing promises a clip sooner than the quickest ever was, or later than the slowest."""
    pace = Pace.learn(past, typical=typical)

    assert min(past) * 0.97 <= pace.middle <= max(past) * 1.03
    assert pace.middle <= pace.late


def test_a_clock_that_jumped_does_no_harm() -> None:
    """Durations and waits below zero, or of years, are taken for very short and very long ones."""
    pace = Pace.learn([*seconds(-5, 0), timedelta(days=900)] * 3, typical=TYPICAL)

    assert timedelta(0) < pace.middle < timedelta(days=3)
    assert pace.next_poll(timedelta(seconds=-60), least_gap=GAP, deadline=DEADLINE) is not None


@given(paces, st.timedeltas(timedelta(0), timedelta(days=2)), least_gaps, deadlines, prices)
def test_it_never_hurries_the_provider_and_never_stops_early(
    pace: Pace, waited: timedelta, least_gap: timedelta, deadline: timedelta, price: float
) -> None:
    """Until a day past the deadline there is a next poll, no sooner than the route allows; then none."""
    pause = pace.next_poll(waited, least_gap=least_gap, deadline=deadline, price=price)

    if waited >= deadline + KEEP_ASKING:
        assert pause is None
    else:
        assert pause is not None
        assert least_gap <= pause <= max(OVERDUE_GAP, least_gap)


@given(paces, spans, spans, least_gaps, deadlines, prices)
def test_asking_in_between_never_brings_the_next_poll_forward(
    pace: Pace, one: timedelta, other: timedelta, least_gap: timedelta, deadline: timedelta, price: float
) -> None:
    """Of two jobs of one kind the one that has waited longer is polled at the higher age."""
    shorter, longer = sorted((one, other))
    first = pace.next_poll(shorter, least_gap=least_gap, deadline=deadline, price=price)
    second = pace.next_poll(longer, least_gap=least_gap, deadline=deadline, price=price)

    assert first is not None
    assert second is not None
    assert shorter + first <= longer + second + 2 * MICROSECOND


def test_the_same_question_has_the_same_answer() -> None:
    """Nothing is drawn at random: the schedule after a restart is the schedule before it."""
    past = alike(100, 30)

    assert polls(Pace.learn(past, typical=TYPICAL)) == polls(Pace.learn(past, typical=TYPICAL))


@pytest.mark.parametrize(
    ("typical", "earliest", "latest"), [(6, 1, 3), (45, 14, 16), (90, 25, 30), (600, 29, 31)]
)
def test_there_is_one_early_look(typical: float, earliest: float, latest: float) -> None:
    """Refusals come early: a slow model is asked once within 15 to 30 s, a quick one sooner."""
    first = polls(Pace.prior(timedelta(seconds=typical)))[0]

    assert timedelta(seconds=earliest) <= first <= timedelta(seconds=latest)


def test_after_the_early_look_it_waits_for_the_clips() -> None:
    """Where a hundred clips took 65 to 155 s, one poll is early and one more comes before the first of them."""
    times = polls(Pace.learn(alike(100, 100), typical=TYPICAL))

    assert len([age for age in times if age < timedelta(seconds=65)]) <= 2


def test_it_asks_most_often_when_clips_are_likely() -> None:
    """Around the usual time the gaps are the shortest, and a few seconds long."""
    times = polls(Pace.learn(alike(100, 100), typical=TYPICAL))
    likely = [gap for age, gap in zip(times, gaps(times), strict=False) if 95 < age.total_seconds() < 125]
    others = [gap for age, gap in zip(times, gaps(times), strict=False) if age.total_seconds() > 240]

    assert max(likely) < timedelta(seconds=6)
    assert max(likely) < min(others)


@pytest.mark.parametrize("took", [90, 120, 150, 180])
def test_a_job_of_minutes_is_polled_about_ten_times(took: float) -> None:
    """A clip of a known kind costs about a dozen polls at most, and lies unseen for a few seconds."""
    jobs = alike(took, 100)
    pace = Pace.learn(jobs, typical=TYPICAL)
    results = [seen(pace, job) for job in jobs]

    assert mean(cost for cost, _ in results) <= 13
    assert mean(lag.total_seconds() for _, lag in results) < 3


def test_it_beats_asking_every_ten_seconds_from_the_first_job_on() -> None:
    """With the planning value alone, clips around it are seen sooner than by a poll every ten seconds."""
    results = [seen(Pace.prior(timedelta(seconds=100)), job) for job in alike(100, 100)]

    assert mean(lag.total_seconds() for _, lag in results) < 5
    assert mean(cost for cost, _ in results) < 12


def test_dearer_polls_are_fewer() -> None:
    """A provider near its request limit is asked less by raising the price."""
    pace = Pace.learn(alike(100, 100), typical=TYPICAL)

    assert len(polls(pace, price=3)) < len(polls(pace)) < len(polls(pace, price=0.03))


def test_no_gap_is_over_half_a_minute_while_a_clip_is_to_be_expected() -> None:
    """Not even for dear polls or slow models, from where clips begin until nearly all are there."""
    pace = Pace.learn(alike(600, 100), typical=TYPICAL)
    times = [age for age in polls(pace, price=100) if 450 < age.total_seconds() < 800]

    assert max(gaps(times)) <= timedelta(seconds=30) + MICROSECOND


def test_the_gaps_of_a_job_nobody_expects_any_more_grow() -> None:
    """Each is a little longer than the one before, until the deadline."""
    pace = Pace.learn(alike(20, 100, spread=0.1), typical=timedelta(seconds=20))
    late = gaps([age for age in polls(pace) if age > timedelta(minutes=2)])[:-1]

    assert len(late) > 3
    assert all(earlier < later for earlier, later in pairwise(late))


def test_past_the_deadline_it_asks_slowly_for_a_day() -> None:
    """A late clip was paid for as well."""
    pace = Pace.prior(TYPICAL)

    assert pace.next_poll(DEADLINE, least_gap=GAP, deadline=DEADLINE) == OVERDUE_GAP
    assert pace.next_poll(DEADLINE + KEEP_ASKING - GAP, least_gap=GAP, deadline=DEADLINE) == OVERDUE_GAP
    assert pace.next_poll(DEADLINE + KEEP_ASKING, least_gap=GAP, deadline=DEADLINE) is None


@pytest.mark.parametrize("jobs", [20, 100])
def test_a_provider_grown_quick_is_noticed(jobs: int) -> None:
    """When every clip suddenly takes 0.6 of what was learned, it lies unseen for a few seconds more."""
    pace = Pace.learn(alike(100, jobs), typical=TYPICAL)
    lags = [seen(pace, job * 0.6)[1].total_seconds() for job in alike(100, 100)]

    assert mean(lags) < 15
    assert max(lags) <= 35


@pytest.mark.parametrize("jobs", [20, 100])
def test_a_provider_grown_slow_is_not_flooded(jobs: int) -> None:
    """When every clip suddenly takes three times what was learned, it costs less than twice a poll every 10 s."""
    pace = Pace.learn(alike(100, jobs), typical=TYPICAL)
    costs = [seen(pace, job * 3)[0] for job in alike(100, 100)]

    assert mean(costs) < 2 * 30


def test_a_wrong_planning_value_is_soon_outweighed() -> None:
    """Whether it said a third or thrice, after a hundred jobs the polls are nearly as many."""
    past = alike(100, 100)
    costs = [
        mean(seen(Pace.learn(past, typical=timedelta(seconds=typical)), job)[0] for job in past)
        for typical in (33, 100, 300)
    ]

    assert max(costs) - min(costs) <= 1


def test_a_poll_shortly_before_the_early_look_replaces_it() -> None:
    """Whoever was asked after 20 s, because of a restart, is not asked again ten seconds later."""
    pause = Pace.learn(alike(100, 100), typical=TYPICAL).next_poll(
        timedelta(seconds=20), least_gap=GAP, deadline=DEADLINE
    )

    assert pause is not None
    assert pause > timedelta(seconds=20)


@given(
    st.timedeltas(timedelta(0), timedelta(days=2)),
    st.timedeltas(timedelta(0), timedelta(days=2)),
    typicals,
    least_gaps,
    deadlines,
)
def test_a_queued_job_keeps_the_same_promises(
    one: timedelta, other: timedelta, typical: timedelta, least_gap: timedelta, deadline: timedelta
) -> None:
    """Never sooner than the route allows, never before what a shorter wait gets, for a day past the deadline."""
    ages = []
    for waited in sorted((one, other)):
        pause = queued_poll(waited, typical=typical, least_gap=least_gap, deadline=deadline)
        assert (pause is None) == (waited >= deadline + KEEP_ASKING)
        if pause is not None:
            assert pause >= least_gap
            ages.append(waited + pause)

    assert ages == sorted(ages)


def test_a_queued_job_is_looked_at_early_and_then_steadily() -> None:
    """Once within ten seconds, as most jobs start at once, and every half minute after."""
    first = queued_poll(timedelta(0), typical=TYPICAL, least_gap=GAP, deadline=DEADLINE)
    later = queued_poll(timedelta(minutes=5), typical=TYPICAL, least_gap=GAP, deadline=DEADLINE)

    assert first == timedelta(seconds=10)
    assert later == timedelta(seconds=30)


@pytest.mark.parametrize(
    ("waits", "doubt"),
    [
        ([], False),
        ([500, 500], False),
        ([500, 500, 500], True),
        ([500, 500, 10], True),
        ([500, 500, 10, 10], False),
        ([240, 240, 240], False),
        ([500, 10, 10, 10, 10], False),
    ],
)
def test_several_late_jobs_are_an_incident_and_one_is_not(waits: list[float], doubt: bool) -> None:
    """With three or more running and most of them past the late mark, what was learned is not believed."""
    assert in_doubt(seconds(*waits), timedelta(minutes=4)) is doubt
