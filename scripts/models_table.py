"""Writes the table of docs/providers.md, of what every route's models can do, from what the routes themselves say."""

from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from bot.__main__ import ADAPTERS, Parts
from bot.config import route_kinds
from bot.jobs.models import listed_cents
from bot.providers.base import Capabilities

PAGE = Path(__file__).parent.parent / "docs" / "providers.md"
HEAD = "| route | model | offered as | from | seconds | quality | shape | besides | list price |"

# What some routes' settings cannot do without.
NEEDED = {"api_key": "none", "workflows": {"wan": {"file": PAGE.with_name("comfyui-workflow.json")}}}


def table() -> str:
    """Every model of every route as a Markdown table."""
    rows = [HEAD, "|---" * HEAD.count(" | ") + "|---|"]
    for route, kind in route_kinds().items():
        settings = kind.model_validate({key: NEEDED[key] for key in NEEDED if key in kind.model_fields})
        parts: Any = Parts(http=None, pool=ThreadPoolExecutor(1), folder=Path(), private=False)  # type: ignore[arg-type]  # nothing is asked
        names = {variant: name for name, variant in settings.usual_models.items()}
        for variant, can in ADAPTERS[route](settings, parts).variants.items():
            usual = f"`{names[variant]}`" if variant in names else "–"
            rows.append(" | ".join([f"| `{route}`", f"`{variant}`", usual, *_cells(can)]) + " |")
    return "\n".join(rows)


def _cells(can: Capabilities) -> list[str]:
    sources = ["picture"] * can.takes_picture + ["two pictures"] * can.end_picture + ["words"] * can.text_only
    shapes = list(dict.fromkeys((*can.ratios, *can.shapes)))
    besides = [
        f"{len(can.cameras)} cameras" if can.cameras else "",
        "loop" if can.loop else "",
        "sound" if can.sound else "",
        "negative prompt" if can.negative_prompt else "",
        "strength" if can.strength else "",
    ]
    return [
        ", ".join(sources),
        _span(can.seconds),
        ", ".join(can.qualities) or "–",
        ", ".join(shapes) or "the picture's",
        ", ".join(filter(None, besides)) or "–",
        _price(can),
    ]


def _span(seconds: tuple[int, ...]) -> str:
    ordered = sorted(seconds)
    if len(ordered) > 2 and ordered == list(range(ordered[0], ordered[-1] + 1)):
        return f"{ordered[0]}–{ordered[-1]}"
    return ", ".join(map(str, ordered))


def _price(can: Capabilities) -> str:
    if can.free:
        return "free"
    seconds, quality = can.seconds[0], next(iter(can.qualities), None)
    cents = listed_cents(can, seconds, quality, False)
    return f"${cents / 100:.2f} for {seconds} s" if cents else "unknown"


def updated(page: str) -> str:
    """The page with its table as it is now."""
    start = page.index(HEAD)
    end = page.index("\n\n", start)
    return page[:start] + table() + page[end:]


if __name__ == "__main__":
    PAGE.write_text(updated(PAGE.read_text(encoding="utf-8")), encoding="utf-8")
