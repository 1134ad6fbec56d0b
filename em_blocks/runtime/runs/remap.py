"""Another look-up table for mapped synapses: only supervoxels whose segment changed are touched."""

from __future__ import annotations

import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass

import numpy as np

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import RunStore
from em_blocks.db.schemas.synapses import MAPPING, SIDES
from em_blocks.db.synapses import SynapseStore
from em_blocks.errors import CommitRefusedError, FingerprintMismatchError, RefusedError
from em_blocks.runtime.runs.claim import changed_settings
from em_blocks.runtime.runs.forget import forget_run
from em_blocks.runtime.runs.inputs import look_at
from em_blocks.runtime.runs.leases import take_lease
from em_blocks.runtime.runs.preflight import Checked, check_task
from em_blocks.tasks.base import BlockwiseTask
from em_blocks.tasks.segmentation.look_up_table import LookUpTable, changes
from em_blocks.tasks.synapses.map_sites import OF_THE_TABLE, MapSites


@dataclass(frozen=True)
class Remapped:
    """What a change of the table did.

    Attributes
    ----------
    supervoxels : int
        Supervoxels of the whole table whose segment changed.
    pre, post : int
        Rows whose presynaptic or postsynaptic segment was written.
    """

    run: str
    lut: str
    supervoxels: int
    pre: int
    post: int
    seconds: float


def remap(
    task: MapSites, *, dependents: Sequence[BlockwiseTask] = (), dry_run: bool = False
) -> Remapped | None:
    """Make the segments of a mapping those of the table of `task`; None if they are already.

    The tables are compared, and rows are found by the index on supervoxels. Interrupted, the same
    call goes on, or one with the old table goes back; until then the mapping is refused to others.

    Parameters
    ----------
    task : MapSites
        With the new table; apart from this as the run was made.
    dependents : sequence of BlockwiseTask
        Steps whose results follow from the segments: their runs are removed, to be made again.
    dry_run : bool
        Only count the supervoxels.

    Raises
    ------
    EmBlocksError
        If there is more that differs, the old table does not exist, or the new one lacks fragments.
    """
    checked = check_task(task)
    with database_uri(task.db_host, task.home) as uri, connect(uri) as client:
        store = RunStore(client, task.db_name, task.run)
        inputs = look_at(task, checked, {}, store)
        old = _old_table(store, task, checked)
        if old is None:
            return None
        # All of it first: a table that does not fit must not be found out halfway.
        n = sum(len(piece["fragment"]) for piece in _changes(task, old))
        if dry_run:
            return Remapped(task.run, task.lut, n, 0, 0, 0.0)
        start = time.monotonic()
        with _leased(store, task, old) as epoch:
            for step in dependents:
                forget_run(RunStore(client, step.db_name, step.run), step)
            pre, post = _replace(store, task, old, epoch)
            found = Remapped(task.run, task.lut, n, pre, post, time.monotonic() - start)
            store.update(
                contents=inputs.document(), content_id=inputs.content_id(checked.fingerprint),
                fingerprint=checked.fingerprint, identity=checked.identity,
                config=task.stored_config(), remap=None, remapped=asdict(found),
            )
        return found


def _old_table(store: RunStore, task: MapSites, checked: Checked) -> str | None:
    """Return the table that segments are of now; "" for none, None if there is nothing to do."""
    document = store.load()
    if document is None:
        return None
    pending = document.get("remap")
    if pending is None and document["fingerprint"] == checked.fingerprint:
        return None
    others = [f"{path}: {before!r} -> {now!r}"
              for path, before, now in changed_settings(task, document["identity"], checked.identity)
              if f"{path}:" not in OF_THE_TABLE]
    if others:
        raise FingerprintMismatchError(
            f"Run {task.run!r} differs in more than its look-up table: {'; '.join(others)}. Only the "
            "table can be changed in place; --overwrite maps everything anew."
        )
    if pending is None:
        return document["config"]["lut"] or ""
    if task.lut not in pending.values():
        raise RefusedError(
            f"The change of run {task.run!r} from {pending['from']} to {pending['to']} was interrupted. "
            "Finish it with --lut and one of these two before another table is used."
        )
    return next((path for path in pending.values() if path != task.lut), task.lut)


def _changes(task: MapSites, old: str) -> Iterator[dict[str, np.ndarray]]:
    grid = task.grid()
    tables = [path and LookUpTable(path, grid.frame, grid.volume_shape) for path in (old, task.lut)]
    return changes(tables[0] or None, tables[1])


@contextmanager
def _leased(store: RunStore, task: MapSites, old: str) -> Iterator[int]:
    """Become the run's only scheduler, and record that segments are of two tables."""
    state, epoch = store.load()["state"], take_lease(store, task)
    try:
        store.update(remap={"from": old, "to": task.lut})
        yield epoch
    finally:
        summary = store.load().get("summary", {})
        store.release(epoch, state=state, summary=summary)


def _replace(store: RunStore, task: MapSites, old: str, epoch: int) -> list[int]:
    """Write the new segments; return the rows written on either side."""
    rows = SynapseStore(store.client, task.db_name, task.synapses)
    rows.prepare(MAPPING)
    written = [0, 0]
    if not old:  # no table lists the background
        none = np.zeros(1, np.int64)
        written = [_replaced(rows, side, none, none) for side in SIDES]
    for piece in _changes(task, old):
        if not store.heartbeat(epoch):
            raise CommitRefusedError(
                f"Another scheduler took over run {task.run!r} while its segments were changed."
            )
        for n, side in enumerate(SIDES):
            written[n] += _replaced(rows, side, piece["fragment"], piece["segment"])
    return written


def _replaced(rows: SynapseStore, side: str, fragments: np.ndarray, segments: np.ndarray) -> int:
    """Give the sites in these supervoxels other segments; return how many rows changed."""
    return rows.replace_values(f"{side}.supervoxel", fragments, f"{side}.segment", segments)
