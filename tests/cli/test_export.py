"""``em-blocks export`` as a user types it."""

import csv
import json
import re
from pathlib import Path

import h5py
import networkx as nx
import numpy as np
import pytest
import scipy.sparse
from click.testing import CliRunner
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from em_blocks.cli.export import main
from em_blocks.cli.filters import parse_filter
from em_blocks.db.connect import connect, database_uri
from em_blocks.db.runs import DONE, RunStore
from em_blocks.export import synapses as export_synapses
from em_blocks.export.synapses import filtered
from em_blocks.kernels.synapses.filters import (
    Duplicates,
    Length,
    Listed,
    Score,
    SelfLinks,
    apply_filters,
)
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.volumes.synapse_files import read_synapses
from mapping import RUN, Database, assert_same_rows


def make(n=60, seed=0):
    """Synapses of few segments near each other; some on background, unmapped, without a score."""
    rng = np.random.default_rng(seed)
    return Synapses(
        id=rng.permutation(n) * 2**50, pre=rng.normal(0, 300, (n, 3)), post=rng.normal(0, 300, (n, 3)),
        score=np.where(rng.random(n) < 0.2, np.nan, rng.integers(0, 100, n)),
        size=rng.integers(1, 50, n), pre_segment=rng.integers(-1, 4, n),
        post_segment=rng.integers(-1, 4, n), pre_skeleton=rng.choice([-2, -1, 5, 6], n),
    )


@pytest.fixture(scope="module")
def database(tmp_path_factory):
    """The synapses of two runs."""
    with database_uri(None, tmp_path_factory.mktemp("server")) as uri:
        made = Database(uri)
        made.fill(make())
        made.fill(make(3, seed=9).replace(id=[1, 2, 3]), run="other")
        update_run(made, n_blocks=3, n_masked=0,
                   grid={"offset": [400.0, 46.0, -92.0], "voxel_size": [40.0, 4.6, 4.6]})
        mark_done(made, 3)
        yield made


def mark_done(database, n):
    """Record the first n blocks as done, and no others."""
    with connect(database.uri) as client:
        blocks = RunStore(client, database.name, RUN).blocks
        blocks.delete_many({"run": RUN})
        blocks.insert_many([
            {"_id": f"{RUN}/0/0/{x}", "run": RUN, "index": [0, 0, x], "state": DONE} for x in range(n)
        ])


def update_run(database, **values):
    with connect(database.uri) as client:
        RunStore(client, database.name, RUN).update(**values)


@pytest.fixture
def folder(database, tmp_path, monkeypatch):
    """A folder with a config whose run is in the database; the working directory."""
    monkeypatch.chdir(tmp_path)
    Path("config.json").write_text(json.dumps({
        "kind": "extract_synapses", "run": RUN, "indicator": "p.zarr/indicator",
        "vectors": "p.zarr/vectors", "block_shape": [10, 10, 10], **database.settings(),
    }))


def call(*arguments):
    result = CliRunner().invoke(main, list(map(str, arguments)))
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def export(*arguments):
    result = call(*arguments, "--json")
    assert result.exit_code == 0, result.stderr
    return json.loads(result.stdout)


# -- synapses --------------------------------------------------------------------------------


@pytest.mark.parametrize("ending", ["csv", "parquet", "sqlite", "npz"])
def test_a_table_holds_all_synapses_of_the_run_and_no_others(ending, folder):
    found = export("synapses", "config.json", "--output", f"out/s.{ending}")
    assert found["exported"] == found["synapses"] == 60 and found["filters"] == []
    assert_same_rows(read_synapses(f"out/s.{ending}").sorted(), make().sorted())
    assert sorted(p.name for p in Path("out").iterdir()) == [f"s.{ending}", f"s.{ending}.filters.json"]


def test_formats_without_our_columns_hold_the_sites(folder):
    for ending in ("json", "hdf"):
        export("synapses", "config.json", "--output", f"s.{ending}")
        found = read_synapses(f"s.{ending}")
        order = [np.lexsort(table.post.T) for table in (found, make())]
        np.testing.assert_allclose(found.post[order[0]], make().post[order[1]], rtol=0, atol=1e-4)
        np.testing.assert_allclose(found.pre[order[0]], make().pre[order[1]], rtol=0, atol=1e-4)


@pytest.mark.parametrize("voxel_size", [(40.0, 4.6, 4.6), (30.0, 8.0, 8.0)])
def test_cremi_files_hold_indices_of_voxels_times_their_size(folder, voxel_size):
    """Of the run's volume, or of the one that the file will be scored with."""
    given = () if voxel_size == (40.0, 4.6, 4.6) else ("--voxel-size", "30,8,8")
    export("synapses", "config.json", "--output", "s.hdf", *given)
    with h5py.File("s.hdf") as file:
        locations = file["annotations/locations"][-60:]  # postsynaptic ones are the last
    post = make().sorted().post
    order = [np.lexsort(np.round(table, 3).T) for table in (locations, post)]
    np.testing.assert_allclose(
        locations[order[0]] + np.array(voxel_size) / 2, post[order[1]], rtol=0, atol=1e-4
    )


def test_the_config_that_mapped_the_synapses_names_them_too(folder, database):
    Path("map.json").write_text(json.dumps({
        "kind": "map_synapses", "run": "mapped", "synapses": RUN, "run_dir": ".",
        "labels": "v.zarr/labels", **database.settings(),
    }))
    export("synapses", "map.json", "--output", "s.parquet")
    assert_same_rows(read_synapses("s.parquet"), make().sorted())


ORDERED = ("--filter", "background", "--filter", "self", "--filter", "duplicates=300,pre",
           "--filter", "ids=3")


def test_filters_are_applied_in_the_order_they_are_typed_and_counted(folder):
    wanted, steps = apply_filters(
        make(), [Score(20), Listed(), SelfLinks(), Duplicates(300, site="pre"), Listed((3,))]
    )
    found = export("synapses", "config.json", "--output", "s.parquet", "--min-score", 20, *ORDERED)
    assert_same_rows(read_synapses("s.parquet").sorted(), wanted.sorted())
    assert [step["filter"] for step in found["filters"]] == [
        "score", "ids", "self", "duplicates", "ids"
    ]
    assert [step["removed"] for step in found["filters"]] == [len(step.removed) for step in steps]
    assert all(len(step.removed) for step in steps)
    assert found["exported"] == len(wanted) == found["filters"][-1]["after"]
    stored = json.loads(Path("s.parquet.filters.json").read_text())
    assert stored["filters"] == found["filters"] and stored["run"] == RUN
    assert stored["filters"][3]["distance_nm"] == 300 and stored["filters"][3]["site"] == "pre"


def test_another_order_removes_other_numbers(folder):
    first = export("synapses", "config.json", "--output", "s.csv", "--filter", "self", "--filter",
                   "unmapped")
    second = export("synapses", "config.json", "--output", "s.csv", "--filter", "unmapped", "--filter",
                    "self")
    assert first["exported"] == second["exported"]
    assert first["filters"][0]["removed"] > second["filters"][1]["removed"]


def test_flipped_synapses_are_flipped_before_they_are_filtered(folder):
    export("synapses", "config.json", "--output", "s.parquet", "--flip", "--filter",
           "duplicates=200,post")
    wanted, _ = apply_filters(make().flipped(), [Duplicates(200)])
    assert_same_rows(read_synapses("s.parquet").sorted(), wanted.sorted())


def test_a_terminal_shows_what_every_filter_removed(folder):
    shown = call("synapses", "config.json", "--output", "s.csv", "--filter", "background", "--flip")
    n = len(Listed()(make())[0])
    for words in ("all, pre and post exchanged", "without no segment (background)", f" {n} ",
                  f" {60 - n} ", "Written: s.csv"):
        assert words in shown.stdout


def test_a_run_that_is_not_done_is_exported_only_on_demand(folder, database):
    update_run(database, state="stopped")
    refused = call("synapses", "config.json", "--output", "s.csv")
    found = export("synapses", "config.json", "--output", "s.csv", "--unfinished")
    update_run(database, state="done")
    assert refused.exit_code == 2 and "is stopped" in refused.stderr
    assert found["exported"] == 60 and found["state"] == "stopped"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("synapses", "--output", "s.txt"), "s.txt has no known format"),
        (("synapses", "--output", "s_pre.csv"), "s_pre.csv would hold bare voxels"),
        (("graph", "--output", "g.png"), "g.png has no known format of graphs"),
        (("synapses", "--output", "s.csv", "--set", "run=nobody"), "no run 'nobody'"),
        (("synapses", "--output", "s.csv", "--filter", "score"), "'score': '' is no number"),
        (("synapses", "--output", "s.csv", "--filter", "selfish"), "no filter 'selfish'; there are"),
        (("synapses", "--output", "s.csv", "--filter", "self:axon"), "'axon' is none of segment"),
        (("graph", "--output", "g.csv", "--objects", "supervoxel"), "None of 60 synapses has a super"),
    ],
)
def test_bad_input_exits_with_2_and_writes_nothing(arguments, message, folder):
    command, *options = arguments
    result = call(command, "config.json", *options)
    assert result.exit_code == 2 and not result.stdout
    assert message in re.sub(r"\s+", " ", result.stderr)
    assert [path.name for path in Path().iterdir()] == ["config.json"]


def test_a_config_without_synapses_is_refused(folder):
    Path("config.json").write_text(json.dumps({
        "kind": "clean", "run": "a", "labels": "v.zarr/labels", "output": "o.zarr",
    }))
    result = call("synapses", "config.json", "--output", "s.csv")
    assert result.exit_code == 2 and "'clean', which has no synapses" in result.stderr


# -- filters ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "filter"),
    [
        ("score=2.5", Score(2.5)),
        ("background:skeleton", Listed((0,), "skeleton")),
        ("unmapped", Listed((-1,))),
        ("ids=7,-2", Listed((7, -2))),
        ("self:supervoxel", SelfLinks("supervoxel")),
        ("length=,500", Length(0, 500)),
        ("length=20,", Length(20)),
        ("duplicates", Duplicates(None)),
        ("duplicates:supervoxel", Duplicates(None, "supervoxel")),
        ("duplicates=250,mean,pre", Duplicates(250, site="pre", keep="mean")),
    ],
)
def test_filters_are_parsed(text, filter):
    assert parse_filter(text) == filter


def test_listed_ids_are_read_from_a_file(tmp_path):
    (tmp_path / "glia.txt").write_text("5, 6\n7\n")
    assert parse_filter(f"ids=@{tmp_path}/glia.txt") == Listed((5, 6, 7))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("self=3", "it needs no value"), ("ids=a", "'a' is no list"), (f"ids={2**63}", "above"),
        ("ids=@none", "none cannot be read"), ("length=5", "two lengths"), ("score=nan", "no number"),
        ("duplicates=5,worst", "'worst' is none"),
    ],
)
def test_wrong_filters_are_explained(text, message):
    with pytest.raises(ValueError, match=message):
        parse_filter(text)


FILTERS = [
    Score(30), Listed(), SelfLinks(), Duplicates(200), Duplicates(None, "skeleton"), Length(0, 700)
]


@settings(max_examples=12)
@given(st.lists(st.sampled_from(FILTERS), max_size=4), st.integers(1, 70), st.sampled_from([20, 99]))
def test_filtering_a_long_table_in_parts_changes_nothing(tmp_path_factory, filters, rows, at_once):
    whole = make()
    tables = (whole.select(slice(n, n + rows)) for n in range(0, 60, rows))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(export_synapses, "_ROWS_AT_ONCE", at_once)
        folder = tmp_path_factory.mktemp("sorting")
        found, counts = filtered(tables, filters, n_rows=60, folder=folder)
        found = Synapses.concatenate(list(found))
    wanted, steps = apply_filters(whole, filters)
    assert_same_rows(found.sorted(), wanted.sorted())
    assert [(c.before, c.removed) for c in counts] == [(s.before, len(s.removed)) for s in steps]
    assert not list(folder.iterdir())


# -- graph -----------------------------------------------------------------------------------


@pytest.fixture
def no_preview(monkeypatch):
    """Without the picture, which takes a second."""
    monkeypatch.setattr("em_blocks.cli.export._write_preview", lambda path, made: None)


def edges_by_hand():
    made, edges = make(), {}
    for row in range(60):
        pair = int(made.pre_segment[row]), int(made.post_segment[row])
        if min(pair) > 0:
            edges[pair] = edges.get(pair, 0) + 1
    return edges


@pytest.mark.parametrize("ending", ["graphml", "npz", "csv", "json"])
def test_a_graph_has_the_connections_counted_by_hand(ending, folder, no_preview):
    found = export("graph", "config.json", "--output", f"g.{ending}")
    path, edges = Path(f"g.{ending}"), edges_by_hand()
    if ending == "graphml":
        graph = nx.read_graphml(path, node_type=int)
        assert {(a, b): d["weight"] for a, b, d in graph.edges(data=True)} == edges
        assert sum(inputs for _, inputs in graph.nodes(data="inputs")) == sum(edges.values())
    elif ending == "json":
        graph = nx.node_link_graph(json.loads(path.read_text()))
        assert {(a, b): d["weight"] for a, b, d in graph.edges(data=True)} == edges
    elif ending == "npz":
        matrix, ids = scipy.sparse.load_npz(path), np.load(path)["ids"]
        places = zip(*matrix.nonzero(), strict=True)
        assert {(int(ids[i]), int(ids[j])): matrix[i, j] for i, j in places} == edges
    else:
        with open(path) as file:
            rows = list(csv.DictReader(file))
        assert {(int(r["pre"]), int(r["post"])): int(r["weight"]) for r in rows} == edges
    assert found["statistics"]["synapses"] == sum(edges.values())
    assert found["statistics"]["synapses_without_objects"] == 60 - sum(edges.values())
    assert json.loads(Path(f"g.{ending}.statistics.json").read_text()) == found["statistics"]


def test_scores_and_places_of_connections_are_exported(folder, no_preview):
    export("graph", "config.json", "--output", "g.graphml", "--filter", "score=10")
    made = Score(10)(make())[0]
    for a, b, values in nx.read_graphml("g.graphml", node_type=int).edges(data=True):
        own = (made.pre_segment == a) & (made.post_segment == b)
        np.testing.assert_allclose(values["score"], made.score[own].sum())
        middle = ((made.pre + made.post) / 2)[own].mean(axis=0)
        np.testing.assert_allclose([values[axis] for axis in "zyx"], middle)


def test_weak_connections_are_left_out_of_a_graph(folder, no_preview):
    export("graph", "config.json", "--output", "g.csv", "--min-weight", 3)
    with open("g.csv") as file:
        weights = [int(row["weight"]) for row in csv.DictReader(file)]
    assert sorted(weights) == sorted(w for w in edges_by_hand().values() if w >= 3)


def test_a_terminal_and_a_picture_show_the_network(folder):
    shown = call("graph", "config.json", "--output", "g.csv", "--filter", "unmapped").stdout
    for words in ("reciprocity", "largest component", "clustering", "without unmapped segment"):
        assert words in shown
    with Image.open("g.png") as picture:
        assert picture.width > 2 * picture.height


# -- annotations -----------------------------------------------------------------------------


def test_annotations_are_a_layer_a_state_and_counts(folder):
    found = export("annotations", "config.json", "--output", "out/synapses", "--segments",
                   "precomputed://https://here/segments", "--filter", "background")
    info = json.loads(Path("out/synapses/info").read_text())
    assert info["annotation_type"] == "line"
    state = json.loads(Path("out/synapses.state.json").read_text())
    assert state["layers"][1]["source"] == "precomputed://http://localhost:9000/synapses"
    assert json.loads(Path("out/synapses.filters.json").read_text())["exported"] == found["exported"]
    assert sorted(path.name for path in Path("out").iterdir()) == [
        "synapses", "synapses.filters.json", "synapses.state.json"
    ]
