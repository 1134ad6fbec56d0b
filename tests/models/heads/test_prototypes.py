"""The head of nearest prototypes beside the one that weighs them."""

import json

import numpy as np
import pytest
import torch

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.models.head import HEADS
from em_blocks.models.truth import Truth
from tiny_setup import tiny_config

HEADS_OF_BOTH = {
    "foreground": {"kind": "foreground"}, "nearest": {"kind": "prototypes", "embedding": 5},
}


def config(heads, **training):
    values = tiny_config() | {"heads": heads}
    values["training"] |= {"score": "nearest/f1", **training}
    return values


def test_the_network_has_an_embedding_and_prototypes_of_it():
    setup = SetupConfig.from_dict(config(HEADS_OF_BOTH))
    net = setup.network.build(setup.heads)
    assert net.heads["nearest"].out_channels == 5
    assert net.prototypes["nearest"].sums.shape == (2, 5)
    raw = torch.rand(1, 1, *net.shapes.input_shape((2, 8, 8)))
    net.train()(raw)["nearest"].sum().backward()
    assert net.heads["foreground"].weight.grad.abs().max() > 0
    with torch.inference_mode():
        found = net.eval().predict(raw)
    assert {name: tuple(v.shape) for name, v in found.items()} == {
        "foreground": (1, 1, 2, 8, 8), "nearest": (1, 1, 2, 8, 8),
    }
    torch.testing.assert_close(found["nearest"], torch.sigmoid(net(raw)["nearest"]))


def test_its_targets_and_scores_are_those_of_a_foreground():
    ids = np.zeros((1, 4, 4), np.uint64)
    ids[0, 1:3] = 9
    truth = Truth((8.0, 8.0, 8.0), {"labels": ids}, {"annotated": np.ones(ids.shape, np.uint8)})
    ours, theirs = (HEADS.get(kind).from_dict({"kind": kind}) for kind in ("prototypes", "foreground"))
    np.testing.assert_array_equal(ours.targets(truth)["target"], theirs.targets(truth)["target"])
    assert ours.scores((ids[None] > 0).astype(np.float32), truth)["f1"] == 1.0


@pytest.mark.parametrize(
    ("prior", "others"),
    [
        ("mask", {"foreground": {"kind": "foreground"}}),
        ("nearest", {"foreground": {"kind": "foreground"}}),
        ("embedding", {"embedding": {"kind": "embedding"}}),
    ],
    ids=["no head", "itself", "no probability"],
)
def test_a_prior_that_is_no_foreground_is_refused(prior, others):
    heads = others | {"nearest": {"kind": "prototypes", "prior": prior}}
    with pytest.raises(ConfigError, match="must be a head of one channel with the activation sigmoid"):
        SetupConfig.from_dict(config(heads))


def test_the_default_prior_is_the_head_foreground():
    head = SetupConfig.from_dict(config(HEADS_OF_BOTH)).heads["nearest"]
    assert head.nearest == (5, "foreground")
    assert json.loads(head.model_dump_json())["prior"] == "foreground"
