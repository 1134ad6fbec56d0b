"""Say what to lower where the memory of a device or of the computer is not enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager

import torch
from torch import nn

from em_blocks.errors import RunFailedError
from em_blocks.geometry import Triple, triple
from em_blocks.models.config import SetupConfig


@contextmanager
def memory_guard(what: str, advice: str) -> Iterator[None]:
    """Raise `RunFailedError` where memory runs out; other errors pass.

    Parameters
    ----------
    what : str
        What needed the memory, with its sizes.
    advice : str
        What to lower, and to what.
    """
    try:
        yield
    except (RuntimeError, MemoryError) as error:
        if not is_out_of_memory(error):
            raise
        raise RunFailedError(
            f"Memory is not enough for {what} ({str(error).splitlines()[0] or 'MemoryError'}). {advice} "
            "States and weights that were saved before are sound."
        ) from error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether an error says that memory of a GPU or of the computer is exhausted."""
    # torch has a class for GPUs only; its allocator of the CPU raises a plain RuntimeError.
    return isinstance(error, (torch.OutOfMemoryError, MemoryError)) or (
        isinstance(error, RuntimeError) and "DefaultCPUAllocator" in str(error)
    )


def smaller_tile(shape: Sequence[int], factor: Sequence[int]) -> Triple | None:
    """Return a tile of about half as many voxels that a network takes; None if there is none.

    Parameters
    ----------
    shape : (3,) int
        Voxels (z, y, x), whole multiples of `factor`.
    factor : (3,) int
        What tiles are multiples of.
    """
    axis = max(range(3), key=lambda n: shape[n] / factor[n])
    if shape[axis] <= factor[axis]:
        return None
    half = max(1, shape[axis] // factor[axis] // 2) * factor[axis]
    return triple(half if n == axis else shape[n] for n in range(3))


class MemoryGuard:
    """Guards of the steps and the validations of one training.

    Parameters
    ----------
    config : SetupConfig
    network : torch module
        Whose `context` and `tile_factor` say which sizes there are.
    """

    def __init__(self, config: SetupConfig, network: nn.Module):
        self.config = config
        self.context = tuple(network.context)
        self.factor = tuple(getattr(network, "tile_factor", (1, 1, 1)))

    def step(self) -> AbstractContextManager[None]:
        """Guard one iteration."""
        training = self.config.training
        return memory_guard(
            f"an iteration with {training.batch_size} sample(s) of {self._input(training.output_shape)} "
            "voxels of raw",
            self._of_batch(),
        )

    def validation(self) -> AbstractContextManager[None]:
        """Guard a validation."""
        shape = self.config.tile_shape
        return memory_guard(
            f"a validation with tiles of {self._input(shape)} voxels of raw", self._of_tile(shape)
        )

    def _input(self, output: Triple) -> Triple:
        return triple(n + 2 * c for n, c in zip(output, self.context, strict=True))

    def _of_batch(self) -> str:
        training, again = self.config.training, "It is another training then: use --output FOLDER."
        if (n := training.batch_size) > 1:
            return f"Lower training.batch_size from {n} to {n // 2}. {again}"
        if (shape := smaller_tile(training.output_shape, self.factor)) is None:
            return f"The sample is the smallest there is: lower `features` of the network. {again}"
        return (
            f"Lower training.output_shape from {tuple(training.output_shape)} to {shape} voxels (zyx). "
            f"{again}"
        )

    def _of_tile(self, shape: Triple) -> str:
        smaller = smaller_tile(shape, self.factor)
        if smaller is None:
            return "The tile is the smallest there is: lower `features` of the network."
        return f"Lower tile_shape from {tuple(shape)} to {smaller} voxels (zyx)."
