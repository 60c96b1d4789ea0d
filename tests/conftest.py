"""What all tests share: a clock that stands still until it is moved, and a store."""

from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from bot.jobs.store import Store, open_store


@dataclass
class Clock:
    """Time for the code under test; only `pass_by` moves it."""

    at: datetime = field(default=datetime(2026, 6, 1, 12, tzinfo=UTC))

    def now(self) -> datetime:
        return self.at

    def pass_by(self, **duration: float) -> None:
        self.at += timedelta(**duration)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
async def store(tmp_path: Path) -> AsyncIterator[Store]:
    async with open_store(f"sqlite+aiosqlite:///{tmp_path / 'jobs.db'}") as opened:
        yield opened
