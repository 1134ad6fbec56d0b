"""What all storage formats have in common, and what a config says of them."""

import json
from importlib.metadata import EntryPoint

import numpy as np
import pytest
import tensorstore as ts
from pydantic import TypeAdapter, ValidationError

from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.formats import storage
from em_blocks.volumes.formats.zarr2 import Zarr2

FRAME = Frame((40, 4.6, 4.6), (400, 46, 9.2))
BUILTIN = ("zarr", "zarr3", "n5", "precomputed")


class Marked(Zarr2):
    """zarr v2 with a marker of its own."""

    marker = "marked.json"
    has_pyramids = False

    def create(self, path, layout, attributes):
        super().create(path, layout, attributes)
        storage.store.write_json(path, self.marker, {})


@pytest.fixture
def marked(monkeypatch):
    point = EntryPoint("marked", f"{__name__}:Marked", "em_blocks.formats")
    monkeypatch.setattr(EntryPoint, "load", lambda self: Marked)
    monkeypatch.setattr(storage.FORMATS, "_foreign", {"marked": [point]})
    yield
    storage.format_named.cache_clear()


def make(path, format, **options):
    return Volume.create(
        str(path), shape=(6, 20, 30), dtype="uint8", frame=FRAME, chunk_shape=(3, 10, 15),
        format=format, **options,
    )


@pytest.mark.parametrize("format", BUILTIN)
def test_an_array_is_of_the_format_that_made_it(tmp_path, format):
    made = make(tmp_path / "a", format)
    found = storage.detect(str(tmp_path / "a"))
    assert found is made.storage is storage.format_named(format) and found.name == format
    assert made.chunk_shape == (3, 10, 15) and made.frame == FRAME
    others = [one for one in storage.all_formats() if one is not found]
    assert len(others) == 3 and not any(one.is_array(made.path) for one in others)


@pytest.mark.parametrize("format", BUILTIN)
def test_the_files_that_tell_whose_an_array_is_are_known(tmp_path, format):
    make(tmp_path / "a", format)
    names = storage.metadata_files()
    assert {p.name for p in (tmp_path / "a").iterdir() if p.is_file()} <= set(names)
    # What makes a folder an array is deleted first, attributes after it.
    markers = {"zarr": ".zarray", "zarr3": "zarr.json", "n5": "attributes.json", "precomputed": "info"}
    assert names[:4] == list(markers.values()) and set(names[4:]) == {".zattrs", "em_blocks.json"}


def test_only_formats_with_shards_get_them(tmp_path):
    shards = {name: storage.block_shards(name, (6, 20, 30)) for name in BUILTIN}
    assert shards == {**dict.fromkeys(BUILTIN), "zarr3": (6, 20, 30)}
    with pytest.raises(VolumeError, match="the format n5 has no shards, zarr3 has"):
        make(tmp_path / "a.n5/a", "n5", shard_shape=(6, 20, 30))
    assert not (tmp_path / "a.n5").exists()


def test_a_config_names_a_format_that_there_is():
    for type, names, said in [
        (storage.Format, BUILTIN, "'zarr', 'zarr3', 'n5' or 'precomputed'"),
        (storage.PyramidFormat, ("zarr", "zarr3", "precomputed"), "'zarr', 'zarr3' or 'precomputed'"),
    ]:
        model = TypeAdapter(type)
        assert [model.validate_python(name) for name in names] == list(names)
        assert model.json_schema() == {"enum": list(names), "type": "string"}
        for wrong in ("tiff", 5, None, "n5" if "n5" not in names else "N5", ["zarr"]):
            with pytest.raises(ValidationError) as caught:
                model.validate_python(wrong)
            assert caught.value.errors()[0]["msg"] == f"Input should be {said}"


def test_an_unknown_format_is_refused_before_anything_is_written(tmp_path):
    with pytest.raises(ConfigError, match=r"no 'tiff' in em_blocks.formats; there are zarr, zarr3, n5"):
        make(tmp_path / "x.zarr/a", "tiff")
    assert not list(tmp_path.iterdir())


def test_a_format_of_another_package_is_asked_before_the_one_it_extends(tmp_path, marked):
    made = make(tmp_path / "x.zarr/a", "marked")
    plain = make(tmp_path / "x.zarr/b", "zarr")
    assert (made.format, plain.format) == ("marked", "zarr")
    assert isinstance(Volume.open(made.path).storage, Marked)
    assert json.loads((tmp_path / "x.zarr/.zgroup").read_text()) == {"zarr_format": 2}
    values = np.arange(6 * 20 * 30, dtype="uint8").reshape(6, 20, 30)
    made.write(made.box, values)
    np.testing.assert_array_equal(Volume.open(made.path).read(made.roi), values)
    with pytest.raises(VolumeError, match="exists already"):
        make(tmp_path / "x.zarr/a", "zarr3")
    assert "marked.json" in storage.metadata_files()
    assert TypeAdapter(storage.Format).validate_python("marked") == "marked"
    with pytest.raises(ValidationError, match="'zarr', 'zarr3' or 'precomputed'"):
        TypeAdapter(storage.PyramidFormat).validate_python("marked")


@pytest.mark.parametrize("error", [ValueError, OSError, EOFError, NotImplementedError])
def test_an_error_of_a_damaged_chunk_names_the_volume(tmp_path, marked, monkeypatch, error):
    made = make(tmp_path / "a", "marked")

    def damaged(domain, values, parameters):
        raise error("odd bytes")

    lazy = ts.virtual_chunked(damaged, dtype=ts.uint8, shape=made.shape)
    monkeypatch.setattr(Marked, "open", lambda self, path, *, write: lazy)
    with pytest.raises(VolumeError, match=r"(?s)a cannot be read: .*odd bytes"):
        Volume.open(made.path).read(made.box)
