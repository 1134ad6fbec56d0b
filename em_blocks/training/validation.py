"""Validation: scores of a network on boxes that it does not learn from."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence

import numpy as np
from torch import nn

from em_blocks.errors import ConfigError
from em_blocks.models.config import SetupConfig
from em_blocks.training.data.sources import TrainingData
from em_blocks.training.heads import HeadTraining
from em_blocks.training.scores.inference import predict_box
from em_blocks.training.scores.partners import partner_scores, synapses_of_box
from em_blocks.training.scores.voxels import NO_SCORE, kind_of, mean_of_known

Outputs = dict[str, np.ndarray]
UNDEFINED = "undefined"
"""Key of an entry that says why scores are null."""
_NOTHING_KNOWN = "nothing there is known that it could be measured on"


class Validation:
    """Scores of networks on the boxes of `training.validation`.

    Parameters
    ----------
    config : SetupConfig
    heads : mapping of name to training of a head
    boxes : sequence of TrainingData

    Attributes
    ----------
    names : list of str
        Of all scores.
    never : dict of name to reason
        Scores that have no value on these boxes whatever a network predicts.

    Raises
    ------
    ConfigError
        If `training.score` is no score of the heads, or has no value on these boxes whatever a
        network predicts.
    """

    def __init__(
        self,
        config: SetupConfig,
        heads: Mapping[str, HeadTraining],
        boxes: Sequence[TrainingData],
    ):
        self.config, self.heads, self.boxes = config, heads, boxes
        possible = self._entry(self._nothing)
        self.names = [key for key in possible if key != UNDEFINED]
        self.never = possible.get(UNDEFINED, {})
        self._check_score()

    def entry(self, network: nn.Module, iteration: int) -> dict:
        """Entry of the history: "iteration", and every score, the mean of the boxes that have it.

        A score without value is None, and "undefined" says why.
        """
        try:
            found = self._entry(lambda data: predict_box(network, data, self.config))
        except ArithmeticError as error:  # of one box, but then the network is no good for any
            found = dict.fromkeys(self.names)
            found[UNDEFINED] = dict.fromkeys(self.names, str(error))
        return {"iteration": iteration, **found}

    def _entry(self, predict: Callable[[TrainingData], Outputs]) -> dict:
        parts = [self._scores(predict(data), data) for data in self.boxes]
        means = {key: mean_of_known([part[key] for part in parts]) for key in parts[0]}
        why = {key: _NOTHING_KNOWN for key, value in means.items() if not math.isfinite(value)}
        scores = {key: None if key in why else value for key, value in means.items()}
        return scores | ({UNDEFINED: why} if why else {})

    def _scores(self, predicted: Outputs, data: TrainingData) -> dict[str, float]:
        labels = np.asarray(data.labels[data.box])
        synapses = synapses_of_box(data, self.config.voxel_size)
        found = {
            key: value
            for name, head in self.heads.items()
            for key, value in head.validate(predicted[name], labels, synapses).items()
        }
        kinds = {head.head.kind: name for name, head in self.heads.items()}
        if {"indicator", "direction_vectors"} <= kinds.keys():
            found |= partner_scores(
                predicted[kinds["indicator"]][0], predicted[kinds["direction_vectors"]],
                labels, synapses, self.config.voxel_size,
            )
        return found

    def _nothing(self, data: TrainingData) -> Outputs:
        """What a network that finds nothing predicts: enough to know which scores there will be."""
        shape = tuple(last - first for first, last in zip(data.begin, data.end, strict=True))
        return {
            name: np.zeros((head.head.channels, *shape), np.float32)
            for name, head in self.heads.items()
        }

    def _check_score(self) -> None:
        score, why = self.config.training.score, self.never
        scores = [key for key in self.names if kind_of(key) not in NO_SCORE]
        usable = sorted(set(scores) - why.keys())
        if score not in scores:
            raise ConfigError(
                f"training.score is {score!r}, but checkpoints can be chosen only by {usable}: that is "
                "what the validation of these heads gives. Use one of these."
            )
        if score in why:
            raise ConfigError(
                f"training.score is {score!r}, which has no value in the boxes of training.validation "
                f"({', '.join(data.name for data in self.boxes)}): {why[score]}. No checkpoint could "
                f"ever be the best. Use boxes that hold it, or another score"
                f"{f' ({usable})' if usable else ''}."
            )
