"""Processes of the bot's, each forked from one that has imported everything: the tests start hundreds."""

import asyncio
import gc
import importlib
import multiprocessing
import os
import runpy
import sys
import warnings
from collections.abc import Mapping, Sequence
from contextlib import suppress
from pathlib import Path

from bot import failpoints

ROOT = Path(__file__).parent.parent

_forks = multiprocessing.get_context("forkserver")
_forks.set_forkserver_preload(["tests.preloaded"])


def _program(
    arguments: Sequence[str], log: Path, out: Path | None, environment: Mapping[str, str], folder: Path | None
) -> None:
    """What `python -m arguments` does there, told on stderr into `log` and on stdout into `out`."""
    gc.freeze()  # what was imported before is not looked through again in each
    os.environ.clear()
    os.environ.update(environment)
    with log.open("wb") as errors:
        os.dup2(errors.fileno(), 2)
    with (out or Path(os.devnull)).open("wb") as answers:
        os.dup2(answers.fileno(), 1)
    if folder:
        os.chdir(folder)
    sys.path.insert(0, str(Path.cwd()))
    importlib.reload(failpoints)  # read from the environment
    warnings.filterwarnings("ignore", category=RuntimeWarning, module="runpy")  # the module is here already
    module, *sys.argv[1:] = arguments
    runpy.run_module(module, run_name="__main__", alter_sys=True)


def environment(**more: str) -> dict[str, str]:
    """For a process of ours: this one's, without settings of the bot, and with some more."""
    usual = {name: value for name, value in os.environ.items() if not name.startswith("ANIMATIC_")}
    return {**usual, "PYTHONPATH": str(ROOT), **more}


class Forked:
    """As much of `asyncio.subprocess.Process` as is needed here."""

    def __init__(
        self,
        arguments: Sequence[str],
        *,
        log: Path,
        out: Path | None = None,
        environment: Mapping[str, str],
        folder: Path | None = None,
    ) -> None:
        what = (arguments, log, out, dict(environment), folder)
        self._process = _forks.Process(target=_program, args=what)
        self._process.start()

    @property
    def returncode(self) -> int | None:
        return self._process.exitcode

    async def wait(self) -> int:
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        watched = os.dup(self._process.sentinel)  # of several who wait, each has its own
        loop.add_reader(watched, ended.set)
        try:
            await ended.wait()
        finally:
            loop.remove_reader(watched)
            os.close(watched)
        self._process.join()
        code = self._process.exitcode
        assert code is not None
        return code

    def send_signal(self, number: int) -> None:
        with suppress(ProcessLookupError):
            os.kill(self._process.pid or 0, number)

    def kill(self) -> None:
        self._process.kill()
