"""A short soak, on both databases; the long one is `make soak`."""

from pathlib import Path

import pytest

from bot.jobs.store import Store
from tests.soak import soak


@pytest.mark.usefixtures("quiet")
async def test_a_few_hundred_jobs_leave_nothing_behind(store: Store, tmp_path: Path) -> None:
    """Processes die and stop at random; nothing is lost, paid or posted twice, and no rows are left over."""
    (clips := tmp_path / "clips").mkdir()

    soaked = await soak(store, clips, jobs=300, seed=4, restarts=0.3)

    assert soaked.wrong == []
    assert soaked.rows["jobs"] >= 300
    assert soaked.restarts["killed"] >= 3
    assert soaked.restarts["stopped"] >= 1
