"""Replace the ids of a volume by a look-up table."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import fastremap
import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Block, BlockGrid
from em_blocks.tasks.base import BlockReport, BlockwiseTask, OutputSpec, ProcessBlock, TableSpec
from em_blocks.tasks.extract_fragments import check_fragments
from em_blocks.tasks.outputs import fingerprint_of
from em_blocks.volumes import Volume, store
from em_blocks.volumes.formats import Format
from em_blocks.volumes.tables import BlockTables, Columns


class Relabel(BlockwiseTask):
    """Segments from fragments, or any other change of ids; 0 stays 0.

    The look-up table is cut like a block grid (its header says how), and a block loads only
    those pieces that lie in its box.
    """

    kind: Literal["relabel"]
    labels: StorePath = Field(description="Volume of ids (fragments).")
    like: StorePath | None = Field(
        None, description="Volume of the same voxels, if the labels are made by an earlier step."
    )
    tables: StorePath | None = Field(
        None, description="Tables of the labels by blocks of this shape; then lost labels are noticed."
    )
    lut: StorePath = Field(
        description="Folder of the look-up tables, columns fragment and segment, sorted by fragment."
    )
    output: StorePath = Field(description="Array to make.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def grid(self) -> BlockGrid:
        volume = Volume.open(self.like or self.labels)
        return BlockGrid(volume.frame, volume.shape, self.block_shape)

    def inputs(self) -> dict:
        return {
            "labels": fingerprint_of(self.labels),
            "lut": TableSpec("lut", self.lut).stored_fingerprint(),
        }

    def output_specs(self) -> list[OutputSpec]:
        return [
            OutputSpec(
                "segments", self.output, "uint64", self.chunk_shape, format=self.format,
                shard_shape=self.block_shape if self.format == "zarr3" else None, compression=0.1,
                attributes={"labels": True},
            )
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    @classmethod
    def locations(cls) -> set[str]:
        return {"output", "labels", "like", "tables", "lut"}

    def relocated(self, folder: Path) -> Self:
        path = str(folder / "segments.zarr/segments")
        return self.model_copy(update={"output": path, "run_dir": folder})

    def check(self) -> None:
        if self.like is not None and TableSpec("lut", self.lut).header() is None:
            return  # an earlier step makes it
        made_for, found = self._header.get("fragments"), fingerprint_of(self.labels)
        if made_for != found:
            raise ConfigError(
                f"The look-up table {self.lut} was made for fragments of another run ({made_for}) than "
                f"{self.labels} ({found}): ids would be replaced by those of other objects. Find "
                "segments for these fragments, or choose their own table."
            )

    @contextmanager
    def open(self, measured: dict) -> Iterator[ProcessBlock]:
        output, tables = Volume.open(self.output, mode="r+"), BlockTables(self.lut)
        listed = self.tables and BlockTables(self.tables)
        loaded: dict[str, Columns] = {}

        def process(block: Block, report: BlockReport) -> None:
            pieces = list(self._pieces.within(block.write_box))
            with report.measure("read"):
                ids = self._labels.read(block.write_box)
                if listed:
                    voxels = listed.read(block.key, ["voxels"])["voxels"]
                    check_fragments(ids, voxels, block, volume=self.labels, tables=self.tables)
                for key in set(loaded) - {piece.key for piece in pieces}:
                    del loaded[key]  # neighbouring blocks mostly need the same piece
                for piece in pieces:
                    if piece.key not in loaded:
                        loaded[piece.key] = tables.read(piece.key, ["fragment", "segment"])
            with report.measure("compute"):
                segments = relabelled(ids, [loaded[piece.key] for piece in pieces], self.lut)
            with report.measure("write"):
                report.write("segments", output, block.write_box, segments)

        yield process

    @cached_property
    def _labels(self) -> Volume:
        return Volume.open(self.labels)

    @cached_property
    def _header(self) -> dict:
        header = TableSpec("lut", self.lut).header()
        if header is None:
            raise ConfigError(
                f"There is no look-up table in {self.lut}. It is made by `em-blocks segment`; check the "
                "path and the threshold."
            )
        return header

    @cached_property
    def _pieces(self) -> BlockGrid:
        shape = tuple(self._header["block_shape"])
        return BlockGrid(self._labels.frame, self._labels.shape, shape)


def relabelled(ids: np.ndarray, tables: list[Columns], name: str) -> np.ndarray:
    """`ids` replaced by look-up tables; uint64.

    Raises
    ------
    VolumeError
        If an id is in no table.
    """
    present, dense = fastremap.unique(ids, return_inverse=True)
    segments = np.zeros(len(present), np.uint64)
    missing = present != 0
    for table in tables:
        place = np.searchsorted(table["fragment"], present.astype(np.int64))
        if len(table["fragment"]):
            found = table["fragment"].take(place, mode="clip") == present.astype(np.int64)
            segments[found] = table["segment"][place[found]].astype(np.uint64)
            missing &= ~found
    if missing.any():
        raise VolumeError(
            f"{int(missing.sum())} ids, such as {int(present[missing][0])}, are not in the look-up "
            f"table {name}: it was made for other labels, or these have changed since. Find the "
            "segments again."
        )
    return segments[dense].reshape(ids.shape)
