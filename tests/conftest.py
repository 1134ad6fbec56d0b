"""Paths and fixtures for all tests."""

import faulthandler
import importlib.util
import json
import shutil
import signal
import socket
import subprocess
import sys
import time
import urllib.request
from pathlib import Path

import pytest
from hypothesis import settings

sys.path.insert(0, str(Path(__file__).parent))
# Tests press Ctrl-C; in the background of a script, commands would inherit that it is ignored.
signal.signal(signal.SIGINT, signal.default_int_handler)
faulthandler.enable()

# Examples are the same in every run, and a busy machine is no failure.
settings.register_profile("em_blocks", deadline=None, derandomize=True)
settings.load_profile("em_blocks")

SETUPS = Path(__file__).parents[1] / "setups"


@pytest.fixture(autouse=True)
def signals_are_left_alone():
    """Commands inherit what is ignored: a test that leaves a handler makes later ones fail."""
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    yield
    assert [signal.getsignal(number) for number in numbers] == before


@pytest.fixture(scope="session")
def setup_folder(tmp_path_factory):
    """The shipped setup with few features and random weights."""
    folder = tmp_path_factory.mktemp("setup") / "tiny"
    folder.mkdir()
    shutil.copy(SETUPS / "affinities" / "network.py", folder)
    config = json.loads((SETUPS / "affinities" / "config.json").read_text())
    config["network"] = {
        "features": [3, 5],
        "kernels": [[[1, 3, 3], [3, 3, 3]], [[3, 3, 3]]],
        "pooling": [[1, 2, 2]],
    }
    config["tile_shape"] = [6, 12, 12]
    config["voxel_size"] = (40.0, 4.6, 4.6)
    (folder / "config.json").write_text(json.dumps(config))
    import torch
    from safetensors.torch import save_file

    from em_blocks.models.setup import Setup

    torch.manual_seed(1)
    network = Setup.from_folder(folder).build()
    (folder / "checkpoints").mkdir()
    save_file(network.state_dict(), folder / "checkpoints" / "best.safetensors")
    return folder


@pytest.fixture(scope="module")
def runs_address(tmp_path_factory):
    """The address of a run database that stays up for all tests of a file."""
    from em_blocks.db.trainings.run_database import run_database

    address = str(tmp_path_factory.mktemp("runs"))
    with run_database(address):
        yield address


@pytest.fixture
def recorded(tmp_path):
    """The folder of a recorded training."""
    from recorded_training import write_training

    return write_training(tmp_path / "one")


@pytest.fixture
def number(runs_address, recorded):
    """The number of the training `recorded` in the run database."""
    from em_blocks.db.trainings.run_database import run_database
    from em_blocks.training.records.importing import import_training

    with run_database(runs_address) as store:
        return import_training(store, recorded)


@pytest.fixture(scope="session")
def endpoint():
    """The URL of an S3 server that ends with the tests."""
    if importlib.util.find_spec("moto") is None:
        pytest.fail("these tests need an S3 server: pip install 'moto[server]'")
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    command = [sys.executable, "-m", "moto.server", "-H", "127.0.0.1", "-p", str(port)]
    server = subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    url = f"http://127.0.0.1:{port}"
    try:
        wait_until_up(url, server)
        yield url
    finally:
        server.terminate()
        server.wait(timeout=30)


def wait_until_up(url, server):
    for _ in range(300):
        try:
            urllib.request.urlopen(url, timeout=5).close()
        except OSError:
            assert server.poll() is None, "the S3 server did not start"
            time.sleep(0.1)
        else:
            return
    raise TimeoutError(url)


@pytest.fixture
def bucket(endpoint, monkeypatch):
    """The URL of an empty bucket."""
    for name, value in {
        "AWS_ENDPOINT_URL": endpoint,
        "AWS_ACCESS_KEY_ID": "test",
        "AWS_SECRET_ACCESS_KEY": "test",
        "AWS_DEFAULT_REGION": "us-east-1",
    }.items():
        monkeypatch.setenv(name, value)
    import boto3

    client = boto3.client("s3")
    name = f"volumes-{time.monotonic_ns()}"
    client.create_bucket(Bucket=name)
    yield f"s3://{name}"
    client.close()
