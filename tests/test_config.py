"""Config files: strict, relative to themselves, with errors that name the field."""

import json
from pathlib import Path

import pytest
from pydantic import ValidationError

from em_blocks.config import (
    LocalPath,
    Shape3,
    StorePath,
    StrictModel,
    VolumeRef,
    VoxelSize,
    path_of,
)
from em_blocks.errors import ConfigError


class Inner(StrictModel):
    threshold: float = 0.5


class Example(StrictModel):
    raw: StorePath
    folder: LocalPath | None = None
    shape: Shape3 = (1, 2, 3)
    voxel_size: VoxelSize = (50, 4.6, 4.6)
    inner: Inner = Inner()


@pytest.fixture
def config(tmp_path):
    """Write a config file with the given keys; return its path."""

    def write(text=None, **values):
        path = tmp_path / "job" / "config.json"
        path.parent.mkdir(exist_ok=True)
        path.write_text(text if text is not None else json.dumps(values))
        return path

    return write


def message_of(path, *overrides):
    with pytest.raises(ConfigError) as caught:
        Example.from_file(path, overrides)
    message = str(caught.value)
    assert "\n" not in message  # one paragraph
    assert str(path) in message or "--set" in message
    return message


def test_an_unknown_key_is_named(config):
    message = message_of(config(raw="a", typo=1))
    assert "the key 'typo' is unknown" in message


def test_an_unknown_key_in_a_group_is_named_with_its_path(config):
    assert "'inner.treshold' is unknown" in message_of(config(raw="a", inner={"treshold": 1}))


def test_a_missing_key_is_named(config):
    assert "the key 'raw' is missing" in message_of(config(shape=[1, 1, 1]))


def test_a_wrong_type_is_named_with_the_value(config):
    message = message_of(config(raw="a", shape=[1, "two", 3]))
    assert "'shape.1': got 'two'" in message
    assert "integer" in message


def test_values_out_of_range_are_errors(config):
    assert "greater than 0" in message_of(config(raw="a", voxel_size=[50, 0, 4.6]))
    assert "'shape.2'" in message_of(config(raw="a", shape=[1, 2, -3]))


def test_all_wrong_fields_are_named_at_once(config):
    message = message_of(config(typo=1, shape=[0, 1, 1]))
    assert all(part in message for part in ("'typo'", "'raw'", "'shape.0'"))


def test_nan_and_infinity_are_no_numbers(config):
    message = message_of(config('{"raw": "a", "inner": {"threshold": NaN}}'))
    assert "'inner.threshold'" in message


def test_a_missing_file_is_an_error(tmp_path):
    assert "No such file" in message_of(tmp_path / "none.json")


def test_broken_json_is_an_error_with_the_line(config):
    assert "line 2" in message_of(config('{"raw": "a",\n}'))


def test_json_that_is_not_an_object_is_an_error(config):
    assert "a JSON object" in message_of(config("[1, 2]"))


def test_relative_paths_are_relative_to_the_config_file(config, monkeypatch, tmp_path):
    path = config(raw="../data/raw.zarr/raw", folder="models")
    monkeypatch.chdir("/")
    example = Example.from_file(path)
    assert example.raw == str(tmp_path / "data/raw.zarr/raw")
    assert example.folder == tmp_path / "job" / "models"


def test_paths_relative_to_the_config_do_not_depend_on_how_it_is_named(config, monkeypatch):
    path = config(raw="raw.zarr")
    monkeypatch.chdir(path.parent)
    assert Example.from_file("config.json") == Example.from_file(path)


def test_absolute_paths_and_urls_stay(config):
    example = Example.from_file(config(raw="s3://bucket/a/../raw.zarr/", folder="/models"))
    assert example.raw == "s3://bucket/a/../raw.zarr"
    assert example.folder == Path("/models")


def test_environment_variables_are_expanded(config, monkeypatch):
    monkeypatch.setenv("EM_TEST_STORE", "/volumes")
    assert Example.from_file(config(raw="${EM_TEST_STORE}/raw")).raw == "/volumes/raw"
    assert Example.from_file(config(raw="$EM_TEST_STORE/raw")).raw == "/volumes/raw"


def test_an_environment_variable_may_have_a_default(config, monkeypatch):
    path = config(raw="${EM_TEST_STORE:-../near}/raw")
    monkeypatch.delenv("EM_TEST_STORE", raising=False)
    assert Example.from_file(path).raw == str(path.resolve().parent.parent / "near/raw")
    monkeypatch.setenv("EM_TEST_STORE", "/volumes")
    assert Example.from_file(path).raw == "/volumes/raw"


def test_an_unset_environment_variable_is_an_error(config, monkeypatch):
    monkeypatch.delenv("EM_TEST_STORE", raising=False)
    message = message_of(config(raw="${EM_TEST_STORE}/raw"))
    assert "'raw'" in message
    assert "${EM_TEST_STORE}" in message
    assert "not set" in message


def test_set_overrides_nested_keys_with_json_or_text(config):
    example = Example.from_file(
        config(raw="a"), ("inner.threshold=0.25", "shape=[4,5,6]", "raw=/b.zarr/raw")
    )
    assert example.inner.threshold == 0.25
    assert example.shape == (4, 5, 6)
    assert example.raw == "/b.zarr/raw"


def test_set_reaches_keys_that_the_file_leaves_out(config):
    assert Example.from_file(config(raw="a"), ("inner.threshold=1",)).inner.threshold == 1


def test_set_is_checked_like_the_file(config):
    assert "'shape.0'" in message_of(config(raw="a"), "shape=[0,1,1]")
    assert "'typo' is unknown" in message_of(config(raw="a"), "typo=1")


@pytest.mark.parametrize("bad", ["shape", "=3", "raw.x=1"])
def test_set_without_key_value_form_is_an_error(config, bad):
    assert "--set" in message_of(config(raw="a"), bad)


def test_set_does_not_change_the_file(config):
    path = config(raw="a")
    before = path.read_text()
    Example.from_file(path, ("raw=b",))
    assert path.read_text() == before


def test_a_config_never_changes():
    example = Example(raw="/a")
    with pytest.raises(ValidationError):
        example.raw = "/b"


def test_a_config_survives_being_stored_as_json(config):
    example = Example.from_file(config(raw="raw.zarr", folder="models"))
    assert Example.from_dict(json.loads(example.model_dump_json())) == example


def test_long_values_are_shortened_in_messages(config):
    message = message_of(config(raw="a", shape="x" * 500))
    assert len(message) < 500


def test_paths_given_in_code_are_relative_to_the_working_directory(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    assert Example(raw="raw.zarr").raw == str(tmp_path / "raw.zarr")


class Reading(StrictModel):
    raw: VolumeRef
    others: dict[str, VolumeRef] = {}


TOLD = {"path": "em.zarr/raw", "voxel_size": [40, 4.6, 4], "offset": [400, 0, -8], "axes": [*"xyz"]}


def test_a_volume_that_is_read_is_a_path_as_ever():
    task = Reading.from_dict({"raw": "em.zarr/raw"}, folder=Path("/data"))
    assert task.raw == "/data/em.zarr/raw"
    assert task.model_dump(mode="json") == {"raw": "/data/em.zarr/raw", "others": {}}


def test_a_volume_may_come_with_what_its_file_does_not_say():
    task = Reading.from_dict({"raw": TOLD, "others": {"a": TOLD}}, folder=Path("/data"))
    assert task.raw == task.others["a"]
    assert (path_of(task.raw), task.raw.offset) == ("/data/em.zarr/raw", (400, 0, -8))
    again = Reading.from_dict(json.loads(json.dumps(task.model_dump(mode="json"))))
    assert again == task and hash(again.raw) == hash(task.raw)


def test_both_spellings_of_a_path_are_one_input():
    folder = Path("/data")
    assert Reading.from_dict({"raw": {"path": "em.zarr/raw"}}, folder=folder) == Reading.from_dict(
        {"raw": "em.zarr/raw"}, folder=folder
    )


@pytest.mark.parametrize(
    ("raw", "words"),
    [
        (7, "'raw': got 7"),
        ({**TOLD, "voxelsize": 1}, "the key 'raw.voxelsize' is unknown"),
        ({"voxel_size": [1, 1, 1]}, "the key 'raw.path' is missing"),
        ({**TOLD, "voxel_size": [40, 4, 0]}, "'raw.voxel_size.2': got 0"),
        ({**TOLD, "axes": ["z", "y"]}, "z, y and x are needed, each once"),
        ({**TOLD, "axes": ["z", "y", "x", "x"]}, "z, y and x are needed, each once"),
        ({**TOLD, "axes": ["z", "y", "w"]}, "'raw.axes.2': got 'w'"),
        ({**TOLD, "path": "$UNSET_HERE/raw"}, "'raw.path': got '\\$UNSET_HERE/raw'"),
    ],
)
def test_a_volume_that_makes_no_sense_is_named_by_its_key(raw, words):
    with pytest.raises(ConfigError, match=words):
        Reading.from_dict({"raw": raw})
