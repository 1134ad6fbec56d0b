"""The volumes that features are measured on: ids, and an image of the same voxels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from typing import NamedTuple

import numpy as np

from em_blocks.config import RoiConfig, VolumeRef
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box, Frame, Triple
from em_blocks.tasks.components.find_parts import check_storable
from em_blocks.tasks.evaluation.count_overlaps import labels_identity
from em_blocks.tasks.region import box_of
from em_blocks.volumes.imports.sources import ReadBox
from em_blocks.volumes.labels import Labels, open_labels, placed, same_grid
from em_blocks.volumes.samples import sample_boxes
from em_blocks.volumes.values import Values, describe, opened_values, placed_values


class Measured(NamedTuple):
    """Volumes to measure, cut to a region.

    Attributes
    ----------
    labels : Labels
    image : Values or None
    box : Box
        Voxels of the volumes that are the region.
    """

    labels: Labels
    image: Values | None
    box: Box

    @property
    def frame(self) -> Frame:
        """Place of the region."""
        frame = self.labels.place
        return Frame(frame.voxel_size, frame.to_roi(self.box).offset)

    @property
    def shape(self) -> Triple:
        """Voxels (z, y, x) of the region."""
        return self.box.shape

    @property
    def identity(self) -> dict:
        """Identifies what is measured."""
        found = {"labels": labels_identity(self.labels)}
        return found if self.image is None else found | {"em": self.image.identity}

    def ids(self, box: Box, margin: tuple[Triple, Triple]) -> np.ndarray:
        """Return the ids of a box of the region with a margin before and after; 0 outside of the region.

        Raises
        ------
        ConfigError
            If an id does not fit into a database.
        """
        found = _read(self.labels.read, self.box, box, margin)
        check_storable(self.labels.path, found, _grown(box, margin).shift(self.box.offset))
        return found

    def grey(self, box: Box, margin: tuple[Triple, Triple]) -> np.ndarray:
        """Return the grey values of the same voxels as `ids`."""
        return _read(self.image.read, self.box, box, margin)

    def check(self) -> None:
        """Raise a `ConfigError` where samples hold ids that do not fit into a database."""
        for box in sample_boxes(self.labels.shape, self.labels.chunk_shape):
            check_storable(self.labels.path, self.labels.read(box), box)


@contextmanager
def opened(labels: VolumeRef, em: VolumeRef | None, roi: RoiConfig | None) -> Iterator[Measured]:
    """Open the volumes of ids and, if given, of grey values.

    Raises
    ------
    ConfigError
        If they are not ids and grey values of one voxel grid.
    GeometryError
        If the region is not inside.
    """
    with ExitStack() as stack:
        ids = stack.enter_context(open_labels(labels, negative=None))
        if em is None:
            image = None
        else:
            image = stack.enter_context(opened_values(em))
            _check_grey(image)
            ids, image = placed([ids, image])
            same_grid([ids, image])
        values = placed_values(describe(labels)) if image is None else image
        yield Measured(ids, image, box_of(roi, values, "volume"))


def _check_grey(image: Values) -> None:
    if image.channels is not None or image.dtype != np.uint8:
        channels = "" if image.channels is None else f" in {image.channels} channels"
        raise ConfigError(
            f"'em' is {image.path}, which holds {image.dtype}{channels}, but one uint8 value per voxel "
            "is needed: percentiles are exact only where all grey values can be counted. Make such a "
            "volume by `em-blocks convert`."
        )


def _grown(box: Box, margin: tuple[Triple, Triple]) -> Box:
    return Box.between(np.subtract(box.offset, margin[0]), np.add(box.end, margin[1]))


def _read(read: ReadBox, region: Box, box: Box, margin: tuple[Triple, Triple]) -> np.ndarray:
    wanted = _grown(box, margin).shift(region.offset)
    inside = wanted.intersect(region)
    found = read(inside)
    if inside == wanted:
        return found
    padded = np.zeros(wanted.shape, found.dtype)
    padded[inside.relative_to(wanted).slices] = found
    return padded
