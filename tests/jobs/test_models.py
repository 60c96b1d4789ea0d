"""The menu: what models cost, and by whose word."""

from dataclasses import replace
from decimal import Decimal
from typing import Any

import pytest

from bot.__main__ import build_menu
from bot.config import Config, ModelSettings, MoneySettings
from bot.jobs.models import listed_cents
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
