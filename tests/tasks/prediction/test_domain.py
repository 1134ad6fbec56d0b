"""A network gets only data like those of its training, unless the job says otherwise."""

import json
import logging
import math
import shutil

import numpy as np
import pytest

from blockwise import block_documents, run, store_of
from em_blocks.errors import ConfigError
from em_blocks.geometry import Frame
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
SHAPE = (12, 48, 36)
UINT8 = np.random.default_rng(3).integers(0, 256, SHAPE).astype("uint8")


def volume(folder, values, frame=FRAME, name="raw"):
    raw = Volume.create(str(folder / "in.zarr" / name), shape=values.shape, dtype=values.dtype,
                        frame=frame, chunk_shape=(6, 24, 12))
    raw.write(raw.box, values)
    return raw


def predict(raw, setup_folder, folder, **options) -> Predict:
    return Predict.from_dict({
        "kind": "predict", "run": "p", "raw": raw.path, "setup": str(setup_folder), "precision": "fp32",
        "output": str(folder / "out/p.zarr"), "block_shape": (6, 24, 12), "max_retries": 0,
        "outputs": {"affinities": {"dtype": "float32"}}, **options,
    })


def stored(task):
    predicted = Volume.open(task.output_specs()[0].path)
    return predicted.read(predicted.box)


OTHERS = {
    "uint16 of the whole range": UINT8.astype("uint16") * 257,
    "floats from 0 to 1": (UINT8 / np.float32(255)).astype("float32"),
    "signed bytes": (UINT8.astype("int16") - 128).astype("int8"),
    "int16 of the whole range": (UINT8.astype("int32") * 257 - 32768).astype("int16"),
}


@pytest.mark.parametrize("name", OTHERS)
def test_other_intensities_are_refused_and_scaled_by_their_dtype(name, setup_folder, tmp_path):
    raw = volume(tmp_path, OTHERS[name])
    with pytest.raises(ConfigError, match=r'trained on uint8 from 0 to 255.*"dtype"') as caught:
        run(predict(raw, setup_folder, tmp_path))
    assert caught.value.exit_code == 2 and not (tmp_path / "out").exists()
    scaled = predict(raw, setup_folder, tmp_path, normalization="dtype")
    assert run(scaled).ok
    trained = predict(volume(tmp_path, UINT8, name="u8"), setup_folder, tmp_path / "u8")
    assert run(trained).ok
    np.testing.assert_allclose(stored(scaled), stored(trained), rtol=0, atol=2e-6)


def test_a_range_that_is_said_or_measured_is_used(setup_folder, tmp_path):
    raw = volume(tmp_path, OTHERS["uint16 of the whole range"])
    task = predict(raw, setup_folder, tmp_path, normalization={"scale": 2 / 65535, "shift": -1.0})
    assert run(task).ok
    task = predict(raw, setup_folder, tmp_path / "b", normalization={"percentiles": [1, 99]})
    assert run(task).ok


@pytest.mark.parametrize(
    "values", [UINT8 // 8 + 100, UINT8.astype("uint16"), UINT8.astype("float32")],
    ids=["part of the range", "uint8 stored as uint16", "as float32"],
)
def test_data_that_fit_are_not_refused(values, setup_folder, tmp_path, caplog):
    predict(volume(tmp_path, values), setup_folder, tmp_path).survey()
    assert not caplog.records


def test_floats_beyond_1_have_no_range_of_their_own(setup_folder, tmp_path):
    raw = volume(tmp_path, UINT8.astype("float32"))
    with pytest.raises(ConfigError, match=r"0 to 1, but .* holds"):
        run(predict(raw, setup_folder, tmp_path, normalization="dtype"))


def test_a_scaling_far_from_that_of_training_is_said(setup_folder, tmp_path, caplog):
    raw = volume(tmp_path, OTHERS["uint16 of the whole range"])
    normalization = {"scale": 2 / 255, "shift": -1.0}
    predict(raw, setup_folder, tmp_path, normalization=normalization).survey()
    (record,) = caplog.records
    assert "trained with about -1 to 1" in record.message


@pytest.mark.parametrize(("size", "refused"), [(4.6, False), (4.645, False), (4.65, True), (9.2, True)])
def test_voxels_of_another_size_are_refused_from_1_percent(size, refused, setup_folder, tmp_path):
    raw = volume(tmp_path, UINT8, Frame((40.0, 4.6, size), FRAME.offset))
    task = predict(raw, setup_folder, tmp_path)
    if not refused:
        task.check()
        return
    with pytest.raises(ConfigError, match=r"does not resample.*voxel_size_tolerance"):
        run(task)
    assert not (tmp_path / "out").exists()
    task.model_copy(update={"voxel_size_tolerance": 1.0}).check()


def test_the_level_that_would_fit_is_named(setup_folder, tmp_path):
    volume(tmp_path, UINT8, name="s1")
    fine = volume(tmp_path, UINT8, Frame((40.0, 2.3, 2.3), FRAME.offset), name="s0")
    with pytest.raises(ConfigError, match="s1 beside it would fit"):
        predict(fine, setup_folder, tmp_path).check()


def test_what_is_accepted_does_not_change_the_identity(setup_folder, tmp_path):
    raw = volume(tmp_path, UINT8)
    task = predict(raw, setup_folder, tmp_path)
    assert task.identity() == predict(raw, setup_folder, tmp_path, voxel_size_tolerance=0.2).identity()


def with_nan(voxel=(3, 5, 7)):
    values = UINT8.astype("float32")
    values[voxel] = np.nan
    return values


def repair(raw):
    Volume.open(raw.path, mode="r+").write(raw.box, UINT8.astype("float32"))


def test_percentiles_are_not_measured_on_nan_and_work_once_it_is_repaired(setup_folder, tmp_path):
    raw = volume(tmp_path, with_nan())
    task = predict(raw, setup_folder, tmp_path, normalization={"percentiles": [1, 99]})
    with pytest.raises(ConfigError, match=r"NaN, from voxel \(3, 5, 7\) at \(540.0, 71.3, 43.7\) nm"):
        run(task)
    assert not (tmp_path / "out").exists()
    repair(raw)
    again = predict(raw, setup_folder, tmp_path, normalization={"percentiles": [1, 99]})
    assert run(again).ok
    with store_of(again) as store:
        assert all(map(math.isfinite, store.load()["measured"]["normalization"].values()))


def test_a_nan_voxel_fails_the_blocks_that_see_it_by_its_name(setup_folder, tmp_path, caplog):
    raw = volume(tmp_path, with_nan((0, 2, 2)))
    task = predict(raw, setup_folder, tmp_path)
    with caplog.at_level(logging.WARNING, "em_blocks.tasks.prediction.predict"):
        report = run(task)
    assert "NaN" in caplog.records[0].message and "voxel (0, 2, 2)" in caplog.records[0].message
    assert report.exit_code == 1 and report.blocks["done"] > 0
    failed = [d for d in block_documents(task).values() if d["state"] == "quarantined"]
    assert failed and all("voxel (0, 2, 2)" in d["error"]["message"] for d in failed)


@pytest.mark.parametrize("value", [0, 128])
def test_a_volume_of_one_value_is_refused(value, setup_folder, tmp_path):
    raw = volume(tmp_path, np.full(SHAPE, value, "uint8"))
    with pytest.raises(ConfigError, match=f"is {value} everywhere"):
        run(predict(raw, setup_folder, tmp_path))
    assert not (tmp_path / "out").exists()


def test_nan_that_an_older_version_measured_is_measured_again(setup_folder, tmp_path):
    raw = volume(tmp_path, UINT8.astype("float32"))
    task = predict(raw, setup_folder, tmp_path, normalization={"percentiles": [1, 99]})
    assert run(task).ok
    expected = stored(task)
    with store_of(task) as store:
        measured = store.load()["measured"]
        bad = {**measured, "normalization": {"scale": math.nan, "shift": math.nan}}
        store.update(measured=bad)
        store.blocks.update_many({"run": "p"}, {"$set": {"state": "quarantined"}})
    again = predict(raw, setup_folder, tmp_path, normalization={"percentiles": [1, 99]})
    assert run(again).ok
    with store_of(task) as store:
        assert store.load()["measured"] == measured
    np.testing.assert_array_equal(stored(task), expected)


@pytest.mark.parametrize(("attribute", "warned"), [(None, True), ({"clip_limit": 0.02}, False)])
def test_raw_of_another_contrast_is_warned_of(tmp_path, setup_folder, caplog, attribute, warned):
    folder = tmp_path / "setup"
    shutil.copytree(setup_folder, folder)
    config = json.loads((folder / "config.json").read_text())
    raw = volume(tmp_path, UINT8)
    if attribute is not None:
        raw.set_attributes(equalized=attribute)
    predict(raw, folder, tmp_path).survey()
    assert "equalis" not in caplog.text  # a setup that says nothing takes any contrast
    (folder / "config.json").write_text(json.dumps(config | {"equalized": {"clip_limit": 0.02}}))
    predict(raw, folder, tmp_path).survey()
    assert ("says of no equalisation, but 'affinities' has learnt" in caplog.text) == warned
