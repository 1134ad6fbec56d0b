"""Scores of partners neuron by neuron: the links of a few well-known neurons, each list by itself.

Truth is rarely complete for a whole volume, but often for some neurons. So only links of those
count, and a neuron's list holds all links with it at one of the sites: a link between two of the
neurons is in both lists, and counts twice.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import numpy as np

from em_blocks.kernels.evaluation.partner_matching import PartnerScore, Sites, match_partners
from em_blocks.kernels.synapses.filters import (
    Duplicates,
    Filter,
    Objects,
    Step,
    apply_filters,
    object_ids,
)
from em_blocks.kernels.synapses.table import Synapses


@dataclass(frozen=True)
class Protocol:
    """How predicted partners are compared with true ones.

    Attributes
    ----------
    threshold_nm, sites
        As for `match_partners`.
    objects : "supervoxel", "segment", "skeleton" or None
        Ids that must agree at both sites, and that `neurons` are of; None: positions only.
    filters : filters
        Of the prediction, in their order. Truth is taken as it is.
    neurons : ids or None
        Whose links are scored, list by list; None: all links, each once.
    links : "all", "inputs" or "outputs"
        Links of a neuron: those with it at any site, at the postsynaptic, at the presynaptic one.

    References
    ----------
    Synful's evaluation in the full adult fly brain, doi:10.1038/s41592-021-01183-7.
    """

    threshold_nm: float
    sites: Sites = "both"
    objects: Objects | None = "skeleton"
    filters: tuple[Filter, ...] = ()
    neurons: tuple[int, ...] | None = None
    links: Literal["all", "inputs", "outputs"] = "all"

    @property
    def lists_differ(self) -> bool:
        """Tell whether a filter may keep a link in the list of one neuron and remove it in another's.

        Links that join the same two objects are in the same lists if these are what the neurons
        are; segments of one pair may be in lists of several skeletons.
        """
        return self.neurons is not None and any(
            isinstance(filter, Duplicates) and filter.objects != self.objects
            for filter in self.filters
        )

    def touching(self, synapses: Synapses, neurons: Iterable[int]) -> np.ndarray:
        """(n, 2) bool: whether the link is in the list of its presynaptic, postsynaptic object."""
        found = np.isin(_ids(synapses, self), np.asarray(list(neurons), np.int64))
        if self.links == "inputs":
            found[:, 0] = False
        if self.links == "outputs":
            found[:, 1] = False
        return found

    def listed(self, synapses: Synapses, neurons: Iterable[int]) -> Synapses:
        """Links in the list of any of the neurons."""
        return synapses.select(np.any(self.touching(synapses, neurons), axis=1))


class Outcome(NamedTuple):
    """What became of true and predicted links."""

    score: PartnerScore  # over all lists
    neurons: dict[int, PartnerScore]  # list by list; empty without neurons
    matched: np.ndarray  # (k, 2) ids of a true and a predicted link, each pair once
    truth: Synapses  # links that were compared
    prediction: Synapses  # links that were compared, after the filters
    steps: list[Step]  # of links that are in any list


def _ids(synapses: Synapses, protocol: Protocol) -> np.ndarray:
    """Objects at both sites, (n, 2), of the kind that the protocol compares."""
    if protocol.objects is None:
        raise ValueError("neurons are lists of objects, but the protocol compares positions only")
    return object_ids(synapses, protocol.objects)


def evaluate_partners(*, truth: Synapses, prediction: Synapses, protocol: Protocol) -> Outcome:
    """Score predicted partners by a protocol."""
    neurons = protocol.neurons
    if neurons is None:
        return _compare(truth, prediction, protocol)
    if protocol.lists_differ:
        return _list_by_list(truth, prediction, protocol, neurons)
    outcome = _compare(
        protocol.listed(truth, neurons), protocol.listed(prediction, neurons), protocol
    )
    # Links of equal objects are in equal lists, so what holds for all holds list by list.
    scores = _by_neuron(outcome, protocol, neurons)
    return outcome._replace(score=_total(scores.values()), neurons=scores)


def _compare(truth: Synapses, prediction: Synapses, protocol: Protocol) -> Outcome:
    """Filter and match, every link once."""
    kept, steps = apply_filters(prediction, protocol.filters)
    ids = [None, None] if protocol.objects is None else [
        object_ids(links, protocol.objects) for links in (truth, kept)
    ]
    found = match_partners(
        truth=truth, prediction=kept, threshold_nm=protocol.threshold_nm, sites=protocol.sites,
        truth_ids=ids[0], prediction_ids=ids[1],
    )
    n = len(found.truth)
    matched = np.stack([truth.id[found.truth], kept.id[found.prediction]], axis=1)
    return Outcome(
        PartnerScore(n, len(kept) - n, len(truth) - n), {}, matched, truth, kept, steps
    )


def _by_neuron(
    outcome: Outcome, protocol: Protocol, neurons: tuple[int, ...]
) -> dict[int, PartnerScore]:
    is_matched = np.isin(outcome.truth.id, outcome.matched[:, 0])
    counts = [
        _links_of(links, protocol, neurons)
        for links in (outcome.truth.select(is_matched), outcome.prediction, outcome.truth)
    ]
    return {
        neuron: PartnerScore(tp, n_predicted - tp, n_true - tp)
        for neuron, tp, n_predicted, n_true in zip(
            neurons, *(c.tolist() for c in counts), strict=True
        )
    }


def _links_of(
    synapses: Synapses, protocol: Protocol, neurons: tuple[int, ...]
) -> np.ndarray:
    """(neurons,) int: how long the list of each neuron is."""
    ids = _ids(synapses, protocol)
    touching = protocol.touching(synapses, neurons)
    # A link of a neuron with itself is in its list once.
    touching[:, 1] &= ~(touching[:, 0] & (ids[:, 0] == ids[:, 1]))
    order = np.argsort(neurons)
    place = np.searchsorted(np.asarray(neurons)[order], ids[touching])
    return np.bincount(order[place], minlength=len(neurons))


def _list_by_list(
    truth: Synapses, prediction: Synapses, protocol: Protocol, neurons: tuple[int, ...]
) -> Outcome:
    found = {
        neuron: _compare(
            protocol.listed(truth, [neuron]), protocol.listed(prediction, [neuron]), protocol
        )
        for neuron in neurons
    }
    lists = list(found.values())
    scores = {neuron: outcome.score for neuron, outcome in found.items()}
    return Outcome(
        score=_total(scores.values()),
        neurons=scores,
        matched=np.unique(np.concatenate([o.matched for o in lists]), axis=0),
        truth=_union([o.truth for o in lists]),
        prediction=_union([o.prediction for o in lists]),
        steps=_joined_steps(protocol, prediction, list(found), [o.steps for o in lists]),
    )


def _joined_steps(
    protocol: Protocol, prediction: Synapses, neurons: list[int], steps: list[list[Step]]
) -> list[Step]:
    """Steps of all lists as one: a link goes where the last list that had it loses it."""
    alive = [protocol.listed(prediction, [neuron]).id for neuron in neurons]
    joined, before = [], np.unique(np.concatenate(alive))
    for n, filter in enumerate(protocol.filters):
        alive = [
            np.setdiff1d(ids, of_list[n].removed) for ids, of_list in zip(alive, steps, strict=True)
        ]
        after = np.unique(np.concatenate(alive))
        joined.append(Step(filter, len(before), np.setdiff1d(before, after)))
        before = after
    return joined


def _union(tables: list[Synapses]) -> Synapses:
    columns = {
        name: np.concatenate([getattr(table, name) for table in tables])
        for name in Synapses.columns()
    }
    first = np.unique(columns["id"], return_index=True)[1]
    return Synapses(**{name: values[first] for name, values in columns.items()})


def _total(scores: Iterable[PartnerScore]) -> PartnerScore:
    return PartnerScore(*(sum(column) for column in zip(*scores, strict=True)))
