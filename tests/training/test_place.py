"""The folder of a training describes its weights, and nothing of others is overwritten in it."""

import json
import shutil

import pytest

from em_blocks.errors import ConfigError, RefusedError
from em_blocks.models.setup import Setup
from em_blocks.training.place import SetupCopy
from tiny_setup import tiny_config, write_setup


def copy_of(setup_folder, output, *overrides, name="config.json", record=None):
    """Check and write; returns the copy."""
    copy = SetupCopy(Setup.from_folder(setup_folder, overrides, name=name), output)
    copy.refuse_foreign(record or {})
    copy.write()
    return copy


def contents(folder):
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.is_file()}


def test_the_output_is_a_setup_with_the_config_as_it_was_trained(setup_folder, tmp_path):
    copy_of(setup_folder, tmp_path / "a" / "b", "training.seed=7")
    made = Setup.from_folder(tmp_path / "a" / "b")
    assert made.config.training.seed == 7
    made.build()


def test_files_of_another_setup_are_not_overwritten(setup_folder, tmp_path):
    other = write_setup(tmp_path / "other", tiny_config() | {"name": "other"})
    before = contents(other)
    with pytest.raises(RefusedError, match=r"other/config\.json is there already"):
        copy_of(setup_folder, other)
    (other / "config.json").unlink()
    (other / "network.py").write_text("# mine")
    with pytest.raises(RefusedError, match=r"other/network\.py is there already"):
        copy_of(setup_folder, other)
    assert contents(other) == {"network.py": b"# mine"} != before


def test_code_that_would_build_another_network_is_not_left_beside_the_weights(
    setup_folder, tmp_path
):
    (setup_folder / "network.py").unlink()
    output = tmp_path / "out"
    copy_of(setup_folder, output)
    assert contents(output).keys() == {"config.json"}
    assert Setup.from_folder(output).build().tile_factor == (1, 2, 2)
    (output / "network.py").write_text("# mine")
    with pytest.raises(RefusedError, match=r"out/network\.py is there already"):
        copy_of(setup_folder, output)


def test_what_an_earlier_training_made_is_replaced_unless_it_was_changed_since(
    setup_folder, tmp_path
):
    output = tmp_path / "out"
    record = {"made": copy_of(setup_folder, output).checksums()}
    copy_of(setup_folder, output)  # the same once more
    with pytest.raises(RefusedError):
        copy_of(setup_folder, output, "training.seed=7")
    copy_of(setup_folder, output, "training.seed=7", record=record)
    assert Setup.from_folder(output).config.training.seed == 7
    with pytest.raises(RefusedError):  # now it is another than the record says
        copy_of(setup_folder, output, "training.seed=8", record=record)


@pytest.mark.parametrize(
    ("override", "key"),
    [
        ("normalization.scale=0.02", "normalization"), ("voxel_size=[10,10,8]", "voxel_size"),
        ("network.rectifier=leaky_relu", "network"), ("heads.affinities.boundary=[0,1,1]", "heads"),
    ],
)
def test_weights_that_their_own_config_would_not_describe_are_refused(setup_folder, override, key):
    with pytest.raises(RefusedError, match=f"other values of {key} than this training"):
        copy_of(setup_folder, setup_folder, override)
    copy_of(setup_folder, setup_folder.parent / "elsewhere", override)


def test_a_setup_trained_in_its_own_folder_is_left_as_it_is(setup_folder, tmp_path):
    before = contents(setup_folder)
    (tmp_path / "link").symlink_to(setup_folder)
    for spelling in (setup_folder, tmp_path / "link", setup_folder / ".." / setup_folder.name):
        copy = copy_of(setup_folder, spelling, "training.seed=7")
        assert copy.checksums() == {} and contents(setup_folder) == before


def test_the_config_that_is_named_is_read_whatever_its_name(setup_folder, tmp_path):
    values = tiny_config()
    values["training"]["seed"] = 33
    (setup_folder / "fast.json").write_text(json.dumps(values))
    copy_of(setup_folder, tmp_path / "out", name="fast.json")
    assert Setup.from_folder(tmp_path / "out").config.training.seed == 33
    copy_of(setup_folder, setup_folder, name="fast.json")  # of the same network: allowed
    (setup_folder / "wide.json").write_text(json.dumps(values | {"voxel_size": [10, 10, 20]}))
    with pytest.raises(RefusedError, match="voxel_size"):
        copy_of(setup_folder, setup_folder, name="wide.json")
    (setup_folder / "config.json").unlink()
    with pytest.raises(ConfigError, match=r"config\.json"):
        copy_of(setup_folder, setup_folder, name="fast.json")


def test_paths_of_data_are_relative_to_the_new_folder(tmp_path):
    values = tiny_config()
    source = {"raw": "../data/raw", "labels": "../data/labels"}
    values["training"] |= {"sources": [source], "initial": "../w.safetensors"}
    copy_of(write_setup(tmp_path / "setups" / "one", values), tmp_path / "out" / "here")
    moved = shutil.move(tmp_path / "out", tmp_path / "away")
    training = Setup.from_folder(moved / "here").config.training
    assert training.sources[0].raw == str(tmp_path / "setups" / "data" / "raw")
    assert training.initial == tmp_path / "setups" / "w.safetensors"
