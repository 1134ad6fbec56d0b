"""Checks that outputs lie apart from inputs, so that nothing overwrites or deletes its own input."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path

from em_blocks.config import is_url
from em_blocks.errors import ConfigError
from em_blocks.volumes.stores.places import canonical, same_place, within


def check_apart(inputs: Mapping[str, str], outputs: Mapping[str, str]) -> None:
    """Raise `ConfigError` where an output is, holds, or lies in something that is read.

    Parameters
    ----------
    inputs, outputs : dict of str
        Paths and URLs by the names that a user knows them by.
    """
    for output, made in outputs.items():
        for name, read in inputs.items():
            if relation := _relation(made, read):
                raise ConfigError(
                    f"The output {output!r}, {_spelled(made)}, {relation} the input {name!r}, "
                    f"{_spelled(read)}: they lie in each other, and what is read would be overwritten, "
                    "or deleted with an old result. Choose another output."
                )


def check_outside(inputs: Mapping[str, str], output: str | Path, *, name: str = "output") -> None:
    """Raise `ConfigError` where files that are written would lie in something that is read.

    A folder of results may hold its own inputs.
    """
    for key, read in inputs.items():
        if within(output, read):
            raise ConfigError(
                f"The {name} {_spelled(str(output))} lies in the input {key!r}, {_spelled(read)}: "
                "readers of that volume or file would find foreign files in it, or an overwritten one. "
                "Choose a place beside it."
            )


def _relation(made: str, read: str) -> str | None:
    if same_place(made, read):
        return "is"
    if within(made, read):
        return "lies in"
    return "holds" if within(read, made) else None


def _spelled(path: str) -> str:
    """Return a path as it was given, and the place where that leads to another one."""
    place = canonical(path)
    return path if is_url(path) or place == path else f"{path} (which is {place})"


def paths_in(values: object, name: str = "") -> Iterator[tuple[str, str]]:
    """Yield all absolute paths and URLs in nested dicts and lists, with their keys, joined by dots."""
    if isinstance(values, str):
        if is_url(values) or values.startswith("/"):
            yield name, values
        return
    items = values.items() if isinstance(values, Mapping) else (
        enumerate(values) if isinstance(values, (list, tuple)) else ()
    )
    for key, value in items:
        if key == "path":  # of a volume with more about it: known by the key above
            yield from paths_in(value, name)
        elif key != "dataset":  # the name of something in a file, which may begin with a slash
            yield from paths_in(value, f"{name}.{key}" if name else str(key))
