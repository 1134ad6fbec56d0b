"""Ids as colours for VAST: read back by another reader and by ingest, refused where 24 bits end."""

import csv
import json

import numpy as np
import pytest
from click.testing import CliRunner
from PIL import Image

import em_blocks.export.section_stack as section_stack
from em_blocks.cli.main import main
from em_blocks.errors import ConfigError, RefusedError
from em_blocks.export.section_stack import write_stack
from em_blocks.export.vast_stack import VastStack
from em_blocks.geometry import Box, Frame
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.volumes.ingest import Ingest
from em_blocks.volumes import Volume

FRAME = Frame((45.0, 4.6, 9.2), (450.0, -46.0, 9.2))
SHAPE = (11, 14, 19)
LARGEST = 2**24 - 1


def volume(folder, values, name="v"):
    made = Volume.create(
        str(folder / f"in.zarr/{name}"), shape=values.shape, dtype=values.dtype, frame=FRAME,
        chunk_shape=(4, 5, 6), attributes={"labels": True},
    )
    made.write(made.box, values)
    return made.path


def labels(dtype="uint64", largest=LARGEST):
    found = np.random.default_rng(0).integers(0, largest + 1, SHAPE, dtype=dtype)
    found[:, :4] = 0
    found[10, 13, 18] = largest
    return found


def colours(folder):
    """What another reader finds: (z, y, x, 3)."""
    return np.stack([np.asarray(Image.open(f)) for f in sorted(folder.glob("*.png"))]).astype(int)


def ids_of(folder):
    red, green, blue = np.moveaxis(colours(folder), -1, 0)
    return red * 65536 + green * 256 + blue


def ingested(folder, output):
    task = Ingest.from_dict({
        "kind": "ingest", "run": "back", "output": str(output), "chunk_shape": (4, 8, 8),
        "source": {"type": "images", "path": str(folder), "colours": "ids"},
    })
    for spec in task.output_specs():
        spec.create(task.grid(), "f")
    with task.open(RunContext()) as process:
        for block in task.grid().blocks():
            process(block, BlockReport())
    return Volume.open(task.output)


def call(*arguments):
    return CliRunner().invoke(main, list(map(str, arguments)))


@pytest.mark.parametrize("dtype", ["uint32", "uint64", "int64"])
def test_the_id_is_red_65536_green_256_blue(tmp_path, dtype):
    values = labels(dtype)
    list(write_stack(VastStack.of(volume(tmp_path, values)), tmp_path / "vast"))
    np.testing.assert_array_equal(ids_of(tmp_path / "vast"), values.astype(int))
    assert colours(tmp_path / "vast").max() == 255
    files = sorted(file.name for file in (tmp_path / "vast").iterdir())
    assert files == [f"section_{z:05d}.png" for z in range(11)] + ["volume.json"]


def test_one_colour_by_hand(tmp_path):
    values = np.zeros(SHAPE, "uint32")
    values[0, 0, 0] = 3 * 65536 + 2 * 256 + 1
    list(write_stack(VastStack.of(volume(tmp_path, values)), tmp_path / "vast"))
    assert colours(tmp_path / "vast")[0, 0, :2].tolist() == [[3, 2, 1], [0, 0, 0]]


def test_ingest_brings_it_back_to_the_same_place(tmp_path):
    values, box = labels(), Box((3, 2, 1), (7, 10, 12))
    list(write_stack(VastStack.of(volume(tmp_path, values), box=box), tmp_path / "vast"))
    back = ingested(tmp_path / "vast", tmp_path / "back.zarr/v")
    np.testing.assert_array_equal(back.read(back.box), values[box.slices])
    assert back.frame == Frame(FRAME.voxel_size, FRAME.to_roi(box).offset)
    assert back.dtype == np.uint32 and back.attributes["labels"] is True


def test_an_id_of_25_bits_is_refused_before_anything_is_written(tmp_path):
    path = volume(tmp_path, labels(largest=LARGEST + 1))
    result = call("export", "vast", path, "--output", tmp_path / "vast")
    assert result.exit_code == 2 and not (tmp_path / "vast").exists()
    assert "holds the id 16777216 at voxel (10, 13, 18) (zyx), but VAST stores 24 bits" in result.stderr
    assert "--renumber" in result.stderr and result.stderr.count("\n") == 1


def test_renumbered_ids_have_a_table(tmp_path):
    values = labels("uint64", 2**62)
    values[values % 3 == 0] = 2**62 + 5
    path = volume(tmp_path, values)
    assert call("export", "vast", path, "--output", tmp_path / "vast", "--renumber").exit_code == 0
    rows = list(csv.DictReader((tmp_path / "vast/ids.csv").read_text().splitlines()))
    table = np.array([0, *(int(row["id"]) for row in rows)], "uint64")
    assert [int(row["vast"]) for row in rows] == list(range(1, len(table)))
    np.testing.assert_array_equal(table[ids_of(tmp_path / "vast")], values)
    assert json.loads((tmp_path / "vast/volume.json").read_text())["renumbered_ids"] == len(rows)
    back = ingested(tmp_path / "vast", tmp_path / "back.zarr/v")
    np.testing.assert_array_equal(table[back.read(back.box)], values)


def test_a_region_that_holds_smaller_ids_can_be_written(tmp_path):
    path = volume(tmp_path, labels(largest=2**30))
    small = labels(largest=2**30).reshape(-1)[0]
    assert small == 0
    result = call("export", "vast", path, "--output", tmp_path / "vast", "--roi", "450,-46,9.2",
                  "90,18.4,9.2")
    assert result.exit_code == 0 and "2 sections of 4 x 1 ids" in result.stdout


def test_a_stopped_export_is_repeated_and_another_volume_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(section_stack, "MOST_BYTES", 8 * 14 * 19 * 5)  # slabs of four sections
    stack = VastStack.of(volume(tmp_path, labels()))
    steps = write_stack(stack, tmp_path / "vast")
    assert next(steps) == 4
    steps.close()
    (tmp_path / "vast/section_00002.png").unlink()
    assert list(write_stack(stack, tmp_path / "vast")) == [4, 8, 11]
    np.testing.assert_array_equal(ids_of(tmp_path / "vast"), labels())
    other = VastStack.of(volume(tmp_path, labels("uint32") // 2, "other"))
    with pytest.raises(RefusedError, match=r"already holds section_00000.png of another export"):
        list(write_stack(other, tmp_path / "vast"))


@pytest.mark.parametrize(
    ("values", "renumber", "words"),
    [
        (labels("int64") * -1, False, r"holds the id -16777215 at voxel \(10, 13, 18\)"),
        (labels("int64") * -1, True, "holds the id -16777215, but ids are 0"),
        (labels().astype("float32"), False, "holds float32, no channels, but VAST"),
    ],
)
def test_what_is_no_id_is_refused(tmp_path, values, renumber, words):
    with pytest.raises(ConfigError, match=words):
        VastStack.of(volume(tmp_path, values), renumber=renumber)


def test_more_ids_than_colours_are_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("em_blocks.export.vast_stack.LARGEST_COLOUR", 3)
    values = np.zeros(SHAPE, "uint32")
    values[0, 0, :5] = [7, 9, 11, 13, 13]
    with pytest.raises(ConfigError, match=r"holds 4 ids, but VAST stores 24 bits, at most 3\."):
        VastStack.of(volume(tmp_path, values), renumber=True)
    values[0, 0, 0] = 9
    assert VastStack.of(volume(tmp_path, values, "b"), renumber=True).numbered.tolist() == [9, 11, 13]
