"""Synapses move with the volume that they were marked in, through every augmentation."""

import numpy as np
import pytest

from em_blocks.errors import ConfigError
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.loading.stream import BatchStream
from tiny_setup import tiny_config

VOXEL = np.array([40.0, 4.0, 4.0])
SHAPE = (40, 120, 120)
CONTEXT = (2, 8, 8)


def marked_volume(seed=0, spacing=(3, 12, 12), partner=(40.0, 16.0, -36.0)):
    """Boxes of labels of their own around sites in their middle; partners so many nm away."""
    rng = np.random.default_rng(seed)
    grid = np.indices([n // s for n, s in zip(SHAPE, spacing, strict=True)]).reshape(3, -1).T
    labels = np.zeros(SHAPE, np.uint64)
    for number, corner in enumerate(grid * spacing, start=1):
        labels[tuple(slice(c, c + s) for c, s in zip(corner, spacing, strict=True))] = number
    post = (grid * spacing + np.array(spacing) / 2 + rng.uniform(-0.4, 0.4, grid.shape)) * VOXEL
    pre = post + np.array(partner)
    synapses = Synapses(id=np.arange(1, len(grid) + 1), pre=pre, post=post)
    raw = np.zeros(SHAPE, np.uint8)
    return TrainingData("marked", raw, {"labels": labels}, (0, 0, 0), SHAPE, 1.0, synapses)


def config(**augment):
    values = tiny_config()
    values["voxel_size"] = VOXEL.tolist()
    values["heads"] = {
        "indicator": {"kind": "indicator", "radius_nm": 5},
        "direction_vectors": {"kind": "direction_vectors", "radius_nm": 5},
    }
    values["training"]["augment"] = {
        "control_point_nm": [400, 100, 100], "jitter_nm": [0, 10, 10], "scale": 0.1, **augment,
    }
    values["training"]["output_shape"] = [8, 32, 32]
    return SetupConfig.from_dict(values)


def samples(made, data, count=6):
    stream = BatchStream(made, [data], CONTEXT)
    return list(stream.batches(0, count))


@pytest.mark.parametrize("partner", [(40.0, 16.0, -36.0), (400.0, -160.0, 280.0)])
@pytest.mark.parametrize("elastic", [0.0, 1.0])
def test_a_marked_voxel_lies_where_its_label_was_taken_to(elastic, partner):
    data = marked_volume(partner=partner)
    found = 0
    for batch in samples(config(elastic=elastic), data):
        labels, marked = batch.samples[0].truth.labels["labels"], batch["indicator/target"][0]
        for number in np.unique(labels[labels > 0]):
            voxels = np.argwhere(labels == number)
            low, high = voxels.min(axis=0), voxels.max(axis=0)
            if (low == 0).any() or (high == np.subtract(labels.shape, 1)).any():
                continue  # cut by the sample's rim
            here = np.argwhere(marked * (labels == number))
            middle, allowed = voxels.mean(axis=0), (0.6, 2.0, 2.0)
            assert len(here), number
            assert (np.abs(here.mean(axis=0) - middle) <= allowed).all()
            found += 1
    assert found > 8


@pytest.mark.parametrize("elastic", [0.0, 1.0])
def test_vectors_lead_into_the_object_of_the_partner(elastic):
    data = marked_volume()
    # The object at the end of every vector, by the label that is there in the original.
    of_site = {int(i): p for i, p in zip(data.synapses.id, data.synapses.pre, strict=True)}
    inside = 0
    for batch in samples(config(elastic=elastic), data):
        labels, vectors = batch.samples[0].truth.labels["labels"], batch["direction_vectors/target"][0]
        for voxel in np.argwhere(batch["direction_vectors/mask"][0] > 0):
            end = np.floor(voxel + 0.5 + vectors[:, *voxel] / VOXEL).astype(int)
            if (end < 0).any() or (end >= labels.shape).any():
                continue
            partner = np.floor(of_site[int(labels[tuple(voxel)])] / VOXEL).astype(int)
            if (partner < 0).any() or (partner >= SHAPE).any():
                continue
            around = labels[tuple(slice(max(0, e - 1), e + 2) for e in end)]
            assert data.labels["labels"][tuple(partner)] in around
            inside += 1
    assert inside > 20


def test_samples_that_must_hold_a_site_do_and_the_others_are_random():
    data = marked_volume()
    few = data.synapses.select(np.array([111]))
    rare = data._replace(synapses=few)
    made = config()
    wanted = made.training.model_copy(update={"reject_probability": 1.0})
    batches = samples(made.model_copy(update={"training": wanted}), rare)
    assert all(batch.samples[0].sites == 1 for batch in batches)
    assert sum(int(batch.samples[0].sites) for batch in samples(made, rare)) < 3


def test_a_partner_beyond_the_used_box_is_known_but_never_asked_for():
    data = marked_volume()
    few = data.synapses.select(np.array([655]))
    beyond = few.replace(pre=few.pre - [4000.0, 0, 0])
    made = config()
    wanted = made.training.model_copy(update={"reject_probability": 1.0})
    made = made.model_copy(update={"training": wanted})
    for batch in samples(made, data._replace(synapses=beyond)):
        assert batch.samples[0].sites >= 1
        known = batch["direction_vectors/mask"][0] > 0
        assert (np.abs(batch["direction_vectors/target"][0][0][known]) > 3000).all()
    far = few.replace(pre=few.pre - 4000.0, post=few.post - 4000.0)
    with pytest.raises(ConfigError, match="200 held no postsynaptic site"):
        samples(made, data._replace(synapses=far), 1)


def test_the_same_iteration_gives_the_same_batch():
    data, made = marked_volume(), config(elastic=0.5)
    stream = BatchStream(made, [data], CONTEXT)
    (first,), (again,) = list(stream.batches(3, 4)), list(stream.batches(3, 4))
    assert all(np.array_equal(first[name], again[name]) for name in first)
