"""Clusters of embeddings: objects that touch, small ones, gaps; and how well vectors tell them apart."""

import numpy as np
import pytest

from em_blocks.kernels.instances import embeddings
from em_blocks.kernels.instances.embeddings import cluster_embeddings, nearest, separation

pytest.importorskip("sklearn")


def scene(seed=0, noise=0.2):
    """Two large objects that touch, a third of 12 voxels, and one alike the first but apart from it."""
    labels = np.zeros((3, 40, 60), np.uint32)
    labels[:, 5:35, 4:20], labels[:, 5:35, 20:40] = 1, 2
    labels[1, 5:8, 44:48] = 3
    labels[:, 20:35, 50:58] = 4
    vectors = np.array([[9, 9, 9], [0, 0, 0], [3, 0, 0], [0, 3, 0], [0, 0, 0]], np.float32)
    random = np.random.default_rng(seed)
    embedding = np.moveaxis(vectors[labels], -1, 0) + random.normal(0, noise, (3, *labels.shape))
    return embedding.astype(np.float32), labels


def same_objects(found, labels):
    pairs = np.unique(np.stack([found.ravel(), labels.ravel()]), axis=1)
    return len(pairs[0]) == len(np.unique(pairs[0])) == len(np.unique(pairs[1]))


@pytest.mark.parametrize("method", ["mean_shift", "hdbscan"])
def test_objects_that_touch_are_apart_and_of_one_vector_apart_in_space_too(method):
    embedding, labels = scene()
    found = cluster_embeddings(embedding, labels > 0, method=method, min_size=10)
    assert found.dtype == np.uint32 and found.max() == 4
    assert same_objects(found, labels)
    assert list(dict.fromkeys(found[found > 0].tolist())) == [1, 2, 3, 4], "in the order of voxels"


def test_a_small_object_is_found_that_a_sample_of_the_voxels_misses(monkeypatch):
    monkeypatch.setitem(embeddings.MOST_FITTED, "mean_shift", 50)
    embedding, labels = scene()
    assert same_objects(cluster_embeddings(embedding, labels > 0, min_size=10), labels)


def test_objects_below_the_size_become_background():
    embedding, labels = scene()
    kept = np.where(labels == 3, 0, labels)
    assert same_objects(cluster_embeddings(embedding, labels > 0, min_size=13), kept)
    assert same_objects(cluster_embeddings(embedding, labels > 0, min_size=12), labels)


def test_a_bandwidth_beyond_the_distance_of_the_vectors_joins_objects():
    embedding, labels = scene()
    found = cluster_embeddings(embedding, np.isin(labels, (1, 2)), bandwidth=6.0, min_size=10)
    assert found.max() == 1


@pytest.mark.parametrize("method", ["mean_shift", "hdbscan"])
def test_nothing_and_single_voxels_are_no_trouble(method):
    embedding, labels = scene()
    nothing = np.zeros(labels.shape, bool)
    assert not cluster_embeddings(embedding, nothing, method=method).any()
    nothing[0, 6, 5] = True
    assert cluster_embeddings(embedding, nothing, method=method).sum() == 1
    assert not cluster_embeddings(embedding, nothing, method=method, min_size=2).any()


def test_one_object_alone_stays_one():
    embedding, labels = scene()
    for method in ("mean_shift", "hdbscan"):
        found = cluster_embeddings(embedding, labels == 2, method=method, min_size=10)
        assert same_objects(found, labels == 2)


def test_the_nearest_centre_is_that_of_all_distances(monkeypatch):
    monkeypatch.setattr(embeddings, "CHUNK", 7)
    random = np.random.default_rng(1)
    points, centres = random.normal(size=(40, 4)).astype(np.float32), random.normal(size=(6, 4))
    centres = centres.astype(np.float32)
    distances = np.linalg.norm(points[:, None] - centres[None], axis=2)
    found = nearest(points, centres)
    np.testing.assert_array_equal(found.number, distances.argmin(axis=1))
    np.testing.assert_allclose(found.distance, distances.min(axis=1), rtol=1e-5)


def test_separation_of_known_vectors():
    labels = np.array([[[7, 7, 9, 9, 0]]])
    embedding = np.array([[0.0, 2.0, 4.0, 8.0, 50.0], [0, 0, 0, 0, 0]])[:, None, None]
    found = separation(embedding, labels)  # means at 1 and 6
    assert found == (1.0, 1.5, 5.0)
    embedding[0, 0, 0] = [0, 5, 4, 8, 50]  # means at 2.5 and 6: 5 and 4 are nearer to the other
    assert separation(embedding, labels).own_share == 0.5
    assert np.isnan(separation(embedding, np.where(labels == 9, 0, labels)).gap)
    assert all(np.isnan(value) for value in separation(embedding, np.zeros_like(labels)))
