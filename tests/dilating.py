"""Shared helper: which neurons meet at which synapse, by dilating every neuron."""

import itertools

import numpy as np
from scipy import ndimage


def slow_contacts(neurons, n):
    """Masks of the contact zones of all pairs: every neuron dilated, every two intersected."""
    step = ndimage.generate_binary_structure(3, 1)
    in_section = step * np.array([0, 1, 0])[:, None, None]
    dilated = {}
    for id in np.unique(neurons[neurons != 0]).tolist():
        mask = ndimage.binary_dilation(neurons == id, step)
        dilated[id] = ndimage.binary_dilation(mask, in_section, iterations=n - 1) if n > 1 else mask
    return {
        (a, b): dilated[a] & dilated[b] for a, b in itertools.combinations(sorted(dilated), 2)
    }


def slow_credits(synapses, neurons, n):
    """Voxels of every synapse in every contact zone, by (synapse, a, b)."""
    found = {}
    for (a, b), mask in slow_contacts(neurons, n).items():
        for synapse, voxels in zip(*np.unique(synapses[mask], return_counts=True), strict=True):
            if synapse:
                found[int(synapse), a, b] = int(voxels)
    return found


def sizes_of(labels):
    ids, voxels = np.unique(labels[labels != 0], return_counts=True)
    return {(int(id),): int(n) for id, n in zip(ids, voxels, strict=True)}


def random_volume(seed, shape=(24, 160, 160), neurons=40, synapses=30):
    """Boxes of neurons with gaps, and boxes of synapses across them."""
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, neurons, [-(-s // c) for s, c in zip(shape, (3, 16, 16), strict=True)])
    cells = coarse.repeat(3, 0).repeat(16, 1).repeat(16, 2)[tuple(map(slice, shape))]
    found = np.zeros(shape, np.uint64)
    for id in range(1, synapses):
        z, y, x = (rng.integers(0, s) for s in shape)
        found[z:z + 3, y:y + 11, x:x + 11] = id
    return cells.astype(np.uint64) * 2**40, found
