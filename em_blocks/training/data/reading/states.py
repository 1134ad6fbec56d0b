"""What is known of a class, from stored ids: unknown, background or object."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from em_blocks.geometry import Triple
from em_blocks.models.sources import ClassLabels
from em_blocks.models.truth import BACKGROUND, OBJECT, UNKNOWN
from em_blocks.training.data.reading.voxels import Slices, Voxels

STATE = np.dtype(np.uint8)


def class_states(ids: np.ndarray, labels: ClassLabels) -> np.ndarray:
    """Return `UNKNOWN`, `BACKGROUND` or `OBJECT` for ids of any integer type, as uint8."""
    other = BACKGROUND if labels.unpainted == "background" else UNKNOWN
    if labels.ids is None:
        found = np.where(ids == 0, STATE.type(other), STATE.type(OBJECT))
    else:
        found = np.where(np.isin(ids, labels.ids), STATE.type(OBJECT), STATE.type(other))
    if labels.background:
        found[np.isin(ids, labels.background)] = BACKGROUND
    return found


class ClassVoxels:
    """What is known of a class, voxel by voxel, (z, y, x) uint8.

    Parameters
    ----------
    ids : Voxels
        Of the volume in which it is painted.
    labels : ClassLabels
    """

    dtype = STATE

    def __init__(self, ids: Voxels, labels: ClassLabels):
        self.ids, self.labels = ids, labels
        self.shape, self.chunk_shape = ids.shape, getattr(ids, "chunk_shape", ids.shape)
        self.signed = getattr(ids, "signed", False)

    def __getitem__(self, where: Slices) -> np.ndarray:
        return class_states(self.ids[where], self.labels)


class Constant:
    """Voxels (z, y, x) that all have one value: a class that is nowhere, or known nowhere."""

    dtype = STATE

    def __init__(self, value: int, shape: Triple):
        self.value, self.shape = value, shape
        self.chunk_shape = (min(64, shape[0]), *shape[1:])  # not more at a time than others

    def __getitem__(self, where: Slices) -> np.ndarray:
        return np.full([axis.stop - axis.start for axis in where], self.value, STATE)


class Within:
    """Voxels (z, y, x) that are 0 outside of a specimen.

    Parameters
    ----------
    voxels, specimen : Voxels
    """

    def __init__(self, voxels: Voxels, specimen: Voxels):
        self.voxels, self.specimen = voxels, specimen
        self.shape, self.dtype = voxels.shape, voxels.dtype
        self.chunk_shape = getattr(voxels, "chunk_shape", voxels.shape)
        self.signed = getattr(voxels, "signed", False)

    def __getitem__(self, where: Slices) -> np.ndarray:
        return np.where(self.specimen[where] != 0, self.voxels[where], self.dtype.type(0))


class AllOf:
    """A mask (z, y, x), uint8: 1 where none of several masks is 0."""

    dtype = STATE

    def __init__(self, masks: Sequence[Voxels]):
        self.masks, self.shape = masks, masks[0].shape

    def __getitem__(self, where: Slices) -> np.ndarray:
        return np.all([mask[where] != 0 for mask in self.masks], axis=0).astype(STATE)
