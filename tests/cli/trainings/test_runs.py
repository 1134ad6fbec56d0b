"""`em-blocks runs`: list, show and import on recorded trainings."""

import json

import pytest
from click.testing import CliRunner
from PIL import Image

from em_blocks.cli.main import main
from em_blocks.db.trainings.run_database import VARIABLE
from recorded_training import write_training


@pytest.fixture(scope="module")
def folders(tmp_path_factory, runs_address):
    """Two trainings, 1 and 2 of the run database."""
    root = tmp_path_factory.mktemp("trainings")
    found = [write_training(root / "one"), write_training(root / "two", seed=1)]
    assert runs("import", *found, "--db", runs_address).output.splitlines() == [
        f"training 1: {found[0]}", f"training 2: {found[1]}"
    ]
    return found


def runs(*arguments):
    result = CliRunner().invoke(main, ["runs", *map(str, arguments)], catch_exceptions=False)
    return result


def listed(*arguments):
    result = runs("list", *arguments, "--json")
    assert result.exit_code == 0, result.output
    return json.loads(result.output)


def test_a_list_has_the_trainings_of_the_database_in_order(runs_address, folders):
    one, two = listed("--db", runs_address)
    assert (one["id"], two["id"]) == (1, 2)
    assert (one["setup"], one["state"]) == ("tiny", "finished")
    assert one["iteration"] == one["iterations"] == 8
    assert one["best"] == {"iteration": 4, "score": "affinities/cut_ap", "value": 0.25}
    assert [one["folder"], two["folder"]] == [str(folder) for folder in folders]


def test_without_a_database_the_trainings_below_a_folder_are_listed(folders, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    monkeypatch.chdir(folders[0].parent)
    assert listed() == listed(folders[0].parent)
    assert [(one["id"], one["folder"]) for one in listed()] == [(None, str(f)) for f in folders]
    assert listed(folders[1])[0]["folder"] == str(folders[1])


def test_the_list_is_a_table_for_people(runs_address, folders, monkeypatch):
    monkeypatch.setenv(VARIABLE, runs_address)
    monkeypatch.setenv("COLUMNS", "200")
    said = runs("list").output
    assert "affinities/cut_ap 0.2500 at 4" in said and "finished" in said


def test_one_training_is_shown_whole_by_number_and_by_folder(runs_address, folders):
    shown = json.loads(runs("show", 1, "--db", runs_address, "--json").output)
    assert shown["curves"] == {"train/loss": 8, "validation/affinities/cut_ap": 2}
    assert (shown["id"], shown["config"]["name"], len(shown["checkpoints"])) == (1, "tiny", 3)
    assert shown["predictions"] == []
    same = json.loads(runs("show", folders[0], "--json").output)
    assert same["uid"] == shown["uid"] and same["id"] is None
    text = runs("show", 1, "--db", runs_address).output
    assert "best affinities/cut_ap" in text and "checkpoint_8.safetensors" in text


@pytest.mark.parametrize("arguments", [("show", "9"), ("show", "nowhere")])
def test_what_is_not_there_is_one_paragraph(runs_address, folders, arguments):
    result = runs(*arguments, "--db", runs_address)
    assert result.exit_code == 2 and result.output.count("\n") == 1


def test_an_import_without_a_database_says_what_to_do(folders, monkeypatch):
    monkeypatch.delenv(VARIABLE, raising=False)
    result = runs("import", folders[0])
    assert result.exit_code == 2 and "EM_BLOCKS_DB" in result.output


def test_differences_are_settings_data_and_code_not_what_was_measured(runs_address, folders):
    shown = json.loads(runs("diff", 1, folders[1], "--db", runs_address, "--json").output)
    assert shown["runs"] == ["1 (tiny)", "two (tiny)"]
    assert shown["differences"] == {"seed": [0, 1]}
    assert "They do not differ" in runs("diff", 1, folders[0], "--db", runs_address).output
    assert "seed" in runs("diff", 1, 2, "--db", runs_address).output


def test_curves_are_drawn_over_each_other(runs_address, folders, tmp_path):
    one, all_ = tmp_path / "one.png", tmp_path / "all.png"
    assert runs("plot", 1, 2, "--db", runs_address, "--output", one).output == f"{one}\n"
    done = runs("plot", 1, "--metric", "*", "--smooth", 3, "--db", runs_address, "--output", all_)
    assert done.exit_code == 0, done.output
    with Image.open(one) as picture:
        assert picture.size == (1728, 576)  # the loss and the score, side by side
    failed = runs("plot", 1, "--metric", "beauty", "--db", runs_address)
    assert failed.exit_code == 2
    assert "train/loss, validation/affinities/cut_ap" in failed.output


def test_an_export_says_where_it_is(runs_address, folders, tmp_path):
    path = tmp_path / "curves.csv"
    done = runs("export", 1, 2, "--to", "csv", "--output", path, "--db", runs_address)
    assert done.output == f"{path}\n" and len(path.read_text().splitlines()) == 1 + 2 * 10
    done = runs("export", 2, "--to", "sacred", "--output", tmp_path / "sacred", "--db", runs_address)
    assert done.output == "runs 1 of Sacred\n"
    log = tmp_path / "logs"
    assert runs("export", 2, "--to", "tensorboard", "--output", log, "--db", runs_address).exit_code == 0
    assert [path.name for path in log.iterdir()] == ["2_tiny"]
