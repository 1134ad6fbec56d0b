"""Where a phantom has synapses: T-bars at true contacts, each facing one or more neurons."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from em_blocks.kernels.synapses.table import Synapses
from em_blocks.kernels.synthetic.tissue import Tissue

PRE_DEPTH_NM = 32.0  # a presynaptic site is this deep below its membrane, at least
POST_DEPTH_NM = 24.0  # a postsynaptic site, about
REACH_NM = 175.0  # from a presynaptic site to the membrane of a partner, at most
REACH_COSINE = 0.15  # of the angle between the direction to a partner and that of the T-bar, at least
REACH_ACROSS_NM = 100.0  # the same across thick sections
TBAR_SPACING_NM = 280.0
PARTNER_SPACING_NM = 75.0  # between postsynaptic sites of all synapses
CONTACT_NM = 32.0  # length in the section over which a partner must be touched
PARTNERS = (1, 2, 3, 4, 5)
PARTNERS_CHANCE = (0.10, 0.22, 0.30, 0.23, 0.15)
TRIES = 48  # places that are compared for one T-bar
WITHIN_VOXEL = 0.4
"""Where in its voxel a site lies, 0..1: both readers that floor and those that round find the voxel."""


class Partner(NamedTuple):
    """A postsynaptic neuron of one T-bar."""

    neuron: int
    voxel: np.ndarray  # (3,) index of the postsynaptic site
    contact: np.ndarray  # (3,) nm, where it touches the presynaptic neuron


class TBar(NamedTuple):
    """A presynaptic site with the neurons that it faces."""

    neuron: int
    voxel: np.ndarray  # (3,) index of the presynaptic site
    normal: np.ndarray  # (3,) unit vector through the membrane, out of the neuron
    depth_nm: float  # of the site below the membrane
    partners: list[Partner]


def place_synapses(rng: np.random.Generator, tissue: Tissue, per_um3: float) -> list[TBar]:
    """Choose places for T-bars and their partners; fewer than wanted where there is no room.

    Parameters
    ----------
    rng : numpy.random.Generator
    tissue : Tissue
    per_um3 : float
        T-bars per cubic micrometre.

    Returns
    -------
    list of TBar
        T-bars are `TBAR_SPACING_NM` apart, postsynaptic sites `PARTNER_SPACING_NM`. The straight line
        between the sites of a pair runs through their two neurons only (looked at every 5 nm).
    """
    rim = _places(tissue)
    wanted = round(per_um3 * np.prod(tissue.neurons.shape * tissue.voxel_size) / 1e9)
    placed: list[TBar] = []
    sites, taken = np.empty((0, 3)), np.empty((0, 3))  # nm, presynaptic and postsynaptic
    for _ in range(3 * wanted):
        if len(placed) == wanted or not len(rim):
            break
        n_partners = rng.choice(PARTNERS, p=PARTNERS_CHANCE)
        chosen = rng.choice(rim, TRIES)
        voxels = np.stack(np.unravel_index(chosen, tissue.neurons.shape), axis=-1)
        apart = [voxel for voxel in voxels if _is_apart(tissue, voxel, sites, TBAR_SPACING_NM)]
        found = [tbar for voxel in apart if (tbar := _tbar(rng, tissue, voxel, taken))]
        if found:
            best = max(found, key=lambda tbar: min(len(tbar.partners), n_partners))
            best = best._replace(partners=best.partners[:n_partners])
            placed.append(best)
            sites = np.vstack([sites, tissue.centers(best.voxel)])
            taken = np.vstack([taken, *(tissue.centers(p.voxel) for p in best.partners)])
    return placed


def synapse_table(tbars: list[TBar], tissue: Tissue) -> Synapses:
    """One row per pair, in nm from the corner of the volume, ids from 1."""
    pairs = [(tbar, partner) for tbar in tbars for partner in tbar.partners]
    if not pairs:
        return Synapses.empty()
    return Synapses(
        id=np.arange(1, len(pairs) + 1),
        pre=np.array([tbar.voxel + WITHIN_VOXEL for tbar, _ in pairs]) * tissue.voxel_size,
        post=np.array([partner.voxel + WITHIN_VOXEL for _, partner in pairs]) * tissue.voxel_size,
        pre_segment=np.array([tbar.neuron for tbar, _ in pairs]),
        post_segment=np.array([partner.neuron for _, partner in pairs]),
    )


def _places(tissue: Tissue) -> np.ndarray:
    """Flat indices of voxels at the right depth, away from the border of the volume."""
    margin = np.maximum(2, np.ceil(60.0 / tissue.voxel_size)).astype(int)
    inner = tuple(
        slice(m, max(m, size - m)) for m, size in zip(margin, tissue.neurons.shape, strict=True)
    )
    deepest = PRE_DEPTH_NM + max(10.0, tissue.voxel_size[1:].max())
    fits = np.zeros(tissue.neurons.shape, bool)
    depth = tissue.depth[inner]
    fits[inner] = (depth >= PRE_DEPTH_NM) & (depth <= deepest) & (tissue.mitochondria[inner] == 0)
    return np.flatnonzero(fits)


def _tbar(rng, tissue: Tissue, voxel: np.ndarray, taken: np.ndarray) -> TBar | None:
    """A T-bar with all the partners it could have; None if the place does not suit."""
    site = tissue.centers(voxel)
    if tissue.mitochondria[tissue.box(site, 70.0)].any():
        return None
    neuron, depth = int(tissue.neurons[tuple(voxel)]), float(tissue.depth[tuple(voxel)])
    normal = _normal(tissue, site, neuron)
    if not _is_flat(tissue, site, neuron, normal, depth):
        return None
    partners = _partners(rng, tissue, site, neuron, normal, taken)
    return TBar(neuron, voxel, normal, depth, partners) if partners else None


def _normal(tissue: Tissue, site: np.ndarray, neuron: int) -> np.ndarray:
    """Direction out of the neuron; within the section if sections are thick."""
    box = tissue.box(site, 60.0)
    own = np.argwhere(tissue.neurons[box] == neuron) + [part.start for part in box]
    offset = tissue.centers(own) - site
    if tissue.thick:
        offset[:, 0] = 0
    outward = -offset[np.linalg.norm(offset, axis=1) < 60.0].mean(axis=0)
    return outward / max(np.linalg.norm(outward), 1e-6)


def _is_flat(tissue: Tissue, site, neuron: int, normal, depth: float) -> bool:
    """Tell whether the membrane runs across the normal, in the sections above and below too."""
    side = np.cross(normal, [1.0, 0.0, 0.0])
    side /= max(np.linalg.norm(side), 1e-6)
    if tissue.thick:
        across = [np.array([dz * tissue.voxel_size[0], 0, 0]) for dz in (-1, 0, 1)]
    else:
        across = [step * np.cross(normal, side) for step in (-30.0, 0.0, 30.0)]
    across += [-30.0 * side, 30.0 * side]
    inside = np.array([site + step - 10.0 * normal for step in across])
    outside = np.array([site + step + (depth + 25.0) * normal for step in across])
    return bool(
        (tissue.neurons[tissue.voxels(inside)] == neuron).all()
        and (tissue.neurons[tissue.voxels(outside)] != neuron).all()
    )


def _partners(rng, tissue: Tissue, site, neuron: int, normal, taken) -> list[Partner]:
    """All neurons that face the site across a contact, in random order."""
    contacts = _contacts(tissue, site, neuron)
    offset = tissue.centers(contacts) - site
    distance = np.linalg.norm(offset, axis=1)
    faced = (distance < REACH_NM) & (offset @ normal > REACH_COSINE * distance)
    if tissue.thick:
        faced &= np.abs(offset[:, 0]) < REACH_ACROSS_NM
    contacts = contacts[faced]
    labels = tissue.neurons[tuple(contacts.T)]
    partners = []
    for label in rng.permutation(np.unique(labels)):
        partner = _partner(tissue, site, neuron, int(label), contacts[labels == label])
        if partner and _is_apart(tissue, partner.voxel, taken, PARTNER_SPACING_NM):
            partners.append(partner)
            taken = np.vstack([taken, tissue.centers(partner.voxel)])
    return partners


def _contacts(tissue: Tissue, site, neuron: int) -> np.ndarray:
    """Voxels of other neurons that share a face with the neuron, (n, 3) indices."""
    box = tissue.box(site, REACH_NM)
    own = tissue.neurons[box] == neuron
    touching = np.zeros_like(own)
    # A contact across two thick sections is not seen in either.
    for axis in (1, 2) if tissue.thick else (0, 1, 2):
        ahead, behind = np.moveaxis(touching, axis, 0), np.moveaxis(own, axis, 0)
        ahead[1:] |= behind[:-1]
        ahead[:-1] |= behind[1:]
    return np.argwhere(touching & ~own) + [part.start for part in box]


def _partner(tissue: Tissue, site, neuron: int, label: int, patch: np.ndarray) -> Partner | None:
    """The middle of a contact, and a site behind it; None if it is small or hidden."""
    points = tissue.centers(patch)
    middle = np.argmin(np.linalg.norm(points - points.mean(axis=0), axis=1))
    section = patch[:, 0] == patch[middle, 0]
    if section.sum() * tissue.voxel_size[1:].min() < CONTACT_NM:
        return None
    voxel = _site_behind(tissue, points[middle], label)
    if voxel is None or not _in_sight(tissue, site, tissue.centers(voxel), neuron, label):
        return None
    return Partner(label, voxel, points[middle])


def _site_behind(tissue: Tissue, contact: np.ndarray, label: int) -> np.ndarray | None:
    """The voxel near a contact that is best at the depth of a postsynaptic site."""
    box = tissue.box(contact, 45.0)
    if tissue.thick:
        z = int(contact[0] // tissue.voxel_size[0])
        box = (slice(z, z + 1), *box[1:])
    depth = tissue.depth[box]
    fits = (tissue.neurons[box] == label) & (tissue.mitochondria[box] == 0) & (depth > 14.0)
    voxels = np.argwhere(fits)
    if not len(voxels):
        return None
    near = np.linalg.norm(tissue.centers(voxels + [part.start for part in box]) - contact, axis=1)
    cost = np.abs(depth[fits] - POST_DEPTH_NM) + 0.4 * near
    voxel = voxels[np.argmin(cost)] + [part.start for part in box]
    margin = np.minimum(voxel, np.array(tissue.neurons.shape) - 1 - voxel)
    return voxel if (margin >= 2).all() else None


def _in_sight(tissue: Tissue, site, target, neuron: int, label: int) -> bool:
    """Tell whether the line to a postsynaptic site leaves the neuron once, into the partner."""
    along = np.linspace(0, 1, 41)[:, None]
    labels = tissue.neurons[tissue.voxels(site + along * (target - site))]
    inside = labels == neuron
    return bool((inside | (labels == label)).all() and np.abs(np.diff(inside.astype(int))).sum() == 1)


def _is_apart(tissue: Tissue, voxel: np.ndarray, others: np.ndarray, spacing_nm: float) -> bool:
    """Tell whether a voxel keeps its distance from all others, (n, 3) nm."""
    return bool((np.linalg.norm(others - tissue.centers(voxel), axis=1) >= spacing_nm).all())
