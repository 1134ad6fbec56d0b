"""Every folder in setups/ loads, with the weights that are shipped in it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from em_blocks.training.heads import head_trainings
from em_blocks.training.setup import Setup, load_weights

SETUPS = Path(__file__).parents[2] / "setups"
FOLDERS = sorted(path.parent for path in SETUPS.glob("*/config.json"))


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def setup(request):
    return Setup.from_folder(request.param)


def test_there_are_setups():
    assert {folder.name for folder in FOLDERS} >= {"affinities", "affinities_anisotropic"}


def test_the_config_fits_the_network(setup):
    assert setup.config.name == setup.folder.name
    network = setup.build()
    network.check_tile(setup.config.tile_shape)
    network.check_tile(setup.config.training.output_shape)
    assert head_trainings(setup.config).keys() == setup.config.heads.keys()
    assert sum(value.numel() for value in network.parameters()) < 1_500_000


def test_the_shipped_checkpoint_loads_and_predicts(setup):
    network = setup.build()
    load_weights(network, setup.checkpoint_path("best"))
    tile = network.tile_factor
    with torch.inference_mode():
        output = network.predict(torch.zeros(1, 1, *network.shapes.input_shape(tile)))
    for name, head in setup.config.heads.items():
        assert output[name].shape == (1, head.channels, *tile)
        assert ((output[name] >= 0) & (output[name] <= 1)).all()


def test_the_record_is_of_this_config_and_of_no_particular_machine(setup):
    text = (setup.folder / "checkpoints" / "record.json").read_text()
    record = json.loads(text)
    trained = Setup.from_folder(setup.folder).config.model_dump(mode="json")
    for key in ("name", "voxel_size", "network", "heads", "normalization"):
        assert record["config"][key] == json.loads(json.dumps(trained[key]))
    assert record["best"][record["config"]["training"]["score"]] > 0.8
    assert "/home/" not in text
    assert "/work" not in text
    assert "/tmp" not in text


def test_the_folder_says_what_the_network_reached(setup):
    text = (setup.folder / "README.md").read_text()
    assert "cut_ap" in text
    assert "pipelines/train.py" in text


def test_the_train_script_trains_its_own_folder(setup):
    run = [sys.executable, setup.folder / "train.py"]
    refused = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 3, refused.stderr
    assert str(setup.folder / "checkpoints") in refused.stderr
