"""Objects of embeddings, block by block."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field, PositiveFloat, PositiveInt

from em_blocks.config import RoiConfig, Shape3, StorePath, VolumeRef
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.extras import needed_extras
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Triple
from em_blocks.kernels.instances.embeddings import Method, cluster_embeddings
from em_blocks.outputs import RunContext, VolumeOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.components.find_parts import identity_of
from em_blocks.tasks.masks import open_mask, read_mask
from em_blocks.tasks.region import region_of
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.stores import store


class ClusterEmbeddings(BlockwiseTask):
    """Label the objects of embeddings in every block for itself.

    The output is uint32: in a block, 1, 2, ... in the order of first voxels. An object that crosses
    blocks has another label in each, since vectors far from each other were never pushed apart;
    ``link_slabs`` with the key ``cut`` joins the blocks.
    """

    reads: ClassVar[tuple[str, ...]] = ("embedding",)

    kind: Literal["cluster_embeddings"]
    embedding: VolumeRef = Field(description="Volume of vectors, float (c, z, y, x).")
    mask: VolumeRef = Field(  # type: ignore[assignment]
        description="Foreground, such as the output of `threshold`: a volume of any voxel size. Outside "
        "of it everything is 0."
    )
    method: Method = Field(
        "mean_shift", description="mean_shift: clusters of the radius `bandwidth`. hdbscan: clusters as "
        "dense as they are found; slower."
    )
    bandwidth: PositiveFloat = Field(
        1.5, description="Radius of the clusters of the mean shift: `delta_d` of the loss."
    )
    min_size: PositiveInt = Field(
        100, description="Voxels that an object has at least in a block; smaller ones become 0."
    )
    roi: RoiConfig | None = Field(None, description="Region, nm (z, y, x). Default: all.")
    output: StorePath = Field(description="Array to make, e.g. data/mitochondria.zarr/clusters.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def grid(self) -> BlockGrid:
        return BlockGrid(*self.place, self.block_shape)

    @cached_property
    def place(self) -> tuple[Frame, Triple]:
        """Frame and shape, voxels (z, y, x), of the region."""
        return region_of(self.embedding, self.roi)

    def inputs(self) -> dict:
        return {
            "embedding": identity_of(Volume.open(self.embedding)),
            "mask": identity_of(open_mask(self.mask)),
        }

    def output_specs(self) -> list[VolumeOutput]:
        return [
            VolumeOutput(
                "clusters", self.output, "uint32", self.chunk_shape, format=self.format,
                shard_shape=block_shards(self.format, self.block_shape), compression=0.1,
                attributes={"labels": True},
            )
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def check(self) -> None:
        """Raise an `EmBlocksError` unless there are vectors, and what clusters them is installed."""
        volume = Volume.open(self.embedding)
        if volume.channels is None or volume.dtype.kind != "f":
            raise ConfigError(
                f"'embedding' is {self.embedding} of {volume.dtype} with {volume.channels or 'no'} "
                "channels, but vectors are floats (c, z, y, x): clusters of anything else would be no "
                "objects. Name the output of a head `embedding`, as `predict` stores it."
            )
        open_mask(self.mask)
        with needed_extras():
            import sklearn.cluster  # noqa: F401

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        vectors, mask = Volume.open(self.embedding), open_mask(self.mask)
        output, frame = Volume.open(self.output, mode="r+"), self.place[0]

        def process(block: Block, report: BlockReport) -> None:
            box = block.write_box
            with report.measure("read"):
                inside = read_mask(mask, frame, box)
                values = self._read(vectors, vectors.frame.to_box(frame.to_roi(box)), inside)
            with report.measure("compute"):
                found = cluster_embeddings(
                    values, inside, method=self.method, bandwidth=self.bandwidth, min_size=self.min_size
                )
            with report.measure("write"):
                report.write("clusters", output, box, found)
            report.counts["clusters"] = int(found.max(initial=0))

        yield process

    def _read(self, vectors: Volume, box: Box, inside: np.ndarray) -> np.ndarray:
        values = vectors.read(box)
        unsound = inside & ~np.isfinite(values).all(axis=0)
        if unsound.any():
            place = tuple((np.argwhere(unsound)[0] + box.offset).tolist())
            raise VolumeError(
                f"{vectors.path} holds NaN or infinity at voxel {place} (zyx), which is near no vector. "
                "Predict that block again: `em-blocks verify` on the config of its run."
            )
        return values
