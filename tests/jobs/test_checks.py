"""A check of the owner's own: what it is told, what becomes of its answers, and of what goes wrong with it."""

import asyncio
import re
import sys
from pathlib import Path
from typing import Any

import pytest
from structlog.testing import capture_logs

from bot.errors import PrivateRefusal
from bot.jobs.checks import LONGEST_SENTENCE, Check, Checker, Proposal, load_check, no_check

PROPOSAL = Proposal(member_id=2, channel_id=10, guild_id=1, age_restricted=False, prompt="waves")
MODULE = """
async def good(proposal): ...
def plain(proposal): ...
async def none(): ...
async def two(proposal, other): ...
async def with_default(proposal, other=None): ...
number = 7
class Model:
    async def __call__(self, proposal): ...
model = Model()
"""


async def refused(check: Check, **settings: Any) -> str:
    with pytest.raises(PrivateRefusal) as refusal:
        await Checker(check, **settings).refuse(PROPOSAL)
    return str(refusal.value)


def says(answer: Any) -> Check:
    async def check(_proposal: Proposal) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return check


async def test_no_check() -> None:
    """Lets everything through."""
    await Checker(no_check).refuse(PROPOSAL)
    await Checker().refuse(PROPOSAL)


async def test_a_check_that_says_no() -> None:
    """In its own words, on one line, of a length that fits; and that it cost nothing."""
    assert await refused(says("No\n politics. ")) == "No politics. Nothing was charged."
    assert len(await refused(says("x" * 9999))) == LONGEST_SENTENCE + len(" Nothing was charged.")


@pytest.mark.parametrize("answer", [ValueError("the secret"), "", " ", 7, True, TimeoutError()])
async def test_a_check_that_fails(answer: Any) -> None:
    """Refused, or let through, as the owner wishes. The log says what kind of failure, and never its text."""
    with capture_logs() as logs:
        sentence = await refused(says(answer))
        await Checker(says(answer), allow_on_failure=True).refuse(PROPOSAL)

    assert sentence.startswith("A check that comes before every clip did not answer")
    assert sentence.endswith("Nothing was charged.")
    assert [log["allowed"] for log in logs] == [False, True]
    assert all(
        log["event"] == "check_failed" and log["where"].startswith(("test_checks.py", "checks.py"))
        for log in logs
    )
    assert "secret" not in repr(logs)


async def test_a_check_that_never_answers() -> None:
    """Is given up, and cancelled."""
    ended = asyncio.Event()

    async def check(_proposal: Proposal) -> str | None:
        try:
            return await asyncio.Future[str]()
        finally:
            ended.set()

    assert "did not answer" in await refused(check, seconds=0.001)
    assert ended.is_set()


@pytest.fixture
def module(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "owners_checks.py").write_text(MODULE)
    (tmp_path / "broken_checks.py").write_text("1 / 0")
    monkeypatch.syspath_prepend(tmp_path)
    for name in ("owners_checks", "broken_checks"):
        monkeypatch.delitem(sys.modules, name, raising=False)


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize("name", ["good", "with_default", "model"])
async def test_what_can_be_loaded(name: str) -> None:
    """Functions, and objects that can be called."""
    assert await load_check(f"owners_checks:{name}")(PROPOSAL) is None


@pytest.mark.usefixtures("module")
@pytest.mark.parametrize(
    ("name", "mistake"),
    [
        ("no_such_module_at_all:look", "cannot be imported (ModuleNotFoundError)"),
        ("broken_checks:look", "cannot be imported (ZeroDivisionError)"),
        ("owners_checks:look", "there is no look in owners_checks"),
        ("owners_checks:plain", "must be an `async def`"),
        ("owners_checks:number", "must be an `async def`"),
        ("owners_checks:Model", "must be an `async def`"),
        ("owners_checks:none", "must take one argument"),
        ("owners_checks:two", "must take one argument"),
    ],
)
def test_what_cannot_be_loaded(name: str, mistake: str) -> None:
    """Is said in words at the start, not when the first member asks."""
    with pytest.raises(ValueError, match=re.escape(mistake)):
        load_check(name)
