"""How a prediction passes tiles through its network: precision, tile and batch, timed once per run."""

from __future__ import annotations

import itertools
import math
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from em_blocks.geometry import Triple
from em_blocks.nets.inference import best_device, bytes_per_voxel, device_name, hardware_precisions
from em_blocks.nets.timing import Pass, Timed, Way, fastest, threads, time_ways
from em_blocks.tasks.prediction.predictor import predictor_of

if TYPE_CHECKING:
    from em_blocks.tasks.prediction.predict import Predict

WORTH_S, MOST_S, SHARE = 30.0, 60.0, 0.15
"""Runs of less than the first are not worth timing; others may spend this share, up to the second."""
LEAST_TILES = 60
"""Per worker: with fewer, no second way fits into that share."""
BATCHES = (1, 2, 4, 8)
BASE_BYTES = 400e6
"""Of a worker with libraries and an empty network (measured: 350 MB)."""


def choose_way(task: Predict, earlier: dict | None = None) -> dict:
    """The way of a run and what was timed, as kept with the run.

    Workers of a cluster run elsewhere, on what this machine cannot time: they get the usual way.

    Parameters
    ----------
    earlier : dict, optional
        What a run of the same network and blocks measured on this device. Runs of other parts of a
        volume then give the same, to the bit.
    """
    ways = possible_ways(task)
    if earlier is not None and _way_of(earlier) in ways:
        return {name: earlier[name] for name in _KEPT}
    timed = time_them(task, ways) if _worth_timing(task, ways) else []
    way = fastest(timed).way if timed else ways[0]
    return {
        "precision": way.precision, "tile_shape": list(way.tile_shape), "batch_size": way.batch_size,
        "device": device_name(best_device()), "ways": len(ways),
        "timings": [found.document() for found in timed] if len(timed) > 1 else [],
    }


_KEPT = ("precision", "tile_shape", "batch_size", "device", "ways", "timings")


def alike(task: Predict) -> dict:
    """Select the runs of a database that measured what this one would."""
    return {
        "task": task.kind, "config.block_shape": list(task.block_shape),
        "identity.inputs.network": task.inputs()["network"],
        "measured.device": device_name(best_device()), "measured.timings.0": {"$exists": True},
    }


def _way_of(measured: dict) -> Way:
    return Way(measured["precision"], tuple(measured["tile_shape"]), measured["batch_size"])


def _worth_timing(task: Predict, ways: Sequence[Way]) -> bool:
    tiles = math.prod(task.grid().volume_shape) / math.prod(task.usual_tile)
    return len(ways) > 1 and task.workers_here and tiles >= LEAST_TILES * task.num_workers


def possible_ways(task: Predict) -> list[Way]:
    """List the ways that config and memory of a worker leave open; the usual one first."""
    device = best_device()
    fast = [p for p in hardware_precisions(device) if p in task.network_precisions]
    precisions = [task.precision] if task.precision else fast
    usual, *larger = _tiles(task)
    if not task.workers_here:
        return [Way("bf16" if "bf16" in precisions else precisions[0], usual, task.batch_size or 1)]
    batches = [task.batch_size] if task.batch_size else _batches(device.type, usual)
    # Many small tiles at a time, or a few large ones: either keeps a GPU busy.
    passes = [(usual, batch) for batch in batches] + [(tile, batches[0]) for tile in larger]
    others = [(tile, batch) for tile, batch in passes[1:] if batch <= task.tiles_per_block(tile)]
    per_voxel = bytes_per_voxel(task.bare_network) if others else 0.0
    possible = [(tile, batch) for tile, batch in others if _fits(task, tile, batch, per_voxel)]
    return [
        Way(precision, tile, batch)
        for tile, batch in [passes[0], *possible] for precision in precisions
    ]


def _batches(device: str, tile: Triple) -> tuple[int, ...]:
    """Batches to try. A CPU gains from two only if tiles are thin.

    torch computes a single tile of few sections without its fast convolutions: per tile, it takes 3.2
    times as long as two of 1 section, 1.7 times of 4, and 0.9 times of 16.
    """
    if device != "cpu":
        return BATCHES
    return BATCHES[: 2 if tile[0] <= 4 else 1]


def time_them(task: Predict, ways: Sequence[Way]) -> list[Timed]:
    """Time ways in this process, with the threads of one worker."""

    def budget_s(voxels_per_s: float) -> float:
        work_s = math.prod(task.grid().volume_shape) / voxels_per_s / task.num_workers
        return min(MOST_S, SHARE * work_s) if work_s >= WORTH_S else 0.0

    with threads(max(1, len(os.sched_getaffinity(0)) // task.num_workers)):
        return time_ways(ways, lambda way: pass_of(task, way), budget_s)


def pass_of(task: Predict, way: Way) -> Pass:
    """One pass of `way` over noise."""
    scale = task.trained_normalization()
    predictor = predictor_of(task, {
        "precision": way.precision, "tile_shape": way.tile_shape, "batch_size": way.batch_size,
        "normalization": scale,
    })
    shape = [t + 2 * c for t, c in zip(way.tile_shape, predictor.context, strict=True)]
    # Whatever the raw data are, the network sees values from -1 to 1.
    seen = np.random.default_rng(0).random((way.batch_size, *shape), np.float32) * 2 - 1
    raw = (seen - np.float32(scale["shift"])) / np.float32(scale["scale"])
    return lambda: predictor.pass_once(raw)


def said(measured: dict) -> str | None:
    """One line on the way that was chosen; None if there was no choice."""
    timings = measured.get("timings") or []
    if measured["ways"] == 1:
        return None
    if not timings:
        return (
            f"{_named(measured)}, as usual: timing {measured['ways'] - 1} other ways would take too "
            "much of this run; the keys 'precision' and 'tile_shape' set them"
        )
    chosen = next(t for t in timings if _is(t, measured))
    slowest = min(timings, key=lambda found: found["voxels_per_s"])
    return (
        f"{_named(chosen)} at {chosen['voxels_per_s'] / 1e6:.3g} Mvoxel/s per worker was the best of "
        f"{len(timings)} ways tried ({_named(slowest)}: {slowest['voxels_per_s'] / 1e6:.3g}); the keys "
        "'precision' and 'tile_shape' set them"
    )


def _is(timing: dict, measured: dict) -> bool:
    return all(timing[name] == measured[name] for name in ("precision", "tile_shape", "batch_size"))


def _named(timing: dict) -> str:
    batch = f", {timing['batch_size']} at a time" if timing["batch_size"] > 1 else ""
    return f"{timing['precision']} with tiles of {'x'.join(map(str, timing['tile_shape']))}{batch}"


# -- what is possible ---------------------------------------------------------------------


def _tiles(task: Predict) -> list[Triple]:
    """Tiles to choose from, the usual one first: multiples of it that divide the block."""
    usual = task.usual_tile
    if task.tile_shape is not None or not task.tiles_are_free:
        return [usual]
    multiples = itertools.product(*(
        [m for m in range(1, b // t + 1) if b % (m * t) == 0]
        for b, t in zip(task.block_shape, usual, strict=True)
    ))
    tiles = [tuple(m * t for m, t in zip(ms, usual, strict=True)) for ms in multiples]
    return sorted(_compact(tiles, task.network_context), key=math.prod) or [usual]


def _compact(tiles: Sequence[Triple], context: Triple) -> list[Triple]:
    """Of tiles with equally many voxels, the one that reads the least context."""
    best: dict[int, Triple] = {}
    for tile in tiles:
        known = best.get(math.prod(tile))
        if known is None or _seen(tile, context) < _seen(known, context):
            best[math.prod(tile)] = tile
    return list(best.values())


def _seen(tile: Triple, context: Triple) -> int:
    return math.prod(t + 2 * c for t, c in zip(tile, context, strict=True))


def worker_bytes(task: Predict) -> float:
    """Memory of one worker: as stated, else its share of half of the machine, or of the GPU."""
    import torch

    if best_device().type == "cuda":
        free, _ = torch.cuda.mem_get_info()
        sharing = -(-task.num_workers // torch.cuda.device_count())
        return 0.9 * free / sharing
    return task.memory_of_worker()


def _fits(task: Predict, tile: Triple, batch: int, per_voxel: float) -> bool:
    """Tell whether a worker has the memory for a pass."""
    fixed = 0.0 if best_device().type == "cuda" else BASE_BYTES + task.held_bytes()
    return fixed + batch * _seen(tile, task.network_context) * per_voxel <= worker_bytes(task)
