"""Precision, tile and batch of a prediction: what is possible, what is chosen, what stays."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from blockwise import run, store_of
from em_blocks.errors import BlockAlignmentError
from em_blocks.geometry import Box, Frame
from em_blocks.nets.timing import Timed, Way
from em_blocks.tasks.prediction import ways as predict_ways
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.tasks.prediction.predictor import predictor_of
from em_blocks.tasks.prediction.ways import possible_ways, said
from em_blocks.tasks.usual_chunk import divisor, nearest_divisible
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
SHAPE = (12, 48, 48)


@pytest.fixture
def raw(tmp_path):
    volume = Volume.create(str(tmp_path / "raw.zarr/raw"), shape=SHAPE, dtype="uint8", frame=FRAME,
                           chunk_shape=(6, 16, 16))
    volume.write(volume.box, np.random.default_rng(3).integers(0, 256, SHAPE).astype("uint8"))
    return volume


def predict(raw, setup_folder, folder, **options) -> Predict:
    return Predict.from_dict({
        "kind": "predict", "run": "p", "raw": raw.path, "setup": str(setup_folder),
        "output": str(folder / "out/p.zarr"), "block_shape": (12, 48, 24),
        "outputs": {"affinities": {"dtype": "float32"}}, **options,
    })


def stored(task):
    predicted = Volume.open(task.output_specs()[0].path)
    return predicted.read(predicted.box)


@pytest.fixture
def with_bf16(monkeypatch):
    monkeypatch.setattr(predict_ways, "hardware_precisions", lambda device: ["fp32", "bf16"])


def tiles(ways):
    return [way.tile_shape for way in ways]


def test_tiles_are_multiples_of_the_setups_that_divide_the_block(raw, setup_folder, tmp_path):
    ways = possible_ways(predict(raw, setup_folder, tmp_path, precision="fp32"))
    assert ways[0] == Way("fp32", (6, 12, 12))
    for tile in tiles(ways):
        assert all(b % t == 0 for b, t in zip((12, 48, 24), tile, strict=True))
        assert all(t % u == 0 for t, u in zip(tile, (6, 12, 12), strict=True))
    assert (12, 48, 24) in tiles(ways)
    voxels = [way.voxels for way in ways]
    assert voxels == sorted(set(voxels))  # of equally large ones, that with the least context


def test_of_tiles_with_as_many_voxels_the_one_that_reads_least_is_tried(raw, setup_folder, tmp_path):
    context = predict(raw, setup_folder, tmp_path).network_context
    assert context == (3, 6, 6)
    found = predict_ways._compact([(6, 48, 12), (12, 24, 12), (6, 24, 24), (6, 12, 12)], context)
    assert found == [(12, 24, 12), (6, 12, 12)]


@pytest.mark.parametrize(
    ("device", "sections", "batches"),
    [("cpu", 1, (1, 2)), ("cpu", 4, (1, 2)), ("cpu", 5, (1,)), ("cuda", 1, (1, 2, 4, 8))],
)
def test_a_cpu_tries_two_tiles_at_a_time_only_if_they_are_thin(device, sections, batches):
    assert predict_ways._batches(device, (sections, 64, 64)) == batches


def test_both_precisions_are_tried_full_precision_first(raw, setup_folder, tmp_path, with_bf16):
    ways = possible_ways(predict(raw, setup_folder, tmp_path, tile_shape=(6, 24, 24)))
    assert ways == [Way("fp32", (6, 24, 24)), Way("bf16", (6, 24, 24))]


@pytest.mark.parametrize(
    "options",
    [{"precision": "fp32", "tile_shape": (6, 12, 12)}, {"precision": "fp32", "block_shape": (6, 12, 12)},
     {"precision": "fp32", "test_time_augmentation": "mirrors"}],
    ids=["both given", "one tile in a block", "values that depend on the tile"],
)
def test_nothing_is_timed_where_there_is_no_choice(
    raw, setup_folder, tmp_path, options, monkeypatch
):
    monkeypatch.setattr(predict_ways, "time_ways", None)
    task = predict(raw, setup_folder, tmp_path, **options)
    measured = task.measure()
    assert (measured["precision"], measured["tile_shape"]) == ("fp32", [6, 12, 12])
    assert task.said(measured) is None


def test_workers_elsewhere_are_not_timed_here(raw, setup_folder, tmp_path, with_bf16):
    task = predict(raw, setup_folder, tmp_path, launcher="slurm")
    assert possible_ways(task) == [Way("bf16", (6, 12, 12))]


def test_tiles_beyond_the_stated_memory_are_not_tried(raw, setup_folder, tmp_path):
    def tried(**options):
        return tiles(possible_ways(predict(raw, setup_folder, tmp_path, precision="fp32", **options)))

    everything = tried(worker_memory_gb=8)
    assert len(everything) > 3
    assert tried(worker_memory_gb=0.1) == [(6, 12, 12)]  # the usual one is always there
    per_voxel = predict_ways.bytes_per_voxel(predict(raw, setup_folder, tmp_path).bare_network)
    task = predict(raw, setup_folder, tmp_path)
    largest = predict_ways._seen((12, 48, 24), task.network_context) * per_voxel
    enough = predict_ways.BASE_BYTES + task.held_bytes() + largest
    assert tried(worker_memory_gb=(enough + 1) / 1e9) == everything
    assert tried(worker_memory_gb=(enough - 1) / 1e9) == everything[:-1]
    assert tried(cluster={"memory_gb": 0.1}) == [(6, 12, 12)]


def time_always(monkeypatch):
    """Also for a small volume, and however busy the machine is."""
    monkeypatch.setattr(predict_ways, "LEAST_TILES", 1)
    monkeypatch.setattr(predict_ways, "WORTH_S", 0)
    monkeypatch.setattr(predict_ways, "SHARE", 1e6)


def test_a_short_run_keeps_the_usual_way_and_says_so(raw, setup_folder, tmp_path, monkeypatch):
    monkeypatch.setattr(predict_ways, "time_ways", None)
    task = predict(raw, setup_folder, tmp_path, precision="fp32")
    measured = task.measure()
    assert measured["tile_shape"] == [6, 12, 12] and measured["timings"] == []
    assert "as usual: timing 4 other ways would take too much" in task.said(measured)


def test_a_run_is_timed_from_half_a_minute_of_work_on(raw, setup_folder, tmp_path, monkeypatch):
    asked = []

    def time_ways(ways, _, budget_s):
        voxels = np.prod(SHAPE)
        asked.extend(budget_s(voxels / seconds) for seconds in (29, 31, 1e4))
        return [Timed(ways[0], 1e6)]

    monkeypatch.setattr(predict_ways, "time_ways", time_ways)
    task = predict(raw, setup_folder, tmp_path, precision="fp32", num_workers=1)
    monkeypatch.setattr(predict_ways, "LEAST_TILES", 2 * 4 * 4)
    task.measure()
    assert asked == [0, pytest.approx(0.15 * 31), 60]
    monkeypatch.setattr(predict_ways, "LEAST_TILES", 2 * 4 * 4 + 1)
    predict(raw, setup_folder, tmp_path, precision="fp32").measure()
    assert len(asked) == 3


def test_a_run_of_a_roi_takes_the_way_of_the_run_over_everything(
    raw, setup_folder, tmp_path, monkeypatch
):
    time_always(monkeypatch)
    chosen = (12, 48, 24)
    monkeypatch.setattr(predict_ways, "time_ways", lambda ways, *_: [
        Timed(way, 2e6 if way.tile_shape == chosen else 1e6) for way in ways
    ])
    whole = predict(raw, setup_folder, tmp_path, precision="fp32")
    assert run(whole).ok
    monkeypatch.setattr(predict_ways, "time_ways", None)
    box = Box((1, 5, 7), (6, 20, 18))
    roi = FRAME.to_roi(box)
    values = {"roi": {"offset": roi.offset, "shape": roi.shape}, "run": "part",
              "output": str(tmp_path / "out/part.zarr"), "precision": "fp32"}
    part = predict(raw, setup_folder, tmp_path, **values)
    assert run(part).ok
    with store_of(part) as store:
        assert store.load()["measured"]["tile_shape"] == list(chosen)
    assert stored(part).tobytes() == stored(whole)[(..., *box.slices)].tobytes()


def test_another_network_or_block_takes_no_way_of_a_run(raw, setup_folder, tmp_path):
    task = predict(raw, setup_folder, tmp_path)
    other = predict(raw, setup_folder, tmp_path, block_shape=(6, 24, 24))
    assert task.alike() != other.alike() and task.alike()["config.block_shape"] == [12, 48, 24]
    assert task.alike()["identity.inputs.network"] == task.identity()["inputs"]["network"]
    elsewhere = {"precision": "fp32", "tile_shape": [6, 18, 12], "batch_size": 1}
    assert task.measure(elsewhere)["tile_shape"] == [6, 12, 12]  # does not divide its blocks


def test_the_fastest_is_used_kept_with_the_run_and_said(
    raw, setup_folder, tmp_path, monkeypatch
):
    time_always(monkeypatch)
    chosen = (12, 48, 24)
    monkeypatch.setattr(predict_ways, "time_ways", lambda ways, *_: [
        Timed(way, 2e6 if way.tile_shape == chosen else 1e6) for way in ways
    ])
    task = predict(raw, setup_folder, tmp_path, precision="fp32")
    assert run(task).ok
    with store_of(task) as store:
        measured = store.load()["measured"]
        store.blocks.delete_one({"_id": "p/0/0/1"})
    assert measured["tile_shape"] == list(chosen) and len(measured["timings"]) > 3
    assert "fp32 with tiles of 12x48x24 at 2 Mvoxel/s" in said(measured)
    first = stored(task)
    monkeypatch.setattr(predict_ways, "time_ways", None)  # a resumed run keeps its own
    assert run(predict(raw, setup_folder, tmp_path, precision="fp32")).blocks["computed"] == 1
    np.testing.assert_array_equal(stored(task), first)
    usual = predict(raw, setup_folder, tmp_path / "b", precision="fp32", tile_shape=(6, 12, 12))
    assert run(usual).ok
    np.testing.assert_allclose(stored(usual), first, rtol=0, atol=1e-6)


def test_real_passes_are_timed_and_one_of_them_chosen(
    raw, setup_folder, tmp_path, monkeypatch
):
    time_always(monkeypatch)
    task = predict(raw, setup_folder, tmp_path, precision="fp32")
    measured = task.measure()
    assert len(measured["timings"]) > 3
    assert all(found["voxels_per_s"] > 0 for found in measured["timings"])
    assert any(found["tile_shape"] == measured["tile_shape"] for found in measured["timings"])
    assert task.model_copy().measure() == measured  # timed once


def test_what_is_left_open_does_not_change_the_identity(raw, setup_folder, tmp_path):
    plain = predict(raw, setup_folder, tmp_path).identity()
    other = predict(raw, setup_folder, tmp_path, worker_memory_gb=3, batch_size=2).identity()
    assert plain == other and plain["config"]["tile_shape"] is None


def test_a_run_of_an_earlier_version_goes_on_with_the_setups_tile(raw, setup_folder, tmp_path):
    task = predict(raw, setup_folder, tmp_path)
    old = {"precision": "fp32", "normalization": {"scale": 2 / 255, "shift": -1.0}}
    predictor = predictor_of(task, old)
    assert (predictor.tile_shape, predictor.batch_size) == ((6, 12, 12), 1)


def test_a_batch_is_not_larger_than_a_block(raw, setup_folder, tmp_path):
    task = predict(raw, setup_folder, tmp_path, batch_size=100, tile_shape=(6, 24, 24))
    assert predictor_of(task, task.measure()).batch_size == 2 * 2 * 1


@given(st.integers(1, 2000))
def test_chunks_divide_the_block_and_are_never_small(size):
    chunk = divisor(size)
    if chunk is None:
        near = nearest_divisible(size)
        assert not any(size % d == 0 for d in range(32, 129)) and divisor(near) is not None
        assert not any(divisor(size + s) for s in range(-abs(near - size) + 1, abs(near - size)))
    else:
        assert size % chunk == 0 and min(32, size) <= chunk <= 128


@pytest.mark.parametrize(
    ("size", "chunk"),
    [(8, 8), (33, 33), (65, 65), (96, 48), (128, 64), (134, 67), (250, 50), (256, 64), (131, None)],
)
def test_chunks_are_near_64(size, chunk):
    assert divisor(size) == chunk


def test_a_block_that_cannot_be_cut_into_chunks_is_refused(raw, setup_folder, tmp_path):
    task = predict(raw, setup_folder, tmp_path, block_shape=(6, 12, 12 * 131))
    with pytest.raises(BlockAlignmentError, match=r"Use block_shape \(6, 12, 1573\)"):
        task.output_specs()
