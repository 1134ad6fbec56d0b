"""Instances: the same for every block grid, equal to a whole-volume reference, resumed and repaired."""

import numpy as np
import pyarrow.parquet as pq
import pytest
from rich.console import Console
from scipy import ndimage

from blockwise import do_all_steps, store_of, stored_files
from em_blocks.errors import ConfigError, EmBlocksError, VolumeError
from em_blocks.geometry import Box, Frame
from em_blocks.kernels.instances.boundaries import boundaries
from em_blocks.kernels.instances.decode import instances
from em_blocks.kernels.instances.flood import UNDECIDED
from em_blocks.kernels.instances.merging import Fragments, Model, merged
from em_blocks.outputs import RunContext
from em_blocks.runtime.scheduler.pipeline import run_config
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.instances import flood as flooding_task
from em_blocks.tasks.instances.segment_instances import SegmentInstances
from em_blocks.volumes import Volume
from flooding import filled, in_order, slow_instances, slow_landscape

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))
SHAPE = (20, 31, 45)
SHAPES = [(5, 16, 16), (10, 32, 8), (20, 32, 48), (10, 8, 24)]
SIZES = {"min_size": 12}
SEEDS = {"foreground": 0.85, "contour": 0.6, "min_size": 3}


def maps(seed=0):
    """Smooth noise: foreground of many touching objects, and what may be their contours."""
    rng = np.random.default_rng(seed)
    smooth = np.stack([ndimage.gaussian_filter(rng.random(SHAPE), 1.1) for _ in range(2)])
    ranks = smooth.argsort(axis=None).argsort().reshape(smooth.shape) / smooth.size
    foreground, contour = ranks
    # Coarse, so that there are plateaus; and all of a section is as sure as can be.
    foreground = np.round(np.clip((foreground - 0.55) * 2.5, 0, 1) * 12) / 12
    return (foreground * 255).astype("uint8"), (contour * 255).astype("uint8")


def volume(folder, values, name, frame=FRAME, **attributes):
    made = Volume.create(
        str(folder / f"in.zarr/{name}"), shape=values.shape[-3:], dtype=values.dtype, frame=frame,
        chunk_shape=(7, 16, 18), channels=len(values) if values.ndim == 4 else None,
        attributes=attributes,
    )
    made.write(made.box, values)
    return made.path


@pytest.fixture
def predicted(tmp_path):
    foreground, contour = maps()
    return {"foreground": volume(tmp_path, foreground, "foreground", scale=255.0),
            "contour": volume(tmp_path, contour, "contour", scale=255.0)}


def segmented(sources, folder, name="a", **options):
    values = {
        "kind": "segment_instances", "run": "mito", **sources, **SIZES, "seeds": SEEDS, "threshold": 0.6,
        "output": str(folder / name / "out.zarr"), "block_shape": [10, 16, 16], "fill_holes": False,
        **options,
    }
    values.setdefault("chunk_shape", values["block_shape"])  # each file takes a while to be safe
    return SegmentInstances.from_dict(values)


def expected(foreground, contour=None, threshold=0.6, seeds=SEEDS, **options):
    found = slow_landscape(foreground, contour, threshold=threshold, seeds=seeds)
    return slow_instances(found, min_seed_size=seeds["min_size"], **{**SIZES, **options})


def result(task, name="objects"):
    made = Volume.open(f"{task.output}/{name}")
    return made.read(made.box)


# -- what comes out ---------------------------------------------------------------------


@pytest.mark.parametrize("block_shape", SHAPES)
def test_no_voxel_depends_on_the_blocks(tmp_path, predicted, block_shape):
    task = segmented(predicted, tmp_path, block_shape=block_shape)
    counts = do_all_steps(task)
    np.testing.assert_array_equal(result(task), expected(*maps()))
    # The reference has something to flood, and to erase.
    assert counts["join_seeds", "with_several_seeds"] > 3 and counts["label_seeds", "undecided"] > 999
    assert counts["join_seeds", "small_seeds"] > 9 and counts["number_instances", "small_objects"] > 0
    assert result(task).dtype == np.uint64 and result(task).max() > 50


@pytest.mark.parametrize("block_shape", SHAPES[:2])
def test_a_flood_of_any_margin_is_that_of_the_whole_volume(
    tmp_path, predicted, block_shape, monkeypatch
):
    """With one voxel around a block, most of what is undecided needs a second and a third flood."""
    monkeypatch.setattr(flooding_task, "FIRST_MARGIN_NM", 4.6)
    task = segmented(predicted, tmp_path, block_shape=block_shape)
    counts = do_all_steps(task)
    np.testing.assert_array_equal(result(task), expected(*maps()))
    assert counts["flood_instances", "floods"] > len(list(task.steps()[0].grid().blocks())) * 1.2


def test_holes_are_filled_after_the_blocks_are_joined(tmp_path):
    values = np.zeros(SHAPE, "uint8")
    values[2:18, 2:28, 2:30] = 255
    values[6:14, 12:20, 12:20] = 0  # across eight blocks
    task = segmented({"foreground": volume(tmp_path, values, "f", scale=255.0)}, tmp_path,
                     fill_holes=True, seeds={"foreground": 0.8})
    counts = do_all_steps(task)
    whole = np.zeros(SHAPE, int)
    whole[2:18, 2:28, 2:30] = 1
    np.testing.assert_array_equal(result(task), whole)
    assert counts["join_instance_gaps", "filled_voxels"] == 8 * 8 * 8
    assert not result(task, "flooded")[6:14, 12:20, 12:20].any()


@pytest.mark.parametrize("block_shape", [SHAPES[0], SHAPES[2]])
def test_holes_are_those_of_the_objects_that_stay(tmp_path, block_shape):
    """What is erased after a flood may lie in a hole, or open one."""
    rng = np.random.default_rng(4)
    smooth = ndimage.gaussian_filter(rng.random(SHAPE), 2)
    ranks = smooth.argsort(axis=None).argsort().reshape(SHAPE) / smooth.size
    foreground = (ranks * 255).astype("uint8")
    foreground[rng.random(SHAPE) < 0.05] = 0
    seeds = {"foreground": 0.9, "min_size": 1}
    options = {"threshold": 0.6, "seeds": seeds, "min_size": 40}
    task = segmented({"foreground": volume(tmp_path, foreground, "f", scale=255.0)}, tmp_path,
                     fill_holes=True, block_shape=block_shape, **options)
    counts = do_all_steps(task)
    before = expected(foreground, **options)
    np.testing.assert_array_equal(result(task), filled(before))
    assert counts["number_instances", "small_objects"] > 0
    in_holes = ((result(task) > 0) & (before == 0)).sum()
    assert counts["join_instance_gaps", "filled_voxels"] == in_holes > 99


def test_maps_are_smoothed_alike_in_all_blocks(tmp_path, predicted):
    smooth_nm, sigma = (30.0, 4.6, 6.9), (0.75, 1.0, 1.5)
    around = [(r, r) for r in (3, 4, 6)]
    padded = [np.pad(values, around, mode="reflect") for values in maps()]
    want = [np.rint(ndimage.gaussian_filter(p.astype(float), sigma))[3:-3, 4:-4, 6:-6] for p in padded]
    sharp = {"foreground": 0.55, "contour": 0.6, "min_size": 3}
    one, many = (
        segmented(predicted, tmp_path, name, smooth_nm=smooth_nm, threshold=0.4, seeds=sharp,
                  block_shape=shape)
        for name, shape in (("a", SHAPES[2]), ("b", SHAPES[0]))
    )
    do_all_steps(one)
    do_all_steps(many)
    np.testing.assert_array_equal(result(one), result(many))
    np.testing.assert_array_equal(result(one, "landscape"), result(many, "landscape"))
    found = result(one, "landscape").astype(int)
    depth = np.minimum(want[0], 255 - want[1]).clip(1, 254)
    rim = (found > 0) & (found < 255)
    assert rim.sum() > 1000 and np.abs(found - depth)[rim].max() <= 1  # whole numbers, rounded once
    sure = np.abs(want[0] - 102) > 1
    np.testing.assert_array_equal((found > 0)[sure], (want[0] >= 102)[sure])


def test_a_roi_and_a_specimen(tmp_path, predicted):
    tissue = np.ones(SHAPE, "uint8")
    tissue[:, :, 30:] = 0
    box = Box((3, 4, 8), (15, 20, 30))
    roi = FRAME.to_roi(box)
    task = segmented(
        predicted, tmp_path, mask=volume(tmp_path, tissue, "tissue"),
        roi={"offset": roi.offset, "shape": roi.shape},
    )
    do_all_steps(task)
    foreground, contour = maps()
    inside = (foreground * (tissue > 0))[box.slices]
    np.testing.assert_array_equal(result(task), expected(inside, contour[box.slices]))
    assert Volume.open(f"{task.output}/objects").offset == pytest.approx(roi.offset)


def test_channels_of_one_volume_in_floats_and_a_distance(tmp_path):
    foreground, contour = maps()
    distance = np.where(foreground > 150, foreground, 0).astype("uint8")
    stored = np.stack([contour, foreground, distance]).astype("float32") / 255
    stored[2] = np.where(foreground > 150, stored[2], -1)
    path = volume(tmp_path, stored, "all", classes=["rim", "mito", "depth"])
    seeds = {**SEEDS, "distance": 0.9}
    task = segmented(
        {"foreground": path, "contour": path, "distance": path}, tmp_path, seeds=seeds,
        channels={"foreground": "mito", "contour": 0, "distance": "depth"},
    )
    do_all_steps(task)
    want = slow_landscape(foreground, contour, distance, threshold=0.6, seeds=seeds)
    np.testing.assert_array_equal(result(task, "landscape"), want)
    np.testing.assert_array_equal(result(task), slow_instances(want, min_seed_size=3, **SIZES))


def test_two_blobs_joined_by_a_neck_below_the_seed_threshold_are_two(tmp_path):
    values = np.zeros(SHAPE, "uint8")
    values[5:15, 5:25, 4:18] = values[5:15, 5:25, 24:40] = 230
    values[8:12, 12:18, 18:24] = 180  # 0.7: of the mask, and no seed
    task = segmented({"foreground": volume(tmp_path, values, "f", scale=255.0)}, tmp_path,
                     seeds={"foreground": 0.8, "min_size": 100}, block_shape=(10, 16, 24))
    do_all_steps(task)
    found = result(task)
    assert set(np.unique(found)) == {0, 1, 2}
    assert set(np.unique(found[5:15, 5:25, 4:21])) == {0, 1}  # half of the neck to each
    assert set(np.unique(found[5:15, 5:25, 21:40])) == {0, 2}


@pytest.mark.parametrize(("neck_nm", "n"), [(None, 2), (36.0, 2), (38.0, 3)])
@pytest.mark.parametrize("block_shape", [(20, 32, 48), (5, 16, 24)])
def test_a_neck_that_is_narrower_cuts_what_is_wider(tmp_path, neck_nm, n, block_shape):
    """A rod that is nowhere wider stays whole."""
    values = np.zeros(SHAPE, "uint8")
    values[5:15, 2:18, 4:18] = values[5:15, 2:18, 26:40] = 255
    values[5:15, 6:14, 18:26] = 255  # 8 voxels of 4.6 nm: at most 4, 18.4 nm, from what is outside
    values[5:15, 24:28, 4:40] = 255
    task = segmented({"foreground": volume(tmp_path, values, "f", scale=255.0)}, tmp_path,
                     seeds={"foreground": 0.8, "min_size": 30, "neck_nm": neck_nm},
                     block_shape=block_shape)
    do_all_steps(task)
    found = result(task)
    assert found.max() == n and (found > 0).sum() == (values > 0).sum()
    assert (found[10, 10, 20] == found[10, 10, 24]) == (n == 2)
    assert len(np.unique(found[5:15, 24:28, 4:40])) == 1


@pytest.mark.parametrize("block_shape", SHAPES[:2])
def test_cores_do_not_depend_on_the_blocks(tmp_path, predicted, block_shape):
    seeds = {"foreground": 0.6, "contour": 0.9, "min_size": 3, "neck_nm": 16.0}
    task = segmented(predicted, tmp_path, seeds=seeds, block_shape=block_shape)
    counts = do_all_steps(task)
    want = slow_landscape(*maps(), threshold=0.6, seeds=seeds)
    deep = ndimage.distance_transform_edt(np.pad(want > 0, 9, mode="edge"), sampling=FRAME.voxel_size)
    core = (want == 255) & (deep[9:-9, 9:-9, 9:-9] >= 8)
    want = np.where(core, 255, np.where(want == 255, 254, np.minimum(want, 253)))
    np.testing.assert_array_equal(result(task, "landscape"), want)
    np.testing.assert_array_equal(
        result(task), instances(want.astype(np.uint8), min_seed_size=3, has_cores=True, **SIZES)
    )
    without = segmented(predicted, tmp_path, "b", seeds={**seeds, "neck_nm": None})
    assert counts["join_seeds", "seeds"] > do_all_steps(without)["join_seeds", "seeds"]


CORES = {**SEEDS, "foreground": 0.7, "cores": {"foreground": 0.95, "contour": 0.5}}
MERGE = {"bias": -14.0, "weights": {"contour_10": 6.0, "area_yx": 1.0, "larger": 0.5}}


@pytest.mark.parametrize("block_shape", SHAPES[:2])
def test_cores_of_thresholds_replace_seeds_that_have_several(tmp_path, predicted, block_shape):
    task = segmented(predicted, tmp_path, seeds=CORES, block_shape=block_shape)
    counts = do_all_steps(task)
    foreground, contour = maps()
    want = slow_landscape(foreground, contour, threshold=0.6, seeds=CORES)
    core = (want == 255) & (foreground / 255 >= 0.95) & (contour / 255 <= 0.5)
    want = np.where(core, 255, np.where(want == 255, 254, np.minimum(want, 253))).astype(np.uint8)
    np.testing.assert_array_equal(result(task, "landscape"), want)
    np.testing.assert_array_equal(
        result(task), instances(want, min_seed_size=3, has_cores=True, **SIZES)
    )
    without = segmented(predicted, tmp_path, "b", seeds={**CORES, "cores": None})
    assert counts["join_seeds", "seeds"] > do_all_steps(without)["join_seeds", "seeds"]


def merged_whole(foreground, contour):
    """The objects of the whole volume with what MERGE says is one."""
    found = expected(foreground, contour, min_size=1).astype(np.uint32)
    sizes = np.bincount(found.ravel())[1:]
    into = merged(
        boundaries(found, contour, np.zeros_like(contour)),
        Fragments(np.arange(1, len(sizes) + 1), sizes), Model(MERGE["bias"], MERGE["weights"]),
        threshold=0.5, voxel_size=FRAME.voxel_size,
    )
    return in_order(np.append(0, into)[found], SIZES["min_size"])


@pytest.mark.parametrize("block_shape", SHAPES)
def test_merged_objects_do_not_depend_on_the_blocks(tmp_path, predicted, block_shape):
    task = segmented(predicted, tmp_path, merge=MERGE, block_shape=block_shape)
    counts = do_all_steps(task)
    np.testing.assert_array_equal(result(task), merged_whole(*maps()))
    assert 9 < counts["merge_fragments", "merged"] < counts["merge_fragments", "fragments"] - 20
    assert result(task).max() < expected(*maps()).max()


@pytest.mark.parametrize("block_shape", [SHAPES[0], SHAPES[2]])
def test_a_hole_between_two_fragments_is_filled_once_they_are_one(tmp_path, block_shape):
    values = np.zeros(SHAPE, "uint8")
    values[3:17, 4:28, 4:40] = 180
    values[5:15, 6:26, 6:12] = values[5:15, 6:26, 32:38] = 255  # two seeds
    values[8:12, 12:20, 18:26] = 0  # where their floods meet
    source = {"foreground": volume(tmp_path, values, "f", scale=255.0)}
    options = {"seeds": {"foreground": 0.9}, "fill_holes": True, "block_shape": block_shape}
    apart = segmented(source, tmp_path, "a", **options)
    do_all_steps(apart)
    one = segmented(source, tmp_path, "b", merge={"bias": -1.0, "weights": {}}, **options)
    counts = do_all_steps(one)
    assert result(apart).max() == 2 and (result(apart) > 0).sum() == (values > 0).sum()
    box = np.zeros(SHAPE, int)
    box[3:17, 4:28, 4:40] = 1
    np.testing.assert_array_equal(result(one), box)
    assert counts["join_instance_gaps", "filled_voxels"] == 4 * 8 * 8


@pytest.mark.parametrize(("voxels", "n"), [(999, 0), (1000, 1)])
@pytest.mark.parametrize("block_shape", [(20, 32, 48), (5, 8, 24)])
def test_an_object_needs_its_size_wherever_the_blocks_cut_it(tmp_path, voxels, n, block_shape):
    values = np.zeros(SHAPE, "uint8")
    values[3:13, 4:14, 5:15] = 255
    if voxels == 999:
        values[12, 13, 14] = 0
    task = segmented({"foreground": volume(tmp_path, values, "f", scale=255.0)}, tmp_path, min_size=1000,
                     seeds={"foreground": 0.8, "min_size": 999}, block_shape=block_shape)
    do_all_steps(task)
    assert (result(task) > 0).sum() == 1000 * n


@pytest.mark.parametrize(("least", "n"), [(24, 2), (25, 1)])
def test_a_seed_needs_its_size_wherever_the_blocks_cut_it(tmp_path, least, n):
    values = np.zeros(SHAPE, "uint8")
    values[5:15, 5:25, 4:40] = 180
    values[6:9, 7:11, 7:9], values[6:14, 10:20, 25:35] = 255, 255  # 24 voxels, across four blocks
    task = segmented({"foreground": volume(tmp_path, values, "f", scale=255.0)}, tmp_path,
                     seeds={"foreground": 0.8, "min_size": least}, block_shape=(10, 8, 8))
    do_all_steps(task)
    assert result(task).max() == n and (result(task) > 0).sum() == 10 * 20 * 36


def test_nothing_found_is_an_empty_table(tmp_path):
    task = segmented(
        {"foreground": volume(tmp_path, np.zeros(SHAPE, "uint8"), "f", scale=255.0)}, tmp_path,
        seeds={}, fill_holes=True,
    )
    do_all_steps(task)
    assert not result(task).any()
    assert pq.read_table(tmp_path / "a/mito.objects.parquet").num_rows == 0


def test_the_table_lists_every_object(tmp_path, predicted):
    task = segmented(predicted, tmp_path)
    do_all_steps(task)
    labels = expected(*maps())
    table = pq.read_table(tmp_path / "a/mito.objects.parquet").to_pydict()
    assert table["id"] == list(range(1, int(labels.max()) + 1))
    assert table["voxels"] == np.bincount(labels.ravel().astype(int))[1:].tolist()


@pytest.mark.parametrize("block_shape", SHAPES[:2])
def test_a_segmentation_gives_an_object_for_every_connected_part(tmp_path, block_shape):
    """Two of them touch, one has two parts, one is too small, one has a hole."""
    ids = np.zeros(SHAPE, "uint64")
    ids[2:18, 2:12, 2:20], ids[2:18, 12:20, 2:20] = 2**60, 7
    ids[4:9, 22:30, 2:8] = ids[4:9, 22:30, 20:30] = 99
    ids[0, 0, 0:11] = 3
    ids[8:12, 5:8, 6:12] = 0
    source = volume(tmp_path, ids, "segments")
    task = SegmentInstances(run="of", segmentation=source, output=str(tmp_path / "a/out.zarr"),
                            min_size=12, block_shape=block_shape, chunk_shape=block_shape)
    do_all_steps(task)
    want = np.zeros(SHAPE, int)
    want[2:18, 2:12, 2:20], want[2:18, 12:20, 2:20] = 1, 2
    want[4:9, 22:30, 2:8], want[4:9, 22:30, 20:30] = 3, 4
    np.testing.assert_array_equal(result(task), want)
    table = pq.read_table(tmp_path / "a/of.objects.parquet").to_pydict()
    assert table["class"] == [1] * 4 and table["voxels"] == np.bincount(want.ravel())[1:].tolist()


# -- the laws of blockwise tasks ----------------------------------------------------------


@pytest.mark.parametrize(("options", "whole"), [({}, expected), ({"merge": MERGE}, merged_whole)])
def test_blocks_done_again_change_nothing(tmp_path, predicted, monkeypatch, options, whole):
    """Steps run block by block; a flood needs blocks that are far from its own."""
    monkeypatch.setattr(flooding_task, "FIRST_MARGIN_NM", 4.6)
    task = segmented(predicted, tmp_path, block_shape=(10, 16, 24), **options)
    assert all(report.ok for report in run_config(task, console=Console(quiet=True), serial=True))
    np.testing.assert_array_equal(result(task), whole(*maps()))
    before = stored_files(task)
    with store_of(task.steps()[-1]) as store:
        store.database.blocks.delete_many({"index.0": 0})
    again = run_config(task, console=Console(quiet=True), serial=True)
    assert all(report.ok and report.blocks["computed"] > 0 for report in again)
    assert stored_files(task) == before


# -- what is refused ---------------------------------------------------------------------


def check_all(sources, folder, options):
    for step in segmented(sources, folder, **options).steps():
        step.grid()
        step.check()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"seeds": {"foreground": 0.5}}, "seeds.foreground 0.5 is below threshold 0.6"),
        ({"seeds": {"distance": 0.5}}, "there is no map 'distance'"),
        ({"seeds": {"cores": {"distance": 0.5}}}, "seeds.cores.distance is 0.5, but there is no map"),
        ({"seeds": {"cores": {}, "neck_nm": 40.0}}, "leave one out"),
        ({"merge": {"bias": 0.0, "weights": {"distance_50": 1.0}}}, "no map 'distance' that it"),
        ({"merge": {"bias": 0.0, "weights": {"colour": 1.0}}}, "merge.weights"),
        ({"merge": {"bias": 0.0, "weights": {}, "threshold": 1.0}}, "less than 1"),
        ({"channels": {"membrane": 0}}, "channels names membrane"),
        ({"channels": {"distance": 0}}, "channels names distance"),
        ({"channels": {"contour": 1}}, "has no channels"),
        ({"max_hole": 5}, "means nothing"),
        ({"output": "in.zarr"}, "lie in each other|lies in"),
        ({"roi": {"offset": [0, 0, 0], "shape": [40, 4.6, 4.6]}}, "is not inside"),
        ({"threshold": 0}, "greater than 0"),
        ({"smooth_nm": [0, -1, 0]}, "greater than or equal to 0"),
        ({"segmentation": "some.zarr"}, "one of 'foreground' and 'segmentation'"),
        ({"foreground": None, "contour": None, "seeds": {}}, "one of 'foreground' and 'segmentation'"),
        ({"foreground": None, "segmentation": "some.zarr"}, "contour, seeds, threshold would decide"),
    ],
)
def test_a_config_that_cannot_be_is_refused(tmp_path, predicted, options, words):
    if options.get("output") == "in.zarr":
        options = {"output": predicted["foreground"]}
    with pytest.raises(EmBlocksError, match=words) as refused:
        check_all(predicted, tmp_path, options)
    assert refused.value.exit_code == 2


@pytest.mark.parametrize(
    ("values", "attributes", "words"),
    [
        (np.full(SHAPE, 300, "uint16"), {"scale": 255.0}, r"holds 1.176 at voxel \(0, 0, 0\)"),
        (np.full(SHAPE, 1.5, "float32"), {}, "must hold 0..1"),
        (np.full(SHAPE, -0.5, "float32"), {}, "holds -0.5 at"),
        (np.full(SHAPE, np.nan, "float32"), {}, "holds NaN"),
        (np.ones(SHAPE, "int32"), {}, "read as ids"),
    ],
)
def test_a_map_that_holds_no_probabilities_is_refused(tmp_path, values, attributes, words):
    path = volume(tmp_path, values, "wrong", **attributes)
    with pytest.raises((ConfigError, VolumeError), match=words):
        check_all({"foreground": path}, tmp_path, {"seeds": {}})


def test_maps_of_other_voxels_or_another_place_are_refused(tmp_path, predicted):
    zeros = np.zeros(SHAPE, "uint8")
    coarse = volume(tmp_path, zeros, "coarse", Frame((40.0, 9.2, 9.2), FRAME.offset), scale=255.0)
    with pytest.raises(ConfigError, match="all maps at the same voxels"):
        check_all({**predicted, "contour": coarse}, tmp_path, {})
    short = volume(tmp_path, zeros[:, :, :40], "short", scale=255.0)
    with pytest.raises(EmBlocksError, match="ends inside of the region"):
        check_all({**predicted, "contour": short}, tmp_path, {})


def test_a_flood_whose_seeds_were_lost_ends_with_an_error(tmp_path, predicted):
    task = segmented(predicted, tmp_path)
    do_all_steps(task)
    flooding = next(step for step in task.steps() if step.kind == "flood_instances")
    labels = Volume.open(flooding.labels, mode="r+")
    stored = labels.read(labels.box)
    assert (stored == UNDECIDED).any()
    labels.write(labels.box, np.where(stored == UNDECIDED, stored, 0))
    damaged = [b for b in flooding.grid().blocks() if (stored[b.write_box.slices] == UNDECIDED).any()]
    with flooding.open(RunContext()) as process, pytest.raises(VolumeError, match="seeds are missing"):
        process(damaged[0], BlockReport())


def test_a_flood_that_needs_too_much_memory_says_so(tmp_path, predicted, monkeypatch):
    monkeypatch.setattr(flooding_task, "MOST_VOXELS", 200)
    with pytest.raises(VolumeError, match="but none of them is near"):
        do_all_steps(segmented(predicted, tmp_path))
