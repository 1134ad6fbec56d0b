"""Diagrams of scores."""

from __future__ import annotations

import itertools
from collections.abc import Mapping, Sequence
from contextlib import contextmanager

import numpy as np

from em_blocks.kernels.evaluation.segmentation_scores import Voi

# Told apart by everybody (Okabe and Ito, https://jfly.uni-koeln.de/color/).
_SPLIT, _MERGE, _SUM, _ARAND = "#0072B2", "#D55E00", "#000000", "#009E73"
_INCHES, _PIXELS_PER_INCH = (7.2, 4.8), 120


def threshold_curve(
    thresholds: Sequence[float] | None,
    names: Sequence[str],
    vois: Sequence[Voi],
    arands: Sequence[float],
) -> np.ndarray:
    """VOI (split, merge, sum) and adapted Rand error of several segmentations.

    Parameters
    ----------
    thresholds : floats or None
        Places on the x axis; None to put the segmentations side by side in their order.
    names : strings
        Of the segmentations; shown where there are no thresholds.

    Returns
    -------
    (y, x, 3) uint8 array
        A picture.
    """
    place = np.arange(len(names)) if thresholds is None else np.asarray(thresholds, float)
    order = np.argsort(place, kind="stable")
    place, split, merge = place[order], *np.array(vois, float).reshape(-1, 2)[order].T
    with figure() as (axes, picture):
        for values, label, colour in (
            (split, "VOI split", _SPLIT), (merge, "VOI merge", _MERGE), (split + merge, "VOI", _SUM)
        ):
            axes.plot(place, values, "o-", label=label, color=colour)
        best = int(np.argmin(split + merge))
        axes.axvline(place[best], color=_SUM, alpha=0.25, linewidth=1)
        axes.set(ylabel="VOI (bits)", xlabel="threshold", ylim=(0, None))
        if thresholds is None:
            axes.set_xlabel("")
            axes.set_xticks(place, [names[n] for n in order], rotation=30, ha="right")
        right = axes.twinx()
        right.plot(place, np.asarray(arands, float)[order], "s--", label="ARAND", color=_ARAND)
        right.set_ylabel("adapted Rand error", color=_ARAND)
        right.set_ylim(0, None)
        axes.set_title(f"least VOI {split[best] + merge[best]:.3f} bits: {names[order[best]]}")
        lines = [*axes.get_lines()[:3], *right.get_lines()]
        axes.legend(lines, [line.get_label() for line in lines], loc="best")
        return picture()


def split_vs_merge(names: Sequence[str], vois: Sequence[Voi]) -> np.ndarray:
    """VOI split against VOI merge, one point per segmentation; the corner at 0 is perfect.

    Returns
    -------
    (y, x, 3) uint8 array
        A picture.
    """
    split, merge = np.array(vois, float).reshape(-1, 2).T
    order = np.argsort(merge, kind="stable")
    with figure() as (axes, picture):
        axes.plot(merge[order], split[order], "o-", color=_SPLIT)
        for name, x, y in zip(names, merge, split, strict=True):
            axes.annotate(name, (x, y), xytext=(6, 6), textcoords="offset points")
        reach = 1.15 * max(split.max(), merge.max(), 1e-3)
        least = (split + merge).min()
        axes.plot([0, least], [least, 0], ":", color=_SUM, alpha=0.5, linewidth=1)
        axes.set(
            xlabel="VOI merge (bits)", ylabel="VOI split (bits)", xlim=(0, reach), ylim=(0, reach),
            title=f"least VOI: {least:.3f} bits (dotted)",
        )
        return picture()


def score_curves(
    places: Sequence[float], scores: Mapping[str, Sequence[float | None]], *, xlabel: str,
    best: float | None = None,
) -> np.ndarray:
    """Scores between 0 and 1 over thresholds, checkpoints or sections.

    Parameters
    ----------
    places : floats
        On the x axis, ascending.
    scores : mapping of name to values
        One value per place; None leaves a gap.
    best : float, optional
        A place to be marked.

    Returns
    -------
    (y, x, 3) uint8 array
        A picture.
    """
    with figure() as (axes, picture):
        colours = itertools.cycle((_SUM, _SPLIT, _MERGE, _ARAND))
        for (name, values), colour in zip(scores.items(), colours, strict=False):
            axes.plot(places, np.array(values, float), ".-", label=name, color=colour)
        if best is not None:
            axes.axvline(best, color=_SUM, alpha=0.25, linewidth=1)
        axes.set(xlabel=xlabel, ylim=(0, 1.02))
        axes.legend(loc="best")
        return picture()


@contextmanager
def figure():
    """Axes, and a function that draws them as (y, x, 3) uint8."""
    with figures(1) as ((axes,), picture):
        yield axes, picture


@contextmanager
def figures(n: int, columns: int = 1):
    """As `figure`, for a list of `n` axes in so many columns."""
    # Imported here: it takes a third of a second that no other command should wait for.
    # Without pyplot there is neither a display nor a state that other code could share.
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    rows, (width, height) = -(-n // columns), _INCHES
    figure = Figure(
        figsize=(width * columns, height * rows), dpi=_PIXELS_PER_INCH, layout="constrained"
    )
    canvas = FigureCanvasAgg(figure)
    axes = [figure.add_subplot(rows, columns, place + 1) for place in range(n)]
    for one in axes:
        one.grid(alpha=0.2)

    def picture() -> np.ndarray:
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()

    yield axes, picture
