"""From affinities to segments: the steps, and how they fit together."""

from __future__ import annotations

import math
from typing import Annotated, ClassVar, Literal, Self

from pydantic import Field, NonNegativeInt, model_validator

from em_blocks.config import Shape3, StorePath, StrictModel, VolumeRef, path_of
from em_blocks.errors import ConfigError
from em_blocks.geometry import BlockGrid, Triple
from em_blocks.tasks.base import BlockwiseTask, RunConfig
from em_blocks.tasks.block_shape import DEFAULT_BLOCK, fits_into, largest_block
from em_blocks.tasks.segmentation.affinity_input import AffinityInput, Shifts
from em_blocks.tasks.segmentation.agglomerate_graph import AgglomerateGraph, SizeRule
from em_blocks.tasks.segmentation.extract_fragments import (
    ExtractFragments,
    Method,
    Share,
    Watershed,
)
from em_blocks.tasks.segmentation.find_segments import FindSegments
from em_blocks.tasks.segmentation.relabel import Relabel
from em_blocks.tasks.segmentation.score_edges import ScoreEdges
from em_blocks.volumes.formats.storage import Format, format_named
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.apart import check_apart

LINKAGES = {
    "mean": "average", "quantile": "quantile",
    # waterz has agglomerated already: its affinities are those of merges.
    "waterz_mean": "single", "waterz_quantile": "single",
}

Threshold = Annotated[float, Field(ge=0, le=1)]


class EdgeOptions(StrictModel):
    """How strong an edge between two fragments is."""

    scores: Literal["mean", "quantile", "waterz_mean", "waterz_quantile"] = Field(
        "mean", description="mean: of all affinities between two clusters. quantile: of the direct "
        "ones over their contact. waterz_mean, waterz_quantile (75 %): at which waterz merges two "
        "fragments within the block and its surroundings."
    )
    quantile: Share = Field(0.9, description="Which quantile.")
    long_range_weight: Annotated[float, Field(ge=0, le=100)] = Field(
        1.0, description="Weight of a long-range affinity in the mean; that of a direct one is 1."
    )


class Segment(RunConfig):
    """Affinities -> fragments -> region graph -> merge forest -> segments.

    Every step is a run of its own, named ``RUN.fragments``, ``RUN.edges``, ``RUN.forestN``,
    ``RUN.lutN_T`` and ``RUN.segments_T``; N is the level of super-blocks, T the threshold. All that
    they write lies in `output`: the volumes ``fragments`` and ``segments/T``, and tables in ``graph``.
    Another threshold needs only its own look-up table and volume.
    """

    fits_block: ClassVar[bool] = True

    kind: Literal["segment"]
    affinities: VolumeRef = Field(
        description="Volume (c, z, y, x): uint8, uint16, float in 0..1, or any with its attribute scale."
    )
    neighborhood: Shifts | None = Field(
        None, description="Shift to the partner of every channel, voxels (z, y, x). Default: the "
        "attribute of the volume."
    )
    output: StorePath = Field(description="Container to make, e.g. data/brain_segmentation.zarr.")
    block_shape: Shape3 | None = Field(None, description=DEFAULT_BLOCK)
    tile_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) in which fragments are made; default: the block. With tiles "
        "the result does not depend on the blocks."
    )
    context: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] | None = Field(
        None, description="Voxels (z, y, x) seen around a tile. Default: the longest affinity."
    )
    fragments: Method = Field(Watershed(), description="How fragments are made.")
    min_size: NonNegativeInt = Field(0, description="Fragments of fewer voxels become 0.")
    min_mean_affinity: Share = Field(
        0.0, description="Voxels with a lower mean of the direct affinities become no fragments."
    )
    edges: EdgeOptions = Field(EdgeOptions(), description="How edges between fragments are scored.")
    size_rule: SizeRule | None = Field(
        None, description="Two clusters of at least `voxels` voxels merge only at an affinity of "
        "`affinity` or more: a wrong merge of two neurons costs more than any split."
    )
    super_block: Shape3 = Field(
        (4, 4, 4), description="Blocks (z, y, x) whose graph one worker holds; a level above, "
        "super-blocks of the level below."
    )
    thresholds: tuple[Threshold, ...] = Field(
        min_length=1, description="Clusters merge up to this 1 - affinity; ascending. Each gives a "
        "volume segments/T."
    )
    lowest_affinity: Share = Field(
        0.02, description="The merge forest ends here; no threshold beyond 1 - this can be asked for."
    )
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    @model_validator(mode="after")
    def _thresholds_ascend(self) -> Self:
        if list(self.thresholds) != sorted(set(self.thresholds)):
            raise ValueError(
                f"thresholds must ascend, each once, got {list(self.thresholds)}; use "
                f"{sorted(set(self.thresholds))}"
            )
        if self.thresholds[-1] > 1 - self.lowest_affinity:
            raise ValueError(
                f"the threshold {self.thresholds[-1]} lies beyond the end of the merge forest, 1 - "
                f"lowest_affinity = {1 - self.lowest_affinity:g}; lower 'lowest_affinity'"
            )
        return self

    @model_validator(mode="after")
    def _output_is_a_container_of_its_own(self) -> Self:
        read = {"affinities": self.affinities, "mask": self.mask}
        check_apart(
            {name: path_of(value) for name, value in read.items() if value is not None},
            {name: store.join(self.output, name) for name in ("fragments", "segments", "graph")},
        )
        suffix = format_named(self.format).container_suffix
        if suffix and not self.output.endswith(suffix):
            raise ValueError(
                f"the output {self.output} is no {suffix} container, so other programs would not find "
                f"the volumes in it; use {self.output}{suffix}"
            )
        return self

    @model_validator(mode="after")
    def _thresholds_have_names(self) -> Self:
        names = [f"{threshold:g}" for threshold in self.thresholds]
        if len(set(names)) < len(names):
            raise ValueError(
                f"thresholds {list(self.thresholds)} must differ in their first six digits, which "
                "name their volumes; leave some out"
            )
        return self

    @property
    def first_run(self) -> str:
        return f"{self.run}.fragments"

    def fitted(self) -> Self:
        volume = self._input().volume
        unit = tuple(map(math.lcm, self.chunk_shape, self.tile_shape or (1, 1, 1)))

        def worker_bytes(shape: Triple) -> float:
            task = self.with_block(shape)
            return max(step.worker_bytes() for step in (task._fragments(), task._edges()))

        return self.with_block(largest_block(
            BlockGrid(volume.frame, volume.shape, unit), unit, num_workers=self.num_workers,
            fits=fits_into(self.memory_of_worker(), worker_bytes),
        ))

    def steps(self) -> list[BlockwiseTask]:
        """Fragments, edges, levels of the forest, then for every threshold tables and volume."""
        shapes = self._super_blocks()
        steps = [self._fragments(), self._edges(), *self._forest(shapes)]
        for threshold in self.thresholds:
            steps += [*self._tables(shapes, threshold), self._segments(threshold)]
        return steps

    def outputs_root(self) -> str:
        return self.output

    def segments_path(self, threshold: float) -> str:
        """Volume of the segments at a threshold."""
        return store.join(self.output, "segments", f"{threshold:g}")

    # -- the steps ------------------------------------------------------------------------

    def _step(self, task: type[BlockwiseTask], name: str, /, **values) -> BlockwiseTask:
        shared = {
            key: value for key, value in self.model_dump(mode="json").items()
            if key in RunConfig.model_fields and key not in ("run", "run_dir")
        }
        return task.from_dict({
            **shared, "run_dir": str(self.home), "block_shape": self.block_shape,
            "run": f"{self.run}.{name}", **values,
        })

    def _fragments(self) -> BlockwiseTask:
        return self._step(
            ExtractFragments, "fragments", kind="extract_fragments", affinities=self.affinities,
            neighborhood=self.neighborhood, output=self._volume, tables=self._folder("fragments"),
            tile_shape=self.tile_shape or self.block_shape,
            context=self.context or self._input().neighborhood.reach,
            fragments=self.fragments.model_dump(), min_size=self.min_size,
            min_mean_affinity=self.min_mean_affinity, chunk_shape=self.chunk_shape,
            format=self.format,
        )

    def _edges(self) -> BlockwiseTask:
        return self._step(
            ScoreEdges, "edges", kind="score_edges", affinities=self.affinities,
            neighborhood=self.neighborhood, fragments=self._volume,
            fragment_tables=self._folder("fragments"), output=self._folder("edges"),
            context=self.context or self._input().neighborhood.reach, scores=self.edges.scores,
            long_range_weight=self.edges.long_range_weight,
        )

    def _forest(self, shapes: list[Triple]) -> list[BlockwiseTask]:
        return [
            self._step(
                AgglomerateGraph, f"forest{level}", kind="agglomerate_graph", like=self.affinities,
                fragments=self._volume, fragment_tables=self._folder("fragments"),
                edge_tables=self._folder("edges"),
                output=self._folder("forest"), level=level, last=level == len(shapes) - 1,
                part_shape=([self.block_shape, *shapes])[level], block_shape=shape,
                reach=self._input().neighborhood.reach, lowest=self.lowest_affinity,
                size_rule=self.size_rule and self.size_rule.model_dump(),
                linkage=LINKAGES[self.edges.scores], quantile=self.edges.quantile,
            )
            for level, shape in enumerate(shapes)
        ]

    def _tables(self, shapes: list[Triple], threshold: float) -> list[BlockwiseTask]:
        levels = range(len(shapes) - 1, -1, -1)
        return [
            self._step(
                FindSegments, f"lut{level}_{threshold:g}", kind="find_segments",
                like=self.affinities, fragments=self._volume, fragment_tables=self._folder("fragments"),
                forest=self._folder("forest"), output=self._folder(f"lut/{threshold:g}"), level=level,
                last=level == len(shapes) - 1, part_shape=([self.block_shape, *shapes])[level],
                above_shape=None if level == len(shapes) - 1 else shapes[level + 1],
                block_shape=shapes[level], threshold=threshold,
            )
            for level in levels
        ]

    def _segments(self, threshold: float) -> BlockwiseTask:
        return self._step(
            Relabel, f"segments_{threshold:g}", kind="relabel", labels=self._volume,
            like=self.affinities, tables=self._folder("fragments"),
            lut=self._folder(f"lut/{threshold:g}/0"), output=self.segments_path(threshold),
            chunk_shape=self.chunk_shape, format=self.format,
        )

    def _super_blocks(self) -> list[Triple]:
        """Voxels of a super-block per level, up to one that holds the whole volume."""
        volume, shapes = self._input().volume, [self.block_shape]
        blocks = BlockGrid(volume.frame, volume.shape, self.block_shape).shape
        if any(n > 1 and f == 1 for n, f in zip(blocks, self.super_block, strict=True)):
            raise ConfigError(
                f"super_block {self.super_block} is 1 along an axis that has several blocks: the grid "
                f"is {blocks} (z, y, x). No level would ever hold the volume; use at least 2 there."
            )
        while len(shapes) == 1 or BlockGrid(volume.frame, volume.shape, shapes[-1]).n_blocks > 1:
            shapes.append(
                tuple(b * f for b, f in zip(shapes[-1], self.super_block, strict=True))
            )
        return shapes[1:]

    def _input(self) -> AffinityInput:
        return AffinityInput.open(self.affinities, self.neighborhood)

    @property
    def _volume(self) -> str:
        return store.join(self.output, "fragments")

    def _folder(self, name: str) -> str:
        return store.join(self.output, "graph", name)
