"""``em-blocks evaluate segmentation`` as a user types it."""

import csv
import json
import os
import re
from pathlib import Path

import h5py
import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from blockwise import store_of
from em_blocks.cli.main import main
from em_blocks.geometry import Frame
from em_blocks.tasks.evaluation.count_overlaps import CountOverlaps
from em_blocks.tasks.volumes.ingest import Ingest
from em_blocks.volumes import Volume
from test_layering import loaded_by

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("EM_BLOCKS_DATA", ROOT.parent / "shared" / "data"))
FRAME = Frame((10.0, 10.0, 10.0), (100.0, 0.0, 0.0))

# One section of two neurons and an unknown voxel; `cut` splits the first neuron in halves,
# `joined` merges both.
TRUTH = np.array([[[1, 1, 1, 1, 2, 2, 2, 2, 0]]], np.uint64)
CUT = np.array([[[3, 3, 4, 4, 5, 5, 5, 5, 5]]], np.uint64)
JOINED = np.full_like(TRUTH, 7)

SWC = "1 0 {0} 5 105 1 -1\n2 0 {1} 5 105 1 1\n3 0 {2} 5 105 1 2\n"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A folder with volumes and skeletons; the working directory."""
    monkeypatch.chdir(tmp_path)
    for name, values in {"truth": TRUTH, "cut": CUT, "joined": JOINED}.items():
        volume = Volume.create(f"v.zarr/{name}", shape=TRUTH.shape, dtype="uint64", frame=FRAME,
                               chunk_shape=(1, 1, 4))
        volume.write(volume.box, values)
    raw = Volume.create("v.zarr/raw", shape=TRUTH.shape, dtype="float32", frame=FRAME,
                        chunk_shape=(1, 1, 4))
    raw.write(raw.box, TRUTH.astype("float32"))
    with h5py.File("s.h5", "w") as file:
        file["stack"] = CUT.astype(np.uint32)
        file["transforms"] = np.array([[3, 30], [4, 30], [5, 50]], np.uint64)
        file["longer"] = np.zeros((1, 1, 20), np.uint32)
    Path("skeletons").mkdir()
    Path("skeletons/one.swc").write_text(SWC.format(5, 15, 35))
    Path("skeletons/two.swc").write_text(SWC.format(45, 55, 75))
    Path("config.json").write_text(json.dumps({
        "kind": "count_overlaps", "run": "scored", "truth": "v.zarr/truth",
        "segmentations": {"0.1": "v.zarr/cut", "0.9": "v.zarr/joined"},
        "output": "out/evaluation", "block_shape": [1, 1, 4],
    }))
    return tmp_path


def call(*arguments):
    before = sorted(Path.cwd().rglob("*"))
    result = CliRunner().invoke(main, ["evaluate", "segmentation", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    if result.exit_code == 2:
        assert sorted(Path.cwd().rglob("*")) == before
    return result


def scores(*arguments):
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)  # and nothing else on stdout




def test_the_json_names_the_scores(folder):
    cut = scores("--segmentation", "v.zarr/cut", "--truth", "v.zarr/truth")
    assert (cut["voi_split"], cut["voi_merge"]) == (0.5, 0.0)
    joined, called, true = 1 + 1 + 6, 1 + 1 + 6, 6 + 6
    np.testing.assert_allclose(cut["arand"], 1 - 2 * joined / (called + true))
    assert (cut["voxels"], cut["voxels_ignored"], cut["segments"], cut["neurons"]) == (8, 1, 3, 2)
    assert cut["worst_splits"] == [{
        "neuron": 1, "voxels": 4, "bits": 0.5, "segments": 2,
        "largest_segments": [{"id": 3, "voxels": 2}, {"id": 4, "voxels": 2}],
    }]
    merged = scores("--segmentation", "v.zarr/joined", "--truth", "v.zarr/truth", "--ignore", 0)
    assert (merged["voi_split"], merged["voi_merge"]) == (0.0, 1.0)


def test_what_is_ignored_is_said_on_the_command_line(folder):
    volumes = ("--segmentation", "v.zarr/cut", "--truth", "v.zarr/truth")
    assert scores(*volumes, "--ignore", "none")["voxels"] == 9
    assert scores(*volumes, "--ignore", 0, "--ignore", 1)["voi_split"] == 0
    assert scores(*volumes, "--ignore-segmentation", 4)["voxels"] == 6


@pytest.fixture
def signed(folder):
    """Volumes in which -1 marks what is unknown, as signed and as unsigned integers."""
    values = {"truth": np.where(TRUTH == 0, -1, TRUTH.astype(np.int64)),
              "cut": np.where(CUT == 4, -1, CUT.astype(np.int64))}
    for name, labels in values.items():
        for dtype in ("int8", "int32", "int64", "uint64"):
            volume = Volume.create(f"signed.zarr/{name}_{dtype}", shape=TRUTH.shape, dtype=dtype,
                                   frame=FRAME, chunk_shape=(1, 1, 4))
            volume.write(volume.box, labels.astype(dtype))
    return folder


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64", "uint64"])
@pytest.mark.parametrize("spelling", [-1, 2**64 - 1])
def test_minus_one_is_ignored_in_either_spelling(signed, dtype, spelling):
    truth = ("--truth", f"signed.zarr/truth_{dtype}")
    ignoring = scores("--segmentation", "v.zarr/cut", *truth, "--ignore", spelling)
    expected = scores("--segmentation", "v.zarr/cut", "--truth", "v.zarr/truth")
    assert ignoring | {"segmentation": ""} == expected | {"segmentation": ""}
    both = scores("--segmentation", f"signed.zarr/cut_{dtype}", *truth, "--ignore", spelling,
                  "--ignore-segmentation", spelling)
    assert (both["voxels"], both["segments"]) == (6, 2)


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
def test_a_negative_id_that_is_not_ignored_is_named_with_its_voxel(signed, dtype):
    result = call("--segmentation", "v.zarr/cut", "--truth", f"signed.zarr/truth_{dtype}")
    assert result.exit_code == 2
    assert f"truth_{dtype} holds the id -1 at voxel (0, 0, 8) (zyx)" in result.stderr
    assert "`--ignore -1`" in result.stderr
    result = call("--segmentation", f"signed.zarr/cut_{dtype}", "--truth", "v.zarr/truth",
                  "--ignore", -1)
    assert result.exit_code == 2 and f"cut_{dtype} holds the id -1 at voxel" in result.stderr


@pytest.mark.parametrize("dtype", ["int32", "uint64"])
def test_a_skeleton_in_what_minus_one_marks_is_omitted_not_merged(signed, dtype):
    """Both neurons have nodes there."""
    Path("skeletons/two.swc").write_text(SWC.format(25, 45, 55))
    found = scores("--segmentation", f"signed.zarr/cut_{dtype}", "--truth", "v.zarr/truth",
                   "--ignore-segmentation", -1, "--skeletons", "skeletons")["run_length"]
    assert (found["omitted_nm"], found["merged_nm"], found["correct_nm"]) == (20 + 20, 0, 10 + 10)


def test_ids_that_are_no_longer_ignored_are_refused_although_they_were_counted(signed):
    path = Path("config.json")
    config = json.loads(path.read_text())
    config["truth"] = "signed.zarr/truth_int32"
    path.write_text(json.dumps(config | {"ignore": [-1]}))
    assert call("config.json").exit_code == 0
    path.write_text(json.dumps(config | {"ignore": [0]}))
    result = CliRunner().invoke(main, ["evaluate", "segmentation", "config.json"])
    assert result.exit_code == 2 and "truth_int32 holds the id -1 at voxel" in result.stderr


def test_the_error_of_the_challenges_has_a_name_of_its_own(folder):
    """Segment 0 is half of the first neuron: joined for scikit-image, apart for CREMI."""
    zeros = np.where(CUT == 4, np.uint64(0), CUT)
    volume = Volume.create("v.zarr/zeros", shape=TRUTH.shape, dtype="uint64", frame=FRAME,
                           chunk_shape=(1, 1, 4))
    volume.write(volume.box, zeros)
    found = scores("--segmentation", "v.zarr/zeros", "--truth", "v.zarr/truth")
    joined, called, true = 1 + 1 + 6, 1 + 1 + 6, 6 + 6
    np.testing.assert_allclose(found["arand"], 1 - 2 * joined / (called + true))
    joined, called, true = 4 + 16 + 2 / 9, 4 + 16 + 2 / 9, 16 + 16
    np.testing.assert_allclose(found["arand_cremi"], 1 - 2 * joined / (called + true))
    shown = call("--segmentation", "v.zarr/zeros", "--truth", "v.zarr/truth").stdout
    assert "as SNEMI3D, CREMI" in shown and f"{found['arand_cremi']:.4f}" in shown


def test_voxels_near_borders_are_not_scored_if_asked(folder):
    """The 4 voxels on the borders of both neurons and the unknown one, then one more on each side."""
    volumes = ("--segmentation", "v.zarr/cut", "--truth", "v.zarr/truth")
    assert scores(*volumes, "--border-nm", 9)["voxels"] == 9 - 4
    near = scores(*volumes, "--border-nm", 10, "--ignore", "none")
    assert near["voxels"] == 2 and near["voxels_ignored"] == 7
    Path("config.json").write_text(json.dumps(
        json.loads(Path("config.json").read_text()) | {"border_nm": 10}
    ))
    result = call("config.json", "--json")
    assert result.exit_code == 0, result.stderr
    document = json.loads(result.stdout)
    assert document["ignored"] == {"truth": [0, 2**64 - 1], "segmentation": [], "border_nm": 10.0}
    assert document["segmentations"]["0.1"]["voxels"] == 2


def test_bodies_of_an_hdf5_file_are_compared(folder):
    bodies = scores("--segmentation", "s.h5:stack", "--truth", "v.zarr/truth")
    assert bodies["voi"] == 0 and bodies["segments"] == 2
    assert scores("--segmentation", "s.h5:stack", "--truth", "s.h5:stack")["voi"] == 0


def test_only_a_roi_is_compared(folder):
    left = scores("--segmentation", "v.zarr/joined", "--truth", "v.zarr/truth",
                  "--roi", "100,0,0", "10,10,50")
    assert left["voxels"] == 5 and left["neurons"] == 2


def test_several_segmentations_make_a_curve(folder):
    found = scores("--segmentation", "0.1=v.zarr/cut", "--segmentation", "v.zarr/joined",
                   "--truth", "v.zarr/truth", "--output", "results")
    assert {k: v["voi"] for k, v in found["segmentations"].items()} == {"0.1": 0.5, "joined": 1.0}
    assert json.loads(Path("results/evaluation.json").read_text()) == found
    for name in ("curve.png", "split_vs_merge.png"):
        with Image.open(Path("results") / name) as picture:
            assert min(picture.size) > 300
    with open("results/worst_splits.csv") as file:
        (row,) = csv.DictReader(file)
    assert row["segmentation"] == "0.1" and row["largest segments (id:voxels)"] == "3:2 4:2"
    with open("results/worst_merges.csv") as file:
        (row,) = csv.DictReader(file)
    assert (row["segment"], row["bits"], row["neurons"]) == ("7", "1", "2")


@pytest.mark.parametrize("unit", ["um", 1000, 10, "10,10,10", "20,5,10"])
def test_skeletons_may_be_in_any_unit(folder, unit):
    """The same nodes, in the unit that is named."""
    z, y, x = {"um": (1000,) * 3, 1000: (1000,) * 3, 10: (10,) * 3}.get(unit) or map(
        int, unit.split(",")
    )
    volumes = ("--segmentation", "v.zarr/cut", "--truth", "v.zarr/truth")
    expected = scores(*volumes, "--skeletons", "skeletons")["run_length"]
    for path in Path("skeletons").iterdir():
        rows = [line.split() for line in path.read_text().splitlines()]
        path.with_suffix(".SWC").write_text("".join(
            f"{n}.0,{t},{float(a) / x},{float(b) / y},{float(c) / z},{r},{0 if p == '-1' else p}\r\n"
            for n, t, a, b, c, r, p in rows
        ))
        path.unlink()
    found = scores(*volumes, "--skeletons", "skeletons", "--skeleton-unit", unit)["run_length"]
    assert found == expected


def test_run_lengths_of_skeletons(folder):
    volumes = ("--segmentation", "v.zarr/cut", "--segmentation", "v.zarr/joined",
               "--truth", "v.zarr/truth", "--skeletons", "skeletons")
    found = {k: v["run_length"] for k, v in scores(*volumes)["segmentations"].items()}
    assert found["cut"]["expected_nm"] == (10**2 + 30**2) / 60
    assert found["cut"]["perfect_nm"] == (30**2 + 30**2) / 60
    assert found["cut"]["skeletons"]["one"] == {"length_nm": 30.0, "expected_nm": 100 / 30}
    assert found["joined"]["expected_nm"] == 0 and found["joined"]["merging_segments"] == 1
    shown = call(*volumes).stdout
    assert "expected run length (nm)" in shown and "nodes outside" in shown


def test_a_terminal_shows_scores_with_units_and_the_worst_objects(folder):
    shown = call("--segmentation", "v.zarr/cut", "--truth", "v.zarr/truth").stdout
    for words in ("VOI split (bits)", "0.5000", "adapted Rand error", "voxels ignored",
                  "Worst splits of cut", "3 (2), 4 (2)"):
        assert words in shown


TWO = ("--segmentation", "v.zarr/cut", "--truth", "v.zarr/truth")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--segmentation", "v.zarr/cut"), "Name --segmentation VOLUME and --truth VOLUME, or a"),
        (("config.json", *TWO), "--segmentation cannot be given together with a CONFIG"),
        (("config.json", "--ignore", 0), "--ignore cannot be given together with a CONFIG"),
        ((*TWO, "--overwrite"), "--overwrite belongs to a CONFIG"),
        ((*TWO, "--ignore", 2**64), "18446744073709551616 is not in the range"),
        ((*TWO, "--border-nm", 0), "0.0 is not in the range"),
        ((*TWO, "--skeleton-unit", "voxels"), "'voxels' is neither nm, um nor a number of nm nor z,y,x"),
        ((*TWO, "--skeleton-unit", "4,4"), "'4,4' is neither"),
        ((*TWO, "--skeleton-unit", "0"), "skeleton_unit"),
        ((*TWO, "--roi", "0,0", "1,1,1"), "'0,0' is not of the form z,y,x in nm"),
    ],
)
def test_a_wrong_command_line_exits_with_2(folder, arguments, words):
    result = call(*arguments)
    assert result.exit_code == 2 and words in result.stderr and not result.stdout


@pytest.mark.parametrize(
    ("segmentation", "options", "words"),
    [
        ("v.zarr/none", (), "There is no volume at .*v.zarr/none"),
        ("v.zarr", (), "name one of its arrays: cut, joined, raw, truth"),
        ("v.zarr/raw", (), "raw holds float32 values .* but one integer id per voxel"),
        ("s.h5", (), r"s.h5 does not name a dataset. Write FILE:DATASET; .*s.h5:longer, .*s.h5:stack"),
        ("s.h5:other", (), "no dataset 'other' in .*s.h5. It holds: longer, stack, transforms"),
        ("s.h5:longer", (), "no attribute 'resolution'.*9"),
        ("${NOWHERE}/a", (), "environment variable .*NOWHERE"),
        ("v.zarr/cut", ("--roi", "900,0,0", "10,10,10"), "no voxel that all volumes cover"),
        ("v.zarr/cut", ("--ignore", "0", "--ignore", "1", "--ignore", "2"), "No voxel is left"),
        ("v.zarr/cut", ("--segmentation", "cut=v.zarr/joined"), "Two segmentations have the name"),
        ("v.zarr/cut", ("--skeletons", "v.zarr"), "holds no skeletons"),
        ("v.zarr/cut", ("--skeletons", "config.json"), "config.json is no skeleton .*: line 1"),
        ("v.zarr/cut", ("--skeletons", "skeletons", "--skeleton-unit", "um"), "No node of the skel"),
        ("v.zarr/cut", ("--output", "/proc/none"), "cannot be written"),
    ],
)
def test_bad_input_exits_with_2_and_one_paragraph(folder, segmentation, options, words):
    result = call("--segmentation", segmentation, "--truth", "v.zarr/truth", *options)
    assert result.exit_code == 2 and not result.stdout
    assert re.search(words, result.stderr), result.stderr
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1


def test_a_config_counts_on_workers_and_stores_the_scores(folder):
    here = scores("--segmentation", "0.1=v.zarr/cut", "--segmentation", "0.9=v.zarr/joined",
                  "--truth", "v.zarr/truth")
    assert scores("config.json") == here
    for name in ("evaluation.json", "worst_splits.csv", "curve.png", "split_vs_merge.png"):
        assert Path("out/evaluation", name).exists()

    # Other ids are ignored without counting again; an evaluation replaces the earlier one.
    again = scores("config.json", "--set", "ignore=[0, 1]")
    assert again["segmentations"]["0.1"]["voxels"] == 4
    task = CountOverlaps.from_file("config.json")
    with store_of(task) as store:
        assert {d["epoch"] for d in store.documents()} == {1}
        found = list(store.database.evaluations.find({"run": "scored"}).sort("threshold"))
    assert [d["_id"] for d in found] == ["scored/0.1", "scored/0.9"]
    assert found[0]["threshold"] == 0.1 and found[0]["voxels"] == 4

    assert CliRunner().invoke(main, ["verify", "config.json"]).exit_code == 0
    assert call("config.json", "--set", "roi.offset=[100,0,0]", "--set",
                "roi.shape=[10,10,40]").exit_code == 3


def test_ids_beyond_the_integers_of_the_database_are_counted_ignored_and_stored(folder):
    unknown = 2**64 - 1
    with h5py.File("cremi.hdf", "w") as file:
        file["volumes/labels/neuron_ids"] = np.where(TRUTH == 0, unknown, TRUTH)
        file["huge"] = np.where(CUT == 3, 2**63, CUT)
    found = scores("config.json", "--set", f"ignore=[{unknown}]",
                   "--set", "truth=cremi.hdf:volumes/labels/neuron_ids",
                   "--set", 'segmentations={"huge": "cremi.hdf:huge"}')
    assert (found["voi_split"], found["voxels"]) == (0.5, 8)
    assert found["worst_splits"][0]["largest_segments"][1]["id"] == 2**63
    with store_of(CountOverlaps.from_file("config.json")) as store:
        (stored,) = store.database.evaluations.find({"run": "scored"})
    assert stored["worst_splits"][0]["largest_segments"][1]["id"] == str(2**63)


def test_tables_may_lie_in_an_object_store(folder, bucket):
    found = scores("config.json", "--set", f"output={bucket}/evaluation", "--set", "run_dir=home")
    assert {k: v["voi"] for k, v in found["segmentations"].items()} == {"0.1": 0.5, "0.9": 1.0}
    assert json.loads(Path("home/evaluation.json").read_text()) == found


def test_no_scores_are_given_while_blocks_are_missing(folder):
    chunk = next(p for p in Path("v.zarr/cut").rglob("*") if p.is_file() and p.name == "1")
    chunk.write_bytes(b"damaged")
    result = call("config.json", "--set", "max_retries=0", "--json")
    assert result.exit_code == 1
    assert json.loads(result.stdout)["blocks"]["failed"] + json.loads(result.stdout)["blocks"][
        "quarantined"] > 0
    assert not Path("out/evaluation/evaluation.json").exists()


def test_scoring_in_this_process_loads_nothing_heavy():
    loaded = loaded_by("import em_blocks.pipelines.evaluate, em_blocks.tasks.evaluation.count_overlaps")
    assert not loaded & {"torch", "gunpowder", "daisy", "matplotlib", "networkx", "numba"}


@pytest.mark.skipif(
    not (DATA / "fib25_medulla").is_dir(),
    reason=f"no real volumes at {DATA} (set EM_BLOCKS_DATA to their folder)",
)
def test_the_supplied_segmentation_of_fib25_has_its_known_scores(tmp_path, monkeypatch):
    monkeypatch.setenv("EM_BLOCKS_DATA", str(DATA))
    monkeypatch.chdir(tmp_path)
    supplied = DATA / "fib25_medulla/oversegmented_stack_labels.h5"
    truth = DATA / "fib25_medulla/groundtruth.h5"
    of_hdf5 = scores("--segmentation", f"{supplied}:stack", "--truth", f"{truth}:stack")
    assert (round(of_hdf5["voi_split"], 2), round(of_hdf5["voi_merge"], 2)) == (2.33, 0.31)
    task = Ingest.from_file(ROOT / "configs/fib25_labels_ingest.json",
                            (f"output={tmp_path / 'fib25.zarr/neurons'}",))
    ingest(task)
    of_zarr = scores("--segmentation", f"{supplied}:stack", "--truth", "fib25.zarr/neurons")
    np.testing.assert_allclose(of_zarr["voi"], of_hdf5["voi"], rtol=1e-12)
    assert of_zarr["voxels"] == of_hdf5["voxels"] == 11_249_820


def ingest(task):
    """Store the source of an ingest, without workers."""
    (spec,) = task.output_specs()
    spec.create(task.grid(), "none")
    volume = Volume.open(task.output, mode="r+")
    with task.source.open() as read:
        volume.write(volume.box, read(volume.box))
