"""Diagrams of connectomes."""

from __future__ import annotations

import numpy as np

from em_blocks.kernels.connectome.graph import Connectome
from em_blocks.kernels.plots.curves import figure

# Told apart by everybody (Okabe and Ito, https://jfly.uni-koeln.de/color/).
_INPUTS, _OUTPUTS, _WEIGHTS = "#0072B2", "#D55E00", "#000000"
_NAMED = 30  # more names than these would cover each other


def connectome_preview(graph: Connectome, *, n_strongest: int = 50) -> np.ndarray:
    """Draw the distribution of connections, and those among the strongest neurons.

    Parameters
    ----------
    n_strongest : int
        Neurons in the matrix: those with most synapses.

    Returns
    -------
    (y, x, 3) uint8 array
        Three pictures side by side.
    """
    matrix, ids = graph.matrix()
    binary = matrix.astype(bool).astype(np.int64)
    strength = matrix.sum(axis=0) + matrix.sum(axis=1)
    strongest = np.argsort(-strength, kind="stable")[:n_strongest]
    return np.concatenate([
        _distribution(
            {"inputs": (binary.sum(axis=0), _INPUTS), "outputs": (binary.sum(axis=1), _OUTPUTS)},
            "partners of a neuron, at least", "fraction of neurons", f"{len(ids):,} neurons",
        ),
        _distribution(
            {"connections": (graph.weight, _WEIGHTS)}, "synapses of a connection, at least",
            "fraction of connections", f"{len(graph):,} connections, {graph.weight.sum():,} synapses",
        ),
        _adjacency(matrix[strongest][:, strongest].toarray(), ids[strongest].tolist()),
    ], axis=1)


def _distribution(values: dict, x: str, y: str, title: str) -> np.ndarray:
    """Draw the fraction that is at least as large, both axes logarithmic; (y, x, 3) uint8."""
    with figure() as (axes, picture):
        for name, (numbers, colour) in values.items():
            sizes, counts = np.unique(numbers[numbers > 0], return_counts=True)
            if len(sizes):
                fraction = np.cumsum(counts[::-1])[::-1] / len(numbers)
                axes.loglog(sizes, fraction, "o-", markersize=3, color=colour, label=name)
        axes.set(xlabel=x, ylabel=y, title=title)
        if len(axes.get_lines()) > 1:
            axes.legend(loc="best")
        return picture()


def _adjacency(weights: np.ndarray, ids: list[int]) -> np.ndarray:
    """Weights of connections, from rows to columns; (y, x, 3) uint8."""
    with figure() as (axes, picture):
        axes.grid(visible=False)
        if weights.any():
            shown = np.ma.masked_equal(weights, 0)  # without a connection: white
            image = axes.imshow(shown, cmap="viridis_r", norm="log", interpolation="nearest")
            axes.figure.colorbar(image, ax=axes, label="synapses")
        if len(ids) <= _NAMED:
            axes.set_xticks(range(len(ids)), ids, rotation=90, fontsize=6)
            axes.set_yticks(range(len(ids)), ids, fontsize=6)
        axes.set(xlabel="postsynaptic", ylabel="presynaptic",
                 title=f"the {len(ids)} neurons with most synapses")
        return picture()
