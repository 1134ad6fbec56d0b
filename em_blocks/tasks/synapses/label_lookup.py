"""Tasks that ask a volume of labels which objects lie at points."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, ClassVar, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from em_blocks.config import Shape3, StorePath, StrictModel, VolumeInput, VolumeRef, path_of
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import BlockGrid, Box, Frame, Roi, Triple
from em_blocks.kernels.synapses.site_lookup import SiteIds, ids_at_sites, search_context
from em_blocks.kernels.synapses.table import UNMAPPED
from em_blocks.kernels.transforms.positions import as_voxels
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.evaluation.count_overlaps import labels_identity, usual_block
from em_blocks.tasks.segmentation.look_up_table import (
    LookUpTable,
    check_made_for,
    lut_header,
    relabelled,
)
from em_blocks.volumes.labels import Labels, open_labels
from em_blocks.volumes.metadata import place_in_config

# Far more than rounding errors of nm positions, far less than a voxel: what a query finds too much
# is left out by its voxel.
_MARGIN_VOXELS = 1e-3


class Objects(NamedTuple):
    """What lies at n points."""

    supervoxel: np.ndarray  # (n,) int64
    segment: np.ndarray  # (n,) int64; UNMAPPED where no table says it
    searched: np.ndarray  # (n,) bool: found around a point on background


LookUp = Callable[[np.ndarray], Objects]
"""Objects at points of a block, (n, 3) voxels of the labels as from `as_voxels`."""


class LabelOptions(StrictModel):
    """Which labels, and how ids are taken from them."""

    labels: VolumeRef = Field(
        description="Volume of supervoxels (fragments) or segments: path.zarr/dataset, or "
        "file.h5:dataset. Its voxel size need not be that of the detection."
    )
    lut: StorePath | None = Field(
        None, description="Folder of the look-up tables from supervoxels to segments, for example "
        "brain_segmentation.zarr/graph/lut/0.5/0. Without it, only supervoxels are stored."
    )
    labels_are_segments: bool = Field(
        False, description="The labels are segments already, so segment = supervoxel; no `lut` then."
    )
    search_radius_nm: Annotated[float, Field(ge=0, le=10_000)] = Field(
        0.0, description="A site on background takes the nearest object within this distance."
    )

    @model_validator(mode="after")
    def _one_source_of_segments(self) -> Self:
        if self.lut is not None and self.labels_are_segments:
            raise ValueError(
                "'lut' and 'labels_are_segments' contradict each other: segments come from the table, "
                "or are the labels themselves; leave one out"
            )
        return self


class LabelTask(LabelOptions, BlockwiseTask):
    """A task over the blocks of a volume of labels."""

    reads: ClassVar[tuple[str, ...]] = ("labels", "lut",)

    fits_block: ClassVar[bool] = False

    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) of the labels that one block handles. Default: whole "
        "chunks, about 8 million voxels."
    )

    def grid(self) -> BlockGrid:
        frame, shape, chunk_shape, _ = self._layout
        return BlockGrid(frame, shape, self.block_shape or usual_block(chunk_shape))

    def inputs(self) -> dict:
        found = {"labels": self._layout.identity}
        if self.lut is not None:
            found["lut"] = lut_header(self.lut).get("fingerprint")
        return found

    def outputs_root(self) -> str:
        return str(self.home)

    def read_context(self) -> Triple:
        return search_context(self.search_radius_nm, self._layout.frame.voxel_size)

    @classmethod
    def locations(cls) -> set[str]:
        return set()

    def check(self) -> None:
        frame = self._layout.frame
        if self.lut is not None:
            check_made_for(self.lut, self.labels)
        reach = search_context(self.search_radius_nm, frame.voxel_size)
        if any(r > b for r, b in zip(reach, self.grid().block_shape, strict=True)):
            raise ConfigError(
                f"'search_radius_nm' is {self.search_radius_nm:g}, which is {reach} voxels (zyx) of "
                f"{self.labels}, more than a block of {self.grid().block_shape}. Every block would read "
                "mostly its neighbours; use a smaller radius or larger blocks."
            )

    @contextmanager
    def looking_up(self) -> Iterator[LookUp]:
        """Open labels and table; yield the function that finds objects at points."""
        with opened_labels(self.labels) as labels:
            lut = self.lut and LookUpTable(self.lut, labels.frame, labels.shape)

            def look_up(sites: np.ndarray) -> Objects:
                if not len(sites):
                    none = np.zeros(0, np.int64)
                    return Objects(none, none, none.astype(bool))
                box = self._box_around(sites)
                found = self._ids(labels, sites, box)
                return Objects(found.ids, self._segments(found.ids, lut, box), found.searched)

            yield look_up

    def _box_around(self, sites: np.ndarray) -> Box:
        """Return the voxels of all sites, and what the search may read around them."""
        voxels = np.floor(sites).astype(np.int64)
        box = Box.between(voxels.min(axis=0), voxels.max(axis=0) + 1)
        whole = Box((0, 0, 0), self._layout.shape)
        return box.grow(search_context(self.search_radius_nm, self._layout.frame.voxel_size)).intersect(
            whole
        )

    def _ids(self, labels: Labels, sites: np.ndarray, box: Box) -> SiteIds:
        values = labels.read(box)
        try:
            return ids_at_sites(
                values, sites, corner=box.offset, voxel_size=labels.frame.voxel_size,
                search_radius_nm=self.search_radius_nm,
            )
        except ValueError as error:
            raise VolumeError(
                f"{self.labels} cannot be mapped: {error}. Renumber the labels, for example with "
                "`em-blocks clean`, or replace what marks unknown voxels by 0."
            ) from error

    def _segments(self, ids: np.ndarray, lut: LookUpTable | None, box: Box) -> np.ndarray:
        if self.labels_are_segments:
            return ids
        if lut is None:
            return np.full(len(ids), UNMAPPED)
        return relabelled(ids.astype(np.uint64), lut.load(box), lut.path).astype(np.int64)

    @cached_property
    def _layout(self) -> _Layout:
        with opened_labels(self.labels) as labels:
            return _Layout(labels.frame, labels.shape, labels.chunk_shape, labels_identity(labels))


class _Layout(NamedTuple):
    """What a volume of labels covers."""

    frame: Frame
    shape: Triple
    chunk_shape: Triple
    identity: dict


@contextmanager
def opened_labels(path: str | VolumeInput) -> Iterator[Labels]:
    """Yield a volume of labels that tells its place in the world.

    Raises
    ------
    ConfigError
        If it does not.
    """
    with open_labels(path, negative=None) as labels:
        if labels.frame is None:
            raise ConfigError(
                f"{path} does not say how large its voxels are, but positions are in nm. Say it "
                f"in the config: {place_in_config(path_of(path))}, or add the attributes resolution and "
                "offset (nm, zyx) to the dataset."
            )
        yield labels


def roi_around(frame: Frame, box: Box) -> Roi:
    """Return the region of a box, and a little more: for queries whose results `inside` filters."""
    margin = [_MARGIN_VOXELS * v for v in frame.voxel_size]
    roi = frame.to_roi(box)
    return Roi(
        [o - m for o, m in zip(roi.offset, margin, strict=True)],
        [s + 2 * m for s, m in zip(roi.shape, margin, strict=True)],
    )


def inside(frame: Frame, box: Box, positions: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Return positions as voxels, and which of them lie in voxels of `box`.

    Parameters
    ----------
    positions : (n, 3) float array
        nm (z, y, x).

    Returns
    -------
    voxels : (n, 3) float64 array
    within : (n,) bool array
    """
    voxels = as_voxels(positions, voxel_size=frame.voxel_size, offset=frame.offset)
    return voxels, ((voxels >= box.offset) & (voxels < box.end)).all(axis=1)
