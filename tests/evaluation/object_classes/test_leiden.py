"""The graph of nearest neighbours."""

import numpy as np

from em_blocks.evaluation.object_classes.leiden import in_one_piece, neighbour_graph


def test_objects_are_connected_to_their_nearest_ones_both_ways():
    graph = neighbour_graph(np.array([[0.0], [1.0], [3.0], [10.0]]), 1).toarray()
    assert graph.tolist() == [[0, 1, 0, 0], [1, 0, 1, 0], [0, 1, 0, 1], [0, 0, 1, 0]]


def test_equal_objects_are_no_neighbours_of_themselves():
    graph = neighbour_graph(np.zeros((9, 2)), 3)
    assert graph.diagonal().sum() == 0 and graph.max() == 1
    assert (np.diff(graph.indptr) >= 3).all()


def test_pieces_are_joined_by_weak_edges():
    graph = in_one_piece(neighbour_graph(np.array([[0.0], [1.0], [50.0], [51.0]]), 1)).toarray()
    assert graph[0, 1] == graph[2, 3] == 1 and graph[0, 2] == graph[2, 0] == 1e-6
    assert graph[1, 3] == 0
