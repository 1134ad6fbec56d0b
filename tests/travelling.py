"""Small trained setups to export, with the record of their training."""

import json

import torch
from safetensors.torch import save_file

from em_blocks.models.setup import Setup
from tiny_setup import tiny_config, write_setup

SCORES = {"iteration": 8, "affinities/cut_ap": 0.75, "affinities/cut_f1": 0.5}


def trained_setup(folder, values=None, *, code=False):
    """Write a setup with random weights "of iteration 8" and a record; returns its folder."""
    write_setup(folder, values or two_headed())
    if not code:
        (folder / "network.py").unlink()
    torch.manual_seed(4)
    network = Setup.from_folder(folder).build()
    for key, value in network.state_dict().items():
        if key.startswith("heads.") and key.endswith("weight"):
            value *= 3  # random heads say 0.5 everywhere
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    (folder / "checkpoints").mkdir()
    save_file(weights, folder / "checkpoints" / "best.safetensors", metadata={"iteration": "8"})
    source = {"name": "phantom of seed 3", "begin": [0, 0, 0], "end": [40, 64, 64], "sha256": "ab" * 32}
    (folder / "checkpoints" / "record.json").write_text(json.dumps({
        "command": "em-blocks train tiny", "iteration": 8, "best": SCORES,
        "history": [{**SCORES, "iteration": 4, "affinities/cut_ap": 0.25}, SCORES],
        "data": {"sources": [source], "validation": [source]}, "versions": {"torch": "2"},
        "config": Setup.from_folder(folder).config.model_dump(mode="json", exclude_none=True),
    }))
    return folder


def two_headed():
    """A config with a head of probabilities and one in nm; voxels are neither cubic nor whole."""
    values = tiny_config() | {"voxel_size": [40.0, 4.6, 4.6]}
    values["heads"]["vectors"] = {"kind": "direction_vectors", "radius_nm": 20, "unit_nm": 50}
    values["normalization"] = {"scale": 1 / 127.5, "shift": -1.0}
    return values
