"""Data from which nothing could be learnt are refused before the first iteration."""

import numpy as np
import pytest
import zarr

from em_blocks.errors import ConfigError
from em_blocks.kernels.synapses.table import Synapses
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.review.checks import check_intensities, check_labels, check_synapses
from tiny_setup import synapse_config, tiny_config

VOXEL = np.array([40.0, 4.0, 4.0])  # of synapse_config
SHAPE, BEGIN, END = (9, 8, 7), (2, 3, 1), (8, 8, 5)


def data(labels, synapses=None, name="cube"):
    return TrainingData(name, np.zeros(SHAPE, np.uint8), {"labels": labels}, BEGIN, END, 1.0, synapses)


@pytest.fixture(params=["numpy", "zarr"])
def labels(request, tmp_path):
    """No label in the used box, some around it."""
    values = np.ones(SHAPE, np.uint64)
    values[2:8, 3:8, 1:5] = 0
    if request.param == "numpy":
        return values
    array = zarr.open_array(str(tmp_path / "a"), "w", shape=SHAPE, dtype="u8", chunks=(4, 3, 3))
    array[:] = values
    return array


def test_a_box_without_any_label_is_refused_and_named(labels):
    with pytest.raises(ConfigError, match=r"validation.*cube from \(2, 3, 1\) to \(8, 8, 5\)"):
        check_labels([data(np.ones(SHAPE)), data(labels)], "validation")


@pytest.mark.parametrize("voxel", [(2, 3, 1), (7, 7, 4), (5, 4, 3)])
def test_one_labelled_voxel_is_enough(labels, voxel):
    labels[voxel] = 2**63
    check_labels([data(labels)], "sources")


@pytest.fixture
def config(tmp_path):
    return SetupConfig.from_dict(synapse_config(tmp_path))


def sites(*voxels):
    post = np.array(voxels, float).reshape(-1, 3) * VOXEL
    return Synapses(id=np.arange(len(post)), post=post, pre=post + 1000)


def test_a_source_without_synapses_is_refused_where_heads_learn_them(config):
    both = [data(None, sites(BEGIN)), data(None, name="bare")]
    with pytest.raises(ConfigError, match=r"learn synapses, but bare of training\.validation has none"):
        check_synapses(both, config, "validation")


def test_sites_count_where_the_box_is_used_and_its_end_is_excluded(config):
    check_synapses([data(None, sites(BEGIN))], config, "sources")
    check_synapses([data(None, sites()), data(None, sites((7.9, 7.9, 4.9)))], config, "sources")
    for outside in (END, (1.9, 3, 1), (2, 3, 5)):
        with pytest.raises(ConfigError, match="no postsynaptic site lies in the used boxes"):
            check_synapses([data(None, sites(outside))], config, "sources")


def test_heads_that_learn_no_synapses_need_none(config):
    check_synapses([data(None)], SetupConfig.from_dict(tiny_config()), "sources")


# -- intensities -----------------------------------------------------------------------------


def setup(tmp_path, **values):
    found = tiny_config() | {"normalization": {"scale": 2 / 255, "shift": -1.0}} | values
    return SetupConfig.from_dict(found)


def raw_between(low, high):
    raw = np.linspace(low, high, SHAPE[2]).round().astype(np.uint8)
    return data(None)._replace(raw=np.broadcast_to(raw, SHAPE), begin=(0, 0, 0), end=SHAPE)


@pytest.mark.parametrize(("low", "high"), [(0, 255), (100, 180), (5, 20)])
def test_bytes_fit_a_setup_for_bytes_whatever_their_contrast(tmp_path, low, high):
    check_intensities([raw_between(low, high)], setup(tmp_path), "sources")


@pytest.mark.parametrize(
    ("low", "high", "values", "message"),
    [
        (0, 255, {"normalization": {"scale": 2 / 65535, "shift": -1.0}}, "they are -1 to -0.992"),
        (0, 255, {"normalization": {"scale": 2.0, "shift": -1.0}}, "they are -1 to 509"),
        (0, 255, {"normalization": {"scale": 2.0, "shift": -1.0}, "intensities": [0, 255]}, "to 509"),
        (0, 255, {"normalization": {"scale": 0.01, "shift": -9.0}, "intensities": [0, 255]}, "-9 to"),
        (0, 255, {"intensities": [0, 65535]}, "but the setup is for 0 to 65535"),
        (7, 7, {}, "teach nothing"),
    ],
)
def test_data_of_another_range_than_the_setup_is_for_are_refused(
    tmp_path, low, high, values, message
):
    both = [raw_between(0, 255)._replace(name="a"), raw_between(low, high)._replace(name="b")]
    with pytest.raises(ConfigError, match=message):
        check_intensities(both, setup(tmp_path, **values), "sources")


def test_only_the_used_box_is_looked_at(tmp_path):
    raw = np.zeros(SHAPE, np.uint8)
    raw[2:8, 3:8, 1:5] = np.arange(4) * 60
    check_intensities([data(None)._replace(raw=raw)], setup(tmp_path), "sources")
    with pytest.raises(ConfigError, match="from 0 to 0"):
        check_intensities(
            [data(None)._replace(raw=raw, begin=(0, 0, 5), end=SHAPE)], setup(tmp_path), "sources"
        )
