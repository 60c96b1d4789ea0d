"""The logs: one look, and nothing secret in any line."""

import io
import json
import logging
import sys
import time
import warnings
from collections.abc import Iterator
from datetime import datetime, timedelta
from typing import Any

import pytest
import structlog

from bot import logs
from bot.logs import MASK, Mask
from tests.conftest import log_plainly

TOKEN = "MTk4NjIyNDgzNDcxOTI1MjQ4.Cl2FMQ.not-really-a-token-at-all-00"
INTERACTION = "aW50ZXJhY3Rpb246MTIzOmFiY2RlZg"


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


class Written:
    """All that was written to stderr so far."""

    def __init__(self, capsys: pytest.CaptureFixture[str]) -> None:
        self._capsys = capsys
        self._text = ""

    def getvalue(self) -> str:
        self._text += self._capsys.readouterr().err
        return self._text


@pytest.fixture
def stream(capsys: pytest.CaptureFixture[str]) -> Iterator[Written]:
    """What is written to stderr; all logging is as before when the test is over."""
    names = ("", *logs.OURS, *logs.CHATTY)
    levels = {name: logging.getLogger(name).level for name in names}
    handlers = list(logging.getLogger().handlers)
    yield Written(capsys)
    logging.captureWarnings(False)
    log_plainly()
    logging.getLogger().handlers[:] = handlers
    for name, level in levels.items():
        logging.getLogger(name).setLevel(level)


def lines(stream: Written) -> list[dict[str, Any]]:
    return [json.loads(line) for line in stream.getvalue().splitlines()]


# The look


def test_a_line_has_event_level_logger_and_time_in_utc(stream: Written) -> None:
    """Where nobody watches, a line is one JSON object."""
    logs.configure("INFO", "json")

    structlog.get_logger("bot.jobs.engine").info("job_moved", state="queued")

    (line,) = lines(stream)
    assert line | {"time": ""} == {
        "event": "job_moved",
        "state": "queued",
        "level": "info",
        "logger": "bot.jobs.engine",
        "time": "",
    }
    assert datetime.fromisoformat(line["time"]).utcoffset() == timedelta(0)


def test_a_librarys_line_looks_like_ours(stream: Written) -> None:
    """discord.py logs through the standard library; its lines pass through the same formatter."""
    logs.configure("INFO", "json")

    logging.getLogger("discord.gateway").info("Shard ID %s has connected", 3)

    (line,) = lines(stream)
    assert (line["event"], line["logger"], line["level"]) == (
        "Shard ID 3 has connected",
        "discord.gateway",
        "info",
    )


def test_the_job_bound_by_the_engine_is_in_every_line(stream: Written) -> None:
    """The job's id is bound once, and stands in the libraries' lines too."""
    logs.configure("INFO", "json")

    with structlog.contextvars.bound_contextvars(job="j1"):
        structlog.get_logger("bot").info("ours")
        logging.getLogger("discord").info("theirs")
    structlog.get_logger("bot").info("after")

    assert [line.get("job") for line in lines(stream)] == ["j1", "j1", None]


def test_auto_is_readable_on_a_terminal_and_json_elsewhere(
    stream: Written, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`auto` asks whether somebody watches."""
    logs.configure()
    structlog.get_logger("bot").info("unwatched")
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    logs.configure()
    structlog.get_logger("bot").info("watched")

    assert [line["event"] for line in lines(stream)] == ["unwatched"]
    assert "watched" in terminal.getvalue()
    assert "{" not in terminal.getvalue()


def test_debug_is_for_our_own_lines_only(stream: Written) -> None:
    """At DEBUG discord.py prints whole gateway messages, with people's words and tokens in them."""
    logs.configure("DEBUG", "json")

    structlog.get_logger("bot.jobs").debug("ours")
    structlog.get_logger("cogs.animate").debug("ours too")
    logging.getLogger("discord.gateway").debug("WebSocket Event: {...}")
    logging.getLogger("alembic.runtime.migration").info("Context impl SQLiteImpl.")

    assert [line["event"] for line in lines(stream)] == ["ours", "ours too"]


def test_the_level_holds_for_everybody(stream: Written) -> None:
    """At ERROR neither we nor the libraries warn."""
    logs.configure("ERROR", "json")

    structlog.get_logger("bot").warning("ours")
    logging.getLogger("discord").warning("theirs")
    logging.getLogger("discord").error("worth a look")

    assert [line["event"] for line in lines(stream)] == ["worth a look"]


def test_configuring_again_replaces_what_was(stream: Written) -> None:
    """Two set-ups do not write every line twice."""
    logs.configure("INFO", "json")
    logs.configure("INFO", "json")

    structlog.get_logger("bot").info("once")

    assert len(lines(stream)) == 1


def test_python_warnings_become_lines(stream: Written) -> None:
    """A deprecation does not break the run of JSON lines."""
    logs.configure("INFO", "json")

    with warnings.catch_warnings():
        warnings.simplefilter("always")
        logging.captureWarnings(False)
        logging.captureWarnings(True)
        warnings.warn("old ways", stacklevel=1)

    assert "old ways" in lines(stream)[-1]["event"]


# Secrets


@pytest.mark.parametrize(
    ("text", "masked"),
    [
        (
            "GET https://cdn.discordapp.com/attachments/1/2/cat.png?ex=1&is=2&hm=abc done",
            "GET https://cdn.discordapp.com/attachments/1/2/cat.png?… done",
        ),
        ("see (http://host/clip.mp4?sig=abc)", "see (http://host/clip.mp4?…)"),
        ("wss://gateway.discord.gg/?v=10&key=abc", "wss://gateway.discord.gg/?…"),
        ("https://host/path without a query?", "https://host/path without a query?"),
        (
            f"PATCH https://discord.com/api/v10/webhooks/123/{INTERACTION}/messages/@original 404",
            f"PATCH https://discord.com/api/v10/webhooks/123/{MASK}/messages/@original 404",
        ),
        (
            f"POST /interactions/456/{INTERACTION}/callback",
            f"POST /interactions/456/{MASK}/callback",
        ),
        ("Bearer sk-abcdefgh1234", f"Bearer {MASK}"),
        ("Authorization: Bearer sk-abcdefgh1234, next", f"Authorization: {MASK}, next"),
        ("{'Authorization': 'Bot abc.def', 'X': '1'}", f"{{'Authorization': {MASK}, 'X': '1'}}"),
        ('{"api_key": "abc def", "n": 1}', f'{{"api_key": {MASK}, "n": 1}}'),
        ("token=abc&n=1", f"token={MASK}"),
        (f"logged in with {TOKEN}.", f"logged in with {MASK}."),
        ("eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJhIn0.c2ln", MASK),
        ("postgresql+asyncpg://me:pass@host/animatic", f"postgresql+asyncpg://{MASK}@host/animatic"),
        ("the key-to-the-house is under the mat", f"the {MASK} is under the mat"),
        ("a cat asks for its token of love", "a cat asks for its token of love"),
        ("job moved in 3.5 seconds, 12:30:00", "job moved in 3.5 seconds, 12:30:00"),
    ],
)
def test_secrets_are_masked_by_their_shape_or_because_they_are_known(text: str, masked: str) -> None:
    """Signed links lose their query; tokens, keys and passwords become dots; ordinary words stay."""
    assert Mask(["key-to-the-house"]).text(text) == masked


def test_a_secret_inside_another_leaves_no_rest() -> None:
    """The longer of two overlapping secrets goes first."""
    assert Mask(["abcdef", "abcdefghi"]).text("abcdefghi") == MASK


def test_a_very_short_secret_does_not_blank_out_words() -> None:
    """A test's key `a` would otherwise take every a."""
    assert Mask(["a", ""]).text("a cat") == "a cat"


def test_a_long_text_is_masked_quickly() -> None:
    """A provider's answer of a million characters does not hold up the event loop."""
    started = time.process_time()
    for text in ("a" * 1_000_000, "a-" * 500_000, "eyJ" * 300_000, "://" * 300_000, "token" * 200_000):
        Mask(["secret-one"]).text(text)

    assert time.process_time() - started < 5


@pytest.mark.parametrize("look", ["json", "console"])
def test_no_part_of_a_line_carries_a_secret(stream: Written, look: Any) -> None:
    """Names of keys, values at any depth, objects, arguments of the libraries' lines: all are masked."""
    logs.configure("INFO", look, secrets=["key-to-the-house"])

    class Thing:
        def __repr__(self) -> str:
            return "<Thing key-to-the-house>"

    structlog.get_logger("bot").info(
        "asked key-to-the-house",
        api_key="plain-one",
        headers={"Authorization": "plain-two", "deep": [{"password": "plain-three"}, "key-to-the-house"]},
        thing=Thing(),
        error=ValueError("key-to-the-house"),
        link="https://host/a?plain-four",
    )
    logging.getLogger("discord.http").warning("POST %s with %s", "https://host/?plain-four", Thing())

    text = stream.getvalue()
    assert text.count(MASK) >= 6
    assert "plain-" not in text
    assert "key-to-the-house" not in text


@pytest.mark.parametrize("look", ["json", "console"])
def test_a_traceback_carries_no_secret(stream: Written, look: Any) -> None:
    """Neither message, cause nor source line; local variables are never printed."""
    logs.configure("INFO", look, secrets=["key-to-the-house"])
    local = "only-a-local" + "-variable"

    def look_in() -> None:
        raise ValueError(f"no door for {'key-to-'}the-house, {len(local)}")

    def fail() -> None:
        try:
            look_in()
        except ValueError as cause:
            raise RuntimeError("GET https://host/clip.mp4?plain-four failed, token=plain-five") from cause

    for log in (structlog.get_logger("bot"), logging.getLogger("asyncio")):
        try:
            fail()
        except RuntimeError:
            log.exception("broke")

    text = stream.getvalue()
    assert text.count("RuntimeError") >= 2
    assert "key-to-the-house" not in text
    assert "plain-f" not in text
    assert local not in text
