"""Training data is checked before a training starts."""

import numpy as np
import pytest
import zarr

from em_blocks.errors import ConfigError, GeometryError
from em_blocks.training.config import DataSource
from em_blocks.training.sources import describe, open_source

SIZE = (10.0, 10.0, 10.0)


@pytest.fixture
def arrays(tmp_path):
    """Paths of raw and labels, (6, 8, 9) voxels of random values."""
    rng = np.random.default_rng(0)
    group = zarr.open_group(str(tmp_path / "data.zarr"), "w")
    for name, dtype in (("raw", "u1"), ("labels", "u8")):
        array = group.create_dataset(name, data=rng.integers(0, 9, (6, 8, 9)).astype(dtype))
        array.attrs["voxel_size"] = list(SIZE)
    return {name: str(tmp_path / "data.zarr" / name) for name in ("raw", "labels")}


def source(arrays, **changes):
    return DataSource.from_dict(arrays | changes)


def test_a_source_is_opened_with_its_box(arrays):
    data = open_source(source(arrays, begin=[1, 2, 3], end=[5, 8, 7]), SIZE)
    assert np.asarray(data.raw[data.box]).shape == (4, 6, 4)
    assert data.name == "data.zarr/raw"


def test_the_description_is_of_the_used_voxels(arrays):
    one = describe(open_source(source(arrays, end=[3, 8, 9]), SIZE))
    two = describe(open_source(source(arrays, end=[4, 8, 9]), SIZE))
    array = zarr.open_array(arrays["labels"], "a")
    array[5] = 77
    assert describe(open_source(source(arrays, end=[3, 8, 9]), SIZE)) == one
    array[2, 3, 4] = 77
    assert describe(open_source(source(arrays, end=[3, 8, 9]), SIZE))["sha256"] != one["sha256"]
    assert one["sha256"] != two["sha256"]


def test_a_missing_array_is_a_config_error(arrays):
    with pytest.raises(ConfigError, match="nowhere"):
        open_source(source(arrays, raw="/nowhere"), SIZE)


def test_another_resolution_is_refused(arrays):
    with pytest.raises(GeometryError, match=r"resolution"):
        open_source(source(arrays), (40.0, 4.0, 4.0))


def test_a_box_outside_the_volume_is_refused(arrays):
    with pytest.raises(GeometryError, match=r"\(7, 8, 9\)"):
        open_source(source(arrays, end=[7, 8, 9]), SIZE)


def test_raw_that_is_not_bytes_is_refused(arrays):
    with pytest.raises(ConfigError, match="uint8"):
        open_source(source(arrays, raw=arrays["labels"]), SIZE)


def test_raw_and_labels_of_different_shapes_are_refused(arrays, tmp_path):
    other = zarr.open_array(str(tmp_path / "other"), "w", shape=(5, 8, 9), dtype="u8")
    other.attrs["voxel_size"] = list(SIZE)
    with pytest.raises(GeometryError, match=r"\(5, 8, 9\)"):
        open_source(source(arrays, labels=str(tmp_path / "other")), SIZE)
