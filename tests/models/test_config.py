"""What a setup's config may say, and what is refused before anything is opened."""

import numpy as np
import pytest

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.models.schedules import scheduled
from tiny_setup import synapse_config, tiny_config


def config(**training):
    values = tiny_config()
    values["training"] |= training
    return SetupConfig.from_dict(values)


def schedule(value):
    return config(reject_probability=value).training.reject_probability


@pytest.mark.parametrize("value", [0, 0.25, 1])
def test_a_number_holds_for_the_whole_training(value):
    assert {scheduled(schedule(value), i) for i in (0, 1, 10**6)} == {float(value)}


def test_a_schedule_is_linear_between_its_points_and_constant_beyond():
    points = schedule([[100, 0.9], [200, 0.5], [600, 0.7]])
    found = [scheduled(points, i) for i in (0, 100, 150, 200, 300, 600, 10**6)]
    np.testing.assert_allclose(found, [0.9, 0.9, 0.7, 0.5, 0.55, 0.7, 0.7])
    assert scheduled(schedule([[7, 0.3]]), 0) == scheduled(schedule([[7, 0.3]]), 9) == 0.3


@pytest.mark.parametrize(("value", "message"), [
    ([[0, 0.9], [0, 0.5]], r"iterations of \[iteration, value\] are \[0, 0\], but must rise"),
    ([[0, 0.9], [20, 0.5], [10, 0.1]], r"are \[0, 20, 10\], but must rise"),
    ([], "at least 1 item"),
    ([[0, 1.5]], "less than or equal to 1"),
    ([[-1, 0.5]], "greater than or equal to 0"),
    ([[0]], "missing"),
    (1.5, "less than or equal to 1"),
    ("often", "valid number"),
])
def test_a_schedule_that_cannot_be_meant_is_refused(value, message):
    with pytest.raises(ConfigError, match=message) as error:
        schedule(value)
    assert "reject_probability" in str(error.value) and "\n" not in str(error.value)


def test_a_config_with_schedules_survives_being_stored():
    values = config(reject_probability=[[0, 0.9], [5, 0.5]])
    assert SetupConfig.from_dict(values.model_dump(mode="json")) == values


@pytest.mark.parametrize(("head", "key", "value"), [
    ("indicator", "rarest", 0), ("indicator", "rarest", 0.6), ("indicator", "loss", "hinge"),
    ("indicator", "channels", 2), ("indicator", "radius_nm", 0), ("direction_vectors", "unit_nm", 0),
    ("direction_vectors", "channels", 1), ("direction_vectors", "activation", "sigmoid"),
    ("direction_vectors", "balance", 1),
])
def test_a_head_of_synapses_that_cannot_be_meant_is_refused(tmp_path, head, key, value):
    values = synapse_config(tmp_path)
    SetupConfig.from_dict(values)
    values["heads"][head][key] = value
    with pytest.raises(ConfigError, match=f"{head}.*{key}"):
        SetupConfig.from_dict(values)


def test_a_phantom_brings_its_own_synapses():
    source = {"phantom": {"shape": [8, 8, 8], "seed": 1}, "synapses": "pairs.csv"}
    with pytest.raises(ConfigError, match="leave `synapses` out"):
        config(sources=[source])


def heads(head):
    return SetupConfig.from_dict(tiny_config() | {"heads": {"sign": head}}).heads


@pytest.mark.parametrize(("head", "message"), [
    ({"kind": "odd"}, r"'heads\.sign': .*one of affinities, lsd, indicator, direction_vectors"),
    ("lsd", r"'heads\.sign': got 'lsd'"),
    ({"kind": "lsd", "loss": {"kind": "hinge"}}, r"'heads\.sign\.loss': .*one of balanced_bce, bce"),
    ({"kind": "lsd", "loss": {"kind": "mse", "margin": 1}}, r"'heads\.sign\.loss\.margin' is unknown"),
    ({"kind": "indicator", "loss": {"kind": "focal", "gamma": -1}}, r"'heads\.sign\.loss\.gamma'"),
])
def test_a_head_or_loss_that_cannot_be_meant_is_refused_with_those_that_there_are(head, message):
    with pytest.raises(ConfigError, match=message):
        heads(head)


def test_a_head_without_a_kind_is_one_of_affinities_and_defaults_that_came_later_leave_no_trace():
    affinities = {"channels": 1, "neighborhood": [[0, 0, -1]]}
    dumped = heads(affinities)["sign"].model_dump(mode="json")
    assert dumped == affinities | {"kind": "affinities", "activation": "sigmoid", "boundary": [0, 0, 0]}
    chosen = affinities | {"loss": {"kind": "dice", "smooth": 2.0}, "weight": 3.0}
    assert heads(chosen)["sign"].model_dump(mode="json") == dumped | chosen


def test_joint_scores_are_those_that_suit_the_heads_unless_the_config_lists_some(tmp_path):
    values = synapse_config(tmp_path)
    (usual,) = SetupConfig.from_dict(values).joint_scores()
    assert (usual.kind, usual.head_names()) == ("partners", ["indicator", "direction_vectors"])
    assert SetupConfig.from_dict(values | {"scores": []}).joint_scores() == ()
    assert SetupConfig.from_dict(tiny_config()).joint_scores() == ()
    listed = {"kind": "partners", "thresholds": [0.25]}
    (score,) = SetupConfig.from_dict(values | {"scores": [listed]}).joint_scores()
    assert score.thresholds == (0.25,)
    with pytest.raises(ConfigError, match=r"reads the heads \['nowhere'\], but there are"):
        SetupConfig.from_dict(values | {"scores": [listed | {"vectors": "nowhere"}]})


def test_what_is_kept_leaves_no_trace_unless_it_is_chosen_and_must_be_saved_at_all():
    assert "keep" not in config().training.model_dump()
    chosen = config(checkpoint_every=20, keep={"every": 60, "best": 3}).training
    assert chosen.model_dump(mode="json")["keep"] == {"last": 2, "every": 60, "best": 3}
    with pytest.raises(ConfigError, match=r"`keep\.every` is 50.*every 20 iterations"):
        config(checkpoint_every=20, keep={"every": 50})
