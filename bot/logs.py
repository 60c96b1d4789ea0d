"""One look for all log lines, ours and the libraries', and nothing secret in any of them.

Lines go to stderr: readable on a terminal, one JSON object each where nobody watches.
"""

import logging
import re
import sys
from collections.abc import Iterable, Mapping
from typing import Literal

import structlog
from structlog.typing import EventDict, Processor, WrappedLogger

OURS = ("bot", "cogs")
CHATTY = ("alembic", "sqlalchemy")  # their INFO is our DEBUG
SHORTEST_SECRET = 6  # a shorter one would blank out ordinary words
MASK = "•••"

_CONFIDENTIAL = r"(?:api[_-]?key|access[_-]?key|secret|token|password|authorization|cookie)"
_IS_SECRET = re.compile(rf"(?i).*{_CONFIDENTIAL}")
_PATTERNS: tuple[tuple[re.Pattern[str], str], ...] = (
    # the query of a signed link; the path alone still says which file was meant
    (re.compile(r"(?i)(\b(?:https?|wss?)://[^\s?'\"<>]+)\?[^\s'\"<>()]*"), r"\1?…"),
    # a password in an address, a database's too
    (re.compile(r"(\w://)[^/\s@'\"]+@"), rf"\1{MASK}@"),
    # https://discord.com/developers/docs/resources/webhook: the token stands in the path
    (re.compile(r"(?i)(/(?:webhooks|interactions)/\d+/)[^/\s?'\"]+"), rf"\1{MASK}"),
    # a bot's token, in three parts, and JSON web tokens
    (re.compile(r"(?<![\w-])[\w-]{23,40}\.[\w-]{6}\.[\w-]{27,}"), MASK),
    (re.compile(r"(?<![\w-])eyJ[\w-]+\.[\w-]+(?:\.[\w-]*)?"), MASK),
    (re.compile(r"(?i)\b(bearer|basic)\s+[\w.~+/=-]{8,}"), rf"\1 {MASK}"),
    # token=…, "api_key": "…", Authorization: Bot …
    (
        re.compile(
            rf"(?i)(?<![\w-])([\w-]*{_CONFIDENTIAL}['\"]?\s*[=:]\s*)"
            rf"(?:(['\"])(?:(?!\2).)+\2|(?:(?:bearer|basic|bot)\s+)?[^\s'\",;)}}\]]+)"
        ),
        rf"\1{MASK}",
    ),
)


class Mask:
    """Takes secrets out of text: the given ones wherever they stand, others by their shape."""

    def __init__(self, secrets: Iterable[str] = ()) -> None:
        known = sorted(
            {secret for secret in secrets if len(secret) >= SHORTEST_SECRET}, key=len, reverse=True
        )
        self._known = re.compile("|".join(map(re.escape, known))) if known else None

    def text(self, text: str) -> str:
        if self._known:
            text = self._known.sub(MASK, text)
        for pattern, replacement in _PATTERNS:
            text = pattern.sub(replacement, text)
        return text

    def value(self, value: object) -> object:
        """The same for what is not text: tables and lists by their parts, anything else by its repr."""
        if value is None or isinstance(value, bool | int | float):
            return value
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {
                self.text(str(key)): MASK if _IS_SECRET.fullmatch(str(key)) else self.value(inner)
                for key, inner in value.items()
            }
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(inner) for inner in value]
        return self.text(str(value) if isinstance(value, BaseException) else repr(value))

    def __call__(self, _logger: WrappedLogger, _method: str, event_dict: EventDict) -> EventDict:
        return {
            key: MASK if _IS_SECRET.fullmatch(key) else self.value(value) for key, value in event_dict.items()
        }


def configure(
    level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO",
    format: Literal["auto", "console", "json"] = "auto",  # noqa: A002 - the config's word
    *,
    secrets: Iterable[str] = (),
) -> None:
    """Set up all logging of the process; calling it again replaces what it did before.

    `level` is for our own lines. The libraries' never go below INFO: at DEBUG, discord.py and the HTTP
    client print whole messages. `secrets` are masked wherever they appear, tracebacks included.
    """
    console = format == "console" or (format == "auto" and sys.stderr.isatty())
    before: list[Processor] = [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True, key="time"),
    ]
    handler = logging.StreamHandler(sys.stderr)
    handler.set_name("animatic")
    handler.setFormatter(
        structlog.stdlib.ProcessorFormatter(
            foreign_pre_chain=before,
            processors=[
                structlog.stdlib.ProcessorFormatter.remove_processors_meta,
                structlog.processors.StackInfoRenderer(),
                structlog.processors.format_exc_info,
                Mask(secrets),
                *_renderer(console=console),
            ],
        )
    )
    root = logging.getLogger()
    for old in [old for old in root.handlers if old.get_name() == "animatic"]:
        root.removeHandler(old)
    root.addHandler(handler)
    number = logging.getLevelNamesMapping()[level]
    root.setLevel(max(number, logging.INFO))
    for name in OURS:
        logging.getLogger(name).setLevel(number)
    for name in CHATTY:
        logging.getLogger(name).setLevel(max(number, logging.WARNING))
    logging.captureWarnings(True)
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *before,
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
    )


def _renderer(*, console: bool) -> tuple[Processor, ...]:
    if not console:
        return (structlog.processors.JSONRenderer(ensure_ascii=False),)
    # rich's tracebacks would print local variables; ours is plain text by now, and masked
    return (
        structlog.dev.ConsoleRenderer(
            colors=sys.stderr.isatty(),
            timestamp_key="time",
            exception_formatter=structlog.dev.plain_traceback,
        ),
    )
