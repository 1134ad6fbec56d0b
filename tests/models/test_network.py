"""Kinds of networks: one by its name, the same network with and without code, old fingerprints."""

import pytest
import torch
from safetensors.torch import save_file

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.models.network import NETWORKS
from em_blocks.models.networks.unet import UNetNetwork
from em_blocks.models.setup import Setup
from foreign import distribution
from tiny_setup import tiny_config, write_setup

VECTORS = {"kind": "direction_vectors", "radius_nm": 20, "unit_nm": 50}

FOREIGN = '''
"""A network that returns what it gets."""

from typing import Literal

from torch import nn

from em_blocks.models.network import Network


class Echo(Network):
    """Every head gets the raw values."""

    kind: Literal["echo"]
    gain: float = 1.0

    def build(self, heads):
        return Module(heads, self.gain)


class Module(nn.Module):
    context, tile_factor = (0, 0, 0), (1, 1, 1)

    def __init__(self, heads, gain):
        super().__init__()
        self.names, self.gain = list(heads), gain

    def check_tile(self, shape): ...

    def predict(self, raw, heads=None):
        return {name: raw * self.gain for name in self.names}
'''


def test_the_network_of_the_config_is_that_of_the_code_it_replaces(tmp_path):
    values = tiny_config()
    values["heads"]["vectors"] = VECTORS
    folder = write_setup(tmp_path / "tiny", values)
    coded, torch_seed = Setup.from_folder(folder), 5
    torch.manual_seed(torch_seed)
    by_code = coded.build()
    (folder / "network.py").unlink()
    torch.manual_seed(torch_seed)
    by_config = Setup.from_folder(folder).build()
    raw = torch.rand(1, 1, *by_code.shapes.input_shape((2, 4, 4)))
    with torch.inference_mode():
        expected, found = by_code.predict(raw), by_config.predict(raw)
    assert found.keys() == {"affinities", "vectors"}
    for name, value in expected.items():
        assert torch.equal(found[name], value)
    assert found["vectors"].abs().max() > 10  # the unit of the head, nm, is applied


def test_a_network_is_a_unet_unless_it_says_another_kind():
    values = tiny_config()
    assert isinstance(SetupConfig.from_dict(values).network, UNetNetwork)
    values["network"]["kind"] = "unet"
    assert isinstance(SetupConfig.from_dict(values).network, UNetNetwork)
    values["network"]["kind"] = "transformer"
    with pytest.raises(ConfigError, match=r"network.*must be one of unet.*em_blocks\.networks"):
        SetupConfig.from_dict(values)


def test_fingerprints_are_those_of_the_time_before_there_were_kinds(tmp_path):
    folder = write_setup(tmp_path / "tiny")
    weights = folder / "weights.safetensors"
    weights.write_bytes(b"weights")
    before = "2b97a3782792a9199be55f6bea68984cbe9c16517b07628e9309852d4304e445"
    assert Setup.from_folder(folder).fingerprint(weights) == before
    values = tiny_config()
    values["network"]["kind"] = "unet"
    write_setup(folder, values)
    assert Setup.from_folder(folder).fingerprint(weights) == before
    (folder / "network.py").unlink()
    assert Setup.from_folder(folder).fingerprint(weights) != before


def test_a_setup_without_training_is_predicted_with_and_not_trained(tmp_path):
    values = tiny_config()
    del values["training"]
    setup = Setup.from_folder(write_setup(tmp_path / "tiny", values))
    assert setup.config.training is None
    path = tmp_path / "weights.safetensors"
    save_file(setup.build().state_dict(), path)
    assert setup.load(path).tile_factor == (1, 2, 2)
    with pytest.raises(ConfigError, match=r"'tiny' has no key `training`"):
        setup.config.to_train()


@pytest.fixture
def packages(tmp_path, monkeypatch):
    """Folder of packages that this process finds."""
    folder = tmp_path / "site"
    monkeypatch.syspath_prepend(folder)
    vars(NETWORKS).pop("_foreign", None)  # what was found before
    yield folder
    vars(NETWORKS).pop("_foreign", None)


def test_another_package_adds_a_kind(packages, tmp_path):
    distribution(packages, "echo_network", FOREIGN, networks="echo = echo_network:Echo")
    values = tiny_config() | {"network": {"kind": "echo", "gain": 3.0}}
    del values["training"]
    folder = write_setup(tmp_path / "tiny", values)
    (folder / "network.py").unlink()
    setup = Setup.from_folder(folder)
    assert setup.config.network.content() == {"kind": "echo", "gain": 3.0}
    raw = torch.rand(1, 1, 2, 2, 2)
    assert torch.equal(setup.build().predict(raw)["affinities"], 3 * raw)
    values["network"]["gain"] = "loud"
    with pytest.raises(ConfigError, match=r"network\.gain"):
        SetupConfig.from_dict(values)
