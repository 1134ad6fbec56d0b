"""Errors are one paragraph, of the builtin type that fits, and not taken for a builtin by our code."""

import inspect

import pytest
from pydantic import Field, model_validator

from em_blocks import errors
from em_blocks.config import LocalPath, StrictModel
from em_blocks.errors import (
    CheckpointError,
    ConfigError,
    DatabaseError,
    EmBlocksError,
    GeometryError,
    RefusedError,
    RunFailedError,
    SynapseFileError,
    VolumeError,
)
from em_blocks.tasks.segmentation.segment import Segment
from em_blocks.volumes.stores.store import explained
from em_blocks.volumes.viewer.annotations import _explained as explained_annotations

ALL = [kind for _, kind in inspect.getmembers(errors, inspect.isclass)]


@pytest.mark.parametrize(("kind", "builtin"), [
    (ConfigError, ValueError), (GeometryError, ValueError), (SynapseFileError, ValueError),
    (VolumeError, OSError), (CheckpointError, OSError), (DatabaseError, ConnectionError),
    (RefusedError, RuntimeError), (RunFailedError, RuntimeError),
])
def test_code_that_knows_only_builtins_can_handle_an_error(kind, builtin):
    assert issubclass(kind, EmBlocksError) and issubclass(kind, builtin)


@pytest.mark.parametrize("kind", ALL)
def test_an_error_shows_its_paragraph(kind):
    assert str(kind("One paragraph.")) == "One paragraph."
    assert isinstance(kind("x").exit_code, int)


@pytest.mark.parametrize("kind", ALL)
@pytest.mark.parametrize("wrap", [explained, explained_annotations], ids=["store", "annotations"])
def test_an_error_is_not_explained_twice(kind, wrap, tmp_path):
    with pytest.raises(kind) as caught, wrap(tmp_path / "volume"):
        raise kind("One paragraph.")
    assert str(caught.value) == "One paragraph." and caught.value.__cause__ is None


def test_an_error_of_the_storage_is_explained():
    with pytest.raises(VolumeError, match=r"x cannot be read: .*no space"):
        with explained("x cannot be read"):
            raise OSError("no space")


class Size(StrictModel):
    """For the tests below."""

    voxels: int = Field(gt=0)
    path: LocalPath | None = None

    @model_validator(mode="after")
    def _not_thirteen(self):
        if self.voxels == 13:
            raise GeometryError("13 voxels are never right.")
        return self


def test_a_constructor_names_every_wrong_field_as_a_config_does():
    with pytest.raises(ConfigError, match=r"^Size cannot be used: 'voxels': got -1, .* 'voxel' is unk"):
        Size(voxels=-1, voxel=3)
    with pytest.raises(ConfigError, match="the key 'voxels' is missing"):
        Size()
    assert Size(voxels=2).voxels == 2


@pytest.mark.parametrize("make", [lambda **v: Size(**v), lambda **v: Size.from_dict(v)])
def test_an_error_of_ours_in_a_validator_stays_as_it_is(make):
    with pytest.raises(GeometryError, match=r"^13 voxels are never right\.$"):
        make(voxels=13)


def test_an_output_inside_of_an_input_is_refused_in_its_own_words(tmp_path):
    with pytest.raises(ConfigError) as caught:
        Segment.from_dict({
            "kind": "segment", "run": "r", "affinities": str(tmp_path / "a.zarr/fragments"),
            "output": str(tmp_path / "a.zarr"), "block_shape": [8, 8, 8], "thresholds": [0.5],
        })
    assert "cannot be used:" not in str(caught.value) and "a.zarr/fragments" in str(caught.value)


def test_a_path_in_a_config_is_relative_to_its_file_and_in_python_to_the_folder(tmp_path, monkeypatch):
    (tmp_path / "size.json").write_text('{"voxels": 2, "path": "x"}')
    monkeypatch.chdir("/")
    assert Size.from_file(tmp_path / "size.json").path == tmp_path / "x"
    assert str(Size(voxels=2, path="x").path) == "/x"
