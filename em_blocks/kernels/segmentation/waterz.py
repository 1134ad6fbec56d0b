"""Agglomeration by waterz, whose scores look at the parts of a contact, not only at their mean."""

from __future__ import annotations

import numpy as np

from em_blocks.kernels.segmentation.merge_tree import merge_paths
from em_blocks.kernels.segmentation.neighborhood import FULL

MEAN = "OneMinus<MeanAffinity<RegionGraphType, ScoreValue>>"
QUANTILE = "OneMinus<HistogramQuantileAffinity<RegionGraphType, 75, ScoreValue, 256, false>>"


def merge_affinities(
    affinities: np.ndarray, fragments: np.ndarray, u: np.ndarray, v: np.ndarray, *, quantile: bool
) -> np.ndarray:
    """Affinity at which pairs of fragments become one when all are agglomerated.

    Parameters
    ----------
    affinities : (3, z, y, x) uint16 array
        To the voxel before along z, y, x.
    fragments : (z, y, x) int32 array
        Dense ids, 0 is none.
    u, v : (n,) int arrays
        Pairs of fragments.
    quantile : bool
        Score contacts by the 75 % quantile of their affinities instead of by the mean.

    Returns
    -------
    (n,) float64 array
        0..1; 0 for pairs that never become one.

    References
    ----------
    Funke et al. 2019, doi:10.1109/TPAMI.2018.2835450.
    """
    import waterz

    n = int(fragments.max(initial=0))
    values = affinities.astype(np.float32) / np.float32(FULL)
    steps = waterz.agglomerate(
        values, thresholds=[0.0, 1.0], fragments=fragments.astype(np.uint64),
        return_merge_history=True, scoring_function=QUANTILE if quantile else MEAN,
        discretize_queue=256,
    )
    history = [merge for _, merges in steps for merge in merges]
    a = np.array([merge["a"] for merge in history], np.int64)
    b = np.array([merge["b"] for merge in history], np.int64)
    score = np.array([merge["score"] for merge in history], np.float64)
    return 1 - np.clip(merge_paths(n + 1, a, b, score, u, v, unconnected=1.0), 0, 1)
