"""What cogs ask for lists: the door for reading, as the desk is the door for doing. Changes nothing."""

import json
from collections.abc import Callable
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta
from enum import StrEnum

from bot.jobs import sentences
from bot.jobs.announcing import Waiting
from bot.jobs.browsing import Browsing, Crowd, Shelf
from bot.jobs.comparisons import Comparisons
from bot.jobs.desk import Who
from bot.jobs.machine import Job, State
from bot.jobs.models import Menu
from bot.jobs.moderation import Moderation
from bot.jobs.pacing import Pace
from bot.jobs.store import Store
from bot.providers.base import Capabilities

QUEUE_PAGE = 5
HISTORY_PAGE = 6
CARDS_SHOWN = 5
RECENT = 100
EXPORTED_AT_ONCE = 200
OURS = {"version", "worker", "recoveries", "stumbles", "not_before", "reference", "provider_task", "clip_url"}
TOLD_FOR = timedelta(days=1)  # that nothing came of a clip which was to be posted once more


@dataclass(frozen=True, slots=True, kw_only=True)
class Line:
    """A person's own clips, one page of them, and what their server and this channel wait for."""

    mine: tuple[tuple[Job, Waiting], ...]
    page: int
    pages: int
    crowd: Crowd
    cards: tuple[tuple[Job, Waiting], ...]


class Way(StrEnum):
    OLDER = "older"
    NEWER = "newer"


@dataclass(frozen=True, slots=True, kw_only=True)
class Turn:
    """A page of the past: whose clips (None: everybody's), of which model, and on which side of which clip."""

    member_id: int | None = None
    model: str | None = None
    way: Way = Way.OLDER
    beside: str | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Past:
    """One page of clips, the newest first."""

    turn: Turn
    jobs: tuple[Job, ...]
    newer: bool
    older: bool


@dataclass(frozen=True, slots=True, kw_only=True)
class Shown:
    """One clip with where it came from (`parent` None: nowhere, or not to be seen) and what came from it."""

    job: Job
    waiting: Waiting
    parent: Job | None
    takes: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A member's data as a JSON file. `left_out`: so many older clips did not fit."""

    data: bytes
    jobs: int
    left_out: int


class Archive:
    """`slots(route)`: so many clips are made at once; `keep_days`: so long one that could not be posted is kept."""

    def __init__(
        self,
        *,
        store: Store,
        menu: Menu,
        now: Callable[[], datetime],
        slots: Callable[[str], int],
        keep_days: int,
    ) -> None:
        self.menu = menu
        self.keep_days = keep_days
        self._store = store
        self._browsing = Browsing(store)
        self._moderation = Moderation(store)
        self._comparisons = Comparisons(store)
        self._now = now
        self._slots = slots

    def now(self) -> datetime:
        """The time that jobs go by."""
        return self._now()

    async def line(self, who: Who, page: int = 0) -> Line:
        """What this person waits for, and what the server does. A page past the end is the last one."""
        page = max(page, 0)
        mine, count = await self._unfinished(who, page)
        if not mine and page:
            page = max(0, count - 1) // QUEUE_PAGE
            mine, count = await self._unfinished(who, page)
        cards = await self._browsing.cards_in(who.channel_id, limit=CARDS_SHOWN)
        return Line(
            mine=tuple([(job, await self._waiting(job)) for job in mine]),
            page=page,
            pages=max(1, -(-count // QUEUE_PAGE)),
            crowd=await self._browsing.crowd(who.guild_id),
            cards=tuple([(job, await self._waiting(job)) for job in cards]),
        )

    async def _unfinished(self, who: Who, page: int) -> tuple[list[Job], int]:
        return await self._browsing.unfinished(
            who.id,
            who.guild_id,
            failed_since=self._now() - TOLD_FOR,
            skip=page * QUEUE_PAGE,
            limit=QUEUE_PAGE,
        )

    async def past(self, shelf: Shelf, turn: Turn) -> Past:
        """A page of the clips that this person may see. Raises Refusal for a model there never was."""
        beside = await self._store.get(turn.beside) if turn.beside else None
        newer = beside is not None and turn.way is Way.NEWER
        found = await self._browsing.past(
            shelf,
            asker_id=turn.member_id,
            model=turn.model,
            before=None if newer else beside,
            after=beside if newer else None,
            limit=HISTORY_PAGE + 1,
        )
        if beside and not found:  # what was there is gone, or hidden by now: from the newest on
            return await self.past(shelf, Turn(member_id=turn.member_id, model=turn.model))
        more = len(found) > HISTORY_PAGE
        page = (found[-HISTORY_PAGE:] if newer else found[:HISTORY_PAGE]) if more else found
        return Past(
            turn=turn,
            jobs=tuple(page),
            newer=more if newer else beside is not None,
            older=True if newer else more,
        )

    async def show(self, shelf: Shelf, job_id: str) -> Shown:
        """One clip, whatever became of it. Raises Refusal when it is not known here, or not to be seen."""
        job = await self._store.get(job_id.strip().lower())
        hidden = (
            job is not None and job.asker_id != shelf.reader_id and await self._moderation.removed(job.id)
        )
        if job is None or hidden or not shelf.holds(job):
            raise sentences.unknown_clip()
        parent = await self._store.get(job.parent_id) if job.parent_id else None
        return Shown(
            job=job,
            waiting=await self._waiting(job),
            parent=parent if parent and shelf.holds(parent) else None,
            takes=await self._browsing.takes(job),
        )

    async def recent(self, who: Who, typed: str, *, limit: int) -> list[Job]:
        """This person's latest clips here whose id or prompt has the typed words in it."""
        words = typed.casefold().strip()
        latest = await self._browsing.recent(who.id, who.guild_id, limit=RECENT)
        return [job for job in latest if words in job.prompt.casefold() or words in job.id][:limit]

    def model_named(self, typed: str | None) -> str | None:
        """The model of this name or label; past ones by name. Raises Refusal."""
        if typed is None:
            return None
        for model in self.menu.models.values():
            if typed.casefold().strip() in (model.name, model.label.casefold()):
                return model.name
        raise sentences.unknown_model(typed, [model.label for model in self.menu.models.values()])

    async def standing(self, who: Who) -> tuple[int, int, int]:
        """Of this person's clips in all servers: how many wait, are under way, and have ended."""
        return await self._browsing.standing_of(who.id)

    async def export(self, who: Who, *, max_bytes: int) -> Export:
        """All that is stored about this person, the newest first, as much as fits into a file of this size."""
        about = {"member": str(who.id), "exported_at": self._now()} | await self._browsing.wishes_of(who.id)
        if votes := await self._comparisons.votes_of(who.id):
            about["votes"] = votes
        file = bytearray(_json(about)[:-1] + b', "clips": [')
        jobs = 0
        last: Job | None = None
        whole = True
        while whole and (
            page := await self._browsing.everything_of(who.id, before=last, limit=EXPORTED_AT_ONCE)
        ):
            last = page[-1][0]
            for job, costs in page:
                row = _json(_record(job) | {"costs": costs})
                whole = len(file) + len(row) + 4 <= max_bytes
                if not whole:
                    break
                file += (b",\n" if jobs else b"\n") + row
                jobs += 1
        left_out = 0 if whole else sum(await self._browsing.standing_of(who.id)) - jobs
        return Export(data=bytes(file + b"]}"), jobs=jobs, left_out=left_out)

    async def _waiting(self, job: Job) -> Waiting:
        if job.state not in (State.QUEUED, State.RENDERING):
            return Waiting()
        model = self.menu.models.get(job.model)
        can = model.can if model else Capabilities(seconds=(job.seconds,))
        pace = Pace.learn(await self._store.durations(job), typical=can.typical)
        if job.state is State.QUEUED:
            place = await self._store.place(job)
            # Those in the making are half done on average, and those before it take their turns.
            turns = (place - 1) // max(1, self._slots(job.route)) + 1.5
            return Waiting(place=place, due=self._now() + turns * pace.middle)
        if job.submitted_at:
            waited = self._now() - job.submitted_at
            return Waiting(due=job.submitted_at + pace.middle, late=waited > max(pace.late, can.deadline))
        return Waiting()


def _record(job: Job) -> dict[str, object]:
    """What the row says about the clip, without how it is worked on. Ids are text: JSON numbers are too small."""
    return {
        key: str(value) if key.endswith("_id") else value
        for key, value in asdict(job).items()
        if value is not None and key not in OURS
    }


def _json(value: object) -> bytes:
    def plain(other: object) -> str:
        return other.isoformat() if isinstance(other, datetime) else str(other)

    return json.dumps(value, default=plain, ensure_ascii=False).encode()
