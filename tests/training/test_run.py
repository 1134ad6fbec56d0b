"""Whole trainings with the real command, stopped and continued."""

import json
import os
import runpy
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from click.testing import CliRunner
from safetensors.torch import load_file

from em_blocks.models.setup import Setup, load_weights
from em_blocks.training.checkpoints import TrainingFiles
from tiny_setup import tiny_config, write_setup

ROOT = Path(__file__).parents[2]


def command(folder, *options):
    environment = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONPATH": str(ROOT)}
    run = [sys.executable, ROOT / "pipelines" / "train.py", folder / "config.json", *options]
    return {"args": run, "env": environment, "stdout": subprocess.PIPE, "stderr": subprocess.PIPE}


def train(folder, *options):
    return subprocess.run(**command(folder, *options), text=True, timeout=120)


def refused(folder, *options):
    """Exit code and message of a command that must fail; in this process, to save start-up."""
    main = runpy.run_path(str(ROOT / "pipelines" / "train.py"))["main"]
    result = CliRunner().invoke(main, [str(folder / "config.json"), *options])
    assert isinstance(result.exception, SystemExit), result.exception
    assert result.stderr.count("\n") == 1, "one paragraph"
    return result.exit_code, result.stderr


def weights(folder, name):
    return load_file(folder / "checkpoints" / f"{name}.safetensors")


def same(one, two):
    return one.keys() == two.keys() and all(bool((one[key] == two[key]).all()) for key in one)


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """An undisturbed training; read only."""
    folder = write_setup(tmp_path_factory.mktemp("undisturbed") / "tiny")
    done = train(folder)
    assert done.returncode == 0, done.stderr
    return folder


def test_a_training_leaves_weights_states_a_log_and_a_record(trained):
    names = {path.name for path in (trained / "checkpoints").iterdir()}
    assert names == {
        "best.safetensors", "checkpoint_6.safetensors", "checkpoint_8.safetensors",
        "state_6.pt", "state_8.pt", "record.json",
    }  # fmt: skip
    assert list((trained / "training").glob("events*"))
    setup = Setup.from_folder(trained)
    load_weights(setup.build(), setup.checkpoint_path("best"))


def test_the_record_tells_how_the_weights_were_made(trained):
    record = json.loads((trained / "checkpoints" / "record.json").read_text())
    assert record["iteration"] == 8
    assert record["seconds"] > 0
    assert record["command"].startswith("python ")
    assert "config.json" in record["command"]
    assert record["config"]["training"]["seed"] == 1
    assert [entry["iteration"] for entry in record["history"]] == [4, 8]
    score = "affinities/cut_ap"
    assert record["best"][score] == max(entry[score] for entry in record["history"])
    assert record["best"].keys() >= {"affinities/voi_split", "affinities/balanced_ce"}
    assert len(record["data"]["sources"][0]["sha256"]) == 64
    assert record["versions"].keys() >= {"python", "torch", "gunpowder"}


def test_a_killed_training_resumes_to_the_same_weights(trained, tmp_path):
    folder = write_setup(tmp_path / "tiny")
    process = subprocess.Popen(**command(folder), start_new_session=True)
    deadline = time.monotonic() + 90
    while not list(folder.glob("checkpoints/state_*.pt")) and time.monotonic() < deadline:
        time.sleep(0.005)
    os.killpg(process.pid, signal.SIGKILL)
    process.communicate()
    assert not (folder / "checkpoints" / "state_8.pt").exists(), "killed too late to test anything"
    resumed = train(folder, "--resume")
    assert resumed.returncode == 0, resumed.stderr
    for name in ("checkpoint_8", "best"):
        assert same(weights(folder, name), weights(trained, name))


@pytest.fixture
def endless(tmp_path):
    """A training that has written a checkpoint, and goes on for long."""
    folder = write_setup(tmp_path / "tiny")
    process = subprocess.Popen(
        **command(folder, "--iterations", "100000", "--set", "training.checkpoint_every=5",
                  "--set", "training.validate_every=50000"),
        text=True, start_new_session=True,
    )
    deadline = time.monotonic() + 90
    while not list(folder.glob("checkpoints/state_*.pt")) and time.monotonic() < deadline:
        time.sleep(0.01)
    yield folder, process
    process.kill()
    process.communicate()


def test_a_second_training_in_a_folder_is_refused_and_a_stopped_one_says_how_to_go_on(endless):
    folder, process = endless
    for options in ((), ("--resume",)):
        code, message = refused(folder, *options)
        assert code == 3
        assert f":{process.pid}:" in message and "--output" in message
    process.send_signal(signal.SIGTERM)
    _, said = process.communicate(timeout=60)
    assert process.returncode == 1
    done = max(int(f.stem.removeprefix("state_")) for f in folder.glob("checkpoints/state_*.pt"))
    last = said.strip().splitlines()[-1]
    assert f"stopped by SIGTERM after iteration {done} of 100000" in last
    go_on = shlex.split(last.partition("go on with: ")[2])
    assert go_on[1:3] == [str(ROOT / "pipelines" / "train.py"), str(folder / "config.json")]
    assert go_on[-1] == "--resume"
    resumed = subprocess.run(
        [sys.executable, *go_on[1:], "--iterations", str(done + 1)],
        env=os.environ | {"PYTHONPATH": str(ROOT)}, capture_output=True, text=True, timeout=120,
    )
    assert resumed.returncode == 0, resumed.stderr
    assert f"{done + 1} iterations are done. Best checkpoint: " in resumed.stdout
    assert "affinities/cut_ap" in resumed.stdout


def test_a_second_signal_ends_a_training_at_once(endless):
    folder, process = endless
    process.send_signal(signal.SIGSTOP)  # so that both come while it does something else
    process.send_signal(signal.SIGTERM)
    process.send_signal(signal.SIGCONT)
    line = process.stderr.readline()
    while "a second one ends it" not in line:
        line = process.stderr.readline()
    process.send_signal(signal.SIGTERM)
    assert process.wait(timeout=30) in (-signal.SIGTERM, 1)  # 1 if it was quicker
    TrainingFiles(folder).load_state()


@pytest.mark.parametrize("place", ["file", "file/deeper"])
def test_a_file_in_the_place_of_the_output_is_one_paragraph(tmp_path, place):
    folder = write_setup(tmp_path / "tiny")
    (tmp_path / "file").write_text("mine")
    result = CliRunner().invoke(
        runpy.run_path(str(ROOT / "pipelines" / "train.py"))["main"],
        [str(folder / "config.json"), "--output", str(tmp_path / place)],
    )
    assert result.exit_code == 2
    assert "Traceback" not in result.output and (tmp_path / "file").read_text() == "mine"


def test_the_config_that_is_named_is_trained(tmp_path):
    folder = write_setup(tmp_path / "tiny")
    (folder / "config.json").write_text("{")
    (folder / "other.json").write_text(json.dumps(tiny_config() | {"tile_shape": [4, 15, 16]}))
    main = runpy.run_path(str(ROOT / "pipelines" / "train.py"))["main"]
    options = [str(folder / "other.json"), "--output", str(tmp_path / "out")]
    result = CliRunner().invoke(main, options)
    assert (result.exit_code, "(4, 14, 16)" in result.stderr) == (2, True), result.output
    assert not (tmp_path / "out").exists()


def test_a_folder_with_a_training_is_not_silently_continued(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "tiny")
    before = weights(folder, "best")
    code, message = refused(folder)
    assert code == 3
    assert "--resume" in message
    assert same(weights(folder, "best"), before)


def test_another_config_is_not_resumed_and_its_fields_are_named(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "tiny")
    options = ("--resume", "--set", "training.learning_rate=0.1", "--set", "training.warmup=3")
    code, message = refused(folder, *options)
    assert code == 3
    assert "config.training.learning_rate: 0.001 -> 0.1" in message
    assert "config.training.warmup: 2 -> 3" in message
    assert "may be changed: iterations, validate_every" in message


def test_another_network_file_is_not_resumed(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "tiny")
    with (folder / "network.py").open("a") as file:
        file.write("# changed\n")
    code, message = refused(folder, "--resume")
    assert code == 3
    assert "network_py" in message


def test_another_output_folder_becomes_a_setup_with_the_same_weights(trained, tmp_path):
    source = write_setup(tmp_path / "source")
    done = train(source, "--output", tmp_path / "made" / "here")
    assert done.returncode == 0, done.stderr
    setup = Setup.from_folder(tmp_path / "made" / "here")
    assert same(weights(setup.folder, "best"), weights(trained, "best"))
    assert not (source / "checkpoints").exists()
    assert setup.config.training == Setup.from_folder(source).config.training


@pytest.mark.parametrize(
    ("option", "message"),
    [
        ("training.colour=1", "'training.colour' is unknown"),
        ("training.output_shape=[4,15,16]", "(4, 14, 16) or (4, 16, 16)"),
        ("tile_shape=[4,15,16]", "(4, 14, 16) or (4, 16, 16)"),
        ('training.validation=[{"raw":"/nowhere","labels":"/nowhere"}]', "/nowhere"),
    ],
)
def test_bad_input_is_one_paragraph_with_exit_code_2(tmp_path, option, message):
    folder = write_setup(tmp_path / "tiny")
    code, said = refused(folder, "--set", option)
    assert code == 2
    assert message in said
    assert not (folder / "checkpoints").exists()


def test_resume_without_a_training_says_so(tmp_path):
    code, message = refused(write_setup(tmp_path / "tiny"), "--resume")
    assert code == 2
    assert "no training to resume" in message


def test_a_score_that_no_head_gives_lists_the_given_ones(tmp_path):
    values = tiny_config()
    values["training"] |= {"score": "affinities/beauty", "validate_every": 1}
    code, message = refused(write_setup(tmp_path / "tiny", values))
    assert code == 2
    assert "affinities/cut_ap" in message


def test_a_spoilt_state_is_reported_not_executed(trained, tmp_path):
    folder = shutil.copytree(trained, tmp_path / "tiny")
    (folder / "checkpoints" / "state_8.pt").write_bytes(b"spoilt")
    code, message = refused(folder, "--resume")
    assert code == 2
    assert "state_8.pt" in message


def test_a_training_can_begin_with_the_weights_of_another(trained, tmp_path):
    values = tiny_config()
    values["heads"]["lsd"] = {"kind": "lsd", "sigma_nm": 20}
    values["training"] |= {
        "initial": str(trained / "checkpoints" / "best.safetensors"),
        "iterations": 2, "validate_every": 2, "warmup": 1000,
    }  # fmt: skip
    folder = write_setup(tmp_path / "further", values)
    done = train(folder)
    assert done.returncode == 0, done.stderr
    record = json.loads((folder / "checkpoints" / "record.json").read_text())
    assert len(record["initial"]) == 64
    assert record["history"][0]["lsd/mse"] > 0
    old, new = weights(trained, "best"), weights(folder, "best")
    for key, value in old.items():  # after two tiny steps still about where they began
        assert (new[key] - value).abs().max() < 1e-4, key
    code, message = refused(folder, "--resume", "--set", "training.initial=/nowhere/best.safetensors")
    assert code == 2, message
    assert "/nowhere/best.safetensors" in message
