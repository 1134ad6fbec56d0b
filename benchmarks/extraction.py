"""Extraction of synapses from a prediction, against the method of Synful, on one core.

A generated prediction of 125 x 1250 x 1250 voxels of 40 x 4 x 4 nm (indicator uint8 with scale 255,
direction vectors int8 with scale 0.25) holds 2,000 synapses of some 50 to 700 voxels. Every
measurement is a process of its own that may use one core, the two methods in turn. Its seconds are those
of the extraction, once everything is imported and compiled, in which it had the core: what else the
machine does is no part of them (those of the clock are printed too). Its memory is the peak of the
process.

- "arrays": the indicator is in memory, vectors are mapped from a file. From there to presynaptic and
  postsynaptic sites with scores: what Synful's location search does, and the lookup of vectors.
- "zarr": the same from volumes on disk, including reading. em_blocks reads, detects and looks up
  as `extract-synapses` does, in four blocks with their context; the other reads both arrays as a whole.

The other is `parts/synful.py`. Both must find the same components with the same scores, and the same
sites where the reference heeds the whole border of a component; how many are the same where it does not,
as the original, is printed. From volumes both spend most of the time on decoding vectors: every chunk
holds a synapse.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np

from em_blocks.geometry import BlockGrid
from em_blocks.kernels.synapses.detection import (
    DetectionRule,
    Detections,
    detect,
    direction_vectors_of,
)
from em_blocks.kernels.synapses.pairing import centers, pair
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.synapses.site_search import SiteSearch
from em_blocks.volumes import Volume
from parts import synful
from parts.synapse_prediction import FRAME, INDICATOR_SCALE, VECTOR_SCALE, make_prediction

RULE = DetectionRule(threshold=0.8, score="sum", site="edt")
THRESHOLD = 204  # the same, as stored
CONTEXT_NM, EXTENT_NM = (120.0,) * 3, (2000.0,) * 3
Row = dict[str, np.ndarray]


def ours_from_arrays(indicator: np.ndarray, vectors: np.ndarray) -> Row:
    found = detect(indicator, scale=INDICATOR_SCALE, rule=RULE, voxel_size=FRAME.voxel_size)
    return described(found, found.site, direction_vectors_of(found, vectors, scale=VECTOR_SCALE))


def ours_from_zarr(folder: Path, blocks: int) -> Row:
    indicator, vectors = volumes(folder)
    search = SiteSearch(indicator, RULE, CONTEXT_NM, EXTENT_NM)
    shape = (indicator.shape[0], indicator.shape[1], -(-indicator.shape[2] // blocks))
    rows = []
    for block in BlockGrid(indicator.frame, indicator.shape, shape).blocks():
        for part in search.within(block.write_box, BlockReport()):
            rows.append(described(part.detections, part.voxel, part.vectors(vectors, "site")))
    return {name: np.concatenate([row[name] for row in rows]) for name in rows[0]}


def described(found: Detections, voxel: np.ndarray, vector: np.ndarray) -> Row:
    post = centers(voxel, offset=FRAME.offset, voxel_size=FRAME.voxel_size)
    pre, post = pair(post, vector)
    return {"voxel": voxel, "score": found.score, "size": found.size, "pre": pre, "post": post}


def theirs(indicator: np.ndarray, vectors: np.ndarray, **options) -> Row:
    found = synful.extract(
        indicator, vectors, threshold=THRESHOLD, vector_scale=VECTOR_SCALE,
        voxel_size=FRAME.voxel_size, **options,
    )
    return {"voxel": found.post, "score": found.score / INDICATOR_SCALE, "size": found.size,
            "pre": found.pre, "defined": found.defined}


def volumes(folder: Path) -> list[Volume]:
    return [Volume.open(str(folder / f"prediction.zarr/{name}")) for name in ("indicator", "vectors")]


def arrays(folder: Path) -> list[np.ndarray]:
    """Return the indicator in memory and the vectors mapped: few voxels of these are needed."""
    return [np.load(folder / "indicator.npy"), np.load(folder / "vectors.npy", mmap_mode="r")]


def extract(method: str, source: str, folder: Path, inputs: list[np.ndarray] | None) -> Row:
    if source == "arrays":
        return (ours_from_arrays if method == "em_blocks" else theirs)(*inputs)
    if method == "em_blocks":
        return ours_from_zarr(folder, blocks=4)
    return theirs(*(volume.read(volume.box) for volume in volumes(folder)))


def warm_up() -> None:
    """Load what is compiled, which a worker does once for all blocks."""
    indicator, vectors = np.zeros((3, 4, 5), np.uint8), np.zeros((3, 3, 4, 5), np.int8)
    indicator[1, 2, 2:4] = 255
    ours_from_arrays(indicator, vectors)
    theirs(indicator, vectors)


def measure(method: str, source: str, folder: Path) -> None:
    """In a process of its own: extract, keep the rows, print seconds and peak memory."""
    os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    warm_up()
    inputs = arrays(folder) if source == "arrays" else None
    start, busy = time.perf_counter(), time.process_time()
    rows = extract(method, source, folder, inputs)
    figures = time.perf_counter() - start, time.process_time() - busy, peak_mb()
    np.savez(folder / f"{method}_{source}.npz", **rows)
    print(json.dumps(figures))


def peak_mb() -> float:
    """Peak memory of this process; what the parent held when it started this one does not count."""
    status = dict(line.split(":", 1) for line in Path("/proc/self/status").read_text().splitlines())
    return int(status["VmHWM"].split()[0]) / 1024


def measured(method: str, source: str, folder: Path) -> list[float]:
    command = [sys.executable, __file__, "--measure", method, source, str(folder)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return json.loads(done.stdout)


def check(folder: Path, n_sites: int) -> None:
    """Raise AssertionError unless all found the same."""
    kept = {path.stem: dict(np.load(path)) for path in sorted(folder.glob("*.npz"))}
    sound = in_order(theirs(*arrays(folder), own_border=True))
    assert len(sound["size"]) == n_sites
    for name, rows in kept.items():
        rows = in_order(rows)
        same = (rows["voxel"] == sound["voxel"]).all(axis=1)
        if name.startswith("em_blocks"):
            assert np.array_equal(rows["size"], sound["size"])
            assert np.array_equal(rows["score"], sound["score"])
            assert same.all()
            # The other rounds to whole voxels and counts from the array's corner, voxels' first.
            moved = rows["pre"] - FRAME.offset - np.array(FRAME.voxel_size) / 2
            assert (np.abs(moved - sound["pre"]) <= np.array(FRAME.voxel_size) / 2).all()
        else:
            defined = np.count_nonzero(rows["defined"])
            print(f"{name}: {same.sum()} of {n_sites} sites are those of the whole border, "
                  f"{defined} are defined")
    print(f"em_blocks: all {n_sites} components, scores and sites are those of the reference")


def in_order(rows: Row) -> Row:
    """Rows in the order of components: sites of the original's rule may be others."""
    order = np.lexsort((*rows["voxel"].T[::-1], rows["size"], rows["score"]))
    return {name: column[order] for name, column in rows.items()}


@click.command()
@click.option("--shape", nargs=3, type=int, default=(125, 1250, 1250), show_default=True)
@click.option("--sites", default=2000, show_default=True, help="Synapses in the prediction.")
@click.option("--repeats", default=5, show_default=True, help="Measurements of each kind.")
@click.option("--measure", "one", nargs=3, hidden=True)
def main(shape: tuple[int, int, int], sites: int, repeats: int, one: tuple[str, str, str]) -> None:
    if one:
        return measure(one[0], one[1], Path(one[2]))
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        make_prediction(folder, shape, sites, seed=5)
        found: dict[tuple[str, str], list[list[float]]] = {}
        for _ in range(repeats):
            for source in ("zarr", "arrays"):
                for method in ("em_blocks", "synful"):
                    found.setdefault((source, method), []).append(measured(method, source, folder))
        check(folder, sites)
    for source in ("zarr", "arrays"):
        report(source, *(np.array(found[source, method]) for method in ("em_blocks", "synful")))


def report(source: str, ours: np.ndarray, reference: np.ndarray) -> None:
    """Print medians of seconds and the largest peak memory of both, and the line of JSON."""
    for name, figures in (("em_blocks", ours), ("synful", reference)):
        wall, cpu, peak = figures.T
        print(f"{name} from {source}: {np.median(cpu):.3f} s ({cpu.min():.3f} to {cpu.max():.3f}), "
              f"{np.median(wall):.3f} s by the clock, {peak.max():.0f} MB")
    value, against = np.median(ours[:, 1]), np.median(reference[:, 1])
    print(json.dumps({"name": f"extraction of synapses from {source}, one core",
                      "value": round(value, 3), "unit": "s", "against": round(against, 2),
                      "ratio": round(against / value, 1)}))


if __name__ == "__main__":
    main()
