"""What moderators do about people and clips, and what members report: the door for that, beside the desk."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

import structlog

from bot.errors import Refusal
from bot.jobs.announcing import Announcer
from bot.jobs.desk import Desk, Who
from bot.jobs.machine import IN_LINE, NOBODY, Job, State
from bot.jobs.moderation import Block, Moderation, Review, Verdict
from bot.jobs.store import Store

log = structlog.get_logger(__name__)

LONGEST_REASON = 200
LONGEST_WORDS = 500
REPORTS_A_DAY = 20
BLOCKS_PAGE = 10
MODERATOR = "Only those who may **Manage Messages** can do this."
DECIDED = {
    Verdict.KEPT: "The moderators have looked at this clip already, and kept it.",
    Verdict.REMOVED: "The moderators have taken this clip away already.",
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Blocking:
    """What blocking did: waiting clips called off, and clips that are paid and come to their end."""

    block: Block
    cancelled: int
    under_way: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """A reported clip. Once it was removed: `gone` says whether the post is, else deleting it is tried again for a
    week; so many waiting clips made from it were `cancelled`; `blocking` is set where its asker was blocked with it.
    """

    job: Job
    review: Review
    gone: bool = True
    cancelled: int = 0
    blocking: Blocking | None = None


class Safety:
    def __init__(
        self, *, store: Store, desk: Desk, announcer: Announcer, now: Callable[[], datetime]
    ) -> None:
        self._store = store
        self._desk = desk
        self._announcer = announcer
        self._now = now
        self._moderation = Moderation(store)

    # Blocks

    async def block(
        self, who: Who, member_id: int, reason: str, lasting: timedelta | None, *, everywhere: bool = False
    ) -> Blocking:
        """Let nothing more be made for this person in `who`'s server, or in all, for so long or until unblocked.

        What waits is called off. That `who` owns the bot, for all servers, is for the caller to know. Raises Refusal.
        """
        guild_id = None if everywhere else _moderated(who)
        if member_id == who.id:
            raise Refusal("You cannot block yourself.")
        block = self._block(who, guild_id, member_id, reason, lasting)
        await self._moderation.block(block)
        return await self._call_off_for(block)

    def _block(
        self, who: Who, guild_id: int | None, member_id: int, reason: str, lasting: timedelta | None
    ) -> Block:
        now = self._now()
        return Block(
            guild_id=guild_id,
            member_id=member_id,
            reason=" ".join(reason.split())[:LONGEST_REASON] or None,
            until=now + lasting if lasting else None,
            by=who.id,
            at=now,
        )

    async def _call_off_for(self, block: Block) -> Blocking:
        theirs = await self._moderation.open_of(block.member_id, block.guild_id)
        cancelled = await self._desk.call_off([job for job in theirs if job.state in IN_LINE])
        log.info(
            "member_blocked", guild=block.guild_id, member=block.member_id, by=block.by, cancelled=cancelled
        )
        theirs = await self._moderation.open_of(block.member_id, block.guild_id)
        left = sum(job.state is not State.DRAFT for job in theirs)
        return Blocking(block=block, cancelled=cancelled, under_way=left)

    async def unblock(self, who: Who, member_id: int, *, everywhere: bool = False) -> bool:
        """Whether they were blocked there. Raises Refusal."""
        guild_id = None if everywhere else _moderated(who)
        was = await self._moderation.unblock(guild_id, member_id, self._now())
        log.info("member_unblocked", guild=guild_id, member=member_id, by=who.id, was=was)
        return was

    async def blocked(
        self, who: Who, page: int = 0, *, everywhere: bool = False
    ) -> tuple[list[Block], int, int]:
        """A page of who is blocked, which page it is (the last for one past the end), and how many are. Raises Refusal."""
        guild_id, now = None if everywhere else _moderated(who), self._now()
        skip = max(page, 0) * BLOCKS_PAGE
        found, count = await self._moderation.blocks_in(guild_id, now, skip=skip, limit=BLOCKS_PAGE)
        if not found and count:
            return await self.blocked(who, (count - 1) // BLOCKS_PAGE, everywhere=everywhere)
        return found, max(page, 0) if found else 0, count

    # Reports

    async def reportable(self, who: Who, job_id: str) -> Job:
        """The posted clip, when this person may report it now. Raises Refusal."""
        job = await self._desk.job(job_id)
        if job.guild_id is None or job.guild_id != who.guild_id or job.post_id is None:
            raise Refusal("I do not know this clip any more.")
        if job.asker_id == who.id:
            raise Refusal("This clip is yours: **Delete** takes it away.")
        review = await self._moderation.review(job.id)
        if review and review.state in DECIDED:
            raise Refusal(DECIDED[review.state])
        if review and review.shown_as and await self._moderation.has_reported(job.id, who.id):
            raise Refusal("You have reported this clip already. The moderators will look.")
        since = self._now() - timedelta(days=1)
        if await self._moderation.reports_since(who.id, since) >= REPORTS_A_DAY:
            raise Refusal(
                f"You have reported {REPORTS_A_DAY} clips within a day. Please write to a moderator instead."
            )
        return job

    async def report(self, who: Who, job_id: str, reason: str, words: str) -> None:
        """Write down what this person says of a clip. Raises Refusal."""
        job = await self.reportable(who, job_id)
        said = " ".join(words.split())[:LONGEST_WORDS] or None
        # What was said before, when there was nobody to tell, is only told once more.
        await self._moderation.report(job, who.id, reason, said, self._now())
        log.info("clip_reported", job=job.id, guild=job.guild_id)

    async def case(self, job_id: str) -> Case:
        """What is known of a reported clip. Raises Refusal when it is not one."""
        job, review = await self._store.get(job_id), await self._moderation.review(job_id)
        if job is None or review is None:
            raise Refusal("I do not know this clip any more.")
        return Case(job=job, review=review)

    async def shown(self, case: Case, channel_id: int, message_id: int) -> None:
        """The moderators can read of it in this message."""
        await self._moderation.shown(case.job.id, channel_id, message_id)

    async def undecided(self, who: Who, job_id: str) -> Case:
        """A clip and its open review, for a moderator of its server. Raises Refusal."""
        guild_id, case = _moderated(who), await self.case(job_id)
        if case.review.guild_id != guild_id:
            raise Refusal("I do not know this clip any more.")
        if case.review.state in DECIDED:
            raise Refusal(f"{DECIDED[case.review.state]} It was decided by <@{case.review.decided_by}>.")
        return case

    async def blamed(self, who: Who, job_id: str) -> Job:
        """The same, where it is known who asked for the clip. Raises Refusal."""
        job = (await self.undecided(who, job_id)).job
        if job.asker_id == NOBODY:
            raise Refusal("Who asked for this clip had their data deleted: I do not know them any more.")
        return job

    async def keep(self, who: Who, job_id: str) -> Case:
        """Leave a reported clip where it is, for good. Raises Refusal."""
        return await self._decide(who, job_id, Verdict.KEPT)

    async def remove(
        self, who: Who, job_id: str, *, block: tuple[str, timedelta | None] | None = None
    ) -> Case:
        """Take a reported clip away: its post, and what waits to be made from it. It is not made again. Raises Refusal.

        `block`, why and how long: its asker is blocked in this server with it, unless that is `who`, or not known any more.
        """
        decided = await self._decide(who, job_id, Verdict.REMOVED, block)
        cancelled = await self._desk.call_off(await self._moderation.waiting_after(job_id))
        # Where the post was when it was reported: the row may know nothing any more.
        job = replace(decided.job, post_id=decided.review.post_id)
        gone = await self._announcer.take_down(job)
        if gone:
            await self._moderation.cleared(job_id, self._now())
        return replace(decided, gone=gone, cancelled=cancelled)

    async def _decide(
        self, who: Who, job_id: str, verdict: Verdict, block: tuple[str, timedelta | None] | None = None
    ) -> Case:
        decided = await self.undecided(who, job_id)
        asker_id, row = decided.job.asker_id, None
        if block and asker_id not in (NOBODY, who.id):
            row = self._block(who, decided.review.guild_id, asker_id, *block)
        if not await self._moderation.decide(job_id, verdict, who.id, self._now(), row):
            return await self.undecided(who, job_id)  # somebody was faster: this says who
        log.info("review_decided", job=job_id, verdict=verdict, by=who.id)
        review = await self._moderation.review(job_id)
        assert review is not None
        blocking = await self._call_off_for(row) if row else None
        return replace(decided, review=review, blocking=blocking)


def _moderated(who: Who) -> int:
    """The id of the server, for those who moderate it. Raises Refusal."""
    if who.guild_id is None or not who.moderator:
        raise Refusal(MODERATOR)
    return who.guild_id
