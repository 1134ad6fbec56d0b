"""How much of a source is known, and of which class."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from em_blocks.models.truth import BACKGROUND, OBJECT, UNKNOWN
from em_blocks.training.data.reading.voxels import Voxels
from em_blocks.training.data.sources import TrainingData


class ClassShares(NamedTuple):
    """Voxels of a used box by what is known of a class."""

    unknown: int
    background: int
    object: int

    @property
    def total(self) -> int:
        """All voxels."""
        return sum(self)


def class_shares(voxels: Voxels, data: TrainingData) -> ClassShares:
    """Count the voxels of the used box of `data` in the label volume of a class, slab by slab."""
    counts = np.zeros(3, np.int64)
    for slab in data.slabs():
        counts += np.bincount(voxels[slab].ravel(), minlength=3)[:3]
    return ClassShares(*(int(counts[state]) for state in (UNKNOWN, BACKGROUND, OBJECT)))


def share_of_ids(voxels: Voxels, data: TrainingData) -> float:
    """Compute the share of the voxels of the used box that have an id."""
    found = sum(int(np.count_nonzero(voxels[slab])) for slab in data.slabs())
    return found / max(1, int(np.prod(np.subtract(data.end, data.begin))))
