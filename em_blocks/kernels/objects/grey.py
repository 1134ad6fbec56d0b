"""Grey values of objects: exact histograms over blocks, and the contrast of neighbours."""

from __future__ import annotations

import numpy as np
from numba import njit

from em_blocks.kernels.components.runs import Runs

LEVELS = 256
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)

GreyColumns = dict[str, np.ndarray]


def grey_counts(
    padded: np.ndarray, image: np.ndarray, runs: Runs, member: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Count the grey values of each object of a block, and how its neighbouring voxels differ.

    Parameters
    ----------
    padded : (z + 1, y + 2, x + 2) integer array
        Ids, as of `count_exits`.
    image : (z + 1, y + 2, x + 2) uint8 array
        Grey values of the same voxels.
    runs, member
        Runs of the block itself, and the object 0 .. n - 1 of each.

    Returns
    -------
    histogram : (n, 256) int64 array
    contrast : (n, 2) int64 array
        The sum of squared differences of voxels of one object that follow each other along y or x, and
        the number of such pairs.
    """
    return _counted(padded, image, runs.first, runs.lengths, member, n)


@njit(cache=True, nogil=True)
def _counted(padded, image, first, lengths, member, n):
    histogram, contrast = np.zeros((n, LEVELS), np.int64), np.zeros((n, 2), np.int64)
    ny, nx = padded.shape[1] - 2, padded.shape[2] - 2
    for i in range(len(first)):
        row, x = first[i] // nx, first[i] % nx + 1
        z, y, end = row // ny, row % ny + 1, x + lengths[i]
        id, counts, values = padded[z, y, x], histogram[member[i]], image[z, y]
        below, ids_below = image[z, y + 1], padded[z, y + 1]
        squares, pairs = np.int64(0), np.int64(0)
        for k in range(x, end):
            value = np.int64(values[k])
            counts[value] += 1
            if ids_below[k] == id:
                squares += (value - np.int64(below[k])) ** 2
                pairs += 1
            if k + 1 < end or padded[z, y, end] == id:
                squares += (value - np.int64(values[k + 1])) ** 2
                pairs += 1
        contrast[member[i], 0] += squares
        contrast[member[i], 1] += pairs
    return histogram, contrast


def grey_features(histogram: np.ndarray, contrast: np.ndarray) -> GreyColumns:
    """Return the statistics of grey values of objects, each (n,).

    Percentiles are grey values that occur: the smallest one that at least this share of the voxels
    does not exceed. The entropy is that of the histogram, in bits. The contrast is the mean squared
    difference of neighbours within the object; nan where it has none.
    """
    levels = np.arange(LEVELS)
    voxels = histogram.sum(axis=1)
    mean = histogram @ levels / voxels
    variance = (histogram @ levels**2 * voxels - (histogram @ levels) ** 2) / voxels.astype(float) ** 2
    rising = histogram.cumsum(axis=1)
    columns = {
        "em_mean": mean, "em_std": np.sqrt(variance), "em_min": (histogram > 0).argmax(axis=1),
        "em_max": LEVELS - 1 - (histogram[:, ::-1] > 0).argmax(axis=1),
    }
    for q in QUANTILES:
        columns[f"em_p{100 * q:02.0f}"] = (rising >= (q * voxels)[:, None]).argmax(axis=1)
    return columns | {"em_entropy_bits": _entropy(histogram, voxels), "em_contrast": _ratio(contrast)}


def _entropy(histogram: np.ndarray, voxels: np.ndarray) -> np.ndarray:
    share = histogram / voxels[:, None]
    return -(share * np.log2(np.where(share > 0, share, 1))).sum(axis=1) + 0.0


def _ratio(contrast: np.ndarray) -> np.ndarray:
    squares, pairs = contrast.T
    return np.where(pairs > 0, squares / np.maximum(pairs, 1), np.nan)
