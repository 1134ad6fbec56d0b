"""Is a connection of two neurons found? Links counted per pair of neurons, against truth.

Single links may be wrong although the wiring diagram is right: two neurons are called connected
if they share at least a number of links, and that is compared here.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import NamedTuple

import numpy as np

from em_blocks.kernels.evaluation.partner_matching import PartnerScore
from em_blocks.kernels.synapses.table import BACKGROUND, Synapses

THRESHOLDS = range(1, 30)


class Connectivity(NamedTuple):
    """Links per pair of neurons, only pairs that have some, sorted."""

    pairs: np.ndarray  # (k, 2) int64: presynaptic, postsynaptic neuron
    links: np.ndarray  # (k,) int64


class EdgeAccuracy(NamedTuple):
    """Connections of at least `threshold` links, found against true.

    A pair that has true links, but fewer than the threshold in truth and prediction, is a true
    negative; pairs without any true link are none, or nearly every pair would be one.
    """

    threshold: int
    tp: int
    fp: int
    fn: int
    tn: int

    @property
    def accuracy(self) -> float:
        """Share of pairs that are on the right side of the threshold; 1 of no pairs."""
        n = self.tp + self.fp + self.fn + self.tn
        return (self.tp + self.tn) / n if n else 1.0

    @property
    def score(self) -> PartnerScore:
        """For precision, recall and F-score."""
        return PartnerScore(self.tp, self.fp, self.fn)

    def document(self) -> dict:
        """As JSON."""
        return {
            "edge_threshold": self.threshold, "accuracy": self.accuracy,
            **self.score.document(), "tn": self.tn,
        }


def connectivity(
    ids: np.ndarray,
    *,
    sources: Sequence[int] | None = None,
    targets: Sequence[int] | None = None,
) -> Connectivity:
    """Count the links of each pair of neurons, leaving out those with itself or with nothing.

    Parameters
    ----------
    ids : (n, 2) integer array
        Neurons at the presynaptic and postsynaptic sites; background and unmapped sites (negative)
        are no neurons.
    sources, targets : ids or None
        Only links from these neurons, to these neurons; None: any.
    """
    counted = (ids > BACKGROUND).all(axis=1) & (ids[:, 0] != ids[:, 1])
    for side, wanted in enumerate((sources, targets)):
        if wanted is not None:
            counted &= np.isin(ids[:, side], wanted)
    return Connectivity(*np.unique(ids[counted], axis=0, return_counts=True))


def edge_accuracy(
    *, truth: Connectivity, prediction: Connectivity, thresholds: Iterable[int] = THRESHOLDS
) -> list[EdgeAccuracy]:
    """Compare connections at several thresholds of the number of links.

    References
    ----------
    Synful, doi:10.1038/s41592-021-01183-7, figure 2e.
    """
    pairs = np.concatenate([truth.pairs, prediction.pairs]).reshape(-1, 2)
    names, rows = np.unique(pairs, axis=0, return_inverse=True)
    rows = rows.reshape(-1)
    true, found = np.zeros((2, len(names)), np.int64)
    true[rows[:len(truth.links)]] = truth.links
    found[rows[len(truth.links):]] = prediction.links
    return [_at(threshold, true, found) for threshold in thresholds]


def _at(threshold: int, true: np.ndarray, found: np.ndarray) -> EdgeAccuracy:
    is_true, is_found = true >= threshold, found >= threshold
    return EdgeAccuracy(
        threshold,
        tp=int((is_true & is_found).sum()),
        fp=int((~is_true & is_found).sum()),
        fn=int((is_true & ~is_found).sum()),
        tn=int((~is_true & ~is_found & (true > 0)).sum()),
    )


def random_partners(
    *,
    offset: Sequence[float],
    shape: Sequence[float],
    per_cubic_um: float,
    vectors: np.ndarray,
    seed: int,
) -> Synapses:
    """Partners of a detector that knows nothing: what is reached by chance.

    Parameters
    ----------
    offset, shape : (3,) float
        Box of the postsynaptic sites, nm (z, y, x); they are uniform in it.
    per_cubic_um : float
        Links per cubic micrometre; Synful's baseline has 10.
    vectors : (n, 3) float array
        Direction vectors, post to pre, nm; one of them is drawn for every link.
    seed : int
        The same seed gives the same links.

    Returns
    -------
    Synapses
        Without scores; presynaptic sites may lie outside of the box.
    """
    if not len(vectors):
        raise ValueError("there are no direction vectors to draw from")
    offset, shape = np.asarray(offset, float), np.asarray(shape, float)
    n = round(per_cubic_um * float(np.prod(shape / 1000)))
    random = np.random.default_rng(seed)
    post = offset + random.random((n, 3)) * shape
    pre = post + np.asarray(vectors, float)[random.integers(len(vectors), size=n)]
    return Synapses(id=np.arange(n), pre=pre, post=post)
