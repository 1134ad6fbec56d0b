"""``em-blocks cluster`` as a user types it."""

import json

import numpy as np
import pyarrow.csv
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner
from PIL import Image

from clustering import FIRST_ID, config, planted, write, write_planted
from em_blocks.cli.main import main
from em_blocks.evaluation.object_classes.methods import AgglomerativeOptions, HdbscanOptions

METHODS = [
    {"name": "kmeans", "clusters": 3},
    {"name": "mini_batch_kmeans", "clusters": 3, "batch_size": 32},
    {"name": "spectral", "clusters": 3},
    {"name": "agglomerative", "clusters": 3},
    {"name": "agglomerative", "clusters": 3, "linkage": "average"},
    {"name": "dbscan", "eps": 1.0},
    {"name": "hdbscan", "min_cluster_size": 10},
    {"name": "affinity_propagation", "damping": 0.9, "preference": -60.0},
    {"name": "leiden", "resolutions": [0.1, 0.3]},
]


def call(path, *options, code=0):
    result = CliRunner().invoke(main, ["cluster", str(path), *options])
    assert result.exit_code == code, result.output
    return result.stdout if code == 0 else result.stderr


def clusters(folder):
    table = pq.read_table(folder / "found/clusters.parquet")
    return dict(zip(table["id"].to_pylist(), table["cluster"].to_pylist(), strict=True))


@pytest.mark.parametrize("method", METHODS, ids=lambda method: "-".join(map(str, method.values())))
def test_every_method_finds_planted_clusters(tmp_path, method):
    ids, _, _, classes = write_planted(tmp_path)
    report = json.loads(call(config(tmp_path, method=method), "--json"))
    assert report["accuracy"] >= 0.95
    assert report["nmi"] > 0.85 and report["ari"] > 0.85 and report["silhouette"] > 0.5
    assert sum(report["sizes"].values()) == 120 and report["n_classified"] == 120
    found = clusters(tmp_path)
    assert set(found) == set(ids.tolist())
    first = report["classes"]["flat"]
    own = [found[int(id)] for id in ids[classes == "flat"]]
    assert own.count(first["cluster"]) == first["true_positives"]
    # The same seed gives the same clusters.
    call(tmp_path / "config.json")
    assert clusters(tmp_path) == found


def test_the_order_of_rows_does_not_change_clusters(tmp_path):
    found = []
    for order in (1, 2):
        write_planted(tmp_path, order=order)
        call(config(tmp_path))
        found.append((tmp_path / "found/clusters.csv").read_bytes())
    assert found[0] == found[1]
    ids = [int(line.split(",")[0]) for line in found[0].decode().splitlines()[1:]]
    assert ids == sorted(ids) and min(ids) >= FIRST_ID


def test_all_files_are_written(tmp_path):
    write_planted(tmp_path)
    shown = call(config(tmp_path))
    folder = tmp_path / "found"
    assert {p.name for p in folder.iterdir()} == {
        "clusters.parquet", "clusters.csv", "report.json", "view.png",
    }
    assert "accuracy 1.0000" in shown and "view.png" in shown
    with Image.open(folder / "view.png") as picture:
        assert picture.size[0] > 300
    table = pyarrow.csv.read_csv(folder / "clusters.csv")
    assert table.column_names == ["id", "cluster"]
    assert json.loads((folder / "report.json").read_text())["columns"] == [
        "volume", "latent_0", "latent_1",
    ]


def test_without_classes_there_are_sizes_only(tmp_path):
    write_planted(tmp_path)
    report = json.loads(call(config(tmp_path, classes=None), "--json"))
    assert report["sizes"] == {"1": 40, "2": 40, "3": 40} and "accuracy" not in report


def test_classes_of_some_objects_score_these(tmp_path):
    ids, _, _, classes = write_planted(tmp_path)
    write(tmp_path / "classes.csv", {"id": ids[::10], "class": classes[::10]})
    report = json.loads(call(config(tmp_path), "--json"))
    assert report["n_classified"] == 12 and report["accuracy"] == 1.0
    assert {name: row["objects"] for name, row in report["classes"].items()} == {
        "flat": 4, "long": 4, "round": 4,
    }


def test_leiden_reports_every_resolution(tmp_path):
    write_planted(tmp_path)
    method = {"name": "leiden", "resolutions": [0.1, 4.0], "resolution": 4.0}
    report = json.loads(call(config(tmp_path, method=method), "--json"))
    low, high = report["stability"]["resolutions"]
    assert (low["resolution"], low["clusters"], low["agreement"]) == (0.1, 3, 1.0)
    assert high["clusters"] > 3 and high["agreement"] < 1 and report["stability"]["chosen"] == 4.0
    table = pq.read_table(tmp_path / "found/clusters.parquet")
    assert table.column_names == ["id", "cluster", "cluster_at_0.1", "cluster_at_4"]
    assert table["cluster"] == table["cluster_at_4"]
    report = json.loads(call(config(tmp_path, method=method | {"resolution": None}), "--json"))
    assert report["stability"]["chosen"] == 0.1


def test_weights_decide_which_feature_counts(tmp_path):
    ids = np.arange(1, 41)
    left, front = ids % 2, (ids > 20).astype(int)
    write(tmp_path / "t.csv", {"id": ids, "axis_0": left, "axis_1": front})
    write(tmp_path / "classes.csv", {"id": ids, "class": left})
    for weights, accuracy in (([9, 1], 1.0), ([1, 9], 0.5)):
        path = config(tmp_path, tables=["t.csv"], features=[{"column": "axis", "weight": weights}],
                      method={"name": "kmeans", "clusters": 2})
        assert json.loads(call(path, "--json"))["accuracy"] == accuracy


def test_components_replace_features(tmp_path):
    write_planted(tmp_path)
    assert json.loads(call(config(tmp_path, components=2), "--json"))["accuracy"] == 1.0
    assert "at most 3 principal" in call(config(tmp_path, components=4), code=2)


def test_tsne_draws_a_view(tmp_path):
    write_planted(tmp_path, n=10)
    call(config(tmp_path, view="tsne"))
    assert (tmp_path / "found/view.png").exists()


def test_objects_with_missing_values_are_left_out_or_filled(tmp_path):
    ids, volume, _, _ = write_planted(tmp_path)
    volume[3] = np.nan
    write(tmp_path / "shape.csv", {"id": ids, "volume": volume})
    report = json.loads(call(config(tmp_path, missing="drop"), "--json"))
    assert report["objects"] == 119 and report["dropped"] == {"missing_values": 1, "missing_ids": 0}
    assert report["n_classified"] == 119 and int(ids[3]) not in clusters(tmp_path)
    assert json.loads(call(config(tmp_path, missing="median"), "--json"))["objects"] == 120
    call(config(tmp_path, output="other"), code=2)
    assert not (tmp_path / "other").exists()


def test_objects_that_a_table_lacks_are_left_out_where_that_is_wanted(tmp_path):
    ids, volume, _, _ = write_planted(tmp_path)
    write(tmp_path / "shape.csv", {"id": ids[2:], "volume": volume[2:]})
    write(tmp_path / "classes.csv", {"id": ids[2:], "class": ids[2:] % 2})
    report = json.loads(call(config(tmp_path, missing_ids="drop"), "--json"))
    assert report["objects"] == 118 and report["dropped"]["missing_ids"] == 2


@pytest.mark.parametrize(("values", "said"), [
    ({"features": ["volum"]}, "did you mean volume"),
    ({"features": ["shape_*"]}, "No table has a feature 'shape_*'"),
    ({"features": ["latent", "lat*"]}, "chosen twice, by 'latent' and 'lat*'"),
    ({"features": [{"column": "latent", "weight": [1, 2, 3]}]}, "has 3 numbers, but it stands for 2"),
    ({"features": [{"column": "latent", "weight": 0}]}, "greater than 0"),
    ({"features": [{"column": "latent", "scaling": "log"}]}, "have no logarithm"),
    ({"method": {"name": "kmeans", "clusters": 121}}, "needs at least 121"),
    ({"method": {"name": "kmeans", "clusters": 1}}, "method"),
    ({"method": {"name": "leiden", "neighbours": 120}}, "has only 119 others"),
    ({"method": {"name": "leiden", "resolution": 7.0}}, "none of method.resolutions"),
    ({"method": {"name": "hdbscan", "min_cluster_size": 200}}, "clusters of 200 objects"),
    ({"method": {"name": "kmeens", "clusters": 3}}, "kmeens"),
    ({"tables": ["nothing.csv"]}, "nothing.csv cannot be read"),
    ({"tables": ["shape.txt"]}, "read from .parquet and .csv"),
    ({"tables": ["shape.csv", "shape.csv"]}, "have a column 'volume'"),
    ({"classes": "shape.csv"}, "a column 'class' is needed"),
    ({"output": "shape.csv"}, "lies in the input 'tables[0]'"),
])
def test_wrong_configs_are_refused_and_nothing_is_written(tmp_path, values, said):
    write_planted(tmp_path)
    before = {p.name for p in tmp_path.iterdir()} | {"config.json"}
    assert said in call(config(tmp_path, **values), code=2)
    assert {p.name for p in tmp_path.iterdir()} == before


IDS, VOLUME, VECTOR, CLASSES = planted()


@pytest.mark.parametrize(("name", "columns", "said"), [
    ("shape.csv", {"object": IDS, "volume": VOLUME}, "one column 'id' is needed"),
    ("shape.csv", {"id": IDS[:-3], "volume": VOLUME[:-3]}, "lacks 3 ids"),
    ("shape.csv", {"id": [*IDS[:-1], IDS[0]], "volume": VOLUME}, "several rows for 1 of its ids"),
    ("shape.csv", {"id": IDS.astype(float) + 0.5, "volume": VOLUME}, "cannot be read"),
    ("shape.csv", {"id": np.arange(120) + 1, "volume": VOLUME}, "lacks 120 ids"),
    ("shape.csv", {"id": IDS, "volume": CLASSES}, "'volume' is string"),
    ("net.parquet", {"id": IDS.astype(float), "latent": VECTOR}, "are double, but whole numbers"),
    ("net.parquet", {"id": -np.arange(120), "latent": VECTOR}, "empty or negative"),
    ("net.parquet", {"id": IDS, "latent": [[1.0]] + [[1.0, 2.0]] * 119}, "the lengths 1, 2"),
    ("classes.csv", {"id": np.append(IDS[1:], np.uint64(7)), "class": CLASSES},
     "classes of 1 ids that are in no table"),
    ("classes.csv", {"id": IDS, "class": [""] * 120}, "no class for any object"),
])
def test_wrong_tables_are_refused_and_nothing_is_written(tmp_path, name, columns, said):
    write_planted(tmp_path)
    write(tmp_path / name, columns)
    assert said in call(config(tmp_path), code=2)
    assert not (tmp_path / "found").exists()


@pytest.mark.parametrize("model", [AgglomerativeOptions, HdbscanOptions])
def test_more_objects_than_a_method_takes_are_refused_with_another_one(tmp_path, monkeypatch, model):
    write_planted(tmp_path)
    monkeypatch.setattr(model, "most", 119)
    name = model.model_fields["name"].annotation.__args__[0]
    method = {"name": name} | ({"clusters": 3} if "clusters" in model.model_fields else {})
    said = call(config(tmp_path, method=method), code=2)
    assert "at most 119 objects" in said and "have 120" in said and "leiden" in said
    assert not (tmp_path / "found").exists()
    monkeypatch.setattr(model, "most", 120)
    call(config(tmp_path, method=method))
