"""Put a threshold on probabilities: a volume of class ids."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from functools import cached_property
from typing import ClassVar, Literal

import numpy as np
from pydantic import Field

from em_blocks.config import RoiConfig, Shape3, StorePath, VolumeRef
from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, BlockGrid, Box, Frame
from em_blocks.kernels.transforms.thresholds import highest_reached, stored_thresholds
from em_blocks.outputs import RunContext, VolumeOutput
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.components.find_parts import identity_of
from em_blocks.tasks.masks import open_mask, read_mask
from em_blocks.tasks.objects.threshold_options import ThresholdOptions
from em_blocks.tasks.region import region_of
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import Format, block_shards
from em_blocks.volumes.predictions import (
    BACKGROUND,
    CLASSES,
    Prediction,
    channel_of,
    check_prediction,
    names_of,
    open_prediction,
)
from em_blocks.volumes.stores import store
from em_blocks.volumes.values import Values, describe, placed_values


class Threshold(ThresholdOptions, BlockwiseTask):
    """Mark the voxels whose probability reaches a threshold, with the number of their class.

    The output is uint8: 0 is background, 1 the first of `channels`, 2 the second. Where several
    classes reach their thresholds, the most probable one counts, the first of equal ones.
    """

    reads: ClassVar[tuple[str, ...]] = ("prediction",)

    kind: Literal["threshold"]
    mask: VolumeRef | None = Field(
        None, description="Specimen, a volume of any voxel size; outside of it everything is 0."
    )
    roi: RoiConfig | None = Field(None, description="Region, nm (z, y, x). Default: all.")
    output: StorePath = Field(description="Array to make, e.g. data/mitochondria.zarr/mask.")
    chunk_shape: Shape3 = Field((64, 64, 64), description="Voxels (z, y, x).")
    format: Format = "zarr"

    def grid(self) -> BlockGrid:
        return BlockGrid(*self.place, self.block_shape)

    @cached_property
    def place(self) -> tuple[Frame, tuple[int, int, int]]:
        """Frame and shape, voxels (z, y, x), of the region."""
        return region_of(self.prediction, self.roi)

    def inputs(self) -> dict:
        mask = {} if self.mask is None else {"mask": identity_of(open_mask(self.mask))}
        volume = self._volume
        return {
            "prediction": {
                **identity_of(volume), **volume.identity, "scale": volume.scale,
                "channels": self._numbers,
            },
            **mask,
        }

    def output_specs(self) -> list[VolumeOutput]:
        return [
            VolumeOutput(
                "mask", self.output, "uint8", self.chunk_shape, format=self.format,
                shard_shape=block_shards(self.format, self.block_shape), compression=0.05,
                attributes={"labels": True} | ({CLASSES: self.names} if self.names else {}),
            )
        ]

    def outputs_root(self) -> str:
        return store.container(self.output)

    def check(self) -> None:
        """Raise an `EmBlocksError` unless these are probabilities of the named classes."""
        with self._opened() as predictions:
            self._stored(predictions)
            for prediction in predictions:
                check_prediction(prediction)

    @cached_property
    def names(self) -> list[str]:
        """The classes of the ids 1, 2, ...; none if the volume names none."""
        names = names_of(self._volume)
        if not names:
            return []
        return [names[number or 0] or BACKGROUND for number in self._numbers]

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        output = Volume.open(self.output, mode="r+")
        specimen = None if self.mask is None else open_mask(self.mask)
        frame = self.place[0]
        with self._opened() as predictions:
            stored = self._stored(predictions)

            def process(block: Block, report: BlockReport) -> None:
                box = block.write_box
                with report.measure("compute"):  # one channel is read after the other
                    found = highest_reached(self._channels(predictions, box), stored)
                    if specimen is not None:
                        found[~read_mask(specimen, frame, box)] = 0
                with report.measure("write"):
                    report.write("mask", output, box, found)
                report.counts["voxels"] = int(np.count_nonzero(found))

            yield process

    def _channels(self, predictions: list[Prediction], box: Box) -> Iterator[np.ndarray]:
        frame = self.place[0]
        for prediction in predictions:
            yield prediction.read_checked(prediction.place.to_box(frame.to_roi(box)))

    def _stored(self, predictions: list[Prediction]) -> np.ndarray:
        """Return the threshold of each channel as it is stored."""
        return np.concatenate([
            stored_thresholds([threshold], dtype=prediction.dtype, scale=prediction.scale or 1.0)
            for threshold, prediction in zip(self._thresholds(), predictions, strict=True)
        ])

    def _thresholds(self) -> list[float]:
        if not isinstance(self.threshold, dict):
            return [self.threshold] * len(self._numbers)
        if self.threshold.keys() != set(self.names):
            raise ConfigError(
                f"'threshold' names the classes {', '.join(self.threshold)}, but the chosen ones of "
                f"{self.prediction} are {', '.join(self.names) or 'without names'}. Give one threshold "
                "for each of them, or one number for all."
            )
        return [self.threshold[name] for name in self.names]

    @cached_property
    def _numbers(self) -> list[int | None]:
        """Numbers of the channels; [None] of a volume without."""
        volume = self._volume
        if self.channels is not None:
            numbers = [channel_of(volume, channel) for channel in self.channels]
        elif volume.channels is None:
            numbers = [None]
        else:  # not the background of a softmax
            names = names_of(volume) or ["?"] * volume.channels
            numbers = [number for number, name in enumerate(names) if name]
        if len(set(numbers)) < len(numbers):
            raise ConfigError(f"'channels' names a channel twice: {list(self.channels or ())}.")
        return numbers

    @contextmanager
    def _opened(self) -> Iterator[list[Prediction]]:
        with ExitStack() as stack:
            yield [
                stack.enter_context(
                    open_prediction(self.prediction, channel=number, thresholded=True)
                )
                for number in self._numbers
            ]

    @cached_property
    def _volume(self) -> Values:
        return placed_values(describe(self.prediction))
