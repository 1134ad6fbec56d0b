"""Count the voxels in which a predicted mask and truth agree: the blockwise part of an evaluation."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import Annotated, ClassVar, Literal, NamedTuple, Self

import numpy as np
from pydantic import Field, model_validator

from em_blocks.config import RoiConfig, Shape3, StorePath, VolumeRef
from em_blocks.geometry import Block, BlockGrid, Frame, Roi, Triple
from em_blocks.kernels.evaluation.mask_scores import count_levels
from em_blocks.kernels.transforms.thresholds import levels_reached, stored_thresholds
from em_blocks.outputs import RunContext, TableOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.evaluation.compared import check_placeable, compared_region, identities
from em_blocks.tasks.evaluation.count_overlaps import Id, usual_block
from em_blocks.tasks.masks import open_mask, read_mask
from em_blocks.volumes import Volume
from em_blocks.volumes.labels import check_sample, placed
from em_blocks.volumes.nearest import nearest
from em_blocks.volumes.predictions import (
    Prediction,
    check_prediction,
    id_of,
    open_ids,
    open_prediction,
)
from em_blocks.volumes.stores import store
from em_blocks.volumes.stores.tables import BlockTables, Columns
from em_blocks.volumes.values import is_file

Probability = Annotated[float, Field(gt=0, le=1)]
CountBlock = Callable[[Block, BlockReport], np.ndarray]

DEFAULT_THRESHOLD = 0.5
_TABLE = "counts"


class _Layout(NamedTuple):
    """What is compared: the region that both volumes cover."""

    frame: Frame
    shape: Triple
    chunk_shape: Triple
    identities: dict
    is_ids: bool
    section: int


class CountMask(BlockwiseTask):
    """Count the voxels that a prediction and truth call object, one table per block.

    A table has one row for every section and every number of thresholds that its voxels reach:
    section (from the first that is compared), level, and the voxels of object and background, those
    that the metric masks exclude apart. If voxels of one volume are whole multiples of those of the
    other, the smaller ones are counted.
    """

    reads: ClassVar[tuple[str, ...]] = ("prediction", "truth", "metric_masks")

    fits_block: ClassVar[bool] = False

    kind: Literal["count_mask"]
    prediction: VolumeRef = Field(
        description="Probabilities (uint8, uint16 with the attribute scale, or float in 0..1), a mask, "
        "or ids, of which every one but 0 is an object: path.zarr/dataset, file.h5:dataset, or a file "
        ".npy, .tif, .mrc, .nii or .xz."
    )
    channel: int | str | None = Field(
        None, description="Channel of the prediction, by its number or its class."
    )
    threshold: Probability | None = Field(
        None, description="From this probability on a voxel is of the object. Default: 0.5; a mask and "
        "ids have none."
    )
    thresholds: tuple[Probability, ...] = Field(
        (), description="Thresholds that are scored as well, for a curve."
    )
    ids: tuple[Id, ...] | None = Field(
        None, description="Ids of the prediction that are objects. Default: all but 0."
    )
    truth: VolumeRef = Field(description="True mask or ids, in the same formats.")
    truth_ids: tuple[Id, ...] | None = Field(
        None, description="Ids of truth that are objects. Default: all but 0."
    )
    ignore: tuple[Id, ...] = Field(
        (), description="Voxels with one of these ids in truth are not scored: nothing is known there."
    )
    metric_masks: tuple[VolumeRef, ...] = Field(
        (), description="Volumes of any voxel size; voxels where one of them is 0 do not count."
    )
    mask: VolumeRef | None = Field(
        None, description="Specimen, a volume of any voxel size: nothing is scored where it is 0."
    )
    roi: RoiConfig | None = Field(
        None, description="Region to compare, nm (z, y, x). Default: all that both volumes cover."
    )
    output: StorePath = Field(description="Folder of tables, scores and pictures.")
    block_shape: Shape3 | None = Field(
        None, description="Voxels (z, y, x) that are counted at once. Default: whole chunks of the "
        "prediction, about 8 million voxels."
    )

    @model_validator(mode="after")
    def _threshold_or_ids(self) -> Self:
        if self.ids is not None and (self.threshold is not None or self.thresholds):
            raise ValueError("give either `ids`, which have no threshold, or `threshold`s")
        return self

    def grid(self) -> BlockGrid:
        layout = self._layout
        block_shape = self.block_shape or usual_block(layout.chunk_shape)
        return BlockGrid(layout.frame, layout.shape, block_shape)

    def inputs(self) -> dict:
        return self._layout.identities

    def output_specs(self) -> list[TableOutput]:
        return [TableOutput(_TABLE, store.join(self.output, "tables", _TABLE))]

    def outputs_root(self) -> str:
        return self.output

    def stored_config(self) -> dict:
        # Ids go up to 2**64 - 1; integers of MongoDB end at 2**63.
        ids = {key: [str(id) for id in value] for key in ("ids", "truth_ids", "ignore")
               if (value := getattr(self, key)) is not None}
        return super().stored_config() | ids

    def check(self) -> None:
        """Raise an `EmBlocksError` for values that cannot be compared, and masks that are none."""
        self._masks()
        with self._opened() as (prediction, truth):
            check_prediction(prediction)
            check_sample(truth)

    @cached_property
    def all_thresholds(self) -> tuple[float, ...]:
        """All thresholds that are scored, ascending; none of a mask or ids."""
        if self._layout.is_ids:
            return ()
        return tuple(sorted({self.main_threshold or DEFAULT_THRESHOLD, *self.thresholds}))

    @property
    def main_threshold(self) -> float | None:
        """The threshold that the result is named by; None of a mask or ids."""
        return None if self._layout.is_ids else self.threshold or DEFAULT_THRESHOLD

    @property
    def n_levels(self) -> int:
        """Return 1 + the number of thresholds; 2 of a mask or ids."""
        return 1 + max(1, len(self.all_thresholds))

    @property
    def first_section(self) -> int:
        """Number of the first compared section in truth, from 0."""
        return self._layout.section

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        (spec,) = self.output_specs()
        tables = BlockTables(spec.path)
        with self.counting() as count:

            def process(block: Block, report: BlockReport) -> None:
                counts = count(block, report)
                report.counts["voxels"] = int(counts.sum())
                with report.measure("write"):
                    columns = _columns(counts, block.write_box.offset[0])
                    report.write_table(_TABLE, tables, block, columns)

            yield process

    @contextmanager
    def counting(self) -> Iterator[CountBlock]:
        """Open all volumes; yield the function that counts a block: (z, levels, 2, 2) voxels."""
        frame = self._layout.frame
        specimen, metric = self._masks()
        with self._opened() as (prediction, truth):
            levels_of = self._levels(prediction)

            def count(block: Block, report: BlockReport) -> np.ndarray:
                box = block.write_box
                with report.measure("read"):
                    labels = nearest(truth.read, truth.place, frame, box)
                    levels = nearest(levels_of, prediction.place, frame, box)
                    known = [read_mask(mask, frame, box) for mask in specimen]
                    included = [read_mask(mask, frame, box) for mask in metric]
                with report.measure("compute"):
                    if self.ignore:
                        known.append(~_among(labels, self.ignore))
                    return count_levels(
                        levels, _among(labels, self.truth_ids), n_levels=self.n_levels,
                        known=_all_of(known), included=_all_of(included),
                    )

            yield count

    def _levels(self, prediction: Prediction) -> Callable:
        """Return the function that reads how many thresholds the voxels of a box reach."""
        if prediction.scale is None:
            _, ids = self._chosen
            return lambda box: _among(prediction.read_checked(box), ids).astype(np.uint8)
        stored = stored_thresholds(
            self.all_thresholds, dtype=prediction.dtype, scale=prediction.scale
        )
        return lambda box: levels_reached(prediction.read_checked(box), stored)

    def _masks(self) -> tuple[list[Volume], list[Volume]]:
        """Open the specimen, if there is one, and the metric masks."""
        specimen = [] if self.mask is None else [open_mask(self.mask)]
        return specimen, [open_mask(path) for path in self.metric_masks]

    def stored(self, blocks: Iterable[Block]) -> Iterator[tuple[int, np.ndarray]]:
        """Yield the counts (z, levels, 2, 2) of blocks that are done, with their first section."""
        (spec,) = self.output_specs()
        tables = BlockTables(spec.path)
        for block in blocks:
            box = block.write_box
            yield box.offset[0], _counts(tables.read(block.key), box.offset[0], box.shape[0],
                                         self.n_levels)

    @contextmanager
    def _opened(self) -> Iterator[tuple[Prediction, Prediction]]:
        """Prediction and truth, both with a frame."""
        thresholded = self.threshold is not None or bool(self.thresholds)
        channel, ids = self._chosen
        with ExitStack() as stack:
            found = stack.enter_context(open_prediction(
                self.prediction, channel=channel, thresholded=thresholded, ids=ids
            ))
            named = self.ignore if self.truth_ids is None else None
            truth = stack.enter_context(open_ids(self.truth, named=named))
            check_placeable(found, truth, self.roi)
            prediction, truth = placed([found, truth])
            yield prediction, truth

    @cached_property
    def _chosen(self) -> tuple[int | str | None, tuple[int, ...] | None]:
        """The channel to read and the ids that are objects: a class may be either."""
        if isinstance(self.channel, str) and not is_file(self.prediction):
            volume = Volume.open(self.prediction)
            if volume.channels is None and volume.attributes.get("labels") is True:
                return None, (id_of(volume, self.channel),)
        return self.channel, self.ids

    @cached_property
    def _layout(self) -> _Layout:
        with self._opened() as (prediction, truth):
            roi = None if self.roi is None else Roi(self.roi.offset, self.roi.shape)
            frame, shape = compared_region(prediction, truth, roi)
            return _Layout(
                frame, shape, prediction.chunk_shape,
                identities(prediction, truth, self.metric_masks, self.mask),
                prediction.scale is None,
                round((frame.offset[0] - truth.place.offset[0]) / frame.voxel_size[0]),
            )


def _among(labels: np.ndarray, ids: tuple[int, ...] | None) -> np.ndarray:
    """Return where a volume holds one of the ids, or any but 0 where none are named."""
    if ids is None:
        return labels != 0
    found = np.zeros(labels.shape, bool)
    limits = np.iinfo(labels.dtype) if labels.dtype.kind in "ui" else None
    for id in ids:  # a few: np.isin would make a copy of 64-bit ids first
        if limits is None or limits.min <= id <= limits.max:
            found |= labels == id
    return found


def _all_of(masks: list[np.ndarray]) -> np.ndarray | None:
    """Return where all masks hold; None without any."""
    return np.logical_and.reduce(masks) if masks else None


def _columns(counts: np.ndarray, first: int) -> Columns:
    """Return counts (z, levels, 2, 2) as a table; `first` is the number of their first section."""
    section, level = np.nonzero(counts.any(axis=(2, 3)))
    rows = counts[section, level]
    return {
        "section": section + first, "level": level, "object": rows[:, 1, 1],
        "background": rows[:, 1, 0], "excluded_object": rows[:, 0, 1],
        "excluded_background": rows[:, 0, 0],
    }


def _counts(table: Columns, first: int, n_sections: int, n_levels: int) -> np.ndarray:
    """Return the table of a block as counts (z, levels, 2, 2)."""
    counts = np.zeros((n_sections, n_levels, 2, 2), np.int64)
    place = table["section"] - first, table["level"]
    for name, included, is_object in (
        ("object", 1, 1), ("background", 1, 0), ("excluded_object", 0, 1),
        ("excluded_background", 0, 0),
    ):
        counts[(*place, included, is_object)] = table[name]
    return counts
