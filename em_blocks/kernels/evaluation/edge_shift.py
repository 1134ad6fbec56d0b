"""Where borders of labels lie against edges of the image that they were drawn on."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np
from scipy import ndimage

MOST_POINTS = 50_000
"""Of the borders, spread evenly: a hundredth of them would tell a shift."""


class EdgeShift(NamedTuple):
    """How borders of labels match edges of the image.

    Attributes
    ----------
    shift : (2,) int
        Voxels (y, x) by which labels would have to be moved to match best.
    gain : float
        Edge strength under the borders once they are moved, over that where they are; 1 at best.
    contrast : float
        Edge strength under the borders where they are, over the mean of the image.
    """

    shift: tuple[int, int]
    gain: float
    contrast: float


def edge_shift(raw: np.ndarray, labels: np.ndarray, *, reach: int = 16) -> EdgeShift | None:
    """Find the shift in the plane at which borders of labels lie on the strongest edges.

    Parameters
    ----------
    raw : (z, y, x) array
        Intensities.
    labels : (z, y, x) int array
        Borders are where neighbours within a section differ.
    reach : int
        Largest shift, voxels; cut to a quarter of the section.

    Returns
    -------
    EdgeShift or None
        None where labels have no border within the sections, or the image no edge.
    """
    reach = min(reach, *(n // 4 for n in raw.shape[1:]))
    edges, borders = _edges(raw), _borders(labels)
    # What a shift moves out of the section counts for no shift: the same borders for all.
    inner = borders[:, reach : borders.shape[1] - reach, reach : borders.shape[2] - reach]
    at, mean = np.argwhere(inner), float(edges.mean())
    if not len(at) or not mean:
        return None
    at = at[:: -(-len(at) // MOST_POINTS)]
    first = np.ravel_multi_index(at.T, edges.shape)  # of the shift by -reach along both axes
    flat, width, sides = edges.ravel(), edges.shape[2], range(2 * reach + 1)
    strength = np.array([
        [flat[first + (y * width + x)].mean() for x in sides] for y in sides
    ]) / mean
    here = strength[reach, reach]
    y, x = np.unravel_index(int(strength.argmax()), strength.shape)
    gain = strength.max() / max(here, 1e-9)
    return EdgeShift((int(y) - reach, int(x) - reach), float(gain), float(here))


def _edges(raw: np.ndarray) -> np.ndarray:
    smooth = ndimage.gaussian_filter(raw.astype(np.float32), (0, 1, 1))
    return np.hypot(np.gradient(smooth, axis=1), np.gradient(smooth, axis=2))


def _borders(labels: np.ndarray) -> np.ndarray:
    found = np.zeros(labels.shape, bool)
    found[:, 1:] = labels[:, 1:] != labels[:, :-1]
    found[:, :, 1:] |= labels[:, :, 1:] != labels[:, :, :-1]
    return found
