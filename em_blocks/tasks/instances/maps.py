"""Read predicted maps, smoothed, as the landscape of instances."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass

import numpy as np

from em_blocks.errors import ConfigError, GeometryError, VolumeError
from em_blocks.geometry import Box, Frame, Nm3, Triple, triple
from em_blocks.kernels.instances.landscape import Levels, as_bytes, is_core, landscape, with_cores
from em_blocks.kernels.instances.smooth import may_reach, reach, smooth
from em_blocks.kernels.transforms.reflection import reflected
from em_blocks.tasks.instances.options import MapOptions
from em_blocks.volumes.predictions import Prediction, check_prediction, open_prediction
from em_blocks.volumes.samples import sample_boxes

_LOWEST = {"distance": -1.0}
"""The tanh of a signed distance is below 0 outside of objects."""

_ROUNDING = 1e-3
"""Of probabilities in half precision, and sums of softmax."""


def sigma_of(smooth_nm: Nm3, voxel_size: Nm3) -> Nm3:
    """Return the standard deviation of a Gaussian in voxels (z, y, x)."""
    return triple(s / v for s, v in zip(smooth_nm, voxel_size, strict=True))


@dataclass(frozen=True)
class Maps:
    """The maps of a config.

    Attributes
    ----------
    options : MapOptions
    opened : dict of name to Prediction
    frame : Frame
        Of the region that instances are made in.
    """

    options: MapOptions
    opened: dict[str, Prediction]
    frame: Frame

    def landscape(self, box: Box) -> np.ndarray:
        """Return the landscape (z, y, x) of a box of voxels of the region.

        Raises
        ------
        VolumeError
            If a map holds NaN, or values that are no probabilities.
        """
        levels, sigma = self.options.levels, self._sigma
        values = {name: self._around(name, box) for name in self.opened}
        # Elsewhere is background, whatever the other maps say.
        needed = may_reach(values["foreground"], sigma, levels.mask)
        smoothed = {name: smooth(each, sigma, needed) for name, each in values.items()}
        return landscape_of(smoothed, levels, self.options.core_levels)

    @property
    def identity(self) -> dict:
        """What a step that reads the maps depends on."""
        return {
            name: {**prediction.identity, "shape": list(prediction.shape),
                   "dtype": str(prediction.dtype), "offset": list(prediction.place.offset),
                   "voxel_size": list(prediction.place.voxel_size)}
            for name, prediction in self.opened.items()
        }

    def smoothed(self, box: Box) -> dict[str, np.ndarray]:
        """Return the maps (z, y, x) of a box of voxels of the region, uint8; raises `VolumeError`."""
        return {name: smooth(self._around(name, box), self._sigma) for name in self.opened}

    def check(self, region: Triple) -> None:
        """Raise an `EmBlocksError` unless the maps cover the region and a sample holds probabilities."""
        for name, prediction in self.opened.items():
            self._check_place(name, prediction, Box((0, 0, 0), region))
            check_prediction(prediction)
            for box in sample_boxes(prediction.shape, prediction.chunk_shape):
                _checked(name, prediction, box)

    def _check_place(self, name: str, prediction: Prediction, region: Box) -> None:
        ours, theirs = self.frame.voxel_size, prediction.place.voxel_size
        if not np.allclose(ours, theirs, rtol=1e-6):
            raise ConfigError(
                f"The map {name!r} ({prediction.path}) has voxels of {theirs} nm (z, y, x), but the "
                f"foreground has {ours}. Instances need all maps at the same voxels; predict them "
                "together, or convert this one."
            )
        box = prediction.place.to_box(self.frame.to_roi(region))
        if not prediction.box.contains(box):
            raise GeometryError(
                f"The map {name!r} ({prediction.path}) ends inside of the region: its voxels "
                f"{box.offset} to {box.end} (zyx) are needed, but it has {prediction.shape}. Nothing is "
                "known there; give a 'roi' that all maps cover."
            )

    def _around(self, name: str, box: Box) -> np.ndarray:
        """Return the bytes of a map in a box and as far around it as smoothing reaches."""
        prediction = self.opened[name]
        there = prediction.place.to_box(self.frame.to_roi(box)).grow(reach(self._sigma))
        return _mirrored(name, prediction, there)

    @property
    def _sigma(self) -> Nm3:
        return sigma_of(self.options.smooth_nm, self.frame.voxel_size)


def landscape_of(maps: dict[str, np.ndarray], levels: Levels, cores: Levels | None) -> np.ndarray:
    """Return the landscape (z, y, x) of maps, with the cores of its seeds if there are any."""
    found = landscape(levels=levels, **maps)
    return found if cores is None else with_cores(found, is_core(levels=cores, **maps))


@contextmanager
def open_maps(options: MapOptions, frame: Frame) -> Iterator[Maps]:
    """Open the maps of a config for reading, in the frame of its region."""
    with ExitStack() as stack:
        opened = {
            name: stack.enter_context(
                open_prediction(path, channel=options.channels.get(name), thresholded=True)
            )
            for name, path in options.maps.items()
        }
        yield Maps(options, opened, frame)


def _mirrored(name: str, prediction: Prediction, box: Box) -> np.ndarray:
    """Return the bytes of a box, mirrored beyond the border of the volume."""
    indices = [
        reflected(o, e, n) for o, e, n in zip(box.offset, box.end, prediction.shape, strict=True)
    ]
    needed = Box.between([i.min() for i in indices], [i.max() + 1 for i in indices])
    values = as_bytes(_checked(name, prediction, needed), prediction.scale or 1.0)
    for axis, (index, begin) in enumerate(zip(indices, needed.offset, strict=True)):
        if len(index) != values.shape[axis]:
            values = values.take(index - begin, axis=axis)
    return values


def _checked(name: str, prediction: Prediction, box: Box) -> np.ndarray:
    """Read stored values; raises `VolumeError` if one is no probability."""
    values, scale = prediction.read_checked(box), prediction.scale or 1.0
    if values.dtype == np.uint8 and scale >= np.iinfo(np.uint8).max:
        return values
    lowest, highest = _LOWEST.get(name, 0.0) * scale, scale
    wrong = (values < lowest - _ROUNDING * scale) | (values > highest + _ROUNDING * scale)
    if wrong.any():
        place = triple(np.argwhere(wrong)[0] + box.offset)
        value = values[wrong].flat[0] / scale
        raise VolumeError(
            f"The map {name!r} ({prediction.path}) holds {value:.4g} at voxel "
            f"{tuple(int(p) for p in place)} (zyx), but it must hold {lowest / scale:g}..1: uint8 (255 "
            "is 1), uint16 with the attribute scale, or floats. Thresholds would mean something else; "
            "store probabilities, or write the attribute 'scale' (stored value of 1.0)."
        )
    return values
