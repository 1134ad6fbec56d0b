"""Tables of ids as pandas reads them: no id becomes a float, in which 64 bits are 53."""

import json
import sqlite3
from contextlib import closing
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from click.testing import CliRunner

from em_blocks.cli.main import main
from em_blocks.export.connectome import write_connectome
from em_blocks.geometry import Frame
from em_blocks.kernels.connectome.graph import connectome
from em_blocks.kernels.synapses.table import LARGEST_ID, UNMAPPED, Synapses
from em_blocks.volumes import Volume
from em_blocks.volumes.synapse_files import read_synapses, write_synapses

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -92.0))
# Neighbours that all are the same float.
FIRST = 2**60 + 1
SEGMENTS = FIRST + np.arange(18)


def partners():
    """36 pairs: the first 18 of them between segments of large ids, the others mapped in part."""
    n = 2 * len(SEGMENTS)
    rng = np.random.default_rng(5)
    mapped = np.where(np.arange(n) % 3 == 2, UNMAPPED, np.tile(SEGMENTS, 2))
    mapped[:18] = SEGMENTS
    return Synapses(
        id=LARGEST_ID - np.arange(n), pre=rng.random((n, 3)) * 1e4, post=rng.random((n, 3)) * 1e4,
        score=np.where(np.arange(n) % 5 == 4, np.nan, rng.random(n)), size=np.arange(n),
        pre_segment=mapped, post_segment=mapped[::-1], pre_supervoxel=mapped + 18,
        post_skeleton=np.where(mapped == UNMAPPED, -2, mapped), cleft=mapped,
    )


INTEGERS = ("id", "size", "pre_segment", "post_segment", "pre_supervoxel", "post_skeleton", "cleft")
# What the release of the fly brain calls them.
IN_SQLITE = {f"{side}_{kind}": f"{kind}id_{side}" for side in ("pre", "post")
             for kind in ("segment", "supervoxel", "skeleton")}


IN_JSON = {f"{side}_{kind}": f"id_{short}_{side}" for side in ("pre", "post")
           for kind, short in (("segment", "segm"), ("skeleton", "skel"))}


def read(path: Path) -> pd.DataFrame:
    if path.suffix == ".parquet":
        return pd.read_parquet(path)
    if path.suffix == ".sqlite":
        with closing(sqlite3.connect(path)) as database:
            found = pd.read_sql("SELECT * FROM synlinks ORDER BY id DESC", database)
            return found.rename(columns={theirs: ours for ours, theirs in IN_SQLITE.items()})
    if path.suffix == ".json":
        return pd.read_json(path).rename(columns={theirs: ours for ours, theirs in IN_JSON.items()})
    return pd.read_csv(path)


@pytest.mark.parametrize("ending", ["csv", "json", "parquet", "sqlite"])
@pytest.mark.parametrize("in_parts", [False, True])
def test_partners_keep_all_bits_although_some_are_unmapped(tmp_path, ending, in_parts):
    path, written = tmp_path / f"s.{ending}", partners()
    half = np.arange(len(written)) < 20
    write_synapses(path, [written.select(half), written.select(~half)] if in_parts else written)
    found = read(path)
    for name in [name for name in INTEGERS if ending != "json" or name in ("id", *IN_JSON)]:
        assert found[name].dtype == np.int64, name
        np.testing.assert_array_equal(found[name], getattr(written, name), err_msg=name)
    assert found["pre_segment"][found["pre_segment"] != UNMAPPED].nunique() == 18


@pytest.mark.parametrize("in_parts", [False, True])
def test_json_says_null_as_it_is_published_where_nothing_is_known(tmp_path, in_parts):
    """As -1, all unmapped sites would be at one skeleton for the programs of the release."""
    written = partners().replace(post_skeleton=np.full(36, UNMAPPED))
    parts = [written.select(np.arange(36) < 5), written.select(np.arange(36) >= 5)]
    write_synapses(tmp_path / "s.json", parts if in_parts else written)
    rows = json.loads((tmp_path / "s.json").read_text())
    assert {row["id_skel_pre"] for row in rows} == {row["id_skel_post"] for row in rows} == {None}
    assert {row["id_segm_pre"] for row in rows} == {UNMAPPED, *SEGMENTS.tolist()}
    assert [file.name for file in tmp_path.iterdir()] == ["s.json"]
    found = read_synapses(tmp_path / "s.json")
    np.testing.assert_array_equal(found.pre_segment, written.pre_segment)
    np.testing.assert_array_equal(found.post_skeleton, written.post_skeleton)


def test_a_connectome_keeps_all_bits(tmp_path):
    made = connectome([partners()])
    write_connectome(tmp_path / "g.csv", made)
    found = pd.read_csv(tmp_path / "g.csv")
    for name in ("pre", "post", "weight"):
        assert found[name].dtype == np.int64
        np.testing.assert_array_equal(found[name], getattr(made, name))
    write_connectome(tmp_path / "g.json", made)
    edges = pd.DataFrame(json.loads((tmp_path / "g.json").read_text())["edges"])
    np.testing.assert_array_equal(edges["source"], made.pre)
    np.testing.assert_array_equal(edges["target"], made.post)


@pytest.fixture
def volumes(tmp_path):
    """Neurons of large ids, and a segmentation that joins and cuts them."""
    truth = np.tile(np.repeat(SEGMENTS, 4), (2, 3, 1)).astype(np.uint64)
    cut = truth.copy()
    cut[0] += np.uint64(2**61)
    cut[:, :, 40:] = 2**64 - 9
    for name, values in (("truth", truth), ("cut", cut)):
        volume = Volume.create(str(tmp_path / "v.zarr" / name), shape=truth.shape, dtype="uint64",
                               frame=FRAME, chunk_shape=(2, 3, 16))
        volume.write(volume.box, values)
    return tmp_path


def evaluate(folder: Path, verb: str, *arguments: str) -> None:
    result = CliRunner().invoke(main, ["evaluate", verb, *arguments, "--output", str(folder / "out")])
    assert result.exit_code == 0, result.output


def paths(folder: Path, prediction: str) -> tuple[str, ...]:
    return (prediction, str(folder / "v.zarr/cut"), "--truth", str(folder / "v.zarr/truth"))


def test_the_worst_objects_keep_all_bits(volumes):
    evaluate(volumes, "segmentation", *paths(volumes, "--segmentation"))
    splits = pd.read_csv(volumes / "out/worst_splits.csv")
    assert set(splits["neuron"]) <= set(SEGMENTS.tolist()) and len(splits) == 10
    merges = pd.read_csv(volumes / "out/worst_merges.csv")
    assert merges["segment"].tolist() == [2**64 - 9]
    assert str(SEGMENTS[10]) in merges.iloc[0, -1]


def test_matched_objects_keep_all_bits(volumes):
    evaluate(volumes, "instances", *paths(volumes, "--prediction"), "--iou", "0.4")
    found = pd.read_csv(volumes / "out/objects.csv")
    true = found[found["volume"] == "truth"]
    assert true["id"].tolist() == SEGMENTS.tolist()
    assert set(found[found["volume"] == "prediction"]["partner_at_0.4"]) <= {0, *SEGMENTS.tolist()}
    # 0 is none; neurons in the joined half have no partner.
    assert (true["partner_at_0.4"] == 0).sum() == 8 and found["partner_at_0.4"].dtype.kind in "ui"


def test_links_without_a_partner_keep_all_bits(tmp_path):
    truth, found = partners(), partners().select(np.arange(36) < 18)
    write_synapses(tmp_path / "truth.parquet", truth)
    write_synapses(tmp_path / "found.parquet", found)
    (tmp_path / "config.json").write_text(json.dumps({
        "kind": "evaluate_synapses", "truth": "truth.parquet", "prediction": "found.parquet",
        "id_type": "segment",
    }))
    evaluate(tmp_path, "synapses", str(tmp_path / "config.json"))
    links = pd.read_csv(tmp_path / "out/links.csv")
    assert links["id"].dtype == links["partner"].dtype == np.int64
    assert links["id"].tolist()[:36] == truth.id.tolist()
    assert set(links["partner"]) == {-1, *(found.id[found.post_segment != UNMAPPED]).tolist()}
