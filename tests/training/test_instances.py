"""Trainings of instances, in which 0 is background, from stored volumes that are annotated in part."""

import json

import gunpowder as gp
import numpy as np
import pytest
import zarr

from em_blocks.errors import ConfigError
from em_blocks.models.setup import Setup
from em_blocks.training.data.sources import open_sources
from em_blocks.training.loading.stream import BatchStream
from em_blocks.training.review.checks import check_labels
from em_blocks.training.run import train
from em_blocks.training.scores.data_sets import DataSets
from em_blocks.training.scores.inference import truth_of_box
from tiny_setup import tiny_config, write_setup

SHAPE, SIZE, OFFSET = (12, 72, 72), [40.0, 4.6, 4.6], [80.0, 46.0, 92.0]
HEADS = {
    "foreground": {"kind": "foreground", "labels": "mito"},
    "contour": {"kind": "contour", "labels": "mito", "inwards_nm": 9.2},
    "distance": {"kind": "skeleton_distance", "labels": "mito", "context_nm": 23},
}


def write(folder, name, values):
    array = zarr.open_group(str(folder / "data.zarr"), "a").create_dataset(name, data=values)
    array.attrs.update(voxel_size=SIZE, offset=OFFSET)


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Raw with bright discs that touch, their ids, where they are annotated, and a specimen."""
    folder = tmp_path_factory.mktemp("instances")
    y, x = np.indices(SHAPE)[1:]
    ids = np.where(np.hypot(y % 18 - 9, x % 18 - 9) < 9, 1 + y // 18 + 4 * (x // 18), 0)
    noise = np.random.default_rng(3).integers(0, 60, SHAPE)
    write(folder, "raw", (100 + 90 * (ids > 0) + noise).clip(0, 255).astype(np.uint8))
    write(folder, "mito", (ids * 2**33).astype(np.uint64))
    write(folder, "none", np.zeros(SHAPE, np.uint8))
    write(folder, "left", (x < 50).astype(np.uint8))
    write(folder, "lower", (y >= 10).astype(np.uint8))
    return folder


def values_of(data, source=None, **training):
    path = f"{data}/data.zarr"
    values = tiny_config()
    one = {"raw": f"{path}/raw", "labels": {"mito": f"{path}/mito"}} | {
        key: {name: f"{path}/{volume}" for name, volume in volumes.items()}
        if isinstance(volumes, dict) else f"{path}/{volumes}"
        for key, volumes in (source or {}).items()
    }
    values |= {
        "voxel_size": SIZE, "heads": HEADS, "normalization": {"scale": 0.0078, "shift": -1.0},
    }
    values["training"] |= {
        "sources": [one], "validation": [one | {"end": [4, 48, 48]}],
        "augment": {"control_point_nm": [400, 100, 100], "jitter_nm": [0, 5, 5], "elastic": 0.3},
        "output_shape": [1, 16, 16], "iterations": 4, "score": "foreground/f1",
        "sampling": {"labelled": 0.9, "foreground": [{"label": "mito", "fraction": 0.2}]},
    } | training
    return values


def config_of(tmp_path, data, source=None, **training):
    return Setup.from_folder(write_setup(tmp_path / "setup", values_of(data, source, **training))).config


def batches(config, n=6):
    stream = BatchStream(config, open_sources(config.training.sources, config), (0, 4, 4))
    with gp.build(stream.graph):
        return [stream.batch(i) for i in range(n)]


def test_the_background_is_learnt_without_a_mask_and_counts_as_labelled(tmp_path, data):
    for batch in batches(config_of(tmp_path, data)):
        assert batch["foreground/mask"].all()
        [ids] = (sample.truth.labels["mito"] for sample in batch.samples)
        np.testing.assert_array_equal(batch["foreground/target"][0, 0], ids > 0)
        assert ((batch["distance/target"][0, 0] == -1) == (ids == 0)).all()
        assert (ids == 0).any() and (ids > 0).any()


@pytest.mark.parametrize(("source", "known"), [
    ({"masks": {"annotated": "left"}}, lambda y, x: x < 50),
    ({"specimen": "lower"}, lambda y, x: y >= 10),
    ({"specimen": "lower", "masks": {"annotated": "left"}}, lambda y, x: (x < 50) & (y >= 10)),
])
def test_only_what_is_annotated_and_of_the_specimen_is_known(tmp_path, data, source, known):
    config = config_of(tmp_path, data, source)
    [box] = open_sources(config.training.sources, config)
    truth = truth_of_box(box, config.voxel_size)
    wanted = known(*np.indices(SHAPE)[1:])
    np.testing.assert_array_equal(truth.masks["annotated"] > 0, wanted)
    made = config.heads["foreground"].targets(truth)
    np.testing.assert_array_equal(made["mask"][0] > 0, wanted)


def test_beyond_a_region_that_is_smaller_than_a_sample_nothing_is_known(tmp_path, data):
    region = {"offset": [80.0, 92.0, 138.0], "shape": [480.0, 46.0, 46.0]}  # 10 x 10 pixels
    values = values_of(data)
    values["training"]["sources"][0]["rois"] = [region]
    values["training"]["augment"]["elastic"] = 0
    config = Setup.from_folder(write_setup(tmp_path / "setup", values)).config
    for batch in batches(config):
        assert batch["foreground/mask"].sum() == 100
        assert batch["contour/mask"].sum() < 100


def test_samples_beyond_the_annotated_part_are_drawn_again(tmp_path, data):
    sampling = {"labelled": 0.0, "masked": {"annotated": 0.8}}
    config = config_of(tmp_path, data, {"masks": {"annotated": "left"}}, sampling=sampling)
    shares = [batch["foreground/mask"].mean() for batch in batches(config, 12)]
    assert min(shares) >= 0.8 and min(shares) < 1


def test_a_source_without_instances_is_learnt_from_if_it_is_annotated(tmp_path, data):
    config = config_of(tmp_path, data, {"labels": {"mito": "none"}})
    check_labels(open_sources(config.training.sources, config), "sources")
    values = values_of(data, {"labels": {"labels": "none"}})
    values["heads"] = {"lsd": {"kind": "lsd", "channels": 10}}
    config = Setup.from_folder(write_setup(tmp_path / "other", values | {"scores": []})).config
    with pytest.raises(ConfigError, match="no voxel is labelled"):
        check_labels(open_sources(config.training.sources, config), "sources")


def test_metric_masks_leave_out_background_too(tmp_path, data):
    values = values_of(data)
    values["training"]["validation"][0]["metric_masks"] = [f"{data}/data.zarr/left"]
    values["training"]["validation"][0]["end"] = list(SHAPE)
    values["heads"] = {"foreground": HEADS["foreground"]}
    config = Setup.from_folder(write_setup(tmp_path / "setup", values)).config
    sets = DataSets(config, open_sources(config.training.validation, config, validation=True))

    def wrong_on_the_right(part):
        ids, left = (volume[part.box] for volume in (part.labels["mito"], part.masks["metric"]))
        return {"foreground": np.where(left > 0, ids > 0, 1)[None].astype(np.float32)}

    found = sets.scores(sets.names[0], wrong_on_the_right).all()
    assert found["foreground/precision_metric"] == 1 > found["foreground/precision"] > 0.5


def test_a_network_of_three_heads_is_trained_and_scored(tmp_path, data):
    folder = write_setup(tmp_path / "setup", values_of(data))
    train(Setup.from_folder(folder), folder, "train", resume=False, go_on="")
    record = json.loads((folder / "checkpoints" / "record.json").read_text())
    last = record["history"][-1]
    assert last["iteration"] == 4
    assert {"foreground/f1", "contour/f1", "distance/mse", "instances/pq"} <= last.keys()
    assert all(np.isfinite(last[name]) for name in ("foreground/f1", "distance/mse"))
