"""Defects of serial sections: shifted, lost, torn or stained otherwise than their neighbours."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np


class SectionMoves(NamedTuple):
    """The place in the tissue of every section of a sample, voxels.

    Attributes
    ----------
    source : (n,) int64 array
        Section of the tissue, from the first one of the sample on; rises by at least 1.
    shift : (n, 2) int64 array
        Along y and x, from a voxel of the sample to the one of the tissue.
    """

    source: np.ndarray
    shift: np.ndarray

    @property
    def moves(self) -> bool:
        """Tell whether any section has another place than its own."""
        return bool(self.shift.any() or (self.source != np.arange(len(self.source))).any())


def draw_moves(
    rng: np.random.Generator, n: int, *, removed: int, largest: Sequence[int]
) -> SectionMoves:
    """Draw where sections are lost, and which are shifted.

    Parameters
    ----------
    n : int
        Sections of the sample. In a single one nothing can be seen to be lost or shifted.
    removed : int
        Sections in a row that are lost between two of the sample; 0: none.
    largest : (2,) int
        Largest shift along y and x, voxels. Half of the samples have one section that is shifted,
        the others all from one on.
    """
    source, shift = np.arange(n), np.zeros((n, 2), np.int64)
    if n < 2:
        return SectionMoves(source, shift)
    source[rng.integers(1, n) :] += removed
    first = rng.integers(1, n)
    last = first + 1 if rng.random() < 0.5 else n
    shift[first:last] = [rng.integers(-most, most + 1) for most in largest]
    return SectionMoves(source, shift)


def missing_part(
    rng: np.random.Generator, shape: tuple[int, int], *, half_width: float
) -> np.ndarray:
    """Return a band across a section, as a fold or a crack leaves one; (y, x) bool array.

    Parameters
    ----------
    shape : (2,) int
        Pixels (y, x).
    half_width : float
        Pixels to either side of a line, whose place and direction are drawn.
    """
    angle = rng.uniform(0, np.pi)
    through = rng.random(2) * shape
    y, x = np.indices(shape, sparse=True)
    away = (y - through[0]) * np.cos(angle) - (x - through[1]) * np.sin(angle)
    return np.abs(away) <= half_width


def change_grey(
    rng: np.random.Generator, section: np.ndarray, *, contrast: float, brightness: float, gamma: float
) -> np.ndarray:
    """Change the grey values of a section (y, x) by a random contrast, brightness and power.

    Parameters
    ----------
    section : (y, x) float array
        Intensities, 0..1.
    contrast, brightness, gamma : float
        The contrast around the mean is scaled by 1 +- `contrast`, `brightness` is added or subtracted
        at most, and the power is exp(+-`gamma`).

    Returns
    -------
    (y, x) float32 array
    """
    mean = section.mean()
    scale, shift = rng.uniform(1 - contrast, 1 + contrast), rng.uniform(-brightness, brightness)
    changed = (section - mean) * scale + mean + shift
    if gamma:
        changed = np.clip(changed, 0, 1) ** np.exp(rng.uniform(-gamma, gamma))
    return changed.astype(np.float32)
