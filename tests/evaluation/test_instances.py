"""What an evaluation of instances says and draws beyond its numbers."""

import csv
import itertools

import numpy as np
import pytest

from em_blocks.evaluation import instances
from em_blocks.evaluation.instance_report import _window, write_results
from em_blocks.evaluation.instances import count_here, score
from em_blocks.geometry import Frame
from em_blocks.tasks.evaluation.count_instances import CountInstances
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 80.0, 46.0))


def cells(n, shape=(1, 22, 66)):
    """n objects of 2 x 2 voxels on a lattice with a step of 3."""
    labels = np.zeros(shape, np.uint32)
    for id in range(n):
        y, x = divmod(id, 22)
        labels[:, 3 * y : 3 * y + 2, 3 * x : 3 * x + 2] = id + 1
    return labels


@pytest.fixture
def evaluated(tmp_path):
    """A function that scores two arrays."""

    calls = itertools.count()

    def evaluated(prediction, truth, **options):
        folder = f"{tmp_path}/{next(calls)}.zarr"
        for name, values in (("p", prediction), ("t", truth)):
            volume = Volume.create(f"{folder}/{name}", shape=values.shape, dtype="uint32",
                                   frame=FRAME, chunk_shape=(1, 64, 64))
            volume.write(volume.box, values)
        task = CountInstances.from_dict({
            "kind": "count_instances", "run": "a", "prediction": f"{folder}/p",
            "truth": f"{folder}/t", "output": str(tmp_path / "out"), **options,
        })
        return task, score(task, count_here(task, task.grid().blocks()))

    return evaluated


@pytest.mark.parametrize(
    ("n", "words"),
    [(100, None), (99, "99 true objects are few"), (4, "up to 3 in 4"), (3, "the last digits.")],
)
def test_few_objects_are_called_few(evaluated, n, words):
    note = evaluated(cells(n), cells(n))[1].note
    assert note is None if words is None else words in note
    assert n > 3 or "up to 3" not in note


def test_a_mask_in_the_place_of_instances_is_pointed_out(evaluated):
    mask = (cells(120) > 0) * np.uint32(255)
    for side, volumes in (("prediction", (mask, cells(120))), ("truth", (cells(120), mask))):
        note = evaluated(*volumes)[1].note
        assert note.startswith(f"The {side} holds one id only, 255")
    assert "one id" not in evaluated(cells(1), cells(1))[1].note


def test_files_list_all_errors_and_show_twelve(evaluated, tmp_path, monkeypatch):
    monkeypatch.setattr(instances, "MOST_ERRORS", 3)
    task, found = evaluated(np.zeros_like(cells(14)), cells(14))
    assert len(found.document()["error_list"]) == 3 and len(found.errors) == 14
    written = write_results(tmp_path / "out", task, found)
    with open(tmp_path / "out/errors.csv", newline="") as file:
        rows = list(csv.DictReader(file))
    assert len(rows) == 14 and [bool(row["picture"]) for row in rows] == [True] * 12 + [False] * 2
    pictures = [path for path in written if path.suffix == ".png"]
    assert len(pictures) == 12 and all(path.exists() for path in pictures)


def test_a_picture_shows_the_objects_but_not_more_than_512_voxels(evaluated):
    truth = np.zeros((2, 90, 1500), np.uint32)
    truth[1, 40:44, 10:1490] = 3
    truth[0, 60:70, 30:50] = 4
    _, found = evaluated(np.zeros_like(truth), truth)
    large, small = (_window(found, error) for error in found.errors)
    # The place is in the middle, 750; along y the picture has at least 48 voxels around it.
    assert found.errors[0].voxel[0] == 1 and (large.offset[0], large.shape[0]) == (1, 1)
    assert abs(found.errors[0].voxel[2] - (large.offset[2] + 256)) <= 1 and large.shape[2] == 512
    assert large.shape[1] == 48
    # 20 voxels and 8 on either side, but at least 48; y ends at the volume.
    assert (small.offset[0], small.shape[0], small.shape[2]) == (0, 1, 48)
    assert small.offset[1] <= 60 - 8 and small.offset[1] + small.shape[1] >= 70 + 8
