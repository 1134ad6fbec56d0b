"""Rows of a schema that em_blocks does not know: written, retried, read, verified and removed."""

import numpy as np
import pytest

from blockwise import block_documents, make_raw, run, store_of
from em_blocks.errors import DatabaseError, RefusedError
from em_blocks.outputs import RunContext
from em_blocks.runtime.runs.forget import forget_run, removable
from em_blocks.runtime.runs.verify import damaged_blocks
from measuring import OBJECTS, MeasureObjects, objects_of


@pytest.fixture(scope="module")
def raw(tmp_path_factory):
    return make_raw(tmp_path_factory.mktemp("raw"))


@pytest.fixture(scope="module")
def finished(raw, tmp_path_factory):
    """A finished run that no test changes for good."""
    task = measure(raw, tmp_path_factory.mktemp("finished"))
    assert run(task).ok
    return task


def measure(raw, folder, **options):
    values = {"run": "objects", "block_shape": (7, 11, 13), "raw": raw.path, "run_dir": str(folder)}
    return MeasureObjects.from_dict(values | options)


def rows_of(task):
    with store_of(task) as store:
        return RunContext(store=store).rows(OBJECTS).read()


def assert_same(a, b):
    for name in ("id", "centroid", "brightness"):
        np.testing.assert_array_equal(getattr(a, name), getattr(b, name), err_msg=name)


def test_two_workers_store_the_rows_of_every_block_once_also_when_one_is_tried_again(raw, tmp_path):
    task = measure(raw, tmp_path, num_workers=2, faults={"1/1/2": "raise_once"})
    report = run(task)
    expected = objects_of(raw, raw.box, 240)
    assert report.ok and len(expected) > 1000
    assert block_documents(task)["objects/1/1/2"]["attempts"] == 2
    assert_same(rows_of(task), expected)
    assert_same(rows_of(measure(raw, tmp_path)), expected)
    with store_of(task) as store:
        names = {index["name"] for index in store.database["objects"].list_indexes()}
    assert names == {"_id_", "block", "brightness"}


def test_a_damaged_block_is_found(finished):
    with store_of(finished) as store:
        objects = store.database["objects"]
        for change in (1, -1):
            objects.update_one({"block": "0/1/2"}, {"$inc": {"brightness": change}})
            found = [(block.key, what) for block, what in damaged_blocks(finished, store) if what]
            damaged = [("0/1/2", "em_blocks.objects does not hold what block 0/1/2 wrote")]
            assert found == (damaged if change == 1 else [])


def test_a_forgotten_run_takes_its_rows_with_it_and_leaves_those_of_others(raw, tmp_path):
    task, other = measure(raw, tmp_path), measure(raw, tmp_path, run="brighter", threshold=250)
    assert run(task).ok and run(other).ok
    kept = rows_of(other)
    assert kept.id.min() >= raw.box.size  # a range of its own
    with store_of(task) as store:
        assert removable(store, task).rows == len(objects_of(raw, raw.box, 240))
        forget_run(store, task)
        assert removable(store, task) is None
    assert not len(rows_of(task))
    assert_same(rows_of(other), kept)


def test_rows_without_a_record_are_not_mixed_with_new_ones(raw, tmp_path):
    task = measure(raw, tmp_path)
    assert run(task).ok
    with store_of(task) as store:
        store.remove()
    with pytest.raises(RefusedError, match="has objects of run 'objects', but no such run made them"):
        run(task)


def test_a_scratch_context_reads_but_changes_nothing(finished):
    expected = rows_of(finished)
    with store_of(finished) as store:
        rows = RunContext(store=store, scratch=True).rows(OBJECTS)
        rows.replace_block("0/0/0", expected)
        rows.replace_values("brightness", np.array([255]), "brightness", np.array([0]))
        rows.unset(["brightness"])
        rows.remove()
        assert_same(rows.read(), expected)


def test_a_filter_that_the_schema_does_not_offer_is_an_error(finished):
    with store_of(finished) as store, pytest.raises(TypeError, match="cannot be selected by colour"):
        RunContext(store=store).rows(OBJECTS).read(colour="red")


def test_without_a_database_rows_are_an_error_that_says_so():
    with pytest.raises(DatabaseError, match="opened without one"):
        RunContext().rows(OBJECTS)
