"""Parquet, SQLite and npz files of partners."""

import pickle
import sqlite3
from contextlib import closing
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

from em_blocks.errors import SynapseFileError
from em_blocks.kernels.synapses.table import LARGEST_ID, Synapses
from em_blocks.volumes.synapse_files import read_synapses, write_synapses

ENDINGS = ("parquet", "sqlite", "npz")

ids = st.integers(0, LARGEST_ID)
objects = st.sampled_from([-1, 0, 1, LARGEST_ID]) | st.integers(1, LARGEST_ID)
positions = st.lists(st.floats(-1e9, 1e9, allow_subnormal=False), min_size=3, max_size=3)
scores = st.floats(-1e9, 1e9, allow_subnormal=False) | st.just(np.nan)
KINDS = {"pre": positions, "post": positions, "score": scores, "cleft_score": scores,
         "size": st.integers(0, 2**40), "pre_skeleton": objects | st.just(-2)}


@st.composite
def tables(draw):
    """Tables of any rows: scores and objects that are unknown, largest ids, none at all."""
    given = draw(st.lists(ids, unique=True, max_size=4))
    columns = {
        name: draw(st.lists(KINDS.get(name, objects), min_size=len(given), max_size=len(given)))
        for name in Synapses.columns()
    }
    positions = {name: np.reshape(columns[name], (-1, 3)) for name in ("pre", "post")}
    return Synapses(**columns | positions | {"id": given})


def table(n=3):
    rng = np.random.default_rng(n)
    return Synapses(
        id=np.arange(n) + 5, pre=rng.random((n, 3)) * (40, 4.6, 4.6), post=rng.random((n, 3)) * 1e5,
        score=rng.random(n), pre_segment=rng.integers(1, 9, n), post_skeleton=[-2] * n,
    )


def assert_same(found, wanted):
    for name in Synapses.columns():
        np.testing.assert_array_equal(getattr(found, name), getattr(wanted, name), err_msg=name)


@pytest.mark.parametrize("ending", ENDINGS)
@hypothesis_settings(max_examples=30)
@given(tables())
def test_what_is_written_is_read_again(ending, written):
    with TemporaryDirectory() as folder:
        path = Path(folder) / f"synapses.{ending}"
        write_synapses(path, written)
        # A SQLite table is in the order of its ids.
        assert_same(read_synapses(path).sorted(), written.sorted())


@pytest.mark.parametrize("ending", [*ENDINGS, "csv"])
def test_several_tables_make_one_file(ending, tmp_path):
    whole = table(7)
    parts = (whole.select(slice(*ends)) for ends in ((0, 3), (3, 3), (3, 7)))
    write_synapses(tmp_path / f"s.{ending}", parts)
    assert_same(read_synapses(tmp_path / f"s.{ending}"), whole)
    write_synapses(tmp_path / f"none.{ending}", iter([]))
    assert len(read_synapses(tmp_path / f"none.{ending}")) == 0


def test_several_tables_make_the_same_json_as_one(tmp_path):
    parts = (table(7).select(slice(*ends)) for ends in ((0, 3), (3, 3), (3, 7)))
    write_synapses(tmp_path / "parts.json", parts)
    write_synapses(tmp_path / "one.json", table(7))
    assert (tmp_path / "parts.json").read_text() == (tmp_path / "one.json").read_text()


@pytest.mark.parametrize("ending", [*ENDINGS, "csv", "json"])
def test_an_interrupted_write_leaves_the_old_file_and_nothing_else(ending, tmp_path):
    path = tmp_path / f"s.{ending}"
    write_synapses(path, table(3))
    before = path.read_bytes()

    def interrupted():
        yield table(5)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        write_synapses(path, interrupted())
    assert path.read_bytes() == before and list(tmp_path.iterdir()) == [path]


@pytest.mark.parametrize("ending", ENDINGS)
@pytest.mark.parametrize("content", [b"", b"no table", None])
def test_a_file_of_something_else_is_refused(ending, content, tmp_path):
    path = tmp_path / f"s.{ending}"
    if content is None:  # cut off
        write_synapses(path, table(400))
        content = path.read_bytes()[: path.stat().st_size // 2]
    path.write_bytes(content)
    with pytest.raises(SynapseFileError, match=path.name):
        read_synapses(path)


@pytest.mark.parametrize("ending", ENDINGS)
def test_a_missing_file_is_not_made(ending, tmp_path):
    with pytest.raises(SynapseFileError, match="No such file"):
        read_synapses(tmp_path / f"none.{ending}")
    assert not list(tmp_path.iterdir())


# -- Parquet -----------------------------------------------------------------------------


def columns(**changed):
    flat = {f"{side}_{axis}": [1.0, 2.0, 3.0] for side in ("pre", "post") for axis in "zyx"}
    return {"id": [1, 2, 3], **flat, **changed}


def test_parquet_columns_are_plain_numbers_and_unknown_scores_are_null(tmp_path):
    write_synapses(tmp_path / "s.parquet", table(3).replace(score=[1.0, np.nan, 3.0]))
    found = pq.read_table(tmp_path / "s.parquet")
    assert found.column_names[:4] == ["id", "pre_z", "pre_y", "pre_x"]
    assert found["pre_x"].to_numpy().tolist() == table(3).pre[:, 2].tolist()
    assert found["score"].to_pylist() == [1.0, None, 3.0]


def test_large_parquet_files_have_groups_of_rows(tmp_path, monkeypatch):
    from em_blocks.volumes.synapse_files import parquet

    monkeypatch.setattr(parquet, "_ROWS_PER_GROUP", 4)
    write_synapses(tmp_path / "s.parquet", table(10))
    assert pq.ParquetFile(tmp_path / "s.parquet").num_row_groups == 3


def test_other_columns_of_parquet_are_not_read_and_missing_ones_are_unknown(tmp_path):
    given = columns(neurotransmitter=["a", "b", "c"], score=[1, 2, None])
    pq.write_table(pa.table(given), tmp_path / "s.parquet")
    found = read_synapses(tmp_path / "s.parquet")
    assert found.pre_segment.tolist() == [-1] * 3
    np.testing.assert_array_equal(found.score, [1, 2, np.nan])


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"id": [1, 2, None]}, "row 3 .* id is null"),
        ({"pre_y": [1.0, None, 2.0]}, "row 2 .* pre_y is null"),
        ({"pre_y": [1.0, float("nan"), 2.0]}, "row 2 .* pre .* is not finite"),
        ({"id": [1, -2, 3]}, "row 2 .* id -2 is negative"),
        ({"id": [1, 2, 1]}, "row 3 .* id 1 was already given in row 1"),
        ({"id": np.array([1, 2**63, 3], np.uint64)}, "row 2 .* above"),
        ({"id": ["a", "b", "c"]}, "column id .* holds string, but whole numbers"),
        ({"score": ["a", "b", "c"]}, "column score .* holds string, but numbers"),
        ({"pre_segment": [1.5, 2.5, 3.5]}, "column pre_segment .* holds double, but whole numbers"),
    ],
)
def test_malformed_rows_of_parquet_are_named(changed, message, tmp_path):
    pq.write_table(pa.table(columns(**changed)), tmp_path / "s.parquet")
    with pytest.raises(SynapseFileError, match=message):
        read_synapses(tmp_path / "s.parquet")


def test_parquet_without_positions_names_them(tmp_path):
    pq.write_table(pa.table({"id": [1]}), tmp_path / "s.parquet")
    with pytest.raises(SynapseFileError, match=r"no column pre_z, pre_y.*it has id"):
        read_synapses(tmp_path / "s.parquet")


# -- SQLite ------------------------------------------------------------------------------

RELEASE = ("pre_x", "pre_y", "pre_z", "post_x", "post_y", "post_z", "scores", "segmentid_pre",
           "segmentid_post", "cleft_scores")


def sqlite_file(path, *rows):
    """As the links of the full adult fly brain were released."""
    with closing(sqlite3.connect(path)) as database:
        database.execute(f"CREATE TABLE synlinks ({', '.join(RELEASE)})")
        database.executemany(f"INSERT INTO synlinks VALUES ({', '.join('?' * len(RELEASE))})", rows)
        database.commit()
    return path


def test_links_as_released_are_read(tmp_path):
    path = sqlite_file(tmp_path / "s.db", (4, 8, 40, 12, 16, 80, 30.5, 7, 0, None), (1,) * 10)
    found = read_synapses(path)
    assert found.pre[0].tolist() == [40, 8, 4] and found.post[0].tolist() == [80, 16, 12]
    assert found.pre_segment.tolist() == [7, 1] and found.post_segment.tolist() == [0, 1]
    assert found.score.tolist() == [30.5, 1] and np.isnan(found.cleft_score[0])
    assert len(set(found.id.tolist())) == 2


def test_inputs_of_a_neuron_are_looked_up_in_an_index(tmp_path):
    write_synapses(tmp_path / "s.sqlite", table(50))
    with closing(sqlite3.connect(tmp_path / "s.sqlite")) as database:
        names = [row[1] for row in database.execute("PRAGMA table_info(synlinks)")]
        assert set(RELEASE) | {"id"} <= set(names)
        for side in ("pre", "post"):
            (plan,) = database.execute(
                f"EXPLAIN QUERY PLAN SELECT * FROM synlinks WHERE segmentid_{side} = 5"
            )
            assert f"USING INDEX segmentid_{side}" in plan[3]


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        (0, None, "row 2 .* pre_x is NULL, but a number"),
        (4, "far", "row 2 .* post_y is 'far', but a number"),
        (6, "good", "row 2 .* scores is 'good'"),
        (7, 1.5, "row 2 .* segmentid_pre is 1.5, but a whole number"),
        (7, -3, "row 2 .* pre_segment -3 is negative"),
        (6, float("inf"), "row 2 .* score inf is not finite"),
    ],
)
def test_malformed_rows_of_sqlite_are_named(place, value, message, tmp_path):
    row = [1] * 10
    row[place] = value
    path = sqlite_file(tmp_path / "s.db", (1,) * 10, row)
    with pytest.raises(SynapseFileError, match=message):
        read_synapses(path)


def test_a_database_of_something_else_is_refused(tmp_path):
    with closing(sqlite3.connect(tmp_path / "s.db")) as database:
        database.execute("CREATE TABLE neurons (id)")
    with pytest.raises(SynapseFileError, match="no table 'synlinks'"):
        read_synapses(tmp_path / "s.db")


def test_an_id_of_two_tables_is_refused(tmp_path):
    with pytest.raises(SynapseFileError, match="stands in two tables"):
        write_synapses(tmp_path / "s.sqlite", iter([table(3), table(4)]))
    assert not list(tmp_path.iterdir())


# -- npz ---------------------------------------------------------------------------------


def test_an_archive_of_synful_is_read(tmp_path):
    np.savez(
        tmp_path / "s.npz", ids=np.array([3, 4], np.uint64), scores=np.ones(2, np.float32),
        positions=np.arange(12, dtype=np.int32).reshape(2, 2, 3),
    )
    found = read_synapses(tmp_path / "s.npz")
    assert found.pre.tolist() == [[0, 1, 2], [6, 7, 8]] and found.post[0].tolist() == [3, 4, 5]
    assert found.score.tolist() == [1, 1]


@pytest.mark.parametrize(
    ("changed", "message"),
    [
        ({"ids": [1, 2**63]}, "row 2 .* above"),
        ({"ids": [1, 1]}, "row 2 .* already given in row 1"),
        ({"ids": [1.0, 2.0]}, "array ids .* holds float64, but whole numbers"),
        ({"ids": [1, 2, 3]}, "has 3 ids but 2 rows of pre"),
        ({"positions": np.zeros((2, 3))}, r"positions .* shape \(2, 3\), but \(n, 2, 3\)"),
        ({"positions": np.full((2, 2, 3), np.nan)}, "row 1 .* not finite"),
        ({"scores": np.zeros((2, 1))}, r"scores .* shape \(2, 1\), but \(n,\)"),
    ],
)
def test_malformed_archives_are_refused(changed, message, tmp_path):
    arrays = {"ids": [1, 2], "positions": np.zeros((2, 2, 3))} | changed
    np.savez(tmp_path / "s.npz", **{
        name: np.asarray(v, np.uint64 if name == "ids" and isinstance(v[0], int) else None)
        for name, v in arrays.items()
    })
    with pytest.raises(SynapseFileError, match=message):
        read_synapses(tmp_path / "s.npz")


class Harmful:
    """Raises when it is unpickled."""

    def __reduce__(self):
        return (pytest.fail, ("a pickle was loaded",))


def test_pickles_are_not_loaded(tmp_path):
    np.savez(tmp_path / "s.npz", ids=np.array([Harmful()]), positions=np.zeros((1, 2, 3)))
    with pytest.raises(SynapseFileError, match="no archive of NumPy arrays of numbers"):
        read_synapses(tmp_path / "s.npz")
    (tmp_path / "s.npz").write_bytes(pickle.dumps(Harmful()))
    with pytest.raises(SynapseFileError, match="no archive of NumPy arrays of numbers"):
        read_synapses(tmp_path / "s.npz")


def test_an_archive_without_positions_names_what_it_holds(tmp_path):
    np.savez(tmp_path / "s.npz", ids=[1], scores=[1.0])
    with pytest.raises(SynapseFileError, match="no array 'positions', only ids, scores"):
        read_synapses(tmp_path / "s.npz")
