"""``em-blocks evaluate mask`` as a user types it."""

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from blockwise import store_of
from em_blocks.cli.main import main
from em_blocks.geometry import Frame
from em_blocks.tasks.evaluation.count_mask import CountMask
from em_blocks.volumes import Volume

FRAME = Frame((45.0, 9.2, 9.2), (450.0, 0.0, 92.0))
#                   section 0            section 1
TRUTH = np.array([[[1, 1, 1, 1, 0, 0]], [[3, 0, 0, 0, 0, 0]]], np.uint8)
PREDICTED = np.array([[[255, 255, 140, 100, 200, 0]], [[240, 150, 0, 0, 0, 0]]], np.uint8)
METRIC = np.array([[[1, 1, 1, 1, 0, 1]], [[1, 1, 1, 1, 1, 1]]], np.uint8)
KEYS = {"dice", "jaccard", "precision", "recall", "threshold"}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with volumes; the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, values, attributes in (
        ("truth", TRUTH, {}), ("predicted", PREDICTED, {"scale": 255.0}), ("metric", METRIC, {}),
    ):
        volume = Volume.create(f"v.zarr/{name}", shape=TRUTH.shape, dtype=values.dtype, frame=FRAME,
                               chunk_shape=(1, 1, 4), attributes=attributes)
        volume.write(volume.box, values)
    Path("config.json").write_text(json.dumps({
        "kind": "count_mask", "run": "scored", "prediction": "v.zarr/predicted",
        "truth": "v.zarr/truth", "metric_masks": ["v.zarr/metric"], "output": "out/evaluation",
        "block_shape": [1, 1, 4],
    }))
    return tmp_path


def call(*arguments):
    result = CliRunner().invoke(main, ["evaluate", "mask", *arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def scores(*arguments):
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


VOLUMES = ("--prediction", "v.zarr/predicted", "--truth", "v.zarr/truth")


def test_the_json_has_five_keys(folder):
    found = scores(*VOLUMES)
    assert found == pytest.approx({
        "dice": 8 / 11, "jaccard": 4 / 7, "precision": 4 / 6, "recall": 4 / 5, "threshold": 0.5,
    })
    assert found.keys() == KEYS


def test_a_metric_mask_excludes_voxels(folder):
    found = scores(*VOLUMES, "--metric-mask", "v.zarr/metric")
    assert found["precision"] == 4 / 5 and found["recall"] == 4 / 5


def test_a_threshold_and_ids_of_truth(folder):
    found = scores(*VOLUMES, "--threshold", "0.9", "--truth-ids", "1")
    assert found == pytest.approx({
        "dice": 4 / 7, "jaccard": 2 / 5, "precision": 2 / 3, "recall": 0.5, "threshold": 0.9,
    })


def test_a_mask_has_no_threshold_and_scores_of_nothing_are_null(folder):
    found = scores("--prediction", "v.zarr/truth", "--truth", "v.zarr/truth")
    assert found == {"dice": 1, "jaccard": 1, "precision": 1, "recall": 1, "threshold": None}
    found = scores("--prediction", "v.zarr/truth", "--truth", "v.zarr/truth", "--truth-ids", "9")
    assert (found["dice"], found["recall"]) == (0, None)


def test_sections_and_a_sweep_are_printed_when_asked_for(folder):
    found = scores(*VOLUMES, "--sections", "--thresholds", "0.3:0.9:0.3")
    assert found.keys() == KEYS | {"sections", "thresholds"}
    assert [s["recall"] for s in found["sections"]] == [3 / 4, 1]
    assert [s["z_nm"] for s in found["sections"]] == [450, 495]
    assert [t["threshold"] for t in found["thresholds"]] == [0.3, 0.5, 0.6, 0.9]
    assert [t["fn"] for t in found["thresholds"]] == [0, 1, 2, 2]


def test_an_output_folder_gets_everything(folder):
    result = call(*VOLUMES, "--thresholds", "0.3,0.7", "--output", "scores")
    assert result.exit_code == 0, result.output
    assert "Highest Dice: 0.8333 at the threshold 0.3" in result.stdout
    document = json.loads(Path("scores/evaluation.json").read_text())
    assert document["best"]["threshold"] == 0.3 and document["tp"] == 4
    with open("scores/sections.csv") as file:
        assert [row["section"] for row in csv.DictReader(file)] == ["0", "1"]
    with open("scores/curve.csv") as file:
        assert [row["threshold"] for row in csv.DictReader(file)] == ["0.3", "0.5", "0.7"]
    with Image.open("scores/curve.png") as picture:
        assert picture.size[0] > 100


def test_a_config_counts_on_workers_and_stores_the_scores(folder):
    expected = scores(*VOLUMES, "--metric-mask", "v.zarr/metric")
    assert scores("config.json") == expected
    with store_of(CountMask.from_file("config.json")) as store:
        (stored,) = store.database.evaluations.find({"run": "scored"})
    assert stored["dice"] == expected["dice"] and stored["without_exclusion"]["fp"] == 2
    assert len(stored["sections"]) == 2
    assert Path("out/evaluation/sections.csv").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--prediction", "v.zarr/predicted"), "Name --prediction VOLUME and --truth VOLUME"),
        (("config.json", "--threshold", "0.5"), "cannot be given together with a CONFIG"),
        ((*VOLUMES, "--overwrite"), "belongs to a CONFIG"),
        ((*VOLUMES, "--thresholds", "0.9:0.3:0.1"), "not of the form"),
        ((*VOLUMES, "--channel", "mito"), "has no channels"),
        ((*VOLUMES, "--metric-mask", "v.zarr/none"), "no volume at"),
    ],
)
def test_what_cannot_be_is_said_in_a_paragraph(folder, arguments, words):
    before = sorted(folder.rglob("*"))
    result = call(*arguments)
    assert result.exit_code == 2 and words in result.output
    assert sorted(folder.rglob("*")) == before
