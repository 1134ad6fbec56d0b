"""Volumes as TIFF files: read back by tifffile and by ingest, to the same place."""

import json

import numpy as np
import pytest
import tifffile
import zarr
from click.testing import CliRunner

import em_blocks.export.section_stack as section_stack
from em_blocks.cli.main import main
from em_blocks.errors import ConfigError, RefusedError
from em_blocks.export.section_stack import write_stack
from em_blocks.export.tiff_stack import TiffStack
from em_blocks.geometry import Box, Frame
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.volumes.ingest import Ingest
from em_blocks.volumes import Volume

FRAME = Frame((45.0, 4.6, 9.2), (450.0, -46.0, 9.2))
SHAPE = (11, 14, 19)


def volume(folder, values, name="v", **attributes):
    made = Volume.create(
        str(folder / f"in.zarr/{name}"), shape=values.shape[-3:], dtype=values.dtype, frame=FRAME,
        chunk_shape=(4, 5, 6), channels=len(values) if values.ndim == 4 else None,
        attributes=attributes,
    )
    made.write(made.box, values)
    return made.path


def values_of(dtype, shape=SHAPE):
    rng = np.random.default_rng(3)
    if np.dtype(dtype).kind == "f":
        return rng.random(shape).astype(dtype)
    return rng.integers(0, np.iinfo(dtype).max, shape, dtype=dtype)


def written(source, folder, **options):
    list(write_stack(TiffStack.of(source, **options), folder))
    return sorted(folder.glob("*.tif"))


def ingested(folder, output, **values):
    task = Ingest.from_dict({
        "kind": "ingest", "run": "back", "source": {"type": "images", "path": str(folder)},
        "output": str(output), "chunk_shape": (4, 8, 8), **values,
    })
    for spec in task.output_specs():
        spec.create(task.grid(), "f")
    with task.open(RunContext()) as process:
        for block in task.grid().blocks():
            process(block, BlockReport())
    return Volume.open(task.output)


@pytest.mark.parametrize(
    "dtype", ["uint8", "int16", "uint16", "uint32", "uint64", "float32", "float64"]
)
def test_another_reader_finds_the_same_values(tmp_path, dtype):
    values = values_of(dtype)
    files = written(volume(tmp_path, values), tmp_path / "tiff")
    assert [file.name for file in files] == [f"section_{z:05d}.tif" for z in range(11)]
    read = np.stack([tifffile.imread(file) for file in files])
    assert read.dtype == values.dtype
    np.testing.assert_array_equal(read, values)


def test_a_mask_of_bool_becomes_0_and_1(tmp_path):
    array = zarr.open(str(tmp_path / "b.zarr"), mode="w", shape=SHAPE, chunks=(4, 5, 6), dtype=bool)
    array[:] = values_of("uint8") > 100
    array.attrs["resolution"] = FRAME.voxel_size
    read = np.stack([tifffile.imread(f) for f in written(str(tmp_path / "b.zarr"), tmp_path / "t")])
    np.testing.assert_array_equal(read, (values_of("uint8") > 100).astype("uint8"))


@pytest.mark.parametrize("dtype", ["uint8", "uint16", "uint32", "float32"])
def test_ingest_brings_it_back_to_the_same_place(tmp_path, dtype):
    values, box = values_of(dtype), Box((3, 2, 1), (7, 10, 12))
    source = volume(tmp_path, values)
    written(source, tmp_path / "tiff", box=box)
    back = ingested(tmp_path / "tiff", tmp_path / "back.zarr/v")
    np.testing.assert_array_equal(back.read(back.box), values[box.slices])
    assert back.frame == Frame(FRAME.voxel_size, FRAME.to_roi(box).offset)


def test_what_a_config_says_of_the_place_wins(tmp_path):
    written(volume(tmp_path, values_of("uint8")), tmp_path / "tiff")
    told = {"voxel_size": (40.0, 4.0, 4.0), "offset": (1.0, 2.0, 3.0)}
    back = ingested(tmp_path / "tiff", tmp_path / "back.zarr/v", **told)
    assert back.frame == Frame(told["voxel_size"], told["offset"])


def test_files_and_sidecar_say_where_they_lie(tmp_path):
    source = volume(tmp_path, values_of("uint8"), scale=255.0)
    files = written(source, tmp_path / "tiff", box=Box((2, 1, 0), (3, 4, 5)))
    assert files[0].name == "section_00002.tif"
    with tifffile.TiffFile(files[1]) as tiff:
        (said,) = tiff.shaped_metadata
        x, y = (tiff.pages.first.tags.valueof(f"{axis}Resolution") for axis in "XY")
        assert said["voxel_size"] == [45.0, 4.6, 9.2] and said["units"] == "nm"
        assert said["offset"] == pytest.approx([450 + 3 * 45, -46 + 4.6, 9.2])
        # Pixels per centimetre.
        assert (x[0] / x[1], y[0] / y[1]) == pytest.approx((1e7 / 9.2, 1e7 / 4.6), rel=1e-6)
    document = json.loads((tmp_path / "tiff/volume.json").read_text())
    assert document["offset"] == pytest.approx([540, -41.4, 9.2]) and document["shape"] == [3, 4, 5]
    assert (document["scale"], document["first_section"]) == (255, 2)


def test_probabilities_become_floats_or_bytes(tmp_path):
    stored = values_of("uint16", (2, *SHAPE)) % 1001
    source = volume(tmp_path, stored.astype("uint16"), scale=1000.0, classes=["mito", "membrane"])
    floats = written(source, tmp_path / "float", channel="membrane", form="float32")
    read = np.stack([tifffile.imread(file) for file in floats])
    np.testing.assert_allclose(read, stored[1] / 1000, atol=1e-7)
    assert read.dtype == np.float32
    bytes_ = written(source, tmp_path / "bytes", channel=0, form="uint8")
    read = np.stack([tifffile.imread(file) for file in bytes_])
    np.testing.assert_array_equal(read, np.rint(stored[0] / 1000 * 255))
    assert json.loads((tmp_path / "bytes/volume.json").read_text())["scale"] == 255


def test_a_stopped_export_is_repeated_and_writes_what_is_missing(tmp_path, monkeypatch):
    monkeypatch.setattr(section_stack, "MOST_BYTES", 4 * 14 * 19 * 5)  # slabs of four sections
    source = volume(tmp_path, values_of("uint16"))
    stack, folder = TiffStack.of(source), tmp_path / "tiff"
    assert [s.shape[0] for s in stack.slabs()] == [4, 4, 3]
    steps = write_stack(stack, folder)
    assert (next(steps), next(steps)) == (4, 8)
    steps.close()
    times = {file: file.stat().st_mtime_ns for file in folder.glob("*.tif")}
    assert len(times) == 8
    next(folder.glob("section_00002.tif")).unlink()
    assert list(write_stack(stack, folder)) == [4, 8, 11]
    kept = {f: t for f, t in times.items() if int(f.stem[-5:]) >= 4}
    assert all(file.stat().st_mtime_ns == time for file, time in kept.items())
    read = np.stack([tifffile.imread(file) for file in sorted(folder.glob("*.tif"))])
    np.testing.assert_array_equal(read, values_of("uint16"))


def test_slabs_are_whole_chunks_and_few_sections_at_a_time(tmp_path, monkeypatch):
    stack = TiffStack.of(volume(tmp_path, values_of("uint8")), box=Box((3, 0, 0), (8, 14, 19)))
    assert [s.shape[0] for s in stack.slabs()] == [8]
    for most, depths in ((4 * 14 * 19 * 9, [5, 3]), (4 * 14 * 19 * 3, [3, 3, 2]), (1, [1] * 8)):
        monkeypatch.setattr(section_stack, "MOST_BYTES", most)
        assert [s.shape[0] for s in stack.slabs()] == depths


def test_two_volumes_do_not_mix_in_one_folder(tmp_path):
    written(volume(tmp_path, values_of("uint8")), tmp_path / "tiff")
    other = volume(tmp_path, values_of("uint16"), "other")
    with pytest.raises(RefusedError, match=r"already holds section_00000.tif of another export"):
        list(write_stack(TiffStack.of(other), tmp_path / "tiff"))
    small = TiffStack.of(other, box=Box((0, 0, 0), (2, 3, 4)))
    list(write_stack(small, tmp_path / "tiff", overwrite=True))
    assert len(list((tmp_path / "tiff").glob("*.tif"))) == 2


def test_labels_are_no_probabilities(tmp_path):
    with pytest.raises(ConfigError, match="are no probabilities"):
        TiffStack.of(volume(tmp_path, values_of("uint8")), form="float32")


# -- as a user types it --------------------------------------------------------------------


def call(*arguments):
    result = CliRunner().invoke(main, ["export", "tiff", *map(str, arguments)])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_the_command_writes_a_region(tmp_path):
    source = volume(tmp_path, values_of("uint8", (2, *SHAPE)), scale=255.0)
    result = call(source, "--output", tmp_path / "t", "--channel", "1", "--json", "--roi", "495,-46,9.2",
                  "90,46,92")
    assert result.exit_code == 0, result.output
    assert json.loads(result.stdout)["shape"] == [2, 10, 10]
    read = np.stack([tifffile.imread(file) for file in sorted((tmp_path / "t").glob("*.tif"))])
    np.testing.assert_array_equal(read, values_of("uint8", (2, *SHAPE))[1, 1:3, :10, :10])


@pytest.mark.parametrize(
    ("options", "words", "code"),
    [
        (["--channel", "7"], "none is 7", 2), ([], "none is chosen", 2),
        (["--roi", "0,0,0", "10,10,10"], "not inside|voxel grid", 2),
    ],
)
def test_what_cannot_be_written_is_said(tmp_path, options, words, code):
    source = volume(tmp_path, values_of("uint8", (2, *SHAPE)))
    result = call(source, "--output", tmp_path / "t", *options)
    assert result.exit_code == code and any(word in result.output for word in words.split("|"))
    assert not (tmp_path / "t").exists()


def test_an_export_into_the_volume_is_refused(tmp_path):
    source = volume(tmp_path, values_of("uint8"))
    result = call(source, "--output", f"{source}/tiff")
    assert result.exit_code == 2 and "lies in" in result.output
