"""Objects: the same for every block grid, equal to a whole-volume reference, resumed and repaired."""

import csv

import h5py
import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import ndimage

from blockwise import do_all_steps, store_of, stored_files
from em_blocks.errors import ConfigError, EmBlocksError
from em_blocks.geometry import Box, Frame
from em_blocks.runtime.scheduler.pipeline import run_config
from em_blocks.tasks.objects.objects import Objects
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables
from flooding import filled

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))
SHAPE = (20, 31, 45)
MIN_SIZE = 12
SHAPES = [(5, 16, 16), (10, 32, 8), (20, 32, 48)]


def probabilities(seed=0):
    """Two classes of smooth noise: many objects, many of them with holes."""
    rng = np.random.default_rng(seed)
    noise = rng.random((2, *SHAPE))
    smooth = np.stack([ndimage.gaussian_filter(n, 1.1) for n in noise])
    ranks = smooth.argsort(axis=None).argsort().reshape(smooth.shape) / smooth.size
    gaps = ndimage.gaussian_filter(rng.random(SHAPE), 0.5)
    ranks[:, gaps > np.quantile(gaps, 0.97)] = 0
    return (ranks * 255).astype("uint8")


THRESHOLD = 0.7


def volume(folder, values, name="p", **attributes):
    made = Volume.create(
        str(folder / f"in.zarr/{name}"), shape=values.shape[-3:], dtype=values.dtype, frame=FRAME,
        chunk_shape=(7, 8, 9), channels=len(values) if values.ndim == 4 else None,
        attributes=attributes,
    )
    made.write(made.box, values)
    return made.path


@pytest.fixture
def predicted(tmp_path):
    return volume(tmp_path, probabilities(), scale=255.0, classes=["mito", "membrane"])


def objects(source, folder, name="a", **options):
    values = {
        "kind": "objects", "run": "found", "prediction": source, "min_size": MIN_SIZE,
        "threshold": THRESHOLD, "output": str(folder / name / "out.zarr"), "chunk_shape": [5, 8, 8],
        "block_shape": [10, 16, 16], **options,
    }
    return Objects.from_dict(values)


def slow_classes(values, threshold=THRESHOLD):
    reached = values / 255 >= threshold
    best = np.where(reached, values.astype(int), -1)
    return np.where(reached.any(axis=0), best.argmax(axis=0) + 1, 0)


def slow_objects(classes, min_size=MIN_SIZE, max_hole=None, holes=True):
    """One component after the other, in the whole volume; the class of every id."""
    found = []
    for kind in np.unique(classes[classes > 0]):
        numbers, n = ndimage.label(classes == kind, structure=np.ones((3, 3, 3)))
        for number in range(1, n + 1):
            voxels = np.flatnonzero(numbers == number)
            if len(voxels) >= min_size:
                found.append((voxels[0], kind, voxels))
    result, kinds = np.zeros(classes.size, int), []
    for id, (_, kind, voxels) in enumerate(sorted(found, key=lambda f: f[0]), start=1):
        result[voxels] = id
        kinds.append(kind)
    result = result.reshape(classes.shape)
    return (filled(result, max_hole) if holes else result), kinds


def check_all(source, folder, options):
    for step in objects(source, folder, **options).steps():
        step.grid()
        step.check()


def result(task, name="objects"):
    made = Volume.open(f"{task.output}/{name}")
    return made.read(made.box)


# -- what comes out ---------------------------------------------------------------------


@pytest.mark.parametrize("block_shape", SHAPES)
@pytest.mark.parametrize("seed", range(2))
def test_no_voxel_depends_on_the_blocks(tmp_path, block_shape, seed):
    values = probabilities(seed)
    source = volume(tmp_path, values, scale=255.0)
    task = objects(source, tmp_path, block_shape=block_shape)
    counts = do_all_steps(task)
    expected, kinds = slow_objects(slow_classes(values))
    np.testing.assert_array_equal(result(task, "mask"), slow_classes(values))
    np.testing.assert_array_equal(result(task), expected)
    without = slow_objects(slow_classes(values), holes=False)[0]
    np.testing.assert_array_equal(result(task, "components"), without)
    # The reference has something to find: holes, and components that are too small.
    assert counts["join_gaps", "filled_voxels"] == (expected != without).sum() > 5
    assert counts["join_objects", "erased"] > 5 and len(kinds) > 5


def test_holes_of_any_place_in_hand_drawn_objects(tmp_path):
    values = np.zeros((20, 32, 48), "uint8")
    values[2:18, 2:14, 2:20] = 255
    values[5:12, 5:10, 5:18] = 0  # a hole across several blocks,
    values[8, 7, 10] = 255  # with a speck that is erased and filled
    values[2:18, 16:30, 2:20] = 255
    values[4:6, 20:22, 0:6] = 0  # open to the border of the volume
    values[2:18, 2:30, 24:34] = 255
    values[6:8, 6:8, 26:30] = 0
    values[6:8, 6:8, 30] = 0
    values[10, 2, 28] = 0  # a dent
    values[2:18, 2:30, 36:46] = 255
    values[6, 10, 40] = 0  # a hole of one voxel
    task = objects(volume(tmp_path, values, scale=255.0), tmp_path, min_size=2)
    counts = do_all_steps(task)
    expected, _ = slow_objects(values > 0, min_size=2)
    np.testing.assert_array_equal(result(task), expected)
    assert (counts["join_gaps", "holes"], counts["join_objects", "erased_voxels"]) == (3, 1)
    small = objects(volume(tmp_path, values, "s", scale=255.0), tmp_path, "b", min_size=2, max_hole=20)
    assert do_all_steps(small)["join_gaps", "holes"] == 2
    np.testing.assert_array_equal(result(small), slow_objects(values > 0, 2, max_hole=20)[0])


def test_a_gap_between_two_objects_is_no_hole(tmp_path):
    """It is enclosed by both together."""
    values = np.zeros((2, 12, 12, 12), "uint8")
    values[0, 2:6, 2:10, 2:10], values[1, 6:10, 2:10, 2:10] = 255, 255
    values[:, 5:7, 4:6, 4:6] = 0
    values[0, 3, 7, 7] = 0  # in one of them
    task = objects(volume(tmp_path, values, scale=255.0), tmp_path)
    counts = do_all_steps(task)
    assert (counts["join_gaps", "holes"], counts["join_gaps", "filled_voxels"]) == (1, 1)
    assert not result(task)[5:7, 4:6, 4:6].any()


def test_holes_may_stay(tmp_path, predicted):
    task = objects(predicted, tmp_path, fill_holes=False)
    do_all_steps(task)
    np.testing.assert_array_equal(
        result(task), slow_objects(slow_classes(probabilities()), holes=False)[0]
    )
    assert not (tmp_path / "a/out.zarr/components").exists()


def test_a_roi_and_a_specimen(tmp_path, predicted):
    tissue = np.ones(SHAPE, "uint8")
    tissue[:, :, 30:] = 0
    box = Box((3, 4, 8), (15, 20, 30))
    roi = FRAME.to_roi(box)
    task = objects(
        predicted, tmp_path, mask=volume(tmp_path, tissue, "tissue"),
        roi={"offset": roi.offset, "shape": roi.shape},
    )
    do_all_steps(task)
    classes = np.where(tissue > 0, slow_classes(probabilities()), 0)[box.slices]
    np.testing.assert_array_equal(result(task), slow_objects(classes)[0])
    assert Volume.open(f"{task.output}/objects").offset == pytest.approx(roi.offset)


def test_one_class_and_a_threshold_of_each(tmp_path, predicted):
    values = probabilities()
    one = objects(predicted, tmp_path, channels=["membrane"])
    do_all_steps(one)
    np.testing.assert_array_equal(result(one, "mask"), values[1] / 255 >= THRESHOLD)
    two = objects(predicted, tmp_path, "b", threshold={"mito": 0.9, "membrane": 0.3})
    do_all_steps(two)
    expected = np.where(values[1] / 255 >= 0.3, 2, 0)
    more = (values[0] / 255 >= 0.9) & ((expected == 0) | (values[0] >= values[1]))
    np.testing.assert_array_equal(result(two, "mask"), np.where(more, 1, expected))
    assert Volume.open(f"{two.output}/mask").attributes["classes"] == ["mito", "membrane"]


def test_the_background_of_a_softmax_is_no_class(tmp_path):
    values = np.concatenate([np.full((1, *SHAPE), 200, "uint8"), probabilities()])
    source = volume(tmp_path, values, scale=255.0, classes=["background", "mito", "membrane"])
    task = objects(source, tmp_path)
    assert task.steps()[0].names == ["mito", "membrane"]
    counts = do_all_steps(task)
    assert counts["threshold", "voxels"] == (slow_classes(probabilities()) > 0).sum()


def test_probabilities_may_be_in_files_of_other_programs(tmp_path):
    values = probabilities()
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["p"] = values.astype("float32") / np.float32(255)
        file["p"].attrs.update(resolution=FRAME.voxel_size, offset=FRAME.offset)
    np.save(tmp_path / "p.npy", values)
    place = {"voxel_size": FRAME.voxel_size, "offset": FRAME.offset}
    expected = slow_objects(slow_classes(values))[0]
    for name, source in (("h5", f"{tmp_path}/f.h5:p"),
                         ("npy", {"path": f"{tmp_path}/p.npy", **place})):
        task = objects(source, tmp_path, name)
        do_all_steps(task)
        np.testing.assert_array_equal(result(task), expected)
        assert Volume.open(f"{task.output}/objects").frame == FRAME
    with pytest.raises(ConfigError, match=r"p\.npy does not say how large its voxels are"):
        objects(f"{tmp_path}/p.npy", tmp_path).steps()[0].check()


# -- the table -----------------------------------------------------------------------------


@pytest.mark.parametrize("block_shape", SHAPES)
def test_the_table_lists_every_object(tmp_path, predicted, block_shape):
    task = objects(predicted, tmp_path, block_shape=block_shape)
    do_all_steps(task)
    labels, kinds = slow_objects(slow_classes(probabilities()))
    table = pq.read_table(tmp_path / "a/found.objects.parquet").to_pydict()
    assert table["id"] == list(range(1, labels.max() + 1))
    assert table["class"] == [["mito", "membrane"][kind - 1] for kind in kinds]
    size, offset = np.array(FRAME.voxel_size), np.array(FRAME.offset)
    for row, id in enumerate(table["id"]):
        places = np.argwhere(labels == id)
        assert table["voxels"][row] == len(places)
        assert table["volume_nm3"][row] == pytest.approx(len(places) * 40 * 4.6 * 4.6)
        at_border = (places.min(axis=0) == 0) | (places.max(axis=0) + 1 == SHAPE)
        assert table["cut"][row] == at_border.any()
        for axis, name in enumerate("zyx"):
            values = [table[f"{column}_{name}_nm"][row] for column in ("center", "begin", "end")]
            expected = (places.mean(axis=0) + 0.5, places.min(axis=0), places.max(axis=0) + 1)
            assert values == pytest.approx([(offset + size * e)[axis] for e in expected])
    with open(tmp_path / "a/found.objects.csv") as file:
        rows = list(csv.DictReader(file))
    assert [int(row["voxels"]) for row in rows] == table["voxels"]


def test_nothing_found_is_an_empty_table(tmp_path):
    task = objects(volume(tmp_path, np.zeros(SHAPE, "uint8"), scale=255.0), tmp_path)
    do_all_steps(task)
    assert not result(task).any()
    assert pq.read_table(tmp_path / "a/found.objects.parquet").num_rows == 0


# -- the laws of blockwise tasks ----------------------------------------------------------


def test_blocks_done_again_on_workers_change_nothing(tmp_path, predicted):
    task = objects(predicted, tmp_path, num_workers=2, block_shape=(10, 32, 24))
    assert all(report.ok for report in run_config(task, console=Console(quiet=True)))
    last = task.steps()[-1]
    before = stored_files(task)
    with store_of(last) as store:
        store.database.blocks.delete_many({"index.0": 0})
    again = run_config(task, console=Console(quiet=True))
    assert all(report.ok and report.blocks["computed"] > 0 for report in again)
    assert stored_files(task) == before
    np.testing.assert_array_equal(result(task), slow_objects(slow_classes(probabilities()))[0])
    assert BlockTables(f"{task.output}/tables/table").read("0/0/0")["id"].size > 5


# -- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"max_hole": 5, "fill_holes": False}, "means nothing"),
        ({"channels": ["nucleus"]}, "none is 'nucleus'"),
        ({"channels": ["mito", 0]}, "names a channel twice"),
        ({"threshold": {"mito": 0.5}}, "one threshold for each"),
        ({"output": "in.zarr"}, "lie in each other|lies in"),
        ({"roi": {"offset": [0, 0, 0], "shape": [40, 4.6, 4.6]}}, "is not inside"),
    ],
)
def test_a_config_that_cannot_be_is_refused(tmp_path, predicted, options, words):
    if options.get("output") == "in.zarr":
        options = {"output": str(tmp_path / "in.zarr/p")}
    with pytest.raises(EmBlocksError, match=words):
        check_all(predicted, tmp_path, options)


def test_ids_are_no_probabilities(tmp_path):
    source = volume(tmp_path, np.ones(SHAPE, "uint32"))
    with pytest.raises(ConfigError, match="read as ids"):
        objects(source, tmp_path).steps()[0].check()
