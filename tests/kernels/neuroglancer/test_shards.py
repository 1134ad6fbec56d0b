import numpy as np
import pytest
import tensorstore as ts
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.kernels.neuroglancer.shards import Sharding, murmur


def write(folder, sharding, values):
    """A folder of shard files."""
    keys = np.array(list(values), np.uint64)
    shards = sharding.shard(keys)
    for shard in np.unique(shards):
        own = keys[shards == shard]
        own = own[sharding.order(own)]
        data = [values[key] for key in own.tolist()]
        head, tail = sharding.packed(own, np.array([len(value) for value in data]))
        (folder / sharding.file_name(shard)).write_bytes(head + b"".join(data) + tail)


def opened(folder, sharding):
    """The folder through tensorstore, which has a reader of its own."""
    return ts.KvStore.open({
        "driver": "neuroglancer_uint64_sharded", "metadata": sharding.document(),
        "base": {"driver": "file", "path": f"{folder}/"},
    }).result()


@pytest.mark.parametrize("bits", [(0, 0), (0, 3), (3, 0), (2, 2), (5, 1)])
def test_tensorstore_finds_every_value_by_its_key(bits, tmp_path):
    rng = np.random.default_rng(sum(bits))
    keys = {0, 1, 2**63, 2**64 - 1, *rng.integers(0, 2**64, 300, dtype=np.uint64).tolist()}
    values = {key: rng.bytes(int(rng.integers(0, 30))) for key in keys}
    sharding = Sharding(*bits)
    write(tmp_path, sharding, values)
    store = opened(tmp_path, sharding)
    for key, value in values.items():
        assert store[key.to_bytes(8, "big")] == value
    assert store.read((12345).to_bytes(8, "big")).result().state == "missing"
    assert len(store.list().result()) == len(values)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, unique=True))
def test_keys_of_a_file_are_in_the_order_of_minishards_and_then_of_keys(keys):
    sharding = Sharding(0, 2)
    ordered = np.array(keys, np.uint64)
    ordered = ordered[sharding.order(ordered)]
    pairs = list(zip(sharding.minishard(ordered).tolist(), ordered.tolist(), strict=True))
    assert pairs == sorted(pairs) and sorted(ordered.tolist()) == sorted(keys)


def test_hashes_spread_keys_that_follow_a_pattern():
    shards = Sharding(4, 3).shard(np.arange(1600, dtype=np.uint64) << np.uint64(20))
    assert np.bincount(shards, minlength=16).min() > 50


def test_the_number_of_files_and_of_their_parts_grows_with_the_keys():
    assert Sharding.of(10, 1) == Sharding(0, 0)
    assert Sharding.of(5000, 1) == Sharding(0, 3)
    assert Sharding.of(2**20, 3) == Sharding(2, 8)
    assert Sharding(5, 0).file_name(30) == "1e.shard" and Sharding(4, 0).file_name(3) == "3.shard"


def test_murmur_of_a_single_key_equals_that_of_many():
    keys = np.array([0, 1, 2**64 - 1], np.uint64)
    assert [murmur(keys[i : i + 1])[0] for i in range(3)] == murmur(keys).tolist()
