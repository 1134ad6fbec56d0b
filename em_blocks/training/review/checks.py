"""Checks of the data before the first iteration."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.models.truth import ANNOTATED
from em_blocks.training.data.domain import Domain
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.data.targets import needed

N_SECTIONS, TAILS = 9, (0.1, 99.9)
FAR, LEAST_CONTRAST = 2.0, 0.1
"""Of normalised intensities: what networks are trained with is about -1 to 1."""


def check_labels(data: Sequence[TrainingData], key: str) -> None:
    """Raise `ConfigError` if the used box of a source has no label at all.

    Parameters
    ----------
    key : str
        Where the sources come from, for the message: "sources" or "validation".
    """
    without = [f"{one.name} from {one.begin} to {one.end}" for one in data if not _any_label(one)]
    if without:
        raise ConfigError(
            f"training.{key}: no voxel is labelled (all are 0, which means unknown) in "
            f"{'; '.join(without)} (voxels, zyx). Nothing could be learnt or measured there. Correct "
            "`labels`, `begin` and `end`, or leave the source out."
        )


def check_intensities(data: Sequence[TrainingData], config: SetupConfig, key: str) -> None:
    """Raise `ConfigError` if raw data are constant, or others than the setup is for."""
    domain, normal = Domain.of(config), config.normalization
    for one in data:
        low, high = _tails(one)
        seen = sorted(value * normal.scale + normal.shift for value in (low, high))
        like = domain.has_dtype(one.raw.dtype) or domain.holds(low, high) or one.is_scaled
        if like and seen[0] >= -FAR and seen[1] <= FAR and seen[1] - seen[0] >= LEAST_CONTRAST:
            continue
        if low == high:
            advice = "Such data teach nothing: correct `raw`, `begin`, `end`, or leave the source out."
        else:
            advice = (
                "Set `normalization` of the setup so that the data become about -1 to 1 (for all of "
                'uint8: {"scale": 0.00784313725490196, "shift": -1.0}, of uint16: {"scale": '
                '3.0518043793392844e-05, "shift": -1.0}) and leave `intensities` out, or give a source '
                'whose intensities are others a `normalization` of its own ("dtype", '
                '{"percentiles": [1, 99]}, or scale and shift), as a prediction has it.'
            )
        raise ConfigError(
            f"training.{key}: raw of {one.name} is {one.raw.dtype} with intensities from {low:g} to "
            f"{high:g}; normalised they are {seen[0]:.3g} to {seen[1]:.3g}, but the setup is "
            f"for {domain.intensities[0]:g} to {domain.intensities[1]:g}, which become about -1 to "
            f"1. {advice}"
        )


def check_synapses(data: Sequence[TrainingData], config: SetupConfig, key: str) -> None:
    """Raise `ConfigError` if heads learn synapses, but a source brings none, or no box holds one."""
    needing = [name for name, head in config.heads.items() if needed(head, "points")]
    if not needing:
        return
    if without := [one.name for one in data if one.synapses is None]:
        raise ConfigError(
            f"The heads {needing} learn synapses, but {', '.join(without)} of training.{key} has none, "
            "so nothing would teach or measure them. Give the key `synapses` of the source (or "
            "`synapses_per_um3` of a phantom), or leave the source out."
        )
    if not any(_any_site(one, config.voxel_size) for one in data):
        names = ", ".join(f"{one.name} from {one.begin} to {one.end}" for one in data)
        raise ConfigError(
            f"The heads {needing} learn synapses, but no postsynaptic site lies in the used boxes of "
            f"training.{key}: {names} (voxels, zyx). Positions are nm of the world: compare those of "
            "the file with `offset` and voxel size of raw, and correct `begin`, `end` or the file."
        )


def _any_label(data: TrainingData) -> bool:
    annotated = [data.masks[ANNOTATED]] if ANNOTATED in data.masks else []
    volumes = [*data.labels.values(), *annotated]
    return any(np.any(values[slab]) for values in volumes for slab in data.slabs())


def _tails(data: TrainingData) -> tuple[float, float]:
    """Nearly the lowest and the highest intensity of some sections of the used box."""
    sections = np.unique(np.linspace(data.begin[0], data.end[0] - 1, N_SECTIONS).astype(int))
    values = np.concatenate([data.raw[(slice(z, z + 1), *data.box[1:])] for z in sections.tolist()])
    low, high = np.percentile(values, TAILS)
    return float(low), float(high)


def _any_site(data: TrainingData, voxel_size: Sequence[float]) -> bool:
    voxels = data.synapses.post / np.asarray(voxel_size, float)
    return bool(np.all((voxels >= data.begin) & (voxels < data.end), axis=1).any())
