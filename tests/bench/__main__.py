"""All measurements, one table after the other: `python -m tests.bench`, or `make bench`.

Each has a module of its own with options to make it smaller. `--markdown` prints what docs/performance.md holds
between its two marks, `--write` puts it there.
"""
# ruff: noqa: T201 - a benchmark prints its tables

import asyncio
import sys
import time
from collections.abc import Callable
from pathlib import Path

from tests.bench import acknowledgement, claims, databases, in_flight, polling, throughput
from tests.bench.report import Table, machine, options, quiet, show

PAGE = Path(__file__).parents[2] / "docs" / "performance.md"
MARKS = "<!-- python -m tests.bench --write -->", "<!-- end of tables -->"

Rows = dict[str, Callable[[str, bool], list[Table]]]
ROWS: Rows = {
    "throughput": lambda server, small: asyncio.run(
        throughput.measure(
            server,
            number=200 if small else throughput.JOBS,
            workers=(1,) if small else throughput.WORKERS,
            rounds=1 if small else throughput.ROUNDS,
        )
    ),
    "in_flight": lambda server, small: asyncio.run(
        in_flight.measure(
            server,
            sqlite=(500,) if small else in_flight.SQLITE,
            postgresql=(500,) if small else in_flight.POSTGRESQL,
            seconds=4 if small else in_flight.SECONDS,
        )
    ),
    "claims": lambda server, small: asyncio.run(
        claims.measure(
            server,
            seconds=0.1 if small else claims.SECONDS,
            rounds=1 if small else claims.ROUNDS,
            waiting=claims.WAITING,
        )
    ),
    "polling": lambda _server, small: [] if small else polling.measure(),
    "acknowledgement": lambda server, small: asyncio.run(
        acknowledgement.measure(server, commands=20 if small else acknowledgement.COMMANDS)
    ),
}


def main() -> None:
    parser = options(__doc__)
    parser.add_argument(
        "rows", nargs="*", metavar="row", help=f"some of {', '.join(ROWS)}; all when left out"
    )
    parser.add_argument("--small", action="store_true", help="does it run at all: the figures mean nothing")
    parser.add_argument("--write", action="store_true", help=f"put the tables into {PAGE.name}")
    asked = parser.parse_args()
    if unknown := set(asked.rows) - set(ROWS):
        parser.error(f"no such row: {', '.join(sorted(unknown))}")
    quiet()
    began, conditions, tables = time.perf_counter(), machine(), list[Table]()
    print(conditions, flush=True)
    with databases.postgresql() as server:
        for row, measure in ROWS.items():
            if not asked.rows or row in asked.rows:
                print(f"{row} …", file=sys.stderr, flush=True)
                found = measure(server, asked.small)
                show(found, markdown=asked.markdown)
                tables += found
    took = f"{(time.perf_counter() - began) / 60:.0f} minutes"
    print(f"\n{took}")
    if asked.write:
        before, rest = PAGE.read_text(encoding="utf-8").split(MARKS[0])
        _, after = rest.split(MARKS[1])
        body = "\n\n".join([f"{conditions}. All of it took {took}.", *(table.markdown() for table in tables)])
        PAGE.write_text(f"{before}{MARKS[0]}\n\n{body}\n\n{MARKS[1]}{after}", encoding="utf-8")


if __name__ == "__main__":
    main()
