"""Objects on a plane, coloured by cluster."""

from __future__ import annotations

import numpy as np

from em_blocks.kernels.plots.curves import figure

_NAMED = 12
"""Clusters that the legend names."""
_NOISE = "0.75"


def embedding(points: np.ndarray, clusters: np.ndarray, title: str) -> np.ndarray:
    """Draw points of two coordinates as (y, x, 3) uint8.

    Parameters
    ----------
    points : array
        (objects, 2).
    clusters : array
        int, 0 is noise, drawn grey below the others.
    """
    from matplotlib import colormaps

    colours = colormaps["tab20"]
    with figure() as (axes, picture):
        for cluster in np.unique(clusters):
            own = points[clusters == cluster]
            colour = _NOISE if cluster == 0 else colours((cluster - 1) % colours.N)
            name = f"noise ({len(own)})" if cluster == 0 else f"{cluster} ({len(own)})"
            axes.scatter(*own.T, s=6, color=colour, linewidths=0,
                         label=name if cluster <= _NAMED else None)
        axes.set(title=title, xticks=[], yticks=[])
        axes.legend(loc="best", fontsize="small", markerscale=2)
        return picture()
