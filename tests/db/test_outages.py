"""Stores whose server is killed, stopped and frozen in the middle: no row is lost, none doubled."""

import itertools
import random
import threading
import time
from contextlib import contextmanager

import numpy as np
import pytest

from em_blocks.db.connect import connect
from em_blocks.db.documents import DocumentStore
from em_blocks.db.evaluations import save_evaluations
from em_blocks.db.schemas.clefts import CHECKED, CLEFTS, checksum_of_clefts
from em_blocks.db.schemas.synapses import CLEFT, MAPPING
from em_blocks.db.synapses import SynapseStore
from em_blocks.errors import DatabaseError
from em_blocks.kernels.synapses.table import UNMAPPED, Synapses
from mongods import Mongod, mongod

N_BLOCKS, PER_BLOCK = 24, 400


@pytest.fixture
def server(tmp_path):
    with mongod(tmp_path) as server:
        yield server


@pytest.fixture
def store(server):
    with connect(server.uri) as client:
        store = SynapseStore(client, "em_blocks", "a", outage_s=60)
        store.prepare()
        store.prepare([CLEFT, *MAPPING])
        yield store


@contextmanager
def outages(server: Mongod, *, seed: int):
    """Stop the server in order and kill it while the block runs; each time it comes back.

    Yields an event that is set when all is over.
    """
    rng, over = random.Random(seed), threading.Event()

    def strike() -> None:
        for end in (server.stop, server.kill):
            time.sleep(rng.uniform(0.05, 0.4))
            end()
            time.sleep(rng.uniform(0.0, 0.3))
            server.start()
        over.set()

    thread = threading.Thread(target=strike)
    thread.start()
    try:
        yield over
    finally:
        thread.join()


def rows_of(block: int, seed: int = 0) -> Synapses:
    """The rows of a block: of its own ids, every third unmapped; other rows for another seed."""
    rng = np.random.default_rng([block, seed])
    ids = block * 1000 + np.sort(rng.permutation(1000)[:PER_BLOCK])
    values = rng.integers(1, 50, (3, PER_BLOCK))
    values[:, ::3] = UNMAPPED
    pre, post = rng.normal(4000, 100, (2, PER_BLOCK, 3))
    return Synapses(
        id=ids, pre=pre, post=post, score=rng.random(PER_BLOCK), cleft=rng.integers(1, 300, PER_BLOCK),
        pre_supervoxel=values[0], post_supervoxel=values[1], pre_segment=values[2],
    )


def whole(seed: int = 0) -> Synapses:
    return Synapses.concatenate([rows_of(block, seed) for block in range(N_BLOCKS)]).sorted()


def assert_same(found: Synapses, expected: Synapses) -> None:
    for name in Synapses.columns():
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name), err_msg=name)


def fill(store: SynapseStore) -> None:
    for block in range(N_BLOCKS):
        store.replace_block(f"0/0/{block}", rows_of(block))


def until(over: threading.Event, call) -> list:
    """What `call` gives, again and again until the outages are over."""
    found = []
    while not over.is_set():
        found.append(call())
    return [*found, call()]


def test_blocks_that_are_replaced_meanwhile_hold_their_rows_once(store, server):
    seeds = itertools.count()
    with outages(server, seed=1) as over:

        def replace_all() -> int:
            seed = next(seeds)
            for block in range(N_BLOCKS):
                store.replace_block(f"0/0/{block}", rows_of(block, seed))
            return seed

        last = until(over, replace_all)[-1]
    assert_same(store.read(), whole(last))


def test_readers_see_every_row_once(store, server):
    fill(store)
    expected, n = whole(), N_BLOCKS * PER_BLOCK
    with outages(server, seed=2) as over:

        def read_all() -> None:
            assert_same(Synapses.concatenate(list(store.tables(rows=1500))), expected)
            assert_same(store.read(), expected)
            assert store.count() == n
            clefts = [(cleft, len(rows)) for cleft, rows in store.groups("cleft", rows=500)]
            assert clefts == list(zip(*np.unique(expected.cleft, return_counts=True), strict=True))
            without = np.concatenate(list(store.positions_without("pre", "pre.supervoxel")))
            assert len(np.unique(without, axis=0)) == (expected.pre_supervoxel == UNMAPPED).sum()

        until(over, read_all)


def test_changes_arrive_once_and_completely(store, server):
    fill(store)
    rows, documents = whole(), [{"cleft": n, "synapses": 2 * n} for n in range(1, 3000)]
    seeds = itertools.count(1)
    database = store.collection.database
    clefts = DocumentStore(database.client, database.name, "c", CLEFTS, outage_s=60)
    clefts.prepare()
    with outages(server, seed=3) as over:

        def change_all() -> int:
            seed = next(seeds)
            assert store.update(rows.replace(score=rows.score + seed), ["score"]) == len(rows)
            assert clefts.replace_all(iter(documents[seed:])) == len(documents) - seed
            save_evaluations(database, "e", {"x": {"value": seed}}, outage_s=60)
            supervoxels = np.arange(1, 50)
            store.replace_values(
                "post.supervoxel", supervoxels, "post.segment", supervoxels + seed
            )
            assert store.reserve_ids(1000) == 0
            return seed

        last = until(over, change_all)[-1]
    found = store.read()
    np.testing.assert_array_equal(found.score, rows.score + last)
    mapped = rows.post_supervoxel != UNMAPPED
    np.testing.assert_array_equal(found.post_segment[mapped], rows.post_supervoxel[mapped] + last)
    assert [d["cleft"] for d in clefts.read(["cleft"])] == list(range(1 + last, 3000))
    assert checksum_of_clefts(clefts.read(CHECKED))
    assert [document["value"] for document in database.evaluations.find()] == [last]
    assert database.id_ranges.count_documents({}) == 1


def test_a_server_that_freezes_is_noticed_and_asked_again(server, monkeypatch):
    # A cut link looks the same: no connection breaks, nobody answers.
    monkeypatch.setattr("em_blocks.db.connect.SELECT_TIMEOUT_MS", 500)
    monkeypatch.setattr("em_blocks.db.connect._OPTIONS", {
        "heartbeatFrequencyMS": 500, "connectTimeoutMS": 500, "tz_aware": True,
    })
    with connect(server.uri) as client:
        store = SynapseStore(client, "em_blocks", "a", outage_s=1.0)
        store.prepare()
        fill(store)
        with server.frozen():
            began = time.monotonic()
            with pytest.raises(DatabaseError, match=r"unavailable for more than 1 s"):
                store.replace_block("0/0/0", rows_of(0, seed=5))
            assert time.monotonic() - began > 1
        store.replace_block("0/0/1", rows_of(1, seed=5))
        assert_same(store.read(block="0/0/1"), rows_of(1, seed=5))
        # What was given up may still arrive; the next attempt of the block makes it whole.
        store.replace_block("0/0/0", rows_of(0, seed=5))
        assert_same(store.read(block="0/0/0"), rows_of(0, seed=5))
        assert store.count() == N_BLOCKS * PER_BLOCK


def test_a_deletion_that_arrives_late_takes_no_row_that_was_written_since(store):
    fill(store)
    late = []
    delete = store._delete
    store._delete = lambda *arguments: late.append(arguments)  # held back by a cut link
    store.replace_block("0/0/0", rows_of(0, seed=1))
    store._delete = delete
    store.replace_block("0/0/0", rows_of(0, seed=1))
    for arguments in late:
        delete(*arguments)
    assert_same(store.read(block="0/0/0"), rows_of(0, seed=1))
