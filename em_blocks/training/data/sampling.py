"""Choose samples: the policy of a config, as demands on one place of a batch."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np

from em_blocks.errors import ConfigError
from em_blocks.models.sampling import Foreground, Sampling
from em_blocks.models.schedules import scheduled
from em_blocks.models.truth import ANNOTATED, OBJECT, Truth
from em_blocks.training.data.samples import MAX_ATTEMPTS, Sample


class Demand:
    """Say what one sample of a batch must hold.

    What is demanded with a probability is decided before the first attempt: empty samples must not
    become more probable by luck.

    Parameters
    ----------
    sampling : Sampling
    iteration : int
        Whose probabilities hold.
    entropy : sequence of ints
        Seed, iteration and place in the batch.
    classes : collection of str
        Of the label volumes, those that say what is known of a class.
    room : float
        Share of a sample that the smallest of the used boxes fills. Shares that are demanded count of
        that: a region smaller than a sample could never hold them else.

    Attributes
    ----------
    site : bool
        Whether a postsynaptic site is demanded.
    """

    def __init__(
        self, sampling: Sampling, iteration: int, entropy: Sequence[int],
        *, classes: Collection[str] = (), room: float = 1.0,
    ):
        self.sampling, self.classes, self.room = sampling, classes, room
        self.site = _random(entropy, 0) < scheduled(sampling.sites, iteration)
        self.foreground = [
            wanted for number, wanted in enumerate(sampling.foreground, start=1)
            if _random(entropy, number) < scheduled(wanted.probability, iteration)
        ]
        self.refused: Counter[str] = Counter()

    def accepts(self, sample: Sample) -> bool:
        """Tell whether a sample holds all that is demanded; count what it lacks."""
        reason = self._lack(sample)
        if reason is not None:
            self.refused[reason] += 1
        return reason is None

    def refusal(self) -> ConfigError:
        """Make the error of finding no sample."""
        reasons = ", ".join(f"{count} {reason}" for reason, count in self.refused.most_common())
        return ConfigError(
            f"{MAX_ATTEMPTS} random samples in a row were refused: {reasons}, so there is next to "
            "nothing to learn from. Lower what `training.sampling` demands (`training.min_labelled` "
            "and `training.reject_probability` in older configs), or give sources (or boxes of them) "
            "that hold more of it."
        )

    def _lack(self, sample: Sample) -> str | None:
        truth, sampling = sample.truth, self.sampling
        if _less(_labelled(truth), sampling.labelled * self.room):
            return f"were labelled in less than {sampling.labelled:.0%} of their voxels"
        for name, least in sampling.masked.items():
            if _less(truth.masks[name], least * self.room):
                return f"lay in the mask {name!r} with less than {least:.0%} of their voxels"
        for wanted in self.foreground:
            if self._lacks(wanted, truth):
                least = (
                    f"{wanted.voxels} voxels" if wanted.fraction is None
                    else f"{wanted.fraction:.2%} of their voxels"
                )
                return f"held {wanted.label!r} in less than {least}"
        if self.site and not sample.sites:
            return "held no postsynaptic site"
        return None

    def _lacks(self, wanted: Foreground, truth: Truth) -> bool:
        objects = self._objects(truth, wanted.label)
        if wanted.fraction is not None:
            return _less(objects, wanted.fraction * self.room)
        return np.count_nonzero(objects) < wanted.voxels

    def _objects(self, truth: Truth, label: str) -> np.ndarray:
        labels = truth.labels[label]
        return labels == OBJECT if label in self.classes else labels


def _random(entropy: Sequence[int], number: int) -> float:
    return np.random.default_rng((*entropy, MAX_ATTEMPTS + number)).random()


def _labelled(truth: Truth) -> np.ndarray:
    volumes = [*truth.labels.values(), *(truth.masks[name] for name in {ANNOTATED} & truth.masks.keys())]
    return np.any([values != 0 for values in volumes], axis=0)


def _less(values: np.ndarray, share: float) -> bool:
    """Tell whether less than `share` of the values are not 0."""
    return np.count_nonzero(values) < share * values.size
