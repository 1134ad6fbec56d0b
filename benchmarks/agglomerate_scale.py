"""Agglomeration of large region graphs: in one go in memory, or super-block by super-block on disk.

A region graph as of a volume of neurites is made up: fragments on a jittered lattice, about six edges
per fragment, contact areas spread as in tissue. Neurites of 3 x 3 fragments wind through the volume;
edges within one are mostly strong, others mostly weak.

By default one process agglomerates 10^7 edges and cuts the forest; the targets are 30 s and 4 GB.
With ``--out-of-core`` the tables of all blocks are written to disk, and the tasks that make the
forest and the look-up tables run over them, by `run_blockwise`. The target for 10^8 edges is 8 GB
for the largest worker.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.geometry import Frame
from em_blocks.kernels.segmentation.agglomerate import Graph, agglomerate
from em_blocks.kernels.segmentation.merge_tree import cut
from em_blocks.kernels.segmentation.neighborhood import FULL
from em_blocks.runtime.scheduler.run import run_blockwise
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.segmentation.segment import Segment
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables, Columns

SIDE = 16
"""Fragments along each side of a block, and voxels along each side of the cell of a fragment."""
THRESHOLD = 0.5
SECONDS, MEMORY_MB, OUT_OF_CORE_MB = 30, 4000, 8000

# To every later neighbour of the lattice with a probability: 3 faces, 6 edges, 4 corners.
SHARES = {
    step: {1: 1.0, 2: 0.4, 3: 0.15}[sum(map(abs, step))]
    for step in itertools.product((-1, 0, 1), repeat=3) if step > (0, 0, 0)
}


def neurite(place: np.ndarray) -> np.ndarray:
    """Which neurite the fragments at (n, 3) places of the lattice belong to."""
    z, y, x = place.T
    wound = np.stack([y + 4 * np.sin(z / 9), x + 4 * np.cos(z / 11)])
    row, column = np.floor(wound / 3).astype(np.int64)
    return row * (1 << 32) + column


def edges_from(places: np.ndarray, side: int, rng: np.random.Generator) -> tuple[np.ndarray, ...]:
    """Edges from fragments to earlier ones: both places, contact, and sum of the affinities."""
    heres, befores = [], []
    for step, share in SHARES.items():
        before = places - step
        taken = ((before >= 0) & (before < side)).all(axis=1) & (rng.random(len(places)) < share)
        heres.append(places[taken])
        befores.append(before[taken])
    here, before = np.concatenate(heres), np.concatenate(befores)
    n = len(here)
    contact = np.maximum(1, rng.lognormal(4, 1, n)).astype(np.int64)
    within = neurite(here) == neurite(before)
    affinity = np.where(within, rng.beta(5, 1.5, n), rng.beta(1.5, 5, n))
    return here, before, contact, (contact * FULL * affinity).astype(np.int64)


# -- in memory ----------------------------------------------------------------------------------


def make_graph(n_edges: float, path: Path) -> None:
    """Store a graph of about `n_edges` edges, nodes numbered along the lattice."""
    side = round((n_edges / sum(SHARES.values())) ** (1 / 3))
    places = np.stack(np.unravel_index(np.arange(side**3), (side,) * 3), axis=1)
    here, before, contact, total = edges_from(places, side, np.random.default_rng(0))
    u, v = (np.ravel_multi_index(tuple(p.T), (side,) * 3) for p in (before, here))
    u, v = np.minimum(u, v), np.maximum(u, v)
    order = np.lexsort((v, u))
    np.save(path, np.stack([c[order] for c in (u, v, total, contact * FULL)]))


def in_memory(path: Path, lowest: float) -> None:
    """Agglomerate a stored graph, cut the forest, print what it took."""
    columns = list(np.load(path))
    graph = Graph(*columns, np.arange(len(columns[0])))
    n = int(graph.v.max()) + 1
    del columns
    few = Graph(*(column[:1] for column in graph[:5]))
    agglomerate(n, few, lowest=0.0)  # compiled, or loaded, before the clock starts
    start, cpu = time.perf_counter(), time.process_time()
    merges, rest = agglomerate(n, graph, lowest=lowest)
    segments = cut(n, merges.a, merges.b, merges.affinity >= 1 - THRESHOLD)
    seconds, cpu = time.perf_counter() - start, time.process_time() - cpu
    lines = Path("/proc/self/status").read_text().splitlines()
    peak = next(int(line.split()[1]) for line in lines if line.startswith("VmHWM"))
    print(json.dumps({
        "nodes": n, "edges": len(graph.u), "merges": len(merges.a), "edges_left": len(rest.u),
        "segments": int((segments == np.arange(n)).sum()), "seconds": seconds, "cpu": cpu,
        "memory_mb": round(peak / 1000),
    }))


def measure_in_memory(n_edges: float, folder: Path, lowest: float) -> None:
    path = folder / "graph.npy"
    make_graph(n_edges, path)
    # A process of its own, so that making the graph does not count as memory.
    command = [sys.executable, __file__, "--graph", str(path), "--lowest", str(lowest)]
    found = json.loads(subprocess.run(command, check=True, stdout=subprocess.PIPE).stdout)
    print(", ".join(f"{key} {round(value, 1)}" for key, value in found.items()))
    result("memory of agglomeration and cut", found["memory_mb"], "MB", MEMORY_MB * n_edges / 1e7)
    result("agglomeration and cut", found["seconds"], "s", SECONDS * n_edges / 1e7)


# -- out of core --------------------------------------------------------------------------------


def make_tables(task: Segment, blocks: int) -> int:
    """Write the tables of fragments and edges as the steps before would. Number of edges."""
    fragments = BlockTables(f"{task.output}/graph/fragments")
    edges = BlockTables(f"{task.output}/graph/edges")
    local = np.stack(np.unravel_index(np.arange(SIDE**3), (SIDE,) * 3), axis=1)
    n_edges = 0
    for number, block in enumerate(itertools.product(range(blocks), repeat=3)):
        rng = np.random.default_rng(number)
        places = local + SIDE * np.array(block)
        begin = SIDE * places + rng.integers(0, 4, places.shape) * (local > 0)
        end = SIDE * (places + 1) - rng.integers(0, 4, places.shape) * (local < SIDE - 1)
        key = "/".join(map(str, block))
        fragments.write(key, {
            "fragment": ids_of(places, blocks), "voxels": np.prod(end - begin, axis=1),
            "begin": begin, "end": end,
        })
        rows = edge_rows(places, blocks, rng)
        edges.write(key, rows)
        n_edges += len(rows["u"])
    return n_edges


def ids_of(places: np.ndarray, blocks: int) -> np.ndarray:
    """Ids as of fragments: every block has a range of as many ids as it has voxels."""
    block, local = places // SIDE, places % SIDE
    number = np.ravel_multi_index(tuple(block.T), (blocks,) * 3)
    return number * SIDE**6 + 1 + np.ravel_multi_index(tuple(local.T), (SIDE,) * 3)


def edge_rows(places: np.ndarray, blocks: int, rng: np.random.Generator) -> Columns:
    here, before, contact, total = edges_from(places, blocks * SIDE, rng)
    u, v = ids_of(before, blocks), ids_of(here, blocks)
    u, v = np.minimum(u, v), np.maximum(u, v)
    order = np.lexsort((v, u))
    faces = np.stack([contact, 0 * contact, 0 * contact], axis=1)
    columns = {"u": u, "v": v, "contact": faces, "total": total, "weight": contact * FULL}
    return {name: values[order] for name, values in columns.items()}


def run(task: BlockwiseTask) -> tuple[float, int, int]:
    """Seconds of a run, peak memory of its largest worker in MB, and rows that it merged."""
    start = time.perf_counter()
    assert run_blockwise(task, console=Console(stderr=True, quiet=True)).ok
    seconds = time.perf_counter() - start
    with database_uri(None, task.home) as uri, connect(uri) as client:
        documents = list(RunStore(client, task.db_name, task.run).documents())
    counts = [sum(d["counts"].values()) for d in documents]
    return seconds, max(d["peak_memory_mb"] for d in documents), sum(counts)


def measure_out_of_core(
    n_edges: float, folder: Path, lowest: float, *, workers: int, super_block: int
) -> None:
    blocks = round((n_edges / sum(SHARES.values())) ** (1 / 3) / SIDE)
    shape, block = (blocks * SIDE**2,) * 3, (SIDE**2,) * 3
    affinities = str(folder / "affinities.zarr")  # its shape is all that is looked at
    shifts = [[-1, 0, 0], [0, -1, 0], [0, 0, -1], [-9, 0, 0], [0, -9, 0], [0, 0, -9]]
    Volume.create(
        affinities, shape=shape, dtype="uint8", frame=Frame((8.0, 8.0, 8.0)),
        chunk_shape=(64, 64, 64), channels=6, attributes={"neighborhood": shifts},
    )
    config = Segment.from_dict({
        "kind": "segment", "run": "scale", "affinities": affinities, "num_workers": workers,
        "output": str(folder / "segmentation.zarr"), "block_shape": block,
        "super_block": (super_block,) * 3, "thresholds": (THRESHOLD,), "lowest_affinity": lowest,
    })
    start = time.perf_counter()
    n_edges = make_tables(config, blocks)
    size = sum(f.stat().st_size for f in folder.rglob("*.parquet")) / 1e9
    print(
        f"{n_edges} edges of {(blocks * SIDE) ** 3} fragments in {blocks**3} blocks, {size:.3f} GB, "
        f"written in {time.perf_counter() - start:.0f} s", flush=True,
    )
    total, largest = 0.0, 0
    for task in config.steps():
        if task.kind not in ("agglomerate_graph", "find_segments"):
            continue
        seconds, memory, count = run(task)
        what = "merges" if task.kind == "agglomerate_graph" else "segments or clusters"
        print(
            f"{task.run}: {task.grid().n_blocks} super-blocks, {seconds:.1f} s, largest worker "
            f"{memory} MB, {count} {what}", flush=True,
        )
        total, largest = total + seconds, max(largest, memory)
    print(f"{n_edges / total:.0f} edges/s with {workers} workers, {total:.0f} s in all")
    result(f"largest worker at {n_edges:.2g} edges out of core", largest, "MB", OUT_OF_CORE_MB)


def result(name: str, value: float, unit: str, against: float) -> None:
    print(json.dumps({"name": name, "value": round(value, 2), "unit": unit,
                      "against": round(against, 2), "ratio": round(value / against, 3)}))


@click.command()
@click.option("--edges", default=1e7, show_default=True, help="About how many.")
@click.option("--lowest", default=0.02, show_default=True, help="Weaker edges do not merge.")
@click.option("--out-of-core", is_flag=True, help="Tables on disk, super-blocks, worker processes.")
@click.option("--workers", default=2, show_default=True, help="Worker processes, out of core.")
@click.option("--super-block", default=2, show_default=True, help="Blocks along each side of one.")
@click.option("--folder", type=click.Path(path_type=Path), default=None,
              help="Where tables are kept meanwhile. Default: the folder for temporary files.")
@click.option("--graph", type=click.Path(path_type=Path), default=None, hidden=True)
def main(
    edges: float, lowest: float, out_of_core: bool, workers: int, super_block: int,
    folder: Path | None, graph: Path | None,
) -> None:
    if graph is not None:
        in_memory(graph, lowest)
        return
    with tempfile.TemporaryDirectory(dir=folder) as name:
        if out_of_core:
            measure_out_of_core(
                edges, Path(name), lowest, workers=workers, super_block=super_block
            )
        else:
            measure_in_memory(edges, Path(name), lowest)


if __name__ == "__main__":
    main()
