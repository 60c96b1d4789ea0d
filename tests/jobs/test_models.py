"""The menu: what models cost, and by whose word."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from bot.__main__ import build_menu
from bot.config import Config, ModelSettings, MoneySettings
from bot.jobs.models import listed_cents, titled
from bot.providers.base import Capabilities, Price
from tests.jobs.world import KLING, ScriptedProvider

PRICES = (
    Price(a_second=Decimal("0.168"), quality="1080p", sound=True),
    Price(a_second=Decimal("0.112"), quality="1080p"),
    Price(a_clip=Decimal("0.90"), quality="720p", seconds=10),
    Price(a_second=Decimal("0.084"), quality="720p"),
)
CAN = Capabilities(seconds=(5, 10), qualities=("720p", "1080p", "4k"), sound=True, prices=PRICES)


@pytest.mark.parametrize(
    ("seconds", "quality", "sound", "cents"),
    [
        (5, "720p", False, 42),  # to the cent: no dust of binary fractions
        (10, "720p", False, 90),
        (5, "1080p", False, 56),
        (5, "1080p", True, 84),
        (10, "4k", False, 0),
    ],
)
def test_the_first_line_that_fits_is_the_price(seconds: int, quality: str, sound: bool, cents: int) -> None:
    """By the second or by the clip; 0, which members are not shown, where the list has no such clip."""
    assert listed_cents(CAN, seconds, quality, sound) == cents


@pytest.mark.parametrize(
    ("settings", "currency", "cents"),
    [
        ({}, "$", 42),
        ({"price": Decimal("0.05")}, "$", 25),
        ({"price": Decimal(0)}, "$", 0),
        ({}, "€", 0),
    ],
)
def test_the_owners_word_goes_before_the_price_list(
    settings: dict[str, Any], currency: str, cents: int
) -> None:
    """A list in dollars says nothing about another currency."""
    provider = ScriptedProvider()
    provider.variants = {"kling": replace(KLING, prices=PRICES)}
    config = Config.model_construct(
        models={"kling": ModelSettings(route="sketch", **settings)}, money=MoneySettings(currency=currency)
    )

    menu = build_menu(config, {"sketch": provider})

    assert menu.models["kling"].price_cents(5, "720p", False) == cents


@pytest.mark.parametrize(
    ("name", "title"),
    [
        ("sketch", "Sketch"),
        ("kling-2-6-turbo", "Kling 2.6 Turbo"),
        ("ray_flash_2", "Ray Flash 2"),
        ("wan-2-2-720p", "Wan 2.2 720p"),
        ("veo3.1_fast", "Veo3.1 Fast"),
        ("-", ""),
    ],
)
def test_a_name_as_a_title(name: str, title: str) -> None:
    """Versions keep their dots, which names of models cannot have."""
    assert titled(name) == title


def test_models_are_called_as_their_vendors_call_them() -> None:
    """Unless the owner says otherwise, or has two of the same: then by their own names."""
    provider = ScriptedProvider()
    provider.variants = {
        "turbo": replace(CAN, label="Kling 3.0 Turbo"),
        "other": replace(CAN, label="Kling 2.6"),
        "plain": CAN,
    }
    config = Config.model_construct(
        models={
            "fast": ModelSettings(route="sketch", variant="turbo"),
            "fast-2": ModelSettings(route="sketch", variant="turbo", label="Mine"),
            "one": ModelSettings(route="sketch", variant="other"),
            "two-5": ModelSettings(route="sketch", variant="other"),
            "own": ModelSettings(route="sketch", variant="plain"),
        },
    )

    menu = build_menu(config, {"sketch": provider})

    assert [model.label for model in menu.models.values()] == [
        "Kling 3.0 Turbo",
        "Mine",
        "One",
        "Two 5",
        "Own",
    ]
    assert menu.label("kling-2-6") == "Kling 2.6"
