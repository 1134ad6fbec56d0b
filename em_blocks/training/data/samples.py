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
    draw: Callable[[int, bool], Sample],
    *,
    seed: int,
    iteration: int,
    batch_size: int,
    min_labelled: float,
    reject_probability: float = 0.0,
) -> Sample:
    """Stack `batch_size` samples that have enough labelled voxels, and synapses where they must.

    gunpowder's own Reject is not used: with a seeded request it draws the
    rejected sample again and again.

    Parameters
    ----------
    draw : callable
        Makes the sample of a seed, if its second argument is true one that should hold a
        postsynaptic site; its "labels" tell how much is labelled, its "sites" how many it holds.
    seed, iteration : int
        Together with the place in the batch and the attempt, the only source
        of randomness, so a resumed training sees the batches it would have.
    min_labelled : float
        Samples with a smaller labelled share are drawn again.
    reject_probability : float
        Share of the samples that are drawn again until they hold a postsynaptic site.

    Returns
    -------
    dict of (n, ...) arrays, as `draw` names them

    Raises
    ------
    ConfigError
        If `MAX_ATTEMPTS` samples in a row were refused.
    """
    samples = [
        _draw_accepted(draw, (seed, iteration, place), min_labelled, reject_probability)
        for place in range(batch_size)
    ]
    return {name: _stacked([sample[name] for sample in samples]) for name in samples[0]}


def _stacked(arrays: list[np.ndarray]) -> np.ndarray:
    """Arrays behind each other; those with fewer rows than others are filled up with nan."""
    if len({array.shape for array in arrays}) > 1:
        most = max(len(array) for array in arrays)
        rest = [(0, 0)] * (arrays[0].ndim - 1)
        arrays = [
            np.pad(array, [(0, most - len(array)), *rest], constant_values=np.nan)
            for array in arrays
        ]
    return np.stack(arrays)


def _draw_accepted(
    draw, entropy: tuple[int, ...], min_labelled: float, reject_probability: float
) -> Sample:
    # Decided before the first attempt: empty samples must not become more probable by luck.
    needs_site = np.random.default_rng((*entropy, MAX_ATTEMPTS)).random() < reject_probability
    few, empty = 0, 0
    for attempt in range(MAX_ATTEMPTS):
        state = np.random.SeedSequence((*entropy, attempt)).generate_state(1)
        sample = draw(int(state[0]), needs_site)
        if np.count_nonzero(sample["labels"]) < min_labelled * sample["labels"].size:
            few += 1
        elif needs_site and not sample["sites"]:
            empty += 1
        else:
            return sample
    raise ConfigError(
        f"{MAX_ATTEMPTS} random samples in a row were refused: {few} were labelled in less than "
        f"{min_labelled:.0%} of their voxels, {empty} held no postsynaptic site, so there is next to "
        "nothing to learn from. Lower `training.min_labelled` or `training.reject_probability`, or "
        "give sources (or boxes of them) with more labels and synapses."
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
