"""The arrows of the design: who may import whom. Holds for modules that are yet to be written."""

import sys

import grimp
import pytest


@pytest.fixture(scope="module")
def graph() -> grimp.ImportGraph:
    return grimp.build_graph(
        "bot", "cogs", include_external_packages=True, exclude_type_checking_imports=True, cache_dir=None
    )


def within(module: str, packages: tuple[str, ...]) -> bool:
    return any(module == package or module.startswith(f"{package}.") for package in packages)


def imports(
    graph: grimp.ImportGraph, importers: tuple[str, ...], *, allowed: tuple[str, ...]
) -> list[tuple[str, str]]:
    """What modules of `importers` import of ours besides each other and what is allowed."""
    return [
        (importer, imported)
        for importer in sorted(graph.modules)
        if within(importer, importers)
        for imported in sorted(graph.find_modules_directly_imported_by(importer))
        # `bot` itself holds nothing but the version
        if within(imported, ("bot", "cogs"))
        and imported != "bot"
        and not within(imported, importers + allowed)
    ]


def test_the_graph_is_there(graph: grimp.ImportGraph) -> None:
    """A test of an empty graph would pass for ever."""
    assert graph.find_modules_directly_imported_by("bot.jobs.engine") >= {
        "bot.jobs.store",
        "bot.jobs.machine",
    }


@pytest.mark.parametrize("package", ["bot.jobs", "bot.providers", "bot.media"])
def test_jobs_providers_and_media_never_reach_discord(graph: grimp.ImportGraph, package: str) -> None:
    """Not even by way of another module: they serve a worker and the command line as well."""
    importers = {package} | graph.find_descendants(package)

    assert [m for m in importers if graph.chain_exists(m, "discord")] == []


@pytest.mark.parametrize(
    "module",
    ["bot.jobs.machine", "bot.jobs.pacing", "bot.jobs.limits", "bot.jobs.rating", "bot.jobs.sentences"],
)
def test_the_pure_modules_know_nobody_but_the_errors_and_sentences(
    graph: grimp.ImportGraph, module: str
) -> None:
    """What a job is and when it moves can be read, and tested, without anything else."""
    assert imports(graph, (module,), allowed=("bot.errors", "bot.jobs.sentences")) == []


@pytest.mark.parametrize(
    "module", ["bot.jobs.machine", "bot.jobs.pacing", "bot.jobs.limits", "bot.jobs.rating", "bot.errors"]
)
def test_the_pure_modules_use_the_standard_library_only(graph: grimp.ImportGraph, module: str) -> None:
    """No loop, no I/O, no clock, no database."""
    outside = {imported.split(".")[0] for imported in graph.find_modules_directly_imported_by(module)} - {
        "bot"
    }

    assert outside <= sys.stdlib_module_names
    assert outside.isdisjoint({"asyncio", "time", "os", "pathlib", "sqlite3", "socket"})


def test_jobs_know_providers_by_their_protocol_only(graph: grimp.ImportGraph) -> None:
    """The engine works with any provider, and with any way of telling people."""
    assert imports(graph, ("bot.jobs",), allowed=("bot.errors", "bot.failpoints", "bot.providers.base")) == []


def test_providers_know_outcomes_media_and_errors_only(graph: grimp.ImportGraph) -> None:
    """An adapter never knows the database, the engine or the config it is made from."""
    allowed = ("bot.jobs.machine", "bot.media", "bot.errors", "bot.failpoints")

    assert imports(graph, ("bot.providers",), allowed=allowed) == []


def test_routes_do_not_know_each_other(graph: grimp.ImportGraph) -> None:
    """A vendor's words stay in that vendor's file; what is shared is base, http, settings, or a part of the file."""
    shared = ("bot.providers.base", "bot.providers.http", "bot.providers.settings")
    routes = sorted(graph.find_children("bot.providers") - set(shared))
    across = [
        (route, imported)
        for route in routes
        for imported in graph.find_modules_directly_imported_by(route)
        if imported in routes and not imported.startswith(f"{route}_")
    ]

    assert across == []


def test_the_ui_knows_neither_cogs_nor_routes(graph: grimp.ImportGraph) -> None:
    """A card is drawn from a job alone."""
    allowed = ("bot.jobs", "bot.media", "bot.errors", "bot.failpoints", "bot.providers.base")

    assert imports(graph, ("bot.ui",), allowed=allowed) == []


def test_cogs_know_desk_and_ui(graph: grimp.ImportGraph) -> None:
    """A cog has no way to the database, the engine or a provider."""
    shut = (
        "bot.jobs.store",
        "bot.jobs.members",
        "bot.jobs.moderation",
        "bot.jobs.tables",
        "bot.jobs.engine",
        "bot.config",
        "bot.__main__",
        "bot.demo",
        "bot.demo_pictures",
    )
    found = [
        (cog, imported)
        for cog in graph.find_descendants("cogs")
        for imported in graph.find_modules_directly_imported_by(cog)
        if within(imported, shut)
        or (within(imported, ("bot.providers",)) and imported != "bot.providers.base")
        or within(imported, ("sqlalchemy", "aiohttp"))
    ]

    assert found == []


def test_sql_is_in_few_places(graph: grimp.ImportGraph) -> None:
    """The store, and beside it what people read, and what they decide about their data."""
    assert graph.find_modules_that_directly_import("bot.jobs.tables") == {
        "bot.jobs.browsing",
        "bot.jobs.comparisons",
        "bot.jobs.members",
        "bot.jobs.moderation",
        "bot.jobs.store",
        "bot.jobs.tally",
        "bot.jobs.usage",
        "bot.migrations.env",
    }


def test_nobody_imports_cogs(graph: grimp.ImportGraph) -> None:
    """The client loads them by name; they do not import each other."""
    assert imports(graph, ("bot",), allowed=()) == []
    assert [
        (cog, imported)
        for cog in graph.find_descendants("cogs")
        for imported in graph.find_modules_directly_imported_by(cog)
        if within(imported, ("cogs",))
    ] == []


def test_nothing_imports_the_composition_root_but_its_commands(graph: grimp.ImportGraph) -> None:
    """Everything is built in one place."""
    assert graph.find_modules_that_directly_import("bot.__main__") <= {"bot.cli", "bot.demo", "bot.start"}
