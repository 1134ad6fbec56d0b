"""The embedding head: targets, loss, scores, storage."""

import numpy as np
import pytest
import torch

from em_blocks.models.head import HEADS
from em_blocks.models.truth import Truth

SIZE = (50.0, 8.0, 8.0)


def head(**values):
    return HEADS.get("embedding").from_dict({"kind": "embedding", "channels": 2, **values})


def truth(background=True):
    ids = np.full((1, 6, 8), 2**40, np.uint64)
    ids[0, :, 4:] = 70
    if background:
        ids[0, 0] = 0
    known = np.ones(ids.shape, np.uint8)
    known[0, :, 7] = 0
    return Truth(SIZE, {"labels": ids}, {"annotated": known})


def embedding_of(truth, vectors):
    ids = truth.labels["labels"]
    values = np.zeros((2, *ids.shape), np.float32)
    for one, vector in vectors.items():
        values[:, ids == one] = np.array(vector)[:, None]
    return values


FAR = {2**40: (3.0, 0.0), 70: (0.0, 4.0)}


def test_instances_are_numbered_and_the_background_is_0():
    made = head().targets(truth())
    assert made["target"].shape == made["mask"].shape == (1, 6, 8)
    assert not made["target"][0, 0].any()
    assert (made["target"][0, 1:, :4] == 2).all() and (made["target"][0, 1:, 4:] == 1).all()
    assert not made["mask"][..., 7].any() and made["mask"][..., :7].all()
    full = head().targets(truth(background=False))
    assert set(np.unique(full["target"])) == {1, 2}


def loss(values, truth, head):
    made = head.targets(truth)
    batch = {key: torch.from_numpy(array)[None] for key, array in made.items()}
    return float(head.objective(torch.from_numpy(values)[None], batch, 0))


def test_its_loss_is_the_discriminative_one_of_the_vectors_as_they_are():
    only_push = {"loss": {"kind": "discriminative", "gamma": 0.0}}
    assert loss(embedding_of(truth(), FAR), truth(), head(**only_push)) == 0.0
    near = embedding_of(truth(), {2**40: (1.0, 0.0), 70: (0.0, 0.0)})
    assert loss(near, truth(), head(**only_push)) == pytest.approx((3 - 1) ** 2)
    assert loss(near, truth(), head(**only_push, weight=2.5)) == pytest.approx(10.0)
    unknown = embedding_of(truth(), FAR)
    unknown[:, 0, :, 7] = 1e4
    assert loss(unknown, truth(), head(**only_push)) == 0.0


def test_scores_tell_how_well_instances_are_told_apart():
    found = head().scores(embedding_of(truth(), FAR), truth())
    assert found == {"own_share": 1.0, "spread": 0.0, "gap": 5.0}
    mixed = embedding_of(truth(), FAR)
    mixed[:, 0, 1, :4] = mixed[:, 0, 1, 4:]  # four of the 20 voxels of one look like the other's
    assert head().scores(mixed, truth())["own_share"] == pytest.approx(1 - 4 / 35)
    nothing = Truth(SIZE, {"labels": np.zeros((1, 6, 8), np.uint64)}, truth().masks)
    assert all(np.isnan(value) for value in head().scores(mixed, nothing).values())
    assert head().score_names().keys() == found.keys()


def test_it_is_stored_as_it_is_and_not_averaged():
    storage = head().storage
    assert storage.dtype == "float16" and not storage.scales and set(storage.unfit) == {"uint8", "int8"}
    assert not head().has_mean


def test_pictures_of_sections_have_three_colours():
    wide = HEADS.get("embedding").from_dict({"kind": "embedding"})
    values = np.random.default_rng(0).normal(size=(16, 6, 8)).astype(np.float32)
    made = {"target": np.ones((6, 8), np.int32), "mask": np.ones((6, 8), np.uint8)}
    assert wide.channels == 16
    assert wide.mistakes(values, made, np.zeros((6, 8))).shape == (6, 8, 3)
    assert wide.picture(values).std() > 10
