"""A prediction of synapses: an indicator map and direction vectors, as a network would store them."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from scipy import ndimage

from em_blocks.geometry import Box, Frame
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.0, 4.0), (400.0, 40.0, 20.0))
INDICATOR_SCALE, VECTOR_SCALE = 255, 0.25
CHUNK = (32, 128, 128)
_CELL = (13, 56, 56)  # voxels around a site that no other site reaches
_NOISE = 24  # stored values of the indicator where nothing is, and a little more


def make_prediction(folder: Path, shape: tuple[int, int, int], n_sites: int, *, seed: int) -> None:
    """Write `indicator` (uint8) and `vectors` (int8), as volumes and as plain arrays (.npy)."""
    rng = np.random.default_rng(seed)
    indicator, vectors = background(rng, shape)
    for corner in corners(rng, shape, n_sites):
        box = Box(corner, _CELL).slices
        site = blob(rng)
        indicator[box] = np.maximum(indicator[box], site)
        length = rng.uniform(60, 250) * VECTOR_SCALE
        direction = rng.normal(size=3)
        direction *= length / np.linalg.norm(direction)
        toward = direction[:, None, None, None] + rng.normal(0, 2, (3, *_CELL))
        vectors[(slice(None), *box)] = np.where(site > _NOISE, toward, vectors[(slice(None), *box)])
    for name, values, scale in (
        ("indicator", indicator, INDICATOR_SCALE), ("vectors", vectors, VECTOR_SCALE)
    ):
        np.save(folder / f"{name}.npy", values)
        store(folder / f"prediction.zarr/{name}", values, scale)


def extract_config(folder: Path, **options) -> Path:
    """Config of an extraction from a generated prediction; blocks cut most of its sites."""
    make_prediction(folder, (80, 360, 360), 150, seed=0)
    config = folder / "extract.json"
    config.write_text(json.dumps({
        "kind": "extract_synapses", "run": "small",
        "indicator": "prediction.zarr/indicator", "vectors": "prediction.zarr/vectors",
        "block_shape": [20, 60, 60], "context_nm": [40, 40, 40], "num_workers": 2, **options,
    }))
    return config


def store(path: Path, values: np.ndarray, scale: float) -> None:
    channels = len(values) if values.ndim == 4 else None
    volume = Volume.create(
        str(path), shape=values.shape[-3:], dtype=values.dtype, frame=FRAME, chunk_shape=CHUNK,
        channels=channels, attributes={"scale": scale},
    )
    for begin in range(0, volume.shape[0], CHUNK[0]):
        box = Box((begin, 0, 0), volume.shape).intersect(volume.box)
        volume.write(box, values[(..., *box.slices)])


def background(rng, shape: tuple[int, int, int]) -> tuple[np.ndarray, np.ndarray]:
    """Low values of the indicator, and vectors that mean nothing."""
    tile = tuple(min(n, t) for n, t in zip(shape, (32, 250, 250), strict=True))
    times = [-(-n // t) for n, t in zip(shape, tile, strict=True)]
    crop = tuple(slice(n) for n in shape)
    low = rng.integers(0, _NOISE, tile, dtype=np.uint8) // 8
    smooth = ndimage.gaussian_filter(rng.normal(size=(3, *tile)), (0, 1, 6, 6)) * 400
    indicator = np.tile(low, times)[crop].copy()
    vectors = np.tile(smooth.clip(-127, 127).astype(np.int8), (1, *times))[(slice(None), *crop)].copy()
    return indicator, vectors


def corners(rng, shape: tuple[int, int, int], n_sites: int) -> np.ndarray:
    """First voxels of the cells of all sites."""
    cells = np.array(shape) // _CELL
    if cells.prod() < n_sites:
        raise ValueError(f"{shape} voxels have no room for {n_sites} sites")
    chosen = rng.choice(cells.prod(), n_sites, replace=False)
    return np.stack(np.unravel_index(chosen, cells), axis=1) * _CELL


def blob(rng) -> np.ndarray:
    """Values of a cell with one site in it: a rough ellipsoid of some 50 to 700 voxels."""
    axes = np.array([rng.uniform(45, 75), rng.uniform(14, 50), rng.uniform(14, 50)])
    middle = (np.array(_CELL) - 1) / 2 + rng.uniform(-2, 2, 3) * (0.4, 3, 3)
    places = np.stack(np.indices(_CELL), axis=-1) - middle
    z, y, x = np.moveaxis(places * FRAME.voxel_size, -1, 0)
    turn = rng.uniform(0, np.pi)
    y, x = np.cos(turn) * y - np.sin(turn) * x, np.sin(turn) * y + np.cos(turn) * x
    radius = np.sqrt((z / axes[0]) ** 2 + (y / axes[1]) ** 2 + (x / axes[2]) ** 2)
    rough = ndimage.gaussian_filter(rng.normal(size=_CELL), (0.5, 3, 3)) * 0.6
    return (255 / (1 + np.exp((radius - 1 + rough) / 0.08))).astype(np.uint8)
