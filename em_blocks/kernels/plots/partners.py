"""Diagrams of scores of synaptic partners."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from em_blocks.kernels.evaluation.edge_accuracy import EdgeAccuracy
from em_blocks.kernels.evaluation.partner_matching import PartnerScore
from em_blocks.kernels.plots.curves import figure

# Told apart by everybody (Okabe and Ito, https://jfly.uni-koeln.de/color/).
_PRECISION, _RECALL, _FSCORE, _ACCURACY = "#0072B2", "#D55E00", "#000000", "#009E73"
_LEVELS = (0.2, 0.4, 0.6, 0.8)


def precision_recall(thresholds: Sequence[float], scores: Sequence[PartnerScore]) -> np.ndarray:
    """Precision against recall, one point per score threshold, with lines of equal F-score.

    Returns
    -------
    (y, x, 3) uint8 array
        A picture.
    """
    recall, precision = (np.array([getattr(s, k) for s in scores]) for k in ("recall", "precision"))
    best = _best(scores)
    with figure() as (axes, picture):
        _draw_levels(axes)
        order = np.argsort(thresholds, kind="stable")
        axes.plot(recall[order], precision[order], "o-", color=_PRECISION)
        for n in range(len(scores)):
            axes.annotate(f"{thresholds[n]:g}", (recall[n], precision[n]), xytext=(5, 5),
                          textcoords="offset points", fontsize=7)
        axes.plot(recall[best], precision[best], "o", color=_RECALL, markersize=10, zorder=3)
        axes.set(xlabel="recall", ylabel="precision", xlim=(0, 1.02), ylim=(0, 1.02),
                 title=_title(thresholds, scores))
        return picture()


def scores_by_threshold(
    thresholds: Sequence[float], scores: Sequence[PartnerScore]
) -> np.ndarray:
    """Precision, recall and F-score over the score threshold.

    Returns
    -------
    (y, x, 3) uint8 array
        A picture.
    """
    order = np.argsort(thresholds, kind="stable")
    with figure() as (axes, picture):
        for name, colour in (("precision", _PRECISION), ("recall", _RECALL), ("fscore", _FSCORE)):
            values = np.array([getattr(score, name) for score in scores])
            axes.plot(np.asarray(thresholds)[order], values[order], "o-", color=colour, label=name)
        axes.axvline(thresholds[_best(scores)], color=_FSCORE, alpha=0.25, linewidth=1)
        axes.set(xlabel="score threshold", ylim=(0, 1.02), title=_title(thresholds, scores))
        axes.legend(loc="best")
        return picture()


def edge_accuracy_curve(edges: Sequence[EdgeAccuracy]) -> np.ndarray:
    """Accuracy, precision, recall and F-score of connections over the number of links.

    Returns
    -------
    (y, x, 3) uint8 array
        A picture.
    """
    thresholds = [edge.threshold for edge in edges]
    with figure() as (axes, picture):
        axes.plot(thresholds, [edge.accuracy for edge in edges], "o-", color=_ACCURACY,
                  label="accuracy")
        for name, colour in (("precision", _PRECISION), ("recall", _RECALL), ("fscore", _FSCORE)):
            values = [getattr(edge.score, name) for edge in edges]
            axes.plot(thresholds, values, ".-", color=colour, label=name)
        axes.set(xlabel="links that make a connection, at least", ylim=(0, 1.02),
                 title="Connections of neurons, found against true")
        axes.legend(loc="best")
        return picture()


def _best(scores: Sequence[PartnerScore]) -> int:
    return int(np.argmax([score.fscore for score in scores]))


def _title(thresholds: Sequence[float], scores: Sequence[PartnerScore]) -> str:
    best = _best(scores)
    return f"best F-score {scores[best].fscore:.3f} at a score of {thresholds[best]:g}"


def _draw_levels(axes) -> None:
    """Lines of equal F-score."""
    for level in _LEVELS:
        recall = np.linspace(level / (2 - level), 1, 100)
        axes.plot(recall, level * recall / (2 * recall - level), ":", color=_FSCORE, alpha=0.3)
        axes.annotate(f"F {level}", (1, level / (2 - level)), fontsize=7, alpha=0.5)
