"""What the viewer shows of a data config: volumes of every data set, and boxes around its regions."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import numpy as np

from em_blocks.config import StrictModel, VolumeInput
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box, Nm3, Roi, triple
from em_blocks.models.data_config import Sources, file_value
from em_blocks.models.setup import Setup
from em_blocks.models.sources import DataSource
from em_blocks.volumes import Volume
from em_blocks.volumes.viewer.neuroglancer import Role


class _Data(StrictModel):
    sources: Sources


class DataVolume(NamedTuple):
    """A volume of a data set."""

    place: str | VolumeInput
    name: str
    role: Role | None  # None: by what it holds


def read_sources(path: Path) -> tuple[DataSource, ...]:
    """Read the sources of a data config, or of JSON as of the key training.validation.

    Raises
    ------
    ConfigError
        If something is wrong in it, or data are made by the generator.
    """
    values = {"sources": file_value(path)}
    sources = _Data.from_dict(values, folder=path.absolute().parent, source=str(path)).sources
    if any(source.raw is None for source in sources):
        raise ConfigError(
            f"{path} names data that the generator makes (`phantom`); there is no volume to show. Leave "
            "them out."
        )
    return sources


def volumes_of(sources: tuple[DataSource, ...]) -> Iterator[DataVolume]:
    """Yield raw, masks, labels and classes of every source, named after it."""
    for number, source in enumerate(sources):
        name = source.name or f"data {number + 1}"
        if source.raw is not None:
            yield DataVolume(source.raw, f"{name}/raw", None)
        for key, volume in source.label_volumes.items():
            yield DataVolume(volume, f"{name}/{key}", "labels")
        for key, painted in (source.classes or {}).items():
            yield DataVolume(painted.volume, f"{name}/{key}", "labels")
        if source.specimen is not None:
            yield DataVolume(source.specimen, f"{name}/specimen", "labels")
        for n, mask in enumerate(source.metric_masks or (), start=1):
            yield DataVolume(mask, f"{name}/metric mask {n}", "labels")


def regions_of(sources: tuple[DataSource, ...]) -> dict[str, Roi]:
    """Return the regions that are trained or measured on, nm, by the text that is shown for them."""
    return {
        f"{source.name or f'data {number + 1}'} {n}": roi
        for number, source in enumerate(sources)
        for n, roi in enumerate(_regions(source), start=1)
    }


def _regions(source: DataSource) -> list[Roi]:
    if source.rois is not None:
        return [Roi(roi.offset, roi.shape) for roi in source.rois]
    assert source.raw is not None
    volume = Volume.open(source.raw)
    return [volume.frame.to_roi(Box.between(source.begin, source.end or volume.shape))]


def context_of(setup: Path) -> Nm3:
    """Return what the network of a setup reads around its output, nm (z, y, x) on each side."""
    opened = Setup.from_folder(setup)
    context, size = opened.build().context, opened.config.voxel_size
    return triple(c * v for c, v in zip(context, size, strict=True))


def grown(regions: dict[str, Roi], context: Nm3) -> dict[str, Roi]:
    """Return regions with their context."""
    around = np.array(context)
    return {
        f"{name} with context": Roi(
            triple(np.array(roi.offset) - around), triple(np.array(roi.shape) + 2 * around)
        )
        for name, roi in regions.items()
    }
