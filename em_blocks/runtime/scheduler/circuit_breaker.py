"""Causes for which a step must end before its blocks are done."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import psutil

from em_blocks.runtime.scheduler.dispatch import StepProgress
from em_blocks.runtime.scheduler.scheduled_step import ScheduledStep
from em_blocks.runtime.scheduler.worker_registry import WorkerRegistry

MIN_ALIKE = 3
RESERVE_BYTES = 64e6


class CircuitBreaker:
    """Finds out whether the blocks of a step cannot succeed any more.

    Parameters
    ----------
    step : ScheduledStep
    progress : StepProgress
        Of the step, kept up to date by the dispatcher.
    registry : WorkerRegistry
    """

    def __init__(
        self, step: ScheduledStep, progress: StepProgress, registry: WorkerRegistry
    ):
        self._step, self._progress, self._registry = step, progress, registry
        self._n_blocks, self._num_workers = int(step.work.todo.sum()), step.work.task.num_workers
        outputs = step.work.task.output_specs()
        self._folders = [Path(o.folder) for o in outputs if o.folder is not None]

    def check(self, last_log_line: Callable[[], str]) -> str | None:
        """Return why the step must end: a full disk, or first blocks that all fail alike."""
        return self._full_disk() or (
            self._systematic_failure(last_log_line) if self._progress.done == 0 else None
        )

    def _full_disk(self) -> str | None:
        for folder in self._folders:
            if folder.exists() and (free := psutil.disk_usage(str(folder)).free) < RESERVE_BYTES:
                return (
                    f"the disk of {folder} is full ({free / 1e6:.0f} MB are free, "
                    f"{RESERVE_BYTES / 1e6:.0f} MB are kept for the records of what is done); free "
                    "some space and start the same command again"
                )
        return None

    def _systematic_failure(self, last_log_line: Callable[[], str]) -> str | None:
        """Return why no block will ever succeed, judged by the first ones."""
        groups = self._step.store.failure_groups(self._step.epoch)
        if len(groups) == 1:
            (group,) = groups
            error = f"{group['type']} in stage {group['stage']}: {group['message']}"
            if group["starts"] >= MIN_ALIKE:
                return f"workers cannot start, with {error}"
            # A damaged chunk fails all blocks that read it; that is no reason to stop the others.
            alike = 100 if group["type"] == "VolumeError" else max(MIN_ALIKE, 2 * self._num_workers)
            if alike <= group["blocks"] < self._n_blocks:
                return f"the first {group['blocks']} blocks all failed with {error}"
        enough = (5 if self._registry.any_joined else 1) * self._num_workers
        if self._registry.unproductive >= 5 + enough:
            return f"workers die before they finish a block: {last_log_line()}"
        return None
