"""What a month cost: added up from the ledger on both databases, at the edges of months too."""

import csv
import io
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bot.errors import Cause, Refusal
from bot.jobs.machine import (
    Accepted,
    Begun,
    Broke,
    Cancelled,
    CardPosted,
    Claimed,
    CouldNotPost,
    GaveUp,
    Job,
    Lost,
    Outcome,
    Posted,
    Ready,
    Redelivered,
    TriedAgain,
)
from bot.jobs.members import Members
from bot.jobs.store import Store
from bot.jobs.usage import FORMULA, Books, Month, Sheet, Usage
from tests.conftest import Clock
from tests.jobs.test_store import a_job

NOVEMBER, DECEMBER = Month(2026, 11), Month(2026, 12)
NOON = datetime(2026, 11, 20, 12, tzinfo=UTC)
TO_THE_CLIP = (Claimed("worker"), Begun("ref"), Accepted("task"), Ready("https://cdn.example/clip.mp4"))
POSTED = (*TO_THE_CLIP, Posted(9))


@pytest.fixture
def books(store: Store, clock: Clock) -> Books:
    clock.at = NOON
    return Books(store, now=clock.now, currency="$")


async def made(store: Store, clock: Clock, *outcomes: Outcome, wait: float = 60, **changes: Any) -> Job:
    """A job that was asked for now, and what became of it `wait` seconds later."""
    price = {"price_cents": 35, "reserved_at": clock.now()}
    job = await store.add(a_job(clock, **(price | changes)))
    asked, clock.at = clock.at, clock.at + timedelta(seconds=wait)
    for outcome in (CardPosted(5), *outcomes):
        moved = await store.advance(job, outcome, clock.now())
        assert moved
        job = moved
    clock.at = asked
    return job


async def of(books: Books, month: Month = NOVEMBER, guild_id: int | None = 1) -> Usage:
    return await books.usage(month, guild_id)


def rows(sheet: Sheet) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(sheet.data.decode("utf-8-sig"))))


async def sheet_of(books: Books, month: Month = NOVEMBER, guild_id: int | None = 1) -> list[dict[str, str]]:
    return rows(await books.sheet(month, guild_id, max_bytes=10**6))


async def test_a_month_without_anything(books: Books) -> None:
    """Nothing, and as many days as it has."""
    usage = await of(books)

    assert (usage.spent, usage.reserved, usage.unsure, usage.clips) == (0, 0, 0, 0)
    assert usage.by_day == (0,) * 30
    assert (usage.by_model, usage.top, usage.success, usage.wait) == ((), (), None, None)
    assert await books.months(1) == []
    assert await sheet_of(books) == []


async def test_what_became_of_each_clip(store: Store, clock: Clock, books: Books) -> None:
    """Charged, reserved and perhaps charged are three sums; what was given back is in none."""
    await made(store, clock, *POSTED, wait=50)
    await made(store, clock, *POSTED, wait=70, price_cents=70, model="luma", asker_id=3)
    await made(store, clock, *POSTED, wait=600, price_cents=100, asker_id=3)
    await made(store, clock, Claimed("w"), Begun("r"), Accepted("t"), Broke(Cause.MODERATION, charged=False))
    await made(
        store,
        clock,
        Claimed("w"),
        Begun("r"),
        Accepted("t"),
        Broke(Cause.BROKEN, charged=True),
        price_cents=7,
    )
    await made(store, clock, Claimed("w"), Begun("r"), Lost(Cause.NO_ANSWER), GaveUp(), price_cents=11)
    await made(store, clock, Cancelled())
    await made(store, clock, *TO_THE_CLIP, CouldNotPost(Cause.NO_PERMISSION), price_cents=5)
    await made(store, clock, price_cents=13)
    await made(store, clock, *POSTED, guild_id=77, price_cents=1000)

    usage = await of(books)

    assert (usage.spent, usage.reserved, usage.unsure) == (35 + 70 + 100 + 7 + 5, 13, 11)
    assert usage.by_model == (("kling", 147, 4), ("luma", 70, 1))
    assert usage.top == ((3, 170, 2), (2, 47, 3))
    assert usage.by_day[19] == sum(usage.by_day) == usage.spent
    assert (usage.delivered, usage.failed, usage.stuck, usage.cancelled, usage.under_way) == (3, 3, 1, 1, 1)
    assert usage.success == pytest.approx(3 / 7)
    assert usage.wait == timedelta(seconds=70)


async def test_all_servers_together(store: Store, clock: Clock, books: Books) -> None:
    """For the owner: by server, not by member."""
    await made(store, clock, *POSTED)
    await made(store, clock, *POSTED, guild_id=77, price_cents=1000)
    await made(store, clock, *POSTED, guild_id=None, price_cents=2)

    usage = await of(books, guild_id=None)

    assert usage.spent == 1037
    assert usage.top == ((77, 1000, 1), (1, 35, 1), (None, 2, 1))
    assert len(await sheet_of(books, guild_id=None)) == 3


@pytest.mark.parametrize(
    ("at", "month", "day"),
    [
        (datetime(2026, 10, 31, 23, 59, 59, 999_999, UTC), Month(2026, 10), 31),
        (datetime(2026, 11, 1, tzinfo=UTC), NOVEMBER, 1),
        (datetime(2026, 11, 2, 23, 59, 59, 999_999, UTC), NOVEMBER, 2),
        (datetime(2026, 11, 3, tzinfo=UTC), NOVEMBER, 3),
        (datetime(2026, 11, 30, 23, 59, 59, 999_999, UTC), NOVEMBER, 30),
        (datetime(2026, 12, 1, tzinfo=UTC), DECEMBER, 1),
        (datetime(2028, 2, 29, 12, tzinfo=UTC), Month(2028, 2), 29),
    ],
)
async def test_days_and_months_are_those_of_utc(
    store: Store, clock: Clock, books: Books, at: datetime, month: Month, day: int
) -> None:
    """To the microsecond, whatever the zone of the database; also when the clip is done in the next one."""
    clock.at = at
    await made(store, clock, *POSTED)

    usage = await of(books, month)

    assert [number for number, cents in enumerate(usage.by_day, start=1) if cents] == [day]
    assert usage.delivered == 1
    for other in (month.before, Month.of(month.ends)):
        assert (await of(books, other)).clips == (await of(books, other)).spent == 0
        assert await sheet_of(books, other) == []


async def test_what_is_given_back_later_is_of_the_month_of_its_reservation(
    store: Store, clock: Clock, books: Books
) -> None:
    """So no month is ever less than nothing, and December's budget grows by no refund of November's."""
    clock.at = datetime(2026, 11, 30, 23, 59, tzinfo=UTC)
    await made(
        store, clock, Claimed("w"), Begun("r"), Accepted("t"), Broke(Cause.BROKEN, charged=False), wait=600
    )
    await made(store, clock, *POSTED, wait=600)

    november, december = await of(books), await of(books, DECEMBER)

    assert (november.spent, november.reserved) == (35, 0)
    assert (december.spent, december.reserved, december.clips) == (0, 0, 0)
    given_back, spent = sorted(await sheet_of(books), key=lambda row: row["spent"])
    assert (given_back["spent"], given_back["given_back"], given_back["reserved"]) == ("0.00", "0.35", "0.00")
    assert (spent["spent"], spent["given_back"]) == ("0.35", "0.00")


async def test_a_clip_tried_again_in_the_next_month(store: Store, clock: Clock, books: Books) -> None:
    """The doubt stays where its money was reserved; the second attempt belongs to the month of the click."""
    clock.at = datetime(2026, 11, 30, 23, tzinfo=UTC)
    job = await made(store, clock, Claimed("w"), Begun("r"), Lost(Cause.NO_ANSWER))
    clock.at = datetime(2026, 12, 1, 1, tzinfo=UTC)
    for outcome in (TriedAgain(), *POSTED):
        moved = await store.advance(job, outcome, clock.now())
        assert moved
        job = moved

    november, december = await of(books), await of(books, DECEMBER)

    assert (november.spent, november.unsure, november.reserved) == (0, 35, 0)
    assert (december.spent, december.unsure, december.reserved) == (35, 0, 0)
    assert [row["unsure"] for row in await sheet_of(books)] == ["0.35"]
    assert [row["spent"] for row in await sheet_of(books, DECEMBER)] == ["0.35"]
    assert await books.months(1) == [DECEMBER, NOVEMBER]


async def test_months_that_have_numbers(store: Store, clock: Clock, books: Books) -> None:
    """The latest first; not further back than two years, and only those of the server."""
    for at, guild_id in (
        (NOON, 1),
        (datetime(2026, 9, 30, 23, 59, tzinfo=UTC), 1),
        (datetime(2026, 8, 5, tzinfo=UTC), 2),
    ):
        clock.at = at
        await made(store, clock, *POSTED, guild_id=guild_id)
    clock.at = datetime(2024, 10, 31, tzinfo=UTC)
    await made(store, clock, *POSTED)
    clock.at = NOON

    assert await books.months(1) == [NOVEMBER, Month(2026, 9)]
    assert await books.months(None) == [NOVEMBER, Month(2026, 9), Month(2026, 8)]
    assert await books.months(3) == []


async def test_a_forgotten_member_is_nobody_at_once(store: Store, clock: Clock, books: Books) -> None:
    """The ledger keeps the id for the limits of a month; the numbers do not show it."""
    job = await made(store, clock, *POSTED, asker_id=5)
    await made(store, clock, *POSTED, asker_id=6)
    members = Members(store)
    await members.forget(5, clock.now(), posts=False)
    await members.forgotten(job)

    usage = await of(books)

    assert sorted(usage.top) == [(0, 35, 1), (6, 35, 1)]
    assert sorted(row["member"] for row in await sheet_of(books)) == ["6", "forgotten"]


async def test_ten_members_and_the_others(store: Store, clock: Clock, books: Books) -> None:
    """Together they are all that was spent."""
    for member in range(1, 14):
        await made(store, clock, *POSTED, asker_id=member, price_cents=member)

    usage = await of(books)

    assert [one for one, _, _ in usage.top] == list(range(13, 3, -1))
    assert sum(cents for _, cents, _ in usage.top) + usage.others == usage.spent


async def test_a_clip_posted_once_more_does_not_count_as_a_wait(
    store: Store, clock: Clock, books: Books
) -> None:
    """It waited for a person, not for the bot."""
    late = (*TO_THE_CLIP, CouldNotPost(Cause.NO_PERMISSION), Redelivered(10), Posted(9))
    await made(store, clock, *late, wait=10**6)
    await made(store, clock, *POSTED, wait=40)

    assert (await of(books)).wait == timedelta(seconds=40)


async def test_the_median_of_an_even_number(store: Store, clock: Clock, books: Books) -> None:
    for wait in (10, 20, 40, 1000):
        await made(store, clock, *POSTED, wait=wait)

    assert (await of(books)).wait == timedelta(seconds=30)


# The file


async def test_the_file_adds_up_to_the_picture(store: Store, clock: Clock, books: Books) -> None:
    """A line for each clip, the oldest first, with what the provider's bill calls it, and no prompt."""
    await made(store, clock, *POSTED, prompt="a secret wish", quality="pro", card_channel_id=4)
    clock.pass_by(hours=1)
    await made(store, clock, Claimed("w"), Begun("r"), Lost(Cause.NO_ANSWER), price_cents=11)

    sheet = await books.sheet(NOVEMBER, 1, max_bytes=10**6)

    first, second = rows(sheet)
    assert sheet.whole
    assert sheet.clips == 2
    assert b"secret" not in sheet.data
    assert first["requested_at"] == "2026-11-20T12:00:00Z"
    assert first["submitted_at"] == "2026-11-20T12:01:00Z"
    assert (first["route"], first["model"], first["provider_task"]) == ("makevid", "kling", "task")
    assert (first["seconds"], first["quality"], first["sound"], first["state"]) == (
        "5",
        "pro",
        "no",
        "delivered",
    )
    assert (first["server"], first["channel"], first["member"]) == ("1", "4", "2")
    assert (first["currency"], first["spent"], first["reserved"]) == ("$", "0.35", "0.00")
    assert (second["state"], second["spent"], second["reserved"]) == ("unsure", "0.00", "0.11")


@pytest.mark.parametrize("start", FORMULA)
async def test_no_cell_is_a_formula(store: Store, clock: Clock, books: Books, start: str) -> None:
    """The provider's own name for a clip is theirs to choose: no spreadsheet may run it."""
    evil = f'{start}HYPERLINK("https://evil.example";"click")'
    await made(store, clock, Claimed("w"), Begun("r"), Accepted(evil), variant=f"{start}1")

    [row] = await sheet_of(books)

    assert row["provider_task"] == f"'{evil}"
    assert all(not cell.startswith(FORMULA) for cell in row.values())


async def test_the_file_is_cut_at_a_line(store: Store, clock: Clock, books: Books) -> None:
    """And says so."""
    for _ in range(20):
        await made(store, clock, *POSTED)
        clock.pass_by(seconds=1)
    whole = await books.sheet(NOVEMBER, 1, max_bytes=10**6)

    cut = await books.sheet(NOVEMBER, 1, max_bytes=len(whole.data) // 2)

    assert not cut.whole
    assert 5 < cut.clips < 15
    assert rows(cut) == rows(whole)[: cut.clips]
    assert len(cut.data) <= len(whole.data) // 2


async def test_more_clips_than_are_read_at_once(
    store: Store, clock: Clock, books: Books, monkeypatch: pytest.MonkeyPatch
) -> None:
    """None is left out, none is there twice."""
    monkeypatch.setattr("bot.jobs.usage.ROWS_AT_ONCE", 3)
    made_ids = []
    for _ in range(10):
        made_ids.append((await made(store, clock, *POSTED)).id)
        clock.pass_by(seconds=1)

    assert [row["job"] for row in await sheet_of(books)] == made_ids


# Months


@pytest.mark.parametrize(
    ("text", "month"), [("2026-11", NOVEMBER), (" 2026-1 ", Month(2026, 1)), (None, NOVEMBER)]
)
async def test_a_month_as_it_is_written(books: Books, text: str | None, month: Month) -> None:
    assert books.month(text) == month


@pytest.mark.parametrize(
    "text", ["2026-13", "2026-0", "november", "1999-12", "9999-12", "2026-11-01", "٢٠٢٦-١١", "-1"]
)
async def test_what_is_no_month(books: Books, text: str) -> None:
    with pytest.raises(Refusal, match="Write it like 2026-11"):
        books.month(text)


def test_months_know_their_edges() -> None:
    """A year's end, and a leap year's February."""
    assert (DECEMBER.ends, DECEMBER.days, str(DECEMBER)) == (datetime(2027, 1, 1, tzinfo=UTC), 31, "2026-12")
    assert (Month(2027, 1).before, Month(2028, 2).days) == (DECEMBER, 29)
    assert Month(2026, 3).name == "March 2026"
    assert replace(NOVEMBER, month=12) == DECEMBER
