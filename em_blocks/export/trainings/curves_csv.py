"""Curves of trainings as one CSV file."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from pathlib import Path

from em_blocks.training.records.recorded import Recorded
from em_blocks.volumes.stores.whole_files import written_whole

COLUMNS = ("training", "setup", "metric", "step", "time", "value")


def write_csv(trainings: Sequence[Recorded], path: Path) -> None:
    """Write a row per point: training (number or folder), setup, metric, step, time, value.

    Times are seconds since 1970; what is no number is empty.
    """
    with written_whole(path) as partial, Path(partial).open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(COLUMNS)
        for training in trainings:
            name = training.folder if training.number is None else training.number
            for metric, series in sorted(training.curves().items()):
                points = zip(series.steps, series.times, series.values, strict=True)
                rows.writerows((name, training.document["setup"], metric, *point) for point in points)
