"""A stream of batches in which batch i depends on the seed and i alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Generator, Sequence
from dataclasses import dataclass

import numpy as np

from em_blocks.models.truth import Truth

MAX_ATTEMPTS = 200


@dataclass(frozen=True)
class Sample:
    """One augmented sample.

    Attributes
    ----------
    raw : (z, y, x) float32 array
        As the network sees it, larger than the truth by the network's context.
    truth : Truth
        What is known of the network's output; the corner of its first voxel is the origin.
    arrays : dict of name to array
        What losses read: "<head>/target", "<head>/mask".
    sites : int
        Postsynaptic sites in the box of the truth.
    """

    raw: np.ndarray
    truth: Truth
    arrays: dict[str, np.ndarray]
    sites: int = 0


class SampleBatch(dict[str, np.ndarray]):
    """Arrays of n samples by name: "raw" (n, 1, z, y, x), and what losses read, (n, ...).

    Parameters
    ----------
    samples : sequence of Sample
        Which the arrays are made of; kept as `samples`.
    """

    def __init__(self, samples: Sequence[Sample]):
        super().__init__(raw=np.stack([sample.raw for sample in samples])[:, None])
        for name in samples[0].arrays:
            self[name] = np.stack([sample.arrays[name] for sample in samples])
        self.samples = tuple(samples)


def draw_sample(
    draw: Callable[[int], Sample], accept: Callable[[Sample], bool], entropy: Sequence[int],
    alive: Callable[[], None] = lambda: None,
) -> Sample | None:
    """Draw samples until one is accepted; None if `MAX_ATTEMPTS` were not.

    gunpowder's own Reject is not used: with a seeded request it draws the
    rejected sample again and again.

    Parameters
    ----------
    draw : function
        Makes the sample of a seed.
    accept : function
        Whether a sample is used.
    entropy : sequence of ints
        Seed, iteration and place in the batch: with the attempt, the only source of randomness,
        so a resumed training sees the batches it would have.
    alive : function
        Called before each attempt.
    """
    for attempt in range(MAX_ATTEMPTS):
        alive()
        state = np.random.SeedSequence((*entropy, attempt)).generate_state(1)
        sample = draw(int(state[0]))
        if accept(sample):
            return sample
    return None


def prefetch(
    make: Callable[[int], SampleBatch], first: int, last: int,
    cancel: Callable[[], None] = lambda: None,
) -> Generator[SampleBatch, None, None]:
    """Yield ``make(first)`` ... ``make(last - 1)``, each prepared while the last is used.

    One thread in order, not gunpowder's PreCache: worker processes would draw
    their own seeds, and a stopped training could not be continued exactly.

    Parameters
    ----------
    make : function
    first, last : int
    cancel : function
        Called at the end, however it comes: `make` must not go on for long after it.
    """
    ready: queue.Queue = queue.Queue(maxsize=2)
    stop = threading.Event()

    def fill() -> None:
        for index in range(first, last):
            try:
                item = make(index)
            except BaseException as error:  # raised again where the batch is used
                item = error
            while not stop.is_set():
                try:
                    ready.put(item, timeout=0.2)
                    break
                except queue.Full:
                    continue
            if stop.is_set() or isinstance(item, BaseException):
                return

    worker = threading.Thread(target=fill, name="batches", daemon=True)
    worker.start()
    try:
        for _ in range(first, last):
            item = ready.get()
            if isinstance(item, BaseException):
                raise item
            yield item
    finally:
        stop.set()
        cancel()
        worker.join()
