"""Measure which way of passing tiles through a network is the fastest on this machine."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from math import prod

import torch

Triple = tuple[int, int, int]
Pass = Callable[[], None]

ROUNDS, LEAST_ROUNDS = 7, 2
QUICK_S, SLOW_S = 0.1, 1.0
LOSSY, LARGER = 1.05, 1.02
"""Least speed-ups: of another precision over fp32, and of another tile over the first one."""


@dataclass(frozen=True)
class Way:
    """One way of applying a network.

    Attributes
    ----------
    precision : {"fp32", "bf16", "fp16"}
    tile_shape : (3,) int
        Output voxels (z, y, x) of one tile.
    batch_size : int
        Tiles in one pass.
    """

    precision: str
    tile_shape: Triple
    batch_size: int = 1

    @property
    def voxels(self) -> int:
        """Output voxels of one pass."""
        return prod(self.tile_shape) * self.batch_size


@dataclass(frozen=True)
class Timed:
    """A way and how fast it was; `voxels_per_s` counts output voxels."""

    way: Way
    voxels_per_s: float

    def document(self) -> dict:
        """As JSON."""
        values = asdict(self.way) | {"tile_shape": list(self.way.tile_shape)}
        return values | {"voxels_per_s": round(self.voxels_per_s)}


def time_ways(
    ways: Sequence[Way],
    pass_of: Callable[[Way], Pass],
    budget_s: Callable[[float], float],
    *,
    clock: Callable[[], float] = time.perf_counter,
) -> list[Timed]:
    """Time the first way, and as many others as fit the budget, smallest passes first.

    Passes of all ways alternate, and each gets its median: what else the machine does hits all alike.

    Parameters
    ----------
    ways : sequence of Way
        The first one is the usual one.
    pass_of : function
        Gives what one pass of a way is. A way whose first pass raises an ArithmeticError (its precision
        cannot hold the values) or runs out of memory is left out.
    budget_s : function
        Seconds that timing may take, for the voxels per second of the first way.

    Returns
    -------
    list of Timed
        In the order of `ways`; the first one is always among them.
    """
    first = ways[0]
    passes = {first: pass_of(first)}
    # The first pass of a way makes kernels and memory: it counts only where it takes long anyway.
    seconds = {first: [_timed(passes[first], clock)]}
    if seconds[first][0] < QUICK_S:
        seconds[first] = [_timed(passes[first], clock)]
    budget = budget_s(first.voxels / seconds[first][0])
    spent, per_round = 0.0, seconds[first][0]
    for way in sorted(ways[1:], key=lambda way: way.voxels):
        expected = seconds[first][0] * way.voxels / first.voxels
        if spent + expected + LEAST_ROUNDS * (per_round + expected) > budget:
            continue
        start = clock()
        if (run := _warmed(way, pass_of)) is not None:
            passes[way], seconds[way] = run, [clock() - start]
            per_round += clock() - start
        spent += clock() - start
    if len(passes) > 1:
        seconds = {way: [s for s in found if s >= SLOW_S] for way, found in seconds.items()}
        _alternate(passes, seconds, budget - spent, clock)
    return [
        Timed(way, way.voxels / statistics.median(seconds[way])) for way in ways if seconds.get(way)
    ]


def _alternate(
    passes: dict[Way, Pass], seconds: dict[Way, list[float]], left: float, clock: Callable[[], float]
) -> None:
    """Rounds over all ways, while time is left."""
    start = clock()
    for number in range(ROUNDS):
        round_s = (clock() - start) / max(1, number)
        if number >= LEAST_ROUNDS and clock() - start + round_s > left:
            break
        for way, run in passes.items():
            seconds[way].append(_timed(run, clock))


def _warmed(way: Way, pass_of: Callable[[Way], Pass]) -> Pass | None:
    try:
        run = pass_of(way)
        run()
    except (ArithmeticError, torch.OutOfMemoryError, NotImplementedError):
        return None
    return run


def _timed(run: Pass, clock: Callable[[], float]) -> float:
    start = clock()
    run()
    return max(clock() - start, 1e-9)


def fastest(timed: Sequence[Timed]) -> Timed:
    """The fastest way; full precision and the first tile are kept where others gain next to nothing."""
    first = timed[0].way

    def worth(found: Timed) -> float:
        lossy = LOSSY if found.way.precision != "fp32" else 1.0
        larger = LARGER if found.way.tile_shape != first.tile_shape else 1.0
        return found.voxels_per_s / lossy / larger

    return max(timed, key=worth)


@contextmanager
def threads(n: int) -> Iterator[None]:
    """Let torch use as many threads as a worker will."""
    before = torch.get_num_threads()
    torch.set_num_threads(n)
    try:
        yield
    finally:
        torch.set_num_threads(before)
