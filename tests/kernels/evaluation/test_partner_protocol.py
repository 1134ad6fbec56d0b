"""Scores neuron by neuron."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.evaluation.partner_matching import match_partners
from em_blocks.kernels.evaluation.partner_protocol import Protocol, evaluate_partners
from em_blocks.kernels.synapses.filters import Duplicates, Listed, Score, SelfLinks, object_ids
from em_blocks.kernels.synapses.table import BACKGROUND, TOO_FAR, UNMAPPED, Synapses


def table(*rows, **columns):
    """Links of skeletons (pre, post), 10 um apart from each other along x unless `x` is given."""
    n = len(rows)
    x = columns.pop("x", 10_000.0 * np.arange(n))
    sites = np.stack([np.full(n, 400.0), np.full(n, 46.0), x], axis=1)
    pre, post = np.array(rows, int).reshape(-1, 2).T
    return Synapses(**{"id": np.arange(n), "pre": sites, "post": sites, "pre_skeleton": pre,
                       "post_skeleton": post, **columns})


def test_a_link_between_two_listed_neurons_counts_twice():
    truth = table((1, 2), (1, 5), (5, 6), (2, 1))
    prediction = table((1, 2), (1, 6), (5, 6), (2, 1))
    found = evaluate_partners(
        truth=truth, prediction=prediction, protocol=Protocol(400, neurons=(2, 1))
    )
    assert found.neurons == {2: (2, 0, 0), 1: (2, 1, 1)}
    assert found.score == (4, 1, 1)
    assert found.matched.tolist() == [[0, 0], [3, 3]]
    assert found.truth.id.tolist() == [0, 1, 3]  # (5, 6) is of no listed neuron


def test_without_a_list_every_link_counts_once():
    links = table((1, 2), (5, 6), (2, 1))
    found = evaluate_partners(truth=links, prediction=links, protocol=Protocol(400))
    assert found.score == (3, 0, 0) and found.neurons == {}


def test_only_inputs_or_only_outputs():
    truth, prediction = table((1, 2), (1, 5), (5, 1)), table((1, 2), (1, 6), (5, 1))
    scores = {
        links: evaluate_partners(
            truth=truth, prediction=prediction, protocol=Protocol(400, neurons=(1, 2), links=links)
        ).neurons
        for links in ("all", "inputs", "outputs")
    }
    assert scores == {
        "all": {1: (2, 1, 1), 2: (1, 0, 0)},
        "inputs": {1: (1, 0, 0), 2: (1, 0, 0)},
        "outputs": {1: (1, 1, 1), 2: (0, 0, 0)},
    }


def test_a_link_of_a_neuron_with_itself_is_once_in_its_list():
    links = table((1, 1), (1, 2))
    found = evaluate_partners(truth=links, prediction=links, protocol=Protocol(400, neurons=(1,)))
    assert found.score == (2, 0, 0)


def test_links_that_nobody_mapped_match_nothing():
    links = table((1, UNMAPPED), (1, TOO_FAR), (UNMAPPED, UNMAPPED), (1, BACKGROUND))
    found = evaluate_partners(truth=links, prediction=links, protocol=Protocol(400, neurons=(1,)))
    assert found.score == (1, 2, 2)


def test_segments_of_one_pair_may_be_redundant_in_one_list_only():
    """Both links join segments 7 and 8, the better one goes to skeleton 3."""
    truth = table((1, 2), (1, 3), x=[0.0, 90.0])
    prediction = truth.replace(score=[1, 2], pre_segment=[7, 7], post_segment=[8, 8])
    protocol = Protocol(400, neurons=(1, 2), filters=(Duplicates(250, "segment"),))
    found = evaluate_partners(truth=truth, prediction=prediction, protocol=protocol)
    assert found.neurons == {1: (1, 0, 1), 2: (1, 0, 0)}
    assert found.score == (2, 0, 1)
    # In the list of 2 the link is alone, so it is not lost on the whole.
    assert [(step.before, step.removed.tolist()) for step in found.steps] == [(2, [])]
    assert found.prediction.id.tolist() == [0, 1]


FILTERS = (Score(0.3), Listed(), SelfLinks("skeleton"), Duplicates(60, "skeleton"))


def random_links(random, n):
    return Synapses(
        id=np.arange(n), pre=random.uniform(0, 400, (n, 3)), post=random.uniform(0, 400, (n, 3)),
        score=random.random(n), pre_segment=random.integers(0, 9, n),
        post_segment=random.integers(0, 9, n),
        pre_skeleton=random.choice([UNMAPPED, TOO_FAR, 1, 2, 3], n),
        post_skeleton=random.choice([UNMAPPED, TOO_FAR, 1, 2, 3], n),
    )


@given(st.integers(0, 2**32), st.integers(0, 40), st.integers(0, 40),
       st.sampled_from(["all", "inputs", "outputs"]), st.sampled_from(["both", "pre", "post"]),
       st.sampled_from(["skeleton", "segment"]))
def test_lists_at_once_are_lists_one_by_one(seed, n_true, n_predicted, links, sites, redundant):
    """As a plain loop over the neurons, with everything done anew for each."""
    random = np.random.default_rng(seed)
    truth, prediction = random_links(random, n_true), random_links(random, n_predicted)
    protocol = Protocol(
        150, sites, neurons=(3, 1), links=links,
        filters=(*FILTERS[:3], Duplicates(60, redundant)),
    )
    found = evaluate_partners(truth=truth, prediction=prediction, protocol=protocol)
    kept_anywhere = set()
    for neuron in (3, 1):
        sides = {"all": [0, 1], "inputs": [1], "outputs": [0]}[links]
        true, kept = (
            links_.select((object_ids(links_, "skeleton")[:, sides] == neuron).any(axis=1))
            for links_ in (truth, prediction)
        )
        for filter in protocol.filters:
            kept, _ = filter(kept)
        kept_anywhere |= set(kept.id.tolist())
        n = len(match_partners(
            truth=true, prediction=kept, threshold_nm=150, sites=sites,
            truth_ids=object_ids(true, "skeleton"), prediction_ids=object_ids(kept, "skeleton"),
        ).truth)
        assert found.neurons[neuron] == (n, len(kept) - n, len(true) - n)
    assert found.score == tuple(np.sum([*found.neurons.values()], axis=0))
    assert set(found.prediction.id.tolist()) == kept_anywhere
    left = found.steps[0].before - sum(len(step.removed) for step in found.steps)
    assert left == len(kept_anywhere)


@pytest.mark.parametrize("objects", ["skeleton", None])
def test_empty_tables_have_scores(objects):
    neurons = (1,) if objects else None
    found = evaluate_partners(
        truth=Synapses.empty(), prediction=Synapses.empty(),
        protocol=Protocol(400, objects=objects, neurons=neurons, filters=FILTERS),
    )
    assert found.score == (0, 0, 0) and found.score.fscore == 1.0
