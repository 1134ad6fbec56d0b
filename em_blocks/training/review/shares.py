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


def share_of_several(data: TrainingData) -> float:
    """Compute the share of the voxels of the used box of `data` that are of several classes."""
    if len(data.classes) < 2:
        return 0.0
    found = total = 0
    for slab in data.slabs():
        claims = sum((data.labels[name][slab] == OBJECT).astype(np.uint8) for name in data.classes)
        found += int(np.count_nonzero(np.asarray(claims) > 1))
        total += np.asarray(claims).size
    return found / max(1, total)


def share_of_ids(voxels: Voxels, data: TrainingData) -> float:
    """Compute the share of the voxels of the used box that have an id."""
    found = sum(int(np.count_nonzero(voxels[slab])) for slab in data.slabs())
    return found / max(1, int(np.prod(np.subtract(data.end, data.begin))))
