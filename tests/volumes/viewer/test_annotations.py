"""Layers of annotations, decoded as the description of the format says, by other code."""

import gzip
import json
import struct

import numpy as np
import pytest

from em_blocks.errors import VolumeError
from em_blocks.kernels.neuroglancer.annotation_lines import Grid, rows_of
from em_blocks.kernels.synapses.table import LARGEST_ID, Synapses
from em_blocks.volumes.viewer import annotations
from em_blocks.volumes.viewer.annotations import read_layer, viewer_state, write_annotations

RECORD = struct.Struct("<6f2fi")  # postsynaptic x, y, z, presynaptic, score, cleft score, size


def table(n=40, seed=0):
    rng = np.random.default_rng(seed)
    post = rng.random((n, 3)) * (4000, 30000, 20000) + (400, 46, 9.2)
    ids = np.append(rng.permutation(10**6)[: n - 1], LARGEST_ID) if n else []
    return Synapses(
        id=ids, post=post, pre=post + rng.normal(0, 150, (n, 3)),
        score=np.where(rng.random(n) < 0.2, np.nan, rng.random(n) * 300),
        size=rng.integers(0, 2**33, n), pre_segment=rng.integers(-1, 4, n),
        post_segment=rng.choice([-1, 0, 5, LARGEST_ID], n),
    )


def written(tmp_path, *tables, limit=5000, rows=1 << 19, per_shard=1 << 20):
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(annotations, "_LIMIT", limit)
        patch.setattr(annotations, "_ROWS_AT_ONCE", rows)
        patch.setattr(annotations, "_ROWS_PER_SHARD", per_shard)
        return write_annotations(tmp_path / "layer", iter(tables))


# -- an independent reader -------------------------------------------------------------------


def entries(folder, index):
    """All values of an index by key, found by walking its shards."""
    sharding, found = index["sharding"], {}
    assert sharding["@type"] == "neuroglancer_uint64_sharded_v1"
    n_minishards = 1 << sharding["minishard_bits"]
    for file in (folder / index["key"]).iterdir():
        data = file.read_bytes()
        body = data[16 * n_minishards :]
        for number in range(n_minishards):
            begin, end = struct.unpack_from("<2Q", data, 16 * number)
            if begin == end:
                continue
            rows = np.frombuffer(gzip.decompress(body[begin:end]), "<u8").reshape(3, -1)
            key = at = 0
            for step, gap, size in rows.T.tolist():
                key, at = key + step, at + gap
                assert key not in found
                found[key] = body[at : at + size]
                at += size
    return found


def decoded_list(data):
    """Record by id, of a list of annotations."""
    (n,) = struct.unpack_from("<Q", data)
    records = [RECORD.unpack_from(data, 8 + RECORD.size * i) for i in range(n)]
    ids = struct.unpack_from(f"<{n}Q", data, 8 + RECORD.size * n)
    assert len(data) == 8 + (RECORD.size + 8) * n and len(set(ids)) == n
    return dict(zip(ids, records, strict=True))


def decoded_single(data):
    """Record and related segments of one annotation."""
    at, related = RECORD.size, []
    for _ in range(2):
        (n,) = struct.unpack_from("<I", data, at)
        related.append(list(struct.unpack_from(f"<{n}Q", data, at + 4)))
        at += 4 + 8 * n
    assert at == len(data)
    return RECORD.unpack_from(data), related


def record_of(synapses, row):
    return (
        *synapses.post[row][::-1], *synapses.pre[row][::-1], synapses.score[row],
        synapses.cleft_score[row], min(synapses.size[row], 2**31 - 1),
    )


def assert_records(found, synapses):
    assert set(found) == set(synapses.id.tolist())
    for row, id in enumerate(synapses.id.tolist()):
        np.testing.assert_allclose(found[id], record_of(synapses, row), rtol=1e-6)


def morton(cell, shape):
    """Bits of the cell's coordinates in turns, those left out that are 0 in the whole grid."""
    code = place = 0
    for bit in range(64):
        for c, n in zip(cell, shape, strict=True):
            if 2**bit < n:
                code |= (int(c) >> bit & 1) << place
                place += 1
    return code


def crosses(begin, end, low, high):
    """Whether a line has a point in a box."""
    first, last = 0.0, 1.0
    for a, b, least, most in zip(begin, end, low, high, strict=True):
        if a == b:
            if not least <= a <= most:
                return False
            continue
        s, t = sorted([(least - a) / (b - a), (most - a) / (b - a)])
        first, last = max(first, s), min(last, t)
    return first <= last


# -- tests ---------------------------------------------------------------------------------


def test_every_line_is_found_by_its_id_with_its_segments(tmp_path):
    made = table()
    info = written(tmp_path, made).info
    found = entries(tmp_path / "layer", info["by_id"])
    singles = {id: decoded_single(data) for id, data in found.items()}
    assert_records({id: record for id, (record, _) in singles.items()}, made)
    for row, id in enumerate(made.id.tolist()):
        segments = made.pre_segment[row], made.post_segment[row]
        assert singles[id][1] == [[s] if s > 0 else [] for s in segments]


@pytest.mark.parametrize("number", [0, 1])
def test_a_segment_shows_its_synapses_and_background_none(number, tmp_path):
    made = table()
    relationship = written(tmp_path, made).info["relationships"][number]
    segments = getattr(made, relationship["id"])
    assert relationship["id"] == ["pre_segment", "post_segment"][number]
    found = entries(tmp_path / "layer", relationship)
    assert set(found) == {s for s in segments.tolist() if s > 0}
    for segment, data in found.items():
        assert_records(decoded_list(data), made.select(segments == segment))


@pytest.mark.parametrize(("limit", "n_levels"), [(5000, 1), (20, 2), (4, 4)])
def test_levels_of_the_spatial_index_hold_every_line_once_where_it_passes(limit, n_levels, tmp_path):
    made = table(100)
    info = written(tmp_path, made, limit=limit).info
    levels = info["spatial"]
    lower, upper = np.array(info["lower_bound"]), np.array(info["upper_bound"])
    lines = rows_of(made)
    level_of = {}
    assert len(levels) >= n_levels and levels[0]["grid_shape"] == [1, 1, 1]
    for number, level in enumerate(levels):
        size, shape = np.array(level["chunk_size"]), level["grid_shape"]
        np.testing.assert_array_equal(size * shape, upper - lower)
        if number:
            assert set(np.array(levels[number - 1]["chunk_size"]) / size) <= {1, 2}
        cells = {morton(cell, shape): cell for cell in np.ndindex(*shape)}
        found = {code: decoded_list(data) for code, data in entries(tmp_path / "layer", level).items()}
        assert set(found) <= set(cells)
        here = {id for records in found.values() for id in records}
        assert not here & set(level_of)
        level_of |= dict.fromkeys(here, number)
        for row in np.flatnonzero(np.isin(made.id, list(here))):
            id, line = int(made.id[row]), lines[row]
            for code, cell in cells.items():
                low = lower + np.array(cell) * size
                inside = id in found.get(code, {})
                # Lines that only touch a cell may be in it or not.
                strict = crosses(line["post"], line["pre"], low + 1e-2, low + size - 1e-2)
                loose = crosses(line["post"], line["pre"], low - 1e-2, low + size + 1e-2)
                assert strict <= inside <= loose
                if inside:
                    np.testing.assert_allclose(found[code][id], record_of(made, row), rtol=1e-6)
    assert set(level_of) == set(made.id.tolist())
    if limit < 5000:
        first = entries(tmp_path / "layer", levels[0])
        assert 0 < len(decoded_list(first[0])) <= 3 * limit


@pytest.mark.parametrize("limit", [5000, 20])
def test_a_level_promises_as_many_lines_in_a_cell_as_there_are(limit, tmp_path):
    info = written(tmp_path, table(300), limit=limit).info
    for level in info["spatial"]:
        counts = [len(decoded_list(data)) for data in entries(tmp_path / "layer", level).values()]
        assert level["limit"] == max(counts)


def test_a_large_layer_has_several_shards_and_is_the_same_however_its_table_is_cut(tmp_path):
    made = table(200)
    folder = tmp_path / "layer"

    def indices(info):
        places = [*info["relationships"], info["by_id"], *info["spatial"]]
        return [entries(folder, place) for place in places]

    whole = indices(written(tmp_path, made, limit=20).info)
    parts = [made.select(slice(*ends)) for ends in ((0, 77), (77, 77), (77, 200))]
    assert indices(written(tmp_path, *parts, limit=20, rows=30, per_shard=40).info) == whole
    assert len(list((folder / "by_id").iterdir())) == 8


def test_nothing_makes_an_empty_layer(tmp_path):
    layer = written(tmp_path)
    assert layer.info["em_blocks"]["lines"] == 0 and layer.largest_score is None
    assert not entries(tmp_path / "layer", layer.info["by_id"])
    assert np.greater(layer.info["upper_bound"], layer.info["lower_bound"]).all()
    assert json.loads(json.dumps(viewer_state(layer, url="http://here")))["layers"]


def test_the_info_file_says_what_a_viewer_needs(tmp_path):
    layer = written(tmp_path, table())
    info = json.loads((tmp_path / "layer" / "info").read_text())
    assert read_layer(tmp_path / "layer") == layer and layer.info["em_blocks"]["lines"] == 40
    assert info == layer.info and info["@type"] == "neuroglancer_annotations_v1"
    assert info["annotation_type"] == "line" and info["dimensions"]["x"] == [1e-9, "m"]
    assert [(p["id"], p["type"]) for p in info["properties"]] == [
        ("score", "float32"), ("cleft_score", "float32"), ("size", "int32")
    ]
    assert sorted(path.name for path in (tmp_path / "layer").iterdir()) == [
        "by_id", "info", "post_segment", "pre_segment", "spatial0"
    ]


def test_the_state_links_the_layer_to_the_segmentation(tmp_path):
    layer = written(tmp_path, table())
    alone = viewer_state(layer, url="http://here/layer/")
    assert [x["source"] for x in alone["layers"]] == ["precomputed://http://here/layer"]
    linked = viewer_state(layer, url="u", segments_url="precomputed://s")
    assert [x["type"] for x in linked["layers"]] == ["segmentation", "annotation"]
    assert linked["layers"][1]["linkedSegmentationLayer"] == {
        "pre_segment": "segments", "post_segment": "segments"
    }
    largest = np.nanmax(table().score)
    shown = float(alone["layers"][0]["shader"].split("max=")[1].split(",")[0])
    assert largest <= shown < 1.2 * largest


def test_a_layer_is_replaced_as_a_whole_or_not_at_all(tmp_path):
    written(tmp_path, table(50), limit=5)

    def interrupted():
        yield table(3)
        raise KeyboardInterrupt

    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(KeyboardInterrupt):
        write_annotations(tmp_path / "layer", interrupted())
    assert sorted(tmp_path.rglob("*")) == before
    again = written(tmp_path, table(3))
    assert len(entries(tmp_path / "layer", again.info["by_id"])) == 3
    assert not (tmp_path / "layer" / "spatial1").exists() and len(list(tmp_path.iterdir())) == 1


def test_a_folder_of_something_else_is_not_replaced(tmp_path):
    (tmp_path / "layer").mkdir()
    written(tmp_path, table(3))  # empty: nothing to lose
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "info").write_text('{"@type": "neuroglancer_multiscale_volume"}')
    with pytest.raises(VolumeError, match="is no layer of annotations"):
        write_annotations(tmp_path / "mine", [])
    with pytest.raises(VolumeError, match="is no layer of annotations"):
        read_layer(tmp_path / "mine")
    (tmp_path / "file").write_text("")
    with pytest.raises(VolumeError, match="is no layer of annotations"):
        write_annotations(tmp_path / "file", [])


def test_an_id_of_two_tables_is_refused(tmp_path):
    with pytest.raises(VolumeError, match="stands in two tables"):
        written(tmp_path, table(3), table(3))
    assert not list(tmp_path.iterdir())


def test_long_lines_along_an_axis_through_corners_and_of_no_length_have_their_cells():
    grid = Grid(np.zeros(3), np.array([10.0, 10, 10]), np.array([8, 8, 8]))
    post = [[5, 5, 5], [5, 5, 75], [0, 0, 0], [7, 7, 7]]  # z, y, x
    pre = [[5, 5, 75], [5, 5, 5], [80, 80, 80], [7, 7, 7]]
    rows = rows_of(Synapses(id=range(4), post=post, pre=pre))
    numbers, codes = grid.crossed(rows)
    straight = {morton((i, 0, 0), (8, 8, 8)) for i in range(8)}
    diagonal = {morton((i, i, i), (8, 8, 8)) for i in range(8)}
    found = [set(codes[numbers == n].tolist()) for n in range(4)]
    assert found == [straight, straight, diagonal, {0}]
    assert len(codes) == 8 + 8 + 8 + 1
