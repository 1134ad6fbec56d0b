"""Arrays of other programs, which are sliced as numpy's, as volumes (z, y, x) or (c, z, y, x)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Box
from em_blocks.volumes.imports.sources import SourceHeader
from em_blocks.volumes.metadata import Stored, resolve, resolve_axes
from em_blocks.volumes.metadata.arrangement import Arrangement
from em_blocks.volumes.metadata.claims import Axes


def number_type(dtype: np.dtype, source: str, shape: Sequence[int]) -> np.dtype:
    """Return the dtype in which values are stored: native; of true and false, uint8 (1 and 0).

    Raises
    ------
    ConfigError
        If the values are no integers, floats or bool, or there are fewer than three axes.
    """
    if dtype.kind not in "uifb" or len(shape) < 3 or 0 in shape:
        raise no_volume(source, dtype, shape)
    return np.dtype(np.uint8) if dtype.kind == "b" else dtype.newbyteorder("=")


def no_volume(source: str, dtype: object, shape: Sequence[int]) -> ConfigError:
    """Return the error of an array that is no volume of numbers."""
    return ConfigError(
        f"{source} has the shape {tuple(shape)} and dtype {dtype}, but a volume (z, y, x) or "
        "(c, z, y, x) of integers or floats is needed."
    )


def arrange(stored: Stored, axes: Axes | None) -> Arrangement:
    """Return the arrangement of an array; a single channel and a single point in time are dropped.

    Raises
    ------
    VolumeError
        If its axes are not those of a volume.
    """
    found, _ = resolve_axes(stored, axes)
    return Arrangement.of(found, stored.shape, keeps_channel=False, source=stored.source)


def header_of(
    stored: Stored, dtype: np.dtype, axes: Axes | None, told: VolumeInput | None,
    chunks: Sequence[int] | None = None,
) -> SourceHeader:
    """Return the header of an array by its metadata, and what a config tells."""
    dtype = number_type(dtype, stored.source, stored.shape)
    arrangement = arrange(stored, axes)
    told = (told or VolumeInput(path=stored.source)).model_copy(update={"axes": axes})
    frame = resolve(stored, told, optional=True).frame
    return SourceHeader(
        arrangement.spatial(stored.shape), dtype,
        None if frame is None else frame.voxel_size, None if frame is None else frame.offset,
        None if chunks is None else arrangement.spatial(chunks), channels_of(arrangement, stored.shape),
    )


def channels_of(arrangement: Arrangement, shape: Sequence[int]) -> int | None:
    """Return the number of channels of a stored array, None for a volume without."""
    return shape[arrangement.axes.index("c")] if "c" in arrangement.kept else None


def read_box(array: Any, arrangement: Arrangement, dtype: np.dtype, box: Box) -> np.ndarray:
    """Return the voxels of a box (z, y, x), or (c, z, y, x), of an array that is sliced as numpy's."""
    values = np.asarray(array[arrangement.index(box)]).transpose(arrangement.order)
    return np.ascontiguousarray(values, dtype)


def check_length(source: str, size: int, needed: int, shape: Sequence[int]) -> None:
    """Raise `ConfigError` if what a header describes needs more bytes than there are."""
    if size < needed:
        raise ConfigError(
            f"{source} has {size} bytes, but its {tuple(shape)} voxels need {needed}. It was not copied "
            "or written to its end; get it again."
        )


def unreadable(source: str, box: Box, error: Exception) -> VolumeError:
    """Return the error of voxels that cannot be read."""
    return VolumeError(
        f"Voxels {box.offset} to {box.end} (zyx) of {source} cannot be read: {error}"
    )
