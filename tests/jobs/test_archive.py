"""Turning the pages of the past, on both databases."""

from dataclasses import replace

import pytest

from bot.jobs.archive import HISTORY_PAGE, Archive, Past, Turn, Way
from bot.jobs.browsing import Shelf
from bot.jobs.machine import Job, State
from bot.jobs.store import Store, new_job_id
from tests.conftest import Clock
from tests.jobs.world import make_menu

EVERYTHING = Shelf(guild_id=1, reader_id=99, channels={10})


async def clips(store: Store, clock: Clock, number: int, *, same_time: bool = False) -> list[Job]:
    made = []
    for n in range(number):
        if not same_time:
            clock.pass_by(seconds=1)
        job = Job(
            id=new_job_id(clock.now()),
            state=State.DELIVERED,
            created_at=clock.now(),
            changed_at=clock.now(),
            guild_id=1,
            channel_id=10,
            asker_id=2,
            post_id=100 + n,
            model="kling",
            route="makevid",
            variant="kling",
            prompt="waves",
            seconds=5,
        )
        made.append(await store.add(job))
    return made


def an_archive(store: Store, clock: Clock) -> Archive:
    return Archive(store=store, menu=make_menu(), now=clock.now, slots=lambda _route: 2, keep_days=7)


def turned(past: Past, way: Way) -> Turn:
    beside = past.jobs[0] if way is Way.NEWER else past.jobs[-1]
    return replace(past.turn, way=way, beside=beside.id)


@pytest.mark.parametrize("same_time", [False, True])
async def test_every_clip_is_on_one_page(store: Store, clock: Clock, same_time: bool) -> None:
    """Forth and back again, the same pages; also where clips were asked for in the same moment."""
    made = await clips(store, clock, 2 * HISTORY_PAGE + 1, same_time=same_time)
    archive = an_archive(store, clock)

    pages = [await archive.past(EVERYTHING, Turn())]
    while pages[-1].older:
        pages.append(await archive.past(EVERYTHING, turned(pages[-1], Way.OLDER)))
    back = [pages[-1]]
    while back[-1].newer:
        back.append(await archive.past(EVERYTHING, turned(back[-1], Way.NEWER)))

    seen = [job.id for page in pages for job in page.jobs]
    newest_first = sorted(made, key=lambda job: (job.created_at, job.id), reverse=True)
    assert len(pages) == 3
    assert sorted(seen) == sorted(job.id for job in made)
    if not same_time:
        assert seen == [job.id for job in newest_first]
    assert [job.id for page in back for job in page.jobs][: len(back[0].jobs)] == [
        job.id for job in pages[-1].jobs
    ]
    assert {job.id for page in back for job in page.jobs} == set(seen)
    assert [page.newer for page in pages] == [False, True, True]


async def test_a_page_beside_a_clip_that_is_no_more(store: Store, clock: Clock) -> None:
    """An id that nobody knows begins at the newest again."""
    made = await clips(store, clock, 2)
    archive = an_archive(store, clock)

    past = await archive.past(EVERYTHING, Turn(beside="nobody"))

    assert [job.id for job in past.jobs] == [made[1].id, made[0].id]


async def test_nothing_newer(store: Store, clock: Clock) -> None:
    """The clips on that side are gone, or hidden by now: the newest are shown, and nobody is stuck."""
    made = await clips(store, clock, 1)
    archive = an_archive(store, clock)

    past = await archive.past(EVERYTHING, Turn(way=Way.NEWER, beside=made[0].id))

    assert past.jobs == tuple(made)
    assert (past.newer, past.older) == (False, False)
