"""Scores of partners in predictions of which it is known what they hold."""

import numpy as np
import pytest

from em_blocks.kernels.synapses.detection import DetectionRule
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.kernels.synapses.targets import partner_vectors, site_balls
from em_blocks.models.scores.partners import PartnerScore, detect_partners
from em_blocks.models.truth import Truth

VOXEL = (40.0, 4.6, 4.6)
SHAPE = (12, 100, 120)
GEOMETRY = {"radius_nm": 30, "voxel_size": VOXEL, "offset": (0, 0, 0)}


@pytest.fixture(scope="module")
def synapses():
    """Twelve pairs, far from each other; some partners lie outside of the volume."""
    rng = np.random.default_rng(4)
    cells = np.stack(np.meshgrid([2, 8], [20, 75], [20, 60, 100], indexing="ij"), -1).reshape(-1, 3)
    post = (cells + rng.uniform(0.1, 0.9, cells.shape)) * VOXEL
    step = rng.normal(size=post.shape)
    step *= 120 / np.linalg.norm(step, axis=1, keepdims=True)
    return Synapses(id=np.arange(1, 13), post=post, pre=post + step)


@pytest.fixture(scope="module")
def perfect(synapses):
    """Indicator and vectors without error, every neuron of one label."""
    labels = np.ones(SHAPE, np.uint64)
    vectors = partner_vectors(labels, synapses.post, synapses.pre, **GEOMETRY).vectors
    return site_balls(labels, synapses.post, **GEOMETRY).astype(np.float32), vectors


def scores_of(indicator, vectors, synapses, labels=None):
    """F-score with neuron ids; F-score, precision, recall and threshold without."""
    labels = np.ones(SHAPE, np.uint64) if labels is None else labels
    truth = Truth(VOXEL, {"labels": labels}, points={"pre": synapses.pre, "post": synapses.post})
    score = PartnerScore(indicator="sites", vectors="partners")
    found = score.scores({"sites": indicator[None], "partners": vectors}, truth)
    assert found.keys() <= score.score_names().keys()
    keys = ("fscore_neurons", "fscore", "precision", "recall", "threshold")
    return [found.get(f"synapses/{key}") for key in keys]


def inside(synapses):
    """Which pairs have both sites in the volume."""
    end = np.array(SHAPE) * VOXEL
    return np.all([(site >= 0) & (site < end) for site in (synapses.pre, synapses.post)], axis=(0, 2))


def test_perfect_maps_give_every_pair_once(perfect, synapses):
    both = inside(synapses)
    assert 4 < both.sum() < len(both), "partners beyond the volume are in no neuron"
    _, *by_place, _ = scores_of(*perfect, synapses)
    assert by_place == [1, 1, 1]
    neurons, *_ = scores_of(*perfect, synapses.select(both))
    assert neurons == pytest.approx(2 * both.sum() / (both.sum() + len(both)))


def test_partners_are_found_where_they_are_in_nm(perfect, synapses):
    found = detect_partners(*perfect, rule=DetectionRule(threshold=0.5), voxel_size=VOXEL)
    assert len(found) == len(synapses)
    nearest = np.linalg.norm(found.post[:, None] - synapses.post, axis=2).argmin(axis=1)
    assert sorted(nearest) == list(range(len(synapses)))
    for side in ("post", "pre"):
        error = np.abs(getattr(found, side) - getattr(synapses, side)[nearest])
        # Of the deepest voxels of a component the first one is the site, two above the middle.
        assert (error <= np.array([20, 15, 10])).all(), side


def test_partners_at_the_right_place_in_the_wrong_neuron_count_by_place_only(perfect, synapses):
    indicator, vectors = perfect
    z, y, x = np.indices(SHAPE)
    stripes = (1 + x // 10 + 20 * (y // 50) + 40 * (z // 6)).astype(np.uint64)  # 46 nm wide
    right, *_ = scores_of(indicator, vectors, synapses, stripes)
    beside = vectors + np.reshape([0, 0, 4.6 * 10], (3, 1, 1, 1))
    neurons, by_place, *_ = scores_of(indicator, beside, synapses, stripes)
    assert right > 0.5 and neurons == 0 and by_place == 1


def test_the_best_threshold_is_the_one_that_tells_sites_from_weaker_noise(perfect, synapses):
    indicator, vectors = perfect
    noise = np.roll(indicator, (0, 25, 20), axis=(0, 1, 2)) * 0.6
    _, fscore, *_, threshold = scores_of(np.maximum(indicator * 0.85, noise), vectors, synapses)
    assert fscore == 1 and 0.6 <= threshold < 0.85


def test_missed_sites_cost_recall_and_wrong_ones_precision(perfect, synapses):
    indicator, vectors = perfect
    half = indicator.copy()
    half[6:] = 0
    assert scores_of(half, vectors, synapses)[2:4] == [1, 0.5]
    assert scores_of(indicator, vectors, synapses.select(slice(0, 6)))[2:4] == [0.5, 1]


def test_vectors_that_lead_too_far_are_no_partners(perfect, synapses):
    indicator, vectors = perfect  # of 120 nm: twelve times that is beyond what CREMI allows
    neurons, by_place, *_ = scores_of(indicator, 12 * vectors, synapses)
    assert neurons == by_place == 0


def test_maps_without_a_site_score_nothing(synapses):
    empty = np.zeros(SHAPE, np.float32)
    found = scores_of(empty, np.zeros((3, *SHAPE), np.float32), synapses)
    assert not found[0] > 0 and found[3] == 0
