"""docs/commands.md says what the commands are."""

from pathlib import Path

from scripts import commands

ROOT = Path(__file__).parent.parent


async def test_the_page_is_the_code_s() -> None:
    """Made by scripts/commands.py: run it when a command changes."""
    page = await commands.live_page()

    assert "## /animate" in page
    assert page == (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
