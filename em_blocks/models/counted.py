"""Heads whose scores follow from counts that add up over the parts of a volume."""

from __future__ import annotations

from abc import abstractmethod

import numpy as np

from em_blocks.models.head import Head
from em_blocks.models.truth import Truth


class CountedHead(Head):
    """A head that is scored part by part, so that a validation never holds a whole volume.

    Counts are whole numbers: their sum does not depend on the parts.
    """

    @abstractmethod
    def tally(self, predicted: np.ndarray, truth: Truth) -> np.ndarray:
        """Count what scores need in one part of a volume.

        Parameters
        ----------
        predicted : (c, z, y, x) float32 array
            Activated and in the unit of the head, of the shape of the truth.

        Returns
        -------
        int64 array
            Of one shape for all parts; those of several parts are added.
        """

    @abstractmethod
    def scores_of(self, counts: np.ndarray) -> dict[str, float]:
        """Compute scores, as `scores` has them, of the sum of counts."""

    def scores(self, predicted: np.ndarray, truth: Truth) -> dict[str, float]:
        return self.scores_of(self.tally(predicted, truth))
