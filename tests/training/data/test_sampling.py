"""Samples are drawn until they hold what is demanded, by the seed alone."""

from itertools import count

import numpy as np
import pytest

from em_blocks.errors import ConfigError
from em_blocks.models.sampling import Sampling
from em_blocks.models.truth import Truth
from em_blocks.training.data.samples import MAX_ATTEMPTS, Sample, SampleBatch, draw_sample
from em_blocks.training.data.sampling import Demand

SHAPE = (4, 5, 5)


def sample(labelled=100, sites=0, mask=100, **others):
    """A sample whose first voxels are labelled, and lie in the mask."""
    first = np.arange(100).reshape(SHAPE)
    labels = {"labels": (first < labelled).astype("u8")}
    labels |= {name: (first >= 100 - n).astype("u1") for name, n in others.items()}
    truth = Truth((40, 4, 4), labels, {"tissue": (first < mask).astype("u1")})
    return Sample(np.zeros(SHAPE, "f4"), truth, {}, sites)


def accepts(sampling, made, entropy=(1, 2, 3), iteration=0):
    return Demand(Sampling(**sampling), iteration, entropy).accepts(made)


@pytest.mark.parametrize(
    ("sampling", "enough", "too_few"),
    [
        ({"labelled": 0.5}, {"labelled": 50}, {"labelled": 49}),
        ({"masked": {"tissue": 0.75}}, {"mask": 75}, {"mask": 74}),
        ({"foreground": [{"label": "mito", "fraction": 0.02}]}, {"mito": 2}, {"mito": 1}),
        ({"foreground": [{"fraction": 0.6}]}, {"labelled": 60}, {"labelled": 59}),
        ({"foreground": [{"label": "mito", "voxels": 7}]}, {"mito": 7}, {"mito": 6}),
        ({"sites": 1.0}, {"sites": 1}, {"sites": 0}),
    ],
)
def test_a_sample_is_used_if_it_holds_as_much_as_is_demanded(sampling, enough, too_few):
    assert accepts(sampling, sample(**enough))
    assert not accepts(sampling, sample(**too_few))


def test_annotated_background_is_labelled():
    made = sample(labelled=10)
    made.truth.masks["annotated"] = (np.arange(100).reshape(SHAPE) >= 40).astype("u1")
    assert accepts({"labelled": 0.7}, made) and not accepts({"labelled": 0.71}, made)


@pytest.mark.parametrize("values", [{}, {"fraction": 0.1, "voxels": 3}])
def test_a_foreground_is_demanded_by_one_measure(values):
    with pytest.raises(ConfigError, match="either `fraction` or `voxels`"):
        Sampling(foreground=[values])


def test_a_voxel_is_labelled_if_it_is_in_any_of_the_label_volumes():
    assert accepts({"labelled": 0.7}, sample(labelled=40, mito=30))
    assert not accepts({"labelled": 0.71}, sample(labelled=40, mito=30))


def test_of_a_class_the_voxels_of_the_object_count_and_of_labelled_the_known_ones():
    states = np.repeat([0, 1, 2], [30, 60, 10]).astype("u1").reshape(SHAPE)
    made = Sample(np.zeros(SHAPE, "f4"), Truth((40, 4, 4), {"mito": states}), {})
    wanted = Sampling(labelled=0.7, foreground=[{"label": "mito", "fraction": 0.1}])
    assert Demand(wanted, 0, (1,), classes={"mito"}).accepts(made)
    for more in ({"labelled": 0.71}, {"foreground": [{"label": "mito", "fraction": 0.11}]}):
        stricter = Sampling(**wanted.model_dump() | more)
        assert not Demand(stricter, 0, (1,), classes={"mito"}).accepts(made)


def test_shares_count_of_what_the_smallest_region_can_fill():
    wanted = Sampling(
        labelled=0.8, masked={"tissue": 0.4}, foreground=[{"label": "mito", "fraction": 0.2}]
    )
    enough = {"labelled": 20, "mask": 10, "mito": 5}
    assert Demand(wanted, 0, (1,), room=0.25).accepts(sample(**enough))
    for less in ({"labelled": 14}, {"mask": 9}, {"mito": 4}):
        assert not Demand(wanted, 0, (1,), room=0.25).accepts(sample(**enough | less))


def test_all_demands_hold_at_once():
    both = {"labelled": 0.5, "foreground": [{"label": "mito", "fraction": 0.1}], "sites": 1.0}
    full = {"labelled": 50, "mito": 10, "sites": 1}
    assert accepts(both, sample(**full))
    for less in ({"labelled": 39}, {"mito": 9}, {"sites": 0}):
        assert not accepts(both, sample(**full | less))


@pytest.mark.parametrize("kind", ["sites", "foreground"])
def test_the_share_of_samples_that_must_hold_something_is_its_probability(kind):
    def sampling(probability):
        if kind == "sites":
            return {"sites": probability, "labelled": 0}
        wanted = {"label": "mito", "fraction": 0.1, "probability": probability}
        return {"foreground": [wanted], "labelled": 0}

    empty, full = sample(mito=0), sample(mito=10, sites=3)
    refused = [not accepts(sampling(0.6), empty, (1, i, 0)) for i in range(400)]
    assert 0.53 < np.mean(refused) < 0.67
    assert refused == [not accepts(sampling(0.6), empty, (1, i, 0)) for i in range(400)]
    assert all(accepts(sampling(0.6), full, (1, i, 0)) for i in range(50))
    rising = sampling([[0, 0.0], [10, 1.0]])
    assert all(accepts(rising, empty, (1, i, 0), iteration=0) for i in range(50))
    assert not any(accepts(rising, empty, (1, i, 0), iteration=10) for i in range(50))


def test_two_demands_are_decided_independently():
    wanted = [{"label": name, "fraction": 0.1, "probability": 0.5} for name in ("labels", "mito")]
    demands = [Demand(Sampling(foreground=wanted, sites=0.5), 0, (1, i, 0)) for i in range(400)]
    kinds = [(d.site, *(w.label for w in d.foreground)) for d in demands]
    shares = [kinds.count(kind) / 400 for kind in set(kinds)]
    assert len(shares) == 8 and min(shares) > 0.07 and max(shares) < 0.19


def test_a_rejected_sample_is_drawn_with_another_seed_and_the_same_ones_again():
    def drawn():
        seeds, number = [], count(1)
        found = draw_sample(
            lambda seed: seeds.append(seed) or sample(sites=next(number)),
            lambda made: made.sites == 7, (1, 2, 3),
        )
        return found.sites, seeds

    (sites, seeds), again = drawn(), drawn()
    assert sites == 7 and len(set(seeds)) == 7 and again == (sites, seeds)


def test_an_endless_search_ends_with_what_was_refused():
    demand = Demand(Sampling(labelled=0.5, sites=1.0), 0, (1, 2, 3))
    poor = iter([sample(labelled=49)] * 3 + [sample()] * MAX_ATTEMPTS)
    assert draw_sample(lambda seed: next(poor), demand.accepts, (1, 2, 3)) is None
    with pytest.raises(
        ConfigError, match=r"200 .*: 197 held no postsynaptic site, 3 were labelled in less than 50%"
    ):
        raise demand.refusal()


def test_a_batch_is_the_arrays_of_its_samples():
    samples = [
        Sample(np.full((6, 7, 8), i, "f4"), sample().truth, {"a/target": np.full((3, 4, 5, 5), i)})
        for i in range(3)
    ]
    batch = SampleBatch(samples)
    assert batch.samples == tuple(samples)
    assert {name: values.shape for name, values in batch.items()} == {
        "raw": (3, 1, 6, 7, 8), "a/target": (3, 3, 4, 5, 5),
    }
    assert batch["raw"][:, 0, 0, 0, 0].tolist() == batch["a/target"][:, 0, 0, 0, 0].tolist() == [0, 1, 2]
