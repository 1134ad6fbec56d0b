"""Series of measured values, and the pieces that a database stores them in."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field

CHUNK = 1000
"""Points per document: 40 kB. A series of any length then neither reaches the limit of a document
(16 MB) nor makes a new point cost more than that."""


@dataclass
class Series:
    """Values of one metric, in the order of their steps.

    Attributes
    ----------
    steps : list of int
        Iterations, rising.
    values : list of float or None
        None is no number: a loss that was not finite.
    times : list of float
        Seconds since 1970.
    """

    steps: list[int] = field(default_factory=list)
    values: list[float | None] = field(default_factory=list)
    times: list[float] = field(default_factory=list)

    def __len__(self) -> int:
        return len(self.steps)

    def add(self, step: int, value: float | None, time: float) -> None:
        """Append a point. One of a step that is there already is a repetition: it replaces the end."""
        self.cut(step - 1)
        self.steps.append(step)
        self.values.append(value)
        self.times.append(time)

    def cut(self, last: int) -> None:
        """Drop the points after step `last`."""
        while self.steps and self.steps[-1] > last:
            for points in (self.steps, self.values, self.times):
                points.pop()

    def chunks(self) -> Iterator[Series]:
        """Yield series of `CHUNK` points, the last of fewer."""
        for first in range(0, len(self), CHUNK):
            part = slice(first, first + CHUNK)
            yield Series(self.steps[part], self.values[part], self.times[part])

    @classmethod
    def joined(cls, chunks: Iterable[Series]) -> Series:
        """Make one series of its chunks."""
        whole = cls()
        for chunk in chunks:
            whole.steps += chunk.steps
            whole.values += chunk.values
            whole.times += chunk.times
        return whole
