"""The residual U-Net as a kind of network in configs."""

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from em_blocks.errors import CheckpointError, ConfigError
from em_blocks.export.models.model import Model
from em_blocks.models.config import SetupConfig
from em_blocks.models.initial import load_initial_weights
from em_blocks.models.setup import Setup
from em_blocks.nets.residual_unet import ResidualUNet
from em_blocks.training.run import train
from tiny_setup import tiny_config, write_setup

NETWORK = {
    "kind": "residual_unet", "features": [2, 3, 4],
    "kernels": [[[1, 3, 3], [3, 3, 3], [1, 3, 3]], [[1, 3, 3]] * 3, [[1, 3, 3]]],
}


def config(**changes):
    return tiny_config() | {"network": NETWORK | changes}


def residual_setup(folder, values):
    """A setup without code: its config builds the network."""
    write_setup(folder, values)
    (folder / "network.py").unlink()
    return Setup.from_folder(folder)


def test_the_config_builds_it_and_pools_in_sections_by_itself():
    network = SetupConfig.from_dict(config()).network
    net = network.build(SetupConfig.from_dict(config()).heads)
    assert type(net) is ResidualUNet
    assert network.pooling == ((1, 2, 2), (1, 2, 2))
    assert net.tile_factor == (1, 4, 4)
    assert net.heads["affinities"].out_channels == 4
    with pytest.raises(ConfigError, match="pooling"):
        SetupConfig.from_dict(config(pooling=[[1, 2]]))


def test_the_kind_is_part_of_what_decides_the_values():
    network = SetupConfig.from_dict(config()).network
    assert network.content()["kind"] == "residual_unet"
    assert network.content()["pooling"] == [[1, 2, 2], [1, 2, 2]]


def test_it_trains_through_the_trainer_and_its_checkpoint_is_loaded_and_exported(tmp_path):
    setup = residual_setup(tmp_path / "residual", config())
    assert "best" in train(setup, setup.folder, "test", resume=False, go_on="-")
    path = setup.checkpoint_path("best")
    net = setup.load(path).eval()
    assert net.down[0].block[-1].weight.abs().max() > 0, "its blocks were trained"
    (setup.folder / "network.py").write_text(
        "def build(config):\n    return config.network.build(config.heads)\n"
    )
    model = Model(setup, path)
    assert not model.needs_code, "its config says all that the code does"
    assert np.isfinite(model.outputs["affinities"]).all()


def test_weights_of_a_network_with_fewer_blocks_are_refused(tmp_path):
    heads = SetupConfig.from_dict(config()).heads
    shallow = SetupConfig.from_dict(config(kernels=[[[1, 3, 3]]] * 3)).network.build(heads)
    save_file(shallow.state_dict(), tmp_path / "shallow.safetensors")
    deep = SetupConfig.from_dict(config()).network.build(heads)
    before = {key: values.clone() for key, values in deep.state_dict().items()}
    with pytest.raises(CheckpointError, match=r"down\.0\.block\.0\.bias"):
        load_initial_weights(deep, tmp_path / "shallow.safetensors")
    assert all(torch.equal(before[key], values) for key, values in deep.state_dict().items())
