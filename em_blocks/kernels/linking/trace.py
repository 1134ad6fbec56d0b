"""What became of labels at faces: continued, split, merged, ended."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import numpy as np

from em_blocks.kernels.linking.groups import grouped, sums
from em_blocks.kernels.linking.links import BACKGROUND, FaceVoxels, Overlaps


class Trace(NamedTuple):
    """Events of every face.

    Attributes
    ----------
    links : (n,) int array
        Pairs of labels that are one object.
    splits : (n,) int array
        Labels of the lower side that go on as several labels.
    merges : (n,) int array
        Labels of the higher side that several labels go on as.
    ends : (n,) int array
        Labels of the lower side in the face that go on as none.
    starts : (n,) int array
        Labels of the higher side in the face that continue none.
    """

    links: np.ndarray
    splits: np.ndarray
    merges: np.ndarray
    ends: np.ndarray
    starts: np.ndarray

    def totals(self) -> dict[str, int]:
        """Return the events of all faces together."""
        return {name: int(values.sum()) for name, values in self._asdict().items()}


def trace(found: FaceVoxels, pairs: Overlaps, accepted: np.ndarray, n_faces: int) -> Trace:
    """Count the events of every face.

    Parameters
    ----------
    found : FaceVoxels
        All voxels of the faces 0 to `n_faces` - 1.
    pairs : Overlaps
        Of these.
    accepted : (n,) bool array
        Pairs that are linked.
    """
    face, a, b = pairs.face[accepted], pairs.a[accepted], pairs.b[accepted]
    low, n_low = _links_of(found.face, found.a, face, a)
    high, n_high = _links_of(found.face, found.b, face, b)
    count = partial(np.bincount, minlength=n_faces)
    return Trace(
        links=count(face), splits=count(low[n_low > 1]), merges=count(high[n_high > 1]),
        ends=count(low[n_low == 0]), starts=count(high[n_high == 0]),
    )


def _links_of(
    face: np.ndarray, label: np.ndarray, linked_face: np.ndarray, linked_label: np.ndarray
) -> tuple[np.ndarray, np.ndarray]:
    """Return, for every label in every face, the face and the number of its links there."""
    there = label != BACKGROUND
    is_link = np.repeat([0, 1], [int(there.sum()), len(linked_face)])
    (faces, _), number = grouped(
        np.concatenate([face[there], linked_face]), np.concatenate([label[there], linked_label])
    )
    return faces, sums(number, is_link, len(faces))
