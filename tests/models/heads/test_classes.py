"""The head of classes: what it learns from partly known voxels, and how it is scored."""

import itertools
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.models.truth import BACKGROUND, OBJECT, UNKNOWN, Truth
from em_blocks.nets.class_losses import BalancedCE, CEDice
from em_blocks.nets.unet import ACTIVATIONS
from tiny_setup import tiny_config

VOXEL = (40.0, 4.6, 4.6)
NAMES = ("mito", "membrane", "synapse")
SHAPE = (2, 3, 4)


def head_of(**values):
    config = tiny_config()
    config["heads"] = {"organelles": {"kind": "classes", "classes": list(NAMES)} | values}
    config["training"]["score"] = "organelles/f1"
    return SetupConfig.from_dict(config).heads["organelles"]


def truth_of(*labels):
    return Truth(VOXEL, dict(zip(NAMES, (np.asarray(it, np.uint8) for it in labels), strict=True)))


def random_truth(seed):
    rng = np.random.default_rng(seed)
    return truth_of(*(rng.choice(3, SHAPE, p=[0.3, 0.4, 0.3]) for _ in NAMES))


def allowed(labels, policy):
    """Say by hand which channels one voxel may be of, from its three labels; empty: unknown."""
    own = [number for number, label in enumerate(labels, start=1) if label == OBJECT]
    if len(own) == 1 or (own and policy == "first"):
        return {own[0]}
    if own:
        return {0} if policy == "background" else set()
    unknown = {number for number, label in enumerate(labels, start=1) if label == UNKNOWN}
    return set() if len(unknown) == len(labels) else {0, *unknown}


def test_sigmoid_has_a_channel_for_each_class_known_on_its_own():
    head = head_of()
    assert (head.channels, head.channel_names) == (3, NAMES)
    assert head.needs == {"labels/mito", "labels/membrane", "labels/synapse"}
    truth = random_truth(1)
    made = head.targets(truth)
    for channel, name in enumerate(NAMES):
        assert (made["target"][channel] == (truth.labels[name] == OBJECT)).all()
        assert (made["mask"][channel] == (truth.labels[name] != UNKNOWN)).all()


@pytest.mark.parametrize("policy", ["background", "first", "unknown"])
def test_softmax_says_of_which_channels_a_voxel_may_be(policy):
    head = head_of(activation="softmax", overlap=policy)
    assert (head.channels, head.channel_names) == (4, ("background", *NAMES))
    combinations = np.array(list(itertools.product(range(3), repeat=3)), np.uint8).T
    made = head.targets(truth_of(*combinations.reshape(3, 3, 3, 3)))
    targets, masks = made["target"].reshape(4, -1).T, made["mask"].ravel()
    for labels, target, mask in zip(combinations.T, targets, masks, strict=True):
        wanted = allowed(labels, policy)
        assert mask == bool(wanted), labels
        assert set(np.flatnonzero(target)) == (wanted or {0, 1, 2, 3}), labels


def test_a_voxel_of_one_unknown_class_counts_by_the_likelihood_of_what_it_may_be():
    head = head_of(activation="softmax")
    truth = truth_of([[[BACKGROUND]]], [[[UNKNOWN]]], [[[BACKGROUND]]])
    batch = {key: torch.from_numpy(values)[None] for key, values in head.targets(truth).items()}
    logits = torch.log(torch.tensor([0.1, 0.2, 0.3, 0.4])).reshape(1, 4, 1, 1, 1)
    assert float(head.objective(logits, batch, 0)) == pytest.approx(-math.log(0.1 + 0.3), rel=1e-6)


def probabilities(head, seed):
    logits = np.random.default_rng(seed).normal(0, 2, (1, head.channels, *SHAPE))
    return ACTIVATIONS[head.activation](torch.from_numpy(logits)).numpy()[0].astype(np.float32)


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_scores_of_a_class_are_those_of_the_voxels_where_it_is_certain(activation):
    head, truth = head_of(activation=activation), random_truth(3)
    predicted = probabilities(head, 4)
    found = head.scores(predicted, truth)
    assert list(found) == list(head.score_names())
    scores = []
    for channel, name in enumerate(NAMES):
        hits = called = positive = 0
        for voxel in np.ndindex(SHAPE):
            labels = [truth.labels[other][voxel] for other in NAMES]
            if activation == "sigmoid":
                certain, own = labels[channel] != UNKNOWN, labels[channel] == OBJECT
            else:
                may = allowed(labels, "background")
                certain = may and (may == {channel + 1} or channel + 1 not in may)
                own = may == {channel + 1}
            if certain:
                says = predicted[(channel + (activation == "softmax"), *voxel)] >= 0.5
                hits, called, positive = hits + (says and own), called + says, positive + own
        scores.append(2 * hits / (called + positive))
        assert found[f"{name}_f1"] == pytest.approx(scores[-1])
        assert found[f"{name}_recall"] == pytest.approx(hits / positive)
        assert found[f"{name}_best_f1"] >= found[f"{name}_f1"]
    assert found["f1"] == pytest.approx(np.mean(scores))


@pytest.mark.parametrize("activation", ["sigmoid", "softmax"])
def test_a_perfect_prediction_scores_perfectly(activation):
    head, truth = head_of(activation=activation), random_truth(5)
    made = head.targets(truth)
    found = head.scores(made["target"].astype(np.float32), truth)
    assert found["f1"] == found["jaccard"] == found["synapse_precision"] == 1
    assert found["balanced_ce"] == pytest.approx(0, abs=1e-5)
    assert head.scores(1 - made["target"].astype(np.float32), truth)["f1"] == 0


LABELS = arrays(np.uint8, (3, *SHAPE), elements=st.integers(0, 2))


@settings(max_examples=40, deadline=None)
@given(LABELS, st.integers(0, 1000), st.sampled_from(["sigmoid", "softmax"]))
def test_what_is_unknown_changes_neither_loss_nor_scores(labels, seed, activation):
    head, truth = head_of(activation=activation), truth_of(*labels)
    made = {key: torch.from_numpy(values)[None] for key, values in head.targets(truth).items()}
    logits = torch.from_numpy(np.random.default_rng(seed).normal(0, 2, (1, head.channels, *SHAPE)))
    unknown = made["mask"] == 0
    other = torch.where(unknown if unknown.ndim == 5 else unknown[:, None], -logits, logits)
    assert head.objective(other, made, 0) == head.objective(logits, made, 0)
    activate = ACTIVATIONS[activation]
    one, two = (
        head.tally(activate(values)[0].numpy().astype(np.float32), truth)
        for values in (logits, other)
    )
    assert (one == two).all()


@settings(max_examples=40, deadline=None)
@given(LABELS, st.integers(0, 1000), st.permutations(NAMES), st.sampled_from(["sigmoid", "softmax"]))
def test_another_order_of_classes_is_another_order_of_channels(labels, seed, order, activation):
    head, other = head_of(activation=activation), head_of(activation=activation, classes=order)
    truth, predicted = truth_of(*labels), probabilities(head, seed)
    moved = predicted[[head.channel_names.index(name) for name in other.channel_names]]
    one, two = head.scores(predicted, truth), other.scores(moved, truth)
    assert {key: two[key] for key in one} == pytest.approx(one, nan_ok=True)


@settings(max_examples=20, deadline=None)
@given(LABELS, st.integers(0, 1000), st.integers(1, SHAPE[2] - 1))
def test_counts_of_two_parts_add_up_to_those_of_the_whole(labels, seed, cut):
    head = head_of(activation="softmax")
    predicted = probabilities(head, seed)
    parts = [
        head.tally(predicted[..., part], truth_of(*labels[..., part]))
        for part in (slice(None, cut), slice(cut, None))
    ]
    assert (sum(parts) == head.tally(predicted, truth_of(*labels))).all()


def test_a_class_that_does_not_occur_has_no_scores_and_is_left_out_of_the_mean():
    head = head_of()
    only = np.full(SHAPE, BACKGROUND)
    some = only.copy()
    some[0] = OBJECT
    truth = truth_of(some, only, np.full(SHAPE, UNKNOWN))
    found = head.scores(np.ones((3, *SHAPE), np.float32), truth)
    assert math.isnan(found["membrane_f1"]) and math.isnan(found["synapse_f1"])
    assert found["f1"] == found["mito_f1"] == pytest.approx(2 / 3)


def test_predictions_are_stored_with_the_names_of_their_channels():
    assert head_of().storage.attributes == {"classes": list(NAMES)}
    stored = head_of(activation="softmax").storage
    assert stored.attributes == {"classes": ["background", *NAMES]} and stored.scales["uint8"] == 255


def test_pictures_show_each_class_in_a_colour_of_its_own_over_raw():
    head = head_of(activation="softmax")
    values = np.zeros((4, 2, 2))
    values[0, 0], values[1, 1, 0], values[3, 1, 1] = 1, 1, 1
    grey = np.array([[0.0, 1.0], [0.5, 0.5]])
    shown = head.overlay(values, grey)
    assert shown[0].tolist() == [[0, 0, 0], [255, 255, 255]], "background shows raw"
    colours = {tuple(shown[1, x]) for x in (0, 1)}
    assert len(colours) == 2 and (128, 128, 128) not in colours
    assert head.picture(values).shape == (2, 2, 3)
    assert (head_of().overlay(values[1:], grey) == shown).all()


def test_the_loss_is_of_the_config():
    assert head_of().default_loss == BalancedCE()
    head = head_of(loss={"kind": "ce_dice", "dice": 0.5, "class_weights": [1, 2, 3]})
    assert head.loss == CEDice(dice=0.5, class_weights=(1, 2, 3))
    assert type(head).from_dict(head.model_dump(mode="json")) == head


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"channels": 4}, r"channels is 4, but sigmoid of 3 classes has 3: mito, membrane, synapse"),
        ({"classes": ["mito", "mito"]}, r"each needs a name of its own"),
        ({"classes": ["background"], "activation": "softmax"}, r"each needs a name of its own"),
        ({"classes": []}, r"classes"),
        ({"classes": ["a b"]}, r"classes"),
        ({"overlap": "first"}, r"classes may overlap with the activation sigmoid"),
        ({"loss": {"kind": "balanced_ce", "class_weights": [1, 2]}}, r"has 2 entries.*mito"),
        ({"activation": "tanh"}, r"activation"),
    ],
)
def test_what_cannot_be_meant_is_refused(values, message):
    with pytest.raises(ConfigError, match=message):
        head_of(**values)
