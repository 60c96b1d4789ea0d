"""The store: guarded moves, constraints, claims, and a schema that matches the tables."""

import asyncio
from dataclasses import asdict, replace
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config as AlembicConfig
from alembic.migration import MigrationContext
from sqlalchemy import Connection, MetaData, Table, insert, inspect
from sqlalchemy.ext.asyncio import create_async_engine

from bot.errors import Cause, Refusal
from bot.jobs.machine import (
    Accepted,
    Begun,
    Cancelled,
    CardPosted,
    IllegalArrow,
    Job,
    Lineage,
    Lost,
    Outcome,
    Posted,
    Ready,
    State,
)
from bot.jobs.store import (
    HOLDS_SLOT,
    AlreadyThere,
    Load,
    Store,
    _again_and_again,
    new_job_id,
    open_store,
)
from bot.jobs.tables import jobs, metadata
from tests.conftest import Clock, in_paid_call


def a_job(clock: Clock, **changes: object) -> Job:
    job = Job(
        id=new_job_id(clock.now()),
        created_at=clock.now(),
        changed_at=clock.now(),
        channel_id=10,
        guild_id=1,
        asker_id=2,
        model="kling",
        route="makevid",
        variant="kling",
        prompt="waves",
        seconds=5,
    )
    return replace(job, **changes)  # type: ignore[arg-type]  # fields of Job


async def queued(store: Store, clock: Clock, **changes: object) -> Job:
    job = await store.add(a_job(clock, **changes))
    moved = await store.advance(job, CardPosted(abs(hash(job.id)) % 10**15), clock.now())
    assert moved
    return moved


def test_a_job_id_fits_a_nonce_and_a_custom_id(clock: Clock) -> None:
    """Discord's nonce holds 25 characters, two of which the announcer adds to."""
    ids = {new_job_id(clock.now()) for _ in range(1000)}

    assert len(ids) == 1000
    assert all(len(job_id) <= 20 and job_id.isalnum() and job_id == job_id.lower() for job_id in ids)


async def test_a_job_comes_back_as_it_was_written(store: Store, clock: Clock) -> None:
    """Enums, aware times and numbers survive the database."""
    job = a_job(clock, strength=0.5, quality="pro", cause=Cause.BUSY, not_before=clock.now())

    await store.add(job)

    assert await store.get(job.id) == job


async def test_only_the_first_of_two_writers_wins(store: Store, clock: Clock) -> None:
    """A stale writer is told so, and its move, event included, is not there."""
    job = await store.add(a_job(clock))

    first = await store.advance(job, CardPosted(5), clock.now())
    second = await store.advance(job, Cancelled(), clock.now())

    assert first
    assert first.state is State.QUEUED
    assert second is None
    assert await store.history(job.id) == [(None, State.DRAFT), (State.DRAFT, State.QUEUED)]


@pytest.mark.parametrize("other", [CardPosted(6), Cancelled()])
async def test_of_two_moves_at_the_same_moment_the_first_wins(
    store: Store, clock: Clock, other: Outcome
) -> None:
    """In one transaction, whether they change the same columns or not; a third job's move is written beside them."""
    job, beside = await store.add(a_job(clock)), await store.add(a_job(clock))

    moved = await asyncio.gather(
        store.advance(job, CardPosted(5), clock.now()),
        store.advance(job, other, clock.now()),
        store.advance(beside, CardPosted(7), clock.now()),
    )

    assert [found and found.card_id for found in moved] == [5, None, 7]
    assert await store.get(job.id) == moved[0]
    assert len(await store.history(job.id)) == 2


async def test_of_two_moves_at_the_same_moment_a_stale_one_does_not_count(store: Store, clock: Clock) -> None:
    """Somebody calls off what they saw in the line, when its paid answer is there: the answer is written."""
    waiting = await queued(store, clock)
    [claimed] = await in_paid_call(store, slots=1, worker="w", now=clock.now())

    stale, good = await asyncio.gather(
        store.advance(waiting, Cancelled(), clock.now()),
        store.advance(claimed, Accepted("paid-task"), clock.now()),
    )

    assert stale is None
    assert good
    assert good.provider_task == "paid-task"
    assert await store.get(claimed.id) == good


async def test_an_answer_that_cannot_be_written_harms_no_other(store: Store, clock: Clock) -> None:
    """A name that no database takes, as JSON may well bring it: its job is as it was, another's answer is written."""
    await queued(store, clock), await queued(store, clock)
    one, other = await in_paid_call(store, slots=2, worker="w", now=clock.now())

    bad, good = await asyncio.gather(
        store.advance(one, Accepted("task-\ud800"), clock.now()),
        store.advance(other, Accepted("paid-task"), clock.now()),
        return_exceptions=True,
    )

    assert isinstance(bad, Exception)
    assert await store.get(one.id) == one
    assert isinstance(good, Job)
    assert await store.get(other.id) == good


async def test_a_request_that_cannot_be_written_harms_no_other(store: Store, clock: Clock) -> None:
    """Words that no database takes: only who wrote them is without a job."""
    written = a_job(clock)

    bad, good = await asyncio.gather(
        store.add(a_job(clock, prompt="waves \ud800")), store.add(written), return_exceptions=True
    )

    assert isinstance(bad, Exception)
    assert good == written
    assert [job.id for job in await store.open_jobs()] == [written.id]


async def test_the_same_writer_may_ask_twice(store: Store, clock: Clock) -> None:
    """When the answer to a commit is lost, asking again gives the same result and one event."""
    job = await store.add(a_job(clock))
    at = clock.now()

    moved = await store.advance(job, CardPosted(5), at)
    again = await store.advance(job, CardPosted(5), at)

    assert moved == again
    assert len(await store.history(job.id)) == 2


async def test_a_move_that_is_not_drawn_writes_nothing(store: Store, clock: Clock) -> None:
    """An impossible outcome is a bug, not a row."""
    job = await store.add(a_job(clock))

    with pytest.raises(IllegalArrow):
        await store.advance(job, Posted(9), clock.now())

    assert await store.get(job.id) == job


async def test_one_interaction_makes_one_job(store: Store, clock: Clock) -> None:
    """Discord may deliver an interaction twice; the constraint holds, not a look before."""
    await store.add(a_job(clock, interaction_id=77))

    with pytest.raises(AlreadyThere):
        await store.add(a_job(clock, interaction_id=77))


@pytest.mark.parametrize("lineage", [None, Lineage.AGAIN, Lineage.MODEL])
async def test_one_open_take_per_person_and_clip(store: Store, clock: Clock, lineage: Lineage | None) -> None:
    """The second waits for the first to end; other people are not concerned. None: written by an old version."""
    first = await queued(store, clock, parent_id="parent", asker_id=2, lineage=lineage)
    await store.add(a_job(clock, parent_id="parent", asker_id=3, lineage=lineage))

    with pytest.raises(AlreadyThere):
        await store.add(a_job(clock, parent_id="parent", asker_id=2, lineage=lineage))
    await store.add(a_job(clock, parent_id="parent", asker_id=2, lineage=Lineage.MODEL, model="luma"))
    await store.advance(first, Cancelled(), clock.now())
    await store.add(a_job(clock, parent_id="parent", asker_id=2, lineage=lineage))


@pytest.mark.parametrize("lineage", [Lineage.REMIX, Lineage.CONTINUE])
async def test_what_says_something_new_may_run_beside_it(
    store: Store, clock: Clock, lineage: Lineage
) -> None:
    """A remix is another clip, even of the same parent, person and model."""
    await store.add(a_job(clock, parent_id="parent", lineage=Lineage.AGAIN))

    for _ in range(2):
        await store.add(a_job(clock, parent_id="parent", lineage=lineage))

    assert (await store.load(2)).by_asker == 3


async def test_takes_of_a_clip_are_counted_within_a_day(store: Store, clock: Clock) -> None:
    """By anybody; not remixes, not what cost nothing, not those of other clips."""
    await queued(store, clock, parent_id="clip", asker_id=1, lineage=Lineage.AGAIN)
    clock.pass_by(hours=23)
    await queued(store, clock, parent_id="clip", asker_id=2, lineage=Lineage.AGAIN)
    await queued(store, clock, parent_id="clip", asker_id=2, lineage=Lineage.REMIX)
    await queued(store, clock, parent_id="other", asker_id=2, lineage=Lineage.AGAIN)
    free = await queued(store, clock, parent_id="clip", asker_id=3, lineage=Lineage.AGAIN)
    await store.advance(free, Cancelled(), clock.now())
    seen: list[int] = []

    await store.add(
        a_job(clock, parent_id="clip", asker_id=4, lineage=Lineage.AGAIN),
        lambda load: seen.append(load.takes),
    )

    assert seen == [2]
    assert (await store.load(9, clip="clip", now=clock.now())).takes == 3
    clock.pass_by(hours=2)
    assert (await store.load(9, clip="clip", now=clock.now())).takes == 2
    assert (await store.load(9)).takes == 0


@pytest.mark.empty
async def test_rows_of_before_have_a_lineage(database: str, clock: Clock) -> None:
    """Every job with a parent was the same clip again, until there was more."""
    engine = create_async_engine(database)
    rows = [
        asdict(a_job(clock, parent_id="parent", asker_id=2)),
        asdict(a_job(clock, asker_id=3)),
    ]

    def write_as_of_old(connection: Connection) -> None:
        config = AlembicConfig()
        config.set_main_option("script_location", "bot:migrations")
        config.attributes["connection"] = connection
        command.upgrade(config, "0002")
        known = {column["name"] for column in inspect(connection).get_columns("jobs")}
        assert "lineage" not in known
        old = Table("jobs", MetaData(), *(c._copy() for c in jobs.c if c.name in known))
        connection.execute(insert(old), [{k: v for k, v in row.items() if k in known} for row in rows])

    async with engine.begin() as connection:
        await connection.run_sync(write_as_of_old)
    await engine.dispose()

    async with open_store(database, database_clock=False) as store:
        child, other = [await store.get(str(row["id"])) for row in rows]
        assert child
        assert other
        assert (child.lineage, other.lineage) == (Lineage.AGAIN, None)
        with pytest.raises(AlreadyThere):
            await store.add(a_job(clock, parent_id="parent", asker_id=2, lineage=Lineage.AGAIN))


async def test_admission_is_decided_in_the_same_transaction(store: Store, clock: Clock) -> None:
    """Of two requests at once for the last free place, one is refused."""

    def admit(load: Load) -> None:
        if load.by_asker >= 1:
            raise Refusal("full")

    results = await asyncio.gather(
        store.add(a_job(clock), admit), store.add(a_job(clock), admit), return_exceptions=True
    )

    assert sorted(type(result).__name__ for result in results) == ["Job", "Refusal"]


async def test_a_claim_says_whose_job_it_is(store: Store, clock: Clock) -> None:
    """Nothing is sent yet, and no attempt has begun."""
    job = await queued(store, clock)

    [claimed] = await store.claim("makevid", slots=1, worker="w1", now=clock.now())

    assert (claimed.id, claimed.state, claimed.attempt) == (job.id, State.PREPARING, 0)
    assert (claimed.worker, claimed.reference) == ("w1", None)
    assert await store.get(job.id) == claimed


async def test_a_claimed_job_can_be_called_off(store: Store, clock: Clock) -> None:
    """Its worker, which still fetches the picture, may not pay then."""
    await queued(store, clock)
    [claimed] = await store.claim("makevid", slots=1, worker="w1", now=clock.now())

    assert await store.advance(claimed, Cancelled(), clock.now())

    assert await store.advance(claimed, Begun("r"), clock.now()) is None


async def test_two_claims_at_once_get_two_jobs(store: Store, clock: Clock) -> None:
    """No job is handed out twice."""
    first, second = await queued(store, clock), await queued(store, clock)

    claims = await asyncio.gather(
        *(store.claim("makevid", slots=9, worker=f"w{n}", now=clock.now(), most=1) for n in range(3))
    )

    assert sorted(job.id for claim in claims for job in claim) == sorted([first.id, second.id])


async def test_slots_hold_when_many_claim_at_once(store: Store, clock: Clock) -> None:
    """Ten workers, three free places, ten jobs: three start."""
    for _ in range(10):
        await queued(store, clock)

    claims = await asyncio.gather(
        *(store.claim("makevid", slots=3, worker=f"w{n}", now=clock.now()) for n in range(10))
    )

    assert sum(len(claim) for claim in claims) == 3


async def test_slots_are_counted_in_the_database(store: Store, clock: Clock) -> None:
    """A route with no free slot gives nothing; a job in doubt holds no slot."""
    await queued(store, clock)
    await queued(store, clock)
    [running] = await in_paid_call(store, slots=1, worker="w1", now=clock.now())

    assert await store.claim("makevid", slots=1, worker="w1", now=clock.now()) == []
    await store.advance(running, Lost(Cause.NO_ANSWER), clock.now())
    assert await store.claim("makevid", slots=1, worker="w1", now=clock.now())


async def test_a_rendering_job_holds_its_slot_for_a_while(store: Store, clock: Clock) -> None:
    """A route gets no more than it has slots for; but a clip that never comes does not keep the others waiting for a day."""
    await queued(store, clock)
    [rendering] = await in_paid_call(store, slots=1, worker="w", now=clock.now())
    await store.advance(rendering, Accepted("t"), clock.now())
    await queued(store, clock)
    clock.pass_by(seconds=HOLDS_SLOT.total_seconds() - 1)
    assert await store.claim("makevid", slots=1, worker="w", now=clock.now()) == []

    clock.pass_by(seconds=2)

    assert len(await store.claim("makevid", slots=1, worker="w", now=clock.now())) == 1


async def test_the_oldest_goes_first_and_pauses_are_kept(store: Store, clock: Clock) -> None:
    """A job told to wait is passed over until its time has come."""
    waits = await queued(store, clock, not_before=clock.now() + timedelta(minutes=1))
    clock.pass_by(seconds=1)
    second = await queued(store, clock)

    [claimed] = await store.claim("makevid", slots=9, worker="w", now=clock.now())
    assert claimed.id == second.id
    assert await store.claim("makevid", slots=9, worker="w", now=clock.now()) == []
    clock.pass_by(minutes=2)
    [late] = await store.claim("makevid", slots=9, worker="w", now=clock.now())
    assert late.id == waits.id


async def test_the_place_in_line(store: Store, clock: Clock) -> None:
    """The first to start is number 1."""
    first = await queued(store, clock)
    clock.pass_by(seconds=1)
    second = await queued(store, clock)

    assert [await store.place(first), await store.place(second)] == [1, 2]


async def test_members_take_turns(store: Store, clock: Clock) -> None:
    """The member with the fewest running goes first, then the oldest: a batch of one does not block others."""
    greedy = []
    for _ in range(3):
        greedy.append(await queued(store, clock, asker_id=2))
        clock.pass_by(seconds=1)
    modest = await queued(store, clock, asker_id=3)

    assert [job.id for job, _ in await store.line("makevid", limit=9)] == [
        greedy[0].id,
        modest.id,
        greedy[1].id,
        greedy[2].id,
    ]
    assert await store.place(modest) == 2
    started = [
        (await store.claim("makevid", slots=slots, worker="w", now=clock.now()))[0].id for slots in (1, 2, 3)
    ]
    assert started == [greedy[0].id, modest.id, greedy[1].id]


async def test_a_dead_workers_jobs_are_taken_over(store: Store, clock: Clock) -> None:
    """Only when its heartbeat is stale; twice is harmless; what was in its paid call is unsure, what was before it waits."""
    await queued(store, clock)
    await store.beat("w1", clock.now())
    [submitting] = await in_paid_call(store, slots=9, worker="w1", now=clock.now())
    await queued(store, clock)
    [other] = await in_paid_call(store, slots=9, worker="w1", now=clock.now())
    await queued(store, clock)
    [preparing] = await store.claim("makevid", slots=9, worker="w1", now=clock.now())
    rendering = await store.advance(other, Accepted("t"), clock.now())
    assert rendering
    stale = timedelta(seconds=30)

    clock.pass_by(seconds=29)
    assert await store.rescue("w2", stale=stale, now=clock.now()) == []
    clock.pass_by(seconds=2)
    rescued = {job.id: job for job in await store.rescue("w2", stale=stale, now=clock.now())}

    assert rescued[submitting.id].state is State.UNSURE
    assert (rescued[preparing.id].state, rescued[preparing.id].recoveries) == (State.QUEUED, 1)
    assert (rescued[rendering.id].worker, rescued[rendering.id].recoveries) == ("w2", 1)
    assert await store.rescue("w2", stale=stale, now=clock.now()) == []
    assert await store.advance(rendering, Ready("https://x"), clock.now()) is None


async def test_what_was_handed_back_is_taken_at_once(store: Store, clock: Clock) -> None:
    """A clean stop spends no recovery."""
    await queued(store, clock)
    await store.beat("w1", clock.now())
    [claimed] = await in_paid_call(store, slots=9, worker="w1", now=clock.now())
    await store.advance(claimed, Accepted("t"), clock.now())

    await store.release("w1")
    [taken] = await store.rescue("w2", stale=timedelta(seconds=30), now=clock.now())

    assert (taken.worker, taken.recoveries, taken.state) == ("w2", 0, State.RENDERING)


async def test_money_follows_the_job(store: Store, clock: Clock) -> None:
    """Reserved with the row, charged with the clip, released or doubted with the end."""
    job = await store.add(a_job(clock, price_cents=35))
    assert await store.money(job.id) == {"reserve": 35}

    await store.advance(job, Cancelled(), clock.now())

    assert await store.money(job.id) == {"reserve": 35, "release": 35}


async def test_durations_are_learned_from_the_same_kind(store: Store, clock: Clock) -> None:
    """From submit to clip; other lengths and qualities do not count."""
    job = await queued(store, clock)
    [running] = await in_paid_call(store, slots=1, worker="w", now=clock.now())
    assert running.id == job.id
    running = await store.advance(running, Accepted("t"), clock.now())
    assert running
    clock.pass_by(seconds=90)
    await store.advance(running, Ready("https://x"), clock.now())

    assert await store.durations(a_job(clock)) == [timedelta(seconds=90)]
    assert await store.durations(a_job(clock, quality="pro")) == []


async def test_the_last_upload_limit_of_a_server(store: Store, clock: Clock) -> None:
    """Discord names it with each interaction; a reaction comes without."""
    await store.add(a_job(clock, upload_limit=10))
    clock.pass_by(seconds=1)
    await store.add(a_job(clock, upload_limit=50))
    clock.pass_by(seconds=1)
    await store.add(a_job(clock, upload_limit=None))

    assert await store.last_upload_limit(1) == 50
    assert await store.last_upload_limit(2) is None


async def test_notes_are_kept_and_replaced(store: Store) -> None:
    """The last value written is the one recalled."""
    await store.remember("commands", "a")
    await store.remember("commands", "b")

    assert await store.recall("commands") == "b"
    assert await store.recall("nothing") is None


async def test_rows_outlive_the_process(tmp_path: Path, clock: Clock) -> None:
    """The file is opened again, its schema found up to date, and the job is there."""
    url = f"sqlite+aiosqlite:///{tmp_path / 'made' / 'here' / 'jobs.db'}"
    async with open_store(url) as store:
        job = await store.add(a_job(clock))

    async with open_store(url) as store:
        assert await store.get(job.id) == job


async def test_the_migrations_make_the_tables(store: Store) -> None:
    """What Alembic builds is what the code declares, on both databases."""
    async with store._reads.connect() as connection:
        difference = await connection.run_sync(
            lambda sync: compare_metadata(MigrationContext.configure(sync), metadata)
        )

    assert difference == []


async def test_the_migrations_make_the_indexes_for_the_same_rows(store: Store) -> None:
    """Alembic does not compare the conditions of partial indexes; queries and constraints rest on them."""

    def indexes(connection: Connection) -> dict[str | None, list[object]]:
        return {
            one["name"]: [
                one["column_names"],
                bool(one["unique"]),
                {option: str(value) for option, value in one.get("dialect_options", {}).items()},
            ]
            for table in metadata.tables
            for one in inspect(connection).get_indexes(table)
        }

    async with store._writes.connect() as connection:
        migrated = await connection.run_sync(indexes)
        await connection.run_sync(metadata.drop_all)
        await connection.run_sync(metadata.create_all)
        declared = await connection.run_sync(indexes)
        await connection.rollback()

    assert migrated == declared


async def test_every_connection_is_set_up_for_safety(tmp_path: Path) -> None:
    """No commit is lost at a power cut, foreign keys hold, a locked database is waited for."""
    async with open_store(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}") as store:
        statements: list[str] = []
        async with store._writes.begin() as connection:
            driver: Any = (await connection.get_raw_connection()).driver_connection
            await driver.set_trace_callback(statements.append)
            names = ("journal_mode", "synchronous", "foreign_keys", "busy_timeout")
            found = [(await connection.exec_driver_sql(f"PRAGMA {name}")).scalar_one() for name in names]

    assert found == ["wal", 2, 1, 5000]
    assert statements[0] == "BEGIN IMMEDIATE"


async def test_writers_of_one_process_take_turns(
    database: str, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """SQLite has one writer at a time; without a turn, luck decides who waits longer than the time-out."""
    monkeypatch.setattr("bot.jobs.sqlite.BUSY_TIMEOUT", timedelta(0))

    async with open_store(database, database_clock=False) as store:
        await asyncio.gather(*(store.beat(f"worker-{number}", clock.now()) for number in range(15)))

        assert len(await store.heard_of(clock.now())) == 15


async def test_nothing_is_tried_again_after_its_time() -> None:
    """Discord waits three seconds: whoever asks gets the error itself, after what it took to come to it."""
    tries: list[int] = []

    async def ask() -> None:
        tries.append(1)
        raise ConnectionError

    with pytest.raises(ConnectionError):
        await _again_and_again(ask, seconds=0)

    assert tries == [1]
