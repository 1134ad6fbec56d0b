"""Measure what predicted and true instances share: the blockwise part of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from itertools import pairwise
from typing import Annotated, ClassVar, Literal, NamedTuple

import numpy as np
from pydantic import Field, NonNegativeInt, PositiveInt, field_validator

from em_blocks.config import RoiConfig, Shape3, StorePath, VolumeRef
from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Roi, Triple
from em_blocks.kernels.evaluation.cremi_marks import SIGNED, is_unknown, without_marks
from em_blocks.kernels.evaluation.instances.left_out import BorderRule
from em_blocks.kernels.evaluation.instances.pairs import Pairs, measure_pairs
from em_blocks.kernels.evaluation.object_matching import Matching
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.evaluation.compared import check_placeable, compared_region, identities
from em_blocks.tasks.evaluation.count_overlaps import Id, usual_block
from em_blocks.tasks.masks import open_mask, read_mask
from em_blocks.volumes import Volume
from em_blocks.volumes.labels import Labels, check_sample, open_labels, placed
from em_blocks.volumes.nearest import nearest
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables

LeastIou = Annotated[float, Field(gt=0, le=1)]
Margin = tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt]

_TABLE = "pairs"


class Compared(NamedTuple):
    """Ids of a box of compared voxels.

    Attributes
    ----------
    prediction, truth : (z, y, x) int arrays
        0 is background; no other id means anything but an object.
    known : (z, y, x) bool array or None
        Where voxels count; None: everywhere.
    """

    prediction: np.ndarray
    truth: np.ndarray
    known: np.ndarray | None


ReadCompared = Callable[[Box], Compared]
CountBlock = Callable[[Block, BlockReport], Pairs]


class _Layout(NamedTuple):
    """What is compared: the region that both volumes cover, without the margin."""

    frame: Frame
    shape: Triple
    chunk_shape: Triple
    identities: dict


class CountInstances(BlockwiseTask):
    """Measure the voxels of all pairs of predicted and true instance, one table per block.

    A table has one row for every pair and whether its voxels count: their number, the sum of their
    indices (z, y, x), and their bounding box, in voxels of the region that is compared. Scores are
    computed from the tables when all blocks are done, so `iou`, `min_voxels`, `matching`, `border`,
    `size_bounds` and `raw` may change without counting again. If voxels of one volume are whole
    multiples of those of the other, the smaller ones are counted.
    """

    operational: ClassVar[frozenset[str]] = BlockwiseTask.operational | {
        "iou", "min_voxels", "matching", "border", "size_bounds", "raw"
    }

    reads: ClassVar[tuple[str, ...]] = ("prediction", "truth", "metric_masks")

    fits_block: ClassVar[bool] = False

    kind: Literal["count_instances"]
    prediction: VolumeRef = Field(
        description="Predicted instances, by id, 0 is background: path.zarr/dataset, or "
        "file.h5:dataset."
    )
    truth: VolumeRef = Field(description="True instances, likewise.")
    ignore: tuple[Id, ...] = Field(
        (), description="Voxels with one of these ids in truth are not scored: nothing is known there."
    )
    metric_masks: tuple[VolumeRef, ...] = Field(
        (), description="Volumes of any voxel size; voxels where one of them is 0 do not count."
    )
    mask: VolumeRef | None = Field(
        None, description="Specimen, a volume of any voxel size: there are no objects where it is 0."
    )
    roi: RoiConfig | None = Field(
        None, description="Region to compare, nm (z, y, x). Default: all that both volumes cover."
    )
    margin: Margin = Field(
        (0, 0, 0), description="Voxels (z, y, x) at every face of the region that are not compared."
    )
    iou: tuple[LeastIou, ...] = Field(
        (0.5, 0.75), min_length=1,
        description="Least intersection over union of a match. The first one gives the main scores, the "
        "errors and the pictures.",
    )
    min_voxels: PositiveInt = Field(
        1, description="Leave out smaller objects, in both volumes; their voxels count in the scores "
        "of voxels."
    )
    matching: Matching = Field(
        "one-to-one", description="Whether one object can match several others (overlap)."
    )
    border: BorderRule = Field(
        "count", description="Objects that touch the border of the region count like any others, or "
        "are left out: then a true one does not count, nor does what matches it or lies mostly in "
        "it, and a predicted one counts only if it matches."
    )
    size_bounds: tuple[PositiveInt, ...] = Field(
        (), description="Score objects by size too: voxels that divide the bins, rising."
    )
    raw: VolumeRef | None = Field(
        None, description="Image to show in the pictures of the worst errors, of any voxel size."
    )
    output: StorePath = Field(description="Folder of tables, scores and pictures.")
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that are counted at once. Default: whole chunks of the "
        "prediction, about 8 million voxels."
    )

    @field_validator("size_bounds")
    @classmethod
    def _rising(cls, bounds: tuple[int, ...]) -> tuple[int, ...]:
        if any(a >= b for a, b in pairwise(bounds)):
            raise ValueError(f"sizes must rise, got {', '.join(map(str, bounds))}")
        return bounds

    def grid(self) -> BlockGrid:
        layout = self._layout
        return BlockGrid(
            layout.frame, layout.shape, self.block_shape or usual_block(layout.chunk_shape)
        )

    def inputs(self) -> dict:
        return self._layout.identities

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput(_TABLE, store.join(self.output, "tables", _TABLE))]

    def outputs_root(self) -> str:
        return self.output

    def stored_config(self) -> dict:
        # Ids go up to 2**64 - 1; integers of MongoDB end at 2**63.
        return super().stored_config() | {"ignore": [str(id) for id in self.ignore]}

    def check(self) -> None:
        """Raise an `EmBlocksError` for values that cannot be compared, and masks that are none."""
        for path in (*self.metric_masks, *([] if self.mask is None else [self.mask])):
            open_mask(path)
        self.opened_raw()
        with self._opened() as volumes:
            for labels in volumes:
                check_sample(labels)

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        (spec,) = self.output_specs()
        tables = BlockTables(spec.path)
        with self.counting() as count:

            def process(block: Block, report: BlockReport) -> None:
                pairs = count(block, report)
                report.counts["pairs"] = len(pairs.voxels)
                with report.measure("write"):
                    columns = pairs._asdict() | {"counts": pairs.counts.astype(np.uint8)}
                    report.write_table(_TABLE, tables, block, columns)

            yield process

    @contextmanager
    def counting(self) -> Iterator[CountBlock]:
        """Open all volumes; yield the function that measures the pairs of a block."""
        with self.reading() as read:

            def count(block: Block, report: BlockReport) -> Pairs:
                box = block.write_box
                with report.measure("read"):
                    compared = read(box)
                with report.measure("compute"):
                    return measure_pairs(**compared._asdict(), offset=box.offset)

            yield count

    def stored(self, blocks: Iterable[Block]) -> Iterator[Pairs]:
        """Yield the pairs of blocks that are done."""
        (spec,) = self.output_specs()
        tables = BlockTables(spec.path)
        for block in blocks:
            columns = tables.read(block.key)
            yield Pairs(**columns | {"counts": columns["counts"] != 0})

    @contextmanager
    def reading(self) -> Iterator[ReadCompared]:
        """Open all volumes; yield the function that reads a box of voxels of the region."""
        frame = self._layout.frame
        specimen = None if self.mask is None else open_mask(self.mask)
        metric = [open_mask(path) for path in self.metric_masks]
        with self._opened() as (prediction, truth):

            def read(box: Box) -> Compared:
                predicted, true = (
                    nearest(labels.read, labels.place, frame, box) for labels in (prediction, truth)
                )
                known, true = self._known(true, [read_mask(mask, frame, box) for mask in metric])
                predicted = without_marks(predicted)
                if specimen is not None:
                    inside = read_mask(specimen, frame, box)
                    predicted, true = (np.where(inside, ids, 0) for ids in (predicted, true))
                    known = inside if known is None else known & inside
                return Compared(predicted, true, known)

            yield read

    def _known(
        self, truth: np.ndarray, masks: list[np.ndarray]
    ) -> tuple[np.ndarray | None, np.ndarray]:
        """Return where truth is known, and the ids of its objects."""
        unknown = is_unknown(truth)
        for id in self.ignore:
            unknown |= truth == id
        if unknown.any():
            truth = np.where(unknown, truth.dtype.type(0), truth)
        for mask in masks:
            unknown |= ~mask
        return (~unknown if unknown.any() else None), without_marks(truth)

    def opened_raw(self) -> Volume | None:
        """Open the image of the pictures, if there is one; raises `ConfigError` if it has channels."""
        raw = None if self.raw is None else Volume.open(self.raw)
        if raw is not None and raw.channels is not None:
            raise ConfigError(
                f"The image {self.raw} has {raw.channels} channels, but the pictures show one grey "
                "value per voxel. Name a volume of one array (z, y, x)."
            )
        return raw

    @contextmanager
    def _opened(self) -> Iterator[list[Labels]]:
        """Prediction and truth, both with a frame."""
        with ExitStack() as stack:
            volumes = [
                stack.enter_context(open_labels(path, negative=negative))
                for path, negative in (
                    (self.prediction, SIGNED), (self.truth, (*SIGNED, *self.ignore))
                )
            ]
            check_placeable(*volumes, self.roi)
            yield placed(volumes)

    @cached_property
    def _layout(self) -> _Layout:
        with self._opened() as (prediction, truth):
            roi = None if self.roi is None else Roi(self.roi.offset, self.roi.shape)
            frame, shape = compared_region(prediction, truth, roi)
            inner = Box.between(self.margin, np.subtract(shape, self.margin).tolist())
            if not inner.size:
                raise ConfigError(
                    f"Nothing is left of {shape} voxels (zyx) within a margin of {self.margin}. Use a "
                    "smaller one."
                )
            return _Layout(
                Frame(frame.voxel_size, frame.to_roi(inner).offset), inner.shape,
                prediction.chunk_shape,
                identities(prediction, truth, self.metric_masks, self.mask),
            )
