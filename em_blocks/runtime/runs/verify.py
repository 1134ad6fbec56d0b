"""Compare what is stored with what the database says is done."""

from __future__ import annotations

from collections.abc import Iterator

from em_blocks.db.runs import DONE, FAILED, RunStore
from em_blocks.errors import ConfigError
from em_blocks.geometry import Block, BlockGrid
from em_blocks.outputs import RunContext
from em_blocks.runtime.runs.block_sets import masked_of
from em_blocks.tasks.base import BlockwiseTask


def damaged_blocks(task: BlockwiseTask, store: RunStore) -> Iterator[tuple[Block, str | None]]:
    """Re-read every done block that the mask leaves; yield it with what is wrong, or None.

    Raises
    ------
    ConfigError
        If the run has another grid than the task, or an output does not exist.
    """
    grid = task.grid()
    context = RunContext(store=store)
    checks = {spec.name: spec.damage(context, grid) for spec in task.output_specs()}
    _check_grid(store, grid)
    masked = masked_of(store.load())
    for document in store.documents({"state": DONE}, projection={"index": 1, "checksums": 1}):
        if masked is not None and masked[tuple(document["index"])]:
            continue
        block = grid.block(document["index"])
        found = (check(block, document["checksums"].get(name)) for name, check in checks.items())
        yield block, next((problem for problem in found if problem), None)


def requeue_damaged(store: RunStore, block: Block, problem: str) -> None:
    """Make a damaged block due again."""
    error = {"type": "Damaged", "message": problem, "stage": "verify", "traceback": None}
    store.blocks.update_one(
        {"_id": f"{store.run}/{block.key}"},
        # Who read it may have read the damage: done again, it counts as new even if it is the same.
        {"$set": {"state": FAILED, "failures": 0, "error": error}, "$unset": {"previous": 1}},
    )


def _check_grid(store: RunStore, grid: BlockGrid) -> None:
    run = store.load()
    if run is None or run["grid"]["block_shape"] != list(grid.block_shape):
        raise ConfigError(
            f"The database has no run {store.run!r} with blocks of {grid.block_shape} voxels; verify "
            "needs the config that the run was made with."
        )
