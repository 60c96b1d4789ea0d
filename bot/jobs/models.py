"""What members may choose from: the configured models, each with what it can do and what it costs."""

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from datetime import timedelta
from math import ceil
from typing import Any

from bot.jobs.machine import Job
from bot.providers.base import Capabilities, PictureRules


@dataclass(frozen=True, slots=True, kw_only=True)
class Way:
    """How a model is reached: a route, and the route's name for the model."""

    route: str
    variant: str


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model a member may choose. `price_cents(seconds, quality, sound)` is what one clip costs the owner.

    `fallback` reaches the same model while `route` is down; `can` holds on both ways.
    """

    name: str
    label: str
    route: str
    variant: str
    can: Capabilities
    price_cents: Callable[[int, str | None, bool], int]
    fallback: Way | None = None

    @property
    def ways(self) -> tuple[Way, ...]:
        """How it is reached, the preferred way first."""
        first = Way(route=self.route, variant=self.variant)
        return (first, self.fallback) if self.fallback else (first,)


@dataclass(frozen=True, slots=True, kw_only=True)
class Menu:
    """The configured models by name, which of them is meant when none is named, and the owner's currency."""

    models: Mapping[str, Model]
    default: str
    currency: str = "$"

    def by_ai(self, name: str) -> bool:
        """Whether clips of a model are AI-made; so is what a model made that is no longer configured."""
        model = self.models.get(name)
        return model is None or model.can.by_ai

    def credit(self, name: str) -> str | None:
        """The line that the vendor wants under a clip of this model."""
        model = self.models.get(name)
        return model.can.credit if model else None

    def deadline(self, job: Job) -> timedelta:
        """The longest that the job's model may render, also for one that is no longer configured."""
        model = self.models.get(job.model)
        return (model.can if model else Capabilities(seconds=(job.seconds,))).deadline

    def label(self, name: str) -> str:
        """What members read for a model, also for one that is no longer configured."""
        model = self.models.get(name)
        return model.label if model else titled(name)


def titled(name: str) -> str:
    """A model's name as a title: `kling-2-6-turbo` is `Kling 2.6 Turbo`."""
    dotted = re.sub(r"(?<=\d)[-_](?=\d+(?![^-_]))", ".", name)
    return " ".join(word[0].upper() + word[1:] for word in re.split(r"[-_\s]+", dotted) if word)


def listed_cents(can: Capabilities, seconds: int, quality: str | None, sound: bool) -> int:
    """What a clip costs by the vendor's price list, in US cents, rounded up; 0 where that is not known."""
    for price in can.prices:
        fits = (
            price.seconds in (None, seconds)
            and price.quality in (None, quality)
            and price.sound in (None, sound)
        )
        if fits:
            return ceil((price.a_second * seconds + price.a_clip) * 100)
    return 0


def common_rules(one: PictureRules, other: PictureRules) -> PictureRules:
    """What a picture must be like for both."""
    return PictureRules(
        media_types=one.media_types & other.media_types,
        max_bytes=min(one.max_bytes, other.max_bytes),
        min_side=max(one.min_side, other.min_side),
        max_side=min(one.max_side, other.max_side),
        min_ratio=max(one.min_ratio, other.min_ratio),
        max_ratio=min(one.max_ratio, other.max_ratio),
    )


def common(one: Capabilities, other: Capabilities) -> Capabilities:
    """What two ways to the same model can both do. Raises ValueError where nothing is left of an option."""

    def both(name: str) -> tuple[Any, ...]:
        first, second = getattr(one, name), getattr(other, name)
        kept = tuple(value for value in first if value in second)
        if not kept and first and second:
            raise ValueError(f"the two routes have no {name} in common")
        return kept

    strengths = [can.strength for can in (one, other) if can.strength]
    return replace(
        one,
        **{name: both(name) for name in ("seconds", "qualities", "ratios", "cameras", "shapes")},
        prompt_length=min(one.prompt_length, other.prompt_length),
        prompt_required=one.prompt_required or other.prompt_required,
        negative_prompt=min(one.negative_prompt, other.negative_prompt),
        strength=strengths[0] if len(strengths) == 2 and strengths[0] == strengths[1] else None,
        loop=one.loop and other.loop,
        sound=one.sound and other.sound,
        only=one.only + other.only,
        credit=one.credit or other.credit,
        label=one.label or other.label,
        picture=common_rules(one.picture, other.picture),
        takes_picture=one.takes_picture and other.takes_picture,
        end_picture=one.end_picture and other.end_picture,
        text_only=one.text_only and other.text_only,
        by_link=one.by_link or other.by_link,
        typical=max(one.typical, other.typical),
        deadline=max(one.deadline, other.deadline),
        first_poll=max(one.first_poll, other.first_poll),
        least_poll_gap=max(one.least_poll_gap, other.least_poll_gap),
        free=one.free and other.free,
        by_ai=one.by_ai or other.by_ai,
    )
