"""Scores of clusters, against numbers by hand."""

import numpy as np
import pytest

from em_blocks.evaluation.object_classes import scores
from em_blocks.evaluation.object_classes.numbering import by_size
from em_blocks.evaluation.object_classes.scores import compare, silhouette


def test_clusters_are_matched_one_to_one_so_that_most_objects_are_right():
    #                    a: cluster 1 three times, 2 twice; b: cluster 1 twice; noise once in each
    clusters = np.array([1, 1, 1, 2, 2, 0, 1, 1, 0])
    found = compare(clusters, np.array(["a"] * 6 + ["b"] * 3))
    # a-1 and b-2 would be 3 + 0 right, a-2 and b-1 are 2 + 2.
    assert found["accuracy"] == 4 / 9
    assert found["classes"]["a"] == {
        "objects": 6, "cluster": 2, "true_positives": 2, "false_positives": 0, "false_negatives": 4,
        "precision": 1.0, "recall": 2 / 6,
    }
    assert found["classes"]["b"] == {
        "objects": 3, "cluster": 1, "true_positives": 2, "false_positives": 3, "false_negatives": 1,
        "precision": 0.4, "recall": 2 / 3,
    }


def test_information_and_rand_index_by_hand():
    clusters, classes = np.array([1, 1, 2, 2]), np.array(["a", "a", "a", "b"])
    found = compare(clusters, classes)
    # Mutual information: H(cluster) = ln 2; H(cluster | class) = 3/4 H(1/3).
    of_class = -(0.75 * np.log(0.75) + 0.25 * np.log(0.25))
    given = 0.75 * -(2 / 3 * np.log(2 / 3) + 1 / 3 * np.log(1 / 3))
    assert found["nmi"] == pytest.approx((np.log(2) - given) / ((np.log(2) + of_class) / 2))
    # Pairs: 1 together in both, 2 in clusters, 3 in classes, of 6; expected 2 * 3 / 6 = 1.
    assert found["ari"] == 0.0
    assert compare(clusters, np.array(["x", "x", "y", "y"]))["ari"] == 1.0


def test_noise_alone_is_right_nowhere():
    found = compare(np.zeros(4, int), np.array(["a", "a", "b", "b"]))
    assert found["accuracy"] == 0 and found["classes"]["a"]["cluster"] is None
    assert found["classes"]["a"]["precision"] is None


def test_the_silhouette_leaves_noise_out(monkeypatch):
    values = np.array([[0.0], [1.0], [4.0], [5.0], [99.0]])
    clusters = np.array([1, 1, 2, 2, 0])
    outer, inner = 1 - 1 / 4.5, 1 - 1 / 3.5
    assert silhouette(values, clusters, 0) == pytest.approx((outer + inner) / 2)
    assert silhouette(values, np.ones(5, int), 0) is None
    assert silhouette(values[:2], np.array([1, 2]), 0) is None
    monkeypatch.setattr(scores, "MOST_FOR_SILHOUETTE", 3)
    assert silhouette(values, clusters, 0) != pytest.approx((outer + inner) / 2)


def test_clusters_are_numbered_by_size_then_by_their_first_object():
    assert by_size(np.array([7, -1, 3, 3, 5, 5, -1, -1])).tolist() == [3, 0, 1, 1, 2, 2, 0, 0]
