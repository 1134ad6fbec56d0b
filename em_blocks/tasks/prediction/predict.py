"""Apply a trained network to a raw volume, block by block."""

from __future__ import annotations

import logging
import math
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    PrivateAttr,
)

from em_blocks.config import LocalPath, RoiConfig, Shape3, StorePath, VolumeRef, is_url
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Triple
from em_blocks.models.normalization import Normalization, NormalizationChoice
from em_blocks.outputs import RunContext, VolumeOutput
from em_blocks.tasks.base import BlockReport, ProcessBlock
from em_blocks.tasks.prediction.checks import (
    check_heads,
    check_precision,
    check_raw,
    check_symmetries,
    check_tiles,
)
from em_blocks.tasks.prediction.domain import (
    check_finite,
    check_sample,
    check_voxel_size,
    contrast_remarks,
)
from em_blocks.tasks.prediction.options import Checkpoint, HeadOutput
from em_blocks.tasks.prediction.trained import OfTraining
from em_blocks.tasks.region import box_of
from em_blocks.tasks.usual_chunk import usual_chunk
from em_blocks.training.data.normalization import measured_normalization
from em_blocks.training.data.raw_sample import RawSample
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import block_shards

log = logging.getLogger(__name__)


class Predict(OfTraining):
    """Apply a trained setup to one raw volume."""

    worker_module: ClassVar[str] = "em_blocks.workers.predict_worker"
    concurrent_blocks: ClassVar[int] = 3  # one is read, one computed, one written
    operational: ClassVar[frozenset[str]] = OfTraining.operational | {
        "batch_size", "voxel_size_tolerance", "worker_memory_gb",
    }

    reads: ClassVar[tuple[str, ...]] = ("raw",)

    _chosen: dict | None = PrivateAttr(None)

    kind: Literal["predict"]
    raw: VolumeRef = Field(description="Raw volume: path or URL of the array.")
    roi: RoiConfig | None = Field(None, description="Region to predict; default: all of raw.")
    setup: LocalPath = Field(description="Folder with config.json and checkpoints/.")
    checkpoint: Checkpoint = Field(
        "best",
        description='"best", "latest", an iteration, or the path of a file, relative to the config.',
    )
    output: StorePath = Field(description="Container of the predictions: a local path or URL.")
    outputs: dict[str, HeadOutput] = Field(
        default_factory=dict, description="Heads to store; default: all, as uint8."
    )
    tile_shape: Shape3 | None = Field(
        None,
        description="Output voxels of one network pass. Default: the fastest multiple of the setup's "
        "that divides the block, timed once per run; the setup's where values depend on the tile.",
    )
    batch_size: PositiveInt | None = Field(
        None,
        description="Tiles in one network pass. Default: the fastest on a GPU, and on a CPU if tiles "
        "have at most 4 sections; else 1.",
    )
    worker_memory_gb: PositiveFloat | None = Field(
        None,
        description="Memory of one worker, which limits the tiles that are tried. Default: "
        "cluster.memory_gb, else its share of half of the machine.",
    )
    normalization: NormalizationChoice | None = Field(
        None,
        description='How raw is scaled for the network. "dtype": the whole range of its dtype (floats: '
        "0 to 1) becomes that of training. Default: as in training, refused for other intensities.",
    )
    voxel_size_tolerance: NonNegativeFloat = Field(
        0.01, description="Accepted difference from the voxel size of training, as a share of it."
    )
    padding: Literal["reflect", "constant"] = Field(
        "reflect", description="What the network sees beyond the raw volume."
    )
    test_time_augmentation: Literal["none", "mirrors", "mirrors_transposes"] = Field(
        "none", description="Average over 8 mirrors, or these and their transposes in the section."
    )
    overlap: tuple[NonNegativeInt, NonNegativeInt, NonNegativeInt] = Field(
        (0, 0, 0), description="Voxels that tiles share and blend, for networks that pad."
    )
    precision: Literal["fp32", "bf16", "fp16"] | None = Field(
        None,
        description="Default: the fastest of those that the device computes in hardware, timed once "
        "per run; fp32 where others gain less than 5 %.",
    )

    # -- what the blocks are ----------------------------------------------------------

    def outputs_root(self) -> str:
        return self.output

    @classmethod
    def locations(cls) -> set[str]:
        # The network is identified by its content, which is part of the inputs.
        return {"output", "setup", "checkpoint"}

    def memory_of_worker(self) -> float:
        return self.worker_memory_gb * 1e9 if self.worker_memory_gb else super().memory_of_worker()

    def block_unit(self) -> Triple:
        return tuple(t - o for t, o in zip(self.usual_tile, self.overlap, strict=True))

    def worker_bytes(self) -> float:
        # Half of what a worker may use is left to the passes of the network.
        return 2 * self.held_bytes()

    def held_bytes(self) -> float:
        """Return the bytes of the blocks that a worker holds: read, computed, and written."""
        out = sum(np.dtype(s.dtype).itemsize * (s.channels or 1) for s in self.output_specs())
        block = math.prod(self.block_shape) * out + math.prod(self.read_shape()) * 4
        return self.concurrent_blocks * block

    def grid(self) -> BlockGrid:
        return BlockGrid(self._frame, self._raw_box.shape, self.block_shape)

    def read_context(self) -> Triple:
        seen = self._seen_by_block()
        return tuple(
            max(-b, e - s) for b, e, s in zip(seen.offset, seen.end, self.block_shape, strict=True)
        )

    def read_reach(self) -> Triple:
        context = self.read_context()
        if not self._measures_raw:
            return context
        # Every block is scaled by the percentiles of the whole region.
        return tuple(c + s for c, s in zip(context, self._raw_box.shape, strict=True))

    def read_shape(self) -> Triple:
        return self._seen_by_block().shape

    def inputs(self) -> dict:
        raw = self._raw
        # Earlier versions laid tiles from the corner of the ROI, and their runs go on where that
        # makes no difference.
        anchored = {"tiles_from": "voxel 0 of raw"} if any(self._shift) else {}
        return {
            **anchored,
            "raw": {
                "shape": list(raw.shape), "dtype": str(raw.dtype),
                "voxel_size": list(raw.frame.voxel_size), "offset": list(raw.frame.offset),
            },
            "network": self._setup.fingerprint(self._checkpoint_path),
        }

    def outputs_by_head(self) -> dict[str, HeadOutput]:
        """The heads that are stored; all of them unless the config chooses."""
        return self.outputs or {name: HeadOutput() for name in self.heads}

    def output_specs(self) -> list[VolumeOutput]:
        return [self._spec(name, out) for name, out in self.outputs_by_head().items()]

    def _spec(self, name: str, out: HeadOutput) -> VolumeOutput:
        head = self.heads[name]
        chunk = out.chunk_shape or usual_chunk(self.block_shape)
        dtype = out.dtype or head.storage.dtype
        scale = out.scale or head.storage.scales.get(dtype)
        attributes = ({"scale": scale} if scale else {}) | head.storage.attributes
        return VolumeOutput(
            name=name, path=f"{self.output}/{out.dataset or name}", dtype=dtype,
            chunk_shape=chunk, channels=head.channels, format=out.format,
            shard_shape=block_shards(out.format, self.block_shape), attributes=attributes,
        )

    # -- checks -----------------------------------------------------------------------

    def check(self) -> None:
        check_heads(self)
        check_raw(self._raw)
        if is_url(self.output):
            _ = self.home  # run_dir is needed then
        check_voxel_size(self._raw, self._setup.config, self.voxel_size_tolerance)
        check_precision(self)
        check_tiles(self)
        check_symmetries(self, self._raw)
        self.network()  # loads the checkpoint: its errors come before the first worker

    def survey(self) -> None:
        remarks = check_sample(self._sample, self._raw, self._setup.config, self.normalization)
        for remark in (*remarks, *contrast_remarks(self._raw, self._setup.config)):
            log.warning(remark)

    # -- work -------------------------------------------------------------------------

    def alike(self) -> dict:
        from em_blocks.tasks.prediction.ways import alike

        return alike(self)

    def measure(self, earlier: dict | None = None) -> dict:
        """Precision, tile and normalisation, the same for all blocks and all starts of the run."""
        return {
            **self._way(earlier),
            "normalization": self._measured_normalization(self._sample),
        }

    def measured_anew(self, measured: dict) -> dict:
        sample = RawSample(self._raw, self._raw_box)
        return {**measured, "normalization": self._measured_normalization(sample)}

    def _measured_normalization(self, sample: RawSample) -> dict[str, float]:
        return measured_normalization(
            sample, self._raw, self._setup.config, self.normalization
        )

    @property
    def _measures_raw(self) -> bool:
        """Tell whether the scale of every block follows from a sample of all raw."""
        return self.normalization is not None and not isinstance(self.normalization, Normalization)

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        """Load the network once per worker; yield the block function."""
        from em_blocks.tasks.prediction.predictor import predictor_of

        volumes = {s.name: Volume.open(s.path, mode="r+") for s in self.output_specs()}
        raw, anchor = self._raw, self._anchor
        predictor = predictor_of(self, context.measured)
        computing = threading.Lock()  # one block computes while others are read and written

        def process(block: Block, report: BlockReport) -> None:
            # In voxels from the anchor, where the tiles begin.
            placed = block.write_box.shift(self._shift)
            begin, end = placed.offset, placed.end
            with report.measure("read"):
                seen = Box.between(*predictor.input_box(begin, end)).shift(anchor)
                values = raw.read(seen, outside=self.padding)
                check_finite(raw, seen, values)
            with computing, report.measure("compute"):
                outputs, saturated = predictor.predict(values, begin, end)
            with report.measure("write"):
                for name, array in outputs.items():
                    report.write(name, volumes[name], block.write_box, array)
            report.counts["saturated"] = saturated

        yield process

    def said(self, measured: dict) -> str | None:
        from em_blocks.tasks.prediction.ways import said

        return said(measured)

    def _seen_by_block(self) -> Box:
        """Return the box that the tiles of a whole block read, in voxels from its first one."""
        from em_blocks.kernels.transforms.tiles import tile_offsets

        block = Box(self._shift, self.block_shape)
        # Tiles that are whole parts of a block read alike; others at most as one of the whole block.
        free = self.tile_shape is None and self.tiles_are_free and any(self._shift)
        tile = self.block_shape if free else self.usual_tile
        offsets = tile_offsets(block.offset, block.end, tile, self.overlap)
        end = tuple(o + t for o, t in zip(offsets[-1], tile, strict=True))
        return Box.between(offsets[0], end).grow(self.bare_network.context).relative_to(block)

    @property
    def tiles_are_free(self) -> bool:
        """Tell whether a voxel's value does not depend on where in its tile it lies."""
        network = self.bare_network
        valid = any(network.context) and hasattr(network, "tile_factor")
        return valid and self.test_time_augmentation == "none"

    @property
    def _tile_unit(self) -> Triple:
        """Voxels by which tiles may be moved without a change of any value.

        That of a valid network is the product of its poolings. What a network that pads computes
        depends on where its tiles begin, and so do turned affinities: some have their other voxel
        beyond the tile, and fewer of them are averaged there.
        """
        if self.tiles_are_free:
            return self.bare_network.tile_factor
        return tuple(t - o for t, o in zip(self.usual_tile, self.overlap, strict=True))

    @cached_property
    def _shift(self) -> Triple:
        """Voxels from where tiles begin to the first voxel that is predicted.

        Tiles begin at voxels of raw, not of the ROI, that are multiples of `_tile_unit`: whatever the
        ROI is, a voxel gets the same value, to the bit, because tiles of one shape give the same.
        """
        return tuple(o % u for o, u in zip(self._raw_box.offset, self._tile_unit, strict=True))

    @property
    def _anchor(self) -> Triple:
        """The voxel of raw where tiles begin."""
        return self._raw_box.shift(tuple(-s for s in self._shift)).offset

    # -- opened once ------------------------------------------------------------------
    # torch is imported where it is used: `em-blocks status` reads configs without it.

    @cached_property
    def _raw(self) -> Volume:
        return Volume.open(self.raw)

    @cached_property
    def _sample(self) -> RawSample:
        return RawSample(self._raw, self._raw_box)

    @cached_property
    def _raw_box(self) -> Box:
        """The ROI in voxels of the raw volume."""
        return box_of(self.roi, self._raw, "raw volume")

    @cached_property
    def _frame(self) -> Frame:
        return Frame(
            self._raw.frame.voxel_size, self._raw.frame.to_roi(self._raw_box).offset
        )

    @cached_property
    def _setup(self):
        from em_blocks.models.setup import Setup

        return Setup.from_folder(self.setup)

    @cached_property
    def _checkpoint_path(self) -> Path:
        return self._setup.checkpoint_path(self.checkpoint)

    @cached_property
    def bare_network(self):
        """The network without its weights, for sizes."""
        return self._setup.build()

    def network(self):
        """Return the network with its weights."""
        return self._setup.load(self._checkpoint_path)

    def _way(self, earlier: dict | None) -> dict:
        from em_blocks.tasks.prediction.ways import choose_way

        if self._chosen is None:  # timed once, for all copies of this task too
            self._chosen = choose_way(self, earlier)
        return self._chosen

    @property
    def heads(self):
        """The heads of the setup by name."""
        return self._setup.config.heads

    def tiles_per_block(self, tile: Triple) -> int:
        """Tiles of a block that begins where one of them does."""
        return math.prod(-(-b // t) for b, t in zip(self.block_shape, tile, strict=True))

    def trained_normalization(self) -> dict[str, float]:
        """Scale and shift of training."""
        return self._setup.config.normalization.model_dump()

    @property
    def network_context(self) -> Triple:
        """Voxels (z, y, x) per side that the network sees beyond a tile."""
        return tuple(self.bare_network.context)

    @property
    def network_precisions(self) -> tuple[str, ...]:
        """Precisions that the network can be computed in."""
        return getattr(self.bare_network, "precisions", ("fp32", "bf16", "fp16"))

    @property
    def usual_tile(self) -> Triple:
        """The tile of the config, else of the setup."""
        return self.tile_shape or self._setup.config.tile_shape
