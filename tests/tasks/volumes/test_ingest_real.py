"""Ingest of real volumes, compared with an independent reading of the same files."""

import os
from pathlib import Path

import h5py
import mrcfile
import nibabel
import numpy as np
import pytest
import tifffile
from PIL import Image

from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.volumes.ingest import Ingest
from em_blocks.volumes import Volume

PROJECT = Path(__file__).parents[3]
DATA = Path(os.environ.get("EM_BLOCKS_DATA", PROJECT.parent / "shared" / "data"))

needs_data = pytest.mark.skipif(
    not DATA.is_dir(), reason=f"no real volumes at {DATA} (set EM_BLOCKS_DATA to their folder)"
)


@pytest.fixture
def ingested(tmp_path, monkeypatch):
    """Run a config of configs/ with the output below `tmp_path`; the volume that comes out."""
    monkeypatch.setenv("EM_BLOCKS_DATA", str(DATA))

    def run(config):
        output = f"output={tmp_path}/{config}.zarr/volume"
        task = Ingest.from_file(PROJECT / "configs" / f"{config}.json", (output,))
        task.check()
        task.check_alignment()
        for spec in task.output_specs():
            spec.create(task.grid(), "fingerprint")
        with task.open(RunContext()) as process:
            for block in task.grid().blocks():
                process(block, BlockReport())
        return Volume.open(task.output)

    return run


def write_tiff(folder, raw):
    options = {"imagej": True, "compression": "zlib", "resolution": (1 / 4.6, 1 / 4.6)}
    metadata = {"axes": "ZYX", "spacing": 50, "unit": "nm"}
    tifffile.imwrite(folder / "vnc.tif", raw, metadata=metadata, **options)
    return "tif"


def write_mrc(folder, raw):
    with mrcfile.new(folder / "vnc.mrc.gz", compression="gzip") as file:
        file.set_data(raw.astype(np.uint16))
        file.voxel_size = (46, 46, 500)
    return "mrc.gz"


def write_nifti(folder, raw):
    image = nibabel.Nifti1Image(np.ascontiguousarray(raw.T), np.diag([4.6e-6, 4.6e-6, 5e-5, 1]))
    image.header.set_xyzt_units("mm")
    nibabel.save(image, folder / "vnc.nii")
    return "nii"


def write_numpy(folder, raw):
    np.savez_compressed(folder / "vnc.npz", raw)
    return "npz"


WRITERS = {"tiff": write_tiff, "mrc": write_mrc, "nifti": write_nifti, "numpy": write_numpy}


def read_with_pillow(files):
    sections = []
    for file in files:
        with Image.open(file) as image:
            sections.append(np.array(image))
    return np.stack(sections)


@pytest.mark.parametrize(
    "config", ["fib25_ingest", "fib25_labels_ingest", "vnc_ingest", "cremi_ingest"]
)
def test_the_example_configs_are_valid(config, monkeypatch):
    monkeypatch.setenv("EM_BLOCKS_DATA", str(DATA))
    assert Ingest.from_file(PROJECT / "configs" / f"{config}.json").kind == "ingest"


@needs_data
def test_fib25_raw_is_the_stack_of_its_images(ingested):
    volume = ingested("fib25_ingest")
    files = [DATA / "fib25_medulla" / "grayscale_maps" / f"iso.{i}.png" for i in range(2600, 2780)]
    assert volume.frame.voxel_size == (10, 10, 10)
    assert volume.dtype == np.uint8
    np.testing.assert_array_equal(volume.read(volume.box), read_with_pillow(files))


@needs_data
def test_fib25_neurons_are_supervoxels_mapped_one_by_one(ingested):
    volume = ingested("fib25_labels_ingest")
    with h5py.File(DATA / "fib25_medulla" / "groundtruth.h5") as file:
        body_of = dict(file["transforms"][:].tolist())
        stack = file["stack"][:]
    expected = np.fromiter((body_of[v] for v in stack.ravel().tolist()), np.uint64, stack.size)
    assert (volume.dtype, volume.frame.voxel_size) == (np.uint64, (10, 10, 10))
    np.testing.assert_array_equal(volume.read(volume.box), expected.reshape(stack.shape))


@needs_data
def test_vnc_raw_is_the_stack_of_its_images_at_4_6_nm(ingested):
    volume = ingested("vnc_ingest")
    files = [DATA / "vnc_stack1" / "raw" / f"{i:02}.tif" for i in range(15)]
    assert volume.frame.voxel_size == (50, 4.6, 4.6)
    np.testing.assert_array_equal(volume.read(volume.box), read_with_pillow(files))


@needs_data
@pytest.mark.parametrize("type", ["tiff", "mrc", "nifti", "numpy"])
def test_vnc_raw_in_one_file_of_another_program_is_the_same_volume(tmp_path, type):
    files = [DATA / "vnc_stack1" / "raw" / f"{i:02}.tif" for i in range(15)]
    raw = read_with_pillow(files)
    source = {"type": type, "path": str(tmp_path / f"vnc.{WRITERS[type](tmp_path, raw)}")}
    task = Ingest.from_dict({
        "kind": "ingest", "run": "one", "source": source, "chunk_shape": [8, 256, 256],
        "output": str(tmp_path / "vnc.zarr/raw"),
        **({"voxel_size": [50, 4.6, 4.6]} if type == "numpy" else {}),
        **({"offset": [0, 0, 0]} if type == "nifti" else {}),
    })
    task.check()
    assert task.grid().frame.voxel_size == pytest.approx((50, 4.6, 4.6))
    with task.source.open() as read:
        for block in task.grid().blocks():
            np.testing.assert_array_equal(read(block.write_box), raw[block.write_box.slices])


@needs_data
def test_vnc_masks_of_mixed_png_modes_come_out_alike(tmp_path):
    """Sections are 1-bit or 8-bit; white means the same in all of them."""
    source = {"type": "images", "path": str(DATA / "vnc_stack1" / "mitochondria")}
    task = Ingest.from_dict(
        {
            "kind": "ingest", "run": "masks", "source": source, "voxel_size": [50, 4.6, 4.6],
            "output": str(tmp_path / "vnc.zarr/mitochondria"), "chunk_shape": [8, 256, 256],
        }
    )
    task.check()
    with task.source.open() as read:
        values = read(task.grid().block((0, 0, 0)).write_box)
    modes = set()
    for i, section in enumerate(values):
        with Image.open(DATA / "vnc_stack1" / "mitochondria" / f"{i:02}.png") as image:
            modes.add(image.mode)
            np.testing.assert_array_equal(section > 0, np.asarray(image) > 0)
        assert section.max() == 255
    assert modes == {"1", "L"}
