"""What every route owes the engine: one list of cases, run against each route's loopback server.

A route joins with one file, `tests/providers/rigs/<route>.py`, found by itself. It holds one class for each
way in (a route with two APIs has two), and the class says how the route's server is told to misbehave:

    class KlingRig(Rig):
        name = "kling"
        uploads = finds = batches = hears = True  # what the provider offers besides; the contract then asks for it
        lacks: ClassVar = {Case.CANCELLED: "Kling cannot cancel"}   # what its API really does not have, and why
        knobs: ClassVar = USUAL | {Case.NO_CREDIT: knob(next_create="1102")}   # where it differs from the usual

        @classmethod
        @asynccontextmanager
        async def open(cls, clip, http, folder):
            async with KlingServer(clip=clip) as server:
                yield cls(server=server, http=http, folder=folder, clip=clip)

        def provider(self, setup):
            return Kling(http=self.http, settings=KlingSettings(
                api_key=SecretStr(setup.key or self.server.api_key),
                base_url=setup.address or self.server.base_url,
                request_timeout=setup.request_seconds,
                clip_timeout=setup.clip_seconds,
                clip_max_bytes=setup.clip_bytes,
            ), allow_private_addresses=setup.private)

        def request(self, reference, case):
            return ClipRequest(reference=reference, variant="kling-3.0", prompt="waves", seconds=5, picture=picture())

The server needs what `MakevidServer` has: `creates` (every create that arrived), `tasks` (what was made of
them), `next_create`, `next_poll`, `next_clip`, `next_upload`, `retry_after`, `fail_with`, `polls_until_done = 1`: the first
poll finds the clip being made, the second finds it done. Another shape is as good: then override `arrange`,
`creates` and `tasks`. `USUAL` has the faults by the names that MakevidServer gives them.

Where the vendor documents another answer, the rig says so: `expects = {Case.X: refused(Cause.BROKEN)}`.

    pytest -q tests/providers/test_contract.py -k kling

runs one route; the table at the end has a column for each rig. What must come out stands in `CONTRACT`;
each case is run twice: against the provider alone, and with the real engine and store, where the member's
card must carry the sentence of the cause and say what was charged.
"""

import importlib
import pkgutil
from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass, replace
from datetime import timedelta
from enum import Enum, StrEnum, auto
from pathlib import Path
from typing import Any, ClassVar, Self

import aiohttp

from bot.errors import Cause, ProviderBusy, ProviderError, ProviderRejected, ProviderUnsure
from bot.jobs.machine import Accepted, Broke, Ready, StillRendering
from bot.providers.base import ClipRequest, Provider, Uploads
from tests.providers import rigs


class Case(StrEnum):
    """What may happen. The values are the rows of the table."""

    CLIP = "a clip: accepted, rendering, ready, fetched"

    UPLOADED = "upload: twice is as good as once, and comes before the create"
    UPLOAD_BAD_KEY = "upload: the key is not known"
    UPLOAD_500 = "upload: 500"
    UPLOAD_RESET = "upload: reset"
    UPLOAD_STOPPED = "upload: we are stopped meanwhile"

    CREATED_201 = "create: 201 instead of 200"
    BUSY = "create: busy"
    BUSY_FOR_A_WHILE = "create: busy, and says for how long"
    MODERATED_AT_ONCE = "create: refused by moderation"
    NO_CREDIT = "create: out of credit"
    BAD_KEY = "create: the key is not known"
    NOT_ALLOWED = "create: the account may not"
    BAD_PICTURE = "create: the picture is refused"
    BAD_PARAMETERS = "create: the parameters are refused"
    WRONG_PATH = "create: there is no such path"
    REDIRECTED = "create: a redirect"
    NOT_CONNECTED = "create: nobody listens"
    RESET_BEFORE = "create: reset before acceptance"
    RESET_REUSED = "create: reset, on a connection that served before"
    RESET_AFTER = "create: reset after acceptance"
    CUT_SHORT = "create: the answer is cut short"
    SILENCE = "create: no answer"
    ERROR_500 = "create: 500"
    ERROR_503 = "create: 503"
    ERROR_504 = "create: 504"
    PAGE = "create: 200 with a web page"
    NO_ID = "create: 200 without a task"
    HUGE_ANSWER = "create: 200 with megabytes"
    KEY_REPEATED = "create: the refusal repeats the key"
    CLOCK_AHEAD = "create: our clock is ahead of the server's"
    CLOCK_BEHIND = "create: our clock is behind the server's"

    WAITS = "poll: it waits in the vendor's line"
    UNKNOWN_WORD = "poll: a status word that nobody knows"
    LATE_404 = "poll: a fresh task is not known yet"
    NO_LINK = "poll: success without a link"
    FAILED = "poll: the vendor could not make it"
    MODERATED_LATER = "poll: refused by moderation"
    CANCELLED = "poll: cancelled at the vendor's"
    POLL_500 = "poll: 500"
    POLL_503 = "poll: 503"
    POLL_BUSY = "poll: too many requests"
    POLL_PAGE = "poll: 200 with a web page"
    POLL_RESET = "poll: reset"
    POLL_SILENCE = "poll: no answer"
    POLL_BAD_KEY = "poll: the key is not known any more"

    LINK_EXPIRED = "clip: the link expired, a fresh one works"
    CLIP_500 = "clip: 500"
    CLIP_PAGE = "clip: 200 with a web page"
    CLIP_HUGE = "clip: larger than allowed, as announced"
    CLIP_ENDLESS = "clip: larger than allowed, without announcement"
    CLIP_TRUNCATED = "clip: truncated"
    CLIP_STUCK = "clip: half of it, then silence"
    CLIP_REDIRECTED = "clip: a redirect to a private address"
    CLIP_PRIVATE = "clip: a link to a private address"

    PROBED = "probe: a good key"
    PROBED_BAD_KEY = "probe: the key is not known"
    PROBED_NOBODY = "probe: nobody listens"

    FOUND = "look-up: a lost answer, the task is there"
    ABSENT = "look-up: a lost request, the task is not there"
    LOOK_UP_500 = "look-up: 500 is not absent"
    TWICE = "look-up: the same reference twice makes one task"

    MANY = "batch: two tasks, and one that is not known"
    MANY_500 = "batch: 500"

    HEARD = "callback: genuine"
    FORGED = "callback: forged"
    REPLAYED = "callback: replayed"
    TOO_OLD = "callback: too old"


class Stage(Enum):
    """When the trouble is arranged, and what is asked then."""

    UPLOAD = auto()
    CREATE = auto()
    CHECK = auto()
    FETCH = auto()
    APART = auto()  # has a test of its own


@dataclass(frozen=True, kw_only=True)
class Expect:
    """What must come out: `gives`, or one of `raises` with `cause`. `tasks`: what exists, and is paid, in the end."""

    stage: Stage
    gives: type | None = None
    raises: tuple[type[ProviderError], ...] = ()
    cause: Cause | None = None
    charged: tuple[bool | None, ...] = (True, False, None)
    pause: timedelta | None = None
    creates: int = 1
    tasks: int | None = 1

    def but(self, **changes: Any) -> "Expect":
        return replace(self, **changes)


def accepted() -> Expect:
    return Expect(stage=Stage.CREATE, gives=Accepted)


def refused(cause: Cause, *, creates: int = 1) -> Expect:
    """Surely not taken, for good."""
    return Expect(stage=Stage.CREATE, raises=(ProviderRejected,), cause=cause, creates=creates, tasks=0)


def not_uploaded(*kinds: type[ProviderError], cause: Cause | None = None) -> Expect:
    """Nothing was made, whatever became of the pictures."""
    return Expect(stage=Stage.UPLOAD, raises=kinds, cause=cause, creates=0, tasks=0)


def busy(pause: timedelta | None = None, *, creates: int = 1) -> Expect:
    """Surely not taken; later, by itself."""
    return Expect(
        stage=Stage.CREATE, raises=(ProviderBusy,), cause=Cause.BUSY, pause=pause, creates=creates, tasks=0
    )


def unsure(cause: Cause, *, tasks: int | None = None) -> Expect:
    """Nobody knows. `tasks` None: nor does the server."""
    return Expect(stage=Stage.CREATE, raises=(ProviderUnsure,), cause=cause, tasks=tasks)


def unanswered(cause: Cause | None = None) -> Expect:
    """No outcome of the job: the next poll tells."""
    return Expect(stage=Stage.CHECK, gives=StillRendering, raises=(ProviderError,), cause=cause)


def rendering() -> Expect:
    return Expect(stage=Stage.CHECK, gives=StillRendering)


def broke(cause: Cause, *charged: bool | None) -> Expect:
    """The job's end. `charged`: what the vendor documents; nothing: any."""
    return Expect(stage=Stage.CHECK, gives=Broke, cause=cause, charged=charged or (True, False, None))


def not_fetched(kind: type[ProviderError], cause: Cause) -> Expect:
    return Expect(stage=Stage.FETCH, raises=(kind,), cause=cause)


def apart(**changes: Any) -> Expect:
    return Expect(stage=Stage.APART).but(**changes)


CONTRACT: dict[Case, Expect] = {
    Case.CLIP: apart(),
    Case.UPLOADED: apart(),
    Case.UPLOAD_BAD_KEY: not_uploaded(ProviderRejected, cause=Cause.BAD_KEY),
    # Busy where another server than the route's own holds the pictures.
    Case.UPLOAD_500: not_uploaded(ProviderUnsure, ProviderBusy),
    Case.UPLOAD_RESET: not_uploaded(ProviderUnsure, ProviderBusy),
    Case.UPLOAD_STOPPED: apart(creates=0, tasks=0),
    Case.CREATED_201: accepted(),
    Case.BUSY: busy(),
    Case.BUSY_FOR_A_WHILE: busy(timedelta(seconds=40)),
    Case.MODERATED_AT_ONCE: refused(Cause.MODERATION),
    Case.NO_CREDIT: refused(Cause.NO_CREDIT),
    Case.BAD_KEY: refused(Cause.BAD_KEY),
    Case.NOT_ALLOWED: refused(Cause.NOT_ALLOWED),
    Case.BAD_PICTURE: refused(Cause.BAD_INPUT),
    Case.BAD_PARAMETERS: refused(Cause.BAD_INPUT),
    Case.WRONG_PATH: refused(Cause.BROKEN),
    Case.REDIRECTED: refused(Cause.BROKEN),
    Case.NOT_CONNECTED: busy(creates=0),
    Case.RESET_BEFORE: unsure(Cause.NO_ANSWER, tasks=0),
    Case.RESET_REUSED: unsure(Cause.NO_ANSWER, tasks=0),
    Case.RESET_AFTER: unsure(Cause.NO_ANSWER, tasks=1),
    Case.CUT_SHORT: unsure(Cause.NO_ANSWER, tasks=1),
    Case.SILENCE: unsure(Cause.NO_ANSWER, tasks=1),
    Case.ERROR_500: unsure(Cause.NO_ANSWER),
    Case.ERROR_503: unsure(Cause.NO_ANSWER),
    Case.ERROR_504: unsure(Cause.NO_ANSWER),
    Case.PAGE: unsure(Cause.UNREADABLE),
    Case.NO_ID: unsure(Cause.UNREADABLE),
    Case.HUGE_ANSWER: unsure(Cause.UNREADABLE),
    Case.KEY_REPEATED: refused(Cause.BAD_KEY),
    Case.CLOCK_AHEAD: accepted(),
    Case.CLOCK_BEHIND: accepted(),
    Case.WAITS: rendering(),
    Case.UNKNOWN_WORD: rendering(),
    Case.LATE_404: unanswered(),
    Case.NO_LINK: rendering(),
    Case.FAILED: broke(Cause.BROKEN),
    Case.MODERATED_LATER: broke(Cause.MODERATION),
    Case.CANCELLED: broke(Cause.BROKEN),
    Case.POLL_500: unanswered(),
    Case.POLL_503: unanswered(),
    Case.POLL_BUSY: unanswered(Cause.BUSY),
    Case.POLL_PAGE: unanswered(),
    Case.POLL_RESET: unanswered(Cause.NO_ANSWER),
    Case.POLL_SILENCE: unanswered(Cause.NO_ANSWER),
    Case.POLL_BAD_KEY: unanswered(Cause.BAD_KEY),
    Case.LINK_EXPIRED: not_fetched(ProviderRejected, Cause.CLIP_GONE),
    Case.CLIP_500: not_fetched(ProviderUnsure, Cause.NO_ANSWER),
    Case.CLIP_PAGE: not_fetched(ProviderRejected, Cause.CLIP_UNUSABLE),
    Case.CLIP_HUGE: not_fetched(ProviderRejected, Cause.CLIP_TOO_LARGE),
    Case.CLIP_ENDLESS: not_fetched(ProviderRejected, Cause.CLIP_TOO_LARGE),
    Case.CLIP_TRUNCATED: not_fetched(ProviderUnsure, Cause.NO_ANSWER),
    Case.CLIP_STUCK: not_fetched(ProviderUnsure, Cause.NO_ANSWER),
    Case.CLIP_REDIRECTED: not_fetched(ProviderRejected, Cause.CLIP_UNUSABLE),
    Case.CLIP_PRIVATE: apart(),
    Case.PROBED: apart(creates=0, tasks=0),
    Case.PROBED_BAD_KEY: apart(raises=(ProviderRejected,), cause=Cause.BAD_KEY, creates=0, tasks=0),
    Case.PROBED_NOBODY: apart(raises=(ProviderBusy,), cause=Cause.BUSY, creates=0, tasks=0),
    **dict.fromkeys((Case.FOUND, Case.LOOK_UP_500), apart()),
    Case.ABSENT: apart(creates=2),
    Case.TWICE: apart(creates=2),
    **dict.fromkeys((Case.MANY, Case.MANY_500), apart(creates=2, tasks=2)),
    **dict.fromkeys((Case.HEARD, Case.FORGED, Case.REPLAYED, Case.TOO_OLD), apart()),
}

UPLOAD = (Case.UPLOADED, Case.UPLOAD_BAD_KEY, Case.UPLOAD_500, Case.UPLOAD_RESET, Case.UPLOAD_STOPPED)
LOOK_UP = (Case.FOUND, Case.ABSENT, Case.LOOK_UP_500, Case.TWICE)
BATCH = (Case.MANY, Case.MANY_500)
CALLBACK = (Case.HEARD, Case.FORGED, Case.REPLAYED, Case.TOO_OLD)

Knob = Callable[[Any], None]


def knob(**changes: Any) -> Knob:
    """Sets these attributes of the server."""

    def turn(server: Any) -> None:
        for name, value in changes.items():
            assert hasattr(server, name), f"the server has no {name}"
            setattr(server, name, value)

    return turn


def nothing(server: Any) -> None:
    """Needs no arranging: the setup, or the request, brings the case about."""


USUAL: dict[Case, Knob] = {
    **dict.fromkeys((Case.CLIP, Case.BAD_KEY, Case.NOT_CONNECTED), nothing),
    **dict.fromkeys((Case.PROBED, Case.PROBED_BAD_KEY, Case.PROBED_NOBODY), nothing),
    **dict.fromkeys((Case.MANY, Case.TWICE, Case.CLIP_PRIVATE, *CALLBACK), nothing),
    **dict.fromkeys((Case.UPLOADED, Case.UPLOAD_BAD_KEY), nothing),
    Case.UPLOAD_500: knob(next_upload="500"),
    Case.UPLOAD_RESET: knob(next_upload="reset"),
    Case.UPLOAD_STOPPED: knob(next_upload="never"),
    Case.CREATED_201: knob(next_create="created"),
    Case.BUSY: knob(next_create="429"),
    Case.BUSY_FOR_A_WHILE: knob(next_create="429", retry_after="40"),
    Case.NO_CREDIT: knob(next_create="402"),
    Case.NOT_ALLOWED: knob(next_create="403"),
    Case.BAD_PICTURE: knob(next_create="400"),
    Case.BAD_PARAMETERS: knob(next_create="400"),
    Case.WRONG_PATH: knob(next_create="404"),
    Case.REDIRECTED: knob(next_create="redirect"),
    **dict.fromkeys((Case.RESET_BEFORE, Case.RESET_REUSED, Case.ABSENT), knob(next_create="reset_before")),
    **dict.fromkeys((Case.RESET_AFTER, Case.FOUND), knob(next_create="reset_after")),
    Case.CUT_SHORT: knob(next_create="cut_short"),
    Case.SILENCE: knob(next_create="never"),
    Case.ERROR_500: knob(next_create="500"),
    Case.ERROR_503: knob(next_create="503"),
    Case.ERROR_504: knob(next_create="504"),
    Case.PAGE: knob(next_create="html"),
    Case.NO_ID: knob(next_create="no_id"),
    Case.HUGE_ANSWER: knob(next_create="huge"),
    Case.KEY_REPEATED: knob(next_create="echo_key"),
    Case.UNKNOWN_WORD: knob(next_poll="unknown_word"),
    Case.LATE_404: knob(next_poll="404"),
    Case.NO_LINK: knob(next_poll="no_link", polls_until_done=0),
    Case.FAILED: knob(fail_with="internal error", polls_until_done=0),
    Case.MODERATED_LATER: knob(fail_with="content moderation failed", polls_until_done=0),
    **dict.fromkeys((Case.POLL_500, Case.LOOK_UP_500, Case.MANY_500), knob(next_poll="500")),
    Case.POLL_503: knob(next_poll="503"),
    Case.POLL_BUSY: knob(next_poll="429"),
    Case.POLL_PAGE: knob(next_poll="html"),
    Case.POLL_RESET: knob(next_poll="reset"),
    Case.POLL_SILENCE: knob(next_poll="never"),
    Case.POLL_BAD_KEY: knob(next_poll="401"),
    Case.LINK_EXPIRED: lambda server: server.expire_links(),
    Case.CLIP_500: knob(next_clip="500"),
    Case.CLIP_PAGE: knob(next_clip="html"),
    Case.CLIP_HUGE: knob(next_clip="huge"),
    Case.CLIP_ENDLESS: knob(next_clip="endless"),
    Case.CLIP_TRUNCATED: knob(next_clip="truncated"),
    Case.CLIP_STUCK: knob(next_clip="stuck"),
    Case.CLIP_REDIRECTED: knob(next_clip="redirect_private"),
}


@dataclass(frozen=True, kw_only=True)
class Setup:
    """How the contract wants the provider; a rig fills its settings from it. None: the server's own."""

    key: str | None = None
    address: str | None = None
    request_seconds: float = 30
    clip_seconds: float = 30
    clip_bytes: int = 20_000_000
    private: bool = True


class Rig(ABC):
    """One way in to one route, with its loopback server. See the top of this file.

    `secrets` are texts that no exception and no log may hold: the keys, and what signs the clips' links.
    """

    name: ClassVar[str]
    lacks: ClassVar[Mapping[Case, str]] = {}
    expects: ClassVar[Mapping[Case, Expect]] = {}
    knobs: ClassVar[Mapping[Case, Knob]] = USUAL
    uploads: ClassVar[bool] = False
    finds: ClassVar[bool] = False
    batches: ClassVar[bool] = False
    hears: ClassVar[bool] = False
    bad_key: ClassVar[str] = "another-key-that-nobody-knows"
    unknown_task: ClassVar[str] = "no-such-task"
    unclear: ClassVar[str] = "unknown_status"  # in the name of the log's event for a status word nobody knows

    def __init__(self, *, server: Any, http: aiohttp.ClientSession, folder: Path, clip: bytes | None) -> None:
        self.server = server
        self.http = http
        self.folder = folder
        self.clip = clip  # what must arrive; None: any clip

    @classmethod
    @abstractmethod
    def open(
        cls, clip: bytes, http: aiohttp.ClientSession, folder: Path
    ) -> AbstractAsyncContextManager[Self]:
        """Start the server. `folder` is empty and the rig's own."""

    @abstractmethod
    def provider(self, setup: Setup) -> Provider:
        """A provider that talks to the server."""

    @abstractmethod
    def request(self, reference: str, case: Case) -> ClipRequest:
        """A good request; for BAD_PICTURE it may be a bad one, where the server looks at pictures. For those of
        UPLOAD it has a picture that is uploaded."""

    @property
    def secrets(self) -> tuple[str, ...]:
        return (self.server.api_key, self.bad_key, "Signature=")

    @property
    def creates(self) -> int:
        """How many create calls arrived, whatever came of them."""
        return len(self.server.creates)

    @property
    def uploaded(self) -> int:
        """How many POSTs arrived that were no creates."""
        return sum(number for call, number in self.server.calls.items() if call.startswith("POST"))

    @property
    def tasks(self) -> int:
        """How many tasks were made: what the vendor may charge."""
        return len(self.server.tasks)

    def arrange(self, case: Case) -> None:
        """Make the server bring the case about: for the next call of its stage, or from now on."""
        self.knobs[case](self.server)

    def between_polls(self) -> None:  # noqa: B027  # nothing to do is the default
        """What passes between one poll and the next, where the server does not see to it."""

    def callback(self, task: str, case: Case) -> tuple[Mapping[str, str], bytes]:
        """The headers and body of a callback about a task, as HEARD, FORGED, REPLAYED or TOO_OLD wants it: of a route that
        `hears`, and so has its own."""
        raise AssertionError(f"{type(self).__name__} hears no callbacks, and was asked for one")

    @classmethod
    def reason_lacking(cls, case: Case) -> str | None:
        """Why the case cannot happen here; None: it can."""
        if case in UPLOAD and not cls.uploads:
            return "pictures go along with the create, or by link"
        if case in LOOK_UP and not cls.finds:
            return "its API finds nothing by our reference"
        if case in BATCH and not cls.batches:
            return "its API tells of one task at a time"
        if case in CALLBACK and not cls.hears:
            return "its API calls nobody back"
        return cls.lacks.get(case)

    @classmethod
    def expected(cls, case: Case) -> Expect:
        return cls.expects.get(case, CONTRACT[case])


def all_rigs() -> list[type[Rig]]:
    """Every class with a name in `rigs/`, by file."""
    found: list[type[Rig]] = []
    for module in sorted(pkgutil.iter_modules(rigs.__path__), key=lambda each: each.name):
        there = vars(importlib.import_module(f"{rigs.__name__}.{module.name}"))
        found += [
            each
            for each in there.values()
            if isinstance(each, type)
            and issubclass(each, Rig)
            and "name" in vars(each)
            and each.__module__.endswith(f".{module.name}")
        ]
    return found


def setup_for(case: Case, rig: Rig, closed_port: int) -> Setup:
    """How the provider of a case is set up."""
    match case:
        case Case.BAD_KEY | Case.PROBED_BAD_KEY | Case.UPLOAD_BAD_KEY:
            return Setup(key=rig.bad_key)
        case Case.NOT_CONNECTED | Case.PROBED_NOBODY:
            return Setup(address=f"http://127.0.0.1:{closed_port}")
        case Case.SILENCE | Case.POLL_SILENCE:
            return Setup(request_seconds=1)
        case Case.CLIP_STUCK:
            return Setup(clip_seconds=1)
        case Case.CLIP_ENDLESS:
            return Setup(clip_bytes=100_000)
        case Case.CLIP_REDIRECTED | Case.CLIP_PRIVATE:
            return Setup(private=False)
        case _:
            return Setup()


async def paid(provider: Provider, request: ClipRequest) -> Accepted:
    """Submit as the engine does: what the route wants to have before is uploaded."""
    if isinstance(provider, Uploads):
        request = await provider.upload(request)
    return await provider.submit(request)


async def until_ready(rig: Rig, provider: Provider, task: str, most: int = 9) -> Ready:
    """Poll until the clip is ready; a poll without an answer is asked again."""
    for _ in range(most):
        try:
            outcome = await provider.check(task)
        except ProviderError:
            continue
        finally:
            rig.between_polls()
        if isinstance(outcome, Ready):
            return outcome
        assert isinstance(outcome, StillRendering), outcome
    raise AssertionError(f"not ready after {most} polls")
