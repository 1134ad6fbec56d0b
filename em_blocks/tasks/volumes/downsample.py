"""Pyramids: the same volume at coarser and coarser voxels, level by level."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, model_validator

from em_blocks.config import Shape3, StorePath, VolumeInput, VolumeRef, path_of
from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Triple, nearest_multiple
from em_blocks.kernels.transforms.pyramid import pyramid_factors
from em_blocks.outputs import RunContext, VolumeOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.volumes import Volume
from em_blocks.volumes.downsample import Method, downsample
from em_blocks.volumes.formats.storage import PyramidFormat, block_shards, format_named
from em_blocks.volumes.metadata.attributes import MEANINGS
from em_blocks.volumes.multiscale import level_path, write_multiscales
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.places import same_place

_USUAL_BLOCK = 256
"""Voxels per axis that a block reads."""


class Level(NamedTuple):
    """Where the voxels of one level lie."""

    frame: Frame
    shape: Triple
    factors: Triple  # voxels (z, y, x) of the level below that become one
    before: Triple  # voxels (z, y, x) of the first window that lie before the level below


class Downsample(BlockwiseTask):
    """Make a pyramid, whose levels are runs of their own: RUN.s0, RUN.s1, ... With `level`, one of them.

    The levels are arrays ``s0`` (full resolution), ``s1``, ... of the group `output`. OME-NGFF finds
    levels by their paths in the group, and readers on object stores cannot leave it, so the full
    resolution has to be in there as well: it is copied, unless the input already is ``s0`` of the
    group. A precomputed volume, whose scales share one ``info``, may be the input itself.

    World positions are exact for any offset. In zarr, the first window starts at the first voxel.
    A precomputed volume has an offset in whole voxels at every scale, so there windows start at
    multiples of the factor in the world, and the first one may hold fewer voxels.
    """

    # A pyramid may get further levels later.
    operational: ClassVar[frozenset[str]] = BlockwiseTask.operational | {"levels"}

    reads: ClassVar[tuple[str, ...]] = ("input",)

    fits_block: ClassVar[bool] = False

    kind: Literal["downsample"]
    input: VolumeRef = Field(description="Volume at full resolution: path or URL of the array.")
    output: StorePath = Field(description="Group of all levels, e.g. data/brain.zarr/pyramid.")
    method: Method = Field(
        description='"mode" for labels (the most frequent; the smallest where several are equally '
        'frequent), "mean" for images (rounded to the nearest integer, halves to even).'
    )
    factors: tuple[Shape3, ...] | None = Field(
        None, min_length=1,
        description="Voxels (z, y, x) of the level below that become one, for s1, s2, ... "
        "Default: 2 or 1, towards isotropic voxels.",
    )
    levels: PositiveInt | None = Field(
        None,
        description="How many levels above the full resolution, where 'factors' does not say it. "
        "Default: until a level is one chunk.",
    )
    level: NonNegativeInt | None = Field(
        None, description="One level, 0 is the full resolution. Default: all of them."
    )
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: PyramidFormat = "zarr"
    block_shape: Shape3 | None = Field(
        None,
        description="Voxels (z, y, x) that one block writes. Default: so that it reads about 256 per "
        "axis.",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_of_level(cls, values: dict) -> dict:
        """Each level is a run of its own."""
        run, suffix = values.get("run"), f".s{values.get('level')}"
        if values.get("level") is None or not isinstance(run, str) or run.endswith(suffix):
            return values
        return {**values, "run": run + suffix}

    @model_validator(mode="after")
    def _check_factors(self) -> Self:
        if self.factors and self.levels not in (None, len(self.factors)):
            raise ValueError(f"'levels' is {self.levels}, but 'factors' names {len(self.factors)}")
        for factors in self.factors or ():
            if max(factors) == 1:
                raise ValueError(f"the factors {list(factors)} make no coarser level")
        return self

    # -- the levels -------------------------------------------------------------------

    def steps(self) -> list[Self]:
        """One task per level that has to be made; each needs the whole of the one before."""
        if self.level is not None:
            return [self]
        return [self._with(level=level) for level in range(self._first, self._last + 1)]

    def is_independent(self) -> bool:
        return self._number <= 1

    def publish(self) -> None:
        """Make the levels known to viewers, when all of them are done."""
        if self._holds_scales:
            return  # what describes the volume lists them
        paths = [level_path(self.output, level) for level in range(self._last + 1)]
        write_multiscales(self.output, self.format, [Volume.open(path) for path in paths])

    @cached_property
    def geometry(self) -> list[Level]:
        """All levels, the full resolution first; known before any of them is made."""
        source, none = self._source, (0, 0, 0)
        found = [Level(source.frame, source.shape, (1, 1, 1), none)]
        for factors in self.factors or pyramid_factors(
            source.frame.voxel_size, source.shape, levels=self.levels, smallest=self.chunk_shape
        ):
            below = found[-1]
            before = _voxels_before(below.frame, factors) if self._holds_scales else none
            found.append(_coarser(below, factors, before))
        if len(found) == 1:
            raise ConfigError(
                f"{self.input} has {source.shape} voxels and fits in one chunk of "
                f"{self.chunk_shape} (zyx), so it needs no pyramid. Name 'levels' or 'factors' to have "
                "one all the same."
            )
        return found

    @property
    def _last(self) -> int:
        return len(self.geometry) - 1

    @property
    def _first(self) -> int:
        """The first level to be made: 1 where the full resolution is in place."""
        in_place = {level_path(self.output, 0)}
        if self._holds_scales:
            in_place.add(self.output)
        return int(any(same_place(path_of(self.input), place) for place in in_place))

    @property
    def _holds_scales(self) -> bool:
        """Whether the levels are scales of one volume, which may be the input."""
        return format_named(self.format).holds_scales

    @property
    def _number(self) -> int:
        number = self._last if self.level is None else self.level
        if not self._first <= number <= self._last:
            raise ConfigError(
                f"'level' is {number}, but the levels {self._first} to {self._last} are made of "
                f"{self.input}. Leave the key out to make all of them."
            )
        return number

    @property
    def _level(self) -> Level:
        return self.geometry[self._number]

    @property
    def _below(self) -> str | VolumeInput:
        """The volume that this level is made of."""
        return self.input if self._number <= 1 else level_path(self.output, self._number - 1)

    # -- what a task defines ----------------------------------------------------------

    def grid(self) -> BlockGrid:
        return BlockGrid(self._level.frame, self._level.shape, self._block_shape)

    def sources(self) -> dict[str, str]:
        return super().sources() | {"input": self._below}

    def inputs(self) -> dict:
        source = self._source
        return {
            "input": {
                "shape": list(source.shape), "dtype": str(source.dtype), "channels": source.channels,
                "voxel_size": list(source.frame.voxel_size), "offset": list(source.frame.offset),
                "fingerprint": source.attributes.get("fingerprint"),
            },
            "level": self._number,
        }

    def output_specs(self) -> list[VolumeOutput]:
        source = self._source
        kept = {name: source.attributes[name] for name in MEANINGS if name in source.attributes}
        return [
            VolumeOutput(
                name="level", path=level_path(self.output, self._number),
                dtype=str(source.dtype), chunk_shape=self.chunk_shape, channels=source.channels,
                format=self.format, shard_shape=block_shards(self.format, self._block_shape),
                attributes={**kept, "labels": self.method == "mode"},
            )
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def relocated(self, folder: Path) -> Self:
        # The same step as the first one of another pyramid, so that the level below stays in place.
        factors = [self._level.factors] if self._number else None
        return self._with(
            input=self._below, factors=factors, levels=1, level=min(self._number, 1),
            output=store.join(str(folder), "pyramid"), run_dir=str(folder),
        )

    def read_shape(self) -> Triple:
        return tuple(b * f for b, f in zip(self._block_shape, self._level.factors, strict=True))

    def check(self) -> None:
        check_method(self._source, self.method)

    def grown_inputs(self) -> set[str]:
        return {"input"} if self._first and self._holds_scales else set()

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        below = Volume.open(self._below)
        (spec,) = self.output_specs()
        level, factors = Volume.open(spec.path, mode="r+"), self._level.factors

        def process(block: Block, report: BlockReport) -> None:
            box, corner = self._windows(block.write_box, below.box)
            with report.measure("read"):
                values = below.read(box)
            with report.measure("compute"):
                values = downsample(values, factors, self.method, corner=corner)
            with report.measure("write"):
                report.write(spec.name, level, block.write_box, values)

        yield process

    def _windows(self, box: Box, below: Box) -> tuple[Box, Triple]:
        """Voxels of the level below that become `box`, and where they start in the first window."""
        begin, end = (
            tuple(
                e * f - b
                for e, f, b in zip(edge, self._level.factors, self._level.before, strict=True)
            )
            for edge in (box.offset, box.end)
        )
        inside = Box.between(begin, end).intersect(below)
        return inside, tuple(i - b for i, b in zip(inside.offset, begin, strict=True))

    def _with(self, **values) -> Self:
        # Not model_copy, which would copy the cached properties too.
        return self.from_dict({**self.model_dump(mode="json"), **values})

    @cached_property
    def _source(self) -> Volume:
        return Volume.open(self.input)

    @property
    def _block_shape(self) -> Triple:
        if self.block_shape is not None:
            return self.block_shape
        return nearest_multiple((_USUAL_BLOCK / f for f in self._level.factors), self.chunk_shape)


def _coarser(below: Level, factors: Triple, before: Triple) -> Level:
    """The level above `below`, whose first window starts `before` voxels in front of it."""
    frame = below.frame
    start = Box(tuple(-b for b in before), (0, 0, 0))
    return Level(
        Frame(
            tuple(v * f for v, f in zip(frame.voxel_size, factors, strict=True)),
            frame.to_roi(start).offset,
        ),
        tuple(-(-(n + b) // f) for n, b, f in zip(below.shape, before, factors, strict=True)),
        factors, before,
    )


def _voxels_before(frame: Frame, factors: Triple) -> Triple:
    """Voxels between a multiple of the factors in the world and the first voxel of `frame`."""
    return tuple(
        round(o / v) % f
        for o, v, f in zip(frame.offset, frame.voxel_size, factors, strict=True)
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
