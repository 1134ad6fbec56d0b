"""Training data is checked before a training starts."""

import gc
import hashlib

import h5py
import numpy as np
import pytest
import zarr
from pydantic import TypeAdapter

from em_blocks.errors import (
    ConfigError,
    GeometryError,
    IncompleteInputError,
    SynapseFileError,
    VolumeError,
)
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.models.config import SetupConfig
from em_blocks.models.normalization import NormalizationChoice
from em_blocks.models.sources import DataSource
from em_blocks.training.data.normalization import measured_normalization
from em_blocks.training.data.raw_sample import RawSample
from em_blocks.training.data.sources import describe, open_source, open_sources
from em_blocks.training.review.checks import check_intensities
from em_blocks.training.scores.inference import truth_of_box
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.ledger import Ledger, write_ledger
from em_blocks.volumes.synapse_files import write_synapses
from tiny_setup import tiny_config

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


def opened(made, size=SIZE):
    """The only used box of a source."""
    [data] = open_source(made, size)
    return data


def test_a_source_is_opened_with_its_box(arrays):
    data = opened(source(arrays, begin=[1, 2, 3], end=[5, 8, 7]))
    assert data.raw[data.box].shape == (4, 6, 4)
    assert data.name == "data.zarr/raw"


def test_the_description_is_of_the_used_voxels(arrays):
    one = describe(opened(source(arrays, end=[3, 8, 9])))
    two = describe(opened(source(arrays, end=[4, 8, 9])))
    array = zarr.open_array(arrays["labels"], "a")
    array[5] = 77
    assert describe(opened(source(arrays, end=[3, 8, 9]))) == one
    array[2, 3, 4] = 77
    assert describe(opened(source(arrays, end=[3, 8, 9])))["sha256"] != one["sha256"]
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


def test_raw_that_is_no_image_is_refused(arrays):
    with pytest.raises(ConfigError, match=r"raw data .*labels are uint64 .*intensities \(z, y, x\)"):
        open_source(source(arrays, raw=arrays["labels"]), SIZE)


def test_labels_that_are_no_ids_are_refused(arrays, tmp_path):
    stored(tmp_path / "floats", np.ones((6, 8, 9), "f4"), Frame(SIZE))
    with pytest.raises(ConfigError, match=r"floats holds float32 .*integer id"):
        open_source(source(arrays, labels=str(tmp_path / "floats")), SIZE)


# -- place, voxel size, completeness ---------------------------------------------------------


def stored(path, values, frame, format="zarr", **attributes):
    """Write a volume; returns its path."""
    shape = values.shape[-3:]
    volume = Volume.create(
        str(path), shape=shape, dtype=values.dtype, frame=frame, format=format,
        chunk_shape=tuple(min(n, 4) for n in shape), attributes=attributes,
    )
    volume.write(volume.box, values)
    return str(path)


def said_to_be(path, **attributes):
    zarr.open_array(path, "a").attrs.update(attributes)


def test_labels_a_part_of_a_voxel_away_are_refused_with_both_offsets(arrays):
    said_to_be(arrays["raw"], offset=[400.0, 46.0, 9.2])
    with pytest.raises(
        GeometryError, match=r"\(400\.0, 46\.0, 9\.2\).*\(0\.0, 0\.0, 0\.0\).*-40\.0, -4\.6, -0\.92"
    ):
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


# -- formats, dtypes, offsets ------------------------------------------------------------------

PLACE = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
FORMATS = ["zarr", "zarr3", "n5", "precomputed"]


def image(dtype, shape=(9, 8, 7), seed=1):
    rng = np.random.default_rng(seed)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype)


def ids(dtype="u8", shape=(5, 4, 9), seed=2):
    return np.random.default_rng(seed).integers(0, 99, shape).astype(dtype)


def inner(**source):
    """Data of labels that begin 2, 3 and 2 voxels after raw, and end beyond it along x."""
    return opened(DataSource(**source), PLACE.voxel_size)


AFTER = Frame(PLACE.voxel_size, (480.0, 59.8, 18.4))


@pytest.fixture(params=["disk", "s3"])
def folder(request, tmp_path):
    """Where volumes are stored: a folder, or a bucket of an object store."""
    return str(tmp_path) if request.param == "disk" else request.getfixturevalue("bucket")


@pytest.mark.parametrize("dtype", ["u1", "u2"])
@pytest.mark.parametrize("format", FORMATS)
def test_every_format_and_store_that_a_prediction_reads_is_trained_on(folder, format, dtype):
    raw, labels = image(dtype), ids("u4" if format == "precomputed" else "u8")
    data = inner(
        raw=stored(f"{folder}/raw", raw, PLACE, format),
        labels=stored(f"{folder}/labels", labels, AFTER, format),
    )
    assert (data.begin, data.end) == ((2, 3, 2), (7, 7, 7)), "the common region, in voxels of raw"
    np.testing.assert_array_equal(data.raw[data.box], raw[2:7, 3:7, 2:])
    np.testing.assert_array_equal(data.labels["labels"][data.box], labels[:, :, :5])
    part = (slice(3, 5), slice(4, 7), slice(5, 6))
    np.testing.assert_array_equal(data.raw[part], raw[part])
    np.testing.assert_array_equal(data.labels["labels"][part], labels[1:3, 1:4, 3:4])
    assert data.raw.dtype == dtype and data.raw[part].dtype == dtype


@pytest.mark.parametrize("format", FORMATS)
def test_the_format_does_not_change_the_identity(tmp_path, format):
    raw, labels = image("u2"), ids("u4", (9, 8, 7))

    def described(form):
        return describe(inner(
            raw=stored(tmp_path / form / "raw", raw, PLACE, form),
            labels=stored(tmp_path / form / "labels", labels, PLACE, form),
        ))

    one = described(format)
    digest = hashlib.sha256()
    for section, truth in zip(raw, labels, strict=True):
        digest.update(section.astype("<u2"))
        digest.update(truth.astype("<u8"))
    assert one == {
        "name": f"{format}/raw", "begin": [0, 0, 0], "end": [9, 8, 7], "weight": 1.0,
        "sha256": digest.hexdigest(),
    }


def test_axes_in_another_order_are_turned(tmp_path):
    """Stored as (x, y, z), and its attributes say so."""
    values = image("u1")
    path = str(tmp_path / "data.zarr/raw")
    zarr.open_array(path, "w", shape=(7, 8, 9), dtype="u1")[:] = values.T
    said_to_be(path, axis_names=["x", "y", "z"], voxel_size=[4.6, 4.6, 40.0], offset=[9.2, 46.0, 400.0])
    labels = stored(tmp_path / "labels", ids(), AFTER)
    said = {"path": path, "voxel_size": PLACE.voxel_size, "offset": PLACE.offset}
    data = inner(raw=said, labels=labels)
    np.testing.assert_array_equal(data.raw[data.box], values[2:7, 3:7, 2:])


@pytest.mark.parametrize("shape", [(9, 8, 7), (5, 4, 9)])
def test_labels_are_read_from_hdf5(tmp_path, shape):
    labels = ids(shape=shape)
    with h5py.File(tmp_path / "truth.h5", "w") as file:
        file["volumes/neurons"] = labels
        if shape != (9, 8, 7):
            file["volumes/neurons"].attrs.update(resolution=PLACE.voxel_size, offset=AFTER.offset)
    raw = stored(tmp_path / "raw", image("u1"), PLACE)
    data = inner(raw=raw, labels=f"{tmp_path}/truth.h5:volumes/neurons")
    gc.collect()  # nobody but the data holds the file
    whole = labels if shape == (9, 8, 7) else labels[:, :, :5]
    np.testing.assert_array_equal(data.labels["labels"][data.box], whole)


def test_hdf5_labels_of_another_shape_that_do_not_say_where_they_lie_are_refused(tmp_path):
    with h5py.File(tmp_path / "truth.h5", "w") as file:
        file["neurons"] = ids()
    raw = stored(tmp_path / "raw", image("u1"), PLACE)
    with pytest.raises(ConfigError, match=r"truth\.h5:neurons has no attribute 'resolution'"):
        inner(raw=raw, labels=f"{tmp_path}/truth.h5:neurons")


@pytest.mark.parametrize("dtype", ["i1", "i4", "i8", "u2"])
def test_signed_ids_are_read_as_unsigned_and_negative_ones_refused(tmp_path, dtype):
    raw = stored(tmp_path / "raw", image("u1"), PLACE)
    labels = ids(dtype)
    found = inner(raw=raw, labels=stored(tmp_path / "labels", labels, AFTER))
    values = found.labels["labels"][found.box]
    assert values.dtype.kind == "u"
    np.testing.assert_array_equal(values, labels[:, :, :5])
    if np.dtype(dtype).kind == "i":
        labels[3, 2, 1] = -1
        with pytest.raises(ConfigError, match=r"holds the id -1 at voxel \(3, 2, 1\)"):
            inner(raw=raw, labels=stored(tmp_path / "negative", labels, AFTER))


def test_floats_are_read_as_32_bits_and_must_be_numbers(tmp_path):
    values, labels = image("f4"), stored(tmp_path / "labels", ids(), AFTER)
    data = inner(raw=stored(tmp_path / "raw", values, PLACE), labels=labels)
    np.testing.assert_array_equal(data.raw[data.box], values[2:7, 3:7, 2:])
    values[0] = np.nan  # outside of the used box
    inner(raw=stored(tmp_path / "outside", values, PLACE), labels=labels)
    values[6, 5, 4] = np.inf
    with pytest.raises(VolumeError, match=r"NaN or infinity in the sections \d to 7"):
        inner(raw=stored(tmp_path / "inside", values, PLACE), labels=labels)


@pytest.mark.parametrize(
    "asked", ["dtype", {"percentiles": [1, 99]}, {"scale": 1e-4, "shift": -3.1}]
)
def test_a_normalization_of_a_source_gives_the_numbers_that_a_prediction_sees(tmp_path, asked):
    values = np.random.default_rng(4).normal(30000, 4000, (40, 24, 24)).astype("u2")
    raw = stored(tmp_path / "raw", values, PLACE)
    labels = stored(tmp_path / "labels", ids(shape=values.shape), PLACE)
    setup = SetupConfig.from_dict(tiny_config() | {"voxel_size": PLACE.voxel_size})
    source = {"raw": raw, "labels": labels, "normalization": asked, "begin": [20, 3, 2]}
    [data] = open_sources([DataSource.from_dict(source)], setup)
    volume, choice = Volume.open(raw), TypeAdapter(NormalizationChoice).validate_python(asked)
    scale = measured_normalization(RawSample(volume, volume.box), volume, setup, choice)
    seen = data.raw[data.box] * setup.normalization.scale + setup.normalization.shift
    wanted = values[20:, 3:, 2:] * scale["scale"] + scale["shift"]
    np.testing.assert_allclose(seen, wanted, atol=1e-4)
    assert data.raw.dtype == np.float32 and data.is_scaled
    check_intensities([data], setup, "sources")
    plain = open_sources([DataSource.from_dict({"raw": raw, "labels": labels})], setup)
    with pytest.raises(ConfigError, match=r"raw is uint16 with .*`normalization` of its own"):
        check_intensities(plain, setup, "sources")


def test_volumes_without_a_common_voxel_are_refused(tmp_path):
    raw = stored(tmp_path / "raw", image("u1"), PLACE)
    beside = Frame(PLACE.voxel_size, (400.0 + 9 * 40, 46.0, 9.2))
    with pytest.raises(GeometryError, match=r"no voxel of the box .* has labels.*400\.0"):
        inner(raw=raw, labels=stored(tmp_path / "labels", ids(), beside))
    last = Frame(PLACE.voxel_size, (400.0 + 8 * 40, 46.0, 9.2))
    data = inner(raw=raw, labels=stored(tmp_path / "last", ids(), last))
    assert (data.begin, data.end) == ((8, 0, 0), (9, 4, 7))


def test_what_a_config_says_of_a_volume_holds(tmp_path):
    labels = ids()
    wrong = stored(tmp_path / "labels", labels, Frame((1.0, 1.0, 1.0)))
    said = {"path": wrong, "voxel_size": AFTER.voxel_size, "offset": AFTER.offset}
    raw = stored(tmp_path / "raw", image("u1"), PLACE)
    for spelling in (said, {"labels": said}):
        data = inner(raw=raw, labels=spelling)
        np.testing.assert_array_equal(data.labels["labels"][data.box], labels[:, :, :5])


# -- several volumes, masks, ROIs ----------------------------------------------------------------


def test_several_label_volumes_and_masks_are_used_where_all_are(tmp_path):
    raw = stored(tmp_path / "raw", image("u2"), PLACE)
    cells, mito, tissue = ids(), ids("u1", (9, 8, 7), 3), ids("u1", (9, 8, 5), 4) % 3
    labels = {"mito": stored(tmp_path / "m", mito, PLACE)}
    labels["labels"] = stored(tmp_path / "l", cells, AFTER)
    masks = {"tissue": stored(tmp_path / "t", tissue, PLACE)}
    data = inner(raw=raw, labels=labels, masks=masks)
    assert (data.begin, data.end) == ((2, 3, 2), (7, 7, 5))
    truth = truth_of_box(data, PLACE.voxel_size)
    assert list(truth.labels) == ["labels", "mito"]
    np.testing.assert_array_equal(truth.labels["labels"], cells[:, :, :3])
    np.testing.assert_array_equal(truth.labels["mito"], mito[2:7, 3:7, 2:5])
    np.testing.assert_array_equal(truth.masks["tissue"], tissue[2:7, 3:7, 2:] > 0)
    described = describe(data)
    assert described["labels"] == ["labels", "mito"] and described["masks"] == ["tissue"]
    zarr.open_array(str(tmp_path / "t"), "a")[4, 4, 4] = 1 - truth.masks["tissue"][2, 1, 2]
    assert describe(data)["sha256"] != described["sha256"]


def test_one_label_volume_means_the_same_in_both_spellings(tmp_path):
    raw, labels = (stored(tmp_path / name, ids("u1"), AFTER) for name in ("raw", "labels"))
    plain, named = (DataSource(raw=raw, labels=it) for it in (labels, {"labels": labels}))
    assert plain == named and plain.label_volumes == {"labels": labels}
    assert DataSource(raw=raw, labels={"mito": labels}) != plain


def test_a_mask_may_be_boolean(tmp_path):
    raw, labels = stored(tmp_path / "raw", image("u1"), PLACE), stored(tmp_path / "l", ids(), AFTER)
    inside = ids(shape=(9, 8, 7)) > 50
    path = str(tmp_path / "mask.zarr")
    zarr.open_array(path, "w", shape=inside.shape, dtype=bool)[:] = inside
    said_to_be(path, voxel_size=list(PLACE.voxel_size), offset=list(PLACE.offset))
    data = inner(raw=raw, labels=labels, masks={"tissue": path})
    np.testing.assert_array_equal(data.masks["tissue"][data.box], inside[2:7, 3:7, 2:])


def test_rois_are_regions_of_the_world_and_share_the_weight_by_size(tmp_path):
    raw, labels = image("u1"), ids()
    rois = [
        {"offset": [480, 59.8, 18.4], "shape": [80, 9.2, 9.2]},  # 2 x 2 x 2
        {"offset": [400, 64.4, 9.2], "shape": [360, 9.2, 18.4]},  # beyond the labels along z
    ]
    made = DataSource.from_dict({
        "raw": stored(tmp_path / "raw", raw, PLACE), "labels": stored(tmp_path / "l", labels, AFTER),
        "rois": rois, "weight": 3.5,
    })
    data = open_source(made, PLACE.voxel_size)
    assert [(one.begin, one.end) for one in data] == [((2, 3, 2), (4, 5, 4)), ((2, 4, 2), (7, 6, 4))]
    assert [one.weight for one in data] == [1.0, 2.5]
    for one in data:
        np.testing.assert_array_equal(one.raw[one.box], raw[one.box])
    assert {describe(one)["name"][-5:] for one in data} == {"ROI 1", "ROI 2"}


@pytest.mark.parametrize(
    ("offset", "message"),
    [((480, 60, 18.4), "does not lie on the voxel grid"), ((720, 59.8, 18.4), "not inside")],
)
def test_a_roi_off_the_grid_or_outside_of_raw_is_refused(tmp_path, offset, message):
    rois = [{"offset": offset, "shape": [80, 9.2, 9.2]}]
    made = DataSource.from_dict({
        "raw": stored(tmp_path / "raw", image("u1"), PLACE), "rois": rois,
        "labels": stored(tmp_path / "l", ids(), AFTER),
    })
    with pytest.raises(GeometryError, match=message):
        open_source(made, PLACE.voxel_size)


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"rois": [{"offset": [0, 0, 0], "shape": [1, 1, 1]}], "begin": [1, 0, 0]}, "either `rois`"),
        ({"rois": []}, "rois"), ({"labels": {}}, "labels"), ({"masks": {"a b": "m"}}, "masks"),
    ],
)
def test_a_source_that_contradicts_itself_is_refused(arrays, more, message):
    with pytest.raises(ConfigError, match=message):
        source(arrays, **more)


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
    found = opened(source(marked)).synapses
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
    found = opened(source(marked, synapses=str(tmp_path / "pairs.hdf"))).synapses
    np.testing.assert_allclose(found.pre, [[5, 5, 5]])
    np.testing.assert_allclose(found.post, [[25, 35, 45]])


def test_synapses_stay_at_their_voxels_where_the_setup_is_for_a_little_larger_ones(marked):
    found = opened(source(marked), (10.0, 10.1, 10.0)).synapses
    voxels = [[0.5, 0.5, 0.5], [2.5, 3.5, 4.5], [6.5, 1.5, 1.5]]
    np.testing.assert_allclose(found.post / (10.0, 10.1, 10.0), voxels)


def test_synapses_of_a_box_count_from_its_corner_and_lie_in_it_by_their_postsynaptic_site(marked):
    def points(**box):
        return truth_of_box(opened(source(marked, **box)), SIZE).points

    assert len(points()["post"]) == 2, "the third lies beyond the volume"
    box = points(begin=[2, 3, 4], end=[6, 8, 9])
    np.testing.assert_allclose(box["post"], [[5, 5, 5]])
    np.testing.assert_allclose(box["pre"], [[35, -15, 15]])  # outside of the box, and kept
    last = points(end=[2, 3, 4])
    np.testing.assert_allclose(last["post"], [[5, 5, 5]])  # the end is excluded


def test_a_source_without_a_file_has_no_synapses(arrays):
    data = opened(source(arrays))
    assert data.synapses is None and truth_of_box(data, SIZE).points == {}


def test_synapses_are_part_of_the_description(marked, tmp_path):
    before = describe(opened(source(marked)))
    moved = Synapses(id=[1], post=[OFFSET + 5], pre=[OFFSET + 9])
    write_synapses(tmp_path / "pairs.csv", moved)
    assert describe(opened(source(marked)))["sha256"] != before["sha256"]


def test_a_missing_or_malformed_file_of_synapses_is_named(marked, tmp_path):
    with pytest.raises(SynapseFileError, match=r"nowhere\.csv"):
        open_source(source(marked, synapses=str(tmp_path / "nowhere.csv")), SIZE)
    (tmp_path / "pairs.csv").write_text("what is this")
    with pytest.raises(SynapseFileError, match=r"pairs\.csv"):
        open_source(source(marked), SIZE)
