"""When jobs in hand are due: what the schedule says is what looking at each of them would say."""

import random
from datetime import timedelta

from bot.jobs.machine import State
from bot.jobs.schedule import Schedule
from bot.jobs.store import Store
from bot.providers.base import Capabilities
from tests.conftest import Clock
from tests.jobs.test_store import a_job

CAN = Capabilities(seconds=(5,))


def test_what_is_due_and_what_is_next_is_as_if_all_were_looked_at(store: Store, clock: Clock) -> None:
    """However often times are changed, jobs dropped and followed again, and the clock set."""
    schedule = Schedule(store=store, can=lambda _job: CAN, now=clock.now)
    chance = random.Random(1)  # noqa: S311 - the same each time
    numbers = range(40)
    for _ in range(1500):
        number = chance.choice(numbers)
        job = a_job(clock, id=f"job-{number}", state=State.RENDERING, submitted_at=clock.now())
        match chance.randrange(6):
            case 0 | 1:
                schedule.follow(job)
            case 2 | 3:
                schedule.soon(job.id, timedelta(seconds=chance.randrange(30)))
            case 4:
                schedule.drop(job.id)
            case _:
                clock.pass_by(seconds=chance.randrange(3))
        if not chance.randrange(100):
            schedule.shift(timedelta(seconds=-5))
        at = clock.now() + timedelta(seconds=chance.randrange(-10, 30))
        besides = {f"job-{number}" for number in chance.sample(numbers, chance.randrange(len(numbers)))}

        assert schedule.due_by(at) == {job_id for job_id, due in schedule.due.items() if due <= at}
        others = [due for job_id, due in schedule.due.items() if job_id not in besides]
        assert schedule.next_due(besides) == min(others, default=None)
