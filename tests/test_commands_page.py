"""docs/commands.md says what the commands are."""

import importlib.util
from pathlib import Path

ROOT = Path(__file__).parent.parent


async def test_the_page_is_the_code_s() -> None:
    """Made by scripts/commands.py: run it when a command changes."""
    spec = importlib.util.spec_from_file_location("commands", ROOT / "scripts" / "commands.py")
    assert spec
    assert spec.loader
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)

    page = await script.live_page()

    assert "## /animate" in page
    assert page == (ROOT / "docs" / "commands.md").read_text(encoding="utf-8")
