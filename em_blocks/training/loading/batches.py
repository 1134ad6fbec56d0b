"""All batches of a training, in order, and how long it waited for them."""

from __future__ import annotations

import time
from collections.abc import Generator, Iterator
from contextlib import closing

from em_blocks.models.config import SetupConfig
from em_blocks.training.data.samples import SampleBatch, prefetch
from em_blocks.training.loading.loaders import Loaders, usual_loaders
from em_blocks.training.loading.stream import BatchStream


class Batches:
    """The batches `first` ... `last` - 1: batch i depends on the seed and i alone.

    Parameters
    ----------
    config : SetupConfig
    stream : BatchStream
        Makes them in this process if `training.loaders` is 0.
    context : (3,) int
        Of the network, voxels of raw.
    first, last : int

    Attributes
    ----------
    waited : float
        Seconds for which the training waited for a batch, the first one apart: loaders start then.
    """

    def __init__(
        self, config: SetupConfig, stream: BatchStream, context: tuple[int, int, int],
        first: int, last: int,
    ):
        self.config, self.stream, self.context = config, stream, context
        self.first, self.last = first, last
        self.waited = 0.0
        self._began: float | None = None
        self._made = self._timed()

    def __iter__(self) -> Iterator[SampleBatch]:
        return self._made

    def close(self) -> None:
        """End the loaders."""
        self._made.close()

    @property
    def waiting(self) -> float:
        """Share of the time since the first batch for which the training waited."""
        if self._began is None:
            return 0.0
        return self.waited / max(time.monotonic() - self._began, 1e-9)

    def _timed(self) -> Generator[SampleBatch, None, None]:
        with closing(self._batches()) as batches:
            for _ in range(self.first, self.last):
                asked = time.monotonic()
                batch = next(batches)
                if self._began is None:
                    self._began = time.monotonic()
                else:
                    self.waited += time.monotonic() - asked
                yield batch

    def _batches(self) -> Generator[SampleBatch, None, None]:
        said = self.config.training.loaders
        count = usual_loaders() if said is None else said
        if count == 0:
            return self.stream.batches(self.first, self.last)
        loaders = Loaders(self.config, self.context, self.first, self.last, count)
        return prefetch(loaders.get, self.first, self.last, cancel=loaders.close)
