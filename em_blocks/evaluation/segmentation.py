"""From counted voxels to scores: the part of an evaluation that comes after all blocks."""

from __future__ import annotations

import csv
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.geometry import Block
from em_blocks.json_text import json_text
from em_blocks.kernels.evaluation.contingency import Contingency, Merger
from em_blocks.kernels.evaluation.cremi_marks import without_marks
from em_blocks.kernels.evaluation.segmentation_scores import Evaluation, ObjectError, evaluate
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.evaluation.count_overlaps import CountOverlaps
from em_blocks.volumes.labels import refuse_negative

if TYPE_CHECKING:
    from em_blocks.kernels.skeletons.run_length import Skeletons

Tables = Callable[[], Iterable[Contingency]]

N_WORST = 10
_NUMBER = re.compile(r"(?<![\d.])\d+(\.\d+)?$")


@dataclass(frozen=True)
class Scores:
    """One segmentation against truth.

    Attributes
    ----------
    threshold : float or None
        Where on a curve of several segmentations it belongs.
    run_length : dict or None
        Expected run length and its parts, nm; None without skeletons.
    """

    name: str
    path: str
    threshold: float | None
    evaluation: Evaluation
    run_length: dict | None

    def document(self) -> dict:
        """As JSON and for the database. VOI in bits, lengths in nm."""
        found = self.evaluation
        return {
            "segmentation": self.path,
            "threshold": self.threshold,
            "voi_split": found.voi.split,
            "voi_merge": found.voi.merge,
            "voi": sum(found.voi),
            "arand": found.arand.error,
            "arand_cremi": found.arand_cremi.error,
            "rand_precision": found.arand.precision,
            "rand_recall": found.arand.recall,
            "voxels": found.n_voxels,
            "voxels_ignored": found.n_ignored,
            "segments": found.n_segments,
            "neurons": found.n_neurons,
            "worst_splits": [_object(item, "neuron", "segments") for item in found.worst_splits],
            "worst_merges": [_object(item, "segment", "neurons") for item in found.worst_merges],
            **({} if self.run_length is None else {"run_length": self.run_length}),
        }


def _object(item: ObjectError, name: str, parts: str) -> dict:
    return {
        name: item.id, "voxels": item.voxels, "bits": item.bits, parts: item.n_parts,
        f"largest_{parts}": [{"id": id, "voxels": voxels} for id, voxels in item.largest],
    }


def count_here(task: CountOverlaps, blocks: Iterable[Block]) -> dict[str, Contingency]:
    """Count all voxels in this process, block by block; memory: a block and the tables."""
    mergers = {name: Merger() for name in task.segmentations}
    with task.counting() as count:
        for block in blocks:
            for name, found in count(block, BlockReport()):
                mergers[name].add(found)
    return {name: merger.result() for name, merger in mergers.items()}


def score(task: CountOverlaps, tables: dict[str, Tables]) -> list[Scores]:
    """The scores of every segmentation, in the order of the config.

    Raises
    ------
    ConfigError
        If nothing is left to be scored, or the skeletons cannot be used.
    """
    run_lengths = _run_lengths(task)
    found = []
    for name, path in task.segmentations.items():
        evaluation = evaluate(
            partial(_checked, task, name, tables[name]), ignore_truth=task.ignored_truth,
            ignore_segmentation=task.ignore_segmentation, n_worst=N_WORST,
        )
        _check_scored(task, path, evaluation)
        found.append(Scores(name, path, _threshold(name), evaluation, run_lengths.get(name)))
    return found


def _checked(task: CountOverlaps, name: str, tables: Tables) -> Iterator[Contingency]:
    """The tables of a segmentation, once they count no id below 0 that is not ignored.

    Blocks refuse such ids, but what is ignored may have changed since they were counted.
    """
    path = task.segmentations[name]
    signed_truth, signed = task.is_signed("truth"), task.is_signed(f"segmentation {name}")
    for table in tables():
        if signed_truth:
            refuse_negative(str(task.truth), table.truth.view(np.int64), task.ignored_truth)
        if signed:
            refuse_negative(str(path), table.segmentation.view(np.int64), task.ignore_segmentation)
        yield table


def _check_scored(task: CountOverlaps, path: str, evaluation: Evaluation) -> None:
    if not evaluation.n_voxels:
        raise ConfigError(
            f"No voxel is left to be scored: all {evaluation.n_ignored} voxels that {path} and "
            f"{task.truth} share have an ignored id ({list(task.ignored_truth)} in truth, "
            f"{list(task.ignore_segmentation)} in the segmentation). Check that the volumes were not "
            "swapped and lie in the right place, or ignore fewer ids."
        )


def _threshold(name: str) -> float | None:
    """The number at the end of a name: of 0.35, segments_0.35, mean-0.35."""
    found = _NUMBER.search(name)
    return float(found[0]) if found else None


def _run_lengths(task: CountOverlaps) -> dict[str, dict]:
    """Run lengths by segmentation; empty without skeletons."""
    neurons = task.neurons()
    if not neurons:
        return {}
    from em_blocks.kernels.skeletons.run_length import as_columns

    columns = as_columns(list(neurons.values()))
    return {name: _run_length(task, name, list(neurons), columns) for name in task.segmentations}


def _run_length(
    task: CountOverlaps, name: str, neurons: list[str], columns: Skeletons
) -> dict:
    from em_blocks.kernels.skeletons.run_length import expected_run_length

    with task.opened_segmentation(name) as labels:
        ids, inside = labels.at(columns.positions)
    if not inside.any():
        low, high = columns.positions.min(axis=0).tolist(), columns.positions.max(axis=0).tolist()
        raise ConfigError(
            f"No node of the skeletons in {task.skeletons} lies in {labels.path}: they extend from "
            f"{low} to {high} nm (zyx), taking their positions for {task.skeleton_unit}. Check the "
            "unit, and that both are in the same coordinates."
        )
    found = expected_run_length(columns, without_marks(ids), inside=inside)._asdict()
    lengths, each = found.pop("lengths_nm").tolist(), found.pop("expected_each_nm").tolist()
    return {
        **found, "nodes": len(ids), "nodes_outside": int((~inside).sum()),
        "skeletons": {
            neuron: {"length_nm": length, "expected_nm": expected}
            for neuron, length, expected in zip(neurons, lengths, each, strict=True)
        },
    }


def as_json(task: CountOverlaps, scores: list[Scores]) -> dict:
    """Everything that was found, as evaluation.json holds it."""
    return {
        "truth": task.truth,
        "ignored": {"truth": list(task.ignored_truth), "segmentation": list(task.ignore_segmentation),
                    "border_nm": task.border_nm},
        "segmentations": {found.name: found.document() for found in scores},
    }


def write_results(folder: Path, task: CountOverlaps, scores: list[Scores]) -> list[Path]:
    """Write evaluation.json, the worst objects as CSV, and pictures; returns their paths."""
    from PIL import Image

    from em_blocks.kernels.plots.curves import split_vs_merge, threshold_curve

    folder.mkdir(parents=True, exist_ok=True)
    names = [found.name for found in scores]
    thresholds = _thresholds(scores)
    vois = [found.evaluation.voi for found in scores]
    pictures = {"split_vs_merge.png": split_vs_merge(names, vois)}
    if len(scores) > 1:
        arands = [found.evaluation.arand.error for found in scores]
        pictures["curve.png"] = threshold_curve(thresholds, names, vois, arands)
    for name, picture in pictures.items():
        Image.fromarray(picture).save(folder / name)
    for side, parts in (("splits", "segments"), ("merges", "neurons")):
        _write_worst(folder / f"worst_{side}.csv", scores, side, parts)
    text = json_text(as_json(task, scores), indent=2) + "\n"
    (folder / "evaluation.json").write_text(text)
    return [folder / name for name in
            ("evaluation.json", "worst_splits.csv", "worst_merges.csv", *pictures)]


def _thresholds(scores: list[Scores]) -> list[float] | None:
    """Thresholds, if every segmentation has one."""
    found = [item.threshold for item in scores]
    return None if None in found else found


def _write_worst(path: Path, scores: list[Scores], side: str, parts: str) -> None:
    with open(path, "w", newline="") as file:
        rows = csv.writer(file)
        object_name = {"splits": "neuron", "merges": "segment"}[side]
        rows.writerow(["segmentation", object_name, "voxels", "bits", parts,
                       f"largest {parts} (id:voxels)"])
        for found in scores:
            for item in getattr(found.evaluation, f"worst_{side}"):
                largest = " ".join(f"{id}:{voxels}" for id, voxels in item.largest)
                rows.writerow([found.name, item.id, item.voxels, f"{item.bits:.6g}", item.n_parts,
                               largest])
