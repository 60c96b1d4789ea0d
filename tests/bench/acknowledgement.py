"""How soon a member sees that the bot has heard: `python -m tests.bench.acknowledgement`.

A real `animatic run` process, with discord.py, a real gateway connection and real HTTP, is sent 200 `/animate`
at once, each with an attached picture, by a Discord on loopback in this process. Measured there, with one
clock: from the moment an interaction goes into the gateway's socket until its first answer has arrived
("thinking…"; Discord waits three seconds for it), and until the private receipt, which comes when the picture
was fetched and made to fit, the job stored and its card posted.
"""

import asyncio
import io
import os
import sys
import tempfile
import time
from asyncio.subprocess import DEVNULL
from collections.abc import Callable
from pathlib import Path

from PIL import Image

from tests.bench import databases
from tests.bench.report import Table, quantile, quiet, show
from tests.bench.report import options as common
from tests.servers.discord import CHANNEL_ID, TOKEN, DiscordServer
from tests.servers.makevid import MakevidServer

ROOT = Path(__file__).parents[2]
COMMANDS = 200
CHANNELS = 20
DISCORD_WAITS = 3.0
SIDE = (1600, 1200)  # of the attached picture


def a_picture() -> bytes:
    file = io.BytesIO()
    Image.effect_noise(SIDE, 60).convert("RGB").save(file, "JPEG", quality=85)
    return file.getvalue()


def config(
    folder: Path, discord: DiscordServer, makevid: MakevidServer, database: str, commands: int
) -> Path:
    path = folder / "config.toml"
    path.write_text(
        f"""
        [discord]
        token = "{TOKEN}"
        api_base = "{discord.api_base}"
        [store]
        url = "{database}"
        [data]
        folder = "{(folder / "data").as_posix()}"
        [network]
        allow_private_addresses = true
        [animate]
        active_per_member = 2
        active_total = {commands}
        [routes.makevid]
        api_key = "test-key"
        base_url = "{makevid.base_url}"
        [models.kling]
        route = "makevid"
        price = 0.07
        """
    )
    return path


async def until(condition: Callable[[], bool], seconds: float, what: str) -> None:
    end = time.perf_counter() + seconds
    while not condition():
        if time.perf_counter() > end:
            raise RuntimeError(f"after {seconds:.0f} s: {what}")
        await asyncio.sleep(0.02)


async def rush(database: str, commands: int) -> tuple[list[float], list[float]]:
    """Seconds from each command to its first answer, and from the first command to each receipt."""
    with tempfile.TemporaryDirectory() as name:
        folder, picture = Path(name), a_picture()
        async with DiscordServer() as discord, MakevidServer(clip=b"clip") as makevid:
            makevid.polls_until_done = 1_000_000
            path = config(folder, discord, makevid, database, commands)
            environment = {key: value for key, value in os.environ.items() if not key.startswith("ANIMATIC_")}
            with (folder / "log").open("wb") as log:
                bot = await asyncio.create_subprocess_exec(
                    sys.executable,
                    *("-m", "bot", "run", "--config", str(path)),
                    stdout=DEVNULL,
                    stderr=log,
                    env={**environment, "PYTHONPATH": str(ROOT)},
                )
            try:
                await until(
                    lambda: discord.connected.is_set() and bool(discord.commands), 30, "not connected"
                )
                await asyncio.sleep(1)
                waiting = [
                    discord.animate(
                        picture, SIDE, member=1_000_000 + n, channel=CHANNEL_ID + 1 + n % CHANNELS
                    )
                    for n in range(commands)
                ]
                sent: dict[int, float] = {}
                for command in waiting:
                    sent[int(command["id"])] = time.perf_counter()
                    await discord.dispatch("INTERACTION_CREATE", command)
                receipts: list[float] = []
                began = min(sent.values())

                def all_told() -> bool:
                    new = len(discord.follow_ups) - len(receipts)
                    receipts.extend([time.perf_counter() - began] * new)
                    return len(receipts) >= commands

                await until(all_told, 120, "not all commands got their receipt")
                check(discord, commands)
                return [discord.acknowledged[each] - at for each, at in sent.items()], receipts
            except RuntimeError:
                sys.stderr.write((folder / "log").read_text()[-3000:])
                raise
            finally:
                bot.terminate()
                try:
                    await asyncio.wait_for(bot.wait(), 20)
                except TimeoutError:
                    bot.kill()
                    await bot.wait()


def check(discord: DiscordServer, commands: int) -> None:
    """Nobody was left out or refused."""
    refused = [body for body in discord.follow_ups if "Nothing was charged" in str(body)]
    if refused or len(discord.acknowledged) != commands:
        raise RuntimeError(f"{len(discord.acknowledged)} acknowledged, {len(refused)} refused: {refused[:1]}")


async def measure(server: str, *, commands: int) -> list[Table]:
    table = Table(
        f"First acknowledgement of {commands} simultaneous /animate",
        ("", "p50", "p95", "p99", "greatest", "aim", "receipt p50", "last receipt"),
        f"one `animatic run`, a new picture of {SIDE[0]}×{SIDE[1]} with each, {CHANNELS} channels; Discord on "
        f"loopback shares the cores; Discord waits {DISCORD_WAITS:.0f} s",
    )
    with tempfile.TemporaryDirectory() as folder:
        for name, database in (
            ("SQLite", databases.sqlite_file(Path(folder))),
            ("PostgreSQL", databases.for_store(await databases.new_database(server))),
        ):
            times, receipts = await rush(database, commands)
            cells = [quantile(times, part) for part in (0.5, 0.95, 0.99, 1)]
            table.add(
                name,
                *(f"{cell * 1000:,.0f} ms" for cell in cells),
                "p99 < 1 s",
                f"{quantile(receipts, 0.5):.1f} s",
                f"{max(receipts):.1f} s",
            )
    return [table]


def main() -> None:
    parser = common(__doc__)
    parser.add_argument("--commands", type=int, default=COMMANDS)
    asked = parser.parse_args()
    quiet()
    with databases.postgresql() as server:
        tables = asyncio.run(measure(server, commands=asked.commands))
    show(tables, markdown=asked.markdown)


if __name__ == "__main__":
    main()
