"""Files of connectomes, by the end of their name: GraphML, sparse npz, CSV, JSON.

- ``.graphml``: for networkx, Gephi, Cytoscape, igraph; made by networkx, which needs about 1 kB of
  memory per connection.
- ``.npz``: `scipy.sparse.load_npz` gives the matrix of weights, presynaptic objects in rows; the
  array ``ids`` in the same file names its rows and columns; ``score`` and ``position`` belong to
  the values of the matrix, in their order.
- ``.csv``: one connection per row.
- ``.json``: nodes and edges, as `networkx.node_link_graph` reads them.

Positions are nm; ids are whole numbers everywhere.
"""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np

from em_blocks.errors import ConfigError, VolumeError
from em_blocks.kernels.connectome.graph import Connectome
from em_blocks.volumes.stores.whole_files import written_whole


def write_connectome(path: Path, graph: Connectome) -> None:
    """Write connections; the file appears in one piece, or not at all.

    Raises
    ------
    ConfigError
        If the format is unknown.
    VolumeError
        If the file cannot be written.
    """
    write = writer_of(path)
    try:
        with written_whole(path) as file:
            write(file, graph)
    except OSError as error:
        raise VolumeError(
            f"The connectome {path} cannot be written: {error.strerror or error}."
        ) from error


def writer_of(path: Path):
    """The function that writes files of this name; raises `ConfigError`."""
    if path.suffix.lower() not in _WRITERS:
        raise ConfigError(
            f"{path} has no known format of graphs: its name should end in one of "
            f"{', '.join(_WRITERS)}."
        )
    return _WRITERS[path.suffix.lower()]


def _write_graphml(file: Path, graph: Connectome) -> None:
    import networkx as nx

    made = nx.DiGraph()
    made.add_nodes_from((node.pop("id"), node) for node in _nodes(graph))
    for edge in _edges(graph):
        made.add_edge(edge.pop("source"), edge.pop("target"), **edge)
    nx.write_graphml(made, file)


def _write_npz(file: Path, graph: Connectome) -> None:
    matrix, ids = graph.matrix()
    # The names that scipy.sparse.save_npz gives to the parts of a matrix.
    parts = {"indices": matrix.indices, "indptr": matrix.indptr, "data": matrix.data,
             "format": np.array(b"csr"), "shape": np.array(matrix.shape), "_is_array": np.array(True)}
    with open(file, "wb") as stream:
        np.savez_compressed(stream, **parts, ids=ids, score=graph.score, position=graph.position)


def _write_csv(file: Path, graph: Connectome) -> None:
    with open(file, "w", newline="") as stream:
        rows = csv.writer(stream)
        rows.writerow(["pre", "post", "weight", "score", "z", "y", "x"])
        columns = graph.pre, graph.post, graph.weight, graph.score, *graph.position.T
        rows.writerows(zip(*(column.tolist() for column in columns), strict=True))


def _write_json(file: Path, graph: Connectome) -> None:
    with open(file, "w") as stream:
        stream.write('{"directed": true, "multigraph": false, "graph": {},\n"nodes": [')
        stream.writelines(_lines(_nodes(graph)))
        stream.write('],\n"edges": [')
        stream.writelines(_lines(_edges(graph)))
        stream.write("]}\n")


def _lines(objects: Iterator[dict]) -> Iterator[str]:
    for number, values in enumerate(objects):
        yield (",\n " if number else "") + json.dumps(values)


def _nodes(graph: Connectome) -> Iterator[dict]:
    """Objects, with the number of synapses that each receives and makes."""
    ids = graph.nodes
    inputs, outputs = (
        np.bincount(np.searchsorted(ids, side), graph.weight, len(ids)).astype(np.int64)
        for side in (graph.post, graph.pre)
    )
    for id, n_in, n_out in zip(ids.tolist(), inputs.tolist(), outputs.tolist(), strict=True):
        yield {"id": id, "inputs": n_in, "outputs": n_out}


def _edges(graph: Connectome) -> Iterator[dict]:
    columns = graph.pre, graph.post, graph.weight, graph.score, *graph.position.T
    names = ("source", "target", "weight", "score", "z", "y", "x")
    for values in zip(*(column.tolist() for column in columns), strict=True):
        yield dict(zip(names, values, strict=True))


_WRITERS = {".graphml": _write_graphml, ".npz": _write_npz, ".csv": _write_csv, ".json": _write_json}
