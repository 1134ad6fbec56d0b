"""Pyramids: the same voxels for every block grid, in the right place of the world."""

import itertools
import json

import numpy as np
import pytest
import tensorstore as ts
import zarr

from blockwise import assert_one_block_equals_many, assert_retry_equals_once, run
from em_blocks.errors import BlockAlignmentError, ConfigError, VolumeError
from em_blocks.geometry import Box, Frame
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.volumes.downsample import Downsample
from em_blocks.volumes import Volume
from em_blocks.volumes.downsample import downsample
from em_blocks.volumes.metadata import Group, Stored, resolve

SIZE = (40.0, 4.6, 4.6)
FRAME = Frame(SIZE, (400.0, 46.0, 9.2))  # an offset of 10, 10 and 2 voxels
SHAPE = (21, 35, 43)


def labels(shape=SHAPE, dtype="uint64", seed=0):
    """Blobs of a few ids, some of them beyond 2^32."""
    coarse = np.random.default_rng(seed).integers(0, 5, [-(-n // 3) for n in shape])
    fine = np.kron(coarse, np.ones((3, 3, 3), int))[tuple(slice(n) for n in shape)]
    return (fine * (2**33 if np.dtype(dtype).itemsize == 8 else 3)).astype(dtype)


def volume(folder, values, frame=FRAME, path="in.zarr/labels", **options):
    lead = values.shape[:-3]
    made = Volume.create(
        str(folder / path), shape=values.shape[-3:], dtype=values.dtype, frame=frame,
        chunk_shape=(8, 8, 8), channels=lead[0] if lead else None, **options,
    )
    made.write(made.box, values)
    return made


def pyramid(source, folder, name="a", **options):
    values = {
        "kind": "downsample", "run": "pyramid", "input": source.path, "levels": 2,
        "output": str(folder / name / "out.zarr/pyramid"), "method": "mode",
        "chunk_shape": [4, 8, 8], "block_shape": [8, 8, 16], **options,
    }
    return Downsample.from_dict(values)


def done(task):
    """Every level, without database and workers; the volumes that come out."""
    made = []
    for step in task.steps():
        step.check()
        step.check_alignment()
        (spec,) = step.output_specs()
        spec.check(step.grid())
        spec.create(step.grid(), "fingerprint")
        with step.open(RunContext()) as process:
            for block in step.grid().blocks():
                process(block, BlockReport())
        made.append(Volume.open(spec.path))
    task.publish()
    return made


def whole(volume):
    return volume.read(volume.box)


# -- what comes out ---------------------------------------------------------------------


@pytest.mark.parametrize("factors", [(1, 2, 2), (2, 2, 2), (1, 3, 5)])
@pytest.mark.parametrize("method", ["mode", "mean"])
def test_a_level_is_the_one_below_downsampled(tmp_path, factors, method):
    source = volume(tmp_path, labels(dtype="uint16"))
    task = pyramid(source, tmp_path, factors=[factors] * 2, method=method, levels=None)
    s0, s1, s2 = done(task)
    np.testing.assert_array_equal(whole(s0), whole(source))
    np.testing.assert_array_equal(whole(s1), downsample(whole(s0), factors, method))
    np.testing.assert_array_equal(whole(s2), downsample(whole(s1), factors, method))
    for n, level in enumerate((s0, s1, s2)):
        assert level.frame.offset == FRAME.offset
        assert level.frame.voxel_size == pytest.approx(np.multiply(SIZE, np.power(factors, n)))


def test_levels_go_towards_isotropic_voxels_until_one_is_one_chunk(tmp_path):
    source = volume(tmp_path, labels((20, 160, 160)))
    task = pyramid(source, tmp_path, levels=None, chunk_shape=[8, 16, 16], block_shape=None)
    shapes = [level.shape for level in done(task)]
    assert shapes == [(20, 160, 160), (20, 80, 80), (20, 40, 40), (20, 20, 20), (10, 10, 10), (5, 5, 5)]


@pytest.mark.parametrize("format", ["zarr", "zarr3", "precomputed"])
def test_no_voxel_depends_on_the_block_grid(tmp_path, format):
    source = volume(tmp_path, labels())

    def make(block_shape, name):
        suffix = "" if format == "precomputed" else ".zarr"
        return pyramid(source, tmp_path, name, format=format, factors=[[2, 2, 3]], levels=None,
                       output=str(tmp_path / name / f"out{suffix}"), block_shape=block_shape)

    assert_one_block_equals_many(make, [(4, 8, 8), (8, 24, 8)], whole=(12, 24, 24))


def test_doing_a_block_again_changes_nothing(tmp_path):
    source = volume(tmp_path, labels())
    first, second = (pyramid(source, tmp_path, name, levels=1) for name in "ab")
    assert_retry_equals_once(first, second)


def test_channels_and_the_scale_of_a_prediction_are_kept(tmp_path):
    values = np.random.default_rng(1).integers(0, 255, (3, 8, 16, 16), dtype=np.uint8)
    source = volume(tmp_path, values, attributes={"scale": 255.0})
    _, s1, _ = done(pyramid(source, tmp_path, method="mean"))
    assert (s1.channels, s1.scale) == (3, 255.0)
    np.testing.assert_array_equal(whole(s1), downsample(values, (1, 2, 2), "mean"))
    axes = json.loads((tmp_path / "a/out.zarr/pyramid/.zattrs").read_text())["multiscales"][0]["axes"]
    assert [axis["name"] for axis in axes] == ["c", "z", "y", "x"]


# -- the layout that viewers find --------------------------------------------------------


@pytest.mark.parametrize("format", ["zarr", "zarr3"])
def test_ngff_metadata_and_arrays_say_the_same_place(tmp_path, format):
    levels = done(pyramid(volume(tmp_path, labels()), tmp_path, format=format))
    name = ".zattrs" if format == "zarr" else "zarr.json"
    attributes = json.loads((tmp_path / "a/out.zarr/pyramid" / name).read_text())
    group = attributes if format == "zarr" else attributes["attributes"]["ome"]
    (multiscale,) = group["multiscales"]
    version = multiscale["version"] if format == "zarr" else group["version"]
    assert version == {"zarr": "0.4", "zarr3": "0.5"}[format]
    assert [axis["unit"] for axis in multiscale["axes"]] == ["nanometer"] * 3
    assert [d["path"] for d in multiscale["datasets"]] == ["s0", "s1", "s2"]
    for level, dataset in zip(levels, multiscale["datasets"], strict=True):
        scale, translation = dataset["coordinateTransformations"]
        assert scale["scale"] == list(level.frame.voxel_size)
        # The centre of the first voxel.
        assert translation["translation"] == pytest.approx(
            np.add(level.frame.offset, np.divide(level.frame.voxel_size, 2)))
        read = resolve(
            Stored("test", level.shape, {}, [Group("x.zarr", dataset["path"], group)])
        ).frame
        assert read.offset == pytest.approx(level.frame.offset)


def test_zarr_python_walks_through_the_pyramid(tmp_path):
    levels = done(pyramid(volume(tmp_path, labels()), tmp_path))
    group = zarr.open(str(tmp_path / "a/out.zarr"), mode="r")["pyramid"]
    for dataset, level in zip(group.attrs["multiscales"][0]["datasets"], levels, strict=True):
        np.testing.assert_array_equal(group[dataset["path"]][:], whole(level))


@pytest.mark.parametrize("format", ["zarr", "precomputed"])
def test_a_full_resolution_in_the_group_is_not_copied(tmp_path, format):
    name = "brain" if format == "precomputed" else "brain.zarr"
    source = volume(tmp_path, labels(), path=f"{name}/seg/s0", format=format)
    before = sorted((tmp_path / f"{name}/seg/s0").rglob("*"))
    s1, s2 = done(pyramid(source, tmp_path, output=str(tmp_path / f"{name}/seg"), format=format))
    assert sorted((tmp_path / f"{name}/seg/s0").rglob("*")) == before
    assert (s1.path, s2.path) == tuple(str(tmp_path / f"{name}/seg/s{n}") for n in (1, 2))


def test_a_precomputed_volume_takes_up_further_scales(tmp_path):
    source = volume(tmp_path, labels(), path="pc", format="precomputed")
    s1, _ = done(pyramid(source, tmp_path, output=source.path, format="precomputed"))
    info = json.loads((tmp_path / "pc/info").read_text())
    assert [scale["key"] for scale in info["scales"]] == ["s0", "s1", "s2"]
    assert info["type"] == "segmentation"
    assert {scale["encoding"] for scale in info["scales"]} == {"compressed_segmentation"}
    np.testing.assert_array_equal(whole(Volume.open(source.path)), labels())
    plain = ts.open({"driver": "neuroglancer_precomputed", "scale_index": 1,
                     "kvstore": {"driver": "file", "path": source.path + "/"}}).result()
    np.testing.assert_array_equal(plain[..., 0].read().result().T, whole(s1))


@pytest.mark.parametrize(("dtype", "method", "type"), [("uint32", "mode", "segmentation"),
                                                       ("uint16", "mode", "segmentation"),
                                                       ("uint8", "mean", "image")])
def test_precomputed_tells_labels_from_images(tmp_path, dtype, method, type):
    source = volume(tmp_path, labels(dtype=dtype))
    done(pyramid(source, tmp_path, output=str(tmp_path / "pc"), format="precomputed", method=method))
    assert json.loads((tmp_path / "pc/info").read_text())["type"] == type


@pytest.mark.parametrize("offset", [(10, 10, 2), (7, 9, 5), (0, 0, 0), (-3, -1, 2)])
def test_in_precomputed_windows_lie_on_the_grid_of_the_world(tmp_path, offset):
    """The offset stays a whole number of voxels, and each voxel covers what it says."""
    source = volume(tmp_path, labels(), Frame(SIZE, tuple(np.multiply(offset, SIZE))))
    levels = done(pyramid(source, tmp_path, format="precomputed", output=str(tmp_path / "pc"),
                          factors=[[2, 2, 2], [1, 3, 2]], levels=None))
    for below, level in itertools.pairwise(levels):
        values, fine = whole(level), whole(below)
        for index in np.ndindex(values.shape):
            seen = below.frame.to_box(level.frame.to_roi(Box(index, (1, 1, 1))))
            ids, counts = np.unique(fine[seen.intersect(below.box).slices], return_counts=True)
            assert values[index] == ids[counts.argmax()]


def test_precomputed_refuses_an_offset_of_part_of_a_voxel(tmp_path):
    source = volume(tmp_path, labels(), Frame(SIZE, (10.0, 0.0, 0.0)))
    with pytest.raises(VolumeError, match="Choose an offset on the voxel grid"):
        done(pyramid(source, tmp_path, format="precomputed", output=str(tmp_path / "pc")))


# -- what is refused ---------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dtype", "options", "words"),
    [
        ("float32", {}, "holds float32"),
        ("uint64", {"method": "mean"}, "the id of a third object"),
        ("uint8", {"levels": None, "chunk_shape": [64] * 3}, "fits in one chunk"),
        ("uint8", {"level": 3}, "the levels 0 to 2 are made"),
    ],
)
def test_a_pyramid_that_makes_no_sense_is_refused(tmp_path, dtype, options, words):
    task = pyramid(volume(tmp_path, labels(dtype=dtype)), tmp_path, **options)
    with pytest.raises(ConfigError, match=words):
        run(task)
    assert not (tmp_path / "a").exists()


def test_levels_inside_of_an_array_are_refused(tmp_path):
    source = volume(tmp_path, labels())
    with pytest.raises(ConfigError, match="lies in the input 'input'"):
        run(pyramid(source, tmp_path, output=f"{source.path}/pyramid"))


def test_a_block_that_cuts_chunks_is_refused(tmp_path):
    with pytest.raises(BlockAlignmentError):
        run(pyramid(volume(tmp_path, labels()), tmp_path, block_shape=[8, 12, 16]))


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"factors": [[0, 2, 2]]}, "'factors"), ({"factors": [[2, 2]]}, "'factors"),
        ({"factors": [[1.5, 2, 2]]}, "'factors"), ({"factors": []}, "'factors"),
        ({"factors": [[1, 1, 1]] * 2}, "no coarser level"), ({"factors": [[2, 2, 2]]}, "names 1"),
        ({"levels": 0}, "'levels"), ({"method": "median"}, "'method"), ({"format": "n5"}, "'format"),
    ],
)
def test_wrong_keys_are_refused(tmp_path, options, words):
    with pytest.raises(ConfigError, match=words):
        pyramid(volume(tmp_path, labels()), tmp_path, **options)
