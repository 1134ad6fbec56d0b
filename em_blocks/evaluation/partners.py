"""Scores of predicted partners: files are read, neurons looked up, links compared."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import numpy as np

from em_blocks.config import path_of
from em_blocks.errors import ConfigError
from em_blocks.evaluation.partners_config import EvaluateSynapses, RandomBaseline
from em_blocks.geometry import Nm3, Roi
from em_blocks.kernels.evaluation.cremi_marks import SIGNED, without_marks
from em_blocks.kernels.evaluation.edge_accuracy import (
    EdgeAccuracy,
    connectivity,
    edge_accuracy,
    random_partners,
)
from em_blocks.kernels.evaluation.partner_protocol import Outcome, Protocol, evaluate_partners
from em_blocks.kernels.synapses.filters import object_ids
from em_blocks.kernels.synapses.table import LARGEST_ID, UNMAPPED, Synapses
from em_blocks.volumes.synapse_files import format_of, read_synapses


@dataclass(frozen=True)
class Evaluated:
    """Scores at one score threshold; None: no link was left out for its score."""

    threshold: float | None
    outcome: Outcome
    edges: list[EdgeAccuracy]  # empty if ids do not matter
    n_unmapped: int  # predicted links that were compared, but match nothing for want of an id

    def document(self) -> dict:
        """As JSON, without lists of links."""
        return {
            "score_threshold": self.threshold, **self.outcome.score.document(),
            "filters": [
                {"filter": str(step.filter), "before": step.before, "removed": len(step.removed)}
                for step in self.outcome.steps
            ],
            "unmapped": self.n_unmapped,
            "neurons": {id: score.document() for id, score in self.outcome.neurons.items()},
            "edges": [edge.document() for edge in self.edges],
        }


class Evaluation(NamedTuple):
    """All that an evaluation finds."""

    thresholds: list[Evaluated]
    baseline: Evaluated | None  # links by chance

    @property
    def best(self) -> Evaluated:
        """At the threshold with the highest F-score; of equals the lowest."""
        return max(self.thresholds, key=lambda item: item.outcome.score.fscore)


def evaluate_synapses(config: EvaluateSynapses) -> Evaluation:
    """Scores at every threshold, in their order.

    Raises
    ------
    ConfigError, SynapseFileError, VolumeError
        If a file cannot be read, or does not hold what the config needs of it.
    """
    tables = read_partners(config)
    if config.flip_prediction:
        tables[1] = tables[1].flipped()
    if config.cleft_scores is not None:
        tables[1] = _with_cleft_scores(config, tables[1])
    if config.neurons is not None:
        tables = _in_volume(config, *tables)
    truth, prediction, *by_chance = tables
    protocols = {threshold: config.protocol(threshold) for threshold in config.thresholds()}
    _check(config, truth, prediction, next(iter(protocols.values())))
    found = [
        evaluate_at(threshold, truth=truth, prediction=prediction, protocol=protocol)
        for threshold, protocol in protocols.items()
    ]
    baseline = [
        evaluate_at(None, truth=truth, prediction=links, protocol=config.protocol(None))
        for links in by_chance
    ]
    return Evaluation(found, baseline[0] if baseline else None)


def evaluate_at(
    threshold: float | None, *, truth: Synapses, prediction: Synapses, protocol: Protocol
) -> Evaluated:
    """Scores by one protocol, which holds the filter for `threshold`."""
    outcome = evaluate_partners(truth=truth, prediction=prediction, protocol=protocol)
    if protocol.objects is None:
        return Evaluated(threshold, outcome, [], 0)
    ids = object_ids(outcome.prediction, protocol.objects)
    edges = edge_accuracy(
        truth=connectivity(object_ids(outcome.truth, protocol.objects)),
        prediction=connectivity(ids),
    )
    return Evaluated(threshold, outcome, edges, int((ids < 0).any(axis=1).sum()))


def read_partners(config: EvaluateSynapses) -> list[Synapses]:
    """The true and the predicted partners."""
    files = (config.truth, config.prediction)
    voxel_size = config.voxel_size
    if voxel_size is None and "cremi" in map(format_of, files):
        voxel_size = _scored_voxels(config, files)
    return [
        read_synapses(
            path, offset=config.offset,
            voxel_size=voxel_size if format_of(path) == "cremi" else config.voxel_size,
        )
        for path in files
    ]


def _scored_voxels(config: EvaluateSynapses, files: tuple[Path, Path]) -> Nm3 | None:
    """Size of the voxels in which CREMI's scorer would take locations that do not say it.

    They are those of the neurons; without neurons, of the other file.
    """
    if config.neurons is not None:
        # Imported here: without a volume these libraries are not needed.
        from em_blocks.volumes.labels import open_labels

        with open_labels(config.neurons) as labels:
            return labels.frame and labels.frame.voxel_size
    from em_blocks.volumes.synapse_files.cremi import resolution_of

    known = (resolution_of(path) for path in files if format_of(path) == "cremi")
    return next(filter(None, known), None)


def _with_cleft_scores(config: EvaluateSynapses, links: Synapses) -> Synapses:
    """The links with scores that take the cleft into account."""
    if len(links) and np.isnan(links.cleft_score).all():
        raise ConfigError(
            f"cleft_scores is {config.cleft_scores!r}, but no link of {config.prediction} has a cleft "
            "score. Leave cleft_scores out, or evaluate a file with cleft scores."
        )
    scores = {
        "replace": links.cleft_score,
        "multiply": links.score * links.cleft_score,
        "filter": np.where(links.cleft_score == 0, 0.0, links.score),
    }
    return links.replace(score=scores[config.cleft_scores])


def _in_volume(
    config: EvaluateSynapses, truth: Synapses, prediction: Synapses
) -> list[Synapses]:
    """Truth, prediction and, if wanted, links by chance, with segments of the volume of neurons.

    A predicted site outside of it is `UNMAPPED`, so its link matches nothing: partner vectors may
    well point out of a volume. A true site there is an error, since it never could be found.
    """
    # Imported here: without a volume these libraries are not needed.
    from em_blocks.volumes.labels import open_labels
    from em_blocks.volumes.metadata import place_in_config

    with open_labels(config.neurons, negative=SIGNED) as labels:
        if labels.frame is None:
            raise ConfigError(
                f"{config.neurons} has no attribute 'resolution', so it is unknown where its voxels "
                f"lie. Say it in the config: {place_in_config(path_of(config.neurons))}, or add the "
                "attributes resolution and offset (nm, zyx) to the dataset."
            )
        roi, tables = labels.frame.to_roi(labels.box), [truth, prediction]
        if config.random_baseline is not None:
            tables.append(_by_chance(config.random_baseline, roi, prediction))
        tables = [
            table.replace(**{
                f"{side}_segment": _segments(labels.path, *labels.at(getattr(table, side)))
                for side in ("pre", "post")
            })
            for table in tables
        ]
    for side in ("pre", "post"):
        _check_covered(config.neurons, roi, tables[0], side)
    return tables


def _by_chance(baseline: RandomBaseline, roi: Roi, prediction: Synapses) -> Synapses:
    if not len(prediction):
        raise ConfigError(
            "random_baseline draws partner vectors from the prediction, but that holds no links. "
            "Leave random_baseline out."
        )
    return random_partners(
        offset=roi.offset, shape=roi.shape, per_cubic_um=baseline.per_cubic_um, seed=baseline.seed,
        vectors=prediction.pre - prediction.post,
    )


def _segments(path: str, ids: np.ndarray, inside: np.ndarray) -> np.ndarray:
    ids = without_marks(ids)
    if len(ids) and ids.max() > LARGEST_ID:
        raise ConfigError(
            f"{path} holds the id {ids.max()} at a site, but ids must be below 2**63: MongoDB and files "
            "of partners hold no larger ones. Relabel the volume."
        )
    return np.where(inside, ids.astype(np.int64), UNMAPPED)


def _check_covered(path: str, roi: Roi, truth: Synapses, side: str) -> None:
    outside = np.flatnonzero(getattr(truth, f"{side}_segment") == UNMAPPED)
    if len(outside):
        raise ConfigError(
            f"The {side}synaptic site of the true link {truth.id[outside[0]]} at "
            f"{getattr(truth, side)[outside[0]].tolist()} nm (zyx) lies outside of {path}, which "
            f"covers {roi.offset} to {roi.end}; {len(outside)} of {len(truth)} do. Such links can never "
            "be found. Check that both are in the same coordinates (and the offset is applied once), "
            "or leave these links out of the truth."
        )


def _check(
    config: EvaluateSynapses, truth: Synapses, prediction: Synapses, protocol: Protocol
) -> None:
    """Raise `ConfigError` where a score would say nothing."""
    unscored = np.isnan(prediction.score)
    if config.thresholds() != (None,) and len(prediction) and unscored.all():
        raise ConfigError(
            f"No link of {config.prediction} has a score, so a score threshold leaves none of them. "
            "Leave score_threshold out, or evaluate a file with scores."
        )
    for path, table in ((config.truth, truth), (config.prediction, prediction)):
        _check_ids(config, path, table, protocol)


def _check_ids(
    config: EvaluateSynapses, path: Path, table: Synapses, protocol: Protocol
) -> None:
    if protocol.objects is None or not len(table):
        return
    ids = object_ids(table, protocol.objects)
    if not (ids != UNMAPPED).any():
        source = f"no site of it lies in {config.neurons}" if config.neurons else "it names none"
        raise ConfigError(
            f"Links match if their {protocol.objects}s agree, but {path} has no {protocol.objects} at "
            f"any site: {source}. Set id_type to what the file holds, or to none to compare positions "
            "only, or name a volume of neurons."
        )
    if protocol.neurons is not None and path == config.truth and not np.isin(
        ids, protocol.neurons
    ).any():
        raise ConfigError(
            f"None of the {len(protocol.neurons)} neuron_ids is the {protocol.objects} of any site in "
            f"{path}, so there is no truth about them. Check the ids, and that id_type is theirs."
        )
