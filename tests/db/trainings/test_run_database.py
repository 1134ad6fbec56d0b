"""Addresses of the run database."""

import pytest

from em_blocks.db.server import embedded_server
from em_blocks.db.trainings.run_database import VARIABLE, run_address, run_database, run_database_if
from em_blocks.errors import DatabaseError


def test_a_folder_is_an_embedded_database_that_keeps_what_is_written(tmp_path):
    with run_database(f"{tmp_path}/runs") as store:
        assert store.begin("a")[0] == 1
    with run_database(f"{tmp_path}/runs") as store:
        assert store.begin("b")[0] == 2


def test_the_path_of_a_uri_names_the_database(tmp_path):
    with embedded_server(tmp_path) as uri:
        with run_database(uri.replace("/?", "/mine?")) as store:
            assert store.database.name == "mine"
        with run_database(uri) as store:
            assert store.database.name == "em_blocks"


def test_the_command_goes_before_the_environment(monkeypatch):
    monkeypatch.setenv(VARIABLE, "there")
    assert (run_address("here"), run_address(None)) == ("here", "there")
    monkeypatch.delenv(VARIABLE)
    assert run_address(None) is None
    with run_database_if(None) as store:
        assert store is None


def test_a_server_that_does_not_answer_is_one_paragraph_about_the_option(monkeypatch):
    monkeypatch.setattr("em_blocks.db.connect.SELECT_TIMEOUT_MS", 100)
    with pytest.raises(DatabaseError, match="--db") as error, run_database("127.0.0.1:9"):
        pass
    assert "db_host" not in str(error.value) and "runs import" in str(error.value)
