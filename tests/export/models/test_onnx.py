"""A trained network as ONNX: the same values for any tile, blockwise too, and what ONNX cannot hold."""

import json

import numpy as np
import onnx
import pytest
import torch

from blockwise import make_raw, run
from em_blocks.errors import ConfigError, GeometryError, RunFailedError
from em_blocks.export.models import onnx as onnx_out
from em_blocks.export.models.folder import export_folder
from em_blocks.export.models.importing import check_model, import_model
from em_blocks.export.models.model import Model
from em_blocks.export.models.onnx import export_onnx
from em_blocks.models.setup import Setup
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.volumes import Volume
from travelling import trained_setup


def model_of(folder):
    setup = Setup.from_folder(folder)
    return Model(setup, setup.checkpoint_path())


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    return trained_setup(tmp_path_factory.mktemp("setups") / "tiny")


@pytest.fixture(scope="module")
def exported(trained, tmp_path_factory):
    output = tmp_path_factory.mktemp("exported") / "model"
    export_onnx(model_of(trained), output)
    return output


def loaded(folder):
    setup = Setup.from_folder(folder)
    return setup.load(setup.checkpoint_path())


@pytest.mark.parametrize(("tiles", "tile"), [(1, (4, 16, 16)), (3, (1, 2, 2)), (2, (5, 8, 18))])
def test_the_graph_gives_what_the_network_gives_for_any_tile(trained, exported, tiles, tile):
    network, graph = loaded(trained), loaded(exported)
    assert graph.context == network.context and graph.tile_factor == network.tile_factor
    graph.check_tile(tile)
    raw = torch.rand(tiles, 1, *network.shapes.input_shape(tile)) * 2 - 1
    with torch.inference_mode():
        expected = network.predict(raw)
    found = graph.predict(raw)
    assert found.keys() == {"affinities", "vectors"}
    for name, values in expected.items():
        scale = max(1.0, float(values.abs().max()))
        assert float((found[name] - values).abs().max()) <= 1e-5 * scale
    assert expected["vectors"].abs().max() > 1  # in nm: the unit is in the graph


def test_a_tile_that_the_network_cannot_take_is_refused_by_the_graph_too(exported):
    with pytest.raises(GeometryError):
        loaded(exported).check_tile((4, 15, 16))


def test_it_is_one_file_of_standard_operators_without_weights_elsewhere(exported):
    names = {path.relative_to(exported).as_posix() for path in exported.rglob("*") if path.is_file()}
    assert "model.onnx" in names and not {n for n in names if n.endswith((".safetensors", ".data"))}
    model = onnx.load(exported / "model.onnx", load_external_data=False)
    onnx.checker.check_model(model, full_check=True)
    assert {node.domain for node in model.graph.node} == {""}
    config = json.loads((exported / "config.json").read_text())
    assert config["network"] == {
        "kind": "onnx", "file": "model.onnx", "context": [0, 4, 4], "tile_factor": [1, 2, 2]
    }


def test_the_memory_of_a_pass_is_estimated_for_larger_tiles(trained, exported):
    from em_blocks.nets.inference import bytes_per_voxel

    ours, theirs = bytes_per_voxel(loaded(trained)), bytes_per_voxel(loaded(exported))
    assert ours / 4 < theirs < 4 * ours


def test_predictions_through_every_export_are_those_of_the_setup(trained, exported, tmp_path):
    export_folder(model_of(trained), tmp_path / "folder.zip")
    import_model(tmp_path / "folder.zip", tmp_path / "folder")
    raw = make_raw(tmp_path, (9, 34, 40))
    found = {
        name: stored(raw, setup, tmp_path / f"out_{name}")
        for name, setup in {"own": trained, "folder": tmp_path / "folder", "onnx": exported}.items()
    }
    for head, values in found["own"].items():
        np.testing.assert_array_equal(found["folder"][head], values)
        scale = max(1.0, float(np.abs(values).max()))
        assert np.abs(found["onnx"][head] - values).max() <= 1e-5 * scale


def stored(raw, setup, folder):
    task = Predict.from_dict({
        "kind": "predict", "run": "p", "raw": raw.path, "setup": str(setup),
        "output": str(folder / "p.zarr"), "block_shape": (4, 16, 16), "tile_shape": (4, 8, 8),
        "precision": "fp32",
        "outputs": {name: {"dtype": "float32"} for name in ("affinities", "vectors")},
    })
    assert run(task, serial=True).ok
    volumes = {spec.name: Volume.open(spec.path) for spec in task.output_specs()}
    return {name: volume.read(volume.box) for name, volume in volumes.items()}


def test_a_model_of_onnx_travels_on(exported, tmp_path):
    assert all(d.ok for d in check_model(exported))
    export_folder(model_of(exported), tmp_path / "again")
    assert (tmp_path / "again/model.onnx").stat().st_size > 1000
    assert all(d.largest == 0 for d in import_model(tmp_path / "again", tmp_path / "s").differences)
    with pytest.raises(ConfigError, match="is a file of ONNX already"):
        export_onnx(model_of(exported), tmp_path / "twice")


def test_a_graph_with_other_values_is_not_kept(trained, tmp_path, monkeypatch):
    def other_values(network, config, raw):
        return {name: values + 1e-3 for name, values in sample_outputs(network, config, raw).items()}

    sample_outputs = onnx_out.sample_outputs
    monkeypatch.setattr(onnx_out, "sample_outputs", other_values)
    with pytest.raises(RunFailedError, match=r"other values.*affinities by 0\.001"):
        export_onnx(model_of(trained), tmp_path / "model")
    assert not list(tmp_path.iterdir())


UNEXPORTABLE = """
import torch
from em_blocks.nets.unet import Head, UNet

class Sorting(UNet):
    def predict(self, raw, heads=None):
        if raw.numpy().mean() > 5:
            raise ValueError
        return super().predict(raw, heads)

def build(config):
    heads = {
        name: Head(head.channels, head.activation, getattr(head, "unit_nm", 1.0))
        for name, head in config.heads.items()
    }
    return Sorting(**config.network.model_dump(), heads=heads)
"""


def test_code_that_onnx_has_no_operator_for_is_named(tmp_path):
    setup = trained_setup(tmp_path / "coded", code=True)
    (setup / "network.py").write_text(UNEXPORTABLE)
    with pytest.raises(ConfigError, match="cannot write the network of tiny as ONNX"):
        export_onnx(model_of(setup), tmp_path / "model")
    assert not (tmp_path / "model").exists()
