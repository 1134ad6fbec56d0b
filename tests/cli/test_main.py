"""The commands as a user types them: output, exit codes, and what they leave on disk."""

import json
import os
import re
from pathlib import Path

import numpy as np
import pymongo
import pytest
from click.testing import CliRunner

from blockwise import FRAME
from em_blocks.cli.main import main
from em_blocks.volumes import Volume


@pytest.fixture
def config(tmp_path, setup_folder):
    """A prediction config whose paths are relative to it."""
    raw = Volume.create(str(tmp_path / "raw.zarr/raw"), shape=(12, 24, 24), dtype="uint8",
                        frame=FRAME, chunk_shape=(6, 12, 12))
    raw.write(raw.box, np.random.default_rng(0).integers(0, 256, raw.shape).astype("uint8"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({
        "kind": "predict", "run": "cli", "raw": "raw.zarr/raw", "setup": str(setup_folder),
        "output": "out/p.zarr", "block_shape": [6, 24, 12], "precision": "fp32",
    }))
    return path


def call(*arguments):
    before = dict(os.environ)  # `replay` sets threads for its own process, which is ours here
    try:
        result = CliRunner().invoke(main, [str(a) for a in arguments])
    finally:
        os.environ.clear()
        os.environ.update(before)
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_run_status_replay_verify_and_plan_tell_one_story(config, tmp_path):
    result = call("predict", config, "--json")
    assert result.exit_code == 0
    report = json.loads(result.stdout)
    assert report["blocks"]["done"] == 4 and report["state"] == "done"
    assert json.loads((tmp_path / "out/summary.json").read_text())["blocks"] == report["blocks"]

    status = json.loads(call("status", config, "--json").stdout)
    assert status == {
        "run": "cli", "state": "done", "rate_mvox_s": status["rate_mvox_s"], "eta_s": 0.0,
        "reason": None,
        "blocks": {"total": 4, "done": 4, "failed": 0, "quarantined": 0, "masked": 0, "running": 0},
    }
    assert status["rate_mvox_s"] > 0

    replay = call("replay", config, "1/0/1")
    assert replay.exit_code == 0 and "equals the one in the database" in replay.stdout

    assert call("verify", config).exit_code == 0
    chunk = next(p for p in tmp_path.glob("out/p.zarr/affinities/*/**/*") if p.is_file())
    chunk.unlink()
    verify = call("verify", config, "--json")
    assert verify.exit_code == 1 and len(json.loads(verify.stdout)["damaged"]) == 1
    assert json.loads(call("predict", config, "--json").stdout)["blocks"]["computed"] == 1

    plan = json.loads(call("plan", config, "--json").stdout)
    (step,) = plan["steps"]
    assert step["blocks"] == step["done"] == 4 and step["left"] == 0 == plan["total"]["left"]
    assert step["read_amplification"] > 1


def test_a_changed_config_exits_with_3_and_names_the_field(config):
    assert call("predict", config).exit_code == 0
    result = call("predict", config, "--set", "padding=constant")
    assert result.exit_code == 3
    assert "config.padding: 'reflect' -> 'constant'" in result.stderr


def test_dry_run_writes_nothing(config, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = call("predict", config, "--dry-run")
    assert result.exit_code == 0 and "read amplification" in result.stdout
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("colour=blue", "key 'colour' is unknown"),
        ("num_workers=many", "'num_workers': got 'many'"),
        ("raw=nowhere.zarr/raw", "There is no volume at .*nowhere.zarr/raw"),
        ("raw=raw.zarr", "It is a container; name one of its arrays: raw"),
        ("block_shape=[6,24]", "'block_shape"),
        ("launcher=ssh", "'launcher'"),
        ("launcher=lsf", "not on PATH here"),
        ("db_host=127.0.0.1:1", "does not answer"),
        ("output=/proc/none/p.zarr", "cannot be written"),
        ("checkpoint=none.pt", "does not exist"),
    ],
)
def test_bad_input_exits_with_2_and_writes_nothing(config, tmp_path, override, words, monkeypatch):
    monkeypatch.setattr("em_blocks.db.connect.SELECT_TIMEOUT_MS", 300)
    before = sorted(tmp_path.rglob("*"))
    result = call("predict", config, "--set", override)
    assert result.exit_code == 2
    assert re.search(words, result.stderr), result.stderr
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize("text", ["{", "[1]", '{"kind": "paint"}'])
def test_a_file_that_is_no_config_exits_with_2(tmp_path, text):
    path = tmp_path / "c.json"
    path.write_text(text)
    for verb in ("predict", "status", "plan", "verify"):
        result = call(verb, path)
        assert result.exit_code == 2 and result.stderr.startswith("Error: ")
    assert call("predict", tmp_path / "missing.json").exit_code == 2


def test_status_of_a_run_that_never_started_says_so(config, tmp_path):
    result = call("status", config)
    assert result.exit_code == 2 and "never started" in result.stderr
    assert not (tmp_path / "out").exists()


def test_the_embedded_database_can_be_kept_up_for_queries(config):
    assert call("predict", config).exit_code == 0
    assert call("db", "uri", config).exit_code == 2
    uri = call("db", "start", config).stdout.strip()
    try:
        with pymongo.MongoClient(uri) as client:
            assert client.em_blocks.blocks.count_documents({"run": "cli", "state": "done"}) == 4
        assert call("db", "uri", config).stdout.strip() == uri
        assert call("predict", config).exit_code == 0
        assert call("db", "uri", config).exit_code == 0  # the run did not stop it
    finally:
        assert "has stopped" in call("db", "stop", config).stdout


def test_every_verb_has_help():
    for verb in ("ingest", "train", "predict", "demo", "plan", "status", "retry", "replay",
                 "verify", "db"):
        assert verb in call("--help").stdout
        assert call(verb, "--help").exit_code == 0, verb


def test_the_script_runs_from_a_checkout():
    import subprocess
    import sys

    script = Path(__file__).parents[2] / "pipelines" / "predict_blockwise.py"
    done = subprocess.run([sys.executable, str(script), "--help"], capture_output=True, text=True)
    assert done.returncode == 0 and "CONFIG" in done.stdout


def test_a_run_without_a_block_shape_keeps_the_one_it_began_with(config):
    values = json.loads(config.read_text())
    del values["block_shape"]
    config.write_text(json.dumps(values | {"cluster": {"memory_gb": 4.0}}))
    first = json.loads(call("predict", config, "--json").stdout)
    assert first["state"] == "done" and first["blocks"]["total"] == 1  # all of it fits
    # 12 x 24 x 24 voxels of three heads in three blocks are 0.1 MB: this would be smaller blocks.
    less = ["--set", "cluster.memory_gb=0.0001"]
    for command in ("status", "verify"):
        assert call(command, config, *less).exit_code == 0
    again = json.loads(call("predict", config, "--json", *less).stdout)
    assert again["blocks"]["total"] == again["blocks"]["skipped"] == 1
    assert json.loads(call("plan", config, "--json", *less).stdout)["steps"][0]["left"] == 0
