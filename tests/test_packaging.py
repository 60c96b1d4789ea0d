"""What is installed: everything that is needed, nothing that is not, and only what the locks name."""

import re
import sys
import tomllib
from importlib.metadata import packages_distributions
from pathlib import Path

import grimp
import pytest

ROOT = Path(__file__).parent.parent
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
LOCKS = ("requirements.lock", "requirements-dev.lock")
# Part of another distribution that is declared.
PARTS = {"pydantic-core": "pydantic"}


# What the demo and the pictures need is installed with an extra.
EXTRAS = ("bot.demo", "bot.media.charts")


def name_of(requirement: str) -> str:
    found = re.match(r"[A-Za-z0-9._-]+", requirement)
    assert found
    return re.sub(r"[-_.]+", "-", found[0]).lower()


def imported() -> set[str]:
    """The distributions that modules of bot and cogs import, without those of the extras."""
    graph = grimp.build_graph("bot", "cogs", include_external_packages=True, cache_dir=None)
    outside = {
        module
        for importer in graph.modules
        if importer.startswith(("bot", "cogs")) and importer not in EXTRAS
        for module in graph.find_modules_directly_imported_by(importer)
    }
    modules = {module.split(".")[0] for module in outside} - {"bot", "cogs"} - sys.stdlib_module_names
    found = {name_of(packages_distributions()[module][0]) for module in modules}
    return {PARTS.get(name, name) for name in found}


def test_what_is_imported_is_declared_and_the_other_way_round() -> None:
    """No dependency is there only by way of another, and none is there for nothing."""
    declared = {name_of(requirement) for requirement in PROJECT["dependencies"]}

    assert imported() == declared


@pytest.mark.parametrize("lock", LOCKS)
def test_every_locked_line_has_hashes_and_no_address(lock: str) -> None:
    """A lock says what is installed, byte for byte, and not from where."""
    text = (ROOT / lock).read_text(encoding="utf-8")
    entries = re.split(r"(?m)^(?=[a-z0-9])", text)[1:]

    assert len(entries) > 20
    assert [
        entry for entry in entries if not re.match(r"[\w.-]+==\S+.*\\\n +--hash=sha256:[0-9a-f]{64}", entry)
    ] == []
    assert "//" not in text
    assert "index" not in text


@pytest.mark.parametrize(
    ("lock", "extras"),
    [("requirements.lock", ("charts", "demo", "postgres")), ("requirements-dev.lock", ("dev",))],
)
def test_a_lock_has_all_that_is_declared(lock: str, extras: tuple[str, ...]) -> None:
    """A dependency that was added without `make lock` is found here and not by a user."""
    locked = set(re.findall(r"(?m)^([a-z0-9.-]+)==", (ROOT / lock).read_text(encoding="utf-8")))
    wanted = {*PROJECT["dependencies"]}
    for extra in extras:
        wanted.update(PROJECT["optional-dependencies"][extra])

    assert {name_of(requirement) for requirement in wanted} - {"animatic"} <= locked


def test_what_runs_is_what_is_tested() -> None:
    """The lock of the tests names the same versions as the lock of the bot."""
    run, dev = (
        set(re.findall(r"(?m)^\S+==\S+", (ROOT / lock).read_text(encoding="utf-8"))) for lock in LOCKS
    )

    assert run <= dev
