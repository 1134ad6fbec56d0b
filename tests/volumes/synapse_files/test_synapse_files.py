"""Text files of partners, and what is asked of every format."""

import json
import os
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from em_blocks.errors import SynapseFileError
from em_blocks.kernels.synapses.table import LARGEST_ID, TOO_FAR, UNMAPPED, Synapses
from em_blocks.volumes.synapse_files import fafb, format_of, read_synapses, write_synapses

ROOT = Path(__file__).parents[3]
DATA = Path(os.environ.get("EM_BLOCKS_DATA", ROOT.parent / "shared" / "data"))

LINK = {"id": 7, "id_skel_pre": 5, "id_skel_post": None, "location_pre": [4000, 92, 46],
        "location_post": [4040, 92, 50.6], "score": 0.5, "id_segm_pre": 0, "id_segm_post": 3}
CELLS = {"id": 7, "pre_z": 4000, "pre_y": 92, "pre_x": 46, "post_z": 4040, "post_y": 92,
         "post_x": 50.6, "score": 0.5, "post_segment": 3}
VOXELS = {"voxel_size": (40, 4.6, 4.6), "offset": (400, 46, -92)}


@pytest.fixture
def file(tmp_path):
    """Write text to a file of that name."""

    def write(name, text):
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def as_csv(*rows):
    lines = [",".join(CELLS), *(",".join(str(cell) for cell in row.values()) for row in rows)]
    return "\n".join(lines) + "\n"


# -- FAFB JSON ------------------------------------------------------------------------------


def test_links_of_json_are_read(file):
    second = LINK | {"id": 2**63 - 1, "id_skel_pre": TOO_FAR, "score": None}
    links = read_synapses(file("a.json", json.dumps([LINK, second])))
    assert links.id.tolist() == [7, LARGEST_ID]
    assert links.pre.tolist() == [[4000, 92, 46]] * 2 and links.post[0].tolist() == [4040, 92, 50.6]
    assert links.pre_skeleton.tolist() == [5, TOO_FAR]
    assert links.post_skeleton.tolist() == [UNMAPPED] * 2
    assert links.pre_segment.tolist() == [0, 0] and links.post_segment.tolist() == [3, 3]
    np.testing.assert_array_equal(links.score, [0.5, np.nan])


def test_columns_that_json_lacks_are_unknown(file):
    bare = {key: LINK[key] for key in ("id", "location_pre", "location_post")}
    links = read_synapses(file("a.json", json.dumps([bare])))
    assert links.pre_skeleton.tolist() == links.pre_segment.tolist() == [UNMAPPED]
    assert np.isnan(links.score).all()
    assert len(read_synapses(file("none.json", "[]"))) == 0


BAD_JSON = {
    "a missing key": ({"location_pre": ...}, "the key 'location_pre' is missing"),
    "a key that only some have": ({"id_skel_pre": ...}, "the key 'id_skel_pre' is missing"),
    "text": ({"score": "high"}, "score 'high' is not a number"),
    "a truth value": ({"id": True}, "id True is not a whole number"),
    "a fraction as id": ({"id": 7.5}, "id 7.5 is not a whole number"),
    "no position": ({"location_pre": [1, 2]}, r"is not a position \[z, y, x\]"),
    "no number": ({"location_post": [1, 2, None]}, r"location_post \[1, 2, None\] is not a number"),
    "not finite": ({"location_post": [1, 2, float("inf")]}, "is not finite"),
    "too large": ({"location_post": [1, 2, 10**400]}, "is not finite"),
    "nan": ({"score": float("nan")}, "score nan is not finite"),
    "a large id": ({"id": 2**63}, r"id 9223372036854775808 is above 2\*\*63 - 1"),
    "a large segment": ({"id_segm_pre": 2**64 - 1}, r"is above 2\*\*63 - 1"),
    "a negative id": ({"id": -4}, "id -4 is negative"),
    "a negative segment": ({"id_segm_pre": -2}, "pre_segment -2 is negative"),
    "a negative skeleton": ({"id_skel_post": -3}, "post_skeleton -3 is negative"),
    "an id again": ({"id": 6}, "id 6 was already given in row 1"),
}


@pytest.mark.parametrize(("changed", "words"), BAD_JSON.values(), ids=BAD_JSON)
def test_malformed_rows_of_json_are_named(file, changed, words):
    rows = [LINK | {"id": n} for n in (6, 7, 8, 9)]
    rows[2] = {key: value for key, value in (rows[2] | changed).items() if value is not ...}
    path = file("a.json", json.dumps(rows))
    with pytest.raises(SynapseFileError, match=words) as error:
        read_synapses(path)
    assert f"{path}: row 3 (number 2 counting from 0) is malformed" in str(error.value)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("[{", "is not valid JSON: .*line 1"), ("{}", "holds a JSON dict, but a list"),
        ("[[1]]", "row 1 .* is no object"), ("", "is not valid JSON"),
        ("\udcff", "is not valid JSON"),
    ],
)
def test_what_is_no_list_of_links_is_refused(tmp_path, text, words):
    path = tmp_path / "a.json"
    path.write_bytes(text.encode(errors="surrogateescape"))
    with pytest.raises(SynapseFileError, match=words):
        read_synapses(path)


def test_json_is_written_as_it_is_published(tmp_path):
    links = read_synapses(_with(tmp_path / "a.json", json.dumps([LINK])))
    write_synapses(tmp_path / "b.json", links)
    assert json.loads((tmp_path / "b.json").read_text()) == [LINK]


def _with(path, text):
    path.write_text(text)
    return path


@pytest.mark.parametrize(("name", "n"), [("pbfull_gt.json", 14_779), ("pbfull_pred.json", 17_633)])
def test_published_links_are_read(name, n, tmp_path):
    path = DATA / "synful_fafb" / name
    if not path.exists():
        pytest.skip(f"needs published links in {path} (EM_BLOCKS_DATA)")
    links = read_synapses(path)
    assert len(links) == n
    if name == "pbfull_pred.json":
        counts = [(links.pre_skeleton == UNMAPPED).sum(), (links.post_skeleton == UNMAPPED).sum(),
                  (links.pre_skeleton == TOO_FAR).sum(), (links.post_segment == 0).sum()]
        assert counts == [559, 3725, 12, 71]
        np.testing.assert_allclose([links.score.min(), links.score.max()], [5.70, 1848.3], atol=0.05)


# -- CSV ------------------------------------------------------------------------------------


def test_rows_of_csv_are_read(file):
    links = read_synapses(file("a.csv", as_csv(CELLS, CELLS | {"id": 9, "score": "", "post_x": " 1 "})))
    assert links.id.tolist() == [7, 9] and links.post.tolist() == [[4040, 92, 50.6], [4040, 92, 1]]
    np.testing.assert_array_equal(links.score, [0.5, np.nan])
    assert links.post_segment.tolist() == [3, 3] and links.pre_segment.tolist() == [UNMAPPED] * 2


def test_rows_without_ids_are_numbered_and_other_columns_ignored(file):
    text = "note,post_z,post_y,post_x,pre_z,pre_y,pre_x\na,1,2,3,4,5,6\nb,1,2,3,4,5,6\n"
    links = read_synapses(file("a.csv", text))
    assert links.id.tolist() == [0, 1] and links.pre.tolist() == [[4, 5, 6]] * 2


def test_a_table_of_a_spreadsheet_is_read(file):
    """With a byte order mark and line ends of another system."""
    path = file("a.csv", "")
    path.write_bytes(b"\xef\xbb\xbf" + as_csv(CELLS).replace("\n", "\r\n").encode())
    assert read_synapses(path).id.tolist() == [7]


BAD_CSV = {
    "text": ({"pre_z": "left"}, "pre_z 'left' is not a number"),
    "an empty cell": ({"post_y": ""}, "post_y '' is not a number"),
    "not finite": ({"post_y": "nan"}, "post_y 'nan' is not finite"),
    "a fraction as id": ({"id": "7.5"}, "id '7.5' is not a whole number"),
    "no id": ({"id": ""}, "id '' is not a whole number"),
    "a large id": ({"id": str(2**63)}, r"is above 2\*\*63 - 1"),
    "a negative id": ({"id": "-1"}, "id -1 is negative"),
    "an id again": ({"id": "6"}, "id 6 was already given in row 1"),
    "a negative segment": ({"post_segment": "-2"}, "post_segment -2 is negative"),
    "one cell more": ({"more": 1}, "it has 10 cells, but the first line names 9 columns"),
}


@pytest.mark.parametrize(("changed", "words"), BAD_CSV.values(), ids=BAD_CSV)
def test_malformed_rows_of_csv_are_named(file, changed, words):
    rows = [CELLS | {"id": n} for n in (6, 7, 8, 9)]
    rows[2] = rows[2] | changed
    with pytest.raises(SynapseFileError, match=words) as error:
        read_synapses(file("a.csv", as_csv(*rows)))
    assert "a.csv: row 3 (number 2 counting from 0) is malformed" in str(error.value)


@pytest.mark.parametrize("text", ["", "id,pre_z,pre_y,post_z,post_y,post_x\n", "\x00"])
def test_a_table_without_positions_is_refused(file, text):
    with pytest.raises(SynapseFileError, match=r"no table of partners: .*must name the columns pre_z"):
        read_synapses(file("a.csv", text))


# -- files of voxels ------------------------------------------------------------------------


def test_sites_are_the_centres_of_voxels(file):
    pre, post = file("cube_pre.csv", "0,1,2\n3,4,5\n"), file("cube_post.csv", "1,1,2\n3,4,7.0\n")
    for path in (pre, post):
        links = read_synapses(path, **VOXELS)
        assert links.id.tolist() == [0, 1]
        np.testing.assert_allclose(links.pre, [[420, 52.9, -80.5], [540, 66.7, -66.7]])
        np.testing.assert_allclose(links.post, [[460, 52.9, -80.5], [540, 66.7, -57.5]])
    world = read_synapses(pre, voxel_size=(40, 4.6, 4.6))
    np.testing.assert_allclose(world.pre - links.pre, [[-400, -46, 92]] * 2)


def test_voxels_need_a_size(file):
    with pytest.raises(SynapseFileError, match=r"their size is needed .*got None"):
        read_synapses(file("cube_pre.csv", "0,1,2\n"))


def test_files_that_do_not_belong_together_are_refused(file):
    path, _ = file("cube_pre.csv", "0,1,2\n3,4,5\n"), file("cube_post.csv", "1,1,2\n")
    with pytest.raises(SynapseFileError, match=r"cube_pre.csv has 2 rows and .*cube_post.csv has 1"):
        read_synapses(path, **VOXELS)
    other = file("other_pre.csv", "0,1,2\n")
    with pytest.raises(SynapseFileError, match=r"other_pre.csv cannot be read: No .*other_post.csv"):
        read_synapses(other, **VOXELS)


@pytest.mark.parametrize(
    ("row", "words"),
    [("1,2", "it has 2 cells"), ("1,x,3", "1, x, 3 is not a number"), ("1,2.5,3", "is no voxel"),
     ("1,inf,3", "is not finite")],
)
def test_malformed_voxels_are_named(file, row, words):
    file("cube_post.csv", "1,1,2\n1,1,2\n")
    with pytest.raises(SynapseFileError, match=words) as error:
        read_synapses(file("cube_pre.csv", f"0,1,2\n{row}\n"), **VOXELS)
    assert "cube_pre.csv: row 2 (number 1" in str(error.value)


# -- every format ---------------------------------------------------------------------------

positions = st.lists(st.floats(-1e9, 1e9), min_size=3, max_size=3)
scores = st.floats(-1e9, 1e9) | st.just(np.nan)
objects = st.sampled_from([UNMAPPED, 0, LARGEST_ID]) | st.integers(1, 50)
COLUMNS = {"pre": positions, "post": positions, "score": scores, "cleft_score": scores,
           "size": st.integers(0, 2**40), "pre_skeleton": objects | st.just(TOO_FAR)}


@st.composite
def tables(draw, names):
    ids = draw(st.lists(st.integers(0, LARGEST_ID), unique=True, max_size=4))
    n = len(ids)
    return Synapses(id=ids, **{
        name: np.reshape(
            draw(st.lists(COLUMNS.get(name, objects), min_size=n, max_size=n)),
            (n, 3) if name in ("pre", "post") else n,
        )
        for name in names if name != "id"
    })


FAFB = ("id", "pre", "post", "score", "pre_segment", "post_segment", "pre_skeleton",
        "post_skeleton")


@pytest.mark.parametrize(("ending", "columns"), [("json", FAFB), ("csv", Synapses.columns())])
@given(st.data())
def test_what_is_written_is_read_again(ending, columns, data):
    links = data.draw(tables(columns))
    with TemporaryDirectory() as folder:
        path = Path(folder, "new", f"links.{ending}")
        write_synapses(path, links)
        again = read_synapses(path)
        assert [file.name for file in path.parent.iterdir()] == [path.name]
    for name in Synapses.columns():
        np.testing.assert_array_equal(getattr(again, name), getattr(links, name))


@given(st.lists(st.tuples(*[st.integers(-10**6, 10**6)] * 6), max_size=5))
def test_voxels_that_are_written_are_read_again(rows):
    voxels = np.reshape(rows, (-1, 2, 3))
    # Any place in a voxel, its first corner included.
    for place in (0.0, 0.4):
        sites = np.add(VOXELS["offset"], (voxels + place) * VOXELS["voxel_size"])
        with TemporaryDirectory() as folder:
            path = Path(folder, "cube_post.csv")
            write_synapses(path, Synapses(np.arange(len(sites)), sites[:, 0], sites[:, 1]), **VOXELS)
            assert sorted(f.name for f in path.parent.iterdir()) == ["cube_post.csv", "cube_pre.csv"]
            again = read_synapses(path, **VOXELS)
        centres = np.add(VOXELS["offset"], (voxels + 0.5) * VOXELS["voxel_size"])
        np.testing.assert_allclose(again.pre, centres[:, 0], atol=1e-6)
        np.testing.assert_allclose(again.post, centres[:, 1], atol=1e-6)


@pytest.mark.parametrize(
    ("name", "format"),
    [("a.json", "fafb"), ("b/A.CSV", "pairs"), ("cube_pre.csv", "voxel_pairs"), ("a.hdf", "cremi"),
     ("a.parquet", "parquet"), ("a.sqlite", "sqlite"), ("a.npz", "npz")],
)
def test_the_end_of_a_name_tells_the_format(name, format):
    assert format_of(name) == format


def test_unknown_formats_missing_files_and_folders_are_refused(tmp_path):
    with pytest.raises(SynapseFileError, match=r"a.txt has no known format: .*\.json"):
        read_synapses(tmp_path / "a.txt")
    with pytest.raises(SynapseFileError, match=r"a.json cannot be read: No such file"):
        read_synapses(tmp_path / "a.json")
    (tmp_path / "b.json").mkdir()
    with pytest.raises(SynapseFileError, match="is a folder"):
        read_synapses(tmp_path / "b.json")


def test_a_failed_write_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = _with(tmp_path / "a.json", "old")

    def fail(path, synapses):
        path.write_bytes(b'[{"id"')
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(fafb, "write", fail)
        with pytest.raises(SynapseFileError, match="cannot be written: No space left"):
            write_synapses(path, Synapses(id=[1], pre=[[1, 2, 3]], post=[[1, 2, 3]]))
    assert path.read_text() == "old" and [f.name for f in tmp_path.iterdir()] == ["a.json"]
