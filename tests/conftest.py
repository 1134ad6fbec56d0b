"""Paths and fixtures for all tests."""

import faulthandler
import json
import shutil
import sys
from pathlib import Path

import pytest

from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
faulthandler.enable()

# Examples are the same in every run, and a busy machine is no failure.
settings.register_profile("em_blocks", deadline=None, derandomize=True)
settings.load_profile("em_blocks")

SETUPS = Path(__file__).parents[1] / "setups"


@pytest.fixture(scope="session")
def setup_folder(tmp_path_factory):
    """The shipped setup with few features and random weights."""
    folder = tmp_path_factory.mktemp("setup") / "tiny"
    folder.mkdir()
    shutil.copy(SETUPS / "affinities" / "network.py", folder)
    config = json.loads((SETUPS / "affinities" / "config.json").read_text())
    config["network"] = {
        "features": [3, 5],
        "kernels": [[[1, 3, 3], [3, 3, 3]], [[3, 3, 3]]],
        "pooling": [[1, 2, 2]],
    }
    config["tile_shape"] = [6, 12, 12]
    config["voxel_size"] = (40.0, 4.6, 4.6)
    (folder / "config.json").write_text(json.dumps(config))
    import torch
    from em_blocks.training.setup import Setup
    from safetensors.torch import save_file

    torch.manual_seed(1)
    network = Setup.from_folder(folder).build()
    (folder / "checkpoints").mkdir()
    save_file(network.state_dict(), folder / "checkpoints" / "best.safetensors")
    return folder
