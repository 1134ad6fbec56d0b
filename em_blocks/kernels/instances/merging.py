"""Which fragments are one instance, told by a logistic regression on their boundaries."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np

from em_blocks.geometry import Nm3
from em_blocks.kernels.instances.boundaries import FEATURES, Boundaries, features

_PENALTY = 1.0  # of squared weights of features with unit variance: some ten boundaries decide none


class Model(NamedTuple):
    """Log odds that a boundary lies between two instances: bias + sum of weights * features.

    Attributes
    ----------
    bias : float
    weights : mapping of names in `FEATURES` to floats
        What is missing has none.
    """

    bias: float
    weights: Mapping[str, float]


class Fragments(NamedTuple):
    """Fragments by ascending id; (n,) int64 arrays."""

    ids: np.ndarray
    voxels: np.ndarray


def merged(
    found: Boundaries, fragments: Fragments, model: Model, *, threshold: float, voxel_size: Nm3
) -> np.ndarray:
    """Return the fragment that each fragment becomes: the smallest id of all that it is merged with.

    Parameters
    ----------
    found : Boundaries
        One row per pair.
    threshold : float
        Fragments are merged where the probability that they are two instances is below this, and so
        is what any chain of such boundaries connects.
    """
    from scipy.sparse import coo_array
    from scipy.sparse.csgraph import connected_components

    values = features_of(found, fragments, voxel_size)
    odds = model.bias + values @ np.array([model.weights.get(name, 0.0) for name in FEATURES])
    one = odds < np.log(threshold) - np.log1p(-threshold)
    n = len(fragments.ids)
    u, v = (np.searchsorted(fragments.ids, ids[one]) for ids in (found.u, found.v))
    _, group = connected_components(coo_array((np.ones(len(u)), (u, v)), (n, n)), directed=False)
    first = np.full(n, n)
    np.minimum.at(first, group, np.arange(n))
    return fragments.ids[first[group]] if n else fragments.ids


def fit(
    found: Boundaries, fragments: Fragments, owner: np.ndarray, *, voxel_size: Nm3,
    names: tuple[str, ...] = FEATURES,
) -> Model | None:
    """Fit a model to fragments whose instances are known.

    Returns None unless there are boundaries between two instances, and boundaries within one.

    Parameters
    ----------
    owner : (n,) int array
        True instance of every fragment; 0 where there is none.
    names : tuple of str
        Features that are used.
    """
    from sklearn.linear_model import LogisticRegression

    u, v = (owner[np.searchsorted(fragments.ids, ids)] for ids in (found.u, found.v))
    known = (u != 0) & (v != 0)
    apart = (u != v)[known]
    if apart.all() or not apart.any():
        return None
    columns = [FEATURES.index(name) for name in names]
    values = features_of(found, fragments, voxel_size)[known][:, columns]
    mean, scale = values.mean(axis=0), values.std(axis=0)
    scale[scale == 0] = 1.0
    fitted = LogisticRegression(C=1 / _PENALTY, max_iter=1000).fit((values - mean) / scale, apart)
    weights = fitted.coef_[0] / scale
    bias = float(fitted.intercept_[0] - weights @ mean)
    return Model(bias, dict(zip(names, weights.tolist(), strict=True)))


def features_of(found: Boundaries, fragments: Fragments, voxel_size: Nm3) -> np.ndarray:
    """Return the features of boundaries, (n, len(FEATURES))."""
    volumes = fragments.voxels * float(np.prod(voxel_size))
    u, v = (volumes[np.searchsorted(fragments.ids, ids)] for ids in (found.u, found.v))
    return features(found, (u, v), voxel_size)
