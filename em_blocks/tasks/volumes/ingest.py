"""Ingest: files of other programs become chunked volumes that know their place."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal, Self

from pydantic import Field

from em_blocks.config import Position3, Shape3, StorePath, VolumeInput, VolumeRef, VoxelSize
from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, BlockGrid, Frame, Triple, nearest_multiple
from em_blocks.outputs import RunContext, VolumeOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format
from em_blocks.volumes.imports.sources import SourceConfig, SourceHeader
from em_blocks.volumes.stores import store

_USUAL_BLOCK = 256
"""Voxels per axis: large enough that a block costs more than its bookkeeping."""


class Ingest(BlockwiseTask):
    """Copy a source into a new volume, with voxel size and offset; the dtype is kept.

    A worker holds one block. That of an image stack is a slab of whole sections, one chunk
    deep, so that every image is read once: choose flat chunks for large sections.
    """

    fits_block: ClassVar[bool] = False

    kind: Literal["ingest"]
    source: SourceConfig = Field(description="What is read; its key 'type' says by what.")
    output: StorePath = Field(description="Array to make, e.g. data/brain.zarr/raw.")
    voxel_size: VoxelSize | None = Field(
        None, description="nm (z, y, x). Needed where the source does not say it; wins where it does."
    )
    offset: Position3 | None = Field(
        None,
        description="World position of the first corner, nm (z, y, x). "
        "Default: what the source says, else 0.",
    )
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"
    shard_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) of one file, whole chunks; for the format zarr3."
    )
    block_shape: Shape3 | None = Field(
        None,
        description="Voxels (z, y, x) that one block writes. Default: for images, whole sections "
        "one chunk deep; for tiles, one of them; else about 256 per axis.",
    )

    def grid(self) -> BlockGrid:
        header = self._header()
        return BlockGrid(self._frame(header), header.shape, self._block_shape(header))

    def inputs(self) -> dict:
        header = self._header()
        # Not in inputs of runs older than channels.
        channels = {} if header.channels is None else {"channels": header.channels}
        return {
            "source": {
                "shape": list(header.shape),
                "dtype": str(header.dtype),
                **channels,
                **self.source.identity(),
            }
        }

    def sources(self) -> dict[str, VolumeRef]:
        return super().sources() | self.source.volumes(self._told)

    @classmethod
    def without_places(cls, config: dict) -> dict:
        source = {key: value for key, value in config["source"].items() if key != "path"}
        return {**super().without_places(config), "source": source}

    def output_specs(self) -> list[VolumeOutput]:
        header = self._header()
        return [
            VolumeOutput(
                name=self._name,
                path=self.output,
                dtype=str(header.dtype),
                channels=header.channels,
                chunk_shape=self.chunk_shape,
                attributes=self.source.attributes(),
                format=self.format,
                shard_shape=self.shard_shape,
            )
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def relocated(self, folder: Path) -> Self:
        path = store.join(str(folder), "ingest.zarr", self._name)
        return self.model_copy(update={"output": path})

    def check(self) -> None:
        """Raise `ConfigError` unless every part of the source can be read, each once."""
        self.source.check()
        grid = self.grid()
        if not self.source.whole_sections:
            return
        if any(b < s for b, s in zip(grid.block_shape[1:], grid.volume_shape[1:], strict=True)):
            raise ConfigError(
                f"block_shape {grid.block_shape} (voxels, zyx) cuts the sections of "
                f"{grid.volume_shape[1:]} pixels, so every image would be read again for each of "
                f"its blocks. Use {self._whole_sections(grid.volume_shape)}, or leave the key "
                "block_shape out."
            )

    def measure(self, earlier: dict | None = None) -> dict:
        """Return what the volume has that the source has not: sections that were filled."""
        found = self.source.attributes()
        return {name: found[name] for name in ("filled_sections",) if name in found}

    def said(self, measured: dict) -> str | None:
        return self.source.said()

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        output, count = Volume.open(self.output, mode="r+"), self.source.counter()
        with self.source.open() as read:

            def process(block: Block, report: BlockReport) -> None:
                with report.measure("read"):
                    values = read(block.write_box)
                report.counts |= count(block.write_box)
                with report.measure("write"):
                    report.write(self._name, output, block.write_box, values)

            yield process

    @property
    def _name(self) -> str:
        return store.split_parent(self.output)[1]

    @property
    def _unit(self) -> Triple:
        return self.shard_shape or self.chunk_shape

    def _header(self) -> SourceHeader:
        """Return the header of the source, overridden by the config."""
        return self.source.header(self._told)

    @property
    def _told(self) -> VolumeInput:
        return VolumeInput(
            path=str(self.source.path), voxel_size=self.voxel_size, offset=self.offset
        )

    def _frame(self, header: SourceHeader) -> Frame:
        if header.voxel_size is None:
            raise ConfigError(
                f"The key 'voxel_size' is missing, and {self.source.path} does not say how large "
                'its voxels are. Add "voxel_size": [z, y, x] in nm.'
            )
        return Frame(header.voxel_size, header.offset or (0.0, 0.0, 0.0))

    def _block_shape(self, header: SourceHeader) -> Triple:
        if self.block_shape is not None:
            return self.block_shape
        if self.source.whole_sections:
            return self._whole_sections(header.shape)
        if self.source.whole_pieces and header.chunk_shape is not None:
            return self._whole_sections(header.chunk_shape)  # one tile, or little more
        return nearest_multiple((_USUAL_BLOCK,) * 3, self._unit)

    def _whole_sections(self, shape: Triple) -> Triple:
        depth, *plane = self._unit
        return (depth, *(-(-s // u) * u for s, u in zip(shape[1:], plane, strict=True)))

