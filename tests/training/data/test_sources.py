"""Training data is checked before a training starts."""

from pathlib import Path

import h5py
import numpy as np
import pytest
import zarr

from em_blocks.errors import (
    ConfigError,
    GeometryError,
    IncompleteInputError,
    SynapseFileError,
    VolumeError,
)
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.models.sources import DataSource
from em_blocks.training.data.sources import describe, open_source
from em_blocks.training.scores.inference import truth_of_box
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.ledger import Ledger, write_ledger
from em_blocks.volumes.synapse_files import write_synapses

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


def test_a_missing_array_is_named(arrays):
    with pytest.raises(VolumeError, match="nowhere"):
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


# -- place, voxel size, completeness ---------------------------------------------------------


def said_to_be(path, **attributes):
    zarr.open_array(path, "a").attrs.update(attributes)


def test_labels_that_lie_elsewhere_are_refused_with_both_offsets(arrays):
    said_to_be(arrays["raw"], offset=[400.0, 46.0, 9.2])
    with pytest.raises(GeometryError, match=r"\(400\.0, 46\.0, 9\.2\).*\(0\.0, 0\.0, 0\.0\)"):
        open_source(source(arrays), SIZE)
    said_to_be(arrays["labels"], offset=[400.0, 46.0, 9.2])
    open_source(source(arrays), SIZE)
    for axis in range(3):  # a hundredth of a voxel is another place, rounding is not
        moved = [400.0, 46.0, 9.2]
        moved[axis] += 0.1
        said_to_be(arrays["labels"], offset=moved)
        with pytest.raises(GeometryError, match="labels that lie elsewhere"):
            open_source(source(arrays), SIZE)
    said_to_be(arrays["labels"], offset=[400.0, 46.0 + 1e-9, 9.2])
    open_source(source(arrays), SIZE)


@pytest.mark.parametrize(("size", "fits"), [(5.0, 1), (5.04, 1), (4.96, 1), (5.06, 0), (4.94, 0)])
def test_one_percent_of_another_voxel_size_is_allowed(arrays, size, fits):
    for path in arrays.values():
        said_to_be(path, voxel_size=[40.0, size, 4.6])
    if fits:
        open_source(source(arrays), (40.0, 5.0, 4.6))
        return
    with pytest.raises(GeometryError, match=rf"\(40\.0, {size}, 4\.6\).*\(40\.0, 5\.0, 4\.6\) nm"):
        open_source(source(arrays), (40.0, 5.0, 4.6))


def test_raw_and_labels_of_two_voxel_sizes_are_refused_also_within_one_percent(arrays):
    said_to_be(arrays["labels"], voxel_size=[10.0, 10.0, 10.05])
    with pytest.raises(GeometryError, match=r"10\.0\).*10\.05\) nm.*drift apart"):
        open_source(source(arrays), SIZE)


def test_a_volume_that_does_not_say_its_voxel_size_is_refused(arrays):
    del zarr.open_array(arrays["labels"], "a").attrs["voxel_size"]
    with pytest.raises(VolumeError, match=r"labels does not say how large its voxels are"):
        open_source(source(arrays), SIZE)


def test_what_a_run_has_not_completed_is_not_trained_on(arrays):
    grid = BlockGrid(Frame(SIZE), (6, 8, 9), (6, 8, 3))
    generation = np.array([[[1, 0, 1]]], np.uint32)
    ledger = Ledger(
        "half", "id", "ingest", "f", "c", grid, "closed", generation, np.zeros((1, 1, 3), bool)
    )
    write_ledger(arrays["labels"], ledger)
    with pytest.raises(IncompleteInputError, match=r"training data .*labels is not complete.*0/0/1"):
        open_source(source(arrays), SIZE)
    write_ledger(arrays["labels"], ledger.replaced(generation=generation + 1))
    open_source(source(arrays), SIZE)


@pytest.mark.parametrize("format", ["n5", "zarr3"])
def test_other_formats_are_refused_with_what_to_do(arrays, tmp_path, format):
    Volume.create(
        tmp_path / "other/raw", shape=(6, 8, 9), dtype="uint8", frame=Frame(SIZE),
        chunk_shape=(6, 8, 9), format=format,
    )
    with pytest.raises(ConfigError, match=rf"format {format}.*docs/training\.md"):
        open_source(source(arrays, raw=str(tmp_path / "other/raw")), SIZE)


def test_what_the_documentation_says_of_other_data_works(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(2)
    shape, size = (9, 8, 7), (40.0, 4.6, 4.6)
    stored = {
        "raw.n5/raw": (rng.integers(0, 2**16, shape).astype("u2"), Frame(size, (400, 46, 9.2))),
        "crop.zarr/labels": (
            rng.integers(-1, 9, (5, 4, 9)).astype("i8"), Frame(size, (480, 59.8, 18.4))
        ),
    }
    for (path, (values, frame)), form in zip(stored.items(), ("n5", "zarr"), strict=True):
        volume = Volume.create(
            path, shape=values.shape, dtype=values.dtype, frame=frame, chunk_shape=(4, 4, 4),
            format=form,
        )
        volume.write(volume.box, values)
    text = (Path(__file__).parents[3] / "docs" / "training.md").read_text()
    exec(text.split("```python\n")[1].split("```")[0], {})
    both = {name: f"training.zarr/{name}" for name in ("raw", "labels")}
    data = open_source(DataSource.from_dict(both, folder=tmp_path), size)
    (raw, _), (labels, _) = stored.values()
    assert np.array_equal(data.raw[:], raw[2:7, 3:7, 2:] // 257)
    assert np.array_equal(data.labels[:], labels[:, :, :5].clip(0))


# -- synapses --------------------------------------------------------------------------------

OFFSET = np.array([400.0, 46.0, 9.2])


@pytest.fixture
def marked(arrays, tmp_path):
    """The arrays somewhere in the world, with synapses in voxels 0, (2, 3, 4) and beyond the end."""
    for path in arrays.values():
        zarr.open_array(path, "a").attrs["offset"] = OFFSET.tolist()
    post = OFFSET + np.array([[0.5, 0.5, 0.5], [2.5, 3.5, 4.5], [6.5, 1.5, 1.5]]) * SIZE
    found = Synapses(id=[1, 2, 3], post=post, pre=post + np.array([30, -20, 10]))
    write_synapses(tmp_path / "pairs.csv", found)
    return arrays | {"synapses": str(tmp_path / "pairs.csv")}


def test_synapses_of_a_file_count_from_the_first_voxel_of_the_array(marked):
    found = open_source(source(marked), SIZE).synapses
    np.testing.assert_allclose(found.post, [[5, 5, 5], [25, 35, 45], [65, 15, 15]])
    np.testing.assert_allclose(found.pre - found.post, [[30, -20, 10]] * 3)


def test_locations_of_cremi_are_indices_of_raws_voxels(marked, tmp_path):
    """They are half a voxel before the middles; a file of annotations alone does not say how large."""
    index = np.array([[0.0, 0, 0], [2, 3, 4]])
    with h5py.File(tmp_path / "pairs.hdf", "w") as file:
        group = file.create_group("annotations")
        group.attrs["offset"] = OFFSET
        group["ids"], group["locations"] = [1, 2], index * SIZE
        group["types"] = np.array(["presynaptic_site", "postsynaptic_site"], "S")
        group["presynaptic_site/partners"] = [[1, 2]]
    found = open_source(source(marked, synapses=str(tmp_path / "pairs.hdf")), SIZE).synapses
    np.testing.assert_allclose(found.pre, [[5, 5, 5]])
    np.testing.assert_allclose(found.post, [[25, 35, 45]])


def test_synapses_stay_at_their_voxels_where_the_setup_is_for_a_little_larger_ones(marked):
    found = open_source(source(marked), (10.0, 10.1, 10.0)).synapses
    voxels = [[0.5, 0.5, 0.5], [2.5, 3.5, 4.5], [6.5, 1.5, 1.5]]
    np.testing.assert_allclose(found.post / (10.0, 10.1, 10.0), voxels)


def test_synapses_of_a_box_count_from_its_corner_and_lie_in_it_by_their_postsynaptic_site(marked):
    def points(**values):
        return truth_of_box(open_source(source(marked, **values), SIZE), SIZE).points

    assert len(points()["post"]) == 2, "the third lies beyond the volume"
    box = points(begin=[2, 3, 4], end=[6, 8, 9])
    np.testing.assert_allclose(box["post"], [[5, 5, 5]])
    np.testing.assert_allclose(box["pre"], [[35, -15, 15]])  # outside of the box, and kept
    last = points(end=[2, 3, 4])["post"]
    np.testing.assert_allclose(last, points()["post"][:1])  # the end is excluded


def test_a_source_without_a_file_has_no_synapses(arrays):
    data = open_source(source(arrays), SIZE)
    assert data.synapses is None and truth_of_box(data, SIZE).points == {}


def test_synapses_are_part_of_the_description(marked, tmp_path):
    before = describe(open_source(source(marked), SIZE))
    moved = Synapses(id=[1], post=[OFFSET + 5], pre=[OFFSET + 9])
    write_synapses(tmp_path / "pairs.csv", moved)
    assert describe(open_source(source(marked), SIZE))["sha256"] != before["sha256"]


def test_a_missing_or_malformed_file_of_synapses_is_named(marked, tmp_path):
    with pytest.raises(SynapseFileError, match=r"nowhere\.csv"):
        open_source(source(marked, synapses=str(tmp_path / "nowhere.csv")), SIZE)
    (tmp_path / "pairs.csv").write_text("what is this")
    with pytest.raises(SynapseFileError, match=r"pairs\.csv"):
        open_source(source(marked), SIZE)
