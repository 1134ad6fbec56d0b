"""Progress of the steps of a run, for the user who waits."""

from __future__ import annotations

import time
from collections.abc import Sequence
from dataclasses import dataclass

from rich.console import Console
from rich.progress import (
    BarColumn,
    Progress,
    TaskID,
    TaskProgressColumn,
    TextColumn,
    TimeRemainingColumn,
)

from em_blocks.runtime.scheduler.dispatch import StepProgress
from em_blocks.runtime.scheduler.scheduled_step import ScheduledStep

LOG_EVERY_S = 15.0


class ProgressBars:
    """Shows a bar per step, or without bars prints a line now and then.

    Parameters
    ----------
    steps : sequence of ScheduledStep
    progress : sequence of StepProgress
        Of each step, kept up to date by the dispatcher.
    console : rich.console.Console
    live : bool
        Whether to draw bars if the console is a terminal: they would overwrite a debugger's prompt.
    """

    def __init__(
        self, steps: Sequence[ScheduledStep], progress: Sequence[StepProgress], console: Console,
        *, live: bool = True,
    ):
        self._console, self._live = console, live and console.is_terminal
        self._bars = Progress(
            TextColumn("{task.description}"), BarColumn(), TaskProgressColumn(),
            TextColumn("{task.completed}/{task.total}"),
            TextColumn("{task.fields[rate]:.3g} Mvoxel/s"),
            TextColumn("{task.fields[failed]} failed"), TimeRemainingColumn(),
            console=console, disable=not self._live,
        )
        self._rows = [_Row(*both) for both in zip(steps, progress, strict=True)]

    def __enter__(self) -> ProgressBars:
        self._bars.start()
        for row in self._rows:
            row.bar = self._bars.add_task(row.step.store.run, total=row.n_blocks, rate=0.0, failed=0)
        return self

    def __exit__(self, *exc) -> None:
        self._bars.stop()

    def show(self) -> None:
        """Bring all bars up to date."""
        for row in self._rows:
            done, failed = row.progress.done, row.progress.failed
            self._bars.update(row.bar, completed=done + failed, rate=row.rate, failed=failed)
            if not self._live and row.due:
                row.logged = time.monotonic()
                self._console.print(row.line())


@dataclass
class _Row:
    """One step as it is shown."""

    step: ScheduledStep
    progress: StepProgress
    bar: TaskID | None = None

    def __post_init__(self):
        self.n_blocks = int(self.step.work.todo.sum())
        self.start = self.logged = time.monotonic()

    @property
    def rate(self) -> float:
        """Mvoxel/s since the start."""
        voxels = self.progress.done * self.step.work.n_voxels / max(1, self.n_blocks)
        return voxels / 1e6 / max(time.monotonic() - self.start, 1e-6)

    @property
    def due(self) -> bool:
        """Whether a line about it is due."""
        unfinished = 0 < self.progress.done < self.n_blocks
        return unfinished and time.monotonic() - self.logged > LOG_EVERY_S

    def line(self) -> str:
        done = self.progress.done
        left = (time.monotonic() - self.start) * (self.n_blocks - done) / done
        return (
            f"{self.step.store.run}: {done} of {self.n_blocks} blocks, {self.rate:.3g} Mvoxel/s, "
            f"{self.progress.failed} failed, about {left:.0f} s left"
        )
