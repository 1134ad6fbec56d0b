"""Measure what the block grid changes in a segmentation: VOI between runs with other block shapes.

The affinities of a config of ``em-blocks segment`` are segmented with blocks of one, two and four
tiles per axis, and with the whole volume as one block; small blocks have several levels of
super-blocks. The steps do their blocks in this process. Every one of these is compared with blocks of
one tile: the last line gives the largest VOI.

Tiles, unlike blocks, do change fragments, as they are cut at the faces of tiles. What that costs is
printed as well: VOI between the tiles of the config, tiles of twice the size, and the whole volume
as one tile. Without a config generated affinities are used.
"""

from __future__ import annotations

import json
import math
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from em_blocks.geometry import Triple
from em_blocks.kernels.evaluation.contingency import count_overlaps
from em_blocks.kernels.evaluation.segmentation_scores import evaluate
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.masks import masked_blocks
from em_blocks.tasks.segmentation.segment import Segment
from em_blocks.volumes import Volume
from parts.affinities import segment_config

TARGET_BITS = 0.02


def segmented(task: Segment) -> dict[float, np.ndarray]:
    """Return the segments at every threshold of a config, made in this process."""
    start, n_blocks = time.perf_counter(), 0
    for step in task.steps():
        step.check()
        step.check_alignment()
        grid = step.grid()
        for spec in step.output_specs():
            spec.create(grid, f"of {step.run}")
        masked = masked_blocks(step.mask, grid) if step.mask else np.zeros(grid.shape, bool)
        n_blocks = n_blocks or grid.n_blocks
        with step.open(RunContext()) as process:
            for block in grid.blocks():
                if not masked[block.index]:
                    process(block, BlockReport())
    levels = sum(step.kind == "agglomerate_graph" for step in task.steps())
    print(f"tiles {task.tile_shape}, {n_blocks} blocks {task.block_shape}, {levels} levels of "
          f"super-blocks: {time.perf_counter() - start:.1f} s", flush=True)
    volumes = ((t, Volume.open(task.segments_path(t))) for t in task.thresholds)
    return {t: volume.read(volume.box) for t, volume in volumes}


def with_grid(task: Segment, folder: Path, tile: Triple, block: Triple) -> Segment:
    name = "x".join(map(str, (*tile, *block)))
    return task.model_copy(update={
        "output": str(folder / f"{name}.zarr"), "run_dir": folder, "tile_shape": tile,
        "block_shape": block, "chunk_shape": tile if math.prod(tile) < 2**21 else task.chunk_shape,
        "super_block": (2, 2, 2),
    })


def difference(what: str, a: dict[float, np.ndarray], b: dict[float, np.ndarray]) -> float:
    """VOI in bits, split and merge together; the largest of all thresholds. Prints all."""
    bits = []
    for threshold, labels in a.items():
        table = count_overlaps(segmentation=b[threshold], truth=labels)
        split, merge = evaluate(lambda table=table: [table], ignore_truth=()).voi
        bits.append(split + merge)
        print(f"  {what} at threshold {threshold:g}: VOI {split + merge:.4f} bits (split {split:.4f}, "
              f"merge {merge:.4f})", flush=True)
    return max(bits)


@click.command()
@click.option("--config", type=click.Path(path_type=Path), default=None)
@click.option("--set", "overrides", multiple=True, help="As in em-blocks segment.")
def main(config: Path | None, overrides: tuple[str, ...]) -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        task = Segment.from_file(config or segment_config(folder, (80, 144, 144)), overrides)
        shape = Volume.open(task.affinities).shape
        tile = task.tile_shape or task.block_shape
        whole = tuple(-(-n // t) * t for n, t in zip(shape, tile, strict=True))
        blocks = [tuple(k * t for t in tile) for k in (1, 2, 4)]
        reference = segmented(with_grid(task, folder, tile, blocks[0]))
        bits = []
        for block in (*blocks[1:], whole):
            found = segmented(with_grid(task, folder, tile, block))
            bits.append(difference(f"blocks {block} against {blocks[0]}", reference, found))
        for other in (blocks[1], whole):
            found = segmented(with_grid(task, folder, other, other))
            difference(f"tiles {other} against {tile}", reference, found)
    value = round(max(bits), 6)
    print(json.dumps({"name": "largest VOI between block shapes", "value": value, "unit": "bits",
                      "against": TARGET_BITS, "ratio": round(value / TARGET_BITS, 4)}))


if __name__ == "__main__":
    main()
