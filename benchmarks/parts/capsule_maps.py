"""Maps of many mitochondria-like objects in a volume of any size, which is a tile that repeats."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np

from em_blocks.geometry import BlockGrid, Frame
from em_blocks.volumes import Volume

FRAME = Frame((30.0, 8.0, 8.0), (300.0, 80.0, -16.0))
TILE = (100, 512, 512)
"""Voxels (z, y, x): a volume goes on over its sides as it began."""

_SOFT_NM, _RIM_NM = 8.0, 16.0


def capsule_tile(
    n: int = 60, shape: tuple[int, int, int] = TILE, seed: int = 0
) -> dict[str, np.ndarray]:
    """Return uint8 maps ``foreground`` and ``contour`` of capsules, a tenth of the voxels; many touch.

    Parameters
    ----------
    n : int
        Capsules for 100 x 512 x 512 voxels, half of them in touching pairs.
    """
    rng = np.random.default_rng(seed)
    size = np.array(shape) * FRAME.voxel_size
    deepest, second = (np.full(shape, -999.0, np.float32) for _ in range(2))
    for begin, end, radius in _capsules(rng, round(n * np.prod(shape) / np.prod(TILE)), size):
        _paint(deepest, second, begin, end, radius)
    rim = np.minimum(np.abs(deepest), np.maximum(deepest - second, -deepest) / 2)
    foreground = 1 / (1 + np.exp(-np.maximum(deepest, -500) / _SOFT_NM))
    contour = np.exp(-((rim / _RIM_NM) ** 2))
    noise = rng.normal(0, 0.04, (2, *shape))
    return {
        name: np.rint(np.clip(values + more, 0, 1) * 255).astype(np.uint8)
        for (name, values), more in zip({"foreground": foreground, "contour": contour}.items(), noise,
                                        strict=True)
    }


def _capsules(rng, n, size):
    """Yield ends and radius, nm, of n capsules; of two, the second begins at the side of the first."""
    for _ in range(n // 2):
        begin = rng.uniform(0, size)
        radius = rng.uniform(100, 250)
        along, across = np.linalg.qr(rng.normal(size=(3, 2)))[0].T
        end = begin + along * rng.uniform(200, 1500)
        yield begin, end, radius
        beside = begin + (end - begin) * rng.uniform() + across * 1.9 * radius
        yield beside, beside + rng.normal(size=3) * 300, radius


def _paint(deepest, second, begin, end, radius):
    """Take the depth in one capsule into the largest and the second largest, over sides too."""
    voxel = np.array(FRAME.voxel_size)
    low = np.floor((np.minimum(begin, end) - radius - 60) / voxel).astype(int)
    high = np.ceil((np.maximum(begin, end) + radius + 60) / voxel).astype(int)
    axes = [np.arange(a, min(b, a + n)) for a, b, n in zip(low, high, deepest.shape, strict=True)]
    z, y, x = np.meshgrid(*axes, indexing="ij", sparse=True)
    relative = [(axis + 0.5) * v - b for axis, v, b in zip((z, y, x), voxel, begin, strict=True)]
    line = end - begin
    share = np.clip(sum(r * d for r, d in zip(relative, line, strict=True)) / (line @ line), 0, 1)
    distance = np.sqrt(sum((r - share * d) ** 2 for r, d in zip(relative, line, strict=True)))
    place = np.ix_(*(axis % n for axis, n in zip(axes, deepest.shape, strict=True)))
    depth, first, other = (radius - distance).astype(np.float32), deepest[place], second[place]
    second[place] = np.maximum(other, np.minimum(first, depth))
    deepest[place] = np.maximum(first, depth)


def repeated(folder: str, tile: dict[str, np.ndarray], shape: tuple[int, int, int]) -> dict[str, str]:
    """Write maps of a large volume, block by block, and return their paths by name."""
    paths = {}
    for name, values in tile.items():
        volume = Volume.create(
            f"{folder}/maps.zarr/{name}", shape=shape, dtype="uint8", frame=FRAME,
            chunk_shape=(20, 256, 256), attributes={"scale": 255.0},
        )
        for block in BlockGrid(FRAME, shape, (100, 512, 512)).blocks():
            box = block.write_box
            ends = zip(box.offset, box.end, values.shape, strict=True)
            volume.write(box, values[np.ix_(*(np.arange(o, e) % n for o, e, n in ends))])
        paths[name] = volume.path
    return paths


def config_of(folder: Path, paths: dict[str, str], **options) -> dict:
    """Return a config of `em-blocks segment-instances` of such maps."""
    return {
        "kind": "segment_instances", "run": "instances", **paths, "output": str(folder / "out.zarr"),
        "smooth_nm": [0, 8, 8], "threshold": 0.5, "seeds": {"foreground": 0.8, "contour": 0.4},
        "chunk_shape": [20, 128, 128], "block_shape": [100, 512, 512], **options,
    }


def instances_config(folder: Path) -> Path:
    """Write maps and the config of a small job, whose blocks cut most of the objects."""
    tile = capsule_tile(shape=(40, 192, 192))
    paths = repeated(str(folder), tile, (40, 192, 192))
    config = folder / "instances.json"
    config.write_text(json.dumps(config_of(
        folder, paths, chunk_shape=[10, 64, 64], block_shape=[20, 64, 64], num_workers=2
    )))
    return config
