"""Check that mappings of synapses are complete."""

from __future__ import annotations

from em_blocks.db.runs import RunStore
from em_blocks.db.schemas.synapses import SIDES
from em_blocks.errors import IncompleteInputError
from em_blocks.outputs import RunContext
from em_blocks.runtime.monitoring.overview import grid_of
from em_blocks.runtime.runs.block_sets import masked_of
from em_blocks.runtime.runs.complete import require_done
from em_blocks.tasks.synapses.map_sites import MappedSites

WRITERS = {
    "map_sites": {side: f"{side}_supervoxel" for side in SIDES},
    "map_skeletons": {}, "mark_clefts": {"post": "cleft"}, "connect_clefts": {},
}
"""Kinds of tasks that write fields of rows, and the columns that a row lacks which was stored again."""


def require_mapped(synapses: RunStore) -> None:
    """Raise `IncompleteInputError` unless the runs that map these synapses have mapped all of them.

    Parameters
    ----------
    synapses : RunStore
        The run that detected them.
    """
    query = {"task": {"$in": list(WRITERS)}, "config.synapses": synapses.run}
    for run in synapses.runs.find(query):
        store = RunStore(synapses.client, synapses.database.name, run["_id"])
        require_done(store)
        if lost := _lost(synapses, run):
            raise IncompleteInputError(
                f"{lost} blocks of run {run['_id']!r} wrote about synapses that run {synapses.run!r} "
                "has stored again since: their mapping is lost, and they would count as unmapped. "
                "Run the command of that run again; it does only these blocks."
            )


def _lost(synapses: RunStore, run: dict) -> int:
    """Return the number of blocks of a mapping whose rows were stored again since."""
    grid, masked = grid_of(run), masked_of(run)
    sites = MappedSites("sites", "", synapses.run, (), marks=WRITERS[run["task"]])
    lost = sites.lost(RunContext(store=synapses), grid)
    return int((lost if masked is None else lost & ~masked).sum())
