"""Predicted clefts against true ones, in this process."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack

from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, BlockGrid
from em_blocks.kernels.evaluation.cleft_distances import CleftScores, CleftVoxels, score_clefts
from em_blocks.kernels.evaluation.cremi_marks import SIGNED, is_unknown, without_marks
from em_blocks.tasks.evaluation.count_overlaps import usual_block
from em_blocks.volumes.labels import open_labels, placed, read_in, shared_region

Shown = Callable[[Iterable[Block], int], Iterator[Block]]
"""Passes blocks on, and shows how many of all there are."""


def evaluate_clefts(
    *, prediction: str, truth: str, far_nm: float,
    shown: Shown = lambda blocks, n: iter(blocks),
) -> CleftScores:
    """Distances between predicted and true clefts, where both volumes are.

    The volumes are read block by block; all voxels of clefts are kept, 25 bytes each.

    Parameters
    ----------
    prediction, truth : str
        Volumes of ids: every voxel that is neither 0 nor CREMI's background belongs to a cleft.
        Voxels that truth marks as unknown do not count.
    far_nm : float
        Voxels farther than this are counted as wrong.

    Raises
    ------
    ConfigError
        If the volumes cannot be compared, or their voxel size is unknown.
    """
    with ExitStack() as stack:
        volumes = [stack.enter_context(open_labels(path, negative=SIGNED))
                   for path in (prediction, truth)]
        if all(volume.frame is None for volume in volumes):
            raise ConfigError(
                f"Neither {prediction} nor {truth} says how large its voxels are, but distances are "
                "nm. Add the attributes resolution and offset (nm, zyx) to a dataset, or ingest it."
            )
        volumes = placed(volumes)
        frame, shape = shared_region(volumes)
        grid = BlockGrid(frame, shape, usual_block(volumes[0].chunk_shape))
        parts = ([], [])
        for block in shown(grid.blocks(), grid.n_blocks):
            ids = [read_in(volume, frame, block.write_box) for volume in volumes]
            known = ~is_unknown(ids[1])
            for found, labels in zip(parts, ids, strict=True):
                mask = (without_marks(labels) != 0) & known
                found.append(CleftVoxels.of(mask, block.write_box.offset))
    predicted, true = map(CleftVoxels.concatenate, parts)
    return score_clefts(
        prediction=predicted, truth=true, voxel_size=frame.voxel_size, far_nm=far_nm
    )
