"""Shared helper: volumes that a run of em_blocks made, in any state; runs without worker processes."""

from __future__ import annotations

import itertools
import shutil
import time
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import ClassVar, Literal
from unittest import mock

import numpy as np
from rich.console import Console

import em_blocks.runtime.scheduler.run as runs
from em_blocks.config import Shape3, StorePath, path_of
from em_blocks.db.commits import CommitWriter, WorkerIdentity
from em_blocks.db.connect import connect
from em_blocks.db.runs import RunStore
from em_blocks.geometry import BlockGrid, Box
from em_blocks.outputs import RunContext, VolumeOutput
from em_blocks.runtime.runs.ledgers import reopen
from em_blocks.runtime.runs.report import RunReport
from em_blocks.runtime.runs.verify import requeue_damaged
from em_blocks.runtime.scheduler.scheduled_step import ScheduledStep
from em_blocks.runtime.worker.step_runtime import describe_error
from em_blocks.tasks.base import BlockReport, BlockwiseTask
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables

WORKER = {"worker": "here", "host": "here", "pid": 1, "device": "cpu", "slot": "", "state": "working",
          "reason": None, "blocks": []}


class Copy(BlockwiseTask):
    """Block by block what another volume holds; that one is known to nobody but the blocks.

    So what they store may change from one start to the next without a change of settings, as it does
    where a damaged block is repaired.
    """

    operational: ClassVar[frozenset[str]] = BlockwiseTask.operational | {"original", "poison"}

    kind: Literal["copy"] = "copy"
    original: StorePath
    output: StorePath
    chunk_shape: Shape3
    poison: tuple[str, ...] = ()
    variant: int = 0

    def grid(self) -> BlockGrid:
        original = Volume.open(self.original)
        return BlockGrid(original.frame, original.shape, self.block_shape)

    def inputs(self) -> dict:
        return {}

    def output_specs(self) -> list[VolumeOutput]:
        original = Volume.open(self.original)
        kept = ("scale", "neighborhood", "labels")
        return [VolumeOutput(
            "copy", self.output, str(original.dtype), self.chunk_shape, channels=original.channels,
            attributes={k: original.attributes[k] for k in kept if k in original.attributes},
        )]

    def outputs_root(self) -> str:
        return str(Path(self.output).parent)

    def open(self, context: RunContext):
        return _copying(self)


class _copying:
    def __init__(self, task: Copy):
        self._task = task
        self._original, self._output = Volume.open(task.original), Volume.open(task.output, mode="r+")

    def __enter__(self):
        return self._process

    def __exit__(self, *error) -> None:
        pass

    def _process(self, block, report) -> None:
        if block.key in self._task.poison:
            raise ValueError("this block is poison")
        report.write("copy", self._output, block.write_box, self._original.read(block.write_box))


class Input:
    """A volume that a run made, which can be brought into any state.

    Parameters
    ----------
    folder : Path
    name : str
        Of the volume; its run is called ``made_NAME``.
    versions : two arrays of one shape
        What blocks may hold: (z, y, x), or (c, z, y, x).
    mask : path, optional
    settings : dict
        Keys for the database.
    """

    def __init__(self, folder, name, versions, frame, *, block_shape, chunk_shape, settings, rng,
                 mask=None, attributes=None):
        self.versions, self.rng, self._folder = versions, rng, folder
        self._places, shape = itertools.count(1), versions[0].shape
        self.original = Volume.create(
            str(folder / f"hidden/{name}.zarr/v"), shape=shape[-3:], dtype=str(versions[0].dtype),
            frame=frame, chunk_shape=chunk_shape, channels=shape[0] if len(shape) == 4 else None,
            attributes=attributes or {},
        )
        self.original.write(self.original.box, versions[0])
        self.home = folder / f"made_{name}"
        self.task = Copy.from_dict({
            "run": f"made_{name}", "original": self.original.path, "chunk_shape": chunk_shape,
            "output": str(self.home / "out.zarr/v"), "run_dir": str(self.home), "mask": mask,
            "block_shape": block_shape, "max_retries": 0, **settings,
        })
        self.versions_of = np.zeros(self.task.grid().shape, int)
        self.is_complete, self.is_other = True, False
        self.done()

    @property
    def path(self) -> str:
        return self.task.output

    # -- states -------------------------------------------------------------------------------

    def done(self) -> None:
        """Every block that the mask leaves is stored."""
        assert run(self.task, requeue=True)[-1].ok
        self.is_complete = True

    def partly(self) -> None:
        """Its run was killed while blocks were done again."""
        self._lose(self._some())
        self.is_complete = False

    def quarantined(self) -> None:
        """Its run has ended, and blocks failed."""
        blocks = self._some()
        self._lose(blocks)
        poisoned = self.task.model_copy(update={"poison": tuple("/".join(map(str, b)) for b in blocks)})
        assert not run(poisoned)[-1].ok
        self.is_complete = False

    def redone(self) -> None:
        """Blocks were damaged, and hold other values since they were repaired."""
        blocks = self._some()
        self._lose(blocks)
        for index in blocks:
            self._change(index)
        self.done()

    def moved(self) -> None:
        """Everything lies in another folder."""
        home = self._folder / f"{self.home.name.split('-')[0]}-{next(self._places)}"
        shutil.move(self.home, home)
        self.home = home
        self.task = self.task.model_copy(update={"output": str(home / "out.zarr/v"), "run_dir": home})

    def forgotten(self) -> None:
        """Its database is gone."""
        with self._store() as store:
            store.remove()

    def replaced(self) -> None:
        """Made anew with the same settings, of other data."""
        self._remembered()
        for index in np.ndindex(self.versions_of.shape):
            self._change(index)
        assert run(self.task, overwrite=True)[-1].ok
        self.is_complete = True

    def other(self) -> None:
        """Made anew with other settings."""
        self._remembered()
        self.task = self.task.model_copy(update={"variant": self.task.variant + 1})
        self.is_other = True
        self.replaced()

    def tampered(self) -> None:
        """Somebody wrote other values into a block that is done, behind the back of its run."""
        (index, *_) = self._some()
        box = self.task.grid().block(index).write_box
        values = self.versions[self.versions_of[index] ^ 1]
        Volume.open(self.path, mode="r+").write(box, values[(..., *box.slices)])
        self.is_other = True

    STATES = ("done", "partly", "quarantined", "redone", "redone", "moved", "forgotten", "replaced",
              "other", "tampered")

    def become(self, state: str) -> None:
        getattr(self, state)()

    # -- how ------------------------------------------------------------------------------------

    def _some(self) -> list[tuple[int, ...]]:
        """One or two blocks that the mask leaves."""
        with self._store() as store:
            indices = store.indices("done")
        if not len(indices):  # nobody knows the run any more
            self.done()
            return self._some()
        chosen = self.rng.choice(len(indices), size=self.rng.integers(1, 3))
        return [tuple(index) for index in indices[np.unique(chosen)].tolist()]

    def _lose(self, blocks) -> None:
        reopen(self.task, blocks)
        with self._store() as store:
            for index in blocks:
                requeue_damaged(store, self.task.grid().block(index), "test")

    def _change(self, index) -> None:
        self.versions_of[index] ^= 1
        box = self.task.grid().block(index).write_box
        values = self.versions[self.versions_of[index]]
        self.original.write(box, values[(..., *box.slices)])

    def _remembered(self) -> None:
        with self._store() as store:
            known = store.load() is not None
        if not known:
            self.done()

    def _store(self):
        return opened(self.task)


class Foreign:
    """A volume that no run made, with the same interface as `Input`."""

    def __init__(self, folder, name, versions, frame, *, chunk_shape, rng, attributes=None):
        self.versions, self.rng, self.name, self._folder = versions, rng, name, folder
        self._places, self._path = itertools.count(1), folder / f"foreign_{name}.zarr"
        shape, self.is_complete, self.is_other = versions[0].shape, True, False
        volume = Volume.create(
            self.path, shape=shape[-3:], dtype=str(versions[0].dtype), frame=frame,
            chunk_shape=chunk_shape, channels=shape[0] if len(shape) == 4 else None,
            attributes=attributes or {},
        )
        volume.write(volume.box, versions[0])

    @property
    def path(self) -> str:
        return str(self._path / "v")

    def done(self) -> None:
        """As it was."""

    def written(self) -> None:
        """Written once more, with the same values."""
        volume = Volume.open(self.path, mode="r+")
        volume.write(volume.box, volume.read(volume.box))

    def changed(self) -> None:
        """A chunk holds other values."""
        volume = Volume.open(self.path, mode="r+")
        chunks = BlockGrid(volume.frame, volume.shape, volume.chunk_shape)
        box = chunks.block(tuple(int(self.rng.integers(n)) for n in chunks.shape)).write_box
        before, now = volume.read(box), self.versions[int(self.rng.integers(2))][(..., *box.slices)]
        volume.write(box, now)
        self.is_other |= not np.array_equal(before, now)

    def moved(self) -> None:
        """It lies in another folder."""
        path = self._folder / f"foreign_{self.name}-{next(self._places)}.zarr"
        shutil.move(self._path, path)
        self._path = path

    def linked(self) -> None:
        """It is reached by a link."""
        path = self._folder / f"link_{self.name}-{next(self._places)}.zarr"
        path.symlink_to(self._path)
        self._path = path

    STATES = ("done", "written", "changed", "changed", "moved", "linked")

    def become(self, state: str) -> None:
        getattr(self, state)()


class opened:
    """The records of a task's run."""

    def __init__(self, task):
        self._task, self._stack = task, ExitStack()

    def __enter__(self) -> RunStore:
        client = self._stack.enter_context(connect(self._task.db_host))
        return RunStore(client, self._task.db_name, self._task.run)

    def __exit__(self, *error) -> None:
        self._stack.close()


# -- runs without worker processes --------------------------------------------------------------


def run(task, **options) -> list[RunReport]:
    """All steps of a config; blocks are done in this process, everything else as ever."""
    steps = task.steps()
    grids = {(step.grid().frame, step.grid().volume_shape) for step in steps}
    groups = [steps] if len(grids) == 1 else [[step] for step in steps]
    reports: list[RunReport] = []
    with in_process():
        for group in groups:
            reports += runs.run_steps(group, console=Console(quiet=True), **options)
            if not reports[-1].ok:
                break
    return reports


@contextmanager
def in_process():
    """While this is entered, runs start no workers: their blocks are done here, step by step.

    Every run would be a command of its own, whose process has ended when the next one begins.
    """
    with (
        mock.patch.object(runs, "schedule", _do),
        mock.patch("em_blocks.runtime.runs.claim.owner_lives", return_value=False),
    ):
        yield


def _do(steps: list[ScheduledStep], console) -> tuple[bool, None]:
    for step in steps:
        if not _do_step(step):
            return True, None
    return False, None


def _do_step(step: ScheduledStep) -> bool:
    task, store, epoch, failed = step.work.task, step.store, step.epoch, False
    store.admit_worker({**WORKER, "epoch": epoch})
    commits = CommitWriter(
        store, step.work.grid, WorkerIdentity("here", epoch, "cpu"), max_failures=task.max_retries + 1,
        outage_s=10, on_durable=lambda blocks: None,
    )
    watch = Watch(task)
    with (
        type(task).from_dict(step.job.config).open(RunContext(step.measured, store)) as process,
        watch.watching(),
    ):
        for index in map(tuple, np.argwhere(step.work.todo).tolist()):
            block, report, started = step.work.grid.block(index), BlockReport(), time.time()
            watch.begin(block)
            try:
                process(block, report)
            except Exception as error:
                failed = True
                commits.failed(block, started, describe_error(error, report.stage))
            else:
                commits.done(block, started, report)
    commits.close()
    return not failed


class Watch:
    """Fails where a block reads what its task does not name, or farther than it says.

    What a task says of its reads decides which blocks wait, and which are done again.
    """

    def __init__(self, task: BlockwiseTask):
        self._grid, self._reach = task.grid(), task.read_reach()
        self._task, self._allowed = task, None
        self._sources = {path_of(ref) for ref in task.sources().values()}
        self._folders = {str(Path(path).parent) for path in self._sources}

    def begin(self, block) -> None:
        """From now on this block reads."""
        self._allowed = self._grid.frame.to_roi(block.write_box.grow(self._reach))

    @contextmanager
    def watching(self):
        """While this is entered, all reads of volumes and tables are looked at."""
        read, read_table, watch = Volume.read, BlockTables.read, self

        def read_volume(volume, box, *args, **options):
            watch._check_volume(volume, box)
            return read(volume, box, *args, **options)

        def read_rows(tables, *args, **options):
            watch._check_table(tables)
            return read_table(tables, *args, **options)

        with (
            mock.patch.object(Volume, "read", read_volume),
            mock.patch.object(BlockTables, "read", read_rows),
        ):
            yield

    def _check_volume(self, volume: Volume, box: Box) -> None:
        if isinstance(self._task, Copy):
            return  # hides what it reads
        assert volume.path in self._sources, f"{self._task.kind} does not name {volume.path}"
        box = box if isinstance(box, Box) else volume.frame.to_box(box)
        inside = box.intersect(volume.box)
        roi, most, tiny = volume.frame.to_roi(inside), self._allowed, 1e-3
        near = all(
            b >= m - tiny and e <= n + tiny
            for b, e, m, n in zip(roi.offset, roi.end, most.offset, most.end, strict=True)
        )
        assert near or not inside.size, f"{self._task.kind} reads {roi}, but says {most}"

    def _check_table(self, tables: BlockTables) -> None:
        known = tables.folder in self._sources or str(Path(tables.folder).parent) in self._folders
        assert known, f"{self._task.kind} does not name {tables.folder}"
