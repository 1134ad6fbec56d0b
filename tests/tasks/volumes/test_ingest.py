"""Ingest: from images and HDF5 to volumes, every bad source refused before anything is written."""

import json
import lzma
import os
import pickle
import subprocess
import sys
from pathlib import Path

import h5py
import numpy as np
import pytest
import tifffile
from PIL import Image, ImageFile

import blockwise
from em_blocks.errors import BlockAlignmentError, ConfigError, RefusedError, VolumeError
from em_blocks.geometry import Frame
from em_blocks.outputs import RunContext
from em_blocks.outputs.volume import checksum
from em_blocks.runtime.protocol.job import Job
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.volumes.ingest import Ingest
from em_blocks.volumes import Volume
from em_blocks.volumes.imports.sources import SOURCES

VOXEL_SIZE = [50, 4.6, 4.6]
OFFSET = [-150, 46, 92]
SHAPE = (11, 30, 41)


def random_values(shape=SHAPE, dtype="uint8"):
    return np.random.default_rng(0).integers(0, 255, shape, dtype=dtype)


@pytest.fixture
def images(tmp_path):
    """A folder with a PNG per section, numbered from 95 to 105."""
    folder = tmp_path / "raw"
    folder.mkdir()
    for number, section in enumerate(random_values(), start=95):
        Image.fromarray(section).save(folder / f"section_{number}.png")
    return folder


@pytest.fixture
def cremi(tmp_path):
    """A file in CREMI layout, of raw and neuron ids with an offset."""
    path = tmp_path / "sample.hdf"
    with h5py.File(path, "w") as file:
        raw = file.create_dataset("volumes/raw", data=random_values(), chunks=(3, 10, 10))
        raw.attrs["resolution"] = (40.0, 4.0, 4.0)
        ids = file.create_dataset("volumes/labels/neuron_ids", data=random_values(dtype="uint64"))
        ids.attrs["resolution"] = (40.0, 4.0, 4.0)
        ids.attrs["offset"] = (1520.0, 3644.0, -48.0)
    return path


def hdf5(path, dataset="volumes/raw"):
    return {"type": "hdf5", "path": str(path), "dataset": dataset}


def ingest(tmp_path, source, **options):
    source = {"type": "images", "path": str(source)} if isinstance(source, Path) else source
    options = {
        "voxel_size": VOXEL_SIZE,
        "offset": OFFSET,
        "chunk_shape": [4, 16, 16],
        "output": "out.zarr/raw",
        **options,
    }
    values = {"kind": "ingest", "run": "test", "source": source, **options}
    return Ingest.from_dict(values, folder=tmp_path)


def check(task):
    """What the runtime checks of a task before it starts."""
    task.check()
    task.check_alignment()
    for output in task.output_specs():
        output.check(task.grid())


def run(task):
    """What the runtime does, without database and workers; the volume that comes out."""
    check(task)
    for output in task.output_specs():
        output.create(task.grid(), "fingerprint")
    with task.open(RunContext()) as process:
        for block in task.grid().blocks():
            process(block, BlockReport())
    return Volume.open(task.output)


def refused(task, error=ConfigError):
    with pytest.raises(error) as caught:
        check(task)
    message = str(caught.value)
    assert "\n" not in message
    assert not Path(task.output).exists()
    return message


# -- what comes out --------------------------------------------------------------------


def test_an_image_stack_becomes_a_volume_with_its_place_in_the_world(tmp_path, images):
    volume = run(ingest(tmp_path, images))
    assert volume.frame == Frame(VOXEL_SIZE, OFFSET)
    assert (volume.dtype, volume.chunk_shape) == (np.uint8, (4, 16, 16))
    np.testing.assert_array_equal(volume.read(volume.box), random_values())


@pytest.mark.parametrize("format", ["zarr3", "n5", "precomputed"])
def test_the_other_formats_hold_the_same_voxels(tmp_path, images, format):
    shard_shape = [8, 32, 32] if format == "zarr3" else None
    volume = run(ingest(tmp_path, images, format=format, shard_shape=shard_shape))
    assert volume.frame == Frame(VOXEL_SIZE, OFFSET)
    np.testing.assert_array_equal(volume.read(volume.box), random_values())


@pytest.mark.parametrize("dtype", ["uint16", "int32", "float32"])
def test_the_dtype_is_kept(tmp_path, dtype):
    (tmp_path / "raw").mkdir()
    values = random_values(dtype="uint16").astype(dtype)
    for number, section in enumerate(values):
        tifffile.imwrite(tmp_path / "raw" / f"{number}.tif", section)
    volume = run(ingest(tmp_path, tmp_path / "raw"))
    assert volume.dtype == dtype
    np.testing.assert_array_equal(volume.read(volume.box), values)


def test_hdf5_brings_its_voxel_size_and_offset(tmp_path, cremi):
    source = hdf5(cremi, "volumes/labels/neuron_ids")
    volume = run(ingest(tmp_path, source, voxel_size=None, offset=None))
    assert volume.frame == Frame((40, 4, 4), (1520, 3644, -48))
    assert volume.dtype == np.uint64
    np.testing.assert_array_equal(volume.read(volume.box), random_values(dtype="uint64"))


def test_the_config_fills_in_what_the_file_does_not_say(tmp_path, cremi):
    volume = run(ingest(tmp_path, hdf5(cremi), voxel_size=None, offset=[7, 8, 9]))
    assert volume.frame == Frame((40, 4, 4), (7, 8, 9))
    same = ingest(tmp_path, hdf5(cremi), voxel_size=[40, 4, 4], offset=None, output="b.zarr/raw")
    assert run(same).frame == Frame((40, 4, 4))


def test_what_the_config_says_wins_over_the_file_with_one_warning(tmp_path, cremi, caplog):
    source = hdf5(cremi, "volumes/labels/neuron_ids")
    volume = run(ingest(tmp_path, source, voxel_size=[40, 4, 8], offset=[7, 8, 9]))
    assert volume.frame == Frame((40, 4, 8), (7, 8, 9))
    (record,) = [r for r in caplog.records if r.name.startswith("em_blocks.volumes")]
    assert "voxel_size [40.0, 4.0, 8.0] instead of [40.0, 4.0, 4.0]" in record.getMessage()
    assert "offset [7.0, 8.0, 9.0] instead of [1520.0, 3644.0, -48.0]" in record.getMessage()


@pytest.mark.parametrize("says_it", ["config", "labels of dimensions", "axistags"])
def test_axes_in_another_order_are_transposed(tmp_path, says_it):
    values = random_values()
    with h5py.File(tmp_path / "a.h5", "w") as file:
        raw = file.create_dataset("raw", data=values.transpose(2, 0, 1)[..., None], chunks=True)
        raw.attrs["element_size_um"] = [0.004, 0.04, 0.0046, 1]
        if says_it == "axistags":
            raw.attrs["axistags"] = json.dumps({"axes": [{"key": name} for name in "xzyc"]})
        if says_it == "labels of dimensions":
            for dimension, name in zip(raw.dims, "xzyc", strict=True):
                dimension.label = name
    source = {"type": "hdf5", "path": "a.h5", "dataset": "raw"}
    if says_it == "config":
        source["axes"] = ["x", "z", "y", "c"]
    volume = run(ingest(tmp_path, source, voxel_size=None, offset=None))
    assert volume.frame.voxel_size == pytest.approx((40, 4.6, 4))
    np.testing.assert_array_equal(volume.read(volume.box), values)


def test_a_config_that_names_no_axes_is_stored_as_it_was_before_there_was_the_key(tmp_path, cremi):
    assert "axes" not in ingest(tmp_path, hdf5(cremi)).stored_config()["source"]
    source = {**hdf5(cremi), "axes": ["z", "y", "x"]}
    assert ingest(tmp_path, source).stored_config()["source"]["axes"] == ["z", "y", "x"]


def test_images_need_a_voxel_size(tmp_path, images):
    assert "'voxel_size' is missing" in refused(ingest(tmp_path, images, voxel_size=None))


@pytest.mark.parametrize("block_shape", [(4, 16, 16), (8, 16, 32), (12, 32, 48), None])
def test_the_block_grid_does_not_change_the_result(tmp_path, cremi, block_shape):
    task = ingest(
        tmp_path, hdf5(cremi), voxel_size=None, offset=None, block_shape=block_shape
    )
    volume = run(task)
    np.testing.assert_array_equal(volume.read(volume.box), random_values())


def test_bodies_are_the_same_in_one_block_and_in_many(tmp_path):
    stack = random_values(dtype="uint32")
    table = np.stack([np.arange(255), np.arange(255) % 7], axis=1).astype(np.uint64)
    with h5py.File(tmp_path / "a.h5", "w") as file:
        file["stack"], file["transforms"] = stack, table
    source = {"type": "hdf5_transforms", "path": "a.h5"}
    for shape in [(4, 16, 16), (12, 32, 48)]:
        volume = run(ingest(tmp_path, source, block_shape=shape, output=f"{shape[0]}.zarr/ids"))
        assert volume.dtype == np.uint64
        np.testing.assert_array_equal(volume.read(volume.box), stack % 7)


# -- how it is done --------------------------------------------------------------------


def test_every_image_is_read_once(tmp_path, images, monkeypatch):
    decoded = []
    load = ImageFile.ImageFile.load
    task = ingest(tmp_path, images)
    for output in task.output_specs():
        output.create(task.grid(), "fingerprint")

    def counting(image):
        if image.tile:  # still to be decoded
            decoded.append(Path(image.filename).name)
        return load(image)

    monkeypatch.setattr(ImageFile.ImageFile, "load", counting)
    with task.open(RunContext()) as process:
        for block in task.grid().blocks():
            process(block, BlockReport())
    assert sorted(decoded) == sorted(file.name for file in images.iterdir())


def test_checking_decodes_no_image(tmp_path, images, monkeypatch):
    def fail(*args, **kwargs):
        raise AssertionError("an image was decoded")

    monkeypatch.setattr(ImageFile.ImageFile, "load", fail)
    task = ingest(tmp_path, images)
    task.check()
    task.identity()


def test_a_block_of_images_is_a_slab_of_whole_sections(tmp_path, images):
    grid = ingest(tmp_path, images).grid()
    assert grid.block_shape == (4, 32, 48)
    assert grid.shape == (3, 1, 1)


def test_a_block_that_cuts_the_sections_is_refused(tmp_path, images):
    message = refused(ingest(tmp_path, images, block_shape=[4, 32, 32]))
    assert "Use (4, 32, 48)" in message


def test_a_block_that_cuts_chunks_or_shards_is_refused(tmp_path, images, cremi):
    task = ingest(tmp_path, images, block_shape=[6, 32, 48])
    assert "not a multiple of the chunks" in refused(task, BlockAlignmentError)
    options = {"voxel_size": None, "offset": None, "format": "zarr3", "shard_shape": [8, 16, 16]}
    task = ingest(tmp_path, hdf5(cremi), block_shape=[4, 16, 16], **options)
    assert "not a multiple of the shards" in refused(task, BlockAlignmentError)


def test_blocks_of_hdf5_are_about_256_voxels_wide(tmp_path, cremi):
    for chunk, block in [((64, 64, 64), (256,) * 3), ((16, 100, 500), (256, 300, 500))]:
        options = {"voxel_size": None, "offset": None, "chunk_shape": chunk}
        assert ingest(tmp_path, hdf5(cremi), **options).grid().block_shape == block


def test_doing_a_block_again_changes_nothing(tmp_path, images):
    task = ingest(tmp_path, images)
    volume = run(task)
    with task.open(RunContext()) as process:
        for block in task.grid().blocks():
            report = BlockReport()
            process(block, report)
            stored = volume.read(block.write_box)
            assert report.checksums == {"raw": checksum(stored)}
            assert report.seconds.keys() == {"read", "write"}
    np.testing.assert_array_equal(volume.read(volume.box), random_values())


def test_a_damaged_section_fails_its_block_only_and_is_named(tmp_path, images):
    victim = images / "section_97.png"
    victim.write_bytes(victim.read_bytes()[:200])
    task = ingest(tmp_path, images)
    task.check()
    task.output_specs()[0].create(task.grid(), "fingerprint")
    with task.open(RunContext()) as process:
        first, *others = task.grid().blocks()
        report = BlockReport()
        with pytest.raises(VolumeError, match=str(victim)):
            process(first, report)
        assert report.stage == "read"
        for block in others:
            process(block, BlockReport())
    volume = Volume.open(task.output)
    np.testing.assert_array_equal(volume.read(volume.box)[4:], random_values()[4:])


MEASURE = """
import sys
from em_blocks.db.commits import peak_memory_mb
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.volumes.ingest import Ingest
task = Ingest.from_file(sys.argv[1])
task.output_specs()[0].create(task.grid(), "f")
with task.open(RunContext()) as process:
    for block in task.grid().blocks():
        process(block, BlockReport())
print(peak_memory_mb())
"""


def test_memory_does_not_depend_on_the_number_of_sections(tmp_path):
    """Of 112 MB more of voxels, none stays in memory; the slack is that of the allocator."""
    peaks = []
    # One arena: with many, freed memory of other threads looks like a leak.
    environment = {**os.environ, "MALLOC_ARENA_MAX": "1"}
    for depth in (16, 128):
        folder = tmp_path / f"raw{depth}"
        folder.mkdir()
        for number in range(depth):
            section = np.full((1024, 1024), number, np.uint8)
            Image.fromarray(section).save(folder / f"{number}.png", compress_level=1)
        config = {
            "kind": "ingest", "run": "memory", "voxel_size": VOXEL_SIZE,
            "source": {"type": "images", "path": str(folder)},
            "output": f"out{depth}.zarr/raw", "chunk_shape": [8, 128, 128],
        }
        (tmp_path / "config.json").write_text(json.dumps(config))
        command = [sys.executable, "-c", MEASURE, str(tmp_path / "config.json")]
        ended = subprocess.run(command, capture_output=True, check=True, env=environment)
        peaks.append(int(ended.stdout))
    assert peaks[1] < peaks[0] + 50, peaks


# -- what is not in the source ---------------------------------------------------------


def test_filled_sections_are_in_the_volume_and_in_the_summary_of_the_run(tmp_path, images):
    for number in (97, 98, 101):
        (images / f"section_{number}.png").unlink()
    source = {"type": "images", "path": str(images), "gaps": "repeat"}
    task = ingest(tmp_path, source, num_workers=2)
    report = blockwise.run(task)
    assert (report.ok, report.counts["filled_sections"]) == (True, 3)
    volume = Volume.open(task.output)
    assert volume.attributes["filled_sections"] == [
        {"z": 2, "number": 97, "from": 96}, {"z": 3, "number": 98, "from": 99},
        {"z": 6, "number": 101, "from": 100},
    ]
    expected = random_values()[[0, 1, 1, 4, 4, 5, 5, 7, 8, 9, 10]]
    np.testing.assert_array_equal(volume.read(volume.box), expected)


def test_filling_gaps_otherwise_is_another_run(tmp_path, images):
    (images / "section_97.png").unlink()

    def identity(gaps):
        return ingest(tmp_path, {"type": "images", "path": str(images), "gaps": gaps}).identity()

    assert identity("repeat") != identity("zero")


def test_colours_become_a_volume_with_channels(tmp_path):
    (tmp_path / "raw").mkdir()
    colours = random_values((11, 30, 41, 4))
    for number, section in enumerate(colours):
        Image.fromarray(section).save(tmp_path / "raw" / f"{number}.png")
    source = {"type": "images", "path": str(tmp_path / "raw")}
    assert "colours" in refused(ingest(tmp_path, source))
    volume = run(ingest(tmp_path, source | {"colours": "channels"}))
    assert (volume.channels, volume.shape, volume.frame) == (4, SHAPE, Frame(VOXEL_SIZE, OFFSET))
    np.testing.assert_array_equal(volume.read(volume.box), np.moveaxis(colours, -1, 0))


def test_a_volume_is_copied_to_another_format_and_is_an_input_of_the_run(tmp_path, images):
    first = run(ingest(tmp_path, images))
    task = ingest(
        tmp_path, {"type": "volume", "path": first.path}, output="copy.n5/raw", format="n5",
        voxel_size=None, offset=None,
    )
    assert task.sources() == {"source": first.path}
    copy = run(task)
    assert (copy.frame, copy.format) == (Frame(VOXEL_SIZE, OFFSET), "n5")
    np.testing.assert_array_equal(copy.read(copy.box), random_values())


@pytest.mark.parametrize("type", ["tiff", "numpy", "xz_array"])
def test_one_file_becomes_a_volume_by_any_blocks(tmp_path, type):
    values = random_values(dtype="uint16")
    source = {"type": type, "path": str(tmp_path / "values")}
    with open(tmp_path / "values", "wb") as file:
        {
            "tiff": lambda: tifffile.imwrite(file, values, photometric="minisblack"),
            "numpy": lambda: np.save(file, values),
            "xz_array": lambda: file.write(lzma.compress(pickle.dumps(values))),
        }[type]()

    shapes = [(4, 32, 48), (8, 32, 48)] if type == "tiff" else [(4, 16, 16), (8, 32, 16)]
    for name, shape in zip("abc", [*shapes, (12, 32, 48)]):
        volume = run(ingest(tmp_path, source, block_shape=shape, output=f"{name}/out.zarr/raw"))
        np.testing.assert_array_equal(volume.read(volume.box), values)


# -- what is refused -------------------------------------------------------------------


def test_bad_sources_are_refused_before_anything_is_written(tmp_path, images, cremi):
    missing = refused(ingest(tmp_path, tmp_path / "none"))
    assert "no folder" in missing
    assert "no dataset" in refused(ingest(tmp_path, hdf5(cremi, "volumes/row")))
    assert "cannot be opened" in refused(ingest(tmp_path, hdf5(tmp_path / "none.h5")))
    (images / "section_99.png").unlink()
    assert ": 99 (" in refused(ingest(tmp_path, images))
    Image.fromarray(random_values((30, 40))).save(images / "section_99.png")
    assert "section_99.png is 30 x 40 uint8" in refused(ingest(tmp_path, images))


@pytest.mark.parametrize(
    ("options", "reason"),
    [
        ({"shard_shape": [4, 32, 48]}, "has no shards"),
        ({"format": "zarr3", "shard_shape": [4, 24, 24]}, "size of 24"),
        ({"format": "precomputed", "offset": [1, 0, 0]}, "whole voxels"),
        ({"output": "taken.zarr/raw/inner"}, "is itself an array"),
        ({"output": "taken.zarr"}, "exists already"),
    ],
)
def test_outputs_that_cannot_be_made_are_refused_before_anything_is_written(
    tmp_path, images, options, reason
):
    Volume.create(
        str(tmp_path / "taken.zarr/raw"), shape=(4, 4, 4), dtype="uint8",
        frame=Frame(VOXEL_SIZE), chunk_shape=(4, 4, 4),
    )
    before = sorted(tmp_path.rglob("*"))
    with pytest.raises(VolumeError, match=reason):
        blockwise.run(ingest(tmp_path, images, **options))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.mark.parametrize(
    ("source", "reason"),
    [
        ({"type": "video", "path": "a"}, "source"),
        ({"path": "a"}, "source"),
        ({"type": "hdf5", "path": "a"}, "dataset' is missing"),
        ({"type": "images", "path": "a", "dataset": "b"}, "dataset' is unknown"),
    ],
)
def test_a_source_that_is_none_is_named(tmp_path, source, reason):
    with pytest.raises(ConfigError, match=reason):
        ingest(tmp_path, source)


@pytest.mark.parametrize("type", [name for name in SOURCES.builtin if name != "volume"])
def test_files_in_an_object_store_are_refused_with_what_to_do(tmp_path, type):
    source = {"type": type} | ({"dataset": "raw"} if type == "hdf5" else {})
    with pytest.raises(ConfigError, match=r"path': got 's3://bucket/a', it is in an object store"):
        ingest(tmp_path, source | {"path": "s3://bucket/a"})
    task = ingest(tmp_path, source | {"path": "file:///data/a"})
    assert task.source.path == Path("/data/a")


# -- what the runtime needs ------------------------------------------------------------


def test_the_home_of_a_run_is_beside_the_container(tmp_path, images):
    assert ingest(tmp_path, images).home == tmp_path
    assert ingest(tmp_path, images, output="deep/x.zarr/volumes/raw").home == tmp_path / "deep"
    assert ingest(tmp_path, images, output="alone.zarr").home == tmp_path


def test_the_identity_follows_the_source_and_not_the_workers(tmp_path, images):
    def identity(**options):
        return ingest(tmp_path, images, **options).identity()

    before = identity()
    assert json.loads(json.dumps(before)) == before
    assert identity(num_workers=7, output="other.zarr/raw") == before
    assert identity(offset=[0, 0, 0]) != before
    os.utime(images / "section_99.png", ns=(0, 0))
    assert identity() == before
    Image.fromarray(np.zeros((3, 3), np.uint8)).save(images / "section_99.png")
    assert identity() != before


def test_a_relocated_task_writes_elsewhere_and_reads_the_same(tmp_path, images):
    task = ingest(tmp_path, images).relocated(tmp_path / "probe")
    volume = run(task)
    assert Path(volume.path).is_relative_to(tmp_path / "probe")
    assert not (tmp_path / "out.zarr").exists()
    np.testing.assert_array_equal(volume.read(volume.box), random_values())


def test_a_worker_gets_the_same_task_from_the_job_file(tmp_path, images):
    task = ingest(tmp_path, images)
    job = Job.of(task, measured={}, uri="mongodb://127.0.0.1", epoch=1)
    job.save(tmp_path / "job.json")
    assert Job.load(tmp_path / "job.json").task() == task


# -- through the runtime ---------------------------------------------------------------


def test_a_run_stores_every_voxel_and_a_repeated_one_reads_nothing(tmp_path, images):
    task = ingest(tmp_path, images, num_workers=2)
    report = blockwise.run(task)
    assert report.ok
    assert report.blocks["computed"] == 3
    volume = Volume.open(task.output)
    np.testing.assert_array_equal(volume.read(volume.box), random_values())
    assert blockwise.run(task).blocks["computed"] == 0


def test_a_retried_block_equals_one_run_once(tmp_path, images):
    first, second = (ingest(tmp_path, images, output=f"{n}/out.zarr/raw") for n in "ab")
    blockwise.assert_retry_equals_once(first, second)


def test_many_blocks_equal_one(tmp_path, cremi):
    def make(shape, name):
        options = {"voxel_size": None, "offset": None, "chunk_shape": [4, 10, 41]}
        output = f"{name}/out.zarr/raw"
        return ingest(tmp_path, hdf5(cremi), block_shape=shape, output=output, **options)

    blockwise.assert_one_block_equals_many(make, [(4, 10, 41), (8, 20, 41)], (12, 30, 41))


def test_a_volume_that_no_run_made_is_not_overwritten(tmp_path, images):
    task = ingest(tmp_path, images)
    Volume.create(
        task.output, shape=(4, 4, 4), dtype="uint8", frame=Frame(VOXEL_SIZE), chunk_shape=(4, 4, 4)
    )
    with pytest.raises(RefusedError, match="not overwritten"):
        blockwise.run(task)
    assert Volume.open(task.output).shape == (4, 4, 4)


def test_a_damaged_section_is_quarantined_and_the_others_are_stored(tmp_path, images):
    victim = images / "section_97.png"
    victim.write_bytes(victim.read_bytes()[:200])
    report = blockwise.run(ingest(tmp_path, images))
    assert report.exit_code == 1
    assert (report.blocks["done"], report.blocks["quarantined"]) == (2, 1)
    assert str(victim) in json.dumps(report.failures)


@pytest.mark.parametrize(("changes", "exit_code"), [({}, 0), ({"voxel_size": None}, 2)])
def test_the_command_says_by_its_exit_code_how_it_went(tmp_path, images, changes, exit_code):
    task = ingest(tmp_path, images)
    (tmp_path / "config.json").write_text(json.dumps({**task.model_dump(mode="json"), **changes}))
    script = Path(__file__).parents[3] / "pipelines" / "ingest.py"
    command = [sys.executable, script, tmp_path / "config.json"]
    ended = subprocess.run(command, capture_output=True, text=True)
    assert ended.returncode == exit_code, ended.stderr
    assert Path(task.output).exists() == (exit_code == 0)
    if exit_code:
        assert "voxel_size" in ended.stderr
        assert "Traceback" not in ended.stderr
