"""What cogs call: the only door between Discord's commands and jobs.

Every request is checked here against the model's capabilities and the limits, before anything is
queued or paid. What a person can mend is raised as a Refusal.
"""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from datetime import datetime
from math import log
from typing import TypeVar

import structlog

from bot.errors import Refusal
from bot.failpoints import reach
from bot.jobs.announcing import Announcer, CannotPost, PictureGone, Pictures, PostLater, Waiting
from bot.jobs.limits import Limits
from bot.jobs.machine import (
    CANCELLABLE,
    NOBODY,
    Cancelled,
    CardPosted,
    GaveUp,
    Job,
    Posted,
    Redelivered,
    State,
    TriedAgain,
)
from bot.jobs.members import Members
from bot.jobs.models import Menu, Model
from bot.jobs.store import AlreadyThere, Load, Store, new_job_id
from bot.providers.base import Only

logger = structlog.get_logger(__name__)

FREE = "Nothing was charged."

_T = TypeVar("_T", int, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """The person who asks, and where. `interaction_id` and `upload_limit` (bytes) come with an interaction."""

    id: int
    channel_id: int
    guild_id: int | None = None
    moderator: bool = False
    interaction_id: int | None = None
    upload_limit: int | None = None


@dataclass(frozen=True, slots=True, kw_only=True)
class Ask:
    """What a person asked for, unchecked. None stands for the model's default."""

    prompt: str
    model: str | None = None
    seconds: int | None = None
    quality: str | None = None
    ratio: str | None = None
    negative_prompt: str | None = None
    strength: float | None = None
    camera: str | None = None
    loop: bool = False
    sound: bool = False
    has_picture: bool = False
    has_end_picture: bool = False


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """A checked Ask: the model can do it, and this is what it costs."""

    model: Model
    prompt: str
    seconds: int
    quality: str | None
    ratio: str | None
    negative_prompt: str | None
    strength: float | None
    camera: str | None
    loop: bool
    sound: bool
    price_cents: int


@dataclass(frozen=True, slots=True, kw_only=True)
class Forgetting:
    """What asking to be forgotten did: waiting clips that were cancelled, and those that are finished first."""

    cancelled: int
    under_way: int


def check(ask: Ask, menu: Menu) -> Plan:
    """Check an Ask against what its model can do. No I/O. Raises Refusal."""
    model = _model(ask.model, menu)
    can, label = model.can, model.label
    prompt = ask.prompt.strip()
    if len(prompt) > can.prompt_length:
        raise Refusal(
            f"Your prompt has {len(prompt):,} characters; {label} takes at most {can.prompt_length:,}. "
            f"Please shorten it. {FREE}"
        )
    if not ask.has_picture:
        if ask.has_end_picture:
            raise Refusal(f"An end picture needs a first picture. Attach one as `picture`. {FREE}")
        if not can.text_only:
            raise Refusal(f"{label} needs a picture to start from. Attach one as `picture`. {FREE}")
    if not prompt and (can.prompt_required or not ask.has_picture):
        raise Refusal(f"Write a prompt that says what should happen in the clip. {FREE}")
    if ask.has_end_picture and not can.end_picture:
        raise Refusal(f"{label} cannot end on a given picture. Leave `end_picture` out. {FREE}")
    negative = (ask.negative_prompt or "").strip() or None
    if negative and not can.negative_prompt:
        raise Refusal(f"{label} has no negative prompt. Leave `negative` out. {FREE}")
    if negative and len(negative) > can.negative_prompt:
        raise Refusal(
            f"Your negative prompt has {len(negative)} characters; {label} takes at most "
            f"{can.negative_prompt}. Please shorten it. {FREE}"
        )
    if ask.strength is not None:
        if can.strength is None:
            raise Refusal(f"{label} has no strength setting. Leave `strength` out. {FREE}")
        low, high = can.strength
        if not low <= ask.strength <= high:
            raise Refusal(f"`strength` for {label} goes from {low:g} to {high:g}. {FREE}")
    seconds = _one_of("seconds", ask.seconds, can.seconds, label)
    quality = _one_of("quality", ask.quality, can.qualities, label)
    if ask.camera is not None:
        _one_of("camera", ask.camera, can.cameras, label)
    if ask.loop and not can.loop:
        raise Refusal(f"{label} cannot loop. Leave `loop` out. {FREE}")
    if ask.sound and not can.sound:
        raise Refusal(f"{label} has no sound. Leave `sound` out. {FREE}")
    if ask.has_picture and not can.shapes:
        if ask.ratio is not None:
            raise Refusal(f"The clip takes the shape of your picture. Leave `ratio` out. {FREE}")
        ratio = None
    elif ask.has_picture:  # without a wish, the shape nearest to the picture, once that is known
        ratio = _one_of("ratio", ask.ratio, can.shapes, label) if ask.ratio else None
    else:
        ratio = _one_of("ratio", ask.ratio, can.ratios, label)
    assert seconds is not None
    for only in can.only:
        _refuse_alone(only, ask, label, seconds, quality)
    return Plan(
        model=model,
        prompt=prompt,
        seconds=seconds,
        quality=quality,
        ratio=ratio,
        negative_prompt=negative,
        strength=ask.strength,
        camera=ask.camera,
        loop=ask.loop,
        sound=ask.sound,
        price_cents=model.price_cents(seconds, quality, ask.sound),
    )


def _refuse_alone(only: Only, ask: Ask, label: str, seconds: int, quality: str | None) -> None:
    """Raises Refusal where an option is wanted without what it needs, and says what that is."""
    wanted: object = {
        "seconds": seconds,
        "quality": quality,
        "end_picture": ask.has_end_picture or None,
        "picture": ask.has_picture or None,
        "negative_prompt": ask.negative_prompt,
    }.get(only.option) or getattr(ask, only.option, None)
    if not wanted or (only.value is not None and wanted != only.value):
        return
    needs: list[str] = []
    if only.seconds and seconds not in only.seconds:
        needs.append(f"{_either(only.seconds)} seconds")
    if only.qualities and quality not in only.qualities:
        needs.append(f"quality {_either(only.qualities)}")
    if only.picture is not None and only.picture is not ask.has_picture:
        needs.append("a picture" if only.picture else "no picture")
    if only.end_picture is not None and only.end_picture is not ask.has_end_picture:
        needs.append("an end picture" if only.end_picture else "no end picture")
    if needs:
        option = {"negative_prompt": "negative"}.get(only.option, only.option)
        what = f"`{option}`" if only.value is None else f"{option} {only.value}"
        raise Refusal(f"{label} has {what} only with {' and '.join(needs)}. {FREE}")


def _either(values: tuple[object, ...]) -> str:
    return " or ".join(str(value) for value in values)


def nearest_ratio(width: int, height: int, ratios: Sequence[str]) -> str:
    """The one of `ratios`, each "width:height", whose shape is nearest to this picture's."""

    def apart(ratio: str) -> float:
        across, down = ratio.split(":")
        return abs(log(width / height) - log(float(across) / float(down)))

    return min(ratios, key=apart)


def _model(name: str | None, menu: Menu) -> Model:
    model = menu.models.get(name or menu.default)
    if model is None:
        known = ", ".join(model.label for model in menu.models.values())
        raise Refusal(f"I do not have the model “{name}”. Choose one of: {known}. {FREE}")
    return model


class Desk:
    def __init__(
        self,
        *,
        store: Store,
        menu: Menu,
        limits: Limits,
        announcer: Announcer,
        wake: Callable[[], None],
        now: Callable[[], datetime],
    ) -> None:
        self.menu = menu
        self._store = store
        self._members = Members(store)
        self._limits = limits
        self._announcer = announcer
        self._wake = wake
        self._now = now

    def plan(self, ask: Ask) -> Plan:
        """Check an Ask against what its model can do. No I/O. Raises Refusal."""
        return check(ask, self.menu)

    async def request(self, who: Who, plan: Plan, pictures: Pictures, *, parent: Job | None = None) -> Job:
        """Queue one clip and post its card. The job, QUEUED. Raises Refusal.

        The same interaction twice gives the same job once.
        """
        now = self._now()
        draft = Job(
            id=new_job_id(now),
            created_at=now,
            changed_at=now,
            interaction_id=who.interaction_id,
            guild_id=who.guild_id,
            channel_id=who.channel_id,
            asker_id=who.id,
            parent_id=parent.id if parent else None,
            upload_limit=who.upload_limit,
            model=plan.model.name,
            route=plan.model.route,
            variant=plan.model.variant,
            prompt=plan.prompt,
            negative_prompt=plan.negative_prompt,
            seconds=plan.seconds,
            quality=plan.quality,
            ratio=_shape(plan, pictures),
            strength=plan.strength,
            camera=plan.camera,
            loop=plan.loop,
            sound=plan.sound,
            picture_file=f"picture.{pictures.first.extension}" if pictures.first else None,
            end_picture_file=f"end-picture.{pictures.last.extension}" if pictures.last else None,
            price_cents=plan.price_cents,
        )
        try:
            draft = await self._store.add(draft, self._admit)
        except AlreadyThere:
            if who.interaction_id and (known := await self._store.by_interaction(who.interaction_id)):
                return known
            raise Refusal(f"You already have this clip in the queue once. {FREE}") from None
        reach("desk.drafted")
        queued = replace(draft, state=State.QUEUED)
        try:
            card_id = await self._post_card(queued, pictures)
        except CannotPost as problem:
            await self._store.advance(draft, Cancelled(), self._now())
            logger.warning("card_not_posted", job=draft.id, cause=problem.cause)
            raise Refusal(
                f"I could not post in this channel, so I did not start. Please ask a moderator to check "
                f"my permissions here. {FREE}"
            ) from problem
        except PostLater as problem:
            await self._store.advance(draft, Cancelled(), self._now())
            raise Refusal(
                f"I could not post, because Discord did not take my message. Please try again. {FREE}"
            ) from problem
        except BaseException:
            await self._store.advance(draft, Cancelled(), self._now())
            raise
        reach("desk.card_posted")
        moved = await self._store.advance(draft, CardPosted(card_id), self._now())
        reach("desk.queued")
        assert moved is not None, "a draft has one writer"
        logger.info("job_queued", job=moved.id, model=moved.model, guild=who.guild_id, asker=who.id)
        self._wake()
        return moved

    async def _post_card(self, job: Job, pictures: Pictures) -> int:
        waiting = Waiting(place=await self._store.place(job))
        try:
            return await self._announcer.post_card(job, pictures, waiting)
        except PostLater:  # its answer may have been lost: the same nonce gives the same message
            return await self._announcer.post_card(job, pictures, waiting)

    async def admit(self, who: Who) -> None:
        """Look at the limits before any work is done for a request. Raises Refusal.

        `request` looks again, in the transaction that counts.
        """
        self._admit(await self._store.load(who.id))

    async def requeue(self, who: Who, parent: Job) -> Job:
        """Queue the clip of a post again, in this person's name. Raises Refusal."""
        ask = Ask(
            prompt=parent.prompt,
            model=parent.model,
            seconds=parent.seconds,
            quality=parent.quality,
            ratio=parent.ratio,
            negative_prompt=parent.negative_prompt,
            strength=parent.strength,
            camera=parent.camera,
            loop=parent.loop,
            sound=parent.sound,
            has_picture=parent.picture_file is not None,
            has_end_picture=parent.end_picture_file is not None,
        )
        plan = self.plan(ask)
        try:
            pictures = await self._announcer.pictures(parent)
        except PictureGone:
            raise Refusal(f"The picture of that clip is gone, so I cannot make it again. {FREE}") from None
        except PostLater:
            raise Refusal(f"I could not fetch the picture just now. Please try again. {FREE}") from None
        return await self.request(who, plan, pictures, parent=parent)

    async def job(self, job_id: str) -> Job:
        """The job of this id. Raises Refusal when it is not, or no longer, known."""
        job = await self._store.get(job_id)
        if job is None or job.asker_id == NOBODY:
            raise Refusal("I do not know this clip any more.")
        return job

    async def job_of_post(self, message_id: int) -> Job | None:
        return await self._store.by_post(message_id)

    async def require_consent(self, who: Who, author_id: int) -> None:
        """Raises Refusal when the author of a picture does not want others to animate it."""
        if author_id != who.id and await self._members.withholds_pictures(author_id):
            raise Refusal(f"<@{author_id}> does not want others to animate their pictures. {FREE}")

    async def cancel(self, who: Who, job_id: str) -> Job:
        """Call a job off before it is paid: for its asker and for moderators. Raises Refusal."""
        job = await self.job(job_id)
        self._only_for(who, job, "cancel this clip")
        if job.state is State.CANCELLED:
            return job
        if job.state not in CANCELLABLE:
            raise Refusal("This clip is being made already, so it cannot be cancelled any more.")
        moved = await self._store.advance(job, Cancelled(), self._now())
        if moved is None:
            return await self.cancel(who, job_id)  # it moved while we looked: ask its new state
        await self._announcer.draw(moved, Waiting())
        self._wake()
        return moved

    async def card_deleted(self, message_id: int) -> None:
        """Somebody deleted a card: a job that is not paid yet is called off with it."""
        job = await self._store.by_card(message_id)
        if job and job.state in CANCELLABLE:
            await self._store.advance(job, Cancelled(), self._now())
            logger.info("job_cancelled_with_its_card", job=job.id)
            self._wake()

    async def try_again(self, who: Who, job_id: str) -> Job:
        """Submit an unsure job once more, knowing that it may cost twice. Raises Refusal."""
        job = await self.job(job_id)
        self._only_for(who, job, "try this clip again")
        if job.state is not State.UNSURE:
            raise Refusal("There is nothing to try again here any more.")
        try:
            moved = await self._store.advance(job, TriedAgain(), self._now())
        except AlreadyThere:
            raise Refusal("You have this clip in the queue once more already.") from None
        if moved is None:
            return await self.try_again(who, job_id)
        await self._announcer.draw(moved, Waiting(place=await self._store.place(moved)))
        self._wake()
        return moved

    async def let_go(self, who: Who, job_id: str) -> Job:
        """Ask no more about an unsure job; it may have been charged. Raises Refusal."""
        job = await self.job(job_id)
        self._only_for(who, job, "let this clip go")
        if job.state is not State.UNSURE:
            raise Refusal("There is nothing to let go here any more.")
        moved = await self._store.advance(job, GaveUp(), self._now())
        if moved is None:
            return await self.let_go(who, job_id)
        await self._announcer.draw(moved, Waiting())
        return moved

    async def withholds_pictures(self, who: Who) -> bool:
        """Whether this person keeps others from animating their pictures."""
        return await self._members.withholds_pictures(who.id)

    async def withhold_pictures(self, who: Who, withheld: bool) -> None:
        """Keep others from animating this person's pictures from now on, or let them."""
        await self._members.withhold_pictures(who.id, self._now() if withheld else None)

    def require_oneself(self, who: Who, member_id: int) -> None:
        """Raises Refusal where only the person themselves may decide."""
        if who.id != member_id:
            raise Refusal(f"Only <@{member_id}> can decide this.")

    async def forget(self, who: Who, *, posts: bool) -> Forgetting:
        """Cancel what this person has waiting, in all servers, and have the rest forgotten when it has ended.

        `posts`: their posted clips are deleted from the channels too.
        """
        cancelled = 0
        for job in await self._members.waiting_of(who.id):
            with suppress(Refusal):  # it has started meanwhile: it is finished first, then
                await self.cancel(who, job.id)
                cancelled += 1
        await self._members.forget(who.id, self._now(), posts=posts)
        logger.info("member_to_be_forgotten", asker=who.id)
        self._wake()
        return Forgetting(cancelled=cancelled, under_way=await self._members.under_way(who.id))

    async def redeliver(self, who: Who, job_id: str) -> Job:
        """Have a finished clip that could not be posted be posted where this person is. Raises Refusal.

        The job, POSTING; or DELIVERED when it turns out to have been posted before.
        """
        job = await self.job(job_id)
        self._only_for(who, job, "have this clip posted")
        if job.guild_id != who.guild_id:
            raise Refusal("This clip belongs to another server.")
        if job.redelivered_at and job.state is State.POSTING:
            return job
        if job.redelivered_at and job.state is State.FAILED:
            raise Refusal("The clip is gone at the provider too, so there is nothing left to post.")
        if job.state is not State.UNDELIVERABLE:
            raise Refusal("There is nothing to post here any more.")
        try:
            found = await self._announcer.find_post(
                job
            )  # where it was tried last: its answer may have been lost
        except PostLater:
            raise Refusal(
                "Discord does not answer me just now. Please try again. The clip is kept."
            ) from None
        outcome = Posted(found) if found else Redelivered(who.channel_id)
        try:
            moved = await self._store.advance(job, outcome, self._now())
        except AlreadyThere:
            raise Refusal(
                "You have another take of this in the queue. When that is done, I can post this one."
            ) from None
        if moved is None:
            return await self.redeliver(who, job_id)
        logger.info("job_redelivered", job=moved.id, state=moved.state)
        self._wake()
        return moved

    async def may_delete(self, who: Who, job_id: str) -> Job:
        """The job, when this person may delete its post: its asker or a moderator. Raises Refusal."""
        job = await self.job(job_id)
        self._only_for(who, job, "delete this clip")
        return job

    def _admit(self, load: Load) -> None:
        self._limits.admit(by_member=load.by_asker, in_all=load.in_all)

    @staticmethod
    def _only_for(who: Who, job: Job, what: str) -> None:
        if who.id != job.asker_id and not who.moderator:
            raise Refusal(f"Only <@{job.asker_id}> and moderators can {what}.")


def _shape(plan: Plan, pictures: Pictures) -> str | None:
    """The clip's ratio: as wished, else the model's nearest to the picture, else the picture's own (None)."""
    shapes, first = plan.model.can.shapes, pictures.first
    if plan.ratio is None and first and first.width and first.height and shapes:
        return nearest_ratio(first.width, first.height, shapes)
    return plan.ratio


def _one_of(option: str, wanted: _T | None, offered: tuple[_T, ...], label: str) -> _T | None:
    """The wanted value if the model offers it, its default if none is wanted. Raises Refusal."""
    if wanted is None:
        return offered[0] if offered else None
    if wanted not in offered:
        if not offered:
            raise Refusal(f"{label} has no choice of {option}. Leave `{option}` out. {FREE}")
        choices = ", ".join(str(value) for value in offered)
        raise Refusal(f"{label} cannot do {option} {wanted}; it can do {choices}. {FREE}")
    return wanted
