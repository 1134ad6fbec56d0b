"""Precomputed volumes of several scales, which share one info file."""

import json

import numpy as np
import pytest
import tensorstore as ts

from em_blocks.errors import VolumeError
from em_blocks.geometry import Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import detect
from em_blocks.volumes.stores import store

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))


def make(path, factor=1, dtype="uint32", labels=True, seed=0):
    frame = Frame([v * factor for v in FRAME.voxel_size], [0.0, 0.0, 9.2 * factor])
    volume = Volume.create(
        str(path), shape=(12, 18, 21), dtype=dtype, frame=frame, chunk_shape=(8, 8, 8),
        format="precomputed", attributes={"labels": labels, "factor": factor},
    )
    volume.write(volume.box, np.random.default_rng(seed).integers(0, 5, volume.shape).astype(dtype))
    return volume


def keys(folder):
    return [scale["key"] for scale in json.loads((folder / "info").read_text())["scales"]]


def whole(path):
    volume = Volume.open(str(path))
    return volume.read(volume.box)


def test_every_scale_has_voxels_a_place_and_attributes_of_its_own(tmp_path):
    for n in range(3):
        make(tmp_path / f"seg/s{n}", factor=2**n, seed=n)
    assert keys(tmp_path / "seg") == ["s0", "s1", "s2"]
    for n in range(3):
        volume = Volume.open(str(tmp_path / f"seg/s{n}"))
        np.testing.assert_array_equal(
            whole(volume.path), np.random.default_rng(n).integers(0, 5, volume.shape))
        assert volume.frame.voxel_size == pytest.approx([v * 2**n for v in FRAME.voxel_size])
        assert volume.frame.offset == pytest.approx((0, 0, 9.2 * 2**n))
        assert volume.attributes["factor"] == 2**n


def test_the_folder_is_its_first_scale(tmp_path):
    make(tmp_path / "seg/s0")
    make(tmp_path / "seg/s1", factor=2, seed=1)
    np.testing.assert_array_equal(whole(tmp_path / "seg"), whole(tmp_path / "seg/s0"))


def test_a_volume_made_as_a_whole_takes_up_scales(tmp_path):
    make(tmp_path / "seg")
    make(tmp_path / "seg/s1", factor=2, seed=1)
    assert keys(tmp_path / "seg") == ["s0", "s1"]
    assert detect(str(tmp_path / "seg/s0")) is None  # it is the volume itself


@pytest.mark.parametrize(("dtype", "labels", "type", "encoding"), [
    ("uint32", True, "segmentation", "compressed_segmentation"),
    ("uint64", True, "segmentation", "compressed_segmentation"),
    ("uint8", True, "segmentation", "raw"),
    ("uint32", False, "image", "raw"),
])
def test_labels_are_compressed_and_shown_in_colours(tmp_path, dtype, labels, type, encoding):
    make(tmp_path / "x/s0", dtype=dtype, labels=labels)
    info = json.loads((tmp_path / "x/info").read_text())
    assert (info["type"], info["scales"][0]["encoding"]) == (type, encoding)


@pytest.mark.parametrize("made", ["seg", "seg/s0"])
@pytest.mark.parametrize("written", [True, False])
def test_a_scale_is_not_made_twice(tmp_path, made, written):
    make(tmp_path / made)
    if not written:
        for chunk in (tmp_path / "seg/s0").glob("*-*"):
            chunk.unlink()
    with pytest.raises(VolumeError, match="exists already"):
        make(tmp_path / "seg/s0")


def test_a_scale_of_another_program_is_not_overwritten(tmp_path):
    make(tmp_path / "seg/s0")
    (tmp_path / "seg/s0/em_blocks.json").unlink()
    with pytest.raises(VolumeError, match="exists already"):
        make(tmp_path / "seg/s0")


def test_a_deleted_scale_is_made_anew_and_the_others_stay(tmp_path):
    make(tmp_path / "seg/s0")
    make(tmp_path / "seg/s1", factor=2)
    store.delete_folder(str(tmp_path / "seg/s1"))
    assert detect(str(tmp_path / "seg/s1")) is None
    made = make(tmp_path / "seg/s1", factor=3, seed=5)
    assert made.frame.voxel_size[0] == 120 and keys(tmp_path / "seg") == ["s0", "s1"]
    assert whole(tmp_path / "seg/s0").any()


def test_the_only_scale_can_be_made_anew(tmp_path):
    make(tmp_path / "seg/s0")
    store.delete_folder(str(tmp_path / "seg/s0"))
    make(tmp_path / "seg/s0", dtype="uint64", factor=2)
    assert Volume.open(str(tmp_path / "seg/s0")).dtype == np.uint64


def test_a_scale_killed_before_its_info_was_written_is_made_anew(tmp_path):
    make(tmp_path / "seg/s0")
    store.write_json(str(tmp_path / "seg/s1"), "em_blocks.json", {})
    assert detect(str(tmp_path / "seg/s1")) is None
    make(tmp_path / "seg/s1", factor=2)
    assert keys(tmp_path / "seg") == ["s0", "s1"]


def test_tensorstore_alone_reads_every_scale(tmp_path):
    for n in range(2):
        make(tmp_path / f"seg/s{n}", factor=2**n, seed=n)
    for n in range(2):
        array = ts.open({"driver": "neuroglancer_precomputed", "scale_index": n,
                         "kvstore": {"driver": "file", "path": f"{tmp_path}/seg/"}}).result()
        assert array.domain.origin[:3] == (2, 0, 0)  # x, y, z in voxels of this scale
        np.testing.assert_array_equal(array[..., 0].read().result().T, whole(tmp_path / f"seg/s{n}"))
