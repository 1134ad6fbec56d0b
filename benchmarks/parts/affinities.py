"""Affinities of a generated volume, with mistakes as a network makes them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy.ndimage import gaussian_filter

from em_blocks.geometry import Frame, Triple
from em_blocks.kernels.segmentation.affinities import affinities
from em_blocks.kernels.synthetic.volume import phantom
from em_blocks.volumes import Volume

NEIGHBORHOOD = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-3, 0, 0), (0, -3, 0), (0, 0, -3))
VOXEL_SIZE = (10.0, 10.0, 10.0)


def predicted(shape: Triple, seed: int = 7) -> np.ndarray:
    """(c, z, y, x) uint8 affinities: smooth membranes, smooth noise that opens and closes them."""
    neurons = phantom(shape, voxel_size=VOXEL_SIZE, seed=seed, neurite_nm=250.0).neurons
    rng = np.random.default_rng(seed)
    values = affinities(neurons, NEIGHBORHOOD).values.astype(np.float32)
    for channel in values:
        noise = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), 1.5)
        channel[:] = gaussian_filter(channel, 1.0) + 0.15 * noise / noise.std()
    return np.rint(np.clip(values, 0, 1) * 255).astype(np.uint8)


def stored_affinities(folder: Path, shape: Triple) -> str:
    """Path of a new volume of `predicted` affinities."""
    volume = Volume.create(
        str(folder / "affinities.zarr/affinities"), shape=shape, dtype="uint8",
        frame=Frame(VOXEL_SIZE, (400.0, 40.0, 20.0)), chunk_shape=(32, 64, 64),
        channels=len(NEIGHBORHOOD), attributes={"neighborhood": [list(s) for s in NEIGHBORHOOD]},
    )
    volume.write(volume.box, predicted(shape))
    return volume.path


def segment_config(folder: Path, shape: Triple, **options) -> Path:
    """Config of a segmentation of generated affinities."""
    config = folder / "segment.json"
    config.write_text(json.dumps({
        "kind": "segment", "run": "small", "affinities": stored_affinities(folder, shape),
        "output": "segmentation.zarr", "block_shape": [32, 32, 32], "tile_shape": [32, 32, 32],
        "context": [8, 8, 8], "fragments": {"method": "watershed", "small": 100},
        "super_block": [2, 2, 2], "thresholds": [0.5], "chunk_shape": [32, 32, 32],
        "num_workers": 2, **options,
    }))
    return config
