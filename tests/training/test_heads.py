"""Validation of heads on predictions whose score is known."""

import numpy as np
import pytest
import torch

from em_blocks.kernels.segmentation.affinities import affinities
from em_blocks.kernels.segmentation.lsd import shape_descriptors
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.kernels.synapses.targets import partner_vectors, site_balls
from em_blocks.models.config import SetupConfig
from em_blocks.training.heads import head_trainings
from tiny_setup import tiny_config


@pytest.fixture
def head():
    return head_trainings(SetupConfig.from_dict(tiny_config()))["affinities"]


@pytest.fixture
def labels():
    labels = np.ones((8, 16, 16), np.uint64)
    labels[:, 8:] = 2
    labels[4:, :, 8:] = 3
    return labels


def test_perfect_affinities_reach_the_perfect_scores(head, labels):
    perfect = affinities(labels, head.head.neighborhood).values.astype(np.float32)
    scores = head.validate(perfect, labels)
    assert scores["affinities/cut_ap"] == scores["affinities/cut_f1"] == 1
    assert scores["affinities/balanced_ce"] < 1e-5
    assert scores["affinities/voi_split"] + scores["affinities/voi_merge"] < 0.05


def test_reversed_affinities_score_low(head, labels):
    wrong = 1 - affinities(labels, head.head.neighborhood).values.astype(np.float32)
    scores = head.validate(wrong, labels)
    assert scores["affinities/cut_ap"] < 0.3
    assert scores["affinities/balanced_ce"] > 10


def test_unknown_voxels_do_not_count(head, labels):
    predicted = affinities(labels, head.head.neighborhood).values.astype(np.float32)
    unknown = labels.copy()
    unknown[:, :4] = 0
    predicted[:, :, :3] = 0
    assert head.validate(predicted, unknown)["affinities/cut_f1"] == 1


def test_the_loss_reads_its_own_arrays(head):
    logits = torch.zeros(1, 4, 2, 2, 2)
    batch = {name: torch.ones(1, 4, 2, 2, 2) for name in head.arrays}
    assert batch.keys() == {"affinities/target", "affinities/mask"}
    torch.testing.assert_close(head.loss(logits, batch), torch.tensor(2.0).log())


def test_the_reach_covers_the_longest_shift_and_the_rim():
    values = tiny_config()
    values["heads"]["affinities"]["boundary"] = [0, 1, 2]
    head = head_trainings(SetupConfig.from_dict(values))["affinities"]
    assert head.reach == (1, 2, 5)


# -- local shape descriptors --------------------------------------------------------------


@pytest.fixture
def lsd():
    values = tiny_config()
    values["voxel_size"] = [40, 10, 10]
    values["heads"]["shape"] = {"kind": "lsd", "sigma_nm": 40, "weight": 3}
    return head_trainings(SetupConfig.from_dict(values))["shape"]


def test_perfect_descriptors_have_no_error_and_constant_ones_have_some(lsd, labels):
    perfect = shape_descriptors(labels, sigma_nm=40, voxel_size=(40, 10, 10)).values
    assert lsd.validate(perfect, labels)["shape/mse"] < 1e-9
    assert lsd.validate(np.full_like(perfect, 0.5), labels)["shape/mse"] > 0.01


def test_voxels_without_a_label_have_no_descriptor(lsd, labels):
    labels[:, :, :8] = 0
    predicted = shape_descriptors(labels, sigma_nm=40, voxel_size=(40, 10, 10)).values
    predicted[:, labels == 0] = 1
    assert lsd.validate(predicted, labels)["shape/mse"] < 1e-9
    assert np.isnan(lsd.validate(predicted, np.zeros_like(labels))["shape/mse"])


def test_the_loss_of_descriptors_is_weighted(lsd):
    assert lsd.arrays.keys() == {"shape/target", "shape/mask"}
    batch = {"shape/target": torch.ones(1, 10, 2, 2, 2), "shape/mask": torch.ones(1, 2, 2, 2)}
    torch.testing.assert_close(
        lsd.loss(torch.zeros(1, 10, 2, 2, 2), batch), torch.tensor(3 * 0.25)
    )


def test_the_reach_of_descriptors_is_their_window(lsd):
    assert lsd.reach == (2, 7, 7)


# -- synapses --------------------------------------------------------------------------------

VOXEL = (40.0, 4.0, 4.0)


def synapse_heads(indicator=None, vectors=None):
    values = tiny_config()
    values["voxel_size"] = VOXEL
    values["heads"] = {
        "sites": {"kind": "indicator", "radius_nm": 9, **(indicator or {})},
        "partners": {"kind": "direction_vectors", "radius_nm": 17, "unit_nm": 50, **(vectors or {})},
    }
    heads = head_trainings(SetupConfig.from_dict(values))
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
    scores = head.validate(perfect, labels, pairs)
    assert scores["sites/ap"] == 1 and scores["sites/balanced_ce"] < 1e-5
    wrong = head.validate(1 - perfect, labels, pairs)
    assert wrong["sites/ap"] < 0.1 and wrong["sites/balanced_ce"] > 10


def test_an_indicator_where_no_neuron_is_known_does_not_count(labels, pairs):
    head, _ = synapse_heads()
    perfect = balls(labels, pairs)[None].astype(np.float32)
    labels[:, :, 10:] = 0
    perfect[..., 10:] = 1
    assert head.validate(perfect, labels, pairs)["sites/ap"] == 1


def test_validation_without_synapses_gives_no_score_and_no_error(labels):
    head, vectors = synapse_heads()
    none = Synapses.empty()
    assert np.isnan(head.validate(np.zeros((1, *labels.shape)), labels, none)["sites/ap"])
    scores = vectors.validate(np.zeros((3, *labels.shape)), labels, none)
    assert np.isnan(scores["partners/minus_error_nm"])


def test_perfect_vectors_have_no_error_and_no_vectors_that_of_their_length(labels, pairs):
    _, head = synapse_heads()
    truth = partner_vectors(
        labels, pairs.post, pairs.pre, radius_nm=17, voxel_size=VOXEL, offset=(0, 0, 0)
    )
    anywhere = np.where(truth.mask, truth.vectors, 1e6)  # only where there is a vector
    perfect = head.validate(anywhere, labels, pairs)
    assert perfect["partners/minus_error_nm"] == 0
    lengths = np.linalg.norm(truth.vectors, axis=0)[truth.mask > 0]
    assert perfect["partners/mean_length_nm"] == pytest.approx(lengths.mean())
    none = head.validate(np.zeros_like(truth.vectors), labels, pairs)
    assert none["partners/minus_error_nm"] == pytest.approx(-lengths.mean())
    shifted = head.validate(truth.vectors + np.reshape([3, 0, 4], (3, 1, 1, 1)), labels, pairs)
    assert shifted["partners/minus_error_nm"] == pytest.approx(-5, rel=1e-4)


def test_the_loss_of_an_indicator_is_weighted_and_balanced_by_its_schedule():
    head, _ = synapse_heads({"weight": 3, "balance": [[0, 1.0], [10, 0.0]]})
    target = torch.zeros(1, 1, 2, 4)
    target[..., 0, 0] = 1
    batch = {"sites/target": target, "sites/mask": torch.ones(1, 1, 2, 4)}
    assert batch.keys() == head.arrays.keys()
    logits = torch.full((1, 1, 1, 2, 4), -20.0)  # the site alone is wrong: it weighs 4, then 1
    for iteration, weight in ((0, 4), (10, 1), (99, 1)):
        found = float(head.loss(logits, batch, iteration))
        assert found == pytest.approx(3 * 20 * weight / 8, rel=1e-4)
    assert 1 < float(head.loss(logits, batch, 5)) / (3 * 20 / 8) < 4


@pytest.mark.parametrize(("kind", "expected"), [
    ("cross_entropy", np.log(2)), ("mse", 0.25), ("focal", np.log(2) / 8),
])
def test_the_loss_of_an_indicator_is_of_the_chosen_kind(kind, expected):
    head, _ = synapse_heads({"loss": kind, "gamma": 3, "balance": 0})
    batch = {name: torch.ones(1, 2, 2, 2) for name in head.arrays}
    assert float(head.loss(torch.zeros(1, 1, 2, 2, 2), batch)) == pytest.approx(expected)


def test_the_loss_of_vectors_is_in_units_of_the_head():
    _, head = synapse_heads(vectors={"weight": 2})
    batch = {
        "partners/target": torch.full((1, 3, 2, 2, 2), 150.0), "partners/mask": torch.ones(1, 2, 2, 2)
    }
    assert batch.keys() == head.arrays.keys()
    assert float(head.loss(torch.full((1, 3, 2, 2, 2), 3.0), batch)) == 0
    assert float(head.loss(torch.full((1, 3, 2, 2, 2), 1.0), batch)) == pytest.approx(2 * 4)


def test_the_reach_of_balls_is_their_radius_and_a_voxel_for_the_place_of_the_site():
    indicator, vectors = synapse_heads()
    assert (indicator.reach, vectors.reach) == ((2, 4, 4), (2, 6, 6))
    assert indicator.needs_synapses and vectors.needs_synapses
