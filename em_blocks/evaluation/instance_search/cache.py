"""Scores of choices that were tried before, in a file that only grows."""

from __future__ import annotations

import json
from collections.abc import Mapping
from hashlib import blake2b
from pathlib import Path
from typing import Any

import numpy as np

VERSION = 1
"""Of how instances are made and scored: another one makes all scores be computed again."""


class Cache:
    """A file of JSON lines, each with a key and scores.

    A line that a killed process left unfinished is ignored. Several processes may append.
    """

    def __init__(self, path: Path):
        self._path = path
        self._scores = dict(_lines(path))

    def get(self, key: str) -> list[dict] | None:
        """Return the scores of a choice; None if it was never tried."""
        return self._scores.get(key)

    def add(self, key: str, scores: list[dict]) -> None:
        """Keep the scores of a choice."""
        self._scores[key] = scores
        self._path.parent.mkdir(parents=True, exist_ok=True)
        with open(self._path, "a") as file:
            # A line of its own, whatever a process that was killed has left.
            file.write("\n" + json.dumps({"key": key, "scores": scores}))


def _lines(path: Path) -> list[tuple[str, list[dict]]]:
    if not path.exists():
        return []
    found = []
    for line in path.read_text().splitlines():
        try:
            value = json.loads(line)
            found.append((value["key"], value["scores"]))
        except (ValueError, KeyError, TypeError):
            continue
    return found


def key_of(**parts: Any) -> str:
    """Return the hash of everything that decides scores."""
    text = json.dumps({"version": VERSION, **parts}, sort_keys=True)
    return blake2b(text.encode(), digest_size=16).hexdigest()


def content_of(arrays: Mapping[str, np.ndarray]) -> dict[str, str]:
    """Return the hash of the values of each array."""
    return {
        name: blake2b(np.ascontiguousarray(values).data, digest_size=16).hexdigest()
        for name, values in arrays.items()
    }
