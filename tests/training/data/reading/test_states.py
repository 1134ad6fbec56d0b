"""What is known of a class, from ids."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.errors import ConfigError
from em_blocks.models.sources import ClassLabels
from em_blocks.models.truth import BACKGROUND, OBJECT, UNKNOWN
from em_blocks.training.data.reading.states import (
    AllOf,
    ClassVoxels,
    Constant,
    Within,
    class_states,
)

IDS = np.array([[[0, 1, 2, 3, 255]]])


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({}, [1, 2, 2, 2, 2]),
        ({"unpainted": "unknown"}, [0, 2, 2, 2, 2]),
        ({"ids": [2, 255]}, [1, 1, 2, 1, 2]),
        ({"ids": [0]}, [2, 1, 1, 1, 1]),
        ({"ids": [2], "background": [0, 3], "unpainted": "unknown"}, [1, 0, 2, 1, 0]),
        ({"background": [3], "unpainted": "unknown"}, [0, 2, 2, 1, 2]),
    ],
)
def test_ids_become_what_the_config_says(said, expected):
    made = class_states(IDS, ClassLabels(volume="/v", **said))
    assert made.ravel().tolist() == expected and made.dtype == np.uint8


@given(
    hnp.arrays(np.uint16, (2, 3, 4), elements=st.integers(0, 5)),
    st.none() | st.sets(st.integers(0, 5), min_size=1), st.sets(st.integers(0, 5)),
    st.sampled_from(["background", "unknown"]),
)
def test_every_voxel_has_one_of_three_states_as_a_plain_loop_finds_it(ids, objects, others, rest):
    others -= objects or set()
    labels = ClassLabels(
        volume="/v", ids=None if objects is None else sorted(objects), background=sorted(others),
        unpainted=rest,
    )
    made = class_states(ids, labels)
    for id, state in zip(ids.ravel().tolist(), made.ravel().tolist(), strict=True):
        if id in others:
            assert state == BACKGROUND
        elif (id != 0) if objects is None else (id in objects):
            assert state == OBJECT
        else:
            assert state == (UNKNOWN if rest == "unknown" else BACKGROUND)


def test_an_id_cannot_be_the_class_and_background():
    with pytest.raises(ConfigError, match=r"\[3\] are both"):
        ClassLabels(volume="/v", ids=[3, 4], background=[3])


def test_nothing_is_known_outside_of_the_specimen_and_all_masks_must_agree():
    where = (slice(0, 1), slice(0, 1), slice(1, 5))
    painted = ClassVoxels(IDS, ClassLabels(volume="/v"))
    specimen = np.array([[[1, 1, 0, 7, 1]]])
    assert Within(painted, specimen)[where].ravel().tolist() == [2, 0, 2, 2]
    assert Constant(BACKGROUND, IDS.shape)[where].tolist() == [[[1, 1, 1, 1]]]
    both = AllOf([specimen, np.array([[[1, 1, 1, 0, 255]]])])
    assert both[where].ravel().tolist() == [1, 0, 0, 1] and both[where].dtype == np.uint8
