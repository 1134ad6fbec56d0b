"""One place, however it is spelled."""

import os

import numpy as np
import pytest

from em_blocks.config import is_url, resolve_path
from em_blocks.errors import ConfigError
from em_blocks.geometry import Frame
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.apart import check_apart, paths_in
from em_blocks.volumes.stores.places import canonical, overlap, same_place, within

ENDPOINT = "http://store.example:9000"


@pytest.fixture
def raw(tmp_path):
    path = tmp_path / "data.zarr/raw"
    volume = Volume.create(str(path), shape=(4, 6, 6), dtype="uint8", chunk_shape=(4, 3, 3),
                           frame=Frame((40.0, 4.6, 4.6), (80.0, 0.0, 9.2)))
    volume.write(volume.box, np.arange(144, dtype="u1").reshape(4, 6, 6))
    return path


def spellings(raw):
    """The same array by other ways."""
    link = raw.parents[1] / "scratch.zarr"
    link.symlink_to("data.zarr")
    (raw.parents[1] / "array").symlink_to(raw)
    copy = raw.parents[1] / "copy/raw"
    copy.mkdir(parents=True)
    os.link(raw / ".zarray", copy / ".zarray")
    return [
        f"{raw}/", f"{raw.parent}/../data.zarr/raw", f"{raw.parent}/./raw", f"file://{raw}",
        f"file://localhost{raw}/", f"FILE://{raw}", str(link / "raw"), str(raw.parents[1] / "array"),
        os.path.relpath(raw), str(copy),
    ]


def test_every_way_to_a_local_array_is_the_same_place(raw):
    for spelling in spellings(raw):
        assert same_place(spelling, raw) and same_place(raw, spelling), spelling
        assert within(f"{spelling}/0/0", raw) or "copy" in spelling, spelling
        assert not within(raw.parent, spelling), spelling


def test_a_link_to_an_array_that_is_no_longer_there_is_the_same_place(raw):
    link = raw.parent / "link"
    link.symlink_to(raw.parent / "gone")
    assert same_place(link, raw.parent / "gone") and not same_place(link, raw)


def test_names_that_begin_alike_are_two_places(raw):
    assert not overlap(f"{raw}_2", raw)
    assert not overlap(raw.parent / "ra", raw)
    assert within(raw, raw.parent) and not within(raw.parent, raw)
    assert within(raw, "/") and overlap(raw.parent, raw)


def test_what_the_chunk_folders_of_an_array_are_linked_to_lies_in_it(raw, tmp_path):
    elsewhere = tmp_path / "disk2/chunks"
    elsewhere.parent.mkdir()
    (raw / "0").rename(elsewhere)
    (raw / "0").symlink_to(elsewhere)
    assert within(elsewhere / "0/0", raw) and overlap(raw, elsewhere)
    assert not overlap(raw, elsewhere.parent / "other")


@pytest.mark.parametrize("spelling", [
    "s3://em/fly.zarr/raw/", "S3://em/fly.zarr/raw", "s3://em/fly.zarr/x/../raw",
    "https://em.s3.amazonaws.com/fly.zarr/raw", "https://s3.amazonaws.com/em/fly.zarr/raw/",
    "https://em.s3.us-west-2.amazonaws.com/fly.zarr/raw", "https://s3.eu-central-1.amazonaws.com/em/fly.zarr/raw",
    "https://em.s3-us-west-2.amazonaws.com/fly.zarr/raw", "http://EM.S3.amazonaws.com:80/fly.zarr/raw",
    "https://s3.dualstack.us-east-1.amazonaws.com/em/fly.zarr/raw",
    "https://em.s3.us-gov-west-1.amazonaws.com/fly.zarr/%72aw",
])
def test_every_address_of_a_bucket_is_one_place(monkeypatch, spelling):
    monkeypatch.delenv("AWS_ENDPOINT_URL", raising=False)
    assert canonical(spelling) == "https://s3.amazonaws.com/em/fly.zarr/raw"
    assert within(spelling, "s3://em/fly.zarr") and not within("s3://em/fly.zarr", spelling)
    assert not overlap(spelling, "s3://em/fly.zarr/raw2")


@pytest.mark.parametrize("spelling", [
    "gs://em/raw", "https://storage.googleapis.com/em/raw/", "https://em.storage.googleapis.com/raw",
    "https://storage.cloud.google.com/em/raw",
])
def test_google_storage_has_several_addresses_too(spelling):
    assert canonical(spelling) == "https://storage.googleapis.com/em/raw"


def test_a_bucket_of_another_endpoint_is_another_place(monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", f"{ENDPOINT}/".upper().replace("HTTP", "http"))
    for spelling in (f"{ENDPOINT}/em/raw", "http://em.store.example:9000/raw"):
        assert same_place("s3://em/raw", spelling)
    for other in ("https://em.s3.amazonaws.com/raw", "http://store.example:9001/em/raw"):
        assert not same_place("s3://em/raw", other)
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9000")
    assert same_place("s3://em/raw", "http://localhost:9000/em/raw")


def test_a_file_url_of_a_config_is_a_local_path(tmp_path):
    assert resolve_path(f"file://{tmp_path}/a%20b/", None) == f"{tmp_path}/a b"
    assert resolve_path("S3://em/raw/", None) == "s3://em/raw" and is_url("s3://em/raw")
    assert resolve_path("http:x", tmp_path) == f"{tmp_path}/http:x"


def test_an_output_apart_from_all_inputs_passes(raw):
    check_apart({"raw": str(raw), "mask": "s3://em/mask"}, {"a": f"{raw.parent}/a", "b": "s3://em/b"})


@pytest.mark.parametrize(("output", "words"), [
    ("data.zarr/raw", "is the input 'raw'"), ("data.zarr/raw/inner", "lies in the input 'raw'"),
    ("data.zarr", "holds the input 'raw'"),
    ("scratch.zarr/raw", r"scratch.zarr/raw \(which is .*data.zarr/raw\), is the input"),
    ("scratch.zarr/raw/s0", "lies in"), ("copy/raw", "is the input"), ("array", "is the input"),
])
def test_an_output_that_touches_an_input_is_refused(raw, tmp_path, output, words):
    spellings(raw)
    with pytest.raises(ConfigError, match=f"(?s){words}.*lie in each other.*Choose another"):
        check_apart({"mask": str(tmp_path / "m"), "raw": str(raw)}, {"affs": str(tmp_path / output)})


def test_paths_are_found_wherever_a_config_has_them():
    values = {"raw": "/a", "run": "b", "sources": [{"labels": "s3://b/l", "dataset": "/volumes/raw"}],
              "named": {"x": "/c"}, "n": 3,
              "mask": {"path": "/m", "offset": None}}
    assert dict(paths_in(values)) == {"raw": "/a", "sources.0.labels": "s3://b/l", "named.x": "/c",
                                      "mask": "/m"}
