"""What cogs call for comparisons: two models, one picture, and what members think of the two clips."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass

import structlog

from bot.errors import Refusal
from bot.jobs.announcing import Announcer, Pictures
from bot.jobs.budgets import money
from bot.jobs.comparisons import PROPOSED_FOR, Choice, Comparison, Comparisons, Duel
from bot.jobs.desk import FREE, Ask, Desk, Plan, Who, picture_rules
from bot.jobs.guilds import GuildSettings
from bot.jobs.machine import Job
from bot.jobs.models import Menu, common_rules
from bot.jobs.rating import Rating, rate
from bot.jobs.store import Store, new_job_id
from bot.providers.base import Picture, PictureRules

log = structlog.get_logger(__name__)


@dataclass(frozen=True, slots=True, kw_only=True)
class Versus:
    """A checked wish to compare: what each of the two models makes of it."""

    plans: tuple[Plan, Plan]

    @property
    def cents(self) -> int:
        return sum(plan.price_cents for plan in self.plans)

    def rules(self, who: Who) -> PictureRules:
        """What the picture must be like: it is the same for both models."""
        one, other = (picture_rules(plan, who) for plan in self.plans)
        return common_rules(one, other)


@dataclass(frozen=True, slots=True, kw_only=True)
class Leaderboard:
    """A server's models, the strongest first, each with how many comparisons it was in. `votes` and `comparisons`
    count those that the ratings go by."""

    rows: tuple[tuple[str, Rating, int], ...]
    votes: int
    comparisons: int


class Comparing:
    def __init__(self, *, desk: Desk, store: Store, announcer: Announcer) -> None:
        self._desk = desk
        self._comparisons = Comparisons(store)
        self._announcer = announcer

    @property
    def menu(self) -> Menu:
        return self._desk.menu

    async def plan(
        self, who: Who, prompt: str, first: str | None, second: str | None, seconds: int | None
    ) -> Versus:
        """Check a wish, without a picture yet. Models that are left open are this server's default and the next that
        can do the same. Raises Refusal."""
        desk = self._desk
        first, second = self._named(first), self._named(second)
        settings = await desk.settings(who.guild_id)
        await desk.admit_pair(who)
        menu = desk.in_reach(settings)
        if first is None:
            first = menu.default if menu.default != second else None
        if first is None or second is None:
            chosen = first or second
            assert chosen is not None
            other = self._partner(prompt, chosen, seconds, menu, settings)
            first, second = (chosen, other) if first else (other, chosen)
        if first == second:
            raise Refusal(f"These are the same model. Choose two different ones to compare. {FREE}")
        wanted = seconds if seconds is not None else self._common_seconds(first, second, settings)
        one, other_plan = (
            desk.plan(Ask(prompt=prompt, model=name, seconds=wanted, has_picture=True), settings)
            for name in (first, second)
        )
        return Versus(plans=(one, other_plan))

    def _named(self, typed: str | None) -> str | None:
        """A model by its name or by its label; `desk.plan` refuses what there is not."""
        words = (typed or "").strip().casefold()
        named = [model.name for model in self.menu.models.values() if words == model.label.casefold()]
        return named[0] if named else typed

    def _partner(
        self, prompt: str, chosen: str, seconds: int | None, menu: Menu, settings: GuildSettings
    ) -> str:
        """The next model of the menu, from the chosen one on, that can make the same clip. Raises Refusal."""
        if chosen not in self.menu.models:
            self._desk.plan(Ask(prompt=prompt, model=chosen, has_picture=True), settings)  # refuses in words
        names = [name for name in menu.models if name != chosen]
        start = [*menu.models].index(chosen) if chosen in menu.models else 0
        for name in [*names[start:], *names[:start]]:
            try:
                wanted = seconds or self._common_seconds(chosen, name, settings)
                self._desk.plan(Ask(prompt=prompt, model=name, seconds=wanted, has_picture=True), settings)
            except Refusal:
                continue
            return name
        raise Refusal(
            f"There is no second model here that can make the same clip as {self.menu.label(chosen)}. {FREE}"
        )

    def _common_seconds(self, first: str, second: str, settings: GuildSettings) -> int | None:
        """This server's usual length if both models have it, else the first one that both have. Raises Refusal."""
        models = self.menu.models
        if first not in models or second not in models:
            return None  # `plan` refuses in words
        one, other = models[first].can.seconds, models[second].can.seconds
        both = [seconds for seconds in one if seconds in other]
        if not both:
            raise Refusal(
                f"{models[first].label} and {models[second].label} have no length in common, so they cannot be "
                f"compared. {FREE}"
            )
        return settings.default_seconds if settings.default_seconds in both else both[0]

    async def propose(self, who: Who, versus: Versus) -> Comparison:
        """Remember the wish until its asker, who has seen the prices, says yes or an hour has passed."""
        assert who.guild_id is not None
        now = self._desk.now()
        asked = {
            "prompt": versus.plans[0].prompt,
            "models": [plan.model.name for plan in versus.plans],
            "seconds": versus.plans[0].seconds,
            "cents": versus.cents,
        }
        comparison = Comparison(
            id=new_job_id(now),
            guild_id=who.guild_id,
            channel_id=who.channel_id,
            asker_id=who.id,
            created_at=now,
            asked=json.dumps(asked),
        )
        await self._comparisons.propose(comparison)
        return comparison

    async def start(
        self, who: Who, comparison_id: str, fetch: Callable[[PictureRules], Awaitable[Picture]]
    ) -> list[Job]:
        """Have both clips made: nothing is paid before this. `fetch` gives the picture. Raises Refusal."""
        comparison = await self._comparisons.get(comparison_id)
        now = self._desk.now()
        if comparison and comparison.a_id:
            raise Refusal("This comparison has been started already.")
        if comparison is None or comparison.asked is None or now - comparison.created_at > PROPOSED_FOR:
            raise Refusal(f"That was too long ago. Please use /compare once more. {FREE}")
        if who.id != comparison.asker_id or who.guild_id != comparison.guild_id:
            raise Refusal("I asked only the member who used /compare.")
        asked = json.loads(comparison.asked)
        first, second = asked["models"]
        versus = await self.plan(who, asked["prompt"], first, second, asked["seconds"])
        if versus.cents > asked["cents"]:
            price = money(versus.cents, self.menu.currency)
            raise Refusal(f"The price has changed to {price}. Please use /compare once more. {FREE}")
        pictures = Pictures(first=await fetch(versus.rules(who)))
        return await self._desk.request_pair(who, versus.plans, pictures, comparison)

    async def vote(self, who: Who, comparison_id: str, choice: Choice) -> Comparison:
        """Note what a member thinks; it may be changed until the result is shown. Raises Refusal."""
        comparison = await self._known(who, comparison_id)
        if not await self._comparisons.vote(comparison_id, who.id, choice, self._desk.now()):
            raise Refusal("The vote is over: the result is shown.")
        return comparison

    async def reveal(self, who: Who, comparison_id: str) -> None:
        """Show the result, for its asker and for moderators; drawn by the engine. Raises Refusal."""
        comparison = await self._known(who, comparison_id)
        if who.id != comparison.asker_id and not who.moderator:
            raise Refusal(f"Only <@{comparison.asker_id}> and moderators can end the vote.")
        now = self._desk.now()
        await self._comparisons.reveal(comparison_id, now)
        log.info("comparison_revealed", comparison=comparison_id)
        found = await self._comparisons.jobs_of(comparison)
        votes = await self._comparisons.votes(comparison_id)
        if found is None or await self._announcer.show_result(comparison, found, votes):
            await self._comparisons.done(comparison_id, now)

    async def _known(self, who: Who, comparison_id: str) -> Comparison:
        comparison = await self._comparisons.get(comparison_id)
        if comparison is None or comparison.guild_id != who.guild_id or comparison.post_id is None:
            raise Refusal("I do not know this comparison any more.")
        return comparison

    async def leaderboard(self, guild_id: int) -> Leaderboard:
        """What the votes of a server say about its models."""
        duels = await self._comparisons.duels(guild_id)
        ratings = rate(
            (*duel.models, duel.wins[0] + duel.same / 2, sum(duel.wins) + duel.same) for duel in duels
        )
        rows = [(name, rating, _seen(name, duels)) for name, rating in ratings.items()]
        return Leaderboard(
            rows=tuple(sorted(rows, key=lambda row: (-row[1].points, row[0]))),
            votes=sum(sum(duel.wins) + duel.same for duel in duels),
            comparisons=sum(duel.comparisons for duel in duels),
        )


def _seen(model: str, duels: list[Duel]) -> int:
    return sum(duel.comparisons for duel in duels if model in duel.models)
