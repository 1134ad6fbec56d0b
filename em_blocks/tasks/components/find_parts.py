"""Connected parts of ids: in every block, and how they go on in the next ones."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import StorePath, VolumeRef
from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, BlockGrid, Box, Triple
from em_blocks.kernels.components.block_components import (
    Connectivity,
    Parts,
    find_borders,
    find_parts,
)
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.volumes import Volume
from em_blocks.volumes.samples import sample_boxes
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns

MAX_ID = 2**63 - 1
_ONE = (1, 1, 1)


class FindParts(BlockwiseTask):
    """First step of a clean-up: three tables per block.

    ========  ====================================================================================
    table     columns
    ========  ====================================================================================
    parts     id, size (voxels), voxel; row n - 1 is part n of the block
    faces     part, voxel: patches of the border, see `em_blocks.kernels.components.block_components`
    links     part, voxel: patches of the next blocks that touch a part
    ========  ====================================================================================

    ``voxel`` is the index of the first voxel in the flat volume (z slowest): it names a part or
    patch whatever the blocks are.
    """

    reads: ClassVar[tuple[str, ...]] = ("labels",)

    kind: Literal["find_parts"]
    labels: VolumeRef = Field(description="Volume of ids.")
    output: StorePath = Field(description="Folder of the tables.")

    def grid(self) -> BlockGrid:
        labels = self._labels
        return BlockGrid(labels.frame, labels.shape, self.block_shape)

    def inputs(self) -> dict:
        return {"labels": identity_of(self._labels)}

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput(name, store.join(self.output, name)) for name in ("parts", "faces", "links")]

    def outputs_root(self) -> str:
        return self.output

    def read_context(self) -> Triple:
        return _ONE

    def read_shape(self) -> Triple:
        return Box((0, 0, 0), self.block_shape).grow(_ONE).shape

    def check(self) -> None:
        labels = self._labels
        check_ids(labels)
        for box in sample_boxes(labels.shape, labels.chunk_shape):
            check_storable(labels.path, labels.read(box), box)
        if self.mask is not None:
            raise ConfigError(
                "'mask' cannot be used here: the parts of an id are judged by all of its voxels, and "
                "those in masked blocks would be missing. Leave the key out."
            )

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        labels = self._labels
        tables = {spec.name: BlockTables(spec.path) for spec in self.output_specs()}

        def process(block: Block, report: BlockReport) -> None:
            with report.measure("read"):
                grown = self.ids_in(block.write_box.grow(_ONE))
                check_storable(labels.path, grown[1:-1, 1:-1, 1:-1], block.write_box)
            with report.measure("compute"):
                found = tables_of_block(grown, block.write_box, labels.shape, self.neighbours)
            with report.measure("write"):
                for name, columns in found.items():
                    report.write_table(name, tables[name], block, columns)
            report.counts["parts"] = len(found["parts"]["id"])

        yield process

    def ids_in(self, box: Box) -> np.ndarray:
        """Ids of the voxels of a box; 0 beyond the volume."""
        return self._labels.read(box, outside="constant")

    @property
    def neighbours(self) -> Connectivity:
        """What joins two voxels."""
        return 26

    @cached_property
    def _labels(self) -> Volume:
        return Volume.open(self.labels)


def tables_of_block(
    grown: np.ndarray, box: Box, shape: Triple, connectivity: Connectivity = 26
) -> dict[str, Columns]:
    """The tables of one block.

    Parameters
    ----------
    grown : (z + 2, y + 2, x + 2) integer array
        Ids of the block `box` and one voxel around it.
    shape : (3,) int
        Voxels of the whole volume.
    connectivity : 6 or 26
        Neighbours of a voxel that are of one part with it.
    """
    parts = find_parts(grown[1:-1, 1:-1, 1:-1], connectivity)
    return tables_of_parts(grown, parts, box, shape, connectivity)


def tables_of_parts(
    grown: np.ndarray, parts: Parts, box: Box, shape: Triple, connectivity: Connectivity
) -> dict[str, Columns]:
    """The tables of one block whose parts, of this connectivity, are known."""
    index = flat_index(box.grow(_ONE), shape)
    borders = find_borders(grown, parts.numbers, index, connectivity)
    return {
        "parts": {"id": parts.ids.astype(np.int64), "size": parts.sizes,
                  "voxel": flat_voxels(parts.first, box, shape)},
        "faces": {"part": borders.faces[:, 0], "voxel": borders.faces[:, 1]},
        "links": {"part": borders.links[:, 0], "voxel": borders.links[:, 1]},
    }


def flat_index(box: Box, shape: Triple) -> list[np.ndarray]:
    """Compute what each axis of `box` adds to the index of a voxel in the flat volume of `shape`."""
    strides = (shape[1] * shape[2], shape[2], 1)
    return [
        np.arange(begin, end, dtype=np.int64) * stride
        for begin, end, stride in zip(box.offset, box.end, strides, strict=True)
    ]


def flat_voxels(voxels: np.ndarray, box: Box, shape: Triple) -> np.ndarray:
    """Indices in the flat volume of `shape`, of indices in the flat `box`."""
    places = np.unravel_index(voxels, box.shape)
    return sum(axis[place] for axis, place in zip(flat_index(box, shape), places, strict=True))


def identity_of(labels: Volume) -> dict:
    """Return values that differ when the labels have changed."""
    return {
        "shape": list(labels.shape), "dtype": str(labels.dtype),
        "voxel_size": list(labels.frame.voxel_size), "offset": list(labels.frame.offset),
        "fingerprint": labels.attributes.get("fingerprint"),
    }


def check_storable(path: str, ids: np.ndarray, box: Box) -> None:
    """Raise `ConfigError` if an id of a box is negative, or too large for a database."""
    for id in (ids.min(), ids.max()) if ids.size else ():
        if 0 <= id <= MAX_ID:
            continue
        place = tuple((np.argwhere(ids == id)[0] + box.offset).tolist())
        raise ConfigError(
            f"{path} holds the id {id} at voxel {place} (zyx), but ids are 0 (background) or positive, "
            "and below 2^63: databases hold no larger ones. If it marks background or what is unknown, "
            "store 0 there; else renumber the labels first."
        )


def check_ids(labels: Volume) -> None:
    """Raise `ConfigError` unless the volume holds one integer id per voxel."""
    if labels.channels is not None or labels.dtype.kind not in "ui":
        channels = "" if labels.channels is None else f" in {labels.channels} channels"
        raise ConfigError(
            f"'labels' is {labels.path}, which holds {labels.dtype}{channels}, but one integer id per "
            "voxel (z, y, x) is needed. Name a segmentation, not raw data or predictions."
        )
