"""The terminal's picture of a run: steps, workers, failures; and when to stop showing it."""

from __future__ import annotations

import time
from datetime import datetime

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from em_blocks.runtime.monitoring.overview import NOT_STARTED

# Between two steps nothing runs, while the next one's inputs are checked.
GRACE_S = 15.0

STYLES = {
    "done": "green", "running": "bold cyan", "working": "cyan", "failed": "bold yellow",
    "stopped": "yellow", "waiting": "dim", "left": "dim", "lost": "bold yellow",
    "revoked": "yellow", "silent": "yellow",
}


class TheEnd:
    """Decides when a watched run has ended, and how.

    All done is the end, and so is a step that ran and then was not done. Otherwise the end is where
    nothing has run for `GRACE_S`.

    Attributes
    ----------
    exit_code : int
        0 if all blocks of all steps are done, otherwise 1; as of the command that runs them.
    """

    def __init__(self):
        self.exit_code = 1
        self._ran: set[str] = set()
        self._idle_since: float | None = None

    def reached(self, snapshot: dict) -> bool:
        """Tell whether `snapshot` is the last one."""
        if snapshot["away"]:
            return False
        states = {step["run"]: step["state"] for step in snapshot["steps"]}
        running = {run for run, state in states.items() if state == "running"}
        if set(states.values()) == {"done"}:
            self.exit_code = 0
            return True
        if running:
            self._ran |= running
            self._idle_since = None
            return False
        if any(states[run] != "done" for run in self._ran):
            return True
        self._idle_since = self._idle_since or time.monotonic()
        return time.monotonic() - self._idle_since > GRACE_S


def screen(snapshot: dict, height: int) -> RenderableType:
    """Return a snapshot for a terminal of `height` lines."""
    steps, workers, failures = snapshot["steps"], snapshot["workers"], snapshot["failures"]
    parts: list[RenderableType] = []
    if away := snapshot["away"]:
        since = datetime.fromisoformat(away["since"]).astimezone()
        parts.append(Text(f"The database does not answer since {since:%H:%M:%S}. {away['message']}",
                          style="bold yellow"))
    parts.append(_steps(steps))
    # What is left of the terminal: half for workers, half for failures, each with a frame.
    room = max(2, (height - len(steps) - 16) // 2)
    if workers:
        parts.append(_workers(workers, snapshot["worker_states"], room))
    if failures:
        parts.append(_failures(failures, room))
    return Group(*parts)


def _steps(steps: list[dict]) -> Table:
    table = Table(expand=True)
    table.add_column("step", overflow="fold")
    table.add_column("state")
    table.add_column("", ratio=1, min_width=10)
    for name in ("done", "of", "failed", "quarantined", "Mvoxel/s", "time left"):
        table.add_column(name, justify="right", no_wrap=True)
    for step in steps:
        table.add_row(*_step(step))
    return table


def _step(step: dict) -> list[RenderableType]:
    name, state = Text(step["step"]), _state(step["state"])
    if step["state"] == NOT_STARTED:
        return [name, state, "", "", "", "", "", "", ""]
    blocks = step["blocks"]
    due = blocks["total"] - blocks["masked"]
    bar = ProgressBar(total=max(1, due), completed=blocks["done"] if due else 1)
    numbers = [blocks["done"], due, blocks["failed"], blocks["quarantined"]]
    left = step["eta_s"] if step["state"] == "running" else None
    return [name, state, bar, *map(str, numbers), f"{step['rate_mvox_s']:.3g}", duration(left)]


def _workers(workers: list[dict], states: dict[str, int], room: int) -> Table:
    counts = ", ".join(f"{n} {state}" for state, n in states.items())
    table = Table(title=f"workers: {counts}", title_justify="left", expand=True)
    for name in ("host", "device", "state", "blocks"):
        table.add_column(name, overflow="ellipsis", no_wrap=True)
    for name in ("done", "failed", "blocks/min", "last sign"):
        table.add_column(name, justify="right", no_wrap=True)
    for worker in workers[:room]:
        rate, age = worker["blocks_per_s"], worker["heartbeat_age_s"]
        table.add_row(
            Text(worker["host"] or ""), Text(worker["device"] or ""), _state(worker["state"]),
            Text(", ".join(worker["blocks"])), str(worker["done"]), str(worker["failed"]),
            "" if rate is None else f"{60 * rate:.3g}", "" if age is None else f"{duration(age)} ago",
        )
    return table


def _failures(failures: list[dict], room: int) -> Table:
    table = Table(title="failures", title_justify="left", expand=True)
    for name in ("step", "error", "stage"):
        table.add_column(name, overflow="fold")
    table.add_column("message", ratio=1, overflow="ellipsis", no_wrap=True)
    for name in ("failing", "tries", "for example"):
        table.add_column(name, justify="right", no_wrap=True)
    for failure in failures[:room]:
        table.add_row(
            Text(failure["step"]), Text(failure["type"] or "unknown"), Text(failure["stage"] or ""),
            Text(" ".join((failure["message"] or "").split())), str(failure["blocks"]),
            str(failure["tries"]), Text(failure["block"] or ""),
        )
    return table


def _state(state: str) -> Text:
    return Text(state, style=STYLES.get(state, ""))


def duration(seconds: float | None) -> str:
    """``42 s``, ``3 min 5 s``, ``2 h 10 min``, ``4 d 3 h``; empty for None."""
    if seconds is None:
        return ""
    whole = round(seconds)
    for unit, per, small, part in (("d", 86400, "h", 3600), ("h", 3600, "min", 60), ("min", 60, "s", 1)):
        if whole >= per:
            return f"{whole // per} {unit} {whole % per // part} {small}"
    return f"{whole} s"
