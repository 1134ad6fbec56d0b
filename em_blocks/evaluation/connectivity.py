"""From credited synapses to matrices and scores: the part that comes after all blocks."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import numpy as np
from scipy import sparse

from em_blocks.errors import ConfigError
from em_blocks.geometry import Block
from em_blocks.json_text import json_text
from em_blocks.kernels.connectome.graph import Connectome
from em_blocks.kernels.connectome.statistics import network_statistics
from em_blocks.kernels.evaluation.connectivity import Contacts
from em_blocks.kernels.evaluation.connectivity_scores import (
    Connectivity,
    Directions,
    Neurons,
    PairScores,
    Rule,
    connectivity,
    draw_matrices,
    edges,
    score_pairs,
)
from em_blocks.kernels.evaluation.counts import Counts, Sizes
from em_blocks.kernels.evaluation.cremi_marks import without_marks
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.evaluation.credit_synapses import KINDS_OF_TABLES, SIDES, CreditSynapses
from em_blocks.volumes.labels import Labels

Tables = dict[str, Callable[[], Iterable[Counts]]]

_PARTNERS_AT_ONCE = 10_000
_MOST_GRAPH_EDGES = 1_000_000  # networkx needs about 1 kB for each


@dataclass(frozen=True)
class Evaluated:
    """Predicted connectivity against true connectivity.

    Attributes
    ----------
    contacts : Contacts or None
        Contact zones between the neurons, if they were measured.
    """

    neurons: Neurons
    truth: Connectivity
    prediction: Connectivity
    scores: PairScores
    contacts: Contacts | None
    directed: bool

    def headline(self) -> dict:
        """Return the scores that scripts read."""
        keys = ("precision", "recall", "fscore", "n_neurons")
        return {key: getattr(self.scores, key) for key in keys}

    def document(self) -> dict:
        """As JSON and for the database."""
        return {
            **self.scores._asdict(), "directed": self.directed,
            **{side: _statistics(getattr(self, side)) for side in SIDES},
        }


def _statistics(found: Connectivity) -> dict:
    """Count pairs per synapse: with large reach, one synapse lies between many pairs."""
    n = found.n_pairs
    return {
        "synapses": len(n), "synapse_voxels": int(found.synapses.voxels.sum()),
        "synapses_without_pair": int((n == 0).sum()),
        "pairs_per_synapse": {
            "mean": float(n.mean()) if len(n) else 0.0,
            "median": float(np.median(n)) if len(n) else 0.0, "max": int(n.max(initial=0)),
        },
        "largest_entry": int(found.matrix.max()) if found.matrix.nnz else 0,
    }


def credit_here(task: CreditSynapses, blocks: Iterable[Block]) -> Tables:
    """Do all blocks in this process; memory: a block and the tables."""
    found: dict[str, list[Counts]] = {spec.name: [] for spec in task.output_specs()}
    with task.crediting() as credit:
        for block in blocks:
            for name, table in credit(block, BlockReport()):
                found[name].append(table)
    return {
        name: partial(list, [KINDS_OF_TABLES[name].merged(tables)]) for name, tables in found.items()
    }


def evaluate_connectivity(task: CreditSynapses, tables: Tables) -> Evaluated:
    """Matrices and scores from the tables of all blocks.

    Raises
    ------
    ConfigError
        If no neuron is left, or the partners cannot be used.
    """
    neurons = Neurons.of(
        Sizes.merged(tables["neurons"]()), min_voxels=task.min_voxels, exclude=task.exclude
    )
    _check_left(task, neurons)
    directed = task.mode == "directed"
    directions = known_directions(task) if directed else dict.fromkeys(SIDES)
    truth, prediction = (
        connectivity(tables[side], neurons, Rule(task.mode, task.min_overlap, directions[side]))
        for side in SIDES
    )
    return Evaluated(
        neurons, truth, prediction, directed=directed,
        scores=score_pairs(prediction=prediction.matrix, truth=truth.matrix, directed=directed),
        contacts=_contacts(tables["contacts"], neurons) if task.contacts else None,
    )


def _check_left(task: CreditSynapses, neurons: Neurons) -> None:
    if not len(neurons):
        raise ConfigError(
            f"No neuron is left in {task.neurons}: none has min_voxels = {task.min_voxels} voxels "
            f"and is not excluded ({list(task.exclude)}). Check that this is the volume of neurons, "
            "or leave out fewer."
        )


def _contacts(tables: Callable[[], Iterable[Contacts]], neurons: Neurons) -> Contacts:
    """Contact zones between the neurons that are not left out."""
    found = Contacts.merged(tables())
    return found.rows((neurons.rows_of(found.a) >= 0) & (neurons.rows_of(found.b) >= 0))


# -- directions -----------------------------------------------------------------------------


def known_directions(task: CreditSynapses) -> dict[str, Directions]:
    """The partners of both files as ids of synapses and neurons.

    The neurons are those at both sites; the synapse is the first one on the straight line from
    the postsynaptic to the presynaptic site. Partners without any of the three are left out.
    """
    with task.opened() as volumes:
        return {
            side: _directions(partners, volumes.neurons, getattr(volumes, side))
            for side, partners in task.partners().items()
        }


def _directions(partners: Synapses, neurons: Labels, synapses: Labels) -> Directions:
    pre, post = (neurons.at(sites)[0] for sites in (partners.pre, partners.post))
    between = [
        _first_between(partners.post[start:start + _PARTNERS_AT_ONCE],
                       partners.pre[start:start + _PARTNERS_AT_ONCE], synapses)
        for start in range(0, len(partners), _PARTNERS_AT_ONCE)
    ]
    synapse = np.concatenate([np.zeros(0, np.uint64), *between])
    known = (pre != 0) & (post != 0) & (pre != post) & (synapse != 0)
    return Directions(synapse[known], pre[known], post[known])


def _first_between(starts: np.ndarray, ends: np.ndarray, labels: Labels) -> np.ndarray:
    """The first id on the line between each two points (nm), in steps of half a voxel; 0: none."""
    step = min(labels.frame.voxel_size) / 2
    n = int(np.linalg.norm(ends - starts, axis=1).max() // step) + 2
    along = np.linspace(0, 1, n)[:, None, None]
    points = starts + along * (ends - starts)  # (n, partners, 3)
    ids = without_marks(labels.at(points.reshape(-1, 3))[0]).reshape(n, -1)
    return ids[(ids != 0).argmax(axis=0), np.arange(ids.shape[1])]


# -- files ----------------------------------------------------------------------------------


def write_connectivity(folder: Path, found: Evaluated) -> list[Path]:
    """Write matrices, tables, a picture and evaluation.json; returns their paths."""
    from PIL import Image

    folder.mkdir(parents=True, exist_ok=True)
    for side in SIDES:
        sparse.save_npz(folder / f"{side}.npz", getattr(found, side).matrix)
    matrices = {side: getattr(found, side).matrix for side in SIDES}
    columns = edges(found.neurons, **matrices, directed=found.directed)
    neurons = {"row": range(len(found.neurons)), "neuron": found.neurons.ids,
               "voxels": found.neurons.voxels}
    written = [
        *(folder / f"{side}.npz" for side in SIDES),
        _write_csv(folder / "neurons.csv", neurons), _write_csv(folder / "edges.csv", columns),
        _write_csv(folder / "synapses.csv", _synapse_rows(found)),
    ]
    if len(columns["truth"]) <= _MOST_GRAPH_EDGES:
        written.append(_write_graph(folder / "edges.graphml", columns, found.directed))
    if found.contacts is not None:
        written.append(_write_csv(folder / "contacts.csv", found.contacts.columns()))
    Image.fromarray(draw_matrices(**matrices)).save(folder / "matrices.png")
    document = found.document() | {"networks": {side: _network(found, side) for side in SIDES}}
    (folder / "evaluation.json").write_text(json_text(document, indent=2) + "\n")
    return [*written, folder / "matrices.png", folder / "evaluation.json"]


def _network(found: Evaluated, side: str) -> dict:
    """Degrees, clustering and so on of one side."""
    matrix = getattr(found, side).matrix
    pairs = (matrix if found.directed else sparse.triu(matrix, k=1)).tocoo()
    row, column = (axis.astype(np.int64) + 1 for axis in pairs.coords)  # ids of nodes begin at 1
    nowhere = np.zeros((len(row), 3))
    return network_statistics(Connectome(row, column, pairs.data, nowhere[:, 0], nowhere))


def _synapse_rows(found: Evaluated) -> dict[str, Iterable]:
    """Pairs of every synapse of both sides."""
    both = [getattr(found, side) for side in SIDES]
    return {
        "volume": np.repeat(SIDES, [len(one.synapses) for one in both]),
        "synapse": np.concatenate([one.synapses.id for one in both]),
        "voxels": np.concatenate([one.synapses.voxels for one in both]),
        "pairs": np.concatenate([one.n_pairs for one in both]),
    }


def _write_csv(path: Path, columns: dict[str, Iterable]) -> Path:
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(columns)
        rows.writerows(zip(*map(_plain, columns.values()), strict=True))
    return path


def _plain(values: Iterable) -> Iterable:
    return values.tolist() if isinstance(values, np.ndarray) else values


def _write_graph(path: Path, columns: dict[str, np.ndarray], directed: bool) -> Path:
    """The edges as GraphML: ids of neurons as nodes, truth and prediction as weights."""
    import networkx as nx

    graph = nx.DiGraph() if directed else nx.Graph()
    graph.add_edges_from(_edges_with_weights(columns))
    nx.write_graphml(graph, path)
    return path


def _edges_with_weights(columns: dict[str, np.ndarray]) -> Iterator[tuple[str, str, dict]]:
    for a, b, truth, prediction in zip(*map(_plain, columns.values()), strict=True):
        # Nodes of GraphML have names; as numbers, ids above 2**63 would not survive.
        yield str(a), str(b), {"truth": truth, "prediction": prediction}
