"""Clean-up: every id one part, the same for every block grid, killed anywhere or not."""

import numpy as np
import pytest
from rich.console import Console
from scipy import ndimage

from blockwise import do_all_steps, store_of, stored_files
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.geometry import Frame
from em_blocks.outputs import RunContext
from em_blocks.runtime.scheduler.run import run_steps
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.components.clean import Clean
from em_blocks.tasks.places import check_places
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.tables import BlockTables

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))
SHAPE = (20, 31, 45)
MIN_SIZE = 20


def labels(shape=SHAPE, dtype="uint32", seed=0):
    """Noise of a few ids, smoothed so that each has large and small parts."""
    noise = np.random.default_rng(seed).random((9, *shape))
    smooth = np.stack([ndimage.gaussian_filter(n, 1.2, mode="wrap") for n in noise])
    found = smooth.argmax(axis=0)
    return np.where(found > 2, found * 1000 + 7, 0).astype(dtype)


def volume(folder, values, **options):
    made = Volume.create(
        str(folder / "in.zarr/labels"), shape=values.shape, dtype=values.dtype, frame=FRAME,
        chunk_shape=(7, 8, 9), **options,
    )
    made.write(made.box, values)
    return made


def clean(source, folder, name="a", **options):
    values = {
        "kind": "clean", "run": "clean", "labels": source.path, "min_size": MIN_SIZE,
        "output": str(folder / name / "out.zarr/cleaned"), "chunk_shape": [5, 8, 8],
        "block_shape": [10, 16, 16], **options,
    }
    return Clean.from_dict(values)


def slow_clean(values, fraction=0.1, min_size=MIN_SIZE):
    """One id after the other, in the whole volume."""
    result, new = np.zeros_like(values), int(values.max())
    for i in np.unique(values[values > 0]):
        numbers, _ = ndimage.label(values == i, structure=np.ones((3, 3, 3)))
        sizes = np.bincount(numbers.ravel())[1:]
        largest = int(sizes.argmax()) + 1  # ndimage numbers parts by their first voxel
        for number, size in enumerate(sizes.tolist(), start=1):
            if number == largest:
                result[numbers == number] = i if sizes.sum() >= min_size else 0
            elif size >= min_size and size / sizes.sum() >= fraction:
                new += 1
                result[numbers == number] = new
    return result


def done(task):
    """The volume that comes out and what was counted."""
    counts = do_all_steps(task)
    return Volume.open(task.output), counts


def check_all(task):
    for step in task.steps():
        step.check()
        check_places(step)


# -- what comes out ---------------------------------------------------------------------


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize("fraction", [0.0, 0.1, 0.4])
def test_it_agrees_with_one_id_after_the_other(tmp_path, seed, fraction):
    values = labels(seed=seed)
    made, counts = done(clean(volume(tmp_path, values), tmp_path, fraction=fraction))
    result = made.read(made.box)
    np.testing.assert_array_equal(result, slow_clean(values, fraction))
    assert made.frame == FRAME and made.dtype == values.dtype
    assert counts["join_parts", "erased_voxels"] == ((result == 0) & (values != 0)).sum()
    assert counts["join_parts", "erased"] > 0
    assert counts["join_parts", "new"] == (np.unique(result) > values.max()).sum()


def test_every_id_is_one_part_afterwards_and_cleaning_again_changes_nothing(tmp_path):
    made, _ = done(clean(volume(tmp_path, labels()), tmp_path))
    values = made.read(made.box)
    again, counts = done(clean(made, tmp_path, "again"))
    np.testing.assert_array_equal(again.read(again.box), values)
    assert counts["join_parts", "parts"] == counts["join_parts", "ids"] == len(np.unique(values)) - 1


@pytest.mark.parametrize("block_shape", [(5, 8, 8), (10, 32, 8), (5, 8, 48), (20, 32, 48)])
def test_no_voxel_and_no_new_id_depends_on_the_block_grid(tmp_path, block_shape):
    values = labels(seed=4)
    made, _ = done(clean(volume(tmp_path, values), tmp_path, block_shape=block_shape, fraction=0.01))
    result = made.read(made.box)
    assert result.max() > values.max()
    np.testing.assert_array_equal(result, slow_clean(values, 0.01))


def test_a_thread_through_many_blocks_is_one_part(tmp_path):
    """It meets each next block only by a corner of a voxel."""
    values = np.zeros((20, 40, 40), "uint16")
    steps = np.arange(20)
    values[steps, 2 * steps, 2 * steps] = 5
    values[steps[:-1], 2 * steps[:-1] + 1, 2 * steps[:-1] + 1] = 5
    made, counts = done(clean(volume(tmp_path, values), tmp_path, block_shape=(5, 8, 8)))
    np.testing.assert_array_equal(made.read(made.box), values)
    assert counts["join_parts", "parts"] == 1


@pytest.mark.parametrize("dtype", ["uint8", "int64", "uint64"])
def test_every_integer_dtype_is_kept(tmp_path, dtype):
    values = (labels() % 250).astype(dtype)
    made, _ = done(clean(volume(tmp_path, values), tmp_path, fraction=1.0))
    assert made.dtype == values.dtype
    np.testing.assert_array_equal(made.read(made.box), slow_clean(values, 1.0))


def test_ids_of_64_bits_are_exact(tmp_path):
    values = labels(dtype="uint64") + np.uint64(2**62) * (labels() > 0)
    made, _ = done(clean(volume(tmp_path, values), tmp_path))
    np.testing.assert_array_equal(made.read(made.box), slow_clean(values))


def test_an_empty_volume_stays_empty(tmp_path):
    made, counts = done(clean(volume(tmp_path, np.zeros(SHAPE, "uint32")), tmp_path))
    assert not made.read(made.box).any() and counts["join_parts", "ids"] == 0


def tables_of(task):
    return {p: p.read_bytes() for p in (task.home / "tables").rglob("*.parquet")}


# -- the laws of blockwise tasks ----------------------------------------------------------


def test_blocks_done_again_on_workers_change_nothing(tmp_path):
    task = clean(volume(tmp_path, labels()), tmp_path, num_workers=2)
    last = task.steps()[-1]
    assert all(report.ok for report in run_steps(task.steps(), console=Console(quiet=True)))
    voxels, rows = stored_files(last), tables_of(task)
    with store_of(last) as store:
        store.database.blocks.delete_many({"index.0": 0})
    again = run_steps(task.steps(), console=Console(quiet=True))
    assert all(report.ok and report.blocks["computed"] > 0 for report in again)
    assert (stored_files(last), tables_of(task)) == (voxels, rows)
    assert len(rows) == 3 * 12 + 4  # parts, faces, links of every block; changes of every row
    made = Volume.open(task.output)
    np.testing.assert_array_equal(made.read(made.box), slow_clean(labels()))


def test_a_change_of_any_row_of_blocks_is_one_of_the_block_that_decides(tmp_path):
    """Its checksums decide whether blocks that read its tables are due again."""
    values = np.zeros(SHAPE, "uint8")
    values[:5, :5, :5], values[12:, :5, :2], values[12, 20:, 20:] = 7, 8, 9
    source = volume(tmp_path, values)
    find, join, _ = clean(source, tmp_path, block_shape=(5, 32, 48), min_size=100).steps()

    def decided():
        for step in (find, join):
            with step.open(RunContext()) as process:
                for block in step.grid().blocks():
                    process(block, report := BlockReport())
        return report.checksums

    before = decided()
    assert decided() == before
    values[10:12, :5, :2] = 8  # now large enough, in later rows than the first
    source.write(source.box, values)
    after = decided()
    assert after["changes"] == before["changes"] and after != before


# -- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"fraction": 1.5}, "'fraction'"), ({"min_size": 0}, "'min_size'"),
        ({"dtype": "float32"}, "'dtype'"),
    ],
)
def test_wrong_keys_are_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        clean(volume(tmp_path, labels()), tmp_path, **options)


@pytest.mark.parametrize(
    ("dtype", "options", "words"),
    [
        ("float32", {}, "holds float32"), ("uint32", {"dtype": "uint16"}, "may not fit"),
        ("uint32", {"mask": "in.zarr/labels"}, "'mask' cannot be used"),
        ("uint32", {"output": "in.zarr/labels"}, "lie in each other"),
        ("uint32", {"output": "in.zarr/labels/cleaned"}, "lie in each other"),
    ],
)
def test_a_clean_up_that_cannot_be_is_refused(tmp_path, dtype, options, words):
    options = {k: str(tmp_path / v) if k in ("mask", "output") else v for k, v in options.items()}
    task = clean(volume(tmp_path, labels(dtype=dtype)), tmp_path, **options)
    with pytest.raises(ConfigError, match=words):
        check_all(task)


def test_new_ids_that_do_not_fit_are_an_error_that_says_what_to_do(tmp_path):
    values = np.zeros(SHAPE, "uint8")
    values[:, :10], values[:, 20:] = 255, 255
    source = volume(tmp_path, values)
    with pytest.raises(ConfigError, match=r"new ids up to 256.*'dtype' to \"uint64\""):
        done(clean(source, tmp_path))
    made, _ = done(clean(source, tmp_path, "b", dtype="uint16"))
    assert np.unique(made.read(made.box)).tolist() == [0, 255, 256]


def test_ids_beyond_63_bits_are_an_error(tmp_path):
    values = np.full((4, 4, 4), 2**63, "uint64")
    with pytest.raises(ConfigError, match=r"id 9223372036854775808 at voxel \(0, 0, 0\).*below 2\^63"):
        done(clean(volume(tmp_path, values), tmp_path))


@pytest.mark.parametrize("dtype", ["int8", "int32", "int64"])
def test_negative_ids_are_found_before_any_block_starts(tmp_path, dtype):
    values = labels(dtype="int16").clip(0, 9).astype(dtype)
    values[19, 30, 44] = -1  # in the last chunk
    find = clean(volume(tmp_path, values), tmp_path).steps()[0]
    with pytest.raises(ConfigError, match=r"labels holds the id -1 at voxel \(19, 30, 44\) \(zyx\)"):
        find.check()


def test_a_negative_id_that_the_sample_misses_is_found_in_its_block(tmp_path):
    values = labels().astype("int32")
    values[8, 8, 9] = -5  # the second chunk along z, y and x
    source = volume(tmp_path, values)
    find = clean(source, tmp_path).steps()[0]
    find.check()
    with pytest.raises(ConfigError, match=r"holds the id -5 at voxel \(8, 8, 9\)"):
        done(clean(source, tmp_path))


def test_tables_that_do_not_fit_together_are_noticed(tmp_path):
    """As when the labels change while their parts are found."""
    task = clean(volume(tmp_path, labels()), tmp_path)
    done(task)
    find, join, _ = task.steps()
    changed = BlockTables(f"{find.output}/faces")
    changed.write("0/0/1", {"part": np.array([1]), "voxel": np.array([1])})
    with join.open(RunContext()) as process, pytest.raises(VolumeError, match="do not fit together"):
        process(join.grid().block((0, 0, 0)), BlockReport())


def test_labels_that_change_between_the_steps_are_noticed(tmp_path):
    source = volume(tmp_path, labels())
    task = clean(source, tmp_path)
    done(task)
    last = task.steps()[-1]
    source.write(source.box, labels(seed=9))
    with last.open(RunContext()) as process, pytest.raises(VolumeError, match="have changed"):
        process(last.grid().block((0, 0, 0)), BlockReport())
