"""Instances in blocks: scores, errors and places of the whole volume, whatever the blocks."""

import json

import h5py
import numpy as np
import pytest
from scipy import ndimage

from blockwise import assert_retry_equals_once, run, store_of
from em_blocks.db.runs import DONE
from em_blocks.errors import ConfigError, GeometryError
from em_blocks.evaluation.instances import count_here, score
from em_blocks.geometry import Box, Frame
from em_blocks.json_text import json_text
from em_blocks.tasks.evaluation.count_instances import CountInstances
from em_blocks.volumes import Volume

FRAME = Frame((40.0, 4.6, 4.6), (400.0, 46.0, 9.2))
SHAPE = (9, 20, 24)
SHIFT = (2, 3, -1)
BLOCKS = [None, (4, 6, 9), (1, 20, 5), SHAPE]


def blobs(seed):
    """Some 60 smooth objects of up to 80 voxels, with the ids that scipy gives them."""
    noise = ndimage.gaussian_filter(np.random.default_rng(seed).random(SHAPE), (0.5, 1, 1))
    return ndimage.label(noise > np.quantile(noise, 0.85))[0].astype("uint32")


def in_truth(labels):
    """Where truth is moved by `SHIFT`, what lies at the same place."""
    return np.roll(labels, tuple(-s for s in SHIFT), axis=(0, 1, 2))


PREDICTION = blobs(3)
# Every fifth object is missing, and of every seventh the id is that of another one.
TRUTH = np.where(PREDICTION % 5 == 1, 0, np.where(PREDICTION % 7 == 2, PREDICTION + 1, PREDICTION))
TRUTH = in_truth(np.where(TRUTH > 0, TRUTH + 2**31, 0).astype("uint32"))
PREDICTION[:, :, 12:][PREDICTION[:, :, 12:] > 0] += 100  # cuts what crosses it
PREDICTION[PREDICTION % 11 == 3] = 3  # joins some
PREDICTION[PREDICTION % 13 == 5] = 0


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
    """A function that makes a task over a prediction and a shifted truth."""
    prediction = make_volume(tmp_path, "p", PREDICTION)
    truth = make_volume(tmp_path, "truth", TRUTH, SHIFT)

    def make(name="a", **options):
        return CountInstances.from_dict({
            "kind": "count_instances", "run": "counted", "prediction": prediction, "truth": truth,
            "output": str(tmp_path / name / "evaluation"), "block_shape": (4, 6, 9),
            "iou": [0.55], **options,
        })

    return make


def shared(values, is_truth):
    """The part of an array of `SHAPE` that both volumes cover."""
    cut = [slice(max(0, -s if is_truth else s), n + min(0, -s if is_truth else s))
           for s, n in zip(SHIFT, SHAPE)]
    return values[tuple(cut)]


def scored(task):
    task.check()
    return score(task, count_here(task, task.grid().blocks()))


def slow(prediction, truth, known=None, iou=0.55, min_voxels=1):
    """(tp, fp, fn, sum of IoU) above an IoU of 0.5, mask by mask over the whole volume."""
    known = np.ones(truth.shape, bool) if known is None else known
    sizes = lambda v: {i: n for i in np.unique(v[v > 0])  # noqa: E731
                       if (n := ((v == i) & known).sum()) >= min_voxels}
    true, predicted, total, tp = sizes(truth), sizes(prediction), 0.0, 0
    for t in true:
        for p in predicted:
            both = ((truth == t) & (prediction == p) & known).sum()
            value = both / (true[t] + predicted[p] - both)
            if value >= iou:
                total, tp = total + value, tp + 1
    return tp, len(predicted) - tp, len(true) - tp, total


def counts(found, n=0):
    scores = found.scores[n]
    return scores.tp, scores.fp, scores.fn, pytest.approx((scores.mean_iou or 0) * scores.tp)


# -- the whole volume ---------------------------------------------------------------------


@pytest.mark.parametrize("block_shape", BLOCKS)
def test_any_blocks_give_the_scores_of_one_pass_over_the_whole(make, block_shape):
    found = scored(make(block_shape=block_shape, iou=[0.55, 0.8], min_voxels=3, size_bounds=[20]))
    volumes = shared(PREDICTION, False), shared(TRUTH, True)
    for n, iou in enumerate((0.55, 0.8)):
        assert counts(found, n) == slow(*volumes, iou=iou, min_voxels=3)
    assert found.scores[0].tp > 5 and found.scores[0].fp > 3 and found.scores[0].fn > 3
    both, either = (volumes[0] > 0) & (volumes[1] > 0), (volumes[0] > 0) | (volumes[1] > 0)
    assert found.voxels.iou == both.sum() / either.sum()
    assert sum(found.error_counts.values()) == len(found.errors) > 5


def test_documents_do_not_depend_on_the_blocks_and_places_lie_in_the_objects(make):
    for border in ("leave-out", "count"):
        texts = {json_text(scored(make(block_shape=shape, border=border)).document())
                 for shape in BLOCKS}
        assert len(texts) == 1
    volumes = {"prediction": shared(PREDICTION, False), "truth": shared(TRUTH, True)}
    frame = make().grid().frame
    assert frame.offset == (480.0, 46 + 3 * 4.6, 9.2)
    document = json.loads(texts.pop())
    assert {error["type"] for error in document["error_list"]} >= {
        "split", "merge", "false", "missed"
    }
    for error in document["error_list"]:
        voxel = np.subtract(error["position_nm"], frame.offset) / frame.voxel_size
        np.testing.assert_allclose(voxel % 1, 0.5)
        index = tuple(np.floor(voxel).astype(int))
        side = "prediction" if error["type"] == "false" else "truth"
        assert volumes[side][index] in error[side]


def test_workers_count_the_same_and_store_it(make):
    task = make(num_workers=2)
    assert run(task).ok
    with store_of(task) as store:
        blocks = [task.grid().block(index) for index in store.indices(DONE)]
    found = score(task, task.stored(blocks))
    assert found.document() == scored(make("b")).document()


def test_blocks_that_are_done_again_count_once(make):
    assert_retry_equals_once(make("again"), make("once"))


def test_what_is_counted_is_part_of_the_run_and_what_is_scored_is_not(make, tmp_path):
    ones = make_volume(tmp_path, "one", np.ones(SHAPE, "uint8"))
    tasks = [make(), make(ignore=[7]), make(metric_masks=[ones]), make(mask=ones),
             make(margin=[1, 0, 0])]
    identities = [task.identity() for task in tasks]
    assert all(a != b for n, a in enumerate(identities) for b in identities[:n])
    same = make(iou=[0.3], min_voxels=5, matching="overlap", border="leave-out", size_bounds=[3],
                raw=ones, num_workers=3)
    assert same.identity() == identities[0]


def test_memory_is_that_of_a_block_and_not_of_the_volume(make, monkeypatch):
    read = []
    task = make(block_shape=(4, 6, 9))
    original = Volume.read
    monkeypatch.setattr(Volume, "read", lambda self, box, **o: read.append(box.size) or
                        original(self, box, **o))
    score(task, count_here(task, task.grid().blocks()))
    assert max(read) == 4 * 6 * 9


# -- regions and masks --------------------------------------------------------------------


def test_a_metric_mask_of_other_voxels_and_ignored_ids_leave_voxels_out(make, tmp_path):
    coarse = np.random.default_rng(5).random((5, 10, 8)) < 0.7
    metric = make_volume(tmp_path, "metric", coarse.astype("uint8"), voxels=(2, 2, 3))
    inside = coarse.repeat(2, 0).repeat(2, 1).repeat(3, 2)[:9]
    ignored = int(TRUTH[TRUTH > 0][40])
    found = scored(make(metric_masks=[metric], ignore=[ignored]))
    truth, prediction = shared(TRUTH, True), shared(PREDICTION, False)
    known = shared(inside, False) & (truth != ignored)
    whole = slow(prediction, np.where(truth == ignored, 0, truth), known)
    # Objects that are mostly unknown are no errors, but those that match are as before.
    assert found.scores[0].tp == whole[0] and sum(found.left_out.values()) > 0
    assert found.scores[0].fp <= whole[1] and found.scores[0].fn <= whole[2]
    both = (prediction > 0) & (truth > 0) & known
    assert found.voxels.recall == both.sum() / ((truth > 0) & known).sum()
    assert ignored not in found.truth.id


def test_beyond_the_specimen_there_are_no_objects(make, tmp_path):
    tissue = np.ones(SHAPE, "uint8")
    tissue[:, :, 12:] = 0
    path = make_volume(tmp_path, "tissue", tissue)
    volumes = (np.where(shared(tissue, False), shared(v, is_truth), 0)
               for v, is_truth in ((PREDICTION, False), (TRUTH, True)))
    found = scored(make(mask=path))
    assert counts(found) == slow(*volumes) and sum(found.left_out.values()) == 0
    # Workers leave out blocks without specimen.
    task = make("b", mask=path, block_shape=(4, 6, 4))
    assert run(task).blocks["masked"] > 0
    with store_of(task) as store:
        blocks = [task.grid().block(index) for index in store.indices(DONE)]
    assert score(task, task.stored(blocks)).document() == found.document()


def test_a_roi_and_a_margin_are_cut_out(make):
    roi = FRAME.to_roi(Box((3, 4, 4), (4, 50, 6)))
    found = scored(make(roi={"offset": roi.offset, "shape": roi.shape}))
    box = np.s_[3:7, 4:20, 4:10]
    truth = TRUTH[1:5, 1:17, 5:11]
    assert counts(found) == slow(PREDICTION[box], truth)
    found = scored(make(roi={"offset": roi.offset, "shape": roi.shape}, margin=[1, 2, 1]))
    assert counts(found) == slow(PREDICTION[box][1:-1, 2:-2, 1:-1], truth[1:-1, 2:-2, 1:-1])
    np.testing.assert_allclose(found.frame.offset, (400 + 4 * 40, 46 + 6 * 4.6, 9.2 + 5 * 4.6))


def test_a_prediction_of_larger_voxels_is_compared_at_those_of_truth(make, tmp_path):
    coarse = PREDICTION[:, :9, :7]
    path = make_volume(tmp_path, "coarse", coarse, (-1, 2, 1), (1, 2, 3))
    truth = make_volume(tmp_path, "fine", TRUTH)
    fine = coarse.repeat(2, 1).repeat(3, 2)
    found = scored(make(prediction=path, truth=truth))
    assert counts(found) == slow(fine[1:, :18, :21], TRUTH[:8, 2:20, 1:22])


def test_marks_of_cremi_are_background_and_unknown(make, tmp_path):
    truth = np.where(TRUTH == 0, np.uint64(2**64 - 1), TRUTH)
    truth[4] = 2**64 - 2
    with h5py.File(tmp_path / "f.h5", "w") as file:
        for name, values in (("p", PREDICTION), ("t", truth), ("signed", truth.astype(np.int64))):
            file[name] = values
    documents = []
    for name in ("t", "signed"):
        found = scored(make(prediction=f"{tmp_path}/f.h5:p", truth=f"{tmp_path}/f.h5:{name}"))
        documents.append(found.document())
        assert found.voxels.recall == ((PREDICTION > 0) & (TRUTH > 0))[np.arange(9) != 4].sum() / (
            TRUTH[np.arange(9) != 4] > 0).sum()
    assert documents[0] == documents[1]


# -- what is refused ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"iou": []}, "iou"),
        ({"iou": [0]}, "iou.*0"),
        ({"iou": [1.5]}, "iou"),
        ({"size_bounds": [9, 4]}, "sizes must rise, got 9, 4"),
        ({"margin": [5, 0, 0]}, r"Nothing is left of \(7, 17, 23\) voxels"),
        ({"min_voxels": 0}, "min_voxels"),
        ({"border": "drop"}, "border"),
    ],
)
def test_a_wrong_choice_is_refused(make, options, words):
    with pytest.raises(ConfigError, match=words):
        make(**options).grid()


def test_volumes_that_hold_no_ids_are_refused(make, tmp_path):
    for values, words in (
        (PREDICTION.astype("float32"), "one integer id per voxel"),
        (np.stack([PREDICTION] * 2), "one integer id per voxel"),
        (np.where(PREDICTION > 0, -7, 0), "holds the id -7 at voxel"),
    ):
        path = make_volume(tmp_path, f"odd{values.ndim}{values.dtype}", values)
        with pytest.raises(ConfigError, match=words):
            make(prediction=path).check()
    two = make_volume(tmp_path, "two", np.zeros((2, *SHAPE), "uint8"))
    with pytest.raises(ConfigError, match="has 2 channels; a mask is one array"):
        make(metric_masks=[two]).check()
    with pytest.raises(ConfigError, match="has 2 channels, but the pictures show"):
        make(raw=two).check()


def test_volumes_that_do_not_fit_are_refused(make, tmp_path):
    odd = make_volume(tmp_path, "odd", PREDICTION, voxels=(1, 1.5, 1))
    with pytest.raises(ConfigError, match="voxels can only be compared one by one"):
        make(prediction=odd).grid()
    half = {"path": make_volume(tmp_path, "half", PREDICTION), "offset": [420.0, 46.0, 9.2]}
    with pytest.raises(GeometryError, match="do not lie on one grid"):
        make(prediction=half).grid()


def test_masks_that_exclude_everything_are_refused(make, tmp_path):
    empty = make_volume(tmp_path, "empty", np.zeros(SHAPE, "uint8"))
    with pytest.raises(ConfigError, match=r"No voxel of .* counts: 2737 were compared"):
        scored(make(metric_masks=[empty]))


def test_a_roi_needs_a_place(make, tmp_path):
    with h5py.File(tmp_path / "f.h5", "w") as file:
        file["a"] = PREDICTION
    path = f"{tmp_path}/f.h5:a"
    with pytest.raises(ConfigError, match="the ROI, which is in nm, cannot be placed"):
        make(prediction=path, truth=path,
             roi={"offset": [0, 0, 0], "shape": [1, 1, 1]}).grid()
