"""Is a route worth asking? One circuit for each, shared by all processes through the store.

A refused key or an empty account opens it at once, several lost answers in a row after a while. While
it is open no job is submitted there: jobs wait, or go another way where their model has one, and members
are told before they ask. It is closed by a free question to the route, never by a paid one.
"""

import json
from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass, replace
from datetime import datetime, timedelta

import structlog

from bot.errors import Cause, ProviderBusy, ProviderError
from bot.jobs.store import Store

log = structlog.get_logger(__name__)

MOST_FAILURES = 3  # in a row, until a route is taken for down
FOR_THE_OWNER = frozenset({Cause.BAD_KEY, Cause.NO_CREDIT})
PAUSES = {True: timedelta(minutes=5), False: timedelta(minutes=1)}
LONGEST_PAUSE = timedelta(minutes=30)
ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class Trouble:
    """Why a route is not asked, since when, until when at least, and how often in vain it was tried again.

    `told`: the owner was told of it, or does not let us.
    """

    cause: Cause
    since: datetime
    until: datetime
    tries: int = 0
    told: bool = False

    def to_json(self) -> str:
        return json.dumps({**asdict(self), "since": self.since.isoformat(), "until": self.until.isoformat()})

    @classmethod
    def from_json(cls, text: str) -> "Trouble":
        found = json.loads(text)
        return cls(
            cause=Cause(found["cause"]),
            since=datetime.fromisoformat(found["since"]),
            until=datetime.fromisoformat(found["until"]),
            tries=found["tries"],
            told=found.get("told", True),  # notes of earlier versions were told of when they were written
        )


class Health:
    """The circuits of all routes, as this process knows them; `refresh` reads what others have seen."""

    def __init__(self, store: Store, *, now: Callable[[], datetime]) -> None:
        self._store = store
        self._now = now
        self._failures: dict[str, int] = {}
        self._open: dict[str, Trouble] = {}
        self._noted: dict[str, str] = {}  # the same, as the notes have it

    def trouble(self, route: str) -> Trouble | None:
        """Why a route is not asked for paid work now, None when it is."""
        return self._open.get(route)

    def due(self) -> Mapping[str, Trouble]:
        """The routes that may be tried again now, by a free question."""
        return {route: trouble for route, trouble in self._open.items() if trouble.until <= self._now()}

    def untold(self, since: timedelta) -> Mapping[str, Trouble]:
        """The routes in trouble for so long of which the owner was not told: whoever noted it may have died."""
        now = self._now()
        return {route: one for route, one in self._open.items() if not one.told and now - one.since >= since}

    async def told(self, route: str, trouble: Trouble) -> None:
        """The owner was told of this trouble of a route, or does not let us. Nothing, where it is over by now."""
        for _ in range(ATTEMPTS):
            known = self._open.get(route)
            if known is None or known.since != trouble.since or known.told:
                return
            if await self._note(route, replace(known, told=True)):
                return
            await self.refresh()

    async def _note(self, route: str, trouble: Trouble) -> bool:
        """Whether the note was as it is known here: others may have tried the route, or it works again."""
        text = trouble.to_json()
        if not await self._store.replace_note(f"trouble:{route}", self._noted.get(route, ""), text):
            return False
        self._open[route], self._noted[route] = trouble, text
        return True

    async def refresh(self) -> None:
        """Learn of what other processes have seen."""
        prefix = "trouble:"
        notes = await self._store.recall_all(prefix)
        self._noted = {key.removeprefix(prefix): value for key, value in notes.items()}
        self._open = {route: Trouble.from_json(text) for route, text in self._noted.items()}

    async def answered(self, route: str) -> None:
        """The route has answered sensibly: lost answers before it were not in a row."""
        self._failures.pop(route, None)
        trouble = self._open.get(route)
        if trouble and trouble.cause not in FOR_THE_OWNER:
            await self.works_again(route)

    async def failed(self, route: str, error: ProviderError) -> Trouble | None:
        """A call to the route went wrong. The trouble when this opened the circuit."""
        if isinstance(error, ProviderBusy) and not error.away:
            return None
        if error.cause not in FOR_THE_OWNER and error.cause not in (Cause.NO_ANSWER, Cause.BUSY):
            return None
        self._failures[route] = self._failures.get(route, 0) + 1
        for_owner = error.cause in FOR_THE_OWNER
        if route in self._open or (self._failures[route] < MOST_FAILURES and not for_owner):
            return None
        cause = error.cause if for_owner else Cause.NO_ANSWER
        now = self._now()
        trouble = Trouble(cause=cause, since=now, until=now + PAUSES[for_owner])
        log.warning("route_in_trouble", route=route, cause=cause)
        first = await self._store.remember_first(f"trouble:{route}", text := trouble.to_json())
        self._open[route], self._noted[route] = trouble, text
        return trouble if first else None

    async def tried(self, route: str, error: ProviderError | None) -> None:
        """The free question was asked: the route works again, or is left alone for longer."""
        trouble = self._open.get(route)
        if trouble is None:
            return
        if error is None or (isinstance(error, ProviderBusy) and not error.away):
            await self.works_again(route)
            return
        pause = min(PAUSES[trouble.cause in FOR_THE_OWNER] * 2 ** min(trouble.tries + 1, 10), LONGEST_PAUSE)
        again = replace(trouble, until=self._now() + pause, tries=trouble.tries + 1)
        if not await self._note(route, again):
            await self.refresh()

    async def works_again(self, route: str) -> None:
        self._failures.pop(route, None)
        if self._open.pop(route, None):
            log.info("route_works_again", route=route)
            await self._store.forget(f"trouble:{route}")
