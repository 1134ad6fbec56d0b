"""The embedded server on a disk that is full: it says so, does not try in vain, and loses nothing."""

import json
import os
import shutil
import time

import numpy as np
import psutil
import pytest
from pymongo.errors import AutoReconnect

from blockwise import wait_for
from em_blocks.db import server, supervise
from em_blocks.db.connect import connect, database_uri, with_patience
from em_blocks.db.leases import DURABLE
from em_blocks.errors import DatabaseError
from mongods import small_disk

FULL = r"disk of the embedded database in \S+ is full: \S+ MB are free, and mongod needs 33.6 MB"


@pytest.fixture
def disk(tmp_path, monkeypatch):
    monkeypatch.setattr("em_blocks.db.connect.SELECT_TIMEOUT_MS", 500)
    with small_disk(tmp_path / "disk", megabytes=100) as disk:
        yield disk


def fill(disk, leave=0):
    """A file that takes all space but `leave` bytes."""
    with open(disk / "filler", "wb") as filler:
        os.posix_fallocate(filler.fileno(), 0, shutil.disk_usage(disk).free - leave)


def servers(supervisor):
    """Processes that a supervisor has started and that live."""
    children = psutil.Process(supervisor).children()
    return [child for child in children if child.status() != psutil.STATUS_ZOMBIE]


def insert_until_it_breaks(collection):
    """How many documents the server confirmed before it was gone."""
    for n in range(100_000):
        try:
            collection.insert_many([{"x": os.urandom(1000)} for _ in range(100)])
        except AutoReconnect:
            return 100 * n
    raise AssertionError("the disk did not fill up")


def test_a_disk_that_is_full_at_the_start_is_refused_with_what_it_needs(disk):
    fill(disk, leave=10 << 20)
    with pytest.raises(DatabaseError, match=FULL), server.embedded_server(disk / "db"):
        pass


def test_a_server_whose_disk_fills_up_waits_for_space_and_comes_back(disk):
    with database_uri(None, disk) as uri, connect(uri) as client:
        supervisor = json.loads((disk / "db" / "server.json").read_text())["supervisor"]
        fill(disk, leave=12 << 20)
        documents = client.test.get_collection("c", write_concern=DURABLE)
        confirmed = insert_until_it_breaks(documents)
        wait_for(lambda: not servers(supervisor))
        # Nothing is started meanwhile: it would die again at once.
        for _ in range(20):
            assert not servers(supervisor)
            time.sleep(0.1)
        with pytest.raises(DatabaseError, match=FULL):
            with database_uri(None, disk):
                pass
        (disk / "filler").unlink()
        assert with_patience(lambda: documents.count_documents({}), 60) >= confirmed > 0


def test_an_error_of_a_run_whose_database_is_down_says_why(disk):
    def use():
        with database_uri(None, disk) as uri, connect(uri) as client:
            fill(disk, leave=12 << 20)
            insert_until_it_breaks(client.test.get_collection("c", write_concern=DURABLE))
            with_patience(lambda: client.test.c.find_one(), 1)

    with pytest.raises(DatabaseError, match=rf"unavailable for more than 1 s .*{FULL}"):
        use()


def test_a_server_that_dies_again_and_again_is_not_started_at_once(tmp_path, monkeypatch):
    began = []

    class Dies:
        pid = 1

    monkeypatch.setattr(supervise, "start", lambda *_: began.append(time.monotonic()) or Dies())
    monkeypatch.setattr(supervise, "watch", lambda *_: (-6, True))
    monkeypatch.setattr(supervise, "unused", lambda home: False)
    monkeypatch.setattr(supervise, "MAX_RESTARTS", 5)
    monkeypatch.setattr(supervise.signal, "signal", lambda *_: None)  # those of the tests stay
    assert supervise.supervise(tmp_path, "mongod") == 1
    pauses = np.diff(began)
    assert len(began) == 5 and (pauses > (0.1, 0.2, 0.4, 0.8)).all(), pauses
