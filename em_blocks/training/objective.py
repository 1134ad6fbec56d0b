"""Objective and batch source: the two parts of the training loop that can be exchanged."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
from torch import Tensor

from em_blocks.models.head import Head
from em_blocks.nets.unet import auxiliary_name

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
    """Every head's own loss of its own output, and of its auxiliary one where there is one.

    A batch has the arrays of a head as "head/array".

    Parameters
    ----------
    heads : mapping of name to Head
    auxiliary : float
        Factor of the losses of auxiliary outputs.

    References
    ----------
    Auxiliary outputs: deep supervision, arXiv:1409.5185.
    """

    def __init__(self, heads: Mapping[str, Head], auxiliary: float = 1.0):
        self.heads, self.auxiliary = heads, auxiliary

    def __call__(
        self, outputs: Mapping[str, Tensor], batch: Mapping[str, Tensor], iteration: int
    ) -> dict[str, Tensor]:
        losses = {}
        for name, head in self.heads.items():
            arrays = {key: batch[f"{name}/{key}"] for key in head.arrays}
            losses[name] = head.objective(outputs[name], arrays, iteration)
            if (extra := auxiliary_name(name)) in outputs:
                losses[extra] = self.auxiliary * head.objective(outputs[extra], arrays, iteration)
        return losses
