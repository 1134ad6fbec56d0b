"""All that is wrong with the data of a training is told at once, before it starts."""

import numpy as np
import pytest

from em_blocks.errors import ConfigError, EmBlocksError, GeometryError
from em_blocks.geometry import Frame
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.sources import classes_of
from em_blocks.training.review.problems import check_classes, inspect_data, open_data
from em_blocks.volumes import Volume
from tiny_setup import PHANTOM, tiny_config

SIZE = (10.0, 10.0, 10.0)


def stored(path, values):
    volume = Volume.create(
        str(path), shape=values.shape, dtype=values.dtype, frame=Frame(SIZE), chunk_shape=(4, 4, 4)
    )
    volume.write(volume.box, values)
    return str(path)


@pytest.fixture
def good(tmp_path):
    rng = np.random.default_rng(1)
    return {
        "raw": stored(tmp_path / "raw", rng.integers(0, 255, (4, 9, 9)).astype("u1")),
        "labels": stored(tmp_path / "ids", rng.integers(0, 3, (4, 9, 9)).astype("u1")),
    }


def config(sources, validation=({"phantom": PHANTOM},)):
    values = tiny_config()
    values["training"] |= {"sources": list(sources), "validation": list(validation)}
    return SetupConfig.from_dict(values)


CLAHE = {"method": "CLAHE", "kernel_shape": [1, 128, 128], "clip_limit": 0.02,
         "value_range": [0.0, 255.0]}


@pytest.mark.parametrize("attribute", [None, CLAHE, {**CLAHE, "clip_limit": 0.01}])
def test_raw_of_another_contrast_than_the_setup_states_is_refused(good, attribute):
    if attribute is not None:
        Volume.open(good["raw"]).set_attributes(equalized=attribute)
    anything = config([good])
    open_data(anything)
    stated = anything.model_copy(update={"equalized": CLAHE})
    if attribute == CLAHE:
        assert open_data(stated)
        return
    words = "says of no equalisation" if attribute is None else "equalised with clip_limit 0.01"
    with pytest.raises(ConfigError, match=rf"raw, which .*{words}.*em-blocks equalize"):
        open_data(stated)


class Learning:
    """What the checks read of a head of classes."""

    classes = ("mito",)
    needs = frozenset({"labels/mito"})


def learning(*sources):
    made = config(sources)
    return made.model_copy(update={"heads": {"classes": Learning()}})


def test_errors_of_all_sources_and_of_the_validation_are_listed_together(good, tmp_path):
    dark = stored(tmp_path / "dark", np.zeros((4, 9, 9), "u1"))
    sources = [good | {"raw": "/nowhere"}, good, good | {"voxel_size": [1, 2, 3]}, good | {"raw": dark}]
    empty = stored(tmp_path / "empty", np.zeros((4, 9, 9), "u1"))
    with pytest.raises(
        ConfigError,
        match=r"4 errors\. \(1\).*/nowhere.*\(2\).*\(1\.0, 2\.0, 3\.0\).*\(3\).*dark.*\(4\).*"
        "validation: no voxel is labelled",
    ):
        open_data(config(sources, [good | {"labels": empty}]))


def test_a_single_error_stays_what_it_is_and_good_data_are_opened(good):
    with pytest.raises(GeometryError, match="states"):
        open_data(config([good, good | {"voxel_size": [1, 2, 3]}]))
    data, errors = inspect_data(config([good]))
    assert not errors and [len(found) for found in data] == [1, 1]
    assert data.sources[0].raw.shape == (4, 9, 9)


def test_validation_data_that_are_trained_on_are_warned_of(good, caplog):
    half, rest = good | {"end": [4, 9, 5]}, good | {"begin": [0, 0, 4]}
    open_data(config([half], [good | {"begin": [0, 0, 5]}]))
    assert not caplog.records
    open_data(config([half], [rest]))
    assert "20.0 % of the smaller box in common with" in caplog.text


def test_an_error_of_data_that_are_named_twice_is_said_once(good):
    lost = {"raw": good["raw"] + "_lost", "labels": good["labels"]}
    with pytest.raises(EmBlocksError) as one:
        open_data(config([lost], [lost]))
    assert "errors" not in str(one.value) and "_lost" in str(one.value)


def test_a_class_must_occur_and_something_else_too(good):
    def source(**more):
        return {"raw": good["raw"], "classes": {"mito": {"volume": good["labels"]} | more}}

    made = learning(source(), source(ids=[7]))
    check_classes(inspect_data(made)[0].sources, classes_of(made))  # it occurs in one of them
    for more, found in (
        ({"ids": [7]}, r"no source has a voxel of it: 0 voxels of the class and 324"),
        ({"unpainted": "unknown"}, "no source has a voxel that is certainly something else"),
    ):
        made = learning(source(**more))
        with pytest.raises(ConfigError, match=found):
            check_classes(inspect_data(made)[0].sources, classes_of(made))
    other = {"raw": good["raw"], "labels": good["labels"]}
    made = learning(other)
    with pytest.raises(ConfigError, match="'mito' is to be learnt, but no source"):
        check_classes(inspect_data(made)[0].sources, classes_of(made))
