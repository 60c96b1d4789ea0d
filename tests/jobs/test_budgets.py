"""Budgets: no sequence of events lets spending pass a limit, and nobody is told wrong numbers."""

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from bot.errors import Cause, ProviderRejected, ProviderUnsure, Refusal
from bot.jobs.announcing import Pictures
from bot.jobs.budgets import Budget, Scope, Spent, Stretch, admit, reached, strictest
from bot.jobs.desk import Ask, Who
from bot.jobs.machine import Broke, State
from bot.jobs.store import Store, open_store
from bot.jobs.tables import metadata
from tests.conftest import Clock
from tests.jobs.world import PICTURE, World, make_world

NOON = datetime(2026, 6, 30, 12, tzinfo=UTC)
PRICE = 35  # five seconds of Kling, in the world of these tests


def limit(world: World, *budgets: Budget) -> list[tuple[Budget, int]]:
    """Let these budgets hold for everybody; the marks that are told of."""
    told: list[tuple[Budget, int]] = []

    async def budgets_of(_who: Who) -> Sequence[Budget]:
        return budgets

    async def alert(_guild_id: int | None, budget: Budget, mark: int) -> None:
        told.append((budget, mark))

    world.desk._budgets_of, world.desk._alert = budgets_of, alert
    return told


async def ask(world: World, *, asker: int = 2, guild: int = 1, channel: int = 10, **options: Any) -> Any:
    plan = world.desk.plan(Ask(prompt="waves", has_picture=True, **options))
    who = Who(id=asker, channel_id=channel, guild_id=guild)
    return await world.desk.request(who, plan, Pictures(first=PICTURE))


# Pure


@pytest.mark.parametrize(
    ("stretch", "began", "ends"),
    [
        (Stretch.DAY, datetime(2026, 6, 30, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)),
        (Stretch.MONTH, datetime(2026, 6, 1, tzinfo=UTC), datetime(2026, 7, 1, tzinfo=UTC)),
    ],
)
def test_days_and_months_are_those_of_utc(stretch: Stretch, began: datetime, ends: datetime) -> None:
    """From midnight to midnight, from the first to the first."""
    assert (stretch.began(NOON), stretch.ends(NOON)) == (began, ends)


def test_december_ends_in_january() -> None:
    assert Stretch.MONTH.ends(datetime(2026, 12, 31, 23, tzinfo=UTC)) == datetime(2027, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("budget", "spent", "words"),
    [
        (
            Budget(scope=Scope.MEMBER, stretch=Stretch.DAY, clips=1),
            Spent(clips=1),
            "You may have 1 clip a day",
        ),
        (
            Budget(scope=Scope.SERVER, stretch=Stretch.MONTH, cents=100),
            Spent(clips=2, cents=70),
            r"This clip costs \$0\.35, and this server's budget for this month has \$0\.30 left of \$1\.00",
        ),
        (
            Budget(scope=Scope.ALL, stretch=Stretch.DAY, cents=100),
            Spent(clips=2, cents=70),
            "This bot's budget for this day is used up",
        ),
    ],
)
def test_a_refusal_says_what_is_left_and_until_when(budget: Budget, spent: Spent, words: str) -> None:
    """And that nothing was charged; of the whole bot's money it tells no numbers."""
    with pytest.raises(Refusal, match=words) as refused:
        admit(budget, spent, PRICE, now=NOON, currency="$")

    assert f"<t:{int(budget.stretch.ends(NOON).timestamp())}:R>" in str(refused.value)
    assert str(refused.value).endswith("Nothing was charged.")


def test_the_last_of_a_budget_may_be_spent_to_the_cent() -> None:
    """At the edge, not beyond it; what is free is never over a budget of money."""
    budget = Budget(scope=Scope.SERVER, stretch=Stretch.DAY, clips=3, cents=100)

    admit(budget, Spent(clips=2, cents=65), PRICE, now=NOON, currency="$")
    admit(budget, Spent(clips=2, cents=100), 0, now=NOON, currency="$")
    with pytest.raises(Refusal):
        admit(budget, Spent(clips=2, cents=66), PRICE, now=NOON, currency="$")
    with pytest.raises(Refusal):
        admit(budget, Spent(clips=3, cents=0), 0, now=NOON, currency="$")


def test_the_highest_mark_that_was_reached() -> None:
    """Not only by the step that reached it: whoever took that may have died before anybody was told."""
    budget = Budget(scope=Scope.SERVER, stretch=Stretch.DAY, cents=100)

    marks = [reached(budget, Spent(cents=cents)) for cents in (0, 49, 50, 79, 85, 100)]

    assert marks == [None, None, 50, 50, 80, 100]


def test_of_two_budgets_the_stricter_holds() -> None:
    """Limit by limit."""
    owner = Budget(scope=Scope.MEMBER, stretch=Stretch.DAY, clips=5, cents=1000)
    server = Budget(scope=Scope.MEMBER, stretch=Stretch.DAY, clips=8, cents=300)
    nothing = Budget(scope=Scope.SERVER, stretch=Stretch.DAY)

    assert strictest([owner, server, nothing]) == [
        Budget(scope=Scope.MEMBER, stretch=Stretch.DAY, clips=5, cents=300)
    ]


# With the desk, on both databases


@pytest.mark.parametrize(
    ("scope", "shares", "shares_not"),
    [
        (Scope.MEMBER, {"asker": 2}, {"asker": 3}),
        (Scope.MEMBER, {"asker": 2, "channel": 11}, {"asker": 2, "guild": 9}),
        (Scope.CHANNEL, {"asker": 3}, {"asker": 2, "channel": 11}),
        (Scope.SERVER, {"asker": 3, "channel": 11}, {"asker": 2, "guild": 9}),
        (Scope.ALL, {"asker": 3, "guild": 9, "channel": 11}, None),
    ],
)
async def test_whose_spending_counts(
    world: World, scope: Scope, shares: dict[str, int], shares_not: dict[str, int] | None
) -> None:
    """A member's in one server, a channel's, a server's, or everybody's."""
    limit(world, Budget(scope=scope, stretch=Stretch.DAY, cents=PRICE))
    await ask(world, asker=2, guild=1, channel=10)

    with pytest.raises(Refusal):
        await ask(world, **shares)
    if shares_not:
        await ask(world, **shares_not)


async def test_of_many_who_want_the_last_of_a_budget_one_gets_it(world: World) -> None:
    """All at the same moment: the sum is looked at in the transaction that adds to it."""
    limit(world, Budget(scope=Scope.SERVER, stretch=Stretch.DAY, cents=2 * PRICE + PRICE // 2))

    answers = await asyncio.gather(*(ask(world, asker=asker) for asker in range(12)), return_exceptions=True)

    assert sum(not isinstance(answer, Exception) for answer in answers) == 2
    assert {type(answer) for answer in answers if isinstance(answer, Exception)} == {Refusal}


async def test_what_is_given_back_may_be_spent_again(world: World) -> None:
    """A failure that costs nothing, and a cancellation."""
    limit(world, Budget(scope=Scope.MEMBER, stretch=Stretch.MONTH, clips=1))
    world.provider.on_submit.append(ProviderRejected(Cause.MODERATION))

    await ask(world)
    await world.engine.run_due()
    cancelled = await ask(world)
    await world.desk.cancel(Who(id=2, channel_id=10), cancelled.id)
    await ask(world)

    with pytest.raises(Refusal):
        await ask(world)


async def test_the_next_day_starts_anew_and_takes_nothing_back_from_the_last(world: World) -> None:
    """What was reserved yesterday and is released today makes today no richer."""
    limit(world, Budget(scope=Scope.SERVER, stretch=Stretch.DAY, clips=1))
    yesterday = await ask(world)
    world.clock.pass_by(days=1)
    await world.desk.cancel(Who(id=2, channel_id=10), yesterday.id)

    await ask(world)

    with pytest.raises(Refusal):
        await ask(world)


async def test_trying_again_counts_too(world: World) -> None:
    """It may cost twice, so it needs room for the second time, today."""
    limit(world, Budget(scope=Scope.SERVER, stretch=Stretch.DAY, cents=PRICE + 1))
    world.provider.on_submit.append(ProviderUnsure(Cause.NO_ANSWER))
    job = await ask(world)
    await world.engine.run_due()
    who = Who(id=2, channel_id=10)

    with pytest.raises(Refusal, match=r"\$0\.01 left"):
        await world.desk.try_again(who, job.id)
    assert (await world.now(job)).state is State.UNSURE
    world.clock.pass_by(hours=12)
    await world.desk.try_again(who, job.id)

    with pytest.raises(Refusal):
        await ask(world)


async def test_those_who_mind_are_told_of_the_marks(world: World) -> None:
    """Of a server's and the bot's budget, not of a member's."""
    server = Budget(scope=Scope.SERVER, stretch=Stretch.DAY, cents=4 * PRICE)
    told = limit(world, server, Budget(scope=Scope.MEMBER, stretch=Stretch.DAY, clips=4))

    for _ in range(4):
        await ask(world)

    assert told == [(server, 50), (server, 50), (server, 100)]  # whoever tells looks whether that was done


BUDGETS = (
    Budget(scope=Scope.MEMBER, stretch=Stretch.DAY, clips=3),
    Budget(scope=Scope.SERVER, stretch=Stretch.DAY, cents=5 * PRICE),
    Budget(scope=Scope.ALL, stretch=Stretch.MONTH, cents=14 * PRICE),
)
STEPS = st.lists(
    st.one_of(
        st.tuples(st.just("ask"), st.integers(1, 3), st.integers(1, 2)),
        st.tuples(st.just("cancel"), st.integers(0, 20), st.just(0)),
        st.tuples(st.just("again"), st.integers(0, 20), st.integers(1, 3)),
        st.tuples(st.just("retry"), st.integers(0, 20), st.just(0)),
        st.tuples(
            st.just("work"),
            st.sampled_from(["good", "refused", "lost", "broke"]),
            st.sampled_from([10, 40_000]),
        ),
    ),
    max_size=25,
)
SCRIPT: dict[str, Any] = {
    "refused": ProviderRejected(Cause.MODERATION),
    "lost": ProviderUnsure(Cause.NO_ANSWER),
}


@settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(steps=STEPS)
def test_no_sequence_passes_a_budget(database: str, tmp_path_factory: Any, steps: list[Any]) -> None:
    """Requests, failures, cancellations, requeues and doubts, on both databases; several askers at once."""
    asyncio.run(_live(database, tmp_path_factory.mktemp("clips"), steps))


async def _live(database: str, folder: Path, steps: list[Any]) -> None:
    async with open_store(database, database_clock=False) as store:
        async with store._writes.begin() as connection:
            for table in metadata.sorted_tables:
                await connection.execute(table.delete())
        world = make_world(store, Clock(), folder)
        limit(world, *BUDGETS)
        jobs: list[Any] = []
        for step, first, second in steps:
            done: list[Any] = []
            if step == "ask":
                done = await asyncio.gather(
                    *(ask(world, asker=first, guild=second) for _ in range(2)), return_exceptions=True
                )
            elif step == "work":
                if first in SCRIPT:
                    world.provider.on_submit.append(SCRIPT[first])
                if first == "broke":
                    world.provider.on_check.append(Broke(Cause.BROKEN, charged=False))
                world.clock.pass_by(seconds=second)
                await world.engine.run_due()
            elif jobs:
                job = await world.now(jobs[first % len(jobs)])
                who = Who(id=second or job.asker_id, channel_id=10, guild_id=job.guild_id)
                verbs: dict[str, Any] = {
                    "cancel": lambda who=who, job=job: world.desk.cancel(who, job.id),
                    "again": lambda who=who, job=job: world.desk.again(who, job),
                    "retry": lambda who=who, job=job: world.desk.try_again(who, job.id),
                }
                done = await asyncio.gather(verbs[step](), return_exceptions=True)
            for answer in done:
                if isinstance(answer, Exception):
                    assert isinstance(answer, Refusal), answer
                elif answer.id not in {job.id for job in jobs}:
                    jobs.append(answer)
            await _within(store)


async def _within(store: Store) -> None:
    """Counted from the ledger's rows alone, day by day and month by month."""
    async with store._reads.connect() as connection:
        rows = (
            await connection.exec_driver_sql(
                "SELECT kind, cents, asker_id, guild_id, reserved_at FROM ledger WHERE kind IN ('reserve', 'release')"
            )
        ).all()
    spent: dict[Any, list[int]] = {}
    for kind, cents, asker, guild, at in rows:
        day = str(at)[:10]
        for budget, key in zip(
            BUDGETS, ((asker, guild, day), ("server", guild, day), ("all", day[:7])), strict=True
        ):
            entry = spent.setdefault((budget, key), [0, 0])
            sign = 1 if kind == "reserve" else -1
            entry[0] += sign
            entry[1] += sign * cents
    for (budget, key), (clips, cents) in spent.items():
        assert budget.clips is None or clips <= budget.clips, key
        assert budget.cents is None or cents <= budget.cents, key
