"""One start of one run, from its lease to the release."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import asdict, replace
from pathlib import Path
from typing import TypeVar

import numpy as np
from rich.console import Console

from em_blocks.db.connect import with_patience
from em_blocks.db.runs import DONE, FAILED, QUARANTINED, RunStore
from em_blocks.errors import VolumeError
from em_blocks.json_text import finite
from em_blocks.outputs import RunContext
from em_blocks.runtime.runs.block_sets import BlockSets, mask_document
from em_blocks.runtime.runs.inputs import Inputs
from em_blocks.runtime.runs.ledgers import Ledgers
from em_blocks.runtime.runs.preflight import Checked, check_space
from em_blocks.runtime.runs.report import RunReport, make_report
from em_blocks.runtime.runs.verify import requeue_damaged
from em_blocks.runtime.scheduler.dispatch import Work
from em_blocks.runtime.scheduler.scheduled_step import ScheduledStep
from em_blocks.volumes.stores.ledger import Ledger

Result = TypeVar("Result")


class StartedRun:
    """One start of a run, from the lease to its release."""

    def __init__(
        self, task, checked: Checked, inputs: Inputs, made_here: dict[str, Ledger], store: RunStore, uri,
        epoch: int, console: Console,
    ):
        self.task, self.checked, self.store = task, checked, store
        self.inputs, self.made_here = inputs, made_here
        self.uri, self.epoch, self.console = uri, epoch, console
        self.skipped = 0
        self.wall_s = 0.0
        self.todo = self.left = np.zeros(checked.grid.shape, bool)
        self.waiting: dict[str, np.ndarray] = {}
        self.ledgers: Ledgers | None = None  # before the outputs are made

    def patiently(self, call: Callable[[], Result]) -> Result:
        """Return what a call returns, which is repeated while the database is unavailable."""
        return with_patience(call, self.task.db_outage_s)

    def prepare(self, *, requeue: bool) -> None:
        """Create the outputs, and find the blocks to do: neither masked, done, nor quarantined.

        Blocks that read missing parts of an input wait for these.
        """
        if self._forget_nan() or requeue:
            self.patiently(self.store.requeue)
        self.patiently(self.take_back)
        sets = self._sets()
        self.skipped, done, undone = int(sets.done.sum()), sets.done | sets.hidden, sets.missing
        self.waiting = self._waiting(undone)
        waiting = np.logical_or.reduce([*self.waiting.values(), np.zeros_like(done)])
        self.todo = self.left = undone & ~(sets.quarantined | waiting)
        wait = "".join(f", {int(w.sum())} wait for what {n} lacks" for n, w in self.waiting.items())
        self.console.print(
            f"Run {self.task.run}: {self.checked.grid.n_blocks} blocks, {self.skipped} done before, "
            f"{int(self.checked.masked.sum())} masked, {int(self.todo.sum())} to do{wait}."
        )
        check_space(self.task, self.checked.n_voxels(self.todo))
        # Kept with the run, for readers who have no volumes.
        self.patiently(lambda: self.store.update(**mask_document(sets)))
        document = self.patiently(self.store.load)
        # The ledger first: an array of zeros without one would be mistaken for other data.
        self.ledgers = Ledgers(self.task, self.checked, self.store, document, self.epoch)
        self.patiently(lambda: self.ledgers.open(done, self.todo))
        for output in self.task.output_specs():
            output.create(self.checked.grid, document["fingerprint"])
        self.measured = self._measured(document.get("measured"), anew=not done.any())

    def _waiting(self, undone: np.ndarray) -> dict[str, np.ndarray]:
        """Return which of the blocks read missing parts of an input, by its name."""
        found = {name: holes & undone for name, holes in self.inputs.holes().items()}
        return {name: blocks for name, blocks in found.items() if blocks.any()}

    @contextmanager
    def working(self) -> Iterator[None]:
        """Add the time of the block to the wall time of the run."""
        self.patiently(lambda: self.store.update(session={"started": self.store.now()}))
        start = time.monotonic()
        try:
            yield
        finally:
            self.wall_s += time.monotonic() - start

    def step(self) -> ScheduledStep:
        """Return what is left to do, for the scheduler."""
        work = Work(self.task, self.checked.grid, self.left, self.checked.n_voxels(self.left))
        return ScheduledStep(work, self.store, self.measured, self.uri, self.epoch)

    def lost(self) -> np.ndarray:
        """Return blocks without a record: not tried, or lost with their worker or its commit."""
        return self.todo & ~self._blocks(DONE, FAILED, QUARANTINED)

    def _blocks(self, *states: str) -> np.ndarray:
        """Return a bool array (z, y, x) of the blocks in these states."""
        return self.patiently(lambda: self.store.mask(self.checked.grid.shape, *states))

    def _sets(self) -> BlockSets:
        return self.patiently(lambda: BlockSets.of(self.store, self.checked.masked))

    def take_back(self) -> np.ndarray:
        """Make blocks due again whose rows were stored again since; return which these are.

        Only when all blocks are done: until then, rows that lost what a block wrote cannot be told
        from those of blocks to come.
        """
        grid, lost = self.checked.grid, np.zeros(self.checked.grid.shape, bool)
        if not self.task.uses_rows or not (self._blocks(DONE) | self.checked.masked).all():
            return lost
        context = RunContext(store=self.store, outage_s=self.task.db_outage_s)
        for output in self.task.output_specs():
            lost |= output.lost(context, grid) & ~self.checked.masked
        for index in np.argwhere(lost):
            requeue_damaged(self.store, grid.block(index), "its rows were stored again since")
        self.todo = self.todo | lost
        return lost

    def take_back_stale(self) -> np.ndarray:
        """Make blocks due again whose inputs were stored again since; return those that can be done."""
        none = np.zeros(self.checked.grid.shape, bool)
        inputs = self.inputs.again(self.made_here, self.store)
        if inputs.document() == self.inputs.document():
            return none
        done = self._blocks(DONE)
        found = inputs.compare(self.inputs.document(), done)
        if any(difference.refusal for difference in found):
            return none  # replaced meanwhile: the record stays as it was, and the next start refuses
        stale = np.logical_or.reduce([none, *(difference.stale for difference in found)])
        why = "; ".join(difference.note for difference in found if difference.note)
        self.patiently(lambda: self.store.requeue_blocks(stale, why))
        self.patiently(lambda: self.store.update(contents=inputs.document()))
        self.inputs = inputs
        if not stale.any():
            return stale  # the blocks to do will read the inputs as they are now
        n = int((stale & ~self.checked.masked).sum())
        self.skipped -= n
        self.console.print(
            f"Run {self.task.run}: {why}; {n} blocks are recomputed because of that.", markup=False
        )
        self.waiting = self._waiting(self._sets().missing)
        self.todo = self.todo | stale
        self.patiently(lambda: self.ledgers.open(self._blocks(DONE), self.todo))
        self.measured = self._measured(self.measured, anew=not self._blocks(DONE).any())
        return stale & ~np.logical_or.reduce([none, *self.waiting.values()])

    def ended(self) -> dict[str, Ledger]:
        """Return what the outputs of this step hold now, by path."""
        return self.ledgers.ended(self._blocks(DONE))

    def record_lost(self) -> None:
        """Record lost blocks as failed: their workers cannot."""
        error = {
            "type": "WorkerLost", "stage": None, "traceback": None,
            "message": "the worker died or timed out, or its commit did not reach the database; "
            f"see {self._logs}",
        }
        for index in map(tuple, np.argwhere(self.lost())):
            self.patiently(
                lambda i=index: self.store.mark_failed(self.checked.grid, i, self.epoch, error)
            )

    def finish(self, reason: str | None, *, given_up: bool = False) -> RunReport:
        """End the run in the database and its ledgers; `given_up` if before its work began."""
        return self.patiently(lambda: self._release(reason, given_up))

    def _release(self, reason: str | None, given_up: bool) -> RunReport:
        self.take_back()
        sets = self._sets()
        self._close_ledgers(sets.done | sets.hidden)
        self.store.update(**{"session.ended": self.store.now()})
        report = make_report(
            self.task, sets, self.store, skipped=self.skipped, wall_s=self.wall_s, reason=reason,
            logs=self._logs,
        )
        if given_up and not report.ok:
            report = replace(report, state="failed")
        self.store.release(self.epoch, state=report.state, summary=asdict(report))
        return report

    def _close_ledgers(self, done: np.ndarray) -> None:
        """Write the ledgers; where that fails, the next start does."""
        if self.ledgers is None:
            return
        try:
            self.ledgers.close(done)
        except VolumeError as error:  # of a full disk, which is why the run ends
            self.console.print(str(error), markup=False, highlight=False)

    def _measured(self, known: dict | None, *, anew: bool) -> dict | None:
        """Return values measured once per run; kept, so that a resumed run uses the same.

        Where no block depends on them yet (`anew`), those of inputs are measured again.
        """
        if not self.todo.any() or (known is not None and not anew):
            return known  # while all blocks wait, the inputs are not yet what is to be measured
        measured = (
            self.task.measure(self._measured_earlier()) if known is None
            else self.task.measured_anew(known)
        )
        if measured != known:
            self.patiently(lambda: self.store.update(measured=measured))
            if line := self.task.said(measured):
                self.console.print(f"Run {self.task.run}: {line}.", highlight=False)
        return measured

    def _measured_earlier(self) -> dict | None:
        """Return what another run measured that this one should agree with."""
        query = self.task.alike()
        return query and self.patiently(lambda: self.store.measured_by(query))

    def _forget_nan(self) -> bool:
        """Drop measured values that are NaN, as older versions kept them; return whether there were."""
        measured = self.patiently(self.store.load).get("measured")
        if finite(measured) == measured:
            return False
        self.patiently(lambda: self.store.update(measured=None))
        self.console.print(
            f"Run {self.task.run}: its measured values were NaN; they are measured again, and blocks "
            "that failed by them are tried again."
        )
        return True

    @property
    def _logs(self) -> Path:
        return self.task.home / "logs" / self.task.run
