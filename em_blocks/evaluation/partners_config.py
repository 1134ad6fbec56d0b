"""Predicted against true partners: the config of an evaluation."""

from __future__ import annotations

import csv
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    Discriminator,
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    Tag,
    model_validator,
)

from em_blocks.config import LocalPath, Position3, StrictModel, VolumeRef, VoxelSize
from em_blocks.errors import ConfigError
from em_blocks.kernels.evaluation.partner_protocol import Protocol
from em_blocks.kernels.synapses.filters import Duplicates, Filter, Listed, Score, SelfLinks
from em_blocks.kernels.synapses.table import LARGEST_ID, TOO_FAR

IdType = Literal["skeleton", "segment"]
Id = Annotated[int, Field(ge=TOO_FAR, le=LARGEST_ID)]


def _list_or_file(value: Any) -> str:
    return "file" if isinstance(value, (str, Path)) else "list"


NeuronIds = Annotated[
    Annotated[tuple[Id, ...], Field(min_length=1), Tag("list")] | Annotated[LocalPath, Tag("file")],
    Discriminator(_list_or_file),
]


class RandomBaseline(StrictModel):
    """Partners by chance: uniform postsynaptic sites, partner vectors drawn from the prediction."""

    per_cubic_um: PositiveFloat = Field(10.0, description="Links per cubic micrometre.")
    seed: NonNegativeInt = Field(0, description="The same seed gives the same links.")


class EvaluateSynapses(StrictModel):
    """How predicted partners are compared with true ones.

    Predictions are filtered in this order: listed segments, score, links of a neuron with itself,
    redundant links. Truth is taken as it is.
    """

    kind: Literal["evaluate_synapses"]
    truth: LocalPath = Field(
        description="File of true partners: FAFB .json, .csv, .parquet, .sqlite, .npz, CREMI .hdf."
    )
    prediction: LocalPath = Field(description="File of predicted partners, of any of these formats.")
    voxel_size: VoxelSize | None = Field(
        None, description="Of files of voxels (..._pre.csv, ..._post.csv), and of CREMI files that do "
        "not say it, nm (z, y, x). Default for the latter: that of 'neurons'."
    )
    offset: Position3 = Field(
        (0.0, 0.0, 0.0), description="Of files of voxels: corner of voxel 0, nm (z, y, x)."
    )
    flip_prediction: bool = Field(
        False, description="Exchange the pre- and postsynaptic sites of the prediction."
    )
    neurons: VolumeRef | None = Field(
        None, description="Volume of true neurons, path.zarr/dataset or file.h5:dataset: segments at "
        "all sites are looked up in it, as in the CREMI challenge. Default: those of the files."
    )
    id_type: Literal["skeleton", "segment", "none"] | None = Field(
        None, description="Ids that a true and a predicted link must share at both sites to match; "
        "none: positions only. Default: segment with 'neurons', else skeleton."
    )
    neuron_ids: NeuronIds | None = Field(
        None, description="Neurons (ids of id_type) whose links are scored, or a text file of them, "
        "one per line. A link between two of them counts for both. Default: all links, once."
    )
    links: Literal["all", "inputs", "outputs"] = Field(
        "all", description="Links of a neuron that are scored: all, only inputs, only outputs."
    )
    matching_threshold_nm: PositiveFloat = Field(
        400.0, description="Largest distance between compared sites of a true and a predicted link."
    )
    matching_sites: Literal["both", "pre", "post"] = Field(
        "both", description="Sites that are compared. A match costs their (mean) distance."
    )
    score_threshold: float | None = Field(
        None, description="Predicted links with a lower score are left out. Default: none is."
    )
    score_thresholds: Annotated[tuple[float, ...], Field(min_length=1)] | None = Field(
        None, description="Several such thresholds, for a curve; instead of score_threshold."
    )
    cleft_scores: Literal["replace", "multiply", "filter"] | None = Field(
        None, description="Use cleft scores of the prediction: instead of scores, as a factor, or only "
        "to set the score to 0 where the cleft score is 0. Default: they do not matter."
    )
    filter_segment_ids: tuple[Id, ...] = Field(
        (), description="Predicted links with a site in one of these segments are left out; 0 is "
        "background."
    )
    filter_same_id: bool = Field(
        False, description="Leave out predicted links of a neuron with itself, and those of which no "
        "site is mapped."
    )
    filter_same_id_type: IdType | None = Field(
        None, description="Ids that tell that it is the same neuron. Default: as id_type."
    )
    filter_redundant: bool = Field(
        False, description="Of predicted links near each other that join the same two neurons, keep one."
    )
    filter_redundant_distance_nm: NonNegativeFloat = Field(
        250.0, description="Redundant: postsynaptic sites that are at most so far apart, from link to "
        "link."
    )
    filter_redundant_id_type: IdType | None = Field(
        None, description="Ids that tell that neurons are the same. Default: as id_type."
    )
    filter_redundant_ignore_ids: tuple[Id, ...] = Field(
        (TOO_FAR,), description="No link at one of these is redundant; -2 is a skeleton too far away."
    )
    filter_redundant_keep: Literal["best", "mean"] = Field(
        "best", description="Keep the link with the best score; or the first, moved to the mean place."
    )
    random_baseline: RandomBaseline | None = Field(
        None, description="Also score links by chance in the volume of 'neurons', filtered alike but "
        "for scores, which they have none of."
    )
    output: LocalPath | None = Field(
        None, description="Folder for scores per threshold and neuron, lists of links, and plots."
    )

    @model_validator(mode="after")
    def _one_way_to_name_thresholds(self) -> Self:
        if self.score_threshold is not None and self.score_thresholds is not None:
            raise ValueError("score_threshold and score_thresholds exclude each other; name one")
        if self.id_type == "none" and self.neuron_ids is not None:
            raise ValueError("neuron_ids are ids of id_type, which is none")
        if self.links != "all" and self.neuron_ids is None:
            raise ValueError(f"links is {self.links!r}, but of which neurons? Name neuron_ids")
        if self.random_baseline is not None and self.neurons is None:
            raise ValueError("random_baseline needs a volume of neurons to look its links up in")
        return self

    def thresholds(self) -> tuple[float | None, ...]:
        """Every score threshold once, in order; None: no link is left out."""
        if self.score_thresholds is not None:
            return tuple(sorted(set(self.score_thresholds)))
        return (self.score_threshold,)

    def matched_ids(self) -> IdType | None:
        """Return the kind of ids that `id_type` selects."""
        if self.id_type is None:
            return "skeleton" if self.neurons is None else "segment"
        return None if self.id_type == "none" else self.id_type

    def protocol(self, threshold: float | None) -> Protocol:
        """The rules at one score threshold; reads the file of `neuron_ids` if it is one."""
        return Protocol(
            threshold_nm=self.matching_threshold_nm, sites=self.matching_sites,
            objects=self.matched_ids(), filters=tuple(self._filters(threshold)),
            neurons=self._neuron_ids(), links=self.links,
        )

    def _filters(self, threshold: float | None) -> Iterator[Filter]:
        usual = self.matched_ids() or "segment"
        if self.filter_segment_ids:
            yield Listed(self.filter_segment_ids, "segment")
        if threshold is not None:
            yield Score(threshold)
        if self.filter_same_id:
            yield SelfLinks(self.filter_same_id_type or usual)
        if self.filter_redundant:
            yield Duplicates(
                self.filter_redundant_distance_nm, self.filter_redundant_id_type or usual,
                keep=self.filter_redundant_keep, ignore=self.filter_redundant_ignore_ids,
            )

    def _neuron_ids(self) -> tuple[int, ...] | None:
        ids = self.neuron_ids
        if isinstance(ids, Path):
            ids = _ids_of_file(ids)
        if ids is not None and len(set(ids)) < len(ids):
            twice = next(id for id in ids if ids.count(id) > 1)
            raise ConfigError(
                f"neuron_ids name {twice} more than once, so its links would be scored twice. Name it "
                "once."
            )
        return ids


def _ids_of_file(path: Path) -> tuple[int, ...]:
    """The first column of a text or CSV file; a first line of words is a header."""
    try:
        with open(path, newline="") as file:
            cells = [(n, row[0].strip()) for n, row in enumerate(csv.reader(file), 1) if row]
    except (OSError, UnicodeDecodeError) as error:
        raise ConfigError(f"The list of neuron_ids {path} cannot be read: {error}.") from error
    if cells and not cells[0][1].lstrip("-").isdigit():
        cells = cells[1:]
    for line, cell in cells:
        if not cell.lstrip("-").isdigit() or int(cell) > LARGEST_ID:
            raise ConfigError(
                f"Line {line} of {path} is {cell!r}, but an id of a neuron (a whole number below 2**63) "
                "is needed on every line."
            )
    if not cells:
        raise ConfigError(f"The list of neuron_ids {path} is empty.")
    return tuple(int(cell) for _, cell in cells)
