"""Samples of regions: all of a region is output, and context may lie beyond it."""

import random

import gunpowder as gp
import numpy as np
import pytest

from em_blocks.geometry import Box
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.locations import RegionLocation
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.loading.stream import BatchStream
from tiny_setup import tiny_config

STILL = {"contrast": 0, "brightness": 0, "noise": 0, "blur": 0, "elastic": 0.0}
CONTEXT = (1, 2, 2)


def config(augment=None, **training):
    values = tiny_config()
    values["voxel_size"] = [40, 4.6, 4.6]
    values["training"] |= training
    values["training"]["augment"] |= STILL | (augment or {})
    return SetupConfig.from_dict(values)


def crop(begin, end, shape=(9, 40, 40)):
    """A source of which every voxel has an id of its own; raw is the id's last byte."""
    labels = 1 + np.arange(np.prod(shape), dtype=np.uint64).reshape(shape)
    return TrainingData(
        "crop", (labels % 251).astype(np.uint8), {"labels": labels}, begin, end, 1.0,
        classes=frozenset({"labels"}),
    )


def samples(data, count=60, made=None, begin=0):
    stream = BatchStream(made or config(), data, CONTEXT)
    return [b.samples[0] for b in stream.batches(begin, begin + count)]


def test_all_of_a_region_is_output_and_nothing_else():
    data = crop((2, 5, 9), (7, 23, 26))  # 12 places of the output
    seen = np.unique([s.truth.labels["labels"] for s in samples([data], 100)])
    assert set(seen) == set(data.labels["labels"][data.box].ravel())


@pytest.mark.parametrize("end", [(1, 40, 40), (3, 9, 7), (2, 17, 40)])
def test_a_region_smaller_than_a_sample_lies_wholly_in_each(end):
    data = crop((0, 0, 0), end)
    wanted = np.unique(data.labels["labels"][data.box])
    places = set()
    for sample in samples([data], 12):
        labels = sample.truth.labels["labels"]
        inside = np.minimum(labels.shape, end)
        assert np.isin(labels[labels > 0], wanted).all()
        assert np.count_nonzero(labels) == np.prod(inside)
        places.add(tuple(np.argwhere(labels)[0]))
    assert len(places) > 1


def test_raw_around_a_region_is_what_is_there_and_mirrored_where_it_ends():
    data = crop((0, 8, 24), (9, 24, 40))
    endless = np.pad(data.raw, 8, mode="reflect")
    for sample in samples([data], 10):
        labels, raw = sample.truth.labels["labels"], np.rint((sample.raw + 1) / 0.01)
        corners = [np.unravel_index(int(labels.flat[i]) - 1, data.raw.shape) for i in (0, -1)]
        low = np.min(corners, axis=0) + 8 - CONTEXT
        around = endless[tuple(slice(c, c + n) for c, n in zip(low, raw.shape, strict=True))]
        np.testing.assert_array_equal(np.sort(raw, axis=None), np.sort(around, axis=None))


def test_deformed_samples_of_a_small_region_know_only_its_labels():
    data, deformed = crop((2, 5, 9), (5, 25, 29)), {"elastic": 1.0, "scale": 0.2}
    wanted = data.labels["labels"][data.box]
    found = samples([data], 20, config(deformed))
    for sample in found:
        labels = sample.truth.labels["labels"]
        assert np.isin(labels[labels > 0], wanted).all()
    shares = [np.mean(s.truth.labels["labels"] > 0) for s in found]
    assert np.mean(shares) > 0.5


def test_places_are_a_function_of_the_seed():
    one, two, other = (
        samples([crop((1, 1, 1), (4, 9, 9))], 3, config(seed=seed)) for seed in (1, 1, 2)
    )
    for a, b in zip(one, two, strict=True):
        np.testing.assert_array_equal(a.raw, b.raw)
    assert any(not np.array_equal(a.raw, b.raw) for a, b in zip(one, other, strict=True))


def test_boxes_of_labels_that_hold_a_sample_are_cut_as_ever_and_smaller_ones_as_regions():
    large = crop((0, 0, 0), (9, 40, 40))._replace(classes=frozenset())

    def output(data):
        ids = np.unique([sample.truth.labels["labels"] for sample in samples([data], 30)])
        return np.array(np.unravel_index(ids.astype(int) - 1, (9, 40, 40)))

    places = output(large)  # context lies in the box: its rim is never output
    assert (places.min(axis=1) >= CONTEXT).all()
    assert (places.max(axis=1) < np.subtract((9, 40, 40), CONTEXT)).all()
    assert output(large._replace(end=(5, 40, 40)))[0].tolist()[0] == 0


def test_samples_that_must_hold_a_site_are_cut_around_one_of_the_region():
    values = tiny_config()
    values["voxel_size"] = [40, 4, 4]
    values["heads"] = {"indicator": {"kind": "indicator", "radius_nm": 12}}
    values["training"] |= {"sampling": {"sites": 1.0}, "output_shape": [4, 8, 8]}
    values["training"]["augment"] |= STILL
    at = np.array([[2.5, 20.5, 30.5], [8.5, 39.5, 2.5]]) * [40, 4, 4]
    data = crop((0, 10, 20), (5, 30, 36))._replace(
        classes=frozenset(), synapses=Synapses(id=np.array([1, 2]), pre=at - 8.0, post=at)
    )
    for sample in samples([data], 10, SetupConfig.from_dict(values)):
        assert sample.sites == 1 and len(sample.truth.points["post"]) == 1
        voxel = (sample.truth.points["post"][0] / [40, 4, 4]).astype(int)
        assert sample.truth.labels["labels"][tuple(voxel)] == 1 + 2 * 1600 + 20 * 40 + 30


def begins(region, output_shape, sites=(), count=3000):
    """First voxels of the output that are chosen, near a site where there are any."""
    sites = np.array(sites, float).reshape(-1, 3)
    chosen = RegionLocation(region, gp.Coordinate(400, 46, 46), output_shape, sites)
    chosen.p_nonempty = 1.0
    random.seed(3)
    return np.array([chosen._begin() for _ in range(count)])


def test_outputs_lie_in_the_region_or_hold_all_of_it_at_every_place_that_does():
    found = begins(Box.between((2, 10, 5), (5, 20, 9)), (1, 4, 7))
    assert found.min(axis=0).tolist() == [2, 10, 2] and found.max(axis=0).tolist() == [4, 16, 5]
    assert len(np.unique(found, axis=0)) == 3 * 7 * 4


def test_outputs_around_a_site_hold_it_at_every_place_that_does():
    region = Box.between((2, 10, 5), (8, 20, 9))
    found = begins(region, (2, 4, 7), [[3.5, 19.9, 6.0], [9.0, 12.0, 6.0]])  # one is outside
    assert found.min(axis=0).tolist() == [2, 16, 2] and found.max(axis=0).tolist() == [3, 16, 5]
