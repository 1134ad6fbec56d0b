"""All data of a training, opened and looked at: crops, remarks, and what would refuse them."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from em_blocks.errors import EmBlocksError
from em_blocks.models.config import SetupConfig
from em_blocks.models.sources import DataSource
from em_blocks.training.data.sources import TrainingData, open_source
from em_blocks.training.review.checks import check_labels
from em_blocks.training.review.problems import Data, check_classes, inspect_data
from em_blocks.training.review.table import Crop, comparisons, crop_of


class Named(NamedTuple):
    """Sources that a config names; without a setup they need not fit to one."""

    config: SetupConfig | None
    sources: Sequence[DataSource]
    validation: Sequence[DataSource]


class Inspection(NamedTuple):
    """What was found."""

    data: list[TrainingData]
    crops: list[Crop]
    remarks: list[str]
    errors: list[EmBlocksError]


def inspect(named: Named) -> Inspection:
    """Open all data and look at them; nothing is raised that is about one source."""
    opened, errors = inspect_data(named.config) if named.config else _without_setup(named.sources)
    data, crops = [], []
    for key, found in zip(Data._fields, opened, strict=True):
        for one in found:
            try:
                crops.append(crop_of(one, key))
                data.append(one)
            except EmBlocksError as error:  # a chunk that cannot be read, a negative id
                errors.append(error)
    return Inspection(data, crops, comparisons(crops, data), errors)


def _without_setup(sources: Sequence[DataSource]) -> tuple[Data, list[EmBlocksError]]:
    """Open data that all must have the voxel size of the first ones: one network learns them."""
    data, errors = Data([], []), []
    size = next((source.voxel_size for source in sources if source.voxel_size), None)
    for source in sources:
        try:
            found = open_source(source, size or (1.0, 1.0, 1.0), validation=True)
            check_labels(found, "sources")
            data.sources.extend(found)
        except EmBlocksError as error:
            errors.append(error)
    if not errors:  # else classes may be those of what could not be opened
        names = sorted({name for one in data.sources for name in one.classes})
        try:
            check_classes(data.sources, names)
        except EmBlocksError as error:
            errors.append(error)
    return data, errors
