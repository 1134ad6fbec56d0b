"""Fingerprints of the identities of tasks, and how two identities differ."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator


def fingerprint(identity: dict) -> str:
    """Return the sha256 of an identity, as hex."""
    text = json.dumps(identity, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()


def differing_fields(old: dict, new: dict, path: str = "") -> list[str]:
    """Return ``field: old -> new`` for every leaf that differs between two identities."""
    return [f"{field}: {a!r} -> {b!r}" for field, a, b in differences(old, new, path)]


def differences(old: dict, new: dict, path: str = "") -> Iterator[tuple[str, object, object]]:
    """Yield the path, old and new value of every leaf that differs between two identities."""
    for key in sorted(old.keys() | new.keys()):
        a, b, here = old.get(key), new.get(key), f"{path}{key}"
        if isinstance(a, dict) and isinstance(b, dict):
            yield from differences(a, b, f"{here}.")
        elif a != b:
            yield here, a, b
