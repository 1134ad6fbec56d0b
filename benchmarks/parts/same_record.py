"""Everything that a chain of commands leaves behind, as one JSON document; and where two of them differ.

Files are kept as sha256 of their bytes, JSON files and rows of the database by their content. Times,
hosts, process numbers and versions are left out, and folders are replaced by words.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

Record = dict[str, object]
"""By name ("file ...", "row ...", "answer ..."), a sha256 or a JSON value."""

LEFT_OUT = {"commands.log", "configs", "setups", "db", "logs", "sessions"}
"""Names of files and folders that are no results."""
COLLECTIONS_LEFT_OUT = {"workers"}
VOLATILE = frozenset({
    "run_id", "owner", "host", "seconds", "wall_s", "mvox_s", "worst_blocks", "versions", "created",
    "updated", "lease", "session", "started", "finished", "worker", "peak_memory_mb", "pid",
    "heartbeat", "timings", "device", "rate_mvox_s", "eta_s",
})
"""Keys of JSON documents that say when, where and how fast something was made."""
OF_STARTS = frozenset({"attempts", "epoch", "generation", "skipped", "computed", "summary", "command"})
"""Keys that say how often a run was started."""
FILES_OF_STARTS = ("summary.json", "summary/")


def taken(
    folder: Path, checkouts: Sequence[Path], database, answers: Mapping[str, str]
) -> Record:
    """Return the contents of a folder of results and its database, and what commands printed."""
    words = {str(folder): "FOLDER"} | {str(checkout): "CHECKOUT" for checkout in checkouts}
    found = {f"file {name}": value for name, value in _files(folder, words)}
    for collection in sorted(set(database.list_collection_names()) - COLLECTIONS_LEFT_OUT):
        for row in database[collection].find():
            found[f"row {collection} {row['_id']}"] = _value(json.dumps(row, default=str), words)
    return found | {f"answer {name}": _value(text, words) for name, text in answers.items()}


def of_all_starts(record: Record) -> Record:
    """A record without what says how often runs were started."""
    return {
        name: _without(value, OF_STARTS) for name, value in record.items()
        if not name.startswith(("row attempts ", "answer "))
        and not any(part in name for part in FILES_OF_STARTS)
    }


def differences(found: Record, expected: Record) -> list[str]:
    """Yield one line for everything that is missing, additional, or other than expected."""
    lines = [f"missing: {name}" for name in sorted(expected.keys() - found.keys())]
    lines += [f"too much: {name}" for name in sorted(found.keys() - expected.keys())]
    for name in sorted(found.keys() & expected.keys()):
        lines += [f"different: {name}{line}" for line in _compared(found[name], expected[name], "")]
    return lines


def _files(folder: Path, words: dict[str, str]) -> Iterator[tuple[str, object]]:
    for path in sorted(folder.rglob("*")):
        name = path.relative_to(folder)
        if path.is_file() and not LEFT_OUT.intersection(name.parts):
            yield str(name), _content(path, words)


def _content(path: Path, words: dict[str, str]) -> object:
    data = path.read_bytes()
    if path.suffix == ".json" or path.name in (".zarray", ".zattrs", ".zgroup"):
        return _value(data.decode(), words)
    for place, word in words.items():
        data = data.replace(place.encode(), word.encode())
    return hashlib.sha256(data).hexdigest()


def _value(text: str, words: dict[str, str]) -> object:
    for place, word in words.items():
        text = text.replace(place, word)
    return _without(json.loads(text), VOLATILE) if text.strip() else None


def _without(value: object, keys: frozenset[str]) -> object:
    if isinstance(value, dict):
        return {key: _without(item, keys) for key, item in value.items() if key not in keys}
    return [_without(item, keys) for item in value] if isinstance(value, list) else value


def _compared(found: object, expected: object, path: str) -> Iterator[str]:
    if isinstance(found, dict) and isinstance(expected, dict):
        for key in sorted(found.keys() | expected.keys()):
            if key not in found or key not in expected:
                which = "missing" if key not in found else "too much"
                yield f"{path}.{key}: {which}, {str((found | expected)[key])[:200]}"
            else:
                yield from _compared(found[key], expected[key], f"{path}.{key}")
    elif found != expected:
        yield f"{path}: {str(found)[:200]} instead of {str(expected)[:200]}"
