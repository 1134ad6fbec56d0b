"""Removing a run permanently: its rows, blocks and outputs, and then its record."""

from __future__ import annotations

from dataclasses import asdict, dataclass

import numpy as np

from em_blocks.db.runs import DONE, RunStore
from em_blocks.outputs import Output, RunContext
from em_blocks.outputs.table import TABLES_HEADER
from em_blocks.runtime.runs.ownership import Recorded, check_removable, recorded_outputs, size_of
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.volumes.formats.storage import forget_array, metadata_files
from em_blocks.volumes.stores.ledger import LEDGER, read_ledger, write_ledger
from em_blocks.volumes.stores.store import delete, delete_folder

REMOVING = "removing"
"""State of a run that is being removed. Its record goes last, so that a command that died in the
middle is found, and followed by the next."""

@dataclass(frozen=True)
class Removable:
    """What is known of a run that could be removed.

    Attributes
    ----------
    blocks, rows : int
        Done blocks, and synapses that the run detected.
    outputs : dict
        Bytes of every output by its path: None where only an object store knows.
    """

    run: str
    task: str
    state: str
    blocks: int
    rows: int
    outputs: dict[str, int | None]

    def document(self) -> dict:
        """Return it as JSON."""
        return asdict(self)


def removable(store: RunStore, task: BlockwiseTask) -> Removable | None:
    """Return what there is of a task's run; None if the database does not know it."""
    run = store.load()
    if run is None:
        return None
    outputs = recorded_outputs(run, task.home)
    return Removable(
        task.run, run["task"], run["state"], blocks=store.counts()[DONE],
        rows=sum(o.n_rows(RunContext(store=store)) for o in _in_database(run, task)),
        outputs={o.path: size_of(o.path) for o in outputs if o.exists()},
    )


def forget_run(store: RunStore, task: BlockwiseTask) -> None:
    """Delete all records and outputs of a run; called again, it goes on where it was killed.

    Raises
    ------
    RefusedError
        If there is anything at an output that the run did not make; nothing was changed.
    """
    run = store.load()
    if run is None:
        return
    check_removable(task, run)
    store.update(state=REMOVING, removing=True)
    outputs = recorded_outputs(run, task.home)
    for output in outputs:
        _disown(output.path)
    for row_output in _in_database(run, task):
        row_output.remove(RunContext(store=store))
    store.clear()
    for output in outputs:
        _remove(output, begun=run.get("removing", False))
    store.remove()


def _in_database(run: dict, task: BlockwiseTask) -> list[Output]:
    """Return the outputs that are rows, by the record of a run.

    Others are not asked for, since a task may need its inputs to name them.
    """
    recorded = run["identity"].get("outputs", [{}])
    if all(output.get("format", "mongodb") != "mongodb" for output in recorded):
        return []
    return [output for output in task.output_specs() if output.ledger_path is None]


def _disown(path: str) -> None:
    """Say beside an output that none of its blocks is to be read any more."""
    if (ledger := read_ledger(path)) is not None:
        none = np.zeros_like(ledger.generation)
        write_ledger(path, ledger.replaced(state="open", generation=none))


def _remove(output: Recorded, *, begun: bool) -> None:
    # Files that tell whose an output is go last, and first of them what makes it an array.
    last = [*metadata_files(), TABLES_HEADER, LEDGER]
    if output.exists():
        delete_folder(output.path, last=last)
        forget_array(output.path)
    elif begun:  # and killed in between: whatever else lies there is not ours
        for name in last:
            delete(output.path, name)
