"""Detection as in Synful (its connected components with a distance transform), as a slow reference.

Rewritten from the description of the method: labels of the whole array, then one component after
the other in its box. The distance transform runs on a grid of twice the resolution whose background
are the places between two neighbouring voxels of different labels.

Two of its habits make its sites depend on more than the component, and em_blocks does not have them:

- The box ends with the component, so that faces at the sides of the box are no border and sites move
  towards them; a component that fills its box has no border at all, and its site is undefined.
- Other components in the box have borders too.

`own_border` corrects both: then sites are those of em_blocks.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage


class Links(NamedTuple):
    """Rows in the raster order of the first voxels of components."""

    post: np.ndarray  # (n, 3) int64, voxels
    pre: np.ndarray  # (n, 3) float64, nm: rounded to whole voxels
    score: np.ndarray  # (n,) float64, sum of the stored values
    size: np.ndarray  # (n,) int64
    defined: np.ndarray  # (n,) bool: whether the component had a border


def extract(
    indicator: np.ndarray, vectors: np.ndarray, *, threshold: int, vector_scale: float, voxel_size,
    own_border: bool = False,
) -> Links:
    """Links of all components of stored values above the threshold.

    Parameters
    ----------
    indicator : (z, y, x) uint8 array
    vectors : (3, z, y, x) int8 array
        Or what can be indexed like one.
    """
    labels, _ = ndimage.label(indicator > threshold)
    rows = []
    for number, box in enumerate(ndimage.find_objects(labels), start=1):
        component = labels[box] == number
        part = np.pad(component, 1) if own_border else labels[box]
        inside = between_labels(part)
        distance = ndimage.distance_transform_edt(inside, sampling=np.array(voxel_size) / 2)
        distance = distance[::2, ::2, ::2]
        if own_border:
            distance = distance[1:-1, 1:-1, 1:-1]
        site = np.unravel_index(np.argmax(np.where(component, distance, -1)), component.shape)
        values = indicator[box][component]
        post = [int(i) + side.start for i, side in zip(site, box, strict=True)]
        rows.append((post, values.sum(dtype=float), values.size, not inside.all()))
    post, score, size, defined = (np.array(column) for column in zip(*rows, strict=True))
    offset = np.array([vectors[(slice(None), *voxel)] for voxel in post]) / vector_scale
    pre = np.round((post * voxel_size + offset) / voxel_size) * voxel_size
    return Links(post, pre, score, size, defined)


def between_labels(labels: np.ndarray) -> np.ndarray:
    """Return the grid of twice the resolution: False between neighbours of different labels."""
    grid = np.ones([2 * n - 1 for n in labels.shape], bool)
    for axis in range(3):
        between = [slice(None, None, 2)] * 3
        between[axis] = slice(1, None, 2)
        grid[tuple(between)] = np.diff(labels, axis=axis) == 0
    return grid
