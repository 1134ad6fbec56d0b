"""Who does which block next, with a clock that only moves when a test moves it."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.stateful import (
    RuleBasedStateMachine,
    initialize,
    invariant,
    precondition,
    rule,
)

from dispatching import Clock, Task, work
from em_blocks.runtime.scheduler import dispatch
from em_blocks.runtime.scheduler.block_times import LEAST_LIMIT_S
from em_blocks.runtime.scheduler.dispatch import ELSEWHERE_S, Dispatcher, Work, Worker

A, B, C = Worker("a", "host-1"), Worker("b", "host-1"), Worker("c", "host-2")


@pytest.fixture
def start():
    """Make a dispatcher with a clock, and workers that have joined."""
    opened = []

    def make(*works, workers=(A,)):
        clock = Clock()
        dispatcher = Dispatcher(works, clock)
        dispatcher.__enter__()
        opened.append(dispatcher)
        for worker in workers:
            dispatcher.join(worker)
        return dispatcher, clock

    yield make
    for dispatcher in opened:
        dispatcher.__exit__()


def patient_take(dispatcher, worker):
    """The next block. A step whose last blocks are masked passes over them only when it is asked."""
    found = (dispatcher.take(worker) for _ in dispatcher.progress)
    return next((key for key in found if key is not None), None)


def measured(dispatcher, clock, worker, n, seconds):
    """Do `n` blocks that take `seconds` each."""
    for _ in range(n):
        key = patient_take(dispatcher, worker)
        clock.now += seconds
        dispatcher.done(worker, key)


# -- order and completeness ------------------------------------------------------------------


@st.composite
def _works(draw):
    shape = draw(st.tuples(*[st.integers(1, 3)] * 3))
    n = draw(st.integers(1, 3))
    masks = [draw(st.lists(st.booleans(), min_size=27, max_size=27)) for _ in range(n)]
    contexts = [draw(st.tuples(*[st.integers(0, 5)] * 3)) for _ in range(n)]
    size = int(np.prod(shape))
    return [
        work(shape, np.array(mask[:size]).reshape(shape), run=f"step{k}", context=context)
        for k, (mask, context) in enumerate(zip(masks, contexts, strict=True))
    ]


def read_before(works, key):
    """Blocks to do of the step before that a block reads, found the slow way."""
    if key[0] == 0:
        return set()
    here, before = works[key[0]], works[key[0] - 1]
    reads = here.grid.block(key[1:]).write_box.grow(here.task.read_context())
    return {
        (key[0] - 1, *block.index) for block in before.grid.blocks()
        if before.todo[block.index] and block.write_box.intersect(reads).size
    }


def all_keys(works):
    return {(k, *map(int, i)) for k, w in enumerate(works) for i in np.argwhere(w.todo)}


@settings(max_examples=25)
@given(_works(), st.integers(1, 3), st.randoms(use_true_random=False))
def test_every_block_comes_once_and_after_all_that_it_reads(works, n_workers, random):
    workers = [Worker(f"w{n}", f"host-{n % 2}") for n in range(n_workers)]
    held, done = {}, set()
    with Dispatcher(works, Clock()) as dispatcher:
        for worker in workers:
            dispatcher.join(worker)
        while not dispatcher.finished:
            worker = random.choice(workers)
            if (key := patient_take(dispatcher, worker)) is not None:
                assert key not in held and key not in done
                assert read_before(works, key) <= done
                held[key] = worker
            assert held or dispatcher.finished, "blocks are left, and nobody gets one"
            if held and random.random() < 0.5:
                key = random.choice(sorted(held))
                dispatcher.done(held.pop(key), key)
                done.add(key)
        assert not held and done == all_keys(works)
        assert [p.done for p in dispatcher.progress] == [int(w.todo.sum()) for w in works]


def test_later_steps_go_first_so_that_results_come_early(start):
    dispatcher, _ = start(work(run="one"), work(run="two"))
    first = dispatcher.take(A)
    dispatcher.done(A, first)
    assert dispatcher.take(A) == (1, *first[1:])


def test_a_step_of_which_nothing_is_left_holds_up_nobody(start):
    nothing = work(run="one", todo=np.zeros((1, 1, 4), bool))
    dispatcher, clock = start(nothing, work(run="two", context=(2, 3, 4)))
    measured(dispatcher, clock, A, 4, 1.0)
    assert dispatcher.finished and dispatcher.progress[1].done == 4


# -- failures --------------------------------------------------------------------------------


def test_the_pause_before_the_next_attempt_grows(start):
    dispatcher, clock = start(work((1, 1, 1), max_retries=3))
    for pause in (0.5, 1.0, 2.0):
        dispatcher.failed(A, dispatcher.take(A))
        clock.now += 0.99 * pause
        assert dispatcher.take(A) is None
        clock.now += 0.02 * pause
        key = dispatcher.take(A)
        assert key == (0, 0, 0, 0)
        # Given back unharmed, so that the loop begins as before.
        assert dispatcher.leave(A, blame=False) == [key]
        dispatcher.join(A)


def test_pauses_do_not_grow_for_ever(start):
    dispatcher, clock = start(work((1, 1, 1), max_retries=50))
    for _ in range(40):
        dispatcher.failed(A, dispatcher.take(A))
        clock.now += dispatch.LONGEST_PAUSE_S + 0.01
    assert dispatcher.take(A) is not None


def test_a_failed_block_goes_to_another_host_while_there_is_one(start):
    dispatcher, clock = start(work((1, 1, 1)), workers=(A, B, C))
    dispatcher.failed(A, dispatcher.take(A))
    clock.now += 1.0
    assert dispatcher.take(B) is None  # of the same host
    assert dispatcher.take(C) == (0, 0, 0, 0)


def test_a_failed_block_comes_back_to_its_host_if_no_other_takes_it(start):
    dispatcher, clock = start(work((1, 1, 1)), workers=(A, C))
    dispatcher.failed(A, dispatcher.take(A))
    clock.now += 1.0
    assert dispatcher.take(A) is None
    clock.now += ELSEWHERE_S
    assert dispatcher.take(A) is not None


def test_a_failed_block_comes_back_to_its_host_when_the_others_are_gone(start):
    dispatcher, clock = start(work((1, 1, 1)), workers=(A, C))
    dispatcher.failed(A, dispatcher.take(A))
    dispatcher.leave(C, blame=False)
    clock.now += 1.0
    assert dispatcher.take(A) is not None


@pytest.mark.parametrize("max_retries", [0, 2])
def test_a_block_that_always_fails_is_given_up_and_what_reads_it_is_orphaned(start, max_retries):
    one = work(run="one", max_retries=max_retries)
    # A block of step two reads its neighbours in x too.
    dispatcher, clock = start(one, work(run="two", context=(0, 0, 1)))
    while not dispatcher.finished:
        key = dispatcher.take(A)
        if key is not None:
            (dispatcher.failed if key == (0, 0, 0, 1) else dispatcher.done)(A, key)
        clock.now += 5.0
    one, two = dispatcher.progress
    assert (one.done, one.failed, one.orphaned) == (3, 1, 0)
    assert (two.done, two.failed, two.orphaned) == (1, 0, 3)


def test_a_record_of_a_failure_by_who_does_not_hold_the_block_changes_nothing(start):
    dispatcher, _ = start(work((1, 1, 1), max_retries=0), workers=(A, C))
    key = dispatcher.take(A)
    dispatcher.failed(C, key)
    dispatcher.failed(C, (0, 7, 7, 7))
    assert dispatcher.held_by(A) == [key] and dispatcher.progress[0].failed == 0


# -- workers that are gone -------------------------------------------------------------------


def test_what_a_lost_worker_held_is_there_for_others_at_once(start):
    dispatcher, _ = start(work((1, 1, 2), max_retries=0), workers=(A, C))
    held = [dispatcher.take(A), dispatcher.take(A)]
    assert sorted(dispatcher.leave(A, blame=False)) == sorted(held)
    assert sorted([dispatcher.take(C), dispatcher.take(C)]) == sorted(held)
    assert dispatcher.take(C) is None


def test_a_block_that_took_too_many_workers_with_it_is_given_up(start):
    dispatcher, clock = start(work((1, 1, 1), max_retries=1), workers=())
    for worker in (A, B):
        dispatcher.join(worker)
        dispatcher.take(worker)
        dispatcher.leave(worker, blame=True)
        clock.now += 60.0
    assert dispatcher.finished and dispatcher.progress[0].failed == 1


def test_a_worker_that_is_gone_is_no_place_to_wait_for(start):
    dispatcher, clock = start(work((1, 1, 1)), workers=(A, C))
    dispatcher.take(C)
    dispatcher.leave(C, blame=True)  # its host is avoided, and was the only other one
    clock.now += 1.0
    assert dispatcher.take(A) is not None


def test_a_result_counts_even_if_its_worker_was_thought_lost(start):
    dispatcher, _ = start(work((1, 1, 1)), workers=(A, C))
    key = dispatcher.take(A)
    dispatcher.leave(A, blame=False)
    assert dispatcher.take(C) == key
    dispatcher.done(A, key)
    assert dispatcher.finished and dispatcher.progress[0].done == 1
    dispatcher.done(C, key)
    dispatcher.failed(C, key)
    assert dispatcher.progress[0] == dispatch.StepProgress(done=1)


# -- time ------------------------------------------------------------------------------------


def test_a_block_that_ran_out_of_its_time_may_take_twice_as_long_next(start):
    dispatcher, clock = start(work((1, 1, 1), block_timeout_s=100.0, max_retries=5))
    for limit in (100.0, 200.0, 400.0):
        key = dispatcher.take(A)
        clock.now += limit - 1
        assert dispatcher.overdue() == []
        clock.now += 2
        assert dispatcher.overdue() == [(A, key)]
        dispatcher.timed_out(A, key)
        assert dispatcher.overdue() == []
        clock.now += 60.0
    assert dispatcher.take(A) is not None


def test_limits_follow_the_times_that_were_measured(start):
    dispatcher, clock = start(work((1, 1, 20)))
    key = dispatcher.take(A)
    clock.now += 3000.0  # nothing is known yet
    assert dispatcher.overdue() == []
    dispatcher.done(A, key)
    measured(dispatcher, clock, A, 15, 1.0)
    key = dispatcher.take(A)
    clock.now += LEAST_LIMIT_S + 1
    assert dispatcher.overdue() == [(A, key)]


def test_a_configured_limit_gives_way_where_most_blocks_take_long(start):
    dispatcher, clock = start(work((1, 1, 20), block_timeout_s=10.0))
    measured(dispatcher, clock, A, 10, 9.0)
    dispatcher.take(A)
    clock.now += 26.0
    assert dispatcher.overdue() == []
    clock.now += 2.0
    assert len(dispatcher.overdue()) == 1


def test_a_straggler_is_told_of_once(start):
    dispatcher, clock = start(work((1, 1, 20)), workers=(A, C))
    measured(dispatcher, clock, A, 10, 4.0)
    key = dispatcher.take(C)
    clock.now += 19.0
    assert dispatcher.stragglers() == []
    clock.now += 2.0
    assert dispatcher.stragglers() == [(C, key, 21.0)]
    assert dispatcher.stragglers() == []


# -- a second attempt at slow blocks -----------------------------------------------------------


@pytest.fixture
def doubtful(start):
    """The last block is held by A for unusually long; C is idle."""
    dispatcher, clock = start(work((1, 1, 11), speculate=True, max_retries=0), workers=(A, B, C))
    measured(dispatcher, clock, A, 10, 1.0)
    key = dispatcher.take(A)
    assert dispatcher.take(C) is None
    clock.now += 11.0
    return dispatcher, clock, key


@pytest.mark.parametrize("faster", [A, C])
def test_the_first_of_two_attempts_counts(doubtful, faster):
    dispatcher, _, key = doubtful
    assert dispatcher.take(A) is None  # not twice by the same worker
    assert dispatcher.take(C) == key
    assert dispatcher.take(B) is None  # two are enough
    dispatcher.done(faster, key)
    assert dispatcher.finished and dispatcher.progress[0] == dispatch.StepProgress(done=11)
    dispatcher.done(C if faster is A else A, key)
    assert dispatcher.progress[0] == dispatch.StepProgress(done=11)
    assert dispatcher.n_held == 0


def test_a_failed_attempt_does_not_end_the_other_one(doubtful):
    dispatcher, _, key = doubtful
    dispatcher.take(C)
    dispatcher.failed(C, key)
    assert not dispatcher.finished and dispatcher.held_by(A) == [key]
    dispatcher.done(A, key)
    assert dispatcher.progress[0] == dispatch.StepProgress(done=11)


def test_the_last_of_two_attempts_to_fail_ends_the_block(doubtful):
    dispatcher, _, _ = doubtful
    dispatcher.take(C)
    dispatcher.leave(C, blame=True)
    dispatcher.leave(A, blame=True)
    assert dispatcher.finished and dispatcher.progress[0] == dispatch.StepProgress(done=10, failed=1)


def test_no_second_attempts_unless_wanted(start):
    dispatcher, clock = start(work((1, 1, 11)), workers=(A, C))
    measured(dispatcher, clock, A, 10, 1.0)
    dispatcher.take(A)
    clock.now += 500.0
    assert dispatcher.take(C) is None


# -- the end --------------------------------------------------------------------------------


def test_after_a_stop_only_what_is_in_work_is_waited_for(start):
    dispatcher, _ = start(work(max_retries=5), workers=(A, C))
    first, second = dispatcher.take(A), dispatcher.take(C)
    dispatcher.stop()
    assert dispatcher.take(A) is None and not dispatcher.finished
    dispatcher.failed(A, first)
    assert dispatcher.take(A) is None and not dispatcher.finished
    dispatcher.done(C, second)
    assert dispatcher.finished and dispatcher.progress[0].done == 1


# -- any order of anything -------------------------------------------------------------------


class Anything(RuleBasedStateMachine):
    """Workers come, go, fail, are slow or late: in the end every block is accounted for once."""

    @initialize(works=_works(), speculate=st.booleans(), retries=st.integers(0, 2))
    def begin(self, works, speculate, retries):
        self.works = [
            Work(Task(w.task.run, w.task.context, 100 if k else 2, retries, 50.0, speculate),
                 w.grid, w.todo)
            for k, w in enumerate(works)
        ]
        self.clock, self.n, self.alive = Clock(), 0, []
        self.done, self.late = set(), []
        self.dispatcher = Dispatcher(self.works, self.clock)
        self.dispatcher.__enter__()

    def teardown(self):
        if not hasattr(self, "dispatcher"):
            return
        self.finish()
        self.check_the_end()
        self.dispatcher.__exit__()

    @rule(host=st.sampled_from(["host-1", "host-2"]))
    def join(self, host):
        self.n += 1
        self.alive.append(Worker(f"w{self.n}", host))
        self.dispatcher.join(self.alive[-1])

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), n=st.integers(1, 4))
    def take(self, data, n):
        worker = data.draw(st.sampled_from(self.alive))
        for _ in range(n):
            held_before = self.dispatcher.held_by(worker)
            key = self.dispatcher.take(worker)
            if key is None:
                return
            assert self.dispatcher.accepting and key not in self.done and key not in held_before
            assert read_before(self.works, key) <= self.done
            assert len([w for w in self.alive if key in self.dispatcher.held_by(w)]) <= 2

    def _attempt(self, data):
        attempts = [(w, k) for w in self.alive for k in self.dispatcher.held_by(w)]
        return data.draw(st.sampled_from(attempts)) if attempts else None

    @rule(data=st.data())
    def finish_a_block(self, data):
        if attempt := self._attempt(data):
            self.dispatcher.done(*attempt)
            self.done.add(attempt[1])

    @rule(data=st.data())
    def fail_a_block(self, data):
        if attempt := self._attempt(data):
            self.dispatcher.failed(*attempt)
            self.late.append(attempt)

    @precondition(lambda self: self.alive)
    @rule(data=st.data(), blame=st.booleans())
    def leave(self, data, blame):
        worker = data.draw(st.sampled_from(self.alive))
        self._leave(worker, blame=blame)

    def _leave(self, worker, *, blame):
        self.alive.remove(worker)
        expected = self.dispatcher.held_by(worker)
        assert self.dispatcher.leave(worker, blame=blame) == expected
        assert self.dispatcher.held_by(worker) == []
        self.late += [(worker, key) for key in expected]

    @rule(seconds=st.sampled_from([0.3, 5.0, 40.0, 200.0]))
    def wait(self, seconds):
        self.clock.now += seconds
        self.dispatcher.stragglers()
        for worker, key in self.dispatcher.overdue():
            self.dispatcher.timed_out(worker, key)
            if worker in self.alive:
                self._leave(worker, blame=False)

    @precondition(lambda self: self.late)
    @rule(data=st.data())
    def say_something_late(self, data):
        """A worker that no longer counts says that a block has failed."""
        worker, key = data.draw(st.sampled_from(self.late))
        if worker not in self.alive:
            self.dispatcher.failed(worker, key)
            self.dispatcher.timed_out(worker, key)

    @precondition(lambda self: self.n > 3)
    @rule()
    def stop(self):
        self.dispatcher.stop()

    @invariant()
    def counts_are_those_of_daisy(self):
        if not hasattr(self, "dispatcher"):
            return
        for k, (step, progress) in enumerate(zip(self.works, self.dispatcher.progress, strict=True)):
            state = self.dispatcher._scheduler.task_states[step.task.run]
            assert progress.done == sum(key[0] == k for key in self.done)
            assert progress.done + state.skipped_count == state.completed_count or (
                progress.done == state.completed_count
            )
            assert progress.failed == state.failed_count
            held = sum(len(self.dispatcher.held_by(w)) for w in self.alive)
        assert (self.dispatcher.n_held == 0) == (held == 0)

    def finish(self):
        """Whoever comes now does all that is left."""
        self.join("host-3")
        worker = self.alive[-1]
        for other in self.alive[:-1]:
            self._leave(other, blame=False)
        for _ in range(10_000):
            if self.dispatcher.finished:
                return
            key = self.dispatcher.take(worker)
            for mine in [key] if key is not None else self.dispatcher.held_by(worker):
                self.dispatcher.done(worker, mine)
                self.done.add(mine)
            self.clock.now += 10.0
        raise AssertionError("blocks are left, and nobody gets one")

    def check_the_end(self):
        assert self.dispatcher.n_held == 0
        if self.dispatcher.accepting:
            assert not self.dispatcher._entries
            for step, progress in zip(self.works, self.dispatcher.progress, strict=True):
                ended = progress.done + progress.failed + progress.orphaned
                assert ended == int(step.todo.sum())


TestAnything = Anything.TestCase
TestAnything.settings = settings(max_examples=25, stateful_step_count=30)
