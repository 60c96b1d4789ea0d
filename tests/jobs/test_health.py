"""A route in trouble: it is left alone, members are told before they ask, and it comes back by itself."""

from dataclasses import replace
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from bot.errors import Cause, ProviderBusy, ProviderRejected, ProviderUnsure, Refusal
from bot.jobs.desk import Ask, Desk
from bot.jobs.engine import Engine
from bot.jobs.health import Health
from bot.jobs.limits import Limits
from bot.jobs.machine import Job, State, StillRendering
from bot.jobs.models import Menu, Way, common
from bot.jobs.store import Store
from bot.providers.base import Balance, Capabilities, PictureRules
from tests.conftest import Clock
from tests.jobs.world import (
    KLING,
    RUNWAY,
    FindingProvider,
    NotingAnnouncer,
    ScriptedProvider,
    UploadingProvider,
    World,
    make_menu,
)

PICTURE = Ask(prompt="waves", has_picture=True)
AWAY = ProviderBusy("not connected", away=True)


async def pass_by(world: World, seconds: int) -> None:
    """In steps such as the engine takes, and no more than thirty."""
    step = max(10, seconds // 30)
    for _ in range(seconds // step):
        world.clock.pass_by(seconds=step)
        await world.engine.run_due()


async def ask_in_turn(world: World, number: int) -> list[Job]:
    """So many members, one second after the other."""
    jobs = []
    for asker in range(number):
        jobs.append(await world.ask(asker=asker))
        world.clock.pass_by(seconds=1)
    return jobs


async def test_a_refused_key_stops_all_submits_and_tells_the_owner_once(world: World) -> None:
    """Those that found out are not charged; those behind wait, and members who ask are told before."""
    world.provider.on_submit.extend([ProviderRejected(Cause.BAD_KEY)] * 2)
    world.provider.on_probe.extend([ProviderRejected(Cause.BAD_KEY)] * 50)
    first, _, third = await ask_in_turn(world, 3)

    await world.engine.run_due()
    await pass_by(world, 3600)

    assert (await world.now(first)).state is State.FAILED
    assert await world.store.money(first.id) == {"reserve": 35, "release": 35}
    assert (await world.now(third)).state is State.QUEUED
    assert len(world.provider.submits) == 2
    assert world.announcer.told == [("makevid", Cause.BAD_KEY)]
    assert 2 <= world.provider.probes <= 6
    with pytest.raises(Refusal, match="Kling cannot be used until this bot's owner mends it"):
        world.desk.plan(PICTURE)

    world.provider.on_probe.clear()
    await pass_by(world, 3600)
    assert (await world.now(third)).state is State.DELIVERED
    world.desk.plan(PICTURE)


@pytest.mark.parametrize("died", [False, True])
async def test_the_owner_is_told_all_the_same(world: World, *, died: bool) -> None:
    """Discord was away, or the process died right after it had noted the trouble: the next to look tells, once."""
    world.provider.on_submit.append(ProviderRejected(Cause.BAD_KEY))
    world.provider.on_probe.extend([ProviderRejected(Cause.BAD_KEY)] * 50)
    world.announcer.on_tell_owner.extend([False, False])
    await world.ask()
    await world.engine.run_due()
    if died:
        world.reborn()
    assert world.announcer.told == []

    await pass_by(world, 3600)

    assert world.announcer.told == [("makevid", Cause.BAD_KEY)]


async def test_what_is_over_stays_over(store: Store, clock: Clock) -> None:
    """The owner's message took long: meanwhile another process found that the route works again, or is in trouble anew."""
    here, there = Health(store, now=clock.now), Health(store, now=clock.now)
    trouble = await here.failed("makevid", ProviderRejected(Cause.BAD_KEY))
    assert trouble
    await there.refresh()
    await there.works_again("makevid")

    await here.told("makevid", trouble)
    await here.refresh()
    assert here.trouble("makevid") is None

    clock.pass_by(minutes=1)
    anew = await there.failed("makevid", ProviderRejected(Cause.NO_CREDIT))
    await here.refresh()
    await here.told("makevid", trouble)
    await there.refresh()
    assert there.trouble("makevid") == anew


async def test_a_probe_and_a_message_at_the_same_time(store: Store, clock: Clock) -> None:
    """Of two that change a note, none undoes what the other wrote."""
    here, there = Health(store, now=clock.now), Health(store, now=clock.now)
    trouble = await here.failed("makevid", ProviderRejected(Cause.BAD_KEY))
    assert trouble
    await there.refresh()
    await there.tried("makevid", ProviderRejected(Cause.BAD_KEY))

    await here.told("makevid", trouble)

    await there.refresh()
    found = there.trouble("makevid")
    assert found
    assert (found.tries, found.told) == (1, True)


async def test_an_empty_account_is_asked_for_its_balance(world: World) -> None:
    """A good key is not enough: as long as nothing is left there, nothing is submitted."""
    world.provider.on_submit.extend([ProviderRejected(Cause.NO_CREDIT)] * 2)
    empty, filled = Balance(amount=0, unit="credits"), Balance(amount=500, unit="credits")
    world.provider.on_probe.extend([empty, empty, filled])
    _, _, waiting = await ask_in_turn(world, 3)
    await world.engine.run_due()

    await pass_by(world, 600)
    assert (await world.now(waiting)).state is State.QUEUED
    assert world.provider.probes == 1
    await pass_by(world, 3600)

    assert world.provider.probes == 3
    assert (await world.now(waiting)).state is State.DELIVERED


@pytest.mark.parametrize("error", [AWAY, ProviderUnsure(Cause.NO_ANSWER)], ids=["away", "no answer"])
async def test_a_route_that_does_not_answer_is_left_alone(world: World, error: Exception) -> None:
    """Three times in a row: from then on it is asked something free, until it answers."""
    world.provider.on_submit.extend([error] * 4)
    world.provider.on_probe.extend([error, error])
    await ask_in_turn(world, 6)

    await world.engine.run_due()
    await pass_by(world, 20)
    assert world.announcer.told == [("makevid", Cause.NO_ANSWER)]
    with pytest.raises(
        Refusal, match=r"Kling is not answering\. Please try again later\. Nothing was charged\."
    ):
        world.desk.plan(PICTURE)
    submits = len(world.provider.submits)
    await pass_by(world, 50)
    assert len(world.provider.submits) == submits
    await pass_by(world, 600)

    assert world.provider.probes == 3
    assert len(world.provider.submits) > submits
    world.desk.plan(PICTURE)


async def test_lost_answers_among_good_ones_are_no_trouble(world: World) -> None:
    """Only in a row."""
    for _ in range(4):
        world.provider.on_check.extend([ProviderUnsure(Cause.NO_ANSWER)] * 2 + [StillRendering()])
        await world.ask()
        await pass_by(world, 200)

    assert world.announcer.told == []
    assert world.provider.probes == 0


async def test_polls_that_work_again_close_the_circuit(world: World) -> None:
    """The clips under way are asked for all the time; one good answer is proof enough."""
    world.provider.on_check.extend([ProviderUnsure(Cause.NO_ANSWER)] * 3)
    job = await world.ask()
    await world.engine.run_due()

    await pass_by(world, 300)

    assert world.announcer.told == [("makevid", Cause.NO_ANSWER)]
    assert (await world.now(job)).state is State.DELIVERED
    world.desk.plan(PICTURE)


async def test_other_processes_learn_of_it(world: World) -> None:
    """And a process that starts later too: it is in the database."""
    world.provider.on_submit.append(ProviderRejected(Cause.BAD_KEY))
    await world.ask()
    await world.engine.run_due()

    other = Health(world.store, now=world.clock.now)
    assert other.trouble("makevid") is None
    await other.refresh()

    trouble = other.trouble("makevid")
    assert trouble
    assert trouble.cause is Cause.BAD_KEY
    assert await other.failed("makevid", ProviderRejected(Cause.BAD_KEY)) is None


# Another way to the same model


@pytest.fixture
def spare(store: Store, clock: Clock, tmp_path: Path) -> World:
    """Kling on two routes: a gateway, which wants pictures first, and the vendor's own while that is down."""
    gateway, vendor, announcer = UploadingProvider(), ScriptedProvider(), NotingAnnouncer()
    models = make_menu().models
    kling = replace(models["kling"], fallback=Way(route="vendor", variant="kling-v2"))
    menu = Menu(models={"kling": kling, "runway": models["runway"]}, default="kling")
    health = Health(store, now=clock.now)
    engine = Engine(
        store=store,
        providers={"makevid": gateway, "vendor": vendor},
        menu=menu,
        announcer=announcer,
        now=clock.now,
        worker="worker-1",
        folder=tmp_path / "clips",
        slots=lambda _route: 2,
        health=health,
        monotonic=lambda: clock.at.timestamp(),
    )
    desk = Desk(
        store=store,
        menu=menu,
        limits=Limits(per_member=9, in_all=20),
        health=health,
        announcer=announcer,
        wake=engine.wake,
        now=clock.now,
    )
    world = World(store, gateway, announcer, engine, desk, clock, tmp_path / "clips")
    world.vendor = vendor
    return world


async def test_jobs_go_the_other_way_and_new_ones_come_back(spare: World) -> None:
    """The refused job itself is not lost: nothing was sent that could cost. Later the first route is taken again."""
    spare.provider.on_submit.append(ProviderRejected(Cause.NO_CREDIT))
    job = await spare.ask()
    await spare.engine.run_due()
    await pass_by(spare, 20)

    done = await spare.now(job)
    assert (done.state, done.route, done.variant) == (State.DELIVERED, "vendor", "kling-v2")
    assert len(spare.vendor.submits) == 1
    assert spare.vendor.submits[0].variant == "kling-v2"
    assert await spare.store.money(job.id) == {"reserve": 35, "charge": 35}

    await pass_by(spare, 600)
    again = await spare.ask()
    await spare.engine.run_due()
    assert (await spare.now(again)).route == "makevid"


async def test_a_job_whose_upload_was_refused_goes_the_other_way(spare: World) -> None:
    """The key is the owner's to mend; no attempt was begun with it."""
    assert isinstance(spare.provider, UploadingProvider)
    spare.provider.on_upload.append(ProviderRejected(Cause.BAD_KEY))
    job = await spare.ask()
    await spare.engine.run_due()
    await pass_by(spare, 20)

    done = await spare.now(job)
    assert (done.state, done.route, done.attempt) == (State.DELIVERED, "vendor", 1)
    assert spare.provider.submits == []
    assert spare.announcer.told == [("makevid", Cause.BAD_KEY)]


async def test_a_lost_answer_is_never_sent_the_other_way(spare: World) -> None:
    """The first route may have taken it: only a person may risk to pay twice."""
    spare.provider.on_submit.extend([ProviderUnsure(Cause.NO_ANSWER)] * 3)
    spare.provider.on_probe.extend([ProviderUnsure(Cause.NO_ANSWER)] * 50)
    jobs = await ask_in_turn(spare, 3)

    await spare.engine.run_due()
    jobs += await ask_in_turn(spare, 1)
    await pass_by(spare, 100)

    states = [(await spare.now(job)).state for job in jobs]
    assert states == [State.UNSURE] * 3 + [State.DELIVERED]
    assert len(spare.vendor.submits) == 1


async def test_what_was_looked_up_in_vain_stays_on_its_route(spare: World) -> None:
    """A route may be slow to know what it took: it refuses the same reference twice, another route would not."""
    finding = FindingProvider()
    spare.engine._providers["makevid"] = finding  # type: ignore[index]
    finding.on_submit.extend([ProviderUnsure(Cause.NO_ANSWER), ProviderRejected(Cause.NO_CREDIT), AWAY])
    finding.on_probe.extend([ProviderRejected(Cause.NO_CREDIT)] * 2)
    job = await spare.ask()
    await spare.engine.run_due()
    await spare.ask(asker=3)
    await pass_by(spare, 100)  # looked up, not there; meanwhile the account is found to be empty
    assert (await spare.now(job)).state is State.QUEUED
    assert len(spare.vendor.submits) == 1

    await pass_by(spare, 3600)

    done = await spare.now(job)
    assert (done.state, done.route) == (State.DELIVERED, "makevid")
    mine = [request.reference for request in finding.submits if request.reference.startswith(job.id)]
    assert set(mine) == {f"{job.id}-1"}
    assert len(spare.vendor.submits) == 1


async def restart_without(world: World, route: str) -> None:
    """The owner took a route out of the config, and its models go by what is left."""
    await world.engine.hand_back()
    old = world.engine
    world.engine = Engine(
        store=world.store,
        providers={name: provider for name, provider in old._providers.items() if name != route},
        menu=old._menu,
        announcer=world.announcer,
        now=world.clock.now,
        worker="worker-2",
        folder=world.folder,
        slots=lambda _route: 2,
        health=Health(world.store, now=world.clock.now),
        monotonic=lambda: world.clock.at.timestamp(),
    )


async def test_what_waits_for_a_route_that_is_gone_goes_the_other_way(spare: World) -> None:
    """Nobody stays in a line that nothing serves; what has no other way stays there, for the route may come back."""
    kling, runway = await spare.ask(), await spare.ask(asker=3, model="runway")
    await restart_without(spare, "makevid")

    await pass_by(spare, 60)

    done = await spare.now(kling)
    assert (done.state, done.route) == (State.DELIVERED, "vendor")
    assert spare.provider.submits == []
    assert (await spare.now(runway)).state is State.QUEUED


async def test_what_is_being_made_on_a_route_that_is_gone_waits_for_it(spare: World) -> None:
    """It is paid: asked for, in vain and without alarm, until the route comes back."""
    spare.provider.on_check.extend([StillRendering()] * 3)
    job = await spare.ask()
    await spare.engine.run_due()
    providers = dict(spare.engine._providers)
    await restart_without(spare, "makevid")

    with capture_logs() as logs:
        await pass_by(spare, 3600)

    assert (await spare.now(job)).state is State.RENDERING
    assert spare.announcer.told == []
    assert [entry for entry in logs if entry["log_level"] == "error"] == []
    spare.engine._providers = providers
    await pass_by(spare, 3600)
    assert (await spare.now(job)).state is State.DELIVERED
    assert len(spare.provider.submits) == 1


async def test_members_are_offered_what_still_answers(spare: World) -> None:
    """Kling has its other way; Runway, which has none, is refused with Kling named instead."""
    spare.provider.on_submit.append(ProviderRejected(Cause.BAD_KEY))
    await spare.ask()
    await spare.engine.run_due()

    spare.desk.plan(PICTURE)
    with pytest.raises(Refusal, match="You can have this from Kling: choose another `model`"):
        spare.desk.plan(replace(PICTURE, model="runway"))


def test_members_are_offered_what_both_ways_can_do() -> None:
    """The stricter of all rules."""
    other = Capabilities(
        seconds=(5,),
        qualities=("pro",),
        prompt_length=500,
        by_link=True,
        picture=PictureRules(max_bytes=1000, min_side=300),
    )

    both = common(KLING, other)

    assert (both.seconds, both.qualities, both.ratios) == ((5,), ("pro",), ())
    assert (both.prompt_length, both.negative_prompt, both.end_picture) == (500, 0, False)
    assert both.by_link
    assert (both.picture.max_bytes, both.picture.min_side) == (1000, 300)


def test_two_ways_without_a_common_length_are_a_mistake() -> None:
    """Found at the start, in words."""
    with pytest.raises(ValueError, match="no seconds in common"):
        common(RUNWAY, replace(RUNWAY, seconds=(8,)))
