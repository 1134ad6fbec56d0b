"""The network of a prediction, ready for arrays; imports torch."""

from __future__ import annotations

from typing import TYPE_CHECKING

from em_blocks.kernels.transforms.symmetry import Symmetry, symmetries
from em_blocks.nets.inference import HeadFormat, TilePredictor

if TYPE_CHECKING:
    from em_blocks.tasks.prediction.predict import Predict


def predictor_of(task: Predict, measured: dict) -> TilePredictor:
    """Load the network of `task`; `measured` as returned by its `measure`."""
    augmented = task.test_time_augmentation
    # Runs of earlier versions kept no tile and no batch.
    tile = tuple(measured.get("tile_shape") or task.usual_tile)
    batch = task.batch_size or measured.get("batch_size") or 1
    heads = {
        spec.name: HeadFormat(
            spec.dtype, spec.attributes.get("scale"), task.heads[spec.name].inverse
        )
        for spec in task.output_specs()
    }
    return TilePredictor(
        task.network(), heads=heads,
        tile_shape=tile, batch_size=min(batch, task.tiles_per_block(tile)),
        **measured["normalization"], precision=measured["precision"], overlap=task.overlap,
        symmetries=[Symmetry()] if augmented == "none"
        else symmetries(transposes=augmented == "mirrors_transposes"),
    )
