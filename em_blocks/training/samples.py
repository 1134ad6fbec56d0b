"""A stream of batches in which batch i depends on the seed and i alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator

import numpy as np

from em_blocks.errors import ConfigError

Sample = dict[str, np.ndarray]
MAX_ATTEMPTS = 200


def draw_batch(
    draw: Callable[[int], Sample],
    *,
    seed: int,
    iteration: int,
    batch_size: int,
    min_labelled: float,
) -> Sample:
    """Stack `batch_size` samples that have enough labelled voxels.

    gunpowder's own Reject is not used: with a seeded request it draws the
    rejected sample again and again.

    Parameters
    ----------
    draw : callable
        Makes the sample of a seed; its "labels" tell how much is labelled.
    seed, iteration : int
        Together with the place in the batch and the attempt, the only source
        of randomness, so a resumed training sees the batches it would have.

    Returns
    -------
    dict of (n, ...) arrays, as `draw` names them

    Raises
    ------
    ConfigError
        If `MAX_ATTEMPTS` samples in a row were nearly unlabelled.
    """
    samples = [
        _draw_labelled(draw, (seed, iteration, place), min_labelled) for place in range(batch_size)
    ]
    return {name: np.stack([sample[name] for sample in samples]) for name in samples[0]}


def _draw_labelled(draw, entropy: tuple[int, ...], min_labelled: float) -> Sample:
    for attempt in range(MAX_ATTEMPTS):
        state = np.random.SeedSequence((*entropy, attempt)).generate_state(1)
        sample = draw(int(state[0]))
        if np.count_nonzero(sample["labels"]) >= min_labelled * sample["labels"].size:
            return sample
    raise ConfigError(
        f"{MAX_ATTEMPTS} random samples in a row were labelled in less than {min_labelled:.0%} of "
        "their voxels, so there is next to nothing to learn from. Lower `training.min_labelled`, "
        "or give sources (or boxes of them) with more labels."
    )


def prefetch(make: Callable[[int], Sample], first: int, last: int) -> Iterator[Sample]:
    """Yield ``make(first)`` ... ``make(last - 1)``, each prepared while the last is used.

    One thread in order, not gunpowder's PreCache: worker processes would draw
    their own seeds, and a stopped training could not be continued exactly.
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
        worker.join()
