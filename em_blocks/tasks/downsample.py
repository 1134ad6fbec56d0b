"""One level of a pyramid: a volume at coarser voxels."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import Literal, Self

import numpy as np
from pydantic import Field

from em_blocks.config import Shape3, StorePath
from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Triple
from em_blocks.tasks.base import BlockReport, BlockwiseTask, OutputSpec, ProcessBlock
from em_blocks.volumes import Volume, store
from em_blocks.volumes.downsample import Method, downsample

_USUAL_BLOCK = 256
"""Voxels per axis that a block reads."""

_KEPT = ("scale", "neighborhood")
"""Attributes that say what the values mean; they hold at every level."""


class Downsample(BlockwiseTask):
    """Join windows of voxels of one volume to single voxels of another.

    The world positions are exact for any offset. In zarr, the first window starts at the first
    voxel. A precomputed volume has an offset in whole voxels at every scale, so there the windows
    start at multiples of the factor in the world, and the first one may hold fewer voxels.
    """

    kind: Literal["downsample"]
    input: StorePath = Field(description="Volume to downsample: path or URL of the array.")
    output: StorePath = Field(description="Array to make, named s0, s1, ... in the group of all levels.")
    factors: Shape3 = Field(description="Voxels (z, y, x) that become one.")
    method: Method = Field(
        description='"mode" for labels (the most frequent; the smallest where several are equally '
        'frequent), "mean" for images (rounded to the nearest integer, halves to even).'
    )
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Literal["zarr", "zarr3", "precomputed"] = "zarr"
    block_shape: Shape3 | None = Field(
        None,
        description="Voxels (z, y, x) that one block writes. Default: what comes of about 256 per axis.",
    )

    def grid(self) -> BlockGrid:
        below = self._input
        first = self._first_window
        frame = Frame(
            tuple(v * f for v, f in zip(below.frame.voxel_size, self.factors, strict=True)),
            below.frame.to_roi(Box(tuple(-p for p in first), below.shape)).offset,
        )
        shape = tuple(
            -(-(n + p) // f) for n, p, f in zip(below.shape, first, self.factors, strict=True)
        )
        return BlockGrid(frame, shape, self._block_shape)

    def inputs(self) -> dict:
        below = self._input
        return {
            "input": {
                "shape": list(below.shape), "dtype": str(below.dtype), "channels": below.channels,
                "voxel_size": list(below.frame.voxel_size), "offset": list(below.frame.offset),
                # A level that was made anew calls for new levels above it.
                "fingerprint": below.attributes.get("fingerprint"),
            }
        }

    def output_specs(self) -> list[OutputSpec]:
        below = self._input
        kept = {name: below.attributes[name] for name in _KEPT if name in below.attributes}
        return [
            OutputSpec(
                name=self._name, path=self.output, dtype=str(below.dtype),
                chunk_shape=self.chunk_shape, channels=below.channels, format=self.format,
                shard_shape=self._block_shape if self.format == "zarr3" else None,
                attributes={**kept, "labels": self.method == "mode"},
            )
        ]

    def outputs_root(self) -> str:
        return store.container(store.split_parent(self.output)[0])

    def relocated(self, folder: Path) -> Self:
        path = store.join(str(folder), "pyramid", self._name)
        return self.model_copy(update={"output": path, "run_dir": folder})

    def read_shape(self) -> Triple:
        return tuple(b * f for b, f in zip(self._block_shape, self.factors, strict=True))

    def check(self) -> None:
        check_method(self._input, self.method)
        if self.input == self.output or f"{self.output}/".startswith(f"{self.input}/"):
            raise ConfigError(
                f"The output {self.output} lies in the input {self.input}; the levels of a pyramid "
                "stand beside each other. Choose another output."
            )

    @contextmanager
    def open(self, measured: dict) -> Iterator[ProcessBlock]:
        below, level = self._input, Volume.open(self.output, mode="r+")

        def process(block: Block, report: BlockReport) -> None:
            box, corner = self._windows(block.write_box)
            with report.measure("read"):
                values = below.read(box)
            with report.measure("compute"):
                values = downsample(values, self.factors, self.method, corner=corner)
            with report.measure("write"):
                report.write(self._name, level, block.write_box, values)

        yield process

    def _windows(self, box: Box) -> tuple[Box, Triple]:
        """The input voxels of the windows of `box`, and where they start in their first window."""
        first = self._first_window
        begin, end = (
            tuple(e * f - p for e, f, p in zip(edge, self.factors, first, strict=True))
            for edge in (box.offset, box.end)
        )
        inside = Box.between(begin, end).intersect(self._input.box)
        return inside, Box(inside.offset, (0, 0, 0)).relative_to(Box(begin, (0, 0, 0))).offset

    @cached_property
    def _input(self) -> Volume:
        return Volume.open(self.input)

    @cached_property
    def _first_window(self) -> Triple:
        """Voxels (z, y, x) of the first window that lie before the volume."""
        if self.format != "precomputed":
            return (0, 0, 0)
        frame = self._input.frame
        return tuple(
            round(o / v) % f
            for o, v, f in zip(frame.offset, frame.voxel_size, self.factors, strict=True)
        )

    @property
    def _name(self) -> str:
        return store.split_parent(self.output)[1]

    @property
    def _block_shape(self) -> Triple:
        if self.block_shape is not None:
            return self.block_shape
        return tuple(
            c * max(1, round(_USUAL_BLOCK / f / c))
            for c, f in zip(self.chunk_shape, self.factors, strict=True)
        )


def check_method(volume: Volume, method: Method) -> None:
    """Raise `ConfigError` unless the values of `volume` have a mode or mean worth storing."""
    kind = volume.dtype.kind
    if method == "mode" and kind not in "uib":
        raise ConfigError(
            f"'method' is \"mode\", but {volume.path} holds {volume.dtype}: of such values hardly two "
            "are equal, and none is the most frequent. Use \"mean\", or name a volume of labels."
        )
    if method == "mean" and (kind not in "uif" or volume.dtype in (np.int64, np.uint64)):
        raise ConfigError(
            f"'method' is \"mean\", but {volume.path} holds {volume.dtype}, which are labels: the mean "
            'of two ids is the id of a third object. Use "mode".'
        )
