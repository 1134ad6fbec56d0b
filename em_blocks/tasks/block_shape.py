"""Block shapes that no config gives: the largest block whose worker fits into its memory."""

from __future__ import annotations

import itertools
from collections.abc import Callable

from em_blocks.errors import BlockAlignmentError, ConfigError
from em_blocks.geometry import BlockGrid, Triple

DEFAULT_BLOCK = (
    "Voxels (z, y, x) that one block writes. Default: the largest block whose worker fits into "
    "cluster.memory_gb, else into its share of half of this machine, with a block for every worker at "
    "least. What a run began with is kept."
)
BASE_BYTES = 300e6
"""Of a worker's process with its libraries."""
READ_BYTES = 32
"""Of a voxel that a block reads: its values, labels of 64 bits, and copies of them."""


def largest_block(
    grid: BlockGrid, unit: Triple, *, num_workers: int, fits: Callable[[Triple], bool]
) -> Triple:
    """Return the largest block that fits, about as long along every axis in nm.

    Sizes are 1, 2, 3, 4, 6, 8, 12 ... units, which have many divisors.

    Parameters
    ----------
    grid : BlockGrid
        Whose block shape is not known yet.
    unit : (3,) int
        Voxels (z, y, x) that a block is a multiple of.
    num_workers : int
        Each has a block to do, if there are as many units.
    fits : function of a block shape
        Whether a worker has the memory for it.

    Raises
    ------
    ConfigError
        If not even one unit fits.
    """
    if not fits(unit):
        raise ConfigError(
            f"'block_shape' is not given, and a worker lacks the memory for the smallest block, {unit} "
            "voxels (z, y, x). Give workers more by cluster.memory_gb or by a smaller 'num_workers', or "
            "say a 'block_shape'."
        )
    sizes = [itertools.islice(_multiples(), 1, None) for _ in unit]
    shape, axes = unit, {0, 1, 2}
    while axes:
        axis = min(axes, key=lambda a: (shape[a] * grid.frame.voxel_size[a], a))
        grown = (*shape[:axis], next(sizes[axis]) * unit[axis], *shape[axis + 1:])
        covered = shape[axis] >= grid.volume_shape[axis]
        n_blocks = BlockGrid(grid.frame, grid.volume_shape, grown).n_blocks
        if covered or n_blocks < num_workers or not fits(grown):
            axes.remove(axis)
        else:
            shape = grown
    return shape


def fits_into(memory: float, worker_bytes: Callable[[Triple], float]) -> Callable[[Triple], bool]:
    """Return whether a worker of `memory` bytes can do blocks, by their shape."""

    def fits(shape: Triple) -> bool:
        try:
            return worker_bytes(shape) <= memory
        except BlockAlignmentError:  # it cannot be cut into chunks
            return False

    return fits


def _multiples():
    """Yield 1, 2, 3, 4, 6, 8, 12, 16, 24 ..."""
    yield 1
    for power in itertools.count(1):
        yield 2**power
        yield 3 * 2 ** (power - 1)
