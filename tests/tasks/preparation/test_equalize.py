"""CLAHE on blocks: no seam, whatever the blocks are; what it says of itself."""

import numpy as np
import pytest
from rich.console import Console

from blockwise import store_of, stored_files
from em_blocks.errors import ConfigError
from em_blocks.geometry import Box, Frame
from em_blocks.kernels.images.contrast_maps import contrast_maps, region_histograms
from em_blocks.kernels.images.equalize import equalize
from em_blocks.kernels.images.grey_values import to_grey
from em_blocks.runtime.scheduler.run import run_steps
from em_blocks.tasks.preparation.equalize import Equalize
from em_blocks.tasks.volumes.downsample import Downsample
from em_blocks.volumes import Volume
from preparing import FRAME, checked, done, textured, volume, voxels

SHAPE = (10, 45, 61)
BLOCKS = [(5, 8, 8), (10, 24, 16), (5, 48, 64), (10, 48, 64)]


def equalization(source, folder, name="a", **options):
    return Equalize.from_dict({
        "kind": "equalize", "run": "equalize", "raw": source.path, "kernel_shape": [4, 16, 16],
        "output": str(folder / name / "out.zarr/equalized"), "chunk_shape": [5, 8, 8],
        "block_shape": [5, 16, 24], **options,
    })


def whole(grey, kernel_shape=(4, 16, 16), clip_limit=0.02, counted=None):
    """The result in one piece: the kernels are tested against the definition."""
    counted = np.ones(grey.shape, bool) if counted is None else counted
    maps = contrast_maps(region_histograms(grey, counted, kernel_shape), clip_limit)
    return equalize(grey, counted, maps, box=Box((0, 0, 0), grey.shape), kernel_shape=kernel_shape,
                    shape=grey.shape)


@pytest.mark.parametrize("kernel_shape", [(4, 16, 16), (1, 20, 33), (32, 5, 64)])
def test_no_voxel_depends_on_the_blocks(tmp_path, kernel_shape):
    source = volume(tmp_path, textured(SHAPE))
    expected = whole(textured(SHAPE), kernel_shape)
    for n, block_shape in enumerate(BLOCKS):
        made, _ = done(equalization(source, tmp_path, f"b{n}", block_shape=block_shape,
                                    kernel_shape=kernel_shape))
        np.testing.assert_array_equal(voxels(made), expected)
    assert made.frame == FRAME and made.dtype == np.uint8


def test_the_result_says_how_it_was_made_and_so_do_the_levels_of_its_pyramid(tmp_path):
    source = volume(tmp_path, textured(SHAPE))
    made, counts = done(equalization(source, tmp_path, clip_limit=0.05))
    settings = {"method": "CLAHE", "kernel_shape": [4, 16, 16], "clip_limit": 0.05,
                "value_range": [0.0, 255.0]}
    assert made.attributes["equalized"] == settings
    assert counts["counted_voxels"] == np.prod(SHAPE)
    pyramid = Downsample.from_dict({
        "kind": "downsample", "run": "p", "input": made.path, "method": "mean", "levels": 1,
        "output": str(tmp_path / "p.zarr/p"), "chunk_shape": [4, 8, 8],
    })
    assert pyramid.steps()[1].output_specs()[0].attributes["equalized"] == settings


@pytest.mark.parametrize(("dtype", "value_range"), [("uint16", (1000, 21000)), ("float32", (-1, 1.5))])
def test_other_dtypes_are_mapped_from_their_stated_range(tmp_path, dtype, value_range):
    unit = textured(SHAPE).astype(float) / 255
    values = (value_range[0] + unit * (value_range[1] - value_range[0])).astype(dtype)
    made, _ = done(equalization(volume(tmp_path, values), tmp_path, value_range=value_range))
    np.testing.assert_array_equal(voxels(made), whole(to_grey(values, *value_range)))


def test_without_a_stated_range_the_error_proposes_one(tmp_path):
    values = textured(SHAPE).astype("uint16") * 40 + 500
    with pytest.raises(ConfigError, match=r"'value_range' is missing.*\"value_range\": \[\d+, \d+\]"):
        equalization(volume(tmp_path, values), tmp_path).steps()


def test_voxels_that_are_no_numbers_do_not_count_and_become_0(tmp_path):
    values = textured(SHAPE).astype("float32")
    values[2, 3:9, 5:30] = np.nan
    counted = np.isfinite(values)
    made, _ = done(equalization(volume(tmp_path, values), tmp_path, value_range=(0, 255)))
    np.testing.assert_array_equal(voxels(made), whole(to_grey(values, 0, 255), counted=counted))
    assert not voxels(made)[~counted].any()


def test_voxels_outside_of_a_coarser_mask_neither_count_nor_change(tmp_path):
    """The mask has voxels of 2 x 3 x 3, and begins one of them after the image."""
    image = textured(SHAPE)
    kept = np.random.default_rng(3).random((4, 14, 15)) < 0.6
    kept[:, :6, :6] = False  # some regions have nothing
    size, offset = np.array(FRAME.voxel_size) * (2, 3, 3), np.array(FRAME.offset)
    mask = volume(tmp_path, kept.astype("uint8"), "mask", frame=Frame(size, offset + size))
    counted = np.zeros(SHAPE, bool)
    for index in np.ndindex(*SHAPE):
        place = tuple((i // f) - 1 for i, f in zip(index, (2, 3, 3)))
        inside = all(0 <= p < n for p, n in zip(place, kept.shape))
        counted[index] = inside and kept[place]
    task = equalization(volume(tmp_path, image), tmp_path, mask=mask.path)
    made, counts = done(task)
    np.testing.assert_array_equal(voxels(made), whole(image, counted=counted))
    np.testing.assert_array_equal(voxels(made)[~counted], image[~counted])
    assert counts["counted_voxels"] == counted.sum() < counted.size


def test_blocks_done_again_on_workers_change_nothing(tmp_path):
    task = equalization(volume(tmp_path, textured(SHAPE)), tmp_path, num_workers=2)
    assert all(report.ok for report in run_steps(task.steps(), console=Console(quiet=True)))
    last = task.steps()[-1]
    before = stored_files(last), tables(task)
    with store_of(last) as store:
        store.database.blocks.delete_many({"index.0": 1})
    again = run_steps(task.steps(), console=Console(quiet=True))
    assert all(report.ok and report.blocks["computed"] > 0 for report in again)
    assert (stored_files(last), tables(task)) == before
    np.testing.assert_array_equal(voxels(Volume.open(task.output)), whole(textured(SHAPE)))


def tables(task):
    return {p: p.read_bytes() for p in (task.home / "tables").rglob("*.parquet")}


# -- what is refused ----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"clip_limit": 0}, "'clip_limit'"), ({"clip_limit": 1.5}, "'clip_limit'"),
        ({"kernel_shape": [1, 8, 8]}, "fewer than 256 voxels"),
        ({"value_range": [5, 5]}, "first value of a range must be below"),
    ],
)
def test_wrong_keys_are_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        equalization(volume(tmp_path, textured(SHAPE)), tmp_path, **options)


def test_volumes_without_contrast_are_refused(tmp_path):
    labels = volume(tmp_path, textured(SHAPE).astype("uint32"), "labels")
    with pytest.raises(ConfigError, match="look like ids"):
        checked(equalization(labels, tmp_path))
    colours = volume(tmp_path, np.stack([textured(SHAPE)] * 3), "rgb")
    with pytest.raises(ConfigError, match=r"3 channels.*em-blocks convert"):
        checked(equalization(colours, tmp_path))


def test_a_mask_elsewhere_is_refused(tmp_path):
    source = volume(tmp_path, textured(SHAPE))
    mask = volume(tmp_path, np.ones(SHAPE, "uint8"), "mask", frame=Frame((4.0, 4.0, 4.0)))
    with pytest.raises(ConfigError, match="shares no voxel with"):
        checked(equalization(source, tmp_path, mask=mask.path))
