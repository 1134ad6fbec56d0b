"""Pickles: plain arrays of numbers are read, everything else is refused and never executed."""

import io
import pickle
import pickletools

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from em_blocks.volumes.imports.pickles import NotAnArrayError, read_pickled_array

LARGE = np.random.default_rng(0).integers(0, 2**16, (30, 40, 70)).astype(np.uint16)
SMALL = LARGE[:2, :3, :4].copy()
NUMBERS = st.one_of(
    hnp.integer_dtypes(), hnp.unsigned_integer_dtypes(), hnp.floating_dtypes(sizes=(16, 32, 64))
)


def read(data, most_bytes=1 << 30):
    """The array of a pickle."""
    sink = io.BytesIO()
    found = read_pickled_array(io.BytesIO(data), sink, most_bytes=most_bytes)
    values = np.frombuffer(sink.getvalue(), found.dtype)
    return values.reshape(found.shape, order="F" if found.fortran else "C")


def refused(data, **options):
    with pytest.raises(NotAnArrayError) as caught:
        read(data, **options)
    return str(caught.value)


# -- arrays ----------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", [3, 4, 5])
@pytest.mark.parametrize("values", [SMALL, LARGE, np.asfortranarray(LARGE), LARGE[:, ::2], LARGE > 9])
def test_an_array_of_any_arrangement_is_read(protocol, values):
    found = read(pickle.dumps(values, protocol=protocol))
    assert found.dtype == values.dtype
    np.testing.assert_array_equal(found, values)


@pytest.mark.parametrize("protocol", [3, 4, 5])
@given(values=hnp.arrays(NUMBERS, hnp.array_shapes(min_dims=0, max_dims=4)))
def test_an_array_of_any_numbers_is_read_in_its_byte_order(protocol, values):
    found = read(pickle.dumps(values, protocol=protocol))
    assert found.dtype == values.dtype
    assert found.tobytes() == values.tobytes()


def test_a_pickle_of_numpy_1_is_read():
    data = pickle.dumps(LARGE, protocol=4)
    data = data.replace(b"\x16numpy._core.multiarray", b"\x15numpy.core.multiarray")
    data = data[:2] + data[11:]  # without the frame, whose length is now wrong
    assert b"numpy.core.multiarray" in data and b"_core" not in data
    np.testing.assert_array_equal(read(data), LARGE)


def test_a_pickle_of_python_2_is_read():
    """Written by hand as Python 2.7 and numpy 1 write it: names without _core, values as a string."""
    values = SMALL.tobytes()
    data = (
        b"\x80\x02cnumpy.core.multiarray\n_reconstruct\nq\x00cnumpy\nndarray\nq\x01K\x00\x85q\x02U\x01b"
        b"\x87q\x03Rq\x04(K\x01K\x02K\x03K\x04\x87q\x05cnumpy\ndtype\nq\x06U\x02u2q\x07K\x00K\x01\x87"
        b"q\x08Rq\t(K\x03U\x01<q\nNNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tq\x0bb\x89U"
        + bytes([len(values)]) + values + b"q\x0ctq\rb."
    )
    np.testing.assert_array_equal(pickle.loads(data, encoding="latin1"), SMALL)
    np.testing.assert_array_equal(read(data), SMALL)


def test_old_protocols_are_read_or_refused_with_what_to_do():
    np.testing.assert_array_equal(read(pickle.dumps(SMALL, protocol=2)), SMALL)
    assert "protocol=4" in refused(pickle.dumps(LARGE, protocol=2))
    assert "the step" in refused(pickle.dumps(SMALL, protocol=0))


# -- attacks ---------------------------------------------------------------------------


class Calls:
    """Pickled as a call of a function."""

    def __init__(self, function, *arguments):
        self.call = (function, arguments)

    def __reduce__(self):
        return self.call


class Sub(np.ndarray):
    """Anything of its own, for example a state that runs code."""


def attacks(trace):
    import builtins
    import os
    import subprocess

    command = f"touch {trace}"
    yield "system", Calls(os.system, command)
    yield "Popen", Calls(subprocess.Popen, command)
    yield "eval", Calls(builtins.eval, f"open({str(trace)!r}, 'w')")
    yield "getattr", Calls(getattr, "text", "upper")
    yield "exec", [np.zeros(3), Calls(builtins.exec, f"open({str(trace)!r}, 'w')")]
    yield "O8", np.array([Calls(os.system, command), None], object)
    yield "V", np.array([(1, Calls(os.system, command))], [("a", int), ("b", object)])
    yield "Sub", SMALL.view(Sub)
    yield "_load", Calls(np.load, str(trace))
    yield "recarray", np.rec.array([(1, 2)], dtype=[("a", int), ("b", int)])
    yield "MaskedArray", np.ma.masked_array(SMALL, SMALL > 3)
    yield "memmap", np.memmap(trace.with_suffix(".npy"), np.uint8, "w+", shape=(2, 3, 4))


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_a_pickle_that_calls_anything_is_refused_and_nothing_happens(tmp_path, protocol):
    trace = tmp_path / "trace"
    for name, value in attacks(trace):
        message = refused(pickle.dumps(value, protocol=protocol))
        if name in ("system", "Popen", "eval", "getattr", "Sub"):
            assert name in message
    assert not trace.exists()


def test_the_message_says_what_a_pickle_would_have_called():
    import os

    assert "it names posix.system" in refused(pickle.dumps(Calls(os.system, "true")))


def test_a_call_hidden_in_the_state_of_an_array_is_refused(tmp_path):
    """An array whose shape, and one whose values, come from a call."""
    import os

    for part in range(5):
        function, arguments, state = SMALL.__reduce__()
        state = [*state]
        state[part] = Calls(os.system, f"touch {tmp_path}/trace")
        hidden = Calls(function, *arguments)
        hidden.call = (function, arguments, tuple(state))
        refused(pickle.dumps(hidden))
    assert list(tmp_path.iterdir()) == []


def test_known_names_used_otherwise_are_refused():
    reconstruct, *_ = SMALL.__reduce__()
    for made in [
        Calls(reconstruct, Sub, (0,), b"b"), Calls(reconstruct, np.ndarray, (10**12,), b"b"),
        Calls(reconstruct, np.ndarray, (0,)), Calls(np.ndarray, (2, 3, 4)), Calls(np.dtype, "u1"),
        np.dtype("u1"), np.ndarray, reconstruct,
    ]:
        refused(pickle.dumps(made))


def test_a_shape_that_is_larger_than_the_values_is_refused_before_memory_is_taken():
    function, arguments, state = SMALL.__reduce__()
    lying = Calls(function, *arguments)
    lying.call = (function, arguments, (1, (10**6, 10**6, 10**6), *state[2:]))
    assert "needs 2000000000000000000 bytes, but there are 48" in refused(pickle.dumps(lying))


def test_values_that_are_longer_than_the_file_or_than_the_room_are_refused():
    data = bytearray(pickle.dumps(LARGE, protocol=4))
    steps = pickletools.genops(bytes(data))
    at = next(position for code, _, position in steps if code.name.startswith("BINBYTES"))
    assert "it is no whole pickle" in refused(bytes(data[: at + 5000]))
    assert "there is room for 1,000" in refused(bytes(data), most_bytes=1000)
    lying = b"\x80\x04\x8e" + (2**62).to_bytes(8, "little") + b"short"
    assert "there is room for" in refused(lying)


def test_a_second_array_and_endless_programs_are_refused():
    assert "more in it than one array" in refused(pickle.dumps(SMALL) * 2)
    assert "of more than one array" in refused(pickle.dumps((LARGE, LARGE.copy())))
    assert "more than 1000 steps" in refused(b"\x80\x04" + b"N" * 5000 + b".")
    assert "whole pickle" in refused(b"c" + b"x" * 10**7)


def test_tuples_that_double_at_every_step_take_no_time():
    doubling = b"\x80\x04)" + b"".join(b"\x94h" + bytes([n]) + b"\x86" for n in range(200))
    refused(doubling + b".")
    refused(doubling + doubling[2:].replace(b"\x94", b"") + b"\x93.")


@pytest.mark.parametrize("data", [b"", b"not a pickle", b"\x80\x04.", b"\x80\x04N.", pickle.dumps([1])])
def test_what_is_no_array_is_refused(data):
    refused(data)


@settings(max_examples=300)
@given(st.data())
def test_a_damaged_pickle_is_read_or_refused_but_never_anything_else(data):
    whole = pickle.dumps(SMALL, protocol=data.draw(st.sampled_from([2, 3, 4, 5])))
    changed = bytearray(whole)
    for _ in range(data.draw(st.integers(1, 4))):
        changed[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    try:
        found = read(bytes(changed))
    except NotAnArrayError:
        return
    assert found.dtype.kind in "uifb"
