"""Local shape descriptors (LSDs) from labels."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numba
import numpy as np

from em_blocks.geometry import Triple, triple

CHANNELS = 10
TRUNCATE = 1.75  # sigmas from the centre of the window to its faces
_STEPS_PER_SIGMA = 4  # finer windows change little and cost the sixth power
_LANES = 8  # window rows are padded to multiples, or the compiler leaves the rest unvectorised


class ShapeDescriptors(NamedTuple):
    """Descriptors (10, z, y, x) float32 in 0..1, and where they are defined (z, y, x) uint8."""

    values: np.ndarray
    mask: np.ndarray


def reach(sigma_nm: float, voxel_size: Sequence[float]) -> Triple:
    """Voxels (z, y, x) from a voxel to the end of the window around it."""
    return triple(int(np.ceil(TRUNCATE * sigma_nm / size)) for size in voxel_size)


def shape_descriptors(
    labels: np.ndarray,
    *,
    sigma_nm: float,
    voxel_size: Sequence[float],
    margin: Sequence[int] = (0, 0, 0),
) -> ShapeDescriptors:
    """Describe the object of every voxel within a Gaussian window around it.

    The window is a cube of `TRUNCATE` sigmas to every side, sampled on a grid of about
    `sigma_nm` / 4. A voxel takes the moments of the nearest grid point in its object, with the
    offset corrected to the voxel.

    Parameters
    ----------
    labels : (z, y, x) int array
        Object ids; 0 is no object.
    sigma_nm : float
        Standard deviation of the window.
    voxel_size : (3,) floats
        nm (z, y, x).
    margin : (3,) ints
        Voxels at every side (z, y, x) that are looked at, but get no descriptor.
        Less than `reach` cuts objects off where the array ends.

    Returns
    -------
    ShapeDescriptors
        Of the array without its margin. Channels: 0-2 offset to the centre of mass (z, y, x),
        0.5 + offset / (2 sigma); 3-5 variances along (z, y, x) / sigma**2; 6-8 Pearson
        correlations of (z, y), (z, x), (y, x), 0.5 + r / 2; 9 the part of the window that
        the object fills. 0 and masked where the label is 0, and in objects so thin that
        no grid point lies in them nearby.

    Raises
    ------
    ValueError
        If an array or a length does not fit the above.

    References
    ----------
    Sheridan et al. 2023, doi:10.1038/s41592-022-01711-z.
    """
    size = np.asarray(voxel_size, float)
    if labels.ndim != 3 or size.shape != (3,):
        raise ValueError(
            f"labels must be (z, y, x) and voxel_size (3,), got {labels.shape} and {size.shape}"
        )
    if not sigma_nm > 0 or not (size > 0).all():
        raise ValueError(f"sigma_nm {sigma_nm} and voxel_size {voxel_size} must be positive")
    begin = np.asarray(margin, np.int64)
    shape = np.asarray(labels.shape) - 2 * begin
    if (begin < 0).any() or (shape < 1).any():
        raise ValueError(f"margin {tuple(margin)} leaves nothing of labels {labels.shape}")
    stride = np.maximum(1, np.rint(sigma_nm / _STEPS_PER_SIGMA / size)).astype(np.int64)
    grid = labels[:: stride[0], :: stride[1], :: stride[2]]
    first, last = begin // stride, -((1 - begin - shape) // stride)
    last = np.minimum(last, np.asarray(grid.shape) - 1)
    sides = (TRUNCATE * sigma_nm / (size * stride) + 1e-6).astype(np.int64)
    positions, weights = _window(sigma_nm, size * stride, sides)
    moments = _moments(
        _padded(grid, sides), first, last - first + 1, sides, *positions, *weights
    )
    _normalise(moments, sigma_nm)
    values = np.zeros((CHANNELS, *shape), np.float32)
    mask = np.zeros(tuple(shape), np.uint8)
    _spread(
        np.ascontiguousarray(labels), moments, first, stride, begin, size / (2 * sigma_nm),
        values, mask,
    )
    return ShapeDescriptors(values, mask)


def _window(sigma_nm: float, step: np.ndarray, sides: np.ndarray):
    """Positions (nm) along every axis of the window, and their weights; lists of arrays."""
    positions, weights = [], []
    for axis, (length, side) in enumerate(zip(step, sides, strict=True)):
        position = np.arange(-side, side + 1) * length
        weight = np.exp(-0.5 * (position / sigma_nm) ** 2)
        padding = (0, -len(position) % _LANES if axis == 2 else 0)
        positions.append(np.pad(position, padding).astype(np.float32))
        weights.append(np.pad(weight / weight.sum(), padding).astype(np.float32))
    return positions, weights


def _padded(grid: np.ndarray, sides: np.ndarray) -> np.ndarray:
    """Labels as small integers (0 stays 0) with a rim of 0 that holds the window.

    Comparing 32 instead of 64 bits doubles what one instruction handles.
    """
    ids, inverse = np.unique(grid, return_inverse=True)
    small = inverse.reshape(grid.shape).astype(np.int32)
    if ids[0] != 0:
        small += 1
    return np.pad(small, [(side, side + _LANES) for side in sides])


def _normalise(moments: np.ndarray, sigma_nm: float) -> None:
    """Bring the channels to 0..1, except the offset, which `_spread` corrects first."""
    moments[0:3] /= 2 * sigma_nm
    deviations = np.sqrt(np.maximum(moments[3:6], 1e-12))
    for channel, (a, b) in enumerate(((0, 1), (0, 2), (1, 2)), start=6):
        # An object without extent along an axis has no correlation with it.
        r = moments[channel] / np.maximum(deviations[a] * deviations[b], 1e-3)
        moments[channel] = 0.5 + 0.5 * r
    moments[3:6] /= sigma_nm**2


@numba.njit(cache=True, nogil=True, fastmath=True)
def _moments(grid, first, shape, sides, pz, py, px, wz, wy, wx):
    """Mean offset, (co)variances (nm) and filled part at the grid points of a box.

    `grid` is padded by the window, so that a point's window begins at the point's own
    index; (10, z, y, x) float32, 0 where the label is 0. Sums over x come last: until then
    every position along x is a lane of its own.
    """
    out = np.zeros((10, shape[0], shape[1], shape[2]), np.float32)
    n = len(px)
    sums, plane = np.zeros((6, n), np.float32), np.zeros((3, n), np.float32)
    for z in range(shape[0]):
        for y in range(shape[1]):
            for x in range(shape[2]):
                gz, gy, gx = first[0] + z, first[1] + y, first[2] + x
                label = grid[gz + sides[0], gy + sides[1], gx + sides[2]]
                if label == 0:
                    continue
                sums[:] = 0
                for i in range(len(pz)):
                    plane[:] = 0
                    for j in range(len(py)):
                        row = grid[gz + i, gy + j, gx : gx + n]
                        w0, w1, w2 = wy[j], wy[j] * py[j], wy[j] * py[j] * py[j]
                        for k in range(n):
                            same = np.float32(row[k] == label)
                            plane[0, k] += w0 * same
                            plane[1, k] += w1 * same
                            plane[2, k] += w2 * same
                    for k in range(n):
                        one = wz[i] * plane[0, k]
                        sums[0, k] += one
                        sums[1, k] += pz[i] * one
                        sums[2, k] += pz[i] * pz[i] * one
                        along_y = wz[i] * plane[1, k]
                        sums[3, k] += along_y
                        sums[4, k] += pz[i] * along_y
                        sums[5, k] += wz[i] * plane[2, k]
                m = mz = my = mx = zz = yy = xx = zy = zx = yx = np.float32(0)
                for k in range(n):
                    w, w1 = wx[k], wx[k] * px[k]
                    m += w * sums[0, k]
                    mx += w1 * sums[0, k]
                    xx += w1 * px[k] * sums[0, k]
                    mz += w * sums[1, k]
                    zx += w1 * sums[1, k]
                    zz += w * sums[2, k]
                    my += w * sums[3, k]
                    yx += w1 * sums[3, k]
                    zy += w * sums[4, k]
                    yy += w * sums[5, k]
                mz, my, mx = mz / m, my / m, mx / m
                out[0, z, y, x], out[1, z, y, x], out[2, z, y, x] = mz, my, mx
                out[3, z, y, x] = zz / m - mz * mz
                out[4, z, y, x] = yy / m - my * my
                out[5, z, y, x] = xx / m - mx * mx
                out[6, z, y, x] = zy / m - mz * my
                out[7, z, y, x] = zx / m - mz * mx
                out[8, z, y, x] = yx / m - my * mx
                out[9, z, y, x] = m
    return out


@numba.njit(cache=True, nogil=True)
def _spread(labels, moments, first, stride, begin, unit, values, mask):
    """Give every voxel the descriptor of the nearest grid point with its label.

    `unit` turns voxels into the unit of the offset channels.
    """
    shape, ends = mask.shape, moments.shape[1:]
    for z in range(shape[0]):
        for y in range(shape[1]):
            for x in range(shape[2]):
                here = (z + begin[0], y + begin[1], x + begin[2])
                label = labels[here]
                if label == 0:
                    continue
                nearest = np.inf
                bz = by = bx = 0
                for corner in range(8):
                    # Along an axis on which the voxel lies on the grid, both ends are one point.
                    gz = -(-here[0] // stride[0]) if corner & 4 else here[0] // stride[0]
                    gy = -(-here[1] // stride[1]) if corner & 2 else here[1] // stride[1]
                    gx = -(-here[2] // stride[2]) if corner & 1 else here[2] // stride[2]
                    if (
                        gz - first[0] >= ends[0]
                        or gy - first[1] >= ends[1]
                        or gx - first[2] >= ends[2]
                        or labels[gz * stride[0], gy * stride[1], gx * stride[2]] != label
                    ):
                        continue
                    distance = (
                        ((gz * stride[0] - here[0]) * unit[0]) ** 2
                        + ((gy * stride[1] - here[1]) * unit[1]) ** 2
                        + ((gx * stride[2] - here[2]) * unit[2]) ** 2
                    )
                    if distance < nearest:
                        nearest, bz, by, bx = distance, gz, gy, gx
                if nearest == np.inf:
                    continue
                mask[z, y, x] = 1
                mz, my, mx = bz - first[0], by - first[1], bx - first[2]
                moved = (
                    (bz * stride[0] - here[0]) * unit[0],
                    (by * stride[1] - here[1]) * unit[1],
                    (bx * stride[2] - here[2]) * unit[2],
                )
                for c in range(10):
                    value = moments[c, mz, my, mx]
                    if c < 3:
                        value += 0.5 + moved[c]
                    values[c, z, y, x] = min(max(value, 0.0), 1.0)
