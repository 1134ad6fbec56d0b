"""Every task refuses an output that touches what it reads, however either is spelled."""

import os

import numpy as np
import pytest
import tifffile
from click.testing import CliRunner

from em_blocks.cli.main import main
from em_blocks.errors import ConfigError
from em_blocks.geometry import Frame
from em_blocks.tasks.components.clean import Clean
from em_blocks.tasks.places import check_places, input_places, output_places
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.tasks.segmentation.relabel import Relabel
from em_blocks.tasks.segmentation.segment import Segment
from em_blocks.tasks.volumes.downsample import Downsample
from em_blocks.tasks.volumes.ingest import Ingest
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.6, 4.6), (80.0, 0.0, 9.2))
SPELLINGS = ["{}", "{}/", "file://{}", "link", "hard", "{0}/../{1}"]


def volume(folder, name, dtype="uint8", channels=None, format="zarr", **attributes):
    made = Volume.create(f"{folder}/in.zarr/{name}", shape=(8, 16, 16), dtype=dtype, frame=FRAME,
                         chunk_shape=(8, 8, 8), channels=channels, format=format, attributes=attributes)
    return made.path


def spelled(spelling, path):
    """The array at a path by another way."""
    folder = os.path.dirname(os.path.dirname(path))
    if spelling == "link":
        os.symlink("in.zarr", f"{folder}/scratch.zarr")
        return f"{folder}/scratch.zarr/{os.path.basename(path)}"
    if spelling == "hard":
        os.makedirs(f"{folder}/copy")
        for name in (".zarray", ".zattrs"):
            os.link(f"{path}/{name}", f"{folder}/copy/{name}")
        return f"{folder}/copy"
    return spelling.format(path, os.path.basename(path))


def predict(folder, setup, raw, output, **options):
    return Predict.from_dict({
        "kind": "predict", "run": "p", "raw": raw, "setup": str(setup), "block_shape": [6, 24, 12],
        "output": os.path.dirname(output),
        "outputs": {"affinities": {"dataset": os.path.basename(output)}}, **options,
    })


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_predict(tmp_path, setup_folder, spelling):
    raw = volume(tmp_path, "raw")
    check_places(predict(tmp_path, setup_folder, raw, f"{tmp_path}/in.zarr/affinities"))
    with pytest.raises(ConfigError, match="is the input 'raw'"):
        check_places(predict(tmp_path, setup_folder, spelled(spelling, raw), raw))
    mask = {"path": volume(tmp_path, "mask"), "offset": [0, 0, 0]}
    with pytest.raises(ConfigError, match="lies in the input 'mask'"):
        check_places(predict(tmp_path, setup_folder, raw, f"{tmp_path}/in.zarr/mask/a", mask=mask))
    with pytest.raises(ConfigError, match="lies in the input 'setup'"):
        check_places(predict(tmp_path, setup_folder, raw, f"{setup_folder}/p.zarr/a"))
    with pytest.raises(ConfigError, match=r"run_dir .* lies in the input 'raw'"):
        check_places(predict(tmp_path, setup_folder, raw, f"{tmp_path}/o.zarr/a", run_dir=f"{raw}/logs"))


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_clean_relabel_and_segment(tmp_path, spelling):
    labels = volume(tmp_path, "labels", "uint64")
    other = spelled(spelling, labels)
    clean = {"kind": "clean", "run": "c", "labels": other, "output": labels, "block_shape": [8, 16, 16]}
    with pytest.raises(ConfigError, match="the input 'labels'"):
        list(map(check_places, Clean.from_dict(clean).steps()))
    relabel = {**clean, "kind": "relabel", "lut": str(tmp_path / "lut")}
    with pytest.raises(ConfigError, match="the input 'labels'"):
        check_places(Relabel.from_dict(relabel))
    affinities = volume(tmp_path, "fragments", channels=3, neighborhood=np.eye(3).tolist())
    with pytest.raises(ConfigError, match="the input 'affinities'"):
        Segment.from_dict({
            "kind": "segment", "run": "s", "output": f"{tmp_path}/in.zarr", "affinities":
            f"file://{affinities}/", "block_shape": [8, 16, 16], "thresholds": [0.5],
        })


@pytest.mark.parametrize("spelling", SPELLINGS)
def test_downsample(tmp_path, spelling):
    raw = volume(tmp_path, "raw")
    values = {"kind": "downsample", "run": "d", "input": spelled(spelling, raw), "method": "mean",
              "levels": 1, "chunk_shape": [4, 8, 8]}
    with pytest.raises(ConfigError, match="lies in the input 'input'"):
        list(map(check_places, Downsample.from_dict({**values, "output": f"{raw}/pyramid"}).steps()))


def test_a_pyramid_knows_its_full_resolution_by_a_link(tmp_path):
    raw = volume(tmp_path, "s0")
    link = spelled("link", raw)
    for path in (raw, link):
        steps = Downsample.from_dict({
            "kind": "downsample", "run": "d", "input": path, "output": f"{tmp_path}/in.zarr",
            "method": "mean", "levels": 1, "chunk_shape": [4, 8, 8],
        }).steps()
        assert [output_places(step) for step in steps] == [{"level": f"{tmp_path}/in.zarr/s1"}]
        check_places(steps[0])


def test_a_precomputed_volume_takes_up_further_scales_and_no_other_output(tmp_path):
    volume(tmp_path, "pre", format="precomputed")
    for output, fine in (("pre", True), ("pre/inner", False)):
        task = Downsample.from_dict({
            "kind": "downsample", "run": "d", "input": f"{tmp_path}/in.zarr/pre", "method": "mean",
            "output": f"{tmp_path}/in.zarr/{output}", "levels": 1, "chunk_shape": [4, 8, 8],
            "format": "precomputed",
        })
        if fine:
            check_places(task.steps()[0])
            continue
        with pytest.raises(ConfigError, match="lies in the input 'input'"):
            check_places(task.steps()[0])


def test_ingest_writes_beside_its_images(tmp_path):
    (tmp_path / "images").mkdir()
    tifffile.imwrite(tmp_path / "images/0.tif", np.zeros((16, 16), "uint8"))

    def ingest(path, output):
        return Ingest.from_dict({
            "kind": "ingest", "run": "i", "source": {"type": "images", "path": str(tmp_path / path)},
            "output": str(tmp_path / output), "voxel_size": [40, 4, 4], "chunk_shape": [1, 16, 16],
        })

    check_places(ingest("images", "a.zarr/raw"))
    check_places(ingest("images/*.tif", "images/a.zarr/raw"))  # named one by one, it is none of them
    assert input_places(ingest("images", "a.zarr/raw")) == {"source": str(tmp_path / "images")}
    for output in ("images/a.zarr/raw", "images"):
        with pytest.raises(ConfigError, match="the input 'source'"):
            check_places(ingest("images", output))


@pytest.mark.parametrize("name", ["prediction", "truth"])
def test_scores_are_not_written_into_what_is_scored(tmp_path, name):
    paths = {key: volume(tmp_path, key, "uint64", labels=True) for key in ("prediction", "truth")}
    arguments = ["evaluate", "instances", "--prediction", paths["prediction"], "--truth", paths["truth"]]
    os.symlink("in.zarr", tmp_path / "link.zarr")
    result = CliRunner().invoke(main, [*arguments, "--output", str(tmp_path / "link.zarr" / name / "x")])
    assert result.exit_code == 2 and f"lies in the input '{name}'" in result.output
    assert not os.path.exists(f"{paths[name]}/x")
