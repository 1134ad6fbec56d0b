"""Instances of one choice of thresholds after the other, computed from the first change on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from em_blocks.geometry import Nm3
from em_blocks.kernels.components.holes import fill_holes
from em_blocks.kernels.instances.decode import instances
from em_blocks.kernels.instances.landscape import landscape
from em_blocks.tasks.instances.segment_instances import SegmentInstances

Maps = dict[str, np.ndarray]


class _Last:
    """The last result of a stage, kept until another one is asked for."""

    def __init__(self) -> None:
        self._key: Any = None
        self._value: Any = None

    def get(self, key: Any, make: Callable[[], Any]) -> Any:
        if key != self._key:
            self._key = self._value = None  # the memory is needed for the next one
            self._value = make()
            self._key = key
        return self._value


class Decoder:
    """Makes instances as `em-blocks segment-instances` does, of a region in memory.

    Parameters
    ----------
    read : function of the standard deviation of a smoothing, nm (z, y, x)
        Returns the maps by name, (z, y, x) uint8 arrays.
    """

    def __init__(self, read: Callable[[Nm3], Maps]):
        self._read = read
        self._maps, self._marks, self._all = _Last(), _Last(), _Last()

    def instances(self, options: SegmentInstances) -> np.ndarray:
        """Return the instances (z, y, x), uint64."""
        found = without_small(self._of_any_size(options), options.min_size)
        return fill_holes(found, options.max_hole) if options.fill_holes else found

    def _of_any_size(self, options: SegmentInstances) -> np.ndarray:
        """Return the instances before small ones are erased; no flood goes from one to another."""
        key = (options.smooth_nm, options.levels, options.seeds.min_size)
        return self._all.get(key, lambda: instances(
            self._landscape(options), min_seed_size=options.seeds.min_size, min_size=1
        ))

    def _landscape(self, options: SegmentInstances) -> np.ndarray:
        return self._marks.get(key := (options.smooth_nm, options.levels), lambda: landscape(
            levels=key[1], **self._smoothed(key[0])
        ))

    def _smoothed(self, smooth_nm: Nm3) -> Maps:
        return self._maps.get(smooth_nm, lambda: self._read(smooth_nm))


def without_small(labels: np.ndarray, min_size: int) -> np.ndarray:
    """Return labels 1, 2, ... without those of fewer voxels, with new numbers in the same order."""
    sizes = np.bincount(labels.ravel().view(np.int64))
    kept = sizes >= min_size
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(labels.dtype)[labels]
