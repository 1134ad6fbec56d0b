"""Tasks on data of others, whose axes and place the config tells: as on volumes of our own."""

import h5py
import numpy as np
import pytest
import zarr

import segmenting
from blockwise import run
from em_blocks.errors import FingerprintMismatchError
from em_blocks.geometry import BlockGrid, Frame
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport, fingerprint
from em_blocks.tasks.evaluation.count_overlaps import CountOverlaps
from em_blocks.tasks.masks import masked_blocks
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.tasks.volumes.downsample import Downsample
from em_blocks.volumes import Volume
from em_blocks.volumes.labels import open_labels

FRAME = Frame((40, 4.6, 4), (400, 46, -8))
SHAPE = (11, 26, 30)


def own(folder, dtype="uint8", values=None, frame=FRAME):
    """A volume of ours."""
    if values is None:
        values = np.random.default_rng(0).integers(0, 250, SHAPE).astype(dtype)
    volume = Volume.create(str(folder / "own.zarr/v"), shape=SHAPE, dtype=dtype, frame=frame,
                           chunk_shape=(4, 8, 8))
    volume.write(volume.box, values)
    return volume


def foreign(folder, volume, axes):
    """The same voxels in another order, in a file that says something wrong of them."""
    values = volume.read(volume.box)
    have = "zyx" if values.ndim == 3 else "czyx"
    for axis in sorted(set(axes) - set(have)):
        values, have = values[None], axis + have
    values = np.ascontiguousarray(values.transpose([have.index(a) for a in axes]))
    array = zarr.open(f"{folder}/foreign.zarr/v", mode="w", shape=values.shape, dtype=values.dtype,
                      chunks=[min(7, n) for n in values.shape])
    array[:] = values
    array.attrs["voxel_size"] = [1, 1, 1]
    return {"path": f"{folder}/foreign.zarr/v", "voxel_size": list(volume.frame.voxel_size),
            "offset": list(volume.frame.offset), "axes": [*axes]}


def done_here(task):
    """What the first output of a task holds when its blocks are done in this process."""
    task.check()
    (spec, *_), grid = task.output_specs(), task.grid()
    spec.create(grid, "test")
    with task.open(RunContext(task.measure())) as process:
        for block in grid.blocks():
            process(block, BlockReport())
    made = Volume.open(spec.path)
    return made.frame, made.read(made.box)


def both(make, native, told):
    """Frames and voxels of the outputs of `make` on both inputs must be equal."""
    (frame, values), (other_frame, others) = (
        done_here(make(place, name)) for name, place in [("native", native), ("told", told)]
    )
    assert frame == other_frame
    np.testing.assert_array_equal(values, others)
    assert values.any()


def downsample(folder, place, name, **options):
    return Downsample.from_dict({
        "kind": "downsample", "run": name, "input": place, "output": str(folder / f"{name}.zarr/p"),
        "method": "mean", "factors": [[1, 2, 2]], "chunk_shape": [4, 8, 8], "block_shape": [4, 8, 8],
        **options,
    })


@pytest.mark.parametrize("axes", ["xyz", "yxzc", "ctxzy"])
def test_a_pyramid_is_that_of_the_same_voxels(tmp_path, axes):
    volume = own(tmp_path)

    def make(place, name):
        return downsample(tmp_path, place, name).steps()[0]

    both(make, volume.path, foreign(tmp_path, volume, axes))


def test_workers_read_what_the_config_tells(tmp_path):
    volume = own(tmp_path)
    task = downsample(tmp_path, foreign(tmp_path, volume, "xzy"), "told", level=0)
    run(task)
    made = Volume.open(task.output_specs()[0].path)
    assert made.frame == FRAME
    np.testing.assert_array_equal(made.read(made.box), volume.read(volume.box))


def test_a_pyramid_can_be_made_again_at_another_place(tmp_path):
    volume = own(tmp_path)
    for offset in ([400, 46, -8], [800, 0, 0]):
        place = {**foreign(tmp_path, volume, "xyz"), "offset": offset}
        task = downsample(tmp_path, place, "again")
        for step in task.steps():
            run(step, overwrite=True)
        task.publish()
        assert [Volume.open(f"{task.output}/s{n}").frame.offset for n in range(2)] == [tuple(offset)] * 2


def test_what_is_told_is_part_of_what_identifies_a_run(tmp_path):
    told = foreign(tmp_path, own(tmp_path), "xyz")
    run(downsample(tmp_path, told, "told", level=0))
    again = {**told, "voxel_size": [50, 4.6, 4]}
    with pytest.raises(FingerprintMismatchError, match=r"voxel_size.*40.*50"):
        run(downsample(tmp_path, again, "told", level=0))


def test_both_spellings_of_a_path_are_one_run(tmp_path):
    path = own(tmp_path).path
    one, other = (downsample(tmp_path, place, "a", level=0) for place in (path, {"path": path}))
    assert fingerprint(one.identity()) == fingerprint(other.identity())


@pytest.mark.parametrize("axes", ["zyx", "xyzt"])
def test_a_network_sees_the_same_voxels(tmp_path, setup_folder, axes):
    volume = own(tmp_path, frame=Frame((40, 4.6, 4.6), (400, 46, -9.2)))

    def make(place, name):
        return Predict.from_dict({
            "kind": "predict", "run": name, "raw": place, "setup": str(setup_folder),
            "output": str(tmp_path / f"{name}.zarr"), "block_shape": (6, 24, 12), "precision": "fp32",
            "outputs": {"affinities": {"dtype": "float32"}},
        })

    both(make, volume.path, foreign(tmp_path, volume, axes))


def test_segments_are_those_of_the_same_affinities(tmp_path):
    native = segmenting.stored(segmenting.noisy(segmenting.neurons()), tmp_path)
    told = foreign(tmp_path, Volume.open(native), "xyzc")
    found = []
    for name, place in [("native", native), ("told", told)]:
        (tmp_path / name).mkdir()
        task = segmenting.segment(place, tmp_path / name, neighborhood=segmenting.NEIGHBORHOOD)
        segmenting.here(task)
        made = Volume.open(task.segments_path(0.5))
        found.append((made.frame, made.read(made.box).tobytes()))
    assert found[0] == found[1]


def test_a_mask_may_be_told(tmp_path):
    values = np.zeros(SHAPE, "uint8")
    values[5, 9, 20] = 1
    volume = own(tmp_path, values=values)
    grid = BlockGrid(FRAME, SHAPE, (4, 8, 8))
    told = foreign(tmp_path, volume, "xyz")
    task = downsample(tmp_path, volume.path, "a", level=0, mask=told)
    masked = masked_blocks(task.mask, grid)
    np.testing.assert_array_equal(masked, masked_blocks(volume.path, grid))
    assert (~masked).sum() == 1 and not masked[1, 1, 2]


def test_truth_in_hdf5_may_be_told(tmp_path):
    ids = np.random.default_rng(1).integers(0, 5, SHAPE).astype("uint64")
    volume = own(tmp_path, "uint64", ids)
    with h5py.File(tmp_path / "truth.h5", "w") as file:
        file["ids"] = np.ascontiguousarray(ids.T)
        file["ids"].attrs["resolution"] = [1, 1, 1]
    told = foreign(tmp_path, volume, "xyz") | {"path": f"{tmp_path}/truth.h5:ids"}
    task = CountOverlaps.from_dict({
        "kind": "count_overlaps", "run": "c", "segmentations": {"same": volume.path}, "truth": told,
        "output": str(tmp_path / "out"), "block_shape": (4, 8, 8),
    })
    assert task.grid().frame == FRAME and task.grid().volume_shape == SHAPE
    with open_labels(task.truth) as truth:
        np.testing.assert_array_equal(truth.read(truth.box), ids)
