"""check-data shows what a training would get, and refuses what a training would."""

import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

from em_blocks.cli.main import main
from em_blocks.geometry import Frame
from em_blocks.volumes import Volume
from tiny_setup import tiny_config, write_setup

SIZE = (40.0, 4.6, 4.6)
SHAPE = (6, 64, 64)


def stored(path, values, offset=(0.0, 0.0, 0.0)):
    volume = Volume.create(
        str(path), shape=values.shape, dtype=values.dtype, frame=Frame(SIZE, offset),
        chunk_shape=(2, 32, 32),
    )
    volume.write(volume.box, values)
    return str(path)


@pytest.fixture
def folder(tmp_path):
    """raw with dark discs, and labels of them: mito; one of them is shifted: late."""
    y, x = np.indices(SHAPE[1:])
    mito = np.zeros(SHAPE, "u1")
    for z, section in enumerate(mito):
        for cy, cx in ((16, 20 + z), (44, 40), (20, 48)):
            section[np.hypot(y - cy, x - cx) < 7] = 9
    raw = 170 - 10 * mito + np.random.default_rng(1).normal(0, 5, SHAPE)
    stored(tmp_path / "d.zarr/raw", raw.clip(0, 255).astype("u1"), (400, 46, 9.2))
    stored(tmp_path / "d.zarr/mito", mito, (400, 46, 9.2))
    stored(tmp_path / "d.zarr/late", np.roll(mito, (6, -6), (1, 2)), (400, 46, 9.2))
    stored(tmp_path / "d.zarr/none", 0 * mito, (400, 46, 9.2))
    return tmp_path


def entry(z, depth, **more):
    return {
        "file": "d.zarr", "voxel_size": SIZE, "raw": "raw", "labels": {"mito": 1},
        "offset": [10 + z, 10, 2], "shape": [depth, 64, 64], **more,
    }


def run(folder, entries, *arguments, name="data.json"):
    (folder / name).write_text(json.dumps(entries))
    return CliRunner().invoke(main, ["check-data", str(folder / name), *arguments])


def report(result):
    return json.loads(result.stdout)


def test_every_crop_is_described_and_drawn(folder):
    result = run(
        folder, {"left": entry(0, 4), "right": entry(4, 2, unpainted="unknown")},
        "--class", "1=mitochondria", "--output", str(folder / "sheets"), "--json",
    )
    assert result.exit_code == 0, result.output
    found = report(result)
    left, right = found["crops"]
    assert (left["name"], left["shape"], left["offset_nm"]) == ("left", [4, 64, 64], [400, 46, 9.2])
    assert right["offset_nm"] == [560, 46, 9.2] and right["dtype"] == "uint8"
    share = left["classes"]["mitochondria"]
    assert share["unknown"] == 0 and 1200 < share["object"] < 2000
    assert sum(share.values()) == 4 * 64 * 64
    assert right["classes"]["mitochondria"]["background"] == 0
    assert right["remarks"] == ["no voxel is known to be anything but 'mitochondria'"]
    assert left["remarks"] == [] and found["remarks"] == [] and found["ok"]
    assert left["edges"]["mitochondria"]["contrast"] > 2
    assert 40 < left["percentiles"]["0"] < left["percentiles"]["50"] < 190
    for crop in (left, right):
        with Image.open(crop["picture"]) as picture:
            assert picture.width > 800


def test_labels_beside_the_edges_and_empty_ones_are_remarked(folder):
    entries = {"a": entry(0, 6, labels={"late": 1}), "b": entry(0, 6, labels={"none": "golgi"})}
    result = run(folder, entries)
    assert result.exit_code == 2
    text = " ".join(result.output.split())
    assert "borders of 'class_1' lie on edges" in text and "(-6, 6) voxels" in text
    assert "b: no voxel is 'golgi'." in text
    assert "'golgi' is to be learnt, but no source has a voxel of it: 0 voxels" in text
    entries["c"] = entry(0, 2, labels={"mito": "golgi"})  # it occurs in one of them
    assert run(folder, entries).exit_code == 0


def test_voxels_of_several_classes_are_counted(folder):
    result = run(folder, {"a": entry(0, 6, labels={"mito": "mito", "late": "late"})}, "--json")
    [crop] = report(result)["crops"]
    several = 6 * 64 * 64 * crop["several"]
    assert 0 < several < crop["classes"]["mito"]["object"]
    assert "of several classes" in " ".join(crop["remarks"])


def test_crops_that_are_there_twice_and_overlap_are_remarked(folder):
    result = run(folder, {"a": entry(0, 4), "b": entry(0, 4), "c": entry(2, 4)}, "--json")
    remarks = report(result)["remarks"]
    assert remarks[0] == "a (sources) and b (sources) are the same data, which counts twice"
    assert remarks[1].startswith("a (sources) and c (sources) share 50.0% of the smaller one")
    assert result.exit_code == 0


def test_everything_that_refuses_the_data_is_told_and_the_rest_shown(folder):
    wrong = {
        "good": entry(0, 4), "far": entry(100, 4), "size": entry(0, 4, voxel_size=[40, 4, 4]),
    }
    result = run(folder, wrong, "--json")
    found = report(result)
    assert result.exit_code == 2 and not found["ok"]
    assert [crop["name"] for crop in found["crops"]] == ["good"]
    assert len(found["errors"]) == 2
    assert "far" in found["errors"][0] and "states (40.0, 4.0, 4.0)" in found["errors"][1]


def test_a_setup_is_looked_at_with_its_validation_data(folder):
    run(folder, {"a": entry(0, 4)})
    values = tiny_config() | {
        "voxel_size": SIZE, "heads": {"o": {"kind": "classes", "classes": ["mito"]}},
    }
    said = {"data": "../data.json", "classes": {"1": "mito"}}
    values["training"] |= {"sources": said, "validation": said, "score": "o/f1"}
    setup = write_setup(folder / "setup", values)
    result = CliRunner().invoke(main, ["check-data", str(setup)])
    assert result.exit_code == 0, result.output
    text = " ".join(result.output.split())
    assert "scores there say nothing about unseen data" in text
    assert "A training would take these data." in text
    values["heads"]["o"]["classes"] = ["golgi"]
    write_setup(folder / "setup", values)
    result = CliRunner().invoke(main, ["check-data", str(setup)])
    assert result.exit_code == 2 and "golgi" in result.output


def test_a_class_name_that_is_none_is_refused(folder):
    result = run(folder, {"a": entry(0, 4)}, "--class", "mito")
    assert result.exit_code == 2 and "ID=NAME" in result.output
