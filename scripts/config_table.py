"""Prints the README's table of config keys, from the declarations in bot/config.py."""

import json
import sys
from decimal import Decimal
from pathlib import Path

from pydantic import BaseModel, SecretStr

from bot.config import Key, keys


def table() -> str:
    """Every key with its default and what it is for, as a Markdown table."""
    rows = [f"| `{key.name}` | {_default(key)} | {key.field.description} |" for key in keys()]
    return "\n".join(["| key | default | what it is |", "|---|---|---|", *rows])


def _default(key: Key) -> str:
    value = key.field.get_default()
    if key.field.is_required():
        return "required"
    if isinstance(value, SecretStr):
        value = value.get_secret_value()
    if value is None or isinstance(value, BaseModel) or "Undefined" in type(value).__name__:
        return "–"
    if isinstance(value, Decimal | Path):
        value = str(value)
    return f"`{json.dumps(value, ensure_ascii=False)}`"


if __name__ == "__main__":
    sys.stdout.write(table() + "\n")
