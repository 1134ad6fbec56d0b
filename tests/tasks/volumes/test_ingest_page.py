"""Every example of docs/ingest.md, run on files that other programs' libraries write."""

import json
import lzma
import pickle
import re
import shutil
import sys
from pathlib import Path

import h5py
import mrcfile
import nibabel
import numpy as np
import pytest
import tifffile
import zarr
from PIL import Image

from em_blocks.errors import ConfigError
from em_blocks.outputs import RunContext
from em_blocks.tasks.base import BlockReport
from em_blocks.tasks.volumes.ingest import Ingest
from em_blocks.volumes import Volume
from em_blocks.volumes.imports.sources import SOURCES

ROOT = Path(__file__).parents[3]
PAGE = (ROOT / "docs/ingest.md").read_text()
EXAMPLES = [json.loads(block) for block in re.findall(r"```json\n(.*?)```", PAGE, re.DOTALL)]

SHAPE = (6, 10, 9)
RAW = np.random.default_rng(0).integers(0, 255, SHAPE).astype(np.uint8)
COLOURS = np.random.default_rng(1).integers(0, 255, (*SHAPE, 3)).astype(np.uint8)


def save_images(folder, sections, name):
    folder.mkdir()
    for number, section in enumerate(sections, start=7):
        Image.fromarray(section).save(folder / name.format(number))


def raw(folder):
    save_images(folder / "sections", RAW, "s{}.png")
    (folder / "sections/s9.png").unlink()
    return RAW[[0, 1, 1, 3, 4, 5]], [50, 4.6, 4.6], [-100, 0, 46]


def ch1(folder):
    save_images(folder / "named", RAW, "2019-03-14_z{:04d}_ch1.png")
    save_images(folder / "named2", RAW[:1], "2019-03-14_z{:04d}_ch2.png")
    shutil.copy(folder / "named2/2019-03-14_z0007_ch2.png", folder / "named")
    return RAW, [50, 4.6, 4.6], [0, 0, 0]


def painted(folder):
    save_images(folder / "painted", COLOURS, "{}.png")
    return np.moveaxis(COLOURS, -1, 0), [50, 4.6, 4.6], [0, 0, 0]


def vast(folder):
    save_images(folder / "vast", COLOURS, "seg_s{:03d}.png")
    red, green, blue = np.moveaxis(COLOURS.astype(np.uint32), -1, 0)
    return red * 65536 + green * 256 + blue, [50, 4.6, 4.6], [0, 0, 0]


def tiles(folder):
    for z, section in enumerate(RAW[:2], start=1):
        (folder / f"s{z:04d}").mkdir()
        for row, column in np.ndindex(2, 3):
            tile = section[6 * row:6 * row + 6, 4 * column:4 * column + 4]
            Image.fromarray(tile).save(folder / f"s{z:04d}/r{row + 1}_c{column + 1}.png")
    patterns = re.search(r"`bfly.json` is `(.*)`:", PAGE)[1]
    (folder / "bfly.json").write_text(patterns)
    return RAW[:2], [50, 4.6, 4.6], [0, 0, 0]


def stack(folder):
    metadata = {"axes": "ZYX", "spacing": 0.05, "unit": "um"}
    options = {"imagej": True, "resolution": (1000 / 4.6, 1000 / 4.6)}
    tifffile.imwrite(folder / "stack.tif", RAW, metadata=metadata, **options)
    return RAW, [50, 4.6, 4.6], [0, 0, 0]


def cremi(folder):
    with h5py.File(folder / "sample.hdf", "w") as file:
        file["volumes/raw"] = RAW
        file["volumes/raw"].attrs.update({"resolution": (40.0, 4.0, 4.0), "offset": (80.0, 0.0, 4.0)})
    return RAW, [40, 4, 4], [80, 0, 4]


def ilastik(folder):
    with h5py.File(folder / "exported.h5", "w") as file:
        file["exported_data"] = COLOURS
    return np.moveaxis(COLOURS, -1, 0), [50, 4.6, 4.6], [0, 0, 0]


def copy(folder):
    zarr.save_array(str(folder / "other.zarr/raw"), RAW)
    return RAW, [8, 8, 8], [0, 0, 0]


def tomogram(folder):
    with mrcfile.new(folder / "tomogram.rec") as file:
        file.set_data(RAW.view(np.int8))
        file.voxel_size = (46, 46, 500)
        file.header.origin.x = 20
    return RAW, [50, 4.6, 4.6], [0, 0, 0]


def nifti(folder):
    affine = np.diag([0.004, 0.004, 0.04, 1])
    affine[:3, 3] = (0.002, 0.002, 0.42)
    image = nibabel.Nifti1Image(np.ascontiguousarray(RAW.T), affine)
    image.header.set_xyzt_units("micron")
    nibabel.save(image, folder / "labels.nii.gz")
    return RAW, [40, 4, 4], [400, 0, 0]


def webknossos(folder):
    archive = ROOT / "tests/volumes/imports/webknossos/written_by_webknossos.zip"
    shutil.unpack_archive(archive, folder / "unpacked")
    (folder / "unpacked/zarr3").rename(folder / "dataset")
    z, y, x = np.indices((6, 10, 9))
    return (x + 10 * y + 100 * z + 2**33).astype(np.uint64), [50, 9.2, 4.6], [1500, 147.2, 36.8]


def predicted(folder):
    np.savez_compressed(folder / "arrays.npz", prediction=RAW, other=RAW)
    return RAW, [40, 4, 4], [0, 0, 0]


def components(folder):
    (folder / "result_components.xz").write_bytes(lzma.compress(pickle.dumps(RAW.astype(np.uint16))))
    return RAW.astype(np.uint16), [40, 4, 4], [0, 0, 0]


FILES = {make.__name__: make for make in (
    raw, ch1, vast, tiles, painted, stack, cremi, ilastik, copy, tomogram, nifti, webknossos, predicted,
    components,
)}


@pytest.mark.parametrize("example", EXAMPLES, ids=lambda example: example["run"])
def test_an_example_of_the_page_makes_the_volume_that_it_promises(tmp_path, example):
    values, voxel_size, offset = FILES[example["run"]](tmp_path)
    task = Ingest.from_dict(example, folder=tmp_path)
    task.check()
    task.check_alignment()
    for spec in task.output_specs():
        spec.check(task.grid())
        spec.create(task.grid(), "fingerprint")
    with task.open(RunContext()) as process:
        for block in task.grid().blocks():
            process(block, BlockReport())
    volume = Volume.open(task.output)
    np.testing.assert_allclose(volume.voxel_size, voxel_size)
    np.testing.assert_allclose(volume.offset, offset, atol=1e-3)
    assert volume.dtype == values.dtype
    np.testing.assert_array_equal(volume[...], values)


@pytest.mark.parametrize(
    ("run", "library"), [("tomogram", "mrcfile"), ("nifti", "nibabel"), ("webknossos", "wkw")]
)
def test_a_library_that_is_not_installed_is_named_with_the_extra_that_brings_it(
    tmp_path, monkeypatch, run, library
):
    FILES[run](tmp_path)
    example = next(example for example in EXAMPLES if example["run"] == run)
    if library == "wkw":
        shutil.rmtree(tmp_path / "dataset")
        (tmp_path / "unpacked/wkw").rename(tmp_path / "dataset")
    monkeypatch.setitem(sys.modules, library, None)
    with pytest.raises(ConfigError, match=rf"{library} is not installed.*em_blocks\[formats\]"):
        Ingest.from_dict(example, folder=tmp_path).check()


def test_the_page_has_an_example_of_every_source_but_that_of_bodies():
    shown = {example["source"]["type"] for example in EXAMPLES}
    assert shown | {"hdf5_transforms"} == set(SOURCES.builtin)
    assert all(f"`{name}`" in PAGE for name in SOURCES.builtin)
