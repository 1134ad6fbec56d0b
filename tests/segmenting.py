"""Shared helper: small affinity volumes, and the steps from them to segments, on workers or here."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
from rich.console import Console
from scipy.ndimage import gaussian_filter

from em_blocks.geometry import Block, Frame
from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.segmentation_scores import evaluate
from em_blocks.kernels.segmentation.affinities import affinities
from em_blocks.kernels.segmentation.neighborhood import FULL
from em_blocks.outputs import RunContext
from em_blocks.runtime.scheduler.run import run_steps
from em_blocks.tasks.base import BlockReport, BlockwiseTask
from em_blocks.tasks.masks import masked_blocks
from em_blocks.tasks.segmentation.segment import Segment
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))
SHAPE = (19, 45, 53)
NEIGHBORHOOD = ((-1, 0, 0), (0, -1, 0), (0, 0, -1), (-2, 0, 0), (0, -5, 0), (0, 0, -5))
TILE = (5, 12, 12)


def neurons(shape=SHAPE, n=9, seed=0) -> np.ndarray:
    """Voronoi cells of a few points, in nm; a few voxels of background."""
    rng = np.random.default_rng(seed)
    size = np.array(FRAME.voxel_size)
    points = rng.uniform(0, 1, (n, 3)) * shape * size
    places = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1) * size
    distance = np.linalg.norm(places[..., None, :] - points, axis=-1)
    labels = distance.argmin(axis=-1) + 1
    labels[:2, :6, :9] = 0
    return labels.astype(np.uint64)


def noisy(labels, neighborhood=NEIGHBORHOOD, seed=1, noise=0.25) -> np.ndarray:
    """Affinities in 0..1, (c, z, y, x) float32: membranes a few voxels wide, smooth noise."""
    rng = np.random.default_rng(seed)
    values = affinities(labels, neighborhood).values.astype(np.float32)
    for channel in values:
        channel += noise * gaussian_filter(rng.standard_normal(channel.shape), (0.5, 1, 1)) * 3
        channel[:] = gaussian_filter(channel, (0.3, 0.8, 0.8))
    return np.clip(values, 0, 1)


def stored(values, folder: Path, name="affinities", neighborhood=NEIGHBORHOOD, **options) -> str:
    """Path of a new volume of affinities; uint8 unless they already are something else."""
    dtype = options.pop("dtype", "uint8")
    if dtype == "uint8":
        values = np.rint(values * 255).astype(np.uint8)
    elif dtype == "uint16":
        values = np.rint(values * FULL).astype(np.uint16)
    volume = Volume.create(
        str(folder / "in.zarr" / name), shape=values.shape[1:], dtype=dtype, frame=FRAME,
        chunk_shape=(6, 16, 16), channels=len(values),
        attributes={} if neighborhood is None else {"neighborhood": [list(s) for s in neighborhood]},
        **options,
    )
    volume.write(volume.box, values.astype(dtype))
    return volume.path


def segment(affinity_path: str, folder: Path, **options) -> Segment:
    """Config in `folder`; a few levels of super-blocks at the default blocks."""
    return Segment.from_dict(settings(affinity_path, folder, **options))


def settings(affinity_path: str, folder: Path, **options) -> dict:
    return {
        "kind": "segment", "run": "seg", "affinities": affinity_path,
        "output": str(folder / "seg.zarr"), "block_shape": [5, 24, 24], "tile_shape": list(TILE),
        "context": [2, 5, 5], "fragments": {"method": "watershed", "small": 15},
        "edges": {"long_range_weight": 0.5}, "super_block": [2, 2, 2], "thresholds": [0.3, 0.5],
        "chunk_shape": [5, 12, 12], "num_workers": 2, **options,
    }


def config_file(affinity_path: str, folder: Path, **options) -> Path:
    path = folder / "segment.json"
    path.write_text(json.dumps(settings(affinity_path, folder, **options)))
    return path


def on_workers(task: Segment, **options) -> list:
    """All steps by daisy, with the database; their reports."""
    return run_steps(task.steps(), console=Console(quiet=True), **options)


def here(task: Segment) -> dict[str, int]:
    """All steps in this process, without database and workers; what they counted."""
    counts: dict[str, int] = {}
    for step in task.steps():
        step.check()
        step.check_alignment()
        for spec in step.output_specs():
            spec.create(step.grid(), f"of {step.run}")
        with step.open(RunContext()) as process:
            for block in unmasked(step):
                report = BlockReport()
                process(block, report)
                for name, n in report.counts.items():
                    counts[f"{step.run}.{name}"] = counts.get(f"{step.run}.{name}", 0) + n
    return counts


def unmasked(step: BlockwiseTask) -> list[Block]:
    """Blocks of a step that its mask leaves."""
    blocks = list(step.grid().blocks())
    if step.mask is None:
        return blocks
    masked = masked_blocks(step.mask, step.grid())
    return [block for block in blocks if not masked[block.index]]


def errors(segmentation: np.ndarray, truth: np.ndarray):
    """VOI in bits, split and merge."""
    table = count_overlaps(segmentation=segmentation, truth=truth)
    return evaluate(lambda: [table], ignore_truth=(0,)).voi


def fragments(task: Segment) -> np.ndarray:
    volume = Volume.open(f"{task.output}/fragments")
    return volume.read(volume.box)


def segments(task: Segment, threshold: float) -> np.ndarray:
    volume = Volume.open(task.segments_path(threshold))
    return volume.read(volume.box)


def forest(task: Segment) -> dict[tuple[int, int], float]:
    """All merges of all levels."""
    merges = {}
    for step in task.steps():
        if step.kind == "agglomerate_graph":
            tables = BlockTables(f"{step.output}/{step.level}/merges")
            for block in unmasked(step):
                rows = tables.read(block.key)
                pairs = zip(rows["a"].tolist(), rows["b"].tolist(), rows["affinity"].tolist())
                for a, b, affinity in pairs:
                    assert (a, b) not in merges
                    merges[a, b] = affinity
    return merges


def assert_same_segments(task: Segment, other: Segment) -> None:
    """The same fragments, merges and segments, ids included."""
    np.testing.assert_array_equal(fragments(task), fragments(other))
    assert forest(task) == forest(other)
    for threshold in task.thresholds:
        np.testing.assert_array_equal(segments(task, threshold), segments(other, threshold))
