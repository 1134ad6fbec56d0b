"""Ctrl-C and SIGTERM: the first asks a training to save its state, the second ends it at once."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import Self

SIGNALS = (signal.SIGINT, signal.SIGTERM)
_SAID = (
    "\n{name}: the training stops after this iteration and saves its state; a second one ends it "
    "at once, and the state saved before stays.\n"
)
_SHOW_CURSOR = "\x1b[?25h"  # a progress bar hides it, and a second signal leaves no time to undo that


class Interruption:
    """Context manager that turns the first signal into a request.

    Attributes
    ----------
    requested : str or None
        Name of the signal that came.
    """

    def __init__(self):
        self.requested: str | None = None
        self._at_once = True

    def __enter__(self) -> Self:
        handlers = {number: signal.getsignal(number) for number in SIGNALS}
        # Ignored signals stay so: a job in the background of a script is not meant by Ctrl-C.
        self._before = {n: h for n, h in handlers.items() if h is not signal.SIG_IGN}
        for number in self._before:
            signal.signal(number, self._handle)
        return self

    def __exit__(self, *exception) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    @contextmanager
    def later(self) -> Iterator[None]:
        """Inside, a signal only sets `requested`."""
        self._at_once = False
        try:
            yield
        finally:
            self._at_once = True

    @contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside `later`: a signal, also one that came before, raises `KeyboardInterrupt`."""
        self._at_once = True
        try:
            if self.requested:
                raise KeyboardInterrupt
            yield
        finally:
            self._at_once = False

    def _handle(self, number: int, frame: FrameType | None) -> None:
        self.requested = signal.Signals(number).name
        for each in self._before:  # by the kernel: a second one need not wait for Python
            signal.signal(each, signal.SIG_DFL)
        if self._at_once:
            raise KeyboardInterrupt
        text = _SAID.format(name=self.requested)
        # Not by print: the signal may have come in the middle of one.
        os.write(2, ((_SHOW_CURSOR if os.isatty(2) else "") + text).encode())
