"""A small input of a network with its output, by which others know that they run it rightly."""

from __future__ import annotations

import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import nn

from em_blocks.errors import CheckpointError, ConfigError
from em_blocks.geometry import Triple, triple
from em_blocks.kernels.synthetic.volume import phantom
from em_blocks.models.config import SetupConfig
from em_blocks.models.setup import Setup
from em_blocks.training.data.domain import FULL_RANGES, Domain

FOLDER, INPUT = "sample", "input.npy"
TOLERANCE = 1e-5
"""Of fp32: largest accepted difference, as a share of the largest value or of 1."""
LEAST_SIDE = 8  # voxels of the output


class Difference(NamedTuple):
    """The largest difference of a head's values, and what is accepted."""

    head: str
    largest: float
    accepted: float

    @property
    def ok(self) -> bool:
        """Whether the values agree; never if one is no number."""
        return self.largest <= self.accepted


def sample_tile(setup: Setup, network: Any) -> Triple:
    """Return a small output tile (z, y, x) that the network gives."""
    factor = getattr(network, "tile_factor", None)
    if factor is None:
        return setup.config.tile_shape
    return triple(f * math.ceil(LEAST_SIDE / f) for f in factor)


def sample_input(config: SetupConfig, shape: Triple) -> np.ndarray:
    """Make an EM-like image (z, y, x) with the intensities that the network was trained on."""
    domain = Domain.of(config)
    made = phantom(shape, voxel_size=config.voxel_size, seed=1)
    low, high = domain.intensities
    values = low + made.raw.astype("float32") / 255 * (high - low)
    if domain.dtype in FULL_RANGES and domain.dtype != "float":
        return values.round().astype(domain.dtype)
    return values.astype("float32")


def sample_outputs(
    network: nn.Module, config: SetupConfig, raw: np.ndarray
) -> dict[str, np.ndarray]:
    """Compute the outputs (c, z, y, x) of a raw array (z, y, x) in fp32 on the CPU."""
    scale, shift = config.normalization.scale, config.normalization.shift
    values = torch.from_numpy(np.ascontiguousarray(raw, np.float32)) * scale + shift
    with torch.inference_mode():
        outputs = network.eval().predict(values[None, None])  # type: ignore[operator]
    return {name: outputs[name][0].float().numpy() for name in config.heads}


def write_sample(folder: Path, raw: np.ndarray, outputs: Mapping[str, np.ndarray]) -> None:
    """Write the input and the output of every head below `folder`."""
    (folder / FOLDER).mkdir()
    np.save(folder / FOLDER / INPUT, raw)
    for name, values in outputs.items():
        np.save(folder / FOLDER / f"{name}.npy", values)


def read_sample(folder: Path, config: SetupConfig) -> tuple[np.ndarray, dict[str, np.ndarray]]:
    """Read what `write_sample` wrote.

    Raises
    ------
    ConfigError
        If there is none.
    """
    if not (folder / FOLDER / INPUT).is_file():
        raise ConfigError(
            f"{folder} has no {FOLDER}/{INPUT}: only exported and imported models bring a test input. "
            f"Make one from this setup: em-blocks model export {folder} --output FOLDER."
        )
    raw = _loaded(folder / FOLDER / INPUT)
    return raw, {name: _loaded(folder / FOLDER / f"{name}.npy") for name in config.heads}


def _loaded(path: Path) -> np.ndarray:
    try:
        return np.load(path, allow_pickle=False)
    except (OSError, ValueError, EOFError) as error:
        raise CheckpointError(
            f"{path} cannot be read as an array of numpy ({error}), so the model cannot be "
            "compared with what it gave where it was exported. Export or download it again; "
            "pickled objects are never loaded."
        ) from error


def compare(
    expected: Mapping[str, np.ndarray], found: Mapping[str, np.ndarray],
    tolerance: float = TOLERANCE,
) -> list[Difference]:
    """Compare outputs head by head; another shape is an infinite difference."""
    return [_difference(name, values, found[name], tolerance) for name, values in expected.items()]


def _difference(
    head: str, expected: np.ndarray, found: np.ndarray, tolerance: float
) -> Difference:
    accepted = tolerance * max(1.0, float(np.abs(expected).max(initial=0)))
    if expected.shape != found.shape:
        return Difference(head, math.inf, accepted)
    largest = float(np.abs(found - expected).max(initial=0))
    return Difference(head, math.inf if math.isnan(largest) else largest, accepted)
