"""``em-blocks evaluate connectivity`` and ``clefts`` as a user types them."""

import csv
import json
import re
from pathlib import Path

import h5py
import networkx as nx
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image
from scipy import sparse

from blockwise import store_of
from em_blocks.cli.main import main
from em_blocks.geometry import Frame
from em_blocks.tasks.evaluation.credit_synapses import CreditSynapses
from em_blocks.volumes import Volume
from test_layering import loaded_by

FRAME = Frame((40.0, 4.0, 4.0), (400.0, 80.0, 40.0))

# Three neurons side by side in x, 12 voxels each; synapse 1 lies between the first two, 2 between
# the last two, 3 within the third. One prediction is right, one between the wrong neurons.
NEURONS = np.repeat(np.array([11, 2**63, 33], np.uint64), 12)[None, None].repeat(4, 0).repeat(6, 1)
TRUTH = np.zeros(NEURONS.shape, np.uint64)
TRUTH[1:3, 2:5, 11:13], TRUTH[1, 0:2, 23:25], TRUTH[3, 5, 30:34] = 1, 2, 3
PREDICTION = np.zeros(NEURONS.shape, np.uint16)
PREDICTION[1:3, 2:5, 10:12], PREDICTION[3, 5, 31] = 8, 9
CREMI = np.where(TRUTH == 0, np.uint64(2**64 - 1), TRUTH)

PATHS = ("--neurons", "v.zarr/neurons", "--truth", "v.zarr/truth", "--prediction", "v.zarr/prediction")
TWO = ("--truth", "v.zarr/truth", "--prediction", "v.zarr/prediction")


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with volumes; the working directory."""
    monkeypatch.chdir(tmp_path)
    volumes = {"neurons": NEURONS, "truth": TRUTH, "prediction": PREDICTION,
               "raw": PREDICTION.astype("float32"), "short": PREDICTION[:, :, :-1]}
    for name, values in volumes.items():
        volume = Volume.create(f"v.zarr/{name}", shape=values.shape, dtype=values.dtype, frame=FRAME,
                               chunk_shape=(2, 3, 8))
        volume.write(volume.box, values)
    with h5py.File("cremi.hdf", "w") as file:
        file["volumes/labels/neuron_ids"], file["volumes/labels/clefts"] = NEURONS, CREMI
        file["found"] = PREDICTION
    Path("config.json").write_text(json.dumps({
        "kind": "credit_synapses", "run": "scored", "neurons": "v.zarr/neurons",
        "truth": "v.zarr/truth", "prediction": "v.zarr/prediction", "reach_voxels": 1,
        "min_voxels": 1, "output": "out/connectivity", "block_shape": [2, 6, 16],
    }))
    return tmp_path


def call(verb, *arguments):
    before = sorted(Path.cwd().rglob("*"))
    result = CliRunner().invoke(main, ["evaluate", verb, *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 2:
        assert sorted(Path.cwd().rglob("*")) == before
    return result


def found(verb, *arguments):
    result = call(verb, *arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)  # and nothing else on stdout


# -- connectivity -----------------------------------------------------------------------------


def test_the_json_holds_exactly_the_scores(folder):
    expected = {"precision": 1.0, "recall": 0.5, "fscore": 2 / 3, "n_neurons": 3}
    assert found("connectivity", *PATHS, "--reach-voxels", 1) == expected
    assert found("connectivity", *PATHS) == expected  # the usual reach
    assert found("connectivity", *PATHS, "--reach-nm", 8) == expected


def test_hdf5_of_cremi_gives_the_same(folder):
    volumes = ("--neurons", "cremi.hdf:volumes/labels/neuron_ids", "--truth",
               "cremi.hdf:volumes/labels/clefts", "--prediction", "cremi.hdf:found")
    assert found("connectivity", *volumes) == found("connectivity", *PATHS)


def test_options_choose_what_counts(folder):
    assert found("connectivity", *PATHS, "--exclude", 2**63)["n_neurons"] == 2
    assert found("connectivity", *PATHS, "--min-overlap", 5)["recall"] == 1
    assert found("connectivity", *PATHS, "--min-overlap", 10)["fscore"] == 0
    assert found("connectivity", *PATHS, "--mode", "best")["recall"] == 0.5
    # With a reach of 5 the predicted synapse 9, and true synapse 3, still touch one neuron only.
    assert found("connectivity", *PATHS, "--reach-voxels", 5)["recall"] == 0.5


def test_files_hold_matrices_edges_synapses_and_a_picture(folder):
    found("connectivity", *PATHS, "--output", "results", "--contacts")
    results = folder / "results"
    ids = [int(row["neuron"]) for row in table(results / "neurons.csv")]
    assert ids == [11, 33, 2**63]
    truth = sparse.load_npz(results / "truth.npz").toarray()
    assert truth.tolist() == [[0, 0, 1], [0, 0, 1], [1, 1, 0]]
    assert table(results / "edges.csv") == [
        {"a": "11", "b": str(2**63), "truth": "1", "prediction": "1"},
        {"a": "33", "b": str(2**63), "truth": "1", "prediction": "0"},
    ]
    graph = nx.read_graphml(results / "edges.graphml")
    assert graph.edges["11", str(2**63)] == {"truth": 1, "prediction": 1} and len(graph.edges) == 2
    pairs = {(row["volume"], row["synapse"]): row["pairs"] for row in table(results / "synapses.csv")}
    assert pairs == {("truth", "1"): "1", ("truth", "2"): "1", ("truth", "3"): "0",
                     ("prediction", "8"): "1", ("prediction", "9"): "0"}
    assert {row["voxels"] for row in table(results / "contacts.csv")} == {str(4 * 6 * 2)}
    with Image.open(results / "matrices.png") as picture:
        assert min(picture.size) > 300
    document = json.loads((results / "evaluation.json").read_text())
    assert (document["tp"], document["fp"], document["fn"]) == (1, 0, 1)
    assert document["truth"]["synapses_without_pair"] == 1
    assert document["truth"]["pairs_per_synapse"]["max"] == 1
    network = document["networks"]["truth"]
    assert (network["neurons"], network["connections"], network["components"]) == (3, 2, 1)


def table(path):
    with open(path, newline="") as file:
        return list(csv.DictReader(file))


def test_a_terminal_shows_the_figures(folder):
    shown = call("connectivity", *PATHS).stdout
    for words in ("precision", "0.6667", "pairs only in truth", "between no two neurons"):
        assert words in shown


def test_a_config_counts_on_workers_and_stores_the_scores(folder):
    here = found("connectivity", *PATHS, "--min-voxels", 1)
    assert found("connectivity", "config.json") == here
    assert Path("out/connectivity/edges.csv").exists()
    # Other choices are made without counting again.
    assert found("connectivity", "config.json", "--set", "exclude=[11]")["n_neurons"] == 2
    task = CreditSynapses.from_file("config.json")
    with store_of(task) as store:
        assert {d["epoch"] for d in store.documents()} == {1}
        (stored,) = store.database.evaluations.find({"run": "scored"})
    assert stored["_id"] == "scored/connectivity" and stored["n_neurons"] == 2
    assert CliRunner().invoke(main, ["verify", "config.json"]).exit_code == 0
    assert call("connectivity", "config.json", "--set", "reach_voxels=2").exit_code == 3


def test_no_scores_are_given_while_blocks_are_missing(folder):
    next(p for p in Path("v.zarr/truth").rglob("*") if p.is_file() and p.name == "1").write_bytes(b"x")
    result = call("connectivity", "config.json", "--set", "max_retries=0", "--json")
    assert result.exit_code == 1 and "precision" not in result.stdout
    assert not Path("out/connectivity/evaluation.json").exists()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (PATHS[:4], "Name --neurons VOLUME, --truth VOLUME and --prediction VOLUME, or a CONFIG"),
        (("config.json", *PATHS), "--neurons cannot be given together with a CONFIG"),
        ((*PATHS, "--overwrite"), "--overwrite belongs to a CONFIG"),
        ((*PATHS, "--reach-voxels", 0), "0 is not in the range"),
    ],
)
def test_a_wrong_command_line_exits_with_2(folder, arguments, words):
    result = call("connectivity", *arguments)
    assert result.exit_code == 2 and words in result.stderr and not result.stdout


@pytest.mark.parametrize(
    ("option", "value", "words"),
    [
        ("--neurons", "v.zarr/none", "There is no volume at .*v.zarr/none"),
        ("--truth", "v.zarr/raw", "raw holds float32 values .* but one integer id per voxel"),
        ("--prediction", "v.zarr/short", r"are not on one voxel grid: \(4, 6, 36\) voxels of .* 35\)"),
        ("--prediction", "cremi.hdf:none", "no dataset 'none' in .*cremi.hdf"),
        ("--reach-nm", 3, "reach_nm = 3.0 is .0, 0, 0. voxels"),
        ("--min-voxels", 10**6, "No neuron is left in .*neurons"),
        ("--mode", "directed", "directed needs both of truth_partners"),
        ("--output", "/proc/none", "cannot be written"),
    ],
)
def test_bad_input_exits_with_2_and_one_paragraph(folder, option, value, words):
    result = call("connectivity", *PATHS, option, value)
    assert result.exit_code == 2 and not result.stdout
    assert re.search(words, result.stderr), result.stderr
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1


def test_a_reach_in_nm_needs_voxels_of_known_size(folder):
    unknown = "cremi.hdf:volumes/labels/neuron_ids"
    result = call("connectivity", "--neurons", unknown, "--truth", unknown, "--prediction", unknown,
                  "--reach-nm", 8)
    assert result.exit_code == 2 and "says how large its voxels are" in result.stderr


def test_asking_for_other_scores_loads_no_numba():
    loaded = loaded_by("import em_blocks.pipelines.evaluate")
    assert not loaded & {"numba", "scipy", "networkx", "matplotlib"}


# -- clefts ----------------------------------------------------------------------------------


def test_voxels_that_truth_marks_as_unknown_do_not_count(folder):
    unknown = np.where(PREDICTION == 8, np.uint64(2**64 - 2), CREMI)
    with h5py.File("cremi.hdf", "a") as file:
        file["unknown"] = unknown
        file["unknown"].attrs["resolution"] = FRAME.voxel_size
    volumes = ("--truth", "cremi.hdf:unknown", "--prediction", "cremi.hdf:found")
    assert found("instances", *volumes)["n_prediction"] == 1
    assert found("clefts", *volumes)["false_positives"]["count"] == 1


def test_marks_in_signed_integers_mean_the_same(folder):
    """-1 and -2 are what uint64 stores as 2^64 - 1 and 2^64 - 2."""
    unknown = np.where(PREDICTION == 8, np.uint64(2**64 - 2), CREMI)
    prediction = np.where(PREDICTION == 0, np.uint64(2**64 - 1), PREDICTION)
    with h5py.File("cremi.hdf", "a") as file:
        for dtype in (np.uint64, np.int64, np.int32):
            for name, values in (("p", prediction), ("t", unknown)):
                file[f"{name}{dtype.__name__}"] = values.astype(dtype)
                file[f"{name}{dtype.__name__}"].attrs.update(
                    resolution=FRAME.voxel_size, offset=FRAME.offset
                )
    for verb in ("instances", "clefts"):
        documents = [
            found(verb, "--truth", f"cremi.hdf:t{dtype}", "--prediction", f"cremi.hdf:p{dtype}")
            for dtype in ("uint64", "int64", "int32")
        ]
        assert documents[0] == documents[1] == documents[2]
        assert documents[0].get("n_prediction", 1) == 1
    signed = ("--neurons", "v.zarr/neurons", "--truth", "cremi.hdf:tint64",
              "--prediction", "cremi.hdf:pint64")
    unsigned = [word.replace("int64", "uint64") for word in signed]
    assert found("connectivity", *signed) == found("connectivity", *unsigned)


def test_other_negative_ids_are_no_clefts_but_an_error(folder):
    with h5py.File("cremi.hdf", "a") as file:
        file["odd"] = np.where(PREDICTION == 8, -7, 0)
        file["odd"].attrs.update(resolution=FRAME.voxel_size, offset=FRAME.offset)
    for verb in ("instances", "clefts"):
        result = call(verb, "--truth", "v.zarr/truth", "--prediction", "cremi.hdf:odd")
        assert result.exit_code == 2 and "cremi.hdf:odd holds the id -7 at voxel" in result.stderr


def test_clefts_are_measured_both_ways(folder):
    document = found("clefts", *TWO)
    # Half of the voxels of prediction 8 are one voxel (4 nm) beside synapse 1.
    np.testing.assert_allclose(document["false_positives"]["mean"], 4 * 6 / 13)
    assert document["false_positives"]["count"] == 13 and document["false_negatives"]["count"] == 20
    assert document["false_positives"]["far"] == 0 and document["far_nm"] == 200
    assert found("clefts", *TWO, "--far-nm", 3)["false_positives"]["far"] == 6
    assert "score (mean of both means)" in call("clefts", *TWO).stdout


@pytest.mark.parametrize(
    ("verb", "arguments", "words"),
    [
        ("clefts", ("--truth", "v.zarr/raw"), "raw holds float32"),
        ("clefts", ("--truth", "cremi.hdf:found", "--prediction", "cremi.hdf:found"),
         "says how large its voxels are, but distances are nm"),
    ],
)
def test_clefts_refuse_bad_input(folder, verb, arguments, words):
    result = call(verb, *TWO, *arguments)
    assert result.exit_code == 2 and words in result.stderr and not result.stdout
