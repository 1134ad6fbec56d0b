"""Values of voxels in another form."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

LUMINANCE = (0.299, 0.587, 0.114)
"""Shares of red, green and blue: ITU-R BT.601."""


def inverted(values: np.ndarray) -> np.ndarray:
    """Turn dark into bright: of unsigned integers, the largest value of the dtype minus each."""
    return np.iinfo(values.dtype).max - values


def rgb_to_ids(channels: np.ndarray) -> np.ndarray:
    """Read colours as ids of 24 bits, as VAST exports them: red * 65536 + green * 256 + blue.

    Parameters
    ----------
    channels : (3 or 4, z, y, x) uint8 array
        Where a fourth channel, the opacity, is 0 there is no object.

    Returns
    -------
    (z, y, x) uint32 array
    """
    red, green, blue = channels[:3].astype(np.uint32)
    ids = (red << 16) | (green << 8) | blue
    return ids if len(channels) == 3 else ids * (channels[3] > 0)


LARGEST_COLOUR = 2**24 - 1
"""Of the ids that a colour of three times 8 bits can be."""


def ids_to_rgb(ids: np.ndarray) -> np.ndarray:
    """Return the colours of ids, of which `rgb_to_ids` makes the same ids again.

    Parameters
    ----------
    ids : (z, y, x) integer array

    Returns
    -------
    (z, y, x, 3) uint8 array
        Red, green, blue.

    Raises
    ------
    ValueError
        If an id is negative or above `LARGEST_COLOUR`.
    """
    if ids.size and not (ids.min() >= 0 and ids.max() <= LARGEST_COLOUR):
        raise ValueError(f"ids of colours are 0 to {LARGEST_COLOUR}, got {ids.min()} to {ids.max()}")
    ids = ids.astype(np.uint32)
    return np.stack([ids >> 16, ids >> 8, ids], axis=-1).astype(np.uint8)


def rgb_to_grey(channels: np.ndarray) -> np.ndarray:
    """Return the luminance of colours, rounded.

    Parameters
    ----------
    channels : (3 or 4, z, y, x) uint8 or uint16 array
        A fourth channel, the opacity, has no say.

    Returns
    -------
    (z, y, x) array of the same dtype
    """
    grey = sum(share * channel for share, channel in zip(LUMINANCE, channels[:3], strict=True))
    return np.rint(grey).astype(channels.dtype)


def relabelled(values: np.ndarray, table: Mapping[int, int], *, keep: bool) -> np.ndarray:
    """Replace ids by those of a table.

    Parameters
    ----------
    values : (z, y, x) integer array
    table : mapping of int to int
        New ids fit into the dtype.
    keep : bool
        Whether ids that are not in the table stay; otherwise they become 0.
    """
    found, places = np.unique(values, return_inverse=True)
    kept = found if keep else np.zeros_like(found)
    new = [table.get(int(old), int(stays)) for old, stays in zip(found, kept, strict=True)]
    return np.array(new, values.dtype)[places].reshape(values.shape)


def misfit(values: np.ndarray, dtype: np.dtype) -> float | None:
    """Return a value that `dtype` cannot hold as it is; None if there is none.

    Of an integer dtype, that is a value beyond its limits, a fraction, or no number at all; of a
    float dtype, an integer or a number that it would round to another one.
    """
    if values.size == 0:
        return None
    with np.errstate(invalid="ignore", over="ignore"):
        if dtype.kind == "f":
            back = values.astype(dtype).astype(values.dtype)
            wrong = back != values
            if values.dtype.kind == "f":
                wrong &= ~np.isnan(values)
        else:
            limits = np.iinfo(dtype)
            wrong = (values < limits.min) | (values > limits.max)
            if values.dtype.kind == "f":
                wrong |= values != np.rint(values)  # NaN is not equal to itself
    return values[wrong][0].item() if wrong.any() else None


def scaled(
    values: np.ndarray, source: tuple[float, float], target: tuple[float, float]
) -> np.ndarray:
    """Map the range `source` linearly to the range `target`; float64."""
    factor = (target[1] - target[0]) / (source[1] - source[0])
    return (values.astype(np.float64) - source[0]) * factor + target[0]
