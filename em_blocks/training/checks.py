"""What is checked of the data before the first iteration, so that nothing is trained in vain."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.training.heads import HeadTraining
from em_blocks.training.sources import TrainingData


def check_labels(data: Sequence[TrainingData], key: str) -> None:
    """Raise `ConfigError` if the used box of a source has no label at all.

    Parameters
    ----------
    key : str
        Where the sources come from, for the message: "sources" or "validation".
    """
    without = [f"{one.name} from {one.begin} to {one.end}" for one in data if not _any_label(one)]
    if without:
        raise ConfigError(
            f"training.{key}: no voxel is labelled (all are 0, which means unknown) in "
            f"{'; '.join(without)} (voxels, zyx). Nothing could be learnt or measured there. Correct "
            "`labels`, `begin` and `end`, or leave the source out."
        )


def check_synapses(
    data: Sequence[TrainingData], heads: Mapping[str, HeadTraining], key: str
) -> None:
    """Raise `ConfigError` if heads learn synapses, but a source brings none, or no box holds one."""
    needing = [name for name, head in heads.items() if head.needs_synapses]
    if not needing:
        return
    if without := [one.name for one in data if one.synapses is None]:
        raise ConfigError(
            f"The heads {needing} learn synapses, but {', '.join(without)} of training.{key} has none, "
            "so nothing would teach or measure them. Give the key `synapses` of the source (or "
            "`synapses_per_um3` of a phantom), or leave the source out."
        )
    if not any(_any_site(one, next(iter(heads.values())).voxel_size) for one in data):
        names = ", ".join(f"{one.name} from {one.begin} to {one.end}" for one in data)
        raise ConfigError(
            f"The heads {needing} learn synapses, but no postsynaptic site lies in the used boxes of "
            f"training.{key}: {names} (voxels, zyx). Positions are nm of the world: compare those of "
            "the file with `offset` and voxel size of raw, and correct `begin`, `end` or the file."
        )


def _any_label(data: TrainingData) -> bool:
    thick = getattr(data.labels, "chunks", (1,))[0]  # whole chunks: each is decoded once
    _, *section = data.box
    return any(
        np.any(data.labels[slice(z, min(z + thick, data.end[0])), *section])
        for z in range(data.begin[0], data.end[0], thick)
    )


def _any_site(data: TrainingData, voxel_size: Sequence[float]) -> bool:
    voxels = data.synapses.post / np.asarray(voxel_size, float)
    return bool(np.all((voxels >= data.begin) & (voxels < data.end), axis=1).any())
