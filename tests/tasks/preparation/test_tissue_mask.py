"""Tissue masks on blocks: no seam, holes and pieces are those of the whole volume."""

import numpy as np
import pytest
from rich.console import Console
from scipy import ndimage

from blockwise import store_of, stored_files
from em_blocks.errors import ConfigError
from em_blocks.kernels.images.tissue import tissue
from em_blocks.runtime.scheduler.run import run_steps
from em_blocks.tasks.preparation.tissue_mask import TissueMask
from em_blocks.volumes import Volume
from preparing import FRAME, checked, done, volume, voxels

SHAPE = (12, 40, 52)
MIN_SIZE = 300


def image(seed=0):
    """Grey values with a large piece of tissue, small ones, and holes of many sizes."""
    rng = np.random.default_rng(seed)
    rough, fine = (ndimage.gaussian_filter(rng.random(SHAPE), s, mode="nearest") for s in (4, 1.5))
    values = (rough - rough.mean()) / rough.std() + (fine - fine.mean()) / fine.std()
    return (values * 35 + 115).clip(0, 255).astype("uint8")


def masking(source, folder, name="a", **options):
    return TissueMask.from_dict({
        "kind": "tissue_mask", "run": "tissue", "raw": source.path, "grey_range": [110, 200],
        "opening": [1, 2, 2], "closing": [1, 1, 1], "min_size": MIN_SIZE, "chunk_shape": [4, 8, 8],
        "output": str(folder / name / "out.zarr/mask"), "block_shape": [4, 16, 16], **options,
    })


def whole(values, grey_range=(110, 200), opening=(1, 2, 2), closing=(1, 1, 1), min_size=MIN_SIZE):
    """In one piece, by scipy; and how many holes were filled and pieces removed."""
    found = tissue(values, *grey_range, opening=opening, closing=closing)
    holes, n = ndimage.label(~found)
    small = np.flatnonzero(np.bincount(holes.ravel(), minlength=n + 1)[1:] < min_size) + 1
    found |= np.isin(holes, small)
    pieces, n = ndimage.label(found, structure=np.ones((3, 3, 3)))
    specks = np.flatnonzero(np.bincount(pieces.ravel(), minlength=n + 1)[1:] < min_size) + 1
    return found & ~np.isin(pieces, specks), (len(small), len(specks))


@pytest.mark.parametrize("seed", range(3))
def test_no_voxel_depends_on_the_blocks(tmp_path, seed):
    source = volume(tmp_path, image(seed))
    expected, changed = whole(image(seed))
    assert min(changed) > 0 and 0.1 < expected.mean() < 0.9
    for n, block_shape in enumerate([(4, 8, 8), (4, 16, 56), (12, 40, 56)]):
        made, _ = done(masking(source, tmp_path, f"b{n}", block_shape=block_shape))
        np.testing.assert_array_equal(voxels(made), expected)
    assert made.frame == FRAME and made.dtype == np.uint8


@pytest.mark.parametrize(
    "options",
    [{"min_size": 1}, {"min_size": 10**6}, {"opening": (0, 0, 0), "closing": (0, 0, 0)},
     {"opening": (0, 3, 3)}, {"grey_range": (-1, 90)}],
)
def test_every_key_decides_as_in_the_whole_volume(tmp_path, options):
    made, _ = done(masking(volume(tmp_path, image()), tmp_path, **options))
    np.testing.assert_array_equal(voxels(made), whole(image(), **options)[0])


def test_a_hole_that_holds_less_than_a_piece_after_filling_is_part_of_it(tmp_path):
    """A shell of fewer voxels than `min_size`, which has more with what it encloses."""
    values = np.zeros(SHAPE, "uint8")
    values[2:10, 10:18, 20:28], values[3:9, 11:17, 21:27] = 150, 0
    assert (values > 0).sum() < MIN_SIZE < 8**3
    plain = {"opening": (0, 0, 0), "closing": (0, 0, 0)}
    made, _ = done(masking(volume(tmp_path, values), tmp_path, **plain))
    assert voxels(made).sum() == 8**3


def test_voxels_of_a_hole_are_joined_by_faces_only(tmp_path):
    """The hole meets the outside at an edge, across the border of blocks; it still is filled."""
    values = np.full(SHAPE, 150, "uint8")
    values[:, :, 32:] = 0
    values[2:4, 15, 31], values[4:6, 16, 31] = 0, 0
    values[2:6, 15:17, 32] = 150
    plain = {"opening": (0, 0, 0), "closing": (0, 0, 0), "min_size": 50}
    made, _ = done(masking(volume(tmp_path, values), tmp_path, **plain))
    np.testing.assert_array_equal(voxels(made), whole(values, **plain)[0])
    assert voxels(made)[2:6, 15:17, 31].all()


def test_the_mask_is_that_of_other_tasks(tmp_path):
    from em_blocks.tasks.preparation.equalize import Equalize

    source = volume(tmp_path, image())
    made, _ = done(masking(source, tmp_path))
    task = Equalize.from_dict({
        "kind": "equalize", "run": "e", "raw": source.path, "mask": made.path,
        "kernel_shape": [4, 16, 16], "output": str(tmp_path / "e/out.zarr/e"),
        "chunk_shape": [4, 8, 8], "block_shape": [4, 16, 16],
    })
    equalized, counts = done(task)
    assert counts["counted_voxels"] == voxels(made).sum()
    outside = voxels(made) == 0
    np.testing.assert_array_equal(voxels(equalized)[outside], image()[outside])


def test_blocks_done_again_on_workers_change_nothing(tmp_path):
    task = masking(volume(tmp_path, image()), tmp_path, num_workers=2, block_shape=[4, 40, 56])
    last = task.steps()[-1]
    assert all(report.ok for report in run_steps(task.steps(), console=Console(quiet=True)))
    before = stored_files(last)
    with store_of(last) as store:
        store.database.blocks.delete_many({"index.0": 0})
    again = run_steps(task.steps(), console=Console(quiet=True))
    assert all(report.ok and report.blocks["computed"] > 0 for report in again)
    assert stored_files(last) == before
    np.testing.assert_array_equal(voxels(Volume.open(task.output)), whole(image())[0])


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"grey_range": [180, 2]}, "first value of a range"), ({"min_size": 0}, "'min_size'"),
        ({"opening": [29, 30, 23]}, "least common multiple"), ({"closing": [-1, 2, 2]}, "'closing"),
        ({"mask": "m.zarr/m"}, "would cut holes"),
    ],
)
def test_wrong_keys_are_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        masking(volume(tmp_path, image()), tmp_path, **options)


def test_labels_are_no_image(tmp_path):
    source = volume(tmp_path, image().astype("uint64"))
    with pytest.raises(ConfigError, match="look like ids"):
        checked(masking(source, tmp_path))
