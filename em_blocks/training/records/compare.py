"""In what trainings differ: values by their path, those that are equal left out."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

ABSENT = "-"
_PARTS = ("config", "network_py", "initial", "data", "seed", "versions", "git", "device", "threads")
_NO_DIFFERENCE = ("git.em_blocks.dirty", "git.setup.dirty")


def leaves(values: dict | list, prefix: str = "") -> Iterator[tuple[str, object]]:
    """Yield ("key.path", value) of every value in nested ones; places in lists count from 0."""
    items = values.items() if isinstance(values, dict) else enumerate(values)
    for key, value in items:
        if isinstance(value, (dict, list)):
            yield from leaves(value, f"{prefix}{key}.")
        else:
            yield f"{prefix}{key}", value


def differing(documents: Sequence[dict]) -> dict[str, list]:
    """Find the settings, data and code in which the documents of trainings differ.

    Returns
    -------
    dict of key path to list
        The value of every document; `ABSENT` where one has none.
    """
    found = [
        dict(leaves({key: document[key] for key in _PARTS if document.get(key) is not None}))
        for document in documents
    ]
    keys = dict.fromkeys(key for values in found for key in values if key not in _NO_DIFFERENCE)
    rows = {key: [values.get(key, ABSENT) for values in found] for key in keys}
    return {key: row for key, row in rows.items() if any(value != row[0] for value in row)}
