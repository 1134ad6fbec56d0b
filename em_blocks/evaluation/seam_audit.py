"""Measure what blockwise cutting costs a segmentation: windows at random seams, segmented again.

Fragments never cross a tile, so the faces between tiles are the seams. Around a sampled face a
window is segmented as one tile, and compared with what is stored. Both differ even where there is
no seam: the window ends somewhere, and the stored segments were agglomerated with the whole volume
in view. So every seam has a control, the same in the middle of the tile before it; what cutting
costs is the seam less its control.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.geometry import BlockGrid, Box, Frame, Triple
from em_blocks.kernels.evaluation.seams import (
    Comparison,
    Estimate,
    compare,
    disagreement,
    ratio,
    ratio_difference,
    renamed_like,
)
from em_blocks.kernels.plots.sections import grey_picture, overlay_picture, panel
from em_blocks.kernels.segmentation.neighborhood import FULL
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.segmentation.affinity_input import AffinityInput
from em_blocks.tasks.segmentation.segment import Segment
from em_blocks.volumes import Volume
from em_blocks.volumes.metadata.attributes import MEANINGS

THINNEST = 4  # voxels of a tile: half of one on both sides of a plane must be something
SEAM_COLOUR = (255, 220, 0)
_TRIES = 20  # faces looked at per face wanted, since many may lie where there is no tissue


@dataclass(frozen=True)
class Place:
    """A box that is compared, halved by a plane: of the seam, or of its control."""

    box: Box
    axis: int
    plane: int  # first voxel behind it, counted in the volume


@dataclass(frozen=True)
class Sample:
    """One seam, and the same in the middle of the tile before it."""

    seam: Place
    control: Place
    at_seam: Comparison
    at_control: Comparison

    @property
    def excess(self) -> int:
        """Pairs on which both disagree across the seam."""
        return self.at_seam.split + self.at_seam.merged


class SeamAuditor:
    """Segments windows of a volume again, and compares them with its stored segmentation.

    Memory, and room in a temporary folder: one window, which is three halves of a tile and twice
    the context along every axis.

    Parameters
    ----------
    config : Segment
        Of a run that is done.
    threshold : float
        Which of its segmentations is audited.
    """

    def __init__(self, config: Segment, threshold: float):
        self.config, self.threshold = config, threshold
        self.tile = config.tile_shape or config.block_shape
        self.stored = Volume.open(config.segments_path(threshold))

    def samples(self, n: int, *, seed: int) -> Iterator[Sample]:
        """Up to `n` samples at random seams; seams with nothing segmented around are left out.

        Raises
        ------
        ConfigError
            If the volume has no seam.
        """
        for seam, control in itertools.islice(self._not_empty(n, seed), n):
            yield Sample(seam, control, *map(self.compare, (seam, control)))

    def compare(self, place: Place) -> Comparison:
        """The stored segmentation of a place beside a seamless one."""
        return compare(
            self.stored.read(place.box), self.seamless(place.box), axis=place.axis,
            plane=place.plane - place.box.offset[place.axis],
        )

    def seamless(self, box: Box) -> np.ndarray:
        """Segments of `box`, (z, y, x) uint64, from a window around it that is not cut."""
        context = self.config.context or self._input.neighborhood.reach
        # Edges that a mutex watershed uses at a stride only: the same as in the tiles.
        strides = getattr(self.config.fragments, "strides", (1, 1, 1))
        margin = (
            t // 2 + c + (o - t // 2 - c) % s
            for t, c, o, s in zip(self.tile, context, box.offset, strides, strict=True)
        )
        window = box.grow(tuple(margin)).intersect(self._input.volume.box)
        with TemporaryDirectory(prefix="em_blocks_audit_") as folder:
            segments = self._segmented(window, Path(folder))
        return segments[box.relative_to(window).slices]

    def background(self, box: Box, raw: str | None) -> np.ndarray:
        """Return what segments are drawn on, (z, y, x) in 0..1: raw, or mean direct affinities."""
        if raw is None:
            direct = self._input.read(box)[self._input.neighborhood.direct]
            return direct.mean(axis=0, dtype=np.float32) / FULL
        volume = Volume.open(raw)
        return volume.read(self.stored.frame.to_roi(box), outside="constant") / np.float32(255)

    # -- where ------------------------------------------------------------------------------

    def _not_empty(self, n: int, seed: int) -> Iterator[tuple[Place, Place]]:
        counts = [self._n_faces(axis) for axis in range(3)]
        total = sum(counts)
        if not total:
            raise ConfigError(
                f"{self._input.volume.path} of {self._input.volume.shape} voxels has no seam that can "
                f"be audited: it takes two tiles of {self.tile} voxels (zyx) side by side, each of at "
                f"least {THINNEST} voxels across the seam. Nothing was cut, or a smaller 'tile_shape' "
                "is needed to see what cutting costs."
            )
        rng = np.random.default_rng(seed)
        for number in rng.choice(total, min(total, _TRIES * n), replace=False).tolist():
            axis = int(np.searchsorted(np.cumsum(counts), number, side="right"))
            places = self._places(axis, number - sum(counts[:axis]))
            if all(self.stored.read(place.box).any() for place in places):
                yield places

    def _n_faces(self, axis: int) -> int:
        if self.tile[axis] < THINNEST:
            return 0
        return math.prod(self._face_grid(axis))

    def _face_grid(self, axis: int) -> Triple:
        return tuple(n - (a == axis) for a, n in enumerate(self._tiles.shape))

    def _places(self, axis: int, number: int) -> tuple[Place, Place]:
        """Half a tile around the middle of a face, and of the tile before it."""
        index = tuple(int(i) for i in np.unravel_index(number, self._face_grid(axis)))
        behind = tuple(i + (a == axis) for a, i in enumerate(index))
        tile = self._tiles.block(index).write_box
        both = Box.between(tile.offset, self._tiles.block(behind).write_box.end)
        middle = [(o + e) // 2 for o, e in zip(tile.offset, tile.end, strict=True)]
        on_face = [tile.end[axis] if a == axis else m for a, m in enumerate(middle)]
        return (
            Place(self._around(on_face).intersect(both), axis, on_face[axis]),
            Place(self._around(middle).intersect(tile), axis, middle[axis]),
        )

    def _around(self, center: Sequence[int]) -> Box:
        halves = [max(1, t // 4) for t in self.tile]
        return Box.between(
            (c - h for c, h in zip(center, halves, strict=True)),
            (c + h for c, h in zip(center, halves, strict=True)),
        )

    # -- what -------------------------------------------------------------------------------

    def _segmented(self, window: Box, folder: Path) -> np.ndarray:
        """Segments of a window, by the steps that made the stored ones, as a single block."""
        volume = self._input.volume
        frame = Frame(volume.frame.voxel_size, volume.frame.to_roi(window).offset)
        copy = Volume.create(
            str(folder / "affinities.zarr"), shape=window.shape, dtype=volume.dtype, frame=frame,
            chunk_shape=window.shape, channels=volume.channels,
            # What says how to read the values; the others say where the whole volume lies.
            attributes={key: volume.attributes[key] for key in volume.attributes.keys() & set(MEANINGS)},
        )
        copy.write(copy.box, volume.read(window))
        whole = dict.fromkeys(("block_shape", "tile_shape", "chunk_shape"), window.shape)
        config = Segment.from_dict({
            **self.config.model_dump(mode="json"), **whole, "affinities": copy.path,
            "output": str(folder / "segmentation.zarr"), "run_dir": str(folder), "format": "zarr",
            "context": self.config.context or self._input.neighborhood.reach,
            "thresholds": [self.threshold],
        })
        for step in config.steps():
            for output in step.output_specs():
                output.create(step.grid(), fingerprint="window")
            with step.open(RunContext(step.measure())) as process:
                for block in step.grid().blocks():
                    process(block, BlockReport())
        segments = Volume.open(config.segments_path(self.threshold))
        return segments.read(segments.box)

    @cached_property
    def _tiles(self) -> BlockGrid:
        volume = self._input.volume
        return BlockGrid(volume.frame, volume.shape, self.tile)

    @cached_property
    def _input(self) -> AffinityInput:
        return AffinityInput.open(self.config.affinities, self.config.neighborhood)


RATES = {
    "disagreement": (lambda c: c.split + c.merged, lambda c: c.pairs),
    "split_by_the_seam": (lambda c: c.split, lambda c: c.joined),
    "merged_by_the_seam": (lambda c: c.merged, lambda c: c.apart),
    "voi_split": (lambda c: c.voi.split, lambda c: 1),
    "voi_merge": (lambda c: c.voi.merge, lambda c: 1),
}
"""Figure by name: what is counted in a window, and among how many. VOI in bits."""


@dataclass(frozen=True)
class Rate:
    """One figure of all samples."""

    seam: Estimate
    control: Estimate
    cost: Estimate  # seam less control


def rates(samples: Sequence[Sample]) -> dict[str, Rate]:
    """All figures, with errors from the differences between windows."""
    found = {}
    for name, (count, total) in RATES.items():
        columns = [
            [measure(getattr(sample, where)) for sample in samples]
            for where in ("at_seam", "at_control") for measure in (count, total)
        ]
        found[name] = Rate(ratio(*columns[:2]), ratio(*columns[2:]), ratio_difference(*columns))
    return found


def worst(samples: Sequence[Sample]) -> list[Sample]:
    """Samples that disagree across the seam, those with the largest share of pairs first."""
    found = [sample for sample in samples if sample.excess]
    return sorted(found, key=lambda s: -s.excess / s.at_seam.pairs)


def report(auditor: SeamAuditor, samples: Sequence[Sample]) -> dict:
    """Everything that was found; positions nm (z, y, x), errors are standard errors."""
    return {
        "segments": auditor.stored.path,
        "threshold": auditor.threshold,
        "tile_shape": list(auditor.tile),
        "samples": len(samples),
        **{
            where: {
                key: sum(getattr(getattr(sample, f"at_{where}"), key) for sample in samples)
                for key in ("pairs", "joined", "split", "merged")
            }
            for where in ("seam", "control")
        },
        "rates": {
            name: {
                key: {"value": _number(found.value), "error": _number(found.error)}
                for key, found in vars(rate).items()
            }
            for name, rate in rates(samples).items()
        },
        "worst": [_as_json(auditor, sample) for sample in worst(samples)],
    }


def position_nm(auditor: SeamAuditor, place: Place) -> list[float]:
    """Middle of the plane of a place, nm (z, y, x)."""
    middle = [(o + e) / 2 for o, e in zip(place.box.offset, place.box.end, strict=True)]
    middle[place.axis] = place.plane
    frame = auditor.stored.frame
    return [
        o + m * v for o, m, v in zip(frame.offset, middle, frame.voxel_size, strict=True)
    ]


def _as_json(auditor: SeamAuditor, sample: Sample) -> dict:
    roi, found = auditor.stored.frame.to_roi(sample.seam.box), sample.at_seam
    return {
        "position_nm": position_nm(auditor, sample.seam), "across": "zyx"[sample.seam.axis],
        "roi_nm": {"offset": list(roi.offset), "shape": list(roi.shape)}, "pairs": found.pairs,
        "joined": found.joined, "split": found.split, "merged": found.merged,
        "voi_split": found.voi.split, "voi_merge": found.voi.merge,
    }


def _number(value: float) -> float | None:
    """JSON knows no nan."""
    return value if math.isfinite(value) else None


def seam_picture(auditor: SeamAuditor, place: Place, raw: str | None) -> np.ndarray:
    """A section across a seam, which runs down the middle: stored, and without the seam.

    Parameters
    ----------
    raw : str, optional
        Volume of grey values (uint8) of the same voxel size; else the mean direct affinity.

    Returns
    -------
    (y, x, 3) uint8 array
    """
    stored = auditor.stored.read(place.box)
    seamless = renamed_like(auditor.seamless(place.box), stored)
    line = place.plane - place.box.offset[place.axis]
    wrong = disagreement(stored, seamless, axis=place.axis, plane=line)
    # Along the other of the two axes of the plane; sections as they were cut, where that shows it.
    along = 1 if place.axis == 0 else 0
    at = int(wrong.sum(axis=1).argmax()) if wrong.any() else stored.shape[along] // 2
    section = tuple(at if axis == along else slice(None) for axis in range(3))
    row_nm, column_nm = (
        v for axis, v in enumerate(auditor.stored.frame.voxel_size) if axis != along
    )
    tall = max(1, round(row_nm / column_nm))

    def drawn(picture: np.ndarray) -> np.ndarray:
        picture = np.repeat(picture, tall, axis=0)
        ends = picture[:, line - 1 : line + 1] if place.axis == 2 else picture[line * tall - 1 :][:2]
        ends[::4, ::4] = SEAM_COLOUR
        return picture

    grey = auditor.background(place.box, raw)[section]
    title = ", ".join(f"{position:.10g}" for position in position_nm(auditor, place))
    return panel(
        {
            "raw" if raw else "mean affinity": drawn(grey_picture(grey)),
            "stored": drawn(overlay_picture(grey, stored[section])),
            "without the seam": drawn(overlay_picture(grey, seamless[section])),
        },
        title=f"seam across {'zyx'[place.axis]} at {title} nm (zyx)", pixel_nm=column_nm, width=384,
    )
