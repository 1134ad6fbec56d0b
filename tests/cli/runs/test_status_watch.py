"""`em-blocks status --watch` and `em-blocks dashboard` as commands."""

import json
import os
import re
import signal
import subprocess
import sys
import urllib.request

import pytest
from click.testing import CliRunner
from rich.console import Console

from blockwise import wait_for
from em_blocks.cli.common import watched_steps
from em_blocks.cli.main import main
from em_blocks.cli.runs import watching
from em_blocks.cli.runs.watching import TheEnd, screen
from em_blocks.db.connect import database_home
from em_blocks.runtime.monitoring.overview import StepView, overview
from recorded import EVIL, Recorded, stores

COMMAND = [sys.executable, "-c", "from em_blocks.cli.main import main; main()"]


@pytest.fixture
def config(tmp_path):
    """A config whose volumes need not exist to look at its run."""
    path = tmp_path / "clean config.json"
    path.write_text(json.dumps({
        "kind": "ingest", "run": "sum", "run_dir": ".", "output": "o.zarr/raw",
        "source": {"type": "hdf5", "path": "raw.h5", "dataset": "raw"},
    }))
    return path


def states(*found):
    """A snapshot of steps in these states."""
    steps = [{"run": f"step{n}", "state": state} for n, state in enumerate(found)]
    return {"away": None, "steps": steps}


def test_watching_ends_with_0_when_all_is_done():
    end = TheEnd()
    assert not end.reached(states("done", "running"))
    assert end.reached(states("done", "done")) and end.exit_code == 0


def test_watching_ends_with_1_when_a_step_that_ran_is_not_done():
    end = TheEnd()
    assert not end.reached(states("running", "waiting"))
    assert end.reached(states("failed", "waiting")) and end.exit_code == 1


def test_watching_waits_between_two_steps_but_not_for_ever(monkeypatch):
    end = TheEnd()
    assert not end.reached(states("running", "stopped"))
    assert not end.reached(states("done", "stopped"))  # the next one is about to start
    assert not end.reached(states("done", "running"))
    assert not end.reached(states("done", "done", "waiting"))
    monkeypatch.setattr(watching, "GRACE_S", -1.0)
    assert end.reached(states("done", "done", "waiting")) and end.exit_code == 1


def test_watching_outlives_a_lost_database():
    end = TheEnd()
    assert not end.reached({**states("done"), "away": {"since": "2026-01-01", "message": "gone"}})


def test_the_terminal_shows_steps_workers_and_failures(tmp_path):
    with stores(tmp_path, "seg.edges", "seg.lut") as (store, later):
        made = Recorded(store)
        made.first_done(15)
        made.failed("2/0/0")
        made.worker("w0", blocks=["0/3/0"])
        found = overview({StepView("edges", "r {block}"): store, StepView("lut", "r {block}"): later})
    away = {"since": "2026-01-01T10:00:00+00:00", "message": "connection refused"}
    text = rendered({**found, "away": away})
    assert "does not answer since" in text and "connection refused" in text
    for part in ("edges", "running", "15", "60", "lut", "waiting", "node1", "0/3/0", "ValueError"):
        assert part in text
    assert EVIL[:20] in text


def rendered(snapshot):
    with open(os.devnull, "w") as nowhere:
        console = Console(width=160, height=50, file=nowhere, record=True)
        console.print(screen(snapshot, 50))
        return console.export_text()


def test_a_watch_follows_the_run_and_ends_with_it(config):
    with stores(config.parent, "sum") as (store,):
        made = Recorded(store)
        made.first_done(59)
        watch = subprocess.Popen(
            [*COMMAND, "status", str(config), "--watch", "--json"], stdout=subprocess.PIPE, text=True
        )
        first = json.loads(watch.stdout.readline())
        made.done("2/3/4")
        made.end("done", mvox_s=2.0)
        lines, _ = watch.communicate(timeout=60)
    assert watch.returncode == 0
    last = json.loads(lines.splitlines()[-1])
    assert (first["state"], first["blocks"]["done"]) == ("running", 59)
    assert last["state"] == "done" and last["blocks"]["done"] == 60
    assert set(last) == {"run", "state", "blocks", "rate_mvox_s", "eta_s", "reason"}


def test_ctrl_c_ends_a_watch_without_a_traceback(config):
    with stores(config.parent, "sum") as (store,):
        Recorded(store)
        watch = subprocess.Popen(
            [*COMMAND, "status", str(config), "--watch", "--json"], stdout=subprocess.PIPE,
            stderr=subprocess.PIPE, text=True, start_new_session=True,
        )
        assert '"running"' in watch.stdout.readline()
        watch.send_signal(signal.SIGINT)
        _, errors = watch.communicate(timeout=60)
    assert (watch.returncode, errors) == (130, "")


def test_the_dashboard_prints_its_address_and_ends_with_ctrl_c(config):
    with stores(config.parent, "sum") as (store,):
        Recorded(store)
        page = subprocess.Popen(
            [*COMMAND, "dashboard", str(config)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
            text=True, start_new_session=True,
        )
        url = page.stdout.readline().strip()
        assert re.fullmatch(r"http://127\.0\.0\.1:\d+/[\w-]{16}/", url)
        found = wait_for(lambda: asked(url)["steps"] and asked(url))
        page.send_signal(signal.SIGINT)
        out, errors = page.communicate(timeout=60)
    assert (page.returncode, errors) == (0, "") and "Stopped." in out
    assert found["title"] == "sum" and found["steps"][0]["state"] == "running"
    assert found["steps"][0]["replay"] == f"em-blocks replay '{config}' {{block}}"
    assert database_home(config.parent).exists()


def asked(url):
    with urllib.request.urlopen(f"{url}api/overview", timeout=20) as answer:
        return json.load(answer)


def test_replay_commands_hold_no_password_and_keep_braces(config):
    overrides = ("db_host=mongodb://me:secret@db.example:27017/?tls=true", "num_workers={2}")
    (step,) = watched_steps(config, overrides[:1])
    assert "secret" not in step.replay and "db_host=mongodb://db.example:27017" in step.replay
    from em_blocks.cli.common import _replay_command

    command = _replay_command(config, overrides[1:], "edges").format(block="0/1/2")
    assert command.endswith("0/1/2 --set 'num_workers={2}' --step edges")


def test_the_dashboard_warns_that_others_can_read_it(config, monkeypatch):
    from contextlib import contextmanager
    from types import SimpleNamespace

    import em_blocks.runtime.dashboard.server as server

    @contextmanager
    def opened(steps, *, title, host, port):
        yield SimpleNamespace(is_private=host == "127.0.0.1", url="http://x/", serve=lambda: None)

    monkeypatch.setattr(server, "open_dashboard", opened)
    result = CliRunner().invoke(main, ["dashboard", str(config), "--host", "10.0.0.7"])
    assert "there is no login" in result.stderr and result.exit_code == 0
    assert CliRunner().invoke(main, ["dashboard", str(config)]).stderr == ""
