"""Two workers on two cores: twice the blocks in the same time; and what the scheduler takes of a core.

(a) Weak scaling: blocks that compute a fixed amount on one core, the same number for each worker,
by one worker and by two in turns, through the whole runtime with a private mongod. Efficiency is the
time of one worker over the time of two, from the start of the first block to the end of the last
by the records, and for the whole command. Two cores of a machine that others use are not twice one:
a control takes the same turns with plain processes that only compute, and the ratio to it is what the
runtime is answerable for.

(b) Scheduler: CPU seconds (user and system) of the scheduler's process, and of mongod, over the time
in which two workers do blocks of half a second (they sleep, so that nothing else is measured).
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path

import click
import psutil
from rich.console import Console

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.runtime.scheduler.run import run_blockwise
from parts.busy import Busy, steps_per_second

HERE = Path(__file__).parent
CONTROL = (
    f"import sys; sys.path.insert(0, {str(HERE)!r})\n"
    "from parts.busy import spin\n"
    "import time; spin(1); print('ready', flush=True); sys.stdin.readline(); start = time.time()\n"
    "for _ in range(int(sys.argv[1])): spin(int(sys.argv[2]))\n"
    "print(start, time.time(), flush=True)\n"
)


def task(folder: Path, run: str, blocks: int, workers: int, **what) -> Busy:
    return Busy(
        run=run, run_dir=folder, block_shape=(32, 64, 64), n_blocks=(1, workers, blocks),
        num_workers=workers, **what,
    )


def between(busy: Busy) -> float:
    """Seconds from the start of the first block to the end of the last, by their records."""
    with database_uri(None, busy.home) as uri, connect(uri) as client:
        found = list(RunStore(client, busy.db_name, busy.run).documents())
    first, last = min(d["started"] for d in found), max(d["finished"] for d in found)
    return (last - first).total_seconds()


def through_runtime(folder: Path, name: str, blocks: int, workers: int, steps: int) -> tuple:
    """Seconds between the first block and the last, and of the whole command."""
    busy = task(folder, name, blocks, workers, n_steps=steps)
    start = time.perf_counter()
    report = run_blockwise(busy, console=Console(quiet=True))
    whole = time.perf_counter() - start
    assert report.ok, report
    return between(busy), whole


def control(blocks: int, workers: int, steps: int) -> float:
    """Seconds of plain processes that compute as much."""
    command = [sys.executable, "-c", CONTROL, str(blocks), str(steps)]
    processes = [
        subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
        for _ in range(workers)
    ]
    for process in processes:
        process.stdout.readline()
    for process in processes:
        print(file=process.stdin, flush=True)
    times = [[float(t) for t in process.communicate()[0].split()] for process in processes]
    return max(end for _, end in times) - min(start for start, _ in times)


def weak_scaling(folder: Path, rounds: int, blocks: int, block_s: float) -> dict[str, float]:
    """Efficiencies of two workers: medians of one over medians of two."""
    steps = round(block_s * steps_per_second())
    taken: dict[tuple[str, int], list[float]] = {}
    for turn in range(rounds):
        for workers in (1, 2) if turn % 2 == 0 else (2, 1):
            first_to_last, whole = through_runtime(
                folder, f"turn{turn}-{workers}", blocks, workers, steps
            )
            plain = control(blocks, workers, steps)
            values = {"first to last block": first_to_last, "whole command": whole, "control": plain}
            for name, value in values.items():
                taken.setdefault((name, workers), []).append(value)
            print(
                f"{workers} workers: {first_to_last:.2f} s from the first block to the last, "
                f"{whole:.2f} s the command, {plain:.2f} s plain processes", flush=True,
            )
    medians = {key: statistics.median(values) for key, values in taken.items()}
    return {name: medians[name, 1] / medians[name, 2] for name, workers in medians if workers == 1}


class Watched:
    """CPU seconds of this process and of mongod while blocks are done."""

    def __init__(self, folder: Path):
        self._server, self._over = folder / "db/server.json", threading.Event()
        self._samples: list[tuple[float, float, float]] = []
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> Watched:
        self._thread.start()
        return self

    def __exit__(self, *exc) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(0.5):
            if self._server.exists():
                times = psutil.Process(json.loads(self._server.read_text())["pid"]).cpu_times()
                self._samples.append((time.time(), time.process_time(), times.user + times.system))

    def shares(self, start: float, end: float) -> tuple[float, float]:
        """Return the share of a core, between two moments."""
        inside = [sample for sample in self._samples if start <= sample[0] <= end]
        seconds, own, server = (b - a for a, b in zip(inside[0], inside[-1], strict=True))
        return own / seconds, server / seconds


def scheduler_share(folder: Path, seconds: float, block_s: float) -> tuple[float, float]:
    """Shares of a core of the scheduler and of mongod, with two workers and blocks of `block_s`."""
    busy = task(folder, "scheduler", round(seconds / block_s), 2, sleep_s=block_s)
    with Watched(folder) as watched:
        assert run_blockwise(busy, console=Console(quiet=True)).ok
    with database_uri(None, busy.home) as uri, connect(uri) as client:
        found = list(RunStore(client, busy.db_name, busy.run).documents())
    # Dates of the records are UTC.
    return watched.shares(
        min(d["started"] for d in found).timestamp(), max(d["finished"] for d in found).timestamp()
    )


@click.command()
@click.option("--rounds", default=3, show_default=True, help="Turns of one worker and two.")
@click.option("--blocks", default=12, show_default=True, help="Per worker.")
@click.option("--block-s", default=0.5, show_default=True, help="Seconds of computing per block.")
@click.option("--seconds", default=20.0, show_default=True, help="For which the scheduler is watched.")
def main(rounds: int, blocks: int, block_s: float, seconds: float) -> None:
    with tempfile.TemporaryDirectory() as folder:
        scheduler, database = scheduler_share(Path(folder), seconds, block_s)
        scaling = weak_scaling(Path(folder), rounds, blocks, block_s)
    plain = scaling.pop("control")
    print(f"mongod: {database:.1%} of a core; plain processes scale by {plain:.2f}")
    for what, ratio in scaling.items():
        print(f"weak scaling, {what}: {ratio:.2f}, against plain processes {ratio / plain:.2f}")
    reached = scaling["first to last block"]
    for name, value, unit, against in (
        (f"scheduler CPU, 2 workers, {block_s:g} s blocks", scheduler, "of a core", 0.05),
        ("weak scaling, 1 to 2 workers, over that of plain processes", reached / plain, "", 0.85),
        ("weak scaling, 1 to 2 workers", reached, "", 0.85),
    ):
        print(json.dumps({"name": name, "value": round(value, 3), "unit": unit,
                          "against": against, "ratio": round(value / against, 3)}))


if __name__ == "__main__":
    sys.exit(main())
