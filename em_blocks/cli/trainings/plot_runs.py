"""``em-blocks runs plot RUN...``."""

from __future__ import annotations

from collections.abc import Sequence
from fnmatch import fnmatchcase
from pathlib import Path

import click
import numpy as np
from PIL import Image

from em_blocks.cli.common import shows_errors
from em_blocks.cli.trainings.common import RUN, db_option, found_runs, runs_argument
from em_blocks.db.trainings.series import Series
from em_blocks.errors import ConfigError
from em_blocks.training.records.recorded import Recorded


@click.command(name="plot", help=f"Draw the curves of trainings over each other, as a PNG. {RUN}")
@runs_argument
@db_option
@click.option("--metric", "metrics", multiple=True, metavar="PATTERN",
              help="Names of curves, * for anything; may be repeated [default: the loss, and the "
              "score that chooses the best checkpoint].")
@click.option("--smooth", type=click.IntRange(min=1), default=1, show_default=True,
              help="Points that a running mean goes over.")
@click.option("--output", type=click.Path(dir_okay=False, path_type=Path), default="curves.png",
              show_default=True)
@shows_errors
def main(
    runs: tuple[str, ...], db: str | None, metrics: tuple[str, ...], smooth: int, output: Path
) -> None:
    from em_blocks.kernels.plots.training_curves import training_curves

    with found_runs(runs, db) as trainings:
        chosen = _chosen(trainings, metrics)
    Image.fromarray(training_curves(chosen, smooth=smooth)).save(output)
    click.echo(output)


def _chosen(trainings: Sequence[Recorded], patterns: Sequence[str]) -> dict[str, dict]:
    """Return the curves that are drawn, by metric and training."""
    found: dict[str, dict] = {}
    names: set[str] = set()
    for training in trainings:
        score = training.document["config"]["training"]["score"]
        wanted = patterns or ("train/loss", f"validation/{score}")
        curves = training.curves()
        names |= curves.keys()
        for name, series in sorted(curves.items()):
            if any(fnmatchcase(name, pattern) for pattern in wanted):
                found.setdefault(name, {})[training.label] = _arrays(series)
    if not found:
        raise ConfigError(
            f"None of the curves is named {' or '.join(patterns) or 'train/loss'}. These trainings "
            f"have: {', '.join(sorted(names)) or 'none yet'}."
        )
    return found


def _arrays(series: Series) -> tuple[np.ndarray, np.ndarray]:
    return np.array(series.steps), np.array(series.values, float)  # None becomes nan
