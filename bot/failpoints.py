"""Named places where a test can end or halt the process at once. They exist for the kill matrix, and do nothing else.

After every await that changes the world stands a `reach("name")`. With ANIMATIC_FAIL_AT=name in the
environment the process dies there as by SIGKILL; `name:3` lets it pass twice first, and `name/Posted` ends it only with that
move. With ANIMATIC_HALT_AT it stands still there, as a machine that sleeps, until somebody sends it SIGCONT.
tests/test_kill_matrix.py dies at each, sleeps at each, and sees that nothing is lost and nothing is paid twice.
"""

import os
import signal

FAIL_POINTS = (
    "desk.drafted",
    "desk.pair_drafted",
    "desk.card_posted",
    "desk.dropped",
    "desk.queued",
    "desk.cancelled",
    "desk.called_off",
    "desk.tried_again",
    "desk.let_go",
    "desk.redelivered",
    "desk.post_deleted",
    "desk.withheld",
    "desk.owner_asked",
    "desk.allowed",
    "desk.to_be_forgotten",
    "desk.left",
    "comparing.proposed",
    "comparing.voted",
    "comparing.revealed",
    "guilds.changed",
    "guilds.paused",
    "guilds.left",
    "guilds.joined",
    "safety.blocked",
    "safety.unblocked",
    "safety.reported",
    "safety.decided",
    "reviews.sent",
    "reviews.noted",
    "health.noted",
    "alerts.told",
    "engine.beaten",
    "engine.rescued",
    "engine.claimed",
    "engine.pictures",
    "engine.paying",
    "makevid.answered",
    "engine.answered",
    "engine.looked_up",
    "engine.checked",
    "engine.checked_many",
    "http.saved",
    "engine.fetched",
    "announcer.fitted",
    "engine.found",
    "engine.posted",
    "engine.posted_privately",
    "engine.other_fetched",
    "engine.pair_begun",
    "engine.pair_posted",
    "engine.pair_noted",
    "engine.parted",
    "engine.revealed",
    "engine.result_drawn",
    "engine.result_noted",
    "store.uncommitted",
    "engine.settled",
    "announcer.card_drawn",
    "announcer.reacted",
    "announcer.card_deleted",
    "engine.cleared",
    "engine.owner_told",
    "engine.erased",
    "engine.forgotten",
    "engine.taken_down",
    "engine.take_down_noted",
    "engine.stopped",
    "engine.released",
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
