"""Counting a mask: any blocks, any kind of volume, and what is no mask at all."""

import h5py
import numpy as np
import pytest
import zarr

from blockwise import assert_retry_equals_once, run, store_of
from em_blocks.db.runs import DONE
from em_blocks.errors import ConfigError, VolumeError
from em_blocks.evaluation.mask import count_here, score
from em_blocks.geometry import Box, Frame
from em_blocks.kernels.evaluation.mask_scores import Confusion
from em_blocks.tasks.evaluation.count_mask import CountMask
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
SHAPE = (9, 20, 24)
SHIFT = (2, 3, -1)
RNG = np.random.default_rng(1)
PROBABILITIES = RNG.integers(0, 256, (3, *SHAPE)).astype("uint8")
TRUTH = (RNG.random(SHAPE) < 0.3) * 7 + (RNG.random(SHAPE) < 0.1) * 5


def make_volume(folder, name, values, shift=(0, 0, 0), voxels=(1, 1, 1), **attributes):
    size = tuple(v * n for v, n in zip(FRAME.voxel_size, voxels))
    frame = Frame(size, FRAME.to_roi(Box(shift, (1, 1, 1))).offset)
    made = Volume.create(
        str(folder / "v.zarr" / name), shape=values.shape[-3:], dtype=values.dtype, frame=frame,
        chunk_shape=(4, 5, 6), channels=len(values) if values.ndim == 4 else None,
        attributes=attributes,
    )
    made.write(made.box, values)
    return made.path


@pytest.fixture
def make(tmp_path):
    """A function that makes a task over three classes and a shifted truth."""
    prediction = make_volume(
        tmp_path, "p", PROBABILITIES, scale=255.0, classes=["mito", "membrane", "synapse"]
    )
    truth = make_volume(tmp_path, "truth", TRUTH.astype("uint16"), SHIFT)

    def make(name="a", **options):
        values = {
            "kind": "count_mask", "run": "counted", "prediction": prediction, "truth": truth,
            "output": str(tmp_path / name / "evaluation"), "block_shape": (4, 6, 9), **options,
        }
        if isinstance(values["prediction"], str) and values["prediction"] == prediction:
            values.setdefault("channel", "membrane")
        return CountMask.from_dict(values)

    return make


def shared(values, shifted):
    """The part of an array of `SHAPE` that both volumes cover."""
    cut = [slice(max(0, -s if shifted else s), n + min(0, -s if shifted else s))
           for s, n in zip(SHIFT, SHAPE)]
    return values[tuple(cut)]


def confusion(predicted, truth, where=True):
    return Confusion(*(int((a & where).sum()) for a in (
        predicted & truth, predicted & ~truth, ~predicted & truth, ~predicted & ~truth
    )))


def slow(threshold, positive=TRUTH > 0):
    return confusion(shared(PROBABILITIES[1] / 255 >= threshold, False), shared(positive, True))


def scored(task):
    task.check()
    return score(task, count_here(task, task.grid().blocks()))


# -- what is counted ----------------------------------------------------------------------


@pytest.mark.parametrize("block_shape", [None, (4, 6, 9), (1, 20, 5), SHAPE])
def test_any_blocks_count_what_one_pass_over_the_whole_counts(make, block_shape):
    task = make(block_shape=block_shape, threshold=0.6, thresholds=[0.3, 0.9])
    found = scored(task)
    assert found.total == found.everywhere == slow(0.6) and found.threshold == 0.6
    assert found.curve == [(t, slow(t)) for t in (0.3, 0.6, 0.9)]
    assert sum(found.total) == (9 - 2) * (20 - 3) * (24 - 1)


def test_workers_count_the_same_and_store_it(make):
    task = make(thresholds=[0.3], num_workers=2)
    assert run(task).ok
    with store_of(task) as store:
        blocks = [task.grid().block(index) for index in store.indices(DONE)]
    assert score(task, task.stored(blocks)) == scored(make("b", thresholds=[0.3]))


def test_blocks_that_are_done_again_count_once(make):
    assert_retry_equals_once(make("again"), make("once"))


def test_sections_are_numbered_as_in_truth(make):
    found = scored(make())
    # The prediction begins at 400 nm, truth two sections later.
    assert [(s.number, s.z_nm) for s in found.sections] == [(n, 480.0 + 40 * n) for n in range(7)]
    for section in found.sections:
        predicted = PROBABILITIES[1, section.number + 2, 3:, :23] / 255 >= 0.5
        assert section.found == confusion(predicted, TRUTH[section.number, :17, 1:] > 0)


def test_ids_of_truth_and_ignored_ones(make):
    found = scored(make(truth_ids=[7]))
    assert found.total == slow(0.5, TRUTH == 7)
    found = scored(make(truth_ids=[7], ignore=[5, 12]))
    known = ~np.isin(shared(TRUTH, True), [5, 12])
    assert found.total == confusion(
        shared(PROBABILITIES[1] >= 128, False), shared(TRUTH == 7, True), known
    )


def test_masks_of_other_voxels_and_places_exclude_voxels(make, tmp_path):
    """The metric mask has voxels of (2, 2, 3), begins elsewhere, and does not cover everything."""
    coarse = np.random.default_rng(5).random((4, 8, 7)) < 0.6
    metric = make_volume(tmp_path, "metric", coarse.astype("uint8"), (1, -1, 2), (2, 2, 3))
    inside = np.zeros(SHAPE, bool)
    fine = coarse.repeat(2, 0).repeat(2, 1).repeat(3, 2)[:, 1:]
    inside[1:9, 0:15, 2:23] = fine
    tissue = np.ones(SHAPE, "uint8")
    tissue[:, :, 12:] = 0
    specimen = make_volume(tmp_path, "tissue", tissue)
    found = scored(make(metric_masks=[metric], mask=specimen))
    called, true = shared(PROBABILITIES[1] >= 128, False), shared(TRUTH > 0, True)
    known = shared(tissue > 0, False)
    assert found.everywhere == confusion(called, true, known)
    assert found.total == confusion(called, true, known & shared(inside, False))
    both = scored(make(metric_masks=[metric, specimen]))
    assert both.total == found.total and both.everywhere == slow(0.5)


@pytest.mark.parametrize("block_shape", [(4, 6, 9), (20, 20, 30)])
def test_a_prediction_of_larger_voxels_is_compared_at_those_of_truth(make, tmp_path, block_shape):
    """Its voxels are (1, 2, 3) of truth's, and its last ones reach beyond."""
    coarse = PROBABILITIES[1, :, :9, :7]
    path = make_volume(tmp_path, "coarse", coarse, (-1, 2, 1), (1, 2, 3), scale=255.0)
    fine = coarse.repeat(2, 1).repeat(3, 2) >= 128
    truth = make_volume(tmp_path, "fine", TRUTH.astype("uint16"))
    found = scored(make(prediction=path, truth=truth, block_shape=block_shape))
    assert found.total == confusion(fine[1:, :18, :21], (TRUTH > 0)[:8, 2:20, 1:22])
    assert [s.number for s in found.sections] == list(range(8))
    back = scored(make(prediction=truth, truth=path, block_shape=block_shape, ids=[5, 7, 12],
                       channel=None, truth_ids=list(range(128, 256))))
    assert (back.total.tp, back.total.fp) == (found.total.tp, found.total.fn)


def test_voxels_that_are_no_whole_multiples_are_refused(make, tmp_path):
    path = make_volume(tmp_path, "odd", PROBABILITIES[1], voxels=(1, 1.5, 1), scale=255.0)
    with pytest.raises(ConfigError, match="voxels can only be compared one by one"):
        make(prediction=path, channel=None).grid()
    path = make_volume(tmp_path, "both", PROBABILITIES[1], voxels=(2, 0.5, 1), scale=255.0)
    with pytest.raises(ConfigError, match="voxels can only be compared one by one"):
        make(prediction=path, channel=None).grid()


def test_a_roi_is_cut_out(make):
    roi = FRAME.to_roi(Box((3, 4, 4), (4, 50, 6)))
    found = scored(make(roi={"offset": roi.offset, "shape": roi.shape}))
    box = np.s_[3:7, 4:20, 4:10]
    truth = (TRUTH > 0)[1:5, 1:17, 5:11]
    assert found.total == confusion(PROBABILITIES[1][box] >= 128, truth)
    assert [s.number for s in found.sections] == [1, 2, 3, 4]


# -- what a prediction may be -------------------------------------------------------------


@pytest.mark.parametrize(
    ("values", "attributes", "options", "threshold"),
    [
        ((PROBABILITIES[1] / 255).astype("float32"), {}, {}, 0.5),
        (PROBABILITIES[1].astype("uint16") * 4, {"scale": 1020.0}, {}, 0.5),
        (PROBABILITIES[1], {}, {"threshold": 0.5}, 0.5),  # fills its dtype
        (PROBABILITIES[1:2], {"scale": 255.0}, {}, 0.5),  # the only channel
        ((PROBABILITIES[1] >= 128).astype("uint8"), {}, {}, None),
        ((PROBABILITIES[1] >= 128).astype("uint8"), {}, {"threshold": 0.3}, 0.3),
        ((PROBABILITIES[1] >= 128).astype("uint64") * 2**63, {}, {}, None),
        ((PROBABILITIES[1] >= 128) * np.int32(3) - 1, {}, {"ids": [2]}, None),
        ((PROBABILITIES[1] >= 128).astype("uint8") + 1, {"labels": True, "classes": ["a", "b"]},
         {"channel": "b"}, None),
    ],
)
def test_the_same_mask_in_any_volume_has_the_same_scores(
    make, tmp_path, values, attributes, options, threshold
):
    path = make_volume(tmp_path, "other", values, **attributes)
    found = scored(make(prediction=path, **options))
    assert found.total == slow(0.5) and found.threshold == threshold


def test_a_mask_of_bool_that_another_program_wrote(make, tmp_path):
    array = zarr.open(str(tmp_path / "b.zarr"), mode="w", shape=SHAPE, chunks=(4, 5, 6), dtype=bool)
    array[:] = PROBABILITIES[1] >= 128
    array.attrs.update(resolution=FRAME.voxel_size, offset=FRAME.offset)
    assert scored(make(prediction=str(tmp_path / "b.zarr"))).total == slow(0.5)


def test_masks_and_truth_may_be_in_hdf5(make, tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["called"] = (PROBABILITIES[1] >= 128).astype("uint32")
        file["truth"] = TRUTH.astype("uint32")
    found = scored(make(
        prediction=f"{tmp_path}/f.h5:called", truth=f"{tmp_path}/f.h5:truth"
    ))
    assert found.total == confusion(PROBABILITIES[1] >= 128, TRUTH > 0)


def test_probabilities_may_be_in_files_of_other_programs(make, tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["p"] = PROBABILITIES.astype("float32") / np.float32(255)
        file["p"].attrs.update(resolution=FRAME.voxel_size, offset=FRAME.offset)
    np.save(tmp_path / "p.npy", PROBABILITIES[1])
    placed = {"path": f"{tmp_path}/p.npy", "voxel_size": FRAME.voxel_size, "offset": FRAME.offset}
    for prediction, options in ((f"{tmp_path}/f.h5:p", {"channel": 1}), (placed, {"threshold": 0.5})):
        task = make(prediction=prediction, **options)
        assert scored(task).total == slow(0.5)
    with pytest.raises(ConfigError, match="3 channels, and none is chosen"):
        make(prediction=f"{tmp_path}/f.h5:p").check()


# -- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"channel": None}, r"3 channels, and none is chosen.*0 \(mito\), 1 \(membrane\), 2"),
        ({"channel": "nucleus"}, r"none is 'nucleus'"),
        ({"channel": 3}, r"none is 3"),
        ({"ids": [1], "threshold": 0.5}, "either `ids`"),
        ({"threshold": 1.5}, "threshold"),
    ],
)
def test_a_wrong_choice_is_refused(make, options, words):
    with pytest.raises(ConfigError, match=words):
        make(**options).check()


@pytest.mark.parametrize(
    ("values", "attributes", "options", "words"),
    [
        (TRUTH.astype("uint32"), {}, {"threshold": 0.5}, "neither a threshold nor channels"),
        (TRUTH.astype("uint8"), {"labels": True}, {"threshold": 0.5}, "read as ids"),
        (TRUTH.astype("uint8"), {}, {"channel": 2}, "neither a threshold nor channels"),
        (TRUTH.astype("float32"), {}, {"channel": 2}, "has no channels"),
        (TRUTH.astype("float32"), {}, {"ids": [2]}, "one integer id per voxel"),
        (TRUTH.astype("int32") - 1, {}, {}, "holds the id -1"),
    ],
)
def test_a_prediction_that_cannot_be_read_so_is_refused(
    make, tmp_path, values, attributes, options, words
):
    path = make_volume(tmp_path, "other", values, **attributes)
    with pytest.raises(ConfigError, match=words):
        make(prediction=path, **options).check()


def test_nan_is_refused_where_it_is(make, tmp_path):
    values = np.full(SHAPE, 0.5, "float32")
    values[8, 19, 23] = np.nan  # in the last chunk
    with pytest.raises(VolumeError, match=r"NaN at voxel \(8, 19, 23\)"):
        make(prediction=make_volume(tmp_path, "nan", values)).check()


def test_a_mask_that_turns_out_to_hold_more_is_refused_in_its_block(make, tmp_path):
    values = np.zeros(SHAPE, "uint8")
    values[4, 5, 6] = 200  # in a chunk that the sample misses
    task = make(prediction=make_volume(tmp_path, "odd", values), threshold=0.5)
    task.check()
    with pytest.raises(VolumeError, match="where a sample held only 0 and 1 it holds 200"):
        score(task, count_here(task, task.grid().blocks()))


def test_masks_that_exclude_everything_are_refused(make, tmp_path):
    empty = make_volume(tmp_path, "empty", np.zeros(SHAPE, "uint8"))
    with pytest.raises(ConfigError, match=r"No voxel of .* counts"):
        scored(make(metric_masks=[empty]))
    channels = make_volume(tmp_path, "two", np.zeros((2, *SHAPE), "uint8"))
    with pytest.raises(ConfigError, match="has 2 channels; a mask is one array"):
        make(metric_masks=[channels]).check()


def test_what_is_scored_is_part_of_the_run(make, tmp_path):
    empty = make_volume(tmp_path, "one", np.ones(SHAPE, "uint8"))
    tasks = [make(), make(threshold=0.4), make(truth_ids=[7]), make(ignore=[7]), make(channel=0),
             make(metric_masks=[empty]), make(mask=empty)]
    identities = [task.identity() for task in tasks]
    assert all(a != b for n, a in enumerate(identities) for b in identities[:n])
    assert make(num_workers=3).identity() == identities[0]
