"""Instances of one choice of thresholds after the other, computed from the first change on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from em_blocks.geometry import Nm3
from em_blocks.kernels.components.holes import fill_holes
from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.instances.boundaries import Boundaries, boundaries
from em_blocks.kernels.instances.decode import instances
from em_blocks.kernels.instances.merging import FEATURES, Fragments, Model, fit, merged
from em_blocks.tasks.instances.maps import landscape_of
from em_blocks.tasks.instances.merge import MergeOptions
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
    voxel_size : (3,) floats
        nm (z, y, x).
    """

    def __init__(self, read: Callable[[Nm3], Maps], voxel_size: Nm3):
        self._read, self._voxel_size = read, voxel_size
        self._maps, self._marks, self._all = _Last(), _Last(), _Last()

    def instances(self, options: SegmentInstances) -> np.ndarray:
        """Return the instances (z, y, x), uint64."""
        found = self._of_any_size(options)
        if options.merge is not None:
            found = self._merged(found, options, options.merge)
        found = without_small(found, options.min_size)
        return fill_holes(found, options.max_hole) if options.fill_holes else found

    def fitted(self, options: SegmentInstances, truth: np.ndarray) -> MergeOptions | None:
        """Fit the weights that merge the objects of `options` to true ones (z, y, x), if they can be."""
        found = self._of_any_size(options)
        fragments, rows = self._boundaries(found, options)
        names = tuple(
            name for name in FEATURES
            if (read := name.partition("_")[0]) not in ("contour", "distance") or read in options.maps
        )
        owner = main_objects(found, truth)[fragments.ids]
        model = fit(rows, fragments, owner, voxel_size=self._voxel_size, names=names)
        return model and MergeOptions(bias=model.bias, weights=dict(model.weights))

    def _merged(
        self, found: np.ndarray, options: SegmentInstances, merge: MergeOptions
    ) -> np.ndarray:
        fragments, rows = self._boundaries(found, options)
        into = merged(
            rows, fragments, Model(merge.bias, merge.weights), threshold=merge.threshold,
            voxel_size=self._voxel_size,
        )
        return np.append(0, into).astype(found.dtype)[found]

    def _boundaries(
        self, found: np.ndarray, options: SegmentInstances
    ) -> tuple[Fragments, Boundaries]:
        maps, none = self._smoothed(options.smooth_nm), np.zeros(found.shape, np.uint8)
        rows = boundaries(
            found.astype(np.uint32), maps.get("contour", none), maps.get("distance", none)
        )
        voxels = np.bincount(found.ravel().view(np.int64))[1:]
        return Fragments(np.arange(1, len(voxels) + 1), voxels), rows

    def _of_any_size(self, options: SegmentInstances) -> np.ndarray:
        """Return the instances before small ones are erased; no flood goes from one to another."""
        key = (options.smooth_nm, options.levels, options.core_levels, options.seeds.min_size)
        return self._all.get(key, lambda: instances(
            self._landscape(options), min_seed_size=options.seeds.min_size, min_size=1,
            has_cores=options.seeds.has_cores,
        ))

    def _landscape(self, options: SegmentInstances) -> np.ndarray:
        key = (options.smooth_nm, options.levels, options.core_levels)
        return self._marks.get(key, lambda: landscape_of(
            self._smoothed(options.smooth_nm), options.levels, options.core_levels
        ))

    def _smoothed(self, smooth_nm: Nm3) -> Maps:
        return self._maps.get(smooth_nm, lambda: self._read(smooth_nm))


def main_objects(found: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Return the true object that holds most of each object 0, 1, 2, ...; 0 where that is none."""
    table = count_overlaps(segmentation=found, truth=truth)
    order = np.argsort(table.voxels, kind="stable")  # the last one written is the largest
    owner = np.zeros(int(found.max(initial=0)) + 1, np.int64)
    owner[table.segmentation[order].astype(np.int64)] = table.truth[order].astype(np.int64)
    owner[0] = 0
    return owner


def without_small(labels: np.ndarray, min_size: int) -> np.ndarray:
    """Return labels 1, 2, ... without those of fewer voxels, with new numbers in the same order."""
    sizes = np.bincount(labels.ravel().view(np.int64))
    kept = sizes >= min_size
    kept[0] = False
    return np.where(kept, np.cumsum(kept), 0).astype(labels.dtype)[labels]
