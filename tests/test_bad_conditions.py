"""What a command says when its database or disk cannot be used: one message, exit code 2, no trace.

And what a run with a login leaves behind: no password.
"""

import json
import os
import stat
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner

from blockwise import FRAME, add_one, make_raw, start_in_background, store_of
from em_blocks.cli.main import main
from em_blocks.volumes import Volume
from mongods import ESCAPED, PASSWORD, authority, mongod_with_auth, mongod_with_tls, small_disk

__all__ = ["authority", "mongod_with_auth", "mongod_with_tls"]


@pytest.fixture
def config(tmp_path, monkeypatch):
    """A cheap job, whose paths are relative to it."""
    monkeypatch.setattr("em_blocks.db.connect.SELECT_TIMEOUT_MS", 1000)
    raw = Volume.create(str(tmp_path / "raw.zarr/raw"), shape=(8, 16, 16), dtype="uint8", frame=FRAME,
                        chunk_shape=(8, 8, 8))
    raw.write(raw.box, np.random.default_rng(0).integers(0, 256, raw.shape).astype("uint8"))
    path = tmp_path / "config.json"
    path.write_text(json.dumps({
        "kind": "downsample", "run": "pyramid", "input": "raw.zarr/raw", "output": "out/raw.zarr/raw",
        "method": "mean", "chunk_shape": [4, 8, 8], "levels": 2,
    }))
    return path


def refused(config, *options, verb="downsample"):
    """The message of a command that must fail without a trace."""
    before = sorted(config.parent.rglob("*"))
    result = CliRunner().invoke(main, [verb, str(config), *map(str, options)])
    assert sorted(config.parent.rglob("*")) == before
    assert result.exit_code == 2, result.output
    assert result.stderr.startswith("Error: ") and result.stderr.count("\n") == 1, result.stderr
    assert PASSWORD not in result.output and ESCAPED not in result.output
    return result.stderr


@pytest.mark.parametrize(("login", "options", "words"), [
    ("em:wrong@", "", "refuses the login: Authentication failed"),
    ("local:${SECRET}@", "", "authSource="),
    ("reader:${SECRET}@", "", "The user 'reader' (of the database 'admin') may read but not write"),
    ("stranger:${SECRET}@", "", "may neither read nor write the database 'em_blocks'"),
    ("", "", "wants a login, and 'db_host' has none"),
    ("em:${SECRET}@", "?tls=true", "leave tls=true out"),
    ("em:${SECRET}@", "?replicaSet=lab", "replica set that 'db_host' names"),
    ("em:${SECRET}@", "?authSorce=x", "authsorce"),
])
def test_a_database_that_refuses(config, mongod_with_auth, monkeypatch, login, options, words):
    monkeypatch.setenv("SECRET", PASSWORD)
    uri = f"mongodb://{login}{mongod_with_auth.address}/{options}"
    assert words in refused(config, "--set", f"db_host={uri}")


def test_a_database_whose_tls_is_another(config, mongod_with_tls):
    uri = mongod_with_tls.uri
    assert "add the option tls=true" in refused(config, "--set", f"db_host={uri}")
    assert "not trusted here" in refused(config, "--set", f"db_host={uri}/?tls=true")


@pytest.mark.parametrize("verb", ["status", "verify", "retry"])
def test_other_verbs_say_the_same(config, mongod_with_auth, verb):
    uri = f"mongodb://em:wrong@{mongod_with_auth.address}"
    assert "refuses the login" in refused(config, "--set", f"db_host={uri}", verb=verb)


def test_what_a_user_may_not_do_is_no_traceback(config, mongod_with_auth):
    uri = f"mongodb://stranger:{ESCAPED}@{mongod_with_auth.address}"
    assert "role readWrite on 'em_blocks'" in refused(config, "--set", f"db_host={uri}", verb="status")


def test_a_file_with_the_address_that_others_may_read(config, tmp_path):
    (tmp_path / "uri").write_text("mongodb://h:1")
    (tmp_path / "uri").chmod(0o644)
    assert "chmod 600" in refused(config, "--set", f"db_host=file:{tmp_path}/uri")


def test_a_full_disk_of_the_output_is_named_with_what_is_needed(config):
    with small_disk(config.parent / "small", megabytes=40) as disk:
        text = refused(config, "--set", f"output={disk}/raw.zarr/raw")
    assert "is too small: the blocks that are left need up to 0.0671 GB (" in text
    assert "database 0.0671), and 0.0419 GB are free" in text


def test_a_full_disk_of_the_database_alone_is_named(config):
    with small_disk(config.parent / "small", megabytes=10) as disk:
        assert f"The disk of {disk}/db is too small" in refused(config, "--set", f"run_dir={disk}")


# -- a run with a login -------------------------------------------------------------------------


def leaks(folder: Path) -> list[Path]:
    """Files that hold the password and may be read by others than their owner."""
    found = []
    for path in filter(Path.is_file, folder.rglob("*")):
        content = path.read_bytes()
        public = path.stat().st_mode & (stat.S_IRWXG | stat.S_IRWXO)
        if public and (PASSWORD.encode() in content or ESCAPED.encode() in content):
            found.append(path)
    return found


def command_lines() -> str:
    """Of all processes of this machine."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        try:
            found.append(path.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        except OSError:  # it has ended meanwhile
            continue
    return "\n".join(found)


def stored_text(task) -> str:
    """All documents of the database, as text."""
    with store_of(task) as store:
        names = store.database.list_collection_names()
        return "\n".join(str(d) for name in names for d in store.database[name].find())


@pytest.fixture(params=["variable", "file"])
def db_host(request, mongod_with_auth, tmp_path, monkeypatch):
    """The address of a user who may write, in one of the ways that keep the password out of configs."""
    if request.param == "variable":
        monkeypatch.setenv("EM_BLOCKS_DB_PASSWORD", PASSWORD)
        return f"mongodb://em:${{EM_BLOCKS_DB_PASSWORD}}@{mongod_with_auth.address}"
    path = tmp_path / "address"
    path.touch(mode=0o600)
    path.write_text(f"mongodb://em:{ESCAPED}@{mongod_with_auth.address}\n")
    return f"file:{path}"


def test_a_run_with_a_login_shows_its_password_to_nobody(db_host, mongod_with_auth, tmp_path):
    raw = make_raw(tmp_path)
    task = add_one(raw, tmp_path / "a", db_host=db_host, run=f"login-{os.getpid()}-{len(db_host)}",
                   num_workers=2, sleep_s=0.05, faults={"0/0/1": "raise"})
    process = start_in_background(task, tmp_path)
    seen, found = "", []
    while process.poll() is None:
        seen += command_lines()
        found += leaks(tmp_path)
        time.sleep(0.2)
    assert process.returncode == 1  # the block that fails, so that there are tracebacks
    assert "em_blocks.workers" in seen and PASSWORD not in seen and ESCAPED not in seen
    assert not found and not leaks(tmp_path)
    text = stored_text(task)
    assert "poison" in text and PASSWORD not in text and ESCAPED not in text
    assert (tmp_path / "a/summary.json").exists() and (tmp_path / "background.log").exists()


def test_a_login_that_fails_shows_its_password_to_nobody(config, mongod_with_auth):
    uri = f"mongodb://stranger:${{SECRET}}@{mongod_with_auth.address}"
    command = [Path(sys.executable).parent / "em-blocks", "downsample", config]
    done = subprocess.run([*command, "--set", f"db_host={uri}"], capture_output=True, text=True,
                          check=False, env={**os.environ, "SECRET": PASSWORD})
    assert done.returncode == 2 and "neither read nor write" in done.stderr
    assert PASSWORD not in done.stdout + done.stderr and ESCAPED not in done.stdout + done.stderr
    assert not leaks(config.parent)
