"""OME-NGFF multiscales of zarr groups, here and in a bucket."""

import pytest

from em_blocks.geometry import Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.metadata import Group, Stored, resolve
from em_blocks.volumes.multiscale import level_path, ngff_multiscale, write_multiscales
from em_blocks.volumes.stores import store

FRAMES = {
    "s0": Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2)),
    "s1": Frame((40.0, 9.2, 9.2), (400.0, 46.0, -9.2)),
}


@pytest.mark.parametrize("channels", [False, True])
def test_what_is_written_is_what_is_read(channels):
    group = {"multiscales": [ngff_multiscale("seg", FRAMES, channels=channels)]}
    for name, frame in FRAMES.items():
        shape = (2, 8, 8, 8) if channels else (8, 8, 8)
        read = resolve(Stored("test", shape, {}, [Group("x.zarr", name, group)])).frame
        assert read.voxel_size == frame.voxel_size
        assert read.offset == pytest.approx(frame.offset)


def test_centres_of_coarser_voxels_lie_further_inside():
    fine, coarse = (d["coordinateTransformations"][1]["translation"]
                    for d in ngff_multiscale("seg", FRAMES, channels=False)["datasets"])
    assert fine == pytest.approx([420.0, 48.3, -6.9])
    assert coarse == pytest.approx([420.0, 50.6, -4.6])


@pytest.mark.parametrize(("format", "marker"), [("zarr", ".zattrs"), ("zarr3", "zarr.json")])
def test_a_group_in_a_bucket(bucket, format, marker):
    group = f"{bucket}/brain.zarr/seg"
    levels = [
        Volume.create(level_path(group, n), shape=(4, 8, 8), dtype="uint8", frame=frame,
                      chunk_shape=(4, 4, 4), format=format)
        for n, frame in enumerate(FRAMES.values())
    ]
    write_multiscales(group, format, levels)
    write_multiscales(group, format, levels)  # again: the same
    values = store.read_json(group, marker)
    found = values["attributes"]["ome"] if format == "zarr3" else values
    (multiscale,) = found["multiscales"]
    assert multiscale["name"] == "seg"
    assert [d["path"] for d in multiscale["datasets"]] == ["s0", "s1"]
    if format == "zarr3":
        assert values["node_type"] == "group"
    assert [Volume.open(level.path).frame for level in levels] == list(FRAMES.values())


def test_an_array_that_says_nothing_itself_is_placed_by_its_group(tmp_path):
    """As other programs write pyramids."""
    import zarr

    group = zarr.open_group(str(tmp_path / "x.zarr"), mode="w")
    group.create_dataset("s1", shape=(4, 8, 8), chunks=(4, 4, 4), dtype="u1")
    group.attrs["multiscales"] = [ngff_multiscale("x", FRAMES, channels=False)]
    assert Volume.open(str(tmp_path / "x.zarr/s1")).frame.offset == pytest.approx((400.0, 46.0, -9.2))
