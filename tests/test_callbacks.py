"""Callbacks are hints: they make us ask sooner, and change nothing else."""

from collections.abc import AsyncIterator, Mapping
from pathlib import Path

import aiohttp
import pytest

from bot.callbacks import LARGEST_CALLBACK, Callbacks, shared_secret
from bot.jobs.machine import State, StillRendering
from bot.jobs.store import Store
from tests.conftest import Clock
from tests.jobs.world import ScriptedProvider, World, make_world


class HearingProvider(ScriptedProvider):
    """One whose callbacks are signed with a word in a header."""

    def __init__(self) -> None:
        super().__init__()
        self.heard: list[bytes] = []

    def hear(self, headers: Mapping[str, str], body: bytes) -> str | None:
        self.heard.append(body)
        return body.decode() if headers.get("Signature") == "good" else None


@pytest.fixture
def provider() -> HearingProvider:
    return HearingProvider()


@pytest.fixture
def world(store: Store, clock: Clock, tmp_path: Path, provider: HearingProvider) -> World:
    return make_world(store, clock, tmp_path / "clips", provider=provider)


@pytest.fixture
async def callbacks(world: World, provider: HearingProvider) -> AsyncIterator[Callbacks]:
    """Listening on loopback, and known to the engine."""
    callbacks = Callbacks(
        public_url="http://replaced.invalid",
        secret=await shared_secret(world.store),
        providers={"makevid": provider, "deaf": ScriptedProvider()},
        hint=world.engine.hint,
    )
    async with callbacks.serve("127.0.0.1", 0) as port:
        callbacks._public_url = f"http://127.0.0.1:{port}"
        world.engine.callback = callbacks.address
        yield callbacks


async def call(address: str | None, body: bytes = b"task-1", signature: str = "good") -> int:
    assert address
    async with (
        aiohttp.ClientSession() as session,
        session.post(address, data=body, headers={"Signature": signature}) as response,
    ):
        return response.status


async def rendering(world: World) -> str:
    """A job that was just asked for, and is not done; the address that its provider was given."""
    world.provider.on_check.append(StillRendering())
    await world.ask()
    await world.engine.run_due()
    world.clock.pass_by(seconds=10)
    await world.engine.run_due()
    assert len(world.provider.checks) == 1
    address = world.provider.submits[0].callback
    assert address
    return address


async def test_a_callback_makes_us_ask_as_soon_as_we_may(world: World, callbacks: Callbacks) -> None:
    """Not before the model's least gap is over, and the clip is there."""
    address = await rendering(world)

    assert await call(address) == 204
    await world.engine.run_due()
    assert len(world.provider.checks) == 1
    world.clock.pass_by(seconds=5)
    await world.engine.run_due()

    assert len(world.provider.checks) == 2
    [job] = await world.store.open_jobs(State)
    assert job.state is State.DELIVERED


async def test_replays_cost_no_more_than_the_least_gap(world: World, callbacks: Callbacks) -> None:
    """A hundred callbacks in a minute: as many polls as the gap of five seconds allows."""
    address = await rendering(world)
    world.provider.on_check.extend([StillRendering()] * 100)

    for _ in range(20):
        for _ in range(5):
            await call(address)
        world.clock.pass_by(seconds=3)
        await world.engine.run_due()

    assert len(world.provider.checks) <= 1 + 60 / 5
    [job] = await world.store.open_jobs()
    assert job.state is State.RENDERING


async def test_forgeries_change_nothing(
    world: World, callbacks: Callbacks, provider: HearingProvider
) -> None:
    """A wrong mark is not even read; a wrong signature, or another method, is not believed."""
    address = await rendering(world)
    other = address.replace("makevid", "deaf")

    assert await call(address[:-1] + ("0" if address[-1] != "0" else "1")) == 404
    assert await call(other) == 404
    assert await call(address.rsplit("/", 1)[0] + "/é") == 404
    assert provider.heard == []
    assert await call(address, signature="bad") == 400
    assert await call(address, b"x" * (LARGEST_CALLBACK + 1)) == 413
    async with aiohttp.ClientSession() as session, session.get(address) as response:
        assert response.status == 405
    world.clock.pass_by(seconds=6)
    await world.engine.run_due()

    assert len(world.provider.checks) == 1


async def test_a_callback_for_a_job_that_has_ended_changes_nothing(
    world: World, callbacks: Callbacks
) -> None:
    """Doubled, or late: the clip is delivered once."""
    address = await rendering(world)
    await call(address)
    world.clock.pass_by(seconds=5)
    await world.engine.run_due()
    checks = len(world.provider.checks)

    assert await call(address) == 204
    world.clock.pass_by(minutes=5)
    await world.engine.run_due()

    assert len(world.provider.checks) == checks
    assert len(world.announcer.posts) == 1


async def test_all_processes_give_the_same_addresses(store: Store, callbacks: Callbacks) -> None:
    """The secret is made once for a database; another database has another."""
    assert await shared_secret(store) == await shared_secret(store)
    first = callbacks.address("makevid", "job-1")
    assert first == callbacks.address("makevid", "job-1") != callbacks.address("makevid", "job-2")
    assert callbacks.address("deaf", "job-1") is None
