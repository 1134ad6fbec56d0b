"""CREMI files: pairs of sites, offsets, volumes beside them, and every way in which they are damaged."""

from pathlib import Path
from tempfile import TemporaryDirectory

import h5py
import numpy as np
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from em_blocks.errors import SynapseFileError
from em_blocks.geometry import Frame
from em_blocks.kernels.synapses.table import LARGEST_ID, Synapses
from em_blocks.volumes.imports.hdf5 import Hdf5Dataset
from em_blocks.volumes.synapse_files import read_synapses, write_synapses
from em_blocks.volumes.synapse_files.cremi import CremiVolume

FRAME = Frame((40.0, 4.6, 4.6), (1520.0, 3644.2, -46.0))
PRE, POST = "presynaptic_site", "postsynaptic_site"
# A T-bar (id 7) with three partners, one (id 9) with one; site 30 has no partner.
IDS = [7, 20, 21, 22, 9, 23, 30]
TYPES = [PRE, POST, POST, POST, PRE, POST, PRE]
LOCATIONS = np.arange(21.0).reshape(7, 3) * 100
HALF = np.array(FRAME.voxel_size) / 2  # from a location to the position that it means
PAIRS = [[7, 21], [9, 23], [7, 20], [7, 22]]


@pytest.fixture
def file_with(tmp_path):
    """Function that writes the example as a file, some of its datasets replaced or left out."""

    def make(*, offset=None, resolution=FRAME.voxel_size, **changed):
        datasets = {
            "ids": np.array(IDS, np.uint64), "types": TYPES, "locations": LOCATIONS,
            "presynaptic_site/partners": np.array(PAIRS, np.uint64),
        }
        with h5py.File(tmp_path / "sample.hdf", "w") as file:
            group = file.create_group("annotations")
            for name, value in (("offset", offset), ("resolution", resolution)):
                if value is not None:
                    group.attrs[name] = value
            for name, values in (datasets | changed).items():
                if values is not None:
                    group[name] = values
        return tmp_path / "sample.hdf"

    changes = {"partners": "presynaptic_site/partners"}
    return lambda **changed: make(**{changes.get(name, name): v for name, v in changed.items()})


def row_changed(values, row, value):
    values = np.array(values)
    values[row] = value
    return values


def test_pairs_are_read_by_the_ids_of_their_sites(file_with):
    found = read_synapses(file_with())
    assert found.id.tolist() == [21, 23, 20, 22]
    np.testing.assert_array_equal(found.pre, LOCATIONS[[0, 4, 0, 0]] + HALF)
    np.testing.assert_array_equal(found.post, LOCATIONS[[2, 5, 1, 3]] + HALF)


def test_the_offset_is_added_once_to_every_site_however_many_pairs_share_it(file_with):
    offset = np.array([1520.0, 3644.2, -46.0])
    found = read_synapses(file_with(offset=offset))
    np.testing.assert_array_equal(found.pre, LOCATIONS[[0, 4, 0, 0]] + offset + HALF)
    np.testing.assert_array_equal(found.post, LOCATIONS[[2, 5, 1, 3]] + offset + HALF)


def test_texts_of_fixed_length_and_small_numbers_are_read_too(file_with):
    found = read_synapses(file_with(
        types=np.array(TYPES, "S"), locations=LOCATIONS.astype(np.float32), ids=np.array(IDS, np.int16),
        partners=np.array(PAIRS, np.uint8),
    ))
    assert found.id.tolist() == [21, 23, 20, 22]
    np.testing.assert_array_equal(found.post, LOCATIONS[[2, 5, 1, 3]] + HALF)


def test_pairs_that_share_a_postsynaptic_site_are_numbered(file_with):
    found = read_synapses(file_with(partners=np.array([[7, 20], [9, 20]])))
    assert found.id.tolist() == [1, 2]
    np.testing.assert_array_equal(found.post, LOCATIONS[[1, 1]] + HALF)


def test_sites_without_partners_make_no_rows(file_with):
    assert len(read_synapses(file_with(partners=None))) == 0
    assert len(read_synapses(file_with(partners=np.empty((0, 2), np.uint64)))) == 0
    nothing = {"ids": np.empty(0, int), "types": np.empty(0, "S4"), "locations": np.empty((0, 3))}
    assert len(read_synapses(file_with(partners=None, **nothing))) == 0


@pytest.mark.parametrize(("changed", "words"), [
    ({"ids": row_changed(np.array(IDS, np.uint64), 2, np.uint64(2**63))}, ["row 3", "ids", "2**63 - 1"]),
    ({"ids": row_changed(IDS, 1, -20)}, ["row 2", "annotations/ids -20"]),
    ({"ids": row_changed(IDS, 5, 7)}, ["row 6", "ids 7", "given before"]),
    ({"locations": row_changed(LOCATIONS, 3, [1, np.nan, 2])}, ["row 4", "locations", "finite"]),
    ({"partners": row_changed(PAIRS, 2, [7, 99])}, ["row 3", "[7, 99]", "no site 99"]),
    ({"partners": row_changed(PAIRS, 1, [23, 9])}, ["row 2", "[23, 9]", "'postsynaptic_site'"]),
    ({"partners": row_changed(PAIRS, 3, PAIRS[0])}, ["row 4", "[7, 21]", "before"]),
    ({"partners": row_changed(np.array(PAIRS, np.uint64), 1, [9, 2**63])}, ["row 2", "2**63 - 1"]),
    ({"types": row_changed(TYPES, 4, "soma").astype("S")}, ["row 2", "'soma'"]),
    ({"ids": None}, ["no dataset annotations/ids"]),
    ({"types": None}, ["no dataset annotations/types"]),
    ({"locations": LOCATIONS[:6]}, ["annotations/locations", "6 rows", "has 7"]),
    ({"locations": LOCATIONS[:, :2]}, ["annotations/locations", "(7, 2)", "(n, 3)"]),
    ({"locations": np.array(TYPES * 3, "S").reshape(7, 3)}, ["annotations/locations", "numbers"]),
    ({"types": np.arange(7)}, ["annotations/types", "int64", "texts"]),
    ({"types": np.array([b"\xff"] * 7)}, ["annotations/types", "no text"]),
    ({"ids": np.array(IDS, float)}, ["annotations/ids", "float64", "whole numbers"]),
    ({"partners": np.array(PAIRS)[:, :1]}, ["partners", "(4, 1)", "(n, 2)"]),
    ({"offset": (1.0, 2.0)}, ["offset", "[1.0, 2.0]", "three numbers"]),
    ({"offset": (1.0, np.inf, 2.0)}, ["offset", "three numbers"]),
    ({"resolution": (40.0, 4.0)}, ["resolution", "[40.0, 4.0]", "three positive"]),
    ({"resolution": (40.0, 4.0, 0.0)}, ["resolution", "three positive"]),
    ({"resolution": "nm"}, ["resolution", "three positive"]),
    ({"resolution": (40.0, np.inf, 4.0)}, ["resolution", "three positive"]),
    ({"resolution": None}, ["does not say how large its voxels are", "voxel_size"]),
], ids=lambda value: " ".join(value) if isinstance(value, (dict, list)) else None)
def test_what_is_malformed_is_named(file_with, changed, words):
    path = file_with(**changed)
    with pytest.raises(SynapseFileError) as error:
        read_synapses(path)
    assert all(word in str(error.value) for word in [*words, str(path)]), error.value


def test_files_without_annotations_and_no_hdf5_at_all_are_refused(tmp_path):
    h5py.File(tmp_path / "test.hdf", "w").close()
    (tmp_path / "text.hdf").write_text("no HDF5")
    for name, words in (("test", "no dataset annotations/ids"), ("text", "cannot be read"),
                        ("missing", "cannot be read")):
        with pytest.raises(SynapseFileError, match=words):
            read_synapses(tmp_path / f"{name}.hdf")


def test_the_middle_of_a_voxel_is_written_as_its_index_times_the_size(tmp_path):
    """As CREMI's scorer has it: location / resolution is the index, from the corner of the volume on."""
    index = np.array([[0, 0, 0], [3, 7, 11]])
    middle = np.array(FRAME.offset) + (index + 0.5) * FRAME.voxel_size
    write_synapses(
        tmp_path / "a.hdf", Synapses(id=[5], pre=middle[:1], post=middle[1:]),
        voxel_size=FRAME.voxel_size, offset=FRAME.offset,
    )
    with h5py.File(tmp_path / "a.hdf") as file:
        locations = file["annotations/locations"][:] + file["annotations"].attrs["offset"]
        np.testing.assert_allclose(locations, FRAME.offset + index * FRAME.voxel_size, atol=1e-9)


@pytest.mark.parametrize("rounded", [lambda v: np.floor(v + 0.5), np.rint], ids=["Python 2", "Python 3"])
def test_every_rounding_finds_the_voxel_that_holds_a_position(tmp_path, rounded):
    """A site on a face between voxels is at half an index, where the Pythons round differently."""
    steps = np.arange(400)[:, None] * [0.25, 0.5, 0.125]
    sites = np.array(FRAME.offset) + steps * FRAME.voxel_size
    write_synapses(
        tmp_path / "a.hdf", Synapses(id=np.arange(400), pre=sites, post=sites),
        voxel_size=FRAME.voxel_size, offset=FRAME.offset,
    )
    with h5py.File(tmp_path / "a.hdf") as file:
        locations = dict(zip(file["annotations/ids"][:], file["annotations/locations"][:], strict=True))
        partners = file["annotations/presynaptic_site/partners"][:]
    for column in partners.T:
        found = (np.array([locations[id] for id in column]) - FRAME.offset) / FRAME.voxel_size
        np.testing.assert_array_equal(rounded(found), np.floor(steps))


@pytest.mark.parametrize("name", ["volumes/labels/neuron_ids", "volumes/raw"])
def test_a_volume_in_the_file_says_whose_voxels_locations_count(file_with, name):
    path = file_with(resolution=None)
    with h5py.File(path, "a") as file:
        file[name] = np.zeros((2, 3, 4), np.uint8)
        file[name].attrs["resolution"] = (50.0, 8.0, 9.0)
    found = read_synapses(path, voxel_size=(1.0, 1.0, 1.0))
    np.testing.assert_array_equal(found.pre, LOCATIONS[[0, 4, 0, 0]] + [25.0, 4.0, 4.5])


def test_whose_voxels_locations_count_may_be_said_for_a_file_that_does_not(file_with):
    found = read_synapses(file_with(resolution=None), voxel_size=(30.0, 6.0, 4.0))
    np.testing.assert_array_equal(found.pre, LOCATIONS[[0, 4, 0, 0]] + [15.0, 3.0, 2.0])


def test_nothing_is_written_while_the_voxels_of_locations_are_not_known(tmp_path):
    with pytest.raises(SynapseFileError, match="got no voxel_size and no volume"):
        write_synapses(tmp_path / "a.hdf", Synapses.empty())
    assert list(tmp_path.iterdir()) == []


def test_clefts_have_the_background_of_cremi(tmp_path):
    clefts = np.zeros((2, 3, 4), np.uint32)
    clefts[1, 2] = 7
    write_synapses(
        tmp_path / "a.hdf", Synapses.empty(), volumes={"clefts": CremiVolume(clefts, FRAME)}
    )
    with h5py.File(tmp_path / "a.hdf") as file:
        found = file["volumes/labels/clefts"][:]
    assert found.dtype == np.uint64 and (found[1, 2] == 7).all()
    assert (found[clefts == 0] == 2**64 - 1).all()


positions = st.tuples(*[st.floats(-1e9, 1e9, allow_subnormal=False)] * 3)


@hypothesis_settings(max_examples=50)
@given(st.data())
def test_what_is_written_is_read_again(data):
    ids = data.draw(st.lists(
        st.integers(0, 9) | st.just(LARGEST_ID) | st.integers(0, LARGEST_ID), unique=True, max_size=6
    ))
    tbars = data.draw(st.lists(positions, min_size=1, max_size=3))
    rows = [(data.draw(st.sampled_from(tbars)), data.draw(positions)) for _ in ids]
    pre, post = np.array(rows).reshape(-1, 2, 3).transpose(1, 0, 2)
    with TemporaryDirectory() as folder:
        path = Path(folder) / "pairs.hdf5"
        write_synapses(
            path, Synapses(id=ids, pre=pre, post=post),
            voxel_size=FRAME.voxel_size, offset=FRAME.offset,
        )
        found = read_synapses(path)
        with h5py.File(path) as file:
            assert len(file["annotations/ids"]) == len(ids) + len({row[0] for row in rows})
    assert found.id.tolist() == ids
    np.testing.assert_allclose(found.pre, pre, rtol=0, atol=1e-4)
    np.testing.assert_allclose(found.post, post, rtol=0, atol=1e-4)


def test_volumes_are_written_with_their_place_and_read_by_the_source_of_ingest(tmp_path):
    rng = np.random.default_rng(0)
    raw = rng.integers(0, 256, (5, 6, 7), np.uint8)
    neurons = rng.integers(0, 2**32, (4, 5, 6), np.uint32)
    write_synapses(tmp_path / "cube.h5", Synapses.empty(), volumes={
        "raw": CremiVolume(raw, FRAME), "neuron_ids": CremiVolume(neurons, Frame((40, 4, 4))),
    })
    with h5py.File(tmp_path / "cube.h5") as file:
        assert file.attrs["file_format"] == "0.2"
        np.testing.assert_array_equal(file["volumes/raw"], raw)
        np.testing.assert_array_equal(file["volumes/labels/neuron_ids"], neurons)
        assert file["volumes/labels/neuron_ids"].dtype == np.uint64
    header = Hdf5Dataset(type="hdf5", path=tmp_path / "cube.h5", dataset="volumes/raw").header()
    assert (header.voxel_size, header.offset) == (FRAME.voxel_size, FRAME.offset)


@pytest.mark.parametrize(("name", "values"), [
    ("raw", np.zeros((2, 3, 4), np.float32)), ("neuron_ids", np.zeros((2, 3, 4), np.int64)),
    ("clefts", np.zeros((3, 4), np.uint64)),
])
def test_a_volume_that_the_format_cannot_hold_is_refused_and_nothing_is_left(tmp_path, name, values):
    with pytest.raises(SynapseFileError, match=f"volumes/.*{name}"):
        write_synapses(
            tmp_path / "cube.hdf", Synapses.empty(), volumes={name: CremiVolume(values, FRAME)}
        )
    assert list(tmp_path.iterdir()) == []
