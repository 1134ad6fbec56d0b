"""The block shape that a config leaves out: the largest that fits, and kept by the run."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwise import AddOne, make_raw, run, store_of
from em_blocks.errors import ConfigError
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.runtime.runs.block_shape import with_block_shape
from em_blocks.tasks.block_shape import largest_block
from em_blocks.volumes import Volume

SIZES = {1} | {m * 2**k for m in (2, 3) for k in range(11)}
triples = st.tuples(*[st.integers(1, 40)] * 3)


@given(
    unit=triples, volume=st.tuples(*[st.integers(1, 900)] * 3), most=st.integers(1, 10**8),
    workers=st.integers(1, 30), voxel=st.tuples(*[st.floats(0.5, 80)] * 3),
)
def test_the_largest_block_fits_and_no_larger_one_does(unit, volume, most, workers, voxel):
    grid = BlockGrid(Frame(voxel), volume, unit)

    def fits(shape):
        return math.prod(shape) <= most

    def blocks(shape):
        return BlockGrid(grid.frame, volume, shape).n_blocks

    if not fits(unit):
        with pytest.raises(ConfigError, match="lacks the memory for the smallest block"):
            largest_block(grid, unit, num_workers=workers, fits=fits)
        return
    shape = largest_block(grid, unit, num_workers=workers, fits=fits)
    multiples = [s // u for s, u in zip(shape, unit, strict=True)]
    assert all(s % u == 0 for s, u in zip(shape, unit, strict=True)) and set(multiples) <= SIZES
    assert fits(shape) and blocks(shape) >= min(workers, blocks(unit))
    for axis in range(3):
        larger = list(shape)
        larger[axis] = next(m for m in sorted(SIZES) if m > multiples[axis]) * unit[axis]
        assert shape[axis] >= volume[axis] or not fits(larger) or blocks(larger) < workers


def test_blocks_are_about_as_long_along_every_axis():
    grid = BlockGrid(Frame((40.0, 4.0, 4.0)), (1000, 10_000, 10_000), (16, 64, 64))
    shape = largest_block(grid, (16, 64, 64), num_workers=1, fits=lambda s: math.prod(s) <= 2**24)
    assert shape == (64, 512, 512)


class Fitted(AddOne):
    """As its base, with memory that is known exactly."""

    def worker_bytes(self):
        return math.prod(self.block_shape) * 1e6


def fitted(raw, folder, memory_gb, **options):
    return Fitted(raw=raw.path, output=folder / "out.zarr", cluster={"memory_gb": memory_gb}, **options)


def test_a_config_without_block_shape_has_the_one_that_fits_a_worker(tmp_path):
    raw = make_raw(tmp_path)
    task = with_block_shape(fitted(raw, tmp_path, 2.1))
    assert task.block_shape == (5, 20, 20) and task.run == "out"
    assert with_block_shape(fitted(raw, tmp_path, 0.51)).block_shape == (5, 10, 10)
    assert with_block_shape(fitted(raw, tmp_path, 99)).block_shape == (20, 30, 60)  # all of the volume
    given = fitted(raw, tmp_path, 0.1, block_shape=(10, 10, 10))
    assert with_block_shape(given) is given
    with pytest.raises(ConfigError, match=r"smallest block, \(5, 10, 10\)"):
        with_block_shape(fitted(raw, tmp_path, 0.4))


def test_a_run_keeps_the_block_shape_that_it_began_with(tmp_path):
    raw = make_raw(tmp_path)
    begun = with_block_shape(fitted(raw, tmp_path, 2.1))
    assert run(begun, serial=True).ok
    with store_of(begun) as store:
        first = store.load()
    repeated = with_block_shape(fitted(raw, tmp_path, 0.6))
    assert repeated.block_shape == begun.block_shape
    report = run(repeated, serial=True)
    assert report.ok and report.blocks["computed"] == 0
    with store_of(begun) as store:
        assert store.load()["fingerprint"] == first["fingerprint"]
    # One that gives the same shape is the same run.
    assert run(fitted(raw, tmp_path, 2.1, block_shape=(5, 20, 20)), serial=True).blocks["computed"] == 0


def test_memory_that_is_not_stated_is_a_share_of_half_of_the_machine(tmp_path, monkeypatch):
    raw = make_raw(tmp_path)
    monkeypatch.setattr("psutil.virtual_memory", lambda: type("Memory", (), {"total": 8.4e9}))
    task = Fitted(raw=raw.path, output=tmp_path / "out.zarr", num_workers=2)
    assert with_block_shape(task).block_shape == (5, 20, 20)


def test_a_prediction_has_whole_tiles_and_a_segmentation_whole_chunks(tmp_path):
    import em_blocks

    raw = Volume.create(str(tmp_path / "raw.zarr/raw"), shape=(64, 400, 400), dtype="uint8",
                        frame=Frame((40.0, 4.0, 4.0), (80.0, 4.0, 0.0)), chunk_shape=(32, 64, 64))
    predict = with_block_shape(em_blocks.Predict(
        raw=raw.path, setup=em_blocks.shipped_setup("affinities_anisotropic"),
        output=tmp_path / "affinities.zarr", cluster={"memory_gb": 1.0},
    ))
    assert all(b % t == 0 for b, t in zip(predict.block_shape, predict.usual_tile, strict=True))
    assert math.prod(predict.block_shape) > math.prod(predict.usual_tile)
    predict.check_alignment()
    assert predict.worker_bytes() <= 1e9
    (spec,) = predict.output_specs()
    Volume.create(spec.path, shape=raw.shape, dtype=spec.dtype, frame=raw.frame,
                  chunk_shape=spec.chunk_shape, channels=spec.channels, attributes=spec.attributes)
    segment = with_block_shape(em_blocks.Segment(
        affinities=spec.path, output=tmp_path / "segments.zarr", thresholds=[0.5], num_workers=2,
        cluster={"memory_gb": 4.0},
    ))
    steps = segment.steps()
    assert all(np.mod(segment.block_shape, segment.chunk_shape) == 0)
    assert steps[0].grid().n_blocks >= 2 and steps[0].run == segment.first_run
    assert max(step.worker_bytes() for step in steps[:2]) <= 4e9
