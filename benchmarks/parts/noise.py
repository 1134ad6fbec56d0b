"""Raw volumes of noise: its values do not matter, and it compresses as badly as EM."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from em_blocks.geometry import Frame, Triple
from em_blocks.volumes import Volume

SETUPS = Path(__file__).resolve().parents[2] / "setups"


def noise(folder: Path, shape: Triple, frame: Frame, chunk_shape: Triple) -> str:
    """Path of a new uint8 volume of `shape` voxels (z, y, x)."""
    raw = Volume.create(
        str(folder / "raw.zarr/raw"), shape=shape, dtype="uint8", frame=frame,
        chunk_shape=chunk_shape,
    )
    raw.write(raw.box, np.random.default_rng(0).integers(0, 256, shape).astype("uint8"))
    return raw.path


def small_config(folder: Path, **options) -> Path:
    """Config of a prediction by the demo's network of 2x4x4 tiles, one tile per block."""
    setup = SETUPS / "affinities_anisotropic"
    tile = json.loads((setup / "config.json").read_text())["tile_shape"]
    frame = Frame((40.0, 4.0, 4.0), (400.0, 40.0, 20.0))
    shape = tuple(n * t for n, t in zip((2, 4, 4), tile, strict=True))
    config = folder / "config.json"
    config.write_text(json.dumps({
        "kind": "predict", "run": "small", "raw": noise(folder, shape, frame, (16, 64, 64)),
        "setup": str(setup), "output": "none", "block_shape": tile, "num_workers": 2, **options,
    }))
    return config
