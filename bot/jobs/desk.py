"""What cogs call: the only door between Discord's commands and jobs.

Every request is checked here against the model's capabilities and the limits, before anything is
queued or paid. What a person can mend is raised as a Refusal.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable, Collection, Iterable, Sequence
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import datetime, timedelta
from typing import Any, TypeVar

import structlog

from bot.errors import PrivateRefusal, Refusal
from bot.jobs import budgets
from bot.jobs.announcing import Announcer, CannotPost, PictureGone, Pictures, PostLater, Waiting
from bot.jobs.budgets import Budget, Scope
from bot.jobs.checks import Checker, Proposal
from bot.jobs.comparisons import Comparison, Comparisons
from bot.jobs.guilds import GuildSettings, SettingsOf, WhosePictures, usual_settings
from bot.jobs.health import FOR_THE_OWNER, Health
from bot.jobs.limits import Limits
from bot.jobs.machine import (
    CANCELLABLE,
    NOBODY,
    Cancelled,
    CardPosted,
    GaveUp,
    Job,
    Lineage,
    Posted,
    Redelivered,
    State,
    TriedAgain,
)
from bot.jobs.members import Members
from bot.jobs.models import Menu, Model
from bot.jobs.moderation import Block, Moderation
from bot.jobs.rules import BadPattern, broken
from bot.jobs.store import AlreadyThere, Store, new_job_id
from bot.jobs.tally import Load
from bot.providers.base import Only, Picture, PictureRules, nearest_ratio

logger = structlog.get_logger(__name__)

FREE = "Nothing was charged."
DEFAULT_UPLOAD_LIMIT = 10 * 1024 * 1024
ROOM = 64 * 1024  # what a request to Discord needs besides the picture, in bytes

USUAL = GuildSettings()
ASKED_FOR = timedelta(hours=1)  # a question to the owner of a picture stands
ALLOWED_FOR = timedelta(days=1)  # and their yes holds
MOST_ASKED = 1000
LOOKING_AT_ONCE = 2  # prompts that are looked through for what a server blocks
MOST_TOLD_OF = 1000

_T = TypeVar("_T", int, str)


@dataclass(frozen=True, slots=True, kw_only=True)
class Who:
    """The person who asks, and where. `interaction_id` and `upload_limit` (bytes) come with an interaction.

    `roles` are the ids of the person's roles in the server. `thread_of` is the channel that a thread is in.
    `age_restricted`: Discord shows that channel to adults only.
    """

    id: int
    channel_id: int
    thread_of: int | None = None
    guild_id: int | None = None
    moderator: bool = False
    roles: frozenset[int] = field(default=frozenset(), repr=False)
    interaction_id: int | None = None
    upload_limit: int | None = None
    age_restricted: bool = False


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


class Dear(Exception):
    """It costs so much that the person is asked first; nothing was started."""

    def __init__(self, price_cents: int) -> None:
        super().__init__(price_cents)
        self.price_cents = price_cents


def asked(job: Job) -> Ask:
    """What a person asked for with this job, so that it can be asked for again."""
    return Ask(
        prompt=job.prompt,
        model=job.model,
        seconds=job.seconds,
        quality=job.quality,
        ratio=job.ratio,
        negative_prompt=job.negative_prompt,
        strength=job.strength,
        camera=job.camera,
        loop=job.loop,
        sound=job.sound,
        has_picture=job.picture_file is not None,
        has_end_picture=job.end_picture_file is not None,
    )


def adapted(ask: Ask, menu: Menu, *, chosen: Collection[str] = ()) -> Ask:
    """The Ask without the options that its model does not have: these are left to the model.

    What is `chosen` (names of fields), a person chose just now: it stays, to be refused in words by `check`.
    """
    model = _model(ask.model, menu)
    can, label = model.can, model.label
    low, high = can.strength or (1.0, 0.0)
    ratios = can.shapes if ask.has_picture else can.ratios
    offered: dict[str, bool] = {
        "seconds": ask.seconds in can.seconds,
        "quality": ask.quality in can.qualities,
        "ratio": ask.ratio in ratios,
        "camera": ask.camera in can.cameras,
        "negative_prompt": _length(ask.negative_prompt or "") <= can.negative_prompt,
        "strength": low <= (ask.strength or 0.0) <= high,
        "loop": can.loop,
        "sound": can.sound,
    }
    usual = Ask(prompt="")
    for name, possible in offered.items():
        if not possible and name not in chosen:
            ask = replace(ask, **{name: getattr(usual, name)})
    for only in can.only:
        seconds = can.seconds[0] if ask.seconds is None else ask.seconds
        quality = next(iter(can.qualities), None) if ask.quality is None else ask.quality
        try:
            _refuse_alone(only, ask, label, seconds, quality)
        except Refusal:
            if only.option in offered and only.option not in chosen:
                ask = replace(ask, **{only.option: getattr(usual, only.option)})
    return ask


def possible(ask: Ask, menu: Menu) -> list[Plan]:
    """What each model that can do this at all would make of it, and for how much, in the menu's order."""
    plans = []
    for name in menu.models:
        try:
            plans.append(check(adapted(replace(ask, model=name), menu), menu))
        except Refusal:
            continue
    return plans


def picture_rules(plan: Plan, who: Who) -> PictureRules:
    """What a picture must be like for this model, and to be posted in this server."""
    rules = plan.model.can.picture
    return replace(rules, max_bytes=min(rules.max_bytes, (who.upload_limit or DEFAULT_UPLOAD_LIMIT) - ROOM))


def check(ask: Ask, menu: Menu, *, reachable: Callable[[Model], bool] = lambda _model: True) -> Plan:
    """Check an Ask against what its model can do. No I/O.

    Raises Refusal, which also names those of the other models in reach that can do all of it.
    """
    model = _model(ask.model, menu)
    try:
        return _plan(ask, model)
    except Refusal as refusal:
        others = [other for other in menu.models.values() if other is not model and reachable(other)]
        able = [other.label for other in others if _can(ask, other)]
        if not able:
            raise
        sentence = str(refusal).removesuffix(FREE)
        raise Refusal(f"{sentence}Or choose another `model`: {_listed(able)} can do this. {FREE}") from None


def _can(ask: Ask, model: Model) -> bool:
    try:
        _plan(ask, model)
    except Refusal:
        return False
    return True


def _plan(ask: Ask, model: Model) -> Plan:
    can, label = model.can, model.label
    prompt = ask.prompt.strip()
    if (length := _length(prompt)) > can.prompt_length:
        raise Refusal(
            f"Your prompt has {length:,} characters; {label} takes at most {can.prompt_length:,}. "
            f"Please shorten it. {FREE}"
        )
    if ask.has_picture and not can.takes_picture:
        raise Refusal(f"{label} works from words alone. Leave the picture out. {FREE}")
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
    if negative and (length := _length(negative)) > can.negative_prompt:
        raise Refusal(
            f"Your negative prompt has {length} characters; {label} takes at most "
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
        "negative_prompt": ask.negative_prompt or None,
    }.get(only.option, getattr(ask, only.option, None))
    if wanted is None or wanted is False or (only.value is not None and wanted != only.value):
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
        raise Refusal(f"{label} has {what} only with {_listed(needs)}. {FREE}")


def _length(text: str) -> int:
    """In UTF-16 units, as the strictest of the vendors and Discord itself count: an emoji is two or more."""
    return len(text.encode("utf-16-le", "surrogatepass")) // 2


def _listed(names: Sequence[str]) -> str:
    return names[0] if len(names) == 1 else f"{', '.join(names[:-1])} and {names[-1]}"


def _either(values: tuple[object, ...]) -> str:
    return " or ".join(str(value) for value in values)


def _model(name: str | None, menu: Menu) -> Model:
    model = menu.models.get(name or menu.default)
    if model is None:
        known = ", ".join(model.label for model in menu.models.values())
        raise Refusal(f"I do not have the model “{name}”. Choose one of: {known}. {FREE}")
    return model


def _proposal(who: Who, plan: Plan, pictures: Pictures) -> Proposal:
    return Proposal(
        member_id=who.id,
        channel_id=who.channel_id,
        guild_id=who.guild_id,
        age_restricted=who.age_restricted,
        prompt=plan.prompt,
        negative_prompt=plan.negative_prompt,
        picture=pictures.first.data if pictures.first else None,
        end_picture=pictures.last.data if pictures.last else None,
    )


def blocked(block: Block) -> PrivateRefusal:
    """What somebody reads who may not have clips made."""
    here, team = ("here", "this server's moderators") if block.guild_id else ("by me", "this bot's owner")
    until = f" until <t:{int(block.until.timestamp())}:f>" if block.until else ""
    reason = f"The reason given: “{block.reason}”" if block.reason else "No reason was given"
    return PrivateRefusal(
        f"You may not have clips made {here}{until}. {reason}. If you think that this is wrong, ask {team}. {FREE}"
    )


def _affordable(model: Model, most_cents: int | None) -> bool:
    """Whether the cheapest clip of a model is not too dear."""
    if most_cents is None:
        return True
    lengths, qualities = model.can.seconds, model.can.qualities or (None,)
    prices = [model.price_cents(seconds, quality, False) for seconds in lengths for quality in qualities]
    return min(prices, default=0) <= most_cents


# The budgets that a request counts against; who is told when one is spent to so many per cent.
BudgetsOf = Callable[[Who], Awaitable[Sequence[Budget]]]
Alert = Callable[[int | None, Budget, int], Awaitable[None]]


async def no_budgets(_who: Who) -> Sequence[Budget]:
    """Nothing is limited."""
    return ()


async def no_alert(_guild_id: int | None, _budget: Budget, _mark: int) -> None:
    """Nobody is told."""


# Told, once, of a server's pattern that cannot be looked for.
PatternAlert = Callable[[int, str], Awaitable[None]]


async def no_pattern_alert(_guild_id: int, _pattern: str) -> None:
    """Nobody is told."""


class Desk:
    def __init__(
        self,
        *,
        store: Store,
        menu: Menu,
        limits: Limits,
        health: Health,
        announcer: Announcer,
        wake: Callable[[], None],
        now: Callable[[], datetime],
        settings: SettingsOf = usual_settings,
        budgets: BudgetsOf = no_budgets,
        alert: Alert = no_alert,
        checker: Checker | None = None,
        pattern_alert: PatternAlert = no_pattern_alert,
    ) -> None:
        self.menu = menu
        self._budgets_of = budgets
        self._alert = alert
        self._settings_of = settings
        self._store = store
        self._members = Members(store)
        self._moderation = Moderation(store)
        self._checker = checker or Checker()
        self._pattern_alert = pattern_alert
        self._told_of: set[tuple[int, str]] = set()
        self._looking = asyncio.Semaphore(LOOKING_AT_ONCE)
        self._comparisons = Comparisons(store)
        # Who was asked to let whom use their pictures, until when.
        self._asked: dict[tuple[int, int, int], datetime] = {}
        self._limits = limits
        self._health = health
        self._announcer = announcer
        self._wake = wake
        self._now = now

    def plan(self, ask: Ask, settings: GuildSettings = USUAL) -> Plan:
        """Check an Ask against what its model can do, whether that model is to be reached, and what it may cost
        in this server. No I/O. Raises Refusal."""
        ask = self.filled(ask, settings)
        plan = check(ask, self.menu, reachable=self._reachable)
        if not self._reachable(plan.model):
            raise Refusal(self._out_of_reach(ask, plan.model))
        self._refuse_dear(plan, settings)
        return plan

    def filled(self, ask: Ask, settings: GuildSettings) -> Ask:
        """The Ask with what this server wants where the person left it open."""
        if ask.model is None:
            ask = replace(ask, model=self.menu_of(settings).default)
        wanted = settings.default_seconds
        model = self.menu.models.get(ask.model or "")
        if ask.seconds is None and model and wanted in model.can.seconds:
            ask = replace(ask, seconds=wanted)
        return ask

    def menu_of(self, settings: GuildSettings) -> Menu:
        """The menu as this server has it: its own default, without the models that are too dear here.

        All of them where that would leave none.
        """
        models = {
            name: model for name, model in self.menu.models.items() if _affordable(model, settings.most_cents)
        } or self.menu.models
        wanted = [name for name in (settings.default_model, self.menu.default) if name and name in models]
        return replace(self.menu, models=models, default=[*wanted, *models][0])

    def in_reach(self, settings: GuildSettings = USUAL) -> Menu:
        """This server's menu without the models that cannot be reached now; all of it where that would leave none."""
        menu = self.menu_of(settings)
        models = {name: model for name, model in menu.models.items() if self._reachable(model)}
        return replace(menu, models=models) if models else menu

    def _refuse_dear(self, plan: Plan, settings: GuildSettings) -> None:
        most, currency = settings.most_cents, self.menu.currency
        if most is None or plan.price_cents <= most:
            return
        others = [
            model.label
            for model in self.menu.models.values()
            if model.name != plan.model.name and self._reachable(model) and _affordable(model, most)
        ]
        if _affordable(plan.model, most):
            instead = "Choose a shorter one, or a lower quality."
        elif others:
            instead = f"Choose another `model`: {_listed(others)} can do with less."
        else:
            instead = "A moderator can change that with /settings."
        raise Refusal(
            f"This clip costs {budgets.money(plan.price_cents, currency)}, and one may cost at most "
            f"{budgets.money(most, currency)} here. {instead} {FREE}"
        )

    def _reachable(self, model: Model) -> bool:
        return any(self._health.trouble(way.route) is None for way in model.ways)

    def _out_of_reach(self, ask: Ask, model: Model) -> str:
        """Which models could be asked for the same instead."""
        trouble = self._health.trouble(model.route)
        theirs = trouble is not None and trouble.cause in FOR_THE_OWNER
        sentence = (
            f"{model.label} cannot be used until this bot's owner mends it"
            if theirs
            else f"{model.label} is not answering"
        )
        others = [
            other.label
            for other in self.menu.models.values()
            if other.name != model.name and self._reachable(other) and _can(ask, other)
        ]
        if others:
            return f"{sentence}. You can have this from {_listed(others)}: choose another `model`. {FREE}"
        return f"{sentence}. Please try again later. {FREE}"

    def now(self) -> datetime:
        """The time that jobs go by."""
        return self._now()

    async def settings(self, guild_id: int | None) -> GuildSettings:
        """What holds in this server."""
        return await self._settings_of(guild_id)

    async def request(
        self,
        who: Who,
        plan: Plan,
        pictures: Pictures,
        *,
        parent: Job | None = None,
        lineage: Lineage | None = None,
        picture_by: int | None = None,
    ) -> Job:
        """Queue one clip and post its card. The job, QUEUED. Raises Refusal.

        The same interaction twice gives the same job once. `picture_by` is who posted the picture; without
        it, whose picture the parent was made from, else the asker.
        """
        now = self._now()
        if picture_by is None and parent:
            picture_by = parent.picture_by or parent.asker_id
        if picture_by is not None and pictures.first:
            await self.require_consent(who, picture_by)
        settings = await self.settings(who.guild_id)
        await self._permit(who, settings)
        if parent:
            await self._require_usable(who, parent)
        self._refuse_dear(plan, settings)
        await self._refuse_rules(who.guild_id, settings, plan.prompt, plan.negative_prompt)
        await self._checker.refuse(_proposal(who, plan, pictures))
        rules = settings.requeues
        limited_by = await self._limited_by(who, settings)
        seen: list[Load] = []

        def admit(load: Load) -> None:
            self._admit(load)
            if lineage is Lineage.AGAIN:
                rules.admit_take(load.takes)
            self._within(load, plan.price_cents, now)
            seen.append(load)

        draft = self._draft(
            who,
            settings,
            plan,
            pictures,
            now,
            interaction_id=who.interaction_id,
            parent_id=parent.id if parent else None,
            lineage=lineage,
            picture_by=picture_by if pictures.first and picture_by != who.id else None,
        )
        try:
            draft = await self._store.add(draft, admit, limited_by)
        except AlreadyThere:
            if who.interaction_id and (known := await self._store.by_interaction(who.interaction_id)):
                return known
            raise Refusal(f"You already have this clip in the queue once. {FREE}") from None
        [moved] = await self._open(who, [draft], pictures, parent)
        await self._tell_of_marks(who, seen[-1] if seen else None, plan.price_cents)
        return moved

    async def request_pair(
        self, who: Who, plans: tuple[Plan, Plan], pictures: Pictures, comparison: Comparison
    ) -> list[Job]:
        """Queue the two clips of a comparison, both or none, and post their cards. The jobs, QUEUED. Raises Refusal."""
        now = self._now()
        settings = await self.settings(who.guild_id)
        await self._permit(who, settings)
        for plan in plans:
            self._refuse_dear(plan, settings)
            await self._refuse_rules(who.guild_id, settings, plan.prompt, plan.negative_prompt)
            await self._checker.refuse(_proposal(who, plan, pictures))
        a, b = [
            self._draft(who, settings, plan, pictures, now, comparison_id=comparison.id, sealed=True)
            for plan in plans
        ]
        seen: list[Load] = []

        def admit(job: Job, load: Load) -> None:
            self._admit(load, wanted=2 if job is a else 1)
            self._within(load, job.price_cents, now)
            seen.append(load)

        try:
            limited_by = await self._limited_by(who, settings)
            await self._comparisons.start(comparison, *_shuffled(a, b), admit=admit, budgets=limited_by)
        except AlreadyThere:
            raise Refusal("This comparison has been started already.") from None
        moved = await self._open(who, [a, b], pictures)
        for load, job in zip(seen[-2:], moved, strict=True):
            await self._tell_of_marks(who, load, job.price_cents)
        return moved

    async def admit_pair(self, who: Who) -> None:
        """As `admit`, for two clips at once."""
        await self._permit(who, await self.settings(who.guild_id))
        self._admit(await self._store.load(who.id), wanted=2)

    def _draft(
        self,
        who: Who,
        settings: GuildSettings,
        plan: Plan,
        pictures: Pictures,
        now: datetime,
        **more: Any,  # the other fields of Job
    ) -> Job:
        goes_to, asked_in = self._posted_in(who, settings), who.thread_of or who.channel_id
        return Job(
            id=new_job_id(now),
            created_at=now,
            changed_at=now,
            guild_id=who.guild_id,
            channel_id=goes_to,
            card_channel_id=who.channel_id if goes_to != who.channel_id else None,
            budget_channel_id=asked_in if goes_to != asked_in else None,
            asker_id=who.id,
            upload_limit=who.upload_limit,
            age_restricted=who.age_restricted,
            model=plan.model.name,
            route=plan.model.route,
            variant=plan.model.variant,
            prompt=plan.prompt,
            negative_prompt=plan.negative_prompt,
            seconds=plan.seconds,
            quality=plan.quality,
            ratio=shape(plan, pictures.first),
            strength=plan.strength,
            camera=plan.camera,
            loop=plan.loop,
            sound=plan.sound,
            picture_file=f"picture.{pictures.first.extension}" if pictures.first else None,
            end_picture_file=f"end-picture.{pictures.last.extension}" if pictures.last else None,
            price_cents=plan.price_cents,
            reserved_at=now,
            **more,
        )

    async def _open(
        self, who: Who, drafts: Sequence[Job], pictures: Pictures, parent: Job | None = None
    ) -> list[Job]:
        """Post the cards of new jobs, and put them in line: all, or none where one has no card. Raises Refusal."""
        cards: list[int] = []
        try:
            for draft in drafts:
                queued = draft.but(state=State.QUEUED)
                cards.append(await self._post_card(queued, pictures))
        except CannotPost as problem:
            await self._drop(drafts, cards)
            logger.warning("card_not_posted", job=drafts[0].id, cause=problem.cause)
            raise Refusal(
                f"I could not post in this channel, so I did not start. Please ask a moderator to check "
                f"my permissions here. {FREE}"
            ) from problem
        except PostLater as problem:
            await self._drop(drafts, cards)
            raise Refusal(
                f"I could not post, because Discord did not take my message. Please try again. {FREE}"
            ) from problem
        except BaseException:
            await self._drop(drafts, cards)
            raise
        moves = [self._queue(draft, card_id) for draft, card_id in zip(drafts, cards, strict=True)]
        moved = await asyncio.gather(*moves)
        for job in moved:
            logger.info("job_queued", job=job.id, model=job.model, guild=job.guild_id, asker=job.asker_id)
        try:  # whoever blocks or takes down meanwhile calls off only what they see waiting
            await self._refuse_blocked(who)
            if parent:
                await self._require_usable(who, parent)
        except Refusal:
            if await self.call_off(moved):
                raise
        self._wake()
        return moved

    async def _queue(self, draft: Job, card_id: int) -> Job:
        """Put a new job in line. Where the database's answer was lost, the job may be further by now. Raises Refusal."""
        moved = await self._store.advance(draft, CardPosted(card_id), self._now())
        moved = moved or await self._store.get(draft.id)
        if moved is None or moved.state is State.CANCELLED:
            raise Refusal(f"That took too long, so I did not start. Please try again. {FREE}")
        return moved

    def _posted_in(self, who: Who, settings: GuildSettings) -> int:
        """The server's channel for results, where it takes what is asked for here; else the channel of the request."""
        results, asked_in = settings.results_channel, who.thread_of or who.channel_id
        if who.guild_id is None or results is None or results == asked_in:
            return who.channel_id
        usable = self._announcer.may_post(who.guild_id, results, asked_in=asked_in)
        return results if usable else who.channel_id

    async def _drop(self, drafts: Sequence[Job], cards: Sequence[int]) -> None:
        """None of these is started; the cards that stand already say so."""
        for number, draft in enumerate(drafts):
            moved = await self._store.advance(draft, Cancelled(), self._now())
            if moved and number < len(cards):
                await self._announcer.draw(moved.but(card_id=cards[number]), Waiting())

    async def _limited_by(self, who: Who, settings: GuildSettings) -> list[Budget]:
        """The owner's budgets and the server's: the strictest of each kind."""
        return budgets.strictest([*await self._budgets_of(who), *settings.budgets(who.roles)])

    def _within(self, load: Load, price_cents: int, now: datetime) -> None:
        """Raises Refusal where one more clip at this price goes over a budget."""
        for budget, spent in load.spent.items():
            budgets.admit(budget, spent, price_cents, now=now, currency=self.menu.currency)

    async def _tell_of_marks(self, who: Who, load: Load | None, price_cents: int) -> None:
        """Have those who mind a budget told that half, most or all of it is spent by now. `alert` does it once: whoever came to
        that mark first may have died before."""
        for budget, spent in (load.spent if load else {}).items():
            mark = budgets.reached(budget, spent.more(price_cents))
            if mark and budget.scope in (Scope.SERVER, Scope.ALL):
                await self._alert(who.guild_id, budget, mark)

    async def _post_card(self, job: Job, pictures: Pictures) -> int:
        waiting = Waiting(place=await self._store.place(job))
        try:
            return await self._announcer.post_card(job, pictures, waiting)
        except PostLater:  # its answer may have been lost: the same nonce gives the same message
            return await self._announcer.post_card(job, pictures, waiting)

    async def admit(self, who: Who) -> None:
        """Look at who may and at the limits before any work is done for a request. Raises Refusal.

        `request` looks again, in the transaction that counts.
        """
        await self._permit(who, await self.settings(who.guild_id))
        self._admit(await self._store.load(who.id))

    async def _permit(self, who: Who, settings: GuildSettings) -> None:
        """Raises Refusal when this person may not have a clip made here and now."""
        await self._refuse_blocked(who)
        settings.admit(channels=(who.channel_id, who.thread_of), roles=who.roles, moderator=who.moderator)

    async def _refuse_blocked(self, who: Who) -> None:
        if block := await self._moderation.block_of(who.guild_id, who.id, self._now()):
            raise blocked(block)

    async def _require_usable(self, who: Who, parent: Job) -> None:
        """Raises Refusal where nothing may come from this clip, or nothing here."""
        if await self._moderation.removed(parent.id):
            raise Refusal(f"The moderators have taken this clip away, so I do not make it again. {FREE}")
        if parent.age_restricted and not who.age_restricted:
            raise Refusal(
                f"This clip was made in an age-restricted channel, and what comes from it stays in such. {FREE}"
            )

    async def _refuse_rules(
        self, guild_id: int | None, settings: GuildSettings, prompt: str, negative_prompt: str | None
    ) -> None:
        """Raises Refusal where a prompt has what this server blocks."""
        words, patterns = settings.blocked_words, settings.blocked_patterns
        if not (words or patterns):
            return
        try:
            async with self._looking:
                found = await asyncio.to_thread(broken, words, patterns, prompt, negative_prompt)
        except BadPattern as bad:
            await self._tell_of_pattern(guild_id, bad.pattern)
            raise PrivateRefusal(
                "I could not look through your prompt for what this server blocks, so I did not start. "
                f"The moderators can mend that. {FREE}"
            ) from None
        if found:
            where = "negative prompt" if found.negative else "prompt"
            raise PrivateRefusal(
                f"A rule of this server forbids “{found.word}” in a {where}. Please say it otherwise. {FREE}"
                if found.word
                else f"A rule of this server forbids something in this {where}. Please say it otherwise. {FREE}"
            )

    async def _tell_of_pattern(self, guild_id: int | None, pattern: str) -> None:
        logger.warning("pattern_not_looked_for", guild=guild_id)
        if guild_id is not None and (guild_id, pattern) not in self._told_of:
            if len(self._told_of) >= MOST_TOLD_OF:
                self._told_of.clear()
            self._told_of.add((guild_id, pattern))
            await self._pattern_alert(guild_id, pattern)

    async def call_off(self, jobs: Iterable[Job]) -> int:
        """Cancel those of these jobs that are not paid yet, and show it on their cards. Their number."""
        cancelled = 0
        for job in jobs:
            if job.state in CANCELLABLE and (
                moved := await self._store.advance(job, Cancelled(), self._now())
            ):
                cancelled += 1
                await self._announcer.draw(moved, Waiting())
        self._wake()
        return cancelled

    async def again(self, who: Who, parent: Job, *, confirmed: bool = True) -> Job:
        """Queue the clip of a post again, in this person's name. Raises Refusal.

        Not `confirmed`, raises Dear where the price is one that this server wants a person to confirm.
        """
        settings = await self.settings(who.guild_id)
        await self._permit(who, settings)
        rules = settings.requeues
        rules.admit_person(who.roles, moderator=who.moderator)
        await self.require_consent_for(who, parent)
        plan = self.plan(asked(parent), settings)
        load = await self._store.load(who.id, clip=parent.id, now=self._now())
        self._admit(load)
        rules.admit_take(load.takes)
        dear = rules.confirm_above_cents
        if not confirmed and dear is not None and plan.price_cents > dear:
            raise Dear(plan.price_cents)
        return await self._derive(who, plan, parent, Lineage.AGAIN)

    async def remix(self, who: Who, parent: Job, ask: Ask) -> Job:
        """Queue a clip from the same pictures with other words or settings. Raises Refusal."""
        plan = self.plan(ask, await self.settings(who.guild_id))
        return await self._derive(who, plan, parent, Lineage.REMIX)

    async def by_model(self, who: Who, parent: Job, model: str) -> Job:
        """Queue the same clip by another model, as near to it as that one can. Raises Refusal."""
        settings = await self.settings(who.guild_id)
        plan = self.plan(adapted(replace(asked(parent), model=model), self.menu), settings)
        return await self._derive(who, plan, parent, Lineage.MODEL)

    async def go_on(self, who: Who, parent: Job, ask: Ask) -> Job:
        """Queue a clip that begins with the last frame of this one. Raises Refusal."""
        plan = self.plan(ask, await self.settings(who.guild_id))
        return await self._derive(who, plan, parent, Lineage.CONTINUE)

    async def _derive(self, who: Who, plan: Plan, parent: Job, lineage: Lineage) -> Job:
        """The one way from a posted clip to a new job: look at the limits, fetch the pictures, request."""
        await self.admit(who)
        await self.require_consent_for(who, parent)
        rules = picture_rules(plan, who)
        try:
            if lineage is Lineage.CONTINUE:
                pictures = Pictures(first=await self._announcer.last_frame(parent, rules))
            else:  # for the same model they were made to fit already
                new = None if plan.model.name == parent.model else rules
                pictures = await self._announcer.pictures(parent, new)
        except PictureGone:
            raise Refusal(
                f"The clip is gone, so I cannot go on from it. {FREE}"
                if lineage is Lineage.CONTINUE
                else f"The picture of that clip is gone, so I cannot make it again. {FREE}"
            ) from None
        except PostLater:
            raise Refusal(f"I could not fetch the picture just now. Please try again. {FREE}") from None
        return await self.request(who, plan, pictures, parent=parent, lineage=lineage)

    async def picture_owner(self, message_id: int, author_id: int) -> int:
        """Who posted the pictures of a message: for one of the bot's own, whose clip it shows."""
        posted = await self._store.by_post(message_id)
        job = posted[0] if posted else await self._store.by_card(message_id)
        return (job.picture_by or job.asker_id) if job else author_id

    async def job(self, job_id: str) -> Job:
        """The job of this id. Raises Refusal when it is not, or no longer, known."""
        job = await self._store.get(job_id)
        if job is None or job.asker_id == NOBODY:
            raise Refusal("I do not know this clip any more.")
        return job

    async def reported_by(self, message_id: int) -> Job | None:
        """The job that stands for a post when it is reported: of a comparison, the first."""
        posted = await self._store.by_post(message_id)
        return posted[0] if posted else None

    async def job_of_post(self, message_id: int) -> Job | None:
        """The job whose clip a message carries; None for one with the two clips of a comparison."""
        jobs = await self._store.by_post(message_id)
        return jobs[0] if len(jobs) == 1 else None

    async def require_consent(self, who: Who, author_id: int) -> None:
        """Raises Refusal when this server does not let this person use a picture of that author, or the author
        does not want it."""
        if author_id == who.id:
            return
        settings = await self.settings(who.guild_id)
        if settings.pictures is WhosePictures.OWN:
            raise Refusal(
                "Here everybody may use only their own pictures, and this one is from "
                f"<@{author_id}>. Use /animate with a picture of your own. {FREE}"
            )
        if await self._members.withholds_pictures(author_id):
            raise Refusal(f"<@{author_id}> does not want others to animate their pictures. {FREE}")
        if settings.pictures is WhosePictures.ASK and who.guild_id:
            await self._require_answer(who, who.guild_id, author_id)

    async def _require_answer(self, who: Who, guild_id: int, author_id: int) -> None:
        """Raises Refusal unless the author has lately said yes; they are asked, once in a while."""
        now = self._now()
        if await self._members.allows(guild_id, author_id, who.id, now):
            return
        self._asked = {key: until for key, until in self._asked.items() if until > now}
        key = (guild_id, author_id, who.id)
        if key not in self._asked:
            if len(self._asked) >= MOST_ASKED:
                raise Refusal(f"I am asking too many people just now. Please try again in an hour. {FREE}")
            self._asked[key] = now + ASKED_FOR
            if not await self._announcer.ask_owner(
                who.channel_id, guild_id, author_id, who.id, now + ASKED_FOR
            ):
                del self._asked[key]
                raise Refusal(
                    f"Here the owner of a picture is asked first, and I could not ask <@{author_id}> in this "
                    f"channel. {FREE}"
                )
        raise Refusal(
            f"Here the owner of a picture is asked first. I have asked <@{author_id}>; when they allow it, I "
            f"tell you, and you can start once more. {FREE}"
        )

    async def allow_pictures(self, who: Who, asker_id: int) -> None:
        """Let somebody use this person's pictures in this server for a day."""
        if who.guild_id:
            await self._members.allow(who.guild_id, who.id, asker_id, self._now() + ALLOWED_FOR)
            self._asked.pop((who.guild_id, who.id, asker_id), None)

    async def require_consent_for(self, who: Who, parent: Job) -> None:
        """The same, for what is to come from this clip; and where nothing may."""
        await self._require_usable(who, parent)
        if parent.picture_file:
            await self.require_consent(who, parent.picture_by or parent.asker_id)

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

    async def leave(self, guild_id: int) -> int:
        """The bot is no longer in a server: what is not paid there is called off. The number of these jobs.

        What is paid is made, and goes to its asker.
        """
        cancelled = 0
        for job in await self._store.waiting_in(guild_id):
            cancelled += await self._store.advance(job, Cancelled(), self._now()) is not None
        self._wake()
        return cancelled

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
        now = self._now()
        await self._refuse_blocked(who)
        settings = await self.settings(job.guild_id)
        settings.refuse_paused()
        await self._refuse_rules(job.guild_id, settings, job.prompt, job.negative_prompt)

        seen: list[Load] = []

        def admit(load: Load) -> None:
            self._within(load, job.price_cents, now)
            seen.append(load)

        try:
            moved = await self._store.reserve_again(
                job, TriedAgain(), now, admit, await self._limited_by(who, settings)
            )
        except AlreadyThere:
            raise Refusal("You have this clip in the queue once more already.") from None
        if moved is None:  # by this very click, perhaps, and on since then: a new doubt is not what they saw
            raise Refusal("There is nothing to try again here any more.")
        await self._announcer.draw(moved, Waiting(place=await self._store.place(moved)))
        self._wake()
        await self._tell_of_marks(who, seen[-1] if seen else None, job.price_cents)
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
        await self._refuse_blocked(who)
        if job.age_restricted and not who.age_restricted:
            raise Refusal(
                "This clip was asked for in an age-restricted channel, so I post it only in such. The clip is kept."
            )
        (await self.settings(who.guild_id)).admit_channel((who.channel_id, who.thread_of))
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

    async def delete_post(self, who: Who, job_id: str, message_id: int) -> Job:
        """Delete a clip's post, where this person is, for everybody. Nothing is written: the clip was delivered, and is
        not posted again. The job. Raises Refusal, also where the post stays."""
        job = await self.may_delete(who, job_id)
        if not await self._announcer.take_down(job.but(post_id=message_id, post_channel_id=who.channel_id)):
            raise Refusal(
                "I could not delete the post. Please try again in a while, or ask a moderator to delete it and to check my "
                "permissions here."
            )
        logger.info("post_deleted", job=job.id, by=who.id)
        return job

    def _admit(self, load: Load, *, wanted: int = 1) -> None:
        self._limits.admit(by_member=load.by_asker, in_all=load.in_all, wanted=wanted)

    @staticmethod
    def _only_for(who: Who, job: Job, what: str) -> None:
        if who.id != job.asker_id and not who.moderator:
            raise Refusal(f"Only <@{job.asker_id}> and moderators can {what}.")


def _shuffled(one: Job, other: Job) -> tuple[Job, Job]:
    """In the order of their labels, which must not tell the models: chance decides."""
    pair = [one, other]
    random.SystemRandom().shuffle(pair)
    return pair[0], pair[1]


def shape(plan: Plan, first: Picture | None) -> str | None:
    """The clip's ratio: as wished, else the model's nearest to the picture, else the picture's own (None)."""
    shapes = plan.model.can.shapes
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
