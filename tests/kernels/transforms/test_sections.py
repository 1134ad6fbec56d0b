"""Defects of serial sections: places, bands and grey values."""

import numpy as np
import pytest

from em_blocks.kernels.transforms.sections import change_grey, draw_moves, missing_part


def moves(seed, n=8, removed=0, largest=(5, 9)):
    return draw_moves(np.random.default_rng(seed), n, removed=removed, largest=largest)


def test_sections_are_lost_once_between_two_of_the_sample():
    gaps = set()
    for seed in range(60):
        made = moves(seed, removed=2, largest=(0, 0))
        steps = np.diff(made.source)
        assert made.source[0] == 0 and sorted(steps) == [1] * 6 + [3] and made.moves
        gaps.add(int(steps.argmax()))
    assert gaps == set(range(7))


def test_one_section_or_all_from_one_on_are_shifted_by_at_most_the_largest_shift():
    shifted = [moves(seed).shift for seed in range(200)]
    runs = [np.flatnonzero(shift.any(axis=1)) for shift in shifted]
    assert {len(run) for run in runs if len(run)} >= {1, 3, 7}
    for shift, run in zip(shifted, runs, strict=True):
        if len(run):
            assert (np.diff(run) == 1).all() and (shift[run] == shift[run[0]]).all()
            assert 0 not in run and (len(run) == 1 or run[-1] == 7)
    every = np.concatenate(shifted)
    assert (every.min(axis=0).tolist(), every.max(axis=0).tolist()) == ([-5, -9], [5, 9])


def test_nothing_moves_in_a_single_section_or_without_reason():
    assert not moves(1, n=1, removed=2).moves
    assert not any(moves(seed, largest=(0, 0)).moves for seed in range(20))


def test_a_missing_part_is_a_band_of_its_width_across_the_section():
    bands = [missing_part(np.random.default_rng(seed), (80, 120), half_width=6) for seed in range(50)]
    for band in bands:
        ends = np.concatenate([band[0], band[-1], band[:, 0], band[:, -1]])
        assert ends.any() and not band.all()
    straight = max(bands, key=np.count_nonzero)
    assert straight.sum() == pytest.approx(12 * np.hypot(80, 120), rel=0.25)
    assert len({band.tobytes() for band in bands}) == 50


def test_grey_values_change_around_their_mean_within_the_limits():
    section = np.random.default_rng(0).random((30, 30)).astype(np.float32)
    off = {"contrast": 0, "brightness": 0, "gamma": 0}
    scales, shifts = [], []
    for seed in range(100):
        rng = np.random.default_rng(seed)
        scales.append(change_grey(rng, section, **off | {"contrast": 0.3}).std() / section.std())
        shifts.append((change_grey(rng, section, **off | {"brightness": 0.2}) - section).mean())
    assert 0.7 < min(scales) < 0.75 and 1.25 < max(scales) < 1.3
    assert -0.2 < min(shifts) < -0.18 and 0.18 < max(shifts) < 0.2
    same = change_grey(np.random.default_rng(0), section, **off)
    np.testing.assert_allclose(same, section, atol=1e-6)


def test_gamma_is_a_power_of_the_clipped_values():
    section = np.full((4, 4), 0.25, np.float32)
    options = {"contrast": 0, "brightness": 0, "gamma": np.log(2)}
    changed = [change_grey(np.random.default_rng(seed), section, **options) for seed in range(200)]
    powers = [np.log(values[0, 0]) / np.log(0.25) for values in changed]
    assert min(powers) == pytest.approx(0.5, abs=0.02) and max(powers) == pytest.approx(2, abs=0.05)
