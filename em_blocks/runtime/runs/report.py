"""How a run ended, as the database says."""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rich.console import Console

from em_blocks.db.runs import DONE, QUARANTINED, RunStore
from em_blocks.errors import EXIT_FAILED_BLOCKS, EXIT_OK
from em_blocks.json_text import json_text
from em_blocks.runtime.runs.block_sets import BlockSets
from em_blocks.tasks.base import BlockwiseTask

N_WORST, N_FAILURES = 5, 20

_IN_SHORT = ("run", "task", "state", "reason", "blocks")


@dataclass(frozen=True)
class RunReport:
    """The end of a run; stored as summary/RUN.json and shown as a table.

    Attributes
    ----------
    reason : str or None
        Why not all blocks are done, if so.
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
    task: BlockwiseTask, sets: BlockSets, store: RunStore, *, skipped: int, wall_s: float,
    reason: str | None, logs: Path,
) -> RunReport:
    """Compare the database with the grid: what it does not confirm is not done.

    Parameters
    ----------
    sets : BlockSets
        What the database has.
    skipped : int
        Blocks that were done before this start.
    wall_s : float
        Seconds that workers worked.
    reason : str or None
        Why the run ended early.
    """
    n, totals = sets.counts(), store.totals(but=sets.hidden if sets.hidden.any() else None)
    failures = store.failures(N_FAILURES, but=sets.masked)
    missing, computed = int(sets.missing.sum()), n[DONE] - skipped
    state = "done" if missing == 0 else "failed" if reason is None else "stopped"
    voxels = totals["voxels"] * computed / max(1, n[DONE])
    return RunReport(
        run=task.run, task=task.kind, state=state,
        reason=reason if missing == 0 else reason or _why(sets, failures),
        blocks={
            "total": sets.done.size, "done": n[DONE], "skipped": skipped, "computed": computed,
            "masked": n["masked"], "failed": missing - n[QUARANTINED], "quarantined": n[QUARANTINED],
        },
        seconds=totals["seconds"], counts=totals["counts"], wall_s=wall_s,
        mvox_s=voxels / 1e6 / wall_s if wall_s else 0.0,
        worst_blocks=store.slowest(N_WORST, but=sets.hidden), failures=failures,
        outputs={o.name: o.path for o in task.output_specs()}, logs=str(logs),
    )


def _why(sets: BlockSets, failures: list[dict]) -> str:
    """Return why a run that nothing ended early is not done."""
    missing = f"{int(sets.missing.sum())} of {int((~sets.masked).sum())} blocks are not done"
    if not failures:
        return f"{missing} and have no record"
    first, error = failures[0], failures[0]["error"]
    where = f" in {error['stage']}" if error.get("stage") else ""
    return (
        f"{missing}; {first['block']} is {first['state']} after {first['attempts']} "
        f"attempts with {error.get('type')}{where}: {error.get('message')}"
    )


def write_summaries(
    home: Path, reports: Sequence[RunReport], console: Console,
    refused: tuple[str, str] | None = None,
) -> None:
    """Store the reports of a command in the folder of its runs.

    ``summary/RUN.json`` is that of a run. ``summary.json`` tells how the latest command ended: it is
    the report of the first step that is not done, or else of the last, with all ``steps`` in short.

    Parameters
    ----------
    refused : (str, str), optional
        Run of a step that could not begin, and why: that is how the command ended.
    """
    steps = [{name: getattr(report, name) for name in _IN_SHORT} for report in reports]
    decisive = asdict(next((report for report in reports if not report.ok), reports[-1]))
    if refused is not None:
        decisive = {"run": refused[0], "state": "failed", "reason": refused[1]}
        steps.append(decisive)
    try:
        for report in reports:
            _write(home / "summary" / f"{report.run}.json", asdict(report))
        _write(home / "summary.json", {**decisive, "steps": steps})
    except OSError as error:  # of a full disk, which is why the runs end
        console.print(
            f"The summary in {home} cannot be written: {error.strerror}. The database holds the same.",
            markup=False, highlight=False,
        )


def _write(path: Path, document: dict) -> None:
    """Store JSON in one piece."""
    path.parent.mkdir(parents=True, exist_ok=True)
    # Commands that share the folder may end at the same time.
    temporary = path.with_suffix(f".{os.getpid()}.new")
    temporary.write_text(json_text(document, indent=2, default=str) + "\n")
    temporary.replace(path)
