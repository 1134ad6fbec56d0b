"""Blockwise prediction with a small random network on a volume that is not a multiple of anything."""

import pickle
import re
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import save_file

from blockwise import (
    assert_one_block_equals_many,
    assert_retry_equals_once,
    block_documents,
    run,
)
from em_blocks.errors import (
    BlockAlignmentError,
    CheckpointError,
    ConfigError,
    EmBlocksError,
    GeometryError,
)
from em_blocks.geometry import Box, Frame
from em_blocks.models.setup import Setup
from em_blocks.tasks.prediction.checks import check_heads
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.volumes import Volume
from tiny_setup import tiny_config, write_setup

SETUPS = Path(__file__).parents[3] / "setups"
FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
SHAPE = (14, 50, 44)


@pytest.fixture
def raw(tmp_path):
    volume = Volume.create(
        str(tmp_path / "raw.zarr/raw"), shape=SHAPE, dtype="uint8", frame=FRAME,
        chunk_shape=(7, 16, 16),
    )
    values = np.random.default_rng(3).integers(0, 256, SHAPE).astype("uint8")
    volume.write(volume.box, values)
    return volume


def predict(raw, setup_folder, folder, **options) -> Predict:
    values = {
        "kind": "predict", "run": "p", "raw": raw.path, "setup": str(setup_folder),
        "output": str(folder / "p.zarr"), "block_shape": (6, 24, 12), "precision": "fp32",
        "outputs": {"affinities": {"dtype": "float32"}}, **options,
    }
    return Predict.from_dict(values)


def stored(task) -> np.ndarray:
    volume = Volume.open(task.output_specs()[0].path)
    return volume.read(volume.box)


def one_shot(raw, setup_folder, context_mode="reflect") -> np.ndarray:
    """One forward of the whole volume, padded to a legal size, cropped back."""
    setup = Setup.from_folder(setup_folder)
    network = setup.build()
    from safetensors.torch import load_file

    network.load_state_dict(load_file(setup.checkpoint_path("best")))
    context, factor = network.context, network.tile_factor
    whole = tuple(-(-s // f) * f for s, f in zip(raw.shape, factor, strict=True))
    seen = raw.read(Box((0, 0, 0), whole).grow(context), outside=context_mode)
    normal = setup.config.normalization
    with torch.inference_mode():
        values = torch.from_numpy(seen.astype("float32") * normal.scale + normal.shift)
        out = network.predict(values[None, None])["affinities"][0].numpy()
    return out[(..., *(slice(0, s) for s in raw.shape))]


@pytest.mark.parametrize("padding", ["reflect", "constant"])
def test_blockwise_equals_one_forward_of_the_whole_volume(raw, setup_folder, tmp_path, padding):
    task = predict(raw, setup_folder, tmp_path / "a", padding=padding, num_workers=2)
    report = run(task)
    assert report.ok
    np.testing.assert_allclose(
        stored(task), one_shot(raw, setup_folder, padding), rtol=0, atol=1e-5
    )
    volume = Volume.open(task.output_specs()[0].path)
    assert volume.frame == raw.frame
    assert volume.attributes["neighborhood"][0] == [-1, 0, 0]
    assert set(report.seconds) == {"read", "compute", "write"}


def test_the_block_shape_does_not_change_the_result(raw, setup_folder, tmp_path):
    def make(shape, name):
        return predict(raw, setup_folder, tmp_path / name, block_shape=shape)

    assert_one_block_equals_many(make, [(12, 12, 48)], (18, 60, 48))


def test_a_retried_block_equals_one_run_once(raw, setup_folder, tmp_path):
    assert_retry_equals_once(
        predict(raw, setup_folder, tmp_path / "a"), predict(raw, setup_folder, tmp_path / "b")
    )


def test_a_roi_reads_its_context_from_the_volume_around_it(raw, setup_folder, tmp_path):
    roi = FRAME.to_roi(Box((2, 8, 4), (6, 24, 24)))
    task = predict(raw, setup_folder, tmp_path / "a", roi={"offset": roi.offset, "shape": roi.shape})
    assert run(task).ok
    volume = Volume.open(task.output_specs()[0].path)
    assert volume.frame.offset == pytest.approx(roi.offset)
    whole = one_shot(raw, setup_folder)[:, 2:8, 8:32, 4:28]
    np.testing.assert_allclose(stored(task), whole, rtol=0, atol=1e-5)
    assert all(d["offset"][0] >= roi.offset[0] for d in block_documents(task).values())


def test_quantised_outputs_carry_their_scale_and_readers_honour_it(raw, setup_folder, tmp_path):
    task = predict(raw, setup_folder, tmp_path / "a", outputs={}, block_shape=(18, 60, 48))
    assert run(task).ok
    volume = Volume.open(task.output_specs()[0].path)
    assert volume.dtype == np.uint8 and volume.scale == 255
    np.testing.assert_allclose(
        volume.read_scaled(volume.box), one_shot(raw, setup_folder), rtol=0, atol=0.5 / 255 + 1e-5
    )


def test_saturated_voxels_are_counted(raw, setup_folder, tmp_path):
    outputs = {"affinities": {"dtype": "uint8", "scale": 400}}
    task = predict(raw, setup_folder, tmp_path / "a", outputs=outputs, block_shape=(18, 60, 48))
    report = run(task)
    expected = (np.rint(one_shot(raw, setup_folder) * 400) > 255).sum()
    assert expected > 0 and abs(report.counts["saturated"] - expected) <= 2


def test_percentiles_are_measured_once_and_kept(raw, setup_folder, tmp_path):
    from blockwise import store_of

    task = predict(raw, setup_folder, tmp_path / "a", normalization={"percentiles": [5, 95]})
    assert run(task).ok
    with store_of(task) as store:
        measured = store.load()["measured"]
    low, high = np.percentile(raw.read(raw.box), [5, 95])
    normal = measured["normalization"]
    assert low * normal["scale"] + normal["shift"] == pytest.approx(-1)
    assert high * normal["scale"] + normal["shift"] == pytest.approx(1)


def test_adopting_other_settings_applies_them_to_the_missing_blocks(raw, setup_folder, tmp_path):
    from blockwise import store_of

    task = predict(raw, setup_folder, tmp_path / "a", normalization={"scale": 0.01, "shift": -1.0})
    assert run(task).ok
    with store_of(task) as store:
        store.blocks.delete_one({"_id": "p/0/0/0"})
    other = task.model_copy(update={"normalization": None})
    report = run(other, adopt=True)
    assert report.ok and report.blocks["computed"] == 1
    trained = Setup.from_folder(setup_folder).config.normalization
    with store_of(task) as store:
        assert store.load()["measured"]["normalization"]["scale"] == trained.scale
    block = stored(task)[:, :6, :24, :12]
    np.testing.assert_allclose(block, one_shot(raw, setup_folder)[:, :6, :24, :12], atol=1e-5)


def test_zarr3_output_has_one_shard_per_block(raw, setup_folder, tmp_path):
    outputs = {"affinities": {"dtype": "float32", "format": "zarr3", "chunk_shape": [6, 12, 12]}}
    task = predict(raw, setup_folder, tmp_path / "a", outputs=outputs)
    assert run(task).ok
    files = [p for p in tmp_path.glob("a/p.zarr/affinities/c/**/*") if p.is_file()]
    assert len(files) == len(block_documents(task))
    np.testing.assert_allclose(stored(task), one_shot(raw, setup_folder), rtol=0, atol=1e-5)


def pickled_call(path: Path, marker: Path) -> Path:
    class Evil:
        def __reduce__(self):
            return (Path.touch, (marker,))

    path.write_bytes(pickle.dumps(Evil()))
    return path


BAD = {
    "unknown head": ({"outputs": {"clefts": {}}}, ConfigError, "has the heads affinities"),
    "block not a multiple of the tile": (
        {"block_shape": (6, 24, 16)}, BlockAlignmentError, "tile stride .*Use block_shape"),
    "block not a multiple of the chunks": (
        {"outputs": {"affinities": {"chunk_shape": [6, 16, 12]}}}, BlockAlignmentError, "chunks"),
    "tile that the network cannot take": (
        {"tile_shape": (6, 13, 12), "block_shape": (6, 13, 12)}, GeometryError, "13"),
    "ROI outside": (
        {"roi": {"offset": [400, 46, 9.2], "shape": [40000, 46, 46]}}, GeometryError, "not inside"),
    "ROI between voxels": (
        {"roi": {"offset": [410, 46, 9.2], "shape": [400, 46, 46]}}, GeometryError, "use offset"),
    "overlap with a valid network": ({"overlap": (2, 2, 2)}, ConfigError, "Leave 'overlap' out"),
    "missing checkpoint": ({"checkpoint": 77}, CheckpointError, "best.safetensors"),
    "missing setup": ({"setup": "/none"}, ConfigError, "not a folder"),
    "unreachable database": (
        {"db_host": "127.0.0.1:1"}, EmBlocksError, "does not answer.*'db_host'"),
    "unset variable": ({"db_host": "mongodb://u:${NO_SUCH}@h"}, EmBlocksError, "NO_SUCH"),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_input_is_one_clear_paragraph_and_nothing_is_written(
    raw, setup_folder, tmp_path, name, monkeypatch
):
    monkeypatch.setattr("em_blocks.db.connect.SELECT_TIMEOUT_MS", 500)
    options, error, words = BAD[name]
    with pytest.raises(error, match=f"(?s){words}") as caught:
        run(predict(raw, setup_folder, tmp_path / "a", **options))
    assert caught.value.exit_code == 2 and "\n" not in str(caught.value)
    assert not (tmp_path / "a").exists()


def test_an_output_equal_to_the_input_is_refused(raw, setup_folder, tmp_path):
    task = predict(raw, setup_folder, tmp_path, output=str(Path(raw.path).parent),
                   outputs={"affinities": {"dataset": "raw"}})
    with pytest.raises(ConfigError, match=r"is the input 'raw'.*lie in each other"):
        run(task)


def test_labels_as_raw_are_refused(setup_folder, tmp_path):
    labels = Volume.create(str(tmp_path / "c.zarr/raw"), shape=SHAPE, dtype="uint64", frame=FRAME,
                           chunk_shape=SHAPE)
    with pytest.raises(ConfigError, match="labels rather than intensities"):
        run(predict(labels, setup_folder, tmp_path / "a"))


def test_raw_with_channels_is_refused(setup_folder, tmp_path):
    rgb = Volume.create(str(tmp_path / "c.zarr/raw"), shape=SHAPE, channels=3, dtype="uint8",
                        frame=FRAME, chunk_shape=SHAPE)
    with pytest.raises(ConfigError, match="three axes"):
        run(predict(rgb, setup_folder, tmp_path / "a"))


def test_a_checkpoint_of_another_architecture_is_refused(raw, setup_folder, tmp_path):
    other = SETUPS / "affinities" / "checkpoints" / "best.safetensors"
    if not other.exists():
        other = tmp_path / "other.safetensors"
        save_file({"weight": torch.zeros(3)}, other)
    with pytest.raises(CheckpointError, match="another network"):
        run(predict(raw, setup_folder, tmp_path / "a", checkpoint=str(other)))


def test_a_malicious_pickle_is_not_executed(raw, setup_folder, tmp_path):
    marker = tmp_path / "executed"
    evil = pickled_call(tmp_path / "evil.pt", marker)
    with pytest.raises(CheckpointError):
        run(predict(raw, setup_folder, tmp_path / "a", checkpoint=str(evil)))
    assert not marker.exists() and not (tmp_path / "a").exists()


def test_a_corrupt_chunk_fails_its_blocks_and_no_others(raw, setup_folder, tmp_path):
    chunk = Path(raw.path) / "1" / "3" / "2"
    chunk.write_bytes(b"garbage")
    task = predict(raw, setup_folder, tmp_path / "a", num_workers=2, max_retries=0)
    report = run(task)
    assert report.exit_code == 1 and report.blocks["done"] > 0
    failed = [d for d in block_documents(task).values() if d["state"] == "quarantined"]
    assert len(failed) == report.blocks["quarantined"] == report.blocks["total"] - report.blocks["done"]
    for document in failed:
        assert str(chunk) in document["error"]["message"]
        assert document["error"]["stage"] == "read"


@pytest.fixture
def vector_setup(tmp_path):
    values = tiny_config()
    values["heads"] = {"vectors": {"kind": "direction_vectors", "unit_nm": 50}}
    return write_setup(tmp_path / "vectors", values)


def vector_prediction(setup, raw, tmp_path, outputs):
    return Predict.from_dict({
        "kind": "predict", "run": "vectors", "raw": raw.path, "setup": str(setup), "outputs": outputs,
        "output": str(tmp_path / "predictions.zarr"), "block_shape": (8, 32, 32),
    })


def test_vectors_are_stored_as_signed_integers_of_4_nm(vector_setup, raw, tmp_path):
    (spec,) = vector_prediction(vector_setup, raw, tmp_path, {}).output_specs()
    assert (spec.dtype, spec.attributes["scale"], spec.channels) == ("int8", 0.25, 3)


def test_vectors_are_not_stored_without_their_signs(vector_setup, raw, tmp_path):
    task = vector_prediction(vector_setup, raw, tmp_path, {"vectors": {"dtype": "uint8"}})
    with pytest.raises(ConfigError, match="no negative numbers"):
        check_heads(task)


# -- which checkpoint -------------------------------------------------------------------------


def checkpoint_of(values: dict, folder: Path) -> str | int:
    """The checkpoint of a config in `folder`, as its task has it."""
    config = {"kind": "predict", "run": "r", "raw": "raw", "setup": "s", "output": "o"}
    return Predict.from_dict(config | {"block_shape": [1, 1, 1]} | values, folder=folder).checkpoint


def test_a_checkpoint_file_is_found_like_every_path_of_a_config(tmp_path, monkeypatch):
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    monkeypatch.chdir(elsewhere)
    monkeypatch.setenv("WEIGHTS", str(tmp_path / "w"))
    monkeypatch.setenv("HOME", str(tmp_path / "me"))
    here = tmp_path / "cfg"
    for written, file in {
        "ckpt/mine.safetensors": here / "ckpt" / "mine.safetensors",
        "../mine.pt": tmp_path / "mine.pt",
        "${WEIGHTS}/a.pt": tmp_path / "w" / "a.pt",
        "${NOT_THERE:-b}/a.pt": here / "b" / "a.pt",
        "~/a.pt": tmp_path / "me" / "a.pt",
        "./best": here / "best",  # a file that has the name of a word
    }.items():
        assert checkpoint_of({"checkpoint": written}, here) == str(file), written


@pytest.mark.parametrize("word", ["best", "latest", "12", 12])
def test_words_and_iterations_are_no_paths(tmp_path, word):
    assert checkpoint_of({"checkpoint": word}, tmp_path) == word


def test_a_checkpoint_with_an_unknown_variable_or_on_a_server_is_refused(tmp_path):
    with pytest.raises(ConfigError, match="NOT_THERE"):
        checkpoint_of({"checkpoint": "$NOT_THERE/a.pt"}, tmp_path)
    with pytest.raises(ConfigError, match="copy it here"):
        checkpoint_of({"checkpoint": "s3://bucket/a.pt"}, tmp_path)


def test_a_checkpoint_that_lies_in_the_setup_is_not_guessed_but_named(raw, setup_folder, tmp_path):
    task = predict(raw, setup_folder, tmp_path / "a", checkpoint="best.safetensors")
    inside = re.escape(f"write {setup_folder / 'checkpoints' / 'best.safetensors'}")
    with pytest.raises(CheckpointError, match=inside):
        task.check()
