"""The tables of keys in docs/configs.md, made from the models of configs.

A table stands between ``<!-- keys: NAME -->`` and ``<!-- end -->``; NAME is a kind, or ``run`` for the
keys that all runs share. The text around the tables is written by hand.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator

from em_blocks.tasks.base import RunConfig

_TABLE = re.compile(r"(<!-- keys: (\w+) -->\n).*?(<!-- end -->)", re.DOTALL)
_HEAD = "| key | values | meaning | default |\n| --- | --- | --- | --- |\n"
_NAMES = {"integer": "integer", "number": "number", "string": "text", "boolean": "`true`, `false`"}


def with_tables(page: str, schemas: dict[str, dict]) -> str:
    """Return a page whose tables say what the models say.

    Parameters
    ----------
    page : str
        Markdown with markers.
    schemas : dict
        JSON Schema by kind.
    """
    shared = RunConfig.model_json_schema()
    schemas = {**schemas, "run": shared}

    def table(match: re.Match) -> str:
        begin, name, end = match.groups()
        hidden = {} if name == "run" else shared["properties"]
        rows = (f"| {' | '.join(row)} |\n" for row in _rows(schemas[name], hidden))
        return begin + _HEAD + "".join(rows) + end

    return _TABLE.sub(table, page)


def tables_of(page: str) -> list[str]:
    """List the names of the tables that a page has."""
    return [name for _, name, _ in _TABLE.findall(page)]


def _rows(schema: dict, hidden: dict) -> Iterator[tuple[str, ...]]:
    """Yield the cells of every key but those that are as in `hidden`."""
    for key, value in schema["properties"].items():
        if hidden.get(key) != value:
            yield from _key_rows(key, value, key in schema.get("required", ()), schema.get("$defs", {}))


def _key_rows(key: str, value: dict, required: bool, models: dict) -> Iterator[tuple[str, ...]]:
    """Yield the row of a key, then those of the keys of objects below it."""
    values = " or ".join(dict.fromkeys(_values(value, models)))
    default = "required" if required else _default(value.get("default"), value)
    meaning = value.get("description", "").replace("|", "\\|")
    yield f"`{key}`", values, meaning, default
    for below, model in _objects(key, value, models):
        for name, inner in model["properties"].items():
            yield from _key_rows(f"{below}.{name}", inner, name in model.get("required", ()), models)


def _default(default: object, value: dict) -> str:
    if isinstance(default, dict) or (default is None and "default" not in value):
        return ""  # an object's keys have their own
    return "none" if default is None else f"`{json.dumps(default)}`"


def alternatives(value: dict) -> list[dict]:
    """Return the schemas of which a value fits one; null is left out."""
    parts = value.get("anyOf") or value.get("oneOf")
    if parts is None:
        return [value]
    return [inner for part in parts for inner in alternatives(part) if part.get("type") != "null"]


def _objects(key: str, value: dict, models: dict) -> Iterator[tuple[str, dict]]:
    """Yield the models of objects that a value may be or hold, and the key that they stand at."""
    for part in alternatives(value):
        inner = part.get("additionalProperties")
        if isinstance(inner, dict):
            yield from _objects(f"{key}.NAME", inner, models)
        name = part.get("$ref", "").removeprefix("#/$defs/")
        if name not in ("", "VolumeInput") and "properties" in models[name]:
            yield key, models[name]


def _values(value: dict, models: dict) -> Iterator[str]:
    for part in alternatives(value):
        if "$ref" in part:
            yield _named(part["$ref"].removeprefix("#/$defs/"), models)
        elif "enum" in part or "const" in part:
            yield ", ".join(f"`{json.dumps(v)}`" for v in part.get("enum", [part.get("const")]))
        elif part.get("type") == "array":
            yield _list(part, models)
        elif part.get("type") == "object":
            inner = part.get("additionalProperties")
            yield f"`{{name: ...}}` of {_text(inner, models)}" if isinstance(inner, dict) else "object"
        else:
            yield "path" if part.get("format") == "path" else _NAMES[part["type"]]


def _named(name: str, models: dict) -> str:
    if name == "VolumeInput":
        return "object with its path"
    model = models[name]
    return "object" if "properties" in model else _text(model, models)


def _list(part: dict, models: dict) -> str:
    """Describe an array: a fixed number of values, or a list of them."""
    if "prefixItems" in part:
        kinds = list(dict.fromkeys(_text(item, models) for item in part["prefixItems"]))
        return f"{len(part['prefixItems'])} x {' or '.join(kinds)}"
    return f"list of {_text(part.get('items', {}), models)}"


def _text(value: dict, models: dict) -> str:
    return " or ".join(dict.fromkeys(_values(value, models)))
