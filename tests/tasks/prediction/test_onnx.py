"""Prediction by a network of ONNX: blocks and retries give the same, bad files are refused."""

import numpy as np
import pytest

from blockwise import (
    FRAME,
    assert_one_block_equals_many,
    assert_retry_equals_once,
    make_raw,
    run,
)
from em_blocks.errors import (
    CheckpointError,
    ConfigError,
    EmBlocksError,
    FingerprintMismatchError,
    GeometryError,
)
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.volumes import Volume
from foreign_networks import blurred, blurring, onnx_setup

SHAPE = (10, 34, 28)


@pytest.fixture
def raw(tmp_path):
    return make_raw(tmp_path, SHAPE, seed=3)


@pytest.fixture
def setup(tmp_path):
    """A valid network for any size, which says where tiles may begin."""
    file, _ = blurring(tmp_path / "model.onnx", padding=False)
    return onnx_setup(tmp_path / "s", file, context=[1, 1, 1], tile_factor=[1, 1, 1])


def predict(raw, setup, folder, **options) -> Predict:
    values = {
        "kind": "predict", "run": "p", "raw": raw.path, "setup": str(setup),
        "output": str(folder / "p.zarr"), "block_shape": (4, 24, 16),
        "outputs": {"affinities": {"dtype": "float32"}}, **options,
    }
    return Predict.from_dict(values)


def stored(task):
    volume = Volume.open(task.output_specs()[0].path)
    return volume.read(volume.box)


def test_every_voxel_has_the_value_of_the_whole_volume(raw, setup, tmp_path):
    task = predict(raw, setup, tmp_path / "a", num_workers=2)
    assert run(task).ok
    seen = raw.read(raw.box.grow((1, 1, 1)), outside="reflect").astype("float32") / 127.5 - 1
    _, kernel = blurring(tmp_path / "again.onnx", padding=False)
    np.testing.assert_allclose(stored(task), blurred(seen, kernel), atol=1e-5)
    assert Volume.open(task.output_specs()[0].path).frame == FRAME


def test_the_block_shape_does_not_change_the_result(raw, setup, tmp_path):
    def make(shape, name):
        return predict(raw, setup, tmp_path / name, block_shape=shape)

    assert_one_block_equals_many(make, [(4, 8, 8), (8, 24, 16)], (16, 56, 48))


def test_a_retried_block_equals_one_run_once(raw, setup, tmp_path):
    assert_retry_equals_once(predict(raw, setup, tmp_path / "a"), predict(raw, setup, tmp_path / "b"))


def test_a_network_with_padding_is_blended(raw, tmp_path):
    file, _ = blurring(tmp_path / "model.onnx", padding=True)
    setup = onnx_setup(tmp_path / "s", file)

    def make(shape, name):
        return predict(raw, setup, tmp_path / name, block_shape=shape, overlap=(0, 2, 2))

    assert_one_block_equals_many(make, [(4, 12, 12)], (16, 54, 48))


def test_another_file_is_another_prediction(raw, setup, tmp_path):
    task = predict(raw, setup, tmp_path / "a")
    assert run(task).ok
    blurring(tmp_path / "model.onnx", padding=False, seed=9)
    with pytest.raises(FingerprintMismatchError, match="network"):
        run(predict(raw, setup, tmp_path / "a"))


def test_it_computes_in_what_its_file_says(raw, setup, tmp_path):
    assert predict(raw, setup, tmp_path / "a").measure()["precision"] == "fp32"
    with pytest.raises(ConfigError, match=r"'precision' is bf16.*fp32 only"):
        predict(raw, setup, tmp_path / "a", precision="bf16").check()
    with pytest.raises(CheckpointError, match="only weights"):
        predict(raw, setup, tmp_path / "a", checkpoint=100).check()


def test_a_tile_that_the_network_cannot_take_is_refused_before_anything_is_written(raw, tmp_path):
    file, _ = blurring(
        tmp_path / "model.onnx", padding=False, shape=(1, 1, 6, 10, 10), out=(1, 2, 4, 8, 8)
    )
    setup = onnx_setup(tmp_path / "s", file)
    assert run(predict(raw, setup, tmp_path / "a", block_shape=(4, 24, 16))).ok
    with pytest.raises(GeometryError, match=r"tile_shape \[4, 8, 8\]"):
        run(predict(raw, setup, tmp_path / "b", tile_shape=(4, 12, 16)))
    assert not (tmp_path / "b").exists()


def test_a_malicious_file_is_refused_before_anything_is_written(raw, setup, tmp_path):
    import onnx

    model = onnx.load(tmp_path / "model.onnx")
    model.graph.node[1].domain, model.graph.node[1].op_type = "evil.ops", "Steal"
    model.opset_import.add(domain="evil.ops", version=1)
    (tmp_path / "model.onnx").write_bytes(model.SerializeToString())
    with pytest.raises(EmBlocksError, match=r"'Steal' of the domain 'evil\.ops'"):
        run(predict(raw, setup, tmp_path / "a"))
    assert not (tmp_path / "a").exists()
