"""Find which volumes of the sources are read, by heads and by the choice of samples."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.sources import TrainingData


class Needs(NamedTuple):
    """Names of label volumes and masks, and whether synapses are read."""

    labels: tuple[str, ...]
    masks: tuple[str, ...]
    points: bool


def needs_of(config: SetupConfig, *, sampled: bool = True) -> Needs:
    """Find what the heads of a setup need, and its sampling where samples are drawn."""
    entries = {entry for head in config.heads.values() for entry in head.needs}
    if sampled:
        sampling = config.training.used_sampling
        entries |= {f"labels/{wanted.label}" for wanted in sampling.foreground}
        entries |= {f"masks/{name}" for name in sampling.masked}
    names: dict[str, list[str]] = {"labels": [], "masks": [], "points": []}
    for kind, _, name in (entry.partition("/") for entry in sorted(entries)):
        names[kind].append(name)
    return Needs(tuple(names["labels"]), tuple(names["masks"]), bool(names["points"]))


def check_volumes(data: Sequence[TrainingData], config: SetupConfig, key: str) -> None:
    """Raise `ConfigError` if a source lacks a label volume or mask, or means another thing by it.

    Parameters
    ----------
    key : str
        Where the sources come from, for the message: "sources" or "validation".
    """
    needs = needs_of(config, sampled=key == "sources")
    for one in data:
        for kind, needed, found in (
            ("labels", needs.labels, one.labels), ("masks", needs.masks, one.masks),
        ):
            if missing := set(needed) - found.keys():
                raise ConfigError(
                    f"training.{key}: {one.name} has the {kind} {sorted(found)}, but the heads and "
                    f"`sampling` of the setup need {sorted(missing)} too. Name them in `{kind}` of "
                    'the source ({"name": path}), or leave the source out.'
                )
    for name in needs.labels:
        known = {name in one.classes: one.name for one in data}
        if len(known) == 2:
            raise ConfigError(
                f"training.{key}: {name!r} is a class in {known[True]} and ids of objects in "
                f"{known[False]}, so the same values would mean different things. Name it in `classes` "
                "of both sources, or in `labels` of both."
            )
