"""How measurements are printed: tables with their conditions, as text or as Markdown."""
# ruff: noqa: T201 - a benchmark prints its tables

import argparse
import logging
import os
import platform
import sqlite3
import sys
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import PackageNotFoundError, version

import structlog

PACKAGES = ("sqlalchemy", "aiosqlite", "asyncpg", "discord.py", "procrastinate", "dbos")


@dataclass
class Table:
    """What was measured, one row a case. `conditions` say what the numbers hold for."""

    title: str
    columns: Sequence[str]
    conditions: str = ""
    rows: list[tuple[str, ...]] = field(default_factory=list)

    def add(self, *cells: object) -> None:
        self.rows.append(tuple(str(cell) for cell in cells))

    def text(self) -> str:
        lines = [tuple(self.columns), *self.rows]
        widths = [max(len(line[i]) for line in lines) for i in range(len(self.columns))]
        shown = [
            "  "
            + line[0].ljust(widths[0])
            + "".join(f"  {c.rjust(w)}" for c, w in zip(line[1:], widths[1:], strict=True))
            for line in lines
        ]
        return "\n".join([self.title, *([f"  ({self.conditions})"] if self.conditions else []), *shown])

    def markdown(self) -> str:
        head = [self.columns, ["---", *["---:"] * (len(self.columns) - 1)]]
        lines = ["| " + " | ".join(line) + " |" for line in [*head, *self.rows]]
        return "\n".join(
            [f"**{self.title}**", "", *([self.conditions, ""] if self.conditions else []), *lines]
        )


def machine() -> str:
    """What every figure depends on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    load = f", load before {os.getloadavg()[0]:.1f}" if hasattr(os, "getloadavg") else ""
    return (
        f"{cores} cores{load}; Python {platform.python_version()}, SQLite {sqlite3.sqlite_version}; "
        + ", ".join(f"{name} {found}" for name in PACKAGES if (found := _version(name)))
    )


def _version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def quantile(values: Sequence[float], part: float) -> float:
    """The smallest value that at least this part of them does not exceed."""
    ordered = sorted(values)
    return ordered[min(int(part * len(ordered)), len(ordered) - 1)]


def quiet() -> None:
    """Log warnings only, ours and others': what is measured is not a console."""
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    logging.basicConfig(level=logging.WARNING)


def options(description: str | None) -> argparse.ArgumentParser:
    """The options that all measurements know."""
    parser = argparse.ArgumentParser(description=(description or "").split("\n")[0])
    parser.add_argument(
        "--markdown", action="store_true", help="print tables as docs/performance.md holds them"
    )
    return parser


def show(tables: Sequence[Table], *, markdown: bool) -> None:
    for table in tables:
        print(f"\n{table.markdown() if markdown else table.text()}")
    sys.stdout.flush()
