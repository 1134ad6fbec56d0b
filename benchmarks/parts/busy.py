"""A task that computes a fixed amount, to measure what the runtime leaves of the cores."""

from __future__ import annotations

import time
from contextlib import contextmanager
from typing import Literal

import numba
import numpy as np
from pydantic import NonNegativeInt, PositiveFloat

from em_blocks.outputs import RunContext
from parts.noop import Noop


@numba.njit(nogil=True)
def spin(steps: int) -> int:
    """A chain of integer operations that no compiler shortens, on one core and no memory."""
    x = np.uint64(88172645463325252)
    for _ in range(steps):
        x ^= x << np.uint64(13)
        x ^= x >> np.uint64(7)
        x ^= x << np.uint64(17)
    return x


def steps_per_second() -> int:
    """Of `spin` in this process, now."""
    spin(1)
    start = time.perf_counter()
    spin(50_000_000)
    return round(50_000_000 / (time.perf_counter() - start))


class Busy(Noop):
    """Empty blocks that take a fixed amount of computing, or of sleep."""

    kind: Literal["busy"] = "busy"
    n_steps: NonNegativeInt = 0
    sleep_s: PositiveFloat | None = None

    @contextmanager
    def open(self, context: RunContext):
        spin(1)

        def process(block, report) -> None:
            with report.measure("compute"):
                if self.sleep_s is not None:
                    time.sleep(self.sleep_s)
                spin(self.n_steps)

        yield process
