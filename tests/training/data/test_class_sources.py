"""Sources of annotated classes: what is known where, in one frame with raw."""

import json

import numpy as np
import pytest

from em_blocks.errors import ConfigError, GeometryError, VolumeError
from em_blocks.geometry import Frame
from em_blocks.models.setup import Setup
from em_blocks.models.sources import DataSource
from em_blocks.training.data.needs import check_volumes
from em_blocks.training.data.sources import describe, open_source, open_sources
from em_blocks.training.identity import differences, portable_config
from em_blocks.volumes import Volume
from tiny_setup import tiny_config, write_setup

SIZE = (40.0, 4.6, 4.6)
RAW, INNER = Frame(SIZE, (400.0, 46.0, 9.2)), Frame(SIZE, (440.0, 55.2, 9.2))
RNG = np.random.default_rng(8)
IMAGE = RNG.integers(0, 256, (6, 12, 10)).astype("u1")
IDS = RNG.integers(0, 5, (4, 8, 10)).astype("u2")


def stored(path, values, frame):
    volume = Volume.create(
        str(path), shape=values.shape, dtype=values.dtype, frame=frame, chunk_shape=(2, 4, 4)
    )
    volume.write(volume.box, values)
    return str(path)


@pytest.fixture
def paths(tmp_path):
    return {
        "raw": stored(tmp_path / "raw", IMAGE, RAW), "ids": stored(tmp_path / "ids", IDS, INNER),
        "half": stored(tmp_path / "half", IDS[:, ::2, ::2], Frame((40, 9.2, 9.2), INNER.offset)),
        "tissue": stored(tmp_path / "tissue", (IMAGE > 99).astype("u1"), RAW),
        "counts": stored(tmp_path / "counts", (IDS > 1).astype("u1"), INNER),
    }


def source(paths, **more):
    mito = {"volume": paths["ids"], "ids": [3], "background": [4], "unpainted": "unknown"}
    return DataSource.from_dict({"raw": paths["raw"], "classes": {"mito": mito}} | more)


def opened(made, **options):
    [data] = open_source(made, SIZE, **options)
    return data


def state(ids):
    return np.select([ids == 3, ids == 4], [2, 1], 0)


def test_a_class_lies_where_its_volume_does_and_is_called_by_its_name(paths):
    data = opened(source(paths, name="cell 3", absent=["golgi"]))
    assert (data.name, data.begin, data.end) == ("cell 3", (1, 2, 0), (5, 10, 10))
    assert data.classes == {"mito", "golgi"}
    np.testing.assert_array_equal(data.raw[data.box], IMAGE[1:5, 2:10])
    np.testing.assert_array_equal(data.labels["mito"][data.box], state(IDS))
    assert (data.labels["golgi"][data.box] == 1).all()


def test_labels_half_as_fine_as_raw_are_read_at_its_voxels(paths):
    data = opened(source(paths, classes={"mito": {"volume": paths["half"]}}))
    doubled = IDS[:, ::2, ::2].repeat(2, axis=1).repeat(2, axis=2)
    assert (data.begin, data.end) == ((1, 2, 0), (5, 10, 10))
    np.testing.assert_array_equal(data.labels["mito"][data.box], np.where(doubled > 0, 2, 1))


def test_nothing_is_known_outside_of_the_specimen_neither_of_classes_nor_of_objects(paths):
    made = source(paths, labels=paths["ids"], specimen=paths["tissue"], absent=["golgi"])
    data, tissue = opened(made), IMAGE[1:5, 2:10] > 99
    np.testing.assert_array_equal(data.labels["mito"][data.box], np.where(tissue, state(IDS), 0))
    np.testing.assert_array_equal(data.labels["labels"][data.box], np.where(tissue, IDS, 0))
    np.testing.assert_array_equal(data.labels["golgi"][data.box], tissue)
    assert data.classes == {"mito", "golgi"} and not data.masks


def test_metric_masks_are_all_read_and_in_validation_only(paths):
    made = source(paths, metric_masks=[paths["counts"], paths["tissue"]])
    both = (IDS > 1) & (IMAGE[1:5, 2:10] > 99)
    data = opened(made, validation=True)
    np.testing.assert_array_equal(data.masks["metric"][data.box], both)
    assert opened(made).masks == {}


def test_a_region_must_have_classes_everywhere(paths):
    inside = {"offset": [440, 55.2, 18.4], "shape": [80, 18.4, 9.2]}
    data = opened(source(paths, rois=[inside]))
    assert (data.begin, data.end) == ((1, 2, 2), (3, 6, 4))
    with pytest.raises(GeometryError, match=r"\(0, 2, 2\) to .* not wholly covered .*\(1, 2, 0\)"):
        opened(source(paths, rois=[inside | {"offset": [400, 55.2, 18.4]}]))


def test_the_stated_voxel_size_is_checked_and_helps_where_metadata_say_none(paths, tmp_path):
    import zarr

    opened(source(paths, voxel_size=SIZE))
    with pytest.raises(GeometryError, match=r"4\.6, 4\.6\), but its source states \(40\.0, 4\.7"):
        opened(source(paths, voxel_size=[40, 4.7, 4.6]))
    zarr.open_array(str(tmp_path / "bare"), mode="w", shape=(6, 12, 10), dtype="u1")
    bare = {"raw": str(tmp_path / "bare"), "classes": None, "absent": ["mito"]}
    with pytest.raises(VolumeError, match="how large its voxels are"):
        opened(source(paths, **bare))
    assert opened(source(paths, **bare, voxel_size=SIZE)).raw.frame.voxel_size == SIZE


def test_labels_in_colours_are_refused_with_what_makes_ids_of_them(paths, tmp_path):
    painted = Volume.create(
        str(tmp_path / "painted"), shape=(6, 12, 10), dtype="u1", frame=RAW, channels=4,
        chunk_shape=(2, 4, 4),
    )
    with pytest.raises(ConfigError, match=r"\(4, 6, 12, 10\).*`em-blocks convert` with rgb_to_ids"):
        opened(source(paths, classes={"mito": {"volume": painted.path}}))


def head_setup(tmp_path, *sources):
    """A setup whose head learns the objects of two classes, as far as sources are concerned."""
    values = tiny_config() | {"voxel_size": SIZE}
    values["training"] |= {"sources": list(sources), "validation": list(sources)}
    return Setup.from_folder(write_setup(tmp_path / "setup", values)).config


class Learning:
    """What `open_sources` reads of a head of classes."""

    classes = ("mito", "golgi")
    needs = frozenset({"labels/mito", "labels/golgi"})


def learning(config):
    return config.model_copy(update={"heads": {"classes": Learning()}})


def test_a_class_that_a_source_does_not_name_is_unknown_there(paths, tmp_path):
    made = source(paths)
    config = learning(head_setup(tmp_path, made.model_dump(mode="json", exclude_none=True)))
    [data] = open_sources([made], config)
    assert (data.labels["golgi"][data.box] == 0).all() and data.classes == {"mito", "golgi"}
    with pytest.raises(ConfigError, match=r"\['golgi'\] among its `labels`.*learns them as classes"):
        open_sources([source(paths, labels={"golgi": paths["ids"]})], config)


def test_a_volume_is_ids_in_all_sources_or_a_class_in_all(paths, tmp_path):
    values = tiny_config() | {"voxel_size": SIZE}
    values["training"]["sampling"] = {"foreground": [{"label": "mito", "fraction": 0.1}]}
    config = Setup.from_folder(write_setup(tmp_path / "setup", values)).config
    both = [
        opened(source(paths, labels=paths["ids"])),
        opened(source(paths, classes=None, labels={"labels": paths["ids"], "mito": paths["ids"]})),
    ]
    with pytest.raises(ConfigError, match=r"'mito' is a class .* and ids of objects"):
        check_volumes(both, config, "sources")


@pytest.mark.parametrize(
    ("more", "message"),
    [
        ({"absent": ["mito"]}, r"\['mito'\] are in `classes` and in `absent`"),
        ({"labels": {"mito": "/ids"}}, r"\['mito'\] are names of `labels`"),
        ({"masks": {"metric": "/m"}}, "made of `metric_masks`"),
        ({"classes": {}}, "classes"),
        ({"classes": None}, "either both `raw` and `labels`"),
        ({"classes": {"mito": {"volume": "/v", "unpainted": "maybe"}}}, "unpainted"),
    ],
)
def test_names_and_meanings_are_unique(paths, more, message):
    with pytest.raises(ConfigError, match=message):
        source(paths, **more)


def test_what_is_known_is_the_identity_and_not_where_it_lies(paths, tmp_path):
    one = describe(opened(source(paths)))
    assert one["labels"] == ["mito"]
    assert describe(opened(source(paths)))["sha256"] == one["sha256"]
    other = {"mito": {"volume": paths["ids"], "ids": [3], "unpainted": "unknown"}}
    assert describe(opened(source(paths, classes=other)))["sha256"] != one["sha256"]
    made = source(paths, specimen=paths["tissue"], metric_masks=[paths["counts"]])
    said = made.model_dump(mode="json", exclude_none=True)
    values = tiny_config() | {"voxel_size": SIZE}
    values["training"] |= {"sources": [said], "validation": [said]}
    written = portable_config(Setup.from_folder(write_setup(tmp_path / "setup", values)))
    there = written["training"]["sources"][0]
    assert there["classes"]["mito"]["volume"] == there["raw"].replace("raw", "ids") == "../ids"
    assert (there["specimen"], there["metric_masks"]) == ("../tissue", ["../counts"])
    moved = json.loads(json.dumps(written).replace("../", "../elsewhere/"))
    assert differences({"config": written}, {"config": moved}) == ([], [])
    moved["training"]["sources"][0]["classes"]["mito"]["ids"] = [2]
    assert len(differences({"config": written}, {"config": moved}).deciding) == 1
