"""Values of a config that may change with the iteration of a training."""

from __future__ import annotations

from itertools import pairwise
from typing import Annotated

import numpy as np
from pydantic import AfterValidator, Discriminator, Field, NonNegativeInt, Tag

Fraction = Annotated[float, Field(ge=0, le=1)]


def _check_rising(points: tuple[tuple[int, float], ...]) -> tuple[tuple[int, float], ...]:
    iterations = [iteration for iteration, _ in points]
    if any(later <= earlier for earlier, later in pairwise(iterations)):
        raise ValueError(
            f"the iterations of [iteration, value] are {iterations}, but must rise from one to the "
            "next; between two of them the value is linear"
        )
    return points


Schedule = Annotated[
    Annotated[Fraction, Tag("value")]
    | Annotated[
        tuple[tuple[NonNegativeInt, Fraction], ...],
        Field(min_length=1, description="[iteration, value] in rising order; linear in between."),
        AfterValidator(_check_rising),
        Tag("schedule"),
    ],
    Discriminator(lambda value: "schedule" if isinstance(value, (list, tuple)) else "value"),
]
"""A value of the whole training, or one that changes with the iteration (a curriculum)."""


def scheduled(schedule: Schedule, iteration: int) -> float:
    """Value of a schedule at an iteration (from 0)."""
    if isinstance(schedule, (int, float)):
        return float(schedule)
    iterations, values = zip(*schedule, strict=True)
    return float(np.interp(iteration, iterations, values))
