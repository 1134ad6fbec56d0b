"""EM-like volumes with exact labels, made from a seed.

Neurites are Voronoi cells of random curves in a warped space. Everything else
is painted on top of their labels, part by part, so that a part can be added
without changing the others: every part draws from a generator of its own.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import edt
import numpy as np
from scipy import ndimage
from scipy.spatial import cKDTree

from em_blocks.kernels.synapses.table import Synapses
from em_blocks.kernels.synthetic.synapse_paint import paint_synapses
from em_blocks.kernels.synthetic.synapses import place_synapses, synapse_table
from em_blocks.kernels.synthetic.tissue import MEMBRANE_NM, Tissue, box_around, thick_sections
from em_blocks.kernels.transforms.noise import smooth_noise

# Intensities on a 0..1 scale; real stained tissue looks about like this.
CYTOPLASM, MEMBRANE, MITOCHONDRION, CRISTA = 0.66, 0.22, 0.40, 0.30
STEP_NM = 80.0  # spacing of points along a neurite
MITOCHONDRIA_PER_UM = 0.7  # along a neurite
# Only append: seeds count.
PARTS = ("skeletons", "warp", "mitochondria", "cytoplasm", "imaging", "synapses")
CLEARANCE_NM = 28.0  # between a mitochondrion and its neuron's membrane


class Phantom(NamedTuple):
    """A generated volume with its truth; all arrays are (z, y, x)."""

    raw: np.ndarray  # uint8
    neurons: np.ndarray  # uint64, no voxel is 0
    mitochondria: np.ndarray  # uint64, 0 outside
    synapses: Synapses  # sites in nm from the corner of the volume; segments are neurons


class Skeletons(NamedTuple):
    """Points along all neurites, in the warped space."""

    position: np.ndarray  # (n, 3) nm (z, y, x)
    direction: np.ndarray  # (n, 3) unit vectors
    radius: np.ndarray  # (n,) nm
    neuron: np.ndarray  # (n,) ids from 1


def phantom(
    shape: Sequence[int],
    *,
    voxel_size: Sequence[float] = (40, 4, 4),
    seed: int,
    neurite_nm: float = 300.0,
    synapses_per_um3: float = 0.0,
) -> Phantom:
    """Make a volume of neurites with membranes, mitochondria, synapses, texture and noise.

    Parameters
    ----------
    shape : (3,) ints
        Voxels (z, y, x).
    voxel_size : (3,) floats
        nm per voxel (z, y, x).
    seed : int
        Same arguments and seed, same bytes.
    neurite_nm : float
        Typical thickness of a neurite, nm.
    synapses_per_um3 : float
        T-bars per cubic micrometre, each with one to five partners. About 20 are the most for which
        there is room. Volumes of one seed differ only around synapses.

    Returns
    -------
    Phantom
        Labels touch each other: membranes lie on both sides of the line where
        two neurons meet, and belong to them.
    """
    shape, voxel_size = tuple(shape), np.asarray(voxel_size, float)
    streams = dict(zip(PARTS, np.random.default_rng(seed).spawn(len(PARTS)), strict=True))
    skeletons = _grow_skeletons(streams["skeletons"], np.multiply(shape, voxel_size), neurite_nm)
    space = _warped_space(streams["warp"], shape, voxel_size, neurite_nm)
    neurons = _nearest_neuron(space, skeletons, neurite_nm)
    depth = _depth(neurons, voxel_size)
    mitochondria = _mitochondria(
        streams["mitochondria"], space, skeletons, neurons, depth, voxel_size
    )
    image = _cytoplasm(streams["cytoplasm"], neurons, voxel_size)
    _paint_mitochondria(image, mitochondria, space, voxel_size)
    _paint_membranes(image, neurons, depth, voxel_size)
    tissue = Tissue(neurons, mitochondria, depth, voxel_size)
    tbars = place_synapses(streams["synapses"], tissue, synapses_per_um3)
    paint_synapses(streams["synapses"], image, tissue, tbars)
    raw = _image(streams["imaging"], image, voxel_size)
    return Phantom(
        raw, neurons.astype(np.uint64), mitochondria.astype(np.uint64), synapse_table(tbars, tissue)
    )


def _grow_skeletons(rng: np.random.Generator, extent: np.ndarray, neurite_nm: float) -> Skeletons:
    """Random curves, until they would fill the volume at the wanted thickness."""
    margin = 2 * neurite_nm
    low, high = -np.full(3, margin), extent + margin
    wanted = np.prod(high - low) / neurite_nm**2  # length of curve, nm
    parts, length, neuron = [], 0.0, 0
    while length < wanted:
        neuron += 1
        position, direction = _curve(rng, low, high)
        radius = neurite_nm * rng.lognormal(-0.9, 0.45) * _beads(rng, len(position))
        parts.append((position, direction, radius, np.full(len(position), neuron)))
        length += len(position) * STEP_NM
    return Skeletons(*(np.concatenate(arrays) for arrays in zip(*parts, strict=True)))


def _curve(rng: np.random.Generator, low, high) -> tuple[np.ndarray, np.ndarray]:
    """A smooth random walk that starts inside a box and ends outside or by chance."""
    steps = int(rng.uniform(2_000, 12_000) / STEP_NM)
    heading = _unit(rng.standard_normal(3))
    turns = ndimage.gaussian_filter1d(rng.standard_normal((steps, 3)), 8, axis=0) * 2.2
    directions = _unit(heading + np.cumsum(turns * 0.08, axis=0))
    position = np.cumsum(directions * STEP_NM, axis=0)
    position += rng.uniform(low, high) - position[steps // 2]
    inside = np.all((position >= low) & (position <= high), axis=1)
    return position[inside], directions[inside]


def _beads(rng: np.random.Generator, steps: int) -> np.ndarray:
    """Slow changes of thickness along a neurite, around 1."""
    noise = ndimage.gaussian_filter1d(rng.standard_normal(steps + 40), 5)[20 : steps + 20]
    return np.exp(0.9 * noise)


def _unit(vectors: np.ndarray) -> np.ndarray:
    return vectors / np.linalg.norm(vectors, axis=-1, keepdims=True)


def _warped_space(
    rng: np.random.Generator, shape, voxel_size: np.ndarray, neurite_nm: float
) -> np.ndarray:
    """Positions of all voxels in the space of the skeletons, (z, y, x, 3) float32 nm."""
    space = np.empty((*shape, 3), np.float32)
    for axis in range(3):
        along = [1, 1, 1]
        along[axis] = -1
        straight = (np.arange(shape[axis]) + 0.5) * voxel_size[axis]
        space[..., axis] = straight.astype(np.float32).reshape(along)
        for scale_nm, amplitude_nm in ((neurite_nm, 0.22 * neurite_nm), (90.0, 11.0)):
            space[..., axis] += np.float32(amplitude_nm) * smooth_noise(
                rng, shape, voxel_size, scale_nm
            )
    return space


def _nearest_neuron(space: np.ndarray, skeletons: Skeletons, neurite_nm: float) -> np.ndarray:
    """Neuron whose skeleton is nearest, thick ones reaching farther; (z, y, x) uint32.

    A fourth coordinate turns the power distance (squared distance minus
    squared radius) into a plain distance, which a k-d tree answers.
    """
    radius = np.minimum(skeletons.radius, neurite_nm)
    lift = np.sqrt(neurite_nm**2 - radius**2)
    tree = cKDTree(np.column_stack([skeletons.position, lift]))
    neurons = np.empty(space.shape[:3], np.uint32)
    for z, section in enumerate(space):
        points = np.concatenate([section, np.zeros_like(section[..., :1])], axis=-1)
        _, nearest = tree.query(points.reshape(-1, 4), workers=-1)
        neurons[z] = skeletons.neuron[nearest].reshape(section.shape[:2])
    return neurons


def _depth(neurons: np.ndarray, voxel_size: np.ndarray) -> np.ndarray:
    """Distance of every voxel to the rim of its neuron, nm, within sections if they are thick."""
    if not thick_sections(voxel_size):
        return edt.edt(neurons, anisotropy=tuple(voxel_size)) - voxel_size.min() / 2
    sections = [edt.edt(section, anisotropy=tuple(voxel_size[1:])) for section in neurons]
    return np.stack(sections) - np.float32(voxel_size[1:].min() / 2)


def _mitochondria(
    rng: np.random.Generator,
    space: np.ndarray,
    skeletons: Skeletons,
    neurons: np.ndarray,
    depth: np.ndarray,
    voxel_size: np.ndarray,
) -> np.ndarray:
    """Ellipsoids along skeletons, each inside one neuron; (z, y, x) uint32."""
    mitochondria = np.zeros(neurons.shape, np.uint32)
    chance = MITOCHONDRIA_PER_UM * STEP_NM / 1000
    chosen = np.flatnonzero(rng.random(len(skeletons.neuron)) < chance)
    for number, point in enumerate(chosen, start=1):
        long, short = rng.uniform(180, 480), rng.uniform(70, 130)
        center, direction = skeletons.position[point], skeletons.direction[point]
        box = box_around(center, long + 0.5 * skeletons.radius.mean(), neurons.shape, voxel_size)
        if any(part.start >= part.stop for part in box):
            continue
        offset = space[box] - center.astype(np.float32)
        along = offset @ direction.astype(np.float32)
        squared = (offset**2).sum(-1)
        reach = along**2 / long**2 + (squared - along**2) / short**2
        if mitochondria[box][reach < 1.5].any():
            continue  # neighbours would fuse into one body
        own = (neurons[box] == skeletons.neuron[point]) & (depth[box] > CLEARANCE_NM)
        mitochondria[box][own & (reach < 1)] = number
    return mitochondria


def _cytoplasm(rng: np.random.Generator, neurons: np.ndarray, voxel_size) -> np.ndarray:
    """Grey of every neuron with filaments and granules; (z, y, x) float32."""
    shade = rng.normal(0, 0.045, int(neurons.max()) + 1).astype(np.float32)
    image = CYTOPLASM + shade[neurons]
    for scale_nm, amplitude in ((60.0, 0.022), (22.0, 0.035)):
        image += np.float32(amplitude) * smooth_noise(rng, neurons.shape, voxel_size, scale_nm)
    granules = smooth_noise(rng, neurons.shape, voxel_size, 28.0)
    image -= np.float32(0.13) * np.clip(granules - 1.6, 0, 1.2)
    return image


def _paint_mitochondria(image, mitochondria, space, voxel_size) -> None:
    """Dark bodies with cristae and a darker rim."""
    inside = mitochondria > 0
    if not inside.any():
        return
    rim = edt.edt(mitochondria, anisotropy=_in_plane(voxel_size))[inside]
    z, y, x = space[inside].T
    number = mitochondria[inside].astype(np.float32)
    # Stripes about 45 nm apart, of another direction in each mitochondrion.
    phase = (x * np.sin(number) + y * np.cos(number) + 0.5 * z) * np.float32(2 * np.pi / 45)
    stripes = np.clip(np.sin(phase) * 1.5, -1, 1) * 0.5 + 0.5
    grey = MITOCHONDRION + (CRISTA - MITOCHONDRION) * stripes
    grey -= 0.10 * np.exp(-0.5 * (rim / 9.0) ** 2)
    image[inside] = 0.25 * (image[inside] - CYTOPLASM) + grey


def _in_plane(voxel_size: np.ndarray) -> tuple[float, ...]:
    """Voxel size for distances that ignore thick sections."""
    z = 1e4 if thick_sections(voxel_size) else voxel_size[0]
    return (z, voxel_size[1], voxel_size[2])


def _paint_membranes(image, neurons, depth, voxel_size) -> None:
    dark = np.exp(-0.5 * (depth / np.float32(MEMBRANE_NM)) ** 2)
    if thick_sections(voxel_size):
        np.maximum(dark, _oblique_membranes(neurons, voxel_size), out=dark)
    image += dark * (MEMBRANE - image)


def _oblique_membranes(neurons: np.ndarray, voxel_size: np.ndarray) -> np.ndarray:
    """Smear of membranes that a thick section cuts at an angle; (z, y, x), 0..0.6."""
    moved = np.zeros(neurons.shape, np.float32)
    changed = neurons[1:] != neurons[:-1]
    moved[1:] += 0.35 * changed
    moved[:-1] += 0.35 * changed
    return ndimage.gaussian_filter(moved, (0, *(8.0 / voxel_size[1:])))


def _image(rng: np.random.Generator, image: np.ndarray, voxel_size: np.ndarray) -> np.ndarray:
    """Simulate the microscope: blur, section brightness, noise; uint8."""
    sigma = np.where(voxel_size < 2 * voxel_size.min(), 3.5 / voxel_size, 0)
    image = ndimage.gaussian_filter(image, sigma)
    sections = (len(image), 1, 1)
    contrast = rng.normal(1, 0.03, sections).astype(np.float32)
    brightness = rng.normal(0, 0.012, sections).astype(np.float32)
    image = (image - CYTOPLASM) * contrast + CYTOPLASM + brightness
    image += np.float32(0.045) * rng.standard_normal(image.shape, dtype=np.float32)
    return np.clip(image * 255, 0, 255).round().astype(np.uint8)
