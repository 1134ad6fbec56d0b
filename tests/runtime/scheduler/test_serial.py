"""Runs without workers: the same records, files and refusals as with them."""

import pdb
import subprocess
import sys
import threading

import numpy as np
import pytest
from rich.console import Console

import blockwise
from blockwise import (
    AddOne,
    add_one,
    assert_same_result,
    block_documents,
    make_raw,
    run,
    store_of,
    stored_files,
)
from em_blocks.errors import ConfigError, LeaseHeldError
from em_blocks.runtime.protocol.job import Job
from em_blocks.runtime.runs.leases import this_owner
from em_blocks.runtime.scheduler.run import run_steps
from em_blocks.volumes import Volume

OF_A_WORKER = {"worker", "host", "device", "started", "finished", "seconds", "peak_memory_mb", "epoch"}


@pytest.fixture
def raw(tmp_path):
    return make_raw(tmp_path)


def serially(task, **options):
    return run(task, serial=True, **options)


def same_fields(task):
    """What blocks say of themselves, whoever did them."""
    documents = block_documents(task).values()
    return {d["_id"]: {k: v for k, v in d.items() if k not in OF_A_WORKER} for d in documents}


def test_a_serial_run_starts_no_process_and_leaves_what_workers_leave(raw, tmp_path, monkeypatch):
    parallel = add_one(raw, tmp_path / "a", num_workers=2)
    assert run(parallel).ok
    started = []
    with store_of(parallel) as store:  # an embedded server of its own would be a process
        address = f"127.0.0.1:{store.client.address[1]}"
        serial = add_one(raw, tmp_path / "b", db_host=address, db_name="other")
        with monkeypatch.context() as patch:
            patch.setattr(subprocess, "Popen", started.append)
            report = serially(serial)
        assert report.ok and report.blocks["computed"] == 30 and not started
        assert stored_files(serial) == stored_files(parallel)
        assert same_fields(serial) == same_fields(parallel)
        (worker,) = store.client["other"].workers.find()
    assert (worker["state"], worker["done"], worker["slot"]) == ("left", 30, "")


@pytest.mark.parametrize("first_serial", [True, False])
def test_workers_finish_what_a_serial_run_began_and_the_other_way_round(raw, tmp_path, first_serial):
    reference = add_one(raw, tmp_path / "whole", num_workers=2)
    assert run(reference).ok
    poison = {f"1/{y}/{x}": "raise" for y in range(3) for x in range(5)}
    task = add_one(raw, tmp_path / "half", max_retries=0, faults=poison, num_workers=2)
    first = run(task, serial=first_serial)
    assert (first.state, first.blocks["done"], first.blocks["quarantined"]) == ("failed", 15, 15)
    healed = add_one(raw, tmp_path / "half", max_retries=0, num_workers=2)
    second = run(healed, serial=not first_serial, requeue=True)
    assert second.ok and second.blocks["skipped"] == second.blocks["computed"] == 15
    assert_same_result(healed, reference)
    with store_of(healed) as store:
        assert store.attempts.count_documents({}) == 15


def test_a_block_that_fails_once_is_tried_again_and_one_that_always_fails_is_quarantined(raw, tmp_path):
    task = add_one(raw, tmp_path / "a", faults={"0/1/2": "raise_once", "1/2/4": "raise"}, max_retries=1)
    report = serially(task)
    assert (report.state, report.blocks["done"], report.blocks["quarantined"]) == ("failed", 29, 1)
    documents = block_documents(task)
    assert documents["sum/0/1/2"]["attempts"] == 2 == documents["sum/1/2/4"]["failures"]
    assert documents["sum/1/2/4"]["error"]["type"] == "ValueError"


def test_a_block_waits_for_those_of_the_step_before_that_it_reads(raw, tmp_path):
    first = add_one(raw, tmp_path / "a", run="first")
    second = AddOne.from_dict({
        **first.model_dump(), "run": "second", "raw": first.output_specs()[0].path,
        "output": str(tmp_path / "a/second.zarr"), "context": (2, 0, 3),
    })
    reports = run_steps([first, second], serial=True, console=Console(quiet=True))
    assert [report.ok for report in reports] == [True, True]
    parallel = add_one(raw, tmp_path / "b", run="first")
    again = AddOne.from_dict({
        **second.model_dump(), "raw": parallel.output_specs()[0].path, "run_dir": None,
        "output": str(tmp_path / "b/second.zarr"),
    })
    assert all(r.ok for r in run_steps([parallel, again], console=Console(quiet=True)))
    assert stored_files(second) == stored_files(again)
    with store_of(first) as store:  # depth first: the second run has not waited for the whole first
        order = [d["_id"] for d in store.blocks.find(sort=[("finished", 1)])]
    assert order.index("second/0/0/0") < order.index("first/1/2/4")


class Here(AddOne):
    """A task of this module."""


def local_class():
    class Local(AddOne):
        pass

    return Local


def in_main():
    kind = type("Threshold", (AddOne,), {"__module__": "__main__"})
    return kind


def elsewhere():
    return type("Lost", (AddOne,), {"__module__": "no_such_module"})


def replaced():
    return type("Here", (AddOne,), {"__module__": __name__})


@pytest.mark.parametrize(
    ("make", "reason"),
    [
        (in_main, "is defined in __main__"),
        (local_class, "is defined inside a function"),
        (elsewhere, "a module that `import` does not find"),
        (replaced, "was reloaded or redefined: it is not what the module .*test_serial holds now"),
    ],
)
def test_a_task_that_workers_cannot_import_is_refused_at_once_and_works_serially(
    raw, tmp_path, make, reason
):
    task = make().from_dict(add_one(raw, tmp_path / "a").model_dump())
    with pytest.raises(ConfigError, match=reason) as caught:
        run(task)
    assert "into a module" in str(caught.value) and "serial=True" in str(caught.value)
    assert caught.value.exit_code == 2 and not (tmp_path / "a").exists()
    with pytest.raises(ConfigError, match=reason):
        Job.of(task, measured={}, uri="mongodb://nowhere", epoch=1)
    assert serially(task).ok
    out = Volume.open(task.output_specs()[0].path)
    np.testing.assert_array_equal(out.read(out.box), raw.read(raw.box).astype("uint16") + 1)


def test_a_class_inside_of_a_class_of_a_module_is_found_by_workers(raw, tmp_path):
    task = Outer.Inner.from_dict(add_one(raw, tmp_path / "a").model_dump())
    assert type(Job.of(task, measured={}, uri="mongodb://nowhere", epoch=1).task()) is Outer.Inner


class Outer:
    """A name space."""

    class Inner(AddOne):
        """A task in there."""


@pytest.mark.parametrize("serial", [True, False])
def test_a_run_works_from_any_thread(raw, tmp_path, serial):
    task, reports = add_one(raw, tmp_path / "a"), []
    thread = threading.Thread(target=lambda: reports.append(run(task, serial=serial)))
    thread.start()
    thread.join(120)
    assert reports and reports[0].ok and reports[0].blocks["computed"] == 30


@pytest.mark.parametrize("error", [KeyboardInterrupt, pdb.bdb.BdbQuit])
def test_what_a_debugger_or_ctrl_c_ends_is_kept_and_continued(raw, tmp_path, error, monkeypatch):
    task, fault = add_one(raw, tmp_path / "a"), AddOne._fault

    def quit_at(self, key):
        if key == "0/2/1":
            raise error
        return fault(self, key)

    with monkeypatch.context() as patch:
        patch.setattr(AddOne, "_fault", quit_at)
        report = serially(task)
    assert (report.state, report.reason) == ("stopped", "interrupted")
    n = report.blocks["done"]
    assert n == 11 and "sum/0/2/1" not in block_documents(task)
    report = serially(task)
    assert report.ok and (report.blocks["skipped"], report.blocks["computed"]) == (n, 30 - n)


def test_a_task_that_cannot_be_opened_raises_its_own_error_and_lets_the_run_go(raw, tmp_path):
    with pytest.raises(OSError, match="no such device"):
        serially(add_one(raw, tmp_path / "a", faults={"start": "raise"}))
    task = add_one(raw, tmp_path / "a")
    with store_of(task) as store:
        document = store.load()
        assert (document["state"], document["lease"]["owner"]) == ("failed", None)
        assert "OSError: no such device" in document["summary"]["reason"]
    assert serially(task).ok


def test_a_task_that_exits_lets_the_run_go(raw, tmp_path, monkeypatch):
    task = add_one(raw, tmp_path / "a")
    with monkeypatch.context() as patch:
        patch.setattr(AddOne, "_fault", lambda self, key: sys.exit(3))
        with pytest.raises(SystemExit):
            serially(task)
    with store_of(task) as store:
        document = store.load()
    assert (document["state"], document["lease"]["owner"]) == ("failed", None)
    assert document["summary"]["reason"] == "SystemExit: 3"
    assert serially(task).ok


def test_blocks_that_all_fail_alike_end_a_serial_run(raw, tmp_path, monkeypatch):
    monkeypatch.setattr("em_blocks.runtime.scheduler.watchdog.HEARTBEAT_S", 0.05)
    faults = {f"{z}/{y}/{x}": "raise" for z in range(2) for y in range(3) for x in range(5)}
    report = serially(add_one(raw, tmp_path / "a", faults=faults, sleep_s=0.1))
    assert "blocks all failed with ValueError" in report.reason and report.blocks["done"] == 0


def test_a_serial_run_holds_the_lease_and_writes_nothing_once_another_has_it(raw, tmp_path, monkeypatch):
    task, fault = add_one(raw, tmp_path / "a"), AddOne._fault

    def taken_over(self, key):
        if key == "0/1/0":
            with store_of(task) as store:
                assert store.take_lease(this_owner()) is None  # it is held
                with pytest.raises(LeaseHeldError):
                    run(add_one(raw, tmp_path / "a"))
                assert store.take_lease("other:1:1", from_owner=this_owner())
        return fault(self, key)

    monkeypatch.setattr(AddOne, "_fault", taken_over)
    report = serially(task)
    assert report.reason == "another scheduler took the run over" and report.blocks["done"] <= 5
    out = Volume.open(task.output_specs()[0].path)
    assert not out.read(out.box)[:10, 10:].any()


def test_a_notebook_like_script_runs_serially_and_is_refused_with_workers(raw, tmp_path):
    """A class of ``__main__``, in a process of its own."""
    script = tmp_path / "script.py"
    script.write_text(f"""
import sys
sys.path.insert(0, {str(blockwise.__file__).rsplit("/", 1)[0]!r})
from blockwise import AddOne
from em_blocks.runtime.scheduler.run import run_blockwise
from em_blocks.errors import EmBlocksError

class Mine(AddOne):
    pass

task = Mine.from_dict({add_one(raw, tmp_path / "a").model_dump(mode="json")!r})
try:
    run_blockwise(task)
except EmBlocksError as error:
    print("refused:", error, error.exit_code)
print(run_blockwise(task, serial=True).state)
""")
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=120)
    refused, state = done.stdout.strip().splitlines()
    assert "Mine is defined in __main__" in refused and refused.endswith(" 2"), done.stderr
    assert state == "done"
