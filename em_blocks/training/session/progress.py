"""Progress of a loop: a bar on a terminal, lines in a log file."""

from __future__ import annotations

import logging
import time
from datetime import timedelta

from rich.console import Console
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    TextColumn,
    TimeElapsedColumn,
    TimeRemainingColumn,
)
from rich.progress import Progress as Bar

logger = logging.getLogger(__name__)

LINE_SECONDS = 30


class Progress:
    """Context manager that counts iterations from `done` to `total`."""

    def __init__(self, done: int, total: int):
        self.done, self.total, self.first = done, total, done
        console = Console(stderr=True)
        self.bar = Bar(
            TextColumn("training"),
            BarColumn(),
            MofNCompleteColumn(),
            TextColumn("{task.fields[text]}"),
            TimeElapsedColumn(),
            TimeRemainingColumn(),
            console=console,
            disable=not console.is_terminal,
        )
        self.task = self.bar.add_task("", total=total, completed=done, text="")

    def __enter__(self):
        self.bar.start()
        self.began = self.said = time.monotonic()
        return self

    def __exit__(self, *exception):
        self.bar.stop()

    def advance(self, loss: float) -> None:
        """One more iteration, with its loss."""
        self.done += 1
        now = time.monotonic()
        rate = (self.done - self.first) / max(now - self.began, 1e-9)
        text = f"loss {loss:.4f}, {rate:.2f} it/s"
        self.bar.update(self.task, completed=self.done, text=text)
        if self.bar.disable and (now - self.said > LINE_SECONDS or self.done == self.total):
            self.said = now
            left = timedelta(seconds=round((self.total - self.done) / rate))
            logger.info("%d/%d, %s, %s left", self.done, self.total, text, left)
