"""How a run ended, as the database says."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path

from em_blocks.db.runs import DONE, QUARANTINED, RunStore
from em_blocks.errors import EXIT_FAILED_BLOCKS, EXIT_OK
from em_blocks.runtime.preflight import Checked
from em_blocks.tasks.base import BlockwiseTask

N_WORST, N_FAILURES = 5, 20


@dataclass(frozen=True)
class RunReport:
    """The end of a run; stored as summary.json and shown as a table.

    Attributes
    ----------
    blocks : dict
        total, done, skipped (done before), computed (now), masked, failed (not done, for
        whatever reason), quarantined.
    seconds : dict
        Seconds per stage, summed over all done blocks and workers.
    mvox_s : float
        Voxels of the blocks computed now per second of wall time, in millions.
    """

    run: str
    task: str
    state: str
    reason: str | None
    blocks: dict[str, int]
    seconds: dict[str, float]
    counts: dict[str, int]
    wall_s: float
    mvox_s: float
    worst_blocks: list[dict]
    failures: list[dict]
    outputs: dict[str, str]
    logs: str

    @property
    def ok(self) -> bool:
        """Every block that the mask leaves is done in the database."""
        return self.state == "done"

    @property
    def exit_code(self) -> int:
        return EXIT_OK if self.ok else EXIT_FAILED_BLOCKS


def make_report(
    task: BlockwiseTask, checked: Checked, store: RunStore, *, skipped: int, wall_s: float,
    reason: str | None, logs: Path,
) -> RunReport:
    """Compare the database with the grid: what it does not confirm is not done.

    Parameters
    ----------
    skipped : int
        Blocks that were done before this start.
    wall_s : float
        Seconds that workers worked.
    reason : str or None
        Why the run ended early.
    """
    counts, totals = store.counts(), store.totals()
    n_blocks, masked = checked.grid.n_blocks, int(checked.masked.sum())
    missing, computed = n_blocks - masked - counts[DONE], counts[DONE] - skipped
    state = "done" if missing == 0 else "failed" if reason is None else "stopped"
    voxels = totals["voxels"] * computed / max(1, counts[DONE])
    return RunReport(
        run=task.run, task=task.kind, state=state, reason=reason,
        blocks={
            "total": n_blocks, "done": counts[DONE], "skipped": skipped, "computed": computed,
            "masked": masked, "failed": missing - counts[QUARANTINED],
            "quarantined": counts[QUARANTINED],
        },
        seconds=totals["seconds"], counts=totals["counts"], wall_s=wall_s,
        mvox_s=voxels / 1e6 / wall_s if wall_s else 0.0,
        worst_blocks=store.slowest(N_WORST), failures=store.failures(N_FAILURES),
        outputs={o.name: o.path for o in task.output_specs()}, logs=str(logs),
    )


def write_summary(path: Path, report: RunReport) -> None:
    """Store the report beside the output, in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_suffix(".json.new")
    temporary.write_text(json.dumps(asdict(report), indent=2, default=str) + "\n")
    temporary.replace(path)
