"""Slow references for instances: one voxel after the other, in the whole volume."""

from __future__ import annotations

import heapq

import numpy as np
from scipy import ndimage

FACES = ndimage.generate_binary_structure(3, 1)


def slow_landscape(foreground, contour=None, distance=None, *, threshold, seeds):
    """The landscape of maps of bytes, by probabilities."""
    depth, is_seed = foreground.astype(int), foreground / 255 >= seeds["foreground"]
    if contour is not None:
        is_seed &= contour / 255 <= seeds["contour"]
        depth = np.minimum(depth, 255 - contour.astype(int))
    if distance is not None:
        is_seed &= distance / 255 >= seeds["distance"]
        depth = np.minimum(depth, distance)
    inside = foreground / 255 >= threshold
    return np.where(inside, np.where(is_seed, 255, np.clip(depth, 1, 254)), 0).astype(np.uint8)


def slow_instances(landscape, *, min_seed_size, min_size):
    """Every component flooded from its seeds; 1, 2, ... in the order of first voxels."""
    components, n = ndimage.label(landscape > 0, FACES)
    for number in range(1, n + 1):
        if (components == number).sum() < min_size:
            components[components == number] = 0
    seeds, n = ndimage.label((landscape == 255) & (components > 0), FACES)
    for number in range(1, n + 1):
        if (seeds == number).sum() < min_seed_size:
            seeds[seeds == number] = 0
    return in_order(slow_flood(landscape, np.where(components > 0, np.where(seeds > 0, seeds, -1), 0)),
                    min_size)


def in_order(labels, min_size):
    found, n = np.zeros(labels.shape, np.uint64), 0
    ids, first, sizes = np.unique(labels, return_index=True, return_counts=True)
    for id in ids[np.argsort(first)]:
        if id > 0 and sizes[ids == id] >= min_size:
            n += 1
            found[labels == id] = n
    return found


def slow_flood(landscape, labels):
    """Give voxels of -1 to the seeds (above 0) with the cheapest way; 0 where there is none.

    A way costs the highest level on it, then the steps since that was reached; neighbours by faces.
    """
    cost = {tuple(p): (0, 0) for p in np.argwhere(labels > 0)}
    waiting, order = [(*c, p) for p, c in cost.items()], []
    heapq.heapify(waiting)
    final = set()
    while waiting:
        level, steps, p = heapq.heappop(waiting)
        if p in final:
            continue
        final.add(p)
        order.append(p)
        for q in neighbours(p, labels.shape):
            if labels[q] == -1:
                found = further((level, steps), landscape[q])
                if found < cost.get(q, (999, 0)):
                    cost[q] = found
                    heapq.heappush(waiting, (*found, q))
    result = np.where(labels > 0, labels, 0)
    for p in order:
        if labels[p] == -1:
            result[p] = min(
                result[q] for q in neighbours(p, labels.shape)
                if labels[q] != 0 and q in cost and further(cost[q], landscape[p]) == cost[p]
            )
    return result


def further(cost, depth):
    level = max(1, 255 - int(depth))
    return (level, 1) if level > cost[0] else (cost[0], cost[1] + 1)


def neighbours(p, shape):
    for axis in range(3):
        for step in (-1, 1):
            q = (*p[:axis], p[axis] + step, *p[axis + 1:])
            if 0 <= q[axis] < shape[axis]:
                yield q


def filled(labels, max_hole=None):
    """Labels with their holes filled: gaps by faces that touch no border, and one object only."""
    found = labels.copy()
    gaps, n = ndimage.label(labels == 0)
    for gap in range(1, n + 1):
        here = gaps == gap
        inside = here[1:-1, 1:-1, 1:-1].sum() == here.sum()
        around = np.unique(labels[ndimage.binary_dilation(here, FACES) & ~here])
        if inside and len(around) == 1 and here.sum() <= (max_hole or here.size):
            found[here] = around[0]
    return found
