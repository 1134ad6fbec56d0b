"""Clean-up, pyramid and contingency of a real segmentation: speed, and memory against its size.

The segmentation of mouse cortex `mouse_segmentation/seg.h5` (256 x 512 x 512 voxels of 40 x 4 x 4 nm,
uint32) in the folder that `EM_BLOCKS_DATA` names (default: ../shared/data beside the project) is
stored in chunks; without it, a generated one of 128 x 256 x 256 voxels. Four jobs of blocks of 128^3 on
two workers: connected-component clean-up, relabelling by tables, pyramid of modes, contingency against
itself. Then the same with the volume laid side by side with itself, twice as large: the peak
memory of a worker must not follow it.

Speeds are voxels of the volume per second of wall time of a whole job, start of its workers
included. Results are compared with those of the whole volume in memory. "against": for the clean-up,
labelling one id after the other in the whole volume, as scripts do, extrapolated from a few ids; for the
memory, that of the volume once.
"""

from __future__ import annotations

import json
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import click
import h5py
import numpy as np
from rich.console import Console
from scipy import ndimage

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.evaluation.segmentation import score
from em_blocks.geometry import Block, Box, Frame
from em_blocks.kernels.components.block_components import find_parts
from em_blocks.kernels.components.join_components import part_ids
from em_blocks.kernels.synthetic.volume import phantom
from em_blocks.outputs import TableOutput
from em_blocks.runtime.scheduler.pipeline import run_all
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.components.clean import Clean
from em_blocks.tasks.components.find_parts import FindParts
from em_blocks.tasks.evaluation.count_overlaps import CountOverlaps
from em_blocks.tasks.segmentation.relabel import Relabel
from em_blocks.tasks.volumes.downsample import Downsample
from em_blocks.volumes import Volume
from em_blocks.volumes.downsample import downsample
from em_blocks.volumes.stores.tables import BlockTables

DATA = Path(os.environ.get("EM_BLOCKS_DATA", Path(__file__).parents[1] / "../shared/data"))
FRAME = Frame((40.0, 4.0, 4.0), (400.0, 40.0, 20.0))
CHUNK, BLOCK, WORKERS = (64,) * 3, (128,) * 3, 2
N_IDS = 3


@contextmanager
def segmentation() -> Iterator[np.ndarray | h5py.Dataset]:
    """Ids (z, y, x); the real ones are read piece by piece."""
    path = DATA / "mouse_segmentation/seg.h5"
    if not path.exists():
        print(f"{path} does not exist: a generated volume is used")
        yield phantom((128, 256, 256), voxel_size=(40, 4, 4), seed=5).neurons.astype("uint32")
        return
    with h5py.File(path, "r") as file:
        yield file["seg"]


def lay_out(folder: Path, values: np.ndarray | h5py.Dataset, times: int) -> Volume:
    """A volume that holds `values` several times, side by side along x."""
    z, y, x = values.shape
    made = Volume.create(
        str(folder / "labels.zarr/ids/s0"), shape=(z, y, x * times), dtype=values.dtype, frame=FRAME,
        chunk_shape=CHUNK,
    )
    for begin in range(0, z, CHUNK[0]):
        slab = values[begin : begin + CHUNK[0]]
        box = Box((begin, 0, 0), (len(slab), y, x * times))
        made.write(box, np.tile(slab, (1, 1, times)))
    return made


def look_up_tables(parts: FindParts) -> str:
    """Folder of tables that give every id one of 99 segments; needs the parts of the clean-up."""
    spec = TableOutput("lut", f"{parts.output}/lut")
    spec.create(parts.grid(), "benchmark")
    found, tables = BlockTables(f"{parts.output}/parts"), BlockTables(spec.path)
    for block in parts.grid().blocks():
        ids = np.unique(found.read(block.key, ["id"])["id"])
        tables.write(block.key, {"fragment": ids, "segment": segment(ids)})
    return spec.path


def segment(ids: np.ndarray) -> np.ndarray:
    return np.where(ids > 0, ids % 99 + 1, 0)


def jobs(folder: Path, labels: Volume) -> dict[str, list[BlockwiseTask]]:
    """Return the steps of every job."""
    shared = {"num_workers": WORKERS, "run_dir": str(folder)}
    clean = Clean.from_dict({
        **shared, "kind": "clean", "run": "clean", "labels": labels.path, "chunk_shape": CHUNK,
        "output": str(folder / "labels.zarr/clean"), "block_shape": BLOCK,
    })
    pyramid = Downsample.from_dict({
        **shared, "kind": "downsample", "run": "pyramid", "input": labels.path, "method": "mode",
        "output": str(folder / "labels.zarr/ids"), "levels": 3, "block_shape": CHUNK,
    })
    overlaps = CountOverlaps.from_dict({
        **shared, "kind": "count_overlaps", "run": "overlaps", "truth": labels.path,
        "segmentations": {"itself": labels.path}, "output": str(folder / "overlaps"),
        "block_shape": BLOCK,
    })
    relabel = Relabel.from_dict({
        **shared, "kind": "relabel", "run": "relabel", "labels": labels.path, "block_shape": BLOCK,
        "lut": str(folder / "tables/clean/lut"), "output": str(folder / "labels.zarr/relabelled"),
        "chunk_shape": CHUNK,
    })
    return {"clean-up": clean.steps(), "relabelling": [relabel], "pyramid": pyramid.steps(),
            "contingency": [overlaps]}


def run(steps: list[BlockwiseTask]) -> tuple[float, int]:
    """Seconds of a job, and the largest peak memory of its workers, MB."""
    start = time.perf_counter()
    assert all(report.ok for report in run_all(steps, console=Console(quiet=True)))
    seconds = time.perf_counter() - start
    with database_uri(None, steps[0].home) as uri, connect(uri) as client:
        stores = [RunStore(client, step.db_name, step.run) for step in steps]
        return seconds, max(d["peak_memory_mb"] for s in stores for d in s.documents())


def check_clean(values: np.ndarray, steps: list[BlockwiseTask]) -> None:
    parts = find_parts(values)
    rows = [column.astype(np.int64) for column in (parts.ids, parts.sizes, parts.first)]
    ids = part_ids(*rows, fraction=steps[1].fraction, min_size=steps[1].min_size)
    expected = np.concatenate([[0], ids])[parts.numbers]
    made = Volume.open(steps[-1].output)
    assert np.array_equal(made.read(made.box), expected)
    print(f"clean-up: {len(ids)} parts of {len(np.unique(parts.ids))} ids, {(ids == 0).sum()} erased")


def check_relabel(values: np.ndarray, steps: list[BlockwiseTask]) -> None:
    made = Volume.open(steps[0].output)
    assert np.array_equal(made.read(made.box), segment(values))
    print(f"relabelling: {len(np.unique(segment(values)))} segments")


def check_pyramid(values: np.ndarray, steps: list[BlockwiseTask]) -> None:
    for step, level in zip(steps, steps[-1].geometry[1:], strict=True):
        values = downsample(values, level.factors, "mode")
        made = Volume.open(step.output_specs()[0].path)
        assert np.array_equal(made.read(made.box), values)
        print(f"pyramid: level of {made.shape} voxels, {made.frame.voxel_size} nm")


def check_overlaps(values: np.ndarray, steps: list[BlockwiseTask]) -> None:
    (task,) = steps
    blocks: list[Block] = list(task.grid().blocks())
    (found,) = score(task, {"itself": lambda: task.stored("itself", blocks)})
    assert sum(found.evaluation.voi) == found.evaluation.arand.error == 0
    assert found.evaluation.n_voxels == np.count_nonzero(values)
    print(f"contingency: {found.evaluation.n_segments} segments, VOI 0, adapted Rand error 0")


CHECKS: dict[str, Callable[[np.ndarray, list[BlockwiseTask]], None]] = {
    "clean-up": check_clean, "relabelling": check_relabel, "pyramid": check_pyramid,
    "contingency": check_overlaps,
}


def one_id_after_the_other(values: np.ndarray) -> float:
    """Mvoxel/s of labelling every id in the whole volume, from the time of a few."""
    ids, counts = np.unique(values[values > 0], return_counts=True)
    chosen = ids[np.argsort(counts)[np.linspace(0, len(ids) - 1, N_IDS).astype(int)]]
    start = time.perf_counter()
    for i in chosen:
        numbers, _ = ndimage.label(values == i, structure=np.ones((3, 3, 3)))
        np.bincount(numbers.ravel())
    seconds = (time.perf_counter() - start) / N_IDS * len(ids)
    return values.size / 1e6 / seconds


@click.command()
def main() -> None:
    peaks: dict[int, int] = {}
    with segmentation() as values:
        for times in (1, 2):
            with tempfile.TemporaryDirectory() as folder:
                labels = lay_out(Path(folder), values, times)
                found = jobs(Path(folder), labels)
                for name, steps in found.items():
                    if name == "relabelling":
                        look_up_tables(found["clean-up"][0])
                    seconds, peak = run(steps)
                    peaks[times] = max(peak, peaks.get(times, 0))
                    rate = labels.box.size / 1e6 / seconds
                    print(f"{name} of {labels.shape} voxels: {rate:.1f} Mvoxel/s, {peak} MB")
                    if times == 1:
                        CHECKS[name](values[:], steps)
                        against = one_id_after_the_other(values[:]) if name == "clean-up" else None
                        print(json.dumps({
                            "name": f"{name} of labels, {WORKERS} workers", "value": round(rate, 1),
                            "unit": "Mvoxel/s", "against": against and round(against, 3),
                            "ratio": against and round(rate / against, 1),
                        }))
    print(json.dumps({"name": "worker memory on labels, 2x volume over 1x", "value": peaks[2],
                      "unit": "MB", "against": peaks[1], "ratio": round(peaks[2] / peaks[1], 3)}))


if __name__ == "__main__":
    main()
