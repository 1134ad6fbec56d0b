"""Count the voxels that segments and neurons share: the blockwise part of an evaluation."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import TYPE_CHECKING, Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, PositiveFloat, model_validator

from em_blocks.config import LocalPath, RoiConfig, Shape3, StorePath, VolumeRef
from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Roi, Triple
from em_blocks.kernels.evaluation.contingency import Contingency, as_ids, count_overlaps
from em_blocks.kernels.evaluation.cremi_marks import BACKGROUND
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.volumes.labels import (
    Labels,
    check_sample,
    open_labels,
    placed,
    read_in,
    shared_region,
)
from em_blocks.volumes.metadata import place_in_config
from em_blocks.volumes.skeletons.swc_files import SkeletonUnit, nm_per_unit
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables

if TYPE_CHECKING:
    import networkx as nx

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,99}$")]
Id = Annotated[int, Field(ge=-(2**63), lt=2**64)]
CountBlock = Callable[[Block, BlockReport], Iterator[tuple[str, Contingency]]]

# Voxels of a block, unless the config names its shape: some 200 MB of ids.
_USUAL_VOXELS = 2**23


class _Layout(NamedTuple):
    """What is compared: the region that all volumes cover."""

    frame: Frame
    shape: Triple
    chunk_shape: Triple
    identities: dict


class CountOverlaps(BlockwiseTask):
    """Count the voxels of all pairs of segment and neuron, one table per block.

    Scores are computed from the tables when all blocks are done, so what is ignored, and the
    skeletons, may change without counting again.
    """

    operational: ClassVar[frozenset[str]] = BlockwiseTask.operational | {
        "ignore", "ignore_segmentation", "skeletons", "skeleton_unit"
    }

    reads: ClassVar[tuple[str, ...]] = ("segmentations", "truth",)

    fits_block: ClassVar[bool] = False

    kind: Literal["count_overlaps"]
    segmentations: dict[Name, VolumeRef] = Field(
        min_length=1,
        description="Volumes of segments by name; names that are numbers are thresholds, and a curve "
        "is drawn over them. path.zarr/dataset, or file.h5:dataset.",
    )
    truth: VolumeRef = Field(
        description="Volume of neurons. If file.h5 has a table 'transforms' beside the dataset, its "
        "bodies are the neurons."
    )
    output: StorePath = Field(description="Folder of tables, scores and pictures.")
    roi: RoiConfig | None = Field(
        None, description="Region to compare, nm (z, y, x). Default: all that the volumes share."
    )
    ignore: tuple[Id, ...] = Field(
        (0,), description="Voxels with one of these ids in truth are not scored; -1 is also 2^64 - 1."
    )
    ignore_segmentation: tuple[Id, ...] = Field(
        (), description="Voxels with one of these ids in a segmentation are not scored. Unless 0 is "
        "named here, it is a segment like any other."
    )
    border_nm: PositiveFloat | None = Field(
        None, description="Voxels of truth at most so far from the border of a neuron in their section "
        "are not scored, nor are those of the id 2^64 - 1, as in the CREMI challenge."
    )
    skeletons: LocalPath | None = Field(
        None, description="SWC file, or folder of SWC files, one neuron each, for the run length."
    )
    skeleton_unit: SkeletonUnit = Field(
        "nm", description="Of the positions in SWC files: nm, um, a number of nm, or three (z, y, x), "
        "such as the size of voxels."
    )
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that are counted at once. Default: whole chunks of the "
        "first segmentation, about 8 million voxels."
    )

    @model_validator(mode="after")
    def _distinct_folders(self) -> Self:
        if len({_key(name) for name in self.segmentations}) < len(self.segmentations):
            raise ValueError(f"names differ by more than . and _, got {list(self.segmentations)}")
        return self

    def grid(self) -> BlockGrid:
        layout = self._layout
        block_shape = self.block_shape or usual_block(layout.chunk_shape)
        return BlockGrid(layout.frame, layout.shape, block_shape)

    def inputs(self) -> dict:
        return self._layout.identities

    def identity(self) -> dict:
        found = super().identity()
        if self.border_nm is None:  # as in runs from before there was this key
            del found["config"]["border_nm"]
        return found

    def read_context(self) -> Triple:
        return self._border_context()

    def read_shape(self) -> Triple:
        return Box((0, 0, 0), self.grid().block_shape).grow(self._border_context()).shape

    def output_specs(self) -> list[TableOutput]:
        return [
            TableOutput(_table_name(name), store.join(self.output, "tables", _key(name)))
            for name in self.segmentations
        ]

    def outputs_root(self) -> str:
        return self.output

    def stored_config(self) -> dict:
        # CREMI marks unknown voxels with 2**64 - 1; integers of MongoDB end at 2**63.
        ignored = {key: [str(id) for id in getattr(self, key)]
                   for key in ("ignore", "ignore_segmentation")}
        return super().stored_config() | ignored

    def check(self) -> None:
        """Raise `ConfigError` unless ids and the skeletons, needed at the end, can be used."""
        self.neurons()
        with self._opened() as (truth, segmentations):
            for labels in (truth, *segmentations.values()):
                check_sample(labels)

    def neurons(self) -> dict[str, nx.Graph]:
        """The skeletons by name; none unless the config names some."""
        if self.skeletons is None:
            return {}
        # Here, because networkx takes a fifth of a second that most evaluations need not wait.
        from em_blocks.volumes.skeletons.networks import read_skeletons

        return read_skeletons(self.skeletons, unit_nm=nm_per_unit(self.skeleton_unit))

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        specs = dict(zip(self.segmentations, self.output_specs(), strict=True))
        tables = {name: BlockTables(spec.path) for name, spec in specs.items()}
        with self.counting() as count:

            def process(block: Block, report: BlockReport) -> None:
                report.counts["pairs"] = 0
                for name, found in count(block, report):
                    report.counts["pairs"] += len(found)
                    with report.measure("write"):
                        columns = {"segmentation": found.segmentation, "truth": found.truth,
                                   "voxels": found.voxels}
                        report.write_table(specs[name].name, tables[name], block, columns)

            yield process

    @contextmanager
    def counting(self) -> Iterator[CountBlock]:
        """Open all volumes; yield the function that counts a block, segmentation by segmentation."""
        frame = self._layout.frame
        with self._opened() as (truth, segmentations):

            def count(block: Block, report: BlockReport) -> Iterator[tuple[str, Contingency]]:
                with report.measure("read"):
                    neurons = self._neurons(truth, truth.frame.to_box(frame.to_roi(block.write_box)))
                for name, segmentation in segmentations.items():
                    with report.measure("read"):
                        segments = read_in(segmentation, frame, block.write_box)
                    with report.measure("compute"):
                        found = count_overlaps(
                            segmentation=segments, truth=neurons,
                            negative=(*self.ignore, *self.ignore_segmentation),
                        )
                    yield name, found

            yield count

    def _neurons(self, truth: Labels, box: Box) -> np.ndarray:
        """True ids of a box of truth's voxels, `BACKGROUND` near borders that do not count."""
        if self.border_nm is None:
            return truth.read(box)
        # scipy, which most evaluations need not wait for.
        from em_blocks.kernels.evaluation.borders import near_borders

        grown = box.grow(self._border_context()).intersect(truth.box)
        labels = as_ids(truth.read(grown), self.ignore)
        near = near_borders(labels, distance_nm=self.border_nm, voxel_size=truth.frame.voxel_size)
        return np.where(near, BACKGROUND, labels)[box.relative_to(grown).slices]

    def is_signed(self, name: str) -> bool:
        """Tell whether a volume, "truth" or "segmentation NAME", could hold ids below 0."""
        return np.dtype(self._layout.identities[name]["dtype"]).kind == "i"

    def _border_context(self) -> Triple:
        if self.border_nm is None:
            return (0, 0, 0)
        from em_blocks.kernels.evaluation.borders import border_context

        return border_context(self.border_nm, self._layout.frame.voxel_size)

    @property
    def ignored_truth(self) -> tuple[int, ...]:
        """Ids in truth that are not scored."""
        return self.ignore if self.border_nm is None else (*self.ignore, int(BACKGROUND))

    def stored(self, name: str, blocks: Iterable[Block]) -> Iterator[Contingency]:
        """The tables of a segmentation in blocks that are done."""
        (path,) = (s.path for s in self.output_specs() if s.name == _table_name(name))
        tables = BlockTables(path)
        return (Contingency(**tables.read(block.key)) for block in blocks)

    @contextmanager
    def opened_segmentation(self, name: str) -> Iterator[Labels]:
        """One of the segmentations, with a frame."""
        with self._opened() as (_, segmentations):
            yield segmentations[name]

    @contextmanager
    def _opened(self) -> Iterator[tuple[Labels, dict[str, Labels]]]:
        """Truth and segmentations, all with a frame."""
        with ExitStack() as stack:
            paths = [self.truth, *self.segmentations.values()]
            opened = [
                stack.enter_context(open_labels(
                    path, negative=self.ignore_segmentation if number else self.ignore
                ))
                for number, path in enumerate(paths)
            ]
            if all(v.frame is None for v in opened) and (self.roi or self.skeletons):
                raise ConfigError(
                    f"None of {', '.join(map(str, paths))} says how large its voxels are, so "
                    "the ROI or the skeletons, which are in nm, cannot be placed. Add the "
                    "attributes resolution and offset (nm, zyx) to a dataset, or say it in the config: "
                    f"{place_in_config('...')}."
                )
            truth, *segmentations = placed(opened)
            yield truth, dict(zip(self.segmentations, segmentations, strict=True))

    @cached_property
    def _layout(self) -> _Layout:
        with self._opened() as (truth, segmentations):
            roi = None if self.roi is None else Roi(self.roi.offset, self.roi.shape)
            frame, shape = shared_region([truth, *segmentations.values()], roi)
            identities = {"truth": labels_identity(truth)} | {
                f"segmentation {name}": labels_identity(labels)
                for name, labels in segmentations.items()
            }
            chunk_shape = next(iter(segmentations.values())).chunk_shape
        return _Layout(frame, shape, chunk_shape, identities)


def _table_name(segmentation: str) -> str:
    return f"overlaps_{_key(segmentation)}"


def _key(name: str) -> str:
    """`name` as part of a database key, where a dot would open a level."""
    return name.replace(".", "_")


def labels_identity(labels: Labels) -> dict:
    """Return what decides the counts of a volume; part of the fingerprint."""
    return {
        "shape": list(labels.shape), "dtype": str(labels.dtype),
        "voxel_size": list(labels.frame.voxel_size), "offset": list(labels.frame.offset),
        **labels.identity,
    }


def usual_block(chunk_shape: Triple) -> Triple:
    """Whole chunks, of similar length along all axes, with about `_USUAL_VOXELS` voxels."""
    shape, grown = None, list(chunk_shape)
    while shape is None or math.prod(grown) <= _USUAL_VOXELS:
        shape = tuple(grown)
        shortest = grown.index(min(grown))
        grown[shortest] += chunk_shape[shortest]
    return shape
