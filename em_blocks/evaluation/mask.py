"""Scores of a predicted mask, from counted voxels."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.geometry import Block
from em_blocks.json_text import json_text
from em_blocks.kernels.evaluation.mask_scores import Confusion, confusions
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.evaluation.count_mask import CountMask

_SCORES = ("dice", "jaccard", "precision", "recall")
_COUNTS = ("tp", "fp", "fn", "tn")


@dataclass(frozen=True)
class Section:
    """One section of truth.

    Attributes
    ----------
    number : int
        Of the section in truth, from 0.
    z_nm : float
        Position of its first corner.
    """

    number: int
    z_nm: float
    found: Confusion

    def document(self) -> dict:
        """As JSON."""
        return {"section": self.number, "z_nm": self.z_nm, **self.found.scores(),
                **self.found._asdict()}


@dataclass(frozen=True)
class MaskScores:
    """A predicted mask against truth.

    Attributes
    ----------
    threshold : float or None
        None of a mask or ids.
    total : Confusion
        All voxels that count.
    everywhere : Confusion
        Those that metric masks exclude too.
    sections : list of Section
        Those with voxels that count.
    curve : list of (float, Confusion)
        Of every threshold, ascending.
    """

    threshold: float | None
    total: Confusion
    everywhere: Confusion
    sections: list[Section]
    curve: list[tuple[float, Confusion]]

    def headline(self) -> dict:
        """Return the four scores and the threshold."""
        return {**self.total.scores(), "threshold": self.threshold}

    @property
    def best(self) -> tuple[float, Confusion] | None:
        """The threshold of the highest Dice, the lowest of equals; None without any."""
        scored = [item for item in self.curve if item[1].dice is not None]
        return max(scored, key=lambda item: (item[1].dice, -item[0]), default=None)

    def document(self) -> dict:
        """As JSON and for the database."""
        best = self.best
        return {
            **self.headline(), **self.total._asdict(),
            "without_exclusion": {**self.everywhere.scores(), **self.everywhere._asdict()},
            "best": None if best is None else {"threshold": best[0], **best[1].scores()},
            "curve": self.curve_document(),
            "sections": self.section_document(),
        }

    def curve_document(self) -> list[dict]:
        """Return the scores of every threshold as JSON."""
        return [{"threshold": t, **c.scores(), **c._asdict()} for t, c in self.curve]

    def section_document(self) -> list[dict]:
        """Return the scores of every section as JSON."""
        return [section.document() for section in self.sections]


def count_here(task: CountMask, blocks: Iterable[Block]) -> Iterator[tuple[int, np.ndarray]]:
    """Count all voxels in this process, block by block; yields what `CountMask.stored` does."""
    with task.counting() as count:
        for block in blocks:
            yield block.write_box.offset[0], count(block, BlockReport())


def score(task: CountMask, parts: Iterable[tuple[int, np.ndarray]]) -> MaskScores:
    """Score the counts of blocks; memory: some bytes for every section and threshold.

    Parameters
    ----------
    parts : pairs of int and (z, levels, 2, 2) array
        First section of a block, and its counts.

    Raises
    ------
    ConfigError
        If no voxel counts.
    """
    grid = task.grid()
    counts = np.zeros((grid.volume_shape[0], task.n_levels, 2, 2), np.int64)
    for first, part in parts:
        counts[first : first + len(part)] += part
    _check_counted(task, counts)
    thresholds = task.all_thresholds
    main = thresholds.index(task.main_threshold) if task.main_threshold else 0
    included = counts[:, :, 1]
    curve = confusions(included.sum(axis=0))
    return MaskScores(
        threshold=task.main_threshold, total=curve[main],
        everywhere=confusions(counts.sum(axis=(0, 2)))[main],
        sections=[
            Section(task.first_section + n, grid.frame.offset[0] + n * grid.frame.voxel_size[0],
                    confusions(section)[main])
            for n, section in enumerate(included) if section.any()
        ],
        curve=list(zip(thresholds, curve, strict=False)),
    )


def _check_counted(task: CountMask, counts: np.ndarray) -> None:
    if not counts[:, :, 1].any():
        raise ConfigError(
            f"No voxel of {task.prediction} and {task.truth} counts: {int(counts.sum())} were compared, "
            f"and the masks, or the ids {list(task.ignore)} that are ignored in truth, exclude all of "
            "them. Check that masks lie over the volumes and are not 0 where voxels should count."
        )


def write_results(folder: Path, scores: MaskScores) -> list[Path]:
    """Write evaluation.json, sections.csv, and curve.csv and curve.png of several thresholds."""
    folder.mkdir(parents=True, exist_ok=True)
    written = [folder / "evaluation.json", folder / "sections.csv"]
    written[0].write_text(json_text(scores.document(), indent=2) + "\n")
    _write_rows(written[1], ("section", "z_nm"), scores.section_document())
    if len(scores.curve) > 1:
        written += [folder / "curve.csv", folder / "curve.png"]
        _write_rows(written[2], ("threshold",), scores.curve_document())
        _draw(written[3], scores)
    return written


def _draw(path: Path, scores: MaskScores) -> None:
    from PIL import Image

    from em_blocks.kernels.plots.curves import score_curves

    columns = {name: [getattr(found, name) for _, found in scores.curve] for name in _SCORES}
    picture = score_curves([threshold for threshold, _ in scores.curve], columns, xlabel="threshold")
    Image.fromarray(picture).save(path)


def _write_rows(path: Path, keys: Sequence[str], rows: Iterable[dict]) -> None:
    with open(path, "w", newline="") as file:
        table = csv.DictWriter(file, [*keys, *_SCORES, *_COUNTS])
        table.writeheader()
        table.writerows(rows)
