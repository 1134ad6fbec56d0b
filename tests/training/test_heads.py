"""Validation of heads on predictions whose score is known."""

import numpy as np
import pytest
import torch

from em_blocks.kernels.affinities import affinities
from em_blocks.kernels.shape_descriptors import shape_descriptors
from em_blocks.training.config import SetupConfig
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
