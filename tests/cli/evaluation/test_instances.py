"""``em-blocks evaluate instances`` as a user types it."""

import csv
import json
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from blockwise import store_of
from em_blocks.cli.main import main
from em_blocks.geometry import Frame
from em_blocks.tasks.evaluation.count_instances import CountInstances
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 80.0, 46.0))
SHAPE = (3, 8, 30)


def drawn(*boxes):
    """Labels of boxes (id, first y, last y, first x, last x) in all sections but the first."""
    labels = np.zeros(SHAPE, np.uint32)
    for id, y, y_last, x, x_last in boxes:
        labels[1:, y : y_last + 1, x : x_last + 1] = id
    return labels


# Found; split in a large and a small part; merged with its neighbour; missed.
TRUTH = drawn((1, 1, 4, 1, 4), (2, 1, 2, 6, 15), (3, 1, 2, 17, 20), (4, 1, 2, 21, 23), (5, 6, 6, 20, 28))
PREDICTION = drawn(
    (10, 1, 4, 1, 4), (20, 1, 2, 6, 12), (21, 1, 2, 13, 15), (30, 1, 2, 17, 23), (60, 4, 5, 10, 12)
)
VOLUMES = ("--prediction", "v.zarr/prediction", "--truth", "v.zarr/truth")
CONFIG = {
    "kind": "count_instances", "run": "scored", "prediction": "v.zarr/prediction",
    "truth": "v.zarr/truth", "raw": "v.zarr/raw", "output": "out/evaluation", "block_shape": [2, 4, 16],
}


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with volumes; the working directory."""
    monkeypatch.chdir(tmp_path)
    raw = np.random.default_rng(0).integers(60, 200, SHAPE).astype("uint8")
    known = np.ones(SHAPE, "uint8")
    known[:, 6:] = 0
    for name, values in (
        ("truth", TRUTH), ("prediction", PREDICTION), ("raw", raw), ("known", known),
        ("image", raw.astype("float32")),
    ):
        volume = Volume.create(f"v.zarr/{name}", shape=SHAPE, dtype=values.dtype, frame=FRAME,
                               chunk_shape=(2, 4, 16))
        volume.write(volume.box, values)
    Path("config.json").write_text(json.dumps(CONFIG))
    return tmp_path


def call(*arguments):
    result = CliRunner().invoke(main, ["evaluate", "instances", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def found(*arguments):
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)  # and nothing else on stdout


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def middle(z, y, x):
    return pytest.approx([400 + 40 * (z + 0.5), 80 + 4.6 * (y + 0.5), 46 + 4.6 * (x + 0.5)])


# -- scores by hand -----------------------------------------------------------------------


def test_the_json_has_the_scores(folder):
    """1 is found, 2 by 14 of 20 pixels, 3 by 8 of 14 with 4 in it; 4 and 5 are not; 21 and 60 false."""
    document = found(*VOLUMES, "--iou", 0.5)
    tp, fp, fn, ious = 3, 2, 2, [1, 14 / 20, 8 / 14]
    assert document["precision"] == document["recall"] == document["fscore"] == 0.6
    assert (document["n_truth"], document["n_prediction"]) == (5, 5)
    assert (document["tp"], document["fp"], document["fn"], document["iou"]) == (tp, fp, fn, 0.5)
    assert document["ap"] == 3 / 7 and document["mean_iou"] == pytest.approx(sum(ious) / 3)
    assert document["pq"] == pytest.approx(sum(ious) / (tp + fp / 2 + fn / 2))
    at = document["average_precision"]
    assert at["0.5"] == 3 / 7 and at["0.75"] == 1 / 9
    steps = [3 / 7] * 2 + [2 / 8] * 3 + [1 / 9] * 5  # 0.5 and 0.55; 0.6 to 0.7; then 1 alone
    assert at["0.5:0.95"] == pytest.approx(np.mean(steps))
    both = (PREDICTION > 0) & (TRUTH > 0)
    assert document["voxels"]["precision"] == both.sum() / (PREDICTION > 0).sum()
    assert document["voxels"]["recall"] == both.sum() / (TRUTH > 0).sum()


def test_errors_have_a_kind_ids_and_a_place(folder):
    document = found(*VOLUMES, "--iou", 0.5)
    assert document["errors"] == {"split": 1, "merge": 1, "missed": 1, "false": 1, "inexact": 0}
    errors = {error["type"]: error for error in document["error_list"]}
    merge, split = errors["merge"], errors["split"]
    assert (merge["truth"], merge["prediction"], merge["voxels"]) == ([3, 4], [30], 12)
    assert (split["truth"], split["prediction"], split["voxels"]) == ([2], [20, 21], 12)
    # At the seams: the voxel of the smaller part that faces the larger one.
    assert merge["position_nm"] == middle(1, 1, 21) and split["position_nm"] == middle(1, 1, 13)
    assert (errors["missed"]["truth"], errors["missed"]["voxels"]) == ([5], 18)
    assert errors["missed"]["position_nm"] == middle(1, 6, 24)
    assert (errors["false"]["prediction"], errors["false"]["truth"]) == ([60], [])
    assert errors["false"]["position_nm"] == middle(1, 4, 11)
    causes = document["causes"]
    assert causes["fn"] == {"split": 0, "merge": 1, "missed": 1, "inexact": 0}
    assert causes["fp"] == {"split": 1, "merge": 0, "false": 1, "inexact": 0}
    # 5 and 1 overlap nothing else; at a higher IoU more is wrong.
    assert found(*VOLUMES, "--iou", 0.75)["causes"]["fn"] == {
        "split": 1, "merge": 2, "missed": 1, "inexact": 0
    }


def test_intervals_surround_the_scores_and_few_objects_are_called_few(folder):
    document = found(*VOLUMES, "--iou", 0.5)
    intervals = document["intervals"]
    # 1 with 10; 2 with 20 and 21; 3 and 4 with 30; 5; 60.
    assert (intervals["groups"], intervals["level"], intervals["draws"]) == (5, 0.95, 1000)
    for name, value in (("precision", 0.6), ("recall", 0.6), ("fscore", 0.6),
                        ("voxel_recall", document["voxels"]["recall"])):
        low, high = intervals[name]
        assert 0 <= low < value < high <= 1
    assert document["note"].startswith("5 true objects are few") and "up to 3 in 5" in document["note"]


def test_several_ious_and_bins_of_size(folder):
    document = found(*VOLUMES, "--iou", 0.6, "--iou", 0.5, "--size-bound", 20)
    assert (document["iou"], document["tp"]) == (0.6, 2)
    assert [at["iou"] for at in document["by_iou"]] == [0.6, 0.5]
    small, large = document["by_iou"][1]["by_size"]
    assert (small["high"], large["low"], large["high"]) == (20, 20, None)
    # 3 (16 voxels) is found by 30 (28 voxels): they are counted together.
    names = ("truth", "truth_found", "predictions", "predictions_right")
    assert [small[name] for name in names] == [3, 1, 3, 1]
    assert [large[name] for name in names] == [2, 2, 2, 2]
    assert large["fscore"] == 1 and small["fscore"] == pytest.approx(1 / 3)


def test_a_perfect_prediction_has_no_error(folder):
    document = found("--prediction", "v.zarr/truth", "--truth", "v.zarr/truth")
    for name in ("precision", "recall", "fscore", "ap", "pq", "mean_iou"):
        assert document[name] == 1
    assert document["error_list"] == [] and document["intervals"]["fscore"] == [1, 1]
    assert set(document["errors"].values()) == {0}


def test_what_does_not_count(folder):
    """Row 6 and below unknown: 5 is, and 60 at (4..5) is not."""
    document = found(*VOLUMES, "--iou", 0.5, "--metric-mask", "v.zarr/known")
    assert (document["fn"], document["fp"], document["n_truth"]) == (1, 2, 4)
    assert found(*VOLUMES, "--mask", "v.zarr/known")["n_truth"] == 4
    assert found(*VOLUMES, "--ignore", 5, "--ignore", 4)["n_truth"] == 3
    assert found(*VOLUMES, "--min-voxels", 15)["n_truth"] == 4
    assert found(*VOLUMES, "--margin", "0,0,2")["n_truth"] == 5
    assert found(*VOLUMES, "--margin", "0,0,6", "--border", "leave-out")["left_out"] == {
        "truth": 4, "prediction": 4
    }
    assert found(*VOLUMES, "--roi", "400,80,46", "120,36.8,69")["n_truth"] == 2


def test_everything_touches_the_last_section(folder):
    document = found(*VOLUMES, "--border", "leave-out")
    assert document["precision"] is None and document["n_truth"] == 0
    assert document["left_out"] == {"truth": 5, "prediction": 5}


def test_synapses_are_matched_as_in_the_predecessor(folder):
    """Right is what any object overlaps enough; small ones and those in the margin do not count."""
    document = found(*VOLUMES, "--iou", 0.2, "--matching", "overlap", "--min-voxels", 9)
    right = set()
    for p in (10, 20, 21, 30, 60):
        for t in range(1, 6):
            mine, true = (labels == id for labels, id in ((PREDICTION, p), (TRUTH, t)))
            if (mine & true).sum() / (mine | true).sum() >= 0.2:
                right.add(p)
    assert document["tp"] == len(right) == 4 and document["pq"] is None
    assert document["recall"] == 4 / 5


# -- files and workers --------------------------------------------------------------------


def test_files_list_objects_and_errors_and_show_the_worst(folder):
    document = found(*VOLUMES, "--raw", "v.zarr/raw", "--iou", 0.5, "--output", "out")
    assert json.loads(Path("out/evaluation.json").read_text()) == document
    rows = table("out/objects.csv")
    assert [(r["volume"], r["id"], r["partner_at_0.5"], r["verdict"]) for r in rows] == [
        ("truth", "1", "10", "matched"), ("truth", "2", "20", "matched"),
        ("truth", "3", "30", "matched"), ("truth", "4", "0", "merge"), ("truth", "5", "0", "missed"),
        ("prediction", "10", "1", "matched"), ("prediction", "20", "2", "matched"),
        ("prediction", "21", "0", "split"), ("prediction", "30", "3", "matched"),
        ("prediction", "60", "0", "false"),
    ]
    fourth = rows[3]
    assert (fourth["voxels"], fourth["cut"], fourth["best_overlap"]) == ("12", "1", "30")
    assert float(fourth["volume_nm3"]) == pytest.approx(12 * 40 * 4.6**2, rel=1e-5)
    assert float(fourth["best_iou"]) == pytest.approx(6 / 14, rel=1e-5)
    centre = [float(fourth[f"{axis}_nm"]) for axis in "zyx"]
    assert centre == pytest.approx([480, 80 + 2 * 4.6, 46 + 22.5 * 4.6], abs=0.01)
    errors = table("out/errors.csv")
    assert [e["type"] for e in errors] == [e["type"] for e in document["error_list"]]
    assert errors[0]["type"] == "missed" and errors[0]["picture"] == "worst/01_missed_5.png"
    pictures = sorted(path.name for path in Path("out/worst").iterdir())
    assert pictures == ["01_missed_5.png", "02_split_2.png", "03_merge_30.png", "04_false_60.png"]
    assert np.asarray(Image.open("out/worst/03_merge_30.png")).shape[2] == 3


def test_pictures_of_an_earlier_evaluation_do_not_stay(folder):
    found(*VOLUMES, "--output", "out")
    found("--prediction", "v.zarr/truth", "--truth", "v.zarr/truth", "--output", "out")
    assert list(Path("out/worst").iterdir()) == []


def test_a_table_names_the_errors_with_their_places(folder):
    text = call(*VOLUMES, "--size-bound", 20).stdout
    for words in ("panoptic quality", "2 of 2 true objects found", "Voxels of any object",
                  "merge: truth 3 4, prediction 30; 12 voxels, at 460.0, 86.9, 144.9 nm",
                  "5 true objects are few"):
        assert words in text, text
    assert "few" not in call("--help").stdout


def test_a_config_counts_on_workers_and_keeps_the_scores(folder):
    document = found("config.json")
    here = found(*VOLUMES, "--raw", "v.zarr/raw")
    assert document == here
    assert Path("out/evaluation/worst/01_missed_5.png").exists()
    with store_of(CountInstances.from_file("config.json")) as store:
        (stored,) = store.database["evaluations"].find({"run": "scored"})
    assert stored["name"] == "instances" and stored["pq"] == document["pq"]
    # What is scored may change without counting again.
    again = found("config.json", "--set", "iou=[0.6]", "--set", "border=leave-out")
    assert again["iou"] == 0.6 and again["left_out"]["truth"] == 5
    assert call("config.json", "--set", "min_voxels=2", "--set", "margin=[0,1,0]").exit_code == 3


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (VOLUMES[:2], "Name --prediction VOLUME and --truth VOLUME, or a CONFIG"),
        (("config.json", *VOLUMES), "--prediction cannot be given together with a CONFIG"),
        ((*VOLUMES, "--overwrite"), "--overwrite belongs to a CONFIG"),
        ((*VOLUMES, "--iou", 0), "0.0 is not in the range"),
        ((*VOLUMES, "--margin", "2,0"), "is not of the form z,y,x in voxels"),
        ((*VOLUMES, "--margin", "2,0,0"), "Nothing is left of"),
        ((*VOLUMES, "--size-bound", 9, "--size-bound", 4), "sizes must rise, got 9, 4"),
        ((*VOLUMES[:2], "--truth", "v.zarr/none"), "There is no volume"),
        ((*VOLUMES[:2], "--truth", "v.zarr/image"), "holds float32"),
        ((*VOLUMES, "--raw", "v.zarr/none"), "There is no volume"),
        ((*VOLUMES, "--output", "/proc/none"), "cannot be written"),
        ((*VOLUMES, "--output", "v.zarr/truth/out"), "truth"),
    ],
)
def test_bad_input_exits_with_2_and_leaves_nothing(folder, arguments, words):
    before = sorted(Path.cwd().rglob("*"))
    result = call(*arguments)
    assert result.exit_code == 2 and not result.stdout
    assert re.search(re.escape(words), result.stderr), result.stderr
    assert sorted(Path.cwd().rglob("*")) == before
