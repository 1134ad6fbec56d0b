"""Fragments (supervoxels) from affinities."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import Annotated, ClassVar, Literal

import cc3d
import numpy as np
from pydantic import Field, NonNegativeInt

from em_blocks.config import Shape3, StorePath, StrictModel, VolumeRef
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Block, BlockGrid, Box, Triple, nearest_multiple
from em_blocks.kernels.segmentation.mutex_watershed import mutex_watershed
from em_blocks.kernels.segmentation.neighborhood import FULL, Neighborhood, attached, combined
from em_blocks.kernels.segmentation.small_basins import join_small_basins
from em_blocks.kernels.segmentation.watershed import watershed
from em_blocks.outputs import RunContext, TableOutput, VolumeOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.segmentation.affinity_input import AffinityInput, Shifts
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns

CONTACT_QUANTILE = 0.75

Share = Annotated[float, Field(ge=0, le=1)]
Bias = Annotated[float, Field(ge=-1, le=0)]
Context = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]


class Watershed(StrictModel):
    """Basins of steepest ascent; thin membranes are helped by long-range channels."""

    method: Literal["watershed"] = "watershed"
    dimensions: Literal[2, 3] = Field(3, description="2: every section on its own.")
    long_range_weight: Annotated[float, Field(ge=0)] = Field(
        0.0, description="Weight of a long-range channel beside the direct one of its axis."
    )
    low: Share = Field(0.02, description="Weaker edges never join basins.")
    high: Share = Field(0.99, description="Edges of at least this always join.")
    small: NonNegativeInt = Field(100, description="Basins of fewer voxels are joined to others.")
    join: Literal["edge", "contact"] = Field(
        "edge", description="Small basins are joined over their strongest edge (fast), or where "
        "the 75 % quantile of the affinities over their contact is largest."
    )

    def __call__(
        self, affinities: np.ndarray, neighborhood: Neighborhood, mask: np.ndarray
    ) -> np.ndarray:
        edges = combined(affinities, neighborhood, self.long_range_weight, mask)
        basins = watershed(
            edges, mask=mask & attached(affinities, neighborhood, edges),
            dimensions=self.dimensions, low=self.low, high=self.high,
            small=self.small if self.join == "edge" else 0,
        )
        if self.join == "edge":
            return basins
        return join_small_basins(
            basins, affinities, neighborhood, small=self.small, quantile=CONTACT_QUANTILE,
            low=self.low, dimensions=self.dimensions,
        )


class MutexWatershed(StrictModel):
    """Direct channels join, long-range channels hold apart, the strongest first."""

    method: Literal["mutex_watershed"]
    direct_bias: Bias = Field(-0.4, description="Added to affinities of direct neighbours.")
    long_range_bias: Bias = Field(-0.7, description="Added to long-range affinities.")
    strides: Shape3 = Field((1, 1, 1), description="Stride, voxels, at which long-range edges are used.")
    certain: Share = Field(
        0.8, description="Voxels whose direct and long-range affinities average to this join at once."
    )

    def __call__(
        self, affinities: np.ndarray, neighborhood: Neighborhood, mask: np.ndarray
    ) -> np.ndarray:
        edges = combined(affinities, neighborhood, 1.0, mask)
        return mutex_watershed(
            affinities, neighborhood, mask=mask & attached(affinities, neighborhood, edges),
            direct_bias=self.direct_bias, long_range_bias=self.long_range_bias, strides=self.strides,
            joined=edges >= self.certain,
        )


Method = Annotated[Watershed | MutexWatershed, Field(discriminator="method")]


class ExtractFragments(BlockwiseTask):
    """Fragments of every tile, with ids that no other tile uses.

    A block is cut into tiles, and every tile is segmented with `context` around it: the result
    depends on the tiles alone, so any block shape gives the same fragments with the same ids. A
    fragment never crosses its tile; what the tiles cut is joined again by the affinities across
    their faces.
    """

    written: ClassVar[frozenset[str]] = frozenset({"output", "tables"})
    reads: ClassVar[tuple[str, ...]] = ("affinities",)

    kind: Literal["extract_fragments"]
    affinities: VolumeRef = Field(
        description="Volume (c, z, y, x): uint8, uint16, float in 0..1, or any with its attribute scale."
    )
    neighborhood: Shifts | None = Field(
        None, description="Shift to the partner of every channel, voxels (z, y, x). Default: the "
        "attribute of the volume."
    )
    output: StorePath = Field(description="Array to make.")
    tables: StorePath = Field(description="Folder for the tables of fragments.")
    tile_shape: Shape3 = Field(description="Voxels (z, y, x); a block is whole tiles.")
    context: Context = Field(description="Voxels (z, y, x) seen around a tile.")
    fragments: Method = Field(description="How fragments are made.")
    min_size: NonNegativeInt = Field(0, description="Fragments of fewer voxels become 0.")
    min_mean_affinity: Share = Field(
        0.0, description="Voxels with a lower mean of the direct affinities become no fragments."
    )
    chunk_shape: Shape3 = (64, 64, 64)
    format: Format = "zarr"

    def grid(self) -> BlockGrid:
        volume = self._input.volume
        return BlockGrid(volume.frame, volume.shape, self.block_shape)

    def inputs(self) -> dict:
        return {"affinities": self._input.identity()}

    def output_specs(self) -> list[VolumeOutput | TableOutput]:
        return [
            VolumeOutput(
                "fragments", self.output, "uint64", self.chunk_shape, format=self.format,
                shard_shape=block_shards(self.format, self.block_shape), compression=0.1,
            ),
            TableOutput("fragment_table", self.tables, rows_per_voxel=0.003),
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "tables"}

    def read_context(self) -> Triple:
        return self.context

    def read_shape(self) -> Triple:
        return tuple(b + 2 * c for b, c in zip(self.grid().block_shape, self.context, strict=True))

    def check(self) -> None:
        self._input.check_scale()
        if any(b % t for b, t in zip(self.block_shape, self.tile_shape, strict=True)):
            raise ConfigError(
                f"block_shape {self.block_shape} is not a whole number of tiles {self.tile_shape} "
                "(voxels, zyx); cut tiles would make fragments depend on the blocks. Use block_shape "
                f"{nearest_multiple(self.block_shape, self.tile_shape)}, or another tile_shape."
            )

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        output, tables = Volume.open(self.output, mode="r+"), BlockTables(self.tables)
        mask = Volume.open(self.mask) if self.mask else None

        def process(block: Block, report: BlockReport) -> None:
            box = block.write_box.grow(self.context)
            with report.measure("read"):
                affinities = self._input.read(box)
                inside = self._inside(box, mask)
            with report.measure("compute"):
                numbers = np.zeros(block.write_box.shape, np.int32)
                ids = [np.zeros(1, np.int64)]
                for tile in self._tiles.within(block.write_box):
                    seen = tile.write_box.grow(self.context).relative_to(box)
                    labels = self._fragments(affinities[:, *seen.slices], inside[seen.slices])
                    labels = self._own(labels, tile.write_box.relative_to(box).relative_to(seen))
                    known = sum(map(len, ids)) - 1
                    target = numbers[tile.write_box.relative_to(block.write_box).slices]
                    np.add(labels, known, out=target, where=labels > 0)
                    ids.append(self._first_id(tile) + np.arange(1, labels.max(initial=0) + 1))
                ids = np.concatenate(ids)
                rows = fragment_rows(numbers, ids, block.write_box, self.grid())
            with report.measure("write"):
                report.write("fragments", output, block.write_box, ids.astype(np.uint64)[numbers])
                report.write_table("fragment_table", tables, block, rows)
            report.counts["fragments"] = len(rows["fragment"])

        yield process

    def _fragments(self, affinities: np.ndarray, inside: np.ndarray) -> np.ndarray:
        neighborhood = self._input.neighborhood
        if self.min_mean_affinity > 0:
            mean = affinities[neighborhood.direct].mean(axis=0, dtype=np.float32) / FULL
            inside = inside & (mean >= self.min_mean_affinity)
        return self.fragments(np.ascontiguousarray(affinities), neighborhood, inside)

    def _own(self, labels: np.ndarray, box: Box) -> np.ndarray:
        """Return the fragments of the tile: connected, not too small, numbered from 1."""
        labels = cc3d.connected_components(np.ascontiguousarray(labels[box.slices]), connectivity=6)
        if self.min_size > 1:
            small = np.bincount(labels.ravel()) < self.min_size
            labels[small[labels]] = 0  # leaves gaps in the numbers, which do no harm
        return labels.astype(np.int32)

    def _inside(self, box: Box, mask: Volume | None) -> np.ndarray:
        """Voxels of the volume, and of the mask where there is one."""
        volume = self._input.volume
        inside = np.zeros(box.shape, bool)
        inside[volume.box.intersect(box).relative_to(box).slices] = True
        if mask is not None:
            inside &= mask_values(mask, volume, box)
        return inside

    def _first_id(self, tile: Block) -> int:
        # From whole tiles, not from this one, which the end of the volume may have cut: the
        # ranges of ids would overlap. Depends on the tiles alone, not on the blocks.
        number = np.ravel_multi_index(tile.index, self._tiles.shape)
        return int(number) * math.prod(self.tile_shape)

    @cached_property
    def _tiles(self) -> BlockGrid:
        volume = self._input.volume
        grid = BlockGrid(volume.frame, volume.shape, self.tile_shape)
        if grid.n_blocks * math.prod(self.tile_shape) >= 2**63:
            raise ConfigError(f"{volume.path} has too many voxels for 63-bit ids")
        return grid

    @cached_property
    def _input(self) -> AffinityInput:
        return AffinityInput.open(self.affinities, self.neighborhood)


def mask_values(mask: Volume, volume: Volume, box: Box) -> np.ndarray:
    """A mask of any voxel size at the voxels of `box`, by the nearest voxel: (z, y, x) bool."""
    roi = volume.frame.to_roi(box)
    coarse = mask.frame.enclosing_box(roi)
    values = mask.read(coarse, outside="constant") != 0
    places = []
    for axis in range(3):
        centers = (np.arange(box.shape[axis]) + 0.5) * volume.frame.voxel_size[axis]
        position = roi.offset[axis] + centers - mask.frame.offset[axis]
        index = np.floor(position / mask.frame.voxel_size[axis] + 1e-9).astype(int)
        places.append(np.clip(index - coarse.offset[axis], 0, coarse.shape[axis] - 1))
    return values[np.ix_(*places)]


def check_fragments(
    ids: np.ndarray, voxels: np.ndarray, block: Block, *, volume: str, tables: str
) -> None:
    """Raise `VolumeError` if the fragments of a block and its table do not belong together."""
    if (found := np.count_nonzero(ids)) != (listed := int(voxels.sum())):
        raise VolumeError(
            f"Block {block.key} of {volume} does not hold the fragments that its table in {tables} "
            f"lists: {found} voxels instead of {listed}. One of both was changed or lost; `em-blocks "
            "verify` on the config that made them has the block done again."
        )


def fragment_rows(numbers: np.ndarray, ids: np.ndarray, box: Box, grid: BlockGrid) -> Columns:
    """Size, centre and box of every fragment of a block.

    Parameters
    ----------
    numbers : (z, y, x) int32 array
        Fragments of the block `box`, numbered 1, 2, ...; 0 is none.
    ids : (n + 1,) int64 array
        Id of every number.

    Returns
    -------
    columns
        ``fragment`` (id); ``voxels``; ``center`` nm (z, y, x); ``begin`` and ``end`` (excluded), voxels
        (z, y, x) of the volume.
    """
    statistics = cc3d.statistics(numbers.astype(np.uint32), no_slice_conversion=True)
    taken = statistics["voxel_counts"][: len(ids)] > 0
    taken[0] = False
    bounds = statistics["bounding_boxes"][: len(ids)][taken].astype(np.int64)
    centers = statistics["centroids"][: len(ids)][taken]
    size, corner = np.array(grid.frame.voxel_size), np.array(box.offset)
    return {
        "fragment": ids[taken],
        "voxels": statistics["voxel_counts"][: len(ids)][taken].astype(np.int64),
        "center": (centers + corner + 0.5) * size + np.array(grid.frame.offset),
        "begin": bounds[:, ::2] + corner,
        "end": bounds[:, 1::2] + 1 + corner,
    }
