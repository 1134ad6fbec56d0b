"""Files of an evaluation of instances: scores, a row per object and error, pictures of the worst."""

from __future__ import annotations

import csv
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np

from em_blocks.evaluation.instances import InstanceScores, LocatedError
from em_blocks.geometry import Box
from em_blocks.json_text import json_text
from em_blocks.kernels.evaluation.instances.left_out import prediction_of, touches, truth_of
from em_blocks.tasks.evaluation.count_instances import CountInstances, ReadCompared
from em_blocks.volumes import Volume
from em_blocks.volumes.nearest import read_nearest

N_PICTURES = 12

_AROUND, _LARGEST, _SMALLEST = 8, 512, 48
"""Voxels of a picture: around its objects; at most, and at least per axis."""

_POSITION = ("z_nm", "y_nm", "x_nm")


def write_results(folder: Path, task: CountInstances, found: InstanceScores) -> list[Path]:
    """Write evaluation.json, objects.csv, errors.csv, and pictures of the worst errors.

    Pictures of an earlier evaluation are removed.
    """
    folder.mkdir(parents=True, exist_ok=True)
    pictures = folder / "worst"
    for old in pictures.glob("[0-9][0-9]_*.png"):
        old.unlink()
    names = [_picture_name(n, error) for n, error in enumerate(found.errors[:N_PICTURES], 1)]
    (folder / "evaluation.json").write_text(json_text(found.document(), indent=2) + "\n")
    _write_rows(folder / "objects.csv", _object_columns(task), _objects(found))
    _write_rows(
        folder / "errors.csv", ("type", "truth", "prediction", "voxels", *_POSITION, "picture"),
        _errors(found.errors, names),
    )
    _draw(pictures, task, found, names)
    written = [folder / name for name in ("evaluation.json", "objects.csv", "errors.csv")]
    return written + [pictures / name for name in names]


def _write_rows(path: Path, head: Iterable[str], rows: Iterable[Iterable]) -> None:
    with open(path, "w", newline="") as file:
        table = csv.writer(file)
        table.writerow(head)
        table.writerows(rows)


# -- rows ---------------------------------------------------------------------------------


def _errors(errors: list[LocatedError], names: list[str]) -> Iterator[list]:
    pictures = [f"worst/{name}" for name in names] + [""] * (len(errors) - len(names))
    for error, picture in zip(errors, pictures, strict=True):
        ids = (" ".join(map(str, side)) for side in (error.truth, error.prediction))
        yield [error.kind, *ids, error.voxels, *_nm(error.position_nm), picture]


def _nm(position: Iterable[float]) -> list[str]:
    return [f"{value:.2f}" for value in position]


def _object_columns(task: CountInstances) -> list[str]:
    return ["volume", "id", "voxels", "volume_nm3", "ignored_voxels", "cut", *_POSITION, "best_overlap",
            "best_iou", *(f"partner_at_{iou:g}" for iou in task.iou), "verdict"]


def _objects(found: InstanceScores) -> Iterator[list]:
    """Yield a row per object: its measures, what overlaps it most, its partners; 0 is none."""
    overlaps = found.found
    yield from _rows_of("truth", found, truth_of(overlaps, found.truth), overlaps.rows, overlaps.columns)
    yield from _rows_of(
        "prediction", found, prediction_of(overlaps, found.prediction), overlaps.columns, overlaps.rows
    )


def _rows_of(
    side: str, found: InstanceScores, objects, mine: np.ndarray, theirs: np.ndarray
) -> Iterator[list]:
    other = found.found.prediction_ids if side == "truth" else found.found.truth_ids
    other = np.append(other, np.uint64(0))  # the last place is that of -1
    best, iou = _best(found, mine, theirs, len(objects.id))
    partners = [other[getattr(score, f"matched_{side}")] for score in found.scores]
    size, offset = np.array(found.frame.voxel_size), np.array(found.frame.offset)
    centers = offset + (objects.center + 0.5) * size
    cut, verdicts = touches(objects, found.shape), _verdicts(found, side)
    for n, id in enumerate(objects.id.tolist()):
        yield [side, id, objects.voxels[n], f"{objects.voxels[n] * size.prod():g}", objects.ignored[n],
               int(cut[n]), *_nm(centers[n]), other[best[n]], f"{iou[n]:.6g}",
               *(column[n] for column in partners), verdicts[n]]


def _best(
    found: InstanceScores, mine: np.ndarray, theirs: np.ndarray, n: int
) -> tuple[np.ndarray, np.ndarray]:
    """Return the place of the object with the largest IoU, -1 without one, and that IoU."""
    best, iou = np.full(n, -1), np.zeros(n)
    order = np.argsort(found.found.iou, kind="stable")  # the last of equal places is kept
    best[mine[order]], iou[mine[order]] = theirs[order], found.found.iou[order]
    return best, iou


def _verdicts(found: InstanceScores, side: str) -> list[str]:
    """Return "matched", "left out" or the cause of the error of every object, at the first IoU."""
    main, causes = found.scores[0], getattr(found.causes, side)
    verdicts = np.where(causes == "", "matched", causes)
    return np.where(getattr(main, f"counted_{side}"), verdicts, "left out").tolist()


# -- pictures -----------------------------------------------------------------------------


def _picture_name(number: int, error: LocatedError) -> str:
    """Return a name such as 01_merge_17.png; the id is that of the object the error is about."""
    about = error.prediction if error.kind in ("merge", "false") else error.truth
    return f"{number:02d}_{error.kind}_{about[0]}.png"


def _draw(folder: Path, task: CountInstances, found: InstanceScores, names: list[str]) -> None:
    from PIL import Image

    folder.mkdir(exist_ok=True)
    raw = task.opened_raw()
    with task.reading() as read:
        for error, name in zip(found.errors, names, strict=False):
            Image.fromarray(_picture(read, raw, found, error)).save(folder / name)


def _picture(
    read: ReadCompared, raw: Volume | None, found: InstanceScores, error: LocatedError
) -> np.ndarray:
    """Draw the section of an error's place."""
    from em_blocks.kernels.plots.instance_errors import error_picture

    box = _window(found, error)
    compared = read(box)
    position = ", ".join(f"{value:.0f}" for value in error.position_nm)
    return error_picture(
        raw=None if raw is None else read_nearest(raw, found.frame, box)[0],
        truth=compared.truth[0], prediction=compared.prediction[0], true_ids=error.truth,
        predicted_ids=error.prediction, pixel_nm=found.frame.voxel_size[2],
        mark=(error.voxel[1] - box.offset[1], error.voxel[2] - box.offset[2]),
        title=f"{error.kind}, {error.voxels:,} voxels, at {position} nm (zyx)",
    )


def _window(found: InstanceScores, error: LocatedError) -> Box:
    """Return the part of the section around an error: its objects, if they are not too large."""
    objects = [
        (side.begin[row], side.end[row])
        for side, ids in ((found.truth, error.truth), (found.prediction, error.prediction))
        for row in side.place(np.array(ids, np.uint64)).tolist()
    ]
    begin = np.min([b for b, _ in objects], axis=0) - _AROUND
    end = np.max([e for _, e in objects], axis=0) + _AROUND
    voxel = np.array(error.voxel)
    begin = np.clip(begin, voxel - _LARGEST // 2, voxel - _SMALLEST // 2)
    end = np.clip(end, voxel + _SMALLEST // 2, voxel + _LARGEST // 2)
    begin[0], end[0] = voxel[0], voxel[0] + 1
    return Box.between(begin.tolist(), end.tolist()).intersect(Box((0, 0, 0), found.shape))
