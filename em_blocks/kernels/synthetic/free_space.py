"""Where there is room among bodies of spheres."""

from __future__ import annotations

import itertools
from collections import defaultdict

import numpy as np
from scipy.spatial.distance import cdist

_AROUND = np.array(list(itertools.product((-1, 0, 1), repeat=3)))


class FreeSpace:
    """Bodies of spheres, found by where they lie.

    Parameters
    ----------
    reach_nm : float
        Largest distance of the centres of two spheres that `clearance` looks at.
    """

    def __init__(self, reach_nm: float):
        self._reach = reach_nm
        self._cells: dict[tuple[int, ...], list[int]] = defaultdict(list)  # parts in each cell
        self._parts: list[tuple[np.ndarray, np.ndarray, int]] = []
        self._bodies: list[tuple[np.ndarray, np.ndarray]] = []

    def __len__(self) -> int:
        """Return the number of bodies."""
        return len(self._bodies)

    def add(self, position: np.ndarray, radius: np.ndarray) -> int:
        """Add a body; returns its number, from 1.

        Parameters
        ----------
        position : (n, 3) float array
            Centres, nm.
        radius : (n,) float array
            nm.
        """
        self._bodies.append((position, radius))
        cells, which = np.unique(self._cell(position), axis=0, return_inverse=True)
        for n, cell in enumerate(cells):
            own = which.ravel() == n
            self._cells[tuple(cell)].append(len(self._parts))
            self._parts.append((position[own], radius[own], len(self)))
        return len(self)

    def clearance(
        self, position: np.ndarray, radius: np.ndarray, *, apart_from: int = 0
    ) -> float:
        """Return the distance of a new body to the nearest one, nm; below 0 where they overlap.

        Parameters
        ----------
        apart_from : int
            Number of a body that does not count.
        """
        cells = np.unique((self._cell(position)[:, None] + _AROUND).reshape(-1, 3), axis=0)
        parts = {part for cell in map(tuple, cells) for part in self._cells.get(cell, ())}
        near = [self._parts[n] for n in sorted(parts) if self._parts[n][2] != apart_from]
        if not near:
            return float("inf")
        centers, radii, _ = zip(*near, strict=True)
        gaps = cdist(position, np.concatenate(centers)) - radius[:, None] - np.concatenate(radii)
        return float(gaps.min())

    def spheres(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return centres (n, 3), radii (n,) and numbers (n,) of all spheres, body after body."""
        if not self._bodies:
            return np.empty((0, 3)), np.empty(0), np.empty(0, np.int64)
        positions, radii = zip(*self._bodies, strict=True)
        sizes = [len(radius) for radius in radii]
        return (np.concatenate(positions), np.concatenate(radii),
                np.repeat(np.arange(1, len(sizes) + 1), sizes))

    def _cell(self, position: np.ndarray) -> np.ndarray:
        return np.floor(position / self._reach).astype(int)
