"""Scores over the values of several settings."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from em_blocks.kernels.plots.curves import figures

_BEST, _THERE = "#000000", "#0072B2"


class Panel(NamedTuple):
    """One setting.

    Attributes
    ----------
    name : str
    values : sequence of str
    highest : sequence of float or None
        The highest score with each value, whatever the other settings are.
    at_best : sequence of float or None
        The score with each value where the other settings are the best ones.
    best : int
        Index of the best value.
    """

    name: str
    values: Sequence[str]
    highest: Sequence[float | None]
    at_best: Sequence[float | None]
    best: int


def choice_curves(panels: Sequence[Panel]) -> np.ndarray:
    """Draw scores between 0 and 1 of every setting.

    Returns
    -------
    (y, x, 3) uint8 array
        A picture; an empty pair of axes without panels.
    """
    with figures(max(1, len(panels)), columns=2 if len(panels) > 1 else 1) as (axes, picture):
        for one, panel in zip(axes, panels, strict=False):
            places = np.arange(len(panel.values))
            for values, label, colour in (
                (panel.highest, "others as they suit it", _BEST),
                (panel.at_best, "others as in the best choice", _THERE),
            ):
                one.plot(places, np.array(values, float), "o-", label=label, color=colour)
            one.axvline(panel.best, color=_BEST, alpha=0.25, linewidth=1)
            one.set_xticks(places, panel.values)
            one.set(xlabel=panel.name, ylabel="F1 of objects", ylim=(0, 1.02))
            one.legend(loc="lower left")
        return picture()
