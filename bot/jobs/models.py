"""What members may choose from: the configured models, each with what it can do and what it costs."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta

from bot.jobs.machine import Job
from bot.providers.base import Capabilities


@dataclass(frozen=True, slots=True, kw_only=True)
class Model:
    """One model a member may choose. `price_cents(seconds, quality, sound)` is what one clip costs the owner."""

    name: str
    label: str
    route: str
    variant: str
    can: Capabilities
    price_cents: Callable[[int, str | None, bool], int]


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
        return model.label if model else name.capitalize()
