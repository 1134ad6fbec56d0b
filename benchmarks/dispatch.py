"""Measure the cost of a block that does nothing: dispatch, durable commit, and finding undone blocks.

Measurements on a private mongod: blocks per second through the whole run (scheduler, two workers,
commits with majority and journal); seconds to decide what is left of 10^6 done blocks, and to ask an
input of 10^6 blocks, whose run is in the same database, what it lacks and what of it is new; peak
memory of the scheduler process.

The run is the real one, `run_blockwise`; "against" is volara 1.0.5 on idle cores of the same kind of
machine: 38 blocks/s dispatched and marked, 465 done-checks/s.
"""

from __future__ import annotations

import json
import resource
import sys
import tempfile
import time
from datetime import UTC, datetime
from pathlib import Path

import click
import numpy as np
from rich.console import Console

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import DONE, RunStore, block_fields
from em_blocks.runtime.runs.inputs import Input, confirmed
from em_blocks.runtime.scheduler.run import run_blockwise
from em_blocks.volumes.stores.ledger import Ledger, read_ledger, write_ledger
from parts.noop import Noop

VOLARA_BLOCKS_S, VOLARA_CHECKS_S = 38, 465


def task(folder: Path, run: str, n_blocks: tuple[int, int, int], workers: int) -> Noop:
    return Noop(
        run=run, run_dir=folder, block_shape=(32, 64, 64), n_blocks=n_blocks, num_workers=workers
    )


def dispatch(folder: Path, n: int, workers: int) -> float:
    """Blocks per second of a run of about `n` blocks, worker start-up included."""
    side = round(n ** (1 / 3))
    noop = task(folder, "dispatch", (side, side, side), workers)
    start = time.perf_counter()
    report = run_blockwise(noop, console=Console(stderr=True))
    seconds = time.perf_counter() - start
    assert report.ok and report.blocks["done"] == side**3, report
    print(f"{side**3} blocks in {seconds:.1f} s, of which {report.wall_s:.1f} s scheduling")
    return side**3 / seconds


def fill(folder: Path, noop: Noop) -> None:
    """Store done documents for all blocks of a run but the last, in bulk."""
    grid, now = noop.grid(), datetime.now(UTC)
    with database_uri(None, folder) as uri, connect(uri) as client:
        store = RunStore(client, noop.db_name, noop.run)
        batch = []
        for block in grid.blocks():
            if block.index == tuple(n - 1 for n in grid.shape):
                break
            batch.append({
                "_id": f"{noop.run}/{block.key}", **block_fields(noop.run, grid, block),
                "state": DONE, "epoch": 1, "attempts": 1, "started": now, "finished": now,
                "seconds": {"read": 0.1, "compute": 1.0, "write": 0.1}, "worker": "w", "host": "h",
                "device": "cpu", "counts": {}, "checksums": {}, "failures": 0, "error": None,
            })
            if len(batch) == 20_000:
                store.blocks.insert_many(batch, ordered=False)
                batch = []
        if batch:
            store.blocks.insert_many(batch, ordered=False)


def resume(folder: Path, n: int) -> float:
    """Seconds to decide what is left of about `n` blocks, all but one done."""
    side = round(n ** (1 / 3))
    noop = task(folder, "resume", (side, side, side), 1)
    fill(folder, noop)
    with database_uri(None, folder) as uri, connect(uri) as client:
        store = RunStore(client, noop.db_name, noop.run)
        start = time.perf_counter()
        left = (~store.mask(noop.grid().shape, DONE, "quarantined")).sum()
        seconds = time.perf_counter() - start
    assert left == 1, left
    start = time.perf_counter()
    report = run_blockwise(noop, console=Console(stderr=True))
    print(
        f"{side**3} blocks: decided in {seconds:.2f} s; resumed, did the last block and reported in "
        f"{time.perf_counter() - start:.1f} s"
    )
    assert report.ok and report.blocks["computed"] == 1, report
    return seconds


def ask_input(folder: Path, n: int) -> float:
    """Seconds to compare an input of about `n` blocks, that of `resume`, with a record of it."""
    side = round(n ** (1 / 3))
    made, reader = (task(folder, run, (side, side, side), 1) for run in ("resume", "reader"))
    grid, path = made.grid(), str(folder / "input")
    generation = np.ones(grid.shape, np.uint32)
    none = np.zeros(grid.shape, bool)
    with database_uri(None, folder) as uri, connect(uri) as client:
        run = RunStore(client, made.db_name, made.run).load()
        write_ledger(path, Ledger(
            made.run, run["run_id"], made.kind, run["fingerprint"], run["content_id"], grid, "closed",
            generation, none,
        ))
        start = time.perf_counter()
        ledger = confirmed(read_ledger(path), RunStore(client, reader.db_name, reader.run))
        found = Input("input", path, ledger.fingerprint, ledger)
        assert ledger.complete and not found.holes(reader, grid).any()
        assert not found.compare(found.document(), reader, grid, ~none).stale.any()
        return time.perf_counter() - start


@click.command()
@click.option("--blocks", default=64_000, show_default=True, help="Blocks to dispatch.")
@click.option("--done", default=1_000_000, show_default=True, help="Done blocks to resume over.")
@click.option("--workers", default=2, show_default=True)
def main(blocks: int, done: int, workers: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        rate = dispatch(Path(folder), blocks, workers)
        decided = resume(Path(folder), done)
        asked = ask_input(Path(folder), done)
    memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(f"peak memory of the scheduler process: {memory:.0f} MB")
    for name, value, unit, against in (
        ("resume decision", decided, "s", done / VOLARA_CHECKS_S),
        ("state of an input", asked, "s", 1.0),
        ("scheduler memory", memory, "MB", 500),
        ("durable no-op blocks", rate, "blocks/s", VOLARA_BLOCKS_S),
    ):
        print(json.dumps({"name": name, "value": round(value, 2), "unit": unit,
                          "against": round(against, 2), "ratio": round(value / against, 3)}))


if __name__ == "__main__":
    sys.exit(main())
