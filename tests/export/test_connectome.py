"""Files of connectomes, without a database."""

import json
from pathlib import Path

import networkx as nx
import numpy as np
import pytest
import scipy.sparse

from em_blocks.errors import ConfigError, VolumeError
from em_blocks.export.connectome import write_connectome
from em_blocks.kernels.connectome.graph import Connectome, connectome
from em_blocks.kernels.plots.connectome import connectome_preview
from em_blocks.kernels.synapses.table import LARGEST_ID

ENDINGS = ("graphml", "npz", "csv", "json")
GRAPH = Connectome(
    np.array([2, 2, LARGEST_ID]), np.array([2, 9, 2]), np.array([1, 300, 2]),
    np.array([0.5, 0.0, 1.25]), np.arange(9.0).reshape(3, 3) * 40.6,
)


def test_largest_ids_and_counts_survive_every_format(tmp_path):
    for ending in ENDINGS:
        write_connectome(tmp_path / f"g.{ending}", GRAPH)
    graphs = [
        nx.read_graphml(tmp_path / "g.graphml", node_type=int),
        nx.node_link_graph(json.loads((tmp_path / "g.json").read_text())),
    ]
    for graph in graphs:
        assert graph.edges[LARGEST_ID, 2]["weight"] == 2 and graph.edges[LARGEST_ID, 2]["score"] == 1.25
        assert [graph.edges[LARGEST_ID, 2][axis] for axis in "zyx"] == GRAPH.position[2].tolist()
        assert graph.nodes[2] == {"inputs": 3, "outputs": 301} and graph.number_of_edges() == 3
    with np.load(tmp_path / "g.npz") as arrays:
        assert arrays["ids"].tolist() == [2, 9, LARGEST_ID]
        np.testing.assert_array_equal(arrays["position"], GRAPH.position)
    matrix = scipy.sparse.load_npz(tmp_path / "g.npz")
    assert matrix.toarray().tolist() == [[1, 300, 0], [0, 0, 0], [2, 0, 0]]
    assert (tmp_path / "g.csv").read_text().splitlines()[3].startswith(f"{LARGEST_ID},2,2,1.25,243.")


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_graph_of_nobody_is_written(ending, tmp_path):
    write_connectome(tmp_path / f"g.{ending}", connectome([]))
    if ending == "graphml":
        assert len(nx.read_graphml(tmp_path / "g.graphml")) == 0
    elif ending == "npz":
        assert scipy.sparse.load_npz(tmp_path / "g.npz").shape == (0, 0)


@pytest.mark.parametrize("ending", ENDINGS)
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(ending, tmp_path, monkeypatch):
    path = tmp_path / f"g.{ending}"
    path.write_text("old")
    monkeypatch.setattr(Connectome, "nodes", property(_full_disk))
    monkeypatch.setattr(Connectome, "matrix", _full_disk)
    if ending == "csv":
        monkeypatch.setattr("csv.writer", _full_disk)
    with pytest.raises(VolumeError, match="cannot be written: No space left"):
        write_connectome(path, GRAPH)
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def _full_disk(*_):
    raise OSError(28, "No space left on device")


def test_an_unknown_format_is_refused(tmp_path):
    with pytest.raises(ConfigError, match=r"should end in one of \.graphml, \.npz, \.csv, \.json"):
        write_connectome(Path(tmp_path / "g.gexf"), GRAPH)


def test_a_preview_is_three_pictures_even_of_nobody():
    for graph in (GRAPH, connectome([])):
        picture = connectome_preview(graph)
        assert picture.dtype == np.uint8 and picture.shape[1] > 2 * picture.shape[0]
        thirds = np.split(picture, 3, axis=1)
        assert all(len(np.unique(third)) > 20 for third in thirds)
