"""What all preparations ask of the volumes that they read."""

from __future__ import annotations

from em_blocks.config import VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.tasks.components.find_parts import identity_of
from em_blocks.volumes import Volume


def check_image(volume: Volume, key: str) -> None:
    """Raise `ConfigError` unless a volume holds one grey value per voxel."""
    if volume.channels is not None:
        raise ConfigError(
            f"{key!r} is {volume.path} with {volume.channels} channels, but one grey value per voxel "
            '(z, y, x) is needed. Make one with `em-blocks convert`, kind "rgb_to_grey", or name '
            "another volume."
        )
    if volume.dtype.kind not in "iuf" or (volume.dtype.kind != "f" and volume.dtype.itemsize > 2):
        raise ConfigError(
            f"{key!r} is {volume.path} of {volume.dtype}, but an image of 8 or 16 bits or of floats is "
            "needed: these look like ids, which have no contrast. Name the raw data."
        )


def check_mask(mask: Volume, key: str, over: Volume) -> None:
    """Raise `ConfigError` unless a mask is one array that shares voxels with the volume `over`."""
    if mask.channels is not None:
        raise ConfigError(
            f"{key!r} is {mask.path} with {mask.channels} channels; a mask is one array (z, y, x), 0 "
            "where there is no tissue."
        )
    if mask.frame.enclosing_box(over.roi).intersect(mask.box).size == 0:
        raise ConfigError(
            f"{key!r} is {mask.path} with offset {mask.offset} and shape {mask.roi.shape} (nm, zyx), "
            f"which shares no voxel with {over.path} at offset {over.offset} and of shape "
            f"{over.roi.shape}: nothing would count. Correct its voxel size and offset."
        )


def identity_or_none(ref: str | VolumeInput | None) -> dict | None:
    """Return values that differ when a volume has changed; None without one."""
    return None if ref is None else identity_of(Volume.open(ref))
