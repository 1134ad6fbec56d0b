"""A generated volume with two partly annotated classes, and a setup that learns them in a minute."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from em_blocks.geometry import Frame
from em_blocks.volumes import Volume

SHAPE, FRAME = (16, 128, 128), Frame((40.0, 4.6, 4.6), (80.0, 46.0, 92.0))


def class_setup(folder: Path, iterations: int = 240) -> Path:
    """Write raw, labels and a setup folder below `folder`; returns the setup."""
    z, y, x = np.indices(SHAPE)
    mito = (((y // 12 + x // 18 + z // 5) % 4) == 0).astype(np.uint8)
    membrane = ((y % 12 < 2) & (mito == 0)).astype(np.uint8)
    painted = np.where(membrane, 1, np.where(y < SHAPE[1] // 2, 2, 0)).astype(np.uint8)
    noise = np.random.default_rng(3).integers(0, 60, SHAPE)
    raw = np.clip(100 + 90 * mito - 80 * membrane + noise, 0, 255).astype(np.uint8)
    paths = {
        name: _written(folder / "data.zarr" / name, values)
        for name, values in {"raw": raw, "mito": mito, "membrane": painted}.items()
    }
    setup = folder / "classes"
    setup.mkdir()
    (setup / "config.json").write_text(json.dumps(_config(paths, iterations)))
    return setup


def _written(path: Path, values: np.ndarray) -> str:
    volume = Volume.create(
        str(path), shape=SHAPE, dtype="uint8", frame=FRAME, chunk_shape=(8, 64, 64)
    )
    volume.write(volume.box, values)
    return volume.path


def _config(paths: dict[str, str], iterations: int) -> dict:
    source = {
        "name": "generated", "raw": paths["raw"],
        "classes": {
            "mito": {"volume": paths["mito"]},
            "membrane": {"volume": paths["membrane"], "unpainted": "unknown", "background": [2]},
        },
    }
    return {
        "name": "classes", "voxel_size": list(FRAME.voxel_size),
        "network": {
            "features": [6, 8], "kernels": [[[1, 3, 3]], [[3, 3, 3]]], "pooling": [[1, 2, 2]],
        },
        "heads": {"organelles": {
            "kind": "classes", "classes": ["mito", "membrane"], "loss": {"kind": "ce_dice"},
        }},
        "normalization": {"scale": 0.00784313725490196, "shift": -1.0},
        "tile_shape": [4, 32, 32],
        "training": {
            "sources": [source | {"end": [12, 128, 128]}],
            "validation": [source | {"begin": [12, 0, 0]}],
            "augment": {"control_point_nm": [400, 100, 100], "jitter_nm": [0, 5, 5]},
            "output_shape": [4, 32, 32], "iterations": iterations, "seed": 1,
            "learning_rate": 0.01, "precision": "fp32", "validate_every": 60,
            "checkpoint_every": 10, "score": "organelles/mito_f1",
        },
    }
