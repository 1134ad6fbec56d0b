"""Whether the runs are done whose rows are read."""

from __future__ import annotations

from em_blocks.db.runs import RunStore
from em_blocks.errors import IncompleteInputError
from em_blocks.tasks.base import BlockwiseTask


def refuse_incomplete_rows(task: BlockwiseTask, store: RunStore) -> None:
    """Raise `IncompleteInputError` unless the runs whose synapses `task` reads are done.

    There is no going around: the partner of a missing row may lie in any block.
    """
    for run in task.synapse_runs():
        require_done(RunStore(store.client, task.db_name, run))


def require_done(store: RunStore, what: str = "The synapses") -> None:
    """Raise `IncompleteInputError` if the run of `store`, which made `what`, exists and lacks blocks."""
    run = store.load()
    if run is None:
        return
    # A block that `verify` found damaged is due again, although the run has ended.
    missing = run.get("n_blocks", 0) - run.get("n_masked", 0) - store.n_done()
    if run["state"] == "done" and missing <= 0:
        return
    lacks = f"lacks {missing} of {run['n_blocks']} blocks" if missing > 0 else f"is {run['state']}"
    raise IncompleteInputError(
        f"{what} of run {store.run!r}: not complete, the run {lacks}. What is made of an incomplete "
        "input is wrong without a sign. Run the command that makes it again (quarantined blocks: "
        "`em-blocks retry` with the same config)."
    )
