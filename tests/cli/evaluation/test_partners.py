"""``em-blocks evaluate synapses`` as a user types it."""

import csv
import json
import os
import re
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from em_blocks.cli.main import main
from em_blocks.geometry import Frame
from em_blocks.kernels.synapses.table import UNMAPPED, Synapses
from em_blocks.volumes import Volume
from em_blocks.volumes.synapse_files import read_synapses, write_synapses

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("EM_BLOCKS_DATA", ROOT.parent / "shared" / "data"))
PROTOBRIDGE = ROOT / "configs" / "evaluate_protobridge.json"

# Synful's figures in the protocerebral bridge, without cleft scores (funkelab/synful_fafb,
# paper/02MainFig/Apanel): score threshold, F-score, precision, recall.
PUBLISHED = [
    (0, 0.590, 0.616, 0.567), (5, 0.590, 0.616, 0.567), (6, 0.590, 0.618, 0.565),
    (7, 0.590, 0.620, 0.562), (8, 0.590, 0.622, 0.560), (9, 0.589, 0.624, 0.558),
    (10, 0.589, 0.625, 0.557), (30, 0.581, 0.659, 0.519), (60, 0.557, 0.700, 0.463),
    (90, 0.525, 0.731, 0.410), (95, 0.519, 0.736, 0.401), (100, 0.512, 0.739, 0.391),
    (105, 0.506, 0.745, 0.383), (110, 0.499, 0.749, 0.374), (120, 0.486, 0.756, 0.358),
    (150, 0.440, 0.775, 0.308), (200, 0.366, 0.802, 0.237), (300, 0.225, 0.842, 0.130),
    (400, 0.121, 0.857, 0.065), (500, 0.066, 0.864, 0.034), (600, 0.035, 0.868, 0.018),
    (700, 0.019, 0.883, 0.010),
]
SIX = ["fscore", "precision", "recall", "tp", "fp", "fn"]

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -92.0))
# Neurons 1, 2 and 3 side by side along x, then background; 10 voxels each.
NEURONS = np.repeat(np.array([1, 2, 3, 0], np.uint64), 10) * np.ones((4, 10, 1), np.uint64)


def site(z, y, x):
    """The centre of a voxel."""
    return tuple(np.add(FRAME.offset, np.add((z, y, x), 0.5) * FRAME.voxel_size))


def links(*rows, score=None):
    pre, post = np.array(rows, float).reshape(-1, 2, 3).transpose(1, 0, 2)
    return Synapses(id=1 + np.arange(len(rows)), pre=pre, post=post, score=score)


ONE_TO_TWO, TWO_TO_THREE = (site(1, 5, 8), site(1, 5, 12)), (site(2, 5, 18), site(2, 5, 22))
TRUTH = links(ONE_TO_TWO, TWO_TO_THREE, (site(1, 2, 28), site(1, 2, 2)))
PREDICTION = links(
    (site(1, 6, 7), site(1, 6, 13)),  # 1 to 2: true
    (site(1, 5, 5), site(1, 5, 8)),  # near, but in 1
    (site(2, 5, 18), site(2, 5, 32)),  # from 2 to background
    (site(2, 4, 19), site(2, 4, 21)),  # 2 to 3: true
    (site(2, 4, 19), site(2, 4, 25)),  # the same again
    (site(0, 0, 2), tuple(np.add(site(0, 0, 2), (0, -90, 0)))),  # out of the volume
    score=[0.9, 0.8, 0.7, 0.5, 0.6, 0.4],
)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """Partners, a volume of neurons and a config; the working directory."""
    monkeypatch.chdir(tmp_path)
    volume = Volume.create("v.zarr/neurons", shape=NEURONS.shape, dtype="uint64", frame=FRAME,
                           chunk_shape=(2, 10, 16))
    volume.write(volume.box, NEURONS)
    write_synapses("truth.hdf", TRUTH, voxel_size=FRAME.voxel_size, offset=FRAME.offset)
    write_synapses("prediction.csv", PREDICTION)
    write_config()
    return tmp_path


def write_config(**values):
    Path("config.json").write_text(json.dumps({
        "kind": "evaluate_synapses", "truth": "truth.hdf", "prediction": "prediction.csv",
        "neurons": "v.zarr/neurons", "matching_threshold_nm": 100,
    } | values))


def call(config, *arguments):
    arguments = ["evaluate", "synapses", str(config), *map(str, arguments)]
    before = sorted(Path.cwd().rglob("*"))
    result = CliRunner().invoke(main, arguments)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 2:
        assert sorted(Path.cwd().rglob("*")) == before
    return result


def scores(config, *settings):
    arguments = [text for setting in settings for text in ("--set", setting)]
    result = call(config, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)  # and nothing else on stdout


def counts(*settings):
    found = scores("config.json", *settings)
    assert list(found) == SIX
    return found["tp"], found["fp"], found["fn"]


# -- by hand --------------------------------------------------------------------------------


def test_partners_as_in_the_cremi_challenge(folder):
    """Of the two links from 2 to 3 one is true; three are in the wrong neurons."""
    assert counts() == (2, 4, 1)
    found = scores("config.json")
    assert found["precision"] == 2 / 6 and found["recall"] == 2 / 3
    assert found["fscore"] == pytest.approx(2 * 2 / 9 / (2 / 6 + 2 / 3))


@pytest.mark.parametrize(
    ("settings", "expected"),
    [
        (["filter_same_id=true"], (2, 3, 1)),
        (["filter_segment_ids=[0]"], (2, 3, 1)),
        (["filter_redundant=true"], (2, 3, 1)),
        (["filter_redundant=true", "filter_redundant_distance_nm=18"], (2, 4, 1)),
        (["score_threshold=0.6"], (2, 2, 1)),
        (["score_threshold=0.65"], (1, 2, 2)),
        (["filter_same_id=true", "filter_segment_ids=[0]", "filter_redundant=true"], (2, 1, 1)),
        (["matching_threshold_nm=7"], (2, 4, 1)),
        (["matching_threshold_nm=6"], (0, 6, 3)),
        (["score_threshold=0.55", "matching_threshold_nm=7"], (1, 3, 2)),
        (["score_threshold=0.55", "matching_threshold_nm=7", "matching_sites=pre"], (2, 2, 1)),
        (["id_type=none"], (3, 3, 0)),
        (["id_type=none", "matching_threshold_nm=20"], (2, 4, 1)),
        (["neuron_ids=[1]"], (1, 2, 1)),
        (["neuron_ids=[1]", "links=outputs"], (1, 2, 0)),
        (["neuron_ids=[1]", "links=inputs"], (0, 1, 1)),
        (["neuron_ids=[2,1]"], (1 + 2, 2 + 2, 1 + 0)),
        (["flip_prediction=true"], (0, 6, 3)),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_settings_change_what_is_counted(folder, settings, expected):
    assert counts(*settings) == expected


def test_other_formats_give_the_same_scores(folder):
    for name in ("truth.json", "truth.csv", "truth.npz"):
        write_synapses(name, TRUTH)
        assert counts(f"truth={name}") == (2, 4, 1)
    options = {"voxel_size": FRAME.voxel_size, "offset": FRAME.offset}
    write_synapses("truth_pre.csv", TRUTH, **options)
    assert counts("truth=truth_pre.csv", f"voxel_size={list(FRAME.voxel_size)}",
                  f"offset={list(FRAME.offset)}") == (2, 4, 1)


@pytest.mark.parametrize("dtype", ["uint64", "int64", "int32"])
def test_the_background_of_cremi_is_background_in_signed_and_unsigned_neurons(folder, dtype):
    volume = Volume.create("marked.zarr/neurons", shape=NEURONS.shape, dtype=dtype, frame=FRAME,
                           chunk_shape=(2, 10, 16))
    marked = np.where(NEURONS == 0, -1, NEURONS.astype(np.int64))
    volume.write(volume.box, marked.astype(dtype))
    for settings in ((), ("filter_segment_ids=[0]",), ("filter_same_id=true",)):
        assert counts("neurons=marked.zarr/neurons", *settings) == counts(*settings)


def test_neurons_may_be_listed_in_a_file(folder):
    Path("ids.csv").write_text("skeleton,name\n2,b\n1,a\n\n")
    Path("ids.txt").write_text("2\n1\n")
    for name in ("ids.csv", "ids.txt"):
        assert counts(f"neuron_ids={name}") == counts("neuron_ids=[2,1]")


def test_clefts_may_change_scores(folder):
    """Scores are 0.9, 0.8, 0.7, 0.5, 0.6, 0.4; link 1 is true, and of 4 and 5 one."""
    write_synapses("prediction.csv", PREDICTION.replace(cleft_score=[0.5, 0, 1, 2, 0, 0.1]))
    assert counts("score_threshold=0.55") == (2, 2, 1)
    assert counts("score_threshold=0.55", "cleft_scores=replace") == (1, 1, 2)  # 3 and 4
    assert counts("score_threshold=0.65", "cleft_scores=multiply") == (1, 1, 2)
    assert counts("score_threshold=0.4", "cleft_scores=multiply") == (2, 1, 1)  # 1, 3 and 4
    assert counts("score_threshold=0.45", "cleft_scores=filter") == (2, 1, 1)


def test_a_curve_is_a_list_and_a_folder_of_files(folder):
    result = call("config.json", "--thresholds", "0.65,0.1", "--set", "neuron_ids=[1,2]", "--json",
                  "--output", "found")
    first, second = json.loads(result.stdout)
    assert list(first) == ["score_threshold", *SIX]
    assert (first["score_threshold"], second["score_threshold"]) == (0.1, 0.65)
    one = scores("config.json", "neuron_ids=[1,2]", "score_threshold=0.65")
    assert second == {"score_threshold": 0.65, **one}
    files = sorted(file.name for file in Path("found").iterdir())
    assert files == ["edge_accuracy.csv", "edge_accuracy.png", "evaluation.json", "links.csv",
                     "neurons.csv", "precision_recall.png", "thresholds.csv", "thresholds.png"]
    for name in files:
        if name.endswith(".png"):
            with Image.open(Path("found", name)) as picture:
                assert min(picture.size) > 300
    rows = _rows("found/neurons.csv")
    assert [(row["score_threshold"], row["neuron"], row["tp"], row["fp"]) for row in rows] == [
        ("0.1", "1", "1", "2"), ("0.1", "2", "2", "2"), ("0.65", "1", "1", "1"),
        ("0.65", "2", "1", "1"),
    ]
    assert [row["recall"] for row in _rows("found/thresholds.csv")] == ["0.75", "0.5"]
    document = json.loads(Path("found/evaluation.json").read_text())
    assert document["thresholds"][0]["filters"] == [
        {"filter": "score < 0.1", "before": 6, "removed": 0}
    ]
    assert document["thresholds"][0]["unmapped"] == 1  # the one out of the volume


def _rows(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_every_link_is_accounted_for(folder):
    settings = ("filter_same_id=true", "filter_redundant=true", "output=found")
    scores("config.json", *settings)
    outcome = {(row["list"], row["id"]): (row["outcome"], row["partner"])
               for row in _rows("found/links.csv")}
    assert len(outcome) == len(TRUTH) + len(PREDICTION)
    assert outcome["truth", "1"] == ("found", "1") and outcome["prediction", "1"] == ("true", "1")
    assert outcome["truth", "3"] == ("missed", "-1") and outcome["prediction", "3"] == ("false", "-1")
    assert outcome["prediction", "2"] == ("removed: same segment", "-1")
    assert outcome["prediction", "4"] == (
        "removed: duplicate within 250 nm, same segments", "-1"
    )


def test_connections_are_counted_too(folder):
    scores("config.json", "output=found")
    first, second = _rows("found/edge_accuracy.csv")[:2]
    # True: 1-2, 2-3, 3-1. Found: 1-2, and 2-3 twice.
    assert [first[name] for name in ("tp", "fp", "fn", "tn")] == ["2", "0", "1", "0"]
    assert [second[name] for name in ("tp", "fp", "fn", "tn")] == ["0", "1", "0", "2"]


def test_partners_by_chance_are_shown_beside(folder):
    baseline = {"per_cubic_um": 2000, "seed": 3}
    write_config(random_baseline=baseline, output="found", score_threshold=0.1)
    shown = call("config.json").stdout
    assert "by chance" in shown
    document = json.loads(Path("found/evaluation.json").read_text())["random_baseline"]
    volume = np.prod(np.multiply(NEURONS.shape, FRAME.voxel_size)) / 1e9
    assert document["tp"] + document["fp"] == round(2000 * volume)
    call("config.json")
    assert json.loads(Path("found/evaluation.json").read_text())["random_baseline"] == document


def test_a_terminal_shows_scores_and_what_was_filtered(folder):
    write_config(filter_same_id=True, neuron_ids=[1, 2])
    shown = call("config.json", "--thresholds", "0,0.1").stdout
    for words in ("Predicted against true partners", "F-score", "Filtered predictions, score from",
                  "same segment", "unmapped at a site", "Neurons with most errors (2 of 2)",
                  "Connections of two neurons"):
        assert words in shown


# -- bad input ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        (["truth=none.json"], r"none.json cannot be read: No such file"),
        (["truth=config.json"], "holds a JSON dict, but a list of partners"),
        (["prediction=a.tif"], "a.tif has no known format"),
        (["neurons=v.zarr/none"], "There is no volume at"),
        (["neurons=null"], "truth.hdf has no skeleton at any site: it names none"),
        (["neuron_ids=[9]"], "None of the 1 neuron_ids is the segment of any site"),
        (["neuron_ids=[1,2,1]"], "neuron_ids name 1 more than once"),
        (["neuron_ids=[]"], "'neuron_ids.list': got \\[\\]"),
        (["neuron_ids=no.txt"], "neuron_ids .*no.txt cannot be read"),
        (["neuron_ids=bad.txt"], r"Line 2 of .*bad.txt is '1.5'"),
        (["neuron_ids=[1]", "id_type=none"], "neuron_ids are ids of id_type, which is none"),
        (["links=inputs"], "but of which neurons"),
        (["score_threshold=1", "score_thresholds=[1]"], "exclude each other"),
        (["score_threshold=0.5", "prediction=truth.hdf"], "has a score, so a score threshold leaves"),
        (["cleft_scores=replace"], "but no link of .*prediction.csv has a cleft score"),
        (["matching_threshold_nm=0"], "'matching_threshold_nm': got 0"),
        (["matching_site=pre"], "the key 'matching_site' is unknown"),
        (["truth=outside.csv"], r"postsynaptic site of the true link 2 at .* outside of .*; 1 of 3 do"),
        (["truth=cube_pre.csv"], "their size is needed"),
        (["neurons=large.zarr/ids"], r"holds the id 922337203685477581\d at a site"),
        (["random_baseline={}", "neurons=null"], "random_baseline needs a volume of neurons"),
        (["output=/proc/none"], "cannot be written"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_bad_input_exits_with_2_and_one_paragraph(folder, settings, words):
    Path("bad.txt").write_text("2\n1.5\n")
    post = TRUTH.post.copy()
    post[1] = site(4, 0, 0)
    write_synapses("outside.csv", TRUTH.replace(post=post))
    write_synapses("cube_pre.csv", TRUTH, voxel_size=FRAME.voxel_size)
    volume = Volume.create("large.zarr/ids", shape=NEURONS.shape, dtype="uint64", frame=FRAME,
                           chunk_shape=(2, 10, 16))
    volume.write(volume.box, NEURONS + np.uint64(2**63))
    result = call("config.json", *(text for setting in settings for text in ("--set", setting)))
    assert result.exit_code == 2 and not result.stdout
    assert re.search(words, result.stderr), result.stderr
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1


def test_thresholds_are_numbers(folder):
    result = call("config.json", "--thresholds", "0,a")
    assert result.exit_code == 2 and "'0,a' is not of the form 0,5,10" in result.stderr


# -- the protocerebral bridge of the fly ----------------------------------------------------


@pytest.fixture
def protobridge(monkeypatch):
    """The links that Synful's authors published, found without the help of the environment."""
    if not (DATA / "synful_fafb" / "pbfull_pred.json").exists():
        pytest.skip(f"needs the published links in {DATA / 'synful_fafb'} (EM_BLOCKS_DATA)")
    if ROOT.parent / "shared" / "data" == DATA:
        monkeypatch.delenv("EM_BLOCKS_DATA", raising=False)
    return PROTOBRIDGE


def test_published_figures_are_reproduced(protobridge):
    """doi:10.1038/s41592-021-01183-7; the README of synful_fafb: F 0.59, P 0.62, R 0.57."""
    thresholds = ",".join(str(row[0]) for row in PUBLISHED)
    result = call(protobridge, "--thresholds", thresholds, "--json")
    found = json.loads(result.stdout)
    for row, (threshold, *figures) in zip(found, PUBLISHED, strict=True):
        assert row["score_threshold"] == threshold
        np.testing.assert_allclose([row[name] for name in SIX[:3]], figures, atol=0.0005001)


def test_the_published_configuration_is_the_shipped_one(protobridge):
    assert scores(protobridge) == pytest.approx({
        "fscore": 0.59038, "precision": 0.61582, "recall": 0.56696, "tp": 8967, "fp": 5594, "fn": 6849
    }, abs=1e-5)


def test_other_settings_of_the_protocol(protobridge):
    """Counts of a plain loop over neurons and square matrices, written from the rules alone."""
    assert scores(protobridge, "score_threshold=10", "matching_threshold_nm=400") == pytest.approx({
        "fscore": 0.57485, "precision": 0.61036, "recall": 0.54324, "tp": 8592, "fp": 5485, "fn": 7224
    }, abs=1e-5)


def test_the_listed_neurons_are_those_that_truth_is_about(protobridge):
    """Every true link is of one of them, and none could be left out: as dense tracing leaves it."""
    neurons = set(json.loads(protobridge.read_text())["neuron_ids"])
    assert len(neurons) == 27
    truth = read_synapses(DATA / "synful_fafb" / "pbfull_gt.json")
    alone = set()
    for pair in zip(truth.pre_skeleton.tolist(), truth.post_skeleton.tolist()):
        assert neurons & set(pair) and UNMAPPED not in pair
        if len(neurons & set(pair)) == 1:
            alone |= neurons & set(pair)
    assert alone == neurons
