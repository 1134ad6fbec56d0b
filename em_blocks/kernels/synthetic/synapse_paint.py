"""How synapses look in a phantom: T-bars, vesicles, and densities behind the membranes of partners."""

from __future__ import annotations

from collections.abc import Callable

import edt
import numpy as np

from em_blocks.kernels.synthetic.synapses import TBar
from em_blocks.kernels.synthetic.tissue import Tissue

# Intensities as in phantom.py, where a membrane is 0.22 and cytoplasm 0.66.
DENSITY, PSD, VESICLE_WALL, VESICLE_INSIDE = 0.08, 0.08, 0.36, 0.62
PLATFORM_NM, PLATFORM_FROM_NM, PLATFORM_TO_NM = 31.0, 27.0, 42.0  # radius; below the membrane
PEDESTAL_NM = 12.0
PSD_THICK_NM = 20.0
PSD_RADIUS_NM = (28.0, 48.0)
VESICLE_NM, VESICLE_GAP_NM = 17.0, 36.0  # radius, and distance of two centres
CLOUD_NM = 75.0  # standard deviation of a cloud of vesicles
CLOUDS_ALONE = 0.3  # clouds without a T-bar, per T-bar
SUBSECTION_NM = 8.0  # a thick section is the mean of thin ones


def paint_synapses(
    rng: np.random.Generator, image: np.ndarray, tissue: Tissue, tbars: list[TBar]
) -> None:
    """Paint synapses into an image, (z, y, x) float32, in place."""
    for tbar in tbars:
        site = tissue.centers(tbar.voxel)
        _paint_cloud(rng, image, tissue, site - 50.0 * tbar.normal, tbar.neuron, tbar)
        _paint_tbar(image, tissue, tbar)
        for partner in tbar.partners:
            radius = rng.uniform(*PSD_RADIUS_NM)
            _paint_psd(image, tissue, tbar.neuron, partner.neuron, partner.contact, radius)
    _paint_lone_clouds(rng, image, tissue, tbars)


def _paint_tbar(image: np.ndarray, tissue: Tissue, tbar: TBar) -> None:
    """A pedestal on the membrane with a platform parallel to it."""
    membrane = tissue.centers(tbar.voxel) + tbar.depth_nm * tbar.normal
    box = tissue.box(membrane, 75.0)

    def coverage(z, y, x):
        height = -(z * tbar.normal[0] + y * tbar.normal[1] + x * tbar.normal[2])
        radius = np.sqrt(np.maximum(z**2 + y**2 + x**2 - height**2, 0))
        slab = _soft(PLATFORM_FROM_NM - height) * _soft(height - PLATFORM_TO_NM)
        platform = slab * _soft(radius - PLATFORM_NM)
        pedestal = _soft(radius - PEDESTAL_NM) * _soft(height - PLATFORM_TO_NM)
        return np.maximum(platform, pedestal)

    weight = _section_mean(tissue, box, membrane, coverage)
    _blend(image, box, weight * (tissue.neurons[box] == tbar.neuron), DENSITY)


def _paint_psd(image, tissue: Tissue, neuron: int, partner: int, contact, radius: float) -> None:
    """A density along the membrane of a partner, on its side of the contact."""
    box = tissue.box(contact, radius + 30.0)
    weight = _section_mean(
        tissue, box, contact, lambda z, y, x: _soft(np.sqrt(z**2 + y**2 + x**2) - radius, 4.0)
    )
    gap = _distance_to(tissue.neurons[box] == neuron, tissue)
    weight = weight * _soft(gap - PSD_THICK_NM) * (tissue.neurons[box] == partner)
    _blend(image, box, weight, PSD)


def _distance_to(mask: np.ndarray, tissue: Tissue) -> np.ndarray:
    """Distance of every voxel to a mask, nm, within sections if they are thick."""
    if not tissue.thick:
        return edt.edt(~mask, anisotropy=tuple(tissue.voxel_size))
    sections = [edt.edt(~section, anisotropy=tuple(tissue.voxel_size[1:])) for section in mask]
    return np.stack([np.where(np.isfinite(d), d, 1e4) for d in sections])


def _paint_cloud(rng, image, tissue: Tissue, center, neuron: int, tbar: TBar | None) -> None:
    """Vesicles around a point of a neuron, none inside its T-bar."""
    points = center + rng.normal(0, CLOUD_NM, (120, 3))
    points = points[((points >= 0) & (points < image.shape * tissue.voxel_size)).all(axis=1)]
    at = tissue.voxels(points)
    fits = (tissue.neurons[at] == neuron) & (tissue.depth[at] > 22.0) & (tissue.mitochondria[at] == 0)
    if tbar is not None:
        platform = tissue.centers(tbar.voxel)
        fits &= np.linalg.norm(points - platform, axis=1) > PLATFORM_NM + VESICLE_NM + 4.0
    number, placed = int(rng.integers(14, 40)), np.empty((0, 3))
    for point in points[fits]:
        if len(placed) < number and (np.linalg.norm(placed - point, axis=1) > VESICLE_GAP_NM).all():
            placed = np.vstack([placed, point])
            _paint_vesicle(image, tissue, point, neuron)


def _paint_vesicle(image: np.ndarray, tissue: Tissue, center, neuron: int) -> None:
    box = tissue.box(center, VESICLE_NM + 10.0)
    own = tissue.neurons[box] == neuron

    def wall(z, y, x):
        return np.exp(-0.5 * ((np.sqrt(z**2 + y**2 + x**2) - VESICLE_NM) / 4.5) ** 2)

    def inside(z, y, x):
        return _soft(np.sqrt(z**2 + y**2 + x**2) - VESICLE_NM)

    _blend(image, box, _section_mean(tissue, box, center, inside) * own, VESICLE_INSIDE)
    _blend(image, box, _section_mean(tissue, box, center, wall) * own, VESICLE_WALL)


def _paint_lone_clouds(rng, image, tissue: Tissue, tbars: list[TBar]) -> None:
    """Vesicles where no T-bar is: they alone make no synapse."""
    sites = tissue.centers(np.array([tbar.voxel for tbar in tbars]).reshape(-1, 3))
    for _ in range(round(CLOUDS_ALONE * len(tbars))):
        center = rng.uniform(0, tissue.neurons.shape * tissue.voxel_size)
        if (np.linalg.norm(sites - center, axis=1) > 300.0).all():
            neuron = int(tissue.neurons[tissue.voxels(center)])
            _paint_cloud(rng, image, tissue, center, neuron, None)


def _section_mean(tissue: Tissue, box, center, coverage: Callable) -> np.ndarray:
    """Mean over the thickness of each section of a function of offsets (z, y, x) to a point, nm."""
    height, *_ = tissue.voxel_size
    parts = max(1, round(height / SUBSECTION_NM)) if tissue.thick else 1
    axes = [
        ((np.arange(part.start, part.stop) + 0.5) * step - middle).astype(np.float32)
        for part, step, middle in zip(box, tissue.voxel_size, center, strict=True)
    ]
    z, y, x = np.ix_(*axes)
    shifts = ((np.arange(parts) + 0.5) / parts - 0.5) * height
    return sum(coverage(z + np.float32(shift), y, x) for shift in shifts) / parts


def _soft(distance: np.ndarray, width_nm: float = 2.5) -> np.ndarray:
    """1 where a signed distance is negative, 0 outside, soft between; nm."""
    return 1 / (1 + np.exp(np.clip(distance / width_nm, -30, 30)))


def _blend(image: np.ndarray, box, weight: np.ndarray, grey: float) -> None:
    image[box] += weight * (grey - image[box])
