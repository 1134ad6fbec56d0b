"""Which predicted partners are which true ones: the cheapest assignment of one list to the other.

Only pairs of links that may match are ever looked at, so lists of millions are no problem as long
as few links lie within the threshold of each other.
"""

from __future__ import annotations

from typing import Literal, NamedTuple

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components, min_weight_full_bipartite_matching
from scipy.spatial import cKDTree

from em_blocks.kernels.synapses.table import Synapses

Sites = Literal["both", "pre", "post"]

CREMI_THRESHOLD_NM = 400.0
# The solver resets arrays of all its rows for each of them, so many small problems are faster.
_ROWS_AT_ONCE = 512
# A tree compares squares: what lies on the threshold itself is decided afterwards, exactly.
_SLACK = 1 + 1e-9


class PartnerScore(NamedTuple):
    """Counts of an evaluation of partners, and what follows from them."""

    tp: int  # predicted partners that are true
    fp: int  # predicted partners that are not
    fn: int  # true partners that were not predicted

    @property
    def precision(self) -> float:
        """Share of the predicted partners that are true; 1 if nothing was predicted."""
        return _ratio(self.tp, self.tp + self.fp)

    @property
    def recall(self) -> float:
        """Share of the true partners that were predicted; 1 if there are none."""
        return _ratio(self.tp, self.tp + self.fn)

    @property
    def fscore(self) -> float:
        """Harmonic mean of precision and recall; 0 if both are 0."""
        sum_ = self.precision + self.recall
        return 2 * self.precision * self.recall / sum_ if sum_ else 0.0

    def document(self) -> dict:
        """As JSON."""
        return {
            "fscore": self.fscore, "precision": self.precision, "recall": self.recall,
            **self._asdict(),
        }


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 1.0


class Matches(NamedTuple):
    """k pairs of a true and a predicted link, sorted by the rows of truth."""

    truth: np.ndarray  # (k,) rows
    prediction: np.ndarray  # (k,) rows
    cost_nm: np.ndarray  # (k,) distance of the sites that were compared; of both, their mean


def match_partners(
    *,
    truth: Synapses,
    prediction: Synapses,
    threshold_nm: float,
    sites: Sites = "both",
    truth_ids: np.ndarray | None = None,
    prediction_ids: np.ndarray | None = None,
) -> Matches:
    """Match predicted with true partners, one to one, at the least total cost.

    Two links may match if they join the same neurons and the compared sites are at most
    `threshold_nm` apart, each of them. The cost of a match is the (mean) distance of the compared
    sites, that of a link left alone `threshold_nm`, so two links cost 2 `threshold_nm` unless they
    are matched. A chain of links is thereby not always matched as often as it could be: rather two
    matches at distance 0 than three at `threshold_nm`.

    Parameters
    ----------
    threshold_nm : float
        Largest distance, included.
    sites : "both", "pre" or "post"
        Sites whose distances count.
    truth_ids, prediction_ids : (n, 2) integer arrays or None
        Neurons at the presynaptic and postsynaptic sites. Links with a negative id (unmapped, too
        far) match nothing; 0 is an id like any other. None for both: neurons do not matter.

    References
    ----------
    The assignment of the CREMI challenge (https://cremi.org) and of Synful
    (doi:10.1038/s41592-021-01183-7), where the links that are not matched fill a square matrix.
    """
    if (truth_ids is None) != (prediction_ids is None):
        raise ValueError("ids are needed for both lists, or for none")
    if not threshold_nm > 0:
        raise ValueError(f"a threshold must be positive, got {threshold_nm} nm")
    rows, columns = _near(
        truth, prediction, *_groups(truth, prediction, truth_ids, prediction_ids),
        threshold_nm, sites,
    )
    compared = ("pre", "post") if sites == "both" else (sites,)
    cost = np.array([
        np.linalg.norm(getattr(truth, site)[rows] - getattr(prediction, site)[columns], axis=1)
        for site in compared
    ])
    near = (cost <= threshold_nm).all(axis=0)
    rows, columns, cost = rows[near], columns[near], cost[:, near].mean(axis=0)
    chosen = _cheapest(rows, columns, cost, threshold_nm)
    chosen = chosen[np.argsort(rows[chosen])]
    return Matches(rows[chosen], columns[chosen], cost[chosen])


def score_of(matches: Matches, *, truth: Synapses, prediction: Synapses) -> PartnerScore:
    """Matched links are true positives, all others are false."""
    tp = len(matches.truth)
    return PartnerScore(tp, len(prediction) - tp, len(truth) - tp)


def cremi_score(
    *,
    truth: Synapses,
    prediction: Synapses,
    truth_ids: np.ndarray | None = None,
    prediction_ids: np.ndarray | None = None,
    threshold_nm: float = CREMI_THRESHOLD_NM,
) -> PartnerScore:
    """Partners as in the CREMI challenge: both sites within the threshold, in the same true neurons.

    Parameters
    ----------
    truth_ids, prediction_ids : (n, 2) integer arrays or None
        Ids of the *true* segmentation at the sites of both lists; None to compare sites only.
    """
    matches = match_partners(
        truth=truth, prediction=prediction, threshold_nm=threshold_nm,
        truth_ids=truth_ids, prediction_ids=prediction_ids,
    )
    return score_of(matches, truth=truth, prediction=prediction)


def _groups(
    truth: Synapses, prediction: Synapses, truth_ids: np.ndarray | None,
    prediction_ids: np.ndarray | None,
) -> tuple[np.ndarray, np.ndarray]:
    """A number for every pair of neurons; -1 where a neuron is unknown."""
    if truth_ids is None:
        return np.zeros(len(truth), np.int64), np.zeros(len(prediction), np.int64)
    ids = np.concatenate([truth_ids, prediction_ids])
    groups = np.unique(ids, axis=0, return_inverse=True)[1].reshape(-1)
    groups[(ids < 0).any(axis=1)] = -1
    return groups[:len(truth)], groups[len(truth):]


def _near(
    truth: Synapses, prediction: Synapses, truth_groups: np.ndarray, prediction_groups: np.ndarray,
    threshold_nm: float, sites: Sites,
) -> tuple[np.ndarray, np.ndarray]:
    """Rows of truth and prediction of one group, one of whose compared sites are near enough."""
    radius = threshold_nm * _SLACK
    known = [np.flatnonzero(groups >= 0) for groups in (truth_groups, prediction_groups)]
    site = "post" if sites == "post" else "pre"
    # As a fourth coordinate, groups farther apart than the radius never meet.
    trees = [
        cKDTree(np.column_stack([groups[rows] * (2 * radius), getattr(links, site)[rows]]))
        for links, groups, rows in (
            (truth, truth_groups, known[0]), (prediction, prediction_groups, known[1])
        )
    ]
    found = trees[0].sparse_distance_matrix(trees[1], radius, output_type="ndarray")
    return known[0][found["i"]], known[1][found["j"]]


def _cheapest(
    rows: np.ndarray, columns: np.ndarray, cost: np.ndarray, threshold: float
) -> np.ndarray:
    """Choose edges of a bipartite graph so that the cost is least.

    Parameters
    ----------
    rows, columns : (n,) int arrays
        Ends of the edges.
    cost : (n,) float array
        At most `threshold`; to leave an end alone costs `threshold`.
    """
    if not len(rows):
        return np.zeros(0, np.int64)
    (_, rows), (_, columns) = _numbered(rows), _numbered(columns)
    lonely = (np.bincount(rows)[rows] == 1) & (np.bincount(columns)[columns] == 1)
    chosen = [np.flatnonzero(lonely)]
    for edges in _batches(rows, columns, np.flatnonzero(~lonely)):
        chosen.append(edges[_solve(rows[edges], columns[edges], cost[edges], threshold)])
    return np.concatenate(chosen)


def _batches(rows: np.ndarray, columns: np.ndarray, edges: np.ndarray) -> list[np.ndarray]:
    """Edges in parts that share no ends, each a few connected components."""
    if not len(edges):
        return []
    n = rows.max() + 1
    ends = (rows[edges], n + columns[edges])
    size = n + columns.max() + 1
    component = connected_components(
        coo_array((np.ones(len(edges)), ends), shape=(size, size)), directed=False
    )[1][rows[edges]]
    order = np.argsort(component, kind="stable")
    starts = np.flatnonzero(np.diff(component[order], prepend=-1))
    batch = starts // _ROWS_AT_ONCE
    first = starts[np.flatnonzero(np.diff(batch, prepend=-1))]
    return np.split(edges[order], first[1:])


def _solve(
    rows: np.ndarray, columns: np.ndarray, cost: np.ndarray, threshold: float
) -> np.ndarray:
    """The edges of the least cost, of a problem as a whole."""
    (n_rows, rows), (n_columns, columns) = _numbered(rows), _numbered(columns)
    # Every row has a column of its own that stands for "alone": 2 * threshold, its partner that is
    # then alone included. All weights are raised by the threshold, because 0 would mean no edge.
    alone = np.arange(n_rows)
    weights = np.concatenate([cost + threshold, np.full(n_rows, 3 * threshold)])
    graph = coo_array(
        (weights, (np.concatenate([rows, alone]), np.concatenate([columns, n_columns + alone]))),
        shape=(n_rows, n_columns + n_rows),
    ).tocsr()
    taken_rows, taken_columns = min_weight_full_bipartite_matching(graph)
    partner = np.full(n_rows, -1)
    partner[taken_rows] = taken_columns
    return np.flatnonzero(partner[rows] == columns)


def _numbered(values: np.ndarray) -> tuple[int, np.ndarray]:
    """Count distinct values, and number them 0, 1, ... in their order."""
    names, numbers = np.unique(values, return_inverse=True)
    return len(names), numbers
