"""Data configs: incasem's JSON files and our own, as sources."""

import json

import pytest

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.models.data_config import DataConfig
from em_blocks.models.sources import ClassLabels
from tiny_setup import tiny_config

# The keys and forms of incasem's examples: voxels, absolute offsets, class ids.
INCASEM = {
    "cell_6_mito": {
        "file": "cell_6/cell_6.zarr",
        "offset": [400, 512, 1024],
        "shape": [250, 100, 300],
        "voxel_size": [5, 5, 5],
        "raw": "volumes/raw_equalized_0.02",
        "labels": {"volumes/labels/mito": 1, "volumes/labels/er": 2},
        "mask": "volumes/mask",
        "metric_masks": ["volumes/metric_masks/mito", "volumes/metric_masks/er"],
    },
    "cell_6_empty": {
        "file": "cell_6/cell_6.zarr",
        "offset": [0, 0, 0],
        "shape": [204, 204, 204],
        "voxel_size": [5, 5, 5],
        "raw": "volumes/raw_equalized_0.02",
    },
}
NAMES = {"1": "mito", "2": "er"}


def written(folder, values):
    path = folder / "data.json"
    path.write_text(values if isinstance(values, str) else json.dumps(values))
    return path


def sources(home, values, **more):
    written(home, values)
    return DataConfig.from_dict({"data": "data.json", **more}, folder=home).sources()


def one(folder, **changes):
    entry = {key: v for key, v in (INCASEM["cell_6_mito"] | changes).items() if v is not None}
    [made] = sources(folder, {"a": entry}, classes=NAMES)
    return made


def test_a_file_of_incasem_loads_unchanged(tmp_path):
    mito, empty = sources(tmp_path, INCASEM, classes=NAMES, folder="/data")
    container = "/data/cell_6/cell_6.zarr/volumes"
    assert (mito.name, mito.raw) == ("cell_6_mito", f"{container}/raw_equalized_0.02")
    assert mito.classes == {
        "mito": ClassLabels(volume=f"{container}/labels/mito"),
        "er": ClassLabels(volume=f"{container}/labels/er"),
    }
    assert mito.specimen == f"{container}/mask"
    assert mito.metric_masks == (
        f"{container}/metric_masks/mito", f"{container}/metric_masks/er"
    )
    [roi] = mito.rois
    assert (roi.offset, roi.shape) == ((2000, 2560, 5120), (1250, 500, 1500))  # nm
    assert mito.voxel_size == (5, 5, 5)
    assert mito.weight / empty.weight == 250 * 100 * 300 / 204**3  # by volume
    assert (empty.classes, empty.absent) == (None, ("mito", "er"))


def test_names_of_classes_may_be_left_out_where_there_are_labels(tmp_path):
    [made] = sources(tmp_path, {"a": INCASEM["cell_6_mito"]})
    assert list(made.classes) == ["class_1", "class_2"]
    with pytest.raises(ConfigError, match=r"'cell_6_empty' has no `labels`"):
        sources(tmp_path, INCASEM)


def test_paths_count_from_the_folder_of_the_file_and_hdf5_has_data_sets(tmp_path):
    assert one(tmp_path).raw.startswith(f"{tmp_path}/cell_6/cell_6.zarr/")
    assert one(tmp_path, file=None).raw == f"{tmp_path}/volumes/raw_equalized_0.02"
    assert one(tmp_path, file="a.h5").raw == f"{tmp_path}/a.h5:volumes/raw_equalized_0.02"


def test_own_keys_say_what_is_unknown_absent_and_how_much_it_weighs(tmp_path):
    er = {"name": 2, "ids": [7], "background": [1], "unpainted": "background"}
    made = one(
        tmp_path, unpainted="unknown", absent=["golgi"], weight=2.5, normalization="dtype",
        labels={"volumes/mito": "mito", "volumes/er": er},
    )
    ids, rest = made.classes["er"], made.classes["mito"]
    assert (ids.ids, ids.background, ids.unpainted) == ((7,), (1,), "background")
    assert (rest.ids, rest.unpainted, made.absent) == (None, "unknown", ("golgi",))
    assert (made.weight, made.normalization) == (2.5, "dtype")


def test_a_data_set_may_have_several_regions(tmp_path):
    rois = [{"offset": [1, 2, 3], "shape": [10, 20, 30]}, {"offset": [-4, 0, 0], "shape": [1, 1, 1]}]
    made = one(tmp_path, offset=None, shape=None, rois=rois, voxel_size=[40, 4.6, 4.6])
    assert [roi.offset for roi in made.rois] == [(40, 9.2, 3 * 4.6), (-160, 0, 0)]
    assert made.weight == 6001


def test_everything_wrong_in_a_file_is_named_at_once(tmp_path):
    wrong = json.loads(json.dumps(INCASEM))
    del wrong["cell_6_mito"]["voxel_size"], wrong["cell_6_empty"]["shape"]
    wrong["cell_6_empty"]["lables"] = {}
    with pytest.raises(ConfigError) as caught:
        sources(tmp_path, wrong, classes=NAMES)
    text = str(caught.value)
    assert "cell_6_mito.voxel_size" in text and "cell_6_empty.lables" in text
    with pytest.raises(ConfigError, match="both `offset` and `shape`, or `rois`"):
        one(tmp_path, shape=None)
    with pytest.raises(ConfigError, match="two label volumes of 'a' are of the class 'mito'"):
        one(tmp_path, labels={"a": 1, "b": "mito"})


def test_a_nickname_that_is_there_twice_is_refused(tmp_path):
    entry = json.dumps(INCASEM["cell_6_empty"])
    with pytest.raises(ConfigError, match=r"the keys \['a'\] twice"):
        sources(tmp_path, f'{{"a": {entry}, "a": {entry}}}', classes=NAMES)


def test_a_setup_names_a_data_config_instead_of_sources(tmp_path):
    written(tmp_path, INCASEM)
    values = tiny_config()
    values["training"]["sources"] = {"data": "data.json", "classes": NAMES}
    training = SetupConfig.from_dict(values, folder=tmp_path).training
    assert [source.name for source in training.sources] == list(INCASEM)
    values["training"]["sources"] = {"data": "nowhere.json"}
    with pytest.raises(ConfigError, match=r"nowhere\.json cannot be read"):
        SetupConfig.from_dict(values, folder=tmp_path)
    values["training"]["sources"] = {"file": "data.json"}
    with pytest.raises(ConfigError, match="'file' is unknown"):
        SetupConfig.from_dict(values, folder=tmp_path)
