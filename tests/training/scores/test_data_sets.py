"""Scores of data sets: part by part as of the whole, by metric masks, beside their mean."""

import math
import tracemalloc

import numpy as np
import pytest
import torch

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.models.truth import BACKGROUND, OBJECT, UNKNOWN
from em_blocks.nets.unet import Head, UNet
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.scores import data_sets
from em_blocks.training.scores.data_sets import DataSets
from em_blocks.training.scores.inference import predict_box, truth_of_box
from em_blocks.training.validation import Validation
from tiny_setup import tiny_config

VOXEL = [40, 4.6, 4.6]
SHAPE = (9, 40, 56)
TILE = (4, 16, 16)
CLASSES = ("mito", "membrane")


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    """Networks as small as these are faster so, above all beside other tests."""
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


def config(score="organelles/f1", **heads):
    values = tiny_config()
    values |= {"voxel_size": VOXEL, "tile_shape": TILE}
    values["heads"] = {
        "organelles": {"kind": "classes", "classes": list(CLASSES), "activation": "softmax"}
    } | heads
    values["training"]["score"] = score
    return SetupConfig.from_dict(values)


def network_of(made):
    torch.manual_seed(2)
    heads = {name: Head(head.channels, head.activation) for name, head in made.heads.items()}
    network = made.network.model_dump()
    network = {key: network[key] for key in ("features", "kernels", "pooling")}
    return UNet(**network, heads=heads).eval()


def box(data_set="one", seed=1, begin=(1, 3, 5), end=SHAPE, metric=False, instances=False):
    rng = np.random.default_rng(seed)
    labels = {
        name: rng.choice([UNKNOWN, BACKGROUND, OBJECT], SHAPE, p=[0.2, 0.5, 0.3]).astype(np.uint8)
        for name in CLASSES
    }
    if instances:
        labels["labels"] = (1 + np.indices(SHAPE)[2] // 9).astype(np.uint64)
    masks = {"metric": (rng.random(SHAPE) < 0.6).astype(np.uint8)} if metric else {}
    raw = rng.integers(0, 255, SHAPE).astype(np.uint8)
    return TrainingData(data_set, raw, labels, begin, end, 1.0, masks=masks, data_set=data_set)


def whole_scores(made, network, data, metric=False):
    """Of a box in one go, straight from the head."""
    truth = truth_of_box(data, made.voxel_size)
    if metric:
        counts = data.masks["metric"][data.box] != 0
        truth.labels.update({name: it * counts for name, it in truth.labels.items()})
    head, predicted = made.heads["organelles"], predict_box(network, data, made)
    return head.scores(predicted["organelles"], truth)


def test_a_box_is_scored_part_by_part_as_in_one_go(monkeypatch):
    made, data = config(), box()
    network = network_of(made)
    monkeypatch.setattr(data_sets, "part_shape", lambda tile: tile)
    predicted = []

    def predict(part):
        predicted.append(part)
        return predict_box(network, part, made)

    found = DataSets(made, [data]).scores("one", predict)
    assert len(predicted) == 3 * 3 * 4, "the tiles that the box touches"
    assert all(np.subtract(p.end, p.begin).max() <= max(TILE) for p in predicted)
    wanted = whole_scores(made, network, data)
    assert found.counted == {f"organelles/{key}": value for key, value in wanted.items()}
    assert 0 < wanted["mito_f1"] < 1


def test_a_head_that_needs_the_whole_box_is_given_it_and_counting_ones_count_there_too():
    made = config(shape={"kind": "lsd", "sigma_nm": 20})
    network, data = network_of(made), box(instances=True)
    predicted = []

    def predict(part):
        predicted.append((part.begin, part.end))
        return predict_box(network, part, made)

    found = DataSets(made, [data]).scores("one", predict)
    assert predicted == [(data.begin, data.end)]
    assert found.boxes[0].keys() == {"shape/mse"}
    wanted = whole_scores(made, network, data)
    assert found.counted["organelles/mito_f1"] == wanted["mito_f1"]


def test_scores_are_the_mean_of_the_data_sets_and_those_of_each_are_listed_too():
    made = config()
    network = network_of(made)
    boxes = [
        box("a", 1), box("a", 2, end=(9, 20, 20)), box("b", 3),
    ]
    entry = Validation(made, boxes).entry(network, 5)
    a, b = entry["data_sets"]
    assert (a["data_set"], b["data_set"]) == ("a", "b")
    assert entry["organelles/f1"] == pytest.approx((a["organelles/f1"] + b["organelles/f1"]) / 2)
    assert b["organelles/mito_f1"] == whole_scores(made, network, boxes[2])["mito_f1"]
    # Both boxes of a set count as one: their voxels are added, not their scores.
    head = made.heads["organelles"]
    counts = sum(
        head.tally(predict_box(network, data, made)["organelles"], truth_of_box(data, VOXEL))
        for data in boxes[:2]
    )
    assert a["organelles/mito_f1"] == head.scores_of(counts)["mito_f1"]
    assert "data_sets" not in Validation(made, boxes[2:]).entry(network, 5)


def test_scores_with_metric_masks_stand_beside_those_without():
    made, data = config(), box(metric=True)
    network = network_of(made)
    entry = Validation(made, [data, box("other", 4)]).entry(network, 1)
    masked, plain = entry["data_sets"]
    for name in ("mito_f1", "membrane_recall", "balanced_ce"):
        key = f"organelles/{name}"
        assert masked[key] == whole_scores(made, network, data)[name]
        assert masked[f"{key}_metric"] == whole_scores(made, network, data, metric=True)[name]
        assert masked[key] != masked[f"{key}_metric"]
        assert plain[key] == plain[f"{key}_metric"], "without a mask, everything counts"


def test_without_metric_masks_there_are_no_scores_of_them_and_none_can_choose():
    made = config()
    validation = Validation(made, [box()])
    assert not any(name.endswith("_metric") for name in validation.names)
    with pytest.raises(ConfigError, match=r"none of the boxes.*metric_masks.*'organelles/f1'"):
        Validation(config("organelles/f1_metric"), [box()])
    masked = Validation(config("organelles/mito_f1_metric"), [box(metric=True)])
    assert masked.choice.score == "organelles/mito_f1_metric"


def test_a_class_that_one_data_set_lacks_is_the_mean_of_the_others():
    made = config()
    network = network_of(made)
    without = box("b", 3)
    without.labels["mito"][:] = BACKGROUND
    entry = Validation(made, [box("a"), without]).entry(network, 1)
    a, b = entry["data_sets"]
    assert b["organelles/mito_f1"] is None and b["organelles/membrane_f1"] is not None
    assert entry["organelles/mito_f1"] == a["organelles/mito_f1"]
    assert not math.isclose(entry["organelles/membrane_f1"], a["organelles/membrane_f1"])


class Generated:
    """Voxels that are made where they are read."""

    chunk_shape = (8, 64, 64)

    def __init__(self, shape, top):
        self.shape, self.top, self.dtype = shape, top, np.dtype(np.uint8)

    def __getitem__(self, where):
        z, y, x = np.ogrid[where]
        return ((z + y + x) % self.top).astype(np.uint8)


class Plain(torch.nn.Module):
    """Predicts one half everywhere."""

    context = (1, 2, 2)

    def predict(self, raw, heads=None):
        inner = raw[:, :, 1:-1, 2:-2, 2:-2]
        return {"organelles": torch.full_like(inner, 0.5).repeat(1, 3, 1, 1, 1)}


def peak_bytes(made, width):
    shape = (8, 128, width)
    labels = {"mito": Generated(shape, 3), "membrane": Generated(shape, 2)}
    data = TrainingData("box", Generated(shape, 200), labels, (0, 0, 0), shape, 1.0)
    validation = Validation(made, [data])
    tracemalloc.start()
    entry = validation.entry(Plain(), 1)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert entry["organelles/mito_recall"] is not None
    return peak


def test_a_validation_of_counting_heads_needs_no_more_memory_for_a_larger_box(monkeypatch):
    made = config()
    monkeypatch.setattr(data_sets, "part_shape", lambda tile: (8, 128, 128))
    peak_bytes(made, 128)  # what is imported and made once
    assert peak_bytes(made, 16 * 128) < 1.3 * peak_bytes(made, 2 * 128)
