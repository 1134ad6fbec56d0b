"""Rows of synapses: stored once, replaced as a whole, found by indexes."""

import itertools
import time
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest

from em_blocks.db.connect import connect, database_uri
from em_blocks.db.schemas.synapses import SYNAPSES
from em_blocks.db.synapses import SynapseStore
from em_blocks.errors import DatabaseError
from em_blocks.geometry import Roi
from em_blocks.kernels.synapses.table import UNMAPPED, Synapses

COLUMNS = [*Synapses.columns(), "flags"]


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    with database_uri(None, tmp_path_factory.mktemp("synapses")) as uri, connect(uri) as client:
        yield client


@pytest.fixture
def store(client):
    store = SynapseStore(client, f"t{time.monotonic_ns()}", "a")
    store.prepare()
    yield store
    client.drop_database(store.collection.database.name)


def table(ids, seed=0):
    rng, n = np.random.default_rng(seed), len(ids)
    some = rng.integers(1, 2**62, (6, n))
    some[:, ::3] = UNMAPPED
    score = rng.random(n)
    score[1::4] = np.nan
    return Synapses(
        id=ids, pre=rng.normal(0, 1000, (n, 3)), post=rng.normal(0, 1000, (n, 3)), score=score,
        size=rng.integers(1, 99, n), cleft=some[0], cleft_score=rng.random(n), pre_supervoxel=some[1],
        post_supervoxel=some[2], pre_segment=some[3], post_segment=some[4], pre_skeleton=some[5],
    )


def assert_same(a, b):
    for name in Synapses.columns():
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_every_column_and_flag_comes_back_to_the_last_bit(store):
    rows = table([7, 5, 2**63 - 1, 0, 12, 3])
    flags = {"outside": rows.id == 5, "truncated": rows.id != 0}
    store.replace_block("0/1/2", rows, flags)
    found, found_flags = store.read_block("0/1/2")
    assert_same(found, rows.sorted())
    assert SYNAPSES.checksum(found, found_flags, COLUMNS) == SYNAPSES.checksum(rows, flags, COLUMNS)


@pytest.mark.parametrize("column", COLUMNS)
def test_a_checksum_notices_a_change_in_any_column(column):
    rows, flags = table([1, 2, 3]), {"outside": np.array([True, False, False])}
    changed, changed_flags = rows, flags
    if column == "flags":
        changed_flags = {"outside": np.array([True, True, False])}
    else:
        values = getattr(rows, column).copy()
        values[-1] += 7
        changed = rows.replace(**{column: values})
    before = SYNAPSES.checksum(rows, flags, [column])
    assert SYNAPSES.checksum(changed, changed_flags, [column]) != before


def test_a_block_is_replaced_as_a_whole_and_others_stay(store):
    store.replace_block("0/0/0", table([1, 2, 3]))
    store.replace_block("0/0/1", table([4]))
    store.of_run("b").replace_block("0/0/0", table([100]))
    store.replace_block("0/0/0", table([2, 9], seed=1))
    assert_same(store.read(block="0/0/0"), table([2, 9], seed=1))
    assert store.read().id.tolist() == [2, 4, 9]
    store.replace_block("0/0/0", Synapses.empty())
    assert store.read().id.tolist() == [4] and store.of_run("b").read().id.tolist() == [100]


def test_leftovers_of_another_block_grid_give_way(store):
    store.replace_block("9/9/9", table([1, 2, 3]))
    store.replace_block("0/0/0", table([2, 3, 4], seed=1))
    assert_same(store.read(block="0/0/0"), table([2, 3, 4], seed=1))


def test_rows_of_another_run_are_never_overwritten(store):
    store.of_run("b").replace_block("0/0/0", table([2]))
    with pytest.raises(DatabaseError, match=r"synapse 2 of run 'a'.*'b'"):
        store.replace_block("0/0/0", table([1, 2, 3]))
    assert_same(store.of_run("b").read(), table([2]))


def test_runs_reserve_ids_that_nobody_else_has(store):
    first = [store.of_run(name).reserve_ids(n) for name, n in (("a", 1000), ("b", 10), ("c", 1000))]
    assert first == [0, 1000, 1010]
    assert store.reserve_ids(1000) == 0 and store.of_run("b").reserve_ids(10) == 1000
    assert store.reserve_ids(2000) == 2010  # made anew, of a larger volume
    with pytest.raises(DatabaseError, match="63 bits"):
        store.of_run("d").reserve_ids(2**63 - 100)


def test_workers_that_ask_at_once_get_one_range_per_run(store):
    sizes = {name: 10 * n for n, name in enumerate("abcdef", start=1)}
    asked = [name for name in sizes for _ in range(4)]
    with ThreadPoolExecutor(8) as pool:
        found = list(pool.map(lambda name: (name, store.of_run(name).reserve_ids(sizes[name])), asked))
    assert len(set(found)) == len(sizes)
    ranges = sorted((first, first + sizes[name]) for name, first in set(found))
    assert ranges[0][0] == 0
    assert all(end == begin for (_, end), (begin, _) in itertools.pairwise(ranges))


def test_a_region_is_half_open_and_asks_either_site(store):
    post = np.array([[0, 0, 0], [40, 4, 4], [39.9, 3.9, 3.9]])
    store.replace_block("0/0/0", Synapses(id=[1, 2, 3], post=post, pre=post + 10))
    roi = Roi((0, 0, 0), (40, 4, 4))
    assert store.read(roi=roi).id.tolist() == [1, 3]
    assert store.read(roi=Roi((10, 10, 10), (1, 1, 1)), at="pre").id.tolist() == [1]
    assert store.read(roi=Roi((40, 4, 4), (20, 20, 20)), at="either").id.tolist() == [2, 3]


def test_rows_are_found_by_segments_and_score(store):
    rows = Synapses(
        id=range(4), pre=np.zeros((4, 3)), post=np.zeros((4, 3)), score=[0.1, 0.2, 0.3, 0.4],
        pre_segment=[1, 1, 2, UNMAPPED], post_segment=[5, 6, 5, 5],
    )
    store.replace_block("0/0/0", rows)
    assert store.read(post_segment=5).id.tolist() == [0, 2, 3]
    assert store.read(pre_segment=1, post_segment=[5, 6], min_score=0.2).id.tolist() == [1]
    assert store.count(pre_segment=[1, 2]) == 3


def test_tables_are_all_rows_of_the_run_in_parts_by_id(store):
    rows = table([7, 5, 2**63 - 1, 0, 12, 3])
    store.replace_block("0/0/0", rows.select(np.arange(4)))
    store.replace_block("0/0/1", rows.select(np.arange(4, 6)))
    store.of_run("b").replace_block("0/0/0", table([1, 4, 99]))
    parts = list(store.tables(rows=4))
    assert [len(part) for part in parts] == [4, 2]
    assert_same(Synapses.concatenate(parts), rows.sorted())
    assert not list(store.of_run("c").tables())


def test_columns_are_updated_by_id_and_unmapped_ones_disappear(store):
    store.replace_block("0/0/0", table([1, 2, 3, 4]))
    changed = table([3, 4, 77]).replace(post_segment=[8, UNMAPPED, 9], score=[9, 9, 9])
    assert store.update(changed, ["post_segment", "pre_skeleton"]) == 2
    found = store.read()
    assert found.post_segment[2:].tolist() == [8, UNMAPPED]
    assert found.pre_skeleton[2:].tolist() == changed.pre_skeleton[:2].tolist()
    np.testing.assert_array_equal(found.score, table([1, 2, 3, 4]).score)
    assert not store.collection.count_documents({"_id": 4, "post.segment": {"$exists": True}})


def test_a_scratch_store_reads_but_changes_nothing(store):
    store.reserve_ids(10), store.of_run("b").reserve_ids(10)
    store.of_run("b").replace_block("0/0/0", table([12]))
    database = store.collection.database
    scratch = SynapseStore(database.client, database.name, "b", scratch=True)
    scratch.replace_block("0/0/0", table([13, 14]))
    scratch.update(table([12], seed=3), ["post_segment"])
    scratch.remove()
    assert scratch.reserve_ids(10) == 10
    assert_same(store.of_run("b").read(), table([12]))


def test_a_process_that_must_not_write_does_not(store):
    store.replace_block("0/0/0", table([1]))

    def refuse():
        raise DatabaseError("replaced")

    database = store.collection.database
    other = SynapseStore(database.client, database.name, "a", guard=refuse)
    for change in (
        lambda: other.replace_block("0/0/0", table([2])),
        lambda: other.update(table([1], seed=3), ["score"]),
        lambda: other.reserve_ids(3),
    ):
        with pytest.raises(DatabaseError, match="replaced"):
            change()
    assert_same(store.read(), table([1]))


def stages(plan):
    """Names of stages and indexes of a query plan."""
    inner = [plan["inputStage"]] if "inputStage" in plan else plan.get("inputStages", [])
    own = plan["indexName"] if plan["stage"] == "IXSCAN" else plan["stage"]
    return [own, *(name for stage in inner for name in stages(stage))]


@pytest.mark.parametrize(("filters", "index"), [
    ({"block": "0/0/0"}, "block"),
    ({"roi": Roi((0, 0, 0), (40, 40, 40))}, "post.position"),
    ({"roi": Roi((0, 0, 0), (40, 40, 40)), "at": "pre"}, "pre.position"),
    ({"post_segment": 3}, "post.segment"),
    ({"post_segment": [3, 4]}, "post.segment"),
])
def test_queries_are_answered_by_an_index(store, filters, index):
    rows = table(range(1000))
    for n in range(10):
        part = rows.select(rows.id % 10 == n)
        store.replace_block(f"0/0/{n}", part)
    plan = store.collection.find(store.query(**filters)).explain()["queryPlanner"]["winningPlan"]
    assert index in stages(plan) and "COLLSCAN" not in stages(plan)


def test_all_indexes_of_the_design_exist(store):
    made = {index["name"] for index in store.collection.list_indexes()}
    assert {index.name for index in SYNAPSES.indexes} <= made
