"""``em-blocks features``: a table from named volumes or from a config; exit code 2 for wrong input."""

import json

import numpy as np
import pyarrow.parquet as pq
import pytest
from click.testing import CliRunner

from em_blocks.cli.features import main
from em_blocks.geometry import Frame
from em_blocks.volumes import Volume

FRAME = Frame((30.0, 8.0, 8.0), (60.0, -8.0, 16.0))


def volume(folder, name, values):
    made = Volume.create(str(folder / f"in.zarr/{name}"), shape=values.shape, dtype=values.dtype,
                         frame=FRAME, chunk_shape=(4, 8, 8))
    made.write(made.box, values)
    return made.path


@pytest.fixture
def paths(tmp_path):
    labels = np.zeros((6, 20, 20), "uint32")
    labels[1:4, 3:9, 2:18], labels[4:, 10:, 10:] = 3, 8
    return {
        "labels": volume(tmp_path, "labels", labels),
        "em": volume(tmp_path, "em", (labels * 20).astype("uint8")),
        "float": volume(tmp_path, "float", labels.astype("float32")),
    }


def run(*arguments):
    return CliRunner().invoke(main, [str(a) for a in arguments])


def test_volumes_on_the_command_line_or_in_a_config_give_one_table(tmp_path, paths):
    named = tmp_path / "named/t.parquet"
    result = run("--labels", paths["labels"], "--em", paths["em"], "--out", named,
                 "--block-shape", "4,8,8")
    assert result.exit_code == 0, result.output
    assert str(named) in result.output
    config = {"kind": "features", "run": "t", "labels": paths["labels"], "em": paths["em"],
              "output": str(tmp_path / "config/t.parquet")}
    (tmp_path / "t.json").write_text(json.dumps(config))
    assert run(tmp_path / "t.json").exit_code == 0
    table = pq.read_table(named)
    assert table.equals(pq.read_table(config["output"]))
    assert table["id"].to_pylist() == [3, 8] and table["voxels"].to_pylist() == [3 * 6 * 16, 200]
    assert table["em_mean"].to_pylist() == [60, 160]
    assert table["at_border"].to_pylist() == [False, True]
    again = run("--labels", paths["labels"], "--em", paths["em"], "--out", named,
                "--block-shape", "4,8,8", "--json")
    assert [report["blocks"]["computed"] for report in json.loads(again.stdout)] == [0, 0]


def test_chosen_features_only(tmp_path, paths):
    out = tmp_path / "t.parquet"
    assert run("--labels", paths["labels"], "--out", out, "--feature", "shape").exit_code == 0
    assert pq.read_table(out).column_names[-1] == "flatness"


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--labels", "{float}", "--out", "{out}"], "one integer id per voxel"),
        (["--labels", "{labels}", "--em", "{float}", "--out", "{out}"], "one uint8 value per voxel"),
        (["--labels", "{labels}"], "Name --labels VOLUME and --out"),
        (["--labels", "{labels}", "--out", "{folder}/t.csv"], "must end in .parquet"),
        (["--labels", "{labels}", "--out", "{out}", "--set", "run=b"], "belong to a CONFIG"),
        (["{folder}/t.json", "--em", "{em}"], "cannot be given together with a CONFIG"),
    ],
)
def test_wrong_input_ends_with_2_and_writes_nothing(tmp_path, paths, arguments, words):
    names = {**paths, "out": tmp_path / "new/t.parquet", "folder": tmp_path}
    before = sorted(tmp_path.rglob("*"))
    result = run(*(a.format(**names) for a in arguments))
    assert result.exit_code == 2 and words in " ".join(result.output.split())
    assert sorted(tmp_path.rglob("*")) == before
