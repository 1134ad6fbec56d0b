"""The scores of the CREMI challenge, written anew from its rules, as slow as they say.

Partners (`fscore`) and neurons (`adapted_rand_error`, `variation_of_information`).
This shares nothing with em_blocks: locations and neurons come straight from HDF5 files, the voxel of a
site is its location over the resolution, rounded half away from zero as Python 2 did, and links are
matched in a square matrix in which everything that may not match costs twice the threshold.
"""

from __future__ import annotations

import math
from pathlib import Path

import h5py
import numpy as np
from scipy import ndimage
from scipy.optimize import linear_sum_assignment

THRESHOLD_NM = 400.0


def fscore(found: Path, truth: Path, neurons: Path, rounded=None) -> float:
    """The score of the links of one file, given those of another and the neurons of a third.

    Parameters
    ----------
    rounded : function, optional
        From a number to the integer index of a voxel.
    """
    rounded = rounded or half_away_from_zero
    with h5py.File(neurons) as file:
        dataset = file["volumes/labels/neuron_ids"]
        labels, size = dataset[:], dataset.attrs["resolution"]
        corner = dataset.attrs.get("offset", np.zeros(3))
    lists = [_links(path, corner) for path in (found, truth)]
    sides = [[_neurons(link, labels, size, rounded) for link in links] for links in lists]
    n = max(len(lists[0]), len(lists[1]))
    costs = np.full((n, n), 2 * THRESHOLD_NM)
    for i, (one, its) in enumerate(zip(lists[0], sides[0], strict=True)):
        for j, (other, others) in enumerate(zip(lists[1], sides[1], strict=True)):
            distances = np.linalg.norm(np.subtract(one, other), axis=1)
            if its == others and None not in its and (distances <= THRESHOLD_NM).all():
                costs[i, j] = distances.mean()
    matched = int((costs[linear_sum_assignment(costs)] <= THRESHOLD_NM).sum())
    return 2 * matched / (len(lists[0]) + len(lists[1]))


def half_away_from_zero(value: float) -> int:
    """As round() of Python 2."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def _links(path: Path, corner: np.ndarray) -> list[tuple[np.ndarray, np.ndarray]]:
    """Locations of both sites of every pair, from the corner of the neurons on."""
    with h5py.File(path) as file:
        group = file["annotations"]
        shift = group.attrs.get("offset", np.zeros(3)) - corner
        located = dict(zip(group["ids"][:].tolist(), group["locations"][:] + shift, strict=True))
        pairs = group["presynaptic_site/partners"][:].tolist()
    return [(located[pre], located[post]) for pre, post in pairs]


def _neurons(link, labels: np.ndarray, size: np.ndarray, rounded) -> tuple:
    """Neurons at both sites; None out of the volume."""
    voxels = [tuple(rounded(value) for value in site / size) for site in link]
    return tuple(
        int(labels[v]) if all(0 <= i < n for i, n in zip(v, labels.shape, strict=True)) else None
        for v in voxels
    )


def adapted_rand_error(segmentation: np.ndarray, truth: np.ndarray, known: np.ndarray) -> float:
    """As of SNEMI3D: voxels of segment 0 count one by one, and those that are not known not at all."""
    shared = _shared(segmentation[known], truth[known])
    zero = np.unique(segmentation[known]) == 0
    alone = shared[:, zero].sum() / segmentation.size
    joined = (shared[:, ~zero] ** 2).sum() + alone
    precision = joined / ((shared[:, ~zero].sum(axis=0) ** 2).sum() + alone)
    recall = joined / (shared.sum(axis=1) ** 2).sum()
    return 1 - 2 * precision * recall / (precision + recall)


def variation_of_information(segmentation, truth, known) -> tuple[float, float]:
    """Split and merge, bits."""
    p = _shared(segmentation[known], truth[known]) / known.sum()
    def entropy(shares):
        return -(shares[shares > 0] * np.log2(shares[shares > 0])).sum()
    return entropy(p) - entropy(p.sum(axis=1)), entropy(p) - entropy(p.sum(axis=0))


def away_from_borders(truth: np.ndarray, pixels: float) -> np.ndarray:
    """Voxels farther than so many pixels from one with another neighbour in its section."""
    known = np.ones(truth.shape, bool)
    for section, mask in zip(truth, known, strict=True):
        padded = np.pad(section, 1, mode="edge")
        around = (padded[:-2, 1:-1], padded[2:, 1:-1], padded[1:-1, :-2], padded[1:-1, 2:])
        inside = np.logical_and.reduce([section == other for other in around])
        mask[:] = ndimage.distance_transform_edt(inside) > pixels
    return known


def _shared(segmentation: np.ndarray, truth: np.ndarray) -> np.ndarray:
    """Voxels of every pair, truth in rows."""
    (rows, row), (columns, column) = (
        np.unique(labels, return_inverse=True) for labels in (truth, segmentation)
    )
    table = np.zeros((len(rows), len(columns)))
    np.add.at(table, (row, column), 1)
    return table
