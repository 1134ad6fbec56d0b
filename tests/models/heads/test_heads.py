"""Heads on predictions whose score is known."""

import numpy as np
import pytest
import torch

from em_blocks.kernels.segmentation.affinities import affinities
from em_blocks.kernels.segmentation.lsd import shape_descriptors
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.kernels.synapses.targets import partner_vectors, site_balls
from em_blocks.models.config import SetupConfig
from em_blocks.models.truth import Truth
from tiny_setup import tiny_config

CUBES = (10.0, 10.0, 10.0)


def scores(head, predicted, labels, synapses=None, voxel_size=CUBES):
    points = {} if synapses is None else {"pre": synapses.pre, "post": synapses.post}
    found = head.scores(predicted, Truth(voxel_size, {"labels": labels}, points=points))
    assert list(found) == list(head.score_names()), "all are named before anything is predicted"
    return found


def loss_of(head, logits, iteration=0, **batch):
    assert batch.keys() == set(head.arrays)
    return head.objective(logits, batch, iteration)


@pytest.fixture
def head():
    return SetupConfig.from_dict(tiny_config()).heads["affinities"]


@pytest.fixture
def labels():
    labels = np.ones((8, 16, 16), np.uint64)
    labels[:, 8:] = 2
    labels[4:, :, 8:] = 3
    return labels


def test_perfect_affinities_reach_the_perfect_scores(head, labels):
    perfect = affinities(labels, head.neighborhood).values.astype(np.float32)
    found = scores(head, perfect, labels)
    assert found["cut_ap"] == found["cut_f1"] == 1
    assert found["balanced_ce"] < 1e-5
    assert found["voi_split"] + found["voi_merge"] < 0.05


def test_reversed_affinities_score_low(head, labels):
    wrong = 1 - affinities(labels, head.neighborhood).values.astype(np.float32)
    found = scores(head, wrong, labels)
    assert found["cut_ap"] < 0.3
    assert found["balanced_ce"] > 10


def test_unknown_voxels_do_not_count(head, labels):
    predicted = affinities(labels, head.neighborhood).values.astype(np.float32)
    unknown = labels.copy()
    unknown[:, :4] = 0
    predicted[:, :, :3] = 0
    assert scores(head, predicted, unknown)["cut_f1"] == 1


def test_the_loss_is_balanced_cross_entropy_unless_the_config_says_another(head):
    logits, ones = torch.zeros(1, 4, 2, 2, 2), torch.ones(1, 4, 2, 2, 2)
    known = loss_of(head, logits, target=ones, mask=ones)
    torch.testing.assert_close(known, torch.tensor(2.0).log())
    values = head.model_dump() | {"loss": {"kind": "mse"}, "weight": 3}
    other = type(head).from_dict(values)
    assert float(loss_of(other, logits, target=ones, mask=ones)) == pytest.approx(3 * 0.25)
    assert type(head).from_dict(other.model_dump(mode="json")) == other


def test_the_reach_covers_the_longest_shift_and_the_rim():
    values = tiny_config()
    values["heads"]["affinities"]["boundary"] = [0, 1, 2]
    head = SetupConfig.from_dict(values).heads["affinities"]
    assert head.reach(CUBES) == (1, 2, 5)


# -- local shape descriptors --------------------------------------------------------------


THICK = (40.0, 10.0, 10.0)


@pytest.fixture
def lsd():
    values = tiny_config()
    values["voxel_size"] = [40, 10, 10]
    values["heads"]["shape"] = {"kind": "lsd", "sigma_nm": 40, "weight": 3}
    return SetupConfig.from_dict(values).heads["shape"]


def test_perfect_descriptors_have_no_error_and_constant_ones_have_some(lsd, labels):
    perfect = shape_descriptors(labels, sigma_nm=40, voxel_size=(40, 10, 10)).values
    assert scores(lsd, perfect, labels, voxel_size=THICK)["mse"] < 1e-9
    assert scores(lsd, np.full_like(perfect, 0.5), labels, voxel_size=THICK)["mse"] > 0.01


def test_voxels_without_a_label_have_no_descriptor(lsd, labels):
    labels[:, :, :8] = 0
    predicted = shape_descriptors(labels, sigma_nm=40, voxel_size=(40, 10, 10)).values
    predicted[:, labels == 0] = 1
    assert scores(lsd, predicted, labels, voxel_size=THICK)["mse"] < 1e-9
    assert np.isnan(scores(lsd, predicted, np.zeros_like(labels), voxel_size=THICK)["mse"])


def test_the_loss_of_descriptors_is_weighted(lsd):
    found = loss_of(
        lsd, torch.zeros(1, 10, 2, 2, 2),
        target=torch.ones(1, 10, 2, 2, 2), mask=torch.ones(1, 2, 2, 2),
    )
    torch.testing.assert_close(found, torch.tensor(3 * 0.25))


def test_the_reach_of_descriptors_is_their_window(lsd):
    assert lsd.reach(THICK) == (2, 7, 7)


# -- synapses --------------------------------------------------------------------------------

VOXEL = (40.0, 4.0, 4.0)


def synapse_heads(indicator=None, vectors=None):
    values = tiny_config()
    values["voxel_size"] = VOXEL
    values["heads"] = {
        "sites": {"kind": "indicator", "radius_nm": 9, **(indicator or {})},
        "partners": {"kind": "direction_vectors", "radius_nm": 17, "unit_nm": 50, **(vectors or {})},
    }
    heads = SetupConfig.from_dict(values).heads
    return heads["sites"], heads["partners"]


@pytest.fixture
def pairs():
    """Two pairs in the labels, nm from their corner."""
    post = np.array([[1.5, 3.5, 4.5], [6.5, 11.5, 3.5]]) * VOXEL
    return Synapses(id=[1, 2], post=post, pre=post + np.array([[40, 12, 30], [-80, 0, 20]]))


def balls(labels, synapses, radius_nm=9):
    return site_balls(labels, synapses.post, radius_nm=radius_nm, voxel_size=VOXEL, offset=(0, 0, 0))


def test_a_perfect_indicator_scores_perfectly_and_its_reverse_does_not(labels, pairs):
    head, _ = synapse_heads()
    perfect = balls(labels, pairs)[None].astype(np.float32)
    assert 0 < perfect.sum() < 0.1 * perfect.size
    found = scores(head, perfect, labels, pairs, voxel_size=VOXEL)
    assert found["ap"] == 1 and found["balanced_ce"] < 1e-5
    wrong = scores(head, 1 - perfect, labels, pairs, voxel_size=VOXEL)
    assert wrong["ap"] < 0.1 and wrong["balanced_ce"] > 10


def test_an_indicator_where_no_neuron_is_known_does_not_count(labels, pairs):
    head, _ = synapse_heads()
    perfect = balls(labels, pairs)[None].astype(np.float32)
    labels[:, :, 10:] = 0
    perfect[..., 10:] = 1
    assert scores(head, perfect, labels, pairs, voxel_size=VOXEL)["ap"] == 1


def test_validation_without_synapses_gives_no_score_and_no_error(labels):
    head, vectors = synapse_heads()
    none = Synapses.empty()
    assert np.isnan(scores(head, np.zeros((1, *labels.shape)), labels, none, voxel_size=VOXEL)["ap"])
    found = scores(vectors, np.zeros((3, *labels.shape)), labels, none, voxel_size=VOXEL)
    assert np.isnan(found["minus_error_nm"])


def test_perfect_vectors_have_no_error_and_no_vectors_that_of_their_length(labels, pairs):
    _, head = synapse_heads()
    truth = partner_vectors(
        labels, pairs.post, pairs.pre, radius_nm=17, voxel_size=VOXEL, offset=(0, 0, 0)
    )
    anywhere = np.where(truth.mask, truth.vectors, 1e6)  # only where there is a vector
    perfect = scores(head, anywhere, labels, pairs, voxel_size=VOXEL)
    assert perfect["minus_error_nm"] == 0
    lengths = np.linalg.norm(truth.vectors, axis=0)[truth.mask > 0]
    assert perfect["mean_length_nm"] == pytest.approx(lengths.mean())
    none = scores(head, np.zeros_like(truth.vectors), labels, pairs, voxel_size=VOXEL)
    assert none["minus_error_nm"] == pytest.approx(-lengths.mean())
    off = truth.vectors + np.reshape([3, 0, 4], (3, 1, 1, 1))
    shifted = scores(head, off, labels, pairs, voxel_size=VOXEL)
    assert shifted["minus_error_nm"] == pytest.approx(-5, rel=1e-4)


def test_the_loss_of_an_indicator_is_weighted_and_balanced_by_its_schedule():
    head, _ = synapse_heads({"weight": 3, "balance": [[0, 1.0], [10, 0.0]]})
    target = torch.zeros(1, 1, 2, 4)
    target[..., 0, 0] = 1
    batch = {"target": target, "mask": torch.ones(1, 1, 2, 4)}
    logits = torch.full((1, 1, 1, 2, 4), -20.0)  # the site alone is wrong: it weighs 4, then 1
    for iteration, weight in ((0, 4), (10, 1), (99, 1)):
        found = float(loss_of(head, logits, iteration, **batch))
        assert found == pytest.approx(3 * 20 * weight / 8, rel=1e-4)
    assert 1 < float(loss_of(head, logits, 5, **batch)) / (3 * 20 / 8) < 4


@pytest.mark.parametrize(("kind", "expected"), [
    ("cross_entropy", np.log(2)), ("mse", 0.25), ("focal", np.log(2) / 8),
])
def test_the_loss_of_an_indicator_is_of_the_chosen_kind(kind, expected):
    head, _ = synapse_heads({"loss": kind, "gamma": 3, "balance": 0})
    batch = {name: torch.ones(1, 2, 2, 2) for name in head.arrays}
    assert float(loss_of(head, torch.zeros(1, 1, 2, 2, 2), **batch)) == pytest.approx(expected)


def test_the_loss_of_vectors_is_in_units_of_the_head():
    _, head = synapse_heads(vectors={"weight": 2})
    batch = {
        "target": torch.full((1, 3, 2, 2, 2), 150.0), "mask": torch.ones(1, 2, 2, 2)
    }
    assert float(loss_of(head, torch.full((1, 3, 2, 2, 2), 3.0), **batch)) == 0
    assert float(loss_of(head, torch.full((1, 3, 2, 2, 2), 1.0), **batch)) == pytest.approx(2 * 4)


def test_the_reach_of_balls_is_their_radius_and_a_voxel_for_the_place_of_the_site():
    indicator, vectors = synapse_heads()
    assert (indicator.reach(VOXEL), vectors.reach(VOXEL)) == ((2, 4, 4), (2, 6, 6))
    assert indicator.needs == {"labels/labels", "points/post"}
    assert vectors.needs == {"labels/labels", "points/post", "points/pre"}
