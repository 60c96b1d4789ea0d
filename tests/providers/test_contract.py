"""Every route against the one contract; see `contract.py`. The table is printed at the end of the run."""

import asyncio
import socket
from collections.abc import AsyncIterator, Iterator
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from structlog.testing import capture_logs

from bot.errors import Cause, ProviderBusy, ProviderError, ProviderRejected, ProviderUnsure
from bot.jobs.announcing import Ours, Pictures, Waiting
from bot.jobs.engine import Engine
from bot.jobs.health import FOR_THE_OWNER, Health
from bot.jobs.machine import Absent, Accepted, Broke, CardPosted, Charge, Job, Ready, State, StillRendering
from bot.jobs.models import Menu, Model
from bot.jobs.store import open_store
from bot.providers.base import (
    Balance,
    ChecksMany,
    ClipRequest,
    FindsByReference,
    HearsCallbacks,
    Provider,
    Uploads,
)
from bot.ui import cards
from bot.ui.answer import MONEY
from tests.conftest import Clock, new_sqlite
from tests.jobs.world import PATIENCE, NotingAnnouncer
from tests.providers.contract import (
    BATCH,
    CALLBACK,
    CONTRACT,
    LOOK_UP,
    UPLOAD,
    Case,
    Expect,
    Rig,
    Stage,
    all_rigs,
    paid,
    setup_for,
    until_ready,
)
from tests.ui.test_cards import texts

RIGS = all_rigs()


def happening(
    *cases: Case, stages: tuple[Stage, ...] = (), once_a_route: bool = False
) -> pytest.MarkDecorator:
    """Runs a test for each rig with each of the cases, or those of the stages, that can happen there.

    `once_a_route`: only on the first of a route's rigs where it can.
    """
    runs = {
        (rig.name.partition(":")[0] if once_a_route else rig.name, case): pytest.param(
            rig, case, id=f"{rig.name}-{case.name}"
        )
        for rig in reversed(RIGS)
        for case in Case
        if (case in cases or rig.expected(case).stage in stages) and not rig.reason_lacking(case)
    }
    return pytest.mark.parametrize(("kind", "case"), list(runs.values()))


@pytest.fixture
async def rig(
    kind: type[Rig], case: Case, clip: bytes, http: aiohttp.ClientSession, tmp_path: Path
) -> AsyncIterator[Rig]:
    """The route's server, and a look at the end that no secret got into an exception or a log."""
    folder = tmp_path / "rig"
    folder.mkdir()
    async with kind.open(clip, http, folder) as opened:
        with capture_logs() as logs:
            yield opened
        written = str(logs)
        assert [secret for secret in opened.secrets if secret in written] == []


@pytest.fixture
def closed_port() -> Iterator[int]:
    """A port on which nobody listens, and nobody else will meanwhile."""
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]


@pytest.fixture
async def provider(
    rig: Rig, case: Case, closed_port: int, request: pytest.FixtureRequest
) -> AsyncIterator[Provider]:
    if case is Case.CLIP_REDIRECTED:
        request.getfixturevalue("loopback_is_the_internet")
    made = rig.provider(setup_for(case, rig, closed_port))
    yield made
    await made.aclose()


def see(rig: Rig, expect: Expect, case: Case, outcome: object) -> None:
    """That an outcome, or an exception, is what the contract wants."""
    if isinstance(outcome, ProviderError):
        assert isinstance(outcome, expect.raises), f"{case.name}: {type(outcome).__name__}: {outcome}"
        assert expect.cause in (None, outcome.cause)
        shown = _chain(outcome)
        assert [secret for secret in rig.secrets if secret in shown] == []
        if expect.pause and isinstance(outcome, ProviderBusy):
            assert outcome.retry_after == expect.pause
    else:
        assert isinstance(outcome, expect.gives or ()), f"{case.name}: {outcome}"
        if isinstance(outcome, Broke):
            assert outcome.cause is expect.cause
            assert outcome.charged in expect.charged


def _chain(error: BaseException | None) -> str:
    """What a log would show of an exception and those before it."""
    texts: list[str] = []
    while error is not None:
        texts += [repr(error), str(error)]
        error = error.__cause__ or (None if error.__suppress_context__ else error.__context__)
    return "\n".join(texts)


def count(rig: Rig, expect: Expect) -> None:
    assert rig.creates == expect.creates
    assert expect.tasks in (None, rig.tasks)


async def came_of(asked: Any) -> object:
    try:
        return await asked
    except ProviderError as error:
        return error


# The provider alone


@happening(stages=(Stage.UPLOAD,))
async def test_an_upload(rig: Rig, provider: Provider, case: Case) -> None:
    """It comes before the paid call: whatever goes wrong, nothing was made."""
    assert isinstance(provider, Uploads)
    rig.arrange(case)

    outcome = await came_of(provider.upload(rig.request("r-1", case)))

    see(rig, rig.expected(case), case, outcome)
    count(rig, rig.expected(case))


@happening(Case.UPLOADED)
async def test_an_upload_and_a_create(rig: Rig, provider: Provider, case: Case) -> None:
    """Uploading makes nothing, however often; then the create is the one call that the submit posts."""
    assert isinstance(provider, Uploads)
    request = rig.request("r-1", case)
    await provider.upload(request)
    ready = await provider.upload(request)
    assert (rig.creates, rig.tasks) == (0, 0)
    uploaded = rig.uploaded

    accepted = await provider.submit(ready)

    assert rig.uploaded == uploaded > 0
    await until_ready(rig, provider, accepted.task)
    count(rig, rig.expected(case))


@happening(stages=(Stage.CREATE,))
async def test_a_create(rig: Rig, provider: Provider, case: Case) -> None:
    """Only what proves that nothing was made is a refusal; whatever happens, the create goes out once."""
    if case is Case.RESET_REUSED:  # HTTP libraries like to repeat what such a connection loses
        await provider.probe()
    rig.arrange(case)

    outcome = await came_of(paid(provider, rig.request("r-1", case)))

    see(rig, rig.expected(case), case, outcome)
    count(rig, rig.expected(case))


@happening(stages=(Stage.CHECK,))
async def test_a_poll(rig: Rig, provider: Provider, case: Case) -> None:
    """A poll that goes wrong ends no job: the next one goes on. Unknown words are logged once."""
    expect = rig.expected(case)
    accepted = await paid(provider, rig.request("r-1", case))
    rig.arrange(case)

    with capture_logs() as logs:
        outcome = await came_of(provider.check(accepted.task))
        see(rig, expect, case, outcome)
        if case is Case.UNKNOWN_WORD:
            rig.arrange(case)
            see(rig, expect, case, await came_of(provider.check(accepted.task)))
            assert [rig.unclear in entry["event"] for entry in logs].count(True) == 1

    if expect.gives is StillRendering:
        await until_ready(rig, provider, accepted.task)
    assert [secret for secret in rig.secrets if secret in str(logs)] == []
    if case is Case.WAITS:
        assert isinstance(outcome, StillRendering)
        assert outcome.queued is True
    count(rig, expect)


@happening(stages=(Stage.FETCH,))
async def test_a_download(rig: Rig, provider: Provider, case: Case, tmp_path: Path) -> None:
    """A clip arrives whole or not at all, and a later try may work: the paid clip is not given up."""
    expect = rig.expected(case)
    accepted = await paid(provider, rig.request("r-1", case))
    ready = await until_ready(rig, provider, accepted.task)
    into = tmp_path / "clips" / "clip.mp4"
    into.parent.mkdir()
    rig.arrange(case)

    see(rig, expect, case, await came_of(provider.fetch(ready.clip_url, into)))
    assert list(into.parent.iterdir()) == []

    again = await until_ready(rig, provider, accepted.task)
    if case is Case.LINK_EXPIRED:
        assert again.clip_url != ready.clip_url
    await provider.fetch(again.clip_url, into)
    arrived(rig, into)
    count(rig, expect)


def arrived(rig: Rig, clip: Path) -> None:
    assert [path.name for path in clip.parent.iterdir()] == [clip.name]
    assert clip.read_bytes() == rig.clip if rig.clip is not None else clip.stat().st_size > 0


@happening(Case.CLIP)
async def test_a_clip(rig: Rig, provider: Provider, case: Case, tmp_path: Path) -> None:
    """From the request to the file; the task outlives the provider that made it."""
    rig.arrange(case)
    request = rig.request("r-1", case)
    assert request.variant in provider.variants
    accepted = await paid(provider, request)
    assert isinstance(await provider.check(accepted.task), StillRendering)

    rig.between_polls()
    ready = await until_ready(rig, provider, accepted.task)
    into = tmp_path / "clips" / "clip.mp4"
    into.parent.mkdir()
    await provider.fetch(ready.clip_url, into)

    arrived(rig, into)
    count(rig, rig.expected(case))


@happening(Case.CLIP_PRIVATE)
async def test_a_private_address(rig: Rig, provider: Provider, case: Case, tmp_path: Path) -> None:
    """A vendor's answer cannot make the bot ask its owner's own network."""
    accepted = await paid(provider, rig.request("r-1", case))
    ready = await until_ready(rig, provider, accepted.task)

    with pytest.raises(ProviderRejected) as caught:
        await provider.fetch(ready.clip_url, tmp_path / "clip.mp4")

    assert caught.value.cause is Cause.CLIP_UNUSABLE


@happening(Case.PROBED, Case.PROBED_BAD_KEY, Case.PROBED_NOBODY)
async def test_a_probe(rig: Rig, provider: Provider, case: Case) -> None:
    """A key is tried without paying."""
    rig.arrange(case)

    outcome = await came_of(provider.probe())

    if isinstance(outcome, ProviderError):
        see(rig, rig.expected(case), case, outcome)
    else:
        assert case is Case.PROBED
        assert outcome is None or isinstance(outcome, Balance)
    count(rig, rig.expected(case))


@pytest.mark.parametrize(("kind", "case"), [pytest.param(rig, Case.CLIP, id=rig.name) for rig in RIGS])
async def test_what_a_route_offers_is_in_the_contract(rig: Rig, provider: Provider) -> None:
    """Nothing that a provider offers goes untested, and no rig promises what is not there."""
    assert isinstance(provider, Uploads) is rig.uploads
    assert isinstance(provider, FindsByReference) is rig.finds
    assert isinstance(provider, ChecksMany) is rig.batches
    assert isinstance(provider, HearsCallbacks) is rig.hears
    assert not [
        case for case in (*UPLOAD, *LOOK_UP, *BATCH, *CALLBACK) if case in rig.lacks and not rig.lacks[case]
    ]


@happening(Case.FOUND, Case.ABSENT, Case.LOOK_UP_500)
async def test_a_look_up(rig: Rig, provider: Provider, case: Case) -> None:
    """After a lost answer our reference tells whether the task is there; silence is not absence."""
    assert isinstance(provider, FindsByReference)
    request = rig.request("r-1", case)
    rig.arrange(Case.FOUND if case is Case.LOOK_UP_500 else case)
    with pytest.raises(ProviderUnsure):
        await paid(provider, request)
    if case is Case.LOOK_UP_500:
        rig.arrange(case)
        with pytest.raises(ProviderError):
            await provider.find(request.reference)

    found = await provider.find(request.reference)

    if case is Case.ABSENT:
        assert isinstance(found, Absent)
        found = await paid(provider, request)
    assert isinstance(found, Accepted)
    await until_ready(rig, provider, found.task)
    count(rig, rig.expected(case))


@happening(Case.TWICE)
async def test_the_same_reference_twice(rig: Rig, provider: Provider, case: Case) -> None:
    """A second create under one reference makes, and costs, nothing more."""
    assert isinstance(provider, FindsByReference)
    request = rig.request("r-1", case)
    first = await paid(provider, request)

    second = await came_of(paid(provider, request))

    if isinstance(second, ProviderUnsure):
        second = await provider.find(request.reference)
    assert second == first
    count(rig, rig.expected(case))


@happening(Case.MANY, Case.MANY_500)
async def test_a_batch(rig: Rig, provider: Provider, case: Case) -> None:
    """Many tasks in one question; one that is not known is left out, and none is thereby failed."""
    assert isinstance(provider, ChecksMany)
    assert provider.most_checks >= 2
    tasks = [(await paid(provider, rig.request(name, case))).task for name in ("r-1", "r-2")]
    rig.arrange(case)
    if case is Case.MANY_500:
        with pytest.raises(ProviderError):
            await provider.check_many(tasks)

    answers = await provider.check_many([*tasks, rig.unknown_task])

    assert set(answers) <= set(tasks)
    assert set(map(type, answers.values())) <= {StillRendering, Ready}
    for task in tasks:
        await until_ready(rig, provider, task)
    assert set(map(type, (await provider.check_many(tasks)).values())) == {Ready}
    count(rig, rig.expected(case))


@happening(*CALLBACK)
async def test_a_callback(rig: Rig, provider: Provider, case: Case) -> None:
    """A callback is a hint at most; what is not genuine, or no longer, says nothing."""
    assert isinstance(provider, HearsCallbacks)
    accepted = await paid(provider, rig.request("r-1", case))
    headers, body = rig.callback(accepted.task, case)

    heard = provider.hear(headers, body)

    match case:
        case Case.HEARD:
            assert heard == accepted.task
            assert provider.hear(headers, b"\xff{") is None
        case Case.REPLAYED:
            assert heard == accepted.task
            assert provider.hear(headers, body) in (accepted.task, None)
        case _:
            assert heard is None
    assert isinstance(await provider.check(accepted.task), StillRendering)
    count(rig, rig.expected(case))


# With the real engine, for what the member reads: once a route, whose other rigs raise and return the same


@dataclass
class Board(NotingAnnouncer):
    """Keeps the cards and posts, and gives the pictures of a request."""

    request: ClipRequest | None = None
    clip: bytes | None = None

    async def pictures(self, job: Job) -> Pictures:
        assert self.request
        return Pictures(first=self.request.picture, last=self.request.end_picture)

    async def post(self, job: Job, clip: Path, pictures: Pictures, ours: Ours) -> int:
        assert self.clip in (None, clip.read_bytes())
        self.posts.append(job.id)
        return 2000 + len(self.posts)


@dataclass
class Run:
    """One job on its way through the real engine and a real database."""

    rig: Rig
    engine: Engine
    board: Board
    menu: Menu
    clock: Clock
    job_id: str
    store: Any

    async def job(self) -> Job:
        found = await self.store.get(self.job_id)
        assert found
        return found

    async def rounds(self, most: int, *until: State) -> Job:
        for _ in range(most):
            await self.engine.run_due()
            self.rig.between_polls()
            if (await self.job()).state in until:
                break
            self.clock.pass_by(seconds=60)
        return await self.job()

    def card(self) -> str:
        job, waiting = self.board.cards[self.job_id]
        return texts(cards.card(job, self.menu, waiting))


@pytest.fixture
async def run(rig: Rig, provider: Provider, case: Case, clock: Clock, tmp_path: Path) -> AsyncIterator[Run]:
    request = rig.request("", case)
    can = provider.variants[request.variant]
    model = Model(
        name="model",
        label="Model",
        route="route",
        variant=request.variant,
        can=can,
        price_cents=lambda *_: 35,
    )
    menu = Menu(models={"model": model}, default="model")
    board = Board(request=request, clip=rig.clip)
    async with open_store(new_sqlite(tmp_path / "jobs.db"), database_clock=False) as store:
        job = Job(
            id="01contract",
            created_at=clock.now(),
            changed_at=clock.now(),
            channel_id=10,
            asker_id=2,
            model="model",
            route="route",
            variant=request.variant,
            prompt=request.prompt,
            seconds=request.seconds,
            quality=request.quality,
            ratio=request.ratio,
            camera=request.camera,
            picture_file="picture.png" if request.picture else None,
            price_cents=35,
        )
        await store.add(job, lambda _load: None)
        queued = await store.advance(job, CardPosted(1001), clock.now())
        assert queued
        board.cards[job.id] = (queued, Waiting())
        engine = Engine(
            store=store,
            providers={"route": provider},
            menu=menu,
            announcer=board,
            now=clock.now,
            worker="worker-1",
            folder=tmp_path / "clips",
            slots=lambda _route: 2,
            health=Health(store, now=clock.now),
            stale=timedelta(minutes=10),  # so that few rounds are spent on sweeps
            monotonic=lambda: clock.at.timestamp(),
        )
        yield Run(rig, engine, board, menu, clock, job.id, store)


ENDS = (State.DELIVERED, State.FAILED, State.UNDELIVERABLE)


@happening(stages=(Stage.CREATE,), once_a_route=True)
async def test_what_the_member_reads_after_a_create(run: Run, rig: Rig, case: Case) -> None:
    """The card says why, and whether it cost anything; the engine pays once, or says that nobody knows."""
    expect = rig.expected(case)
    rig.arrange(case)

    job = await run.rounds(1, *ENDS)

    assert rig.creates == expect.creates
    shown = run.card()
    if expect.gives is Accepted:
        job = await run.rounds(20, *ENDS)
        assert (job.state, job.charge) == (State.DELIVERED, Charge.CHARGED)
        assert (rig.creates, rig.tasks) == (expect.creates, 1)
    elif ProviderBusy in expect.raises:
        assert (job.state, job.cause) == (State.QUEUED, Cause.BUSY)
        assert "The provider is busy; I try again by myself. Nothing is charged until it starts." in shown
        if case is not Case.NOT_CONNECTED:
            job = await run.rounds(40, *ENDS)
            assert (job.state, rig.creates, rig.tasks) == (State.DELIVERED, 2, 1)
    elif ProviderRejected in expect.raises:
        assert expect.cause
        assert (job.state, job.cause, job.charge) == (State.FAILED, expect.cause, Charge.NONE)
        assert f"{cards.WHY[expect.cause]} {MONEY[Charge.NONE]}" in shown
        assert run.board.told == ([("route", expect.cause)] if expect.cause in FOR_THE_OWNER else [])
    else:
        assert expect.cause
        assert (job.state, job.cause, job.charge) == (State.UNSURE, expect.cause, Charge.MAYBE)
        assert cards.WHY[expect.cause] in shown
        if rig.finds:
            assert "I am asking the provider whether it took the job." in shown
        if rig.finds and (rig.tasks or not rig.reason_lacking(Case.ABSENT)):
            job = await run.rounds(80, *ENDS)
            assert (job.state, job.owed, rig.tasks) == (State.DELIVERED, Charge.CHARGED, 1)
        else:
            job = await run.rounds(10, *ENDS)
            assert (job.state, rig.creates) == (State.UNSURE, 1)
            assert "This may have been charged; I will not pay twice by myself." in run.card()


@happening(stages=(Stage.UPLOAD,))
async def test_what_the_member_reads_after_an_upload(run: Run, rig: Rig, case: Case) -> None:
    """No attempt was begun and nothing is in doubt: it is refused, or made the next time."""
    expect = rig.expected(case)
    rig.arrange(case)

    job = await run.rounds(1, *ENDS)

    assert (rig.creates, job.attempt, job.reference) == (0, 0, None)
    if ProviderRejected in expect.raises:
        assert expect.cause
        assert (job.state, job.cause, job.charge) == (State.FAILED, expect.cause, Charge.NONE)
        assert f"{cards.WHY[expect.cause]} {MONEY[Charge.NONE]}" in run.card()
        assert run.board.told == [("route", expect.cause)]
    else:
        assert (job.state, job.cause) == (State.QUEUED, Cause.BUSY)
        assert "Nothing is charged until it starts." in run.card()
        job = await run.rounds(40, *ENDS)
        assert (job.state, job.attempt, rig.creates, rig.tasks) == (State.DELIVERED, 1, 1, 1)


@happening(Case.UPLOAD_STOPPED)
async def test_a_stop_during_the_upload(run: Run, rig: Rig, case: Case) -> None:
    """The grace is over before anything was paid: the job is in the line again, and nobody has to decide."""
    rig.arrange(case)
    running = asyncio.create_task(run.engine.run(grace=timedelta(0)))
    async with asyncio.timeout(PATIENCE):
        await rig.server.uploading.wait()

    run.engine.stop()
    await running

    job = await run.job()
    assert (job.state, job.attempt, job.not_before, job.stumbles) == (State.QUEUED, 0, None, 0)
    count(rig, rig.expected(case))


@happening(Case.CLIP, stages=(Stage.CHECK, Stage.FETCH), once_a_route=True)
async def test_what_the_member_reads_after_that(run: Run, rig: Rig, case: Case) -> None:
    """What goes wrong on the way of a paid clip costs nobody the clip; what ended is said, with the money."""
    expect = rig.expected(case)
    if expect.stage is Stage.CHECK:
        await run.engine.run_due()
    elif case is Case.LINK_EXPIRED:  # it expires while the first download is waited for
        rig.arrange(Case.CLIP_500)
        await run.rounds(20, State.POSTING)
    rig.arrange(case)

    job = await run.rounds(60, *ENDS)

    assert rig.creates == rig.tasks == 1
    if expect.gives is Broke:
        assert expect.cause
        assert (job.state, job.cause) == (State.FAILED, expect.cause)
        charge = {True: Charge.CHARGED, False: Charge.NONE, None: Charge.MAYBE}
        assert job.charge in [charge[each] for each in expect.charged]
        assert f"{cards.WHY[expect.cause]} {MONEY[job.charge]}" in run.card()
    else:
        assert (job.state, job.charge) == (State.DELIVERED, Charge.CHARGED)
        assert run.board.posts == [job.id]


def test_every_case_is_in_the_contract() -> None:
    """A case that nobody expects anything of, or a cause without a sentence, would be a row that says nothing."""
    assert CONTRACT.keys() == set(Case)
    assert {expect.cause for expect in CONTRACT.values()} - {None} <= cards.WHY.keys()
