"""Heads that learn instances: targets, losses and scores that are known."""

import numpy as np
import pytest
import torch

from em_blocks.config import StrictModel
from em_blocks.errors import ConfigError
from em_blocks.models.head import HEADS
from em_blocks.models.truth import Truth

SIZE = (50.0, 8.0, 8.0)


def head(kind, **values):
    return HEADS.get(kind).from_dict({"kind": kind, **values})


def truth(known=None, name="labels"):
    ids = np.zeros((2, 24, 32), np.uint64)
    ids[0, 4:20, 3:14], ids[0, 4:20, 14:28] = 70, 2**40
    ids[1, 6:16, 5:12] = 70
    mask = np.ones(ids.shape, np.uint8) if known is None else known
    return Truth(SIZE, {name: ids}, {"annotated": mask})


KINDS = ["foreground", "contour", "skeleton_distance", "signed_distance"]


@pytest.mark.parametrize("kind", KINDS)
def test_targets_have_one_channel_and_are_known_where_it_is_annotated(kind):
    known = np.ones((2, 24, 32), np.uint8)
    known[:, :, 28:] = 0
    made = head(kind).targets(truth(known))
    assert made["target"].shape == made["mask"].shape == (1, 2, 24, 32)
    assert not made["mask"][..., 28:].any() and made["mask"][..., :20].all()
    assert head(kind).needs == {"labels/labels", "masks/annotated"}


@pytest.mark.parametrize("kind", KINDS)
def test_a_head_reads_the_label_volume_that_it_names(kind):
    named = head(kind, labels="mito")
    assert named.needs == {"labels/mito", "masks/annotated"}
    found, usual = (h.targets(t)["target"] for h, t in
                    ((named, truth(name="mito")), (head(kind), truth())))
    np.testing.assert_array_equal(found, usual)


def test_the_background_of_a_foreground_is_learnt():
    made, ids = head("foreground").targets(truth()), truth().labels["labels"]
    np.testing.assert_array_equal(made["target"][0], ids > 0)
    assert made["mask"].all()


def test_a_contour_separates_instances_that_touch():
    made = head("contour", inwards_nm=8).targets(truth())
    row = "".join("#" if value else "." for value in made["target"][0, 0, 10])
    assert row == "...#.........##............#...."
    wide = head("contour", inwards_nm=8, outwards_nm=16).targets(truth())["target"][0, 0, 10]
    assert wide[[1, 2, 28, 29]].all() and not wide[[0, 30]].any()


def test_a_contour_in_two_dimensions_does_not_see_other_sections():
    flat, deep = (
        head("contour", inwards_nm=50, dimensions=n).targets(truth())["target"][0, 0, 11, 20]
        for n in (2, 3)
    )
    assert (flat, deep) == (0, 1)


@pytest.mark.parametrize("dimensions", [2, 3])
def test_a_skeleton_distance_is_minus_one_in_the_background_and_one_on_the_skeleton(dimensions):
    made = head("skeleton_distance", dimensions=dimensions).targets(truth())
    inside = truth().labels["labels"] > 0
    assert (made["target"][0][~inside] == -1).all()
    assert made["target"][0][inside].min() >= 0
    for one in (70, 2**40):
        assert made["target"][0][truth().labels["labels"] == one].max() == 1


def test_a_signed_distance_is_the_tanh_of_nm():
    target = head("signed_distance", unit_nm=20).targets(truth())["target"][0, 0, 10]
    np.testing.assert_allclose(target[[3, 4, 2, 1]], np.tanh([0.4, 0.8, -0.4, -0.8]), rtol=1e-5)
    assert target[13] == target[14] == target[3]
    assert target.min() >= -np.tanh(3.0) - 1e-6


def test_the_reach_is_that_of_the_target():
    assert head("foreground").reach(SIZE) == (0, 0, 0)
    assert head("contour", inwards_nm=16, outwards_nm=25).reach(SIZE) == (1, 4, 4)
    assert head("contour", inwards_nm=100, dimensions=2).reach(SIZE) == (0, 13, 13)
    assert head("signed_distance", unit_nm=20).reach(SIZE) == (2, 8, 8)
    assert head("skeleton_distance", context_nm=80).reach(SIZE) == (0, 11, 11)
    assert head("skeleton_distance", dimensions=3, largest_nm=40).reach((8, 8, 8)) == (19, 19, 19)


@pytest.mark.parametrize("kind", KINDS)
def test_a_perfect_prediction_scores_perfectly_and_its_reverse_does_not(kind):
    one = head(kind)
    target = one.targets(truth())["target"].astype(np.float32)
    reverse = -target if "distance" in kind else 1 - target
    perfect, wrong = (one.scores(values, truth()) for values in (target, reverse))
    assert perfect.keys() == wrong.keys() == one.score_names().keys()
    if "distance" in kind:
        assert perfect["mse"] == perfect["mse_inside"] == 0 and wrong["mse"] > 0.5
    else:
        assert perfect["f1"] == perfect["recall"] == 1 and perfect["balanced_ce"] < 1e-5
        assert wrong["f1"] == 0


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_not_annotated_counts_neither_in_scores_nor_in_the_loss(kind):
    one, nothing = head(kind), truth(np.zeros((2, 24, 32), np.uint8))
    found = one.scores(np.zeros((1, 2, 24, 32), np.float32), nothing)
    assert all(np.isnan(value) for value in found.values())
    batch = {name: torch.from_numpy(values)[None] for name, values in one.targets(nothing).items()}
    assert float(one.objective(torch.randn(1, 1, 2, 24, 32), batch, 0)) == 0


@pytest.mark.parametrize("kind", KINDS)
def test_the_loss_of_a_sure_and_right_network_is_nearly_none(kind):
    one = head(kind)
    made = {name: torch.from_numpy(values)[None] for name, values in one.targets(truth()).items()}
    target = made["target"].float()
    right = torch.atanh(target.clamp(-0.9999, 0.9999)) if "distance" in kind else 40 * target - 20
    assert float(one.objective(right, made, 0)) < 1e-3 < 0.1 < float(one.objective(-right, made, 0))


def test_the_foreground_is_counted_in_parts():
    one, everything = head("foreground"), truth()
    predicted = np.random.default_rng(0).random((1, 2, 24, 32)).astype(np.float32)
    parts = [
        one.tally(predicted[:, z : z + 1], Truth(
            SIZE, {"labels": everything.labels["labels"][z : z + 1]},
            {"annotated": everything.masks["annotated"][z : z + 1]},
        )) for z in (0, 1)
    ]
    assert one.scores_of(sum(parts)) == one.scores(predicted, everything)


@pytest.mark.parametrize("values", [{"hole": 3}, {"context_nm": 100.0}])
def test_keys_of_two_dimensions_are_refused_with_three(values):
    with pytest.raises(ConfigError, match=next(iter(values))):
        head("skeleton_distance", dimensions=3, **values)
    with pytest.raises(ConfigError, match="largest_nm"):
        head("skeleton_distance", largest_nm=99.0)
    assert isinstance(head("skeleton_distance", **values), StrictModel)


def near(**values):
    return head("affinities", channels=2, neighborhood=[[0, 0, -1], [0, 0, -3]], **values)


def test_affinities_of_instances_are_learnt_in_the_background_too():
    known = np.ones((2, 24, 32), np.uint8)
    known[:, :, 28:] = 0
    made, labels = near(unpainted="background").targets(truth(known)), truth().labels["labels"]
    assert made["mask"][0, :, :, 1:28].all() and not made["mask"][..., 28:].any()
    expected = (labels[:, :, 1:] == labels[:, :, :-1]) & (labels[:, :, 1:] > 0)
    np.testing.assert_array_equal(made["target"][0, :, :, 1:], expected)
    assert not made["target"][0, 0, 10, 14] and made["target"][0, 0, 10, 15]


def test_affinities_read_the_volume_and_the_mask_that_they_need():
    assert near().needs == {"labels/labels"}
    assert near(unpainted="background", labels="mito").needs == {"labels/mito", "masks/annotated"}
    named = near(labels="mito").targets(truth(name="mito"))
    np.testing.assert_array_equal(named["target"], near().targets(truth())["target"])
    assert not near().targets(truth())["mask"][:, 0, 0].any(), "0 is unknown unless it is said"


def test_affinities_that_know_no_background_are_described_as_ever():
    assert near().model_dump().keys() == {
        "kind", "channels", "activation", "neighborhood", "boundary",
    }
