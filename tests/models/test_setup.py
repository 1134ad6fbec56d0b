"""Setups and weights: what is wrong is said, and nothing in a checkpoint runs."""

import json
import os
import pickle

import pytest
import torch
from safetensors.torch import save_file

from em_blocks.errors import CheckpointError, ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.models.initial import load_initial_weights
from em_blocks.models.setup import Setup, load_weights
from tiny_setup import tiny_config, write_setup


@pytest.fixture
def network(setup_folder):
    return Setup.from_folder(setup_folder).build()


def checkpoint(folder, name, network):
    path = folder / "checkpoints" / name
    path.parent.mkdir(exist_ok=True)
    save_file({key: value.contiguous() for key, value in network.state_dict().items()}, path)
    return path


def test_a_setup_gives_its_config_and_its_network(setup_folder):
    setup = Setup.from_folder(setup_folder)
    assert setup.config.heads["affinities"].channels == 4
    assert setup.build().tile_factor == (1, 2, 2)


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda folder: folder.rename(folder.with_name("moved")), "is not a folder"),
        (lambda folder: (folder / "config.json").unlink(), "cannot be read"),
        (lambda folder: (folder / "config.json").write_text("{"), "not valid JSON"),
    ],
)
def test_a_missing_or_broken_file_is_a_config_error(setup_folder, spoil, message):
    spoil(setup_folder)
    with pytest.raises(ConfigError, match=message):
        Setup.from_folder(setup_folder)


@pytest.mark.parametrize(
    ("key", "value", "message"),
    [
        ("colour", "red", "'colour' is unknown"),
        ("tile_shape", [4, 0, 4], "tile_shape"),
        ("training", {"seed": 1}, "missing"),
    ],
)
def test_a_wrong_field_is_named(tmp_path, key, value, message):
    folder = write_setup(tmp_path / "wrong", tiny_config() | {key: value})
    with pytest.raises(ConfigError, match=message):
        Setup.from_folder(folder)


def test_channels_must_fit_the_neighborhood(tmp_path):
    values = tiny_config()
    values["heads"]["affinities"]["channels"] = 3
    with pytest.raises(ConfigError, match=r"3.*4 shifts"):
        Setup.from_folder(write_setup(tmp_path / "wrong", values))


def test_a_source_is_either_arrays_or_a_phantom(tmp_path):
    values = tiny_config()
    values["training"]["sources"] = [{"raw": "raw"}]
    with pytest.raises(ConfigError, match=r"both `raw` and `labels`.*, or `phantom`"):
        Setup.from_folder(write_setup(tmp_path / "wrong", values))


@pytest.mark.parametrize(
    "code", ["build = 1 / 0", "def build(config): return missing", "x = 1", "("]
)
def test_a_network_file_that_fails_is_a_config_error(setup_folder, code):
    (setup_folder / "network.py").write_text(code)
    with pytest.raises(ConfigError, match=r"network\.py could not build"):
        Setup.from_folder(setup_folder).build()


def test_a_network_file_is_a_module_that_pickles_and_dataclasses_can_name(setup_folder):
    text = (setup_folder / "network.py").read_text()
    (setup_folder / "network.py").write_text(
        "from __future__ import annotations\nfrom dataclasses import dataclass\n"
        "@dataclass\nclass Size:\n    voxels: int = 3\n"
        f"{text}\nclass Mine(UNet):\n    size = Size(5)\n"
        "def build(config):\n"
        "    heads = {name: Head(head.channels, 'identity') for name, head in config.heads.items()}\n"
        "    return Mine(**config.network.model_dump(), heads=heads)\n"
    )
    network = Setup.from_folder(setup_folder).build()
    assert network.size.voxels == 5
    again = pickle.loads(pickle.dumps(network))
    assert type(again) is type(network) is type(Setup.from_folder(setup_folder).build())
    (setup_folder / "network.py").write_text(f"raise OSError('changed')\n{text}")  # in the same second
    with pytest.raises(ConfigError, match="OSError: changed"):
        Setup.from_folder(setup_folder).build()
    assert not (setup_folder / "__pycache__").exists()


def test_a_network_without_what_trainings_and_predictions_need_is_a_config_error(setup_folder):
    text = "import torch\ndef build(config): return torch.nn.Conv3d(1, 1, 1)"
    (setup_folder / "network.py").write_text(text)
    with pytest.raises(ConfigError, match="Conv3d without context, check_tile, predict"):
        Setup.from_folder(setup_folder).build()


def test_the_state_of_a_training_is_no_checkpoint_and_says_what_is(network, tmp_path):
    torch.save({"trainer": {"network": network.state_dict()}, "iteration": 3}, tmp_path / "a.pt")
    with pytest.raises(CheckpointError, match=r"state of a training.*best\.safetensors"):
        load_weights(network, tmp_path / "a.pt")


@pytest.mark.parametrize("load", [load_weights, load_initial_weights])
def test_weights_that_are_not_there_are_named(network, tmp_path, load):
    for path in (tmp_path / "nowhere.safetensors", tmp_path):
        with pytest.raises(CheckpointError, match=f"There is no file {path} to load"):
            load(network, path)


def test_a_path_that_means_a_file_of_the_setup_is_told_so(setup_folder, network):
    checkpoint(setup_folder, "checkpoint_8.safetensors", network)
    setup = Setup.from_folder(setup_folder)
    wanted = setup_folder / "checkpoints" / "checkpoint_8.safetensors"
    with pytest.raises(CheckpointError, match=f"write {wanted}"):
        setup.checkpoint_path("/elsewhere/checkpoint_8.safetensors")
    with pytest.raises(CheckpointError, match="which is a folder"):
        setup.checkpoint_path(setup_folder)


def test_checkpoints_are_found_by_word_iteration_and_path(setup_folder, network):
    setup = Setup.from_folder(setup_folder)
    names = ("best.safetensors", "checkpoint_9.safetensors", "checkpoint_10.safetensors")
    best, nine, ten = (checkpoint(setup_folder, name, network) for name in names)
    assert setup.checkpoint_path() == best
    assert setup.checkpoint_path("latest") == ten
    assert setup.checkpoint_path(9) == setup.checkpoint_path("9") == nine
    assert setup.checkpoint_path(nine) == nine


def test_the_latest_of_a_shipped_setup_is_its_best(setup_folder, network):
    best = checkpoint(setup_folder, "best.safetensors", network)
    assert Setup.from_folder(setup_folder).checkpoint_path("latest") == best


@pytest.mark.parametrize("which", ["best", "latest", 3, "/nowhere/weights.pt"])
def test_a_missing_checkpoint_lists_those_that_exist(setup_folder, network, which):
    path = checkpoint(setup_folder, "checkpoint_8.safetensors", network)
    if which == "latest":
        path.rename(path.with_name("other.safetensors"))
    with pytest.raises(CheckpointError, match=r"(checkpoint_8|other)\.safetensors"):
        Setup.from_folder(setup_folder).checkpoint_path(which)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_weights_come_back_as_they_were(setup_folder, network, name):
    path = checkpoint(setup_folder, name, network)
    if name.endswith(".pt"):
        torch.save(network.state_dict(), path)
    other = Setup.from_folder(setup_folder).build()
    load_weights(other, path)
    for key, value in network.state_dict().items():
        assert torch.equal(value, other.state_dict()[key])


class Malicious:
    def __init__(self, target):
        self.target = target

    def __reduce__(self):
        return os.mkdir, (str(self.target),)


@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
@pytest.mark.parametrize("save", ["torch", "pickle"])
def test_a_malicious_checkpoint_is_refused_and_does_not_run(tmp_path, network, suffix, save):
    path, target = tmp_path / f"weights.{suffix}", tmp_path / "executed"
    if save == "torch":
        torch.save({"a": Malicious(target)}, path)
    else:
        path.write_bytes(pickle.dumps(Malicious(target)))
    with pytest.raises(CheckpointError, match="never executed"):
        load_weights(network, path)
    assert not target.exists()


@pytest.mark.parametrize("content", [b"", b"not a checkpoint"])
@pytest.mark.parametrize("suffix", ["pt", "safetensors"])
def test_a_damaged_checkpoint_is_refused(tmp_path, network, suffix, content):
    path = tmp_path / f"weights.{suffix}"
    path.write_bytes(content)
    with pytest.raises(CheckpointError, match="cannot be loaded"):
        load_weights(network, path)


def test_a_checkpoint_that_is_no_dict_of_tensors_is_refused(tmp_path, network):
    path = tmp_path / "weights.pt"
    torch.save({"iteration": 3}, path)
    with pytest.raises(CheckpointError, match="dict of tensors"):
        load_weights(network, path)


def test_weights_of_another_architecture_are_named(tmp_path, setup_folder, network):
    weights = dict(network.state_dict())
    weights["extra"] = weights.pop("heads.affinities.bias")
    weights["reduce.0.bias"] = torch.zeros(5)
    path = tmp_path / "weights.safetensors"
    save_file(weights, path)
    with pytest.raises(CheckpointError) as error:
        load_weights(network, path)
    for part in (
        "missing: heads.affinities.bias",
        "unexpected: extra",
        "reduce.0.bias is (5,), needed (2,)",
    ):
        assert part in str(error.value)


def test_the_fingerprint_changes_with_all_that_changes_the_output(setup_folder, network):
    path = checkpoint(setup_folder, "best.safetensors", network)
    first = Setup.from_folder(setup_folder).fingerprint(path)
    values = tiny_config()
    values["training"]["iterations"] = 9
    write_setup(setup_folder, values)
    assert Setup.from_folder(setup_folder).fingerprint(path) == first
    values["normalization"]["shift"] = 0
    write_setup(setup_folder, values)
    second = Setup.from_folder(setup_folder).fingerprint(path)
    with (setup_folder / "network.py").open("a") as file:
        file.write("# changed\n")
    third = Setup.from_folder(setup_folder).fingerprint(path)
    path.write_bytes(path.read_bytes() + b"\0")
    fourth = Setup.from_folder(setup_folder).fingerprint(path)
    assert len({first, second, third, fourth}) == 4


def test_overrides_reach_the_config(setup_folder):
    setup = Setup.from_folder(setup_folder, ("training.iterations=5",))
    assert setup.config.training.iterations == 5
    assert json.loads((setup_folder / "config.json").read_text())["training"]["iterations"] == 8


def test_a_head_is_affinities_unless_it_says_another_kind(tmp_path):
    values = tiny_config()
    values["heads"]["lsd"] = {"kind": "lsd"}
    heads = SetupConfig.from_dict(values).heads
    assert (heads["affinities"].kind, heads["lsd"].kind) == ("affinities", "lsd")
    assert heads["lsd"].channels == 10
    for wrong in ({"kind": "colour"}, {"kind": "lsd", "channels": 9}, {"kind": "lsd", "x": 1}):
        with pytest.raises(ConfigError, match=r"heads\.lsd"):
            SetupConfig.from_dict(values | {"heads": {"lsd": wrong}})
