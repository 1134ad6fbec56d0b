"""What the parts of a phantom share: labels with their voxel size, and lengths in nm."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

MEMBRANE_NM = 8.0  # standard deviation of a membrane's dark profile


class Tissue(NamedTuple):
    """Finished labels of a phantom; arrays are (z, y, x)."""

    neurons: np.ndarray  # uint32, no voxel is 0
    mitochondria: np.ndarray  # uint32, 0 outside
    depth: np.ndarray  # float32 nm to the rim of the neuron, in the section if sections are thick
    voxel_size: np.ndarray  # (3,) nm (z, y, x)

    @property
    def thick(self) -> bool:
        """Tell whether sections are too thick to follow a membrane from one to the next."""
        return thick_sections(self.voxel_size)

    def voxels(self, points: np.ndarray) -> tuple[np.ndarray, ...]:
        """Index of the voxels that hold points, (..., 3) nm; outside points get the nearest."""
        index = np.floor(points / self.voxel_size).astype(int)
        index = np.clip(index, 0, np.array(self.neurons.shape) - 1)
        return tuple(np.moveaxis(index, -1, 0))

    def centers(self, voxels: np.ndarray) -> np.ndarray:
        """Centres of voxels, (..., 3) indices, in nm from the corner of the volume."""
        return (voxels + 0.5) * self.voxel_size

    def box(self, center: np.ndarray, reach_nm: float) -> tuple[slice, ...]:
        """Voxels around a point, cut at the border of the volume."""
        return box_around(center, reach_nm, self.neurons.shape, self.voxel_size)


def thick_sections(voxel_size: np.ndarray) -> bool:
    return voxel_size[0] > 2 * MEMBRANE_NM


def box_around(
    center: np.ndarray, reach_nm: float, shape: Sequence[int], voxel_size: np.ndarray
) -> tuple[slice, ...]:
    """Slices of all voxels within a reach of a point, cut at the border; they may be empty."""
    begin = np.floor((center - reach_nm) / voxel_size).astype(int)
    end = np.ceil((center + reach_nm) / voxel_size).astype(int)
    return tuple(
        slice(max(0, first), min(size, last))
        for first, last, size in zip(begin, end, shape, strict=True)
    )
