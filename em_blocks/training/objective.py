"""Objective and batch source: the two parts of the training loop that can be exchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
from torch import Tensor

from em_blocks.models.head import Head

Batch = Mapping[str, np.ndarray]
"""Arrays (n, ...) by name; "raw" is what the network gets."""


class BatchSource(Protocol):
    """Source of batches; batch i depends on i alone, so a training can be continued."""

    def batches(self, first: int, last: int) -> Iterator[Batch]:
        """Yield batches `first` ... `last` - 1."""


class Objective(Protocol):
    """The losses whose sum a training minimises."""

    def __call__(
        self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], iteration: int
    ) -> dict[str, Tensor]:
        """Compute scalar losses by name, of what ``network(raw)`` gave for a batch."""


class HeadsObjective:
    """Every head's own loss of its own output.

    A batch has the arrays of a head as "head/array".

    Parameters
    ----------
    heads : mapping of name to Head
    """

    def __init__(self, heads: Mapping[str, Head]):
        self.heads = heads

    def __call__(
        self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], iteration: int
    ) -> dict[str, Tensor]:
        return {
            name: head.objective(
                outputs[name], {key: batch[f"{name}/{key}"] for key in head.arrays}, iteration
            )
            for name, head in self.heads.items()
        }
