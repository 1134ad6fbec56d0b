"""What is written about the end of a command, for whoever comes later."""

import json
from dataclasses import asdict

import pytest
from rich.console import Console

from blockwise import add_one, make_raw, run, store_of
from em_blocks.errors import EmBlocksError, FingerprintMismatchError
from em_blocks.runtime.monitoring.status import run_status
from em_blocks.runtime.scheduler.run import run_steps

QUIET = Console(quiet=True)


@pytest.fixture
def raw(tmp_path):
    return make_raw(tmp_path, shape=(10, 10, 20))


def steps(raw, tmp_path, **options):
    """Two steps in one folder, of which the first may have a block that fails."""
    home = tmp_path / "a"
    shared = {"max_retries": 0, "run_dir": str(home), "block_shape": (10, 10, 10)}
    return [
        add_one(raw, home, run="job.first", output=str(home / "first.zarr"), **shared, **options),
        add_one(raw, home, run="job.second", output=str(home / "second.zarr"), **shared),
    ]


def summary(tmp_path, *names):
    return json.loads((tmp_path / "a").joinpath(*names or ["summary.json"]).read_text())


def test_the_summary_of_a_command_is_that_of_the_step_that_failed(raw, tmp_path):
    made = steps(raw, tmp_path, faults={"0/0/1": "raise"})
    reports = run_steps(made, console=QUIET)
    assert not reports[0].ok
    found = summary(tmp_path)
    assert found["run"] == "job.first" and found["state"] == "failed"
    assert found["reason"] == ("1 of 2 blocks are not done; 0/0/1 is quarantined after 1 attempts with "
                               "ValueError in compute: this block is poison")
    assert found["blocks"]["quarantined"] == 1 and found["failures"][0]["block"] == "0/0/1"
    assert [step["run"] for step in found["steps"]] == ["job.first", "job.second"]
    assert found["steps"][0]["reason"] == found["reason"]
    with store_of(made[0]) as store:
        assert run_status(store)["reason"] == found["reason"]


def test_runs_that_share_a_folder_keep_their_own_summaries(raw, tmp_path):
    first, second = steps(raw, tmp_path, faults={"0/0/1": "raise"})
    failed, done = run(first), run(second)
    assert not failed.ok and done.ok
    for report in (failed, done):
        kept = summary(tmp_path, "summary", f"{report.run}.json")
        assert kept == json.loads(json.dumps(asdict(report)))
    latest = summary(tmp_path)
    assert latest["run"] == "job.second" and latest["state"] == "done"
    assert [step["run"] for step in latest["steps"]] == ["job.second"]


def test_when_all_is_done_the_last_step_is_told_with_all_in_short(raw, tmp_path):
    run_steps(steps(raw, tmp_path), console=QUIET)
    found = summary(tmp_path)
    assert found["run"] == "job.second" and found["state"] == "done" and found["reason"] is None
    assert [step["state"] for step in found["steps"]] == ["done", "done"]
    with store_of(steps(raw, tmp_path)[1]) as store:
        assert run_status(store)["reason"] is None


def test_a_step_that_cannot_begin_is_named_with_its_reason(raw, tmp_path):
    first, second = steps(raw, tmp_path)
    assert run(second).ok
    with pytest.raises(FingerprintMismatchError) as refused:
        run_steps([first, second.model_copy(update={"add": 2})], console=QUIET)
    found = summary(tmp_path)
    assert found["run"] == "job.second" and found["reason"] == str(refused.value)
    assert [step["state"] for step in found["steps"]] == ["failed", "failed"]
    with store_of(first) as store:
        status = run_status(store)
    assert status["state"] == "failed"
    assert status["reason"] == f"the step job.second cannot begin: {refused.value}"
    assert run(first).ok


def test_a_run_whose_measuring_fails_says_so(raw, tmp_path, monkeypatch):
    first, _ = steps(raw, tmp_path)

    def measure(self, earlier=None):
        raise EmBlocksError("the volume is nearly constant")

    monkeypatch.setattr(type(first), "measure", measure)
    with pytest.raises(EmBlocksError):
        run(first)
    assert summary(tmp_path)["reason"] == "the volume is nearly constant"
    with store_of(first) as store:
        assert run_status(store)["state"] == "failed"


def test_a_refused_command_writes_no_summary(raw, tmp_path):
    first, _ = steps(raw, tmp_path)
    with pytest.raises(EmBlocksError):
        run(first.model_copy(update={"raw": str(tmp_path / "none")}))
    assert not (tmp_path / "a").exists()
