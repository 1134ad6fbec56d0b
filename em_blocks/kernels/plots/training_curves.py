"""Curves of trainings over each other."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from em_blocks.kernels.plots.curves import figures

# Told apart by everybody (Okabe and Ito, https://jfly.uni-koeln.de/color/).
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
COLUMNS = 2


def training_curves(
    metrics: Mapping[str, Mapping[str, tuple[np.ndarray, np.ndarray]]], *, smooth: int = 1
) -> np.ndarray:
    """Draw one diagram per metric, with a line per training.

    Parameters
    ----------
    metrics : mapping of metric to mapping of training to (steps, values)
        Arrays (n,); values may be nan. A training has the same colour in all diagrams.
    smooth : int
        Points that a running mean goes over; what was measured is drawn behind it, faint.

    Returns
    -------
    (y, x, 3) uint8 array
        A picture.
    """
    labels = list(dict.fromkeys(label for lines in metrics.values() for label in lines))
    colours = {label: COLOURS[n % len(COLOURS)] for n, label in enumerate(labels)}
    with figures(len(metrics), min(COLUMNS, len(metrics))) as (axes, picture):
        for place, (name, lines) in zip(axes, metrics.items(), strict=True):
            for label, (steps, values) in lines.items():
                if smooth > 1 and len(values) > smooth:
                    place.plot(steps, values, color=colours[label], alpha=0.2, linewidth=0.8)
                    steps, values = steps[smooth - 1 :], running_mean(values, smooth)
                place.plot(
                    steps, values, ".-" if len(values) < 100 else "-", color=colours[label],
                    label=label, linewidth=1.2,
                )
            place.set(title=name, xlabel="iteration")
            place.legend(loc="best", fontsize="small")
        return picture()


def running_mean(values: np.ndarray, n: int) -> np.ndarray:
    """Compute the mean of every `n` neighbours of (m,) values, without those that are nan.

    Returns
    -------
    (m - n + 1,) float64 array
        nan where none of them is a number.
    """
    known = np.isfinite(values)
    ones = np.ones(n)
    sums = np.convolve(np.where(known, values, 0.0), ones, "valid")
    counts = np.convolve(known.astype(float), ones, "valid")
    with np.errstate(invalid="ignore"):
        return np.where(counts > 0.5, sums / np.round(counts), np.nan)
