"""All that refuses the data of a training, told at once."""

from __future__ import annotations

import itertools
import logging
from collections.abc import Callable, Iterable, Sequence
from typing import NamedTuple

from em_blocks.errors import ConfigError, EmBlocksError
from em_blocks.models.config import SetupConfig
from em_blocks.models.sources import DataSource
from em_blocks.training.data.needs import check_volumes
from em_blocks.training.data.sources import TrainingData, classes_of, open_sources
from em_blocks.training.review.checks import check_intensities, check_labels, check_synapses
from em_blocks.training.review.contrast import check_contrast
from em_blocks.training.review.shares import class_shares
from em_blocks.training.review.table import overlap

logger = logging.getLogger(__name__)


class Data(NamedTuple):
    """Opened sources and validation boxes."""

    sources: list[TrainingData]
    validation: list[TrainingData]


def open_data(config: SetupConfig) -> Data:
    """Open all data of a training and check that it can be trained and measured with.

    Raises
    ------
    EmBlocksError
        The only thing that is wrong, or a `ConfigError` that lists everything.
    """
    data, errors = inspect_data(config)
    raise_all(errors)
    _warn_of_overlap(data)
    return data


def _warn_of_overlap(data: Data) -> None:
    for one, other in itertools.product(data.sources, data.validation):
        if share := overlap(one, other):
            logger.warning(
                "the validation data %s have %.1f %% of the smaller box in common with %s, which is "
                "trained on: scores there say nothing about unseen data",
                other.name, 100 * share, one.name,
            )


def inspect_data(config: SetupConfig) -> tuple[Data, list[EmBlocksError]]:
    """Open what can be opened, and collect everything that refuses a training."""
    training, errors = config.to_train(), []
    opened = [
        _open_each(sources, config, validation, errors)
        for sources, validation in ((training.sources, False), (training.validation, True))
    ]
    data = Data(*opened)
    checks: list[Callable[[], None]] = [lambda: check_contrast(config)]
    for key, found in (("sources", data.sources), ("validation", data.validation)):
        if found:
            checks += _checks(found, config, key)
    if not errors:  # else classes may be those of what could not be opened
        checks.append(lambda: check_classes(data.sources, classes_of(config)))
    for check in checks:
        try:
            check()
        except EmBlocksError as error:
            errors.append(error)
    return data, errors


def raise_all(errors: Sequence[EmBlocksError]) -> None:
    """Raise the only error, or one that lists all of them; nothing if there is none.

    What is wrong with data that are both trained on and validated on is said once.
    """
    errors = list({str(error): error for error in errors}.values())
    if len(errors) == 1:
        raise errors[0]
    if errors:
        raise ConfigError(
            f"The data have {len(errors)} errors. "
            + " ".join(f"({number}) {error}" for number, error in enumerate(errors, start=1))
        )


def check_classes(data: Iterable[TrainingData], names: Iterable[str]) -> None:
    """Raise `ConfigError` if no source shows one of the classes, or none shows anything else."""
    totals = {name: [0, 0] for name in names}
    for one in data:
        for name, total in totals.items():
            if name not in one.classes:
                continue
            shares = class_shares(one.labels[name], one)
            total[0] += shares.background
            total[1] += shares.object
    for name, (background, object) in totals.items():
        if not object or not background:
            lacking = "a voxel of it" if not object else "a voxel that is certainly something else"
            raise ConfigError(
                f"The class {name!r} is to be learnt, but no source has {lacking}: {object} voxels of "
                f"the class and {background} of others are known. It could not be learnt. Correct `ids` "
                "of the class or the region, add sources, or leave the class out."
            )


def _open_each(
    sources: Sequence[DataSource], config: SetupConfig, validation: bool,
    errors: list[EmBlocksError],
) -> list[TrainingData]:
    found = []
    for source in sources:
        try:
            found += open_sources([source], config, validation=validation)
        except EmBlocksError as error:
            errors.append(error)
    return found


def _checks(
    data: Sequence[TrainingData], config: SetupConfig, key: str
) -> list[Callable[[], None]]:
    return [
        lambda: check_volumes(data, config, key), lambda: check_labels(data, key),
        lambda: check_intensities(data, config, key), lambda: check_synapses(data, config, key),
    ]
