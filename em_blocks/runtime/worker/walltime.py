"""End of a worker before the cluster ends its job."""

from __future__ import annotations

import os
import threading
import time
from dataclasses import dataclass

import psutil

from em_blocks.runtime.worker.client import Client

MARGIN_S = 30.0
CHECK_S = 1.0


@dataclass(frozen=True)
class Walltime:
    """The time at which the job of this process will be ended.

    Attributes
    ----------
    end : float or None
        Seconds since the epoch; None if unlimited, as far as is known.
    margin_s : float
        Seconds before it that no block may use.
    """

    end: float | None
    margin_s: float = MARGIN_S

    @classmethod
    def of_this_job(cls, walltime_min: int | None) -> Walltime:
        """Return what Slurm says, else the configured minutes after this process began."""
        if told := os.environ.get("SLURM_JOB_END_TIME"):
            return cls(float(told))
        if walltime_min is None:
            return cls(None)
        seconds = 60.0 * walltime_min
        return cls(psutil.Process().create_time() + seconds, min(MARGIN_S, seconds / 10))

    def due(self, longest_s: float) -> bool:
        """Return whether a block as long as the longest so far might not be finished in time."""
        return self.end is not None and time.time() + 1.5 * longest_s + self.margin_s > self.end

    def leave_in_time(self, client: Client) -> None:
        """Have the worker of `client` take no block that it could not finish."""
        if self.end is not None:
            threading.Thread(target=self._watch, args=(client,), name="walltime", daemon=True).start()

    def _watch(self, client: Client) -> None:
        while not self.due(client.longest_s):
            time.sleep(CHECK_S)
        client.out_of_time = True
        client.leave(within_s=self.end - time.time() - self.margin_s / 2)
