"""What a run says of its reads: faults that a walk through the states of inputs found, one by one."""

import json
from unittest import mock

import numpy as np
import pytest
from click.testing import CliRunner

import extracting
import mapping
from em_blocks.cli.main import main
from em_blocks.geometry import Box, Frame
from em_blocks.runtime.runs.leases import this_owner
from em_blocks.runtime.runs.ledgers import reopen
from em_blocks.tasks.evaluation.count_overlaps import CountOverlaps
from em_blocks.tasks.prediction.predict import Predict
from em_blocks.tasks.synapses.cluster_clefts import ClusterClefts
from em_blocks.tasks.volumes.downsample import Downsample
from em_blocks.volumes import Volume
from em_blocks.volumes.stores.ledger import read_ledger
from producing import Input, run

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, -9.2))
SHAPE = (12, 33, 41)
uri = mapping.uri


@pytest.fixture
def made(uri, tmp_path):
    """A function that makes a volume by a run with a database of its own."""

    def made(versions, name="a"):
        return Input(
            tmp_path, name, versions, FRAME, block_shape=(4, 11, 20), chunk_shape=(4, 11, 10),
            settings={"db_host": uri, "db_name": f"made{tmp_path.name[-40:]}"},
            rng=np.random.default_rng(0),
        )

    return made


def numbers(seed, most=256):
    return np.random.default_rng(seed).integers(0, most, SHAPE).astype(np.uint8)


def coarser(source, folder, uri, **options):
    return Downsample.from_dict({
        "kind": "downsample", "run": "verb", "input": source.path, "method": "mean",
        "factors": [[1, 2, 2]], "output": str(folder / "out.zarr/p"), "chunk_shape": [4, 4, 4],
        "block_shape": [4, 8, 8], "db_host": uri, "db_name": f"verb{folder.name[-40:]}", **options,
    })


def test_blocks_that_verify_found_damaged_are_missing_to_readers_with_another_database(
    made, uri, tmp_path
):
    source = made((numbers(1), numbers(2)))
    damaged = Volume.open(source.path, mode="r+")
    box = Box((4, 11, 20), (4, 11, 20))
    damaged.write(box, np.zeros(box.shape, np.uint8))
    config = tmp_path / "made.json"
    config.write_text(json.dumps(source.task.model_dump(mode="json", exclude_unset=True)))
    verify(source.task, config)
    ledger = read_ledger(source.path)
    assert np.argwhere(ledger.missing).tolist() == [[1, 1, 1]]
    assert ledger.owner == this_owner()  # when that has ended, a run without its database may go on
    last = run(coarser(source, tmp_path, uri, incomplete_inputs="skip"))[-1]
    assert not last.ok and "wait for what input lacks" in last.reason
    assert 0 < last.blocks["done"] < last.blocks["total"]


def verify(task, config):
    """``em-blocks verify``, of a kind of task that only the tests have."""
    with mock.patch("em_blocks.cli.runs.verify.load_steps", return_value=[task]):
        found = CliRunner().invoke(main, ["verify", str(config), "--json"])
    assert found.exit_code == 1 and len(json.loads(found.stdout)["damaged"]) == 1, found.output


def test_an_input_that_was_not_closed_and_lacks_no_block_is_not_trusted_by_those_who_skip(
    made, uri, tmp_path
):
    source = made((numbers(1), numbers(2)))
    reopen(source.task)
    last = run(coarser(source, tmp_path, uri, incomplete_inputs="skip"))[-1]
    assert not last.ok and last.blocks["done"] == 0
    source.done()
    assert run(coarser(source, tmp_path, uri, incomplete_inputs="skip"))[-1].ok


@pytest.mark.parametrize("normalization", [{"percentiles": [1, 99]}, "dtype"])
def test_percentiles_are_not_measured_of_raw_with_holes_and_anew_of_raw_that_changed(
    normalization, made, uri, setup_folder, tmp_path
):
    source = made((numbers(1, 100), numbers(2, 250)), "raw")
    assert source.task.grid().n_blocks == 27

    def predict(name, **options):
        return Predict.from_dict({
            "kind": "predict", "run": name, "raw": source.path, "setup": str(setup_folder),
            "output": str(tmp_path / name / "out.zarr"), "block_shape": [6, 12, 24],
            "tile_shape": [6, 12, 12], "batch_size": 1, "precision": "fp32", "db_host": uri,
            "normalization": normalization, "db_name": f"verb{tmp_path.name[-40:]}", **options,
        })

    def values(task):
        volume = Volume.open(task.output_specs()[0].path)
        return volume.read(volume.box)

    source.quarantined()
    # Each block would be scaled by what is not there yet.
    assert run(predict("verb", incomplete_inputs="skip"))[-1].blocks["done"] == 0
    for state in ("redone", "replaced"):
        source.become(state)
        task, fresh = predict("verb", incomplete_inputs="skip"), predict(f"fresh-{state}")
        assert run(task)[-1].ok and run(fresh)[-1].ok
        assert np.array_equal(values(task), values(fresh))


def test_linear_scales_let_blocks_far_from_a_hole_be_predicted(made, uri, setup_folder, tmp_path):
    task = Predict.from_dict({
        "kind": "predict", "run": "verb", "raw": made((numbers(1), numbers(2)), "raw").path,
        "setup": str(setup_folder), "output": str(tmp_path / "out.zarr"), "block_shape": [6, 12, 24],
        "tile_shape": [6, 12, 12], "normalization": {"scale": 0.01, "shift": -1.0},
    })
    assert task.read_reach() == task.read_context()
    measured = task.model_copy(update={"normalization": "dtype"})
    assert all(r >= n for r, n in zip(measured.read_reach(), SHAPE, strict=True))


def test_borders_of_truth_that_do_not_count_are_read_beyond_a_block(made, uri, tmp_path):
    neurons = (numbers(1, 9).astype(np.uint64), numbers(2, 9).astype(np.uint64))
    truth, segments = made(neurons, "truth"), made(neurons, "segments")
    task = CountOverlaps.from_dict({
        "kind": "count_overlaps", "run": "verb", "truth": truth.path, "border_nm": 12.0,
        "segmentations": {"a": segments.path}, "output": str(tmp_path / "evaluation"),
        "block_shape": [4, 11, 20], "db_host": uri, "db_name": f"verb{tmp_path.name[-40:]}",
    })
    assert task.read_reach() == (0, 3, 3)
    assert run(task)[-1].ok
    truth._lose([(1, 1, 1)])
    truth.done()
    assert run(task)[-1].blocks["computed"] == 9 and run(task)[-1].blocks["computed"] == 0


def test_what_an_extraction_may_read_includes_duplicates_and_what_has_a_say_in_maxima(tmp_path):
    paths = extracting.predictions(tmp_path, extracting.blobs())

    def reach(**options):
        return extracting.extraction(
            paths, (4, 20, 17), run_dir=str(tmp_path), max_extent_nm=[80, 40, 46],
            detection={"method": "maxima", "threshold": 0.5, "radius_nm": [40, 8, 9.2]},
            **{"context_nm": [40, 4, 4], **options},
        ).read_reach()

    # 40, 4 and 4.6 nm per voxel: the extent and twice the radius, then the distance of duplicates.
    assert reach() == (4, 14, 14)
    assert reach(duplicate_distance_nm=80.0) == (6, 34, 32)
    assert reach(context_nm=[800, 4, 4.6]) == (20, 14, 14)


def test_clefts_of_a_prediction_that_was_moved_are_those_of_the_same_run(made, uri, tmp_path):
    from test_input_states_synapses import clefts, cluster, detected

    settings = {"db_host": uri, "db_name": f"verb{tmp_path.name[-40:]}"}
    detected(settings)
    source = Input(
        tmp_path, "p", (clefts(1), clefts(2)), mapping.FRAME, block_shape=(4, 9, 11),
        chunk_shape=(4, 9, 11), settings={**settings, "db_name": settings["db_name"] + "m"},
        rng=np.random.default_rng(0), attributes={"scale": 255},
    )
    task: ClusterClefts = cluster({"prediction": source.path}, tmp_path / "verb", **settings)
    assert run(task)[-1].ok
    source.moved()
    task = cluster({"prediction": source.path}, tmp_path / "verb", **settings)
    assert [report.blocks["computed"] for report in run(task)] == [0] * 5
