"""Conversions on blocks: places stay right, no value changes in silence."""

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from blockwise import (
    assert_one_block_equals_many,
    assert_retry_equals_once,
    assert_same_result,
    run,
    start_in_background,
    wait_for,
    worker_pids,
)
from em_blocks.errors import ConfigError, GeometryError
from em_blocks.geometry import Roi
from em_blocks.tasks.preparation.convert import Convert
from em_blocks.tasks.volumes.ingest import Ingest
from preparing import FRAME, checked, done, textured, volume, voxels

SHAPE = (7, 21, 26)
CROP = {"kind": "crop", "roi": {"offset": [440, 46 + 4 * 4.6, -9.2 + 6 * 4.6],
                                "shape": [160, 10 * 4.6, 12 * 4.6]}}
PAD = {"kind": "pad", "before": [2, 0, 3], "after": [0, 5, 1]}


def converting(source, folder, *conversions, name="a", **options):
    return Convert.from_dict({
        "kind": "convert", "run": "convert", "input": source.path, "chunk_shape": [4, 8, 8],
        "conversions": list(conversions), "output": str(folder / name / "out.zarr/made"),
        "block_shape": [4, 8, 16], **options,
    })


def converted(folder, values, *conversions, **attributes):
    made, _ = done(converting(volume(folder, values, **attributes), folder, *conversions))
    return made


# -- places ------------------------------------------------------------------------------


def test_what_is_cropped_lies_where_it_lay(tmp_path):
    values = textured(SHAPE)
    made = converted(tmp_path, values, CROP)
    np.testing.assert_array_equal(voxels(made), values[1:5, 4:14, 6:18])
    np.testing.assert_allclose(made.offset, (440, 64.4, 18.4))
    source = volume(tmp_path, values, "again")
    roi = Roi((480, 64.4 + 4.6, 18.4), (40, 9.2, 4.6))
    np.testing.assert_array_equal(made.read(roi), source.read(roi))


@pytest.mark.parametrize("value", [0, 17, "mirror"])
def test_what_is_padded_stays_where_it_was(tmp_path, value):
    values = textured(SHAPE)
    made = converted(tmp_path, values, {**PAD, "value": value})
    how = {"mode": "reflect"} if value == "mirror" else {"constant_values": value}
    np.testing.assert_array_equal(voxels(made), np.pad(values, [(2, 0), (0, 5), (3, 1)], **how))
    np.testing.assert_allclose(made.offset, (400 - 80, 46, -9.2 - 3 * 4.6))
    np.testing.assert_array_equal(made.read(Roi((440, 46, -9.2), (40, 46, 46))), values[1:2, :10, :10])


def test_a_mirror_of_a_thin_volume_goes_to_and_fro(tmp_path):
    values = textured((2, 5, 5))
    pad = {"kind": "pad", "before": [5, 0, 0], "after": [4, 7, 0], "value": "mirror"}
    made = converted(tmp_path, values, pad)
    np.testing.assert_array_equal(voxels(made), np.pad(values, [(5, 4), (0, 7), (0, 0)], mode="reflect"))


def test_conversions_come_one_after_the_other(tmp_path):
    """What is cropped first is not in the mirror."""
    values = textured(SHAPE)
    mirror = {**PAD, "value": "mirror"}
    made = converted(tmp_path, values, CROP, {"kind": "invert"}, mirror)
    cropped = 255 - values[1:5, 4:14, 6:18]
    expected = np.pad(cropped, [(2, 0), (0, 5), (3, 1)], mode="reflect")
    np.testing.assert_array_equal(voxels(made), expected)
    np.testing.assert_allclose(made.offset, (440 - 80, 64.4, 18.4 - 3 * 4.6))


def test_channels_are_cropped_and_padded_too(tmp_path):
    values = np.stack([textured(SHAPE, seed) for seed in range(2)])
    made = converted(tmp_path, values, CROP, {**PAD, "value": "mirror"})
    expected = np.pad(values[:, 1:5, 4:14, 6:18], [(0, 0), (2, 0), (0, 5), (3, 1)], mode="reflect")
    np.testing.assert_array_equal(voxels(made), expected)


def test_what_moves_keeps_the_meaning_of_values_and_what_changes_them_does_not(tmp_path):
    meanings = {"scale": 255, "equalized": {"clip_limit": 0.02}, "other": 1}
    made = converted(tmp_path, textured(SHAPE), CROP, **meanings)
    assert made.scale == 255 and made.attributes["equalized"] == {"clip_limit": 0.02}
    assert "other" not in made.attributes
    again = converted(tmp_path / "b", textured(SHAPE), CROP, {"kind": "invert"}, **meanings)
    assert again.scale is None and "equalized" not in again.attributes


# -- values ------------------------------------------------------------------------------


def test_a_dtype_is_changed_and_no_value_with_it(tmp_path):
    made = converted(tmp_path, textured(SHAPE), {"kind": "dtype", "dtype": "uint32"})
    assert made.dtype == np.uint32
    np.testing.assert_array_equal(voxels(made), textured(SHAPE))


def test_a_range_is_mapped_and_rounded(tmp_path):
    values = (textured(SHAPE).astype("uint16") + 100) * 10
    mapping = {"source": [1000, 3550], "target": [0, 255]}
    made = converted(tmp_path, values, {"kind": "dtype", "dtype": "uint8", "mapping": mapping})
    np.testing.assert_array_equal(voxels(made), np.rint((values - 1000.0) / 10).astype("uint8"))
    mapping = {"source": [1000, 3550], "target": [-1, 1]}
    scaled = converted(tmp_path / "b", values,
                       {"kind": "dtype", "dtype": "float32", "mapping": mapping})
    np.testing.assert_allclose(voxels(scaled), (values - 1000.0) / 1275 - 1, atol=1e-6)


def test_values_beyond_are_cut_only_if_the_config_says_so(tmp_path):
    values = textured(SHAPE).astype("int16")
    values[6, 20, 25] = -300
    mapping = {"source": [0, 255], "target": [0, 255]}
    step = {"kind": "dtype", "dtype": "uint8", "mapping": mapping}
    words = r"raw holds -300 in the voxels \(4, 16, 24\) to.*\"clip\": true"
    with pytest.raises(ConfigError, match=words):
        converted(tmp_path, values, step)
    made = converted(tmp_path / "b", values, {**step, "mapping": {**mapping, "clip": True}})
    assert voxels(made)[6, 20, 25] == 0
    with pytest.raises(ConfigError, match=r"holds -300 .*no uint8: it would become another value"):
        converted(tmp_path / "c", values, {"kind": "dtype", "dtype": "uint8"})


def test_colours_become_ids_then_a_smaller_dtype(tmp_path):
    ids = textured(SHAPE).astype("uint32") % 3
    colours = np.stack([0 * ids, ids, ids]).astype("uint8")
    made = converted(
        tmp_path, colours, {"kind": "rgb_to_ids"}, {"kind": "relabel", "table": {"257": 1, "514": 2}},
        {"kind": "dtype", "dtype": "uint8"},
    )
    np.testing.assert_array_equal(voxels(made), ids)
    assert made.dtype == np.uint8 and made.channels is None and made.attributes["labels"] is True


def test_a_painting_of_vast_becomes_the_ids_that_were_painted(tmp_path):
    ids = np.random.default_rng(0).integers(0, 2**24, (4, 20, 30)).astype("uint32")
    ids[:, :5] = 0
    opacity = np.where(ids, 255, 0)
    (tmp_path / "painted").mkdir()
    for z, channels in enumerate(np.stack([ids >> 16, ids >> 8 & 255, ids & 255, opacity], axis=-1)):
        Image.fromarray(channels.astype("uint8")).save(tmp_path / f"painted/s{z}.png")
    painted, _ = done(Ingest.from_dict({
        "kind": "ingest", "run": "painted", "output": str(tmp_path / "in.zarr/painted"),
        "source": {"type": "images", "path": str(tmp_path / "painted"), "colours": "channels"},
        "voxel_size": FRAME.voxel_size, "offset": FRAME.offset, "chunk_shape": [4, 8, 8],
    }))
    made, _ = done(converting(painted, tmp_path, {"kind": "rgb_to_ids"}))
    np.testing.assert_array_equal(voxels(made), ids)
    assert made.frame == FRAME


def test_ids_that_are_not_in_the_table_become_0_if_told_to(tmp_path):
    ids = textured(SHAPE) % 4
    step = {"kind": "relabel", "table": {"1": 7}, "others": "zero"}
    made = converted(tmp_path, ids, step)
    np.testing.assert_array_equal(voxels(made), np.where(ids == 1, 7, 0))


def test_colours_become_grey_then_negative(tmp_path):
    colours = np.stack([textured(SHAPE, seed) for seed in range(4)])
    made = converted(tmp_path, colours, {"kind": "rgb_to_grey"}, {"kind": "invert"})
    red, green, blue = colours[:3].astype(float)
    grey = 0.299 * red + 0.587 * green + 0.114 * blue
    np.testing.assert_allclose(voxels(made), 255 - grey, atol=0.51)


# -- the laws of blockwise tasks ---------------------------------------------------------


def test_no_voxel_depends_on_the_blocks_and_blocks_done_again_change_nothing(tmp_path):
    source = volume(tmp_path, textured(SHAPE))

    def make(block_shape, name):
        return converting(source, tmp_path, CROP, {**PAD, "value": "mirror"}, {"kind": "invert"},
                          name=name, block_shape=block_shape)

    assert_one_block_equals_many(make, [(4, 8, 8), (8, 16, 8)], whole=(8, 16, 16))
    assert_retry_equals_once(make((4, 16, 16), "again"), make((4, 16, 16), "once"))


@pytest.mark.parametrize("victim", ["worker", "scheduler"])
def test_killed_and_run_again_equals_undisturbed(tmp_path, victim):
    source = volume(tmp_path, textured((16, 40, 56)))
    padding = ({**PAD, "value": "mirror"}, {"kind": "invert"})

    def make(name):
        return converting(source, tmp_path, *padding, name=name, block_shape=[4, 8, 8])

    task, undisturbed = make("killed"), make("undisturbed")
    process = start_in_background(task, tmp_path)
    wait_for(lambda: _chunks(task) > 3 or process.poll() is not None, timeout_s=240)
    if victim == "scheduler":
        os.killpg(process.pid, signal.SIGKILL)
    else:
        for pid in worker_pids(process):
            os.kill(pid, signal.SIGKILL)
    process.wait()
    assert victim == "worker" or _chunks(task) < 240
    assert run(task).ok and run(undisturbed).ok
    assert_same_result(task, undisturbed)


def _chunks(task):
    """Return the number of chunks that are written; 240 when all are."""
    return sum(path.name[0].isdigit() for path in Path(task.output).rglob("*") if path.is_file())


def test_a_mirror_reads_as_far_inside_as_it_reaches_out(tmp_path):
    source = volume(tmp_path, textured(SHAPE))
    pad = {"kind": "pad", "before": [2, 0, 3], "after": [0, 50, 1]}
    assert converting(source, tmp_path, pad).read_reach() == (0, 0, 0)
    mirror = converting(source, tmp_path, {**pad, "value": "mirror"})
    assert mirror.read_reach() == (4, 71, 6)


# -- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "conversions", "words"),
    [
        (textured(SHAPE).astype("float32"), [{"kind": "invert"}], "takes unsigned integers"),
        (textured(SHAPE), [{"kind": "rgb_to_ids"}], r"3 or 4 channels .* no channels of uint8"),
        (np.stack([textured(SHAPE)] * 2), [{"kind": "rgb_to_grey"}], "has 2 channels"),
        (np.stack([textured(SHAPE)] * 3), [{"kind": "relabel", "table": {"1": 2}}], "Convert colours"),
        (textured(SHAPE).astype("float32"), [{"kind": "relabel", "table": {"1": 2}}], "takes ids"),
        (textured(SHAPE), [{"kind": "relabel", "table": {"1": 256}}], "new id 256"),
        (textured(SHAPE), [{**PAD, "value": -1}], "no uint8"),
        (textured(SHAPE), [{**CROP, "roi": {"offset": [0, 46, -9.2], "shape": [40, 46, 46]}}],
         "is not inside"),
    ],
)
def test_conversions_that_do_not_fit_are_refused(tmp_path, values, conversions, words):
    with pytest.raises(ConfigError, match=words):
        checked(converting(volume(tmp_path, values), tmp_path, *conversions))


def test_a_region_beside_the_grid_of_voxels_is_refused(tmp_path):
    crop = {"kind": "crop", "roi": {"offset": [400, 48, -9.2], "shape": [40, 46, 46]}}
    with pytest.raises(GeometryError, match="does not lie on"):
        checked(converting(volume(tmp_path, textured(SHAPE)), tmp_path, crop))


@pytest.mark.parametrize(
    ("conversions", "words"),
    [
        ([], "'conversions'"), ([{"kind": "rotate"}], "conversions.0"),
        ([{"kind": "pad"}], "nothing is added"), ([{**PAD, "before": [-1, 0, 0]}], "before"),
        ([{"kind": "dtype", "dtype": "uint8", "mapping": {"source": [0, 1], "target": [0, 256]}}],
         "which is no uint8"),
        ([{"kind": "relabel", "table": {}}], "table"),
    ],
)
def test_wrong_keys_are_refused(tmp_path, conversions, words):
    with pytest.raises(ConfigError, match=words):
        converting(volume(tmp_path, textured(SHAPE)), tmp_path, *conversions)
