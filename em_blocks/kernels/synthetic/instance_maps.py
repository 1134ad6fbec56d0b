"""Maps of instances as networks predict them: blurred, widened, noisy, with gaps and false spots."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import edt
import numpy as np
from scipy import ndimage

from em_blocks.geometry import Triple, triple
from em_blocks.kernels.synthetic.tissue import thick_sections
from em_blocks.kernels.transforms.noise import smooth_noise_in, white_noise_in

REACH_NM = 90.0  # distances to outlines end here
DISTANCE_NM = 50.0  # depth at which tanh(depth / DISTANCE_NM) is 0.76
CONTOUR_NM = 16.0  # of a contour, on either side of an outline
SURE = 3.4  # logit of what a network is sure of: 0.97
_STEP = 1.0  # nm by which depths differ at least where the nearest outline is that of another instance
_BLURS = 4  # standard deviations that a blur reaches
# Only append: seeds count.
_FIELDS = ("outline", "doubt", "contacts", "grain_foreground", "grain_contour", "grain_distance")


class InstanceMaps(NamedTuple):
    """What heads of a network say of every voxel, (z, y, x) float32 from 0 to 1.

    Attributes
    ----------
    foreground : array
        Probability of lying in an instance.
    contour : array
        Probability of lying next to the outline of an instance, also where two of them touch.
    signed_distance : array
        tanh of the depth below the outline by `DISTANCE_NM`; 0 outside, as stored in uint8.
    """

    foreground: np.ndarray
    contour: np.ndarray
    signed_distance: np.ndarray


class Quality(NamedTuple):
    """How well a network predicts.

    Attributes
    ----------
    blur_nm : float
        Standard deviation of the blur.
    widen_nm : float
        By which instances look too thick, up to twice as much in places.
    noise : float
        Strength of noise, of gaps between instances that touch, and of false spots; 1 is usual, 0 has
        none of them.
    """

    blur_nm: float = 14.0
    widen_nm: float = 8.0
    noise: float = 1.0


USUAL = Quality()


def maps_context(voxel_size: Sequence[float], quality: Quality = USUAL) -> Triple:
    """Return the voxels (z, y, x) around a box whose labels decide the maps of the box."""
    reach = REACH_NM + _BLURS * quality.blur_nm
    return triple(
        int(np.ceil((_BLURS * quality.blur_nm if flat else reach) / size)) + 1
        for size, flat in zip(voxel_size, (thick_sections(np.asarray(voxel_size)), False, False),
                              strict=True)
    )


def instance_maps(
    labels: np.ndarray, *, voxel_size: Sequence[float], begin: Sequence[int] = (0, 0, 0), seed: int,
    quality: Quality = USUAL,
) -> InstanceMaps:
    """Make maps of instances.

    Parameters
    ----------
    labels : (z, y, x) unsigned integer array
        Ids, 0 outside. The maps of voxels that are at least `maps_context` away from its faces do not
        depend on where it was cut out.
    voxel_size : (3,) floats
        nm (z, y, x). Outlines of thick sections are those in the section.
    begin : (3,) ints
        Place of the first voxel, which decides its noise.
    seed : int
    quality : Quality
    """
    fields = _Fields(labels.shape, np.asarray(voxel_size, float), tuple(begin), seed)
    depth, any_depth = _depths(labels, fields.voxel_size)
    sigma = np.where(
        fields.voxel_size > 2 * fields.voxel_size.min(), 0.5 * quality.blur_nm, quality.blur_nm
    ) / fields.voxel_size
    doubt = quality.noise * fields.smooth("doubt", 130.0)
    wide = quality.widen_nm * (1 + 0.5 * quality.noise * fields.smooth("outline", 160.0))

    def predicted(share: np.ndarray, grain: str, weight: np.ndarray | float = 1.0) -> np.ndarray:
        """Blur what is true, and add doubt and grain to its logit."""
        share = ndimage.gaussian_filter(share.astype(np.float32) * weight, sigma, truncate=_BLURS)
        logit = 2 * SURE * (share - np.float32(0.5))
        return _sigmoid(logit + 0.55 * quality.noise * fields.grain(grain) + np.float32(0.45) * doubt)

    strength = np.clip(0.9 + 0.3 * quality.noise * fields.smooth("contacts", 110.0), 0.35, 1.2)
    foreground = predicted(depth > -wide, "grain_foreground")
    foreground = _with_spots(foreground, doubt)
    contact = any_depth > depth + _STEP
    contour = predicted(np.abs(depth) < CONTOUR_NM, "grain_contour",
                        np.where(contact, strength, 1.0).astype(np.float32))
    seen = depth + np.clip(1 - strength, 0, 1) * (any_depth - depth)  # contacts are overlooked in places
    distance = ndimage.gaussian_filter(np.tanh(seen / np.float32(DISTANCE_NM)), sigma, truncate=_BLURS)
    distance += np.float32(0.06 * quality.noise) * (fields.grain("grain_distance") + doubt)
    return InstanceMaps(foreground, contour, np.clip(distance, 0, 1))


class _Fields:
    """Noise of a box of the world, each kind with a seed of its own."""

    def __init__(self, shape: Sequence[int], voxel_size: np.ndarray, begin: Sequence[int], seed: int):
        self.shape, self.voxel_size, self._begin, self._seed = shape, voxel_size, begin, seed

    def smooth(self, name: str, scale_nm: float) -> np.ndarray:
        return smooth_noise_in(
            self._begin, self.shape, seed=self._of(name), voxel_size=self.voxel_size,
            scale_nm=scale_nm,
        )

    def grain(self, name: str) -> np.ndarray:
        """Return noise of single voxels and of a few voxels, in equal parts."""
        # Networks are smooth over some voxels, whatever their size.
        fine = white_noise_in(self._begin, self.shape, seed=self._of(name))
        coarse = smooth_noise_in(
            self._begin, self.shape, seed=self._of(name) + 1, voxel_size=(1, 1, 1), scale_nm=3.0
        )
        return (fine + coarse) * np.float32(0.5**0.5)

    def _of(self, name: str) -> int:
        return 1000 * self._seed + 2 * _FIELDS.index(name)


def _depths(labels: np.ndarray, voxel_size: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """Depth of every voxel below the outline of its instance, and of all instances as one; nm, below 0
    outside."""
    inside = labels != 0
    half = np.float32(voxel_size[1:].min() / 2)
    any_ = _to_outline(inside.astype(np.uint8) + np.uint8(1), voxel_size)
    own = _to_outline(labels, voxel_size)
    return np.where(inside, own - half, half - any_), np.where(inside, any_ - half, half - any_)


def _to_outline(labels: np.ndarray, voxel_size: np.ndarray) -> np.ndarray:
    """Distance of every voxel that is not 0 to the nearest one of another label, nm."""
    if thick_sections(voxel_size):
        distance = np.stack([edt.edt(s, anisotropy=tuple(voxel_size[1:])) for s in labels])
    else:
        distance = edt.edt(labels, anisotropy=tuple(voxel_size))
    # Rounded: the last bits depend on the position in the array.
    return np.round(np.minimum(distance, REACH_NM) * np.float32(16)) / np.float32(16)


def _with_spots(foreground: np.ndarray, doubt: np.ndarray) -> np.ndarray:
    """Add false spots where doubt is largest."""
    return np.maximum(foreground, _sigmoid(4 * (doubt - np.float32(2.6))))


def _sigmoid(logit: np.ndarray) -> np.ndarray:
    return 1 / (1 + np.exp(-logit))
