"""Scores of the validation: which there are, and what happens where there is none."""

import numpy as np
import pytest
import torch
from torch import nn

from em_blocks.errors import ConfigError
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.scores.selection import UNDEFINED
from em_blocks.training.validation import Validation
from tiny_setup import tiny_config

VOXEL = [40, 4.6, 4.6]
SHAPE = (8, 24, 24)


class Fixed(nn.Module):
    """Predicts the same value everywhere; nan in the heads `broken`."""

    context = (0, 0, 0)

    def __init__(self, heads, broken=()):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(1))
        self.heads, self.broken = heads, broken

    def check_tile(self, shape):
        pass

    def predict(self, raw, heads=None):
        return {
            name: torch.full(
                (len(raw), head.channels, *raw.shape[2:]),
                torch.nan if name in self.broken else 0.4,
            )
            for name, head in self.heads.items()
        }


def config(score="affinities/cut_ap", **heads):
    values = tiny_config()
    values |= {"voxel_size": VOXEL, "tile_shape": SHAPE}
    values["heads"] |= heads
    values["training"]["score"] = score
    return SetupConfig.from_dict(values)


def box(labels=None, synapses=None):
    if labels is None:
        z, y, x = np.indices(SHAPE)
        labels = 1 + x // 8 + 3 * (z // 4) + 6 * (y // 12)
    raw = np.random.default_rng(1).integers(0, 255, SHAPE).astype(np.uint8)
    labels = {"labels": labels.astype(np.uint64)}
    return TrainingData("box", raw, labels, (1, 2, 4), SHAPE, 1.0, synapses)


def validation(made, *boxes):
    return Validation(made, boxes or [box()])


def test_an_entry_has_its_iteration_and_every_score():
    made = config(shape={"kind": "lsd", "sigma_nm": 40})
    entry = validation(made).entry(Fixed(made.heads), 7)
    assert entry["iteration"] == 7 and UNDEFINED not in entry
    assert entry.keys() >= {"affinities/cut_ap", "affinities/voi_split", "shape/mse"}
    assert all(value is not None for value in entry.values())


def test_scores_are_the_mean_of_the_boxes_that_have_them():
    made = config()
    labels = np.ones(SHAPE)
    labels[:, :12] = 2
    boxes = box(), box(labels), box(np.ones(SHAPE))  # the last has no pair of different objects
    network = Fixed(made.heads)
    one, two = (validation(made, b).entry(network, 1)["affinities/cut_ap"] for b in boxes[:2])
    assert one != two
    entry = validation(made, *boxes).entry(network, 1)
    assert entry["affinities/cut_ap"] == pytest.approx((one + two) / 2)


def test_a_score_without_value_is_none_and_says_why():
    made = config(score="affinities/cut_f1")
    entry = validation(made, box(np.ones(SHAPE))).entry(Fixed(made.heads), 1)
    assert entry["affinities/cut_ap"] is None
    assert "nothing there is known" in entry[UNDEFINED]["affinities/cut_ap"]
    assert entry["affinities/cut_f1"] is not None


def test_a_network_whose_output_is_not_finite_has_no_score_and_does_not_end_the_training():
    made = config(shape={"kind": "lsd", "sigma_nm": 40})
    checked = validation(made, box(), box())
    entry = checked.entry(Fixed(made.heads, broken=["affinities"]), 3)
    sound = checked.entry(Fixed(made.heads), 3)
    assert entry.keys() - {UNDEFINED} == sound.keys()
    assert all(entry[key] is None for key in checked.names)
    assert set(entry[UNDEFINED]) == set(checked.names)
    assert "NaN or infinity" in entry[UNDEFINED]["affinities/cut_ap"]


@pytest.mark.parametrize("score", ["affinities/cut_AP", "cut_ap", "lsd/mse", "", "iteration"])
def test_a_score_that_no_head_gives_is_refused_with_those_that_there_are(score):
    with pytest.raises(ConfigError, match=r"affinities/cut_ap.*affinities/voi_split"):
        validation(config(score))


def test_a_score_that_the_boxes_cannot_give_is_refused_with_those_that_they_can():
    with pytest.raises(ConfigError, match=r"has no value in the boxes.*\(box\).*affinities/cut_f1"):
        validation(config(), box(np.ones(SHAPE)))


SYNAPSE_HEADS = {
    "indicator": {"kind": "indicator", "radius_nm": 10},
    "vectors": {"kind": "direction_vectors", "radius_nm": 20},
}


@pytest.mark.parametrize("score", ["vectors/mean_length_nm", "synapses/threshold"])
def test_what_is_neither_good_nor_bad_chooses_no_checkpoint(score):
    post = np.array([[4.5, 12.5, 12.5]]) * VOXEL
    data = box(synapses=Synapses(id=[1], post=post, pre=post + 20))
    with pytest.raises(ConfigError, match=r"synapses/fscore.*vectors/minus_error_nm"):
        validation(config(score, **SYNAPSE_HEADS), data)
    found = validation(config("synapses/fscore", **SYNAPSE_HEADS), data)
    assert found.entry(Fixed(found.config.heads, ["indicator"]), 1)["synapses/fscore"] is None
