"""What is searched, and on what."""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, Self

from pydantic import (
    BeforeValidator,
    Field,
    PositiveInt,
    ValidationInfo,
    WithJsonSchema,
    model_validator,
)

from em_blocks.config import LocalPath, StrictModel, VolumeRef, resolve_path
from em_blocks.tasks.instances.options import CoreOptions, Length, SeedOptions, Share
from em_blocks.tasks.instances.segment_instances import SegmentInstances
from em_blocks.tasks.objects.threshold_options import Probability

Values = dict[str, Any]
"""One choice: the value of every key that is searched, such as "seeds.foreground"."""

_SEEDS, _CORES = "seeds.", "seeds.cores."


def _read_segment(value: Any, info: ValidationInfo) -> Any:
    """A string is the path of a config."""
    if not isinstance(value, str):
        return value
    return SegmentInstances.from_file(resolve_path(value, (info.context or {}).get("folder")))


Segment = Annotated[
    SegmentInstances, BeforeValidator(_read_segment),
    WithJsonSchema({"anyOf": [{"type": "string"}, {"type": "object"}]}),
]


class CoreGrid(StrictModel):
    """Values that are tried for the keys of `seeds.cores`."""

    foreground: tuple[Probability, ...] | None = Field(None, min_length=1)
    contour: tuple[Share, ...] | None = Field(None, min_length=1)
    distance: tuple[Share, ...] | None = Field(None, min_length=1)


class SeedGrid(StrictModel):
    """Values that are tried for the keys of `seeds`."""

    foreground: tuple[Probability, ...] | None = Field(None, min_length=1)
    contour: tuple[Share, ...] | None = Field(None, min_length=1)
    distance: tuple[Share, ...] | None = Field(None, min_length=1)
    cores: CoreGrid = CoreGrid()
    min_size: tuple[PositiveInt, ...] | None = Field(None, min_length=1)


class Grid(StrictModel):
    """Values that are tried; a key without any keeps its value."""

    smooth_nm: tuple[tuple[Length, Length, Length], ...] | None = Field(None, min_length=1)
    threshold: tuple[Probability, ...] | None = Field(None, min_length=1)
    seeds: SeedGrid = SeedGrid()
    min_size: tuple[PositiveInt, ...] | None = Field(None, min_length=1)

    @property
    def lists(self) -> dict[str, tuple]:
        """The values of every key that has any, what costs most to change first."""
        own = {name: getattr(self, name) for name in ("smooth_nm", "threshold")}
        cores = {_CORES + name: getattr(self.seeds.cores, name) for name in CoreGrid.model_fields}
        seeds = {
            _SEEDS + name: getattr(self.seeds, name)
            for name in SeedGrid.model_fields if name not in ("cores", "min_size")
        }
        sizes = {_SEEDS + "min_size": self.seeds.min_size, "min_size": self.min_size}
        every = own | seeds | cores | sizes
        return {key: tuple(dict.fromkeys(values)) for key, values in every.items() if values}


class SearchInstances(StrictModel):
    """Try all combinations of thresholds on validation data, and keep the best.

    The region of `segment` is held in memory, some 60 bytes for each of its voxels.
    """

    kind: Literal["search_instances"]
    segment: Segment = Field(
        description="A config of segment_instances for the validation data, or its path. What is not "
        "searched is as it says."
    )
    truth: VolumeRef = Field(description="True instances, a volume of ids of the same voxel size.")
    ignore: tuple[int, ...] = Field((), description="Ids of truth whose voxels are not compared.")
    search: Grid | None = Field(
        None, description='Values to try, by the keys of segment_instances: {"threshold": [0.3, 0.5], '
        '"seeds": {"contour": [0.2, 0.4]}}. Default: three thresholds, and four values of every '
        "threshold of seeds that has a map."
    )
    ious: tuple[Probability, ...] = Field(
        (0.5, 0.75), min_length=1, description="The best combination has the highest F1 of objects, the "
        "mean of those at these IoUs."
    )
    fit_merge: bool = Field(
        False, description="Whether the weights of `merge` are fitted to truth for every choice."
    )
    output: LocalPath | None = Field(
        None, description="Folder for results. Default: RUN.search beside the run of `segment`."
    )

    @model_validator(mode="after")
    def _segment_is_computed_alike(self) -> Self:
        if self.segment.segmentation is not None:
            raise ValueError(
                "`segment` makes objects of a segmentation, which has no thresholds to search: name maps"
            )
        if self.segment.seeds.neck_nm is not None:
            raise ValueError(
                f"`segment` cuts seeds at necks (seeds.neck_nm {self.segment.seeds.neck_nm:g}), which "
                "the search does not: its scores would be of other objects. Leave the key out"
            )
        return self

    @model_validator(mode="after")
    def _weights_are_given_or_fitted(self) -> Self:
        if self.fit_merge and self.segment.merge is not None:
            raise ValueError(
                "`segment` has weights (merge), which fit_merge would replace by others; leave one out"
            )
        return self

    @model_validator(mode="after")
    def _every_searched_key_has_its_map(self) -> Self:
        for name, where in itertools.product(("contour", "distance"), (_SEEDS, _CORES)):
            if where + name in self.grid.lists and getattr(self.segment, name) is None:
                raise ValueError(
                    f"search.{where}{name} has values, but `segment` has no map {name!r} that they "
                    "could be compared with; name the volume there, or leave the values out"
                )
        return self

    @property
    def grid(self) -> Grid:
        """The values that are tried."""
        return usual_grid(self.segment) if self.search is None else self.search

    @property
    def folder(self) -> Path:
        """Where results are written."""
        return self.output or self.segment.home / f"{self.segment.run}.search"

    def choices(self) -> list[Values]:
        """Return all combinations whose seeds lie in the mask, what costs most changing last."""
        return [values for values in self._combinations() if _is_possible(self.segment, values)]

    def _combinations(self) -> Iterator[Values]:
        lists = self.grid.lists
        return (dict(zip(lists, values, strict=True)) for values in itertools.product(*lists.values()))


def usual_grid(segment: SegmentInstances) -> Grid:
    """Return the values that are tried where a config names none."""
    return Grid(
        threshold=(0.3, 0.5, 0.7),
        seeds=SeedGrid(
            foreground=(0.6, 0.75, 0.85, 0.95),
            contour=None if segment.contour is None else (0.2, 0.35, 0.5, 0.7),
            distance=None if segment.distance is None else (0.2, 0.35, 0.5, 0.7),
        ),
    )


def chosen(segment: SegmentInstances, values: Values) -> SegmentInstances:
    """Return a config with the values of one choice."""
    own = {key: value for key, value in values.items() if not key.startswith(_SEEDS)}
    of_seeds = _below(_SEEDS, {k: v for k, v in values.items() if not k.startswith(_CORES)})
    if of_cores := _below(_CORES, values):
        of_seeds["cores"] = (segment.seeds.cores or CoreOptions()).model_copy(update=of_cores)
    seeds: SeedOptions = segment.seeds.model_copy(update=of_seeds)
    return segment.model_copy(update={**own, "seeds": seeds})


def _below(prefix: str, values: Values) -> Values:
    return {k.removeprefix(prefix): v for k, v in values.items() if k.startswith(prefix)}


def _is_possible(segment: SegmentInstances, values: Values) -> bool:
    found = chosen(segment, values)
    return found.seeds.foreground >= found.threshold
