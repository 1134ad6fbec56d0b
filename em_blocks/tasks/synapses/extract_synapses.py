"""Synaptic partners from the predictions of a network, block by block, into the database."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import cached_property
from typing import ClassVar, Literal, Self

import numpy as np
from pydantic import Field, NonNegativeFloat, PositiveFloat, model_validator

from em_blocks.config import RoiConfig, VolumeRef, path_of
from em_blocks.db.schemas.base import Flags
from em_blocks.db.schemas.synapses import SYNAPSES
from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, BlockGrid, Box, Frame, Triple
from em_blocks.kernels.synapses.detection import Detections
from em_blocks.kernels.synapses.pairing import centers, pair, within_reach, without_duplicates
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.outputs import RowOutput, RunContext
from em_blocks.tasks.base import BlockReport, BlockwiseTask, ProcessBlock
from em_blocks.tasks.region import box_of
from em_blocks.tasks.synapses.detection_options import Components, Detection
from em_blocks.tasks.synapses.site_search import LeaveOut, Reasons, Sites, SiteSearch, inside
from em_blocks.volumes import Volume
from em_blocks.volumes.stores import store

Extent = tuple[PositiveFloat, PositiveFloat, PositiveFloat]


class ExtractSynapses(BlockwiseTask):
    """Detect sites in an indicator map, follow direction vectors to their partners, store the pairs.

    A pair belongs to the block that holds its detected site, wherever the partner is. Its id is the
    number of the site's voxel in the whole volume (z slowest), plus the first id that the run has
    reserved in the database. So the rows do not depend on the blocks.
    """

    reads: ClassVar[tuple[str, ...]] = ("indicator", "vectors",)

    kind: Literal["extract_synapses"]
    indicator: VolumeRef = Field(
        description="Volume (z, y, x): how sure the network is that a voxel is at a site."
    )
    vectors: VolumeRef = Field(
        description="Volume (3, z, y, x) of the same voxels: offset from a site to its partner, nm."
    )
    roi: RoiConfig | None = Field(None, description="Region of the sites. Default: all of the volume.")
    detection: Detection = Field(
        Components(), description="What is a site, where it is and how sure it is."
    )
    vector: Literal["site", "mean"] = Field(
        "site", description="Where the partner is: where the site's voxel points, or the mean of where "
        "the voxels of its component point."
    )
    min_distance_nm: NonNegativeFloat = Field(
        0.0, description="Pairs whose sites are nearer to each other are left out."
    )
    max_distance_nm: PositiveFloat | None = Field(
        None, description="Pairs whose sites are farther from each other are left out."
    )
    duplicate_distance_nm: NonNegativeFloat = Field(
        0.0, description="Of detected sites nearer to each other than this the best stays."
    )
    flip: bool = Field(
        False, description="Detected sites are presynaptic, and vectors lead to the postsynaptic ones."
    )
    context_nm: Extent = Field(
        (120.0, 120.0, 120.0), description="What a block reads around its own voxels, nm (z, y, x); "
        "more where a component is cut. Has no influence on the result."
    )
    max_extent_nm: Extent = Field(
        (2000.0, 2000.0, 2000.0), description="A component that extends over more, nm (z, y, x), is cut "
        "into pieces of at most this size, which have the flag truncated."
    )

    @model_validator(mode="after")
    def _distances_rise(self) -> Self:
        if self.max_distance_nm is not None and self.max_distance_nm < self.min_distance_nm:
            raise ValueError(
                f"max_distance_nm {self.max_distance_nm:g} is less than min_distance_nm "
                f"{self.min_distance_nm:g}, so no pair would be left; exchange them"
            )
        return self

    # -- what the blocks are --------------------------------------------------------------

    def grid(self) -> BlockGrid:
        frame = self._indicator.frame
        return BlockGrid(
            Frame(frame.voxel_size, frame.to_roi(self._box).offset), self._box.shape, self.block_shape
        )

    def inputs(self) -> dict:
        volumes = {"indicator": self._indicator, "vectors": self._vectors}
        return {
            name: {
                "shape": list(volume.shape), "dtype": str(volume.dtype), "scale": volume.scale,
                "voxel_size": list(volume.frame.voxel_size), "offset": list(volume.frame.offset),
                "made_by": volume.attributes.get("fingerprint"),
            }
            for name, volume in volumes.items()
        }

    def output_specs(self) -> list[RowOutput]:
        return [self._rows]

    def outputs_root(self) -> str:
        return store.container(path_of(self.indicator))

    @classmethod
    def locations(cls) -> set[str]:
        # The volumes are identified by the run that made them, which is part of the inputs.
        return {"indicator", "vectors"}

    def read_context(self) -> Triple:
        return self._search.context

    def read_reach(self) -> Triple:
        # Sites that may be better than those of a block lie so far outside.
        near = self._search.voxels((self.duplicate_distance_nm,) * 3)
        return tuple(n + f for n, f in zip(near, self._search.reach, strict=True))

    def read_shape(self) -> Triple:
        return Box((0, 0, 0), self.block_shape).grow(self.read_context()).shape

    # -- checks ---------------------------------------------------------------------------

    def check(self) -> None:
        indicator, vectors = self._indicator, self._vectors
        if indicator.channels not in (None, 1) or indicator.dtype.kind not in "uf":
            raise ConfigError(
                f"The indicator {indicator.path} has {indicator.channels or 'no'} channels of dtype "
                f"{indicator.dtype}, but how sure a network is comes as one array (z, y, x) of unsigned "
                "integers or floats. Name that volume of the prediction."
            )
        if vectors.channels != 3:
            raise ConfigError(
                f"The vectors {vectors.path} have {vectors.channels or 'no'} channels, but a direction "
                "is three numbers: (3, z, y, x), nm. Name that volume of the prediction."
            )
        _check_same_voxels(indicator, vectors)
        _check_scale("indicator", indicator)
        _check_scale("vectors", vectors)
        self.grid()  # the region must lie in the volume

    # -- the work -------------------------------------------------------------------------

    @contextmanager
    def open(self, context: RunContext) -> Iterator[ProcessBlock]:
        synapses = context.rows(SYNAPSES)
        first = synapses.reserve_ids(self._indicator.box.size)

        def process(block: Block, report: BlockReport) -> None:
            box = block.write_box.shift(self._box.offset)
            sites = self._sites(box, report)
            with report.measure("compute"):
                pairs, flags = self._pairs(sites, first)
            report.counts |= {"synapses": len(pairs)} | {n: int(f.sum()) for n, f in flags.items()}
            with report.measure("write"):
                report.write_rows(self._rows, synapses, block, pairs, flags)

        yield process

    def _sites(self, box: Box, report: BlockReport) -> Sites:
        """Return sites in `box` (voxels of the volume) that have a partner; count those left out."""
        around = self._search.voxels((self.duplicate_distance_nm,) * 3)
        found = self._search.within(box.grow(around).intersect(self._box), report)
        leave_out = LeaveOut(box, report.counts)
        report.counts["components"] = sum(int(inside(part.voxel, box).sum()) for part in found)
        found = [leave_out(part, self._unfit(part.detections)) for part in found]
        with report.measure("read"):
            vectors = [part.vectors(self._vectors, self.vector) for part in found]
        with report.measure("compute"):
            sites = Sites.of(found, vectors)
            sites = leave_out(sites, self._out_of_reach(sites.vector))
            sites = leave_out(sites, self._duplicates(sites))
            return sites.select(inside(sites.voxel, box))

    def _unfit(self, found: Detections) -> Reasons:
        rule = self.detection
        largest = np.inf if rule.max_size is None else rule.max_size
        lowest = -np.inf if rule.min_score is None else rule.min_score
        return {
            "too_small": found.size < rule.min_size,
            "too_large": found.size > largest,
            "low_score": found.score <= lowest,
        }

    def _out_of_reach(self, vectors: np.ndarray) -> Reasons:
        return {
            "too_short": ~within_reach(vectors, min_nm=self.min_distance_nm),
            "too_long": ~within_reach(vectors, max_nm=self.max_distance_nm),
        }

    def _duplicates(self, sites: Sites) -> Reasons:
        kept = without_duplicates(
            self._positions(sites), sites.score, distance_nm=self.duplicate_distance_nm
        )
        return {"duplicates": ~kept}

    def _pairs(self, sites: Sites, first_id: int) -> tuple[Synapses, Flags]:
        """Return rows and flags of sites; the id of the volume's first voxel is `first_id`."""
        position = self._positions(sites)
        pre, post = pair(position, sites.vector, flip=self.flip)
        partner = post if self.flip else pre
        roi = self._indicator.roi
        outside = ((partner < roi.offset) | (partner >= roi.end)).any(axis=1)
        number = np.ravel_multi_index(tuple(sites.voxel.T), self._indicator.shape)
        pairs = Synapses(id=number + first_id, pre=pre, post=post, score=sites.score, size=sites.size)
        return pairs, {"outside": outside, "truncated": sites.truncated}

    def _positions(self, sites: Sites) -> np.ndarray:
        frame = self._indicator.frame
        return centers(sites.voxel, offset=frame.offset, voxel_size=frame.voxel_size)

    # -- what is opened -------------------------------------------------------------------

    @cached_property
    def _indicator(self) -> Volume:
        return Volume.open(self.indicator)

    @cached_property
    def _vectors(self) -> Volume:
        return Volume.open(self.vectors)

    @cached_property
    def _search(self) -> SiteSearch:
        return SiteSearch(
            self._indicator, self.detection.rule(), self.context_nm, self.max_extent_nm
        )

    @cached_property
    def _box(self) -> Box:
        """Voxels of the volume whose sites are looked for."""
        return box_of(self.roi, self._indicator, "indicator")

    @cached_property
    def _rows(self) -> RowOutput:
        columns = ("id", "pre", "post", "score", "size", "flags")
        return RowOutput(
            "synapses", f"{self.db_name}.synapses", self.run, columns, SYNAPSES, self.database_folder
        )


def _check_same_voxels(indicator: Volume, vectors: Volume) -> None:
    """Raise `ConfigError` unless both have the same voxels."""
    if _places(indicator) != _places(vectors):
        raise ConfigError(
            f"The indicator {indicator.path} has {_places(indicator)}, the vectors {vectors.path} "
            f"{_places(vectors)} (zyx). Sites would be given vectors of other places; name two volumes "
            "of one prediction."
        )


def _places(volume: Volume) -> str:
    """Return where the voxels are; rounded, since offsets of petascale volumes are not exact."""
    size, offset = (
        ", ".join(str(round(value, 3)) for value in values)
        for values in (volume.frame.voxel_size, volume.frame.offset)
    )
    return f"{volume.shape} voxels of ({size}) nm from ({offset}) nm"


def _check_scale(name: str, volume: Volume) -> None:
    """Raise `ConfigError` if the meaning of stored integers is unknown."""
    if volume.scale is None and volume.dtype.kind != "f":
        unit = "1 nm" if name == "vectors" else "an output of 1"
        raise ConfigError(
            f"The {name} {volume.path} hold {volume.dtype} without the attribute 'scale', the stored "
            f"value that means {unit}, so their numbers cannot be understood. Set the attribute, for "
            "example to 0.25 if 4 nm are stored as 1, or predict again."
        )
