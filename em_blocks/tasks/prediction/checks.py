"""Checks of a prediction's config against its setup and raw, before the first worker."""

from __future__ import annotations

from typing import TYPE_CHECKING

from em_blocks.errors import BlockAlignmentError, ConfigError
from em_blocks.geometry import nearest_multiple
from em_blocks.volumes import Volume

if TYPE_CHECKING:
    from em_blocks.tasks.prediction.predict import Predict


def check_raw(raw: Volume) -> None:
    """Raise `ConfigError` unless raw is one channel of intensities."""
    if raw.channels is not None:
        raise ConfigError(
            f"raw is {raw.path} with {raw.channels} channels, shape {(raw.channels, *raw.shape)}, "
            "but a raw volume has three axes (z, y, x). Name one image channel, or ingest it."
        )
    if raw.dtype.kind not in "uif" or raw.dtype.itemsize > 4:
        raise ConfigError(
            f"raw is {raw.path} of dtype {raw.dtype}, which holds labels rather than "
            "intensities. The network would see noise; name the image volume."
        )


def check_heads(task: Predict) -> None:
    """Raise `ConfigError` for outputs of unknown heads, unfit dtypes, and shared datasets."""
    known = task.heads
    for name in task.outputs:
        if name not in known:
            raise ConfigError(
                f"'outputs' names the head {name!r}, but the setup {task.setup} has the heads "
                f"{', '.join(known)}. Use one of these."
            )
    for name, out in task.outputs.items():
        storage = known[name].storage
        if out.dtype in storage.unfit:
            raise ConfigError(
                f"'outputs' stores the head {name!r} as {out.dtype}, which "
                f"{storage.unfit[out.dtype]}"
            )
    datasets = [out.dataset or name for name, out in task.outputs_by_head().items()]
    if len(set(datasets)) < len(datasets):
        raise ConfigError(f"Two heads are stored in the same dataset: {datasets}.")


def check_precision(task: Predict) -> None:
    """Raise `ConfigError` for a precision that the network cannot be computed in."""
    if task.precision is not None and task.precision not in task.network_precisions:
        raise ConfigError(
            f"'precision' is {task.precision}, but the network of {task.setup} computes in "
            f"{', '.join(task.network_precisions)} only, which its file decides. Leave 'precision' out."
        )


def check_tiles(task: Predict) -> None:
    """Raise unless tiles fit the network, the overlap and the block."""
    tile, network = task.usual_tile, task.bare_network
    network.check_tile(tile)
    if any(task.overlap) and any(network.context):
        raise ConfigError(
            f"'overlap' is {task.overlap}, but the network of {task.setup} computes only valid "
            "voxels: its tiles agree exactly and need no blending. Leave 'overlap' out."
        )
    if any(2 * o > t for o, t in zip(task.overlap, tile, strict=True)):
        raise ConfigError(
            f"'overlap' {task.overlap} is more than half of the tile {tile} (voxels, zyx); three "
            "tiles would share a voxel. Use at most half."
        )
    stride = tuple(t - o for t, o in zip(tile, task.overlap, strict=True))
    if any(b % s for b, s in zip(task.block_shape, stride, strict=True)):
        raise BlockAlignmentError(
            f"block_shape {task.block_shape} is not a multiple of the tile stride {stride} (voxels, "
            "zyx). Tiles would be cut and computed twice. Use block_shape "
            f"{nearest_multiple(task.block_shape, stride)}, or a tile_shape that divides the block."
        )


def check_symmetries(task: Predict, raw: Volume) -> None:
    """Raise `ConfigError` if heads have no mean, or transposes would mix voxels of different size."""
    if task.test_time_augmentation != "none":
        _check_means(task)
    if task.test_time_augmentation != "mirrors_transposes":
        return
    _, y, x = raw.frame.voxel_size
    tile = task.usual_tile
    if y != x or tile[1] != tile[2]:
        raise ConfigError(
            f"'test_time_augmentation' transposes y and x, but the voxel size is {(y, x)} nm and "
            f"the tile {tile[1:]} voxels (y, x). Use \"mirrors\", or equal sizes."
        )


def _check_means(task: Predict) -> None:
    if without := [name for name in task.outputs_by_head() if not task.heads[name].has_mean]:
        raise ConfigError(
            f"'test_time_augmentation' averages predictions of mirrored raw, but those of {without} "
            "have no mean: mirrored, an object has another vector, and objects would become alike. "
            "Leave 'test_time_augmentation' out, or predict the other heads by 'outputs' alone."
        )
