"""Choosing the fastest way of passing tiles through a network."""

import pytest
import torch

from em_blocks.nets.timing import Timed, Way, fastest, threads, time_ways

SMALL, LARGE, HUGE = (8, 16, 16), (8, 32, 32), (16, 64, 64)


class Machine:
    """A clock, and passes that take the time they are said to."""

    def __init__(self, seconds, noise=lambda n: 1.0, fails=()):
        self.now, self.passes = 0.0, []
        self._seconds, self._noise, self._fails = seconds, noise, fails

    def clock(self):
        return self.now

    def pass_of(self, way):
        def run():
            self.passes.append(way)
            self.now += self._seconds[way] * self._noise(len(self.passes))
            if way in self._fails:
                raise ArithmeticError("infinite")

        return run

    def time(self, ways, budget):
        return time_ways(ways, self.pass_of, lambda rate: budget, clock=self.clock)


def way(tile=SMALL, precision="fp32", batch=1):
    return Way(precision, tile, batch)


def test_speeds_are_in_output_voxels_per_second_in_the_order_of_the_ways():
    ways = [way(), way(LARGE), way(precision="bf16")]
    machine = Machine({ways[0]: 1.0, ways[1]: 2.0, ways[2]: 4.0})
    timed = machine.time(ways, 1000)
    assert [found.way for found in timed] == ways
    assert [found.voxels_per_s for found in timed] == pytest.approx([2048, 4096, 512])


def test_ways_alternate_so_that_what_else_a_machine_does_hits_all():
    ways = [way(), way(LARGE)]
    machine = Machine({ways[0]: 1.0, ways[1]: 2.0})
    machine.time(ways, 1000)
    assert machine.passes == ways * 8  # one to warm up, seven rounds


def test_a_pass_that_was_disturbed_does_not_decide():
    ways = [way(), way(LARGE)]
    disturbed = Machine({ways[0]: 1.0, ways[1]: 3.0}, noise=lambda n: 9.0 if n in (4, 6) else 1.0)
    assert fastest(disturbed.time(ways, 1000)).way == ways[1]


@pytest.mark.parametrize(
    ("budget", "tried"),
    # A first pass and two rounds of all: 4 + 2 * (1 + 4) s; 4 + 32 + 2 * (1 + 4 + 32) s.
    [(13.9, {SMALL}), (14, {SMALL, LARGE}), (109, {SMALL, LARGE}), (110, {SMALL, LARGE, HUGE})],
)
def test_only_ways_that_fit_the_budget_are_tried(budget, tried):
    ways = [way(), way(HUGE), way(LARGE)]
    machine = Machine({ways[0]: 1.0, ways[1]: 32.0, ways[2]: 4.0})
    assert {found.way.tile_shape for found in machine.time(ways, budget)} == tried
    assert machine.now <= 1 + budget


def test_without_a_budget_one_pass_is_all_it_costs():
    ways = [way(), way(LARGE)]
    machine = Machine({ways[0]: 1.0, ways[1]: 4.0})
    assert [found.way for found in machine.time(ways, 0.5)] == ways[:1]
    assert machine.passes == ways[:1]


def test_the_budget_is_asked_with_the_speed_of_the_usual_way():
    asked = []
    machine = Machine({way(): 0.5, way(LARGE): 1.0})
    time_ways([way(), way(LARGE)], machine.pass_of, lambda rate: asked.append(rate) or 0.0,
              clock=machine.clock)
    assert asked == [pytest.approx(4096)]


def test_a_precision_that_cannot_hold_the_values_is_left_out():
    ways = [way(), way(precision="fp16")]
    machine = Machine({ways[0]: 1.0, ways[1]: 0.1}, fails={ways[1]})
    assert [found.way for found in machine.time(ways, 1000)] == ways[:1]


@pytest.mark.parametrize(
    ("other", "speed", "chosen"),
    [
        (way(precision="bf16"), 1.04, False), (way(precision="bf16"), 1.06, True),
        (way(LARGE), 1.01, False), (way(LARGE), 1.03, True),
        (way(LARGE, "bf16"), 1.06, False), (way(LARGE, "bf16"), 1.08, True),
        (way(batch=4), 1.001, True), (way(batch=4), 0.999, False),
    ],
)
def test_full_precision_and_the_usual_tile_are_kept_where_others_gain_next_to_nothing(
    other, speed, chosen
):
    found = fastest([Timed(way(), 1000.0), Timed(other, 1000.0 * speed)])
    assert (found.way == other) is chosen


def test_torch_has_the_threads_of_a_worker_only_meanwhile():
    before = torch.get_num_threads()
    with threads(before + 1):
        assert torch.get_num_threads() == before + 1
    assert torch.get_num_threads() == before
