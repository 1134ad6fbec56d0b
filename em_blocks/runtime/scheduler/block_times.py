"""Times of blocks, and limits that follow from them."""

from __future__ import annotations

import math
from collections import deque

import numpy as np

FIRST_LIMIT_S, LEAST_LIMIT_S = 3600.0, 120.0
LEAST_UNUSUAL_S = 10.0
ENOUGH, KEPT, REFRESH = 5, 500, 25


class BlockTimes:
    """Collects the seconds from the assignment of a block to its record.

    Parameters
    ----------
    limit : float or None
        Seconds that a block may take, as configured; None: derived from measured blocks.
    """

    def __init__(self, limit: float | None):
        self._limit = limit
        self._seconds: deque[float] = deque(maxlen=KEPT)
        self._added = 0
        self.median = self.long = 0.0

    def add(self, seconds: float) -> None:
        """Add the time of a done block."""
        self._seconds.append(seconds)
        self._added += 1
        # Quantiles for every block would cost more than the assignment itself.
        if self._added <= REFRESH or self._added % REFRESH == 0:
            self.median, self.long = np.quantile(self._seconds, (0.5, 0.9)).tolist()

    def limit(self, timeouts: int) -> float:
        """Return the seconds that a block may take that timed out `timeouts` times before."""
        return self._base() * 2**timeouts

    def _base(self) -> float:
        measured = self._added >= ENOUGH
        if self._limit is None:
            return max(LEAST_LIMIT_S, 20 * self.long) if measured else FIRST_LIMIT_S
        return max(self._limit, 3 * self.median) if measured else self._limit

    @property
    def unusual_s(self) -> float:
        """Seconds after which a block is worth a warning; infinite while too few are measured."""
        return max(LEAST_UNUSUAL_S, 5 * self.long) if self._added >= ENOUGH else math.inf
