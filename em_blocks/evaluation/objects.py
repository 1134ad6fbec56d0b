"""Objects and clefts of a predicted volume against those of a true one, in this process."""

from __future__ import annotations

import csv
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.evaluation.segmentation import count_here
from em_blocks.geometry import Block, BlockGrid, Box, Triple
from em_blocks.json_text import json_text
from em_blocks.kernels.evaluation.cleft_distances import CleftScores, CleftVoxels, score_clefts
from em_blocks.kernels.evaluation.contingency import Contingency
from em_blocks.kernels.evaluation.cremi_marks import IGNORED, SIGNED, is_unknown, without_marks
from em_blocks.kernels.evaluation.object_matching import (
    Matching,
    ObjectScores,
    Overlaps,
    SizeBin,
    VoxelScores,
    by_size,
    match_objects,
    overlaps,
    score_voxels,
)
from em_blocks.tasks.evaluation.count_overlaps import CountOverlaps, usual_block
from em_blocks.volumes.labels import open_labels, placed, read_in, shared_region

Shown = Callable[[Iterable[Block], int], Iterator[Block]]
"""Passes blocks on, and shows how many of all there are."""


@dataclass(frozen=True)
class EvaluatedObjects:
    """Predicted objects against true ones.

    Attributes
    ----------
    scores : tuple of ObjectScores
        One for each least IoU.
    bins : tuple of tuples of SizeBin
        For each least IoU, the objects by size.
    """

    found: Overlaps
    scores: tuple[ObjectScores, ...]
    bins: tuple[tuple[SizeBin, ...], ...]
    voxels: VoxelScores

    def document(self) -> dict:
        """As JSON."""
        left_out = ("matched_truth", "matched_prediction")
        return {
            "truth": len(self.found.truth_ids), "prediction": len(self.found.prediction_ids),
            "objects": [
                {key: value for key, value in score._asdict().items() if key not in left_out}
                | {"by_size": [bin._asdict() for bin in bins]}
                for score, bins in zip(self.scores, self.bins, strict=True)
            ],
            "mean_average_precision": float(np.mean([s.average_precision for s in self.scores])),
            "voxels": self.voxels._asdict(),
        }


def evaluate_objects(
    *, prediction: str, truth: str, ious: Sequence[float], min_voxels: int = 1,
    matching: Matching = "one-to-one", margin: Triple = (0, 0, 0), size_bounds: Sequence[int] = (),
    shown: Shown = lambda blocks, n: iter(blocks),
) -> EvaluatedObjects:
    """Count the voxels that objects share, block by block, and match them.

    Parameters
    ----------
    prediction, truth : str
        Volumes of ids. 0 is background, and so are the marks of CREMI; voxels that truth marks as
        unknown do not count.
    margin : (3,) int
        Voxels (z, y, x) at every face of the shared region that are not compared.
    size_bounds : ints
        Sizes (voxels) that divide objects into bins, rising.

    Raises
    ------
    ConfigError
        If the volumes cannot be compared, or nothing is left of them.
    """
    task = CountOverlaps.from_dict(
        {"kind": "count_overlaps", "run": "objects", "truth": truth, "output": "none",
         "segmentations": {"prediction": prediction}, "ignore": SIGNED,
         "ignore_segmentation": SIGNED},
        source="The command line",
    )
    blocks = _within_margin(task.grid(), margin)
    table = _unmarked(count_here(task, shown(blocks, len(blocks)))["prediction"])
    found = overlaps(table, min_voxels=min_voxels)
    scores = tuple(match_objects(found, iou=iou, matching=matching) for iou in ious)
    bins = tuple(tuple(by_size(found, one, size_bounds)) for one in scores)
    return EvaluatedObjects(found, scores, bins, score_voxels(table))


def _within_margin(grid: BlockGrid, margin: Triple) -> list[Block]:
    """The blocks, without what lies in the margin."""
    shape = grid.volume_shape
    inner = Box.between(margin, np.subtract(shape, margin).tolist())
    if not inner.size:
        raise ConfigError(
            f"Nothing is left of {shape} voxels (zyx) within a margin of {margin}. Use a smaller one."
        )
    return [Block(b.index, b.write_box.intersect(inner)) for b in grid.within(inner)]


def _unmarked(table: Contingency) -> Contingency:
    """The table without voxels that truth marks as unknown, and 0 for the background of CREMI."""
    table = table.without(truth=[int(IGNORED)])
    return Contingency(without_marks(table.segmentation), without_marks(table.truth), table.voxels)


def write_objects(folder: Path, evaluated: EvaluatedObjects) -> list[Path]:
    """Write evaluation.json, and a table of all objects with their partners."""
    folder.mkdir(parents=True, exist_ok=True)
    with open(folder / "objects.csv", "w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["volume", "id", "voxels", "best_overlap", "best_iou",
                       *(f"partner_at_{score.iou:g}" for score in evaluated.scores)])
        rows.writerows(_object_rows(evaluated, "truth"))
        rows.writerows(_object_rows(evaluated, "prediction"))
    (folder / "evaluation.json").write_text(json_text(evaluated.document(), indent=2) + "\n")
    return [folder / "objects.csv", folder / "evaluation.json"]


def _object_rows(evaluated: EvaluatedObjects, side: str) -> Iterator[list]:
    """One row per object: the one that overlaps it most, and its partner at each IoU; 0: none."""
    found = evaluated.found
    other = "prediction" if side == "truth" else "truth"
    mine, theirs = (found.rows, found.columns) if side == "truth" else (found.columns, found.rows)
    ids, other_ids = getattr(found, f"{side}_ids"), getattr(found, f"{other}_ids")
    best, iou = np.full(len(ids), -1), np.zeros(len(ids))
    order = np.argsort(found.iou, kind="stable")  # the last of equal places is kept
    best[mine[order]], iou[mine[order]] = theirs[order], found.iou[order]
    partners = [best, *(getattr(score, f"matched_{side}") for score in evaluated.scores)]
    best, *matched = (_ids_at(other_ids, place) for place in partners)
    voxels = getattr(found, f"{side}_voxels")
    for n, id in enumerate(ids.tolist()):
        yield [side, id, voxels[n], best[n], f"{iou[n]:.6g}", *(column[n] for column in matched)]


def _ids_at(ids: np.ndarray, places: np.ndarray) -> np.ndarray:
    return np.append(ids, np.uint64(0))[places]


def evaluate_clefts(
    *, prediction: str, truth: str, far_nm: float,
    shown: Shown = lambda blocks, n: iter(blocks),
) -> CleftScores:
    """Distances between predicted and true clefts, where both volumes are.

    The volumes are read block by block; all voxels of clefts are kept, 25 bytes each.

    Parameters
    ----------
    prediction, truth : str
        Volumes of ids: every voxel that is neither 0 nor CREMI's background belongs to a cleft.
        Voxels that truth marks as unknown do not count.
    far_nm : float
        Voxels farther than this are counted as wrong.

    Raises
    ------
    ConfigError
        If the volumes cannot be compared, or their voxel size is unknown.
    """
    with ExitStack() as stack:
        volumes = [stack.enter_context(open_labels(path, negative=SIGNED))
                   for path in (prediction, truth)]
        if all(volume.frame is None for volume in volumes):
            raise ConfigError(
                f"Neither {prediction} nor {truth} says how large its voxels are, but distances are "
                "nm. Add the attributes resolution and offset (nm, zyx) to a dataset, or ingest it."
            )
        volumes = placed(volumes)
        frame, shape = shared_region(volumes)
        grid = BlockGrid(frame, shape, usual_block(volumes[0].chunk_shape))
        parts = ([], [])
        for block in shown(grid.blocks(), grid.n_blocks):
            ids = [read_in(volume, frame, block.write_box) for volume in volumes]
            known = ~is_unknown(ids[1])
            for found, labels in zip(parts, ids, strict=True):
                mask = (without_marks(labels) != 0) & known
                found.append(CleftVoxels.of(mask, block.write_box.offset))
    predicted, true = map(CleftVoxels.concatenate, parts)
    return score_clefts(
        prediction=predicted, truth=true, voxel_size=frame.voxel_size, far_nm=far_nm
    )
