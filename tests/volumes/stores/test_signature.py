"""Checksums of a bounded sample of an array."""

import numpy as np
import pytest

from em_blocks.errors import VolumeError
from em_blocks.geometry import Box
from em_blocks.volumes.stores.signature import Signature, sign


def signed(values, piece=(4, 5, 6)):
    return sign(lambda box: values[box.slices], values.shape, piece, values.dtype.itemsize)


@pytest.fixture
def values():
    return np.random.default_rng(3).integers(0, 255, (9, 11, 13)).astype(np.uint8)


def test_the_same_values_have_the_same_signature(values):
    assert signed(values).changed(signed(values.copy())) == []
    assert signed(values).whole


def test_a_changed_voxel_is_found_in_its_piece(values):
    other = values.copy()
    other[8, 4, 12] ^= 1
    assert signed(values).changed(signed(other)) == [Box((8, 0, 12), (1, 5, 1))]


def test_a_signature_survives_the_database(values):
    stored = Signature.from_document(signed(values).to_document())
    assert stored == signed(values)


def test_signatures_of_other_shapes_or_pieces_cannot_be_compared(values):
    assert signed(values).changed(signed(values[:8])) is None
    assert signed(values).changed(signed(values, piece=(4, 5, 5))) is None


def test_a_piece_that_cannot_be_read_is_marked_and_does_not_end_the_run(values):
    def read(box):
        if box.offset == (4, 5, 0):
            raise VolumeError("damaged")
        return values[box.slices]

    found = sign(read, values.shape, (4, 5, 6), 1)
    assert [key for key, crc in found.pieces.items() if crc == -1] == ["1/1/0"]
    assert signed(values).changed(found) == [Box((4, 5, 0), (4, 5, 6))]


def test_of_a_large_array_a_bounded_sample_is_read_at_the_same_places_each_time():
    read = []

    def one(box):
        read.append(box.size)
        return np.zeros(box.shape, np.uint8)

    shape = (1000, 1000, 1000)
    found = sign(one, shape, (10, 10, 10), 1, sample_bytes=40_000)
    assert not found.whole
    assert 36 <= len(found.pieces) <= 40 and len(read) == len(found.pieces)
    assert {"0/0/0", "99/99/99"} <= found.pieces.keys()
    places = np.array([key.split("/") for key in found.pieces], int)
    assert all(len(np.unique(axis)) > 25 for axis in places.T), "spread along every axis"
    assert sign(one, shape, (10, 10, 10), 1, sample_bytes=40_000) == found


def test_at_least_sixteen_pieces_are_read_however_large_they_are():
    found = sign(lambda box: np.zeros(1), (40, 40, 40), (10, 10, 10), 8, sample_bytes=1)
    assert 14 <= len(found.pieces) <= 16
