"""Named places where a test can end or halt the process at once. They exist for the kill matrix, and do nothing else.

Behind every transaction stands `store.committed`, behind every request that changed something at Discord `discord.answered`, and
behind every POST to a route `route.answered`: each where all of its kind pass, so that a new one cannot be without. Which of
them it was is the move: `store.committed/Posted`, `store.committed/Store.claim`, `discord.answered/PATCH messages`. The others
stand behind what files are written or taken away, and where a job is about to change something.

With ANIMATIC_FAIL_AT=name in the environment the process dies there as by SIGKILL; `name:3` lets it pass twice first, and
`name/move` ends it only with that move. With ANIMATIC_HALT_AT it stands still there, as a machine that sleeps, until somebody
sends it SIGCONT. tests/test_kill_matrix.py dies at each, sleeps at each, and sees that nothing is lost and nothing is paid twice.
"""

import os
import signal

FAIL_POINTS = (
    "store.migrated",
    "store.uncommitted",
    "store.committed",
    "discord.answered",
    "route.answered",
    "engine.pictures",
    "engine.paying",
    "engine.looked_up",
    "engine.checked",
    "engine.checked_many",
    "http.saved",
    "sketch.kept",
    "engine.fetched",
    "engine.other_fetched",
    "announcer.fitted",
    "engine.found",
    "engine.cleared",
    "engine.file_cleared",
    "engine.stopped",
    "alive.touched",
)

KILLED = 137  # as a shell tells of SIGKILL

HALTED = "halted at a point"  # what such a process says on stderr before

_halts = "ANIMATIC_HALT_AT" in os.environ
_point = os.environ.get("ANIMATIC_HALT_AT" if _halts else "ANIMATIC_FAIL_AT", "")
_place, _, _count = _point.partition(":")
_name, _, _move = _place.partition("/")
_left = int(_count) if _count.isdecimal() else 1


def reach(name: str, move: str = "") -> None:
    """End or halt the process here when the environment asks for it. `move`: its outcome's name, where there are several."""
    global _left
    if name == _name and _move in ("", move):
        _left -= 1
        if _left == 0 and _halts:
            os.write(2, HALTED.encode())
            os.kill(os.getpid(), signal.SIGSTOP)
        elif _left == 0:
            os._exit(KILLED)
