"""The README and the pages beside it tell the truth about settings, commands and routes."""

import re
from pathlib import Path

import typer

from bot.cli import app
from bot.config import RoutesSettings
from scripts import config_table, models_table, screenshots

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_settings_is_the_code_s() -> None:
    """Made by scripts/config_table.py: run it when a key changes."""
    assert config_table.table() in README


def test_the_page_on_routes_is_the_code_s() -> None:
    """Made by scripts/models_table.py: run it when a model changes. Every route has a section of its own."""
    page = (ROOT / "docs" / "providers.md").read_text(encoding="utf-8")

    assert models_table.updated(page) == page
    assert [route for route in RoutesSettings.model_fields if f"\n## {route}\n" not in page] == []


def test_every_command_line_command_is_listed() -> None:
    """Newcomers look here first."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for words in [f"{name} {sub}" for sub in getattr(command, "commands", ())] or [name]:
            assert f"`animatic {words}" in README


def test_every_picture_is_there() -> None:
    """Made by scripts/screenshots.py and committed; none that no page shows."""
    pages = [ROOT / "README.md", *(ROOT / "docs").glob("*.md")]
    shown = {
        page.parent / name
        for page in pages
        for name in re.findall(r"(?<!`)!\[[^]]+\]\(([^)]+\.png)\)", page.read_text(encoding="utf-8"))
    }

    assert shown >= {ROOT / "docs" / f"{name}.png" for name in screenshots.SHOTS}
    assert [path for path in shown if path.stat().st_size < 10_000] == []
