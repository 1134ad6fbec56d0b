"""Every folder in setups/ loads, with the weights that are shipped in it."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from em_blocks.models.config import SetupConfig
from em_blocks.models.setup import Setup, load_weights
from em_blocks.training.validation import choice_of

SETUPS = Path(__file__).parents[2] / "setups"
FOLDERS = sorted(path.parent for path in SETUPS.glob("*/config.json"))

FLOORS = {
    "cut_ap": 0.8,  # average precision of the rare class of affinities
    "ap": 0.5,  # of an indicator: a few voxels of thousands
    "f1": 0.9, "mitochondria_f1": 0.9,  # of the voxels of organelles
    "pq": 0.6,  # of instances, with the thresholds of a config that names none
    "fscore": 0.8, "fscore_neurons": 0.6,  # partners by place; in the right neurons too
}
"""What a shipped network reached at least, by the last part of the score that chose it."""


@pytest.fixture(params=FOLDERS, ids=lambda folder: folder.name)
def setup(request):
    return Setup.from_folder(request.param)


def test_there_are_setups():
    assert {folder.name for folder in FOLDERS} >= {
        "affinities", "affinities_anisotropic", "synapse_mask", "synapse_vectors", "synapse_multitask"
    }


def test_the_config_fits_the_network(setup):
    assert setup.config.name == setup.folder.name
    network = setup.build()
    network.check_tile(setup.config.tile_shape)
    network.check_tile(setup.config.training.output_shape)
    assert choice_of(setup.config).score == setup.config.training.score
    assert sum(value.numel() for value in network.parameters()) < 1_500_000


def test_the_shipped_checkpoint_loads_and_predicts(setup):
    network = setup.build()
    load_weights(network, setup.checkpoint_path("best"))
    tile = network.tile_factor
    with torch.inference_mode():
        output = network.predict(torch.zeros(1, 1, *network.shapes.input_shape(tile)))
    for name, head in setup.config.heads.items():
        assert output[name].shape == (1, head.channels, *tile)
        assert torch.isfinite(output[name]).all()
        if head.activation == "sigmoid":
            assert ((output[name] >= 0) & (output[name] <= 1)).all()


def test_the_record_is_of_this_config_and_of_no_particular_machine(setup):
    text = (setup.folder / "checkpoints" / "record.json").read_text()
    record = json.loads(text)
    recorded = SetupConfig.from_dict(record["config"], folder=setup.folder)  # newer keys: defaults
    for key in ("name", "voxel_size", "network", "heads", "normalization"):
        assert getattr(recorded, key) == getattr(setup.config, key)
    assert_reached(record["best"], record["config"]["training"]["score"])
    assert "/home/" not in text
    assert "/work" not in text
    assert "/tmp" not in text


def assert_reached(best, score):
    """Assert that the best checkpoint is worth shipping."""
    head, _, kind = score.rpartition("/")
    if kind == "minus_error_nm":  # vectors: at most 0.6 times as wrong as none at all
        assert -best[score] < 0.6 * best[f"{head}/mean_length_nm"]
    else:
        assert best[score] > FLOORS[kind]


def test_the_folder_says_what_the_network_reached(setup):
    text = (setup.folder / "README.md").read_text()
    kind = setup.config.training.score.rpartition("/")[2]
    assert kind.removeprefix("minus_") in text, "the score that chose the weights, by its name"
    assert f"em-blocks train setups/{setup.folder.name}" in text


def test_the_train_script_trains_its_own_folder(setup):
    run = [sys.executable, setup.folder / "train.py"]
    refused = subprocess.run(run, capture_output=True, text=True, timeout=120)
    assert refused.returncode == 3, refused.stderr
    assert str(setup.folder / "checkpoints") in refused.stderr
