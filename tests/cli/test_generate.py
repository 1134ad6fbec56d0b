"""`em-blocks generate`: the same volume as a CREMI file and as zarr; never over something else."""

import re

import h5py
import numpy as np
import pytest
from click.testing import CliRunner

from em_blocks.cli.main import main
from em_blocks.export.mitochondria import write_mitochondria
from em_blocks.geometry import Frame
from em_blocks.kernels.synthetic.volume import phantom
from em_blocks.volumes import Volume
from em_blocks.volumes.synapse_files import read_synapses

SHAPE, VOXEL_SIZE, SEED = (8, 160, 160), (40.0, 4.6, 4.6), 3
OPTIONS = ["--shape", "8,160,160", "--voxel-size", "40,4.6,4.6", "--seed", SEED,
           "--synapses-per-um3", 20]


@pytest.fixture(scope="module")
def made():
    return phantom(SHAPE, voxel_size=VOXEL_SIZE, seed=SEED, synapses_per_um3=20)


def generate(output, *options):
    arguments = ["generate", output, *(options or OPTIONS)]
    result = CliRunner().invoke(main, [str(a) for a in arguments])
    if result.exception is not None and not isinstance(result.exception, SystemExit):
        raise result.exception
    return result


def test_a_cremi_file_holds_raw_neurons_and_partners(tmp_path, made):
    path = tmp_path / "new" / "cube.hdf5"
    result = generate(path)
    assert result.exit_code == 0, result.output
    n = len(made.synapses)
    assert n >= 5 and f"{n} pairs" in result.stdout
    with h5py.File(path) as file:
        raw, neurons = file["volumes/raw"], file["volumes/labels/neuron_ids"]
        np.testing.assert_array_equal(raw, made.raw)
        np.testing.assert_array_equal(neurons, made.neurons)
        np.testing.assert_array_equal(raw.attrs["resolution"], VOXEL_SIZE)
    found = read_synapses(path)
    np.testing.assert_array_equal(found.id, made.synapses.id)
    np.testing.assert_array_equal(found.pre, made.synapses.pre)
    np.testing.assert_array_equal(found.post, made.synapses.post)
    assert [file.name for file in path.parent.iterdir()] == ["cube.hdf5"]


def test_a_zarr_folder_holds_the_same_and_who_the_partners_are(tmp_path, made):
    assert generate(tmp_path / "cube.zarr").exit_code == 0
    for name in ("raw", "neurons", "mitochondria"):
        volume = Volume.open(str(tmp_path / "cube.zarr" / name))
        assert volume.frame == Frame(VOXEL_SIZE)
        np.testing.assert_array_equal(volume.read(volume.box), getattr(made, name))
    found = read_synapses(tmp_path / "cube.zarr" / "synapses.parquet")
    for column in ("id", "pre", "post", "pre_segment", "post_segment"):
        np.testing.assert_array_equal(getattr(found, column), getattr(made.synapses, column))
    assert [path.name for path in tmp_path.iterdir()] == ["cube.zarr"]


@pytest.mark.parametrize(("name", "code", "words"), [
    ("there.hdf", 3, "not overwritten"), ("there.zarr", 3, "not overwritten"),
    ("volume.tif", 2, "no known format"),
])
def test_what_exists_or_has_no_format_is_refused_before_anything_is_made(tmp_path, name, code, words):
    (tmp_path / "there.hdf").write_text("mine")
    (tmp_path / "there.zarr").mkdir()
    before = sorted(tmp_path.rglob("*"))
    result = generate(tmp_path / name, "--shape", "9999,9999,9999", "--seed", 1)
    assert result.exit_code == code and words in result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    assert (tmp_path / "there.hdf").read_text() == "mine"


def test_a_folder_that_cannot_be_written_is_refused(tmp_path):
    (tmp_path / "file").write_text("no folder")
    result = generate(tmp_path / "file" / "cube.hdf", "--shape", "9999,9999,9999", "--seed", 1)
    assert result.exit_code == 2 and "cannot be written" in result.stderr


@pytest.mark.parametrize("option", [("--shape", "64,512"), ("--shape", "64,512,0"),
                                    ("--shape", "6.5,8,8"), ("--voxel-size", "40,four,4"),
                                    ("--voxel-size", "40,4,nan"), ("--synapses-per-um3", "-1")])
def test_a_bad_option_is_a_usage_error(tmp_path, option):
    result = generate(tmp_path / "cube.hdf", *option, "--seed", 1)
    assert result.exit_code == 2 and option[0] in result.stderr
    assert not any(tmp_path.iterdir())


# -- mitochondria with maps ------------------------------------------------------------------

MITOCHONDRIA = ("--mitochondria-per-um3", "5", "--voxel-size", "30,9.3,9.3", "--seed", "5")
NAMES = ("mitochondria", "foreground", "contour", "signed_distance")


def stored(folder):
    volumes = {name: Volume.open(str(folder / name)) for name in NAMES}
    return {name: volume.read(volume.box) for name, volume in volumes.items()}


def test_mitochondria_are_stored_with_maps_that_fit_them(tmp_path):
    result = generate(tmp_path / "m.zarr", *MITOCHONDRIA, "--shape", "24,160,170")
    assert result.exit_code == 0 and "pairs of them touch" in result.stdout
    found = stored(tmp_path / "m.zarr")
    labels = found["mitochondria"]
    assert labels.dtype == np.uint64 and len(np.unique(labels)) > 3
    assert int(re.search(r": (\d+) mitochondria", result.stdout)[1]) >= labels.max()
    inside = labels > 0
    for name, least in (("foreground", 150), ("signed_distance", 60)):
        assert found[name].dtype == np.uint8
        assert found[name][inside].mean() > least > 4 * found[name][~inside].mean()
    volume = Volume.open(str(tmp_path / "m.zarr" / "contour"))
    assert volume.frame == Frame((30, 9.3, 9.3)) and volume.scale == 255


def test_maps_do_not_depend_on_the_blocks(tmp_path):
    frame, shape = Frame((30, 9.3, 9.3)), (24, 135, 140)
    blocks = [(32, 512, 512), (16, 128, 128)]
    for n, block_shape in enumerate(blocks):
        write_mitochondria(tmp_path / f"{n}.zarr", shape=shape, frame=frame, seed=5, per_um3=8,
                           block_shape=block_shape)
    one, other = (stored(tmp_path / f"{n}.zarr") for n in range(len(blocks)))
    for name in NAMES:
        np.testing.assert_array_equal(one[name], other[name])


@pytest.mark.parametrize(("name", "options", "words"), [
    ("m.hdf", (), "should end in .zarr"),
    ("m.zarr", ("--neurite-nm", 100), "--neurite-nm is about tissue"),
    ("m.zarr", ("--synapses-per-um3", 8), "--synapses-per-um3 is about tissue"),
    ("there.zarr", (), "not overwritten"),
])
def test_mitochondria_are_refused_where_they_do_not_fit(tmp_path, name, options, words):
    (tmp_path / "there.zarr").mkdir()
    result = generate(tmp_path / name, *MITOCHONDRIA, "--shape", "9999,9999,9999", *options)
    assert result.exit_code in (2, 3) and words in result.stderr
    assert [path.name for path in tmp_path.rglob("*")] == ["there.zarr"]
