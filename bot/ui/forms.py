"""The modal in which a clip is described: its questions, and what a submitted one says.

A modal holds five questions, so of the settings only those are asked that have more than one answer. All that is needed
to understand a submitted one stands in its custom_id, so it works after any restart.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import discord
from discord import ui

from bot.errors import Refusal
from bot.jobs.desk import FREE, Ask, Plan, adapted, possible
from bot.jobs.models import Menu
from bot.ui import catalogue
from bot.ui.sources import Source
from bot.ui.text import money, plain

MOST_QUESTIONS = 5
MOST_OPTIONS = 25
OPTION_LIMIT = 100
PROMPT_LIMIT = 4000
MESSAGE_LIMIT = 2000
BY_ITSELF = "-"  # the value of "whatever the model takes by itself"

PRICED = "With what one clip costs as it stands here; another length or quality has its own price."
TITLES = {
    "animate": "Animate this picture",
    "remix": "Remix",
    "continue": "Continue from the last frame",
}


def form(
    custom_id: str,
    kind: str,
    ask: Ask,
    menu: Menu,
    *,
    pictures: Sequence[Source] = (),
) -> ui.Modal:
    """The modal for an Ask, filled with it. Raises Refusal when no configured model can do it.

    With more than one of `pictures`, the first question is which.
    """
    plans = _plans(ask, menu)
    shown = _shown(ask, plans, menu)
    modal = ui.Modal(title=TITLES[kind], custom_id=custom_id, timeout=900)
    questions: list[ui.Label[Any]] = []
    if len(pictures) > 1:
        questions.append(_select("Picture", "picture", _picture_options(pictures), "0"))
    questions.append(_prompt_field(ask.prompt, plans))
    # Also where there is but one: it tells the price, and that the answer means this one.
    options = model_options(plans, menu)
    questions.append(_select("Model", "model", options, shown["model"], PRICED))
    for name, offers in _offers(ask, plans).items():
        if options := _options(name, offers, plans):
            questions.append(_select(name.capitalize(), name, options, shown[name]))
    for question in questions[:MOST_QUESTIONS]:
        modal.add_item(question)
    return modal


def read(answers: Mapping[str, str], ask: Ask, menu: Menu) -> Ask:
    """What a submitted modal, whose form was made from this Ask, asks for. Raises Refusal.

    What the person did not touch gives way where the chosen model does not have it; what they chose stays.
    """
    shown = _shown(ask, _plans(ask, menu), menu)
    given = {name: answers[name] for name in shown if name in answers}
    values = {name: None if value == BY_ITSELF else value for name, value in given.items()}
    seconds = values.get("seconds")
    filled = replace(
        ask,
        prompt=answers.get("prompt", ""),
        model=values.get("model", ask.model),
        seconds=int(seconds) if seconds and seconds.isdecimal() else ask.seconds,
        quality=values.get("quality", ask.quality),
        ratio=values.get("ratio", ask.ratio),
    )
    chosen = {name for name, value in given.items() if value != shown[name]}
    return adapted(filled, menu, chosen=chosen)


def custom_id_of(interaction: discord.Interaction[Any]) -> str | None:
    """Of the modal, when the interaction is a submitted one."""
    if interaction.type is not discord.InteractionType.modal_submit:
        return None
    data: Mapping[str, Any] = interaction.data or {}
    return str(data.get("custom_id", ""))


def answers_in(interaction: discord.Interaction[Any]) -> dict[str, str]:
    """What was typed and chosen in a submitted modal, by the custom_id of the field."""
    data: Mapping[str, Any] = interaction.data or {}
    answers: dict[str, str] = {}
    for part in data.get("components", ()):
        field = part.get("component") or {}
        value = field.get("value") or next(iter(field.get("values") or ()), None)
        if "custom_id" in field and value is not None:
            answers[field["custom_id"]] = value
    return answers


def refused(refusal: Refusal, prompt: str) -> Refusal:
    """The same refusal, with what the person typed: Discord forgets a submitted modal."""
    words = prompt.replace("```", "'''").strip()
    room = MESSAGE_LIMIT - len(str(refusal)) - 40
    if len(words) > room:
        words = f"{words[: room - 1]}…"
    return Refusal(f"{refusal}\nYour prompt, to copy:\n```\n{words}\n```") if words else refusal


def model_options(plans: Sequence[Plan], menu: Menu) -> list[discord.SelectOption]:
    """Models to choose from, each with what one clip costs."""
    return [_model_option(plan, menu) for plan in plans][:MOST_OPTIONS]


def _plans(ask: Ask, menu: Menu) -> list[Plan]:
    """What the models could do with it; what the prompt will be is not known yet."""
    plans = possible(replace(ask, prompt="any"), menu)
    if not plans:
        raise Refusal(f"None of the models here can do this. {FREE}")
    return _first(plans, ask.model or menu.default)


def _first(plans: list[Plan], name: str) -> list[Plan]:
    """As many models as a select holds, and the one that is meant among them."""
    if len(plans) > MOST_OPTIONS:
        plans = sorted(plans, key=lambda plan: plan.model.name != name)
    return plans[:MOST_OPTIONS]


def _shown(ask: Ask, plans: Sequence[Plan], menu: Menu) -> dict[str, str]:
    """The answers that a form begins with."""
    wanted = ask.model or menu.default
    plan = next((plan for plan in plans if plan.model.name == wanted), plans[0])
    return {
        "model": plan.model.name,
        "seconds": str(plan.seconds),
        "quality": plan.quality or BY_ITSELF,
        "ratio": plan.ratio or BY_ITSELF,
    }


def _offers(ask: Ask, plans: Sequence[Plan]) -> dict[str, dict[str, list[str]]]:
    """Every answer to a question, with the labels of the models that can do it."""
    offers: dict[str, dict[str, list[str]]] = {"seconds": {}, "quality": {}, "ratio": {}}
    for plan in plans:
        can = plan.model.can
        ratios = can.shapes if ask.has_picture else can.ratios
        for name, values in (("seconds", can.seconds), ("quality", can.qualities), ("ratio", ratios)):
            for value in values:
                offers[name].setdefault(str(value), []).append(plan.model.label)
    offers["seconds"] = dict(sorted(offers["seconds"].items(), key=lambda offer: int(offer[0])))
    return offers


def _options(name: str, offers: Mapping[str, list[str]], plans: Sequence[Plan]) -> list[discord.SelectOption]:
    """Empty where there is nothing to choose."""
    able = {label for labels in offers.values() for label in labels}
    options = [
        discord.SelectOption(
            label=catalogue.choice(int(value) if name == "seconds" else value),
            value=value,
            description=_cut(", ".join(labels)) if len(labels) < len(plans) else None,
        )
        for value, labels in offers.items()
    ]
    if name != "seconds" and (name == "ratio" or len(able) < len(plans)):
        options.insert(0, discord.SelectOption(label="As the model does by itself", value=BY_ITSELF))
    return options[:MOST_OPTIONS] if len(options) > 1 and offers else []


def _picture_options(pictures: Sequence[Source]) -> list[discord.SelectOption]:
    return [
        discord.SelectOption(
            label=_cut(f"{number}. {plain(picture.name) or 'picture'}"),
            value=str(number - 1),
            description=f"{picture.width} × {picture.height}" if picture.width and picture.height else None,
        )
        for number, picture in enumerate(pictures[:MOST_OPTIONS], start=1)
    ]


def _model_option(plan: Plan, menu: Menu) -> discord.SelectOption:
    price = money(plan.price_cents, menu.currency, free=plan.model.can.free)
    facts = (f"{plan.seconds} s", plan.quality, price)
    return discord.SelectOption(
        label=_cut(plan.model.label),
        value=plan.model.name,
        description=_cut(" · ".join(fact for fact in facts if fact)),
    )


def _prompt_field(prompt: str, plans: Sequence[Plan]) -> ui.Label[Any]:
    longest = min(PROMPT_LIMIT, max(plan.model.can.prompt_length for plan in plans))
    field: ui.TextInput[Any] = ui.TextInput(
        style=discord.TextStyle.paragraph,
        custom_id="prompt",
        default=prompt[:longest] or None,
        max_length=longest,
        required=False,
        placeholder="For example: camera slowly pulls out",
    )
    return ui.Label(text="What should happen", component=field)


def _select(
    text: str,
    custom_id: str,
    options: Iterable[discord.SelectOption],
    default: str,
    description: str | None = None,
) -> ui.Label[Any]:
    options = list(options)
    for option in options:
        option.default = option.value == default
    select: ui.Select[Any] = ui.Select(custom_id=custom_id, options=options)
    return ui.Label(text=text, description=description, component=select)


def _cut(text: str) -> str:
    return text if len(text) <= OPTION_LIMIT else f"{text[: OPTION_LIMIT - 1]}…"
