from pathlib import Path

import pytest

from bot.jobs.store import Store
from tests.conftest import Clock
from tests.jobs.world import World, make_world


@pytest.fixture
def world(store: Store, clock: Clock, tmp_path: Path) -> World:
    """An engine and a desk on a real database, with a scripted provider."""
    return make_world(store, clock, tmp_path / "clips")
