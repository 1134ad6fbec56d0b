"""Recipes of trainings: which one, and how long it takes."""

import pytest

from em_blocks.models.network_plan import plan_network
from em_blocks.training.review.recipe import (
    Machine,
    augment_of,
    recipe_for,
    seconds_per_iteration,
    time_text,
)

CORES, GPU = Machine("cpu", 8, "fp32", 2), Machine("cuda", 24, "bf16", 16)
THICK, CUBES = (50.0, 9.2, 9.2), (8.0, 8.0, 8.0)


def plan(size, machine):
    return plan_network(
        size, (12, 1024, 1024), memory_gb=machine.memory_gb, device=machine.device
    )


def test_the_recipe_depends_on_sections_only_without_a_gpu():
    assert recipe_for(THICK, CORES).loss["kind"] == "ce_dice"
    assert recipe_for(CUBES, CORES).loss is None
    assert recipe_for(THICK, GPU) == recipe_for(CUBES, GPU)
    assert [recipe_for(CUBES, machine).most_batch for machine in (CORES, GPU)] == [1, 4]


def test_an_iteration_takes_what_was_measured_on_two_cores_and_less_on_more():
    flat = plan(THICK, CORES)
    assert seconds_per_iteration(flat, 2, CORES) == pytest.approx(0.31, rel=0.05)
    four = seconds_per_iteration(flat, 2, CORES._replace(cores=4))
    assert four == seconds_per_iteration(flat, 1, CORES)
    assert seconds_per_iteration(plan(THICK, GPU), 2, GPU) is None


def test_control_points_are_pixels_apart_and_thick_sections_do_not_bend():
    flat = augment_of(recipe_for(THICK, CORES), THICK)
    assert flat["control_point_nm"] == [368.0, 368.0, 368.0]
    assert flat["jitter_nm"] == [0.0, 23.0, 23.0] and flat["missing_sections"] == 0.01
    cubes = augment_of(recipe_for(CUBES, GPU), CUBES)
    assert cubes["control_point_nm"] == [256.0] * 3 and cubes["jitter_nm"] == [16.0] * 3
    assert "missing_sections" not in cubes


@pytest.mark.parametrize(("seconds", "text"), [
    (3, "1 min"), (2790, "46 min"), (7140, "119 min"), (7200, "2.0 h"),
])  # fmt: skip
def test_times_are_minutes_or_hours(seconds, text):
    assert time_text(seconds) == text
