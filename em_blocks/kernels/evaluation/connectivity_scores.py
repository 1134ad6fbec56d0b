"""From synapses credited to pairs of neurons to matrices, and to scores of one against another."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np
from scipy import sparse

from em_blocks.kernels.evaluation.connectivity import WHOLE, Credits
from em_blocks.kernels.evaluation.counts import Sizes

Mode = Literal["all", "best", "directed"]
"""Which pairs a synapse is credited to: every pair whose contact zone it touches; only the one with
most of its voxels; or those of the partners found there, in the direction from pre to post."""

MAX_ROWS = 20_000_000

_BOTH, _ONLY_TRUTH, _ONLY_PREDICTION = (0, 0, 0), (0, 114, 178), (213, 94, 0)  # Okabe and Ito
_PICTURE_PIXELS = 1000


@dataclass(frozen=True)
class Neurons:
    """The neurons that are rows of the matrices, the largest first, equally large ones by id.

    Attributes
    ----------
    ids : (n,) uint64 array
    voxels : (n,) int64 array
    """

    ids: np.ndarray
    voxels: np.ndarray

    @classmethod
    def of(cls, sizes: Sizes, *, min_voxels: int, exclude: Iterable[int] = ()) -> Neurons:
        """Those with at least `min_voxels` voxels in the whole volume, without excluded ids."""
        excluded = np.array([id % 2**64 for id in exclude], np.uint64)
        wanted = (sizes.voxels >= min_voxels) & ~np.isin(sizes.id, excluded)
        kept = sizes.rows(wanted)
        order = np.lexsort((kept.id, -kept.voxels))
        return cls(kept.id[order], kept.voxels[order])

    def __len__(self) -> int:
        return len(self.ids)

    def rows_of(self, ids: np.ndarray) -> np.ndarray:
        """Row of each id in the matrices; -1 for those that are left out."""
        if not len(self.ids):
            return np.full(len(ids), -1)
        order = np.argsort(self.ids)
        place = np.searchsorted(self.ids, ids, sorter=order).clip(max=len(order) - 1)
        return np.where(self.ids[order[place]] == ids, order[place], -1)


class Directions(NamedTuple):
    """Known partners: at this synapse, `pre` is presynaptic to `post`. All (n,) uint64 ids."""

    synapse: np.ndarray
    pre: np.ndarray
    post: np.ndarray


class Rule(NamedTuple):
    """Which credits count.

    Attributes
    ----------
    min_overlap : int
        Voxels that a synapse has at least in the contact zone of a pair.
    directions : Directions or None
        For the mode "directed".
    """

    mode: Mode = "all"
    min_overlap: int = 1
    directions: Directions | None = None


class Connectivity(NamedTuple):
    """Who is connected with whom, by how many synapses.

    Attributes
    ----------
    matrix : (n, n) sparse int64 array
        Number of distinct synapses by rows of `Neurons`. Symmetric, unless directed: then from
        presynaptic (row) to postsynaptic (column). The diagonal is 0.
    synapses : Sizes
        All synapses.
    n_pairs : (k,) int64 array
        Pairs that each of `synapses` is credited to; 0 if it lies between no two neurons.
    """

    matrix: sparse.csr_array
    synapses: Sizes
    n_pairs: np.ndarray


class PairScores(NamedTuple):
    """Connected pairs of neurons in a prediction against those in truth; 0 where nothing divides."""

    precision: float
    recall: float
    fscore: float
    n_neurons: int
    tp: int
    fp: int
    fn: int


def connectivity(
    tables: Callable[[], Iterable[Credits]], neurons: Neurons, rule: Rule,
    *, max_rows: int = MAX_ROWS,
) -> Connectivity:
    """The matrix of the synapses of a whole volume.

    Parameters
    ----------
    tables : function
        Gives the credits of all blocks; called again for every pass over them.
    max_rows : int
        Rows of tables that are merged at once, about 150 bytes each; if there are more, they are
        merged in parts of whole synapses, with a pass over the tables for each.
    """
    n_parts = max(1, -(-sum(map(len, tables())) // max_rows))
    matrix, sizes, n_pairs = sparse.csr_array((len(neurons),) * 2, dtype=np.int64), [], []
    for number in range(n_parts):
        credits = Credits.merged(table.part(number, n_parts) for table in tables())
        synapse, a, b = counted_pairs(credits, neurons, rule)
        matrix = matrix + _matrix(a, b, len(neurons), directed=rule.mode == "directed")
        sizes.append(credits.sizes)
        place = np.searchsorted(credits.sizes.id, synapse)
        n_pairs.append(np.bincount(place, minlength=len(credits.sizes)))
    synapses, order = _in_order(sizes)
    return Connectivity(matrix, synapses, np.concatenate(n_pairs)[order])


def _in_order(parts: list[Sizes]) -> tuple[Sizes, np.ndarray]:
    """Disjoint tables as one, and where its rows were before."""
    ids = np.concatenate([part.id for part in parts])
    order = np.argsort(ids)
    return Sizes(np.concatenate([part.voxels for part in parts])[order], ids[order]), order


def counted_pairs(
    credits: Credits, neurons: Neurons, rule: Rule
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Synapse, and rows of the two neurons, of everything that adds 1 to the matrix; each once.

    In the mode "directed" the first neuron is the presynaptic one.
    """
    a, b = neurons.rows_of(credits.a), neurons.rows_of(credits.b)
    counts = (credits.a != WHOLE) & (a >= 0) & (b >= 0) & (credits.voxels >= rule.min_overlap)
    chosen = credits.rows(counts)
    if rule.mode == "all":
        return chosen.synapse, a[counts], b[counts]
    if rule.mode == "best":
        # Stable: of pairs with equally many voxels, the one with the smaller ids comes first.
        order = np.lexsort((-chosen.voxels, chosen.synapse))
        best = order[np.diff(chosen.synapse[order], prepend=[np.uint64(0)]) != 0]
        return chosen.synapse[best], a[counts][best], b[counts][best]
    if rule.directions is None:
        raise ValueError("the mode \"directed\" needs the known directions")
    return _directed(chosen, neurons, rule.directions)


def _directed(
    credits: Credits, neurons: Neurons, known: Directions
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The known partners that are credited with their synapse; each once."""
    synapse, pre, post = np.unique(np.stack(known), axis=1)
    known_pairs = _as_tuples(synapse, np.minimum(pre, post), np.maximum(pre, post))
    credited = set(_as_tuples(credits.synapse, credits.a, credits.b))
    chosen = np.array([pair in credited for pair in known_pairs], bool)
    return synapse[chosen], neurons.rows_of(pre[chosen]), neurons.rows_of(post[chosen])


def _as_tuples(*columns: np.ndarray) -> list[tuple[int, ...]]:
    return list(zip(*(column.tolist() for column in columns), strict=True))


def _matrix(a: np.ndarray, b: np.ndarray, n: int, *, directed: bool) -> sparse.csr_array:
    """Count how often each pair occurs; in both directions, unless directed."""
    # int64: a pair may have any number of synapses.
    once = sparse.coo_array((np.ones(len(a), np.int64), (a, b)), shape=(n, n)).tocsr()
    return once if directed else (once + once.T).tocsr()


def score_pairs(
    *, prediction: sparse.csr_array, truth: sparse.csr_array, directed: bool = False
) -> PairScores:
    """Precision, recall and F-score of "these two are connected".

    Parameters
    ----------
    prediction, truth : (n, n) sparse arrays
        Numbers of synapses. Any number above 0 is a connection.
    directed : bool
        Compare all entries, not only those above the diagonal.
    """
    called, true = (m.astype(bool) if directed else sparse.triu(m, k=1, format="csr").astype(bool)
                    for m in (prediction, truth))
    tp = int(called.multiply(true).count_nonzero())
    fp, fn = int(called.count_nonzero()) - tp, int(true.count_nonzero()) - tp
    return PairScores(
        precision=_ratio(tp, tp + fp), recall=_ratio(tp, tp + fn),
        fscore=_ratio(2 * tp, 2 * tp + fp + fn), n_neurons=truth.shape[0], tp=tp, fp=fp, fn=fn,
    )


def _ratio(part: int, whole: int) -> float:
    return part / whole if whole else 0.0


def edges(
    neurons: Neurons, *, prediction: sparse.csr_array, truth: sparse.csr_array,
    directed: bool = False,
) -> dict[str, np.ndarray]:
    """One row per pair that is connected in either: ids of both, and the numbers of synapses.

    Returns
    -------
    dict of (n,) arrays
        a, b (pre, post if directed), truth, prediction.
    """
    union = (truth + prediction).tocoo()
    row, column = union.coords
    if not directed:
        # Smaller ids first: which of the two neurons is larger means nothing here.
        upper = neurons.ids[row] < neurons.ids[column]
        row, column = row[upper], column[upper]
    order = np.lexsort((neurons.ids[column], neurons.ids[row]))
    row, column = row[order], column[order]
    names = ("pre", "post") if directed else ("a", "b")
    return {
        names[0]: neurons.ids[row], names[1]: neurons.ids[column],
        "truth": _entries(truth, row, column), "prediction": _entries(prediction, row, column),
    }


def _entries(matrix: sparse.csr_array, row: np.ndarray, column: np.ndarray) -> np.ndarray:
    return np.asarray(matrix[row, column]).reshape(-1) if len(row) else np.zeros(0, np.int64)


def draw_matrices(*, prediction: sparse.csr_array, truth: sparse.csr_array) -> np.ndarray:
    """A picture of two matrices: black where both agree, else blue (truth) or red (prediction).

    Only neurons with a connection are drawn, in the order of the rows. Above 1,000 neurons a pixel
    stands for several; it shows an agreement if there is any.

    Returns
    -------
    (y, x, 3) uint8 array
    """
    union = (truth + prediction).tocsr()
    used = np.flatnonzero((union.sum(axis=0) + union.sum(axis=1)) > 0)
    n = min(max(1, len(used)), _PICTURE_PIXELS)
    pixel = np.arange(len(used)) * n // max(1, len(used))
    picture = np.full((n, n, 3), 255, np.uint8)
    in_both = truth.astype(bool).multiply(prediction.astype(bool))
    for matrix, colour in (
        (truth, _ONLY_TRUTH), (prediction, _ONLY_PREDICTION), (in_both, _BOTH)
    ):
        row, column = matrix.tocoo().coords
        picture[pixel[np.searchsorted(used, row)], pixel[np.searchsorted(used, column)]] = colour
    enlarged = -(-_PICTURE_PIXELS // (2 * n)) if n < _PICTURE_PIXELS // 2 else 1
    return picture.repeat(enlarged, axis=0).repeat(enlarged, axis=1)
