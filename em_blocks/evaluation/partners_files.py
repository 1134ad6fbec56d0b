"""The files of an evaluation of partners: scores, lists of links, plots."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from em_blocks.evaluation.partners import Evaluated, Evaluation
from em_blocks.evaluation.partners_config import EvaluateSynapses
from em_blocks.json_text import json_text
from em_blocks.kernels.evaluation.partner_matching import PartnerScore
from em_blocks.volumes.stores.whole_files import written_whole

Rows = Iterable[Sequence[Any]]

UNMATCHED = -1
_SCORE = ("fscore", "precision", "recall", "tp", "fp", "fn")


def write_scores(folder: Path, config: EvaluateSynapses, found: Evaluation) -> list[Path]:
    """Write all files of an evaluation; each is replaced in one piece. Returns their paths.

    Links and connections are those at the score threshold with the highest F-score.
    """
    best, curve = found.best, found.thresholds
    with written_whole(folder / "evaluation.json") as file:
        written = file.parent
        document = {
            "config": config.model_dump(mode="json"),
            "thresholds": [item.document() for item in curve],
            "random_baseline": found.baseline and found.baseline.document(),
        }
        file.write_text(json_text(document, indent=2) + "\n")
        _write_csv(written / "thresholds.csv", ("score_threshold", *_SCORE), _thresholds(curve))
        _write_csv(written / "links.csv", ("list", "id", "outcome", "partner"), _links(best))
        if best.outcome.neurons:
            header = ("score_threshold", "neuron", *_SCORE)
            _write_csv(written / "neurons.csv", header, _neurons(curve))
        if best.edges:
            header = ("edge_threshold", "accuracy", *_SCORE, "tn")
            _write_csv(written / "edge_accuracy.csv", header, _edges(best))
        _draw(written, found)
        names = sorted(file.name for file in written.iterdir())
    return [folder / name for name in names]


def _write_csv(path: Path, header: Sequence[str], rows: Rows) -> None:
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(header)
        table.writerows(rows)


def _columns(score: PartnerScore) -> list:
    document = score.document()
    return [document[name] for name in _SCORE]


def _thresholds(found: Sequence[Evaluated]) -> Rows:
    return [[item.threshold, *_columns(item.outcome.score)] for item in found]


def _neurons(found: Sequence[Evaluated]) -> Iterator[list]:
    for item in found:
        for neuron, score in item.outcome.neurons.items():
            yield [item.threshold, neuron, *_columns(score)]


def _edges(found: Evaluated) -> Rows:
    return [
        [edge.threshold, edge.accuracy, *_columns(edge.score), edge.tn] for edge in found.edges
    ]


def _links(found: Evaluated) -> Iterator[list]:
    """List the outcome of every link; where lists of neurons differ, its better one.

    The partner of a link without one is -1: an empty cell would make floats of all ids.
    """
    outcome = found.outcome
    to_prediction = dict(outcome.matched.tolist())
    to_truth = dict(np.flip(outcome.matched, axis=1).tolist())
    for id in outcome.truth.id.tolist():
        became = "found" if id in to_prediction else "missed"
        yield ["truth", id, became, to_prediction.get(id, UNMATCHED)]
    for id in outcome.prediction.id.tolist():
        became = "true" if id in to_truth else "false"
        yield ["prediction", id, became, to_truth.get(id, UNMATCHED)]
    for step in outcome.steps:
        for id in step.removed.tolist():
            yield ["prediction", id, f"removed: {step.filter}", UNMATCHED]


def _draw(folder: Path, found: Evaluation) -> None:
    from PIL import Image

    from em_blocks.kernels.plots import partners as synapse_plots

    scores = [item.outcome.score for item in found.thresholds]
    thresholds = [item.threshold for item in found.thresholds]
    pictures = {}
    if thresholds != [None]:
        pictures["precision_recall.png"] = synapse_plots.precision_recall(thresholds, scores)
        pictures["thresholds.png"] = synapse_plots.scores_by_threshold(thresholds, scores)
    if found.best.edges:
        pictures["edge_accuracy.png"] = synapse_plots.edge_accuracy_curve(found.best.edges)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / name)
