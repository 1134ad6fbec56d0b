"""Validation of synaptic partners: detected as in a whole volume, matched one to one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from em_blocks.kernels.evaluation.partner_matching import cremi_score
from em_blocks.kernels.synapses.detection import (
    DetectionRule,
    detect,
    direction_vectors_of,
    steps_to_centres,
)
from em_blocks.kernels.synapses.pairing import centers, pair
from em_blocks.kernels.synapses.partner_ids import ids_of_partners
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.training.data.sources import TrainingData

THRESHOLDS = (0.5, 0.7, 0.8, 0.9, 0.95, 0.98)
MIN_SIZE = 10  # voxels
ORIGIN = (0.0, 0.0, 0.0)


def synapses_of_box(data: TrainingData, voxel_size: Sequence[float]) -> Synapses | None:
    """Pairs whose postsynaptic site lies in the used box, nm from its first corner."""
    if data.synapses is None:
        return None
    size, found = np.asarray(voxel_size, float), data.synapses
    begin, end = np.array(data.begin) * size, np.array(data.end) * size
    inside = np.all((found.post >= begin) & (found.post < end), axis=1)
    found = found.select(inside)
    return found.replace(pre=found.pre - begin, post=found.post - begin)


def detect_partners(
    indicator: np.ndarray,
    vectors: np.ndarray,
    *,
    rule: DetectionRule,
    voxel_size: Sequence[float],
) -> Synapses:
    """Partners in predictions of one box, nm from its first corner.

    Parameters
    ----------
    indicator : (z, y, x) float array
    vectors : (3, z, y, x) float array
        nm.
    """
    found = detect(indicator, scale=1.0, rule=rule, voxel_size=tuple(voxel_size))
    steps = direction_vectors_of(found, vectors, scale=1.0, how="mean")
    steps += steps_to_centres(found) * np.asarray(voxel_size, float)
    sites = centers(found.site, offset=ORIGIN, voxel_size=tuple(voxel_size))
    pre, post = pair(sites, steps)
    return Synapses(
        id=np.arange(len(post)), pre=pre, post=post, score=found.score, size=found.size
    )


def partner_scores(
    indicator: np.ndarray,
    vectors: np.ndarray,
    labels: np.ndarray,
    synapses: Synapses,
    voxel_size: Sequence[float],
) -> dict[str, float]:
    """Precision, recall and F-score of partners, as in the CREMI challenge.

    "neurons" counts partners that join the right two neurons, at the best of `THRESHOLDS`; the
    others, at the same threshold, those at the right places (both sites within 400 nm).

    Parameters
    ----------
    indicator : (z, y, x) float array
    vectors : (3, z, y, x) float array
        nm.
    labels : (z, y, x) int array
        True neurons. A site beyond them has none, and matches only by place.
    synapses : Synapses
        nm from the first corner of the arrays.
    """
    truth_ids = ids_of_partners(labels, synapses, voxel_size=voxel_size)
    best: dict[str, float] = {"synapses/fscore_neurons": -1.0}
    for threshold in THRESHOLDS:
        rule = DetectionRule(threshold=threshold, min_size=MIN_SIZE, site="peak")
        found = detect_partners(indicator, vectors, rule=rule, voxel_size=voxel_size)
        same_neurons = cremi_score(
            truth=synapses, prediction=found,
            truth_ids=truth_ids,
            prediction_ids=ids_of_partners(labels, found, voxel_size=voxel_size),
        )
        if same_neurons.fscore > best["synapses/fscore_neurons"]:
            by_place = cremi_score(truth=synapses, prediction=found)
            best = {
                "synapses/fscore_neurons": same_neurons.fscore,
                "synapses/fscore": by_place.fscore, "synapses/precision": by_place.precision,
                "synapses/recall": by_place.recall, "synapses/threshold": threshold,
            }
    return best
