"""A run reads what another run made: complete or not, as it was or not."""

import shutil
import socket
import uuid

import numpy as np
import pytest
from rich.console import Console

import mapping
from blockwise import (
    FRAME,
    add_one,
    block_documents,
    make_raw,
    run,
    start_in_background,
    store_of,
    wait_for,
)
from em_blocks.config import VolumeInput
from em_blocks.db.connect import connect
from em_blocks.errors import (
    ChangedInputError,
    FingerprintMismatchError,
    IncompleteInputError,
    RefusedError,
)
from em_blocks.geometry import Box
from em_blocks.runtime.runs.ledgers import reopen
from em_blocks.runtime.runs.verify import requeue_damaged
from em_blocks.runtime.scheduler.run import run_blockwise, run_steps
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.ledger import LEDGER, read_ledger, write_ledger

HOLE = (1, 2, 3)


uri = mapping.uri


@pytest.fixture
def databases(uri):
    """Two databases of one server, as config keys: a server for each run would be slow."""
    name = f"t{uuid.uuid4().hex[:12]}"
    yield [{"db_host": uri, "db_name": f"{name}_{n}"} for n in range(2)]
    with connect(uri) as client:
        for n in range(2):
            client.drop_database(f"{name}_{n}")


@pytest.fixture
def raw(tmp_path):
    return make_raw(tmp_path)


@pytest.fixture
def first(raw, tmp_path, databases):
    """A run whose output the second one reads."""
    return add_one(raw, tmp_path / "one", run="first", max_retries=0, **databases[0])


@pytest.fixture
def second(first, tmp_path, databases):
    """A run in another database."""
    return add_one(Made(first), tmp_path / "two", run="second", context=(0, 2, 2), **databases[1])


class Made:
    """Where the output of a task lies, in the shape that `add_one` takes a volume."""

    def __init__(self, task):
        self.path = task.output_specs()[0].path


def values(task):
    volume = Volume.open(task.output_specs()[0].path)
    return volume.read(volume.box)


def with_hole(task):
    return task.model_copy(update={"faults": {"/".join(map(str, HOLE)): "raise"}})


def elsewhere(task, path):
    """A fresh run over the output of `task`."""
    where = {"db_host": task.db_host, "db_name": task.db_name}
    return add_one(Made(task), path, run="fresh", context=(0, 2, 2), **where)


def beside(task, tmp_path):
    """A run in the database of `task` that reads its output."""
    return add_one(
        Made(task), tmp_path / "one", run="second", output=str(tmp_path / "one/two.zarr"),
        db_host=task.db_host, db_name=task.db_name,
    )


def lose_database(task):
    with store_of(task) as store:
        store.client.drop_database(task.db_name)


# -- complete or not --------------------------------------------------------------------------


def test_an_input_with_a_quarantined_block_is_refused_before_anything_is_written(first, second):
    assert not run(with_hole(first)).ok
    with pytest.raises(IncompleteInputError, match=r"'first'.* lacks 1 of 30 blocks \(1/2/3\)"):
        run(second)
    assert not second.home.exists()


def test_with_skip_only_the_blocks_that_read_the_hole_wait_and_are_done_once_it_is_filled(
    first, second, tmp_path
):
    assert not run(with_hole(first)).ok
    skipping = second.model_copy(update={"incomplete_inputs": "skip"})
    report = run(skipping)
    assert not report.ok and "wait for what raw lacks (1/1/2, 1/1/3" in report.reason
    waiting = {"1/1/2", "1/1/3", "1/1/4", "1/2/2", "1/2/3", "1/2/4"}
    done = {k.removeprefix("second/") for k, d in block_documents(second).items()
            if d["state"] == "done"}
    everything = {f"{z}/{y}/{x}" for z in range(2) for y in range(3) for x in range(5)}
    assert done == everything - waiting
    assert run(first, requeue=True).ok
    report = run(skipping)
    assert report.ok and report.blocks["computed"] == len(waiting)
    assert run(fresh := elsewhere(first, tmp_path / "fresh")).ok
    assert np.array_equal(values(second), values(fresh))


@pytest.mark.parametrize(("offset", "voxel_size"), [((1240, 92, 0), None), ((0, 0, 0), (20, 9.2, 8))])
def test_the_blocks_of_an_input_lie_where_the_config_puts_it(
    first, second, tmp_path, databases, offset, voxel_size
):
    """A volume that states another place than it has: the same blocks wait, and are done again."""
    moved = second.model_copy(update={
        "raw": VolumeInput(path=second.raw, offset=offset, voxel_size=voxel_size),
        "incomplete_inputs": "skip",
    })
    assert not run(with_hole(first)).ok and not run(moved).ok
    done = {tuple(d["index"]) for d in block_documents(moved).values() if d["state"] == "done"}
    assert done == set(np.ndindex(moved.grid().shape)) - {(1, y, x) for y in (1, 2) for x in (2, 3, 4)}
    assert run(first, requeue=True).ok
    report = run(moved)
    assert report.ok and report.blocks["computed"] == 6


def test_masked_blocks_of_an_input_are_no_holes(raw, tmp_path, databases):
    mask = Volume.create(
        str(tmp_path / "mask.zarr/m"), shape=(20, 30, 50), dtype="uint8", frame=FRAME,
        chunk_shape=(10, 10, 10),
    )
    mask.write(Box((0, 0, 10), (20, 30, 40)), np.ones((20, 30, 40), np.uint8))
    first = add_one(raw, tmp_path / "one", run="first", mask=mask.path, **databases[0])
    assert run(first).ok
    assert run(add_one(Made(first), tmp_path / "two", run="second", **databases[1])).ok


def test_an_interrupted_input_is_refused_without_its_database_by_what_it_says_itself(first, second):
    assert run(first).ok
    reopen(first)  # as a killed scheduler leaves it
    lose_database(first)
    with pytest.raises(IncompleteInputError, match="was not closed"):
        run(second)


def test_the_database_of_both_runs_knows_better_than_a_ledger_that_was_not_closed(first, tmp_path):
    assert run(first).ok
    reopen(first)
    same_database = beside(first, tmp_path)
    assert run(same_database).ok


def test_a_block_that_the_shared_database_lost_is_missing_whatever_the_ledger_says(first, tmp_path):
    assert run(first).ok
    with store_of(first) as store:
        store.blocks.delete_one({"_id": "first/1/2/3"})
    second = beside(first, tmp_path)
    with pytest.raises(IncompleteInputError, match=r"1 of 30 blocks \(1/2/3\)"):
        run(second)


def test_the_ledger_is_closed_after_a_run_and_says_which_start_stored_each_block(first):
    assert not run(with_hole(first)).ok
    found = read_ledger(Made(first).path)
    assert found.state == "closed" and np.argwhere(found.missing).tolist() == [list(HOLE)]
    assert set(found.generation[found.done]) == {1}
    assert run(first, requeue=True).ok
    found = read_ledger(Made(first).path)
    assert found.complete and found.generation[HOLE] == 2 and (found.generation == 2).sum() == 1


def test_a_lost_ledger_is_made_again_from_the_database(first):
    assert not run(with_hole(first)).ok
    assert run(first, requeue=True).ok
    path = Made(first).path
    before = read_ledger(path)
    (first.home / "out.zarr/sum" / LEDGER).unlink()
    assert run(first).ok
    assert np.array_equal(read_ledger(path).generation, before.generation)


# -- as it was or not ---------------------------------------------------------------------------


def damage(task, index):
    """A block of a done run is lost and due again, as verify finds it."""
    with store_of(task) as store:
        reopen(task)
        requeue_damaged(store, task.grid().block(index), "test")


def test_blocks_made_of_what_was_stored_anew_are_done_again_and_no_others(first, second, tmp_path):
    assert run(first).ok and run(second).ok
    damage(first, HOLE)
    with pytest.raises(IncompleteInputError):
        run(second)
    assert run(first).ok
    report = run(second)
    assert report.ok and report.blocks["computed"] == 6
    assert run(second).blocks["computed"] == 0
    assert run(fresh := elsewhere(first, tmp_path / "fresh")).ok
    assert np.array_equal(values(second), values(fresh))


def test_an_input_computed_anew_with_the_same_settings_makes_all_blocks_due(first, second):
    assert run(first).ok and run(second).ok
    assert run(first, overwrite=True).ok
    assert run(second).blocks["computed"] == 30


def test_an_input_of_other_settings_is_refused(first, second):
    assert run(first).ok and run(second).ok
    assert run(first.model_copy(update={"add": 5}), overwrite=True).ok
    with pytest.raises(ChangedInputError, match=r"raw .*other settings or from other data"):
        run(second)


def test_a_foreign_input_whose_values_changed_is_refused_with_the_place(raw, first):
    assert run(first).ok
    changed = raw.read(raw.box)
    changed[15, 29, 42] += 1
    raw.write(raw.box, changed)
    with pytest.raises(ChangedInputError, match=r"in 1 of 30 pieces .* voxel \(10, 20, 40\)") as caught:
        run(first)
    assert caught.value.exit_code == 3 and "--adopt" in str(caught.value)
    assert run(first, adopt=True).blocks["computed"] == 0
    assert run(first).ok


def test_a_foreign_input_may_change_where_no_block_is_done(raw, first):
    assert not run(with_hole(first)).ok
    changed = raw.read(raw.box)
    changed[15, 29, 35] += 1
    raw.write(raw.box, changed)
    report = run(first, requeue=True)
    assert report.ok and report.blocks["computed"] == 1
    assert values(first)[15, 29, 35] == changed[15, 29, 35] + 1


def test_replaced_raw_is_noticed_two_steps_later(raw, first, second):
    assert run(first).ok and run(second).ok
    raw.write(raw.box, raw.read(raw.box) + 1)
    assert run(first, overwrite=True).ok
    with pytest.raises(ChangedInputError):
        run(second)


@pytest.mark.parametrize("how", ["move", "copy", "link"])
def test_the_same_data_elsewhere_are_the_same_input(raw, first, tmp_path, how):
    assert run(first).ok
    old, new = tmp_path / "raw.zarr", tmp_path / "moved/volume.zarr"
    new.parent.mkdir()
    if how == "move":
        shutil.move(old, new)
    elif how == "copy":
        shutil.copytree(old, new)
    else:
        new.symlink_to(old)
    moved = first.model_copy(update={"raw": str(new / "raw")})
    report = run(moved)
    assert report.ok and report.blocks["computed"] == 0


def test_a_mask_of_other_content_is_another_run_and_a_moved_mask_is_not(raw, tmp_path, databases):
    mask = Volume.create(
        str(tmp_path / "mask.zarr/m"), shape=(20, 30, 50), dtype="uint8", frame=FRAME,
        chunk_shape=(10, 10, 10),
    )
    mask.write(Box((0, 0, 0), (20, 30, 20)), np.ones((20, 30, 20), np.uint8))
    task = add_one(raw, tmp_path / "a", mask=mask.path, **databases[0])
    assert run(task).ok
    shutil.move(tmp_path / "mask.zarr", tmp_path / "m2.zarr")
    moved = task.model_copy(update={"mask": str(tmp_path / "m2.zarr/m")})
    assert run(moved).blocks["computed"] == 0
    mask = Volume.open(moved.mask, mode="r+")
    mask.write(Box((0, 0, 20), (20, 30, 10)), np.ones((20, 30, 10), np.uint8))
    with pytest.raises(ChangedInputError, match="mask"):
        run(moved)
    report = run(moved, adopt=True)
    assert report.ok and report.blocks["computed"] == 6
    assert run(moved).ok


# -- whose it is --------------------------------------------------------------------------------


def test_two_runs_with_one_output_are_refused_whatever_the_flags(raw, first, tmp_path, databases):
    assert run(first).ok
    thief = add_one(raw, tmp_path / "one", run="thief", **databases[0])
    for options in ({}, {"overwrite": True}, {"adopt": True}):
        with pytest.raises(RefusedError, match="belongs to run 'first'"):
            run(thief, **options)
    other_database = thief.model_copy(update=databases[1])
    with pytest.raises(RefusedError, match="belongs to run 'first'"):
        run(other_database, overwrite=True)
    assert run(first).blocks["computed"] == 0


# -- old records ----------------------------------------------------------------------------------


def make_old(task):
    """Turn the records of a run into those of the version before inputs were recorded."""
    with store_of(task) as store:
        document = store.load()
        identity = document["identity"]
        identity["config"]["raw"] = task.raw
        store.runs.update_one(
            {"_id": task.run},
            {"$set": {"identity": identity, "fingerprint": "0" * 64},
             "$unset": {"contents": 1, "content_id": 1, "run_id": 1, "command": 1}},
        )
    (task.home / "out.zarr/sum" / LEDGER).unlink()


def test_an_old_run_resumes_and_what_its_record_lacks_is_filled_in_once(first, capsys):
    assert not run(with_hole(first)).ok
    make_old(first)
    console = Console(record=True, width=200)
    report = run_blockwise(first, requeue=True, console=console)
    assert report.ok and report.blocks["computed"] == 1
    assert "taken as they are now" in console.export_text()
    assert read_ledger(Made(first).path).complete
    console = Console(record=True, width=200)
    assert run_blockwise(first, console=console).ok
    assert "taken as they are now" not in console.export_text()


def test_an_old_run_of_other_settings_is_still_refused(first):
    assert run(first).ok
    make_old(first)
    with pytest.raises(FingerprintMismatchError, match=r"config.add: 1 -> 2"):
        run(first.model_copy(update={"add": 2}))


def test_blocks_are_done_again_if_another_run_stores_their_input_anew_meanwhile(first, second):
    """The input is repaired while the second run works: it ends with the repaired values."""
    assert run(first).ok
    waiting = second.model_copy(update={"faults": {"1/2/4": "wait_written_once"}})
    process = start_in_background(waiting, second.home.parent)
    wait_for(lambda: (second.home / "fault-1-2-4").exists(), 60)
    damage(first, HOLE)
    repaired = first.model_copy(update={"add": 1})
    assert run(repaired).ok
    (second.home / "go").touch()
    assert process.wait(60) == 0
    documents = block_documents(second)
    again = {k for k, d in documents.items() if d["attempts"] == 2}
    assert again == {f"second/1/{y}/{x}" for y in (1, 2) for x in (2, 3, 4)}
    assert all(d["state"] == "done" for d in documents.values())
    assert run(second).blocks["computed"] == 0


def test_values_that_no_start_of_its_run_stored_are_noticed_in_an_output_too(first, second):
    assert run(first).ok and run(second).ok
    volume = Volume.open(Made(first).path, mode="r+")
    changed = volume.read(volume.box)
    changed[15, 29, 42] += 1
    volume.write(volume.box, changed)
    with pytest.raises(ChangedInputError, match=r"its run 'first' did not store"):
        run(second)


def test_an_old_run_without_ledger_is_asked_in_the_database(first, tmp_path):
    assert not run(with_hole(first)).ok
    make_old(first)
    with store_of(first) as store:  # its volume has the fingerprint of the run
        stored = Volume.open(Made(first).path).attributes["fingerprint"]
        store.runs.update_one({"_id": "first"}, {"$set": {"fingerprint": stored}})
    second = beside(first, tmp_path)
    with pytest.raises(IncompleteInputError, match=r"'first': not complete, the run lacks 1 of 30"):
        run(second)


@pytest.mark.parametrize("owner", ["", "elsewhere:1:2.00", "dead"])
def test_a_run_whose_database_is_lost_begins_again_unless_it_may_be_at_work(first, owner):
    assert run(first).ok
    path = Made(first).path
    owner = f"{socket.gethostname()}:999999:1.00" if owner == "dead" else owner
    write_ledger(path, read_ledger(path).replaced(state="open", owner=owner))
    lose_database(first)
    if owner.startswith(socket.gethostname()):
        assert run(first).blocks["computed"] == 30
    else:
        with pytest.raises(RefusedError, match="belongs to run 'first'"):
            run(first)


def test_a_run_killed_before_its_output_was_made_leaves_no_array_without_a_ledger(
    first, second, monkeypatch
):
    def killed(*_):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(type(first.output_specs()[0]), "create", killed)
        assert not run(first).ok
    assert read_ledger(Made(first).path).missing.all()
    assert run(first).ok and run(second).ok


# -- steps of one command -------------------------------------------------------------------------


def chain(raw, folder, databases):
    """Three steps of one command, each of which reads around its blocks what the one before wrote."""
    tasks, source = [], raw
    for name in ("a", "b", "c"):
        tasks.append(add_one(
            source, folder, run=name, output=str(folder / f"{name}.zarr"), context=(0, 2, 2),
            **databases[0],
        ))
        source = Made(tasks[-1])
    return tasks


def run_chain(tasks, **options):
    reports = run_steps(tasks, console=Console(quiet=True), **options)
    assert all(report.ok for report in reports)
    return [report.blocks["computed"] for report in reports]


def test_what_comes_out_as_it_was_makes_nothing_due(raw, tmp_path, databases):
    tasks = chain(raw, tmp_path / "chain", databases)
    assert run_chain(tasks) == [30, 30, 30]
    stored = [values(task) for task in tasks]
    damage(tasks[0], HOLE)
    # Those that read the damaged block may have read the damage; they come out as they were.
    assert run_chain(tasks) == [1, 6, 0]
    assert all(np.array_equal(a, values(task)) for a, task in zip(stored, tasks, strict=True))
    assert run_chain(tasks) == [0, 0, 0]


def test_what_comes_out_otherwise_is_followed_through_all_steps(raw, tmp_path, databases):
    tasks = chain(raw, tmp_path / "chain", databases)
    assert run_chain(tasks) == [30, 30, 30]
    changed = raw.read(raw.box)
    changed[15, 25, 35] = 255
    raw.write(raw.box, changed)
    assert run_chain(tasks, adopt=True) == [0, 0, 0]
    damage(tasks[0], HOLE)
    assert run_chain(tasks) == [1, 6, 6]  # the middle of the block: one block of each step differs
    whole = chain(raw, tmp_path / "fresh", [{**databases[0], "db_name": databases[1]["db_name"]}])
    assert run_chain(whole) == [30, 30, 30]
    assert all(
        np.array_equal(values(a), values(b)) for a, b in zip(tasks, whole, strict=True)
    )


def test_killed_while_blocks_are_done_again_nothing_is_forgotten(raw, tmp_path, databases):
    """The first step has stored other values when the command dies: what reads them is due then."""
    tasks = chain(raw, tmp_path / "chain", databases)
    assert run_chain(tasks) == [30, 30, 30]
    changed = raw.read(raw.box)
    changed[15, 25, 35] = 255
    raw.write(raw.box, changed)
    assert run_chain(tasks, adopt=True) == [0, 0, 0]
    damage(tasks[0], HOLE)
    assert run(tasks[0]).blocks["computed"] == 1  # and no further
    computed = run_chain(tasks)
    assert computed[0] == 0 and computed[1] == 6 and computed[2] >= 1
    fresh = chain(raw, tmp_path / "fresh", [{**databases[0], "db_name": databases[1]["db_name"]}])
    assert run_chain(fresh) == [30, 30, 30]
    assert np.array_equal(values(tasks[2]), values(fresh[2]))
