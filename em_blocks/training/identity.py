"""The identity of a training: all that decides its weights; and in what two of them differ."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from em_blocks.config import is_url
from em_blocks.errors import ConfigError
from em_blocks.models.setup import Setup
from em_blocks.training.data.sources import TrainingData, describe
from em_blocks.training.records.compare import leaves

_PLACES = ("raw", "labels", "masks", "synapses", "specimen")
_IRRELEVANT = re.compile(
    rf"config\.training\.(sources|validation)\.\d+\.({'|'.join(_PLACES)}|metric_masks)(\.|$)"
    r"|config\.training\.(sources|validation)\.\d+\.classes\.\w+\.volume(\.|$)"
    r"|.*\.(name|initial|snapshot_every|loaders)$"
)
_CHECKED_ONLY = ("config.intensities.", "config.equalized.")
CHANGEABLE = frozenset(
    f"config.training.{key}"
    for key in (
        "iterations", "validate_every", "checkpoint_every", "snapshot_every", "score", "patience"
    )
)
"""Keys that may change when a training continues: they leave its finished iterations valid."""
_KEEP = "config.training.keep."


def identity(
    setup: Setup, sources: Sequence[TrainingData], validation: Sequence[TrainingData]
) -> dict:
    """Collect config, network code and data of a training; JSON values only.

    Data counts by its content, so a training can move with its data.
    """
    initial = setup.config.to_train().initial
    start = {} if initial is None else {"initial": _checksum(initial)}
    return {
        "config": portable_config(setup),
        **_code(setup),
        **start,
        "data": {
            "sources": [describe(data) for data in sources],
            "validation": [describe(data) for data in validation],
        },
    }


def _code(setup: Setup) -> dict[str, str]:
    if setup.code is None:
        return {}
    return {"network_py": hashlib.sha256(setup.code.read_bytes()).hexdigest()}


def portable_config(setup: Setup, folder: Path | None = None) -> dict:
    """Dump the setup's config with paths relative to `folder` (default: the setup's)."""
    values = setup.config.model_dump(mode="json", exclude_none=True)
    for source in (*values["training"]["sources"], *values["training"]["validation"]):
        _make_relative(source, (folder or setup.folder).resolve())
    if initial := values["training"].get("initial"):
        values["training"]["initial"] = _relative(initial, (folder or setup.folder).resolve())
    return values


def _make_relative(source: dict, folder: Path) -> None:
    for key in source.keys() & set(_PLACES):
        source[key] = _relative(source[key], folder)
    for labels in source.get("classes", {}).values():
        labels["volume"] = _relative(labels["volume"], folder)
    if masks := source.get("metric_masks"):
        source["metric_masks"] = [_relative(mask, folder) for mask in masks]


def _relative(said: str | dict, folder: Path) -> str | dict:
    """A path, a volume with its `path`, or volumes by name, with paths relative to `folder`."""
    if isinstance(said, str):
        return said if is_url(said) else os.path.relpath(said, folder)
    if "path" in said:
        return said | {"path": _relative(said["path"], folder)}
    return {name: _relative(volume, folder) for name, volume in said.items()}


def _checksum(path: Path) -> str:
    try:
        return hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise ConfigError(
            f"training.initial names {path}, which cannot be read ({error.strerror}). The record of "
            "a training says with which weights it began: bring the file back, or leave `initial` "
            "out to begin with random weights."
        ) from error


class Differences(NamedTuple):
    """Values in which two identities differ, as "key.path: before -> now"."""

    deciding: list[str]
    changeable: list[str]


def differences(before: dict, now: dict) -> Differences:
    """List the values in which two identities differ.

    Paths do not count, nor what only decides what can be looked at.
    """
    old, new = dict(leaves(before)), dict(leaves(now))
    found = Differences([], [])
    for key in sorted(old.keys() | new.keys()):
        if _IRRELEVANT.match(key) or key.startswith(_CHECKED_ONLY):
            continue
        if old.get(key) != new.get(key):
            changeable = key in CHANGEABLE or key.startswith(_KEEP)
            where = found.changeable if changeable else found.deciding
            where.append(f"{key}: {old.get(key)} -> {new.get(key)}")
    return found
