"""What every forked process has from its first moment, see `forked.py`: hundreds need not import and read it each."""

import rich.progress
import typer.rich_utils

import bot.__main__
import bot.jobs.audit
import bot.logs
import tests.asking
from bot.jobs import store

__all__ = ["bot", "rich", "tests", "typer"]

store._head()
