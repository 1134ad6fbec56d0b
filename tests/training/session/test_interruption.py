"""The first signal asks, the second ends."""

import os
import signal

import pytest

from em_blocks.training.session.interruption import SIGNALS, Interruption


@pytest.fixture(autouse=True)
def handlers():
    """Default handlers, whatever the tests were started by."""
    before = {number: signal.getsignal(number) for number in SIGNALS}
    signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    for number, handler in before.items():
        signal.signal(number, handler)


@pytest.mark.parametrize("number", SIGNALS)
def test_inside_later_a_signal_is_only_noted_and_said(number, capfd):
    with Interruption() as interruption, interruption.later():
        assert interruption.requested is None
        os.kill(os.getpid(), number)
        assert interruption.requested == number.name
    assert "saves its state" in capfd.readouterr().err


@pytest.mark.parametrize("number", SIGNALS)
def test_outside_of_later_a_signal_stops_at_once(number):
    with Interruption() as interruption:
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), number)
        assert interruption.requested == number.name


def test_what_may_be_repeated_is_left_at_once_also_for_a_signal_that_came_before():
    with Interruption() as interruption, interruption.later():
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            os.kill(os.getpid(), signal.SIGTERM)
        entered = []
        with pytest.raises(KeyboardInterrupt), interruption.at_once():
            entered.append(1)
        assert not entered


def test_a_second_signal_is_the_kernels():
    with Interruption() as interruption, interruption.later():
        os.kill(os.getpid(), signal.SIGTERM)
        assert [signal.getsignal(number) for number in SIGNALS] == [signal.SIG_DFL] * 2


def test_the_handlers_of_before_come_back_and_ignored_signals_stay_ignored():
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    before = signal.getsignal(signal.SIGTERM)
    with Interruption() as interruption, interruption.later():
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
        os.kill(os.getpid(), signal.SIGTERM)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    assert signal.getsignal(signal.SIGTERM) is before
