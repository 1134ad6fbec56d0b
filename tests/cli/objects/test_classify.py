"""``em-blocks classify`` as a user types it."""

import json

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from clustering import config, write, write_planted
from em_blocks.cli.main import main

OTHER_KEYS = {"features": None, "method": None}


def call(path, *options, code=0):
    result = CliRunner().invoke(main, ["classify", str(path), *options])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


@pytest.fixture
def planted(tmp_path):
    """Ids and classes of planted objects; every fourth is an example."""
    ids, _, _, classes = write_planted(tmp_path)
    write(tmp_path / "classes.csv", {"id": ids[::4], "class": classes[::4]})
    return ids, classes


def classify_config(folder, **values):
    every = {"kind": "classify_objects", "columns": ["volume", "latent"], "trees": 100, "uncertain": 7}
    return config(folder, **(OTHER_KEYS | every | values))


def test_classes_are_learned_from_examples(tmp_path, planted):
    ids, classes = planted
    report = json.loads(call(classify_config(tmp_path), "--json"))
    table = pq.read_table(tmp_path / "found/classes.parquet").to_pydict()
    told = dict(zip(table["id"], table["class"], strict=True))
    assert [told[int(id)] for id in ids] == classes.tolist()
    assert table["id"] == sorted(table["id"]) and sum(table["example"]) == 30
    total = np.sum([table[f"p_{name}"] for name in ("flat", "long", "round")], axis=0)
    np.testing.assert_allclose(total, 1)
    assert report["out_of_bag_accuracy"] == 1.0
    assert report["sizes"] == {"flat": 40, "long": 40, "round": 40}
    assert report["classes"]["flat"] == {"examples": 10, "out_of_bag_recall": 1.0}
    assert sum(report["importances"].values()) == pytest.approx(1)


def test_a_wrong_example_lowers_the_score_and_keeps_its_label(tmp_path, planted):
    ids, classes = planted
    labels = classes[::4].copy()
    labels[0] = "flat"
    write(tmp_path / "classes.csv", {"id": ids[::4], "class": labels})
    report = json.loads(call(classify_config(tmp_path), "--json"))
    assert report["out_of_bag_accuracy"] == pytest.approx(29 / 30)
    table = pq.read_table(tmp_path / "found/classes.parquet").to_pydict()
    row = table["id"].index(int(ids[0]))
    assert (table["class"][row], table["guess"][row]) == ("flat", "round")


def test_the_most_uncertain_objects_come_first_and_are_no_examples(tmp_path, planted):
    ids, _ = planted
    call(classify_config(tmp_path))
    table = pq.read_table(tmp_path / "found/classes.parquet").to_pydict()
    found = pyarrow.csv.read_csv(tmp_path / "found/uncertain.csv").to_pydict()
    margins = sorted(m for m, known in zip(table["margin"], table["example"], strict=True) if not known)
    assert found["margin"] == margins[:7]
    assert not set(found["id"]) & set(ids[::4].tolist())


def test_the_same_seed_and_any_order_of_rows_give_the_same_files(tmp_path, planted):
    ids, classes = planted
    call(classify_config(tmp_path))
    first = (tmp_path / "found/classes.csv").read_bytes()
    write_planted(tmp_path, order=2)
    write(tmp_path / "classes.csv", {"id": ids[::4][::-1], "class": classes[::4][::-1]})
    call(tmp_path / "config.json")
    assert (tmp_path / "found/classes.csv").read_bytes() == first


@pytest.mark.parametrize(("examples", "said"), [
    (["a"] * 30, "At least two classes"),
    (["a"] * 29 + ["b"], "a 29, b 1"),
    ([""] * 30, "no class for any object"),
])
def test_too_few_examples_are_refused_and_nothing_is_written(tmp_path, planted, examples, said):
    write(tmp_path / "classes.csv", {"id": planted[0][::4], "class": examples})
    assert said in call(classify_config(tmp_path), code=2)
    assert not (tmp_path / "found").exists()


def test_examples_of_other_objects_are_refused(tmp_path, planted):
    write(tmp_path / "classes.csv", {"id": [1, 2], "class": ["a", "b"]})
    assert "2 ids that are in no table" in call(classify_config(tmp_path), code=2)
    assert "did you mean volume" in call(classify_config(tmp_path, columns=["volume_"]), code=2)
    assert not (tmp_path / "found").exists()
