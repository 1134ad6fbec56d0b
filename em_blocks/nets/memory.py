"""Say what to lower where the memory of a device or of the computer is not enough."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import torch

from em_blocks.errors import RunFailedError
from em_blocks.geometry import Triple, triple


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
        said = (str(error).splitlines() or [type(error).__name__])[0]
        raise RunFailedError(
            f"Memory is not enough for {what} ({said}). {advice} "
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
    network : torch module
        Whose `context` and `tile_factor` say which sizes there are.
    batch_size : int
    output_shape, tile_shape : (3,) int
        Output voxels (z, y, x) of a sample, and of a tile of a validation.
    """

    def __init__(
        self, network: Any, *, batch_size: int, output_shape: Triple, tile_shape: Triple
    ):
        self.context: Triple = network.context
        self.factor: Triple = getattr(network, "tile_factor", (1, 1, 1))
        self.batch_size, self.output_shape, self.tile_shape = batch_size, output_shape, tile_shape

    def step(self) -> AbstractContextManager[None]:
        """Guard one iteration."""
        return memory_guard(
            f"an iteration with {self.batch_size} sample(s) of {self._input(self.output_shape)} "
            "voxels of raw",
            self._of_batch(),
        )

    def validation(self) -> AbstractContextManager[None]:
        """Guard a validation."""
        return memory_guard(
            f"a validation with tiles of {self._input(self.tile_shape)} voxels of raw", self._of_tile()
        )

    def _input(self, output: Triple) -> Triple:
        return triple(n + 2 * c for n, c in zip(output, self.context, strict=True))

    def _of_batch(self) -> str:
        again = "It is another training then: use --output FOLDER."
        if (n := self.batch_size) > 1:
            return f"Lower training.batch_size from {n} to {n // 2}. {again}"
        if (smaller := smaller_tile(self.output_shape, self.factor)) is None:
            return f"The sample is the smallest there is: lower `features` of the network. {again}"
        return (
            f"Lower training.output_shape from {tuple(self.output_shape)} to {smaller} voxels (zyx). "
            f"{again}"
        )

    def _of_tile(self) -> str:
        smaller = smaller_tile(self.tile_shape, self.factor)
        if smaller is None:
            return "The tile is the smallest there is: lower `features` of the network."
        return f"Lower tile_shape from {tuple(self.tile_shape)} to {smaller} voxels (zyx)."
