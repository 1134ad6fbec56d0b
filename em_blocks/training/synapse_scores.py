"""Validation of synaptic partners: detected as in a whole volume, matched one to one."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from em_blocks.kernels.detection import DetectionRule, detect, direction_vectors_of
from em_blocks.kernels.partners import centers, pair
from em_blocks.kernels.synapse_matching import cremi_score
from em_blocks.kernels.synapses import Synapses
from em_blocks.training.sources import TrainingData

THRESHOLDS = (0.3, 0.5, 0.7, 0.8, 0.9, 0.95)
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
    sites = centers(found.site, offset=ORIGIN, voxel_size=tuple(voxel_size))
    pre, post = pair(sites, steps)
    return Synapses(
        id=np.arange(len(post)), pre=pre, post=post, score=found.score, size=found.size
    )


def partner_scores(
    indicator: np.ndarray,
    vectors: np.ndarray,
    synapses: Synapses,
    voxel_size: Sequence[float],
) -> dict[str, float]:
    """Precision, recall and F-score of partners at the best of `THRESHOLDS`.

    Matched by distance alone, as CREMI does without neuron ids. Partners of the truth beyond the
    box count too: vectors lead there.
    """
    best: dict[str, float] = {"synapses/fscore": -1.0}
    for threshold in THRESHOLDS:
        found = detect_partners(
            indicator, vectors, rule=DetectionRule(threshold=threshold, min_size=5),
            voxel_size=voxel_size,
        )
        score = cremi_score(truth=synapses, prediction=found)
        if score.fscore > best["synapses/fscore"]:
            best = {
                "synapses/fscore": score.fscore, "synapses/precision": score.precision,
                "synapses/recall": score.recall, "synapses/threshold": threshold,
            }
    return best
