"""The table of features: the same for every block grid, equal to slow references, resumed, refused."""

import csv

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from rich.console import Console

from blockwise import do_all_steps, store_of, stored_files
from em_blocks.errors import ConfigError, EmBlocksError
from em_blocks.geometry import Box, Frame
from em_blocks.runtime.scheduler.pipeline import run_config
from em_blocks.tasks.features.features import Features
from em_blocks.tasks.features.measure import measured_parts
from em_blocks.tasks.features.table import table_of_features
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.6, 5.2), (400.0, 46.0, -10.4))
SHAPE = (20, 31, 45)
SHAPES = [(20, 31, 45), (5, 16, 16), (10, 8, 45), (7, 31, 9)]
MARGIN = ((0, 1), (1, 1), (1, 1))


def labels_of(seed=0):
    """Ids that touch each other, in several pieces each, over many blocks; some are large."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice([0, 1, 2, 7, 2**40, 2**62], (7, 8, 12))
    return np.kron(coarse, np.ones((3, 4, 4), np.int64))[:20, :31, :45].astype(np.uint64)


def image_of(seed=0, shape=SHAPE):
    return np.random.default_rng(seed).integers(0, 256, shape).astype(np.uint8)


def volume(folder, values, name, frame=FRAME, **options):
    made = Volume.create(
        str(folder / f"in.zarr/{name}"), shape=values.shape[-3:], dtype=values.dtype, frame=frame,
        chunk_shape=(7, 8, 9), **options,
    )
    made.write(made.box, values)
    return made.path


@pytest.fixture
def inputs(tmp_path):
    return {"labels": volume(tmp_path, labels_of(), "labels"), "em": volume(tmp_path, image_of(), "em")}


def features(folder, name="a", **options):
    return Features.from_dict({
        "kind": "features", "run": "measured", "output": str(folder / name / "table.parquet"),
        "block_shape": [10, 16, 16], **options,
    })


def table(task):
    return pq.read_table(task.output)


def check_all(task):
    for step in task.steps():
        step.grid()
        step.check()


def of_array(labels, voxel_size=(1.0, 1.0, 1.0), names=("shape", "surface")):
    """The columns of a whole volume in one block, at the origin."""
    parts = measured_parts(np.pad(labels, MARGIN), None, (0, 0, 0), names)
    return table_of_features([parts], Frame(voxel_size), labels.shape)


# -- what comes out ---------------------------------------------------------------------


@pytest.mark.parametrize("block_shape", SHAPES[1:])
def test_no_value_depends_on_the_blocks(tmp_path, inputs, block_shape):
    whole, blocks = (
        features(tmp_path, name, block_shape=shape, **inputs)
        for name, shape in (("whole", SHAPES[0]), ("blocks", block_shape))
    )
    n_parts = [do_all_steps(task)["measure_features", "parts"] for task in (whole, blocks)]
    assert n_parts[0] == 5 < n_parts[1]
    assert table(blocks).equals(table(whole))  # every bit of every column


def test_size_place_and_box_are_those_of_the_voxels(tmp_path, inputs):
    task = features(tmp_path, **inputs)
    do_all_steps(task)
    found, labels = table(task).to_pydict(), labels_of()
    size, offset = np.array(FRAME.voxel_size), np.array(FRAME.offset)
    assert found["id"] == [1, 2, 7, 2**40, 2**62] and table(task).schema.field("id").type == "uint64"
    for row, id in enumerate(found["id"]):
        places = np.argwhere(labels == id)
        assert found["voxels"][row] == len(places)
        assert found["volume_nm3"][row] == pytest.approx(len(places) * 40 * 4.6 * 5.2)
        for axis, name in enumerate("zyx"):
            values = [found[column][row] for column in
                      (f"centroid_{name}_nm", f"box_{name}0_nm", f"box_{name}1_nm")]
            expected = (places.mean(axis=0) + 0.5, places.min(axis=0), places.max(axis=0) + 1)
            assert values == pytest.approx([(offset + size * e)[axis] for e in expected])
        world = (places + 0.5) * size
        covariance = np.cov(world.T, bias=True) + np.diag(size**2 / 12)
        axes = 2 * np.sqrt(5 * np.linalg.eigvalsh(covariance))
        names = ("axis_minor_nm", "axis_middle_nm", "axis_major_nm")
        assert [found[name][row] for name in names] == pytest.approx(axes.tolist())
        assert found["gyration_radius_nm"][row] == pytest.approx(np.sqrt(np.trace(covariance)))
        assert found["em_mean"][row] == pytest.approx(image_of()[labels == id].mean())
    with open(tmp_path / "a/table.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["id"]) for row in rows] == found["id"]
    assert list(rows[0]) == table(task).column_names


@settings(max_examples=25, deadline=None)
@given(st.integers(0, 2**32), st.tuples(*[st.integers(1, 8)] * 3), st.tuples(*[st.integers(1, 8)] * 3))
def test_parts_of_any_blocks_are_the_whole(seed, shape, block):
    rng = np.random.default_rng(seed)
    labels, image = rng.integers(0, 4, shape).astype(np.uint64), image_of(seed, shape)
    grown = [np.pad(values, MARGIN) for values in (labels, image)]
    names, frame = ("shape", "surface", "em"), Frame((40.0, 4.6, 5.2), (3.0, 0.0, -7.0))
    parts = []
    for corner in np.ndindex(*(-(-s // b) for s, b in zip(shape, block))):
        begin = np.multiply(corner, block)
        end = np.minimum(begin + block, shape)
        some = tuple(slice(a, b + m) for a, b, m in zip(begin, end, (1, 2, 2)))
        parts.append(measured_parts(*(values[some] for values in grown), begin, names))
    whole = table_of_features([measured_parts(*grown, (0, 0, 0), names)], frame, shape)
    split = table_of_features(parts[::-1], frame, shape)
    assert whole.keys() == split.keys()
    for name, values in whole.items():
        np.testing.assert_array_equal(split[name], values, err_msg=name)


def test_a_ball_is_round():
    z, y, x = np.mgrid[-22:23, -22:23, -22:23] + 0.2
    found = of_array((z**2 + y**2 + x**2 < 400).astype(np.uint64), (8.0, 8.0, 8.0))
    assert found["volume_nm3"] == pytest.approx([4 / 3 * np.pi * 160**3], rel=0.02)
    assert found["surface_nm2"] == pytest.approx([4 * np.pi * 160**2], rel=0.02)
    assert found["sphericity"] == pytest.approx([1], rel=0.01)
    assert found["surface_to_volume_per_nm"] == pytest.approx([3 / 160], rel=0.01)
    assert found["elongation"] == pytest.approx([0], abs=0.01)
    assert found["flatness"] == pytest.approx([0], abs=0.01)
    assert not found["at_border"][0]


def test_a_rod_is_long_and_a_plate_flat():
    labels = np.zeros((50, 50, 50), np.uint64)
    labels[2:4, 2:4, :40] = 9
    labels[10:12, 10:50, 5:45] = 3
    found = of_array(labels)
    assert found["id"].tolist() == [3, 9]
    assert found["elongation"] == pytest.approx([0, 1 - 2 / 40], abs=1e-9)
    assert found["flatness"] == pytest.approx([1 - 2 / 40, 0], abs=1e-9)
    assert [found[f"major_{axis}"][1] for axis in "zyx"] == pytest.approx([0, 0, 1])
    assert found["surface_faces_nm2"].tolist() == [2 * (40 * 40 + 2 * 40 * 2), 2 * (2 * 2 + 2 * 40 * 2)]
    assert found["at_border"].tolist() == [True, True]  # at the end of y, and the begin of x


def test_features_of_a_moved_object_are_the_same():
    labels = np.zeros((30, 30, 30), np.uint64)
    labels[1:9, 2:12, 3:9] = np.random.default_rng(0).integers(0, 2, (8, 10, 6))
    moved = np.roll(labels, (17, 11, 19), (0, 1, 2))
    one, other = of_array(labels, FRAME.voxel_size), of_array(moved, FRAME.voxel_size)
    for name in one.keys() - {n for n in one if n.startswith(("centroid", "box"))}:
        np.testing.assert_array_equal(one[name], other[name], err_msg=name)


def test_objects_end_at_the_border_of_a_roi(tmp_path, inputs):
    box = Box((3, 4, 8), (15, 20, 30))
    roi = FRAME.to_roi(box)
    cut = {
        name: volume(tmp_path, values[box.slices], f"cut/{name}", Frame(FRAME.voxel_size, roi.offset))
        for name, values in (("labels", labels_of()), ("em", image_of()))
    }
    one = features(tmp_path, roi={"offset": roi.offset, "shape": roi.shape}, **inputs)
    other = features(tmp_path, "b", **cut)
    do_all_steps(one), do_all_steps(other)
    a, b = table(one), table(other)
    assert a["voxels"].equals(b["voxels"]) and a["surface_nm2"].equals(b["surface_nm2"])
    for name in a.column_names:
        np.testing.assert_allclose(a[name].to_numpy(), b[name].to_numpy(), rtol=1e-12, err_msg=name)


def test_groups_of_features_can_be_chosen(tmp_path, inputs):
    labels = {"labels": inputs["labels"]}
    basic, all_of_it = features(tmp_path, features=[], **labels), features(tmp_path, "b", **labels)
    shape = features(tmp_path, "c", features=["shape"], **labels)
    for task in (basic, all_of_it, shape):
        do_all_steps(task)
    assert table(basic).column_names[-1] == "at_border" and table(basic).num_columns == 13
    assert table(shape).column_names[-1] == "flatness"
    assert table(all_of_it).column_names[-1] == "surface_to_volume_per_nm"
    for task in (basic, shape):
        assert table(task).equals(table(all_of_it).select(table(task).column_names))


def test_volumes_may_be_in_files_of_other_programs(tmp_path, inputs):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name, values in (("labels", labels_of().astype("int64")), ("em", image_of())):
            file[name] = values
            file[name].attrs.update(resolution=FRAME.voxel_size, offset=FRAME.offset)
    one = features(tmp_path, labels=f"{tmp_path}/f.h5:labels", em=f"{tmp_path}/f.h5:em")
    other = features(tmp_path, "b", **inputs)
    do_all_steps(one), do_all_steps(other)
    assert table(one).equals(table(other))


# -- the laws of blockwise tasks ----------------------------------------------------------


def test_blocks_done_again_on_workers_change_nothing(tmp_path, inputs):
    task = features(tmp_path, num_workers=2, block_shape=(10, 31, 23), **inputs)
    assert all(report.ok for report in run_config(task, console=Console(quiet=True)))
    before, made = stored_files(task), table(task)
    with store_of(task.steps()[-1]) as store:
        store.database.blocks.delete_many({"index.0": 0})
    again = run_config(task, console=Console(quiet=True))
    assert all(report.ok and report.blocks["computed"] > 0 for report in again)
    assert stored_files(task) == before and table(task).equals(made)
    reference = features(tmp_path, "b", block_shape=SHAPE, **inputs)
    do_all_steps(reference)
    assert table(reference).equals(made)


# -- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"features": ["colour"]}, "colour|'shape', 'surface' or 'em'"),
        ({"features": ["em"]}, "need each other"),
        ({"output": "table.csv"}, r"must end in \.parquet"),
        ({"mask": "in.zarr/mask"}, "would cut objects"),
        ({"roi": {"offset": [0, 0, 0], "shape": [40, 4.6, 5.2]}}, "is not inside"),
    ],
)
def test_a_config_that_cannot_be_is_refused(tmp_path, inputs, options, words):
    with pytest.raises(EmBlocksError, match=words):
        check_all(features(tmp_path, labels=inputs["labels"], **options))


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        (np.ones(SHAPE, "float32"), "one integer id per voxel"),
        (np.full(SHAPE, -1, "int32"), "holds the id -1 at voxel"),
        (np.full(SHAPE, 2**63, "uint64"), "below 2\\^63"),
    ],
)
def test_values_that_are_no_ids_are_refused(tmp_path, labels, words):
    with pytest.raises(ConfigError, match=words):
        check_all(features(tmp_path, labels=volume(tmp_path, labels, "wrong")))


@pytest.mark.parametrize(
    ("image", "frame", "words"),
    [
        (image_of(), Frame(FRAME.voxel_size), "not on one voxel grid"),
        (image_of()[:, :30], FRAME, "not on one voxel grid"),
        (image_of().astype("uint16"), FRAME, "one uint8 value per voxel"),
    ],
)
def test_an_image_of_other_voxels_is_refused(tmp_path, inputs, image, frame, words):
    with pytest.raises(ConfigError, match=words):
        check_all(features(
            tmp_path, labels=inputs["labels"], em=volume(tmp_path, image, "other", frame)
        ))


def test_a_volume_without_objects_gives_no_table(tmp_path):
    task = features(tmp_path, labels=volume(tmp_path, np.zeros(SHAPE, "uint64"), "empty"))
    with pytest.raises(ConfigError, match="holds no object"):
        do_all_steps(task)
    assert not task.output.exists()
