"""Ledgers of a run beside its outputs, which list the done blocks."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from em_blocks.db.runs import RunStore
from em_blocks.runtime.runs.leases import this_owner
from em_blocks.runtime.runs.preflight import Checked
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.volumes.stores.ledger import Ledger, read_ledger, write_ledger


class Ledgers:
    """The ledgers of all outputs of one start of a run; they say the same.

    Parameters
    ----------
    document : dict
        Of the run.
    epoch : int
        Of this start: the generation of the blocks that it stores.
    """

    def __init__(
        self, task: BlockwiseTask, checked: Checked, store: RunStore, document: dict, epoch: int
    ):
        self._paths = [o.ledger_path for o in task.output_specs() if o.ledger_path is not None]
        self._store, self._epoch = store, epoch
        self._todo = np.zeros(checked.grid.shape, bool)
        self._before = np.zeros(checked.grid.shape, np.uint32)
        self._stored: Ledger | None = None
        self.now = Ledger(
            run=task.run, run_id=document["run_id"], task=task.kind,
            fingerprint=document["fingerprint"], content_id=document["content_id"],
            grid=checked.grid, state="closed", masked=checked.masked,
            generation=np.zeros(checked.grid.shape, np.uint32), command=document.get("command", ""),
        )

    def open(self, done: np.ndarray, todo: np.ndarray) -> None:
        """Record what is done, before the first block, and that more follows.

        Parameters
        ----------
        done, todo : (z, y, x) bool array
            Blocks that the database has as done, and those that this start is to do.
        """
        self._todo = todo
        self.now = self.now.replaced(generation=self._generations(done))
        opened = self.now.replaced(state="open", owner=this_owner())
        self._write(opened if todo.any() else self.now)

    def close(self, done: np.ndarray) -> None:
        """Record what is done after the last block."""
        self.now = self.now.replaced(generation=self._ended(done))
        self._write(self.now)

    @property
    def anew(self) -> np.ndarray:
        """Bool (z, y, x): blocks that are to be done again; they may come out as they were."""
        return self._todo & (self._before > 0)

    def planned(self) -> dict[str, Ledger]:
        """Return by path what the outputs hold if all blocks are done, those done again unchanged."""
        expected = np.where(self._before > 0, self._before, np.uint32(self._epoch))
        generation = np.where(self._todo, expected, self.now.generation)
        return dict.fromkeys(self._paths, self.now.replaced(generation=generation))

    def ended(self, done: np.ndarray) -> dict[str, Ledger]:
        """Return by path what the outputs hold."""
        return dict.fromkeys(self._paths, self.now.replaced(generation=self._ended(done)))

    def _ended(self, done: np.ndarray) -> np.ndarray:
        generation = np.where(self._todo & done, np.uint32(self._epoch), self.now.generation)
        if (anew := self.anew & done).any():
            generation = np.where(anew, self._store.generations(done.shape, anew), generation)
        return np.where(done, generation, np.uint32(0))

    def _generations(self, done: np.ndarray) -> np.ndarray:
        """Return the start in which each done block was stored."""
        if not self._paths:
            return np.where(done, np.uint32(self._epoch), np.uint32(0))
        self._stored = read_ledger(self._paths[0])
        known = self._stored
        if known is None or known.run_id != self.now.run_id:
            return self._store.generations(done.shape)  # made by an older version
        self._before = np.maximum(self._before, known.generation)
        if known.state == "open":
            return self._store.generations(done.shape)
        if (done & ~known.done).any():
            return self._store.generations(done.shape)
        return np.where(done, known.generation, np.uint32(0))

    def _write(self, ledger: Ledger) -> None:
        if self._stored is not None and _same(self._stored, ledger):
            return
        for path in reversed(self._paths):  # the first one is read, so it is written last
            write_ledger(path, ledger)
        self._stored = ledger


def _same(one: Ledger, other: Ledger) -> bool:
    """Return whether two ledgers tell a reader the same."""
    if (one.run_id, one.content_id, one.state) != (other.run_id, other.content_id, other.state):
        return False
    return np.array_equal(one.generation, other.generation) and np.array_equal(one.masked, other.masked)


def reopen(task: BlockwiseTask, blocks: Iterable[Sequence[int]] = ()) -> None:
    """Say beside the outputs of a run that blocks are due again: these ones, or unknown ones."""
    lost = tuple(np.array(list(blocks), int).reshape(-1, 3).T)
    for output in task.output_specs():
        if output.ledger_path is not None and (ledger := read_ledger(output.ledger_path)) is not None:
            generation = ledger.generation.copy()
            generation[lost] = 0
            # By this process: once it has ended, no process is at work.
            opened = ledger.replaced(state="open", owner=this_owner(), generation=generation)
            write_ledger(output.ledger_path, opened)
