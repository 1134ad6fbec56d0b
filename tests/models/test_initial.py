"""Weights of another network to begin with."""

import json

import pytest
import torch
from safetensors.torch import save_file

from em_blocks.errors import CheckpointError
from em_blocks.models.initial import CHANNELS, load_initial_weights
from em_blocks.models.setup import Setup
from tiny_setup import tiny_config, write_setup


@pytest.fixture
def network(setup_folder):
    return Setup.from_folder(setup_folder).build()


def checkpoint(folder, name, network, **channels):
    path = folder / "checkpoints" / name
    path.parent.mkdir(exist_ok=True)
    weights = {key: value.contiguous() for key, value in network.state_dict().items()}
    save_file(weights, path, metadata={CHANNELS: json.dumps(channels)} if channels else None)
    return path


@pytest.fixture
def two_headed(tmp_path):
    values = tiny_config()
    values["heads"]["lsd"] = {"kind": "lsd"}
    return Setup.from_folder(write_setup(tmp_path / "two", values)).build()


def test_initial_weights_fill_all_but_the_new_heads(setup_folder, network, two_headed):
    before = {key: value.clone() for key, value in two_headed.state_dict().items()}
    path = checkpoint(setup_folder, "best.safetensors", network)
    assert load_initial_weights(two_headed, path) == (["lsd"], [])
    for key, value in two_headed.state_dict().items():
        own = before[key] if key.startswith("heads.lsd.") else network.state_dict()[key]
        assert torch.equal(value, own), key


def test_heads_that_the_network_lacks_are_left_out(setup_folder, network, two_headed):
    path = checkpoint(setup_folder, "best.safetensors", two_headed)
    assert load_initial_weights(network, path) == ([], ["lsd"])
    for key, value in network.state_dict().items():
        assert torch.equal(value, two_headed.state_dict()[key]), key


def test_initial_weights_of_another_network_are_refused(setup_folder, tmp_path, network):
    values = tiny_config()
    values["network"]["features"] = [2, 4]
    other = Setup.from_folder(write_setup(tmp_path / "wider", values)).build()
    with pytest.raises(CheckpointError, match="of another shape"):
        load_initial_weights(other, checkpoint(setup_folder, "best.safetensors", network))


def test_convolutions_that_the_weights_lack_change_nothing_at_first(setup_folder, tmp_path, network):
    values = tiny_config()
    values["network"]["kernels"] = [[[1, 3, 3]], [[1, 3, 3], [3, 3, 3], [1, 3, 3]]]
    deeper = Setup.from_folder(write_setup(tmp_path / "deeper", values)).build()
    load_initial_weights(deeper, checkpoint(setup_folder, "best.safetensors", network))
    assert deeper.context > network.context
    tile = (2, 4, 4)
    raw = torch.rand(1, 1, *deeper.shapes.input_shape(tile))
    more = [a - b for a, b in zip(deeper.context, network.context, strict=True)]
    z, y, x = (slice(m, n - m) for m, n in zip(more, raw.shape[2:], strict=True))
    with torch.inference_mode():
        seen, narrow = deeper.predict(raw), network.predict(raw[:, :, z, y, x])
    torch.testing.assert_close(seen["affinities"], narrow["affinities"])


# -- classes by name, and decoders of their own ------------------------------------------------


def of_classes(folder, *names, decoders="shared", **heads):
    values = tiny_config()
    values["network"]["decoders"] = decoders
    values["heads"] = {"organelles": {"kind": "classes", "classes": names}} | heads
    return Setup.from_folder(write_setup(folder, values)).build()


def test_classes_are_loaded_by_their_names(tmp_path):
    old = of_classes(tmp_path / "old", "mito", "membrane", "golgi")
    torch.nn.init.normal_(old.heads["organelles"].bias)
    path = checkpoint(tmp_path, "old.safetensors", old, organelles=["mito", "membrane", "golgi"])
    new = of_classes(tmp_path / "new", "synapse", "golgi", "mito")
    found = load_initial_weights(new, path, {"organelles": ["synapse", "golgi", "mito"]})
    assert found == (["organelles: synapse"], ["organelles: membrane"])
    for key in ("heads.organelles.weight", "heads.organelles.bias"):
        loaded, source = new.state_dict()[key], old.state_dict()[key]
        assert (loaded[0] == 0).all(), "a new class says 0.5 of everything"
        assert torch.equal(loaded[1], source[2]) and torch.equal(loaded[2], source[0])
    assert torch.equal(new.down[0][0].weight, old.down[0][0].weight)


def test_the_same_classes_are_loaded_as_they_are(tmp_path):
    old = of_classes(tmp_path / "old", "mito", "membrane")
    path = checkpoint(tmp_path, "old.safetensors", old, organelles=["mito", "membrane"])
    new = of_classes(tmp_path / "new", "mito", "membrane")
    assert load_initial_weights(new, path, {"organelles": ["mito", "membrane"]}) == ([], [])
    assert all(torch.equal(value, old.state_dict()[key]) for key, value in new.state_dict().items())


def test_weights_that_name_no_channels_are_loaded_if_their_number_fits(tmp_path):
    path = checkpoint(tmp_path, "old.safetensors", of_classes(tmp_path / "old", "mito"))
    names = {"organelles": ["golgi"]}
    assert load_initial_weights(of_classes(tmp_path / "a", "golgi"), path, names) == ([], [])
    two = of_classes(tmp_path / "b", "mito", "golgi")
    found = load_initial_weights(two, path, {"organelles": ["mito", "golgi"]})
    assert found == (["organelles"], [])


def test_a_new_head_with_a_decoder_of_its_own_begins_with_random_weights(tmp_path):
    old = of_classes(tmp_path / "old", "mito", decoders="separate")
    path = checkpoint(tmp_path, "old.safetensors", old)
    new = of_classes(tmp_path / "new", "mito", decoders="separate", shape={"kind": "lsd"})
    before = new.decoders["shape"].up[0][0].weight.clone()
    assert load_initial_weights(new, path) == (["shape"], [])
    assert torch.equal(new.decoders["shape"].up[0][0].weight, before)
    kept = new.decoders["organelles"].up[0][0].weight
    assert torch.equal(kept, old.decoders["organelles"].up[0][0].weight)
    assert load_initial_weights(old, checkpoint(tmp_path, "new.safetensors", new)) == ([], ["shape"])
