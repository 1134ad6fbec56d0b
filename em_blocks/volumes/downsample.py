"""Coarser voxels: the most frequent label or the mean of a window, by tensorstore."""

from __future__ import annotations

from typing import Literal

import numpy as np
import tensorstore as ts

from em_blocks.geometry import Triple

Method = Literal["mode", "mean"]


def downsample(
    values: np.ndarray, factors: Triple, method: Method, *, corner: Triple = (0, 0, 0)
) -> np.ndarray:
    """Join windows of `factors` voxels to one voxel each.

    Parameters
    ----------
    values : (z, y, x) or (c, z, y, x) array
        Labels of any integer dtype, or intensities.
    factors : (3,) int
        Voxels (z, y, x) of a window.
    method : {"mode", "mean"}
        The most frequent value, the smallest one of those that are equally frequent (so
        background wins a tie); or the mean, for integers rounded to the nearest one, halves
        to the even one. Both are exact for all 64-bit values.
    corner : (3,) int
        Where the first voxel lies; windows start at multiples of `factors`.

    Returns
    -------
    (z, y, x) or (c, z, y, x) array
        Of the same dtype. A window that reaches beyond `values` is judged by the voxels that
        it has, so that no border is lost.
    """
    lead = values.ndim - 3
    array = ts.array(np.ascontiguousarray(values))
    placed = array[ts.d[lead:].translate_to[corner]]
    return ts.downsample(placed, [1] * lead + list(factors), method).read(order="C").result()
