"""Counting on real workers: any blocks, retried blocks, and the places of both volumes."""

import numpy as np
import pytest

from blockwise import assert_retry_equals_once, run, store_of
from em_blocks.db.runs import DONE
from em_blocks.errors import ConfigError
from em_blocks.evaluation.segmentation import count_here, score
from em_blocks.geometry import Box, Frame
from em_blocks.kernels.evaluation.borders import near_borders
from em_blocks.kernels.evaluation.contingency import count_overlaps, merged
from em_blocks.tasks.evaluation.count_overlaps import CountOverlaps, usual_block
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
SHIFT = (2, 3, -1)
SHAPE = (11, 20, 24)


def make_labels(folder, name, shift=(0, 0, 0), seed=0):
    """Boxes of random ids, so that objects are larger than voxels and cross blocks."""
    frame = Frame(FRAME.voxel_size, FRAME.to_roi(Box(shift, (1, 1, 1))).offset)
    coarse = np.random.default_rng(seed).integers(0, 9, (6, 7, 8))
    values = coarse.repeat(2, 0).repeat(3, 1).repeat(3, 2)[tuple(map(slice, SHAPE))] * 2**40
    volume = Volume.create(
        str(folder / "v.zarr" / name), shape=SHAPE, dtype="uint64", frame=frame,
        chunk_shape=(4, 5, 6),
    )
    volume.write(volume.box, values.astype("uint64"))
    return volume


@pytest.fixture
def make(tmp_path):
    """A function that makes a task over two segmentations, one of them shifted."""
    truth = make_labels(tmp_path, "truth")
    paths = {
        "0.3": make_labels(tmp_path, "low", SHIFT, seed=1).path,
        "0.5": make_labels(tmp_path, "high", seed=2).path,
    }

    def make(name="a", **options):
        values = {
            "kind": "count_overlaps", "run": "counted", "segmentations": paths, "truth": truth.path,
            "output": str(tmp_path / name / "evaluation"), "block_shape": (4, 6, 9), **options,
        }
        return CountOverlaps.from_dict(values)

    return make


def slow_tables(task):
    """The pairs in the region that all three volumes share, counted at once."""
    z, y, x = (slice(max(0, s), n + min(0, s)) for s, n in zip(SHIFT, SHAPE))
    shifted = tuple(slice(max(0, -s), n - max(0, s)) for s, n in zip(SHIFT, SHAPE))
    truth, low, high = (
        volume.read(volume.box)
        for volume in map(Volume.open, (task.truth, *task.segmentations.values()))
    )
    return {
        "0.3": count_overlaps(segmentation=low[shifted], truth=truth[z, y, x]),
        "0.5": count_overlaps(segmentation=high[z, y, x], truth=truth[z, y, x]),
    }


def stored(task):
    with store_of(task) as store:
        blocks = [task.grid().block(index) for index in store.indices(DONE)]
    return {name: merged(task.stored(name, blocks)) for name in task.segmentations}


def assert_same_tables(ours, theirs):
    assert ours.keys() == theirs.keys()
    for name, table in ours.items():
        for column in ("segmentation", "truth", "voxels"):
            np.testing.assert_array_equal(getattr(table, column), getattr(theirs[name], column))


def test_any_blocks_count_what_one_pass_over_the_whole_counts(make):
    expected = slow_tables(make())
    assert expected["0.3"].total == (11 - 2) * (20 - 3) * (24 - 1)
    for name, shape in (("whole", SHAPE), ("many", (4, 6, 9)), ("flat", (1, 20, 5))):
        task = make(name, block_shape=shape)
        assert run(task).ok
        assert_same_tables(stored(task), expected)


def test_counting_here_is_counting_on_workers(make):
    task = make(block_shape=None)
    grid = make(block_shape=(3, 7, 5)).grid()
    assert task.grid().n_blocks == 1
    assert_same_tables(count_here(task, task.grid().blocks()), slow_tables(task))
    assert_same_tables(count_here(task, grid.blocks()), slow_tables(task))


def test_blocks_that_are_done_again_count_once(make):
    assert_retry_equals_once(make("again"), make("once"))


def test_a_roi_is_cut_out_of_the_shared_region(make):
    roi = FRAME.to_roi(Box((3, 0, 4), (4, 50, 6)))
    task = make(roi={"offset": roi.offset, "shape": roi.shape})
    assert task.grid().volume_shape == (4, 17, 6)
    assert count_here(task, task.grid().blocks())["0.5"].total == 4 * 17 * 6


def test_what_is_ignored_and_skeletons_change_the_scores_not_the_counts(make, tmp_path):
    task, other = make(), make(ignore=[], ignore_segmentation=[0], skeletons=str(tmp_path / "s.swc"))
    assert task.identity() == other.identity()
    tables = {name: lambda table=table: [table] for name, table in slow_tables(task).items()}
    with_0 = score(make(ignore=[]), tables)[0].evaluation
    without = score(task, tables)[0].evaluation
    assert with_0.n_ignored == 0 < without.n_ignored
    assert with_0.n_voxels == without.n_voxels + without.n_ignored
    # What other volumes hold is compared with what was counted; see em_blocks.runtime.runs.inputs.
    assert make(truth=task.segmentations["0.5"]).sources() != task.sources()


def test_negative_ids_that_were_counted_are_refused_once_they_are_not_ignored(make, tmp_path):
    """The check at the start sees a few chunks only."""
    signed = Volume.create(str(tmp_path / "v.zarr/signed"), shape=SHAPE, dtype="int32", frame=FRAME,
                           chunk_shape=(4, 5, 6))
    values = np.ones(SHAPE, np.int32)
    values[2:4] = -3
    signed.write(signed.box, values)
    ignoring = make(truth=signed.path, ignore=[0, -3])
    counted = count_here(ignoring, ignoring.grid().blocks())
    tables = {name: lambda table=table: [table] for name, table in counted.items()}
    assert score(ignoring, tables)[1].evaluation.n_neurons == 1
    assert score(make(truth=signed.path, ignore=[2**64 - 3]), tables)
    with pytest.raises(ConfigError, match="signed holds the id -3, but ids are 0"):
        score(make(truth=signed.path), tables)


@pytest.mark.parametrize("roi", [None, Box((1, 2, 4), (9, 15, 13))])
def test_any_blocks_leave_out_the_same_voxels_near_borders(make, roi):
    """Truth beyond the compared region decides too what is near a border in it."""
    region = roi and FRAME.to_roi(roi)
    options = {"roi": roi and {"offset": region.offset, "shape": region.shape}, "border_nm": 4.7}
    task = make(**options)
    truth, high = map(Volume.open, (task.truth, task.segmentations["0.5"]))
    labels = truth.read(truth.box)
    near = near_borders(labels, distance_nm=4.7, voxel_size=FRAME.voxel_size)
    frame, shape = task.grid().frame, task.grid().volume_shape
    here = FRAME.to_box(frame.to_roi(Box((0, 0, 0), shape))).slices
    expected = count_overlaps(
        segmentation=high.read(high.box)[here],
        truth=np.where(near, np.uint64(2**64 - 1), labels)[here],
    )
    assert 0 < near[here].mean() < 1
    for block_shape in (SHAPE, (4, 6, 9), (1, 2, 3)):
        task = make(block_shape=block_shape, **options)
        found = count_here(task, task.grid().blocks())["0.5"]
        assert_same_tables({"a": found}, {"a": expected})
    tables = {name: lambda: [expected] for name in task.segmentations}
    assert score(task, tables)[1].evaluation.n_voxels == int((~near & (labels != 0))[here].sum())


def test_a_border_is_another_result_and_none_the_one_of_old_runs(make):
    assert "border_nm" not in make().identity()["config"]
    assert make(border_nm=5).identity()["config"]["border_nm"] == 5
    assert make(border_nm=40).read_shape() == (4, 6 + 2 * 9, 9 + 2 * 9)
    assert make().read_shape() == (4, 6, 9)


def test_skeletons_are_read_before_anything_is_counted(make, tmp_path):
    swc = tmp_path / "a.swc"
    swc.write_text("1 0 0 0 0 1 -1\n2 0 9 9\n")
    with pytest.raises(ConfigError, match=r"a.swc is no skeleton in SWC format: line 2 is '2 0 9 9'"):
        run(make(skeletons=str(swc)))
    assert not (tmp_path / "a").exists()


def test_nothing_left_to_score_is_an_error(make):
    task = make(ignore=[id * 2**40 for id in range(9)])
    tables = {name: lambda table=table: [table] for name, table in slow_tables(task).items()}
    with pytest.raises(ConfigError, match="No voxel is left to be scored: all 3519 voxels that"):
        score(task, tables)


def test_names_must_be_folders_of_their_own(make):
    path = make().truth
    with pytest.raises(ConfigError, match="differ by more than"):
        make(segmentations={"0.3": path, "0_3": path})
    with pytest.raises(ConfigError, match="segmentations"):
        make(segmentations={"../a": path})
    with pytest.raises(ConfigError, match="segmentations"):
        make(segmentations={})


@pytest.mark.parametrize(
    ("chunk", "block"),
    [
        ((64, 64, 64), (192, 192, 192)),
        ((1, 512, 512), (32, 512, 512)),
        ((1, 8192, 8192), (1, 8192, 8192)),
        ((16, 100, 128), (160, 200, 256)),
    ],
)
def test_default_blocks_are_whole_chunks_of_a_bounded_size(chunk, block):
    assert usual_block(chunk) == block
