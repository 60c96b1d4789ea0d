"""The README tells the truth about settings and commands."""

import importlib.util
from pathlib import Path

import typer

from bot.cli import app

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text(encoding="utf-8")


def test_the_table_of_settings_is_the_code_s() -> None:
    """Made by scripts/config_table.py: run it when a key changes."""
    spec = importlib.util.spec_from_file_location("config_table", ROOT / "scripts" / "config_table.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    assert script.table() in README


def test_every_command_line_command_is_listed() -> None:
    """Newcomers look here first."""
    for name, command in typer.main.get_command(app).commands.items():  # type: ignore[attr-defined]
        for words in [f"{name} {sub}" for sub in getattr(command, "commands", ())] or [name]:
            assert f"`animatic {words}" in README


def test_its_pictures_are_there() -> None:
    """The screenshot is committed."""
    assert "](docs/demo.png)" in README
    assert (ROOT / "docs" / "demo.png").stat().st_size > 10_000
