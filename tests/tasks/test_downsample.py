"""Levels of a pyramid: the same voxels for every block grid, in the right place of the world."""

import numpy as np
import pytest

from blockwise import assert_one_block_equals_many, assert_retry_equals_once, run
from em_blocks.errors import BlockAlignmentError, ConfigError
from em_blocks.geometry import Box, Frame
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.downsample import Downsample
from em_blocks.volumes import Volume
from em_blocks.volumes.downsample import downsample

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))  # an offset of 10, 10 and 2 voxels
SHAPE = (21, 35, 43)


def labels(shape=SHAPE, dtype="uint64", seed=0):
    """Blobs of a few ids, some of them beyond 2^32."""
    coarse = np.random.default_rng(seed).integers(0, 5, [-(-n // 3) for n in shape])
    fine = np.kron(coarse, np.ones((3, 3, 3), int))[tuple(slice(n) for n in shape)]
    return (fine * (2**33 if np.dtype(dtype).itemsize == 8 else 3)).astype(dtype)


def volume(folder, values, frame=FRAME, **options):
    lead = values.shape[:-3]
    made = Volume.create(
        str(folder / "in.zarr/labels"), shape=values.shape[-3:], dtype=values.dtype, frame=frame,
        chunk_shape=(8, 8, 8), channels=lead[0] if lead else None, **options,
    )
    made.write(made.box, values)
    return made


def level(below, folder, name="a", **options):
    values = {
        "kind": "downsample", "run": "level", "input": below.path, "factors": [1, 2, 2],
        "output": str(folder / name / "out.zarr/labels/s1"), "method": "mode",
        "chunk_shape": [4, 8, 8], "block_shape": [8, 8, 16], **options,
    }
    return Downsample.from_dict(values)


def done(task):
    """What the runtime does, without database and workers; the volume that comes out."""
    task.check()
    task.check_alignment()
    for output in task.output_specs():
        output.create(task.grid(), "fingerprint")
    with task.open({}) as process:
        for block in task.grid().blocks():
            process(block, BlockReport())
    return Volume.open(task.output)


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 2, 2), (1, 3, 5), (1, 1, 1)])
@pytest.mark.parametrize("method", ["mode", "mean"])
def test_a_level_is_the_downsampled_volume(tmp_path, factors, method):
    below = volume(tmp_path, labels(dtype="uint16"))
    task = level(below, tmp_path, factors=factors, method=method)
    made = done(task)
    values = below.read(below.box)
    np.testing.assert_array_equal(made.read(made.box), downsample(values, factors, method))
    assert made.frame.offset == below.frame.offset
    assert made.frame.voxel_size == pytest.approx(np.multiply(below.frame.voxel_size, factors))


@pytest.mark.parametrize("format", ["zarr", "zarr3", "precomputed"])
def test_no_voxel_depends_on_the_block_grid(tmp_path, format):
    below = volume(tmp_path, labels())

    def make(block_shape, name):
        suffix = "" if format == "precomputed" else ".zarr"
        return level(below, tmp_path, name, format=format, factors=[2, 2, 3],
                     output=str(tmp_path / name / f"out{suffix}/s1"), block_shape=block_shape)

    assert_one_block_equals_many(make, [(4, 8, 8), (8, 24, 8)], whole=(12, 24, 24))


def test_doing_a_block_again_changes_nothing(tmp_path):
    below = volume(tmp_path, labels())
    assert_retry_equals_once(level(below, tmp_path, "a"), level(below, tmp_path, "b"))


@pytest.mark.parametrize("offset", [(10, 10, 2), (7, 9, 5), (0, 0, 0), (-3, -1, 2)])
def test_in_precomputed_windows_lie_on_the_grid_of_the_world(tmp_path, offset):
    """The offset stays a whole number of voxels, and each voxel covers what it says."""
    frame = Frame((40.0, 4.6, 4.6), tuple(o * v for o, v in zip(offset, (40.0, 4.6, 4.6), strict=True)))
    below = volume(tmp_path, labels(), frame)
    task = level(below, tmp_path, format="precomputed", output=str(tmp_path / "pc/s1"),
                 factors=[2, 2, 2])
    made = done(task)
    values, fine = made.read(made.box), below.read(below.box)
    for index in np.ndindex(values.shape):
        seen = below.frame.to_box(made.frame.to_roi(Box(index, (1, 1, 1)))).intersect(below.box)
        ids, counts = np.unique(fine[seen.slices], return_counts=True)
        assert values[index] == ids[counts.argmax()]


def test_channels_and_the_scale_of_a_prediction_are_kept(tmp_path):
    values = np.random.default_rng(1).integers(0, 255, (3, 8, 16, 16), dtype=np.uint8)
    below = volume(tmp_path, values, attributes={"scale": 255.0})
    task = level(below, tmp_path, method="mean")
    made = done(task)
    assert (made.channels, made.scale) == (3, 255.0)
    np.testing.assert_array_equal(made.read(made.box), downsample(values, (1, 2, 2), "mean"))


@pytest.mark.parametrize(
    ("dtype", "method", "words"),
    [("float32", "mode", "holds float32"), ("uint64", "mean", "the id of a third object")],
)
def test_a_method_that_makes_no_sense_is_refused(tmp_path, dtype, method, words):
    task = level(volume(tmp_path, labels(dtype=dtype)), tmp_path, method=method)
    with pytest.raises(ConfigError, match=words):
        run(task)
    assert not (tmp_path / "a").exists()


def test_a_level_inside_its_input_is_refused(tmp_path):
    below = volume(tmp_path, labels())
    with pytest.raises(ConfigError, match="beside each other"):
        run(level(below, tmp_path, output=f"{below.path}/s1"))


def test_a_block_that_cuts_chunks_is_refused(tmp_path):
    with pytest.raises(BlockAlignmentError):
        run(level(volume(tmp_path, labels()), tmp_path, block_shape=[8, 12, 16]))


@pytest.mark.parametrize("factors", [[0, 2, 2], [2, 2], [1.5, 2, 2], "2"])
def test_wrong_factors_are_refused(tmp_path, factors):
    with pytest.raises(ConfigError, match="'factors"):
        level(volume(tmp_path, labels()), tmp_path, factors=factors)
