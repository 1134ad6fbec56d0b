"""Trainings of classes from stored volumes, partly annotated, beside a head of instances."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
import zarr
from safetensors import safe_open
from safetensors.torch import load_file

from em_blocks.models.setup import Setup
from em_blocks.training.run import train
from tiny_setup import tiny_config, write_setup

ROOT = Path(__file__).parents[2]
SHAPE, SIZE, OFFSET = (14, 72, 72), [40.0, 4.6, 4.6], [80.0, 46.0, 92.0]


def write(folder, name, values, offset=OFFSET):
    array = zarr.open_group(str(folder / "data.zarr"), "a").create_dataset(name, data=values)
    array.attrs.update(voxel_size=SIZE, offset=offset)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Raw with bright mitochondria and dark membranes, and what is painted of both."""
    folder = tmp_path_factory.mktemp("data")
    z, y, x = np.indices(SHAPE)
    mito = (((y // 12 + x // 18 + z // 5) % 4) == 0).astype(np.uint8)
    membrane = ((y % 12 < 2) & (mito == 0)).astype(np.uint8)
    noise = np.random.default_rng(3).integers(0, 60, SHAPE)
    write(folder, "raw", np.clip(100 + 90 * mito - 80 * membrane + noise, 0, 255).astype(np.uint8))
    write(folder, "mito", (mito * (1 + (x // 18))).astype(np.uint16))
    ids = np.where(membrane, 7, 0).astype(np.uint8)
    ids[:, :36] = np.where(membrane, 7, 9)[:, :36]  # below y = 36, what is no membrane is painted too
    write(folder, "membrane", ids)
    write(folder, "neurites", (1 + y // 12).astype(np.uint64))
    away = np.zeros(SHAPE, np.uint8)
    away[:, :, 8:] = 1
    write(folder, "away", away)
    return folder


def source(data, name, **keys):
    path = f"{data}/data.zarr"
    return {
        "name": name, "raw": f"{path}/raw", "labels": f"{path}/neurites",
        "classes": {
            "mito": {"volume": f"{path}/mito"},
            "membrane": {
                "volume": f"{path}/membrane", "ids": [7], "background": [9], "unpainted": "unknown",
            },
        },
    } | keys


def config(data, activation="softmax", **training):
    values = tiny_config()
    values |= {"voxel_size": SIZE, "tile_shape": [4, 16, 16]}
    values["normalization"] = {"scale": 0.00784313725490196, "shift": -1.0}
    values["network"]["features"] = [6, 8]
    values["heads"] = {
        "organelles": {
            "kind": "classes", "classes": ["mito", "membrane"], "activation": activation,
            "loss": {"kind": "ce_dice"},
        },
        "shape": {"kind": "lsd", "sigma_nm": 20, "weight": 0.5},
    }
    metric = [f"{data}/data.zarr/away"]
    values["training"] |= {
        "sources": [source(data, "all", end=[14, 72, 60])],
        "validation": [
            source(data, "left", end=[4, 36, 36], metric_masks=metric),
            source(data, "right", begin=[4, 0, 36], end=[8, 40, 72]),
        ],
        "augment": {"control_point_nm": [400, 100, 100], "jitter_nm": [0, 5, 5]},
        "output_shape": [4, 16, 16], "score": "organelles/mito_f1", "learning_rate": 0.02,
    } | training
    return values


@pytest.fixture(scope="module", autouse=True)
def one_thread():
    before = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(before)


@pytest.fixture(scope="module", params=["softmax", "sigmoid"])
def trained(request, tmp_path_factory, data):
    values = config(
        data, request.param, iterations=60, validate_every=30, checkpoint_every=60, snapshot_every=60
    )
    folder = write_setup(tmp_path_factory.mktemp("trained") / request.param, values)
    train(Setup.from_folder(folder), folder, "a test", resume=False, go_on="")
    return folder


def test_classes_are_learnt_beside_shapes_of_instances(trained):
    record = json.loads((trained / "checkpoints/record.json").read_text())
    first, last = record["history"]
    assert last["organelles/mito_f1"] > 0.9 and last["organelles/membrane_best_f1"] > 0.3
    assert last["organelles/balanced_ce"] < first["organelles/balanced_ce"]
    assert last["shape/mse"] < 0.1
    assert [row["data_set"] for row in last["data_sets"]] == ["left", "right"]
    left, right = last["data_sets"]
    assert left["organelles/mito_f1_metric"] != left["organelles/mito_f1"]
    assert right["organelles/mito_f1_metric"] == right["organelles/mito_f1"]
    mean = (left["organelles/mito_f1"] + right["organelles/mito_f1"]) / 2
    assert last["organelles/mito_f1"] == pytest.approx(mean)


def test_the_panels_of_both_data_sets_are_there(trained):
    found = {path.name for path in (trained / "training/panels").iterdir()}
    assert found == {f"{name}_{n}.png" for name in ("left", "right") for n in (30, 60)}


def test_a_snapshot_shows_the_classes(trained):
    assert (trained / "training/snapshots/60.png").is_file()


def test_a_network_of_other_classes_begins_with_those_that_it_shares(trained, data, tmp_path, caplog):
    values = config(data, trained.name, iterations=1, validate_every=1)
    values["heads"]["organelles"]["classes"] = ["vesicle", "mito"]
    for key in ("sources", "validation"):
        for one in values["training"][key]:
            one["classes"]["vesicle"] = one["classes"].pop("membrane")
    values["training"]["initial"] = str(trained / "checkpoints/best.safetensors")
    values["training"]["learning_rate"] = 1e-12
    folder = write_setup(tmp_path / "other", values)
    with caplog.at_level("INFO"):
        train(Setup.from_folder(folder), folder, "a test", resume=False, go_on="")
    assert "new: organelles: vesicle; of no use here: organelles: membrane" in caplog.text
    record = json.loads((folder / "checkpoints/record.json").read_text())
    assert record["history"][0]["organelles/mito_f1"] > 0.8, "what was learnt of it is still there"


def test_weights_tell_the_names_of_their_channels(trained):
    with safe_open(trained / "checkpoints/best.safetensors", "pt") as file:
        named = json.loads(file.metadata()["channels"])
    extra = ["background"] if trained.name == "softmax" else []
    assert named == {"organelles": [*extra, "mito", "membrane"]}


# -- killed at a random moment; benchmarks/kill_training.py does it more often --------------------


def command(folder, *options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = [sys.executable, ROOT / "pipelines" / "train.py", folder / "config.json", *options]
    return {"args": run, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def test_a_training_of_classes_that_is_killed_ends_as_one_that_never_was(data, tmp_path):
    values = config(data, iterations=12, validate_every=5, checkpoint_every=2)
    whole, folder = (write_setup(tmp_path / name, values) for name in ("whole", "killed"))
    process = subprocess.Popen(**command(folder), start_new_session=True)
    train(Setup.from_folder(whole), whole, "a test", resume=False, go_on="")
    deadline = time.monotonic() + 90
    while not list(folder.glob("checkpoints/state_*.pt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(random.Random(5).uniform(0, 0.1))
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / "checkpoints/state_12.pt").exists(), "killed too late to test anything"
    train(Setup.from_folder(folder), folder, "a test", resume=True, go_on="")
    for name in ("checkpoint_12", "best"):
        one, two = (load_file(f / "checkpoints" / f"{name}.safetensors") for f in (folder, whole))
        assert all(torch.equal(one[key], two[key]) for key in two), name
    records = [json.loads((f / "checkpoints/record.json").read_text()) for f in (folder, whole)]
    assert records[0]["history"] == records[1]["history"]
