"""The landscape that instances are flooded in: one byte for every voxel, made of the predicted maps."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from numba import njit

ONE = 255
"""The byte that means 1.0."""

SEED = 255
"""Of voxels that an object grows from. Other voxels of objects are 1 .. 254, the higher the deeper they
lie in an object; 0 is background."""


class Levels(NamedTuple):
    """Which bytes of the maps make a voxel one of an object, or of a seed.

    Attributes
    ----------
    mask : int
        Lowest foreground of an object.
    seed : int
        Lowest foreground of a seed.
    contour : int
        Highest contour of a seed.
    distance : int
        Lowest distance of a seed.
    """

    mask: int
    seed: int
    contour: int = ONE
    distance: int = 0

    @classmethod
    def of(
        cls, threshold: float, *, foreground: float, contour: float | None = None,
        distance: float | None = None,
    ) -> Levels:
        """Return the bytes of probabilities 0..1; of a map that there is not, None."""
        return cls(
            max(1, _reaching(threshold)), _reaching(foreground),
            ONE if contour is None else int(np.floor(contour * ONE + _ROUNDING)),
            0 if distance is None else _reaching(distance),
        )


_ROUNDING = 1e-9
"""0.6 times 255 is 153, whatever floats say."""


def _reaching(share: float) -> int:
    return int(np.ceil(share * ONE - _ROUNDING))


def as_bytes(values: np.ndarray, scale: float) -> np.ndarray:
    """Return stored values of a map as bytes: `scale` becomes 255, what is below 0 becomes 0.

    Parameters
    ----------
    values : array
        Without NaN, at most `scale`.
    """
    if values.dtype == np.uint8 and scale == ONE:
        return values
    if values.dtype.kind in "ub" and values.dtype.itemsize <= 2:
        every = np.arange(np.iinfo(values.dtype).max + 1) * ONE / scale
        return np.rint(np.minimum(every, ONE)).astype(np.uint8)[values]
    found = values * values.dtype.type(ONE / scale)
    return np.rint(np.clip(found, 0, ONE)).astype(np.uint8)


def landscape(
    foreground: np.ndarray, levels: Levels, contour: np.ndarray | None = None,
    distance: np.ndarray | None = None,
) -> np.ndarray:
    """Return the landscape of the given maps.

    A voxel of an object is as deep as the least of its foreground, its distance, and 1 - contour: a
    flood from the seeds meets where objects are least sure, or their contour is.

    Parameters
    ----------
    foreground, contour, distance : (z, y, x) uint8 arrays
        255 is 1.
    levels : Levels

    Returns
    -------
    (z, y, x) uint8 array
        0, 1 .. 254, or `SEED`.
    """
    shape = foreground.shape
    if contour is None and distance is None:
        every = np.arange(ONE + 1, dtype=np.uint8)
        found = np.clip(every, 1, SEED - 1)
        found[every >= levels.seed] = SEED
        found[: levels.mask] = 0
        return found[foreground]
    found = np.empty(foreground.size, np.uint8)
    _fill(found, _flat(foreground), _flat(contour), _flat(distance), levels)
    return found.reshape(shape)


def is_core(
    foreground: np.ndarray, levels: Levels, contour: np.ndarray | None = None,
    distance: np.ndarray | None = None,
) -> np.ndarray:
    """Return which voxels (z, y, x) reach the levels of a seed, bool; maps as for `landscape`."""
    found = foreground >= levels.seed
    if contour is not None:
        found &= contour <= levels.contour
    if distance is not None:
        found &= distance >= levels.distance
    return found


def with_cores(landscape: np.ndarray, deep: np.ndarray) -> np.ndarray:
    """Return the landscape with seeds lowered to one below `SEED`, but for their cores.

    Parameters
    ----------
    deep : (z, y, x) bool array
        Which voxels of seeds are cores.
    """
    found = np.minimum(landscape, SEED - 2)
    found[landscape == SEED] = SEED - 1
    found[deep & (landscape == SEED)] = SEED
    return found


def _flat(values: np.ndarray | None) -> np.ndarray:
    return np.empty(0, np.uint8) if values is None else np.ascontiguousarray(values).ravel()


@njit(cache=True, nogil=True)
def _fill(found: Any, foreground: Any, contour: Any, distance: Any, levels: Levels) -> None:
    for i in range(len(found)):
        least = foreground[i]
        if least < levels.mask:
            found[i] = 0
            continue
        is_seed = least >= levels.seed
        if len(contour):
            is_seed &= contour[i] <= levels.contour
            least = min(least, np.uint8(ONE - contour[i]))
        if len(distance):
            is_seed &= distance[i] >= levels.distance
            least = min(least, distance[i])
        found[i] = SEED if is_seed else min(max(least, np.uint8(1)), np.uint8(SEED - 1))
