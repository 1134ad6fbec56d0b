"""Volumes in an object store: a real S3 server, over HTTP on loopback."""


import boto3
import numpy as np
import pytest

from em_blocks.errors import BlockAlignmentError, VolumeError
from em_blocks.geometry import Box, Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.formats.storage import detect
from em_blocks.volumes.stores import store

FRAME = Frame((50, 4.6, 4.6), (-150, 46, 92))
SHAPE = (20, 33, 40)


def random_values(*shape):
    return np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)


def make(path, **options):
    options = {"shape": SHAPE, "chunk_shape": (8, 8, 16), "frame": FRAME, **options}
    return Volume.create(path, dtype="uint8", **options)


@pytest.mark.parametrize("format", ["zarr", "zarr3", "n5", "precomputed"])
@pytest.mark.parametrize("channels", [None, 3])
def test_a_volume_in_a_bucket_is_like_one_on_disk(bucket, format, channels):
    path = f"{bucket}/brain.zarr/volumes/raw"
    values = random_values(*(() if channels is None else (channels,)), *SHAPE)
    volume = make(path, format=format, channels=channels, attributes={"scale": 255.0})
    volume.write(Box((0, 0, 0), (16, 33, 40)), values[..., :16, :, :])
    volume.write(Box((16, 0, 0), (4, 33, 40)), values[..., 16:, :, :])
    volume.set_attributes(fingerprint="f")

    again = Volume.open(path)
    assert (again.frame, again.channels, again.scale) == (FRAME, channels, 255.0)
    assert again.attributes["fingerprint"] == "f"
    np.testing.assert_array_equal(again.read(again.box), values)
    box = Box((-3, 30, 5), (10, 9, 9))
    np.testing.assert_array_equal(
        again.read(box, outside="reflect")[..., 3:, :3, :], values[..., :7, 30:, 5:14]
    )


def test_shards_in_a_bucket_are_the_unit_of_writing(bucket):
    path = f"{bucket}/brain.zarr/raw"
    volume = make(path, format="zarr3", chunk_shape=(4, 4, 4), shard_shape=(8, 8, 16))
    with pytest.raises(BlockAlignmentError):
        volume.write(Box((0, 0, 0), (4, 4, 4)), random_values(4, 4, 4))
    volume.write(volume.box, random_values(*SHAPE))
    np.testing.assert_array_equal(Volume.open(path).read(volume.box), random_values(*SHAPE))


def test_a_missing_volume_in_a_bucket_is_an_error(bucket):
    with pytest.raises(VolumeError, match=f"no volume at {bucket}/none"):
        Volume.open(f"{bucket}/none")


def test_an_existing_volume_in_a_bucket_is_not_overwritten(bucket):
    make(f"{bucket}/brain.zarr/raw")
    with pytest.raises(VolumeError, match="exists already"):
        make(f"{bucket}/brain.zarr/raw")
    with pytest.raises(VolumeError, match="exists already"):
        make(f"{bucket}/brain.zarr")


def test_a_damaged_chunk_in_a_bucket_is_an_error_with_its_key(bucket):
    volume = make(f"{bucket}/brain.zarr/raw")
    volume.write(volume.box, random_values(*SHAPE))
    client = boto3.client("s3")
    client.put_object(Bucket=bucket.removeprefix("s3://"), Key="brain.zarr/raw/1/2/0", Body=b"x")
    client.close()
    with pytest.raises(VolumeError, match=r"brain\.zarr/raw/1/2/0"):
        volume.read(volume.box)


def test_deleting_a_volume_leaves_its_neighbours(bucket):
    for name in ("raw", "raw2"):
        volume = make(f"{bucket}/brain.zarr/{name}")
        volume.write(volume.box, random_values(*SHAPE))
    store.delete_folder(f"{bucket}/brain.zarr/raw")
    assert detect(f"{bucket}/brain.zarr/raw") is None
    np.testing.assert_array_equal(
        Volume.open(f"{bucket}/brain.zarr/raw2").read(volume.box), random_values(*SHAPE)
    )


def test_a_bucket_that_does_not_exist_is_an_error(bucket):
    with pytest.raises(VolumeError, match=r"s3://no-such-bucket/x.zarr.*NoSuchBucket"):
        make("s3://no-such-bucket/x.zarr/raw")


def test_a_server_that_does_not_answer_is_an_error(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setitem(store._S3_RETRIES, "max_retries", 1)
    with pytest.raises(VolumeError, match=r"brain\.zarr/raw.*[Cc]ould not connect"):
        Volume.open(f"{bucket}/brain.zarr/raw")
