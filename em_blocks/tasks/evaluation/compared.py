"""The voxels at which two volumes are compared."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from em_blocks.config import RoiConfig, VolumeRef
from em_blocks.errors import ConfigError
from em_blocks.geometry import Frame, Roi, Triple, triple
from em_blocks.tasks.evaluation.count_overlaps import labels_identity
from em_blocks.tasks.masks import open_mask
from em_blocks.volumes.labels import Labels, shared_region

_EQUAL = 1e-6
"""Voxel sizes that differ less, as a share, are equal."""


def compared_region(
    prediction: Labels, truth: Labels, roi: Roi | None = None
) -> tuple[Frame, Triple]:
    """Return frame and shape, voxels (z, y, x), of the region that two volumes, and `roi`, cover.

    If voxels of one are whole multiples of those of the other, the smaller ones are compared.

    Raises
    ------
    ConfigError, GeometryError
        If they are not, or the volumes do not lie on one grid, or share no voxel.
    """
    sizes = [np.array(volume.place.voxel_size) for volume in (prediction, truth)]
    ratios = sizes[0] / sizes[1]
    fine, coarse = (prediction, truth) if (ratios < 1 - _EQUAL).any() else (truth, prediction)
    multiple = np.array(coarse.place.voxel_size) / np.array(fine.place.voxel_size)
    whole = np.maximum(1, multiple.round())
    if (whole == 1).all() or (np.abs(multiple / whole - 1) > _EQUAL).any():
        return shared_region([prediction, truth], roi)  # its errors fit
    at_fine = replace(
        coarse, frame=Frame(fine.place.voxel_size, coarse.place.offset),
        shape=triple((np.array(coarse.shape) * whole).astype(int).tolist()),
    )
    return shared_region([fine, at_fine], roi)


def check_placeable(prediction: Labels, truth: Labels, roi: RoiConfig | None) -> None:
    """Raise `ConfigError` for a ROI in nm if neither volume says how large its voxels are."""
    if roi and prediction.frame is None and truth.frame is None:
        raise ConfigError(
            f"Neither {prediction.path} nor {truth.path} says how large its voxels are, so the ROI, "
            "which is in nm, cannot be placed. Leave it out, or say in the config how large voxels are."
        )


def identities(
    prediction: Labels, truth: Labels, metric_masks: Sequence[VolumeRef], specimen: VolumeRef | None
) -> dict:
    """Return what decides the voxels that are compared; part of the fingerprint."""
    masks = {f"metric mask {n}": _mask_identity(path) for n, path in enumerate(metric_masks)}
    if specimen is not None:
        masks["specimen"] = _mask_identity(specimen)
    return {"prediction": labels_identity(prediction), "truth": labels_identity(truth), **masks}


def _mask_identity(mask: VolumeRef) -> dict:
    """Return what decides the voxels that a mask excludes."""
    volume = open_mask(mask)
    return {
        "shape": list(volume.shape), "voxel_size": list(volume.voxel_size),
        "offset": list(volume.offset), "fingerprint": volume.attributes.get("fingerprint"),
    }
