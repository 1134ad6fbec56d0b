"""Blocks are sets: what a mask leaves out is masked, whatever was recorded before."""

import base64
import json

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from blockwise import add_one, make_raw, run, store_of
from em_blocks.runtime.monitoring.block_map import STATES, section_map
from em_blocks.runtime.monitoring.overview import overview
from em_blocks.runtime.monitoring.status import run_status
from em_blocks.runtime.runs.block_sets import BlockSets, counts_of, mask_document, masked_of
from em_blocks.runtime.runs.verify import damaged_blocks
from em_blocks.volumes import Volume
from recorded import STEPS, Recorded, stores


@pytest.fixture
def raw(tmp_path):
    return make_raw(tmp_path, shape=(10, 10, 40))


def masked_run(raw, tmp_path, x: tuple[int, int], **options):
    """A row of four blocks, of which the mask leaves those with voxels in x."""
    values = np.zeros(raw.shape, "uint8")
    values[..., slice(*x)] = 1
    name = f"m{x[0]}_{x[1]}"
    if not (tmp_path / f"mask.zarr/{name}").exists():
        mask = Volume.create(str(tmp_path / f"mask.zarr/{name}"), shape=raw.shape, dtype="uint8",
                             frame=raw.frame, chunk_shape=(10, 10, 10))
        mask.write(mask.box, values)
    return add_one(raw, tmp_path / "a", mask=str(tmp_path / f"mask.zarr/{name}"), max_retries=0,
                   **options)


def test_a_mask_that_changed_hides_what_was_done_and_the_run_still_ends(raw, tmp_path):
    assert run(masked_run(raw, tmp_path, (0, 20))).ok
    moved = masked_run(raw, tmp_path, (10, 30))
    for n, computed in enumerate((1, 0)):
        report = run(moved, adopt=n == 0)
        assert report.exit_code == 0 and report.reason is None
        assert report.blocks == {"total": 4, "done": 2, "skipped": 2 - computed, "computed": computed,
                                 "masked": 2, "failed": 0, "quarantined": 0}
        assert 1000 * report.wall_s * report.mvox_s == pytest.approx(computed, rel=1e-6)
    out = Volume.open(f"{moved.output}/sum")
    odd = int((out.read(out.box)[..., 10:30] % 2).sum())
    assert report.counts == {"odd": odd}  # those of the hidden block are not counted
    assert {block["block"] for block in report.worst_blocks} == {"0/0/1", "0/0/2"}
    with store_of(moved) as store:
        assert run_status(store)["blocks"] == {"total": 4, "done": 2, "failed": 0, "quarantined": 0,
                                               "masked": 2, "running": 0}
        assert store.load()["n_hidden"] == 1
        assert [block.key for block, _ in damaged_blocks(moved, store)] == ["0/0/1", "0/0/2"]


def test_the_only_block_that_a_new_mask_leaves_decides(raw, tmp_path):
    faults = {"0/0/3": "raise"}
    assert run(masked_run(raw, tmp_path, (0, 10), faults=faults)).ok
    report = run(masked_run(raw, tmp_path, (30, 40), faults=faults), adopt=True)
    assert report.exit_code == 1 and report.state == "failed"
    assert report.blocks == {"total": 4, "done": 0, "skipped": 0, "computed": 0, "masked": 3,
                             "failed": 0, "quarantined": 1}
    assert report.reason == ("1 of 1 blocks are not done; 0/0/3 is quarantined after 1 attempts with "
                             "ValueError in compute: this block is poison")


def test_a_quarantined_block_that_a_new_mask_hides_fails_nothing(raw, tmp_path):
    faults = {"0/0/0": "raise"}
    assert run(masked_run(raw, tmp_path, (0, 20), faults=faults)).exit_code == 1
    report = run(masked_run(raw, tmp_path, (10, 20), faults=faults), adopt=True)
    assert report.exit_code == 0 and report.failures == []
    assert report.blocks["quarantined"] == 0 and report.blocks["masked"] == 3
    assert run(masked_run(raw, tmp_path, (0, 20), faults=faults), adopt=True).exit_code == 1


def test_blocks_that_need_no_mask_any_more_are_due(raw, tmp_path):
    assert run(masked_run(raw, tmp_path, (0, 20))).ok
    report = run(add_one(raw, tmp_path / "a"), adopt=True)
    assert report.exit_code == 0 and report.blocks["done"] == 4 and report.blocks["computed"] == 2
    with store_of(add_one(raw, tmp_path / "a")) as store:
        assert store.load()["n_masked"] == 0 and not masked_of(store.load()).any()


# -- laws --------------------------------------------------------------------------------

SHAPE = (2, 3, 4)
RECORDS = st.lists(st.sampled_from(["", "done", "failed", "quarantined"]), min_size=24, max_size=24)
MASKS = st.lists(st.booleans(), min_size=24, max_size=24)


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    with stores(tmp_path_factory.mktemp("sets"), "sets") as (found,):
        yield found


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(records=RECORDS, mask=MASKS)
def test_every_block_is_in_one_set(store, records, mask):
    store.remove()
    made = Recorded(store, SHAPE)
    for block, state in zip(made.grid.blocks(), records, strict=True):
        if state == "done":
            made.done(block.key)
        elif state:
            made.failed(block.key, state=state, tries=0)
    masked = np.array(mask).reshape(SHAPE)
    states = np.array(records).reshape(SHAPE)
    found = BlockSets.of(store, masked)
    for name in ("done", "failed", "quarantined"):
        np.testing.assert_array_equal(getattr(found, name), (states == name) & ~masked)
    np.testing.assert_array_equal(found.hidden, (states == "done") & masked)
    np.testing.assert_array_equal(found.missing, (states != "done") & ~masked)
    store.update(**mask_document(found))
    run = store.load()
    np.testing.assert_array_equal(masked_of(run), masked)
    assert run["n_masked"] == masked.sum() and run["n_hidden"] == ((states != "") & masked).sum()
    assert counts_of(store, run) == found.counts()
    left = run_status(store)["blocks"]
    assert left["total"] - left["masked"] - left["done"] >= 0
    totals = store.totals(but=found.hidden)
    assert totals["counts"] == ({"odd": 3 * found.done.sum()} if (states == "done").any() else {})
    assert {f["block"] for f in store.failures(99, but=masked)} == {
        "/".join(map(str, index)) for index in np.argwhere(found.failed | found.quarantined)
    }
    section = section_map(store, 1)
    expected = np.where(states == "", "waiting", states)[1]
    expected[masked[1]] = "masked"
    shown = np.frombuffer(base64.b64decode(section["state"]), "u1").reshape(section["shape"])
    np.testing.assert_array_equal(np.array(STATES)[shown], expected)
    (step,) = overview({STEPS["edges"]: store})["steps"]
    failing = (found.failed | found.quarantined).any(axis=(1, 2))
    assert step["failing_sections"] == np.flatnonzero(failing).tolist()


def test_a_record_of_an_older_version_has_no_mask(store):
    store.remove()
    made = Recorded(store, SHAPE, n_masked=20)
    made.first_done(4)
    assert masked_of(store.load()) is None
    assert counts_of(store, store.load()) == {"done": 4, "failed": 0, "quarantined": 0, "masked": 20}


def test_a_document_with_the_mask_of_a_million_blocks_is_small():
    masked = np.random.default_rng(0).random((100, 100, 100)) < 0.5
    sets = BlockSets(masked, masked, masked, masked, masked, 0)
    assert len(json.dumps(mask_document(sets))) < 200_000
