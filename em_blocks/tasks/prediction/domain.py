"""Whether a network gets data like those that it was trained on, and how they are scaled to be so."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

import numpy as np

from em_blocks.errors import ConfigError, EmBlocksError, VolumeError
from em_blocks.geometry import Box
from em_blocks.models.normalization import NormalizationChoice
from em_blocks.training.data.domain import Domain, full_range
from em_blocks.training.data.normalization import measured_normalization
from em_blocks.training.data.raw_sample import RawSample, place
from em_blocks.volumes import Volume
from em_blocks.volumes.contrast import contrast_text
from em_blocks.volumes.formats.storage import arrays_below

if TYPE_CHECKING:
    from em_blocks.models.config import SetupConfig

FAR = 2.0
"""Normalised intensities beyond this are far from the -1 .. 1 that networks are trained with."""


def check_voxel_size(raw: Volume, config: SetupConfig, tolerance: float) -> None:
    """Raise `ConfigError` if the voxels of `raw` are not those that the network was trained on."""
    domain = Domain.of(config)
    size = raw.frame.voxel_size
    if domain.off(size) <= tolerance:
        return
    others = _levels_like(raw, domain, tolerance)
    fitting = f" {' and '.join(others)} beside it would fit." if others else ""
    raise ConfigError(
        f"raw is {raw.path} with voxels of {size} nm (zyx), but the network {config.name!r} was trained "
        f"on voxels of {domain.voxel_size} nm; {domain.off(size):.1%} off is more than "
        f"{tolerance:.1%}. It would see everything in the wrong size and answer without a "
        f"warning.{fitting} Name the level of the pyramid, or the setup, whose voxel size fits "
        "(em_blocks does not resample); state the true 'voxel_size' with raw if the file's is wrong; "
        "or accept the difference with 'voxel_size_tolerance'."
    )


def _levels_like(raw: Volume, domain: Domain, tolerance: float) -> list[str]:
    """Other local arrays beside `raw` with voxels of the size that is needed."""
    parent, own = os.path.split(raw.path.rstrip("/"))
    found = []
    for name in arrays_below(parent)[:32]:
        try:
            other = Volume.open(f"{parent}/{name}")
        except EmBlocksError:  # not every neighbour is a volume that could be meant
            continue
        if name != own and other.channels is None and domain.off(other.frame.voxel_size) <= tolerance:
            found.append(name)
    return found


def check_sample(
    sample: RawSample, raw: Volume, config: SetupConfig, normalization: NormalizationChoice | None
) -> list[str]:
    """Remarks on a sample of the raw volume, a line each.

    Raises
    ------
    ConfigError
        If nothing of it could be predicted, or its intensities are not those of training and the
        job does not say how to scale.
    """
    if (useless := sample.useless()) is not None:
        raise ConfigError(
            f"raw is {raw.path}, which {useless} in {len(sample.cubes)} sampled boxes of "
            f"{sample.values.size or sum(c.found.size for c in sample.cubes if c.found)} voxels: a "
            "network finds nothing in it. Name the volume, or a 'roi' of it, that holds the image."
        )
    if normalization is None:
        _check_intensities(sample, raw, config)
    remarks = sample.remarks()
    scale = measured_normalization(sample, raw, config, normalization)
    if (far := _far(sample, raw, config, scale)) is not None:
        remarks.append(far)
    return [f"raw {raw.path}: {remark}." for remark in remarks]


def _check_intensities(sample: RawSample, raw: Volume, config: SetupConfig) -> None:
    domain, (low, high) = Domain.of(config), sample.tails
    if domain.has_dtype(raw.dtype) or domain.holds(low, high):
        return
    least, most = domain.intensities
    raise ConfigError(
        f"raw is {raw.path} of {raw.dtype} with intensities from {low:g} to {high:g} "
        f"({len(sample.cubes)} sampled boxes), but the network {config.name!r} was trained on "
        f"{_kind(domain)}{least:g} to {most:g}. It would see saturated or constant input and answer "
        f"without a warning. Say with 'normalization' how to scale: {_dtype_way(raw)}"
        '{"percentiles": [1, 99]} maps the middle of what is measured, '
        '{"scale": ..., "shift": ...} is explicit.'
    )


def _kind(domain: Domain) -> str:
    return f"{domain.dtype} from " if domain.dtype else "intensities from "


def _dtype_way(raw: Volume) -> str:
    limits = full_range(raw.dtype)
    if limits is None:
        return ""
    low, high = limits
    return f"\"dtype\" maps all of {raw.dtype} ({low:g} to {high:g}) to the range of training, "


def _far(sample: RawSample, raw: Volume, config: SetupConfig, scale: dict) -> str | None:
    """Write the message for a scaling that gives intensities unknown from training."""
    low, high = sorted(value * scale["scale"] + scale["shift"] for value in sample.tails)
    if low >= -FAR and high <= FAR and high - low >= 0.1:
        return None
    return (
        f"scaled for the network, the sampled intensities lie between {low:.3g} and {high:.3g}, but "
        f"{config.name!r} was trained with about -1 to 1 (raw: {sample.tails[0]:g} to "
        f"{sample.tails[1]:g}); the key 'normalization' decides"
    )


def contrast_remarks(raw: Volume, config: SetupConfig) -> list[str]:
    """Return a remark, in one line, if raw was not equalised as that of the training."""
    found = raw.attributes.get("equalized")
    if config.equalized is None or found == config.equalized:
        return []
    return [
        f"raw {raw.path} {contrast_text(found)}, but {config.name!r} has learnt from raw that "
        f"{contrast_text(config.equalized)}; in another contrast it is wrong without a sign "
        "(`em-blocks equalize`)."
    ]


def check_finite(raw: Volume, seen: Box, values: np.ndarray) -> None:
    """Raise `VolumeError` where the (z, y, x) `values` of the box `seen` are no numbers."""
    if values.dtype.kind != "f" or np.isfinite(values).all():
        return
    # What lies beyond the volume mirrors voxels of it, which are in the box too.
    inside = seen.intersect(raw.box)
    here = ~np.isfinite(values[inside.relative_to(seen).slices])
    first = np.unravel_index(int(here.argmax()), here.shape)
    voxel = tuple(int(o + i) for o, i in zip(inside.offset, first, strict=True))
    raise VolumeError(
        f"raw holds NaN or infinity from {place(raw, voxel)} of {raw.path}, and the network would "
        "spread it over all that it sees of it. Repair the voxels there; blocks elsewhere go on."
    )
