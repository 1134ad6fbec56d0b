"""`em-blocks runs forget`: records go, files stay, and nothing goes unasked."""

import pytest
from click.testing import CliRunner

from em_blocks.cli.main import main
from em_blocks.db.trainings.run_database import run_database
from em_blocks.db.trainings.store import RUNNING
from em_blocks.training.records.importing import import_training
from em_blocks.training.records.json_record import record_of


def runs(*arguments):
    result = CliRunner().invoke(main, ["runs", *map(str, arguments)], catch_exceptions=False)
    return result.exit_code, result.output


def contents(folder):
    return {p: p.read_bytes() for p in folder.rglob("*") if p.is_file()}


@pytest.fixture(autouse=True)
def same_server(runs_address):
    """Keep the database's server up during a test."""


def test_records_go_files_stay_and_the_number_is_not_given_again(runs_address, recorded, number):
    with run_database(runs_address) as store:
        uid = store.training(number)["uid"]
        store.save_prediction("p", {"training": {"uid": uid}})
    before = contents(recorded)
    code, said = runs("forget", number, "--db", runs_address, "--yes")
    assert code == 0, said
    assert f"training {number}: tiny, finished at iteration 8, 1 predictions" in said
    assert "not touched" in said and contents(recorded) == before
    assert runs("show", number, "--db", runs_address)[0] == 2
    with run_database(runs_address) as store:
        assert store.predictions_of(uid) == [] and store.curves(number) == {}
        assert import_training(store, recorded) == number + 1


def test_nothing_goes_unasked_or_while_any_of_them_is_running_or_unknown(
    runs_address, recorded, number
):
    code, said = runs("forget", number, "--db", runs_address)
    assert code == 2 and "add --yes" in said
    code, said = runs("forget", number, 999, "--db", runs_address, "--yes")
    assert code == 2 and "no training 999" in said
    with run_database(runs_address) as store:
        document = record_of(recorded).read() | {"state": RUNNING, "host": "node7"}
        store.save(number, document, 2**60)
        code, said = runs("forget", number, "--db", runs_address, "--yes")
        assert code == 3 and "running (on node7)" in said
        assert store.training(number)["state"] == RUNNING and store.curves(number)


def test_without_a_database_it_says_so(monkeypatch):
    monkeypatch.delenv("EM_BLOCKS_DB", raising=False)
    code, said = runs("forget", 1, "--yes")
    assert code == 2 and "--db ADDRESS" in said
