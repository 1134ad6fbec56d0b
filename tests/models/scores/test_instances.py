"""Scores of instances whose maps are known."""

import numpy as np
import pytest

from em_blocks.models.head import HEADS
from em_blocks.models.joint import usual_scores
from em_blocks.models.scores.instances import InstanceScore
from em_blocks.models.truth import Truth

SIZE = (50.0, 8.0, 8.0)


def truth(known=None):
    ids = np.zeros((2, 40, 60), np.uint32)
    ids[:, 5:25, 5:25], ids[:, 5:25, 25:50] = 7, 9  # they touch
    ids[0, 30:38, 8:20] = 4
    mask = np.ones(ids.shape, np.uint8) if known is None else known
    return Truth(SIZE, {"labels": ids}, {"annotated": mask})


def maps(made):
    heads = {"foreground": {}, "contour": {"inwards_nm": 16.0, "dimensions": 2}}
    return {
        name: HEADS.get(name).from_dict({"kind": name, **values}).targets(made)["target"].astype("f4")
        for name, values in heads.items()
    }


def test_perfect_maps_make_perfect_instances_also_of_those_that_touch():
    found = InstanceScore(min_size=20).scores(maps(truth()), truth())
    assert found == {
        "instances/f1_50": 1.0, "instances/f1_75": 1.0, "instances/pq": pytest.approx(1, abs=0.05),
        "instances/found": 3.0,
    }
    assert found.keys() == InstanceScore().score_names().keys()


def test_without_contours_instances_that_touch_are_one_and_it_costs_f1():
    merged = maps(truth())
    merged["contour"] *= 0
    found = InstanceScore(min_size=20).scores(merged, truth())
    # The union overlaps the larger one by 0.56: of three true ones, two are found at 0.5.
    assert found["instances/found"] == 2
    assert found["instances/f1_50"] == pytest.approx(0.8)
    assert found["instances/f1_75"] == pytest.approx(0.4)


def test_small_seeds_and_instances_are_dropped():
    assert InstanceScore(min_size=193).scores(maps(truth()), truth())["instances/found"] == 3 - 1
    assert InstanceScore(min_seed_size=600).scores(maps(truth()), truth())["instances/found"] == 1


def test_what_is_not_annotated_is_neither_missed_nor_wrong():
    known = np.ones((2, 40, 60), np.uint8)
    known[:, 28:] = 0
    without = maps(truth())
    without["foreground"][:, :, 28:] = np.random.default_rng(0).random((1, 2, 12, 60)) > 0.5
    assert InstanceScore(min_size=20).scores(without, truth(known))["instances/f1_50"] == 1
    nothing = InstanceScore().scores(without, truth(known * 0))
    assert np.isnan(nothing["instances/f1_50"]) and nothing["instances/found"] == 0


def test_setups_with_foreground_and_contour_are_scored_unless_they_say_otherwise():
    mito = HEADS.get("foreground").from_dict({"kind": "foreground", "labels": "mito"})
    edge = HEADS.get("contour").from_dict({"kind": "contour", "labels": "mito"})
    [score] = usual_scores({"inside": mito, "edge": edge})
    assert (score.foreground, score.contour, score.labels) == ("inside", "edge", "mito")
    assert usual_scores({"inside": mito}) == ()
