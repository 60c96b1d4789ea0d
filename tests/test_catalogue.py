"""What members read stands in one place a family, so that another language changes no logic."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent

# Each family of sentences has one place.
FAMILIES = {
    "bot/ui/catalogue.py": "what Discord's menus say of /animate, /settings, /pause and /resume",
    "bot/ui/guide.py": "/help, /privacy, /mydata and /consent",
    "bot/ui/lists.py": "/queue, /history and /show",
    "bot/ui/settings.py": "/settings",
    "bot/ui/usage.py": "/usage",
    "bot/ui/comparisons.py": "/compare and /leaderboard",
    "bot/jobs/comparing.py": "refusals of comparisons and votes",
    "bot/ui/reviews.py": "reports, and what moderators read of them; /blocked",
    "bot/jobs/safety.py": "what becomes of a report or a block",
    "bot/media/charts.py": "the picture of /usage",
    "bot/ui/cards.py": "cards and posts, and what their owner is told",
    "bot/ui/answer.py": "private answers",
    "bot/ui/forms.py": "modals",
    "bot/ui/controls.py": "buttons",
    "bot/ui/sources.py": "pictures that cannot be fetched",
    "bot/media/picture.py": "pictures that cannot be used",
    "bot/jobs/sentences.py": "refusals of limits, budgets and lists",
    "bot/jobs/desk.py": "refusals of requests",
    "bot/jobs/guilds.py": "refusals of a server's settings",
}
LOGIC = [
    path.relative_to(ROOT).as_posix()
    for folder in ("cogs", "bot/jobs", "bot/ui", "bot/media")
    for path in sorted((ROOT / folder).rglob("*.py"))
    if path.name != "audit.py"  # what the owner reads on the command line
]
LOGS = {"debug", "info", "warning", "error", "exception"}
MOST_WORDS = 3


def sentences(source: str) -> list[str]:
    """The texts of more than three words in a module, but for docstrings, and what only developers read."""
    return [text for text in _texts(ast.parse(source)) if _words(text) > MOST_WORDS]


def _texts(tree: ast.AST) -> Iterator[str]:
    for node in ast.iter_child_nodes(tree):
        match node:
            case ast.Expr(value=ast.Constant()) | ast.Assert():
                continue
            case ast.Raise(exc=ast.Call(func=ast.Name(id=name))) if name != "Refusal":
                continue
            case ast.Call(func=ast.Attribute(value=ast.Name(id="log" | "logger"), attr=attr)) if attr in LOGS:
                continue
            case ast.Call(func=ast.Name(id="Field" | "text")):  # the owner's settings; SQL
                continue
            case ast.JoinedStr():
                yield "".join(
                    str(part.value) if isinstance(part, ast.Constant) else "…" for part in node.values
                )
            case ast.Constant(value=str() as text):
                yield text
            case _:
                yield from _texts(node)


def _words(text: str) -> int:
    return sum(word.strip(".,;:?!()“”*`").isalpha() for word in text.split())


def test_sentences_are_found() -> None:
    """In calls, names and halves of formatted texts; docstrings, logs and errors of ours are none."""
    source = '''
"""A module that says a lot of things."""
SENTENCE = "This is for members to read."
def refuse(name):
    """A docstring of more than three words."""
    assert name, "a name that nobody will read"
    log.info("something happened to somebody somewhere", name=name)
    if not name:
        raise ValueError("only developers will read this one")
    raise Refusal(f"{name} is not to be had here. {FREE}")
'''

    assert sentences(source) == ["This is for members to read.", "… is not to be had here. …"]


@pytest.mark.parametrize("module", LOGIC)
def test_logic_says_nothing(module: str) -> None:
    """It only chooses what is said."""
    found = sentences((ROOT / module).read_text(encoding="utf-8"))

    if module in FAMILIES:
        assert found, "no place of sentences any more"
    else:
        assert found == []
