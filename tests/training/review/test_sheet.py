"""Contact sheets show what is annotated, and where nothing is known."""

import numpy as np

from em_blocks.training.data.sources import TrainingData
from em_blocks.training.review.sheet import OUTLINE, contact_sheet
from em_blocks.training.review.table import crop_of

SHAPE = (8, 420, 420)


def sheet(states):
    raw = np.random.default_rng(1).integers(100, 120, SHAPE).astype("u1")
    data = TrainingData(
        "crop", raw, {"mito": states}, (0, 0, 0), SHAPE, 1.0, classes=frozenset({"mito"})
    )
    return contact_sheet(data, crop_of(data, "sources")).astype(int)


def test_objects_are_outlined_in_three_sections_and_the_unknown_is_darker():
    states = np.ones(SHAPE, "u1")
    states[2:7, 100:200, 100:200] = 2
    known = sheet(states)
    states[:, 300:] = 0
    partly = sheet(states)
    assert known.shape[1] > 2 * 420 and known.shape[0] > 3 * 420
    near = np.abs(known - OUTLINE).sum(axis=-1) < 30
    assert 3 * 4 * 90 < near.sum() < 3 * 4 * 110
    darker = (partly.sum(axis=-1) < known.sum(axis=-1) - 30).sum()
    assert 0.8 < darker / (3 * 120 * 420) < 1.05
