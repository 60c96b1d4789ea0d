"""A ComfyUI workflow as a form: its file, exported in API format, has placeholders where a request's values go.

A placeholder stands in double braces, as {{prompt}}. Where it is a node's whole value it becomes the value with
its type, so that "length": "{{frames}}" becomes "length": 81; inside a longer text it becomes text.
"""

import json
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

LARGEST_FILE = 1024 * 1024

PLACEHOLDERS = {
    "prompt": "what the member wrote",
    "negative": "what should not be in the clip; empty where nothing was said",
    "picture": "the picture, by the name that ComfyUI gave it when it was uploaded (LoadImage: image)",
    "end_picture": "the picture to end on, in the same way; the first one where none was given",
    "seconds": "how long the clip is",
    "frames": "the same in frames: seconds times frames_per_second, and one",
    "fps": "frames_per_second",
    "width": "the clip's width in pixels, of the picture's or the chosen shape",
    "height": "its height",
    "seed": "a number that differs from clip to clip",
    "file": "the beginning of a file name, for the node that saves the clip (filename_prefix)",
}

_PLACEHOLDER = re.compile(r"\{\{\s*(\w+)\s*\}\}")
_SAVES = re.compile(r"save|combine|export|write", re.IGNORECASE)
_EXPORT = "in ComfyUI choose Workflow, then Export (API)"


@dataclass(frozen=True, slots=True, kw_only=True)
class Workflow:
    """The nodes by id, and the names of the placeholders in them."""

    nodes: Mapping[str, object]
    names: frozenset[str]

    def filled(self, values: Mapping[str, str | int | float]) -> object:
        """The nodes with the values in place. What a value says is not read for placeholders again."""
        return _filled(self.nodes, values)


def read_workflow(path: Path) -> Workflow:
    """Read and check the file. Raises ValueError with a sentence for the owner."""
    try:
        with path.open("rb") as file:
            raw = file.read(LARGEST_FILE + 1)
        nodes = json.loads(raw.decode("utf-8-sig")) if len(raw) <= LARGEST_FILE else None
    except OSError as error:
        raise ValueError(f"cannot be read ({error.strerror}); {_EXPORT}, and give the file's path") from None
    except (ValueError, RecursionError):
        raise ValueError(f"is not JSON; {_EXPORT}, and put only placeholders in quotes into it") from None
    if nodes is None:
        raise ValueError("is larger than 1 MiB, which no workflow is")
    nodes = nodes if isinstance(nodes, dict) else {}
    if "nodes" in nodes and "links" in nodes:
        raise ValueError(f"is a workflow as the editor saves it, which ComfyUI cannot run; {_EXPORT}")
    if not nodes or not all(map(_is_node, nodes.values())):
        raise ValueError(f"is not a workflow in API format; {_EXPORT}")
    names = frozenset(_names(nodes))
    known = ", ".join(f"{{{{{name}}}}}" for name in PLACEHOLDERS)
    if unknown := names - PLACEHOLDERS.keys():
        raise ValueError(f"has {{{{{min(unknown)}}}}}, which is no placeholder; there are {known}")
    if "prompt" not in names:
        raise ValueError("has no {{prompt}}: put it where the text of your prompt stands in the file")
    if "end_picture" in names and "picture" not in names:
        raise ValueError("has {{end_picture}} but no {{picture}}")
    if "file" not in names and not any(_SAVES.search(node["class_type"]) for node in nodes.values()):
        raise ValueError(
            "has no node that saves a clip, such as SaveVideo; if it has one of another name, "
            'put "{{file}}" as its filename_prefix'
        )
    return Workflow(nodes=nodes, names=names)


def _is_node(node: object) -> bool:
    return (
        isinstance(node, dict)
        and isinstance(node.get("class_type"), str)
        and isinstance(node.get("inputs"), dict)
    )


def _names(value: object) -> set[str]:
    if isinstance(value, str):
        return set(_PLACEHOLDER.findall(value))
    inner = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return {name for each in inner for name in _names(each)}


def _filled(value: object, values: Mapping[str, str | int | float]) -> object:
    if isinstance(value, dict):
        return {key: _filled(each, values) for key, each in value.items()}
    if isinstance(value, list):
        return [_filled(each, values) for each in value]
    if not isinstance(value, str):
        return value
    if whole := _PLACEHOLDER.fullmatch(value):
        return values[whole[1]]
    return _PLACEHOLDER.sub(lambda found: str(values[found[1]]), value)
