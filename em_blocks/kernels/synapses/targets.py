"""What a network learns about synapses: where postsynaptic sites are, and where their partners lie."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import NamedTuple

import numpy as np

from em_blocks.geometry import triple

Slices = tuple[slice, slice, slice]


class PartnerVectors(NamedTuple):
    """Direction vectors around postsynaptic sites."""

    vectors: np.ndarray  # (3, z, y, x) float32: from a voxel's centre to the presynaptic site, nm
    mask: np.ndarray  # (z, y, x) uint8: 1 where there is a vector


def ball_reach(radius_nm: float, voxel_size: Sequence[float]) -> tuple[int, int, int]:
    """Return how far balls reach into their surroundings, voxels (z, y, x).

    It is one voxel more than the radius: a site may lie anywhere in its voxel.
    """
    z, y, x = np.ceil(radius_nm / np.asarray(voxel_size, float)).astype(int) + 1
    return int(z), int(y), int(x)


def site_balls(
    labels: np.ndarray,
    sites: np.ndarray,
    *,
    radius_nm: float,
    voxel_size: Sequence[float],
    offset: Sequence[float],
) -> np.ndarray:
    """Mark a ball around every site, within the neuron that the site lies in.

    Parameters
    ----------
    labels : (z, y, x) int array
        Neurons.
    sites : (n, 3) array
        nm (z, y, x). They may lie outside; their balls reach in.
    radius_nm : float
        A voxel belongs to the ball if its centre is at most this far from the centre of the
        site's voxel.
    voxel_size, offset : (3,) floats
        nm (z, y, x), of the labels.

    Returns
    -------
    (z, y, x) uint8 array of 0 and 1

    References
    ----------
    Indicator of postsynaptic sites: Buhmann et al. 2021, doi:10.1038/s41592-021-01183-7.
    """
    marked = np.zeros(labels.shape, np.uint8)
    for _, box, inside, _ in _balls(labels, sites, radius_nm, voxel_size, offset):
        marked[box] |= inside
    return marked


def partner_vectors(
    labels: np.ndarray,
    post: np.ndarray,
    pre: np.ndarray,
    *,
    radius_nm: float,
    voxel_size: Sequence[float],
    offset: Sequence[float],
) -> PartnerVectors:
    """Vectors to the presynaptic partner, in a ball around every postsynaptic site.

    Where the balls of several sites overlap, a voxel points to the partner of the nearest site;
    of equally near ones, to that of the first.

    Parameters
    ----------
    labels, radius_nm, voxel_size, offset
        As in `site_balls`.
    post, pre : (n, 3) arrays
        Sites of n pairs, nm (z, y, x). Either may lie outside.

    References
    ----------
    Direction vectors: doi:10.1038/s41592-021-01183-7.
    """
    size, offset = np.asarray(voxel_size, float), np.asarray(offset, float)
    vectors = np.zeros((3, *labels.shape), np.float32)
    nearest = np.full(labels.shape, np.inf, np.float32)
    for site, box, inside, squared in _balls(labels, post, radius_nm, size, offset):
        mine = inside & (squared < nearest[box])
        nearest[box][mine] = squared[mine]
        for axis in range(3):
            along = [1, 1, 1]
            along[axis] = -1
            centres = offset[axis] + (np.arange(box[axis].start, box[axis].stop) + 0.5) * size[axis]
            towards = np.broadcast_to((pre[site][axis] - centres).reshape(along), mine.shape)
            vectors[axis][box][mine] = towards[mine]
    return PartnerVectors(vectors, np.isfinite(nearest).astype(np.uint8))


def _balls(
    labels: np.ndarray, sites: np.ndarray, radius_nm: float, voxel_size, offset
) -> Iterator[tuple[int, Slices, np.ndarray, np.ndarray]]:
    """Of every ball that reaches in: site, box, voxels of its neuron inside, squared distance (nm²)."""
    size = np.asarray(voxel_size, float)
    reach = np.floor(radius_nm / size + 1e-9).astype(int)
    for number, site in enumerate(np.asarray(sites, float).reshape(-1, 3)):
        centre = np.floor((site - np.asarray(offset, float)) / size).astype(int)
        first = np.maximum(centre - reach, 0)
        last = np.minimum(centre + reach + 1, labels.shape)
        if (first >= last).any():
            continue
        box = triple(slice(a, b) for a, b in zip(first, last, strict=True))
        z, y, x = (
            ((np.arange(a, b) - c) * v) ** 2
            for a, b, c, v in zip(first, last, centre, size, strict=True)
        )
        squared = (z[:, None, None] + y[:, None] + x).astype(np.float32)
        inside = squared <= np.float32(radius_nm**2 * (1 + 1e-6))
        # A site outside has no label that is known: its ball is trimmed by the voxel nearest to it.
        at = np.clip(centre, 0, np.subtract(labels.shape, 1))
        inside &= labels[box] == labels[tuple(at)]
        yield number, box, inside, squared
