"""Shared helper: a small real task with faults, and the laws that every blockwise task obeys."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from contextlib import contextmanager
from pathlib import Path
from typing import ClassVar, Literal

import numpy as np
from rich.console import Console

from em_blocks.config import Shape3, StorePath, VolumeRef
from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.outputs import RunContext, VolumeOutput
from em_blocks.runtime.scheduler.run import RunReport, run_blockwise
from em_blocks.tasks.base import BlockReport, BlockwiseTask
from em_blocks.tasks.places import check_places
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.ledger import LEDGER

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
SHAPE = (20, 30, 50)


class AddOne(BlockwiseTask):
    """raw + 1 (with `context`, of the largest value around a voxel), with faults at chosen blocks.

    A fault is ``raise``, ``kill`` or ``hang`` before the write; or, between write and commit,
    ``kill_written``, and ``wait_written`` for a file ``go`` in the run folder. With the suffix ``_once``
    only the first attempt suffers.
    """

    operational: ClassVar[frozenset[str]] = BlockwiseTask.operational | {"faults", "sleep_s"}

    reads: ClassVar[tuple[str, ...]] = ("raw",)

    kind: Literal["add_one"] = "add_one"
    raw: VolumeRef
    output: StorePath
    chunk_shape: Shape3 = (5, 10, 10)
    faults: dict[str, str] = {}
    sleep_s: float = 0.0
    add: int = 1
    context: tuple[int, int, int] = (0, 0, 0)

    def grid(self) -> BlockGrid:
        raw = Volume.open(self.raw)
        return BlockGrid(raw.frame, raw.shape, self.block_shape)

    def inputs(self) -> dict:
        return {"raw": list(Volume.open(self.raw).shape)}

    def read_context(self) -> tuple[int, int, int]:
        return self.context

    def output_specs(self) -> list[VolumeOutput]:
        path = f"{self.output}/sum"
        return [VolumeOutput("sum", path, "uint16", self.chunk_shape)]

    def outputs_root(self) -> str:
        return self.output

    @contextmanager
    def open(self, context: RunContext):
        raw = Volume.open(self.raw)
        (spec,) = self.output_specs()
        out = Volume.open(spec.path, mode="r+")
        if self.faults.get("start"):
            raise OSError("no such device")

        def process(block, report) -> None:
            fault = self._fault(block.key)
            with report.measure("read"):
                seen = raw.read(block.write_box.grow(self.context), outside="constant")
                values = largest_around(seen, self.context)
            with report.measure("compute"):
                time.sleep(self.sleep_s)
                if fault == "raise":
                    raise ValueError("this block is poison")
                if fault == "kill":
                    os.kill(os.getpid(), signal.SIGKILL)
                if fault == "hang":
                    time.sleep(3600)
                values = values.astype("uint16") + self.add
            with report.measure("write"):
                report.write("sum", out, block.write_box, values)
            if fault == "kill_written":
                os.kill(os.getpid(), signal.SIGKILL)
            if fault == "wait_written":
                wait_for((self.home / "go").exists, 3600)
            report.counts["odd"] = int((values % 2).sum())

        yield process

    def _fault(self, key: str) -> str | None:
        fault = self.faults.get(key)
        if fault is None or not fault.endswith("_once"):
            return fault
        marker = self.home / f"fault-{key.replace('/', '-')}"
        if marker.exists():
            return None
        marker.touch()
        return fault.removesuffix("_once")


def largest_around(seen: np.ndarray, context: tuple[int, int, int]) -> np.ndarray:
    """Of every voxel that has `context` around it, the largest value in that."""
    size = tuple(2 * c + 1 for c in context)
    return np.lib.stride_tricks.sliding_window_view(seen, size).max(axis=(-3, -2, -1))


def make_raw(folder: Path, shape=SHAPE, seed=0) -> Volume:
    """A volume of random bytes with a non-zero offset and non-integer voxels."""
    raw = Volume.create(
        str(folder / "raw.zarr/raw"), shape=shape, dtype="uint8", frame=FRAME,
        chunk_shape=(10, 10, 10),
    )
    raw.write(raw.box, np.random.default_rng(seed).integers(0, 256, shape).astype("uint8"))
    return raw


def add_one(raw: Volume, folder: Path, **options) -> AddOne:
    values = {"run": "sum", "block_shape": (10, 10, 10), "raw": raw.path,
              "output": str(folder / "out.zarr"), **options}
    return AddOne.from_dict(values)


def run(task: BlockwiseTask, **options) -> RunReport:
    return run_blockwise(task, console=Console(quiet=True), **options)


def do_all_steps(task) -> dict[tuple[str, str], int]:
    """Do all steps of a job, without database and workers; what they counted, by (kind, name)."""
    counts: dict[tuple[str, str], int] = {}
    for step in task.steps():
        step.check()
        step.check_alignment()
        check_places(step)
        for spec in step.output_specs():
            spec.create(step.grid(), "fingerprint")
        with step.open(RunContext()) as process:
            for block in step.grid().blocks():
                report = BlockReport()
                process(block, report)
                for name, n in report.counts.items():
                    counts[step.kind, name] = counts.get((step.kind, name), 0) + n
    task.publish()
    return counts


@contextmanager
def store_of(task: BlockwiseTask):
    with database_uri(task.db_host, task.home) as uri, connect(uri) as client:
        yield RunStore(client, task.db_name, task.run)


def stored_files(task: BlockwiseTask) -> dict[str, bytes]:
    """Every file of every output, by its path in the output; without ledgers, which name starts."""
    root = Path(task.outputs_root())
    files = (p for p in root.rglob("*") if p.is_file() and p.name != LEDGER)
    return {str(p.relative_to(root)): p.read_bytes() for p in files}


def block_documents(task: BlockwiseTask) -> dict[str, dict]:
    with store_of(task) as store:
        found = list(store.documents())
    assert len({d["_id"] for d in found}) == len(found)
    return {d["_id"]: d for d in found}


def start_in_background(
    task: BlockwiseTask, folder: Path, popen=subprocess.Popen, **options
) -> subprocess.Popen:
    """Run `task` as a user's command would: a process group of its own, started by `popen`."""
    kind = type(task)
    job = folder / f"job-{time.monotonic_ns()}.json"
    job.write_text(json.dumps({"task": task.model_dump(mode="json"), "options": options}))
    code = (
        "import json, sys\n"
        f"sys.path[:0] = {[p for p in sys.path if p]!r}\n"
        f"from {kind.__module__} import {kind.__name__} as Task\n"
        "from em_blocks.runtime.scheduler.run import run_blockwise\n"
        "from rich.console import Console\n"
        f"job = json.load(open({str(job)!r}))\n"
        "task = Task.from_dict(job['task'])\n"
        "report = run_blockwise(task, console=Console(stderr=True, width=200), **job['options'])\n"
        "sys.exit(report.exit_code)\n"
    )
    with open(folder / "background.log", "ab") as log:
        return popen(
            [sys.executable, "-c", code], start_new_session=True,
            stdout=subprocess.DEVNULL, stderr=log,
        )


def worker_pids(process: subprocess.Popen) -> list[int]:
    """Worker processes of a run that was started in the background."""
    import psutil

    try:
        children = psutil.Process(process.pid).children(recursive=True)
    except psutil.NoSuchProcess:
        return []
    return [c.pid for c in children if "em_blocks.workers" in " ".join(_command(c))]


def _command(process) -> list[str]:
    import psutil

    try:
        return process.cmdline()
    except psutil.Error:
        return []


def wait_for(condition, timeout_s: float = 30.0):
    """The first true value of `condition()`."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        if value := condition():
            return value
        time.sleep(0.02)
    raise AssertionError("waited in vain")


# -- the laws -------------------------------------------------------------------------------


def assert_same_result(task: BlockwiseTask, undisturbed: BlockwiseTask) -> None:
    """Same bytes on disk, same blocks, each once, all done, same counts and checksums."""
    assert stored_files(task) == stored_files(undisturbed)
    ours, theirs = block_documents(task), block_documents(undisturbed)
    assert ours.keys() == theirs.keys()
    for key, document in ours.items():
        assert document["state"] == "done", document
        for field in ("index", "offset", "shape", "counts", "checksums"):
            assert document[field] == theirs[key][field], (key, field)


def assert_one_block_equals_many(make, shapes, whole) -> None:
    """`make(block_shape, name)` gives a task; all block shapes store the same voxels."""
    reference = make(whole, "whole")
    assert run(reference).ok
    for n, shape in enumerate(shapes):
        task = make(shape, f"shape{n}")
        assert run(task).ok
        for ours, theirs in zip(task.output_specs(), reference.output_specs(), strict=True):
            a, b = Volume.open(ours.path), Volume.open(theirs.path)
            np.testing.assert_allclose(a.read(a.box), b.read(b.box), rtol=0, atol=1e-5)


def assert_retry_equals_once(task: BlockwiseTask, undisturbed: BlockwiseTask) -> None:
    """Forgetting that blocks are done and doing them again changes nothing."""
    assert run(task).ok and run(undisturbed).ok
    with store_of(task) as store:
        removed = store.blocks.delete_many({"run": task.run, "index.0": 0}).deleted_count
    report = run(task)
    assert report.ok and report.blocks["computed"] == removed > 0
    assert_same_result(task, undisturbed)
