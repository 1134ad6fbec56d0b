"""A setup that is made for data trains as it is, and says why it is as it is."""

import json
import shutil

import numpy as np
import pytest
from click.testing import CliRunner

from em_blocks.cli.main import main
from em_blocks.geometry import Frame
from em_blocks.models.setup import Setup
from em_blocks.tasks import task_class
from em_blocks.training.run import train
from em_blocks.volumes import Volume

SIZE = (40.0, 4.6, 4.6)


@pytest.fixture
def data(tmp_path):
    """A data config of two small crops, uint16."""
    rng = np.random.default_rng(3)
    mito = (rng.random((5, 5, 5)) < 0.2).repeat(12, 1).repeat(12, 2).astype("u1")
    raw = (3000 - 1500.0 * mito + rng.normal(0, 200, mito.shape)).astype("u2")
    for name, values in (("raw", raw), ("mito", mito)):
        volume = Volume.create(
            str(tmp_path / "d.zarr" / name), shape=values.shape, dtype=values.dtype,
            frame=Frame(SIZE, (400, 46, 9.2)), chunk_shape=(2, 32, 32),
        )
        volume.write(volume.box, values)
    entry = {
        "file": "d.zarr", "voxel_size": SIZE, "raw": "raw", "labels": {"mito": 1},
        "offset": [10, 10, 2],
    }
    (tmp_path / "data.json").write_text(json.dumps({"a": entry | {"shape": [3, 60, 60]}}))
    last = entry | {"offset": [13, 10, 2], "shape": [2, 60, 60]}
    (tmp_path / "validation.json").write_text(json.dumps({"b": last}))
    return tmp_path / "data.json"


def new(data, *arguments, output="made"):
    arguments = ("--data", str(data), "--output", str(data.parent / output), *arguments)
    return CliRunner().invoke(main, ["new", "organelle", "mito_net", *arguments])


def test_the_setup_trains_as_written(data):
    validation = ("--validation", str(data.parent / "validation.json"))
    result = new(data, "--class", "1=mito", *validation, "--memory-gb", "6")
    assert result.exit_code == 0, result.output
    folder = data.parent / "made"
    values = json.loads((folder / "config.json").read_text())
    assert values["heads"]["organelles"]["classes"] == ["mito"]
    assert values["training"]["validation"]["data"] == "../validation.json"
    assert values["training"]["output_shape"][0] == 1  # of three sections
    few = ("training.iterations=2", "training.validate_every=2", "training.loaders=0",
           "training.output_shape=[1, 32, 32]", "tile_shape=[1, 64, 64]",
           "network.features=[2, 2, 2, 2]")
    setup, trained = Setup.from_folder(folder, few), data.parent / "trained"
    ended = train(setup, trained, "train", resume=False, go_on="train --resume")
    assert "2 iterations are done" in ended
    for name in ("predict", "threshold"):
        job = task_class(name).from_file(folder / f"{name}.json")
        assert job.run == f"mito_net_{name}"


def test_the_readme_gives_the_reason_of_every_choice(data):
    assert new(data).exit_code == 0
    text = (data.parent / "made" / "README.md").read_text()
    for key in ("voxel_size", "network.features", "network.kernels", "tile_shape", "normalization",
                "training.output_shape", "training.batch_size", "training.sampling"):
        assert f"**`{key}`**" in text
    assert "finds class_1" in text and "WARNING: the data that are trained on" in text
    assert "context is never set" in text


def test_without_a_gpu_thick_sections_get_the_recipe_of_cores_and_an_estimate_of_its_time(
    data, monkeypatch
):
    monkeypatch.setattr("os.sched_getaffinity", lambda pid: {0, 1})
    assert new(data).exit_code == 0
    config = json.loads((data.parent / "made" / "config.json").read_text())
    training = config["training"]
    assert config["network"]["features"] == [8, 32, 64, 128]
    assert config["network"]["kernels"] == [[[1, 3, 3], [1, 3, 3]]] * 4
    assert config["network"]["pooling"] == [[1, 2, 2]] * 3
    assert config["heads"]["organelles"]["loss"] == {"kind": "ce_dice", "clip": [0.5, 0.5]}
    assert (training["output_shape"], training["batch_size"]) == ([1, 64, 64], 2)
    assert (training["learning_rate"], training["ema_decay"]) == (0.002, 0.998)
    assert training["augment"]["jitter_nm"] == [0.0, 11.5, 11.5]
    text = (data.parent / "made" / "README.md").read_text()
    assert "single sections" in text and "min on 2 idle cores, an estimate: 0.0" in text


def test_intensities_that_occur_become_minus_one_to_one(data):
    assert new(data).exit_code == 0
    scale = json.loads((data.parent / "made" / "config.json").read_text())["normalization"]
    raw = np.asarray(Volume.open(str(data.parent / "d.zarr/raw")))[:3]
    seen = raw * scale["scale"] + scale["shift"]
    assert -1.3 < seen.min() < -0.9 and 0.9 < seen.max() < 1.3


def test_a_class_without_a_voxel_makes_no_setup_and_its_data_are_refused(data):
    nothing = Volume.create(
        str(data.parent / "d.zarr/nothing"), shape=(5, 60, 60), dtype="u1",
        frame=Frame(SIZE, (400, 46, 9.2)), chunk_shape=(2, 32, 32),
    )
    assert not np.asarray(nothing).any()
    entries = json.loads(data.read_text())
    entries["a"]["labels"] = {"nothing": 1}
    data.write_text(json.dumps(entries))
    result = new(data, "--class", "1=golgi")
    assert result.exit_code == 2
    assert "'golgi' is to be learnt, but no source has a voxel of it" in result.output
    assert not (data.parent / "made").exists()
    result = CliRunner().invoke(main, ["check-data", str(data), "--class", "1=golgi"])
    assert result.exit_code == 2 and "no source has a voxel of it" in result.output


def test_nothing_that_is_there_is_replaced_and_wrong_data_make_no_setup(data):
    (data.parent / "made").mkdir()
    (data.parent / "made" / "notes.txt").write_text("mine")
    result = new(data)
    assert result.exit_code == 3 and "not an empty folder" in result.output
    entries = json.loads(data.read_text())
    entries["a"]["offset"] = [99, 0, 0]
    data.write_text(json.dumps(entries))
    result = new(data, output="other")
    assert result.exit_code == 2 and "not inside" in result.output
    assert not (data.parent / "other").exists()
    shutil.rmtree(data.parent / "made")
